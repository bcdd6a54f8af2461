#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/log.h"
#include "base/stable_hash.h"
#include "base/text.h"

namespace penstock {
namespace {

TEST(Text, printable_leaves_nothing_that_steers_a_terminal) {
    EXPECT_EQ(printable("plant/Öl ∑ 1"), "plant/Öl ∑ 1");
    EXPECT_EQ(printable("a\x1b[2J\r\nb\x7f"), "a\\x1b[2J\\x0d\\x0ab\\x7f");
    EXPECT_EQ(printable("\xc2\x9b" "31m\xc2\xa0."), "\\x9b31m\xc2\xa0.") << "C1 goes, the no-break space stays";
    EXPECT_EQ(printable("end\xc2"), "end\xc2");
}

/// Records on the disk rest on these values: a change of any of them is a fault, whatever the reason.
TEST(StableHash, golden_values) {
    struct Golden {
        std::string_view key;
        std::uint64_t hash;
        std::uint32_t of_2, of_4, of_64;
    };
    for (const auto& g : {Golden{"", 0x553E93901E462A6E, 0, 2, 62}, Golden{"a", 0x454DDEE488C1ED6B, 1, 3, 15},
                          Golden{"1234567", 0x6D7A4E79E8A2CBF6, 1, 3, 15}, Golden{"12345678", 0x8C5B90A33A04DCA5, 0, 2, 6},
                          Golden{"sensor-17", 0x387283C3F20BF308, 1, 3, 11}, Golden{"aio-mqttbroker-client-0042", 0x1CDA1EA6DD475CF5, 1, 3, 19},
                          Golden{"\xc3\xbc\xc3\xa4", 0x3BFB5F5646D62F84, 0, 2, 18}, Golden{"$high/of/16bytes", 0x32C09B46A9EB35AC, 0, 2, 42}}) {
        EXPECT_EQ(stable_hash(g.key), g.hash) << g.key;
        EXPECT_EQ(stable_share(g.key, 1), 0u);
        EXPECT_EQ(stable_share(g.key, 2), g.of_2) << g.key;
        EXPECT_EQ(stable_share(g.key, 4), g.of_4) << g.key;
        EXPECT_EQ(stable_share(g.key, 64), g.of_64) << g.key;
    }
}

#if defined(__GLIBCXX__) && defined(__x86_64__)
/// What was written while homes rested on the library's hash reads right.
TEST(StableHash, is_what_older_records_were_written_with) {
    std::string key;
    for (int i = 0; i < 600; ++i, key += static_cast<char>(i * 37 + 200)) ASSERT_EQ(stable_hash(key), std::hash<std::string_view>{}(key)) << i;
}
#endif

TEST(Log, every_module_has_a_level) {
    for (const auto* module : {"app", "api", "auth", "broker", "client", "control", "registry", "selftest", "store", "tls"}) {
        EXPECT_EQ(log::set_levels(std::string("info,") + module + "=error"), "");
        EXPECT_FALSE(log::enabled(module, log::Level::warn)) << module;
        EXPECT_TRUE(log::enabled(module, log::Level::error)) << module;
    }
    EXPECT_EQ(log::set_levels("info"), "");
}

}  // namespace
}  // namespace penstock
