#include "app/platform.h"

#include <unistd.h>

#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "app/build_info.h"
#include "app/defaults.h"
#include "app/environment.h"
#include "app/pki_check.h"
#include "app/process.h"
#include "app/version.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/log_output.h"
#include "base/own_command.h"
#include "client/client.h"
#include "control/access_view.h"
#include "io/socket.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::Json;

constexpr const char* token_issuer = "https://kubernetes.default.svc.cluster.local";
constexpr int look_again_ms = 2000;      // at files that do not answer, and at a disk that fails

std::string usual_kubeconfig() { return built_in_data_folder() + "/kubeconfig.yaml"; }

/// The resources, readable by nobody else.
Result<std::unique_ptr<registry::Registry>> open_registry(const fs::path& data) {
    const auto file = (data / "registry.sqlite").string();
    std::error_code ignored;
    for (const char* suffix : {"", "-wal", "-shm"})
        fs::permissions(file + suffix, fs::perms::owner_read | fs::perms::owner_write, ignored);
    return registry::Registry::open(file);
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

}  // namespace

Result<Ground> open_ground(const RunOptions& options, StartWatch& start,
                           std::unique_ptr<log::RunFiles>& run_files) {
    const fs::path folder = options.data_folder;
    Ground out;
    start.step("the data folder " + options.data_folder);
    auto held = open_data_folder(options.data_folder);
    if (!held) return std::unexpected(held.error());
    out.data = std::move(*held);
    run_files = std::make_unique<log::RunFiles>(out.data);
    out.descriptors = io::raise_descriptor_limit();
    start.step("the keys in " + (folder / "pki").string());
    if (const auto whole = check_pki(folder); !whole) return std::unexpected(whole.error());
    if (const auto there = check_registry(folder); !there) return std::unexpected(there.error());
    out.keeper = std::make_unique<IdentityKeeper>(out.data);
    if (auto opened = out.keeper->open(wall_ms()); !opened) return std::unexpected(opened.error());
    mark_pki(folder);
    start.step("the resources in " + (folder / "registry.sqlite").string());
    auto registry = open_registry(folder);
    if (!registry) return std::unexpected(registry.error());
    out.registry = std::move(*registry);
    mark_pki(folder);
    api::Authorizer::bootstrap(*out.registry);
    control::LocalObjects objects(*out.registry);
    out.latest_wall_ms = control::latest_report_ms(objects);
    if (options.with_broker) control::forget_former_run(objects, control::just_started, true, machine_clock().wall_ms());
    const auto kubeconfig = fs::absolute(folder / "kubeconfig.yaml").lexically_normal().string();
    if (kubeconfig != usual_kubeconfig()) set_own_kubeconfig(kubeconfig);
    return out;
}

Platform::Platform(const RunOptions& options, Ground ground, log::RunFiles& run_files, StartWatch& watch)
    : options_(options), ground_(std::move(ground)), run_files_(run_files), watch_(watch),
      registry_(*ground_.registry), keeper_(*ground_.keeper), reread_(fmt::format("kill -HUP {}", getpid())),
      manifests_((fs::path(options.data_folder) / "manifests").string()),
      tokens_(registry_, token_issuer, keeper_.token_keys().keys), objects_(registry_),
      health_(registry_, reread_),
      controller_(
          objects_, version, clock_,
          [this] { return control::TokenKeys{.issuers = {token_issuer}, .key_set = tokens_.key_set()}; },
          place_in(ground_.data)),
      certificates_(objects_, clock_), housekeeper_(registry_, housekeeping()), handler_(registry_, tokens_, version),
      figures_(figures_of(controller_)),
      server_(handler_, {.address = options.api_address,
                         .port = static_cast<std::uint16_t>(options.api_port),
                         .certificate = keeper_.identity().server,
                         .client_ca = keeper_.identity().trusted}),
      kubeconfig_(ground_.data), files_(following()),
      pages_(pages_of(health_.board(), metrics())), watchdog_(health_.board(), watching()),
      parts_(parts(), [this] { tell_to_stop(); }) {
    health_.certificates(keeper_.facts(wall_ms()));
    if (options_.with_broker) controller_.use(health_.board());
    controller_.say_again([this] { return follow_board_.say_again(reread_); });
    serve_metrics_port(controller_, pages_);
    give_views();
}

