#include "base/mark.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/text.h"

namespace penstock {
namespace {

constexpr std::size_t place_size = 512;          // a sector: torn, if at all, between the two
constexpr std::string_view magic = "penstock-mark-1 ";

/// The place's text and its number; false: it is not whole.
bool read_place(std::string_view place, std::uint64_t& generation, Mark::Values& into) {
    if (!place.starts_with(magic)) return false;
    const auto end = place.find(" crc=");
    if (end == std::string_view::npos || place.size() < end + 13) return false;
    if (place.substr(end + 5, 8) != fmt::format("{:08x}", crc32c(place.substr(0, end)))) return false;
    into.clear();
    bool first = true;
    for (const auto word : split(place.substr(magic.size(), end - magic.size()), ' ')) {
        if (std::exchange(first, false)) {
            generation = parse_number<std::uint64_t>(word).value_or(0);
            continue;
        }
        if (const auto equals = word.find('='); equals != std::string_view::npos) into.emplace(word.substr(0, equals), word.substr(equals + 1));
    }
    return true;
}

}  // namespace

Mark::~Mark() {
    if (file_ >= 0) ::close(file_);
}

Result<Mark::State> Mark::read(Values& into) {
    into.clear();
    is_read_ = true;
    generation_ = 0;
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0 && errno == ENOENT) return State::missing;
    std::array<char, 2 * place_size> bytes{};
    const auto size = file < 0 ? -1 : ::pread(file, bytes.data(), bytes.size(), 0);
    const int why = errno;
    if (file >= 0) ::close(file);
    if (size < 0) return fail(fmt::format("{}: {}", path_, std::strerror(why)));
    if (size == 0) return State::missing;
    bool good = false;
    for (std::size_t place = 0; place < 2; ++place) {
        Values values;
        std::uint64_t generation = 0;
        if (!read_place({bytes.data() + place * place_size, place_size}, generation, values)) continue;
        if (good && generation < generation_) continue;
        good = true;
        generation_ = generation;
        into = std::move(values);
    }
    return good ? State::good : State::damaged;
}

bool Mark::write(const Values& values) {
    if (!is_read_) {
        Values before;
        if (!read(before)) return false;
    }
    struct stat about {};
    // A file that was deleted takes writes too; it is made again on the file system on which it was.
    if (file_ >= 0 && ::fstat(file_, &about) == 0 && about.st_nlink == 0) {
        const auto device = about.st_dev;
        const auto parent = std::filesystem::path(path_).parent_path();
        if (::stat(parent.empty() ? "." : parent.c_str(), &about) != 0 || about.st_dev != device) return false;
        ::close(std::exchange(file_, -1));
    }
    if (file_ < 0) file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file_ < 0) return false;
    const auto next = generation_ + 1;
    auto text = fmt::format("{}{}", magic, next);
    for (const auto& [name, value] : values) text += fmt::format(" {}={}", name, value);
    text += fmt::format(" crc={:08x}", crc32c(text));
    if (text.size() >= place_size) return false;
    text.resize(place_size - 1, ' ');
    text += '\n';
    const auto at = static_cast<off_t>(next % 2 * place_size);
    if (::pwrite(file_, text.data(), text.size(), at) != static_cast<ssize_t>(text.size())) return false;
    generation_ = next;
    return true;
}

bool Mark::sync() {
    if (file_ < 0 || ::fdatasync(file_) != 0) return false;
    const auto parent = std::filesystem::path(path_).parent_path();
    const int folder = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = folder >= 0 && ::fsync(folder) == 0;
    if (folder >= 0) ::close(folder);
    return synced;
}

std::string boot_id() {
    std::ifstream in("/proc/sys/kernel/random/boot_id");
    std::string out;
    in >> out;
    return out;
}

}  // namespace penstock
