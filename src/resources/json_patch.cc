// JSON patch, RFC 6902, with bounds.
#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/merge.h"
#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

constexpr std::size_t operations_max = 10'000;
constexpr std::size_t copied_values_max = 1'000'000;    // values that `copy` makes and `test` compares, of all operations
constexpr std::size_t copied_bytes_max = 16 * 1024 * 1024;
constexpr std::size_t moved_items_max = 100'000'000;    // items of lists that insertions and removals shift
constexpr auto depth_max = static_cast<std::size_t>(sent_depth_max);

/// The tokens of a JSON pointer (RFC 6901).
Result<std::vector<std::string>> pointer_of(const Json& text) {
    if (!text.is_string()) return fail("a JSON pointer is a text");
    const auto& pointer = text.get_ref<const std::string&>();
    std::vector<std::string> out;
    if (pointer.empty()) return out;
    if (pointer[0] != '/') return fail(fmt::format("{}: a JSON pointer begins with /", shortened(pointer)));
    for (const auto part : split(std::string_view(pointer).substr(1), '/')) {
        if (out.size() == depth_max) return fail(fmt::format("{}: deeper than {} levels", shortened(pointer), depth_max));
        std::string token;
        for (std::size_t i = 0; i < part.size(); ++i) {
            if (part[i] != '~') {
                token += part[i];
                continue;
            }
            ++i;
            if (i == part.size() || (part[i] != '0' && part[i] != '1')) return fail(fmt::format("{}: ~ is followed by 0 or 1", shortened(pointer)));
            token += part[i] == '0' ? '~' : '/';
        }
        out.push_back(std::move(token));
    }
    return out;
}

/// The index of a list that a token names; its size for `-`.
Result<std::size_t> index_of(const Json& list, const std::string& token, bool may_be_end) {
    if (may_be_end && token == "-") return list.size();
    const auto number = token.size() > 1 && token[0] == '0' ? std::nullopt : parse_number<std::size_t>(token);
    if (!number || *number > list.size() || (!may_be_end && *number == list.size())) return fail(fmt::format("\"{}\" is no index of a list of {} items", shortened(token), list.size()));
    return *number;
}

class Patch {
  public:
    explicit Patch(Json& target) : target_(target) {}

    Result<void> carry_out(const Json& operation) {
        if (!operation.is_object()) return fail("an object is needed");
        const auto op = text_at(operation, "op");
        auto path = pointer_of(at_member(operation, "path"));
        if (!path) return fail("path: " + path.error().message);
        if (op == "remove") {
            auto gone = take(*path);
            return gone ? Result<void>() : std::unexpected(gone.error());
        }
        if (op == "move" || op == "copy") return from_elsewhere(operation, *path, op == "move");
        if (op != "add" && op != "replace" && op != "test") return fail(fmt::format("op: {}: supported are \"add\", \"copy\", \"move\", \"remove\", \"replace\", \"test\"", brief(at_member(operation, "op"))));
        if (!operation.contains("value")) return fail("value: Required value");
        const auto& value = operation["value"];
        if (op == "add") return put(*path, value);
        auto* found = find(*path);
        if (found == nullptr) return fail("path: there is no such value");
        if (op == "test") {
            if (!afford(*found)) return too_much();
            return *found == value ? Result<void>() : fail("the value is another one");
        }
        if (path->size() + depth_of(value, depth_max + 1) > depth_max) return too_deep();
        *found = value;
        return {};
    }

  private:
    static const Json& at_member(const Json& object, const char* key) {
        static const Json none;
        const auto found = object.find(key);
        return found == object.end() ? none : *found;
    }
    static std::unexpected<Error> too_deep() { return fail(fmt::format("path: the object would be nested deeper than {} levels", depth_max)); }
    static std::unexpected<Error> too_much() { return fail("the patch copies, compares or moves more than one request may"); }

