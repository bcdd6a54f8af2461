#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "broker/server.h"
#include "control/housekeeper.h"
#include "control/metrics.h"
#include "control/plan.h"
#include "control/sys_topics.h"

namespace penstock::control {

/// The counts of engines in Prometheus' text form.
std::string reconcile_metrics(const std::map<std::string, std::map<std::string, std::uint64_t>>& counts, bool with_head);

/// Makes the broker what the Broker and BrokerListener resources say, and writes into them what happened.
///
/// Core: control. It reconciles on its engine's thread (read, decide, act, report); a second thread runs the self-test.
class BrokerController {
  public:
    BrokerController(Objects& objects, std::string version);
    ~BrokerController();

    void start();
    /// What the engine counted, by reconciler and outcome. Any thread.
    [[nodiscard]] auto engine_counts() const { return engine_.counts(); }
    /// Ends client connections with reason 0x8B, then returns.
    void stop();
    /// For the Prometheus endpoint. Any thread.
    std::string metrics_page();
    /// Empty when every wanted port is open or knowingly blocked; else what is missing. Any thread.
    std::string not_ready();
    /// The parts of this process that are shown as Pods. Any thread.
    std::vector<Role> roles();
    /// Opens the Prometheus endpoint at a port (0: closes it) and returns why it could not, or nothing. Set before start();
    /// called on the controller's thread.
    void on_metrics_port(std::function<std::string(int)> open) { open_metrics_port_ = std::move(open); }
    /// Runs the probe at once (tests).
    void probe_now();

  private:
    class Work;
    void run_probe();
    /// True when everything wanted is there.
    bool reconcile();
    Outcome turn();
    void report(const Plan& plan, const std::vector<broker::ListenerState>& states);
    resources::Json broker_status(const resources::Json& broker, const Plan& plan, const std::vector<broker::ListenerState>& states) const;
    void put_service(const resources::Json& listener, const Plan& plan, const std::vector<broker::ListenerState>& states);
    void adopt(const resources::Json& listener, const resources::Json& broker);
    void write_status(const resources::Kind& kind, const std::string& space, const std::string& name, const resources::Json& status);
    void publish_sys(std::int64_t now);

    Objects& objects_;
    Recorder recorder_;
    Engine engine_;
    std::string version_;
    std::unique_ptr<broker::Server> server_;
    std::mutex guard_;                             ///< plan_, states_, selftest_, server_'s pointer
    Plan plan_;
    std::vector<broker::ListenerState> states_;
    SelftestFigures selftest_;
    std::string name_space_ = "azure-iot-operations";
    std::string broker_name_;
    SysTopics sys_;
    std::int64_t next_sys_ = 0, next_report_ = 0;
    std::uint64_t probes_ = 0;
    std::function<std::string(int)> open_metrics_port_;
    std::string metrics_fault_;                    ///< guarded by guard_
    std::atomic<bool> stopping_{false};
    std::atomic<bool> probe_now_{false};
    std::thread probe_;
};

}  // namespace penstock::control
