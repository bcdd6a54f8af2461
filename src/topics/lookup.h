#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/counted.h"

namespace penstock::topics {

/// Finds elements of a list by their keys, each key once. A short list is gone over; beside a long one stands an
/// open-addressing table of places, so that a change of one element costs the same among thirty thousand as among a few.
/// The list itself stays as it is, for who goes through all of it. The table takes 5 to 16 bytes an element (up to 32 while
/// a list shrinks), counted in the message pool; a short list has none.
///
/// `By::key(element)` is the key, `By::hash(key)` spreads its low bits. Core: home, with its list; every change goes through it.
template <class By>
class Lookup {
  public:
    static constexpr std::size_t few = 32;                 ///< a longer list has a table
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    /// The element's place, or `none`. `looked_at` grows by the elements that were compared.
    template <class List, class Key>
    [[nodiscard]] std::size_t find(const List& list, const Key& key, std::uint64_t& looked_at) const noexcept {
        if (table_ != nullptr) {
            for (auto i = By::hash(key) & mask(); table_->slots[i] != 0; i = (i + 1) & mask()) {
                ++looked_at;
                if (By::key(list[table_->slots[i] - 1]) == key) return table_->slots[i] - 1;
            }
            return none;
        }
        return find_in_short(list, key, looked_at);
    }
    /// The same where no Lookup is kept because the list was never long.
    template <class List, class Key>
    [[nodiscard]] static std::size_t find_in_short(const List& list, const Key& key, std::uint64_t& looked_at) noexcept {
        for (std::size_t place = 0; place < list.size(); ++place) {
            ++looked_at;
            if (By::key(list[place]) == key) return place;
        }
        return none;
    }
    /// After an element was put at the end of the list.
    template <class List>
    void added(const List& list) {
        if (table_ == nullptr && list.size() <= few) return;
        if (table_ == nullptr || list.size() * 4 > table_->slots.size() * 3) return build(list);
        put(list, list.size() - 1);
    }
    /// Takes the element out of the list; the last one takes its place.
    template <class List>
    void erase(List& list, std::size_t place) {
        const auto last = list.size() - 1;
        if (table_ != nullptr) {
            take(list, place);
            if (place != last) table_->slots[slot_of(list, last)] = static_cast<std::uint32_t>(place + 1);
        }
        if (place != last) list[place] = std::move(list.back());
        list.pop_back();
        if (table_ == nullptr) return;
        if (list.size() <= few / 2) table_.reset();
        else if (list.size() * 8 < table_->slots.size()) build(list);
    }
    [[nodiscard]] bool has_table() const noexcept { return table_ != nullptr; }

  private:
    struct Table {
        CountedVector<std::uint32_t> slots;                ///< power of two; place + 1, 0: free
    };
    [[nodiscard]] std::size_t mask() const noexcept { return table_->slots.size() - 1; }
    template <class List>
    [[nodiscard]] std::size_t home(const List& list, std::size_t place) const noexcept {
        return By::hash(By::key(list[place])) & mask();
    }
    template <class List>
    [[nodiscard]] std::size_t slot_of(const List& list, std::size_t place) const noexcept {
        auto i = home(list, place);
        while (table_->slots[i] != place + 1) i = (i + 1) & mask();
        return i;
    }
    template <class List>
    void put(const List& list, std::size_t place) noexcept {
        auto i = home(list, place);
        while (table_->slots[i] != 0) i = (i + 1) & mask();
        table_->slots[i] = static_cast<std::uint32_t>(place + 1);
    }
    template <class List>
    void take(const List& list, std::size_t place) noexcept {
        auto& slots = table_->slots;
        auto free = slot_of(list, place);
        // What stands behind it closes the gap, unless it would come before where its search begins.
        for (auto i = (free + 1) & mask(); slots[i] != 0; i = (i + 1) & mask()) {
            if (((i - home(list, slots[i] - 1)) & mask()) < ((i - free) & mask())) continue;
            slots[free] = slots[i];
            free = i;
        }
        slots[free] = 0;
    }
    template <class List>
    void build(const List& list) {
        std::size_t size = few * 2;
        while (size < list.size() * 2) size *= 2;
        table_ = std::make_unique<Table>();
        table_->slots.assign(size, 0);
        for (std::size_t place = 0; place < list.size(); ++place) put(list, place);
    }
    std::unique_ptr<Table> table_;
};

}  // namespace penstock::topics
