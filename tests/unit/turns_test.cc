// Whose turn it is among those who wait, and who gives way when there is no room.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "base/turns.h"

namespace penstock {
namespace {

using Items = std::vector<std::uint64_t>;
constexpr Turns::Room wide{.count = 1000, .bytes = 1'000'000};

Items all(Turns& turns) {
    Items out;
    while (const auto one = turns.next()) out.push_back(*one);
    return out;
}

TEST(Turns, addresses_in_turn_and_the_oldest_first_within_one) {
    Turns turns;
    for (std::uint64_t i = 1; i <= 5; ++i) EXPECT_TRUE(turns.add("stranger", i, 10, wide).empty());
    for (std::uint64_t i = 6; i <= 7; ++i) EXPECT_TRUE(turns.add("plant", i, 10, wide).empty());
    EXPECT_TRUE(turns.add("", 8, 10, wide).empty());
    EXPECT_EQ(turns.of("stranger"), (Items{1, 2, 3, 4, 5}));
    EXPECT_EQ(turns.size(), 8u);
    EXPECT_EQ(turns.bytes(), 80u);
    EXPECT_EQ(all(turns), (Items{1, 6, 8, 2, 7, 3, 4, 5}));
    EXPECT_EQ(turns.bytes(), 0u);
    EXPECT_EQ(turns.next(), std::nullopt);
}

TEST(Turns, who_comes_back_is_behind_those_who_wait) {
    Turns turns;
    EXPECT_TRUE(turns.add("a", 1, 1, wide).empty());
    EXPECT_TRUE(turns.add("b", 2, 1, wide).empty());
    EXPECT_EQ(turns.next(), 1u);
    EXPECT_TRUE(turns.add("a", 3, 1, wide).empty());
    EXPECT_EQ(all(turns), (Items{2, 3}));
}

TEST(Turns, what_is_taken_out_is_not_met_again) {
    Turns turns;
    for (std::uint64_t i = 1; i <= 4; ++i) EXPECT_TRUE(turns.add(i % 2 == 0 ? "even" : "odd", i, i, wide).empty());
    turns.remove(1);
    turns.remove(1);
    turns.remove(99);
    EXPECT_EQ(turns.bytes(), 9u);
    EXPECT_EQ(turns.of("odd"), Items{3});
    turns.remove(3);
    EXPECT_TRUE(turns.of("odd").empty());
    EXPECT_EQ(all(turns), (Items{2, 4}));
    EXPECT_TRUE(turns.add("odd", 5, 1, wide).empty());
    turns.clear();
    EXPECT_EQ(turns.next(), std::nullopt);
    EXPECT_EQ(turns.size(), 0u);
    EXPECT_EQ(turns.bytes(), 0u);
}

TEST(Turns, who_holds_most_gives_way_to_who_holds_less) {
    Turns turns;
    constexpr Turns::Room five{.count = 5, .bytes = 1000};
    for (std::uint64_t i = 1; i <= 4; ++i) EXPECT_TRUE(turns.add("stranger", i, 10, five).empty());
    EXPECT_TRUE(turns.add("plant", 5, 10, five).empty());
    EXPECT_EQ(turns.add("stranger", 6, 10, five), Items{6}) << "nobody holds more than itself";
    EXPECT_EQ(turns.add("plant", 7, 10, five), Items{4}) << "the newest of who holds most";
    EXPECT_EQ(turns.add("late", 8, 10, five), Items{3});
    EXPECT_EQ(turns.add("plant", 9, 10, five), Items{9}) << "all hold as much as they may";
    EXPECT_EQ(all(turns), (Items{1, 5, 8, 2, 7}));
}

// One who finds no room takes nobody's turn, however often he asks.
TEST(Turns, who_finds_no_room_changes_nothing) {
    Turns turns;
    constexpr Turns::Room room{.count = 100, .bytes = 100};
    EXPECT_TRUE(turns.add("a", 1, 30, room).empty());
    EXPECT_TRUE(turns.add("a", 2, 30, room).empty());
    EXPECT_TRUE(turns.add("b", 3, 35, room).empty());
    for (std::uint64_t item = 4; item < 10; ++item) EXPECT_EQ(turns.add("c", item, 58, room), Items{item}) << "one of a's would give way, and that is not enough";
    EXPECT_EQ(turns.size(), 3u);
    EXPECT_EQ(turns.bytes(), 95u);
    EXPECT_EQ(all(turns), (Items{1, 3, 2})) << "a is still before b";
}

TEST(Turns, bytes_are_short_too) {
    Turns turns;
    constexpr Turns::Room room{.count = 100, .bytes = 100};
    EXPECT_TRUE(turns.add("a", 1, 30, room).empty());
    EXPECT_TRUE(turns.add("a", 2, 30, room).empty());
    EXPECT_TRUE(turns.add("a", 3, 30, room).empty());
    EXPECT_TRUE(turns.add("b", 4, 10, room).empty());
    EXPECT_EQ(turns.add("c", 5, 40, room), (Items{3, 2})) << "as many as it takes";
    EXPECT_EQ(turns.add("d", 6, 101, room), Items{6}) << "larger than all the room";
    EXPECT_EQ(turns.add("d", 7, 35, room), Items{5});
    EXPECT_EQ(turns.add("e", 8, 95, room), Items{8}) << "who would hold most himself";
    EXPECT_EQ(turns.of("a"), Items{1});
    EXPECT_EQ(turns.bytes(), 75u);
    EXPECT_EQ(all(turns), (Items{1, 4, 7}));
}

// However many come from one address, and however often, one from another is at most one turn away, and has a place.
TEST(Turns, a_stranger_never_keeps_others_out) {
    Turns turns;
    constexpr Turns::Room room{.count = 50, .bytes = 1 << 20};
    std::uint64_t number = 0;
    for (int i = 0; i < 500; ++i) (void)turns.add("stranger", ++number, 100, room);
    for (int i = 0; i < 20; ++i) {
        for (int k = 0; k < 10; ++k) (void)turns.add("stranger", ++number, 100, room);
        const auto device = ++number;
        const auto gone = turns.add(fmt::format("device {}", i % 3), device, 500, room);
        ASSERT_EQ(gone.size(), 1u);
        EXPECT_NE(gone.front(), device);
        const auto first = turns.next(), second = turns.next();
        EXPECT_TRUE(first == device || second == device);
    }
}

}  // namespace
}  // namespace penstock
