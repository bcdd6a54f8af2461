#pragma once
#include <vector>

#include "registry/registry.h"

namespace penstock::registry {

/// Defaults that need more than the field's own declaration: a listener's serviceName is its name.
void admit_defaults(const resources::Kind& kind, resources::Json& object);

/// Rules between objects. `peers` are the other objects of the kind in the namespace.
void admit(const resources::Kind& kind, const resources::Json& object, const std::vector<ObjectRef>& peers, const std::vector<ObjectRef>& brokers,
           std::vector<resources::Fault>& faults);

/// The Broker a listener belongs to: its owner reference of kind Broker, else `spec.brokerRef`; empty when neither.
std::string broker_of(const resources::Json& object);

}  // namespace penstock::registry
