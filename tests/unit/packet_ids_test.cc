#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "base/counted.h"
#include "session/packet_ids.h"

namespace penstock::session {
namespace {

TEST(PacketIds, agree_with_a_simple_set) {
    MessageBytes pool;
    MessageBytes::use(pool);
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        std::mt19937_64 dice(seed);
        PacketIds ids;
        std::set<std::uint16_t> model;
        // Few and many, near to each other and far apart, filled and drained.
        const std::uint64_t range = seed % 3 == 0 ? 20 : seed % 3 == 1 ? 3000 : 65'535;
        for (int step = 0; step < 6000; ++step) {
            const auto id = static_cast<std::uint16_t>(1 + dice() % range);
            const bool fills = step / 1500 % 2 == 0;
            if (dice() % 4 != 0 ? fills : !fills) {
                ASSERT_EQ(ids.add(id), model.insert(id).second) << "seed=" << seed << " step=" << step;
            } else {
                const auto which = model.lower_bound(id);
                const auto gone = which != model.end() && dice() % 2 == 0 ? *which : id;
                ASSERT_EQ(ids.erase(gone), model.erase(gone) > 0) << "seed=" << seed << " step=" << step;
            }
            ASSERT_EQ(ids.size(), model.size());
            ASSERT_EQ(ids.has(id), model.contains(id));
        }
        auto list = ids.list();
        std::ranges::sort(list);
        EXPECT_EQ(list, std::vector<std::uint16_t>(model.begin(), model.end()));
        for (const auto id : list) EXPECT_TRUE(ids.erase(id));
        EXPECT_EQ(ids.size(), 0u);
        EXPECT_TRUE(ids.list().empty());
    }
    EXPECT_EQ(pool.value(), 0) << "bytes stay counted";
    static MessageBytes after;
    MessageBytes::use(after);
}

// A session with all of them holds some bytes more than a bit for each, and nothing of it when they are released.
TEST(PacketIds, their_memory_is_bounded_counted_and_given_back) {
    MessageBytes pool;
    MessageBytes::use(pool);
    {
        PacketIds ids;
        for (std::uint32_t id = 1; id <= 65'535; ++id) ASSERT_TRUE(ids.add(static_cast<std::uint16_t>(id)));
        EXPECT_GE(pool.value(), 65'536 / 8);
        EXPECT_LE(pool.value(), 12'000);
        for (std::uint32_t id = 1; id <= 65'535; ++id) ASSERT_TRUE(ids.erase(static_cast<std::uint16_t>(id)));
        EXPECT_LE(pool.value(), 64);
    }
    EXPECT_EQ(pool.value(), 0);
    static MessageBytes after;
    MessageBytes::use(after);
}

}  // namespace
}  // namespace penstock::session
