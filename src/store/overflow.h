#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mqtt/message.h"
#include "store/engine.h"

namespace penstock::store {

/// One worker's side of the overflow. Every call is made by that worker.
class OverflowLane {
  public:
    virtual ~OverflowLane() = default;
    /// Whether put() may be called: it is switched on, there is room, and the disk keeps up.
    [[nodiscard]] virtual bool has_room() const noexcept = 0;
    /// Switched on, and no room.
    [[nodiscard]] virtual bool is_full() const noexcept = 0;
    /// Switched on, and there is so little memory left that what waits should go to the disk.
    [[nodiscard]] virtual bool is_wanted() const = 0;
    /// Takes a message; several calls in a row for the same one share its bytes.
    virtual Place put(const mqtt::MessageRef& message) = 0;
    /// A queue does not need it any more.
    virtual void drop(Place place) noexcept = 0;
    /// The latest time a message may stay, monotonic ms; 0: for ever.
    [[nodiscard]] virtual std::int64_t latest_end(std::int64_t now) const noexcept = 0;
    /// Reads messages in the background; settle() hands them to `done`, in order, unless `alive` has ended. A message that
    /// could not be read is null; why is in the log.
    virtual void read(const std::vector<Place>& places, std::weak_ptr<void> alive, std::function<void(std::vector<mqtt::MessageRef>)> done) = 0;
    /// Hands out what was read. Once a turn.
    virtual void settle() = 0;
    /// Waits until the disk has taken most of what it was given; for the time of recovery.
    virtual void wait_for_disk() = 0;
    /// Told whose queue has messages in memory again.
    std::function<void(const std::string& client_id)> on_ready;
};

/// Where messages go that wait in queues and have no place in memory (diskBackedMessageBuffer): files of a folder, sealed with
/// keys that end with the process. Overflow, not durability: a start begins with an empty folder.
///
/// One thread reads and writes for all workers, so that none of them waits for the disk.
class Overflow {
  public:
    /// `memory_is_short`: any thread. `wake(worker)`: by the disk's thread, when settle() has something to do. `cell` counts
    /// messages that were read; for the disk's thread alone.
    static std::unique_ptr<Overflow> make(std::string folder, std::uint32_t workers, std::function<bool()> memory_is_short, std::function<void(std::uint32_t)> wake, mqtt::MessageBytes& cell);
    virtual ~Overflow() = default;
    virtual OverflowLane& lane(std::uint32_t worker) = 0;
    /// Nothing is on the disk or on its way from there. Any thread.
    [[nodiscard]] virtual bool is_idle() const noexcept = 0;
    /// Ends the thread. Afterwards nothing is written or read any more.
    virtual void stop() = 0;

    struct Limits {
        std::int64_t size_max = 0;       ///< bytes on disk; 0: nothing new is taken
        std::int64_t age_max_ms = 0;     ///< 0: no bound
        std::int64_t free_min = 64 << 20;///< bytes that must stay free on the disk
    };
    /// Any thread.
    virtual void set_limits(const Limits& limits) = 0;
    struct Figures {
        std::int64_t disk_bytes = 0;
        std::uint64_t written = 0, read = 0, failed = 0;   ///< transfers
        std::string fault;               ///< why nothing is taken, though it should
    };
    [[nodiscard]] virtual Figures figures() const = 0;
};

}  // namespace penstock::store
