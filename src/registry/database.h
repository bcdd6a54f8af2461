#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/held_folder.h"
#include "base/result.h"
#include "registry/database_checks.h"

struct sqlite3;

namespace penstock::registry {

/// The registry's file: one SQLite database with a write-ahead log, opened exclusively. Format: docs/internals/formats.md.
/// Core: under the registry's lock.
class Database {
  public:
    Database() = default;
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    /// Opens or creates; `:memory:` for tests. A file on a file system that is read-only is opened for reading; write() opens it
    /// anew when that has changed. The error names the file and the cure.
    Result<void> open(const std::string& path);
    /// Version of the last committed write; 1 in a new file.
    Result<std::uint64_t> last_version();
    using Visit = std::function<void(const std::string& kind, const std::string& name_space, const std::string& name, const std::string& body)>;
    Result<void> each(const Visit& visit);
    /// One transaction: the object (null: it goes) and the version. On disk when it returns. A file that was deleted while it was
    /// open is written anew first; nothing is written while another one, or another file system, stands in its place.
    Result<void> write(const std::string& kind, const std::string& name_space, const std::string& name, const std::string* body, std::uint64_t version);
    /// Whether writes are taken (again): writes a row of its own.
    Result<void> probe();
    /// The file that is open, and its log, still stand under their names.
    [[nodiscard]] bool is_there() const noexcept;
    /// The last write failed for want of room.
    [[nodiscard]] bool disk_is_full() const noexcept { return full_; }
    /// A consistent copy into a new file, while running. Leaves nothing behind when it fails.
    Result<void> copy_to(const std::string& path);

  private:
    Result<void> connect();
    Result<void> connect_to_read();
    Result<void> check_format();
    /// The file that is open is the one that stands under its name.
    Result<void> ensure_file();
    Result<void> write_anew();
    enum class Log : std::uint8_t { there, gone, replaced };
    [[nodiscard]] Log log_state() const noexcept;
    std::unexpected<Error> failed();
    std::string path_;
    std::optional<DatabaseChecks> checks_;   ///< since open()
    sqlite3* db_ = nullptr;
    bool read_only_ = false, full_ = false;
    std::uint64_t device_ = 0, inode_ = 0;   ///< of the file that is open
    std::uint64_t log_inode_ = 0;            ///< of its write-ahead log; 0: it has none
    std::shared_ptr<HeldFolder> folder_;     ///< null: in memory
};

}  // namespace penstock::registry
