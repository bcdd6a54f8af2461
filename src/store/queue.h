#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "store/engine.h"

namespace penstock::store {

/// A queue that costs nothing while empty: std::deque would hold two blocks of 512 bytes from the start. Its places count in the message
/// pool: one message may wait in as many queues as there are subscribers.
template <class T>
class Ring {
  public:
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    T& operator[](std::size_t i) noexcept { return items_[(head_ + i) & (items_.size() - 1)]; }
    T& front() noexcept { return (*this)[0]; }
    T& back() noexcept { return (*this)[size_ - 1]; }
    void push_back(T item) {
        if (size_ == items_.size()) grow();
        items_[(head_ + size_++) & (items_.size() - 1)] = std::move(item);
    }
    void pop_front() noexcept {
        items_[head_] = T{};
        head_ = (head_ + 1) & (items_.size() - 1);
        if (--size_ == 0 && items_.size() > 1024) {
            items_ = {};
            head_ = 0;
        }
    }
    template <class Predicate>
    std::size_t erase_if(Predicate&& predicate) {
        std::size_t kept = 0;
        for (std::size_t i = 0; i < size_; ++i) {
            if (predicate((*this)[i])) continue;
            if (kept != i) (*this)[kept] = std::move((*this)[i]);
            ++kept;
        }
        const auto erased = size_ - kept;
        for (auto i = kept; i < size_; ++i) (*this)[i] = T{};
        size_ = kept;
        return erased;
    }

  private:
    void grow() {
        CountedVector<T> bigger(items_.empty() ? 1 : items_.size() * 2);
        for (std::size_t i = 0; i < size_; ++i) bigger[i] = std::move((*this)[i]);
        items_ = std::move(bigger);
        head_ = 0;
    }
    CountedVector<T> items_;             ///< size is a power of two
    std::size_t head_ = 0;
    std::size_t size_ = 0;
};

/// Queued messages in pieces of up to 64: growing moves pieces and not messages, and what ends at a time is looked for only in
/// those pieces in which something does.
class Queue {
  public:
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    Queued& front() noexcept {
        auto& piece = pieces_.front();
        return piece.items[piece.head];
    }
    void push_back(Queued item) {
        if (pieces_.empty() || pieces_.back().items.size() == piece_max) pieces_.push_back({});
        auto& piece = pieces_.back();
        if (item.expires_at != 0) piece.first_end = std::min(piece.first_end, item.expires_at);
        piece.items.push_back(std::move(item));
        ++size_;
    }
    void pop_front() noexcept {
        auto& piece = pieces_.front();
        piece.items[piece.head++] = Queued{};
        --size_;
        if (piece.head < piece.items.size()) return;
        // The last piece of a short queue is used again, so that a message now and then costs no allocation.
        if (pieces_.size() == 1 && piece.items.capacity() <= short_queue) {
            piece.items.clear();
            piece.head = 0;
            piece.first_end = never;
        } else {
            pieces_.pop_front();
        }
    }
    /// When the first message ends that does, monotonic ms; 0: none does. May be early by messages that left already.
    [[nodiscard]] std::int64_t next_end() noexcept {
        auto out = never;
        for (std::size_t i = 0; i < pieces_.size(); ++i) out = std::min(out, pieces_[i].first_end);
        return out == never ? 0 : out;
    }
    /// Takes out what ended at or before `now`, after showing it.
    template <class Visit>
    std::size_t drop_ended(std::int64_t now, Visit&& visit) {
        return erase([&](const Piece& piece) { return piece.first_end <= now; }, [&](Queued& item) {
            if (item.expires_at == 0 || item.expires_at > now) return false;
            visit(item);
            return true;
        });
    }
    template <class Predicate>
    std::size_t erase_if(Predicate&& predicate) {
        return erase([](const Piece&) { return true; }, predicate);
    }
    /// From front to back, until `visit` answers false.
    template <class Visit>
    void for_each(Visit&& visit) {
        for (std::size_t i = 0; i < pieces_.size(); ++i)
            for (std::size_t k = pieces_[i].head; k < pieces_[i].items.size(); ++k)
                if (!visit(pieces_[i].items[k])) return;
    }

  private:
    static constexpr std::size_t piece_max = 64, short_queue = 8;
    static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
    struct Piece {
        CountedVector<Queued> items;
        std::uint32_t head = 0;          ///< those before it left
        std::int64_t first_end = never;
    };
    template <class Wanted, class Predicate>
    std::size_t erase(Wanted&& wanted, Predicate&& predicate) {
        std::size_t erased = 0;
        bool any_empty = false;
        for (std::size_t i = 0; i < pieces_.size(); ++i) {
            auto& piece = pieces_[i];
            if (!wanted(piece)) continue;
            const auto head = piece.items.begin() + piece.head;
            const auto kept = std::remove_if(head, piece.items.end(), predicate);
            erased += static_cast<std::size_t>(piece.items.end() - kept);
            piece.items.erase(kept, piece.items.end());
            piece.first_end = never;
            for (auto at = piece.items.begin() + piece.head; at != piece.items.end(); ++at)
                if (at->expires_at != 0) piece.first_end = std::min(piece.first_end, at->expires_at);
            any_empty |= piece.head == piece.items.size();
        }
        if (any_empty) pieces_.erase_if([](const Piece& piece) { return piece.head == piece.items.size(); });
        size_ -= erased;
        return erased;
    }
    Ring<Piece> pieces_;
    std::size_t size_ = 0;
};

}  // namespace penstock::store
