#include <gtest/gtest.h>

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <tuple>

#include "api/handler.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/signature.h"
#include "client/apply.h"
#include "control/plan.h"
#include "resources/json_schema.h"
#include "registry/registry.h"

namespace penstock {
namespace {

using registry::Registry;
using resources::Json;
using resources::text_at;

const resources::Kind& broker_kind() { return *resources::find_kind_by_word("broker"); }
const resources::Kind& listener_kind() { return *resources::find_kind_by_word("brokerlisteners"); }
const std::string space = "azure-iot-operations";

Json listener(const std::string& name, const std::string& type, int port) {
    return {{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"kind", "BrokerListener"}, {"metadata", {{"name", name}}},
            {"spec", {{"brokerRef", "default"}, {"serviceType", type}, {"ports", Json::array({{{"port", port}}})}}}};
}

TEST(Yaml, documents_types_and_faults) {
    const auto good = resources::parse_documents("a: 1\nb: 'x'\nc: [true, 1.5, null, \"12\"]\n---\n---\nd: 0x10\n", "f.yaml");
    ASSERT_TRUE(good);
    ASSERT_EQ(good->size(), 2u);
    EXPECT_EQ((*good)[0].object, (Json{{"a", 1}, {"b", "x"}, {"c", {true, 1.5, nullptr, "12"}}}));
    EXPECT_EQ((*good)[1].object["d"], 16);
    EXPECT_EQ((*good)[1].line, 6);
    const auto bad = resources::parse_documents("a: [1\nb: 2\n", "f.yaml");
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().message.find("f.yaml: line"), std::string::npos);
    EXPECT_NE(resources::parse_documents("a: 1\na: 2\n", "f.yaml").error().message.find("\"a\" is given twice"), std::string::npos);
}

// A List is one document, and a fault in it is found by the line of its item, in YAML and JSON, with aliases and comments between.
TEST(Yaml, an_item_of_a_list_is_named_by_its_own_line) {
    const std::string item = "apiVersion: v1, kind: ConfigMap, metadata: {name: ";
    const std::string yaml = "# c\nkind: List\napiVersion: v1\nmetadata: {items: [1, 2]}\nitems:\n- {" + item + "a}}\n\n# c\n- &b\n  " + "apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    name: b\n- {" + item + "c}, data: [wrong]}\n---\n{" + item + "d}}\n";
    auto lines_of = [](const std::string& text) {
        const auto documents = resources::parse_documents(text, "f");
        std::vector<int> out;
        if (documents)
            for (const auto& document : *documents) out.push_back(document.line);
        return out;
    };
    EXPECT_EQ(lines_of(yaml), (std::vector<int>{6, 9, 14, 16}));
    EXPECT_EQ(client::validate_documents(resources::parse_documents(yaml, "f.yaml").value()), std::vector<std::string>{"f.yaml: document 1 (line 14): data: Invalid value: [\"wrong\"]: must be of type object, not array"});
    const std::string json = "{\"kind\": \"List\", \"metadata\": {\"items\": [{}, {}]},\n \"items\": [\n  {\"kind\": \"a\", \"items\": [{}]},\n\n  {\"kind\": \"b\"}, {\"kind\":\n \"c\"}\n ], \"apiVersion\": \"v1\"}";
    EXPECT_EQ(lines_of(json), (std::vector<int>{3, 5, 5}));
}

TEST(Yaml, bytes_that_are_no_text_are_refused_by_line) {
    // Found by fuzz_manifest: such a text was taken and thrown over when it was written again.
    for (const char* text : {"a: 1\nb: \"x\xff\"\n", "a: 1\n\xc3\x28: x\n", "a: 1\nb: \"\\ud800\"\n"}) {
        const auto bad = resources::parse_documents(text, "f.yaml");
        ASSERT_FALSE(bad) << text;
        EXPECT_NE(bad.error().message.find("f.yaml: line 2"), std::string::npos) << bad.error().message;
    }
}

TEST(Yaml, a_comma_where_a_document_begins_is_refused) {
    // Found by fuzz_manifest: such a text once was read as empty documents without end.
    const auto bad = resources::parse_documents("a\n , name: x\nspec:\n  b: c\n", "f.yaml");
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().message.find("f.yaml: line"), std::string::npos) << bad.error().message;
    EXPECT_FALSE(resources::parse_documents("# comment\n , name: x\nspec:\n  b: c\n", "f.yaml"));
}

TEST(Yaml, aliases_cannot_fill_the_memory) {
    std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 12; ++i) {
        text += fmt::format("a{}: &a{} [", i, i);
        for (int k = 0; k < 9; ++k) text += fmt::format("{}*a{}", k == 0 ? "" : ", ", i - 1);
        text += "]\n";
    }
    const auto bad = resources::parse_documents(text, "f.yaml");
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().message.find("aliases included"), std::string::npos) << bad.error().message;
}

TEST(Yaml, what_is_written_reads_back) {
    const Json object = {{"text", "plain"}, {"number_like", "012"}, {"yes", "yes"}, {"empty", ""}, {"lines", "a\nb\n"}, {"colon", "a: b"}, {"list", {{{"a", 1}, {"b", {1, 2}}}, "x"}},
                         {"time", "2026-01-01T00:00:00Z"}, {"none", nullptr}, {"map", Json::object()}, {"array", Json::array()}, {"quote", "it's \"x\""}, {"dash", "- x"}};
    const auto again = resources::parse_documents(resources::to_yaml(object), "x");
    ASSERT_TRUE(again) << resources::to_yaml(object);
    EXPECT_EQ(again->front().object, object) << resources::to_yaml(object);
}

TEST(Validation, all_faults_with_their_paths) {
    const Json object = {{"metadata", {{"name", "Bad_Name"}}},
                         {"spec", {{"memoryProfile", "Huge"}, {"cardinality", {{"frontend", {{"replicas", 99}}}}}, {"advanced", {{"clients", {{"maxPacketSizeBytes", "x"}}}}}, {"diskBackedMessageBuffer", {{"maxSize", "much"}}}}}};
    std::map<std::string, std::string> faults;
    for (const auto& f : resources::validate(broker_kind(), object)) faults[f.path] = f.reason;
    EXPECT_EQ(faults["metadata.name"], "FieldValueInvalid");
    EXPECT_EQ(faults["spec.memoryProfile"], "FieldValueNotSupported");
    EXPECT_EQ(faults["spec.cardinality.backendChain"], "FieldValueRequired");
    EXPECT_EQ(faults["spec.cardinality.frontend.replicas"], "FieldValueInvalid");
    EXPECT_EQ(faults["spec.advanced.clients.maxPacketSizeBytes"], "FieldValueTypeInvalid");
    EXPECT_EQ(faults["spec.diskBackedMessageBuffer.maxSize"], "FieldValueInvalid");
    EXPECT_EQ(faults.size(), 6u);
}

TEST(Validation, unknown_fields_name_the_nearest) {
    auto object = listener("plant", "ClusterIp", 1883);
    object["spec"]["servicetype"] = "ClusterIp";
    object["spec"]["ports"][0]["protcol"] = "Mqtt";
    const auto faults = resources::prune_unknown(listener_kind(), object);
    ASSERT_EQ(faults.size(), 2u);
    EXPECT_NE(faults[0].message.find("did you mean \"protocol\"?"), std::string::npos) << faults[0].message;
    EXPECT_NE(faults[1].message.find("did you mean \"serviceType\"?"), std::string::npos) << faults[1].message;
}

