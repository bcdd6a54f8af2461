#include "store/durable_damage.h"

#include <rocksdb/write_batch.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "store/sealed_files.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t header_size = 7;            // of a fragment: checksum (4), length (2), type
constexpr std::size_t padding_max = 6;            // zeros at the end of a block, where no header has room
constexpr std::size_t batch_header = 12;          // number of its first change (8), changes (4), little-endian
constexpr std::uint32_t crc_shift = 0xA282EAD8;   // checksums in the log are rotated and shifted
constexpr std::string_view statement_mark = "penstock-synced:";
constexpr std::size_t notice_max = 2000;
constexpr std::uint64_t first_list = 1;           // number of the list with which RocksDB makes a folder
constexpr const char* twin_name = "penstock.mark";
enum Fragment : std::uint8_t { full = 1, first = 2, middle = 3, last = 4 };

template <class T>
T little_endian(std::string_view bytes) {
    T out = 0;
    for (std::size_t i = sizeof(T); i-- > 0;) out = static_cast<T>(out << 8 | static_cast<unsigned char>(bytes[i]));
    return out;
}

/// The fragment that begins there, or behind the padding there; moves `at` behind it.
std::optional<std::pair<Fragment, std::string_view>> read_fragment(std::string_view text, std::size_t& at) {
    for (std::size_t padding = 0; padding <= padding_max && at + padding + header_size <= text.size(); ++padding) {
        const auto from = text.substr(at + padding);
        const auto size = little_endian<std::uint16_t>(from.substr(4));
        const auto type = static_cast<std::uint8_t>(from[6]);
        if (type >= full && type <= last && header_size + size <= from.size()) {
            const auto crc = crc32c(from.substr(6, 1 + size));
            if (little_endian<std::uint32_t>(from) == (crc >> 15 | crc << 17) + crc_shift) {
                at += padding + header_size + size;
                return std::pair{static_cast<Fragment>(type), from.substr(header_size, size)};
            }
        }
        if (from[0] != '\0') break;
    }
    return std::nullopt;
}

/// The record that begins there, put together; moves `at` behind it. False: none does, or it is not whole.
bool read_record(std::string_view text, std::size_t& at, std::string& record) {
    auto end = at;
    auto part = read_fragment(text, end);
    if (!part || (part->first != full && part->first != first)) return false;
    record = part->second;
    while (part->first != full && part->first != last) {
        part = read_fragment(text, end);
        if (!part || part->first == full || part->first == first) return false;
        record += part->second;
    }
    at = end;
    return true;
}

struct Statement {
    std::uint64_t nonce = 0, synced = 0;
};
std::string text_of(const Statement& statement) {
    std::string out(statement_mark);
    for (const auto number : {statement.nonce, statement.synced})
        for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(number >> shift);
    return out;
}

/// Finds the statement of a batch.
class Reader final : public rocksdb::WriteBatch::Handler {
  public:
    std::optional<Statement> found;
    void LogData(const rocksdb::Slice& blob) override {
        const std::string_view text(blob.data(), blob.size());
        if (!text.starts_with(statement_mark) || text.size() != statement_mark.size() + 16) return;
        const auto number = [&](std::size_t at) {
            std::uint64_t out = 0;
            for (const char c : text.substr(statement_mark.size() + at, 8)) out = out << 8 | static_cast<unsigned char>(c);
            return out;
        };
        found = Statement{.nonce = number(0), .synced = number(8)};
    }
    using Status = rocksdb::Status;
    using Slice = rocksdb::Slice;
    Status PutCF(std::uint32_t, const Slice&, const Slice&) override { return Status::OK(); }
    Status DeleteCF(std::uint32_t, const Slice&) override { return Status::OK(); }
    Status SingleDeleteCF(std::uint32_t, const Slice&) override { return Status::OK(); }
    Status DeleteRangeCF(std::uint32_t, const Slice&, const Slice&) override { return Status::OK(); }
    Status MergeCF(std::uint32_t, const Slice&, const Slice&) override { return Status::OK(); }
};

std::optional<std::uint64_t> number_of(const std::string& name, std::string_view prefix, std::string_view suffix) {
    if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() <= prefix.size() + suffix.size()) return std::nullopt;
    return parse_number<std::uint64_t>(std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
}

