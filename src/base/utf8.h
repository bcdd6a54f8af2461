#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

/// Where `text` stops being well-formed UTF-8 without U+0000 and surrogates; npos when it is all well-formed.
std::size_t utf8_fault(std::string_view text) noexcept;

struct Utf8Character {
    std::uint32_t character = 0;
    std::size_t bytes = 0;               ///< 0: the text does not begin with a well-formed character
};
/// The first character of a text (Unicode 15, table 3-7): overlong forms, surrogates and what is cut off are none.
Utf8Character next_utf8(std::string_view text) noexcept;

}  // namespace penstock
