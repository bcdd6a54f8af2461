#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::mqtt {

/// Protocol version byte of CONNECT. 3 is MQIsdp (MQTT 3.1), 4 is 3.1.1, 5 is 5.0.
enum class Version : std::uint8_t { v31 = 3, v311 = 4, v5 = 5 };

/// MQTT 5.0 §2.1.2, Table 2-1.
enum class PacketType : std::uint8_t {
    reserved = 0, connect, connack, publish, puback, pubrec, pubrel, pubcomp, subscribe, suback, unsubscribe, unsuback,
    pingreq, pingresp, disconnect, auth
};

enum class Qos : std::uint8_t { at_most_once = 0, at_least_once = 1, exactly_once = 2 };

/// MQTT 5.0 §2.4, Table 2-6.
enum class ReasonCode : std::uint8_t {
    success = 0x00,
    granted_qos_1 = 0x01,
    granted_qos_2 = 0x02,
    disconnect_with_will = 0x04,
    no_matching_subscribers = 0x10,
    no_subscription_existed = 0x11,
    continue_authentication = 0x18,
    reauthenticate = 0x19,
    unspecified_error = 0x80,
    malformed_packet = 0x81,
    protocol_error = 0x82,
    implementation_specific_error = 0x83,
    unsupported_protocol_version = 0x84,
    client_identifier_not_valid = 0x85,
    bad_user_name_or_password = 0x86,
    not_authorized = 0x87,
    server_unavailable = 0x88,
    server_busy = 0x89,
    banned = 0x8A,
    server_shutting_down = 0x8B,
    bad_authentication_method = 0x8C,
    keep_alive_timeout = 0x8D,
    session_taken_over = 0x8E,
    topic_filter_invalid = 0x8F,
    topic_name_invalid = 0x90,
    packet_identifier_in_use = 0x91,
    packet_identifier_not_found = 0x92,
    receive_maximum_exceeded = 0x93,
    topic_alias_invalid = 0x94,
    packet_too_large = 0x95,
    message_rate_too_high = 0x96,
    quota_exceeded = 0x97,
    administrative_action = 0x98,
    payload_format_invalid = 0x99,
    retain_not_supported = 0x9A,
    qos_not_supported = 0x9B,
    use_another_server = 0x9C,
    server_moved = 0x9D,
    shared_subscriptions_not_supported = 0x9E,
    connection_rate_exceeded = 0x9F,
    maximum_connect_time = 0xA0,
    subscription_identifiers_not_supported = 0xA1,
    wildcard_subscriptions_not_supported = 0xA2,
};

constexpr bool is_error(ReasonCode code) noexcept { return static_cast<std::uint8_t>(code) >= 0x80; }
/// The name of the specification in lower case with dashes, as it appears in metrics labels.
std::string_view reason_name(ReasonCode code) noexcept;
/// True when the specification's table for packets of this type (CONNACK, acknowledgements, DISCONNECT, AUTH) has the code, and the
/// sender may use it there: [MQTT-3.2.2-8], [MQTT-3.4.2-1], [MQTT-3.14.2-1] and their like.
bool is_reason_of(PacketType packet, ReasonCode code, bool from_server) noexcept;
/// The code with which a server says `code` in a packet of this type (CONNACK or DISCONNECT): itself where the table has it, else the
/// nearest that is there.
ReasonCode as_reason_of(PacketType packet, ReasonCode code) noexcept;
/// The CONNACK return code of MQTT 3.1 and 3.1.1 (§3.2.2.3) that means a version 5 reason. None: no code of version 3 fits, and the
/// connection is closed without CONNACK [MQTT311-3.2.2-6].
std::optional<std::uint8_t> connack_code_v3(ReasonCode code) noexcept;

inline constexpr std::uint32_t remaining_length_max = 268'435'455;
inline constexpr std::uint16_t packet_id_none = 0;

}  // namespace penstock::mqtt
