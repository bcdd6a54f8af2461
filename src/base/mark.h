#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"

namespace penstock {

/// A small file beside a store that says how far the store had come: what is missing from the store can be told by it, even where
/// the store alone would look whole (a log cut at the end of a record, a file that is gone).
///
/// It is written again and again and never synced but at the end, so it costs a store next to nothing; after a power cut it may say
/// less than was true, and never more. Two places are written in turn, each with a checksum, so that one is always whole. The form is
/// text: docs/internals/formats.md. Not for use by two threads at once.
class Mark {
  public:
    /// Names and values in letters that are neither spaces nor `=`.
    using Values = std::map<std::string, std::string>;

    explicit Mark(std::string path) : path_(std::move(path)) {}
    ~Mark();
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    enum class State : std::uint8_t {
        missing,                         ///< no file, or an empty one: nothing is known
        damaged,                         ///< there is something, and none of its places is whole
        good,
    };
    /// What was written last. An error: the file cannot be read.
    Result<State> read(Values& into);
    /// Makes the file where there is none (mode 0600), also when it was deleted meanwhile. False: the disk did not take it, and the
    /// file says what it said before.
    bool write(const Values& values);
    /// What was written is on the disk, and so is the file's name.
    bool sync();

  private:
    std::string path_;
    int file_ = -1;
    std::uint64_t generation_ = 0;
    bool is_read_ = false;
};

/// One value for each start of the machine; empty where the system does not tell. What a process wrote is there for the next one of
/// the same start, synced or not.
std::string boot_id();

}  // namespace penstock
