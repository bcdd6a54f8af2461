#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "base/log_modules.h"
#include "base/text.h"
#include "resources/json_schema.h"
#include "resources/schema.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::resources {
namespace {

constexpr std::size_t annotations_bytes_max = 256 * 1024;

std::string type_name(Type type) {
    switch (type) {
        case Type::object:
        case Type::map: return "object";
        case Type::array: return "array";
        case Type::string: return "string";
        case Type::integer: return "integer";
        case Type::number: return "number";
        case Type::int_or_string: return "integer or string";
        case Type::boolean: return "boolean";
        case Type::any: return "any value";
    }
    return "";
}

std::string json_type(const Json& value) {
    return value.is_number_integer() ? "integer" : value.is_number() ? "number" : std::string(value.type_name());
}

bool has_type(const Json& value, Type type) {
    switch (type) {
        case Type::object:
        case Type::map: return value.is_object();
        case Type::array: return value.is_array();
        case Type::string: return value.is_string();
        case Type::integer: return value.is_number_integer();
        case Type::number: return value.is_number();
        case Type::int_or_string: return value.is_number_integer() || value.is_string();
        case Type::boolean: return value.is_boolean();
        case Type::any: return true;
    }
    return false;
}

std::string quoted_list(const std::vector<std::string>& values) {
    std::string out;
    for (const auto& v : values) out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", v);
    return out;
}

void check(const Field& field, const Json& value, const std::string& path, std::vector<Fault>& out);

/// True when no further fault is told.
bool is_full(const std::vector<Fault>& out) { return out.size() >= faults_max; }

void check_fields(const std::vector<Field>& fields, const Json& object, const std::string& path, std::vector<Fault>& out) {
    for (const auto& field : fields) {
        if (is_full(out)) return;
        const auto at = path.empty() ? field.name : path + "." + field.name;
        const auto found = object.find(field.name);
        // null means absent, as kubectl writes it into generated files.
        if (found == object.end() || found->is_null()) {
            if (field.required) out.push_back({at, "FieldValueRequired", "Required value: " + field.doc});
            continue;
        }
        check(field, *found, at, out);
    }
}

void check_text(const Field& field, const std::string& text, const std::string& path, std::vector<Fault>& out) {
    if (const auto bound = length_bound(field); text.size() > bound && code_points(text) > bound) {
        out.push_back({path, "FieldValueTooLong", fmt::format("Too long: may not be more than {} characters", bound)});
    } else if (!field.values.empty()) {
        if (std::ranges::none_of(field.values, [&](const auto& v) { return equal_no_case(v, text); }))
            out.push_back({path, "FieldValueNotSupported", fmt::format("Unsupported value: {}: supported values: {}", brief(Json(text)), quoted_list(field.values))});
    } else if (!field.pattern.empty() && matches_whole(field.pattern, text) != Match::yes) {
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: must be {}", brief(Json(text)), field.pattern_hint)});
    }
}

void check_list(const Field& field, const Json& value, const std::string& path, std::vector<Fault>& out) {
    if (value.size() < field.items_min)
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: at least {} item{} needed", brief(value), field.items_min, field.items_min == 1 ? " is" : "s are")});
    if (value.size() > items_bound(field)) {
        out.push_back({path, "FieldValueTooMany", fmt::format("Too many: {}: must have at most {} items", value.size(), items_bound(field))});
        return;
    }
    std::set<std::string> seen;
    for (std::size_t i = 0; i < value.size() && !is_full(out); ++i) {
        const auto at = fmt::format("{}[{}]", path, i);
        if (!field.items.empty()) check(field.items[0], value[i], at, out);
        if (!field.list_key.empty() && value[i].is_object() && value[i].contains(field.list_key) &&
            !seen.insert(value[i][field.list_key].dump()).second)
            out.push_back({at + "." + field.list_key, "FieldValueDuplicate", fmt::format("Duplicate value: {}", brief(value[i][field.list_key]))});
    }
}

void check_map(const Field& field, const Json& value, const std::string& path, std::vector<Fault>& out) {
    if (value.size() > items_bound(field)) {
        out.push_back({path, "FieldValueTooMany", fmt::format("Too many: {}: must have at most {} entries", value.size(), items_bound(field))});
        return;
    }
    for (const auto& [key, item] : value.items()) {
        if (is_full(out)) return;
        const auto at = entry_path(path, key);
        if (key.size() > map_key_length_max && code_points(key) > map_key_length_max)
            out.push_back({at, "FieldValueTooLong", fmt::format("Too long: a key may not be more than {} characters", map_key_length_max)});
        if (!field.items.empty()) check(field.items[0], item, at, out);
    }
}

void check_integer(const Field& field, const Json& value, const std::string& path, std::vector<Fault>& out) {
    const bool beyond = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
    const auto number = beyond ? INT64_MAX : value.get<std::int64_t>();
    const auto highest = field.maximum.value_or(INT64_MAX);
    if (field.minimum && number < *field.minimum)
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: must be greater than or equal to {}", number, *field.minimum)});
    else if (number > highest || beyond)
        out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: must be less than or equal to {}", value.dump(), highest)});
}

void check(const Field& field, const Json& value, const std::string& path, std::vector<Fault>& out) {
    if (!has_type(value, field.type)) {
        out.push_back({path, "FieldValueTypeInvalid", fmt::format("Invalid value: {}: must be of type {}, not {}", brief(value), type_name(field.type), json_type(value))});
        return;
    }
    switch (field.type) {
        case Type::object: check_fields(field.fields, value, path, out); break;
        case Type::map: check_map(field, value, path, out); break;
        case Type::array: check_list(field, value, path, out); break;
        case Type::string: check_text(field, value.get_ref<const std::string&>(), path, out); break;
        case Type::integer: check_integer(field, value, path, out); break;
        case Type::int_or_string:
            if (value.is_string()) check_text(field, value.get_ref<const std::string&>(), path, out);
            else check_integer(field, value, path, out);
            break;
        default: break;
    }
}

/// What the Kubernetes API reads a null as where a value of a typed kind stands in a list or map: Go's zero value.
Json zero_of(const Field& field) {
    switch (field.type) {
        case Type::object:
        case Type::map: return Json::object();
        case Type::array: return Json::array();
        case Type::string: return "";
        case Type::integer:
        case Type::number:
        case Type::int_or_string: return 0;
        case Type::boolean: return false;
        case Type::any: return nullptr;
    }
    return nullptr;
}

/// `typed`: of Kubernetes' own kinds and of metadata, whose nulls in lists and maps are empty values there. The other kinds have a
/// schema, which refuses them. A field that is null is absent in both.
void prune_fields(const std::vector<Field>& fields, Json& object, const std::string& path, const std::vector<std::string>& also, std::vector<Fault>& out, bool typed) {
    if (!object.is_object()) return;
    std::vector<std::string> names = also;
    for (const auto& field : fields) names.push_back(field.name);
    std::vector<std::string> unknown;
    for (auto& [key, value] : object.items()) {
        const auto at = member_path(path, key);
        const auto field = std::ranges::find(fields, key, &Field::name);
        if (field == fields.end()) {
            if (std::ranges::find(also, key) != also.end()) continue;
            unknown.push_back(key);
            if (is_full(out)) continue;   // it goes all the same
            const auto near = nearest(key, names);
            out.push_back({at, "FieldValueInvalid", fmt::format("unknown field \"{}\"{}", at, near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near))});
            continue;
        }
        auto inside = [&](const Field& shape, Json& item, const std::string& where) {
            if (typed && item.is_null() && &shape != &*field) item = zero_of(shape);
            if (shape.type == Type::object && !shape.fields.empty()) prune_fields(shape.fields, item, where, {}, out, typed);
            if (typed && shape.type == Type::array && &shape != &*field && !shape.items.empty() && item.is_array())
                for (auto& one : item)
                    if (one.is_null()) one = zero_of(shape.items[0]);
        };
        inside(*field, value, at);
        if (field->type == Type::array && !field->items.empty() && value.is_array())
            for (std::size_t i = 0; i < value.size(); ++i) inside(field->items[0], value[i], fmt::format("{}[{}]", at, i));
        if (field->type == Type::map && !field->items.empty() && value.is_object())
            for (auto& [k, item] : value.items()) inside(field->items[0], item, entry_path(at, k));
    }
    for (const auto& key : unknown) object.erase(key);
}