std::vector<Part> Platform::parts() {
    const bool with_broker = options_.with_broker;
    return {
        // First up and last gone: people and the other parts see and change resources through it.
        {.name = "resource API", .log_module = "api",
         .start = [this] { return start_api(); },
         .stop = [this] { server_.stop(); },
         .pods = [] { return std::vector{control::api_role()}; }},
        // From here on the API answers. What the files have comes before the defaults, which yield to it, and
        // before the controllers, so that they act on it and not on what stood there before.
        {.name = "manifests", .log_module = "app",
         .needs = {"resource API"},
         .start = unfailing([this] { begin_files(); })},
        {.name = "defaults", .log_module = "app",
         .needs = {"manifests"}, .is_wanted = with_broker,
         .start = unfailing([this] { create_defaults(registry_, options_.files.empty()); })},
        // The broker's controller opens their port, so they are there before it and go after it.
        {.name = "metrics pages", .log_module = "control", .stop = [this] { pages_.stop(); }},
        // From here on resources are acted on: first what all need (namespaces, the bundle of the API's CAs),
        // then the Secrets of certificates, which ports wait for.
        {.name = "Kubernetes controllers", .log_module = "control",
         .needs = {"resource API"},
         .start = unfailing([this] { housekeeper_.start(); }),
         .stop = [this] { housekeeper_.stop(); }},
        {.name = "certificate controllers", .log_module = "control",
         .needs = {"Kubernetes controllers"},
         .start = unfailing([this] { certificates_.start(); }),
         .stop = [this] { certificates_.stop(); }},
        {.name = "broker", .log_module = "broker",
         .needs = {"defaults", "metrics pages", "certificate controllers"}, .is_wanted = with_broker,
         .start = unfailing([this] { controller_.start(); }),
         .stop = [this] { controller_.stop(); },
         .pods = [this] { return controller_.view().roles(); }},
        // From here on ports may open. Nothing below can fail: this is a run, and its log is kept.
        {.name = "run", .log_module = "app", .start = unfailing([this] { say_started(); })},
        {.name = "watchdog", .log_module = "control",
         .start = unfailing([this] { watchdog_.start(); }),
         .stop = [this] { watchdog_.stop(); }},
        // What it says is what the watchdog finds.
        {.name = "announcement", .log_module = "app",
         .needs = {"watchdog"},
         .start = unfailing([this] { announcing_ = std::thread([this] { announce(); }); }),
         .stop = [this] { announcing_.join(); }},
        // From here on changes of files take effect. Their threads end before the controllers do, which see
        // to the end what they applied.
        {.name = "followed files", .log_module = "client",
         .needs = {"manifests"},
         .start = unfailing([this] { files_.go_on(); }),
         .stop = [this] { is_held_up_ = !files_.wait_ended(); }},
        {.name = "looks at what does not answer", .log_module = "app",
         .needs = {"followed files"},
         .start = unfailing([this] { looking_ = std::thread([this] { look_again(); }); }),
         .stop = [this] { looking_.join(); }},
        // It changes the certificates of what is above while that runs: last to come and first to go.
        {.name = "own certificates", .log_module = "app",
         .needs = {"resource API", "Kubernetes controllers"},
         .start = unfailing([this] { keeping_ = std::thread([this] { keep_identity(); }); }),
         .stop = [this] { keeping_.join(); }},
    };
}

control::HousekeeperOptions Platform::housekeeping() {
    return {.clock = clock_,
            .api_ca = keeper_.identity().trusted,
            .make_token =
                [this](const Json& account, const Json& secret) {
                    const auto made = tokens_.issue(account, {}, 0, secret);
                    return made ? made->token : std::string();
                },
            .version = version,
            .roles = [this] { return parts_.pods(); },
            .manifests = [this] { return follow_board_.why_not(); },
            .data_folder = options_.data_folder,
            .broker_elsewhere = !options_.with_broker};
}

FollowedFiles::Options Platform::following() {
    return {.objects = objects_,
            .clock = clock_,
            .reread = reread_,
            .on_state =
                [this](const std::string& source, const client::FollowState& state) {
                    follow_board_.put(source, state);
                    health_.manifests(source, state);
                    become_run();
                },
            .pause = [this](int milliseconds) { pause(milliseconds); },
            .stopping = stopping_};
}

control::Watchdog::Options Platform::watching() {
    return {.clock = clock_,
            .facts =
                [this] {
                    health_.look_for_deleted();
                    auto facts = health_.facts();
                    facts.run_log_fault = run_files_.fault();
                    facts.run_log_folder = (fs::path(options_.data_folder) / "log").string();
                    if (options_.with_broker) controller_.view().add_to(facts);
                    return facts;
                },
            .show = [this] { return !options_.with_broker || controller_.show_health(); },
            .pause = [this](int milliseconds) { pause(milliseconds); },
            .latest_wall_ms = ground_.latest_wall_ms};
}

std::function<std::string()> Platform::metrics() {
    return metrics_of(options_.with_broker ? &figures_ : nullptr, health_.board(), &housekeeper_, [this] {
        return api::certificates_metrics(keeper_.facts(wall_ms())) + control::certificate_metrics(objects_);
    });
}

