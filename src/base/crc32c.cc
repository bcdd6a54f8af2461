#include "base/crc32c.h"

#include <array>
#include <cstddef>

namespace penstock {
namespace {

constexpr std::size_t slices = 8;
using Table = std::array<std::array<std::uint32_t, 256>, slices>;

/// Of each byte, and of each byte with up to seven zero bytes behind it: eight bytes are taken at a time.
constexpr Table make_table() {
    Table out{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        auto value = byte;
        for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82F63B78u : 0u);
        out[0][byte] = value;
    }
    for (std::size_t slice = 1; slice < slices; ++slice)
        for (std::size_t byte = 0; byte < 256; ++byte) {
            const auto shorter = out[slice - 1][byte];
            out[slice][byte] = shorter >> 8 ^ out[0][shorter & 0xFF];
        }
    return out;
}
constexpr Table table = make_table();

}  // namespace

std::uint32_t crc32c(std::string_view bytes, std::uint32_t before) noexcept {
    auto crc = ~before;
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    for (; bytes.size() >= slices; bytes.remove_prefix(slices)) {
        std::uint32_t next = 0;
        for (std::size_t i = 0; i < 4; ++i) next ^= table[7 - i][(crc >> (8 * i) & 0xFF) ^ at(i)];
        for (std::size_t i = 4; i < slices; ++i) next ^= table[7 - i][at(i)];
        crc = next;
    }
    for (std::size_t i = 0; i < bytes.size(); ++i) crc = crc >> 8 ^ table[0][(crc ^ at(i)) & 0xFF];
    return ~crc;
}

}  // namespace penstock
