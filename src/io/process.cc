#include "io/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

namespace penstock::io {

ProcessUse process_use(int pid) {
    ProcessUse out;
    const std::string folder = "/proc/" + (pid == 0 ? std::string("self") : std::to_string(pid));
    std::ifstream stat(folder + "/stat");
    std::string line;
    std::getline(stat, line);
    const auto name_end = line.rfind(')');
    if (name_end == std::string::npos) return out;
    std::istringstream fields(line.substr(name_end + 2));
    std::string word;
    std::int64_t user = 0, system = 0;
    for (int i = 3; i <= 13; ++i) fields >> word;
    fields >> user >> system;
    out.cpu_seconds = static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
    std::ifstream statm(folder + "/statm");
    std::int64_t total = 0, resident = 0;
    statm >> total >> resident;
    out.resident_bytes = resident * sysconf(_SC_PAGESIZE);
    return out;
}

void hold_standard_descriptors() noexcept {
    for (int number = STDIN_FILENO; number <= STDERR_FILENO; ++number) {
        if (::fcntl(number, F_GETFD) >= 0) continue;
        // The lowest number that is free is given, and that is this one. Without /dev something that takes no writes stands there.
        if (::open("/dev/null", O_RDWR) < 0) [[maybe_unused]] const int any = ::open("/", O_PATH);
    }
}

void lower_thread_priority() noexcept {
    // Its own value may be lowered by anybody; where it cannot be, the thread merely keeps its priority.
    if (setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 5) != 0) errno = 0;
}

}  // namespace penstock::io
