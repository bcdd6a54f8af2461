// What needs a program rather than a table: slow readers, pauses, authentication exchanges, load over two cores.
#include <gtest/gtest.h>

#include <algorithm>

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
    EXPECT_EQ(after_connect(publish_packet("t", "x", 0, 0)), 0);
    MemoryNet net(1, {}, std::make_shared<TwoSteps>());
    auto* plain = net.open();
    net.send(*plain, connect_packet("plain"));
    EXPECT_EQ(static_cast<unsigned char>(plain->received.at(3)), 0x86);
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
    std::size_t sum = 0;
    for (auto* m : members) {
        const auto got = count_publishes(m->received, Version::v5);
        EXPECT_GT(got, 40u);
        sum += got;
    }
    EXPECT_EQ(sum, 600u);
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
