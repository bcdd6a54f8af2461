#pragma once
#include <cstdint>
#include <string>

namespace penstock {

/// Bytes from the kernel's generator; aborts the process if the kernel refuses (it cannot on a running system).
void random_bytes(void* out, std::size_t size) noexcept;
std::uint64_t random_u64() noexcept;
/// RFC 4122 version 4, lower case.
std::string random_uuid();
/// `length` characters of `alphabet`, evenly distributed.
std::string random_text(std::size_t length, const char* alphabet = "0123456789abcdefghijklmnopqrstuvwxyz");

}  // namespace penstock
