#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "store/engine.h"
#include "store/overflow.h"
#include "store/queue.h"

namespace penstock::store {

/// A session's queue and window in memory, with what has no place there on the overflow's disk; engines that keep it elsewhere
/// too derive from it.
class MemorySessionStore : public SessionStore {
  public:
    MemorySessionStore(std::string_view client_id, OverflowLane* overflow) : client_id_(client_id), overflow_(overflow) {}
    MemorySessionStore(const MemorySessionStore&) = delete;
    MemorySessionStore& operator=(const MemorySessionStore&) = delete;
    ~MemorySessionStore() override {
        if (on_disk_ == 0) return;
        queue_.for_each([&](Queued& item) {
            if (item.place) overflow_->drop(item.place);
            return true;
        });
    }

    /// From another worker's lane; nothing of it is on the disk.
    void use(OverflowLane* lane) noexcept { overflow_ = lane; }

    void enqueue(Queued item, bool may_overflow, std::int64_t now) override {
        item.expires_at = item.message->expires_at();
        item.size = static_cast<std::uint32_t>(item.message->memory());
        if (item.qos == mqtt::Qos::at_most_once) {
            ++qos0_;
            qos0_bytes_ += item.size;
        } else {
            bytes_ += item.size;
            if (may_overflow && overflow_ != nullptr && overflow_->has_room()) {
                item.place = overflow_->put(item.message);
                item.message = {};
                ++on_disk_;
                if (const auto latest = overflow_->latest_end(now); latest != 0 && (item.expires_at == 0 || item.expires_at > latest)) item.expires_at = latest;
            }
        }
        if (item.expires_at != 0 && (next_end_ == 0 || item.expires_at < next_end_)) next_end_ = item.expires_at;
        queue_.push_back(std::move(item));
    }
    Queued* next() override {
        if (queue_.empty()) return nullptr;
        auto& head = queue_.front();
        if (head.message) return &head;
        load();
        return nullptr;
    }
    void drop_next() override {
        forget(queue_.front());
        queue_.pop_front();
    }
    InFlight& start_next(std::uint16_t packet_id) override {
        auto item = std::move(queue_.front());
        queue_.pop_front();
        bytes_ -= item.size;
        return MemorySessionStore::start(std::move(item), packet_id);   // not an override's: the item is known already
    }
    InFlight& start(Queued item, std::uint16_t packet_id) override {
        const auto step = item.qos == mqtt::Qos::exactly_once ? Step::wait_pubrec : Step::wait_puback;
        item.size = static_cast<std::uint32_t>(item.message->memory());
        bytes_ += item.size;
        window_.push_back({.item = std::move(item), .packet_id = packet_id, .step = step});
        ++in_flight_;
        return window_.back();
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
        bytes_ -= entry.item.size;
        entry.item = {};
    }
    void finish(std::uint16_t packet_id) override {
        auto* entry = find(packet_id);
        if (entry == nullptr) return;
        entry->step = Step::done;
        bytes_ -= entry->item.size;
        entry->item = {};
        --in_flight_;
        while (!window_.empty() && window_.front().step == Step::done) window_.pop_front();
    }
    void for_each_in_flight(const std::function<void(InFlight&)>& visit) override {
        for (std::size_t i = 0; i < window_.size(); ++i)
            if (window_[i].step != Step::done) visit(window_[i]);
    }
    std::size_t drop_expired(std::int64_t now) override {
        const auto gone = queue_.drop_ended(now, [&](Queued& item) { forget(item); });
        next_end_ = queue_.next_end();
        return gone;
    }
    void take_over(SessionStore& other) override {
        auto& from = static_cast<MemorySessionStore&>(other);
        for (; !from.window_.empty(); from.window_.pop_front()) {
            auto& entry = from.window_.front();
            if (entry.step == Step::done) continue;
            entry.key = entry.item.key = entry.item.body = 0;
            on_taken(entry);
            restore(std::move(entry));
        }
        for (; !from.queue_.empty(); from.queue_.pop_front()) {
            auto item = std::move(from.queue_.front());
            item.key = item.body = 0;
            if (item.qos != mqtt::Qos::at_most_once) {
                if (item.message) on_taken(item);
                bytes_ += item.size;
            }
            queue_.push_back(std::move(item));
        }
        from.bytes_ = 0;
        qos0_ = std::exchange(from.qos0_, 0);
        qos0_bytes_ = std::exchange(from.qos0_bytes_, 0);
        on_disk_ = std::exchange(from.on_disk_, 0);
        readable_ = std::move(from.readable_);
        next_end_ = from.next_end_;
        from.in_flight_ = 0;
    }
    void discard(bool) override {}
    std::size_t take_shared(const std::function<bool(std::uint32_t)>& wanted, bool ended, SessionStore& other) override {
        auto& into = static_cast<MemorySessionStore&>(other);
        std::size_t count = 0;
        for (std::size_t i = 0; ended && i < window_.size(); ++i) {
            auto& entry = window_[i];
            if (entry.step != Step::wait_puback || entry.item.share == 0 || !wanted(entry.item.share)) continue;
            on_not_acknowledged(entry);
            bytes_ -= entry.item.size;
            if (entry.item.message) entry.item.expires_at = entry.item.message->expires_at();   // what was sent at once was never queued
            into.adopt(std::move(entry.item));
            entry.item = {};
            entry.step = Step::done;
            --in_flight_;
            ++count;
        }
        while (!window_.empty() && window_.front().step == Step::done) window_.pop_front();
        const auto before = count;
        queue_.for_each([&](Queued& item) {
            if (item.qos == mqtt::Qos::at_most_once || item.share == 0 || !wanted(item.share)) return true;
            bytes_ -= item.size;
            if (item.place) --on_disk_;
            into.adopt(std::move(item));
            item.place = {};
            ++count;
            return true;
        });
        if (count > before) queue_.erase_if([](const Queued& item) { return !item.message && !item.place; });
        next_end_ = queue_.next_end();
        return count;
    }
    std::size_t set_readable(std::shared_ptr<const Readable> readable, bool resumes) override {
        readable_ = on_disk_ > 0 ? readable : nullptr;   // what is in memory is looked at here
        if (readable == nullptr) return 0;
        std::size_t count = 0;
        std::vector<std::uint16_t> unreadable;
        for (std::size_t i = 0; resumes && i < window_.size(); ++i)
            if (const auto& message = window_[i].item.message; message && !(*readable)(message->view().topic)) unreadable.push_back(window_[i].packet_id);
        for (const auto packet_id : unreadable) {
            auto* entry = find(packet_id);
            // The receiver may have the identifier of a QoS 2 message in use: PUBREL frees it, and carries nothing.
            if (entry->step == Step::wait_pubrec) advance(*entry);
            else finish(packet_id);
            ++count;
        }
        count += queue_.erase_if([&](const Queued& item) {
            if (!item.message || (*readable)(item.message->view().topic)) return false;
            forget(item);
            return true;
        });
        next_end_ = queue_.next_end();
        return count;
    }
    std::uint32_t last_share() override {
        std::uint32_t out = 0;
        for_each_item([&](const Queued& item, const InFlight*) { out = std::max(out, item.share); });
        return out;
    }
    void drop_qos0() override {
        if (qos0_ == 0) return;
        queue_.erase_if([](const Queued& q) { return q.qos == mqtt::Qos::at_most_once; });
        qos0_ = qos0_bytes_ = 0;
    }
    std::size_t queued() const override { return queue_.size(); }
    std::size_t queued_qos0() const override { return qos0_; }
    std::size_t queued_qos0_bytes() const override { return qos0_bytes_; }
    std::size_t bytes() const override { return bytes_; }
    std::size_t in_flight() const override { return in_flight_; }
    std::size_t span() const override { return window_.size(); }
    std::int64_t next_end() const override { return next_end_; }

