// Strategic merge, server-side apply and protobuf bodies, against their definitions.
#include <gtest/gtest.h>

#include <random>

#include "registry/registry.h"
#include "resources/merge.h"
#include "resources/protobuf.h"

namespace penstock {
namespace {

using registry::Registry;
using resources::FieldSet;
using resources::Json;

const resources::Kind& service_kind() { return *resources::find_kind("v1", "Service"); }
const resources::Kind& map_kind() { return *resources::find_kind("v1", "ConfigMap"); }
const resources::Kind& pod_kind() { return *resources::find_kind("v1", "Pod"); }
constexpr const char* space = "default";

Json strategic(Json target, const Json& patch, const resources::Kind& kind = service_kind()) {
    const auto done = resources::strategic_patch(target, patch, kind.schema);
    EXPECT_TRUE(done) << (done ? "" : done.error().message);
    return target;
}

TEST(StrategicMerge, lists_merge_by_their_key) {
    const Json live = {{"spec", {{"ports", {{{"port", 80}, {"name", "a"}}, {{"port", 81}, {"name", "b"}}}}}}};
    EXPECT_EQ(strategic(live, {{"spec", {{"ports", {{{"port", 81}, {"name", "c"}}, {{"port", 82}}}}}}})["spec"]["ports"],
              (Json{{{"port", 80}, {"name", "a"}}, {{"port", 81}, {"name", "c"}}, {{"port", 82}}}));
    EXPECT_EQ(strategic(live, {{"spec", {{"ports", {{{"port", 80}, {"$patch", "delete"}}}}}}})["spec"]["ports"], (Json{{{"port", 81}, {"name", "b"}}}));
    EXPECT_EQ(strategic(live, {{"spec", {{"ports", {{{"$patch", "replace"}}, {{"port", 9}}}}}}})["spec"]["ports"], (Json{{{"port", 9}}}));
}

TEST(StrategicMerge, directives) {
    const Json live = {{"metadata", {{"finalizers", {"a", "b"}}, {"labels", {{"x", "1"}, {"y", "2"}}}}}, {"spec", {{"selector", {{"a", "1"}, {"b", "2"}}}}}};
    EXPECT_EQ(strategic(live, {{"metadata", {{"$deleteFromPrimitiveList/finalizers", {"a"}}}}})["metadata"]["finalizers"], (Json{"b"}));
    EXPECT_EQ(strategic(live, {{"metadata", {{"finalizers", {"c"}}, {"$setElementOrder/finalizers", {"c", "a", "b"}}}}})["metadata"]["finalizers"], (Json{"a", "b", "c"}));
    EXPECT_EQ(strategic(live, {{"metadata", {{"labels", {{"$retainKeys", {"y"}}, {"z", "3"}}}}}})["metadata"]["labels"], (Json{{"y", "2"}, {"z", "3"}}));
    EXPECT_EQ(strategic(live, {{"spec", {{"selector", {{"$patch", "replace"}, {"c", "3"}}}}}})["spec"]["selector"], (Json{{"c", "3"}}));
    EXPECT_FALSE(strategic(live, {{"spec", {{"selector", {{"$patch", "delete"}}}}}})["spec"].contains("selector"));
    EXPECT_EQ(strategic(live, {{"metadata", {{"labels", nullptr}}}})["metadata"].contains("labels"), false);
    auto target = live;
    const auto bad = resources::strategic_patch(target, {{"spec", {{"ports", {{{"name", "no key"}}}}}}}, service_kind().schema);
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().message.find("spec.ports[0]: does not contain declared merge key: port"), std::string::npos) << bad.error().message;
    target = live;
    EXPECT_FALSE(resources::strategic_patch(target, {{"spec", {{"$patch", "explode"}}}}, service_kind().schema));
}

TEST(StrategicMerge, nested_lists_of_a_pod) {
    const Json live = {{"spec", {{"containers", {{{"name", "a"}, {"image", "1"}, {"env", {{{"name", "X"}, {"value", "1"}}}}}}}}}};
    const auto out = strategic(live, {{"spec", {{"containers", {{{"name", "a"}, {"env", {{{"name", "Y"}, {"value", "2"}}}}}}}}}}, pod_kind());
    EXPECT_EQ(out["spec"]["containers"][0]["image"], "1");
    EXPECT_EQ(out["spec"]["containers"][0]["env"].size(), 2u);
}

class ServerSideApply : public testing::Test {
  protected:
    std::unique_ptr<Registry> r = Registry::open(":memory:").value();
    registry::Answer<registry::ObjectRef> apply(const std::string& manager, Json body, bool force = false, const resources::Kind& kind = map_kind()) {
        body["apiVersion"] = kind.api_version();
        body["kind"] = kind.kind;
        return r->patch(kind, space, "m", registry::PatchType::apply, body, false, {.manager = manager, .force = force});
    }
    Json live(const resources::Kind& kind = map_kind()) { return **r->get(kind, space, "m"); }
};

TEST_F(ServerSideApply, creates_merges_and_removes_what_left) {
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}, {"b", "1"}}}}));
    ASSERT_TRUE(apply("two", {{"data", {{"c", "1"}}}}));
    EXPECT_EQ(live()["data"], (Json{{"a", "1"}, {"b", "1"}, {"c", "1"}}));
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}}}}));
    EXPECT_EQ(live()["data"], (Json{{"a", "1"}, {"c", "1"}})) << "b had no other owner";
    ASSERT_TRUE(apply("two", {{"data", {{"a", "1"}, {"c", "1"}}}}));
    ASSERT_TRUE(apply("one", {{"metadata", {{"labels", {{"x", "y"}}}}}}));
    EXPECT_EQ(live()["data"], (Json{{"a", "1"}, {"c", "1"}})) << "a is still owned by two";
}

