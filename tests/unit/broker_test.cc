// What needs a program rather than a table: slow readers, pauses, authentication exchanges, load over two cores.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "harness/memory_net.h"
#include "harness/packets.h"
#include "harness/script.h"
#include "io/ring.h"
#include "store/memory_engine.h"

namespace penstock::test {
namespace {

using mqtt::Version;

TEST(SlowReader, qos_0_is_bounded_and_others_are_served) {
    MemoryNet net(1);
    auto *slow = net.open(), *fast = net.open(), *publisher = net.open();
    net.send(*slow, connect_packet("slow") + subscribe_packet("t", mqtt::Qos::at_most_once));
    net.send(*fast, connect_packet("fast") + subscribe_packet("t", mqtt::Qos::at_most_once));
    net.send(*publisher, connect_packet("publisher"));
    slow->reads = false;
    const std::string payload(1000, 'x');
    for (int i = 0; i < 20'000; ++i) net.send(*publisher, publish_packet("t", payload, 0, 0));
    EXPECT_EQ(count_publishes(fast->received, Version::v5), 20'000u);
    slow->reads = true;
    net.settle();
    const auto got = count_publishes(slow->received, Version::v5);
    const auto figures = net.core(0).figures();
    EXPECT_LT(got, 20'000u);
    EXPECT_GE(got, 10'000u);
    EXPECT_EQ(got + figures.categories[0].delivery.dropped_qos0, 20'000u) << "every message is delivered or counted";
}

TEST(SlowReader, qos_1_loses_nothing_and_keeps_order) {
    MemoryNet net(2);
    auto *slow = net.open(), *publisher = net.open(1);
    net.send(*slow, connect_packet("slow") + subscribe_packet("t", mqtt::Qos::at_least_once));
    net.send(*publisher, connect_packet("publisher"));
    slow->reads = false;
    for (int i = 0; i < 5000; ++i) net.send(*publisher, publish_packet("t", std::to_string(i), 1, static_cast<std::uint16_t>(i % 60'000 + 1)));
    slow->reads = true;
    net.settle();
    std::vector<std::string> payloads;
    count_publishes(slow->received, Version::v5, &payloads);
    ASSERT_EQ(payloads.size(), 5000u);
    for (int i = 0; i < 5000; ++i) EXPECT_EQ(payloads[static_cast<std::size_t>(i)], std::to_string(i));
}

TEST(Pressure, version_3_publisher_waits_and_loses_nothing) {
    MemoryNet net(1, {.pool_bytes = 20'000});
    auto *sub = net.open(), *publisher = net.open();
    net.send(*sub, connect_packet("sub", Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = 1000}}) + subscribe_packet("t", mqtt::Qos::at_least_once));
    net.drop(*sub);
    net.send(*publisher, connect_packet("publisher", Version::v311));
    std::string all;
    for (int i = 1; i <= 40; ++i) all += publish_packet("t", std::string(1000, static_cast<char>('a' + i % 26)), 1, static_cast<std::uint16_t>(i), Version::v311);
    net.send(*publisher, all);
    EXPECT_TRUE(publisher->connection->is_paused);
    // The subscriber returns and acknowledges; the publisher goes on by itself.
    auto* again = net.open();
    net.send(*again, connect_packet("sub", Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = 1000}}, false));
    std::size_t got = 0;
    for (int round = 0; round < 200 && got < 40; ++round) {
        mqtt::Frame frame;
        std::string acks;
        std::string_view rest = again->received;
        while (mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete) {
            if (frame.type == mqtt::PacketType::publish) {
                ++got;
                mqtt::encode_ack(acks, mqtt::PacketType::puback, Version::v5, mqtt::decode_publish(frame.flags, frame.body, Version::v5, false)->packet_id, mqtt::ReasonCode::success);
            }
            rest.remove_prefix(frame.size);
        }
        again->received = rest;
        net.send(*again, acks);
    }
    EXPECT_EQ(got, 40u);
    EXPECT_FALSE(publisher->connection->is_paused);
}

TEST(Queue, a_long_queue_is_drained_in_order_through_a_small_window) {
    MemoryNet net(1);
    auto *sub = net.open(), *publisher = net.open();
    net.send(*sub, connect_packet("sub", Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = 1000}}) + subscribe_packet("t", mqtt::Qos::at_least_once));
    net.drop(*sub);
    net.send(*publisher, connect_packet("publisher"));
    // More than all packet identifiers, so that they wrap.
    const int total = 70'000;
    for (int i = 0; i < total; ++i) net.send(*publisher, publish_packet("t", std::to_string(i), 1, static_cast<std::uint16_t>(i % 65'535 + 1)));
    auto* again = net.open();
    net.send(*again, connect_packet("sub", Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = 1000}, {.id = mqtt::PropertyId::receive_maximum, .number = 7}}, false));
    int next = 0;
    while (next < total) {
        std::string acks;
        mqtt::Frame frame;
        std::string_view rest = again->received;
        int in_window = 0;
        while (mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete) {
            if (frame.type == mqtt::PacketType::publish) {
                const auto p = mqtt::decode_publish(frame.flags, frame.body, Version::v5, false);
                ASSERT_EQ(p->payload, std::to_string(next++));
                ASSERT_LE(++in_window, 7);
                mqtt::encode_ack(acks, mqtt::PacketType::puback, Version::v5, p->packet_id, mqtt::ReasonCode::success);
            }
            rest.remove_prefix(frame.size);
        }
        again->received = rest;
        ASSERT_FALSE(acks.empty()) << "the queue stands still at " << next;
        net.send(*again, acks);
    }
}

/// A challenge of two steps: the client must send `two` after the server's `one?`.
class TwoSteps final : public auth::Authenticator {
    struct Second final : auth::Exchange {
        auth::Verdict proceed(std::string_view data) override {
            if (data == "two") return {.kind = auth::Verdict::Kind::accept, .reason = mqtt::ReasonCode::success, .data = "welcome"};
            return {.kind = auth::Verdict::Kind::refuse, .reason = mqtt::ReasonCode::not_authorized, .reason_string = "wrong answer"};
        }
    };
    auth::Verdict begin(const auth::Credentials& credentials, std::unique_ptr<auth::Exchange>& exchange, const auth::Later&) override {
        if (!credentials.method) return {.kind = auth::Verdict::Kind::refuse, .reason = mqtt::ReasonCode::bad_user_name_or_password};
        exchange = std::make_unique<Second>();
        return {.kind = auth::Verdict::Kind::go_on, .reason = mqtt::ReasonCode::success, .data = "one?"};
    }
};

std::string auth_packet(std::uint8_t reason, const std::string& data, const std::string& method = "steps") {
    std::string properties, out;
    mqtt::write_property(properties, mqtt::PropertyId::authentication_method, method);
    mqtt::write_property(properties, mqtt::PropertyId::authentication_data, data);
    mqtt::encode_auth(out, static_cast<mqtt::ReasonCode>(reason), properties);
    return out;
}
mqtt::PropertyList method_properties() { return {{.id = mqtt::PropertyId::authentication_method, .text = "steps"}}; }

// Who asks and does not read: TCP holds it back, and nothing of what it asked for is lost.
TEST(Floods, answers_that_nobody_reads_are_bounded) {
    MemoryNet net(1);
    auto* a = net.open();
    net.send(*a, connect_packet("a"));
    a->received.clear();
    a->reads = false;
    std::string many;
    for (int i = 0; i < 30'000; ++i) many += std::string_view("\xC0\x00", 2);
    for (int i = 0; i < 100; ++i) net.send(*a, many);
    EXPECT_LE(a->connection->out->pending(), broker::Core::unread_max + 2);
    EXPECT_TRUE(a->connection->is_paused);
    a->reads = true;
    net.settle();
    EXPECT_EQ(a->received.size(), 2u * 30'000 * 100);
}

TEST(Floods, one_subscribe_for_all_there_is_many_times_is_served_as_it_is_read) {
    MemoryNet net(1);
    auto *publisher = net.open(), *a = net.open();
    net.send(*publisher, connect_packet("publisher"));
    for (int i = 0; i < 100; ++i) {
        std::string packet;
        mqtt::encode_publish(packet, Version::v5, "t/" + std::to_string(i), std::string(5000, 'x'), mqtt::Qos::at_most_once, true, false, 0, {});
        net.send(*publisher, packet);
    }
    mqtt::PropertyList none;
    std::string connect;
    mqtt::encode_connect(connect, {.version = Version::v5, .client_id = "a", .clean_start = true, .keep_alive = 10});
    net.send(*a, connect);
    a->received.clear();
    a->reads = false;
    const std::vector<mqtt::SubscriptionView> all(200, {.filter = "t/#", .qos = mqtt::Qos::at_most_once});
    std::string packet;
    mqtt::encode_subscribe(packet, Version::v5, 1, all);
    net.send(*a, packet + std::string("\xC0\x00", 2));
    EXPECT_LE(a->connection->session->queued(), 1200u);
    a->reads = true;
    net.settle();
    EXPECT_NE(a->received.find(std::string("\xD0\x00", 2)), std::string::npos);
    EXPECT_EQ(count_publishes(a->received, Version::v5), 200u * 100);
    // Who goes on asking and never reads is told so.
    a->reads = false;
    const std::vector<mqtt::SubscriptionView> more(5000, {.filter = "t/#", .qos = mqtt::Qos::at_most_once});
    packet.clear();
    mqtt::encode_subscribe(packet, Version::v5, 1, more);
    for (int i = 0; i < 3; ++i) net.send(*a, packet);
    net.settle();
    EXPECT_TRUE(a->is_closed);
    EXPECT_GE(a->received.size(), 3u);
    EXPECT_NE(a->received.rfind("\xE0"), std::string::npos);
}

// What a client makes the broker remember is bounded in bytes: names of aliases in both directions.
TEST(Floods, names_that_a_client_makes_the_broker_remember_are_bounded) {
    MemoryNet net(1, {.pool_bytes = 1 << 20});
    auto *a = net.open(), *b = net.open();
    net.send(*b, connect_packet("b", Version::v5, {{.id = mqtt::PropertyId::topic_alias_maximum, .number = 65'535}}) + subscribe_packet("#", mqtt::Qos::at_most_once));
    net.send(*a, connect_packet("a"));
    for (int i = 0; i < 5000; ++i) net.send(*a, publish_packet("t/" + std::string(100, 'x') + std::to_string(i), "x", 0, 0));
    EXPECT_EQ(count_publishes(b->received, Version::v5), 5000u);
    ASSERT_NE(b->connection->aliases, nullptr);
    EXPECT_LE(b->connection->aliases->outgoing_bytes, 64u * 1024);
    EXPECT_LE(b->connection->aliases->outgoing.size(), 1000u);
    // Those of publishers count as messages, and go with the connection.
    const auto before = net.shared().pool_used();
    auto* c = net.open();
    net.send(*c, connect_packet("c"));
    auto aliased = [](std::uint32_t alias, std::size_t size) {
        std::string properties, packet;
        mqtt::write_property(properties, mqtt::PropertyId::topic_alias, alias);
        mqtt::encode_publish(packet, Version::v5, "$t" + std::string(size, 'x'), "", mqtt::Qos::at_most_once, false, false, 0, properties);
        return packet;
    };
    net.send(*c, aliased(1, 60'000) + aliased(2, 60'000) + aliased(2, 10'000));
    EXPECT_EQ(net.shared().pool_used() - before, 70'004);
    std::string all;
    for (std::uint32_t i = 3; i <= 32; ++i) all += aliased(i, 60'000);
    net.send(*c, all);
    EXPECT_TRUE(c->is_closed);
    EXPECT_NE(c->received.find("\xE0"), std::string::npos);
    EXPECT_EQ(net.shared().pool_used(), before);
}

// Filters of one client are bounded by themselves, and by what the pool has.
TEST(Floods, filters_that_a_client_makes_the_broker_remember_are_bounded) {
    std::vector<std::string> filters;
    for (int i = 0; i < 200; ++i) filters.push_back(std::string(60'000, 'x') + std::to_string(i));
    auto bytes_taken = [&](MemoryNet& net) {
        auto* a = net.open();
        net.send(*a, connect_packet("a"));
        for (int i = 0; i < 200; i += 10) {
            std::vector<mqtt::SubscriptionView> entries;
            for (int k = i; k < i + 10; ++k) entries.push_back({.filter = filters[static_cast<std::size_t>(k)], .qos = mqtt::Qos::at_most_once});
            std::string packet;
            mqtt::encode_subscribe(packet, Version::v5, 1, entries);
            a->received.clear();
            net.send(*a, packet);
        }
        EXPECT_EQ(static_cast<unsigned char>(a->received.back()), 0x97);
        return net.core(0).find_session("a")->subscriptions.bytes();
    };
    {
        MemoryNet net(1);
        const auto bytes = bytes_taken(net);
        EXPECT_LE(bytes, 8u << 20);
        EXPECT_GT(bytes, 7u << 20);
    }
    MemoryNet small(1, {.pool_bytes = 1 << 20});
    EXPECT_GT(bytes_taken(small), 0u);
    EXPECT_LE(small.shared().pool_used(), 2 << 20) << "one SUBSCRIBE, which has at most 1 MiB, beyond";
}

// Nobody but the server writes `$SYS`, not by a detour either.
TEST(StateStore, answers_do_not_go_to_topics_of_the_server) {
    MemoryNet net(1);
    auto* a = net.open();
    net.send(*a, connect_packet("a"));
    std::string properties, packet;
    mqtt::write_property(properties, mqtt::PropertyId::response_topic, "$SYS/broker/version");
    mqtt::write_property(properties, mqtt::PropertyId::correlation_data, "1234567890123456");
    mqtt::encode_publish(packet, Version::v5, statestore::request_topic, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", mqtt::Qos::at_least_once, false, false, 9, properties);
    net.send(*a, packet);
    EXPECT_TRUE(a->is_closed);
}

// Many subscriptions of one client cost what they are, not their square; and there is a bound.
TEST(Floods, a_client_with_very_many_subscriptions) {
    MemoryNet net(1);
    auto* a = net.open();
    net.send(*a, connect_packet("a"));
    a->received.clear();
    auto packet_of = [](int from, int to) {
        std::vector<std::string> filters;
        for (int i = from; i < to; ++i) filters.push_back("t/" + std::to_string(i));
        std::vector<mqtt::SubscriptionView> entries;
        for (const auto& filter : filters) entries.push_back({.filter = filter, .qos = mqtt::Qos::at_most_once});
        std::string packet;
        mqtt::encode_subscribe(packet, Version::v5, 1, entries);
        return packet;
    };
    for (int i = 0; i < 10; ++i) net.send(*a, packet_of(i * 10'000, (i + 1) * 10'000));
    EXPECT_EQ(net.core(0).figures().subscriptions, 100'000u);
    a->received.clear();
    net.send(*a, packet_of(99'999, 100'001));
    EXPECT_EQ(static_cast<unsigned char>(a->received.at(a->received.size() - 2)), 0x00) << "known already";
    EXPECT_EQ(static_cast<unsigned char>(a->received.back()), 0x97) << "quota exceeded";
    // Unsubscribed in an order of its own, all are found.
    for (int i = 0; i < 10; ++i) {
        std::vector<std::string> filters;
        for (int k = 0; k < 10'000; ++k) filters.push_back("t/" + std::to_string((k * 10 + i) % 100'000));
        std::string packet;
        mqtt::encode_unsubscribe(packet, Version::v5, 2, {filters.begin(), filters.end()});
        a->received.clear();
        net.send(*a, packet);
        EXPECT_EQ(std::ranges::count(std::string_view(a->received).substr(a->received.size() - 10'000), '\0'), 10'000);
    }
    EXPECT_EQ(net.core(0).figures().subscriptions, 0u);
    // No packet but PUBLISH may be that large.
    std::string large("\x82\x80\x80\x80\x01", 5);
    net.send(*a, large);
    EXPECT_TRUE(a->is_closed);
}

// Who is not read, because it does not read itself, is ended by the keep alive as if it were gone [MQTT-3.1.2-22].
TEST(Floods, who_never_reads_is_ended_by_the_keep_alive) {
    MemoryNet net(1);
    auto* a = net.open();
    std::string connect, many;
    mqtt::encode_connect(connect, {.version = Version::v5, .client_id = "a", .clean_start = true, .keep_alive = 10});
    net.send(*a, connect);
    a->reads = false;
    for (int i = 0; i < 600'000; ++i) many += std::string_view("\xC0\x00", 2);
    net.send(*a, many);
    EXPECT_TRUE(a->connection->is_stuffed);
    net.advance(20'000);
    EXPECT_TRUE(a->is_closed);
}

/// Lets everybody in whose password is right.
struct ByPassword final : auth::Authenticator {
    auth::Verdict begin(const auth::Credentials& credentials, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
        if (credentials.password.value_or("") == "wrong") return auth::Verdict::refused(mqtt::ReasonCode::bad_user_name_or_password, "wrong");
        const std::string user(credentials.user_name.value_or(""));
        return auth::Verdict::accepted({.method = "Password", .user_name = user, .id = "user/" + user});
    }
};
std::string login(const std::string& id, const std::string& user, const std::string& password) {
    std::string out;
    mqtt::encode_connect(out, {.version = Version::v5, .client_id = id, .clean_start = true, .keep_alive = 0, .user_name = user, .password = password});
    return out;
}

// Many devices stand behind one address. One with a wrong password must not lock out the others; and who is known has no free guesses.
TEST(Guessing, one_wrong_device_does_not_lock_out_the_others_behind_its_address) {
    MemoryNet net(1, {}, std::make_shared<ByPassword>());
    auto reason = [&](const std::string& id, const std::string& user, const std::string& password) {
        auto* end = net.open();
        net.send(*end, login(id, user, password));
        return static_cast<unsigned char>(end->received.at(3));
    };
    EXPECT_EQ(reason("pump", "pump", "right"), 0);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(reason("meter", "meter", "wrong"), 0x86);
    EXPECT_EQ(reason("meter", "meter", "wrong"), 0x9F) << "one that repeats itself";
    EXPECT_EQ(reason("lamp", "lamp", "right"), 0) << "who was never seen before, behind the same address";
    for (int i = 0; i < 15; ++i) EXPECT_EQ(reason(fmt::format("guess-{}", i), "meter", "wrong"), 0x86);
    EXPECT_EQ(reason("valve", "valve", "right"), 0x9F) << "a stranger at that address";
    EXPECT_EQ(reason("pump", "pump", "right"), 0) << "known since before";
    EXPECT_EQ(reason("pump", "other", "right"), 0x9F) << "not with another name";
    for (int i = 0; i < 20; ++i) EXPECT_EQ(reason("pump", "pump", "wrong"), 0x86);
    EXPECT_EQ(reason("pump", "pump", "right"), 0x9F) << "guesses in a known name are counted too";
    net.advance(30'000);
    EXPECT_EQ(reason("pump", "pump", "right"), 0);
    EXPECT_EQ(reason("valve", "valve", "right"), 0);
}

// The answer of the state store is the broker's own publication: it must not carry a client's bytes to where the client may not publish,
// nor to where it may not read.
TEST(StateStore, answers_go_only_to_topics_that_the_client_may_use) {
    auth::Rule rule{.client_ids = {"a"}, .resources = {{.action = auth::Action::connect, .patterns = {}}, {.action = auth::Action::publish, .patterns = {std::string(statestore::request_topic), "mine/#"}},
                    {.action = auth::Action::subscribe, .patterns = {"clients/{principal.clientId}/#", "plant/#", "mine/#"}}}, .keys = {{.read = true, .write = true, .keys = {"*"}}}};
    MemoryNet net(1, {}, std::make_shared<ByPassword>(), std::make_shared<auth::Policy>(std::vector{rule}, "policy"));
    auto* a = net.open();
    net.send(*a, login("a", "a", "right"));
    for (const auto& [topic, reason, answers] : std::vector<std::tuple<std::string, int, std::size_t>>{{"clients/a/r", 0, 1}, {"mine/r", 0, 1}, {"plant/valve", 0x87, 0}, {"clients/b/r", 0x87, 0}, {"nowhere", 0x87, 0}}) {
        net.send(*a, subscribe_packet(topic, mqtt::Qos::at_most_once));
        a->received.clear();
        std::string properties, packet;
        mqtt::write_property(properties, mqtt::PropertyId::response_topic, topic);
        mqtt::write_property(properties, mqtt::PropertyId::correlation_data, "1234567890123456");
        mqtt::encode_publish(packet, Version::v5, statestore::request_topic, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", mqtt::Qos::at_least_once, false, false, 9, properties);
        net.send(*a, packet);
        int got = -1;
        std::string_view rest = a->received;
        mqtt::Frame frame;
        for (; mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete; rest.remove_prefix(frame.size))
            if (frame.type == mqtt::PacketType::puback) got = static_cast<int>(mqtt::decode_ack(frame.type, frame.flags, frame.body, Version::v5)->reason);
        EXPECT_EQ(got, reason) << topic;
        EXPECT_EQ(count_publishes(a->received, Version::v5), answers) << topic;
    }
}

// A new credential with other attributes: what it does not allow any more ends [MQTT-4.12.1-2 allows to close].
TEST(EnhancedAuthentication, a_new_credential_that_allows_less_ends_what_it_does_not_allow) {
    struct Shrinking final : auth::Authenticator {
        auth::Verdict begin(const auth::Credentials& credentials, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
            const std::string group(credentials.data);
            return auth::Verdict::accepted({.method = "steps", .user_name = "u", .id = "u", .attributes = std::make_shared<const auth::Attributes>(auth::Attributes{{"group", group}})});
        }
    };
    auth::Rule connects{.user_names = {"u"}, .resources = {{.action = auth::Action::connect, .patterns = {}}}};
    auth::Rule reads{.attributes = {{{"group", "readers"}}}, .resources = {{.action = auth::Action::subscribe, .patterns = {"secret/#"}}}};
    auth::Rule banned{.attributes = {{{"group", "readers"}}}, .resources = {{.action = auth::Action::connect, .patterns = {}}}};
    for (const bool may_stay : {true, false}) {
        MemoryNet net(1, {}, std::make_shared<Shrinking>(), std::make_shared<auth::Policy>(may_stay ? std::vector{connects, reads} : std::vector{banned, reads}, "policy"));
        auto *a = net.open(), *b = net.open();
        auto properties = method_properties();
        properties.push_back({.id = mqtt::PropertyId::authentication_data, .text = "readers"});
        net.send(*a, connect_packet("a", Version::v5, properties) + subscribe_packet("secret/#", mqtt::Qos::at_most_once));
        static_cast<void>(b);
        net.core(0).publish({.topic = "secret/1", .payload = "x", .properties = {}, .partition = {}}, net.now());
        net.settle();
        EXPECT_EQ(count_publishes(a->received, Version::v5), 1u);
        net.send(*a, auth_packet(0x19, "others"));
        EXPECT_EQ(a->is_closed, !may_stay);
        net.core(0).publish({.topic = "secret/1", .payload = "x", .properties = {}, .partition = {}}, net.now());
        net.settle();
        EXPECT_EQ(count_publishes(a->received, Version::v5), 0u) << "the new credential does not allow it";
    }
}

TEST(EnhancedAuthentication, exchange_and_reauthentication) {
    RecordProperty("MQTT-4.12.0-2", "checked");
    RecordProperty("MQTT-4.12.0-5", "checked");
    RecordProperty("MQTT-4.12.1-1", "checked");
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        MemoryNet net(cores, {}, std::make_shared<TwoSteps>());
        auto* a = net.open();
        net.send(*a, connect_packet("a", Version::v5, method_properties()));
        ASSERT_FALSE(a->received.empty());
        EXPECT_EQ(static_cast<unsigned char>(a->received[0]), 0xF0);
        EXPECT_EQ(a->received[2], 0x18);
        a->received.clear();
        net.send(*a, auth_packet(0x18, "two"));
        ASSERT_GE(a->received.size(), 4u);
        EXPECT_EQ(a->received[0], 0x20);
        EXPECT_EQ(a->received[3], 0);
        EXPECT_NE(a->received.find("welcome"), std::string::npos);
        a->received.clear();
        net.send(*a, auth_packet(0x19, ""));
        EXPECT_EQ(a->received[2], 0x18);
        a->received.clear();
        net.send(*a, auth_packet(0x18, "two"));
        EXPECT_EQ(a->received[2], 0x00);
        EXPECT_FALSE(a->is_closed);
        // AUTH carries neither reason string nor user properties, so that it never outgrows the client.
        RecordProperty("MQTT-3.15.2-2", "checked");
        RecordProperty("MQTT-3.15.2-3", "checked");
        a->received.clear();
        RecordProperty("MQTT-4.12.1-2", "checked");
        net.send(*a, auth_packet(0x19, ""));
        a->received.clear();
        net.send(*a, auth_packet(0x18, "wrong"));
        EXPECT_TRUE(a->is_closed);
        ASSERT_GE(a->received.size(), 3u);
        EXPECT_EQ(static_cast<unsigned char>(a->received[0]), 0xE0);
        EXPECT_EQ(static_cast<unsigned char>(a->received[2]), 0x87);
    }
}

TEST(EnhancedAuthentication, wrong_answer_other_method_and_other_packets_are_refused) {
    RecordProperty("MQTT-4.12.0-4", "checked");
    RecordProperty("MQTT-3.1.2-30", "checked");
    RecordProperty("MQTT-4.12.0-6", "checked");
    RecordProperty("MQTT-4.12.0-7", "checked");
    auto after_connect = [](const std::string& then) {
        MemoryNet net(1, {}, std::make_shared<TwoSteps>());
        auto* a = net.open();
        net.send(*a, connect_packet("a", Version::v5, method_properties()));
        a->received.clear();
        net.send(*a, then);
        EXPECT_TRUE(a->is_closed);
        return a->received.size() > 3 && a->received[0] == 0x20 ? static_cast<unsigned char>(a->received[3]) : 0;
    };
    EXPECT_EQ(after_connect(auth_packet(0x18, "three")), 0x87);
    EXPECT_EQ(after_connect(auth_packet(0x18, "two", "other")), 0x82);
    EXPECT_EQ(after_connect(auth_packet(0x19, "two")), 0x82);
    EXPECT_EQ(after_connect(publish_packet("t", "x", 0, 0)), 0x82);
    MemoryNet net(1, {}, std::make_shared<TwoSteps>());
    auto* plain = net.open();
    net.send(*plain, connect_packet("plain"));
    EXPECT_EQ(static_cast<unsigned char>(plain->received.at(3)), 0x86);
}

// No packet is larger than the client takes [MQTT-3.1.2-24], and none has a reason that is not of its kind [MQTT-3.14.2-1].
TEST(Letter, auth_that_does_not_fit_the_client) {
    auto with_limit = [](std::uint32_t limit) {
        auto properties = method_properties();
        properties.push_back({.id = mqtt::PropertyId::maximum_packet_size, .number = limit});
        return connect_packet("a", Version::v5, properties);
    };
    // AUTH has 4 bytes, 8 of the method and 7 of data.
    MemoryNet net(1, {}, std::make_shared<TwoSteps>());
    auto* fits = net.open();
    net.send(*fits, with_limit(19));
    EXPECT_EQ(fits->received.size(), 19u);
    EXPECT_EQ(static_cast<unsigned char>(fits->received.at(0)), 0xF0);
    auto* small = net.open();
    net.send(*small, with_limit(18));
    EXPECT_TRUE(small->is_closed);
    EXPECT_EQ(small->received, std::string("\x20\x03\x00\x95\x00", 5)) << "CONNACK 0x95 without a reason string";
    auto* smallest = net.open();
    net.send(*smallest, with_limit(4));
    EXPECT_TRUE(smallest->is_closed);
    EXPECT_EQ(smallest->received, "");
}

TEST(Letter, a_failed_reauthentication_has_a_reason_of_disconnect) {
    /// Accepts, and says later with what is given.
    class Says final : public auth::Authenticator {
      public:
        mqtt::ReasonCode later{};

      private:
        auth::Verdict begin(const auth::Credentials& credentials, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
            return credentials.is_again ? auth::Verdict::refused(later, "no") : auth::Verdict::accepted({});
        }
    };
    using enum mqtt::ReasonCode;
    const std::pair<mqtt::ReasonCode, mqtt::ReasonCode> expected[] = {{not_authorized, not_authorized}, {bad_user_name_or_password, not_authorized}, {bad_authentication_method, not_authorized},
                                                                      {banned, not_authorized}, {server_unavailable, server_busy}, {server_busy, server_busy}, {unsupported_protocol_version, unspecified_error}};
    for (const auto& [said, told] : expected) {
        const auto says = std::make_shared<Says>();
        says->later = said;
        MemoryNet net(1, {}, says);
        auto* a = net.open();
        net.send(*a, connect_packet("a", Version::v5, method_properties()));
        a->received.clear();
        net.send(*a, auth_packet(0x19, "again"));
        EXPECT_TRUE(a->is_closed);
        ASSERT_GE(a->received.size(), 3u);
        EXPECT_EQ(static_cast<unsigned char>(a->received[0]), 0xE0);
        EXPECT_EQ(static_cast<mqtt::ReasonCode>(a->received[2]), told) << mqtt::reason_name(said);
    }
}

// What version 3 reads of each reason, and what it cannot be told [MQTT311-3.2.2-6].
TEST(Letter, refusals_of_version_3) {
    class Refuses final : public auth::Authenticator {
      public:
        mqtt::ReasonCode with{};

      private:
        auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later&) override { return auth::Verdict::refused(with, "no"); }
    };
    using enum mqtt::ReasonCode;
    const std::pair<mqtt::ReasonCode, int> expected[] = {{unsupported_protocol_version, 1}, {client_identifier_not_valid, 2}, {server_unavailable, 3}, {server_busy, 3}, {quota_exceeded, 3}, {unspecified_error, 3},
                                                         {server_shutting_down, 3}, {bad_user_name_or_password, 4}, {not_authorized, 5}, {banned, 5}, {bad_authentication_method, 5},
                                                         {topic_name_invalid, -1}, {packet_too_large, -1}, {qos_not_supported, -1}, {malformed_packet, -1}, {protocol_error, -1}, {payload_format_invalid, -1}};
    for (const auto version : {Version::v31, Version::v311})
        for (const auto& [said, told] : expected) {
            const auto refuses = std::make_shared<Refuses>();
            refuses->with = said;
            MemoryNet net(1, {}, refuses);
            auto* a = net.open();
            net.send(*a, connect_packet("a", version));
            EXPECT_TRUE(a->is_closed);
            const std::string connack{'\x20', '\x02', '\0', static_cast<char>(told)};
            EXPECT_EQ(a->received, told < 0 ? std::string() : connack) << mqtt::reason_name(said);
        }
}

// A bridge has a will on its state topic whether the rules allow it or not.
TEST(Bridge, rules_that_do_not_allow_its_notification_do_not_refuse_it) {
    class Anybody final : public auth::Authenticator {
        auth::Verdict begin(const auth::Credentials& c, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
            return auth::Verdict::accepted({.method = "Anybody", .user_name = std::string(c.client_id), .id = "user/" + std::string(c.client_id)});
        }
    };
    const auto policy = [](std::vector<std::string> publish) {
        std::vector<auth::Rule> rules{{.user_names = {"edge", "watcher"}, .resources = {{auth::Action::connect, {}}, {auth::Action::publish, std::move(publish)}, {auth::Action::subscribe, {"#", "$SYS/#"}}}}};
        return std::make_shared<const auth::Policy>(std::move(rules), "test/policy");
    };
    const auto connect_with_will = [](Version version, const std::string& topic) {
        mqtt::ConnectOptions options{.version = version, .client_id = "edge", .keep_alive = 0};
        options.has_will = options.will_retain = true;
        options.will_topic = topic;
        options.will_payload = "0";
        std::string out;
        mqtt::encode_connect(out, options);
        if (version != Version::v5) out[2 + 2 + 4] = static_cast<char>(out[2 + 2 + 4] | 0x80);
        return out;
    };
    const std::string state = "$SYS/broker/connection/edge/state";
    for (const auto version : {Version::v311, Version::v5})
        for (const bool allowed : {false, true}) {
            MemoryNet net(1, {}, std::make_shared<Anybody>(), policy(allowed ? std::vector<std::string>{"t/#", "$SYS/broker/connection/+/state"} : std::vector<std::string>{"t/#"}));
            auto *bridge = net.open(), *watcher = net.open();
            net.send(*watcher, connect_packet("watcher") + subscribe_packet(state, mqtt::Qos::at_most_once));
            watcher->received.clear();
            net.send(*bridge, connect_with_will(version, state));
            ASSERT_FALSE(bridge->is_closed);
            EXPECT_EQ(bridge->received.at(3), 0);
            net.send(*bridge, publish_packet(state, "1", 1, 7, version));
            EXPECT_FALSE(bridge->is_closed);
            net.drop(*bridge);
            std::vector<std::string> seen;
            count_publishes(watcher->received, Version::v5, &seen);
            EXPECT_EQ(seen, allowed ? (std::vector<std::string>{"1", "0"}) : std::vector<std::string>()) << "what no rule allows goes nowhere";
            const auto& decisions = net.core(0).decisions();
            EXPECT_EQ(std::ranges::count_if(decisions, [&](const auto& d) { return d.target == state && d.why.contains("without this will"); }), allowed ? 0 : 1);
        }
    // Any other will that is not allowed refuses the CONNECT, as for everybody.
    MemoryNet net(1, {}, std::make_shared<Anybody>(), policy({"t/#"}));
    auto* bridge = net.open();
    net.send(*bridge, connect_with_will(Version::v311, "elsewhere"));
    EXPECT_TRUE(bridge->is_closed);
    EXPECT_EQ(bridge->received, std::string("\x20\x02\x00\x05", 4));
}

/// A durable engine whose disk is always done, and which knows of one QoS 2 message from before a crash.
class MarkedEngine final : public store::MemoryEngine {
  public:
    MarkedEngine(std::string publisher, std::uint16_t packet_id) : publisher_(std::move(publisher)), packet_id_(packet_id) {}
    bool is_durable() const noexcept override { return true; }
    void recover(const std::function<bool(std::string_view)>&, store::Recovered& into) override {
        if (packet_id_ != 0) into.seen(publisher_, packet_id_, {.worker = 1, .workers = 2});
    }

  private:
    std::string publisher_;
    std::uint16_t packet_id_;
};

/// A crash between two workers' forgetting of a QoS 2 message leaves a mark on one of them. It goes when the publisher sends its PUBREL
/// again, or begins anew; else it would swallow a later message with that identifier that is sent with DUP [MQTT-4.3.3-10].
TEST(ExactlyOnce, a_mark_that_a_crash_left_swallows_nothing) {
    auto on = [](std::uint32_t core, const std::string& word) {
        for (int i = 0;; ++i)
            if (const auto name = fmt::format("{}{}", word, i); broker::Core::home_of(name, 2) == core) return name;
    };
    const auto subscriber_id = on(1, "subscriber"), publisher_id = on(0, "publisher");
    for (const bool anew : {false, true}) {
        MemoryNet net(2, {}, nullptr, nullptr, [&](std::uint32_t core) { return std::make_unique<MarkedEngine>(publisher_id, core == 1 ? 5 : 0); });
        const mqtt::PropertyList kept{{.id = mqtt::PropertyId::session_expiry_interval, .number = 1000}};
        auto *subscriber = net.open(1), *publisher = net.open(0);
        net.send(*subscriber, connect_packet(subscriber_id) + subscribe_packet("t", mqtt::Qos::exactly_once));
        net.send(*publisher, connect_packet(publisher_id, Version::v5, kept, false));
        std::string packet;
        if (anew) {
            net.drop(*publisher);
            publisher = net.open(0);
            net.send(*publisher, connect_packet(publisher_id, Version::v5, kept, true));
        } else {
            mqtt::encode_ack(packet, mqtt::PacketType::pubrel, Version::v5, 5, mqtt::ReasonCode::success);
            net.send(*publisher, packet);
        }
        packet.clear();
        mqtt::encode_publish(packet, Version::v5, "t", "another message", mqtt::Qos::exactly_once, false, true, 5, {});
        net.send(*publisher, packet);
        std::vector<std::string> payloads;
        count_publishes(subscriber->received, Version::v5, &payloads);
        EXPECT_EQ(payloads, std::vector<std::string>{"another message"}) << (anew ? "clean start" : "PUBREL again");
    }
}

TEST(SharedGroup, members_on_two_cores_take_turns_and_none_is_lost_when_one_leaves) {
    MemoryNet net(2);
    std::vector<MemoryNet::End*> members;
    for (int i = 0; i < 6; ++i) {
        members.push_back(net.open());
        net.send(*members.back(), connect_packet("member" + std::to_string(i)) + subscribe_packet("$share/g/t/#", mqtt::Qos::at_least_once));
    }
    auto* publisher = net.open();
    net.send(*publisher, connect_packet("publisher"));
    for (int i = 0; i < 600; ++i) {
        if (i == 300) net.send(*members[0], std::string("\xE0\x00", 2));
        net.send(*publisher, publish_packet("t/x", std::to_string(i), 1, static_cast<std::uint16_t>(i + 1)));
    }
    std::size_t sum = 0, of_leaver = 0;
    std::set<std::string> distinct;
    for (auto* m : members) {
        std::vector<std::string> payloads;
        const auto got = count_publishes(m->received, Version::v5, &payloads);
        EXPECT_GT(got, 40u);
        if (m == members[0]) of_leaver = got;
        sum += got;
        distinct.insert(payloads.begin(), payloads.end());
    }
    EXPECT_EQ(distinct.size(), 600u);
    EXPECT_EQ(sum, 600u + of_leaver) << "it acknowledged nothing: others got that too";
}

TEST(Retained, cores_agree_whoever_wrote_last) {
    MemoryNet net(3);
    std::vector<MemoryNet::End*> writers;
    for (int i = 0; i < 6; ++i) {
        writers.push_back(net.open());
        net.send(*writers.back(), connect_packet("writer" + std::to_string(i)));
    }
    for (int i = 0; i < 300; ++i) {
        std::string packet;
        mqtt::encode_publish(packet, Version::v5, "t/" + std::to_string(i % 7), i % 11 == 0 ? "" : std::to_string(i), mqtt::Qos::at_most_once, true, false, 0, {});
        net.send(*writers[static_cast<std::size_t>(i * 5 % 6)], packet);
    }
    std::vector<std::string> views;
    for (int i = 0; i < 9; ++i) {
        auto* reader = net.open();
        net.send(*reader, connect_packet("reader" + std::to_string(i)));
        reader->received.clear();
        net.send(*reader, subscribe_packet("t/#", mqtt::Qos::at_most_once));
        std::vector<std::string> payloads;
        count_publishes(reader->received, Version::v5, &payloads);
        std::ranges::sort(payloads);
        std::string all;
        for (const auto& p : payloads) all += p + ",";
        views.push_back(all);
    }
    for (const auto& v : views) EXPECT_EQ(v, views[0]);
    EXPECT_FALSE(views[0].empty());
}

TEST(Memory, everything_is_given_back) {
    MemoryNet net(2);
    {
        std::vector<MemoryNet::End*> ends;
        for (int i = 0; i < 50; ++i) {
            ends.push_back(net.open());
            net.send(*ends.back(), connect_packet("c" + std::to_string(i)) + subscribe_packet("t/#", mqtt::Qos::exactly_once));
        }
        for (int i = 0; i < 50; ++i) net.send(*ends[static_cast<std::size_t>(i)], publish_packet("t/x", std::string(500, 'x'), 2, 1));
        for (auto* end : ends) net.drop(*end);
    }
    EXPECT_EQ(net.shared().pool_used(), 0);
    for (std::size_t i = 0; i < net.cores(); ++i) {
        const auto f = net.core(i).figures();
        EXPECT_EQ(f.sessions, 0u);
        EXPECT_EQ(f.connections, 0u);
        EXPECT_EQ(f.subscriptions, 0u);
    }
}

TEST(Ring, refuses_when_full_and_keeps_order) {
    io::Ring<int, 4> ring;
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(ring.try_push(i));
    int extra = 9, out = -1;
    EXPECT_FALSE(ring.try_push(extra));
    for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(ring.try_pop(out));
        EXPECT_EQ(out, i);
    }
    EXPECT_FALSE(ring.try_pop(out));
}

}  // namespace
}  // namespace penstock::test
