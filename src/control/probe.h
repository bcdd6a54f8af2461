#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/given_clock.h"
#include "control/metrics.h"
#include "control/objects.h"
#include "control/running_broker.h"
#include "control/traces.h"

namespace penstock::control {

/// The self-test: goes round the open ports in its time, and takes the workers' spans. Owns its thread, what
/// it met, and the traces. Core: control; any thread.
class Probe {
  public:
    /// `secret` lets it in where clients must authenticate. `told`: called on its thread when it met
    /// something new.
    Probe(Objects& objects, RunningBroker& running, Clock clock, std::shared_ptr<const std::string> secret,
          std::function<void()> told);
    ~Probe() { stop(); }
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;
    void start();
    /// After Objects::stop(), which ends its pause.
    void stop();
    /// Goes round at once (tests).
    void now() noexcept { is_asked_ = true; }

    /// `use(figures)` with what it met so far, under its guard.
    template <class Use>
    auto with_figures(Use&& use) const {
        const std::lock_guard lock(guard_);
        return std::forward<Use>(use)(figures_);
    }
    /// The latest result of each route.
    [[nodiscard]] std::vector<SelftestResult> latest() const;
    /// What it met on ports that are not open any more is no news.
    void forget_closed(const std::vector<broker::ListenerState>& states);
    /// Traces of the last while, with the workers' newest. `what`: `traces` for a list, `traces/otlp` for all
    /// in OTLP's JSON, or with `/TRACE` for one.
    resources::Json traces(const std::string& what);
    /// Bytes of spans that are kept; 0: nothing is traced.
    void limit_traces(std::size_t bytes) { traces_.set_limit(bytes); }

  private:
    /// What one turn of the thread has to do.
    struct Errand {
        bool checks = false;   ///< results count
        int interval_s = 30, timeout_s = 15, tracing_s = 0;   ///< tracing 0: none
        std::vector<SelftestTarget> targets;
    };
    void run();
    Errand errand();
    void take_spans();
    void go_round(const Errand& errand, bool traced, bool counts);
    void count(const std::vector<SelftestResult>& results);

    Objects& objects_;
    RunningBroker& running_;
    const Clock clock_;
    const std::shared_ptr<const std::string> secret_;
    const std::function<void()> told_;
    TraceStore traces_;
    mutable std::mutex guard_;   ///< figures_; taken after RunningBroker's
    SelftestFigures figures_;
    std::atomic<bool> stopping_{false}, is_asked_{false};
    std::thread thread_;
};

}  // namespace penstock::control
