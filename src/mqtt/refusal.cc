#include "mqtt/refusal.h"

#include <algorithm>
#include <array>

namespace penstock::mqtt {
namespace {

using enum Refusal;
using Text = std::string_view;

// Malformed Packet or Protocol Error, by MQTT 5.0:
// - §1.2: malformed is what cannot be parsed; what was parsed and is not allowed, or not at this moment, is a
//   Protocol Error.
// - Where a section names one of both, it is that one. Malformed: reserved bits of the fixed header
//   (§2.1.3) and of options (§3.8.3.1), ill-formed texts (§1.5.4), a property of another packet
//   (§2.2.2.2), the reserved flag and a will QoS of 3 in CONNECT (§3.1.2.3, §3.1.2.6), both QoS bits
//   (§3.3.1.2). Protocol Errors: a property given twice or with a value out of its range (§3.1.2.11 and
//   on), an empty list of filters (§3.8.3), subscription QoS 3 and Retain Handling 3 (§3.8.3.1), an empty
//   topic name without an alias (§3.3.2.1).
// - Flag bits that must be zero for what others say (will QoS without a will) are read as reserved bits are.
// - 0x90 Topic Name invalid is for names that are "not malformed" (Tables 3-1 and 3-4) or "correctly formed"
//   (Table 3-10): one with a wildcard is malformed.
// - §4.13.1: a more specific reason code goes before 0x81 and 0x82 (0x93, 0x94, 0x95, 0x9B, 0xA1).

constexpr RefusalRule malformed(Refusal row, Text v5, Text v311, Text v31, Text text) {
    return {row, FaultKind::malformed, ReasonCode::malformed_packet, v5, v311, v31, text};
}
constexpr RefusalRule protocol_error(Refusal row, Text v5, Text v311, Text v31, Text text,
                                     ReasonCode reason = ReasonCode::protocol_error) {
    return {row, FaultKind::protocol_error, reason, v5, v311, v31, text};
}
constexpr RefusalRule other(Refusal row, ReasonCode reason, Text v5, Text v311, Text v31, Text text) {
    return {row, FaultKind::other, reason, v5, v311, v31, text};
}

// Statements that say nothing but that a server closes: after a fault that has none of its own, and after an
// error that its sender could not expect.
constexpr Text fault_v5 = "MQTT-4.13.1-1", fault_v311 = "MQTT311-4.8.0-1";
constexpr Text limit_v5 = "MQTT-section-4.13.2", limit_v311 = "MQTT311-4.8.0-2";
// What CONNECT is held against beyond its form; version 3.1.1 has no number for it.
constexpr Text checks_v5 = "MQTT-3.1.4-2", checks_v311 = "MQTT311-section-3.1.4";
constexpr Text checks_v31 = "MQTT31-section-3.2";
constexpr Text wildcards_v31 = "MQTT31-appendix-A";

constexpr std::array<RefusalRule, refusal_count> rules{{
    malformed(packet_is_short, fault_v5, fault_v311, "MQTT31-section-2.1", "the packet ends inside a field"),
    malformed(bytes_are_left, fault_v5, fault_v311, "MQTT31-section-2.1",
              "bytes are left after the last field"),
    // Version 3 does not ask for the shortest form.
    malformed(length_is_padded, "MQTT-1.5.5-1", "", "", "the remaining length has more bytes than it needs"),
    malformed(length_is_long, fault_v5, fault_v311, "MQTT31-section-2.1",
              "the remaining length has more than four bytes"),
    malformed(varint_is_padded, "MQTT-1.5.5-1", "", "", "a variable byte integer is longer than needed"),
    malformed(varint_is_long, fault_v5, "", "", "a variable byte integer has more than four bytes"),
    malformed(text_is_not_utf8, "MQTT-1.5.4-1", "MQTT311-1.5.3-1", "MQTT31-section-2.5",
              "a text field is not well-formed UTF-8"),
    malformed(text_has_nul, "MQTT-1.5.4-2", "MQTT311-1.5.3-2", "MQTT31-section-2.5",
              "a text field holds U+0000"),
    malformed(flags_are_reserved, "MQTT-2.1.3-1", "MQTT311-2.2.2-2", "",
              "the packet's flags are not those of its type"),
    malformed(packet_type_is_reserved, fault_v5, fault_v311, "MQTT31-section-2.1",
              "there is no packet of type 0"),
    protocol_error(packet_is_not_for_servers, fault_v5, fault_v311, "MQTT31-section-2.1",
                   "this packet type is not for a server"),
    protocol_error(packet_id_is_zero, "MQTT-2.2.1-3", "MQTT311-2.3.1-1", "MQTT31-section-2.4",
                   "the packet identifier is zero"),
    // Version 3 is told no maximum packet size: its packets are over a limit.
    protocol_error(packet_is_too_large, "MQTT-3.2.2-15", "", "",
                   "the packet is larger than the maximum packet size", ReasonCode::packet_too_large),
    other(packet_is_over_a_limit, ReasonCode::packet_too_large, limit_v5, limit_v311, "",
          "the packet is larger than this server takes of its type, or before CONNACK"),

    malformed(property_is_unknown, fault_v5, "", "", "unknown property identifier"),
    malformed(property_is_misplaced, fault_v5, "", "", "this property is not one of this packet's"),
    protocol_error(property_is_repeated, fault_v5, "", "", "a property is given twice"),
    protocol_error(property_is_out_of_range, fault_v5, "", "", "a property value is out of range"),

    protocol_error(first_is_not_connect, "MQTT-3.1.0-1", "MQTT311-3.1.0-1", "MQTT31-section-3.1",
                   "the first packet is not CONNECT"),
    protocol_error(second_connect, "MQTT-3.1.0-2", "MQTT311-3.1.0-2", "MQTT31-section-3.1",
                   "a second CONNECT"),
    other(protocol_name_is_not_mqtt, ReasonCode::unsupported_protocol_version, "MQTT-3.1.2-1",
          "MQTT311-3.1.2-1", "", "the protocol name is not MQTT"),
    other(protocol_version_is_unknown, ReasonCode::unsupported_protocol_version, "MQTT-3.1.2-2",
          "MQTT311-3.1.2-2", "MQTT31-section-3.2",
          "the protocol name or version is not one this server speaks"),
    malformed(connect_is_short, "MQTT-3.1.4-1", "MQTT311-3.1.4-1", "MQTT31-section-3.1",
              "CONNECT ends inside a field"),
    malformed(connect_has_bytes_left, "MQTT-3.1.4-1", "MQTT311-3.1.4-1", "MQTT31-section-3.1",
              "bytes are left after the last field of CONNECT"),
    malformed(connect_flag_is_reserved, "MQTT-3.1.2-3", "MQTT311-3.1.2-3", "",
              "the reserved flag of CONNECT is set"),
    malformed(will_qos_without_will, "MQTT-3.1.2-11", "MQTT311-3.1.2-13", "", "a will QoS without a will"),
    malformed(will_retain_without_will, "MQTT-3.1.2-13", "MQTT311-3.1.2-15", "",
              "will retain without a will"),
    malformed(will_qos_is_3, "MQTT-3.1.2-12", "MQTT311-3.1.2-14", "MQTT31-section-3.1", "will QoS 3"),
    malformed(password_without_user_name, "", "MQTT311-3.1.2-22", "MQTT31-section-3.1",
              "a password without a user name"),
    protocol_error(authentication_data_without_method, fault_v5, "", "",
                   "authentication data without a method"),
    other(client_id_is_empty, ReasonCode::client_identifier_not_valid, "", "MQTT311-3.1.3-8",
          "MQTT31-section-3.1",
          "an empty client identifier needs version 3.1.1 or 5, and clean session 1 in version 3.1.1"),
    malformed(will_topic_is_empty, "MQTT-4.7.3-1", "MQTT311-4.7.3-1", "MQTT31-section-3.1",
              "the will topic is empty"),
    malformed(will_topic_has_wildcard, "MQTT-4.7.0-1", "MQTT311-4.7.1-1", wildcards_v31,
              "the will topic has a wildcard"),
    // Version 3 has no code for these two, and is closed without CONNACK.
    other(will_topic_is_too_deep, ReasonCode::topic_name_invalid, checks_v5, "MQTT311-3.2.2-6", checks_v31,
          "the will topic has too many levels"),
    other(will_topic_is_the_servers, ReasonCode::not_authorized, checks_v5, checks_v311, checks_v31,
          "$SYS belongs to the server; the will topic is there"),
    // The server itself would send it in a PUBLISH.
    protocol_error(will_response_topic_has_wildcard, "MQTT-3.3.2-14", "", "",
                   "the response topic of the will has a wildcard"),
    other(will_qos_is_not_supported, ReasonCode::qos_not_supported, "MQTT-3.2.2-12", "MQTT311-3.2.2-6",
          checks_v31, "a will of QoS 2 is not supported"),
    other(connect_fails_checks, ReasonCode::not_authorized, checks_v5, checks_v311, checks_v31,
          "the client may not connect"),
    other(too_many_failures, ReasonCode::connection_rate_exceeded, checks_v5, checks_v311, checks_v31,
          "too many failed attempts from this address; retry in a few seconds"),
    other(too_many_wait, ReasonCode::server_busy, limit_v5, limit_v311, checks_v31,
          "too many clients wait to be authenticated; retry later"),
    other(method_is_not_supported, ReasonCode::bad_authentication_method, "MQTT-4.12.0-1", "", "",
          "this listener has no enhanced authentication"),
    other(enhanced_authentication_fails, ReasonCode::not_authorized, "MQTT-4.12.0-4", "", "",
          "the authentication failed"),
    other(enhanced_authentication_is_late, ReasonCode::not_authorized, "MQTT-4.12.0-4", "", "",
          "the client did not go on with its authentication in time"),
    other(connect_is_late, ReasonCode::maximum_connect_time, "MQTT-section-3.1.4", checks_v311,
          "MQTT31-section-3.1", "no CONNECT arrived in time"),
    other(session_is_taken_over, ReasonCode::session_taken_over, "MQTT-3.1.4-3", "MQTT311-3.1.4-2",
          "MQTT31-section-3.1", "another connection took the session over"),
    other(keep_alive_is_over, ReasonCode::keep_alive_timeout, "MQTT-3.1.2-22", "MQTT311-3.1.2-24",
          "MQTT31-section-3.1", "nothing was received within one and a half keep alive intervals"),
    other(answer_is_too_large, ReasonCode::packet_too_large, "MQTT-3.1.2-24", "", "",
          "the answer is larger than the client's maximum packet size"),

    malformed(connack_flags_are_reserved, "MQTT-3.2.2-1", "MQTT311-section-3.2.2.1", "MQTT31-section-3.2",
              "reserved bits of the acknowledge flags are set"),

    malformed(auth_flags_are_reserved, "MQTT-3.15.1-1", "", "", "the flags of AUTH are not zero"),
    protocol_error(auth_reason_is_unknown, "MQTT-3.15.2-1", "", "", "the reason code is not one of AUTH's"),
    protocol_error(only_auth_may_follow, "MQTT-3.1.2-30", "", "",
                   "only AUTH may follow while authentication is under way"),
    protocol_error(auth_without_method, "MQTT-4.12.0-7", "", "",
                   "AUTH without an authentication method in CONNECT"),
    protocol_error(auth_method_differs, "MQTT-4.12.0-5", "", "",
                   "the authentication method is not that of CONNECT"),
    protocol_error(auth_must_continue, "MQTT-4.12.0-3", "", "",
                   "AUTH must continue the authentication (0x18)"),
    protocol_error(reauthentication_method_differs, "MQTT-4.12.1-1", "", "",
                   "the authentication method is not that of CONNECT"),
    protocol_error(reauthentication_must_begin, fault_v5, "", "",
                   "AUTH after CONNACK must begin re-authentication (0x19)"),
    other(reauthentication_fails, ReasonCode::not_authorized, "MQTT-4.12.1-2", "", "",
          "re-authentication failed"),

    malformed(qos_is_3, "MQTT-3.3.1-4", "MQTT311-3.3.1-4", "MQTT31-section-2.1", "both QoS bits are set"),
    malformed(dup_with_qos_0, "MQTT-3.3.1-2", "MQTT311-3.3.1-2", "", "DUP is set on a QoS 0 message"),
    protocol_error(subscription_id_from_client, "MQTT-3.3.4-6", "", "",
                   "a client sent a subscription identifier"),
    protocol_error(topic_alias_is_zero, "MQTT-3.3.2-8", "", "", "topic alias 0",
                   ReasonCode::topic_alias_invalid),
    protocol_error(topic_alias_is_over_maximum, "MQTT-3.3.2-9", "", "",
                   "the topic alias is above the maximum", ReasonCode::topic_alias_invalid),
    protocol_error(topic_alias_is_not_taken, "MQTT-3.2.2-18", "", "", "this server takes no topic aliases",
                   ReasonCode::topic_alias_invalid),
    protocol_error(topic_alias_is_not_set, fault_v5, "", "", "the topic alias is not set"),
    protocol_error(topic_is_empty, "MQTT-4.7.3-1", "MQTT311-4.7.3-1", "MQTT31-section-3.3",
                   "the topic name is empty"),
    malformed(topic_has_wildcard, "MQTT-3.3.2-2", "MQTT311-3.3.2-2", "MQTT31-section-3.3",
              "the topic name has a wildcard"),
    // Version 3 can only be closed when a publication is not taken.
    other(topic_is_too_deep, ReasonCode::topic_name_invalid, "MQTT-section-3.14.2.1", "MQTT311-3.3.5-2",
          "MQTT31-section-3.3", "the topic name has too many levels"),
    protocol_error(response_topic_has_wildcard, "MQTT-3.3.2-14", "", "", "the response topic has a wildcard"),
    other(response_topic_is_not_answered, ReasonCode::implementation_specific_error, "MQTT-section-3.14.2.1",
          "", "", "the state store does not answer to this response topic"),
    protocol_error(qos_is_not_supported, "MQTT-3.2.2-11", "MQTT311-3.3.5-2", "MQTT31-section-3.3",
                   "QoS 2 is not supported (AIO compatibility)", ReasonCode::qos_not_supported),
    // Version 3 is not told how many.
    protocol_error(too_many_open_qos_2, "MQTT-3.3.4-7", limit_v311, "",
                   "more QoS 2 messages without PUBREL than the server takes",
                   ReasonCode::receive_maximum_exceeded),
    other(payload_is_not_as_indicated, ReasonCode::payload_format_invalid, "MQTT-section-3.3.2.3.2", "", "",
          "the payload is not UTF-8 as its format indicator says"),

    malformed(pubrel_flags_are_reserved, "MQTT-3.6.1-1", "MQTT311-3.6.1-1", "MQTT31-section-3.6",
              "the flags of PUBREL are not 0010"),
    protocol_error(acknowledged_id_is_zero, "MQTT-2.2.1-5", "MQTT311-2.3.1-6", "MQTT31-section-2.4",
                   "the packet identifier is zero"),
    protocol_error(puback_reason_is_unknown, "MQTT-3.4.2-1", "", "",
                   "the reason code is not one of PUBACK's"),
    protocol_error(pubrec_reason_is_unknown, "MQTT-3.5.2-1", "", "",
                   "the reason code is not one of PUBREC's"),
    protocol_error(pubrel_reason_is_unknown, "MQTT-3.6.2-1", "", "",
                   "the reason code is not one of PUBREL's"),
    protocol_error(pubcomp_reason_is_unknown, "MQTT-3.7.2-1", "", "",
                   "the reason code is not one of PUBCOMP's"),
    protocol_error(acknowledgement_is_out_of_order, fault_v5, fault_v311, "MQTT31-section-4.1",
                   "this acknowledgement is not the next packet of its exchange"),

    malformed(subscribe_flags_are_reserved, "MQTT-3.8.1-1", "MQTT311-3.8.1-1", "MQTT31-section-3.8",
              "the flags of SUBSCRIBE are not 0010"),
    malformed(unsubscribe_flags_are_reserved, "MQTT-3.10.1-1", "MQTT311-3.10.1-1", "MQTT31-section-3.10",
              "the flags of UNSUBSCRIBE are not 0010"),
    malformed(subscription_options_are_reserved, "MQTT-3.8.3-5", "", "",
              "reserved bits of the subscription options are set"),
    malformed(requested_qos_is_unknown, "", "MQTT311-3.8.3-4", "MQTT31-section-3.8",
              "the requested QoS is 3 or has reserved bits set"),
    protocol_error(subscription_qos_is_3, fault_v5, "", "", "subscription QoS 3"),
    protocol_error(retain_handling_is_3, fault_v5, "", "", "retain handling 3"),
    protocol_error(no_local_is_shared, "MQTT-3.8.3-4", "", "", "No Local on a shared subscription"),
    protocol_error(subscribe_is_empty, "MQTT-3.8.3-2", "MQTT311-3.8.3-3", "MQTT31-section-3.8",
                   "SUBSCRIBE without a topic filter"),
    protocol_error(unsubscribe_is_empty, "MQTT-3.10.3-2", "MQTT311-3.10.3-2", "MQTT31-section-3.10",
                   "UNSUBSCRIBE without a topic filter"),
    // Version 5 refuses each filter for itself, in SUBACK or UNSUBACK; version 3 has no answer but the end.
    malformed(filter_is_empty, "", "MQTT311-4.7.3-1", wildcards_v31, "a topic filter is empty"),
    malformed(filter_has_hash_within, "", "MQTT311-4.7.1-2", wildcards_v31,
              "a topic filter has a # that is not its last level"),
    malformed(filter_has_plus_within, "", "MQTT311-4.7.1-3", wildcards_v31,
              "a topic filter has a + that is no whole level"),
    protocol_error(subscription_ids_are_not_supported, fault_v5, "", "",
                   "subscription identifiers are not available (AIO compatibility)",
                   ReasonCode::subscription_identifiers_not_supported),
    other(too_many_retained_are_asked_for, ReasonCode::quota_exceeded, limit_v5, limit_v311, "",
          "more retained messages were asked for than are read"),

    malformed(disconnect_flags_are_reserved, "MQTT-3.14.1-1", "MQTT311-3.14.1-1", "",
              "the flags of DISCONNECT are not zero"),
    protocol_error(disconnect_reason_is_unknown, "MQTT-3.14.2-1", "", "",
                   "the reason code is none that a client disconnects with"),
    protocol_error(disconnect_raises_session_expiry, fault_v5, "", "",
                   "DISCONNECT raises a session expiry of zero"),

    other(pool_is_full, ReasonCode::quota_exceeded, limit_v5, limit_v311, "",
          "the message pool is full; retry later"),
    other(too_much_is_under_way, ReasonCode::quota_exceeded, limit_v5, limit_v311, "",
          "too much is under way from those whose CONNECT is not complete"),
    other(rules_changed, ReasonCode::not_authorized, "MQTT-section-5.4.8", "MQTT311-section-5.4.8", "",
          "the rules changed"),
    other(credential_is_over, ReasonCode::not_authorized, "MQTT-section-5.4.10", "MQTT311-section-5.4.9", "",
          "the credential has expired; authenticate anew"),
    // Version 3 has no word about a server that ends a connection for its own reasons.
    other(listener_is_removed, ReasonCode::administrative_action, "MQTT-section-3.14.2.1", "", "",
          "the listener was removed"),
    other(server_shuts_down, ReasonCode::server_shutting_down, "MQTT-section-3.14.2.1", "", "",
          "the server is shutting down"),
}};

/// In the order of the enumeration; with 0x81 and 0x82 where the kind says so, and nowhere else.
constexpr bool is_in_order() {
    for (std::size_t i = 0; i < rules.size(); ++i) {
        const auto& rule = rules[i];
        if (rule.refusal != static_cast<Refusal>(i) || rule.text.empty()) return false;
        if (rule.v5.empty() && rule.v311.empty()) return false;
        const bool is_malformed = rule.kind == FaultKind::malformed;
        if ((rule.reason == ReasonCode::malformed_packet) != is_malformed) return false;
        if (rule.reason == ReasonCode::protocol_error && rule.kind != FaultKind::protocol_error) return false;
    }
    return true;
}
static_assert(is_in_order(), "looked up by its place; the reason code follows from the kind");

}  // namespace

const RefusalRule& rule_of(Refusal refusal) noexcept { return rules[static_cast<std::size_t>(refusal)]; }

std::string_view statement_of(Refusal refusal, Version version) noexcept {
    const auto& rule = rule_of(refusal);
    return version == Version::v5 ? rule.v5 : version == Version::v311 ? rule.v311 : rule.v31;
}

}  // namespace penstock::mqtt