/// `budget`: bytes that defaults may still add.
bool default_fields(const std::vector<Field>& fields, Json& object, std::size_t& budget) {
    for (const auto& field : fields) {
        auto found = object.find(field.name);
        if (found != object.end() && found->is_null()) object.erase(found), found = object.end();
        if (found == object.end()) {
            if (field.default_value.is_null()) continue;
            const auto size = field.name.size() + 16 * values_of(field.default_value, budget) + (field.default_value.is_string() ? field.default_value.get_ref<const std::string&>().size() : 0);
            if (size > budget) return false;
            budget -= size;
            object[field.name] = field.default_value;
            found = object.find(field.name);
        }
        if (field.type == Type::object && found->is_object() && !default_fields(field.fields, *found, budget)) return false;
        if (field.type == Type::array && !field.items.empty() && found->is_array() && field.items[0].type == Type::object)
            for (auto& item : *found)
                if (item.is_object() && !default_fields(field.items[0].fields, item, budget)) return false;
    }
    return true;
}

bool adopt_fields(const std::vector<Field>& fields, const Json& like, Json& object);

/// See adopt_spelling(); of one value.
bool adopt_value(const Field& field, const Json& like, Json& value) {
    if (like.is_string() && value.is_string()) {
        const auto &there = like.get_ref<const std::string&>(), &typed = value.get_ref<const std::string&>();
        if (field.values.empty() || there == typed || !equal_no_case(there, typed)) return false;
        value = there;
        return true;
    }
    if (like.is_object() && value.is_object()) return adopt_fields(field.fields, like, value);
    if (!like.is_array() || !value.is_array() || field.items.empty()) return false;
    bool any = false;
    for (std::size_t i = 0; i < value.size(); ++i) {
        // Items of a list with a key are the same by that, of another one by their place.
        auto other = like.begin() + static_cast<std::ptrdiff_t>(std::min(i, like.size()));
        if (!field.list_key.empty())
            other = std::ranges::find_if(like, [&](const Json& item) {
                return at_path(item, field.list_key) == at_path(value[i], field.list_key);
            });
        if (other != like.end()) any |= adopt_value(field.items[0], *other, value[i]);
    }
    return any;
}

