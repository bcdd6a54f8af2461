#pragma once
// The words in which kinds are declared; for kinds*.cc only.
#include "resources/schema.h"

namespace penstock::resources::declare {

inline const std::vector<std::string> modes{"Enabled", "Disabled"};
inline constexpr const char* duration_pattern = "([0-9]+(\\.[0-9]+)?(h|m|s))+";
inline constexpr const char* duration_hint = "a duration in h, m and s, such as 240h or 45m";

inline Field text(std::string name, std::string doc) { return {.name = std::move(name), .type = Type::string, .doc = std::move(doc)}; }
inline Field required_text(std::string name, std::string doc) {
    auto out = text(std::move(name), std::move(doc));
    out.required = true;
    return out;
}
inline Field choice(std::string name, std::vector<std::string> values, Json fallback, std::string doc) {
    return {.name = std::move(name), .type = Type::string, .doc = std::move(doc), .values = std::move(values), .default_value = std::move(fallback)};
}
inline Field number(std::string name, std::int64_t low, std::int64_t high, Json fallback, std::string doc) {
    return {.name = std::move(name), .type = Type::integer, .doc = std::move(doc), .minimum = low, .maximum = high, .default_value = std::move(fallback)};
}
inline Field object(std::string name, std::vector<Field> fields, std::string doc) {
    return {.name = std::move(name), .type = Type::object, .doc = std::move(doc), .fields = std::move(fields)};
}
inline Field texts(std::string name, std::string doc) {
    return {.name = std::move(name), .type = Type::array, .doc = std::move(doc), .items = {text("", "")}};
}
inline Field list(std::string name, std::vector<Field> fields, std::string doc) {
    return {.name = std::move(name), .type = Type::array, .doc = std::move(doc), .items = {object("", std::move(fields), "")}};
}
inline Field text_map(std::string name, std::string doc) {
    return {.name = std::move(name), .type = Type::map, .doc = std::move(doc), .items = {text("", "")}};
}
inline Field duration(std::string name, std::string doc) {
    return {.name = std::move(name), .type = Type::string, .doc = std::move(doc), .pattern = duration_pattern, .pattern_hint = duration_hint, .length_max = 64};
}
/// How long a certificate lives, and when it is renewed; registry/admission.cc has the rules. `absent`: what counts then.
inline Field lifetime(const std::string& absent) { return duration("duration", "Lifetime, at least 1h" + absent + "."); }
inline Field renewal(const std::string& absent) { return duration("renewBefore", "Renewal ahead of the end: at least 5m, and below `duration`" + absent + "."); }
/// Bytes, as `500M` or `10Gi`.
inline Field size(std::string name, std::string doc) {
    return {.name = std::move(name), .type = Type::string, .doc = std::move(doc), .pattern = "[0-9]{1,12}[KMGTPE]i?", .pattern_hint = "a size such as 500M or 10G, of at most 12 digits", .length_max = 32};
}
inline Field bounded(Field field, std::size_t longest) {
    (field.items.empty() ? field : field.items[0]).length_max = longest;
    return field;
}
inline Field open(std::string name, std::string doc) { return {.name = std::move(name), .type = Type::any, .doc = std::move(doc)}; }
inline Field required(Field field) {
    field.required = true;
    return field;
}
inline Field with_note(Field field, std::string note) {
    field.note = std::move(note);
    return field;
}
/// Defaults of an object that is itself filled in when absent.
inline Field filled(Field field) {
    field.default_value = Json::object();
    return field;
}
inline Field flag(std::string name, std::string doc) { return {.name = std::move(name), .type = Type::boolean, .doc = std::move(doc)}; }
inline Field integer(std::string name, std::string doc) { return {.name = std::move(name), .type = Type::integer, .doc = std::move(doc)}; }
inline Field keyed(Field field, std::string key, std::vector<std::string> keys = {}) {
    field.list_key = std::move(key);
    field.map_keys = std::move(keys);
    return field;
}
/// A list whose items are owned one by one in server-side apply, as texts.
inline Field set_of_texts(std::string name, std::string doc) {
    auto out = texts(std::move(name), std::move(doc));
    out.is_set = true;
    return out;
}

}  // namespace penstock::resources::declare

namespace penstock::resources {
/// The kinds of Kubernetes itself, and cert-manager's.
void add_core_kinds(std::vector<Kind>& out);
void add_certificate_kinds(std::vector<Kind>& out);
}  // namespace penstock::resources
