#include "control/sys_publisher.h"

#include "base/log.h"

namespace penstock::control {

namespace {
constexpr std::int64_t interval_ms = 10'000;
}  // namespace

void SysPublisher::look(broker::Server& server, bool is_wanted, std::int64_t now_ms) {
    if (now_ms < next_ms_) return;
    next_ms_ = now_ms + interval_ms;
    if (heap_.look(now_ms, server.pool_used()))
        log::debug("control", "memory that an overload left was given back");
    auto values = is_wanted ? topics_.update(server.collect(), server.pool_used(), now_ms, version_)
                            : topics_.withdraw();
    for (auto& [topic, value] : values) server.publish(topic, value, true);
}

}  // namespace penstock::control
