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

Plan plan_broker(const Json& broker, const std::vector<Json>& listeners, unsigned cores) {
    Plan out;
    const auto bounds = bounds_of(text_at(broker, "spec.memoryProfile", "Medium"));
    auto& c = out.config;
    out.frontend_workers = static_cast<int>(number_at(broker, "spec.cardinality.frontend.workers", 2));
    out.frontend_replicas = static_cast<int>(number_at(broker, "spec.cardinality.frontend.replicas", 1));
    out.backend_partitions = static_cast<int>(number_at(broker, "spec.cardinality.backendChain.partitions", 1));
    out.backend_workers = static_cast<int>(number_at(broker, "spec.cardinality.backendChain.workers", 1));
    out.redundancy_factor = static_cast<int>(number_at(broker, "spec.cardinality.backendChain.redundancyFactor", 1));
    cores = std::clamp(cores, 1u, 64u);
    out.workers = cores;
    if (at_path(broker, "spec.cardinality").is_object())
        out.workers = std::min(cores, static_cast<std::uint32_t>(out.frontend_replicas * out.frontend_workers));
    c.pool_bytes = bounds.pool_bytes * out.backend_partitions * out.backend_workers;
    c.packet_size_max = static_cast<std::uint32_t>(std::min<std::int64_t>(bounds.packet_bytes, number_at(broker, "spec.advanced.clients.maxPacketSizeBytes", bounds.packet_bytes)));
    c.session_expiry_max = static_cast<std::uint32_t>(number_at(broker, "spec.advanced.clients.maxSessionExpirySeconds", 86'400));
    c.message_expiry_max = static_cast<std::uint32_t>(number_at(broker, "spec.advanced.clients.maxMessageExpirySeconds", 0));
    c.queue_length_max = static_cast<std::uint64_t>(number_at(broker, "spec.advanced.clients.subscriberQueueLimit.length", 0));
    c.queue_drop_oldest = equal_no_case(text_at(broker, "spec.advanced.clients.subscriberQueueLimit.strategy"), "DropOldest");
    c.queue_bytes_max = static_cast<std::uint64_t>(parse_size(annotation(broker, "penstock.io/subscriber-queue-bytes")).value_or(0));
    c.overflow_bytes = parse_size(text_at(broker, "spec.diskBackedMessageBuffer.maxSize")).value_or(0);
    c.overflow_age_ms = parse_duration_ms(annotation(broker, "penstock.io/message-buffer-age")).value_or(0);
    c.client_receive_maximum = static_cast<std::uint16_t>(number_at(broker, "spec.advanced.clients.maxReceiveMaximum", 65'535));
    c.keep_alive_max = static_cast<std::uint16_t>(number_at(broker, "spec.advanced.clients.maxKeepAliveSeconds", 0));
    c.high_priority_passes = !equal_no_case(text_at(broker, "spec.highPriorityMessagesBackpressureHandling"), "Reject");
    c.aio_compatible = equal_no_case(annotation(broker, "penstock.io/compatibility"), "AIO");
    c.sys_topics = !c.aio_compatible && !equal_no_case(annotation(broker, "penstock.io/sys-topics"), "Disabled");
    c.hide_selftest = equal_no_case(annotation(broker, "penstock.io/hide-selftest"), "Enabled");
    if (const auto& kept = at_path(broker, "spec.persistence"); kept.is_object()) {
        out.is_persistent = true;
        out.persistence_bytes = parse_size(text_at(kept, "maxSize")).value_or(0);
        out.seals = !equal_no_case(text_at(kept, "encryption.mode"), "Disabled");
        out.key_rotation = annotation(broker, "penstock.io/persistence-key");
        out.sync_interval_ms = static_cast<int>(std::min<std::int64_t>(10'000, parse_duration_ms(annotation(broker, "penstock.io/persistence-sync")).value_or(0)));
        auto mode = [&](const char* path) {
            const auto word = text_at(kept, path);
            return equal_no_case(word, "All") ? broker::Persistence::Mode::all : equal_no_case(word, "Custom") ? broker::Persistence::Mode::custom : broker::Persistence::Mode::none;
        };
        auto words = [&](const char* path) {
            std::vector<std::string> list;
            if (const auto& value = at_path(kept, path); value.is_array())
                for (const auto& item : value) list.push_back(item.get<std::string>());
            return list;
        };
        c.persistence = {.retain = mode("retain.mode"), .queues = mode("subscriberQueue.mode"), .retain_topics = words("retain.retainSettings.topics"), .queue_clients = words("subscriberQueue.subscriberQueueSettings.subscriberClientIds"),
                         .state = mode("stateStore.mode"), .state_keys = keys_of(at_path(kept, "stateStore.stateStoreSettings.stateStoreResources")),
                         .retain_dynamic = !equal_no_case(text_at(kept, "retain.retainSettings.dynamic.mode"), "Disabled"), .queue_dynamic = !equal_no_case(text_at(kept, "subscriberQueue.subscriberQueueSettings.dynamic.mode"), "Disabled"),
                         .state_dynamic = !equal_no_case(text_at(kept, "stateStore.stateStoreSettings.dynamic.mode"), "Disabled")};
    }
    // Keys of the state store by memory profile.
    const auto profile = text_at(broker, "spec.memoryProfile", "Medium");
    c.state_keys_max = equal_no_case(profile, "Tiny") ? 10'000 : equal_no_case(profile, "Low") ? 50'000 : equal_no_case(profile, "High") ? 1'000'000 : 100'000;
    out.debug_clients = annotation(broker, "penstock.io/debug-clients");
    out.log_level = text_at(broker, "spec.diagnostics.logs.level", "info");
    out.prometheus_port = static_cast<int>(number_at(broker, "spec.diagnostics.metrics.prometheusPort", 9600));
    out.self_check = !equal_no_case(text_at(broker, "spec.diagnostics.selfCheck.mode"), "Disabled");
    out.self_check_interval = static_cast<int>(number_at(broker, "spec.diagnostics.selfCheck.intervalSeconds", 30));
    out.self_check_timeout = static_cast<int>(number_at(broker, "spec.diagnostics.selfCheck.timeoutSeconds", 15));
    if (!equal_no_case(text_at(broker, "spec.diagnostics.traces.mode"), "Disabled")) {
        out.trace_bytes = static_cast<std::size_t>(number_at(broker, "spec.diagnostics.traces.cacheSizeMegabytes", 16)) << 20;
        c.span_capacity = static_cast<std::size_t>(number_at(broker, "spec.diagnostics.traces.spanChannelCapacity", 1000));
        if (!equal_no_case(text_at(broker, "spec.diagnostics.traces.selfTracing.mode"), "Disabled")) out.self_tracing_interval = static_cast<int>(number_at(broker, "spec.diagnostics.traces.selfTracing.intervalSeconds", 30));
    }

    if (const auto* kind = resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker")) out.notes = resources::notes(*kind, broker, cores);

    for (const auto& listener : listeners) {
        const auto type = resources::canonical({"ClusterIp", "LoadBalancer", "NodePort"}, text_at(listener, "spec.serviceType", "ClusterIp"));
        std::vector<std::string> origins;
        const auto listed = annotation(listener, "penstock.io/websocket-origins");
        for (const auto origin : split(listed, ','))
            if (!trim(origin).empty()) origins.push_back(to_lower(trim(origin)));
        // A list that is there and empty names no page; only its absence means all.
        if (origins.empty() && at_path(listener, "metadata.annotations").is_object() && at_path(listener, "metadata.annotations").contains("penstock.io/websocket-origins")) origins.emplace_back();
        std::size_t index = 0;
        for (const auto& port : at_path(listener, "spec.ports")) {
            PlannedPort planned{.name_space = text_at(listener, "metadata.namespace"), .listener = text_at(listener, "metadata.name"), .service_type = type};
            planned.port = static_cast<int>(number_at(port, "port", 0));
            planned.path = fmt::format("spec.ports[{}]", index++);
            planned.spec = port;
            auto& config = planned.config;
            config.resource = planned.name_space + "/" + planned.listener;
            config.protocol = equal_no_case(text_at(port, "protocol"), "WebSockets") ? broker::Protocol::websockets : broker::Protocol::mqtt;
            config.loopback_only = type == "ClusterIp";
            config.origins = origins;
            config.port = static_cast<std::uint16_t>(planned.port);
            if (type == "NodePort") {
                auto node_port = static_cast<int>(number_at(port, "nodePort", 0));
                // Without a nodePort one in Kubernetes' range is derived from the port, the same at every start.
                if (node_port == 0) node_port = planned.port >= 30'000 && planned.port <= 32'767 ? planned.port : 30'000 + planned.port % 2768;
                config.port = static_cast<std::uint16_t>(node_port);
            }
            out.ports.push_back(std::move(planned));
        }
    }
    return out;
}

}  // namespace penstock::control
