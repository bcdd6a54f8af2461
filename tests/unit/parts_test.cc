#include "app/parts.h"

#include <gtest/gtest.h>

namespace penstock::app {
namespace {

/// Parts that note what becomes of them.
struct Noted {
    std::string said;

    Part part(const std::string& name, std::vector<std::string> needs = {}) {
        return {.name = name,
                .log_module = "app",
                .needs = std::move(needs),
                .start = unfailing([this, name] { said += "+" + name; }),
                .stop = [this, name] { said += "-" + name; },
                .pods = [name] {
                    return std::vector{control::Role{.pod = name,
                                                     .container = {},
                                                     .component = {},
                                                     .log_modules = {},
                                                     .ports = {},
                                                     .why_not = {}}};
                }};
    }
    Parts parts(std::vector<Part> list) {
        return Parts(std::move(list), [this] { said += "!"; });
    }
};

TEST(Parts, start_in_their_order_and_stop_in_the_opposite_one_after_the_order_to_stop) {
    Noted noted;
    auto parts = noted.parts({noted.part("a"), noted.part("b", {"a"}), noted.part("c", {"a", "b"})});
    ASSERT_TRUE(parts.start());
    EXPECT_EQ(noted.said, "+a+b+c");
    parts.stop();
    EXPECT_EQ(noted.said, "+a+b+c!-c-b-a");
    parts.stop();
    EXPECT_EQ(noted.said, "+a+b+c!-c-b-a") << "what has stopped is not stopped again";
}

TEST(Parts, that_had_started_stop_when_a_later_one_cannot_start) {
    Noted noted;
    auto faulty = noted.part("b");
    faulty.start = [] { return fail("no port"); };
    auto parts = noted.parts({noted.part("a"), faulty, noted.part("c")});
    const auto started = parts.start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().message, "no port");
    EXPECT_EQ(noted.said, "+a!-a") << "what has not started is not stopped";
}

TEST(Parts, do_not_start_before_what_they_need) {
    Noted noted;
    auto late = noted.parts({noted.part("a", {"b"}), noted.part("b")});
    const auto started = late.start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().message, "\"a\" needs \"b\", which does not start before it");
    auto unwanted = noted.part("b");
    unwanted.is_wanted = false;
    auto without = noted.parts({unwanted, noted.part("a", {"b"})});
    EXPECT_FALSE(without.start()) << "what this process does without nobody may need";
    EXPECT_EQ(noted.said, "");
}

TEST(Parts, tell_their_Pods_also_before_the_start_but_not_those_of_parts_that_are_not_wanted) {
    Noted noted;
    auto unwanted = noted.part("b");
    unwanted.is_wanted = false;
    auto bare = noted.part("c");
    bare.pods = {};
    const auto parts = noted.parts({noted.part("a"), unwanted, bare, noted.part("d")});
    std::string names;
    for (const auto& role : parts.pods()) names += role.pod + " ";
    EXPECT_EQ(names, "a d ");
}

TEST(Parts, with_nothing_to_start_or_stop_are_parts_all_the_same) {
    Noted noted;
    auto parts = noted.parts({{.name = "bare", .log_module = "app"}, noted.part("a", {"bare"})});
    ASSERT_TRUE(parts.start());
    parts.stop();
    EXPECT_EQ(noted.said, "+a!-a");
}

}  // namespace
}  // namespace penstock::app
