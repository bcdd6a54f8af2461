#include "control/broker_controller.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "io/poller.h"
#include "io/wait.h"
#include "auth/held.h"
#include "control/certificate_outlook.h"
#include "control/cures.h"
#include "control/custom_server.h"
#include "control/listener_service.h"
#include "registry/admission.h"
#include "resources/field_set.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* manager_name = "penstock-broker";
constexpr const char* default_namespace = "azure-iot-operations";
constexpr std::int64_t retry_ms = 2000;
constexpr const char* rights_cure = "; its role needs the rights of examples/cluster-rbac.yaml";
constexpr int recovery_report_ms = 1000;
constexpr std::int64_t begin_retry_ms = 30'000;
constexpr std::int64_t sys_interval_ms = 10'000;
constexpr std::int64_t leaving_ms = 3000;          // from the deletion of a listener to the end of its connections
constexpr std::int64_t known_for_ms = 60'000;      // CAs that stand near are read so seldom
constexpr std::int64_t health_report_ms = 60'000;

const resources::Kind& kind_of(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }
const resources::Kind& service_kind() { return *resources::find_kind("v1", "Service"); }
std::string name_of(const Json& object) { return text_at(object, "metadata.namespace") + "/" + text_at(object, "metadata.name"); }
std::string place_of(const PlannedPort& port) { return fmt::format("{}:{}", port.config.resource, port.port); }

}  // namespace

/// The whole broker is one key: its ports depend on each other.
class BrokerController::Work : public Reconciler {
  public:
    explicit Work(BrokerController& controller) : controller_(controller) {}
    const char* name() const override { return "broker"; }
    std::vector<Key> all() override { return {{"brokers", "", ""}}; }
    std::vector<Key> concerned(const registry::Event& event) override {
        if (event.kind->group == "mqttbroker.iotoperations.azure.com" || event.kind->kind == "Service") return all();
        // What certificates, trust and tokens are made of. Only that a Pod comes or goes matters, not what it reports.
        if (event.kind->group == "cert-manager.io" && event.kind->kind == "Certificate") return all();
        if (event.kind->group.empty() && (event.kind->kind == "Secret" || event.kind->kind == "ConfigMap" || event.kind->kind == "ServiceAccount")) return all();
        if (event.kind->group.empty() && event.kind->kind == "Pod" && event.type != registry::Event::Type::modified) return all();
        return {};
    }
    Outcome reconcile(const Key&) override { return controller_.turn(); }

  private:
    BrokerController& controller_;
};

BrokerController::BrokerController(Objects& objects, std::string version, Clock clock,
                                   std::function<TokenKeys()> token_keys, StatePlace place)
    : objects_(objects), clock_(std::move(clock)), recorder_(objects, "penstock-broker", clock_),
      engine_(objects, clock_), version_(std::move(version)), place_(std::move(place)), traces_(clock_),
      probe_secret_(std::make_shared<const std::string>(random_text(64))),
      crew_(std::make_shared<auth::Crew>(auth::Crew::threads_here())),
      http_(std::make_shared<client::HttpPool>()),
      security_(
          objects,
          {.clock = clock_,
           .token_keys = std::move(token_keys),
           .probe_secret = probe_secret_,
           .crew = crew_,
           .custom_server = [http = http_, time = clock_](
                                const Json& settings) { return make_custom_server(http, settings, time); },
           .revocation = [http = http_, time = clock_](
                             const std::string& mode) { return make_revocation_check(http, mode, time); }}) {
    engine_.add(std::make_unique<Work>(*this));
    use(own_board_);
}

void BrokerController::use(HealthBoard& board) {
    board_ = &board;
    tell({.name = fmt::format("{}/default", default_namespace), .not_started = "the broker has not looked at its resources yet", .is_starting = true});
}

BrokerController::~BrokerController() { stop(); }

void BrokerController::start() {
    engine_.start();
    probe_ = std::thread([this] { run_probe(); });
}

void BrokerController::stop() {
    if (stopping_.exchange(true)) return;
    objects_.stop();
    if (probe_.joinable()) probe_.join();
    engine_.stop();
    // Answers that are still on their way must not meet workers that are gone.
    crew_->stop();
    http_->stop();
    if (server_) server_->stop();
}

broker::Server* BrokerController::running() const { return running_.load(std::memory_order_acquire); }

std::vector<broker::Decision> BrokerController::decisions() {
    auto* server = running();
    return server != nullptr ? server->decisions() : std::vector<broker::Decision>();
}

Result<bool> BrokerController::copy_state(const std::string& folder) {
    const std::lock_guard lock(guard_);
    if (server_ == nullptr || server_->durable() == nullptr) return false;
    if (auto done = server_->durable()->copy_to(folder); !done) return std::unexpected(done.error());
    // Read after the copy was made, so that no key of it is missing. Keys that somebody else keeps are not ours to copy.
    if (place_.keys_are_given) return true;
    const auto ring = store::KeyRing::read(place_.key_file);
    if (!ring) return std::unexpected(ring.error());
    if (ring->keys.empty()) return true;
    if (auto written = ring->write(folder + "/" + state_keys_name); !written) return std::unexpected(written.error());
    return true;
}

std::vector<broker::ClientView> BrokerController::clients() {
    auto* server = running();
    return server != nullptr ? server->clients() : std::vector<broker::ClientView>();
}

Result<std::unique_ptr<store::Durable>> BrokerController::open_state(const Plan& plan, const Json& broker, std::uint32_t workers, std::shared_ptr<store::RecoveryProgress> progress) {
    if (place_.folder.empty()) return fail("this role has no data folder to keep state in (--data-dir)");
    Result<store::KeyRing> keys;
    {
        const std::lock_guard writing(key_file_guard_);
        keys = state_keys(place_, plan.seals, plan.key_rotation);
        if (!keys) return std::unexpected(keys.error());
        const std::lock_guard lock(guard_);
        keys_ = *keys;
    }
    return store::Durable::open({.folder = place_.folder, .mark_file = place_.mark_file, .owner = text_at(broker, "metadata.namespace") + "/" + text_at(broker, "metadata.name"), .workers = workers, .sync_interval_ms = plan.sync_interval_ms,
                                 .size_max = plan.persistence_bytes, .keys = std::move(*keys), .seal = plan.seals, .progress = std::move(progress), .file_system = {}});
}

