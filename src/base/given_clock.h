#pragma once
#include <cstdint>
#include <functional>
#include <utility>

namespace penstock {

/// The time as a part is given it by whoever puts the process together: the machine's, or one that a test
/// turns. What waits (a poller, a condition) waits in real time; when something is due is asked of this.
/// A value: copies read the same time. Thread: any, as long as the two functions may be called there.
class Clock {
  public:
    using Reading = std::function<std::int64_t()>;
    /// `wall_ms`: milliseconds since the Unix epoch, which may jump. `monotonic_ns`: nanoseconds since an
    /// arbitrary start, which never go back. Neither is empty.
    Clock(Reading wall_ms, Reading monotonic_ns)
        : wall_ms_(std::move(wall_ms)), monotonic_ns_(std::move(monotonic_ns)) {}

    [[nodiscard]] std::int64_t wall_ms() const { return wall_ms_(); }
    [[nodiscard]] std::int64_t monotonic_ms() const { return monotonic_ns_() / 1'000'000; }
    [[nodiscard]] std::int64_t monotonic_ns() const { return monotonic_ns_(); }

  private:
    Reading wall_ms_, monotonic_ns_;
};

/// The machine's own clocks. For those who put a process together.
Clock machine_clock();

}  // namespace penstock
