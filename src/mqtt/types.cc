#include "mqtt/types.h"

#include <algorithm>
#include <array>

namespace penstock::mqtt {
namespace {

using enum ReasonCode;

/// Where a reason code may stand: one bit for packets that share a table.
using Packets = unsigned;
constexpr Packets connack = 1, received = 2, released = 4, suback = 8, unsuback = 16;
constexpr Packets disconnect = 32, auth = 64;
constexpr Packets in_general = connack | received | suback | unsuback | disconnect;
constexpr std::uint8_t none = 0xFF;   // version 3 has no such code

/// One reason code: its name, the packets in which a server and a client may send it, and what version 3's
/// CONNACK calls it.
/// MQTT 5.0 Table 2-6 and the tables of §3.2.2.2, §3.4.2.1 to §3.7.2.1, §3.9.3, §3.11.3, §3.14.2.1, §3.15.2.1.
struct ReasonRule {
    ReasonCode code{};
    std::string_view name;
    Packets server = 0, client = 0;
    std::uint8_t v3 = none;
};

constexpr std::array<ReasonRule, 43> rules{{
    {success, "success", connack | received | released | suback | unsuback | disconnect | auth,
     received | released | disconnect, 0},
    {granted_qos_1, "granted-qos-1", suback},
    {granted_qos_2, "granted-qos-2", suback},
    {disconnect_with_will, "disconnect-with-will-message", 0, disconnect},
    {no_matching_subscribers, "no-matching-subscribers", received, received},
    {no_subscription_existed, "no-subscription-existed", unsuback},
    {continue_authentication, "continue-authentication", auth, auth},
    {reauthenticate, "re-authenticate", 0, auth},
    {unspecified_error, "unspecified-error", in_general, received | disconnect, 3},
    {malformed_packet, "malformed-packet", connack | disconnect, disconnect},
    {protocol_error, "protocol-error", connack | disconnect, disconnect},
    {implementation_specific_error, "implementation-specific-error", in_general, received | disconnect, 3},
    {unsupported_protocol_version, "unsupported-protocol-version", connack, 0, 1},
    {client_identifier_not_valid, "client-identifier-not-valid", connack, 0, 2},
    {bad_user_name_or_password, "bad-user-name-or-password", connack, 0, 4},
    {not_authorized, "not-authorized", in_general, received, 5},
    {server_unavailable, "server-unavailable", connack, 0, 3},
    {server_busy, "server-busy", connack | disconnect, 0, 3},
    {banned, "banned", connack, 0, 5},
    {server_shutting_down, "server-shutting-down", disconnect, 0, 3},
    {bad_authentication_method, "bad-authentication-method", connack, 0, 5},
    {keep_alive_timeout, "keep-alive-timeout", disconnect},
    {session_taken_over, "session-taken-over", disconnect},
    {topic_filter_invalid, "topic-filter-invalid", suback | unsuback | disconnect},
    {topic_name_invalid, "topic-name-invalid", connack | received | disconnect, received | disconnect},
    {packet_identifier_in_use, "packet-identifier-in-use", received | suback | unsuback, received},
    {packet_identifier_not_found, "packet-identifier-not-found", released, released},
    {receive_maximum_exceeded, "receive-maximum-exceeded", disconnect, disconnect},
    {topic_alias_invalid, "topic-alias-invalid", disconnect, disconnect},
    {packet_too_large, "packet-too-large", connack | disconnect, disconnect},
    {message_rate_too_high, "message-rate-too-high", disconnect, disconnect},
    {quota_exceeded, "quota-exceeded", connack | received | suback | disconnect, received | disconnect, 3},
    {administrative_action, "administrative-action", disconnect, disconnect, 3},
    {payload_format_invalid, "payload-format-invalid", connack | received | disconnect,
     received | disconnect},
    {retain_not_supported, "retain-not-supported", connack | disconnect},
    {qos_not_supported, "qos-not-supported", connack | disconnect},
    {use_another_server, "use-another-server", connack | disconnect, 0, 3},
    {server_moved, "server-moved", connack | disconnect, 0, 3},
    {shared_subscriptions_not_supported, "shared-subscriptions-not-supported", suback | disconnect},
    {connection_rate_exceeded, "connection-rate-exceeded", connack | disconnect, 0, 3},
    {maximum_connect_time, "maximum-connect-time", disconnect, 0, 3},
    {subscription_identifiers_not_supported, "subscription-identifiers-not-supported", suback | disconnect},
    {wildcard_subscriptions_not_supported, "wildcard-subscriptions-not-supported", suback | disconnect},
}};
static_assert(std::ranges::is_sorted(rules, {}, &ReasonRule::code), "looked up by bisection");

const ReasonRule* find_rule(ReasonCode code) noexcept {
    const auto at = std::ranges::lower_bound(rules, code, {}, &ReasonRule::code);
    return at != rules.end() && at->code == code ? &*at : nullptr;
}

Packets table_of(PacketType packet) noexcept {
    switch (packet) {
        case PacketType::connack: return connack;
        case PacketType::puback:
        case PacketType::pubrec: return received;
        case PacketType::pubrel:
        case PacketType::pubcomp: return released;
        case PacketType::suback: return suback;
        case PacketType::unsuback: return unsuback;
        case PacketType::disconnect: return disconnect;
        case PacketType::auth: return auth;
        default: return 0;
    }
}

}  // namespace

std::string_view reason_name(ReasonCode code) noexcept {
    const auto* rule = find_rule(code);
    return rule != nullptr ? rule->name : "unknown";
}

bool is_reason_of(PacketType packet, ReasonCode code, bool from_server) noexcept {
    const auto* rule = find_rule(code);
    return rule != nullptr && ((from_server ? rule->server : rule->client) & table_of(packet)) != 0;
}

ReasonCode as_reason_of(PacketType packet, ReasonCode code) noexcept {
    if (is_reason_of(packet, code, true)) return code;
    switch (code) {
        case ReasonCode::server_shutting_down:
        case ReasonCode::administrative_action:
        case ReasonCode::maximum_connect_time: return ReasonCode::server_unavailable;
        case ReasonCode::server_unavailable: return ReasonCode::server_busy;
        case ReasonCode::client_identifier_not_valid:
        case ReasonCode::bad_user_name_or_password:
        case ReasonCode::banned:
        case ReasonCode::bad_authentication_method: return ReasonCode::not_authorized;
        default: return ReasonCode::unspecified_error;
    }
}

std::optional<std::uint8_t> connack_code_v3(ReasonCode code) noexcept {
    const auto* rule = find_rule(code);
    return rule == nullptr || rule->v3 == none ? std::nullopt : std::optional(rule->v3);
}

}  // namespace penstock::mqtt
