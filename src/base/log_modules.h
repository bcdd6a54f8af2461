#pragma once
#include <array>
#include <string>
#include <string_view>

namespace penstock::log {

/// What a level can be set for on its own (`info,broker=debug`): the folders of src/ that log, and selftest.
inline constexpr std::array<std::string_view, 10> module_names{
    "app", "api", "auth", "broker", "client", "control", "registry", "selftest", "store", "tls"};

/// What is to be said of a list of levels that names modules which there are not: their levels act nowhere.
/// Names them, a few and escaped, with what is near and what there is. Empty: every name is a module's. Any
/// thread.
std::string unknown_modules(std::string_view levels);

}  // namespace penstock::log
