#include "store/durable.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "io/poller.h"
#include "store/memory_session.h"
#include "store/record.h"
#include "store/sealed_files.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr int format_version = 1;        // frozen with record.h, see docs/internals/formats.md
constexpr std::size_t shared_body_min = 512;             // bytes from which on a message is kept once for all its receivers
constexpr std::int64_t measure_ms = 2000;
constexpr const char* clock_mark = "Mclock";
constexpr std::int64_t clock_ms = 10'000, jump_ms = 30'000;
constexpr std::int64_t census_ms = 30'000, settle_ms = 500;
constexpr std::uint64_t tracked = std::uint64_t{1} << 63;   // bit of a key: its delivery has a record of its own

/// Keys: one letter, the client id with its length, then what tells apart. Big-endian, so that order is order.
std::string client_key(char kind, std::string_view client_id) {
    std::string out(1, kind);
    out += static_cast<char>(client_id.size() >> 8);
    out += static_cast<char>(client_id.size());
    out += client_id;
    return out;
}
void append_u64(std::string& out, std::uint64_t number) {
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(number >> shift);
}
std::uint64_t read_u64(std::string_view bytes) {
    std::uint64_t out = 0;
    for (const char c : bytes.substr(0, 8)) out = out << 8 | static_cast<unsigned char>(c);
    return out;
}
std::string number_key(char kind, std::uint64_t number) {
    std::string out(1, kind);
    append_u64(out, number);
    return out;
}
/// The client id of a key, and what stands behind it.
std::string_view client_of(std::string_view key, std::string_view& rest) {
    const auto size = static_cast<std::size_t>(static_cast<unsigned char>(key[1])) << 8 | static_cast<unsigned char>(key[2]);
    rest = key.substr(3 + size);
    return key.substr(3, size);
}

/// The client id of a key with its length in front.
std::string_view client_part(std::string_view key) {
    std::string_view rest;
    const auto client = client_of(key, rest);
    return key.substr(1, client.size() + 2);
}

/// Clients in the order of their keys. What is kept of them stands in the same order, so that going along is cheaper than looking up.
class Clients {
  public:
    void add(std::string_view key) { all_.emplace_back(client_part(key)); }
    /// Before the keys of another kind.
    void rewind() noexcept { at_ = 0; }
    /// Keys come in order.
    bool has(std::string_view key) {
        const auto client = client_part(key);
        while (at_ < all_.size() && all_[at_] < client) ++at_;
        return at_ < all_.size() && all_[at_] == client;
    }

  private:
    std::vector<std::string> all_;
    std::size_t at_ = 0;
};

std::string_view view_of(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }
rocksdb::Slice slice_of(std::string_view text) { return {text.data(), text.size()}; }

/// What one worker hands in at the end of a turn.
struct Submission {
    std::uint32_t worker = 0;
    std::uint64_t ticket = 0;            ///< 0: only tells which mail was processed
    rocksdb::WriteBatch batch;
    std::vector<std::uint64_t> sent, processed;
    Submission* next = nullptr;
};

class Store;

class DurableEngine final : public Engine {
  public:
    DurableEngine(Store& store, std::uint32_t worker, OverflowLane* overflow) : store_(store), worker_(worker), overflow_(overflow) {}
    ~DurableEngine() override;
    bool is_durable() const noexcept override { return true; }
    std::unique_ptr<SessionStore> open_session(std::string_view client_id, bool kept) override;
    void put_session(const SessionRecord& record) override { put(client_key('S', record.client_id), encode_session(record, offset())); }
    void erase_session(std::string_view client_id) override {
        batch_.Delete(client_key('S', client_id));
        for (const char kind : {'s', 'i', 'q', 'f'}) {
            auto begin = client_key(kind, client_id), end = begin;
            // Behind every key of this client and before those of the next: client ids have their length in front.
            end += std::string(9, '\xFF');
            batch_.DeleteRange(begin, end);
        }
        dirty_ = true;
    }
    void put_subscription(std::string_view client_id, std::string_view filter, const topics::Options& options) override { put(client_key('s', client_id) + std::string(filter), encode_options(options)); }
    void erase_subscription(std::string_view client_id, std::string_view filter) override { erase(client_key('s', client_id) + std::string(filter)); }
    void put_incoming(std::string_view client_id, std::uint16_t packet_id) override { put(incoming_key(client_id, packet_id), ""); }
    void erase_incoming(std::string_view client_id, std::uint16_t packet_id) override { erase(incoming_key(client_id, packet_id)); }
    void put_seen(std::string_view publisher, std::uint16_t packet_id) override { put(seen_key(publisher, packet_id), ""); }
    void erase_seen(std::string_view publisher, std::uint16_t packet_id) override { erase(seen_key(publisher, packet_id)); }
    std::uint64_t next_ticket() const noexcept override { return ticket_ + 1; }
    void put_state(const std::string& key, const statestore::Entry& entry) override { put("k" + key, encode_state(entry, offset())); }
    void erase_state(const std::string& key) override { erase("k" + key); }
    void put_retained(const mqtt::MessageRef& message, std::uint64_t sequence) override {
        std::string value;
        append_u64(value, sequence);
        put("r" + std::string(message->view().topic), value + encode_message(message->view(), offset()));
    }
    void erase_retained(std::string_view topic) override { erase("r" + std::string(topic)); }
    std::uint64_t commit(const MailCounts& mails) override;
    std::uint64_t durable() const noexcept override { return durable_.load(std::memory_order_acquire); }
    const char* fault() const noexcept override;
    void recover(const std::function<bool(std::string_view)>& mine, Recovered& into) override;

