#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace penstock::io {

inline constexpr std::size_t cache_line_bytes = 64;

/// Bounded queue between exactly one producing and one consuming thread, without locks.
/// Core: crossing. When it is full try_push refuses and the producer keeps the item.
template <class T, std::size_t Capacity>
class Ring {
    static_assert((Capacity & (Capacity - 1)) == 0, "a power of two");

  public:
    Ring() : items_(std::make_unique<T[]>(Capacity)) {}

    bool try_push(T& item) noexcept {
        const auto tail = tail_.load(std::memory_order_relaxed);
        if (tail - head_seen_ == Capacity) {
            head_seen_ = head_.load(std::memory_order_acquire);
            if (tail - head_seen_ == Capacity) return false;
        }
        items_[tail & (Capacity - 1)] = std::move(item);
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }
    bool try_pop(T& out) noexcept {
        const auto head = head_.load(std::memory_order_relaxed);
        if (head == tail_seen_) {
            tail_seen_ = tail_.load(std::memory_order_acquire);
            if (head == tail_seen_) return false;
        }
        out = std::move(items_[head & (Capacity - 1)]);
        head_.store(head + 1, std::memory_order_release);
        return true;
    }
    /// Core: any; a hint.
    [[nodiscard]] bool looks_empty() const noexcept {
        return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_seq_cst);
    }

  private:
    std::unique_ptr<T[]> items_;
    alignas(cache_line_bytes) std::atomic<std::size_t> head_{0};   ///< written by the consumer
    std::size_t tail_seen_ = 0;                                    ///< consumer's copy
    alignas(cache_line_bytes) std::atomic<std::size_t> tail_{0};   ///< written by the producer
    std::size_t head_seen_ = 0;                                    ///< producer's copy
};

}  // namespace penstock::io
