#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Spans of packets whose sender asked for it by the user property `traceparent` (W3C Trace Context 1.0, §3.2).
namespace penstock::broker {

using TraceId = std::array<unsigned char, 16>;
using SpanId = std::array<unsigned char, 8>;

struct TraceParent {
    TraceId trace{};
    SpanId span{};
};
/// Nothing when the text is none, or its sampled flag is not set.
std::optional<TraceParent> parse_traceparent(std::string_view text) noexcept;
std::string write_traceparent(const TraceParent& parent);
TraceId new_trace_id() noexcept;
SpanId new_span_id() noexcept;

/// A piece of work, as OpenTelemetry sees it.
struct Span {
    enum class Kind : std::uint8_t { internal = 1, server = 2, client = 3 };           ///< numbers of OpenTelemetry's SpanKind
    TraceId trace{};
    SpanId id{}, parent{};                        ///< parent all zero: none
    std::string name;
    Kind kind = Kind::internal;
    std::int64_t begin_ns = 0, end_ns = 0;        ///< monotonic
    std::vector<std::pair<std::string, std::string>> attributes;
    std::string fault;                            ///< empty: it went well
};

/// Spans of one worker until somebody takes them. Core: home.
class SpanLog {
  public:
    /// 0: nothing is traced.
    void set_capacity(std::size_t capacity) {
        capacity_ = capacity;
        if (capacity == 0) spans_ = {};
    }
    [[nodiscard]] bool is_on() const noexcept { return capacity_ > 0; }
    void add(Span span) {
        if (spans_.size() < capacity_) spans_.push_back(std::move(span));
        else ++dropped_;
    }
    std::vector<Span> take() { return std::exchange(spans_, {}); }
    /// Since the start, for want of room.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }

  private:
    std::size_t capacity_ = 0;
    std::vector<Span> spans_;
    std::uint64_t dropped_ = 0;
};

/// The broker's work on one packet: a span below the sender's, and one for each step in it.
class PacketTrace {
  public:
    PacketTrace(SpanLog& log, const TraceParent& parent, const char* name, std::int64_t begin_ns);
    PacketTrace(const PacketTrace&) = delete;
    PacketTrace& operator=(const PacketTrace&) = delete;
    /// Hands the spans in.
    ~PacketTrace();
    void note(const char* name, std::string_view value);
    /// Ends the step before and begins another.
    void step(const char* name);
    /// Of the step that is under way.
    void note_step(const char* name, std::string value);
    void fail(std::string_view why) { whole_.fault = why.empty() ? "refused" : why; }
    /// Nothing is handed in: the work goes on later, and is traced as a whole then.
    void drop() noexcept { dropped_ = true; }

  private:
    SpanLog& log_;
    Span whole_;
    std::vector<Span> steps_;
    bool dropped_ = false;
};

}  // namespace penstock::broker
