#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fmt/format.h>

namespace penstock {

namespace {

constexpr std::size_t piece_bytes = 65'536;

std::unexpected<Error> not_read(const std::string& name, int error) {
    return fail(fmt::format("{}: cannot be read: {}", name, std::generic_category().message(error)));
}

std::unexpected<Error> too_large(const std::string& name, std::size_t bytes_max) {
    constexpr const char* words =
        "{}: is larger than {} bytes, or has no end; no more is taken here: name a smaller file";
    return fail(fmt::format(words, name, bytes_max));
}

/// As read(2), which a signal may have interrupted.
ssize_t read_piece(int file, char* into, std::size_t size) noexcept {
    ssize_t got = 0;
    do got = ::read(file, into, size);
    while (got < 0 && errno == EINTR);
    return got;
}

}  // namespace

Result<std::string> read_to_end(int file, const std::string& name, std::size_t bytes_max) {
    std::string out;
    char piece[piece_bytes];
    ssize_t got = 0;
    while ((got = read_piece(file, piece, sizeof piece)) > 0) {
        if (static_cast<std::size_t>(got) > bytes_max - out.size()) return too_large(name, bytes_max);
        out.append(piece, static_cast<std::size_t>(got));
    }
    if (got < 0) return not_read(name, errno);
    return out;
}

LineReader::LineReader(int file, std::string name, std::size_t bytes_max)
    : file_(file), name_(std::move(name)), bytes_max_(bytes_max) {}

Result<bool> LineReader::next(std::string& line) {
    line.clear();
    ++number_;
    while (true) {
        const auto end = ahead_.find('\n', at_);
        const auto size = std::min(end, ahead_.size()) - at_;
        if (size > bytes_max_ - line.size())
            return fail(fmt::format("{} line {}: is longer than {} bytes; no more is taken here: end it before "
                                    "with a newline",
                                    name_, number_, bytes_max_));
        line.append(ahead_, at_, size);
        at_ += size;
        if (end != std::string::npos) return ++at_, true;
        ahead_.resize(piece_bytes);
        const auto got = read_piece(file_, ahead_.data(), ahead_.size());
        const auto error = errno;
        at_ = 0;
        ahead_.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
        if (got < 0) return not_read(fmt::format("{} line {}", name_, number_), error);
        if (got == 0) return !line.empty();
    }
}

Result<std::string> read_whole_file(const std::filesystem::path& path, Streams streams,
                                    std::size_t bytes_max) {
    // Opening a pipe waits for a writer, unless it is told not to.
    int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (streams == Streams::refused ? O_NONBLOCK : 0));
    // A file on which another process has a lease is no pipe: its owner is waited for (fcntl(2), F_SETLEASE).
    if (file < 0 && errno == EWOULDBLOCK) file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return not_read(path.string(), errno);
    struct stat about {};
    const bool is_known = ::fstat(file, &about) == 0;
    const int error = errno;
    if (is_known && !S_ISREG(about.st_mode) && (streams == Streams::refused || S_ISDIR(about.st_mode))) {
        ::close(file);
        return fail(fmt::format("{}: is no regular file", path.string()));
    }
    auto out = is_known ? read_to_end(file, path.string(), bytes_max) : not_read(path.string(), error);
    ::close(file);
    return out;
}

}  // namespace penstock
