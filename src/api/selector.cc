#include "api/selector.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"

namespace penstock::api {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

const Json* label_of(const Json& object, const std::string& key) {
    const auto& labels = at_path(object, "metadata.labels");
    if (!labels.is_object()) return nullptr;
    const auto at = labels.find(key);
    return at == labels.end() ? nullptr : &*at;
}

bool is_key(std::string_view key) {
    return !key.empty() && key.size() <= 317 && std::ranges::all_of(key, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || c == '/'; });
}

/// Fields whose name in a selector is not their path.
std::string path_of_field(const std::string& name) { return name == "source" ? "source.component" : name; }

}  // namespace

Result<Selector::Requirement> Selector::parse_requirement(std::string_view part) {
    auto bad = [&](const std::string& why) { return fail(fmt::format("unable to parse requirement: \"{}\": {}", resources::shortened(part), why)); };
    Requirement out;
    auto set_key = [&](std::string_view key) {
        out.key = std::string(trim(key));
        return is_key(out.key);
    };
    if (const auto open = part.find('('); open != std::string_view::npos) {
        const auto head = trim(part.substr(0, open));
        const auto space = head.find_last_of(" \t");
        const auto word = space == std::string_view::npos ? std::string_view{} : head.substr(space + 1);
        if (part.back() != ')' || (word != "in" && word != "notin")) return bad("expected key in (a,b) or key notin (a,b)");
        if (!set_key(head.substr(0, space))) return bad("the key is not a label key");
        out.op = word == "in" ? Op::in : Op::not_in;
        for (const auto value : split(part.substr(open + 1, part.size() - open - 2), ',')) out.values.emplace_back(trim(value));
        return out;
    }
    if (const auto equal = part.find('='); equal != std::string_view::npos) {
        const bool unequal = equal > 0 && part[equal - 1] == '!';
        auto value = part.substr(equal + 1);
        if (value.starts_with('=') && !unequal) value.remove_prefix(1);
        if (!set_key(part.substr(0, unequal ? equal - 1 : equal))) return bad("the key is not a label key");
        out.op = unequal ? Op::not_in : Op::in;
        out.values.emplace_back(trim(value));
        if (!out.values[0].empty() && !is_key(out.values[0])) return bad("the value is not a label value");
        return out;
    }
    out.op = part.starts_with('!') ? Op::absent : Op::exists;
    if (!set_key(out.op == Op::absent ? part.substr(1) : part)) return bad("the key is not a label key");
    return out;
}

Result<Selector> Selector::parse(const resources::Kind& kind, const std::string& labels, const std::string& fields) {
    Selector out;
    std::vector<std::string> parts;
    int depth = 0;
    for (const char c : labels) {
        if (c == '(') ++depth;
        if (c == ')') --depth;
        if (parts.empty() || (c == ',' && depth == 0)) parts.emplace_back();
        if (c != ',' || depth != 0) parts.back() += c;
    }
    for (const auto& raw : parts) {
        const auto part = trim(raw);
        if (part.empty()) {
            if (parts.size() == 1) break;
            return fail(fmt::format("unable to parse requirement: \"{}\" has an empty part", resources::shortened(labels)));
        }
        auto requirement = parse_requirement(part);
        if (!requirement) return std::unexpected(requirement.error());
        out.labels_.push_back(std::move(*requirement));
    }
    for (const auto raw : split(fields, ',')) {
        const auto term = trim(raw);
        if (term.empty()) continue;
        const auto equal = term.find('=');
        if (equal == std::string_view::npos) return fail(fmt::format("invalid field selector: \"{}\"; can't understand it, expected field=value", resources::shortened(term)));
        const bool unequal = equal > 0 && term[equal - 1] == '!';
        const std::string key(term.substr(0, unequal ? equal - 1 : equal));
        auto value = term.substr(equal + 1);
        if (value.starts_with('=') && !unequal) value.remove_prefix(1);
        if (key != "metadata.name" && key != "metadata.namespace" && std::ranges::find(kind.selectable, key) == kind.selectable.end())
            return fail(fmt::format("field label not supported: {}", resources::shortened(key)));
        out.fields_.push_back({.path = path_of_field(key), .value = std::string(value), .unequal = unequal});
    }
    return out;
}

bool Selector::matches(const Json& object) const {
    for (const auto& r : labels_) {
        const auto* value = label_of(object, r.key);
        const bool listed = value != nullptr && value->is_string() && std::ranges::find(r.values, value->get_ref<const std::string&>()) != r.values.end();
        if (r.op == Op::in ? !listed : r.op == Op::not_in ? listed : r.op == Op::exists ? value == nullptr : value != nullptr) return false;
    }
    for (const auto& f : fields_) {
        const auto& value = at_path(object, f.path);
        const auto text = value.is_string() ? value.get<std::string>() : value.is_null() ? std::string() : value.dump();
        if ((text == f.value) == f.unequal) return false;
    }
    return true;
}

std::string Selector::only_name() const {
    for (const auto& f : fields_)
        if (f.path == "metadata.name" && !f.unequal) return f.value;
    return {};
}

bool matches_label_selector(const Json& selector, const Json& object) {
    if (const auto& exact = at_path(selector, "matchLabels"); exact.is_object())
        for (const auto& [key, value] : exact.items())
            if (const auto* there = label_of(object, key); there == nullptr || *there != value) return false;
    if (const auto& expressions = at_path(selector, "matchExpressions"); expressions.is_array()) {
        for (const auto& e : expressions) {
            const auto* there = label_of(object, text_at(e, "key"));
            const auto op = text_at(e, "operator");
            const auto& values = at_path(e, "values");
            const bool listed = there != nullptr && values.is_array() && std::ranges::find(values, *there) != values.end();
            if ((op == "In" && !listed) || (op == "NotIn" && listed) || (op == "Exists" && there == nullptr) || (op == "DoesNotExist" && there != nullptr)) return false;
        }
    }
    return true;
}

}  // namespace penstock::api
