#include "broker/cleared_topics.h"

#include <algorithm>

#include "base/keyed_hash.h"

namespace penstock::broker {

void ClearedTopics::add(std::string_view topic, std::uint64_t sequence) {
    auto& known = cleared_[keyed_hash(topic)];
    known = std::max(known, sequence);
    has_news_ = true;
}

bool ClearedTopics::hides(std::string_view topic, std::uint64_t sequence) const noexcept {
    if (cleared_.empty()) return false;
    const auto found = cleared_.find(keyed_hash(topic));
    return found != cleared_.end() && found->second > sequence;
}

void ClearedTopics::mark(std::uint32_t worker, std::uint64_t sequence) {
    const auto before = std::ranges::min(marks_);
    marks_[worker] = std::max(marks_[worker], sequence);
    const auto all = std::ranges::min(marks_);
    if (all == before || cleared_.empty()) return;
    std::erase_if(cleared_, [&](const auto& entry) { return entry.second < all; });
    if (cleared_.empty()) cleared_ = Map();   // with its buckets
}

}  // namespace penstock::broker
