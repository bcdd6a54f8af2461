#include "base/log.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <mutex>
#include <set>
#include <vector>

#include "base/clock.h"
#include "base/log_modules.h"
#include "base/log_output.h"
#include "base/text.h"

namespace penstock::log {
namespace {

constexpr std::size_t kept_lines_max = 5000, kept_bytes_max = 4 << 20;
constexpr std::size_t text_max = 8 << 10;   // bytes of one line; what a peer sent may stand in it
constexpr int crash_flush_ms = 500, last_flush_ms = 2000;

template <std::size_t... I>
constexpr std::array<std::atomic<Level>, sizeof...(I)> all_at_info(std::index_sequence<I...>) {
    return {(static_cast<void>(I), Level::info)...};
}
constinit std::array<std::atomic<Level>, module_names.size()> levels =
    all_at_info(std::make_index_sequence<module_names.size()>());
std::atomic<bool> any_debug_client{false};
std::mutex guard;
std::set<std::string, std::less<>> debug_clients;
std::deque<Line> kept;
std::size_t kept_bytes = 0;
std::uint64_t written_lines = 0;
std::unique_ptr<Output> output;          ///< null: lines are written by whoever logs (commands, tests)
std::atomic<const Output*> crash_output{nullptr};
std::unique_ptr<Output> second_output;   ///< see write_also
std::atomic<const Output*> crash_second_output{nullptr};
bool ended = false;                      ///< the output could not write all at its end, and nobody waits for standard error any more
std::function<void(std::string_view)> sink;
thread_local int thread_number = 0;
std::atomic<bool> priority_shown{false};

std::size_t index_of(std::string_view module) {
    for (std::size_t i = 0; i < module_names.size(); ++i)
        if (module == module_names[i]) return i;
    return module_names.size();
}

bool parse_level(std::string_view word, Level& out) {
    constexpr std::array names{"trace", "debug", "info", "warn", "error", "off"};
    const auto lower = to_lower(word);
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (lower == names[i]) {
            out = static_cast<Level>(i);
            return true;
        }
    }
    if (lower == "warning") {
        out = Level::warn;
        return true;
    }
    return false;
}

}  // namespace

namespace {
std::string parse_levels(std::string_view text, bool apply) {
    std::array<Level, module_names.size()> wanted;
    wanted.fill(Level::info);
    std::vector<std::pair<std::size_t, Level>> overrides;
    for (const auto part : split(text, ',')) {
        const auto word = trim(part);
        Level level{};
        const auto equals = word.find('=');
        if (!parse_level(equals == std::string_view::npos ? word : trim(word.substr(equals + 1)), level))
            return fmt::format("\"{}\" is not a log level; use trace, debug, info, warn, error or off", word);
        if (equals == std::string_view::npos) {
            wanted.fill(level);
        } else {
            const auto at = index_of(to_lower(trim(word.substr(0, equals))));
            // A module that this version does not have is tolerated, and told by unknown_modules: AIO's own
            // module names occur in working files.
            if (at < module_names.size()) overrides.emplace_back(at, level);
        }
    }
    for (const auto& [at, level] : overrides) wanted[at] = level;
    for (std::size_t i = 0; apply && i < wanted.size(); ++i) levels[i].store(wanted[i], std::memory_order_relaxed);
    return {};
}
}  // namespace

std::string set_levels(std::string_view text) { return parse_levels(text, true); }
std::string check_levels(std::string_view text) { return parse_levels(text, false); }

std::string unknown_modules(std::string_view list) {
    constexpr std::size_t told_max = 3, name_bytes_max = 60;
    const std::vector<std::string> known(module_names.begin(), module_names.end());
    std::set<std::string_view> met;
    std::string told;
    bool is_cut_wrong = false;
    for (const auto part : split(list, ',')) {
        const auto equals = part.find('=');
        if (equals == std::string_view::npos) continue;
        const auto name = trim(part.substr(0, equals));
        if (index_of(to_lower(name)) < module_names.size()) continue;
        if (!met.insert(name).second || met.size() > told_max) continue;
        // `info;broker=debug` is one part: what was meant stands behind its last separator.
        const auto from = name.find_last_of("; |");
        is_cut_wrong |= from != std::string_view::npos;
        const auto near = nearest(from == std::string_view::npos ? name : name.substr(from + 1), known);
        told += fmt::format("{}\"{}\"", told.empty() ? "" : ", ", quotable(clipped(name, name_bytes_max)));
        if (!near.empty()) told += fmt::format(" (did you mean \"{}\"?)", near);
    }
    if (met.empty()) return {};
    if (met.size() > told_max) told += fmt::format(" and {} more", met.size() - told_max);
    return fmt::format("{}: no module of the log has that name, and the level acts nowhere{}; there are {}",
                       told, is_cut_wrong ? "; parts of the list end with a comma" : "", fmt::join(known, ", "));
}

