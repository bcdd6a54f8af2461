// The store on a disk that fails: power cuts in the middle of writes and syncs, torn and reordered writes, errors that pass.
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "store/durable.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

/// A disk that keeps for sure only what was synced. From `cut` operations on nothing gets through any more, as if the power
/// went; lose() then leaves of the rest what such a disk may leave: nothing, a part, or a part with holes.
class Disk final : public rocksdb::FileSystemWrapper {
  public:
    explicit Disk(std::uint64_t seed) : FileSystemWrapper(rocksdb::FileSystem::Default()), random_(seed) {}
    static const char* kClassName() { return "FaultyDisk"; }
    const char* Name() const override { return kClassName(); }

    std::atomic<std::int64_t> cut{INT64_MAX};     ///< operations that still work
    std::atomic<int> failing_syncs{0};            ///< the next ones answer EIO, and what they were for is not on the disk
    [[nodiscard]] bool dead() const { return cut.load() <= 0; }

    void lose() {
        const std::lock_guard lock(guard_);
        for (auto& [path, file] : files_) {
            std::error_code error;
            const auto size = fs::file_size(path, error);
            if (error || size <= file.synced) continue;
            if (file.synced == 0 && !file.named && below(2) == 0) {
                fs::remove(path);
                continue;
            }
            const auto kept = file.synced + below(size - file.synced + 1);
            fs::resize_file(path, kept);
            if (below(2) == 0) continue;
            std::fstream bytes(path, std::ios::in | std::ios::out | std::ios::binary);
            for (auto at = file.synced; at < kept; at += 512)
                if (below(3) == 0) bytes.seekp(static_cast<std::streamoff>(at)).write(std::string(512, '\0').data(), static_cast<std::streamsize>(std::min<std::uint64_t>(512, kept - at)));
        }
        files_.clear();
    }

    IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (!alive()) return gone();
        return wrap(path, FileSystemWrapper::NewWritableFile(path, options, out, dbg), out, 0);
    }
    IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (!alive()) return gone();
        return wrap(path, FileSystemWrapper::ReopenWritableFile(path, options, out, dbg), out, fs::file_size(path));
    }
    IOStatus ReuseWritableFile(const std::string& path, const std::string& old, const rocksdb::FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (!alive()) return gone();
        return wrap(path, FileSystemWrapper::ReuseWritableFile(path, old, options, out, dbg), out, 0);
    }
    IOStatus NewDirectory(const std::string& path, const IOOptions& options, std::unique_ptr<rocksdb::FSDirectory>* out, IODebugContext* dbg) override {
        auto status = FileSystemWrapper::NewDirectory(path, options, out, dbg);
        if (status.ok()) *out = std::make_unique<Directory>(*this, std::move(*out));
        return status;
    }
    IOStatus DeleteFile(const std::string& path, const IOOptions& options, IODebugContext* dbg) override {
        if (!alive()) return gone();
        {
            const std::lock_guard lock(guard_);
            files_.erase(path);
        }
        return FileSystemWrapper::DeleteFile(path, options, dbg);
    }
    IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options, IODebugContext* dbg) override {
        if (!alive()) return gone();
        {
            const std::lock_guard lock(guard_);
            if (const auto found = files_.find(from); found != files_.end()) files_[to] = found->second, files_.erase(from);
        }
        return FileSystemWrapper::RenameFile(from, to, options, dbg);
    }
    IOStatus Truncate(const std::string& path, std::size_t size, const IOOptions& options, IODebugContext* dbg) override { return alive() ? FileSystemWrapper::Truncate(path, size, options, dbg) : gone(); }

  private:
    struct State {
        std::uint64_t synced = 0;
        bool named = false;                       ///< its folder was synced since it is there
    };
    class File final : public rocksdb::FSWritableFileOwnerWrapper {
      public:
        File(Disk& disk, std::string path, std::unique_ptr<rocksdb::FSWritableFile>&& file) : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk), path_(std::move(path)) {}
        IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* dbg) override {
            if (disk_.alive()) return FSWritableFileOwnerWrapper::Append(data, options, dbg);
            if (disk_.cut.load() == 0 && !data.empty()) {   // a short write is the last thing that happens
                [[maybe_unused]] const auto written = FSWritableFileOwnerWrapper::Append(Slice(data.data(), disk_.below(data.size())), options, dbg);
                [[maybe_unused]] const auto flushed = FSWritableFileOwnerWrapper::Flush(options, dbg);
            }
            return gone();
        }
        IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&, IODebugContext* dbg) override { return Append(data, options, dbg); }
        IOStatus Sync(const IOOptions& options, IODebugContext* dbg) override { return synced(options, dbg); }
        IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override { return synced(options, dbg); }
        IOStatus RangeSync(std::uint64_t, std::uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
        IOStatus Truncate(std::uint64_t size, const IOOptions& options, IODebugContext* dbg) override { return disk_.dead() ? gone() : FSWritableFileOwnerWrapper::Truncate(size, options, dbg); }

      private:
        IOStatus synced(const IOOptions& options, IODebugContext* dbg) {
            if (disk_.failing_syncs.load() > 0) {
                --disk_.failing_syncs;
                return IOStatus::IOError("fsync", "Input/output error");
            }
            const auto size = GetFileSize(options, dbg);
            const bool alive = disk_.alive();
            if (!alive && (disk_.cut.load() < 0 || disk_.below(2) == 0)) return gone();
            {
                const std::lock_guard lock(disk_.guard_);   // the last sync may have done its work, though nobody hears of it
                auto& file = disk_.files_[path_];
                file.synced = std::max(file.synced, size);
            }
            return alive ? IOStatus::OK() : gone();
        }
        Disk& disk_;
        std::string path_;
    };
    class Directory final : public rocksdb::FSDirectoryWrapper {
      public:
        Directory(Disk& disk, std::unique_ptr<rocksdb::FSDirectory>&& directory) : FSDirectoryWrapper(std::move(directory)), disk_(disk) {}
        IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override { return FsyncWithDirOptions(options, dbg, {}); }
        IOStatus FsyncWithDirOptions(const IOOptions&, IODebugContext*, const rocksdb::DirFsyncOptions&) override {
            if (!disk_.alive()) return gone();
            const std::lock_guard lock(disk_.guard_);
            for (auto& [path, file] : disk_.files_) file.named = true;
            return IOStatus::OK();
        }

      private:
        Disk& disk_;
    };
    IOStatus wrap(const std::string& path, IOStatus status, std::unique_ptr<rocksdb::FSWritableFile>* out, std::uint64_t synced) {
        if (!status.ok()) return status;
        *out = std::make_unique<File>(*this, path, std::move(*out));
        if (path.ends_with("/LOG")) return status;
        const std::lock_guard lock(guard_);
        files_[path] = {.synced = synced, .named = synced > 0};
        return status;
    }
    /// Counts an operation.
    bool alive() { return cut.fetch_sub(1) > 0; }
    static IOStatus gone() { return IOStatus::IOError("the power is off"); }
    std::uint64_t below(std::uint64_t n) {
        const std::lock_guard lock(random_guard_);
        return n == 0 ? 0 : random_() % n;
    }
    std::mutex guard_, random_guard_;
    std::map<std::string, State> files_;
    std::mt19937_64 random_;
};

mqtt::MessageRef message(const std::string& topic, const std::string& payload) {
    return mqtt::MessageRef(mqtt::Message::make({.topic = topic, .payload = payload, .properties = {}, .partition = {}, .has_partition = false, .retain = false, .qos = mqtt::Qos::exactly_once, .expires_at = 0, .publisher = 0}));
}

/// What must be there, kept beside the store; text() is equal exactly when everything is.
struct Model {
    struct Delivery {
        std::uint16_t id = 0;
        Step step{};
        std::string payload;
    };
    struct Client {
        std::map<std::string, int> subscriptions;
        std::set<std::uint16_t> incoming;
        std::deque<Delivery> in_flight;
        std::deque<std::string> queued;
    };
    std::map<std::string, Client> clients;
    std::map<std::string, std::string> retained, states;

