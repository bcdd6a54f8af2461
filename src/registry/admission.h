#pragma once
#include <functional>
#include <vector>

#include "registry/status.h"

namespace penstock::registry {

using ObjectRef = std::shared_ptr<const resources::Json>;

/// What the rules between objects may look at.
struct Peers {
    /// All stored objects of a kind, other than the one being written.
    std::function<std::vector<ObjectRef>(const char* api_version, const char* kind)> list;
};

/// A list that is named without a value (`clientIds:` in YAML is null) stays as an empty one where its absence means something
/// else: Connect without clientIds is for any client id. Before nulls are dropped.
void keep_empty_lists(const resources::Kind& kind, resources::Json& object);

/// Completes an object: defaults that need more than the field's own declaration, addresses and ports of Services, texts of
/// Secrets. `previous` is null at creation. A refusal is one of the reading itself (bad base64).
Answer<void> admit_defaults(const resources::Kind& kind, resources::Json& object, const resources::Json* previous, const Peers& peers);

/// Rules between fields, against the previous version, and between objects.
void admit(const resources::Kind& kind, const resources::Json& object, const resources::Json* previous, const Peers& peers, std::vector<resources::Fault>& faults);

/// The Broker a listener belongs to: its owner reference of kind Broker, else `spec.brokerRef`; empty when neither.
std::string broker_of(const resources::Json& object);

/// The texts of a Secret (`stringData`) become bytes in base64 beside its `data`, as they are stored. Where one of the two is of
/// a wrong type both stay as they are, for the schema to refuse them by name.
void fold_texts(resources::Json& object);

// The kinds of Kubernetes itself; called by the two above.
Answer<void> admit_core_defaults(const resources::Kind& kind, resources::Json& object, const resources::Json* previous, const Peers& peers);
void admit_core(const resources::Kind& kind, const resources::Json& object, const resources::Json* previous, const Peers& peers, std::vector<resources::Fault>& faults);

}  // namespace penstock::registry
