// The store on disk by itself: what one process hands in, the next one gets.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "store/durable.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

mqtt::MessageRef message(const std::string& topic, const std::string& payload) {
    return mqtt::MessageRef(mqtt::Message::make({.topic = topic, .payload = payload, .properties = {}, .partition = {}, .has_partition = false, .retain = false, .qos = mqtt::Qos::exactly_once, .expires_at = 0, .publisher = 0}));
}

struct Found : Recovered {
    struct Client {
        SessionRecord record;
        std::map<std::string, topics::Options> subscriptions;
        std::vector<std::uint16_t> incoming;
        std::unique_ptr<SessionStore> queue;
        std::uint16_t last_packet_id = 0;
        /// `payload` of each queued message, in order; taken.
        std::vector<std::string> payloads() {
            std::vector<std::string> out;
            while (auto* next = queue->next()) out.emplace_back(next->message->view().payload), queue->drop_next();
            return out;
        }
    };
    std::map<std::string, Client> clients;
    std::map<std::string, std::string> kept_retained, states;
    std::map<std::string, std::int64_t> state_ends;
    void session(SessionRecord record) override {
        const auto id = record.client_id;
        clients[id].record = std::move(record);
    }
    void subscription(std::string_view client, std::string_view filter, const topics::Options& options, std::uint32_t) override { clients.at(std::string(client)).subscriptions[std::string(filter)] = options; }
    void incoming(std::string_view client, std::uint16_t id) override { clients.at(std::string(client)).incoming.push_back(id); }
    std::vector<std::pair<std::string, std::uint16_t>> marks;
    void seen(std::string_view publisher, std::uint16_t packet_id, Portion) override { marks.emplace_back(publisher, packet_id); }
    void leaving(std::uint64_t, LeavingRecord) override {}
    void handed_on(std::string_view, std::vector<Share>, std::unique_ptr<SessionStore>) override { ADD_FAILURE() << "nothing was to go on"; }
    void queue(std::string_view client, std::unique_ptr<SessionStore> store, std::uint16_t last) override {
        clients.at(std::string(client)).queue = std::move(store);
        clients.at(std::string(client)).last_packet_id = last;
    }
    void retained(const mqtt::MessageRef& m, std::uint64_t) override { kept_retained[std::string(m->view().topic)] = m->view().payload; }
    void state(std::string key, statestore::Entry entry) override {
        state_ends[key] = entry.expires_at;
        states[key] = entry.value;
    }
};

struct Disk {
    fs::path folder = fs::temp_directory_path() / ("penstock-durable-" + random_uuid());
    ~Disk() { fs::remove_all(folder); }
};

