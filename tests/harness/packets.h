#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "mqtt/packets.h"

/// Packets of a client, and what it got.
namespace penstock::test {

inline std::string connect_packet(const std::string& id, mqtt::Version version = mqtt::Version::v5, mqtt::PropertyList properties = {}, bool clean = true) {
    mqtt::ConnectOptions options{.version = version, .client_id = id, .clean_start = clean, .keep_alive = 0};
    options.properties = std::move(properties);
    std::string out;
    mqtt::encode_connect(out, options);
    return out;
}
inline std::string subscribe_packet(const std::string& filter, mqtt::Qos qos, mqtt::Version version = mqtt::Version::v5) {
    std::string out;
    mqtt::encode_subscribe(out, version, 1, {{.filter = filter, .qos = qos}});
    return out;
}
inline std::string publish_packet(const std::string& topic, const std::string& payload, int qos, std::uint16_t id, mqtt::Version version = mqtt::Version::v5) {
    std::string out;
    mqtt::encode_publish(out, version, topic, payload, static_cast<mqtt::Qos>(qos), false, false, id, {});
    return out;
}
inline std::size_t count_publishes(std::string& received, mqtt::Version version, std::vector<std::string>* payloads = nullptr) {
    std::size_t count = 0;
    mqtt::Frame frame;
    std::string_view rest = received;
    while (mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete) {
        if (frame.type == mqtt::PacketType::publish) {
            ++count;
            const auto p = mqtt::decode_publish(frame.flags, frame.body, version, false);
            if (payloads != nullptr && p) payloads->emplace_back(p->payload);
        }
        rest.remove_prefix(frame.size);
    }
    received = rest;
    return count;
}

}  // namespace penstock::test
