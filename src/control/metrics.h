#pragma once
#include <map>
#include <string>
#include <vector>

#include "broker/core.h"
#include "control/plan.h"
#include "store/durable.h"
#include "control/selftest.h"

namespace penstock::control {

/// Running figures of one self-test step over all routes: last, mean and deviation, as AIO reports them.
struct StepStatistics {
    double last = 0, mean = 0, square_sum = 0;
    std::uint64_t count = 0;
    void add(double milliseconds) noexcept;
    [[nodiscard]] double deviation() const noexcept;
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

/// The Prometheus page: AIO's metric names (fact sheet section 9) and Penstock's own with prefix `penstock_`.
std::string prometheus_page(const std::vector<broker::CoreFigures>& cores, const Plan& plan, const SelftestFigures& selftest,
                            std::int64_t pool_used, const std::string& name_space, const std::string& hostname, const std::string& version, const DiskFigures& disk = {});

/// Families about the log's way to standard error.
std::string log_metrics();

}  // namespace penstock::control
