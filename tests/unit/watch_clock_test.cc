// When a watch of the resource API is due: given times, no waiting.
#include <gtest/gtest.h>

#include "api/watch_clock.h"

namespace penstock {
namespace {

using api::WatchClock;

/// Drives a watch as the server does: a turn, then sleep until what is due next. Counts turns and bookmarks.
struct Driven {
    int turns = 0, bookmarks = 0;
    std::int64_t ended_at = -1;
    bool slept_each_time = true;
};
Driven drive(std::int64_t timeout_s, bool bookmarks, int turns_max = 10'000) {
    Driven out;
    std::int64_t now = 1000;
    WatchClock clock(now, timeout_s, bookmarks);
    while (out.turns < turns_max) {
        const auto turn = clock.turn(now);
        ++out.turns;
        out.bookmarks += turn.bookmark ? 1 : 0;
        if (turn.is_over) {
            out.ended_at = now - 1000;
            return out;
        }
        const auto next = clock.next_ms();
        out.slept_each_time = out.slept_each_time && next > now;
        now = std::max(next, now);
    }
    return out;
}

TEST(WatchClock, a_watch_with_bookmarks_ends_at_its_time_out_with_one_last_bookmark) {
    const auto six = drive(6, true);
    EXPECT_EQ(six.ended_at, 6000);
    EXPECT_EQ(six.bookmarks, 1);
    const auto ten_minutes = drive(600, true);
    EXPECT_EQ(ten_minutes.ended_at, 600'000);
    EXPECT_EQ(ten_minutes.bookmarks, 10) << "one a minute, the last of them at the end";
}

TEST(WatchClock, between_two_turns_there_is_always_time) {
    for (const bool bookmarks : {false, true})
        for (const std::int64_t timeout : {1LL, 59LL, 60LL, 61LL, 300LL, 1800LL}) {
            const auto driven = drive(timeout, bookmarks);
            EXPECT_TRUE(driven.slept_each_time) << timeout << bookmarks;
            EXPECT_EQ(driven.ended_at, timeout * 1000) << bookmarks;
            EXPECT_LE(driven.turns, timeout / 10 + timeout / 60 + 3)
                << "one look in ten seconds, one bookmark a minute";
            EXPECT_TRUE(bookmarks || driven.bookmarks == 0);
        }
}

TEST(WatchClock, what_no_client_may_ask_for_is_half_an_hour) {
    for (const std::int64_t timeout :
         {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1801}, INT64_MAX, INT64_MIN})
        EXPECT_EQ(drive(timeout, true).ended_at, 1'800'000) << timeout;
}

// A watch that is woken all the time by what others write ends at its time all the same, and sees that its
// client is gone.
TEST(WatchClock, a_busy_watch_ends_and_looks_too) {
    std::int64_t now = 0;
    WatchClock clock(now, 60, false);
    int looks = 0;
    for (; !clock.turn(now).is_over; now += 7) ASSERT_LT(now, 60'007);
    now = 0;
    WatchClock other(now, 60, false);
    for (auto turn = other.turn(now); !turn.is_over; turn = other.turn(now += 7)) looks += turn.look ? 1 : 0;
    EXPECT_EQ(looks, 5);
}

// A process that was stopped for an hour has no bookmarks to make up for.
TEST(WatchClock, a_late_turn_makes_up_for_nothing) {
    WatchClock clock(0, 1800, true);
    const auto late = clock.turn(1'000'000);
    EXPECT_TRUE(late.bookmark && late.look && !late.is_over);
    EXPECT_EQ(clock.next_ms(), 1'010'000);
    EXPECT_FALSE(clock.turn(1'000'001).bookmark);
}

}  // namespace
}  // namespace penstock
