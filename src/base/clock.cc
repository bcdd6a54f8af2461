#include "base/clock.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <ctime>

namespace penstock {

std::int64_t monotonic_ns() noexcept {
    return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}
std::int64_t monotonic_ms() noexcept { return monotonic_ns() / 1'000'000; }
std::int64_t wall_ms() noexcept {
    return std::chrono::system_clock::now().time_since_epoch() / std::chrono::milliseconds(1);
}

namespace {
std::tm utc(std::int64_t unix_ms) {
    const std::time_t seconds = unix_ms / 1000;
    std::tm out{};
    gmtime_r(&seconds, &out);
    return out;
}
}  // namespace

std::string rfc3339(std::int64_t unix_ms) {
    const auto t = utc(unix_ms);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour,
                       t.tm_min, t.tm_sec);
}

std::string rfc3339_ms(std::int64_t unix_ms) {
    const auto t = utc(unix_ms);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                       t.tm_hour, t.tm_min, t.tm_sec, unix_ms % 1000);
}

std::int64_t parse_rfc3339(const std::string& text) {
    std::tm t{};
    auto field = [&](std::size_t at, std::size_t length, int& out) {
        if (at + length > text.size()) return false;
        const auto* end = text.data() + at + length;
        const auto [rest, error] = std::from_chars(text.data() + at, end, out);
        return error == std::errc{} && rest == end;
    };
    if (!field(0, 4, t.tm_year) || !field(5, 2, t.tm_mon) || !field(8, 2, t.tm_mday) || !field(11, 2, t.tm_hour) ||
        !field(14, 2, t.tm_min) || !field(17, 2, t.tm_sec))
        return -1;
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    return static_cast<std::int64_t>(timegm(&t)) * 1000;
}

}  // namespace penstock
