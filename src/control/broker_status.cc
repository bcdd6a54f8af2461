#include "control/broker_status.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

namespace penstock::control {

using resources::Json;
using resources::text_at;

namespace {

constexpr const char* no_buffer_folder = "this role has no data folder to keep it in (--data-dir)";

std::string port_word(const PlannedPort& port, const broker::ListenerState& state) {
    return fmt::format("{}{}", state.is_open ? state.bound_port : port.config.port,
                       port.config.protocol == broker::Protocol::websockets ? "/ws" : "/tcp");
}

/// `text`, and before it what is there and `separator`.
void append(std::string& out, const char* separator, const std::string& text) {
    out += (out.empty() ? "" : separator) + text;
}

std::string texts_of(const std::vector<Finding>& findings, const std::string& subject) {
    std::string out;
    for (const auto& finding : findings)
        if (finding.subject == subject) append(out, "; ", finding.text());
    return out;
}

// --- facts for health ---

PortFacts facts_of_port(const BrokerSnapshot& snapshot, const PlannedPort& port,
                        const broker::ListenerState& state) {
    PortFacts out{.listener = port.config.resource,
                  .port = port.port,
                  .node_port = port.node_port(),
                  .is_open = state.is_open,
                  .is_blocked = !port.blocked.empty(),
                  .error = state.error,
                  .refused = port.refused,
                  .nobody = port.nobody,
                  .everybody = port.everybody,
                  .warnings = port.warnings,
                  .probe_fault = {}};
    // Only what the probe met where it is to look, and of ports that are still there.
    if (!snapshot.look.plan.self_check || !state.is_open) return out;
    for (const auto& result : snapshot.probed)
        if (!result.ok() && result.target.listener == out.listener && result.target.port == state.bound_port)
            out.probe_fault = result.fault;
    return out;
}

std::vector<NamedFacts> named_facts(const Plan& plan) {
    std::map<std::string, NamedFacts> out;
    for (const auto& port : plan.ports) {
        const auto name = text_at(port.spec, "authenticationRef");
        if (name.empty() || port.is_leaving) continue;
        auto& facts = out[port.name_space + "/" + name];
        facts.kind = "BrokerAuthentication";
        facts.name = port.name_space + "/" + name;
        if (!port.rules_fault.empty()) facts.faults = {port.rules_fault};
        facts.warnings = port.rules_warnings;
    }
    std::vector<NamedFacts> list;
    for (auto& [name, facts] : out) list.push_back(std::move(facts));
    return list;
}

void add_disk_facts(BrokerFacts& out, const BrokerSnapshot& snapshot) {
    const auto& plan = snapshot.look.plan;
    if (const auto& kept = snapshot.server.kept) {
        out.disk_fault = kept->fault;
        out.disk_notice = kept->notice;
        out.keys_fault =
            snapshot.state.keys_fault.empty() ? kept->rewriting_fault : snapshot.state.keys_fault;
        for (const auto& note : plan.notes)
            if (note.reason == "NotKept") out.not_kept = note.path + ": " + note.message;
        out.keep_it = plan.keep_it;
        if (!plan.is_persistent) out.persistence_ends = "state goes on being kept until the next start";
    } else if (plan.is_persistent) {
        out.persistence_waits =
            snapshot.state.waits.empty() ? "it has not been tried yet" : snapshot.state.waits;
    }
    if (plan.config.overflow_bytes > 0)
        out.buffer_fault = snapshot.server.buffer
                               ? snapshot.server.buffer->fault
                               : "the message buffer has no data folder to be in (--data-dir)";
}

// --- parts of the Broker's status ---

Json persistence_status(const BrokerSnapshot& snapshot) {
    const auto& plan = snapshot.look.plan;
    const auto& kept = *snapshot.server.kept;
    const auto& state = snapshot.state;
    const auto sync = plan.sync_interval_ms == 0 ? std::string("EveryAcknowledgement")
                                                 : fmt::format("Every{}ms", plan.sync_interval_ms);
    Json out = {{"status", kept.fault.empty() ? "Active" : "Failing"},
                {"sync", sync},
                {"recoverySeconds", kept.recovery_seconds}};
    if (!kept.notice.empty()) out["notice"] = kept.notice;
    if (!kept.fault.empty()) out["fault"] = kept.fault;
    auto& sealing = out["encryption"] = {{"mode", plan.seals ? "Enabled" : "Disabled"},
                                         {"filesToRewrite", kept.files_to_rewrite}};
    if (plan.seals && state.key != 0) sealing["key"] = state.key;
    if (const auto& why = state.keys_fault.empty() ? kept.rewriting_fault : state.keys_fault; !why.empty())
        sealing["fault"] = why;
    return out;
}

Json buffer_status(const ServerFacts& server) {
    if (!server.buffer) return {{"status", "Inactive"}, {"fault", no_buffer_folder}};
    Json out = {{"usedBytes", server.buffer->disk_bytes},
                {"status", server.buffer->fault.empty() ? "Active" : "Full"}};
    if (!server.buffer->fault.empty()) out["fault"] = server.buffer->fault;
    return out;
}

Json self_check_status(const BrokerSnapshot& snapshot) {
    const auto& look = snapshot.look;
    if (!look.plan.self_check) return {{"status", "Disabled"}};
    Json routes = Json::array();
    bool failed = false;
    for (const auto& result : snapshot.probed) {
        Json route = {
            {"listener", result.target.listener}, {"port", result.target.port}, {"ok", result.ok()}};
        if (!result.ok()) route["fault"] = result.fault;
        failed |= !result.ok();
        routes.push_back(std::move(route));
    }
    // A listener that was deleted a moment ago keeps its connections, and is no route any more.
    bool is_any_open = false;
    for (std::size_t i = 0; i < look.states.size() && i < look.plan.ports.size(); ++i)
        is_any_open |= look.states[i].is_open && !look.plan.ports[i].is_leaving;
    if (!is_any_open)
        return {{"status", "NothingToCheck"},
                {"routes", Json::array()},
                {"message", "no port is open, so there is nothing to check"}};
    return {{"status", snapshot.probed.empty() ? "Waiting"
                       : failed                ? "Failed"
                                               : "Passed"},
            {"routes", routes}};
}

std::string broker_description(const BrokerLook& look, const HealthState& health,
                               const std::vector<Finding>& all) {
    const auto& plan = look.plan;
    std::string closed, capped;
    for (std::size_t i = 0; i < plan.ports.size() && i < look.states.size(); ++i)
        if (!look.states[i].is_open)
            append(closed, ", ",
                   fmt::format("{} {}", look.states[i].config.resource,
                               port_words(plan.ports[i].port, plan.ports[i].node_port())));
    for (const auto& note : plan.notes)
        if (note.reason == "Capped") append(capped, "; ", fmt::format("{}: {}", note.path, note.message));
    std::string out = "All replicas are running";
    if (!capped.empty()) out = "Running, with less than asked for: " + capped;
    if (!closed.empty()) out += "; listeners not open: " + closed;
    if (!health.message.empty()) out += "; " + health.message;
    for (const auto& finding : all)
        if (finding.severity == Severity::note) out += "; " + finding.text();
    if (out.ends_with("running")) out += ".";
    return out;
}

// --- parts of a listener's status ---

/// What the ports of a listener come to together.
struct PortsTogether {
    bool is_closed = false, is_blocked = false, is_unprotected = false, is_refused = false;
};

Json port_detail(const PlannedPort& port, const broker::ListenerState& state) {
    Json out = {{"port", port.port},
                {"boundPort", state.is_open ? state.bound_port : port.config.port},
                {"open", state.is_open},
                {"interfaces", port.config.loopback_only ? "loopback" : "all"}};
    out.update(port.security);
    for (const auto& warning : port.warnings) out["warnings"].push_back(warning.text());
    if (state.is_open && !port.everybody.what.empty()) out["warnings"].push_back(port.everybody.text());
    if (!state.is_open) out["message"] = state.error;
    else if (!port.refused.empty() || !port.nobody.empty())
        out["message"] = port.refused.empty() ? port.nobody : port.refused;
    return out;
}

std::string listener_description(const PortsTogether& ports, const HealthState& health,
                                 const std::string& faults) {
    if (ports.is_closed) return faults;
    if (ports.is_refused)
        return "The port is open, and clients that verify its certificate refuse it: " + faults;
    std::string out = "Accepting connections.";
    if (ports.is_unprotected)
        out = "Accepting connections; no authentication: anybody on this machine may connect.";
    if (faults.empty()) return out;
    return fmt::format("{}{}{}", ports.is_unprotected ? out + " " : "Accepting connections; ",
                       health.status == "Unavailable" ? "" : "warnings: ", faults);
}

ListenerReport report_of(const BrokerLook& look, const std::vector<std::size_t>& indexes,
                         const std::vector<Finding>& all) {
    const auto& first = look.plan.ports[indexes.front()];
    ListenerReport out{.name_space = first.name_space,
                       .name = first.listener,
                       .description = {},
                       .health = {},
                       .ports = {},
                       .details = Json::array()};
    PortsTogether together;
    for (const auto i : indexes) {
        const auto& port = look.plan.ports[i];
        const auto& state = look.states[i];
        append(out.ports, ",", port_word(port, state));
        out.details.push_back(port_detail(port, state));
        together.is_closed |= !state.is_open;
        together.is_blocked |= !port.blocked.empty();
        together.is_refused |= state.is_open && !port.refused.empty();
        // Where the network reaches it, that is a finding.
        together.is_unprotected |=
            state.is_open && port.config.authenticator == nullptr && port.everybody.what.empty();
    }
    const auto subject = subject_of("BrokerListener", out.name_space + "/" + out.name);
    out.health = health_of(all, subject);
    if (together.is_closed) out.runtime = together.is_blocked ? "Waiting" : "Recovering";
    else if (together.is_refused) out.runtime = "Failed";
    out.description = listener_description(together, out.health, texts_of(all, subject));
    return out;
}

}  // namespace

ServerFacts server_facts_of(const broker::Server& server) {
    ServerFacts out{.workers = server.workers(), .kept = {}, .buffer = {}};
    if (const auto* durable = server.durable()) out.kept = durable->figures();
    if (const auto* overflow = server.overflow()) out.buffer = overflow->figures();
    return out;
}

BrokerFacts facts_of(const BrokerSnapshot& snapshot) {
    BrokerFacts out;
    const auto& look = snapshot.look;
    out.orphans = look.orphans;
    if (look.broker.empty()) return out;
    out.name = look.name();
    for (std::size_t i = 0; i < look.plan.ports.size(); ++i)
        if (!look.plan.ports[i].is_leaving)
            out.ports.push_back(facts_of_port(snapshot, look.plan.ports[i], look.states[i]));
    out.metrics_fault = look.metrics_fault;
    add_disk_facts(out, snapshot);
    if (!look.workers_wait.empty())
        out.workers_wait = fmt::format("{} workers run and {} are wanted, which has to wait: {}",
                                       snapshot.server.workers, look.plan.workers, look.workers_wait);
    out.named = named_facts(look.plan);
    return out;
}

Json broker_status(const Json& broker, const BrokerSnapshot& snapshot, const std::vector<Finding>& all,
                   std::int64_t now_ms) {
    const auto& plan = snapshot.look.plan;
    const auto health = broker_health(all);
    auto out = basic_status(broker, "Running", broker_description(snapshot.look, health, all),
                            with_times(broker, health, now_ms));
    out["workers"] = snapshot.server.workers;
    if (!all.empty()) out["findings"] = findings_json(all);
    if (snapshot.server.kept) out["persistence"] = persistence_status(snapshot);
    if (plan.config.overflow_bytes > 0) out["diskBackedMessageBuffer"] = buffer_status(snapshot.server);
    if (plan.config.aio_compatible) out["compatibility"] = "AIO";
    out["selfCheck"] = self_check_status(snapshot);
    if (plan.notes.empty()) return out;
    out["notes"] = Json::array();
    for (const auto& note : plan.notes)
        out["notes"].push_back({{"field", note.path}, {"reason", note.reason}, {"message", note.message}});
    return out;
}

std::vector<ListenerReport> listener_reports(const BrokerLook& look, const std::vector<Finding>& all) {
    std::map<std::pair<std::string, std::string>, std::vector<std::size_t>> by_listener;
    for (std::size_t i = 0; i < look.plan.ports.size(); ++i)
        if (const auto& port = look.plan.ports[i]; !port.is_leaving)
            by_listener[{port.name_space, port.listener}].push_back(i);
    std::vector<ListenerReport> out;
    for (const auto& [name, indexes] : by_listener) out.push_back(report_of(look, indexes, all));
    return out;
}

Json listener_status(const Json& listener, const ListenerReport& report, std::int64_t now_ms) {
    auto out = basic_status(listener, report.runtime, report.description,
                            with_times(listener, report.health, now_ms));
    out["ports"] = report.ports;
    out["portStatus"] = report.details;
    return out;
}

std::string rules_description(const BrokerLook& look, const RulesName& rules, const HealthState& health) {
    const bool is_authentication = std::string_view(rules.kind) == "BrokerAuthentication";
    const auto* const field = is_authentication ? "authenticationRef" : "authorizationRef";
    std::string in_force, named;
    for (std::size_t i = 0; i < look.plan.ports.size() && i < look.states.size(); ++i) {
        const auto& port = look.plan.ports[i];
        if (port.is_leaving || port.name_space != rules.name_space || text_at(port.spec, field) != rules.name)
            continue;
        const auto& waits = is_authentication ? port.authentication_waits : port.authorization_waits;
        const auto where = fmt::format("{} {}", port.listener, port_words(port.port, port.node_port()));
        const auto why = !look.states[i].is_open ? std::string("which is not open") : waits;
        if (why.empty() && health.message.empty()) append(in_force, ", ", where);
        else append(named, ", ", where + (why.empty() ? "" : " (" + why + ")"));
    }
    std::string out = in_force.empty() ? "" : "In force on " + in_force;
    if (!named.empty()) out += fmt::format("{}amed by {}", out.empty() ? "N" : "; n", named);
    if (out.empty()) out = "No port names it.";
    if (!health.message.empty()) out += "; " + health.message;
    return out;
}

}  // namespace penstock::control
