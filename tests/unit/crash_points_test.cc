// The process dies at each point of an exchange in turn, and what the store then holds goes on in another process: with the same number
// of workers, or another one. What must come exactly once does.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "store/durable.h"

namespace penstock::test {
namespace {

namespace fs = std::filesystem;
using mqtt::Qos;
using mqtt::Version;

/// In memory where there is room: what a process leaves is what it wrote, and power cuts are durable_fault_test's.
fs::path base() {
    std::error_code error;
    const auto space = fs::space("/dev/shm", error);
    return !error && space.available > (std::uintmax_t{1} << 30) ? fs::path("/dev/shm") : fs::temp_directory_path();
}

struct Folder {
    fs::path path = base() / ("penstock-points-" + random_uuid());
    ~Folder() { fs::remove_all(path); }
};

/// One process: cores on a store on disk. It dies at the `die_at`-th point after arm(); `lazy` names a core that ends no turn while
/// there is work, so that the others' batches are on disk before its own.
class Life {
  public:
    Life(const Folder& folder, std::uint32_t cores) : cores_(cores), tickets_(cores) {
        durable_ = store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .workers = cores, .file_system = {}}).value();
        broker::BrokerConfig config;
        config.persistence = {.retain = broker::Persistence::Mode::all, .queues = broker::Persistence::Mode::all};
        net_ = std::make_unique<MemoryNet>(cores, config, nullptr, nullptr, [&](std::uint32_t core) { return durable_->engine(core, [] {}); }, monotonic_ms());
        durable_->start();
        net_->turn_end = [this](std::uint32_t core) { return end_turn(core); };
        net_->settle();
    }
    ~Life() {
        durable_->stop();   // what was handed in is written; what was not is lost
        net_.reset();
    }
    void arm(int die_at, std::uint32_t lazy) {
        die_at_ = die_at;
        lazy_ = lazy;
    }
    /// Done once, before the next mail to that core is delivered.
    void before_mail_to(std::uint32_t core, std::function<void()> act) { act_ = {core, std::move(act)}; }
    MemoryNet& net() { return *net_; }
    MemoryNet::End* client(const std::string& id, bool clean, const std::string& then = {}, std::uint32_t expiry = 100'000) {
        auto* end = net_->open(broker::Core::home_of(id, cores_));
        net_->send(*end, connect_packet(id, Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = expiry}}, clean) + then);
        return end;
    }

    /// Resumes its session, and takes one message at a time.
    MemoryNet::End* stalled_client(const std::string& id) {
        auto* end = net_->open(broker::Core::home_of(id, cores_));
        net_->send(*end, connect_packet(id, Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = 100'000u}, {.id = mqtt::PropertyId::receive_maximum, .number = 1u}}, false));
        return end;
    }

  private:
    void commit(std::uint32_t core) {
        if (const auto ticket = net_->commit(core); ticket != 0) tickets_[core] = ticket;
    }
    bool end_turn(std::uint32_t core) {
        if (core < cores_) {
            if (core == act_.first && act_.second) std::exchange(act_.second, {})();
            for (std::uint32_t i = 0; i < cores_; ++i)
                if (i != lazy_) commit(i);
            return die_at_ == 0 || --die_at_ > 0;
        }
        for (std::uint32_t i = 0; i < cores_; ++i) commit(i);
        for (std::uint32_t i = 0; i < cores_; ++i)
            for (const auto end = monotonic_ms() + 10'000; net_->core(i).durable() < tickets_[i] && monotonic_ms() < end;) std::this_thread::yield();
        return die_at_ == 0 || --die_at_ > 0;
    }
    std::uint32_t cores_, lazy_ = ~0u;
    int die_at_ = 0;
    std::vector<std::uint64_t> tickets_;
    std::pair<std::uint32_t, std::function<void()>> act_;
    std::unique_ptr<store::Durable> durable_;
    std::unique_ptr<MemoryNet> net_;
};

std::string named(const std::string& word, std::uint32_t core, std::uint32_t cores) {
    for (int i = 0;; ++i)
        if (auto name = fmt::format("{}{}", word, i); broker::Core::home_of(name, cores) == core) return name;
}
std::string ack(mqtt::PacketType type, std::uint16_t id) {
    std::string out;
    mqtt::encode_ack(out, type, Version::v5, id, mqtt::ReasonCode::success);
    return out;
}
std::string sent_again(const std::string& topic, const std::string& payload, std::uint16_t id) {
    std::string out;
    mqtt::encode_publish(out, Version::v5, topic, payload, Qos::exactly_once, false, true, id, {});
    return out;
}
bool has_pubrec(std::string_view received, std::uint16_t id) {
    mqtt::Frame frame;
    for (; mqtt::cut_frame(received, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete; received.remove_prefix(frame.size))
        if (frame.type == mqtt::PacketType::pubrec && mqtt::decode_ack(frame.type, frame.flags, frame.body, Version::v5)->packet_id == id) return true;
    return false;
}

constexpr std::uint32_t before = 3;                     // cores of the process that dies
const std::vector<std::string> subscribers{named("s", 0, before), named("s", 1, before), named("s", 2, before), named("other", 1, before)};
const std::vector<std::string> members{named("m", 0, before), named("m", 1, before), named("m", 2, before)};

/// Kept sessions with subscriptions, which then go away, so that all that comes is queued.
void subscribe_all(Life& life, const std::string& topic) {
    for (const auto& id : subscribers) life.net().drop(*life.client(id, true, subscribe_packet(topic, Qos::exactly_once)));
    for (const auto& id : members) life.net().drop(*life.client(id, true, subscribe_packet("$share/g/" + topic, Qos::exactly_once)));
}
/// What each got, in one line: payloads by subscriber, and those of the group together.
std::string collect(Life& life) {
    std::string out;
    std::vector<std::string> payloads, of_group;
    for (const auto& id : subscribers) {
        auto* end = life.client(id, false);
        payloads.clear();
        count_publishes(end->received, Version::v5, &payloads);
        out += fmt::format("{}:{} ", id, fmt::join(payloads, ","));
    }
    for (const auto& id : members) count_publishes(life.client(id, false)->received, Version::v5, &of_group);
    std::ranges::sort(of_group);
    return out + fmt::format("group:{}", fmt::join(of_group, ","));
}
std::string all_have(const std::string& payloads) {
    std::string out;
    for (const auto& id : subscribers) out += fmt::format("{}:{} ", id, payloads);
    return out + "group:" + payloads;
}
/// Nothing is left of what made it exact.
void expect_clean(const Folder& folder, std::uint32_t cores) {
    struct Left final : store::Recovered {
        std::vector<std::string> marks;
        void session(store::SessionRecord) override {}
        void subscription(std::string_view, std::string_view, const topics::Options&, std::uint32_t) override {}
        void incoming(std::string_view client, std::uint16_t id) override { marks.push_back(fmt::format("incoming {} {}", client, id)); }
        void seen(std::string_view publisher, std::uint16_t id, store::Portion portion) override { marks.push_back(fmt::format("seen {} {} by {} of {}", store::is_leaving_name(publisher) ? "will" : publisher, id, portion.worker, portion.workers)); }
        void leaving(std::uint64_t number, store::LeavingRecord) override { marks.push_back(fmt::format("leaving {}", number)); }
        void queue(std::string_view, std::unique_ptr<store::SessionStore> store, std::uint16_t) override { stores.push_back(std::move(store)); }
        void handed_on(std::string_view client, std::vector<store::Share>, std::unique_ptr<store::SessionStore> store) override {
            marks.push_back(fmt::format("handed on of {}", client));
            stores.push_back(std::move(store));
        }
        void retained(const mqtt::MessageRef&, std::uint64_t) override {}
        void state(std::string, statestore::Entry) override {}
        std::vector<std::unique_ptr<store::SessionStore>> stores;
    } left;
    const auto durable = store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .workers = cores, .file_system = {}}).value();
    const auto engine = durable->engine(0, [] {});
    engine->recover([](std::string_view) { return true; }, left);
    EXPECT_EQ(left.marks, std::vector<std::string>{});
    left.stores.clear();
}

/// Runs `scenario(die_at, lazy, cores afterwards)` for every point until it lives through all of them.
template <class Scenario>
void at_every_point(Scenario&& scenario) {
    for (const std::uint32_t after : {before, 1u, 2u, 4u})
        for (std::uint32_t lazy = 0; lazy <= before; ++lazy) {
            int die_at = 1;
            while (scenario(die_at, lazy, after) && die_at < 200 && !::testing::Test::HasFailure()) ++die_at;
            EXPECT_LT(die_at, 200);
            EXPECT_GT(die_at, 2) << "nothing happened between the workers";
        }
}

// [MQTT-3.1.2-8]: the will of a connection that ends without DISCONNECT is sent; a crash of the broker sends it neither twice nor never.
TEST(CrashPoints, a_will_comes_exactly_once) {
    for (const auto& [at_the_end_of_the_session, qos] : {std::pair{false, Qos::exactly_once}, {true, Qos::exactly_once}, {false, Qos::at_most_once}}) {
        const auto owner = named("w", 0, before);
        at_every_point([&, at_the_end_of_the_session, qos](int die_at, std::uint32_t lazy, std::uint32_t after) {
            const Folder folder;
            bool died = false;
            {
                Life life(folder, before);
                subscribe_all(life, "will");
                mqtt::ConnectOptions options{.version = Version::v5, .client_id = owner, .clean_start = true, .keep_alive = 0};
                options.properties = {{.id = mqtt::PropertyId::session_expiry_interval, .number = at_the_end_of_the_session ? 2u : 100'000u}};
                options.has_will = options.will_retain = true;
                options.will_topic = "will";
                options.will_payload = "gone";
                options.will_qos = qos;
                if (at_the_end_of_the_session) options.will_properties = {{.id = mqtt::PropertyId::will_delay_interval, .number = 100}};
                std::string packet;
                mqtt::encode_connect(packet, options);
                auto* end = life.net().open(0);
                life.net().send(*end, packet);
                if (at_the_end_of_the_session) life.net().drop(*end);
                life.arm(die_at, lazy);
                if (at_the_end_of_the_session) life.net().advance(4000);
                else life.net().drop(*end);
                died = life.net().is_dead();
            }
            {
                Life life(folder, after);
                life.net().advance(8000);
                EXPECT_EQ(collect(life), all_have(qos == Qos::at_most_once ? "" : "gone")) << "died at " << die_at << ", core " << lazy << " lazy, " << after << " cores afterwards, session ends: " << at_the_end_of_the_session;
                auto* late = life.client("late", true, subscribe_packet("will", Qos::at_most_once));
                EXPECT_EQ(count_publishes(late->received, Version::v5), 1u) << "it is retained";
            }
            expect_clean(folder, after);
            return died;
        });
    }
}

// [MQTT-4.3.3-10]: what was received with QoS 2 causes no second delivery, whenever the broker dies and with however many workers it
// comes back; and the identifier is free afterwards.
TEST(CrashPoints, a_qos_2_message_comes_exactly_once) {
    const auto publisher = named("p", 0, before);
    at_every_point([&](int die_at, std::uint32_t lazy, std::uint32_t after) {
        const Folder folder;
        bool died = false, received = false, released = false;
        {
            Life life(folder, before);
            subscribe_all(life, "t");
            auto* end = life.client(publisher, true);
            life.arm(die_at, lazy);
            life.net().send(*end, publish_packet("t", "one", 2, 7));
            received = has_pubrec(end->received, 7);
            if (received) life.net().send(*end, ack(mqtt::PacketType::pubrel, 7)), released = true;
            died = life.net().is_dead();
        }
        {
            Life life(folder, after);
            life.net().advance(2000);
            auto* end = life.client(publisher, false);
            if (!received) {
                end->received.clear();
                life.net().send(*end, sent_again("t", "one", 7));
                EXPECT_TRUE(has_pubrec(end->received, 7));
            }
            life.net().send(*end, ack(mqtt::PacketType::pubrel, 7));
            // The same identifier again, and with DUP, as after one more crash in which the first attempt was lost.
            end->received.clear();
            life.net().send(*end, sent_again("t", "two", 7));
            EXPECT_TRUE(has_pubrec(end->received, 7));
            life.net().send(*end, ack(mqtt::PacketType::pubrel, 7));
            EXPECT_EQ(collect(life), all_have("one,two")) << "died at " << die_at << ", core " << lazy << " lazy, " << after << " cores afterwards, PUBREC came: " << received << released;
        }
        expect_clean(folder, after);
        return died;
    });
}

// The names of marks are part of the format on disk: a folder that an earlier release left half way through an exchange goes on exactly once.
// [MQTT-4.3.3-10]
TEST(CrashPoints, marks_of_an_earlier_release_are_found_and_end) {
    using namespace std::string_literals;
    const Folder folder;
    const auto publisher = named("p", 0, before);
    {
        Life life(folder, before);
        subscribe_all(life, "t");
        life.net().drop(*life.client(publisher, true));
    }
    {
        // As written before the message itself was known to be received: workers 0 and 2 have it, and the group; worker 1 does not.
        const auto durable = store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .workers = before, .file_system = {}}).value();
        const auto engine = durable->engine(0, [] {});
        durable->start();
        engine->put_seen(publisher, 7, {.worker = 0, .workers = before});
        engine->put_seen(publisher, 7, {.worker = 2, .workers = before});
        engine->put_seen(publisher + "\0t\0g"s, 7, {.worker = 1, .workers = before});
        const std::vector<std::uint64_t> none(before, 0);
        engine->commit({.sent = none, .processed = none});
        durable->stop();
    }
    {
        Life life(folder, before);
        life.net().advance(2000);
        auto* end = life.client(publisher, false);
        life.net().send(*end, sent_again("t", "one", 7));
        EXPECT_TRUE(has_pubrec(end->received, 7));
        life.net().send(*end, ack(mqtt::PacketType::pubrel, 7));
        EXPECT_EQ(collect(life), fmt::format("{}: {}:one {}: {}:one group:", subscribers[0], subscribers[1], subscribers[2], subscribers[3]));
    }
    expect_clean(folder, before);
}

// [MQTT-4.8.2-6]: who was picked leaves while the message is on its way to him; another member gets it, and the publisher's acknowledgement
// promises that too.
TEST(CrashPoints, a_member_that_leaves_takes_nothing_with_it) {
    const auto publisher = named("p", 0, before);
    at_every_point([&](int die_at, std::uint32_t lazy, std::uint32_t after) {
        const Folder folder;
        bool died = false, received = false;
        {
            Life life(folder, before);
            auto* leaver = life.client(members[1], true, subscribe_packet("$share/g/t", Qos::exactly_once));
            auto* end = life.client(publisher, true);
            life.net().drop(*life.client(members[2], true, subscribe_packet("$share/g/t", Qos::exactly_once)));   // the other one is picked while it is there
            life.arm(die_at, lazy);
            life.before_mail_to(1, [&] {
                std::string packet;
                mqtt::encode_unsubscribe(packet, Version::v5, 2, {"$share/g/t"});
                life.net().send(*leaver, packet);
            });
            life.net().send(*end, publish_packet("t", "one", 2, 7));
            received = has_pubrec(end->received, 7);
            EXPECT_EQ(count_publishes(leaver->received, Version::v5), 0u) << "it left before";
            died = life.net().is_dead();
        }
        {
            Life life(folder, after);
            life.net().advance(3000);
            auto* end = life.client(publisher, false);
            if (!received) life.net().send(*end, sent_again("t", "one", 7));
            life.net().send(*end, ack(mqtt::PacketType::pubrel, 7));
            std::vector<std::string> payloads;
            for (const auto& id : {members[1], members[2]}) count_publishes(life.client(id, false)->received, Version::v5, &payloads);
            EXPECT_EQ(payloads, std::vector<std::string>{"one"}) << "died at " << die_at << ", core " << lazy << " lazy, " << after << " cores afterwards, PUBREC came: " << received;
        }
        expect_clean(folder, after);
        return died;
    });
}

// MQTT 5.0, 4.8.2: what a member was given and did not finish goes to another one when its session ends, and when it unsubscribes: each
// message once, in order, at whatever point the broker dies.
TEST(CrashPoints, what_a_member_held_goes_on_exactly_once) {
    const auto publisher = named("p", 0, before);
    enum class Way : std::uint8_t { clean_start, expiry, unsubscribe };
    for (const auto& [way, to_another_worker] : {std::pair{Way::clean_start, true}, {Way::clean_start, false}, {Way::expiry, true}, {Way::unsubscribe, true}}) {
            const auto heir = to_another_worker ? members[2] : named("n", 1, before);
            at_every_point([&, way](int die_at, std::uint32_t lazy, std::uint32_t after) {
                const Folder folder;
                bool died = false;
                {
                    Life life(folder, before);
                    const auto large = std::string(600, 'x');   // from here on a message is kept once for several receivers
                    life.net().drop(*life.client(members[1], true, subscribe_packet("$share/g/t", Qos::at_least_once) + subscribe_packet("t", Qos::at_least_once), way == Way::expiry ? 2 : 100'000));
                    auto* end = life.client(publisher, true);
                    for (std::uint16_t i = 1; i <= 3; ++i) life.net().send(*end, publish_packet("t", std::to_string(i) + large, 1, i));
                    life.net().drop(*life.client(heir, true, subscribe_packet("$share/g/t", Qos::at_least_once)));
                    auto* leaver = way == Way::unsubscribe ? life.stalled_client(members[1]) : nullptr;
                    life.arm(die_at, lazy);
                    std::string packet;
                    mqtt::encode_unsubscribe(packet, Version::v5, 2, {"$share/g/t"});
                    if (way == Way::clean_start) life.client(members[1], true);
                    if (way == Way::unsubscribe) life.net().send(*leaver, packet);
                    if (way == Way::expiry) life.net().advance(4000);
                    died = life.net().is_dead();
                }
                {
                    Life life(folder, after);
                    life.net().advance(5000);
                    auto* mine = life.client(members[1], false);
                    std::vector<std::string> got, of_heir;
                    count_publishes(mine->received, Version::v5, &got);
                    count_publishes(life.client(heir, false)->received, Version::v5, &of_heir);
                    for (auto* all : {&got, &of_heir})
                        for (auto& payload : *all) payload.resize(1);
                    const std::vector<std::string> each{"1", "2", "3"};
                    const auto where = fmt::format("died at {}, core {} lazy, {} cores afterwards, way {}, leaver has {}, heir {}", die_at, lazy, after, static_cast<int>(way), fmt::join(got, ","), fmt::join(of_heir, ","));
                    // The leaver's own subscription gives it each once more, as long as its session lives.
                    const std::vector<std::string> doubled{"1", "1", "2", "2", "3", "3"};
                    std::ranges::sort(got);
                    if (way == Way::unsubscribe) {
                        // One of them was sent before it left.
                        if (of_heir.empty()) EXPECT_EQ(got, doubled) << where;
                        else EXPECT_EQ(got.size() + of_heir.size(), 6u) << where;
                    } else if (of_heir.empty()) {
                        EXPECT_EQ(got, doubled) << where;
                    } else {
                        EXPECT_EQ(of_heir, each) << where;
                        EXPECT_TRUE(got.empty()) << where;
                    }
                    EXPECT_TRUE(std::ranges::is_sorted(of_heir)) << where;
                }
                expect_clean(folder, after);
                return died;
            });
        }
}

/// While the disk takes no writes, a turn in which anything is to be written ends late: what is written to a client in it waits if it says
/// what must be so after a crash, and only then.
TEST(Gates, what_promises_nothing_that_is_kept_does_not_wait_for_the_disk) {
    const Folder folder;
    Life life(folder, 1);
    auto& net = life.net();
    const auto waits = [&](MemoryNet::End& end, const std::string& bytes) {
        end.connection->is_gated = false;
        net.send(end, bytes);
        return std::exchange(end.connection->is_gated, false);
    };
    const auto connect = [](const std::string& id, std::uint32_t expiry, bool clean) { return connect_packet(id, Version::v5, {{.id = mqtt::PropertyId::session_expiry_interval, .number = expiry}}, clean); };
    const auto unsubscribe = [] {
        std::string out;
        mqtt::encode_unsubscribe(out, Version::v5, 2, {"t"});
        return out;
    }();
    for (const bool is_kept : {false, true}) {
        auto* end = net.open();
        const std::uint32_t expiry = is_kept ? 1000 : 0;
        EXPECT_EQ(waits(*end, connect("one", expiry, true)), is_kept);
        EXPECT_EQ(waits(*end, subscribe_packet("t", Qos::at_least_once)), is_kept);
        EXPECT_EQ(waits(*end, unsubscribe), is_kept);
        EXPECT_TRUE(waits(*end, publish_packet("t", "x", 1, 1))) << "a message may be kept for others";
        EXPECT_TRUE(waits(*end, publish_packet("t", "x", 2, 2)));
        EXPECT_EQ(waits(*end, ack(mqtt::PacketType::pubrel, 2)), is_kept);
        EXPECT_EQ(waits(*end, ack(mqtt::PacketType::puback, 1)), is_kept);
        net.drop(*end);
    }
    // Its end must not come to nothing: a session that was kept, and is not any more.
    EXPECT_TRUE(waits(*net.open(), connect("one", 0, true)));
    net.drop(*life.client("two", true));
    EXPECT_TRUE(waits(*net.open(), connect("two", 0, false)));
    // Nor one whose end is not on the disk yet: it ends, and its client is back in the same turn.
    auto* leaver = life.client("three", true);
    net.turn_end = {};
    std::string leave;
    mqtt::encode_disconnect(leave, Version::v5, mqtt::ReasonCode::success, std::string_view("\x11\0\0\0\0", 5));   // Session Expiry Interval 0
    net.send(*leaver, leave);
    EXPECT_TRUE(waits(*net.open(), connect("three", 0, false)));
    EXPECT_FALSE(waits(*net.open(), connect("four", 0, false))) << "another client's end is none of its business";
}

}  // namespace
}  // namespace penstock::test
