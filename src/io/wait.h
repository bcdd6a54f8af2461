#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace penstock::io {

enum class Wait : std::uint8_t { readable, writable };
/// True when the descriptor is ready (or broken, which a read or write then tells) within the time.
bool wait_for(int fd, Wait what, int timeout_ms) noexcept;
/// Like wait_for(readable) for one of two descriptors; -1 entries are skipped. Bit 0 and bit 1 tell which.
int wait_readable_either(int first, int second, int timeout_ms) noexcept;
/// This machine's own addresses that others can reach, IPv4 first; empty when there is only loopback.
std::vector<std::string> machine_addresses();
std::string machine_name();

}  // namespace penstock::io
