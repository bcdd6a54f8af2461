#include "control/access_view.h"

#include "base/clock.h"
#include "base/text.h"
#include "control/security.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

Json decisions_json(const std::vector<broker::Decision>& decisions) {
    Json items = Json::array();
    for (const auto& d : decisions)
        items.push_back({{"time", rfc3339(d.wall_ms)}, {"client", d.client_id}, {"user", d.user_name}, {"peer", d.peer}, {"listener", d.listener}, {"method", d.method}, {"action", d.action}, {"target", d.target},
                         {"reason", mqtt::reason_name(static_cast<mqtt::ReasonCode>(d.reason))}, {"code", d.reason}, {"why", printable(d.why)}, {"count", d.count}});
    return {{"items", items}};
}

Json clients_json(const std::vector<broker::ClientView>& clients) {
    Json items = Json::array();
    for (const auto& c : clients) {
        Json attributes = Json::object();
        if (c.principal.attributes != nullptr)
            for (const auto& [name, value] : *c.principal.attributes) attributes[name] = value;
        Json item = {{"client", c.client_id}, {"user", c.principal.user_name}, {"method", c.principal.method}, {"attributes", attributes}, {"listener", c.listener}, {"peer", c.peer}, {"version", c.version},
                     {"subscriptions", c.subscriptions}, {"topics", c.topics}, {"restricted", c.restricted}};
        if (c.principal.expires_at != 0) item["expires"] = rfc3339(c.principal.expires_at);
        items.push_back(std::move(item));
    }
    return {{"items", items}};
}

auth::Principal principal_of(const Json& client) {
    auth::Attributes attributes;
    if (const auto& map = at_path(client, "attributes"); map.is_object())
        for (const auto& [name, value] : map.items())
            if (value.is_string()) attributes.emplace(name, value.get<std::string>());
    return {.method = text_at(client, "method"), .user_name = text_at(client, "user"), .attributes = std::make_shared<const auth::Attributes>(std::move(attributes))};
}

std::vector<Loss> try_policy(const Json& authorization, const Json& clients) {
    const auto policy = std::make_shared<const auth::Policy>(rules_of(authorization));
    std::vector<Loss> out;
    for (const auto& client : at_path(clients, "items")) {
        const auto id = text_at(client, "client"), user = text_at(client, "user");
        const auto grant = policy->resolve(principal_of(client), id);
        auto lose = [&](const char* action, const std::string& target) { out.push_back({.client_id = id, .user_name = user, .action = action, .target = target}); };
        if (!grant->may_connect()) {
            lose("Connect", id);
            continue;
        }
        for (const auto& topic : client["topics"])
            if (!grant->may_publish(topic.get<std::string>())) lose("Publish", topic.get<std::string>());
        for (const auto& filter : client["subscriptions"])
            if (!grant->may_subscribe(filter.get<std::string>())) lose("Subscribe", filter.get<std::string>());
    }
    return out;
}

}  // namespace penstock::control
