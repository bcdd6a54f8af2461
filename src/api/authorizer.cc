#include "api/authorizer.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "api/selector.h"
#include "base/log.h"
#include "base/text.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::api {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::size_t combinations_max = 10'000'000;
constexpr const char* rbac = "rbac.authorization.k8s.io/v1";

bool has(const std::vector<std::string>& list, const std::string& word) { return std::ranges::find(list, word) != list.end() || std::ranges::find(list, "*") != list.end(); }

bool path_matches(const std::string& pattern, const std::string& path) {
    return pattern == "*" || pattern == path || (pattern.ends_with('*') && path.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1)));
}

bool resource_matches(const std::vector<std::string>& resources, const Access& access) {
    const auto full = access.subresource.empty() ? access.resource : access.resource + "/" + access.subresource;
    return std::ranges::any_of(resources, [&](const std::string& r) { return r == "*" || r == full || (!access.subresource.empty() && r == "*/" + access.subresource); });
}

bool rule_allows(const Rule& rule, const Access& access) {
    if (!has(rule.verbs, access.verb)) return false;
    if (!access.path.empty()) return std::ranges::any_of(rule.paths, [&](const std::string& p) { return path_matches(p, access.path); });
    if (!has(rule.groups, access.group) || !resource_matches(rule.resources, access)) return false;
    return rule.names.empty() || (!access.name.empty() && std::ranges::find(rule.names, access.name) != rule.names.end());
}

bool is_subject(const Json& subjects, const User& user, const std::string& binding_space) {
    if (!subjects.is_array()) return false;
    return std::ranges::any_of(subjects, [&](const Json& subject) {
        const auto kind = text_at(subject, "kind"), name = text_at(subject, "name");
        if (name.empty()) return false;   // a certificate without CN has no name either; that makes them nobody's, not each other's
        if (kind == "User") return name == user.name;
        if (kind == "Group") return user.is_in(name);
        if (kind == "ServiceAccount") return fmt::format("system:serviceaccount:{}:{}", text_at(subject, "namespace", binding_space), name) == user.name;
        return false;
    });
}

Json rule(std::vector<std::string> groups, std::vector<std::string> resources, std::vector<std::string> verbs) { return {{"apiGroups", groups}, {"resources", resources}, {"verbs", verbs}}; }
Json path_rule(std::vector<std::string> paths, std::vector<std::string> verbs) { return {{"nonResourceURLs", paths}, {"verbs", verbs}}; }

}  // namespace

bool User::is_in(const std::string& group) const { return std::ranges::find(groups, group) != groups.end(); }

Json User::to_json() const {
    Json out = {{"username", name}, {"groups", groups}};
    if (!uid.empty()) out["uid"] = uid;
    if (!extra.empty()) out["extra"] = extra;
    return out;
}

Json Rule::to_json() const {
    if (!paths.empty()) return {{"verbs", verbs}, {"nonResourceURLs", paths}};
    Json out = {{"verbs", verbs}, {"apiGroups", groups}, {"resources", resources}};
    if (!names.empty()) out["resourceNames"] = names;
    return out;
}

std::vector<Rule> Authorizer::rules_of(const Json& role) const {
    std::vector<Rule> out;
    auto take = [&](const Json& object) {
        if (const auto& list = at_path(object, "rules"); list.is_array())
            for (const auto& r : list)
                out.push_back({.verbs = resources::texts_of(at_path(r, "verbs")), .groups = resources::texts_of(at_path(r, "apiGroups")), .resources = resources::texts_of(at_path(r, "resources")), .names = resources::texts_of(at_path(r, "resourceNames")), .paths = resources::texts_of(at_path(r, "nonResourceURLs"))});
    };
    take(role);
    if (const auto& selectors = at_path(role, "aggregationRule.clusterRoleSelectors"); selectors.is_array() && !selectors.empty()) {
        for (const auto& other : registry_.list(*resources::find_kind(rbac, "ClusterRole"), "").items) {
            if (text_at(*other, "metadata.name") == text_at(role, "metadata.name")) continue;
            if (std::ranges::any_of(selectors, [&](const Json& s) { return matches_label_selector(s, *other); })) take(*other);
        }
    }
    return out;
}

