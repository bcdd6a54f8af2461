// Who is remembered among those who show credentials, and who is forgotten when there are too many.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "broker/guessing.h"

namespace penstock::broker {
namespace {

constexpr Patience patience{.burst = 5, .per_second = 0.1};

TEST(Failures, many_names_lift_nobodys_waiting) {
    Failures failures(1000);
    for (int i = 0; i < 6; ++i) failures.count("guesser", patience, 1000);
    for (int i = 0; i < 5000; ++i) failures.count(fmt::format("name-{}", i), patience, 1000);
    EXPECT_TRUE(failures.is_over("guesser", patience, 1000));
    EXPECT_EQ(failures.size(), 1000u);
    EXPECT_FALSE(failures.is_over("guesser", patience, 1000 + 11'000)) << "patience grows back";
}

TEST(Failures, what_has_grown_back_is_not_kept) {
    Failures failures(10);
    failures.count("once", patience, 0);
    for (int i = 0; i < 3; ++i) failures.count("often", patience, 0);
    failures.forget_ended(9'999);
    EXPECT_EQ(failures.size(), 2u);
    failures.forget_ended(10'000);
    EXPECT_EQ(failures.size(), 1u);
    failures.forget_ended(30'000);
    EXPECT_TRUE(failures.empty());
}

TEST(KnownDevices, one_account_with_many_identifiers_puts_out_its_own_alone) {
    KnownDevices known(100);
    for (int i = 0; i < 40; ++i) known.note("plant", fmt::format("pump-{}", i));
    for (int i = 0; i < 1000; ++i) known.note("busy", fmt::format("auto-{}", i));
    for (int i = 0; i < 40; ++i) EXPECT_TRUE(known.contains(fmt::format("pump-{}", i))) << i;
    EXPECT_FALSE(known.contains("auto-0"));
    EXPECT_TRUE(known.contains("auto-999"));
    EXPECT_EQ(known.size(), 100u);
}

TEST(KnownDevices, who_returns_takes_nobodys_place) {
    KnownDevices known(3);
    for (const char* device : {"a", "b", "c"}) known.note("plant", device);
    for (int i = 0; i < 10; ++i) known.note("plant", "c");
    for (const char* device : {"a", "b", "c"}) EXPECT_TRUE(known.contains(device)) << device;
    known.note("plant", "a");
    known.note("plant", "d");
    EXPECT_TRUE(known.contains("a")) << "it was let in lately";
    EXPECT_FALSE(known.contains("b"));
}

}  // namespace
}  // namespace penstock::broker