TEST(Validation, persistence_that_leaves_a_policy_out_says_what_it_does_not_keep) {
    auto told = [](const char* persistence) {
        const auto object = Json{{"spec", {{"persistence", *resources::parse_json(persistence)}}}};
        std::string out;
        for (const auto& note : resources::notes(broker_kind(), object, 4))
            if (note.reason == "NotKept") out += note.path + ": " + note.message;
        return out;
    };
    const auto alone = told(R"({"maxSize": "1G"})");
    for (const char* part : {"spec.persistence: without retain, subscriberQueue, stateStore", "retained messages",
                             "messages that wait", "keys of the state store",
                             "{retain: {mode: All}, subscriberQueue: {mode: All}, stateStore: {mode: All}}"})
        EXPECT_NE(alone.find(part), std::string::npos) << part << " in " << alone;
    const auto one = told(R"({"maxSize": "1G", "retain": {"mode": "All"}, "stateStore": {"mode": "None"}})");
    EXPECT_NE(one.find("without subscriberQueue (absent"), std::string::npos) << one;
    EXPECT_EQ(one.find("retained"), std::string::npos) << "what is there was meant: " << one;
    EXPECT_EQ(told(R"({"retain": {"mode": "All"}, "subscriberQueue": {"mode": "None"},
                       "stateStore": {"mode": "Custom"}})"), "");
    EXPECT_EQ(told("null"), "");
}

TEST(Validation, a_module_of_the_log_that_is_none_is_told_with_those_that_are) {
    auto told = [](const std::string& level) {
        const Json object = {{"spec", {{"diagnostics", {{"logs", {{"level", level}}}}}}}};
        std::string out;
        for (const auto& note : resources::notes(broker_kind(), object, 4))
            if (note.path == "spec.diagnostics.logs.level") out += note.message;
        return out;
    };
    const std::pair<const char*, std::vector<const char*>> cases[] = {
        {"info;brokr=debug", {"\"info;brokr\" (did you mean \"broker\"?)", "parts of the list end with a comma"}},
        {"info,brokr=debug", {"\"brokr\" (did you mean \"broker\"?)", "api, auth, broker"}},
        {"contrl=warn,info", {"\"contrl\" (did you mean \"control\"?)"}},
        {"debug, zzzzzz = trace ,selftst=off", {"\"zzzzzz\"", "\"selftst\" (did you mean \"selftest\"?)"}},
        {"=debug", {"\"\""}},
        {"zzzzz1=info,zzzzz2=info,zzzzz3=info,zzzzz1=off,zzzzz4=info,zzzzz5=info", {"\"zzzzz1\", \"zzzzz2\", \"zzzzz3\" and 2 more"}},
        {"a\"\nb=info", {"\"a\\\"\\x0ab\""}},
    };
    for (const auto& [level, parts] : cases) {
        const auto said = told(level);
        EXPECT_EQ(said.empty(), parts.empty()) << level << ": " << said;
        for (const auto* part : parts) EXPECT_NE(said.find(part), std::string::npos) << part << "\nin: " << said;
    }
    EXPECT_EQ(told("zzzzzz=info").find("did you mean"), std::string::npos);
    EXPECT_LT(told(std::string(1000, 'm') + "=info").size(), 600u);
    for (const char* level : {"info", "Debug", "info,broker=debug", "tls=off, app = TRACE ,info", "BROKER=debug"})
        EXPECT_EQ(told(level), "") << level;
}

TEST(Validation, an_annotation_of_ours_that_is_none_is_told_with_those_that_are) {
    auto told = [](const char* kind, const std::string& key) {
        const Json object = {{"metadata", {{"annotations", {{key, "x"}}}}}};
        std::string out;
        const auto& of = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", kind);
        for (const auto& note : resources::notes(of, object, 4))
            if (note.path.starts_with("metadata.annotations")) out += note.path + ": " + note.reason + ": " + note.message;
        return out;
    };
    EXPECT_NE(told("Broker", "penstock.io/compatibilty").find("(did you mean \"penstock.io/compatibility\"?)"),
              std::string::npos);
    EXPECT_NE(told("BrokerListener", "penstock.io/websocket-origin").find("\"penstock.io/websocket-origins\""),
              std::string::npos);
    EXPECT_NE(told("BrokerAuthentication", "penstock.io/oscp").find("\"penstock.io/ocsp\""), std::string::npos);
    // Known, of another kind; and of a kind that has none.
    EXPECT_NE(told("Broker", "penstock.io/ocsp").find("NoEffect"), std::string::npos);
    EXPECT_NE(told("BrokerAuthorization", "penstock.io/ocsp").find("NoEffect"), std::string::npos);
    EXPECT_LT(told("Broker", "penstock.io/" + std::string(60, 'a')).size(), 700u);
    for (const auto& [kind, key] :
         {std::pair{"Broker", "penstock.io/debug-clients"}, std::pair{"Broker", "penstock.io/persistence-key"},
          std::pair{"BrokerAuthorization", "penstock.io/applied-from"}, std::pair{"Broker", "plant.example/x"},
          std::pair{"BrokerAuthentication", "penstock.io/custom-unreachable"}})
        EXPECT_EQ(told(kind, key), "") << kind << " " << key;
}

TEST(Validation, enumerations_in_any_case) {
    auto object = listener("plant", "loadBALANCER", 1883);
    object["spec"]["ports"][0]["protocol"] = "websockets";
    EXPECT_TRUE(resources::validate(listener_kind(), object).empty());
}

TEST(Registry, versions_defaults_and_generation) {
    auto registry = Registry::open(":memory:");
    ASSERT_TRUE(registry) << registry.error().message;
    auto& r = **registry;
    auto made = r.create(listener_kind(), space, listener("plant", "ClusterIp", 1883));
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ((**made)["spec"]["serviceName"], "plant");
    EXPECT_EQ((**made)["spec"]["ports"][0]["protocol"], "Mqtt");
    EXPECT_EQ((**made)["metadata"]["generation"], 1);
    const auto version = r.version();
    auto same = r.patch(listener_kind(), space, "plant", registry::PatchType::merge, {{"spec", {{"serviceName", "plant"}}}}, false);
    ASSERT_TRUE(same);
    EXPECT_EQ(r.version(), version) << "a write that changes nothing has no version";
    auto changed = r.patch(listener_kind(), space, "plant", registry::PatchType::merge, {{"spec", {{"ports", Json::array({{{"port", 1999}}})}}}}, false);
    ASSERT_TRUE(changed);
    EXPECT_EQ((**changed)["metadata"]["generation"], 2);
    EXPECT_TRUE(r.put_status(listener_kind(), space, "plant", [](const Json&) { return Json{{"x", 1}}; }));
    EXPECT_EQ((**r.get(listener_kind(), space, "plant"))["metadata"]["generation"], 2);
    auto stale = **made;
    const auto refused = r.update(listener_kind(), space, "plant", stale, false);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, 409);
}

TEST(Registry, rules_between_listeners) {
    auto registry = Registry::open(":memory:");
    auto& r = **registry;
    ASSERT_TRUE(r.create(listener_kind(), space, listener("one", "ClusterIp", 1883)));
    const auto type = r.create(listener_kind(), space, listener("two", "clusterip", 1884));
    ASSERT_FALSE(type);
    EXPECT_NE(type.error().message.find("one listener per service type"), std::string::npos);
    const auto port = r.create(listener_kind(), space, listener("two", "LoadBalancer", 1883));
    ASSERT_FALSE(port);
    EXPECT_NE(port.error().message.find("listener one has this port"), std::string::npos);
    EXPECT_TRUE(r.create(listener_kind(), space, listener("two", "LoadBalancer", 1884)));
    EXPECT_FALSE(r.create(listener_kind(), "nowhere", listener("three", "NodePort", 1885)));
    auto node_port = listener("three", "NodePort", 1886);
    node_port["spec"]["ports"][0]["nodePort"] = 80;
    EXPECT_FALSE(r.create(listener_kind(), space, node_port));
    EXPECT_FALSE(r.create(broker_kind(), space, {{"metadata", {{"name", "default"}, {"annotations", {{"penstock.io/compatibility", "Mosquitto"}}}}}, {"spec", Json::object()}}));
}