std::vector<Rule> Authorizer::rules(const User& user, const std::string& name_space) const {
    std::vector<Rule> out;
    auto take = [&](const Json& binding, const std::string& space) {
        if (!is_subject(at_path(binding, "subjects"), user, space)) return;
        const bool cluster = text_at(binding, "roleRef.kind") == "ClusterRole";
        const auto role = registry_.get(*resources::find_kind(rbac, cluster ? "ClusterRole" : "Role"), cluster ? "" : space, text_at(binding, "roleRef.name"));
        if (role) std::ranges::move(rules_of(**role), std::back_inserter(out));
    };
    for (const auto& binding : registry_.list(*resources::find_kind(rbac, "ClusterRoleBinding"), "").items) take(*binding, "");
    if (!name_space.empty())
        for (const auto& binding : registry_.list(*resources::find_kind(rbac, "RoleBinding"), name_space).items) take(*binding, name_space);
    return out;
}

bool Authorizer::allows(const User& user, const Access& access) const {
    if (user.is_master()) return true;
    const auto all = rules(user, access.path.empty() ? access.name_space : "");
    return std::ranges::any_of(all, [&](const Rule& r) { return rule_allows(r, access); });
}

std::string Authorizer::beyond(const User& user, const std::string& name_space, const std::vector<Rule>& wanted) const {
    if (user.is_master()) return {};
    const auto owned = rules(user, name_space);
    auto covered = [&](const Access& access) { return std::ranges::any_of(owned, [&](const Rule& r) { return rule_allows(r, access); }); };
    // A rule speaks of every combination of its words; thousands of each are nothing that a person wrote.
    std::size_t combinations = 0;
    for (const auto& r : wanted) {
        combinations += r.verbs.size() * (r.paths.size() + r.groups.size() * r.resources.size() * std::max<std::size_t>(1, r.names.size()));
        if (combinations * owned.size() > combinations_max) return fmt::format("rules with more combinations of verbs, groups, resources and names than can be compared ({})", combinations);
    }
    for (const auto& r : wanted) {
        for (const auto& verb : r.verbs) {
            for (const auto& path : r.paths)
                if (!covered({.verb = verb, .path = path})) return r.to_json().dump();
            for (const auto& group : r.groups)
                for (const auto& resource : r.resources) {
                    const auto slash = resource.find('/');
                    Access access{.verb = verb, .group = group, .resource = resource.substr(0, slash), .subresource = slash == std::string::npos ? "" : resource.substr(slash + 1)};
                    const auto names = r.names.empty() ? std::vector<std::string>{""} : r.names;
                    for (const auto& name : names) {
                        access.name = name;
                        if (!covered(access)) return r.to_json().dump();
                    }
                }
        }
    }
    return {};
}

std::string denial(const User& user, const Access& access) {
    if (!access.path.empty()) return fmt::format("User \"{}\" cannot {} path \"{}\"", resources::shortened(user.name), resources::shortened(access.verb), resources::shortened(access.path));
    const auto resource = access.subresource.empty() ? access.resource : access.resource + "/" + access.subresource;
    return fmt::format("User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {}", resources::shortened(user.name), resources::shortened(access.verb), resources::shortened(resource), resources::shortened(access.group),
                       access.name_space.empty() ? "at the cluster scope" : fmt::format("in the namespace \"{}\"", resources::shortened(access.name_space)));
}

