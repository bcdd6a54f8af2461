#include "app/start_watch.h"

#include <signal.h>

#include <chrono>
#include <cstdlib>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"

namespace penstock::app {

namespace {

constexpr auto look_every = std::chrono::milliseconds(250), last_words = std::chrono::milliseconds(500);

}  // namespace

bool is_told_to_stop() {
    sigset_t pending;
    return sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

StartWatch::StartWatch() : thread_([this] { watch(); }) {}

StartWatch::~StartWatch() {
    {
        const std::lock_guard lock(guard_);
        is_over_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void StartWatch::step(std::string what) {
    const std::lock_guard lock(guard_);
    if (is_told_ && !what_.empty()) log::info("app", "the start goes on");
    what_ = std::move(what);
    since_ms_ = monotonic_ms();
    is_told_ = false;
}

void StartWatch::watch() {
    std::unique_lock lock(guard_);
    while (!is_over_) {
        changed_.wait_for(lock, look_every);
        if (is_over_ || what_.empty()) continue;
        const auto waited = monotonic_ms() - since_ms_;
        if (waited >= told_ms && !is_told_) {
            is_told_ = true;
            log::warn("app", "the start waits for {}; is it on a mount or disk that does not answer?", what_);
        }
        if (waited < stuck_ms || !is_told_to_stop()) continue;
        log::warn("app", "told to stop while the start waits for {}", what_);
        changed_.wait_for(lock, last_words);   // the log has a thread of its own, and whoever would end it is held up
        std::_Exit(1);
    }
}

}  // namespace penstock::app