void BrokerController::begin_persistence(const Plan& plan, const Json& broker) {
    auto opened = open_state(plan, broker, server_->workers(), nullptr);
    std::string why;
    if (!opened) why = opened.error().message;
    else if (!(*opened)->is_empty()) why = fmt::format("{} holds what was kept before; both come together at the next start", place_.folder);
    const std::lock_guard lock(guard_);
    if (!why.empty()) {
        if (why != persistence_waits_) log::warn("control", "persistence does not begin now why=\"{}\"", why);
        persistence_waits_ = why;
        next_begin_ = clock_.monotonic_ms() + begin_retry_ms;
        return;
    }
    persistence_waits_.clear();
    server_->begin_persistence(std::move(*opened));
    log::info("control", "the broker's state is kept from now on folder={}", place_.folder);
}

std::unique_ptr<broker::Server> BrokerController::start_server(const Plan& plan, const Json& broker, const std::vector<Json>& listeners) {
    const auto space = text_at(broker, "metadata.namespace"), name = text_at(broker, "metadata.name");
    auto started = [&](const broker::Server& server, const char* persistence) {
        log::info("control", "the broker has started broker={}/{} workers={} persistence={}", space, name, server.workers(), persistence);
    };
    if (!plan.is_persistent) {
        auto out = std::make_unique<broker::Server>(plan.workers, nullptr, place_.buffer_folder, plan.config);
        started(*out, "off");
        return out;
    }
    const auto progress = std::make_shared<store::RecoveryProgress>();
    std::atomic<bool> ready{false};
    // The start itself has this thread.
    io::Poller clock;
    std::thread reporter([&] {
        while (true) {
            clock.wait(recovery_report_ms);
            if (ready) return;
            const auto expected = progress->expected.load(), records = progress->records.load();
            const auto how_far = expected == 0 ? "reading the log" : fmt::format("{} of about {} records, {} %", records, expected, std::min<std::uint64_t>(99, records * 100 / expected));
            {
                const std::lock_guard lock(guard_);
                not_started_ = "the broker's state is being read: " + how_far;
            }
            tell({.name = space + "/" + name, .not_started = "the broker's state is being read: " + how_far, .is_starting = true});
            log::info("control", "the broker's state is being read folder={} progress=\"{}\"", place_.folder, how_far);
            write_basic(kind_of("Broker"), broker, "Recovering", "reading the state back: " + how_far, {.status = "Unavailable", .reason = "Recovering", .message = "the state is being read back: " + how_far});
        }
    });
    auto opened = open_state(plan, broker, plan.workers, progress);
    auto out = opened ? std::make_unique<broker::Server>(plan.workers, std::move(*opened), place_.buffer_folder, plan.config) : nullptr;
    ready = true;
    clock.wake();
    reporter.join();
    {
        const std::lock_guard lock(guard_);
        not_started_ = out != nullptr ? "" : opened.error().message;
    }
    if (out != nullptr) {
        store_fault_.clear();
        // No port is open yet: what is there was read back. Of retained messages each worker has them all.
        broker::CoreFigures all;
        for (const auto& core : out->collect()) {
            all.sessions += core.sessions;
            all.subscriptions += core.subscriptions;
            all.shared_subscriptions += core.shared_subscriptions;
            all.retained_messages = std::max(all.retained_messages, core.retained_messages);
            all.queued += core.queued;
            all.in_flight += core.in_flight;
            all.wills += core.wills;
            all.state_keys += core.state_keys;
        }
        // Of the module whose lines the Pods of both front and back end have.
        log::info("store", "the state was read back: recovered sessions={} subscriptions={} shared_subscriptions={} retained_messages={} queued_messages={} in_flight={} wills={} state_keys={} folder={} seconds={:.2f}",
                  all.sessions, all.subscriptions, all.shared_subscriptions, all.retained_messages, all.queued, all.in_flight, all.wills, all.state_keys, place_.folder, out->durable()->figures().recovery_seconds);
        started(*out, "on");
        return out;
    }
    // Never a silent fresh start: without its state the broker does not run.
    if (store_fault_ != opened.error().message) log::error("control", "the broker's state cannot be opened why=\"{}\"", opened.error().message);
    store_fault_ = opened.error().message;
    const HealthState health{.status = "Unavailable", .reason = "StateNotOpen", .message = store_fault_};
    write_basic(kind_of("Broker"), broker, "Failed", store_fault_, health);
    for (const auto& listener : listeners) write_basic(kind_of("BrokerListener"), listener, "Waiting", "the Broker's state cannot be opened", health);
    return nullptr;
}

void BrokerController::update_keys(const Plan& plan) {
    auto& durable = *server_->durable();
    const std::lock_guard writing(key_file_guard_);
    auto in_use = [this] {
        const std::lock_guard lock(guard_);
        return keys_;
    };
    auto wanted = state_keys(place_, plan.seals, plan.key_rotation, in_use());
    std::string why;   // what was in force stays in force then
    if (wanted) {
        durable.set_keys(*wanted, plan.seals);
        const auto gone = drop_state_keys(place_, *wanted, durable.figures(), plan.seals);
        if (!gone) why = gone.error().message;
        else if (*gone > 0) durable.set_keys(*wanted, plan.seals);
    } else {
        why = wanted.error().message;
    }
    const std::lock_guard lock(guard_);
    if (wanted) keys_ = std::move(*wanted);
    if (!why.empty() && why != keys_fault_) log::error("control", "the keys of the broker's state are not taken over why=\"{}\"", why);
    keys_fault_ = why;
}

