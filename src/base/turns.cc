#include "base/turns.h"

namespace penstock {

bool Turns::takes(std::string_view who, std::size_t bytes, const Room& room) const {
    if (bytes > room.bytes || room.count == 0) return false;
    const auto known = by_name_.find(who);
    const auto own = (known == by_name_.end() ? 0 : known->second.bytes) + bytes;
    // Summed up before anybody goes: nobody goes for one who finds no room even so.
    const auto wanted_count = owners_.size() >= room.count ? owners_.size() - room.count + 1 : 0;
    const auto wanted_bytes = bytes_ + bytes > room.bytes ? bytes_ + bytes - room.bytes : 0;
    std::size_t count = 0, gained = 0;
    for (auto most = by_bytes_.rbegin(); (count < wanted_count || gained < wanted_bytes) && most != by_bytes_.rend() && most->first > own; ++most) {
        const auto& items = by_name_.find(most->second)->second.items;
        auto held = most->first;
        for (auto newest = items.rbegin(); (count < wanted_count || gained < wanted_bytes) && newest != items.rend() && held > own; ++newest) {
            ++count;
            held -= newest->second;
            gained += newest->second;
        }
    }
    return count >= wanted_count && gained >= wanted_bytes;
}

std::vector<std::uint64_t> Turns::add(std::string_view who, std::uint64_t item, std::size_t bytes, const Room& room) {
    if (!takes(who, bytes, room)) return {item};
    std::vector<std::uint64_t> gone;
    while (owners_.size() >= room.count || bytes_ + bytes > room.bytes) {
        const auto newest = by_name_.find(by_bytes_.rbegin()->second)->second.items.rbegin()->first;
        remove(newest);
        gone.push_back(newest);
    }
    put(who, item, bytes);
    return gone;
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
