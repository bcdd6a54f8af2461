#include "mqtt/property.h"

#include <algorithm>

#include "base/text.h"

namespace penstock::mqtt {
namespace {

using enum PacketType;

template <class... Types>
constexpr PropertyPlace in(Types... types) noexcept {
    return (place(types) | ...);
}

constexpr PropertyPlace acks = in(puback, pubrec, pubrel, pubcomp, suback, unsuback);

constexpr std::array rules{
    PropertyRule{PropertyId::payload_format_indicator, "payload-format-indicator", WireType::u8, in(publish) | will_place, 0},
    PropertyRule{PropertyId::message_expiry_interval, "message-expiry-interval", WireType::u32, in(publish) | will_place, 0},
    PropertyRule{PropertyId::content_type, "content-type", WireType::text, in(publish) | will_place, 0},
    PropertyRule{PropertyId::response_topic, "response-topic", WireType::text, in(publish) | will_place, 0},
    PropertyRule{PropertyId::correlation_data, "correlation-data", WireType::binary, in(publish) | will_place, 0},
    PropertyRule{PropertyId::subscription_identifier, "subscription-identifier", WireType::varint, in(publish, subscribe), in(publish)},
    PropertyRule{PropertyId::session_expiry_interval, "session-expiry-interval", WireType::u32, in(connect, connack, disconnect), 0},
    PropertyRule{PropertyId::assigned_client_identifier, "assigned-client-identifier", WireType::text, in(connack), 0},
    PropertyRule{PropertyId::server_keep_alive, "server-keep-alive", WireType::u16, in(connack), 0},
    PropertyRule{PropertyId::authentication_method, "authentication-method", WireType::text, in(connect, connack, auth), 0},
    PropertyRule{PropertyId::authentication_data, "authentication-data", WireType::binary, in(connect, connack, auth), 0},
    PropertyRule{PropertyId::request_problem_information, "request-problem-information", WireType::u8, in(connect), 0},
    PropertyRule{PropertyId::will_delay_interval, "will-delay-interval", WireType::u32, will_place, 0},
    PropertyRule{PropertyId::request_response_information, "request-response-information", WireType::u8, in(connect), 0},
    PropertyRule{PropertyId::response_information, "response-information", WireType::text, in(connack), 0},
    PropertyRule{PropertyId::server_reference, "server-reference", WireType::text, in(connack, disconnect), 0},
    PropertyRule{PropertyId::reason_string, "reason-string", WireType::text, acks | in(connack, disconnect, auth), 0},
    PropertyRule{PropertyId::receive_maximum, "receive-maximum", WireType::u16, in(connect, connack), 0},
    PropertyRule{PropertyId::topic_alias_maximum, "topic-alias-maximum", WireType::u16, in(connect, connack), 0},
    PropertyRule{PropertyId::topic_alias, "topic-alias", WireType::u16, in(publish), 0},
    PropertyRule{PropertyId::maximum_qos, "maximum-qos", WireType::u8, in(connack), 0},
    PropertyRule{PropertyId::retain_available, "retain-available", WireType::u8, in(connack), 0},
    PropertyRule{PropertyId::user_property, "user-property", WireType::text_pair,
                 acks | will_place | in(connect, connack, publish, subscribe, unsubscribe, disconnect, auth),
                 acks | will_place | in(connect, connack, publish, subscribe, unsubscribe, disconnect, auth)},
    PropertyRule{PropertyId::maximum_packet_size, "maximum-packet-size", WireType::u32, in(connect, connack), 0},
    PropertyRule{PropertyId::wildcard_subscription_available, "wildcard-subscription-available", WireType::u8, in(connack), 0},
    PropertyRule{PropertyId::subscription_identifier_available, "subscription-identifier-available", WireType::u8, in(connack), 0},
    PropertyRule{PropertyId::shared_subscription_available, "shared-subscription-available", WireType::u8, in(connack), 0},
};
static_assert(std::ranges::is_sorted(rules, {}, &PropertyRule::id), "looked up by bisection");

/// The values that §3 of the specification calls a Protocol Error whatever the rest of the packet says.
bool value_out_of_range(const Property& p) noexcept {
    switch (p.id) {
        case PropertyId::payload_format_indicator:
        case PropertyId::request_problem_information:
        case PropertyId::request_response_information:
        case PropertyId::maximum_qos:
        case PropertyId::retain_available:
        case PropertyId::wildcard_subscription_available:
        case PropertyId::subscription_identifier_available:
        case PropertyId::shared_subscription_available: return p.number > 1;
        case PropertyId::receive_maximum:
        case PropertyId::maximum_packet_size:
        case PropertyId::subscription_identifier: return p.number == 0;
        default: return false;
    }
}

}  // namespace

const PropertyRule* find_property_rule(std::uint8_t id) noexcept {
    const auto at = std::ranges::lower_bound(rules, static_cast<PropertyId>(id), {}, &PropertyRule::id);
    return at != rules.end() && at->id == static_cast<PropertyId>(id) ? &*at : nullptr;
}

const PropertyRule* find_property_rule(std::string_view name) noexcept {
    const auto at = std::ranges::find(rules, name, &PropertyRule::name);
    return at != rules.end() ? &*at : nullptr;
}

bool PropertyReader::next(Property& out) noexcept {
    if (in_.failure() || in_.empty()) return false;
    const auto id = in_.u8();
    const auto* rule = find_property_rule(id);
    if (rule == nullptr) {
        in_.fail(Refusal::property_is_unknown);
        return false;
    }
    if ((rule->allowed & where_) == 0) {
        in_.fail(Refusal::property_is_misplaced);
        return false;
    }
    const auto bit = std::uint64_t{1} << id;
    if ((seen_ & bit) != 0 && (rule->repeatable & where_) == 0) {
        in_.fail(Refusal::property_is_repeated);
        return false;
    }
    seen_ |= bit;
    out = {};
    out.id = rule->id;
    switch (rule->type) {
        case WireType::u8: out.number = in_.u8(); break;
        case WireType::u16: out.number = in_.u16(); break;
        case WireType::u32: out.number = in_.u32(); break;
        case WireType::varint: out.number = in_.varint(); break;
        case WireType::binary: out.text = in_.binary(); break;
        case WireType::text: out.text = in_.utf8(); break;
        case WireType::text_pair:
            out.text = in_.utf8();
            out.value = in_.utf8();
            break;
    }
    if (in_.failure()) return false;
    if (value_out_of_range(out)) {
        in_.fail(Refusal::property_is_out_of_range);
        return false;
    }
    return true;
}

void write_property(std::string& out, PropertyId id, std::uint32_t number) {
    WireWriter w(out);
    w.u8(static_cast<std::uint8_t>(id));
    switch (find_property_rule(static_cast<std::uint8_t>(id))->type) {
        case WireType::u8: w.u8(static_cast<std::uint8_t>(number)); break;
        case WireType::u16: w.u16(static_cast<std::uint16_t>(number)); break;
        case WireType::varint: w.varint(number); break;
        default: w.u32(number); break;
    }
}

void write_reason_string(std::string& out, std::string_view text) {
    constexpr std::size_t bytes_max = 1024;
    write_property(out, PropertyId::reason_string, clipped(printable(clipped(text, bytes_max)), bytes_max));
}

void write_property(std::string& out, PropertyId id, std::string_view text) {
    WireWriter w(out);
    w.u8(static_cast<std::uint8_t>(id));
    w.text(text);
}

void write_user_property(std::string& out, std::string_view name, std::string_view value) {
    write_property(out, PropertyId::user_property, name);
    WireWriter(out).text(value);
}

void write_properties(std::string& out, const PropertyList& list) {
    for (const auto& p : list) {
        switch (find_property_rule(static_cast<std::uint8_t>(p.id))->type) {
            case WireType::text_pair: write_user_property(out, p.text, p.value); break;
            case WireType::binary:
            case WireType::text: write_property(out, p.id, p.text); break;
            default: write_property(out, p.id, p.number); break;
        }
    }
}

}  // namespace penstock::mqtt
