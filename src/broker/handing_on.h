#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "store/engine.h"

namespace penstock::broker {

/// What came by shared subscriptions to a client that has them no longer, and goes on to other members of the groups (MQTT 5.0, 4.8.2): its
/// session ended, it unsubscribed, or it lost the right. Kept per client id; a durable engine keeps it as `o` and `q` records, so that
/// each message is either here, on its way (store::LeavingRecord), or with another member. Core: home.
struct HandingOn {
    std::vector<store::Share> shares;             ///< what Queued::share of the messages stands for, by number
    std::unique_ptr<store::SessionStore> store;   ///< the messages, oldest first
    std::int64_t not_before = 0;                  ///< monotonic ms; after a start the members must be known first
    std::uint64_t handed_on = 0, dropped = 0;     ///< dropped: nobody is left in the group

    [[nodiscard]] const store::Share* find(std::uint32_t number) const noexcept {
        const auto at = std::ranges::lower_bound(shares, number, {}, &store::Share::number);
        return at != shares.end() && at->number == number ? &*at : nullptr;
    }
    /// Also those; a number that is there stays as it is.
    void add(std::vector<store::Share> more) {
        shares.insert(shares.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
        std::ranges::stable_sort(shares, {}, &store::Share::number);
        const auto twice = std::ranges::unique(shares, {}, &store::Share::number);
        shares.erase(twice.begin(), twice.end());
    }
    /// The highest number in use.
    [[nodiscard]] std::uint32_t last_share() const noexcept { return shares.empty() ? 0 : shares.back().number; }
};

}  // namespace penstock::broker
