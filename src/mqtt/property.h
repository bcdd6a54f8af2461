#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mqtt/wire.h"

namespace penstock::mqtt {

/// MQTT 5.0 §2.2.2.2, Table 2-4.
enum class PropertyId : std::uint8_t {
    payload_format_indicator = 0x01,
    message_expiry_interval = 0x02,
    content_type = 0x03,
    response_topic = 0x08,
    correlation_data = 0x09,
    subscription_identifier = 0x0B,
    session_expiry_interval = 0x11,
    assigned_client_identifier = 0x12,
    server_keep_alive = 0x13,
    authentication_method = 0x15,
    authentication_data = 0x16,
    request_problem_information = 0x17,
    will_delay_interval = 0x18,
    request_response_information = 0x19,
    response_information = 0x1A,
    server_reference = 0x1C,
    reason_string = 0x1F,
    receive_maximum = 0x21,
    topic_alias_maximum = 0x22,
    topic_alias = 0x23,
    maximum_qos = 0x24,
    retain_available = 0x25,
    user_property = 0x26,
    maximum_packet_size = 0x27,
    wildcard_subscription_available = 0x28,
    subscription_identifier_available = 0x29,
    shared_subscription_available = 0x2A,
};

enum class WireType : std::uint8_t { u8, u16, u32, varint, binary, text, text_pair };

/// Where a property may stand: one bit a packet type, and one for the will inside CONNECT.
using PropertyPlace = std::uint32_t;
constexpr PropertyPlace place(PacketType type) noexcept { return 1u << static_cast<unsigned>(type); }
inline constexpr PropertyPlace will_place = 1u << 16;

struct PropertyRule {
    PropertyId id{};
    std::string_view name;       ///< as mosquitto_pub's --property spells it
    WireType type{};
    PropertyPlace allowed{};
    PropertyPlace repeatable{};
};

/// The table of the specification; null when the identifier is not in it.
const PropertyRule* find_property_rule(std::uint8_t id) noexcept;
const PropertyRule* find_property_rule(std::string_view name) noexcept;

/// One decoded property; texts point into the frame.
struct Property {
    PropertyId id{};
    std::uint32_t number = 0;
    std::string_view text;       ///< the value, or the name of a user property
    std::string_view value;      ///< the value of a user property
};

/// Walks a property block, checking each entry against the table: known, allowed here, not repeated, value in range.
class PropertyReader {
  public:
    PropertyReader(std::string_view block, PropertyPlace where) noexcept : in_(block), where_(where) {}
    /// False at the end or on a fault; ask failure() afterwards.
    bool next(Property& out) noexcept;
    [[nodiscard]] const std::optional<Refusal>& failure() const noexcept { return in_.failure(); }

  private:
    WireReader in_;
    PropertyPlace where_;
    std::uint64_t seen_ = 0;
};

/// A property with storage of its own, for packets that are not on the hot path and for clients.
struct OwnedProperty {
    PropertyId id{};
    std::uint32_t number = 0;
    std::string text;
    std::string value;
};
using PropertyList = std::vector<OwnedProperty>;

/// Appends one property.
void write_property(std::string& out, PropertyId id, std::uint32_t number);
void write_property(std::string& out, PropertyId id, std::string_view text);
/// Reason String (MQTT 5.0 §3.2.2.2.9 and others), which may quote what others sent: UTF-8 without control characters
/// [MQTT-1.5.4-1, 1.5.4-2] as penstock::printable makes it, at most 1,024 bytes.
void write_reason_string(std::string& out, std::string_view text);
void write_user_property(std::string& out, std::string_view name, std::string_view value);
/// Appends the entries without the leading length.
void write_properties(std::string& out, const PropertyList& list);

}  // namespace penstock::mqtt
