// Questions about tokens and rights; nothing of this is stored.
#include <algorithm>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/clock.h"
#include "resources/text_rules.h"

namespace penstock::api {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

Access access_of(const Json& spec) {
    if (const auto& a = at_path(spec, "resourceAttributes"); a.is_object())
        return {.verb = text_at(a, "verb"), .group = text_at(a, "group"), .version = text_at(a, "version"), .resource = text_at(a, "resource"), .subresource = text_at(a, "subresource"), .name = text_at(a, "name"), .name_space = text_at(a, "namespace")};
    const auto& n = at_path(spec, "nonResourceAttributes");
    return {.verb = text_at(n, "verb"), .path = text_at(n, "path")};
}

constexpr std::int64_t token_seconds_default = 3600, token_seconds_min = 600, token_seconds_max = 365LL * 86'400;

}  // namespace

Reply Handler::review(const Request& request, const Route& route, const User& user) {
    const auto& kind = *route.kind;
    int code = 400;
    auto object = body_of(request, code);
    if (!object) return failure_reply(code, code == 415 ? "UnsupportedMediaType" : "BadRequest", fmt::format("the object provided is unrecognized (must be of type {}): {}", kind.kind, object.error().message));
    if (!object->is_object()) return failure_reply(400, "BadRequest", fmt::format("the object provided is unrecognized (must be of type {}): an object is needed", kind.kind));
    (*object)["apiVersion"] = kind.api_version();
    (*object)["kind"] = kind.kind;
    if (!(*object)["metadata"].is_object()) (*object)["metadata"] = Json::object();
    auto faults = resources::prune_unknown(kind, *object);
    faults.clear();
    Json checked = *object;
    checked["metadata"]["name"] = "review";
    for (const auto& fault : resources::validate(kind, checked)) faults.push_back(fault);
    const auto& spec = at_path(*object, "spec");
    const bool asks_access = kind.kind.ends_with("AccessReview");
    if (asks_access && at_path(spec, "resourceAttributes").is_object() == at_path(spec, "nonResourceAttributes").is_object())
        faults.push_back({"spec.resourceAttributes", "FieldValueInvalid", "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"});
    if ((kind.kind == "SubjectAccessReview" || kind.kind == "LocalSubjectAccessReview") && text_at(spec, "user").empty() && resources::texts_of(at_path(spec, "groups")).empty())
        faults.push_back({"spec.user", "FieldValueInvalid", "Invalid value: \"\": at least one of user or group must be specified"});
    if (kind.kind == "TokenReview" && text_at(spec, "token").empty()) faults.push_back({"spec.token", "FieldValueRequired", "Required value: the token to look at"});
    if (kind.kind == "SelfSubjectRulesReview" && text_at(spec, "namespace").empty()) faults.push_back({"spec.namespace", "FieldValueRequired", "Required value: a namespace"});
    if (!faults.empty()) return failure_reply(registry::invalid(kind, "", faults));

    Json status = Json::object();
    if (kind.kind == "TokenReview") {
        auto audiences = resources::texts_of(at_path(spec, "audiences"));
        if (audiences.empty()) audiences = tokens_.own_audiences();
        const auto found = tokens_.check(text_at(spec, "token"), audiences);
        if (found) status = {{"authenticated", true}, {"user", found->user.to_json()}, {"audiences", found->audiences}};
        else status = {{"user", Json::object()}, {"error", fmt::format("[invalid bearer token, {}]", found.error().message)}};
    } else if (kind.kind == "SelfSubjectReview") {
        status = {{"userInfo", user.to_json()}};
    } else if (kind.kind == "SelfSubjectRulesReview") {
        Json resource_rules = Json::array(), path_rules = Json::array();
        auto all = authorizer_.rules(user, text_at(spec, "namespace"));
        if (user.is_master()) all = {{.verbs = {"*"}, .groups = {"*"}, .resources = {"*"}}, {.verbs = {"*"}, .paths = {"*"}}};
        for (const auto& rule : all) (rule.paths.empty() ? resource_rules : path_rules).push_back(rule.to_json());
        status = {{"resourceRules", resource_rules}, {"nonResourceRules", path_rules}, {"incomplete", false}};
    } else {
        User subject = user;
        if (!kind.kind.starts_with("Self")) subject = {.name = text_at(spec, "user"), .groups = resources::texts_of(at_path(spec, "groups"))};
        auto access = access_of(spec);
        if (kind.kind == "LocalSubjectAccessReview") access.name_space = route.name_space;
        status = {{"allowed", authorizer_.allows(subject, access)}};
    }
    (*object)["status"] = status;
    return json_reply(201, *object);
}

Reply Handler::issue_token(const Request& request, const Route& route) {
    if (request.method != "POST") return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    const auto account = registry_.get(*route.kind, route.name_space, route.name);
    if (!account) return failure_reply(account.error());
    int code = 400;
    auto object = body_of(request, code);
    if (!object || !object->is_object())
        return failure_reply(code, code == 415 ? "UnsupportedMediaType" : "BadRequest", fmt::format("the object provided is unrecognized (must be of type TokenRequest): {}", object ? "an object is needed" : object.error().message));
    const auto& spec = at_path(*object, "spec");
    auto audiences = resources::texts_of(at_path(spec, "audiences"));
    if (audiences.empty()) audiences = {tokens_.own_audiences().front()};
    std::int64_t seconds = token_seconds_default;
    if (const auto& asked = at_path(spec, "expirationSeconds"); !asked.is_null()) {
        if (!asked.is_number_integer()) return failure_reply(422, "Invalid", "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: must be an integer");
        seconds = asked.get<std::int64_t>();
        if (seconds < token_seconds_min)
            return failure_reply(422, "Invalid", fmt::format("TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {}: may not specify a duration less than 10 minutes", seconds));
        seconds = std::min(seconds, token_seconds_max);
    }
    auto bound = at_path(spec, "boundObjectRef");
    if (bound.is_object()) {
        const auto kind_name = text_at(bound, "kind");
        const auto* kind = kind_name == "Pod" || kind_name == "Secret" || kind_name == "Node" ? resources::find_kind("v1", kind_name) : nullptr;
        if (kind == nullptr) return failure_reply(400, "BadRequest", fmt::format("cannot bind token to object of type {}; Pod, Secret and Node are taken", resources::shortened(kind_name)));
        const auto there = registry_.get(*kind, kind->namespaced ? route.name_space : "", text_at(bound, "name"));
        if (!there) return failure_reply(there.error());
        if (const auto uid = text_at(bound, "uid"); !uid.empty() && uid != text_at(**there, "metadata.uid"))
            return failure_reply(registry::conflict(*kind, text_at(bound, "name"), fmt::format("the UID in the bound object reference ({}) does not match the UID in record ({})", resources::shortened(uid), text_at(**there, "metadata.uid"))));
        bound["uid"] = text_at(**there, "metadata.uid");
    }
    const auto issued = tokens_.issue(**account, audiences, seconds, bound);
    if (!issued) return failure_reply(500, "InternalError", issued.error().message);
    Json out = {{"kind", "TokenRequest"}, {"apiVersion", "authentication.k8s.io/v1"}, {"metadata", {{"name", route.name}, {"namespace", route.name_space}, {"creationTimestamp", rfc3339(wall_ms())}}},
                {"spec", {{"audiences", audiences}, {"expirationSeconds", seconds}, {"boundObjectRef", bound}}}, {"status", {{"token", issued->token}, {"expirationTimestamp", rfc3339(issued->expires_ms)}}}};
    return json_reply(201, out);
}

}  // namespace penstock::api
