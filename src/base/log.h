#pragma once
#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::log {

enum class Level : std::uint8_t { trace, debug, info, warn, error, off };

/// Parses `info`, or a comma list such as `info,broker=debug`; any case. Names the bad word on failure.
/// The modules are the folders of src/. Returns an empty string when the text was taken.
std::string set_levels(std::string_view text);
/// The same check without the effect.
std::string check_levels(std::string_view text);
/// Clients whose debug lines are written whatever the level (`diagnostics.logs` annotation, `penstock run --debug-client`).
void set_debug_clients(std::string_view comma_list);
bool is_debug_client(std::string_view client_id);
bool enabled(std::string_view module, Level level) noexcept;
/// One line in AIO's form: `<6>2023-11-06T21:36:13.634Z [INFO] [1] - text key="value"`. Any thread.
void write(std::string_view module, Level level, std::string_view text);
/// The number shown in the third field; set once by each worker thread.
void set_thread_number(int number) noexcept;
/// Replaces standard error as the destination (tests).
void set_sink(std::function<void(std::string_view line)> sink);
/// A kept line; `number` counts all lines since the start, from 1.
struct Line {
    std::uint64_t number = 0;
    std::int64_t wall_ms = 0;
    std::string module;
    std::string text;
};
/// Kept lines after a number, of the named modules (none: all), oldest first. The newest 5,000 lines are kept. Any thread.
std::vector<Line> lines_after(std::uint64_t number, const std::vector<std::string>& modules);
std::uint64_t last_number();

/// A call site's budget: at most `per_second` lines each second; tells how many it swallowed.
class RateLimit {
  public:
    explicit RateLimit(std::int64_t per_second) : per_second_(per_second) {}
    /// True when the line may be written; `suppressed` gets the count dropped since the last one written.
    bool allow(std::int64_t now_ms, std::uint64_t& suppressed) noexcept;

  private:
    std::int64_t per_second_;
    std::atomic<std::int64_t> second_{-1};
    std::atomic<std::int64_t> used_{0};
    std::atomic<std::uint64_t> suppressed_{0};
};

template <class... Args>
void info(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::info)) write(module, Level::info, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void warn(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::warn)) write(module, Level::warn, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void error(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::error)) write(module, Level::error, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void debug(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::debug)) write(module, Level::debug, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace penstock::log
