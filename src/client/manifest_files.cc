#include "client/manifest_files.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "io/wait.h"
#include "resources/json.h"

namespace penstock::client {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t files_max = 10'000;            // of one folder
constexpr std::size_t piece_bytes = 64 * 1024;
constexpr std::int64_t ns_per_s = 1'000'000'000;

std::int64_t ns_of(const timespec& time) { return time.tv_sec * ns_per_s + time.tv_nsec; }

FileMark mark_of(const std::string& path, const struct stat& s) {
    return {.path = path, .device = s.st_dev, .inode = s.st_ino, .size = static_cast<std::uint64_t>(s.st_size), .modified_ns = ns_of(s.st_mtim), .changed_ns = ns_of(s.st_ctim)};
}

bool is_stream(const std::string& path) {
    struct stat s {};
    return path == "-" || (stat(path.c_str(), &s) == 0 && S_ISFIFO(s.st_mode));
}

Result<std::string> read_bounded(std::istream& in, const std::string& name) {
    std::string out, piece(piece_bytes, '\0');
    while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
        out.append(piece, 0, static_cast<std::size_t>(in.gcount()));
        if (out.size() > resources::manifest_bytes_max) return fail(fmt::format("{}: larger than {} bytes", name, resources::manifest_bytes_max));
    }
    if (in.bad()) return fail(fmt::format("{}: cannot be read: {}", name, std::generic_category().message(errno)));
    return out;
}

void look_into(SourceMark& source) {
    std::error_code error;
    auto at = fs::directory_iterator(source.path, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) {
        const auto path = at->path().string();
        if (!is_manifest_name(at->path().filename().string())) continue;
        struct stat s {};
        if (stat(path.c_str(), &s) != 0) {
            // Gone since the folder was listed, or a link whose target is not there (yet).
            source.fault = fmt::format("{}: {}", path, std::strerror(errno));
            return;
        }
        if (!S_ISREG(s.st_mode)) continue;
        source.files.push_back(mark_of(path, s));
        if (source.files.size() > files_max) {
            source.fault = fmt::format("{}: more than {} manifests", source.path, files_max);
            return;
        }
    }
    if (error) source.fault = fmt::format("{}: {}", source.path, error.message());
    std::ranges::sort(source.files, {}, &FileMark::path);
}

}  // namespace

bool is_manifest_name(const std::string& name) {
    const auto extension = fs::path(name).extension().string();
    return !name.starts_with('.') && (extension == ".yaml" || extension == ".yml" || extension == ".json");
}

Result<std::string> read_manifest_text(const std::string& path, bool must_be_file) {
    if (path == "-") return read_bounded(std::cin, "standard input");
    std::error_code error;
    const auto kind = fs::status(path, error).type();
    if (kind == fs::file_type::directory) return fail(fmt::format("{}: is a folder", path));
    // Opening a pipe waits for a writer, and reading some devices has no end.
    if (must_be_file && kind != fs::file_type::regular && !error) return fail(fmt::format("{}: is neither a file nor a folder", path));
    std::ifstream in(path, std::ios::binary);
    if (!in) return fail(fmt::format("{}: cannot be read: {}", path, std::generic_category().message(errno)));
    return read_bounded(in, path);
}

DiskFiles::DiskFiles(std::vector<std::string> sources) : sources_(std::move(sources)) {
    for (auto& source : sources_)
        if (source != "-") source = fs::absolute(source).string();
    // A pipe that takes the place of a file later is a fault of that source: reading it would wait for a writer, and nothing else
    // would be followed meanwhile.
    for (const auto& source : sources_)
        if (is_stream(source)) streams_[source];
}

DiskFiles::~DiskFiles() {
    for (const auto& [path, stream] : streams_)
        if (stream.file > 0) ::close(stream.file);
}

Look DiskFiles::look() {
    Look out;
    for (const auto& path : sources_) {
        auto& source = out.emplace_back();
        source.path = path;
        if (const auto stream = streams_.find(path); stream != streams_.end()) {
            pump(path, stream->second);
            source.fault = stream->second.fault;
            if (source.fault.empty()) source.files.push_back({.path = path});
            continue;
        }
        struct stat s {};
        if (stat(path.c_str(), &s) != 0) {
            source.fault = fmt::format("{}: {}", path, std::strerror(errno));
        } else if (S_ISDIR(s.st_mode)) {
            source.is_folder = true;
            source.device = s.st_dev;
            source.inode = s.st_ino;
            look_into(source);
        } else if (!S_ISREG(s.st_mode)) {
            source.fault = fmt::format("{}: is neither a file nor a folder", path);
        } else {
            source.files.push_back(mark_of(path, s));
        }
    }
    return out;
}

Writer DiskFiles::writer_of(const std::string& path) {
    if (streams_.contains(path)) return Writer::none;
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return Writer::unknown;
    // A read lease (fcntl(2)) is given only while nobody has the file open for writing. Whoever opens it for writing in the moment
    // until it is given back waits for that, and we are told by a signal that is ignored.
    fcntl(file, F_SETSIG, SIGURG);
    const bool given = fcntl(file, F_SETLEASE, F_RDLCK) == 0;
    const int why = errno;
    if (given) fcntl(file, F_SETLEASE, F_UNLCK);
    close(file);
    return given ? Writer::none : why == EAGAIN ? Writer::some : Writer::unknown;   // file systems without leases, files of others
}

Result<std::string> DiskFiles::read(const std::string& path) {
    const auto stream = streams_.find(path);
    if (stream == streams_.end()) return read_manifest_text(path, true);
    if (!stream->second.has_ended || !stream->second.fault.empty()) return fail(stream->second.fault);
    return stream->second.text;
}

/// Takes what is there to be read now.
void DiskFiles::pump(const std::string& path, Stream& stream) {
    const auto name = path == "-" ? std::string("standard input") : path;
    if (stream.file < 0) stream.file = path == "-" ? 0 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    std::string piece(piece_bytes, '\0');
    while (stream.file >= 0 && !stream.has_ended) {
        // Standard input is somebody else's too, and is left as blocking as it is.
        if (path == "-" && !io::wait_for(stream.file, io::Wait::readable, 0)) break;
        const auto n = ::read(stream.file, piece.data(), piece.size());
        if (n < 0 && errno == EINTR) continue;
        stream.had_writer |= n > 0 || path == "-" || (n < 0 && errno == EAGAIN);
        if ((n < 0 && errno == EAGAIN) || (n == 0 && !stream.had_writer)) break;   // a pipe without a writer has no end
        if (n > 0) stream.text.append(piece, 0, static_cast<std::size_t>(n));
        const bool is_large = stream.text.size() > resources::manifest_bytes_max;
        if (n > 0 && !is_large) continue;
        stream.has_ended = true;
        stream.fault = is_large ? fmt::format("{}: larger than {} bytes", name, resources::manifest_bytes_max) : n < 0 ? fmt::format("{}: cannot be read: {}", name, std::strerror(errno)) : "";
    }
    if (!stream.has_ended)
        stream.fault = stream.file < 0 ? fmt::format("{}: {}", name, std::strerror(errno)) : fmt::format("{}: {}", name, stream.had_writer ? "its writer has not ended yet" : "nothing has been written into it yet");
    if (stream.has_ended && stream.file > 0) ::close(std::exchange(stream.file, -1));
}

}  // namespace penstock::client
