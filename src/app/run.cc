#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "api/server.h"
#include "app/build_info.h"
#include "app/command_list.h"
#include "app/commands.h"
#include "app/defaults.h"
#include "app/environment.h"
#include "app/identity_keeper.h"
#include "app/kubeconfig_file.h"
#include "app/pki_check.h"
#include "app/run_health.h"
#include "app/start_watch.h"
#include "app/version.h"
#include "base/held_folder.h"
#include "base/log.h"
#include "base/log_modules.h"
#include "base/log_output.h"
#include "base/own_command.h"
#include "base/run_files.h"
#include "base/text.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/shell.h"
#include "client/client.h"
#include "client/file_follower.h"
#include "client/lease.h"
#include "client/names.h"
#include "control/access_view.h"
#include "control/asked_aside.h"
#include "control/broker_controller.h"
#include "control/certificates.h"
#include "control/health.h"
#include "control/housekeeper.h"
#include "control/watchdog.h"
#include "crypto/signature.h"
#include "io/socket.h"
#include "io/wait.h"
#include "registry/registry.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::Json;
using resources::text_at;

struct RunOptions {
    std::string data_folder;
    std::vector<std::string> files;
    std::string api_address = "127.0.0.1";
    int api_port = 6443;
    std::string log_level = "info";
    bool with_broker = true;             ///< false: the API and its controllers alone
};

struct BrokerRoleOptions {
    std::string kubeconfig;              ///< empty: the pod's account, else KUBECONFIG
    std::string name_space = "azure-iot-operations";
    std::string log_level = "info";
    std::string data_folder;             ///< where a Broker with persistence keeps its state; empty: nowhere
};

/// Standard error is the journal's (systemd.exec(5), JOURNAL_STREAM): device and inode say so, for a variable
/// alone is inherited by whoever writes somewhere else.
bool logs_to_journal() {
    struct stat about{};
    return fstat(STDERR_FILENO, &about) == 0 &&
           environment("JOURNAL_STREAM") == fmt::format("{}:{}", about.st_dev, about.st_ino);
}

/// Where the broker's state, its keys and its overflow stand. A key ring among the credentials that systemd hands in goes before our own.
control::StatePlace place_in(const std::shared_ptr<HeldFolder>& held) {
    if (!held) return {};
    const fs::path data = held->path();
    control::StatePlace out{.folder = (data / "broker").string(), .mark_file = (data / "broker.mark").string(), .key_file = (data / "pki" / control::state_keys_name).string(), .keys_are_given = false, .buffer_folder = (data / "buffer").string(), .data = held};
    if (const auto credentials = environment("CREDENTIALS_DIRECTORY"); !credentials.empty()) {
        const auto given = fs::path(credentials) / "penstock-state-keys";
        std::error_code error;
        if (fs::exists(given, error)) out.key_file = given.string(), out.keys_are_given = true;
    }
    return out;
}

Result<std::shared_ptr<HeldFolder>> open_data_folder(const std::string& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return fail(fmt::format("the data folder {} cannot be made: {}; choose another with --data-dir", folder, error.message()));
    return HeldFolder::open(folder);
}

/// Before any thread is made: all inherit the mask, and only `sigwait` at the end takes the signals.
sigset_t prepare_process() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
    log::show_priority(logs_to_journal());
    // Messages come and go by the thousand; giving each 64 KiB back to the kernel and faulting it in again costs more than
    // all the rest of handling them. What is kept is bounded: 16 MiB a thread.
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    return signals;
}

/// Waits for an order to stop. SIGHUP has things read again; that of a terminal that went away is an order to
/// stop: nobody is left who could give another.
void wait_for_end(const sigset_t& signals, const std::function<void()>& on_hangup) {
    const bool has_terminal = isatty(STDIN_FILENO) == 1;
    for (int number = 0; sigwait(&signals, &number) != 0 || number == SIGHUP;) {
        if (number == SIGHUP && has_terminal && isatty(STDIN_FILENO) == 0) return;
        if (number != SIGHUP) continue;
        log::info("app", "SIGHUP: files, certificates and keys are read again");
        on_hangup();
    }
}

int give_up(const std::string& why) {
    log::print(STDERR_FILENO, "penstock: " + why + "\n");
    return 1;
}

/// The metrics are answered without the broker's part when its workers take longer than this.
constexpr int figures_patience_ms = 5000;

