#include "mqtt/packets.h"

namespace penstock::mqtt {
namespace {

constexpr std::string_view trace_property = "traceparent";

std::unexpected<Refusal> refused(Refusal refusal) { return std::unexpected(refusal); }
/// That it ends too early, or not, is a rule of its own for CONNECT [MQTT-3.1.4-1].
std::unexpected<Refusal> refused_connect(Refusal refusal) {
    return std::unexpected(refusal == Refusal::packet_is_short ? Refusal::connect_is_short : refusal);
}

/// The flags of a packet that has `wanted` there. MQTT 3.1 asks for the QoS of those that have one and uses no other bit but DUP, which
/// says that a packet is sent again.
bool are_flags_good(std::uint8_t flags, std::uint8_t wanted, Version version) noexcept {
    return flags == wanted || (version == Version::v31 && (wanted == 0 || (flags & 6) == wanted));
}

/// Length and content of a property block; nothing below version 5.
std::string_view property_block(WireReader& in, Version version) {
    return version == Version::v5 ? in.bytes(in.varint()) : std::string_view{};
}

Decoded<WillView> decode_will(WireReader& in, std::uint8_t flags, Version version) {
    WillView will;
    will.qos = static_cast<Qos>(flags >> 3 & 3);
    will.retain = (flags & 0x20) != 0;
    const auto block = property_block(in, version);
    PropertyReader properties(block, will_place);
    for (Property p; properties.next(p);) {
        if (p.id == PropertyId::will_delay_interval) will.delay_interval = p.number;
        else if (p.id == PropertyId::message_expiry_interval) will.message_expiry = p.number;
        else if (p.id == PropertyId::user_property) write_user_property(will.properties, p.text, p.value);
        else if (p.id == PropertyId::payload_format_indicator) write_property(will.properties, p.id, p.number);
        else write_property(will.properties, p.id, p.text);
    }
    if (properties.failure()) return std::unexpected(*properties.failure());
    will.topic = in.utf8();
    will.payload = in.binary();
    return will;
}

}  // namespace

namespace {

constexpr std::uint8_t bridge_bit = 0x80;                ///< of the protocol level
constexpr std::uint32_t smallest_connack = 5;            ///< of version 5

/// The lowest Maximum Packet Size that stands in a block of CONNECT's properties, whatever is wrong with the others.
std::uint32_t find_maximum_packet_size(std::string_view block) noexcept {
    WireReader in(block);
    std::uint32_t found = 0;
    while (!in.empty()) {
        const auto* rule = find_property_rule(in.u8());
        if (rule == nullptr) return found != 0 ? found : smallest_connack;   // how long its value is, nobody knows
        std::uint32_t number = 0;
        switch (rule->type) {
            case WireType::u8: in.u8(); break;
            case WireType::u16: in.u16(); break;
            case WireType::u32: number = in.u32(); break;
            case WireType::varint: in.varint(); break;
            case WireType::text_pair: in.binary(); [[fallthrough]];
            case WireType::binary:
            case WireType::text: in.binary(); break;
        }
        if (in.failure()) return found != 0 ? found : smallest_connack;
        if (rule->id == PropertyId::maximum_packet_size && number != 0 && (found == 0 || number < found)) found = number;
    }
    return found;
}

}  // namespace

std::optional<RefusalForm> refusal_form(std::string_view body) noexcept {
    WireReader in(body);
    const auto name = in.binary();
    const auto level = static_cast<std::uint8_t>(in.u8() & ~bridge_bit);
    if (in.failure() || (name != "MQTT" && name != "MQIsdp")) return std::nullopt;
    if (name == "MQIsdp") return RefusalForm{.version = Version::v31};
    if (level < static_cast<std::uint8_t>(Version::v5)) return RefusalForm{.version = Version::v311};
    RefusalForm out{.version = Version::v5, .maximum_packet_size = smallest_connack};
    in.u8();
    in.u16();
    const auto block = in.bytes(in.varint());
    if (!in.failure()) out.maximum_packet_size = find_maximum_packet_size(block);
    return out;
}

Decoded<ConnectView> decode_connect(std::string_view body) {
    WireReader in(body);
    const auto name = in.utf8();
    const auto version = in.u8();
    ConnectView out;
    if (in.failure()) return refused_connect(*in.failure());
    if (name != "MQTT" && name != "MQIsdp") return refused(Refusal::protocol_name_is_not_mqtt);
    const auto level = static_cast<std::uint8_t>(version & ~bridge_bit);
    out.is_bridge = level != version;
    if (!((name == "MQTT" && (level == 4 || version == 5)) || (name == "MQIsdp" && level == 3)))
        return refused(Refusal::protocol_version_is_unknown);
    out.version = static_cast<Version>(level);
    const auto flags = in.u8();
    out.keep_alive = in.u16();
    if (in.failure()) return refused_connect(*in.failure());
    // MQTT 3.1 does not use the lowest flag, and disregards what is said of a will that is not there.
    const bool is_v31 = out.version == Version::v31;
    if ((flags & 1) != 0 && !is_v31) return refused(Refusal::connect_flag_is_reserved);
    out.clean_start = (flags & 2) != 0;
    const bool has_will = (flags & 4) != 0;
    if (!has_will && (flags & 0x18) != 0 && !is_v31) return refused(Refusal::will_qos_without_will);
    if (!has_will && (flags & 0x20) != 0 && !is_v31) return refused(Refusal::will_retain_without_will);
    if (has_will && (flags >> 3 & 3) == 3) return refused(Refusal::will_qos_is_3);
    if (out.version != Version::v5 && (flags & 0x80) == 0 && (flags & 0x40) != 0)
        return refused(Refusal::password_without_user_name);

    PropertyReader properties(property_block(in, out.version), place(PacketType::connect));
    for (Property p; properties.next(p);) {
        switch (p.id) {
            case PropertyId::session_expiry_interval: out.session_expiry_interval = p.number; break;
            case PropertyId::receive_maximum: out.receive_maximum = static_cast<std::uint16_t>(p.number); break;
            case PropertyId::maximum_packet_size: out.maximum_packet_size = p.number; break;
            case PropertyId::topic_alias_maximum: out.topic_alias_maximum = static_cast<std::uint16_t>(p.number); break;
            case PropertyId::request_response_information: out.request_response_information = p.number == 1; break;
            case PropertyId::request_problem_information: out.request_problem_information = p.number == 1; break;
            case PropertyId::authentication_method: out.authentication_method = p.text; break;
            case PropertyId::authentication_data: out.authentication_data = p.text; break;
            case PropertyId::user_property:
                if (p.text == "metriccategory") out.metric_category = p.value;
                else if (p.text == "aio-persistence") out.persistence_requested = p.value == "true";
                else if (p.text == trace_property) out.trace_parent = p.value;
                break;
            default: break;
        }
    }
    if (properties.failure()) return refused_connect(*properties.failure());
    if (out.authentication_data.data() != nullptr && !out.authentication_method)
        return refused(Refusal::authentication_data_without_method);

    out.client_id = in.utf8();
    if (has_will) {
        auto will = decode_will(in, flags, out.version);
        if (!will) return refused_connect(in.failure() ? *in.failure() : will.error());
        out.will = std::move(*will);
    }
    // In MQTT 3.1 the remaining length says whether they are there; the flags alone do not.
    if ((flags & 0x80) != 0 && !(is_v31 && in.empty())) out.user_name = in.utf8();
    if ((flags & 0x40) != 0 && !(is_v31 && in.empty())) out.password = in.binary();
    if (in.failure()) return refused_connect(*in.failure());
    if (!in.empty()) return refused(Refusal::connect_has_bytes_left);
    return out;
}

Decoded<PublishView> decode_publish(std::uint8_t flags, std::string_view body, Version version, bool from_client) {
    PublishView out;
    if ((flags & 6) == 6) return refused(Refusal::qos_is_3);
    out.dup = (flags & 8) != 0;
    out.retain = (flags & 1) != 0;
    out.qos = static_cast<Qos>(flags >> 1 & 3);
    if (out.dup && out.qos == Qos::at_most_once && version != Version::v31)
        return refused(Refusal::dup_with_qos_0);

    WireReader in(body);
    out.topic = in.utf8();
    if (out.qos != Qos::at_most_once) out.packet_id = in.u16();
    out.properties = property_block(in, version);
    out.payload = in.rest();
    if (in.failure()) return std::unexpected(*in.failure());
    if (out.qos != Qos::at_most_once && out.packet_id == packet_id_none)
        return refused(Refusal::packet_id_is_zero);
    if (out.properties.empty()) return out;

    PropertyReader properties(out.properties, place(PacketType::publish));
    bool has_alias = false;
    for (Property p; properties.next(p);) {
        switch (p.id) {
            case PropertyId::message_expiry_interval:
                out.message_expiry = p.number;
                out.has_expiry = out.has_volatile_properties = true;
                break;
            case PropertyId::topic_alias:
                out.topic_alias = static_cast<std::uint16_t>(p.number);
                has_alias = out.has_volatile_properties = true;
                break;
            case PropertyId::subscription_identifier:
                if (from_client) return refused(Refusal::subscription_id_from_client);
                out.subscription_ids.push_back(p.number);
                out.has_volatile_properties = true;
                break;
            case PropertyId::response_topic: out.response_topic = p.text; break;
            case PropertyId::payload_format_indicator: out.payload_is_utf8 = p.number == 1; break;
            case PropertyId::user_property:
                if (p.text == "$partition") out.partition = p.value, out.has_partition = true;
                else if (p.text == "$high_priority") out.high_priority = true;
                else if (p.text == "aio-persistence") out.persistence_requested = p.value == "true";
                else if (p.text == trace_property) out.trace_parent = p.value;
                break;
            default: break;
        }
    }
    if (properties.failure()) return std::unexpected(*properties.failure());
    if (has_alias && out.topic_alias == 0) return refused(Refusal::topic_alias_is_zero);
    return out;
}

void copy_forwarded_properties(std::string_view block, std::string& out) {
    PropertyReader properties(block, place(PacketType::publish));
    for (Property p; properties.next(p);) {
        switch (p.id) {
            case PropertyId::message_expiry_interval:
            case PropertyId::topic_alias:
            case PropertyId::subscription_identifier: break;
            case PropertyId::user_property: write_user_property(out, p.text, p.value); break;
            case PropertyId::payload_format_indicator: write_property(out, p.id, p.number); break;
            default: write_property(out, p.id, p.text); break;
        }
    }
}

namespace {

/// From whichever end: clients and servers read with the same decoders.
bool is_known(PacketType type, ReasonCode reason) noexcept {
    return is_reason_of(type, reason, false) || is_reason_of(type, reason, true);
}

Refusal unknown_reason(PacketType type) noexcept {
    switch (type) {
        case PacketType::puback: return Refusal::puback_reason_is_unknown;
        case PacketType::pubrec: return Refusal::pubrec_reason_is_unknown;
        case PacketType::pubrel: return Refusal::pubrel_reason_is_unknown;
        default: return Refusal::pubcomp_reason_is_unknown;
    }
}

}  // namespace

Decoded<AckView> decode_ack(PacketType type, std::uint8_t flags, std::string_view body, Version version) {
    const bool is_pubrel = type == PacketType::pubrel;
    if (!are_flags_good(flags, is_pubrel ? 2 : 0, version))
        return refused(is_pubrel ? Refusal::pubrel_flags_are_reserved : Refusal::flags_are_reserved);
    WireReader in(body);
    AckView out;
    out.packet_id = in.u16();
    if (version == Version::v5 && !in.empty()) {
        out.reason = static_cast<ReasonCode>(in.u8());
        if (!in.empty()) {
            PropertyReader properties(in.bytes(in.varint()), place(type));
            for (Property p; properties.next(p);)
                if (p.id == PropertyId::reason_string) out.reason_string = p.text;
            if (properties.failure()) return std::unexpected(*properties.failure());
        }
    }
    if (in.failure()) return std::unexpected(*in.failure());
    if (!in.empty()) return refused(Refusal::bytes_are_left);
    if (out.packet_id == packet_id_none) return refused(Refusal::acknowledged_id_is_zero);
    if (!is_known(type, out.reason)) return refused(unknown_reason(type));
    return out;
}

Decoded<SubscribeView> decode_subscribe(std::uint8_t flags, std::string_view body, Version version) {
    if (!are_flags_good(flags, 2, version)) return refused(Refusal::subscribe_flags_are_reserved);
    WireReader in(body);
    SubscribeView out;
    out.packet_id = in.u16();
    PropertyReader properties(property_block(in, version), place(PacketType::subscribe));
    for (Property p; properties.next(p);)
        if (p.id == PropertyId::subscription_identifier) out.subscription_id = p.number;
        else if (p.text == trace_property) out.trace_parent = p.value;   // only a user property is there beside
    if (properties.failure()) return std::unexpected(*properties.failure());
    while (!in.empty() && !in.failure()) {
        SubscriptionView entry;
        entry.filter = in.utf8();
        const auto options = in.u8();
        if (in.failure()) break;
        const bool is_qos_3 = (options & 3) == 3;
        if (version == Version::v5) {
            if ((options & 0xC0) != 0) return refused(Refusal::subscription_options_are_reserved);
            if (is_qos_3) return refused(Refusal::subscription_qos_is_3);
            entry.no_local = (options & 4) != 0;
            entry.retain_as_published = (options & 8) != 0;
            entry.retain_handling = options >> 4 & 3;
            if (entry.retain_handling == 3) return refused(Refusal::retain_handling_is_3);
        } else if (is_qos_3 || ((options & 0xFC) != 0 && version == Version::v311)) {
            return refused(Refusal::requested_qos_is_unknown);
        }
        entry.qos = static_cast<Qos>(options & 3);
        out.entries.push_back(entry);
    }
    if (in.failure()) return std::unexpected(*in.failure());
    if (out.packet_id == packet_id_none) return refused(Refusal::packet_id_is_zero);
    if (out.entries.empty()) return refused(Refusal::subscribe_is_empty);
    return out;
}

Decoded<UnsubscribeView> decode_unsubscribe(std::uint8_t flags, std::string_view body, Version version) {
    if (!are_flags_good(flags, 2, version)) return refused(Refusal::unsubscribe_flags_are_reserved);
    WireReader in(body);
    UnsubscribeView out;
    out.packet_id = in.u16();
    PropertyReader properties(property_block(in, version), place(PacketType::unsubscribe));
    for (Property p; properties.next(p);)
        if (p.text == trace_property) out.trace_parent = p.value;
    if (properties.failure()) return std::unexpected(*properties.failure());
    while (!in.empty() && !in.failure()) out.filters.push_back(in.utf8());
    if (in.failure()) return std::unexpected(*in.failure());
    if (out.packet_id == packet_id_none) return refused(Refusal::packet_id_is_zero);
    if (out.filters.empty()) return refused(Refusal::unsubscribe_is_empty);
    return out;
}

Decoded<DisconnectView> decode_disconnect(std::uint8_t flags, std::string_view body, Version version) {
    if (!are_flags_good(flags, 0, version)) return refused(Refusal::disconnect_flags_are_reserved);
    DisconnectView out;
    WireReader in(body);
    if (version == Version::v5 && !in.empty()) {
        out.reason = static_cast<ReasonCode>(in.u8());
        if (!in.empty()) {
            PropertyReader properties(in.bytes(in.varint()), place(PacketType::disconnect));
            for (Property p; properties.next(p);) {
                if (p.id == PropertyId::session_expiry_interval) out.session_expiry_interval = p.number;
                else if (p.id == PropertyId::reason_string) out.reason_string = p.text;
                else if (p.id == PropertyId::server_reference) out.server_reference = p.text;
            }
            if (properties.failure()) return std::unexpected(*properties.failure());
        }
    }
    if (in.failure()) return std::unexpected(*in.failure());
    if (!in.empty()) return refused(Refusal::bytes_are_left);
    if (version == Version::v5 && !is_known(PacketType::disconnect, out.reason))
        return refused(Refusal::disconnect_reason_is_unknown);
    return out;
}

Decoded<AuthView> decode_auth(std::uint8_t flags, std::string_view body) {
    if (flags != 0) return refused(Refusal::auth_flags_are_reserved);
    AuthView out;
    WireReader in(body);
    if (!in.empty()) {
        out.reason = static_cast<ReasonCode>(in.u8());
        if (!in.empty()) {
            PropertyReader properties(in.bytes(in.varint()), place(PacketType::auth));
            for (Property p; properties.next(p);) {
                if (p.id == PropertyId::authentication_method) out.method = p.text;
                else if (p.id == PropertyId::authentication_data) out.data = p.text;
                else if (p.id == PropertyId::reason_string) out.reason_string = p.text;
            }
            if (properties.failure()) return std::unexpected(*properties.failure());
        }
    }
    if (in.failure()) return std::unexpected(*in.failure());
    if (!in.empty()) return refused(Refusal::bytes_are_left);
    if (!is_known(PacketType::auth, out.reason)) return refused(Refusal::auth_reason_is_unknown);
    return out;
}

Decoded<ConnackView> decode_connack(std::string_view body, Version version) {
    WireReader in(body);
    ConnackView out;
    const auto flags = in.u8();
    out.code = in.u8();
    if ((flags & 0xFE) != 0) return refused(Refusal::connack_flags_are_reserved);
    out.session_present = (flags & 1) != 0;
    out.reason = static_cast<ReasonCode>(out.code);
    PropertyReader properties(property_block(in, version), place(PacketType::connack));
    for (Property p; properties.next(p);) {
        switch (p.id) {
            case PropertyId::session_expiry_interval: out.session_expiry_interval = p.number, out.has_session_expiry = true; break;
            case PropertyId::receive_maximum: out.receive_maximum = static_cast<std::uint16_t>(p.number); break;
            case PropertyId::maximum_qos: out.maximum_qos = static_cast<std::uint8_t>(p.number); break;
            case PropertyId::retain_available: out.retain_available = p.number == 1; break;
            case PropertyId::maximum_packet_size: out.maximum_packet_size = p.number; break;
            case PropertyId::assigned_client_identifier: out.assigned_client_id = p.text; break;
            case PropertyId::topic_alias_maximum: out.topic_alias_maximum = static_cast<std::uint16_t>(p.number); break;
            case PropertyId::reason_string: out.reason_string = p.text; break;
            case PropertyId::server_keep_alive: out.server_keep_alive = static_cast<std::uint16_t>(p.number); break;
            case PropertyId::response_information: out.response_information = p.text; break;
            case PropertyId::subscription_identifier_available: out.subscription_ids_available = p.number == 1; break;
            default: break;
        }
    }
    if (properties.failure()) return std::unexpected(*properties.failure());
    if (in.failure()) return std::unexpected(*in.failure());
    return out;
}

Decoded<SubackView> decode_suback(std::string_view body, Version version, bool unsuback) {
    WireReader in(body);
    SubackView out;
    out.packet_id = in.u16();
    PropertyReader properties(property_block(in, version), place(unsuback ? PacketType::unsuback : PacketType::suback));
    for (Property p; properties.next(p);)
        if (p.id == PropertyId::reason_string) out.reason_string = p.text;
    if (properties.failure()) return std::unexpected(*properties.failure());
    while (!in.empty() && !in.failure()) out.reasons.push_back(static_cast<ReasonCode>(in.u8()));
    if (in.failure()) return std::unexpected(*in.failure());
    return out;
}

}  // namespace penstock::mqtt
