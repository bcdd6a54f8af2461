// What is empty in a rule matches nobody, in every nesting: from the resource as a person writes it to the grant, and in RBAC.
#include <gtest/gtest.h>

#include "api/authorizer.h"
#include "base/clock.h"
#include "broker/config.h"
#include "control/plan.h"
#include "control/security.h"
#include "crypto/trust.h"
#include "harness/x509_maker.h"

namespace penstock {
namespace {

using auth::Action;
using resources::Json;

/// Clients of every kind: with and without a name, with and without attributes, empty ones among them.
struct Client {
    auth::Principal principal;
    std::string id;
};
std::vector<Client> clients() {
    auto with = [](auth::Attributes attributes) { return std::make_shared<const auth::Attributes>(std::move(attributes)); };
    std::vector<Client> out;
    for (const auto* id : {"c", "-x", "*", ""})
        for (const auto* user : {"", "u", "*"}) {
            out.push_back({{.user_name = user}, id});
            for (const auto& attributes : {auth::Attributes{}, auth::Attributes{{"site", "oslo"}}, auth::Attributes{{"site", ""}}, auth::Attributes{{"", ""}}, auth::Attributes{{"", "oslo"}}})
                out.push_back({{.user_name = user, .attributes = with(attributes)}, id});
        }
    return out;
}

/// What a client may do by these rules, of all that can be asked.
std::string rights(const Json& rules, const Client& client) {
    const auto policy = std::make_shared<const auth::Policy>(control::rules_of({{"spec", {{"authorizationPolicies", {{"rules", rules}}}}}}));
    const auto grant = policy->resolve(client.principal, client.id);
    std::string out;
    if (grant->may_connect()) out += "connect ";
    for (const auto* topic : {"a", "a/b", "/", "$SYS/x", "-x"})
        if (grant->may_publish(topic)) out += std::string("publish ") + topic + " ";
    for (const auto* filter : {"a", "#", "+", "/", "$SYS/#"})
        if (grant->may_subscribe(filter)) out += std::string("subscribe ") + filter + " ";
    for (const auto* key : {"", "k", "-x", "*"})
        for (const auto action : {Action::read_key, Action::write_key})
            if (grant->may_use_key(action, key)) out += std::string(auth::action_name(action)) + " " + key + " ";
    return out;
}

void expect_nobody(const Json& rule) {
    for (const auto& client : clients()) EXPECT_EQ(rights(Json::array({rule}), client), "") << rule.dump() << " for id=" << client.id << " user=" << client.principal.user_name;
}

/// Every value in which nothing is said.
const std::vector<Json> nothings{nullptr, "", Json::array(), Json::object(), Json::array({""}), Json::array({nullptr}), Json::array({Json::object()}), Json::array({Json::array()}), Json::array({{{"", ""}}}), Json::array({{{"site", ""}}}),
                                 Json::array({{{"", "oslo"}}}), Json::array({{{"site", nullptr}}}), Json::array({{{"site", 7}}}), Json::array({{{"site", Json::object()}}}), Json::array({{{"site", "oslo"}, {"role", 7}}}), Json::array({7})};

const Json all_resources = Json::array({{{"method", "Connect"}}, {{"method", "Publish"}, {"topics", {"#"}}}, {{"method", "Subscribe"}, {"topics", {"#"}}}});
const Json all_keys = Json::array({{{"method", "ReadWrite"}, {"keys", {"*"}}}});

TEST(EmptyParts, principals_that_name_nobody) {
    const Json base = {{"brokerResources", all_resources}, {"stateStoreResources", all_keys}};
    expect_nobody(base);
    for (const auto& whole : nothings) {
        auto rule = base;
        rule["principals"] = whole;
        expect_nobody(rule);
        for (const auto* field : {"clientIds", "usernames", "attributes"}) {
            rule["principals"] = {{field, whole}};
            expect_nobody(rule);
            // One that says something beside one that does not: only whom it names gets in.
            rule["principals"]["clientIds"] = {"only"};
            if (std::string_view(field) != "clientIds") {
                expect_nobody(rule);
                EXPECT_NE(rights(Json::array({rule}), {{}, "only"}), "") << rule.dump();
            }
        }
    }
    // An empty set beside a full one does not widen it.
    auto rule = base;
    rule["principals"] = {{"attributes", Json::array({Json::object(), {{"site", "oslo"}}, {{"site", ""}}})}};
    for (const auto& client : clients()) {
        const auto* site = client.principal.attribute("site");
        EXPECT_EQ(rights(Json::array({rule}), client).empty(), site == nullptr || *site != "oslo");
    }
}

TEST(EmptyParts, resources_that_allow_nothing) {
    const Json everybody = {{"clientIds", {"c", "-x", "*"}}, {"usernames", {"u", "*"}}};
    for (const auto& nothing : nothings) {
        expect_nobody({{"principals", everybody}, {"brokerResources", nothing}, {"stateStoreResources", nothing}});
        for (const auto* method : {"Connect", "Publish", "Subscribe", "Delete", ""})
            for (const auto* field : {"clientIds", "topics"}) {
                const Json rule = {{"principals", everybody}, {"brokerResources", Json::array({{{"method", method}, {field, nothing}}})}};
                // Only a Connect that has no clientIds at all is for any client id; AIO has it so.
                if (std::string_view(method) == "Connect" && std::string_view(field) == "topics") continue;
                expect_nobody(rule);
            }
        for (const auto* method : {"Read", "Write", "ReadWrite", "Delete", ""})
            for (const auto* type : {"Pattern", "String", "Binary", "Unknown"}) expect_nobody({{"principals", everybody}, {"stateStoreResources", Json::array({{{"method", method}, {"keyType", type}, {"keys", nothing}}})}});
    }
    expect_nobody({{"principals", everybody}, {"brokerResources", Json::array({Json::object()})}, {"stateStoreResources", Json::array({Json::object(), {{"keys", {"*"}}}})}});
    expect_nobody({{"principals", everybody}, {"stateStoreResources", Json::array({{{"method", "Read"}, {"keyType", "Binary"}, {"keys", {"not base64!"}}}})}});
    EXPECT_EQ(rights(Json::array({{{"principals", everybody}, {"brokerResources", Json::array({{{"method", "connect"}}})}}}), {{}, "c"}), "connect ") << "AIO: no clientIds, any client id";
}

// What the registry makes of them on the way (a null that is dropped would be a list that is absent) must not widen them.
TEST(EmptyParts, as_the_registry_keeps_them) {
    const std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    const auto& kind = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerAuthorization");
    int kept = 0;
    std::string refusals;
    auto store = [&](const Json& rule) {
        const auto made = registry->create(kind, "azure-iot-operations", {{"metadata", {{"name", "policy-" + std::to_string(kept)}}}, {"spec", {{"authorizationPolicies", {{"rules", Json::array({rule})}}}}}});
        if (!made) {
            refusals += made.error().message + "\n";   // refused with the field's path is as good
            return;
        }
        ++kept;
        expect_nobody(resources::at_path(**made, "spec.authorizationPolicies.rules")[0]);
    };
    const Json everybody = {{"clientIds", {"c", "-x", "*"}}, {"usernames", {"u", "*"}}};
    for (const auto& nothing : nothings) {
        for (const auto* field : {"clientIds", "usernames", "attributes"}) store({{"principals", {{field, nothing}}}, {"brokerResources", all_resources}, {"stateStoreResources", all_keys}});
        store({{"principals", nothing}, {"brokerResources", all_resources}});
        store({{"principals", everybody}, {"brokerResources", nothing}});
        store({{"principals", everybody}, {"brokerResources", Json::array({{{"method", "Connect"}, {"clientIds", nothing}}})}});
        for (const auto* method : {"Publish", "Subscribe"}) store({{"principals", everybody}, {"brokerResources", Json::array({{{"method", method}, {"topics", nothing}}})}});
        store({{"principals", everybody}, {"brokerResources", Json::array()}, {"stateStoreResources", Json::array({{{"method", "ReadWrite"}, {"keys", nothing}}})}});
    }
    EXPECT_GT(kept, 3) << "the test looks at what is stored\n" << refusals.substr(0, 2000);
}

// `{principal.username}*` of a client without a name would be `*`.
TEST(EmptyParts, tokens_without_a_value_match_nothing) {
    for (const auto* token : {"{principal.username}", "{principal.attributes.site}", "{principal.attributes.none}"})
        for (const auto* pattern : {"{}", "{}*", "*{}", "*{}*", "-{}*", "{}-*"}) {
            const auto text = std::string(pattern).replace(std::string(pattern).find("{}"), 2, token);
            const Json rule = {{"principals", {{"clientIds", {"c"}}}},
                               {"brokerResources", Json::array({{{"method", "Connect"}, {"clientIds", {text}}}, {{"method", "Publish"}, {"topics", {std::string(token) + "/#", "#"}}}})},
                               {"stateStoreResources", Json::array({{{"method", "ReadWrite"}, {"keys", {text}}}})}};
            auto without_topics = rule;
            without_topics["brokerResources"].erase(std::size_t{1});
            for (const auto& attributes : {auth::Attributes{}, auth::Attributes{{"site", ""}}})
                EXPECT_EQ(rights(Json::array({without_topics}), {{.user_name = "", .attributes = std::make_shared<const auth::Attributes>(attributes)}, "c"}), "") << text;
        }
    const Json topics = {{"principals", {{"clientIds", {"c"}}}}, {"brokerResources", Json::array({{{"method", "Publish"}, {"topics", {"{principal.username}", "{principal.username}/#", "a/{principal.attributes.site}/#"}}}})}};
    expect_nobody({{"principals", {{"clientIds", {"c"}}}}, {"brokerResources", Json::array({{{"method", "Publish"}, {"topics", {"{principal.attributes.none}/#"}}}})}});
    EXPECT_EQ(rights(Json::array({topics}), {{.user_name = "", .attributes = std::make_shared<const auth::Attributes>(auth::Attributes{{"site", ""}})}, "c"}), "");
}

TEST(EmptyParts, each_is_told_with_its_path) {
    auto told = [](const Json& rules) {
        std::string out;
        for (const auto& one : control::empty_parts_of({{"spec", {{"authorizationPolicies", {{"rules", rules}}}}}})) out += one + "\n";
        return out;
    };
    EXPECT_EQ(told(Json::array({{{"principals", {{"clientIds", {"c"}}}}, {"brokerResources", all_resources}, {"stateStoreResources", all_keys}}})), "");
    const auto text = told(Json::array({Json::object(), {{"principals", {{"clientIds", Json::array()}, {"usernames", {"u", ""}}, {"attributes", Json::array({Json::object(), {{"site", ""}}})}}},
                                                         {"brokerResources", Json::array({{{"method", "Connect"}, {"clientIds", Json::array()}}})}, {"stateStoreResources", Json::array({{{"method", "Read"}, {"keys", {""}}}})}}}));
    for (const auto* part : {"rules[1].principals.clientIds is empty and names nobody", "rules[1].principals.usernames[1] is empty", "rules[1].principals.attributes[0] is empty and names nobody; a rule for all",
                             "rules[1].principals.attributes[1].site is empty and matches nobody", "rules[1].brokerResources[0].clientIds is empty and allows nothing", "rules[1].stateStoreResources[0].keys[0] is empty and allows nothing"})
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

TEST(EmptyParts, an_empty_subject_is_not_that_of_all_who_have_none) {
    const auto root = harness::make_authority("root");
    const auto nameless = harness::make_certificate(harness::make_key("P-256"), {.issuer = &root, .alternative_names = "critical,DNS:x"});
    for (const auto* pattern : {"", " ", "  "}) EXPECT_FALSE(crypto::same_subject(pattern, nameless)) << '"' << pattern << '"';
    const auto method = std::make_shared<auth::X509Method>(std::make_shared<const crypto::TrustStore>(std::vector{root.certificate}, std::vector<crypto::RevocationList>()),
                                                           std::vector<auth::X509Method::Entry>{{.label = "x", .subject = "", .attributes = std::make_shared<const auth::Attributes>(auth::Attributes{{"role", "admin"}})}}, "test");
    const auto step = method->check({.chain = {nameless}, .now_ms = wall_ms()}, nullptr);
    ASSERT_EQ(step.verdict.kind, auth::Verdict::Kind::accept) << step.verdict.reason_string;
    EXPECT_EQ(step.verdict.principal.attribute("role"), nullptr);
}

TEST(EmptyParts, a_list_of_pages_that_is_there_and_empty_names_none) {
    auto origins = [](const Json& annotations) {
        const Json listener = {{"metadata", {{"name", "l"}, {"namespace", "n"}, {"annotations", annotations}}}, {"spec", {{"ports", Json::array({{{"port", 8080}, {"protocol", "WebSockets"}}})}}}};
        return control::plan_broker(Json::object(), {listener}, 1).ports.at(0).config.origins;
    };
    EXPECT_TRUE(origins(Json::object()).empty()) << "absent: all";
    for (const auto* text : {"", " ", ",", " , "}) EXPECT_EQ(origins({{"penstock.io/websocket-origins", text}}), std::vector<std::string>{""}) << '"' << text << '"';
    EXPECT_EQ(origins({{"penstock.io/websocket-origins", "https://a.example"}}), std::vector<std::string>{"https://a.example"});
}

// RBAC as Kubernetes has it, where empty resourceNames alone mean all.
TEST(EmptyParts, rbac_rules_and_subjects) {
    auto registry = registry::Registry::open(":memory:").value();
    const auto& role = *resources::find_kind("rbac.authorization.k8s.io/v1", "ClusterRole");
    const auto& binding = *resources::find_kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding");
    const api::Authorizer authorizer(*registry);
    const std::vector<api::User> users{{.name = "", .groups = {}}, {.name = "", .groups = {"", "system:authenticated"}}, {.name = "u", .groups = {""}}, {.name = "system:serviceaccount::", .groups = {}}, {.name = "system:serviceaccount:n:", .groups = {}}};
    const std::vector<api::Access> questions{{.verb = "get", .group = "", .resource = "secrets", .name = "x", .name_space = "n"}, {.verb = "list", .group = "", .resource = "secrets"}, {.verb = "get", .path = "/metrics"}, {.verb = "", .group = "", .resource = "secrets"}};
    int number = 0;
    auto allowed = [&](const Json& rules, const Json& subjects, const api::User& user) {
        const auto name = "r" + std::to_string(++number);
        registry->create(role, "", {{"metadata", {{"name", name}}}, {"rules", rules}}).value();
        registry->create(binding, "", {{"metadata", {{"name", name}}}, {"roleRef", {{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", "ClusterRole"}, {"name", name}}}, {"subjects", subjects}}).value();
        const bool out = std::ranges::any_of(questions, [&](const auto& question) { return authorizer.allows(user, question); });
        registry->remove(binding, "", name).value();
        return out;
    };
    const Json everything = Json::array({{{"apiGroups", {"*"}}, {"resources", {"*"}}, {"verbs", {"*"}}}, {{"nonResourceURLs", {"*"}}, {"verbs", {"*"}}}});
    const Json to_u = Json::array({{{"kind", "User"}, {"apiGroup", "rbac.authorization.k8s.io"}, {"name", "u"}}});
    EXPECT_TRUE(allowed(everything, to_u, {.name = "u"}));
    for (const auto& rules : {Json::array(), Json::array({{{"apiGroups", {""}}, {"resources", {"*"}}, {"verbs", Json::array()}}}), Json::array({{{"apiGroups", {""}}, {"resources", Json::array()}, {"verbs", {"*"}}}}), Json::array({{{"apiGroups", Json::array()}, {"resources", {"*"}}, {"verbs", {"*"}}}}),
                              Json::array({{{"nonResourceURLs", Json::array()}, {"verbs", {"*"}}}})}) {
        const auto name = "none" + std::to_string(++number);
        if (!registry->create(role, "", {{"metadata", {{"name", name}}}, {"rules", rules}}, {.dry_run = true})) continue;   // refused with its field is as good
        EXPECT_FALSE(allowed(rules, to_u, {.name = "u"})) << rules.dump();
    }
    for (const auto& subject : {Json{{"kind", "User"}, {"name", ""}}, Json{{"kind", "Group"}, {"name", ""}}, Json{{"kind", "ServiceAccount"}, {"name", ""}, {"namespace", ""}}, Json{{"kind", "ServiceAccount"}, {"name", ""}, {"namespace", "n"}}, Json{{"kind", ""}, {"name", "u"}}})
        for (const auto& user : users) {
            const auto dry = registry->create(binding, "", {{"metadata", {{"name", "dry"}}}, {"roleRef", {{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", "ClusterRole"}, {"name", "r1"}}}, {"subjects", Json::array({subject})}}, {.dry_run = true});
            if (!dry) continue;
            EXPECT_FALSE(allowed(everything, Json::array({subject}), user)) << subject.dump() << " " << user.name;
        }
}

}  // namespace
}  // namespace penstock
