#pragma once
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "broker/core.h"
#include "control/plan.h"
#include "store/durable.h"
#include "control/selftest.h"

namespace penstock::control {

/// One self-test step over all routes, as AIO reports it: last, mean and deviation. The latter two are those of a window:
/// a mean since the start hardly moves any more after days, however slow the broker became. Core: whoever owns it.
class StepStatistics {
  public:
    static constexpr std::int64_t window_ms = 600'000;
    /// Within the window; more of them are thinned by leaving out the oldest.
    static constexpr std::size_t samples_max = 4096;

    /// `now_ms` is monotonic and does not go back.
    void add(std::int64_t now_ms, double milliseconds);
    struct Figures {
        double last = 0, mean = 0, deviation = 0;          ///< milliseconds; 0 before the first sample
    };
    /// Of what was added in the ten minutes before `now_ms`; of the newest alone where that is older.
    [[nodiscard]] Figures over(std::int64_t now_ms) const noexcept;
    /// Since the start.
    [[nodiscard]] const DurationHistogram& durations() const noexcept { return durations_; }

  private:
    struct Sample {
        std::int64_t at_ms;
        double milliseconds;
    };
    std::deque<Sample> samples_;
    DurationHistogram durations_;
};

struct SelftestFigures {
    std::vector<SelftestResult> latest;                    ///< one per listener
    std::array<StepStatistics, selftest_steps.size()> steps;
    std::map<std::string, std::uint64_t> sent, received, timeouts;   ///< delivery checks by listener
};

/// What is on disk.
struct DiskFigures {
    std::optional<store::Durable::Figures> kept;
    std::optional<store::Overflow::Figures> buffer;
};

/// The Prometheus page of the broker: AIO's metric names (fact sheet section 9), letter by letter, and Penstock's own with
/// prefix `penstock_`, named by Prometheus' rules. `now_ms` is monotonic.
std::string prometheus_page(const std::vector<broker::CoreFigures>& cores, const Plan& plan,
                            const SelftestFigures& selftest, std::int64_t pool_used,
                            const std::string& name_space, const std::string& hostname,
                            const std::string& version, const DiskFigures& disk = {}, std::int64_t now_ms = 0);

/// Families about the log's way to standard error.
std::string log_metrics();

}  // namespace penstock::control
