#include "mqtt/packets.h"

namespace penstock::mqtt {
namespace {

void fixed_header(std::string& out, PacketType type, std::uint8_t flags, std::size_t remaining) {
    WireWriter w(out);
    w.u8(static_cast<std::uint8_t>(static_cast<unsigned>(type) << 4 | flags));
    w.varint(static_cast<std::uint32_t>(remaining));
}

constexpr std::uint8_t connack_unavailable = 3;   // of version 3: "the MQTT service is unavailable"

std::size_t block_size(std::string_view properties) {
    return varint_size(static_cast<std::uint32_t>(properties.size())) + properties.size();
}

void block(WireWriter& w, std::string_view properties) {
    w.varint(static_cast<std::uint32_t>(properties.size()));
    w.bytes(properties);
}

}  // namespace

void encode_connect(std::string& out, const ConnectOptions& o) {
    std::string body;
    WireWriter w(body);
    w.text(o.version == Version::v31 ? "MQIsdp" : "MQTT");
    w.u8(static_cast<std::uint8_t>(o.version));
    unsigned flags = o.clean_start ? 2u : 0u;
    if (o.has_will) flags |= 4u | static_cast<unsigned>(o.will_qos) << 3 | (o.will_retain ? 0x20u : 0u);
    if (o.password) flags |= 0x40;
    if (o.user_name) flags |= 0x80;
    w.u8(static_cast<std::uint8_t>(flags));
    w.u16(o.keep_alive);
    std::string properties;
    if (o.version == Version::v5) {
        write_properties(properties, o.properties);
        block(w, properties);
    }
    w.text(o.client_id);
    if (o.has_will) {
        if (o.version == Version::v5) {
            properties.clear();
            write_properties(properties, o.will_properties);
            block(w, properties);
        }
        w.text(o.will_topic);
        w.text(o.will_payload);
    }
    if (o.user_name) w.text(*o.user_name);
    if (o.password) w.text(*o.password);
    fixed_header(out, PacketType::connect, 0, body.size());
    out += body;
}

void encode_connack(std::string& out, Version version, bool session_present, ReasonCode reason, std::string_view properties) {
    const bool v5 = version == Version::v5;
    fixed_header(out, PacketType::connack, 0, v5 ? 2 + block_size(properties) : 2);
    WireWriter w(out);
    w.u8(session_present ? 1 : 0);
    w.u8(v5 ? static_cast<std::uint8_t>(reason) : connack_code_v3(reason).value_or(connack_unavailable));
    if (v5) block(w, properties);
}

std::size_t encode_publish(std::string& out, Version version, std::string_view topic, std::string_view payload, Qos qos,
                           bool retain, bool dup, std::uint16_t packet_id, std::string_view properties) {
    const auto before = out.size();
    const bool v5 = version == Version::v5;
    const auto remaining = 2 + topic.size() + (qos != Qos::at_most_once ? 2 : 0) + (v5 ? block_size(properties) : 0) + payload.size();
    fixed_header(out, PacketType::publish,
                 static_cast<std::uint8_t>((dup ? 8u : 0u) | static_cast<unsigned>(qos) << 1 | (retain ? 1u : 0u)), remaining);
    WireWriter w(out);
    w.text(topic);
    if (qos != Qos::at_most_once) w.u16(packet_id);
    if (v5) block(w, properties);
    w.bytes(payload);
    return out.size() - before;
}

void encode_ack(std::string& out, PacketType type, Version version, std::uint16_t packet_id, ReasonCode reason,
                std::string_view properties) {
    const auto flags = static_cast<std::uint8_t>(type == PacketType::pubrel ? 2 : 0);
    WireWriter w(out);
    if (version != Version::v5 || (reason == ReasonCode::success && properties.empty())) {
        fixed_header(out, type, flags, 2);
        w.u16(packet_id);
        return;
    }
    fixed_header(out, type, flags, properties.empty() ? 3 : 3 + block_size(properties));
    w.u16(packet_id);
    w.u8(static_cast<std::uint8_t>(reason));
    if (!properties.empty()) block(w, properties);
}

void encode_subscribe(std::string& out, Version version, std::uint16_t packet_id,
                      const std::vector<SubscriptionView>& entries, std::string_view properties) {
    const bool v5 = version == Version::v5;
    auto size = 2 + (v5 ? block_size(properties) : 0);
    for (const auto& e : entries) size += 3 + e.filter.size();
    fixed_header(out, PacketType::subscribe, 2, size);
    WireWriter w(out);
    w.u16(packet_id);
    if (v5) block(w, properties);
    for (const auto& e : entries) {
        w.text(e.filter);
        auto options = static_cast<unsigned>(e.qos);
        if (v5) options |= (e.no_local ? 4u : 0u) | (e.retain_as_published ? 8u : 0u) | static_cast<unsigned>(e.retain_handling) << 4;
        w.u8(static_cast<std::uint8_t>(options));
    }
}

void encode_unsubscribe(std::string& out, Version version, std::uint16_t packet_id,
                        const std::vector<std::string_view>& filters, std::string_view properties) {
    const bool v5 = version == Version::v5;
    auto size = 2 + (v5 ? block_size(properties) : 0);
    for (const auto f : filters) size += 2 + f.size();
    fixed_header(out, PacketType::unsubscribe, 2, size);
    WireWriter w(out);
    w.u16(packet_id);
    if (v5) block(w, properties);
    for (const auto f : filters) w.text(f);
}

namespace {
/// An UNSUBACK of version 3 has no payload.
bool has_reasons(PacketType type, Version version) noexcept { return version == Version::v5 || type == PacketType::suback; }
}  // namespace

std::size_t suback_size(PacketType type, Version version, std::size_t filters) noexcept {
    const auto rest = 2 + (version == Version::v5 ? block_size({}) : 0) + (has_reasons(type, version) ? filters : 0);
    return 1 + varint_size(static_cast<std::uint32_t>(rest)) + rest;
}

void encode_suback(std::string& out, PacketType type, Version version, std::uint16_t packet_id,
                   const std::vector<ReasonCode>& reasons, std::string_view properties) {
    const bool v5 = version == Version::v5, with_reasons = has_reasons(type, version);
    fixed_header(out, type, 0, 2 + (v5 ? block_size(properties) : 0) + (with_reasons ? reasons.size() : 0));
    WireWriter w(out);
    w.u16(packet_id);
    if (v5) block(w, properties);
    if (!with_reasons) return;
    // A SUBACK of 3.1.1 knows one failure, 0x80 [MQTT311-3.9.3-2].
    for (const auto r : reasons) w.u8(!v5 && is_error(r) ? std::uint8_t{0x80} : static_cast<std::uint8_t>(r));
}

void encode_ping(std::string& out, PacketType type) { fixed_header(out, type, 0, 0); }

void encode_disconnect(std::string& out, Version version, ReasonCode reason, std::string_view properties) {
    if (version != Version::v5 || (reason == ReasonCode::success && properties.empty())) {
        fixed_header(out, PacketType::disconnect, 0, 0);
        return;
    }
    fixed_header(out, PacketType::disconnect, 0, properties.empty() ? 1 : 1 + block_size(properties));
    WireWriter w(out);
    w.u8(static_cast<std::uint8_t>(reason));
    if (!properties.empty()) block(w, properties);
}

void encode_auth(std::string& out, ReasonCode reason, std::string_view properties) {
    fixed_header(out, PacketType::auth, 0, 1 + block_size(properties));
    WireWriter w(out);
    w.u8(static_cast<std::uint8_t>(reason));
    block(w, properties);
}

}  // namespace penstock::mqtt
