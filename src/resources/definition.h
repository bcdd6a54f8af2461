#pragma once
#include "resources/schema.h"

namespace penstock::resources {

/// All faults of a CustomResourceDefinition beyond its own declaration: names, storage version, structural schemas.
std::vector<Fault> check_definition(const Json& definition);
/// The kinds a CustomResourceDefinition (apiextensions.k8s.io/v1) makes the API serve: one for each served version.
std::vector<Kind> kinds_of_definition(const Json& definition);

}  // namespace penstock::resources
