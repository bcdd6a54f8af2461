#pragma once
#include <string>

#include "app/terminal.h"

namespace penstock::app {

struct WaitOptions {
    std::string condition;               ///< `condition=X[=V]`, `jsonpath={PATH}=V`, `delete`, `create`
    std::string timeout = "30s";
};
/// Waits until objects are as wanted, and says so on standard output: the exit code. `delete` waits with it,
/// too.
int wait(const ResourceOptions& options, const WaitOptions& wanted);

}  // namespace penstock::app
