// Rights that are withdrawn reach what waits: queues, deliveries under way, wills, notifications; also of clients that are away, and
// after a restart.
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "store/durable.h"
#include "store/overflow.h"

namespace penstock::test {
namespace {

using auth::Action;
using mqtt::PacketType;
using mqtt::Qos;
using mqtt::Version;

/// Everybody is who he says.
class Believes final : public auth::Authenticator {
  public:
    auth::Verdict begin(const auth::Credentials& c, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
        const std::string name(c.user_name.value_or("nobody"));
        return auth::Verdict::accepted({.method = "Believes", .user_name = name, .id = "user/" + name});
    }
};

/// `ann` may read and publish to these; everybody else everything.
std::shared_ptr<const auth::Policy> ann_may(std::vector<std::string> read, std::vector<std::string> publish = {"#"}, bool connect = true) {
    std::vector<auth::Rule> rules{{.user_names = {"bob", "cid"}, .resources = {{Action::connect, {}}, {Action::publish, {"#"}}, {Action::subscribe, {"#"}}}, .keys = {{.read = true, .write = true, .type = auth::Rule::KeyType::pattern, .keys = {"*"}}}}};
    auth::Rule ann{.user_names = {"ann"}, .resources = {{Action::publish, std::move(publish)}}};
    if (connect) ann.resources.push_back({Action::connect, {}});
    if (!read.empty()) ann.resources.push_back({Action::subscribe, std::move(read)});
    ann.keys = {{.read = true, .write = false, .type = auth::Rule::KeyType::pattern, .keys = {"open*"}}};
    rules.push_back(std::move(ann));
    return std::make_shared<const auth::Policy>(std::move(rules), "test/policy");
}

struct With {
    bool clean = false;
    std::uint32_t expiry = 1000, receive_maximum = 100;
    std::string will{};
    std::uint32_t will_delay = 0;
};
std::string connect_as(const std::string& user, const With& with = {}) {
    mqtt::ConnectOptions options{.version = Version::v5, .client_id = "of " + user, .clean_start = with.clean, .keep_alive = 0};
    options.user_name = user;
    options.properties = {{.id = mqtt::PropertyId::session_expiry_interval, .number = with.expiry}, {.id = mqtt::PropertyId::receive_maximum, .number = with.receive_maximum}};
    if (!with.will.empty()) {
        options.has_will = true;
        options.will_topic = with.will;
        options.will_payload = "will";
        if (with.will_delay != 0) options.will_properties = {{.id = mqtt::PropertyId::will_delay_interval, .number = with.will_delay}};
    }
    std::string out;
    mqtt::encode_connect(out, options);
    return out;
}
std::string ack(PacketType type, std::uint16_t id) {
    std::string out;
    mqtt::encode_ack(out, type, Version::v5, id, mqtt::ReasonCode::success);
    return out;
}
/// Topics of what came, each with `!` where it came with DUP; other packets by their type's number. Acknowledges QoS 1 where wanted.
std::vector<std::string> took(MemoryNet& net, MemoryNet::End& end, bool acknowledge = true) {
    std::vector<std::string> out;
    for (bool any = true; any;) {
        any = false;
        const auto bytes = std::exchange(end.received, {});
        std::string_view rest = bytes;
        mqtt::Frame frame;
        for (; mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete; rest.remove_prefix(frame.size)) {
            if (frame.type == PacketType::pubrel) out.emplace_back("PUBREL");
            if (frame.type != PacketType::publish) continue;
            const auto p = mqtt::decode_publish(frame.flags, frame.body, Version::v5, false);
            out.push_back(std::string(p->topic) + (p->dup ? "!" : ""));
            if (!acknowledge || p->qos != Qos::at_least_once) continue;
            any = true;
            net.send(end, ack(PacketType::puback, p->packet_id));
        }
    }
    return out;
}
using Topics = std::vector<std::string>;

struct Scene {
    std::shared_ptr<Believes> believes = std::make_shared<Believes>();
    MemoryNet net;
    MemoryNet::End* bob;
    std::uint16_t next = 0;
    explicit Scene(std::uint32_t cores = 1) : net(cores, {}, believes, ann_may({"old/#", "new/#"})), bob(net.open()) { net.send(*bob, connect_as("bob")); }
    MemoryNet::End* ann(const With& with = {}, const Topics& filters = {}, Qos qos = Qos::at_least_once) {
        auto* end = net.open();
        net.send(*end, connect_as("ann", with));
        for (const auto& filter : filters) net.send(*end, subscribe_packet(filter, qos));
        return end;
    }
    void publish(const Topics& topics, int qos = 1) {
        for (const auto& topic : topics) net.send(*bob, publish_packet(topic, "x", qos, ++next));
    }
};

TEST(Withdrawn, what_waits_for_a_client_that_is_away_does_not_come) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        Scene s(cores);
        s.net.drop(*s.ann({}, {"old/#", "new/#"}));
        s.publish({"old/1", "new/1", "old/2", "new/2"});
        s.net.change_rules(s.believes, ann_may({"new/#"}));
        std::uint64_t queued = 0;
        for (std::size_t i = 0; i < cores; ++i) queued += s.net.core(i).figures().queued;
        EXPECT_EQ(queued, 2u) << "it goes when the right does";
        // That the right comes back brings nothing back.
        s.net.change_rules(s.believes, ann_may({"old/#", "new/#"}));
        EXPECT_EQ(took(s.net, *s.ann()), (Topics{"new/1", "new/2"}));
    }
}

