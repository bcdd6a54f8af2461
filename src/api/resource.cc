// Objects: get, list, watch, create, update, patch, delete.
#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/text.h"
#include "resources/merge.h"
#include "resources/protobuf.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::api {

using registry::Failure;
using resources::at_path;
using resources::Json;
using resources::Kind;
using resources::shortened;
using resources::text_at;

namespace {

constexpr std::size_t page_max = 100'000;
const auto cores = static_cast<unsigned>(std::max<long>(1, sysconf(_SC_NPROCESSORS_ONLN)));

std::string media_of(const Request& request) { return to_lower(trim(std::string_view(request.content_type).substr(0, request.content_type.find(';')))); }

/// The object as the route's version of the kind has it: versions of a kind share their objects.
Json presented(const Kind& kind, const Json& object) {
    if (text_at(object, "apiVersion") == kind.api_version()) return object;
    auto out = object;
    out["apiVersion"] = kind.api_version();
    return out;
}

std::string text_of(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json metadata_only(const Json& object) { return {{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", object["metadata"]}}; }

std::string include_object(const Request& request) {
    const auto include = query_of(request, "includeObject");
    return include.empty() ? "Metadata" : include;
}

/// What a parameter says; nothing: it is not there, which is not the same as an empty one.
std::optional<std::string> optional_query(const Request& request, const char* key) {
    return request.query.contains(key) ? std::optional(query_of(request, key)) : std::nullopt;
}

/// Why a body is no DeleteOptions, or nothing: what was left out as unreadable could be what keeps an object.
std::string wrong_type(const Json& options) {
    if (!options.is_object()) return "an object is needed";
    auto is = [&](const char* path, auto good) {
        const auto& value = at_path(options, path);
        return value.is_null() || good(value);
    };
    auto is_text = [](const Json& value) { return value.is_string(); };
    auto is_list = [&](const Json& value) { return value.is_array() && std::ranges::all_of(value, is_text); };
    if (!is("dryRun", is_list)) return "dryRun: must be a list of texts";
    if (!is("orphanDependents", [](const Json& value) { return value.is_boolean(); }))
        return "orphanDependents: must be true or false";
    if (!is("preconditions", [](const Json& value) { return value.is_object(); }))
        return "preconditions: must be an object";
    for (const char* field : {"propagationPolicy", "preconditions.uid", "preconditions.resourceVersion"})
        if (!is(field, is_text)) return fmt::format("{}: must be a text", field);
    return {};
}

Reply invalid_query(const std::string& text) { return failure_reply(422, "Invalid", text); }

/// Who writes: `fieldManager`, else the program's name in User-Agent.
std::string manager_of(const Request& request) {
    auto out = query_of(request, "fieldManager");
    if (out.empty()) out = request.user_agent.substr(0, request.user_agent.find('/'));
    return out.empty() ? "unknown" : printable(out);   // a header may have any bytes, an object has text
}

}  // namespace

Reply Handler::read(const Request& request, const Route& route) const {
    const auto& kind = *route.kind;
    const auto form = form_of(request.accept);
    if (form == Form::unacceptable) return failure_reply(406, "NotAcceptable", "only the following media types are accepted: application/json");
    if (!route.name.empty()) {
        const auto found = registry_.get(kind, route.name_space, route.name);
        if (!found) return failure_reply(found.error());
        if (form == Form::plain && !kind.dynamic && route.shown == route.kind) return {.body = text_of(**found) + "\n"};
        if (form == Form::table) return json_reply(200, make_table(kind, {*found}, text_at(**found, "metadata.resourceVersion"), include_object(request), true));
        return json_reply(200, form == Form::metadata ? metadata_only(**found) : presented(*route.shown, **found));
    }

    auto selector = Selector::parse(kind, query_of(request, "labelSelector"), query_of(request, "fieldSelector"));
    if (!selector) return failure_reply(400, "BadRequest", selector.error().message);
    const auto version_text = query_of(request, "resourceVersion");
    const auto version = parse_number<std::uint64_t>(version_text);
    if (!version_text.empty() && !version) return failure_reply(400, "BadRequest", fmt::format("resourceVersion: Invalid value: \"{}\": must be a number", shortened(version_text)));
    const auto match = query_of(request, "resourceVersionMatch");
    if (!match.empty() && match != "Exact" && match != "NotOlderThan") return invalid_query(fmt::format("resourceVersionMatch: Unsupported value: \"{}\": supported values: \"Exact\", \"NotOlderThan\"", shortened(match)));

    if (const auto watching = query_of(request, "watch"); watching == "true" || watching == "1") {
        const bool initial = query_of(request, "sendInitialEvents") == "true";
        const bool bookmarks = query_of(request, "allowWatchBookmarks") == "true";
        const auto timeout_text = query_of(request, "timeoutSeconds");
        const auto timeout = parse_number<std::int64_t>(timeout_text);
        if (!timeout_text.empty() && !timeout)
            return failure_reply(
                400, "BadRequest",
                fmt::format("timeoutSeconds: Invalid value: \"{}\": must be a number of seconds",
                            shortened(timeout_text)));
        if (initial && match != "NotOlderThan") return invalid_query("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        Reply out;
        out.watch = Watch{.kind = route.shown, .name_space = route.name_space, .selector = std::move(*selector), .from = version.value_or(0), .initial_state = initial || version.value_or(0) == 0,
                          .form = form == Form::table ? Watch::Form::table : form == Form::metadata ? Watch::Form::metadata : Watch::Form::plain, .bookmarks = bookmarks,
                          .mark_initial_end = initial && bookmarks, .timeout_s = timeout.value_or(0)};
        return out;
    }
    if (version.value_or(0) > registry_.version()) {
        Failure failure{.code = 504, .reason = "Timeout", .message = fmt::format("Too large resource version: {}, current: {}", *version, registry_.version())};
        failure.details = {{"causes", Json::array({{{"reason", "ResourceVersionTooLarge"}, {"message", "Too large resource version"}}})}, {"retryAfterSeconds", 1}};
        return failure_reply(failure);
    }
    const auto limit_text = query_of(request, "limit");
    const auto limit = parse_number<std::size_t>(limit_text);
    if (!limit_text.empty() && !limit) return failure_reply(400, "BadRequest", fmt::format("limit: Invalid value: \"{}\": must be a number", shortened(limit_text)));
    // With a selector the page is cut after choosing, so that pages are full.
    const bool selects = !selector->empty();
    auto page = registry_.list_page(kind, route.name_space, selects ? 0 : std::min(limit.value_or(0), page_max), query_of(request, "continue"));
    if (!page) return failure_reply(page.error());
    if (selects) {
        std::erase_if(page->items, [&](const auto& item) { return !selector->matches(*item); });
        if (limit.value_or(0) > 0 && page->items.size() > *limit) {
            page->items.resize(*limit);
            const auto& last = *page->items.back();
            page->next = base64_encode(Json{{"v", page->version}, {"s", text_at(last, "metadata.namespace")}, {"n", text_at(last, "metadata.name")}}.dump());
        }
    }
    const auto shown = std::to_string(page->version);
    Json metadata = {{"resourceVersion", shown}};
    if (!page->next.empty()) metadata["continue"] = page->next;
    if (page->remaining > 0 && !selects) metadata["remainingItemCount"] = page->remaining;
    if (form == Form::table) {
        auto table = make_table(kind, page->items, shown, include_object(request), true);
        table["metadata"] = metadata;
        return json_reply(200, table);
    }
    // Written item by item: a list of all objects need not exist a second time as a tree.
    const bool partial = form == Form::metadata;
    Reply out{.body = fmt::format("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[", partial ? "PartialObjectMetadataList" : kind.kind + "List", partial ? "meta.k8s.io/v1" : route.shown->api_version(), metadata.dump())};
    bool first = true;
    for (const auto& item : page->items) {
        if (!std::exchange(first, false)) out.body += ',';
        const bool as_is = !partial && text_at(*item, "apiVersion") == route.shown->api_version();
        out.body += as_is ? text_of(*item) : text_of(partial ? metadata_only(*item) : presented(*route.shown, *item));
    }
    out.body += "]}\n";
    return out;
}

Result<Json> Handler::body_of(const Request& request, int& status) const {
    status = 400;
    const auto media = media_of(request);
    if (media == "application/vnd.kubernetes.protobuf" || (media.empty() && resources::is_protobuf(request.body))) {
        bool unknown = false;
        auto out = resources::decode_protobuf(request.body, unknown);
        if (unknown) status = 415;
        return out;
    }
    if (media == "application/yaml" || media == "application/apply-patch+yaml") {
        // JSON is YAML, and by far the more frequent here.
        if (auto json = resources::parse_json(request.body)) return json;
        auto documents = resources::parse_documents(request.body, "body");
        if (!documents) return std::unexpected(documents.error());
        if (documents->size() != 1) return fail("one YAML document is needed");
        return documents->front().object;
    }
    return resources::parse_json(request.body);
}

std::optional<Failure> Handler::escalation(const User& user, const Kind& kind, const std::string& name_space, const Json& object) const {
    if (kind.group != "rbac.authorization.k8s.io" || user.is_master()) return std::nullopt;
    const auto name = text_at(object, "metadata.name");
    const bool binding = kind.kind.ends_with("Binding");
    std::vector<Rule> wanted;
    if (binding) {
        const auto role_kind = text_at(object, "roleRef.kind"), role = text_at(object, "roleRef.name");
        const bool cluster = role_kind == "ClusterRole";
        if (authorizer_.allows(user, {.verb = "bind", .group = kind.group, .resource = cluster ? "clusterroles" : "roles", .name = role, .name_space = name_space})) return std::nullopt;
        const auto* of = resources::find_kind(kind.api_version(), cluster ? "ClusterRole" : "Role");
        const auto found = registry_.get(*of, cluster ? "" : name_space, role);
        if (!found) return registry::not_found(*of, role);
        wanted = authorizer_.rules_of(**found);
    } else {
        if (authorizer_.allows(user, {.verb = "escalate", .group = kind.group, .resource = kind.plural, .name = name, .name_space = name_space})) return std::nullopt;
        wanted = authorizer_.rules_of(object);
    }
    const auto beyond = authorizer_.beyond(user, name_space, wanted);
    if (beyond.empty()) return std::nullopt;
    return registry::forbidden(kind, name, fmt::format("user \"{}\" (groups={}) is attempting to grant RBAC permissions not currently held: {}", shortened(user.name), resources::brief(Json(user.groups)), beyond));
}

/// A JSON patch names places and values as the version of its path has them: it is carried out on that, and what comes of it kept.
registry::Answer<registry::ObjectRef> Handler::patch_earlier(const Route& route, const Json& patch, bool status, const registry::WriteOptions& options) {
    constexpr int tries_max = 5;         // somebody else may write between the look and the write
    for (int tries = 1;; ++tries) {
        const auto found = registry_.get(*route.kind, route.name_space, route.name);
        if (!found) return found;
        auto next = presented(*route.shown, **found);
        if (!patch.is_array()) return std::unexpected(registry::bad_request("a JSON patch is an array of operations"));
        if (auto done = resources::json_patch(next, patch); !done)
            return std::unexpected(Failure{.code = 422, .reason = "Invalid", .message = fmt::format("the server rejected our request due to an error in our request: {}", done.error().message)});
        std::vector<std::string> ignored;
        if (auto converted = resources::convert(*route.shown, next, options.warnings != nullptr && tries == 1 ? *options.warnings : ignored, true); !converted)
            return std::unexpected(Failure{.code = 422, .reason = "Invalid", .message = fmt::format("{} \"{}\" is invalid: {}", route.shown->qualified_kind(), shortened(route.name), converted.error().message)});
        const bool is_conditional = text_at(next, "metadata.resourceVersion") != text_at(**found, "metadata.resourceVersion");
        auto result = registry_.update(*route.kind, route.name_space, route.name, std::move(next), status, options);
        if (result || result.error().code != 409 || is_conditional || tries == tries_max) return result;
    }
}

Reply Handler::write(const Request& request, const Route& route, const User& user) {
    const auto& kind = *route.kind;
    const bool status = route.subresource == "status";
    std::vector<std::string> warnings;
    registry::WriteOptions options{.warnings = &warnings, .manager = manager_of(request)};
    if (const auto dry = query_of(request, "dryRun"); dry == "All") options.dry_run = true;
    else if (request.query.contains("dryRun")) return invalid_query(fmt::format("dryRun: Unsupported value: [\"{}\"]: supported values: \"All\"", shortened(dry)));
    const auto validation = query_of(request, "fieldValidation");
    if (validation == "Strict") options.validation = registry::FieldValidation::strict;
    else if (validation == "Ignore") options.validation = registry::FieldValidation::ignore;
    else if (!validation.empty() && validation != "Warn") return invalid_query(fmt::format("fieldValidation: Unsupported value: \"{}\": supported values: \"Ignore\", \"Strict\", \"Warn\"", shortened(validation)));
    options.force = query_of(request, "force") == "true" || query_of(request, "force") == "1";
    if (printable(options.manager) != options.manager) return invalid_query("fieldManager: Invalid value: should only contain printable characters");
    if (options.manager.size() > 128) return invalid_query("fieldManager: Invalid value: may not be more than 128 bytes");
    if (request.method == "DELETE") return remove(request, route, options);

    auto answer = [&](const registry::Answer<registry::ObjectRef>& result, int code) {
        if (!result) return failure_reply(result.error());
        auto out = form_of(request.accept) == Form::table ? json_reply(code, make_table(kind, {*result}, text_at(**result, "metadata.resourceVersion"), include_object(request), true)) : json_reply(code, presented(*route.shown, **result));
        if (!status)
            for (const auto& note : resources::notes(kind, **result, cores)) warnings.push_back(fmt::format("{}: {}{}", note.path, note.reason == "NoEffect" ? "has no effect: " : "", note.message));
        for (const auto& w : warnings) out.headers.emplace_back("Warning", warning_header(w));
        return out;
    };
    auto not_allowed = [] { return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"); };
    const auto media = media_of(request);
    int code = 400;
    if (request.method == "PATCH") {
        if (route.name.empty()) return not_allowed();
        std::string accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        if (kind.built_in) accepted += ", application/strategic-merge-patch+json";
        registry::PatchType type{};
        if (media == "application/merge-patch+json") type = registry::PatchType::merge;
        else if (media == "application/json-patch+json") type = registry::PatchType::json;
        else if (media == "application/apply-patch+yaml") type = registry::PatchType::apply;
        else if (media == "application/strategic-merge-patch+json" && kind.built_in) type = registry::PatchType::strategic;
        else return failure_reply(415, "UnsupportedMediaType", fmt::format("the body of the request was in an unknown format - accepted media types include: {}", accepted));
        if (type == registry::PatchType::apply) options.manager = query_of(request, "fieldManager");
        else if (!query_of(request, "force").empty()) return invalid_query("PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch");
        auto patch = body_of(request, code);
        if (!patch) return failure_reply(400, "BadRequest", fmt::format("the patch cannot be read: {}", patch.error().message));
        if (type == registry::PatchType::json && !route.shown->kept_version.empty()) return answer(patch_earlier(route, *patch, status, options), 200);
        if (auto converted = resources::convert(*route.shown, *patch, warnings); !converted) return failure_reply(422, "Invalid", fmt::format("{} \"{}\" is invalid: {}", route.shown->qualified_kind(), shortened(route.name), converted.error().message));
        if (kind.group == "rbac.authorization.k8s.io" && !user.is_master()) {
            // What would come of it is what must not exceed the caller's own rights.
            auto trial = options;
            trial.dry_run = true;
            trial.warnings = nullptr;
            const auto outcome = registry_.patch(kind, route.name_space, route.name, type, *patch, status, trial);
            if (!outcome) return failure_reply(outcome.error());
            if (const auto beyond = escalation(user, kind, route.name_space, **outcome)) return failure_reply(*beyond);
        }
        bool created = false;
        const auto result = registry_.patch(kind, route.name_space, route.name, type, *patch, status, options, &created);
        return answer(result, created ? 201 : 200);
    }
    if (!media.empty() && media != "application/json" && media != "application/yaml" && media != "application/vnd.kubernetes.protobuf")
        return failure_reply(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf");
    auto object = body_of(request, code);
    if (!object) {
        if (code == 415) return failure_reply(415, "UnsupportedMediaType", fmt::format("the body of the request was in an unknown format - accepted media types include: application/json, application/yaml: {}", object.error().message));
        return failure_reply(400, "BadRequest", fmt::format("the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {}", kind.kind, object.error().message));
    }
    if (options.validation != registry::FieldValidation::ignore && (media.empty() || media == "application/json")) {
        std::string text;
        for (const auto& path : resources::duplicate_fields(request.body)) {
            const auto fault = fmt::format("duplicate field \"{}\"", path);
            if (options.validation == registry::FieldValidation::warn) warnings.push_back(fault);
            else text += (text.empty() ? "" : ", ") + fault;
        }
        if (!text.empty()) return failure_reply(400, "BadRequest", fmt::format("{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}", kind.kind, kind.version, kind.kind, text));
    }
    if (const auto given = text_at(*object, "kind"); !given.empty() && given != kind.kind)
        return failure_reply(400, "BadRequest", fmt::format("{} in version \"{}\" cannot be handled as a {}: the kind in the data ({}) does not match the expected kind ({})", shortened(given), kind.version, kind.kind, shortened(given), kind.kind));
    if (const auto given = text_at(*object, "apiVersion"); !given.empty() && given != route.shown->api_version())
        return failure_reply(400, "BadRequest", fmt::format("the API version in the data ({}) does not match the expected API version ({})", shortened(given), route.shown->api_version()));
    if (auto converted = resources::convert(*route.shown, *object, warnings); !converted) return failure_reply(422, "Invalid", fmt::format("{} \"{}\" is invalid: {}", route.shown->qualified_kind(), shortened(text_at(*object, "metadata.name")), converted.error().message));
    if (const auto beyond = escalation(user, kind, route.name_space, *object)) return failure_reply(*beyond);
    if (request.method == "POST") {
        if (!route.name.empty() || (kind.namespaced && route.name_space.empty())) return not_allowed();
        return answer(registry_.create(kind, route.name_space, std::move(*object), options), 201);
    }
    if (route.name.empty()) return not_allowed();
    return answer(registry_.update(kind, route.name_space, route.name, std::move(*object), status, options), 200);
}

Reply Handler::remove(const Request& request, const Route& route, const registry::WriteOptions& options) {
    const auto& kind = *route.kind;
    registry::RemoveOptions how{.preconditions = {}, .dry_run = options.dry_run};
    auto propagation = optional_query(request, "propagationPolicy");
    if (!request.body.empty()) {
        int code = 400;
        const auto parsed = body_of(request, code);
        if (!parsed) return failure_reply(code, code == 415 ? "UnsupportedMediaType" : "BadRequest", fmt::format("DeleteOptions: {}", parsed.error().message));
        if (const auto why = wrong_type(*parsed); !why.empty())
            return failure_reply(400, "BadRequest", fmt::format("DeleteOptions: {}", why));
        how.preconditions = at_path(*parsed, "preconditions");
        const auto& policy = at_path(*parsed, "propagationPolicy");
        if (!propagation && policy.is_string()) propagation = policy.get<std::string>();
        if (!propagation && at_path(*parsed, "orphanDependents") == true) propagation = "Orphan";
        for (const auto& dry : at_path(*parsed, "dryRun")) {
            if (dry != "All")
                return invalid_query(fmt::format("DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: "
                                                 "Unsupported value: {}: supported values: \"All\"",
                                                 resources::brief(dry)));
            how.dry_run = true;
        }
    }
    if (propagation == "Foreground") how.propagation = registry::Propagation::foreground;
    else if (propagation == "Orphan") how.propagation = registry::Propagation::orphan;
    else if (propagation && propagation != "Background")
        return invalid_query(fmt::format("DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{}\": supported values: \"Foreground\", \"Background\", \"Orphan\"", shortened(*propagation)));
    if (route.name.empty()) {
        const auto selector = Selector::parse(kind, query_of(request, "labelSelector"), query_of(request, "fieldSelector"));
        if (!selector) return failure_reply(400, "BadRequest", selector.error().message);
        Json items = Json::array();
        for (const auto& item : registry_.list(kind, route.name_space).items) {
            if (!selector->matches(*item)) continue;
            if (registry_.remove(kind, text_at(*item, "metadata.namespace"), text_at(*item, "metadata.name"), how)) items.push_back(presented(*route.shown, *item));
        }
        return json_reply(200, {{"kind", kind.kind + "List"}, {"apiVersion", route.shown->api_version()}, {"metadata", {{"resourceVersion", std::to_string(registry_.version())}}}, {"items", items}});
    }
    const auto removed = registry_.remove(kind, route.name_space, route.name, how);
    if (!removed) return failure_reply(removed.error());
    if (!removed->is_gone || (kind.built_in && (kind.kind == "Service" || kind.kind == "ServiceAccount"))) return json_reply(200, presented(*route.shown, *removed->object));
    Json details = {{"name", route.name}, {"kind", kind.plural}, {"uid", text_at(*removed->object, "metadata.uid")}};
    if (!kind.group.empty()) details["group"] = kind.group;
    return json_reply(200, {{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", Json::object()}, {"status", "Success"}, {"details", details}});
}

// --- watch ---

std::string Handler::watch_line(const Watch& watch, const registry::Event& event, bool first) const {
    if (event.kind->qualified_plural() != watch.kind->qualified_plural() || (!watch.name_space.empty() && event.name_space != watch.name_space)) return {};
    auto concerns = [&](const registry::ObjectRef& object) { return object != nullptr && watch.selector.matches(*object); };
    // An object that begins to match is ADDED, one that stops is DELETED, in its last matching state.
    const bool now = event.type != registry::Event::Type::deleted && concerns(event.object);
    const bool before = event.type != registry::Event::Type::added && concerns(event.previous);
    if (!now && !before) return {};
    const char* type = now && before ? "MODIFIED" : now ? "ADDED" : "DELETED";
    auto shown = event.object;
    if (!now && event.type == registry::Event::Type::modified) {
        auto last = *event.previous;
        last["metadata"]["resourceVersion"] = std::to_string(event.version);
        shown = std::make_shared<const Json>(std::move(last));
    }
    Json object = watch.form == Watch::Form::table      ? make_table(*watch.kind, {shown}, std::to_string(event.version), "Metadata", first)
                  : watch.form == Watch::Form::metadata ? metadata_only(*shown)
                                                        : presented(*watch.kind, *shown);
    return Json{{"type", type}, {"object", std::move(object)}}.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Handler::bookmark_line(const Watch& watch, std::uint64_t version, bool initial_end) const {
    Json metadata = {{"resourceVersion", std::to_string(version)}, {"creationTimestamp", nullptr}};
    if (initial_end) metadata["annotations"] = {{"k8s.io/initial-events-end", "true"}};
    Json object = {{"kind", watch.kind->kind}, {"apiVersion", watch.kind->api_version()}, {"metadata", metadata}};
    if (watch.form == Watch::Form::metadata) object["kind"] = "PartialObjectMetadata", object["apiVersion"] = "meta.k8s.io/v1";
    if (watch.form == Watch::Form::table) {
        Json cells = Json::array();
        const auto shape = make_table(*watch.kind, {}, "", "None", true);
        for (std::size_t i = 0; i < shape["columnDefinitions"].size(); ++i) cells.push_back("");
        object = {{"kind", "Table"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", {{"resourceVersion", std::to_string(version)}}}, {"columnDefinitions", nullptr},
                  {"rows", Json::array({{{"cells", cells}, {"object", {{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", metadata}}}}})}};
    }
    return Json{{"type", "BOOKMARK"}, {"object", std::move(object)}}.dump() + "\n";
}

std::string Handler::expired_line(std::uint64_t asked, std::uint64_t oldest) {
    const Failure failure{.code = 410, .reason = "Expired", .message = fmt::format("too old resource version: {} ({})", asked, oldest)};
    return Json{{"type", "ERROR"}, {"object", failure.to_json()}}.dump() + "\n";
}

std::string Handler::future_line(std::uint64_t asked, std::uint64_t current) {
    const Failure failure{
        .code = 410,
        .reason = "Expired",
        .message = fmt::format("too large resource version: {}, current: {}; list again", asked, current)};
    return Json{{"type", "ERROR"}, {"object", failure.to_json()}}.dump() + "\n";
}

}  // namespace penstock::api
