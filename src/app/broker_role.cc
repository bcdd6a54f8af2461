// broker: the broker and its controller over a resource API elsewhere, of `penstock api` or a cluster.
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/commands.h"
#include "app/environment.h"
#include "app/metrics_pages.h"
#include "app/parts.h"
#include "app/process.h"
#include "app/version.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/log_output.h"
#include "base/own_command.h"
#include "base/random.h"
#include "client/client.h"
#include "client/lease.h"
#include "control/watchdog.h"
#include "io/socket.h"
#include "io/wait.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::Json;
using resources::text_at;

struct BrokerRoleOptions {
    std::string kubeconfig;              ///< empty: the pod's account, else KUBECONFIG
    std::string name_space = "azure-iot-operations";
    std::string log_level = "info";
    std::string data_folder;             ///< where a Broker with persistence keeps its state; empty: nowhere
};

/// A renewal of leadership has its answer in time or none: what waits longer than the lease lasts must not go
/// on leading.
constexpr std::int64_t lease_answer_ms = 4000;
/// How often brokers read the keys of service-account tokens; a new key verifies for three times as long
/// before it signs.
constexpr int token_keys_ms = 300'000, token_keys_again_ms = 5000;

constexpr const char* account_folder = "/var/run/secrets/kubernetes.io/serviceaccount";

using Connect = std::function<std::unique_ptr<client::Client>()>;

/// The keys that sign service-account tokens, by discovery at the API (OpenID Connect Discovery 1.0). What
/// was read once counts until it is read again: an API that is away does not lock clients out.
class TokenKeyReader {
  public:
    explicit TokenKeyReader(Connect connect) : connect_(std::move(connect)) {}
    control::TokenKeys known() {
        const std::lock_guard lock(guard_);
        return known_;
    }
    /// Where the API was asked last, `host:port`: the access may have been read again since the start. Empty:
    /// not yet.
    std::string asked() {
        const std::lock_guard lock(guard_);
        return asked_;
    }
    bool read() {
        const auto api = connect_();
        const auto about = api->request("GET", "/.well-known/openid-configuration");
        const auto keys = api->request("GET", "/openid/v1/jwks", {}, "application/json",
                                       "application/jwk-set+json, application/json");
        {
            const std::lock_guard lock(guard_);
            asked_ = fmt::format("{}:{}", api->access().host, api->access().port);
        }
        if (!about || !about->ok() || !keys || !keys->ok()) {
            log::warn(
                "app",
                "the keys of service-account tokens cannot be read; those known before count on why=\"{}\"",
                !about         ? about.error().message
                : !about->ok() ? about->message()
                : !keys        ? keys.error().message
                               : keys->message());
            return false;
        }
        const std::lock_guard lock(guard_);
        known_ = {.issuers = {text_at(about->body, "issuer")},
                  .key_set = keys->body.is_object()
                                 ? keys->body
                                 : resources::parse_json(keys->text).value_or(Json::object())};
        return true;
    }

  private:
    Connect connect_;
    std::mutex guard_;                   ///< what follows
    control::TokenKeys known_;
    std::string asked_;
};

/// In a pod the mounted account is used; elsewhere a kubeconfig.
Result<client::Access> access_of(const BrokerRoleOptions& options) {
    const auto host = environment("KUBERNETES_SERVICE_HOST");
    if (options.kubeconfig.empty() && !host.empty())
        return client::in_cluster(host, environment("KUBERNETES_SERVICE_PORT"), account_folder);
    return client::read_kubeconfig(options.kubeconfig.empty() ? default_kubeconfig() : options.kubeconfig);
}

/// The kinds of which the broker keeps copies: what its controllers read and write.
std::vector<const resources::Kind*> followed_kinds() {
    const std::string group = "mqttbroker.iotoperations.azure.com/v1";
    std::vector<const resources::Kind*> out;
    for (const char* kind : {"Broker", "BrokerListener", "BrokerAuthentication", "BrokerAuthorization"})
        out.push_back(resources::find_kind(group, kind));
    for (const char* kind : {"Service", "Secret", "ConfigMap", "ServiceAccount", "Pod"})
        out.push_back(resources::find_kind("v1", kind));
    out.push_back(resources::find_kind("cert-manager.io/v1", "Certificate"));
    return out;
}

