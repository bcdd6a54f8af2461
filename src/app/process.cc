#include "app/process.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include <fmt/format.h>

#include "app/environment.h"
#include "base/log.h"
#include "base/log_modules.h"
#include "base/log_output.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;

/// Standard error is the journal's (systemd.exec(5), JOURNAL_STREAM): device and inode say so, for a variable
/// alone is inherited by whoever writes somewhere else.
bool logs_to_journal() {
    struct stat about{};
    return fstat(STDERR_FILENO, &about) == 0 &&
           environment("JOURNAL_STREAM") == fmt::format("{}:{}", about.st_dev, about.st_ino);
}

}  // namespace

sigset_t prepare_process() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
    log::show_priority(logs_to_journal());
    // Messages come and go by the thousand; giving each 64 KiB back to the kernel and faulting it in again
    // costs more than all the rest of handling them. What is kept is bounded: 16 MiB a thread.
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    return signals;
}

void wait_for_end(const sigset_t& signals, const std::function<void()>& on_hangup) {
    const bool has_terminal = isatty(STDIN_FILENO) == 1;
    for (int number = 0; sigwait(&signals, &number) != 0 || number == SIGHUP;) {
        if (number == SIGHUP && has_terminal && isatty(STDIN_FILENO) == 0) return;
        if (number != SIGHUP) continue;
        log::info("app", "SIGHUP: files, certificates and keys are read again");
        on_hangup();
    }
}

int give_up(const std::string& why) {
    log::print(STDERR_FILENO, "penstock: " + why + "\n");
    return 1;
}

std::string take_levels(const std::string& levels) {
    if (auto why = log::set_levels(levels); !why.empty()) return why;
    const auto unknown = log::unknown_modules(levels);
    if (!unknown.empty()) log::warn("app", "--log-level: {}", unknown);
    return {};
}

Result<std::shared_ptr<HeldFolder>> open_data_folder(const std::string& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error)
        return fail(fmt::format("the data folder {} cannot be made: {}; choose another with --data-dir",
                                folder, error.message()));
    return HeldFolder::open(folder);
}

control::StatePlace place_in(const std::shared_ptr<HeldFolder>& held) {
    if (!held) return {};
    const fs::path data = held->path();
    control::StatePlace out{.folder = (data / "broker").string(),
                            .mark_file = (data / "broker.mark").string(),
                            .key_file = (data / "pki" / control::state_keys_name).string(),
                            .keys_are_given = false,
                            .buffer_folder = (data / "buffer").string(),
                            .data = held};
    if (const auto credentials = environment("CREDENTIALS_DIRECTORY"); !credentials.empty()) {
        const auto given = fs::path(credentials) / "penstock-state-keys";
        std::error_code error;
        if (fs::exists(given, error)) out.key_file = given.string(), out.keys_are_given = true;
    }
    return out;
}

}  // namespace penstock::app
