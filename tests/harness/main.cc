// The main of the test binaries: a test's log is shown when it fails and not otherwise, and what failed is said once more
// at the end, where the output of a run is read first.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/log.h"

namespace {

char running[256] = "";

[[maybe_unused]] void died(int signal) {
    constexpr char text[] = "died in ";
    [[maybe_unused]] auto written = ::write(STDOUT_FILENO, text, sizeof text - 1);
    written = ::write(STDOUT_FILENO, running, std::strlen(running));
    written = ::write(STDOUT_FILENO, "\n", 1);
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

class Report final : public testing::EmptyTestEventListener {
    std::uint64_t first_line_ = 0;
    std::vector<std::string> failed_;

    void OnTestStart(const testing::TestInfo& test) override {
        std::snprintf(running, sizeof running, "%s.%s", test.test_suite_name(), test.name());
        penstock::log::set_sink([](std::string_view) {});
        first_line_ = penstock::log::last_number();
    }
    void OnTestPartResult(const testing::TestPartResult& result) override {
        if (result.failed()) failed_.push_back(std::string(running) + " at " + (result.file_name() == nullptr ? "?" : result.file_name()) + ":" + std::to_string(result.line_number()) + "\n" + result.message());
    }
    void OnTestEnd(const testing::TestInfo& test) override {
        if (test.result()->Failed())
            for (const auto& line : penstock::log::lines_after(first_line_, {})) std::fputs(line.text.c_str(), stdout);
    }
    void OnTestProgramEnd(const testing::UnitTest&) override {
        for (const auto& one : failed_) std::printf("failed: %s\n", one.c_str());
    }
};

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    testing::UnitTest::GetInstance()->listeners().Append(new Report);
#ifndef __SANITIZE_ADDRESS__
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(signal, died);
#endif
    return RUN_ALL_TESTS();
}