/// The broker's part of the metrics. It waits for each worker's turn.
control::AskedAside figures_of(control::BrokerController& controller) {
    return control::AskedAside(
        [&controller] {
            return controller.view().metrics_page() +
                   control::reconcile_metrics(controller.engine_counts(), true);
        },
        "# the broker's workers do not answer; /readyz says which\n", figures_patience_ms);
}

/// The resource API shows the broker's clients, refusals and traces, and gives a copy of its state.
void show_broker(api::Handler& handler, control::BrokerController& controller) {
    auto& view = controller.view();
    handler.set_broker_view([&view](const std::string& what) {
        if (what.starts_with("traces")) return view.traces(what);
        return what == "clients" ? control::clients_json(view.clients())
                                 : control::decisions_json(view.decisions());
    });
    handler.set_broker_copy([&view](const std::string& folder) { return view.copy_state(folder); });
}

/// `/metrics` of a process. `figures`: null without a broker. `housekeeper`: null without the API's part.
/// `more_metrics`: of the API's part; empty where it has none.
std::function<std::string()> metrics_of(control::AskedAside* figures, const control::HealthBoard& board,
                                        const control::Housekeeper* housekeeper,
                                        std::function<std::string()> more_metrics) {
    return [figures, &board, housekeeper, more_metrics = std::move(more_metrics)] {
        auto text = figures != nullptr ? figures->text() : std::string();
        // The broker's controllers stand first: families are told in one piece.
        const bool has_head = text.find("# TYPE penstock_reconciles_total ") != std::string::npos;
        if (housekeeper != nullptr) text += control::reconcile_metrics(housekeeper->engine().counts(), !has_head);
        text += control::health_metrics(board.all(monotonic_ms()));
        if (more_metrics) text += more_metrics();
        return text + control::log_metrics();
    };
}

api::PageServer::Page pages_of(const control::HealthBoard& board, std::function<std::string()> metrics) {
    return [&board, metrics = std::move(metrics)](const std::string& target) -> api::Reply {
        const auto path = target.substr(0, target.find('?'));
        if (path == "/metrics") return {.content_type = "text/plain; version=0.0.4", .body = metrics()};
        if (path == "/healthz" || path == "/livez") return {.content_type = "text/plain", .body = "ok\n"};
        if (path == "/readyz") {
            auto found = control::readiness(board.all(monotonic_ms()), target.find("verbose", path.size()) != std::string::npos);
            if (!found.text.ends_with('\n')) found.text += '\n';
            return {.status = found.is_ready ? 200 : 503, .content_type = "text/plain", .body = std::move(found.text)};
        }
        return {.status = 404, .content_type = "text/plain", .body = "here are /metrics, /healthz and /readyz\n"};
    };
}

/// The keys that sign service-account tokens, by discovery at the API (OpenID Connect Discovery 1.0). What was read once counts
/// until it is read again: an API that is away does not lock clients out.
class TokenKeyReader {
  public:
    explicit TokenKeyReader(std::function<std::unique_ptr<client::Client>()> connect) : connect_(std::move(connect)) {}
    control::TokenKeys known() {
        const std::lock_guard lock(guard_);
        return known_;
    }
    /// Where the API was asked last, `host:port`: the access may have been read again since the start. Empty: not yet.
    std::string asked() {
        const std::lock_guard lock(guard_);
        return asked_;
    }
    bool read() {
        const auto api = connect_();
        const auto about = api->request("GET", "/.well-known/openid-configuration"), keys = api->request("GET", "/openid/v1/jwks", {}, "application/json", "application/jwk-set+json, application/json");
        {
            const std::lock_guard lock(guard_);
            asked_ = fmt::format("{}:{}", api->access().host, api->access().port);
        }
        if (!about || !about->ok() || !keys || !keys->ok()) {
            log::warn("app", "the keys of service-account tokens cannot be read; those known before count on why=\"{}\"", !about ? about.error().message : !about->ok() ? about->message() : !keys ? keys.error().message : keys->message());
            return false;
        }
        const std::lock_guard lock(guard_);
        known_ = {.issuers = {text_at(about->body, "issuer")}, .key_set = keys->body.is_object() ? keys->body : resources::parse_json(keys->text).value_or(Json::object())};
        return true;
    }

  private:
    std::function<std::unique_ptr<client::Client>()> connect_;
    std::mutex guard_;                   ///< what follows
    control::TokenKeys known_;
    std::string asked_;
};

/// What objects of these files are marked with (client::FileFollower::Options::source).
std::string source_of(const std::vector<std::string>& files) {
    return files.front() == "-" ? files.front() : fs::absolute(files.front()).string();
}