void BrokerController::keep_keys() {
    if (place_.folder.empty() || place_.keys_are_given) return;
    const std::lock_guard writing(key_file_guard_);
    store::KeyRing in_use;
    {
        const std::lock_guard lock(guard_);
        in_use = keys_;
    }
    std::error_code error;
    const auto size = std::filesystem::file_size(place_.key_file, error);
    if (in_use.keys.empty() || (!error && size > 0)) return;
    [[maybe_unused]] const auto put = state_keys(place_, false, {}, in_use);   // what cannot be written is told by update_keys()
}

namespace {
/// `is_being_issued`: a certificate is, and that is why.
void block(PlannedPort& port, const std::string& why, bool is_being_issued = false) {
    port.is_being_issued = is_being_issued && port.blocked.empty();
    port.blocked += (port.blocked.empty() ? "" : "; ") + why;
}
}  // namespace

void BrokerController::secure(PlannedPort& port, const Json& listener) {
    const auto authentication = text_at(port.spec, "authenticationRef"), authorization = text_at(port.spec, "authorizationRef");
    PreparedAuthenticator who;
    std::string policy_deleted;
    const auto edit = "with: kubectl edit brokerlistener " + as_words(port.config.resource);
    auto warn = [&](std::string what, std::string cure) { port.warnings.push_back({.what = std::move(what), .cure = std::move(cure)}); };
    auto warn_all = [&](const std::vector<std::string>& texts, const std::string& cure) {
        for (const auto& text : texts) port.warnings.push_back(warning_of(text, cure));
    };
    if (!authentication.empty()) {
        who = security_.authenticator(port.name_space, authentication);
        if (!who.fault.empty()) block(port, who.fault);
        port.config.authenticator = who.authenticator;
        const auto correct = "correct it with: " + edit_command("brokerauthentication", port.name_space + "/" + authentication);
        warn_all(who.warnings, correct);
        auto ways = look_at(who.ways, clock_.wall_ms());
        port.nobody = ways.nobody;
        warn_all(ways.warnings, correct);
        // The BrokerAuthentication is no better than what it is made of.
        // One that is not there is told of by the listener that names it.
        if (objects_.get(kind_of("BrokerAuthentication"), port.name_space, authentication) != nullptr)
            port.rules_fault = !who.fault.empty() ? who.fault : !who.deleted.empty() ? who.deleted : ways.nobody;
        port.rules_warnings = port.warnings;
        port.security["authentication"] = authentication;
        if (!who.methods.empty()) port.security["methods"] = who.methods;
    } else {
        port.security["authentication"] = "none";
    }
    if (!authorization.empty()) {
        const auto what = security_.policy(port.name_space, authorization);
        if (!what.fault.empty()) block(port, what.fault);
        port.config.policy = what.policy;
        policy_deleted = what.deleted;
        port.security["authorization"] = authorization;
        const auto correct = fmt::format("write what is to be allowed there, with: kubectl edit brokerauthorization {} -n {}", authorization, port.name_space);
        warn_all(what.warnings, correct);
        if (what.fault.empty() && what.rules == 0) warn(fmt::format("BrokerAuthorization {} has no rules in spec.authorizationPolicies.rules: it denies everything", authorization), correct);
        if (authentication.empty()) {
            port.authorization_waits = "without authenticationRef it has no effect";
            warn(fmt::format("{}.authorizationRef: BrokerAuthorization {} has no effect without authenticationRef", port.path, authorization), authentication_cure(objects_, port.config.resource, port.path));
        }
    }
    if (authentication.empty() && !port.config.loopback_only)
        port.everybody = {.what = "no authentication: anybody who reaches it from another machine may connect, read and write",
                          .cure = authentication_cure(objects_, port.config.resource, port.path) + (in_cluster_ ? "" : "; or keep it to this machine: serviceType: ClusterIp")};
    if (const auto deleted = who.deleted + (who.deleted.empty() || policy_deleted.empty() ? "" : "; ") + policy_deleted; !deleted.empty() && port.config.authenticator == nullptr) {
        warn(deleted, authentication_cure(objects_, port.config.resource, port.path));
    } else if (!deleted.empty() && port.blocked.empty()) {
        port.nobody = fmt::format("newcomers are refused (0x88) and those who are connected stay under the last rules, until penstock restarts: {}", deleted);
        port.config.authenticator = hold(port, "the rules of this port were deleted; no new client is let in until there are rules again",
                                          deleted);
    } else if (port.blocked.empty()) {
        held_.erase(place_of(port));
    }
    if (!at_path(port.spec, "tls").is_object()) {
        port.security["tls"] = "none";
        if (!authentication.empty() && !port.config.loopback_only) warn(fmt::format("{} has no tls: passwords and tokens cross the network in clear text", port.path), tls_cure(objects_, port.config.resource, port.path));
        if (who.wants_certificate) warn(fmt::format("method X509 of BrokerAuthentication {} needs tls: without it no client can show a certificate", authentication), tls_cure(objects_, port.config.resource, port.path));
        return;
    }
    const auto prepared = security_.tls(listener, port.spec, expected_hosts(listener), who.wants_certificate, who.authorities, port.config.protocol == broker::Protocol::websockets);
    port.config.tls = prepared.context;
    port.security["tls"] = at_path(port.spec, "tls.manual").is_object() ? "Manual" : "Automatic";
    port.security["secret"] = prepared.secret;
    if (prepared.context != nullptr) {
        const auto& leaf = prepared.context->chain().front();
        port.security["certificate"] = {{"subject", leaf.subject()}, {"issuer", leaf.issuer()}, {"notAfter", rfc3339(leaf.not_after_ms())}, {"dnsNames", leaf.dns_names()}, {"ipAddresses", leaf.addresses()}};
    }
    const bool is_manual = at_path(port.spec, "tls.manual").is_object();
    const auto anew = is_manual ? fmt::format("put a better one in its place, with: {}", put_command(objects_, port.name_space, prepared.wanted))
                                : "have it issued anew with: " + issue_command(objects_, port.name_space, prepared.wanted);
    const auto names = is_manual ? fmt::format("put one that has it in subjectAltName in its place, with: {}", put_command(objects_, port.name_space, prepared.wanted))
                                 : fmt::format("add it to {}.tls.certManagerCertificateSpec.san (dns or ip), {}", port.path, edit);
    for (const auto& text : prepared.warnings) port.warnings.push_back(warning_of(text, text.find(" does not cover ") != std::string::npos ? names : anew));
    if (const auto asked = uncovered_.find(fmt::format("{}:{}", port.config.resource, port.config.port)); asked != uncovered_.end())
        warn(fmt::format("clients asked for {}, which the certificate does not cover", fmt::join(asked->second, ", ")), names);
    if (prepared.context != nullptr) port.refused = prepared.judgement.because_of(crypto::Weight::all_refuse);
    if (!port.refused.empty())
        port.refused += is_manual ? fmt::format("; put a good one in its place, with: {}", put_command(objects_, port.name_space, prepared.wanted))
                                  : "; correct what is wrong with its issuer, then have it issued anew with: " + issue_command(objects_, port.name_space, prepared.wanted);
    if (prepared.context != nullptr) look_ahead(port, prepared);
    if (!prepared.fault.empty()) block(port, prepared.fault, prepared.is_being_issued);
}

