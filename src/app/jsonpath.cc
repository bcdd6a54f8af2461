#include "app/jsonpath.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::app {

using resources::Json;

namespace {

constexpr int ranges_max = 32;

/// The `]` that closes the `[` at `from`, past brackets and quotes within; npos: none.
std::size_t closing(std::string_view path, std::size_t from) {
    int depth = 0;
    char quote = 0;
    for (auto i = from; i < path.size(); ++i) {
        const char c = path[i];
        if (quote != 0) {
            if (c == '\\')
                ++i;
            else if (c == quote)
                quote = 0;
        } else if (c == '\'' || c == '"') {
            quote = c;
        } else if (c == '[') {
            ++depth;
        } else if (c == ']' && --depth == 0) {
            return i;
        }
    }
    return std::string_view::npos;
}

/// Every value named `name` below, at any depth, outer ones first.
void descend(const Json& value, const std::string& name, std::vector<Json>& out) {
    if (value.is_object() && value.contains(name)) out.push_back(value[name]);
    if (value.is_structured())
        for (const auto& item : value) descend(item, name, out);
}

Result<std::vector<Json>> walk(std::string_view path, const Json& root);

/// One side of a comparison: a quoted text, a number, true or false, or a path from the item (`@.type`).
Result<std::vector<Json>> operand(std::string_view text, const Json& item) {
    text = trim(text);
    if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front())
        return std::vector<Json>{std::string(text.substr(1, text.size() - 2))};
    if (text.starts_with('@')) return walk(text, item);
    if (auto parsed = resources::parse_json(text)) return std::vector<Json>{std::move(*parsed)};
    return fail(fmt::format("jsonpath: \"{}\" is no text in quotes, no number and no path from @", text));
}

Result<bool> passes(std::string_view condition, const Json& item) {
    for (const std::string_view sign : {"==", "!=", "<=", ">=", "<", ">"}) {
        const auto at = condition.find(sign);
        if (at == std::string_view::npos) continue;
        const auto left = operand(condition.substr(0, at), item),
                   right = operand(condition.substr(at + sign.size()), item);
        if (!left) return std::unexpected(left.error());
        if (!right) return std::unexpected(right.error());
        if (left->empty() || right->empty()) return false;
        const auto &a = left->front(), &b = right->front();
        if (sign == "==") return a == b;
        if (sign == "!=") return a != b;
        if (a.type() != b.type() && !(a.is_number() && b.is_number())) return false;
        return sign == "<" ? a < b : sign == "<=" ? a <= b : sign == ">" ? a > b : a >= b;
    }
    const auto found = operand(condition, item);
    if (!found) return std::unexpected(found.error());
    return !found->empty();
}

