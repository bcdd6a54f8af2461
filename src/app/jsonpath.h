#pragma once
#include <string>

#include "resources/json.h"

namespace penstock::app {

/// kubectl's JSONPath: text with `{...}` parts: `.field`, `['field']`, `[n]`, `[*]`, `\.` in names, `{"text"}`,
/// `{range PATH}...{end}`. A path that leads nowhere prints nothing, as kubectl does.
Result<std::string> evaluate_jsonpath(const std::string& expression, const resources::Json& object);

}  // namespace penstock::app
