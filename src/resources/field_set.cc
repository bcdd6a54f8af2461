#include "resources/field_set.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "resources/merge.h"
#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

constexpr std::size_t paths_max = 100;

enum class Shape : std::uint8_t { leaf, map, keyed, set };

Shape shape_of(const Json& value, const Json& schema) {
    if (value.is_object()) return text_at(schema, "x-kubernetes-map-type") == "atomic" ? Shape::leaf : Shape::map;
    if (value.is_array()) {
        const auto type = text_at(schema, "x-kubernetes-list-type");
        if (type == "map" && at_path(schema, "x-kubernetes-list-map-keys").is_array()) return Shape::keyed;
        if (type == "set") return Shape::set;
    }
    return Shape::leaf;
}

/// The key of a keyed item with defaults of the schema filled in; null when a part is missing.
Json key_of(const Json& item, const Json& schema) {
    Json out = Json::object();
    if (!item.is_object()) return nullptr;
    for (const auto& name : schema["x-kubernetes-list-map-keys"]) {
        if (!name.is_string()) return nullptr;
        const auto& field = name.get_ref<const std::string&>();
        if (const auto found = item.find(field); found != item.end()) out[field] = *found;
        else if (const auto& shape = member_schema(items_schema(schema), field); shape.is_object() && shape.contains("default")) out[field] = shape["default"];
        else return nullptr;
    }
    return out;
}

/// Where the first item with a key stands: looking for each item in turn would take the square of a list's length.
std::map<std::string, std::size_t> index_of(const Json& list, const Json& schema, bool keyed) {
    std::map<std::string, std::size_t> out;
    for (std::size_t i = 0; i < list.size(); ++i) out.emplace(keyed ? key_of(list[i], schema).dump() : list[i].dump(), i);
    return out;
}

std::string step_of_item(const Json& item, const Json& schema) { return "k:" + key_of(item, schema).dump(); }

/// All members of an object that a set can speak of; the server's own at the top are skipped.
bool is_tracked(const std::string& key, int depth, bool in_metadata) {
    if (depth == 0) return key != "apiVersion" && key != "kind";
    if (!in_metadata) return true;
    static const std::set<std::string, std::less<>> owned{"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
                                                          "deletionGracePeriodSeconds", "managedFields", "selfLink", "generateName"};
    return !owned.contains(key);
}

void collect(FieldSet& out, const Json& value, const Json& schema, int depth, bool in_metadata) {
    switch (shape_of(value, schema)) {
        case Shape::leaf: out.member = true; return;
        case Shape::map:
            for (const auto& [key, item] : value.items()) {
                if (!is_tracked(key, depth, in_metadata) || item.is_null()) continue;
                auto& child = out.children["f:" + key];
                collect(child, item, member_schema(schema, key), depth + 1, depth == 0 && key == "metadata");
                if (child.empty() && item.is_object() && item.empty()) child.member = true;
                if (child.empty()) out.children.erase("f:" + key);
            }
            return;
        case Shape::keyed:
            for (const auto& item : value) {
                auto& child = out.children[step_of_item(item, schema)];
                child.member = true;
                collect(child, item, items_schema(schema), depth + 1, false);
                child.member = true;
            }
            if (value.empty()) out.member = true;
            return;
        case Shape::set:
            for (const auto& item : value) out.children["v:" + item.dump()].member = true;
            if (value.empty()) out.member = true;
            return;
    }
}

