#pragma once
#include <string>

namespace penstock::control {

/// The name if an object of any kind can have it, else `otherwise`: what a person wrote in a reference may be none.
std::string makeable_name(const std::string& name, const char* otherwise);

}  // namespace penstock::control
