#include "broker/trace.h"

#include <algorithm>

#include "base/text.h"
#include "base/clock.h"
#include "base/random.h"

namespace penstock::broker {
namespace {

constexpr std::size_t value_max = 256;

int digit(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;   // upper case is not allowed (§3.2.2)
}

template <std::size_t Size>
bool read_hex(std::string_view text, std::array<unsigned char, Size>& out) noexcept {
    if (text.size() != 2 * Size) return false;
    bool any = false;
    for (std::size_t i = 0; i < Size; ++i) {
        const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = static_cast<unsigned char>(high << 4 | low);
        any |= out[i] != 0;
    }
    return any;   // all zero is no identifier
}

template <std::size_t Size>
void write_hex(std::string& out, const std::array<unsigned char, Size>& bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    for (const auto byte : bytes) out += digits[byte >> 4], out += digits[byte & 15];
}

}  // namespace

std::optional<TraceParent> parse_traceparent(std::string_view text) noexcept {
    // version "-" trace-id "-" parent-id "-" flags; later versions may have more behind it.
    constexpr std::size_t size = 2 + 1 + 32 + 1 + 16 + 1 + 2;
    if (text.size() < size || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
    std::array<unsigned char, 1> version{}, flags{};
    TraceParent out;
    const bool known = text.starts_with("00") ? text.size() == size : read_hex(text.substr(0, 2), version) && version[0] != 0xFF && (text.size() == size || text[size] == '-');
    if (!known || !read_hex(text.substr(3, 32), out.trace) || !read_hex(text.substr(36, 16), out.span) || !read_hex(text.substr(53, 2), flags)) return std::nullopt;
    if ((flags[0] & 1) == 0) return std::nullopt;
    return out;
}

std::string write_traceparent(const TraceParent& parent) {
    std::string out = "00-";
    write_hex(out, parent.trace);
    out += '-';
    write_hex(out, parent.span);
    return out += "-01";
}

TraceId new_trace_id() noexcept {
    TraceId out{};
    random_bytes(out.data(), out.size());
    out[0] |= 1;
    return out;
}

SpanId new_span_id() noexcept {
    SpanId out{};
    random_bytes(out.data(), out.size());
    out[0] |= 1;
    return out;
}

PacketTrace::PacketTrace(SpanLog& log, const TraceParent& parent, const char* name, std::int64_t begin_ns) : log_(log) {
    whole_ = {.trace = parent.trace, .id = new_span_id(), .parent = parent.span, .name = name, .kind = Span::Kind::server, .begin_ns = begin_ns};
}

PacketTrace::~PacketTrace() {
    if (dropped_) return;
    whole_.end_ns = monotonic_ns();
    if (!steps_.empty()) steps_.back().end_ns = whole_.end_ns;
    for (auto& step : steps_) log_.add(std::move(step));
    log_.add(std::move(whole_));
}

void PacketTrace::note(const char* name, std::string_view value) { whole_.attributes.emplace_back(name, clipped(value, value_max)); }

void PacketTrace::step(const char* name) {
    const auto now = monotonic_ns();
    if (!steps_.empty()) steps_.back().end_ns = now;
    steps_.push_back({.trace = whole_.trace, .id = new_span_id(), .parent = whole_.id, .name = name, .begin_ns = now});
}

void PacketTrace::note_step(const char* name, std::string value) {
    if (!steps_.empty()) steps_.back().attributes.emplace_back(name, std::move(value));
}

}  // namespace penstock::broker
