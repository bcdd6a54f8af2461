#pragma once
#include <cstdint>
#include <string_view>

namespace penstock {

/// MurmurHash64A with the seed 0xC70F6907, bytes read as little-endian: a function that is fixed for ever, because values of it are
/// kept on the disk (the home of a client, docs/internals/formats.md). Well mixed, and no protection against chosen keys.
/// It is what std::hash<std::string_view> of libstdc++ is on 64-bit machines, so that what was kept before this was written down
/// reads right; nothing here depends on it staying so.
std::uint64_t stable_hash(std::string_view bytes) noexcept;

/// Which of `count` (at least 1) a key belongs to: the hash, folded to its lower half (exclusive or), modulo `count`. Fixed as well.
std::uint32_t stable_share(std::string_view key, std::uint32_t count) noexcept;

}  // namespace penstock
