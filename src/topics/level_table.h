#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string_view>
#include <vector>

#include "base/counted.h"
#include "base/keyed_hash.h"

namespace penstock::topics {

/// All edges of one topic tree in a single open-addressing table: (parent, level) → child.
///
/// Core: home. A node is one allocation that carries its level's text behind it, so that a filter of its own costs one
/// small block a level and a lookup touches one table slot and one node. Nodes and slots count in the message pool: a topic of 200
/// levels is 200 nodes, whatever the size of its message.
/// NodeData must be default constructible.
template <class NodeData>
class LevelTable {
  public:
    struct Node : NodeData {
        Node* parent = nullptr;
        Node* first_child = nullptr;
        Node* next = nullptr;            ///< siblings, doubly linked
        Node* previous = nullptr;
        std::uint32_t hash = 0;
        std::uint16_t level_size = 0;

        [[nodiscard]] std::string_view level() const noexcept {
            return {static_cast<const char*>(static_cast<const void*>(this + 1)), level_size};
        }
    };

    LevelTable() : slots_(slots_min, nullptr), root_(make(nullptr, {}, 0)) {}
    ~LevelTable() {
        for (auto* node : slots_)
            if (node != nullptr && node != tombstone()) destroy(node);
        destroy(root_);
    }
    LevelTable(const LevelTable&) = delete;
    LevelTable& operator=(const LevelTable&) = delete;

    [[nodiscard]] Node* root() noexcept { return root_; }
    [[nodiscard]] const Node* root() const noexcept { return root_; }
    [[nodiscard]] std::size_t size() const noexcept { return used_; }

    /// Slots that the longest search for what is there looks at. Core: tests; it goes over all.
    [[nodiscard]] std::size_t longest_search() const noexcept {
        std::size_t out = 0;
        for (std::size_t i = 0; i < slots_.size(); ++i)
            if (slots_[i] != nullptr && slots_[i] != tombstone()) out = std::max(out, ((i - slots_[i]->hash) & mask()) + 1);
        return out;
    }

    [[nodiscard]] Node* find(const Node* parent, std::string_view level) const noexcept {
        const auto hash = hash_of(parent, level);
        for (auto i = hash & mask();; i = (i + 1) & mask()) {
            auto* node = slots_[i];
            if (node == nullptr) return nullptr;
            if (node != tombstone() && node->hash == hash && node->parent == parent && node->level() == level) return node;
        }
    }

    Node* find_or_add(Node* parent, std::string_view level) {
        if (auto* node = find(parent, level)) return node;
        if ((filled_ + 1) * 10 > slots_.size() * 7) resize();
        auto* node = make(parent, level, hash_of(parent, level));
        node->next = parent->first_child;
        if (parent->first_child != nullptr) parent->first_child->previous = node;
        parent->first_child = node;
        place(node);
        ++used_;
        counted_.add(bytes_of(*node));
        return node;
    }

    /// The node must have no children.
    void remove(Node* node) noexcept {
        for (auto i = node->hash & mask();; i = (i + 1) & mask()) {
            if (slots_[i] != node) continue;
            slots_[i] = tombstone();
            break;
        }
        if (node->previous != nullptr) node->previous->next = node->next;
        else node->parent->first_child = node->next;
        if (node->next != nullptr) node->next->previous = node->previous;
        --used_;
        counted_.take(bytes_of(*node));
        destroy(node);
        // A table that was large once gives its slots back.
        if (slots_.size() > 1024 && used_ * 16 < slots_.size()) resize();
    }

  private:
    static Node* tombstone() noexcept {
        static Node mark;
        return &mark;
    }
    [[nodiscard]] std::size_t mask() const noexcept { return slots_.size() - 1; }
    /// With a key, because strangers choose the levels: those that they can see to meet would make a search of every lookup.
    [[nodiscard]] std::uint32_t hash_of(const Node* parent, std::string_view level) const noexcept {
        return static_cast<std::uint32_t>(quick_hash(level, (std::hash<const void*>{}(parent) >> 4) * 0x9E3779B97F4A7C15u, key_) >> 32);
    }
    static Node* make(Node* parent, std::string_view level, std::uint32_t hash) {
        void* memory = std::malloc(sizeof(Node) + level.size());
        if (memory == nullptr) throw std::bad_alloc();
        auto* node = new (memory) Node;
        node->parent = parent;
        node->hash = hash;
        node->level_size = static_cast<std::uint16_t>(level.size());
        if (!level.empty()) std::memcpy(static_cast<void*>(node + 1), level.data(), level.size());
        return node;
    }
    static void destroy(Node* node) noexcept {
        node->~Node();
        std::free(node);
    }
    void place(Node* node) noexcept {
        for (auto i = node->hash & mask();; i = (i + 1) & mask()) {
            if (slots_[i] != nullptr && slots_[i] != tombstone()) continue;
            if (slots_[i] == nullptr) ++filled_;
            slots_[i] = node;
            return;
        }
    }
    /// To what the nodes that are there need.
    void resize() {
        auto old = std::move(slots_);
        auto size = slots_min;
        while (size * 7 < (used_ + 1) * 20) size *= 2;
        counted_.set(counted_.bytes() + size * sizeof(Node*) - old.size() * sizeof(Node*));
        slots_.assign(size, nullptr);
        filled_ = 0;
        for (auto* node : old)
            if (node != nullptr && node != tombstone()) place(node);
    }

    static constexpr std::size_t slots_min = 16, block_bytes = 16;
    static std::size_t bytes_of(const Node& node) noexcept { return sizeof(Node) + node.level_size + block_bytes; }

    QuickKey key_ = quick_key();
    Counted counted_;                    ///< nodes without the root, and slots beyond the first ones
    std::vector<Node*> slots_;           ///< power of two; at most 70 % non-null
    std::size_t used_ = 0;               ///< nodes, without the root
    std::size_t filled_ = 0;             ///< nodes and tombstones
    Node* root_;
};

}  // namespace penstock::topics