void compare(FieldSet& out, const Json& before, const Json& after, const Json& schema, int depth, bool in_metadata) {
    if (before == after) return;
    const auto shape = shape_of(after, schema);
    if (shape == Shape::leaf || shape_of(before, schema) != shape) {
        collect(out, after, schema, depth, in_metadata);
        return;
    }
    auto drop_empty = [&](const std::string& step) {
        if (out.children[step].empty()) out.children.erase(step);
    };
    if (shape == Shape::map) {
        if (after.empty()) out.member = true;
        for (const auto& [key, item] : after.items()) {
            if (!is_tracked(key, depth, in_metadata)) continue;
            const auto step = "f:" + key;
            auto& child = out.children[step];
            const auto& inner = member_schema(schema, key);
            const bool inner_metadata = depth == 0 && key == "metadata";
            if (const auto found = before.find(key); found != before.end()) compare(child, *found, item, inner, depth + 1, inner_metadata);
            else {
                collect(child, item, inner, depth + 1, inner_metadata);
                if (child.empty()) child.member = true;
            }
            drop_empty(step);
        }
    } else if (shape == Shape::keyed) {
        const auto known = index_of(before, schema, true);
        for (const auto& item : after) {
            const auto key = key_of(item, schema).dump();
            const auto step = "k:" + key;
            const auto found = known.find(key);
            auto& child = out.children[step];
            if (found != known.end()) {
                compare(child, before[found->second], item, items_schema(schema), depth + 1, false);
            } else {
                collect(child, item, items_schema(schema), depth + 1, false);
                child.member = true;
            }
            drop_empty(step);
        }
    } else {
        const auto known = index_of(before, schema, false);
        for (const auto& item : after)
            if (auto text = item.dump(); !known.contains(text)) out.children["v:" + text].member = true;
    }
}

void list_paths(const FieldSet& set, const std::string& path, std::vector<std::string>& out) {
    if (out.size() >= paths_max) return;
    if (set.member) out.push_back(path.empty() ? "." : path);
    for (const auto& [step, child] : set.children) {
        std::string at = path;
        if (step.starts_with("f:")) {
            at += "." + shortened(std::string_view(step).substr(2));
        } else if (step.starts_with("v:")) {
            at += "[=" + shortened(std::string_view(step).substr(2)) + "]";
        } else {
            const auto key = parse_json(step.substr(2));
            std::string inner;
            if (key && key->is_object())
                for (const auto& [name, value] : key->items()) inner += fmt::format("{}{}={}", inner.empty() ? "" : ",", name, brief(value));
            at += "[" + inner + "]";
        }
        list_paths(child, at, out);
    }
}

bool is_step(const std::string& text) { return text.starts_with("f:") || text.starts_with("k:") || text.starts_with("v:") || text.starts_with("i:"); }

}  // namespace

FieldSet FieldSet::of(const Json& object, const Json& schema) {
    FieldSet out;
    if (object.is_object()) collect(out, object, schema, 0, false);
    return out;
}

FieldSet FieldSet::changed(const Json& before, const Json& after, const Json& schema) {
    FieldSet out;
    if (before.is_object() && after.is_object()) compare(out, before, after, schema, 0, false);
    else if (after.is_object()) collect(out, after, schema, 0, false);
    return out;
}

Result<FieldSet> FieldSet::from_json(const Json& fields) {
    FieldSet out;
    if (!fields.is_object()) return fail("fieldsV1 must be an object");
    for (const auto& [key, value] : fields.items()) {
        if (key == ".") {
            out.member = true;
            continue;
        }
        if (!is_step(key)) return fail(fmt::format("fieldsV1: \"{}\" is no path step; steps begin with f:, k: or v:", key));
        auto child = from_json(value);
        if (!child) return child;
        if (child->children.empty()) child->member = true;
        out.children.emplace(key, std::move(*child));
    }
    return out;
}

Json FieldSet::to_json() const {
    Json out = Json::object();
    if (member && !children.empty()) out["."] = Json::object();
    for (const auto& [step, child] : children) out[step] = child.to_json();
    return out;
}

bool FieldSet::empty() const {
    return !member && std::ranges::all_of(children, [](const auto& entry) { return entry.second.empty(); });
}

void FieldSet::add(const FieldSet& other) {
    member |= other.member;
    for (const auto& [step, child] : other.children) children[step].add(child);
}

void FieldSet::remove(const FieldSet& other) {
    if (other.member) member = false;
    for (const auto& [step, child] : other.children) {
        const auto found = children.find(step);
        if (found == children.end()) continue;
        found->second.remove(child);
        if (found->second.empty()) children.erase(found);
    }
}

