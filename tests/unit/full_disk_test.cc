// The store and the registry on disks that have no room, refuse for a while, or whose files go while they are open.
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/held_folder.h"
#include "base/random.h"
#include "control/state_keys.h"
#include "registry/registry.h"
#include "store/durable.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

struct Folder {
    fs::path path = fs::temp_directory_path() / ("penstock-full-" + random_uuid());
    ~Folder() {
        std::error_code error;
        fs::remove_all(path, error);
    }
};

enum class Refused : std::uint8_t { append, sync, create };

/// Takes `works` operations of one sort, refuses `refuses` of them (what is appended is written in part, as on a disk that fills up), and goes on.
class Disk final : public rocksdb::FileSystemWrapper {
  public:
    Disk(Refused what, std::int64_t works, std::int64_t refuses) : FileSystemWrapper(rocksdb::FileSystem::Default()), what_(what), works_(works), refuses_(refuses) {}
    static const char* kClassName() { return "FullDisk"; }
    const char* Name() const override { return kClassName(); }
    std::atomic<std::int64_t> refused{0};

    IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (refuses(Refused::create)) return IOStatus::NoSpace("While open a file for appending: " + path, "No space left on device");
        auto status = FileSystemWrapper::NewWritableFile(path, options, out, dbg);
        if (status.ok()) *out = std::make_unique<File>(*this, std::move(*out));
        return status;
    }
    IOStatus ReuseWritableFile(const std::string& path, const std::string& old, const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (auto status = DeleteFile(old, options.io_options, dbg); !status.ok()) return status;
        return NewWritableFile(path, options, out, dbg);
    }

  private:
    class File final : public rocksdb::FSWritableFileOwnerWrapper {
      public:
        File(Disk& disk, std::unique_ptr<rocksdb::FSWritableFile>&& file) : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk) {}
        IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* dbg) override {
            if (!disk_.refuses(Refused::append)) return FSWritableFileOwnerWrapper::Append(data, options, dbg);
            [[maybe_unused]] const auto part = FSWritableFileOwnerWrapper::Append(Slice(data.data(), data.size() / 2), options, dbg);
            return IOStatus::NoSpace("While appending to file", "No space left on device");
        }
        IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&, IODebugContext* dbg) override { return Append(data, options, dbg); }
        IOStatus Sync(const IOOptions& options, IODebugContext* dbg) override { return disk_.refuses(Refused::sync) ? IOStatus::NoSpace("fsync", "No space left on device") : FSWritableFileOwnerWrapper::Sync(options, dbg); }
        IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override { return Sync(options, dbg); }

      private:
        Disk& disk_;
    };
    bool refuses(Refused what) {
        if (what != what_ || works_.fetch_sub(1) > 0 || refuses_.fetch_sub(1) <= 0) return false;
        ++refused;
        return true;
    }
    const Refused what_;
    std::atomic<std::int64_t> works_, refuses_;
};

mqtt::MessageRef message(const std::string& topic, const std::string& payload) {
    return mqtt::MessageRef(mqtt::Message::make({.topic = topic, .payload = payload, .properties = {}, .partition = {}, .has_partition = false, .retain = true, .qos = mqtt::Qos::at_least_once, .expires_at = 0, .publisher = 0}));
}

/// A store with retained messages alone.
struct Life final : store::Recovered {
    std::unique_ptr<store::Durable> durable;
    std::unique_ptr<store::Engine> engine;
    std::map<std::string, std::string> found;
    std::uint64_t sequence = 0;
    std::string why;

    explicit Life(const fs::path& folder, std::shared_ptr<rocksdb::FileSystem> disk = {}, store::KeyRing keys = {}) {
        const bool seal = !keys.keys.empty();
        auto opened = store::Durable::open({.folder = folder.string(), .owner = "test/broker", .free_min = 0, .retry_ms = 2, .keys = std::move(keys), .seal = seal, .file_system = std::move(disk)});
        if (!opened) {
            why = opened.error().message;
            return;
        }
        durable = std::move(*opened);
        engine = durable->engine(0, [] {});
        engine->recover([](std::string_view) { return true; }, *this);
        durable->start();
    }
    ~Life() {
        if (durable) durable->stop();
        engine.reset();
    }
    void session(store::SessionRecord) override {}
    void subscription(std::string_view, std::string_view, const topics::Options&, std::uint32_t) override {}
    void handed_on(std::string_view, std::vector<store::Share>, std::unique_ptr<store::SessionStore>) override {}
    void incoming(std::string_view, std::uint16_t) override {}
    void seen(std::string_view, std::uint16_t, store::Portion) override {}
    void leaving(std::uint64_t, store::LeavingRecord) override {}
    void retained(const mqtt::MessageRef& m, std::uint64_t number) override { found[std::string(m->view().topic)] = m->view().payload, sequence = std::max(sequence, number); }
    void state(std::string, statestore::Entry) override {}
    void queue(std::string_view, std::unique_ptr<store::SessionStore>, std::uint16_t) override {}

