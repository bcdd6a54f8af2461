#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/keyed_hash.h"
#include "mqtt/message.h"
#include "session/link.h"
#include "session/packet_ids.h"
#include "session/subscriptions.h"
#include "store/engine.h"
#include "topics/subscription_index.h"

namespace penstock::session {

/// A will that waits for its connection to end, MQTT 5.0 §3.1.2.5.
struct Will {
    mqtt::MessageRef message;
    std::uint32_t delay_interval = 0;             ///< seconds
    std::uint32_t message_expiry = 0;             ///< seconds from publication
    bool has_expiry = false;
    std::int64_t publish_at = 0;                  ///< monotonic ms once the connection ended; 0: connection is open
};

/// Bounds that the Broker resource sets for every subscriber's queue.
struct QueueLimits {
    std::size_t length = 0;                       ///< messages above QoS 0; 0: no limit
    std::size_t bytes = 0;                        ///< of them; 0: no limit
    bool drop_oldest = false;                     ///< false: grow (AIO's strategy None)
    std::size_t qos0_length = 10'000;             ///< messages of QoS 0 kept for a connected client that reads slowly
    std::size_t qos0_bytes = 64 << 20;            ///< and bytes
    bool overflows = false;                       ///< memory is short: what is queued goes to the disk, if there is one
    std::size_t out_high_water = 256 * 1024;      ///< unsent bytes after which deliveries wait in the queue
};

/// What happened to messages handed to deliver() and pump(); the owner adds these to its metrics.
struct DeliveryCounts {
    std::uint64_t sent = 0;
    std::uint64_t sent_bytes = 0;                 ///< payload
    std::uint64_t queued = 0;
    std::uint64_t dropped_qos0 = 0;
    std::uint64_t dropped_queue_full = 0;
    std::uint64_t dropped_too_large = 0;
    std::uint64_t expired = 0;
};

/// The state of one MQTT session, MQTT 5.0 §4.1: bytes and time in, packets into the link's buffer out. No I/O, no clock.
///
/// Core: home. Lives from CONNECT until it expires, whether a link is attached or not.
class Session : public topics::Subscriber {
  public:
    Session(std::string client_id, std::uint64_t id)
        : client_id_(std::move(client_id)), id_(id), publisher_(keyed_hash(client_id_)) {}
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    [[nodiscard]] const std::string& client_id() const noexcept { return client_id_; }
    /// Unique in the process, also across workers.
    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
    /// What its client's messages carry (mqtt::MessageView::publisher): the same for all sessions of a client identifier in this process.
    [[nodiscard]] std::uint64_t publisher() const noexcept { return publisher_; }

    /// A connection takes the session up. Deliveries in flight are sent again, in order, with DUP
    /// [MQTT-4.4.0-1]: as many as its Receive Maximum and the buffer allow at once, the rest by pump() before
    /// anything else. Each PUBREL at once: it is no PUBLISH, and counts as none (§4.9).
    void attach(Link& link, const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts);
    void detach() noexcept;
    [[nodiscard]] Link* link() const noexcept { return link_; }

    /// One message for this subscriber at `qos` (already the minimum of publication and subscription). `share`: number of the shared
    /// subscription that it comes by; 0: by no such.
    void deliver(mqtt::Outgoing& message, mqtt::Qos qos, bool retain, const std::uint32_t* ids, std::size_t id_count,
                 store::Engine& engine, const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts, std::uint32_t share = 0);
    /// Sends what is to be sent again, then from the queue, while the window and the buffer have room.
    void pump(const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts);

    /// PUBACK, PUBREC, PUBCOMP from the subscriber. An identifier that is not in use is tolerated (a client may repeat
    /// itself after a reconnect); false: the identifier is in use, but this packet is not the next of its exchange.
    [[nodiscard]] bool on_puback(std::uint16_t packet_id);
    /// Sends PUBREL; an error reason ends the delivery [MQTT-4.3.3-4].
    [[nodiscard]] bool on_pubrec(std::uint16_t packet_id, mqtt::ReasonCode reason);
    [[nodiscard]] bool on_pubcomp(std::uint16_t packet_id);

    /// Incoming QoS 2: true when the identifier is new and the message must be published [MQTT-4.3.3-10].
    bool begin_incoming(std::uint16_t packet_id);
    bool end_incoming(std::uint16_t packet_id);
    /// The identifiers of incoming QoS 2 messages not yet released.
    [[nodiscard]] std::vector<std::uint16_t> incoming() const { return incoming_ ? incoming_->list() : std::vector<std::uint16_t>(); }
    [[nodiscard]] std::size_t incoming_count() const noexcept { return incoming_ ? incoming_->size() : 0; }
    [[nodiscard]] bool has_incoming(std::uint16_t packet_id) const noexcept { return incoming_ && incoming_->has(packet_id); }

