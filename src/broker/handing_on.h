#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "store/engine.h"

namespace penstock::broker {

/// What came by shared subscriptions to a client that has them no longer, and goes on to other members of the groups (MQTT 5.0, 4.8.2): its
/// session ended, it unsubscribed, or it lost the right. Kept per client id; a durable engine keeps it as `o` and `q` records, so that
/// each message is either here, on its way (store::LeavingRecord), or with another member. Core: home.
struct HandingOn {
    std::vector<store::Share> shares;             ///< what Queued::share of the messages stands for
    std::unique_ptr<store::SessionStore> store;   ///< the messages, oldest first
    std::int64_t not_before = 0;                  ///< monotonic ms; after a start the members must be known first
    std::uint64_t handed_on = 0, dropped = 0;     ///< dropped: nobody is left in the group

    [[nodiscard]] const store::Share* find(std::uint32_t number) const noexcept {
        for (const auto& share : shares)
            if (share.number == number) return &share;
        return nullptr;
    }
    /// The highest number in use.
    [[nodiscard]] std::uint32_t last_share() const noexcept {
        std::uint32_t out = 0;
        for (const auto& share : shares) out = share.number > out ? share.number : out;
        return out;
    }
};

}  // namespace penstock::broker
