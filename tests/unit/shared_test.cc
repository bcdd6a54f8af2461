// Shared subscriptions: what a member was given and did not finish goes to another one when the member is gone (MQTT 5.0, 4.8.2).
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "store/overflow.h"

namespace penstock::test {
namespace {

using mqtt::PacketType;
using mqtt::Qos;
using mqtt::Version;

mqtt::PropertyList options(std::uint32_t expiry, std::uint32_t receive_maximum) {
    return {{.id = mqtt::PropertyId::session_expiry_interval, .number = expiry}, {.id = mqtt::PropertyId::receive_maximum, .number = receive_maximum}};
}
std::string ack(PacketType type, std::uint16_t id) {
    std::string out;
    mqtt::encode_ack(out, type, Version::v5, id, mqtt::ReasonCode::success);
    return out;
}
std::string unsubscribe_packet(const std::string& filter) {
    std::string out;
    mqtt::encode_unsubscribe(out, Version::v5, 9, {filter});
    return out;
}
std::vector<std::string> payloads_of(MemoryNet::End& end) {
    std::vector<std::string> out;
    count_publishes(end.received, Version::v5, &out);
    return out;
}
/// Acknowledges with QoS 1 what comes until nothing does; all payloads in order.
std::vector<std::string> read_all(MemoryNet& net, MemoryNet::End& end) {
    std::vector<std::string> out;
    for (bool any = true; any;) {
        any = false;
        const auto bytes = std::exchange(end.received, {});
        std::string_view rest = bytes;
        mqtt::Frame frame;
        for (; mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete; rest.remove_prefix(frame.size)) {
            if (frame.type != PacketType::publish) continue;
            const auto p = mqtt::decode_publish(frame.flags, frame.body, Version::v5, false);
            out.emplace_back(p->payload);
            any = true;
            if (p->qos == Qos::at_least_once) net.send(end, ack(PacketType::puback, p->packet_id));
        }
    }
    return out;
}
std::vector<std::string> numbers(int from, int to) {
    std::vector<std::string> out;
    for (int i = from; i <= to; ++i) out.push_back(std::to_string(i));
    return out;
}

/// A group in which one member was given all there is, while another one came later.
struct Group {
    MemoryNet net;
    MemoryNet::End *leaver, *publisher, *heir = nullptr;
    explicit Group(std::uint32_t cores, std::uint32_t expiry, int count, Qos qos = Qos::at_least_once, Version version = Version::v5, bool with_heir = true) : net(cores) {
        leaver = net.open();
        net.send(*leaver, connect_packet("leaver", version, version == Version::v5 ? options(expiry, 2) : mqtt::PropertyList{}) + subscribe_packet("$share/g/t/#", qos, version));
        publisher = net.open(1);
        net.send(*publisher, connect_packet("publisher"));
        for (int i = 1; i <= count; ++i) net.send(*publisher, publish_packet("t/x", std::to_string(i), static_cast<int>(qos), static_cast<std::uint16_t>(i)));
        if (!with_heir) return;
        heir = net.open(2);
        net.send(*heir, connect_packet("heir", Version::v5, options(100, 100)) + subscribe_packet("$share/g/t/#", qos));
        EXPECT_TRUE(payloads_of(*heir).empty());
    }
};

TEST(SharedGroup, what_a_member_held_goes_to_another_whatever_ends_its_session) {
    const std::vector<std::pair<std::string, std::function<void(Group&)>>> ends{
        {"DISCONNECT with expiry 0", [](Group& g) {
             std::string packet;
             mqtt::encode_disconnect(packet, Version::v5, mqtt::ReasonCode::success, std::string("\x11\x00\x00\x00\x00", 5));
             g.net.send(*g.leaver, packet);
         }},
        {"expiry", [](Group& g) {
             g.net.drop(*g.leaver);
             EXPECT_TRUE(payloads_of(*g.heir).empty()) << "the session goes on";
             g.net.advance(5000);
         }},
        {"clean start", [](Group& g) {
             g.net.drop(*g.leaver);
             g.net.send(*g.net.open(), connect_packet("leaver"));
         }},
        {"takeover with clean start", [](Group& g) { g.net.send(*g.net.open(), connect_packet("leaver")); }},
        {"an administrator", [](Group& g) {
             auto& core = g.net.core(broker::Core::home_of("leaver", static_cast<std::uint32_t>(g.net.cores())));
             core.find_session("leaver")->expiry_interval = 0;
             core.disconnect(*g.leaver->connection, mqtt::Refusal::listener_is_removed, g.net.now());
             g.net.settle();
         }},
    };
    for (std::uint32_t cores = 1; cores <= 3; ++cores)
        for (const auto& [name, end] : ends) {
            Group g(cores, 5, 6);
            EXPECT_EQ(payloads_of(*g.leaver), numbers(1, 2));
            end(g);
            EXPECT_EQ(read_all(g.net, *g.heir), numbers(1, 6)) << name << ", " << cores << " cores";
            EXPECT_EQ(g.net.core(broker::Core::home_of("heir", cores)).find_session("heir")->in_flight(), 0u);
        }
}

TEST(SharedGroup, a_session_of_version_3_that_ends_with_its_connection_leaves_its_messages_too) {
    Group g(2, 0, 5, Qos::at_least_once, Version::v311);
    g.net.drop(*g.leaver);
    EXPECT_EQ(read_all(g.net, *g.heir), numbers(1, 5)) << "sent and not acknowledged";
}

// [MQTT-4.8.2-5]: a QoS 2 delivery that began goes to nobody else; what was not sent yet does.
TEST(SharedGroup, a_delivery_of_qos_2_that_began_ends_with_the_session) {
    for (std::uint32_t cores = 1; cores <= 3; ++cores) {
        Group g(cores, 0, 6, Qos::exactly_once);
        EXPECT_EQ(payloads_of(*g.leaver), numbers(1, 2));
        g.net.drop(*g.leaver);
        EXPECT_EQ(payloads_of(*g.heir), numbers(3, 6)) << cores;
    }
}

// [MQTT-3.10.4-3]: what was sent is still the client's to acknowledge; what waits is for the others.
TEST(SharedGroup, who_unsubscribes_leaves_what_waits) {
    for (std::uint32_t cores = 1; cores <= 3; ++cores) {
        Group g(cores, 100, 6);
        EXPECT_EQ(payloads_of(*g.leaver), numbers(1, 2));
        g.net.send(*g.leaver, unsubscribe_packet("$share/g/t/#"));
        EXPECT_EQ(read_all(g.net, *g.heir), numbers(3, 6));
        g.net.send(*g.leaver, ack(PacketType::puback, 1) + ack(PacketType::puback, 2));
        EXPECT_FALSE(g.leaver->is_closed);
        EXPECT_TRUE(payloads_of(*g.leaver).empty());
        // It comes back and leaves again: other numbers, the same group.
        g.net.send(*g.leaver, subscribe_packet("$share/g/t/#", Qos::at_least_once));
        g.net.send(*g.heir, unsubscribe_packet("$share/g/t/#"));
        for (int i = 7; i <= 10; ++i) g.net.send(*g.publisher, publish_packet("t/x", std::to_string(i), 1, static_cast<std::uint16_t>(i)));
        EXPECT_EQ(read_all(g.net, *g.leaver), numbers(7, 10));
    }
}

TEST(SharedGroup, without_another_member_what_waits_stays_with_who_unsubscribed) {
    Group g(2, 100, 6, Qos::at_least_once, Version::v5, false);
    g.net.send(*g.leaver, unsubscribe_packet("$share/g/t/#"));
    EXPECT_EQ(read_all(g.net, *g.leaver), numbers(1, 6)) << "all of it";
}

TEST(SharedGroup, without_another_member_what_waits_ends_with_the_session) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        Group g(cores, 0, 6, Qos::at_least_once, Version::v5, false);
        g.net.drop(*g.leaver);
        auto* late = g.net.open();
        g.net.send(*late, connect_packet("late") + subscribe_packet("$share/g/t/#", Qos::at_least_once));
        EXPECT_TRUE(payloads_of(*late).empty());
        std::uint64_t queued = 0;
        for (std::size_t i = 0; i < cores; ++i) queued += g.net.core(i).figures().queued;
        EXPECT_EQ(queued, 0u);
        EXPECT_TRUE(g.net.core(0).is_quiet());
    }
}