std::shared_ptr<auth::Authenticator> BrokerController::hold(const PlannedPort& port, const char* told, const std::string& why) {
    // The same object as long as nothing changes: a new one would have everybody who is connected judged anew.
    auto& held = held_[place_of(port)];
    if (held.holder != nullptr && held.holder == port.config.authenticator) return held.holder;
    if (held.holder == nullptr || held.last != port.config.authenticator || held.why != why)
        held = {.last = port.config.authenticator, .why = why,
                .holder = std::make_shared<auth::HeldAuthenticator>(port.config.authenticator, told, why, probe_secret_)};
    return held.holder;
}

void BrokerController::stay_open(PlannedPort& port) {
    for (std::size_t i = 0; i < plan_.ports.size() && i < states_.size(); ++i) {
        const auto& before = plan_.ports[i];
        if (!states_[i].is_open || before.is_leaving || before.config.resource != port.config.resource || before.port != port.port) continue;
        auto config = port.config;
        config.tls = before.config.tls;
        if (!config.binds_like(before.config) || (config.tls == nullptr) != at_path(port.spec, "tls").is_null()) return;
        port.nobody = fmt::format("newcomers are refused (0x88) and those who are connected stay under the last rules, until penstock restarts: {}", port.blocked);
        port.config = std::move(config);
        port.config.policy = before.config.policy;
        port.config.authenticator = before.config.authenticator;
        port.authentication_waits = port.authorization_waits = "the rules before go on";
        port.config.authenticator = hold(port, "the rules of this port cannot be used; no new client is let in until that is mended",
                                          std::exchange(port.blocked, {}));
        return;
    }
}

void BrokerController::look_ahead(PlannedPort& port, const PreparedTls& prepared) {
    const bool is_manual = at_path(port.spec, "tls.manual").is_object();
    const auto now = clock_.wall_ms();
    const auto& wanted = prepared.wanted;
    auto warn = [&](std::string text) { port.warnings.push_back(warning_of(std::move(text), "an issuer is named in " + port.path + ".tls.certManagerCertificateSpec.issuerRef, with: kubectl edit brokerlistener " + as_words(port.config.resource))); };
    if (!is_manual)
        if (auto why = not_renewable(objects_, port.name_space, wanted); !why.empty()) warn(std::move(why));
    auto& near = known_authorities_[port.name_space];
    if (is_manual && (near.first == 0 || clock_.monotonic_ms() - near.first > known_for_ms))
        near = {clock_.monotonic_ms(), authorities_in(objects_, port.name_space)};
    // Who issued it sends its chain along where it is ours, or cert-manager's.
    if (is_manual)
        for (auto& text : outlook({.chain = prepared.context->chain(), .name_space = port.name_space, .secret = wanted, .is_manual = true, .put = put_command(objects_, port.name_space, wanted), .say_root = say_root_command(objects_, port.name_space)}, near.second, now)) warn(std::move(text));
    if (!port.refused.empty()) return;
    for (const auto& certificate : prepared.context->chain())
        if (certificate.not_after_ms() <= now)
            port.refused = fmt::format("certificate \"{}\" has expired at {}: clients that check it refuse; {}", certificate.subject(), rfc3339(certificate.not_after_ms()),
                                       is_manual ? fmt::format("put a valid one into Secret {}/{}, with: {}", port.name_space, wanted, put_command(objects_, port.name_space, wanted))
                                                 : "have it issued anew with: " + issue_command(objects_, port.name_space, wanted));
}

Outcome BrokerController::turn() {
    troubles_.begin();
    next_awaited_ = 0;
    const bool looked = reconcile();
    troubles_.end();
    const bool complete = looked && !troubles_.any();
    const auto now = clock_.monotonic_ms();
    if (server_ != nullptr && now >= next_sys_) {
        next_sys_ = now + sys_interval_ms;
        publish_sys(now);
    }
    recorder_.retry(now);
    // Ports that are taken are tried again; $SYS and the health report have their times.
    auto next = std::min(complete ? health_report_ms : retry_ms, server_ != nullptr ? std::max<std::int64_t>(1, next_sys_ - now) : health_report_ms);
    if (next_awaited_ != 0) next = std::min(next, std::max<std::int64_t>(1, next_awaited_ - now));
    for (const auto& [name, leaving] : leaving_) next = std::min(next, std::max<std::int64_t>(1, leaving.until_ms - now));
    return Outcome::after(next);
}

