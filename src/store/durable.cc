#include "store/durable.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/wal_filter.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

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
#include "store/durable_anew.h"
#include "store/durable_damage.h"
#include "store/durable_engine.h"
#include "store/durable_log.h"
#include "store/sealed_files.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr int format_version = 1;        // frozen with record.h, see docs/internals/formats.md
constexpr std::int64_t measure_ms = 2000;
constexpr const char* clock_mark = "Mclock";
constexpr std::int64_t clock_ms = 10'000, jump_ms = 30'000;
constexpr std::int64_t census_ms = 30'000, settle_ms = 500;
constexpr std::int64_t reopen_room = 4 << 20, reopen_pause_max_ms = 5000;

/// Without room, or read-only: what is there can be read, and is written on when that has changed.
bool takes_no_writes(const std::string& folder, const rocksdb::Status& status) {
    struct statvfs about {};
    return status.IsNoSpace() || (::statvfs(folder.c_str(), &about) == 0 && (about.f_flag & ST_RDONLY) != 0);
}

/// Ends recovery where the log has a hole. After a power cut a part that was not synced may read as zeros and what follows as it was;
/// RocksDB passes over zeros where a record should begin, up to its next block, and would go on behind them if a record begins there.
/// Records are numbered without gaps; one that repeats a number (a write tried again) is not behind a hole.
class Gapless final : public rocksdb::WalFilter {
  public:
    static const char* kClassName() { return "Gapless"; }
    const char* Name() const override { return kClassName(); }
    void ColumnFamilyLogNumberMap(const std::map<std::uint32_t, std::uint64_t>& logs, const std::map<std::string, std::uint32_t>&) override {
        next_ = left_out = 0;
        if (begins) begins(logs.empty() ? 0 : logs.begin()->second);
    }
    WalProcessingOption LogRecordFound(unsigned long long, const std::string&, const rocksdb::WriteBatch& batch, rocksdb::WriteBatch*, bool*) override {
        std::uint64_t number = 0;
        for (std::size_t i = 8; i-- > 0;) number = number << 8 | static_cast<unsigned char>(batch.Data()[i]);   // a batch begins with it
        if (next_ != 0 && number > next_) {
            ++left_out;
            return WalProcessingOption::kIgnoreCurrentRecord;
        }
        next_ = number + batch.Count();
        return WalProcessingOption::kContinueProcessing;
    }
    std::uint64_t left_out = 0;
    std::function<void(std::uint64_t least)> begins;   ///< the logs from that number on are read now; nothing has been changed yet

  private:
    std::uint64_t next_ = 0;
};

