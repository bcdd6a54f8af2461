#include "auth/policy.h"

#include <algorithm>

#include <fmt/format.h>

#include "topics/topic.h"

namespace penstock::auth {

namespace {

constexpr std::string_view opening = "{principal.", attribute_prefix = "attributes.";

bool has_token(std::string_view pattern) { return pattern.find(opening) != std::string_view::npos; }

/// The token that begins at `at` (a `{`): its inner text, and where it ends; nothing when it is none.
std::optional<std::string_view> token_at(std::string_view pattern, std::size_t at, std::size_t& end) {
    if (!pattern.substr(at).starts_with(opening)) return std::nullopt;
    const auto close = pattern.find('}', at);
    if (close == std::string_view::npos) return std::nullopt;
    end = close + 1;
    return pattern.substr(at + opening.size(), close - at - opening.size());
}

/// Bytes of a value that may stand for a token: comparing costs the product of both lengths, and clients choose their names.
constexpr std::size_t value_max = 1024;

std::optional<std::string_view> any_value_of(std::string_view token, const Principal& principal, std::string_view client_id) {
    if (token == "clientId") return client_id;
    if (token == "username") return std::string_view(principal.user_name);
    if (!token.starts_with(attribute_prefix)) return std::nullopt;
    const auto* value = principal.attribute(std::string(token.substr(attribute_prefix.size())));
    return value == nullptr ? std::nullopt : std::optional<std::string_view>(*value);
}

std::optional<std::string_view> value_of(std::string_view token, const Principal& principal, std::string_view client_id) {
    const auto value = any_value_of(token, principal, client_id);
    return value && value->size() <= value_max ? value : std::nullopt;
}

/// One place of a glob.
struct Item {
    enum class Kind : std::uint8_t { letter, any, one, set } kind = Kind::letter;
    char letter = 0;
    std::string_view set;
};

bool in_set(std::string_view set, char c) {
    const bool negated = !set.empty() && (set[0] == '!' || set[0] == '^');
    if (negated) set.remove_prefix(1);
    bool found = false;
    for (std::size_t i = 0; i < set.size(); ++i) {
        if (i + 2 < set.size() && set[i + 1] == '-') {
            found |= static_cast<unsigned char>(set[i]) <= static_cast<unsigned char>(c) && static_cast<unsigned char>(c) <= static_cast<unsigned char>(set[i + 2]);
            i += 2;
        } else {
            found |= set[i] == c;
        }
    }
    return found != negated;
}

bool glob_items(const std::vector<Item>& items, std::string_view text) {
    // Backtracks to the last `*` alone: linear in the product of both lengths at worst.
    std::size_t i = 0, t = 0, star = std::string_view::npos, resume = 0;
    while (t < text.size()) {
        if (i < items.size() && items[i].kind == Item::Kind::any) {
            star = i++;
            resume = t;
        } else if (i < items.size() && (items[i].kind == Item::Kind::one || (items[i].kind == Item::Kind::letter && items[i].letter == text[t]) || (items[i].kind == Item::Kind::set && in_set(items[i].set, text[t])))) {
            ++i;
            ++t;
        } else if (star != std::string_view::npos) {
            i = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (i < items.size() && items[i].kind == Item::Kind::any) ++i;
    return i == items.size();
}

std::string pair_key(const std::string& name, const std::string& value) { return fmt::format("{}:{}={}", name.size(), name, value); }

}  // namespace

const char* action_name(Action action) noexcept {
    switch (action) {
        case Action::connect: return "Connect";
        case Action::publish: return "Publish";
        case Action::subscribe: return "Subscribe";
        case Action::read_key: return "Read";
        case Action::write_key: return "Write";
    }
    return "";
}

std::string token_fault(std::string_view pattern, bool whole_level) {
    for (std::size_t at = pattern.find('{'); at != std::string_view::npos; at = pattern.find('{', at + 1)) {
        std::size_t end = 0;
        const auto token = token_at(pattern, at, end);
        if (!token) return fmt::format("\"{}\" has a `{{` that begins no token; tokens are {{principal.clientId}}, {{principal.username}} and {{principal.attributes.NAME}}", pattern);
        const bool known = *token == "clientId" || *token == "username" || (token->starts_with(attribute_prefix) && token->size() > attribute_prefix.size());
        if (!known) return fmt::format("{{principal.{}}} is no token; {{principal.clientId}}, {{principal.username}} and {{principal.attributes.NAME}} are", *token);
        if (whole_level && ((at > 0 && pattern[at - 1] != '/') || (end < pattern.size() && pattern[end] != '/')))
            return fmt::format("the token {{principal.{}}} must be a whole level of the topic, between slashes", *token);
    }
    return {};
}

std::optional<std::string> fill_topic(std::string_view pattern, const Principal& principal, std::string_view client_id) {
    std::string out;
    for (std::size_t at = 0; at < pattern.size();) {
        std::size_t end = 0;
        const auto token = pattern[at] == '{' ? token_at(pattern, at, end) : std::nullopt;
        if (!token) {
            out += pattern[at++];
            continue;
        }
        const auto value = value_of(*token, principal, client_id);
        // A value is one level, literally: it must never widen the filter.
        if (!value || value->empty() || value->find_first_of("+#/") != std::string_view::npos || value->find('\0') != std::string_view::npos) return std::nullopt;
        if (out.empty() && value->front() == '$') return std::nullopt;
        out += *value;
        at = end;
    }
    return out;
}

bool glob_with_tokens(std::string_view pattern, bool sets, const Principal& principal, std::string_view client_id, std::string_view text) {
    std::vector<Item> items;
    for (std::size_t at = 0; at < pattern.size();) {
        const char c = pattern[at];
        std::size_t end = 0;
        if (const auto token = c == '{' ? token_at(pattern, at, end) : std::nullopt; token) {
            const auto value = value_of(*token, principal, client_id);
            if (!value || value->empty()) return false;
            for (const char letter : *value) items.push_back({.letter = letter});
            at = end;
            continue;
        }
        ++at;
        if (c == '*') {
            if (items.empty() || items.back().kind != Item::Kind::any) items.push_back({.kind = Item::Kind::any});
        } else if (sets && c == '?') {
            items.push_back({.kind = Item::Kind::one});
        } else if (sets && c == '[') {
            const auto close = pattern.find(']', at + 1);
            if (close == std::string_view::npos) {
                items.push_back({.letter = c});
                continue;
            }
            items.push_back({.kind = Item::Kind::set, .set = pattern.substr(at, close - at)});
            at = close + 1;
        } else if (sets && c == '\\' && at < pattern.size()) {
            items.push_back({.letter = pattern[at++]});
        } else {
            items.push_back({.letter = c});
        }
    }
    return glob_items(items, text);
}

// --- filters ---

void FilterSet::add(std::string filter) {
    if (filter.find_first_of("+#") == std::string::npos) exact_.emplace(std::move(filter), true);
    else if (std::ranges::find(wild_, filter) == wild_.end()) wild_.push_back(std::move(filter));
}

bool FilterSet::matches(std::string_view topic) const {
    return exact_.find(topic) != exact_.end() || std::ranges::any_of(wild_, [&](const auto& filter) { return topics::matches(filter, topic); });
}

bool FilterSet::covers(std::string_view filter) const {
    return exact_.find(filter) != exact_.end() || std::ranges::any_of(wild_, [&](const auto& allowed) { return topics::covers(allowed, filter); });
}

// --- policy ---

Policy::Policy(std::vector<Rule> rules, std::string name) : rules_(std::move(rules)), compiled_(rules_.size()), name_(std::move(name)) {
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        const auto& rule = rules_[i];
        for (const auto& id : rule.client_ids)
            if (!id.empty()) by_client_[id].push_back(i);
        for (const auto& user : rule.user_names)
            if (!user.empty()) by_user_[user].push_back(i);
        for (std::size_t k = 0; k < rule.attributes.size(); ++k) {
            const auto& set = rule.attributes[k];
            const bool is_whole = !set.empty() && std::ranges::none_of(set, [](const auto& pair) { return pair.first.empty() || pair.second.empty(); });
            if (is_whole) by_attribute_[pair_key(set.begin()->first, set.begin()->second)].emplace_back(i, k);
        }
        for (const auto& resource : rule.resources)
            if (resource.action != Action::connect)
                for (const auto& pattern : resource.patterns)
                    if (!pattern.empty() && !has_token(pattern)) (resource.action == Action::publish ? compiled_[i].publish : compiled_[i].subscribe).add(pattern);
    }
}

std::shared_ptr<const Grant> Policy::resolve(const Principal& principal, const std::string& client_id) const {
    auto out = std::make_shared<Grant>();
    out->policy_ = shared_from_this();
    auto& about = out->rules_;
    if (const auto found = by_client_.find(client_id); found != by_client_.end()) about.insert(about.end(), found->second.begin(), found->second.end());
    if (!principal.user_name.empty())
        if (const auto found = by_user_.find(principal.user_name); found != by_user_.end()) about.insert(about.end(), found->second.begin(), found->second.end());
    if (principal.attributes != nullptr)
        for (const auto& [name, value] : *principal.attributes) {
            const auto found = by_attribute_.find(pair_key(name, value));
            if (found == by_attribute_.end()) continue;
            for (const auto& [rule, set] : found->second)
                if (std::ranges::all_of(rules_[rule].attributes[set], [&](const auto& pair) {
                        const auto* has = principal.attribute(pair.first);
                        return has != nullptr && *has == pair.second;
                    }))
                    about.push_back(rule);
        }
    std::ranges::sort(about);
    const auto twice = std::ranges::unique(about);
    about.erase(twice.begin(), twice.end());

    out->principal_ = principal;
    out->client_id_ = client_id;
    for (const auto i : about) {
        const auto& rule = rules_[i];
        Grant::Filters publish{.rule = i, .action = Action::publish, .shared = &compiled_[i].publish}, subscribe{.rule = i, .action = Action::subscribe, .shared = &compiled_[i].subscribe};
        for (const auto& resource : rule.resources) {
            if (resource.action == Action::connect) {
                const bool any = resource.patterns.empty() ? resource.is_any : std::ranges::any_of(resource.patterns, [&](const auto& pattern) { return !pattern.empty() && glob_with_tokens(pattern, false, principal, client_id, client_id); });
                if (any && !out->connect_) out->connect_ = i;
                continue;
            }
            for (const auto& pattern : resource.patterns)
                if (has_token(pattern))
                    if (auto filled = fill_topic(pattern, principal, client_id)) (resource.action == Action::publish ? publish : subscribe).own.add(std::move(*filled));
        }
        for (auto* filters : {&publish, &subscribe})
            if (!filters->shared->empty() || !filters->own.empty()) out->filters_.push_back(std::move(*filters));
        for (const auto& key : rule.keys) out->keys_.push_back({i, &key});
    }
    return out;
}

std::optional<std::size_t> Grant::rule_for(Action action, std::string_view target) const {
    if (action == Action::connect) return connect_;
    if (action == Action::publish || action == Action::subscribe) {
        for (const auto& filters : filters_) {
            if (filters.action != action) continue;
            const bool allowed = action == Action::publish ? filters.shared->matches(target) || filters.own.matches(target) : filters.shared->covers(target) || filters.own.covers(target);
            if (allowed) return filters.rule;
        }
        return std::nullopt;
    }
    for (const auto& entry : keys_) {
        if (action == Action::read_key ? !entry.key->read : !entry.key->write) continue;
        for (const auto& key : entry.key->keys)
            if (!key.empty() && (entry.key->type == Rule::KeyType::pattern ? glob_with_tokens(key, true, principal_, client_id_, target) : key == target)) return entry.rule;
    }
    return std::nullopt;
}

}  // namespace penstock::auth
