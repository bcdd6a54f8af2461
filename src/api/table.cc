#include <algorithm>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/clock.h"
#include "base/text.h"

namespace penstock::api {

using resources::at_path;
using resources::flag_of;
using resources::integer_of;
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

std::string age_of(const std::string& time) {
    const auto at = parse_rfc3339(time);
    return at < 0 ? "<unknown>" : age_text((wall_ms() - at) / 1000);
}

std::string joined(const Json& list, const char* field, const std::string& none) {
    std::string out;
    if (list.is_array())
        for (const auto& item : list)
            if (const auto text = text_at(item, field); !text.empty()) out += (out.empty() ? "" : ",") + text;
    return out.empty() ? none : out;
}

const Json& condition_of(const Json& object, const char* type) {
    static const Json none;
    if (const auto& conditions = at_path(object, "status.conditions"); conditions.is_array())
        for (const auto& c : conditions)
            if (text_at(c, "type") == type) return c;
    return none;
}

std::string subjects_cell(const Json& object, const std::string& kind) {
    std::string out;
    if (const auto& subjects = at_path(object, "subjects"); subjects.is_array())
        for (const auto& subject : subjects) {
            if (text_at(subject, "kind") != kind) continue;
            const auto name = kind == "ServiceAccount" ? text_at(subject, "namespace") + "/" + text_at(subject, "name") : text_at(subject, "name");
            out += (out.empty() ? "" : ", ") + name;
        }
    return out;
}

std::string service_cell(const std::string& path, const Json& object) {
    if (path == "#external-ip") {
        if (text_at(object, "spec.type") != "LoadBalancer") return joined(Json(), "", "<none>");
        const auto& ingress = at_path(object, "status.loadBalancer.ingress");
        std::string out;
        if (ingress.is_array())
            for (const auto& entry : ingress) out += (out.empty() ? "" : ",") + text_at(entry, "ip", text_at(entry, "hostname"));
        return out.empty() ? "<pending>" : out;
    }
    if (path == "#selector") {
        std::string out;
        if (const auto& selector = at_path(object, "spec.selector"); selector.is_object())
            for (const auto& [key, value] : selector.items()) out += fmt::format("{}{}={}", out.empty() ? "" : ",", key, value.is_string() ? value.get<std::string>() : "");
        return out.empty() ? "<none>" : out;
    }
    std::string out;
    if (const auto& ports = at_path(object, "spec.ports"); ports.is_array())
        for (const auto& port : ports) {
            const auto node = port.contains("nodePort") ? fmt::format(":{}", port["nodePort"].dump()) : std::string();
            out += fmt::format("{}{}{}/{}", out.empty() ? "" : ",", port.contains("port") ? port["port"].dump() : "", node, text_at(port, "protocol", "TCP"));
        }
    return out.empty() ? "<none>" : out;
}

std::string pod_cell(const std::string& path, const Json& object) {
    std::size_t ready = 0;
    std::int64_t restarts = 0;
    if (const auto& states = at_path(object, "status.containerStatuses"); states.is_array())
        for (const auto& state : states) {
            ready += flag_of(state, "ready") ? 1 : 0;
            restarts += integer_of(state, "restartCount");
        }
    return path == "#pod-ready" ? fmt::format("{}/{}", ready, at_path(object, "spec.containers").size()) : std::to_string(restarts);
}

std::string node_cell(const std::string& path, const Json& object) {
    if (path == "#node-status") return text_at(condition_of(object, "Ready"), "status") == "True" ? "Ready" : "NotReady";
    if (path == "#node-roles") {
        std::string out;
        constexpr std::string_view prefix = "node-role.kubernetes.io/";
        if (const auto& labels = at_path(object, "metadata.labels"); labels.is_object())
            for (const auto& [key, value] : labels.items())
                if (key.starts_with(prefix)) out += (out.empty() ? "" : ",") + key.substr(prefix.size());
        return out.empty() ? "<none>" : out;
    }
    if (const auto& addresses = at_path(object, "status.addresses"); addresses.is_array())
        for (const auto& address : addresses)
            if (text_at(address, "type") == "InternalIP") return text_at(address, "address");
    return "<none>";
}

std::string event_cell(const std::string& path, const Json& object) {
    if (path == "#event-object") return to_lower(text_at(object, "involvedObject.kind")) + "/" + text_at(object, "involvedObject.name");
    if (path == "#event-source") {
        const auto component = text_at(object, "source.component", text_at(object, "reportingComponent")), host = text_at(object, "source.host");
        return host.empty() ? component : component + ", " + host;
    }
    const auto first = text_at(object, "firstTimestamp", text_at(object, "eventTime")), last = text_at(object, "lastTimestamp", text_at(object, "series.lastObservedTime", first));
    return age_of(path == "#event-first" ? first : last);
}

/// As Kubernetes prints them: three, and how many there are beyond.
std::string slice_cell(const std::string& path, const Json& object) {
    constexpr std::size_t shown_max = 3;
    const bool are_ports = path == "#slice-ports";
    const auto& all = at_path(object, are_ports ? "ports" : "endpoints");
    std::vector<std::string> texts;
    if (all.is_array())
        for (const auto& one : all) {
            if (are_ports) texts.push_back(std::to_string(integer_of(one, "port")));
            else
                for (const auto& address : at_path(one, "addresses")) texts.push_back(address.is_string() ? address.get<std::string>() : "");
        }
    if (texts.empty()) return "<unset>";
    std::string out;
    for (std::size_t i = 0; i < std::min(texts.size(), shown_max); ++i) out += (i == 0 ? "" : ",") + texts[i];
    return texts.size() > shown_max ? fmt::format("{} + {} more...", out, texts.size() - shown_max) : out;
}

std::string tls_word(const Json& port) {
    const auto unsaid = at_path(port, "tls").is_object() ? "Automatic" : "none";
    return resources::canonical({"Automatic", "Manual"}, text_at(port, "tls.mode", unsaid));
}

/// What the spec asks of each port, one after the other as in the column of ports.
std::string port_cell(const std::string& path, const Json& object) {
    std::string out;
    if (const auto& ports = at_path(object, "spec.ports"); ports.is_array())
        for (const auto& port : ports) {
            const auto word = path == "#port-tls" ? tls_word(port) : text_at(port, "authenticationRef", "none");
            out += (out.empty() ? "" : ",") + word;
        }
    return out;
}

/// Cells that are not plain fields.
std::string special_cell(const std::string& path, const Json& object) {
    if (path == "#none") return "<none>";
    if (path == "#port-tls" || path == "#port-authentication") return port_cell(path, object);
    if (path == "#data") return std::to_string(at_path(object, "data").size() + at_path(object, "binaryData").size());
    if (path == "#secrets") return std::to_string(at_path(object, "secrets").size());
    if (path == "#external-ip" || path == "#ports" || path == "#selector") return service_cell(path, object);
    if (path.starts_with("#pod-")) return pod_cell(path, object);
    if (path.starts_with("#node-")) return node_cell(path, object);
    if (path.starts_with("#event-")) return event_cell(path, object);
    if (path.starts_with("#slice-")) return slice_cell(path, object);
    if (path == "#role-ref") return text_at(object, "roleRef.kind") + "/" + text_at(object, "roleRef.name");
    if (path.starts_with("#subjects-")) return subjects_cell(object, path.substr(10));
    if (path == "#ready") return text_at(condition_of(object, "Ready"), "status");
    if (path == "#ready-message") return text_at(condition_of(object, "Ready"), "message");
    if (path == "#endpoints") {
        std::string out;
        if (const auto& subsets = at_path(object, "subsets"); subsets.is_array())
            for (const auto& subset : subsets)
                for (const auto& address : at_path(subset, "addresses"))
                    for (const auto& port : at_path(subset, "ports")) out += fmt::format("{}{}:{}", out.empty() ? "" : ",", text_at(address, "ip"), integer_of(port, "port"));
        return out.empty() ? "<none>" : out;
    }
    return {};
}

/// The JSONPath of a definition's column: `.a.b`, `.a[0].b`, `.a[?(@.type=="T")].b`, `.a["x.y"]`, `.a\.b`.
const Json& column_value(const Json& object, std::string_view path) {
    static const Json none;
    const Json* at = &object;
    while (!path.empty()) {
        if (path.starts_with('.')) {
            path.remove_prefix(1);
            std::string name;
            while (!path.empty() && path[0] != '.' && path[0] != '[') {
                if (path[0] == '\\' && path.size() > 1) path.remove_prefix(1);
                name += path[0];
                path.remove_prefix(1);
            }
            if (name.empty()) continue;
            if (!at->is_object() || !at->contains(name)) return none;
            at = &(*at)[name];
        } else if (path.starts_with('[')) {
            const auto end = path.find(']');
            if (end == std::string_view::npos) return none;
            auto inner = path.substr(1, end - 1);
            path.remove_prefix(end + 1);
            if (inner.starts_with("?(@.") && inner.ends_with(')')) {
                inner = inner.substr(4, inner.size() - 5);
                const auto equal = inner.find("==");
                if (equal == std::string_view::npos || !at->is_array()) return none;
                auto wanted = trim(inner.substr(equal + 2));
                if (wanted.size() >= 2) wanted = wanted.substr(1, wanted.size() - 2);
                const auto field = std::string(trim(inner.substr(0, equal)));
                const auto found = std::ranges::find_if(*at, [&](const Json& item) { return text_at(item, field) == wanted; });
                if (found == at->end()) return none;
                at = &*found;
            } else if (inner.starts_with('\'') || inner.starts_with('"')) {
                const std::string name(inner.substr(1, inner.size() - 2));
                if (!at->is_object() || !at->contains(name)) return none;
                at = &(*at)[name];
            } else {
                const auto index = parse_number<std::size_t>(inner);
                if (!index || !at->is_array() || *index >= at->size()) return none;
                at = &(*at)[*index];
            }
        } else {
            return none;
        }
    }
    return *at;
}

std::string cell(const resources::Kind& kind, const resources::Column& column, const Json& object) {
    if (column.path.starts_with('#')) return special_cell(column.path, object);
    const auto& value = column.path.starts_with('.') ? column_value(object, column.path) : at_path(object, column.path);
    if (value.is_null()) return "";
    if (column.type == "date" && column.path.starts_with('.')) return age_of(value.is_string() ? value.get<std::string>() : "");
    if (!value.is_string()) return value.dump();
    // A word of an enumeration is told as the reference spells it, however it was typed.
    return resources::canonical_at(kind, column.path, value.get<std::string>());
}

}  // namespace

