// Standard error that nobody reads, that is full, slow or closed: whoever logs goes on, and what is lost is counted and told.
#include <csignal>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
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

/// A data folder, and lines that go nowhere else.
struct RunFilesTest : testing::Test {
    RunFilesTest() {
        std::filesystem::create_directory(folder);
        data = HeldFolder::open(folder.string()).value();
        set_sink([](std::string_view) {});
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
    static std::string last_of(const RunFiles& run) {
        const auto lines = run.before();
        if (!lines) return lines.error().message;
        return !*lines ? "none" : (**lines).empty() ? "empty" : (**lines).back().text;
    }
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("penstock-run-" + random_uuid());
    std::shared_ptr<HeldFolder> data;
    static inline int number = 0;
};

TEST_F(RunFilesTest, the_run_before_is_read_with_times_and_modules) {
    {
        const RunFiles run(data);
        EXPECT_EQ(last_of(run), "none");
        warn("broker", "its last words key=\"a: b - c\"");
    }
    const RunFiles run(data);
    const auto lines = run.before().value().value();
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines.back().module, "broker");
    EXPECT_TRUE(lines.back().text.ends_with(" - broker: its last words key=\"a: b - c\"")) << lines.back().text;
    EXPECT_EQ(lines.back().wall_ms, lines_after(last_number() - 1, {}).back().wall_ms);
    EXPECT_EQ(std::filesystem::status(folder / "log" / "previous.log").permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(RunFilesTest, it_is_the_last_one_that_said_something) {
    for (const char* words : {"first", "second"}) {
        const RunFiles run(data);
        info("app", "{}", words);
    }
    // The last line of a run that was killed may stand there in part.
    std::ofstream(folder / "log" / "run.log", std::ios::app) << "<6>2026-01-01T00:00:00.000Z [INFO] [0] - app: torn";
    const RunFiles run(data);
    EXPECT_TRUE(last_of(run).ends_with(" - app: second")) << last_of(run);
}

TEST_F(RunFilesTest, both_files_of_a_run_are_bounded_and_end_with_the_newest_line) {
    {
        const RunFiles run(data);
        const std::string filler(1000, 'x');
        for (int i = 0; i < 2000; ++i) info("app", "{} {}", i, filler);
    }
    std::size_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder / "log")) bytes += file.file_size();
    EXPECT_LE(bytes, RunFiles::bytes_max);
    EXPECT_GT(bytes, RunFiles::bytes_max / 4);
    const RunFiles run(data);
    const auto lines = run.before().value().value();
    EXPECT_TRUE(lines.back().text.contains(" - app: 1999 x"));
    EXPECT_GT(lines.size(), 100u);
    for (std::size_t i = 1; i < lines.size(); ++i) EXPECT_LE(lines[i - 1].wall_ms, lines[i].wall_ms);
}

TEST_F(RunFilesTest, a_folder_that_takes_nothing_holds_up_nobody_and_what_is_lost_is_told) {
    std::ofstream(folder / "log") << "in the way";
    const RunFiles run(data);
    for (int i = 0; i < 100; ++i) info("app", "lost {}", i);
    auto output = write_also(nullptr);
    EXPECT_TRUE(output->flush(10'000));
    EXPECT_GE(output->figures().lost, 100u);
    EXPECT_EQ(output->figures().fault, "Not a directory");
    std::filesystem::remove(folder / "log");
    write_also(std::move(output));
    ASSERT_TRUE(is_written_again());
}

TEST_F(RunFilesTest, what_another_program_wrote_there_is_not_read_into_memory) {
    std::filesystem::create_directory(folder / "log");
    std::ofstream(folder / "log" / "run.log") << std::string(RunFiles::bytes_max + 1, 'x');
    const RunFiles files(data);
    const auto before = files.before();
    ASSERT_FALSE(before.has_value());
    EXPECT_NE(before.error().message.find("previous.log: has 262145 bytes, and a run keeps at most 262144"), std::string::npos) << before.error().message;
}

TEST_F(RunFilesTest, a_full_disk_leaves_whole_lines) {
    const RunFiles run(data);
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

TEST_F(RunFilesTest, a_pipe_in_the_place_of_a_file_is_not_waited_for) {
    std::filesystem::create_directory(folder / "log");
    ASSERT_EQ(mkfifo((folder / "log" / "run.log").c_str(), 0600), 0);
    const RunFiles run(data);
    EXPECT_NE(last_of(run).find("previous.log"), std::string::npos) << "it is told, not waited for: " << last_of(run);
    EXPECT_TRUE(is_written_again());
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
