#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <map>
#include <string>
#include <unordered_map>

#include "auth/authenticator.h"
#include "auth/policy.h"
#include "base/keyed_hash.h"
#include "broker/config.h"
#include "broker/websocket.h"
#include "io/socket.h"
#include "session/link.h"
#include "session/session.h"
#include "tls/channel.h"

namespace penstock::broker {

/// wait_auth: the client's AUTH is wanted; wait_verdict: somebody else's answer is, and nothing is read until it is there.
enum class ConnectionState : std::uint8_t { wait_connect, wait_auth, wait_verdict, connected, closing };

/// TLS of a connection, and its place among the handshakes under way.
struct TlsState {
    TlsState(std::shared_ptr<const tls::Context> context, std::uint64_t serial) : channel(std::move(context), true), handshake(serial) {}
    tls::Channel channel;
    std::uint64_t handshake;                      ///< number of the handshake; 0: done
    Counted out_counted;                          ///< of the channel's unsent ciphertext, in the message pool
};

/// Who is connected and what it may do. Only where the port has authentication.
struct Security {
    auth::Principal principal;
    std::shared_ptr<const auth::Grant> grant;     ///< null: everything
    /// Topics lately published to and whether that was allowed: the cache of decisions, and what a new policy is tried on.
    std::unordered_map<std::string, bool, TextHash> topics;
    std::size_t topic_bytes = 0;                  ///< of these topics
    std::string last_topic;                       ///< the one asked about last, and its answer
    bool last_allowed = false;
    std::multimap<std::int64_t, struct Connection*>::iterator expiry{};
    bool has_expiry = false;
};

/// Output that must not leave before what it promises is durable: the stream's position at which each unfinished ticket's output
/// begins. Only where the engine is durable.
struct Gates {
    std::deque<std::pair<std::uint64_t, std::uint64_t>, CountedAllocator<std::pair<std::uint64_t, std::uint64_t>>> marks;   ///< ticket, position
    std::uint64_t consumed = 0;                                    ///< bytes that left
    std::uint64_t turn_end = 0;                                    ///< position at the end of the last turn
    std::uint32_t listed = 0;                                      ///< how often the worker has the connection among those that wait

    /// How many of the pending bytes may leave.
    std::size_t allowed(std::uint64_t durable) {
        while (!marks.empty() && marks.front().first <= durable) marks.pop_front();
        return marks.empty() ? static_cast<std::size_t>(-1) : static_cast<std::size_t>(marks.front().second - consumed);
    }
};

/// One network connection. Core: home; before its session is known it may be handed to another worker, once.
/// Kept small: an idle connection owns no buffers.
struct Connection : session::Link {
    int fd = -1;
    io::PeerAddress peer;                         ///< as it was accepted: known after a reset too
    ConnectionState state = ConnectionState::wait_connect;
    bool is_dirty = false;                        ///< in the worker's list of connections to flush
    bool wants_write = false;                     ///< the socket was full; EPOLLOUT is armed
    bool is_paused = false;                       ///< not read while the pool is full
    bool is_gated = false;                        ///< this turn's output waits for the turn's commit
    bool is_held = false;                         ///< not read until a verdict is there
    bool is_stuffed : 1 = false;                  ///< not read until it has read what is there for it
    bool is_stranger : 1 = false;                 ///< `in_counted` is counted with those whose CONNECT has not come
    bool was_accepted : 1 = false;                ///< its CONNECT was
    bool is_bridge : 1 = false;                   ///< see mqtt::ConnectView::is_bridge
    bool is_debug : 1 = false;                    ///< per-client debug log
    bool is_shut : 1 = false;                     ///< closing, and all has left: its peer was told the end
    bool is_watched : 1 = false;                  ///< held, and its peer's end would be seen: nothing of it is unread here
    bool is_ended : 1 = false;                    ///< closing, and nothing more comes from its peer, or nobody waits for it
    std::uint16_t category = 0;                   ///< index into the worker's metric categories
    std::uint16_t keep_alive = 0;                 ///< seconds in force
    std::uint32_t last_received = 0;              ///< worker seconds
    std::uint32_t slot = 0;                       ///< in the worker's table
    std::uint32_t wheel_at = 0;                   ///< worker second at which the wheel looks at it
    std::uint32_t in_counted = 0;                 ///< of `in`, what is counted in the message pool, or among strangers'
    Connection* wheel_next = nullptr;
    Connection* wheel_previous = nullptr;
    session::Session* session = nullptr;
    std::shared_ptr<const ListenerConfig> listener;
    std::unique_ptr<std::string> in;              ///< bytes of an incomplete packet
    std::unique_ptr<WebSocketState> websocket;

    /// Enhanced authentication under way, or ready for re-authentication.
    struct Auth {
        std::string method;
        std::unique_ptr<auth::Exchange> exchange;
        bool reauthenticating = false;
    };
    std::unique_ptr<Auth> auth;
    /// Who shows credentials, as wrong ones are counted.
    struct Guesser {
        std::string network;                      ///< see Driver::network
        std::string account;                      ///< a digest of the network and the user name
        std::string device;                       ///< and of these and the client id
    };
    /// CONNECT, kept until authentication ends.
    struct Waiting {
        std::string connect_body;
        Guesser guesser;                          ///< as CONNECT came
        std::string assigned_id;
        std::uint64_t ticket = 0;                 ///< of the verdict that is waited for; 0: none
        std::int64_t began_ns = 0;                ///< when CONNECT came, where it is traced
        std::shared_ptr<auth::Authenticator> by;  ///< who was asked: the port's may be another when the answer comes
        std::shared_ptr<const char> asks = std::make_shared<const char>();   ///< gone when nobody waits for the answer any more
    };
    std::unique_ptr<Waiting> waiting;
    std::unique_ptr<TlsState> tls;
    std::unique_ptr<Security> security;
    std::unique_ptr<Gates> gates;

    /// Something waits to be written.
    [[nodiscard]] bool has_pending() const noexcept {
        return (out != nullptr && !out->empty()) || (websocket != nullptr && (!websocket->out.empty() || (websocket->wants_pong && !websocket->is_closing))) || (tls != nullptr && !tls->channel.output().empty());
    }
};

}  // namespace penstock::broker
