#include "base/run_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"

namespace penstock::log {
namespace {

constexpr int last_flush_ms = 2000;
constexpr std::int64_t again_ms = 1000;  // after a failure, and between two looks whether the file stands where it stood
constexpr std::int64_t mute_ms = 8000;   // without an answer for so long a disk is told of
constexpr const char* log_folder = "log";
constexpr const char* newer = "log/run.log";
constexpr const char* older = "log/run.older.log";
constexpr const char* newer_before = "log/previous.log";
constexpr const char* older_before = "log/previous.older.log";

/// True, or there was nothing to move or remove.
bool is_done(int answer) { return answer == 0 || errno == ENOENT; }

const char* kind_of(mode_t mode) {
    switch (mode & S_IFMT) {
        case S_IFREG: return "a file";
        case S_IFDIR: return "a folder";
        case S_IFLNK: return "a link";
        case S_IFIFO: return "a pipe";
        case S_IFSOCK: return "a socket";
        default: return "a device";
    }
}

}  // namespace

struct RunFiles::Files {
    explicit Files(std::shared_ptr<HeldFolder> given) : data(std::move(given)) {}
    ~Files() {
        if (file >= 0) ::close(file);
    }

    const std::shared_ptr<HeldFolder> data;
    std::atomic<bool> is_run{false};      ///< begin_run() was called
    std::atomic<bool> is_over{false};     ///< nobody logs about it any more
    std::atomic<bool> has_begun{false};   ///< the run before is under its names
    std::atomic<bool> has_moved_older{false};      ///< ... and so far only its older half
    std::atomic<bool> is_before_lost{false};       ///< something else stood in the place of its file

    // Of the thread that writes.
    int file = -1;
    std::size_t bytes = 0;                ///< in `file`
    std::int64_t again_at = 0;            ///< monotonic; after a failure
    std::int64_t look_at = 0;             ///< monotonic; when its name is looked at
    std::string fault;                    ///< the last one; empty: lines are taken
    bool is_of_write = false;             ///< only a line that is written ends it

    // What stands there. Errors for a person; empty: nothing is wrong. Any thread.

    [[nodiscard]] std::string fault_of(const char* name, const std::string& what) const {
        return data->named(fmt::format("{}: {}", data->at(name), what));
    }
    [[nodiscard]] std::string fault_of_folder() const {
        struct stat about {}, itself {};
        if (::lstat(data->at(log_folder).c_str(), &itself) != 0)
            return errno == ENOENT ? std::string() : fault_of(log_folder, std::strerror(errno));
        const bool is_link = S_ISLNK(itself.st_mode);
        if (::stat(data->at(log_folder).c_str(), &about) != 0) {
            const char* why = std::strerror(errno);
            if (!is_link) return fault_of(log_folder, why);
            return fault_of(log_folder, fmt::format("a link stands there that leads nowhere ({}); is its disk mounted? "
                                                "Else remove the link", why));
        }
        if (!S_ISDIR(about.st_mode))
            return fault_of(log_folder, fmt::format("{}{} stands there and no folder; move it away",
                                                    is_link ? "a link to " : "", kind_of(about.st_mode)));
        // Whoever may write there could put other lines into the mouth of a run.
        if (is_link && about.st_uid != ::geteuid())
            return fault_of(log_folder, fmt::format("a link stands there to a folder of another user ({}, and Penstock runs "
                                                "as {}); give it to that one (chown), or remove the link",
                                                about.st_uid, ::geteuid()));
        return {};
    }
    [[nodiscard]] std::string foreign(const char* name, mode_t mode) const {
        return fault_of(name, fmt::format("{} stands there and no file of Penstock's log; move it away", kind_of(mode)));
    }
    [[nodiscard]] std::string fault_of_file(const char* name) const {
        struct stat about {};
        if (::lstat(data->at(name).c_str(), &about) != 0)
            return errno == ENOENT ? std::string() : fault_of(name, std::strerror(errno));
        return S_ISREG(about.st_mode) ? std::string() : foreign(name, about.st_mode);
    }
    [[nodiscard]] bool is_there(const char* name) const {
        struct stat about {};
        return ::lstat(data->at(name).c_str(), &about) == 0;
    }
    Result<std::optional<std::string>> read(const char* name) const;

    // The thread that writes. Each answers what is wrong.

