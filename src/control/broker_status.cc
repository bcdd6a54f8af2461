// What the broker's controller tells of itself: facts for its health, and statuses of the Broker, its listeners and their rules.
#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/broker_controller.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::int64_t report_valid_ms = 150'000;  // a look at the resources comes each minute at least
const resources::Kind& kind_of(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }

std::string port_word(const PlannedPort& port, const broker::ListenerState& state) {
    return fmt::format("{}{}", state.is_open ? state.bound_port : port.config.port, port.config.protocol == broker::Protocol::websockets ? "/ws" : "/tcp");
}

std::string texts_of(const std::vector<Finding>& findings, const std::string& subject_start) {
    std::string out;
    for (const auto& finding : findings)
        if (subject_start.empty() || finding.subject == subject_start) out += (out.empty() ? "" : "; ") + finding.text();
    return out;
}

/// The state on disk and the message buffer.
void add_disk_status(Json& out, const broker::Server& server, const Plan& plan, const store::KeyRing& keys, const std::string& keys_fault) {
    if (const auto* durable = server.durable()) {
        const auto figures = durable->figures();
        out["persistence"] = {{"status", figures.fault.empty() ? "Active" : "Failing"}, {"sync", plan.sync_interval_ms == 0 ? "EveryAcknowledgement" : fmt::format("Every{}ms", plan.sync_interval_ms)}, {"recoverySeconds", figures.recovery_seconds}};
        if (!figures.notice.empty()) out["persistence"]["notice"] = figures.notice;
        if (!figures.fault.empty()) out["persistence"]["fault"] = figures.fault;
        auto& sealing = out["persistence"]["encryption"] = {{"mode", plan.seals ? "Enabled" : "Disabled"}, {"filesToRewrite", figures.files_to_rewrite}};
        if (plan.seals && !keys.keys.empty()) sealing["key"] = keys.keys.back().id;
        if (const auto& why = keys_fault.empty() ? figures.rewriting_fault : keys_fault; !why.empty()) sealing["fault"] = why;
    }
    if (plan.config.overflow_bytes <= 0) return;
    if (server.overflow() == nullptr) {
        out["diskBackedMessageBuffer"] = {{"status", "Inactive"}, {"fault", "this role has no data folder to keep it in (--data-dir)"}};
        return;
    }
    const auto figures = server.overflow()->figures();
    out["diskBackedMessageBuffer"] = {{"usedBytes", figures.disk_bytes}, {"status", figures.fault.empty() ? "Active" : "Full"}};
    if (!figures.fault.empty()) out["diskBackedMessageBuffer"]["fault"] = figures.fault;
}

}  // namespace

void BrokerController::tell(BrokerFacts facts) {
    if (again_) facts.again = again_();
    facts.folder = place_.folder;
    facts.key_file = place_.key_file;
    auto findings = findings_of(facts);
    if (const bool lacks = facts.name.empty(); lacks != lacks_broker_.exchange(lacks) && lacks)
        for (const auto& finding : findings)
            if (finding.reason.word() == "NoBroker") log::warn("control", "{}", finding.text());
    board_->put("Broker", std::move(findings), clock_.monotonic_ms(), clock_.wall_ms(), report_valid_ms);
}

void BrokerController::add_to(ProcessFacts& facts) const {
    auto* server = running();
    if (server == nullptr) return;
    facts.turns_ms = server->turns_ms(clock_.monotonic_ms());
    facts.pool_used = server->pool_used();
    facts.pool_max = pool_max_;
}