TEST_F(ServerSideApply, a_conflict_names_manager_and_field_and_writes_nothing) {
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}, {"b", "1"}}}}));
    const auto version = r->version();
    const auto refused = apply("two", {{"data", {{"a", "2"}, {"b", "1"}, {"c", "3"}}}});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, 409);
    EXPECT_EQ(refused.error().message, "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.a");
    EXPECT_EQ(refused.error().details["causes"][0]["reason"], "FieldManagerConflict");
    EXPECT_EQ(r->version(), version);
    ASSERT_TRUE(apply("two", {{"data", {{"a", "2"}}}}, true));
    EXPECT_EQ(live()["data"]["a"], "2");
    ASSERT_TRUE(apply("one", {{"data", {{"b", "1"}}}})) << "one lost a by force and may leave it out";
    EXPECT_EQ(live()["data"]["a"], "2");
}

TEST_F(ServerSideApply, the_same_again_is_no_write) {
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}}}}));
    const auto version = r->version();
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}}}}));
    EXPECT_EQ(r->version(), version);
}

TEST_F(ServerSideApply, ordinary_writes_own_what_they_change) {
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}, {"b", "1"}}}}));
    ASSERT_TRUE(r->patch(map_kind(), space, "m", registry::PatchType::merge, {{"data", {{"a", "2"}}}}, false, {.manager = "kubectl-patch"}));
    const auto refused = apply("one", {{"data", {{"a", "1"}, {"b", "1"}}}});
    ASSERT_FALSE(refused) << "a person changed a: that is not silently fought over";
    EXPECT_NE(refused.error().message.find("\"kubectl-patch\""), std::string::npos) << refused.error().message;
    ASSERT_TRUE(r->patch(map_kind(), space, "m", registry::PatchType::merge, {{"data", {{"a", nullptr}}}}, false, {.manager = "kubectl-patch"}));
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}, {"b", "1"}}}})) << "what vanished belongs to nobody";
}

