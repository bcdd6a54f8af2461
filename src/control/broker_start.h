#pragma once
#include <memory>
#include <string>
#include <vector>

#include "control/broker_reporter.h"
#include "control/state_keeper.h"

namespace penstock::control {

/// Starts the server: opens what the Broker kept, and says meanwhile how far it is. Owns why the state could
/// not be opened. Core: control; the engine's thread alone.
class BrokerStart {
  public:
    BrokerStart(StateKeeper& state, BrokerReporter& reporter, StatusWriter& writer)
        : state_(state), reporter_(reporter), writer_(writer) {}
    /// Null: it cannot, fault() and the statuses of the Broker and of `listeners` say why.
    std::unique_ptr<broker::Server> start(const Plan& plan, const resources::Json& broker,
                                          const std::vector<resources::Json>& listeners);
    /// Why the last start failed.
    [[nodiscard]] const std::string& fault() const noexcept { return fault_; }

  private:
    std::unique_ptr<broker::Server> start_with_state(const Plan& plan, const resources::Json& broker);
    /// Says how far the reading is. On a thread of its own.
    void tell_progress(const resources::Json& broker, const store::RecoveryProgress& progress);
    /// Never a silent fresh start: without its state the broker does not run.
    void tell_fault(const std::string& why, const resources::Json& broker,
                    const std::vector<resources::Json>& listeners);

    StateKeeper& state_;
    BrokerReporter& reporter_;
    StatusWriter& writer_;
    std::string fault_;
};

}  // namespace penstock::control
