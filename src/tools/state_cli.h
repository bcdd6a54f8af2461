#pragma once
#include <string>

#include "tools/mqtt_cli.h"

namespace penstock::tools {

struct StateOptions : CommonOptions {
    std::string verb;                    ///< get, set, del, watch, scan, export
    std::string key, value;
    std::string only;                    ///< set: `new` (NX) or `new-or-same` (NEX)
    std::int64_t lives_ms = 0;
    std::string fence;
    std::string if_value;                ///< del: only if the value is this (VDEL)
    bool has_if_value = false;
    bool show_version = false;
};

/// `penstock state`: a client of the state store. 0: done; 1: absent, a condition that does not hold, or an error (told).
int run_state(StateOptions options);

}  // namespace penstock::tools