class BrokerRole {
  public:
    BrokerRole(const BrokerRoleOptions& options, client::Access access,
               const std::shared_ptr<HeldFolder>& data)
        : options_(options), access_(std::move(access)),
          objects_([this] { return connect(); }, followed_kinds(), options.name_space, clock_),
          token_keys_([this] { return connect(); }),
          controller_(
              objects_, version, clock_, [this] { return token_keys_.known(); }, place_in(data)),
          figures_(figures_of(controller_)),
          pages_(pages_of(board_, metrics_of(&figures_, board_, nullptr, {}))),
          watchdog_(board_, {.clock = clock_,
                             .facts = [this] { return facts(); },
                             .show = [this] { return controller_.show_health(); },
                             .pause = [this](int milliseconds) { objects_.pause(milliseconds); }}),
          parts_(parts(), [this] { tell_to_stop(); }) {
        controller_.use(board_);
        serve_metrics_port(controller_, pages_);
    }

    Result<void> start() { return parts_.start(); }
    void stop() { parts_.stop(); }
    void read_again() { read_again_ = true; }
    /// Another broker acts now.
    [[nodiscard]] bool has_lost() const { return lost_; }

  private:
    /// Started in this order, stopped backwards.
    std::vector<Part> parts() {
        return {
            // The controller opens their port, so they are there before it and go after it.
            {.name = "metrics pages", .log_module = "control", .stop = [this] { pages_.stop(); }},
            // Nothing can be decided before something was read; statuses of the end are written over it, too.
            {.name = "copies of resources", .log_module = "client",
             .start = [this] { return start_copies(); },
             .stop = [this] { objects_.stop(); }},
            // From here on clients with tokens can be let in, as soon as there is a listener.
            {.name = "keys of tokens", .log_module = "app",
             .needs = {"copies of resources"},
             .start = unfailing([this] { reading_ = std::thread([this] { read_keys(); }); }),
             .stop = [this] { reading_.join(); }},
            // It looks on while the broker comes up and while it is torn down.
            {.name = "watchdog", .log_module = "control",
             .start = unfailing([this] { watchdog_.start(); }),
             .stop = [this] { watchdog_.stop(); }},
            // From here on ports may open: when this process leads. The broker stops before the election is
            // waited for, which an API that does not answer may hold up.
            {.name = "broker", .log_module = "broker",
             .needs = {"metrics pages", "copies of resources", "keys of tokens"},
             .start = unfailing([this] { electing_ = std::thread([this] { elect(); }); }),
             .stop =
                 [this] {
                     stop_broker();
                     electing_.join();
                 }},
        };
    }

    std::unique_ptr<client::Client> connect() { return std::make_unique<client::Client>(access_); }

    Result<void> start_copies() {
        const auto served = connect()->request("GET", "/version");
        const bool is_there = served && served->ok();
        if (!is_there)
            log::warn("app",
                      "the resource API does not say its version; it is taken for a cluster's why=\"{}\"",
                      !served ? served.error().message : served->message());
        const auto api_version = is_there ? text_at(served->body, "gitVersion") : std::string();
        if (!api_version.ends_with("+penstock")) controller_.serve_cluster();
        objects_.start();
        log::info("app", "penstock {} broker role api=https://{}:{} api_version={} namespace={}", version,
                  access_.host, access_.port, api_version, options_.name_space);
        return {};
    }

    void tell_to_stop() {
        stopping_ = true;
        objects_.stop();                 // whoever pauses there goes on
    }

    control::ProcessFacts facts() {
        control::ProcessFacts out;
        const auto descriptors = io::descriptors();
        out.pid = getpid();
        out.descriptors = descriptors.open;
        out.descriptors_max = descriptors.limit;
        if (!keys_are_read_)
            out.api_fault =
                fmt::format("the resource API at {} does not tell the keys of service-account tokens",
                            token_keys_.asked());
        controller_.view().add_to(out);
        return out;
    }

    /// What was in force stays so until everything that was read is good.
    void take_access_again() {
        if (const auto now = client::read_again(access_); !now) {
            log::error("app",
                       "the access to the resource API cannot be read again and stays as it was why=\"{}\"",
                       now.error().message);
        } else {
            log::info("app", "the access to the resource API was read again file={} api=https://{}:{}",
                      now->source, now->host, now->port);
            objects_.reconnect();
            elects_anew_ = true;
        }
    }