TEST_F(ServerSideApply, keyed_lists_are_owned_item_by_item) {
    const auto& kind = service_kind();
    ASSERT_TRUE(apply("one", {{"spec", {{"ports", {{{"name", "a"}, {"port", 80}, {"protocol", "TCP"}}}}}}}, false, kind));
    ASSERT_TRUE(apply("two", {{"spec", {{"ports", {{{"name", "b"}, {"port", 81}}}}}}}, false, kind)) << "the key's default is filled in";
    EXPECT_EQ(live(kind)["spec"]["ports"].size(), 2u);
    const auto refused = apply("two", {{"spec", {{"ports", {{{"name", "x"}, {"port", 80}, {"protocol", "TCP"}}}}}}}, false, kind);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find(".spec.ports[port=80,protocol=\"TCP\"].name"), std::string::npos) << refused.error().message;
    ASSERT_TRUE(apply("two", {{"metadata", {{"labels", {{"x", "y"}}}}}}, false, kind));
    EXPECT_EQ(live(kind)["spec"]["ports"].size(), 1u) << "the item went with its only owner";
    const auto twice = apply("three", {{"spec", {{"ports", {{{"port", 90}}, {{"port", 90}}}}}}}, false, kind);
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().code, 422);
}

TEST_F(ServerSideApply, defaults_of_an_object_go_with_it) {
    const auto& broker = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker");
    auto body = [](Json spec) { return Json{{"metadata", {{"name", "main"}}}, {"spec", std::move(spec)}}; };
    auto apply_broker = [&](const std::string& manager, Json spec) {
        auto object = body(std::move(spec));
        object["apiVersion"] = broker.api_version();
        object["kind"] = broker.kind;
        return r->patch(broker, space, "main", registry::PatchType::apply, object, false, {.manager = manager});
    };
    const auto persistent = Json{{"maxSize", "1G"}, {"retain", {{"mode", "All"}}}};
    ASSERT_TRUE(apply_broker("a", {{"memoryProfile", "Low"}, {"persistence", persistent}}));
    ASSERT_EQ((**r->get(broker, space, "main"))["spec"]["persistence"]["encryption"]["mode"], "Enabled");   // filled in
    const auto done = apply_broker("a", {{"memoryProfile", "Low"}});
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_FALSE((**r->get(broker, space, "main"))["spec"].contains("persistence"));
    // Not what somebody else put there.
    ASSERT_TRUE(apply_broker("a", {{"memoryProfile", "Low"}, {"persistence", persistent}}));
    ASSERT_TRUE(apply_broker("b", {{"persistence", {{"maxSize", "1G"}, {"encryption", {{"mode", "Enabled"}}}}}}));
    ASSERT_TRUE(apply_broker("a", {{"memoryProfile", "Low"}}));
    EXPECT_EQ((**r->get(broker, space, "main"))["spec"]["persistence"], (Json{{"maxSize", "1G"}, {"encryption", {{"mode", "Enabled"}}}}));
}

TEST_F(ServerSideApply, what_it_refuses) {
    EXPECT_EQ(apply("", {{"data", {{"a", "1"}}}}).error().code, 422) << "fieldManager is required";
    EXPECT_EQ(apply("one", {{"metadata", {{"managedFields", {{{"manager", "x"}}}}}}}).error().code, 400);
    EXPECT_EQ(apply("one", {{"metadata", {{"name", "other"}}}}).error().code, 400);
    const auto bare = r->patch(map_kind(), space, "m", registry::PatchType::apply, {{"data", {{"a", "1"}}}}, false, {.manager = "x"});
    EXPECT_EQ(bare.error().code, 400) << "apiVersion and kind are needed";
}