/// Logs what files of earlier runs left, and answers it for the terminal; empty: nothing.
std::string tell_of_former_files(const RunHealth& health, const std::vector<std::string>& manifests,
                                 const std::vector<std::string>& named) {
    std::set<std::string> followed{source_of(manifests)};
    if (!named.empty()) followed.insert(source_of(named));
    auto out = health.left_by_former_files(followed);
    if (!out.empty()) log::info("app", "{}", out);
    return out;
}

/// How the followed files stand, for those who ask from other threads.
class FollowBoard {
  public:
    void put(const std::string& source, client::FollowState state) {
        const std::lock_guard lock(guard_);
        states_[source] = std::move(state);
    }
    std::map<std::string, client::FollowState> states() const {
        const std::lock_guard lock(guard_);
        return states_;
    }
    /// Why files are not in force as they stand; empty when all are.
    std::string why_not() const {
        std::string out;
        for (const auto& [source, state] : states())
            if (state.phase != client::FollowState::Phase::applied) out += fmt::format("{}{}", out.empty() ? "" : "; ", state.why);
        return out;
    }

    /// What brings back objects of followed files that somebody deleted; empty: no file has any.
    std::string say_again(const std::string& reread) const {
        constexpr std::size_t told_max = 3;
        std::string sources;
        std::size_t count = 0;
        for (const auto& [source, state] : states()) {
            // Standard input is read once.
            if (source == "-" || state.objects == nullptr || state.objects->empty()) continue;
            if (count++ < told_max) sources += (sources.empty() ? "" : ", ") + typed_path(source);
        }
        if (count == 0) return {};
        return fmt::format("what the followed files ({}{}) have comes back with: {}", sources,
                           count > told_max ? ", ..." : "", reread);
    }

  private:
    mutable std::mutex guard_;           ///< states_
    std::map<std::string, client::FollowState> states_;
};

/// What is being read, for those who look on from other threads.
class Reading {
  public:
    /// Until the end of what is done with that file or folder.
    class Call {
      public:
        Call(Reading& of, const std::string& path) : of_(of) { of_.set(path); }
        ~Call() { of_.set({}); }
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;

      private:
        Reading& of_;
    };
    /// What has been read for longer than that; empty: nothing.
    std::string mute(std::int64_t milliseconds) const {
        const std::lock_guard lock(guard_);
        return !path_.empty() && monotonic_ms() - since_ms_ >= milliseconds ? path_ : std::string();
    }

  private:
    void set(const std::string& path) {
        const std::lock_guard lock(guard_);
        path_ = path;
        since_ms_ = monotonic_ms();
    }
    mutable std::mutex guard_;           ///< what follows
    std::string path_;
    std::int64_t since_ms_ = 0;          ///< monotonic
};

/// Files of which is told what is being read.
class ToldFiles final : public client::ManifestFiles {
  public:
    ToldFiles(std::vector<std::string> sources, Reading& reading) : name_(sources.front()), reading_(reading) {
        const Reading::Call call(reading_, name_);
        files_ = std::make_unique<client::DiskFiles>(std::move(sources));
    }
    client::Look look() override {
        const Reading::Call call(reading_, name_);
        return files_->look();
    }
    client::Writer writer_of(const std::string& path) override {
        const Reading::Call call(reading_, path);
        return files_->writer_of(path);
    }
    Result<std::string> read(const std::string& path) override {
        const Reading::Call call(reading_, path);
        return files_->read(path);
    }

  private:
    std::string name_;
    Reading& reading_;
    std::unique_ptr<client::DiskFiles> files_;
};

