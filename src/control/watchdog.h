#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "base/given_clock.h"
#include "control/health.h"
#include "control/objects.h"

namespace penstock::control {

/// Notices a wall clock that went back: against the monotonic clock while the process runs, and against the latest time that an
/// earlier run left behind.
class ClockWatch {
  public:
    /// `latest_wall_ms`: Unix time that this machine has shown already; 0: not known.
    explicit ClockWatch(std::int64_t latest_wall_ms = 0) : latest_ms_(latest_wall_ms) {}
    /// How far the clock stands back, ms; 0: it does not, or that was more than an hour ago and is taken as the right time by now.
    std::int64_t back_ms(std::int64_t now_ms, std::int64_t wall_ms);

  private:
    static constexpr std::int64_t step_ms = 60'000, told_for_ms = 3'600'000;
    std::int64_t latest_ms_;
    std::int64_t seen_ms_ = 0, seen_wall_ms_ = 0;  ///< both clocks when they were last looked at
    std::int64_t back_ms_ = 0, until_ms_ = 0;
};

/// Looks at the process once a second and puts on the board what is wrong with it, whoever else is stuck.
/// Core: control, with a thread of its own that waits for nobody.
class Watchdog {
  public:
    struct Options {
        Clock clock;
        std::function<ProcessFacts()> facts;       ///< never waits for a worker or the disk
        std::function<bool()> show;                ///< tells people what changed; false: not possible now, it is called again
        std::function<void(int ms)> pause;         ///< returns early when the process ends
        std::int64_t latest_wall_ms = 0;           ///< see ClockWatch
    };
    Watchdog(HealthBoard& board, Options options)
        : board_(board), options_(std::move(options)), back_(options_.latest_wall_ms) {}
    ~Watchdog() { stop(); }
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;
    void start();
    /// After `pause` was told to return.
    void stop();
    /// One look (tests).
    void look(std::int64_t now_ms, std::int64_t wall_ms);

  private:
    HealthBoard& board_;
    Options options_;
    ClockWatch back_;
    std::uint64_t shown_ = 0;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

/// The latest time that statuses of Brokers carry, Unix ms; 0: none does.
std::int64_t latest_report_ms(const Objects& objects);

}  // namespace penstock::control
