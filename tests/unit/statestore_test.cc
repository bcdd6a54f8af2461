// The state store against a model, and the sentences of its protocol.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>

#include "statestore/state_store.h"
#include "store/record.h"

namespace penstock::statestore {
namespace {

std::string resp(std::initializer_list<std::string_view> words) {
    std::string out = fmt::format("*{}\r\n", words.size());
    for (const auto word : words) out += fmt::format("${}\r\n", word.size()) + std::string(word) + "\r\n";
    return out;
}

struct World {
    std::map<std::string, Entry> disk;
    StateStore store{[this](const std::string& key, const Entry* entry) {
                         if (entry != nullptr) disk[key] = *entry;
                         else disk.erase(key);
                     },
                     1000};
    std::int64_t now = 1'700'000'000'000;
    std::vector<Notification> told;

    Answer ask(std::initializer_list<std::string_view> words, std::string fence = {}, std::int64_t ahead = 0, bool keep = false, std::string client = "c") {
        const auto payload = resp(words);
        const auto timestamp = Timestamp{.time = now + ahead, .counter = 0, .node = "client"}.text();
        return store.handle({.client_id = client, .payload = payload, .timestamp = timestamp, .fence = fence, .keep = keep, .monotonic_ms = now}, now, told);
    }
};

TEST(StateStoreClock, follows_its_rules) {
    EXPECT_EQ((Timestamp{.time = 1754041200123, .counter = 0, .node = "StateStore"}.text()), "001754041200123:00000:StateStore");
    EXPECT_EQ(Timestamp::parse("5:3:x"), (Timestamp{.time = 5, .counter = 3, .node = "x"}));
    for (const auto* bad : {"", "5", "5:3", "5:3:", ":3:x", "a:3:x", "5:b:x", "-5:3:x"}) EXPECT_FALSE(Timestamp::parse(bad)) << bad;
    Clock clock;
    EXPECT_EQ(clock.next(100).text(), "000000000000100:00000:StateStore");
    EXPECT_EQ(clock.next(100).text(), "000000000000100:00001:StateStore");
    EXPECT_EQ(clock.next(90).text(), "000000000000100:00002:StateStore");
    const Timestamp same{.time = 100, .counter = 7, .node = "x"}, later{.time = 150, .counter = 4, .node = "x"};
    EXPECT_EQ(clock.next(90, &same).text(), "000000000000100:00008:StateStore");
    EXPECT_EQ(clock.next(90, &later).text(), "000000000000150:00005:StateStore");
    EXPECT_EQ(clock.next(200, &later).text(), "000000000000200:00000:StateStore");
}

TEST(StateStore, answers_byte_for_byte) {
    World w;
    EXPECT_EQ(w.ask({"SET", "k", "v"}).payload, "+OK\r\n");
    EXPECT_EQ(w.ask({"GET", "k"}).payload, "$1\r\nv\r\n");
    EXPECT_EQ(w.ask({"SET", "k", ""}).payload, "+OK\r\n");
    EXPECT_EQ(w.ask({"GET", "k"}).payload, "$0\r\n\r\n");
    EXPECT_EQ(w.ask({"GET", "x"}).payload, "$-1\r\n");
    EXPECT_EQ(w.ask({"SET", "k", "w", "NX"}).payload, ":-1\r\n");
    EXPECT_EQ(w.ask({"SET", "k", "w", "NEX"}).payload, ":-1\r\n");
    EXPECT_EQ(w.ask({"SET", "k", "", "NEX", "PX", "10"}).payload, "+OK\r\n");
    EXPECT_EQ(w.ask({"VDEL", "k", "w"}).payload, ":-1\r\n");
    EXPECT_EQ(w.ask({"VDEL", "k", ""}).payload, ":1\r\n");
    EXPECT_EQ(w.ask({"VDEL", "k", ""}).payload, ":0\r\n");
    EXPECT_EQ(w.ask({"DEL", "k"}).payload, ":0\r\n");
    EXPECT_EQ(w.ask({"KEYNOTIFY", "k", "STOP"}).payload, ":0\r\n");
    EXPECT_EQ(w.ask({"KEYNOTIFY", "k"}).payload, "+OK\r\n");
    EXPECT_EQ(w.ask({"KEYNOTIFY", "k", "STOP"}).payload, "+OK\r\n");
    EXPECT_EQ(w.ask({"set", "k", "v"}).payload, "-ERR unknown command\r\n");
    EXPECT_EQ(w.ask({"SET", "k"}).payload, "-ERR wrong number of arguments\r\n");
    EXPECT_EQ(w.ask({"SET", "", "v"}).payload, "-ERR the key length is zero\r\n");
    EXPECT_EQ(w.ask({"SET", "k", "v", "NX", "NEX"}).payload, "-ERR syntax error\r\n");
    EXPECT_EQ(w.ask({"SET", "k", "v", "PX", "0"}).payload, "-ERR syntax error\r\n");
    for (const auto* bad : {"", "*", "*1\r\n", "*1\r\n$3\r\nGE", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\nx", "*99999999999\r\n", "*-1\r\n", "$3\r\nGET\r\n", "*1\r\n$99999999\r\nGET\r\n"})
        EXPECT_EQ(w.store.handle({.client_id = "c", .payload = bad}, w.now, w.told).payload, "-ERR syntax error\r\n") << bad;
    EXPECT_EQ(w.store.handle({.client_id = "c", .payload = resp({"SET", "k", "v"})}, w.now, w.told).payload, "-ERR missing timestamp\r\n");
    EXPECT_EQ(w.store.handle({.client_id = "c", .payload = resp({"SET", "k", "v"}), .timestamp = "soon"}, w.now, w.told).payload, "-ERR malformed timestamp\r\n");
    EXPECT_EQ(w.store.handle({.client_id = "c", .payload = resp({"GET", "k"}), .is_allowed = false}, w.now, w.told).payload, "-ERR not authorized\r\n");
    EXPECT_TRUE(w.ask({"SET", "k", "v"}, {}, 60'001).payload.starts_with("-ERR the request timestamp is too far in the future"));
    EXPECT_EQ(w.ask({"SET", "k", "v"}, {}, 59'000).payload, "+OK\r\n");
    EXPECT_TRUE(w.ask({"SET", "k", "v"}, Timestamp{.time = w.now + 70'000, .counter = 0, .node = "x"}.text()).payload.starts_with("-ERR the request fencing token timestamp is too far"));
}

TEST(StateStore, versions_rise_above_what_clients_sent) {
    World w;
    Timestamp last;
    for (int i = 0; i < 100; ++i) {
        const std::int64_t ahead = i % 7 == 0 ? 50'000 : -1000 * i;
        const auto answer = w.ask({"SET", "k", "v"}, {}, ahead);
        ASSERT_TRUE(answer.version);
        EXPECT_GT(*answer.version, last);
        EXPECT_GT(*answer.version, (Timestamp{.time = w.now + ahead, .counter = 0, .node = "client"}));
        last = *answer.version;
    }
}

TEST(StateStore, quota_and_pages) {
    World w;
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(w.ask({"SET", fmt::format("key-{:04}", i), "v"}).payload, "+OK\r\n");
    EXPECT_EQ(w.ask({"SET", "one more", "v"}).payload, "-ERR the quota has been exceeded\r\n");
    EXPECT_EQ(w.ask({"SET", "key-0000", "w"}).payload, "+OK\r\n");
    std::set<std::string> found;
    std::string token;
    int pages = 0;
    do {
        const auto page = token.empty() ? w.ask({"SCAN", "key-*[05]"}).payload : w.ask({"SCAN", "key-*[05]", token}).payload;
        EXPECT_EQ(page, token.empty() ? w.ask({"SCAN", "key-*[05]"}).payload : w.ask({"SCAN", "key-*[05]", token}).payload) << "a page may be asked for again";
        std::size_t at = page.find("\r\n*") + 3;
        auto keys = std::stoul(page.substr(at));
        at = page.find("\r\n", at) + 2;
        auto take = [&] {
            const auto size = std::stoul(page.substr(at + 1));
            at = page.find("\r\n", at) + 2;
            const auto word = page.substr(at, size);
            at += size + 2;
            return word;
        };
        for (; keys > 0; --keys) EXPECT_TRUE(found.insert(take()).second);
        token = page.starts_with("*2") ? take() : "";
        EXPECT_EQ(at, page.size());
    } while (!token.empty() && ++pages < 100);
    EXPECT_EQ(found.size(), 200u);
}

/// Random commands and times against a plain map; notifications and what is on disk are checked too.
TEST(StateStore, agrees_with_a_model) {
    std::mt19937 random(7);
    for (int world = 0; world < 20; ++world) {
        World w;
        struct Plain {
            std::string value;
            std::int64_t until = 0;
            std::string fence;
            bool kept = false;
        };
        std::map<std::string, Plain> model;
        std::map<std::string, std::set<std::string>> watching;
        for (int step = 0; step < 2000; ++step) {
            w.now += static_cast<std::int64_t>(random() % 40);
            w.told.clear();
            std::vector<std::string> expected;
            auto gone = [&](const std::string& key) {
                for (const auto& client : watching[key]) expected.push_back(client + " DEL " + key);
            };
            // Keys end in the order of their times; the store tells so too.
            std::vector<std::pair<std::int64_t, std::string>> ended;
            for (const auto& [key, plain] : model)
                if (plain.until != 0 && plain.until <= w.now) ended.emplace_back(plain.until, key);
            std::ranges::sort(ended);
            const auto key = fmt::format("k{}", random() % 12), value = fmt::format("v{}", random() % 3), client = fmt::format("c{}", random() % 3);
            const bool keep = random() % 3 == 0;
            for (const auto& [until, name] : ended) gone(name), model.erase(name);
            auto at = model.find(key);
            const auto fence = random() % 4 == 0 ? Timestamp{.time = w.now - 10 + static_cast<std::int64_t>(random() % 10), .counter = 0, .node = "f"}.text() : std::string();
            auto fence_fault = [&]() -> std::string {
                if (at == model.end() || at->second.fence.empty()) return {};
                if (fence.empty()) return "-ERR a fencing token is required for this request\r\n";
                return fence < at->second.fence ? "-ERR the request fencing token is a lower version than the fencing token protecting the resource\r\n" : "";
            };
            std::string want, got;
            switch (random() % 6) {
                case 0:
                case 1: {
                    const auto option = random() % 3;
                    const auto px = random() % 2 == 0 ? fmt::format("{}", 1 + random() % 300) : std::string();
                    if (option == 0) got = px.empty() ? w.ask({"SET", key, value}, fence, 0, keep).payload : w.ask({"SET", key, value, "PX", px}, fence, 0, keep).payload;
                    else got = px.empty() ? w.ask({"SET", key, value, option == 1 ? "NX" : "NEX"}, fence, 0, keep).payload : w.ask({"SET", key, value, option == 1 ? "NX" : "NEX", "PX", px}, fence, 0, keep).payload;
                    want = fence_fault();
                    if (!want.empty()) break;
                    if (at != model.end() && (option == 1 || (option == 2 && at->second.value != value))) {
                        want = ":-1\r\n";
                        break;
                    }
                    want = "+OK\r\n";
                    auto& plain = model[key];
                    plain.value = value;
                    plain.until = px.empty() ? 0 : w.now + std::stoll(px);
                    plain.kept |= keep;
                    if (!fence.empty()) plain.fence = fence;
                    for (const auto& watcher : watching[key]) expected.push_back(watcher + " SET " + key);
                    break;
                }
                case 2:
                    got = w.ask({"GET", key}).payload;
                    want = at == model.end() ? "$-1\r\n" : fmt::format("${}\r\n{}\r\n", at->second.value.size(), at->second.value);
                    break;
                case 3:
                case 4: {
                    const bool by_value = random() % 2 == 0;
                    got = by_value ? w.ask({"VDEL", key, value}, fence).payload : w.ask({"DEL", key}, fence).payload;
                    want = at == model.end() ? ":0\r\n" : fence_fault();
                    if (!want.empty()) break;
                    if (by_value && at->second.value != value) {
                        want = ":-1\r\n";
                        break;
                    }
                    want = ":1\r\n";
                    gone(key);
                    model.erase(key);
                    break;
                }
                default:
                    if (random() % 2 == 0) {
                        got = w.ask({"KEYNOTIFY", key}, {}, 0, false, client).payload;
                        want = "+OK\r\n";
                        watching[key].insert(client);
                    } else if (random() % 2 == 0) {
                        got = w.ask({"KEYNOTIFY", key, "STOP"}, {}, 0, false, client).payload;
                        want = watching[key].erase(client) > 0 ? "+OK\r\n" : ":0\r\n";
                    } else {
                        w.store.expire(w.now, w.now, w.told);
                        w.store.forget_client(client);
                        for (auto& [name, clients] : watching) clients.erase(client);
                    }
            }
            ASSERT_EQ(got, want) << "world " << world << " step " << step;
            std::vector<std::string> told;
            for (const auto& n : w.told) told.push_back(n.client_id + (n.payload->find("DELETE") != std::string::npos ? " DEL " : " SET ") + n.key);
            ASSERT_EQ(told, expected) << "world " << world << " step " << step;
            std::size_t kept = 0;
            for (const auto& [name, plain] : model) {
                kept += plain.kept;
                ASSERT_TRUE(!plain.kept || w.disk.at(name).value == plain.value);
            }
            ASSERT_EQ(w.disk.size(), kept);
            // Every record on disk reads back as it was.
            if (step % 100 == 0)
                for (const auto& [name, entry] : w.disk) {
                    const auto again = store::decode_state(store::encode_state(entry, 1000), 1000);
                    ASSERT_TRUE(again && again->value == entry.value && again->version == entry.version && again->fence == entry.fence && again->expires_at == entry.expires_at);
                }
        }
    }
}

TEST(Records, damage_is_refused_and_the_rest_reads_back) {
    const auto message = mqtt::MessageRef(mqtt::Message::make({.topic = "a/b", .payload = "payload", .properties = std::string_view("\x26\x00\x01x\x00\x01y", 7), .partition = {}, .has_partition = false, .retain = true, .qos = mqtt::Qos::exactly_once, .expires_at = 5000, .publisher = 0}));
    const store::Queued item{.message = message, .qos = mqtt::Qos::at_least_once, .retain = true, .subscription_ids = {1, 300'000}};
    const store::Queued by_share{.message = message, .qos = mqtt::Qos::exactly_once, .share = 70'000, .subscription_ids = {2}};
    const store::SessionRecord session{.client_id = "c", .owner = "o", .expiry_interval = 7, .ends_at = 9000, .keeps_queue = true,
                                       .will = store::WillRecord{.topic = "w", .payload = "p", .properties = "", .qos = mqtt::Qos::at_least_once, .retain = true, .delay_interval = 3, .has_expiry = true, .message_expiry = 4, .publish_at = 100}};
    const std::vector<std::string> records{store::encode_message(message->view(), 1000), store::encode_queued(item, 12, 0, 1000), store::encode_queued(item, 0, 77, 1000), store::encode_session(session, 1000),
                                           store::encode_options({.qos = 2, .no_local = true, .retain_as_published = true, .id = 9}), store::encode_delivery(5, store::Step::wait_pubcomp),
                                           store::encode_state({.value = "v", .version = {.time = 1, .counter = 2, .node = "n"}, .fence = Timestamp{.time = 3, .counter = 4, .node = "m"}, .expires_at = 5}, 1000),
                                           store::encode_options({.qos = 1, .no_local = false, .retain_as_published = false, .id = 0}, 70'000), store::encode_queued(by_share, 3, 0, 1000), store::encode_queued(by_share, 0, 77, 1000),
                                           store::encode_shares({{.number = 70'000, .filter = "a/#", .group = "g"}, {.number = 1, .filter = "b", .group = "h"}})};
    auto read = [](std::size_t kind, const std::string& bytes) {
        store::Queued q;
        std::uint16_t id = 0;
        std::uint64_t body = 0;
        std::uint32_t share = 0;
        store::Step step{};
        switch (kind) {
            case 0: return static_cast<bool>(store::decode_message(bytes, 1000));
            case 1:
            case 2: return store::decode_queued(bytes, q, id, body, 1000);
            case 3: return store::decode_session(bytes, 1000).has_value();
            case 4: return store::decode_options(bytes, share).has_value();
            case 5: return store::decode_delivery(bytes, id, step);
            case 7: return store::decode_options(bytes, share).has_value();
            case 8:
            case 9: return store::decode_queued(bytes, q, id, body, 1000);
            case 10: return store::decode_shares(bytes).has_value();
            default: return store::decode_state(bytes, 1000).has_value();
        }
    };
    for (std::size_t kind = 0; kind < records.size(); ++kind) {
        const auto& bytes = records[kind];
        EXPECT_TRUE(read(kind, bytes)) << kind;
        for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(read(kind, bytes.substr(0, size))) << kind << " " << size;
        EXPECT_FALSE(read(kind, bytes + "x")) << kind;
        EXPECT_FALSE(read(kind, "\x02" + bytes.substr(1))) << "another version";
        for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {   // read without harm, whatever it says
            auto damaged = bytes;
            damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
            static_cast<void>(read(kind, damaged));
        }
    }
    // A time that no clock has: the eight bytes behind version and flags of a message, and the last ones of a state entry.
    constexpr std::string_view no_time("\x80\0\0\0\0\0\0\0", 8);
    const auto state = store::encode_state({.value = "v", .version = {.time = 1, .counter = 2, .node = "n"}, .fence = {}, .expires_at = 7}, 1000);
    EXPECT_TRUE(store::decode_state(state, 1000));
    EXPECT_FALSE(store::decode_state(std::string(state).replace(state.size() - 8, 8, no_time), 1000));
    EXPECT_FALSE(read(0, std::string(records[0]).replace(2, 8, no_time)));
    const auto read_back = store::decode_message(records[0], 1000);
    const auto again = read_back->view();
    EXPECT_EQ(again.topic, "a/b");
    EXPECT_EQ(again.payload, "payload");
    EXPECT_EQ(again.expires_at, 5000);
    EXPECT_TRUE(again.retain && again.qos == mqtt::Qos::exactly_once && again.properties.size() == 7);
    std::uint32_t share = 0;
    std::uint16_t packet_id = 0;
    std::uint64_t body = 0;
    store::Queued queued;
    EXPECT_TRUE(store::decode_options(records[7], share) && share == 70'000);
    EXPECT_TRUE(store::decode_queued(records[8], queued, packet_id, body, 1000) && queued.share == 70'000 && packet_id == 3 && queued.subscription_ids.size() == 1);
    EXPECT_EQ(store::decode_shares(records[10])->back(), (store::Share{.number = 1, .filter = "b", .group = "h"}));
    const auto back = store::decode_session(records[3], 1000);
    EXPECT_TRUE(back->owner == "o" && back->expiry_interval == 7 && back->ends_at == 9000 && back->keeps_queue && back->will->publish_at == 100 && back->will->message_expiry == 4);
}

}  // namespace
}  // namespace penstock::statestore
