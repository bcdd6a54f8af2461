#include "resources/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <re2/re2.h>

#include "base/text.h"

namespace penstock::resources {
namespace {

constexpr std::size_t pattern_max = 1024;
constexpr int schema_depth_max = 60;

std::string json_type(const Json& value) {
    return value.is_number_integer() ? "integer" : value.is_number() ? "number" : std::string(value.type_name());
}

/// The compiled pattern, or null when it is none. RE2 as in Kubernetes: no pattern takes more than linear time. Compiled once
/// per thread; the cache is emptied when it grows large.
const re2::RE2* compiled(const std::string& pattern) {
    static thread_local std::map<std::string, std::unique_ptr<re2::RE2>> cache;
    if (cache.size() > 1000) cache.clear();
    auto found = cache.find(pattern);
    if (found == cache.end()) {
        std::unique_ptr<re2::RE2> made;
        if (pattern.size() <= pattern_max) made = std::make_unique<re2::RE2>(pattern, re2::RE2::Quiet);
        if (made && !made->ok()) made.reset();
        found = cache.emplace(pattern, std::move(made)).first;
    }
    return found->second.get();
}

bool flag(const Json& schema, const char* key) {
    const auto at = schema.find(key);
    return at != schema.end() && at->is_boolean() && at->get<bool>();
}

std::size_t code_points(const std::string& text) {
    return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool fits_type(const Json& schema, const Json& value) {
    if (flag(schema, "x-kubernetes-int-or-string")) return value.is_number_integer() || value.is_string();
    const auto type = schema.value("type", "");
    if (type.empty()) return true;
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "integer") return value.is_number_integer() || (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
    if (type == "number") return value.is_number();
    if (type == "boolean") return value.is_boolean();
    return true;
}

void check_number(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out) {
    const auto number = value.get<double>();
    auto bad = [&](const std::string& why) { out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: {}", value.dump(), why)}); };
    auto bound = [&](const char* key) -> std::optional<double> {
        const auto at = schema.find(key);
        return at != schema.end() && at->is_number() ? std::optional(at->get<double>()) : std::nullopt;
    };
    if (const auto low = bound("minimum")) {
        if (flag(schema, "exclusiveMinimum") ? number <= *low : number < *low)
            bad(fmt::format("{} in body should be greater than {}{}", path, flag(schema, "exclusiveMinimum") ? "" : "or equal to ", schema["minimum"].dump()));
    }
    if (const auto high = bound("maximum")) {
        if (flag(schema, "exclusiveMaximum") ? number >= *high : number > *high)
            bad(fmt::format("{} in body should be less than {}{}", path, flag(schema, "exclusiveMaximum") ? "" : "or equal to ", schema["maximum"].dump()));
    }
    if (const auto step = bound("multipleOf"); step && *step > 0 && std::abs(number / *step - std::round(number / *step)) > 1e-9)
        bad(fmt::format("{} in body should be a multiple of {}", path, schema["multipleOf"].dump()));
}

/// A size limit of the schema that is present, or none.
std::optional<std::size_t> limit(const Json& schema, const char* key) {
    const auto at = schema.find(key);
    return at != schema.end() && at->is_number_unsigned() ? std::optional(at->get<std::size_t>()) : std::nullopt;
}

void check_size(const Json& schema, const char* low_key, const char* high_key, std::size_t size, const char* what, const std::string& path, std::vector<Fault>& out) {
    if (const auto low = limit(schema, low_key); low && size < *low)
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {} in body should have at least {} {}", path, *low, what)});
    if (const auto high = limit(schema, high_key); high && size > *high)
        out.push_back({path, "FieldValueTooLong", fmt::format("Too long: may not be more than {} {}", *high, what)});
}

void check_at(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out, int depth);

bool holds(const Json& schema, const Json& value, int depth) {
    std::vector<Fault> faults;
    check_at(schema, value, "", faults, depth + 1);
    return faults.empty();
}

void check_combinations(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out, int depth) {
    auto bad = [&](const char* why) { out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: \"{}\" {}", value.dump(), path, why)}); };
    if (const auto all = schema.find("allOf"); all != schema.end() && all->is_array())
        for (const auto& part : *all) check_at(part, value, path, out, depth + 1);
    if (const auto any = schema.find("anyOf"); any != schema.end() && any->is_array() && !any->empty() && std::ranges::none_of(*any, [&](const Json& part) { return holds(part, value, depth); }))
        bad("must validate at least one schema (anyOf)");
    if (const auto one = schema.find("oneOf"); one != schema.end() && one->is_array() && !one->empty() && std::ranges::count_if(*one, [&](const Json& part) { return holds(part, value, depth); }) != 1)
        bad("must validate one and only one schema (oneOf)");
    if (const auto none = schema.find("not"); none != schema.end() && none->is_object() && holds(*none, value, depth)) bad("must not validate the schema (not)");
}

void check_at(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out, int depth) {
    if (!schema.is_object() || depth > 2 * schema_depth_max) return;
    if (value.is_null()) {
        if (!flag(schema, "nullable") && !schema.value("type", "").empty())
            out.push_back({path, "FieldValueTypeInvalid", fmt::format("Invalid value: \"null\": {} in body must be of type {}: \"null\"", path, schema.value("type", ""))});
        return;
    }
    if (!fits_type(schema, value)) {
        out.push_back({path, "FieldValueTypeInvalid", fmt::format("Invalid value: \"{}\": {} in body must be of type {}: \"{}\"", json_type(value), path,
                                                                  flag(schema, "x-kubernetes-int-or-string") ? "integer or string" : schema.value("type", ""), json_type(value))});
        return;
    }
    if (const auto values = schema.find("enum"); values != schema.end() && values->is_array() && std::ranges::find(*values, value) == values->end()) {
        std::string known;
        for (const auto& v : *values) known += (known.empty() ? "" : ", ") + v.dump();
        out.push_back({path, "FieldValueNotSupported", fmt::format("Unsupported value: {}: supported values: {}", value.dump(), known)});
    }
    check_combinations(schema, value, path, out, depth);
    if (value.is_number()) check_number(schema, value, path, out);
    if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        check_size(schema, "minLength", "maxLength", code_points(text), "chars", path, out);
        if (const auto pattern = schema.find("pattern"); pattern != schema.end() && pattern->is_string()) {
            const auto* regex = compiled(pattern->get_ref<const std::string&>());
            if (regex != nullptr && !re2::RE2::PartialMatch(text, *regex))
                out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: {} in body should match '{}'", value.dump(), path, pattern->get_ref<const std::string&>())});
        }
    }
    if (value.is_array()) {
        check_size(schema, "minItems", "maxItems", value.size(), "items", path, out);
        if (const auto items = schema.find("items"); items != schema.end())
            for (std::size_t i = 0; i < value.size(); ++i) check_at(*items, value[i], fmt::format("{}[{}]", path, i), out, depth + 1);
        const auto list_type = schema.value("x-kubernetes-list-type", "");
        std::set<std::string> seen;
        if (list_type == "set" || flag(schema, "uniqueItems")) {
            for (std::size_t i = 0; i < value.size(); ++i)
                if (!seen.insert(value[i].dump()).second) out.push_back({fmt::format("{}[{}]", path, i), "FieldValueDuplicate", fmt::format("Duplicate value: {}", value[i].dump())});
        } else if (list_type == "map" && schema.contains("x-kubernetes-list-map-keys")) {
            for (std::size_t i = 0; i < value.size(); ++i) {
                Json key = Json::object();
                for (const auto& name : schema["x-kubernetes-list-map-keys"])
                    if (name.is_string() && value[i].is_object() && value[i].contains(name.get_ref<const std::string&>())) key[name.get<std::string>()] = value[i][name.get<std::string>()];
                if (!seen.insert(key.dump()).second) out.push_back({fmt::format("{}[{}]", path, i), "FieldValueDuplicate", fmt::format("Duplicate value: {}", key.dump())});
            }
        }
    }
    if (!value.is_object()) return;
    check_size(schema, "minProperties", "maxProperties", value.size(), "properties", path, out);
    if (const auto required = schema.find("required"); required != schema.end() && required->is_array())
        for (const auto& name : *required)
            if (name.is_string() && !value.contains(name.get_ref<const std::string&>()))
                out.push_back({path.empty() ? name.get<std::string>() : path + "." + name.get<std::string>(), "FieldValueRequired", "Required value"});
    const auto properties = schema.find("properties");
    const auto additional = schema.find("additionalProperties");
    for (const auto& [key, item] : value.items()) {
        if (path.empty() && (key == "metadata" || key == "apiVersion" || key == "kind")) continue;   // checked apart
        if (properties != schema.end() && properties->is_object() && properties->contains(key)) check_at((*properties)[key], item, path.empty() ? key : path + "." + key, out, depth + 1);
        else if (additional != schema.end() && additional->is_object()) check_at(*additional, item, fmt::format("{}[{}]", path, key), out, depth + 1);
    }
}

