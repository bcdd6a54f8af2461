#pragma once
#include <cstdint>
#include <string_view>

namespace penstock {

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of `text`: who does not know the key cannot choose texts with the same value.
std::uint64_t siphash(std::string_view text, std::uint64_t key0, std::uint64_t key1) noexcept;

/// The same with a key of this process, chosen at random. For tables whose keys peers choose and that remember hashes alone; not for
/// anything that is written or sent.
std::uint64_t keyed_hash(std::string_view text) noexcept;

}  // namespace penstock