/// One source of manifests and the thread that follows it, with all that it does there: a file on a mount that does not answer holds
/// that thread up, and nobody else.
class Followed {
  public:
    using Make = std::function<std::unique_ptr<client::FileFollower>(Reading&)>;
    Followed(Make make, std::function<void(int)> pause, const std::atomic<bool>& stopping)
        : thread_([this, make = std::move(make), pause = std::move(pause), &stopping] {
              const auto follower = make(reading_);
              set([&] { follower_ = follower.get(); });
              follower->begin(first_files_patience_ms, pause);
              {
                  std::unique_lock lock(guard_);
                  has_begun_ = true;
                  changed_.notify_all();
                  changed_.wait(lock, [this] { return is_to_go_on_; });
              }
              follower->follow(stopping, pause);
              set([&] { follower_ = nullptr, has_ended_ = true; });
          }) {}
    ~Followed() { thread_.join(); }
    Followed(const Followed&) = delete;
    Followed& operator=(const Followed&) = delete;
    /// Until what stands there at the start is in force, or is not whole yet; until something does not answer for so long; or until an
    /// order to stop has come.
    void wait_begun(std::int64_t mute_ms) {
        std::unique_lock lock(guard_);
        while (!has_begun_ && !is_told_to_stop() && reading_.mute(mute_ms).empty()) changed_.wait_for(lock, std::chrono::milliseconds(100));
    }
    /// The file or folder that does not answer, at most once for each time; empty: none.
    std::string mute(std::int64_t milliseconds) {
        auto path = reading_.mute(milliseconds);
        const std::lock_guard lock(guard_);
        if (path == told_) return {};
        return told_ = std::move(path);
    }
    void go_on() { set([&] { is_to_go_on_ = true; }); }
    void read_again() { set([&] { if (follower_ != nullptr) follower_->read_again(); }); }
    /// `stopping` is set. False: the thread is held up.
    bool wait_ended(std::int64_t milliseconds) {
        std::unique_lock lock(guard_);
        return changed_.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return has_ended_; });
    }

  private:
    static constexpr std::int64_t first_files_patience_ms = 2000;   // a start goes on without files that are not whole by then
    void set(const std::function<void()>& change) {
        const std::lock_guard lock(guard_);
        change();
        changed_.notify_all();
    }
    Reading reading_;
    std::mutex guard_;                   ///< what follows
    std::string told_;                   ///< what mute() answered last
    std::condition_variable changed_;
    client::FileFollower* follower_ = nullptr;
    bool has_begun_ = false, is_to_go_on_ = false, has_ended_ = false;
    std::thread thread_;                 ///< last: it uses the others
};

/// A renewal of leadership has its answer in time or none: what waits longer than the lease lasts must not go
/// on leading.
constexpr std::int64_t lease_answer_ms = 4000;
/// How often brokers read the keys of service-account tokens; a new key verifies for three times as long
/// before it signs.
constexpr int hangup_look_ms = 500;
constexpr int token_keys_ms = 300'000, token_keys_again_ms = 5000;
constexpr std::int64_t mute_files_ms = 8000;    // without an answer for so long a file is given up for the time being
constexpr std::int64_t held_up_ms = 8000;        // an end does not wait longer for somebody who reads such a file

constexpr const char* account_folder = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is wrong with the levels of a flag; empty: they are in force.
std::string take_levels(const std::string& levels) {
    if (auto why = log::set_levels(levels); !why.empty()) return why;
    const auto unknown = log::unknown_modules(levels);
    if (!unknown.empty()) log::warn("app", "--log-level: {}", unknown);
    return {};
}

