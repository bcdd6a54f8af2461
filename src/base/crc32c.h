#pragma once
#include <cstdint>
#include <string_view>

namespace penstock {

/// CRC-32C (Castagnoli), as RFC 3720 appendix B.4 computes it: finds what changed by accident, not what somebody changed.
/// `before`: the checksum of the bytes in front of these.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0) noexcept;

}  // namespace penstock