bool adopt_fields(const std::vector<Field>& fields, const Json& like, Json& object) {
    bool any = false;
    if (!like.is_object() || !object.is_object()) return false;
    for (const auto& field : fields) {
        const auto there = like.find(field.name);
        const auto found = object.find(field.name);
        if (there != like.end() && found != object.end()) any |= adopt_value(field, *there, *found);
    }
    return any;
}

void collect_notes(const std::vector<Field>& fields, const Json& object, const std::string& path, std::vector<Fault>& out) {
    for (const auto& field : fields) {
        const auto found = object.find(field.name);
        if (found == object.end()) continue;
        const auto at = path.empty() ? field.name : path + "." + field.name;
        if (!field.note.empty()) out.push_back({at, "NoEffect", field.note});
        else if (field.type == Type::object && found->is_object()) collect_notes(field.fields, *found, at, out);
    }
}

/// What `kubectl explain` shows: the schema itself has no enumerations (case does not matter) and defaults are shown by no version.
std::string description_of(const Field& field) {
    auto out = field.doc;
    auto add = [&](const std::string& text) { out += (out.empty() ? "" : " ") + text; };
    if (!field.values.empty()) add(fmt::format("One of: {}.", fmt::join(field.values, ", ")));
    if (!field.default_value.is_null() && !field.default_value.is_object()) add(fmt::format("Default: {}.", field.default_value.is_string() ? field.default_value.get<std::string>() : field.default_value.dump()));
    if (!field.note.empty()) add(fmt::format("No effect on one machine: {}.", field.note));
    return out;
}

Json schema_of(const Field& field) {
    Json out = Json::object();
    if (const auto text = description_of(field); !text.empty()) out["description"] = text;
    if (field.type == Type::any) {
        out["x-kubernetes-preserve-unknown-fields"] = true;
        return out;
    }
    if (field.type == Type::int_or_string) out["x-kubernetes-int-or-string"] = true;
    else out["type"] = type_name(field.type);
    if (field.minimum) out["minimum"] = *field.minimum;
    if (field.maximum) out["maximum"] = *field.maximum;
    if (!field.default_value.is_null()) out["default"] = field.default_value;
    if (!field.pattern.empty()) out["pattern"] = "^(" + field.pattern + ")$";
    if (const auto bound = length_bound(field); bound != 0 && field.values.empty()) out["maxLength"] = bound;
    if (const auto bound = items_bound(field); bound != 0) out[field.type == Type::map ? "maxProperties" : "maxItems"] = bound;
    if (field.is_atomic && field.type != Type::array) out["x-kubernetes-map-type"] = "atomic";
    if (field.type == Type::object) {
        Json properties = Json::object(), required = Json::array();
        for (const auto& child : field.fields) {
            properties[child.name] = schema_of(child);
            if (child.required) required.push_back(child.name);
        }
        if (!properties.empty()) out["properties"] = std::move(properties);
        else out["x-kubernetes-preserve-unknown-fields"] = true;
        if (!required.empty()) out["required"] = std::move(required);
    }
    if (field.type == Type::array) {
        out["items"] = field.items.empty() ? Json::object() : schema_of(field.items[0]);
        if (!field.list_key.empty()) {
            out["x-kubernetes-list-type"] = "map";
            out["x-kubernetes-list-map-keys"] = field.map_keys.empty() ? std::vector<std::string>{field.list_key} : field.map_keys;
            out["x-kubernetes-patch-merge-key"] = field.list_key;
            out["x-kubernetes-patch-strategy"] = "merge";
        } else if (field.is_set) {
            out["x-kubernetes-list-type"] = "set";
            out["x-kubernetes-patch-strategy"] = "merge";
        } else {
            out["x-kubernetes-list-type"] = "atomic";
        }
    }
    if (field.type == Type::map) out["additionalProperties"] = field.items.empty() ? Json::object() : schema_of(field.items[0]);
    return out;
}

