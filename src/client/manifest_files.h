#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace penstock::client {

/// One manifest file as it stands at one moment. Only the marks that change when it is written, renamed or replaced; nothing is read.
struct FileMark {
    std::string path;
    std::uint64_t device = 0, inode = 0, size = 0;
    std::int64_t modified_ns = 0, changed_ns = 0;    ///< since the Unix epoch, as the file system has them
    bool operator==(const FileMark&) const = default;
};

/// One file or folder that is followed.
struct SourceMark {
    std::string path;
    std::string fault;                   ///< not empty: it, or a file in it, is not there or cannot be read; why
    bool is_folder = false;
    std::uint64_t device = 0, inode = 0;
    std::vector<FileMark> files;         ///< in order of name
    bool operator==(const SourceMark&) const = default;
};
using Look = std::vector<SourceMark>;

/// Whether some process has a file open for writing.
enum class Writer : std::uint8_t { none, some, unknown };

/// Where manifests come from. On the disk: DiskFiles; tests give what they want to be seen.
class ManifestFiles {
  public:
    virtual ~ManifestFiles() = default;
    virtual Look look() = 0;
    virtual Writer writer_of(const std::string& path) = 0;
    virtual Result<std::string> read(const std::string& path) = 0;
};

/// Files, folders (their *.yaml, *.yml and *.json, not those whose name begins with a dot, which are editors' and mounts' own) and `-`
/// for standard input, which is read once and does not change. A named pipe is taken as standard input is. Neither is waited for: each
/// look takes what has been written, and until the writer has ended that is a fault of the source.
/// Core: one thread.
class DiskFiles final : public ManifestFiles {
  public:
    explicit DiskFiles(std::vector<std::string> sources);
    ~DiskFiles() override;
    DiskFiles(const DiskFiles&) = delete;
    DiskFiles& operator=(const DiskFiles&) = delete;
    Look look() override;
    Writer writer_of(const std::string& path) override;
    Result<std::string> read(const std::string& path) override;

  private:
    /// Standard input, or a source that was a pipe when it was named.
    struct Stream {
        int file = -1;
        bool had_writer = false;         ///< somebody has, or had, the other end
        bool has_ended = false;
        std::string text, fault;
    };
    static void pump(const std::string& path, Stream& stream);
    std::vector<std::string> sources_;
    std::map<std::string, Stream> streams_;
};

/// True for a name that a folder of manifests is read for.
bool is_manifest_name(const std::string& name);
/// Of all followed files together, in bytes.
inline constexpr std::size_t manifests_bytes_max = std::size_t{64} * 1024 * 1024;
/// The text of a file of at most `resources::manifest_bytes_max` bytes; `-` is standard input. The error
/// names the file. `must_be_file`: pipes and devices, which may hold up whoever reads them, are refused.
Result<std::string> read_manifest_text(const std::string& path, bool must_be_file = false);

}  // namespace penstock::client
