// The number of workers changes while clients are connected: nobody notices but by a moment of silence.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "broker/server.h"
#include "harness/packets.h"
#include "mqttc/client.h"
#include "store/durable.h"

namespace penstock::test {
namespace {

namespace fs = std::filesystem;
using broker::Server;
using mqtt::PacketType;
using mqtt::Qos;
using mqtt::Version;

constexpr std::uint32_t long_time = 100'000;

struct Folder {
    fs::path path = fs::temp_directory_path() / ("penstock-workers-" + random_uuid());
    ~Folder() { fs::remove_all(path); }
};

/// A client that counts what it gets and acknowledges it.
struct Person {
    mqttc::Client client;
    std::string id;
    std::vector<std::string> got;
    std::vector<std::string> topics;

    explicit Person(std::string name) : id(std::move(name)) {}
    Result<void> connect(const mqttc::Target& target, bool clean = true, std::uint32_t expiry = 0, mqtt::ConnectOptions options = {}) {
        options.version = Version::v5;
        options.client_id = id;
        options.clean_start = clean;
        options.keep_alive = 0;
        if (expiry != 0) options.properties.push_back({.id = mqtt::PropertyId::session_expiry_interval, .number = expiry});
        return client.connect(target, options);
    }
    bool subscribe(const std::string& filter, Qos qos) { return client.send(subscribe_packet(filter, qos)) && client.expect(PacketType::suback, 10'000); }
    bool send(PacketType type, std::uint16_t packet_id) {
        std::string out;
        mqtt::encode_ack(out, type, Version::v5, packet_id, mqtt::ReasonCode::success);
        return client.send(out).has_value();
    }
    /// Handles packets until one of `type` came, or `count` messages are there; false: the connection is gone or nothing came.
    bool until(PacketType type, std::size_t count = static_cast<std::size_t>(-1), int timeout_ms = 60'000) {
        while (got.size() < count) {
            const auto next = client.next(timeout_ms);
            if (!next || !*next) return false;
            const auto& packet = **next;
            if (packet.type == PacketType::publish) {
                const auto p = mqtt::decode_publish(packet.flags, packet.body, Version::v5, false);
                got.emplace_back(p->payload);
                topics.emplace_back(p->topic);
                if (p->qos == Qos::at_least_once) send(PacketType::puback, p->packet_id);
                if (p->qos == Qos::exactly_once) send(PacketType::pubrec, p->packet_id);
            } else if (packet.type == PacketType::pubrel) {
                send(PacketType::pubcomp, mqtt::decode_ack(packet.type, packet.flags, packet.body, Version::v5)->packet_id);
            } else if (packet.type == PacketType::disconnect) {
                return false;
            }
            if (packet.type == type) return true;
        }
        return true;
    }
    bool publish(const std::string& topic, const std::string& payload, Qos qos, bool retain = false) {
        std::string out;
        const auto packet_id = client.next_packet_id();
        mqtt::encode_publish(out, Version::v5, topic, payload, qos, retain, false, packet_id, {});
        if (!client.send(out)) return false;
        if (qos == Qos::at_least_once) return until(PacketType::puback);
        if (qos == Qos::exactly_once) return until(PacketType::pubrec) && send(PacketType::pubrel, packet_id) && until(PacketType::pubcomp);
        return true;
    }
    bool answers() { return client.send(std::string("\xC0\x00", 2)) && until(PacketType::pingresp); }
};

std::vector<std::string> numbers(int from, int to) {
    std::vector<std::string> out;
    for (int i = from; i < to; ++i) out.push_back(std::to_string(i));
    return out;
}

TEST(Workers, their_number_changes_under_load_and_nobody_notices) {
    Server server(1);
    const auto ports = server.apply({}, {{.resource = "a", .port = 0}, {.resource = "a", .protocol = broker::Protocol::websockets, .port = 0}});
    // As patient as until(): under a sanitizer 64 threads take many seconds to start.
    const mqttc::Target tcp{.port = ports[0].bound_port, .timeout_ms = 60'000}, web{.port = ports[1].bound_port, .websocket = true, .timeout_ms = 60'000};
    constexpr int publishers = 4;
    std::vector<std::unique_ptr<Person>> all;
    auto person = [&](const std::string& name, const mqttc::Target& target) -> Person& {
        all.push_back(std::make_unique<Person>(name));
        EXPECT_TRUE(all.back()->connect(target));
        return *all.back();
    };
    // For each publisher two receivers; and a group and a wildcard for all of them.
    for (int i = 0; i < publishers; ++i)
        for (int k = 0; k < 2; ++k) ASSERT_TRUE(person(fmt::format("r{}{}", i, k), k == 0 ? tcp : web).subscribe(fmt::format("t/{}", i), k == 0 ? Qos::exactly_once : Qos::at_least_once));
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(person(fmt::format("g{}", i), tcp).subscribe("$share/g/t/+", Qos::at_least_once));
    ASSERT_TRUE(person("w", tcp).subscribe("#", Qos::exactly_once));
    std::atomic<bool> enough{false};
    std::array<std::atomic<int>, publishers> sent{};
    std::vector<std::thread> threads;
    std::atomic<int> ended{0};
    for (int i = 0; i < publishers; ++i)
        threads.emplace_back([&, i] {
            Person me(fmt::format("p{}", i));
            bool good = me.connect(i % 2 == 0 ? tcp : web).has_value();
            while (good && !enough) good = me.publish(fmt::format("t/{}", i), std::to_string(sent[static_cast<std::size_t>(i)]++), i < 2 ? Qos::exactly_once : Qos::at_least_once);
            ended += !good;
        });
    for (auto& one : all)
        threads.emplace_back([&, who = one.get()] {
            while (!enough || who->answers()) {
                if (enough) break;
                if (const auto more = who->until(PacketType::connack, who->got.size() + 1, 100); !more && !who->client.is_open()) break;
            }
        });
    // Newcomers too find their way at any moment, but while those who are connected are counted.
    std::mutex newcomer;
    std::atomic<bool> counting{false};
    threads.emplace_back([&] {
        for (int i = 0; !enough; ++i) {
            while (counting && !enough) std::this_thread::yield();
            const std::lock_guard lock(newcomer);
            Person me(fmt::format("n{}", i));
            if (!me.connect(tcp) || !me.answers()) ++ended;
        }
    });
    auto open = [&] {
        std::uint64_t connections = 0;
        for (const auto& core : server.collect()) connections += core.connections;
        return connections;
    };
    auto total = [&] { return sent[0] + sent[1] + sent[2] + sent[3]; };
    std::uint64_t connected = 0, received = 0;
    int moves = 0;
    for (const std::uint32_t count : {4u, 2u, 3u, 1u, 2u, 8u, 1u, 5u, 3u, 2u, 64u, 1u, 2u, 1u}) {
        for (const int before = total(); total() < before + 100 && ended == 0;) std::this_thread::yield();
        const auto done = server.set_workers(count);
        ASSERT_TRUE(done) << done.error().message;
        EXPECT_EQ(server.workers(), count);
        ++moves;
        counting = true;
        {
            const std::lock_guard lock(newcomer);
            // Everybody is counted once; that a newcomer has left may be noticed a moment later.
            for (const auto end = monotonic_ms() + 20'000; open() != all.size() + publishers && monotonic_ms() < end;) std::this_thread::yield();
            connected = open();
            EXPECT_EQ(connected, all.size() + publishers);
        }
        counting = false;
        std::uint64_t publishes = 0;
        for (const auto& core : server.collect())
            for (const auto& category : core.categories) publishes += category.publishes_received;
        EXPECT_GE(publishes, received) << "counters go on";
        received = publishes;
    }
    for (const int before = total(); total() < before + 100 && ended == 0;) std::this_thread::yield();
    enough = true;
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(ended, 0) << "somebody lost the connection after " << moves << " changes, " << connected << " connections";
    int all_sent = 0, in_group = 0;
    for (int i = 0; i < publishers; ++i) {
        const int count = sent[static_cast<std::size_t>(i)];
        all_sent += count;
        for (int k = 0; k < 2; ++k) {
            auto& who = *all[static_cast<std::size_t>(i * 2 + k)];
            EXPECT_TRUE(who.until(PacketType::connack, static_cast<std::size_t>(count), 5000));
            EXPECT_EQ(who.got, numbers(0, count)) << who.id << ": each once and in order";
        }
    }
    auto group = [&](std::size_t i) -> Person& { return *all[publishers * 2 + i]; };
    // Who of the group gets how many is open: whoever has something is read until all is there.
    for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end;) {
        in_group = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            while (group(i).until(PacketType::connack, group(i).got.size() + 1, 10)) {}
            in_group += static_cast<int>(group(i).got.size());
        }
        if (in_group >= all_sent) break;
    }
    for (std::size_t i = 0; i < 3; ++i) EXPECT_GT(group(i).got.size(), 0u);
    EXPECT_EQ(in_group, all_sent);
    auto& wild = *all.back();
    EXPECT_TRUE(wild.until(PacketType::connack, static_cast<std::size_t>(all_sent), 5000));
    EXPECT_EQ(wild.got.size(), static_cast<std::size_t>(all_sent));
    // Nobody is counted twice, and who has left is not counted: newcomers and publishers are gone.
    for (const auto end = monotonic_ms() + 20'000; open() != all.size() && monotonic_ms() < end;) std::this_thread::yield();
    EXPECT_EQ(open(), all.size());
}

TEST(Workers, what_waits_and_what_is_half_done_goes_on) {
    Server server(1);
    const auto ports = server.apply({}, {{.resource = "a", .port = 0}});
    const mqttc::Target target{.port = ports[0].bound_port};
    Person publisher("publisher");
    ASSERT_TRUE(publisher.connect(target, true, long_time));
    constexpr int sessions = 20, waiting = 50;
    for (int i = 0; i < sessions; ++i) {
        Person away(fmt::format("away-{}", i));
        ASSERT_TRUE(away.connect(target, true, long_time));
        ASSERT_TRUE(away.subscribe(fmt::format("away/{}/+", i), i % 2 == 0 ? Qos::at_least_once : Qos::exactly_once));
        ASSERT_TRUE(away.subscribe("all", Qos::at_least_once));
    }
    for (int i = 0; i < sessions; ++i)
        for (int k = 0; k < waiting; ++k) ASSERT_TRUE(publisher.publish(fmt::format("away/{}/x", i), std::to_string(k), Qos::exactly_once));
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(publisher.publish(fmt::format("kept/{}", i), std::to_string(i), Qos::at_least_once, true));
    // Half done: a QoS 2 message received and not released, and deliveries that nobody has acknowledged.
    std::string packet;
    mqtt::encode_publish(packet, Version::v5, "half", "once", Qos::exactly_once, false, false, 60'000, {});
    Person half("half");
    ASSERT_TRUE(half.connect(target));
    ASSERT_TRUE(half.subscribe("half", Qos::at_least_once));
    ASSERT_TRUE(publisher.client.send(packet));
    ASSERT_TRUE(publisher.until(PacketType::pubrec));
    const auto first = half.client.expect(PacketType::publish, 10'000);
    ASSERT_TRUE(first);
    const auto unacknowledged = mqtt::decode_publish(first->flags, first->body, Version::v5, false)->packet_id;
    // A will with a delay, an alias in use, a key of the state store with its watcher, a session that ends soon.
    Person dying("dying");
    mqtt::ConnectOptions with_will;
    with_will.has_will = true;
    with_will.will_topic = "all";
    with_will.will_payload = "dead";
    with_will.will_qos = Qos::at_least_once;
    with_will.will_properties.push_back({.id = mqtt::PropertyId::will_delay_interval, .number = 2});
    ASSERT_TRUE(dying.connect(target, true, 10, with_will));
    dying.client.close();
    std::string properties;
    mqtt::write_property(properties, mqtt::PropertyId::topic_alias, 7u);
    packet.clear();
    mqtt::encode_publish(packet, Version::v5, "half", "by name", Qos::at_most_once, false, false, 0, properties);
    ASSERT_TRUE(publisher.client.send(packet));
    ASSERT_TRUE(half.until(PacketType::publish));
    Person keys("keys");
    ASSERT_TRUE(keys.connect(target));
    auto ask = [&](Person& who, const std::string& command) {
        const auto topic = "clients/" + who.id + "/answer";
        std::string with, out;
        mqtt::write_property(with, mqtt::PropertyId::response_topic, topic);
        mqtt::write_property(with, mqtt::PropertyId::correlation_data, "1234567890123456");
        mqtt::write_user_property(with, "__ts", fmt::format("{:015}:00000:{}", wall_ms(), who.id));
        mqtt::encode_publish(out, Version::v5, statestore::request_topic, command, Qos::at_least_once, false, false, who.client.next_packet_id(), with);
        who.got.clear();
        return who.client.send(out) && who.until(PacketType::connack, 1) ? who.got.front() : std::string();
    };
    ASSERT_TRUE(keys.subscribe("clients/keys/#", Qos::at_least_once));
    ASSERT_EQ(ask(keys, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n"), "+OK\r\n");

    for (const std::uint32_t count : {4u, 3u, 7u, 2u}) {
        const auto done = server.set_workers(count);
        ASSERT_TRUE(done) << done.error().message;
    }
    // The second half.
    ASSERT_TRUE(publisher.send(PacketType::pubrel, 60'000));
    const auto complete = publisher.client.expect(PacketType::pubcomp, 10'000);
    ASSERT_TRUE(complete);
    EXPECT_EQ(mqtt::decode_ack(complete->type, complete->flags, complete->body, Version::v5)->reason, mqtt::ReasonCode::success);
    ASSERT_TRUE(half.send(PacketType::puback, unacknowledged));
    packet.clear();
    mqtt::encode_publish(packet, Version::v5, "", "by alias", Qos::at_most_once, false, false, 0, properties);
    half.got.clear();
    ASSERT_TRUE(publisher.client.send(packet));
    ASSERT_TRUE(half.until(PacketType::publish));
    EXPECT_EQ(half.got, std::vector<std::string>{"by alias"});
    EXPECT_EQ(ask(keys, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), "$5\r\nvalue\r\n");
    Person reader("reader");
    ASSERT_TRUE(reader.connect(target));
    ASSERT_TRUE(reader.client.send(subscribe_packet("kept/#", Qos::at_least_once)));
    ASSERT_TRUE(reader.until(PacketType::connack, 100));
    EXPECT_EQ(std::set(reader.got.begin(), reader.got.end()).size(), 100u);
    // Those who were away, with what waited for them and the will that came meanwhile.
    for (int i = 0; i < sessions; ++i) {
        Person back(fmt::format("away-{}", i));
        ASSERT_TRUE(back.connect(target, false, long_time));
        EXPECT_TRUE(back.client.connack().session_present);
        ASSERT_TRUE(back.until(PacketType::connack, waiting + 1)) << back.id << " got " << back.got.size();
        auto expected = numbers(0, waiting);
        expected.emplace_back("dead");
        EXPECT_EQ(back.got, expected);
        ASSERT_TRUE(publisher.publish(fmt::format("away/{}/y", i), "again", Qos::at_least_once));
        ASSERT_TRUE(back.until(PacketType::connack, waiting + 2));
    }
}

TEST(Workers, what_is_on_disk_moves_too) {
    const Folder folder;
    auto open = [&](std::uint32_t workers) { return store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .workers = workers, .file_system = {}}).value(); };
    broker::BrokerConfig config;
    config.persistence = {.retain = broker::Persistence::Mode::all, .queues = broker::Persistence::Mode::all};
    constexpr int sessions = 12, waiting = 20;
    const std::string body(2000, 'x');           // kept once for all its receivers
    std::array<int, sessions> read{};
    auto collect = [&](const mqttc::Target& target, int i, int count) {
        Person back(fmt::format("s{}", i));
        mqtt::ConnectOptions narrow;
        narrow.properties.push_back({.id = mqtt::PropertyId::receive_maximum, .number = 1});
        ASSERT_TRUE(back.connect(target, false, long_time, narrow));
        ASSERT_TRUE(back.client.connack().session_present) << i;
        ASSERT_TRUE(back.until(PacketType::connack, static_cast<std::size_t>(count))) << i << " got " << back.got.size();
        for (auto& one : back.got) EXPECT_EQ(one, body + std::to_string(read[static_cast<std::size_t>(i)]++)) << i;
        back.client.disconnect();
    };
    {
        Server server(2, open(2), {}, config);
        const auto ports = server.apply(config, {{.resource = "a", .port = 0}});
        const mqttc::Target target{.port = ports[0].bound_port};
        for (int i = 0; i < sessions; ++i) {
            Person away(fmt::format("s{}", i));
            ASSERT_TRUE(away.connect(target, true, long_time));
            ASSERT_TRUE(away.subscribe("t", i % 2 == 0 ? Qos::at_least_once : Qos::exactly_once));
        }
        Person publisher("publisher");
        ASSERT_TRUE(publisher.connect(target));
        for (int i = 0; i < waiting; ++i) ASSERT_TRUE(publisher.publish("t", body + std::to_string(i), Qos::at_least_once));
        const auto done = server.set_workers(5);
        ASSERT_TRUE(done) << done.error().message;
        // Some go on at once: what they are done with is still there for the others.
        for (int i = 0; i < sessions; i += 3) collect(target, i, 5);
        ASSERT_TRUE(server.set_workers(3));
        for (int i = 0; i < sessions; i += 4) collect(target, i, 3);
        for (int i = waiting; i < waiting + 5; ++i) ASSERT_TRUE(publisher.publish("t", body + std::to_string(i), Qos::exactly_once));
    }
    for (const std::uint32_t workers : {3u, 2u, 4u}) {
        Server server(workers, open(workers), {}, config);
        const auto ports = server.apply(config, {{.resource = "a", .port = 0}});
        const mqttc::Target target{.port = ports[0].bound_port};
        for (int i = 0; i < sessions; ++i) collect(target, i, 2);
        ASSERT_TRUE(server.set_workers(workers + 1));
        for (int i = 0; i < sessions; ++i) collect(target, i, 2);
        ASSERT_TRUE(server.set_workers(workers));
    }
    Server server(1, open(1), {}, config);
    const auto ports = server.apply(config, {{.resource = "a", .port = 0}});
    for (int i = 0; i < sessions; ++i) collect({.port = ports[0].bound_port}, i, waiting + 5 - read[static_cast<std::size_t>(i)]);
}

// An answer may become durable at any moment of the turn that writes it, the last of a connection too.
TEST(Workers, who_leaves_while_an_answer_becomes_durable_is_forgotten) {
    const Folder folder;
    broker::BrokerConfig config;
    config.persistence = {.retain = broker::Persistence::Mode::all, .queues = broker::Persistence::Mode::all};
    Server server(1, store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .workers = 1, .file_system = {}}).value(), {}, config);
    const auto ports = server.apply(config, {{.resource = "a", .port = 0}});
    const mqttc::Target target{.port = ports[0].bound_port};
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 400; ++i) {
                Person me(fmt::format("{}-{}", t, i % 7));
                if (!me.connect(target, i % 3 == 0, long_time)) continue;
                std::string out;
                mqtt::encode_publish(out, Version::v5, fmt::format("kept/{}", t), std::to_string(i), Qos::at_least_once, true, false, 9, {});
                // Without the answer, with it, and not at all.
                if (i % 4 != 0 && !me.client.send(out)) continue;
                if (i % 4 == 1 && !me.until(PacketType::puback)) continue;
                mqtt::encode_disconnect(out = {}, Version::v5, mqtt::ReasonCode::success, {});
                if (i % 2 == 0 || me.client.send(out)) ++good;
            }
        });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(good, 1200);
    Person after("after");
    EXPECT_TRUE(after.connect(target));
    EXPECT_TRUE(after.answers());
}

/// Asks somebody who does not answer until told to.
struct Silent final : auth::Authenticator {
    std::mutex guard;
    std::vector<auth::Done> waiting;
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later& later) override {
        const std::lock_guard lock(guard);
        waiting.push_back(later());
        auth::Verdict out;
        out.kind = auth::Verdict::Kind::wait;
        return out;
    }
    std::size_t size() {
        const std::lock_guard lock(guard);
        return waiting.size();
    }
};

TEST(Workers, a_change_that_cannot_be_now_leaves_all_as_it_is) {
    Server server(2);
    const auto silent = std::make_shared<Silent>();
    const auto ports = server.apply({}, {{.resource = "a", .port = 0}, {.resource = "b", .port = 0, .authenticator = silent}});
    EXPECT_FALSE(server.set_workers(0));
    EXPECT_FALSE(server.set_workers(65));
    EXPECT_TRUE(server.set_workers(2));
    Person other("other");
    ASSERT_TRUE(other.connect({.port = ports[0].bound_port}));
    std::thread asks([&] {
        Person stranger("stranger");
        EXPECT_TRUE(stranger.connect({.port = ports[1].bound_port, .timeout_ms = 30'000}));
        EXPECT_TRUE(stranger.answers());
    });
    while (silent->size() == 0) std::this_thread::yield();
    const auto refused = server.set_workers(4);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("wait to be authenticated"), std::string::npos);
    EXPECT_EQ(server.workers(), 2u);
    EXPECT_TRUE(other.answers());
    silent->waiting.front()(auth::Verdict::accepted({.method = "Custom", .id = "x"}));
    asks.join();
    EXPECT_TRUE(server.set_workers(4));
    EXPECT_TRUE(other.answers());
}

// A newcomer that was held back for a moment is not held back by memory afterwards: it may be the one who makes room.
TEST(Workers, newcomers_go_on_after_a_change_whatever_memory_there_is) {
    Server server(1);
    const auto silent = std::make_shared<Silent>();
    const auto ports = server.apply({.pool_bytes = 1 << 20}, {{.resource = "a", .port = 0}, {.resource = "b", .port = 0, .authenticator = silent}});
    const mqttc::Target target{.port = ports[0].bound_port, .timeout_ms = 20'000};
    {
        Person away("away"), publisher("publisher");
        ASSERT_TRUE(away.connect(target, true, long_time));
        ASSERT_TRUE(away.subscribe("t", Qos::at_least_once));
        away.client.close();
        ASSERT_TRUE(publisher.connect(target));
        while (server.pool_used() * 4 <= 3 << 20) ASSERT_TRUE(publisher.publish("t", std::string(10'000, 'x'), Qos::at_least_once));
    }
    std::thread asks([&] {
        Person stranger("stranger");
        EXPECT_TRUE(stranger.connect({.port = ports[1].bound_port, .timeout_ms = 30'000}));
    });
    while (silent->size() == 0) std::this_thread::yield();
    std::atomic<bool> enough{false};
    std::thread comes([&] {
        for (int i = 0; !enough; ++i) {
            Person newcomer(fmt::format("n{}", i));
            const auto done = newcomer.connect(target);
            EXPECT_TRUE(done) << done.error().message;
            if (!done) return;
        }
    });
    EXPECT_FALSE(server.set_workers(2));
    enough = true;
    comes.join();
    silent->waiting.front()(auth::Verdict::accepted({.method = "Custom", .id = "x"}));
    asks.join();
}

}  // namespace
}  // namespace penstock::test
