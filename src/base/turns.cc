#include "base/turns.h"

namespace penstock {

std::vector<std::uint64_t> Turns::add(std::string_view who, std::uint64_t item, std::size_t bytes, const Room& room) {
    struct Gone {
        std::string who;
        std::uint64_t item = 0;
        std::size_t bytes = 0;
    };
    const auto known = by_name_.find(who);
    const auto own = (known == by_name_.end() ? 0 : known->second.bytes) + bytes;
    auto is_full = [&] { return owners_.size() >= room.count || bytes_ + bytes > room.bytes; };
    std::vector<Gone> gone;
    while (is_full() && !by_bytes_.empty() && by_bytes_.rbegin()->first > own) {
        const auto most = by_name_.find(by_bytes_.rbegin()->second);
        const auto [newest, size] = *most->second.items.rbegin();
        gone.push_back({.who = most->first, .item = newest, .bytes = size});
        remove(newest);
    }
    if (is_full()) {
        // Nobody goes for one who finds no room even so.
        for (auto back = gone.rbegin(); back != gone.rend(); ++back) put(back->who, back->item, back->bytes);
        return {item};
    }
    put(who, item, bytes);
    std::vector<std::uint64_t> out;
    for (const auto& one : gone) out.push_back(one.item);
    return out;
}

void Turns::put(std::string_view who, std::uint64_t item, std::size_t bytes) {
    auto owner = by_name_.find(who);
    if (owner == by_name_.end()) {
        owner = by_name_.emplace(std::string(who), Owner{}).first;
        owner->second.place = ring_.insert(ring_.end(), owner->first);
    } else {
        by_bytes_.erase({owner->second.bytes, owner->first});
    }
    owner->second.items.emplace(item, bytes);
    owner->second.bytes += bytes;
    by_bytes_.emplace(owner->second.bytes, owner->first);
    owners_.emplace(item, owner);
    bytes_ += bytes;
}

std::optional<std::uint64_t> Turns::next() {
    if (ring_.empty()) return std::nullopt;
    const auto& owner = by_name_.find(ring_.front())->second;
    const auto oldest = owner.items.begin()->first;
    ring_.splice(ring_.end(), ring_, owner.place);
    remove(oldest);
    return oldest;
}

void Turns::remove(std::uint64_t item) {
    const auto found = owners_.find(item);
    if (found == owners_.end()) return;
    const auto owner = found->second;
    owners_.erase(found);
    const auto held = owner->second.items.find(item);
    by_bytes_.erase({owner->second.bytes, owner->first});
    owner->second.bytes -= held->second;
    bytes_ -= held->second;
    owner->second.items.erase(held);
    if (!owner->second.items.empty()) {
        by_bytes_.emplace(owner->second.bytes, owner->first);
        return;
    }
    ring_.erase(owner->second.place);
    by_name_.erase(owner);
}

void Turns::clear() {
    ring_.clear();
    by_bytes_.clear();
    owners_.clear();
    by_name_.clear();
    bytes_ = 0;
}

std::vector<std::uint64_t> Turns::of(std::string_view who) const {
    std::vector<std::uint64_t> out;
    const auto found = by_name_.find(who);
    if (found == by_name_.end()) return out;
    for (const auto& [item, bytes] : found->second.items) out.push_back(item);
    return out;
}

}  // namespace penstock
