// The plan of the data plane: a pure function of a Broker and its listeners.
#include <gtest/gtest.h>

#include <functional>

#include "control/plan.h"

namespace penstock {
namespace {

using resources::Json;

control::Plan plan_of(const char* pointer, Json value, unsigned cores = 8) {
    Json broker = {{"spec", Json::object()}, {"metadata", {{"annotations", Json::object()}}}};
    broker[Json::json_pointer(pointer)] = std::move(value);
    return control::plan_broker(broker, {}, cores);
}

TEST(Plan, of_a_broker) {
    struct Row {
        const char* pointer;             ///< of the Broker's field; a `/` in an annotation's name is `~1`
        Json value;
        std::int64_t want;
        std::function<std::int64_t(const control::Plan&)> read;
    };
    const std::vector<Row> rows{
        {"/spec/x", 0, 8, [](const auto& p) { return p.workers; }},
        {"/spec/cardinality",
         {{"frontend", {{"replicas", 1}, {"workers", 3}}}},
         3,
         [](const auto& p) { return p.workers; }},
        {"/spec/cardinality",
         {{"frontend", {{"replicas", 9}, {"workers", 9}}}},
         8,
         [](const auto& p) { return p.workers; }},
        {"/spec/memoryProfile", "Tiny", 16 << 20, [](const auto& p) { return p.config.pool_bytes; }},
        {"/spec/memoryProfile", "low", 50'000, [](const auto& p) { return p.config.state_keys_max; }},
        {"/spec/memoryProfile", "Tiny", 4 << 20, [](const auto& p) { return p.config.packet_size_max; }},
        {"/spec/advanced/clients/maxPacketSizeBytes", 1000, 1000,
         [](const auto& p) { return p.config.packet_size_max; }},
        {"/spec/advanced/clients/maxSessionExpirySeconds", 60, 60,
         [](const auto& p) { return p.config.session_expiry_max; }},
        {"/spec/advanced/clients/maxKeepAliveSeconds", 7, 7,
         [](const auto& p) { return p.config.keep_alive_max; }},
        {"/spec/advanced/clients/subscriberQueueLimit/strategy", "DropOldest", 1,
         [](const auto& p) { return p.config.queue_drop_oldest; }},
        {"/metadata/annotations/penstock.io~1subscriber-queue-bytes", "2Mi", 2 << 20,
         [](const auto& p) { return p.config.queue_bytes_max; }},
        {"/metadata/annotations/penstock.io~1sys-topics", "Disabled", 0,
         [](const auto& p) { return p.config.sys_topics; }},
        {"/metadata/annotations/penstock.io~1compatibility", "AIO", 0,
         [](const auto& p) { return p.config.sys_topics; }},
        {"/spec/persistence", Json::object(), 1, [](const auto& p) { return p.is_persistent; }},
        {"/spec/persistence", Json::object(), 1, [](const auto& p) { return p.seals; }},
        {"/spec/persistence/encryption/mode", "Disabled", 0, [](const auto& p) { return p.seals; }},
        {"/spec/x", 0, 0, [](const auto& p) { return p.is_persistent; }},
        {"/spec/x", 0, 9600, [](const auto& p) { return p.prometheus_port; }},
        {"/spec/diagnostics/metrics/prometheusPort", 0, 0, [](const auto& p) { return p.prometheus_port; }},
        {"/spec/diagnostics/selfCheck/mode", "Disabled", 0, [](const auto& p) { return p.self_check; }},
        {"/spec/diagnostics/selfCheck/intervalSeconds", 40, 40,
         [](const auto& p) { return p.self_check_interval; }},
        {"/spec/x", 0, 16 << 20, [](const auto& p) { return p.trace_bytes; }},
        {"/spec/x", 0, 1000, [](const auto& p) { return p.config.span_capacity; }},
        {"/spec/x", 0, 30, [](const auto& p) { return p.self_tracing_interval; }},
        {"/spec/diagnostics/traces/mode", "Disabled", 0, [](const auto& p) { return p.trace_bytes; }},
        {"/spec/diagnostics/traces/mode", "Disabled", 0,
         [](const auto& p) { return p.self_tracing_interval; }},
        {"/spec/diagnostics/traces/selfTracing/mode", "Disabled", 0,
         [](const auto& p) { return p.self_tracing_interval; }},
    };
    for (const auto& row : rows)
        EXPECT_EQ(row.read(plan_of(row.pointer, row.value)), row.want)
            << row.pointer << " " << row.value.dump();
}

TEST(Plan, of_a_port) {
    struct Row {
        const char* type;
        Json port;
        int bound, node_port;
        bool loopback_only;
    };
    const std::vector<Row> rows{
        {"ClusterIp", {{"port", 1883}}, 1883, 0, true},
        {"loadbalancer", {{"port", 1883}}, 1883, 0, false},
        {"NodePort", {{"port", 1883}, {"nodePort", 31'000}}, 31'000, 31'000, false},
        {"NodePort", {{"port", 1883}}, 31'883, 31'883, false},
        {"NodePort", {{"port", 30'001}}, 30'001, 0, false},
    };
    for (const auto& row : rows) {
        const Json listener = {{"metadata", {{"name", "l"}, {"namespace", "n"}}},
                               {"spec", {{"serviceType", row.type}, {"ports", Json::array({row.port})}}}};
        const auto plan = control::plan_broker(Json::object(), {listener}, 1);
        ASSERT_EQ(plan.ports.size(), 1u);
        const auto& port = plan.ports[0];
        EXPECT_EQ(port.config.port, row.bound) << row.type << " " << row.port.dump();
        EXPECT_EQ(port.node_port(), row.node_port) << row.type << " " << row.port.dump();
        EXPECT_EQ(port.config.loopback_only, row.loopback_only) << row.type;
        EXPECT_EQ(port.config.resource, "n/l");
        EXPECT_EQ(port.path, "spec.ports[0]");
    }
}

}  // namespace
}  // namespace penstock
