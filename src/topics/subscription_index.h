#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "topics/level_table.h"
#include "topics/lookup.h"
#include "topics/topic.h"

namespace penstock::topics {

/// Base of whatever receives messages on this worker; the index only keeps pointers to it.
class Subscriber {};

/// Subscription options, MQTT 5.0 §3.8.3.1.
struct Options {
    std::uint8_t qos = 0;
    bool no_local = false;
    bool retain_as_published = false;
    std::uint32_t id = 0;                ///< subscription identifier; 0: none

    bool operator==(const Options&) const = default;
};

/// A member of a shared group. Members of every worker are known to every worker, so that any publisher's worker picks.
struct Member {
    std::uint64_t session = 0;           ///< unique in the process
    std::uint32_t worker = 0;
    std::uint32_t share = 0;             ///< on the member's own worker: number of this subscription within its session
    Subscriber* local = nullptr;         ///< set on the member's own worker
    Options options;
    bool is_connected = false;
};

/// Members by session, for Lookup.
struct BySession {
    static std::uint64_t key(const Member& member) noexcept { return member.session; }
    static std::size_t hash(std::uint64_t session) noexcept;
};

struct Group {
    std::string name;
    std::string filter;
    bool filter_has_wildcard = false;
    CountedVector<Member> members;
    std::size_t cursor = 0;              ///< round robin
    Counted names;                       ///< name, filter and the group itself
    Lookup<BySession> lookup;            ///< of members

    /// The session's member, or null.
    [[nodiscard]] Member* find(std::uint64_t session) noexcept;
    /// Next member in turn, connected ones first; null when empty.
    Member* pick_round_robin() noexcept;
    /// Rendezvous hash: the same key goes to the same member while it stays, and only its keys move when it leaves. Keys fall into
    /// 4096 slots, and large groups remember who has a slot: its members are looked through once after it lost its own.
    Member* pick_by_hash(std::string_view key);
    /// A member came, or is connected now, or not any more.
    void changed(const Member& member) noexcept;
    void left(std::uint64_t session) noexcept;

    static constexpr std::size_t slots = 4096, few = 32;
    static constexpr std::uint64_t nobody = ~std::uint64_t{0};
    static bool is_better(std::size_t slot, const Member& a, const Member& b) noexcept;
    Member* best_of(std::size_t slot) noexcept;
    std::uint64_t compared = 0;          ///< members, to pick one by hash, since the start

  private:
    CountedVector<std::uint64_t> picks;  ///< sessions, by slot; empty: none is remembered
};

/// One local receiver of a message after merging its overlapping subscriptions: highest QoS, all identifiers
/// ([MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]).
struct Target {
    Subscriber* subscriber = nullptr;
    std::uint32_t ids_begin = 0;         ///< into Match::ids
    std::uint16_t ids_count = 0;
    std::uint8_t qos = 0;
    bool no_local = false;
    bool retain_as_published = false;
};

struct Match {
    std::vector<Target> targets;
    std::vector<std::uint32_t> ids;
    std::vector<Group*> groups;
    std::uint64_t remote_workers = 0;    ///< bit per worker that has at least one matching plain subscription

    void clear() noexcept {
        targets.clear();
        ids.clear();
        groups.clear();
        remote_workers = 0;
    }
};

/// The subscriptions of one worker, plus one bit per filter and other worker that has subscribers, plus all shared groups.
///
/// Spec:   MQTT 5.0 §4.7, §4.8.2.
/// Core:   home; every worker has its own, kept equal by messages. Matching takes no lock.
/// Cost:   match is one table lookup per level and branch; a topic seen since the last change costs one lookup in all.
/// Memory: subscriptions count in the message pool. The cache of matches does not: it is bounded in bytes by set_cache_max().
class SubscriptionIndex {
  public:
    SubscriptionIndex();
    ~SubscriptionIndex();

    /// Adds or replaces. `first` tells that this worker had no plain subscriber of the filter before.
    struct Added {
        bool is_new = true;              ///< false: replaced [MQTT-3.8.4-3]
        bool first = false;
    };
    Added add(std::string_view filter, Subscriber* subscriber, const Options& options);
    struct Removed {
        bool existed = false;
        bool last = false;               ///< this worker has no plain subscriber of the filter any more
    };
    Removed remove(std::string_view filter, Subscriber* subscriber);

    /// Another worker gained its first or lost its last plain subscriber of the filter.
    void set_remote(std::string_view filter, std::uint32_t worker, bool present);

    /// Shared groups. Adding an existing member replaces its options.
    bool add_member(std::string_view filter, std::string_view group, const Member& member);
    bool remove_member(std::string_view filter, std::string_view group, std::uint64_t session);
    void set_member_connected(std::string_view filter, std::string_view group, std::uint64_t session, bool connected);
    [[nodiscard]] Group* find_group(std::string_view filter, std::string_view group) noexcept;