TEST(Withdrawn, what_waits_behind_the_window_of_a_connected_client_does_not_come) {
    Scene s;
    auto* ann = s.ann({.receive_maximum = 1}, {"old/#", "new/#"});
    s.publish({"old/1", "old/2", "new/1", "old/3", "new/2"});
    s.net.change_rules(s.believes, ann_may({"new/#"}));
    EXPECT_EQ(took(s.net, *ann), (Topics{"old/1", "new/1", "new/2"})) << "the first was sent before";
}

TEST(Withdrawn, deliveries_under_way_do_not_come_again) {
    Scene s;
    auto* ann = s.ann({}, {"old/#", "new/#"}, Qos::exactly_once);
    s.publish({"old/1", "new/1"}, 1);
    s.publish({"old/2", "new/2"}, 2);
    EXPECT_EQ(took(s.net, *ann, false), (Topics{"old/1", "new/1", "old/2", "new/2"}));
    s.net.drop(*ann);
    s.net.change_rules(s.believes, ann_may({"new/#"}));
    auto* again = s.ann();
    // The receiver may have begun with the QoS 2 message: its identifier is freed, nothing is sent.
    EXPECT_EQ(took(s.net, *again, false), (Topics{"PUBREL", "new/1!", "new/2!"}));
    s.net.send(*again, ack(PacketType::pubcomp, 3) + ack(PacketType::puback, 2) + ack(PacketType::pubrec, 4));
    EXPECT_FALSE(again->is_closed);
    s.publish({"new/3"});
    EXPECT_EQ(took(s.net, *again), (Topics{"PUBREL", "new/3"}));
}

TEST(Withdrawn, a_port_without_rules_and_rules_that_allow_again_end_nothing) {
    Scene s;
    s.net.drop(*s.ann({}, {"old/#", "new/#"}));
    s.publish({"old/1", "new/1"});
    s.net.change_rules(s.believes, nullptr);
    s.net.change_rules(nullptr, nullptr);
    s.net.change_rules(s.believes, ann_may({"old/+", "new/#", "old/#"}));
    EXPECT_EQ(took(s.net, *s.ann()), (Topics{"old/1", "new/1"}));
}

TEST(Withdrawn, a_narrower_right_keeps_what_it_covers) {
    Scene s;
    s.net.drop(*s.ann({}, {"old/#"}));
    s.publish({"old/a/1", "old/b/1", "old/a/2"});
    s.net.change_rules(s.believes, ann_may({"old/a/#"}));
    EXPECT_EQ(took(s.net, *s.ann()), (Topics{"old/a/1", "old/a/2"}));
}

// A shared subscription whose right is gone: its messages are for those of the group who have it.
TEST(Withdrawn, what_waits_by_a_group_goes_to_the_others) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores)
        for (const bool is_connected : {false, true}) {
            Scene s(cores);
            auto* ann = s.ann({.receive_maximum = 1}, {"$share/g/old/#"});
            if (!is_connected) s.net.drop(*ann);
            s.publish({"old/1", "old/2", "old/3"});
            auto* cid = s.net.open();
            s.net.send(*cid, connect_as("cid") + subscribe_packet("$share/g/old/#", Qos::at_least_once));
            s.net.change_rules(s.believes, ann_may({"new/#"}));
            EXPECT_EQ(took(s.net, *cid), is_connected ? (Topics{"old/2", "old/3"}) : (Topics{"old/1", "old/2", "old/3"}));
            if (!is_connected) ann = s.ann();
            EXPECT_EQ(took(s.net, *ann), is_connected ? Topics{"old/1"} : Topics{});
        }
}