    /// Something is left for pump().
    [[nodiscard]] bool has_waiting() const noexcept { return again_ != 0 || queued() > 0; }
    [[nodiscard]] std::size_t queued() const noexcept { return store_ ? store_->queued() : 0; }
    [[nodiscard]] std::size_t in_flight() const noexcept { return store_ ? store_->in_flight() : 0; }
    /// From now on its queue is written; what waits already is too, but for what is on the overflow's disk.
    void keep_queue(store::Engine& engine) { change_store(engine, true); }
    /// From now on its queue is not written; the engine has let go what was.
    void leave_queue(store::Engine& engine) { change_store(engine, false); }
    /// What an engine kept, before any connection.
    void restore(std::unique_ptr<store::SessionStore> queue, std::uint16_t last_packet_id) {
        store_ = std::move(queue);
        last_packet_id_ = last_packet_id;
    }
    /// Another worker has it from now on; the one before does not run any more.
    void move_to(store::Engine& engine) {
        if (store_) engine.take_session(*store_);
    }
    /// The session ends for good. `each`: see store::SessionStore::discard.
    void discard(bool each) {
        if (store_) store_->discard(each);
    }
    /// See store::SessionStore::take_shared.
    std::size_t take_shared(const std::function<bool(std::uint32_t share)>& wanted, bool ended, store::SessionStore& into) { return store_ ? store_->take_shared(wanted, ended, into) : 0; }
    /// See store::SessionStore::set_readable.
    std::size_t set_readable(std::shared_ptr<const store::Readable> readable, bool resumes) { return store_ ? store_->set_readable(std::move(readable), resumes) : 0; }
    /// The highest number of a shared subscription among what waits.
    [[nodiscard]] std::uint32_t last_share() const { return store_ ? store_->last_share() : 0; }
    [[nodiscard]] bool has_anything_to_send() const { return store_ && (store_->queued() > 0 || store_->in_flight() > 0); }
    void restore_incoming(std::uint16_t packet_id) { static_cast<void>(begin_incoming(packet_id)); }
    std::size_t drop_expired(std::int64_t now) { return store_ ? store_->drop_expired(now) : 0; }
    /// When a queued message expires next, monotonic ms, or somewhat before; 0: none does.
    [[nodiscard]] std::int64_t next_end() const { return store_ ? store_->next_end() : 0; }

    Subscriptions subscriptions;
    Counted counted;                              ///< what the owner knows of it beside the rest, see broker::Core
    std::unique_ptr<Will> will;
    bool is_kept = false;                         ///< written by a durable engine: it outlives its connection and the process
    bool watches_keys = false;                    ///< it asked the state store for notifications
    bool keeps_queue = false;                     ///< its queue is written too
    bool asks_queue = false;                      ///< its client asked for that
    std::uint32_t expiry_interval = 0;            ///< seconds; 0xFFFFFFFF: never
    std::unique_ptr<const std::string> owner;     ///< whose session it is (auth::Principal::id); null: anybody's
    std::int64_t ends_at = 0;                     ///< monotonic ms while no link is attached; 0: never
    std::int64_t timer_at = 0;                    ///< of the owner: when its timer is due, monotonic ms; 0: it has none
    std::uint32_t next_share = 0;                 ///< of the owner: the highest number given to a shared subscription (Queued::share)
    std::uint32_t looked_at = 0;                  ///< of the owner: the second in which its queue is searched for what expired; 0: none

  private:
    bool window_open() const noexcept;
    void change_store(store::Engine& engine, bool kept) {
        if (std::exchange(keeps_queue, kept) == kept || store_ == nullptr) return;
        auto fresh = engine.open_session(client_id_, kept);
        fresh->take_over(*store_);
        store_ = std::move(fresh);
    }
    std::uint16_t take_packet_id() noexcept;
    /// True: a limit of the queue would be passed by one more message of `size` bytes.
    [[nodiscard]] bool is_full(const QueueLimits& limits, std::size_t size) const;
    void write(store::InFlight& entry, bool dup, std::int64_t now, DeliveryCounts& counts);
    /// True: nothing is left that was in flight when the connection came.
    bool resend(const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts);
    void finish(store::InFlight& entry);

    std::string client_id_;
    std::uint64_t id_, publisher_;
    Link* link_ = nullptr;
    std::unique_ptr<store::SessionStore> store_;                 ///< opened when first needed
    std::unique_ptr<PacketIds> incoming_;                        ///< QoS 2 identifiers between PUBLISH and PUBREL
    std::uint16_t last_packet_id_ = 0;
    std::uint16_t again_ = 0;                     ///< the first delivery that is to be sent again; 0: none
    std::uint16_t unacked_ = 0;                   ///< PUBLISHes of this connection that are not finished (§4.9)
};

}  // namespace penstock::session
