#pragma once
#include <cstdint>
#include <string>

namespace penstock {

/// Monotonic milliseconds since an arbitrary start. Sans-I/O code takes time as an argument; only drivers call this.
std::int64_t monotonic_ms() noexcept;
/// Monotonic nanoseconds, for measuring.
std::int64_t monotonic_ns() noexcept;
/// Milliseconds since the Unix epoch.
std::int64_t wall_ms() noexcept;
/// RFC 3339 in UTC, seconds (`2026-01-01T00:00:00Z`); the form Kubernetes uses in metadata.
std::string rfc3339(std::int64_t unix_ms);
/// RFC 3339 in UTC with milliseconds; the form of log lines.
std::string rfc3339_ms(std::int64_t unix_ms);
/// Reverse of rfc3339 (fraction and `Z` optional); -1 when the text is not a time.
std::int64_t parse_rfc3339(const std::string& text);

}  // namespace penstock