bool BrokerController::reconcile() {
    // What an earlier run wrote does not stand while the state is read back.
    if (!std::exchange(has_looked_, true)) forget_former_run(objects_, just_started, false, clock_.wall_ms());
    const auto brokers = objects_.list(kind_of("Broker"), "");
    const auto all_listeners = objects_.list(kind_of("BrokerListener"), "");
    // One Broker runs: that of the default namespace, else the oldest.
    registry::ObjectRef chosen;
    for (const auto& candidate : brokers) {
        const auto space = text_at(*candidate, "metadata.namespace");
        if (chosen == nullptr || space == default_namespace ||
            (text_at(*chosen, "metadata.namespace") != default_namespace &&
             text_at(*candidate, "metadata.creationTimestamp") < text_at(*chosen, "metadata.creationTimestamp")))
            chosen = candidate;
    }
    for (const auto& other : brokers) {
        if (other == chosen) continue;
        const auto why = fmt::format("one Broker runs on a machine, and {}/{} does", text_at(*chosen, "metadata.namespace"), text_at(*chosen, "metadata.name"));
        write_basic(kind_of("Broker"), *other, "Failed", why, {.status = "Unavailable", .reason = "BrokerNotRun", .message = why});
    }

    std::vector<Json> listeners;
    std::vector<OrphanFacts> orphans;
    for (const auto& listener : all_listeners) {
        const bool ours = chosen != nullptr && text_at(*listener, "metadata.namespace") == text_at(*chosen, "metadata.namespace") &&
                          registry::broker_of(*listener) == text_at(*chosen, "metadata.name");
        if (ours) {
            listeners.push_back(*listener);
            continue;
        }
        OrphanFacts orphan;
        orphan.listener = name_of(*listener);
        orphan.broker = registry::broker_of(*listener);
        orphan.running = chosen != nullptr ? name_of(*chosen) : "";
        for (const auto& broker : brokers)
            if (text_at(*broker, "metadata.namespace") == text_at(*listener, "metadata.namespace")) orphan.there.push_back(text_at(*broker, "metadata.name"));
        look_home(orphan, *listener);
        const auto why = finding_of(orphan).text();
        orphans.push_back(std::move(orphan));
        write_basic(kind_of("BrokerListener"), *listener, "Waiting", why, {.status = "Unavailable", .reason = "BrokerMissing", .message = why});
    }

    auto plan = plan_broker(chosen != nullptr ? *chosen : Json::object(), listeners, std::thread::hardware_concurrency());
    if (chosen != nullptr) plan.keep_it = keeping_of(*chosen);
    if (in_cluster_)
        for (auto& port : plan.ports) port.config.loopback_only = false;
    if (chosen == nullptr) {
        plan.ports.clear();
        if (server_ == nullptr) {
            tell({.orphans = orphans});
            return true;
        }
    }
    if (server_ == nullptr) {
        auto fresh = start_server(plan, *chosen, listeners);
        if (fresh == nullptr) {
            tell({.name = name_of(*chosen), .not_started = store_fault_});
            return false;
        }
        const std::lock_guard lock(guard_);
        server_ = std::move(fresh);
        running_.store(server_.get(), std::memory_order_release);
    }
    std::string workers_wait;
    if (chosen != nullptr && server_->workers() != plan.workers)
        if (const auto done = server_->set_workers(plan.workers); !done) {
            workers_wait = done.error().message;
            if (workers_wait != workers_wait_) log::info("control", "the number of workers cannot be changed yet and is tried again has={} wanted={} why=\"{}\"", server_->workers(), plan.workers, workers_wait);
        }
    // The policies are in force first, so that the first writing follows them.
    const bool begins = server_->durable() == nullptr && plan.is_persistent;
    if (server_->durable() != nullptr && plan.is_persistent) {
        server_->durable()->set_limits(plan.sync_interval_ms, plan.persistence_bytes);
        update_keys(plan);
    }
    if (const auto why = log::set_levels(plan.log_level); !why.empty()) log::warn("control", "log level kept: {}", why);
    log::set_debug_clients(plan.debug_clients);
    const auto metrics_fault = open_metrics_port_ ? open_metrics_port_(plan.prometheus_port) : std::string();

    uncovered_ = server_->uncovered();
    for (auto& port : plan.ports)
        for (const auto& listener : listeners)
            if (text_at(listener, "metadata.namespace") == port.name_space && text_at(listener, "metadata.name") == port.listener) {
                secure(port, listener);
                if (!port.blocked.empty()) stay_open(port);
            }
    std::erase_if(service_faults_, [&](const auto& entry) { return std::ranges::none_of(listeners, [&](const Json& l) { return name_of(l) == entry.first; }); });
    for (const auto& listener : listeners) claim_service(listener, plan);
    security_.sweep();
    keep_leaving(plan, listeners, chosen != nullptr);
    pool_max_ = plan.config.pool_bytes;

    std::vector<broker::ListenerConfig> wanted;
    for (const auto& port : plan.ports)
        if (port.blocked.empty()) wanted.push_back(port.config);
    const auto opened = server_->apply(plan.config, wanted);
    if (begins && clock_.monotonic_ms() >= next_begin_) begin_persistence(plan, *chosen);
    std::vector<News> news;
    std::vector<broker::ListenerState> states;
    std::size_t next = 0;
    for (const auto& port : plan.ports)
        states.push_back(port.blocked.empty() && next < opened.size() ? opened[next++] : broker::ListenerState{.config = port.config, .error = port.blocked});
    {
        const std::lock_guard lock(guard_);
        news = look_at_ports(plan, states);
        if (!metrics_fault.empty() && metrics_fault != metrics_fault_)
            log::warn("control", "{}; the port is spec.diagnostics.metrics.prometheusPort of the Broker; it is "
                                 "tried again", metrics_fault);
        metrics_fault_ = metrics_fault;
        workers_wait_ = workers_wait;
        orphans_ = std::move(orphans);
        plan_ = plan;
        traces_.set_limit(plan.trace_bytes);
        states_ = states;
        forget_closed_routes();
        if (chosen != nullptr) {
            name_space_ = text_at(*chosen, "metadata.namespace");
            broker_name_ = text_at(*chosen, "metadata.name");
        } else {
            broker_name_.clear();
        }
    }
    tell(facts_of());
    if (chosen != nullptr) {
        for (const auto& listener : listeners) {
            adopt(listener, *chosen);
            put_service(listener, plan, states);
        }
        write_status(kind_of("Broker"), *chosen, [&](const Json& current) { return broker_status(current, plan, states); });
    }
    report(plan, states);
    report_rules(plan, states);
    for (const auto& item : news)
        for (const auto& listener : listeners)
            if (item.listener == text_at(listener, "metadata.namespace") + "/" + text_at(listener, "metadata.name")) recorder_.record(listener, item.type, item.reason, item.message);
    bool complete = metrics_fault.empty() && workers_wait.empty() && std::ranges::all_of(service_faults_, [](const auto& entry) { return entry.second.why.empty() || entry.second.is_refused; });
    for (std::size_t i = 0; i < states.size(); ++i) complete &= states[i].is_open || !plan.ports[i].blocked.empty();
    return complete;
}

