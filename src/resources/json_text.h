#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "resources/json.h"

namespace penstock::resources {

// What Kubernetes makes of other people's JSON, where the grammar leaves it open.

/// A number that is whole as an integer, whichever way it was written: `1e3`, `1883.0`. Others, and those
/// beyond 64 bits, stay real.
Json whole_or_real(double value);
/// The text with U+FFFD for each escape that is half of a surrogate pair; as long as before. Nothing when
/// there is none.
std::optional<std::string> surrogates_mended(std::string_view json);

}  // namespace penstock::resources
