#pragma once
#include "resources/json.h"

namespace penstock::resources {

/// JSON merge patch, RFC 7386.
void merge_patch(Json& target, const Json& patch);
/// JSON patch, RFC 6902. Bounds: 10,000 operations, 100 levels of depth, and what all operations together copy, compare and move,
/// so that neither copies of copies nor insertions into long lists can fill the memory or hold the caller up.
/// The error names the operation; `target` is then in no certain state.
Result<void> json_patch(Json& target, const Json& patch);
/// Strategic merge patch of the Kubernetes API: lists with `x-kubernetes-patch-merge-key` in the schema merge by it, sets
/// unite, the directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/F` and `$setElementOrder/F` are carried out.
/// The error names the field; `target` is then in no certain state.
Result<void> strategic_patch(Json& target, const Json& patch, const Json& schema);
/// The schema of a member: from `properties`, else `additionalProperties`; an empty object when unknown.
const Json& member_schema(const Json& schema, std::string_view key);
const Json& items_schema(const Json& schema);

}  // namespace penstock::resources