    // for the session stores
    void put(const std::string& key, std::string_view value) {
        batch_.Put(key, slice_of(value));
        dirty_ = true;
    }
    void erase(const std::string& key) {
        batch_.Delete(key);
        dirty_ = true;
    }
    std::uint64_t next_key() noexcept;
    /// The store's clock minus the monotonic one, ms.
    [[nodiscard]] std::int64_t offset() const noexcept;
    /// Number of the message's body in the store, one reference more; 0: small enough to stand with each receiver. Receivers of one
    /// message come one after the other, so remembering the last one is enough to share it.
    std::uint64_t hold_body(const mqtt::MessageRef& message);
    void drop_body(std::uint64_t number);

  private:
    friend class Store;
    static std::string incoming_key(std::string_view client_id, std::uint16_t packet_id) { return id_key('i', client_id, packet_id); }
    /// By worker: it is this worker's sessions that have the message.
    std::string seen_key(std::string_view publisher, std::uint16_t packet_id) const { return id_key('d', std::string(1, static_cast<char>(worker_)) + std::string(publisher), packet_id); }
    static std::string id_key(char kind, std::string_view client_id, std::uint16_t packet_id) {
        auto out = client_key(kind, client_id);
        out += static_cast<char>(packet_id >> 8);
        out += static_cast<char>(packet_id);
        return out;
    }
    Store& store_;
    std::uint32_t worker_;
    OverflowLane* overflow_;
    rocksdb::WriteBatch batch_;
    bool dirty_ = false;
    std::uint64_t ticket_ = 0;
    std::atomic<std::uint64_t> durable_{0};
    std::function<void()> wake_;
    std::unordered_map<std::uint64_t, std::uint32_t> bodies_;      ///< references by number
    mqtt::MessageRef last_;                                        ///< of this turn; held, so that its address names nothing else
    std::uint64_t last_body_ = 0;
};

/// A session's queue that is written as it changes: `q` records are messages, `f` records deliveries that went on.
class DurableSession final : public MemorySessionStore {
  public:
    DurableSession(DurableEngine& engine, std::string_view client_id, OverflowLane* overflow) : MemorySessionStore(client_id, overflow), engine_(engine) {}
    ~DurableSession() override = default;

    void enqueue(Queued item, bool may_overflow, std::int64_t now) override {
        if (item.qos != mqtt::Qos::at_most_once) write(item, 0);
        MemorySessionStore::enqueue(std::move(item), may_overflow, now);
    }
    InFlight& start_next(std::uint16_t packet_id) override {
        auto& entry = MemorySessionStore::start_next(packet_id);
        const auto key = entry.item.key;
        if (key == 0) {   // queued before the session was kept, and on the overflow's disk when it became so
            write(entry.item, packet_id);
            entry.key = entry.item.key;
            return entry;
        }
        entry.key = key | tracked;
        engine_.put(key_of('f', key), encode_delivery(packet_id, entry.step));
        return entry;
    }
    InFlight& start(Queued item, std::uint16_t packet_id) override {
        write(item, packet_id);
        const auto key = item.key;
        auto& entry = MemorySessionStore::start(std::move(item), packet_id);
        entry.key = key;
        return entry;
    }
    void advance(InFlight& entry) override {
        release(entry.key, entry.item.body);
        engine_.put(key_of('f', entry.key), encode_delivery(entry.packet_id, Step::wait_pubcomp));
        entry.key |= tracked;
        MemorySessionStore::advance(entry);
    }
    void finish(std::uint16_t packet_id) override {
        if (auto* entry = find(packet_id); entry != nullptr) {
            if (entry->item.message) release(entry->key, entry->item.body);
            if ((entry->key & tracked) != 0) engine_.erase(key_of('f', entry->key));
        }
        MemorySessionStore::finish(packet_id);
    }
    void discard() override {
        for_each_item([&](const Queued& item) { engine_.drop_body(item.body); });
    }
    void restore_queued(Queued item, std::int64_t now) {
        const bool overflows = overflow() != nullptr && overflow()->is_wanted();
        if (overflows && !overflow()->has_room()) overflow()->wait_for_disk();
        MemorySessionStore::enqueue(std::move(item), overflows, now);
    }
    void restore_in_flight(InFlight entry) { restore(std::move(entry)); }

  protected:
    void on_gone(const Queued& item) override {
        if (item.key != 0) release(item.key, item.body);
    }
    void on_taken(Queued& item) override { write(item, 0); }
    void on_taken(InFlight& entry) override {
        if (entry.item.message) {
            write(entry.item, entry.packet_id);
            entry.key = entry.item.key;
        } else {
            entry.key = engine_.next_key() | tracked;
            engine_.put(key_of('f', entry.key), encode_delivery(entry.packet_id, entry.step));
        }
    }