// Only what came by the group: an ordinary subscription of the same client is nobody else's.
TEST(SharedGroup, ordinary_messages_of_a_member_go_to_nobody) {
    MemoryNet net(2);
    auto* leaver = net.open();
    net.send(*leaver, connect_packet("leaver", Version::v5, options(0, 1)) + subscribe_packet("$share/g/t", Qos::at_least_once) + subscribe_packet("#", Qos::at_least_once) + subscribe_packet("$share/h/u", Qos::at_least_once));
    auto* publisher = net.open();
    net.send(*publisher, connect_packet("publisher"));
    std::uint16_t id = 0;
    for (const auto* topic : {"t", "u", "v", "t", "u", "v"}) ++id, net.send(*publisher, publish_packet(topic, fmt::format("{}{}", topic, id), 1, id));
    auto *of_g = net.open(), *of_h = net.open(), *other = net.open();
    net.send(*of_g, connect_packet("of g") + subscribe_packet("$share/g/t", Qos::at_least_once));
    net.send(*of_h, connect_packet("of h") + subscribe_packet("$share/h/u", Qos::at_least_once));
    net.send(*other, connect_packet("other") + subscribe_packet("$share/g/v", Qos::at_least_once));
    net.drop(*leaver);
    EXPECT_EQ(read_all(net, *of_g), (std::vector<std::string>{"t1", "t4"}));
    EXPECT_EQ(read_all(net, *of_h), (std::vector<std::string>{"u2", "u5"}));
    EXPECT_TRUE(read_all(net, *other).empty());
}

