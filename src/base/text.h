#pragma once
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

std::vector<std::string_view> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);
std::string to_lower(std::string_view text);
bool equal_no_case(std::string_view a, std::string_view b);
/// Shell-style glob with `*` only, as AIO uses for client ids.
bool glob_match(std::string_view pattern, std::string_view text);
/// Number of single-character edits between two words; for "did you mean".
std::size_t edit_distance(std::string_view a, std::string_view b);
/// The candidate nearest to `word`, or empty when none is near enough to be a typing error.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
/// What came from outside, fit for a line, a cell, a status or a terminal: the one place where it is escaped. Control characters
/// (C0, DEL, C1) and bytes that are no UTF-8 are written as \xNN; line separators and what is invisible or turns the writing
/// direction (bidirectional controls, zero-width characters, tags, noncharacters) as \u{NNNN}. The answer is well-formed UTF-8.
/// Once is enough, twice does no harm.
std::string printable(std::string_view text);
/// printable() for a place between double quotes: `"` and `\` get a backslash, so that the value cannot end there.
std::string quotable(std::string_view text);
/// At most `bytes_max` of the text, whole UTF-8 characters.
std::string_view clipped(std::string_view text, std::size_t bytes_max) noexcept;
std::string base64_encode(std::string_view bytes);
std::optional<std::string> base64_decode(std::string_view text);
/// `1h30m`, `200ms`: as Go writes durations; milliseconds.
std::optional<std::int64_t> parse_duration_ms(std::string_view text);
/// `500M`, `10Gi`, `4096`: decimal units, or binary ones with `i`; bytes.
std::optional<std::int64_t> parse_size(std::string_view text);
/// Whole text as a number, or nothing.
template <class T>
std::optional<T> parse_number(std::string_view text) {
    T out{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return out;
}

}  // namespace penstock
