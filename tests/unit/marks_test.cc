// Marks of messages that must not come twice: what one PUBREL costs, and that it ends its own marks and no others.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "broker/marks.h"
#include "store/engine.h"

namespace penstock::broker {
namespace {

using Seen = Marks<NoValue>;

// A publisher with many messages under way towards many groups: each PUBREL is as dear as its own message, whatever else is under way.
TEST(Marks, a_pubrel_looks_at_the_marks_of_its_message_alone) {
    constexpr std::uint16_t messages = 500;
    constexpr std::size_t groups = 20;
    Seen marks;
    for (std::uint16_t id = 1; id <= messages; ++id) {
        marks.add(Seen::key("p", id, {}));
        for (std::size_t group = 0; group < groups; ++group)
            marks.add(Seen::key("p", id, Seen::group("t/#", "g" + std::to_string(group))));
    }
    ASSERT_EQ(marks.size(), messages * (groups + 1));
    for (std::uint16_t id = 1; id <= messages; ++id) {
        std::size_t ended = 0;
        const auto before = marks.looked_at();
        EXPECT_TRUE(marks.forget("p", id, [&](std::uint16_t of, std::string_view, NoValue) {
            EXPECT_EQ(of, id);
            ++ended;
        }));
        EXPECT_EQ(ended, groups + 1);
        EXPECT_LE(marks.looked_at() - before, groups + 2) << "id " << id;
    }
    EXPECT_TRUE(marks.empty());
    EXPECT_FALSE(marks.forget("p", 1, [](std::uint16_t, std::string_view, NoValue) { ADD_FAILURE() << "nothing is left"; }));
}

// A session that ends: others whose names begin like its own are not gone over.
TEST(Marks, the_end_of_a_publisher_looks_at_its_own_marks_alone) {
    Seen marks;
    for (int i = 0; i < 1000; ++i) marks.add(Seen::key("p" + std::to_string(i), 7, {}));
    marks.add(Seen::key("p", 1, {}));
    marks.add(Seen::key("p", 0xFFFF, Seen::group("t", "g")));
    EXPECT_TRUE(marks.forget("p", std::nullopt, [](std::uint16_t, std::string_view, NoValue) {}));
    EXPECT_LE(marks.looked_at(), 3u);
    EXPECT_EQ(marks.size(), 1000u);
}

TEST(Marks, agree_with_a_simple_table) {
    // Names that begin alike, bytes of identifiers that look like letters or NUL, and what stands for a message between workers.
    const std::vector<std::string> publishers{"p",
                                              "p1",
                                              "p12",
                                              "q",
                                              "pp",
                                              store::leaving_name(0),
                                              store::leaving_name(1),
                                              store::leaving_name(0x7070707070707070)};
    const std::vector<std::uint16_t> ids{0, 1, 0x100, 0x7000, 0x7070, 0x70, 0xFF, 0xFFFF};
    const std::vector<std::string> whom{"", Seen::group("t", "g"), Seen::group("t", "gg"), Seen::group("p", "p")};
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        std::mt19937_64 dice(seed);
        const auto roll = [&](std::size_t sides) { return static_cast<std::size_t>(dice() % sides); };
        Marks<int> marks;
        std::map<std::tuple<std::string, std::uint16_t, std::string>, int> model;
        for (int step = 0; step < 2000; ++step) {
            const auto& publisher = publishers[roll(publishers.size())];
            const auto id = ids[roll(ids.size())];
            const auto& who = whom[roll(whom.size())];
            if (roll(4) > 0) {
                const auto [mark, is_new] = marks.add(Marks<int>::key(publisher, id, who));
                EXPECT_EQ(is_new, !model.contains({publisher, id, who}));
                mark->value = model[{publisher, id, who}] = step;
            } else {
                const bool all = roll(4) == 0;
                std::map<std::tuple<std::string, std::uint16_t, std::string>, int> gone, wanted;
                const auto ended = [&](std::uint16_t of, std::string_view for_whom, int value) {
                    gone[{publisher, of, std::string(for_whom)}] = value;
                };
                const bool any = marks.forget(publisher, all ? std::nullopt : std::optional(id), ended);
                std::erase_if(model, [&](const auto& entry) {
                    const bool goes = std::get<0>(entry.first) == publisher && (all || std::get<1>(entry.first) == id);
                    if (goes) wanted.insert(entry);
                    return goes;
                });
                ASSERT_EQ(gone, wanted) << "seed=" << seed << " step=" << step;
                EXPECT_EQ(any, !wanted.empty());
            }
            ASSERT_EQ(marks.size(), model.size());
            const auto found = model.find({publisher, id, who});
            const auto* mark = marks.find(Marks<int>::key(publisher, id, who));
            ASSERT_EQ(mark != nullptr, found != model.end());
            EXPECT_EQ(mark != nullptr ? mark->value : 0, found != model.end() ? found->second : 0);
        }
    }
}

}  // namespace
}  // namespace penstock::broker
