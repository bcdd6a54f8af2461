#include "topics/topic.h"

#include <algorithm>

namespace penstock::topics {

std::string_view take_level(std::string_view& rest, bool& more) noexcept {
    const auto slash = rest.find('/');
    more = slash != std::string_view::npos;
    const auto level = rest.substr(0, slash);
    rest = more ? rest.substr(slash + 1) : std::string_view{};
    return level;
}

namespace {
bool level_count_ok(std::string_view text) noexcept {
    return text.size() < levels_max || static_cast<std::size_t>(std::ranges::count(text, '/')) < levels_max;
}
}  // namespace

bool is_valid_name(std::string_view topic) noexcept {
    if (topic.empty() || topic.size() > 65'535) return false;
    for (const char c : topic)
        if (c == '+' || c == '#') return false;
    return level_count_ok(topic);
}

bool is_valid_filter(std::string_view filter) noexcept {
    return level_count_ok(filter) && is_well_formed_filter(filter);
}

bool is_well_formed_filter(std::string_view filter) noexcept {
    if (filter.empty() || filter.size() > 65'535) return false;
    for (std::size_t i = 0; i < filter.size(); ++i) {
        const char c = filter[i];
        if (c != '+' && c != '#') continue;
        if (i > 0 && filter[i - 1] != '/') return false;
        if (c == '#' ? i + 1 != filter.size() : i + 1 < filter.size() && filter[i + 1] != '/') return false;
    }
    return true;
}

bool has_wildcard(std::string_view filter) noexcept { return filter.find_first_of("+#") != std::string_view::npos; }

SharedFilter split_shared(std::string_view text) noexcept {
    constexpr std::string_view prefix = "$share/";
    SharedFilter out{.is_shared = false, .is_valid = true, .group = {}, .filter = text};
    if (!text.starts_with(prefix)) {
        // `$share` alone names no group and no filter; it is an ordinary, if useless, filter.
        return out;
    }
    out.is_shared = true;
    const auto rest = text.substr(prefix.size());
    const auto slash = rest.find('/');
    out.group = rest.substr(0, slash);
    out.filter = slash == std::string_view::npos ? std::string_view{} : rest.substr(slash + 1);
    out.is_valid = !out.group.empty() && !has_wildcard(out.group) && !out.filter.empty();
    return out;
}

bool matches(std::string_view filter, std::string_view topic) noexcept {
    if (!topic.empty() && topic[0] == '$' && !filter.empty() && (filter[0] == '+' || filter[0] == '#')) return false;
    bool filter_more = true, topic_more = true;
    while (filter_more) {
        const auto level = take_level(filter, filter_more);
        if (level == "#") return true;
        if (!topic_more) return false;
        const auto name = take_level(topic, topic_more);
        if (level != "+" && level != name) return false;
    }
    return !topic_more;
}

bool covers(std::string_view allowed, std::string_view filter) noexcept {
    if (!filter.empty() && filter[0] == '$' && !allowed.empty() && (allowed[0] == '+' || allowed[0] == '#')) return false;
    bool allowed_more = true, filter_more = true;
    while (allowed_more) {
        const auto level = take_level(allowed, allowed_more);
        if (level == "#") return true;
        if (!filter_more) return false;
        const auto wanted = take_level(filter, filter_more);
        if (wanted == "#" || (level != "+" && level != wanted)) return false;
    }
    return !filter_more;
}

}  // namespace penstock::topics