TEST_F(ServerSideApply, managed_fields_can_be_rewritten_and_cleared) {
    ASSERT_TRUE(apply("one", {{"data", {{"a", "1"}}}}));
    auto object = live();
    object["metadata"]["managedFields"][0]["manager"] = "renamed";
    ASSERT_TRUE(r->update(map_kind(), space, "m", object, false, {.manager = "x"}));
    EXPECT_EQ(live()["metadata"]["managedFields"][0]["manager"], "renamed");
    object = live();
    object["metadata"]["managedFields"] = Json::array();
    ASSERT_TRUE(r->update(map_kind(), space, "m", object, false, {.manager = "x"}));
    EXPECT_FALSE(live()["metadata"].contains("managedFields"));
    object = live();
    object["metadata"]["managedFields"] = Json::array({{{"operation", "Guess"}}});
    EXPECT_EQ(r->update(map_kind(), space, "m", object, false, {.manager = "x"}).error().code, 422);
}

/// A random configuration over a few names, so that managers meet.
Json random_config(std::mt19937& random) {
    auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    Json out = Json::object();
    for (const char* key : {"a", "b", "c", "d"})
        if (pick(2) == 0) out["spec"]["selector"][key] = std::to_string(pick(2));
    for (int port = 80; port < 84; ++port)
        if (pick(2) == 0) {
            Json item = {{"port", port}, {"protocol", "TCP"}};
            if (pick(2) == 0) item["name"] = std::string("n") + std::to_string(pick(2));
            if (pick(3) == 0) item["nodePort"] = 30'000 + pick(2);
            out["spec"]["ports"].push_back(item);
        }
    for (const char* word : {"x.y/f", "x.y/g"})
        if (pick(2) == 0) out["metadata"]["finalizers"].push_back(word);
    return out;
}

// The definition, said in other words: after a forced apply the object contains the configuration; every path of the
// configuration is owned; what the manager gave up and nobody else owns is gone; what others own and the configuration
// does not name keeps its value.
TEST(ApplyModel, generated_cases_keep_the_rules) {
    const auto& schema = service_kind().schema;
    for (unsigned seed = 1; seed <= 400; ++seed) {
        std::mt19937 random(seed);
        Json live = {{"metadata", {{"name", "m"}}}};
        std::map<std::string, Json> last;
        for (int step = 0; step < 12; ++step) {
            const std::string who = std::string("m") + static_cast<char>('0' + random() % 3);
            const auto config = random_config(random);
            const auto before = live;
            const auto done = registry::apply_configuration(service_kind(), "m", live, config, {.manager = who, .subresource = {}, .force = true});
            ASSERT_TRUE(done) << done.error().message;
            live = *done;
            ASSERT_EQ(resources::merge_applied(live, config, schema), live) << "seed " << seed << ": the object lacks part of " << config.dump() << " in " << live.dump();
            const auto managers = registry::read_managers(live).value();
            FieldSet owned;
            for (const auto& m : managers) owned.add(m.fields);
            auto unowned = FieldSet::of(config, schema);
            unowned.remove(owned);
            ASSERT_TRUE(unowned.empty()) << "seed " << seed << " nobody owns " << unowned.to_json().dump();
            // Nothing exists that nobody owns: all of it came by apply.
            auto orphaned = FieldSet::of(live, schema);
            orphaned.remove(owned);
            ASSERT_TRUE(orphaned.empty()) << "seed " << seed << " left behind " << orphaned.to_json().dump() << " in " << live.dump();
            // Others' fields that this one does not name are as they were.
            last[who] = config;
            for (const auto& [other, theirs] : last) {
                if (other == who) continue;
                auto kept = FieldSet::of(theirs, schema).common_with(FieldSet::of(before, schema));
                kept.remove(FieldSet::of(config, schema));
                auto touched = FieldSet::changed(before, live, schema).common_with(kept);
                ASSERT_TRUE(touched.empty()) << "seed " << seed << " changed " << touched.to_json().dump();
            }
            const auto again = registry::apply_configuration(service_kind(), "m", live, config, {.manager = who, .subresource = {}, .force = false});
            ASSERT_TRUE(again && *again == live) << "seed " << seed << ": applying again is no change";
        }
    }
}