TEST(Registry, watch_sees_each_commit_once_and_old_history_is_gone) {
    auto registry = Registry::open(":memory:");
    auto& r = **registry;
    const auto before = r.version();
    r.create(listener_kind(), space, listener("plant", "ClusterIp", 1883)).value();
    r.remove(listener_kind(), space, "plant").value();
    std::vector<registry::Event> events;
    ASSERT_TRUE(r.events_since(before, &listener_kind(), "", events));
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0].type, registry::Event::Type::added);
    EXPECT_EQ(events[1].type, registry::Event::Type::deleted);
    EXPECT_LT(events[0].version, events[1].version);
    const auto& maps = *resources::find_kind_by_word("cm");
    r.create(maps, space, {{"metadata", {{"name", "counter"}}}}).value();
    for (int i = 0; i < 10'100; ++i) r.patch(maps, space, "counter", registry::PatchType::merge, {{"data", {{"i", std::to_string(i)}}}}, false).value();
    EXPECT_FALSE(r.events_since(before, nullptr, "", events));
}

TEST(Registry, survives_a_restart_and_refuses_a_newer_file) {
    const auto folder = std::filesystem::temp_directory_path() / ("penstock-registry-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    const auto path = (folder / "registry.sqlite").string();
    std::uint64_t version = 0;
    {
        auto r = Registry::open(path);
        ASSERT_TRUE(r) << r.error().message;
        (*r)->create(listener_kind(), space, listener("plant", "ClusterIp", 1883)).value();
        version = (*r)->version();
        EXPECT_FALSE(Registry::open(path)) << "two processes on one file";
    }
    {
        auto r = Registry::open(path);
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ((*r)->version(), version);
        EXPECT_TRUE((*r)->get(listener_kind(), space, "plant"));
        std::vector<registry::Event> events;
        EXPECT_FALSE((*r)->events_since(version - 1, nullptr, "", events)) << "history from before the restart must be told as gone";
    }
    std::filesystem::remove_all(folder);
}

TEST(Api, paths_forms_and_errors) {
    auto registry = Registry::open(":memory:");
    const api::Tokens tokens(**registry, "https://issuer", {crypto::make_signing_key().value()});
    api::Handler handler(**registry, tokens, "test");
    const api::User admin{.name = "system:admin", .groups = {"system:masters"}};
    auto call = [&](const std::string& method, const std::string& path, const std::string& body = {}, const std::string& media = "application/json", std::map<std::string, std::string> query = {},
                    const std::string& accept = "application/json") { return handler.handle({.method = method, .path = path, .query = std::move(query), .accept = accept, .content_type = media, .body = body, .user = admin}); };
    const std::string base = "/apis/mqttbroker.iotoperations.azure.com/v1/namespaces/azure-iot-operations/brokerlisteners";
    EXPECT_EQ(handler.handle({.method = "GET", .path = base}).status, 403) << "anonymous";
    EXPECT_EQ(handler.handle({.method = "GET", .path = base, .authorization = "Bearer x", .user = admin}).status, 401) << "a wrong token is never anonymous";
    EXPECT_EQ(call("POST", base, listener("plant", "ClusterIp", 1883).dump()).status, 201);
    EXPECT_EQ(call("POST", base, listener("plant", "ClusterIp", 1883).dump()).status, 409);
    EXPECT_EQ(call("POST", base, "{not json").status, 400);
    EXPECT_EQ(call("POST", base, "x", "text/plain").status, 415);
    EXPECT_EQ(call("PATCH", base + "/plant", "{}", "application/strategic-merge-patch+json").status, 415);
    EXPECT_EQ(call("GET", base + "/none").status, 404);
    EXPECT_EQ(call("GET", "/apis/none/v1/things").status, 404);
    EXPECT_EQ(call("GET", base, {}, {}, {{"labelSelector", "a in x"}}).status, 400);
    EXPECT_EQ(call("GET", base, {}, {}, {{"labelSelector", "a in (x)"}}).status, 200);
    EXPECT_EQ(call("GET", base, {}, {}, {{"fieldSelector", "spec.port=1"}}).status, 400);
    EXPECT_EQ(call("GET", base, {}, {}, {}, "application/xml").status, 406);
    auto strict = listener("other", "LoadBalancer", 1885);
    strict["spec"]["typo"] = 1;
    EXPECT_EQ(call("POST", base, strict.dump(), "application/json", {{"fieldValidation", "Strict"}}).status, 400);
    const auto table = call("GET", base, {}, {}, {}, "application/json;as=Table;v=v1;g=meta.k8s.io");
    EXPECT_NE(table.body.find("\"kind\":\"Table\""), std::string::npos);
    EXPECT_EQ(call("DELETE", base + "/plant").status, 200);
    for (const char* path : {"/api", "/apis", "/api/v1", "/apis/mqttbroker.iotoperations.azure.com", "/apis/mqttbroker.iotoperations.azure.com/v1", "/version", "/openapi/v2", "/openapi/v3"})
        EXPECT_EQ(call("GET", path).status, 200) << path;
    for (const char* path : {"/", "//", "/api/", "/api/v1/namespaces/x/", "/apis/a/b/c/d/e/f/g", "/api/v1/namespaces/../x"}) EXPECT_LT(call("GET", path).status, 500) << path;
}

TEST(Api, watch_lines_follow_the_selector) {
    auto registry = Registry::open(":memory:");
    auto& r = **registry;
    const api::Tokens tokens(r, "https://issuer", {});
    api::Handler handler(r, tokens, "test");
    const auto& maps = *resources::find_kind_by_word("configmap");
    const auto before = r.version();
    r.create(maps, space, {{"metadata", {{"name", "m"}, {"labels", {{"a", "1"}}}}}}).value();
    r.patch(maps, space, "m", registry::PatchType::merge, {{"metadata", {{"labels", {{"a", "2"}}}}}}, false).value();
    std::vector<registry::Event> events;
    ASSERT_TRUE(r.events_since(before, nullptr, "", events));
    const api::Watch watch{.kind = &maps, .selector = api::Selector::parse(maps, "a=1", "").value()};
    ASSERT_EQ(events.size(), 2u);
    EXPECT_NE(handler.watch_line(watch, events[0], true).find("ADDED"), std::string::npos);
    EXPECT_NE(handler.watch_line(watch, events[1], false).find("DELETED"), std::string::npos) << "it stopped matching";
}

TEST(Apply, three_way_patch) {
    const Json last = {{"spec", {{"a", 1}, {"b", 2}}}}, wanted = {{"spec", {{"a", 5}, {"c", 3}}}}, live = {{"spec", {{"a", 1}, {"b", 2}, {"d", 4}}}, {"status", 1}};
    EXPECT_EQ(client::three_way_patch(last, wanted, live), (Json{{"spec", {{"a", 5}, {"b", nullptr}, {"c", 3}}}}));
    EXPECT_TRUE(client::three_way_patch(wanted, wanted, wanted).empty());
}

TEST(Labels, selectors) {
    const auto& maps = *resources::find_kind("v1", "ConfigMap");
    const Json object = {{"metadata", {{"name", "m"}, {"labels", {{"app", "mqtt"}, {"tier", "edge"}}}}}};
    auto matches = [&](const char* labels) { return api::Selector::parse(maps, labels, "").value().matches(object); };
    for (const char* yes : {"", "app", "app=mqtt", "app==mqtt", "app!=x", "!none", "none!=x", "app in (a,mqtt)", "app notin (a)", "app=mqtt,tier"}) EXPECT_TRUE(matches(yes)) << yes;
    for (const char* no : {"none", "app=x", "!app", "app in (a,b)", "app notin (mqtt)", "app,none"}) EXPECT_FALSE(matches(no)) << no;
    for (const char* bad : {"app near (x)", "a b", "=x", "a in x", "app=mqtt,,tier", "a in (x"}) EXPECT_FALSE(api::Selector::parse(maps, bad, "")) << bad;
    EXPECT_TRUE(api::Selector::parse(maps, "", "metadata.name=m").value().matches(object));
    EXPECT_FALSE(api::Selector::parse(maps, "", "metadata.name!=m").value().matches(object));
    EXPECT_FALSE(api::Selector::parse(maps, "", "data.x=1"));
}

TEST(Plan, profiles_workers_and_service_types) {
    const Json broker = {{"spec", {{"memoryProfile", "tiny"}, {"cardinality", {{"frontend", {{"replicas", 2}, {"workers", 2}}}, {"backendChain", {{"partitions", 2}, {"redundancyFactor", 2}}}}},
                                   {"advanced", {{"clients", {{"maxPacketSizeBytes", 1000}, {"subscriberQueueLimit", {{"length", 5}, {"strategy", "dropoldest"}}}}}, {"encryptInternalTraffic", "Enabled"}}}}}};
    auto node = listener("node", "nodeport", 1884);
    node["spec"]["ports"][0]["nodePort"] = 31'883;
    auto secure = listener("secure", "LoadBalancer", 8883);
    secure["spec"]["ports"][0]["tls"] = {{"mode", "Manual"}, {"manual", {{"secretRef", "x"}}}};
    const auto plan = control::plan_broker(broker, {listener("local", "ClusterIp", 1883), node, secure}, 2);
    EXPECT_EQ(plan.workers, 2u);
    EXPECT_EQ(plan.config.packet_size_max, 1000u);
    EXPECT_EQ(plan.config.pool_bytes, 2 * (std::int64_t{16} << 20));
    EXPECT_TRUE(plan.config.queue_drop_oldest);
    ASSERT_EQ(plan.ports.size(), 3u);
    EXPECT_TRUE(plan.ports[0].config.loopback_only);
    EXPECT_EQ(plan.ports[1].config.port, 31'883);
    EXPECT_FALSE(plan.ports[1].config.loopback_only);
    EXPECT_TRUE(plan.ports[1].blocked.empty());
    EXPECT_TRUE(plan.ports[2].spec.contains("tls")) << "what it asks for is looked at with the objects it names";
    EXPECT_EQ(plan.notes.size(), 3u) << "encryptInternalTraffic, redundancyFactor and the capped workers are told";
}

// What `penstock crds` prints is taken by our own API too, by the rules of structural schemas.
/// One request of an administrator, and the answer with its warnings.
struct Client {
    std::unique_ptr<Registry> r = Registry::open(":memory:").value();
    api::Tokens tokens{*r, "https://issuer", {}};
    api::Handler handler{*r, tokens, "test"};
    std::vector<std::string> warnings;
    int status = 0;
    std::string manager = "me";
    api::User user{.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}};
    Json operator()(const char* method, const std::string& path, const Json& body = {}, const char* media = "application/json", const char* accept = "application/json") {
        api::Request request{.method = method, .path = path, .query = {}, .accept = accept, .content_type = media, .authorization = {}, .user_agent = "test", .if_none_match = {}, .impersonation = {}, .upgrade = {},
                             .body = body.is_null() ? std::string() : body.dump(), .user = user};
        request.query["fieldManager"] = manager;
        request.query["fieldValidation"] = "Strict";
        const auto reply = handler.handle(request);
        status = reply.status;
        warnings.clear();
        for (const auto& [name, value] : reply.headers)
            if (name == "Warning") warnings.push_back(value);
        return resources::parse_json(reply.body).value_or(Json());
    }
    [[nodiscard]] bool warned(const std::string& text) const {
        return std::ranges::any_of(warnings, [&](const std::string& w) { return w.starts_with("299 - \"") && w.find(text) != std::string::npos; });
    }
};
const std::string group_path = "/apis/mqttbroker.iotoperations.azure.com/";
std::string place(const char* version, const char* plural, const char* name = "") { return group_path + version + "/namespaces/azure-iot-operations/" + plural + (*name != 0 ? "/" : "") + name; }
Json old_object(const char* version, const char* kind, const char* name, Json spec) {
    return {{"apiVersion", std::string("mqttbroker.iotoperations.azure.com/") + version}, {"kind", kind}, {"metadata", {{"name", name}, {"namespace", "azure-iot-operations"}}}, {"spec", std::move(spec)}};
}

// Words of an enumeration are taken in any case and kept as they were typed; two spellings of one word are no quarrel.
TEST(Spelling, words_that_differ_in_case_alone_are_the_same) {
    Client call;
    const auto path = place("v1", "brokerlisteners", "plant");
    constexpr const char* apply = "application/apply-patch+yaml";
    call.manager = "one";
    const Json manual = {{"mode", "manual"}, {"manual", {{"secretRef", "s"}}}};
    auto typed = listener("plant", "loadBalancer", 8883);
    typed["spec"]["ports"] = {{{"port", 8883}, {"protocol", "mqtt"}, {"tls", manual}}, {{"port", 8884}}};
    call("PATCH", path, typed, apply);
    ASSERT_EQ(call.status, 201);
    EXPECT_EQ(text_at(call("GET", path), "spec.serviceType"), "loadBalancer") << "kept as it was typed";
    call.manager = "two";
    auto other = typed;
    other["spec"]["serviceType"] = "LoadBalancer";
    other["spec"]["ports"] = {{{"port", 8884}}, {{"port", 8883}, {"protocol", "Mqtt"}, {"tls", manual}}};
    other["spec"]["ports"][1]["tls"]["mode"] = "Manual";
    auto kept = call("PATCH", path, other, apply);
    ASSERT_EQ(call.status, 200) << kept.dump();
    EXPECT_EQ(text_at(kept, "spec.serviceType"), "loadBalancer");
    EXPECT_EQ(kept["metadata"]["managedFields"].size(), 2u) << "both own it";
    // Another word is another value, and the conflict names nothing beside it.
    other["spec"]["ports"][1]["protocol"] = "WebSockets";
    const auto refused = call("PATCH", path, other, apply);
    EXPECT_EQ(call.status, 409);
    EXPECT_EQ(text_at(refused, "message"),
              "Apply failed with 1 conflict: conflict with \"one\" using mqttbroker.iotoperations.azure.com/v1: "
              ".spec.ports[port=8883].protocol");
    // A table has one spelling of a word.
    const auto table = call("GET", path, {}, "", "application/json;as=Table;v=v1;g=meta.k8s.io");
    std::map<std::string, std::string> cells;
    for (std::size_t i = 0; i < table["columnDefinitions"].size(); ++i)
        if (const auto& cell = table["rows"][0]["cells"][i]; cell.is_string())
            cells[text_at(table["columnDefinitions"][i], "name")] = cell.get<std::string>();
    EXPECT_EQ(cells["Type"], "LoadBalancer");
    EXPECT_EQ(cells["TLS"], "Manual,none");
}

TEST(Refusals, of_a_taken_service_type_and_of_a_deleted_pod_name_the_way_out) {
    Client call;
    call("POST", place("v1", "brokerlisteners"), listener("local", "ClusterIp", 1883));
    ASSERT_EQ(call.status, 201);
    const auto taken = text_at(call("POST", place("v1", "brokerlisteners"), listener("more", "clusterIp", 1884)), "message");
    EXPECT_NE(taken.find("listener local has this type already"), std::string::npos) << taken;
    EXPECT_NE(taken.find("kubectl delete brokerlistener local -n azure-iot-operations"), std::string::npos) << taken;
    EXPECT_NE(taken.find("kubectl annotate broker default -n azure-iot-operations "
                         "penstock.io/listeners-per-service-type=Any"), std::string::npos) << taken;
    const std::string pod = "/api/v1/namespaces/azure-iot-operations/pods/aio-broker-frontend-0";
    for (const auto* verb : {"DELETE", "PUT"}) {
        const auto refused = text_at(call(verb, pod, {}), "message");
        EXPECT_EQ(call.status, 405);
        EXPECT_EQ(refused.find("systemctl restart penstock") != std::string::npos, verb == std::string("DELETE")) << refused;
    }
}

TEST(EarlierVersions, of_microsofts_samples_are_kept_as_v1) {
    Client call;
    call("POST", place("v1beta1", "brokers"), old_object("v1beta1", "Broker", "default", {{"memoryProfile", "tiny"}, {"encryptInternalTraffic", false}, {"diskBackedMessageBufferSettings", {{"maxSize", "1G"}}}}));
    ASSERT_EQ(call.status, 201);
    EXPECT_TRUE(call.warned("mqttbroker.iotoperations.azure.com/v1beta1 Broker is deprecated; use mqttbroker.iotoperations.azure.com/v1 Broker"));
    EXPECT_TRUE(call.warned("spec.encryptInternalTraffic: deprecated; use spec.advanced.encryptInternalTraffic"));
    EXPECT_TRUE(call.warned("spec.advanced.encryptInternalTraffic: has no effect"));
    auto kept = call("GET", place("v1", "brokers", "default"));
    EXPECT_TRUE(call.warnings.empty()) << call.warnings.front();
    EXPECT_EQ(text_at(kept, "spec.advanced.encryptInternalTraffic"), "Disabled");
    EXPECT_EQ(text_at(kept, "spec.diskBackedMessageBuffer.maxSize"), "1G");
    EXPECT_EQ(text_at(kept, "apiVersion"), "mqttbroker.iotoperations.azure.com/v1");
    EXPECT_EQ(text_at(call("GET", place("v1beta1", "brokers", "default")), "apiVersion"), "mqttbroker.iotoperations.azure.com/v1beta1");
    EXPECT_EQ(call.warnings.size(), 1u) << "reading it is told too, as Kubernetes does";
    EXPECT_EQ(text_at(call("GET", place("v1beta2", "brokers"))["items"][0], "apiVersion"), "mqttbroker.iotoperations.azure.com/v1beta2");
    EXPECT_TRUE(call.warnings.empty()) << "v1beta2 is not deprecated";

    const Json automatic = {{"automatic", {{"issuerRef", {{"apiGroup", "cert-manager.io"}, {"kind", "Issuer"}, {"name", "mq-dmqtt-frontend"}}}, {"secretNamespace", "azure-iot-operations"}}}};
    call("PATCH", place("v1beta1", "brokerlisteners", "listener"), old_object("v1beta1", "BrokerListener", "listener", {{"brokerRef", "default"}, {"serviceType", "loadBalancer"}, {"ports", Json::array({{{"port", 8883}, {"protocol", "Websockets"}, {"tls", automatic}}})}}), "application/apply-patch+yaml");
    ASSERT_EQ(call.status, 201) << "server-side apply";
    kept = call("GET", place("v1", "brokerlisteners", "listener"));
    const auto& tls = kept["spec"]["ports"][0]["tls"];
    EXPECT_EQ(text_at(tls, "mode"), "Automatic");
    EXPECT_EQ(text_at(tls, "certManagerCertificateSpec.issuerRef.group"), "cert-manager.io");
    call("PATCH", place("v1beta2", "brokerlisteners", "listener"), {{"spec", {{"ports", Json::array({{{"port", 8883}, {"tls", {{"manual", {{"secretName", "s"}, {"secretNamespace", "x"}}}}}}})}}}}, "application/merge-patch+json");
    EXPECT_EQ(call.status, 200) << "as kubectl apply patches";
    EXPECT_TRUE(call.warned("spec.ports[0].tls.manual.secretName: deprecated; use spec.ports[0].tls.manual.secretRef"));
    EXPECT_EQ(text_at(call("GET", place("v1", "brokerlisteners", "listener"))["spec"]["ports"][0], "tls.manual.secretRef"), "s");
    EXPECT_EQ(call("POST", place("v1beta1", "brokerlisteners"), old_object("v1beta1", "BrokerListener", "old", {{"brokerRef", "default"}, {"serviceType", "nodePort"}, {"port", 1884}, {"authenticationEnabled", false}}))["spec"]["ports"][0]["port"], 1884);
    call("POST", place("v1beta1", "brokerlisteners"), old_object("v1beta1", "BrokerListener", "shut", {{"brokerRef", "default"}, {"port", 1885}, {"authenticationEnabled", true}}));
    EXPECT_EQ(call.status, 422) << "left out it would open the port to anybody";

    call("POST", place("v1beta1", "brokerauthentications"), old_object("v1beta1", "BrokerAuthentication", "authn", {{"listenerRef", {"listener"}}, {"authenticationMethods", Json::array({
        {{"method", "Custom"}, {"custom", {{"endpoint", "https://a"}, {"auth", {{"x509", {{"secretName", "c"}, {"namespace", "n"}}}}}}}},
        {{"method", "ServiceAccountToken"}, {"serviceAccountToken", {{"audiences", {"aio-mq"}}}}}, {{"method", "x509Credentials"}, {"x509Credentials", {{"trustedClientCaCert", "client-ca"}}}}})}}));
    ASSERT_EQ(call.status, 201);
    const auto methods = call("GET", place("v1", "brokerauthentications", "authn"))["spec"]["authenticationMethods"];
    EXPECT_EQ(text_at(methods[0], "customSettings.auth.x509.secretRef"), "c");
    EXPECT_EQ(methods[1]["serviceAccountTokenSettings"]["audiences"][0], "aio-mq");
    EXPECT_EQ(text_at(methods[2], "method"), "X509");
    EXPECT_EQ(text_at(methods[2], "x509Settings.trustedClientCaCert"), "client-ca");
    call("POST", place("v1beta1", "brokerauthorizations"), old_object("v1beta1", "BrokerAuthorization", "authz", {{"listenerRef", {"listener"}}, {"authorizationPolicies", {{"enableCache", false}, {"rules", Json::array()}}}}));
    ASSERT_EQ(call.status, 201);
    EXPECT_EQ(text_at(call("GET", place("v1", "brokerauthorizations", "authz")), "spec.authorizationPolicies.cache"), "Disabled");
    // What no version knows is refused as ever.
    call("POST", place("v1beta1", "brokerauthorizations"), old_object("v1beta1", "BrokerAuthorization", "typo", {{"authorizationPolicys", Json::object()}}));
    EXPECT_GE(call.status, 400);
    EXPECT_TRUE(client::validate_documents({{.object = old_object("v1beta1", "Broker", "default", {{"encryptInternalTraffic", false}}), .file = "f", .index = 1, .line = 1}}).empty()) << "files are judged alike";
    const auto about = call("GET", "/apis/mqttbroker.iotoperations.azure.com");
    EXPECT_EQ(text_at(about, "preferredVersion.version"), "v1");
    EXPECT_EQ(about["versions"].size(), 3u);
}

// Whatever way a patch is written, it means the version that its path names.
TEST(EarlierVersions, a_json_patch_is_of_the_version_of_its_path) {
    Client call;
    const auto media = "application/json-patch+json";
    call("POST", place("v1", "brokers"), old_object("v1", "Broker", "default", {{"diskBackedMessageBuffer", {{"maxSize", "1G"}}}}));
    ASSERT_EQ(call.status, 201);
    for (const char* version : {"v1beta1", "v1beta2"}) {
        SCOPED_TRACE(version);
        auto op = [&](const char* what, const char* path, Json value) { return Json{{"op", what}, {"path", path}, {"value", std::move(value)}}; };
        const auto api = std::string("mqttbroker.iotoperations.azure.com/") + version;
        const auto done = call("PATCH", place(version, "brokers", "default"), Json::array({op("test", "/apiVersion", api), op("add", "/spec/diskBackedMessageBufferSettings", {{"maxSize", version}}), op("add", "/spec/encryptInternalTraffic", false)}), media);
        EXPECT_EQ(call.status, 422) << "its value is judged as that of the field of today: " << done.dump();
        EXPECT_NE(text_at(done, "message").find("spec.diskBackedMessageBuffer.maxSize"), std::string::npos) << done.dump();
        call("PATCH", place(version, "brokers", "default"), Json::array({op("add", "/spec/diskBackedMessageBufferSettings", {{"maxSize", "2G"}}), op("add", "/spec/encryptInternalTraffic", false)}), media);
        ASSERT_EQ(call.status, 200);
        EXPECT_TRUE(call.warned("spec.encryptInternalTraffic: deprecated; use spec.advanced.encryptInternalTraffic"));
        const auto kept = call("GET", place("v1", "brokers", "default"));
        EXPECT_EQ(text_at(kept, "apiVersion"), "mqttbroker.iotoperations.azure.com/v1");
        EXPECT_EQ(text_at(kept, "spec.diskBackedMessageBuffer.maxSize"), "2G") << "what was just written counts";
        EXPECT_EQ(text_at(kept, "spec.advanced.encryptInternalTraffic"), "Disabled");
        call("PATCH", place(version, "brokers", "default"), Json::array({op("replace", "/spec/diskBackedMessageBuffer/maxSize", "1G")}), media);
        EXPECT_EQ(call.status, 200);
        call("PATCH", place(version, "brokers", "default"), Json::array({op("replace", "/metadata/resourceVersion", "1")}), media);
        EXPECT_EQ(call.status, 409) << "a version that is named is asked for";
        call("PATCH", place(version, "brokers", "nobody"), Json::array(), media);
        EXPECT_EQ(call.status, 404);
        call("PATCH", place(version, "brokers", "default"), Json::array({op("replace", "/spec/nothing", 1)}), media);
        EXPECT_EQ(call.status, 422);
    }
    const Json port = {{"port", 8883}, {"tls", {{"manual", {{"secretName", "s"}}}}}};
    call("POST", place("v1", "brokerlisteners"), old_object("v1", "BrokerListener", "lan", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 1883}}})}}));
    call("PATCH", place("v1beta1", "brokerlisteners", "lan"), Json::array({{{"op", "add"}, {"path", "/spec/ports/-"}, {"value", port}}}), media);
    ASSERT_EQ(call.status, 200);
    EXPECT_EQ(text_at(call("GET", place("v1", "brokerlisteners", "lan"))["spec"]["ports"][1], "tls.manual.secretRef"), "s");
}

