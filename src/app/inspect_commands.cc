// describe, explain, logs, api-resources: for those who have no kubectl.
#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/text.h"
#include "client/names.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::Kind;
using resources::text_at;

struct LogOptions {
    std::string container, since;
    int tail = -1;
    bool follow = false, timestamps = false, previous = false;
};

/// `runtimeStatus` → `Runtime Status`, as kubectl describe writes it.
std::string heading(const std::string& key) {
    std::string out;
    for (std::size_t i = 0; i < key.size(); ++i) {
        const bool upper = std::isupper(static_cast<unsigned char>(key[i])) != 0;
        if (i == 0) out += static_cast<char>(std::toupper(static_cast<unsigned char>(key[i])));
        else {
            if (upper && std::islower(static_cast<unsigned char>(key[i - 1])) != 0) out += ' ';
            out += key[i];
        }
    }
    return out;
}

/// A value on a line of its own, whoever chose it: it does not end the line.
std::string shown(const Json& value) { return printable(value.is_string() ? value.get_ref<const std::string&>() : value.dump()); }

/// A text of several lines goes below its key, each line indented, so that none looks like a field.
void print_lines(std::string_view text, const std::string& pad) {
    for (const auto line : split(text.ends_with('\n') ? text.substr(0, text.size() - 1) : text, '\n')) std::cout << pad << printable(line) << "\n";
}

void print_tree(const Json& value, std::size_t indent) {
    const std::string pad(indent, ' ');
    if (value.is_object()) {
        std::size_t width = 0;
        for (const auto& [key, item] : value.items())
            if (!item.is_structured()) width = std::max(width, heading(key).size());
        for (const auto& [key, item] : value.items()) {
            if (item.is_structured() && !item.empty()) {
                std::cout << pad << printable(heading(key)) << ":\n";
                print_tree(item, indent + 2);
            } else if (item.is_string() && item.get_ref<const std::string&>().find('\n') != std::string::npos) {
                std::cout << pad << printable(heading(key)) << ":\n";
                print_lines(item.get_ref<const std::string&>(), pad + "  ");
            } else {
                std::cout << fmt::format("{}{:<{}}  {}\n", pad, printable(heading(key)) + ":", width + 1, item.is_structured() ? "<none>" : coloured(shown(item)));
            }
        }
    } else if (value.is_array()) {
        for (const auto& item : value) {
            if (item.is_structured()) print_tree(item, indent);
            else if (item.is_string()) print_lines(item.get_ref<const std::string&>(), pad);
            else std::cout << pad << shown(item) << "\n";
        }
    }
}

void print_map(const char* name, const Json& map) {
    bool first = true;
    if (map.is_object())
        for (const auto& [key, value] : map.items()) {
            if (key == "kubectl.kubernetes.io/last-applied-configuration") continue;
            std::cout << fmt::format("{:<14}{}={}\n", first ? std::string(name) + ":" : "", printable(key), shown(value));
            first = false;
        }
    if (first) std::cout << fmt::format("{:<14}<none>\n", std::string(name) + ":");
}

std::string age_of(const std::string& time) {
    const auto at = parse_rfc3339(time);
    if (at < 0) return "<unknown>";
    const auto seconds = (wall_ms() - at) / 1000;
    return seconds < 120 ? fmt::format("{}s", seconds) : seconds < 7200 ? fmt::format("{}m", seconds / 60) : fmt::format("{}h", seconds / 3600);
}

void print_events(client::Client& api, const Json& object) {
    const auto uid = text_at(object, "metadata.uid");
    const auto answer = api.request("GET", client::path_of(*resources::find_kind("v1", "Event"), text_at(object, "metadata.namespace")) + "?fieldSelector=involvedObject.uid%3D" + uid);
    const auto& items = answer && answer->ok() ? at_path(answer->body, "items") : Json();
    if (!items.is_array() || items.empty()) {
        std::cout << "Events:       <none>\n";
        return;
    }
    std::cout << fmt::format("Events:\n  {:<9}{:<18}{:<7}{:<18}{}\n", "Type", "Reason", "Age", "From", "Message");
    for (const auto& e : items) {
        const auto times = e.value("count", 1);
        const auto age = age_of(text_at(e, "lastTimestamp"));
        std::cout << fmt::format("  {:<9}{:<18}{:<7}{:<18}{}{}\n", shown(e.value("type", "")), shown(e.value("reason", "")), age, printable(text_at(e, "source.component")), shown(e.value("message", "")), times > 1 ? fmt::format(" (x{})", times) : "");
    }
}