  private:
    std::string key_of(char kind, std::uint64_t key) const {
        auto out = client_key(kind, client_id());
        append_u64(out, key & ~tracked);
        return out;
    }
    void write(Queued& item, std::uint16_t packet_id) {
        item.key = engine_.next_key();
        item.body = engine_.hold_body(item.message);
        engine_.put(key_of('q', item.key), encode_queued(item, packet_id, item.body, engine_.offset()));
    }
    void release(std::uint64_t key, std::uint64_t body) {
        engine_.erase(key_of('q', key));
        engine_.drop_body(body);
    }
    DurableEngine& engine_;
};

class Store final : public Durable {
  public:
    explicit Store(DurableOptions options) : options_(std::move(options)), engines_(options_.workers), written_processed_(options_.workers, std::vector<std::uint64_t>(options_.workers)), waiting_(options_.workers) {
        sync_interval_ms_ = options_.sync_interval_ms;
        size_max_ = options_.size_max;
    }
    ~Store() override { stop(); }

    Result<void> open() {
        std::error_code error;
        fs::create_directories(options_.folder, error);
        if (error) return fail(fmt::format("{}: cannot be made: {}", options_.folder, error.message()));
        fs::permissions(options_.folder, fs::perms::owner_all, error);
        auto& rules = rules_;
        sealed_ = SealedFiles::make(options_.file_system);
        sealed_->set(options_.keys, options_.seal);
        env_ = rocksdb::NewCompositeEnv(sealed_->files());
        rules.env = env_.get();
        // Before anything else: a key that is missing is no damage, and nothing is to be repaired.
        if (const auto counted = sealed_->census(options_.folder); !counted) return std::unexpected(counted.error());
        rules.create_if_missing = true;
        rules.write_buffer_size = 16 << 20;
        rules.max_write_buffer_number = 3;
        rules.max_open_files = 256;
        rules.keep_log_file_num = 2;
        rules.max_background_jobs = 2;
        rules.paranoid_checks = true;
        rules.compression = rocksdb::kNoCompression;
        rules.max_total_wal_size = 128 << 20;
        rules.info_log_level = rocksdb::WARN_LEVEL;
        // The end of the log that a crash tore off was never acknowledged; anything else that is damaged is an error.
        rules.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
        rocksdb::DB* db = nullptr;
        auto status = rocksdb::DB::Open(rules, options_.folder, &db);
        if (status.IsCorruption()) {
            notice_ = fmt::format("{} was damaged ({}); what could be read was kept, the rest was set aside in {}/lost", options_.folder, status.ToString(), options_.folder);
            log::error("store", "{}", notice_);
            if (const auto repaired = rocksdb::RepairDB(options_.folder, rules); !repaired.ok()) return fail(fmt::format("{}: damaged and not to be repaired: {}; restore a backup, or move the folder away to begin anew", options_.folder, repaired.ToString()));
            status = rocksdb::DB::Open(rules, options_.folder, &db);
        }
        if (!status.ok()) return fail(fmt::format("{}: {}; is another penstock running on it, the disk full or read-only?", options_.folder, status.ToString()));
        db_.reset(db);
        std::string format, owner;
        if (db_->Get({}, "Mformat", &format).ok()) {
            if (format != std::to_string(format_version)) return fail(fmt::format("{}: written in format {}, this penstock reads {}; use the version that wrote it", options_.folder, format, format_version));
            if (db_->Get({}, "Mowner", &owner).ok() && owner != options_.owner) return fail(fmt::format("{}: holds the state of Broker {}, not of {}; name the Broker as it was, or move the folder away", options_.folder, owner, options_.owner));
        } else {
            const std::unique_ptr<rocksdb::Iterator> any(db_->NewIterator({}));
            any->SeekToFirst();
            if (any->Valid() || !any->status().ok()) return fail(fmt::format("{}: it has data but no format mark; it was not written by penstock, or its mark was lost", options_.folder));
            rocksdb::WriteOptions synced;
            synced.sync = true;
            rocksdb::WriteBatch first;
            first.Put("Mformat", std::to_string(format_version));
            first.Put("Mowner", options_.owner);
            if (const auto made = db_->Write(synced, &first); !made.ok()) return fail(fmt::format("{}: {}", options_.folder, made.ToString()));
        }
        set_clock();
        std::string workers;
        workers_changed_ = !db_->Get({}, "Mworkers", &workers).ok() || workers != std::to_string(options_.workers);
        sweep();
        return {};
    }

    /// Times are kept by a clock of the store's own: it goes on as the monotonic clock does while the process runs, whatever becomes of
    /// the wall clock, and over the time in between by what the wall clock says has passed, but never back. A box that starts in 1970
    /// and is told the year later ends nothing by it.
    void set_clock() {
        const auto wall = options_.wall();
        std::string mark;
        std::int64_t then = wall, then_wall = wall;
        if (db_->Get({}, clock_mark, &mark).ok()) {
            const auto words = split(mark, ' ');
            then = parse_number<std::int64_t>(words.front()).value_or(wall);
            then_wall = parse_number<std::int64_t>(words.back()).value_or(wall);
        }
        shift_ = then + std::max<std::int64_t>(0, wall - then_wall) - monotonic_ms();
        write_clock();
    }
    rocksdb::Status write_clock() {
        const auto now = monotonic_ms(), wall = options_.wall();
        wall_offset_ = wall - now;
        next_clock_ = now + clock_ms;
        return db_->Put({}, clock_mark, fmt::format("{} {}", now + shift_, wall));
    }
    /// The wall clock was set.
    [[nodiscard]] bool clock_jumped() const { return std::abs(options_.wall() - monotonic_ms() - wall_offset_) > jump_ms; }

