#include "store/durable_anew.h"

#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t batch_bytes = 1 << 20;
constexpr const char* name_of_copy = "anew";
constexpr const char* name_of_former = "former";
// In the copy's folder: all of it is there, and of which store and up to which change it is; and what it replaces has gone from its place.
constexpr const char* whole = "WHOLE";
constexpr const char* placing = "PLACING";

bool sync_path(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = file >= 0 && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    return synced;
}

/// Whose copy it is.
struct Origin {
    std::string identity;                ///< IDENTITY of the store
    std::uint64_t changes = 0;           ///< number of the newest change in it
};

/// `id=IDENTITY changes=NUMBER`, and a line end: what has none was torn.
bool write_origin(const fs::path& path, const Origin& origin) {
    const auto beside = path.string() + ".new";
    std::ofstream out(beside, std::ios::binary | std::ios::trunc);
    out << fmt::format("id={} changes={}\n", origin.identity, origin.changes);
    out.close();
    std::error_code error;
    if (!out || !sync_path(beside)) return false;
    fs::rename(beside, path, error);
    return !error && sync_path(path.parent_path());
}

/// Of a small file; empty where it cannot be read, or is none.
std::string text_in(const fs::path& path) { return read_whole_file(path).value_or(""); }

/// Nothing: the file does not say it (a former version's).
std::optional<Origin> read_origin(const fs::path& path) {
    const auto text = text_in(path);
    const auto space = text.find(" changes=");
    if (!text.starts_with("id=") || !text.ends_with('\n') || space == std::string::npos) return std::nullopt;
    const auto number = parse_number<std::uint64_t>(std::string_view(text).substr(space + 9, text.size() - space - 10));
    if (!number) return std::nullopt;
    return Origin{.identity = text.substr(3, space - 3), .changes = *number};
}

/// What RocksDB makes in a folder, but for its lock.
bool is_of_rocksdb(const std::string& name) {
    return name == "CURRENT" || name == "IDENTITY" || name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-") || name.ends_with(".log") || name.ends_with(".sst") || name.ends_with(".dbtmp");
}

/// Without CURRENT there is no store: where one goes away CURRENT is the first and IDENTITY the last, so that what a crash leaves
/// is never taken for somebody else's; where one comes CURRENT is the last.
enum class Order : std::uint8_t { goes_away, comes };

void move_all(const fs::path& from, const fs::path& into, Order order, std::error_code& error) {
    std::vector<std::string> names;
    bool has_identity = false;
    for (const auto& entry : fs::directory_iterator(from, error)) {
        const auto name = entry.path().filename().string();
        if (name == "IDENTITY") has_identity = true;
        else if (is_of_rocksdb(name) && name != "CURRENT") names.push_back(name);
    }
    if (has_identity) names.emplace_back("IDENTITY");
    if (std::error_code unknown; fs::exists(from / "CURRENT", unknown))
        names.insert(order == Order::goes_away ? names.begin() : names.end(), "CURRENT");
    for (const auto& name : names) {
        if (error) return;
        fs::rename(from / name, into / name, error);
        // A power cut must not bring CURRENT back to where other files have gone.
        if (!error && order == Order::goes_away && name == "CURRENT" && (!sync_path(into) || !sync_path(from)))
            error = std::make_error_code(std::errc::io_error);
    }
}

}  // namespace

void drop_copy(const std::string& folder) {
    std::error_code error;
    const auto copy = fs::path(folder) / name_of_copy;
    if (!fs::exists(copy, error)) return;
    // First, and for sure: without it the rest is no copy, and what a power cut brings back must not be taken for one.
    fs::remove(copy / whole, error);
    sync_path(copy);
    fs::remove_all(copy, error);
}

