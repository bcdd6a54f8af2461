#include "control/traces.h"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"

namespace penstock::control {

using broker::Span;
using resources::Json;

namespace {

constexpr std::size_t spans_of_a_trace_max = 1000;
constexpr std::int64_t clock_set_ns = 100'000'000;

template <class Bytes>
std::string hex(const Bytes& bytes) {
    std::string out;
    for (const auto byte : bytes) out += fmt::format("{:02x}", byte);
    return out;
}

std::size_t size_of(const Span& span) {
    std::size_t out = sizeof(Span) + span.name.size() + span.fault.size();
    for (const auto& [name, value] : span.attributes) out += name.size() + value.size() + 2 * sizeof(std::string);
    return out;
}

bool is_none(const broker::SpanId& id) { return std::ranges::all_of(id, [](unsigned char byte) { return byte == 0; }); }

/// The span that none of the others is above.
const Span& root_of(const std::vector<Span>& spans) {
    for (const auto& span : spans)
        if (is_none(span.parent) || std::ranges::find(spans, span.parent, &Span::id) == spans.end()) return span;
    return spans.front();
}

}  // namespace

void TraceStore::set_limit(std::size_t bytes) {
    const std::lock_guard lock(guard_);
    limit_ = bytes;
    shrink();
}

void TraceStore::shrink() {
    while (bytes_ > limit_ && !order_.empty()) {
        const auto oldest = traces_.find(order_.front());
        order_.pop_front();
        bytes_ -= oldest->second.bytes;
        traces_.erase(oldest);
    }
}

void TraceStore::add(std::vector<Span> spans) {
    const auto shift = clock_.wall_ms() * 1'000'000 - clock_.monotonic_ns();
    const std::lock_guard lock(guard_);
    if (limit_ == 0) return;
    // One and the same for all spans, so that those of one trace fit together; until somebody sets the clock.
    if (to_unix_ == 0 || std::abs(shift - to_unix_) > clock_set_ns) to_unix_ = shift;
    for (auto& span : spans) {
        auto [found, is_new] = traces_.try_emplace(span.trace);
        if (is_new) order_.push_back(span.trace);
        auto& kept = found->second;
        if (kept.spans.size() >= spans_of_a_trace_max) continue;
        const auto size = size_of(span);
        span.begin_ns += to_unix_;
        span.end_ns += to_unix_;
        kept.bytes += size;
        bytes_ += size;
        kept.spans.push_back(std::move(span));
    }
    shrink();
}

std::size_t TraceStore::bytes() const {
    const std::lock_guard lock(guard_);
    return bytes_;
}

Json TraceStore::list() const {
    const std::lock_guard lock(guard_);
    Json items = Json::array();
    for (auto at = order_.rbegin(); at != order_.rend(); ++at) {
        const auto& spans = traces_.at(*at).spans;
        const auto& root = root_of(spans);
        std::string fault = root.fault;
        for (const auto& span : spans)
            if (fault.empty()) fault = span.fault;
        Json attributes = Json::object();
        for (const auto& span : spans)
            for (const auto& [name, value] : span.attributes)
                if (!attributes.contains(name)) attributes[name] = printable(value);
        items.push_back({{"trace", hex(*at)}, {"time", rfc3339_ms(root.begin_ns / 1'000'000)}, {"name", root.name}, {"milliseconds", static_cast<double>(root.end_ns - root.begin_ns) / 1e6}, {"spans", spans.size()},
                         {"fault", printable(fault)}, {"attributes", attributes}});
    }
    return {{"items", items}};
}

Json TraceStore::otlp(const std::string& trace, const std::string& service) const {
    const std::lock_guard lock(guard_);
    auto text = [](const std::string& name, const std::string& value) { return Json{{"key", printable(name)}, {"value", {{"stringValue", printable(value)}}}}; };
    Json out = Json::array();
    for (const auto& id : order_) {
        if (!trace.empty() && hex(id) != trace) continue;
        for (const auto& span : traces_.at(id).spans) {
            Json attributes = Json::array();
            for (const auto& [name, value] : span.attributes) attributes.push_back(text(name, value));
            Json one = {{"traceId", hex(span.trace)}, {"spanId", hex(span.id)}, {"name", span.name}, {"kind", static_cast<int>(span.kind)}, {"startTimeUnixNano", std::to_string(span.begin_ns)},
                        {"endTimeUnixNano", std::to_string(span.end_ns)}, {"attributes", attributes}, {"status", Json::object()}};
            if (!is_none(span.parent)) one["parentSpanId"] = hex(span.parent);
            if (!span.fault.empty()) one["status"] = {{"code", 2}, {"message", printable(span.fault)}};   // STATUS_CODE_ERROR
            out.push_back(std::move(one));
        }
    }
    if (out.empty()) return {{"resourceSpans", Json::array()}};
    return {{"resourceSpans", Json::array({{{"resource", {{"attributes", Json::array({text("service.name", service)})}}}, {"scopeSpans", Json::array({{{"scope", {{"name", "penstock"}}}, {"spans", out}}})}}})}};
}

}  // namespace penstock::control
