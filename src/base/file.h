#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"

namespace penstock {

/// Whether a pipe or a device may stand where a file is read: for what a person names on a command line (`<(pass show key)`), and
/// for nothing that runs without one.
enum class Streams : std::uint8_t { refused, taken };

/// What is read at most of a file, in bytes, where nothing else is said.
inline constexpr std::size_t file_bytes_max = std::size_t{16} * 1024 * 1024;
/// For a file of our own, which may be of any size.
inline constexpr std::size_t no_bytes_max = static_cast<std::size_t>(-1);

/// The whole of a file. With Streams::refused it never waits: a pipe, a device or a folder in its place is an
/// error, and so is one that cannot be opened or read, or that holds more than `bytes_max` bytes: a device may
/// have no end. The error begins with the path. Any thread.
Result<std::string> read_whole_file(const std::filesystem::path& path, Streams streams = Streams::refused,
                                    std::size_t bytes_max = file_bytes_max);
/// What is left of an open file, pipe or device up to its end. It waits for what is still to come; more than
/// `bytes_max` bytes are an error, which begins with `name`. The caller keeps the descriptor. Any thread.
Result<std::string> read_to_end(int file, const std::string& name, std::size_t bytes_max = file_bytes_max);

/// The lines of an open file, pipe or device, each as soon as its end has come. It reads ahead, so that
/// nobody else may read the same descriptor, which the caller keeps. One thread.
class LineReader {
  public:
    /// `name`: what errors call it. `bytes_max`: of one line, without its end.
    LineReader(int file, std::string name, std::size_t bytes_max);
    /// The next line without its newline, into `line`; false: there is none. The last one needs no newline.
    /// Waits for it. An error (it cannot be read, or is longer than the bound) names the number of the line,
    /// and nothing is to be read after it.
    Result<bool> next(std::string& line);

  private:
    int file_;
    std::string name_, ahead_;
    std::size_t bytes_max_, at_ = 0;     ///< at_: of ahead_, which is read ahead
    std::size_t number_ = 0;
};

}  // namespace penstock
