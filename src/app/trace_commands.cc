// penstock traces.
#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/terminal.h"
#include "base/text.h"
#include "client/apply.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

struct TraceOptions {
    std::string trace;                   ///< empty: a list
    int limit = 20;
    bool otlp = false, failed = false;
};

std::int64_t nanoseconds(const Json& span, const char* name) { return parse_number<std::int64_t>(text_at(span, name)).value_or(0); }

void print_tree(const std::vector<Json>& spans, const std::string& parent, std::size_t depth, std::int64_t begin) {
    for (const auto& span : spans) {
        if (text_at(span, "parentSpanId") != parent) continue;
        std::string attributes;
        for (const auto& one : at_path(span, "attributes")) attributes += fmt::format(" {}={}", printable(text_at(one, "key")), printable(text_at(one, "value.stringValue")));
        const auto from = nanoseconds(span, "startTimeUnixNano"), to = nanoseconds(span, "endTimeUnixNano");
        const auto fault = text_at(span, "status.message");
        std::cout << fmt::format("{:>10.3f} ms {:>10.3f} ms  {}{}{}{}\n", static_cast<double>(from - begin) / 1e6, static_cast<double>(to - from) / 1e6, std::string(depth * 2, ' '), printable(text_at(span, "name")), attributes,
                                 fault.empty() ? "" : "  FAULT " + printable(fault));
        print_tree(spans, text_at(span, "spanId"), depth + 1, begin);
    }
}

/// `penstock traces`: what took how long.
int traces(const ResourceOptions& options, const TraceOptions& trace) {
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    if (trace.otlp || !trace.trace.empty()) {
        const auto found = broker_view(*api, "traces?format=otlp&trace=" + trace.trace);
        if (!found) return problem(found.error().message);
        if (!trace.trace.empty() && (*found)["resourceSpans"].empty()) return problem(fmt::format("there is no trace {}; penstock traces lists those that are kept", trace.trace));
        if (trace.otlp) {
            std::cout << found->dump(2) << "\n";
            return 0;
        }
        std::vector<Json> spans;
        for (const auto& span : at_path(*found, "resourceSpans")[0]["scopeSpans"][0]["spans"]) spans.push_back(span);
        std::ranges::stable_sort(spans, {}, [](const Json& span) { return nanoseconds(span, "startTimeUnixNano"); });
        // The sender's own span is not here, unless it is the probe.
        auto known = [&](const std::string& id) { return std::ranges::any_of(spans, [&](const Json& span) { return text_at(span, "spanId") == id; }); };
        for (auto& span : spans)
            if (!known(text_at(span, "parentSpanId"))) span["parentSpanId"] = "";
        std::cout << "     AFTER           TOOK  SPAN\n";
        print_tree(spans, "", 0, nanoseconds(spans[0], "startTimeUnixNano"));
        return 0;
    }
    const auto list = broker_view(*api, "traces");
    if (!list) return problem(list.error().message);
    std::vector<std::vector<std::string>> rows;
    for (const auto& item : (*list)["items"]) {
        const auto fault = text_at(item, "fault");
        if (trace.failed && fault.empty()) continue;
        if (rows.size() >= static_cast<std::size_t>(trace.limit)) break;
        const auto& attributes = at_path(item, "attributes");
        auto attribute = [&](const char* name) { return attributes.contains(name) && attributes[name].is_string() ? attributes[name].get<std::string>() : std::string("-"); };
        rows.push_back({text_at(item, "time"), text_at(item, "trace"), text_at(item, "name"), fmt::format("{:.3f} ms", item.value("milliseconds", 0.0)), std::to_string(item.value("spans", 0)), attribute("messaging.client.id"),
                        attribute("messaging.destination.name"), fault.empty() ? "-" : fault});
    }
    if (rows.empty()) {
        std::cout << (trace.failed ? "No trace has a fault.\n" : "No traces are kept (yet): spec.diagnostics.traces of the Broker says what is traced.\n");
        return 0;
    }
    print_rows({"TIME", "TRACE", "NAME", "TOOK", "SPANS", "CLIENT", "TOPIC", "FAULT"}, rows);
    return 0;
}

}  // namespace

void add_traces(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& trace = commands.keep<TraceOptions>();
    auto command = commands.add(
        "traces", "What took how long: the self-test's steps, and packets of clients that send traceparent");
    add_api_options(command, resource);
    command.option("trace", trace.trace, "One trace, with all its spans");
    command.option("--limit", trace.limit, "So many, the newest").positive();
    command.flag("--failed", trace.failed, "Only those with a fault");
    command.flag("--otlp", trace.otlp, "As OpenTelemetry's TracesData in JSON");
    command.runs([&] { return traces(resource, trace); });
}

}  // namespace penstock::app
