#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::io {

/// Non-blocking TCP. Descriptors are plain ints; -1 is none. Errors of the environment are results, never exceptions.

/// Listens on `port` of the loopback interfaces, or of all; IPv4 and IPv6 where the machine has it.
/// Port 0 picks one, told in `bound_port`. Several descriptors may come back. An address that the machine does not have
/// (IPv6 is off) is left out; one that another program holds is an error, though the other address were free.
Result<std::vector<int>> listen_tcp(bool loopback_only, std::uint16_t port, std::uint16_t& bound_port);
/// Why `port` could not be bound, for people: the system's words for `error` (errno), and the cure where a
/// right is missing or another program holds the port (named where /proc shows it).
std::string why_not_bound(int error, std::uint16_t port);
enum class Accepted : std::uint8_t { ok, none, no_descriptors };
/// An end of a connection, which stays known when the connection is gone.
struct PeerAddress {
    std::array<unsigned char, 16> ip{};  ///< IPv6, or IPv4 mapped into it
    std::uint16_t port = 0;              ///< 0: not known
};
/// `from`: who came.
Accepted accept_tcp(int listener, int& out, PeerAddress* from = nullptr) noexcept;
/// Starts or completes a connection; blocking up to `timeout_ms`. The result is non-blocking.
Result<int> connect_tcp(const std::string& host, std::uint16_t port, int timeout_ms);

/// Bytes read; 0: nothing now; -1: closed or failed.
long read_some(int fd, char* into, std::size_t size) noexcept;
/// The same into two places, the first filled before the second.
long read_two(int fd, char* first, std::size_t first_size, char* second, std::size_t second_size) noexcept;
/// Bytes written; 0: the socket is full; -1: failed. At most 64 pieces are looked at.
long write_some(int fd, const std::string_view* pieces, std::size_t count) noexcept;
/// Tells the peer that nothing more comes, takes what it already sent (a close with unread bytes would reset the
/// connection and could destroy our last packet in flight), then closes.
void close_gracefully(int fd) noexcept;
/// What is unread, which stays so: bytes of it, 0 after the peer's end; -1: nothing came, and no end; -2: the connection failed.
long peek(int fd, char* into, std::size_t size) noexcept;
/// Tells the peer that nothing more comes; it may still be read from.
void end_output(int fd) noexcept;
/// The peer's end has not acknowledged all that was sent, or sent something that was not read here: closing now would lose the first.
bool has_unread(int fd) noexcept;
void close_now(int fd) noexcept;
/// A descriptor held back for the moment when there are no others.
int open_spare() noexcept;
/// `address:port` of the peer; `-` when it is not known.
std::string peer_name(const PeerAddress& peer);
/// The peer's IPv4 address, or the /64 of its IPv6 address: what one household or attacker has; `-` as above.
std::string peer_network(const PeerAddress& peer);
std::uint16_t local_port(int fd) noexcept;
/// Raises the soft limit of open descriptors to the hard one; returns it.
std::size_t raise_descriptor_limit() noexcept;
/// Descriptors that are open, and how many may be (RLIMIT_NOFILE). They are only counted when the limit can be near.
struct Descriptors {
    std::int64_t open = 0, limit = 0;    ///< 0: not known, or far below the limit
};
Descriptors descriptors() noexcept;

}  // namespace penstock::io
