#include <fmt/format.h>

#include "base/text.h"
#include "resources/schema.h"

namespace penstock::resources {
namespace {

/// What a structural schema may not have, and what only the declaration knows: enumerations, which are taken in any case.
void make_structural(const std::vector<Field>& fields, Json& schema);

void make_structural(const Field& field, Json& schema) {
    schema.erase("x-kubernetes-patch-merge-key");
    schema.erase("x-kubernetes-patch-strategy");
    if (!field.values.empty()) schema["pattern"] = fmt::format("(?i)^({})$", fmt::join(field.values, "|"));
    else if (!field.pattern.empty()) schema["pattern"] = fmt::format("^(?:{})$", field.pattern);
    if (field.items_min > 0) schema["minItems"] = field.items_min;
    if (field.type == Type::object) make_structural(field.fields, schema);
    if (field.items.empty()) return;
    if (field.type == Type::array) make_structural(field.items[0], schema["items"]);
    if (field.type == Type::map) make_structural(field.items[0], schema["additionalProperties"]);
}

void make_structural(const std::vector<Field>& fields, Json& schema) {
    for (const auto& field : fields)
        if (schema.contains("properties") && schema["properties"].contains(field.name)) make_structural(field, schema["properties"][field.name]);
}

}  // namespace

Json definition_of(const Kind& kind) {
    auto schema = kind.schema;
    schema.erase("x-kubernetes-group-version-kind");
    make_structural(kind.fields, schema);
    schema["properties"]["metadata"] = {{"type", "object"}};
    Json columns = Json::array();
    for (const auto& column : kind.columns) {
        if (column.path.starts_with('#')) continue;   // made of several fields, which a JSONPath cannot
        Json one = {{"name", column.name}, {"type", column.type}, {"jsonPath", "." + column.path}};
        if (column.priority > 0) one["priority"] = column.priority;
        if (!column.doc.empty()) one["description"] = column.doc;
        columns.push_back(std::move(one));
    }
    columns.push_back({{"name", "Age"}, {"type", "date"}, {"jsonPath", ".metadata.creationTimestamp"}});
    Json names = {{"kind", kind.kind}, {"listKind", kind.kind + "List"}, {"plural", kind.plural}, {"singular", kind.singular}};
    if (!kind.short_names.empty()) names["shortNames"] = kind.short_names;
    if (!kind.categories.empty()) names["categories"] = kind.categories;
    Json version = {{"name", kind.version}, {"served", true}, {"storage", true}, {"schema", {{"openAPIV3Schema", std::move(schema)}}}, {"additionalPrinterColumns", std::move(columns)}};
    if (kind.has_status) version["subresources"] = {{"status", Json::object()}};
    return {{"apiVersion", "apiextensions.k8s.io/v1"}, {"kind", "CustomResourceDefinition"}, {"metadata", {{"name", kind.qualified_plural()}}},
            {"spec", {{"group", kind.group}, {"names", std::move(names)}, {"scope", kind.namespaced ? "Namespaced" : "Cluster"}, {"versions", Json::array({std::move(version)})}}}};
}

}  // namespace penstock::resources
