#include "resources/json_schema.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

constexpr std::size_t steps_max = 5'000'000;   // pairs of a schema and a value that one check looks at
constexpr int schema_depth_max = 60;

std::string json_type(const Json& value) {
    return value.is_number_integer() ? "integer" : value.is_number() ? "number" : std::string(value.type_name());
}

/// One check: what it found, and what it may still look at. A schema that asks much of each item of a long list ends here.
struct Check {
    std::vector<Fault>& out;
    std::size_t& steps;

    [[nodiscard]] bool is_full() const { return out.size() >= faults_max || steps == 0; }
    void add(const std::string& path, const char* reason, std::string message) const {
        if (out.size() < faults_max) out.push_back({path, reason, std::move(message)});
    }
};

bool flag(const Json& schema, const char* key) {
    const auto at = schema.find(key);
    return at != schema.end() && at->is_boolean() && at->get<bool>();
}

/// A keyword whose value is a text; empty when it is absent or none.
std::string word(const Json& schema, const char* key) { return text_at(schema, key); }

std::string listed(const Json& values) {
    std::string out;
    for (const auto& v : values) {
        out += (out.empty() ? "" : ", ") + brief(v);
        if (out.size() > 1000) return out + ", …";
    }
    return out;
}

/// About what a value takes in memory; counting ends above `limit`.
std::size_t bytes_of(const Json& value, std::size_t limit) {
    std::size_t out = 16 + (value.is_string() ? value.get_ref<const std::string&>().size() : 0);
    if (value.is_structured())
        for (auto at = value.begin(); at != value.end() && out <= limit; ++at) out += (value.is_object() ? at.key().size() : 0) + bytes_of(*at, limit - std::min(out, limit));
    return out;
}

bool fits_type(const Json& schema, const Json& value) {
    if (flag(schema, "x-kubernetes-int-or-string")) return value.is_number_integer() || value.is_string();
    const auto type = word(schema, "type");
    if (type.empty()) return true;
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "integer") return value.is_number_integer() || (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
    if (type == "number") return value.is_number();
    if (type == "boolean") return value.is_boolean();
    return true;
}

