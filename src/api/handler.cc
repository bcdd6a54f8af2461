#include "api/handler.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::api {

using registry::Failure;
using resources::at_path;
using resources::Json;
using resources::Kind;
using resources::text_at;

namespace {

Reply json_reply(int status, const Json& body) {
    return {.status = status, .body = body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"};
}
Reply failure_reply(const Failure& failure) { return json_reply(failure.code, failure.to_json()); }
Reply failure_reply(int code, std::string reason, std::string message) {
    return failure_reply(Failure{.code = code, .reason = std::move(reason), .message = std::move(message)});
}
Reply no_such_path() { return failure_reply(404, "NotFound", "the server could not find the requested resource"); }

std::string query_of(const Request& request, const char* key) {
    const auto at = request.query.find(key);
    return at == request.query.end() ? std::string() : at->second;
}

enum class Form : std::uint8_t { plain, table, unacceptable };

/// Walks the Accept clauses in order; the first that can be served wins.
Form form_of(const std::string& accept) {
    if (trim(accept).empty()) return Form::plain;
    for (const auto clause : split(accept, ',')) {
        std::string type, as;
        bool first = true;
        for (const auto part : split(clause, ';')) {
            const auto word = trim(part);
            if (first) type = word;
            else if (word.starts_with("as=")) as = word.substr(3);
            first = false;
        }
        const bool json = type == "application/json" || type == "*/*" || type == "application/*";
        if (!json) continue;
        if (as.empty()) return Form::plain;
        if (as == "Table") return Form::table;
    }
    return Form::unacceptable;
}

Json resource_entry(const Kind& kind) {
    Json out = {{"name", kind.plural}, {"singularName", kind.singular}, {"namespaced", kind.namespaced}, {"kind", kind.kind},
                {"verbs", {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}}};
    if (!kind.short_names.empty()) out["shortNames"] = kind.short_names;
    if (!kind.categories.empty()) out["categories"] = kind.categories;
    return out;
}

/// A protobuf field of wire type 2.
void put_field(std::string& out, unsigned number, std::string_view bytes) {
    auto varint = [&](std::uint64_t value) {
        while (value >= 128) out += static_cast<char>(value | 0x80), value >>= 7;
        out += static_cast<char>(value);
    };
    varint(number << 3 | 2);
    varint(bytes.size());
    out += bytes;
}

}  // namespace

bool User::is_master() const { return std::ranges::find(groups, "system:masters") != groups.end(); }

struct Handler::Route {
    const Kind* kind = nullptr;
    std::string name_space;
    std::string name;
    std::string subresource;
};

Reply Handler::handle(const Request& request) {
    const auto& path = request.path;
    if (path == "/healthz" || path == "/livez") return {.content_type = "text/plain", .body = "ok"};
    if (path == "/readyz") {
        const auto why = ready_check_ ? ready_check_() : std::string();
        return {.status = why.empty() ? 200 : 500, .content_type = "text/plain", .body = why.empty() ? "ok" : why};
    }
    if (!request.authorization.empty()) return failure_reply(401, "Unauthorized", "Unauthorized");   // no tokens are issued: none can be right
    if (path == "/version")
        return json_reply(200, {{"major", "1"}, {"minor", "33"}, {"gitVersion", "v1.33.0+penstock"}, {"gitCommit", version_}, {"gitTreeState", "clean"},
                                {"buildDate", "2026-01-01T00:00:00Z"}, {"goVersion", "none"}, {"compiler", "g++"}, {"platform", "linux/amd64"}});
    if (!request.user.is_master())
        return failure_reply(403, "Forbidden", fmt::format("forbidden: User \"{}\" cannot {} path \"{}\"; use the kubeconfig in the data directory", request.user.name, to_lower(request.method), path));
    if (path.starts_with("/openapi/")) return openapi(request);

    std::vector<std::string> parts;
    for (const auto part : split(std::string_view(path).substr(1), '/')) parts.emplace_back(part);
    if (!parts.empty() && parts.back().empty()) parts.pop_back();
    if (parts.empty()) {
        std::vector<std::string> paths{"/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"};
        for (const auto& kind : resources::all_kinds())
            if (!kind.group.empty() && std::ranges::find(paths, "/apis/" + kind.api_version()) == paths.end()) paths.push_back("/apis/" + kind.api_version());
        return json_reply(200, {{"paths", paths}});
    }
    const bool core = parts[0] == "api";
    if (!core && parts[0] != "apis") return {.status = 404, .content_type = "text/plain", .body = "404 page not found\n"};
    const std::size_t prefix = core ? 2 : 3;
    if (parts.size() <= prefix) return discovery(request);
    const auto api_version = core ? parts[1] : parts[1] + "/" + parts[2];
    Route route;
    auto at = prefix;
    const bool scoped = parts[at] == "namespaces" && parts.size() > at + 2;
    if (scoped) {
        route.name_space = parts[at + 1];
        at += 2;
    }
    for (const auto& kind : resources::all_kinds())
        if (kind.api_version() == api_version && kind.plural == parts[at]) route.kind = &kind;
    if (route.kind == nullptr || (scoped && !route.kind->namespaced)) return no_such_path();
    if (parts.size() > at + 1) route.name = parts[at + 1];
    if (parts.size() > at + 2) route.subresource = parts[at + 2];
    if (parts.size() > at + 3) return no_such_path();
    if (!route.subresource.empty() && (route.subresource != "status" || !route.kind->has_status)) return no_such_path();
    if (route.kind->namespaced && route.name_space.empty() && !route.name.empty()) return no_such_path();
    return resource(request, route);
}

Reply Handler::discovery(const Request& request) const {
    std::vector<std::string> groups;
    for (const auto& kind : resources::all_kinds())
        if (!kind.group.empty() && std::ranges::find(groups, kind.group) == groups.end()) groups.push_back(kind.group);
    auto group_json = [](const std::string& group) {
        std::string version;
        for (const auto& kind : resources::all_kinds())
            if (kind.group == group) version = kind.version;
        const Json entry = {{"groupVersion", group + "/" + version}, {"version", version}};
        return Json{{"name", group}, {"versions", Json::array({entry})}, {"preferredVersion", entry}};
    };
    std::string_view path = request.path;
    if (path.ends_with('/')) path.remove_suffix(1);
    if (path == "/api")
        return json_reply(200, {{"kind", "APIVersions"}, {"versions", {"v1"}}, {"serverAddressByClientCIDRs", Json::array({{{"clientCIDR", "0.0.0.0/0"}, {"serverAddress", "127.0.0.1:6443"}}})}});
    if (path == "/apis") {
        Json list = Json::array();
        for (const auto& group : groups) list.push_back(group_json(group));
        return json_reply(200, {{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", list}});
    }
    std::string wanted(path.substr(path.starts_with("/apis/") ? 6 : 5));
    if (path.starts_with("/apis/"))
        for (const auto& group : groups) {
            if (wanted != group) continue;
            auto one = group_json(group);
            one["kind"] = "APIGroup";
            one["apiVersion"] = "v1";
            return json_reply(200, one);
        }
    Json list = Json::array();
    for (const auto& kind : resources::all_kinds()) {
        if (kind.api_version() != wanted || kind.group.empty() != path.starts_with("/api/")) continue;
        list.push_back(resource_entry(kind));
        if (kind.has_status)
            list.push_back({{"name", kind.plural + "/status"}, {"singularName", ""}, {"namespaced", kind.namespaced}, {"kind", kind.kind}, {"verbs", {"get", "patch", "update"}}});
    }
    if (list.empty()) return no_such_path();
    return json_reply(200, {{"kind", "APIResourceList"}, {"apiVersion", "v1"}, {"groupVersion", wanted}, {"resources", list}});
}

Reply Handler::openapi(const Request& request) const {
    if (request.path == "/openapi/v2") {
        if (request.accept.find("protobuf") == std::string::npos)
            return json_reply(200, {{"swagger", "2.0"}, {"info", {{"title", "penstock"}, {"version", version_}}}, {"paths", Json::object()}});
        // gnostic's openapi.v2.Document: 1 swagger, 2 info {1 title, 2 version}, 8 paths.
        std::string info, out;
        put_field(info, 1, "penstock");
        put_field(info, 2, version_);
        put_field(out, 1, "2.0");
        put_field(out, 2, info);
        put_field(out, 8, "");
        return {.content_type = "application/octet-stream", .body = out};
    }
    auto group_path = [](const Kind& kind) { return (kind.group.empty() ? "api/" : "apis/") + kind.api_version(); };
    if (request.path == "/openapi/v3") {
        Json paths = Json::object();
        for (const auto& kind : resources::all_kinds())
            paths[group_path(kind)] = {{"serverRelativeURL", fmt::format("/openapi/v3/{}?hash={}", group_path(kind), version_)}};
        return json_reply(200, {{"paths", paths}});
    }
    Json paths = Json::object(), schemas = Json::object();
    for (const auto& kind : resources::all_kinds()) {
        if (request.path != "/openapi/v3/" + group_path(kind)) continue;
        auto scope = fmt::format("/{}/{}{}", group_path(kind), kind.namespaced ? "namespaces/{namespace}/" : "", kind.plural);
        const Json gvk = {{"group", kind.group}, {"version", kind.version}, {"kind", kind.kind}};
        const Json parameters = Json::array({{{"name", "dryRun"}, {"in", "query"}, {"schema", {{"type", "string"}, {"uniqueItems", true}}}},
                                             {{"name", "fieldValidation"}, {"in", "query"}, {"schema", {{"type", "string"}, {"uniqueItems", true}}}}});
        const Json responses = {{"200", {{"description", "OK"}}}};
        paths[scope]["post"] = {{"x-kubernetes-action", "post"}, {"x-kubernetes-group-version-kind", gvk}, {"parameters", parameters}, {"responses", responses}};
        paths[scope + "/{name}"]["patch"] = {{"x-kubernetes-action", "patch"}, {"x-kubernetes-group-version-kind", gvk}, {"parameters", parameters}, {"responses", responses}};
        std::string schema_name;
        const auto pieces = split(kind.group.empty() ? "core.api.k8s.io" : std::string_view(kind.group), '.');
        for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) schema_name += std::string(*piece) + ".";
        schemas[schema_name + kind.version + "." + kind.kind] = resources::openapi_schema(kind);
    }
    if (paths.empty()) return no_such_path();
    return json_reply(200, {{"openapi", "3.0.0"}, {"info", {{"title", "penstock"}, {"version", version_}}}, {"paths", paths}, {"components", {{"schemas", schemas}}}});
}

Reply Handler::resource(const Request& request, const Route& route) {
    if (request.method == "GET") return read(request, route);
    if (request.method == "POST" || request.method == "PUT" || request.method == "PATCH" || request.method == "DELETE") return write(request, route);
    return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
}

Reply Handler::read(const Request& request, const Route& route) const {
    const auto form = form_of(request.accept);
    if (form == Form::unacceptable)
        return failure_reply(406, "NotAcceptable", "only the following media types are accepted: application/json");
    const auto whole = query_of(request, "includeObject") == "Object";
    if (!route.name.empty() && query_of(request, "watch").empty()) {
        const auto found = registry_.get(*route.kind, route.name_space, route.name);
        if (!found) return failure_reply(found.error());
        return json_reply(200, form == Form::table ? make_table(*route.kind, {*found}, registry_.version(), whole, true) : **found);
    }

    std::string only_name = route.name;
    const auto fields = query_of(request, "fieldSelector");   // named: the parts are views into it
    for (const auto part : split(fields, ',')) {
        const auto term = trim(part);
        if (term.empty()) continue;
        const auto equal = term.find('=');
        const auto key = term.substr(0, equal);
        auto value = equal == std::string_view::npos ? std::string_view{} : term.substr(equal + 1);
        if (value.starts_with('=')) value.remove_prefix(1);
        if (key == "metadata.name") only_name = value;
        else if (key != "metadata.namespace") return failure_reply(400, "BadRequest", fmt::format("field label not supported: {}", key));
    }
    const auto labels = query_of(request, "labelSelector");
    if (auto valid = matches_labels(labels, Json::object()); !valid) return failure_reply(400, "BadRequest", valid.error().message);
    const auto version_text = query_of(request, "resourceVersion");
    const auto version = parse_number<std::uint64_t>(version_text);
    if (!version_text.empty() && !version) return failure_reply(400, "BadRequest", fmt::format("resourceVersion: Invalid value: \"{}\": must be a number", version_text));
    const auto watching = query_of(request, "watch");
    if (watching == "true" || watching == "1") {
        Reply out;
        const bool initial = query_of(request, "sendInitialEvents") == "true";
        out.watch = Watch{.kind = route.kind, .name_space = route.name_space, .name = only_name, .label_selector = labels, .from = version.value_or(0),
                          .initial_state = initial || version.value_or(0) == 0, .as_table = form == Form::table,
                          .bookmarks = query_of(request, "allowWatchBookmarks") == "true", .mark_initial_end = initial,
                          .timeout_s = parse_number<int>(query_of(request, "timeoutSeconds")).value_or(0)};
        return out;
    }
    auto listing = registry_.list(*route.kind, route.name_space);
    std::erase_if(listing.items, [&](const auto& item) {
        return (!only_name.empty() && text_at(*item, "metadata.name") != only_name) || !matches_labels(labels, *item).value_or(false);
    });
    if (form == Form::table) return json_reply(200, make_table(*route.kind, listing.items, listing.version, whole, true));
    Json items = Json::array();
    for (const auto& item : listing.items) items.push_back(*item);
    return json_reply(200, {{"kind", route.kind->kind + "List"}, {"apiVersion", route.kind->api_version()}, {"metadata", {{"resourceVersion", std::to_string(listing.version)}}}, {"items", items}});
}

Reply Handler::write(const Request& request, const Route& route) {
    const auto& kind = *route.kind;
    const bool status = route.subresource == "status";
    std::vector<std::string> warnings;
    registry::WriteOptions options{.warnings = &warnings};
    if (const auto dry = query_of(request, "dryRun"); dry == "All") options.dry_run = true;
    else if (!dry.empty()) return failure_reply(422, "Invalid", fmt::format("dryRun: Unsupported value: [\"{}\"]: supported values: \"All\"", dry));
    const auto validation = query_of(request, "fieldValidation");
    if (validation == "Strict") options.validation = registry::FieldValidation::strict;
    else if (validation == "Ignore") options.validation = registry::FieldValidation::ignore;
    else if (!validation.empty() && validation != "Warn") return failure_reply(422, "Invalid", fmt::format("fieldValidation: Unsupported value: \"{}\": supported values: \"Ignore\", \"Strict\", \"Warn\"", validation));

    auto answer = [&](const registry::Answer<registry::ObjectRef>& result, int code) {
        if (!result) return failure_reply(result.error());
        auto out = json_reply(code, form_of(request.accept) == Form::table ? make_table(kind, {*result}, registry_.version(), false, true) : **result);
        for (const auto& w : warnings) out.headers.emplace_back("Warning", fmt::format("299 - \"{}\"", [&] {
                                                                    std::string escaped;
                                                                    for (const char c : w) escaped += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
                                                                    return escaped;
                                                                }()));
        return out;
    };
    const auto media = to_lower(trim(std::string_view(request.content_type).substr(0, request.content_type.find(';'))));
    auto body = [&]() -> Result<Json> {
        if (media == "application/yaml") {
            auto documents = resources::parse_documents(request.body, "body");
            if (!documents) return std::unexpected(documents.error());
            if (documents->size() != 1) return fail("one YAML document is needed");
            return documents->front().object;
        }
        return resources::parse_json(request.body);
    };

    if (request.method == "DELETE") {
        Json preconditions;
        if (!request.body.empty()) {
            const auto parsed = resources::parse_json(request.body);
            if (!parsed) return failure_reply(400, "BadRequest", fmt::format("DeleteOptions: {}", parsed.error().message));
            preconditions = at_path(*parsed, "preconditions");
        }
        if (route.name.empty()) {
            const auto labels = query_of(request, "labelSelector");
            auto listing = registry_.list(kind, route.name_space);
            Json items = Json::array();
            for (const auto& item : listing.items) {
                const auto matched = matches_labels(labels, *item);
                if (!matched) return failure_reply(400, "BadRequest", matched.error().message);
                if (!*matched) continue;
                const auto removed = registry_.remove(kind, text_at(*item, "metadata.namespace"), text_at(*item, "metadata.name"), {}, options.dry_run);
                if (removed) items.push_back(*item);
            }
            return json_reply(200, {{"kind", kind.kind + "List"}, {"apiVersion", kind.api_version()}, {"metadata", Json::object()}, {"items", items}});
        }
        const auto removed = registry_.remove(kind, route.name_space, route.name, preconditions, options.dry_run);
        if (!removed) return failure_reply(removed.error());
        if (!removed->is_gone || kind.kind == "Service") return json_reply(200, *removed->object);
        Json details = {{"name", route.name}, {"kind", kind.plural}, {"uid", text_at(*removed->object, "metadata.uid")}};
        if (!kind.group.empty()) details["group"] = kind.group;
        return json_reply(200, {{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", Json::object()}, {"status", "Success"}, {"details", details}});
    }
    if (request.method == "PATCH") {
        if (route.name.empty()) return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        registry::PatchType type{};
        if (media == "application/merge-patch+json") type = registry::PatchType::merge;
        else if (media == "application/json-patch+json") type = registry::PatchType::json;
        else if (media == "application/strategic-merge-patch+json" && kind.is_open) type = registry::PatchType::strategic;
        else
            return failure_reply(415, "UnsupportedMediaType", fmt::format("the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json{}", kind.is_open ? ", application/strategic-merge-patch+json" : ""));
        const auto patch = resources::parse_json(request.body);
        if (!patch) return failure_reply(400, "BadRequest", fmt::format("the patch is not JSON: {}", patch.error().message));
        return answer(registry_.patch(kind, route.name_space, route.name, type, *patch, status, options), 200);
    }
    if (!media.empty() && media != "application/json" && media != "application/yaml")
        return failure_reply(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml");
    auto object = body();
    if (!object) return failure_reply(400, "BadRequest", fmt::format("the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {}", kind.kind, object.error().message));
    if (const auto given = text_at(*object, "kind"); !given.empty() && given != kind.kind)
        return failure_reply(400, "BadRequest", fmt::format("{} in version \"{}\" cannot be handled as a {}: the kind in the data ({}) does not match the expected kind ({})", given, kind.version, kind.kind, given, kind.kind));
    if (const auto given = text_at(*object, "apiVersion"); !given.empty() && given != kind.api_version())
        return failure_reply(400, "BadRequest", fmt::format("the API version in the data ({}) does not match the expected API version ({})", given, kind.api_version()));
    if (request.method == "POST") {
        if (!route.name.empty()) return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        if (kind.namespaced && route.name_space.empty()) return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        return answer(registry_.create(kind, route.name_space, std::move(*object), options), 201);
    }
    if (route.name.empty()) return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    return answer(registry_.update(kind, route.name_space, route.name, std::move(*object), status, options), 200);
}

std::string Handler::watch_line(const Watch& watch, const registry::Event& event, bool first) const {
    if (event.kind != watch.kind || (!watch.name_space.empty() && event.name_space != watch.name_space)) return {};
    auto concerns = [&](const registry::ObjectRef& object) {
        return object != nullptr && (watch.name.empty() || text_at(*object, "metadata.name") == watch.name) && matches_labels(watch.label_selector, *object).value_or(false);
    };
    // An object that begins to match is ADDED, one that stops is DELETED.
    const bool now = event.type != registry::Event::Type::deleted && concerns(event.object);
    const bool before = event.type != registry::Event::Type::added && concerns(event.previous);
    if (!now && !before) return {};
    const char* type = now && before ? "MODIFIED" : now ? "ADDED" : "DELETED";
    Json object = watch.as_table ? make_table(*watch.kind, {event.object}, event.version, false, first) : *event.object;
    return Json{{"type", type}, {"object", std::move(object)}}.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Handler::bookmark_line(const Watch& watch, std::uint64_t version, bool initial_end) const {
    Json metadata = {{"resourceVersion", std::to_string(version)}};
    if (initial_end) metadata["annotations"] = {{"k8s.io/initial-events-end", "true"}};
    Json object = {{"kind", watch.kind->kind}, {"apiVersion", watch.kind->api_version()}, {"metadata", metadata}};
    if (watch.as_table) {
        Json cells = Json::array();
        for (std::size_t i = 0; i < watch.kind->columns.size() + 2; ++i) cells.push_back("");
        object = {{"kind", "Table"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", metadata}, {"columnDefinitions", nullptr},
                  {"rows", Json::array({{{"cells", cells}, {"object", {{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", metadata}}}}})}};
    }
    return Json{{"type", "BOOKMARK"}, {"object", std::move(object)}}.dump() + "\n";
}

std::string Handler::expired_line(std::uint64_t asked, std::uint64_t oldest) {
    const Failure failure{.code = 410, .reason = "Expired", .message = fmt::format("too old resource version: {} ({})", asked, oldest)};
    return Json{{"type", "ERROR"}, {"object", failure.to_json()}}.dump() + "\n";
}

}  // namespace penstock::api
