#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "broker/core.h"

namespace penstock::control {

/// `$SYS` as Mosquitto's users know it: topics and values, with the load averages over 1, 5 and 15 minutes.
class SysTopics {
  public:
    using Values = std::vector<std::pair<std::string, std::string>>;   ///< topic and value
    /// Values that changed since the last call (all of them the first time). `now` is monotonic ms.
    Values update(const std::vector<broker::CoreFigures>& cores, std::int64_t pool_used, std::int64_t now,
                  const std::string& version);
    /// The topics that have values, with none: retained, an empty payload clears a topic, so that nobody who
    /// subscribes later meets what was true once. From here on update() begins anew.
    Values withdraw();

  private:
    struct Load {
        std::uint64_t last = 0;
        std::array<double, 3> average{};
    };
    /// The averages of one counter. `seconds`: since the last call.
    void add_load(Values& out, const char* name, std::uint64_t total, double seconds);
    /// Of all values those that are others than the last time.
    Values changed(Values values);

    std::int64_t started_ = 0;
    std::int64_t last_ = 0;
    std::uint64_t maximum_ = 0;
    std::vector<std::pair<std::string, Load>> loads_;
    Values previous_;
};

}  // namespace penstock::control
