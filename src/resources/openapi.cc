#include "resources/openapi.h"

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::resources {
namespace {

/// Writes protobuf messages of length-delimited fields.
class Writer {
  public:
    Writer& put(std::uint32_t number, std::string_view bytes) {
        varint(number << 3 | 2);
        varint(bytes.size());
        out_ += bytes;
        return *this;
    }
    Writer& put(std::uint32_t number, const Writer& message) { return put(number, message.out_); }
    Writer& flag(std::uint32_t number, bool value) {
        if (!value) return *this;
        varint(number << 3);
        out_ += '\x01';
        return *this;
    }
    [[nodiscard]] const std::string& bytes() const { return out_; }

  private:
    void varint(std::uint64_t value) {
        while (value >= 128) out_ += static_cast<char>(value | 0x80), value >>= 7;
        out_ += static_cast<char>(value);
    }
    std::string out_;
};

Json kind_marks(const Kind& kind) { return {{"group", kind.group}, {"version", kind.version}, {"kind", kind.kind}}; }

std::string scope_path(const Kind& kind) { return fmt::format("/{}/{}{}", group_path(kind), kind.namespaced ? "namespaces/{namespace}/" : "", kind.plural); }

Writer vendor_extension(const std::string& name, const Json& value) { return Writer().put(1, name).put(2, Writer().put(2, value.dump() + "\n")); }

/// gnostic Schema. Lists and maps carry the schema of what they hold.
Writer schema_message(const Json& schema) {
    Writer out;
    if (!schema.is_object()) return out;
    if (schema.contains("format") && schema["format"].is_string()) out.put(2, schema["format"].get<std::string>());
    if (schema.contains("description") && schema["description"].is_string()) out.put(4, schema["description"].get<std::string>());
    if (const auto required = schema.find("required"); required != schema.end() && required->is_array())
        for (const auto& name : *required)
            if (name.is_string()) out.put(19, name.get<std::string>());
    if (const auto additional = schema.find("additionalProperties"); additional != schema.end() && additional->is_object()) out.put(21, Writer().put(1, schema_message(*additional)));
    if (flag_of(schema, "x-kubernetes-int-or-string")) out.put(22, Writer().put(1, "string")).put(2, "int-or-string");
    else if (schema.contains("type") && schema["type"].is_string()) out.put(22, Writer().put(1, schema["type"].get<std::string>()));
    if (const auto items = schema.find("items"); items != schema.end()) out.put(23, Writer().put(1, schema_message(*items)));
    if (const auto properties = schema.find("properties"); properties != schema.end() && properties->is_object() && !properties->empty()) {
        Writer list;
        for (const auto& [name, child] : properties->items()) list.put(1, Writer().put(1, name).put(2, schema_message(child)));
        out.put(25, list);
    }
    for (const auto& [key, value] : schema.items())
        if (key.starts_with("x-kubernetes-")) out.put(31, vendor_extension(key, value));
    return out;
}

Writer operation_message(const Kind& kind, const std::string& action, bool on_object) {
    auto parameter = [](const char* name) {
        // QueryParameterSubSchema: 2 in, 4 name, 6 type, 20 unique_items.
        return Writer().put(1, Writer().put(2, Writer().put(3, Writer().put(2, "query").put(4, name).put(6, "string").flag(20, true))));
    };
    Writer out;
    out.put(5, fmt::format("{}{}{}{}", action, kind.kind, on_object ? "" : "List", kind.version));
    for (const char* name : {"dryRun", "fieldManager", "fieldValidation"}) out.put(8, parameter(name));
    out.put(9, Writer().put(1, Writer().put(1, "200").put(2, Writer().put(1, Writer().put(1, "OK")))));
    out.put(13, vendor_extension("x-kubernetes-action", action));
    out.put(13, vendor_extension("x-kubernetes-group-version-kind", kind_marks(kind)));
    return out;
}

Json operation(const Kind& kind, const char* action) {
    Json parameters = Json::array();
    for (const char* name : {"dryRun", "fieldManager", "fieldValidation"}) parameters.push_back({{"name", name}, {"in", "query"}, {"schema", {{"type", "string"}, {"uniqueItems", true}}}});
    return {{"x-kubernetes-action", action}, {"x-kubernetes-group-version-kind", kind_marks(kind)}, {"parameters", parameters}, {"responses", {{"200", {{"description", "OK"}}}}}};
}

/// What kubectl's client-side validation may not see: it knows neither free-form objects nor open ends.
Json loosened(const Json& schema) {
    if (!schema.is_object()) return schema;
    Json out = schema;
    if (out.contains("properties"))
        for (auto& [key, child] : out["properties"].items()) child = loosened(child);
    if (out.contains("items")) out["items"] = loosened(out["items"]);
    if (out.contains("additionalProperties") && out["additionalProperties"].is_object()) out["additionalProperties"] = loosened(out["additionalProperties"]);
    for (const char* key : {"anyOf", "oneOf", "allOf", "not", "default", "nullable"}) out.erase(key);
    if (flag_of(out, "x-kubernetes-preserve-unknown-fields")) out.erase("properties"), out.erase("type");
    return out;
}

}  // namespace

std::string group_path(const Kind& kind) { return (kind.group.empty() ? "api/" : "apis/") + kind.api_version(); }

std::string definition_name(const Kind& kind) {
    if (kind.group.empty()) return fmt::format("io.k8s.api.core.{}.{}", kind.version, kind.kind);
    std::string out;
    const auto pieces = split(kind.group, '.');
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) out += std::string(*piece) + ".";
    return out + kind.version + "." + kind.kind;
}

