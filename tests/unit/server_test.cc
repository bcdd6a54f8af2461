// The broker with its threads and sockets.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "auth/authenticator.h"
#include "base/clock.h"
#include "broker/server.h"
#include "crypto/certificate.h"
#include "io/socket.h"
#include "mqttc/client.h"

namespace penstock::test {
namespace {

using broker::ListenerConfig;

mqtt::ConnectOptions connect_as(const std::string& id) { return {.version = mqtt::Version::v5, .client_id = id, .keep_alive = 0}; }

bool answers_ping(mqttc::Client& client) { return client.send(std::string("\xC0\x00", 2)) && client.expect(mqtt::PacketType::pingresp, 5000); }

TEST(Server, applying_again_keeps_ports_and_connections) {
    broker::Server server(2);
    const std::vector<ListenerConfig> listeners{{.resource = "a", .port = 0}, {.resource = "a", .protocol = broker::Protocol::websockets, .port = 0}};
    const auto first = server.apply({}, listeners);
    mqttc::Client client, other;
    ASSERT_TRUE(client.connect({.port = first[0].bound_port}, connect_as("a")));
    ASSERT_TRUE(other.connect({.port = first[1].bound_port, .websocket = true}, connect_as("b")));
    broker::BrokerConfig changed;
    changed.packet_size_max = 1000;
    const auto second = server.apply(changed, listeners);
    EXPECT_EQ(second[0].bound_port, first[0].bound_port);
    EXPECT_EQ(second[1].bound_port, first[1].bound_port);
    EXPECT_TRUE(answers_ping(client));
    EXPECT_TRUE(answers_ping(other));
    server.apply(changed, {listeners[0]});
    EXPECT_TRUE(answers_ping(client));
    const auto gone = other.expect(mqtt::PacketType::pingresp, 5000);
    ASSERT_FALSE(gone);
    EXPECT_NE(gone.error().message.find("administrative-action"), std::string::npos) << gone.error().message;
}

TEST(Server, stopping_tells_clients) {
    mqttc::Client client;
    broker::Server server(2);
    const auto states = server.apply({}, {{.resource = "a", .port = 0}});
    ASSERT_TRUE(client.connect({.port = states[0].bound_port}, connect_as("a")));
    server.stop();
    const auto gone = client.expect(mqtt::PacketType::pingresp, 5000);
    ASSERT_FALSE(gone);
    EXPECT_NE(gone.error().message.find("server-shutting-down"), std::string::npos) << gone.error().message;
}

std::string publishes(mqtt::Version version, int count, std::size_t payload) {
    std::string out;
    for (int i = 1; i <= count; ++i) mqtt::encode_publish(out, version, "t", std::string(payload, 'x'), mqtt::Qos::exactly_once, false, false, static_cast<std::uint16_t>(i), {});
    return out;
}

mqtt::ConnectOptions hasty_options(mqtt::Version version) {
    auto options = connect_as("hasty");
    options.version = version;
    return options;
}

/// Sends as long as it is taken. What the peer sent can be read all the same.
void pour(mqttc::Client& client, std::string_view bytes) {
    for (std::size_t at = 0; at < bytes.size() && client.send(bytes.substr(at, 50'000)); at += 50'000) {
    }
}

TEST(Server, version_3_may_write_thousands_of_qos_2_messages_before_it_reads) {
    constexpr int count = 5000;
    for (const auto version : {mqtt::Version::v31, mqtt::Version::v311}) {
        broker::Server server(2);
        const auto states = server.apply({}, {{.resource = "a", .port = 0}});
        mqttc::Client client;
        ASSERT_TRUE(client.connect({.port = states[0].bound_port}, hasty_options(version)));
        ASSERT_TRUE(client.send(publishes(version, count, 10)));
        std::string releases;
        for (int i = 1; i <= count; ++i) {
            const auto got = client.expect(mqtt::PacketType::pubrec, 10'000);
            ASSERT_TRUE(got) << "message " << i << ": " << got.error().message;
            ASSERT_EQ(mqtt::decode_ack(got->type, got->flags, got->body, version)->packet_id, i);
            mqtt::encode_ack(releases, mqtt::PacketType::pubrel, version, static_cast<std::uint16_t>(i), mqtt::ReasonCode::success);
        }
        ASSERT_TRUE(client.send(releases));
        for (int i = 1; i <= count; ++i) ASSERT_TRUE(client.expect(mqtt::PacketType::pubcomp, 10'000)) << i;
    }
}

// A socket that is closed with input unread takes back what its peer has not read yet.
TEST(Server, what_was_answered_before_the_end_arrives_whatever_is_still_sent) {
    for (const auto version : {mqtt::Version::v5, mqtt::Version::v311, mqtt::Version::v31})
        for (const bool websocket : {false, true}) {
            broker::Server server(1);
            const auto states = server.apply({.receive_maximum = 1000, .open_identifiers_max_v3 = 1000}, {{.resource = "a", .protocol = websocket ? broker::Protocol::websockets : broker::Protocol::mqtt, .port = 0}});
            mqttc::Client client;
            ASSERT_TRUE(client.connect({.port = states[0].bound_port, .websocket = websocket}, hasty_options(version)));
            pour(client, publishes(version, 20'000, 300));
            int answered = 0;
            auto got = client.expect(mqtt::PacketType::pubrec, 10'000);
            for (; got; got = client.expect(mqtt::PacketType::pubrec, 10'000)) ++answered;
            EXPECT_EQ(answered, 1000) << got.error().message;
            if (version == mqtt::Version::v5) {
                EXPECT_NE(got.error().message.find("receive-maximum-exceeded"), std::string::npos) << got.error().message;
            }
        }
}

TEST(Server, a_refusal_arrives_whatever_is_sent_behind_connect) {
    for (const auto version : {mqtt::Version::v5, mqtt::Version::v311}) {
        broker::Server server(1);
        const auto states = server.apply({}, {{.resource = "a", .port = 0}});
        mqttc::Client client;
        ASSERT_TRUE(client.open({.port = states[0].bound_port}));
        // Version 3 with an empty identifier and clean session 0, version 5 with a will topic that has a wildcard.
        std::string bytes = version == mqtt::Version::v311 ? std::string("\x10\x0C\0\4MQTT\4\0\0\0\0\0", 14)
                                                           : std::string("\x10\x14\0\4MQTT\5\6\0\0\0\0\1a\0\0\1#\0\0", 22);
        bytes += publishes(version, 20'000, 300);
        pour(client, bytes);
        const auto got = client.expect(mqtt::PacketType::connack, 10'000);
        ASSERT_TRUE(got) << got.error().message;
        EXPECT_EQ(static_cast<unsigned char>(got->body.at(1)), version == mqtt::Version::v5 ? 0x81 : 0x02);
    }
}

// A listener that goes ends its clients, and so does the server itself: who is writing meanwhile is told why all the same.
TEST(Server, the_reason_of_the_end_arrives_at_who_is_writing) {
    for (const bool stops : {false, true}) {
        broker::Server server(1);
        const auto states = server.apply({}, {{.resource = "a", .port = 0}});
        mqttc::Client client;
        ASSERT_TRUE(client.connect({.port = states[0].bound_port}, hasty_options(mqtt::Version::v5)));
        std::string bytes;
        mqtt::encode_publish(bytes, mqtt::Version::v5, "t", std::string(100'000, 'x'), mqtt::Qos::at_most_once, false, false, 0, {});
        std::atomic<int> rounds{0};
        std::atomic<bool> ends{false};
        std::thread writer([&] {
            for (int left = 20; left > 0 && client.send(bytes); left -= ends.load()) ++rounds, rounds.notify_all();
        });
        rounds.wait(0);
        ends = true;
        if (stops) server.stop();
        else server.apply({}, {});
        writer.join();
        const auto gone = client.expect(mqtt::PacketType::pingresp, 10'000);
        ASSERT_FALSE(gone);
        EXPECT_NE(gone.error().message.find(stops ? "server-shutting-down" : "administrative-action"), std::string::npos) << gone.error().message;
    }
}

// A peer that never ends does not keep its connection, and one that is waited for costs a socket alone.
TEST(Server, who_does_not_end_is_not_waited_for_without_end) {
    broker::Server server(1);
    const auto states = server.apply({}, {{.resource = "a", .port = 0}});
    mqttc::Client client;
    ASSERT_TRUE(client.connect({.port = states[0].bound_port}, hasty_options(mqtt::Version::v5)));
    const auto sent = [&] {
        std::uint64_t total = 0;
        const std::string junk(1 << 20, '\xFF');
        for (int i = 0; i < 200 && client.send(junk); ++i) total += junk.size();
        return total;
    }();
    EXPECT_LT(sent, std::uint64_t{100} << 20) << "what comes after the end is read, and without a bound";
}

/// Descriptors of this process.
std::ptrdiff_t descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
}

/// Waits until no more are open than before.
bool come_back_to(std::ptrdiff_t before) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (descriptors() > before) {
        if (std::chrono::steady_clock::now() > give_up) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));   // between two looks
    }
    return true;
}

int knock(std::uint16_t port, std::string_view bytes) {
    const auto fd = io::connect_tcp("127.0.0.1", port, 5000);
    if (!fd) return -1;
    EXPECT_EQ(io::write_some(*fd, &bytes, 1), static_cast<long>(bytes.size()));
    return *fd;
}

// What a WebSocket still had to say when its end came kept the connection for ever.
TEST(Server, no_frames_of_a_stranger_keep_a_connection_that_ended) {
    broker::Server server(1);
    const auto states = server.apply({}, {{.resource = "a", .protocol = broker::Protocol::websockets, .port = 0}});
    const std::string upgrade = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    const std::string mask(4, '\0'), ping = "\x89\x80" + mask, close = "\x88\x80" + mask, none = "\x8B\x80" + mask, text = "\x81\x80" + mask, data = "\x82\x81" + mask + "x";
    const auto before = descriptors();
    for (const auto& end : {close, none, text, data, ping, std::string()})
        for (int pings = 0; pings < 4; ++pings) {
            std::string bytes = upgrade;
            for (int i = 0; i < pings; ++i) bytes += ping;
            const int fd = knock(states[0].bound_port, bytes + end);
            ASSERT_GE(fd, 0);
            // With the answer read, and without.
            std::array<char, 1024> answer{};
            if (pings % 2 == 0)
                while (io::read_some(fd, answer.data(), answer.size()) == 0) std::this_thread::yield();
            io::close_now(fd);
        }
    EXPECT_TRUE(come_back_to(before)) << descriptors() - before << " connections are kept";
}

/// Never says who somebody is.
struct Silent final : auth::Authenticator {
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later& later) override {
        waiting.push_back(later());
        auth::Verdict verdict;
        verdict.kind = auth::Verdict::Kind::wait;
        return verdict;
    }
    std::vector<auth::Done> waiting;
};

// Nobody waits behind those who have gone.
TEST(Server, who_leaves_while_his_verdict_is_open_is_let_go) {
    broker::Server server(1);
    const auto states = server.apply({}, {{.resource = "a", .port = 0, .authenticator = std::make_shared<Silent>()}});
    const auto before = descriptors();
    std::string connect;
    mqtt::encode_connect(connect, {.version = mqtt::Version::v5, .client_id = "c", .keep_alive = 0, .user_name = "u", .password = "p"});
    for (int i = 0; i < 20; ++i) {
        const int fd = knock(states[0].bound_port, connect);
        ASSERT_GE(fd, 0);
        io::close_now(fd);
    }
    EXPECT_TRUE(come_back_to(before)) << descriptors() - before << " connections are kept";
}

TEST(Server, large_packets_in_pieces_arrive_whole) {
    broker::Server server(2);
    const auto states = server.apply({}, {{.resource = "a", .port = 0}});
    mqttc::Client publisher, subscriber;
    ASSERT_TRUE(publisher.connect({.port = states[0].bound_port}, connect_as("p")));
    ASSERT_TRUE(subscriber.connect({.port = states[0].bound_port}, connect_as("s")));
    std::string packet;
    mqtt::encode_subscribe(packet, mqtt::Version::v5, 1, {{.filter = "big"}});
    ASSERT_TRUE(subscriber.send(packet));
    ASSERT_TRUE(subscriber.expect(mqtt::PacketType::suback, 5000));
    for (const std::size_t size : {8191u, 8192u, 70'000u, 300'000u, 5'000'000u}) {
        std::string payload(size, 'x');
        for (std::size_t i = 0; i < size; i += 997) payload[i] = static_cast<char>('a' + i % 26);
        packet.clear();
        for (int i = 0; i < 3; ++i) mqtt::encode_publish(packet, mqtt::Version::v5, "big", payload, mqtt::Qos::at_most_once, false, false, 0, {});
        for (std::size_t at = 0; at < packet.size(); at += 50'021) ASSERT_TRUE(publisher.send(std::string_view(packet).substr(at, 50'021)));
        for (int i = 0; i < 3; ++i) {
            const auto got = subscriber.expect(mqtt::PacketType::publish, 10'000);
            ASSERT_TRUE(got) << got.error().message;
            const auto message = mqtt::decode_publish(got->flags, got->body, mqtt::Version::v5, false);
            ASSERT_TRUE(message && message->payload == payload) << "size " << size;
        }
    }
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const auto sent = io::write_some(fd, &bytes, 1);
        if (sent < 0) return false;
        if (sent == 0) std::this_thread::yield();
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

// MQTT-3.1.2-22: whose packet is on its way is not silent, however long it takes.
TEST(Server, who_sends_a_large_packet_slowly_is_not_silent) {
    constexpr std::size_t large = 4'000'000, step = 40'000;
    const auto ca = crypto::make_ca("slow", 30).value();
    const auto leaf = crypto::make_leaf(ca, {.common_name = "slow", .dns_names = {"localhost"}, .addresses = {"127.0.0.1"}, .server = true, .days = 30}).value();
    const auto tls = tls::Context::server({.certificate_chain = leaf.certificate, .key = leaf.key}).value();
    broker::Server server(2);
    const auto states = server.apply({}, {{.resource = "plain", .port = 0}, {.resource = "web", .protocol = broker::Protocol::websockets, .port = 0}, {.resource = "tls", .port = 0, .tls = tls}});
    std::array<mqttc::Client, 3> clients;
    for (std::size_t i = 0; i < clients.size(); ++i) {
        auto options = connect_as(fmt::format("c{}", i));
        options.keep_alive = 1;
        ASSERT_TRUE(clients[i].connect({.port = states[i].bound_port, .websocket = i == 1, .tls = i == 2 ? tls::Context::client({.ca = ca.certificate}).value() : nullptr}, options));
    }
    std::string packet;
    mqtt::encode_publish(packet, mqtt::Version::v5, "t", std::string(large, 'x'), mqtt::Qos::at_least_once, false, false, 1, {});
    // One frame of a WebSocket, which the client would cut into as many as it is given pieces.
    std::string frame = "\x82\xff";
    for (int shift = 56; shift >= 0; shift -= 8) frame += static_cast<char>(packet.size() >> shift);
    frame += std::string(4, '\0') + packet;
    // Twice as long as a silent client has; a step each tenth of a second, all in time.
    const auto began = monotonic_ms();
    for (std::size_t at = 0; at < packet.size(); at += step) {
        const bool is_last = at + step >= packet.size();
        for (std::size_t i = 0; i < clients.size(); ++i) {
            const auto piece = std::string_view(i == 1 ? frame : packet).substr(at, is_last ? std::string_view::npos : step);
            ASSERT_TRUE(i == 1 ? write_all(clients[i].descriptor(), piece) : clients[i].send(piece).has_value()) << i;
        }
        const auto next = began + static_cast<std::int64_t>(5000 * (at + step) / packet.size());
        while (!is_last && monotonic_ms() < next) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    for (auto& client : clients) {
        const auto got = client.expect(mqtt::PacketType::puback, 10'000);
        EXPECT_TRUE(got) << got.error().message;
    }
}

TEST(Server, incomplete_packets_count_against_the_pool) {
    broker::Server server(1);
    const auto states = server.apply({.packet_size_max = 10u << 20, .pool_bytes = 4 << 20}, {{.resource = "a", .port = 0}});
    std::vector<std::unique_ptr<mqttc::Client>> clients;
    int ended = 0;
    std::string half;
    mqtt::encode_publish(half, mqtt::Version::v5, "t", std::string(2 << 20, 'x'), mqtt::Qos::at_least_once, false, false, 1, {});
    half.resize(half.size() - 10);
    for (int i = 0; i < 4; ++i) {
        clients.push_back(std::make_unique<mqttc::Client>());
        // A pool that is full already refuses the newcomer: as good an answer as ending it later.
        if (const auto taken = clients.back()->connect({.port = states[0].bound_port}, connect_as("c" + std::to_string(i))); !taken) {
            EXPECT_NE(taken.error().message.find("quota-exceeded"), std::string::npos) << taken.error().message;
            clients.pop_back();
            ++ended;
            continue;
        }
        // The broker may hang up in the middle; then the rest cannot be sent.
        [[maybe_unused]] const auto sent = clients.back()->send(half);
        std::string ping("\xC0\x00", 2);
        mqttc::Client witness;
        const auto welcome = witness.connect({.port = states[0].bound_port}, connect_as("w"));
        EXPECT_TRUE(!welcome || answers_ping(witness));
    }
    for (int round = 0; round < 100 && ended == 0; ++round)
        for (auto& client : clients) {
            const auto next = client->next(50);
            ended += !next || (*next && (*next)->type == mqtt::PacketType::disconnect) ? 1 : 0;
        }
    EXPECT_GE(ended, 1) << "four half packets of 2 MiB do not fit into 4 MiB";
    EXPECT_LE(server.pool_used(), 6 << 20);
    clients.clear();
    // Once the broker has seen them go, the memory is there for others.
    Result<void> welcome = fail("not tried");
    for (int round = 0; round < 1000 && !welcome; ++round) {
        server.collect();
        mqttc::Client after;
        welcome = after.connect({.port = states[0].bound_port}, connect_as("after"));
    }
    EXPECT_TRUE(welcome);
}

}  // namespace
}  // namespace penstock::test