std::map<std::uint64_t, std::string> numbered(const std::string& folder, std::string_view prefix, std::string_view suffix) {
    std::map<std::uint64_t, std::string> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        const auto name = entry.path().filename().string();
        if (const auto number = number_of(name, prefix, suffix); number && entry.is_regular_file(error)) out.emplace(*number, name);
    }
    return out;
}

std::uint64_t number_in(const Mark::Values& values, const char* name) {
    const auto found = values.find(name);
    return found == values.end() ? 0 : parse_number<std::uint64_t>(found->second).value_or(0);
}

/// Goes through the records of all logs, one after the other.
class Chain {
  public:
    explicit Chain(LogState& state) : state_(state) {}
    void log_begins(const std::string& name) {
        name_ = name;
        is_first_ = true;
    }
    void record(std::string_view bytes, std::uint64_t at) {
        if (bytes.size() < batch_header) return gap(at);
        const auto number = little_endian<std::uint64_t>(bytes);
        const auto changes = little_endian<std::uint32_t>(bytes.substr(8));
        Reader reader;
        const auto status = rocksdb::WriteBatch(std::string(bytes)).Iterate(&reader);
        state_.has_statements |= reader.found.has_value();
        // A log that goes on just where the one before could not be read any more: the process met a disk that failed, and went on.
        if (std::exchange(is_first_, false) && is_broken_ && number == state_.end + 1) is_broken_ = false, state_.broken.clear(), state_.behind = state_.newest = state_.stated = 0;
        if (!is_broken_ && state_.end != 0 && number > state_.end + 1) gap(at);
        if (!is_broken_) {
            if (reader.found) nonce_ = reader.found->nonce;
            if (changes > 0) state_.end = number + changes - 1;
            return;
        }
        if (!status.ok() || number + changes <= state_.end) return;
        ++state_.behind;
        state_.newest = std::max(state_.newest, number + std::max(changes, 1u) - 1);
        if (reader.found && (nonce_ == 0 || reader.found->nonce == nonce_)) state_.stated = std::max(state_.stated, reader.found->synced);
    }
    void gap(std::uint64_t at) {
        if (std::exchange(is_broken_, true)) return;
        state_.broken = name_;
        state_.broken_at = at;
    }
    [[nodiscard]] bool is_broken() const noexcept { return is_broken_; }

  private:
    LogState& state_;
    std::string name_;
    bool is_broken_ = false, is_first_ = true;
    std::uint64_t nonce_ = 0;
};

/// Of a small file; empty where it cannot be read, or is none.
std::string text_in(const fs::path& path) { return read_whole_file(path).value_or(""); }

/// Another name for the same bytes, or a copy where the file system has no such thing.
std::string keep(const fs::path& from, const fs::path& into) {
    std::error_code error;
    fs::create_hard_link(from, into, error);
    if (error) fs::copy_file(from, into, fs::copy_options::overwrite_existing, error);
    return error ? fmt::format("{}: {}", into.string(), error.message()) : "";
}

void sync_path(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    [[maybe_unused]] const int done = ::fsync(file);
    ::close(file);
}

}  // namespace

LogState read_logs(SealedFiles& files, const std::string& folder, std::uint64_t least) {
    LogState out;
    Chain chain(out);
    for (const auto& [number, name] : numbered(folder, "", ".log")) {
        if (number < least) continue;
        out.logs.push_back(name);
        chain.log_begins(name);
        const auto runs = files.runs(folder + "/" + name);
        if (!runs) {
            out.is_readable = false;
            return out;
        }
        std::uint64_t before = 0;         // bytes of the runs in front
        std::string record;
        for (const auto& run : *runs) {
            if (&run != &runs->front()) chain.gap(before);
            // Where no record begins one is looked for at each byte: behind a hole nothing says where the next one stands.
            for (std::size_t at = 0; at < run.size();) {
                const auto from = at;
                if (read_record(run, at, record)) {
                    chain.record(record, before + from);
                    continue;
                }
                chain.gap(before + from);
                // A part of a record that lost its beginning is passed over as a whole: what is in it may look like a record.
                if (!read_fragment(run, at)) ++at;
            }
            before += run.size();
        }
    }
    return out;
}

std::uint64_t whole_bytes(SealedFiles& files, const std::string& path) {
    const auto runs = files.runs(path);
    std::size_t at = 0;
    std::string record;
    if (runs && !runs->empty())
        while (read_record(runs->front(), at, record)) {}
    return at;
}

