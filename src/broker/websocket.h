#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/counted.h"

namespace penstock::broker {

/// RFC 6455 as MQTT uses it (MQTT 5.0 §6): binary frames, sub-protocol `mqtt`. Pure: bytes in, bytes out.
struct WebSocketState {
    bool is_open = false;                         ///< the HTTP upgrade is done
    bool is_closing = false;
    std::string raw;                              ///< bytes of an incomplete request or frame
    std::string out;                              ///< framed bytes not yet sent
    std::size_t out_sent = 0;
    Counted out_counted;                          ///< of `out`, in the message pool
    std::string pong;                             ///< answer to the last ping, while `out` is still on its way (RFC 6455 §5.5.3)
    bool wants_pong = false;
    bool in_message = false;                      ///< between the first and the last frame of a fragmented message
    std::string fault;                            ///< what the peer did wrong, once it is turned away; empty when it closed
};

/// Takes bytes from the network; appends MQTT bytes to `payload` and control answers to `state.out`.
/// False: the peer broke the protocol or closed; `state.out` holds what to tell it, then close.
/// `payload_max` bounds one frame. `origins`: the pages that may connect (RFC 6455 §10.2), as patterns with `*`; none: all. Programs
/// that are no browser send no origin and are not asked for one.
bool websocket_receive(WebSocketState& state, std::string_view bytes, std::size_t payload_max, const std::vector<std::string>& origins, std::string& payload);

/// The answer that waits for `out` to leave, if there is one.
void websocket_pong(WebSocketState& state);
/// Appends the header of one binary frame of `size` bytes.
void websocket_frame_header(std::string& out, std::size_t size);
/// Appends a close frame.
void websocket_close(std::string& out, std::uint16_t code);

}  // namespace penstock::broker
