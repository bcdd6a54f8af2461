#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "broker/config.h"
#include "broker/websocket.h"
#include "session/link.h"
#include "session/session.h"

namespace penstock::broker {

enum class ConnectionState : std::uint8_t { wait_connect, wait_auth, connected, closing };

/// One network connection. Core: home; before its session is known it may be handed to another worker, once.
/// Kept small: an idle connection owns no buffers.
struct Connection : session::Link {
    int fd = -1;
    ConnectionState state = ConnectionState::wait_connect;
    bool is_dirty = false;                        ///< in the worker's list of connections to flush
    bool wants_write = false;                     ///< the socket was full; EPOLLOUT is armed
    bool is_paused = false;                       ///< not read while the pool is full
    bool is_debug = false;                        ///< per-client debug log
    std::uint16_t category = 0;                   ///< index into the worker's metric categories
    std::uint16_t keep_alive = 0;                 ///< seconds in force
    std::uint32_t last_received = 0;              ///< worker seconds
    std::uint32_t slot = 0;                       ///< in the worker's table
    Connection* wheel_next = nullptr;
    Connection* wheel_previous = nullptr;
    std::uint32_t wheel_at = 0;                   ///< worker second at which the wheel looks at it
    session::Session* session = nullptr;
    std::shared_ptr<const ListenerConfig> listener;
    std::unique_ptr<std::string> in;              ///< bytes of an incomplete packet
    std::uint32_t in_counted = 0;                 ///< of these, what is counted in the message pool
    std::unique_ptr<WebSocketState> websocket;

    /// Enhanced authentication under way, or ready for re-authentication.
    struct Auth {
        std::string method;
        std::unique_ptr<Exchange> exchange;
        std::string connect_body;                 ///< CONNECT, kept until the exchange ends
        bool reauthenticating = false;
    };
    std::unique_ptr<Auth> auth;
};

}  // namespace penstock::broker