    std::uint64_t keep(const std::string& topic, const std::string& payload) {
        static const std::vector<std::uint64_t> none{0};
        engine->put_retained(message(topic, payload), ++sequence);
        return engine->commit({.sent = none, .processed = none});
    }
    /// True when it is acknowledged within 30 seconds.
    [[nodiscard]] bool wait(std::uint64_t ticket) const {
        for (const auto end = monotonic_ms() + 30'000; engine->durable() < ticket && monotonic_ms() < end;) std::this_thread::yield();
        return engine->durable() >= ticket;
    }
};

/// A disk that refuses, whatever was under way then: opening, a log, a table, the list of files, keys that change. The process goes on, all is
/// acknowledged in the end, and all that was acknowledged is there after the next start.
void fill_up(Refused what, std::int64_t refusals, std::int64_t from, std::int64_t until, bool seals) {
    std::int64_t refused = 0;
    for (auto works = from; works < until; works += 3) {
        const Folder folder;
        const auto disk = std::make_shared<Disk>(what, works, refusals);
        store::KeyRing keys;
        if (seals) keys.add("first");
        std::map<std::string, std::string> must;
        {
            Life life(folder.path, disk, keys);
            if (!life.durable) {
                EXPECT_NE(life.why.find("No space left"), std::string::npos) << life.why;   // a new folder; it is told
                continue;
            }
            for (int i = 0; i < 8; ++i) {
                const auto topic = fmt::format("t{}", i);
                must[topic] = std::string(static_cast<std::size_t>(i % 3 == 0 ? 40'000 : 50 * i), 'x');
                if (i == 4 && seals) {
                    keys.add("second");
                    life.durable->set_keys(keys, true);   // all is rewritten meanwhile
                }
                ASSERT_TRUE(life.wait(life.keep(topic, must[topic]))) << "after " << works << " operations: " << life.durable->figures().fault;
            }
        }
        refused += disk->refused.load();
        const Life after(folder.path, {}, keys);
        ASSERT_TRUE(after.durable) << after.why;
        EXPECT_EQ(after.found, must) << "after " << works << " operations";
        EXPECT_EQ(after.durable->figures().notice, "");
    }
    EXPECT_GT(refused, 0);
}

TEST(FullDisk, writes_that_find_no_room_wait_and_go_on) {
    for (const std::int64_t refusals : {1, 5}) fill_up(Refused::append, refusals, 0, 45, false);
}
TEST(FullDisk, writes_that_find_no_room_wait_and_go_on_sealed) { fill_up(Refused::append, 7, 0, 70, true); }
TEST(FullDisk, syncs_that_find_no_room_wait_and_go_on) { fill_up(Refused::sync, 3, 0, 30, true); }
TEST(FullDisk, files_that_cannot_be_made_wait_and_go_on) { fill_up(Refused::create, 3, 0, 20, true); }

TEST(FullDisk, state_is_read_at_a_start_without_room_and_writing_begins_when_there_is_some) {
    const Folder folder;
    {
        Life life(folder.path);
        ASSERT_TRUE(life.wait(life.keep("t", "before")));
    }
    // Each try takes at least one refusal, and the pauses between tries grow to five seconds.
    const auto disk = std::make_shared<Disk>(Refused::append, 0, 10);
    {
        Life life(folder.path, disk);
        ASSERT_TRUE(life.durable) << life.why;
        EXPECT_EQ(life.found, (std::map<std::string, std::string>{{"t", "before"}}));
        EXPECT_NE(life.durable->figures().fault.find("No space left"), std::string::npos) << life.durable->figures().fault;
        ASSERT_TRUE(life.wait(life.keep("u", "after")));
        EXPECT_EQ(life.durable->figures().fault, "");
    }
    const Life after(folder.path);
    EXPECT_EQ(after.found, (std::map<std::string, std::string>{{"t", "before"}, {"u", "after"}}));
}

TEST(FullDisk, nothing_of_rocksdb_is_logged_into_its_folder) {
    const Folder folder;
    const Life life(folder.path);
    ASSERT_TRUE(life.durable);
    EXPECT_FALSE(fs::exists(folder.path / "LOG"));
}

/// Files that were deleted take writes, all of which end with the process.
TEST(VanishedFolder, a_store_whose_files_are_deleted_is_written_anew) {
    for (const bool seals : {false, true}) {
        const Folder folder;
        store::KeyRing keys;
        if (seals) keys.add("key");
        std::map<std::string, std::string> must;
        {
            Life life(folder.path, {}, keys);
            for (int i = 0; i < 5; ++i) {
                const auto topic = fmt::format("t{}", i);
                must[topic] = std::string(30'000, 'x');
                ASSERT_TRUE(life.wait(life.keep(topic, must[topic])));
                // The store puts back what it misses while the folder is being emptied.
                for (std::error_code error; fs::remove_all(folder.path, error), error;) error.clear();
                must[topic + "/after"] = "y";
                ASSERT_TRUE(life.wait(life.keep(topic + "/after", "y"))) << life.durable->figures().fault;
            }
        }
        const Life after(folder.path, {}, keys);
        ASSERT_TRUE(after.durable) << after.why;
        EXPECT_EQ(after.found, must);
    }
}

std::string identity_of(const fs::path& folder) {
    std::ifstream in(folder / "IDENTITY");
    return {std::istreambuf_iterator<char>(in), {}};
}

bool wait_for(const std::function<bool()>& what) {
    const auto end = monotonic_ms() + 30'000;
    while (!what() && monotonic_ms() < end) std::this_thread::yield();
    return what();
}

/// Each file of a store alone. Afterwards what the process leaves when it is killed is whole.
TEST(VanishedFolder, a_store_of_which_one_file_is_deleted_is_written_anew) {
    for (const bool seals : {false, true}) {
        store::KeyRing keys;
        if (seals) keys.add("key");
        std::map<std::string, std::string> must;
        const Folder first;
        const auto keep = [&](Life& life, const std::string& topic) {
            must[topic] = std::string(3000, 'x');
            ASSERT_TRUE(life.wait(life.keep(topic, must[topic]))) << topic << ": " << life.durable->figures().fault;
        };
        {
            Life life(first.path, {}, keys);
            for (int i = 0; i < 5; ++i) keep(life, fmt::format("a{}", i));
        }
        std::vector<std::string> names;
        {
            const Life life(first.path, {}, keys);
            for (const auto& entry : fs::directory_iterator(first.path))
                if (entry.is_regular_file()) names.push_back(entry.path().filename().string());
        }
        int tables = 0, logs = 0;
        for (const auto& name : names) {
            if (name == "LOCK") continue;
            const Folder work, killed;
            fs::copy(first.path, work.path, fs::copy_options::recursive);
            Life life(work.path, {}, keys);
            ASSERT_TRUE(life.durable) << life.why;
            keep(life, "b");
            // The names are another start's; what takes their place has the same kind.
            auto file = work.path / name;
            const auto kind = [](const std::string& of) { return of.ends_with(".log") ? ".log" : of.starts_with("MANIFEST-") ? "MANIFEST-" : of.starts_with("OPTIONS-") ? "OPTIONS-" : of; };
            for (const auto& entry : fs::directory_iterator(work.path))
                if (const auto other = entry.path().filename().string(); kind(other) == kind(name) && (name.ends_with(".log") || !fs::exists(file))) file = entry.path();
            if (!fs::exists(file)) continue;   // a table that went into another one
            tables += name.ends_with(".sst");
            logs += name.ends_with(".log");
            const auto before = identity_of(work.path);
            fs::remove(file);
            if (name == "IDENTITY") {
                ASSERT_TRUE(wait_for([&] { return identity_of(work.path) == before; })) << "it is written again";
            } else if (!name.starts_with("OPTIONS-")) {
                ASSERT_TRUE(wait_for([&] { return identity_of(work.path) != before && life.durable->figures().fault.empty(); })) << name << ": " << life.durable->figures().fault;
            }
            keep(life, "c");
            fs::copy(work.path, killed.path, fs::copy_options::recursive);
            const Life after(killed.path, {}, keys);
            ASSERT_TRUE(after.durable) << name << ": " << after.why;
            EXPECT_EQ(after.found, must) << name;
            EXPECT_EQ(after.durable->figures().notice, "") << name;
            EXPECT_FALSE(fs::exists(killed.path / "former")) << name;
            must.erase("b");
            must.erase("c");
        }
        EXPECT_GT(tables, 0);
        EXPECT_GT(logs, 0);
    }
}

/// An end right after it: nobody has seen yet that a file is gone.
TEST(VanishedFolder, a_store_of_which_a_file_is_deleted_is_written_anew_at_the_end) {
    const Folder folder;
    {
        Life life(folder.path);
        ASSERT_TRUE(life.wait(life.keep("t", "kept")));
        for (const auto& entry : fs::directory_iterator(folder.path))
            if (entry.path().extension() == ".log") fs::remove(entry.path());
    }
    const Life after(folder.path);
    ASSERT_TRUE(after.durable) << after.why;
    EXPECT_EQ(after.found, (std::map<std::string, std::string>{{"t", "kept"}}));
}

/// A store in which one retained message is on the disk.
void keep_one(const fs::path& folder, const std::string& topic, const std::string& payload) {
    Life life(folder);
    ASSERT_TRUE(life.wait(life.keep(topic, payload)));
}

/// A crash at any step between a copy that is whole and its use loses nothing, and one that is not whole is not used.
TEST(VanishedFolder, a_copy_is_taken_by_the_next_start_too) {
    const Folder old, copy;
    keep_one(old.path, "old", "1");
    keep_one(copy.path, "new", "2");
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(copy.path))
        if (entry.is_regular_file() && entry.path().filename() != "CURRENT" && entry.path().filename() != "LOCK") names.push_back(entry.path().filename());
    names.emplace_back("CURRENT");
    for (const char* mark : {"", "WHOLE", "PLACING"})
        for (std::size_t placed = 0; placed <= names.size(); ++placed) {
            if (placed > 0 && std::string(mark) != "PLACING") break;
            const Folder work;
            if (std::string(mark) == "PLACING") fs::create_directories(work.path);
            else fs::copy(old.path, work.path, fs::copy_options::recursive);
            if (std::string(mark) == "WHOLE") fs::remove(work.path / "CURRENT");
            fs::copy(copy.path, work.path / "anew", fs::copy_options::recursive);
            for (std::size_t i = 0; i < placed; ++i) fs::rename(work.path / "anew" / names[i], work.path / names[i]);
            if (*mark != 0) std::ofstream(work.path / "anew" / mark);
            const Life after(work.path);
            ASSERT_TRUE(after.durable) << mark << placed << after.why;
            const bool taken = *mark != 0;
            EXPECT_EQ(after.found, (std::map<std::string, std::string>{{taken ? "new" : "old", taken ? "2" : "1"}})) << mark << placed;
            for (const char* rest : {"anew", "former"}) EXPECT_FALSE(fs::exists(work.path / rest)) << mark << placed;
        }
}

/// What is replaced goes away file by file: whichever is the last that went before a crash, the copy is still this store's.
TEST(VanishedFolder, a_copy_is_taken_whatever_has_gone_from_its_place) {
    const Folder old, copy;
    keep_one(old.path, "old", "1");
    keep_one(copy.path, "new", "2");
    std::string identity;
    std::ifstream named(old.path / "IDENTITY");
    std::getline(named, identity);
    ASSERT_FALSE(identity.empty());
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(old.path))
        if (entry.is_regular_file() && entry.path().filename() != "LOCK") names.push_back(entry.path().filename());
    for (const auto& name : names) {
        const Folder work;
        fs::copy(old.path, work.path, fs::copy_options::recursive);
        fs::copy(copy.path, work.path / "anew", fs::copy_options::recursive);
        std::ofstream(work.path / "anew" / "WHOLE") << "id=" << identity << " changes=1000000\n";
        // A file cannot take the place of a folder: the start ends there, as if it were killed.
        fs::create_directories(work.path / "former" / name / "in the way");
        {
            const Life stopped(work.path);
            if (stopped.durable != nullptr) continue;   // a file that stays where it is
        }
        fs::remove_all(work.path / "former" / name);
        const Life after(work.path);
        ASSERT_TRUE(after.durable) << name << ": " << after.why;
        EXPECT_EQ(after.found, (std::map<std::string, std::string>{{"new", "2"}})) << name;
        EXPECT_FALSE(fs::exists(work.path / "lost")) << name;
    }
}

TEST(VanishedFolder, a_folder_that_is_moved_away_and_comes_back_is_gone_on_with) {
    const Folder folder;
    const auto away = folder.path.string() + "-away";
    {
        Life life(folder.path);
        ASSERT_TRUE(life.wait(life.keep("t", "before")));
        fs::rename(folder.path, away);
        fs::create_directories(folder.path);
        std::ofstream(folder.path / "CURRENT") << "somebody else's";
        const auto ticket = life.keep("u", "meanwhile");
        for (const auto end = monotonic_ms() + 30'000; life.durable->figures().fault.find("another folder stands in the place") == std::string::npos && monotonic_ms() < end;) std::this_thread::yield();
        EXPECT_NE(life.durable->figures().fault.find("another folder stands in the place"), std::string::npos) << life.durable->figures().fault;
        EXPECT_LT(life.engine->durable(), ticket) << "not acknowledged";
        fs::remove_all(folder.path);
        fs::rename(away, folder.path);
        ASSERT_TRUE(life.wait(ticket));
        EXPECT_EQ(life.durable->figures().fault, "");
    }
    const Life after(folder.path);
    EXPECT_EQ(after.found, (std::map<std::string, std::string>{{"t", "before"}, {"u", "meanwhile"}}));
}

TEST(VanishedFolder, keys_in_use_are_put_back) {
    const Folder folder;
    const control::StatePlace place{.folder = (folder.path / "broker").string(), .key_file = (folder.path / "pki" / "state-keys").string(), .buffer_folder = {}};
    const auto made = control::state_keys(place, true, "");
    ASSERT_TRUE(made) << made.error().message;
    ASSERT_EQ(made->keys.size(), 1u);
    auto is_back = [&] {
        const auto again = control::state_keys(place, true, "", *made);
        const auto read = store::KeyRing::read(place.key_file);
        return again && again->keys.size() == 1 && again->keys[0].bytes == made->keys[0].bytes && read && read->keys.size() == 1 && read->keys[0].bytes == made->keys[0].bytes;
    };
    fs::remove_all(folder.path / "pki");
    EXPECT_TRUE(is_back());
    EXPECT_EQ(fs::status(place.key_file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
    std::ofstream(place.key_file) << "not a key ring";
    EXPECT_TRUE(is_back());
    store::KeyRing other;
    other.add("");
    ASSERT_TRUE(other.write(place.key_file));
    EXPECT_TRUE(is_back()) << "another key of the same number";
}

const resources::Kind& config_maps() { return *resources::find_kind("v1", "ConfigMap"); }

bool make(registry::Registry& registry, const std::string& name, std::string* why = nullptr) {
    const auto made = registry.create(config_maps(), "default", {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", name}}}});
    if (!made && why != nullptr) *why = made.error().message;
    return made.has_value();
}

TEST(VanishedFolder, a_registry_whose_file_is_deleted_is_written_anew) {
    const Folder folder;
    const auto file = folder.path / "deep" / "registry.sqlite";
    fs::create_directories(file.parent_path());
    std::uint64_t version = 0;
    {
        const auto registry = registry::Registry::open(file.string()).value();
        ASSERT_TRUE(make(*registry, "before"));
        fs::remove_all(folder.path);
        ASSERT_TRUE(make(*registry, "after"));
        EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
        ASSERT_TRUE(make(*registry, "more"));
        EXPECT_EQ(registry->storage_fault(), "");
        version = registry->version();
    }
    const auto again = registry::Registry::open(file.string()).value();
    for (const char* name : {"before", "after", "more"}) EXPECT_TRUE(again->get(config_maps(), "default", name)) << name;
    EXPECT_EQ(again->version(), version);
}

/// Also while nobody writes. What was in the log that is gone is in the file then.
TEST(VanishedFolder, a_registry_whose_log_is_deleted_is_written_anew) {
    const Folder folder, killed;
    fs::create_directories(folder.path);
    const auto file = folder.path / "registry.sqlite";
    const auto registry = registry::Registry::open(file.string()).value();
    for (const char* name : {"one", "two"}) {
        ASSERT_TRUE(make(*registry, name));
        ASSERT_TRUE(fs::remove(file.string() + "-wal"));
        ASSERT_TRUE(wait_for([&] { return registry->storage_fault().empty() && fs::exists(file.string() + "-wal"); })) << registry->storage_fault();
    }
    ASSERT_TRUE(fs::remove(file.string() + "-wal"));
    ASSERT_TRUE(make(*registry, "three"));
    fs::copy(folder.path, killed.path, fs::copy_options::recursive);
    const auto again = registry::Registry::open((killed.path / "registry.sqlite").string());
    ASSERT_TRUE(again) << again.error().message;
    for (const char* name : {"one", "two", "three"}) EXPECT_TRUE((*again)->get(config_maps(), "default", name)) << name;
}

TEST(HeldFolder, is_the_one_it_was_or_is_made_anew) {
    const Folder folder;
    fs::create_directories(folder.path / "data");
    const auto path = (folder.path / "data").string();
    const auto held = HeldFolder::open(path).value();
    ASSERT_TRUE(held->ready());
    const auto write_into = [&](const char* name) { std::ofstream(held->at(name)) << name; };
    write_into("a");
    EXPECT_TRUE(fs::exists(folder.path / "data" / "a"));
    EXPECT_EQ(held->named(held->at("pki/x") + ": why"), path + "/pki/x: why");
    // Moved, as by an unmount: what is written goes where it went, and nothing into what has the name now.
    fs::rename(path, folder.path / "away");
    EXPECT_EQ(held->ready().error().message, path + ": the folder was moved, or its disk unmounted; put it back, or mount that again");
    fs::create_directories(path);
    EXPECT_NE(held->ready().error().message.find("another folder stands in the place of the one that is open"), std::string::npos);
    write_into("b");
    EXPECT_TRUE(fs::is_empty(path));
    EXPECT_TRUE(fs::exists(folder.path / "away" / "b"));
    fs::remove(path);
    fs::rename(folder.path / "away", path);
    EXPECT_TRUE(held->ready());
    // Deleted: made anew, with what is above it.
    fs::remove_all(folder.path);
    EXPECT_FALSE(held->is_there());
    ASSERT_TRUE(held->ready()) << held->ready().error().message;
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_all);
    write_into("c");
    EXPECT_TRUE(fs::exists(folder.path / "data" / "c"));
}

TEST(VanishedFolder, keys_are_not_begun_anew_in_another_folder) {
    const Folder folder;
    fs::create_directories(folder.path / "data");
    const auto data = HeldFolder::open((folder.path / "data").string()).value();
    const control::StatePlace place{.folder = (folder.path / "data" / "broker").string(), .key_file = (folder.path / "data" / "pki" / "state-keys").string(), .buffer_folder = {}, .data = data};
    const auto made = control::state_keys(place, true, "");
    ASSERT_TRUE(made) << made.error().message;
    fs::rename(folder.path / "data", folder.path / "away");
    fs::create_directories(folder.path / "data");
    const auto again = control::state_keys(place, true, "", *made);
    ASSERT_FALSE(again);
    EXPECT_NE(again.error().message.find("mount that again"), std::string::npos) << again.error().message;
    EXPECT_TRUE(fs::is_empty(folder.path / "data"));
}

TEST(VanishedFolder, a_registry_is_not_written_behind_another_file) {
    const Folder folder;
    fs::create_directories(folder.path);
    const auto file = folder.path / "registry.sqlite", away = folder.path / "away";
    {
        const auto registry = registry::Registry::open(file.string()).value();
        ASSERT_TRUE(make(*registry, "before"));
        fs::rename(file, away);
        std::ofstream(file) << "somebody else's";
        std::string why;
        EXPECT_FALSE(make(*registry, "meanwhile", &why));
        EXPECT_NE(why.find("another file stands in the place"), std::string::npos) << why;
        EXPECT_NE(registry->storage_fault(), "");
        EXPECT_TRUE(registry->get(config_maps(), "default", "before")) << "what is in memory is served";
        fs::rename(away, file);
        for (const auto end = monotonic_ms() + 30'000; !registry->storage_fault().empty() && monotonic_ms() < end;) std::this_thread::yield();
        EXPECT_EQ(registry->storage_fault(), "");
        EXPECT_TRUE(make(*registry, "after"));
    }
    const auto again = registry::Registry::open(file.string()).value();
    EXPECT_TRUE(again->get(config_maps(), "default", "before"));
    EXPECT_FALSE(again->get(config_maps(), "default", "meanwhile"));
    EXPECT_TRUE(again->get(config_maps(), "default", "after"));
}

}  // namespace
}  // namespace penstock