    /// Bytes that the cache of matches may hold; the receivers of the topic asked about last come on top.
    void set_cache_max(std::size_t bytes) noexcept { cache_max_ = bytes; }
    [[nodiscard]] std::size_t cache_bytes() const noexcept { return cache_bytes_; }
    /// Topics that are longer are matched each time: a publisher of long ones would fill the cache with what he says once.
    static constexpr std::size_t cached_topic_max = 512;

    /// All that matches `topic`. The result lives until the next call or change. A `hidden` topic is not seen by
    /// filters that begin with a wildcard.
    const Match& match(std::string_view topic, bool hidden);

    /// Calls `visit(filter)` for every filter with a plain subscriber on this worker.
    template <class Visit>
    void for_each_local_filter(Visit&& visit) const {
        std::string filter;
        walk_filters(table_.root(), filter, true, visit);
    }

    /// Subscribers, members and groups of one filter that were compared to find the one that is asked for or changed, since the
    /// start; of a filter with many, one or two a time.
    [[nodiscard]] std::uint64_t looked_at() const noexcept { return looked_at_; }

    [[nodiscard]] std::size_t plain_count() const noexcept { return plain_count_; }
    [[nodiscard]] std::size_t shared_count() const noexcept { return shared_count_; }

  private:
    struct Entry {
        Subscriber* subscriber = nullptr;
        Options options;
    };
    struct BySubscriber {
        static const Subscriber* key(const Entry& entry) noexcept { return entry.subscriber; }
        static std::size_t hash(const Subscriber* subscriber) noexcept;
    };
    struct ByName {
        static std::string_view key(const std::unique_ptr<Group>& group) noexcept { return group->name; }
        static std::size_t hash(std::string_view name) noexcept;
    };
    struct Data;
    struct Extra {
        std::vector<std::unique_ptr<Group>> groups;
        Lookup<ByName> by_name;          ///< of groups
        Lookup<BySubscriber> by_subscriber;   ///< of the entries
    };
    struct Data {
        CountedVector<Entry> entries;
        std::uint64_t remote = 0;
        std::unique_ptr<Extra> extra;    ///< rare: shared groups, many subscribers
        std::uint32_t wildcard_children = 0;   ///< bit 0: a `+` child, bit 1: a `#` child

        [[nodiscard]] bool is_empty() const noexcept { return entries.empty() && remote == 0 && extra == nullptr; }
    };
    using Table = LevelTable<Data>;
    using Node = Table::Node;
    struct CacheSlot {
        std::string topic;
        std::uint64_t generation = 0;
        bool hidden = false;
        std::size_t bytes = 0;           ///< of it, in cache_bytes_
        Match match;
    };

    Node* make_node(std::string_view filter);
    Node* find_node(std::string_view filter) const noexcept;
    void prune(Node* node) noexcept;
    [[nodiscard]] std::size_t place_of(const Node& node, const Subscriber* subscriber) noexcept;
    [[nodiscard]] Group* find_group(Node* node, std::string_view group) noexcept;
    /// Lets go what the node does not need any more.
    void tidy(Node* node) noexcept;
    void collect(const Node* node, std::string_view rest, bool more, bool skip_wildcards, Match& out) const;
    const Match& fill(CacheSlot& slot, std::string_view topic, bool hidden);
    /// Lets go what is remembered, of one slot after the other, until there is room again.
    void shrink_cache(const CacheSlot* but) noexcept;
    static void take(const Node* node, Match& out);
    static void merge(Match& out);
    template <class Visit>
    void walk_filters(const Node* node, std::string& filter, bool at_root, Visit& visit) const {
        if (!node->entries.empty()) visit(std::string_view(filter));
        for (const auto* child = node->first_child; child != nullptr; child = child->next) {
            const auto size = filter.size();
            if (!at_root) filter += '/';
            filter += child->level();
            walk_filters(child, filter, false, visit);
            filter.resize(size);
        }
    }

    Table table_;
    std::vector<std::unique_ptr<CacheSlot>> cache_;
    CacheSlot uncached_;                 ///< of the last long topic
    QuickKey key_ = quick_key();
    std::size_t cache_max_ = 16u << 20;
    std::size_t cache_bytes_ = 0;
    std::size_t next_to_drop_ = 0;       ///< place in cache_
    std::uint64_t generation_ = 1;
    std::size_t plain_count_ = 0;
    std::size_t shared_count_ = 0;
    std::uint64_t looked_at_ = 0;
};

}  // namespace penstock::topics
