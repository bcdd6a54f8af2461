#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "auth/principal.h"

namespace penstock::auth {

enum class Action : std::uint8_t { connect, publish, subscribe, read_key, write_key };
const char* action_name(Action action) noexcept;

/// One rule of BrokerAuthorization as plain data (fact sheet 5.2). What is empty in it matches nobody: an attribute set without
/// pairs or with an empty name or value, an empty name, filter or key, a token without a value. Tokens `{principal.clientId}`, `{principal.username}` and
/// `{principal.attributes.NAME}` are still in it.
struct Rule {
    std::vector<std::string> client_ids, user_names;
    std::vector<Attributes> attributes;
    struct Resource {
        Action action = Action::connect;
        std::vector<std::string> patterns;        ///< client ids with `*`, or topic filters
        /// Connect alone, without patterns: any client id, which the absence of the list means (fact sheet 5.3). A list that is
        /// there and empty allows none.
        bool is_any = true;
    };
    std::vector<Resource> resources;
    enum class KeyType : std::uint8_t { pattern, text, binary };
    struct Key {
        bool read = false, write = false;
        KeyType type = KeyType::pattern;
        std::vector<std::string> keys;            ///< binary: the bytes themselves
        bool operator==(const Key&) const = default;
    };
    std::vector<Key> keys;
};

/// Topic filters that are asked one by one: exact ones by hash, those with wildcards in turn.
class FilterSet {
  public:
    void add(std::string filter);
    /// The topic is matched by one of them.
    [[nodiscard]] bool matches(std::string_view topic) const;
    /// One of them covers the whole filter.
    [[nodiscard]] bool covers(std::string_view filter) const;
    [[nodiscard]] bool empty() const noexcept { return exact_.empty() && wild_.empty(); }

  private:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
    };
    std::unordered_map<std::string, bool, Hash, std::equal_to<>> exact_;
    std::vector<std::string> wild_;
};

class Policy;

/// What one principal with one client id may do: only the rules that are about it. Immutable. Core: any.
class Grant {
  public:
    [[nodiscard]] bool may_connect() const noexcept { return connect_.has_value(); }
    [[nodiscard]] bool may_publish(std::string_view topic) const { return rule_for(Action::publish, topic).has_value(); }
    /// `filter` without `$share/GROUP/`.
    [[nodiscard]] bool may_subscribe(std::string_view filter) const { return rule_for(Action::subscribe, filter).has_value(); }
    [[nodiscard]] bool may_use_key(Action action, std::string_view key) const { return rule_for(action, key).has_value(); }
    /// The number of the rule that allows it, from 0.
    [[nodiscard]] std::optional<std::size_t> rule_for(Action action, std::string_view target) const;
    /// The rules that are about the principal.
    [[nodiscard]] const std::vector<std::size_t>& rules() const noexcept { return rules_; }

  private:
    friend class Policy;
    struct Filters {
        std::size_t rule = 0;
        Action action = Action::publish;
        const FilterSet* shared = nullptr;        ///< of the policy: filters without tokens
        FilterSet own;                            ///< with this principal's values
    };
    struct Keys {
        std::size_t rule = 0;
        const Rule::Key* key = nullptr;
    };
    std::shared_ptr<const Policy> policy_;
    std::vector<std::size_t> rules_;
    std::optional<std::size_t> connect_;
    std::vector<Filters> filters_;
    std::vector<Keys> keys_;
    Principal principal_;
    std::string client_id_;
};

/// The rules of one BrokerAuthorization, ready to be asked. What cannot match a principal costs it nothing: rules are found by
/// its client id, its user name and its attributes. Immutable. Core: any.
class Policy : public std::enable_shared_from_this<Policy> {
  public:
    explicit Policy(std::vector<Rule> rules, std::string name = {});
    /// Connect included: see Grant::may_connect.
    [[nodiscard]] std::shared_ptr<const Grant> resolve(const Principal& principal, const std::string& client_id) const;
    /// `namespace/name` of the resource.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

  private:
    friend class Grant;
    struct Compiled {
        FilterSet publish, subscribe;
    };
    std::vector<Rule> rules_;
    std::vector<Compiled> compiled_;
    std::string name_;
    std::unordered_map<std::string, std::vector<std::size_t>> by_client_, by_user_;
    /// By the first pair of each attribute set; the rest is looked at then.
    std::unordered_map<std::string, std::vector<std::pair<std::size_t, std::size_t>>> by_attribute_;
};

/// Why a pattern cannot be used, or nothing. `whole_level`: a topic filter, whose tokens must be whole levels.
std::string token_fault(std::string_view pattern, bool whole_level);
/// `pattern` with its tokens filled in; nothing when one has no value or, in topics, a value with `+`, `#` or `/`.
std::optional<std::string> fill_topic(std::string_view pattern, const Principal& principal, std::string_view client_id);
/// `*`, and with `sets` also `?` and `[a-z]`; what tokens stand for counts letter by letter. A token without a value, or with an
/// empty one, matches nothing: `{principal.username}*` is not everybody's.
bool glob_with_tokens(std::string_view pattern, bool sets, const Principal& principal, std::string_view client_id, std::string_view text);

}  // namespace penstock::auth
