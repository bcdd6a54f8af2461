#include "io/socket.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
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

/// Why `port` cannot be listened on, the same on the loopback interfaces and on all.
std::string refusal(std::uint16_t port) {
    std::uint16_t bound = 0;
    const auto loopback = listen_tcp(true, port, bound), all = listen_tcp(false, port, bound);
    EXPECT_FALSE(loopback);
    EXPECT_FALSE(all);
    if (loopback || all) return "";
    EXPECT_EQ(loopback.error().message, all.error().message);
    const auto head = "port " + std::to_string(port) + " cannot be opened: Address already in use: ";
    EXPECT_TRUE(all.error().message.starts_with(head)) << all.error().message;
    return all.error().message.substr(head.size());
}

TEST(Listening, who_holds_the_port_is_named) {
    std::uint16_t port = 0, other = 0;
    const auto held = listen_tcp(true, 0, port);
    ASSERT_TRUE(held) << held.error().message;
    int until[2];
    ASSERT_EQ(pipe(until), 0);
    const auto child = fork();
    if (child == 0) {   // holds what it was born with until the other end of the pipe is closed
        close(until[1]);
        char none = 0;
        while (read(until[0], &none, 1) > 0) continue;
        _exit(0);
    }
    ASSERT_GT(child, 0);
    close(until[0]);
    EXPECT_EQ(refusal(port), "this Penstock itself has it (API, metrics or another listener); choose another port");
    for (const int fd : *held) close_now(fd);
    const auto id = std::to_string(child);
    EXPECT_EQ(refusal(port), own_name() + " (process " + id + ") holds it; end that program (kill " + id + ") or choose another port");
    close(until[1]);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    const auto free = listen_tcp(true, port, other);
    ASSERT_TRUE(free) << free.error().message;
    for (const int fd : *free) close_now(fd);
}

// Who is bound and does not listen is in no table of listeners.
TEST(Listening, a_holder_that_cannot_be_seen_is_not_made_up) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(refusal(local_port(fd)), "a program that cannot be seen from here holds it (of another user, or one that does not listen); choose another port");
    close(fd);
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
