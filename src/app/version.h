#pragma once

namespace penstock::app {

/// Of this program, three numbers with dots. Only CMake knows it: `project(VERSION)` in CMakeLists.txt.
extern const char* const version;

}  // namespace penstock::app
