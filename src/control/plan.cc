#include "control/plan.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "control/certificates.h"
#include "control/security.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

std::int64_t number_at(const Json& object, std::string_view path, std::int64_t fallback) {
    const auto& value = at_path(object, path);
    return value.is_number_integer() ? value.get<std::int64_t>() : fallback;
}

std::string annotation(const Json& object, const char* key) {
    const auto& all = at_path(object, "metadata.annotations");
    return all.is_object() && all.contains(key) && all[key].is_string() ? all[key].get<std::string>() : std::string();
}

bool is_disabled(const Json& object, std::string_view path) {
    return equal_no_case(text_at(object, path), "Disabled");
}

}  // namespace

ProfileBounds bounds_of(const std::string& profile) {
    constexpr std::int64_t mib = 1 << 20;
    if (equal_no_case(profile, "Tiny")) return {4u << 20, 16 * mib};
    if (equal_no_case(profile, "Low")) return {16u << 20, 64 * mib};
    // The protocol ends at 256 MiB and a few bytes; High means all of it.
    if (equal_no_case(profile, "High")) return {256u << 20, 2048 * mib};
    return {64u << 20, 576 * mib};
}

std::string keeping_of(const Json& broker) {
    const auto& kept = at_path(broker, "spec.persistence");
    std::string out;
    if (!kept.is_object()) return out;
    for (const auto* field : {"retain", "subscriberQueue", "stateStore"})
        if (at_path(kept, field).is_null())
            out += fmt::format("{}{}: {{mode: All}}", out.empty() ? "" : ", ", field);
    return out.empty() ? out : fmt::format("spec: {{persistence: {{{}}}}}", out);
}

