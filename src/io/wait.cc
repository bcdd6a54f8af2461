#include "io/wait.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <bit>

namespace penstock::io {

bool wait_for(int fd, Wait what, int timeout_ms) noexcept {
    pollfd waiting{.fd = fd, .events = static_cast<short>(what == Wait::readable ? POLLIN : POLLOUT), .revents = 0};
    return poll(&waiting, 1, timeout_ms) > 0;
}

int wait_readable_either(int first, int second, int timeout_ms) noexcept {
    pollfd waiting[2] = {{.fd = first, .events = POLLIN, .revents = 0}, {.fd = second, .events = POLLIN, .revents = 0}};
    if (poll(waiting, 2, timeout_ms) <= 0) return 0;
    return (waiting[0].revents != 0 ? 1 : 0) | (waiting[1].revents != 0 ? 2 : 0);
}

std::vector<std::string> machine_addresses() {
    std::vector<std::string> v4, v6;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return v4;
    for (const auto* at = list; at != nullptr; at = at->ifa_next) {
        if (at->ifa_addr == nullptr || (at->ifa_flags & IFF_LOOPBACK) != 0 || (at->ifa_flags & IFF_UP) == 0) continue;
        char text[INET6_ADDRSTRLEN] = {};
        if (at->ifa_addr->sa_family == AF_INET) {
            const auto address = std::bit_cast<sockaddr_in>(*at->ifa_addr).sin_addr;
            inet_ntop(AF_INET, &address, text, sizeof text);
            v4.emplace_back(text);
        } else if (at->ifa_addr->sa_family == AF_INET6) {
            const auto* address = static_cast<const sockaddr_in6*>(static_cast<const void*>(at->ifa_addr));
            if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;
            inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text);
            v6.emplace_back(text);
        }
    }
    freeifaddrs(list);
    v4.insert(v4.end(), v6.begin(), v6.end());
    return v4;
}

std::string machine_name() {
    char name[256] = {};
    return gethostname(name, sizeof name - 1) == 0 && name[0] != 0 ? name : "localhost";
}

}  // namespace penstock::io