void check_number(const Json& schema, const Json& value, const std::string& path, const Check& run) {
    const auto number = value.get<double>();
    auto bad = [&](const std::string& why) { run.add(path, "FieldValueInvalid", fmt::format("Invalid value: {}: {}", value.dump(), why)); };
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

void check_size(const Json& schema, const char* low_key, const char* high_key, std::size_t size, const char* what, const std::string& path, const Check& run) {
    if (const auto low = limit(schema, low_key); low && size < *low)
        run.add(path, "FieldValueInvalid", fmt::format("Invalid value: {} in body should have at least {} {}", path, *low, what));
    if (const auto high = limit(schema, high_key); high && size > *high)
        run.add(path, "FieldValueTooLong", fmt::format("Too long: may not be more than {} {}", *high, what));
}

void check_at(const Json& schema, const Json& value, const std::string& path, const Check& run, int depth);

bool holds(const Json& schema, const Json& value, const Check& run, int depth) {
    std::vector<Fault> faults;
    check_at(schema, value, "", {faults, run.steps}, depth + 1);
    return faults.empty();
}

void check_combinations(const Json& schema, const Json& value, const std::string& path, const Check& run, int depth) {
    auto bad = [&](const char* why) { run.add(path, "FieldValueInvalid", fmt::format("Invalid value: {}: \"{}\" {}", brief(value), path, why)); };
    auto fits = [&](const Json& part) { return holds(part, value, run, depth); };
    if (const auto all = schema.find("allOf"); all != schema.end() && all->is_array())
        for (const auto& part : *all) check_at(part, value, path, run, depth + 1);
    if (const auto any = schema.find("anyOf"); any != schema.end() && any->is_array() && !any->empty() && std::ranges::none_of(*any, fits))
        bad("must validate at least one schema (anyOf)");
    if (const auto one = schema.find("oneOf"); one != schema.end() && one->is_array() && !one->empty() && std::ranges::count_if(*one, fits) != 1)
        bad("must validate one and only one schema (oneOf)");
    if (const auto none = schema.find("not"); none != schema.end() && none->is_object() && fits(*none)) bad("must not validate the schema (not)");
}

void check_text(const Json& schema, const std::string& text, const std::string& path, const Check& run) {
    check_size(schema, "minLength", "maxLength", code_points(text), "chars", path, run);
    const auto pattern = schema.find("pattern");
    if (pattern == schema.end() || !pattern->is_string()) return;
    const auto& expression = pattern->get_ref<const std::string&>();
    if (occurs(expression, text) == Match::no)
        run.add(path, "FieldValueInvalid", fmt::format("Invalid value: {}: {} in body should match '{}'", brief(Json(text)), path, expression));
}

void check_list(const Json& schema, const Json& value, const std::string& path, const Check& run, int depth) {
    check_size(schema, "minItems", "maxItems", value.size(), "items", path, run);
    if (const auto items = schema.find("items"); items != schema.end())
        for (std::size_t i = 0; i < value.size() && !run.is_full(); ++i) check_at(*items, value[i], fmt::format("{}[{}]", path, i), run, depth + 1);
    const auto list_type = word(schema, "x-kubernetes-list-type");
    std::set<std::string> seen;
    auto once = [&](std::size_t i, const Json& key) {
        if (!seen.insert(key.dump()).second) run.add(fmt::format("{}[{}]", path, i), "FieldValueDuplicate", fmt::format("Duplicate value: {}", brief(key)));
    };
    if (list_type == "set" || flag(schema, "uniqueItems")) {
        for (std::size_t i = 0; i < value.size(); ++i) once(i, value[i]);
    } else if (const auto names = schema.find("x-kubernetes-list-map-keys"); list_type == "map" && names != schema.end() && names->is_array()) {
        for (std::size_t i = 0; i < value.size(); ++i) {
            Json key = Json::object();
            for (const auto& name : *names)
                if (name.is_string() && value[i].is_object() && value[i].contains(name.get_ref<const std::string&>())) key[name.get<std::string>()] = value[i][name.get<std::string>()];
            once(i, key);
        }
    }
}

void check_object(const Json& schema, const Json& value, const std::string& path, const Check& run, int depth) {
    check_size(schema, "minProperties", "maxProperties", value.size(), "properties", path, run);
    if (const auto required = schema.find("required"); required != schema.end() && required->is_array())
        for (const auto& name : *required)
            if (name.is_string() && !value.contains(name.get_ref<const std::string&>())) run.add(member_path(path, name.get_ref<const std::string&>()), "FieldValueRequired", "Required value");
    const auto properties = schema.find("properties");
    const auto additional = schema.find("additionalProperties");
    for (const auto& [key, item] : value.items()) {
        if (run.is_full()) return;
        if (path.empty() && (key == "metadata" || key == "apiVersion" || key == "kind")) continue;   // checked apart
        if (properties != schema.end() && properties->is_object() && properties->contains(key)) check_at((*properties)[key], item, member_path(path, key), run, depth + 1);
        else if (additional != schema.end() && additional->is_object()) check_at(*additional, item, entry_path(path, key), run, depth + 1);
    }
}

void check_at(const Json& schema, const Json& value, const std::string& path, const Check& run, int depth) {
    if (!schema.is_object() || depth > 2 * schema_depth_max || run.is_full()) return;
    --run.steps;
    if (value.is_null()) {
        if (!flag(schema, "nullable") && !word(schema, "type").empty())
            run.add(path, "FieldValueTypeInvalid", fmt::format("Invalid value: \"null\": {} in body must be of type {}: \"null\"", path, word(schema, "type")));
        return;
    }
    if (!fits_type(schema, value)) {
        run.add(path, "FieldValueTypeInvalid", fmt::format("Invalid value: \"{}\": {} in body must be of type {}: \"{}\"", json_type(value), path,
                                                           flag(schema, "x-kubernetes-int-or-string") ? "integer or string" : word(schema, "type"), json_type(value)));
        return;
    }
    if (const auto values = schema.find("enum"); values != schema.end() && values->is_array() && std::ranges::find(*values, value) == values->end())
        run.add(path, "FieldValueNotSupported", fmt::format("Unsupported value: {}: supported values: {}", brief(value), listed(*values)));
    check_combinations(schema, value, path, run, depth);
    if (value.is_number()) check_number(schema, value, path, run);
    if (value.is_string()) check_text(schema, value.get_ref<const std::string&>(), path, run);
    if (value.is_array()) check_list(schema, value, path, run, depth);
    if (value.is_object()) check_object(schema, value, path, run, depth);
}

/// False: the defaults do not fit into `budget`, which counts bytes.
bool default_at(const Json& schema, Json& value, std::size_t& budget, int depth) {
    if (!schema.is_object() || depth > schema_depth_max) return true;
    if (value.is_array()) {
        if (const auto items = schema.find("items"); items != schema.end())
            for (auto& item : value)
                if (!default_at(*items, item, budget, depth + 1)) return false;
        return true;
    }
    if (!value.is_object()) return true;
    const auto properties = schema.find("properties");
    const bool has_properties = properties != schema.end() && properties->is_object();
    if (has_properties) {
        for (const auto& [key, child] : properties->items()) {
            auto found = value.find(key);
            if (found != value.end() && found->is_null() && !flag(child, "nullable")) value.erase(found), found = value.end();
            if (found == value.end() && child.is_object() && child.contains("default")) {
                const auto size = key.size() + bytes_of(child["default"], budget);
                if (size > budget) return false;
                budget -= size;
                value[key] = child["default"];
            }
            if (value.contains(key) && !default_at(child, value[key], budget, depth + 1)) return false;
        }
    }
    if (const auto additional = schema.find("additionalProperties"); additional != schema.end() && additional->is_object())
        for (auto& [key, item] : value.items())
            if ((!has_properties || !properties->contains(key)) && !default_at(*additional, item, budget, depth + 1)) return false;
    return true;
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
        const auto at = member_path(path, key);
        if (properties != schema.end() && properties->is_object() && properties->contains(key)) {
            if (!(path.empty() && key == "metadata")) prune_at((*properties)[key], item, at, out, depth + 1);
        } else if (embedded && (key == "apiVersion" || key == "kind" || key == "metadata")) {
            continue;
        } else if (has_additional) {
            if (additional->is_object()) prune_at(*additional, item, at, out, depth + 1);
        } else if (!keeps) {
            unknown.push_back(key);
            if (out.size() >= faults_max) continue;   // it goes all the same
            const auto near = nearest(key, names);
            out.push_back({at, "FieldValueInvalid", fmt::format("unknown field \"{}\"{}", at, near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near))});
        }
    }
    for (const auto& key : unknown) value.erase(key);
}

