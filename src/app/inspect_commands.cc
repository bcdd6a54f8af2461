// describe, explain, wait, logs, create token, api-resources: for those who have no kubectl.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <fmt/format.h>

#include "app/jsonpath.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/text.h"
#include "client/names.h"
#include "client/reflector.h"
#include "io/poller.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::Kind;
using resources::text_at;

/// KIND NAME or KIND/NAME.
struct One {
    const Kind* kind = nullptr;
    std::vector<std::string> names;
};

Result<One> one_of(client::Kinds& kinds, const std::vector<std::string>& words, const char* usage) {
    if (words.empty()) return fail(usage);
    One out;
    const auto slash = words[0].find('/');
    const auto kind = kinds.by_word(std::string_view(words[0]).substr(0, slash));
    if (!kind) return std::unexpected(kind.error());
    out.kind = *kind;
    if (slash != std::string::npos) out.names.push_back(words[0].substr(slash + 1));
    for (std::size_t i = 1; i < words.size(); ++i) out.names.push_back(words[i]);
    for (const auto& name : out.names)
        if (auto good = client::check_name(name); !good) return std::unexpected(good.error());
    return out;
}

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

}  // namespace

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

int wait(const ResourceOptions& options, const WaitOptions& wanted) {
    const auto timeout = parse_duration(wanted.timeout);
    if (!timeout) return problem("--timeout: " + timeout.error().message);
    std::string path, value;
    const bool gone = wanted.condition == "delete", made = wanted.condition == "create";
    if (wanted.condition.starts_with("condition=")) {
        const auto rest = wanted.condition.substr(10);
        const auto equal = rest.find('=');
        path = rest.substr(0, equal);
        value = equal == std::string::npos ? "True" : rest.substr(equal + 1);
    } else if (wanted.condition.starts_with("jsonpath=")) {
        const auto end = wanted.condition.find('}');
        if (end == std::string::npos) return problem("--for=jsonpath needs a path in braces, for example jsonpath='{.status.runtimeStatus.status}'=Running");
        path = wanted.condition.substr(9, end - 8);
        value = end + 2 <= wanted.condition.size() ? wanted.condition.substr(end + 2) : "";
    } else if (!gone && !made) {
        return problem(fmt::format("--for=\"{}\" is not known; use condition=NAME, jsonpath='{{PATH}}'=VALUE, delete or create", wanted.condition));
    }
    auto holds = [&](const Json& object) {
        if (made) return true;
        if (wanted.condition.starts_with("condition=")) {
            const auto& conditions = at_path(object, "status.conditions");
            return conditions.is_array() && std::ranges::any_of(conditions, [&](const Json& c) { return equal_no_case(text_at(c, "type"), path) && equal_no_case(text_at(c, "status"), value); });
        }
        const auto text = evaluate_jsonpath(path, object);
        return text && (value.empty() ? !text->empty() : *text == value);
    };
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto one = one_of(kinds, options.words, "what to wait for, for example: penstock wait brokerlistener/default --for=jsonpath='{.status.runtimeStatus.status}'=Running");
    if (!one) return problem(one.error().message);
    if (one->names.empty()) return problem("a name is needed: KIND/NAME");
    const auto deadline = monotonic_ms() + *timeout;
    for (const auto& name : one->names) {
        const auto label = fmt::format("{}/{}", one->kind->singular, name);
        const auto target = client::path_of(*one->kind, connected->access().name_space);
        // A watch from the present state on: what is there comes first, then what changes.
        bool done = false;
        auto answer = connected->request("GET", client::path_of(*one->kind, connected->access().name_space, name));
        if (!answer) return problem(answer.error().message);
        if (!answer->ok() && answer->status != 404) return refused(answer);
        if (answer->status == 404 && !gone && !made) return refused(answer);
        done = gone ? answer->status == 404 : answer->ok() && holds(answer->body);
        // From what was just read on: an object that goes away before the watch begins is told of all the same.
        auto from = answer->ok() ? text_at(answer->body, "metadata.resourceVersion") : std::string("0");
        while (!done) {
            const auto began = monotonic_ms();
            const auto left = (deadline - began) / 1000;
            if (left <= 0) return problem(fmt::format("timed out waiting for the condition on {}", label));
            const auto ended = connected->watch(fmt::format("{}?watch=true&resourceVersion={}&fieldSelector=metadata.name%3D{}&timeoutSeconds={}", target, from, name, std::max<std::int64_t>(1, left)), "application/json", [&](const Json& event) {
                const auto type = text_at(event, "type");
                done = gone ? type == "DELETED" : (type == "ADDED" || type == "MODIFIED") && holds(event["object"]);
                return !done;
            });
            if (!ended) return problem(ended.error().message);
            if (*ended != 200)
                return problem(
                    fmt::format("watching {} was refused with status {}", one->kind->plural, *ended));
            // Whoever ends watches at once is not asked again at once.
            if (!done && monotonic_ms() - began < client::Reflector::short_watch_ms)
                io::Poller().wait(client::Reflector::short_watch_ms);
            if (!done && gone) {
                answer = connected->request("GET", client::path_of(*one->kind, connected->access().name_space, name));
                done = answer && answer->status == 404;
                if (answer && answer->ok()) from = text_at(answer->body, "metadata.resourceVersion");
            } else {
                from = "0";
            }
        }
        std::cout << label << (gone ? " deleted" : " condition met") << "\n";
    }
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

int create_token(const ResourceOptions& options, const TokenOptions& token) {
    if (auto good = client::check_name(token.name); !good) return problem(good.error().message);
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    Json request = {{"apiVersion", "authentication.k8s.io/v1"}, {"kind", "TokenRequest"}, {"spec", {{"audiences", token.audiences}}}};
    if (!token.duration.empty()) {
        const auto duration = parse_duration(token.duration);
        if (!duration) return problem("--duration: " + duration.error().message);
        request["spec"]["expirationSeconds"] = *duration / 1000;
    }
    const auto answer = connected->request("POST", client::path_of(*resources::find_kind("v1", "ServiceAccount"), connected->access().name_space, token.name) + "/token", request.dump());
    if (!answer || !answer->ok()) return refused(answer);
    std::cout << text_at(answer->body, "status.token") << "\n";
    return 0;
}

int backup_broker(const ResourceOptions& options, const std::string& folder) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    const auto path = std::filesystem::absolute(folder).string();
    const auto answer = connected->request("POST", "/penstock/broker-copy?folder=" + client::query_escaped(path));
    if (!answer || !answer->ok()) return refused(answer);
    std::cout << path << "\n";
    return 0;
}

int backup_registry(const ResourceOptions& options, const std::string& file) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    if (!out) return problem(fmt::format("{}: cannot be written", file));
    std::string refusal;
    const auto done = connected->stream("/penstock/registry", "*/*", [&](int code, std::string_view text) {
        if (code == 200) out << text;
        else refusal += text;
        return true;
    });
    out.close();
    if (!done) return problem(done.error().message);
    if (*done != 200) {
        const auto body = resources::parse_json(refusal);
        return problem(body ? text_at(*body, "message", refusal) : refusal);
    }
    if (!out) return problem(fmt::format("{}: could not be written to the end", file));
    std::cout << fmt::format("{} holds the registry; it is put in place as registry.sqlite in the data folder while penstock is stopped\n", file);
    return 0;
}

}  // namespace penstock::app