/// ObjectMeta of every kind, as the Kubernetes API documents it.
const std::vector<Field>& metadata_fields() {
    auto text = [](const char* name, std::size_t longest, const char* doc) { return Field{.name = name, .type = Type::string, .doc = doc, .length_max = longest}; };
    auto number = [](const char* name, const char* doc) { return Field{.name = name, .type = Type::integer, .doc = doc}; };
    auto flag = [](const char* name, const char* doc) { return Field{.name = name, .type = Type::boolean, .doc = doc}; };
    auto text_map = [](const char* name, std::size_t longest, const char* doc) {
        return Field{.name = name, .type = Type::map, .doc = doc, .items = {Field{.type = Type::string, .length_max = longest}}, .items_max = 10'000};
    };
    static const std::vector<Field> fields{
        text("name", 253, "Unique within a namespace."), text("generateName", 248, "Prefix for a generated name."), text("namespace", 63, "The scope of the name."),
        text("selfLink", 1024, "Not used any more."), text("uid", 128, "Unique in time and space; given by the server."), text("resourceVersion", 64, "Changes with every write; opaque."),
        number("generation", "Counts changes of the desired state."), text("creationTimestamp", 64, "When the object was made."),
        text("deletionTimestamp", 64, "When deletion was asked for."), number("deletionGracePeriodSeconds", "Seconds until it goes."),
        text_map("labels", 63, "Words to select by."), text_map("annotations", annotations_bytes_max, "Unstructured remarks; 262,144 bytes in all."),
        Field{.name = "ownerReferences", .type = Type::array, .doc = "Objects this one depends on; when all are gone it goes too.",
              .items = {Field{.type = Type::object, .fields = {text("apiVersion", 317, "Of the owner."), text("kind", 63, "Of the owner."), text("name", 253, "Of the owner."), text("uid", 128, "Of the owner."),
                                                               flag("controller", "The owner manages this object."), flag("blockOwnerDeletion", "The owner waits in foreground deletion.")}}},
              .items_max = 1000, .list_key = "uid"},
        Field{.name = "finalizers", .type = Type::array, .doc = "Who must finish before the object goes.", .items = {Field{.type = Type::string, .length_max = 317}}, .items_max = 1000, .is_set = true},
        Field{.name = "managedFields", .type = Type::array, .doc = "Who owns which field.", .items = {Field{.type = Type::any}}}};
    return fields;
}

void page_rows(const std::vector<Field>& fields, const std::string& path, std::string& out) {
    for (const auto& field : fields) {
        const auto at = path + field.name;
        std::string shape = type_name(field.type);
        if (!field.values.empty()) {
            shape.clear();
            for (const auto& v : field.values) shape += (shape.empty() ? "`" : ", `") + v + "`";
        } else if (field.minimum || field.maximum) {
            shape += fmt::format(" {}–{}", field.minimum ? std::to_string(*field.minimum) : "", field.maximum ? std::to_string(*field.maximum) : "");
        } else if (field.length_max != 0) {
            if (!field.pattern_hint.empty()) shape += ": " + field.pattern_hint;
            shape += fmt::format(", up to {} characters", field.length_max);
        } else if (field.items_max != 0) {
            shape += fmt::format(", up to {} items", field.items_max);
        }
        if (!field.items.empty() && field.items[0].length_max != 0) shape += fmt::format(" of up to {} characters", field.items[0].length_max);
        std::string text = field.doc;
        if (field.required) text += " **Required.**";
        if (!field.note.empty()) text += " *No effect on one machine: " + field.note + "*";
        out += fmt::format("| `{}` | {} | {} | {} |\n", at, shape, field.default_value.is_null() ? "" : "`" + field.default_value.dump() + "`", text);
        if (field.type == Type::object) page_rows(field.fields, at + ".", out);
        if (!field.items.empty() && field.items[0].type == Type::object) page_rows(field.items[0].fields, at + (field.type == Type::array ? "[]." : "[*]."), out);
    }
}

}  // namespace