int describe(const ResourceOptions& options) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto one = one_of(kinds, options.words, "a kind is needed, for example: penstock describe brokerlistener default");
    if (!one) return problem(one.error().message);
    std::vector<Json> objects;
    const auto space = options.all_namespaces ? std::string() : connected->access().name_space;
    if (one->names.empty()) {
        const auto answer = connected->request("GET", client::path_of(*one->kind, space));
        if (!answer || !answer->ok()) return refused(answer);
        for (const auto& item : at_path(answer->body, "items")) objects.push_back(item);
    }
    for (const auto& name : one->names) {
        const auto answer = connected->request("GET", client::path_of(*one->kind, space, name));
        if (!answer || !answer->ok()) return refused(answer);
        objects.push_back(answer->body);
    }
    if (objects.empty()) std::cerr << fmt::format("No resources found in {} namespace.\n", space);
    bool first = true;
    for (const auto& object : objects) {
        if (!std::exchange(first, false)) std::cout << "\n\n";
        std::cout << fmt::format("{:<14}{}\n", "Name:", text_at(object, "metadata.name"));
        if (one->kind->namespaced) std::cout << fmt::format("{:<14}{}\n", "Namespace:", text_at(object, "metadata.namespace"));
        print_map("Labels", at_path(object, "metadata.labels"));
        print_map("Annotations", at_path(object, "metadata.annotations"));
        std::cout << fmt::format("{:<14}{}\n{:<14}{}\n{:<14}{}\n", "API Version:", one->kind->api_version(), "Kind:", one->kind->kind, "Created:", text_at(object, "metadata.creationTimestamp"));
        if (const auto& owners = at_path(object, "metadata.ownerReferences"); owners.is_array())
            for (const auto& owner : owners) std::cout << fmt::format("{:<14}{}/{}\n", "Owner:", text_at(owner, "kind"), text_at(owner, "name"));
        for (const auto& [key, value] : object.items()) {
            if (key == "metadata" || key == "apiVersion" || key == "kind") continue;
            // What a Secret holds is not shown without being asked for (get -o yaml).
            if (one->kind->kind == "Secret" && key == "data") {
                std::cout << "Data:\n";
                for (const auto& [name, bytes] : value.items()) std::cout << fmt::format("  {}:  {} bytes\n", printable(name), base64_decode(bytes.get<std::string>()).value_or("").size());
            } else if (value.is_structured()) {
                std::cout << printable(heading(key)) << ":\n";
                print_tree(value, 2);
            } else {
                std::cout << fmt::format("{:<14}{}\n", printable(heading(key)) + ":", shown(value));
            }
        }
        print_events(*connected, object);
    }
    return 0;
}

int explain(const ResourceOptions& options) {
    if (options.words.size() != 1) return problem("one path is needed, for example: penstock explain brokerlistener.spec.ports");
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto dot = options.words[0].find('.');
    const auto kind = kinds.by_word(std::string_view(options.words[0]).substr(0, dot));
    if (!kind) return problem(kind.error().message);
    const auto& k = **kind;
    const auto answer = connected->request("GET", "/openapi/v3/" + std::string(k.group.empty() ? "api/" : "apis/") + k.api_version());
    if (!answer || !answer->ok()) return refused(answer);
    const Json* schema = nullptr;
    for (const auto& [name, candidate] : at_path(answer->body, "components.schemas").items())
        if (const auto& marks = candidate.value("x-kubernetes-group-version-kind", Json::array()); !marks.empty() && text_at(marks[0], "kind") == k.kind) schema = &at_path(answer->body, "components.schemas")[name];
    if (schema == nullptr) return problem(fmt::format("the server has no schema of {}", k.kind));
    std::string field;
    if (dot != std::string::npos)
        for (const auto step : split(std::string_view(options.words[0]).substr(dot + 1), '.')) {
            field = step;
            const auto* at = schema;
            while (at->contains("items")) at = &(*at)["items"];
            const auto properties = at->find("properties");
            if (properties == at->end() || !properties->contains(field)) {
                std::vector<std::string> names;
                if (properties != at->end())
                    for (const auto& [name, child] : properties->items()) names.push_back(name);
                const auto near = nearest(field, names);
                return problem(fmt::format("field \"{}\" does not exist{}", field, near.empty() ? "" : fmt::format("; did you mean {}?", near)));
            }
            schema = &(*properties)[field];
        }
    auto type_of = [](const Json& s) {
        if (s.value("x-kubernetes-int-or-string", false)) return std::string("IntOrString");
        if (s.contains("items")) return "[]" + s["items"].value("type", "any");
        return s.value("type", "any");
    };
    std::cout << fmt::format("KIND:     {}\nVERSION:  {}\n\n", k.kind, k.api_version());
    if (!field.empty()) std::cout << fmt::format("FIELD: {} <{}>\n\n", field, type_of(*schema));
    std::cout << "DESCRIPTION:\n    " << schema->value("description", "<none>") << "\n";
    const auto* inner = schema;
    while (inner->contains("items")) inner = &(*inner)["items"];
    if (!inner->contains("properties")) return 0;
    const auto& required = inner->value("required", Json::array());
    std::cout << "\nFIELDS:\n";
    for (const auto& [name, child] : (*inner)["properties"].items()) {
        std::cout << fmt::format("  {} <{}>{}\n", name, type_of(child), std::ranges::find(required, Json(name)) != required.end() ? " -required-" : "");
        if (const auto text = child.value("description", ""); !text.empty()) std::cout << "    " << text << "\n";
    }
    return 0;
}

