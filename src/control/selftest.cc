#include "control/selftest.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "auth/methods.h"
#include "base/random.h"
#include "mqttc/client.h"

namespace penstock::control {

SelftestResult run_selftest(const SelftestTarget& target, int timeout_ms) {
    using mqtt::PacketType;
    SelftestResult out{.target = target};
    mqttc::Client client;
    const auto deadline = monotonic_ms() + timeout_ms;
    auto left = [&] { return static_cast<int>(std::max<std::int64_t>(0, deadline - monotonic_ms())); };
    std::size_t step = 0;
    auto began = monotonic_ns();
    auto finish = [&](const Result<void>& result) {
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
    if (target.secret != nullptr) {
        connect.properties.push_back({.id = mqtt::PropertyId::authentication_method, .text = std::string(auth::MethodChain::probe_method)});
        connect.properties.push_back({.id = mqtt::PropertyId::authentication_data, .text = *target.secret});
    }
    mqttc::Target broker{.host = "127.0.0.1", .port = target.port, .websocket = target.websocket, .timeout_ms = timeout_ms};
    // Our own port on this machine: whether its certificate suits clients is looked at elsewhere.
    static const auto any_server = tls::Context::client({.verify_server = false, .verify_name = false});
    if (target.tls) broker.tls = any_server.value_or(nullptr);
    if (!finish(client.connect(broker, connect))) return out;

    std::string packet;
    mqtt::encode_ping(packet, PacketType::pingreq);
    auto sent = client.send(packet);
    if (!finish(sent ? answered(PacketType::pingresp) : sent)) return out;

    const auto topic = "azedge/dmqtt/selftest/" + suffix;
    packet.clear();
    mqtt::encode_subscribe(packet, mqtt::Version::v5, client.next_packet_id(), {{.filter = topic, .qos = mqtt::Qos::at_least_once}});
    sent = client.send(packet);
    if (!finish(sent ? answered(PacketType::suback) : sent)) return out;

    packet.clear();
    mqtt::encode_publish(packet, mqtt::Version::v5, topic, suffix, mqtt::Qos::at_least_once, false, false, client.next_packet_id(), {});
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
    mqtt::encode_unsubscribe(packet, mqtt::Version::v5, client.next_packet_id(), {topic});
    sent = client.send(packet);
    finish(sent ? answered(PacketType::unsuback) : sent);
    client.disconnect();
    return out;
}

}  // namespace penstock::control
