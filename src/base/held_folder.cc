#include "base/held_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

namespace penstock {

namespace fs = std::filesystem;

namespace {

int open_folder(const std::string& path) { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

/// Of the open folder; a link count of 0: it was deleted.
struct stat about(int file) {
    struct stat out {};
    if (::fstat(file, &out) != 0) out = {};
    return out;
}

}  // namespace

Result<std::shared_ptr<HeldFolder>> HeldFolder::open(std::string path) {
    const int file = open_folder(path);
    if (file < 0) return fail(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
    return std::shared_ptr<HeldFolder>(new HeldFolder(std::move(path), file, about(file).st_dev));
}

HeldFolder::~HeldFolder() { ::close(file_); }

std::string HeldFolder::at(std::string_view name) const { return fmt::format("/proc/self/fd/{}/{}", file_, name); }

std::string HeldFolder::named(std::string text) const {
    const auto ours = fmt::format("/proc/self/fd/{}/", file_);
    for (auto at = text.find(ours); at != std::string::npos; at = text.find(ours, at + path_.size())) text.replace(at, ours.size() - 1, path_);
    return text;
}

bool HeldFolder::is_there() const noexcept {
    struct stat now {};
    const auto ours = about(file_);
    return ::stat(path_.c_str(), &now) == 0 && now.st_dev == ours.st_dev && now.st_ino == ours.st_ino;
}

Result<void> HeldFolder::ready() {
    if (is_there()) return {};
    std::error_code error;
    if (about(file_).st_nlink > 0) {
        const char* what = fs::exists(path_, error) ? "another folder stands in the place of the one that is open, which was moved, or its disk unmounted" : "the folder was moved, or its disk unmounted";
        return fail(fmt::format("{}: {}; put it back, or mount that again", path_, what));
    }
    // Deleted, and perhaps its disk unmounted after that.
    auto above = fs::absolute(path_);
    struct stat place {};
    while (::stat(above.c_str(), &place) != 0 && above != above.parent_path()) above = above.parent_path();
    if (place.st_dev != device_) return fail(fmt::format("{}: it is gone, and it is not on the file system it was on; mount that again", path_));
    const bool made = fs::create_directories(path_, error);
    if (error) return fail(fmt::format("{}: it is gone, and cannot be made: {}", path_, error.message()));
    if (made) fs::permissions(path_, fs::perms::owner_all, error);
    const int file = open_folder(path_);
    const int put = file < 0 ? -1 : ::dup3(file, file_, O_CLOEXEC);
    const int why = errno;
    if (file >= 0) ::close(file);
    return put < 0 ? Result<void>(fail(fmt::format("{}: cannot be opened: {}", path_, std::strerror(why)))) : Result<void>();
}

}  // namespace penstock
