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
    /// What the store that is open in the watched folder needs: its list of files, its logs and tables. They are kept open from now on
    /// until the store deletes them, so that one that somebody else deletes can still be read, and no other file is taken for it.
    virtual void hold() = 0;
    /// The store is closed.
    virtual void let_go() = 0;
    struct Stand {
        enum class State : std::uint8_t {
            there,
            gone,                        ///< deleted or moved, alone, with its folder or by an unmount; the open file goes on taking writes
            replaced,                    ///< another file has its name
        };
        State state = State::there;
        std::string name;                ///< of the first one that is not there
    };
    /// Whether what is held stands under its names. `tables` false: they are left out, which is cheap.
    [[nodiscard]] virtual Stand stand(bool tables) = 0;
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