DamageCheck::DamageCheck(SealedFiles& files, std::string folder, std::string mark_file, std::string boot)
    : files_(files), folder_(std::move(folder)), boot_(std::move(boot)) {
    if (!mark_file.empty()) mark_ = std::make_unique<Mark>(std::move(mark_file)), twin_ = std::make_unique<Mark>(folder_ + "/" + twin_name);
    random_bytes(&nonce_, sizeof nonce_);
}

std::uint64_t DamageCheck::newest_of(const std::string& name) const {
    std::uint64_t out = 0;
    for (auto* mark : {mark_.get(), twin_.get()}) {
        Mark::Values values;
        if (mark == nullptr || mark->read(values).value_or(Mark::State::damaged) != Mark::State::good) continue;
        if (const auto id = values.find("id"); id != values.end() && id->second == name) out = std::max(out, number_in(values, "written"));
    }
    // After a power cut a mark may say less than was true; the logs say it themselves.
    if (identity() == name) out = std::max(out, read_logs(files_, folder_, 0).end);
    return out;
}

Result<std::string> DamageCheck::look() {
    if (mark_) {
        const auto state = mark_->read(before_);
        if (!state) return std::unexpected(state.error());
        marked_by_ = mark_->path();
        Mark::Values twin;
        const bool has_twin = twin_->read(twin).value_or(Mark::State::damaged) == Mark::State::good;
        if (*state != Mark::State::good && has_twin) before_ = std::move(twin), marked_by_ = twin_->path();
        if (*state == Mark::State::damaged) log::warn("store", "the mark of the state is damaged and is begun anew{} file={}", has_twin ? "" : "; a log that is cut short cannot be told this time", mark_->path());
    }
    std::error_code error;
    const bool has_data = !numbered(folder_, "", ".sst").empty() || !numbered(folder_, "", ".log").empty();
    // Another folder was put in its place, a backup for one: the mark is not about that.
    const bool has_identity = fs::exists(folder_ + "/IDENTITY", error);
    if (const auto id = identity(); has_data && before_.contains("id") && (!has_identity || (!id.empty() && before_.at("id") != id))) {
        log::info("store", "the folder is another one than the mark is about; the mark is begun anew folder={} file={}", folder_, marked_by_);
        before_.clear();
    }
    if (has_data || fs::exists(folder_ + "/CURRENT", error)) return look_at_current();
    if (before_.empty()) return std::string();
    return fail(fmt::format("{}: is missing or empty, though state was kept in it ({} says so); put it back (is its disk mounted?) or restore a backup; to begin anew, remove {}", folder_, marked_by_, marked_by_));
}

