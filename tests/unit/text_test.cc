#include <gtest/gtest.h>

#include "base/log.h"
#include "base/text.h"

namespace penstock {
namespace {

TEST(Text, printable_leaves_nothing_that_steers_a_terminal) {
    EXPECT_EQ(printable("plant/Öl ∑ 1"), "plant/Öl ∑ 1");
    EXPECT_EQ(printable("a\x1b[2J\r\nb\x7f"), "a\\x1b[2J\\x0d\\x0ab\\x7f");
    EXPECT_EQ(printable("\xc2\x9b" "31m\xc2\xa0."), "\\x9b31m\xc2\xa0.") << "C1 goes, the no-break space stays";
    EXPECT_EQ(printable("end\xc2"), "end\xc2");
}

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