BrokerFacts BrokerController::facts_of() {
    BrokerFacts out;
    const std::lock_guard lock(guard_);
    const auto& plan = plan_;
    const auto& states = states_;
    out.orphans = orphans_;
    if (broker_name_.empty()) return out;
    out.name = name_space_ + "/" + broker_name_;
    for (std::size_t i = 0; i < plan.ports.size(); ++i) {
        const auto& port = plan.ports[i];
        if (port.is_leaving) continue;
        PortFacts facts{.listener = port.config.resource, .port = port.port, .node_port = port.node_port(), .is_open = states[i].is_open, .is_blocked = !port.blocked.empty(), .error = states[i].error, .refused = port.refused, .nobody = port.nobody, .everybody = port.everybody, .warnings = port.warnings, .probe_fault = {}};
        // Only what the probe met where it is to look, and of ports that are still there.
        if (plan.self_check && states[i].is_open)
            for (const auto& result : selftest_.latest)
                if (!result.ok() && result.target.listener == facts.listener && result.target.port == states[i].bound_port) facts.probe_fault = result.fault;
        out.ports.push_back(std::move(facts));
    }
    out.metrics_fault = metrics_fault_;
    if (const auto* durable = server_->durable()) {
        const auto figures = durable->figures();
        out.disk_fault = figures.fault;
        out.disk_notice = figures.notice;
        out.keys_fault = keys_fault_.empty() ? figures.rewriting_fault : keys_fault_;
        for (const auto& note : plan.notes)
            if (note.reason == "NotKept") out.not_kept = note.path + ": " + note.message;
        out.keep_it = plan.keep_it;
        if (!plan.is_persistent) out.persistence_ends = "state goes on being kept until the next start";
    } else if (plan.is_persistent) {
        out.persistence_waits = persistence_waits_.empty() ? "it has not been tried yet" : persistence_waits_;
    }
    if (plan.config.overflow_bytes > 0) out.buffer_fault = server_->overflow() != nullptr ? server_->overflow()->figures().fault : "the message buffer has no data folder to be in (--data-dir)";
    if (!workers_wait_.empty()) out.workers_wait = fmt::format("{} workers run and {} are wanted, which has to wait: {}", server_->workers(), plan.workers, workers_wait_);
    out.named = named_facts(plan);
    return out;
}

