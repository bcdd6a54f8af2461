#pragma once
#include "resources/schema.h"

namespace penstock::resources {

/// Work with structural OpenAPI v3 schemas, as CustomResourceDefinitions carry them (Kubernetes: "structural schemas").
/// Core: any thread; the functions keep nothing.

/// The faults of a value, `faults_max` at most; a check that would look at more than five million pairs of a schema and a value ends
/// with a fault of its own: types, bounds, enumerations, patterns, required fields, and the logical combinations.
void check_schema(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out);
/// Writes defaults where their parents exist; a null for a field that has a default and may not be null counts as absent.
/// `budget`: bytes that defaults may still add. False: they do not fit, and the value is in no certain state.
bool default_schema(const Json& schema, Json& value, std::size_t& budget);
/// Removes fields that the schema does not name, unless it preserves them, and names the first `faults_max`.
void prune_schema(const Json& schema, Json& value, const std::string& path, std::vector<Fault>& out);
/// Faults of a schema itself: keywords whose values have another type than they must, unknown types, patterns that do not compile, nesting beyond 60 levels, too large.
void check_structural(const Json& schema, const std::string& path, std::vector<Fault>& out);
/// The schema of `metadata` of every kind.
Json metadata_schema();

}  // namespace penstock::resources
