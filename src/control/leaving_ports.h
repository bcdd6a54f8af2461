#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "control/running_broker.h"

namespace penstock::control {

/// Ports of listeners that were deleted a moment ago: they stay, for a replacement deletes first
/// (`kubectl replace --force`). Owns them and when they go. Core: control; the engine's thread alone.
class LeavingPorts {
  public:
    LeavingPorts(Clock clock, std::shared_ptr<const std::string> probe_secret)
        : clock_(std::move(clock)), probe_secret_(std::move(probe_secret)) {}
    /// Puts what is still leaving behind the ports of `plan`. `last`: of the look before. `listeners`: those
    /// that are there.
    void keep(Plan& plan, const std::vector<resources::Json>& listeners, const BrokerLook& last);
    /// There is no Broker any more: nothing stays.
    void clear() noexcept { leaving_.clear(); }
    /// When the first of them goes, monotonic ms.
    [[nodiscard]] std::optional<std::int64_t> next_ms() const;

  private:
    struct Leaving {
        std::vector<PlannedPort> ports;
        std::int64_t until_ms = 0;   ///< monotonic
    };
    void take(PlannedPort port);

    const Clock clock_;
    const std::shared_ptr<const std::string> probe_secret_;
    std::map<std::string, Leaving> leaving_;   ///< by listener
};

}  // namespace penstock::control