std::size_t length_bound(const Field& field) {
    if (field.type != Type::string && field.type != Type::int_or_string) return 0;
    return field.length_max != 0 ? field.length_max : text_length_max;
}

std::size_t items_bound(const Field& field) {
    if (field.type != Type::array && field.type != Type::map) return 0;
    if (field.items_max != 0) return field.items_max;
    return field.type == Type::array && !field.items.empty() && field.items[0].type != Type::string ? objects_max : texts_max;
}

namespace {

/// managedFields mirror the object and are written by the server; they are not counted.
bool is_too_deep(const Json& object) {
    for (const auto& [key, value] : object.items()) {
        if (key != "metadata" || !value.is_object()) {
            if (depth_of(value, object_depth_max) >= object_depth_max) return true;
            continue;
        }
        for (const auto& [inner, item] : value.items())
            if (inner != "managedFields" && depth_of(item, object_depth_max - 1) >= object_depth_max - 1) return true;
    }
    return false;
}

/// `prefix`: of a name that is generated, which may end with what only the middle of a name may have.
void check_name(const Kind& kind, const std::string& given, bool prefix, std::vector<Fault>& out) {
    auto name = given;
    if (prefix && name.ends_with('-')) name.back() = 'a';
    auto bad = [&](const char* why) { out.push_back({prefix ? "metadata.generateName" : "metadata.name", "FieldValueInvalid", fmt::format("Invalid value: {}: {}", brief(Json(given)), why)}); };
    constexpr const char* label_rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character, at most 63 of them";
    if (kind.group == "rbac.authorization.k8s.io") {
        if (name == "." || name == ".." || name.find_first_of("/%") != std::string::npos) bad("may not be '.' or '..' and may not contain '/' or '%'");
    } else if (kind.kind == "Namespace" && kind.group.empty()) {
        if (!is_dns_label(name)) bad(label_rule);
    } else if (kind.kind == "Service" && kind.group.empty()) {
        if (!is_dns_label(name) || std::isdigit(static_cast<unsigned char>(name[0])) != 0)
            bad("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character, at most 63 of them");
    } else if (kind.group == "mqttbroker.iotoperations.azure.com") {
        if ((name.size() < 3 && !prefix) || !is_dns_label(name)) bad("must be 3 to 63 characters of a-z, 0-9 and '-', and start and end with a letter or digit");
    } else if (!is_dns_subdomain(name)) {
        bad("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character");
    }
}

/// As apimachinery's ValidateOwnerReferences has it.
void check_owners(const Json& owners, std::vector<Fault>& out) {
    if (!owners.is_array()) return;
    const std::string path = "metadata.ownerReferences";
    std::string controller;
    for (const auto& owner : owners) {
        auto need = [&](const char* field, const std::string& value, const char* what) {
            if (value.empty() && !is_full(out)) out.push_back({fmt::format("{}.{}", path, field), "FieldValueInvalid", fmt::format("Invalid value: {}: {} must not be empty", brief(Json(text_at(owner, field))), what)});
        };
        const auto api_version = text_at(owner, "apiVersion"), kind = text_at(owner, "kind"), name = text_at(owner, "name");
        need("apiVersion", api_version.substr(api_version.find('/') + 1), "version");
        need("kind", kind, "kind");
        need("name", name, "name");
        need("uid", text_at(owner, "uid"), "uid");
        if (api_version == "v1" && kind == "Event" && !is_full(out)) out.push_back({path, "FieldValueInvalid", "Invalid value: v1, Kind=Event is disallowed from being an owner"});
        if (const auto& flag = at_path(owner, "controller"); flag != Json(true)) continue;
        if (controller.empty()) controller = name.empty() ? "?" : name;
        else if (!is_full(out))
            out.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: Only one reference can have Controller set to true. Found \"true\" in references for {} and {}", brief(Json(controller)), brief(Json(name)))});
    }
}

/// As apimachinery's ValidateFinalizers has it, and for Kubernetes' own kinds the rule that comes on top there.
void check_finalizers(const Kind& kind, const Json& finalizers, std::vector<Fault>& out) {
    if (!finalizers.is_array()) return;
    auto bad = [&](const Json& value, const char* why) {
        if (!is_full(out)) out.push_back({"metadata.finalizers", "FieldValueInvalid", fmt::format("Invalid value: {}: {}", brief(value), why)});
    };
    bool orphans = false, waits = false;
    for (const auto& finalizer : finalizers) {
        const auto& text = finalizer.get_ref<const std::string&>();
        const bool standard = text == "kubernetes" || text == "orphan" || text == "foregroundDeletion";
        orphans |= text == "orphan";
        waits |= text == "foregroundDeletion";
        if (!is_qualified_name(text)) bad(finalizer, "name part must consist of alphanumeric characters, '-', '_' or '.', at most 63 of them, with an optional DNS subdomain prefix and '/'");
        else if (kind.built_in && kind.group != "apiextensions.k8s.io" && !standard && text.find('/') == std::string::npos) bad(finalizer, "name is neither a standard finalizer name nor is it fully qualified (such as example.com/name)");
    }
    if (orphans && waits) bad(finalizers, "finalizer orphan and foregroundDeletion cannot be both set");
}

