#pragma once
#include <string>
#include <vector>

#include "broker/server.h"
#include "control/plan.h"

namespace penstock::control {

/// The Service of a listener as it ought to be: metadata and spec, without status. Each `targetPort` is the port that is bound, or
/// would be: with NodePort that is the node port, on one machine and in a pod alike. `states` go with `plan.ports`; empty: nothing
/// is open yet. `current`: the Service as it is, or null; the address it was given stays. Pure.
resources::Json service_of(const resources::Json& listener, const Plan& plan,
                           const std::vector<broker::ListenerState>& states, bool in_cluster,
                           const resources::Json* current);

/// Why a Service that is there is not the listener's to write; empty: it is its own, or says what the listener says and is taken
/// over. A Service of somebody else is never written, so that nobody is fought about it. `wanted`: as service_of() says. Pure.
std::string service_refusal(const resources::Json& current, const resources::Json& listener,
                            const resources::Json& wanted);

/// True when the listener is an owner of the object.
bool is_owned_by(const resources::Json& object, const resources::Json& listener);

}  // namespace penstock::control
