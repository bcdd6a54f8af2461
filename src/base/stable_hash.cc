#include "base/stable_hash.h"

#include <cstddef>

namespace penstock {
namespace {

constexpr std::uint64_t multiplier = 0xC6A4A7935BD1E995, seed = 0xC70F6907;

std::uint64_t folded(std::uint64_t value) noexcept { return value ^ value >> 47; }

/// Up to eight bytes; those that are missing count as zero.
std::uint64_t little_endian(std::string_view bytes) noexcept {
    std::uint64_t out = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) out |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return out;
}

}  // namespace

std::uint64_t stable_hash(std::string_view bytes) noexcept {
    std::uint64_t hash = seed ^ bytes.size() * multiplier;
    for (; bytes.size() >= 8; bytes.remove_prefix(8)) {
        const auto word = little_endian(bytes.substr(0, 8)) * multiplier;
        hash = (hash ^ folded(word) * multiplier) * multiplier;
    }
    // The words that are not whole are not mixed beforehand.
    if (!bytes.empty()) hash = (hash ^ little_endian(bytes)) * multiplier;
    return folded(folded(hash) * multiplier);
}

std::uint32_t stable_share(std::string_view key, std::uint32_t count) noexcept {
    const auto hash = stable_hash(key);
    return static_cast<std::uint32_t>((hash ^ hash >> 32) % count);
}

}  // namespace penstock