// More than one turn takes, members that come and go meanwhile, and messages that expired in between.
TEST(SharedGroup, a_long_queue_goes_on_in_order_and_what_expired_does_not) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        MemoryNet net(cores);
        auto* leaver = net.open();
        net.send(*leaver, connect_packet("leaver", Version::v5, options(2, 1)) + subscribe_packet("$share/g/t", Qos::at_least_once));
        net.drop(*leaver);
        auto* publisher = net.open();
        net.send(*publisher, connect_packet("publisher"));
        std::string expiry;
        mqtt::write_property(expiry, mqtt::PropertyId::message_expiry_interval, 1u);
        for (int i = 1; i <= 1000; ++i) {
            std::string packet;
            mqtt::encode_publish(packet, Version::v5, "t", i % 10 == 0 ? "late" : std::to_string(i), Qos::at_least_once, false, false, static_cast<std::uint16_t>(i), i % 10 == 0 ? expiry : "");
            net.send(*publisher, packet);
        }
        auto* heir = net.open();
        net.send(*heir, connect_packet("heir", Version::v5, options(0, 50)) + subscribe_packet("$share/g/t", Qos::at_least_once));
        net.advance(2500);
        const auto got = read_all(net, *heir);
        EXPECT_EQ(got.size(), 900u);
        EXPECT_TRUE(std::ranges::is_sorted(got, {}, [](const std::string& text) { return std::stol(text); }));
        EXPECT_TRUE(net.core(0).is_quiet());
    }
}

// [MQTT-3.3.2-5]: the delivery to the other member has not begun when the message expires.
TEST(SharedGroup, what_expired_while_a_member_held_it_goes_to_nobody) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        MemoryNet net(cores);
        auto* leaver = net.open();
        net.send(*leaver, connect_packet("leaver", Version::v5, options(0, 10)) + subscribe_packet("$share/g/t", Qos::at_least_once));
        std::string expiry, packet;
        mqtt::write_property(expiry, mqtt::PropertyId::message_expiry_interval, 1u);
        mqtt::encode_publish(packet, Version::v5, "t", "late", Qos::at_least_once, false, false, 1, expiry);
        auto* publisher = net.open();
        net.send(*publisher, connect_packet("publisher"));
        net.send(*publisher, packet);
        net.send(*publisher, publish_packet("t", "lasting", 1, 2));
        ASSERT_EQ(payloads_of(*leaver), (std::vector<std::string>{"late", "lasting"}));
        auto* heir = net.open();
        net.send(*heir, connect_packet("heir", Version::v5, options(0, 50)) + subscribe_packet("$share/g/t", Qos::at_least_once));
        net.advance(3000);
        net.drop(*leaver);
        net.advance(1000);
        EXPECT_EQ(read_all(net, *heir), (std::vector<std::string>{"lasting"}));
    }
}

