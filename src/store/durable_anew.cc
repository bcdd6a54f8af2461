#include "store/durable_anew.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>

#include <fmt/format.h>

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t batch_bytes = 1 << 20;
constexpr const char* name_of_copy = "anew";

}  // namespace

Result<void> copy_anew(rocksdb::DB& from, const rocksdb::Options& rules, const std::string& folder, dev_t device) {
    std::error_code error;
    struct stat place {};
    auto above = fs::absolute(folder);
    while (::stat(above.c_str(), &place) != 0 && above != above.parent_path()) above = above.parent_path();
    if (place.st_dev != device) return fail(fmt::format("{}: its files are gone, and it is not on the file system it was on; mount that again", folder));
    fs::create_directories(folder, error);
    if (error) return fail(fmt::format("{}: its files are gone, and it cannot be made: {}", folder, error.message()));
    if (fs::exists(fs::path(folder) / "CURRENT", error)) return fail(fmt::format("{}: other files stand in the place of those that are open; restart penstock, or put them back", folder));
    fs::permissions(folder, fs::perms::owner_all, error);
    const auto beside = (fs::path(folder) / name_of_copy).string();
    fs::remove_all(beside, error);
    auto here = rules;
    here.wal_filter = nullptr;
    here.create_if_missing = true;
    rocksdb::DB* made = nullptr;
    auto status = rocksdb::DB::Open(here, beside, &made);
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
        if (status.ok()) status = at->status();
    }
    if (status.ok()) status = to->Write(without_log, &batch);
    if (status.ok()) status = to->Flush({});
    if (status.ok()) status = to->Close();
    if (!status.ok()) return fail(fmt::format("{}: its files are gone and cannot be written anew: {}", folder, status.ToString()));
    return {};
}

Result<void> take_copy(const std::string& folder) {
    const auto beside = fs::path(folder) / name_of_copy;
    std::error_code error;
    // CURRENT last: without it there is no store.
    for (const auto& entry : fs::directory_iterator(beside, error)) {
        if (entry.path().filename() == "CURRENT" || error) continue;
        fs::rename(entry.path(), fs::path(folder) / entry.path().filename(), error);
        if (error) break;
    }
    if (!error) fs::rename(beside / "CURRENT", fs::path(folder) / "CURRENT", error);
    if (error) return fail(fmt::format("{}: its files are gone and cannot be written anew: {}", folder, error.message()));
    fs::remove_all(beside, error);
    return {};
}

}  // namespace penstock::store
