// Files as earlier versions wrote them must be read for ever: tests/data holds them, as text. A format that is released is never
// written anew; PENSTOCK_WRITE_FORMAT=FOLDER writes what the present code makes, for a format that is new.
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/file_system.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/text.h"
#include "statestore/state_store.h"
#include "mqtt/property.h"
#include "store/durable.h"
#include "store/sealed_files.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;
using mqtt::Qos;

const fs::path data = fs::path(PENSTOCK_SOURCE_DIR) / "tests" / "data";

struct Folder {
    fs::path path = fs::temp_directory_path() / ("penstock-format-" + random_uuid());
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
};

std::string unhex(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
        unsigned byte = 0;
        std::from_chars(text.data() + i, text.data() + i + 2, byte, 16);
        out += static_cast<char>(byte);
    }
    return out;
}
std::vector<std::vector<std::string>> lines_of(const std::string& name) {
    std::ifstream in(data / name);
    std::vector<std::vector<std::string>> out;
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line.starts_with('#')) continue;
        auto& words = out.emplace_back();
        for (const auto word : split(line, ' ')) words.emplace_back(unhex(word));
    }
    return out;
}

/// Everything that came back, as text; times as the seconds of their wall clock.
struct Told final : Recovered {
    std::string text;
    static std::string wall(std::int64_t monotonic) { return monotonic == 0 ? "never" : rfc3339((monotonic + wall_ms() - monotonic_ms() + 500) / 1000 * 1000); }
    static std::string of(const mqtt::MessageRef& message) {
        const auto view = message->view();
        return fmt::format("{} {}B \"{}\" qos {} retain {} properties {}B partition {} until {}", view.topic, view.payload.size(), view.payload.substr(0, 12), static_cast<int>(view.qos), view.retain, view.properties.size(), view.has_partition ? view.partition : "-", wall(view.expires_at));
    }
    void session(SessionRecord r) override {
        text += fmt::format("session {} owner {} expiry {} ends {} queue {}\n", r.client_id, r.owner, r.expiry_interval, wall(r.ends_at), r.keeps_queue);
        if (r.will) text += fmt::format("  will {} {} {} qos {} retain {} delay {} expiry {} {} at {}\n", r.will->topic, r.will->payload, r.will->properties.size(), static_cast<int>(r.will->qos), r.will->retain, r.will->delay_interval, r.will->has_expiry, r.will->message_expiry, wall(r.will->publish_at));
    }
    void subscription(std::string_view client, std::string_view filter, const topics::Options& o, std::uint32_t share) override { text += fmt::format("subscription {} {} qos {} no local {} as published {} id {}{}\n", client, filter, static_cast<int>(o.qos), o.no_local, o.retain_as_published, o.id, share == 0 ? "" : fmt::format(" share {}", share)); }
    void incoming(std::string_view client, std::uint16_t id) override { text += fmt::format("incoming {} {}\n", client, id); }
    void seen(std::string_view publisher, std::uint16_t id, Portion portion) override { text += fmt::format("seen {} {} by {} of {}\n", publisher, id, portion.worker, portion.workers); }
    void leaving(std::uint64_t number, LeavingRecord r) override { text += fmt::format("leaving {} of {} for {} {} sequence {} {}\n", number, r.client_id, r.filter, r.group, r.sequence, of(r.message)); }
    void queue(std::string_view client, std::unique_ptr<SessionStore> store, std::uint16_t last) override {
        text += fmt::format("queue {} last id {}\n", client, last);
        store->for_each_in_flight([&](InFlight& d) { text += fmt::format("  under way {} step {} {}\n", d.packet_id, static_cast<int>(d.step), d.item.message ? of(d.item.message) : "-"); });
        stores.push_back(std::move(store));
    }
    void handed_on(std::string_view client, std::vector<Share> shares, std::unique_ptr<SessionStore> store) override {
        for (const auto& share : shares) text += fmt::format("handed on of {} {}: {} {}\n", client, share.number, share.filter, share.group);
        stores.push_back(std::move(store));
    }
    void retained(const mqtt::MessageRef& message, std::uint64_t sequence) override { text += fmt::format("retained {} {}\n", sequence, of(message)); }
    void state(std::string key, statestore::Entry e) override { text += fmt::format("state {} {} version {} fence {} until {}\n", key, e.value, e.version.text(), e.fence ? e.fence->text() : "-", e.expires_at == 0 ? "never" : wall(e.expires_at)); }
    void queues(Engine&) {
        for (auto& store : stores) {
            text += "queued:\n";
            for (Queued* next = nullptr; (next = store->next()) != nullptr; store->drop_next()) text += fmt::format("  {} as qos {} retain {} ids {}\n", of(next->message), static_cast<int>(next->qos), next->retain, next->subscription_ids.size());
        }
    }
    std::vector<std::unique_ptr<SessionStore>> stores;
};

