#pragma once
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace penstock {

/// Who waits for something that is short, and whose turn it is: those it is for (addresses) take turns, and within one the oldest
/// comes first. When there is no room, who holds most gives way to who holds less, so that nobody keeps the others out by asking
/// often. Holds numbers, whose meaning is the owner's. Core: any, one at a time; no locks.
class Turns {
  public:
    /// Of all that waits; bytes as add() is told.
    struct Room {
        std::size_t count = 0, bytes = 0;
    };
    /// Takes `item` in, a number larger than all before. What gives way for it is out and is returned, newest first, of those who
    /// hold most bytes; `item` itself, alone, when nobody holds more than `who` would.
    [[nodiscard]] std::vector<std::uint64_t> add(std::string_view who, std::uint64_t item, std::size_t bytes, const Room& room);
    /// Whether add() would take it in. Looks at no more than what would give way, and changes nothing.
    [[nodiscard]] bool takes(std::string_view who, std::size_t bytes, const Room& room) const;
    /// Takes out the oldest of who comes next, who is the last then.
    std::optional<std::uint64_t> next();
    /// Nothing happens when it is not there.
    void remove(std::uint64_t item);
    void clear();
    /// Those of one, oldest first.
    [[nodiscard]] std::vector<std::uint64_t> of(std::string_view who) const;
    [[nodiscard]] std::size_t size() const noexcept { return owners_.size(); }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

  private:
    struct Owner {
        std::map<std::uint64_t, std::size_t> items;          ///< and their bytes
        std::size_t bytes = 0;
        std::list<std::string_view>::iterator place{};       ///< in ring_
    };
    using Owners = std::map<std::string, Owner, std::less<>>;
    void put(std::string_view who, std::uint64_t item, std::size_t bytes);

    Owners by_name_;
    std::unordered_map<std::uint64_t, Owners::iterator> owners_;           ///< by item
    std::list<std::string_view> ring_;                       ///< the first comes next; names of by_name_
    std::set<std::pair<std::size_t, std::string_view>> by_bytes_;          ///< names of by_name_
    std::size_t bytes_ = 0;
};

}  // namespace penstock
