#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "mqtt/property.h"

namespace penstock::mqtt {

template <class T>
using Decoded = std::expected<T, Refusal>;

/// CONNECT's will, MQTT 5.0 §3.1.3.2. Views into the frame.
struct WillView {
    std::string_view topic;
    std::string_view payload;
    Qos qos{};
    bool retain = false;
    std::uint32_t delay_interval = 0;                   ///< seconds
    std::optional<std::uint32_t> message_expiry;        ///< seconds
    std::string properties;                             ///< wire form of what is forwarded, in order, without expiry
};

/// MQTT 5.0 §3.1, MQTT 3.1.1 §3.1. Views into the frame; absent properties carry the specification's defaults.
struct ConnectView {
    Version version{};
    bool is_bridge = false;                             ///< the level has its highest bit set, as Mosquitto's bridges do
    bool clean_start = false;
    std::uint16_t keep_alive = 0;                       ///< seconds; 0 switches it off
    std::string_view client_id;
    std::optional<WillView> will;
    std::optional<std::string_view> user_name;
    std::optional<std::string_view> password;

    std::uint32_t session_expiry_interval = 0;          ///< seconds; 0xFFFFFFFF never ends
    std::uint16_t receive_maximum = 65'535;
    std::uint32_t maximum_packet_size = 0;              ///< 0: no limit but the protocol's
    std::uint16_t topic_alias_maximum = 0;
    bool request_response_information = false;
    bool request_problem_information = true;
    std::optional<std::string_view> authentication_method;
    std::string_view authentication_data;
    std::string_view metric_category;                   ///< user property `metriccategory`
    bool persistence_requested = false;                 ///< user property `aio-persistence` = `true`
    std::string_view trace_parent;                      ///< user property `traceparent`
};

/// How a refusal of a CONNECT is answered.
struct RefusalForm {
    Version version{};                                  ///< whose CONNACK the client reads, whatever its level is
    std::uint32_t maximum_packet_size = 0;              ///< bytes of that CONNACK; 0: no limit
};
/// Read from as much of the packet as can be read, so that a CONNECT with a fault is answered in its client's own form [MQTT-3.1.2-2],
/// [MQTT311-3.1.2-2] and within its Maximum Packet Size [MQTT-3.1.2-24]. Where that cannot be known, the smallest CONNACK there is.
/// None: this is not MQTT.
std::optional<RefusalForm> refusal_form(std::string_view body) noexcept;
Decoded<ConnectView> decode_connect(std::string_view body);

/// MQTT 5.0 §3.3. Views into the frame.
struct PublishView {
    bool dup = false;
    bool retain = false;
    Qos qos{};
    std::uint16_t packet_id = packet_id_none;
    std::string_view topic;                             ///< empty when an alias stands for it
    std::string_view payload;
    std::string_view properties;                        ///< raw block as received, without its length
    std::uint16_t topic_alias = 0;                      ///< 0: none
    bool has_expiry = false;
    std::uint32_t message_expiry = 0;                   ///< seconds
    bool has_volatile_properties = false;               ///< expiry, alias or subscription id: not forwarded as they are
    bool high_priority = false;                         ///< user property `$high_priority`
    bool persistence_requested = false;
    std::string_view trace_parent;                      ///< user property `traceparent`
    std::string_view partition;                         ///< user property `$partition`
    std::string_view response_topic;
    bool has_partition = false;
    bool payload_is_utf8 = false;                       ///< payload format indicator 1
    std::vector<std::uint32_t> subscription_ids;        ///< only ever present from a server to a client
};

/// `from_client` refuses what only a server may send (subscription identifiers, [MQTT-3.3.4-6]).
Decoded<PublishView> decode_publish(std::uint8_t flags, std::string_view body, Version version, bool from_client);
/// Copies a property block without the entries that each hop writes anew (expiry, alias, subscription identifiers).
void copy_forwarded_properties(std::string_view block, std::string& out);

/// PUBACK, PUBREC, PUBREL, PUBCOMP: §3.4 to §3.7.
struct AckView {
    std::uint16_t packet_id = packet_id_none;
    ReasonCode reason{};
    std::string_view reason_string;
};
Decoded<AckView> decode_ack(PacketType type, std::uint8_t flags, std::string_view body, Version version);

/// One entry of SUBSCRIBE, §3.8.3.1.
struct SubscriptionView {
    std::string_view filter;
    Qos qos{};
    bool no_local = false;
    bool retain_as_published = false;
    std::uint8_t retain_handling = 0;
};
struct SubscribeView {
    std::uint16_t packet_id = packet_id_none;
    std::uint32_t subscription_id = 0;                  ///< 0: none
    std::string_view trace_parent;                      ///< user property `traceparent`
    std::vector<SubscriptionView> entries;
};
Decoded<SubscribeView> decode_subscribe(std::uint8_t flags, std::string_view body, Version version);

struct UnsubscribeView {
    std::uint16_t packet_id = packet_id_none;
    std::string_view trace_parent;                      ///< user property `traceparent`
    std::vector<std::string_view> filters;
};
Decoded<UnsubscribeView> decode_unsubscribe(std::uint8_t flags, std::string_view body, Version version);

struct DisconnectView {
    ReasonCode reason{};
    std::optional<std::uint32_t> session_expiry_interval;
    std::string_view reason_string;
    std::string_view server_reference;
};
Decoded<DisconnectView> decode_disconnect(std::uint8_t flags, std::string_view body, Version version);

struct AuthView {
    ReasonCode reason{};
    std::optional<std::string_view> method;
    std::string_view data;
    std::string_view reason_string;
};
Decoded<AuthView> decode_auth(std::uint8_t flags, std::string_view body);

/// CONNACK as a client reads it.
struct ConnackView {
    bool session_present = false;
    ReasonCode reason{};
    std::uint8_t code = 0;                              ///< as on the wire: a return code for 3.1.1
    std::uint32_t session_expiry_interval = 0xFFFF'FFFF;
    bool has_session_expiry = false;
    std::uint16_t receive_maximum = 65'535;
    std::uint8_t maximum_qos = 2;
    bool retain_available = true;
    std::uint32_t maximum_packet_size = 0;
    std::string_view assigned_client_id;
    std::uint16_t topic_alias_maximum = 0;
    std::string_view reason_string;
    std::optional<std::uint16_t> server_keep_alive;
    std::string_view response_information;
    bool subscription_ids_available = true;
};
Decoded<ConnackView> decode_connack(std::string_view body, Version version);

struct SubackView {
    std::uint16_t packet_id = packet_id_none;
    std::vector<ReasonCode> reasons;                    ///< empty for a 3.1.1 UNSUBACK
    std::string_view reason_string;
};
Decoded<SubackView> decode_suback(std::string_view body, Version version, bool unsuback);

// --- encoders: append one whole packet to `out` ---

struct ConnectOptions {
    Version version = Version::v5;
    std::string client_id;
    bool clean_start = true;
    std::uint16_t keep_alive = 60;
    std::optional<std::string> user_name;
    std::optional<std::string> password;
    bool has_will = false;
    std::string will_topic, will_payload;
    Qos will_qos{};
    bool will_retain = false;
    PropertyList properties, will_properties;
};
void encode_connect(std::string& out, const ConnectOptions& options);
/// `properties` is the block's content, ignored below version 5, where `reason` must have a code: connack_code_v3().
void encode_connack(std::string& out, Version version, bool session_present, ReasonCode reason, std::string_view properties);
/// Fixed header to the end; `properties` as above. Returns the size of the packet.
std::size_t encode_publish(std::string& out, Version version, std::string_view topic, std::string_view payload, Qos qos,
                           bool retain, bool dup, std::uint16_t packet_id, std::string_view properties);
void encode_ack(std::string& out, PacketType type, Version version, std::uint16_t packet_id, ReasonCode reason,
                std::string_view properties = {});
void encode_subscribe(std::string& out, Version version, std::uint16_t packet_id,
                      const std::vector<SubscriptionView>& entries, std::string_view properties = {});
void encode_unsubscribe(std::string& out, Version version, std::uint16_t packet_id,
                        const std::vector<std::string_view>& filters, std::string_view properties = {});
void encode_suback(std::string& out, PacketType type, Version version, std::uint16_t packet_id,
                   const std::vector<ReasonCode>& reasons, std::string_view properties = {});
/// Bytes of the SUBACK or UNSUBACK for so many filters, without properties.
std::size_t suback_size(PacketType type, Version version, std::size_t filters) noexcept;
void encode_ping(std::string& out, PacketType type);
void encode_disconnect(std::string& out, Version version, ReasonCode reason, std::string_view properties = {});
void encode_auth(std::string& out, ReasonCode reason, std::string_view properties);

}  // namespace penstock::mqtt