void default_at(const Json& schema, Json& value, int depth) {
    if (!schema.is_object() || depth > schema_depth_max) return;
    if (value.is_array()) {
        if (const auto items = schema.find("items"); items != schema.end())
            for (auto& item : value) default_at(*items, item, depth + 1);
        return;
    }
    if (!value.is_object()) return;
    const auto properties = schema.find("properties");
    if (properties != schema.end() && properties->is_object()) {
        for (const auto& [key, child] : properties->items()) {
            auto found = value.find(key);
            if (found != value.end() && found->is_null() && !flag(child, "nullable")) value.erase(found), found = value.end();
            if (found == value.end() && child.is_object() && child.contains("default")) value[key] = child["default"];
            if (value.contains(key)) default_at(child, value[key], depth + 1);
        }
    }
    if (const auto additional = schema.find("additionalProperties"); additional != schema.end() && additional->is_object())
        for (auto& [key, item] : value.items())
            if (properties == schema.end() || !properties->contains(key)) default_at(*additional, item, depth + 1);
}

void prune_at(const Json& schema, Json& value, const std::string& path, std::vector<Fault>& out, int depth) {
    if (!schema.is_object() || depth > schema_depth_max) return;
    if (value.is_array()) {
        if (const auto items = schema.find("items"); items != schema.end())
            for (std::size_t i = 0; i < value.size(); ++i) prune_at(*items, value[i], fmt::format("{}[{}]", path, i), out, depth + 1);
        return;
    }
    if (!value.is_object()) return;
    const bool keeps = flag(schema, "x-kubernetes-preserve-unknown-fields");
    const bool embedded = flag(schema, "x-kubernetes-embedded-resource") || path.empty();
    const auto properties = schema.find("properties");
    const auto additional = schema.find("additionalProperties");
    const bool has_additional = additional != schema.end() && (additional->is_object() || (additional->is_boolean() && additional->get<bool>()));
    std::vector<std::string> unknown, names;
    if (properties != schema.end() && properties->is_object())
        for (const auto& [key, child] : properties->items()) names.push_back(key);
    for (auto& [key, item] : value.items()) {
        const auto at = path.empty() ? key : path + "." + key;
        if (properties != schema.end() && properties->is_object() && properties->contains(key)) {
            if (!(path.empty() && key == "metadata")) prune_at((*properties)[key], item, at, out, depth + 1);
        } else if (embedded && (key == "apiVersion" || key == "kind" || key == "metadata")) {
            continue;
        } else if (has_additional) {
            if (additional->is_object()) prune_at(*additional, item, at, out, depth + 1);
        } else if (!keeps) {
            const auto near = nearest(key, names);
            out.push_back({at, "FieldValueInvalid", fmt::format("unknown field \"{}\"{}", at, near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near))});
            unknown.push_back(key);
        }
    }
    for (const auto& key : unknown) value.erase(key);
}