// Attributes that stood in a Secret are not left out in silence: rules by attributes would let in whom they should not, or nobody.
TEST(EarlierVersions, attributes_in_a_secret_are_refused_with_what_to_write) {
    Client call;
    const Json method = {{"method", "x509Credentials"}, {"x509Credentials", {{"trustedClientCaCert", "client-ca"}, {"attributes", {{"secretName", "x509-attributes"}}}}}};
    for (const char* name : {"x509Credentials", "x509"}) {
        Json one = {{"method", "X509"}, {name, method["x509Credentials"]}};
        const auto answer = call("POST", place("v1beta1", "brokerauthentications"), old_object("v1beta1", "BrokerAuthentication", "a", {{"authenticationMethods", Json::array({one})}}));
        EXPECT_EQ(call.status, 422);
        EXPECT_NE(text_at(answer, "message").find("spec.authenticationMethods[0].x509Settings.attributes.secretName: cannot be carried over: write what Secret \"x509-attributes\" has"), std::string::npos) << answer.dump();
    }
}

TEST(Warnings, tell_what_has_less_effect_than_it_says) {
    Client call;
    const Json spec = {{"cardinality", {{"backendChain", {{"partitions", 1}, {"redundancyFactor", 2}}}, {"frontend", {{"replicas", 16}, {"workers", 16}}}}}};
    call("POST", place("v1", "brokers"), old_object("v1", "Broker", "default", spec));
    ASSERT_EQ(call.status, 201);
    EXPECT_TRUE(call.warned("spec.cardinality.backendChain.redundancyFactor: 2 is capped to 1: one machine keeps one copy of the state"));
    EXPECT_TRUE(call.warned("spec.cardinality.frontend: replicas x workers is 256 and capped to "));
    call("POST", place("v1", "brokerlisteners"), old_object("v1", "BrokerListener", "lan", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 1884}, {"authorizationRef", "a"}}})}}));
    EXPECT_TRUE(call.warned("spec.ports[0].authorizationRef: has no effect"));
    call("PATCH", place("v1", "brokerlisteners", "lan") + "/status", {{"status", {{"x", 1}}}}, "application/merge-patch+json");
    EXPECT_TRUE(call.warnings.empty()) << "who writes a status is not told about the spec";
}