Json openapi_v3(const std::vector<const Kind*>& kinds, const std::string& group, const std::string& version) {
    Json paths = Json::object(), schemas = Json::object();
    for (const auto* kind : kinds) {
        if (group_path(*kind) != group) continue;
        const auto scope = scope_path(*kind);
        paths[scope]["post"] = operation(*kind, "post");
        if (kind->stored) {
            paths[scope]["get"] = operation(*kind, "list");
            paths[scope + "/{name}"]["get"] = operation(*kind, "get");
            paths[scope + "/{name}"]["put"] = operation(*kind, "put");
            paths[scope + "/{name}"]["patch"] = operation(*kind, "patch");
            paths[scope + "/{name}"]["delete"] = operation(*kind, "delete");
        }
        schemas[definition_name(*kind)] = kind->schema;
    }
    if (paths.empty()) return {};
    return {{"openapi", "3.0.0"}, {"info", {{"title", "Penstock"}, {"version", version}}}, {"paths", paths}, {"components", {{"schemas", schemas}}}};
}

Json openapi_v2(const std::vector<const Kind*>& kinds, const std::string& version) {
    Json paths = Json::object(), definitions = Json::object();
    for (const auto* kind : kinds) {
        const auto scope = scope_path(*kind);
        paths[scope]["post"] = operation(*kind, "post");
        if (kind->stored) paths[scope + "/{name}"]["patch"] = operation(*kind, "patch");
        definitions[definition_name(*kind)] = loosened(kind->schema);
    }
    return {{"swagger", "2.0"}, {"info", {{"title", "Penstock"}, {"version", version}}}, {"paths", paths}, {"definitions", definitions}};
}

std::string openapi_v2_protobuf(const std::vector<const Kind*>& kinds, const std::string& version) {
    Writer paths, definitions;
    for (const auto* kind : kinds) {
        const auto scope = scope_path(*kind);
        // PathItem: 2 get, 3 put, 4 post, 5 delete, 8 patch.
        paths.put(2, Writer().put(1, scope).put(2, Writer().put(4, operation_message(*kind, "post", false))));
        if (kind->stored) paths.put(2, Writer().put(1, scope + "/{name}").put(2, Writer().put(3, operation_message(*kind, "put", true)).put(8, operation_message(*kind, "patch", true))));
        definitions.put(1, Writer().put(1, definition_name(*kind)).put(2, schema_message(loosened(kind->schema))));
    }
    return Writer().put(1, "2.0").put(2, Writer().put(1, "Penstock").put(2, version)).put(8, paths).put(9, definitions).bytes();
}

}  // namespace penstock::resources
