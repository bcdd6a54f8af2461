#include "io/socket.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::io {
namespace {

union Address {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
    sockaddr_storage storage;
};

constexpr std::int64_t counted_max = 4096;         // a limit up to which open descriptors are counted each time

std::string error_text(int code) { return std::strerror(code); }

/// What came of listening at one address: a descriptor, or the error (errno).
struct Listened {
    int fd = -1, error = 0;
};

Listened listen_one(const Address& address, socklen_t size, bool dual_stack) {
    const int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return {-1, errno};
    const int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.any.sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? &off : &on, sizeof on);
    if (bind(fd, &address.any, size) != 0 || listen(fd, 4096) != 0) {
        const int code = errno;
        close(fd);
        return {-1, code};
    }
    return {fd, 0};
}

PeerAddress peer_of(const Address& address) noexcept {
    PeerAddress out;
    if (address.any.sa_family == AF_INET) {
        out.ip[10] = out.ip[11] = 0xFF;
        std::memcpy(&out.ip[12], &address.v4.sin_addr, 4);
        out.port = ntohs(address.v4.sin_port);
    } else {
        std::memcpy(out.ip.data(), &address.v6.sin6_addr, out.ip.size());
        out.port = ntohs(address.v6.sin6_port);
    }
    return out;
}

/// The machine has no IPv6, or not at this address; anything else is a fault that must be told.
bool no_ipv6(int error) {
    return error == EAFNOSUPPORT || error == EADDRNOTAVAIL || error == EPROTONOSUPPORT;
}

/// The inodes of the sockets that listen on `port`, as /proc/net names them.
std::vector<std::string> listening_inodes(std::uint16_t port) {
    constexpr std::size_t state_at = 3, inode_at = 9;    // fields of a line, counted from 0
    std::vector<std::string> out;
    for (const auto* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
        std::ifstream lines(table);
        for (std::string line; std::getline(lines, line);) {
            std::istringstream words(line);
            std::vector<std::string> fields;
            for (std::string word; fields.size() <= inode_at && words >> word;) fields.push_back(word);
            if (fields.size() <= inode_at || fields[state_at] != "0A") continue;
            if (fields[1].ends_with(fmt::format(":{:04X}", port))) out.push_back(fields[inode_at]);
        }
    }
    return out;
}

/// Whether the process whose folder of /proc is given has one of these sockets open.
bool has_socket(const std::filesystem::path& process, const std::vector<std::string>& inodes) {
    namespace fs = std::filesystem;
    std::error_code closed;    // a process of somebody else, or one that ended meanwhile
    for (fs::directory_iterator file(process / "fd", closed), end; !closed && file != end; file.increment(closed)) {
        std::error_code gone;
        const auto target = fs::read_symlink(file->path(), gone).string();
        if (std::ranges::any_of(inodes, [&](const auto& i) { return target == "socket:[" + i + "]"; })) return true;
    }
    return false;
}

/// Who has `port`, and what to do about it, for people.
std::string holder_of(std::uint16_t port) {
    const auto inodes = listening_inodes(port);
    namespace fs = std::filesystem;
    // Nobody shall end the very program that says this.
    if (has_socket("/proc/self", inodes)) return "this Penstock itself has it (API, metrics or another listener); choose another port";
    std::error_code error;
    for (fs::directory_iterator process("/proc", error), end; !error && !inodes.empty() && process != end; process.increment(error)) {
        const auto id = process->path().filename().string();
        if (id.find_first_not_of("0123456789") != std::string::npos || !has_socket(process->path(), inodes)) continue;
        std::string name;
        std::ifstream comm(process->path() / "comm");
        std::getline(comm, name);
        return fmt::format("{0} (process {1}) holds it; end that program (kill {1}) or choose another port", printable(name), id);
    }
    return "a program that cannot be seen from here holds it (of another user, or one that does not listen); choose another port";
}

}  // namespace

