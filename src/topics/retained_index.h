#pragma once
#include <string>
#include <string_view>

#include "topics/level_table.h"
#include "topics/topic.h"

namespace penstock::topics {

/// Topic names → values, walked by topic filter: the retained messages of one worker.
/// Core: home. Value must be default constructible and convertible to bool (false: no value).
template <class Value>
class RetainedIndex {
    struct Data {
        Value value{};
    };
    using Table = LevelTable<Data>;
    using Node = typename Table::Node;

  public:
    /// The slot of `topic`, made when absent. Valid until the next change.
    Value& operator[](std::string_view topic) {
        auto* node = table_.root();
        for (bool more = true; more;) node = table_.find_or_add(node, take_level(topic, more));
        return node->value;
    }

    [[nodiscard]] Value* find(std::string_view topic) noexcept {
        auto* node = table_.root();
        for (bool more = true; more && node != nullptr;) node = table_.find(node, take_level(topic, more));
        return node != nullptr && node->value ? &node->value : nullptr;
    }

    void erase(std::string_view topic) noexcept {
        auto* node = table_.root();
        for (bool more = true; more && node != nullptr;) node = table_.find(node, take_level(topic, more));
        if (node == nullptr) return;
        node->value = Value{};
        prune(node);
    }

    /// Calls `visit(value)` for each value whose topic matches. `hide_root` names a topic prefix that leading wildcards
    /// do not see, as they do not see `$` topics [MQTT-4.7.2-1]. `visit` must not change the index.
    template <class Visit>
    void match(std::string_view filter, std::string_view hidden_prefix, Visit&& visit) {
        walk(table_.root(), filter, true, true, hidden_prefix, visit);
    }

    template <class Visit>
    void for_each(Visit&& visit) {
        subtree(table_.root(), visit);
    }

    [[nodiscard]] std::size_t nodes() const noexcept { return table_.size(); }

  private:
    template <class Visit>
    void walk(Node* node, std::string_view rest, bool more, bool at_root, std::string_view hidden, Visit& visit) {
        if (!more) {
            if (node->value) visit(node->value);
            return;
        }
        const auto level = take_level(rest, more);
        if (level == "#") {
            // `sport/#` matches `sport` itself, §4.7.1.2.
            if (!at_root) return subtree(node, visit);
            for (auto* child = node->first_child; child != nullptr; child = child->next)
                if (!is_hidden(child, hidden)) subtree(child, visit);
        } else if (level == "+") {
            for (auto* child = node->first_child; child != nullptr; child = child->next)
                if (!at_root || !is_hidden(child, hidden)) walk(child, rest, more, false, hidden, visit);
        } else if (auto* child = table_.find(node, level)) {
            walk(child, rest, more, false, hidden, visit);
        }
    }
    static bool is_hidden(const Node* child, std::string_view hidden) noexcept {
        return child->level().starts_with('$') || (!hidden.empty() && child->level() == hidden);
    }
    template <class Visit>
    void subtree(Node* node, Visit& visit) {
        if (node->value) visit(node->value);
        for (auto* child = node->first_child; child != nullptr; child = child->next) subtree(child, visit);
    }
    void prune(Node* node) noexcept {
        while (node != table_.root() && node->first_child == nullptr && !node->value) {
            auto* parent = node->parent;
            table_.remove(node);
            node = parent;
        }
    }

    Table table_;
};

}  // namespace penstock::topics
