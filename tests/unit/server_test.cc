// The broker with its threads and sockets.
#include <gtest/gtest.h>

#include "broker/server.h"
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
