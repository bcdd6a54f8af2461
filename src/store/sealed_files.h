#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/key_ring.h"

namespace rocksdb {
class FileSystem;
}

namespace penstock::store {

/// Files of RocksDB that are sealed with AES-256-GCM on their way to the disk: logs, tables and manifests. Files that were written
/// in the clear, or under an older key of the ring, are read as they are; what is written gets the newest key, or none.
///
/// A file: 64 bytes of head (magic, key number, salt, a check of the key), then pieces of 4 bytes of length, at most 16 KiB of
/// ciphertext and 16 bytes of tag. Each file has a key of its own, derived from the ring's by its salt, and numbers its pieces:
/// that is the nonce, so none is used twice and no piece can stand in another's place. See docs/internals/formats.md.
///
/// Any thread.
class SealedFiles {
  public:
    /// `below` null: the machine's own file system.
    static std::shared_ptr<SealedFiles> make(std::shared_ptr<rocksdb::FileSystem> below);
    virtual ~SealedFiles() = default;
    virtual std::shared_ptr<rocksdb::FileSystem> files() = 0;
    /// What seals from now on: the ring's last key, or none.
    virtual void set(KeyRing ring, bool seal) = 0;
    /// Where newest_log_is_there() looks; before the first log is begun.
    virtual void watch_logs(std::string folder) = 0;
    /// The log that was begun last in the watched folder still stands under its name. One that was deleted, with its folder or by an
    /// unmount, goes on taking writes, all of which are lost with it. True before the first.
    [[nodiscard]] virtual bool newest_log_is_there() = 0;
    /// The number of sealable files in the folder by key; 0: in the clear. An error names a file whose key is not in the ring.
    virtual Result<std::map<std::uint32_t, std::size_t>> census(const std::string& folder) = 0;
    /// What a file holds, read as far as it goes: one text, or several where pieces between them do not open (of a file in the clear
    /// it is always one). For looking at files that are damaged; they are read whole.
    virtual Result<std::vector<std::string>> runs(const std::string& path) = 0;
    /// Calls `listed` whenever the list of files that is in force in the folder (the MANIFEST that CURRENT names) is another one, or
    /// more of it is synced: its number, and bytes of its content.
    virtual void watch(const std::string& folder, std::function<void(std::uint64_t number, std::uint64_t bytes)> listed) = 0;
    /// Number of the log in the watched folder that was written to last; 0: none was.
    [[nodiscard]] virtual std::uint64_t last_log() const noexcept = 0;
};

}  // namespace penstock::store