  protected:
    /// Every message that is held: queued, or in flight and not yet dropped; with its delivery, or null.
    template <class Visit>
    void for_each_item(Visit&& visit) {
        queue_.for_each([&](Queued& item) {
            visit(item, static_cast<const InFlight*>(nullptr));
            return true;
        });
        for (std::size_t i = 0; i < window_.size(); ++i)
            if (window_[i].item.message) visit(window_[i].item, static_cast<const InFlight*>(&window_[i]));
    }
    /// A queued message leaves without having been sent.
    virtual void on_gone(const Queued&) {}
    /// A delivery becomes a queued message again, under the same key.
    virtual void on_not_acknowledged(InFlight&) {}
    /// A delivery, or a queued message, comes from another store.
    virtual void on_taken(InFlight&) {}
    virtual void on_taken(Queued&) {}
    /// Puts a delivery back as it was; the ones finished before it are filled in, so that identifiers stay consecutive.
    void restore(InFlight entry) {
        while (!window_.empty()) {
            const unsigned last = window_.back().packet_id;
            const auto next = static_cast<std::uint16_t>(last == 65'535 ? 1 : last + 1);
            if (next == entry.packet_id || window_.size() >= 65'534) break;
            window_.push_back({.packet_id = next, .step = Step::done});
        }
        if (entry.item.message) bytes_ += entry.item.size = static_cast<std::uint32_t>(entry.item.message->memory());
        window_.push_back(std::move(entry));
        ++in_flight_;
    }
    [[nodiscard]] const std::string& client_id() const noexcept { return client_id_; }
    [[nodiscard]] OverflowLane* overflow() const noexcept { return overflow_; }

  private:
    static constexpr std::size_t load_count = 64, load_bytes = 256 * 1024;

    /// A message of another store of the same client, with what is kept of it.
    void adopt(Queued item) {
        if (item.key == 0 && item.message) on_taken(item);
        bytes_ += item.size;
        if (item.place) ++on_disk_;
        if (item.expires_at != 0 && (next_end_ == 0 || item.expires_at < next_end_)) next_end_ = item.expires_at;
        queue_.push_back(std::move(item));
    }
    void forget(const Queued& item) {
        on_gone(item);
        release_place(item);
        if (item.qos == mqtt::Qos::at_most_once) --qos0_, qos0_bytes_ -= item.size;
        else bytes_ -= item.size;
    }
    void release_place(const Queued& item) {
        if (!item.place) return;
        overflow_->drop(item.place);
        --on_disk_;
    }
    /// Has what stands at the head read from the disk.
    void load() {
        if (loading_ != nullptr) return;
        std::vector<Place> places;
        std::size_t bytes = 0, looked = 0;
        queue_.for_each([&](Queued& item) {
            if (item.place) {
                places.push_back(item.place);
                bytes += item.size;
            }
            return ++looked < load_count && bytes < load_bytes;
        });
        loading_ = std::make_shared<char>();
        overflow_->read(places, loading_, [this, places](std::vector<mqtt::MessageRef> messages) {
            loading_.reset();
            take(places, messages);
        });
    }
    /// The queue may have lost some of them meanwhile, but the order is the same.
    void take(const std::vector<Place>& places, std::vector<mqtt::MessageRef>& messages) {
        std::size_t at = 0, looked = 0;
        bool lost = false;
        queue_.for_each([&](Queued& item) {
            if (item.place) {
                auto match = at;
                while (match < places.size() && !(places[match] == item.place)) ++match;
                if (match < places.size()) {
                    at = match + 1;
                    item.message = std::move(messages[match]);
                    release_place(item);
                    item.place = {};
                    if (item.message && readable_ != nullptr && !(*readable_)(item.message->view().topic)) {
                        on_gone(item);
                        item.message = {};
                    }
                    lost |= !item.message;
                }
            }
            return at < places.size() && ++looked < 2 * load_count;
        });
        // What cannot be read is let go; a durable engine still has it for after a restart.
        if (lost) queue_.erase_if([&](const Queued& item) {
            const bool gone = !item.message && !item.place;
            if (gone) bytes_ -= item.size;
            return gone;
        });
        overflow_->on_ready(client_id_);
    }
    Queue queue_;
    Ring<InFlight> window_;
    std::size_t qos0_ = 0, qos0_bytes_ = 0;
    std::size_t bytes_ = 0;              ///< of QoS 1 and 2, queued and in flight
    std::size_t in_flight_ = 0;
    std::size_t on_disk_ = 0;
    std::int64_t next_end_ = 0;
    std::string client_id_;
    OverflowLane* overflow_;           ///< null: all in memory
    std::shared_ptr<char> loading_;      ///< while messages are read
    std::shared_ptr<const Readable> readable_;   ///< for what is on the disk; null: all of it
};

}  // namespace penstock::store
