#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "base/mark.h"
#include "base/result.h"

struct sqlite3;

namespace penstock::registry {

/// Tells a damaged registry file from a new or an older one. SQLite alone takes an empty file for a new database, leaves out the end
/// of a write-ahead log that it cannot read without a word, and does not see a changed byte in a body.
///
/// It rests on a checksum beside each object (table `sums`), and on the mark FILE.mark (base/mark.h): the version that was on the disk
/// for sure. Errors name the file, what is wrong and the cure; nothing is repaired. Core: under the registry's lock.
class DatabaseChecks {
  public:
    /// `:memory:`: nothing is checked.
    explicit DatabaseChecks(std::string path);

    /// Before SQLite opens the file.
    Result<void> before_open();
    /// The tables `meta` and `objects` are there, perhaps just made. Makes the table of the checksums where it can be written. A format
    /// newer than that one is not looked at.
    Result<void> after_open(sqlite3* db, std::uint64_t newest_format);
    /// What SQLite says of a file that it cannot use (SQLITE_CORRUPT, SQLITE_NOTADB), with the cure.
    [[nodiscard]] std::string damaged(const std::string& why) const;

    /// Within the transaction that writes the object (`body` null: it goes). False: SQLite's error is set.
    bool put_sum(sqlite3* db, const std::string& kind, const std::string& name_space, const std::string& name, std::uint64_t version, const std::string* body);
    /// The transaction is on the disk.
    void committed(std::uint64_t version);

  private:
    Result<void> compare(sqlite3* db, bool may_write);
    std::string path_;
    std::unique_ptr<Mark> mark_;         ///< null: there is none
    std::uint64_t marked_ = 0;           ///< version that was on the disk for sure; 0: not known
};

}  // namespace penstock::registry
