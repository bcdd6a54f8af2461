#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>

#include "base/log.h"
#include "base/stable_hash.h"
#include "base/text.h"
#include "base/utf8.h"

namespace penstock {
namespace {

TEST(Text, printable_leaves_nothing_that_steers_a_terminal) {
    EXPECT_EQ(printable("plant/Öl ∑ 1"), "plant/Öl ∑ 1");
    EXPECT_EQ(printable("a\x1b[2J\r\nb\x7f"), "a\\x1b[2J\\x0d\\x0ab\\x7f");
    EXPECT_EQ(printable("\xc2\x9b" "31m\xc2\xa0."), "\\x9b31m\xc2\xa0.") << "C1 goes, the no-break space stays";
    EXPECT_EQ(printable("end\xc2"), "end\\xc2") << "half a character is none";
    EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
    EXPECT_EQ(printable("\xff\xfe \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80"), "\\xff\\xfe \\xc0\\xaf \\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80") << "overlong, surrogate, beyond the last";
    EXPECT_EQ(printable("a\u202eb\u2066c\u200bd\ufeffe\u2028f\U000e0041g"), "a\\u{202e}b\\u{2066}c\\u{200b}d\\u{feff}e\\u{2028}f\\u{e0041}g");
    EXPECT_EQ(printable("fan-01\u3164\u115f\ufe0f\u034f"), "fan-01\\u{3164}\\u{115f}\\u{fe0f}\\u{034f}") << "looks like fan-01";
    EXPECT_EQ(printable("日本 😀 é"), "日本 😀 é");
}

// Whatever bytes there are, the answer is text, has nothing that steers, and stays as it is the second time.
TEST(Text, printable_holds_for_any_bytes) {
    std::uint64_t state = 1;
    for (int round = 0; round < 20'000; ++round) {
        std::string bytes;
        for (int i = 0; i < round % 13; ++i) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bytes += static_cast<char>(state >> 56);
            if (round % 3 == 0 && state % 5 == 0) bytes += "\xe2\x80\xae";
        }
        const auto shown = printable(bytes);
        ASSERT_EQ(utf8_fault(shown), std::string_view::npos);
        ASSERT_EQ(printable(shown), shown);
        ASSERT_TRUE(std::ranges::none_of(shown, [](unsigned char c) { return c < 0x20 || c == 0x7F; }));
        ASSERT_EQ(shown.find("\xe2\x80\xae"), std::string::npos);
        ASSERT_EQ(utf8_fault(clipped(shown, 7)), std::string_view::npos) << "cut between characters";
        ASSERT_LE(clipped(shown, 7).size(), 7u);
    }
}

TEST(Text, a_quoted_value_cannot_end_its_quotes) {
    EXPECT_EQ(quotable("a\" user=\"admin"), "a\\\" user=\\\"admin");
    EXPECT_EQ(quotable("ends in \\"), "ends in \\\\");
    EXPECT_EQ(clipped("abcé", 4), "abc");
    EXPECT_EQ(clipped("abcé", 5), "abcé");
    EXPECT_EQ(clipped("", 5), "");
}

// Who chooses a client id, a topic, a name in a certificate must not be able to add a field, a line or another severity.
TEST(Log, a_value_stays_within_its_field) {
    std::string text;
    log::set_sink([&](std::string_view line) { text = line.substr(line.find(" - ") + 3); });
    const std::string evil = "x\" admin=\"yes\" \\ \n<3>2026 [ERROR]\x1b[2J\u202e\xff";
    const std::string quoted = R"(x\" admin=\"yes\" \\ \x0a<3>2026 [ERROR]\x1b[2J\u{202e}\xff)";
    log::info("broker", "client=\"{}\" n={}", evil, 5);
    EXPECT_EQ(text, "broker: client=\"" + quoted + "\" n=5\n");
    log::info("broker", "client={} n={}", evil, 5);
    EXPECT_EQ(text, "broker: client=\"" + quoted + "\" n=5\n") << "a value with blanks gets its quotes";
    log::info("broker", "client={} peer={} empty={} n={:.2f}", "fan-01", std::string_view("[::1]:5"), "", 1.5);
    EXPECT_EQ(text, "broker: client=fan-01 peer=[::1]:5 empty= n=1.50\n");
    log::info("broker", "refused: {}; why=\"{} of {}\"{}", "a \"name\"", "a \"name\"", evil, " suppressed=3");
    EXPECT_EQ(text, "broker: refused: a \"name\"; why=\"a \\\"name\\\" of " + quoted + "\" suppressed=3\n");
    log::info("broker", "{{}} {} {}", 1, true);
    EXPECT_EQ(text, "broker: {} 1 true\n");
    log::set_sink({});
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
    EXPECT_EQ(log::set_levels("Info, BROKER = Error"), "") << "in any case";
    EXPECT_FALSE(log::enabled("broker", log::Level::warn));
    EXPECT_TRUE(log::enabled("control", log::Level::warn));
    EXPECT_EQ(log::set_levels("info"), "");
}

}  // namespace
}  // namespace penstock
