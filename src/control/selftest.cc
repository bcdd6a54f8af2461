#include "control/selftest.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "auth/methods.h"
#include "base/random.h"
#include "mqttc/client.h"

namespace penstock::control {

SelftestResult run_selftest(const SelftestTarget& target, int timeout_ms, bool traced) {
    using mqtt::PacketType;
    SelftestResult out{.target = target};
    mqttc::Client client;
    const auto deadline = monotonic_ms() + timeout_ms;
    auto left = [&] { return static_cast<int>(std::max<std::int64_t>(0, deadline - monotonic_ms())); };
    std::size_t step = 0;
    auto began = monotonic_ns();
    broker::TraceParent parent;          // of the step under way
    auto begin_trace = [&](std::string* properties) {
        if (!traced) return;
        parent = {.trace = broker::new_trace_id(), .span = broker::new_span_id()};
        if (properties != nullptr) mqtt::write_user_property(*properties, "traceparent", broker::write_traceparent(parent));
    };
    std::int64_t published = 0;
    auto add_span = [&](const char* name, broker::SpanId id, broker::SpanId above, std::int64_t begin, const std::string& fault) {
        out.spans.push_back({.trace = parent.trace, .id = id, .parent = above, .name = name, .kind = broker::Span::Kind::client, .begin_ns = begin, .end_ns = monotonic_ns(),
                             .attributes = {{"penstock.listener", target.listener}, {"server.port", std::to_string(target.port)}, {"penstock.transport", fmt::format("{}{}", target.websocket ? "WebSockets" : "Mqtt", target.tls ? " TLS" : "")}}, .fault = fault});
    };
    auto finish = [&](const Result<void>& result) {
        if (traced) {
            const auto fault = result ? "" : result.error().message;
            if (std::string_view(selftest_steps[step]) == "message_delivery_check") add_span("receive publish", broker::new_span_id(), parent.span, published, fault);   // of the publication's trace
            else add_span(selftest_steps[step], parent.span, {}, began, fault);
        }
        out.steps[step] = {.done = result.has_value(), .milliseconds = static_cast<double>(monotonic_ns() - began) / 1e6};
        if (!result) out.fault = fmt::format("{}: {}", selftest_steps[step], result.error().message);
        ++step;
        began = monotonic_ns();
        return result.has_value();
    };
    auto answered = [&](PacketType type) -> Result<void> {
        auto packet = client.expect(type, left());
        if (!packet) return std::unexpected(packet.error());
        return {};
    };

    const auto suffix = random_text(12);
    mqtt::ConnectOptions connect{.version = mqtt::Version::v5, .client_id = "selftest-" + suffix, .clean_start = true, .keep_alive = 30};
    connect.properties.push_back({.id = mqtt::PropertyId::user_property, .text = "metriccategory", .value = "broker_selftest"});
    begin_trace(nullptr);
    if (traced) connect.properties.push_back({.id = mqtt::PropertyId::user_property, .text = "traceparent", .value = broker::write_traceparent(parent)});
    if (target.secret != nullptr) {
        connect.properties.push_back({.id = mqtt::PropertyId::authentication_method, .text = std::string(auth::MethodChain::probe_method)});
        connect.properties.push_back({.id = mqtt::PropertyId::authentication_data, .text = *target.secret});
    }
    mqttc::Target broker{.host = "127.0.0.1", .port = target.port, .websocket = target.websocket, .timeout_ms = timeout_ms};
    // Our own port on this machine: whether its certificate suits clients is looked at elsewhere.
    static const auto any_server = tls::Context::client({.verify_server = false, .verify_name = false});
    if (target.tls) broker.tls = any_server.value_or(nullptr);
    if (!finish(client.connect(broker, connect))) return out;

    std::string packet, properties;
    begin_trace(nullptr);
    mqtt::encode_ping(packet, PacketType::pingreq);
    auto sent = client.send(packet);
    if (!finish(sent ? answered(PacketType::pingresp) : sent)) return out;

    const auto topic = "azedge/dmqtt/selftest/" + suffix;
    packet.clear();
    begin_trace(&properties);
    mqtt::encode_subscribe(packet, mqtt::Version::v5, client.next_packet_id(), {{.filter = topic, .qos = mqtt::Qos::at_least_once}}, properties);
    sent = client.send(packet);
    if (!finish(sent ? answered(PacketType::suback) : sent)) return out;

    packet.clear();
    properties.clear();
    begin_trace(&properties);
    published = monotonic_ns();
    mqtt::encode_publish(packet, mqtt::Version::v5, topic, suffix, mqtt::Qos::at_least_once, false, false, client.next_packet_id(), properties);
    sent = client.send(packet);
    bool acknowledged = false, delivered = false;
    Result<void> failed;
    while (sent && failed && !(acknowledged && delivered)) {
        auto next = client.next(left());
        if (!next) failed = std::unexpected(next.error());
        else if (!*next) failed = fail(acknowledged ? "the message did not come back in time" : "no PUBACK in time");
        else if ((*next)->type == PacketType::puback) acknowledged = true;
        else if ((*next)->type == PacketType::publish) {
            const auto message = mqtt::decode_publish((*next)->flags, (*next)->body, mqtt::Version::v5, false);
            delivered = message && message->payload == suffix;
            if (message) {
                packet.clear();
                mqtt::encode_ack(packet, PacketType::puback, mqtt::Version::v5, message->packet_id, mqtt::ReasonCode::success);
                sent = client.send(packet);
            }
        }
    }
    if (!finish(!sent ? sent : acknowledged ? Result<void>{} : failed)) return out;
    if (!finish(delivered ? Result<void>{} : failed)) return out;

    packet.clear();
    properties.clear();
    begin_trace(&properties);
    mqtt::encode_unsubscribe(packet, mqtt::Version::v5, client.next_packet_id(), {topic}, properties);
    sent = client.send(packet);
    finish(sent ? answered(PacketType::unsuback) : sent);
    client.disconnect();
    return out;
}

}  // namespace penstock::control
