#pragma once
#include <string>
#include <vector>

#include "registry/status.h"
#include "resources/field_set.h"

namespace penstock::registry {

/// Who owns the objects that Penstock makes once, so that there is something to begin with, and never writes again: the default
/// Broker with its listener, roles, issuers, namespaces. What it owns yields to whoever comes first, without a conflict.
inline constexpr const char* defaults_manager = "penstock-defaults";

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
    bool replaces_defaults = false;      ///< server-side apply of a whole manifest: what the embedded default had goes first
};

/// True for an embedded default that nobody but Penstock has written to, its status apart.
bool is_untouched_default(const resources::Json& object);
/// Gives what an older version wrote as `from` (operation Update) to the defaults' manager, where nobody else has a part in it.
void adopt_as_default(resources::Json& object, std::string_view from);

/// After an ordinary write: the writer owns what it changed, others lose it, and nobody owns what is gone.
void track_update(const resources::Kind& kind, const resources::Json& before, resources::Json& after, const Writer& writer);

/// Server-side apply, without the checks of the kind: the new object with its ownership, or the conflicts.
Answer<resources::Json> apply_configuration(const resources::Kind& kind, const std::string& name, const resources::Json& live, const resources::Json& applied, const Writer& writer);

}  // namespace penstock::registry
