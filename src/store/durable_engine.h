#pragma once
#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/durable_keys.h"
#include "store/overflow.h"
#include "store/record.h"

namespace penstock::store {

/// What one worker hands in at the end of a turn.
struct Submission {
    std::uint32_t worker = 0;
    std::uint64_t ticket = 0;            ///< 0: only tells which mail was processed
    rocksdb::WriteBatch batch;
    std::vector<std::uint64_t> sent, processed;
    Submission* next = nullptr;
    Counted counted;                     ///< what waits for a slow disk is as much as clients send
};

class DurableEngine;

/// What the engines of all workers need of the store they share.
class Backing {
  public:
    using Retained = std::vector<std::pair<mqtt::MessageRef, std::uint64_t>>;
    virtual ~Backing() = default;
    virtual void submit(Submission* submission) = 0;
    [[nodiscard]] virtual const char* fault() const noexcept = 0;
    /// While recovering alone: afterwards it belongs to the writer's thread.
    [[nodiscard]] virtual rocksdb::DB& db() noexcept = 0;
    virtual std::uint64_t next_key() noexcept = 0;
    virtual void forget(const DurableEngine& engine) = 0;
    /// While sessions change workers: who of the new ones counts the receivers of a body. The first that asks.
    virtual std::uint32_t owner_of(std::uint64_t body, std::uint32_t asking) = 0;
    /// One record more of a start.
    virtual void looked_at() noexcept = 0;
    /// The store's clock minus the monotonic one, ms.
    [[nodiscard]] virtual std::int64_t shift() const noexcept = 0;
    [[nodiscard]] virtual bool workers_changed() const noexcept = 0;
    /// Read by the first worker that asks, for all.
    virtual const Retained& retained(const std::function<Retained()>& read) = 0;
};

/// One worker's side of the durable store: turns changes into batches, and records into what they were.
class DurableEngine final : public Engine {
  public:
    DurableEngine(Backing& store, std::uint32_t worker, std::function<void()> wake, OverflowLane* overflow) : store_(store), worker_(worker), overflow_(overflow), wake_(std::move(wake)) {}
    ~DurableEngine() override;
    bool is_durable() const noexcept override { return true; }
    std::unique_ptr<SessionStore> open_session(std::string_view client_id, bool kept) override;
    void put_session(const SessionRecord& record) override { put(client_key('S', record.client_id), encode_session(record, offset())); }
    void erase_session(std::string_view client_id, bool spare_queue) override {
        batch_.Delete(client_key('S', client_id));
        for (const char kind : {'s', 'i', 'q', 'f'}) {
            if (kind == 'q' && spare_queue) continue;
            auto begin = client_key(kind, client_id), end = begin;
            // Behind every key of this client and before those of the next: client ids have their length in front.
            end += std::string(9, '\xFF');
            batch_.DeleteRange(begin, end);
        }
        dirty_ = true;
    }
    void take_session(SessionStore& store) override;
    void put_subscription(std::string_view client_id, std::string_view filter, const topics::Options& options, std::uint32_t share) override { put(client_key('s', client_id) + std::string(filter), encode_options(options, share)); }
    void erase_subscription(std::string_view client_id, std::string_view filter) override { erase(client_key('s', client_id) + std::string(filter)); }
    void put_incoming(std::string_view client_id, std::uint16_t packet_id) override { put(incoming_key(client_id, packet_id), ""); }
    void erase_incoming(std::string_view client_id, std::uint16_t packet_id) override { erase(incoming_key(client_id, packet_id)); }
    void put_seen(std::string_view publisher, std::uint16_t packet_id, Portion portion) override { put(seen_key(publisher, packet_id, portion), ""); }
    void erase_seen(std::string_view publisher, std::uint16_t packet_id, Portion portion) override { erase(seen_key(publisher, packet_id, portion)); }
    std::uint64_t next_number() override { return next_key(); }
    void put_leaving(std::uint64_t number, const LeavingRecord& record) override { put(number_key('w', number), encode_leaving(record, offset())); }
    void erase_leaving(std::uint64_t number) override { erase(number_key('w', number)); }
    void put_shares(std::string_view client_id, const std::vector<Share>& shares) override { put(client_key('o', client_id), encode_shares(shares)); }
    void erase_shares(std::string_view client_id) override { erase(client_key('o', client_id)); }
    std::uint64_t next_ticket() const noexcept override { return ticket_ + 1; }
    void put_state(const std::string& key, const statestore::Entry& entry) override { put("k" + key, encode_state(entry, offset())); }
    void erase_state(const std::string& key) override { erase("k" + key); }
    void put_retained(const mqtt::MessageRef& message, std::uint64_t sequence) override {
        std::string value;
        append_u64(value, sequence);
        put("r" + std::string(message->view().topic), value + encode_message(message->view(), offset()));
    }
    void erase_retained(std::string_view topic) override { erase("r" + std::string(topic)); }
    std::uint64_t commit(const MailCounts& mails) override;
    std::uint64_t durable() const noexcept override { return durable_.load(std::memory_order_acquire); }
    const char* fault() const noexcept override;
    void recover(const std::function<bool(std::string_view)>& mine, Recovered& into) override;

    /// Tickets up to here are on the disk. By the writer's thread.
    void on_durable(std::uint64_t ticket) {
        durable_.store(ticket, std::memory_order_release);
        wake_();
    }

    // for the session stores
    void put(const std::string& key, std::string_view value) {
        batch_.Put(key, slice_of(value));
        dirty_ = true;
    }
    void erase(const std::string& key) {
        batch_.Delete(key);
        dirty_ = true;
    }
    std::uint64_t next_key() noexcept;
    /// The store's clock minus the monotonic one, ms.
    [[nodiscard]] std::int64_t offset() const noexcept;
    /// Number of the message's body in the store, one reference more; 0: small enough to stand with each receiver. Receivers of one
    /// message come one after the other, so remembering the last one is enough to share it.
    std::uint64_t hold_body(const mqtt::MessageRef& message);
    void drop_body(std::uint64_t number);
    /// Counts a receiver of a body that came with its session from another worker: the number to use, which is another one where
    /// receivers of the same body went to several workers.
    std::uint64_t take_body(std::uint64_t number, const mqtt::MessageRef& message);
    [[nodiscard]] std::uint32_t worker() const noexcept { return worker_; }

  private:
    static std::string incoming_key(std::string_view client_id, std::uint16_t packet_id) { return id_key('i', client_id, packet_id); }
    static std::string seen_key(std::string_view publisher, std::uint16_t packet_id, Portion portion) {
        return id_key('d', std::string{static_cast<char>(portion.worker), static_cast<char>(portion.workers)} + std::string(publisher), packet_id);
    }
    static std::string id_key(char kind, std::string_view client_id, std::uint16_t packet_id) {
        auto out = client_key(kind, client_id);
        out += static_cast<char>(packet_id >> 8);
        out += static_cast<char>(packet_id);
        return out;
    }
    Backing& store_;
    std::uint32_t worker_;
    OverflowLane* overflow_;
    rocksdb::WriteBatch batch_;
    bool dirty_ = false;
    std::uint64_t ticket_ = 0;
    std::atomic<std::uint64_t> durable_{0};
    std::function<void()> wake_;
    std::unordered_map<std::uint64_t, std::uint32_t> bodies_;      ///< references by number
    std::unordered_map<std::uint64_t, std::uint64_t> taken_;       ///< bodies of another worker's → ours
    mqtt::MessageRef last_;                                        ///< of this turn; held, so that its address names nothing else
    std::uint64_t last_body_ = 0;
};

}  // namespace penstock::store