    std::string text() const {
        std::string out;
        const auto brief = [](const std::string& payload) { return fmt::format("{}({})", payload.substr(0, payload.find('.')), payload.size()); };
        for (const auto& [id, c] : clients) {
            out += fmt::format("client {}:", id);
            for (const auto& [filter, qos] : c.subscriptions) out += fmt::format(" {}={}", filter, qos);
            out += " incoming";
            for (const auto n : c.incoming) out += fmt::format(" {}", n);
            out += " under way";
            for (const auto& d : c.in_flight) out += fmt::format(" {}:{}:{}", d.id, static_cast<int>(d.step), brief(d.payload));
            out += " queued";
            for (const auto& payload : c.queued) out += ' ' + brief(payload);
            out += '\n';
        }
        for (const auto& [topic, payload] : retained) out += fmt::format("retained {} {}\n", topic, brief(payload));
        for (const auto& [key, value] : states) out += fmt::format("state {} {}\n", key, value);
        return out;
    }
};

/// One life of the process on the disk.
struct Life final : Recovered {
    struct Client {
        std::unique_ptr<SessionStore> store;
        std::uint16_t last_id = 0;
    };
    std::unique_ptr<Durable> durable;
    std::unique_ptr<Engine> engine;
    Model model;
    std::map<std::string, Client> clients;
    std::uint64_t sequence = 0;
    std::string refused;

    /// `boot` empty: no mark is kept.
    Life(const std::string& folder, const std::shared_ptr<Disk>& disk, const KeyRing& keys = {}, int sync_interval_ms = 0, const std::string& boot = "") {
        auto opened = Durable::open({.folder = folder, .mark_file = boot.empty() ? "" : folder + ".mark", .boot = boot, .owner = "test/broker", .sync_interval_ms = sync_interval_ms, .free_min = 0, .retry_ms = 5, .keys = keys, .seal = !keys.keys.empty(), .file_system = disk});
        if (!opened) {
            refused = opened.error().message;
            return;
        }
        durable = std::move(*opened);
        engine = durable->engine(0, [] {});
        engine->recover([](std::string_view) { return true; }, *this);
        // There is no looking behind the head: what is queued is taken out, and put back under keys of its own in one batch.
        for (auto& [id, real] : clients) {
            std::vector<Queued> all;
            while (auto* next = real.store->next()) {
                model.clients.at(id).queued.emplace_back(next->message->view().payload);
                all.push_back({.message = next->message, .qos = next->qos, .subscription_ids = {}});
                real.store->drop_next();
            }
            for (auto& item : all) real.store->enqueue(std::move(item), false, 0);
        }
        durable->start();
    }
    ~Life() {
        if (durable) durable->stop();
        clients.clear();
        engine.reset();
    }
    void session(SessionRecord record) override { model.clients[record.client_id]; }
    void subscription(std::string_view client, std::string_view filter, const topics::Options& options, std::uint32_t) override { model.clients.at(std::string(client)).subscriptions[std::string(filter)] = options.qos; }
    void incoming(std::string_view client, std::uint16_t id) override { model.clients.at(std::string(client)).incoming.insert(id); }
    void seen(std::string_view, std::uint16_t, Portion) override {}
    void leaving(std::uint64_t, LeavingRecord) override {}
    void retained(const mqtt::MessageRef& m, std::uint64_t number) override { model.retained[std::string(m->view().topic)] = m->view().payload, sequence = std::max(sequence, number); }
    void state(std::string key, statestore::Entry entry) override { model.states[key] = entry.value; }
    void handed_on(std::string_view, std::vector<Share>, std::unique_ptr<SessionStore>) override { ADD_FAILURE() << "nothing was to go on"; }
    void queue(std::string_view client, std::unique_ptr<SessionStore> store, std::uint16_t last) override {
        auto& c = model.clients.at(std::string(client));
        store->for_each_in_flight([&](InFlight& d) { c.in_flight.push_back({d.packet_id, d.step, d.item.message ? std::string(d.item.message->view().payload) : ""}); });
        clients[std::string(client)] = {std::move(store), last};
    }