TEST(MergePatch, rfc_7386_examples) {
    const std::vector<std::array<const char*, 3>> cases{
        {R"({"a":"b"})", R"({"a":"c"})", R"({"a":"c"})"}, {R"({"a":"b"})", R"({"b":"c"})", R"({"a":"b","b":"c"})"}, {R"({"a":"b"})", R"({"a":null})", R"({})"},
        {R"({"a":"b","b":"c"})", R"({"a":null})", R"({"b":"c"})"}, {R"({"a":["b"]})", R"({"a":"c"})", R"({"a":"c"})"}, {R"({"a":"c"})", R"({"a":["b"]})", R"({"a":["b"]})"},
        {R"({"a":{"b":"c"}})", R"({"a":{"b":"d","c":null}})", R"({"a":{"b":"d"}})"}, {R"({"a":[{"b":"c"}]})", R"({"a":[1]})", R"({"a":[1]})"}, {R"(["a","b"])", R"(["c","d"])", R"(["c","d"])"},
        {R"({"a":"b"})", R"(["c"])", R"(["c"])"}, {R"({"a":"foo"})", R"(null)", R"(null)"}, {R"({"e":null})", R"({"a":1})", R"({"e":null,"a":1})"}, {R"([1,2])", R"({"a":"b","c":null})", R"({"a":"b"})"},
        {R"({})", R"({"a":{"bb":{"ccc":null}}})", R"({"a":{"bb":{}}})"}};
    for (const auto& [target, patch, result] : cases) {
        auto value = Json::parse(target);
        resources::merge_patch(value, Json::parse(patch));
        EXPECT_EQ(value, Json::parse(result)) << target << " + " << patch;
    }
}

/// A random tree without nulls.
Json random_tree(std::mt19937& random, int depth) {
    Json out = Json::object();
    for (const char* key : {"a", "b", "c"}) {
        const auto pick = random() % 5;
        if (pick == 0) out[key] = static_cast<int>(random() % 3);
        else if (pick == 1) out[key] = Json::array({static_cast<int>(random() % 3), "x"});
        else if (pick == 2 && depth > 0) out[key] = random_tree(random, depth - 1);
    }
    return out;
}

/// The patch that leads from one tree to another, by the definition of RFC 7386.
Json difference(const Json& from, const Json& to) {
    Json out = Json::object();
    for (const auto& [key, value] : from.items())
        if (!to.contains(key)) out[key] = nullptr;
    for (const auto& [key, value] : to.items()) {
        if (!from.contains(key)) out[key] = value;
        else if (from[key].is_object() && value.is_object()) {
            if (auto inner = difference(from[key], value); !inner.empty()) out[key] = inner;
        } else if (from[key] != value) out[key] = value;
    }
    return out;
}

TEST(MergePatch, generated_differences_lead_from_one_to_the_other) {
    std::mt19937 random(11);
    for (int i = 0; i < 2000; ++i) {
        const auto from = random_tree(random, 3), to = random_tree(random, 3);
        const auto patch = difference(from, to);
        auto merged = from;
        resources::merge_patch(merged, patch);
        ASSERT_EQ(merged, to) << from << " + " << patch;
        resources::merge_patch(merged, patch);
        ASSERT_EQ(merged, to) << "twice is once";
        // Without keyed lists and directives a strategic patch is the same.
        auto strategic_result = from;
        ASSERT_TRUE(resources::strategic_patch(strategic_result, patch, Json::object()));
        ASSERT_EQ(strategic_result, to);
    }
}

