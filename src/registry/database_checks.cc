#include "registry/database_checks.h"

#include <sqlite3.h>

#include <filesystem>

#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/own_command.h"
#include "base/text.h"

namespace penstock::registry {
namespace {

namespace fs = std::filesystem;

/// A statement that ends with its scope.
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
    [[nodiscard]] bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

  private:
    sqlite3_stmt* statement_ = nullptr;
};

/// CRC-32C of all that makes the row, each part with its length in front.
std::uint64_t sum_of(const std::string& kind, const std::string& name_space, const std::string& name, std::uint64_t version, const std::string& body) {
    std::uint32_t sum = 0;
    for (const auto* part : {&kind, &name_space, &name, &body}) sum = crc32c(*part, crc32c(fmt::format("{}:", part->size()), sum));
    return crc32c(std::to_string(version), sum);
}

std::uint64_t meta(sqlite3* db, const char* key) {
    Statement value(db, "SELECT value FROM meta WHERE key=?");
    return value.bind(1, std::string(key)).step() == SQLITE_ROW ? value.number(0) : 0;
}

bool set_sums_version(sqlite3* db, std::uint64_t version) {
    Statement until(db, "INSERT INTO meta VALUES('sums', ?) ON CONFLICT DO UPDATE SET value=excluded.value");
    return until.bind(1, version).step() == SQLITE_DONE;
}

}  // namespace

DatabaseChecks::DatabaseChecks(std::string path) : path_(std::move(path)) {
    if (path_ != ":memory:") mark_ = std::make_unique<Mark>(path_ + ".mark");
}

Result<void> DatabaseChecks::before_open() {
    if (!mark_) return {};
    Mark::Values values;
    const auto state = mark_->read(values);
    if (!state) return std::unexpected(state.error());
    if (*state == Mark::State::damaged) log::warn("registry", "the registry's mark is damaged and is begun anew; changes that are missing cannot be told this time file={}", mark_->path());
    marked_ = parse_number<std::uint64_t>(values["version"]).value_or(0);
    std::error_code error;
    const auto size = fs::file_size(path_, error);
    if (marked_ > 0 && (error || size == 0))
        return fail(fmt::format("{}: is missing or empty, though resources were kept in it ({} says so); put it back, or restore a backup ({}); to begin anew, remove {}", path_, mark_->path(), restore_command(path_), mark_->path()));
    return {};
}

std::string DatabaseChecks::damaged(const std::string& why) const {
    return fmt::format("{}: is damaged: {}; restore a backup ({}), or move it away together with {}-wal and {}.mark to begin anew", path_, why, restore_command(path_), path_, path_);
}

Result<void> DatabaseChecks::after_open(sqlite3* db, std::uint64_t newest_format) {
    if (!mark_) return {};
    {
        Statement check(db, "PRAGMA quick_check(1)");
        const bool read = check.step() == SQLITE_ROW;
        if (!read || check.text(0) != "ok") return fail(damaged(read ? check.text(0) : sqlite3_errmsg(db)));
    }
    const auto version = meta(db, "version"), format = meta(db, "format");
    if (format > newest_format) return {};
    if (version < marked_)
        return fail(fmt::format("{}: has the changes up to version {}, though those up to {} had been written: the rest is missing (was {}-wal removed, cut or damaged?); put the files back, or restore a backup ({}); "
                                "to go on with what is there, remove {}",
                                path_, version, marked_, path_, restore_command(path_), mark_->path()));
    Statement any(db, "SELECT count(*) FROM objects");
    if (any.step() != SQLITE_ROW) return fail(damaged(sqlite3_errmsg(db)));
    const bool has_objects = any.number(0) > 0;
    if (has_objects && (format == 0 || version == 0)) return fail(damaged("it has objects, but does not say its format and version"));
    const bool may_write = sqlite3_db_readonly(db, "main") == 0;
    if (may_write && sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS sums(kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, sum INTEGER NOT NULL,"
                                      " PRIMARY KEY(kind, namespace, name)) WITHOUT ROWID",
                                  nullptr, nullptr, nullptr) != SQLITE_OK)
        return fail(fmt::format("{}: {}; is the disk full or read-only?", path_, sqlite3_errmsg(db)));
    if (auto same = compare(db, may_write); !same) return same;
    if (version > 0) committed(version);
    if (may_write && !mark_->sync() && version > 0) log::warn("registry", "the registry's mark cannot be written; changes that are missing cannot be told at the next start file={}", mark_->path());
    return {};
}

/// An older version of penstock does not keep checksums: what it wrote is taken as it is, and has them from now on.
Result<void> DatabaseChecks::compare(sqlite3* db, bool may_write) {
    const auto version = meta(db, "version");
    const bool kept = version > 0 && meta(db, "sums") == version;
    if (!kept) {
        if (!may_write || version == 0) return {};
        sqlite3_exec(db, "BEGIN; DELETE FROM sums", nullptr, nullptr, nullptr);
    }
    bool written = true;
    {
        Statement all(db, "SELECT o.kind, o.namespace, o.name, o.version, o.body, s.sum FROM objects o LEFT JOIN sums s USING(kind, namespace, name)");
        int code = 0;
        while ((code = all.step()) == SQLITE_ROW && written) {
            const auto kind = all.text(0), space = all.text(1), name = all.text(2), body = all.text(4);
            if (!kept) written = put_sum(db, kind, space, name, all.number(3), &body);
            else if (all.is_null(5) || all.number(5) != sum_of(kind, space, name, all.number(3), body))
                return fail(damaged(fmt::format("the object {} {}{}{} is not what was written", kind, space, space.empty() ? "" : "/", name)));
        }
        if (code != SQLITE_DONE && written) return fail(damaged(sqlite3_errmsg(db)));
    }
    if (!kept) {
        written = written && set_sums_version(db, version) && sqlite3_exec(db, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK;
        return written ? Result<void>() : Result<void>(fail(fmt::format("{}: {}; is the disk full or read-only?", path_, sqlite3_errmsg(db))));
    }
    Statement gone(db, "SELECT s.kind, s.namespace, s.name FROM sums s LEFT JOIN objects o USING(kind, namespace, name) WHERE o.kind IS NULL");
    if (gone.step() == SQLITE_ROW) return fail(damaged(fmt::format("the object {} {}/{} is not there, and was not deleted", gone.text(0), gone.text(1), gone.text(2))));
    return {};
}

bool DatabaseChecks::put_sum(sqlite3* db, const std::string& kind, const std::string& name_space, const std::string& name, std::uint64_t version, const std::string* body) {
    if (!mark_) return true;
    Statement row(db, body != nullptr ? "INSERT INTO sums VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET sum=excluded.sum" : "DELETE FROM sums WHERE kind=? AND namespace=? AND name=?");
    row.bind(1, kind).bind(2, name_space).bind(3, name);
    if (body != nullptr) row.bind(4, sum_of(kind, name_space, name, version, *body));
    return row.step() == SQLITE_DONE && set_sums_version(db, version);
}

void DatabaseChecks::committed(std::uint64_t version) {
    if (mark_) [[maybe_unused]] const auto written = mark_->write({{"version", std::to_string(version)}});
}

}  // namespace penstock::registry
