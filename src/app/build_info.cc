#include "app/build_info.h"

#include <sys/utsname.h>

#include <fmt/format.h>

#include "app/version.h"
#include "base/text.h"

namespace penstock::app {
namespace {

#include "build_info.inc"   // NOLINT: made by cmake/build_info.cmake

/// Go's word for the machine, as Kubernetes writes it.
std::string architecture() {
    utsname names{};
    if (uname(&names) != 0) return "unknown";
    const std::string machine = names.machine;
    return machine == "x86_64"            ? "amd64"
           : machine == "aarch64"         ? "arm64"
           : machine.starts_with("armv7") ? "arm"
                                          : machine;
}

}   // namespace

resources::Json build_info() {
    const auto parts = split(version, '.');
    return {{"major", std::string(parts[0])},
            {"minor", parts.size() > 1 ? std::string(parts[1]) : ""},
            {"gitVersion", fmt::format("v{}", version)},
            {"gitCommit", commit},
            {"gitTreeState", tree},
            {"buildDate", date},
            {"compiler", fmt::format("g++ {}.{}", __GNUC__, __GNUC_MINOR__)},
            {"platform", "linux/" + architecture()}};
}

}   // namespace penstock::app
