#include "app/version.h"

namespace penstock::app {

// Given by src/CMakeLists.txt to this file alone, so that another version compiles nothing else anew.
const char* const version = PENSTOCK_VERSION;

}   // namespace penstock::app