std::vector<NamedFacts> BrokerController::named_facts(const Plan& plan) const {
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

bool BrokerController::show_health() {
    registry::ObjectRef broker;
    {
        const std::unique_lock lock(guard_, std::try_to_lock);
        if (!lock.owns_lock()) return false;   // who holds it may wait for a worker that is stuck
        if (server_ == nullptr || broker_name_.empty()) return true;
        broker = objects_.get(kind_of("Broker"), name_space_, broker_name_);
    }
    if (broker == nullptr) return true;
    bool looked = true;
    write_status(kind_of("Broker"), *broker, [&](const Json& current) -> std::optional<Json> {
        const std::unique_lock lock(guard_, std::try_to_lock);
        looked = lock.owns_lock();
        if (!looked || server_ == nullptr) return std::nullopt;
        return broker_status(current, plan_, states_);
    });
    return looked;
}

Json BrokerController::broker_status(const Json& broker, const Plan& plan, const std::vector<broker::ListenerState>& states) const {
    const auto all = board_->all(clock_.monotonic_ms());
    const auto health = broker_health(all);
    std::string closed;
    for (std::size_t i = 0; i < plan.ports.size() && i < states.size(); ++i)
        if (!states[i].is_open)
            closed += fmt::format("{}{} {}", closed.empty() ? "" : ", ", states[i].config.resource,
                                  port_words(plan.ports[i].port, plan.ports[i].node_port()));
    std::string description = "All replicas are running", capped;
    for (const auto& note : plan.notes)
        if (note.reason == "Capped") capped += fmt::format("{}{}: {}", capped.empty() ? "" : "; ", note.path, note.message);
    if (!capped.empty()) description = "Running, with less than asked for: " + capped;
    if (!closed.empty()) description += "; listeners not open: " + closed;
    if (!health.message.empty()) description += "; " + health.message;
    for (const auto& finding : all)
        if (finding.severity == Severity::note) description += "; " + finding.text();
    if (description.ends_with("running")) description += ".";
    auto out = basic_status(broker, "Running", description, with_times(broker, health, clock_.wall_ms()));
    out["workers"] = server_->workers();
    if (!all.empty()) out["findings"] = findings_json(all);
    add_disk_status(out, *server_, plan, keys_, keys_fault_);
    if (plan.config.aio_compatible) out["compatibility"] = "AIO";
    if (plan.self_check) {
        Json routes = Json::array();
        bool failed = false;
        for (const auto& result : selftest_.latest) {
            Json route = {{"listener", result.target.listener}, {"port", result.target.port}, {"ok", result.ok()}};
            if (!result.ok()) route["fault"] = result.fault;
            failed |= !result.ok();
            routes.push_back(std::move(route));
        }
        // A listener that was deleted a moment ago keeps its connections, and is no route any more.
        bool is_any_open = false;
        for (std::size_t i = 0; i < states.size() && i < plan.ports.size(); ++i) is_any_open |= states[i].is_open && !plan.ports[i].is_leaving;
        const auto* status = !is_any_open ? "NothingToCheck" : selftest_.latest.empty() ? "Waiting" : failed ? "Failed" : "Passed";
        out["selfCheck"] = {{"status", status}, {"routes", is_any_open ? routes : Json::array()}};
        if (!is_any_open) out["selfCheck"]["message"] = "no port is open, so there is nothing to check";
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
    for (std::size_t i = 0; i < plan.ports.size(); ++i)
        if (!plan.ports[i].is_leaving) by_listener[{plan.ports[i].name_space, plan.ports[i].listener}].push_back(i);
    const auto all = board_->all(clock_.monotonic_ms());
    for (const auto& [key, indexes] : by_listener) {
        const auto current = objects_.get(kind_of("BrokerListener"), key.first, key.second);
        if (current == nullptr) continue;
        std::string ports;
        Json details = Json::array();
        bool closed = false, blocked = false, unprotected = false, refused = false;
        for (const auto i : indexes) {
            const auto& port = plan.ports[i];
            const auto& state = states[i];
            ports += (ports.empty() ? "" : ",") + port_word(port, state);
            Json detail = {{"port", port.port}, {"boundPort", state.is_open ? state.bound_port : port.config.port}, {"open", state.is_open},
                           {"interfaces", port.config.loopback_only ? "loopback" : "all"}};
            detail.update(port.security);
            for (const auto& warning : port.warnings) detail["warnings"].push_back(warning.text());
            if (state.is_open && !port.everybody.what.empty()) detail["warnings"].push_back(port.everybody.text());
            if (!state.is_open) detail["message"] = state.error;
            else if (!port.refused.empty() || !port.nobody.empty()) detail["message"] = port.refused.empty() ? port.nobody : port.refused;
            closed |= !state.is_open;
            blocked |= !port.blocked.empty();
            refused |= state.is_open && !port.refused.empty();
            // Where the network reaches it, that is a finding.
            unprotected |= state.is_open && port.config.authenticator == nullptr && port.everybody.what.empty();
            details.push_back(std::move(detail));
        }
        const auto subject = subject_of("BrokerListener", key.first + "/" + key.second);
        const auto health = health_of(all, subject);
        const auto runtime = !closed ? refused ? "Failed" : "Running" : blocked ? "Waiting" : "Recovering";
        const auto faults = texts_of(all, subject);
        std::string description = closed ? faults : "Accepting connections.";
        if (!closed && unprotected) description = "Accepting connections; no authentication: anybody on this machine may connect.";
        if (!closed && !faults.empty()) description = fmt::format("{}{}{}", unprotected ? description + " " : "Accepting connections; ", health.status == "Unavailable" ? "" : "warnings: ", faults);
        if (!closed && refused) description = "The port is open, and clients that verify its certificate refuse it: " + faults;
        write_status(kind_of("BrokerListener"), *current, [&](const Json& now) {
            auto status = basic_status(now, runtime, description, with_times(now, health, clock_.wall_ms()));
            status["ports"] = ports;
            status["portStatus"] = details;
            return status;
        });
    }
}

void BrokerController::report_rules(const Plan& plan, const std::vector<broker::ListenerState>& states) {
    const auto all = board_->all(clock_.monotonic_ms());
    for (const auto& [word, field] : {std::pair{"BrokerAuthentication", "authenticationRef"}, std::pair{"BrokerAuthorization", "authorizationRef"}})
        for (const auto& object : objects_.list(kind_of(word), "")) {
            const auto space = text_at(*object, "metadata.namespace"), name = text_at(*object, "metadata.name");
            const auto health = health_of(all, subject_of(word, space + "/" + name));
            // In force is only what acts on a port that is open; of the others it is said why not.
            std::string in_force, named;
            for (std::size_t i = 0; i < plan.ports.size() && i < states.size(); ++i) {
                const auto& port = plan.ports[i];
                if (port.is_leaving || port.name_space != space || text_at(port.spec, field) != name) continue;
                const auto& waits = std::string_view(word) == "BrokerAuthentication" ? port.authentication_waits : port.authorization_waits;
                const auto where = fmt::format("{} {}", port.listener, port_words(port.port, port.node_port()));
                const auto why = !states[i].is_open ? std::string("which is not open") : waits;
                if (why.empty() && health.message.empty()) in_force += (in_force.empty() ? "" : ", ") + where;
                else named += (named.empty() ? "" : ", ") + where + (why.empty() ? "" : " (" + why + ")");
            }
            std::string description = in_force.empty() ? "" : "In force on " + in_force;
            if (!named.empty()) description += fmt::format("{}amed by {}", description.empty() ? "N" : "; n", named);
            if (description.empty()) description = "No port names it.";
            if (!health.message.empty()) description += "; " + health.message;
            write_basic(kind_of(word), *object, "Running", description, health);
        }
}

}  // namespace penstock::control
