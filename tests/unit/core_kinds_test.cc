// Rules of the kinds of Kubernetes itself, paging, definitions, deletion, rights and tokens.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/clock.h"
#include "base/given_clock.h"
#include "base/text.h"
#include "control/housekeeper.h"
#include "control/work_queue.h"
#include "crypto/signature.h"
#include "registry/database.h"
#include "registry/registry.h"
#include "resources/json_schema.h"

namespace penstock {
namespace {

using registry::Registry;
using resources::Json;
using resources::text_at;

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
constexpr const char* space = "default";

Json named(const char* name, Json rest = Json::object()) {
    rest["metadata"]["name"] = name;
    return rest;
}

class Core : public testing::Test {
  protected:
    std::unique_ptr<Registry> r = Registry::open(":memory:").value();
    Json make(const char* kind, Json object) {
        const auto made = r->create(core(kind), core(kind).namespaced ? space : "", std::move(object));
        EXPECT_TRUE(made) << (made ? "" : made.error().message);
        return made ? **made : Json();
    }
    std::string refused(const char* kind, Json object) {
        const auto made = r->create(core(kind), core(kind).namespaced ? space : "", std::move(object));
        return made ? "was taken" : made.error().message;
    }
    Json merge(const char* kind, const char* name, const Json& patch) {
        const auto done = r->patch(core(kind), space, name, registry::PatchType::merge, patch, false);
        EXPECT_TRUE(done) << (done ? "" : done.error().message);
        return done ? **done : Json();
    }
};

TEST_F(Core, secrets) {
    const auto plain = make("Secret", named("s", {{"stringData", {{"a", "b"}}}}));
    EXPECT_EQ(plain["data"]["a"], "Yg==");
    EXPECT_FALSE(plain.contains("stringData"));
    EXPECT_EQ(plain["type"], "Opaque");
    EXPECT_NE(refused("Secret", named("x", {{"data", {{"a", "no base64!"}}}})).find("illegal base64 data"), std::string::npos);
    EXPECT_NE(refused("Secret", named("x", {{"type", "kubernetes.io/tls"}})).find("data[tls.crt]: Required value"), std::string::npos);
    EXPECT_NE(refused("Secret", named("x", {{"type", "kubernetes.io/dockerconfigjson"}, {"data", {{".dockerconfigjson", base64_encode("{")}}}})).find(".dockerconfigjson"), std::string::npos);
    EXPECT_NE(refused("Secret", named("x", {{"type", "kubernetes.io/service-account-token"}})).find("kubernetes.io/service-account.name"), std::string::npos);
    EXPECT_NE(refused("Secret", named("x", {{"data", {{"a", base64_encode(std::string(1'100'000, 'x'))}}}})).find("Too long"), std::string::npos);
    EXPECT_FALSE(r->patch(core("Secret"), space, "s", registry::PatchType::merge, {{"type", "other"}}, false)) << "the type stays";
    merge("Secret", "s", {{"immutable", true}});
    EXPECT_FALSE(r->patch(core("Secret"), space, "s", registry::PatchType::merge, {{"data", {{"a", "Yw=="}}}}, false));
}

// A password that is written without quotes is a number in YAML.
TEST_F(Core, what_is_no_text_in_a_secret_is_refused_and_not_lost) {
    const Json wrong[] = {5, 1.5, true, Json::array({"a"}), Json::object({{"a", "b"}})};
    auto apply = [&](Json object) {
        object["apiVersion"] = "v1";
        object["kind"] = "Secret";
        const auto done = r->patch(core("Secret"), space, text_at(object, "metadata.name"), registry::PatchType::apply, object, false, {.manager = "me"});
        return done ? "was taken" : std::to_string(done.error().code) + " " + done.error().message;
    };
    make("Secret", named("there"));
    for (const auto& value : wrong) {
        const auto item = named("x", {{"stringData", {{"password", value}, {"user", "u"}}}});
        EXPECT_NE(refused("Secret", item).find("stringData[password]: Invalid value"), std::string::npos) << value << refused("Secret", item);
        EXPECT_NE(apply(item).find("password"), std::string::npos) << value << apply(item);
        EXPECT_TRUE(apply(item).starts_with("422 ")) << apply(item);
        const auto patched = r->patch(core("Secret"), space, "there", registry::PatchType::merge, {{"stringData", {{"password", value}}}}, false);
        EXPECT_FALSE(patched) << value;
        for (const char* field : {"stringData", "data"}) {
            if (value.is_object()) continue;   // of texts it would be right
            auto object = named("x", {{"stringData", {{"user", "u"}}}});
            object[field] = value;
            EXPECT_NE(refused("Secret", object).find(std::string(field) + ": Invalid value"), std::string::npos) << field << value << refused("Secret", object);
            EXPECT_TRUE(apply(object).starts_with("422 ")) << apply(object);
            EXPECT_NE(apply(object).find(field), std::string::npos) << apply(object);
        }
    }
    for (const char* text : {"xx", ""}) {
        const auto object = named("x", {{"data", text}, {"stringData", {{"user", "u"}}}});
        EXPECT_NE(refused("Secret", object).find("data: Invalid value"), std::string::npos);
        EXPECT_TRUE(apply(object).starts_with("422 ")) << apply(object);
    }
    EXPECT_FALSE(r->get(core("Secret"), space, "x"));
    EXPECT_FALSE((*r->get(core("Secret"), space, "there"))->contains("data"));
    EXPECT_EQ(apply(named("x", {{"data", nullptr}, {"stringData", {{"user", "u"}}}})), "was taken");
    EXPECT_EQ((**r->get(core("Secret"), space, "x"))["data"]["user"], "dQ==");
}

/// Each field below `fields`: visit(pointer, path as messages name it, field). The first item stands for each of a list.
void each_field(const std::vector<resources::Field>& fields, const std::string& pointer, const std::string& path,
                const std::function<void(const std::string&, const std::string&, const resources::Field&)>& visit) {
    for (const auto& field : fields) {
        const auto below = pointer + "/" + field.name, name = path.empty() ? field.name : path + "." + field.name;
        visit(below, name, field);
        const bool is_list = field.type == resources::Type::array;
        if (is_list && !field.items.empty()) {
            visit(below + "/0", name + "[0]", field.items[0]);
            each_field(field.items[0].fields, below + "/0", name + "[0]", visit);
        }
        each_field(field.fields, below, name, visit);
    }
}

TEST_F(Core, no_default_takes_the_place_of_a_wrong_type) {
    const Json values[] = {0, 7, true, "", "x", 1.5, 1e308, 99'999'999'999, 18'446'744'073'709'551'615u, Json::object(), Json::array()};
    int looked_at = 0;
    auto look = [&](const resources::Kind& kind, const std::string& pointer, const std::string& path) {
        for (const auto& value : values) {
            Json object = {{"apiVersion", kind.api_version()}, {"kind", kind.kind}, {"metadata", {{"name", "x"}}}};
            object[Json::json_pointer(pointer)] = value;
            const auto faults = resources::validate(kind, object);
            const auto about = std::ranges::find_if(faults, [&](const auto& fault) { return fault.path == path && (fault.reason == "FieldValueTypeInvalid" || path.ends_with("nodePort")); });
            if (about == faults.end()) continue;
            ++looked_at;
            const auto made = r->create(kind, kind.namespaced ? space : "", object);
            ASSERT_FALSE(made) << kind.kind << " " << path << ": " << value << " gave " << (*made)->dump();
            EXPECT_NE(made.error().message.find(path.substr(path.rfind('.') + 1)), std::string::npos) << kind.kind << " " << path << ": " << value << ": " << made.error().message;
            EXPECT_LT(made.error().code, 500) << made.error().message;
        }
    };
    for (const auto& kind : resources::all_kinds()) {
        if (kind.dynamic) continue;
        each_field(kind.fields, "", "", [&](const std::string& pointer, const std::string& path, const resources::Field&) {
            if (path != "status" && !path.starts_with("status.") && !path.starts_with("status[")) look(kind, pointer, path);
        });
        for (const char* field : {"generateName", "namespace", "uid", "resourceVersion", "labels", "annotations", "creationTimestamp", "generation", "deletionGracePeriodSeconds"})
            look(kind, std::string("/metadata/") + field, std::string("metadata.") + field);
    }
    EXPECT_GT(looked_at, 1000);
}

TEST_F(Core, config_maps) {
    EXPECT_NE(refused("ConfigMap", named("m", {{"data", {{"a b", "x"}}}})).find("valid config key"), std::string::npos);
    EXPECT_NE(refused("ConfigMap", named("m", {{"data", {{"a", "x"}}}, {"binaryData", {{"a", "eA=="}}}})).find("duplicate of key"), std::string::npos);
    EXPECT_NE(refused("ConfigMap", named("Bad_Name")).find("RFC 1123"), std::string::npos);
    EXPECT_NE(refused("ConfigMap", {{"metadata", {{"name", "m"}, {"labels", {{"a", "not a value"}}}}}}).find("a valid label"), std::string::npos);
    const auto made = make("ConfigMap", {{"metadata", {{"generateName", "x-"}, {"uid", "mine"}, {"creationTimestamp", nullptr}}}, {"unknown", 1}});
    EXPECT_TRUE(text_at(made, "metadata.name").starts_with("x-"));
    EXPECT_NE(text_at(made, "metadata.uid"), "mine");
    EXPECT_FALSE(made.contains("unknown")) << "unknown fields of built-in kinds are dropped";
    EXPECT_FALSE(made["metadata"].contains("generation")) << "kinds without a status have none";
}

// As Kubernetes has it (core/v1 EndpointSubset; pkg/apis/core/validation, validateEndpointSubsets), but for addresses of the machine
// itself, which are where Penstock's own Services lead.
TEST_F(Core, endpoints_have_addresses_and_ports_that_are_some) {
    auto address = [](Json rest) {
        rest.emplace("ip", "10.0.0.97");
        return Json{{"subsets", Json::array({{{"addresses", Json::array({std::move(rest)})}, {"ports", Json::array({{{"port", 80}}})}}})}};
    };
    auto port = [](Json rest) { return Json{{"subsets", Json::array({{{"notReadyAddresses", Json::array({{{"ip", "10.0.0.97"}}})}, {"ports", Json::array({std::move(rest)})}}})}}; };
    for (const auto& [what, field] : std::vector<std::pair<Json, const char*>>{{address({{"nodeName", 7}}), "subsets[0].addresses[0].nodeName"},
                                                                              {address({{"nodeName", "A B"}}), "subsets[0].addresses[0].nodeName"},
                                                                              {address({{"hostname", 5}}), "subsets[0].addresses[0].hostname"},
                                                                              {address({{"hostname", "a.b"}}), "subsets[0].addresses[0].hostname"},
                                                                              {address({{"targetRef", "x"}}), "subsets[0].addresses[0].targetRef"},
                                                                              {address({{"ip", "abc"}}), "subsets[0].addresses[0].ip"},
                                                                              {address({{"ip", "10.0.0.300"}}), "subsets[0].addresses[0].ip"},
                                                                              {address({{"ip", "0.0.0.0"}}), "subsets[0].addresses[0].ip"},
                                                                              {address({{"ip", ""}}), "subsets[0].addresses[0].ip"},
                                                                              {address({{"ip", nullptr}}), "subsets[0].addresses[0].ip"},
                                                                              {port({{"port", 99999}}), "subsets[0].ports[0].port"},
                                                                              {port({{"port", 0}}), "subsets[0].ports[0].port"},
                                                                              {port({{"name", "a"}}), "subsets[0].ports[0].port"},
                                                                              {port({{"port", 80}, {"protocol", "pigeon"}}), "subsets[0].ports[0].protocol"}}) {
        const auto why = refused("Endpoints", named("e", what));
        EXPECT_NE(why.find(field), std::string::npos) << what << ": " << why;
    }
    const auto made = make("Endpoints", named("good", address({{"ip", "2001:db8::1"}, {"hostname", "h-1"}, {"nodeName", "n.example"}, {"targetRef", {{"kind", "Pod"}, {"name", "p"}}}})));
    EXPECT_EQ(made["subsets"][0]["ports"][0]["protocol"], "TCP");
    make("Endpoints", named("own", address({{"ip", "127.0.0.1"}})));
}

TEST_F(Core, services_are_given_addresses_and_ports) {
    const Json ports = {{{"port", 80}}};
    const auto one = make("Service", named("one", {{"spec", {{"type", "NodePort"}, {"ports", ports}}}}));
    EXPECT_TRUE(text_at(one, "spec.clusterIP").starts_with("10.43."));
    EXPECT_EQ(one["spec"]["ports"][0]["nodePort"], 30'000);
    EXPECT_EQ(one["spec"]["ports"][0]["targetPort"], 80);
    const auto two = make("Service", named("two", {{"spec", {{"type", "LoadBalancer"}, {"ports", ports}}}}));
    EXPECT_EQ(two["spec"]["ports"][0]["nodePort"], 30'001);
    EXPECT_NE(one["spec"]["clusterIP"], two["spec"]["clusterIP"]);
    auto sent = one;
    sent["spec"].erase("clusterIP");
    sent["spec"]["ports"][0].erase("nodePort");
    const auto kept = r->update(core("Service"), space, "one", sent, false);
    ASSERT_TRUE(kept);
    EXPECT_EQ((**kept)["spec"]["clusterIP"], one["spec"]["clusterIP"]) << "what is left out keeps what was allocated";
    EXPECT_EQ((**kept)["spec"]["ports"][0]["nodePort"], 30'000);
    const auto closed = merge("Service", "one", {{"spec", {{"type", "ClusterIP"}}}});
    EXPECT_FALSE(closed["spec"]["ports"][0].contains("nodePort")) << "a type without node ports gives them up";
    EXPECT_FALSE(closed["spec"].contains("externalTrafficPolicy"));
    EXPECT_FALSE(r->patch(core("Service"), space, "one", registry::PatchType::merge, {{"spec", {{"clusterIP", "10.43.9.9"}}}}, false));
    EXPECT_NE(refused("Service", named("three", {{"spec", {{"ports", {{{"port", 80}}, {{"port", 81}}}}}}})).find("spec.ports[0].name: Required value"), std::string::npos);
    EXPECT_NE(refused("Service", named("three", {{"spec", {{"type", "NodePort"}, {"ports", {{{"port", 80}, {"nodePort", 30'001}}}}}}})).find("already allocated"), std::string::npos);
    EXPECT_NE(refused("Service", named("9lives", {{"spec", {{"ports", ports}}}})).find("DNS-1035"), std::string::npos);
}

// As ValidateObjectMeta of apimachinery has it.
TEST_F(Core, what_every_object_has_is_checked_as_kubernetes_checks_it) {
    const Json owner = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"name", "o"}, {"uid", "1-2"}};
    auto without = [&](const char* field) {
        auto out = owner;
        out[field] = "";
        return Json::array({out});
    };
    auto leads = owner;
    leads["controller"] = true;
    auto second = leads;
    second["uid"] = "3-4";
    const auto long_key = std::string(64, 'k');
    for (const auto& [metadata, fault] : std::vector<std::pair<Json, const char*>>{
             {{{"finalizers", {"x y"}}}, "metadata.finalizers: Invalid value: \"x y\": name part must consist of"},
             {{{"finalizers", {""}}}, "metadata.finalizers: Invalid value: \"\": name part"},
             {{{"finalizers", {"a/b/c"}}}, "metadata.finalizers: Invalid value"},
             {{{"finalizers", {"hold"}}}, "name is neither a standard finalizer name nor is it fully qualified"},
             {{{"finalizers", {"orphan", "foregroundDeletion"}}}, "cannot be both set"},
             {{{"ownerReferences", without("uid")}}, "metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty"},
             {{{"ownerReferences", without("name")}}, "metadata.ownerReferences.name: Invalid value: \"\": name must not be empty"},
             {{{"ownerReferences", without("kind")}}, "metadata.ownerReferences.kind: Invalid value: \"\": kind must not be empty"},
             {{{"ownerReferences", without("apiVersion")}}, "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty"},
             {{{"ownerReferences", Json::array({Json::object()})}}, "metadata.ownerReferences.uid: Invalid value"},
             {{{"ownerReferences", {leads, second}}}, "Only one reference can have Controller set to true"},
             {{{"ownerReferences", Json::array({{{"apiVersion", "v1"}, {"kind", "Event"}, {"name", "e"}, {"uid", "1"}}})}}, "disallowed from being an owner"},
             {{{"generateName", "Not Good-"}}, "metadata.generateName: Invalid value: \"Not Good-\""},
             {{{"labels", {{long_key, "v"}}}}, "metadata.labels: Invalid value"},
             {{{"annotations", {{"a b", "v"}}}}, "metadata.annotations: Invalid value"},
             {{{"annotations", {{"a", std::string(200'000, 'x')}, {"b", std::string(62'143, 'x')}}}}, "metadata.annotations: Too long: may not be more than 262144 bytes"}}) {
        auto object = named("m");
        object["metadata"].update(metadata);
        const auto answer = r->create(core("ConfigMap"), space, object);
        ASSERT_FALSE(answer) << metadata.dump().substr(0, 200);
        EXPECT_EQ(answer.error().code, 422);
        EXPECT_NE(answer.error().message.find(fault), std::string::npos) << answer.error().message;
    }
    auto object = named("m");
    object["metadata"].update({{"finalizers", {"a.b/c", "kubernetes", "orphan"}}, {"ownerReferences", Json::array({leads})}, {"annotations", {{"A.b/C", std::string(200'000, 'x')}, {"b", std::string(62'138, 'x')}}}});
    const auto made = make("ConfigMap", object);
    const auto generated = make("ConfigMap", {{"metadata", {{"generateName", std::string(100, 'g') + "-"}}}});
    EXPECT_EQ(text_at(generated, "metadata.name").size(), 63u) << "58 characters of it, and five";
    for (const auto& [field, value] : std::vector<std::pair<const char*, Json>>{{"creationTimestamp", "2001-01-01T00:00:00Z"}, {"deletionTimestamp", "2001-01-01T00:00:00Z"}, {"deletionGracePeriodSeconds", 5}}) {
        auto changed = made;
        changed["metadata"][field] = value;
        const auto answer = r->update(core("ConfigMap"), space, "m", changed, false);
        ASSERT_FALSE(answer) << field;
        EXPECT_EQ(answer.error().code, 422);
        EXPECT_NE(answer.error().message.find(std::string("metadata.") + field + ": Invalid value: "), std::string::npos) << answer.error().message;
        changed["metadata"][field] = nullptr;
        EXPECT_TRUE(r->update(core("ConfigMap"), space, "m", changed, false)) << field << " left out is as it was";
    }
}

TEST_F(Core, deletion_with_finalizers) {
    make("ConfigMap", {{"metadata", {{"name", "m"}, {"finalizers", {"a.b/c"}}}}});
    const auto first = r->remove(core("ConfigMap"), space, "m");
    ASSERT_TRUE(first);
    EXPECT_FALSE(first->is_gone);
    const auto version = r->version();
    ASSERT_TRUE(r->remove(core("ConfigMap"), space, "m"));
    EXPECT_EQ(r->version(), version) << "a second delete changes nothing";
    EXPECT_NE(refused("ConfigMap", named("m")).find("object is being deleted: "), std::string::npos);
    const auto more = r->patch(core("ConfigMap"), space, "m", registry::PatchType::merge, {{"metadata", {{"finalizers", {"a.b/c", "a.b/d"}}}}}, false);
    ASSERT_FALSE(more);
    EXPECT_NE(more.error().message.find("no new finalizers can be added"), std::string::npos);
    std::vector<registry::Event> events;
    const auto before = r->version();
    ASSERT_TRUE(r->patch(core("ConfigMap"), space, "m", registry::PatchType::merge, {{"metadata", {{"finalizers", nullptr}}}}, false));
    ASSERT_TRUE(r->events_since(before, nullptr, "", events));
    ASSERT_EQ(events.size(), 1u) << "no MODIFIED for the last write";
    EXPECT_EQ(events[0].type, registry::Event::Type::deleted);
}

TEST_F(Core, pages_are_of_one_version) {
    for (int i = 0; i < 10; ++i) make("ConfigMap", named(("m" + std::to_string(i)).c_str()));
    auto page = r->list_page(core("ConfigMap"), space, 4, "");
    ASSERT_TRUE(page);
    EXPECT_EQ(page->remaining, 6u);
    r->remove(core("ConfigMap"), space, "m7").value();
    make("ConfigMap", named("m55"));
    merge("ConfigMap", "m8", {{"data", {{"a", "new"}}}});
    std::vector<std::string> names;
    std::string last_data;
    while (true) {
        for (const auto& item : page->items) {
            names.push_back(text_at(*item, "metadata.name"));
            if (names.back() == "m8") last_data = (*item).dump();
        }
        if (page->next.empty()) break;
        page = r->list_page(core("ConfigMap"), space, 4, page->next);
        ASSERT_TRUE(page) << page.error().message;
    }
    EXPECT_EQ(names, (std::vector<std::string>{"m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"}));
    EXPECT_EQ(last_data.find("new"), std::string::npos);
    EXPECT_EQ(r->list_page(core("ConfigMap"), space, 4, "garbage").error().code, 400);
    auto old = r->list_page(core("ConfigMap"), space, 2, "");
    for (int i = 0; i < 10'010; ++i) merge("ConfigMap", "m1", {{"data", {{"i", std::to_string(i)}}}});
    EXPECT_EQ(r->list_page(core("ConfigMap"), space, 2, old->next).error().code, 410);
}

TEST_F(Core, definitions_serve_kinds) {
    Json schema = {{"type", "object"}, {"properties", {{"spec", {{"type", "object"}, {"required", {"opening"}}, {"properties", {{"opening", {{"type", "integer"}, {"minimum", 0}, {"maximum", 100}}}, {"mode", {{"type", "string"}, {"default", "auto"}}},
                                                                                                                              {"tags", {{"type", "array"}, {"items", {{"type", "string"}}}, {"x-kubernetes-list-type", "set"}}}}}}}}}};
    Json definition = {{"metadata", {{"name", "valves.example.com"}}},
                       {"spec", {{"group", "example.com"}, {"scope", "Namespaced"}, {"names", {{"plural", "valves"}, {"kind", "Valve"}}},
                                 {"versions", Json::array({{{"name", "v1"}, {"served", true}, {"storage", true}, {"schema", {{"openAPIV3Schema", schema}}}}, {{"name", "v2"}, {"served", true}, {"storage", false}, {"schema", {{"openAPIV3Schema", schema}}}}})}}}};
    const auto& crd = *resources::find_kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    const auto made = r->create(crd, "", definition);
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ((**made)["status"]["conditions"][1]["type"], "Established");
    const auto* kind = r->find_kind("example.com/v1", "Valve");
    ASSERT_NE(kind, nullptr);
    ASSERT_NE(r->find_kind("example.com/v2", "Valve"), nullptr);
    std::vector<std::string> warnings;
    const auto valve = r->create(*kind, space, named("inlet", {{"spec", {{"opening", 30}, {"colour", "red"}}}}), {.warnings = &warnings});
    ASSERT_TRUE(valve) << valve.error().message;
    EXPECT_EQ((**valve)["spec"]["mode"], "auto");
    EXPECT_FALSE((**valve)["spec"].contains("colour")) << "pruned";
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_EQ(warnings[0], "unknown field \"spec.colour\"");
    EXPECT_EQ((**valve)["metadata"]["generation"], 1);
    const auto bad = r->create(*kind, space, named("bad", {{"spec", {{"opening", 300}, {"tags", {"a", "a"}}, {"mode", 5}}}}));
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().details["causes"].size(), 3u) << bad.error().message;
    EXPECT_EQ(r->update(*kind, space, "inlet", named("inlet", {{"spec", {{"opening", 1}}}}), false).error().code, 422) << "an update without a version is refused for custom kinds";
    // The same objects under the other version.
    EXPECT_EQ(r->list(*r->find_kind("example.com/v2", "Valve"), "").items.size(), 1u);
    auto wrong = definition;
    wrong["metadata"]["name"] = "wrong";
    wrong["spec"]["versions"][1]["storage"] = true;
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["opening"]["type"] = "whole";
    const auto faults = r->create(crd, "", wrong);
    ASSERT_FALSE(faults);
    EXPECT_EQ(faults.error().details["causes"].size(), 3u) << faults.error().message;
    r->remove(crd, "", "valves.example.com").value();
    EXPECT_EQ(r->find_kind("example.com/v1", "Valve"), nullptr);
}

TEST(Definitions, survive_a_restart_with_their_objects) {
    const auto path = testing::TempDir() + "penstock-crd-" + std::to_string(::getpid()) + ".sqlite";
    const auto& crd = *resources::find_kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    {
        auto r = Registry::open(path).value();
        const Json version = {{"name", "v1"}, {"served", true}, {"storage", true}, {"schema", {{"openAPIV3Schema", {{"type", "object"}, {"x-kubernetes-preserve-unknown-fields", true}}}}}};
        ASSERT_TRUE(r->create(crd, "", {{"metadata", {{"name", "pumps.example.com"}}}, {"spec", {{"group", "example.com"}, {"scope", "Cluster"}, {"names", {{"plural", "pumps"}, {"kind", "Pump"}}}, {"versions", {version}}}}}));
        ASSERT_TRUE(r->create(*r->find_kind("example.com/v1", "Pump"), "", named("p", {{"spec", {{"any", {{"thing", 1}}}}}})));
    }
    auto r = Registry::open(path).value();
    const auto* kind = r->find_kind("example.com/v1", "Pump");
    ASSERT_NE(kind, nullptr);
    EXPECT_EQ((**r->get(*kind, "", "p"))["spec"]["any"]["thing"], 1);
    for (const char* tail : {"", "-wal", "-shm", ".mark"}) std::remove((path + tail).c_str());
}

TEST(Definitions, what_a_stricter_schema_refuses_stays_readable_and_is_marked) {
    const auto path = testing::TempDir() + "penstock-strict-" + std::to_string(::getpid()) + ".sqlite";
    const auto& crd = *resources::find_kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    auto definition = [](int maximum) {
        const Json version = {{"name", "v1"}, {"served", true}, {"storage", true}, {"schema", {{"openAPIV3Schema", {{"type", "object"}, {"properties", {{"size", {{"type", "integer"}, {"maximum", maximum}}}}}}}}}};
        return Json{{"metadata", {{"name", "tanks.example.com"}}}, {"spec", {{"group", "example.com"}, {"scope", "Cluster"}, {"names", {{"plural", "tanks"}, {"kind", "Tank"}}}, {"versions", {version}}}}};
    };
    {
        auto r = Registry::open(path).value();
        ASSERT_TRUE(r->create(crd, "", definition(100)));
        ASSERT_TRUE(r->create(*r->find_kind("example.com/v1", "Tank"), "", named("t", {{"size", 50}})));
        ASSERT_TRUE(r->patch(crd, "", "tanks.example.com", registry::PatchType::merge, {{"spec", {{"versions", definition(10)["spec"]["versions"]}}}}, false));
    }
    auto r = Registry::open(path).value();
    const auto& kind = *r->find_kind("example.com/v1", "Tank");
    const auto found = r->get(kind, "", "t");
    ASSERT_TRUE(found);
    EXPECT_EQ((**found)["size"], 50);
    EXPECT_NE((**found)["metadata"]["annotations"]["penstock.io/refused-by-validation"].get<std::string>().find("size: Invalid value: 50"), std::string::npos);
    const auto fixed = r->patch(kind, "", "t", registry::PatchType::merge, {{"size", 5}}, false);
    ASSERT_TRUE(fixed) << fixed.error().message;
    EXPECT_FALSE((**fixed)["metadata"].contains("annotations"));
    for (const char* tail : {"", "-wal", "-shm", ".mark"}) std::remove((path + tail).c_str());
}

TEST(Schemas, no_pattern_takes_for_ever) {
    const Json schema = {{"type", "object"}, {"properties", {{"a", {{"type", "string"}, {"pattern", "^(a+)+$"}}}}}};
    std::vector<resources::Fault> faults;
    resources::check_schema(schema, {{"a", std::string(100'000, 'a') + "b"}}, "", faults);
    ASSERT_EQ(faults.size(), 1u);
    faults.clear();
    resources::check_schema(schema, {{"a", std::string(100'000, 'a')}}, "", faults);
    EXPECT_TRUE(faults.empty());
    resources::check_structural({{"type", "object"}, {"properties", {{"a", {{"type", "string"}, {"pattern", "(?=x)"}}}}}}, "s", faults);
    ASSERT_EQ(faults.size(), 1u) << "what RE2 does not have is refused where the definition is written";
}

TEST(Duplicates, are_named_by_their_path) {
    EXPECT_EQ(resources::duplicate_fields(R"({"a":1,"b":{"c":[{"d":1},{"d":1,"d":2}]},"a":2})"), (std::vector<std::string>{"b.c[1].d", "a"}));
    EXPECT_TRUE(resources::duplicate_fields(R"({"a":{"x":1},"b":{"x":1},"c":[1,1]})").empty());
    EXPECT_TRUE(resources::duplicate_fields("{\"a\":1,\"a\"").empty());
}

/// The API as one user sees it.
class Rights : public testing::Test {
  protected:
    std::unique_ptr<Registry> r = Registry::open(":memory:").value();
    api::Tokens tokens{*r, "https://issuer", {crypto::make_signing_key().value(), crypto::make_signing_key().value()}};
    api::Handler handler{*r, tokens, "test"};
    const api::User admin{.name = "admin", .uid = {}, .groups = {"system:masters", "system:authenticated"}, .extra = {}};
    const api::User user{.name = "eve", .uid = {}, .groups = {"system:authenticated"}, .extra = {}};
    void SetUp() override { api::Authorizer::bootstrap(*r); }
    api::Reply call(const api::User& who, const std::string& method, const std::string& path, const Json& body = {}, const std::string& token = {}, std::vector<std::pair<std::string, std::string>> as = {}) {
        return handler.handle({.method = method, .path = path, .query = {}, .accept = "", .content_type = method == "PATCH" ? "application/merge-patch+json" : "application/json", .authorization = token.empty() ? "" : "Bearer " + token,
                               .user_agent = {}, .if_none_match = {}, .impersonation = std::move(as), .upgrade = {}, .body = body.is_null() ? "" : body.dump(), .user = who});
    }
};

TEST_F(Rights, roles_and_bindings_limit) {
    const std::string maps = "/api/v1/namespaces/default/configmaps", rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/";
    EXPECT_EQ(call(user, "GET", "/apis").status, 200) << "discovery is for every authenticated user";
    EXPECT_EQ(call({}, "GET", "/apis").status, 403);
    EXPECT_EQ(call({}, "GET", "/version").status, 200);
    auto refused = call(user, "GET", maps);
    EXPECT_EQ(refused.status, 403);
    EXPECT_NE(refused.body.find("configmaps is forbidden: User \\\"eve\\\" cannot list resource \\\"configmaps\\\" in API group \\\"\\\" in the namespace \\\"default\\\""), std::string::npos) << refused.body;
    ASSERT_EQ(call(admin, "POST", rbac + "roles", {{"metadata", {{"name", "reader"}}}, {"rules", {{{"verbs", {"get", "list"}}, {"apiGroups", {""}}, {"resources", {"configmaps"}}, {"resourceNames", Json::array()}}}}}).status, 201);
    ASSERT_EQ(call(admin, "POST", rbac + "rolebindings", {{"metadata", {{"name", "eve"}}}, {"roleRef", {{"kind", "Role"}, {"name", "reader"}}}, {"subjects", {{{"kind", "User"}, {"name", "eve"}}}}}).status, 201);
    EXPECT_EQ(call(user, "GET", maps).status, 200);
    EXPECT_EQ(call(user, "GET", "/api/v1/configmaps").status, 403) << "not in all namespaces";
    EXPECT_EQ(call(user, "POST", maps, named("x")).status, 403);
    EXPECT_EQ(call(user, "GET", "/api/v1/namespaces/default/secrets").status, 403);
    ASSERT_EQ(call(admin, "POST", rbac + "roles", {{"metadata", {{"name", "granter"}}}, {"rules", {{{"verbs", {"*"}}, {"apiGroups", {"rbac.authorization.k8s.io"}}, {"resources", {"roles", "rolebindings"}}}}}}).status, 201);
    // Without the verbs bind and escalate nobody gives what they do not have; `*` includes them.
    ASSERT_EQ(call(admin, "PATCH", rbac + "roles/granter", {{"rules", {{{"verbs", {"create", "update", "patch", "get"}}, {"apiGroups", {"rbac.authorization.k8s.io"}}, {"resources", {"roles", "rolebindings"}}}}}}).status, 200);
    ASSERT_EQ(call(admin, "POST", rbac + "rolebindings", {{"metadata", {{"name", "eve2"}}}, {"roleRef", {{"kind", "Role"}, {"name", "granter"}}}, {"subjects", {{{"kind", "User"}, {"name", "eve"}}}}}).status, 201);
    refused = call(user, "POST", rbac + "roles", {{"metadata", {{"name", "more"}}}, {"rules", {{{"verbs", {"get"}}, {"apiGroups", {""}}, {"resources", {"secrets"}}}}}});
    EXPECT_EQ(refused.status, 403);
    EXPECT_NE(refused.body.find("attempting to grant RBAC permissions not currently held"), std::string::npos) << refused.body;
    EXPECT_EQ(call(user, "PATCH", rbac + "roles/reader", {{"rules", {{{"verbs", {"*"}}, {"apiGroups", {"*"}}, {"resources", {"*"}}}}}}).status, 403) << "nor by a patch";
    EXPECT_EQ(call(user, "POST", rbac + "rolebindings", {{"metadata", {{"name", "grab"}}}, {"roleRef", {{"kind", "ClusterRole"}, {"name", "cluster-admin"}}}, {"subjects", {{{"kind", "User"}, {"name", "eve"}}}}}).status, 403);
    EXPECT_EQ(call(user, "POST", rbac + "roles", {{"metadata", {{"name", "same"}}}, {"rules", {{{"verbs", {"get"}}, {"apiGroups", {""}}, {"resources", {"configmaps"}}}}}}).status, 201) << "what one has, one may give";
}

TEST_F(Rights, impersonation_is_a_right_too) {
    EXPECT_EQ(call(user, "GET", "/api", {}, {}, {{"impersonate-user", "admin"}, {"impersonate-group", "system:masters"}}).status, 403);
    EXPECT_EQ(call(admin, "GET", "/api/v1/secrets", {}, {}, {{"impersonate-user", "eve"}}).status, 403) << "the impersonated one's rights count";
    EXPECT_EQ(call(admin, "GET", "/api", {}, {}, {{"impersonate-user", "eve"}}).status, 200);
    EXPECT_EQ(call(admin, "GET", "/api", {}, {}, {{"impersonate-group", "x"}}).status, 400);
}

TEST_F(Rights, tokens) {
    ASSERT_TRUE(r->create(core("ServiceAccount"), space, named("arc-user")));
    const auto asked = call(admin, "POST", "/api/v1/namespaces/default/serviceaccounts/arc-user/token", {{"spec", {{"audiences", {"aio-internal"}}, {"expirationSeconds", 600}}}});
    ASSERT_EQ(asked.status, 201) << asked.body;
    const auto token = text_at(resources::parse_json(asked.body).value(), "status.token");
    const auto review = [&](const std::string& t, const Json& audiences) {
        return resources::parse_json(call(admin, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", {{"spec", {{"token", t}, {"audiences", audiences}}}}).body).value()["status"];
    };
    EXPECT_EQ(review(token, {"aio-internal", "x"})["audiences"], (Json{"aio-internal"}));
    EXPECT_EQ(review(token, {"aio-internal"})["user"]["username"], "system:serviceaccount:default:arc-user");
    EXPECT_FALSE(review(token, {"other"}).contains("authenticated"));
    EXPECT_FALSE(review(token + "x", {"aio-internal"}).contains("authenticated"));
    auto tampered = token;
    tampered[token.find('.') + 5] ^= 1;
    EXPECT_FALSE(review(tampered, {"aio-internal"}).contains("authenticated"));
    EXPECT_EQ(call({}, "GET", "/api", {}, token).status, 401) << "the audience is not this API's";
    const auto own = text_at(resources::parse_json(call(admin, "POST", "/api/v1/namespaces/default/serviceaccounts/arc-user/token", {{"spec", Json::object()}}).body).value(), "status.token");
    EXPECT_EQ(call({}, "GET", "/api", {}, own).status, 200);
    EXPECT_EQ(call({}, "GET", "/api/v1/secrets", {}, own).status, 403);
    EXPECT_EQ(call(admin, "POST", "/api/v1/namespaces/default/serviceaccounts/arc-user/token", {{"spec", {{"expirationSeconds", 60}}}}).status, 422);
    EXPECT_EQ(call(admin, "POST", "/api/v1/namespaces/default/serviceaccounts/nobody/token", {{"spec", Json::object()}}).status, 404);
    r->remove(core("ServiceAccount"), space, "arc-user").value();
    EXPECT_FALSE(review(token, {"aio-internal"}).contains("authenticated")) << "the account is gone";
    ASSERT_TRUE(r->create(core("ServiceAccount"), space, named("arc-user")));
    EXPECT_FALSE(review(token, {"aio-internal"}).contains("authenticated")) << "another of the same name is another";
    EXPECT_EQ(tokens.key_set()["keys"].size(), 2u);
}

TEST_F(Rights, a_collection_is_deleted_by_its_selector) {
    for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(r->create(core("ConfigMap"), space, {{"metadata", {{"name", name}, {"labels", {{"n", name}}}}}}));
    const auto deleted = handler.handle({.method = "DELETE", .path = "/api/v1/namespaces/default/configmaps", .query = {{"labelSelector", "n in (a,b)"}}, .accept = {}, .content_type = {}, .authorization = {}, .user_agent = {}, .if_none_match = {},
                                         .impersonation = {}, .upgrade = {}, .body = {}, .user = admin});
    EXPECT_EQ(deleted.status, 200);
    EXPECT_EQ(resources::parse_json(deleted.body).value()["items"].size(), 2u);
    EXPECT_EQ(r->list(core("ConfigMap"), space).items.size(), 1u);
    EXPECT_EQ(call(user, "DELETE", "/api/v1/namespaces/default/configmaps").status, 403);
}

// A script's empty variable leaves the path of a collection: in Kubernetes Namespace has no deletecollection, and no kind has one of all
// namespaces (apiserver, installer.go).
TEST_F(Rights, a_path_without_a_name_never_means_everything) {
    const std::string maps = "/api/v1/namespaces/default/configmaps";
    ASSERT_TRUE(r->create(core("ConfigMap"), space, named("stays")));
    const auto namespaces = r->list(core("Namespace"), "").items.size();
    ASSERT_GT(namespaces, 1u);
    for (const char* path : {"/api/v1/namespaces", "/api/v1/namespaces/", "/api/v1/configmaps", "/api/v1/configmaps/",
                             "/api/v1/namespaces/default/configmaps/",
                             "/apis/mqttbroker.iotoperations.azure.com/v1/brokers",
                             "/apis/mqttbroker.iotoperations.azure.com/v1beta1/brokers",
                             "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"}) {
        const auto answer = call(admin, "DELETE", path);
        EXPECT_EQ(answer.status, 405) << path << ": " << answer.body;
        EXPECT_NE(answer.body.find("MethodNotAllowed"), std::string::npos) << answer.body;
    }
    EXPECT_EQ(call(admin, "DELETE", maps + "/stays/").status, 405) << "one that is named is named without a slash";
    EXPECT_EQ(r->list(core("Namespace"), "").items.size(), namespaces);
    EXPECT_TRUE(r->get(core("ConfigMap"), space, "stays"));
    EXPECT_EQ(call(user, "DELETE", "/api/v1/namespaces").status, 403) << "whoever may nothing learns nothing";
    const auto core_v1 = resources::parse_json(call(admin, "GET", "/api/v1").body).value();
    const auto& resources = core_v1["resources"];
    const auto found = std::ranges::find_if(resources, [](const Json& one) { return one["name"] == "namespaces"; });
    ASSERT_NE(found, resources.end());
    EXPECT_EQ((*found)["verbs"], Json::array({"create", "delete", "get", "list", "patch", "update", "watch"}));
    EXPECT_EQ(call(admin, "DELETE", maps).status, 200) << "of one namespace, as in Kubernetes";
    EXPECT_FALSE(r->get(core("ConfigMap"), space, "stays"));
}

// Options that cannot be meant are refused, rather than left out, and the object deleted (apimachinery, ValidateDeleteOptions).
TEST_F(Rights, what_a_delete_cannot_mean_deletes_nothing) {
    const std::string one = "/api/v1/namespaces/default/configmaps/stays";
    ASSERT_TRUE(r->create(core("ConfigMap"), space, named("stays")));
    auto ask = [&](const char* method, std::map<std::string, std::string> query) {
        return handler.handle({.method = method, .path = method == std::string("POST") ? one.substr(0, one.rfind('/')) : one, .query = std::move(query), .accept = {}, .content_type = "application/json", .authorization = {},
                               .user_agent = {}, .if_none_match = {}, .impersonation = {}, .upgrade = {}, .body = method == std::string("POST") ? R"({"metadata":{"name":"new"}})" : "", .user = admin});
    };
    EXPECT_EQ(ask("DELETE", {{"dryRun", ""}}).status, 422);
    EXPECT_EQ(ask("POST", {{"dryRun", ""}}).status, 422);
    EXPECT_EQ(ask("DELETE", {{"propagationPolicy", ""}}).status, 422);
    for (const auto& [body, code] : std::vector<std::pair<Json, int>>{{{{"dryRun", "All"}}, 400},
                                                                      {{{"dryRun", true}}, 400},
                                                                      {{{"dryRun", Json::array({true})}}, 400},
                                                                      {{{"dryRun", Json::array({""})}}, 422},
                                                                      {{{"dryRun", Json::array({"All", "Some"})}}, 422},
                                                                      {{{"propagationPolicy", 5}}, 400},
                                                                      {{{"propagationPolicy", ""}}, 422},
                                                                      {{{"orphanDependents", "true"}}, 400},
                                                                      {{{"preconditions", "uid"}}, 400},
                                                                      {{{"preconditions", {{"uid", 5}}}}, 400},
                                                                      {{{"preconditions", {{"resourceVersion", 5}}}}, 400},
                                                                      {Json::array({"dryRun"}), 400}}) {
        const auto answer = call(admin, "DELETE", one, body);
        EXPECT_EQ(answer.status, code) << body << ": " << answer.body;
    }
    EXPECT_TRUE(r->get(core("ConfigMap"), space, "stays"));
    EXPECT_FALSE(r->get(core("ConfigMap"), space, "new"));
    EXPECT_EQ(call(admin, "DELETE", one, {{"dryRun", Json::array({"All"})}, {"propagationPolicy", nullptr}, {"preconditions", nullptr}}).status, 200);
    EXPECT_TRUE(r->get(core("ConfigMap"), space, "stays"));
    EXPECT_EQ(call(admin, "DELETE", one, {{"dryRun", nullptr}, {"orphanDependents", false}}).status, 200);
    EXPECT_FALSE(r->get(core("ConfigMap"), space, "stays"));
}

TEST_F(Rights, reviews) {
    const auto ask = [&](const char* kind, const Json& spec) { return resources::parse_json(call(user, "POST", std::string("/apis/authorization.k8s.io/v1/") + kind, {{"spec", spec}}).body).value(); };
    EXPECT_EQ(ask("selfsubjectaccessreviews", {{"resourceAttributes", {{"verb", "get"}, {"resource", "secrets"}}}})["status"]["allowed"], false);
    EXPECT_EQ(ask("selfsubjectaccessreviews", {{"nonResourceAttributes", {{"verb", "get"}, {"path", "/api"}}}})["status"]["allowed"], true);
    EXPECT_EQ(ask("selfsubjectaccessreviews", Json::object())["code"], 422);
    EXPECT_EQ(ask("subjectaccessreviews", {{"user", "x"}})["code"], 403) << "about others only with the right to ask";
    const auto who = resources::parse_json(call(user, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", Json::object()).body).value();
    EXPECT_EQ(who["status"]["userInfo"]["username"], "eve");
}

// --- controllers ---

class Housekeeping : public testing::Test {
  protected:
    std::unique_ptr<Registry> r = Registry::open(":memory:").value();
    control::Housekeeper keeper{*r,
                                {.clock = machine_clock(),
                                 .api_ca = "CA",
                                 .make_token = [](const Json&, const Json&) { return "TOKEN"; },
                                 .version = "test",
                                 .roles = {}}};
    void SetUp() override { keeper.start(); }
    void TearDown() override { keeper.stop(); }
    bool wait(const std::function<bool()>& done) {
        for (const auto end = monotonic_ms() + 10'000; monotonic_ms() < end;) {
            if (done()) return true;
            r->wait_change(r->version(), 50);
        }
        return done();
    }
    bool has(const char* kind, const std::string& name_space, const std::string& name) { return r->get(core(kind), name_space, name).has_value(); }
};

TEST_F(Housekeeping, a_namespace_begins_and_ends) {
    ASSERT_TRUE(r->create(core("Namespace"), "", named("plant")));
    EXPECT_TRUE(wait([&] { return has("ServiceAccount", "plant", "default") && has("ConfigMap", "plant", "kube-root-ca.crt"); }));
    ASSERT_TRUE(r->create(core("ConfigMap"), "plant", {{"metadata", {{"name", "held"}, {"finalizers", {"a.b/c"}}}}}));
    r->remove(core("ConfigMap"), "plant", "kube-root-ca.crt").value();
    EXPECT_TRUE(wait([&] { return has("ConfigMap", "plant", "kube-root-ca.crt"); })) << "it comes back";
    ASSERT_TRUE(r->remove(core("Namespace"), "", "plant"));
    EXPECT_TRUE(wait([&] { return !has("ServiceAccount", "plant", "default"); }));
    const auto late = r->create(core("ConfigMap"), "plant", named("late"));
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, 403);
    EXPECT_TRUE(has("Namespace", "", "plant")) << "a finalizer of others holds it";
    ASSERT_TRUE(r->patch(core("ConfigMap"), "plant", "held", registry::PatchType::merge, {{"metadata", {{"finalizers", nullptr}}}}, false));
    EXPECT_TRUE(wait([&] { return !has("Namespace", "", "plant"); }));
    EXPECT_EQ(r->remove(core("Namespace"), "", "kube-system").error().code, 403);
}

TEST_F(Housekeeping, token_secrets_come_and_go_with_their_account) {
    ASSERT_TRUE(r->create(core("ServiceAccount"), space, named("arc-user")));
    ASSERT_TRUE(r->create(core("Secret"), space, {{"metadata", {{"name", "t"}, {"annotations", {{"kubernetes.io/service-account.name", "arc-user"}}}}}, {"type", "kubernetes.io/service-account-token"}}));
    EXPECT_TRUE(wait([&] { return text_at(**r->get(core("Secret"), space, "t"), "data.token") == base64_encode("TOKEN"); }));
    r->remove(core("ServiceAccount"), space, "arc-user").value();
    EXPECT_TRUE(wait([&] { return !has("Secret", space, "t"); }));
}

TEST_F(Housekeeping, what_has_lost_all_owners_is_collected) {
    auto owner = [&](const char* name) {
        const auto made = r->create(core("ConfigMap"), space, named(name)).value();
        return Json{{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"name", name}, {"uid", text_at(*made, "metadata.uid")}, {"blockOwnerDeletion", true}};
    };
    const auto a = owner("a"), b = owner("b");
    auto child = [&](const char* name, const Json& owners) { return r->create(core("ConfigMap"), space, {{"metadata", {{"name", name}, {"ownerReferences", owners}}}}).value(); };
    child("of-both", {a, b});
    child("of-a", Json::array({a}));
    auto other = a;
    other["uid"] = "another";
    child("of-a-dead-uid", Json::array({other}));
    EXPECT_TRUE(wait([&] { return !has("ConfigMap", space, "of-a-dead-uid"); })) << "by uid, not by name; also when the owner was gone before";
    r->remove(core("ConfigMap"), space, "a").value();
    EXPECT_TRUE(wait([&] { return !has("ConfigMap", space, "of-a"); }));
    EXPECT_TRUE(wait([&] { return (**r->get(core("ConfigMap"), space, "of-both"))["metadata"]["ownerReferences"].size() == 1; })) << "the dead reference comes off";
    r->remove(core("ConfigMap"), space, "b", {.preconditions = {}, .propagation = registry::Propagation::orphan}).value();
    EXPECT_TRUE(wait([&] { return !has("ConfigMap", space, "b"); }));
    EXPECT_TRUE(has("ConfigMap", space, "of-both")) << "orphaned, not collected";
    const auto c = owner("c");
    child("of-c", Json::array({c}));
    r->remove(core("ConfigMap"), space, "c", {.preconditions = {}, .propagation = registry::Propagation::foreground}).value();
    EXPECT_TRUE(wait([&] { return !has("ConfigMap", space, "c"); }));
    EXPECT_FALSE(has("ConfigMap", space, "of-c")) << "the dependent goes first";
}

TEST(Projection, endpoints_name_the_ports_that_are_open) {
    auto r = Registry::open(":memory:").value();
    constexpr const char* where = "azure-iot-operations";
    auto role = [](std::vector<std::pair<std::string, int>> ports, bool ready) {
        return control::Role{.pod = "aio-broker-frontend-0", .container = "broker", .component = "frontend", .log_modules = {}, .ports = std::move(ports), .ready = ready, .why_not = {}};
    };
    std::mutex guard;
    std::vector<control::Role> roles{role({{"mqtt-31884", 31884}}, false)};
    control::Housekeeper keeper{
        *r, {.clock = machine_clock(), .api_ca = "CA", .make_token = {}, .version = "test", .roles = [&] {
                 const std::lock_guard lock(guard);
                 return roles;
             }}};
    auto service = [&](const char* name, Json ports, Json owners) {
        r->create(core("Service"), where, {{"metadata", {{"name", name}, {"ownerReferences", std::move(owners)}}}, {"spec", {{"selector", {{"tier", "frontend"}}}, {"ports", std::move(ports)}}}}).value();
    };
    const auto broker = r->create(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker"), where, named("default", {{"spec", Json::object()}})).value();
    const auto listener = r->create(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener"), where, named("lan", {{"spec", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 1884}}})}}}})).value();
    service("lan", Json::array({{{"name", "a"}, {"port", 1884}, {"targetPort", 31884}}, {{"name", "b"}, {"port", 1885}}}), Json::array({{{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"kind", "BrokerListener"}, {"name", "lan"}, {"uid", text_at(*listener, "metadata.uid")}}}));
    service("by-name", Json::array({{{"port", 80}, {"targetPort", "mqtt-31884"}}}), Json::array());
    keeper.start();
    auto subsets = [&](const char* name) {
        const auto found = r->get(*resources::find_kind("v1", "Endpoints"), where, name);
        return found ? resources::at_path(**found, "subsets") : Json();
    };
    auto wait = [&](const std::function<bool()>& done) {
        for (const auto end = monotonic_ms() + 10'000; monotonic_ms() < end && !done();) r->wait_change(r->version(), 50);
        return done();
    };
    EXPECT_TRUE(wait([&] { return subsets("lan").size() == 2; })) << subsets("lan");
    for (const auto& subset : subsets("lan")) {
        const bool open = subset["ports"][0]["port"] == 31884;
        EXPECT_EQ(subset.contains("addresses"), open) << "the port that waits does not take the open one along: " << subset;
        EXPECT_EQ(subset.contains("notReadyAddresses"), !open);
    }
    const auto node = *r->list(core("Node"), "").items.at(0);
    EXPECT_TRUE(text_at(node, "status.capacity.ephemeral-storage").ends_with("Ki")) << node["status"]["capacity"];
    EXPECT_EQ(subsets("by-name")[0]["ports"][0]["port"], 31884) << "a name is that of the Pod's port";
    EXPECT_TRUE(subsets("by-name")[0].contains("notReadyAddresses")) << "the Pod is not ready, and nothing says that its ports are one by one";
    {
        const std::lock_guard lock(guard);
        roles = {role({{"mqtt-31884", 31884}, {"mqtt-1885", 1885}}, true)};
    }
    EXPECT_TRUE(wait([&] { return subsets("lan").size() == 1 && subsets("lan")[0]["ports"].size() == 2 && subsets("by-name")[0].contains("addresses"); })) << subsets("lan");
    keeper.stop();
}

TEST(Projection, endpoint_slices_say_what_endpoints_say) {
    auto r = Registry::open(":memory:").value();
    constexpr const char* where = "azure-iot-operations";
    const auto& kind = *resources::find_kind("discovery.k8s.io/v1", "EndpointSlice");
    std::mutex guard;
    std::vector<control::Role> roles{{.pod = "aio-broker-frontend-0", .container = "broker", .component = "frontend", .log_modules = {}, .ports = {{"mqtt", 1883}}, .ready = true, .why_not = {}}};
    control::Housekeeper keeper{
        *r, {.clock = machine_clock(), .api_ca = "CA", .make_token = {}, .version = "test", .roles = [&] {
                 const std::lock_guard lock(guard);
                 return roles;
             }}};
    r->create(core("Service"), where, named("web", {{"spec", {{"selector", {{"tier", "frontend"}}}, {"ports", Json::array({{{"name", "mqtt"}, {"port", 80}, {"targetPort", 1883}, {"appProtocol", "mqtt"}}})}}}})).value();
    // Written by hand, as for a Service without a selector: two families, and a port for those that are not ready.
    const Json by_hand = Json::array({{{"addresses", Json::array({{{"ip", "192.0.2.1"}}, {{"ip", "2001:db8::1"}}})}, {"ports", Json::array({{{"port", 502}}})}},
                                      {{"notReadyAddresses", Json::array({{{"ip", "192.0.2.2"}, {"hostname", "two"}}})}, {"ports", Json::array({{{"port", 503}, {"protocol", "UDP"}}})}}});
    r->create(core("Endpoints"), where, named("plc", {{"subsets", by_hand}})).value();
    keeper.start();
    auto slices = [&](const std::string& service) {
        std::vector<Json> out;
        for (const auto& one : r->list(kind, where).items)
            if (resources::at_path(*one, "metadata.labels").value("kubernetes.io/service-name", "") == service) out.push_back(*one);
        return out;
    };
    auto wait = [&](const std::function<bool()>& done) {
        for (const auto end = monotonic_ms() + 10'000; monotonic_ms() < end && !done();) r->wait_change(r->version(), 50);
        return done();
    };
    ASSERT_TRUE(wait([&] { return slices("web").size() == 1 && slices("plc").size() == 3; })) << slices("plc").size();
    const auto web = slices("web")[0], endpoint = web["endpoints"][0];
    EXPECT_EQ(text_at(web, "metadata.name"), "web-ipv4");
    EXPECT_EQ(text_at(web, "addressType"), "IPv4");
    EXPECT_EQ(web["ports"], Json::array({{{"name", "mqtt"}, {"port", 1883}, {"protocol", "TCP"}, {"appProtocol", "mqtt"}}}));
    EXPECT_EQ(endpoint["addresses"].size(), 1u);
    EXPECT_EQ(endpoint["conditions"], (Json{{"ready", true}, {"serving", true}, {"terminating", false}}));
    EXPECT_EQ(text_at(endpoint, "targetRef.name"), "aio-broker-frontend-0");
    EXPECT_EQ(text_at(endpoint, "nodeName"), text_at(*r->list(core("Node"), "").items.at(0), "metadata.name"));
    const auto owner = web["metadata"]["ownerReferences"][0];
    EXPECT_EQ(text_at(owner, "kind") + "/" + text_at(owner, "name"), "Endpoints/web");
    std::map<std::string, Json> plc;
    for (auto& one : slices("plc")) plc[text_at(one, "metadata.name")] = one;
    EXPECT_EQ(plc.at("plc-ipv4")["endpoints"][0]["addresses"], Json::array({"192.0.2.1"}));
    EXPECT_EQ(text_at(plc.at("plc-ipv6"), "addressType"), "IPv6");
    EXPECT_EQ(plc.at("plc-ipv6")["endpoints"][0]["addresses"], Json::array({"2001:db8::1"}));
    EXPECT_EQ(plc.at("plc-ipv4-1")["endpoints"][0]["conditions"]["ready"], false);
    EXPECT_EQ(text_at(plc.at("plc-ipv4-1")["endpoints"][0], "hostname"), "two");
    EXPECT_EQ(plc.at("plc-ipv4-1")["ports"], Json::array({{{"name", ""}, {"port", 503}, {"protocol", "UDP"}}}));
    const auto version = r->version();
    // What leaves the Endpoints leaves the slices, and they go with it.
    r->patch(core("Endpoints"), where, "plc", registry::PatchType::merge, {{"subsets", Json::array({by_hand[0]})}}, false).value();
    EXPECT_TRUE(wait([&] { return slices("plc").size() == 2; })) << slices("plc").size();
    r->remove(core("Endpoints"), where, "plc", {}).value();
    EXPECT_TRUE(wait([&] { return slices("plc").empty(); }));
    EXPECT_GT(r->version(), version);
    EXPECT_EQ(slices("web")[0], web) << "what has not changed is not written";
    keeper.stop();
}

/// A housekeeper over a registry, and the slices it makes.
struct Slices {
    static constexpr const char* where = "azure-iot-operations";
    const resources::Kind& kind = *resources::find_kind("discovery.k8s.io/v1", "EndpointSlice");
    std::unique_ptr<Registry> r;
    control::Housekeeper keeper{
        *r, {.clock = machine_clock(), .api_ca = "CA", .make_token = {}, .version = "test", .roles = [] {
                 return std::vector<control::Role>();
             }}};
    explicit Slices(std::unique_ptr<Registry> of = Registry::open(":memory:").value()) : r(std::move(of)) {}
    Slices(const Slices&) = delete;
    Slices& operator=(const Slices&) = delete;
    ~Slices() { keeper.stop(); }

    std::vector<Json> all() const {
        std::vector<Json> out;
        for (const auto& one : r->list(kind, where).items) out.push_back(*one);
        return out;
    }
    std::string address(const char* slice) const {
        const auto found = r->get(kind, where, slice);
        return found ? (**found)["endpoints"][0]["addresses"][0].get<std::string>() : "none";
    }
    bool wait(const std::function<bool()>& done) const {
        for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end && !done();) r->wait_change(r->version(), 50);
        return done();
    }
    /// True when the Endpoints that were written before have been looked at: others, written now, have their slices.
    bool looked_at(const char* name) const {
        r->create(core("Endpoints"), where, named(name, {{"subsets", Json::array({subset("192.0.2.99", 99)})}})).value();
        return wait([&] { return address((std::string(name) + "-ipv4").c_str()) == "192.0.2.99"; });
    }
    static Json subset(const std::string& ip, int port) { return {{"addresses", Json::array({{{"ip", ip}}})}, {"ports", Json::array({{{"port", port}}})}}; }
};

// What was stored before its rules were there is no reason for a slice to stay at addresses of old.
TEST(Projection, no_slice_stays_on_addresses_that_are_gone) {
    const auto folder = std::filesystem::temp_directory_path() / fmt::format("penstock-slices-{}", getpid());
    std::filesystem::create_directories(folder);
    const auto file = (folder / "r.sqlite").string();
    std::map<std::string, Json> stored;
    std::uint64_t version = 0;
    {
        Slices first(Registry::open(file).value());
        for (const char* name : {"words", "broken"}) stored[name] = *first.r->create(core("Endpoints"), Slices::where, named(name, {{"subsets", Json::array({Slices::subset("192.0.2.1", 80)})}})).value();
        first.keeper.start();
        ASSERT_TRUE(first.wait([&] { return first.address("words-ipv4") == "192.0.2.1" && first.address("broken-ipv4") == "192.0.2.1"; }));
        first.keeper.stop();
        version = first.r->version();
    }
    auto words = Slices::subset("192.0.2.97", 80), broken = Slices::subset("192.0.2.98", 80);
    words["addresses"][0].update({{"nodeName", 7}, {"hostname", 5}, {"targetRef", "pod"}});
    words["addresses"].push_back({{"ip", "abc"}});
    words["addresses"].push_back("no object");
    broken["ports"][0]["protocol"] = "pigeon";
    stored["words"]["subsets"] = Json::array({words, "no object"});
    stored["broken"]["subsets"] = Json::array({broken});
    {
        registry::Database database;
        ASSERT_TRUE(database.open(file));
        for (auto& [name, object] : stored) {
            object["metadata"]["resourceVersion"] = std::to_string(++version);
            const auto body = object.dump();
            ASSERT_TRUE(database.write(core("Endpoints").qualified_plural(), Slices::where, name, &body, version));
        }
    }
    Slices again(Registry::open(file).value());
    again.keeper.start();
    EXPECT_TRUE(again.wait([&] { return again.address("words-ipv4") == "192.0.2.97"; })) << again.address("words-ipv4");
    EXPECT_TRUE(again.wait([&] { return again.address("broken-ipv4") == "none"; })) << again.address("broken-ipv4");
    again.keeper.stop();
    std::filesystem::remove_all(folder);
}

TEST(Projection, slices_of_endpoints_are_bounded_and_written_when_something_changed) {
    Slices of;
    Json subsets = Json::array();
    for (int port = 1; port <= 300; ++port) subsets.push_back(Slices::subset("192.0.2.1", port));
    of.r->create(core("Endpoints"), Slices::where, named("many", {{"subsets", subsets}})).value();
    of.keeper.start();
    ASSERT_TRUE(of.wait([&] { return of.all().size() >= 100; }));
    ASSERT_TRUE(of.looked_at("other"));
    EXPECT_EQ(of.all().size(), 101u) << "the first hundred, and the other's";
    // Somebody's hand in a slice does not last, nor does its absence.
    of.r->patch(of.kind, Slices::where, "many-ipv4", registry::PatchType::merge, {{"endpoints", Json::array({{{"addresses", Json::array({"192.0.2.66"})}}})}}, false).value();
    of.r->remove(of.kind, Slices::where, "many-ipv4-7").value();
    EXPECT_TRUE(of.wait([&] { return of.address("many-ipv4") == "192.0.2.1" && of.address("many-ipv4-7") == "192.0.2.1"; }));
    of.r->remove(core("Endpoints"), Slices::where, "many").value();
    EXPECT_TRUE(of.wait([&] { return of.all().size() == 1; }));
}

TEST(Projection, the_service_of_the_metrics_comes_and_goes_and_is_nobody_elses) {
    constexpr const char *where = "azure-iot-operations", *name = "aio-broker-diagnostics-service";
    for (const bool was_there : {false, true}) {
        auto r = Registry::open(":memory:").value();
        std::atomic<bool> open{true};
        control::Housekeeper keeper{
            *r, {.clock = machine_clock(), .api_ca = "CA", .make_token = {}, .version = "test", .roles = [&] {
                     std::vector<control::Role> out;
                     if (open)
                         out.push_back({.pod = "d",
                                        .container = "c",
                                        .component = "diagnostics-service",
                                        .log_modules = {},
                                        .ports = {{"metrics", 9600}},
                                        .ready = true,
                                        .why_not = {}});
                     return out;
                 }}};
        registry::ObjectRef mine;
        if (was_there) mine = r->create(core("Service"), where, named(name, {{"spec", {{"ports", Json::array({{{"port", 80}}})}}}})).value();
        keeper.start();
        auto wait = [&](const std::function<bool()>& done) {
            for (const auto end = monotonic_ms() + 10'000; monotonic_ms() < end && !done();) r->wait_change(r->version(), 50);
            return done();
        };
        EXPECT_TRUE(wait([&] { return r->get(core("Service"), where, name).has_value() && r->get(core("Pod"), where, "d").has_value(); }));
        open = false;
        EXPECT_TRUE(wait([&] { return !r->get(core("Pod"), where, "d").has_value() && r->get(core("Service"), where, name).has_value() == was_there; }));
        if (was_there) {
            EXPECT_EQ(*r->get(core("Service"), where, name).value(), *mine);
        }
        keeper.stop();
    }
}

TEST(WorkQueue, keys_once_back_off_and_news) {
    control::WorkQueue queue([] { return 0.5; });
    const control::Key a{"k", "n", "a"}, b{"k", "n", "b"};
    queue.add(a, 100);
    queue.add(a, 100);
    queue.add(b, 100);
    EXPECT_EQ(queue.size(), 2u);
    EXPECT_EQ(queue.take(100), a);
    EXPECT_EQ(queue.take(100), b);
    EXPECT_EQ(queue.take(100), std::nullopt);
    std::int64_t now = 100, last = 0;
    for (int i = 0; i < 30; ++i) {
        queue.done(a, control::Outcome::retry("x"), now);
        const auto due = queue.next_due().value();
        EXPECT_GE(due - now, std::min<std::int64_t>(last, control::WorkQueue::longest_pause_ms));
        EXPECT_LE(due - now, control::WorkQueue::longest_pause_ms);
        last = due - now;
        now = due;
        EXPECT_EQ(queue.take(now), a);
    }
    queue.done(a, control::Outcome::retry("x"), now);
    queue.add(a, now);
    EXPECT_EQ(queue.take(now), a) << "news do not wait for the back-off";
    queue.done(a, control::Outcome::settled(), now);
    EXPECT_EQ(queue.failures(a), 0);
    queue.done(b, control::Outcome::after(500), now);
    EXPECT_EQ(queue.take(now + 499), std::nullopt);
    EXPECT_EQ(queue.take(now + 500), b);
}

}  // namespace
}  // namespace penstock
