#include "base/text.h"

#include "base/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace penstock {

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> out;
    std::size_t start = 0;
    while (true) {
        const auto at = text.find(separator, start);
        out.push_back(text.substr(start, at == std::string_view::npos ? at : at - start));
        if (at == std::string_view::npos) return out;
        start = at + 1;
    }
}

std::string_view trim(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string to_lower(std::string_view text) {
    std::string out(text);
    for (auto& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return out;
}

bool equal_no_case(std::string_view a, std::string_view b) { return a.size() == b.size() && to_lower(a) == to_lower(b); }

bool glob_match(std::string_view pattern, std::string_view text) {
    std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.size() && pattern[p] == text[t]) {
            ++p, ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        auto diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const auto above = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
            diagonal = above;
        }
    }
    return row[b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
    constexpr std::size_t word_max = 64;   // no name is longer; comparing takes time by the product of the lengths
    if (word.size() > word_max) return {};
    std::string best;
    auto best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
    for (const auto& candidate : candidates) {
        const auto distance = edit_distance(to_lower(word), to_lower(candidate));
        if (distance < best_distance) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best;
}

namespace {
constexpr std::string_view base64_alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
}

namespace {

/// Characters that nobody sees or that change how the text around them looks: general categories Cf, Zl and Zp, Unicode's
/// Default_Ignorable_Code_Point, and noncharacters.
bool is_unseen(std::uint32_t c) noexcept {
    if (c == 0x34F || c == 0x115F || c == 0x1160 || c == 0x17B4 || c == 0x17B5 || (c >= 0x180B && c <= 0x180F) || c == 0x3164 || c == 0xFFA0 ||
        (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xFFF0 && c <= 0xFFF8) || (c >= 0x1BCA0 && c <= 0x1BCA3) || (c >= 0x1D173 && c <= 0x1D17A))
        return true;
    return c == 0xAD || c == 0x61C || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
           (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF) || (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

void append_printable(std::string& out, std::string_view text, bool quotes) {
    while (!text.empty()) {
        const auto byte = static_cast<unsigned char>(text[0]);
        if (byte < 0x80) {
            if (byte < 0x20 || byte == 0x7F) out += fmt::format("\\x{:02x}", byte);
            else if (quotes && (byte == '"' || byte == '\\')) out.append({'\\', text[0]});
            else out += text[0];
            text.remove_prefix(1);
            continue;
        }
        const auto next = next_utf8(text);
        if (next.bytes == 0) {
            out += fmt::format("\\x{:02x}", byte);
            text.remove_prefix(1);
            continue;
        }
        if (next.character < 0xA0) out += fmt::format("\\x{:02x}", next.character);   // C1
        else if (is_unseen(next.character)) out += fmt::format("\\u{{{:04x}}}", next.character);
        else out += text.substr(0, next.bytes);
        text.remove_prefix(next.bytes);
    }
}

}  // namespace

std::string printable(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    append_printable(out, text, false);
    return out;
}

std::string quotable(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    append_printable(out, text, true);
    return out;
}

std::string_view clipped(std::string_view text, std::size_t bytes_max) noexcept {
    if (text.size() <= bytes_max) return text;
    auto end = bytes_max;
    // Back over the continuation bytes of a character that would be cut; of bytes that are no UTF-8 at most three.
    for (int i = 0; i < 3 && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80; ++i) --end;
    return text.substr(0, end);
}

std::string base64_encode(std::string_view bytes) {
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t block = 0;
        const auto count = std::min<std::size_t>(3, bytes.size() - i);
        for (std::size_t k = 0; k < 3; ++k) block = block << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
        for (std::size_t k = 0; k < 4; ++k)
            out += k <= count ? base64_alphabet[block >> (18 - 6 * k) & 0x3F] : '=';
    }
    return out;
}

std::optional<std::string> base64_decode(std::string_view text) {
    std::string out;
    std::uint32_t block = 0;
    int bits = 0;
    std::size_t characters = 0, padding = 0;
    for (const char c : text) {
        if (c == '\n' || c == '\r') continue;
        ++characters;
        if (c == '=') {
            ++padding;
            continue;
        }
        const auto value = base64_alphabet.find(c);
        if (value == std::string_view::npos || padding > 0) return std::nullopt;
        block = block << 6 | static_cast<std::uint32_t>(value);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out += static_cast<char>(block >> bits & 0xFF);
        }
    }
    if (characters % 4 != 0 || padding > 2) return std::nullopt;
    return out;
}

std::optional<std::int64_t> parse_duration_ms(std::string_view text) {
    double total = 0;
    if (text.empty()) return std::nullopt;
    while (!text.empty()) {
        std::size_t digits = 0;
        while (digits < text.size() && ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.')) ++digits;
        const auto number = parse_number<double>(text.substr(0, digits));
        if (!number) return std::nullopt;
        text.remove_prefix(digits);
        double unit = 0;
        std::size_t length = 1;
        if (text.starts_with("ms")) unit = 1, length = 2;
        else if (text.starts_with("h")) unit = 3'600'000;
        else if (text.starts_with("m")) unit = 60'000;
        else if (text.starts_with("s")) unit = 1000;
        else return std::nullopt;
        total += *number * unit;
        text.remove_prefix(length);
    }
    if (total > 1e15) return std::nullopt;
    return static_cast<std::int64_t>(total);
}

std::optional<std::int64_t> parse_size(std::string_view text) {
    const bool binary = text.ends_with('i');
    if (binary) text.remove_suffix(1);
    constexpr std::string_view units = "KMGTPE";
    const auto unit = text.empty() ? std::string_view::npos : units.find(text.back());
    if (unit == std::string_view::npos && binary) return std::nullopt;
    const auto number = parse_number<std::int64_t>(unit == std::string_view::npos ? text : text.substr(0, text.size() - 1));
    if (!number || *number < 0) return std::nullopt;
    double out = static_cast<double>(*number);
    for (std::size_t i = 0; unit != std::string_view::npos && i <= unit; ++i) out *= binary ? 1024 : 1000;
    return out > 9e18 ? INT64_MAX : static_cast<std::int64_t>(out);
}

}  // namespace penstock
