// What `penstock apply` says it did, whoever else writes meanwhile.
#include <gtest/gtest.h>

#include "client/apply.h"
#include "harness/api_transport.h"

namespace penstock {
namespace {

using resources::Json;

/// A controller writes the status between the client's look at the object and its write.
struct BusyTransport final : test::ApiTransport {
    using test::ApiTransport::ApiTransport;
    std::function<void()> meanwhile;
    Result<client::Response> request(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type, const std::string& accept) override {
        if (method == "PATCH" && meanwhile) meanwhile();
        return ApiTransport::request(method, target, body, content_type, accept);
    }
};

TEST(Apply, says_unchanged_though_a_controller_wrote_the_status_meanwhile) {
    for (const bool server_side : {false, true}) {
        test::ApiWorld world;
        BusyTransport transport(world);
        client::Kinds kinds(transport);
        const std::string name_space = "azure-iot-operations";
        const auto& kind = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener");
        auto apply = [&](const std::string& ports) {
            const auto documents = resources::parse_documents("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {name: plant}\nspec: {brokerRef: default, ports: [" + ports + "]}\n", "l.yaml").value();
            return client::apply_document(transport, kinds, documents.front(), {.name_space = name_space, .server_side = server_side});
        };
        EXPECT_EQ(apply("{port: 1883}").outcome, "created");
        EXPECT_EQ(apply("{port: 1883}").outcome, "unchanged");
        int written = 0;
        transport.meanwhile = [&] {
            ++written;
            world.registry->patch(kind, name_space, "plant", registry::PatchType::merge, {{"status", {{"runtimeStatus", {{"status", "Running"}, {"description", std::to_string(written)}}}}}}, true).value();
        };
        EXPECT_EQ(apply("{port: 1883}").outcome, "unchanged") << server_side;
        EXPECT_EQ(apply("{port: 1884}").outcome, "configured") << server_side;
        EXPECT_EQ(written, 2) << "what is the same but for defaults is asked of the server";
    }
}

// Whatever others write between the look and the write: what apply did not change is unchanged.
TEST(Apply, says_configured_only_of_what_it_changed_itself) {
    constexpr const char* name_space = "azure-iot-operations";
    const auto& kind = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener");
    struct Case {
        const char* what;
        Json written;                    ///< by somebody else meanwhile
        const char *before, *after;      ///< what stands in the file, at first and then
        const char* outcome;
    };
    const Case cases[] = {
        {"a controller marks the object", {{"metadata", {{"annotations", {{"plant.example/seen", "1"}}}}}},
         "{brokerRef: default, ports: [{port: 1883}]}", "{brokerRef: default, ports: [{port: 1883}]}", "unchanged"},
        {"another sets a field that the file leaves out", {{"spec", {{"serviceType", "LoadBalancer"}}}},
         "{brokerRef: default, ports: [{port: 1883}]}", "{brokerRef: default, ports: [{port: 1883}]}", "unchanged"},
        {"another puts a finalizer there", {{"metadata", {{"finalizers", {"plant.example/held"}}}}},
         "{brokerRef: default, ports: [{port: 1883}]}", "{brokerRef: default, ports: [{port: 1883}]}", "unchanged"},
        {"the file has another value", {{"metadata", {{"annotations", {{"plant.example/seen", "1"}}}}}},
         "{brokerRef: default, ports: [{port: 1883}]}", "{brokerRef: default, ports: [{port: 1884}]}", "configured"},
        {"the file has one field more", {{"metadata", {{"annotations", {{"plant.example/seen", "1"}}}}}},
         "{brokerRef: default, ports: [{port: 1883}]}",
         "{brokerRef: default, serviceName: gate, ports: [{port: 1883}]}", "configured"},
        {"the file has one field less", {{"metadata", {{"annotations", {{"plant.example/seen", "1"}}}}}},
         "{brokerRef: default, serviceName: gate, ports: [{port: 1883}]}",
         "{brokerRef: default, ports: [{port: 1883}]}", "configured"},
    };
    for (const bool server_side : {false, true})
        for (const auto& one : cases) {
            SCOPED_TRACE(std::string(one.what) + (server_side ? ", server-side" : ", client-side"));
            test::ApiWorld world;
            BusyTransport transport(world);
            client::Kinds kinds(transport);
            auto apply = [&](const char* spec) {
                const auto text = std::string("apiVersion: mqttbroker.iotoperations.azure.com/v1\n"
                                              "kind: BrokerListener\nmetadata: {name: plant}\nspec: ") + spec + "\n";
                const auto documents = resources::parse_documents(text, "l.yaml").value();
                const auto done = client::apply_document(transport, kinds, documents.front(),
                                                         {.name_space = name_space, .server_side = server_side});
                EXPECT_EQ(done.error, "");
                return done.outcome;
            };
            EXPECT_EQ(apply(one.before), "created");
            transport.meanwhile = [&] {
                world.registry->patch(kind, name_space, "plant", registry::PatchType::merge, one.written, false).value();
            };
            EXPECT_EQ(apply(one.after), one.outcome);
            transport.meanwhile = nullptr;
            EXPECT_EQ(apply(one.after), "unchanged");
        }
}

/// Keeps what is asked for.
struct SeenTransport final : test::ApiTransport {
    using test::ApiTransport::ApiTransport;
    std::vector<std::string> seen;
    Result<client::Response> request(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type, const std::string& accept) override {
        seen.push_back(method + " " + target);
        return ApiTransport::request(method, target, body, content_type, accept);
    }
};

resources::Document map_of(const std::string& metadata) {
    return resources::parse_documents("apiVersion: v1\nkind: ConfigMap\nmetadata: " + metadata + "\n", "m.yaml").value().front();
}

// The path of an object whose name has a '/' is that of another one, or of all (apimachinery, IsValidPathSegmentName).
TEST(Apply, a_name_that_is_none_is_asked_for_nowhere) {
    test::ApiWorld world;
    SeenTransport transport(world);
    client::Kinds kinds(transport);
    for (const char* metadata : {"{name: a/b}", "{name: keep/}", "{name: a%2Fb}", "{name: .}", "{name: ..}", "{name: a, namespace: raw/configmaps}", "{name: a, namespace: ..}",
                                 "{name: a, namespace: 5}", "{name: 5}", "{name: a, namespace: [x]}"}) {
        const auto document = map_of(metadata);
        for (const bool server_side : {false, true}) {
            const auto done = client::apply_document(transport, kinds, document, {.name_space = "default", .server_side = server_side});
            EXPECT_NE(done.error.find("metadata.name"), std::string::npos) << metadata << ": " << done.error;
            EXPECT_EQ(done.refusal, client::Refusal::faulty) << metadata;
        }
        const auto gone = client::delete_document(transport, kinds, document, "default");
        EXPECT_TRUE(gone.error.starts_with("metadata.name")) << metadata << ": " << gone.error;
    }
    const auto gone = client::delete_document(transport, kinds, map_of("{name: a}"), "raw/x");
    EXPECT_NE(gone.error.find("is no name of an object"), std::string::npos) << gone.error;
    EXPECT_TRUE(transport.seen.empty()) << transport.seen.front();
}

// As kubectl has it.
TEST(Apply, an_empty_namespace_is_the_default_one) {
    test::ApiWorld world;
    SeenTransport transport(world);
    client::Kinds kinds(transport);
    for (const char* metadata : {"{name: a, namespace: ''}", "{name: a, namespace: null}", "{name: a}"}) {
        for (const bool server_side : {false, true}) {
            const auto done = client::apply_document(transport, kinds, map_of(metadata), {.name_space = "default", .server_side = server_side});
            EXPECT_TRUE(done.error.empty()) << metadata << ": " << done.error;
        }
        EXPECT_TRUE(world.registry->get(*resources::find_kind("v1", "ConfigMap"), "default", "a"));
        EXPECT_EQ(client::delete_document(transport, kinds, map_of(metadata), "default").outcome, "deleted");
    }
}

}  // namespace
}  // namespace penstock