TEST(Workloads, are_answered_and_not_taken) {
    Client call;
    EXPECT_EQ(call("GET", "/apis/apps/v1/namespaces/default/deployments")["items"], Json::array()) << "kubectl apply --prune and cluster-info dump ask";
    EXPECT_EQ(call.status, 200);
    const std::string here = "/namespaces/default";
    const std::vector<std::tuple<std::string, std::string, std::string>> brought{
        {"/api/v1", here + "/persistentvolumeclaims", "PersistentVolumeClaim"},
        {"/api/v1", "/persistentvolumes", "PersistentVolume"},
        {"/api/v1", here + "/replicationcontrollers", "ReplicationController"},
        {"/api/v1", here + "/podtemplates", "PodTemplate"},
        {"/api/v1", here + "/resourcequotas", "ResourceQuota"},
        {"/api/v1", here + "/limitranges", "LimitRange"},
        {"/apis/apps/v1", here + "/deployments", "Deployment"},
        {"/apis/apps/v1", here + "/statefulsets", "StatefulSet"},
        {"/apis/apps/v1", here + "/daemonsets", "DaemonSet"},
        {"/apis/apps/v1", here + "/replicasets", "ReplicaSet"},
        {"/apis/batch/v1", here + "/jobs", "Job"},
        {"/apis/batch/v1", here + "/cronjobs", "CronJob"},
        {"/apis/batch/v1beta1", here + "/cronjobs", "CronJob"},
        {"/apis/autoscaling/v2", here + "/horizontalpodautoscalers", "HorizontalPodAutoscaler"},
        {"/apis/autoscaling/v1", here + "/horizontalpodautoscalers", "HorizontalPodAutoscaler"},
        {"/apis/autoscaling/v2beta2", here + "/horizontalpodautoscalers", "HorizontalPodAutoscaler"},
        {"/apis/autoscaling/v2beta1", here + "/horizontalpodautoscalers", "HorizontalPodAutoscaler"},
        {"/apis/networking.k8s.io/v1", here + "/ingresses", "Ingress"},
        {"/apis/networking.k8s.io/v1", "/ingressclasses", "IngressClass"},
        {"/apis/networking.k8s.io/v1", here + "/networkpolicies", "NetworkPolicy"},
        {"/apis/networking.k8s.io/v1beta1", here + "/ingresses", "Ingress"},
        {"/apis/networking.k8s.io/v1beta1", "/ingressclasses", "IngressClass"},
        {"/apis/extensions/v1beta1", here + "/ingresses", "Ingress"},
        {"/apis/policy/v1", here + "/poddisruptionbudgets", "PodDisruptionBudget"},
        {"/apis/policy/v1beta1", here + "/poddisruptionbudgets", "PodDisruptionBudget"},
        {"/apis/policy/v1beta1", "/podsecuritypolicies", "PodSecurityPolicy"},
        {"/apis/scheduling.k8s.io/v1", "/priorityclasses", "PriorityClass"},
        {"/apis/storage.k8s.io/v1", "/storageclasses", "StorageClass"},
        {"/apis/storage.k8s.io/v1", "/csidrivers", "CSIDriver"},
        {"/apis/node.k8s.io/v1", "/runtimeclasses", "RuntimeClass"},
        {"/apis/admissionregistration.k8s.io/v1", "/mutatingwebhookconfigurations",
         "MutatingWebhookConfiguration"},
        {"/apis/admissionregistration.k8s.io/v1", "/validatingwebhookconfigurations",
         "ValidatingWebhookConfiguration"},
        {"/apis/admissionregistration.k8s.io/v1beta1", "/validatingwebhookconfigurations",
         "ValidatingWebhookConfiguration"},
        {"/apis/admissionregistration.k8s.io/v1", "/validatingadmissionpolicies", "ValidatingAdmissionPolicy"},
        {"/apis/admissionregistration.k8s.io/v1", "/validatingadmissionpolicybindings",
         "ValidatingAdmissionPolicyBinding"},
        {"/apis/apiregistration.k8s.io/v1", "/apiservices", "APIService"}};
    for (const auto& [version, path, kind] : brought) {
        SCOPED_TRACE(version + path);
        const auto plural = path.substr(path.rfind('/') + 1);
        const auto discovered = call("GET", version)["resources"];
        EXPECT_TRUE(std::ranges::any_of(discovered, [&](const Json& one) {
            return one["name"] == plural && one["kind"] == kind && one["namespaced"] == path.starts_with(here);
        })) << discovered;
        EXPECT_EQ(call("GET", version + path)["items"], Json::array()) << "who only looks goes on";
        for (const char* method : {"POST", "PUT", "PATCH"}) {
            const bool is_new = std::string_view(method) == "POST";
            const auto answer = call(method, version + path + (is_new ? "" : "/x"),
                                     {{"kind", kind}, {"metadata", {{"name", "x"}}}},
                                     std::string_view(method) == "PATCH" ? "application/apply-patch+yaml"
                                                                         : "application/json");
            const auto message = text_at(answer, "message");
            EXPECT_EQ(call.status, 405);
            EXPECT_TRUE(message.starts_with("no " + kind + " here: Penstock runs its own roles on this machine and no containers")) << message;
            EXPECT_NE(message.find("K3s"), std::string::npos);
            EXPECT_EQ(message.find('\n'), std::string::npos);
        }
    }
    EXPECT_EQ(call("GET", "/apis/autoscaling")["preferredVersion"]["version"], "v2");
    EXPECT_NE(text_at(call("POST", "/api/v1/namespaces/default/pods", {{"kind", "Pod"}, {"metadata", {{"name", "x"}}}}), "message").find("no containers"), std::string::npos);
    call.r->create(*resources::find_kind("v1", "Pod"), "default", {{"metadata", {{"name", "p"}}}, {"spec", {{"containers", Json::array({{{"name", "c"}}})}}}}).value();
    EXPECT_NE(text_at(call("POST", "/api/v1/namespaces/default/pods/p/exec"), "message").find("no exec here: Pod p is a role of the penstock process"), std::string::npos);
    EXPECT_EQ(call.status, 405);
}

