#include "resources/text_rules.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <re2/re2.h>

#include "base/text.h"

namespace penstock::resources {
namespace {

constexpr std::int64_t pattern_memory_max = 1 << 20;
constexpr std::size_t patterns_kept_max = 64;
constexpr std::size_t shown_bytes_max = 200;
constexpr std::size_t label_max = 63, subdomain_max = 253;

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }

bool is_label_of_any_length(std::string_view text) {
    return !text.empty() && is_lower_alnum(text.front()) && is_lower_alnum(text.back()) && std::ranges::all_of(text, [](char c) { return is_lower_alnum(c) || c == '-'; });
}

/// The compiled pattern, or null when it is none. RE2 as in Kubernetes: no pattern takes more than linear time. Its automaton
/// grows with the texts it meets, so both its memory and the number of patterns kept by a thread are bounded.
const re2::RE2* compiled(const std::string& pattern) {
    static thread_local std::map<std::string, std::unique_ptr<re2::RE2>> cache;
    if (pattern.size() > pattern_bytes_max) return nullptr;
    const auto found = cache.find(pattern);
    if (found != cache.end()) return found->second.get();
    if (cache.size() >= patterns_kept_max) cache.clear();
    re2::RE2::Options options(re2::RE2::Quiet);
    options.set_max_mem(pattern_memory_max);
    auto made = std::make_unique<re2::RE2>(pattern, options);
    if (!made->ok()) made.reset();
    return cache.emplace(pattern, std::move(made)).first->second.get();
}

re2::StringPiece piece_of(std::string_view text) { return {text.data(), text.size()}; }

/// The longest beginning of at most `size` bytes that ends between two characters.
std::string_view beginning(std::string_view text, std::size_t size) {
    if (text.size() <= size) return text;
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
    return text.substr(0, size);
}

/// Writes JSON until the bound is reached; true when all of it is there.
bool write_brief(const Json& value, std::string& out) {
    if (out.size() > shown_bytes_max) return false;
    if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        const auto head = beginning(text, shown_bytes_max);
        out += Json(head).dump(-1, ' ', false, Json::error_handler_t::replace);
        return head.size() == text.size();
    }
    if (!value.is_structured()) {
        out += value.dump(-1, ' ', false, Json::error_handler_t::replace);
        return true;
    }
    const bool is_object = value.is_object();
    out += is_object ? '{' : '[';
    bool first = true;
    for (auto at = value.begin(); at != value.end(); ++at) {
        if (!std::exchange(first, false)) out += ',';
        if (is_object) {
            if (!write_brief(Json(beginning(at.key(), shown_bytes_max)), out)) return false;
            out += ':';
        }
        if (!write_brief(*at, out)) return false;
    }
    out += is_object ? '}' : ']';
    return true;
}

}  // namespace

bool is_dns_label(std::string_view text) { return text.size() <= label_max && is_label_of_any_length(text); }

bool is_dns_subdomain(std::string_view text) {
    return !text.empty() && text.size() <= subdomain_max && std::ranges::all_of(split(text, '.'), is_label_of_any_length);
}

bool is_label_word(std::string_view text) {
    if (text.empty() || text.size() > label_max || !is_alnum(text.front()) || !is_alnum(text.back())) return false;
    return std::ranges::all_of(text, [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool is_qualified_name(std::string_view text) {
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) return is_label_word(text);
    return is_dns_subdomain(text.substr(0, slash)) && is_label_word(text.substr(slash + 1));
}

std::size_t code_points(std::string_view text) {
    return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

Match matches_whole(const std::string& pattern, std::string_view text) {
    const auto* regex = compiled(pattern);
    return regex == nullptr ? Match::no_pattern : re2::RE2::FullMatch(piece_of(text), *regex) ? Match::yes : Match::no;
}

Match occurs(const std::string& pattern, std::string_view text) {
    const auto* regex = compiled(pattern);
    return regex == nullptr ? Match::no_pattern : re2::RE2::PartialMatch(piece_of(text), *regex) ? Match::yes : Match::no;
}

bool is_pattern(const std::string& pattern) { return compiled(pattern) != nullptr; }

std::string shortened(std::string_view text) {
    const auto head = beginning(text, shown_bytes_max);
    return head.size() == text.size() ? std::string(text) : fmt::format("{}… ({} bytes)", head, text.size());
}

std::string brief(const Json& value) {
    std::string out;
    if (write_brief(value, out) && out.size() <= shown_bytes_max) return out;
    const auto size = value.is_string() ? fmt::format("{} bytes", value.get_ref<const std::string&>().size()) : value.is_array() ? fmt::format("{} items", value.size()) : fmt::format("{} members", value.size());
    return fmt::format("{}… ({})", beginning(out, shown_bytes_max), size);
}

std::string member_path(const std::string& path, std::string_view key) {
    return path.empty() ? shortened(key) : fmt::format("{}.{}", path, shortened(key));
}

std::string entry_path(const std::string& path, std::string_view key) { return fmt::format("{}[{}]", path, shortened(key)); }

std::size_t depth_of(const Json& value, std::size_t limit) {
    if (!value.is_structured() || limit == 0) return 0;
    std::size_t deepest = 0;
    for (const auto& item : value) deepest = std::max(deepest, depth_of(item, limit - 1));
    return deepest + 1;
}

std::size_t values_of(const Json& value, std::size_t limit) {
    std::size_t out = 1;
    if (value.is_structured())
        for (const auto& item : value) {
            if (out > limit) return out;
            out += values_of(item, limit - out);
        }
    return out;
}

}  // namespace penstock::resources
