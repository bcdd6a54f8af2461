// What clients of a Kubernetes API have stumbled over, each as a test on the handler.
#include <gtest/gtest.h>

#include "api/handler.h"
#include "crypto/signature.h"

namespace penstock {
namespace {

using registry::Registry;
using resources::Json;
using resources::text_at;

class Pitfalls : public testing::Test {
  protected:
    std::unique_ptr<Registry> r = Registry::open(":memory:").value();
    api::Tokens tokens{*r, "https://issuer", {}};
    api::Handler handler{*r, tokens, "test"};
    const std::string maps = "/api/v1/namespaces/default/configmaps";
    static constexpr const char* table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

    api::Reply call(const std::string& method, const std::string& path, const Json& body = {}, std::map<std::string, std::string> query = {}, const std::string& accept = "application/json", const std::string& media = "application/json") {
        return handler.handle({.method = method, .path = path, .query = std::move(query), .accept = accept, .content_type = media, .authorization = {}, .user_agent = "kubectl/v1", .if_none_match = {}, .impersonation = {}, .upgrade = {},
                               .body = body.is_null() ? "" : body.dump(), .user = {.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}}});
    }
    Json json(const api::Reply& reply) { return resources::parse_json(reply.body).value(); }
    Json map(const char* name) { return {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", name}}}}; }
};

TEST_F(Pitfalls, a_body_without_content_type_is_json) { EXPECT_EQ(call("POST", maps, map("m"), {}, "application/json", "").status, 201); }

TEST_F(Pitfalls, typed_clients_send_protobuf_and_ask_for_it_first) {
    EXPECT_EQ(api::form_of("application/vnd.kubernetes.protobuf,application/json"), api::Form::plain);
    EXPECT_EQ(api::form_of("application/vnd.kubernetes.protobuf"), api::Form::unacceptable);
    EXPECT_EQ(api::form_of("application/json;as=Unheard;v=v1,application/json"), api::Form::plain) << "an unknown form is passed over, no error";
}

TEST_F(Pitfalls, openapi_v2_protobuf_has_a_type_that_can_be_parsed) {
    const auto reply = call("GET", "/openapi/v2", {}, {}, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    EXPECT_EQ(reply.content_type.find('@'), std::string::npos);
    EXPECT_EQ(reply.body.substr(0, 5), std::string("\x0a\x03") + "2.0");
}

TEST_F(Pitfalls, the_version_is_a_semantic_version) {
    const auto version = json(call("GET", "/version"));
    EXPECT_EQ(version["gitVersion"], "v1.33.0+penstock");
    EXPECT_EQ(version["minor"], "33");
}

TEST_F(Pitfalls, a_write_that_changes_nothing_has_no_version_and_no_event) {
    ASSERT_EQ(call("POST", maps, map("m")).status, 201);
    const auto before = r->version();
    const auto same = call("PATCH", maps + "/m", {{"metadata", {{"labels", Json::object()}}}}, {{"fieldManager", "x"}}, "application/json", "application/merge-patch+json");
    ASSERT_EQ(same.status, 200);
    ASSERT_EQ(call("PATCH", maps + "/m", {{"metadata", {{"annotations", nullptr}}}}, {}, "application/json", "application/merge-patch+json").status, 200);
    EXPECT_LE(r->version(), before + 1) << "an empty map may be written once";
    const auto after = r->version();
    ASSERT_EQ(call("PATCH", maps + "/m", {{"metadata", {{"labels", Json::object()}}}}, {}, "application/json", "application/merge-patch+json").status, 200);
    EXPECT_EQ(r->version(), after);
}

TEST_F(Pitfalls, put_without_version_is_taken_for_built_in_kinds_only) {
    ASSERT_EQ(call("POST", maps, map("m")).status, 201);
    EXPECT_EQ(call("PUT", maps + "/m", map("m")).status, 200);
    const std::string listeners = "/apis/mqttbroker.iotoperations.azure.com/v1/namespaces/azure-iot-operations/brokerlisteners";
    Json listener = {{"metadata", {{"name", "plant"}}}, {"spec", {{"brokerRef", "default"}, {"ports", {{{"port", 1883}}}}}}};
    ASSERT_EQ(call("POST", listeners, listener).status, 201);
    const auto refused = call("PUT", listeners + "/plant", listener);
    EXPECT_EQ(refused.status, 422);
    EXPECT_NE(refused.body.find("must be specified for an update"), std::string::npos);
    EXPECT_EQ(call("PUT", maps + "/none", map("none")).status, 404) << "no creation by update";
    EXPECT_EQ(call("PUT", maps + "/m", map("other")).status, 400) << "the name differs from the path";
}

TEST_F(Pitfalls, null_means_absent_for_every_server_owned_field) {
    auto object = map("m");
    for (const char* field : {"creationTimestamp", "uid", "resourceVersion", "generation", "managedFields", "ownerReferences", "finalizers", "labels", "annotations"}) object["metadata"][field] = nullptr;
    object["data"] = nullptr;
    const auto made = call("POST", maps, object, {{"fieldValidation", "Strict"}});
    EXPECT_EQ(made.status, 201) << made.body;
}

TEST_F(Pitfalls, table_cells_are_never_null_and_fit_the_columns) {
    for (const auto& kind : resources::all_kinds()) {
        const auto object = std::make_shared<const Json>(Json{{"metadata", {{"name", "x"}, {"namespace", "default"}}}});
        const auto shown = api::make_table(kind, {object}, "1", "Metadata", true);
        ASSERT_EQ(shown["columnDefinitions"].size(), shown["rows"][0]["cells"].size()) << kind.kind;
        for (const auto& cell : shown["rows"][0]["cells"]) EXPECT_FALSE(cell.is_null()) << kind.kind;
    }
}

TEST_F(Pitfalls, bookmarks_under_a_table_are_a_table_with_empty_cells) {
    const auto reply = call("GET", maps, {}, {{"watch", "true"}, {"allowWatchBookmarks", "true"}}, table);
    ASSERT_TRUE(reply.watch);
    const auto line = resources::parse_json(handler.bookmark_line(*reply.watch, 7, false)).value();
    EXPECT_EQ(line["object"]["kind"], "Table");
    ASSERT_EQ(line["object"]["rows"].size(), 1u);
    for (const auto& cell : line["object"]["rows"][0]["cells"]) EXPECT_EQ(cell, "");
    EXPECT_EQ(line["object"]["rows"][0]["object"]["metadata"]["resourceVersion"], "7");
}

TEST_F(Pitfalls, initial_events_are_served_or_refused_never_ignored) {
    const auto served = call("GET", maps, {}, {{"watch", "true"}, {"sendInitialEvents", "true"}, {"resourceVersionMatch", "NotOlderThan"}, {"allowWatchBookmarks", "true"}});
    ASSERT_TRUE(served.watch);
    EXPECT_TRUE(served.watch->initial_state && served.watch->mark_initial_end);
    EXPECT_NE(handler.bookmark_line(*served.watch, 1, true).find("\"k8s.io/initial-events-end\":\"true\""), std::string::npos);
    EXPECT_EQ(call("GET", maps, {}, {{"watch", "true"}, {"sendInitialEvents", "true"}}).status, 422);
}

TEST_F(Pitfalls, delete_answers_with_the_object_or_a_status) {
    ASSERT_EQ(call("POST", maps, map("m")).status, 201);
    const auto plain = json(call("DELETE", maps + "/m"));
    EXPECT_EQ(plain["kind"], "Status");
    EXPECT_EQ(plain["details"]["name"], "m");
    ASSERT_EQ(call("POST", "/api/v1/namespaces/default/serviceaccounts", {{"metadata", {{"name", "a"}}}}).status, 201);
    EXPECT_EQ(json(call("DELETE", "/api/v1/namespaces/default/serviceaccounts/a"))["kind"], "ServiceAccount");
}

TEST_F(Pitfalls, strategic_patches_of_custom_kinds_are_415) {
    const auto refused = call("PATCH", "/apis/mqttbroker.iotoperations.azure.com/v1/namespaces/azure-iot-operations/brokerlisteners/x", Json::object(), {}, "application/json", "application/strategic-merge-patch+json");
    EXPECT_EQ(refused.status, 415);
    EXPECT_NE(refused.body.find("UnsupportedMediaType"), std::string::npos);
}

TEST_F(Pitfalls, strict_names_duplicates_and_unknown_fields_warn_does_not_refuse) {
    auto ask = [&](const char* validation) {
        return handler.handle({.method = "POST", .path = maps, .query = {{"fieldValidation", validation}, {"dryRun", "All"}}, .accept = {}, .content_type = "application/json", .authorization = {}, .user_agent = {}, .if_none_match = {}, .impersonation = {},
                               .upgrade = {}, .body = R"({"metadata":{"name":"d"},"data":{"a":"1","a":"2"},"colour":1})", .user = {.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}}});
    };
    const auto strict = ask("Strict");
    EXPECT_EQ(strict.status, 400);
    EXPECT_NE(strict.body.find("duplicate field \\\"data.a\\\""), std::string::npos) << strict.body;
    const auto warned = ask("Warn");
    EXPECT_EQ(warned.status, 201);
    EXPECT_EQ(std::ranges::count_if(warned.headers, [](const auto& header) { return header.first == "Warning"; }), 2);
    EXPECT_TRUE(ask("Ignore").headers.empty());
    EXPECT_EQ(ask("Perhaps").status, 422);
}

}  // namespace
}  // namespace penstock
