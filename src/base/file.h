#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"

namespace penstock {

/// Whether a pipe or a device may stand where a file is read: for what a person names on a command line (`<(pass show key)`), and
/// for nothing that runs without one.
enum class Streams : std::uint8_t { refused, taken };

/// The whole of a file. With Streams::refused it never waits: a pipe, a device or a folder in the place of the file is an error, and
/// so is one that cannot be opened or read. The error begins with the path. Any thread.
Result<std::string> read_whole_file(const std::filesystem::path& path, Streams streams = Streams::refused);

}  // namespace penstock
