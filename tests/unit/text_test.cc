#include <gtest/gtest.h>

#include "base/text.h"

namespace penstock {
namespace {

TEST(Text, printable_leaves_nothing_that_steers_a_terminal) {
    EXPECT_EQ(printable("plant/Öl ∑ 1"), "plant/Öl ∑ 1");
    EXPECT_EQ(printable("a\x1b[2J\r\nb\x7f"), "a\\x1b[2J\\x0d\\x0ab\\x7f");
    EXPECT_EQ(printable("\xc2\x9b" "31m\xc2\xa0."), "\\x9b31m\xc2\xa0.") << "C1 goes, the no-break space stays";
    EXPECT_EQ(printable("end\xc2"), "end\xc2");
}

}  // namespace
}  // namespace penstock