TEST(Workloads, are_explained_to_who_works_in_a_namespace) {
    Client call;
    api::Authorizer::bootstrap(*call.r);
    for (const char* role : {"admin", "edit", "view"}) {
        SCOPED_TRACE(role);
        const Json subject = {{"kind", "User"}, {"apiGroup", "rbac.authorization.k8s.io"}, {"name", role}};
        const Json ref = {{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", "ClusterRole"}, {"name", role}};
        call.r->create(*resources::find_kind("rbac.authorization.k8s.io/v1", "RoleBinding"), "default",
                       {{"metadata", {{"name", role}}}, {"subjects", Json::array({subject})}, {"roleRef", ref}})
            .value();
        call.user = {.name = role, .uid = {}, .groups = {"system:authenticated"}, .extra = {}};
        for (const auto* path : {"/apis/apps/v1/namespaces/default/deployments",
                                 "/apis/batch/v1beta1/namespaces/default/cronjobs",
                                 "/api/v1/namespaces/default/resourcequotas",
                                 "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"}) {
            SCOPED_TRACE(path);
            call("GET", path);
            EXPECT_EQ(call.status, 200) << "kubectl apply --prune asks";
            const auto message = text_at(call("POST", path, {{"metadata", {{"name", "x"}}}}), "message");
            const bool may = std::string_view(role) != "view" && !std::string_view(path).ends_with("slices");
            EXPECT_EQ(call.status, may ? 405 : 403) << message;
            EXPECT_EQ(message.find("no containers") != std::string::npos, may) << message;
        }
        call("GET", "/apis/scheduling.k8s.io/v1/priorityclasses");
        EXPECT_EQ(call.status, 403) << "a RoleBinding says nothing about what belongs to no namespace";
    }
}

TEST(PodLog, is_that_of_all_modules_of_the_container) {
    Client call;
    const auto modules = std::string("broker,session,mqtt,topics,store,io,tls,auth,control,app");   // longer than a text that needs no memory
    call.r->create(*resources::find_kind("v1", "Pod"), "default", {{"metadata", {{"name", "p"}, {"annotations", {{"penstock.io/log-modules.c", modules}}}}}, {"spec", {{"containers", Json::array({{{"name", "c"}}})}}}}).value();
    log::info("control", "a line of the log test");
    api::Request request{.method = "GET", .path = "/api/v1/namespaces/default/pods/p/log", .query = {{"container", "c"}}, .accept = {}, .content_type = {}, .authorization = {}, .user_agent = "test", .if_none_match = {}, .impersonation = {}, .upgrade = {},
                         .body = {}, .user = {.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}}};
    EXPECT_NE(call.handler.handle(request).body.find("a line of the log test"), std::string::npos);
}

TEST(PodLog, of_the_run_before_is_asked_for_as_of_this_one) {
    Client call;
    call.r->create(*resources::find_kind("v1", "Pod"), "default", {{"metadata", {{"name", "p"}, {"annotations", {{"penstock.io/log-modules.c", "broker,app"}}}}}, {"spec", {{"containers", Json::array({{{"name", "c"}}})}}}}).value();
    api::Request request{.method = "GET", .path = "/api/v1/namespaces/default/pods/p/log", .query = {{"previous", "true"}}, .accept = {}, .content_type = {}, .authorization = {}, .user_agent = "test", .if_none_match = {}, .impersonation = {}, .upgrade = {},
                         .body = {}, .user = {.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}}};
    auto none = call.handler.handle(request);
    EXPECT_EQ(none.status, 400);
    EXPECT_NE(none.body.find("previous terminated container \\\"c\\\" in pod \\\"p\\\" not found"), std::string::npos) << none.body;
    call.handler.set_former_log([]() -> Result<std::optional<std::vector<log::Line>>> {
        return std::vector<log::Line>{{.wall_ms = 1000, .module = "broker", .text = "one"}, {.wall_ms = 2000, .module = "api", .text = "two"}, {.wall_ms = 3000, .module = "app", .text = "three"}};
    });
    log::info("app", "a line of this run");
    EXPECT_EQ(call.handler.handle(request).body, "one\nthree\n");
    request.query["tailLines"] = "1";
    request.query["timestamps"] = "true";
    EXPECT_EQ(call.handler.handle(request).body, "1970-01-01T00:00:03.000Z three\n");
    request.query = {{"previous", "true"}, {"sinceTime", "1970-01-01T00:00:02Z"}, {"follow", "true"}};
    const auto rest = call.handler.handle(request);
    EXPECT_EQ(rest.body, "three\n");
    EXPECT_FALSE(rest.follow) << "a run that has ended says nothing more";
    request.query["limitBytes"] = "3";
    EXPECT_EQ(call.handler.handle(request).body, "thr");
    call.handler.set_former_log([]() -> Result<std::optional<std::vector<log::Line>>> { return fail("log/previous.log: I/O error"); });
    const auto unreadable = call.handler.handle(request);
    EXPECT_EQ(unreadable.status, 500);
    EXPECT_NE(unreadable.body.find("previous.log: I/O error"), std::string::npos);
}

