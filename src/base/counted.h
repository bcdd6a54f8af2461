#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace penstock {

/// Bytes of memory whose amount peers choose (messages, queues, sessions, subscriptions, unsent output), counted by the thread that
/// makes or frees them. The sum over all cells is what the message pool has in use; a cell alone may be negative, because what one thread
/// made another may free. Single writer per cell (its thread), any reader.
class MessageBytes {
  public:
    void add(std::int64_t delta) noexcept {
        value_.store(value_.load(std::memory_order_relaxed) + delta, std::memory_order_relaxed);
    }
    [[nodiscard]] std::int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }
    /// The cell of the calling thread; threads that set none share nothing but their own default.
    static MessageBytes& mine() noexcept { return *current(); }
    static void use(MessageBytes& cell) noexcept { current() = &cell; }

  private:
    static MessageBytes*& current() noexcept {
        thread_local MessageBytes own;
        thread_local MessageBytes* cell = &own;
        return cell;
    }
    std::atomic<std::int64_t> value_{0};
};

/// A number of bytes that counts in the message pool as long as this object says so. For what cannot be counted where it is allocated,
/// such as strings. Core: the owner's; it may be destroyed by another thread than the one that set it.
class Counted {
  public:
    Counted() = default;
    Counted(Counted&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)) {}
    Counted& operator=(Counted&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Counted() { set(0); }
    void set(std::size_t bytes) noexcept {
        if (bytes == bytes_) return;
        MessageBytes::mine().add(static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(bytes_));
        bytes_ = bytes;
    }
    void add(std::size_t bytes) noexcept { set(bytes_ + bytes); }
    void take(std::size_t bytes) noexcept { set(bytes_ - bytes); }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

  private:
    std::size_t bytes_ = 0;
};

/// Allocates as usual and counts what it allocates in the message pool, with what malloc adds to a block. Costs nothing between
/// allocations.
template <class T>
struct CountedAllocator {
    using value_type = T;
    static constexpr std::size_t block_bytes = 16;

    CountedAllocator() = default;
    template <class U>
    explicit(false) CountedAllocator(const CountedAllocator<U>&) noexcept {}
    [[nodiscard]] T* allocate(std::size_t count) {
        auto* memory = std::allocator<T>().allocate(count);
        MessageBytes::mine().add(bytes_of(count));
        return memory;
    }
    void deallocate(T* memory, std::size_t count) noexcept {
        MessageBytes::mine().add(-bytes_of(count));
        std::allocator<T>().deallocate(memory, count);
    }
    friend bool operator==(const CountedAllocator&, const CountedAllocator&) noexcept { return true; }

  private:
    static std::int64_t bytes_of(std::size_t count) noexcept { return static_cast<std::int64_t>(count * sizeof(T) + block_bytes); }
};

using CountedString = std::basic_string<char, std::char_traits<char>, CountedAllocator<char>>;
template <class T>
using CountedVector = std::vector<T, CountedAllocator<T>>;

}  // namespace penstock