std::string read_all(const std::string& folder) {
    auto opened = Durable::open({.folder = folder, .owner = "test/broker", .file_system = {}});
    if (!opened) return opened.error().message;
    auto engine = (*opened)->engine(0, [] {});
    Told told;
    engine->recover([](std::string_view) { return true; }, told);
    told.queues(*engine);
    told.stores.clear();
    return told.text;
}

constexpr std::int64_t year_2100 = 4'102'444'800'000;
constexpr const char* sealed_text = "what stands in a sealed file, piece by piece";
KeyRing fixed_key() { return {.keys = {{.id = 7, .bytes = std::string("0123456789abcdef0123456789abcdef"), .label = ""}}}; }

void write_format(const fs::path& into) {
    const Folder folder;
    const auto shift = wall_ms() - monotonic_ms();
    const std::vector<std::uint64_t> none{0};
    auto message = [&](const std::string& topic, const std::string& payload, Qos qos, bool retain, std::int64_t ends) {
        std::string properties;
        mqtt::write_user_property(properties, "$partition", "p1");
        mqtt::MessageView view{.topic = topic, .payload = payload, .properties = properties, .partition = {}, .has_partition = true, .retain = retain, .qos = qos, .expires_at = ends == 0 ? 0 : ends - shift, .publisher = 0};
        view.partition = std::string_view(properties).substr(properties.size() - 2);
        return mqtt::MessageRef(mqtt::Message::make(view));
    };
    {
        auto durable = Durable::open({.folder = folder.path.string(), .owner = "test/broker", .file_system = {}}).value();
        auto engine = durable->engine(0, [] {});
        Told nothing;
        engine->recover([](std::string_view) { return true; }, nothing);
        durable->start();
        engine->put_session({.client_id = "plain", .owner = {}, .expiry_interval = 0xFFFFFFFF, .ends_at = 0, .keeps_queue = false, .will = {}});
        engine->put_session({.client_id = "full", .owner = "x509:CN=full", .expiry_interval = 3600, .ends_at = year_2100 - shift, .keeps_queue = true,
                             .will = WillRecord{.topic = "will/full", .payload = "gone", .properties = std::string("\x03\x00\x01t", 4), .qos = Qos::exactly_once, .retain = true, .delay_interval = 9, .has_expiry = true, .message_expiry = 60, .publish_at = year_2100 - shift}});
        engine->put_subscription("full", "plant/+/#", {.qos = 2, .no_local = true, .retain_as_published = true, .id = 268'435'455});
        engine->put_subscription("full", "$share/g/work/#", {.qos = 1, .no_local = false, .retain_as_published = false, .id = 0});
        engine->put_incoming("full", 77);
        engine->put_seen("full", 65'535, {.worker = 2, .workers = 4});
        engine->put_leaving(engine->next_number(), {.client_id = "full", .sequence = 41, .message = message("will/full", "on its way", Qos::at_least_once, true, year_2100)});
        engine->put_leaving(engine->next_number(), {.client_id = {}, .filter = "work/#", .group = "g", .message = message("work/1", "on its way", Qos::exactly_once, false, 0)});
        auto store = engine->open_session("full", true);
        store->start({.message = message("plant/a", "at once", Qos::at_least_once, false, 0), .qos = Qos::at_least_once, .subscription_ids = {1, 2}}, 1);
        store->enqueue({.message = message("plant/b", "goes on", Qos::exactly_once, false, year_2100), .qos = Qos::exactly_once, .subscription_ids = {}}, false, 0);
        store->enqueue({.message = message("plant/c", "released", Qos::exactly_once, false, 0), .qos = Qos::exactly_once, .subscription_ids = {}}, false, 0);
        store->start_next(2);
        store->start_next(3);
        store->advance(*store->find(3));
        const auto large = message("plant/d", "large " + std::string(600, 'x'), Qos::at_least_once, true, year_2100);
        store->enqueue({.message = large, .qos = Qos::at_least_once, .retain = true, .subscription_ids = {5}}, false, 0);
        engine->put_session({.client_id = "other", .owner = {}, .expiry_interval = 5000, .ends_at = year_2100 - shift, .keeps_queue = true, .will = {}});
        auto other = engine->open_session("other", true);
        other->enqueue({.message = large, .qos = Qos::at_least_once, .subscription_ids = {}}, false, 0);
        engine->put_retained(message("keep/me", "kept", Qos::at_least_once, true, year_2100), 42);
        engine->put_state("key", {.value = "value", .version = *statestore::Timestamp::parse("001696374425000:00001:StateStore"), .fence = statestore::Timestamp::parse("001696374425000:00000:Client1"), .expires_at = year_2100 - shift});
        const auto ticket = engine->commit({.sent = none, .processed = none});
        while (engine->durable() < ticket) std::this_thread::yield();
        durable->stop();
        store.reset();
        other.reset();
    }
    const auto told = read_all(folder.path.string());
    rocksdb::DB* raw = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, folder.path.string(), &raw).ok());
    const std::unique_ptr<rocksdb::DB> db(raw);
    std::ofstream out(into / "broker-format-1.txt");
    out << "# Keys and values of broker/, format 1, in hexadecimal.\n";
    const std::unique_ptr<rocksdb::Iterator> at(db->NewIterator({}));
    for (at->SeekToFirst(); at->Valid(); at->Next())
        if (at->key().ToString() != "Mrewritten") out << statestore::hex_upper(at->key().ToString()) << ' ' << statestore::hex_upper(at->value().ToString()) << '\n';
    std::ofstream(into / "broker-format-1.expected") << told;
    auto files = SealedFiles::make(nullptr);
    files->set(fixed_key(), true);
    const auto path = (folder.path / "000001.log").string();
    std::unique_ptr<rocksdb::FSWritableFile> file;
    ASSERT_TRUE(files->files()->NewWritableFile(path, {}, &file, nullptr).ok());
    for (const auto part : split(sealed_text, ' ')) ASSERT_TRUE(file->Append(rocksdb::Slice(part.data(), part.size()), {}, nullptr).ok());
    ASSERT_TRUE(file->Close({}, nullptr).ok());
    std::ifstream sealed(path, std::ios::binary);
    std::ofstream(into / "sealed-format-1.txt") << "# A sealed file, in hexadecimal.\n" << statestore::hex_upper(std::string{std::istreambuf_iterator<char>(sealed), {}}) << '\n';
}

