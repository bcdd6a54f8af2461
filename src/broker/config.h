#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "auth/authenticator.h"
#include "auth/policy.h"
#include "tls/context.h"

/// The broker's configuration as immutable plain structs. The control plane builds one from the resources and posts it to
/// every worker; nothing on the data path looks at a resource.
namespace penstock::broker {

enum class Protocol : std::uint8_t { mqtt, websockets };

/// One port of one BrokerListener.
struct ListenerConfig {
    std::string resource;                         ///< `namespace/name`, for logs and status
    Protocol protocol = Protocol::mqtt;
    std::uint16_t port = 0;                       ///< where it is bound
    bool loopback_only = true;
    std::shared_ptr<const tls::Context> tls;      ///< null: plaintext
    std::shared_ptr<auth::Authenticator> authenticator;    ///< null: anybody may connect
    std::shared_ptr<const auth::Policy> policy;   ///< null: everything is allowed; counts only with an authenticator
    std::vector<std::string> origins;             ///< lower-case patterns of pages that may open a WebSocket; none: all

    [[nodiscard]] bool binds_like(const ListenerConfig& other) const noexcept {
        return port == other.port && loopback_only == other.loopback_only && protocol == other.protocol && (tls == nullptr) == (other.tls == nullptr);
    }
    /// Nothing that connected clients or new ones would notice differs.
    [[nodiscard]] bool acts_like(const ListenerConfig& other) const noexcept {
        return binds_like(other) && resource == other.resource && tls == other.tls && authenticator == other.authenticator && policy == other.policy && origins == other.origins;
    }
};

/// What is kept on disk beside sessions and subscriptions (fact sheet 2.11).
struct Persistence {
    enum class Mode : std::uint8_t { none, all, custom };
    Mode retain = Mode::none, queues = Mode::none;
    std::vector<std::string> retain_topics;       ///< filters, with custom
    std::vector<std::string> queue_clients;       ///< client ids with `*`, with custom
    Mode state = Mode::none;
    std::vector<auth::Rule::Key> state_keys;      ///< with custom
    bool retain_dynamic = true, queue_dynamic = true, state_dynamic = true;    ///< clients may ask for it by user property, with custom
    bool operator==(const Persistence&) const = default;
};

/// What every worker must obey. Zero means "no bound" unless said otherwise.
struct BrokerConfig {
    std::uint32_t session_expiry_max = 86'400;    ///< seconds; also the expiry of a 3.1.1 session with clean session 0
    std::uint32_t message_expiry_max = 0;         ///< seconds
    std::uint32_t packet_size_max = 64u << 20;    ///< bytes, the whole packet
    std::uint64_t queue_length_max = 0;           ///< messages per subscriber
    std::uint64_t queue_bytes_max = 0;            ///< bytes of them
    bool queue_drop_oldest = false;
    std::uint16_t client_receive_maximum = 65'535;///< caps what a client asks for
    std::uint16_t keep_alive_max = 0;             ///< seconds
    std::int64_t pool_bytes = std::int64_t{576} << 20;  ///< memory profile: bytes of messages
    bool high_priority_passes = true;             ///< `$high_priority` messages are taken under pressure
    bool aio_compatible = false;                  ///< CONNACK and QoS 2 exactly as AIO answers
    bool hide_selftest = false;                   ///< `#` does not see azedge/dmqtt/selftest
    bool sys_topics = true;
    std::size_t state_keys_max = 100'000;         ///< keys of the state store
    Persistence persistence;
    std::int64_t overflow_bytes = 0;              ///< of queues on disk, of all workers; 0: all in memory
    std::int64_t overflow_age_ms = 0;             ///< how long a message may wait there

    std::size_t span_capacity = 0;                ///< spans of a worker that wait to be taken; 0: packets are not traced

    std::uint16_t receive_maximum = 1000;         ///< of the server, towards publishers
    /// Of a version 3 client, which is told no Receive Maximum and may write all it has before it reads: QoS 2 identifiers between
    /// PUBLISH and PUBREL. In memory they are at most 10 KiB (session::PacketIds); what is bounded are the records kept for them.
    std::uint16_t open_identifiers_max_v3 = 16'000;
    std::uint16_t topic_alias_maximum = 32;       ///< aliases a client may set
    std::uint32_t connect_timeout = 10;           ///< seconds from accept to CONNECT
    std::uint32_t verdict_timeout = 180;          ///< seconds from CONNECT, or AUTH, until who is asked has said who the client is
};

}  // namespace penstock::broker
