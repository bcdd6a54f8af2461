#pragma once
#include <string>
#include <vector>

#include "resources/json.h"

namespace penstock::app {

/// kubectl's JSONPath: text with `{...}` parts: `.field`, `['field']`, `[n]`, `[*]`, `\.` in names, `{"text"}`,
/// `[a:b]`, `[?(@.type=="Ready")]` with ==, !=, <, <=, >, >=, or a path alone, `..name`, `{range PATH}...{end}`.
/// A path that leads nowhere prints nothing, as kubectl does.
Result<std::string> evaluate_jsonpath(const std::string& expression, const resources::Json& object);
/// All values at a path without braces, such as `.spec.ports[*].port`.
Result<std::vector<resources::Json>> values_at(const std::string& path, const resources::Json& object);

}  // namespace penstock::app
