#include "app/rehearsal.h"

#include <algorithm>
#include <memory>
#include <ranges>
#include <set>

#include <fmt/format.h>

#include "api/handler.h"
#include "app/defaults.h"
#include "base/clock.h"
#include "base/text.h"
#include "client/apply.h"
#include "client/file_follower.h"
#include "client/names.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "control/custom_server.h"
#include "control/security.h"
#include "control/ways_in.h"
#include "registry/admission.h"
#include "resources/text_rules.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

constexpr const char* broker_api = "mqttbroker.iotoperations.azure.com/v1";
constexpr const char* default_namespace = "azure-iot-operations";

/// A resource API without a network, as its administrator sees it. Its last answer is kept for its causes.
class MemoryApi final : public client::Transport {
  public:
    explicit MemoryApi(registry::Registry& registry)
        : tokens_(registry, "https://kubernetes.default.svc.cluster.local", {}),
          handler_(registry, tokens_, "rehearsal") {}

    Result<client::Response> request(const std::string& method, const std::string& target,
                                     const std::string& body, const std::string& content_type,
                                     const std::string& accept) override {
        const auto question = target.find('?');
        api::Request request{.method = method,
                             .path = target.substr(0, question),
                             .accept = accept,
                             .content_type = content_type,
                             .body = body,
                             .user = {.name = "system:admin",
                                      .uid = {},
                                      .groups = {"system:masters", "system:authenticated"},
                                      .extra = {}}};
        if (question != std::string::npos)
            for (const auto pair : split(std::string_view(target).substr(question + 1), '&')) {
                const auto equal = pair.find('=');
                request.query[std::string(pair.substr(0, equal))] =
                    equal == std::string_view::npos ? std::string() : std::string(pair.substr(equal + 1));
            }
        const auto reply = handler_.handle(request);
        last_ = {.status = reply.status, .body = {}, .text = reply.body, .warnings = {}};
        if (auto parsed = resources::parse_json(reply.body, resources::written_depth_max))
            last_.body = std::move(*parsed);
        for (const auto& [name, value] : reply.headers)
            if (name == "Warning") last_.warnings.push_back(value);
        return last_;
    }
    Result<int> watch(const std::string& target, const std::string&,
                      const std::function<bool(const Json&)>&) override {
        return fail(fmt::format("{}: a rehearsal has no watches", target));
    }
    void interrupt() override {}
    [[nodiscard]] const client::Response& last() const noexcept { return last_; }

  private:
    api::Tokens tokens_;
    api::Handler handler_;
    client::Response last_;
};

/// What controllers make of what was taken.
class Examiner {
  public:
    Examiner(control::LocalObjects& objects, Rehearsal& out) : objects_(objects), out_(out) {}

    void look_at(const Json& object, const std::string& at) {
        place_ = at;
        const auto kind = text_at(object, "kind"), api_version = text_at(object, "apiVersion");
        space_ = client::namespace_of(object, default_namespace);
        const auto name = text_at(object, "metadata.name");
        if (api_version == broker_api) broker(object, kind);
        if (api_version == broker_api && kind == "BrokerAuthentication") authentication(name);
        if (api_version == broker_api && kind == "BrokerAuthorization")
            for (const auto& warning : security_.policy(space_, name).warnings) note(warning);
        if (api_version == broker_api && kind == "BrokerListener") listener(object);
        if (api_version != "cert-manager.io/v1") return;
        if (kind == "Certificate")
            if (const auto why = control::certificate_fault(object, clock_.wall_ms()); !why.empty())
                fault(why);
        if (kind == "Issuer" || kind == "ClusterIssuer") issuer(object);
    }

  private:
    void fault(const std::string& text) { out_.faults.push_back(fmt::format("{}: {}", place_, text)); }
    void note(const std::string& text) { out_.notes.push_back(fmt::format("{}: {}", place_, text)); }
    bool is_there(const char* api_version, const char* kind, const std::string& space,
                  const std::string& name) const {
        return objects_.get(*resources::find_kind(api_version, kind), space, name) != nullptr;
    }