void set_debug_clients(std::string_view comma_list) {
    const std::lock_guard lock(guard);
    debug_clients.clear();
    for (const auto part : split(comma_list, ','))
        if (!trim(part).empty()) debug_clients.emplace(trim(part));
    any_debug_client.store(!debug_clients.empty(), std::memory_order_relaxed);
}

bool is_debug_client(std::string_view client_id) {
    if (!any_debug_client.load(std::memory_order_relaxed)) return false;
    const std::lock_guard lock(guard);
    return debug_clients.contains(client_id);
}

bool enabled(std::string_view module, Level level) noexcept {
    const auto at = index_of(module);
    return at >= levels.size() || level >= levels[at].load(std::memory_order_relaxed);
}

std::array<Place, 16> places_of(std::string_view format) noexcept {
    std::array<Place, 16> out{};
    bool is_quoted = false;
    std::size_t count = 0;
    for (std::size_t i = 0; i < format.size(); ++i) {
        if (format[i] == '"') is_quoted = !is_quoted;
        if (format[i] != '{') continue;
        if (i + 1 < format.size() && format[i + 1] == '{') {
            ++i;
            continue;
        }
        if (count == out.size()) break;
        out[count++] = is_quoted ? Place::quoted : i > 0 && format[i - 1] == '=' ? Place::field : Place::text;
    }
    return out;
}

std::string shown_at(Place place, std::string_view text) {
    if (place == Place::quoted) return quotable(text);
    auto out = printable(text);
    if (place == Place::text || (out == text && out.find_first_of(" \"") == std::string::npos)) return out;
    return "\"" + quotable(text) + "\"";
}