    std::string move(const char* from, const char* to) const {
        if (is_done(::rename(data->at(from).c_str(), data->at(to).c_str()))) return {};
        return fault_of(from, fmt::format("cannot become {}: {}", to, std::strerror(errno)));
    }
    std::string remove(const char* name) const {
        if (is_done(::unlink(data->at(name).c_str()))) return {};
        return fault_of(name, fmt::format("cannot be removed: {}", std::strerror(errno)));
    }
    std::string make_folder() const {
        if (auto why = fault_of_folder(); !why.empty()) return why;
        if (::mkdir(data->at(log_folder).c_str(), S_IRWXU) == 0 || errno == EEXIST) return {};
        // The data folder itself was deleted.
        if (errno == ENOENT) {
            if (auto there = data->ready(); !there) return there.error().message;
            if (::mkdir(data->at(log_folder).c_str(), S_IRWXU) == 0 || errno == EEXIST) return {};
        }
        return fault_of(log_folder, fmt::format("cannot be made: {}", std::strerror(errno)));
    }
    std::string begin() {
        if (auto why = make_folder(); !why.empty()) return why;
        // Before anything is moved: no half of a run is left beside a half of another one.
        if (auto why = fault_of_file(newer); !why.empty()) {
            is_before_lost = true;
            return why;
        }
        for (const char* name : {older, newer_before, older_before})
            if (auto why = fault_of_file(name); !why.empty()) return why;
        std::string why;
        if (is_there(newer)) {
            if (!has_moved_older) {
                if (why = remove(older_before); why.empty()) why = move(older, older_before);
                if (!why.empty()) return why;
                has_moved_older = true;
            }
            if (why = move(newer, newer_before); !why.empty()) return why;
            is_before_lost = false;
        } else if (has_moved_older || is_there(older)) {
            // That run ended between the two steps of open_next(). What stands under the names of the one before it is
            // of an earlier one.
            if (!has_moved_older) why = remove(older_before);
            if (why.empty()) why = move(has_moved_older ? older_before : older, newer_before);
            if (!why.empty()) return why;
        }
        // A start that never wrote a line is no run, and what stands there is still the one before.
        has_begun = true;
        return {};
    }
    /// The file was deleted, or does not stand under its name any more: what is written to it nobody finds.
    void look_after_file() {
        if (file < 0) return;
        struct stat ours {}, there {};
        if (::fstat(file, &ours) != 0) return;
        bytes = static_cast<std::size_t>(ours.st_size);   // somebody may have cut it short
        bool is_gone = ours.st_nlink == 0;
        if (const auto now = monotonic_ms(); !is_gone && now >= look_at) {
            look_at = now + again_ms;
            const bool is_found = ::lstat(data->at(newer).c_str(), &there) == 0;
            is_gone = is_found ? there.st_dev != ours.st_dev || there.st_ino != ours.st_ino
                               : errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
        }
        if (!is_gone) return;
        ::close(std::exchange(file, -1));
        if (!is_over)
            warn("app", "the file with the log of this run was deleted or moved away, and is begun anew file={}",
                 data->named(data->at(newer)));
    }
    std::string open_next() {
        if (auto why = make_folder(); !why.empty()) return why;
        if (file >= 0) {
            auto why = fault_of_file(older);
            if (why.empty()) why = move(newer, older);
            if (!why.empty()) return why;
            ::close(std::exchange(file, -1));
        }
        // A file that came to stand there meanwhile goes, and nothing else does.
        auto why = fault_of_file(newer);
        if (why.empty()) why = remove(newer);
        if (!why.empty()) return why;
        constexpr int flags = O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
        file = ::open(data->at(newer).c_str(), flags, S_IRUSR | S_IWUSR);
        if (file < 0) return fault_of(newer, fmt::format("cannot be made: {}", std::strerror(errno)));
        bytes = 0;
        look_at = monotonic_ms() + again_ms;
        return {};
    }
    /// A file in which there is room for so many bytes.
    std::string make_ready(std::size_t size) {
        if (!has_begun)
            if (auto why = begin(); !why.empty()) return why;
        look_after_file();
        return file < 0 || bytes + size > bytes_max / 2 ? open_next() : std::string();
    }
    bool refuse(std::string what, bool by_write, std::string& why) {
        const bool is_new = what != fault;
        why = fault = std::move(what);
        is_of_write = by_write;
        again_at = monotonic_ms() + again_ms;
        if (is_new && !is_over)
            error("app", "what this run says is not kept on the disk; it is tried again each second why=\"{}\"", fault);
        return false;
    }
    void go_on() {
        if (!fault.empty() && !is_over)
            info("app", "what this run says is kept on the disk again file={}", data->named(data->at(newer)));
        fault.clear();
        again_at = 0;
    }
    bool is_to_wait(std::string& why) const {
        if (again_at == 0 || monotonic_ms() >= again_at) return false;
        why = fault;
        return true;
    }
    /// See Output::Options::take.
    bool take(std::string_view line, std::string& why) {
        if (is_to_wait(why)) return false;
        if (auto what = make_ready(line.size()); !what.empty()) return refuse(std::move(what), false, why);
        for (std::size_t at = 0; at < line.size();) {
            const auto n = ::write(file, line.data() + at, line.size() - at);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                auto what = fault_of(newer, fmt::format("cannot be written: {}", std::strerror(errno)));
                // No line stands there in part: the next one would go on with it.
                [[maybe_unused]] const bool is_cut = ::ftruncate(file, static_cast<off_t>(bytes)) == 0;
                return refuse(std::move(what), true, why);
            }
            at += static_cast<std::size_t>(n);
        }
        bytes += line.size();
        go_on();
        return true;
    }
    /// See Output::Options::look.
    bool look(std::string& why) {
        if (is_to_wait(why)) return false;
        if (auto what = make_ready(0); !what.empty()) return refuse(std::move(what), false, why);
        if (!is_of_write) go_on();
        return true;
    }
};