class Store final : public Durable, public Backing {
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
        sealed_ = SealedFiles::make(options_.file_system);
        sealed_->set(options_.keys, options_.seal);
        env_ = rocksdb::NewCompositeEnv(sealed_->files());
        set_rules();
        damage_ = std::make_unique<DamageCheck>(*sealed_, options_.folder, options_.mark_file, options_.boot);
        sealed_->watch(options_.folder, [this](std::uint64_t number, std::uint64_t bytes) { damage_->listed(number, bytes); });
        gapless_.begins = [this](std::uint64_t least) { damage_->look_at_logs(least); };
        const auto taken = take_copy(options_.folder, [this](const std::string& identity) { return damage_->newest_of(identity); });
        if (!taken) return std::unexpected(taken.error());
        if (!taken->empty()) damage_->set_aside({}, *taken);
        // Before anything else: a key that is missing is no damage, and nothing is to be repaired.
        if (const auto counted = sealed_->census(options_.folder); !counted) return std::unexpected(counted.error());
        const auto repair = damage_->look();
        if (!repair) return std::unexpected(repair.error());
        if (auto opened = open_files(*repair); !opened) return opened;
        if (gapless_.left_out > 0) log::info("store", "records behind a hole in the log are left out folder={} records={}", options_.folder, gapless_.left_out);
        if (auto known = check_format(); !known) return known;
        if (!unreadable_.ok())
            if (auto saved = save_what_can_be_read(unreadable_.ToString()); !saved) return saved;
        set_clock();
        std::string workers;
        workers_changed_ = !db_->Get({}, "Mworkers", &workers).ok() || workers != std::to_string(options_.workers);
        auto swept = sweep();
        if (swept.IsCorruption()) {
            if (auto saved = save_what_can_be_read(swept.ToString()); !saved) return saved;
            set_clock();
            swept = sweep();
        }
        if (!swept.ok()) return fail(fmt::format("{}: cannot be read: {}; restore a backup if the disk is broken", options_.folder, swept.ToString()));
        if (!read_only_) drop_former(options_.folder);
        sealed_->hold();   // a repair or an ingested table may have changed them
        notice_ = damage_->notice();
        return {};
    }

    void set_rules() {
        auto& rules = rules_;
        rules.env = env_.get();
        rules.create_if_missing = true;
        rules.write_buffer_size = 16 << 20;
        rules.max_write_buffer_number = 3;
        rules.max_open_files = 256;
        rules.max_background_jobs = 2;
        rules.paranoid_checks = true;
        rules.compression = rocksdb::kNoCompression;
        rules.max_total_wal_size = 128 << 20;
        rules.info_log = make_info_log();
        // What is recovered ends where the log cannot be read any more; DamageCheck says whether that is the end that a crash tore.
        rules.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
        rules.wal_filter = &gapless_;
    }

    /// `repair`: why RocksDB has to repair the folder before it can open it; empty: it need not, as far as is known.
    Result<void> open_files(const std::string& repair) {
        auto status = repair.empty() ? reopen() : rocksdb::Status::Corruption(repair);
        if (status.IsCorruption()) {
            const auto why = repair.empty() ? status.ToString() : repair;
            damage_->set_aside({}, fmt::format("{}; what could be read was kept, the rest was moved into {}/lost", why, options_.folder));
            db_.reset();
            if (const auto repaired = rocksdb::RepairDB(options_.folder, rules_); !repaired.ok())
                return fail(fmt::format("{}: damaged ({}) and not to be repaired: {}; restore a backup, or move the folder away{} to begin anew", options_.folder, why, repaired.ToString(), and_its_mark()));
            was_repaired_ = true;
            status = reopen();
        }
        if (!status.ok() && !status.IsCorruption() && takes_no_writes(options_.folder, status)) status = open_to_read(status);
        if (!status.ok()) return fail(fmt::format("{}: {}; is another penstock running on it, the disk full or read-only?", options_.folder, status.ToString()));
        rules_.create_if_missing = false;   // from here on a folder that is empty has lost its files
        auto held = HeldFolder::open(options_.folder);
        if (!held) return std::unexpected(held.error());
        held_ = std::move(*held);
        return {};
    }
    [[nodiscard]] std::string and_its_mark() const { return options_.mark_file.empty() ? "" : " together with " + options_.mark_file; }

    /// Whose state it is, and in which format; a new folder is told that it is ours.
    Result<void> check_format() {
        std::string format, owner;
        const auto found = db_->Get({}, "Mformat", &format);
        if (found.ok()) {
            if (format != std::to_string(format_version)) return fail(fmt::format("{}: written in format {}, this penstock reads {}; use the version that wrote it", options_.folder, format, format_version));
            if (db_->Get({}, "Mowner", &owner).ok() && owner != options_.owner) return fail(fmt::format("{}: holds the state of Broker {}, not of {}; name the Broker as it was, or move the folder away{}", options_.folder, owner, options_.owner, and_its_mark()));
            return {};
        }
        unreadable_ = found.IsCorruption() && !was_repaired_ ? found : rocksdb::Status::OK();
        if (!unreadable_.ok()) return {};
        if (!found.IsNotFound()) return fail(fmt::format("{}: cannot be read: {}; restore a backup", options_.folder, found.ToString()));
        if (read_only_) return fail(fmt::format("{}: {}; make room, or make it writable", options_.folder, last_error_));   // nothing was kept here yet
        const std::unique_ptr<rocksdb::Iterator> any(db_->NewIterator({}));
        any->SeekToFirst();
        // A repair may have lost the marks with the table they stood in.
        if (!was_repaired_ && (any->Valid() || !any->status().ok())) return fail(fmt::format("{}: it has data but no format mark; it was not written by penstock, or its mark was lost", options_.folder));
        rocksdb::WriteOptions synced;
        synced.sync = true;
        rocksdb::WriteBatch first;
        first.Put("Mformat", std::to_string(format_version));
        first.Put("Mowner", options_.owner);
        if (const auto made = db_->Write(synced, &first); !made.ok()) return fail(fmt::format("{}: {}", options_.folder, made.ToString()));
        return {};
    }

    /// A table has a place that cannot be read. RocksDB's repair would set the whole table aside; so everything that can be read in
    /// front of that place and behind it goes into a table of its own first, which then takes the place of all that was there.
    Result<void> save_what_can_be_read(const std::string& why) {
        const auto saved = options_.folder + "/lost/readable.sst";
        std::error_code error;
        fs::create_directories(options_.folder + "/lost", error);
        auto status = copy_readable(saved);
        if (!status.ok()) return fail(fmt::format("{}: {}; what can be read could not be saved: {}; is the disk full?", options_.folder, why, status.ToString()));
        was_repaired_ = false;
        if (auto opened = open_files(why); !opened) return opened;
        rocksdb::IngestExternalFileOptions whole;
        whole.write_global_seqno = false;
        if (status = db_->IngestExternalFile({saved}, whole); !status.ok()) return fail(fmt::format("{}: {}; what could be read is in {}", options_.folder, status.ToString(), saved));
        fs::remove(saved, error);
        return check_format();
    }
    rocksdb::Status copy_readable(const std::string& into) {
        rocksdb::SstFileWriter writer({}, rules_);
        auto status = writer.Open(into);
        if (status.ok()) status = writer.DeleteRange("", "\xFF");   // keys begin with a letter
        rocksdb::ReadOptions reading;
        reading.fill_cache = false;
        const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(reading));
        std::string last_key, first_behind;
        const auto take = [&] {
            for (; at->Valid() && status.ok(); at->Next()) {
                if (!last_key.empty() && at->key().compare(last_key) <= 0) continue;
                status = writer.Put(at->key(), at->value());
                last_key = at->key().ToString();
            }
        };
        at->SeekToFirst();
        take();
        if (status.ok() && !at->status().ok()) {
            for (at->SeekToLast(); at->Valid() && at->key().compare(last_key) > 0; at->Prev()) first_behind = at->key().ToString();
            if (!first_behind.empty()) at->Seek(first_behind), take();
        }
        return status.ok() ? writer.Finish() : status;
    }

    /// The state is served from what is there; acknowledgements wait until the files can be opened for writing.
    rocksdb::Status open_to_read(const rocksdb::Status& why) {
        rocksdb::DB* db = nullptr;
        const auto status = rocksdb::DB::OpenForReadOnly(rules_, options_.folder, &db);
        if (!status.ok()) return why;
        db_.reset(db);
        read_only_ = true;
        fault_ = failing;
        last_error_ = why.ToString();
        log::error("store", "the disk does not take writes; the state is read, acknowledgements wait, it is tried again each second folder={} why=\"{}\"", options_.folder, last_error_);
        return status;
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
        [[maybe_unused]] const auto begun = begin_log();
    }
    /// Synced, so that the log begins with a number that is known, and the mark with it.
    rocksdb::Status begin_log() {
        auto status = write_clock();
        if (status.ok()) status = db_->FlushWAL(true);
        if (status.ok()) damage_->opened(sealed_->last_log(), db_->GetLatestSequenceNumber());
        return status;
    }
    rocksdb::Status write_clock() {
        const auto now = monotonic_ms(), wall = options_.wall();
        wall_offset_ = wall - now;
        next_clock_ = now + clock_ms;
        rocksdb::WriteBatch mark;
        mark.Put(clock_mark, fmt::format("{} {}", now + shift_, wall));
        mark.PutLogData(damage_->statement());
        return db_->Write({}, &mark);
    }
    /// The wall clock was set.
    [[nodiscard]] bool clock_jumped() const { return std::abs(options_.wall() - monotonic_ms() - wall_offset_) > jump_ms; }

    /// Finds the newest key, and removes what nothing refers to: bodies without a queue, parts of sessions that are gone.
    /// The error: something cannot be read.
    rocksdb::Status sweep() {
        std::uint64_t keys = 0;
        if (options_.progress) options_.progress->records = 0;
        // Everything is looked at once here and once by each worker.
        if (options_.progress && db_->GetIntProperty("rocksdb.estimate-num-keys", &keys)) options_.progress->expected = std::max<std::uint64_t>(1, keys * (1 + options_.workers));
        std::unordered_map<std::uint64_t, bool> needed;
        Clients sessions, handed_on;
        std::uint64_t newest = 0;
        rocksdb::WriteBatch orphans;
        rocksdb::ReadOptions reading;
        reading.fill_cache = false;
        const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(reading));
        std::string_view rest;
        for (at->Seek("S"); at->Valid() && at->key().starts_with("S"); at->Next()) sessions.add(view_of(at->key()));
        for (at->Seek("o"); at->Valid() && at->key().starts_with("o"); at->Next()) handed_on.add(view_of(at->key()));
        if (!at->status().ok()) return at->status();
        for (const char kind : {'s', 'i', 'q', 'f'}) {
            sessions.rewind();
            handed_on.rewind();
            for (at->Seek(std::string(1, kind)); at->Valid() && at->key().starts_with(std::string(1, kind)); at->Next()) {
                looked_at();
                if (!sessions.has(view_of(at->key())) && !(kind == 'q' && handed_on.has(view_of(at->key())))) {
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
            if (!at->status().ok()) return at->status();
        }
        for (at->Seek("m"); at->Valid() && at->key().starts_with("m"); at->Next()) {
            const auto number = read_u64(view_of(at->key()).substr(1));
            newest = std::max(newest, number);
            if (!needed.contains(number)) orphans.Delete(at->key());
        }
        if (!at->status().ok()) return at->status();
        for (at->Seek("w"); at->Valid() && at->key().starts_with("w"); at->Next()) newest = std::max(newest, read_u64(view_of(at->key()).substr(1)));
        if (!at->status().ok()) return at->status();
        // Nothing is to be swept of these; each worker trusts that what it reads is all there is.
        for (const char* kind : {"M", "r", "k"}) {
            for (at->Seek(kind); at->Valid() && at->key().starts_with(kind); at->Next()) looked_at();
            if (!at->status().ok()) return at->status();
        }
        // A mark without the publisher that could send the message again.
        std::string value;
        for (at->Seek("d"); at->Valid() && at->key().starts_with("d"); at->Next()) {
            auto publisher = name_of(view_of(at->key()), rest);
            publisher.remove_prefix(std::min<std::size_t>(2, publisher.size()));
            const auto sender = is_leaving_name(publisher) ? number_key('w', number_of_leaving(publisher)) : client_key('S', publisher.substr(0, publisher.find('\0')));
            const auto found = db_->Get({}, sender, &value);
            if (found.IsCorruption()) return found;
            if (found.IsNotFound()) orphans.Delete(at->key());
        }
        if (!at->status().ok()) return at->status();
        if (orphans.Count() > 0) [[maybe_unused]] const auto written = db_->Write({}, &orphans);
        next_key_ = newest + 1;
        return rocksdb::Status::OK();
    }

    std::unique_ptr<Engine> engine(std::uint32_t worker, std::function<void()> wake, OverflowLane* overflow) override {
        auto out = std::make_unique<DurableEngine>(*this, worker, std::move(wake), overflow);
        engines_[worker] = out.get();
        return out;
    }
    void resize(std::uint32_t workers) override {
        // The thread goes, and comes back when what it knows of workers is another thing.
        stopping_ = true;
        signal();
        thread_.join();
        stopping_ = false;
        options_.workers = workers;
        engines_.assign(workers, nullptr);
        written_processed_.assign(workers, std::vector<std::uint64_t>(workers));
        waiting_.clear();
        waiting_.resize(workers);
        owners_.clear();
        thread_ = std::thread([this] { run(); });
    }
    void end_resize() override {
        owners_.clear();
        // Behind what the engines have handed in: until it is written, a start sorts bodies by worker itself.
        auto* mark = new Submission;
        mark->batch.Put("Mworkers", std::to_string(options_.workers));
        submit(mark);
    }
    std::uint32_t owner_of(std::uint64_t body, std::uint32_t asking) override { return owners_.try_emplace(body, asking).first->second; }
    void count_in(mqtt::MessageBytes& cell) override { cell_ = &cell; }
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
        if (damage_) damage_->closed();
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
    void submit(Submission* submission) override {
        auto* head = submitted_.load(std::memory_order_relaxed);
        do submission->next = head;
        while (!submitted_.compare_exchange_weak(head, submission, std::memory_order_release, std::memory_order_relaxed));
        if (head == nullptr) signal();
    }
    [[nodiscard]] const char* fault() const noexcept override { return fault_.load(std::memory_order_relaxed); }
    [[nodiscard]] rocksdb::DB& db() noexcept override { return *db_; }
    std::uint64_t next_key() noexcept override { return next_key_.fetch_add(1, std::memory_order_relaxed); }
    void forget(const DurableEngine& engine) override {
        if (const auto at = engine.worker(); at < engines_.size() && engines_[at] == &engine) engines_[at] = nullptr;
    }
    /// One record more of a start.
    void looked_at() noexcept override {
        if (options_.progress) options_.progress->records.fetch_add(1, std::memory_order_relaxed);
    }
    [[nodiscard]] std::int64_t shift() const noexcept override { return shift_; }
    [[nodiscard]] bool workers_changed() const noexcept override { return workers_changed_; }
    const Retained& retained(const std::function<Retained()>& read) override {
        const std::lock_guard lock(guard_);
        if (!retained_) retained_ = read();
        return *retained_;
    }

  private:
    void signal() { poller_.wake(); }

    void run() {
        if (cell_ != nullptr) mqtt::MessageBytes::use(*cell_);
        std::vector<Submission*> group;
        while (true) {
            rewrite();
            auto* list = submitted_.exchange(nullptr, std::memory_order_acquire);
            if (list == nullptr) {
                if (stopping_) {
                    save_at_the_end();
                    break;
                }
                measure();
                poller_.wait(static_cast<int>(std::clamp<std::int64_t>(next_census_ - monotonic_ms(), 10, measure_ms)));
                continue;
            }
            for (auto* s = list; s != nullptr; s = s->next) group.push_back(s);
            std::ranges::reverse(group);   // the list is newest first
            if (write(group))
                for (auto* s : group) settle(*s);
            for (auto* s : group) delete s;
            group.clear();
            release();
            measure();
        }
    }

    /// Writes and syncs a group; goes on trying until the disk takes it. What is handed in meanwhile waits. False: the process ends
    /// before the disk did, and nothing of the group may be acknowledged.
    bool write(const std::vector<Submission*>& group) {
        std::uint64_t bytes = 0;
        bool any = false;
        for (auto* s : group) {
            if (s->batch.Count() == 0) continue;
            if (!std::exchange(any, true)) s->batch.PutLogData(damage_->statement());
            bytes += s->batch.GetDataSize();
        }
        if (!any) return true;
        for (bool first = fault_.load() != failing;; first = false) {
            auto status = ready();
            if (status.ok() && (monotonic_ms() >= next_clock_ || clock_jumped())) status = write_clock();
            for (auto* s : group) {
                if (!status.ok()) break;
                if (s->batch.Count() > 0) status = db_->Write({}, &s->batch);   // the same batch again changes nothing
            }
            const auto now = monotonic_ms();
            const auto interval = sync_interval_ms_.load();
            bool synced = false;
            double sync_seconds = 0;
            if (status.ok() && (interval == 0 || now >= next_sync_)) {
                const auto begun = monotonic_ns();
                status = db_->FlushWAL(true);
                sync_seconds = static_cast<double>(monotonic_ns() - begun) / 1e9;
                next_sync_ = now + interval;
                synced = true;
            }
            if (status.ok()) status = all_is_there(false);
            if (status.ok()) {
                damage_->wrote(sealed_->last_log(), db_->GetLatestSequenceNumber(), synced);
                const std::lock_guard lock(guard_);
                figures_.syncs += synced;
                if (synced) figures_.sync_durations.add(sync_seconds);
                figures_.batches += group.size();
                figures_.bytes_written += bytes;
                if (!first || fault_.load() == failing) {
                    fault_ = nullptr;
                    last_error_.clear();
                    said_.clear();
                    log::info("store", "the disk takes writes again folder={}", options_.folder);
                }
                return true;
            }
            {
                const std::lock_guard lock(guard_);
                ++figures_.writes_failed;
                last_error_ = status.ToString();
                // Again when the reason is another one; a number in it is none.
                auto reason = last_error_;
                std::erase_if(reason, [](char c) { return c >= '0' && c <= '9'; });
                if (std::exchange(said_, reason) != reason || first) log::error("store", "the disk does not take writes; acknowledgements wait, it is tried again each second folder={} why=\"{}\"", options_.folder, last_error_);
            }
            fault_ = failing;
            if (stopping_) return false;
            poller_.wait(static_cast<int>(options_.retry_ms));
            // After a failed write nobody knows what of the log is on disk, so the files are read anew. RocksDB's Resume() may go on with
            // the log that failed, and a build of it with assertions ends the process at the next write to that file.
            // Files that are gone are not read anew: what is open is all that is left of them.
            gone_ = db_ && !read_only_ && !all_is_there(true).ok();
            if (db_ && !read_only_ && !gone_) {
                const std::lock_guard lock(reopening_);
                db_.reset();
            }
        }
    }
    /// A store that can be written to, as far as it takes.
    rocksdb::Status ready() {
        if (gone_) {
            gone_ = !all_is_there(true).ok();
            // They came back and are written on: what was begun of a copy is older from here on.
            if (!gone_ && !has_copy_) drop_copy(held_->at(""));
        }
        if (db_ && !read_only_) return gone_ ? renew() : rocksdb::Status::OK();
        if (has_copy_) {
            if (auto there = held_->ready(); !there) return rocksdb::Status::IOError(there.error().message);
            if (auto taken = take_copy(held_->at(""), {}); !taken) return rocksdb::Status::IOError(held_->named(taken.error().message));
            damage_->forget();   // its changes are numbered anew
            has_copy_ = false;
        }
        return reopen_when_due();
    }
    /// The files that are open stand under their names. `tables` false: without those, which is cheap.
    rocksdb::Status all_is_there(bool tables) {
        const auto found = sealed_->stand(tables);
        if (found.state == SealedFiles::Stand::State::there) return rocksdb::Status::OK();
        const auto* what = found.state == SealedFiles::Stand::State::gone ? "was deleted, moved or unmounted while it was open" : "is another file than the one that is open";
        return rocksdb::Status::IOError(fmt::format("{}/{} {}", options_.folder, found.name, what));
    }
    /// Files were deleted while they were open.
    rocksdb::Status renew() {
        const std::lock_guard lock(reopening_);
        if (auto there = held_->ready(); !there) return rocksdb::Status::IOError(there.error().message);
        if (const auto found = sealed_->stand(true); found.state == SealedFiles::Stand::State::replaced)
            return rocksdb::Status::IOError(fmt::format("{}: other files stand in the place of those that are open ({}); restart penstock, or put them back", options_.folder, found.name));
        if (auto copied = copy_anew(*db_, rules_, *held_); !copied) return rocksdb::Status::IOError(copied.error().message);
        db_.reset();
        has_copy_ = true;
        gone_ = false;
        log::error("store", "the files were deleted while they were open, and are written anew folder={}", options_.folder);
        return rocksdb::Status::TryAgain("the files were deleted while they were open, and are written anew");
    }
    /// What is open and has no name any more ends with the process.
    void save_at_the_end() {
        if (!db_ || read_only_ || all_is_there(true).ok()) return;
        if (auto status = renew(); !has_copy_) return log::error("store", "files were deleted while they were open, and what was in them is lost why=\"{}\"", status.ToString());
        if (auto taken = take_copy(held_->at(""), {}); !taken) log::error("store", "{}", held_->named(taken.error().message));
    }
    /// Opening reads the whole log: not more often than the disk lets hope, nor without room for what it writes at once.
    rocksdb::Status reopen_when_due() {
        const auto now = monotonic_ms();
        if (now < next_reopen_) return reopen_failed_;
        std::error_code error;
        const auto space = fs::space(options_.folder, error);
        auto status = !error && static_cast<std::int64_t>(space.available) < reopen_room ? rocksdb::Status::NoSpace(fmt::format("{}: {} bytes are free on the disk", options_.folder, space.available)) : rocksdb::Status::OK();
        if (status.ok() && read_only_) {
            const std::lock_guard lock(reopening_);
            db_.reset();
            read_only_ = false;
        }
        if (status.ok()) status = reopen();
        if (status.ok()) status = begin_log();
        if (status.ok()) drop_former(options_.folder);
        reopen_pause_ = status.ok() ? 0 : std::clamp<std::int64_t>(reopen_pause_ * 2, options_.retry_ms, reopen_pause_max_ms);
        next_reopen_ = now + reopen_pause_;
        reopen_failed_ = status;
        return status;
    }
    rocksdb::Status reopen() {
        const std::lock_guard lock(reopening_);
        rocksdb::DB* db = nullptr;
        sealed_->let_go();
        const auto status = rocksdb::DB::Open(rules_, options_.folder, &db);
        db_.reset(db);
        if (status.ok()) sealed_->hold();
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
        if (rewrite_ == Rewrite::running || stopping_ || !db_ || fault_.load() != nullptr || !all_is_there(true).ok()) return;
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
        auto notice = damage_->notice();   // gone once somebody has dealt with it
        const std::lock_guard lock(guard_);
        notice_ = std::move(notice);
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
            engines_[worker]->on_durable(done);
        }
    }

    void measure() {
        const auto now = monotonic_ms();
        if (now < next_measure_ || !db_) return;
        next_measure_ = now + measure_ms;
        // Also while nobody writes: something to write brings them back.
        const bool is_there = read_only_ || all_is_there(true).ok();
        if (!is_there) gone_ = true;
        if (read_only_ || !is_there) {
            auto* mark = new Submission;
            mark->batch.Put(clock_mark, fmt::format("{} {}", now + shift_, options_.wall()));
            return submit(mark);
        }
        if (clock_jumped()) {
            log::warn("store", "the clock was set; times of what is kept go on as before folder={} by_seconds={}", options_.folder, (options_.wall() - now - wall_offset_) / 1000);
            if (write_clock().ok()) [[maybe_unused]] const auto synced = db_->FlushWAL(true);
        }
        std::uint64_t files = 0, memory = 0;
        db_->GetIntProperty("rocksdb.total-sst-files-size", &files);
        db_->GetIntProperty("rocksdb.cur-size-all-mem-tables", &memory);
        damage_->put_identity_back();
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
    Gapless gapless_;                      ///< before db_: RocksDB holds its address
    rocksdb::Options rules_;
    std::shared_ptr<SealedFiles> sealed_;
    std::unique_ptr<rocksdb::Env> env_;
    std::unique_ptr<DamageCheck> damage_;
    bool was_repaired_ = false;
    rocksdb::Status unreadable_;           ///< why the format mark could not be read
    enum class Rewrite : std::uint8_t { none, running, done };
    std::atomic<Rewrite> rewrite_{Rewrite::none};
    std::atomic<bool> rewrite_wanted_{false};
    std::int64_t shift_ = 0;               ///< the store's clock minus the monotonic one, ms; set once
    std::int64_t wall_offset_ = 0, next_clock_ = 0;   ///< of the writer's thread
    std::thread rewriter_;
    std::int64_t next_census_ = 0;         ///< of the writer's thread
    const std::int64_t opened_at_ = monotonic_ms();
    std::unique_ptr<rocksdb::DB> db_;      ///< null for a while after the disk failed
    bool read_only_ = false;               ///< db_, because the disk took nothing at the start; of the writer's thread then
    bool gone_ = false;                    ///< the files that are open have no names any more; of the writer's thread
    bool has_copy_ = false;                ///< see copy_anew(); of the writer's thread
    std::shared_ptr<HeldFolder> held_;     ///< the folder
    std::int64_t next_reopen_ = 0, reopen_pause_ = 0;   ///< of the writer's thread
    rocksdb::Status reopen_failed_;        ///< of the writer's thread
    std::mutex reopening_;                 ///< for those beside the writer's thread that use db_
    std::vector<DurableEngine*> engines_;
    std::unordered_map<std::uint64_t, std::uint32_t> owners_;   ///< see owner_of()
    std::atomic<std::uint64_t> next_key_{1};
    std::atomic<Submission*> submitted_{nullptr};
    io::Poller poller_;
    bool workers_changed_ = false;
    std::optional<Retained> retained_;   ///< while recovering; guarded by guard_
    std::atomic<bool> stopping_{false};
    std::atomic<const char*> fault_{nullptr};
    std::atomic<int> sync_interval_ms_{0};
    std::atomic<std::int64_t> size_max_{0};
    mqtt::MessageBytes* cell_ = nullptr;   ///< null: nobody sums
    std::thread thread_;
    // the thread's own
    std::vector<std::vector<std::uint64_t>> written_processed_;                    ///< [worker][from]: mail whose effects are on disk
    std::vector<std::deque<std::pair<std::uint64_t, std::vector<std::uint64_t>>>> waiting_;
    std::int64_t next_sync_ = 0, next_measure_ = 0;
    mutable std::mutex guard_;           ///< figures_, last_error_
    Figures figures_;
    std::string last_error_, notice_;
    std::string said_;                   ///< why the disk took nothing, as it was logged last; of the writer's thread
};

}  // namespace

Result<std::unique_ptr<Durable>> Durable::open(DurableOptions options) {
    auto out = std::make_unique<Store>(std::move(options));
    if (auto opened = out->open(); !opened) return std::unexpected(opened.error());
    return out;
}

}  // namespace penstock::store
