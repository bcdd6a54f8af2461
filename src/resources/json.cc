#include "resources/json.h"

#include <array>
#include <charconv>
#include <climits>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/json_text.h"
#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

constexpr std::size_t duplicates_max = 100;

const Json null_json;

}  // namespace

Json whole_or_real(double value) {
    if (std::trunc(value) != value) return value;
    constexpr double exact = 9007199254740992.0;   // 2^53: up to there each whole number has its own double
    if (std::abs(value) < exact) return static_cast<std::int64_t>(value);
    // As Kubernetes writes it: the shortest digits that give this double, then zeros.
    std::array<char, 40> buffer{};
    const auto written = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
    const std::string_view text(buffer.data(), static_cast<std::size_t>(written.ptr - buffer.data()));
    const auto mark = text.find('e');
    if (mark == std::string_view::npos) return value;   // infinite, or no number
    auto digits = std::string(text.substr(0, mark));
    const auto point = digits.find('.');
    const auto behind = point == std::string::npos ? 0 : digits.size() - point - 1;
    std::erase(digits, '.');
    const auto exponent = parse_number<std::size_t>(text.substr(mark + 2)).value_or(0);
    if (exponent > 19 || exponent < behind) return value;
    const auto whole = parse_number<std::int64_t>(digits + std::string(exponent - behind, '0'));
    return whole ? Json(*whole) : Json(value);
}

std::optional<std::string> surrogates_mended(std::string_view json) {
    // The value of \uXXXX at a place, or nothing.
    auto unit_at = [&](std::size_t at) -> std::optional<unsigned> {
        unsigned value = 0;
        if (at + 6 > json.size() || json[at] != '\\' || json[at + 1] != 'u') return std::nullopt;
        const auto* end = json.data() + at + 6;
        const auto parsed = std::from_chars(json.data() + at + 2, end, value, 16);
        return parsed.ec == std::errc{} && parsed.ptr == end ? std::optional(value) : std::nullopt;
    };
    std::optional<std::string> out;
    for (auto at = json.find('\\'); at != std::string_view::npos && at + 1 < json.size(); at = json.find('\\', at)) {
        const auto unit = unit_at(at);
        if (!unit) {
            at += 2;
            continue;
        }
        if (*unit >= 0xD800 && *unit < 0xDC00) {
            const auto low = unit_at(at + 6);
            if (low && *low >= 0xDC00 && *low < 0xE000) {
                at += 12;
                continue;
            }
        }
        if (*unit >= 0xD800 && *unit < 0xE000) {
            if (!out) out.emplace(json);
            out->replace(at, 6, "\\ufffd");
        }
        at += 6;
    }
    return out;
}

Result<Json> parse_json(std::string_view text, int depth_max) {
    auto depth_ok = true;
    std::string mended;
    if (auto other = surrogates_mended(text)) text = mended = std::move(*other);
    const auto out = Json::parse(
        text,
        [&](int depth, Json::parse_event_t event, Json& value) {
            if (depth > depth_max) depth_ok = false;
            if (event == Json::parse_event_t::value && value.is_number_float()) value = whole_or_real(value.get<double>());
            return depth_ok;
        },
        false);
    if (!depth_ok) return fail(fmt::format("nested deeper than {} levels", depth_max));
    if (out.is_discarded()) {
        try {
            [[maybe_unused]] const auto again = Json::parse(text);
        } catch (const Json::exception& error) {
            return fail(shortened(error.what()));   // the parser quotes what it read last, which may be all of it
        }
        return fail("not JSON");
    }
    return out;
}

std::vector<std::string> duplicate_fields(std::string_view json) {
    struct Level {
        std::set<std::string> keys;
        std::string key;
        bool array = false;
        std::size_t index = 0;
    };
    std::vector<Level> levels;
    std::vector<std::string> out;
    std::string mended;
    if (auto other = surrogates_mended(json)) json = mended = std::move(*other);
    auto path = [&] {
        std::string text;
        for (const auto& level : levels) text += level.array ? fmt::format("[{}]", level.index) : (text.empty() ? "" : ".") + shortened(level.key);
        return text;
    };
    auto next_item = [&] {
        if (!levels.empty() && levels.back().array) ++levels.back().index;
    };
    using Event = Json::parse_event_t;
    [[maybe_unused]] const auto parsed = Json::parse(
        json,
        [&](int, Event event, Json& value) {
            switch (event) {
                case Event::object_start:
                case Event::array_start:
                    levels.push_back({.keys = {}, .key = {}, .array = event == Event::array_start});
                    break;
                case Event::object_end:
                case Event::array_end:
                    levels.pop_back();
                    next_item();
                    break;
                case Event::key:
                    levels.back().key = value.get<std::string>();
                    if (!levels.back().keys.insert(levels.back().key).second && out.size() < duplicates_max) out.push_back(path());
                    break;
                case Event::value: next_item(); break;
            }
            return levels.size() <= sent_depth_max;
        },
        false);
    return parsed.is_discarded() ? std::vector<std::string>() : out;
}

Json printable_texts(Json value) {
    if (value.is_string()) return penstock::printable(value.get_ref<const std::string&>());
    if (value.is_structured())
        for (auto& item : value) item = printable_texts(std::move(item));
    return value;
}

const Json& at_path(const Json& object, std::string_view path) {
    const auto* at = &object;
    while (!path.empty()) {
        const auto dot = path.find('.');
        const auto key = path.substr(0, dot);
        path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
        if (!at->is_object()) return null_json;
        const auto found = at->find(key);
        if (found == at->end()) return null_json;
        at = &*found;
    }
    return *at;
}

std::vector<std::string> texts_of(const Json& list) {
    std::vector<std::string> out;
    if (list.is_array())
        for (const auto& item : list)
            if (item.is_string()) out.push_back(item.get<std::string>());
    return out;
}

int integer_of(const Json& object, std::string_view key, int fallback) {
    if (!object.is_object()) return fallback;
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_integer()) return fallback;
    const bool beyond = found->is_number_unsigned() ? found->get<std::uint64_t>() > INT_MAX : found->get<std::int64_t>() > INT_MAX || found->get<std::int64_t>() < INT_MIN;
    return beyond ? fallback : found->get<int>();
}

bool flag_of(const Json& object, std::string_view key, bool fallback) {
    if (!object.is_object()) return fallback;
    const auto found = object.find(key);
    return found != object.end() && found->is_boolean() ? found->get<bool>() : fallback;
}

std::string text_at(const Json& object, std::string_view path, std::string fallback) {
    const auto& value = at_path(object, path);
    return value.is_string() ? value.get<std::string>() : fallback;
}

}  // namespace penstock::resources