/// What the API answers beyond resources.
void Platform::give_views() {
    handler_.set_build_info(build_info());
    handler_.set_ready_check([this](bool verbose) {
        auto found = control::readiness(health_.board().all(monotonic_ms()), verbose);
        return api::Handler::Readiness{.is_ready = found.is_ready, .text = std::move(found.text)};
    });
    handler_.set_certificates([this] { return api::certificates_json(keeper_.facts(wall_ms())); });
    handler_.set_metrics(metrics());
    handler_.set_registry_copy([this] { return copy_registry(); });
    handler_.set_former_log([this] { return run_files_.before(); });
    if (!options_.with_broker) return;
    auto& view = controller_.view();
    handler_.set_broker_view([&view](const std::string& what) {
        if (what.starts_with("traces")) return view.traces(what);
        return what == "clients" ? control::clients_json(view.clients())
                                 : control::decisions_json(view.decisions());
    });
    handler_.set_broker_copy([&view](const std::string& folder) { return view.copy_state(folder); });
}

Result<std::string> Platform::copy_registry() {
    if (auto there = ground_.data->ready(); !there) return std::unexpected(there.error());
    const auto copy = fs::path(options_.data_folder) / "registry-copy.sqlite";
    std::error_code ignored;
    fs::remove(copy, ignored);
    if (auto done = registry_.copy_to(copy.string()); !done) return std::unexpected(done.error());
    auto bytes = read_file(copy, Streams::refused, no_bytes_max);
    fs::remove(copy, ignored);
    return bytes;
}

Result<void> Platform::start_api() {
    const auto port = server_.start();
    if (!port) return fail(port.error().message + "; it is the port of --api-port");
    port_ = *port;
    // Nothing in here needs the file.
    if (auto r = kubeconfig_.set(kubeconfig_text(keeper_.identity(), options_.api_address, port_)); !r)
        log::error(
            "app",
            "the kubeconfig for kubectl and penstock get is not as it should be; it is tried again file={} "
            "why=\"{}\"",
            kubeconfig_.path(), r.error().message);
    if (auto access = kubeconfig_.access(); !access) return std::unexpected(access.error());
    return {};
}

/// The manifests folder of the data folder first, then what the command line names; each has its own objects.
void Platform::begin_files() {
    std::error_code ignored;
    fs::create_directories(manifests_, ignored);
    watch_.step({});
    const auto access = kubeconfig_.access();
    files_.begin(*access, {manifests_}, true);
    if (!options_.files.empty()) files_.begin(*access, options_.files, false);
}

/// A start that gives up is no run, and leaves what the one before it said; so does one that never had in
/// force what -f names.
void Platform::become_run() {
    if (has_started_ && health_.never_in_force().empty()) run_files_.begin_run();
}

void Platform::say_started() {
    log::info("app", "penstock {} has started data={} api=https://{}:{} descriptors={}", version,
              options_.data_folder, options_.api_address, port_, ground_.descriptors);
    has_started_ = true;
    become_run();
}

void Platform::announce() {
    const auto left = tell_of_former_files(health_, {manifests_}, options_.files);
    log::print(STDOUT_FILENO, announcement(health_.board(), left, kubeconfig_.path(), usual_kubeconfig(),
                                           [this](int milliseconds) { pause(milliseconds); }, stopping_));
}

void Platform::look_again() {
    while (!stopping_) {
        pause(look_again_ms);
        files_.look_for_mute();
        // While the registry's disk fails, each look tries it again.
        [[maybe_unused]] const auto why = registry_.storage_fault();
    }
}

/// Certificates and keys get their successors in time, however long the process runs.
void Platform::keep_identity() {
    const auto& data = *ground_.data;
    keeper_.set_users({.identity = [this, &data](const Identity& now) -> Result<void> {
                           if (auto used = server_.use(now.server, now.trusted); !used) return used;
                           housekeeper_.set_api_ca(now.trusted);
                           mark_pki(data.at(""));
                           return kubeconfig_.set(kubeconfig_text(now, options_.api_address, port_));
                       },
                       .token_keys =
                           [this, &data](const std::vector<std::string>& keys) {
                               tokens_.set_keys(keys);
                               mark_pki(data.at(""));
                           }});
    while (!stopping_) {
        const auto until = monotonic_ms() + IdentityKeeper::look_ms;
        // What somebody deletes is put back before a crash makes a loss of it.
        while (!stopping_ && monotonic_ms() < until && !read_again_.exchange(false) &&
               !keeper_.has_lost_files()) {
            pause(hangup_look_ms);
            if (options_.with_broker) controller_.keep_keys();
        }
        if (stopping_) return;
        const bool is_hasty = keeper_.has_lost_files();
        keeper_.look(wall_ms());
        if (is_hasty) pause(hangup_look_ms);
        if (data.is_there()) mark_pki(data.at(""));
        if (auto written = kubeconfig_.write(); !written)
            log::debug("app", "the kubeconfig cannot be written yet: {}", written.error().message);
        health_.token_keys(keeper_.token_keys().fault);
        health_.certificates(keeper_.facts(wall_ms()));
    }
}

void Platform::read_again() {
    files_.read_again();
    read_again_ = true;
}

void Platform::tell_to_stop() {
    stopping_ = true;
    registry_.stop();                    // whoever pauses there goes on
}

}  // namespace penstock::app
