// The WebSocket handshake and frames as RFC 6455 has them, without a network.
#include <gtest/gtest.h>

#include "broker/websocket.h"

namespace penstock::test {
namespace {

using broker::WebSocketState;

const std::string key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const std::string usual = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
const std::string version = "Sec-WebSocket-Version: 13\r\n", protocol = "Sec-WebSocket-Protocol: mqtt\r\n";

/// What the broker answers to an upgrade with these fields.
std::string answer(const std::string& fields, const std::string& first = "GET /mqtt HTTP/1.1") {
    WebSocketState state;
    std::string payload;
    const bool open = broker::websocket_receive(state, first + "\r\n" + fields + "\r\n", 1000, {}, payload);
    EXPECT_EQ(open, state.is_open) << state.out;
    EXPECT_EQ(open, state.fault.empty()) << state.fault;
    return state.out;
}

void expect_accepted(const std::string& fields, const std::string& chosen = "mqtt") {
    const auto got = answer(fields);
    EXPECT_TRUE(got.starts_with("HTTP/1.1 101 ")) << fields << got;
    EXPECT_NE(got.find("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), std::string::npos) << "RFC 6455 §1.3: " << got;
    EXPECT_NE(got.find("\r\nSec-WebSocket-Protocol: " + chosen + "\r\n"), std::string::npos) << got;
}

void expect_refused(const std::string& status, const std::string& fields, const std::string& first = "GET /mqtt HTTP/1.1") {
    const auto got = answer(fields, first);
    EXPECT_TRUE(got.starts_with("HTTP/1.1 " + status + " ")) << first << "\n" << fields << got;
}

TEST(WebSocketHandshake, a_list_may_be_in_several_lines) {
    expect_accepted(usual + version + key + protocol);
    // RFC 6455 §11.3.4, RFC 7230 §3.2.2. [MQTT-6.0.0-3, MQTT311-6.0.0-3] [MQTT-6.0.0-4, MQTT311-6.0.0-4]
    expect_accepted(usual + version + key + "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: mqtt\r\n");
    expect_accepted(usual + version + key + "Sec-WebSocket-Protocol: mqttv3.1\r\nX: y\r\nsec-websocket-protocol: amqp, mqtt\r\n");
    expect_accepted(usual + version + key + "Sec-WebSocket-Protocol: \r\nSec-WebSocket-Protocol: a,,mqttv3.1 ,b\r\n", "mqttv3.1");
    expect_accepted("Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n" + version + key + protocol);
    expect_accepted("Host: x\r\nUpgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + version + key + protocol);
    expect_accepted("Host: x\r\nUpgrade: h2c, WebSocket/13, WebSocket\r\nConnection: keep-alive,UPGRADE\r\n" + version + key + protocol);
    expect_refused("400", usual + version + key + "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: more\r\n");
    expect_refused("400", usual + version + key + "Sec-WebSocket-Protocol: MQTT\r\n");
    expect_refused("400", usual + version + key);
    expect_refused("426", "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: close\r\n" + version + key + protocol);
    expect_refused("426", "Host: x\r\nUpgrade: websockets\r\nConnection: Upgrade\r\n" + version + key + protocol);
}

TEST(WebSocketHandshake, names_of_fields_have_no_case_and_values_may_have_blanks_around) {
    expect_accepted("HOST:x\r\nuPGRADE:\t websocket \r\nconnection:upgrade\r\nSEC-WEBSOCKET-VERSION:13\r\n"
                    "sec-websocket-key:   dGhlIHNhbXBsZSBub25jZQ==  \r\nSEC-WebSocket-protocol:mqtt\r\n");
}

TEST(WebSocketHandshake, the_key_is_16_bytes_in_base64) {
    // RFC 6455 §4.2.1.
    for (const auto* text : {"", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZWE=",
                             "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBs*SBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==,x", "dGhlIHNh bXBsZSBub25jZQ=="})
        expect_refused("400", usual + version + "Sec-WebSocket-Key: " + text + "\r\n" + protocol);
    expect_refused("400", usual + version + protocol);
    expect_refused("400", usual + version + key + key + protocol);
}

TEST(WebSocketHandshake, another_version_is_told_ours) {
    for (const std::string& fields : {std::string(), std::string("Sec-WebSocket-Version: 8\r\n"), std::string("Sec-WebSocket-Version: 13, 8\r\n"),
                                     std::string("Sec-WebSocket-Version: 013\r\n"), std::string("Sec-WebSocket-Version: \r\n")}) {
        const auto got = answer(usual + fields + key + protocol);
        EXPECT_TRUE(got.starts_with("HTTP/1.1 426 ")) << fields << got;
        EXPECT_NE(got.find("\r\nSec-WebSocket-Version: 13\r\n"), std::string::npos) << got;
    }
    // It must not be there more than once in a request (RFC 6455 §11.3.5).
    expect_refused("400", usual + version + "Sec-WebSocket-Version: 8\r\n" + key + protocol);
    expect_refused("400", usual + version + version + key + protocol);
}

TEST(WebSocketHandshake, what_is_no_upgrade_is_answered) {
    expect_refused("405", usual + version + key + protocol, "POST /mqtt HTTP/1.1");
    expect_refused("405", usual + version + key + protocol, "get /mqtt HTTP/1.1");
    expect_refused("505", usual + version + key + protocol, "GET /mqtt HTTP/1.0");
    expect_refused("505", usual + version + key + protocol, "GET /mqtt HTTP/2");
    for (const auto* first : {"GET /mqtt", "GET  HTTP/1.1", "GET /a b HTTP/1.1", "GET /mqtt MQTT/1.1", "", "\x10\x0c"})
        expect_refused("400", usual + version + key + protocol, first);
    expect_refused("400", "Upgrade: websocket\r\nConnection: Upgrade\r\n" + version + key + protocol);
    expect_refused("400", "Host: y\r\n" + usual + version + key + protocol);
    // RFC 7230 §3.2.4: no blank before the colon, nothing that goes on in the next line, no line without a colon.
    for (const auto* line : {"X : y\r\n", "X: y\r\n z\r\n", "nothing\r\n", ": y\r\n", "X: a\rb\r\n", "X: a\nb\r\n"})
        expect_refused("400", usual + version + key + protocol + line);
    expect_refused("426", "Host: x\r\n");
    EXPECT_NE(answer("Host: x\r\n").find("\r\nUpgrade: websocket\r\n"), std::string::npos);
}

TEST(WebSocketHandshake, pages_that_may_not_connect_say_so_once) {
    WebSocketState state;
    std::string payload;
    const auto fields = usual + version + key + protocol + "Origin: https://a.example\r\nOrigin: https://b.example\r\n";
    EXPECT_FALSE(broker::websocket_receive(state, "GET / HTTP/1.1\r\n" + fields + "\r\n", 1000, {"https://a.example"}, payload));
    EXPECT_TRUE(state.out.starts_with("HTTP/1.1 400 ")) << state.out;
}

/// A client's frame, masked with zeros.
std::string frame(unsigned first, std::string_view content, int length_bytes = -1) {
    std::string out(1, static_cast<char>(first));
    if (length_bytes < 0) length_bytes = content.size() < 126 ? 0 : content.size() < 65'536 ? 2 : 8;
    out += static_cast<char>(0x80u | (length_bytes == 0 ? content.size() : length_bytes == 2 ? 126 : 127));
    for (int i = length_bytes - 1; i >= 0; --i) out += static_cast<char>(content.size() >> (8 * i));
    return out + std::string(4, '\0') + std::string(content);
}

/// What comes back for one frame.
std::string reply(const std::string& bytes, std::string* taken = nullptr) {
    WebSocketState state;
    state.is_open = true;
    std::string payload;
    broker::websocket_receive(state, bytes, 100'000, {}, payload);
    if (taken != nullptr) *taken = payload;
    return state.out;
}

std::string close_frame(unsigned code) { return {'\x88', '\x02', static_cast<char>(code >> 8), static_cast<char>(code)}; }
std::string code_of(unsigned code) { return {static_cast<char>(code >> 8), static_cast<char>(code)}; }

TEST(WebSocketFrames, a_length_is_as_short_as_it_can_be) {
    // RFC 6455 §5.2.
    std::string taken;
    EXPECT_EQ(reply(frame(0x82, std::string(125, 'x')), &taken), "");
    EXPECT_EQ(taken.size(), 125u);
    EXPECT_EQ(reply(frame(0x82, std::string(126, 'x')), &taken), "");
    EXPECT_EQ(taken.size(), 126u);
    EXPECT_EQ(reply(frame(0x82, std::string(70'000, 'x')), &taken), "");
    EXPECT_EQ(taken.size(), 70'000u);
    EXPECT_EQ(reply(frame(0x82, "short", 2)), close_frame(1002));
    EXPECT_EQ(reply(frame(0x82, "short", 8)), close_frame(1002));
    EXPECT_EQ(reply(frame(0x82, std::string(65'535, 'x'), 8)), close_frame(1002));
}

TEST(WebSocketFrames, a_close_is_answered_with_its_code) {
    // RFC 6455 §5.5.1, §7.4.
    EXPECT_EQ(reply(frame(0x88, "")), close_frame(1000));
    EXPECT_EQ(reply(frame(0x88, code_of(1001) + "going away")), close_frame(1001));
    EXPECT_EQ(reply(frame(0x88, code_of(4000))), close_frame(4000));
    for (const unsigned code : {0u, 999u, 1004u, 1005u, 1006u, 1015u, 2999u, 5000u}) EXPECT_EQ(reply(frame(0x88, code_of(code))), close_frame(1002)) << code;
    EXPECT_EQ(reply(frame(0x88, "x")), close_frame(1002));
    EXPECT_EQ(reply(frame(0x88, code_of(1000) + "\xff")), close_frame(1007));
}

TEST(WebSocketFrames, what_is_no_binary_frame_closes) {
    // [MQTT-6.0.0-1, MQTT311-6.0.0-1]
    EXPECT_EQ(reply(frame(0x81, "text")), close_frame(1003));
    EXPECT_EQ(reply(frame(0x83, "x")), close_frame(1002));
    EXPECT_EQ(reply(frame(0xC2, "x")), close_frame(1002));
    EXPECT_EQ(reply(std::string("\x82\x01x", 3)), close_frame(1002)) << "not masked";
}

}  // namespace
}  // namespace penstock::test
