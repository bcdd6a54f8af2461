#include <algorithm>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/clock.h"
#include "base/text.h"

namespace penstock::api {

using resources::at_path;
using resources::Json;
using resources::text_at;

std::string age_text(std::int64_t s) {
    if (s < 0) s = 0;
    const auto minutes = s / 60, hours = s / 3600, days = s / 86'400;
    auto two = [](std::int64_t a, const char* au, std::int64_t b, const char* bu) { return b == 0 ? fmt::format("{}{}", a, au) : fmt::format("{}{}{}{}", a, au, b, bu); };
    if (s < 120) return fmt::format("{}s", s);
    if (s < 600) return two(minutes, "m", s % 60, "s");
    if (minutes < 180) return fmt::format("{}m", minutes);
    if (hours < 8) return two(hours, "h", minutes % 60, "m");
    if (hours < 48) return fmt::format("{}h", hours);
    if (days < 8) return two(days, "d", hours % 24, "h");
    if (days < 2 * 365) return fmt::format("{}d", days);
    if (days < 8 * 365) return two(days / 365, "y", days % 365, "d");
    return fmt::format("{}y", days / 365);
}

namespace {

/// Cells that are not plain fields.
std::string special_cell(const std::string& path, const Json& object) {
    if (path == "#data") return std::to_string(at_path(object, "data").size() + at_path(object, "binaryData").size());
    if (path == "#external-ip") {
        if (text_at(object, "spec.type") != "LoadBalancer") return "<none>";
        const auto& ingress = at_path(object, "status.loadBalancer.ingress");
        return ingress.is_array() && !ingress.empty() ? text_at(ingress[0], "ip", text_at(ingress[0], "hostname")) : "<pending>";
    }
    if (path == "#ports") {
        std::string out;
        for (const auto& port : at_path(object, "spec.ports")) {
            const auto node = port.contains("nodePort") ? fmt::format(":{}", port["nodePort"].dump()) : std::string();
            out += fmt::format("{}{}{}/{}", out.empty() ? "" : ",", port.contains("port") ? port["port"].dump() : "", node, text_at(port, "protocol", "TCP"));
        }
        return out.empty() ? "<none>" : out;
    }
    return {};
}

std::string cell(const resources::Column& column, const Json& object) {
    if (column.path.starts_with('#')) return special_cell(column.path, object);
    const auto& value = at_path(object, column.path);
    if (value.is_null()) return "";
    return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

Json make_table(const resources::Kind& kind, const std::vector<registry::ObjectRef>& items, std::uint64_t version, bool whole_objects, bool with_columns) {
    Json columns = Json::array();
    auto column = [&](const std::string& name, const std::string& type, const std::string& format, const std::string& doc, int priority) {
        columns.push_back({{"name", name}, {"type", type}, {"format", format}, {"description", doc}, {"priority", priority}});
    };
    column("Name", "string", "name", "Name must be unique within a namespace.", 0);
    for (const auto& c : kind.columns)
        if (c.priority == 0) column(c.name, "string", "", c.doc, c.priority);
    column("Age", "string", "", "Time since creation.", 0);
    for (const auto& c : kind.columns)
        if (c.priority > 0) column(c.name, "string", "", c.doc, c.priority);
    Json rows = Json::array();
    for (const auto& item : items) {
        Json cells = Json::array({text_at(*item, "metadata.name")});
        for (const auto& c : kind.columns)
            if (c.priority == 0) cells.push_back(cell(c, *item));
        const auto created = parse_rfc3339(text_at(*item, "metadata.creationTimestamp"));
        cells.push_back(created < 0 ? "<unknown>" : age_text((wall_ms() - created) / 1000));
        for (const auto& c : kind.columns)
            if (c.priority > 0) cells.push_back(cell(c, *item));
        Json object = *item;
        if (!whole_objects) object = {{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", (*item)["metadata"]}};
        rows.push_back({{"cells", cells}, {"object", std::move(object)}});
    }
    return {{"kind", "Table"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", {{"resourceVersion", std::to_string(version)}}},
            {"columnDefinitions", with_columns ? columns : Json(nullptr)}, {"rows", rows}};
}

Result<bool> matches_labels(const std::string& selector, const Json& object) {
    const auto& labels = at_path(object, "metadata.labels");
    auto find = [&](std::string_view key) -> const Json* {
        if (!labels.is_object()) return nullptr;
        const auto at = labels.find(key);
        return at == labels.end() ? nullptr : &*at;
    };
    std::vector<std::string> parts;
    int depth = 0;
    for (const char c : selector) {
        if (c == '(') ++depth;
        if (c == ')') --depth;
        if (parts.empty() || (c == ',' && depth == 0)) parts.emplace_back();
        if (c != ',' || depth != 0) parts.back() += c;
    }
    for (const auto& raw : parts) {
        const auto part = trim(raw);
        if (part.empty()) continue;
        if (const auto open = part.find('('); open != std::string_view::npos) {
            const auto head = trim(part.substr(0, open));
            const auto space = head.rfind(' ');
            if (part.back() != ')' || space == std::string_view::npos) return fail(fmt::format("unable to parse requirement: \"{}\"", part));
            const auto key = trim(head.substr(0, space)), word = head.substr(space + 1);
            if (word != "in" && word != "notin") return fail(fmt::format("unable to parse requirement: \"{}\" is no operator; use in or notin", word));
            const auto* value = find(key);
            bool listed = false;
            for (const auto candidate : split(part.substr(open + 1, part.size() - open - 2), ','))
                listed |= value != nullptr && *value == std::string(trim(candidate));
            if (word == "in" ? !listed : listed) return false;
        } else if (const auto unequal = part.find("!="); unequal != std::string_view::npos) {
            const auto* value = find(trim(part.substr(0, unequal)));
            if (value != nullptr && *value == std::string(trim(part.substr(unequal + 2)))) return false;
        } else if (const auto equal = part.find('='); equal != std::string_view::npos) {
            auto wanted = part.substr(equal + 1);
            if (wanted.starts_with('=')) wanted.remove_prefix(1);
            const auto* value = find(trim(part.substr(0, equal)));
            if (value == nullptr || *value != std::string(trim(wanted))) return false;
        } else if (part.starts_with('!')) {
            if (find(trim(part.substr(1))) != nullptr) return false;
        } else if (find(part) == nullptr) {
            return false;
        }
    }
    return true;
}

}  // namespace penstock::api