int run_broker(const BrokerRoleOptions& options) {
    const auto signals = prepare_process();
    const log::BackgroundOutput output;
    if (const auto why = take_levels(options.log_level); !why.empty()) return give_up("--log-level: " + why);
    io::raise_descriptor_limit();
    // In a pod the mounted account is used; elsewhere a kubeconfig.
    const auto service_host = environment("KUBERNETES_SERVICE_HOST");
    if (!options.kubeconfig.empty()) set_own_kubeconfig(fs::absolute(options.kubeconfig).lexically_normal().string());
    auto access = options.kubeconfig.empty() && !service_host.empty()
                      ? client::in_cluster(service_host, environment("KUBERNETES_SERVICE_PORT"),
                                           account_folder)
                      : client::read_kubeconfig(options.kubeconfig.empty() ? default_kubeconfig()
                                                                           : options.kubeconfig);
    if (!access) return give_up(access.error().message);
    const std::string group = "mqttbroker.iotoperations.azure.com/v1";
    auto connect = [&] { return std::make_unique<client::Client>(*access); };
    std::vector<const resources::Kind*> followed;
    for (const char* kind : {"Broker", "BrokerListener", "BrokerAuthentication", "BrokerAuthorization"}) followed.push_back(resources::find_kind(group, kind));
    for (const char* kind : {"Service", "Secret", "ConfigMap", "ServiceAccount", "Pod"}) followed.push_back(resources::find_kind("v1", kind));
    followed.push_back(resources::find_kind("cert-manager.io/v1", "Certificate"));
    const auto clock = machine_clock();
    control::RemoteObjects objects(connect, followed, options.name_space, clock);
    TokenKeyReader token_keys(connect);
    control::HealthBoard board;
    std::shared_ptr<HeldFolder> data;
    if (!options.data_folder.empty()) {
        auto opened = open_data_folder(options.data_folder);
        if (!opened) return give_up(opened.error().message);
        data = std::move(*opened);
    }
    control::BrokerController controller(
        objects, version, clock, [&] { return token_keys.known(); }, place_in(data));
    controller.use(board);
    auto figures = figures_of(controller);
    api::PageServer pages(pages_of(board, metrics_of(&figures, board, nullptr, {})));
    controller.on_metrics_port([&](int wanted) {
        const auto listening = pages.listen(static_cast<std::uint16_t>(wanted));
        return listening ? std::string() : listening.error().message;
    });
    const auto served = connect()->request("GET", "/version");
    if (!served || !served->ok()) log::warn("app", "the resource API does not say its version; it is taken for a cluster's why=\"{}\"", !served ? served.error().message : served->message());
    const auto api_version = served && served->ok() ? text_at(served->body, "gitVersion") : std::string();
    if (!api_version.ends_with("+penstock")) controller.serve_cluster();
    objects.start();
    log::info("app", "penstock {} broker role api=https://{}:{} api_version={} namespace={}", version, access->host, access->port, api_version, options.name_space);

    // One broker acts for a namespace; others wait for its lease. Who loses it ends, so that a fresh start decides anew.
    std::atomic<bool> stopping{false}, lost{false}, keys_are_read{true}, read_again{false}, elects_anew{false};
    // What was in force stays so until everything that was read is good.
    auto take_access_again = [&] {
        if (const auto now = client::read_again(*access); !now) {
            log::error("app", "the access to the resource API cannot be read again and stays as it was why=\"{}\"",
                       now.error().message);
        } else {
            log::info("app", "the access to the resource API was read again file={} api=https://{}:{}", now->source,
                      now->host, now->port);
            objects.reconnect();
            elects_anew = true;
        }
    };
    std::thread reading([&] {
        // An API that is away is asked with growing pauses.
        for (int pause = token_keys_again_ms; !stopping;) {
            keys_are_read = token_keys.read();
            const auto until = monotonic_ms() + (keys_are_read ? token_keys_ms : pause);
            bool wanted = false;
            while (!stopping && monotonic_ms() < until && !(wanted = read_again.exchange(false)))
                objects.pause(hangup_look_ms);
            if (wanted) take_access_again();
            pause = keys_are_read ? token_keys_again_ms : std::min(pause * 2, token_keys_ms);
        }
    });
    control::Watchdog watchdog(board, {.clock = clock, .facts = [&] {
        control::ProcessFacts out;
        const auto descriptors = io::descriptors();
        out.pid = getpid();
        out.descriptors = descriptors.open;
        out.descriptors_max = descriptors.limit;
        if (!keys_are_read) out.api_fault = fmt::format("the resource API at {} does not tell the keys of service-account tokens", token_keys.asked());
        controller.view().add_to(out);
        return out;
    }, .show = [&] { return controller.show_health(); }, .pause = [&](int ms) { objects.pause(ms); }});
    watchdog.start();
    std::thread electing([&] {
        auto transport = connect();
        transport->set_answer_time(lease_answer_ms);
        const auto space = options.name_space.empty() ? std::string("azure-iot-operations") : options.name_space;
        client::LeaderElection election(*transport, space, "penstock-broker", fmt::format("{}_{}", io::machine_name(), random_uuid().substr(0, 8)));
        bool leads = false;
        while (!stopping) {
            if (elects_anew.exchange(false)) transport->reopen();
            const bool now = election.tick(monotonic_ms, wall_ms());
            if (now && !leads) controller.start();
            if (leads && !now) {
                lost = true;
                kill(getpid(), SIGTERM);
                return;
            }
            leads = now;
            objects.pause(static_cast<int>(client::LeaderElection::interval_ms));
        }
        election.release(wall_ms());
    });
    wait_for_end(signals, [&] { read_again = true; });
    log::info("app", "stopping");
    stopping = true;
    controller.stop();
    objects.stop();
    watchdog.stop();
    electing.join();
    reading.join();
    pages.stop();
    return lost ? give_up("the lease was lost; another broker acts now") : 0;
}

