#pragma once
#include <algorithm>

#include "store/engine.h"

namespace penstock::store {

/// A queue that costs nothing while empty: std::deque would hold two blocks of 512 bytes from the start.
template <class T>
class Ring {
  public:
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    T& operator[](std::size_t i) noexcept { return items_[(head_ + i) & (items_.size() - 1)]; }
    T& front() noexcept { return (*this)[0]; }
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
        std::vector<T> bigger(items_.empty() ? 4 : items_.size() * 2);
        for (std::size_t i = 0; i < size_; ++i) bigger[i] = std::move((*this)[i]);
        items_ = std::move(bigger);
        head_ = 0;
    }
    std::vector<T> items_;               ///< size is a power of two
    std::size_t head_ = 0;
    std::size_t size_ = 0;
};

/// A session's queue and window in memory; engines that keep it elsewhere too derive from it.
class MemorySessionStore : public SessionStore {
  public:
    void enqueue(Queued item) override {
        if (item.qos == mqtt::Qos::at_most_once) ++qos0_;
        may_expire_ |= item.message->expires_at() != 0;
        queue_.push_back(std::move(item));
    }
    Queued* next() override { return queue_.empty() ? nullptr : &queue_.front(); }
    void drop_next() override {
        if (queue_.front().qos == mqtt::Qos::at_most_once) --qos0_;
        queue_.pop_front();
    }
    InFlight& start_next(std::uint16_t packet_id) override {
        auto item = std::move(queue_.front());
        queue_.pop_front();
        return MemorySessionStore::start(std::move(item), packet_id);   // not an override's: the item is known already
    }
    InFlight& start(Queued item, std::uint16_t packet_id) override {
        const auto step = item.qos == mqtt::Qos::exactly_once ? Step::wait_pubrec : Step::wait_puback;
        window_.push_back({.item = std::move(item), .packet_id = packet_id, .step = step});
        ++in_flight_;
        return window_[window_.size() - 1];
    }
    InFlight* find(std::uint16_t packet_id) override {
        if (window_.empty() || packet_id == 0) return nullptr;
        // Identifiers in the window are consecutive (65535 is followed by 1), so the position is a subtraction.
        const unsigned first = window_.front().packet_id;
        const auto offset = packet_id >= first ? packet_id - first : packet_id + 65'535u - first;
        if (offset >= window_.size()) return nullptr;
        auto& entry = window_[offset];
        return entry.step == Step::done ? nullptr : &entry;
    }
    void advance(InFlight& entry) override {
        entry.step = Step::wait_pubcomp;
        entry.item = {};
    }
    void finish(std::uint16_t packet_id) override {
        auto* entry = find(packet_id);
        if (entry == nullptr) return;
        entry->step = Step::done;
        entry->item = {};
        --in_flight_;
        while (!window_.empty() && window_.front().step == Step::done) window_.pop_front();
    }
    void for_each_in_flight(const std::function<void(InFlight&)>& visit) override {
        for (std::size_t i = 0; i < window_.size(); ++i)
            if (window_[i].step != Step::done) visit(window_[i]);
    }
    std::size_t drop_expired(std::int64_t now) override {
        bool left = false;
        const auto erased = queue_.erase_if([&](const Queued& q) {
            const auto at = q.message->expires_at();
            if (at != 0 && at <= now) {
                on_gone(q);
                if (q.qos == mqtt::Qos::at_most_once) --qos0_;
                return true;
            }
            left |= at != 0;
            return false;
        });
        may_expire_ = left;
        return erased;
    }
    void discard() override {}
    void drop_qos0() override {
        if (qos0_ == 0) return;
        queue_.erase_if([](const Queued& q) { return q.qos == mqtt::Qos::at_most_once; });
        qos0_ = 0;
    }
    std::size_t queued() const override { return queue_.size(); }
    std::size_t queued_qos0() const override { return qos0_; }
    std::size_t in_flight() const override { return in_flight_; }
    std::size_t span() const override { return window_.size(); }
    bool may_expire() const override { return may_expire_; }

  protected:
    /// Every message that is held: queued, or in flight and not yet dropped.
    template <class Visit>
    void for_each_message(Visit&& visit) {
        for (std::size_t i = 0; i < queue_.size(); ++i) visit(queue_[i].message, queue_[i].key);
        for (std::size_t i = 0; i < window_.size(); ++i)
            if (window_[i].item.message) visit(window_[i].item.message, window_[i].key);
    }
    /// A queued message leaves without having been sent.
    virtual void on_gone(const Queued&) {}
    /// Puts a delivery back as it was; the ones finished before it are filled in, so that identifiers stay consecutive.
    void restore(InFlight entry) {
        while (!window_.empty()) {
            const unsigned last = window_[window_.size() - 1].packet_id;
            const auto next = static_cast<std::uint16_t>(last == 65'535 ? 1 : last + 1);
            if (next == entry.packet_id || window_.size() >= 65'534) break;
            window_.push_back({.packet_id = next, .step = Step::done});
        }
        window_.push_back(std::move(entry));
        ++in_flight_;
    }

  private:
    Ring<Queued> queue_;
    Ring<InFlight> window_;
    std::size_t qos0_ = 0;
    std::size_t in_flight_ = 0;
    bool may_expire_ = false;
};

}  // namespace penstock::store
