// Discovery (legacy and aggregated) and OpenAPI.
#include <algorithm>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/text.h"
#include "resources/openapi.h"

namespace penstock::api {

using resources::Json;
using resources::Kind;

namespace {

struct Subresource {
    const char* name;
    const char* group;
    const char* version;
    const char* kind;                    ///< empty: the resource's own
    std::vector<std::string> verbs;
};

std::vector<Subresource> subresources_of(const Kind& kind) {
    std::vector<Subresource> out;
    if (kind.built_in && kind.kind == "ServiceAccount") out.push_back({"token", "authentication.k8s.io", "v1", "TokenRequest", {"create"}});
    if (kind.built_in && kind.kind == "Pod") out.push_back({"log", "", "", "", {"get"}}), out.push_back({"portforward", "", "", "PodPortForwardOptions", {"create", "get"}});
    if (kind.kind == "Broker" && kind.group == "mqttbroker.iotoperations.azure.com") out.push_back({"decisions", "", "", "", {"get"}}), out.push_back({"clients", "", "", "", {"get"}}), out.push_back({"traces", "", "", "", {"get"}});
    if (kind.has_status) out.push_back({"status", "", "", "", kind.read_only ? std::vector<std::string>{"get"} : std::vector<std::string>{"get", "patch", "update"}});
    return out;
}

void add_legacy(Json& list, const Kind& kind) {
    Json entry = {{"name", kind.plural}, {"singularName", kind.singular}, {"namespaced", kind.namespaced}, {"kind", kind.kind}, {"verbs", resources::verbs_of(kind)}};
    if (!kind.short_names.empty()) entry["shortNames"] = kind.short_names;
    if (!kind.categories.empty()) entry["categories"] = kind.categories;
    list.push_back(std::move(entry));
    for (const auto& sub : subresources_of(kind)) {
        Json part = {{"name", kind.plural + "/" + sub.name}, {"singularName", ""}, {"namespaced", kind.namespaced}, {"kind", *sub.kind == 0 ? kind.kind : sub.kind}, {"verbs", sub.verbs}};
        if (*sub.group != 0) part["group"] = sub.group, part["version"] = sub.version;
        list.push_back(std::move(part));
    }
}

Json aggregated_entry(const Kind& kind) {
    auto gvk = [](const std::string& group, const std::string& version, const std::string& name) { return Json{{"group", group}, {"version", version}, {"kind", name}}; };
    Json out = {{"resource", kind.plural}, {"responseKind", gvk(kind.group, kind.version, kind.kind)}, {"scope", kind.namespaced ? "Namespaced" : "Cluster"}, {"singularResource", kind.singular}, {"verbs", resources::verbs_of(kind)}};
    if (!kind.short_names.empty()) out["shortNames"] = kind.short_names;
    if (!kind.categories.empty()) out["categories"] = kind.categories;
    for (const auto& sub : subresources_of(kind))
        out["subresources"].push_back({{"subresource", sub.name}, {"responseKind", *sub.kind == 0 ? gvk(kind.group, kind.version, kind.kind) : gvk(sub.group, sub.version, sub.kind)}, {"verbs", sub.verbs}});
    return out;
}

/// Groups in order of first appearance, each with its versions.
std::vector<std::pair<std::string, std::vector<std::string>>> groups_of(const std::vector<const Kind*>& kinds) {
    std::vector<std::pair<std::string, std::vector<std::string>>> out;
    for (const auto* kind : kinds) {
        auto group = std::ranges::find(out, kind->group, &std::pair<std::string, std::vector<std::string>>::first);
        if (group == out.end()) group = out.insert(out.end(), {kind->group, {}});
        if (std::ranges::find(group->second, kind->version) == group->second.end()) group->second.push_back(kind->version);
    }
    return out;
}

Json group_json(const std::string& group, const std::vector<std::string>& versions) {
    Json list = Json::array();
    for (const auto& version : versions) list.push_back({{"groupVersion", group + "/" + version}, {"version", version}});
    return {{"name", group}, {"versions", list}, {"preferredVersion", list[0]}};
}

/// The apidiscovery.k8s.io version the first such clause of the Accept header asks for, when it comes before plain JSON.
std::string aggregated_version(const std::string& accept) {
    for (const auto clause : split(accept, ',')) {
        const auto text = std::string(trim(clause));
        if (!text.starts_with("application/json")) continue;
        if (text.find("as=APIGroupDiscoveryList") == std::string::npos) return text == "application/json" ? std::string() : std::string();
        if (text.find("v=v2beta1") != std::string::npos) return "v2beta1";
        if (text.find("v=v2") != std::string::npos) return "v2";
    }
    return {};
}

Reply text_reply(const Request& request, const std::string& text, const std::string& tag) {
    Reply out{.body = text};
    out.headers = {{"ETag", "\"" + tag + "\""}, {"Vary", "Accept"}};
    if (!tag.empty() && request.if_none_match.find(tag) != std::string::npos) out.status = 304, out.body.clear();
    return out;
}

}  // namespace

Reply Handler::discovery(const Request& request, const std::vector<std::string>& parts) const {
    const auto kinds = registry_.kinds();
    const auto groups = groups_of(kinds);
    if (parts.empty()) {
        std::vector<std::string> paths{"/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"};
        for (const auto& [group, versions] : groups) {
            if (group.empty()) continue;
            paths.push_back("/apis/" + group);
            for (const auto& version : versions) paths.push_back("/apis/" + group + "/" + version);
        }
        std::ranges::sort(paths);
        return json_reply(200, {{"paths", paths}});
    }
    const bool core = parts[0] == "api";
    if (!core && parts[0] != "apis") return {.status = 404, .content_type = "text/plain", .body = "404 page not found\n"};
    if (parts.size() == 1) {
        if (const auto version = aggregated_version(request.accept); !version.empty()) {
            Json items = Json::array();
            for (const auto& [group, versions] : groups) {
                if (group.empty() != core) continue;
                Json list = Json::array();
                for (const auto& v : versions) {
                    Json resources = Json::array();
                    for (const auto* kind : kinds)
                        if (kind->group == group && kind->version == v) resources.push_back(aggregated_entry(*kind));
                    list.push_back({{"version", v}, {"freshness", "Current"}, {"resources", resources}});
                }
                Json metadata = {{"creationTimestamp", nullptr}};
                if (!group.empty()) metadata["name"] = group;
                items.push_back({{"metadata", metadata}, {"versions", list}});
            }
            auto out = text_reply(request, Json{{"kind", "APIGroupDiscoveryList"}, {"apiVersion", "apidiscovery.k8s.io/" + version}, {"metadata", Json::object()}, {"items", items}}.dump(),
                                  fmt::format("{}-{}-{}", version_, registry_.kinds_version(), version));
            out.content_type = fmt::format("application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList", version);
            return out;
        }
        if (core)
            return json_reply(200, {{"kind", "APIVersions"}, {"versions", {"v1"}}, {"serverAddressByClientCIDRs", Json::array({{{"clientCIDR", "0.0.0.0/0"}, {"serverAddress", "127.0.0.1:6443"}}})}});
        Json list = Json::array();
        for (const auto& [group, versions] : groups)
            if (!group.empty()) list.push_back(group_json(group, versions));
        return json_reply(200, {{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", list}});
    }
    if (!core && parts.size() == 2) {
        for (const auto& [group, versions] : groups) {
            if (group != parts[1]) continue;
            auto one = group_json(group, versions);
            one["kind"] = "APIGroup";
            one["apiVersion"] = "v1";
            return json_reply(200, one);
        }
    }
    const auto wanted = core ? parts[1] : parts.size() == 3 ? parts[1] + "/" + parts[2] : std::string();
    Json list = Json::array();
    for (const auto* kind : kinds)
        if (kind->api_version() == wanted && kind->group.empty() == core) add_legacy(list, *kind);
    if (list.empty()) return failure_reply(404, "NotFound", "the server could not find the requested resource");
    return json_reply(200, {{"kind", "APIResourceList"}, {"apiVersion", "v1"}, {"groupVersion", wanted}, {"resources", list}});
}

Reply Handler::openapi(const Request& request) {
    const auto kinds = registry_.kinds();
    // The documents are large and change only with the kinds.
    if (const auto now = registry_.kinds_version(); now != openapi_of_) {
        openapi_texts_.clear();
        openapi_of_ = now;
    }
    const auto tag = fmt::format("{}-{}", version_, openapi_of_);
    auto kept = [&](const std::string& key, auto&& make) -> const std::string& {
        auto found = openapi_texts_.find(key);
        if (found == openapi_texts_.end()) found = openapi_texts_.emplace(key, make()).first;
        return found->second;
    };
    if (request.path == "/openapi/v2") {
        if (request.accept.find("proto-openapi") == std::string::npos) return text_reply(request, kept("v2", [&] { return resources::openapi_v2(kinds, version_).dump(); }), tag);
        auto out = text_reply(request, kept("v2p", [&] { return resources::openapi_v2_protobuf(kinds, version_); }), tag);
        out.content_type = "application/octet-stream";
        return out;
    }
    if (request.path == "/openapi/v3" || request.path == "/openapi/v3/") {
        Json paths = Json::object();
        for (const auto* kind : kinds) paths[resources::group_path(*kind)] = {{"serverRelativeURL", fmt::format("/openapi/v3/{}?hash={}", resources::group_path(*kind), tag)}};
        return json_reply(200, {{"paths", paths}});
    }
    const auto group = request.path.substr(std::min(request.path.size(), std::string_view("/openapi/v3/").size()));
    if (!request.path.starts_with("/openapi/v3/") || std::ranges::none_of(kinds, [&](const Kind* kind) { return resources::group_path(*kind) == group; }))
        return failure_reply(404, "NotFound", "the server could not find the requested resource");
    return text_reply(request, kept("v3/" + group, [&] { return resources::openapi_v3(kinds, group, version_).dump(); }), tag);
}

}  // namespace penstock::api
