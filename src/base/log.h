#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
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
/// One line in AIO's form: `<6>2023-11-06T21:36:13.634Z [INFO] [1] - text key="value"`. `text`: made by line(), which escapes what
/// it is made of. Any thread.
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

/// Where a value stands in a line.
enum class Place : std::uint8_t {
    text,            ///< among words
    field,           ///< behind `key=`
    quoted,          ///< between double quotes
};
/// The place of each `{}` of a format, in order; the first sixteen at most, others count as text.
std::array<Place, 16> places_of(std::string_view format) noexcept;
/// A text as it may stand there, whoever chose it: nothing ends the line, the quotes or the field, or steers a terminal. A field's
/// value that has blanks or quotes gets quotes around it.
std::string shown_at(Place place, std::string_view text);

namespace detail {

template <class T>
auto shown(Place place, const T& value) {
    if constexpr (std::is_convertible_v<const T&, std::string_view>) return shown_at(place, value);
    else return std::cref(value);
}
template <std::size_t... I, class... Args>
std::string line(std::string_view format, std::index_sequence<I...>, const Args&... args) {
    const auto places = places_of(format);
    // A tuple of texts that are new and references to what stays as it is.
    [[maybe_unused]] const auto texts = std::make_tuple(shown(I < places.size() ? places[std::min<std::size_t>(I, 15)] : Place::text, args)...);
    return fmt::vformat(format, fmt::make_format_args(std::get<I>(texts)...));
}

}  // namespace detail

/// fmt::format for a line of the log: each text among the arguments is escaped for the place where it stands.
template <class... Args>
std::string line(fmt::format_string<Args...> format, Args&&... args) {
    const fmt::string_view text = format;
    return detail::line({text.data(), text.size()}, std::index_sequence_for<Args...>(), args...);
}

template <class... Args>
void info(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::info)) write(module, Level::info, line(text, std::forward<Args>(args)...));
}
template <class... Args>
void warn(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::warn)) write(module, Level::warn, line(text, std::forward<Args>(args)...));
}
template <class... Args>
void error(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::error)) write(module, Level::error, line(text, std::forward<Args>(args)...));
}
template <class... Args>
void debug(std::string_view module, fmt::format_string<Args...> text, Args&&... args) {
    if (enabled(module, Level::debug)) write(module, Level::debug, line(text, std::forward<Args>(args)...));
}

}  // namespace penstock::log
