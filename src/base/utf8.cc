#include "base/utf8.h"

#include <cstdint>
#include <cstring>

namespace penstock {

Utf8Character next_utf8(std::string_view text) noexcept {
    if (text.empty()) return {};
    auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    const auto first = byte(0);
    if (first < 0x80) return {first, 1};
    std::size_t extra = 0;
    std::uint32_t point = 0;
    if (first >= 0xC2 && first <= 0xDF) extra = 1, point = first & 0x1Fu;
    else if (first >= 0xE0 && first <= 0xEF) extra = 2, point = first & 0x0Fu;
    else if (first >= 0xF0 && first <= 0xF4) extra = 3, point = first & 0x07u;
    else return {};
    if (extra >= text.size()) return {};
    for (std::size_t k = 1; k <= extra; ++k) {
        if ((byte(k) & 0xC0) != 0x80) return {};
        point = point << 6 | (byte(k) & 0x3Fu);
    }
    if (extra == 2 && point < 0x800) return {};
    if (extra == 3 && (point < 0x10000 || point > 0x10FFFF)) return {};
    if (point >= 0xD800 && point <= 0xDFFF) return {};
    return {point, extra + 1};
}

std::size_t utf8_fault(std::string_view text) noexcept {
    std::size_t i = 0;
    const auto size = text.size();
    auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    while (i < size) {
        // Eight ASCII bytes at a time: none has its top bit set and none is zero.
        while (i + 8 <= size) {
            std::uint64_t block = 0;
            std::memcpy(&block, text.data() + i, 8);
            constexpr std::uint64_t high = 0x8080808080808080u, low = 0x0101010101010101u;
            if ((block & high) != 0 || ((block - low) & ~block & high) != 0) break;
            i += 8;
        }
        if (i >= size) return std::string_view::npos;
        const auto first = byte(i);
        if (first == 0) return i;
        if (first < 0x80) {
            ++i;
            continue;
        }
        const auto next = next_utf8(text.substr(i));
        if (next.bytes == 0) return i;
        i += next.bytes;
    }
    return std::string_view::npos;
}

}  // namespace penstock