void check_structural_at(const Json& schema, const std::string& path, std::vector<Fault>& out, int depth) {
    if (!schema.is_object()) {
        out.push_back({path, "FieldValueTypeInvalid", fmt::format("Invalid value: {}: must be an object", schema.dump().substr(0, 80))});
        return;
    }
    if (depth > schema_depth_max) {
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: schemas nested deeper than {} levels are not taken", schema_depth_max)});
        return;
    }
    if (schema.contains("$ref")) out.push_back({path + ".$ref", "FieldValueForbidden", "Forbidden: $ref is not supported"});
    const auto type = schema.find("type");
    static const std::set<std::string> known{"object", "array", "string", "integer", "number", "boolean"};
    if (type != schema.end() && (!type->is_string() || !known.contains(type->get<std::string>())))
        out.push_back({path + ".type", "FieldValueNotSupported", fmt::format("Unsupported value: {}: supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"", type->dump())});
    if (const auto pattern = schema.find("pattern"); pattern != schema.end() && (!pattern->is_string() || compiled(pattern->get_ref<const std::string&>()) == nullptr))
        out.push_back({path + ".pattern", "FieldValueInvalid", fmt::format("Invalid value: {}: must be a valid regular expression of at most {} bytes", pattern->dump().substr(0, 80), pattern_max)});
    if (type != schema.end() && *type == "array" && !schema.contains("items")) out.push_back({path + ".items", "FieldValueRequired", "Required value: must be specified"});
    if (const auto properties = schema.find("properties"); properties != schema.end() && properties->is_object())
        for (const auto& [key, child] : properties->items()) check_structural_at(child, fmt::format("{}.properties[{}]", path, key), out, depth + 1);
    for (const char* key : {"items", "not"})
        if (schema.contains(key)) check_structural_at(schema[key], fmt::format("{}.{}", path, key), out, depth + 1);
    if (const auto additional = schema.find("additionalProperties"); additional != schema.end() && additional->is_object())
        check_structural_at(*additional, path + ".additionalProperties", out, depth + 1);
    for (const char* key : {"allOf", "anyOf", "oneOf"})
        if (const auto parts = schema.find(key); parts != schema.end() && parts->is_array())
            for (std::size_t i = 0; i < parts->size(); ++i) check_structural_at((*parts)[i], fmt::format("{}.{}[{}]", path, key, i), out, depth + 1);
}

}  // namespace

void check_schema(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out) { check_at(schema, value, path, out, 0); }
void default_schema(const Json& schema, Json& value) { default_at(schema, value, 0); }
void prune_schema(const Json& schema, Json& value, const std::string& path, std::vector<Fault>& out) { prune_at(schema, value, path, out, 0); }
void check_structural(const Json& schema, const std::string& path, std::vector<Fault>& out) { check_structural_at(schema, path, out, 0); }

}  // namespace penstock::resources