// The end of a connection by changed rules is no way to publish a will that they do not allow.
TEST(Withdrawn, a_will_is_not_sent_by_losing_the_right_to_connect) {
    for (const std::uint32_t delay : {0u, 5u}) {
        Scene s;
        s.net.send(*s.bob, subscribe_packet("#", Qos::at_least_once));
        auto* ann = s.ann({.will = "old/will", .will_delay = delay});
        s.net.change_rules(s.believes, ann_may({}, {"new/#"}, false));
        EXPECT_TRUE(ann->is_closed);
        s.net.advance(10'000);
        EXPECT_TRUE(took(s.net, *s.bob).empty()) << delay;
    }
    // Of a client nobody asked who it is, when the port asks.
    MemoryNet net(1);
    auto *ann = net.open(), *bob = net.open();
    net.send(*bob, connect_as("bob"));
    net.send(*ann, connect_as("ann", {.will = "old/will", .will_delay = 5}));
    net.drop(*ann);
    net.change_rules(std::make_shared<Believes>(), ann_may({}, {"new/#"}));
    auto* reader = net.open();
    net.send(*reader, connect_as("bob", {.clean = true}) + subscribe_packet("#", Qos::at_least_once));
    net.advance(10'000);
    EXPECT_TRUE(took(net, *reader).empty());
}

TEST(Withdrawn, notifications_of_keys_end_with_the_right_to_the_key) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        Scene s(cores);
        auto request = [&](MemoryNet::End& end, const std::string& payload) {
            std::string properties, packet;
            mqtt::write_property(properties, mqtt::PropertyId::response_topic, "clients/me/answer");
            mqtt::write_property(properties, mqtt::PropertyId::correlation_data, "c");
            mqtt::write_user_property(properties, "__ts", fmt::format("{:015}:00000:somebody", wall_ms()));
            mqtt::encode_publish(packet, Version::v5, std::string(statestore::request_topic), payload, Qos::at_least_once, false, false, ++s.next, properties);
            s.net.send(end, packet);
        };
        s.net.change_rules(s.believes, ann_may({"clients/#"}));
        auto* ann = s.ann({.receive_maximum = 1});
        request(*ann, "*2\r\n$9\r\nKEYNOTIFY\r\n$5\r\nopen1\r\n");
        took(s.net, *ann);
        auto set = [&](int i) { request(*s.bob, fmt::format("*3\r\n$3\r\nSET\r\n$5\r\nopen1\r\n$1\r\n{}\r\n", i)); };
        set(1);
        ASSERT_EQ(took(s.net, *ann, false).size(), 1u) << "she is told";
        set(2);   // waits behind her window
        auto shut = std::vector<auth::Rule>{{.user_names = {"bob"}, .resources = {{Action::connect, {}}, {Action::publish, {"#"}}, {Action::subscribe, {"#"}}}, .keys = {{.read = true, .write = true, .keys = {"*"}}}},
                                            {.user_names = {"ann"}, .resources = {{Action::connect, {}}, {Action::publish, {"#"}}, {Action::subscribe, {"clients/#"}}}}};
        s.net.change_rules(s.believes, std::make_shared<const auth::Policy>(std::move(shut)));
        set(3);
        s.net.send(*ann, ack(PacketType::puback, 1));
        EXPECT_TRUE(took(s.net, *ann).empty()) << cores;
    }
}

struct Folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / ("penstock-withdrawn-" + random_uuid());
    ~Folder() { std::filesystem::remove_all(path); }
};

