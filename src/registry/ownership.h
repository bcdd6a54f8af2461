#pragma once
#include <string>
#include <vector>

#include "registry/status.h"
#include "resources/field_set.h"

namespace penstock::registry {

/// One entry of `metadata.managedFields`: which fields a manager owns, and how it came to them.
struct Manager {
    std::string name;
    bool applies = false;                ///< operation Apply, else Update
    std::string api_version;
    std::string time;
    std::string subresource;
    resources::FieldSet fields;
};

/// Reads the list; the error names the faulty entry. `[{}]` and `[]` are an empty list.
Result<std::vector<Manager>> read_managers(const resources::Json& object);
void write_managers(resources::Json& object, const std::vector<Manager>& managers);

/// Who writes, for ownership.
struct Writer {
    std::string manager;
    std::string subresource;
    bool force = false;                  ///< server-side apply takes conflicting fields over
};

/// After an ordinary write: the writer owns what it changed, others lose it, and nobody owns what is gone.
void track_update(const resources::Kind& kind, const resources::Json& before, resources::Json& after, const Writer& writer);

/// Server-side apply, without the checks of the kind: the new object with its ownership, or the conflicts.
Answer<resources::Json> apply_configuration(const resources::Kind& kind, const std::string& name, const resources::Json& live, const resources::Json& applied, const Writer& writer);

}  // namespace penstock::registry