void check_metadata(const Kind& kind, const Json& metadata, std::vector<Fault>& out) {
    for (const auto& field : metadata_fields()) {
        const auto found = metadata.find(field.name);
        if (found != metadata.end() && !found->is_null()) check(field, *found, "metadata." + field.name, out);
    }
    if (!out.empty()) return;
    auto each = [&](const char* map, auto&& fn) {
        if (const auto found = metadata.find(map); found != metadata.end() && found->is_object())
            for (const auto& [key, value] : found->items()) fn(key, value.template get_ref<const std::string&>());
    };
    auto bad_key = [&](const char* map, const std::string& key) {
        if (!is_full(out)) out.push_back({fmt::format("metadata.{}", map), "FieldValueInvalid", fmt::format("Invalid value: {}: name part must consist of alphanumeric characters, '-', '_' or '.', at most 63 of them, with an optional DNS subdomain prefix and '/'", brief(Json(key)))});
    };
    each("labels", [&](const std::string& key, const std::string& value) {
        if (!is_qualified_name(key)) bad_key("labels", key);
        if (!value.empty() && !is_label_word(value) && !is_full(out))
            out.push_back({"metadata.labels", "FieldValueInvalid", fmt::format("Invalid value: {}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, at most 63 of them", brief(Json(value)))});
    });
    std::size_t total = 0;
    each("annotations", [&](const std::string& key, const std::string& value) {
        if (!is_qualified_name(to_lower(key))) bad_key("annotations", key);
        total += key.size() + value.size();
    });
    if (total > annotations_bytes_max) out.push_back({"metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes"});
    check_owners(metadata.value("ownerReferences", Json()), out);
    check_finalizers(kind, metadata.value("finalizers", Json()), out);
}

}  // namespace

std::vector<Fault> validate(const Kind& kind, const Json& object) {
    std::vector<Fault> out;
    const auto name = text_at(object, "metadata.name");
    if (is_too_deep(object)) {
        out.push_back({"", "FieldValueInvalid", fmt::format("Invalid value: nested deeper than {} levels", object_depth_max)});
        return out;
    }
    if (name.empty()) out.push_back({"metadata.name", "FieldValueRequired", "Required value: name or generateName is required"});
    else check_name(kind, name, false, out);
    if (const auto prefix = text_at(object, "metadata.generateName"); !prefix.empty()) check_name(kind, prefix, true, out);
    if (const auto metadata = object.find("metadata"); metadata != object.end() && metadata->is_object()) check_metadata(kind, *metadata, out);
    if (kind.dynamic) check_schema(kind.schema, object, "", out);
    else check_fields(kind.fields, object, "", out);
    return out;
}

std::vector<Fault> prune_unknown(const Kind& kind, Json& object) {
    std::vector<Fault> out;
    if (kind.dynamic) {
        prune_schema(kind.schema, object, "", out);
    } else {
        std::vector<std::string> also{"apiVersion", "kind", "metadata"};
        if (kind.has_status && std::ranges::find(kind.fields, "status", &Field::name) == kind.fields.end()) also.emplace_back("status");
        prune_fields(kind.fields, object, "", also, out, kind.built_in);
    }
    if (auto metadata = object.find("metadata"); metadata != object.end()) prune_fields(metadata_fields(), *metadata, "metadata", {}, out, true);
    return out;
}

bool apply_defaults(const Kind& kind, Json& object) {
    auto budget = defaults_bytes_max;
    if (!object.is_object()) return true;
    return kind.dynamic ? default_schema(kind.schema, object, budget) : default_fields(kind.fields, object, budget);
}

