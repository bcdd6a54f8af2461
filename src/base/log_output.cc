#include "base/log_output.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "base/clock.h"

namespace penstock::log {
namespace {

constexpr int busy_pause_ms = 50;        // until a descriptor that somebody made non-blocking is tried again
constexpr auto look_every = std::chrono::seconds(1);
thread_local bool is_writer = false;

}  // namespace

struct Output::State {
    struct Item {
        int descriptor = 2;
        std::string text;
    };
    explicit State(Options given) : options(std::move(given)) {}

    const Options options;
    std::mutex guard;                    ///< all below but `waiting`
    std::condition_variable news, drained;
    std::deque<Item> queue;
    std::size_t bytes = 0;
    bool writing = false, stopping = false;
    std::int64_t busy_since = 0;         ///< monotonic; 0: the thread waits for a line
    std::uint64_t lost = 0, told = 0;
    std::string fault;
    std::atomic<std::size_t> waiting{0}; ///< lines that are queued or being written
    bool cut = false;                    ///< of the thread: the last line ends in its middle

    void run();
    void look(std::unique_lock<std::mutex>& lock);
    bool write(int descriptor, std::string_view text, std::string& why);
    [[nodiscard]] std::string why_lost() const { return fault.empty() ? "it was not read" : fault; }
    void forget_oldest() {
        bytes -= queue.front().text.size();
        queue.pop_front();
        ++lost;
        --waiting;
    }
};

bool Output::State::write(int descriptor, std::string_view text, std::string& why) {
    if (options.take && descriptor == options.descriptor) return options.take(text, why);
    std::size_t at = 0;
    while (at < text.size()) {
        const auto n = ::write(descriptor, text.data() + at, text.size() - at);
        if (n > 0) {
            at += static_cast<std::size_t>(n);
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            std::unique_lock lock(guard);
            drained.wait_for(lock, std::chrono::milliseconds(busy_pause_ms), [] { return false; });
            if (!stopping) continue;
        }
        why = n < 0 ? std::strerror(errno) : "nothing was taken";
        if (descriptor == options.descriptor) cut = cut || at > 0;
        return false;
    }
    return true;
}

void Output::State::look(std::unique_lock<std::mutex>& lock) {
    const auto untold = lost - told;
    const auto why = why_lost();
    std::string now;
    busy_since = monotonic_ms();
    lock.unlock();
    bool is_good = options.look(now);
    if (is_good && untold > 0 && options.tell_lost)
        is_good = write(options.descriptor, options.tell_lost(untold, why), now);
    lock.lock();
    busy_since = 0;
    if (is_good && options.tell_lost) told += untold;
    fault = is_good ? "" : now;
}

void Output::State::run() {
    is_writer = true;
    std::unique_lock lock(guard);
    while (true) {
        const auto is_wanted = [this] { return !queue.empty() || stopping; };
        while (options.look && !news.wait_for(lock, look_every, is_wanted)) look(lock);
        news.wait(lock, is_wanted);
        if (queue.empty()) return;
        auto item = std::move(queue.front());
        queue.pop_front();
        bytes -= item.text.size();
        writing = true;
        busy_since = monotonic_ms();
        const auto untold = lost - told;
        auto why = why_lost();
        lock.unlock();
        bool good = true, tells = false;
        if (item.descriptor == options.descriptor && (untold > 0 || cut)) {
            const auto notice = (cut ? "\n" : "") + (untold > 0 && options.tell_lost ? options.tell_lost(untold, why) : std::string());
            good = write(item.descriptor, notice, why);
            tells = good && untold > 0;
            if (good) cut = false;
        }
        good = good && write(item.descriptor, item.text, why);
        lock.lock();
        if (tells) told += untold;
        if (item.descriptor == options.descriptor) {
            if (!good) ++lost;
            fault = good ? "" : why;
        }
        writing = false;
        busy_since = 0;
        --waiting;
        drained.notify_all();
    }
}

Output::Output(Options options) : state_(std::make_shared<State>(std::move(options))) {
    std::thread([state = state_] { state->run(); }).detach();
}

Output::~Output() {
    const std::lock_guard lock(state_->guard);
    state_->stopping = true;
    state_->news.notify_all();
}

void Output::add(std::string line) { add(state_->options.descriptor, std::move(line)); }

void Output::add(int descriptor, std::string text) {
    auto& state = *state_;
    const std::lock_guard lock(state.guard);
    state.bytes += text.size();
    state.queue.push_back({descriptor, std::move(text)});
    ++state.waiting;
    while (state.queue.size() > state.options.lines_max || (state.bytes > state.options.bytes_max && state.queue.size() > 1)) state.forget_oldest();
    if (state.queue.size() == 1) state.news.notify_one();
}

bool Output::flush(int milliseconds) {
    std::unique_lock lock(state_->guard);
    return state_->drained.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return state_->queue.empty() && !state_->writing; });
}

void Output::flush_in_crash(int milliseconds) const noexcept {
    if (is_writer) return;
    // A condition variable would need the lock, which the thread that crashed may hold; nanosleep is allowed in a handler.
    const timespec tick{.tv_sec = 0, .tv_nsec = 1'000'000};
    for (int i = 0; i < milliseconds && state_->waiting.load() > 0; ++i) ::nanosleep(&tick, nullptr);
}

Output::Figures Output::figures() const {
    const std::lock_guard lock(state_->guard);
    const auto busy_ms = state_->busy_since == 0 ? 0 : monotonic_ms() - state_->busy_since;
    return {.lost = state_->lost, .fault = state_->fault, .busy_ms = busy_ms};
}

}  // namespace penstock::log
