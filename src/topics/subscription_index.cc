#include "topics/subscription_index.h"

#include <algorithm>
#include <utility>

#include "base/keyed_hash.h"

namespace penstock::topics {
namespace {

constexpr std::size_t cache_slots = 8192;             // power of two
constexpr std::uint32_t plus_child = 1, hash_child = 2;

std::uint64_t mix(std::uint64_t h) noexcept {
    h ^= h >> 33;
    h *= 0xFF51AFD7ED558CCDu;
    h ^= h >> 33;
    return h;
}

}  // namespace

std::size_t BySession::hash(std::uint64_t session) noexcept { return mix(session); }
std::size_t SubscriptionIndex::BySubscriber::hash(const Subscriber* subscriber) noexcept {
    return mix(std::hash<const void*>{}(subscriber));
}
std::size_t SubscriptionIndex::ByName::hash(std::string_view name) noexcept {
    return keyed_hash(name);   // clients choose them
}

Member* Group::find(std::uint64_t session) noexcept {
    std::uint64_t looked_at = 0;
    const auto place = lookup.find(members, session, looked_at);
    return place != lookup.none ? &members[place] : nullptr;
}

Member* Group::pick_round_robin() noexcept {
    const auto count = members.size();
    if (count == 0) return nullptr;
    for (std::size_t i = 0; i < count; ++i) {
        auto& member = members[(cursor + i) % count];
        if (!member.is_connected) continue;
        cursor = (cursor + i + 1) % count;
        return &member;
    }
    auto& member = members[cursor % count];
    cursor = (cursor + 1) % count;
    return &member;
}

bool Group::is_better(std::size_t slot, const Member& a, const Member& b) noexcept {
    const auto weight = [slot](const Member& member) { return mix(mix(slot + 1) ^ mix(member.session)); };
    return a.is_connected != b.is_connected ? a.is_connected : weight(a) > weight(b);
}

Member* Group::best_of(std::size_t slot) noexcept {
    Member* best = nullptr;
    compared += members.size();
    for (auto& member : members)
        if (best == nullptr || is_better(slot, member, *best)) best = &member;
    return best;
}

Member* Group::pick_by_hash(std::string_view key) {
    const auto slot = TextHash{}(key) % slots;
    if (members.size() <= few) {
        picks = {};
        return best_of(slot);
    }
    if (picks.empty()) picks.assign(slots, nobody);
    auto& pick = picks[slot];
    if (pick != nobody)
        if (auto* member = find(pick); member != nullptr) return member;
    auto* best = best_of(slot);
    pick = best->session;
    return best;
}

void Group::changed(const Member& member) noexcept {
    for (std::size_t slot = 0; slot < picks.size(); ++slot) {
        auto& pick = picks[slot];
        if (pick == nobody) continue;
        const auto* known = pick != member.session ? find(pick) : nullptr;
        if (known == nullptr) pick = nobody;
        else if (is_better(slot, member, *known)) pick = member.session;
    }
}

void Group::left(std::uint64_t session) noexcept { std::ranges::replace(picks, session, nobody); }

SubscriptionIndex::SubscriptionIndex() : cache_(cache_slots) {}
SubscriptionIndex::~SubscriptionIndex() = default;

SubscriptionIndex::Node* SubscriptionIndex::make_node(std::string_view filter) {
    auto* node = table_.root();
    for (bool more = true; more;) {
        const auto level = take_level(filter, more);
        if (level == "+") node->wildcard_children |= plus_child;
        else if (level == "#") node->wildcard_children |= hash_child;
        node = table_.find_or_add(node, level);
    }
    return node;
}

SubscriptionIndex::Node* SubscriptionIndex::find_node(std::string_view filter) const noexcept {
    const auto* node = table_.root();
    Node* found = nullptr;
    for (bool more = true; more;) {
        found = table_.find(node, take_level(filter, more));
        if (found == nullptr) return nullptr;
        node = found;
    }
    return found;
}

void SubscriptionIndex::prune(Node* node) noexcept {
    while (node != table_.root() && node->first_child == nullptr && node->is_empty()) {
        auto* parent = node->parent;
        if (node->level() == "+") parent->wildcard_children &= ~plus_child;
        else if (node->level() == "#") parent->wildcard_children &= ~hash_child;
        table_.remove(node);
        node = parent;
    }
}

SubscriptionIndex::Added SubscriptionIndex::add(std::string_view filter, Subscriber* subscriber, const Options& options) {
    ++generation_;
    auto* node = make_node(filter);
    auto& entries = node->entries;
    if (const auto place = place_of(*node, subscriber); place != Lookup<BySubscriber>::none) {
        entries[place].options = options;
        return {.is_new = false, .first = false};
    }
    const bool first = entries.empty();
    if (first) entries.reserve(1);
    entries.push_back({subscriber, options});
    if (node->extra == nullptr && entries.size() > Lookup<BySubscriber>::few) node->extra = std::make_unique<Extra>();
    if (node->extra != nullptr) node->extra->by_subscriber.added(entries);
    ++plain_count_;
    return {.is_new = true, .first = first};
}

SubscriptionIndex::Removed SubscriptionIndex::remove(std::string_view filter, Subscriber* subscriber) {
    auto* node = find_node(filter);
    if (node == nullptr) return {};
    const auto place = place_of(*node, subscriber);
    if (place == Lookup<BySubscriber>::none) return {};
    ++generation_;
    if (node->extra != nullptr) {
        node->extra->by_subscriber.erase(node->entries, place);
    } else {
        node->entries[place] = node->entries.back();
        node->entries.pop_back();
    }
    --plain_count_;
    const bool last = node->entries.empty();
    tidy(node);
    return {.existed = true, .last = last};
}

void SubscriptionIndex::set_remote(std::string_view filter, std::uint32_t worker, bool present) {
    ++generation_;
    if (present) {
        make_node(filter)->remote |= std::uint64_t{1} << worker;
    } else if (auto* node = find_node(filter)) {
        node->remote &= ~(std::uint64_t{1} << worker);
        prune(node);
    }
}

std::size_t SubscriptionIndex::place_of(const Node& node, const Subscriber* subscriber) noexcept {
    if (node.extra == nullptr) return Lookup<BySubscriber>::find_in_short(node.entries, subscriber, looked_at_);
    return node.extra->by_subscriber.find(node.entries, subscriber, looked_at_);
}

void SubscriptionIndex::tidy(Node* node) noexcept {
    const auto* extra = node->extra.get();
    if (extra != nullptr && extra->groups.empty() && !extra->by_subscriber.has_table()) node->extra.reset();
    prune(node);
}

Group* SubscriptionIndex::find_group(std::string_view filter, std::string_view group) noexcept {
    return find_group(find_node(filter), group);
}

Group* SubscriptionIndex::find_group(Node* node, std::string_view group) noexcept {
    if (node == nullptr || node->extra == nullptr) return nullptr;
    const auto place = node->extra->by_name.find(node->extra->groups, group, looked_at_);
    return place != Lookup<ByName>::none ? node->extra->groups[place].get() : nullptr;
}

bool SubscriptionIndex::add_member(std::string_view filter, std::string_view group, const Member& member) {
    ++generation_;
    auto* node = make_node(filter);
    if (node->extra == nullptr) node->extra = std::make_unique<Extra>();
    auto* found = find_group(node, group);
    if (found == nullptr) {
        auto fresh = std::make_unique<Group>();
        fresh->name = group;
        fresh->filter = filter;
        fresh->filter_has_wildcard = has_wildcard(filter);
        fresh->names.set(sizeof(Group) + group.size() + filter.size());
        found = node->extra->groups.emplace_back(std::move(fresh)).get();
        node->extra->by_name.added(node->extra->groups);
    }
    if (const auto place = found->lookup.find(found->members, member.session, looked_at_); place != found->lookup.none) {
        found->members[place] = member;
        found->changed(member);
        return false;
    }
    found->members.push_back(member);
    found->lookup.added(found->members);
    found->changed(member);
    ++shared_count_;
    return true;
}

bool SubscriptionIndex::remove_member(std::string_view filter, std::string_view group, std::uint64_t session) {
    auto* node = find_node(filter);
    auto* found = find_group(node, group);
    if (found == nullptr) return false;
    const auto place = found->lookup.find(found->members, session, looked_at_);
    if (place == found->lookup.none) return false;
    ++generation_;
    --shared_count_;
    found->lookup.erase(found->members, place);
    found->left(session);
    if (found->members.empty()) {
        auto& groups = node->extra->groups;
        node->extra->by_name.erase(groups, node->extra->by_name.find(groups, group, looked_at_));
        tidy(node);
    }
    return true;
}

void SubscriptionIndex::set_member_connected(std::string_view filter, std::string_view group, std::uint64_t session, bool connected) {
    auto* found = find_group(filter, group);
    if (found == nullptr) return;
    const auto place = found->lookup.find(found->members, session, looked_at_);
    if (place == found->lookup.none || found->members[place].is_connected == connected) return;
    found->members[place].is_connected = connected;
    found->changed(found->members[place]);
}

void SubscriptionIndex::take(const Node* node, Match& out) {
    out.remote_workers |= node->remote;
    for (const auto& entry : node->entries) {
        Target target{.subscriber = entry.subscriber,
                      .ids_begin = static_cast<std::uint32_t>(out.ids.size()),
                      .ids_count = 0,
                      .qos = entry.options.qos,
                      .no_local = entry.options.no_local,
                      .retain_as_published = entry.options.retain_as_published};
        if (entry.options.id != 0) {
            out.ids.push_back(entry.options.id);
            target.ids_count = 1;
        }
        out.targets.push_back(target);
    }
    if (node->extra != nullptr)
        for (const auto& group : node->extra->groups) out.groups.push_back(group.get());
}

void SubscriptionIndex::collect(const Node* node, std::string_view rest, bool more, bool skip_wildcards, Match& out) const {
    if (!skip_wildcards && (node->wildcard_children & hash_child) != 0) take(table_.find(node, "#"), out);
    if (!more) {
        take(node, out);
        return;
    }
    const auto level = take_level(rest, more);
    if (const auto* child = table_.find(node, level)) collect(child, rest, more, false, out);
    if (!skip_wildcards && (node->wildcard_children & plus_child) != 0) collect(table_.find(node, "+"), rest, more, false, out);
}

void SubscriptionIndex::merge(Match& out) {
    std::ranges::sort(out.targets, [](const Target& a, const Target& b) {
        if (a.subscriber != b.subscriber) return std::less<>{}(a.subscriber, b.subscriber);
        return a.no_local != b.no_local ? a.no_local < b.no_local : a.ids_begin < b.ids_begin;   // identifiers keep their order
    });
    std::vector<std::uint32_t> ids;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < out.targets.size(); ++i) {
        const auto& t = out.targets[i];
        // No Local subscriptions stay apart: the publisher itself must still get the message through the other one.
        const bool joins = kept > 0 && out.targets[kept - 1].subscriber == t.subscriber && out.targets[kept - 1].no_local == t.no_local;
        const auto begin = static_cast<std::uint32_t>(ids.size());
        ids.insert(ids.end(), out.ids.begin() + t.ids_begin, out.ids.begin() + t.ids_begin + t.ids_count);
        if (joins) {
            auto& into = out.targets[kept - 1];
            into.qos = std::max(into.qos, t.qos);
            into.retain_as_published |= t.retain_as_published;
            into.ids_count = static_cast<std::uint16_t>(into.ids_count + t.ids_count);
        } else {
            auto copy = t;
            copy.ids_begin = begin;
            out.targets[kept++] = copy;
        }
    }
    out.targets.resize(kept);
    out.ids = std::move(ids);
}

