#include "registry/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::registry {
namespace {

constexpr int format_version = 1;             // of the file; frozen with the tables below, see docs/internals/formats.md

/// A prepared statement that ends with its scope.
class Statement {
  public:
    Statement(sqlite3* db, const char* text) { sqlite3_prepare_v2(db, text, -1, &statement_, nullptr); }
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    Statement& bind(int at, const std::string& text) {
        sqlite3_bind_text(statement_, at, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
        return *this;
    }
    Statement& bind(int at, std::uint64_t number) {
        sqlite3_bind_int64(statement_, at, static_cast<sqlite3_int64>(number));
        return *this;
    }
    int step() { return statement_ == nullptr ? SQLITE_ERROR : sqlite3_step(statement_); }
    [[nodiscard]] std::string text(int column) const {
        const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
        return bytes == nullptr ? std::string() : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
    }
    [[nodiscard]] std::uint64_t number(int column) const { return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column)); }

  private:
    sqlite3_stmt* statement_ = nullptr;
};

/// The file is there, on a file system that takes no writes.
bool is_read_only(const std::string& path) {
    struct statvfs about {};
    return ::statvfs(path.c_str(), &about) == 0 && (about.f_flag & ST_RDONLY) != 0;
}

bool run(sqlite3* db, const char* text) { return sqlite3_exec(db, text, nullptr, nullptr, nullptr) == SQLITE_OK; }

}  // namespace

Database::~Database() { sqlite3_close(db_); }

Result<void> Database::open(const std::string& path) {
    path_ = path;
    checks_.emplace(path);
    if (path != ":memory:") {
        const auto parent = std::filesystem::path(path).parent_path().string();
        auto folder = HeldFolder::open(parent.empty() ? "." : parent);
        if (!folder) return std::unexpected(folder.error());
        folder_ = std::move(*folder);
    }
    if (auto there = checks_->before_open(); !there) return there;
    return connect();
}

Result<void> Database::connect() {
    read_only_ = false;
    sqlite3_close(std::exchange(db_, nullptr));
    if (sqlite3_open(path_.c_str(), &db_) != SQLITE_OK) return fail(fmt::format("{}: cannot be opened: {}", path_, sqlite3_errmsg(db_)));
    sqlite3_busy_timeout(db_, 2000);
    const bool good = run(db_, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                               "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL);"
                               "CREATE TABLE IF NOT EXISTS objects(kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,"
                               " body BLOB NOT NULL, PRIMARY KEY(kind, namespace, name)) WITHOUT ROWID;");
    const auto code = sqlite3_errcode(db_) & 0xFF;
    const std::string why = good ? "" : sqlite3_errmsg(db_);
    if ((!good || sqlite3_db_readonly(db_, "main") == 1) && is_read_only(path_)) {
        if (auto opened = connect_to_read(); !opened) return opened;
    } else if (!good) {
        if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return fail(checks_->damaged(why));
        const char* cure = code == SQLITE_FULL ? "there is no room on its disk; make some" : code == SQLITE_BUSY || code == SQLITE_LOCKED ? "is another penstock running on this data directory?"
                                                                                                                                         : "is another penstock running on this data directory, or is it not writable?";
        return fail(fmt::format("{}: {}; {}", path_, why, cure));
    }
    struct stat file {};
    if (::stat(path_.c_str(), &file) == 0) device_ = file.st_dev, inode_ = file.st_ino;
    if (auto whole = checks_->after_open(db_, format_version); !whole) return whole;
    if (auto known = check_format(); !known) return known;
    log_inode_ = ::stat((path_ + "-wal").c_str(), &file) == 0 ? file.st_ino : 0;   // SQLite has made it by now
    return {};
}

