#pragma once
#include <string>
#include <vector>

#include "resources/schema.h"

namespace penstock::control {

/// Whether an object of the kind can have the name: what a person wrote in a reference may be none.
bool can_be_name(const resources::Kind& kind, const std::string& name);
/// Why it cannot, for a person: what a name may have.
std::string name_rule(const resources::Kind& kind);
/// The name if an object of the kind can have it, else free_name(otherwise, there).
std::string makeable_name(const resources::Kind& kind, const std::string& name, const std::string& otherwise,
                          const std::vector<std::string>& there = {});
/// `name`, or that with a number where `there` has it.
std::string free_name(const std::string& name, const std::vector<std::string>& there);

/// `namespace/name` of an object.
std::string qualified_name(const resources::Json& object);
/// A kind of the broker's own group, `Broker` for example, which is there.
const resources::Kind& broker_kind(const char* name);

}  // namespace penstock::control