Result<std::vector<Json>> walk(std::string_view path, const Json& root) {
    std::vector<Json> at{root};
    std::size_t i = 0;
    if (path.starts_with('$') || path.starts_with('@')) ++i;
    auto step = [&](auto&& pick) {
        std::vector<Json> next;
        for (const auto& value : at) pick(value, next);
        at = std::move(next);
    };
    while (i < path.size()) {
        if (path[i] == '.') {
            ++i;
            const bool deep = i < path.size() && path[i] == '.';
            if (deep) ++i;
            std::string name;
            while (i < path.size() && path[i] != '.' && path[i] != '[') {
                if (path[i] == '\\' && i + 1 < path.size()) ++i;
                name += path[i++];
            }
            if (deep && !name.empty())
                step([&](const Json& v, auto& out) { descend(v, name, out); });
            else if (name == "*")
                step([](const Json& v, auto& out) {
                    for (const auto& item : v) out.push_back(item);
                });
            else if (!name.empty()) step([&](const Json& v, auto& out) { if (v.is_object() && v.contains(name)) out.push_back(v[name]); });
        } else if (path[i] == '[') {
            const auto end = closing(path, i);
            if (end == std::string_view::npos) return fail(fmt::format("jsonpath: \"{}\": a [ without ]", path));
            auto inside = trim(path.substr(i + 1, end - i - 1));
            i = end + 1;
            if (inside == "*") {
                step([](const Json& v, auto& out) { for (const auto& item : v) out.push_back(item); });
            } else if (inside.size() >= 2 && (inside.front() == '\'' || inside.front() == '"')) {
                std::string name;
                for (std::size_t k = 1; k + 1 < inside.size(); ++k) {
                    if (inside[k] == '\\' && k + 2 < inside.size()) ++k;
                    name += inside[k];
                }
                step([&](const Json& v, auto& out) { if (v.is_object() && v.contains(name)) out.push_back(v[name]); });
            } else if (inside.starts_with("?(") && inside.ends_with(')')) {
                const auto condition = inside.substr(2, inside.size() - 3);
                std::string fault;
                step([&](const Json& v, auto& out) {
                    if (!v.is_array()) return;
                    for (const auto& item : v) {
                        const auto taken = passes(condition, item);
                        if (!taken)
                            fault = taken.error().message;
                        else if (*taken)
                            out.push_back(item);
                    }
                });
                if (!fault.empty()) return fail(std::move(fault));
            } else if (const auto colon = inside.find(':'); colon != std::string_view::npos) {
                const auto first = parse_number<long>(inside.substr(0, colon)),
                           last = parse_number<long>(inside.substr(colon + 1));
                if ((!first && colon != 0) || (!last && colon + 1 != inside.size()))
                    return fail(fmt::format("jsonpath: \"[{}]\": a slice is [FROM:TO]", inside));
                step([&](const Json& v, auto& out) {
                    if (!v.is_array()) return;
                    const auto size = static_cast<long>(v.size());
                    auto bound = [&](long n) { return std::clamp(n < 0 ? size + n : n, 0L, size); };
                    for (auto k = bound(first.value_or(0)); k < bound(last.value_or(size)); ++k)
                        out.push_back(v[static_cast<std::size_t>(k)]);
                });
            } else if (const auto number = parse_number<long>(inside)) {
                step([&](const Json& v, auto& out) {
                    if (!v.is_array()) return;
                    const auto at_index = *number < 0 ? static_cast<long>(v.size()) + *number : *number;
                    if (at_index >= 0 && at_index < static_cast<long>(v.size())) out.push_back(v[static_cast<std::size_t>(at_index)]);
                });
            } else {
                return fail(
                    fmt::format("jsonpath: \"[{}]\" is not taken; use a number, FROM:TO, *, ?(CONDITION) or "
                                "a quoted name",
                                inside));
            }
        } else {
            return fail(fmt::format("jsonpath: \"{}\": . or [ is needed at character {}", path, i + 1));
        }
    }
    return at;
}

std::string show(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/// Text up to the matching `{end}`; `at` stands behind it afterwards.
Result<std::string> evaluate(std::string_view expression, std::size_t& at, const Json& object, int depth) {
    const bool inside_range = depth > 0;
    if (depth > ranges_max) return fail(fmt::format("jsonpath: {{range}} nested deeper than {} levels", ranges_max));
    std::string out;
    while (at < expression.size()) {
        if (expression[at] != '{') {
            out += expression[at++];
            continue;
        }
        const auto close = expression.find('}', at);
        if (close == std::string_view::npos) return fail("jsonpath: a { without }");
        const auto part = trim(expression.substr(at + 1, close - at - 1));
        at = close + 1;
        if (part == "end") {
            if (inside_range) return out;
            return fail("jsonpath: {end} without {range}");
        }
        if (part.starts_with("range ")) {
            const auto items = walk(trim(part.substr(6)), object);
            if (!items) return std::unexpected(items.error());
            const auto begin = at;
            auto after = at;
            if (auto skipped = evaluate(expression, after, Json::object(), depth + 1); !skipped) return skipped;
            for (const auto& item : *items) {
                auto inner = begin;
                auto text = evaluate(expression, inner, item, depth + 1);
                if (!text) return text;
                out += *text;
            }
            at = after;
        } else if (part.size() >= 2 && part.front() == '"' && part.back() == '"') {
            for (std::size_t k = 1; k + 1 < part.size(); ++k) {
                if (part[k] == '\\' && k + 2 < part.size()) {
                    ++k;
                    out += part[k] == 'n' ? '\n' : part[k] == 't' ? '\t' : part[k];
                } else {
                    out += part[k];
                }
            }
        } else {
            const auto found = walk(part, object);
            if (!found) return std::unexpected(found.error());
            for (std::size_t k = 0; k < found->size(); ++k) out += (k > 0 ? " " : "") + show((*found)[k]);
        }
    }
    if (inside_range) return fail("jsonpath: {range} without {end}");
    return out;
}

}  // namespace

Result<std::vector<Json>> values_at(const std::string& path, const Json& object) {
    return walk(path, object);
}

Result<std::string> evaluate_jsonpath(const std::string& expression, const Json& object) {
    std::size_t at = 0;
    const auto braced = expression.find('{') == std::string::npos ? "{" + expression + "}" : expression;
    return evaluate(braced, at, object, 0);
}

}  // namespace penstock::app
