#pragma once
#include <memory>

#include "control/engine.h"

namespace penstock::control {

/// Where the broker is another process than the resource API (`penstock api` and `penstock broker`): what a broker wrote into statuses
/// does not stand when none acts any more. Health becomes Unknown when the Lease `penstock-broker` of the namespace is held by nobody
/// or was not renewed, or a report is older than 15 minutes (fact sheet of AIO's health, 11.2).
std::unique_ptr<Reconciler> make_report_age(Objects& objects, Clock clock);

/// Why nobody stands behind the statuses of a namespace; empty: somebody does. `lease`: its object or null. Unix time.
std::string silence_of(const resources::Json* lease, std::int64_t wall_ms);

}  // namespace penstock::control