/// A process with state on disk, and the rules it starts with.
struct Process {
    std::unique_ptr<store::Durable> durable;
    std::unique_ptr<MemoryNet> net;
    Process(const Folder& folder, const std::shared_ptr<const auth::Policy>& policy) : durable(store::Durable::open({.folder = folder.path.string(), .owner = "test/broker", .workers = 1, .file_system = {}}).value()) {
        broker::BrokerConfig config;
        config.persistence = {.retain = broker::Persistence::Mode::all, .queues = broker::Persistence::Mode::all};
        net = std::make_unique<MemoryNet>(1, config, std::make_shared<Believes>(), policy, [&](std::uint32_t core) { return durable->engine(core, [] {}); }, monotonic_ms());
        durable->start();
        net->turn_end = [this](std::uint32_t) {
            const auto ticket = net->commit(0);
            for (const auto end = monotonic_ms() + 10'000; net->core(0).durable() < ticket && monotonic_ms() < end;) std::this_thread::yield();
            return true;
        };
        net->open_port();
        net->settle();
    }
    ~Process() {
        durable->stop();
        net.reset();
    }
    MemoryNet::End* open(const std::string& bytes) {
        auto* end = net->open();
        net->send(*end, bytes);
        return end;
    }
};

TEST(Withdrawn, what_waited_before_a_restart_does_not_come_after_it) {
    const Folder folder;
    {
        Process p(folder, ann_may({"old/#", "new/#"}));
        auto* ann = p.open(connect_as("ann", {.receive_maximum = 2, .will = "old/will", .will_delay = 5}) + subscribe_packet("old/#", Qos::at_least_once) + subscribe_packet("new/#", Qos::at_least_once) + subscribe_packet("$share/g/group", Qos::at_least_once));
        auto* bob = p.open(connect_as("bob"));
        std::uint16_t id = 0;
        for (const auto* topic : {"old/1", "new/1", "old/2", "new/2", "old/3"}) p.net->send(*bob, publish_packet(topic, "x", 1, ++id));
        EXPECT_EQ(took(*p.net, *ann, false), (Topics{"old/1", "new/1"}));
        p.net->drop(*ann);
    }
    {
        // Rules that changed while nobody ran are in force when the port opens.
        Process p(folder, ann_may({"new/#"}, {"new/#"}));
        EXPECT_EQ(p.net->core(0).find_session("of ann")->subscriptions.size(), 1u);
        auto* bob = p.open(connect_as("bob", {.clean = true}) + subscribe_packet("#", Qos::at_least_once));
        p.net->advance(20'000);
        EXPECT_TRUE(took(*p.net, *bob).empty()) << "the will";
        EXPECT_EQ(took(*p.net, *p.open(connect_as("ann"))), (Topics{"new/1!", "new/2"}));
    }
}

TEST(Withdrawn, what_is_in_the_disk_buffer_does_not_come) {
    const Folder folder;
    mqtt::MessageBytes cell;
    const auto overflow = store::Overflow::make(folder.path.string(), 1, [] { return true; }, [](std::uint32_t) {}, cell);
    overflow->set_limits({.size_max = 1 << 30});
    broker::BrokerConfig config;
    config.overflow_bytes = 1 << 30;
    config.pool_bytes = 4'000'000;   // what is above half of it goes to the disk
    {
        auto believes = std::make_shared<Believes>();
        MemoryNet net(1, config, believes, ann_may({"old/#", "new/#"}), [&](std::uint32_t core) { return store::make_memory_engine(&overflow->lane(core)); }, 1'000'000, [&](std::uint32_t core) { return &overflow->lane(core); });
        auto *bob = net.open(), *ann = net.open();
        net.send(*bob, connect_as("bob"));
        net.send(*ann, connect_as("ann") + subscribe_packet("old/#", Qos::at_least_once) + subscribe_packet("new/#", Qos::at_least_once));
        net.drop(*ann);
        Topics wanted;
        for (std::uint16_t i = 1; i <= 1500; ++i) {
            const auto topic = fmt::format("{}/{}", i % 3 == 0 ? "new" : "old", i);
            if (i % 3 == 0) wanted.push_back(topic);
            for (const auto end = monotonic_ms() + 20'000; net.core(0).under_pressure() && monotonic_ms() < end;) std::this_thread::yield(), net.settle();
            net.send(*bob, publish_packet(topic, std::string(4000, 'x'), 1, i));
        }
        net.change_rules(believes, ann_may({"new/#"}));
        auto* again = net.open();
        net.send(*again, connect_as("ann"));
        Topics got;
        for (const auto end = monotonic_ms() + 20'000; got.size() < wanted.size() && monotonic_ms() < end; std::this_thread::yield()) {
            net.settle();
            std::ranges::move(took(net, *again), std::back_inserter(got));
        }
        for (const auto end = monotonic_ms() + 20'000; net.core(0).figures().queued > 0 && monotonic_ms() < end; std::this_thread::yield()) net.settle();
        EXPECT_EQ(got, wanted);
        EXPECT_TRUE(took(net, *again).empty());
        EXPECT_GT(overflow->figures().read, 0u) << "nothing was on the disk";
        EXPECT_TRUE(overflow->is_idle());
    }
    overflow->stop();
}

}  // namespace
}  // namespace penstock::test
