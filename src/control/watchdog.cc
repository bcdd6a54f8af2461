#include "control/watchdog.h"

#include <algorithm>

#include "base/clock.h"
#include "control/objects.h"

namespace penstock::control {

namespace {
constexpr int look_ms = 1000;
constexpr std::int64_t look_valid_ms = 30'000;
}  // namespace

std::int64_t ClockWatch::back_ms(std::int64_t now_ms, std::int64_t wall_ms) {
    std::int64_t back = 0;
    if (seen_wall_ms_ != 0) back = seen_wall_ms_ + (now_ms - seen_ms_) - wall_ms;
    else if (latest_ms_ != 0) back = latest_ms_ - wall_ms;
    seen_ms_ = now_ms;
    seen_wall_ms_ = wall_ms;
    if (back >= step_ms) {
        back_ms_ = std::max<std::int64_t>(0, back_ms_) + back;
        until_ms_ = now_ms + told_for_ms;
    } else if (back <= -step_ms) {
        back_ms_ += back;                // set forward again
    }
    if (back_ms_ < step_ms || now_ms >= until_ms_) back_ms_ = 0;
    return back_ms_;
}

void Watchdog::start() {
    thread_ = std::thread([this] {
        while (!stopping_) {
            look(options_.clock.monotonic_ms(), options_.clock.wall_ms());
            options_.pause(look_ms);
        }
    });
}

void Watchdog::stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
}

void Watchdog::look(std::int64_t now_ms, std::int64_t wall_ms) {
    auto facts = options_.facts();
    facts.clock_back_ms = back_.back_ms(now_ms, wall_ms);
    board_.put("process", findings_of(facts), now_ms, wall_ms, look_valid_ms);
    const auto version = board_.version();
    if (version != shown_ && (!options_.show || options_.show())) shown_ = version;
}

std::int64_t latest_report_ms(const Objects& objects) {
    std::int64_t out = 0;
    for (const auto& broker : objects.list(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker"), ""))
        out = std::max(out, parse_rfc3339(resources::text_at(*broker, "status.healthState.lastUpdateTime")));
    return out;
}

}  // namespace penstock::control