    /// Counts a value that is copied or compared.
    bool afford(const Json& value) {
        const auto count = values_of(value, values_);
        if (count > values_) return false;
        values_ -= count;
        const auto size = bytes_of(value);
        if (size > bytes_) return false;
        bytes_ -= size;
        return true;
    }
    static std::size_t bytes_of(const Json& value) {
        std::size_t out = value.is_string() ? value.get_ref<const std::string&>().size() : 0;
        if (value.is_structured())
            for (auto at = value.begin(); at != value.end(); ++at) out += (value.is_object() ? at.key().size() : 0) + bytes_of(*at);
        return out;
    }
    bool shift(std::size_t items) {
        if (items > moves_) return false;
        moves_ -= items;
        return true;
    }

    Json* find(const std::vector<std::string>& path, std::size_t without = 0) {
        auto* at = &target_;
        for (std::size_t i = 0; i + without < path.size(); ++i) {
            if (at->is_object()) {
                const auto found = at->find(path[i]);
                if (found == at->end()) return nullptr;
                at = &*found;
            } else if (at->is_array()) {
                const auto index = index_of(*at, path[i], false);
                if (!index) return nullptr;
                at = &(*at)[*index];
            } else {
                return nullptr;
            }
        }
        return at;
    }

    Result<void> put(const std::vector<std::string>& path, Json value) {
        if (path.size() + depth_of(value, depth_max + 1) > depth_max) return too_deep();
        if (path.empty()) {
            target_ = std::move(value);
            return {};
        }
        auto* parent = find(path, 1);
        if (parent == nullptr || !parent->is_structured()) return fail("path: there is nothing to put it into");
        if (parent->is_object()) {
            (*parent)[path.back()] = std::move(value);
            return {};
        }
        const auto index = index_of(*parent, path.back(), true);
        if (!index) return fail("path: " + index.error().message);
        if (!shift(parent->size() - *index)) return too_much();
        parent->insert(parent->begin() + static_cast<std::ptrdiff_t>(*index), std::move(value));
        return {};
    }

    Result<Json> take(const std::vector<std::string>& path) {
        if (path.empty()) return fail("path: the whole object cannot be removed");
        auto* parent = find(path, 1);
        auto* found = find(path);
        if (parent == nullptr || found == nullptr) return fail("path: there is no such value");
        auto out = std::move(*found);
        if (parent->is_object()) {
            parent->erase(path.back());
            return out;
        }
        const auto index = *index_of(*parent, path.back(), false);
        if (!shift(parent->size() - index)) return too_much();
        parent->erase(parent->begin() + static_cast<std::ptrdiff_t>(index));
        return out;
    }

    Result<void> from_elsewhere(const Json& operation, const std::vector<std::string>& path, bool moves) {
        const auto from = pointer_of(at_member(operation, "from"));
        if (!from) return fail("from: " + from.error().message);
        if (moves) {
            if (path.size() > from->size() && std::equal(from->begin(), from->end(), path.begin())) return fail("path: a value cannot be moved into itself");
            auto value = take(*from);
            if (!value) return fail("from: " + value.error().message);
            return put(path, std::move(*value));
        }
        const auto* found = find(*from);
        if (found == nullptr) return fail("from: there is no such value");
        if (!afford(*found)) return too_much();
        return put(path, *found);
    }

    Json& target_;
    std::size_t values_ = copied_values_max, bytes_ = copied_bytes_max, moves_ = moved_items_max;
};

}  // namespace

Result<void> json_patch(Json& target, const Json& patch) {
    if (!patch.is_array() || patch.size() > operations_max) return fail(fmt::format("a JSON patch is an array of at most {} operations", operations_max));
    Patch work(target);
    for (std::size_t i = 0; i < patch.size(); ++i)
        if (auto done = work.carry_out(patch[i]); !done) return fail(fmt::format("operation {}: {}", i, done.error().message));
    return {};
}

}  // namespace penstock::resources
