#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace penstock {

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of `text`: who does not know the key cannot choose texts with the same value.
std::uint64_t siphash(std::string_view text, std::uint64_t key0, std::uint64_t key1) noexcept;

/// The same with a key of this process, chosen at random. For tables whose keys peers choose and that remember hashes alone; not for
/// anything that is written or sent.
std::uint64_t keyed_hash(std::string_view text) noexcept;

/// A key of this process for quick_hash(), chosen at random.
struct QuickKey {
    std::uint64_t first, second;
};
const QuickKey& quick_key() noexcept;

/// For tables on the way of every message that compare their keys as well: two multiplications for sixteen bytes, each folded from
/// 128 bits (as wyhash does), with a random key, so that peers cannot choose texts that meet in one place. Weaker than keyed_hash():
/// never where the value itself decides.
inline std::uint64_t quick_hash(std::string_view text, std::uint64_t seed, const QuickKey& key) noexcept {
    __extension__ using Wide = unsigned __int128;
    const auto fold = [](std::uint64_t a, std::uint64_t b) {
        const auto product = static_cast<Wide>(a) * b;
        return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    const auto eight = [](const char* at) {
        std::uint64_t out = 0;
        std::memcpy(&out, at, sizeof out);
        return out;
    };
    const auto four = [](const char* at) {
        std::uint32_t out = 0;
        std::memcpy(&out, at, sizeof out);
        return std::uint64_t{out};
    };
    auto size = text.size();
    const auto* at = text.data();
    auto hash = seed ^ key.first;
    for (; size > 16; at += 16, size -= 16) hash = fold(eight(at) ^ key.second, eight(at + 8) ^ hash);
    std::uint64_t a = 0, b = 0;
    if (size >= 8) a = eight(at), b = eight(at + size - 8);
    else if (size >= 4) a = four(at), b = four(at + size - 4);
    else if (size > 0) a = static_cast<std::uint64_t>(static_cast<unsigned char>(at[0])) << 16 | static_cast<std::uint64_t>(static_cast<unsigned char>(at[size / 2])) << 8 | static_cast<unsigned char>(at[size - 1]);
    return fold(fold(a ^ key.second, b ^ hash) ^ text.size(), key.first ^ 0x9E3779B97F4A7C15u);
}

/// quick_hash() for the containers of the standard library.
struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return quick_hash(text, 0, quick_key()); }
};

}  // namespace penstock