    /// Finds the newest key, and removes what nothing refers to: bodies without a queue, parts of sessions that are gone.
    void sweep() {
        std::uint64_t keys = 0;
        // Everything is looked at once here and once by each worker.
        if (options_.progress && db_->GetIntProperty("rocksdb.estimate-num-keys", &keys)) options_.progress->expected = std::max<std::uint64_t>(1, keys * (1 + options_.workers));
        std::unordered_map<std::uint64_t, bool> needed;
        Clients sessions;
        std::uint64_t newest = 0;
        rocksdb::WriteBatch orphans;
        const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator({}));
        std::string_view rest;
        for (at->Seek("S"); at->Valid() && at->key().starts_with("S"); at->Next()) sessions.add(view_of(at->key()));
        for (const char kind : {'s', 'i', 'q', 'f'}) {
            sessions.rewind();
            for (at->Seek(std::string(1, kind)); at->Valid() && at->key().starts_with(std::string(1, kind)); at->Next()) {
                looked_at();
                if (!sessions.has(view_of(at->key()))) {
                    orphans.Delete(at->key());
                    continue;
                }
                if (kind == 's' || kind == 'i') continue;
                client_of(view_of(at->key()), rest);
                newest = std::max(newest, read_u64(rest));
                Queued item;
                std::uint16_t packet_id = 0;
                std::uint64_t body = 0;
                if (kind == 'q' && decode_queued(view_of(at->value()), item, packet_id, body, 0) && body != 0) needed[body] = true;
            }
        }
        for (at->Seek("m"); at->Valid() && at->key().starts_with("m"); at->Next()) {
            const auto number = read_u64(view_of(at->key()).substr(1));
            newest = std::max(newest, number);
            if (!needed.contains(number)) orphans.Delete(at->key());
        }
        if (orphans.Count() > 0) [[maybe_unused]] const auto written = db_->Write({}, &orphans);
        next_key = newest + 1;
    }

    std::unique_ptr<Engine> engine(std::uint32_t worker, std::function<void()> wake, OverflowLane* overflow) override {
        auto out = std::make_unique<DurableEngine>(*this, worker, overflow);
        out->wake_ = std::move(wake);
        engines_[worker] = out.get();
        return out;
    }
    bool is_empty() const override {
        const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator({}));
        at->SeekToFirst();
        while (at->Valid() && at->key().starts_with("M")) at->Next();
        return !at->Valid() && at->status().ok();
    }
    void start() override {
        retained_ = {};
        figures_.recovery_seconds = static_cast<double>(monotonic_ms() - opened_at_) / 1000;   // no thread is there yet
        if (workers_changed_) {
            rocksdb::WriteBatch mark;
            mark.Put("Mworkers", std::to_string(options_.workers));
            [[maybe_unused]] const auto written = db_->Write({}, &mark);   // the next batch's sync covers it
        }
        thread_ = std::thread([this] { run(); });
    }
    void stop() override {
        if (stopping_.exchange(true)) return;
        signal();
        if (thread_.joinable()) thread_.join();
        if (!rewriter_.joinable()) return;
        if (db_) db_->DisableManualCompaction();   // the rest is rewritten after the next start
        rewriter_.join();
    }
    Figures figures() const override {
        const std::lock_guard lock(guard_);
        auto out = figures_;
        if (rewrite_wanted_ || rewrite_ != Rewrite::none) out.files_to_rewrite = std::max<std::size_t>(out.files_to_rewrite, 1);   // until all is counted anew
        out.notice = notice_;
        const char* why = fault_.load();
        out.fault = why != nullptr ? fmt::format("{}{}{}", why, last_error_.empty() ? "" : ": ", last_error_) : "";
        return out;
    }
    void set_keys(KeyRing keys, bool seal) override {
        const std::lock_guard lock(guard_);
        const auto id_of = [](const KeyRing& ring, bool seals) { return seals && !ring.keys.empty() ? ring.keys.back().id : 0u; };
        const bool changed = id_of(options_.keys, options_.seal) != id_of(keys, seal);
        sealed_->set(keys, seal);
        options_.keys = std::move(keys);
        options_.seal = seal;
        if (changed) {
            figures_.files_to_rewrite = std::max<std::size_t>(figures_.files_to_rewrite, 1);   // until it is counted
            rewrite_wanted_ = true;
        }
        signal();
    }
    void set_limits(int sync_interval_ms, std::int64_t size_max) override {
        sync_interval_ms_ = sync_interval_ms;
        size_max_ = size_max;
    }
    Result<void> copy_to(const std::string& folder) override {
        const std::lock_guard lock(reopening_);
        if (!db_) return fail("the disk does not take writes");
        rocksdb::Checkpoint* made = nullptr;
        if (const auto status = rocksdb::Checkpoint::Create(db_.get(), &made); !status.ok()) return fail(status.ToString());
        const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
        if (const auto status = checkpoint->CreateCheckpoint(folder); !status.ok()) return fail(fmt::format("{}: {}", folder, status.ToString()));
        return {};
    }

    // for the engines
    void submit(Submission* submission) {
        auto* head = submitted_.load(std::memory_order_relaxed);
        do submission->next = head;
        while (!submitted_.compare_exchange_weak(head, submission, std::memory_order_release, std::memory_order_relaxed));
        if (head == nullptr) signal();
    }
    [[nodiscard]] const char* fault() const noexcept { return fault_.load(std::memory_order_relaxed); }
    [[nodiscard]] rocksdb::DB& db() noexcept { return *db_; }
    std::atomic<std::uint64_t> next_key{1};
    void forget(std::uint32_t worker) { engines_[worker] = nullptr; }
    /// One record more of a start.
    void looked_at() noexcept {
        if (options_.progress) options_.progress->records.fetch_add(1, std::memory_order_relaxed);
    }
    [[nodiscard]] std::int64_t shift() const noexcept { return shift_; }
    [[nodiscard]] bool workers_changed() const noexcept { return workers_changed_; }
    template <class Read>
    const std::vector<std::pair<mqtt::MessageRef, std::uint64_t>>& retained(Read&& read) {
        const std::lock_guard lock(guard_);
        if (!retained_) retained_ = read();
        return *retained_;
    }

  private:
    void signal() { poller_.wake(); }

    void run() {
        std::vector<Submission*> group;
        while (true) {
            rewrite();
            auto* list = submitted_.exchange(nullptr, std::memory_order_acquire);
            if (list == nullptr) {
                if (stopping_) break;
                measure();
                poller_.wait(static_cast<int>(std::clamp<std::int64_t>(next_census_ - monotonic_ms(), 10, measure_ms)));
                continue;
            }
            for (auto* s = list; s != nullptr; s = s->next) group.push_back(s);
            std::ranges::reverse(group);   // the list is newest first
            write(group);
            for (auto* s : group) settle(*s);
            for (auto* s : group) delete s;
            group.clear();
            release();
            measure();
        }
    }

    /// Writes and syncs a group; goes on trying until the disk takes it. What is handed in meanwhile waits.
    void write(const std::vector<Submission*>& group) {
        std::uint64_t bytes = 0;
        bool any = false;
        for (const auto* s : group) bytes += s->batch.Count() > 0 ? s->batch.GetDataSize() : 0, any |= s->batch.Count() > 0;
        if (!any) return;
        for (bool first = true;; first = false) {
            auto status = db_ ? rocksdb::Status::OK() : reopen();
            if (status.ok() && (monotonic_ms() >= next_clock_ || clock_jumped())) status = write_clock();
            for (auto* s : group) {
                if (!status.ok()) break;
                if (s->batch.Count() > 0) status = db_->Write({}, &s->batch);   // the same batch again changes nothing
            }
            const auto now = monotonic_ms();
            const auto interval = sync_interval_ms_.load();
            bool synced = false;
            if (status.ok() && (interval == 0 || now >= next_sync_)) {
                status = db_->FlushWAL(true);
                next_sync_ = now + interval;
                synced = true;
            }
            if (status.ok()) {
                const std::lock_guard lock(guard_);
                figures_.syncs += synced;
                figures_.batches += group.size();
                figures_.bytes_written += bytes;
                if (!first || fault_.load() == failing) {
                    fault_ = nullptr;
                    last_error_.clear();
                    log::info("store", "the disk takes writes again folder={}", options_.folder);
                }
                return;
            }
            {
                const std::lock_guard lock(guard_);
                ++figures_.writes_failed;
                last_error_ = status.ToString();
                if (first) log::error("store", "the disk does not take writes; acknowledgements wait, it is tried again each second folder={} why=\"{}\"", options_.folder, last_error_);
            }
            fault_ = failing;
            if (stopping_) return;
            poller_.wait(static_cast<int>(options_.retry_ms));
            // After a failed sync nobody knows what of the log is on disk: unless RocksDB can go on by itself, the files are read anew.
            if (db_ && !db_->Resume().ok()) {
                const std::lock_guard lock(reopening_);
                db_.reset();
            }
        }
    }
    rocksdb::Status reopen() {
        const std::lock_guard lock(reopening_);
        rocksdb::DB* db = nullptr;
        const auto status = rocksdb::DB::Open(rules_, options_.folder, &db);
        db_.reset(db);
        return status;
    }

    /// Gives all files the key that is in force. Log and manifest get it by being begun anew, tables by being compacted, which takes
    /// its time and has a thread of its own.
    void rewrite() {
        if (rewrite_ == Rewrite::done) {
            rewriter_.join();
            rewrite_ = Rewrite::none;
            const std::lock_guard lock(guard_);
            next_census_ = monotonic_ms() + (figures_.rewriting_fault.empty() ? settle_ms : census_ms);   // files that are not needed any more go a moment later
        }
        if (rewrite_ == Rewrite::running || stopping_ || !db_ || fault_.load() != nullptr) return;
        bool wanted = rewrite_wanted_.exchange(false);
        if (!wanted && monotonic_ms() >= next_census_) {
            next_census_ = monotonic_ms() + census_ms;
            wanted = count_files() > 0;
        }
        if (!wanted) return;
        {
            const std::lock_guard lock(reopening_);
            db_.reset();
        }
        if (!reopen().ok()) return;   // the next write tries again
        // Something to flush, so that the logs before this one are not needed any more.
        if (!db_->Put({}, "Mrewritten", std::to_string(wall_ms())).ok()) return;
        rewrite_ = Rewrite::running;
        rewriter_ = std::thread([this] {
            rocksdb::Status status;
            {
                const std::lock_guard lock(reopening_);
                rocksdb::CompactRangeOptions all;
                all.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
                if (db_) status = db_->CompactRange(all, nullptr, nullptr);
            }
            {
                const std::lock_guard lock(guard_);
                figures_.rewriting_fault = status.ok() || status.IsShutdownInProgress() ? "" : status.ToString();
            }
            rewrite_ = Rewrite::done;
            signal();
        });
    }
    std::size_t count_files() {
        const auto counted = sealed_->census(options_.folder);
        const std::lock_guard lock(guard_);
        const auto wanted = options_.seal && !options_.keys.keys.empty() ? options_.keys.keys.back().id : 0u;
        figures_.files = figures_.files_to_rewrite = 0;
        if (!counted) figures_.rewriting_fault = counted.error().message;
        else
            for (const auto& [id, count] : *counted) figures_.files += count, figures_.files_to_rewrite += id == wanted ? 0 : count;
        return figures_.files_to_rewrite;
    }

    void settle(Submission& s) {
        for (std::size_t from = 0; from < s.processed.size(); ++from) written_processed_[s.worker][from] = std::max(written_processed_[s.worker][from], s.processed[from]);
        if (s.ticket != 0) waiting_[s.worker].push_back({s.ticket, std::move(s.sent)});
    }

    /// Tickets whose mail has reached the disk of those who got it.
    void release() {
        for (std::uint32_t worker = 0; worker < waiting_.size(); ++worker) {
            auto& queue = waiting_[worker];
            std::uint64_t done = 0;
            while (!queue.empty()) {
                const auto& [ticket, sent] = queue.front();
                bool all = true;
                for (std::size_t to = 0; to < sent.size(); ++to) all &= to == worker || written_processed_[to][worker] >= sent[to];
                if (!all) break;
                done = ticket;
                queue.pop_front();
            }
            if (done == 0 || engines_[worker] == nullptr) continue;
            engines_[worker]->durable_.store(done, std::memory_order_release);
            engines_[worker]->wake_();
        }
    }

    void measure() {
        const auto now = monotonic_ms();
        if (now < next_measure_ || !db_) return;
        next_measure_ = now + measure_ms;
        if (clock_jumped()) {
            log::warn("store", "the clock was set; times of what is kept go on as before folder={} by_seconds={}", options_.folder, (options_.wall() - now - wall_offset_) / 1000);
            if (write_clock().ok()) [[maybe_unused]] const auto synced = db_->FlushWAL(true);
        }
        std::uint64_t files = 0, memory = 0;
        db_->GetIntProperty("rocksdb.total-sst-files-size", &files);
        db_->GetIntProperty("rocksdb.cur-size-all-mem-tables", &memory);
        std::error_code error;
        const auto space = fs::space(options_.folder, error);
        const auto used = static_cast<std::int64_t>(files + memory);
        const auto limit = size_max_.load();
        const char* why = nullptr;
        if (limit > 0 && used >= limit) why = full;
        else if (!error && static_cast<std::int64_t>(space.available) < options_.free_min) why = no_space;
        const std::lock_guard lock(guard_);
        figures_.disk_bytes = used;
        if (fault_.load() == failing) return;
        if (why != fault_.load()) {
            if (why != nullptr) log::error("store", "{} folder={}", why, options_.folder);
            else log::info("store", "there is room again folder={}", options_.folder);
        }
        fault_ = why;
    }

    static constexpr const char* failing = "the disk does not take writes";
    static constexpr const char* full = "persistence.maxSize is used up";
    static constexpr const char* no_space = "the disk is almost full";

    DurableOptions options_;
    rocksdb::Options rules_;
    std::shared_ptr<SealedFiles> sealed_;
    std::unique_ptr<rocksdb::Env> env_;
    enum class Rewrite : std::uint8_t { none, running, done };
    std::atomic<Rewrite> rewrite_{Rewrite::none};
    std::atomic<bool> rewrite_wanted_{false};
    std::int64_t shift_ = 0;               ///< the store's clock minus the monotonic one, ms; set once
    std::int64_t wall_offset_ = 0, next_clock_ = 0;   ///< of the writer's thread
    std::thread rewriter_;
    std::int64_t next_census_ = 0;         ///< of the writer's thread
    const std::int64_t opened_at_ = monotonic_ms();
    std::unique_ptr<rocksdb::DB> db_;      ///< null for a while after the disk failed
    std::mutex reopening_;                 ///< for those beside the writer's thread that use db_
    std::vector<DurableEngine*> engines_;
    std::atomic<Submission*> submitted_{nullptr};
    io::Poller poller_;
    bool workers_changed_ = false;
    std::optional<std::vector<std::pair<mqtt::MessageRef, std::uint64_t>>> retained_;   ///< while recovering; guarded by guard_
    std::atomic<bool> stopping_{false};
    std::atomic<const char*> fault_{nullptr};
    std::atomic<int> sync_interval_ms_{0};
    std::atomic<std::int64_t> size_max_{0};
    std::thread thread_;
    // the thread's own
    std::vector<std::vector<std::uint64_t>> written_processed_;                    ///< [worker][from]: mail whose effects are on disk
    std::vector<std::deque<std::pair<std::uint64_t, std::vector<std::uint64_t>>>> waiting_;
    std::int64_t next_sync_ = 0, next_measure_ = 0;
    mutable std::mutex guard_;           ///< figures_, last_error_
    Figures figures_;
    std::string last_error_, notice_;
};