void BrokerController::look_home(OrphanFacts& orphan, const Json& listener) const {
    const auto home = belongs_to(orphan);
    auto moved = listener;
    moved["metadata"]["namespace"] = home.substr(0, home.find('/'));
    moved["spec"]["brokerRef"] = home.substr(home.find('/') + 1);
    const auto& kind = kind_of("BrokerListener");
    orphan.name_is_taken = orphan.listener != name_of(moved) && objects_.get(kind, text_at(moved, "metadata.namespace"), text_at(moved, "metadata.name")) != nullptr;
    const auto uid = text_at(listener, "metadata.uid");
    const registry::Peers peers{.list = [&](const char* api_version, const char* name) {
        auto out = objects_.list(*resources::find_kind(api_version, name), "");
        std::erase_if(out, [&](const auto& other) { return text_at(*other, "metadata.uid") == uid; });
        return out;
    }};
    registry::admit(kind, moved, &listener, peers, orphan.refusals);
    // Another name brings another name of its Service.
    if (orphan.name_is_taken)
        std::erase_if(orphan.refusals, [](const auto& fault) { return fault.path == "spec.serviceName"; });
}

void BrokerController::keep_leaving(Plan& plan, const std::vector<Json>& listeners, bool has_broker) {
    std::set<std::string> present;
    for (const auto& listener : listeners) present.insert(name_of(listener));
    const auto now = clock_.monotonic_ms();
    if (!has_broker) leaving_.clear();
    else
        for (std::size_t i = 0; i < plan_.ports.size() && i < states_.size(); ++i) {
            auto port = plan_.ports[i];
            if (port.is_leaving || !states_[i].is_open || present.contains(port.config.resource)) continue;
            auto& leaving = leaving_[port.config.resource];
            if (leaving.ports.empty()) {
                leaving.until_ms = now + leaving_ms;
                log::info("control", "a listener was deleted; its connections end in {} ms unless it comes back listener={}", leaving_ms, port.config.resource);
            }
            port.is_leaving = true;
            // Who is connected without having said who he is would have to go, if the port began to ask.
            if (port.config.authenticator != nullptr)
                port.config.authenticator = std::make_shared<auth::HeldAuthenticator>(
                    port.config.authenticator, "the listener of this port was deleted; no new client is let in",
                    "the listener was deleted", probe_secret_);
            leaving.ports.push_back(std::move(port));
        }
    // What is wanted now comes first, and what comes back is what it was.
    std::erase_if(leaving_, [&](const auto& entry) {
        const auto& [name, leaving] = entry;
        return now >= leaving.until_ms || present.contains(name) || std::ranges::any_of(plan.ports, [&](const auto& wanted) {
                   return std::ranges::any_of(leaving.ports, [&](const auto& port) { return wanted.config.port == port.config.port && wanted.config.port != 0; });
               });
    });
    for (const auto& [name, leaving] : leaving_) plan.ports.insert(plan.ports.end(), leaving.ports.begin(), leaving.ports.end());
}

void BrokerController::adopt(const Json& listener, const Json& broker) {
    const auto& owners = at_path(listener, "metadata.ownerReferences");
    if (owners.is_array())
        for (const auto& owner : owners)
            if (equal_no_case(text_at(owner, "kind"), "Broker")) return;
    // The list is written as a whole: only over what was read. One owner alone may be the controller.
    Json patch = {{"metadata", {{"resourceVersion", text_at(listener, "metadata.resourceVersion")}, {"ownerReferences", owners.is_array() ? owners : Json::array()}}}};
    auto& list = patch["metadata"]["ownerReferences"];
    const bool is_controlled = std::ranges::any_of(list, [](const Json& owner) { return at_path(owner, "controller") == Json(true); });
    list.push_back({{"apiVersion", text_at(broker, "apiVersion")}, {"kind", "Broker"}, {"name", text_at(broker, "metadata.name")}, {"uid", text_at(broker, "metadata.uid")}});
    if (!is_controlled) list.back()["controller"] = true;
    // Lost to a concurrent write: the next round sees the listener again.
    [[maybe_unused]] const auto done = objects_.patch(kind_of("BrokerListener"), text_at(listener, "metadata.namespace"), text_at(listener, "metadata.name"), registry::PatchType::merge, patch, manager_name);
}

void BrokerController::claim_service(const Json& listener, Plan& plan) {
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const auto current = objects_.get(service_kind(), space, text_at(listener, "spec.serviceName", name));
    auto& fault = service_faults_[name_of(listener)];
    auto refusal = current != nullptr ? service_refusal(*current, listener, service_of(listener, plan, {}, in_cluster_, current.get())) : std::string();
    if (!refusal.empty() && refusal != fault.why) log::warn("control", "{} listener={}/{}", refusal, space, name);
    if (!refusal.empty() || fault.is_refused) fault = {.why = refusal, .is_refused = !refusal.empty()};
    if (fault.why.empty()) return;
    const auto port = std::ranges::find_if(plan.ports, [&](const PlannedPort& p) { return !p.is_leaving && p.name_space == space && p.listener == name; });
    if (port != plan.ports.end()) port->warnings.push_back(warning_of(fault.why, fault.is_refused ? "name another Service in spec.serviceName, with: kubectl edit brokerlistener " + as_words(name_of(listener)) : "it is tried again by itself"));
}