int api_resources(const ResourceOptions& options) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto served = kinds.all();
    if (!served) return problem(served.error().message);
    std::size_t width = 4, names_width = 10, version_width = 10;
    auto short_names = [](const Kind& kind) { return fmt::format("{}", fmt::join(kind.short_names, ",")); };
    for (const auto& kind : **served) {
        width = std::max(width, kind.plural.size());
        names_width = std::max(names_width, short_names(kind).size());
        version_width = std::max(version_width, kind.api_version().size());
    }
    std::cout << fmt::format("{:<{}}   {:<{}}   {:<{}}   {:<10}   {}\n", "NAME", width, "SHORTNAMES", names_width, "APIVERSION", version_width, "NAMESPACED", "KIND");
    for (const auto& kind : **served) std::cout << fmt::format("{:<{}}   {:<{}}   {:<{}}   {:<10}   {}\n", kind.plural, width, short_names(kind), names_width, kind.api_version(), version_width, kind.namespaced, kind.kind);
    return 0;
}

int logs(const ResourceOptions& options, const LogOptions& log) {
    if (options.words.size() != 1) return problem("one pod is needed, for example: penstock logs aio-broker-frontend-0");
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    auto name = options.words[0];
    if (name.starts_with("pod/")) name = name.substr(4);
    if (auto good = client::check_name(name); !good) return problem(good.error().message);
    auto target = client::path_of(*resources::find_kind("v1", "Pod"), connected->access().name_space, name) + "/log?follow=" + (log.follow ? "true" : "false");
    if (!log.container.empty()) target += "&container=" + log.container;
    if (log.tail >= 0) target += fmt::format("&tailLines={}", log.tail);
    if (log.timestamps) target += "&timestamps=true";
    if (log.previous) target += "&previous=true";
    if (!log.since.empty()) {
        const auto since = parse_duration(log.since);
        if (!since) return problem("--since: " + since.error().message);
        target += fmt::format("&sinceSeconds={}", *since / 1000);
    }
    int status = 0;
    std::string refusal;
    const auto done = connected->stream(target, "application/json, */*", [&](int code, std::string_view text) {
        status = code;
        if (code == 200) std::cout << text << std::flush;
        else refusal += text;
        return true;
    });
    if (!done) return problem(done.error().message);
    if (*done == 200) return 0;
    const auto body = resources::parse_json(refusal);
    return problem(body ? text_at(*body, "message", refusal) : refusal);
}

}  // namespace

void add_api_resources(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add("api-resources", "List the kinds");
    add_api_options(command, resource);
    command.runs([&] { return api_resources(resource); });
}

void add_describe(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add("describe",
                                "Show resources at length, with their Events: penstock describe KIND [NAME]");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND [NAME...]");
    command.flag("-A,--all-namespaces", resource.all_namespaces, "All namespaces");
    command.runs([&] { return describe(resource); });
}

void add_explain(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command =
        commands.add("explain", "Show what a field means: penstock explain brokerlistener.spec.ports");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND[.FIELD...]");
    command.runs([&] { return explain(resource); });
}

void add_logs(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& log = commands.keep<LogOptions>();
    auto command = commands.add("logs", "Show the log of a role: penstock logs aio-broker-frontend-0");
    add_api_options(command, resource);
    command.option("words", resource.words, "POD");
    command.option("-c,--container", log.container, "Container");
    command.flag("-p,--previous", log.previous, "Those of the run before");
    command.flag("-f,--follow", log.follow, "Go on with new lines");
    command.option("--tail", log.tail, "Only the last lines").not_negative();
    command.option("--since", log.since, "Only lines younger than this, for example 5m");
    command.flag("--timestamps", log.timestamps, "Time before each line");
    command.runs([&] { return logs(resource, log); });
}

}  // namespace penstock::app
