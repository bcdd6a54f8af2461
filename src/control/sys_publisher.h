#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "base/heap.h"
#include "broker/server.h"
#include "control/sys_topics.h"

namespace penstock::control {

/// Publishes `$SYS` in its time, and gives memory back that an overload left. Owns what was published last.
/// Core: control; the engine's thread alone.
class SysPublisher {
  public:
    explicit SysPublisher(std::string version) : version_(std::move(version)) {}
    /// Does both when it is time. `is_wanted`: $SYS is; without it what was published goes. `now_ms`:
    /// monotonic.
    void look(broker::Server& server, bool is_wanted, std::int64_t now_ms);
    /// When it is time again; nothing: it has not looked yet.
    [[nodiscard]] std::optional<std::int64_t> next_ms() const noexcept {
        return next_ms_ != 0 ? std::optional(next_ms_) : std::nullopt;
    }

  private:
    const std::string version_;
    SysTopics topics_;
    HeapKeeper heap_;
    std::int64_t next_ms_ = 0;
};

}  // namespace penstock::control
