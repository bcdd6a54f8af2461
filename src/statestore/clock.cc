#include "statestore/clock.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::statestore {

std::string Timestamp::text() const { return fmt::format("{:015}:{:05}:{}", time, counter, node); }

std::optional<Timestamp> Timestamp::parse(std::string_view text) {
    const auto first = text.find(':');
    if (first == std::string_view::npos) return std::nullopt;
    const auto second = text.find(':', first + 1);
    if (second == std::string_view::npos) return std::nullopt;
    const auto time = parse_number<std::int64_t>(text.substr(0, first));
    const auto counter = parse_number<std::uint32_t>(text.substr(first + 1, second - first - 1));
    if (!time || !counter || *time < 0 || second + 1 == text.size()) return std::nullopt;
    return Timestamp{.time = *time, .counter = *counter, .node = std::string(text.substr(second + 1))};
}

Timestamp Clock::next(std::int64_t now_ms, const Timestamp* remote) {
    const auto remote_time = remote != nullptr ? remote->time : 0;
    const auto remote_counter = remote != nullptr ? remote->counter : 0;
    if (now_ms > time_ && now_ms > remote_time) time_ = now_ms, counter_ = 0;
    else if (time_ == remote_time) counter_ = std::max(counter_, remote_counter) + 1;
    else if (time_ > remote_time) ++counter_;
    else time_ = remote_time, counter_ = remote_counter + 1;
    return {.time = time_, .counter = counter_, .node = node};
}

void Clock::see(const Timestamp& earlier) {
    if (earlier.time > time_ || (earlier.time == time_ && earlier.counter > counter_)) time_ = earlier.time, counter_ = earlier.counter;
}

}  // namespace penstock::statestore
