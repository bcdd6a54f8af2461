#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "mqtt/message.h"

/// The seam between the broker's core and whatever keeps its state (design.md section 3).
///
/// Contract: every call is made by the worker that owns the engine instance. Writes are batched: they promise nothing
/// until commit() has completed, and the worker sends no acknowledgement of the turn before that. The core reads back
/// only through this interface, so that it never knows which engine it runs on.
namespace penstock::store {

/// A message waiting for, or in flight to, one session.
struct Queued {
    mqtt::MessageRef message;
    mqtt::Qos qos{};
    bool retain = false;                              ///< the RETAIN flag to send, after Retain As Published
    std::vector<std::uint32_t> subscription_ids;
};

/// Steps of an outgoing QoS 1 or 2 delivery, MQTT 5.0 §4.3.
enum class Step : std::uint8_t { wait_puback, wait_pubrec, wait_pubcomp, done };

struct InFlight {
    Queued item;                                      ///< its message is dropped once PUBREC arrived
    std::uint16_t packet_id = 0;
    Step step{};
};

/// What one session still has to be sent: a queue, and behind its head the window of deliveries in flight.
class SessionStore {
  public:
    virtual ~SessionStore() = default;

    virtual void enqueue(Queued item) = 0;
    /// The head of the queue, or null. Valid until the next change.
    virtual Queued* next() = 0;
    /// Drops the head: sent at QoS 0, expired, or pushed out by a limit.
    virtual void drop_next() = 0;
    /// Moves the head into the window. `packet_id` continues the sequence (1..65535, then 1 again).
    virtual InFlight& start_next(std::uint16_t packet_id) = 0;
    /// Puts a message straight into the window; the queue must be empty.
    virtual InFlight& start(Queued item, std::uint16_t packet_id) = 0;
    virtual InFlight* find(std::uint16_t packet_id) = 0;
    /// Ends a delivery; its packet identifier is free again once all older ones ended too.
    virtual void finish(std::uint16_t packet_id) = 0;
    /// Calls `visit` for each delivery in flight, in the order in which they began [MQTT-4.6.0-1].
    virtual void for_each_in_flight(const std::function<void(InFlight&)>& visit) = 0;
    /// Removes queued messages that expired at or before `now` (monotonic ms); returns how many.
    virtual std::size_t drop_expired(std::int64_t now) = 0;
    /// Removes queued QoS 0 messages; a session that goes offline does not keep them.
    virtual void drop_qos0() = 0;

    [[nodiscard]] virtual std::size_t queued() const = 0;
    [[nodiscard]] virtual std::size_t queued_qos0() const = 0;
    /// Deliveries not yet done.
    [[nodiscard]] virtual std::size_t in_flight() const = 0;
    /// Packet identifiers that cannot be used now: the window with the finished ones behind its oldest entry.
    [[nodiscard]] virtual std::size_t span() const = 0;
    [[nodiscard]] virtual bool may_expire() const = 0;
};

class Engine {
  public:
    virtual ~Engine() = default;

    /// Opens what is kept for a session, empty when it is new. Called on first use, not for every connection.
    virtual std::unique_ptr<SessionStore> open_session(std::string_view client_id) = 0;
    virtual void erase_session(std::string_view client_id) = 0;
    virtual void put_subscription(std::string_view client_id, std::string_view filter, std::uint8_t options, std::uint32_t id) = 0;
    virtual void erase_subscription(std::string_view client_id, std::string_view filter) = 0;
    virtual void put_retained(const mqtt::MessageRef& message) = 0;
    virtual void erase_retained(std::string_view topic) = 0;
    /// Group commit of all writes so far. `done` runs when they are durable; an engine without durability runs it at once.
    virtual void commit(const std::function<void()>& done) = 0;
};

/// Everything in memory, nothing survives the process.
std::unique_ptr<Engine> make_memory_engine();

}  // namespace penstock::store