TEST(SharedGroup, what_is_in_the_disk_buffer_goes_on_too) {
    const auto folder = std::filesystem::temp_directory_path() / ("penstock-shared-" + random_uuid());
    {
        mqtt::MessageBytes cell;
        const auto overflow = store::Overflow::make(folder.string(), 1, [] { return true; }, [](std::uint32_t) {}, cell);
        overflow->set_limits({.size_max = 1 << 30});
        broker::BrokerConfig config;
        config.overflow_bytes = 1 << 30;
        config.pool_bytes = 4'000'000;   // what is above half of it goes to the disk
        MemoryNet net(1, config, nullptr, nullptr, [&](std::uint32_t core) { return store::make_memory_engine(&overflow->lane(core)); }, 1'000'000, [&](std::uint32_t core) { return &overflow->lane(core); });
        auto* leaver = net.open();
        net.send(*leaver, connect_packet("leaver", Version::v5, options(2, 1)) + subscribe_packet("$share/g/t", Qos::at_least_once));
        net.drop(*leaver);
        auto* publisher = net.open();
        net.send(*publisher, connect_packet("publisher"));
        std::vector<std::string> sent;
        for (std::uint16_t i = 1; i <= 1500; ++i) {
            sent.push_back(fmt::format("{:04}", i) + std::string(4000, 'x'));
            for (const auto end = monotonic_ms() + 20'000; net.core(0).under_pressure() && monotonic_ms() < end;) std::this_thread::yield(), net.settle();
            net.send(*publisher, publish_packet("t", sent.back(), 1, i));
        }
        auto* heir = net.open();
        net.send(*heir, connect_packet("heir", Version::v5, options(0, 50)) + subscribe_packet("$share/g/t", Qos::at_least_once));
        net.advance(2000);
        std::vector<std::string> got;
        for (const auto end = monotonic_ms() + 20'000; got.size() < sent.size() && monotonic_ms() < end; std::this_thread::yield()) {
            net.settle();
            std::ranges::move(read_all(net, *heir), std::back_inserter(got));
        }
        EXPECT_EQ(got, sent);
        EXPECT_GT(overflow->figures().read, 0u) << "nothing was on the disk";
        overflow->stop();
    }
    std::filesystem::remove_all(folder);
}

// A client that had very many shared subscriptions leaves them in parts: what waits by each is found by its number.
TEST(SharedGroup, what_goes_on_is_found_by_its_number) {
    broker::HandingOn job;
    EXPECT_EQ(job.last_share(), 0u);
    EXPECT_EQ(job.find(1), nullptr);
    job.add({{.number = 9, .filter = "nine", .group = "g"}, {.number = 4, .filter = "four", .group = "g"}});
    job.add({{.number = 6, .filter = "six", .group = "g"}, {.number = 4, .filter = "another", .group = "g"}, {.number = 12, .filter = "twelve", .group = "g"}});
    EXPECT_EQ(job.shares.size(), 4u);
    for (const auto& [number, filter] : {std::pair{4u, "four"}, {6u, "six"}, {9u, "nine"}, {12u, "twelve"}}) {
        ASSERT_NE(job.find(number), nullptr);
        EXPECT_EQ(job.find(number)->filter, filter);
    }
    for (const auto number : {0u, 1u, 5u, 13u}) EXPECT_EQ(job.find(number), nullptr);
    EXPECT_EQ(job.last_share(), 12u);
}

}  // namespace
}  // namespace penstock::test