/// Keywords whose values the functions above rely on, by the type they must have.
void check_keywords(const Json& schema, const std::string& path, std::vector<Fault>& out) {
    struct Keyword {
        const char* name;
        bool (*good)(const Json&);
        const char* what;
    };
    static constexpr auto is_text = [](const Json& v) { return v.is_string(); };
    static constexpr auto is_flag = [](const Json& v) { return v.is_boolean(); };
    static constexpr auto is_list = [](const Json& v) { return v.is_array(); };
    static constexpr auto is_object = [](const Json& v) { return v.is_object(); };
    static constexpr auto is_texts = [](const Json& v) { return v.is_array() && std::ranges::all_of(v, [](const Json& item) { return item.is_string(); }); };
    static constexpr auto is_number = [](const Json& v) { return v.is_number(); };
    static constexpr auto is_count = [](const Json& v) { return v.is_number_integer() && v >= 0; };
    static constexpr Keyword keywords[] = {
        {"x-kubernetes-list-type", is_text, "a text"}, {"x-kubernetes-map-type", is_text, "a text"}, {"x-kubernetes-patch-merge-key", is_text, "a text"}, {"x-kubernetes-patch-strategy", is_text, "a text"},
        {"format", is_text, "a text"}, {"description", is_text, "a text"}, {"title", is_text, "a text"}, {"x-kubernetes-list-map-keys", is_texts, "a list of texts"}, {"required", is_texts, "a list of texts"},
        {"enum", is_list, "a list"}, {"allOf", is_list, "a list"}, {"anyOf", is_list, "a list"}, {"oneOf", is_list, "a list"}, {"properties", is_object, "an object"},
        {"minimum", is_number, "a number"}, {"maximum", is_number, "a number"}, {"multipleOf", is_number, "a number"}, {"minLength", is_count, "a number of at least 0"}, {"maxLength", is_count, "a number of at least 0"},
        {"minItems", is_count, "a number of at least 0"}, {"maxItems", is_count, "a number of at least 0"}, {"minProperties", is_count, "a number of at least 0"}, {"maxProperties", is_count, "a number of at least 0"},
        {"nullable", is_flag, "true or false"}, {"uniqueItems", is_flag, "true or false"}, {"exclusiveMinimum", is_flag, "true or false"}, {"exclusiveMaximum", is_flag, "true or false"},
        {"x-kubernetes-int-or-string", is_flag, "true or false"}, {"x-kubernetes-preserve-unknown-fields", is_flag, "true or false"}, {"x-kubernetes-embedded-resource", is_flag, "true or false"}};
    for (const auto& keyword : keywords)
        if (const auto found = schema.find(keyword.name); found != schema.end() && !keyword.good(*found) && out.size() < faults_max)
            out.push_back({fmt::format("{}.{}", path, keyword.name), "FieldValueTypeInvalid", fmt::format("Invalid value: {}: must be {}", brief(*found), keyword.what)});
}