    /// One random change, to the store and to the model.
    void change(std::mt19937_64& random) {
        const auto pick = [&](std::uint64_t n) { return random() % n; };
        const auto id = fmt::format("c{}", pick(4));
        const auto payload = [&] { return fmt::format("{:x}", random()) + std::string(pick(3) == 0 ? 600 + pick(3000) : pick(60), '.'); };
        if (!model.clients.contains(id)) {
            engine->put_session({.client_id = id, .owner = {}, .expiry_interval = 0xFFFFFFFF, .keeps_queue = true, .will = {}});
            model.clients[id];
        }
        auto& real = clients[id];
        auto& c = model.clients[id];
        if (!real.store) real.store = engine->open_session(id, true);
        switch (pick(16)) {
            case 0: case 1: case 2: case 3: case 4: {
                const auto text = payload();
                const auto shared = message("t", text);
                real.store->enqueue({.message = shared, .qos = mqtt::Qos::exactly_once, .subscription_ids = {}}, false, 0);
                c.queued.push_back(text);
                for (auto& [other, o] : clients)   // one body for several
                    if (other != id && o.store && pick(2) == 0) o.store->enqueue({.message = shared, .qos = mqtt::Qos::at_least_once, .subscription_ids = {}}, false, 0), model.clients[other].queued.push_back(text);
                break;
            }
            case 5: case 6: case 7:
                if (auto* next = real.store->next(); next != nullptr && real.store->span() < 30) {
                    real.last_id = static_cast<std::uint16_t>(real.last_id == 65'535 ? 1 : real.last_id + 1);
                    const auto step = real.store->start_next(real.last_id).step;
                    c.in_flight.push_back({real.last_id, step, c.queued.front()});
                    c.queued.pop_front();
                }
                break;
            case 8: case 9: case 10:
                if (!c.in_flight.empty()) {
                    const auto at = static_cast<std::ptrdiff_t>(pick(c.in_flight.size()));
                    auto& d = c.in_flight[static_cast<std::size_t>(at)];
                    if (d.step == Step::wait_pubrec) real.store->advance(*real.store->find(d.id)), d.step = Step::wait_pubcomp, d.payload.clear();
                    else real.store->finish(d.id), c.in_flight.erase(c.in_flight.begin() + at);
                }
                break;
            case 11:
                if (real.store->next() != nullptr) real.store->drop_next(), c.queued.pop_front();
                break;
            case 12: {
                const auto n = static_cast<std::uint16_t>(1 + pick(9));
                if (c.incoming.insert(n).second) engine->put_incoming(id, n);
                else engine->erase_incoming(id, n), c.incoming.erase(n);
                const auto filter = fmt::format("f/{}", n);
                if (c.subscriptions.contains(filter)) engine->erase_subscription(id, filter), c.subscriptions.erase(filter);
                else engine->put_subscription(id, filter, {.qos = static_cast<std::uint8_t>(pick(3)), .no_local = false, .retain_as_published = false, .id = 0}), c.subscriptions[filter] = -1;
                if (c.subscriptions.contains(filter)) engine->put_subscription(id, filter, {.qos = 1, .no_local = false, .retain_as_published = false, .id = 0}), c.subscriptions[filter] = 1;
                break;
            }
            case 13: {
                const auto topic = fmt::format("r/{}", pick(5));
                const auto text = payload();
                if (pick(3) == 0) engine->erase_retained(topic), model.retained.erase(topic);
                else engine->put_retained(message(topic, text), ++sequence), model.retained[topic] = text;
                break;
            }
            case 14: {
                const auto key = fmt::format("k{}", pick(5));
                if (pick(3) == 0) engine->erase_state(key), model.states.erase(key);
                else engine->put_state(key, {.value = fmt::format("v{}", random()), .version = {.time = 1, .counter = 0, .node = "n"}, .fence = {}}), model.states[key].clear();
                if (model.states.contains(key)) engine->put_state(key, {.value = "w", .version = {.time = 2, .counter = 0, .node = "n"}, .fence = {}}), model.states[key] = "w";
                break;
            }
            default:
                if (pick(4) != 0) break;
                real.store->discard();
                engine->erase_session(id);
                clients.erase(id);
                model.clients.erase(id);
        }
    }
    std::uint64_t commit() const {
        static const std::vector<std::uint64_t> none{0};
        return engine->commit({.sent = none, .processed = none});
    }
};

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// The mark is never synced while the store runs: a power cut leaves it as it was at any time before, or torn.
void lose_mark(const std::string& path, const std::string& before, std::mt19937_64& random) {
    const auto read = [&] {
        std::ifstream in(path, std::ios::binary);
        return std::string{std::istreambuf_iterator<char>(in), {}};
    };
    auto now = read();
    if (now.empty() || random() % 3 == 0) return;
    if (random() % 2 == 0 && !before.empty()) now = before;
    else now.replace(random() % 2 * 512, std::min<std::size_t>(now.size(), 300), 300, '\0');
    std::ofstream(path, std::ios::binary | std::ios::trunc) << now;
}

/// A power cut at any moment, round after round. Sealed: with keys that change from life to life, and files under several of them.
void cut_the_power(const bool sealed) {
    const auto folder = (fs::temp_directory_path() / ("penstock-cut-" + random_uuid())).string();
    const auto seed = setting("PENSTOCK_FAULT_SEED", 1), rounds = setting("PENSTOCK_FAULT_ROUNDS", 150);
    KeyRing keys;
    std::mt19937_64 random(seed);
    std::map<std::uint64_t, std::string> possible{{0, ""}};   // by ticket
    std::uint64_t acknowledged_batches = 0, cuts = 0;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        const auto disk = std::make_shared<Disk>(random());
        if (sealed && keys.keys.empty()) keys.add("first");
        disk->cut = static_cast<std::int64_t>(random() % (round % 4 == 0 ? 30 : 400));
        std::uint64_t acknowledged = 0;
        std::ifstream mark(folder + ".mark", std::ios::binary);
        const std::string mark_before{std::istreambuf_iterator<char>(mark), {}};
        {
            if (sealed && random() % 10 == 0) keys.add("test");
            Life life(folder, disk, keys, 0, fmt::format("boot-{}", round));
            if (!life.durable) {
                ASSERT_TRUE(disk->dead()) << "round " << round << " of seed " << seed << ": " << life.refused;
            }
            if (life.durable) {
                ASSERT_EQ(life.durable->figures().notice, "") << "round " << round << " of seed " << seed;
                const auto found = life.model.text();
                bool known = false;
                for (const auto& [ticket, text] : possible) known |= text == found;
                ASSERT_TRUE(known) << "round " << round << " of seed " << seed << ", found:\n" << found << "\nthe oldest that would do:\n" << possible.begin()->second << "\nthe newest:\n" << possible.rbegin()->second;
                possible = {{0, found}};
                // Nothing is written where recovery left nothing to do: then there is no ticket to wait for.
                if (const auto ticket = life.commit(); ticket != 0) possible[ticket] = found;
                for (int turn = 0; turn < 400 && !disk->dead(); ++turn) {
                    for (auto changes = random() % 8; changes > 0; --changes) life.change(random);
                    if (const auto ticket = life.commit(); ticket != 0) possible[ticket] = life.model.text();
                    if (random() % 3 != 0)
                        while (life.engine->durable() < possible.rbegin()->first && !disk->dead()) std::this_thread::yield();
                }
                disk->cut = std::min<std::int64_t>(disk->cut, 0);
                acknowledged = life.engine->durable();
            }
        }
        disk->lose();
        lose_mark(folder + ".mark", mark_before, random);
        ++cuts;
        acknowledged_batches += acknowledged;
        possible.erase(possible.begin(), possible.lower_bound(acknowledged));
        ASSERT_FALSE(possible.empty());
    }
    fs::remove_all(folder);
    fs::remove(folder + ".mark");
    ::testing::Test::RecordProperty("cuts", std::to_string(cuts));
    ::testing::Test::RecordProperty("batches", std::to_string(acknowledged_batches));
    EXPECT_GT(acknowledged_batches, rounds);
}

