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

/// The values that a path has reached; each step goes on from all of them.
class Walk {
  public:
    Walk(std::string_view path, const Json& root) : path_(path), at_{root} {
        if (path.starts_with('$') || path.starts_with('@')) ++i_;
    }
    Result<std::vector<Json>> values() {
        while (i_ < path_.size()) {
            const char c = path_[i_];
            if (c != '.' && c != '[')
                return fail(fmt::format("jsonpath: \"{}\": . or [ is needed at character {}", path_, i_ + 1));
            if (c == '.') take_name();
            else if (auto taken = take_brackets(); !taken) return std::unexpected(taken.error());
        }
        return std::move(at_);
    }

  private:
    /// `pick(value, next)` puts what is picked of each value behind `next`.
    template <class Pick>
    void step(Pick&& pick) {
        std::vector<Json> next;
        for (const auto& value : at_) pick(value, next);
        at_ = std::move(next);
    }
    void pick_all() {
        step([](const Json& v, auto& out) {
            for (const auto& item : v) out.push_back(item);
        });
    }
    void pick_member(const std::string& name) {
        step([&](const Json& v, auto& out) {
            if (v.is_object() && v.contains(name)) out.push_back(v[name]);
        });
    }
    /// `.name`, `..name` or `.*`; `i_` is at the first dot.
    void take_name() {
        ++i_;
        const bool deep = i_ < path_.size() && path_[i_] == '.';
        if (deep) ++i_;
        std::string name;
        while (i_ < path_.size() && path_[i_] != '.' && path_[i_] != '[') {
            if (path_[i_] == '\\' && i_ + 1 < path_.size()) ++i_;
            name += path_[i_++];
        }
        if (deep && !name.empty()) step([&](const Json& v, auto& out) { descend(v, name, out); });
        else if (name == "*") pick_all();
        else if (!name.empty()) pick_member(name);
    }
    /// `[...]`; `i_` is at the bracket.
    Result<void> take_brackets() {
        const auto end = closing(path_, i_);
        if (end == std::string_view::npos) return fail(fmt::format("jsonpath: \"{}\": a [ without ]", path_));
        const auto inside = trim(path_.substr(i_ + 1, end - i_ - 1));
        i_ = end + 1;
        if (inside == "*") return pick_all(), Result<void>();
        if (inside.size() >= 2 && (inside.front() == '\'' || inside.front() == '"'))
            return pick_member(unquoted(inside)), Result<void>();
        if (inside.starts_with("?(") && inside.ends_with(')'))
            return pick_where(inside.substr(2, inside.size() - 3));
        if (const auto colon = inside.find(':'); colon != std::string_view::npos)
            return pick_slice(inside, colon);
        if (const auto number = parse_number<long>(inside)) return pick_item(*number), Result<void>();
        return fail(fmt::format("jsonpath: \"[{}]\" is not taken; use a number, FROM:TO, *, ?(CONDITION) or "
                                "a quoted name",
                                inside));
    }
    static std::string unquoted(std::string_view text) {
        std::string out;
        for (std::size_t k = 1; k + 1 < text.size(); ++k) {
            if (text[k] == '\\' && k + 2 < text.size()) ++k;
            out += text[k];
        }
        return out;
    }
    Result<void> pick_where(std::string_view condition) {
        std::string fault;
        step([&](const Json& v, auto& out) {
            if (!v.is_array()) return;
            for (const auto& item : v) {
                const auto taken = passes(condition, item);
                if (!taken) fault = taken.error().message;
                else if (*taken) out.push_back(item);
            }
        });
        return fault.empty() ? Result<void>() : fail(std::move(fault));
    }
    /// `FROM:TO`; either may be missing, or count from the end.
    Result<void> pick_slice(std::string_view inside, std::size_t colon) {
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
        return {};
    }
    /// Below 0: from the end.
    void pick_item(long number) {
        step([&](const Json& v, auto& out) {
            if (!v.is_array()) return;
            const auto index = number < 0 ? static_cast<long>(v.size()) + number : number;
            if (index >= 0 && index < static_cast<long>(v.size()))
                out.push_back(v[static_cast<std::size_t>(index)]);
        });
    }

    std::string_view path_;
    std::vector<Json> at_;
    std::size_t i_ = 0;                  ///< of the next character of the path
};

Result<std::vector<Json>> walk(std::string_view path, const Json& root) { return Walk(path, root).values(); }

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
