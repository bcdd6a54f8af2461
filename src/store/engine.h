#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mqtt/message.h"
#include "statestore/state_store.h"
#include "topics/subscription_index.h"

/// The seam between the broker's core and whatever keeps its state (design.md section 3).
///
/// Contract: every call is made by the worker that owns the engine instance. Writes are batched: they promise nothing
/// until commit() has completed, and the worker sends no acknowledgement of the turn before that. The core reads back
/// only through this interface, so that it never knows which engine it runs on.
namespace penstock::store {

class OverflowLane;

/// Where a message stands in the overflow; see overflow.h.
struct Place {
    std::uint32_t file = 0;                           ///< 0: nowhere
    std::uint32_t offset = 0, size = 0;
    explicit operator bool() const noexcept { return file != 0; }
    bool operator==(const Place&) const = default;
};

/// A message waiting for, or in flight to, one session.
struct Queued {
    mqtt::MessageRef message;                         ///< null while it is in the overflow
    mqtt::Qos qos{};
    bool retain = false;                              ///< the RETAIN flag to send, after Retain As Published
    std::uint32_t share = 0;                          ///< number of the shared subscription it came by, within its session; 0: by no such
    CountedVector<std::uint32_t> subscription_ids;    ///< as many as the client has overlapping subscriptions
    std::uint64_t key = 0;                            ///< of the engine; 0: not kept
    std::uint64_t body = 0;                           ///< of the engine: where it keeps the message for several receivers
    std::int64_t expires_at = 0;                      ///< monotonic ms; 0: never. Set by the store
    std::uint32_t size = 0;                           ///< bytes in memory. Set by the store
    Place place;
};

/// Steps of an outgoing QoS 1 or 2 delivery, MQTT 5.0 §4.3.
enum class Step : std::uint8_t { wait_puback, wait_pubrec, wait_pubcomp, done };

struct InFlight {
    Queued item;                                      ///< its message is dropped once PUBREC arrived
    std::uint16_t packet_id = 0;
    Step step{};
    bool is_unacked = false;                          ///< of the session: sent over its present connection
    std::uint64_t key = 0;                            ///< of the engine; outlives the message
};

/// Whether a client may read a topic.
using Readable = std::function<bool(std::string_view topic)>;

/// What one session still has to be sent: a queue, and behind its head the window of deliveries in flight.
class SessionStore {
  public:
    virtual ~SessionStore() = default;

    /// `may_overflow`: to the disk, if there is room.
    virtual void enqueue(Queued item, bool may_overflow, std::int64_t now) = 0;
    /// The head of the queue, with its message. Null: the queue is empty, or its head is being read from the disk and the owner is
    /// told when it is there. Valid until the next change.
    virtual Queued* next() = 0;
    /// Drops the head: sent at QoS 0, expired, or pushed out by a limit.
    virtual void drop_next() = 0;
    /// Moves the head into the window. `packet_id` continues the sequence (1..65535, then 1 again).
    virtual InFlight& start_next(std::uint16_t packet_id) = 0;
    /// Puts a message straight into the window; the queue must be empty.
    virtual InFlight& start(Queued item, std::uint16_t packet_id) = 0;
    virtual InFlight* find(std::uint16_t packet_id) = 0;
    /// PUBREC arrived: the message is dropped, PUBCOMP is awaited.
    virtual void advance(InFlight& entry) = 0;
    /// Ends a delivery; its packet identifier is free again once all older ones ended too.
    virtual void finish(std::uint16_t packet_id) = 0;
    /// Calls `visit` for each delivery in flight, in the order in which they began [MQTT-4.6.0-1].
    virtual void for_each_in_flight(const std::function<void(InFlight&)>& visit) = 0;
    /// Removes queued messages that expired at or before `now` (monotonic ms), wherever they stand; returns how many.
    virtual std::size_t drop_expired(std::int64_t now) = 0;
    /// Takes everything out of another store of the same engine, of a session that is kept from now on; this one is new.
    virtual void take_over(SessionStore& other) = 0;
    /// The session ends: what is queued and under way is let go. The engine's erase_session removes its records; with `each`, those of
    /// the queue are removed here, one by one, because the client has others that stay.
    virtual void discard(bool each = false) = 0;
    /// Moves messages of QoS 1 and 2 that came by a shared subscription for which `wanted` is true to the end of the queue of `into`, a
    /// store of the same client and worker. `ended`: also deliveries of QoS 1 without an acknowledgement, before them; a delivery of
    /// QoS 2 that began is never moved [MQTT-4.8.2-5]. Returns how many were moved.
    virtual std::size_t take_shared(const std::function<bool(std::uint32_t share)>& wanted, bool ended, SessionStore& into) = 0;
    /// From now on only topics for which `readable` is true are delivered (null: all): other queued messages are dropped, at once or
    /// when they are read from the disk. `resumes`: deliveries in flight too; one of QoS 2 goes on with PUBREL. Returns how many were dropped at once.
    virtual std::size_t set_readable(std::shared_ptr<const Readable> readable, bool resumes) = 0;
    /// The highest Queued::share there is.
    [[nodiscard]] virtual std::uint32_t last_share() = 0;
    /// Removes queued QoS 0 messages; a session that goes offline does not keep them.
    virtual void drop_qos0() = 0;

