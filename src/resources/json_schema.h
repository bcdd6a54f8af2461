#pragma once
#include "resources/schema.h"

namespace penstock::resources {

/// Work with structural OpenAPI v3 schemas, as CustomResourceDefinitions carry them (Kubernetes: "structural schemas").
/// Core: any thread; the functions keep nothing.

/// All faults of a value: types, bounds, enumerations, patterns, required fields, and the logical combinations.
void check_schema(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out);
/// Writes defaults where their parents exist; a null for a field that has a default and may not be null counts as absent.
void default_schema(const Json& schema, Json& value);
/// Removes fields that the schema does not name, unless it preserves them, and names each.
void prune_schema(const Json& schema, Json& value, const std::string& path, std::vector<Fault>& out);
/// Faults of a schema itself: unknown types, patterns that do not compile, nesting beyond 60 levels, too large.
void check_structural(const Json& schema, const std::string& path, std::vector<Fault>& out);
/// The schema of `metadata` of every kind.
Json metadata_schema();

}  // namespace penstock::resources