/// RocksDB gives each folder a name of its own, which copies that it makes do not have.
std::string DamageCheck::identity() const {
    const auto text = text_in(folder_ + "/IDENTITY");
    const std::string out(trim(text));
    const bool is_name = out.size() >= 8 && out.size() <= 64 && std::ranges::all_of(out, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-'; });
    return is_name ? out : "";
}

Result<std::string> DamageCheck::look_at_current() {
    const auto lists = numbered(folder_, "MANIFEST-", "");
    const auto marked = number_in(before_, "list");
    const auto line = text_in(folder_ + "/CURRENT");
    const auto named = line.ends_with('\n') ? number_of(line.substr(0, line.size() - 1), "MANIFEST-", "") : std::nullopt;
    auto current = named && lists.contains(*named) && lists.at(*named) + "\n" == line ? *named : 0;
    if (current < marked || current == 0) {
        // What was in force is known, or there is one alone.
        const auto right = lists.contains(marked) ? marked : lists.size() == 1 && (marked == 0 || current != 0) ? lists.begin()->first : 0;
        if (right == 0) return std::string("CURRENT is missing or damaged, or the file that it names is not there");
        if (right == current) {
            set_aside({}, fmt::format("the files are older than what had been written ({} says so); what is there is in use", marked_by_));
            before_.clear();
            return std::string();
        }
        const auto beside = folder_ + "/CURRENT.mended";
        std::ofstream out(beside, std::ios::binary | std::ios::trunc);
        out << lists.at(right) << '\n';
        out.close();
        std::error_code error;
        if (out) sync_path(beside), fs::rename(beside, folder_ + "/CURRENT", error);
        if (!out || error) return fail(fmt::format("{}/CURRENT: is missing or damaged and cannot be written; is the disk full or read-only?", folder_));
        log::warn("store", "CURRENT was missing or damaged; it names {} again, nothing is lost by it folder={}", lists.at(right), folder_);
        current = right;
    }
    const auto whole = whole_bytes(files_, folder_ + "/" + lists.at(current));
    if (whole == 0) return fmt::format("{} has no readable beginning", lists.at(current));
    if (current == marked && whole < number_in(before_, "listed"))
        return fmt::format("{} can be read up to byte {} of {}", lists.at(current), whole, number_in(before_, "listed"));
    // RocksDB always has a log, and does not ask about one where there is none.
    if (!numbered(folder_, "", ".log").empty()) return std::string();
    if (const auto log = number_in(before_, "log"); log != 0)
        set_aside({}, fmt::format("the log {:06}.log is missing; what stood in it alone is lost, though it had been acknowledged", log));
    // Without the marks: RocksDB makes its log before it names a list of files in CURRENT, but for the first list of a new folder. A
    // copy that RocksDB makes (a backup) may do without, and has no IDENTITY.
    else if (current > first_list && !identity().empty())
        set_aside({}, "the log is missing, and so are the marks of the state; what stood in the log alone is lost, though it had been acknowledged");
    return std::string();
}

void DamageCheck::look_at_logs(std::uint64_t least) {
    const auto state = read_logs(files_, folder_, least);
    is_unread_ = !state.is_readable;     // RocksDB says so as well, and does not open then
    if (is_unread_) return;
    Mark::Values before;
    {
        const std::lock_guard lock(guard_);
        before = is_open_ ? values_ : before_;
    }
    const auto marked_log = number_in(before, "log");
    // What was written before a power cut and not synced may be gone; what the same start of the machine wrote may not.
    const bool same_boot = !boot_.empty() && before.contains("boot") && before.at("boot") == boot_;
    const auto marked = marked_log < std::max<std::uint64_t>(least, 1) ? 0 : std::max(number_in(before, "synced"), same_boot ? number_in(before, "written") : 0);
    const bool untold = before.empty() && !state.has_statements && state.behind > 0;   // an older version's: it cannot be told apart
    if (std::max(marked, state.stated) <= state.end && !untold) {
        if (state.behind > 0) log::info("store", "the log ends at a hole; what stands behind it was not acknowledged folder={} log={} at={} records={}", folder_, state.broken, state.broken_at, state.behind);
        return;
    }
    const auto last_lost = std::max({marked, state.stated, state.newest});
    const auto name = !state.broken.empty() ? state.broken : !state.logs.empty() ? state.logs.back() : fmt::format("{:06}.log", marked_log);
    const bool is_there = std::ranges::find(state.logs, name) != state.logs.end();
    std::string why = !is_there || (marked_log != 0 && !fs::exists(fmt::format("{}/{:06}.log", folder_, marked_log))) ? fmt::format("the log {:06}.log is missing", marked_log)
                    : state.behind > 0 ? fmt::format("the log {} cannot be read at byte {}, and {} whole records stand behind that", name, state.broken_at, state.behind)
                                       : fmt::format("the log {} ends, or cannot be read, before what had been acknowledged", name);
    std::vector<std::string> from_there;
    for (const auto& log : state.logs)
        if (log >= name || !from_there.empty()) from_there.push_back(log);
    set_aside(from_there, fmt::format("{}; the state is as it was before that, and about {} acknowledged changes are lost to it", why, last_lost - std::min(state.end, last_lost)));
}

void DamageCheck::opened(std::uint64_t log, std::uint64_t changes) {
    {
        const std::lock_guard lock(guard_);
        is_open_ = true;
        if (!boot_.empty()) values_["boot"] = boot_;
        if (auto id = identity(); !id.empty()) values_["id"] = std::move(id);
    }
    if (std::exchange(is_unread_, false)) set_aside({}, "a log could not be read; what stood in it alone is lost");
    wrote(log, changes, true);
    if (twin_) [[maybe_unused]] const auto synced = twin_->sync();
    if (mark_ && !mark_->sync()) log::warn("store", "the mark of the state cannot be written; a log that is cut short cannot be told at the next start file={}", mark_->path());
}

void DamageCheck::forget() {
    const std::lock_guard lock(guard_);
    values_.clear();
    synced_ = 0;
}

void DamageCheck::wrote(std::uint64_t log, std::uint64_t change, bool synced) {
    const std::lock_guard lock(guard_);
    if (synced) synced_ = change;
    if (!mark_) return;
    values_["log"] = std::to_string(log);
    values_["written"] = std::to_string(change);
    if (synced) values_["synced"] = std::to_string(change);
    write_mark();
}

void DamageCheck::listed(std::uint64_t number, std::uint64_t bytes) {
    const std::lock_guard lock(guard_);
    values_["list"] = std::to_string(number);
    values_["listed"] = std::to_string(bytes);
    if (is_open_) write_mark();
}

void DamageCheck::put_identity_back() {
    const auto path = folder_ + "/IDENTITY";
    std::string id;
    {
        const std::lock_guard lock(guard_);
        if (const auto found = values_.find("id"); found != values_.end()) id = found->second;
    }
    std::error_code error;
    if (id.empty() || fs::exists(path, error) || error) return;
    const auto beside = path + ".new";
    std::ofstream out(beside, std::ios::binary | std::ios::trunc);
    out << id;
    out.close();
    if (out) sync_path(beside), fs::rename(beside, path, error), sync_path(folder_);
    if (!out || error) return;
    log::warn("store", "IDENTITY was deleted while the state was open, and is written again folder={}", folder_);
}

void DamageCheck::write_mark() {
    // A disk that does not take it leaves the one before, which says less.
    for (auto* mark : {mark_.get(), twin_.get()})
        if (mark != nullptr) [[maybe_unused]] const auto written = mark->write(values_);
}

void DamageCheck::closed() {
    const std::lock_guard lock(guard_);
    if (!is_open_) return;
    for (auto* mark : {mark_.get(), twin_.get()})
        if (mark != nullptr) [[maybe_unused]] const auto synced = mark->sync();
}

std::string DamageCheck::statement() const { return text_of({.nonce = nonce_, .synced = synced_}); }

void DamageCheck::set_aside(const std::vector<std::string>& names, const std::string& why) {
    auto stamp = rfc3339(wall_ms());
    std::erase_if(stamp, [](char c) { return c == ':' || c == '-'; });
    const auto lost = fs::path(folder_) / "lost";
    auto into = lost / stamp;
    std::error_code error;
    for (int more = 2; fs::exists(into, error); ++more) into = lost / fmt::format("{}-{}", stamp, more);
    fs::create_directories(into, error);
    std::string failed = error ? error.message() : "";
    for (const auto& name : names)
        if (auto fault = keep(fs::path(folder_) / name, into / name); !fault.empty()) failed += (failed.empty() ? "" : "; ") + fault;
    const auto text = fmt::format("{} {}: {}{}", rfc3339(wall_ms()), folder_, why, names.empty() ? "" : failed.empty() ? fmt::format("; {} kept in {}", names.size() == 1 ? names.front() + " is" : "the files are", into.string()) : "; it could not be kept: " + failed);
    log::error("store", "the state was damaged: {}", text);
    std::ofstream out(lost / "NOTICE", std::ios::app);
    out << text << '\n';
    out.close();
    if (!out) {
        const std::lock_guard lock(guard_);
        unwritten_ += text + '\n';
    }
    sync_path(lost / "NOTICE");
    sync_path(into);
    sync_path(lost);
    sync_path(folder_);
}

std::string DamageCheck::notice() const {
    const auto lost = fs::path(folder_) / "lost";
    std::error_code error;
    auto text = text_in(lost / "NOTICE");
    {
        const std::lock_guard lock(guard_);
        text += unwritten_;
    }
    if (text.empty() && (!fs::is_directory(lost, error) || fs::is_empty(lost, error))) return {};
    if (text.empty()) text = fmt::format("{} has files that could not be read", lost.string());
    while (text.ends_with('\n')) text.pop_back();
    if (text.size() > notice_max) text = "… " + text.substr(text.find('\n', text.size() - notice_max) + 1);   // the newest
    for (auto& c : text)
        if (c == '\n') c = ';';
    return fmt::format("state was damaged: {} ({})", text, lost.string());
}

}  // namespace penstock::store