TEST(Format, state_of_format_1_is_read) {
    if (const char* into = std::getenv("PENSTOCK_WRITE_FORMAT"); into != nullptr) write_format(into);
    const Folder folder;
    {
        rocksdb::DB* raw = nullptr;
        rocksdb::Options rules;
        rules.create_if_missing = true;
        ASSERT_TRUE(rocksdb::DB::Open(rules, folder.path.string(), &raw).ok());
        const std::unique_ptr<rocksdb::DB> db(raw);
        const auto lines = lines_of("broker-format-1.txt");
        ASSERT_GT(lines.size(), 15u);
        for (const auto& words : lines) ASSERT_TRUE(db->Put({}, words.at(0), words.at(1)).ok());
    }
    std::ifstream in(data / "broker-format-1.expected");
    const std::string expected{std::istreambuf_iterator<char>(in), {}};
    EXPECT_EQ(read_all(folder.path.string()), expected);
}

TEST(Format, sealed_files_of_format_1_are_read) {
    const Folder folder;
    const auto path = (folder.path / "000001.log").string();
    std::ofstream(path, std::ios::binary) << lines_of("sealed-format-1.txt").at(0).at(0);
    auto files = SealedFiles::make(nullptr);
    files->set(fixed_key(), true);
    std::unique_ptr<rocksdb::FSSequentialFile> file;
    ASSERT_TRUE(files->files()->NewSequentialFile(path, {}, &file, nullptr).ok());
    char bytes[200];
    rocksdb::Slice got;
    ASSERT_TRUE(file->Read(sizeof bytes, {}, &got, bytes, nullptr).ok());
    std::string expected;
    for (const auto part : split(sealed_text, ' ')) expected += part;
    EXPECT_EQ(got.ToString(), expected);
}

/// Whatever bit is changed: an error, or less than there was, and never something else.
TEST(Format, a_changed_bit_in_a_sealed_file_is_no_other_text) {
    const Folder folder;
    const auto path = (folder.path / "000001.log").string();
    const auto whole = lines_of("sealed-format-1.txt").at(0).at(0);
    std::string expected;
    for (const auto part : split(sealed_text, ' ')) expected += part;
    std::size_t refused = 0, shorter = 0;
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
        auto damaged = whole;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        std::ofstream(path, std::ios::binary) << damaged;
        auto files = SealedFiles::make(nullptr);
        files->set(fixed_key(), true);
        std::unique_ptr<rocksdb::FSSequentialFile> file;
        char bytes[1000];
        rocksdb::Slice got;
        if (!files->files()->NewSequentialFile(path, {}, &file, nullptr).ok() || !file->Read(sizeof bytes, {}, &got, bytes, nullptr).ok()) {
            ++refused;
            continue;
        }
        const auto text = got.ToString();
        if (bit < 8 * 8) continue;   // without its mark it is a file in the clear, and RocksDB says what it thinks of that
        if (bit >= 12 * 8 && bit < 16 * 8) continue;   // reserved
        if (bit >= 8 * 8 && bit < 12 * 8) {            // the key's number; the check in the head tells which key it is
            ASSERT_EQ(text, expected) << bit;
            continue;
        }
        ASSERT_TRUE(text.size() < expected.size() && expected.starts_with(text)) << bit << ' ' << text;
        ++shorter;
    }
    EXPECT_GT(refused, whole.size());
    EXPECT_GT(shorter, 100u);
}

}  // namespace
}  // namespace penstock::store
