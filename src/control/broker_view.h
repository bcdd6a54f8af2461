#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "control/broker_reporter.h"
#include "control/housekeeper.h"
#include "control/probe.h"

namespace penstock::control {

/// What the resource API, the metrics port and the watchdog see of the broker. Owns nothing; asks the server
/// that runs, the last look and the probe. Any thread.
class BrokerView {
  public:
    BrokerView(RunningBroker& running, Probe& probe, StateKeeper& state, BrokerReporter& reporter,
               std::string version, Clock clock)
        : running_(running), probe_(probe), state_(state), reporter_(reporter), version_(std::move(version)),
          clock_(std::move(clock)) {}

    /// For the Prometheus endpoint. Asks the workers.
    std::string metrics_page();
    /// What keeps this process from being ready, a line each; empty: nothing. Never waits for a worker or the
    /// disk.
    std::string not_ready();
    /// How long the workers' turns last, and how full the message memory is. Never waits.
    void add_to(ProcessFacts& facts) const;
    /// The parts of the broker that are shown as Pods.
    std::vector<Role> roles();
    /// What was refused lately, and who is connected to ports with authentication. Asks the workers.
    std::vector<broker::Decision> decisions();
    std::vector<broker::ClientView> clients();
    /// See Probe::traces().
    resources::Json traces(const std::string& what) { return probe_.traces(what); }
    /// A consistent copy of the broker's state into a folder that does not exist yet. False: this Broker
    /// keeps no state.
    Result<bool> copy_state(const std::string& folder) { return state_.copy_to(folder); }

  private:
    RunningBroker& running_;
    Probe& probe_;
    StateKeeper& state_;
    BrokerReporter& reporter_;
    const std::string version_;
    const Clock clock_;
};

/// The counts of engines in Prometheus' text form.
std::string reconcile_metrics(const std::map<std::string, std::map<std::string, std::uint64_t>>& counts,
                              bool with_head);

}  // namespace penstock::control
