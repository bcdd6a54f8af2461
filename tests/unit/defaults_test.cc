// What Penstock makes by itself yields to the first file or person, whichever way they write.
#include <gtest/gtest.h>

#include "api/authorizer.h"
#include "client/apply.h"
#include "control/objects.h"
#include "harness/api_transport.h"

namespace penstock {
namespace {

using resources::Json;
using resources::text_at;

constexpr const char* space = "azure-iot-operations";
const resources::Kind& broker_kind() { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker"); }
const resources::Kind& listener_kind() { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener"); }
const resources::Kind& authentication_kind() { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerAuthentication"); }

const Json default_listener = {{"brokerRef", "default"}, {"serviceType", "ClusterIp"}, {"serviceName", "aio-broker"}, {"ports", {{{"port", 18883}, {"authenticationRef", "default"}}}}};
const Json token_method = {{"method", "ServiceAccountToken"}, {"serviceAccountTokenSettings", {{"audiences", {"aio-internal"}}}}};

class Defaults : public testing::Test {
  protected:
    void SetUp() override {
        seed(broker_kind(), Json::object({{"memoryProfile", "Medium"}}));
        seed(authentication_kind(), {{"brokerRef", "default"}, {"authenticationMethods", Json::array({token_method})}});
        seed(listener_kind(), default_listener);
    }
    void seed(const resources::Kind& kind, const Json& spec) {
        const auto made = world.registry->seed(kind, space, {{"metadata", {{"name", "default"}}}, {"spec", spec}});
        ASSERT_TRUE(made) << made.error().message;
    }
    client::Applied apply(const std::string& yaml, bool server_side, const std::string& manager, bool force = false) {
        client::Kinds kinds(api);
        const auto documents = resources::parse_documents(yaml, "f.yaml").value();
        return client::apply_document(api, kinds, documents.front(), {.name_space = space, .server_side = server_side, .force = force, .manager = manager});
    }
    Json live(const resources::Kind& kind, const char* name = "default") { return world.registry->get(kind, space, name) ? **world.registry->get(kind, space, name) : Json(); }
    bool exists(const resources::Kind& kind, const char* name) { return world.registry->get(kind, space, name).has_value(); }

    test::ApiWorld world;
    test::ApiTransport api{world};
};

const std::string tuned_broker = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\n"
                                 "spec: {memoryProfile: Tiny, diagnostics: {logs: {level: debug}, metrics: {prometheusPort: 9700}, selfCheck: {mode: Disabled}, traces: {mode: Disabled}}}\n";
const std::string own_listener = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: default}\nspec: {brokerRef: default, serviceType: LoadBalancer, ports: [{port: 1883}]}\n";

TEST_F(Defaults, a_file_that_comes_later_meets_no_conflict) {
    EXPECT_EQ(apply(tuned_broker, true, "penstock-files").error, "");
    EXPECT_EQ(live(broker_kind())["spec"]["memoryProfile"], "Tiny");
    EXPECT_EQ(live(broker_kind())["spec"]["diagnostics"]["metrics"]["prometheusPort"], 9700);
    EXPECT_EQ(apply(tuned_broker, true, "penstock-files").outcome, "unchanged");
}

TEST_F(Defaults, a_whole_manifest_gives_what_it_would_have_given_without_the_default) {
    EXPECT_EQ(apply(own_listener, true, "penstock-files").error, "");
    const auto spec = live(listener_kind())["spec"];
    ASSERT_EQ(spec["ports"].size(), 1u) << "the default's port stays open beside the file's: " << spec.dump();
    EXPECT_EQ(spec["ports"][0]["port"], 1883);
    EXPECT_FALSE(spec["ports"][0].contains("authenticationRef"));
    EXPECT_EQ(spec["serviceName"], "default");
    const auto listener = live(listener_kind());   // the loop below reads it
    for (const auto& entry : listener["metadata"]["managedFields"]) EXPECT_NE(text_at(entry, "manager"), registry::defaults_manager);
}

TEST_F(Defaults, a_part_of_a_manifest_is_laid_over_the_default) {
    const auto done = apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: default}\nspec: {serviceType: LoadBalancer}\n", true, "me");
    EXPECT_EQ(done.error, "");
    EXPECT_EQ(live(listener_kind())["spec"]["serviceType"], "LoadBalancer");
    EXPECT_EQ(live(listener_kind())["spec"]["ports"][0]["port"], 18883);
    EXPECT_EQ(live(listener_kind())["spec"]["serviceName"], "aio-broker");
}

TEST_F(Defaults, each_way_of_writing_takes_over_without_a_conflict_and_then_owns) {
    const auto target = client::path_of(broker_kind(), space, "default");
    const Json low = {{"spec", {{"memoryProfile", "Low"}}}};
    auto file = [&] { return apply(tuned_broker, true, "penstock-files"); };
    auto again = [&] {
        ASSERT_TRUE(world.registry->remove(broker_kind(), space, "default"));
        seed(broker_kind(), Json::object());
    };
    // kubectl patch, edit (a PUT of what was read) and client-side apply: each goes through, and a file then meets the person.
    EXPECT_TRUE(api.request("PATCH", target + "?fieldManager=kubectl-patch", low.dump(), "application/merge-patch+json")->ok());
    EXPECT_EQ(file().refusal, client::Refusal::owned);
    EXPECT_NE(file().error.find("\"kubectl-patch\""), std::string::npos);
    EXPECT_EQ(file().error.find(registry::defaults_manager), std::string::npos) << "the default is no party to a conflict";
    again();
    auto read = live(broker_kind());
    read["spec"]["memoryProfile"] = "Low";
    EXPECT_TRUE(api.request("PUT", target + "?fieldManager=kubectl-edit", read.dump())->ok());
    EXPECT_EQ(file().refusal, client::Refusal::owned);
    again();
    const std::string low_manifest = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\nspec: {memoryProfile: Low}\n";
    EXPECT_EQ(apply(low_manifest, false, "kubectl-client-side-apply").outcome, "configured");
    EXPECT_EQ(file().refusal, client::Refusal::owned);
    again();
    EXPECT_EQ(apply(low_manifest, true, "kubectl").outcome, "configured");
    EXPECT_EQ(file().refusal, client::Refusal::owned);
    EXPECT_EQ(apply(tuned_broker, true, "penstock-files", true).error, "") << "and gives it back by force";
    again();
    EXPECT_EQ(file().error, "");
}

TEST_F(Defaults, the_untouched_default_makes_way_for_a_broker_of_another_name) {
    EXPECT_EQ(apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: plant}\nspec: {memoryProfile: Tiny}\n", true, "penstock-files").error, "");
    EXPECT_TRUE(exists(broker_kind(), "plant"));
    EXPECT_FALSE(exists(broker_kind(), "default"));
    EXPECT_FALSE(exists(listener_kind(), "default"));
    EXPECT_FALSE(exists(authentication_kind(), "default"));
}

// The broker's controller marks each listener as its Broker's: that is no person's change.
TEST_F(Defaults, the_mark_of_a_controller_touches_no_default) {
    control::LocalObjects objects(*world.registry);
    const Json owner = {{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"kind", "Broker"}, {"name", "default"}, {"uid", text_at(live(broker_kind()), "metadata.uid")}};
    const Json patch = Json::object({{"metadata", Json::object({{"ownerReferences", Json::array({owner})}})}});
    const auto marked = objects.patch(listener_kind(), space, "default", registry::PatchType::merge, patch, "penstock-broker");
    ASSERT_TRUE(marked) << marked.error().message;
    EXPECT_TRUE(registry::is_untouched_default(live(listener_kind())));
    EXPECT_EQ(apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: plant}\nspec: {memoryProfile: Tiny}\n", true, "penstock-files").error, "");
    EXPECT_FALSE(exists(broker_kind(), "default"));
    EXPECT_FALSE(exists(listener_kind(), "default"));
}

TEST_F(Defaults, a_default_that_somebody_uses_or_changed_stays) {
    const std::string plant = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: plant}\nspec: {}\n";
    ASSERT_EQ(apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: mine}\nspec: {brokerRef: default, serviceType: NodePort, ports: [{port: 31883}]}\n", true, "me").error, "");
    EXPECT_NE(apply(plant, true, "penstock-files").error.find("Broker default exists; one per namespace is allowed"), std::string::npos);
    EXPECT_TRUE(exists(broker_kind(), "default"));
    ASSERT_TRUE(world.registry->remove(listener_kind(), space, "mine"));
    ASSERT_TRUE(api.request("PATCH", client::path_of(broker_kind(), space, "default") + "?fieldManager=kubectl-label", R"({"metadata":{"labels":{"mine":"yes"}}})", "application/merge-patch+json")->ok());
    EXPECT_NE(apply(plant, true, "penstock-files").error, "");
    EXPECT_TRUE(exists(broker_kind(), "default"));
}

TEST_F(Defaults, the_untouched_listener_makes_way_for_one_that_could_not_stand_beside_it) {
    auto own = [&](const std::string& name, const std::string& spec) {
        return apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: " + name + "}\nspec: {brokerRef: default, " + spec + "}\n", true, "penstock-files").error;
    };
    EXPECT_EQ(own("wide", "serviceType: LoadBalancer, ports: [{port: 8883}]"), "");
    EXPECT_TRUE(exists(listener_kind(), "default")) << "both may be there";
    // A refused object moves nothing; a dry run neither.
    EXPECT_NE(own("same-type", "ports: [{port: 99999}]"), "");
    EXPECT_TRUE(exists(listener_kind(), "default"));
    EXPECT_TRUE(api.request("POST", client::path_of(listener_kind(), space) + "?dryRun=All", R"({"metadata":{"name":"try"},"spec":{"brokerRef":"default","ports":[{"port":1883}]}})")->ok());
    EXPECT_TRUE(exists(listener_kind(), "default"));
    EXPECT_EQ(own("same-type", "ports: [{port: 1883}]"), "");
    EXPECT_FALSE(exists(listener_kind(), "default"));
    EXPECT_NE(own("third", "ports: [{port: 1884}]"), "") << "what is no default is not moved";
}

TEST_F(Defaults, the_listener_stays_where_the_broker_allows_several_of_a_type) {
    ASSERT_TRUE(api.request("PATCH", client::path_of(broker_kind(), space, "default"), R"({"metadata":{"annotations":{"penstock.io/listeners-per-service-type":"Any"}}})", "application/merge-patch+json")->ok());
    EXPECT_EQ(apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: second}\nspec: {brokerRef: default, ports: [{port: 1883}]}\n", true, "penstock-files").error, "");
    EXPECT_TRUE(exists(listener_kind(), "default"));
    EXPECT_EQ(apply("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: third}\nspec: {brokerRef: default, ports: [{port: 18883}]}\n", true, "penstock-files").error, "");
    EXPECT_FALSE(exists(listener_kind(), "default")) << "the port cannot be both's";
}

TEST_F(Defaults, a_seed_leaves_alone_what_is_there) {
    ASSERT_EQ(apply(tuned_broker, true, "penstock-files").error, "");
    seed(broker_kind(), Json::object());
    EXPECT_EQ(live(broker_kind())["spec"]["memoryProfile"], "Tiny");
}

TEST(Seeds, roles_and_namespaces_can_be_taken_over) {
    test::ApiWorld world;
    test::ApiTransport api(world);
    api::Authorizer::bootstrap(*world.registry);
    auto apply = [&](const std::string& target, const std::string& yaml) { return api.request("PATCH", target + "?fieldManager=me", yaml, "application/apply-patch+yaml"); };
    const auto view = apply("/apis/rbac.authorization.k8s.io/v1/clusterroles/view", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: view}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n");
    ASSERT_TRUE(view->ok()) << view->message();
    EXPECT_EQ(view->body["rules"].size(), 1u);
    EXPECT_EQ(view->body["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    const auto edit = apply("/apis/rbac.authorization.k8s.io/v1/clusterroles/edit", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: edit, labels: {mine: \"1\"}}\n");
    ASSERT_TRUE(edit->ok()) << edit->message();
    EXPECT_GT(edit->body["rules"].size(), 1u) << "a label takes no rule away";
    const auto label = apply("/api/v1/namespaces/azure-iot-operations", "apiVersion: v1\nkind: Namespace\nmetadata: {name: azure-iot-operations, labels: {mine: \"1\"}}\n");
    ASSERT_TRUE(label->ok()) << label->message();
    api::Authorizer::bootstrap(*world.registry);
    EXPECT_EQ((**world.registry->get(*resources::find_kind("rbac.authorization.k8s.io/v1", "ClusterRole"), "", "view"))["rules"].size(), 1u) << "the next start leaves it";
}

TEST(Seeds, objects_that_an_older_version_made_yield_too) {
    const auto file = testing::TempDir() + "/penstock-seeds.sqlite";
    for (const char* suffix : {"", "-wal", "-shm", ".mark"}) std::remove((file + suffix).c_str());
    {
        auto registry = registry::Registry::open(file).value();
        ASSERT_TRUE(registry->create(broker_kind(), space, {{"metadata", {{"name", "default"}}}, {"spec", Json::object()}}, {.manager = "penstock"}));
        ASSERT_TRUE(registry->put_status(broker_kind(), space, "default", [](const Json&) { return Json{{"runtimeStatus", {{"status", "Running"}}}}; }, "penstock-broker"));
        ASSERT_TRUE(registry->create(*resources::find_kind("v1", "ConfigMap"), space, {{"metadata", {{"name", "own"}}}, {"data", {{"a", "1"}}}}, {.manager = "penstock"}));
    }
    auto registry = registry::Registry::open(file).value();
    const Json wanted = {{"apiVersion", broker_kind().api_version()}, {"kind", "Broker"}, {"metadata", {{"name", "default"}}}, {"spec", {{"memoryProfile", "Tiny"}, {"diagnostics", {{"metrics", {{"prometheusPort", 9700}}}}}}}};
    const auto applied = registry->patch(broker_kind(), space, "default", registry::PatchType::apply, wanted, false, {.manager = "penstock-files"});
    ASSERT_TRUE(applied) << applied.error().message;
    EXPECT_EQ((**applied)["status"]["runtimeStatus"]["status"], "Running");
    const Json map = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "own"}}}, {"data", {{"a", "2"}}}};
    EXPECT_FALSE(registry->patch(*resources::find_kind("v1", "ConfigMap"), space, "own", registry::PatchType::apply, map, false, {.manager = "penstock-files"})) << "what a person wrote with the command line is no default";
    for (const char* suffix : {"", "-wal", "-shm", ".mark"}) std::remove((file + suffix).c_str());
}

}  // namespace
}  // namespace penstock