// --- engine ---

std::int64_t DurableEngine::offset() const noexcept { return store_.shift(); }
DurableEngine::~DurableEngine() { store_.forget(worker_); }
const char* DurableEngine::fault() const noexcept { return store_.fault(); }
std::uint64_t DurableEngine::next_key() noexcept { return store_.next_key.fetch_add(1, std::memory_order_relaxed); }

std::unique_ptr<SessionStore> DurableEngine::open_session(std::string_view client_id, bool kept) {
    if (!kept) return std::make_unique<MemorySessionStore>(client_id, overflow_);
    return std::make_unique<DurableSession>(*this, client_id, overflow_);
}

std::uint64_t DurableEngine::hold_body(const mqtt::MessageRef& message) {
    const auto view = message->view();
    if (view.topic.size() + view.properties.size() + view.payload.size() < shared_body_min) return 0;
    if (!last_ || &*last_ != &*message) {
        last_ = message;
        last_body_ = next_key();
        put(number_key('m', last_body_), encode_message(view, offset()));
    }
    ++bodies_[last_body_];
    return last_body_;
}

void DurableEngine::drop_body(std::uint64_t number) {
    if (number == 0) return;
    const auto found = bodies_.find(number);
    if (found == bodies_.end() || --found->second > 0) return;
    erase(number_key('m', number));
    bodies_.erase(found);
    if (number == last_body_) last_ = {};   // its bytes are gone; the next receiver needs them anew
}