void SubscriptionIndex::shrink_cache(const CacheSlot* but) noexcept {
    // To three quarters, so that not every match that follows comes here.
    for (std::size_t i = 0; i < cache_slots && cache_bytes_ > cache_max_ / 4 * 3; ++i) {
        auto& slot = cache_[next_to_drop_++ & (cache_slots - 1)];
        if (slot == nullptr || slot.get() == but) continue;
        cache_bytes_ -= slot->bytes;
        slot.reset();
    }
}

const Match& SubscriptionIndex::fill(CacheSlot& slot, std::string_view topic, bool hidden) {
    slot.topic = topic;
    slot.generation = generation_;
    slot.hidden = hidden;
    auto& out = slot.match;
    out.clear();
    const bool skip_wildcards = hidden || (!topic.empty() && topic[0] == '$');
    collect(table_.root(), topic, true, skip_wildcards, out);
    if (out.targets.size() > 1) merge(out);
    return out;
}

const Match& SubscriptionIndex::match(std::string_view topic, bool hidden) {
    auto holds = [&](const CacheSlot& slot) { return slot.generation == generation_ && slot.hidden == hidden && slot.topic == topic; };
    if (topic.size() > cached_topic_max) return holds(uncached_) ? uncached_.match : fill(uncached_ = {}, topic, hidden);
    auto& slot = cache_[quick_hash(topic, 0, key_) & (cache_slots - 1)];
    if (slot == nullptr) slot = std::make_unique<CacheSlot>();
    if (holds(*slot)) return slot->match;
    if (holds(uncached_)) return uncached_.match;

    const auto& out = fill(*slot, topic, hidden);
    const auto bytes = sizeof(CacheSlot) + slot->topic.capacity() + out.targets.capacity() * sizeof(Target) + out.ids.capacity() * sizeof(std::uint32_t) + out.groups.capacity() * sizeof(Group*);
    cache_bytes_ += bytes - std::exchange(slot->bytes, bytes);
    if (bytes > cache_max_ / 4) {
        // One topic with very many receivers does not take the place of all others.
        cache_bytes_ -= bytes;
        uncached_ = std::move(*slot);
        slot.reset();
        return uncached_.match;
    }
    if (cache_bytes_ > cache_max_) shrink_cache(slot.get());
    return out;
}

}  // namespace penstock::topics
