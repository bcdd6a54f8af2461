// Traces of packets: who asks for one gets it, with the broker's steps; memory for them is bounded.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/given_clock.h"
#include "control/traces.h"
#include "harness/memory_net.h"
#include "harness/packets.h"

namespace penstock::test {
namespace {

using broker::Span;
using mqtt::Version;

const std::string asked = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

std::string traced_publish(const std::string& topic, int qos, const std::string& traceparent) {
    std::string properties, packet;
    mqtt::write_user_property(properties, "traceparent", traceparent);
    mqtt::encode_publish(packet, Version::v5, topic, "payload", static_cast<mqtt::Qos>(qos), false, false, qos > 0 ? 9 : 0, properties);
    return packet;
}

TEST(Traces, traceparent_is_read_as_w3c_says) {
    const auto good = broker::parse_traceparent(asked);
    ASSERT_TRUE(good);
    EXPECT_EQ(broker::write_traceparent(*good), asked);
    EXPECT_TRUE(broker::parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more")) << "a later version may say more";
    for (const std::string bad : {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                  "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                                  "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x", "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01"})
        EXPECT_FALSE(broker::parse_traceparent(bad)) << bad;
}

TEST(Traces, a_packet_that_asks_is_traced_and_no_other) {
    MemoryNet net(1, {.span_capacity = 100});
    auto *a = net.open(), *b = net.open();
    net.send(*a, connect_packet("a"));
    net.send(*b, connect_packet("b") + subscribe_packet("t", mqtt::Qos::at_most_once));
    b->received.clear();
    net.send(*a, publish_packet("t", "x", 1, 3) + traced_publish("t", 1, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
    EXPECT_TRUE(net.core(0).take_spans().empty());
    net.send(*a, traced_publish("t", 1, asked));
    const auto spans = net.core(0).take_spans();
    ASSERT_EQ(spans.size(), 5u);
    const auto& whole = spans.back();
    EXPECT_EQ(whole.name, "Publish");
    EXPECT_EQ(broker::write_traceparent({whole.trace, whole.parent}), asked);
    EXPECT_EQ(whole.kind, Span::Kind::server);
    EXPECT_NE(std::ranges::find(whole.attributes, std::pair<std::string, std::string>("messaging.destination.name", "t")), whole.attributes.end());
    const std::vector<std::string> steps{"check_backpressure", "get_pub_authz_context", "dispatch_publishes", "respond_and_ack"};
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(spans[i].name, steps[i]);
        EXPECT_EQ(spans[i].parent, whole.id);
        EXPECT_LE(whole.begin_ns, spans[i].begin_ns);
        EXPECT_LE(spans[i].begin_ns, spans[i].end_ns);
        EXPECT_LE(spans[i].end_ns, whole.end_ns);
    }
    // The receiver can go on with it: the property is forwarded as it is [MQTT-3.3.2-17].
    EXPECT_NE(b->received.find(asked), std::string::npos);
    // What is refused has a fault.
    net.send(*a, traced_publish("$SYS/x", 1, asked));
    const auto refused = net.core(0).take_spans();
    ASSERT_FALSE(refused.empty());
    EXPECT_EQ(refused.back().fault, "$SYS belongs to the server");
    // Room for a hundred; the rest is counted.
    for (int i = 0; i < 50; ++i) net.send(*a, traced_publish("t", 0, asked));
    EXPECT_EQ(net.core(0).take_spans().size(), 100u);
    EXPECT_EQ(net.core(0).figures().spans_dropped, 50u * 4 - 100);
}

TEST(Traces, connect_subscribe_and_unsubscribe) {
    MemoryNet net(2, {.span_capacity = 100});
    // On whatever core it arrives, it is one span, of its home.
    for (std::uint32_t core = 0; core < 2; ++core) {
        auto* a = net.open(core);
        net.send(*a, connect_packet("a", Version::v5, {{.id = mqtt::PropertyId::user_property, .text = "traceparent", .value = asked}}));
        std::string properties, packet;
        mqtt::write_user_property(properties, "traceparent", asked);
        mqtt::encode_subscribe(packet, Version::v5, 1, {{.filter = "a/#/b", .qos = mqtt::Qos::at_most_once}}, properties);
        mqtt::encode_unsubscribe(packet, Version::v5, 2, {"t"}, properties);
        net.send(*a, packet);
        std::vector<Span> spans;
        for (std::size_t i = 0; i < 2; ++i) std::ranges::move(net.core(i).take_spans(), std::back_inserter(spans));
        ASSERT_EQ(spans.size(), 3u);
        EXPECT_EQ(spans[0].name, "Connect");
        EXPECT_EQ(spans[0].fault, "");
        EXPECT_EQ(spans[1].name, "Subscribe");
        EXPECT_EQ(spans[1].fault, "topic-filter-invalid");
        EXPECT_EQ(spans[2].name, "Unsubscribe");
    }
    auto* refused = net.open();
    mqtt::ConnectOptions options{.version = Version::v5, .client_id = "will", .keep_alive = 0, .has_will = true, .will_topic = "#"};
    options.properties.push_back({.id = mqtt::PropertyId::user_property, .text = "traceparent", .value = asked});
    std::string packet;
    mqtt::encode_connect(packet, options);
    net.send(*refused, packet);
    std::vector<Span> spans;
    for (std::size_t i = 0; i < 2; ++i) std::ranges::move(net.core(i).take_spans(), std::back_inserter(spans));
    ASSERT_EQ(spans.size(), 1u);
    EXPECT_NE(spans[0].fault.find("will topic"), std::string::npos);
}

/// Answers later.
struct Slow final : auth::Authenticator {
    std::vector<auth::Done> waiting;
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later& later) override {
        waiting.push_back(later());
        auth::Verdict out;
        out.kind = auth::Verdict::Kind::wait;
        return out;
    }
};

TEST(Traces, connect_that_waits_for_a_verdict_is_one_span) {
    const auto slow = std::make_shared<Slow>();
    MemoryNet net(1, {.span_capacity = 100}, slow);
    auto* a = net.open();
    net.send(*a, connect_packet("a", Version::v5, {{.id = mqtt::PropertyId::user_property, .text = "traceparent", .value = asked}}));
    EXPECT_TRUE(net.core(0).take_spans().empty());
    ASSERT_EQ(slow->waiting.size(), 1u);
    slow->waiting[0](auth::Verdict::accepted({.method = "Custom", .id = "a"}));
    net.settle();
    const auto spans = net.core(0).take_spans();
    ASSERT_EQ(spans.size(), 1u);
    EXPECT_EQ(spans[0].name, "Connect");
    EXPECT_GT(spans[0].end_ns, spans[0].begin_ns);
}

TEST(Traces, the_oldest_go_when_memory_ends_and_otlp_is_what_collectors_read) {
    control::TraceStore store{machine_clock()};
    auto one = [](int i) {
        Span root{.trace = broker::new_trace_id(), .id = broker::new_span_id(), .name = fmt::format("trace {}", i), .begin_ns = 1'000'000 * i, .end_ns = 1'000'000 * i + 500};
        Span child{.trace = root.trace, .id = broker::new_span_id(), .parent = root.id, .name = "step", .begin_ns = root.begin_ns, .end_ns = root.end_ns, .attributes = {{"key", std::string(1000, 'v')}}, .fault = i == 7 ? "broken" : ""};
        return std::vector{child, root};
    };
    store.add(one(0));
    EXPECT_TRUE(store.list()["items"].empty()) << "nothing is kept before it is asked for";
    store.set_limit(20'000);
    for (int i = 1; i <= 100; ++i) store.add(one(i));
    EXPECT_LE(store.bytes(), 20'000u);
    const auto items = store.list()["items"];
    ASSERT_GT(items.size(), 5u);
    EXPECT_LT(items.size(), 20u);
    EXPECT_EQ(items[0]["name"], "trace 100");
    EXPECT_EQ(items[0]["spans"], 2);
    const auto id = items[1]["trace"].get<std::string>();
    const auto otlp = store.otlp(id, "service");
    const auto& spans = otlp["resourceSpans"][0]["scopeSpans"][0]["spans"];
    ASSERT_EQ(spans.size(), 2u);
    EXPECT_EQ(spans[1]["name"], "trace 99");
    EXPECT_EQ(spans[0]["parentSpanId"], spans[1]["spanId"]);
    EXPECT_EQ(spans[1]["traceId"].get<std::string>().size(), 32u);
    EXPECT_FALSE(spans[1].contains("parentSpanId"));
    EXPECT_EQ(std::stoull(spans[1]["endTimeUnixNano"].get<std::string>()) - std::stoull(spans[1]["startTimeUnixNano"].get<std::string>()), 500u);
    EXPECT_EQ(otlp["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"], "service");
    EXPECT_TRUE(store.otlp("00", "service")["resourceSpans"].empty());
    // A trace that goes on without end does not take all.
    auto endless = one(7);
    for (int i = 0; i < 2000; ++i) {
        endless[0].id = broker::new_span_id();
        endless[0].attributes.clear();
        store.add({endless[0]});
    }
    EXPECT_LE(store.bytes(), 20'000u + 2000 * sizeof(Span));
    store.set_limit(0);
    EXPECT_EQ(store.bytes(), 0u);
}

}  // namespace
}  // namespace penstock::test
