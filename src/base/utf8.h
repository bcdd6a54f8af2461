#pragma once
#include <cstddef>
#include <string_view>

namespace penstock {

/// Where `text` stops being well-formed UTF-8 without U+0000 and surrogates; npos when it is all well-formed.
std::size_t utf8_fault(std::string_view text) noexcept;

}  // namespace penstock
