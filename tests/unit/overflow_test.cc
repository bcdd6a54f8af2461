// Queues: what leaves them in the middle, and what they put on the disk and take back.
#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "harness/memory_net.h"
#include "store/memory_session.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;
using mqtt::Qos;

mqtt::MessageRef message(const std::string& payload, std::int64_t expires_at = 0) {
    return mqtt::MessageRef(mqtt::Message::make({.topic = "t", .payload = payload, .properties = {}, .partition = {}, .has_partition = false, .retain = false, .qos = Qos::exactly_once, .expires_at = expires_at, .publisher = 0}));
}

struct Folder {
    fs::path path = fs::temp_directory_path() / ("penstock-overflow-" + random_uuid());
    ~Folder() { fs::remove_all(path); }
    [[nodiscard]] std::size_t files() const {
        std::error_code error;
        std::size_t count = 0;
        for (const auto& entry : fs::directory_iterator(path, error)) count += entry.path().extension() == ".buffer" ? 1 : 0;
        return count;
    }
    [[nodiscard]] bool has_bytes(const std::string& bytes) const {
        for (const auto& entry : fs::directory_iterator(path)) {
            std::ifstream in(entry.path(), std::ios::binary);
            if (std::string{std::istreambuf_iterator<char>(in), {}}.find(bytes) != std::string::npos) return true;
        }
        return false;
    }
};

/// An overflow with one lane, and the turns of its worker.
struct Side {
    mqtt::MessageBytes cell;
    std::unique_ptr<Overflow> overflow;
    OverflowLane& lane;
    explicit Side(const Folder& folder, std::int64_t size_max = 1 << 30) : overflow(Overflow::make(folder.path.string(), 1, [] { return true; }, [](std::uint32_t) {}, cell)), lane(overflow->lane(0)) {
        lane.on_ready = [](const std::string&) {};
        overflow->set_limits({.size_max = size_max});
    }
    template <class Done>
    bool turn_until(Done&& done) {
        for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end; std::this_thread::yield()) {
            lane.settle();
            if (done()) return true;
        }
        return false;
    }
    Queued* next(SessionStore& store) {
        Queued* out = nullptr;
        turn_until([&] { return (out = store.next()) != nullptr || store.queued() == 0; });
        return out;
    }
};

TEST(QueuePieces, behaves_like_a_deque_whatever_leaves_it_where) {
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        std::mt19937_64 random(seed);
        Queue queue;
        std::deque<std::pair<std::uint64_t, std::int64_t>> model;
        std::int64_t now = 0;
        for (std::uint64_t step = 1; step < 3000; ++step) {
            switch (random() % 8) {
                case 0: case 1: case 2: case 3: {
                    const auto ends = random() % 3 == 0 ? now + 1 + static_cast<std::int64_t>(random() % 500) : 0;
                    queue.push_back({.key = step, .expires_at = ends});
                    model.emplace_back(step, ends);
                    break;
                }
                case 4: case 5:
                    if (model.empty()) break;
                    ASSERT_EQ(queue.front().key, model.front().first);
                    queue.pop_front();
                    model.pop_front();
                    break;
                case 6: {
                    now += static_cast<std::int64_t>(random() % 40);
                    std::size_t shown = 0;
                    const auto gone = queue.drop_ended(now, [&](Queued&) { ++shown; });
                    EXPECT_EQ(gone, shown);
                    EXPECT_EQ(gone, std::erase_if(model, [&](const auto& m) { return m.second != 0 && m.second <= now; }));
                    break;
                }
                default:
                    if (random() % 20 != 0) break;
                    queue.erase_if([&](const Queued& item) { return item.key % 7 == 0; });
                    std::erase_if(model, [](const auto& m) { return m.first % 7 == 0; });
            }
            ASSERT_EQ(queue.size(), model.size());
            std::int64_t next = 0;
            for (const auto& [key, ends] : model)
                if (ends != 0 && (next == 0 || ends < next)) next = ends;
            if (next != 0) { ASSERT_TRUE(queue.next_end() != 0 && queue.next_end() <= next); }
        }
        std::vector<std::uint64_t> left, expected;
        queue.for_each([&](const Queued& item) { return left.push_back(item.key), true; });
        for (const auto& [key, ends] : model) expected.push_back(key);
        EXPECT_EQ(left, expected) << "seed " << seed;
    }
}