Result<std::optional<std::string>> RunFiles::Files::read(const char* name) const {
    auto cannot = [&](int why) {
        return fail(fault_of(name, fmt::format("cannot be read: {}", std::strerror(why))));
    };
    // Opening a socket or a device says nothing of what it is, or does something.
    if (auto why = fault_of_file(name); !why.empty()) return fail(std::move(why));
    const int part = ::open(data->at(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (part < 0 && errno == ENOENT) return std::optional<std::string>();
    if (part < 0) return cannot(errno);
    struct stat about {};
    std::string out;
    char piece[65'536];
    ssize_t got = ::fstat(part, &about);
    const bool is_file = got == 0 && S_ISREG(about.st_mode);
    // No run writes more; whatever else stands there would be read into memory.
    while (is_file && out.size() <= bytes_max) {
        got = ::read(part, piece, sizeof piece);
        if (got == 0 || (got < 0 && errno != EINTR)) break;
        if (got > 0) out.append(piece, static_cast<std::size_t>(got));
    }
    const int why = errno;
    ::close(part);
    if (got < 0) return cannot(why);
    if (!is_file) return fail(foreign(name, about.st_mode));
    if (out.size() > bytes_max)
        return fail(fault_of(name, fmt::format("has {} bytes, and a run keeps at most {}: another program wrote it; "
                                               "take it away",
                                               static_cast<std::int64_t>(about.st_size), bytes_max)));
    return out;
}

RunFiles::RunFiles(std::shared_ptr<HeldFolder> data) : files_(std::make_shared<Files>(std::move(data))) {}

void RunFiles::begin_run() {
    if (files_->is_run.exchange(true)) return;
    write_also(std::make_unique<Output>(Output::Options{
        .descriptor = -1,
        .tell_lost =
            [](std::uint64_t lost, const std::string& why) { return lost_line(lost, "the file of this run", why); },
        .take = [files = files_](std::string_view line, std::string& why) { return files->take(line, why); },
        .look = [files = files_](std::string& why) { return files->look(why); }}));
}

RunFiles::~RunFiles() {
    if (const auto last = write_also(nullptr); last != nullptr) last->flush(last_flush_ms);
    files_->is_over = true;
}

std::string RunFiles::fault() const {
    return files_->is_run ? fault_of(also_figures(), files_->data->path() + "/" + log_folder) : std::string();
}

std::string RunFiles::fault_of(const Output::Figures& figures, const std::string& folder) {
    if (figures.busy_ms < mute_ms) return figures.fault;
    return fmt::format("{}: nothing could be written there for {} s; is it on a mount or disk that does not answer?",
                       folder, figures.busy_ms / 1000);
}

Result<std::optional<std::vector<Line>>> RunFiles::before() const {
    const auto& files = *files_;
    while (true) {
        const bool has_begun = files.has_begun, has_moved_older = files.has_moved_older;
        Result<std::optional<std::vector<Line>>> out;
        // What keeps this run from beginning, too: it would stand between the one before and its name.
        std::string why = files.fault_of_folder();
        for (const char* name : {newer, older, newer_before, older_before})
            if (why.empty() && (!has_begun || name == newer_before || name == older_before))
                why = files.fault_of_file(name);
        if (why.empty() && has_begun && files.is_before_lost)
            why = files.fault_of(newer, "something else stood there when this run began; the end of the run before is lost");
        if (!why.empty()) out = fail(std::move(why));
        // As begin() would leave them.
        const bool is_in_place = has_begun || (!files.is_there(newer) && !files.is_there(older));
        for (const char* name :
             {is_in_place || has_moved_older ? older_before : older, is_in_place ? newer_before : newer}) {
            if (!out) break;
            const auto text = files.read(name);
            if (!text) out = std::unexpected(text.error());
            if (!text || !*text) continue;
            if (!*out) out->emplace();
            // The last line of a run that was killed may be there in part.
            const auto whole = std::string_view(**text).substr(0, (*text)->rfind('\n') + 1);
            for (const auto part : split(whole, '\n'))
                if (auto line = read_line(part)) (*out)->push_back(std::move(*line));
        }
        // Files that were moved meanwhile are looked for where they are now.
        if (has_begun == files.has_begun && has_moved_older == files.has_moved_older) return out;
    }
}

}  // namespace penstock::log
