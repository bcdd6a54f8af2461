// Standard error that nobody reads, that is full, slow or closed: whoever logs goes on, and what is lost is counted and told.
#include <csignal>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/log_output.h"
#include "base/text.h"

namespace penstock::log {
namespace {

struct Pipe {
    int ends[2] = {-1, -1};
    Pipe() {
        signal(SIGPIPE, SIG_IGN);
        EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    }
    ~Pipe() {
        close_reader();
        if (ends[1] >= 0) close(ends[1]);
    }
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