/// After a power cut the store is as it was after one of the batches, and none that was acknowledged is missing. A cut alone is
/// no damage: nothing is set aside. PENSTOCK_FAULT_ROUNDS and PENSTOCK_FAULT_SEED set how many and which.
TEST(DurableFaults, a_power_cut_loses_nothing_acknowledged) { cut_the_power(false); }
TEST(DurableFaults, a_power_cut_loses_nothing_acknowledged_of_sealed_files) { cut_the_power(true); }

/// A process that ends while the disk takes nothing acknowledges nothing of what it could not write.
TEST(DurableFaults, an_end_without_a_disk_acknowledges_nothing) {
    const auto folder = (fs::temp_directory_path() / ("penstock-end-" + random_uuid())).string();
    {
        const auto disk = std::make_shared<Disk>(1);
        Life life(folder, disk);
        ASSERT_TRUE(life.durable);
        life.commit();
        life.engine->put_retained(message("t", "on the disk"), 1);
        const auto first = life.commit();
        while (life.engine->durable() < first) std::this_thread::yield();
        disk->cut = 0;
        life.engine->put_retained(message("t", "on its way"), 2);
        ASSERT_GT(life.commit(), first);
        while (life.durable->figures().fault.empty()) std::this_thread::yield();
        life.durable->stop();
        EXPECT_EQ(life.engine->durable(), first);
    }
    fs::remove_all(folder);
}

