#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/keyed_hash.h"
#include "mqtt/message.h"
#include "mqtt/packets.h"
#include "session/out_buffer.h"

namespace penstock::session {

/// The protocol's side of one network connection: what was negotiated and what waits to be sent. No socket, no clock.
/// Core: home.
struct Link {
    mqtt::Version version = mqtt::Version::v311;
    bool problem_information : 1 = true;          ///< the client wants reason strings and user properties [MQTT-3.1.2-29]
    bool told_aio : 1 = false;                    ///< CONNACK was AIO's: no QoS 2, no subscription ids
    std::uint16_t receive_maximum = 65'535;       ///< of the client: deliveries in flight towards it
    std::uint32_t packet_size_max = 0;            ///< of the client; 0: no limit
    std::uint16_t alias_maximum = 0;              ///< of the client: aliases the server may set
    std::uint16_t told_alias_maximum = 0;         ///< of the server, as CONNACK told it
    std::uint32_t told_packet_size = 0;           ///< of the server, as CONNACK told it; 0: it told none
    OutBuffer* out = nullptr;                     ///< null while nothing waits; the owner provides it, see output()

    /// Topic names behind the aliases of each direction; made on first use.
    struct Aliases {
        Aliases() = default;
        Aliases(const Aliases&) = delete;
        Aliases& operator=(const Aliases&) = delete;

        std::vector<std::string> incoming;        ///< by alias - 1; the peer chooses them, so they count as messages do
        Counted incoming_bytes;                   ///< of their topics
        std::unordered_map<std::string, std::uint16_t, TextHash> outgoing;
        std::size_t outgoing_bytes = 0;           ///< of their topics; bounded, whatever the peer would take
        void count_outgoing() noexcept { outgoing_counted_.set(outgoing_bytes + outgoing.size() * place_bytes); }

      private:
        static constexpr std::size_t place_bytes = 72;
        Counted outgoing_counted_;
    };
    std::unique_ptr<Aliases> aliases;
};

/// What publish() made of a message.
enum class Sent : std::uint8_t { written, too_large };

/// Appends a PUBLISH to `link.out`. `now` (monotonic ms) gives the remaining message expiry [MQTT-3.3.2-6].
/// A packet over the client's Maximum Packet Size is not sent [MQTT-3.1.2-24].
Sent write_publish(Link& link, mqtt::Outgoing& message, mqtt::Qos qos, bool retain, bool dup, std::uint16_t packet_id,
                   const std::uint32_t* subscription_ids, std::size_t subscription_id_count, std::int64_t now);

}  // namespace penstock::session
