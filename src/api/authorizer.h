#pragma once
#include <map>
#include <string>
#include <vector>

#include "registry/registry.h"

namespace penstock::api {

/// Who asks: from the client certificate (CN and O), a token, or an impersonation.
struct User {
    std::string name = "system:anonymous";
    std::string uid;
    std::vector<std::string> groups{"system:unauthenticated"};
    std::map<std::string, std::vector<std::string>> extra;

    [[nodiscard]] bool is_in(const std::string& group) const;
    [[nodiscard]] bool is_master() const { return is_in("system:masters"); }
    /// `UserInfo` of the reviews.
    [[nodiscard]] resources::Json to_json() const;
};

/// What is asked for.
struct Access {
    std::string verb;
    std::string group, version, resource, subresource, name, name_space;
    std::string path;                    ///< not empty: no resource but this path
};

struct Rule {
    std::vector<std::string> verbs, groups, resources, names, paths;
    [[nodiscard]] resources::Json to_json() const;
};

/// Decides by the Role and ClusterRole objects and their bindings (rbac.authorization.k8s.io/v1).
/// Core: the API's thread. Reads the registry at each question, so that a change counts at once.
class Authorizer {
  public:
    explicit Authorizer(const registry::Registry& registry) : registry_(registry) {}

    [[nodiscard]] bool allows(const User& user, const Access& access) const;
    /// All rules of a user in a namespace (empty: only what holds everywhere).
    [[nodiscard]] std::vector<Rule> rules(const User& user, const std::string& name_space) const;
    /// Nobody may give what they do not have: the first of `wanted` that the user's rules do not cover, or nothing.
    [[nodiscard]] std::string beyond(const User& user, const std::string& name_space, const std::vector<Rule>& wanted) const;
    /// The rules of a Role or ClusterRole object; aggregated ones included.
    [[nodiscard]] std::vector<Rule> rules_of(const resources::Json& role) const;
    /// Creates the roles and bindings every cluster has, where they are missing.
    static void bootstrap(registry::Registry& registry);

  private:
    const registry::Registry& registry_;
};

/// `User "u" cannot VERB resource "RES" in API group "G" in the namespace "N"`.
std::string denial(const User& user, const Access& access);

}  // namespace penstock::api
