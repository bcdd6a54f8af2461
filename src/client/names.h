#pragma once
#include <string>

#include "resources/json.h"

namespace penstock::client {

/// Whether a text may be the name of an object, or of a namespace, in the path of a request: the path of one
/// with a `/` is that of something else, that of an empty one leads to all objects of its kind
/// (apimachinery, IsValidPathSegmentName). The error quotes it, bounded and printable. Any thread.
Result<void> check_name(const std::string& name);

/// `metadata.namespace` of an object; an absent, null or empty one is `fallback`, as for kubectl. Any thread.
std::string namespace_of(const resources::Json& object, const std::string& fallback);

/// Whether `metadata.name` and, with `namespaced`, `metadata.namespace` can stand in the path of a request:
/// texts of at most 253 bytes that pass check_name(). `fallback`: see namespace_of(). The error begins with
/// the field. Any thread.
Result<void> check_names(const resources::Json& object, bool namespaced, const std::string& fallback);

}  // namespace penstock::client
