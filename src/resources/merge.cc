#include "resources/merge.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

const Json& nothing() {
    static const Json empty = Json::object();
    return empty;
}

constexpr std::string_view delete_prefix = "$deleteFromPrimitiveList/", order_prefix = "$setElementOrder/";

Result<void> merge_object(Json& target, const Json& patch, const Json& schema, const std::string& path);

/// A value of the patch that has no counterpart: its directives are carried out against nothing.
Result<Json> fresh(const Json& patch, const Json& schema, const std::string& path);

Result<void> merge_keyed(Json& target, const Json& patch, const Json& schema, const std::string& path) {
    const auto key = text_at(schema, "x-kubernetes-patch-merge-key");
    const bool replaces = std::ranges::any_of(patch, [](const Json& item) { return text_at(item, "$patch") == "replace"; });
    if (replaces || !target.is_array()) target = Json::array();
    // Where the items stand by their key, and which of them go at the end: with long lists looking and moving for each would not do.
    std::map<std::string, std::size_t> known;
    for (std::size_t i = 0; i < target.size(); ++i)
        if (target[i].is_object() && target[i].contains(key)) known.emplace(target[i][key].dump(), i);
    std::vector<bool> gone(target.size());
    for (std::size_t i = 0; i < patch.size(); ++i) {
        const auto& item = patch[i];
        const auto at = fmt::format("{}[{}]", path, i);
        if (!item.is_object()) return fail(fmt::format("{}: an object is needed", at));
        const auto directive = text_at(item, "$patch");
        if (directive == "replace" && item.size() == 1) continue;
        if (!item.contains(key)) return fail(fmt::format("{}: does not contain declared merge key: {}", at, key));
        const auto word = item[key].dump();
        const auto found = known.find(word);
        if (directive == "delete") {
            if (found != known.end()) gone[found->second] = true, known.erase(found);
        } else if (found != known.end() && directive != "replace") {
            if (auto done = merge_object(target[found->second], item, items_schema(schema), at); !done) return done;
        } else {
            auto made = fresh(item, items_schema(schema), at);
            if (!made) return std::unexpected(made.error());
            if (found != known.end()) {
                target[found->second] = std::move(*made);
            } else {
                known.emplace(word, target.size());
                target.push_back(std::move(*made));
                gone.push_back(false);
            }
        }
    }
    if (std::find(gone.begin(), gone.end(), true) == gone.end()) return {};
    Json kept = Json::array();
    for (std::size_t i = 0; i < target.size(); ++i)
        if (!gone[i]) kept.push_back(std::move(target[i]));
    target = std::move(kept);
    return {};
}

/// The elements of a list as texts, to ask for many of them.
std::set<std::string> elements_of(const Json& list) {
    std::set<std::string> out;
    for (const auto& item : list) out.insert(item.dump());
    return out;
}

Result<void> merge_list(Json& target, const Json& patch, const Json& schema, const std::string& path) {
    if (at_path(schema, "x-kubernetes-patch-merge-key").is_string()) return merge_keyed(target, patch, schema, path);
    if (text_at(schema, "x-kubernetes-patch-strategy") == "merge") {
        if (!target.is_array()) target = Json::array();
        auto known = elements_of(target);
        for (const auto& item : patch)
            if (known.insert(item.dump()).second) target.push_back(item);
        return {};
    }
    Json out = Json::array();
    for (std::size_t i = 0; i < patch.size(); ++i) {
        auto made = fresh(patch[i], items_schema(schema), fmt::format("{}[{}]", path, i));
        if (!made) return std::unexpected(made.error());
        out.push_back(std::move(*made));
    }
    target = std::move(out);
    return {};
}

Result<Json> fresh(const Json& patch, const Json& schema, const std::string& path) {
    if (patch.is_object()) {
        Json out = Json::object();
        if (auto done = merge_object(out, patch, schema, path); !done) return std::unexpected(done.error());
        return out;
    }
    if (patch.is_array()) {
        Json out = Json::array();
        if (auto done = merge_list(out, patch, schema, path); !done) return std::unexpected(done.error());
        return out;
    }
    return patch;
}

Result<void> merge_object(Json& target, const Json& patch, const Json& schema, const std::string& path) {
    if (!target.is_object()) target = Json::object();
    if (const auto directive = patch.find("$patch"); directive != patch.end()) {
        if (*directive == "replace") target = Json::object();
        else if (*directive == "delete") {
            target = Json::object();
            return {};
        } else if (*directive != "merge") return fail(fmt::format("{}: unknown patch directive {}; allowed are delete, merge, replace", path.empty() ? "$patch" : path + ".$patch", brief(*directive)));
    }
    if (const auto kept = patch.find("$retainKeys"); kept != patch.end()) {
        if (!kept->is_array()) return fail(fmt::format("{}.$retainKeys: a list is needed", path));
        const auto names = elements_of(*kept);
        for (auto at = target.begin(); at != target.end();) at = names.contains(Json(at.key()).dump()) ? std::next(at) : target.erase(at);
    }
    for (const auto& [key, value] : patch.items()) {
        if (key == "$patch" || key == "$retainKeys" || key.starts_with(order_prefix)) continue;
        if (key.starts_with(delete_prefix)) {
            const auto field = key.substr(delete_prefix.size());
            if (!value.is_array()) return fail(fmt::format("{}.{}: a list is needed", path, key));
            if (auto found = target.find(field); found != target.end() && found->is_array()) {
                const auto gone = elements_of(value);
                Json rest = Json::array();
                for (auto& item : *found)
                    if (!gone.contains(item.dump())) rest.push_back(std::move(item));
                *found = std::move(rest);
            }
            continue;
        }
        const auto at = member_path(path, key);
        const auto& inner = member_schema(schema, key);
        if (value.is_null() || text_at(value, "$patch") == "delete") {
            target.erase(key);
        } else if (value.is_object()) {
            if (auto done = merge_object(target[key], value, inner, at); !done) return done;
        } else if (value.is_array()) {
            if (auto done = merge_list(target[key], value, inner, at); !done) return done;
        } else {
            target[key] = value;
        }
    }
    return {};
}

}  // namespace

const Json& member_schema(const Json& schema, std::string_view key) {
    if (!schema.is_object()) return nothing();
    if (const auto properties = schema.find("properties"); properties != schema.end() && properties->is_object())
        if (const auto found = properties->find(key); found != properties->end()) return *found;
    if (const auto additional = schema.find("additionalProperties"); additional != schema.end() && additional->is_object()) return *additional;
    return nothing();
}

const Json& items_schema(const Json& schema) {
    if (!schema.is_object()) return nothing();
    const auto found = schema.find("items");
    return found == schema.end() ? nothing() : *found;
}

void merge_patch(Json& target, const Json& patch) {
    if (!patch.is_object()) {
        target = patch;
        return;
    }
    if (!target.is_object()) target = Json::object();
    for (const auto& [key, value] : patch.items()) {
        if (value.is_null()) target.erase(key);
        else merge_patch(target[key], value);
    }
}

Result<void> strategic_patch(Json& target, const Json& patch, const Json& schema) {
    if (!patch.is_object()) return fail("a strategic merge patch is a JSON object");
    return merge_object(target, patch, schema, "");
}

}  // namespace penstock::resources
