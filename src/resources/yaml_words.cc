#include "resources/yaml_words.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::resources {
namespace {

constexpr auto infinity = std::numeric_limits<double>::infinity();

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string without(std::string_view text, char unwanted) {
    std::string out(text);
    std::erase(out, unwanted);
    return out;
}

std::string_view unsigned_part(std::string_view text) {
    if (!text.empty() && (text[0] == '+' || text[0] == '-')) text.remove_prefix(1);
    return text;
}

/// Takes the digits at the front away; true when there were some.
bool take_digits(std::string_view& text) {
    const auto before = text.size();
    while (!text.empty() && is_digit(text[0])) text.remove_prefix(1);
    return text.size() != before;
}

/// Decimal digits with at most one point, an exponent: `1`, `1.`, `.5`, `1e3`.
bool is_decimal(std::string_view text) {
    text = unsigned_part(text);
    bool digits = take_digits(text);
    if (!text.empty() && text[0] == '.') {
        text.remove_prefix(1);
        // A point with nothing before it needs something behind it.
        digits = take_digits(text) || digits;
    }
    if (!digits) return false;
    if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
        text.remove_prefix(1);
        text = unsigned_part(text);
        if (!take_digits(text)) return false;
    }
    return text.empty();
}

/// A decimal number, or nothing when it is beyond a double's range. What is too small becomes 0.
std::optional<double> real_of(std::string_view text) {
    if (!is_decimal(text)) return std::nullopt;
    const double value = std::strtod(std::string(text).c_str(), nullptr);
    if (!std::isfinite(value)) return std::nullopt;
    return value;
}

/// Digits of a base, all of the text, with the sign apart; nothing when the text is none or no number of 64
/// bits holds it.
std::optional<Json> integer_of_base(std::string_view digits, int base, bool negative) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    constexpr std::uint64_t lowest = std::uint64_t{1} << 63;
    if (!negative) return value < lowest ? Json(static_cast<std::int64_t>(value)) : Json(value);
    if (value > lowest) return std::nullopt;
    return Json(static_cast<std::int64_t>(~value + 1));
}

/// As Go reads integers whose base is in the text: 0x, 0b, 0o in either case, and 0 for octal.
std::optional<Json> integer_of_word(std::string_view text) {
    const bool negative = text[0] == '-', positive = text[0] == '+';
    auto digits = unsigned_part(text);
    int base = 10;
    if (digits.size() > 1 && digits[0] == '0') {
        const char letter = digits.size() > 2 ? digits[1] : '0';
        base = letter == 'b' || letter == 'B' ? 2 : letter == 'x' || letter == 'X' ? 16 : 8;
        digits.remove_prefix(base == 8 && letter != 'o' && letter != 'O' ? 1 : 2);
    }
    auto out = integer_of_base(digits, base, negative);
    // With a plus sign no more than 63 bits, as with none of a sign; what is larger is a real number.
    if (positive && out && out->is_number_unsigned()) return std::nullopt;
    return out;
}

/// `0b-1`: a sign behind the prefix is what kubectl's parser takes.
std::optional<Json> signed_binary(std::string_view text) {
    if (!text.starts_with("0b") || text.size() < 4 || (text[2] != '-' && text[2] != '+')) return std::nullopt;
    auto out = integer_of_base(text.substr(3), 2, text[2] == '-');
    if (out && out->is_number_unsigned()) return std::nullopt;
    return out;
}

/// Go takes an underscore between two digits of a number that begins with a point.
bool underscores_between_digits(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i)
        if (text[i] == '_' && (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1]))) return false;
    return true;
}

std::optional<Json> number_of(std::string_view text) {
    if (text[0] == '.') {
        if (!underscores_between_digits(text)) return std::nullopt;
        const auto value = real_of(without(text, '_'));
        return value ? std::optional<Json>(*value) : std::nullopt;
    }
    const auto plain = without(text, '_');
    if (auto value = integer_of_word(plain)) return value;
    if (const auto value = real_of(plain)) return Json(*value);
    return signed_binary(plain);
}

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) { return std::ranges::find(words, text) != words.end(); }

/// `true`, `True` and `TRUE`, not `tRUE`.
bool is_cased(std::string_view text, std::string_view lower) {
    if (!equal_no_case(text, lower)) return false;
    const auto is_upper = [](char c) { return c >= 'A' && c <= 'Z'; };
    const auto rest = text.substr(1);
    return std::ranges::none_of(rest, is_upper) || (is_upper(text[0]) && std::ranges::all_of(rest, is_upper));
}

/// `.inf`, `.Inf`, `.INF`; `.nan`, `.NaN`, `.NAN`.
std::optional<double> special_real(std::string_view text) {
    if (one_of(text, {".nan", ".NaN", ".NAN"})) return std::numeric_limits<double>::quiet_NaN();
    const bool negative = text.starts_with('-');
    if (!one_of(unsigned_part(text), {".inf", ".Inf", ".INF"})) return std::nullopt;
    return negative ? -infinity : infinity;
}

/// Reads one or two digits of at most `most`.
bool take_two(std::string_view& text, int least, int most, int& out) {
    if (text.empty() || !is_digit(text[0])) return false;
    const std::size_t count = text.size() > 1 && is_digit(text[1]) ? 2 : 1;
    out = *parse_number<int>(text.substr(0, count));
    text.remove_prefix(count);
    return out >= least && out <= most;
}

bool take(std::string_view& text, char c) {
    if (!text.starts_with(c)) return false;
    text.remove_prefix(1);
    return true;
}

