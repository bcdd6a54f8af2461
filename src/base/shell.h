#pragma once
#include <string>
#include <string_view>

namespace penstock {

/// A text as a shell takes it for one word: as it is where that is safe, else in single quotes. Control characters, which have
/// no place on the line a person copies, become `?`.
std::string shell_quoted(std::string_view text);

}  // namespace penstock
