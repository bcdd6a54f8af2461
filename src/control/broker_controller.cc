#include "control/broker_controller.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "io/poller.h"
#include "io/wait.h"
#include "control/custom_server.h"
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
constexpr int recovery_report_ms = 1000;
constexpr std::int64_t begin_retry_ms = 30'000;
constexpr std::int64_t sys_interval_ms = 10'000;
constexpr std::int64_t health_report_ms = 60'000;

const resources::Kind& kind_of(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }
const resources::Kind& service_kind() { return *resources::find_kind("v1", "Service"); }

/// Health with its times: the transition time moves when the state changes, the update time at most once a minute.
Json health(const Json& before, std::string status, std::string reason, std::string message) {
    const auto now = rfc3339(wall_ms());
    const auto& old = at_path(before, "status.healthState");
    const bool same = text_at(old, "status") == status && text_at(old, "reasonCode") == reason && text_at(old, "message") == message;
    const bool recent = wall_ms() - parse_rfc3339(text_at(old, "lastUpdateTime")) < health_report_ms;
    return {{"status", status}, {"reasonCode", reason}, {"message", message},
            {"lastTransitionTime", text_at(old, "status") == status ? text_at(old, "lastTransitionTime", now) : now},
            {"lastUpdateTime", same && recent ? text_at(old, "lastUpdateTime", now) : now}};
}

Json basic_status(const Json& object, const std::string& runtime, const std::string& description, Json health_state) {
    return {{"runtimeStatus", {{"status", runtime}, {"description", description}}},
            {"provisioningStatus", {{"status", runtime == "Failed" ? "Failed" : "Succeeded"}}},
            {"healthState", std::move(health_state)},
            {"observedGeneration", at_path(object, "metadata.generation")}};
}

std::string port_word(const PlannedPort& port, const broker::ListenerState& state) {
    return fmt::format("{}{}", state.is_open ? state.bound_port : port.config.port, port.config.protocol == broker::Protocol::websockets ? "/ws" : "/tcp");
}

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

BrokerController::BrokerController(Objects& objects, std::string version, std::function<TokenKeys()> token_keys, StatePlace place)
    : objects_(objects), recorder_(objects, "penstock-broker"), engine_(objects), version_(std::move(version)), place_(std::move(place)), probe_secret_(std::make_shared<const std::string>(random_text(64))),
      crew_(std::make_shared<auth::Crew>(auth::Crew::threads_here())), http_(std::make_shared<client::HttpPool>()),
      security_(objects, {.token_keys = std::move(token_keys), .probe_secret = probe_secret_, .crew = crew_, .custom_server = [http = http_](const Json& settings) { return make_custom_server(http, settings); },
                          .revocation = [http = http_](const std::string& mode) { return make_revocation_check(http, mode); }}) {
    engine_.add(std::make_unique<Work>(*this));
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

std::vector<broker::Decision> BrokerController::decisions() {
    const std::lock_guard lock(guard_);
    return server_ != nullptr ? server_->decisions() : std::vector<broker::Decision>();
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
    const std::lock_guard lock(guard_);
    return server_ != nullptr ? server_->clients() : std::vector<broker::ClientView>();
}

Result<std::unique_ptr<store::Durable>> BrokerController::open_state(const Plan& plan, const Json& broker, std::uint32_t workers, std::shared_ptr<store::RecoveryProgress> progress) {
    if (place_.folder.empty()) return fail("this role has no data folder to keep state in (--data-dir)");
    auto keys = state_keys(place_, plan.seals, plan.key_rotation);
    if (!keys) return std::unexpected(keys.error());
    {
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
        next_begin_ = monotonic_ms() + begin_retry_ms;
        return;
    }
    persistence_waits_.clear();
    server_->begin_persistence(std::move(*opened));
    log::info("control", "the broker's state is kept from now on folder={}", place_.folder);
}

std::unique_ptr<broker::Server> BrokerController::start_server(const Plan& plan, const Json& broker, const std::vector<Json>& listeners) {
    const auto space = text_at(broker, "metadata.namespace"), name = text_at(broker, "metadata.name");
    if (!plan.is_persistent) return std::make_unique<broker::Server>(plan.workers, nullptr, place_.buffer_folder, plan.config);
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
            log::info("control", "the broker's state is being read folder={} progress=\"{}\"", place_.folder, how_far);
            write_status(kind_of("Broker"), space, name, basic_status(broker, "Recovering", "reading the state back: " + how_far, health(broker, "Unavailable", "Recovering", "the state is being read back")));
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
        log::info("control", "the broker's state is there folder={} seconds={:.2f}", place_.folder, out->durable()->figures().recovery_seconds);
        return out;
    }
    // Never a silent fresh start: without its state the broker does not run.
    if (store_fault_ != opened.error().message) log::error("control", "the broker's state cannot be opened why=\"{}\"", opened.error().message);
    store_fault_ = opened.error().message;
    write_status(kind_of("Broker"), space, name, basic_status(broker, "Failed", store_fault_, health(broker, "Unavailable", "StateNotOpen", store_fault_)));
    for (const auto& listener : listeners)
        write_status(kind_of("BrokerListener"), text_at(listener, "metadata.namespace"), text_at(listener, "metadata.name"),
                     basic_status(listener, "Waiting", "the Broker's state cannot be opened", health(listener, "Unavailable", "StateNotOpen", store_fault_)));
    return nullptr;
}