bool take_date(std::string_view& text) {
    if (text.size() < 5 || !std::ranges::all_of(text.substr(0, 4), is_digit) || text[4] != '-') return false;
    const int year = *parse_number<int>(text.substr(0, 4));
    text.remove_prefix(5);
    int month = 0, day = 0;
    if (!take_two(text, 1, 12, month) || !take(text, '-') || !take_two(text, 1, 31, day)) return false;
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    constexpr std::array days = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return day <= days[static_cast<std::size_t>(month - 1)] + (month == 2 && leap ? 1 : 0);
}

/// Base 60, as YAML 1.1 writes times and angles: `1:30`, `190:20:30.15`.
bool is_base_60(std::string_view text) {
    text = unsigned_part(text);
    if (!take_digits(text)) return false;
    int parts = 0;
    while (take(text, ':')) {
        if (!take_digits(text)) return false;
        ++parts;
    }
    if (take(text, '.')) take_digits(text);
    return parts > 0 && text.empty();
}

bool is_based(std::string_view text) {
    text = unsigned_part(text);
    if (text.size() < 3 || text[0] != '0' || std::string_view("xXoObB").find(text[1]) == std::string_view::npos) return false;
    return text.find_first_not_of("0123456789abcdefABCDEF+-", 2) == std::string_view::npos;
}

}  // namespace

Word word_of(std::string_view text) {
    if (text.empty() || text == "~" || is_cased(text, "null")) return {WordType::nothing, nullptr};
    if (text == "<<") return {WordType::merge, {}};
    switch (text[0]) {
        case 'y': case 'Y': case 't': case 'T':
            if (text.size() == 1 ? text[0] == 'y' || text[0] == 'Y' : is_cased(text, "yes") || is_cased(text, "true")) return {WordType::boolean, true};
            return {};
        case 'n': case 'N': case 'f': case 'F':
            if (text.size() == 1 ? text[0] == 'n' || text[0] == 'N' : is_cased(text, "no") || is_cased(text, "false")) return {WordType::boolean, false};
            return {};
        case 'o': case 'O':
            if (is_cased(text, "on")) return {WordType::boolean, true};
            if (is_cased(text, "off")) return {WordType::boolean, false};
            return {};
        default: break;
    }
    if (!is_digit(text[0]) && text[0] != '.' && text[0] != '+' && text[0] != '-') return {};
    if (const auto special = special_real(text)) return {WordType::real, *special};
    if (is_yaml_time(text)) return {WordType::timestamp, {}};
    auto number = number_of(text);
    if (!number) return {};
    return {number->is_number_float() ? WordType::real : WordType::integer, std::move(*number)};
}

bool is_yaml_time(std::string_view text) {
    if (!take_date(text)) return false;
    if (text.empty()) return true;
    const char between = text[0];
    if (between != 'T' && between != 't' && between != ' ') return false;
    text.remove_prefix(1);
    int part = 0;
    if (!take_two(text, 0, 23, part) || !take(text, ':') || !take_two(text, 0, 59, part) || !take(text, ':') || !take_two(text, 0, 59, part)) return false;
    if (text.size() > 1 && (text[0] == '.' || text[0] == ',') && is_digit(text[1])) {
        text.remove_prefix(1);
        take_digits(text);
    }
    if (between == ' ') return text.empty();
    if (text == "Z") return true;
    if (text.size() != 6 || (text[0] != '+' && text[0] != '-') || text[3] != ':') return false;
    const auto hours = parse_number<unsigned>(text.substr(1, 2)), minutes = parse_number<unsigned>(text.substr(4, 2));
    return hours && minutes && *hours <= 24 && *minutes <= 60;
}

bool may_be_typed(std::string_view text) {
    if (word_of(text).type != WordType::text || text == "=") return true;
    const auto lower = to_lower(text);
    if (one_of(lower, {"null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "+.inf", "-.inf"})) return true;
    if (!is_digit(text[0]) && text[0] != '.' && text[0] != '+' && text[0] != '-') return false;
    // Readers differ in which underscores, signs and bases they take.
    const auto plain = without(text, '_');
    if (plain.empty() || is_decimal(plain) || is_based(plain) || is_base_60(plain)) return true;
    if (unsigned_part(plain) == ".") return true;
    // And in how much of a time may be missing.
    auto rest = std::string_view(plain);
    return rest.size() > 5 && std::ranges::all_of(rest.substr(0, 4), is_digit) && rest[4] == '-' && rest.find_first_not_of("0123456789-+:.,TtZz \t", 5) == std::string_view::npos;
}

std::string real_key(double value) {
    if (std::isnan(value)) return ".nan";
    // Go keeps no more than a float of 32 bits of a key.
    const auto narrow = static_cast<float>(value);
    if (std::isinf(narrow)) return narrow < 0 ? "-.inf" : ".inf";
    if (narrow == 0) return std::signbit(narrow) ? "-0" : "0";
    std::array<char, 64> buffer{};
    auto print = [&](std::chars_format format) {
        const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), narrow, format);
        return std::string(buffer.data(), end);
    };
    const auto scientific = print(std::chars_format::scientific);
    const auto exponent = *parse_number<int>(unsigned_part(scientific.substr(scientific.find('e') + 1))) * (scientific.find("e-") == std::string::npos ? 1 : -1);
    return exponent < -4 || exponent >= 6 ? scientific : print(std::chars_format::fixed);
}

}  // namespace penstock::resources
