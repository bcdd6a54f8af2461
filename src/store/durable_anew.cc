#include "store/durable_anew.h"

#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <vector>

#include <fmt/format.h>

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t batch_bytes = 1 << 20;
constexpr const char* name_of_copy = "anew";
constexpr const char* name_of_former = "former";
// In the copy's folder: all of it is there; and what it replaces has gone from its place.
constexpr const char* whole = "WHOLE";
constexpr const char* placing = "PLACING";

bool sync_path(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = file >= 0 && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    return synced;
}

bool make_empty(const fs::path& path) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const bool made = file >= 0 && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    return made && sync_path(path.parent_path());
}

/// What RocksDB makes in a folder, but for its lock.
bool is_of_rocksdb(const std::string& name) {
    return name == "CURRENT" || name == "IDENTITY" || name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-") || name.ends_with(".log") || name.ends_with(".sst") || name.ends_with(".dbtmp");
}

/// CURRENT last: without it there is no store.
void move_all(const fs::path& from, const fs::path& into, std::error_code& error) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(from, error))
        if (const auto name = entry.path().filename().string(); is_of_rocksdb(name) && name != "CURRENT") names.push_back(name);
    if (std::error_code unknown; fs::exists(from / "CURRENT", unknown)) names.emplace_back("CURRENT");
    for (const auto& name : names)
        if (!error) fs::rename(from / name, into / name, error);
}

}  // namespace

void drop_copy(const std::string& folder) {
    std::error_code error;
    const auto copy = fs::path(folder) / name_of_copy;
    fs::remove(copy / whole, error);   // first: without it the rest is no copy
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
    auto here = rules;
    here.wal_filter = nullptr;
    here.create_if_missing = true;
    rocksdb::DB* made = nullptr;
    auto status = rocksdb::DB::Open(here, beside.string(), &made);
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
    if (status.ok() && !make_empty(beside / whole)) status = rocksdb::Status::IOError("it cannot be synced");
    if (!status.ok()) return failed(folder.named(fmt::format("{}: files of it are gone and cannot be written anew: {}", folder.path(), status.ToString())));
    return {};
}

Result<void> take_copy(const std::string& folder) {
    const auto here = fs::path(folder), copy = here / name_of_copy, former = here / name_of_former;
    std::error_code error;
    if (!fs::exists(copy, error)) return {};
    const auto failed = [&](const std::string& why) { return fail(fmt::format("{}: files of it are gone, and a copy that was made of it cannot take their place: {}", folder, why)); };
    if (fs::exists(copy / whole, error)) {
        fs::create_directories(former, error);
        if (!error) move_all(here, former, error);
        if (error) return failed(error.message());
        if (!sync_path(former) || !sync_path(here)) return failed("it cannot be synced");
        fs::rename(copy / whole, copy / placing, error);
        if (error || !sync_path(copy)) return failed(error ? error.message() : "it cannot be synced");
    }
    if (fs::exists(copy / placing, error)) {
        move_all(copy, here, error);
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