std::string why_not_bound(int error, std::uint16_t port) {
    constexpr int first_free_port = 1024;
    if (error == EADDRINUSE && port != 0) return fmt::format("{}: {}", error_text(error), holder_of(port));
    if (error != EACCES || port == 0 || port >= first_free_port) return error_text(error);
    char program[4096];
    const auto size = readlink("/proc/self/exe", program, sizeof program);
    return fmt::format(
        "{}: ports below {} need the capability CAP_NET_BIND_SERVICE; give it with "
        "AmbientCapabilities=CAP_NET_BIND_SERVICE in "
        "the systemd unit, or once with: sudo setcap cap_net_bind_service=+ep {}",
        error_text(error), first_free_port,
        size > 0 ? printable(std::string_view(program, static_cast<std::size_t>(size)))
                 : "/usr/bin/penstock");
}

Result<std::vector<int>> listen_tcp(bool loopback_only, std::uint16_t port, std::uint16_t& bound_port) {
    std::vector<int> out;
    Address v4{}, v6{};
    v4.v4.sin_family = AF_INET;
    v4.v4.sin_port = htons(port);
    v4.v4.sin_addr.s_addr = htonl(loopback_only ? INADDR_LOOPBACK : INADDR_ANY);
    v6.v6.sin6_family = AF_INET6;
    v6.v6.sin6_port = htons(port);
    v6.v6.sin6_addr = loopback_only ? in6addr_loopback : in6addr_any;
    const auto refused = [port](int error) {
        return fail(fmt::format("port {} cannot be opened: {}", port, why_not_bound(error, port)));
    };
    if (!loopback_only) {
        // One dual-stack socket where IPv6 exists; else IPv4 alone.
        const auto both = listen_one(v6, sizeof v6.v6, true);
        if (both.error != 0 && !no_ipv6(both.error)) return refused(both.error);
        if (both.fd >= 0) {
            out.push_back(both.fd);
            bound_port = local_port(both.fd);
            return out;
        }
    }
    const auto first = listen_one(v4, sizeof v4.v4, false);
    if (first.fd < 0) return refused(first.error);
    if (loopback_only) {
        v6.v6.sin6_port = htons(local_port(first.fd));
        // A machine without IPv6 has no ::1; its clients use 127.0.0.1. Where another program holds ::1, clients of
        // `localhost` would reach that one and never this listener. A port that was picked is nobody's promise.
        const auto second = listen_one(v6, sizeof v6.v6, false);
        if (second.error != 0 && !no_ipv6(second.error) && port != 0) {
            close(first.fd);
            return refused(second.error);
        }
        if (second.fd >= 0) out.push_back(second.fd);
    }
    out.insert(out.begin(), first.fd);
    bound_port = local_port(first.fd);
    return out;
}

Accepted accept_tcp(int listener, int& out, PeerAddress* from) noexcept {
    Address address{};
    socklen_t size = sizeof address;
    out = accept4(listener, &address.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (out >= 0) {
        if (from != nullptr) *from = peer_of(address);
        const int on = 1;
        setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return Accepted::ok;
    }
    return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ? Accepted::no_descriptors : Accepted::none;
}

Result<int> connect_tcp(const std::string& host, std::uint16_t port, int timeout_ms) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list); code != 0)
        return fail(fmt::format("{}: {}", host, gai_strerror(code)));
    std::string why = "no address";
    for (auto* at = list; at != nullptr; at = at->ai_next) {
        const int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            why = error_text(errno);
            continue;
        }
        int code = connect(fd, at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
        if (code == EINPROGRESS) {
            pollfd waiting{.fd = fd, .events = POLLOUT, .revents = 0};
            code = poll(&waiting, 1, timeout_ms) == 1 ? 0 : ETIMEDOUT;
            socklen_t size = sizeof code;
            if (code == 0) getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size);
        }
        if (code == 0) {
            const int on = 1;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            freeaddrinfo(list);
            return fd;
        }
        why = error_text(code);
        close(fd);
    }
    freeaddrinfo(list);
    return fail(fmt::format("{}:{}: {}", host, port, why));
}

long read_some(int fd, char* into, std::size_t size) noexcept {
    const auto got = recv(fd, into, size, 0);
    if (got > 0) return got;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
    return -1;
}