/// One process with one worker.
struct Process {
    std::unique_ptr<Durable> durable;
    std::unique_ptr<Engine> engine;
    Found found;
    std::vector<std::uint64_t> none{0};
    explicit Process(const Disk& disk, std::uint32_t workers = 1, const KeyRing& keys = {}) {
        durable = Durable::open({.folder = disk.folder.string(), .owner = "test/broker", .workers = workers, .keys = keys, .seal = !keys.keys.empty(), .file_system = {}}).value();
        engine = durable->engine(0, [] {});
        none.resize(workers);
        engine->recover([](std::string_view) { return true; }, found);
        durable->start();
    }
    void commit() {
        const auto ticket = engine->commit({.sent = none, .processed = none});
        for (const auto end = monotonic_ms() + 10'000; engine->durable() < ticket && monotonic_ms() < end;) std::this_thread::yield();
        EXPECT_GE(engine->durable(), ticket);
    }
    ~Process() {
        durable->stop();
        found.clients.clear();
        engine.reset();
    }
    std::unique_ptr<SessionStore> session(const std::string& id) {
        engine->put_session({.client_id = id, .owner = {}, .expiry_interval = 1000, .keeps_queue = true, .will = {}});
        return engine->open_session(id, true);
    }
};

TEST(Durable, steps_of_deliveries_come_back_in_order) {
    const Disk disk;
    {
        Process p(disk);
        auto store = p.session("c");
        for (int i = 1; i <= 9; ++i) store->enqueue({.message = message("t", fmt::format("{}{}", i, std::string(i % 2 == 0 ? 2000 : 10, '.'))), .qos = i % 3 == 0 ? mqtt::Qos::at_least_once : mqtt::Qos::exactly_once, .subscription_ids = {}}, false, 0);
        for (std::uint16_t id = 65'533; id != 4; id = static_cast<std::uint16_t>(id == 65'535 ? 1 : id + 1)) store->start_next(id);   // 1 to 6 are under way, identifiers wrap
        store->finish(65'535);                                  // 3, QoS 1
        store->advance(*store->find(65'534));                   // 2: PUBREC came
        store->finish(65'533);                                  // 1
        p.engine->put_incoming("c", 77);
        p.engine->put_subscription("c", "$share/g/a/#", {.qos = 2, .no_local = false, .retain_as_published = true, .id = 4});
        p.commit();
    }
    Process p(disk);
    auto& c = p.found.clients.at("c");
    EXPECT_EQ(c.incoming, std::vector<std::uint16_t>{77});
    EXPECT_EQ(c.subscriptions.at("$share/g/a/#"), (topics::Options{.qos = 2, .no_local = false, .retain_as_published = true, .id = 4}));
    EXPECT_EQ(c.last_packet_id, 3);
    std::vector<std::pair<std::uint16_t, Step>> under_way;
    c.queue->for_each_in_flight([&](InFlight& entry) { under_way.emplace_back(entry.packet_id, entry.step); });
    EXPECT_EQ(under_way, (std::vector<std::pair<std::uint16_t, Step>>{{65'534, Step::wait_pubcomp}, {1, Step::wait_pubrec}, {2, Step::wait_pubrec}, {3, Step::wait_puback}}));
    EXPECT_EQ(c.queue->find(65'535), nullptr);
    EXPECT_EQ(c.queue->find(1)->item.message->view().payload[0], '4');
    const auto rest = c.payloads();
    ASSERT_EQ(rest.size(), 3u);
    EXPECT_EQ(rest[0][0], '7');
    EXPECT_EQ(rest[1], "8" + std::string(2000, '.'));
}

/// Whether any file of the folder has the bytes in it.
bool has_bytes(const Disk& disk, const std::string& bytes) {
    for (const auto& entry : fs::recursive_directory_iterator(disk.folder)) {
        std::ifstream in(entry.path(), std::ios::binary);
        const std::string all{std::istreambuf_iterator<char>(in), {}};
        if (all.find(bytes) != std::string::npos) return true;
    }
    return false;
}
void keep_something(Process& process) {
    process.engine->put_session({.client_id = "client-in-the-dark", .owner = {}, .expiry_interval = 0xFFFFFFFF, .keeps_queue = true, .will = {}});
    process.engine->put_retained(message("plant/recipe", "topmost-secret-payload"), 1);
    process.commit();
}
KeyRing one_key(const std::string& label = "") {
    KeyRing out;
    out.add(label);
    return out;
}
bool is_rewritten(const Process& process) {
    for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end; std::this_thread::yield())
        if (const auto figures = process.durable->figures(); figures.files > 0 && figures.files_to_rewrite == 0) return true;
    return false;
}

/// A session that ends in an hour, on a machine whose clock is wrong, set, or stood still.
TEST(Durable, a_clock_that_jumps_ends_nothing) {
    constexpr std::int64_t hour = 3'600'000, year_1970 = 60'000;
    struct Case {
        const char* name;
        std::int64_t first, set_to, next;   ///< wall clock at the first start, what it is set to while it runs (0: it is not), at the second start
        std::int64_t left;                  ///< of the hour then
    };
    const auto year_2026 = wall_ms();
    for (const auto& c : {Case{"nothing happens", year_2026, 0, year_2026, hour}, Case{"half an hour off", year_2026, 0, year_2026 + hour / 2, hour / 2}, Case{"two hours off", year_2026, 0, year_2026 + 2 * hour, -hour},
                          Case{"starts in 1970 and is told the year", year_1970, year_2026, year_2026, hour}, Case{"the same, and half an hour off", year_1970, year_2026, year_2026 + hour / 2, hour / 2},
                          Case{"lost its clock's battery", year_2026, 0, year_1970, hour}, Case{"was set back while it ran", year_2026, year_1970, year_1970 + hour / 2, hour / 2}}) {
        const Disk disk;
        std::atomic<std::int64_t> base{c.first - monotonic_ms()};
        auto open = [&] { return Durable::open({.folder = disk.folder.string(), .owner = "test/broker", .wall = [&] { return base.load() + monotonic_ms(); }, .file_system = {}}).value(); };
        const std::vector<std::uint64_t> none{0};
        auto commit = [&](Engine& engine) {
            const auto ticket = engine.commit({.sent = none, .processed = none});
            while (engine.durable() < ticket) std::this_thread::yield();
        };
        {
            auto durable = open();
            auto engine = durable->engine(0, [] {});
            Found found;
            engine->recover([](std::string_view) { return true; }, found);
            durable->start();
            engine->put_session({.client_id = "c", .owner = {}, .expiry_interval = 3600, .ends_at = monotonic_ms() + hour, .keeps_queue = false, .will = {}});
            engine->put_state("lease", {.value = "v", .version = {.time = 1, .counter = 0, .node = "n"}, .fence = {}, .expires_at = monotonic_ms() + hour});
            commit(*engine);
            if (c.set_to != 0) {
                base = c.set_to - monotonic_ms();
                engine->put_seen("p", 1, {.worker = 0, .workers = 1});
                commit(*engine);
            }
            durable->stop();
        }
        base = c.next - monotonic_ms();
        auto durable = open();
        auto engine = durable->engine(0, [] {});
        Found found;
        engine->recover([](std::string_view) { return true; }, found);
        ASSERT_TRUE(found.clients.contains("c")) << c.name;
        EXPECT_NEAR(static_cast<double>(found.clients["c"].record.ends_at - monotonic_ms()), static_cast<double>(c.left), 20'000.0) << c.name;
        EXPECT_NEAR(static_cast<double>(found.state_ends["lease"] - monotonic_ms()), static_cast<double>(c.left), 20'000.0) << c.name;
    }
}

// A mark stands under the publisher's client identifier and the group's filter and name, each of them up to 65,535 bytes.
TEST(Durable, marks_with_long_names_come_back_and_go) {
    Disk disk;
    const std::string longest(65'535, 'c');
    const std::vector<std::string> names{"p", longest.substr(2), longest, longest + std::string("\0", 1) + std::string(60'000, 'f') + std::string("\0g", 2)};
    {
        Process process(disk);
        for (const auto& name : names) {
            process.session(name.substr(0, name.find('\0')));
            process.engine->put_seen(name, 0x0102, {.worker = 0, .workers = 1});
        }
        process.commit();
    }
    {
        Process process(disk);
        std::set<std::string> found;
        for (const auto& [name, packet_id] : process.found.marks) {
            EXPECT_EQ(packet_id, 0x0102);
            found.insert(name);
        }
        EXPECT_EQ(found, std::set<std::string>(names.begin(), names.end()));
        for (const auto& name : names) process.engine->erase_seen(name, 0x0102, {.worker = 0, .workers = 1});
        process.commit();
    }
    EXPECT_TRUE(Process(disk).found.marks.empty());
}

TEST(Durable, sealed_files_tell_nothing) {
    const auto keys = one_key();
    for (const bool sealed : {false, true}) {
        const Disk disk;
        for (int life = 0; life < 3; ++life) {
            Process process(disk, 1, sealed ? keys : KeyRing{});
            if (life == 0) keep_something(process);
            else EXPECT_EQ(process.found.kept_retained["plant/recipe"], "topmost-secret-payload");
            EXPECT_EQ(has_bytes(disk, "topmost-secret-payload"), !sealed) << life;
            EXPECT_EQ(has_bytes(disk, "client-in-the-dark"), !sealed) << life;
        }
    }
}

TEST(Durable, sealed_files_need_their_key) {
    const Disk disk;
    const auto keys = one_key();
    {
        Process process(disk, 1, keys);
        keep_something(process);
    }
    auto refused = [&](const KeyRing& ring) {
        const auto opened = Durable::open({.folder = disk.folder.string(), .owner = "test/broker", .keys = ring, .seal = true, .file_system = {}});
        return opened ? "" : opened.error().message;
    };
    EXPECT_NE(refused({}).find("sealed with key 1, which is not among the keys at hand"), std::string::npos) << refused({});
    EXPECT_NE(refused(one_key()).find("sealed with another key 1"), std::string::npos) << refused(one_key());
    EXPECT_FALSE(fs::exists(disk.folder / "lost"));   // nothing was "repaired"
    Process process(disk, 1, keys);
    EXPECT_EQ(process.found.kept_retained["plant/recipe"], "topmost-secret-payload");
}

TEST(Durable, keys_rotate_while_it_runs) {
    const Disk disk;
    KeyRing keys = one_key("first");
    Process process(disk, 1, keys);
    keep_something(process);
    for (int round = 0; round < 3; ++round) {
        keys.add("next");
        process.durable->set_keys(keys, true);
        process.engine->put_retained(message(fmt::format("r/{}", round), "x"), 10);
        process.commit();
        ASSERT_TRUE(is_rewritten(process)) << process.durable->figures().rewriting_fault << process.durable->figures().files_to_rewrite;
        keys.keys.erase(keys.keys.begin(), keys.keys.end() - 1);   // the old one is not needed any more
        process.durable->set_keys(keys, true);
    }
    const auto copy = disk.folder / "copy";
    ASSERT_TRUE(process.durable->copy_to(copy.string()));
    auto opened = Durable::open({.folder = copy.string(), .owner = "test/broker", .keys = keys, .seal = true, .file_system = {}});
    ASSERT_TRUE(opened) << opened.error().message;
    Found found;
    auto engine = (*opened)->engine(0, [] {});
    engine->recover([](std::string_view) { return true; }, found);
    EXPECT_EQ(found.kept_retained.size(), 4u);
    EXPECT_EQ(found.kept_retained["plant/recipe"], "topmost-secret-payload");
}

TEST(Durable, sealing_is_switched_on_and_off_while_it_runs) {
    const Disk disk;
    const auto keys = one_key();
    Process process(disk);
    keep_something(process);
    EXPECT_TRUE(has_bytes(disk, "topmost-secret-payload"));
    process.durable->set_keys(keys, true);
    ASSERT_TRUE(is_rewritten(process));
    EXPECT_FALSE(has_bytes(disk, "topmost-secret-payload"));
    EXPECT_FALSE(has_bytes(disk, "client-in-the-dark"));
    process.durable->set_keys(keys, false);
    ASSERT_TRUE(is_rewritten(process));
    EXPECT_TRUE(has_bytes(disk, "topmost-secret-payload"));
}

TEST(Durable, what_was_changed_in_a_sealed_file_is_noticed) {
    const auto keys = one_key();
    for (const int place : {80, 120, 300}) {
        const Disk disk;
        {
            Process process(disk, 1, keys);
            keep_something(process);
        }
        { Process process(disk, 1, keys); }   // into a table
        for (const auto& entry : fs::directory_iterator(disk.folder)) {
            if (entry.path().extension() != ".sst") continue;
            std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
            char byte = 0;
            file.seekg(place).get(byte);
            file.seekp(place).put(static_cast<char>(byte ^ 1));
        }
        const auto opened = Durable::open({.folder = disk.folder.string(), .owner = "test/broker", .keys = keys, .seal = true, .file_system = {}});
        EXPECT_TRUE(!opened || !(*opened)->figures().notice.empty()) << place;
    }
}

TEST(Durable, a_key_ring_says_what_is_wrong_with_a_line) {
    auto fault = [](const std::string& text) {
        const auto read = KeyRing::parse(text, "keys");
        return read ? "" : read.error().message;
    };
    const std::string key(43, 'A');
    EXPECT_EQ(fault("# c\n\n1 " + key + "= first one\n2 " + key + "=\n"), "");
    EXPECT_EQ(KeyRing::parse("1 " + key + "= first one\n", "keys").value().keys[0].label, "first one");
    EXPECT_NE(fault("\nx " + key + "=").find("keys line 2: begins with no key number"), std::string::npos);
    EXPECT_NE(fault("1 AAAA").find("line 1: the key is not 32 bytes"), std::string::npos);
    EXPECT_NE(fault("1").find("not 32 bytes"), std::string::npos);
    EXPECT_NE(fault("1 " + key + "=\n1 " + key + "=").find("line 2: key 1 is there twice"), std::string::npos);
    const Disk disk;
    fs::create_directories(disk.folder);
    const auto path = (disk.folder / "keys").string();
    EXPECT_TRUE(KeyRing::read(path).value().keys.empty());
    const auto ring = one_key("mine");
    ASSERT_TRUE(ring.write(path));
    EXPECT_EQ(KeyRing::read(path).value().keys[0].bytes, ring.keys[0].bytes);
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

/// A message's place in memory is used again for another one; what stands on disk must be the new one.
TEST(Durable, a_session_that_ends_lets_its_messages_go) {
    const Disk disk;
    {
        Process p(disk);
        for (int round = 0; round < 200; ++round) {
            auto gone = p.session("gone");
            gone->enqueue({.message = message("t", fmt::format("old {} ", round) + std::string(1000, 'o')), .qos = mqtt::Qos::at_least_once, .subscription_ids = {}}, false, 0);
            gone->discard();
            p.engine->erase_session("gone");
            gone.reset();
            auto stays = p.session(fmt::format("stays-{}", round));
            stays->enqueue({.message = message("t", fmt::format("new {} ", round) + std::string(1000, 'n')), .qos = mqtt::Qos::at_least_once, .subscription_ids = {}}, false, 0);
        }
        p.commit();
    }
    Process p(disk);
    EXPECT_EQ(p.found.clients.size(), 200u);
    for (int round = 0; round < 200; ++round) EXPECT_EQ(p.found.clients.at(fmt::format("stays-{}", round)).payloads(), std::vector<std::string>{fmt::format("new {} ", round) + std::string(1000, 'n')});
}

TEST(Durable, one_body_for_many_receivers_goes_with_the_last) {
    const Disk disk;
    {
        Process p(disk);
        const auto shared = message("t", std::string(100'000, 'b'));
        std::vector<std::unique_ptr<SessionStore>> stores;
        for (int i = 0; i < 50; ++i) stores.push_back(p.session(fmt::format("c{}", i))), stores.back()->enqueue({.message = shared, .qos = mqtt::Qos::at_least_once, .subscription_ids = {}}, false, 0);
        p.commit();
        EXPECT_LT(p.durable->figures().bytes_written, 200'000u) << "written once";
        for (int i = 0; i < 49; ++i) stores[static_cast<std::size_t>(i)]->drop_next();
        p.commit();
    }
    // The last one has it, with another number of workers too.
    for (std::uint32_t workers = 1; workers <= 3; ++workers) {
        Process p(disk, workers);
        ASSERT_NE(p.found.clients.at("c49").queue, nullptr);
        EXPECT_EQ(p.found.clients.at("c49").queue->next()->message->view().payload.size(), 100'000u);
        p.commit();
    }
}

TEST(Durable, retained_and_state) {
    const Disk disk;
    {
        Process p(disk);
        p.engine->put_retained(message("a", "1"), 5);
        p.engine->put_retained(message("b", "2"), 6);
        p.engine->erase_retained("a");
        statestore::Entry entry{.value = std::string("\0x", 2), .version = {.time = 1, .counter = 0, .node = "n"}, .fence = {}};
        p.engine->put_state("k", entry);
        p.commit();
    }
    Process p(disk);
    EXPECT_EQ(p.found.kept_retained, (std::map<std::string, std::string>{{"b", "2"}}));
    EXPECT_EQ(p.found.states.at("k"), std::string("\0x", 2));
}

TEST(Durable, refuses_what_is_not_its_own) {
    const Disk disk;
    { Process p(disk); }
    const auto other = Durable::open({.folder = disk.folder.string(), .owner = "test/other"});
    EXPECT_NE(other.error().message.find("holds the state of Broker test/broker, not of test/other"), std::string::npos);
    const Disk file;
    std::ofstream(file.folder) << "x";
    EXPECT_FALSE(Durable::open({.folder = file.folder.string(), .owner = "o"}));
    Process running(disk);
    EXPECT_NE(Durable::open({.folder = disk.folder.string(), .owner = "test/broker"}).error().message.find("is another penstock running"), std::string::npos);
}

TEST(Durable, a_full_disk_is_told_and_over_when_there_is_room) {
    const Disk disk;
    Process p(disk);
    auto store = p.session("c");
    p.durable->set_limits(0, 1);
    store->enqueue({.message = message("t", "x"), .qos = mqtt::Qos::at_least_once, .subscription_ids = {}}, false, 0);
    p.commit();
    for (const auto end = monotonic_ms() + 10'000; p.engine->fault() == nullptr && monotonic_ms() < end;) std::this_thread::yield();
    ASSERT_NE(p.engine->fault(), nullptr);
    EXPECT_STREQ(p.engine->fault(), "persistence.maxSize is used up");
    p.durable->set_limits(0, 0);
    for (const auto end = monotonic_ms() + 10'000; p.engine->fault() != nullptr && monotonic_ms() < end;) std::this_thread::yield();
    EXPECT_EQ(p.engine->fault(), nullptr);
    store->discard();
}

}  // namespace
}  // namespace penstock::store