    /// What is said of an object that is named and not there: what is near, and what there is.
    [[nodiscard]] std::string absent(const char* api_version, const char* kind, const std::string& space,
                                     const std::string& name) const {
        std::vector<std::string> there;
        for (const auto& object : objects_.list(*resources::find_kind(api_version, kind), space))
            there.push_back(text_at(*object, "metadata.name"));
        auto out = fmt::format("{} {}/{} is not in these files{}", kind, space, resources::shortened(name),
                               control::did_you_mean(name, there));
        if (!there.empty())
            out += fmt::format(", there {}: {}", there.size() == 1 ? "is" : "are", control::listed(there));
        return out;
    }

    /// The Broker that a listener or rules name. Rules act wherever a listener names them, and were meant for
    /// one.
    void broker(const Json& object, const std::string& kind) {
        if (kind == "Broker") return;
        const auto name = registry::broker_of(object);
        if (name.empty() || is_there(broker_api, "Broker", space_, name)) return;
        const auto* field = text_at(object, "spec.brokerRef") == name ? "spec.brokerRef"
                                                                      : "metadata.ownerReferences";
        note(fmt::format("{}: {}{}", field, absent(broker_api, "Broker", space_, name),
                         kind == "BrokerListener" ? "; no port opens without it" : ""));
    }

    void authentication(const std::string& name) {
        const auto made = security_.authenticator(space_, name);
        if (!made.fault.empty())
            made.lacks_source && made.only_lacks ? note(made.fault + " (not in these files)") : fault(made.fault);
        for (const auto& warning : made.warnings) note(warning);
        std::vector<control::WayIn> quiet;
        for (const auto& way : made.ways) {
            // A server is not asked; what is wrong with its address or certificates is known without.
            if (way.server == nullptr)
                quiet.push_back(way);
            else if (const auto why = way.server->fault(); !why.empty())
                fault(fmt::format("spec.authenticationMethods: customSettings: {}", why));
        }
        if (!made.fault.empty()) return;
        const auto ways = control::look_at(quiet, clock_.wall_ms());
        if (!ways.nobody.empty()) note(ways.nobody);
        for (const auto& warning : ways.warnings) note(warning);
    }

    void listener(const Json& object) {
        // The name is the Service's too, under stricter rules.
        const auto service = text_at(object, "spec.serviceName", text_at(object, "metadata.name"));
        for (const auto& wrong : resources::validate(
                 *resources::find_kind("v1", "Service"),
                 {{"metadata", {{"name", service}}}, {"spec", {{"ports", Json::array({{{"port", 1883}}})}}}}))
            fault(fmt::format("spec.serviceName: {}", wrong.message));
        const auto& ports = at_path(object, "spec.ports");
        for (std::size_t i = 0; ports.is_array() && i < ports.size(); ++i)
            port(object, ports[i], fmt::format("spec.ports[{}]", i));
    }

    void port(const Json& object, const Json& port, const std::string& path) {
        const auto authentication = text_at(port, "authenticationRef"),
                   authorization = text_at(port, "authorizationRef");
        if (!authentication.empty() && !is_there(broker_api, "BrokerAuthentication", space_, authentication))
            note(fmt::format("{}.authenticationRef: {}; the port does not open without it", path,
                             absent(broker_api, "BrokerAuthentication", space_, authentication)));
        if (!authorization.empty() && !is_there(broker_api, "BrokerAuthorization", space_, authorization))
            note(fmt::format("{}.authorizationRef: {}; the port does not open without it", path,
                             absent(broker_api, "BrokerAuthorization", space_, authorization)));
        if (!authorization.empty() && authentication.empty())
            note(fmt::format("{}.authorizationRef: has no effect without authenticationRef", path));
        const auto& tls = at_path(port, "tls");
        if (!tls.is_object()) return;
        const auto secret = text_at(tls, "manual.secretRef");
        if (!secret.empty() && !is_there("v1", "Secret", space_, secret)) {
            note(fmt::format("{}.tls.manual.secretRef: {}; the port does not open without it", path,
                             absent("v1", "Secret", space_, secret)));
            return;
        }
        const auto made = security_.tls(object, port, control::expected_hosts(object), false, {}, false);
        if (!secret.empty()) {
            if (!made.fault.empty())
                fault(fmt::format(
                    "{}.{}", path,
                    made.fault.starts_with("tls") ? made.fault : "tls.manual.secretRef: " + made.fault));
            for (const auto& warning : made.warnings)
                note(fmt::format("{}.tls.manual.secretRef: Secret {}: {}", path, secret, warning));
            return;
        }
        const auto certificate =
            objects_.get(*resources::find_kind("cert-manager.io/v1", "Certificate"), space_, made.secret);
        const auto why =
            certificate == nullptr ? made.fault : control::certificate_fault(*certificate, clock_.wall_ms());
        if (!why.empty()) fault(fmt::format("{}.tls.certManagerCertificateSpec: {}", path, why));
    }