void check_structural_at(const Json& schema, const std::string& path, std::vector<Fault>& out, int depth) {
    if (out.size() >= faults_max) return;
    if (!schema.is_object()) {
        out.push_back({path, "FieldValueTypeInvalid", fmt::format("Invalid value: {}: must be an object", brief(schema))});
        return;
    }
    if (depth > schema_depth_max) {
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: schemas nested deeper than {} levels are not taken", schema_depth_max)});
        return;
    }
    check_keywords(schema, path, out);
    if (schema.contains("$ref")) out.push_back({path + ".$ref", "FieldValueForbidden", "Forbidden: $ref is not supported"});
    const auto type = schema.find("type");
    static const std::set<std::string> known{"object", "array", "string", "integer", "number", "boolean"};
    if (type != schema.end() && (!type->is_string() || !known.contains(type->get<std::string>())))
        out.push_back({path + ".type", "FieldValueNotSupported", fmt::format("Unsupported value: {}: supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"", brief(*type))});
    if (const auto pattern = schema.find("pattern"); pattern != schema.end() && (!pattern->is_string() || !is_pattern(pattern->get_ref<const std::string&>())))
        out.push_back({path + ".pattern", "FieldValueInvalid", fmt::format("Invalid value: {}: must be a valid regular expression of at most {} bytes, which needs at most 1 MiB", brief(*pattern), pattern_bytes_max)});
    if (type != schema.end() && *type == "array" && !schema.contains("items")) out.push_back({path + ".items", "FieldValueRequired", "Required value: must be specified"});
    if (const auto properties = schema.find("properties"); properties != schema.end() && properties->is_object())
        for (const auto& [key, child] : properties->items()) check_structural_at(child, entry_path(path + ".properties", key), out, depth + 1);
    for (const char* key : {"items", "not"})
        if (schema.contains(key)) check_structural_at(schema[key], fmt::format("{}.{}", path, key), out, depth + 1);
    if (const auto additional = schema.find("additionalProperties"); additional != schema.end() && additional->is_object())
        check_structural_at(*additional, path + ".additionalProperties", out, depth + 1);
    for (const char* key : {"allOf", "anyOf", "oneOf"})
        if (const auto parts = schema.find(key); parts != schema.end() && parts->is_array())
            for (std::size_t i = 0; i < parts->size(); ++i) check_structural_at((*parts)[i], fmt::format("{}.{}[{}]", path, key, i), out, depth + 1);
}

}  // namespace

void check_schema(const Json& schema, const Json& value, const std::string& path, std::vector<Fault>& out) {
    auto steps = steps_max;
    check_at(schema, value, path, {out, steps}, 0);
    if (steps == 0) out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: checking it against its schema takes more than {} steps; make its lists shorter or the schema simpler", steps_max)});
}
bool default_schema(const Json& schema, Json& value, std::size_t& budget) { return default_at(schema, value, budget, 0); }
void prune_schema(const Json& schema, Json& value, const std::string& path, std::vector<Fault>& out) { prune_at(schema, value, path, out, 0); }
void check_structural(const Json& schema, const std::string& path, std::vector<Fault>& out) { check_structural_at(schema, path, out, 0); }

}  // namespace penstock::resources