void BrokerController::put_service(const Json& listener, const Plan& plan, const std::vector<broker::ListenerState>& states) {
    auto& fault = service_faults_[name_of(listener)];
    if (fault.is_refused) return;
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const auto service_name = text_at(listener, "spec.serviceName", name);
    const auto current = objects_.get(service_kind(), space, service_name);
    const auto object = service_of(listener, plan, states, in_cluster_, current.get());
    auto put_status = [&] {
        if (in_cluster_) return;   // a cluster's own controllers say where it is
        const auto addresses = io::machine_addresses();
        const auto host = addresses.empty() ? std::string("127.0.0.1") : addresses.front();
        const bool is_balanced = text_at(object, "spec.type") == "LoadBalancer";
        const Json balanced = is_balanced ? Json{{"ingress", Json::array({{{"ip", host}}})}} : Json::object();
        if (const auto service = objects_.get(service_kind(), space, service_name)) write_status(service_kind(), *service, [&](const Json& now) {
            auto out = at_path(now, "status").is_object() ? at_path(now, "status") : Json::object();
            out["loadBalancer"] = balanced;
            return out;
        });
    };
    // Owned by right and applied as a whole: what others added to the Service stays theirs. Nothing is sent when it is so already.
    const bool as_wanted = current != nullptr && resources::merge_applied(*current, object, service_kind().schema) == *current &&
                           at_path(*current, "spec.ports").size() == object["spec"]["ports"].size();
    const auto trouble = fmt::format("Service of {}/{}", space, name);
    if (as_wanted) {
        fault = {};
        return put_status();
    }
    if (auto applied = objects_.patch(service_kind(), space, service_name, registry::PatchType::apply, object, manager_name); !applied) {
        if (!troubles_.failed(trouble, applied.error(), clock_.monotonic_ms())) return;
        fault.why = fmt::format("Service {}/{} was not written: {}", space, service_name, applied.error().message);
        log::warn("control", "{}; it is tried again listener={}/{}{}", fault.why, space, name, applied.error().code == 403 ? rights_cure : "");
        return;
    }
    troubles_.succeeded(trouble);
    fault = {};
    put_status();
    // A listener that was renamed to another Service leaves the old one behind; it goes.
    for (const auto& other : objects_.list(service_kind(), space))
        if (is_owned_by(*other, listener) && text_at(*other, "metadata.name") != service_name) {
            [[maybe_unused]] const auto removed = objects_.remove(service_kind(), space, text_at(*other, "metadata.name"));
        }
}

void BrokerController::write_status(const resources::Kind& kind, const Json& looked_at, const Objects::MakeStatus& make) {
    const auto space = text_at(looked_at, "metadata.namespace"), name = text_at(looked_at, "metadata.name");
    const auto done = objects_.put_status(kind, space, name, [&](const Json& current) {
        auto status = make(current);
        if (status && status->contains("observedGeneration")) (*status)["observedGeneration"] = at_path(looked_at, "metadata.generation");
        return status;
    }, manager_name);
    const auto what = fmt::format("{} {}/{}", kind.kind, space, name);
    if (done) return troubles_.succeeded(what);
    if (troubles_.failed(what, done.error(), clock_.monotonic_ms()))
        log::warn("control", "a status is not written; it is tried again kind={} object={}/{} why=\"{}\"{}", kind.kind, space, name, done.error().message, done.error().code == 403 ? rights_cure : "");
}

void BrokerController::write_basic(const resources::Kind& kind, const Json& looked_at, const char* runtime, const std::string& description, const HealthState& health) {
    write_status(kind, looked_at, [&](const Json& current) {
        return basic_status(current, runtime, description, with_times(current, health, clock_.wall_ms()));
    });
}

void BrokerController::publish_sys(std::int64_t now) {
    if (heap_.look(now, server_->pool_used())) log::debug("control", "memory that an overload left was given back");
    bool enabled = false;
    {
        const std::lock_guard lock(guard_);
        enabled = plan_.config.sys_topics;
    }
    auto values = enabled ? sys_.update(server_->collect(), server_->pool_used(), now, version_) : sys_.withdraw();
    for (auto& [topic, value] : values) server_->publish(topic, value, true);
}

std::vector<Role> BrokerController::roles() {
    const auto missing = not_ready();
    const std::lock_guard lock(guard_);
    // Its log has what becomes of the broker as a whole too: its start, its listeners, what was read back.
    Role broker{.pod = "aio-broker-frontend-0", .container = "broker", .component = "frontend", .log_modules = {"broker", "session", "mqtt", "topics", "store", "io", "tls", "auth", "control", "app"}, .ports = {}, .ready = missing.empty() && server_ != nullptr, .why_not = missing};
    for (const auto& state : states_)
        if (state.is_open) broker.ports.emplace_back(fmt::format("mqtt-{}", state.bound_port), state.bound_port);
    std::vector<Role> out{broker};
    out.push_back({.pod = "aio-broker-operator-0", .container = "operator", .component = "operator", .log_modules = {"control", "app"}, .ports = {}, .why_not = {}});
    out.push_back(api_role());
    // The parts under which AIO's pages look for what the one process does here.
    auto part = [&](const char* pod, const char* container, const char* component, std::vector<std::string> modules) {
        out.push_back({.pod = pod, .container = container, .component = component, .log_modules = std::move(modules), .ports = {}, .ready = server_ != nullptr, .why_not = server_ != nullptr ? "" : missing});
    };
    part("aio-broker-backend-1-0", "broker", "backend", {"store"});
    part("aio-broker-authentication-0", "authentication", "authentication", {"auth", "tls"});
    part("aio-broker-health-manager-0", "health-manager", "health-manager", {"control"});
    if (plan_.self_check) {
        const auto fault = std::ranges::find_if(selftest_.latest, [](const auto& result) { return !result.ok(); });
        const bool good = fault == selftest_.latest.end();
        out.push_back({.pod = "aio-broker-diagnostics-probe-0", .container = "diagnostics-probe", .component = "diagnostics-probe", .log_modules = {"mqttc", "control"}, .ports = {}, .ready = good, .why_not = good ? "" : fault->fault});
    }
    if (plan_.prometheus_port != 0)
        out.push_back({.pod = "aio-broker-diagnostics-service-0", .container = "diagnostics-service", .component = "diagnostics-service", .log_modules = {"control"}, .ports = {{"metrics", plan_.prometheus_port}},
                       .ready = metrics_fault_.empty(), .why_not = metrics_fault_});
    return out;
}