    void issuer(const Json& object) {
        const auto secret = text_at(object, "spec.ca.secretName");
        const auto space =
            text_at(object, "kind") == "ClusterIssuer" ? std::string(control::ca_namespace) : space_;
        const auto why = control::issuer_fault(objects_, object, clock_.wall_ms());
        if (why.empty()) return;
        if (!secret.empty() && !is_there("v1", "Secret", space, secret))
            note(fmt::format("spec.ca.secretName: {}", absent("v1", "Secret", space, secret)));
        else
            fault(why);
    }

    control::LocalObjects& objects_;
    Rehearsal& out_;
    Clock clock_ = machine_clock();
    std::shared_ptr<client::HttpPool> pool_ = std::make_shared<client::HttpPool>();
    control::SecurityBuilder security_{
        objects_,
        {.clock = clock_,
         .token_keys =
             [] {
                 return control::TokenKeys{.issuers = {"https://kubernetes.default.svc.cluster.local"},
                                           .key_set = Json::object()};
             },
         .probe_secret = {},
         .crew = {},
         .custom_server =
             [this](const Json& settings) { return control::make_custom_server(pool_, settings, clock_); },
         .revocation = {}}};
    std::string place_, space_;
};

}  // namespace

Rehearsal rehearse(const std::vector<resources::Document>& documents) {
    Rehearsal out;
    // As the follower of files does it: the kinds' own rules first, for all documents.
    std::vector<const resources::Document*> good;
    for (const auto& document : documents) {
        auto faults = client::validate_documents({document}, true);
        if (faults.empty()) good.push_back(&document);
        std::ranges::move(faults, std::back_inserter(out.faults));
    }
    auto registry = registry::Registry::open(":memory:");
    if (!registry) {
        out.faults.push_back(registry.error().message);
        return out;
    }
    api::Authorizer::bootstrap(**registry);
    MemoryApi api(**registry);
    client::Kinds kinds(api);
    std::ranges::stable_sort(good, {}, [](const auto* document) { return client::rank_of(*document); });
    std::vector<std::pair<const resources::Document*, Json>> taken;
    for (const auto* document : good) {
        const auto done = client::apply_document(
            api, kinds, *document,
            {.name_space = default_namespace, .server_side = true, .manager = client::FileFollower::manager});
        const auto at = client::place_of(*document);
        if (done.error.empty()) {
            for (const auto& warning : api.last().warnings)
                out.notes.push_back(fmt::format("{}: {}", at, client::warning_text(warning)));
            taken.emplace_back(document, done.object);
            continue;
        }
        const auto& causes = at_path(api.last().body, "details.causes");
        if (api.last().status != 422 || !causes.is_array() || causes.empty())
            out.faults.push_back(done.error.starts_with(at) ? done.error
                                                            : fmt::format("{}: {}", at, done.error));
        else
            for (const auto& cause : causes)
                out.faults.push_back(
                    fmt::format("{}: {}: {}", at, text_at(cause, "field"), text_at(cause, "message")));
    }
    create_defaults(**registry, true);
    control::LocalObjects objects(**registry);
    Examiner examiner(objects, out);
    for (const auto& [document, object] : taken) examiner.look_at(object, client::place_of(*document));
    return out;
}

}  // namespace penstock::app