Json make_table(const resources::Kind& kind, const std::vector<registry::ObjectRef>& items, const std::string& version, const std::string& include_object, bool with_columns) {
    Json columns = Json::array();
    auto column = [&](const std::string& name, const std::string& type, const std::string& format, const std::string& doc, int priority) {
        columns.push_back({{"name", name}, {"type", type}, {"format", format}, {"description", doc}, {"priority", priority}});
    };
    // Events are told apart by what they are about; roles and definitions show when they were made.
    const bool is_event = kind.built_in && kind.kind == "Event";
    // A definition that names columns names them all.
    const bool has_age = !is_event && !(kind.dynamic && !kind.columns.empty()) && (kind.columns.empty() || kind.columns[0].name != "Created At");
    if (!is_event) column("Name", "string", "name", "Name must be unique within a namespace.", 0);
    // Kinds of Kubernetes itself show what is wide after the age, those of definitions before it.
    for (const auto& c : kind.columns)
        if (c.priority == 0 || !kind.built_in) column(c.name, "string", "", c.doc, c.priority);
    if (has_age) column("Age", "string", "", "Time since creation.", 0);
    for (const auto& c : kind.columns)
        if (c.priority > 0 && kind.built_in) column(c.name, "string", "", c.doc, c.priority);
    Json rows = Json::array();
    for (const auto& item : items) {
        Json cells = Json::array();
        // kubectl writes cells to the terminal as they are.
        auto put = [&](const resources::Column& c) { cells.push_back(printable(cell(kind, c, *item))); };
        if (!is_event) cells.push_back(text_at(*item, "metadata.name"));
        for (const auto& c : kind.columns)
            if (c.priority == 0 || !kind.built_in) put(c);
        const auto created = parse_rfc3339(text_at(*item, "metadata.creationTimestamp"));
        if (has_age) cells.push_back(created < 0 ? "<unknown>" : age_text((wall_ms() - created) / 1000));
        for (const auto& c : kind.columns)
            if (c.priority > 0 && kind.built_in) put(c);
        Json row = {{"cells", cells}};
        if (include_object == "Object") row["object"] = *item;
        else if (include_object != "None") row["object"] = {{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", (*item)["metadata"]}};
        rows.push_back(std::move(row));
    }
    return {{"kind", "Table"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", {{"resourceVersion", version}}},
            {"columnDefinitions", with_columns ? columns : Json(nullptr)}, {"rows", rows}};
}

}  // namespace penstock::api
