#pragma once
#include <cstddef>
#include <cstdint>

namespace penstock {

/// What the process has of the system's memory, in bytes.
struct Heap {
    std::size_t in_use = 0;              ///< allocated
    std::size_t resident = 0;            ///< held, without files that are mapped
};
/// Bytes that the process holds, without files that are mapped; 0 where nobody tells.
std::size_t resident_now();
/// Looks at every arena of the allocator, each under its lock: not for the data path. Zeros where nobody tells.
Heap heap_now();

/// Gives the system back what an overload left in the allocator. The allocator itself gives back only what is free at the end of an
/// arena, and after an overload something that stays is almost always behind what went.
///
/// Core: control. Giving back takes each arena's lock in turn (some 25 ms per 100 MiB given back, measured), which is why it is done
/// only when it is worth it, and not while memory is still coming and going.
class HeapKeeper {
  public:
    static constexpr std::size_t worth = 24u << 20;               ///< bytes held and not in use, from which on
    static constexpr std::size_t small = 48u << 20;               ///< a process that holds less is not looked at
    static constexpr std::int64_t look_ms = 60'000, soon_ms = 10'000;   ///< between two looks; sooner when much was let go
    /// Every second or so. `used`: bytes of the message pool, which tell when much was let go. True: it gave back.
    bool look(std::int64_t now_ms, std::int64_t used);
    /// The decision alone.
    bool is_due(const Heap& heap) noexcept;

  private:
    std::int64_t next_look_ = 0, soon_ = 0;
    std::int64_t peak_ = 0;              ///< of the pool, since the last look
    std::size_t last_in_use_ = 0;
};

}  // namespace penstock
