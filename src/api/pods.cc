// What a Pod offers beyond its object: the log of a container, and its ports.
#include <algorithm>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "resources/text_rules.h"

namespace penstock::api {

using resources::at_path;
using resources::Json;
using resources::shortened;
using resources::text_at;

namespace {

std::string text_of(const std::vector<log::Line>& lines, LogRequest& request) {
    std::string out;
    for (const auto& line : lines) {
        request.after = line.number;
        auto text = request.timestamps ? fmt::format("{} {}", rfc3339_ms(line.wall_ms), line.text) : line.text;
        if (!text.ends_with('\n')) text += '\n';
        if (text.size() > request.bytes_left) text.resize(request.bytes_left);
        request.bytes_left -= text.size();
        out += text;
        if (request.bytes_left == 0) break;
    }
    return out;
}

}  // namespace

Reply Handler::pod_log(const Request& request, const Route& route) const {
    if (request.method != "GET") return failure_reply(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    const auto pod = registry_.get(*route.kind, route.name_space, route.name);
    if (!pod) return failure_reply(pod.error());
    std::vector<std::string> names;
    for (const auto& container : at_path(**pod, "spec.containers")) names.push_back(text_at(container, "name"));
    auto container = query_of(request, "container");
    if (container.empty()) {
        if (names.size() != 1) return failure_reply(400, "BadRequest", fmt::format("a container name must be specified for pod {}, choose one of: [{}]", shortened(route.name), fmt::join(names, " ")));
        container = names[0];
    }
    if (std::ranges::find(names, container) == names.end()) return failure_reply(400, "BadRequest", fmt::format("container {} is not valid for pod {}", shortened(container), shortened(route.name)));
    LogRequest wanted;
    const auto& annotations = at_path(**pod, "metadata.annotations");
    // Held here: what split() answers points into it.
    const auto modules = annotations.is_object() ? annotations.value("penstock.io/log-modules." + container, "") : std::string();
    if (annotations.is_object())
        for (const auto module : split(modules, ',')) wanted.modules.emplace_back(module);
    auto number = [&](const char* key) -> std::optional<std::int64_t> { return parse_number<std::int64_t>(query_of(request, key)); };
    for (const char* key : {"tailLines", "sinceSeconds", "limitBytes"})
        if (!query_of(request, key).empty() && (!number(key) || *number(key) < 0)) return failure_reply(422, "Invalid", fmt::format("PodLogOptions \"{}\" is invalid: {}: Invalid value: \"{}\": must be a number of at least 0", shortened(route.name), key, shortened(query_of(request, key))));
    wanted.timestamps = query_of(request, "timestamps") == "true";
    if (const auto limit = number("limitBytes")) wanted.bytes_left = static_cast<std::size_t>(*limit);
    std::int64_t since = 0;
    if (const auto seconds = number("sinceSeconds")) since = wall_ms() - *seconds * 1000;
    if (const auto time = query_of(request, "sinceTime"); !time.empty()) {
        since = parse_rfc3339(time);
        if (since < 0) return failure_reply(400, "BadRequest", fmt::format("sinceTime: \"{}\" is no RFC 3339 time", shortened(time)));
    }
    const bool of_run_before = query_of(request, "previous") == "true";
    std::vector<log::Line> lines;
    if (of_run_before) {
        auto former = former_log_ ? former_log_() : Result<std::optional<std::vector<log::Line>>>();
        if (!former) return failure_reply(500, "InternalError", "Internal error occurred: " + former.error().message);
        if (!*former) return failure_reply(400, "BadRequest", fmt::format("previous terminated container \"{}\" in pod \"{}\" not found", container, route.name));
        lines = std::move(**former);
        if (!wanted.modules.empty()) std::erase_if(lines, [&](const log::Line& line) { return std::ranges::find(wanted.modules, line.module) == wanted.modules.end(); });
    } else {
        lines = log::lines_after(0, wanted.modules);
    }
    std::erase_if(lines, [&](const log::Line& line) { return line.wall_ms < since; });
    if (const auto tail = number("tailLines"); tail && static_cast<std::size_t>(*tail) < lines.size()) lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(*tail));
    // The lines before the first wanted one count as sent; a log that is empty begins with what comes next.
    if (!lines.empty()) wanted.after = lines.front().number - 1;
    else wanted.after = log::last_number();
    Reply out{.content_type = "text/plain"};
    // A run that has ended says nothing more.
    if (of_run_before) out.body = text_of(lines, wanted);
    else if (query_of(request, "follow") == "true") out.follow = wanted;
    else out.body = log_lines(wanted);
    return out;
}

std::string Handler::log_lines(LogRequest& request) {
    return text_of(log::lines_after(request.after, request.modules), request);
}

Reply Handler::port_forward(const Request& request, const Route& route) const {
    const auto pod = registry_.get(*route.kind, route.name_space, route.name);
    if (!pod) return failure_reply(pod.error());
    if (to_lower(request.upgrade) != "spdy/3.1") return failure_reply(400, "BadRequest", "unable to upgrade: this server forwards ports over SPDY/3.1 (Upgrade: SPDY/3.1)");
    PortForward out{.host = "127.0.0.1"};
    for (const auto& container : at_path(**pod, "spec.containers"))
        for (const auto& port : at_path(container, "ports")) out.ports.push_back(resources::integer_of(port, "containerPort"));
    Reply reply;
    reply.status = 101;
    reply.forward = out;
    return reply;
}

}  // namespace penstock::api
