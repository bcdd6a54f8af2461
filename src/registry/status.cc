#include "registry/status.h"

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"

namespace penstock::registry {

using resources::Json;
using resources::Kind;

Json Failure::to_json() const {
    return {{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", Json::object()}, {"status", "Failure"},
            {"message", printable(message)}, {"reason", reason}, {"details", resources::printable_texts(details)}, {"code", code}};   // kubectl writes them as they are
}

namespace {
Json details_of(const Kind& kind, const std::string& name) {
    Json out = {{"kind", kind.plural}};
    if (!name.empty()) out["name"] = resources::shortened(name);
    if (!kind.group.empty()) out["group"] = kind.group;
    return out;
}
}  // namespace

Failure not_found(const Kind& kind, const std::string& name) {
    return {.code = 404, .reason = "NotFound", .message = fmt::format("{} \"{}\" not found", kind.qualified_plural(), resources::shortened(name)), .details = details_of(kind, name)};
}
Failure already_exists(const Kind& kind, const std::string& name) {
    return {.code = 409, .reason = "AlreadyExists", .message = fmt::format("{} \"{}\" already exists", kind.qualified_plural(), resources::shortened(name)), .details = details_of(kind, name)};
}
Failure conflict(const Kind& kind, const std::string& name, const std::string& why) {
    return {.code = 409, .reason = "Conflict", .message = fmt::format("Operation cannot be fulfilled on {} \"{}\": {}", kind.qualified_plural(), resources::shortened(name), why), .details = details_of(kind, name)};
}
Failure bad_request(std::string message) { return {.code = 400, .reason = "BadRequest", .message = std::move(message)}; }
Failure forbidden(const Kind& kind, const std::string& name, const std::string& why) {
    return {.code = 403, .reason = "Forbidden", .message = fmt::format("{} \"{}\" is forbidden: {}", kind.qualified_plural(), resources::shortened(name), why), .details = details_of(kind, name)};
}

Failure invalid(const Kind& kind, const std::string& name, const std::vector<resources::Fault>& faults) {
    auto details = details_of(kind, name);
    details["kind"] = kind.kind;
    details["causes"] = Json::array();
    std::string text;
    std::size_t told = 0;
    for (const auto& fault : faults) {
        if (++told > resources::faults_max) {
            text += fmt::format(", and {} more", faults.size() - resources::faults_max);
            break;
        }
        details["causes"].push_back({{"reason", fault.reason}, {"message", fault.message}, {"field", fault.path}});
        text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", fault.path, fault.message);
    }
    if (faults.size() > 1) text = "[" + text + "]";
    return {.code = 422, .reason = "Invalid", .message = fmt::format("{} \"{}\" is invalid: {}", kind.qualified_kind(), resources::shortened(name), text), .details = std::move(details)};
}

}  // namespace penstock::registry