TEST(OverflowQueue, comes_back_in_order_and_leaves_nothing_behind) {
    const Folder folder;
    fs::create_directories(folder.path);
    std::ofstream(folder.path / "00000009.buffer") << "of a process that is gone";
    {
        Side side(folder);
        EXPECT_EQ(folder.files(), 0u);
        MemorySessionStore store("c", &side.lane);
        const auto before = mqtt::MessageBytes::mine().value();
        for (int i = 0; i < 5000; ++i) store.enqueue({.message = message(fmt::format("clear-text-{} ", i) + std::string(1000, 'x')), .qos = Qos::at_least_once}, true, 0);
        ASSERT_TRUE(side.turn_until([&] { return side.overflow->figures().written >= 18; }));   // all but the last block
        EXPECT_EQ(store.queued(), 5000u);
        // On the disk, and not in memory: a block is let go of in a turn after it was written.
        ASSERT_TRUE(side.turn_until([&] { return mqtt::MessageBytes::mine().value() - before < 600'000; }));
        EXPECT_FALSE(folder.has_bytes("clear-text"));
        for (int i = 0; i < 5000; ++i) {
            auto* next = side.next(store);
            ASSERT_NE(next, nullptr) << i;
            ASSERT_TRUE(next->message->view().payload.starts_with(fmt::format("clear-text-{} ", i)));
            store.start_next(static_cast<std::uint16_t>(i + 1));
            store.finish(static_cast<std::uint16_t>(i + 1));
        }
        EXPECT_EQ(store.bytes(), 0u);
        ASSERT_TRUE(side.turn_until([&] { return folder.files() == 0; }));
        EXPECT_EQ(side.overflow->figures().failed, 0u);
        EXPECT_EQ(side.overflow->figures().disk_bytes, 0);
        EXPECT_LE(mqtt::MessageBytes::mine().value() + side.cell.value() - before, 8192) << "places of the queue alone";
        store.enqueue({.message = message("left"), .qos = Qos::at_least_once}, true, 0);
    }
    EXPECT_EQ(folder.files(), 0u);
}

TEST(OverflowQueue, one_message_of_many_queues_is_written_once) {
    const Folder folder;
    Side side(folder);
    std::vector<std::unique_ptr<MemorySessionStore>> stores;
    for (int i = 0; i < 100; ++i) stores.push_back(std::make_unique<MemorySessionStore>(fmt::format("c{}", i), &side.lane));
    const auto shared = message(std::string(10'000, 'x'));
    for (auto& store : stores) store->enqueue({.message = shared, .qos = Qos::at_least_once}, true, 0);
    EXPECT_LT(side.overflow->figures().disk_bytes, 11'000);
    for (auto& store : stores) ASSERT_NE(side.next(*store), nullptr);
}

/// Random use of several queues, some of it on the disk, against what it should be.
TEST(OverflowQueue, behaves_like_a_queue_in_memory) {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        const Folder folder;
        Side side(folder, 64 << 20);
        std::mt19937_64 random(seed);
        struct Pair {
            std::unique_ptr<MemorySessionStore> store;
            std::deque<std::pair<std::string, std::int64_t>> model;
            std::uint16_t id = 0;
        };
        std::vector<Pair> pairs(3);
        for (auto& pair : pairs) pair.store = std::make_unique<MemorySessionStore>("c", &side.lane);
        std::int64_t now = 1000;
        std::uint64_t number = 0;
        for (int step = 0; step < 4000; ++step) {
            auto& pair = pairs[random() % pairs.size()];
            switch (random() % 10) {
                case 0: case 1: case 2: case 3: case 4: {
                    const auto ends = random() % 4 == 0 ? now + static_cast<std::int64_t>(random() % 3000) + 1 : 0;
                    const auto text = fmt::format("{} ", ++number) + std::string(random() % 5 == 0 ? random() % 100'000 : random() % 300, 'x');
                    const auto shared = message(text, ends);
                    for (auto& other : pairs) {
                        if (&other != &pair && random() % 3 != 0) continue;
                        other.store->enqueue({.message = shared, .qos = Qos::at_least_once}, random() % 3 != 0, now);
                        other.model.emplace_back(text, ends);
                    }
                    break;
                }
                case 5: case 6: {
                    auto* next = side.next(*pair.store);
                    ASSERT_EQ(next != nullptr, !pair.model.empty());
                    if (next == nullptr) break;
                    ASSERT_EQ(next->message->view().payload, pair.model.front().first) << "seed " << seed;
                    pair.id = static_cast<std::uint16_t>(pair.id % 65'535 + 1);
                    pair.store->start_next(pair.id);
                    pair.store->finish(pair.id);
                    pair.model.pop_front();
                    break;
                }
                case 7:
                    if (pair.model.empty()) break;
                    pair.store->next();   // may begin to read what is dropped then
                    pair.store->drop_next();
                    pair.model.pop_front();
                    break;
                case 8:
                    now += static_cast<std::int64_t>(random() % 300);
                    ASSERT_EQ(pair.store->drop_expired(now), std::erase_if(pair.model, [&](const auto& m) { return m.second != 0 && m.second <= now; }));
                    break;
                default:
                    side.lane.settle();
                    if (random() % 100 == 0) pair = Pair{.store = std::make_unique<MemorySessionStore>("c", &side.lane), .model = {}, .id = 0};
            }
            ASSERT_EQ(pair.store->queued(), pair.model.size());
        }
        for (auto& pair : pairs)
            for (; !pair.model.empty(); pair.model.pop_front()) {
                auto* next = side.next(*pair.store);
                ASSERT_NE(next, nullptr);
                ASSERT_EQ(next->message->view().payload, pair.model.front().first) << "seed " << seed;
                pair.store->drop_next();
            }
        pairs.clear();
        EXPECT_EQ(side.overflow->figures().failed, 0u);
        ASSERT_TRUE(side.turn_until([&] { return folder.files() == 0; }));
        EXPECT_EQ(side.overflow->figures().disk_bytes, 0);
    }
}

TEST(OverflowQueue, a_disk_that_takes_nothing_leaves_messages_in_memory) {
    const Folder folder;
    std::ofstream(folder.path) << "no folder";   // nothing can be made in it
    Side side(folder);
    MemorySessionStore store("c", &side.lane);
    for (int i = 0; i < 2000; ++i) {
        store.enqueue({.message = message(fmt::format("{} ", i) + std::string(1000, 'x')), .qos = Qos::at_least_once}, true, 0);
        side.lane.settle();
    }
    ASSERT_TRUE(side.turn_until([&] { return !side.overflow->figures().fault.empty(); }));
    EXPECT_TRUE(side.lane.is_full());
    EXPECT_FALSE(side.lane.has_room());
    for (int i = 0; i < 2000; ++i) {
        auto* next = side.next(store);
        ASSERT_NE(next, nullptr) << i;
        ASSERT_TRUE(next->message->view().payload.starts_with(fmt::format("{} ", i)));
        store.drop_next();
    }
}

TEST(OverflowQueue, is_bounded_in_bytes_and_age) {
    const Folder folder;
    Side side(folder, 1'000'000);
    side.overflow->set_limits({.size_max = 1'000'000, .age_max_ms = 5000});
    MemorySessionStore store("c", &side.lane);
    for (int i = 0; i < 3000; ++i) store.enqueue({.message = message(std::string(1000, 'x')), .qos = Qos::at_least_once}, true, 10'000);
    EXPECT_LE(side.overflow->figures().disk_bytes, 1'001'100);
    EXPECT_EQ(side.overflow->figures().fault, "diskBackedMessageBuffer.maxSize is used up");
    const auto gone = store.drop_expired(15'000);   // those on the disk, and no others
    EXPECT_GT(gone, 900u);
    EXPECT_LT(gone, 1000u);
    EXPECT_EQ(store.queued(), 3000 - gone);
    ASSERT_TRUE(side.turn_until([&] { return side.lane.has_room(); })) << side.overflow->figures().disk_bytes;
}

}  // namespace
}  // namespace penstock::store

namespace penstock::test {
namespace {

std::string connect(const std::string& id) {
    mqtt::ConnectOptions options{.version = mqtt::Version::v5, .client_id = id, .clean_start = false, .keep_alive = 0};
    options.properties.push_back({.id = mqtt::PropertyId::session_expiry_interval, .number = 100'000});
    std::string out;
    mqtt::encode_connect(out, options);
    return out;
}
std::string publish(const std::string& payload, std::uint32_t expiry, std::uint16_t id) {
    std::string out, properties;
    if (expiry != 0) mqtt::write_property(properties, mqtt::PropertyId::message_expiry_interval, expiry);
    mqtt::encode_publish(out, mqtt::Version::v5, "t", payload, mqtt::Qos::at_least_once, false, false, id, properties);
    return out;
}

struct Away {
    MemoryNet net;
    MemoryNet::End* publisher;
    explicit Away(const broker::BrokerConfig& config = {}) : net(1, config), publisher(nullptr) {
        auto* end = net.open();
        std::string subscribe;
        mqtt::encode_subscribe(subscribe, mqtt::Version::v5, 1, {{.filter = "t", .qos = mqtt::Qos::at_least_once}});
        net.send(*end, connect("away") + subscribe);
        net.drop(*end);
        publisher = net.open();
        net.send(*publisher, connect("publisher"));
    }
};

/// MQTT 5.0 §3.3.2.3.3: what expired is deleted, wherever in the queue it stands and whether anybody asks for it or not.
TEST(MessageExpiry, goes_from_the_middle_of_a_queue_on_time) {
    Away away;
    std::uint16_t id = 0;
    for (int i = 0; i < 300; ++i) {
        away.net.send(*away.publisher, publish("stays", 0, ++id));
        away.net.send(*away.publisher, publish("goes", 5, ++id));
        away.net.send(*away.publisher, publish("goes later", 600, ++id));
    }
    EXPECT_EQ(away.net.core(0).figures().queued, 900u);
    away.net.advance(4000);
    EXPECT_EQ(away.net.core(0).figures().queued, 900u);
    away.net.advance(3000);
    EXPECT_EQ(away.net.core(0).figures().queued, 600u);
    EXPECT_EQ(away.net.core(0).figures().expired_messages, 300u);
    away.net.advance(590'000);
    EXPECT_EQ(away.net.core(0).figures().queued, 600u);
    away.net.advance(6000);
    EXPECT_EQ(away.net.core(0).figures().queued, 300u);
    EXPECT_EQ(away.net.core(0).figures().expired_messages, 600u);
}

TEST(QueueLimit, counts_bytes_and_drops_the_oldest) {
    broker::BrokerConfig config;
    config.queue_bytes_max = 10'000;
    config.queue_drop_oldest = true;
    Away away(config);
    for (std::uint16_t i = 1; i <= 50; ++i) away.net.send(*away.publisher, publish(fmt::format("{:04}", i) + std::string(1000, 'x'), 0, i));
    const auto queued = away.net.core(0).figures().queued;
    EXPECT_GE(queued, 8u);
    EXPECT_LE(queued, 9u);
    auto* again = away.net.open();
    away.net.send(*again, connect("away"));
    std::vector<std::string> got;
    mqtt::Frame frame;
    for (std::string_view rest = again->received; mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete; rest.remove_prefix(frame.size))
        if (frame.type == mqtt::PacketType::publish) got.emplace_back(mqtt::decode_publish(frame.flags, frame.body, mqtt::Version::v5, false)->payload.substr(0, 4));
    ASSERT_EQ(got.size(), queued);
    EXPECT_EQ(got.back(), "0050");
    EXPECT_EQ(got.front(), fmt::format("{:04}", 51 - queued));
    // A message larger than the bound alone is queued alone.
    Away other(config);
    other.net.send(*other.publisher, publish("small", 0, 1));
    other.net.send(*other.publisher, publish(std::string(50'000, 'x'), 0, 2));
    EXPECT_EQ(other.net.core(0).figures().queued, 1u);
}

}  // namespace
}  // namespace penstock::test