    [[nodiscard]] virtual std::size_t queued() const = 0;
    [[nodiscard]] virtual std::size_t queued_qos0() const = 0;
    [[nodiscard]] virtual std::size_t queued_qos0_bytes() const = 0;
    /// Of messages of QoS 1 and 2, queued and in flight.
    [[nodiscard]] virtual std::size_t bytes() const = 0;
    /// Deliveries not yet done.
    [[nodiscard]] virtual std::size_t in_flight() const = 0;
    /// Packet identifiers that cannot be used now: the window with the finished ones behind its oldest entry.
    [[nodiscard]] virtual std::size_t span() const = 0;
    /// When the next queued message expires, monotonic ms, or somewhat before; 0: none does.
    [[nodiscard]] virtual std::int64_t next_end() const = 0;
};

/// A will as it is kept.
struct WillRecord {
    std::string topic, payload, properties;
    mqtt::Qos qos{};
    bool retain = false;
    std::uint32_t delay_interval = 0;                 ///< seconds
    bool has_expiry = false;
    std::uint32_t message_expiry = 0;                 ///< seconds
    std::int64_t publish_at = 0;                      ///< monotonic ms; 0: its connection was open
};

/// Who last connected to a session, and by which listener: what decides on its rights while it is away. See auth::Principal.
struct HolderRecord {
    std::string listener;                             ///< `namespace/name`
    std::uint16_t port = 0;
    std::string method, user_name, evidence;
    std::map<std::string, std::string> attributes;
};

/// A session beside its subscriptions and its queue.
struct SessionRecord {
    std::string client_id;
    std::string owner;                                ///< identity whose session it is; empty: anybody's
    std::uint32_t expiry_interval = 0;                ///< seconds; 0xFFFFFFFF: never
    std::int64_t ends_at = 0;                         ///< monotonic ms; 0: never, or its connection was open
    bool keeps_queue = false;
    std::optional<WillRecord> will;
    std::optional<HolderRecord> holder{};
};

/// The sessions whose home was `worker` when there were so many.
struct Portion {
    std::uint32_t worker = 0, workers = 1;
    friend bool operator==(const Portion&, const Portion&) = default;
};

/// A message between two workers: who had it knows it no more, and its receivers not yet. A will, or what finds the member of a shared
/// group gone that it was for.
struct LeavingRecord {
    std::string client_id;                            ///< the worker that is home of it sees to it
    std::uint64_t sequence = 0;                       ///< as in Recovered::retained(); 0: it is not retained
    std::string filter, group;                        ///< for this group alone; empty: for all subscribers
    mqtt::MessageRef message;
};
/// A shared subscription that a session had, for messages that go on to other members of the group.
struct Share {
    std::uint32_t number = 0;                         ///< Queued::share of these messages
    std::string filter, group;
    friend bool operator==(const Share&, const Share&) = default;
};
/// What stands for the publisher where such a message must not come twice; no client identifier begins like it [MQTT-1.5.4-2].
std::string leaving_name(std::uint64_t number);
bool is_leaving_name(std::string_view publisher) noexcept;
std::uint64_t number_of_leaving(std::string_view name) noexcept;

/// Receives what an engine kept, on the worker that will own it: each session first, then what belongs to it.
class Recovered {
  public:
    virtual ~Recovered() = default;
    virtual void session(SessionRecord record) = 0;
    /// `share`: see put_subscription().
    virtual void subscription(std::string_view client_id, std::string_view filter, const topics::Options& options, std::uint32_t share) = 0;
    /// A QoS 2 identifier between PUBLISH and PUBREL.
    virtual void incoming(std::string_view client_id, std::uint16_t packet_id) = 0;
    /// Sessions of that portion have the message; told to every worker.
    virtual void seen(std::string_view publisher, std::uint16_t packet_id, Portion portion) = 0;
    virtual void leaving(std::uint64_t number, LeavingRecord record) = 0;
    /// The store may be changed from the return of recover() on, not before.
    virtual void queue(std::string_view client_id, std::unique_ptr<SessionStore> store, std::uint16_t last_packet_id) = 0;
    /// Messages that were to go on to other members, see put_shares(). Told also where the client has no session any more.
    virtual void handed_on(std::string_view client_id, std::vector<Share> shares, std::unique_ptr<SessionStore> store) = 0;
    virtual void retained(const mqtt::MessageRef& message, std::uint64_t sequence) = 0;
    /// A key of the state store; told to worker 0 alone, which owns it.
    virtual void state(std::string key, statestore::Entry entry) = 0;
};

/// How far the mail between workers has come, so that an acknowledgement can wait for what it caused elsewhere: counts since
/// the start, by the other worker.
struct MailCounts {
    const std::vector<std::uint64_t>& sent;
    const std::vector<std::uint64_t>& processed;
    bool any_sent = false, any_processed = false;     ///< since the last commit
};

class Engine {
  public:
    virtual ~Engine() = default;

