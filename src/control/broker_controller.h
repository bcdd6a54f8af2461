#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "control/broker_choice.h"
#include "control/broker_ports.h"
#include "control/broker_reporter.h"
#include "control/broker_start.h"
#include "control/broker_view.h"
#include "control/engine.h"
#include "control/probe.h"
#include "control/state_keeper.h"
#include "control/status_writer.h"
#include "control/sys_publisher.h"

namespace penstock::control {

/// Makes the broker what the Broker and BrokerListener resources say, and writes into them what happened.
///
/// It conducts: it reads the resources, chooses, plans (pure), has its parts act, and has told what became of
/// it. Each part owns its state, see its header. Core: control; it reconciles on its engine's thread, its
/// parts say what else may be called and where.
class BrokerController {
  public:
    BrokerController(Objects& objects, std::string version, Clock clock,
                     std::function<TokenKeys()> token_keys = {}, StatePlace place = {});
    ~BrokerController();
    BrokerController(const BrokerController&) = delete;
    BrokerController& operator=(const BrokerController&) = delete;

    /// The resources are a cluster's: it gives Services their addresses and ports lead into this pod, so they
    /// open on all interfaces. Before start().
    void serve_cluster() noexcept { ports_.serve_cluster(); }
    /// Opens the Prometheus endpoint at a port (0: closes it) and returns why it could not, or nothing. Set
    /// before start(); called on the engine's thread.
    void on_metrics_port(std::function<std::string(int)> open) { open_metrics_port_ = std::move(open); }
    /// Where it tells what is wrong; its own when none is given. Before start().
    void use(HealthBoard& board);
    /// See BrokerReporter::say_again(). Before start(); asked on the engine's thread.
    void say_again(std::function<std::string()> text) { reporter_.say_again(std::move(text)); }
    void start();
    /// Ends client connections with reason 0x8B, then returns.
    void stop();

    /// What others see of the broker. Any thread.
    [[nodiscard]] BrokerView& view() noexcept { return view_; }
    /// What the engine counted, by reconciler and outcome. Any thread.
    [[nodiscard]] auto engine_counts() const { return engine_.counts(); }
    /// Writes into the Broker's status what the board says now. False: not possible at the moment. Any
    /// thread.
    bool show_health();
    /// See StateKeeper::keep_keys(). Any thread.
    void keep_keys() { state_.keep_keys(); }
    /// Runs the probe at once (tests).
    void probe_now() { probe_.now(); }

  private:
    class Work;
    void tell_start();
    Outcome turn();
    /// True when everything wanted is there.
    bool reconcile();
    /// The server runs when this returns. False: it cannot, and statuses say why.
    bool have_server(const Plan& plan, const BrokerChoice& choice);
    /// Makes the process and the workers what the plan says, but for ports; what has to wait is noted in
    /// `look`.
    void apply_process(BrokerLook& look, bool has_broker);
    /// Secures and binds the ports, and notes in `look` which are open.
    void apply_ports(BrokerLook& look, const BrokerChoice& choice);
    /// The look is the last one from now on.
    void publish(const BrokerLook& look);
    void report(const BrokerLook& look, const BrokerChoice& choice, const std::vector<PortEvent>& news);
    /// Statuses of Brokers that do not run, and of listeners that no Broker takes; what is wrong with the
    /// latter.
    std::vector<OrphanFacts> write_others(const BrokerChoice& choice);
    /// The Broker becomes an owner of the listener, unless one is already.
    void adopt(const resources::Json& listener, const resources::Json& broker);
    /// For health, of the last look. Any thread.
    BrokerFacts facts();

    Objects& objects_;
    const Clock clock_;
    Recorder recorder_;
    StatusWriter writer_;
    RunningBroker running_;
    StateKeeper state_;
    BrokerReporter reporter_;
    BrokerStart start_;
    BrokerPorts ports_;
    SysPublisher sys_;
    Probe probe_;
    BrokerView view_;
    std::function<std::string(int)> open_metrics_port_;
    Engine engine_;   ///< last: its thread uses all of the above
};

}  // namespace penstock::control
