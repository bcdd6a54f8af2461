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

}  // namespace
}  // namespace penstock