    void read_keys() {
        // An API that is away is asked with growing pauses.
        for (int pause = token_keys_again_ms; !stopping_;) {
            keys_are_read_ = token_keys_.read();
            const auto until = monotonic_ms() + (keys_are_read_ ? token_keys_ms : pause);
            bool wanted = false;
            while (!stopping_ && monotonic_ms() < until && !(wanted = read_again_.exchange(false)))
                objects_.pause(hangup_look_ms);
            if (wanted) take_access_again();
            pause = keys_are_read_ ? token_keys_again_ms : std::min(pause * 2, token_keys_ms);
        }
    }

    void start_broker() {
        const std::lock_guard lock(acting_);
        if (!stopping_) controller_.start();
    }
    /// Returns when it has stopped, whoever was the first to want it. `stopping_` is set.
    void stop_broker() {
        const std::lock_guard lock(acting_);
        controller_.stop();
    }

    /// One broker acts for a namespace; others wait for its lease. Who loses it ends, so that a fresh start
    /// decides anew.
    void elect() {
        auto transport = connect();
        transport->set_answer_time(lease_answer_ms);
        const auto space =
            options_.name_space.empty() ? std::string("azure-iot-operations") : options_.name_space;
        client::LeaderElection election(*transport, space, "penstock-broker",
                                        fmt::format("{}_{}", io::machine_name(), random_uuid().substr(0, 8)));
        bool leads = false;
        while (!stopping_) {
            if (elects_anew_.exchange(false)) transport->reopen();
            const bool now = election.tick(monotonic_ms, wall_ms());
            if (now && !leads) start_broker();
            if (leads && !now) {
                lost_ = true;
                kill(getpid(), SIGTERM);
                return;
            }
            leads = now;
            objects_.pause(static_cast<int>(client::LeaderElection::interval_ms));
        }
        stop_broker();                   // before others act
        election.release(wall_ms());
    }

    const BrokerRoleOptions& options_;
    const client::Access access_;
    std::atomic<bool> stopping_{false}, lost_{false}, keys_are_read_{true}, read_again_{false},
        elects_anew_{false};
    const Clock clock_ = machine_clock();            ///< of all controllers
    control::RemoteObjects objects_;
    TokenKeyReader token_keys_;
    control::HealthBoard board_;
    control::BrokerController controller_;
    control::AskedAside figures_;
    api::PageServer pages_;
    std::mutex acting_;                  ///< whoever starts or stops the broker
    std::thread reading_, electing_;
    control::Watchdog watchdog_;
    Parts parts_;                        ///< last: it uses the others
};

int run_broker(const BrokerRoleOptions& options) {
    const auto signals = prepare_process();
    const log::BackgroundOutput output;
    if (const auto why = take_levels(options.log_level); !why.empty())
        return give_up("--log-level: " + why);
    io::raise_descriptor_limit();
    if (!options.kubeconfig.empty())
        set_own_kubeconfig(fs::absolute(options.kubeconfig).lexically_normal().string());
    auto access = access_of(options);
    if (!access) return give_up(access.error().message);
    std::shared_ptr<HeldFolder> data;
    if (!options.data_folder.empty()) {
        auto opened = open_data_folder(options.data_folder);
        if (!opened) return give_up(opened.error().message);
        data = std::move(*opened);
    }
    BrokerRole role(options, std::move(*access), data);
    if (auto started = role.start(); !started) return give_up(started.error().message);
    wait_for_end(signals, [&] { role.read_again(); });
    log::info("app", "stopping");
    role.stop();
    return role.has_lost() ? give_up("the lease was lost; another broker acts now") : 0;
}

}  // namespace

void add_broker(Commands& commands) {
    auto& options = commands.keep<BrokerRoleOptions>();
    auto command =
        commands.add("broker", "Run the broker over a resource API elsewhere (penstock api, or a cluster's)");
    command.option("--kubeconfig", options.kubeconfig,
                   "Kubeconfig; in a pod the mounted account when absent");
    command.option("-n,--namespace", options.name_space, "Namespace of the resources").shows_default();
    command.option("--data-dir", options.data_folder, "Where a Broker with persistence keeps its state");
    command.option("--log-level", options.log_level, "Log level until the Broker resource is read")
        .shows_default();
    command.runs([&options] { return run_broker(options); });
}

}  // namespace penstock::app