long read_two(int fd, char* first, std::size_t first_size, char* second, std::size_t second_size) noexcept {
    iovec vectors[2] = {{.iov_base = first, .iov_len = first_size}, {.iov_base = second, .iov_len = second_size}};
    const auto got = readv(fd, vectors, 2);
    if (got > 0) return got;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
    return -1;
}

long write_some(int fd, const std::string_view* pieces, std::size_t count) noexcept {
    if (count == 1) {
        const auto sent = send(fd, pieces[0].data(), pieces[0].size(), MSG_NOSIGNAL);
        if (sent >= 0) return sent;
    } else {
        iovec vectors[64];
        std::size_t used = 0;
        for (; used < count && used < 64; ++used)
            vectors[used] = {.iov_base = const_cast<char*>(pieces[used].data()), .iov_len = pieces[used].size()};
        msghdr message{};
        message.msg_iov = vectors;
        message.msg_iovlen = used;
        const auto sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent >= 0) return sent;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
}

void close_gracefully(int fd) noexcept {
    shutdown(fd, SHUT_WR);
    char rest[16'384];
    for (int i = 0; i < 16 && recv(fd, rest, sizeof rest, 0) > 0; ++i) {
    }
    close(fd);
}

long peek(int fd, char* into, std::size_t size) noexcept {
    const auto got = recv(fd, into, size, MSG_PEEK | MSG_DONTWAIT);
    if (got >= 0) return got;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
}

void end_output(int fd) noexcept { shutdown(fd, SHUT_WR); }

bool has_unread(int fd) noexcept {
    int count = 0;
    return (ioctl(fd, SIOCOUTQ, &count) == 0 && count > 0) || (ioctl(fd, FIONREAD, &count) == 0 && count > 0);
}

void close_now(int fd) noexcept { close(fd); }

int open_spare() noexcept { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

std::string peer_name(const PeerAddress& peer) {
    if (peer.port == 0) return "-";
    char text[INET6_ADDRSTRLEN] = {};
    in6_addr ip{};
    std::memcpy(&ip, peer.ip.data(), peer.ip.size());
    if (IN6_IS_ADDR_V4MAPPED(&ip)) {
        inet_ntop(AF_INET, &ip.s6_addr[12], text, sizeof text);
        return fmt::format("{}:{}", text, peer.port);
    }
    inet_ntop(AF_INET6, &ip, text, sizeof text);
    return fmt::format("[{}]:{}", text, peer.port);
}

std::string peer_network(const PeerAddress& peer) {
    if (peer.port == 0) return "-";
    char text[INET6_ADDRSTRLEN] = {};
    in6_addr ip{};
    std::memcpy(&ip, peer.ip.data(), peer.ip.size());
    if (IN6_IS_ADDR_V4MAPPED(&ip)) return inet_ntop(AF_INET, &ip.s6_addr[12], text, sizeof text);
    for (std::size_t i = 8; i < 16; ++i) ip.s6_addr[i] = 0;
    return inet_ntop(AF_INET6, &ip, text, sizeof text);
}

std::uint16_t local_port(int fd) noexcept {
    Address address{};
    socklen_t size = sizeof address;
    if (getsockname(fd, &address.any, &size) != 0) return 0;
    return ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

std::size_t raise_descriptor_limit() noexcept {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

Descriptors descriptors() noexcept {
    Descriptors out;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return out;
    out.limit = static_cast<std::int64_t>(limit.rlim_cur);
    // The kernel gives out the lowest number that is free: while that is far from the limit, the limit was not near since the
    // last time many were closed, and counting many thousand entries of /proc would cost more than it tells.
    const int lowest = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    if (lowest < 0 && errno == EMFILE) {
        out.open = out.limit;
        return out;
    }
    if (lowest >= 0) close(lowest);
    if (out.limit > counted_max && lowest < out.limit / 2) return out;
    DIR* folder = opendir("/proc/self/fd");
    if (folder == nullptr) return out;
    while (readdir(folder) != nullptr) ++out.open;
    closedir(folder);
    out.open = std::max<std::int64_t>(0, out.open - 3);   // `.`, `..` and the folder itself
    return out;
}

}  // namespace penstock::io
