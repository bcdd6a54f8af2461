#include "api/watch_clock.h"

#include <algorithm>

namespace penstock::api {

WatchClock::WatchClock(std::int64_t now_ms, std::int64_t timeout_s, bool bookmarks) noexcept
    : end_(now_ms + (timeout_s > 0 ? std::min(timeout_s, longest_ms / 1000) * 1000 : longest_ms)),
      bookmark_(now_ms + bookmark_every_ms),
      look_(now_ms + look_every_ms),
      bookmarks_(bookmarks) {}

WatchClock::Turn WatchClock::turn(std::int64_t now_ms) noexcept {
    Turn out{.is_over = now_ms >= end_};
    out.bookmark = bookmarks_ && (out.is_over || now_ms >= bookmark_);
    out.look = now_ms >= look_;
    // Counted from now, not from when it was due: a watch that was late has no turns to make up for.
    if (out.bookmark) bookmark_ = now_ms + bookmark_every_ms;
    if (out.look) look_ = now_ms + look_every_ms;
    return out;
}

std::int64_t WatchClock::next_ms() const noexcept {
    const auto next = std::min(end_, look_);
    return bookmarks_ ? std::min(next, bookmark_) : next;
}

}  // namespace penstock::api