void BrokerController::update_keys(const Plan& plan) {
    auto& durable = *server_->durable();
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

void BrokerController::secure(PlannedPort& port, const Json& listener) {
    const auto authentication = text_at(port.spec, "authenticationRef"), authorization = text_at(port.spec, "authorizationRef");
    PreparedAuthenticator who;
    auto block = [&](const std::string& why) { port.blocked += (port.blocked.empty() ? "" : "; ") + why; };
    if (!authentication.empty()) {
        who = security_.authenticator(port.name_space, authentication);
        if (!who.fault.empty()) block(who.fault);
        port.config.authenticator = who.authenticator;
        port.warnings = who.warnings;
        port.security["authentication"] = authentication;
        if (!who.methods.empty()) port.security["methods"] = who.methods;
    } else {
        port.security["authentication"] = "none";
    }
    if (!authorization.empty()) {
        const auto what = security_.policy(port.name_space, authorization);
        if (!what.fault.empty()) block(what.fault);
        port.config.policy = what.policy;
        port.security["authorization"] = authorization;
        port.warnings.insert(port.warnings.end(), what.warnings.begin(), what.warnings.end());
        if (what.fault.empty() && what.rules == 0) port.warnings.push_back(fmt::format("BrokerAuthorization {} has no rules: it denies everything", authorization));
        if (authentication.empty()) port.warnings.emplace_back("authorizationRef has no effect without authenticationRef");
    }
    if (!at_path(port.spec, "tls").is_object()) {
        port.security["tls"] = "none";
        if (!authentication.empty() && !port.config.loopback_only) port.warnings.emplace_back("without tls, passwords and tokens cross the network in clear text");
        if (who.wants_certificate) port.warnings.emplace_back("X509 needs tls: without it no client can show a certificate");
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
    port.warnings.insert(port.warnings.end(), prepared.warnings.begin(), prepared.warnings.end());
    if (const auto asked = uncovered_.find(fmt::format("{}:{}", port.config.resource, port.config.port)); asked != uncovered_.end())
        port.warnings.push_back(fmt::format("clients asked for {}, which the certificate does not cover; add it to san (or issue a certificate that has it)", fmt::join(asked->second, ", ")));
    if (!prepared.fault.empty()) block(prepared.fault);
    if (prepared.context != nullptr) port.refused = prepared.judgement.because_of(crypto::Weight::all_refuse);
}

Outcome BrokerController::turn() {
    const bool complete = reconcile();
    const auto now = monotonic_ms();
    if (server_ != nullptr && now >= next_sys_) {
        next_sys_ = now + sys_interval_ms;
        publish_sys(now);
    }
    // Ports that are taken are tried again; $SYS and the health report have their times.
    return Outcome::after(std::min(complete ? health_report_ms : retry_ms, server_ != nullptr ? std::max<std::int64_t>(1, next_sys_ - now) : health_report_ms));
}

bool BrokerController::reconcile() {
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
        write_status(kind_of("Broker"), text_at(*other, "metadata.namespace"), text_at(*other, "metadata.name"),
                             basic_status(*other, "Failed", why, health(*other, "Unavailable", "BrokerNotRun", why)));
    }

    std::vector<Json> listeners;
    for (const auto& listener : all_listeners) {
        const bool ours = chosen != nullptr && text_at(*listener, "metadata.namespace") == text_at(*chosen, "metadata.namespace") &&
                          registry::broker_of(*listener) == text_at(*chosen, "metadata.name");
        if (ours) {
            listeners.push_back(*listener);
            continue;
        }
        const auto why = fmt::format("there is no running Broker \"{}\" in namespace {}", registry::broker_of(*listener), text_at(*listener, "metadata.namespace"));
        write_status(kind_of("BrokerListener"), text_at(*listener, "metadata.namespace"), text_at(*listener, "metadata.name"),
                             basic_status(*listener, "Waiting", why, health(*listener, "Unavailable", "BrokerMissing", why)));
    }

    auto plan = plan_broker(chosen != nullptr ? *chosen : Json::object(), listeners, std::thread::hardware_concurrency());
    if (in_cluster_)
        for (auto& port : plan.ports) port.config.loopback_only = false;
    if (chosen == nullptr) {
        plan.ports.clear();
        if (server_ == nullptr) return true;
    }
    if (server_ == nullptr) {
        auto fresh = start_server(plan, *chosen, listeners);
        if (fresh == nullptr) return false;
        const std::lock_guard lock(guard_);
        server_ = std::move(fresh);
    }
    const auto waited = std::exchange(workers_wait_, {});
    if (chosen != nullptr && server_->workers() != plan.workers)
        if (const auto done = server_->set_workers(plan.workers); !done) {
            workers_wait_ = done.error().message;
            if (workers_wait_ != waited) log::info("control", "the number of workers cannot be changed yet and is tried again has={} wanted={} why=\"{}\"", server_->workers(), plan.workers, workers_wait_);
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
            if (text_at(listener, "metadata.namespace") == port.name_space && text_at(listener, "metadata.name") == port.listener) secure(port, listener);
    security_.sweep();

    std::vector<broker::ListenerConfig> wanted;
    for (const auto& port : plan.ports)
        if (port.blocked.empty()) wanted.push_back(port.config);
    const auto opened = server_->apply(plan.config, wanted);
    if (begins && monotonic_ms() >= next_begin_) begin_persistence(plan, *chosen);
    struct News {
        std::string listener;
        const char* type;
        const char* reason;
        std::string message;
    };
    std::vector<News> news;
    std::vector<broker::ListenerState> states;
    std::size_t next = 0;
    for (const auto& port : plan.ports)
        states.push_back(port.blocked.empty() && next < opened.size() ? opened[next++] : broker::ListenerState{.config = port.config, .error = port.blocked});
    {
        const std::lock_guard lock(guard_);
        for (std::size_t i = 0; i < states.size(); ++i) {
            const bool was_open = std::ranges::any_of(states_, [&](const auto& s) { return s.is_open && s.config.port == states[i].config.port; });
            const bool known_error = std::ranges::any_of(states_, [&](const auto& s) { return s.error == states[i].error && s.config.port == states[i].config.port; });
            if (states[i].is_open && !was_open) news.push_back({states[i].config.resource, "Normal", "PortOpen", fmt::format("port {} accepts connections", states[i].bound_port)});
            else if (!states[i].is_open && !known_error) news.push_back({states[i].config.resource, "Warning", plan.ports[i].blocked.empty() ? "PortNotOpen" : "PortRefused", fmt::format("port {}: {}", states[i].config.port, states[i].error)});
            if (states[i].is_open && !was_open)
                log::info("control", "listener open listener={} port={} interfaces={} protocol={} tls={} authentication={} authorization={}", states[i].config.resource, states[i].bound_port,
                          states[i].config.loopback_only ? "loopback" : "all", states[i].config.protocol == broker::Protocol::websockets ? "WebSockets" : "Mqtt", text_at(plan.ports[i].security, "tls"),
                          text_at(plan.ports[i].security, "authentication"), text_at(plan.ports[i].security, "authorization", "none"));
            else if (!states[i].is_open && !known_error)
                log::warn("control", "listener not open listener={} port={} why=\"{}\"", states[i].config.resource, states[i].config.port, states[i].error);
        }
        if (!metrics_fault.empty() && metrics_fault != metrics_fault_) log::warn("control", "{}; it is tried again", metrics_fault);
        metrics_fault_ = metrics_fault;
        plan_ = plan;
        traces_.set_limit(plan.trace_bytes);
        states_ = states;
        if (chosen != nullptr) {
            name_space_ = text_at(*chosen, "metadata.namespace");
            broker_name_ = text_at(*chosen, "metadata.name");
        } else {
            broker_name_.clear();
        }
    }
    if (chosen != nullptr) {
        for (const auto& listener : listeners) {
            adopt(listener, *chosen);
            put_service(listener, plan, states);
        }
        write_status(kind_of("Broker"), name_space_, broker_name_, broker_status(*chosen, plan, states));
    }
    report(plan, states);
    for (const auto& item : news)
        for (const auto& listener : listeners)
            if (item.listener == text_at(listener, "metadata.namespace") + "/" + text_at(listener, "metadata.name")) recorder_.record(listener, item.type, item.reason, item.message);
    bool complete = metrics_fault.empty() && workers_wait_.empty();
    for (std::size_t i = 0; i < states.size(); ++i) complete &= states[i].is_open || !plan.ports[i].blocked.empty();
    return complete;
}

Json BrokerController::broker_status(const Json& broker, const Plan& plan, const std::vector<broker::ListenerState>& states) const {
    std::string closed, first_fault;
    for (const auto& state : states)
        if (!state.is_open) closed += fmt::format("{}{} port {}", closed.empty() ? "" : ", ", state.config.resource, state.config.port);
    std::size_t probed = selftest_.latest.size(), failed = 0;
    for (const auto& result : selftest_.latest) {
        if (result.ok()) continue;
        ++failed;
        if (first_fault.empty()) first_fault = fmt::format("{}: {}", result.target.listener, result.fault);
    }
    Json health_state;
    if (failed > 0) {
        health_state = health(broker, failed == probed ? "Unavailable" : "Degraded", "BrokerProbeFailed",
                              fmt::format("the self-test failed on {}/{} listeners; {}", failed, probed, first_fault));
    } else if (!metrics_fault_.empty()) {
        health_state = health(broker, "Degraded", "MetricsPortNotOpen", metrics_fault_);
    } else if (!closed.empty()) {
        health_state = health(broker, "Degraded", "ListenerNotOpen", "not open: " + closed);
    } else {
        health_state = health(broker, "Available", "", "");
    }
    auto out = basic_status(broker, "Running", closed.empty() ? "All replicas are running." : "All replicas are running; listeners not open: " + closed, std::move(health_state));
    out["workers"] = server_->workers();
    if (server_->workers() != plan.workers)
        out["runtimeStatus"]["description"] = fmt::format("All replicas are running; {} workers run and {} are wanted, which has to wait: {}", server_->workers(), plan.workers, workers_wait_);
    if (const auto* durable = server_->durable()) {
        const auto figures = durable->figures();
        out["persistence"] = {{"status", figures.fault.empty() ? "Active" : "Failing"}, {"sync", plan.sync_interval_ms == 0 ? "EveryAcknowledgement" : fmt::format("Every{}ms", plan.sync_interval_ms)}, {"recoverySeconds", figures.recovery_seconds}};
        if (!figures.notice.empty()) out["persistence"]["notice"] = figures.notice;
        auto& sealing = out["persistence"]["encryption"] = {{"mode", plan.seals ? "Enabled" : "Disabled"}, {"filesToRewrite", figures.files_to_rewrite}};
        if (plan.seals && !keys_.keys.empty()) sealing["key"] = keys_.keys.back().id;
        if (const auto& why = keys_fault_.empty() ? figures.rewriting_fault : keys_fault_; !why.empty()) {
            sealing["fault"] = why;
            if (text_at(out, "healthState.status") == "Available") out["healthState"] = health(broker, "Degraded", "KeysNotInForce", why);
        }
        if (!figures.fault.empty()) {
            out["persistence"]["fault"] = figures.fault;
            out["healthState"] = health(broker, "Degraded", "DiskNotWritable", figures.fault + "; QoS 1 and 2 messages are refused until it takes writes again");
        } else if (!figures.notice.empty() && text_at(out, "healthState.status") == "Available") {
            out["healthState"] = health(broker, "Degraded", "StateWasDamaged", figures.notice);
        }
    }
    if (server_->overflow() != nullptr && plan.config.overflow_bytes > 0) {
        const auto figures = server_->overflow()->figures();
        out["diskBackedMessageBuffer"] = {{"usedBytes", figures.disk_bytes}, {"status", figures.fault.empty() ? "Active" : "Full"}};
        if (!figures.fault.empty()) {
            out["diskBackedMessageBuffer"]["fault"] = figures.fault;
            if (text_at(out, "healthState.status") == "Available") out["healthState"] = health(broker, "Degraded", "MessageBufferFull", figures.fault + "; queues grow in memory, and at 75 % of it PUBLISH is refused");
        }
    } else if (plan.config.overflow_bytes > 0) {
        out["diskBackedMessageBuffer"] = {{"status", "Inactive"}, {"fault", "this role has no data folder to keep it in (--data-dir)"}};
    }
    if (plan.is_persistent != (server_->durable() != nullptr))
        out["runtimeStatus"]["description"] = plan.is_persistent ? "All replicas are running; persistence does not begin now: " + persistence_waits_ : "All replicas are running; state goes on being kept until the next start";
    if (plan.config.aio_compatible) out["compatibility"] = "AIO";
    if (plan.self_check) {
        Json routes = Json::array();
        for (const auto& result : selftest_.latest) {
            Json route = {{"listener", result.target.listener}, {"port", result.target.port}, {"ok", result.ok()}};
            if (!result.ok()) route["fault"] = result.fault;
            routes.push_back(std::move(route));
        }
        out["selfCheck"] = {{"status", probed == 0 ? "Waiting" : failed == 0 ? "Passed" : "Failed"}, {"routes", routes}};
    } else {
        out["selfCheck"] = {{"status", "Disabled"}};
    }
    if (!plan.notes.empty()) {
        out["notes"] = Json::array();
        for (const auto& note : plan.notes) out["notes"].push_back({{"field", note.path}, {"reason", note.reason}, {"message", note.message}});
    }
    return out;
}

void BrokerController::report(const Plan& plan, const std::vector<broker::ListenerState>& states) {
    std::map<std::pair<std::string, std::string>, std::vector<std::size_t>> by_listener;
    for (std::size_t i = 0; i < plan.ports.size(); ++i) by_listener[{plan.ports[i].name_space, plan.ports[i].listener}].push_back(i);
    for (const auto& [key, indexes] : by_listener) {
        const auto current = objects_.get(kind_of("BrokerListener"), key.first, key.second);
        if (current == nullptr) continue;
        std::string ports, faults, refused;
        Json details = Json::array();
        bool blocked = false, unprotected = false;
        std::string warnings;
        for (const auto i : indexes) {
            const auto& port = plan.ports[i];
            const auto& state = states[i];
            ports += (ports.empty() ? "" : ",") + port_word(port, state);
            Json detail = {{"port", port.port}, {"boundPort", state.is_open ? state.bound_port : port.config.port}, {"open", state.is_open},
                           {"interfaces", port.config.loopback_only ? "loopback" : "all"}};
            detail.update(port.security);
            if (!port.warnings.empty()) {
                detail["warnings"] = port.warnings;
                for (const auto& warning : port.warnings) warnings += fmt::format("{}port {}: {}", warnings.empty() ? "" : "; ", port.port, warning);
            }
            if (state.is_open) {
                unprotected |= port.config.authenticator == nullptr;
                if (!port.refused.empty()) refused += fmt::format("{}port {}: {}", refused.empty() ? "" : "; ", port.port, port.refused);
            } else {
                detail["message"] = state.error;
                faults += fmt::format("{}port {}: {}", faults.empty() ? "" : "; ", port.port, state.error);
                blocked |= !port.blocked.empty();
            }
            details.push_back(std::move(detail));
        }
        const auto runtime = !faults.empty() ? blocked ? "Waiting" : "Recovering" : refused.empty() ? "Running" : "Failed";
        const auto description = faults.empty() && !refused.empty() ? "The port is open, and clients that verify its certificate refuse it: " + refused : !faults.empty() ? faults + (blocked ? "; the port opens by itself once that is there" : "; it is tried again every 2 s") : unprotected ? "Accepting connections; no authentication: anybody who reaches the port may connect." : warnings.empty() ? "Accepting connections." : "Accepting connections; warnings: " + warnings;
        auto status = basic_status(*current, runtime, description,
                                   faults.empty() ? !refused.empty() ? health(*current, "Unavailable", "CertificateRefused", refused) : warnings.empty() ? health(*current, "Available", "", "") : health(*current, "Degraded", "Warnings", warnings) : health(*current, "Unavailable", blocked ? "SecurityIncomplete" : "PortNotOpen", faults));
        status["ports"] = ports;
        status["portStatus"] = std::move(details);
        write_status(kind_of("BrokerListener"), key.first, key.second, status);
    }
}

void BrokerController::adopt(const Json& listener, const Json& broker) {
    const auto& owners = at_path(listener, "metadata.ownerReferences");
    if (owners.is_array())
        for (const auto& owner : owners)
            if (equal_no_case(text_at(owner, "kind"), "Broker")) return;
    Json patch = {{"metadata", {{"ownerReferences", owners.is_array() ? owners : Json::array()}}}};
    patch["metadata"]["ownerReferences"].push_back({{"apiVersion", text_at(broker, "apiVersion")}, {"kind", "Broker"}, {"name", text_at(broker, "metadata.name")},
                                                    {"uid", text_at(broker, "metadata.uid")}, {"controller", true}});
    // Lost to a concurrent write: the next round sees the listener again.
    [[maybe_unused]] const auto done = objects_.patch(kind_of("BrokerListener"), text_at(listener, "metadata.namespace"), text_at(listener, "metadata.name"), registry::PatchType::merge, patch, manager_name);
}

void BrokerController::put_service(const Json& listener, const Plan& plan, const std::vector<broker::ListenerState>& states) {
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const auto service_name = text_at(listener, "spec.serviceName", name);
    Json ports = Json::array();
    std::string type = "ClusterIP";
    for (std::size_t i = 0; i < plan.ports.size(); ++i) {
        const auto& port = plan.ports[i];
        if (port.listener != name || port.name_space != space) continue;
        type = port.service_type == "ClusterIp" ? "ClusterIP" : port.service_type;
        const auto number = states[i].is_open && port.port == 0 ? states[i].bound_port : port.port;
        Json entry = {{"name", fmt::format("mqtt-{}", number)}, {"port", number}, {"targetPort", in_cluster_ && states[i].is_open ? states[i].bound_port : number}, {"protocol", "TCP"}};
        if (type == "NodePort") entry["nodePort"] = port.config.port;
        ports.push_back(std::move(entry));
    }
    const auto addresses = io::machine_addresses();
    const auto host = addresses.empty() ? std::string("127.0.0.1") : addresses.front();
    Json object = {{"apiVersion", "v1"}, {"kind", "Service"},
                   {"metadata", {{"name", service_name}, {"namespace", space},
                                 {"labels", {{"app.kubernetes.io/name", "microsoft-iotoperations-mqttbroker"}}},
                                 {"ownerReferences", Json::array({{{"apiVersion", text_at(listener, "apiVersion")}, {"kind", "BrokerListener"}, {"name", name}, {"uid", text_at(listener, "metadata.uid")}, {"controller", true}}})}}},
                   {"spec", {{"type", type}, {"ports", ports}, {"selector", {{"app.kubernetes.io/name", "microsoft-iotoperations-mqttbroker"}, {"tier", "frontend"}}}}},
                   {"status", {{"loadBalancer", type == "LoadBalancer" ? Json{{"ingress", Json::array({{{"ip", host}}})}} : Json::object()}}}};
    const auto status = object["status"];
    object.erase("status");
    if (!in_cluster_) {
        object["spec"]["clusterIP"] = "127.0.0.1";
        // Clients reach a LoadBalancer's port itself; there is no second port behind it.
        if (type == "LoadBalancer") object["spec"]["allocateLoadBalancerNodePorts"] = false;
    }
    auto put_status = [&] {
        if (!in_cluster_) write_status(service_kind(), space, service_name, status);   // a cluster's own controllers say where it is
    };
    // Owned by right and applied as a whole: what others added to the Service stays theirs. Nothing is sent when it is so already.
    const auto current = objects_.get(service_kind(), space, service_name);
    const bool as_wanted = current != nullptr && resources::merge_applied(*current, object, service_kind().schema) == *current && at_path(*current, "spec.ports").size() == ports.size();
    if (as_wanted) return put_status();
    if (auto applied = objects_.patch(service_kind(), space, service_name, registry::PatchType::apply, object, manager_name); !applied)
        log::warn("control", "the Service of a listener was not written listener={}/{} why=\"{}\"", space, name, applied.error().message);
    put_status();
    // A listener that was renamed to another Service leaves the old one behind; it goes.
    for (const auto& other : objects_.list(service_kind(), space)) {
        const auto& owners = at_path(*other, "metadata.ownerReferences");
        if (owners.is_array() && !owners.empty() && text_at(owners[0], "uid") == text_at(listener, "metadata.uid") && text_at(*other, "metadata.name") != service_name) {
            [[maybe_unused]] const auto removed = objects_.remove(service_kind(), space, text_at(*other, "metadata.name"));
        }
    }
}

void BrokerController::write_status(const resources::Kind& kind, const std::string& space, const std::string& name, const Json& status) {
    if (auto done = objects_.put_status(kind, space, name, status, manager_name); !done)
        log::warn("control", "a status was not written kind={} object={}/{} why=\"{}\"", kind.kind, space, name, done.error().message);
}

void BrokerController::publish_sys(std::int64_t now) {
    if (heap_.look(now, server_->pool_used())) log::debug("control", "memory that an overload left was given back");
    bool enabled = false;
    {
        const std::lock_guard lock(guard_);
        enabled = plan_.config.sys_topics;
    }
    if (!enabled) return;
    for (auto& [topic, value] : sys_.update(server_->collect(), server_->pool_used(), now, version_)) server_->publish(topic, value, true);
}

std::vector<Role> BrokerController::roles() {
    const auto missing = not_ready();
    const std::lock_guard lock(guard_);
    Role broker{.pod = "aio-broker-frontend-0", .container = "broker", .component = "frontend", .log_modules = {"broker", "session", "mqtt", "topics", "store", "io", "tls", "auth"}, .ports = {}, .ready = missing.empty() && server_ != nullptr, .why_not = missing};
    for (const auto& state : states_)
        if (state.is_open) broker.ports.emplace_back(fmt::format("mqtt-{}", state.bound_port), state.bound_port);
    std::vector<Role> out{broker};
    out.push_back({.pod = "aio-broker-operator-0", .container = "operator", .component = "operator", .log_modules = {"control", "app"}, .ports = {}, .why_not = {}});
    out.push_back(api_role());
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
    std::int64_t next = monotonic_ms() + 2000, next_trace = next, next_take = next;   // the listeners open first
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
        const auto now = monotonic_ms();
        if (now >= next_take) {
            next_take = now + 1000;
            take_spans();
        }
        const bool checks = enabled && (now >= next || probe_now_), traces = tracing > 0 && now >= next_trace;
        if (stopping_ || targets.empty() || !(checks || traces)) continue;
        probe_now_ = false;
        if (traces) next_trace = now + tracing * 1000;
        std::vector<SelftestResult> results;
        for (const auto& target : targets) results.push_back(run_selftest(target, timeout * 1000, traces));
        for (auto& result : results) traces_.add(std::exchange(result.spans, {}));
        if (traces) take_spans();
        if (!enabled) continue;
        next = now + interval * 1000;
        Json broker_before, status;
        std::string space, name;
        {
            const std::lock_guard lock(guard_);
            for (const auto& result : results) {
                const auto key = fmt::format("{}:{}", result.target.listener, result.target.port);
                for (std::size_t i = 0; i < selftest_steps.size(); ++i)
                    if (result.steps[i].done) selftest_.steps[i].add(result.steps[i].milliseconds);
                if (result.steps[3].done) ++selftest_.sent[key];
                selftest_.received[key] += result.steps[4].done ? 1 : 0;
                selftest_.timeouts[key] += result.steps[3].done && !result.steps[4].done ? 1 : 0;
                if (!result.ok()) log::warn("selftest", "self-test failed listener={} port={} why=\"{}\"", result.target.listener, result.target.port, result.fault);
            }
            selftest_.latest = results;
            space = name_space_;
            name = broker_name_;
            if (const auto broker = objects_.get(kind_of("Broker"), space, name)) status = broker_status(*broker, plan_, states_);
        }
        if (!status.is_null()) write_status(kind_of("Broker"), space, name, status);
    }
}

void BrokerController::take_spans() {
    std::vector<broker::Span> spans;
    {
        const std::lock_guard lock(guard_);
        if (server_ == nullptr || plan_.trace_bytes == 0) return;
        spans = server_->take_spans();
    }
    traces_.add(std::move(spans));
}

Json BrokerController::traces(const std::string& what) {
    take_spans();
    constexpr std::string_view otlp = "traces/otlp";
    if (!what.starts_with(otlp)) return traces_.list();
    return traces_.otlp(what.size() > otlp.size() ? what.substr(otlp.size() + 1) : "", "aio-broker-frontend-0");
}

std::string BrokerController::metrics_page() {
    const std::lock_guard lock(guard_);
    if (server_ == nullptr) return "# no Broker resource\n";
    DiskFigures disk;
    if (server_->durable() != nullptr) disk.kept = server_->durable()->figures();
    if (server_->overflow() != nullptr && plan_.config.overflow_bytes > 0) disk.buffer = server_->overflow()->figures();
    return prometheus_page(server_->collect(), plan_, selftest_, server_->pool_used(), name_space_, io::machine_name(), version_, disk);
}

std::string reconcile_metrics(const std::map<std::string, std::map<std::string, std::uint64_t>>& counts, bool with_head) {
    std::string out;
    if (with_head) out = "# HELP penstock_reconciles_total Looks at an object by controller and outcome.\n# TYPE penstock_reconciles_total counter\n";
    for (const auto& [name, outcomes] : counts)
        for (const auto& [outcome, count] : outcomes) out += fmt::format("penstock_reconciles_total{{controller=\"{}\",outcome=\"{}\"}} {}\n", name, outcome, count);
    return out;
}

std::string BrokerController::not_ready() {
    const std::lock_guard lock(guard_);
    if (server_ == nullptr) return not_started_.empty() ? "no Broker resource runs\n" : not_started_ + "\n";
    std::string out;
    for (const auto& state : states_)
        if (!state.is_open) out += fmt::format("listener {} port {}: {}\n", state.config.resource, state.config.port, state.error);
    return out;
}

}  // namespace penstock::control