int run(const RunOptions& options) {
    const auto signals = prepare_process();
    auto output = std::make_unique<log::BackgroundOutput>();
    std::unique_ptr<log::RunFiles> run_files;   // after all that logs has ended
    if (const auto why = take_levels(options.log_level); !why.empty()) return give_up("--log-level: " + why);
    std::error_code error;
    // Keys live in here: nothing below is readable by others, not even for a moment.
    umask(0077);
    StartWatch start;
    start.step("the data folder " + options.data_folder);
    const auto held = open_data_folder(options.data_folder);
    if (!held) return give_up(held.error().message);
    const auto& data = *held;
    run_files = std::make_unique<log::RunFiles>(data);
    const auto descriptors = io::raise_descriptor_limit();
    start.step("the keys in " + (fs::path(options.data_folder) / "pki").string());
    if (const auto whole = check_pki(options.data_folder); !whole) return give_up(whole.error().message);
    if (const auto there = check_registry(options.data_folder); !there) return give_up(there.error().message);
    IdentityKeeper keeper(data);
    if (auto opened = keeper.open(wall_ms()); !opened) return give_up(opened.error().message);
    const auto& identity = keeper.identity();
    mark_pki(options.data_folder);
    start.step("the resources in " + (fs::path(options.data_folder) / "registry.sqlite").string());
    const auto registry_file = fs::path(options.data_folder) / "registry.sqlite";
    for (const char* suffix : {"", "-wal", "-shm"}) fs::permissions(registry_file.string() + suffix, fs::perms::owner_read | fs::perms::owner_write, error);
    auto registry = registry::Registry::open((fs::path(options.data_folder) / "registry.sqlite").string());
    if (!registry) return give_up(registry.error().message);
    mark_pki(options.data_folder);

    const std::string token_issuer = "https://kubernetes.default.svc.cluster.local";
    api::Tokens tokens(**registry, token_issuer, keeper.token_keys().keys);
    api::Authorizer::bootstrap(**registry);

    const auto clock = machine_clock();
    control::LocalObjects objects(**registry);
    const auto latest_wall_ms = control::latest_report_ms(objects);
    if (options.with_broker)
        control::forget_former_run(objects, control::just_started, true, clock.wall_ms());
    const auto reread = fmt::format("kill -HUP {}", getpid());
    const auto own_kubeconfig = fs::absolute(fs::path(options.data_folder) / "kubeconfig.yaml").lexically_normal();
    if (own_kubeconfig != built_in_data_folder() + "/kubeconfig.yaml") set_own_kubeconfig(own_kubeconfig.string());
    RunHealth health(**registry, reread);
    health.certificates(keeper.facts(wall_ms()));
    FollowBoard follow_board;
    control::BrokerController controller(
        objects, version, clock,
        [&] { return control::TokenKeys{.issuers = {token_issuer}, .key_set = tokens.key_set()}; },
        place_in(data));
    if (options.with_broker) controller.use(health.board());
    controller.say_again([&] { return follow_board.say_again(reread); });
    control::CertificateControllers certificates(objects, clock);
    control::Housekeeper housekeeper(
        **registry, {.clock = clock, .api_ca = identity.trusted,
                     .make_token =
                         [&](const Json& account, const Json& secret) {
                             const auto made = tokens.issue(account, {}, 0, secret);
                             return made ? made->token : std::string();
                         },
                     .version = version,
                     .roles =
                         [&] {
                             return options.with_broker ? controller.view().roles()
                                                        : std::vector<control::Role>{control::api_role()};
                         },
                     .manifests = [&] { return follow_board.why_not(); },
                     .data_folder = options.data_folder,
                     .broker_elsewhere = !options.with_broker});
    api::Handler handler(**registry, tokens, version);
    handler.set_build_info(build_info());
    auto certificates_figures = [&keeper, &objects] {
        return api::certificates_metrics(keeper.facts(wall_ms())) + control::certificate_metrics(objects);
    };
    handler.set_ready_check([&](bool verbose) {
        auto found = control::readiness(health.board().all(monotonic_ms()), verbose);
        return api::Handler::Readiness{.is_ready = found.is_ready, .text = std::move(found.text)};
    });
    handler.set_certificates([&] { return api::certificates_json(keeper.facts(wall_ms())); });
    auto figures = figures_of(controller);
    const auto metrics = metrics_of(options.with_broker ? &figures : nullptr, health.board(), &housekeeper, certificates_figures);
    handler.set_metrics(metrics);
    if (options.with_broker) show_broker(handler, controller);
    handler.set_registry_copy([&]() -> Result<std::string> {
        if (auto there = data->ready(); !there) return std::unexpected(there.error());
        const auto copy = fs::path(options.data_folder) / "registry-copy.sqlite";
        std::error_code ignored;
        fs::remove(copy, ignored);
        if (auto done = (*registry)->copy_to(copy.string()); !done) return std::unexpected(done.error());
        auto bytes = read_file(copy, Streams::refused, no_bytes_max);
        fs::remove(copy, ignored);
        return bytes;
    });
    handler.set_former_log([&] { return run_files->before(); });
    api::Server server(handler, {.address = options.api_address,
                                 .port = static_cast<std::uint16_t>(options.api_port),
                                 .certificate = identity.server,
                                 .client_ca = identity.trusted});
    const auto port = server.start();
    if (!port) return give_up(port.error().message + "; it is the port of --api-port");
    KubeconfigFile kubeconfig(data);
    if (auto r = kubeconfig.set(kubeconfig_text(identity, options.api_address, *port)); !r)   // nothing in here needs the file
        log::error("app", "the kubeconfig for kubectl and penstock get is not as it should be; it is tried again file={} why=\"{}\"", kubeconfig.path(), r.error().message);
    auto access = kubeconfig.access();
    if (!access) return give_up(access.error().message);

    // The manifests folder of the data folder first, then what the command line names; each has its own objects.
    const auto manifests = fs::path(options.data_folder) / "manifests";
    fs::create_directories(manifests, error);
    auto pause = [&](int milliseconds) { (*registry)->wait_stop(milliseconds); };
    std::atomic<bool> has_started{false}, stopping{false}, read_again{false};
    std::vector<std::unique_ptr<client::Client>> connections;
    std::vector<std::unique_ptr<Followed>> followers;
    std::vector<std::function<void()>> tell_mute;   // of each of them: what does not answer
    // A start that gives up is no run, and leaves what the one before it said; so does one that never had in force what
    // -f names.
    auto become_run = [&] {
        if (has_started && health.never_in_force().empty()) run_files->begin_run();
    };
    control::Recorder recorder(objects, "penstock-files", clock);
    auto add_follower = [&](const std::vector<std::string>& files, bool may_be_empty) {
        const auto source = source_of(files);
        connections.push_back(std::make_unique<client::Client>(*access));
        const auto tell = [&follow_board, &health, become_run, source](const client::FollowState& state) {
            follow_board.put(source, state);
            health.manifests(source, state);
            become_run();
        };
        auto make = [&, &connection = *connections.back(), files, may_be_empty, source, tell](Reading& reading) {
            auto follower = std::make_unique<client::FileFollower>(connection, std::make_unique<ToldFiles>(files, reading),
                                                                   client::FileFollower::Options{.source = source, .name_space = access->name_space, .may_be_empty = may_be_empty, .reread = reread, .now_ms = monotonic_ms, .wall_ms = wall_ms});
            follower->on_state(tell);
            follower->on_conflict([&](const Json& object, const std::string& why) {
                const auto* kind = resources::find_kind(text_at(object, "apiVersion"), text_at(object, "kind"));
                if (kind == nullptr) return;
                if (const auto live = objects.get(*kind, kind->namespaced ? client::namespace_of(object, access->name_space) : "", text_at(object, "metadata.name"))) recorder.record(*live, "Warning", "FileConflict", why);
            });
            return follower;
        };
        followers.push_back(std::make_unique<Followed>(std::move(make), pause, stopping));
        tell_mute.push_back([&followed = *followers.back(), tell] {
            const auto path = followed.mute(mute_files_ms);
            if (path.empty()) return;
            const auto why = fmt::format("{}: reading it does not come to an end; is it on a mount or disk that does not answer? What was in force stays, and it is taken when it answers", path);
            log::warn("app", "manifests cannot be read, and nothing waits for them why=\"{}\"", why);
            tell({.phase = client::FollowState::Phase::waiting, .why = why, .faults = {}, .cure = "see whether it answers with: ls -l " + typed_path(path)});
        });
        followers.back()->wait_begun(mute_files_ms);
        tell_mute.back()();
    };
    start.step({});
    add_follower({manifests.string()}, true);
    if (!options.files.empty()) add_follower(options.files, false);
    api::PageServer pages(pages_of(health.board(), metrics));

    controller.on_metrics_port([&](int wanted) {
        const auto listening = pages.listen(static_cast<std::uint16_t>(wanted));
        return listening ? std::string() : listening.error().message;
    });
    if (options.with_broker) create_defaults(**registry, options.files.empty());
    housekeeper.start();
    certificates.start();
    if (options.with_broker) controller.start();

    log::info("app", "penstock {} has started data={} api=https://{}:{} descriptors={}", version, options.data_folder, options.api_address, *port, descriptors);
    has_started = true;
    become_run();

    std::vector<std::thread> following;
    control::Watchdog watchdog(health.board(), {.clock = clock, .facts = [&] {
                                                    health.look_for_deleted();
                                                    auto facts = health.facts();
                                                    facts.run_log_fault = run_files->fault();
                                                    facts.run_log_folder = (fs::path(options.data_folder) / "log").string();
                                                    if (options.with_broker) controller.view().add_to(facts);
                                                    return facts;
                                                },
                                                .show = [&] { return !options.with_broker || controller.show_health(); }, .pause = pause, .latest_wall_ms = latest_wall_ms});
    watchdog.start();
    following.emplace_back([&] {
        const auto left = tell_of_former_files(health, {manifests.string()}, options.files);
        log::print(STDOUT_FILENO, announcement(health.board(), left, kubeconfig.path(), built_in_data_folder() + "/kubeconfig.yaml", pause, stopping));
    });
    for (auto& follower : followers) follower->go_on();
    // While the registry's disk fails, each look tries it again.
    following.emplace_back([&] {
        while (!stopping) {
            pause(2000);
            for (const auto& look : tell_mute) look();
            [[maybe_unused]] const auto why = (*registry)->storage_fault();
        }
    });
    // Certificates and keys get their successors in time, however long the process runs.
    keeper.set_users({.identity = [&, api_port = *port](const Identity& now) -> Result<void> {
                          if (auto used = server.use(now.server, now.trusted); !used) return used;
                          housekeeper.set_api_ca(now.trusted);
                          mark_pki(data->at(""));
                          return kubeconfig.set(kubeconfig_text(now, options.api_address, api_port));
                      },
                      .token_keys =
                          [&](const std::vector<std::string>& keys) {
                              tokens.set_keys(keys);
                              mark_pki(data->at(""));
                          }});
    following.emplace_back([&] {
        while (!stopping) {
            const auto until = monotonic_ms() + IdentityKeeper::look_ms;
            // What somebody deletes is put back before a crash makes a loss of it.
            while (!stopping && monotonic_ms() < until && !read_again.exchange(false) && !keeper.has_lost_files()) {
                pause(hangup_look_ms);
                if (options.with_broker) controller.keep_keys();
            }
            if (stopping) return;
            const bool is_hasty = keeper.has_lost_files();
            keeper.look(wall_ms());
            if (is_hasty) pause(hangup_look_ms);
            if (data->is_there()) mark_pki(data->at(""));
            if (auto written = kubeconfig.write(); !written) log::debug("app", "the kubeconfig cannot be written yet: {}", written.error().message);
            health.token_keys(keeper.token_keys().fault);
            health.certificates(keeper.facts(wall_ms()));
        }
    });
    wait_for_end(signals, [&] {
        for (auto& follower : followers) follower->read_again();
        read_again = true;
    });
    log::info("app", "stopping");
    stopping = true;
    (*registry)->stop();
    for (auto& thread : following) thread.join();
    const bool is_held_up = std::ranges::any_of(followers, [](auto& follower) { return !follower->wait_ended(held_up_ms); });
    watchdog.stop();
    controller.stop();
    certificates.stop();
    housekeeper.stop();
    pages.stop();
    server.stop();
    const auto why = health.never_in_force();
    const int code = why.empty() ? 0 : give_up("ended without ever having run what -f names: " + why);
    if (!is_held_up) return code;
    // A thread that is held up cannot be waited for, and uses what would go away here. All else has ended and is on the disk.
    log::warn("app", "ends while a file is being read that does not answer");
    run_files.reset();
    output.reset();
    std::_Exit(code);
}

void add_options(Command& command, RunOptions& o) {
    o.data_folder = default_data_folder();
    command.option("-f,--filename", o.files, "Manifests to apply and follow: files or folders");
    command.option("--data-dir", o.data_folder, "Where state is kept").shows_default();
    command.option("--api-address", o.api_address, "Address of the resource API").shows_default();
    command.option("--api-port", o.api_port, "Port of the resource API; 0 picks one")
        .shows_default()
        .between(0, 65'535);
    command.option("--log-level", o.log_level, "Log level until the Broker resource is read").shows_default();
    command.runs([&o] { return run(o); });
}

}  // namespace

void add_run(Commands& commands) {
    auto& options = commands.keep<RunOptions>();
    auto command = commands.add("run", "Run broker, resource API and controllers in one process");
    add_options(command, options);
}

void add_api(Commands& commands) {
    auto& options = commands.keep<RunOptions>();
    options.with_broker = false;
    auto command = commands.add("api", "Run the resource API and its controllers without a broker");
    add_options(command, options);
}

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
