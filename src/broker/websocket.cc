#include "broker/websocket.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"
#include "crypto/hash.h"

namespace penstock::broker {
namespace {

constexpr std::size_t request_max = 8192;
enum Opcode : unsigned { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 };

std::string_view header_value(std::string_view request, std::string_view name) {
    std::size_t at = request.find("\r\n");
    while (at != std::string_view::npos && at + 2 < request.size()) {
        const auto end = request.find("\r\n", at + 2);
        const auto line = request.substr(at + 2, end == std::string_view::npos ? end : end - at - 2);
        const auto colon = line.find(':');
        if (colon != std::string_view::npos && equal_no_case(trim(line.substr(0, colon)), name)) return trim(line.substr(colon + 1));
        at = end;
    }
    return {};
}

bool has_token(std::string_view list, std::string_view token) {
    for (const auto part : split(list, ','))
        if (equal_no_case(trim(part), token)) return true;
    return false;
}

bool refuse(WebSocketState& state, std::string_view status, std::string_view why) {
    state.fault = trim(why);
    state.out += "HTTP/1.1 ";
    state.out += status;
    state.out += "\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ";
    state.out += std::to_string(why.size());
    state.out += "\r\n\r\n";
    state.out += why;
    return false;
}

bool upgrade(WebSocketState& state, std::string_view request, const std::vector<std::string>& origins) {
    if (!request.starts_with("GET ")) return refuse(state, "405 Method Not Allowed", "this port speaks MQTT over WebSocket; use GET with an upgrade\n");
    const auto key = header_value(request, "Sec-WebSocket-Key");
    if (!equal_no_case(header_value(request, "Upgrade"), "websocket") || !has_token(header_value(request, "Connection"), "upgrade") || key.empty())
        return refuse(state, "426 Upgrade Required\r\nUpgrade: websocket", "this port speaks MQTT over WebSocket\n");
    if (header_value(request, "Sec-WebSocket-Version") != "13")
        return refuse(state, "426 Upgrade Required\r\nSec-WebSocket-Version: 13", "WebSocket version 13 is needed\n");
    if (const auto origin = to_lower(header_value(request, "Origin")); !origin.empty() && !origins.empty() && std::ranges::none_of(origins, [&](const std::string& one) { return glob_match(one, origin); }))
        return refuse(state, "403 Forbidden", fmt::format("pages of {} may not connect here; the listener's annotation penstock.io/websocket-origins names those that may\n", printable(origin)));
    const auto offered = header_value(request, "Sec-WebSocket-Protocol");
    // The sub-protocol must be offered as "mqtt" [MQTT-6.0.0-3]; "mqttv3.1" is what clients of 3.1 offered.
    std::string_view chosen;
    if (has_token(offered, "mqtt")) chosen = "mqtt";
    else if (has_token(offered, "mqttv3.1")) chosen = "mqttv3.1";
    else return refuse(state, "400 Bad Request", "the WebSocket sub-protocol must be \"mqtt\"\n");
    state.out += "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    state.out += base64_encode(crypto::sha1(std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    state.out += "\r\nSec-WebSocket-Protocol: ";
    state.out += chosen;
    state.out += "\r\n\r\n";
    state.is_open = true;
    return true;
}

bool fail(WebSocketState& state, std::uint16_t code, const char* why) {
    state.fault = why;
    websocket_close(state.out, code);
    state.is_closing = true;
    return false;
}

void control_frame(std::string& out, unsigned opcode, std::string_view payload) {
    out += static_cast<char>(0x80u | opcode);
    out += static_cast<char>(payload.size());
    out += payload;
}

/// Handles one frame at the start of `bytes`; 0: not complete yet, npos: protocol fault (already answered).
std::size_t one_frame(WebSocketState& state, std::string_view bytes, std::size_t payload_max, std::string& payload) {
    auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    if (bytes.size() < 2) return 0;
    const unsigned opcode = byte(0) & 0x0Fu;
    const bool final = (byte(0) & 0x80u) != 0;
    std::uint64_t size = byte(1) & 0x7Fu;
    std::size_t header = 2;
    // Reserved bits, and frames from a client that are not masked, are protocol errors (RFC 6455 §5.1, §5.2).
    if ((byte(0) & 0x70u) != 0 || (byte(1) & 0x80u) == 0) return fail(state, 1002, "a WebSocket frame is not masked or has reserved bits"), std::string_view::npos;
    if (size == 126 || size == 127) {
        const std::size_t extra = size == 126 ? 2 : 8;
        if (bytes.size() < 2 + extra) return 0;
        size = 0;
        for (std::size_t i = 0; i < extra; ++i) size = size << 8 | byte(2 + i);
        header += extra;
    }
    const bool is_control = opcode >= 8;
    if (is_control && (size > 125 || !final)) return fail(state, 1002, "a WebSocket control frame is too long or in pieces"), std::string_view::npos;
    if (size > payload_max) return fail(state, 1009, "a WebSocket frame is larger than any packet may be"), std::string_view::npos;
    if (bytes.size() < header + 4 + size) return 0;
    const auto mask = bytes.substr(header, 4);
    const auto begin = header + 4;
    std::string content(bytes.substr(begin, size));
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(content[i] ^ mask[i & 3]);
    switch (opcode) {
        case binary:
            if (state.in_message) return fail(state, 1002, "a WebSocket message begins within another"), std::string_view::npos;
            state.in_message = !final;
            payload += content;
            break;
        case continuation:
            if (!state.in_message) return fail(state, 1002, "a WebSocket message goes on that did not begin"), std::string_view::npos;
            state.in_message = !final;
            payload += content;
            break;
        case ping:
            // Who asks without reading gets one answer, not as many as he likes.
            state.pong = std::move(content);
            state.wants_pong = true;
            if (state.out.empty()) websocket_pong(state);
            break;
        case pong: break;
        case close:
            websocket_close(state.out, 1000);
            state.is_closing = true;
            return std::string_view::npos;
        default:
            // MQTT packets travel in binary frames only; anything else ends the connection [MQTT-6.0.0-1].
            return fail(state, opcode == text ? 1003 : 1002, opcode == text ? "MQTT travels in binary WebSocket frames, and this is text" : "a WebSocket frame of no known kind"), std::string_view::npos;
    }
    return begin + size;
}

}  // namespace

bool websocket_receive(WebSocketState& state, std::string_view bytes, std::size_t payload_max, const std::vector<std::string>& origins, std::string& payload) {
    if (state.is_closing) return false;
    state.raw += bytes;
    std::string_view rest = state.raw;
    if (!state.is_open) {
        const auto end = rest.find("\r\n\r\n");
        if (end == std::string_view::npos) {
            if (rest.size() <= request_max) return true;
            return refuse(state, "431 Request Header Fields Too Large", "the upgrade request is too large\n");
        }
        if (!upgrade(state, rest.substr(0, end + 2), origins)) return false;
        rest.remove_prefix(end + 4);
    }
    while (true) {
        const auto used = one_frame(state, rest, payload_max, payload);
        if (used == std::string_view::npos) return false;
        if (used == 0) break;
        rest.remove_prefix(used);
    }
    state.raw.erase(0, state.raw.size() - rest.size());
    if (state.raw.empty()) state.raw.shrink_to_fit();
    return true;
}

void websocket_pong(WebSocketState& state) {
    if (!std::exchange(state.wants_pong, false)) return;
    control_frame(state.out, pong, state.pong);
    state.pong = {};
}

void websocket_frame_header(std::string& out, std::size_t size) {
    out += static_cast<char>(0x80u | binary);
    if (size < 126) {
        out += static_cast<char>(size);
    } else if (size < 65'536) {
        out += static_cast<char>(126);
        out += static_cast<char>(size >> 8);
        out += static_cast<char>(size);
    } else {
        out += static_cast<char>(127);
        for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift);
    }
}

void websocket_close(std::string& out, std::uint16_t code) {
    const char body[] = {static_cast<char>(code >> 8), static_cast<char>(code)};
    control_frame(out, close, {body, 2});
}

}  // namespace penstock::broker
