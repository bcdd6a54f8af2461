#pragma once
#include <cstdint>

namespace penstock::io {

struct ProcessUse {
    double cpu_seconds = 0;              ///< user and system, all threads
    std::int64_t resident_bytes = 0;
};
/// From /proc; zeros when there is no such process. 0: this one.
ProcessUse process_use(int pid);

/// Puts /dev/null in the place of each of the descriptors 0 to 2 that is closed. Else the next file or connection that is opened
/// gets its number, and what is meant for standard error is written into it. Before anything is opened.
void hold_standard_descriptors() noexcept;
/// The calling thread yields to the process's other threads from now on (its nice value rises by 5, on Linux per thread).
void lower_thread_priority() noexcept;

}  // namespace penstock::io