namespace {

/// Absent is None, as in AIO, which is easily taken for "all": said to whoever wrote no `mode: None` for it.
void note_what_is_not_kept(const Json& persistence, std::vector<Fault>& out) {
    if (!persistence.is_object()) return;
    std::string fields, things, all;
    for (const auto& [field, thing] : {std::pair{"retain", "retained messages"},
                                       std::pair{"subscriberQueue", "messages that wait for a subscriber"},
                                       std::pair{"stateStore", "keys of the state store"}}) {
        const auto found = persistence.find(field);
        if (found != persistence.end() && !found->is_null()) continue;
        const auto* comma = fields.empty() ? "" : ", ";
        fields += fmt::format("{}{}", comma, field);
        things += fmt::format("{}{}", comma, thing);
        all += fmt::format("{}{}: {{mode: All}}", comma, field);
    }
    if (fields.empty()) return;
    out.push_back({"spec.persistence", "NotKept",
                   fmt::format("without {} (absent is mode None) these are not kept across a restart: {}; "
                               "what keeps them is persistence: {{{}}}, and mode: None says that it is meant",
                               fields, things, all)});
}

constexpr std::string_view own_prefix = "penstock.io/";

/// Annotations that the kind's objects may have, without `penstock.io/`.
std::vector<std::string> own_annotations(std::string_view kind) {
    if (kind == "Broker")
        return {"compatibility",      "debug-clients",          "hide-selftest",
                "listeners-per-service-type", "message-buffer-age", "persistence-key",
                "persistence-sync",   "subscriber-queue-bytes", "sys-topics"};
    if (kind == "BrokerListener") return {"websocket-origins"};
    if (kind == "BrokerAuthentication") return {"custom-unreachable", "ocsp"};
    return {};
}

/// An annotation with our prefix that is misspelled, or another kind's; not those that we write ourselves.
void note_unknown_annotations(const Kind& kind, const Json& object, std::vector<Fault>& out) {
    constexpr std::size_t told_max = 10;
    const auto& annotations = at_path(object, "metadata.annotations");
    if (!annotations.is_object()) return;
    const auto known = own_annotations(kind.kind);
    std::string there;
    for (const auto& name : known)
        there += fmt::format("{}{}{}", there.empty() ? "" : ", ", own_prefix, name);
    std::size_t told = 0;
    for (const auto& [key, value] : annotations.items()) {
        if (!key.starts_with(own_prefix)) continue;
        const auto name = key.substr(own_prefix.size());
        if (name == "applied-from" || name == "refused-by-validation") continue;
        if (std::ranges::find(known, name) != known.end() || told++ >= told_max) continue;
        const auto near = nearest(name, known);
        out.push_back({entry_path("metadata.annotations", key), "NoEffect",
                       fmt::format("no annotation of a {} has that name{}; {}", kind.kind,
                                   near.empty() ? std::string()
                                                : fmt::format(" (did you mean \"{}{}\"?)", own_prefix, near),
                                   known.empty() ? "it has none" : "there are " + there)});
    }
}

}  // namespace

std::vector<Fault> notes(const Kind& kind, const Json& object, unsigned cores) {
    std::vector<Fault> out;
    collect_notes(kind.fields, object, "", out);
    if (kind.group != "mqttbroker.iotoperations.azure.com") return out;
    note_unknown_annotations(kind, object, out);
    if (kind.kind == "Broker") {
        note_what_is_not_kept(at_path(object, "spec.persistence"), out);
        if (auto why = log::unknown_modules(text_at(object, "spec.diagnostics.logs.level")); !why.empty())
            out.push_back({"spec.diagnostics.logs.level", "UnknownName", std::move(why)});
    }
    if (const auto& cardinality = at_path(object, "spec.cardinality"); kind.kind == "Broker" && cardinality.is_object()) {
        const auto& copies = at_path(cardinality, "backendChain.redundancyFactor");
        if (copies.is_number_integer() && copies.get<std::int64_t>() > 1)
            out.push_back({"spec.cardinality.backendChain.redundancyFactor", "Capped", fmt::format("{} is capped to 1: one machine keeps one copy of the state", copies.dump())});
        auto number = [&](const char* path, std::int64_t fallback) {
            const auto& value = at_path(cardinality, path);
            // Whatever is written: the schema refuses what is out of range, and a product of two stays a number.
            constexpr std::int64_t most = 1'000'000;
            return value.is_number_integer() ? std::clamp<std::int64_t>(value.get<std::int64_t>(), 0, most) : fallback;
        };
        const auto workers = number("frontend.replicas", 1) * number("frontend.workers", 2);
        if (workers > cores) out.push_back({"spec.cardinality.frontend", "Capped", fmt::format("replicas x workers is {} and capped to {}: this machine has so many cores", workers, cores)});
    }
    if (const auto& ports = at_path(object, "spec.ports"); kind.kind == "BrokerListener" && ports.is_array())
        for (std::size_t i = 0; i < ports.size(); ++i)
            if (!text_at(ports[i], "authorizationRef").empty() && text_at(ports[i], "authenticationRef").empty())
                out.push_back({fmt::format("spec.ports[{}].authorizationRef", i), "NoEffect", "without authenticationRef anybody may do anything"});
    return out;
}