/// SQLite needs locks and an index beside a database with a write-ahead log, which cannot be had on such a file system. Without a log that counts
/// the file alone is all there is (`immutable`). Else both are read from a copy in memory (/dev/shm), whose names go at once.
Result<void> Database::connect_to_read() {
    namespace fs = std::filesystem;
    sqlite3_close(std::exchange(db_, nullptr));
    std::error_code error;
    const auto log_bytes = fs::file_size(path_ + "-wal", error);
    std::string name, place;
    if (error || log_bytes == 0) {
        name = "file:";
        for (const char c : path_)
            if (c == '?' || c == '#' || c == '%') name += fmt::format("%{:02X}", static_cast<unsigned char>(c));
            else name += c;
        name += "?immutable=1";
    } else {
        place = "/dev/shm/penstock-XXXXXX";
        if (::mkdtemp(place.data()) == nullptr) return fail(fmt::format("{}: the file system is read-only, and the file and its log cannot be read in {}: {}; make it writable", path_, place, std::strerror(errno)));
        name = place + "/registry";
        error.clear();
        fs::copy_file(path_, name, error);
        if (!error) fs::copy_file(path_ + "-wal", name + "-wal", error);
    }
    const int flags = place.empty() ? SQLITE_OPEN_READONLY | SQLITE_OPEN_URI : SQLITE_OPEN_READWRITE;
    const bool good = !(error && !place.empty()) && sqlite3_open_v2(name.c_str(), &db_, flags, nullptr) == SQLITE_OK && run(db_, "PRAGMA locking_mode=EXCLUSIVE; SELECT count(*) FROM meta;");
    const auto why = error && !place.empty() ? error.message() : std::string(sqlite3_errmsg(db_));
    if (!place.empty()) fs::remove_all(place, error);
    if (!good) return fail(fmt::format("{}: the file system is read-only, and the file cannot be read as it is: {}; make it writable", path_, why));
    read_only_ = true;
    log::error("registry", "the file system is read-only; resources are served as they are and cannot be changed file={}", path_);
    return {};
}

Result<void> Database::check_format() {
    Statement format(db_, "SELECT value FROM meta WHERE key='format'");
    if (format.step() == SQLITE_ROW) {
        if (format.number(0) > format_version)
            return fail(fmt::format("{}: written by a newer penstock (format {}, this one reads up to {}); use that version", path_, format.number(0), format_version));
    } else if (!run(db_, fmt::format("INSERT INTO meta VALUES('format', {}),('version', 1)", format_version).c_str())) {
        return fail(fmt::format("{}: {}", path_, sqlite3_errmsg(db_)));
    }
    return {};
}

bool Database::is_there() const noexcept {
    struct stat file {};
    return path_ == ":memory:" || (db_ != nullptr && ::stat(path_.c_str(), &file) == 0 && file.st_dev == device_ && file.st_ino == inode_ && log_state() == Log::there);
}

/// A log that was deleted takes writes, all of which end with the process.
Database::Log Database::log_state() const noexcept {
    struct stat file {};
    if (read_only_ || log_inode_ == 0) return Log::there;
    if (::stat((path_ + "-wal").c_str(), &file) != 0) return Log::gone;
    return file.st_dev == device_ && file.st_ino == log_inode_ ? Log::there : Log::replaced;
}

Result<void> Database::ensure_file() {
    if (path_ == ":memory:") return {};
    struct stat file {};
    if (::stat(path_.c_str(), &file) == 0) {
        if (db_ == nullptr) return connect();   // it was written anew, and could not be opened then
        if (file.st_dev != device_ || file.st_ino != inode_)
            return fail(fmt::format("{}: another file stands in the place of the one that penstock has open, and a change would be lost with that one; restart penstock, or put the file back", path_));
        const auto log = log_state();
        if (log == Log::gone) return write_anew();
        if (log == Log::replaced) return fail(fmt::format("{}-wal: another file stands in the place of the one that penstock has open, and a change would be lost with that one; put the file back, or remove the other one", path_));
        if (!read_only_) return {};
        return is_read_only(path_) ? Result<void>(fail(fmt::format("{}: the file system is read-only; make it writable", path_))) : connect();
    }
    if (errno != ENOENT && errno != ENOTDIR) return fail(fmt::format("{}: {}", path_, std::strerror(errno)));
    return write_anew();
}

