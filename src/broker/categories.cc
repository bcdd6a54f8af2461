#include "broker/categories.h"

#include <algorithm>

#include "base/keyed_hash.h"

namespace penstock::broker {

void CategoryCounters::add(const CategoryCounters& other) noexcept {
    for (const auto field : {&CategoryCounters::publishes_received, &CategoryCounters::payload_bytes_received, &CategoryCounters::authentication_successes, &CategoryCounters::authentication_deny,
                             &CategoryCounters::authentication_failures, &CategoryCounters::authorization_allow, &CategoryCounters::authorization_deny, &CategoryCounters::qos0_dropped_incoming})
        this->*field += other.*field;
    using Delivery = session::DeliveryCounts;
    for (const auto field : {&Delivery::sent, &Delivery::sent_bytes, &Delivery::queued, &Delivery::dropped_qos0, &Delivery::dropped_queue_full, &Delivery::dropped_too_large, &Delivery::expired})
        delivery.*field += other.delivery.*field;
}

// --- claims ---

namespace {
constexpr std::uint64_t workers_mask = 0xFFFF;
}

std::uint64_t CategoryClaims::key_of(std::string_view name) noexcept {
    const auto key = keyed_hash(name) & ~workers_mask;
    return key != 0 ? key : workers_mask + 1;
}

bool CategoryClaims::claim(std::string_view name) noexcept {
    const auto key = key_of(name);
    for (auto& slot : slots_)
        for (auto value = slot.load(); (value & ~workers_mask) == key;)
            if (slot.compare_exchange_weak(value, value + 1)) return true;
    // Two workers that come at once take two slots for one name: there are fewer of them then, never more.
    for (auto& slot : slots_) {
        std::uint64_t empty = 0;
        if (slot.compare_exchange_strong(empty, key + 1)) return true;
    }
    return false;
}

void CategoryClaims::release(std::string_view name) noexcept {
    const auto key = key_of(name);
    for (auto& slot : slots_)
        for (auto value = slot.load(); (value & ~workers_mask) == key;)
            if (slot.compare_exchange_weak(value, (value & workers_mask) == 1 ? 0 : value - 1)) return;
}

// --- of one worker ---

Categories::Categories(CategoryClaims& claims) : claims_(claims), counters_(1), uses_(1) { counters_[0].name = none; }

Categories::~Categories() {
    for (const auto& [name, index] : index_) claims_.release(name);
}

std::uint16_t Categories::find_or_make(std::string_view name, std::uint32_t second) {
    if (name.empty() || name.size() > name_max || name == none) return 0;
    std::string key(name);
    if (const auto found = index_.find(key); found != index_.end()) return found->second;
    if (!claims_.claim(name) && (!make_room() || !claims_.claim(name))) return 0;
    if (free_.empty()) {
        free_.push_back(static_cast<std::uint16_t>(counters_.size()));
        counters_.emplace_back();
        uses_.emplace_back();
    }
    const auto index = free_.back();
    free_.pop_back();
    counters_[index] = {.name = key};
    uses_[index] = {.clients = 0, .idle_since = second};
    index_.emplace(std::move(key), index);
    return index;
}

std::uint16_t Categories::take(std::string_view name, std::uint32_t second) {
    const auto index = find_or_make(name, second);
    if (index != 0) ++uses_[index].clients;
    return index;
}

void Categories::drop(std::uint16_t index, std::uint32_t second) noexcept {
    if (index != 0 && --uses_[index].clients == 0) uses_[index].idle_since = second;
}

void Categories::forget(std::uint16_t index) {
    auto& gone = counters_[index];
    aged_.add(gone);
    claims_.release(gone.name);
    index_.erase(gone.name);
    gone = {};
    free_.push_back(index);
}

bool Categories::make_room() {
    std::uint16_t oldest = 0;
    for (const auto& [name, index] : index_)
        if (uses_[index].clients == 0 && (oldest == 0 || uses_[index].idle_since < uses_[oldest].idle_since)) oldest = index;
    if (oldest == 0) return false;
    forget(oldest);
    return true;
}

void Categories::age(std::uint32_t second) {
    std::vector<std::uint16_t> old;
    for (const auto& [name, index] : index_)
        if (uses_[index].clients == 0 && second - uses_[index].idle_since >= idle_seconds) old.push_back(index);
    for (const auto index : old) forget(index);
}

void Categories::inherit(const std::vector<CategoryCounters>& list, const CategoryCounters& aged, std::uint32_t second) {
    aged_.add(aged);
    for (const auto& from : list) {
        const auto index = find_or_make(from.name, second);
        (index != 0 || from.name == none ? counters_[index] : aged_).add(from);
    }
}

std::vector<CategoryCounters> Categories::list() const {
    std::vector<CategoryCounters> out;
    for (const auto& one : counters_)
        if (!one.name.empty()) out.push_back(one);
    return out;
}

}  // namespace penstock::broker
