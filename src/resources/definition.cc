#include "resources/definition.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/json_schema.h"

namespace penstock::resources {
namespace {

constexpr std::size_t schema_bytes_max = 512 * 1024;

}  // namespace

std::vector<Fault> check_definition(const Json& definition) {
    std::vector<Fault> out;
    const auto& spec = at_path(definition, "spec");
    const auto group = text_at(spec, "group"), plural = text_at(spec, "names.plural");
    if (const auto wanted = plural + "." + group; text_at(definition, "metadata.name") != wanted)
        out.push_back({"metadata.name", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": must be spec.names.plural+\".\"+spec.group, that is {}", text_at(definition, "metadata.name"), wanted)});
    if (group.find('.') == std::string::npos) out.push_back({"spec.group", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": should be a domain with at least one dot", group)});
    if (plural != to_lower(plural)) out.push_back({"spec.names.plural", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": must be lower case", plural)});
    for (const auto& kind : all_kinds())
        if (kind.group == group && (kind.plural == plural || kind.kind == text_at(spec, "names.kind")))
            out.push_back({"spec.names", "FieldValueForbidden", fmt::format("Forbidden: {} is served by Penstock itself; its schema is part of the program", kind.qualified_plural())});
    if (const auto strategy = text_at(spec, "conversion.strategy", "None"); strategy != "None")
        out.push_back({"spec.conversion.strategy", "FieldValueNotSupported", fmt::format("Unsupported value: \"{}\": supported values: \"None\"", strategy)});
    std::set<std::string> names;
    std::size_t storage = 0;
    const auto& versions = at_path(spec, "versions");
    for (std::size_t i = 0; versions.is_array() && i < versions.size(); ++i) {
        const auto at = fmt::format("spec.versions[{}]", i);
        const auto& version = versions[i];
        if (!names.insert(text_at(version, "name")).second) out.push_back({at + ".name", "FieldValueDuplicate", fmt::format("Duplicate value: \"{}\"", text_at(version, "name"))});
        if (flag_of(version, "storage")) ++storage;
        const auto& schema = at_path(version, "schema.openAPIV3Schema");
        if (!schema.is_object()) {
            out.push_back({at + ".schema.openAPIV3Schema", "FieldValueRequired", "Required value: schemas are required"});
            continue;
        }
        if (schema.dump().size() > schema_bytes_max) out.push_back({at + ".schema.openAPIV3Schema", "FieldValueTooLong", fmt::format("Too long: may not be more than {} bytes", schema_bytes_max)});
        else check_structural(schema, at + ".schema.openAPIV3Schema", out);
        if (text_at(schema, "type") != "object") out.push_back({at + ".schema.openAPIV3Schema.type", "FieldValueInvalid", "Invalid value: must be object at the root"});
        if (const auto& columns = at_path(version, "additionalPrinterColumns"); columns.is_array())
            for (std::size_t c = 0; c < columns.size(); ++c)
                if (!text_at(columns[c], "jsonPath").starts_with('.')) out.push_back({fmt::format("{}.additionalPrinterColumns[{}].jsonPath", at, c), "FieldValueInvalid", "Invalid value: must begin with '.'"});
    }
    if (storage != 1) out.push_back({"spec.versions", "FieldValueInvalid", fmt::format("Invalid value: must have exactly one version marked as storage version, not {}", storage)});
    return out;
}

std::vector<Kind> kinds_of_definition(const Json& definition) {
    std::vector<Kind> out;
    const auto& spec = at_path(definition, "spec");
    const auto& names = at_path(spec, "names");
    const auto& versions = at_path(spec, "versions");
    if (!versions.is_array()) return out;
    for (const auto& version : versions) {
        if (!flag_of(version, "served")) continue;
        Kind kind{.group = text_at(spec, "group"), .version = text_at(version, "name"), .kind = text_at(names, "kind"), .plural = text_at(names, "plural"), .singular = text_at(names, "singular"),
                  .short_names = texts_of(at_path(names, "shortNames")), .categories = texts_of(at_path(names, "categories")), .namespaced = text_at(spec, "scope") != "Cluster",
                  .has_status = at_path(version, "subresources.status").is_object(), .dynamic = true};
        if (kind.singular.empty()) kind.singular = to_lower(kind.kind);
        kind.schema = at_path(version, "schema.openAPIV3Schema");
        kind.doc = text_at(kind.schema, "description");
        auto& properties = kind.schema["properties"];
        if (!properties.is_object()) properties = Json::object();
        properties["apiVersion"] = {{"type", "string"}};
        properties["kind"] = {{"type", "string"}};
        properties["metadata"] = metadata_schema();
        kind.schema["x-kubernetes-group-version-kind"] = Json::array({{{"group", kind.group}, {"version", kind.version}, {"kind", kind.kind}}});
        if (const auto& columns = at_path(version, "additionalPrinterColumns"); columns.is_array())
            for (const auto& column : columns)
                kind.columns.push_back({.name = text_at(column, "name"), .path = text_at(column, "jsonPath"), .type = text_at(column, "type", "string"), .priority = integer_of(column, "priority"), .doc = text_at(column, "description")});
        out.push_back(std::move(kind));
    }
    return out;
}

}  // namespace penstock::resources
