#pragma once
#include <cstdint>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/counted.h"

namespace penstock::broker {

/// Which retained messages were cleared, so that an older one that is still in another worker's mail does not come back. See
/// docs/internals/message-order.md.
///
/// A topic is remembered by its keyed hash, and only until every other worker has said that nothing older comes from it any more: one
/// or two seconds. What is remembered counts in the message pool. Core: home.
class ClearedTopics {
  public:
    /// `self` of so many workers.
    ClearedTopics(std::uint32_t self, std::uint32_t workers) : marks_(workers, 0) { marks_[self] = std::numeric_limits<std::uint64_t>::max(); }
    void add(std::string_view topic, std::uint64_t sequence);
    /// The message was cleared after it was sent.
    [[nodiscard]] bool hides(std::string_view topic, std::uint64_t sequence) const noexcept;
    /// Whatever comes from that worker from now on has this sequence or a higher one.
    void mark(std::uint32_t worker, std::uint64_t sequence);
    [[nodiscard]] std::size_t size() const noexcept { return cleared_.size(); }
    /// Something was added since the last time: the others are to be told how far this worker is.
    bool take_news() noexcept { return std::exchange(has_news_, false); }
    void put_news() noexcept { has_news_ = true; }

  private:
    struct AsItIs {
        std::size_t operator()(std::uint64_t hash) const noexcept { return hash; }
    };
    using Map = std::unordered_map<std::uint64_t, std::uint64_t, AsItIs, std::equal_to<>, CountedAllocator<std::pair<const std::uint64_t, std::uint64_t>>>;
    Map cleared_;                                          ///< hash of the topic → highest sequence of a clear
    std::vector<std::uint64_t> marks_;                     ///< by worker
    bool has_news_ = false;
};

}  // namespace penstock::broker