FieldSet FieldSet::common_with(const FieldSet& other) const {
    FieldSet out;
    out.member = member && other.member;
    for (const auto& [step, child] : children) {
        const auto found = other.children.find(step);
        if (found == other.children.end()) continue;
        auto inner = child.common_with(found->second);
        if (!inner.empty()) out.children.emplace(step, std::move(inner));
    }
    return out;
}

std::vector<std::string> FieldSet::paths() const {
    std::vector<std::string> out;
    list_paths(*this, "", out);
    return out;
}

FieldSet FieldSet::status_part(bool inside) const {
    FieldSet out;
    for (const auto& [step, child] : children)
        if ((step == "f:status") == inside) out.children.emplace(step, child);
    return out;
}

Json merge_applied(const Json& live, const Json& applied, const Json& schema) {
    const auto shape = shape_of(applied, schema);
    if (shape == Shape::leaf || shape_of(live, schema) != shape) return applied;
    Json out = live;
    if (shape == Shape::map) {
        for (const auto& [key, value] : applied.items()) {
            if (value.is_null()) continue;
            const auto found = out.find(key);
            out[key] = found == out.end() ? value : merge_applied(*found, value, member_schema(schema, key));
        }
    } else if (shape == Shape::keyed) {
        auto known = index_of(out, schema, true);
        for (const auto& item : applied) {
            const auto [found, is_new] = known.emplace(key_of(item, schema).dump(), out.size());
            if (is_new) out.push_back(item);
            else out[found->second] = merge_applied(out[found->second], item, items_schema(schema));
        }
    } else {
        auto known = index_of(out, schema, false);
        for (const auto& item : applied)
            if (known.emplace(item.dump(), out.size()).second) out.push_back(item);
    }
    return out;
}

void remove_fields(Json& object, const FieldSet& gone, const Json& schema) {
    if (object.is_object()) {
        for (const auto& [step, child] : gone.children) {
            if (!step.starts_with("f:")) continue;
            const auto key = step.substr(2);
            const auto found = object.find(key);
            if (found == object.end()) continue;
            if (child.member && child.children.empty()) {
                object.erase(found);
                continue;
            }
            const bool had = !found->empty();
            remove_fields(*found, child, member_schema(schema, key));
            if (had && found->is_structured() && found->empty()) object.erase(key);   // nothing of it is left
        }
    } else if (object.is_array()) {
        const auto shape = shape_of(object, schema);
        Json kept = Json::array();   // made anew: erasing one by one would move the rest each time
        for (auto& item : object) {
            const auto step = shape == Shape::keyed ? step_of_item(item, schema) : "v:" + item.dump();
            const auto found = gone.children.find(step);
            if (found != gone.children.end() && found->second.member) continue;
            if (found != gone.children.end()) remove_fields(item, found->second, items_schema(schema));
            kept.push_back(std::move(item));
        }
        object = std::move(kept);
    }
}

namespace {
Result<void> check_at(const Json& value, const Json& schema, const std::string& path) {
    const auto shape = shape_of(value, schema);
    if (shape == Shape::map) {
        for (const auto& [key, item] : value.items())
            if (auto good = check_at(item, member_schema(schema, key), path + "." + key); !good) return good;
    } else if (shape == Shape::keyed || shape == Shape::set) {
        std::set<std::string> seen;
        for (std::size_t i = 0; i < value.size(); ++i) {
            const auto key = shape == Shape::keyed ? key_of(value[i], schema) : value[i];
            if (key.is_null())
                return fail(fmt::format("{}[{}]: element does not have all keys: {}", path, i, shape == Shape::keyed ? schema["x-kubernetes-list-map-keys"].dump() : "null is no element of a set"));
            if (!seen.insert(key.dump()).second) return fail(fmt::format("{}: duplicate entries for key {}", path, key.dump()));
            if (shape == Shape::keyed)
                if (auto good = check_at(value[i], items_schema(schema), fmt::format("{}[{}]", path, i)); !good) return good;
        }
    }
    return {};
}
}  // namespace

Result<void> check_applied(const Json& applied, const Json& schema) { return check_at(applied, schema, ""); }

}  // namespace penstock::resources
