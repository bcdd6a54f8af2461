#include "control/work_queue.h"

#include <algorithm>

namespace penstock::control {

void WorkQueue::schedule(const Key& key, std::int64_t at) {
    if (const auto found = due_.find(key); found != due_.end()) {
        if (found->second <= at) return;
        by_time_.erase({found->second, key});
        found->second = at;
    } else {
        due_[key] = at;
    }
    by_time_.insert({at, key});
}

void WorkQueue::add(const Key& key, std::int64_t now_ms) { schedule(key, now_ms); }

std::optional<Key> WorkQueue::take(std::int64_t now_ms) {
    if (by_time_.empty() || by_time_.begin()->first > now_ms) return std::nullopt;
    auto key = by_time_.begin()->second;
    by_time_.erase(by_time_.begin());
    due_.erase(key);
    return key;
}

void WorkQueue::done(const Key& key, const Outcome& outcome, std::int64_t now_ms) {
    if (outcome.kind == Outcome::Kind::retry) {
        const int times = std::min(failures_[key]++, 20);
        const auto pause = std::min(longest_pause_ms, first_pause_ms << times);
        schedule(key, now_ms + static_cast<std::int64_t>(static_cast<double>(pause) * (0.5 + random_())));
        return;
    }
    failures_.erase(key);
    if (outcome.kind == Outcome::Kind::after) schedule(key, now_ms + outcome.delay_ms);
}

std::optional<std::int64_t> WorkQueue::next_due() const {
    if (by_time_.empty()) return std::nullopt;
    return by_time_.begin()->first;
}

int WorkQueue::failures(const Key& key) const {
    const auto found = failures_.find(key);
    return found == failures_.end() ? 0 : found->second;
}

}  // namespace penstock::control