TEST(Renewal, ahead_of_the_whole_life_is_refused_at_once) {
    Client call;
    auto listener = [&](const char* duration, const char* before) {
        Json spec = {{"issuerRef", {{"name", "i"}, {"kind", "Issuer"}}}, {"renewBefore", before}};
        if (*duration != 0) spec["duration"] = duration;
        const auto answer = call("POST", place("v1", "brokerlisteners"), old_object("v1", "BrokerListener", "lan", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 8883}, {"tls", {{"mode", "Automatic"}, {"certManagerCertificateSpec", spec}}}}})}}));
        return call.status == 201 ? std::string() : text_at(answer, "message");
    };
    EXPECT_NE(listener("24h", "48h").find("spec.ports[0].tls.certManagerCertificateSpec.renewBefore: Invalid value: \"48h\": must be at least 5m and below the duration (24h)"), std::string::npos);
    EXPECT_NE(listener("24h", "24h").find("renewBefore"), std::string::npos) << "as long is too long";
    EXPECT_NE(listener("24h", "1m").find("renewBefore"), std::string::npos);
    EXPECT_NE(listener("", "2160h").find("below the duration (2160h)"), std::string::npos) << "of the default";
    EXPECT_NE(listener("10m", "5m").find("at least 1h"), std::string::npos);
    EXPECT_EQ(listener("24h", "8h"), "");
    const auto answer = call("POST", "/apis/cert-manager.io/v1/namespaces/default/certificates", {{"metadata", {{"name", "c"}}}, {"spec", {{"secretName", "s"}, {"issuerRef", {{"name", "i"}}}, {"duration", "2h"}, {"renewBefore", "3h"}}}});
    EXPECT_NE(text_at(answer, "message").find("spec.renewBefore"), std::string::npos) << answer;
    EXPECT_NE(text_at(call("POST", place("v1", "brokers"), old_object("v1", "Broker", "default", {{"advanced", {{"internalCerts", {{"duration", "2h"}, {"renewBefore", "3h"}, {"privateKey", Json::object()}}}}}})), "message").find("spec.advanced.internalCerts.renewBefore"), std::string::npos);
}

