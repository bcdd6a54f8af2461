#pragma once
#include <cstdint>
#include <map>
#include <set>
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
/// for standard input, which is read once and does not change. A named pipe is taken as standard input is.
/// Core: one thread.
class DiskFiles final : public ManifestFiles {
  public:
    explicit DiskFiles(std::vector<std::string> sources);
    Look look() override;
    Writer writer_of(const std::string& path) override;
    Result<std::string> read(const std::string& path) override;

  private:
    std::vector<std::string> sources_;
    std::set<std::string> pipes_;                          ///< sources that were standard input or a pipe when they were named
    std::map<std::string, Result<std::string>> streams_;   ///< what was read from standard input and pipes
};

/// True for a name that a folder of manifests is read for.
bool is_manifest_name(const std::string& name);
/// Of all followed files together, in bytes.
inline constexpr std::size_t manifests_bytes_max = std::size_t{64} * 1024 * 1024;
/// The text of a file of at most `resources::manifest_bytes_max` bytes; `-` is standard input. The error
/// names the file.
Result<std::string> read_manifest_text(const std::string& path);

}  // namespace penstock::client
