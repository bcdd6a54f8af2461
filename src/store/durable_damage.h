#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/mark.h"
#include "base/result.h"

namespace penstock::store {

class SealedFiles;

/// How far the logs of a store can be read without a gap, and what stands behind the first one.
struct LogState {
    std::uint64_t end = 0;               ///< number of the last change before the gap; 0: there is none
    std::string broken;                  ///< name of the log in which the gap is; empty: there is none, but perhaps a torn end
    std::uint64_t broken_at = 0;         ///< byte of its content (what is sealed counts as it was before)
    std::uint64_t behind = 0;            ///< whole records behind the gap
    std::uint64_t newest = 0;            ///< number of the newest change among them
    std::uint64_t stated = 0;            ///< the newest change that one of them says was on the disk when it was written
    bool is_readable = true;             ///< false: the disk did not give them all; nothing can be said
    bool has_statements = false;         ///< any record says so: the logs were written by a version that does
    std::vector<std::string> logs;       ///< names, oldest first
};
/// Of the logs with numbers from `least` on; older ones are in the tables already.
LogState read_logs(SealedFiles& files, const std::string& folder, std::uint64_t least);
/// Bytes from the front of a file in RocksDB's log form (a MANIFEST is one) that are whole records.
std::uint64_t whole_bytes(SealedFiles& files, const std::string& path);

/// Tells what a crash left from what something damaged, before RocksDB opens a folder: to RocksDB the end of what it can read is the
/// end of the log, and a folder whose CURRENT is gone is a new one.
///
/// It rests on two things that are written on the way. A statement stands in the log with each group of batches: up to which change
/// all was synced before. The mark (base/mark.h), beside the folder, says the same of the last group, and how long the list of files
/// (MANIFEST) was; a second one in the folder (`penstock.mark`) says it where the first is gone or damaged. What was on the disk for sure and is not there now is damage; what comes behind and cannot be read was never
/// acknowledged.
///
/// Thread: of the store's writer, but for listed(), which any thread calls, and notice().
class DamageCheck {
  public:
    /// `mark_file` empty: none is kept. `boot`: see boot_id().
    DamageCheck(SealedFiles& files, std::string folder, std::string mark_file, std::string boot);

    /// Number of the newest change that the marks, or the logs that are there, know of the store of that name; 0: of none. Before
    /// look().
    [[nodiscard]] std::uint64_t newest_of(const std::string& identity) const;
    /// Before RocksDB opens the folder. An error: it must not be opened, with the cure. A text: RocksDB has to repair it first, and why.
    Result<std::string> look();
    /// From within the opening, before the logs from `least` on are replayed: damage is set aside and told in notice().
    void look_at_logs(std::uint64_t least);
    /// The folder holds `changes` changes that are on the disk, in that log; the mark begins anew with that.
    void opened(std::uint64_t log, std::uint64_t changes);
    /// The folder was written anew while it was open: what the mark says is not about what is in it now.
    void forget();
    /// Changes up to this one were written to that log, and synced too or not.
    void wrote(std::uint64_t log, std::uint64_t change, bool synced);
    /// The list of files in force, and how much of it is synced.
    void listed(std::uint64_t number, std::uint64_t bytes);
    /// The folder's own name (IDENTITY), by which a mark is known to be about it, stands in it again where somebody deleted it.
    void put_identity_back();
    /// All is written, the process ends.
    void closed();

    /// What goes into the log with the next group of batches (rocksdb::WriteBatch::PutLogData).
    [[nodiscard]] std::string statement() const;

    /// Keeps files (names in the folder) in `lost`, by another name for the same bytes, and writes down why.
    void set_aside(const std::vector<std::string>& names, const std::string& why);
    /// What was damaged and set aside, as long as the folder `lost` is there. Any thread.
    [[nodiscard]] std::string notice() const;

  private:
    Result<std::string> look_at_current();
    [[nodiscard]] std::string identity() const;
    void write_mark();
    SealedFiles& files_;
    std::string folder_, boot_;
    std::unique_ptr<Mark> mark_, twin_;   ///< null: none is kept
    std::string marked_by_;               ///< path of the one that before_ is of
    Mark::Values before_;                 ///< what the mark said when the folder was opened; empty: nothing
    std::uint64_t nonce_ = 0;             ///< of the statements of this process: no client can write one
    std::uint64_t synced_ = 0;
    bool is_unread_ = false;              ///< the logs could not be looked at
    mutable std::mutex guard_;            ///< what follows
    Mark::Values values_;
    bool is_open_ = false;                ///< before that, the mark is what the last process said
    std::string unwritten_;               ///< a notice that the disk did not take
};

}  // namespace penstock::store
