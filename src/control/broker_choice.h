#pragma once
#include <string>
#include <vector>

#include "control/health.h"
#include "control/objects.h"

namespace penstock::control {

/// Which Broker runs, and whose listeners are whose.
struct BrokerChoice {
    std::vector<ObjectRef> brokers;      ///< all there are
    ObjectRef chosen;                    ///< null: there is no Broker
    std::vector<ObjectRef> others;       ///< Brokers that do not run
    std::string why_not;                 ///< why they do not; for people
    std::vector<resources::Json> listeners;        ///< of the one that runs
    std::vector<ObjectRef> orphans;      ///< listeners of no Broker that runs
};
/// One Broker runs on a machine: that of the default namespace, else the oldest. Pure.
BrokerChoice choose_broker(const std::vector<ObjectRef>& brokers, const std::vector<ObjectRef>& listeners);

/// What keeps a listener without a running Broker from naming the one it belongs to.
OrphanFacts orphan_facts_of(const Objects& objects, const resources::Json& listener,
                            const BrokerChoice& choice);

}  // namespace penstock::control
