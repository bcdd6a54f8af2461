#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include <fmt/format.h>

namespace penstock {

Result<std::string> read_whole_file(const std::filesystem::path& path, Streams streams) {
    // Opening a pipe waits for a writer, unless it is told not to.
    int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (streams == Streams::refused ? O_NONBLOCK : 0));
    // A file on which another process has a lease is no pipe: its owner is waited for (fcntl(2), F_SETLEASE).
    if (file < 0 && errno == EWOULDBLOCK) file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    auto not_read = [&](int error) {
        return fail(fmt::format("{}: cannot be read: {}", path.string(), std::generic_category().message(error)));
    };
    if (file < 0) return not_read(errno);
    struct stat about {};
    const bool is_known = ::fstat(file, &about) == 0;
    int error = errno;
    if (is_known && !S_ISREG(about.st_mode) && (streams == Streams::refused || S_ISDIR(about.st_mode))) {
        ::close(file);
        return fail(fmt::format("{}: is no regular file", path.string()));
    }
    std::string out;
    char piece[65'536];
    ssize_t got = 0;
    while (is_known && ((got = ::read(file, piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR)))
        if (got > 0) out.append(piece, static_cast<std::size_t>(got));
    if (got < 0) error = errno;
    ::close(file);
    if (!is_known || got < 0) return not_read(error);
    return out;
}

}  // namespace penstock
