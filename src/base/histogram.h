#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock {

/// How often a duration fell where, since the start: Prometheus' histogram. 144 bytes, no allocation.
/// Core: whoever owns it; it has no lock.
class DurationHistogram {
  public:
    /// Upper bounds in seconds, each counted as within; above the last there is one bucket more (`+Inf`). From what
    /// a round trip on the machine takes to the longest timeout of a check.
    static constexpr std::array bounds{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                       0.05,   0.1,     0.25,   0.5,   1.0,    2.5,   5.0,  10.0};

    void add(double seconds) noexcept {
        std::size_t at = 0;
        while (at < bounds.size() && seconds > bounds[at]) ++at;
        ++counts_[at];
        sum_ += seconds;
    }
    /// Of each bucket alone; the last one is `+Inf`.
    [[nodiscard]] const std::array<std::uint64_t, bounds.size() + 1>& counts() const noexcept { return counts_; }
    /// Seconds.
    [[nodiscard]] double sum() const noexcept { return sum_; }

  private:
    std::array<std::uint64_t, bounds.size() + 1> counts_{};
    double sum_ = 0;
};

}  // namespace penstock
