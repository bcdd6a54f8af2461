#include "control/broker_view.h"

#include <algorithm>

#include <fmt/format.h>

#include "io/wait.h"

namespace penstock::control {

namespace {

/// Its log has what becomes of the broker as a whole too: its start, its listeners, what was read back.
Role frontend_role(const std::vector<broker::ListenerState>& states, bool runs, const std::string& missing) {
    Role out{.pod = "aio-broker-frontend-0",
             .container = "broker",
             .component = "frontend",
             .log_modules = {"broker", "session", "mqtt", "topics", "store", "io", "tls", "auth", "control",
                             "app"},
             .ports = {},
             .ready = missing.empty() && runs,
             .why_not = missing};
    for (const auto& state : states)
        if (state.is_open) out.ports.emplace_back(fmt::format("mqtt-{}", state.bound_port), state.bound_port);
    return out;
}

Role probe_role(const std::vector<SelftestResult>& latest) {
    const auto fault = std::ranges::find_if(latest, [](const auto& result) { return !result.ok(); });
    const bool good = fault == latest.end();
    return {.pod = "aio-broker-diagnostics-probe-0",
            .container = "diagnostics-probe",
            .component = "diagnostics-probe",
            .log_modules = {"mqttc", "control"},
            .ports = {},
            .ready = good,
            .why_not = good ? "" : fault->fault};
}

/// The part of the one process that AIO's pages look for under its own name.
struct Part {
    const char* pod;
    const char* container;
    const char* component;
    std::vector<std::string> log_modules;
};
const std::vector<Part>& parts() {
    static const std::vector<Part> all{
        {"aio-broker-backend-1-0", "broker", "backend", {"store"}},
        {"aio-broker-authentication-0", "authentication", "authentication", {"auth", "tls"}},
        {"aio-broker-health-manager-0", "health-manager", "health-manager", {"control"}},
    };
    return all;
}

}  // namespace

std::string BrokerView::metrics_page() {
    auto* server = running_.server();
    if (server == nullptr) return "# no Broker resource\n";
    // Workers are asked without the guard: one that is stuck must not take health and everybody else along.
    const auto figures = server->collect();
    return running_.with([&](const BrokerLook& look, const broker::Server*) {
        DiskFigures disk;
        const auto now = server_facts_of(*server);
        disk.kept = now.kept;
        if (look.plan.config.overflow_bytes > 0) disk.buffer = now.buffer;
        return probe_.with_figures([&](const SelftestFigures& probed) {
            return prometheus_page(figures, look.plan, probed, server->pool_used(), look.name_space,
                                   io::machine_name(), version_, disk, clock_.monotonic_ms());
        });
    });
}

std::string BrokerView::not_ready() { return not_ready_text(reporter_.all()); }

void BrokerView::add_to(ProcessFacts& facts) const {
    auto* server = running_.server();
    if (server == nullptr) return;
    facts.turns_ms = server->turns_ms(clock_.monotonic_ms());
    facts.pool_used = server->pool_used();
    facts.pool_max = running_.pool_max();
}

std::vector<Role> BrokerView::roles() {
    const auto missing = not_ready();
    const auto latest = probe_.latest();
    return running_.with([&](const BrokerLook& look, const broker::Server* server) {
        const bool runs = server != nullptr;
        std::vector<Role> out{frontend_role(look.states, runs, missing)};
        out.push_back({.pod = "aio-broker-operator-0",
                       .container = "operator",
                       .component = "operator",
                       .log_modules = {"control", "app"},
                       .ports = {},
                       .why_not = {}});
        for (const auto& part : parts())
            out.push_back({.pod = part.pod,
                           .container = part.container,
                           .component = part.component,
                           .log_modules = part.log_modules,
                           .ports = {},
                           .ready = runs,
                           .why_not = runs ? "" : missing});
        if (look.plan.self_check) out.push_back(probe_role(latest));
        if (look.plan.prometheus_port != 0)
            out.push_back({.pod = "aio-broker-diagnostics-service-0",
                           .container = "diagnostics-service",
                           .component = "diagnostics-service",
                           .log_modules = {"control"},
                           .ports = {{"metrics", look.plan.prometheus_port}},
                           .ready = look.metrics_fault.empty(),
                           .why_not = look.metrics_fault});
        return out;
    });
}

std::vector<broker::Decision> BrokerView::decisions() {
    auto* server = running_.server();
    return server != nullptr ? server->decisions() : std::vector<broker::Decision>();
}

std::vector<broker::ClientView> BrokerView::clients() {
    auto* server = running_.server();
    return server != nullptr ? server->clients() : std::vector<broker::ClientView>();
}

std::string reconcile_metrics(const std::map<std::string, std::map<std::string, std::uint64_t>>& counts,
                              bool with_head) {
    std::string out;
    if (with_head)
        out = "# HELP penstock_reconciles_total Looks at an object by controller and outcome.\n"
              "# TYPE penstock_reconciles_total counter\n";
    for (const auto& [name, outcomes] : counts)
        for (const auto& [outcome, count] : outcomes)
            out += fmt::format("penstock_reconciles_total{{controller=\"{}\",outcome=\"{}\"}} {}\n", name,
                               outcome, count);
    return out;
}

}  // namespace penstock::control
