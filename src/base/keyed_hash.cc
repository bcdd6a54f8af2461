#include "base/keyed_hash.h"

#include <bit>

#include "base/random.h"

namespace penstock {

std::uint64_t siphash(std::string_view text, std::uint64_t key0, std::uint64_t key1) noexcept {
    std::uint64_t v0 = key0 ^ 0x736F6D6570736575u, v1 = key1 ^ 0x646F72616E646F6Du, v2 = key0 ^ 0x6C7967656E657261u, v3 = key1 ^ 0x7465646279746573u;
    auto round = [&] {
        v0 += v1, v2 += v3;
        v1 = std::rotl(v1, 13) ^ v0, v3 = std::rotl(v3, 16) ^ v2;
        v0 = std::rotl(v0, 32);
        v2 += v1, v0 += v3;
        v1 = std::rotl(v1, 17) ^ v2, v3 = std::rotl(v3, 21) ^ v0;
        v2 = std::rotl(v2, 32);
    };
    auto word_at = [&](std::size_t at, std::size_t size) {
        std::uint64_t word = 0;
        for (std::size_t i = 0; i < size; ++i) word |= std::uint64_t{static_cast<unsigned char>(text[at + i])} << (8 * i);
        return word;
    };
    auto take = [&](std::uint64_t word) {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    };
    const auto whole = text.size() / 8 * 8;
    for (std::size_t at = 0; at < whole; at += 8) take(word_at(at, 8));
    take(word_at(whole, text.size() - whole) | std::uint64_t{text.size()} << 56);
    v2 ^= 0xFF;
    for (int i = 0; i < 4; ++i) round();
    return v0 ^ v1 ^ v2 ^ v3;
}

std::uint64_t keyed_hash(std::string_view text) noexcept {
    static const std::uint64_t key0 = random_u64(), key1 = random_u64();
    return siphash(text, key0, key1);
}

const QuickKey& quick_key() noexcept {
    static const QuickKey key{.first = random_u64(), .second = random_u64()};
    return key;
}

}  // namespace penstock