/// What was not synced may come back with zeros where a record began, and all after it as it was. RocksDB passes over such a place
/// up to its next block of 32 KiB, and where a record begins just there it would go on: with what came later, and not with what came before.
TEST(DurableFaults, a_hole_in_the_log_ends_it) {
    const auto folder = (fs::temp_directory_path() / ("penstock-hole-" + random_uuid())).string(), image = folder + "-image";
    constexpr std::uint64_t block = 32'768;
    std::string before, between;
    {
        Life life(folder, std::make_shared<Disk>(1), {}, 60'000);   // what comes after the first batch is written and not synced
        ASSERT_TRUE(life.durable);
        const auto log = [&] {
            fs::path newest;
            for (const auto& entry : fs::directory_iterator(folder))
                if (entry.path().extension() == ".log" && (newest.empty() || entry.path() > newest)) newest = entry.path();
            return newest;
        };
        const auto keep = [&](const std::string& topic, std::size_t size) {
            const auto old = fs::file_size(log());
            life.engine->put_retained(message(topic, std::string(size, 'x')), ++life.sequence);
            life.model.retained[topic] = std::string(size, 'x');
            const auto ticket = life.commit();
            while (life.engine->durable() < ticket) std::this_thread::yield();
            return fs::file_size(log()) - old;
        };
        keep("first", 10);
        // How much a record has beside its payload, to end one exactly at the end of a block.
        const auto rest = keep("a", 20'000) - 20'000;
        keep("begins a block", 12'500);
        before = life.model.text();
        const auto hole = fs::file_size(log());
        const auto payload = block - hole % block - rest;
        ASSERT_GT(payload, 20'000u) << "else lengths have fewer bytes";
        keep("b", payload);
        ASSERT_EQ(fs::file_size(log()) % block, 0u);
        keep("c", 100);
        fs::copy(folder, image);
        std::fstream(fs::path(image) / log().filename(), std::ios::in | std::ios::out | std::ios::binary).seekp(static_cast<std::streamoff>(hole)).write(std::string(512, '\0').data(), 512);
    }
    {
        const Life after(image, std::make_shared<Disk>(2));
        ASSERT_TRUE(after.durable);
        EXPECT_EQ(after.model.text(), before);
        EXPECT_EQ(after.durable->figures().notice, "") << "none of it was synced";
    }
    fs::remove_all(folder);
    fs::remove_all(image);
}

/// RocksDB reads a log by blocks of 32 KiB. Where a piece in the middle of a block does not open, the pieces before it in the same
/// block are read all the same: they may have been synced and acknowledged.
TEST(DurableFaults, a_torn_piece_of_a_sealed_log_costs_nothing_before_it) {
    const auto folder = (fs::temp_directory_path() / ("penstock-torn-" + random_uuid())).string(), image = folder + "-image";
    KeyRing keys;
    keys.add("test");
    std::string before;
    {
        Life life(folder, std::make_shared<Disk>(1), keys, 60'000);   // what comes after the first batch is written and not synced
        ASSERT_TRUE(life.durable);
        const auto log = [&] {
            fs::path newest;
            for (const auto& entry : fs::directory_iterator(folder))
                if (entry.path().extension() == ".log" && (newest.empty() || entry.path() > newest)) newest = entry.path();
            return newest;
        };
        const auto keep = [&](const std::string& topic, std::size_t size) {
            life.engine->put_retained(message(topic, std::string(size, 'x')), ++life.sequence);
            life.model.retained[topic] = std::string(size, 'x');
            const auto ticket = life.commit();
            while (life.engine->durable() < ticket) std::this_thread::yield();
            return fs::file_size(log());
        };
        keep("first", 10);
        const auto torn = keep("second", 100);
        before = life.model.text();
        const auto end = keep("torn", 5'000);
        ASSERT_GT(end, torn + 5'000);
        keep("behind it", 100);
        fs::copy(folder, image);
        std::fstream bytes(fs::path(image) / log().filename(), std::ios::in | std::ios::out | std::ios::binary);
        bytes.seekp(static_cast<std::streamoff>(torn + 2'000)).write(std::string(512, '\0').data(), 512);   // behind the length
    }
    {
        const Life after(image, std::make_shared<Disk>(2), keys);
        ASSERT_TRUE(after.durable) << after.refused;
        EXPECT_EQ(after.model.text(), before);
        EXPECT_EQ(after.durable->figures().notice, "") << "none of it was synced";
    }
    fs::remove_all(folder);
    fs::remove_all(image);
}

/// An fsync that fails says that nobody knows what is on the disk: no acknowledgement until a later one succeeded, and then all of it.
TEST(DurableFaults, syncs_that_fail_hold_back_acknowledgements_and_pass) {
    for (const int failures : {1, 2, 7}) {
        const auto folder = (fs::temp_directory_path() / ("penstock-eio-" + random_uuid())).string();
        std::string must;
        const auto disk = std::make_shared<Disk>(7);
        {
            std::mt19937_64 random(static_cast<std::uint64_t>(failures));
            Life life(folder, disk);
            ASSERT_TRUE(life.durable);
            for (int turn = 0; turn < 30; ++turn) {
                if (turn % 10 == 5) disk->failing_syncs = failures;
                for (int n = 0; n < 5; ++n) life.change(random);
                const auto ticket = life.commit();
                for (const auto end = monotonic_ms() + 20'000; life.engine->durable() < ticket && monotonic_ms() < end;) std::this_thread::yield();
                ASSERT_GE(life.engine->durable(), ticket) << "after " << failures << " failed syncs: " << life.durable->figures().fault;
            }
            EXPECT_GE(life.durable->figures().writes_failed, 1u);
            EXPECT_EQ(life.engine->fault(), nullptr);
            must = life.model.text();
            disk->cut = 0;
        }
        disk->lose();
        {
            const Life after(folder, std::make_shared<Disk>(8));
            ASSERT_TRUE(after.durable);
            EXPECT_EQ(after.model.text(), must);
        }
        fs::remove_all(folder);
    }
}

}  // namespace
}  // namespace penstock::store
