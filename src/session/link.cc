#include "session/link.h"

#include <algorithm>

namespace penstock::session {
namespace {

char* put(char* at, std::string_view bytes) noexcept {
    if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
    return at + bytes.size();
}
char* put_u16(char* at, std::uint16_t value) noexcept {
    *at++ = static_cast<char>(value >> 8);
    *at++ = static_cast<char>(value);
    return at;
}
char* put_varint(char* at, std::uint32_t value) noexcept {
    while (value >= 128) {
        *at++ = static_cast<char>((value & 0x7F) | 0x80);
        value >>= 7;
    }
    *at++ = static_cast<char>(value);
    return at;
}

constexpr std::size_t aliases_max = 1000, alias_bytes_max = 64 * 1024;

/// Sets or uses an alias of the server's choice: each topic gets one until the client's maximum, or what the server remembers for one
/// client, is reached. True when the topic itself need not be sent again.
bool use_alias(Link& link, std::string_view topic, std::uint16_t& alias) {
    if (link.aliases == nullptr) link.aliases = std::make_unique<Link::Aliases>();
    auto& known = link.aliases->outgoing;
    if (const auto found = known.find(std::string(topic)); found != known.end()) {
        alias = found->second;
        return true;
    }
    if (known.size() >= std::min<std::size_t>(link.alias_maximum, aliases_max) || link.aliases->outgoing_bytes + topic.size() > alias_bytes_max) return false;
    link.aliases->outgoing_bytes += topic.size();
    alias = static_cast<std::uint16_t>(known.size() + 1);
    known.emplace(topic, alias);
    link.aliases->count_outgoing();
    return false;
}

/// A PUBLISH beside what the message says.
struct Packet {
    std::uint8_t first = 0;                       ///< of the fixed header
    std::uint32_t remaining = 0;                  ///< its remaining length
    bool has_topic = false;                       ///< false: an alias stands for it
    bool has_id = false;
    std::uint16_t packet_id = 0;
    std::string_view extra;                       ///< properties of this client's own
};

/// Large parts of the message are not copied; the others go into the buffer in one piece with what is around them.
void append(OutBuffer& out, mqtt::Outgoing& message, const Packet& packet, bool v5) {
    const auto& view = message.view();
    const auto is_large = [](std::string_view part) { return part.size() >= OutBuffer::by_reference_min; };
    const bool large_topic = packet.has_topic && is_large(view.topic), large_properties = v5 && is_large(view.properties), large_payload = is_large(view.payload);
    if (large_topic || large_properties || large_payload) message.share();   // the view is of the shared message from here on
    const std::string_view topic = packet.has_topic ? view.topic : std::string_view();
    const auto properties = static_cast<std::uint32_t>(packet.extra.size() + view.properties.size());
    const auto head = 1 + mqtt::varint_size(packet.remaining) + 2 + (large_topic ? 0 : topic.size());
    const auto middle = (packet.has_id ? 2u : 0u) + (v5 ? mqtt::varint_size(properties) + packet.extra.size() + (large_properties ? 0 : view.properties.size()) : 0u);
    const auto tail = large_payload ? 0 : view.payload.size();
    const auto behind_topic = middle + (large_properties ? 0 : tail);
    char* at = out.grow(head + (large_topic ? 0 : behind_topic));
    *at++ = static_cast<char>(packet.first);
    at = put_varint(at, packet.remaining);
    at = put_u16(at, static_cast<std::uint16_t>(topic.size()));
    if (large_topic) {
        out.append_reference(message.share(), topic);
        at = out.grow(behind_topic);
    } else {
        at = put(at, topic);
    }
    if (packet.has_id) at = put_u16(at, packet.packet_id);
    if (v5) {
        at = put_varint(at, properties);
        at = put(at, packet.extra);
        if (!large_properties) at = put(at, view.properties);
    }
    if (large_properties) {
        out.append_reference(message.share(), view.properties);
        at = out.grow(tail);
    }
    if (large_payload) out.append_reference(message.share(), view.payload);
    else put(at, view.payload);
}

}  // namespace

Sent write_publish(Link& link, mqtt::Outgoing& message, mqtt::Qos qos, bool retain, bool dup, std::uint16_t packet_id,
                   const std::uint32_t* ids, std::size_t id_count, std::int64_t now) {
    const auto& view = message.view();
    const bool v5 = link.version == mqtt::Version::v5;
    std::string_view topic = view.topic;
    std::string extra;
    if (v5 && (view.expires_at != 0 || link.alias_maximum != 0 || id_count != 0)) {
        if (view.expires_at != 0) {
            const auto left = std::max<std::int64_t>(1, (view.expires_at - now + 999) / 1000);
            mqtt::write_property(extra, mqtt::PropertyId::message_expiry_interval, static_cast<std::uint32_t>(left));
        }
        for (std::size_t i = 0; i < id_count; ++i)
            mqtt::write_property(extra, mqtt::PropertyId::subscription_identifier, ids[i]);
    }
    const auto before_alias = [&](std::size_t topic_size, std::size_t extra_size) {
        const auto properties = extra_size + view.properties.size();
        return 2 + topic_size + (qos != mqtt::Qos::at_most_once ? 2u : 0u) +
               (v5 ? mqtt::varint_size(static_cast<std::uint32_t>(properties)) + properties : 0u) + view.payload.size();
    };
    auto remaining = before_alias(topic.size(), extra.size());
    // The bound is checked on the form without an alias, so that a message too large never defines one.
    if (link.packet_size_max != 0 &&
        1 + mqtt::varint_size(static_cast<std::uint32_t>(remaining)) + remaining > link.packet_size_max)
        return Sent::too_large;
    if (remaining > mqtt::remaining_length_max) return Sent::too_large;
    if (v5 && link.alias_maximum != 0) {
        std::uint16_t alias = 0;
        const bool known = use_alias(link, topic, alias);
        if (alias != 0) {
            auto with_alias = extra;
            mqtt::write_property(with_alias, mqtt::PropertyId::topic_alias, alias);
            const auto size = before_alias(known ? 0 : topic.size(), with_alias.size());
            if (link.packet_size_max == 0 || size + 5 <= link.packet_size_max) {
                if (known) topic = {};
                extra = std::move(with_alias);
                remaining = size;
            } else if (!known) {
                link.aliases->outgoing.erase(std::string(topic));
                link.aliases->outgoing_bytes -= topic.size();
                link.aliases->count_outgoing();
            }
        }
    }

    const Packet packet{.first = static_cast<std::uint8_t>(0x30u | (dup ? 8u : 0u) | static_cast<unsigned>(qos) << 1 | (retain ? 1u : 0u)), .remaining = static_cast<std::uint32_t>(remaining),
                        .has_topic = !topic.empty(), .has_id = qos != mqtt::Qos::at_most_once, .packet_id = packet_id, .extra = extra};
    append(*link.out, message, packet, v5);
    return Sent::written;
}

}  // namespace penstock::session