/// SQLite still reads the file that was deleted, and that knows what this build does not (kinds that it does not serve).
Result<void> Database::write_anew() {
    namespace fs = std::filesystem;
    if (db_ == nullptr) return fail(fmt::format("{}: it is gone", path_));
    std::error_code error;
    if (auto there = folder_->ready(); !there) return there;
    const auto beside = path_ + ".new";
    fs::remove(beside, error);
    if (auto copied = copy_to(beside); !copied) return copied;
    fs::permissions(beside, fs::perms::owner_read | fs::perms::owner_write, error);
    const int file = ::open(beside.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = file >= 0 && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    if (!synced) return fail(fmt::format("{}: {}", beside, std::strerror(errno)));
    sqlite3_close(std::exchange(db_, nullptr));   // first: it deletes the log by its name
    if (::rename(beside.c_str(), path_.c_str()) != 0) return fail(fmt::format("{}: {}", path_, std::strerror(errno)));
    log::error("registry", "the registry's file, or its log, was deleted while it was open, and is written anew file={}", path_);
    return connect();
}

Result<std::uint64_t> Database::last_version() {
    Statement last(db_, "SELECT value FROM meta WHERE key='version'");
    if (last.step() != SQLITE_ROW) return fail(fmt::format("{}: has no version: {}", path_, sqlite3_errmsg(db_)));
    return last.number(0);
}

Result<void> Database::each(const Visit& visit) {
    Statement all(db_, "SELECT kind, namespace, name, body FROM objects");
    int code = 0;
    while ((code = all.step()) == SQLITE_ROW) visit(all.text(0), all.text(1), all.text(2), all.text(3));
    if (code != SQLITE_DONE) return fail(fmt::format("{}", checks_->damaged(sqlite3_errmsg(db_))));
    return {};
}

std::unexpected<Error> Database::failed() {
    const auto code = sqlite3_errcode(db_) & 0xFF;
    full_ = code == SQLITE_FULL;
    auto why = fmt::format("{}: cannot be written: {}", path_, sqlite3_errmsg(db_));
    if (db_ != nullptr) run(db_, "ROLLBACK");
    return fail(std::move(why));
}

Result<void> Database::write(const std::string& kind, const std::string& name_space, const std::string& name, const std::string* body, std::uint64_t version) {
    full_ = false;
    if (auto there = ensure_file(); !there) return there;
    if (!run(db_, "BEGIN")) return failed();
    if (body != nullptr) {
        Statement put(db_, "INSERT INTO objects VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET version=excluded.version, body=excluded.body");
        if (put.bind(1, kind).bind(2, name_space).bind(3, name).bind(4, version).bind(5, *body).step() != SQLITE_DONE) return failed();
    } else {
        Statement erase(db_, "DELETE FROM objects WHERE kind=? AND namespace=? AND name=?");
        if (erase.bind(1, kind).bind(2, name_space).bind(3, name).step() != SQLITE_DONE) return failed();
    }
    if (!checks_->put_sum(db_, kind, name_space, name, version, body)) return failed();
    Statement count(db_, "UPDATE meta SET value=? WHERE key='version'");
    if (count.bind(1, version).step() != SQLITE_DONE || !run(db_, "COMMIT")) return failed();
    checks_->committed(version);
    return {};
}

Result<void> Database::probe() {
    full_ = false;
    if (auto there = ensure_file(); !there) return there;
    // Another value each time: a page that stays as it is is not written.
    if (!run(db_, "INSERT INTO meta VALUES('probes', 1) ON CONFLICT DO UPDATE SET value=value+1")) return failed();
    return {};
}

Result<void> Database::copy_to(const std::string& path) {
    Statement copy(db_, "VACUUM INTO ?");
    if (copy.bind(1, path).step() == SQLITE_DONE) return {};
    auto why = fmt::format("{}: cannot be written: {}", path, sqlite3_errmsg(db_));
    std::error_code error;
    std::filesystem::remove(path, error);   // the part that is there takes room, perhaps the last
    return fail(std::move(why));
}

}  // namespace penstock::registry
