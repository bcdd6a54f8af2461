#include "io/socket.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace penstock::io {
namespace {

/// A socket that listens on ::1 alone, on a port that the system picked; -1 where there is no IPv6.
int listen_on_v6_loopback(std::uint16_t& port) {
    const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    const int on = 1;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(fd, 1) != 0) {
        close(fd);
        return -1;
    }
    port = local_port(fd);
    return fd;
}

std::string own_name() {
    std::string name;
    std::ifstream comm("/proc/self/comm");
    std::getline(comm, name);
    return name;
}

TEST(Listening, who_holds_the_port_is_named) {
    std::uint16_t port = 0, other = 0;
    const auto held = listen_tcp(true, 0, port);
    ASSERT_TRUE(held) << held.error().message;
    for (const bool loopback : {true, false}) {
        const auto refused = listen_tcp(loopback, port, other);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().message,
                  "port " + std::to_string(port) + " cannot be opened: Address already in use: " + own_name() + " (process " +
                      std::to_string(getpid()) +
                      ") holds it; end that program (a service: systemctl stop NAME) or choose another port");
    }
    for (const int fd : *held) close_now(fd);
    const auto free = listen_tcp(true, port, other);
    ASSERT_TRUE(free) << free.error().message;
    for (const int fd : *free) close_now(fd);
}

// Clients of `localhost` try ::1 first: what another program holds there would be theirs, without a word.
TEST(Listening, half_of_a_port_is_not_a_port) {
    std::uint16_t port = 0, bound = 0;
    const int holder = listen_on_v6_loopback(port);
    if (holder < 0) GTEST_SKIP() << "this machine has no IPv6";
    for (const bool loopback : {true, false}) {
        const auto refused = listen_tcp(loopback, port, bound);
        ASSERT_FALSE(refused) << (loopback ? "loopback" : "all interfaces");
        EXPECT_NE(refused.error().message.find("Address already in use"), std::string::npos) << refused.error().message;
    }
    close(holder);
}

}  // namespace
}  // namespace penstock::io