Result<void> copy_anew(rocksdb::DB& from, const rocksdb::Options& rules, HeldFolder& folder) {
    if (auto there = folder.ready(); !there) return there;
    const fs::path beside = folder.at(name_of_copy);
    drop_copy(beside.parent_path());
    // Of a copy that failed nothing stays: the files may come back and be written on, and the next start would take the copy for newer.
    const auto failed = [&](std::string why) {
        drop_copy(beside.parent_path());
        return fail(std::move(why));
    };
    Origin origin{.identity = {}, .changes = from.GetLatestSequenceNumber()};   // nothing is written meanwhile: this is the writer's thread
    auto status = from.GetDbIdentity(origin.identity);
    origin.identity = std::string(trim(origin.identity));
    auto here = rules;
    here.wal_filter = nullptr;
    here.create_if_missing = true;
    rocksdb::DB* made = nullptr;
    if (status.ok()) status = rocksdb::DB::Open(here, beside.string(), &made);
    const std::unique_ptr<rocksdb::DB> to(made);
    rocksdb::WriteOptions without_log;
    without_log.disableWAL = true;   // it is flushed as a whole
    rocksdb::WriteBatch batch;
    if (status.ok()) {
        const std::unique_ptr<rocksdb::Iterator> at(from.NewIterator({}));
        for (at->SeekToFirst(); at->Valid() && status.ok(); at->Next()) {
            batch.Put(at->key(), at->value());
            if (batch.GetDataSize() < batch_bytes) continue;
            status = to->Write(without_log, &batch);
            batch.Clear();
        }
        if (status.ok() && !at->status().ok())
            return failed(fmt::format("{}: files of it are gone, and what is left cannot be read as a whole: {}; restore a backup, or restart penstock to go on with what can be read", folder.path(), at->status().ToString()));
    }
    if (status.ok()) status = to->Write(without_log, &batch);
    if (status.ok()) status = to->Flush({});
    if (status.ok()) status = to->Close();
    if (status.ok() && !write_origin(beside / whole, origin)) status = rocksdb::Status::IOError("it cannot be synced");
    if (!status.ok()) return failed(folder.named(fmt::format("{}: files of it are gone and cannot be written anew: {}", folder.path(), status.ToString())));
    return {};
}

namespace {

enum class Fate : std::uint8_t { take, drop, keep };

/// What is to become of a copy that is whole.
Fate fate_of(const fs::path& here, const fs::path& copy, const NewestChange& newest) {
    if (!newest) return Fate::take;
    std::error_code error;
    const bool has_store = fs::exists(here / "CURRENT", error);
    const std::string own(trim(text_in(here / "IDENTITY")));
    const auto origin = read_origin(copy / whole);
    // Nothing is known of a copy that a former version made: it counts where there is nothing else.
    if (!origin) return has_store ? Fate::keep : Fate::take;
    // Files without a name are those of a backup, which somebody put in the place of those that were here.
    if (own.empty() ? has_store : own != origin->identity) return Fate::keep;
    return newest(origin->identity) > origin->changes ? Fate::drop : Fate::take;
}

/// Moves it where it is in nobody's way, and can be looked at; what is answered says so.
Result<std::string> keep_copy(const fs::path& here, const fs::path& copy) {
    std::error_code error;
    fs::create_directories(here / "lost", error);
    auto stamp = rfc3339(wall_ms());
    std::erase_if(stamp, [](char c) { return c == ':' || c == '-'; });
    auto into = here / "lost" / ("anew-" + stamp);
    for (int more = 2; !error && fs::exists(into, error); ++more) into = here / "lost" / fmt::format("anew-{}-{}", stamp, more);
    if (!error) fs::rename(copy, into, error);
    if (error) return fail(fmt::format("{}: is a copy of another store than the one in {}, and cannot be moved away: {}; move it away, or put the store back that it was made of", copy.string(), here.string(), error.message()));
    sync_path(here / "lost");
    sync_path(here);
    return fmt::format("a copy of another store's state was left behind in the folder; it is not in use, and is kept in {}", into.string());
}

}  // namespace

Result<std::string> take_copy(const std::string& folder, const NewestChange& newest) {
    const auto here = fs::path(folder), copy = here / name_of_copy, former = here / name_of_former;
    std::error_code error;
    if (!fs::exists(copy, error)) return {};
    const auto failed = [&](const std::string& why) { return fail(fmt::format("{}: files of it are gone, and a copy that was made of it cannot take their place: {}", folder, why)); };
    if (fs::exists(copy / whole, error)) {
        switch (fate_of(here, copy, newest)) {
            case Fate::keep: return keep_copy(here, copy);
            case Fate::drop:
                log::warn("store", "a copy of the state is older than the state, which went on after it was made; it is removed folder={}", copy.string());
                drop_copy(folder);
                return {};
            case Fate::take: break;
        }
        fs::create_directories(former, error);
        if (!error) move_all(here, former, Order::goes_away, error);
        if (error) return failed(error.message());
        if (!sync_path(former) || !sync_path(here)) return failed("it cannot be synced");
        fs::rename(copy / whole, copy / placing, error);
        if (error || !sync_path(copy)) return failed(error ? error.message() : "it cannot be synced");
    }
    if (fs::exists(copy / placing, error)) {
        move_all(copy, here, Order::comes, error);
        if (error) return failed(error.message());
        if (!sync_path(here)) return failed("it cannot be synced");
    }
    fs::remove_all(copy, error);
    return {};
}

void drop_former(const std::string& folder) {
    std::error_code error;
    fs::remove_all(fs::path(folder) / name_of_former, error);
}

}  // namespace penstock::store
