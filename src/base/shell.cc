#include "base/shell.h"

#include <algorithm>
#include <cctype>

namespace penstock {

std::string shell_quoted(std::string_view text) {
    constexpr std::string_view plain = "/._-+:@%,";
    if (!text.empty() && std::ranges::all_of(text, [&](char c) {
            return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                   plain.find(c) != std::string_view::npos;
        }))
        return std::string(text);
    std::string out = "'";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\'') out += "'\\''";
        else out += byte < 0x20 || byte == 0x7F ? '?' : c;
    }
    return out + "'";
}

}  // namespace penstock