namespace {

std::string line_of(std::string_view module, Level level, std::string_view text, std::int64_t now) {
    constexpr std::array words{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"};
    constexpr std::array priorities{7, 7, 6, 4, 3, 3};
    const auto at = static_cast<std::size_t>(level);
    std::string rest;
    if (text.size() > text_max) {
        auto end = text_max;
        while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;   // never within a character
        rest = fmt::format("... ({} bytes more)", text.size() - end);
        text = text.substr(0, end);
    }
    return printable(fmt::format("<{}>{} [{}] [{}] - {}: {}{}", priorities[at], rfc3339_ms(now), words[at], thread_number, module, text, rest)) + "\n";
}

/// A line as standard error gets it.
std::string as_shown(std::string line) {
    if (!priority_shown.load(std::memory_order_relaxed)) line.erase(0, std::string_view("<6>").size());
    return line;
}

void put(int descriptor, std::string text) {
    if (output != nullptr) return output->add(descriptor, std::move(text));
    // A line that cannot be written has nowhere to be reported; those of the log are kept all the same.
    if (!ended) [[maybe_unused]] const auto written = ::write(descriptor, text.data(), text.size());
}

void on_crash(int number) {
    for (const auto* waiting : {crash_output.load(), crash_second_output.load()})
        if (waiting != nullptr) waiting->flush_in_crash(crash_flush_ms);
    raise(number);   // by default now, when this returns
}

}  // namespace

void write(std::string_view module, Level level, std::string_view text) {
    const auto now = wall_ms();
    auto line = line_of(module, level, text, now);
    const std::lock_guard lock(guard);
    if (sink) sink(line);
    else
        put(STDERR_FILENO, as_shown(line));
    if (second_output != nullptr) second_output->add(line);
    kept_bytes += line.size();
    kept.push_back({.number = ++written_lines, .wall_ms = now, .module = std::string(module), .text = std::move(line)});
    for (; kept.size() > kept_lines_max || kept_bytes > kept_bytes_max; kept.pop_front()) kept_bytes -= kept.front().text.size();
}

void print(int descriptor, std::string text) {
    const std::lock_guard lock(guard);
    put(descriptor, std::move(text));
}

std::unique_ptr<Output> write_also(std::unique_ptr<Output> other) {
    const std::lock_guard lock(guard);
    crash_second_output = other.get();
    if (other != nullptr)
        for (const auto& line : kept) other->add(line.text);
    return std::exchange(second_output, std::move(other));
}

std::optional<Line> read_line(std::string_view text) {
    // `<6>2023-11-06T21:36:13.634Z [INFO] [1] - module: text`
    constexpr std::size_t time_at = 3, time_size = 24, fraction_at = 20;
    const auto dash = text.find(" - ");
    const auto colon = dash == std::string_view::npos ? dash : text.find(": ", dash);
    if (colon == std::string_view::npos || dash < time_at + time_size || text[0] != '<') return std::nullopt;
    const auto time = text.substr(time_at, time_size);
    const auto fraction = parse_number<std::int64_t>(time.substr(fraction_at, 3));
    const auto seconds = parse_rfc3339(std::string(time));
    if (seconds < 0 || !fraction) return std::nullopt;
    return Line{.number = 0, .wall_ms = seconds + *fraction, .module = std::string(text.substr(dash + 3, colon - dash - 3)), .text = std::string(text)};
}

std::string lost_line(std::uint64_t lost, std::string_view where, std::string_view why) {
    return line_of("app", Level::warn, fmt::format("{} lines of the log are lost, {} did not take them why=\"{}\"", lost, where, why), wall_ms());
}

Output::Figures output_figures() {
    const std::lock_guard lock(guard);
    return output != nullptr ? output->figures() : Output::Figures();
}

Output::Figures also_figures() {
    const std::lock_guard lock(guard);
    return second_output != nullptr ? second_output->figures() : Output::Figures();
}

BackgroundOutput::BackgroundOutput() {
    auto tell = [](std::uint64_t lost, const std::string& why) {
        return as_shown(lost_line(lost, "standard error", why));
    };
    const std::lock_guard lock(guard);
    output = std::make_unique<Output>(Output::Options{.descriptor = STDERR_FILENO, .tell_lost = std::move(tell)});
    crash_output = output.get();
    for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
        struct sigaction now {}, mine {};
        if (sigaction(number, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) continue;   // a sanitizer has its own
        mine.sa_handler = on_crash;
        mine.sa_flags = static_cast<int>(SA_RESETHAND);
        sigaction(number, &mine, nullptr);
    }
}

BackgroundOutput::~BackgroundOutput() {
    std::unique_ptr<Output> last;
    {
        const std::lock_guard lock(guard);
        crash_output = nullptr;
        last = std::move(output);
        ended = true;
    }
    const bool good = last->flush(last_flush_ms);
    const std::lock_guard lock(guard);
    ended = !good;
}

void set_thread_number(int number) noexcept { thread_number = number; }

void show_priority(bool on) noexcept { priority_shown.store(on, std::memory_order_relaxed); }

void set_sink(std::function<void(std::string_view)> replacement) {
    const std::lock_guard lock(guard);
    sink = std::move(replacement);
}

std::vector<Line> lines_after(std::uint64_t number, const std::vector<std::string>& modules) {
    const std::lock_guard lock(guard);
    std::vector<Line> out;
    for (const auto& line : kept)
        if (line.number > number && (modules.empty() || std::ranges::find(modules, line.module) != modules.end())) out.push_back(line);
    return out;
}

std::uint64_t last_number() {
    const std::lock_guard lock(guard);
    return written_lines;
}

bool RateLimit::allow(std::int64_t now_ms, std::uint64_t& suppressed) noexcept {
    const auto second = now_ms / 1000;
    if (second_.exchange(second, std::memory_order_relaxed) != second) used_.store(0, std::memory_order_relaxed);
    if (used_.fetch_add(1, std::memory_order_relaxed) < per_second_) {
        suppressed = suppressed_.exchange(0, std::memory_order_relaxed);
        return true;
    }
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return false;
}

}  // namespace penstock::log