TEST(StrategicMerge, generated_keyed_lists) {
    std::mt19937 random(12);
    auto ports = [&] {
        std::map<int, Json> out;
        for (int port = 80; port < 85; ++port)
            if (random() % 2 == 0) out[port] = {{"port", port}, {"name", std::string("n") + std::to_string(random() % 3)}};
        return out;
    };
    auto as_list = [](const std::map<int, Json>& items) {
        Json out = Json::array();
        for (const auto& [port, item] : items) out.push_back(item);
        return out;
    };
    for (int i = 0; i < 1000; ++i) {
        const auto from = ports(), to = ports();
        Json changes = Json::array();
        for (const auto& [port, item] : to)
            if (!from.contains(port) || from.at(port) != item) changes.push_back(item);
        for (const auto& [port, item] : from)
            if (!to.contains(port)) changes.push_back({{"port", port}, {"$patch", "delete"}});
        Json object = {{"spec", {{"ports", as_list(from)}}}};
        for (int times = 0; times < 2; ++times) {
            ASSERT_TRUE(resources::strategic_patch(object, {{"spec", {{"ports", changes}}}}, service_kind().schema));
            std::map<int, Json> found;
            for (const auto& item : object["spec"]["ports"]) ASSERT_TRUE(found.emplace(item["port"].get<int>(), item).second) << "a key twice";
            ASSERT_EQ(found, to);
        }
    }
}

TEST(Protobuf, objects_come_back_as_they_were) {
    const std::vector<Json> objects{
        {{"apiVersion", "v1"}, {"kind", "Secret"}, {"metadata", {{"name", "s"}, {"labels", {{"a", "b"}}}, {"creationTimestamp", "2026-01-01T00:00:00Z"}}}, {"data", {{"k", "AAEC"}}}, {"type", "Opaque"}, {"immutable", false}},
        {{"apiVersion", "v1"}, {"kind", "Service"}, {"metadata", {{"name", "s"}}}, {"spec", {{"ports", {{{"port", 80}, {"targetPort", "http"}, {"protocol", "TCP"}}, {{"port", 81}, {"targetPort", 8081}, {"nodePort", 30'001}}}}, {"type", "NodePort"}}}},
        {{"apiVersion", "rbac.authorization.k8s.io/v1"}, {"kind", "ClusterRole"}, {"metadata", {{"name", "r"}}}, {"rules", {{{"verbs", {"get"}}, {"apiGroups", {""}}, {"resources", {"pods"}}}}}},
        {{"apiVersion", "authentication.k8s.io/v1"}, {"kind", "TokenRequest"}, {"metadata", Json::object()}, {"spec", {{"audiences", {"a", "b"}}, {"expirationSeconds", 0}}}},
        {{"apiVersion", "coordination.k8s.io/v1"}, {"kind", "Lease"}, {"metadata", {{"name", "l"}}}, {"spec", {{"holderIdentity", "me"}, {"leaseDurationSeconds", 15}, {"renewTime", "2026-01-01T00:00:01.123456Z"}}}}};
    for (auto object : objects) {
        const auto bytes = resources::encode_protobuf(object);
        ASSERT_TRUE(bytes) << bytes.error().message;
        bool unknown = false;
        const auto back = resources::decode_protobuf(*bytes, unknown);
        ASSERT_TRUE(back) << back.error().message;
        if (object["metadata"].empty()) object.erase("metadata");
        EXPECT_EQ(*back, object);
        for (std::size_t size = 0; size < bytes->size(); ++size) [[maybe_unused]] const auto prefix = resources::decode_protobuf(std::string_view(*bytes).substr(0, size), unknown);
    }
    bool unknown = false;
    EXPECT_FALSE(resources::decode_protobuf(std::string("k8s\0\x0a\x10\x0a\x04", 8) + "apps", unknown)) << "lengths past the end";
    const auto deployment = std::string("k8s\0\x0a\x15\x0a\x07", 8) + "apps/v1\x12\x0a" + "Deployment";
    EXPECT_FALSE(resources::decode_protobuf(deployment, unknown));
    EXPECT_TRUE(unknown) << "a kind without a table is a matter of the media type, not of bad bytes";
}

}  // namespace
}  // namespace penstock
