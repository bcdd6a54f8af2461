#include "io/poller.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>

namespace penstock::io {

Poller::Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)), waker_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    // Both fail only when the process or the machine has no descriptors left; nothing can run then.
    if (epoll_ < 0 || waker_ < 0 || !add(waker_, waker_tag, true, false)) std::abort();
}

Poller::~Poller() {
    close(waker_);
    close(epoll_);
}

namespace {
epoll_event event_of(std::uint64_t tag, bool read, bool write) noexcept {
    epoll_event event{};
    event.events = (read ? EPOLLIN | EPOLLRDHUP : 0u) | (write ? EPOLLOUT : 0u);
    event.data.u64 = tag;
    return event;
}
}  // namespace

bool Poller::add(int fd, std::uint64_t tag, bool read, bool write, bool shared) noexcept {
    auto event = event_of(tag, read, write);
    if (shared) event.events = EPOLLIN | EPOLLEXCLUSIVE;
    return epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

void Poller::change(int fd, std::uint64_t tag, bool read, bool write, bool end) noexcept {
    auto event = event_of(tag, read, write);
    if (end) event.events |= EPOLLRDHUP;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void Poller::remove(int fd) noexcept { epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

std::span<Ready> Poller::wait(int timeout_ms) noexcept {
    epoll_event events[ready_max];
    const int count = epoll_wait(epoll_, events, ready_max, timeout_ms);
    std::size_t out = 0;
    for (int i = 0; i < count; ++i) {
        if (events[i].data.u64 == waker_tag) {
            std::uint64_t drained = 0;
            [[maybe_unused]] const auto got = read(waker_, &drained, sizeof drained);
            continue;
        }
        const auto bits = events[i].events;
        ready_[out++] = {.tag = events[i].data.u64,
                         .readable = (bits & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0,
                         .writable = (bits & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0};
    }
    return {ready_, out};
}

void Poller::wake() noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(waker_, &one, sizeof one);
}

}  // namespace penstock::io
