#include "broker/websocket.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"
#include "base/utf8.h"
#include "crypto/hash.h"

namespace penstock::broker {
namespace {

constexpr std::size_t request_max = 8192;
enum Opcode : unsigned { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 };

/// The lines of an upgrade request. Views into it.
struct Request {
    std::string_view method, version;
    std::vector<std::pair<std::string_view, std::string_view>> fields;

    [[nodiscard]] std::size_t count(std::string_view name) const {
        return static_cast<std::size_t>(std::ranges::count_if(fields, [&](const auto& field) { return equal_no_case(field.first, name); }));
    }
    /// Of the first line with that name, or empty.
    [[nodiscard]] std::string_view value(std::string_view name) const {
        const auto at = std::ranges::find_if(fields, [&](const auto& field) { return equal_no_case(field.first, name); });
        return at == fields.end() ? std::string_view() : at->second;
    }
    /// Whether a list, which may be in several lines (RFC 7230 §3.2.2), has an element.
    [[nodiscard]] bool has(std::string_view name, std::string_view token, bool any_case) const {
        for (const auto& [field, list] : fields) {
            if (!equal_no_case(field, name)) continue;
            for (auto part : split(list, ','))
                if (part = trim(part); any_case ? equal_no_case(part, token) : part == token) return true;
        }
        return false;
    }
};

bool is_token(std::string_view text) {
    constexpr std::string_view others = "!#$%&'*+-.^_`|~";
    return !text.empty() && std::ranges::all_of(text, [&](unsigned char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || others.contains(static_cast<char>(c));
    });
}

/// Nothing: it is no HTTP request. A field's name is a token and its colon follows at once; nothing goes on in the next line
/// (RFC 7230 §3.2.4).
std::optional<Request> read_request(std::string_view text) {
    Request out;
    bool is_first = true;
    while (!text.empty()) {
        const auto end = text.find("\r\n");
        const auto line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
        if (line.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) return std::nullopt;
        if (std::exchange(is_first, false)) {
            const auto words = split(line, ' ');
            if (words.size() != 3 || !is_token(words[0]) || words[1].empty() || !words[2].starts_with("HTTP/")) return std::nullopt;
            out.method = words[0];
            out.version = words[2];
            continue;
        }
        const auto colon = line.find(':');
        if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return std::nullopt;
        out.fields.emplace_back(line.substr(0, colon), trim(line.substr(colon + 1)));
    }
    return out;
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

/// What is wrong with the request apart from whom it comes from, answered already; empty: the sub-protocol that was chosen is there.
std::string_view choose(WebSocketState& state, const Request& request) {
    constexpr std::size_t key_size = 16, key_digits = 24;
    const auto no = [&](std::string_view status, std::string_view why) { return refuse(state, status, why), std::string_view(); };
    if (request.method != "GET") return no("405 Method Not Allowed\r\nAllow: GET", "this port speaks MQTT over WebSocket; use GET with an upgrade\n");
    if (!request.version.starts_with("HTTP/1.") || request.version == "HTTP/1.0") return no("505 HTTP Version Not Supported", "WebSocket needs HTTP/1.1\n");
    if (request.count("Host") != 1) return no("400 Bad Request", "the request must have one Host field\n");
    if (!request.has("Upgrade", "websocket", true) || !request.has("Connection", "upgrade", true))
        return no("426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13", "this port speaks MQTT over WebSocket\n");
    if (request.count("Sec-WebSocket-Version") > 1) return no("400 Bad Request", "Sec-WebSocket-Version is there more than once\n");
    if (request.value("Sec-WebSocket-Version") != "13") return no("426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13", "WebSocket version 13 is needed\n");
    if (request.count("Sec-WebSocket-Key") != 1) return no("400 Bad Request", "the request must have one Sec-WebSocket-Key field\n");
    const auto key = request.value("Sec-WebSocket-Key");
    // RFC 6455 §4.2.1.
    if (const auto bytes = base64_decode(key); !bytes || bytes->size() != key_size || key.size() != key_digits)
        return no("400 Bad Request", "Sec-WebSocket-Key must be 16 bytes in base64\n");
    // The sub-protocol must be offered as "mqtt" [MQTT-6.0.0-3]; "mqttv3.1" is what clients of 3.1 offered.
    for (const std::string_view name : {"mqtt", "mqttv3.1"})
        if (request.has("Sec-WebSocket-Protocol", name, false)) return name;
    return no("400 Bad Request", "the WebSocket sub-protocol must be \"mqtt\"\n");
}

bool upgrade(WebSocketState& state, std::string_view text, const std::vector<std::string>& origins) {
    const auto request = read_request(text);
    if (!request) return refuse(state, "400 Bad Request", "this is no HTTP request; this port speaks MQTT over WebSocket\n");
    const auto chosen = choose(state, *request);
    if (chosen.empty()) return false;
    if (request->count("Origin") > 1) return refuse(state, "400 Bad Request", "Origin is there more than once\n");
    if (const auto origin = to_lower(request->value("Origin"));
        !origin.empty() && !origins.empty() && std::ranges::none_of(origins, [&](const std::string& one) { return glob_match(one, origin); }))
        return refuse(state, "403 Forbidden", fmt::format("pages of {} may not connect here; the listener's annotation penstock.io/websocket-origins names those that may\n", printable(origin)));
    state.out += "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    state.out += base64_encode(crypto::sha1(std::string(request->value("Sec-WebSocket-Key")) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
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

/// The peer's code goes back to it; what is no code, or no text behind it, is a fault (RFC 6455 §5.5.1, §7.4).
void take_close(WebSocketState& state, std::string_view content) {
    constexpr unsigned normal = 1000;
    unsigned code = normal;
    if (!content.empty()) {
        code = content.size() < 2 ? 0 : static_cast<unsigned>(static_cast<unsigned char>(content[0])) << 8 | static_cast<unsigned char>(content[1]);
        const bool is_known = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
        if (!is_known) return static_cast<void>(fail(state, 1002, "a WebSocket close frame has no valid code"));
        if (utf8_fault(content.substr(2)) != std::string_view::npos) return static_cast<void>(fail(state, 1007, "the reason of a WebSocket close frame is no UTF-8"));
    }
    websocket_close(state.out, static_cast<std::uint16_t>(code));
    state.is_closing = true;
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
        if (size < (extra == 2 ? 126u : 65'536u)) return fail(state, 1002, "a WebSocket frame's length has more bytes than it needs"), std::string_view::npos;
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
        case close: return take_close(state, content), std::string_view::npos;
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
