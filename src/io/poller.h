#pragma once
#include <cstdint>
#include <span>

namespace penstock::io {

struct Ready {
    std::uint64_t tag = 0;
    bool readable = false;               ///< also set on hang-up and error: a read tells which
    bool writable = false;
};

/// Level-triggered readiness of many descriptors, and a way to be woken by another thread. Epoll underneath.
/// Core: home, except wake().
class Poller {
  public:
    /// The tag that wait() reports never: reserved for the waker.
    static constexpr std::uint64_t waker_tag = 0;

    Poller();
    ~Poller();
    Poller(const Poller&) = delete;
    Poller& operator=(const Poller&) = delete;

    /// `shared`: several pollers watch the descriptor, one of them is told (listening sockets).
    bool add(int fd, std::uint64_t tag, bool read, bool write, bool shared = false) noexcept;
    /// `end`: one that is not read is told as readable all the same when its peer ended its side.
    void change(int fd, std::uint64_t tag, bool read, bool write, bool end = false) noexcept;
    void remove(int fd) noexcept;
    /// Waits up to `timeout_ms`; returns the ready ones, empty on time-out and on wake().
    std::span<Ready> wait(int timeout_ms) noexcept;
    /// Ends the current or next wait. Core: any.
    void wake() noexcept;

  private:
    static constexpr int ready_max = 512;
    int epoll_ = -1;
    int waker_ = -1;
    Ready ready_[ready_max];
};

}  // namespace penstock::io
