// What peers can make the broker hold: all of it counts in the message pool or is bounded by a constant.
#include <gtest/gtest.h>
#include <malloc.h>

#include <functional>
#include <set>
#include <span>

#include "base/counted.h"
#include "base/heap.h"
#include "base/keyed_hash.h"
#include "base/log.h"
#include "base/text.h"
#include "broker/cleared_topics.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "registry/registry.h"
#include "session/out_buffer.h"
#include "statestore/state_store.h"
#include "topics/subscription_index.h"

namespace penstock::test {
namespace {

using mqtt::PropertyId;
using mqtt::Qos;
using mqtt::ReasonCode;
using mqtt::Version;

/// Bytes that are allocated in this process; 0 where the allocator does not tell (sanitizers).
std::int64_t heap() {
    const auto all = mallinfo2();
    return static_cast<std::int64_t>(all.uordblks + all.hblkhd);
}

mqtt::PropertyList keeps(std::uint32_t seconds = 86'400) { return {{.id = PropertyId::session_expiry_interval, .number = seconds}}; }

std::string retained_packet(const std::string& topic, const std::string& payload, const mqtt::PropertyList& list = {}) {
    std::string properties, out;
    for (const auto& p : list) mqtt::write_user_property(properties, p.text, p.value);
    mqtt::encode_publish(out, Version::v5, topic, payload, Qos::at_most_once, true, false, 0, properties);
    return out;
}

/// With its memory, which is not the broker's.
void forget_received(MemoryNet::End& end) { std::string().swap(end.received); }

std::string levels(int count, int number) {
    std::string out = "r" + std::to_string(number);
    for (int i = 1; i < count; ++i) out += "/" + std::to_string(i);
    return out;
}

/// All names of the page's series.
std::set<std::string> categories_of(MemoryNet& net) {
    std::set<std::string> out;
    for (std::size_t i = 0; i < net.cores(); ++i)
        for (const auto& c : net.core(i).figures().categories) out.insert(c.name);
    return out;
}

std::string categorized(const std::string& id, const std::string& category) { return connect_packet(id, Version::v5, {{.id = PropertyId::user_property, .text = "metriccategory", .value = category}}); }

}  // namespace

// --- what is counted ---

struct Attack {
    const char* name;
    std::int64_t at_least;                         ///< bytes of the heap it takes
    std::function<void(MemoryNet&)> run;
};

class Counting : public testing::TestWithParam<Attack> {};

TEST_P(Counting, what_it_takes_of_the_heap_counts_in_the_pool) {
    MemoryNet net(2, {.pool_bytes = std::int64_t{4} << 30});
    const auto heap_before = heap(), pool_before = net.shared().pool_used();
    GetParam().run(net);
    const auto taken = heap() - heap_before, counted = net.shared().pool_used() - pool_before;
    EXPECT_LE(taken, counted + counted / 4 + (512 << 10));
    if (taken != 0) {
        EXPECT_GE(taken, GetParam().at_least) << "it takes what it is here for";
    }
}

INSTANTIATE_TEST_SUITE_P(Of, Counting, testing::Values(
    Attack{"retained_topics_of_200_levels", 20 << 20, [](MemoryNet& net) {
        auto* a = net.open();
        net.send(*a, connect_packet("a"));
        for (int i = 0; i < 1000; ++i) net.send(*a, retained_packet(levels(200, i), "x"));
    }},
    Attack{"filters_of_200_levels", 10 << 20, [](MemoryNet& net) {
        auto* a = net.open();
        net.send(*a, connect_packet("a"));
        for (int i = 0; i < 500; ++i) net.send(*a, subscribe_packet(levels(200, i), Qos::at_most_once));
    }},
    Attack{"long_filters", 20 << 20, [](MemoryNet& net) {
        for (int c = 0; c < 5; ++c) {
            auto* a = net.open();
            net.send(*a, connect_packet("a" + std::to_string(c)));
            for (int i = 0; i < 100; ++i) net.send(*a, subscribe_packet(std::string(20'000, 'x') + std::to_string(i), Qos::at_most_once));
        }
    }},
    Attack{"shared_subscriptions", 5 << 20, [](MemoryNet& net) {
        auto* a = net.open();
        net.send(*a, connect_packet("a"));
        for (int i = 0; i < 200; ++i) net.send(*a, subscribe_packet("$share/" + std::string(10'000, 'g') + std::to_string(i) + "/t", Qos::at_most_once));
    }},
    Attack{"sessions_with_long_names", 12 << 20, [](MemoryNet& net) {
        for (int i = 0; i < 500; ++i) {
            auto* a = net.open();
            net.send(*a, connect_packet(std::string(30'000, 'i') + std::to_string(i), Version::v5, keeps()));
            net.drop(*a);
            net.forget_closed();
        }
    }},
    Attack{"many_sessions", 4 << 20, [](MemoryNet& net) {
        for (int i = 0; i < 20'000; ++i) {
            auto* a = net.open();
            net.send(*a, connect_packet("i" + std::to_string(i), Version::v5, keeps()));
            net.drop(*a);
            net.forget_closed();
        }
    }},
    Attack{"one_message_in_many_queues", 15 << 20, [](MemoryNet& net) {
        for (int i = 0; i < 300; ++i) {
            auto* a = net.open();
            net.send(*a, connect_packet("i" + std::to_string(i), Version::v5, keeps()) + subscribe_packet("t", Qos::at_least_once));
            net.drop(*a);
            net.forget_closed();
        }
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        for (int i = 1; i <= 1000; ++i) net.send(*b, publish_packet("t", "x", 1, static_cast<std::uint16_t>(i)));
        forget_received(*b);
    }},
    Attack{"subscription_identifiers_in_a_queue", 8 << 20, [](MemoryNet& net) {
        auto* a = net.open();
        net.send(*a, connect_packet("a", Version::v5, keeps()));
        // Filters that all match one topic of ten levels.
        for (int i = 0; i < 1000; ++i) {
            std::string filter, packet, properties;
            mqtt::write_property(properties, PropertyId::subscription_identifier, static_cast<std::uint32_t>(i + 1));
            for (int k = 0; k < 10; ++k) filter += std::string(k > 0 ? "/" : "") + ((i >> k & 1) != 0 ? "+" : "x");
            mqtt::encode_subscribe(packet, Version::v5, 1, {{.filter = filter, .qos = Qos::at_least_once}}, properties);
            net.send(*a, packet);
        }
        net.drop(*a);
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        for (int i = 1; i <= 2500; ++i) net.send(*b, publish_packet("x/x/x/x/x/x/x/x/x/x", "", 1, static_cast<std::uint16_t>(i)));
        forget_received(*b);
    }},
    Attack{"identifiers_of_version_3_clients", 400 << 10, [](MemoryNet& net) {
        for (int c = 0; c < 100; ++c) {
            auto* a = net.open();
            net.send(*a, connect_packet("a" + std::to_string(c), Version::v311));
            std::string all;
            // As many as are taken, as far from each other as they can be.
            for (int i = 1; i <= 1000; ++i) all += publish_packet("t", "", 2, static_cast<std::uint16_t>(65 * i), Version::v311);
            net.send(*a, all);
            forget_received(*a);
        }
    }},
    Attack{"a_window_with_one_old_entry", 5 << 20, [](MemoryNet& net) {
        std::vector<MemoryNet::End*> readers;
        for (int c = 0; c < 2; ++c) {
            readers.push_back(net.open());
            net.send(*readers.back(), connect_packet("a" + std::to_string(c), Version::v311) + subscribe_packet("t", Qos::at_least_once, Version::v311));
        }
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        for (int i = 1; i <= 30'000; ++i) net.send(*b, publish_packet("t", "", 1, static_cast<std::uint16_t>(i)));
        forget_received(*b);
        for (auto* one : readers) forget_received(*one);
    }},
    Attack{"readers_that_do_not_read", 20 << 20, [](MemoryNet& net) {
        for (int i = 0; i < 100; ++i) {
            auto* a = net.open();
            net.send(*a, connect_packet("a" + std::to_string(i)) + subscribe_packet("t", Qos::at_most_once));
            a->reads = false;
        }
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        for (int i = 0; i < 1000; ++i) net.send(*b, publish_packet("t", std::string(1000, 'x'), 0, 0));
    }},
    Attack{"aliases_that_the_broker_sets", 2 << 20, [](MemoryNet& net) {
        std::vector<MemoryNet::End*> readers;
        for (int i = 0; i < 60; ++i) {
            readers.push_back(net.open());
            net.send(*readers.back(), connect_packet("a" + std::to_string(i), Version::v5, {{.id = PropertyId::topic_alias_maximum, .number = 65'535}}) + subscribe_packet("#", Qos::at_most_once));
        }
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        for (int i = 0; i < 100; ++i) net.send(*b, publish_packet(std::string(600, 'x') + std::to_string(i), "", 0, 0));
        for (auto* one : readers) forget_received(*one);
    }},
    Attack{"retained_messages_that_are_asked_for", 10 << 20, [](MemoryNet& net) {
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        for (int i = 0; i < 20; ++i) net.send(*b, retained_packet("r/" + std::to_string(i), std::string(100'000, 'x')));
        for (int c = 0; c < 5; ++c) {
            auto* a = net.open();
            net.send(*a, connect_packet("a" + std::to_string(c)));
            a->reads = false;
            for (int i = 0; i < 60; ++i) net.send(*a, subscribe_packet("#", Qos::at_most_once));
            for (int i = 0; i < 30; ++i) net.send(*a, subscribe_packet(std::string(60'000, 'f') + std::to_string(i), Qos::at_most_once));
        }
    }}),
    [](const testing::TestParamInfo<Attack>& one) { return std::string(one.param.name); });

TEST(Memory, a_message_is_not_copied_for_each_of_its_receivers) {
    // Neither its payload nor its user properties nor its topic: each may be as large as the publisher likes.
    for (const int part : {0, 1, 2}) {
        MemoryNet net(1, {.pool_bytes = std::int64_t{4} << 30});
        std::vector<MemoryNet::End*> readers;
        for (int i = 0; i < 200; ++i) {
            readers.push_back(net.open());
            net.send(*readers.back(), connect_packet("a" + std::to_string(i)) + subscribe_packet("#", Qos::at_most_once));
            readers.back()->received.clear();
            readers.back()->reads = false;
        }
        auto* b = net.open();
        net.send(*b, connect_packet("b"));
        const std::string large(50'000, 'x'), topic = part == 2 ? large : "t", payload = part == 0 ? large : "p";
        std::string properties, packet;
        if (part == 1) mqtt::write_user_property(properties, "n", large);
        mqtt::encode_publish(packet, Version::v5, topic, payload, Qos::at_most_once, false, false, 0, properties);
        const auto before = heap();
        net.send(*b, packet);
        EXPECT_LE(heap() - before, 4 << 20) << part;
        for (auto* reader : readers) reader->reads = true;
        net.settle();
        for (auto* reader : readers) {
            mqtt::Frame frame;
            ASSERT_EQ(mqtt::cut_frame(reader->received, 0xFFFF'FFFF, frame), mqtt::FrameState::complete) << part;
            const auto got = mqtt::decode_publish(frame.flags, frame.body, Version::v5, false);
            ASSERT_TRUE(got) << part;
            EXPECT_EQ(got->topic, topic);
            EXPECT_EQ(got->payload, payload);
            EXPECT_EQ(got->properties, properties);
        }
    }
}

TEST(Memory, a_reader_that_is_always_a_little_behind_costs_what_it_is_behind) {
    const mqtt::MessageRef message(mqtt::Message::make({.topic = "t", .payload = std::string(10'000, 'x'), .properties = {}, .partition = {}, .has_partition = false, .retain = false, .qos = Qos::at_most_once,
                                                        .expires_at = 0, .publisher = 0}));
    session::OutBuffer out;
    std::string sent, expected;
    auto put = [&](int i) {
        const auto head = "head " + std::to_string(i);
        out.append(head);
        out.append_reference(message, message->view().payload);
        if (i < 100) expected += head + std::string(message->view().payload);
    };
    put(0);
    for (int i = 1; i < 100'000; ++i) {
        put(i);
        std::string step;
        out.pieces([&](std::string_view piece) {
            step += piece.substr(0, 10'005 - step.size());
            return step.size() < 10'005;
        });
        if (i < 90) sent += step;
        out.consume(step.size());
    }
    EXPECT_EQ(sent, expected.substr(0, sent.size()));
    EXPECT_LE(out.capacity(), 4u << 20);
}

TEST(Memory, a_client_that_comes_and_goes_leaves_nothing_behind) {
    MemoryNet net(1);
    auto once = [&] {
        auto* a = net.open();
        net.send(*a, connect_packet("a", Version::v5, keeps(), false));
        net.drop(*a);
        net.forget_closed();
    };
    for (int i = 0; i < 100; ++i) once();
    const auto before = heap();
    for (int i = 0; i < 20'000; ++i) once();
    EXPECT_LE(heap() - before, 100'000);
    net.advance(86'401'000);
    EXPECT_EQ(net.core(0).figures().sessions, 0u);
}

TEST(Memory, a_session_ends_on_time_however_often_its_client_came) {
    MemoryNet net(1);
    auto once = [&](std::uint32_t seconds) {
        auto* a = net.open();
        net.send(*a, connect_packet("a", Version::v5, keeps(seconds), false));
        net.drop(*a);
    };
    for (const std::uint32_t seconds : {100u, 10u, 50u}) once(seconds);
    net.advance(20'000);
    EXPECT_EQ(net.core(0).figures().sessions, 1u);
    net.advance(29'000);
    EXPECT_EQ(net.core(0).figures().sessions, 1u);
    net.advance(3'000);
    EXPECT_EQ(net.core(0).figures().sessions, 0u);
    for (const std::uint32_t seconds : {10u, 100u}) once(seconds);
    net.advance(90'000);
    EXPECT_EQ(net.core(0).figures().sessions, 1u);
    net.advance(12'000);
    EXPECT_EQ(net.core(0).figures().sessions, 0u);
}

// --- when it is full ---

TEST(Pressure, a_full_pool_takes_no_new_subscriptions_and_no_urgent_messages) {
    MemoryNet net(1, {.pool_bytes = 4 << 20});
    auto* a = net.open();
    net.send(*a, connect_packet("a"));
    std::string urgent_property;
    mqtt::write_user_property(urgent_property, "$high_priority", "");
    auto urgent = [&](int i) {
        std::string out;
        mqtt::encode_publish(out, Version::v5, "r/" + std::to_string(i), std::string(60'000, 'x'), Qos::at_least_once, true, false, static_cast<std::uint16_t>(i), urgent_property);
        return out;
    };
    for (int i = 1; i <= 200; ++i) net.send(*a, urgent(i));   // 12 MB
    EXPECT_LE(net.shared().pool_used(), 5 << 20);
    EXPECT_GE(net.shared().pool_used(), (4 << 20) * 97 / 100 - 70'000) << "urgent ones pass the mark for others";
    a->received.clear();
    net.send(*a, subscribe_packet("t", Qos::at_most_once));
    EXPECT_EQ(a->received, std::string("\x90\x04\x00\x01\x00\x97", 6));
    a->received.clear();
    net.send(*a, urgent(7777));
    mqtt::Frame frame;
    ASSERT_EQ(mqtt::cut_frame(a->received, 1 << 20, frame), mqtt::FrameState::complete);
    const auto ack = mqtt::decode_ack(frame.type, frame.flags, frame.body, Version::v5);
    ASSERT_TRUE(ack);
    EXPECT_EQ(ack->reason, ReasonCode::quota_exceeded);
    // What makes room is taken, and then there is room.
    for (int i = 1; i <= 200; ++i) net.send(*a, retained_packet("r/" + std::to_string(i), ""));
    EXPECT_GE(net.shared().pool_used(), (4 << 20) / 2) << "version 5: a message above 75 % is refused, whatever is in it";
    EXPECT_FALSE(a->is_closed);
}

TEST(Pressure, who_does_not_read_is_held_back_sooner_when_the_pool_is_full) {
    MemoryNet net(1, {.pool_bytes = 1 << 20});
    auto* b = net.open();
    net.send(*b, connect_packet("b"));
    std::string urgent_property, packet;
    mqtt::write_user_property(urgent_property, "$high_priority", "");
    for (int i = 0; i < 30; ++i) {
        packet.clear();
        mqtt::encode_publish(packet, Version::v5, "r/" + std::to_string(i), std::string(60'000, 'x'), Qos::at_most_once, true, false, 0, urgent_property);
        net.send(*b, packet);
    }
    ASSERT_TRUE(net.core(0).is_full());
    b->reads = false;
    std::string pings;
    for (int i = 0; i < 10'000; ++i) pings += std::string("\xC0\x00", 2);
    net.send(*b, pings);
    EXPECT_TRUE(b->connection->is_stuffed);
    EXPECT_LE(b->connection->out->pending(), 8192u);
    b->received.clear();
    b->reads = true;
    net.settle();
    EXPECT_EQ(b->received.size(), 20'000u) << "who reads goes on, though the pool is full";
    EXPECT_FALSE(b->connection->is_paused);
}

TEST(Pressure, acknowledgements_are_taken_while_the_pool_is_full_and_make_room) {
    MemoryNet net(1, {.pool_bytes = 2 << 20});
    auto *a = net.open(), *b = net.open();
    net.send(*a, connect_packet("a", Version::v5, keeps()) + subscribe_packet("t", Qos::at_least_once));
    net.drop(*a);
    net.send(*b, connect_packet("b"));
    std::string urgent_property, packet;
    mqtt::write_user_property(urgent_property, "$high_priority", "");
    for (std::uint16_t i = 1; i <= 60; ++i) {
        packet.clear();
        mqtt::encode_publish(packet, Version::v5, "t", std::string(60'000, 'x'), Qos::at_least_once, false, false, i, urgent_property);
        net.send(*b, packet);
    }
    ASSERT_TRUE(net.core(0).is_full());
    // The client has a session: it is let in, gets what waits and acknowledges it.
    auto* again = net.open();
    net.send(*again, connect_packet("a", Version::v5, keeps(), false));
    std::size_t got = 0;
    for (int round = 0; round < 200 && net.core(0).figures().queued + net.core(0).figures().in_flight > 0; ++round) {
        mqtt::Frame frame;
        std::string acks;
        std::string_view rest = again->received;
        for (; mqtt::cut_frame(rest, 1u << 20, frame) == mqtt::FrameState::complete; rest.remove_prefix(frame.size)) {
            if (frame.type != mqtt::PacketType::publish) continue;
            mqtt::encode_ack(acks, mqtt::PacketType::puback, Version::v5, mqtt::decode_publish(frame.flags, frame.body, Version::v5, false)->packet_id, ReasonCode::success);
            ++got;
        }
        again->received = rest;
        net.send(*again, acks);
    }
    EXPECT_GE(got, 30u);
    EXPECT_FALSE(net.core(0).under_pressure());
}

// --- retained messages that were cleared ---

TEST(Cleared, is_known_until_all_others_are_past_it) {
    broker::ClearedTopics cleared(0, 3);
    cleared.add("a", 5);
    cleared.add("a", 4);
    cleared.add("b", 7);
    EXPECT_TRUE(cleared.hides("a", 4));
    EXPECT_FALSE(cleared.hides("a", 6));
    EXPECT_FALSE(cleared.hides("c", 1));
    cleared.mark(1, 6);
    EXPECT_TRUE(cleared.hides("a", 4)) << "the other worker may still say it";
    cleared.mark(2, 100);
    EXPECT_FALSE(cleared.hides("a", 4));
    EXPECT_TRUE(cleared.hides("b", 6));
    cleared.mark(1, 8);
    EXPECT_EQ(cleared.size(), 0u);
    EXPECT_TRUE(cleared.take_news());
    EXPECT_FALSE(cleared.take_news());
}

TEST(Cleared, topics_of_nothing_retained_are_not_kept) {
    MemoryNet net(2);
    auto* a = net.open();
    net.send(*a, connect_packet("a"));
    const auto before = heap(), pool_before = net.shared().pool_used();
    for (int i = 0; i < 5000; ++i) net.send(*a, retained_packet(std::string(60'000, 'x') + std::to_string(i), ""));
    EXPECT_LE(heap() - before, 2 << 20);
    net.advance(2000);
    EXPECT_EQ(net.shared().pool_used(), pool_before);
}

TEST(Hashing, is_siphash_as_published) {
    std::string text;
    for (char i = 0; i < 15; ++i) text += i;
    // The reference implementation's value for 15 bytes 00..0E under the key 00..0F.
    EXPECT_EQ(siphash(text, 0x0706050403020100u, 0x0F0E0D0C0B0A0908u), 0xA129CA6149BE45E5u);
    EXPECT_EQ(keyed_hash("a"), keyed_hash("a"));
    EXPECT_NE(keyed_hash("a"), keyed_hash("b"));
}

// --- the cache of matches ---

TEST(MatchCache, is_bounded_in_bytes) {
    topics::SubscriptionIndex index;
    index.set_cache_max(1 << 20);
    const auto before = heap();
    for (int i = 0; i < 20'000; ++i) EXPECT_TRUE(index.match(std::string(500, 'x') + std::to_string(i), false).targets.empty());
    EXPECT_LE(index.cache_bytes(), 1u << 20);
    EXPECT_GE(index.cache_bytes(), 1u << 18);
    for (int i = 0; i < 20'000; ++i) index.match(std::string(60'000, 'x') + std::to_string(i), false);
    EXPECT_LE(index.cache_bytes(), 1u << 20);
    EXPECT_LE(heap() - before, 3 << 20);
}

TEST(MatchCache, many_receivers_are_found_whatever_the_cache_holds) {
    topics::SubscriptionIndex index;
    index.set_cache_max(1 << 20);
    std::vector<topics::Subscriber> subscribers(20'000);
    for (auto& one : subscribers) index.add("all/#", &one, {});
    for (auto& one : std::span(subscribers).subspan(0, 1000)) index.add("few/#", &one, {});
    for (int round = 0; round < 3; ++round)
        for (int i = 0; i < 20; ++i) {
            EXPECT_EQ(index.match("all/" + std::to_string(i), false).targets.size(), 20'000u);
            EXPECT_EQ(index.match("few/" + std::to_string(i), false).targets.size(), 1000u);
            EXPECT_LE(index.cache_bytes(), 1u << 20);
        }
    for (auto& one : subscribers) index.remove("all/#", &one);
    EXPECT_EQ(index.match("all/19", false).targets.size(), 0u);
}

// --- metric categories ---

TEST(Categories, strangers_cannot_fill_the_page) {
    MemoryNet net(2);
    for (int i = 0; i < 3000; ++i) {
        auto* a = net.open(static_cast<std::uint32_t>(i % 2));
        net.send(*a, categorized("c" + std::to_string(i), "category-" + std::to_string(i)));
        net.drop(*a);
    }
    EXPECT_LE(categories_of(net).size(), 1000u);
    std::uint64_t connects = 0;
    for (std::size_t i = 0; i < 2; ++i) connects += net.core(i).figures().connections_total;
    EXPECT_EQ(connects, 3000u);
    // Whoever is here has his own, though strangers took all there are.
    auto* a = net.open();
    net.send(*a, categorized("plant", "plant") + publish_packet("t", "x", 0, 0));
    EXPECT_TRUE(categories_of(net).contains("plant"));
    // They go; what they had counted does not.
    net.advance(620'000);
    EXPECT_EQ(categories_of(net), (std::set<std::string>{"uncategorized", "plant"}));
    net.drop(*a);
    net.advance(620'000);
    EXPECT_EQ(categories_of(net), (std::set<std::string>{"uncategorized"}));
    std::uint64_t publishes = 0;
    for (std::size_t i = 0; i < 2; ++i) publishes += net.core(i).figures().aged_categories.publishes_received;
    EXPECT_EQ(publishes, 1u);
}

TEST(Categories, those_with_clients_stay_and_later_ones_count_as_none) {
    MemoryNet net(2);
    std::vector<MemoryNet::End*> open;
    for (int i = 0; i < 1200; ++i) {
        open.push_back(net.open());
        net.send(*open.back(), categorized("c" + std::to_string(i), "category-" + std::to_string(i)));
    }
    EXPECT_EQ(categories_of(net).size(), 1000u);
    EXPECT_TRUE(categories_of(net).contains("category-0"));
    net.advance(1'000'000);
    EXPECT_EQ(categories_of(net).size(), 1000u) << "their clients are still here";
    for (auto* one : open) net.drop(*one);
    net.advance(620'000);
    EXPECT_EQ(categories_of(net).size(), 1u);
    auto* late = net.open();
    net.send(*late, categorized("late", "late"));
    EXPECT_TRUE(categories_of(net).contains("late"));
}

TEST(Categories, a_name_has_a_length_and_a_client_is_let_in_first) {
    MemoryNet net(1);
    auto* a = net.open();
    net.send(*a, categorized("a", std::string(129, 'x')));
    EXPECT_EQ(categories_of(net), (std::set<std::string>{"uncategorized"}));
    auto* b = net.open();
    net.send(*b, categorized("b", std::string(128, 'x')));
    EXPECT_EQ(categories_of(net).size(), 2u);
    // A will that is not allowed: authenticated, but not let in.
    struct Everybody final : auth::Authenticator {
        auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later&) override { return auth::Verdict::accepted({.method = "x", .user_name = "u", .id = "x/u"}); }
    };
    MemoryNet strict(1, {}, std::make_shared<Everybody>(), std::make_shared<auth::Policy>(std::vector<auth::Rule>{}));
    auto* c = strict.open();
    strict.send(*c, categorized("c", "stranger"));
    EXPECT_TRUE(c->is_closed);
    EXPECT_EQ(categories_of(strict), (std::set<std::string>{"uncategorized"}));
}

// --- the state store ---

namespace {
std::string resp(std::initializer_list<std::string_view> words) {
    std::string out = "*" + std::to_string(words.size()) + "\r\n";
    for (const auto word : words) out += "$" + std::to_string(word.size()) + "\r\n" + std::string(word) + "\r\n";
    return out;
}
}  // namespace

TEST(StateStoreMemory, keys_values_and_registrations_count) {
    MessageBytes cell;
    auto& before = MessageBytes::mine();
    MessageBytes::use(cell);
    {
        statestore::StateStore store([](const std::string&, const statestore::Entry*) {}, 1000);
        std::vector<statestore::Notification> told;
        const std::string large(50'000, 'v'), client(20'000, 'c');
        auto ask = [&](std::initializer_list<std::string_view> words, bool is_full = false) {
            const auto payload = resp(words);
            return store.handle({.client_id = client, .payload = payload, .timestamp = "1:0:c", .is_full = is_full, .monotonic_ms = 1}, 1, told).payload;
        };
        EXPECT_EQ(ask({"SET", "k", large}), "+OK\r\n");
        EXPECT_GE(cell.value(), 50'000);
        EXPECT_EQ(ask({"SET", "k", "small"}), "+OK\r\n");
        EXPECT_LE(cell.value(), 1000);
        EXPECT_EQ(ask({"SET", large, "v", "PX", "1000"}), "+OK\r\n");
        EXPECT_GE(cell.value(), 100'000) << "its key stands in two places";
        EXPECT_EQ(ask({"DEL", large}), ":1\r\n");
        EXPECT_LE(cell.value(), 1000);
        for (int i = 0; i < 10; ++i) EXPECT_EQ(ask({"KEYNOTIFY", "key " + std::to_string(i)}), "+OK\r\n");
        EXPECT_GE(cell.value(), 400'000);
        EXPECT_EQ(ask({"KEYNOTIFY", "key 1"}), "+OK\r\n");
        EXPECT_EQ(ask({"KEYNOTIFY", std::string(20'000, 'k')}), "-ERR the key is too long for the topic of its notifications\r\n");
        // One payload for all that watch, and what makes room is done when there is none.
        EXPECT_EQ(ask({"SET", "k", "v"}, true), "-ERR the quota has been exceeded\r\n");
        EXPECT_EQ(ask({"GET", "k"}, true), "-ERR the quota has been exceeded\r\n");
        EXPECT_EQ(ask({"KEYNOTIFY", "key 1", "STOP"}, true), "+OK\r\n");
        EXPECT_EQ(ask({"DEL", "k"}, true), ":1\r\n");
        store.forget_client(client);
        EXPECT_EQ(cell.value(), 0);
        EXPECT_EQ(ask({"SET", "k", large}), "+OK\r\n");
    }
    EXPECT_EQ(cell.value(), 0);
    MessageBytes::use(before);
}

// --- the control plane ---

TEST(RegistryMemory, history_and_store_are_bounded_in_bytes) {
    auto registry = registry::Registry::open(":memory:").value();
    registry->set_limits({.history_bytes = 100'000, .store_bytes = 400'000});
    const auto& kind = *resources::find_kind("v1", "ConfigMap");
    auto map = [](const std::string& name, std::size_t size) { return resources::Json{{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", name}}}, {"data", {{"k", std::string(size, 'x')}}}}; };
    const auto began = registry->version();
    int made = 0;
    registry::Failure why;
    for (; made < 100; ++made)
        if (const auto done = registry->create(kind, "default", map("m" + std::to_string(made), 20'000)); !done) {
            why = done.error();
            break;
        }
    EXPECT_GE(made, 15);
    EXPECT_LE(made, 20);
    EXPECT_EQ(why.code, 507);
    EXPECT_NE(why.message.find("delete what is not needed"), std::string::npos);
    std::vector<registry::Event> events;
    EXPECT_FALSE(registry->events_since(began, nullptr, "", events)) << "the first events are gone";
    EXPECT_TRUE(registry->events_since(registry->oldest_version(), nullptr, "", events));
    EXPECT_GE(events.size(), 3u);
    EXPECT_LE(events.size(), 5u);
    // Smaller is always taken, and what was deleted makes room.
    EXPECT_TRUE(registry->update(kind, "default", "m0", map("m0", 10), false));
    EXPECT_TRUE(registry->remove(kind, "default", "m1"));
    EXPECT_TRUE(registry->create(kind, "default", map("again", 20'000)));
}

TEST(LogMemory, lines_are_cut_and_kept_in_a_bounded_number_of_bytes) {
    std::size_t longest = 0;
    log::set_sink([&](std::string_view line) { longest = std::max(longest, line.size()); });
    const auto before = heap();
    for (int i = 0; i < 2000; ++i) log::write("broker", log::Level::error, std::string(60'000, 'x'));
    EXPECT_LE(longest, 9000u);
    EXPECT_LE(heap() - before, 10 << 20);
    const auto kept = log::lines_after(0, {});
    EXPECT_NE(kept.back().text.find("bytes more)"), std::string::npos);
    log::set_sink(nullptr);
}

TEST(HeapKeeper, gives_back_once_what_an_overload_left) {
    constexpr std::size_t mib = 1 << 20;
    HeapKeeper keeper;
    EXPECT_FALSE(keeper.is_due({.in_use = 50 * mib, .resident = 60 * mib}));
    EXPECT_FALSE(keeper.is_due({.in_use = 190 * mib, .resident = 194 * mib}));
    EXPECT_FALSE(keeper.is_due({.in_use = 400 * mib, .resident = 520 * mib})) << "memory is still coming";
    EXPECT_TRUE(keeper.is_due({.in_use = 100 * mib, .resident = 194 * mib}));
    EXPECT_FALSE(keeper.is_due({.in_use = 1000 * mib, .resident = 1100 * mib}));
    EXPECT_FALSE(keeper.is_due({.in_use = 1000 * mib, .resident = 1100 * mib})) << "a tenth is not worth it";
    EXPECT_FALSE(keeper.is_due({})) << "nobody tells";
}

}  // namespace penstock::test
