// Standard error that nobody reads, that is full, slow or closed: whoever logs goes on, and what is lost is counted and told.
#include <csignal>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/log_output.h"
#include "base/random.h"
#include "base/run_files.h"
#include "base/text.h"

namespace penstock::log {
namespace {

struct Pipe {
    int ends[2] = {-1, -1};
    Pipe() {
        signal(SIGPIPE, SIG_IGN);
        EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    }
    /// The other end stays: an Output's thread goes on for a moment after it, and the next pipe must not get the number that it writes to.
    ~Pipe() { close_reader(); }
    void close_reader() {
        if (ends[0] >= 0) close(std::exchange(ends[0], -1));
    }
    /// All that comes until the line `last`.
    std::string read_until(const std::string& last) const {
        std::string out;
        char bytes[65536];
        while (!out.ends_with(last)) {
            const auto n = read(ends[0], bytes, sizeof bytes);
            if (n <= 0) break;
            out.append(bytes, static_cast<std::size_t>(n));
        }
        return out;
    }
};

Output::Options to(int descriptor) {
    return {.descriptor = descriptor, .tell_lost = [](std::uint64_t lost, const std::string& why) { return fmt::format("lost {} ({})\n", lost, why); }};
}

TEST(LogOutput, lines_come_in_order) {
    const Pipe pipe;
    Output output(to(pipe.ends[1]));
    std::string expected;
    for (int i = 0; i < 1000; ++i) {
        output.add(fmt::format("line {}\n", i));
        expected += fmt::format("line {}\n", i);
    }
    EXPECT_EQ(pipe.read_until("line 999\n"), expected);
    EXPECT_TRUE(output.flush(10'000));
    EXPECT_EQ(output.figures().lost, 0u);
}

TEST(LogOutput, a_pipe_that_nobody_reads_holds_up_nobody) {
    const Pipe pipe;
    Output output(to(pipe.ends[1]));
    const std::string filler(100, 'x');
    output.add("first\n");
    EXPECT_TRUE(output.flush(10'000));
    // Far more than the pipe and the queue take; it would never end here if it waited.
    for (int i = 0; i < 50'000; ++i) output.add(fmt::format("{} {}\n", i, filler));
    EXPECT_FALSE(output.flush(1));
    EXPECT_GT(output.figures().lost, 40'000u);
    const auto text = pipe.read_until(fmt::format("49999 {}\n", filler));
    EXPECT_TRUE(text.starts_with("first\n"));
    std::uint64_t written = 0, told = 0;
    for (const auto line : split(text, '\n')) {
        if (line.starts_with("lost ")) told += parse_number<std::uint64_t>(line.substr(5, line.find(' ', 5) - 5)).value_or(0);
        else if (line.ends_with('x')) ++written;
    }
    EXPECT_EQ(written + told, 50'000u) << "each line is written, or missed where it would be";
    EXPECT_EQ(output.figures().lost, told);
}

TEST(LogOutput, few_long_lines_have_a_bound_too) {
    const Pipe pipe;
    Output output(to(pipe.ends[1]));
    const std::string line = std::string(1 << 20, 'x') + "\n";
    for (int i = 0; i < 20; ++i) output.add(line);
    EXPECT_GE(output.figures().lost, 20u - 4 - 1);
}

TEST(LogOutput, a_reader_that_is_gone_is_counted) {
    Pipe pipe;
    Output output(to(pipe.ends[1]));
    pipe.close_reader();
    output.add("one\n");
    output.add("two\n");
    EXPECT_TRUE(output.flush(10'000));
    EXPECT_EQ(output.figures().lost, 2u);
    EXPECT_EQ(output.figures().fault, std::strerror(EPIPE));
}

TEST(LogOutput, a_closed_descriptor_is_counted) {
    Output output(to(1'000'000));
    output.add("one\n");
    EXPECT_TRUE(output.flush(10'000));
    EXPECT_EQ(output.figures().lost, 1u);
    EXPECT_EQ(output.figures().fault, std::strerror(EBADF));
}

TEST(LogOutput, a_full_disk_is_counted) {
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    ASSERT_GE(full, 0);
    {
        Output output(to(full));
        output.add("one\n");
        EXPECT_TRUE(output.flush(10'000));
        EXPECT_EQ(output.figures().lost, 1u);
        EXPECT_EQ(output.figures().fault, std::strerror(ENOSPC));
    }
    close(full);
}

TEST(LogOutput, what_was_lost_is_told_when_the_descriptor_takes_lines_again) {
    Pipe broken;
    broken.close_reader();
    Output output(to(broken.ends[1]));
    output.add("lost\n");
    EXPECT_TRUE(output.flush(10'000));
    const Pipe good;
    ASSERT_EQ(dup3(good.ends[1], broken.ends[1], O_CLOEXEC), broken.ends[1]);
    output.add("written\n");
    EXPECT_EQ(good.read_until("written\n"), fmt::format("lost 1 ({})\nwritten\n", std::strerror(EPIPE)));
    output.add("more\n");
    EXPECT_EQ(good.read_until("more\n"), "more\n") << "told once";
    EXPECT_EQ(output.figures().fault, "");
}

TEST(LogOutput, a_descriptor_that_somebody_made_non_blocking_loses_nothing) {
    const Pipe pipe;
    ASSERT_EQ(fcntl(pipe.ends[1], F_SETFL, O_NONBLOCK), 0);
    Output output(to(pipe.ends[1]));
    std::string expected;
    for (int i = 0; i < 4000; ++i) {
        expected += fmt::format("{} {}\n", i, std::string(100, 'x'));
        output.add(fmt::format("{} {}\n", i, std::string(100, 'x')));
    }
    EXPECT_EQ(pipe.read_until(fmt::format("3999 {}\n", std::string(100, 'x'))), expected);
    EXPECT_TRUE(output.flush(10'000));
    EXPECT_EQ(output.figures().lost, 0u);
}

TEST(LogOutput, a_line_that_is_not_taken_to_the_end_is_seen_by_who_asks) {
    const Pipe gate;
    auto options = to(-1);
    options.take = [&](std::string_view, std::string&) {
        char byte = 0;
        return read(gate.ends[0], &byte, 1) == 1;
    };
    Output output(std::move(options));
    EXPECT_EQ(output.figures().busy_ms, 0);
    output.add("one\n");
    while (output.figures().busy_ms < 2) std::this_thread::yield();
    ASSERT_EQ(::write(gate.ends[1], "x", 1), 1);
    EXPECT_TRUE(output.flush(60'000));
    EXPECT_EQ(output.figures().busy_ms, 0);
    EXPECT_EQ(RunFiles::fault_of({.lost = 1, .fault = "it is full", .busy_ms = 100}, "/d/log"), "it is full");
    EXPECT_EQ(RunFiles::fault_of({.lost = 0, .fault = {}, .busy_ms = 12'000}, "/d/log"), "/d/log: nothing could be written there for 12 s; is it on a mount or disk that does not answer?");
}

/// Files of a run that has begun.
struct BegunRun : RunFiles {
    explicit BegunRun(std::shared_ptr<HeldFolder> data) : RunFiles(std::move(data)) { begin_run(); }
};

/// This thread, and each that it starts, is bound by the modes of files and folders as any user is, root too. The user stays
/// root: another one may not get as far as the temporary folder.
class AsNobodySpecial {
public:
    AsNobodySpecial() {
        EXPECT_EQ(syscall(SYS_capget, &header_, before_), 0);
        __user_cap_data_struct now[2] = {before_[0], before_[1]};
        now[0].effective &= ~((1U << CAP_DAC_OVERRIDE) | (1U << CAP_DAC_READ_SEARCH));
        EXPECT_EQ(syscall(SYS_capset, &header_, now), 0);
    }
    ~AsNobodySpecial() { EXPECT_EQ(syscall(SYS_capset, &header_, before_), 0); }
    AsNobodySpecial(const AsNobodySpecial&) = delete;
    AsNobodySpecial& operator=(const AsNobodySpecial&) = delete;

private:
    __user_cap_header_struct header_{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct before_[2] = {};
};

/// A data folder. What would go to standard error is kept.
struct RunFilesTest : testing::Test {
    RunFilesTest() {
        std::filesystem::create_directory(folder);
        data = HeldFolder::open(folder.string()).value();
        set_sink([this](std::string_view line) {
            const std::lock_guard lock(guard);
            said += line;
        });
    }
    ~RunFilesTest() override {
        set_sink({});
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    std::string text(const char* name) const {
        std::ostringstream out;
        out << std::ifstream(folder / "log" / name, std::ios::binary).rdbuf();
        return std::move(out).str();
    }
    /// Logs until a line stands in the file of this run.
    bool is_written_again() const {
        const auto line = fmt::format("is there {}", ++number);
        for (int i = 0; i < 6000; ++i) {
            info("app", "{}", line);
            if (text("run.log").contains(line)) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));   // between two looks
        }
        return false;
    }
    /// Waits for what the thread that writes does.
    template <class Check>
    static bool comes(const Check& check) {
        for (int i = 0; i < 6000; ++i) {
            if (check()) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));   // between two looks
        }
        return false;
    }
    bool comes_in(const char* name, const std::string& words) const {
        return comes([&] { return text(name).contains(words); });
    }
    bool is_said(const std::string& words) const {
        const std::lock_guard lock(guard);
        return said.contains(words);
    }
    /// A run that says this and ends.
    void run_once(const std::string& words) {
        const BegunRun run(data);
        info("app", "{}", words);
    }
    /// What is begun anew before the folder is empty stays.
    static void remove_while_written(const std::filesystem::path& at) {
        std::error_code ignored;
        std::filesystem::remove_all(at, ignored);
    }
    /// Something that is no file of Penstock's.
    void put(const std::string& kind, const std::filesystem::path& at) const {
        std::filesystem::remove_all(at);
        if (kind == "a file") std::ofstream(at) << "mine\n";
        if (kind == "a folder") std::filesystem::create_directories(at / "mine");
        const bool is_made = kind == "a pipe" ? mkfifo(at.c_str(), 0600) == 0 : kind != "a socket" || mknod(at.c_str(), S_IFSOCK | 0600, 0) == 0;
        EXPECT_TRUE(is_made);
        if (kind == "a link") {
            std::ofstream(folder / "elsewhere") << "<6>2026-01-01T00:00:00.000Z [INFO] [0] - app: not of Penstock\n";
            std::filesystem::create_symlink(folder / "elsewhere", at);
        }
        if (kind == "a link to nothing") std::filesystem::create_symlink(folder / "nowhere", at);
        if (kind == "a link to itself") std::filesystem::create_symlink(at, at);
    }
    static std::string last_of(const RunFiles& run) {
        const auto lines = run.before();
        if (!lines) return lines.error().message;
        return !*lines ? "none" : (**lines).empty() ? "empty" : (**lines).back().text;
    }
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("penstock-run-" + random_uuid());
    std::shared_ptr<HeldFolder> data;
    mutable std::mutex guard;            ///< said
    std::string said;
    static inline int number = 0;
};

TEST_F(RunFilesTest, the_run_before_is_read_with_times_and_modules) {
    std::int64_t wall_ms = 0;
    {
        const BegunRun run(data);
        EXPECT_EQ(last_of(run), "none");
        warn("broker", "its last words key=\"a: b - c\"");
        wall_ms = lines_after(last_number() - 1, {}).back().wall_ms;
    }
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    const auto lines = run.before().value().value();
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines.back().module, "broker");
    EXPECT_TRUE(lines.back().text.ends_with(" - broker: its last words key=\"a: b - c\"")) << lines.back().text;
    EXPECT_EQ(lines.back().wall_ms, wall_ms);
    EXPECT_EQ(std::filesystem::status(folder / "log" / "previous.log").permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(RunFilesTest, it_is_the_last_one_that_said_something) {
    for (const char* words : {"first", "second"}) {
        const BegunRun run(data);
        info("app", "{}", words);
    }
    // The last line of a run that was killed may stand there in part.
    std::ofstream(folder / "log" / "run.log", std::ios::app) << "<6>2026-01-01T00:00:00.000Z [INFO] [0] - app: torn";
    const BegunRun run(data);
    EXPECT_TRUE(last_of(run).ends_with(" - app: second")) << last_of(run);
}

TEST_F(RunFilesTest, both_files_of_a_run_are_bounded_and_end_with_the_newest_line) {
    {
        const BegunRun run(data);
        const std::string filler(1000, 'x');
        for (int i = 0; i < 2000; ++i) info("app", "{} {}", i, filler);
    }
    std::size_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder / "log")) bytes += file.file_size();
    EXPECT_LE(bytes, RunFiles::bytes_max);
    EXPECT_GT(bytes, RunFiles::bytes_max / 4);
    const BegunRun run(data);
    const auto lines = run.before().value().value();
    EXPECT_TRUE(lines.back().text.contains(" - app: 1999 x"));
    EXPECT_GT(lines.size(), 100u);
    for (std::size_t i = 1; i < lines.size(); ++i) EXPECT_LE(lines[i - 1].wall_ms, lines[i].wall_ms);
}

TEST_F(RunFilesTest, a_folder_that_takes_nothing_holds_up_nobody_and_what_is_lost_is_told) {
    std::ofstream(folder / "log") << "in the way";
    const BegunRun run(data);
    for (int i = 0; i < 100; ++i) info("app", "lost {}", i);
    auto output = write_also(nullptr);
    EXPECT_TRUE(output->flush(10'000));
    EXPECT_GE(output->figures().lost, 100u);
    EXPECT_EQ(output->figures().fault, (folder / "log").string() + ": a file stands there and no folder; move it away");
    std::filesystem::remove(folder / "log");
    write_also(std::move(output));
    ASSERT_TRUE(is_written_again());
}

TEST_F(RunFilesTest, what_another_program_wrote_there_is_not_read_into_memory) {
    std::filesystem::create_directory(folder / "log");
    std::ofstream(folder / "log" / "run.log") << std::string(RunFiles::bytes_max + 1, 'x');
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    const auto before = run.before();
    ASSERT_FALSE(before.has_value());
    EXPECT_NE(before.error().message.find("previous.log: has 262145 bytes, and a run keeps at most 262144"), std::string::npos) << before.error().message;
}

TEST_F(RunFilesTest, a_full_disk_leaves_whole_lines) {
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    const auto room = text("run.log").size() + 30;
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const auto old = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit tight{.rlim_cur = room, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tight);
    info("app", "does not go in");
    auto output = write_also(nullptr);
    EXPECT_TRUE(output->flush(10'000));
    EXPECT_GE(output->figures().lost, 1u);
    EXPECT_TRUE(text("run.log").ends_with('\n')) << "and no part of it";
    setrlimit(RLIMIT_FSIZE, &before);
    write_also(std::move(output));
    ASSERT_TRUE(is_written_again());
    std::signal(SIGXFSZ, old);
    const auto all = text("run.log");
    for (const auto line : split(all, '\n')) {
        if (line.empty()) continue;
        EXPECT_TRUE(read_line(line) && line.find("<6>", 1) == std::string_view::npos) << line;
    }
}

// The log of the run before is shown or refused, and never one of a run before that: whoever reads it would look for a crash in it.
TEST_F(RunFilesTest, what_is_no_file_of_penstock_stops_nothing_in_silence_and_shows_no_older_run) {
    run_once("the run before the one before");
    run_once("the run before");
    for (const char* name : {"run.log", "run.older.log", "previous.log", "previous.older.log"}) {
        for (const char* kind : {"a folder", "a pipe", "a socket", "a link", "a link to nothing", "a link to itself"}) {
            if (name != std::string_view("run.log") && kind != std::string_view("a folder")) continue;
            SCOPED_TRACE(fmt::format("{} in the place of {}", kind, name));
            const auto whole = folder / "whole", there = folder / "log" / name;
            std::filesystem::copy(folder / "log", whole, std::filesystem::copy_options::recursive);
            put(kind, there);
            const auto before = std::filesystem::symlink_status(there).type();
            const auto words = there.string() + ": a " + (std::string(kind).starts_with("a link") ? "link" : kind + 2) + " stands there and no file of Penstock's log; move it away";
            {
                const BegunRun run(data);
                info("app", "words that nobody keeps");
                EXPECT_TRUE(comes([&] { return run.fault() == words; })) << run.fault();
                EXPECT_EQ(last_of(run), words);
                EXPECT_TRUE(comes([&] { return is_said(words); })) << "on standard error";
                EXPECT_EQ(std::filesystem::symlink_status(there).type(), before) << "what somebody put there stays";
                std::filesystem::remove_all(there);
                // Without another line being logged.
                EXPECT_TRUE(comes([&] { return run.fault().empty(); }));
                EXPECT_TRUE(comes_in("run.log", "lines of the log are lost"));
                if (name == std::string_view("run.log")) {
                    EXPECT_EQ(last_of(run), there.string() + ": something else stood there when this run began; the end of the run before is lost");
                } else {
                    EXPECT_TRUE(last_of(run).ends_with(" - app: the run before")) << last_of(run);
                }
            }
            std::filesystem::remove_all(folder / "log");
            std::filesystem::rename(whole, folder / "log");
        }
    }
}

TEST_F(RunFilesTest, the_folder_of_the_log_that_is_none_is_told) {
    for (const char* kind : {"a file", "a pipe", "a socket", "a link", "a link to nothing", "a link to itself"}) {
        SCOPED_TRACE(kind);
        put(kind, folder / "log");
        {
            const BegunRun run(data);
            info("app", "words that nobody keeps");
            const auto begin = (folder / "log").string() + ": ";
            EXPECT_TRUE(comes([&] { return run.fault().starts_with(begin); })) << run.fault();
            EXPECT_EQ(last_of(run), run.fault());
            EXPECT_TRUE(comes([&] { return is_said(begin); })) << "on standard error";
            EXPECT_EQ(text("run.log"), "");
            std::filesystem::remove(folder / "log");
            EXPECT_TRUE(comes_in("run.log", "lines of the log are lost"));
            EXPECT_EQ(last_of(run), "none");
        }
        std::filesystem::remove_all(folder / "log");
    }
}

TEST_F(RunFilesTest, a_linked_folder_is_taken_when_it_is_of_the_same_user) {
    const auto disk = folder / "disk";
    std::filesystem::create_directory(disk);
    std::filesystem::create_symlink(disk, folder / "log");
    run_once("on the other disk");
    EXPECT_TRUE(std::filesystem::exists(disk / "run.log"));
    {
        const BegunRun run(data);
        EXPECT_TRUE(last_of(run).ends_with(" - app: on the other disk")) << last_of(run);
    }
}

TEST_F(RunFilesTest, a_linked_folder_of_another_user_is_told) {
    if (geteuid() != 0) GTEST_SKIP() << "only root gives a folder away";
    const auto disk = folder / "disk";
    std::filesystem::create_directory(disk);
    std::filesystem::create_symlink(disk, folder / "log");
    ASSERT_EQ(chown(disk.c_str(), 65534, 65534), 0);
    const BegunRun run(data);
    const auto words = (folder / "log").string() + ": a link stands there to a folder of another user (65534, and Penstock runs as 0); give it to that one (chown), or remove the link";
    info("app", "words that nobody keeps");
    EXPECT_TRUE(comes([&] { return run.fault() == words; })) << run.fault();
    EXPECT_EQ(last_of(run), words);
}

// A start that gives up is no run: until then nothing is moved, and the run before is still read.
TEST_F(RunFilesTest, a_start_that_is_no_run_yet_leaves_the_run_before_in_its_place) {
    run_once("the run before");
    for (int i = 0; i < 2; ++i) {
        const RunFiles start(data);
        info("app", "of a start that gives up");
        EXPECT_TRUE(last_of(start).ends_with(" - app: the run before")) << last_of(start);
    }
    EXPECT_FALSE(text("run.log").contains("gives up"));
    RunFiles start(data);
    info("app", "said before it was a run");
    start.begin_run();
    start.begin_run();
    EXPECT_TRUE(comes_in("run.log", "said before it was a run"));
    EXPECT_TRUE(last_of(start).ends_with(" - app: the run before")) << last_of(start);
}

TEST_F(RunFilesTest, files_that_go_while_it_runs_are_begun_anew) {
    run_once("the run before");
    const auto log = folder / "log", file = log / "run.log", away = folder / "away";
    const std::pair<const char*, std::function<void()>> cases[] = {
        {"the file is deleted", [&] { std::filesystem::remove(file); }},
        {"the folder is deleted", [&] { remove_while_written(log); }},
        {"the file is moved away", [&] { std::filesystem::rename(file, away); }},
        {"the folder is moved away", [&] { std::filesystem::rename(log, away); }},
        {"another file takes its place", [&] { std::ofstream(folder / "new") << "mine\n"; std::filesystem::rename(folder / "new", file); }},
    };
    for (const auto& [what, happens] : cases) {
        SCOPED_TRACE(what);
        std::filesystem::remove_all(away);
        const BegunRun run(data);
        ASSERT_TRUE(is_written_again());
        happens();
        // Nothing needs to be logged for that.
        EXPECT_TRUE(comes_in("run.log", "is begun anew")) << text("run.log");
        EXPECT_TRUE(is_said(file.string()));
        ASSERT_TRUE(is_written_again());
        EXPECT_FALSE(text("run.log").contains("mine"));
        EXPECT_EQ(also_figures().lost, 0u);
    }
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    put("a folder", file);
    EXPECT_TRUE(comes([&] { return run.fault().starts_with(file.string() + ": a folder stands there"); })) << run.fault();
    EXPECT_TRUE(std::filesystem::exists(file / "mine"));
    std::filesystem::remove_all(file);
    ASSERT_TRUE(is_written_again());
}

TEST_F(RunFilesTest, a_data_folder_that_is_deleted_is_made_anew) {
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    remove_while_written(folder);
    EXPECT_TRUE(comes_in("run.log", "is begun anew"));
    EXPECT_EQ(last_of(run), "none");
}

TEST_F(RunFilesTest, a_file_that_is_cut_short_goes_on_without_a_hole) {
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    std::filesystem::resize_file(folder / "log" / "run.log", 0);
    ASSERT_TRUE(is_written_again());
    EXPECT_TRUE(text("run.log").starts_with('<')) << "no bytes of 0 in the place of what was cut off";
}

// A crash between two steps of the change to the next file, or of the move of the run before.
TEST_F(RunFilesTest, a_crash_between_two_moves_shows_no_older_run) {
    const std::pair<std::vector<const char*>, std::vector<const char*>> cases[] = {
        // What the crash left: the run's own files, then those of the run before it.
        {{"run.older.log"}, {"previous.log", "previous.older.log"}},
        {{"run.older.log"}, {"previous.log"}},
        {{"run.older.log", "run.log"}, {"previous.log"}},
        {{"run.log"}, {"previous.log", "previous.older.log"}},
    };
    std::filesystem::create_directory(folder / "log");
    for (const auto& [of_run, of_earlier] : cases) {
        SCOPED_TRACE(fmt::format("{} and {}", fmt::join(of_run, ", "), fmt::join(of_earlier, ", ")));
        for (const auto& file : std::filesystem::directory_iterator(folder / "log")) std::filesystem::remove(file);
        for (const char* name : of_run) std::ofstream(folder / "log" / name) << "<6>2026-01-02T00:00:00.000Z [INFO] [0] - app: it\n";
        for (const char* name : of_earlier) std::ofstream(folder / "log" / name) << "<6>2026-01-01T00:00:00.000Z [INFO] [0] - app: an earlier one\n";
        const auto is_shown = [&](const RunFiles& run) {
            const auto lines = run.before().value().value();
            EXPECT_EQ(lines.size(), of_run.size());
            for (const auto& line : lines) EXPECT_TRUE(line.text.ends_with(" - app: it")) << line.text;
        };
        const RunFiles start(data);
        is_shown(start);
        const BegunRun run(data);
        ASSERT_TRUE(is_written_again());
        is_shown(run);
    }
}

TEST_F(RunFilesTest, a_full_file_that_cannot_become_the_older_one_is_told) {
    const BegunRun run(data);
    ASSERT_TRUE(is_written_again());
    put("a folder", folder / "log" / "run.older.log");
    const std::string filler(1000, 'x');
    const auto words = (folder / "log" / "run.older.log").string() + ": a folder stands there and no file of Penstock's log; move it away";
    EXPECT_TRUE(comes([&] {
        for (int i = 0; i < 50; ++i) info("app", "{}", filler);
        return run.fault() == words;
    })) << run.fault();
    EXPECT_LE(text("run.log").size(), RunFiles::bytes_max / 2);
    std::filesystem::remove_all(folder / "log" / "run.older.log");
    ASSERT_TRUE(is_written_again());
    EXPECT_TRUE(is_said("is kept on the disk again"));
}

TEST_F(RunFilesTest, a_file_that_may_not_be_read_is_named_with_the_reason) {
    run_once("the run before");
    std::filesystem::remove(folder / "log" / "run.older.log");
    const auto file = folder / "log" / "run.log";
    ASSERT_EQ(chmod(file.c_str(), 0), 0);
    const AsNobodySpecial bound_by_modes;
    {
        const RunFiles start(data);
        EXPECT_EQ(last_of(start), file.string() + ": cannot be read: Permission denied");
        const BegunRun run(data);
        ASSERT_TRUE(is_written_again());
        EXPECT_EQ(last_of(run), (folder / "log" / "previous.log").string() + ": cannot be read: Permission denied");
    }
}

/// In a death test's process: lines go to standard error and signals do what they do, not what the tests' main made of them.
void as_in_a_daemon() {
    set_sink({});
    for (const int number : {SIGABRT, SIGSEGV}) std::signal(number, SIG_DFL);
}

TEST(LogOutput, what_was_logged_before_a_crash_is_written) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            as_in_a_daemon();
            const BackgroundOutput output;
            for (int i = 0; i < 500; ++i) error("app", "line {}", i);
            error("app", "the last words");
            std::abort();
        },
        testing::KilledBySignal(SIGABRT), "the last words");
}

TEST(LogOutput, a_crash_does_not_wait_for_a_reader_that_is_not_there) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            as_in_a_daemon();
            const Pipe pipe;
            dup2(pipe.ends[1], STDERR_FILENO);
            const BackgroundOutput output;
            for (int i = 0; i < 20'000; ++i) error("app", "line {}", i);
            raise(SIGSEGV);
        },
        testing::KilledBySignal(SIGSEGV), "");
}

TEST(LogOutput, the_end_of_a_process_does_not_wait_for_a_reader_that_is_not_there) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            as_in_a_daemon();
            const Pipe pipe;
            dup2(pipe.ends[1], STDERR_FILENO);
            {
                const BackgroundOutput output;
                for (int i = 0; i < 20'000; ++i) error("app", "line {}", i);
            }
            error("app", "nobody waits for this one either");
            std::exit(7);
        },
        testing::ExitedWithCode(7), "");
}

TEST(Log, a_line_is_bounded_whatever_a_peer_sends) {
    std::string line;
    set_sink([&](std::string_view text) { line = text; });
    info("app", "{}", std::string(100'000, 'x'));
    EXPECT_LT(line.size(), 9000u);
    EXPECT_TRUE(line.ends_with("... (91808 bytes more)\n")) << line.substr(line.size() - 40);
    info("app", "x{}", std::string(100'000, '\xc3') + "\xa4");
    std::string umlauts = "x";
    for (int i = 0; i < 10'000; ++i) umlauts += "ä";
    info("app", "{}", umlauts);
    EXPECT_NE(line.find("ä... ("), std::string::npos) << "cut between characters";
    set_sink({});
}

TEST(Log, kept_lines_have_a_bound_in_bytes) {
    set_sink([](std::string_view) {});
    const auto before = last_number();
    for (int i = 0; i < 4000; ++i) info("app", "{}", std::string(8000, 'x'));
    std::size_t bytes = 0;
    for (const auto& line : lines_after(before, {})) bytes += line.text.size();
    EXPECT_LE(bytes, 4u << 20);
    EXPECT_GT(bytes, 3u << 20);
    set_sink({});
}

}  // namespace
}  // namespace penstock::log
