#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "mqtt/types.h"

namespace penstock::mqtt {

/// What MQTT 5.0 §1.2 and §4.13 tell apart.
enum class FaultKind : std::uint8_t {
    malformed,        ///< the packet cannot be parsed as the specification writes it
    protocol_error,   ///< it was parsed, and says what the protocol or the state of its client does not allow
    other,            ///< its sender broke nothing, or could not know (§4.13.2): limits, rights, a shutdown
};

/// Why a packet is not taken or a connection ends: a row of the table in refusal.cc, which says all else.
enum class Refusal : std::uint8_t {
    // any packet
    packet_is_short, bytes_are_left, length_is_padded, length_is_long, varint_is_padded, varint_is_long,
    text_is_not_utf8, text_has_nul, flags_are_reserved, packet_type_is_reserved, packet_is_not_for_servers,
    packet_id_is_zero, packet_is_too_large, packet_is_over_a_limit,
    // properties
    property_is_unknown, property_is_misplaced, property_is_repeated, property_is_out_of_range,
    // CONNECT
    first_is_not_connect, second_connect, protocol_name_is_not_mqtt, protocol_version_is_unknown,
    connect_is_short, connect_has_bytes_left, connect_flag_is_reserved, will_qos_without_will,
    will_retain_without_will, will_qos_is_3, password_without_user_name, authentication_data_without_method,
    client_id_is_empty, will_topic_is_empty, will_topic_has_wildcard, will_topic_is_too_deep,
    will_topic_is_the_servers, will_response_topic_has_wildcard, will_qos_is_not_supported,
    connect_fails_checks, too_many_failures, too_many_wait, method_is_not_supported,
    enhanced_authentication_fails, enhanced_authentication_is_late, connect_is_late, session_is_taken_over,
    keep_alive_is_over, answer_is_too_large,
    // CONNACK, as a client reads it
    connack_flags_are_reserved,
    // AUTH
    auth_flags_are_reserved, auth_reason_is_unknown, only_auth_may_follow, auth_without_method,
    auth_method_differs, auth_must_continue, reauthentication_method_differs, reauthentication_must_begin,
    reauthentication_fails,
    // PUBLISH
    qos_is_3, dup_with_qos_0, subscription_id_from_client, topic_alias_is_zero, topic_alias_is_over_maximum,
    topic_alias_is_not_taken, topic_alias_is_not_set, topic_is_empty, topic_has_wildcard, topic_is_too_deep,
    response_topic_has_wildcard, response_topic_is_not_answered, qos_is_not_supported, too_many_open_qos_2,
    payload_is_not_as_indicated,
    // PUBACK, PUBREC, PUBREL, PUBCOMP
    pubrel_flags_are_reserved, acknowledged_id_is_zero, puback_reason_is_unknown, pubrec_reason_is_unknown,
    pubrel_reason_is_unknown, pubcomp_reason_is_unknown, acknowledgement_is_out_of_order,
    // SUBSCRIBE, UNSUBSCRIBE
    subscribe_flags_are_reserved, unsubscribe_flags_are_reserved, subscription_options_are_reserved,
    requested_qos_is_unknown, subscription_qos_is_3, retain_handling_is_3, no_local_is_shared,
    subscribe_is_empty, unsubscribe_is_empty, filter_is_empty, filter_has_hash_within, filter_has_plus_within,
    subscription_ids_are_not_supported, too_many_retained_are_asked_for,
    // DISCONNECT
    disconnect_flags_are_reserved, disconnect_reason_is_unknown, disconnect_raises_session_expiry,
    // the server's own
    pool_is_full, too_much_is_under_way, rules_changed, credential_is_over, listener_is_removed,
    server_shuts_down,
};
inline constexpr std::size_t refusal_count = static_cast<std::size_t>(Refusal::server_shuts_down) + 1;

/// One row. A citation is a normative statement of that version (`MQTT-3.1.0-1`, `MQTT311-3.1.0-1`;
/// docs/spec lists them), or, where none says it, the section that does (`MQTT311-section-3.1.4`; of MQTT
/// 3.1, which numbers no statements, always). Empty: it cannot happen in that version, or the version has
/// no word about it.
struct RefusalRule {
    Refusal refusal{};
    FaultKind kind{};
    ReasonCode reason{};              ///< what version 5 is told; what logs and metrics say in all versions
    std::string_view v5, v311, v31;   ///< citations
    std::string_view text;            ///< a sentence for people
};

const RefusalRule& rule_of(Refusal refusal) noexcept;
/// The citation of the version that the client speaks.
std::string_view statement_of(Refusal refusal, Version version) noexcept;

}  // namespace penstock::mqtt
