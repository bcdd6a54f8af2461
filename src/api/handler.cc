#include "api/handler.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"
#include "base/utf8.h"
#include "resources/versions.h"

namespace penstock::api {

using registry::Failure;
using resources::Json;
using resources::Kind;
using resources::text_at;

Reply json_reply(int status, const Json& body) { return {.status = status, .body = body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"}; }
Reply failure_reply(const Failure& failure) {
    auto out = json_reply(failure.code, failure.to_json());
    if (failure.code == 429 || failure.code == 503 || failure.code == 504) out.headers.emplace_back("Retry-After", "1");
    return out;
}
Reply failure_reply(int code, std::string reason, std::string message) { return failure_reply(Failure{.code = code, .reason = std::move(reason), .message = std::move(message)}); }

std::string query_of(const Request& request, const char* key) {
    const auto at = request.query.find(key);
    return at == request.query.end() ? std::string() : at->second;
}

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
        if (type != "application/json" && type != "*/*" && type != "application/*") continue;
        if (as.empty()) return Form::plain;
        if (as == "Table") return Form::table;
        if (as == "PartialObjectMetadata" || as == "PartialObjectMetadataList") return Form::metadata;
    }
    return Form::unacceptable;
}

std::string warning_header(const std::string& text) { return fmt::format("299 - \"{}\"", quotable(text)); }

namespace {

Reply no_such_path() { return failure_reply(404, "NotFound", "the server could not find the requested resource"); }

/// What stands between the '/' of a path; nothing: such a path leads nowhere.
std::optional<std::vector<std::string>> parts_of(const std::string& path) {
    std::vector<std::string> out;
    if (!path.starts_with('/')) return std::nullopt;
    for (const auto part : split(std::string_view(path).substr(1), '/')) out.emplace_back(part);
    if (!out.empty() && out.back().empty()) out.pop_back();
    // No name has a '%' (apimachinery, IsValidPathSegmentName): here one stands for a '/' that was encoded.
    auto is_none = [](const std::string& part) {
        return part.empty() || part == "." || part == ".." || part.contains('%');
    };
    if (std::ranges::any_of(out, is_none)) return std::nullopt;
    return out;
}

std::string verb_of(const Request& request, bool named) {
    const auto watching = query_of(request, "watch");
    if (request.method == "GET") return named ? "get" : watching == "true" || watching == "1" ? "watch" : "list";
    if (request.method == "POST") return "create";
    if (request.method == "PUT") return "update";
    if (request.method == "PATCH") return "patch";
    if (request.method == "DELETE") return named ? "delete" : "deletecollection";
    return to_lower(request.method);
}

}  // namespace

Reply Handler::refuse_anonymous(const User& user, const Access& access, const Kind* kind) const {
    const auto why = denial(user, access);
    if (kind == nullptr) return failure_reply(403, "Forbidden", fmt::format("forbidden: {}", why));
    if (access.name.empty()) {
        auto failure = registry::forbidden(*kind, "", why);
        failure.message = fmt::format("{} is forbidden: {}", kind->qualified_plural(), why);
        return failure_reply(failure);
    }
    return failure_reply(registry::forbidden(*kind, access.name, why));
}

std::optional<Reply> Handler::impersonate(const Request& request, User& user) const {
    if (request.impersonation.empty()) return std::nullopt;
    User other;
    other.groups.clear();
    bool named = false;
    for (const auto& [header, value] : request.impersonation) {
        Access access{.verb = "impersonate"};
        if (header == "impersonate-user") {
            named = true;
            const auto parts = split(value, ':');
            if (value.starts_with("system:serviceaccount:") && parts.size() == 4) {
                access.resource = "serviceaccounts", access.name_space = parts[2], access.name = parts[3];
                other.groups = {"system:serviceaccounts", fmt::format("system:serviceaccounts:{}", parts[2])};
            } else {
                access.resource = "users", access.name = value;
            }
            other.name = value;
        } else if (header == "impersonate-group") {
            access.resource = "groups", access.name = value;
            other.groups.push_back(value);
        } else if (header == "impersonate-uid") {
            access.group = "authentication.k8s.io", access.resource = "uids", access.name = value;
            other.uid = value;
        } else {
            access.group = "authentication.k8s.io", access.resource = "userextras", access.subresource = header.substr(std::string_view("impersonate-extra-").size()), access.name = value;
            other.extra[access.subresource].push_back(value);
        }
        if (!authorizer_.allows(user, access)) return failure_reply(403, "Forbidden", fmt::format("{} \"{}\" is forbidden: {}", resources::shortened(access.resource), resources::shortened(value), denial(user, access)));
    }
    if (!named) return failure_reply(400, "BadRequest", "Impersonate-User is needed where other Impersonate headers are");
    if (other.name != "system:anonymous") other.groups.emplace_back("system:authenticated");
    user = std::move(other);
    return std::nullopt;
}

std::optional<Reply> Handler::authenticate(const Request& request, User& user) const {
    user = request.user;
    if (!request.authorization.empty()) {
        constexpr std::string_view bearer = "Bearer ";
        if (!request.authorization.starts_with(bearer)) return failure_reply(401, "Unauthorized", "Unauthorized");
        const auto checked = tokens_.check(request.authorization.substr(bearer.size()), tokens_.own_audiences());
        if (!checked) return failure_reply(401, "Unauthorized", "Unauthorized");
        user = checked->user;
    } else if (!request.certificate_fault.empty()) {
        return failure_reply(401, "Unauthorized", fmt::format("Unauthorized: {}", request.certificate_fault));
    }
    return std::nullopt;
}

std::optional<Reply> Handler::unauthorized(const Request& request) const {
    User user;
    return authenticate(request, user);
}

Reply Handler::handle(const Request& request) {
    // What is quoted in answers, objects and lines of the log is text from here on.
    if (utf8_fault(request.path) != std::string_view::npos) return failure_reply(404, "NotFound", "the path is not well-formed UTF-8 without NUL (percent-encoded, RFC 3986): nothing is there");
    const bool is_text = std::ranges::all_of(request.query, [](const auto& pair) { return utf8_fault(pair.first) == std::string_view::npos && utf8_fault(pair.second) == std::string_view::npos; });
    if (!is_text) return failure_reply(400, "BadRequest", "the query must be well-formed UTF-8 without NUL (percent-encoded, RFC 3986)");
    User user;
    if (auto refused = authenticate(request, user)) return *refused;
    if (auto refused = impersonate(request, user)) return *refused;
    return dispatch(request, user);
}

Json Handler::version_info() const {
    Json out = {{"major", "1"},
                {"minor", "33"},
                {"gitVersion", "v1.33.0+penstock"},
                {"goVersion", "none"},
                {"penstockVersion", version_}};
    for (const char* field : {"gitCommit", "gitTreeState", "buildDate", "compiler", "platform"})
        out[field] = text_at(build_info_, field, "unknown");
    return out;
}

Reply Handler::dispatch(const Request& request, const User& user) {
    const auto& path = request.path;
    const auto found = parts_of(path);
    if (!found) return no_such_path();
    const auto& parts = *found;
    const bool core = !parts.empty() && parts[0] == "api";
    const std::size_t prefix = core ? 2 : 3;
    if (parts.empty() || (!core && parts[0] != "apis") || parts.size() <= prefix) {
        const Access access{.verb = to_lower(request.method), .path = path};
        if (!authorizer_.allows(user, access)) return refuse_anonymous(user, access, nullptr);
        if (path == "/penstock/broker-copy" && request.method == "POST") {
            const auto folder = query_of(request, "folder");
            if (!copy_broker_) return failure_reply(503, "ServiceUnavailable", "no broker runs in this process; ask the one that does");
            if (!folder.starts_with('/')) return failure_reply(400, "BadRequest", "folder: an absolute path on the broker's machine");
            const auto done = copy_broker_(folder);
            if (!done) return failure_reply(409, "Conflict", done.error().message);
            if (!*done) return failure_reply(404, "NotFound", "this Broker keeps no state on disk (spec.persistence)");
            return json_reply(200, {{"folder", folder}});
        }
        if (request.method != "GET" && request.method != "HEAD") return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        if (path == "/healthz" || path == "/livez") return {.content_type = "text/plain", .body = "ok"};
        if (path == "/readyz") {
            const auto ready = ready_check_ ? ready_check_(request.query.contains("verbose")) : Readiness{.is_ready = true, .text = "ok"};
            return {.status = ready.is_ready ? 200 : 500, .content_type = "text/plain", .body = ready.text};
        }
        if (path == "/version" || path == "/version/") return json_reply(200, version_info());
        if (path == "/.well-known/openid-configuration") return json_reply(200, tokens_.discovery());
        if (path == "/openid/v1/jwks") {
            auto out = json_reply(200, tokens_.key_set());
            out.content_type = "application/jwk-set+json";
            return out;
        }
        if (path.starts_with("/openapi/")) return openapi(request);
        if (path == "/penstock/certificates" && certificates_) return json_reply(200, certificates_());
        if (path == "/metrics" && metrics_)
            return {.content_type = "text/plain; version=0.0.4", .body = metrics_()};
        if (path == "/penstock/registry") {
            if (!copy_registry_) return failure_reply(404, "NotFound", "the server could not find the requested resource");
            auto bytes = copy_registry_();
            if (!bytes) return failure_reply(500, "InternalError", "Internal error occurred: " + bytes.error().message);
            return {.content_type = "application/vnd.sqlite3", .body = std::move(*bytes)};
        }
        return discovery(request, parts);
    }

    const auto api_version = core ? parts[1] : parts[1] + "/" + parts[2];
    Route route;
    auto at = prefix;
    // `namespaces/N` and `namespaces/N/status` are about the Namespace itself.
    const bool scoped = parts[at] == "namespaces" && parts.size() > at + 2 && !(core && parts.size() == at + 3 && (parts[at + 2] == "status" || parts[at + 2] == "finalize"));
    if (scoped) {
        route.name_space = parts[at + 1];
        at += 2;
    }
    route.kind = registry_.find_plural(api_version, parts[at]);
    if (parts.size() > at + 1) route.name = parts[at + 1];
    if (parts.size() > at + 2) route.subresource = parts[at + 2];
    if (parts.size() > at + 3) return no_such_path();
    const Access access{.verb = verb_of(request, !route.name.empty()), .group = core ? "" : parts[1], .version = core ? parts[1] : parts[2], .resource = parts[at], .subresource = route.subresource,
                        .name = route.name, .name_space = route.name_space};
    // Asked before the path is known to exist: whoever may nothing learns nothing.
    if (!authorizer_.allows(user, access)) return route.kind != nullptr ? refuse_anonymous(user, access, route.kind) : failure_reply(403, "Forbidden", fmt::format("{} is forbidden: {}", resources::shortened(access.resource), denial(user, access)));
    if (route.kind == nullptr || (scoped && !route.kind->namespaced)) return no_such_path();
    route.shown = route.kind;
    route.kind = &resources::kept_kind(*route.shown);
    auto reply = serve(request, route, access, user);
    if (!route.shown->deprecation.empty()) reply.headers.emplace_back("Warning", warning_header(route.shown->deprecation));
    return reply;
}

constexpr const char* no_such_method = "the server does not allow this method on the requested resource";

/// Why a kind takes no writes, and what is done instead.
std::string read_only_text(const resources::Kind& kind, std::string_view verb) {
    auto out = fmt::format("{} show what runs here and are written by Penstock alone", kind.plural);
    if (kind.kind != "Pod") return out;
    if (verb == "create") return fmt::format("{}; {}", out, resources::workload_refusal);
    if (verb.starts_with("delete"))
        out += "; each is a role of the penstock process on this machine and no container: what restarts it "
               "is a restart of that process (systemctl restart penstock)";
    return out;
}

Reply Handler::serve(const Request& request, const Route& route, const Access& access, const User& user) {
    const auto& kind = *route.kind;
    if (!kind.refusal.empty() && request.method != "GET" && request.method != "DELETE") return failure_reply(405, "MethodNotAllowed", fmt::format("no {} here: {}", kind.kind, kind.refusal));
    if (!kind.stored) return route.name.empty() && request.method == "POST" ? review(request, route, user) : failure_reply(405, "MethodNotAllowed", no_such_method);
    if (kind.namespaced && route.name_space.empty() && !route.name.empty()) return no_such_path();
    if (!route.subresource.empty() && kind.built_in) {
        if (kind.kind == "ServiceAccount" && route.subresource == "token") return issue_token(request, route);
        if (kind.kind == "Pod" && route.subresource == "log") return pod_log(request, route);
        if (kind.kind == "Pod" && route.subresource == "portforward") return port_forward(request, route);
        for (const char* name : {"exec", "attach", "ephemeralcontainers", "eviction"})
            if (kind.kind == "Pod" && route.subresource == name) {
                if (const auto pod = registry_.get(kind, route.name_space, route.name); !pod) return failure_reply(pod.error());
                return failure_reply(405, "MethodNotAllowed", fmt::format("no {} here: Pod {} is a role of the penstock process on this machine and no container; `kubectl logs` shows what it does, a shell on the machine reaches the rest", name, resources::shortened(route.name)));
            }
    }
    if (kind.kind == "Broker" && (route.subresource == "decisions" || route.subresource == "clients" || route.subresource == "traces")) {
        if (request.method != "GET") return failure_reply(405, "MethodNotAllowed", no_such_method);
        if (const auto broker = registry_.get(kind, route.name_space, route.name); !broker) return failure_reply(broker.error());
        // `?format=otlp`: as OpenTelemetry has it; `&trace=ID`: that one alone.
        const auto what = route.subresource == "traces" && query_of(request, "format") == "otlp" ? "traces/otlp/" + query_of(request, "trace") : route.subresource;
        return broker_view_ ? json_reply(200, broker_view_(what)) : failure_reply(503, "ServiceUnavailable", "no broker runs in this process; ask the one that does");
    }
    if (!route.subresource.empty() && (route.subresource != "status" || !kind.has_status)) return no_such_path();
    const auto verbs = resources::verbs_of(kind);
    if (std::ranges::find(verbs, access.verb) == verbs.end()) {
        if (request.method == "GET" || request.method == "POST" || request.method == "PUT" || request.method == "PATCH" || request.method == "DELETE")
            return failure_reply(405, "MethodNotAllowed", kind.read_only ? read_only_text(kind, access.verb)
                                                                         : std::string(no_such_method));
        return failure_reply(405, "MethodNotAllowed", no_such_method);
    }
    // An empty variable in a script: Kubernetes takes no DELETE for all namespaces either, and nothing is
    // deleted by a path that ends before its name.
    const bool is_everywhere = route.name.empty() && kind.namespaced && route.name_space.empty();
    if (request.method == "DELETE" && (is_everywhere || request.path.ends_with('/')))
        return failure_reply(405, "MethodNotAllowed",
                             fmt::format("the server does not allow this method on the requested resource: "
                                         "the path {}", is_everywhere ? "has no namespace" : "ends in '/'"));
    return request.method == "GET" ? read(request, route) : write(request, route, user);
}

}  // namespace penstock::api
