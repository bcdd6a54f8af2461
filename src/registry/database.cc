#include "registry/database.h"

#include <sqlite3.h>

#include <fmt/format.h>

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

bool run(sqlite3* db, const char* text) { return sqlite3_exec(db, text, nullptr, nullptr, nullptr) == SQLITE_OK; }

}  // namespace

Database::~Database() { sqlite3_close(db_); }

Result<void> Database::open(const std::string& path) {
    path_ = path;
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) return fail(fmt::format("{}: cannot be opened: {}", path, sqlite3_errmsg(db_)));
    sqlite3_busy_timeout(db_, 2000);
    if (!run(db_, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                  "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL);"
                  "CREATE TABLE IF NOT EXISTS objects(kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,"
                  " body BLOB NOT NULL, PRIMARY KEY(kind, namespace, name)) WITHOUT ROWID;"))
        return fail(fmt::format("{}: {}; is another penstock running on this data directory, or is it not writable?", path, sqlite3_errmsg(db_)));
    Statement format(db_, "SELECT value FROM meta WHERE key='format'");
    if (format.step() == SQLITE_ROW) {
        if (format.number(0) > format_version)
            return fail(fmt::format("{}: written by a newer penstock (format {}, this one reads up to {}); use that version", path, format.number(0), format_version));
    } else if (!run(db_, fmt::format("INSERT INTO meta VALUES('format', {}),('version', 1)", format_version).c_str())) {
        return fail(fmt::format("{}: {}", path, sqlite3_errmsg(db_)));
    }
    return {};
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
    if (code != SQLITE_DONE) return fail(fmt::format("{}: cannot be read: {}", path_, sqlite3_errmsg(db_)));
    return {};
}

Result<void> Database::write(const std::string& kind, const std::string& name_space, const std::string& name, const std::string* body, std::uint64_t version) {
    auto failed = [&] {
        const auto why = fmt::format("the registry file cannot be written: {}", sqlite3_errmsg(db_));
        run(db_, "ROLLBACK");
        return fail(why);
    };
    if (!run(db_, "BEGIN")) return failed();
    if (body != nullptr) {
        Statement put(db_, "INSERT INTO objects VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET version=excluded.version, body=excluded.body");
        if (put.bind(1, kind).bind(2, name_space).bind(3, name).bind(4, version).bind(5, *body).step() != SQLITE_DONE) return failed();
    } else {
        Statement erase(db_, "DELETE FROM objects WHERE kind=? AND namespace=? AND name=?");
        if (erase.bind(1, kind).bind(2, name_space).bind(3, name).step() != SQLITE_DONE) return failed();
    }
    Statement count(db_, "UPDATE meta SET value=? WHERE key='version'");
    if (count.bind(1, version).step() != SQLITE_DONE || !run(db_, "COMMIT")) return failed();
    return {};
}

Result<void> Database::copy_to(const std::string& path) {
    Statement copy(db_, "VACUUM INTO ?");
    if (copy.bind(1, path).step() != SQLITE_DONE) return fail(fmt::format("{}: cannot be written: {}", path, sqlite3_errmsg(db_)));
    return {};
}

}  // namespace penstock::registry