std::string canonical(const std::vector<std::string>& values, std::string_view text) {
    for (const auto& v : values)
        if (equal_no_case(v, text)) return v;
    return std::string(text);
}

bool adopt_spelling(const Kind& kind, const Json& like, Json& object) {
    return adopt_fields(kind.fields, like, object);
}

std::string canonical_at(const Kind& kind, std::string_view path, const std::string& text) {
    const auto* fields = &kind.fields;
    const Field* at = nullptr;
    for (const auto name : split(path, '.')) {
        const auto found = std::ranges::find(*fields, name, &Field::name);
        if (found == fields->end()) return text;
        at = &*found;
        fields = &at->fields;
    }
    return at == nullptr ? text : canonical(at->values, text);
}

const Kind* find_kind(std::string_view api_version, std::string_view name) {
    for (const auto* kinds : {&all_kinds(), &earlier_versions()})
        for (const auto& kind : *kinds)
            if (kind.kind == name && kind.api_version() == api_version) return &kind;
    return nullptr;
}

const Kind* find_kind_by_word(std::string_view word) { return find_kind_by_word(word, all_kinds()); }

const Kind* find_kind_by_word(std::string_view word, const std::vector<Kind>& among) {
    const auto dot = word.find('.');
    const auto name = to_lower(word.substr(0, dot));
    const auto group = dot == std::string_view::npos ? std::string_view{} : word.substr(dot + 1);
    for (const auto& kind : among) {
        if (!group.empty() && !equal_no_case(group, kind.group) && !equal_no_case(group, kind.version + "." + kind.group)) continue;
        if (name == kind.plural || name == kind.singular || name == to_lower(kind.kind) || std::ranges::find(kind.short_names, name) != kind.short_names.end())
            return &kind;
    }
    return nullptr;
}

std::vector<std::string> verbs_of(const Kind& kind) {
    if (!kind.stored) return {"create"};
    if (kind.read_only) return {"get", "list", "watch"};
    // As in Kubernetes: a path without a name is a slip, and never means every namespace.
    if (kind.built_in && kind.kind == "Namespace")
        return {"create", "delete", "get", "list", "patch", "update", "watch"};
    return {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"};
}

Json metadata_schema() {
    return schema_of(Field{.type = Type::object, .doc = "Standard object metadata.", .fields = metadata_fields()});
}

Json schema_from_fields(const Kind& kind) {
    Field root{.name = {}, .type = Type::object, .doc = kind.doc, .fields = kind.fields};
    auto out = schema_of(root);
    auto& properties = out["properties"];
    properties["apiVersion"] = {{"type", "string"}, {"description", "APIVersion defines the versioned schema of this representation of an object."}};
    properties["kind"] = {{"type", "string"}, {"description", "Kind is a string value representing the REST resource this object represents."}};
    properties["metadata"] = metadata_schema();
    if (kind.has_status && !properties.contains("status"))
        properties["status"] = {{"type", "object"}, {"x-kubernetes-preserve-unknown-fields", true}, {"description", "What happened; written by Penstock."}};
    out.erase("x-kubernetes-preserve-unknown-fields");
    out["x-kubernetes-group-version-kind"] = Json::array({{{"group", kind.group}, {"version", kind.version}, {"kind", kind.kind}}});
    return out;
}

std::string reference_page(const Kind& kind) {
    std::string out = fmt::format("# {}\n\n`apiVersion: {}`, plural `{}`{}.\n\n{}\n\nGenerated from the declaration in `src/resources/kinds.cc` by `./dev docs`; do not edit.\n\n", kind.kind,
                                  kind.api_version(), kind.plural, kind.namespaced ? ", namespaced" : ", cluster-wide", kind.doc);
    out += "Where a field says nothing else a text has at most 65,535 characters, a list or map of texts 100,000 entries, a list of objects 10,000, "
           "a key of a map 1,024 characters. An object has at most 3 MiB and 90 levels; metadata has the bounds of the Kubernetes API (a name 253 characters, "
           "a label 63, all annotations 256 KiB).\n\n";
    out += "| Field | Type | Default | Meaning |\n|---|---|---|---|\n";
    page_rows(kind.fields, "", out);
    out += "\nColumns of `get`: Name";
    for (const auto& c : kind.columns) out += fmt::format(", {}{}", c.name, c.priority > 0 ? " (wide)" : "");
    out += ", Age.\n";
    return out;
}

}  // namespace penstock::resources
