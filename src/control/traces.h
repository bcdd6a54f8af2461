#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "broker/trace.h"
#include "resources/json.h"

namespace penstock::control {

/// Traces of the last while: the probe's, and those of clients that send `traceparent` (fact sheet 9.12). Bounded in bytes; the oldest
/// trace goes first. Any thread.
class TraceStore {
  public:
    explicit TraceStore(Clock clock) : clock_(std::move(clock)) {}
    /// 0 forgets all and takes nothing.
    void set_limit(std::size_t bytes);
    void add(std::vector<broker::Span> spans);
    /// `{"items": [...]}`, the newest first: trace, time, name, milliseconds, spans, fault, service.
    [[nodiscard]] resources::Json list() const;
    /// OpenTelemetry's TracesData in OTLP's JSON encoding; `trace` in hexadecimal, empty: all. `service` becomes service.name.
    [[nodiscard]] resources::Json otlp(const std::string& trace, const std::string& service) const;
    [[nodiscard]] std::size_t bytes() const;

  private:
    struct Kept {
        std::vector<broker::Span> spans;          ///< times in Unix ns
        std::size_t bytes = 0;
    };
    void shrink();

    const Clock clock_;
    mutable std::mutex guard_;   ///< all below
    std::size_t limit_ = 0, bytes_ = 0;
    std::int64_t to_unix_ = 0;                    ///< from monotonic to Unix ns
    std::map<broker::TraceId, Kept> traces_;
    std::deque<broker::TraceId> order_;
};

}  // namespace penstock::control
