#include "base/run_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

namespace penstock::log {
namespace {

constexpr int last_flush_ms = 2000;
constexpr std::int64_t again_ms = 1000;
constexpr const char* folder = "log";
constexpr const char* newer = "log/run.log";
constexpr const char* older = "log/run.older.log";
constexpr const char* newer_before = "log/previous.log";
constexpr const char* older_before = "log/previous.older.log";

/// True, or there was nothing to move or remove.
bool is_done(int answer) { return answer == 0 || errno == ENOENT; }

}  // namespace

struct RunFiles::Files {
    explicit Files(std::shared_ptr<HeldFolder> given) : data(std::move(given)) {}
    ~Files() {
        if (file >= 0) ::close(file);
    }

    const std::shared_ptr<HeldFolder> data;
    std::atomic<bool> has_begun{false};   ///< the run before is under its names
    int file = -1;
    std::size_t bytes = 0;                ///< in `file`
    std::int64_t again_at = 0;            ///< monotonic; after a failure
    std::string fault;                    ///< the last one

    bool move(const char* from, const char* to) const { return is_done(::rename(data->at(from).c_str(), data->at(to).c_str())); }
    [[nodiscard]] bool is_there(const char* name) const {
        struct stat about {};
        return ::lstat(data->at(name).c_str(), &about) == 0;
    }
    bool set_fault() {
        fault = std::strerror(errno);
        again_at = monotonic_ms() + again_ms;
        return false;
    }
    bool begin() {
        if (::mkdir(data->at(folder).c_str(), S_IRWXU) != 0 && errno != EEXIST) return set_fault();
        // A start that never wrote a line is no run, and what stands there is still the one before.
        if (is_there(newer) || is_there(older)) {
            if (!is_done(::unlink(data->at(older_before).c_str())) || !move(older, older_before) || !move(newer, newer_before)) return set_fault();
        }
        has_begun = true;
        return true;
    }
    bool open_next() {
        if (file >= 0 && !move(newer, older)) return set_fault();
        if (file >= 0) ::close(std::exchange(file, -1));
        if (::mkdir(data->at(folder).c_str(), S_IRWXU) != 0 && errno != EEXIST) return set_fault();
        // Whatever came to stand there: a pipe would be waited for.
        if (!is_done(::unlink(data->at(newer).c_str()))) return set_fault();
        file = ::open(data->at(newer).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
        if (file < 0) return set_fault();
        bytes = 0;
        return true;
    }
    bool take(std::string_view line, std::string& why) {
        const auto refused = [&] {
            why = fault;
            return false;
        };
        if (again_at != 0 && monotonic_ms() < again_at) return refused();
        again_at = 0;
        if (!has_begun && !begin()) return refused();
        if ((file < 0 || bytes + line.size() > bytes_max / 2) && !open_next()) return refused();
        for (std::size_t at = 0; at < line.size();) {
            const auto n = ::write(file, line.data() + at, line.size() - at);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                set_fault();
                // No line stands there in part: the next one would go on with it.
                [[maybe_unused]] const bool cut = ::ftruncate(file, static_cast<off_t>(bytes)) == 0 && ::lseek(file, 0, SEEK_END) >= 0;
                return refused();
            }
            at += static_cast<std::size_t>(n);
        }
        bytes += line.size();
        return true;
    }
};

RunFiles::RunFiles(std::shared_ptr<HeldFolder> data) : files_(std::make_shared<Files>(std::move(data))) {
    files_->begin();
    write_also(std::make_unique<Output>(Output::Options{
        .descriptor = -1,
        .tell_lost = [](std::uint64_t lost, const std::string& why) { return lost_line(lost, "the file of this run", why); },
        .take = [files = files_](std::string_view line, std::string& why) { return files->take(line, why); }}));
}

RunFiles::~RunFiles() {
    if (const auto last = write_also(nullptr); last != nullptr) last->flush(last_flush_ms);
}

Result<std::optional<std::vector<Line>>> RunFiles::before() const {
    const auto& data = *files_->data;
    const bool has_begun = files_->has_begun;
    std::optional<std::vector<Line>> out;
    for (const char* name : {has_begun ? older_before : older, has_begun ? newer_before : newer}) {
        if (!files_->is_there(name)) continue;
        // No run writes more; whatever else stands there would be read into memory.
        struct stat about {};
        if (::lstat(data.at(name).c_str(), &about) == 0 && S_ISREG(about.st_mode) && static_cast<std::size_t>(about.st_size) > bytes_max)
            return fail(data.named(fmt::format("{}: has {} bytes, and a run keeps at most {}: another program wrote it; take it away", data.at(name), static_cast<std::int64_t>(about.st_size), bytes_max)));
        const auto text = read_whole_file(data.at(name));
        if (!text) return std::unexpected(data.named(text.error()));
        if (!out) out.emplace();
        // The last line of a run that was killed may be there in part.
        const auto whole = std::string_view(*text).substr(0, text->rfind('\n') + 1);
        for (const auto part : split(whole, '\n'))
            if (auto line = read_line(part)) out->push_back(std::move(*line));
    }
    return out;
}

}  // namespace penstock::log
