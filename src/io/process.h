#pragma once
#include <cstdint>

namespace penstock::io {

struct ProcessUse {
    double cpu_seconds = 0;              ///< user and system, all threads
    std::int64_t resident_bytes = 0;
};
/// From /proc; zeros when there is no such process. 0: this one.
ProcessUse process_use(int pid);

}  // namespace penstock::io
