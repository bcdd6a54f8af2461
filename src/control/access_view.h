#pragma once
#include <string>
#include <vector>

#include "auth/policy.h"
#include "broker/core.h"
#include "resources/json.h"

namespace penstock::control {

/// The broker's answers for people, as JSON: `{"items": [...]}`.
resources::Json decisions_json(const std::vector<broker::Decision>& decisions);
resources::Json clients_json(const std::vector<broker::ClientView>& clients);

/// A principal as clients_json writes it.
auth::Principal principal_of(const resources::Json& client);

/// What a policy would take from one connected client.
struct Loss {
    std::string client_id, user_name;
    std::string action;                  ///< Connect, Publish or Subscribe
    std::string target;
};
/// Tries a BrokerAuthorization on clients (of clients_json) and on what they did lately; changes nothing.
std::vector<Loss> try_policy(const resources::Json& authorization, const resources::Json& clients);

}  // namespace penstock::control