    /// False: nothing survives the process, and nothing ever waits.
    [[nodiscard]] virtual bool is_durable() const noexcept = 0;
    /// Opens a session's queue, empty. `kept`: it is written. Called on first use, not for every connection.
    virtual std::unique_ptr<SessionStore> open_session(std::string_view client_id, bool kept) = 0;
    /// Goes on with a session's queue of another engine of the same store, whose worker does not run any more.
    virtual void take_session(SessionStore& store) = 0;
    virtual void put_session(const SessionRecord& record) = 0;
    /// With its subscriptions, identifiers and, unless `spare_queue`, all that is queued under this client id.
    virtual void erase_session(std::string_view client_id, bool spare_queue = false) = 0;
    /// `share`: Queued::share of messages that come by it; 0: it is not a shared subscription.
    virtual void put_subscription(std::string_view client_id, std::string_view filter, const topics::Options& options, std::uint32_t share = 0) = 0;
    virtual void erase_subscription(std::string_view client_id, std::string_view filter) = 0;
    virtual void put_incoming(std::string_view client_id, std::uint16_t packet_id) = 0;
    virtual void erase_incoming(std::string_view client_id, std::uint16_t packet_id) = 0;
    /// Sessions of this portion have what a message that must not come twice caused there; kept until its publisher releases it.
    virtual void put_seen(std::string_view publisher, std::uint16_t packet_id, Portion portion) = 0;
    virtual void erase_seen(std::string_view publisher, std::uint16_t packet_id, Portion portion) = 0;
    /// A number that no other message of this store has.
    virtual std::uint64_t next_number() = 0;
    virtual void put_leaving(std::uint64_t number, const LeavingRecord& record) = 0;
    virtual void erase_leaving(std::uint64_t number) = 0;
    /// Messages queued under this client id by these shared subscriptions are not the session's any more: they go on to other members.
    virtual void put_shares(std::string_view client_id, const std::vector<Share>& shares) = 0;
    virtual void erase_shares(std::string_view client_id) = 0;
    virtual void put_state(const std::string& key, const statestore::Entry& entry) = 0;
    virtual void erase_state(const std::string& key) = 0;
    virtual void put_retained(const mqtt::MessageRef& message, std::uint64_t sequence) = 0;
    virtual void erase_retained(std::string_view topic) = 0;

    /// Ends the batch of this turn. The ticket of what must be durable before answers of the turn may leave; 0: nothing.
    virtual std::uint64_t commit(const MailCounts& mails) = 0;
    /// The ticket that the next commit will give.
    [[nodiscard]] virtual std::uint64_t next_ticket() const noexcept = 0;
    /// Tickets up to here are durable.
    [[nodiscard]] virtual std::uint64_t durable() const noexcept = 0;
    /// Why nothing more can be promised (a full or failing disk), or null.
    [[nodiscard]] virtual const char* fault() const noexcept = 0;
    /// Hands out everything kept for sessions that `mine` says live here, and all retained messages.
    virtual void recover(const std::function<bool(std::string_view client_id)>& mine, Recovered& into) = 0;
};

/// Everything in memory, nothing survives the process. `overflow`: for what has no place there; null: none.
std::unique_ptr<Engine> make_memory_engine(OverflowLane* overflow = nullptr);

}  // namespace penstock::store
