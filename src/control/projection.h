#pragma once
#include <memory>

#include "control/housekeeper.h"

namespace penstock::control {

/// Shows this machine as the Node, and each role of the process as a Pod with its container, readiness and log.
std::unique_ptr<Reconciler> make_projection(registry::Registry& registry, const HousekeeperOptions& options);

}  // namespace penstock::control
