#pragma once
#include <optional>
#include <string>
#include <vector>

#include "control/health.h"
#include "control/metrics.h"
#include "control/running_broker.h"
#include "control/state_keeper.h"

namespace penstock::control {

/// What health and statuses need of the server that runs. A value.
struct ServerFacts {
    std::uint32_t workers = 0;
    std::optional<store::Durable::Figures> kept;       ///< absent: nothing is kept on the disk
    std::optional<store::Overflow::Figures> buffer;    ///< absent: the message buffer has no folder
};
/// Waits for no worker. Under RunningBroker's guard, or on the engine's thread.
ServerFacts server_facts_of(const broker::Server& server);

/// All that health and the broker's statuses are made from, as it was at one moment. Borrows the look and
/// what the probe met.
struct BrokerSnapshot {
    const BrokerLook& look;
    ServerFacts server;
    StateFacts state;
    const std::vector<SelftestResult>& probed;   ///< the latest result of each route
};

/// For health. Pure. Where there is no Broker only what is told of listeners without one.
BrokerFacts facts_of(const BrokerSnapshot& snapshot);

/// The Broker's status. `broker`: as it is now; `all`: what is known to be wrong; `now_ms`: Unix time. Pure.
resources::Json broker_status(const resources::Json& broker, const BrokerSnapshot& snapshot,
                              const std::vector<Finding>& all, std::int64_t now_ms);

/// What a listener's status says.
struct ListenerReport {
    std::string name_space, name;
    const char* runtime = "Running";
    std::string description;
    HealthState health;
    std::string ports;                   ///< `1883/tcp,8080/ws`
    resources::Json details;             ///< `portStatus`
};
/// One of each listener that has a port and was not deleted, by namespace and name. Pure.
std::vector<ListenerReport> listener_reports(const BrokerLook& look, const std::vector<Finding>& all);
/// `listener`: as it is now; `now_ms`: Unix time. Pure.
resources::Json listener_status(const resources::Json& listener, const ListenerReport& report,
                                std::int64_t now_ms);

/// A BrokerAuthentication or BrokerAuthorization.
struct RulesName {
    const char* kind;
    std::string name_space, name;
};
/// Where rules are in force and where not, for people; `health`: of the rules. In force is only what acts on
/// a port that is open; of the others it is said why not. Pure.
std::string rules_description(const BrokerLook& look, const RulesName& rules, const HealthState& health);

}  // namespace penstock::control