namespace {

/// Keys of the state store by memory profile.
std::uint64_t state_keys_of(const std::string& profile) {
    if (equal_no_case(profile, "Tiny")) return 10'000;
    if (equal_no_case(profile, "Low")) return 50'000;
    if (equal_no_case(profile, "High")) return 1'000'000;
    return 100'000;
}

/// Workers, and the bounds that follow from the memory profile.
void plan_size(Plan& out, const Json& broker, unsigned cores) {
    auto number = [&](const char* path, int fallback) {
        return static_cast<int>(number_at(broker, std::string("spec.cardinality.") + path, fallback));
    };
    out.frontend_workers = number("frontend.workers", 2);
    out.frontend_replicas = number("frontend.replicas", 1);
    out.backend_partitions = number("backendChain.partitions", 1);
    out.backend_workers = number("backendChain.workers", 1);
    out.redundancy_factor = number("backendChain.redundancyFactor", 1);
    out.workers = cores;
    if (at_path(broker, "spec.cardinality").is_object())
        out.workers = std::min(cores, static_cast<std::uint32_t>(out.frontend_replicas * out.frontend_workers));
    const auto profile = text_at(broker, "spec.memoryProfile", "Medium");
    const auto bounds = bounds_of(profile);
    auto& c = out.config;
    c.pool_bytes = bounds.pool_bytes * out.backend_partitions * out.backend_workers;
    c.packet_size_max = static_cast<std::uint32_t>(std::min<std::int64_t>(
        bounds.packet_bytes,
        number_at(broker, "spec.advanced.clients.maxPacketSizeBytes", bounds.packet_bytes)));
    c.state_keys_max = state_keys_of(profile);
}

/// What clients may ask for, and what becomes of messages for those who are slow.
void plan_clients(broker::BrokerConfig& c, const Json& broker) {
    auto number = [&](const char* field, std::int64_t fallback) {
        return number_at(broker, std::string("spec.advanced.clients.") + field, fallback);
    };
    c.session_expiry_max = static_cast<std::uint32_t>(number("maxSessionExpirySeconds", 86'400));
    c.message_expiry_max = static_cast<std::uint32_t>(number("maxMessageExpirySeconds", 0));
    c.queue_length_max = static_cast<std::uint64_t>(number("subscriberQueueLimit.length", 0));
    c.queue_drop_oldest =
        equal_no_case(text_at(broker, "spec.advanced.clients.subscriberQueueLimit.strategy"), "DropOldest");
    c.queue_bytes_max = static_cast<std::uint64_t>(
        parse_size(annotation(broker, "penstock.io/subscriber-queue-bytes")).value_or(0));
    c.overflow_bytes = parse_size(text_at(broker, "spec.diskBackedMessageBuffer.maxSize")).value_or(0);
    c.overflow_age_ms = parse_duration_ms(annotation(broker, "penstock.io/message-buffer-age")).value_or(0);
    c.client_receive_maximum = static_cast<std::uint16_t>(number("maxReceiveMaximum", 65'535));
    c.keep_alive_max = static_cast<std::uint16_t>(number("maxKeepAliveSeconds", 0));
    c.high_priority_passes =
        !equal_no_case(text_at(broker, "spec.highPriorityMessagesBackpressureHandling"), "Reject");
    c.aio_compatible = equal_no_case(annotation(broker, "penstock.io/compatibility"), "AIO");
    c.sys_topics = !c.aio_compatible && !equal_no_case(annotation(broker, "penstock.io/sys-topics"), "Disabled");
    c.hide_selftest = equal_no_case(annotation(broker, "penstock.io/hide-selftest"), "Enabled");
}

broker::Persistence::Mode mode_of(const std::string& word) {
    using Mode = broker::Persistence::Mode;
    return equal_no_case(word, "All") ? Mode::all : equal_no_case(word, "Custom") ? Mode::custom : Mode::none;
}

void plan_persistence(Plan& out, const Json& broker) {
    const auto& kept = at_path(broker, "spec.persistence");
    if (!kept.is_object()) return;
    constexpr std::int64_t sync_max_ms = 10'000;
    const auto sync = parse_duration_ms(annotation(broker, "penstock.io/persistence-sync")).value_or(0);
    out.is_persistent = true;
    out.persistence_bytes = parse_size(text_at(kept, "maxSize")).value_or(0);
    out.seals = !is_disabled(kept, "encryption.mode");
    out.key_rotation = annotation(broker, "penstock.io/persistence-key");
    out.sync_interval_ms = static_cast<int>(std::min(sync_max_ms, sync));
    auto words = [&](const char* path) {
        std::vector<std::string> list;
        if (const auto& value = at_path(kept, path); value.is_array())
            for (const auto& item : value) list.push_back(item.get<std::string>());
        return list;
    };
    out.config.persistence = {
        .retain = mode_of(text_at(kept, "retain.mode")),
        .queues = mode_of(text_at(kept, "subscriberQueue.mode")),
        .retain_topics = words("retain.retainSettings.topics"),
        .queue_clients = words("subscriberQueue.subscriberQueueSettings.subscriberClientIds"),
        .state = mode_of(text_at(kept, "stateStore.mode")),
        .state_keys = keys_of(at_path(kept, "stateStore.stateStoreSettings.stateStoreResources")),
        .retain_dynamic = !is_disabled(kept, "retain.retainSettings.dynamic.mode"),
        .queue_dynamic = !is_disabled(kept, "subscriberQueue.subscriberQueueSettings.dynamic.mode"),
        .state_dynamic = !is_disabled(kept, "stateStore.stateStoreSettings.dynamic.mode")};
}

void plan_diagnostics(Plan& out, const Json& broker) {
    auto number = [&](const char* field, int fallback) {
        return static_cast<int>(number_at(broker, std::string("spec.diagnostics.") + field, fallback));
    };
    out.debug_clients = annotation(broker, "penstock.io/debug-clients");
    out.log_level = text_at(broker, "spec.diagnostics.logs.level", "info");
    out.prometheus_port = number("metrics.prometheusPort", 9600);
    out.self_check = !is_disabled(broker, "spec.diagnostics.selfCheck.mode");
    out.self_check_interval = number("selfCheck.intervalSeconds", 30);
    out.self_check_timeout = number("selfCheck.timeoutSeconds", 15);
    if (is_disabled(broker, "spec.diagnostics.traces.mode")) return;
    out.trace_bytes = static_cast<std::size_t>(number("traces.cacheSizeMegabytes", 16)) << 20;
    out.config.span_capacity = static_cast<std::size_t>(number("traces.spanChannelCapacity", 1000));
    if (!is_disabled(broker, "spec.diagnostics.traces.selfTracing.mode"))
        out.self_tracing_interval = number("traces.selfTracing.intervalSeconds", 30);
}

/// Origins of pages that may use a listener's WebSocket ports, in lower case. A list that is there and empty
/// names no page; only its absence means all.
std::vector<std::string> origins_of(const Json& listener) {
    constexpr const char* name = "penstock.io/websocket-origins";
    std::vector<std::string> out;
    const auto listed = annotation(listener, name);
    for (const auto origin : split(listed, ','))
        if (!trim(origin).empty()) out.push_back(to_lower(trim(origin)));
    const auto& marks = at_path(listener, "metadata.annotations");
    if (out.empty() && marks.is_object() && marks.contains(name)) out.emplace_back();
    return out;
}

/// Without a nodePort one in Kubernetes' range is derived from the port, the same at every start.
int node_port_of(const Json& port, int own) {
    constexpr int first = 30'000, last = 32'767;
    if (const auto given = static_cast<int>(number_at(port, "nodePort", 0)); given != 0) return given;
    return own >= first && own <= last ? own : first + own % (last - first + 1);
}

void plan_ports(std::vector<PlannedPort>& out, const Json& listener) {
    const auto type = resources::canonical({"ClusterIp", "LoadBalancer", "NodePort"},
                                           text_at(listener, "spec.serviceType", "ClusterIp"));
    const auto origins = origins_of(listener);
    std::size_t index = 0;
    for (const auto& port : at_path(listener, "spec.ports")) {
        PlannedPort planned{.name_space = text_at(listener, "metadata.namespace"),
                            .listener = text_at(listener, "metadata.name"),
                            .service_type = type};
        planned.port = static_cast<int>(number_at(port, "port", 0));
        planned.path = fmt::format("spec.ports[{}]", index++);
        planned.spec = port;
        auto& config = planned.config;
        config.resource = planned.name_space + "/" + planned.listener;
        config.protocol = equal_no_case(text_at(port, "protocol"), "WebSockets")
                              ? broker::Protocol::websockets
                              : broker::Protocol::mqtt;
        config.loopback_only = type == "ClusterIp";
        config.origins = origins;
        config.port =
            static_cast<std::uint16_t>(type == "NodePort" ? node_port_of(port, planned.port) : planned.port);
        out.push_back(std::move(planned));
    }
}

}  // namespace

Plan plan_broker(const Json& broker, const std::vector<Json>& listeners, unsigned cores) {
    Plan out;
    constexpr unsigned cores_max = 64;
    cores = std::clamp(cores, 1u, cores_max);
    plan_size(out, broker, cores);
    plan_clients(out.config, broker);
    plan_persistence(out, broker);
    plan_diagnostics(out, broker);
    if (const auto* kind = resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker"))
        out.notes = resources::notes(*kind, broker, cores);
    for (const auto& listener : listeners) plan_ports(out.ports, listener);
    return out;
}

}  // namespace penstock::control
