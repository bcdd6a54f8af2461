#include "control/broker_controller.h"

#include <algorithm>
#include <thread>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* default_name = "azure-iot-operations/default";
constexpr std::int64_t retry_ms = 2000;
constexpr std::int64_t health_report_ms = 60'000;

}  // namespace

/// The whole broker is one key: its ports depend on each other.
class BrokerController::Work : public Reconciler {
  public:
    explicit Work(BrokerController& controller) : controller_(controller) {}
    const char* name() const override { return "broker"; }
    std::vector<Key> all() override { return {{"brokers", "", ""}}; }
    std::vector<Key> concerned(const registry::Event& event) override {
        const auto& kind = *event.kind;
        if (kind.group == "mqttbroker.iotoperations.azure.com" || kind.kind == "Service") return all();
        // What certificates, trust and tokens are made of. Only that a Pod comes or goes matters, not what it
        // reports.
        if (kind.group == "cert-manager.io" && kind.kind == "Certificate") return all();
        if (!kind.group.empty()) return {};
        if (kind.kind == "Secret" || kind.kind == "ConfigMap" || kind.kind == "ServiceAccount") return all();
        if (kind.kind == "Pod" && event.type != registry::Event::Type::modified) return all();
        return {};
    }
    Outcome reconcile(const Key&) override {
        // What an earlier run wrote does not stand while the state is read back.
        if (!std::exchange(has_looked_, true))
            forget_former_run(controller_.objects_, just_started, false, controller_.clock_.wall_ms());
        return controller_.turn();
    }

  private:
    BrokerController& controller_;
    bool has_looked_ = false;
};

BrokerController::BrokerController(Objects& objects, std::string version, Clock clock,
                                   std::function<TokenKeys()> token_keys, StatePlace place)
    : objects_(objects), clock_(std::move(clock)), recorder_(objects, broker_manager, clock_),
      writer_(objects, clock_), state_(running_, std::move(place), clock_),
      reporter_(objects, writer_, state_.place(), clock_), start_(state_, reporter_, writer_),
      ports_(objects, writer_, clock_, std::move(token_keys)), sys_(version),
      probe_(objects, running_, clock_, ports_.probe_secret(),
             [this] {
                 reporter_.tell(facts());
                 show_health();
             }),
      view_(running_, probe_, state_, reporter_, version, clock_), engine_(objects, clock_) {
    engine_.add(std::make_unique<Work>(*this));
    tell_start();
}

BrokerController::~BrokerController() { stop(); }

void BrokerController::use(HealthBoard& board) {
    reporter_.use(board);
    tell_start();
}

void BrokerController::tell_start() {
    reporter_.tell({.name = default_name,
                    .not_started = "the broker has not looked at its resources yet",
                    .is_starting = true});
}

void BrokerController::start() {
    engine_.start();
    probe_.start();
}

void BrokerController::stop() {
    objects_.stop();
    probe_.stop();
    engine_.stop();
    ports_.stop();
    if (auto* server = running_.server()) server->stop();
}

bool BrokerController::show_health() {
    std::string space, name;
    // Who has the guard may wait for a worker that is stuck.
    const bool is_free = running_.try_with([&](const BrokerLook& look, const broker::Server* server) {
        if (server != nullptr) space = look.name_space, name = look.broker;
    });
    if (!is_free) return false;
    if (name.empty()) return true;
    const auto broker = objects_.get(broker_kind("Broker"), space, name);
    if (broker == nullptr) return true;
    bool looked = true;
    writer_.write(broker_kind("Broker"), *broker, [&](const Json& current) {
        std::optional<Json> out;
        const auto latest = probe_.latest();
        looked = running_.try_with([&](const BrokerLook& look, const broker::Server* server) {
            const BrokerSnapshot snapshot{look, server_facts_of(*server), state_.facts(), latest};
            out = broker_status(current, snapshot, reporter_.all(), clock_.wall_ms());
        });
        return out;
    });
    return looked;
}

BrokerFacts BrokerController::facts() {
    const auto latest = probe_.latest();
    return running_.with([&](const BrokerLook& look, const broker::Server* server) {
        const auto now = server != nullptr ? server_facts_of(*server) : ServerFacts{};
        return facts_of({look, now, state_.facts(), latest});
    });
}

Outcome BrokerController::turn() {
    auto& troubles = writer_.troubles();
    troubles.begin();
    const bool looked = reconcile();
    troubles.end();
    const bool complete = looked && !troubles.any();
    const auto now = clock_.monotonic_ms();
    if (auto* server = running_.server()) sys_.look(*server, running_.last().plan.config.sys_topics, now);
    recorder_.retry(now);
    // Ports that are taken are tried again; $SYS and the health report have their times.
    auto next = complete ? health_report_ms : retry_ms;
    for (const auto due : {sys_.next_ms(), ports_.next_ms()})
        if (due) next = std::min(next, std::max<std::int64_t>(1, *due - now));
    return Outcome::after(next);
}

bool BrokerController::reconcile() {
    const auto choice = choose_broker(objects_.list(broker_kind("Broker"), ""),
                                      objects_.list(broker_kind("BrokerListener"), ""));
    const bool has_broker = choice.chosen != nullptr;
    BrokerLook look;
    look.orphans = write_others(choice);
    look.name_space = has_broker ? text_at(*choice.chosen, "metadata.namespace") : running_.last().name_space;
    if (has_broker) look.broker = text_at(*choice.chosen, "metadata.name");
    look.plan = plan_broker(has_broker ? *choice.chosen : Json::object(), choice.listeners,
                            std::thread::hardware_concurrency());
    if (has_broker) look.plan.keep_it = keeping_of(*choice.chosen);
    if (running_.server() == nullptr && !has_broker) {
        reporter_.tell({.orphans = look.orphans});
        return true;
    }
    if (!have_server(look.plan, choice)) return false;
    apply_process(look, has_broker);
    apply_ports(look, choice);
    const auto news = ports_.news(look, running_.last());
    publish(look);
    report(look, choice, news);
    return look.metrics_fault.empty() && look.workers_wait.empty() && ports_.is_complete(look);
}

