#pragma once
#include <string>
#include <string_view>

namespace penstock::app {

/// What is said to a word of kubectl that is no command below `group` ("penstock", "penstock create", ...): a
/// kind that is not made, or not by `create`, and a command for containers. One line; empty: nothing is known
/// of the word.
std::string why_no_command(std::string_view group, std::string_view word);

}  // namespace penstock::app