void Authorizer::bootstrap(registry::Registry& registry) {
    const std::vector<std::string> read{"get", "list", "watch"}, write{"create", "delete", "deletecollection", "patch", "update"}, self{"create"};
    const std::vector<std::string> own_groups{"mqttbroker.iotoperations.azure.com", "cert-manager.io"};
    const Json own_read = rule(own_groups, {"*"}, read), own_write = rule(own_groups, {"*"}, write);
    const std::vector<std::string> plain{"configmaps", "endpoints", "events", "namespaces", "pods", "pods/log", "pods/status", "serviceaccounts", "services", "services/status"};
    const std::vector<std::string> changeable{"configmaps", "endpoints", "events", "secrets", "serviceaccounts", "services", "pods/portforward", "serviceaccounts/token"};
    // Who could have workloads in a namespace of a cluster is told here why there are none, and not that it is forbidden.
    auto brought = [](const std::vector<std::string>& verbs) {
        std::map<std::string, std::vector<std::string>> by_group;
        for (const auto& kind : resources::workload_kinds()) {
            auto& plurals = by_group[kind.group];
            if (kind.namespaced && std::ranges::find(plurals, kind.plural) == plurals.end()) plurals.push_back(kind.plural);
        }
        Json rules = Json::array();
        for (auto& [group, plurals] : by_group)
            if (!plurals.empty()) rules.push_back(rule({group}, std::move(plurals), verbs));
        return rules;
    };
    auto all_of = [](Json rules, std::initializer_list<Json> more) {
        for (const auto& list : more)
            for (const auto& one : list) rules.push_back(one);
        return rules;
    };
    const Json slices = rule({"discovery.k8s.io"}, {"endpointslices"}, read);
    struct Role {
        const char* name;
        Json rules;
    };
    const std::vector<Role> roles{
        {"cluster-admin", {rule({"*"}, {"*"}, {"*"}), path_rule({"*"}, {"*"})}},
        {"admin", all_of({rule({""}, plain, read), rule({""}, {"secrets"}, read), rule({""}, changeable, write), rule({"rbac.authorization.k8s.io"}, {"roles", "rolebindings"}, read), rule({"rbac.authorization.k8s.io"}, {"roles", "rolebindings"}, write),
                   rule({"coordination.k8s.io"}, {"leases"}, {"*"}), rule({"authorization.k8s.io"}, {"localsubjectaccessreviews"}, self), own_read, own_write, slices}, {brought(read), brought(write)})},
        {"edit", all_of({rule({""}, plain, read), rule({""}, {"secrets"}, read), rule({""}, changeable, write), rule({"coordination.k8s.io"}, {"leases"}, {"*"}), own_read, own_write, slices}, {brought(read), brought(write)})},
        {"view", all_of({rule({""}, plain, read), rule({"coordination.k8s.io"}, {"leases"}, read), own_read, slices}, {brought(read)})},
        {"system:basic-user", {rule({"authorization.k8s.io"}, {"selfsubjectaccessreviews", "selfsubjectrulesreviews"}, self), rule({"authentication.k8s.io"}, {"selfsubjectreviews"}, self)}},
        {"system:discovery", {path_rule({"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"}, {"get"})}},
        {"system:public-info-viewer", {path_rule({"/healthz", "/livez", "/readyz", "/version", "/version/"}, {"get"})}},
        {"system:monitoring",
         {path_rule({"/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"},
                    {"get"})}},
        {"system:service-account-issuer-discovery", {path_rule({"/.well-known/openid-configuration", "/openid/v1/jwks"}, {"get"})}},
        {"system:auth-delegator", {rule({"authentication.k8s.io"}, {"tokenreviews"}, self), rule({"authorization.k8s.io"}, {"subjectaccessreviews"}, self)}},
    };
    const auto& role_kind = *resources::find_kind(rbac, "ClusterRole");
    const auto& binding_kind = *resources::find_kind(rbac, "ClusterRoleBinding");
    const Json labels = {{"kubernetes.io/bootstrapping", "rbac-defaults"}};
    auto create = [&](const resources::Kind& kind, const std::string& name, Json object) {
        object["metadata"] = {{"name", name}, {"labels", labels}};
        if (auto made = registry.seed(kind, "", std::move(object)); !made) log::error("api", "the default {} {} could not be made: {}", kind.kind, name, made.error().message);
    };
    for (const auto& r : roles) create(role_kind, r.name, {{"rules", r.rules}});
    const std::vector<std::tuple<const char*, const char*, std::vector<std::string>>> bindings{
        {"cluster-admin", "cluster-admin", {"system:masters"}},
        {"system:basic-user", "system:basic-user", {"system:authenticated"}},
        {"system:discovery", "system:discovery", {"system:authenticated"}},
        {"system:monitoring", "system:monitoring", {"system:monitoring"}},
        {"system:public-info-viewer", "system:public-info-viewer", {"system:authenticated", "system:unauthenticated"}},
        {"system:service-account-issuer-discovery", "system:service-account-issuer-discovery", {"system:serviceaccounts"}},
    };
    for (const auto& [name, role, groups] : bindings) {
        Json subjects = Json::array();
        for (const auto& group : groups) subjects.push_back({{"kind", "Group"}, {"apiGroup", "rbac.authorization.k8s.io"}, {"name", group}});
        create(binding_kind, name, {{"roleRef", {{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", "ClusterRole"}, {"name", role}}}, {"subjects", subjects}});
    }
}

}  // namespace penstock::api