std::vector<OrphanFacts> BrokerController::write_others(const BrokerChoice& choice) {
    for (const auto& other : choice.others)
        writer_.write_basic(broker_kind("Broker"), *other,
                            {"Failed",
                             choice.why_not,
                             {.status = "Unavailable", .reason = "BrokerNotRun", .message = choice.why_not}});
    std::vector<OrphanFacts> out;
    for (const auto& listener : choice.orphans) {
        out.push_back(orphan_facts_of(objects_, *listener, choice));
        const auto why = finding_of(out.back()).text();
        writer_.write_basic(
            broker_kind("BrokerListener"), *listener,
            {"Waiting", why, {.status = "Unavailable", .reason = "BrokerMissing", .message = why}});
    }
    return out;
}

bool BrokerController::have_server(const Plan& plan, const BrokerChoice& choice) {
    if (running_.server() != nullptr) return true;
    auto fresh = start_.start(plan, *choice.chosen, choice.listeners);
    if (fresh == nullptr) {
        reporter_.tell({.name = qualified_name(*choice.chosen), .not_started = start_.fault()});
        return false;
    }
    running_.begin(std::move(fresh));
    return true;
}

void BrokerController::apply_process(BrokerLook& look, bool has_broker) {
    auto& server = *running_.server();
    const auto& plan = look.plan;
    const auto& last = running_.last();
    if (has_broker && server.workers() != plan.workers)
        if (const auto done = server.set_workers(plan.workers); !done) {
            look.workers_wait = done.error().message;
            if (look.workers_wait != last.workers_wait)
                log::info("control",
                          "the number of workers cannot be changed yet and is tried again has={} wanted={} "
                          "why=\"{}\"",
                          server.workers(), plan.workers, look.workers_wait);
        }
    if (server.durable() != nullptr && plan.is_persistent) state_.follow(plan);
    if (const auto why = log::set_levels(plan.log_level); !why.empty())
        log::warn("control", "log level kept: {}", why);
    log::set_debug_clients(plan.debug_clients);
    if (open_metrics_port_) look.metrics_fault = open_metrics_port_(plan.prometheus_port);
    if (!look.metrics_fault.empty() && look.metrics_fault != last.metrics_fault)
        log::warn("control",
                  "{}; the port is spec.diagnostics.metrics.prometheusPort of the Broker; it is tried again",
                  look.metrics_fault);
}

void BrokerController::apply_ports(BrokerLook& look, const BrokerChoice& choice) {
    auto& server = *running_.server();
    auto& plan = look.plan;
    const bool has_broker = choice.chosen != nullptr;
    ports_.prepare(plan, choice.listeners, running_.last(), has_broker, server);
    running_.set_pool_max(plan.config.pool_bytes);
    look.states = BrokerPorts::open(plan, server);
    // What persistence keeps is in force by now, so that the first writing follows it.
    if (server.durable() == nullptr && plan.is_persistent) state_.begin(plan, qualified_name(*choice.chosen));
}

void BrokerController::publish(const BrokerLook& look) {
    running_.with([&](BrokerLook& last, const broker::Server*) {
        last = look;
        probe_.limit_traces(look.plan.trace_bytes);
        probe_.forget_closed(look.states);
    });
}

void BrokerController::report(const BrokerLook& look, const BrokerChoice& choice,
                              const std::vector<PortEvent>& news) {
    const auto latest = probe_.latest();
    const BrokerSnapshot snapshot{look, server_facts_of(*running_.server()), state_.facts(), latest};
    reporter_.tell(facts_of(snapshot));
    if (choice.chosen != nullptr) {
        for (const auto& listener : choice.listeners) adopt(listener, *choice.chosen);
        ports_.write_services(choice.listeners, look);
        reporter_.write_broker(*choice.chosen, snapshot);
    }
    reporter_.write_listeners(look);
    reporter_.write_rules(look);
    for (const auto& event : news)
        for (const auto& listener : choice.listeners)
            if (event.listener == qualified_name(listener))
                recorder_.record(listener, event.type, event.reason, event.message);
}

void BrokerController::adopt(const Json& listener, const Json& broker) {
    const auto& owners = at_path(listener, "metadata.ownerReferences");
    if (owners.is_array())
        for (const auto& owner : owners)
            if (equal_no_case(text_at(owner, "kind"), "Broker")) return;
    // The list is written as a whole: only over what was read. One owner alone may be the controller.
    auto list = owners.is_array() ? owners : Json::array();
    const bool is_controlled = std::ranges::any_of(
        list, [](const Json& owner) { return at_path(owner, "controller") == Json(true); });
    list.push_back({{"apiVersion", text_at(broker, "apiVersion")},
                    {"kind", "Broker"},
                    {"name", text_at(broker, "metadata.name")},
                    {"uid", text_at(broker, "metadata.uid")}});
    if (!is_controlled) list.back()["controller"] = true;
    const Json patch = {{"metadata",
                         {{"resourceVersion", text_at(listener, "metadata.resourceVersion")},
                          {"ownerReferences", std::move(list)}}}};
    // Lost to a concurrent write: the next round sees the listener again.
    [[maybe_unused]] const auto done =
        objects_.patch(broker_kind("BrokerListener"), text_at(listener, "metadata.namespace"),
                       text_at(listener, "metadata.name"), registry::PatchType::merge, patch, broker_manager);
}

}  // namespace penstock::control
