#pragma once
#include <cstdint>

namespace penstock::api {

/// When a watch is due: its end, its bookmarks, and a look at whether its client is still there. Pure: times
/// are given, in milliseconds of a monotonic clock. One watch; not for two threads at a time.
class WatchClock {
  public:
    static constexpr std::int64_t longest_ms = 1'800'000, bookmark_every_ms = 60'000, look_every_ms = 10'000;

    /// `timeout_s`: `timeoutSeconds` of the request; 0 or less, or more than half an hour: half an hour.
    WatchClock(std::int64_t now_ms, std::int64_t timeout_s, bool bookmarks) noexcept;

    struct Turn {
        bool is_over = false;            ///< the last turn: what is due is written and the watch ends
        bool bookmark =
            false;   ///< a bookmark is due; also at the end, so that the client goes on from there
        bool look = false;   ///< whether the client is still there is to be looked at
    };
    /// What is due now; what was told once is not due again before its next time.
    Turn turn(std::int64_t now_ms) noexcept;
    /// When something is due next; always after the `now_ms` of the last turn that was not the last one.
    [[nodiscard]] std::int64_t next_ms() const noexcept;

  private:
    std::int64_t end_, bookmark_, look_;
    bool bookmarks_;
};

}  // namespace penstock::api
