#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"

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

    /// Opens or creates; `:memory:` for tests. The error names the file and the cure.
    Result<void> open(const std::string& path);
    /// Version of the last committed write; 1 in a new file.
    Result<std::uint64_t> last_version();
    using Visit = std::function<void(const std::string& kind, const std::string& name_space, const std::string& name, const std::string& body)>;
    Result<void> each(const Visit& visit);
    /// One transaction: the object (null: it goes) and the version. On disk when it returns.
    Result<void> write(const std::string& kind, const std::string& name_space, const std::string& name, const std::string* body, std::uint64_t version);
    /// A consistent copy into a new file, while running.
    Result<void> copy_to(const std::string& path);

  private:
    std::string path_;
    sqlite3* db_ = nullptr;
};

}  // namespace penstock::registry