TEST(Renewal, of_a_percentage_is_at_least_five_minutes_ahead_too) {
    Client call;
    const std::string all = "/apis/cert-manager.io/v1/namespaces/default/certificates";
    auto made = [&](const char* name, Json times) {
        Json spec = {{"secretName", "s"}, {"issuerRef", {{"name", "i"}}}};
        spec.update(times);
        const auto answer = call("POST", all, {{"metadata", {{"name", name}}}, {"spec", spec}});
        return call.status == 201 ? std::string() : text_at(answer, "message");
    };
    // As cert-manager since its fix of the percentage: what counts is the time that is left at renewal.
    const auto little = made("a", {{"duration", "1h"}, {"renewBeforePercentage", 8}});
    EXPECT_NE(little.find("spec.renewBeforePercentage: Invalid value: 8: of the duration (1h) must be at least 5m, so at least 9"), std::string::npos) << little;
    EXPECT_EQ(made("b", {{"duration", "1h"}, {"renewBeforePercentage", 9}}), "");
    EXPECT_EQ(made("c", {{"duration", "1h"}, {"renewBeforePercentage", 99}}), "");
    EXPECT_EQ(made("d", {{"renewBeforePercentage", 1}}), "") << "of 2160h";
    EXPECT_NE(made("e", {{"renewBefore", "8h"}, {"renewBeforePercentage", 50}}).find("spec.renewBeforePercentage: Invalid value: 50: stands beside renewBefore, and only one of them can"), std::string::npos);
    EXPECT_EQ(made("f", {{"renewBefore", "5m"}}), "");
    EXPECT_NE(made("g", {{"renewBefore", "4m59s"}}).find("at least 5m"), std::string::npos);
    call("PATCH", all + "/b", {{"spec", {{"renewBeforePercentage", 1}}}}, "application/merge-patch+json");
    EXPECT_EQ(call.status, 422);
}

TEST(Renewal, its_rule_stands_where_people_look) {
    for (const char* word : {"broker", "brokerlistener", "certificate"}) {
        const auto page = reference_page(*resources::find_kind_by_word(word));
        std::map<std::string, std::string> rows;   // by the last part of the path
        for (const auto row : split(page, '\n'))
            for (const char* field : {"duration", "renewBefore"})
                if (row.find(fmt::format(".{}`", field)) != std::string_view::npos) rows[field] = row;
        EXPECT_NE(rows["duration"].find("at least 1h"), std::string::npos) << rows["duration"];
        EXPECT_NE(rows["renewBefore"].find("at least 5m, and below `duration`"), std::string::npos) << rows["renewBefore"];
        for (const auto& [field, row] : rows) EXPECT_NE(row.find("| string: a duration in h, m and s, such as 240h or 45m, up to 64 characters |"), std::string::npos) << field << row;
    }
    EXPECT_NE(reference_page(listener_kind()).find("a third of the lifetime when absent"), std::string::npos);
}

TEST(Columns, that_are_wide_come_where_kubernetes_has_them) {
    auto names = [](const char* api_version, const char* kind) {
        std::string out;
        const auto table = api::make_table(*resources::find_kind(api_version, kind), {}, "1", "None", true);
        for (const auto& column : table["columnDefinitions"]) out += text_at(column, "name") + " ";
        return out;
    };
    EXPECT_EQ(names("mqttbroker.iotoperations.azure.com/v1", "BrokerListener"), "Name Type Ports Status Health TLS Authentication Message Age ") << "of a definition: as declared, the age last";
    EXPECT_EQ(names("cert-manager.io/v1", "Certificate"), "Name Ready Secret Issuer Status Age ");
    EXPECT_TRUE(names("v1", "Service").ends_with("Age Selector ")) << "of Kubernetes itself: after the age";
    const auto of_definition = resources::Kind{.group = "example.com", .version = "v1", .kind = "Valve", .plural = "valves", .dynamic = true, .columns = {{"Spec", ".spec.a", "string", 1}, {"Age", ".metadata.creationTimestamp", "date"}}};
    EXPECT_EQ(api::make_table(of_definition, {}, "1", "None", true)["columnDefinitions"].size(), 3u) << "a definition that names columns names them all: no second age";
    const auto object = std::make_shared<const Json>(old_object("v1", "BrokerListener", "lan", {{"ports", Json::array({{{"port", 1}, {"tls", {{"mode", "Manual"}}}, {"authenticationRef", "default"}}, {{"port", 2}}})}}));
    const auto table = api::make_table(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener"), {object}, "1", "None", true);
    EXPECT_EQ(table["rows"][0]["cells"][5], "Manual,none");
    EXPECT_EQ(table["rows"][0]["cells"][6], "default,none");
}

TEST(Explain, has_enumerations_defaults_and_what_has_no_effect) {
    const auto& schema = resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker")->schema;
    const auto spec = schema["properties"]["spec"]["properties"];
    EXPECT_TRUE(text_at(spec["memoryProfile"], "description").ends_with("One of: Tiny, Low, Medium, High. Default: Medium."));
    EXPECT_NE(text_at(spec["advanced"]["properties"]["encryptInternalTraffic"], "description").find("No effect on one machine: there is one process"), std::string::npos);
}

TEST(Definitions, of_all_kinds_are_structural) {
    int count = 0;
    for (const auto& kind : resources::all_kinds()) {
        if (kind.group != "mqttbroker.iotoperations.azure.com") continue;
        ++count;
        const auto definition = resources::definition_of(kind);
        std::vector<resources::Fault> faults;
        resources::check_structural(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "schema", faults);
        for (const auto& fault : faults) ADD_FAILURE() << kind.kind << ": " << fault.path << ": " << fault.message;
        EXPECT_EQ(definition.dump().find("x-kubernetes-patch"), std::string::npos);
        EXPECT_EQ(definition["metadata"]["name"], kind.plural + "." + kind.group);
    }
    EXPECT_EQ(count, 4);
    const auto broker = resources::definition_of(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker"));
    EXPECT_EQ(broker["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["memoryProfile"]["pattern"], "(?i)^(Tiny|Low|Medium|High)$");
}

}  // namespace
}  // namespace penstock