void BrokerController::probe_now() { probe_now_ = true; }

void BrokerController::run_probe() {
    // The listeners open first.
    std::int64_t next = clock_.monotonic_ms() + 2000, next_trace = next, next_take = next;
    while (!stopping_) {
        objects_.pause(200);
        bool enabled = false;
        int interval = 30, timeout = 15, tracing = 0;
        std::vector<SelftestTarget> targets;
        {
            const std::lock_guard lock(guard_);
            enabled = plan_.self_check && server_ != nullptr && !broker_name_.empty();
            interval = plan_.self_check_interval;
            timeout = plan_.self_check_timeout;
            tracing = server_ != nullptr && !broker_name_.empty() ? plan_.self_tracing_interval : 0;
            for (const auto& state : states_)
                if (state.is_open)
                    targets.push_back({.listener = state.config.resource, .port = state.bound_port, .websocket = state.config.protocol == broker::Protocol::websockets,
                                       .tls = state.config.tls != nullptr, .secret = state.config.authenticator != nullptr ? probe_secret_ : nullptr});
        }
        const auto now = clock_.monotonic_ms();
        if (now >= next_take) {
            next_take = now + 1000;
            take_spans();
        }
        const bool checks = enabled && (now >= next || probe_now_), traces = tracing > 0 && now >= next_trace;
        if (stopping_ || targets.empty() || !(checks || traces)) continue;
        probe_now_ = false;
        if (traces) next_trace = now + tracing * 1000;
        std::vector<SelftestResult> results;
        for (const auto& target : targets)
            results.push_back(run_selftest(target, timeout * 1000, traces, clock_));
        for (auto& result : results) traces_.add(std::exchange(result.spans, {}));
        if (traces) take_spans();
        if (!enabled) continue;
        next = now + interval * 1000;
        {
            const std::lock_guard lock(guard_);
            for (const auto& result : results) {
                const auto key = fmt::format("{}:{}", result.target.listener, result.target.port);
                for (std::size_t i = 0; i < selftest_steps.size(); ++i)
                    if (result.steps[i].done) selftest_.steps[i].add(now, result.steps[i].milliseconds);
                if (result.steps[3].done) ++selftest_.sent[key];
                selftest_.received[key] += result.steps[4].done ? 1 : 0;
                selftest_.timeouts[key] += result.steps[3].done && !result.steps[4].done ? 1 : 0;
                if (!result.ok()) log::warn("control", "self-test failed listener={} port={} why=\"{}\"", result.target.listener, result.target.port, result.fault);
            }
            selftest_.latest = results;
            forget_closed_routes();   // they may have closed meanwhile
        }
        tell(facts_of());
        show_health();
    }
}

void BrokerController::forget_closed_routes() {
    std::erase_if(selftest_.latest, [this](const SelftestResult& result) {
        return std::ranges::none_of(states_, [&](const auto& state) { return state.is_open && state.config.resource == result.target.listener && state.bound_port == result.target.port; });
    });
}

void BrokerController::take_spans() {
    {
        const std::lock_guard lock(guard_);
        if (server_ == nullptr || plan_.trace_bytes == 0) return;
    }
    traces_.add(running()->take_spans());
}

Json BrokerController::traces(const std::string& what) {
    take_spans();
    constexpr std::string_view otlp = "traces/otlp";
    if (!what.starts_with(otlp)) return traces_.list();
    return traces_.otlp(what.size() > otlp.size() ? what.substr(otlp.size() + 1) : "", "aio-broker-frontend-0");
}

std::string BrokerController::metrics_page() {
    auto* server = running();
    if (server == nullptr) return "# no Broker resource\n";
    // Workers are asked without the guard: one that is stuck must not take health and everybody else along.
    const auto figures = server->collect();
    const std::lock_guard lock(guard_);
    DiskFigures disk;
    if (server_->durable() != nullptr) disk.kept = server_->durable()->figures();
    if (server_->overflow() != nullptr && plan_.config.overflow_bytes > 0) disk.buffer = server_->overflow()->figures();
    return prometheus_page(figures, plan_, selftest_, server_->pool_used(), name_space_, io::machine_name(),
                           version_, disk, clock_.monotonic_ms());
}

std::string reconcile_metrics(const std::map<std::string, std::map<std::string, std::uint64_t>>& counts, bool with_head) {
    std::string out;
    if (with_head) out = "# HELP penstock_reconciles_total Looks at an object by controller and outcome.\n# TYPE penstock_reconciles_total counter\n";
    for (const auto& [name, outcomes] : counts)
        for (const auto& [outcome, count] : outcomes) out += fmt::format("penstock_reconciles_total{{controller=\"{}\",outcome=\"{}\"}} {}\n", name, outcome, count);
    return out;
}

std::string BrokerController::not_ready() { return not_ready_text(board_->all(clock_.monotonic_ms())); }

}  // namespace penstock::control