std::uint64_t DurableEngine::commit(const MailCounts& mails) {
    last_ = {};
    if (!dirty_ && !mails.any_sent && !mails.any_processed) return 0;
    auto* submission = new Submission;
    submission->worker = worker_;
    submission->processed = mails.processed;
    if (dirty_ || mails.any_sent) {
        submission->ticket = ++ticket_;
        submission->sent = mails.sent;
    }
    submission->batch = std::move(batch_);
    batch_.Clear();
    dirty_ = false;
    const auto ticket = submission->ticket;
    store_.submit(submission);
    return ticket;
}

void DurableEngine::recover(const std::function<bool(std::string_view)>& mine, Recovered& into) {
    auto& db = store_.db();
    const auto shift = offset();
    const auto now = monotonic_ms();
    rocksdb::ReadOptions reading;
    reading.verify_checksums = true;
    reading.fill_cache = false;
    Clients known;
    auto each = [&](char kind, auto&& visit) {
        const std::unique_ptr<rocksdb::Iterator> at(db.NewIterator(reading));
        const std::string begin(1, kind);
        known.rewind();
        std::uint64_t bad = 0;
        for (at->Seek(begin); at->Valid() && at->key().starts_with(begin); at->Next(), store_.looked_at())
            if (!visit(view_of(at->key()), view_of(at->value()))) ++bad;
        if (!at->status().ok()) log::error("store", "reading ended early kind={} why=\"{}\"", kind, at->status().ToString());
        if (bad > 0) log::error("store", "{} records of kind {} cannot be read and are left out", bad, kind);
    };
    each('S', [&](std::string_view key, std::string_view value) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        if (!mine(client)) return true;
        auto record = decode_session(value, shift);
        if (!record) return false;
        record->client_id = client;
        known.add(key);
        into.session(std::move(*record));
        return true;
    });
    each('s', [&](std::string_view key, std::string_view value) {
        std::string_view filter;
        const auto client = client_of(key, filter);
        if (!known.has(key)) return true;
        const auto options = decode_options(value);
        if (options) into.subscription(client, filter, *options);
        return options.has_value();
    });
    each('i', [&](std::string_view key, std::string_view) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        if (known.has(key) && rest.size() == 2) into.incoming(client, static_cast<std::uint16_t>(static_cast<unsigned char>(rest[0]) << 8 | static_cast<unsigned char>(rest[1])));
        return rest.size() == 2;
    });
    each('d', [&](std::string_view key, std::string_view) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        if (client.empty() || rest.size() != 2) return false;
        // With another number of workers it is not known any more whose sessions that were.
        if (store_.workers_changed()) erase(std::string(key));
        else if (static_cast<unsigned char>(client[0]) == worker_) into.seen(client.substr(1), static_cast<std::uint16_t>(static_cast<unsigned char>(rest[0]) << 8 | static_cast<unsigned char>(rest[1])));
        return true;
    });
    struct Delivery {
        std::uint16_t packet_id = 0;
        Step step{};
    };
    std::map<std::string, Delivery> deliveries;   // by key without its letter: in the order of the messages below
    each('f', [&](std::string_view key, std::string_view value) {
        if (!known.has(key)) return true;
        Delivery d;
        if (!decode_delivery(value, d.packet_id, d.step)) return false;
        deliveries.emplace(std::string(key.substr(1)), d);
        return true;
    });
    std::unordered_map<std::uint64_t, mqtt::MessageRef> shared;   // bodies read so far
    auto body_of = [&](std::uint64_t number) -> mqtt::MessageRef {
        if (const auto found = shared.find(number); found != shared.end()) return found->second;
        std::string value;
        if (!db.Get(reading, number_key('m', number), &value).ok()) return {};
        auto message = decode_message(value, shift);
        if (overflow_ != nullptr && overflow_->is_wanted()) shared.clear();   // memory goes before sharing
        if (message) shared.emplace(number, message);
        return message;
    };
    std::unordered_map<std::uint64_t, std::uint64_t> renumbered;
    std::string current;
    std::unique_ptr<DurableSession> queue;
    std::uint16_t last_packet_id = 0;
    auto add = [&](std::string_view client, InFlight entry) {
        if (client != current || queue == nullptr) {
            if (queue != nullptr) into.queue(current, std::move(queue), last_packet_id);
            current = client;
            queue = std::make_unique<DurableSession>(*this, client, overflow_);
            last_packet_id = 0;
        }
        if (entry.packet_id != 0) {
            last_packet_id = entry.packet_id;
            queue->restore_in_flight(std::move(entry));
        } else {
            queue->restore_queued(std::move(entry.item), now);
        }
    };
    // Deliveries whose message is gone already (PUBREC came) stand between those that still have it; both are in order of key.
    auto next_delivery = deliveries.begin();
    auto pass_deliveries = [&](const std::string_view* until) {
        for (; next_delivery != deliveries.end() && (until == nullptr || next_delivery->first < *until); ++next_delivery) {
            if (next_delivery->second.step != Step::wait_pubcomp) continue;
            std::string_view rest;
            const auto whole = "f" + next_delivery->first;
            const auto client = client_of(whole, rest);
            add(client, {.item = {}, .packet_id = next_delivery->second.packet_id, .step = Step::wait_pubcomp, .key = read_u64(rest) | tracked});
        }
    };
    each('q', [&](std::string_view key, std::string_view value) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        const auto number = read_u64(rest);
        if (!known.has(key)) return true;
        Queued item;
        std::uint16_t packet_id = 0;
        std::uint64_t body = 0;
        if (!decode_queued(value, item, packet_id, body, shift)) return false;
        if (body != 0) item.message = body_of(body);
        if (!item.message) return false;
        item.key = number;
        const auto at = key.substr(1);
        pass_deliveries(&at);
        auto step = item.qos == mqtt::Qos::exactly_once ? Step::wait_pubrec : Step::wait_puback;
        std::uint64_t mark = 0;
        if (next_delivery != deliveries.end() && next_delivery->first == at) {
            packet_id = next_delivery->second.packet_id;
            step = next_delivery->second.step;
            mark = tracked;
            ++next_delivery;
        }
        if (packet_id == 0 && item.message->expires_at() != 0 && item.message->expires_at() <= now) {
            erase(std::string(key));   // it expired while nobody ran
            return true;
        }
        if (body != 0 && store_.workers_changed()) {
            // Receivers of one body may live on several workers now; each worker counts bodies of its own.
            auto& mine_now = renumbered[body];
            if (mine_now == 0 || !bodies_.contains(mine_now)) last_ = {}, mine_now = hold_body(item.message);
            else ++bodies_[mine_now];
            item.body = mine_now;
            put(std::string(key), encode_queued(item, mark == 0 ? packet_id : std::uint16_t{0}, item.body, shift));
        } else if (body != 0) {
            item.body = body;
            ++bodies_[body];
        }
        const auto item_key = item.key;
        add(client, {.item = std::move(item), .packet_id = packet_id, .step = step, .key = item_key | mark});
        return true;
    });
    pass_deliveries(nullptr);
    if (queue != nullptr) into.queue(current, std::move(queue), last_packet_id);
    if (worker_ == 0)
        each('k', [&](std::string_view key, std::string_view value) {
            auto entry = decode_state(value, shift);
            if (entry) into.state(std::string(key.substr(1)), std::move(*entry));
            return entry.has_value();
        });
    // Read once for all workers: they share the messages.
    for (const auto& [message, sequence] : store_.retained([&] {
             std::vector<std::pair<mqtt::MessageRef, std::uint64_t>> all;
             each('r', [&](std::string_view, std::string_view value) {
                 if (value.size() < 8) return false;
                 auto message = decode_message(value.substr(8), shift);
                 if (!message) return false;
                 if (message->expires_at() == 0 || message->expires_at() > now) all.emplace_back(message, read_u64(value));
                 else erase_retained(message->view().topic);
                 return true;
             });
             return all;
         }))
        into.retained(message, sequence);
}

}  // namespace

Result<std::unique_ptr<Durable>> Durable::open(DurableOptions options) {
    auto out = std::make_unique<Store>(std::move(options));
    if (auto opened = out->open(); !opened) return std::unexpected(opened.error());
    return out;
}

}  // namespace penstock::store
