// Every kind and every field against values that are long, deep, many or of another type: each is taken or refused with the
// field's name, nothing is thrown, and no text meets a matcher that grows with it. Made from the declarations, so that a field
// that is added is tried too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <functional>

#include <fmt/format.h>

#include "api/handler.h"
#include "api/spdy.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "client/apply.h"
#include "crypto/ocsp.h"
#include "crypto/revocation.h"
#include "crypto/x509.h"
#include "harness/api_transport.h"
#include "resources/definition.h"
#include "resources/json_schema.h"
#include "resources/merge.h"
#include "resources/protobuf.h"
#include "resources/text_rules.h"

namespace penstock {
namespace {

using namespace resources;

constexpr std::size_t long_text = 30'000;

/// A value of a field's own type, as plain as it may be.
Json plain(const Field& field) {
    if (!field.values.empty()) return field.values.front();
    switch (field.type) {
        case Type::object: {
            Json out = Json::object();
            for (const auto& child : field.fields)
                if (child.required) out[child.name] = plain(child);
            return out;
        }
        case Type::array: return field.items.empty() ? Json::array() : Json::array({plain(field.items[0])});
        case Type::map: return Json::object();
        case Type::string: return field.pattern.starts_with("https") ? "https://a" : field.pattern.starts_with("[0-9]") ? "500M" : field.pattern.empty() ? "a" : "240h";
        case Type::integer: return std::max<std::int64_t>(field.minimum.value_or(0), std::min<std::int64_t>(1, field.maximum.value_or(1)));
        case Type::number: return 1.5;
        case Type::int_or_string: return 1;
        case Type::boolean: return true;
        case Type::any: return Json::object();
    }
    return nullptr;
}

Json object_of(const Kind& kind) {
    Json out = {{"apiVersion", kind.api_version()}, {"kind", kind.kind}, {"metadata", {{"name", "generated"}}}};
    if (kind.kind == "CustomResourceDefinition") out["metadata"]["name"] = "a.a.b";
    for (const auto& field : kind.fields)
        if (field.required) out[field.name] = plain(field);
    return out;
}

Json nested(std::size_t levels, bool as_object) {
    Json out = 1;
    for (std::size_t i = 0; i < levels; ++i) {
        Json outer = as_object ? Json::object() : Json::array();
        if (as_object) outer["a"] = std::move(out);
        else outer.push_back(std::move(out));
        out = std::move(outer);
    }
    return out;
}

/// Values that a careless or hostile hand puts where another is meant. `heavy`: those that take long to look at.
std::vector<Json> odd_values(bool heavy) {
    std::vector<Json> out{nullptr, true, "", "a\nb", " ", "-", 0, -1, INT64_MAX, INT64_MIN, UINT64_MAX, 1e308, 0.5, std::string(long_text, '1'), std::string(long_text, 'a') + "!", std::string(long_text, '.'),
                          std::string(long_text, '1') + "G", [] { std::string text; for (std::size_t i = 0; i < long_text / 2; ++i) text += "1h"; return text; }(),
                          "https://" + std::string(long_text, '/'), nested(80, false), nested(80, true), nested(200, false), nested(2000, true), Json::array(), Json::object(), Json::array({1, "a", nullptr, Json::object(), Json::array()}),
                          Json{{"", 1}, {std::string(long_text, 'k'), Json::object()}}};
    Json many = Json::array(), objects = Json::array(), keys = Json::object();
    const int count = heavy ? 120'000 : 300;
    for (int i = 0; i < count; ++i) {
        many.push_back("t" + std::to_string(i));
        objects.push_back(Json::object());
        keys["k" + std::to_string(i)] = "v";
    }
    out.insert(out.end(), {std::move(many), std::move(objects), std::move(keys)});
    if (heavy) out.push_back(std::string(2'000'000, '1'));
    return out;
}

using Visit = std::function<void(const std::string& path, const Field& field, const std::function<void(Json& object, const Json& value)>& put)>;

/// Walks all fields of a kind; `put` writes a value to the field in an object, with what is above it.
void each_field(const std::vector<Field>& fields, const std::string& path, const std::function<Json&(Json&)>& parent, const Visit& visit) {
    for (const auto& field : fields) {
        const auto at = path.empty() ? field.name : path + "." + field.name;
        visit(at, field, [&](Json& object, const Json& value) { parent(object)[field.name] = value; });
        auto inside = [&](const Field& shape, const std::string& where, std::function<Json&(Json&)> step) {
            if (shape.type == Type::string)
                visit(where, shape, [&](Json& object, const Json& value) { step(object) = value; });
            if (shape.type == Type::object) each_field(shape.fields, where, step, visit);
        };
        auto made = [&](Json& object) -> Json& {
            auto& value = parent(object)[field.name];
            if (!value.is_structured()) value = plain(field);
            return value;
        };
        if (field.type == Type::object) each_field(field.fields, at, made, visit);
        if (field.items.empty()) continue;
        if (field.type == Type::array)
            inside(field.items[0], at + "[0]", [&](Json& object) -> Json& {
                auto& list = made(object);
                if (list.empty()) list.push_back(plain(field.items[0]));
                return list[0];
            });
        if (field.type == Type::map)
            inside(field.items[0], at + "[k]", [&](Json& object) -> Json& {
                auto& value = made(object)["k"];
                if (value.is_null()) value = plain(field.items[0]);
                return value;
            });
    }
}

void each_field(const Kind& kind, const Visit& visit) {
    each_field(kind.fields, "", [](Json& object) -> Json& { return object; }, visit);
}

TEST(Bounds, every_text_of_every_kind_has_a_bound_that_is_said_and_kept) {
    std::size_t texts = 0;
    for (const auto& kind : all_kinds())
        each_field(kind, [&](const std::string& path, const Field& field, const auto& put) {
            if (field.type != Type::string) return;
            ++texts;
            ASSERT_GT(length_bound(field), 0u) << kind.kind << " " << path;
            auto object = object_of(kind);
            put(object, std::string(length_bound(field) + 1, '1'));
            const auto faults = validate(kind, object);
            EXPECT_TRUE(std::ranges::any_of(faults, [&](const Fault& fault) { return fault.path == path && fault.message.size() < 1000; })) << kind.kind << " " << path;
        });
    EXPECT_GT(texts, 150u);
    // Said where people and programs look.
    const auto& listener = *find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener");
    EXPECT_EQ(listener.schema["properties"]["spec"]["properties"]["serviceName"]["maxLength"], text_length_max);
    EXPECT_EQ(listener.schema["properties"]["metadata"]["properties"]["name"]["maxLength"], 253);
    EXPECT_EQ(listener.schema["properties"]["spec"]["properties"]["ports"]["maxItems"], 100);
    EXPECT_NE(reference_page(listener).find("65,535 characters"), std::string::npos);
}

TEST(Bounds, lists_and_maps_have_bounds_and_their_faults_are_few) {
    const auto values = odd_values(true);
    for (const auto& kind : all_kinds())
        each_field(kind, [&](const std::string& path, const Field& field, const auto& put) {
            if (field.type != Type::array && field.type != Type::map) return;
            ASSERT_GT(items_bound(field), 0u) << kind.kind << " " << path;
            for (const auto& value : values) {
                if (!value.is_structured() || value.size() < items_bound(field) + 1) continue;
                if (value.is_array() != (field.type == Type::array)) continue;
                auto object = object_of(kind);
                put(object, value);
                const auto faults = validate(kind, object);
                EXPECT_TRUE(std::ranges::any_of(faults, [&](const Fault& fault) { return fault.path == path && fault.reason == "FieldValueTooMany"; })) << kind.kind << " " << path;
                EXPECT_LE(faults.size(), faults_max + 10) << kind.kind << " " << path;
            }
        });
}

TEST(Bounds, odd_values_of_every_field_are_judged_without_a_server) {
    const auto values = odd_values(false);
    for (const auto& kind : all_kinds())
        each_field(kind, [&](const std::string& path, const Field&, const auto& put) {
            for (const auto& value : values) {
                auto object = object_of(kind);
                put(object, value);
                ASSERT_NO_THROW({
                    auto faults = prune_unknown(kind, object);
                    apply_defaults(kind, object);
                    std::ranges::move(validate(kind, object), std::back_inserter(faults));
                    notes(kind, object, 2);
                    for (const auto& fault : faults) EXPECT_LT(fault.message.size() + fault.path.size(), 30'000u) << fault.path;
                }) << kind.kind << " " << path << " " << brief(value);
            }
        });
}

TEST(Bounds, odd_values_of_every_field_are_judged_by_the_api_in_each_way_of_writing) {
    test::ApiWorld world;
    test::ApiTransport api(world);
    const auto values = odd_values(false);
    auto text_of = [](const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); };
    std::size_t taken = 0, refused = 0, turn = 0;
    for (const auto& kind : all_kinds()) {
        if (kind.read_only) continue;
        const std::string space = kind.namespaced ? "default" : "";
        each_field(kind, [&](const std::string& path, const Field&, const auto& put) {
            for (const auto& value : values) {
                auto object = object_of(kind);
                put(object, value);
                const auto name = text_at(object, "metadata.name", "generated");
                const auto body = text_of(object);
                auto ask = [&](const std::string& method, const std::string& target, const std::string& content, const std::string& type) {
                    std::string why;
                    Result<client::Response> answer = fail("");
                    ASSERT_NO_THROW(answer = api.request(method, target, content, type)) << method << " " << kind.kind << " " << path << " " << brief(value);
                    ASSERT_TRUE(answer);
                    EXPECT_NE(answer->status, 500) << method << " " << kind.kind << " " << path << " " << brief(value) << " " << answer->message().substr(0, 300);
                    EXPECT_LT(answer->message().size(), 300'000u) << kind.kind << " " << path;
                    if (answer->ok()) ++taken;
                    else ++refused;
                };
                const auto list = client::path_of(kind, space), one = client::path_of(kind, space, name);
                ask("POST", list, body, "application/json");
                if (!kind.stored) continue;
                // One further way for every second value; over all fields each way meets each kind of value.
                switch (turn++ % 8) {
                    case 0: ask("PATCH", one + "?fieldManager=a&force=true", body, "application/apply-patch+yaml"); break;
                    case 2: ask("PATCH", one, body, "application/merge-patch+json"); break;
                    case 4: if (kind.built_in) ask("PATCH", one, body, "application/strategic-merge-patch+json"); break;
                    case 6: ask("PATCH", one, text_of(Json::array({{{"op", "add"}, {"path", "/" + path.substr(0, path.find('.'))}, {"value", value}}})), "application/json-patch+json"); break;
                    default: break;
                }
                if (!world.registry->get(kind, space, name)) continue;
                // What was taken can be shown and read again.
                Result<client::Response> table = fail("");
                ASSERT_NO_THROW(table = api.request("GET", list, {}, {}, "application/json;as=Table;v=v1;g=meta.k8s.io")) << kind.kind << " " << path << " " << brief(value);
                EXPECT_EQ(table->status, 200);
                ASSERT_NO_THROW(api.request("DELETE", one));
            }
        });
    }
    EXPECT_GT(taken, 1000u);
    EXPECT_GT(refused, 5000u);
}

/// A null at every field, item and entry of every kind, written in each way: all judge it alike, and keep the same.
TEST(Nulls, mean_the_same_in_every_way_of_writing) {
    test::ApiWorld world;
    test::ApiTransport api(world);
    std::size_t taken = 0, refused = 0;
    auto stored = [](const client::Response& answer) {
        auto out = answer.body;
        for (const char* word : {"status", "metadata"}) out.erase(word);
        if (out.contains("spec") && out["spec"].is_object())
            for (const char* word : {"clusterIP", "clusterIPs"}) out["spec"].erase(word);   // each its own
        return out;
    };
    for (const auto& kind : all_kinds()) {
        if (kind.read_only || !kind.stored || kind.kind == "Namespace" || kind.kind == "Event") continue;
        const std::string space = kind.namespaced ? "default" : "";
        each_field(kind, [&](const std::string& path, const Field&, const auto& put) {
            if (path.starts_with("status")) return;   // written on its own
            auto object = object_of(kind);
            put(object, nullptr);
            SCOPED_TRACE(kind.kind + " " + path);
            const auto name = text_at(object, "metadata.name");
            const auto list = client::path_of(kind, space), one = client::path_of(kind, space, name);
            const auto body = object.dump();
            auto gone = [&] { ASSERT_TRUE(api.request("DELETE", one)); };
            const auto posted = api.request("POST", list + "?fieldValidation=Strict", body);
            ASSERT_TRUE(posted);
            const auto kept = stored(*posted);
            (posted->ok() ? taken : refused) += 1;
            if (posted->ok()) {
                const auto put_again = api.request("PUT", one + "?fieldValidation=Strict", [&] { auto next = object; next["metadata"]["resourceVersion"] = at_path(posted->body, "metadata.resourceVersion"); return next.dump(); }());
                ASSERT_TRUE(put_again);
                EXPECT_TRUE(put_again->ok()) << put_again->message();
                EXPECT_EQ(stored(*put_again), kept) << "PUT";
                gone();
            }
            const auto applied = api.request("PATCH", one + "?fieldManager=f&fieldValidation=Strict", body, "application/apply-patch+yaml");
            ASSERT_TRUE(applied);
            // An item of a keyed list without its key is refused by server-side apply alone, null or not, as Kubernetes does.
            if (applied->message().find("does not have all keys") != std::string::npos) return;
            EXPECT_EQ(applied->ok(), posted->ok()) << "POST: " << posted->message() << " apply: " << applied->message();
            if (applied->ok()) {
                EXPECT_EQ(stored(*applied), kept) << "server-side apply";
                gone();
            }
            // As -f and `penstock apply` send it, and what `penstock validate` says before.
            client::Kinds kinds(api);
            const Document document{.object = object, .file = "f.yaml", .index = 1, .line = 1};
            for (const bool server_side : {false, true}) {
                const auto done = client::apply_document(api, kinds, document, {.name_space = space, .server_side = server_side});
                EXPECT_EQ(done.error.empty(), posted->ok()) << done.error;
                if (done.error.empty()) gone();
            }
            const auto faults = client::validate_documents({document});
            EXPECT_TRUE(faults.empty() || !posted->ok()) << faults.front();
            // Rules between fields, which have nothing to do with nulls, are the server's.
            EXPECT_TRUE(!faults.empty() || posted->message().find(", not null") == std::string::npos) << posted->message();
        });
    }
    EXPECT_GT(taken, 100u);
    EXPECT_GT(refused, 20u);
}

// As kube-apiserver has it: a null in a map of texts is an empty text where an object is written, and takes the key away in a patch.
TEST(Nulls, of_a_config_map_are_as_kubernetes_has_them) {
    test::ApiWorld world;
    test::ApiTransport api(world);
    const std::string list = "/api/v1/namespaces/default/configmaps", one = list + "/m";
    const Json object = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "m"}, {"labels", {{"l", nullptr}}}, {"annotations", {{"n", nullptr}}}}}, {"data", {{"a", nullptr}, {"b", "1"}}}};
    EXPECT_TRUE(client::validate_documents({{.object = object, .file = "f", .index = 1, .line = 1}}).empty());
    const Json wanted = {{"a", ""}, {"b", "1"}};
    auto made = api.request("POST", list, object.dump());
    ASSERT_EQ(made->status, 201) << made->message();
    EXPECT_EQ(made->body["data"], wanted);
    EXPECT_EQ(made->body["metadata"]["labels"]["l"], "");
    EXPECT_EQ(made->body["metadata"]["annotations"]["n"], "");
    EXPECT_EQ(api.request("PUT", one, object.dump())->body["data"], wanted);
    EXPECT_EQ(api.request("PATCH", one + "?fieldManager=f&force=true", object.dump(), "application/apply-patch+yaml")->body["data"], wanted);
    EXPECT_EQ(api.request("PATCH", one, R"([{"op":"add","path":"/data/a","value":null}])", "application/json-patch+json")->body["data"], wanted);
    for (const char* type : {"application/merge-patch+json", "application/strategic-merge-patch+json"}) {
        api.request("PUT", one, object.dump());
        const auto patched = api.request("PATCH", one, R"({"data":{"a":null},"metadata":{"labels":{"l":null}}})", type);
        EXPECT_EQ(patched->body["data"], (Json{{"b", "1"}})) << type;
        EXPECT_FALSE(patched->body["metadata"].contains("labels") && patched->body["metadata"]["labels"].contains("l")) << type;
    }
}

/// Everything of a request that an answer may quote, once with 100 KB and once with what no line may hold.
TEST(Bounds, no_answer_quotes_a_request_whole) {
    test::ApiWorld world;
    const auto long_word = std::string(100'000, 'x'), wild = std::string("\x1b[31m\r\nInjected: yes\x00\x07\xff\u202e\x7f", sizeof "\x1b[31m\r\nInjected: yes\x00\x07\xff\u202e\x7f" - 1) + std::string(1000, '\n');
    auto& registry = *world.registry;
    ASSERT_TRUE(registry.create(*find_kind("v1", "ConfigMap"), "default", {{"metadata", {{"name", "m"}}}}));
    ASSERT_TRUE(registry.create(*find_kind("v1", "ServiceAccount"), "default", {{"metadata", {{"name", "s"}}}}));
    ASSERT_TRUE(registry.create(*find_kind("v1", "Pod"), "default", {{"metadata", {{"name", "p"}}}, {"spec", {{"containers", Json::array({{{"name", "c"}}})}}}}));
    const auto from = log::last_number();
    std::size_t asked = 0;
    auto ask = [&](api::Request request, const std::string& where) {
        ++asked;
        for (const bool is_admin : {true, false}) {
            request.user = is_admin ? api::User{.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}} : api::User{.name = request.user.name, .uid = {}, .groups = {"system:authenticated"}, .extra = {}};
            api::Reply reply;
            ASSERT_NO_THROW(reply = world.handler->handle(request)) << where;
            if (reply.status < 400) continue;
            EXPECT_LT(reply.body.size(), 20'000u) << where << ": " << reply.body.substr(0, 300);
            const auto status = parse_json(reply.body).value_or(Json());
            const auto message = text_at(status, "message");
            EXPECT_EQ(message, printable(message)) << where;
            EXPECT_LT(message.size(), 8'000u) << where << ": " << message.substr(0, 300);
            for (const auto& [name, value] : reply.headers) {
                EXPECT_LT(value.size(), 8'000u) << where << " " << name;
                EXPECT_EQ(value.find_first_of("\r\n"), std::string::npos) << where << " " << name;
            }
        }
    };
    const std::string maps = "/api/v1/namespaces/default/configmaps", good = R"({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"}})";
    for (const auto& word : {long_word, wild}) {
        auto base = [&](const char* method, const std::string& path) {
            return api::Request{.method = method, .path = path, .query = {}, .accept = "application/json", .content_type = std::string(method) == "PATCH" ? "application/merge-patch+json" : "application/json", .authorization = {}, .user_agent = "test",
                                .if_none_match = {}, .impersonation = {}, .upgrade = {}, .body = std::string(method) == "GET" ? "" : good, .user = {.name = "somebody", .uid = {}, .groups = {}, .extra = {}}};
        };
        for (const char* method : {"GET", "POST", "PUT", "PATCH", "DELETE"}) {
            for (const auto& path : {"/" + word, "/api/" + word, "/apis/" + word, "/apis/" + word + "/v1", "/apis/apps/" + word, "/api/v1/" + word, "/api/v1/namespaces/" + word, "/api/v1/namespaces/" + word + "/configmaps", maps + "/" + word, maps + "/m/" + word,
                                     "/api/v1/namespaces/default/pods/" + word + "/log", "/api/v1/namespaces/default/pods/" + word + "/exec", "/api/v1/namespaces/default/pods/p/" + word, "/api/v1/namespaces/default/serviceaccounts/" + word + "/token",
                                     "/apis/mqttbroker.iotoperations.azure.com/v1/namespaces/default/brokers/" + word, "/apis/mqttbroker.iotoperations.azure.com/v1beta1/namespaces/default/brokers/" + word, "/penstock/" + word, "/openapi/v3/" + word})
                ask(base(method, path), std::string(method) + " path");
            for (const char* key : {"resourceVersion", "resourceVersionMatch", "timeoutSeconds", "limit", "continue", "labelSelector", "fieldSelector", "dryRun", "fieldValidation", "fieldManager", "propagationPolicy", "gracePeriodSeconds", "includeObject", "force", "watch", "sendInitialEvents"})
                for (const auto& path : {maps, maps + "/m"}) {
                    auto request = base(method, path);
                    request.query[key] = word;
                    ask(request, std::string(method) + " " + key);
                    if (std::string(method) != "PATCH") continue;
                    request.content_type = "application/apply-patch+yaml";
                    ask(request, std::string("apply ") + key);
                }
            for (const char* key : {"container", "tailLines", "sinceSeconds", "sinceTime", "limitBytes", "follow", "previous"}) {
                auto request = base("GET", "/api/v1/namespaces/default/pods/p/log");
                request.query[key] = word;
                ask(request, key);
            }
            for (auto field : {&api::Request::accept, &api::Request::content_type, &api::Request::authorization, &api::Request::user_agent, &api::Request::if_none_match, &api::Request::upgrade, &api::Request::certificate_fault}) {
                auto request = base(method, maps + "/m");
                request.*field = field == &api::Request::authorization ? "Bearer " + word : word;
                if (field != &api::Request::certificate_fault) ask(request, std::string(method) + " header");
            }
            for (const char* header : {"impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-scopes"}) {
                auto request = base(method, maps + "/m");
                request.impersonation = {{header, word}};
                ask(request, std::string(method) + " " + header);
                request.impersonation = {{"impersonate-user", word}, {header, word}};
                ask(request, std::string(method) + " impersonate-user and " + header);
            }
            auto stranger = base(method, maps + "/m");
            stranger.user.name = word;
            ask(stranger, std::string(method) + " user");
            // Names and values in the object.
            for (const char* path : {"apiVersion", "kind", "metadata.name", "metadata.namespace", "metadata.generateName", "metadata.uid", "metadata.resourceVersion", "metadata.labels.a", "metadata.annotations.a", "metadata.finalizers.0", "data.a", "data.k", "unknown.a"}) {
                auto object = parse_json(good).value();
                object["metadata"]["finalizers"] = Json::array({"a.b/c"});
                std::string pointer = "/" + std::string(path);
                std::ranges::replace(pointer, '.', '/');
                const auto text = printable(word);
                object[Json::json_pointer(pointer)] = word == long_word ? word : text;
                auto request = base(method, std::string(method) == "POST" ? maps : maps + "/m");
                if (request.body.empty()) continue;
                request.query["fieldValidation"] = "Strict";
                request.query["fieldManager"] = "f";
                request.body = object.dump();
                ask(request, std::string(method) + " body " + path);
                request.content_type = "application/apply-patch+yaml";
                ask(request, std::string(method) + " applied " + path);
                Json keyed = parse_json(good).value();
                keyed["data"][word == long_word ? word : text] = 1;
                keyed[word == long_word ? word : text] = 1;
                request.body = keyed.dump();
                ask(request, std::string(method) + " key");
                request.body = word;
                ask(request, std::string(method) + " no JSON");
                request.content_type = "application/yaml";
                ask(request, std::string(method) + " no YAML");
            }
        }
        auto token = base("POST", "/api/v1/namespaces/default/serviceaccounts/s/token");
        const auto text = word == long_word ? word : printable(word);
        for (const Json& spec : {Json{{"boundObjectRef", {{"kind", text}, {"name", text}}}}, Json{{"boundObjectRef", {{"kind", "Secret"}, {"name", text}, {"uid", text}}}}, Json{{"audiences", {text}}}}) {
            token.body = Json{{"apiVersion", "authentication.k8s.io/v1"}, {"kind", "TokenRequest"}, {"spec", spec}}.dump();
            ask(token, "TokenRequest");
        }
    }
    EXPECT_GT(asked, 500u);
    for (const auto& line : log::lines_after(from, {})) {
        EXPECT_LT(line.text.size(), 8'000u) << line.text.substr(0, 200);
        EXPECT_EQ(line.text.find('\x1b'), std::string::npos) << line.text.substr(0, 200);
    }
}

TEST(Bounds, odd_values_of_metadata_are_judged) {
    test::ApiWorld world;
    test::ApiTransport api(world);
    const auto& kind = *find_kind("v1", "ConfigMap");
    for (const char* field : {"name", "generateName", "namespace", "uid", "resourceVersion", "labels", "annotations", "ownerReferences", "finalizers", "managedFields", "creationTimestamp", "generation", "selfLink", "unknown"})
        for (const auto& value : odd_values(false)) {
            Json object = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "generated"}}}};
            object["metadata"][field] = value;
            for (const char* type : {"application/json", "application/apply-patch+yaml"}) {
                const bool applies = std::string_view(type) != "application/json";
                Result<client::Response> answer = fail("");
                ASSERT_NO_THROW(answer = api.request(applies ? "PATCH" : "POST", client::path_of(kind, "default", applies ? "generated" : "") + "?fieldManager=a", object.dump(), type)) << field << " " << brief(value);
                EXPECT_NE(answer->status, 500) << field << " " << brief(value) << " " << answer->message().substr(0, 300);
                EXPECT_LT(answer->message().size(), 100'000u) << field;
            }
            const auto left = api.request("GET", client::path_of(kind, "default"));   // the loop below reads it
            ASSERT_TRUE(left);
            for (const auto& item : left->body["items"]) {
                const auto path = client::path_of(kind, "default", text_at(item, "metadata.name"));
                api.request("PATCH", path, R"({"metadata":{"finalizers":null}})", "application/merge-patch+json");
                api.request("DELETE", path);
            }
        }
}

TEST(Bounds, a_size_of_thirty_thousand_digits_is_refused_by_its_field) {
    const auto documents = parse_documents("apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\nspec: {persistence: {maxSize: \"" + std::string(long_text, '1') + "\"}}\n", "b.yaml");
    ASSERT_TRUE(documents);
    const auto faults = client::validate_documents(*documents);
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0], "b.yaml: document 1 (line 1): spec.persistence.maxSize: Too long: may not be more than 32 characters");
}

TEST(Bounds, deep_texts_are_refused_before_they_are_walked) {
    const std::string open(100'000, '['), close(100'000, ']');
    EXPECT_FALSE(parse_json(open + close));
    EXPECT_FALSE(parse_json(open));
    std::string objects;
    for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
    EXPECT_FALSE(parse_json(objects + "1" + std::string(100'000, '}')));
    EXPECT_FALSE(parse_documents(open + close, "deep.yaml"));
    EXPECT_FALSE(parse_documents(open, "deep.yaml"));
    std::string lists, maps;
    for (int i = 0; i < 100'000; ++i) lists += "- ", maps += "? ";
    EXPECT_FALSE(parse_documents(lists + "a", "deep.yaml"));
    EXPECT_FALSE(parse_documents(maps + "a", "deep.yaml"));
    std::string indented;
    for (int i = 0; i < 2000; ++i) indented += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
    EXPECT_FALSE(parse_documents(indented, "deep.yaml"));
    EXPECT_FALSE(parse_documents("a: &a [*a]\n", "circle.yaml"));
    // Protobuf: messages within messages as far as the tables allow, and bytes that claim to be.
    bool unknown = false;
    std::string bytes;
    for (int i = 0; i < 5000; ++i) {
        std::string outer(1, '\x0a');
        for (auto size = bytes.size();; size >>= 7) {
            outer += static_cast<char>(size >= 128 ? size | 0x80 : size);
            if (size < 128) break;
        }
        bytes = outer + bytes;
    }
    const std::string type = std::string("\x0a\x02v1\x12\x05") + "Event";
    EXPECT_FALSE(decode_protobuf(std::string("k8s\0", 4) + "\x0a\x0b" + type + bytes, unknown));
}

TEST(Bounds, aliases_cannot_multiply_a_text) {
    const std::string big(1'000'000, 'y');
    std::string bomb = "a: &a \"" + big + "\"\nb: [";
    for (int i = 0; i < 2000; ++i) bomb += "*a, ";
    const auto parsed = parse_documents(bomb + "]\n", "bomb.yaml");
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().message, "bomb.yaml: line 1: more than 67108864 bytes of text, aliases included");
    std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 10; ++i) {
        laughs += fmt::format("a{0}: &a{0} [", i);
        for (int k = 0; k < 10; ++k) laughs += fmt::format("*a{}, ", i - 1);
        laughs += "]\n";
    }
    EXPECT_FALSE(parse_documents(laughs, "laughs.yaml"));
    std::string documents;
    for (int i = 0; i < 20'000; ++i) documents += "---\n";
    EXPECT_FALSE(parse_documents(documents, "many.yaml"));
    EXPECT_FALSE(parse_documents(std::string(manifest_bytes_max + 1, ' '), "large.yaml"));
}

TEST(Bounds, messages_stay_short_whatever_is_quoted) {
    const std::string key(300'000, 'k');
    // The paths of thousands of faults below a long key.
    std::string text = "{\"" + key + "\":{";
    for (int i = 0; i < 5000; ++i) text += "\"a\":1,";
    text += "\"a\":1}}";
    const auto twice = duplicate_fields(text);
    EXPECT_EQ(twice.size(), 100u);
    for (const auto& path : twice) EXPECT_LT(path.size(), 500u);
    const auto broken = parse_json("[\"" + key);
    ASSERT_FALSE(broken);
    EXPECT_LT(broken.error().message.size(), 500u);
    Json under = Json::object();
    for (int i = 0; i < 5000; ++i) under["u" + std::to_string(i)] = 1;
    const Json schema = {{"type", "object"}, {"properties", {{"m", {{"type", "object"}, {"additionalProperties", {{"type", "object"}, {"properties", Json::object()}}}}}}}};
    Json value = {{"m", {{key, under}}}};
    std::vector<Fault> faults;
    prune_schema(schema, value, "", faults);
    EXPECT_EQ(faults.size(), faults_max);
    EXPECT_TRUE(value["m"][key].empty()) << "what is not told is pruned all the same";
    for (const auto& fault : faults) EXPECT_LT(fault.path.size() + fault.message.size(), 1500u);
    EXPECT_LT(brief(Json(key)).size(), 300u);
    EXPECT_EQ(brief(Json("ä")), "\"ä\"");
    EXPECT_EQ(shortened(std::string(199, 'a') + "äää"), std::string(199, 'a') + "… (205 bytes)") << "cut between characters";
    EXPECT_EQ(nearest(key, {"kkk"}), "");
}

TEST(Bounds, a_schema_cannot_make_checking_endless_nor_defaults_large) {
    Json parts = Json::array();
    for (int i = 0; i < 2000; ++i) parts.push_back({{"type", "integer"}});
    const Json costly = {{"type", "object"}, {"properties", {{"l", {{"type", "array"}, {"items", {{"type", "integer"}, {"allOf", parts}}}}}}}};
    Json list = Json::array();
    for (int i = 0; i < 10'000; ++i) list.push_back(i);
    std::vector<Fault> faults;
    check_schema(costly, {{"l", list}}, "", faults);
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_NE(faults[0].message.find("takes more than 5000000 steps"), std::string::npos);

    const Json generous = {{"type", "object"}, {"properties", {{"l", {{"type", "array"}, {"items", {{"type", "object"}, {"properties", {{"d", {{"type", "string"}, {"default", std::string(100'000, 'd')}}}}}}}}}}}};
    Json objects = Json::array();
    for (int i = 0; i < 10'000; ++i) objects.push_back(Json::object());
    Json value = {{"l", objects}};
    auto budget = defaults_bytes_max;
    EXPECT_FALSE(default_schema(generous, value, budget)) << "a thousand megabytes of defaults";
    budget = defaults_bytes_max;
    Json few = {{"l", {Json::object()}}};
    EXPECT_TRUE(default_schema(generous, few, budget));
    EXPECT_EQ(few["l"][0]["d"], std::string(100'000, 'd'));
}

TEST(Bounds, keywords_of_a_definition_have_their_types) {
    for (const auto& [keyword, good] : std::vector<std::pair<const char*, Json>>{{"x-kubernetes-list-type", "set"}, {"x-kubernetes-map-type", "atomic"}, {"x-kubernetes-list-map-keys", Json::array({"a"})}, {"required", Json::array({"a"})}, {"enum", Json::array({1})}, {"maxLength", 4},
                                                                                 {"minimum", 1.5}, {"nullable", true}, {"pattern", "^a+$"}, {"properties", {{"a", {{"type", "string"}}}}}, {"allOf", Json::array({Json::object()})}}) {
        for (const auto& bad : std::vector<Json>{5, "§", Json::array({5, nullptr}), Json::object({{"x", 1}}), true, nullptr}) {
            if (bad.type() == good.type() || (bad.is_number() && good.is_number())) continue;
            std::vector<Fault> faults;
            check_structural({{"type", "object"}, {keyword, bad}}, "schema", faults);
            EXPECT_FALSE(faults.empty()) << keyword << " " << bad.dump();
            // And what was let in by an older version throws nowhere.
            const Json schema = {{"properties", {{"f", {{keyword, bad}}}}}};
            std::vector<Fault> out;
            Json value = {{"f", {{{"a", 1}}, {{"a", 2}}}}}, object = {{"f", {{"a", "x"}}}};
            auto budget = defaults_bytes_max;
            ASSERT_NO_THROW({
                check_schema(schema, value, "", out);
                check_schema(schema, object, "", out);
                prune_schema(schema, value, "", out);
                default_schema(schema, value, budget);
                FieldSet::of(value, schema);
                merge_applied(value, object, schema);
                merge_applied(value, value, schema);
            }) << keyword << " " << bad.dump();
        }
        std::vector<Fault> none;
        check_structural({{"type", "object"}, {keyword, good}}, "schema", none);
        EXPECT_TRUE(none.empty()) << keyword << " " << (none.empty() ? "" : none[0].message);
    }
    for (const char* pattern : {"(", "[a", "(a{1000}){1000}"}) EXPECT_FALSE(is_pattern(pattern)) << pattern;
    EXPECT_FALSE(is_pattern(std::string(2000, 'a')));
    // A pattern that a backtracking matcher takes years for.
    EXPECT_EQ(matches_whole("(a|a)*(a+)+b", std::string(100'000, 'a')), Match::no);
    EXPECT_EQ(occurs("^(([a-z])+.)+[A-Z]([a-z])+$", std::string(100'000, 'a')), Match::no);
}

TEST(Bounds, hand_written_rules_of_names) {
    for (const char* good : {"a", "a-b", "0", "a1", "a.b", "a-1.b-2"}) EXPECT_TRUE(is_dns_subdomain(good)) << good;
    for (const char* bad : {"", "-a", "a-", "A", "a_b", "a..b", ".a", "a.", "a.-b", "a-.b", "ä"}) EXPECT_FALSE(is_dns_subdomain(bad)) << bad;
    EXPECT_FALSE(is_dns_label("a.b"));
    EXPECT_TRUE(is_dns_label(std::string(63, 'a')));
    EXPECT_FALSE(is_dns_label(std::string(64, 'a')));
    EXPECT_TRUE(is_dns_subdomain(std::string(253, 'a')));
    EXPECT_FALSE(is_dns_subdomain(std::string(254, 'a')));
    EXPECT_FALSE(is_dns_subdomain(std::string(2'000'000, 'a')));
    for (const char* good : {"a", "A_b.c-d", "example.com/a", "a/B"}) EXPECT_TRUE(is_qualified_name(good)) << good;
    for (const char* bad : {"", "/a", "a/", "a/b/c", "Ex.com/a", "-a", "a b"}) EXPECT_FALSE(is_qualified_name(bad)) << bad;
}

TEST(JsonPatch, carries_out_what_rfc_6902_says) {
    auto patched = [](Json target, const Json& patch) {
        const auto done = json_patch(target, patch);
        return done ? target : Json(done.error().message);
    };
    const Json live = {{"a", {{"b", {1, 2, 3}}, {"c~/d", 4}}}};
    EXPECT_EQ(patched(live, {{{"op", "add"}, {"path", "/a/b/1"}, {"value", 9}}})["a"]["b"], (Json{1, 9, 2, 3}));
    EXPECT_EQ(patched(live, {{{"op", "add"}, {"path", "/a/b/-"}, {"value", 9}}})["a"]["b"], (Json{1, 2, 3, 9}));
    EXPECT_EQ(patched(live, {{{"op", "replace"}, {"path", "/a/c~0~1d"}, {"value", 5}}})["a"]["c~/d"], 5);
    EXPECT_EQ(patched(live, {{{"op", "remove"}, {"path", "/a/b/0"}}})["a"]["b"], (Json{2, 3}));
    EXPECT_EQ(patched(live, {{{"op", "move"}, {"from", "/a/b/0"}, {"path", "/a/b/2"}}})["a"]["b"], (Json{2, 3, 1}));
    EXPECT_EQ(patched(live, {{{"op", "copy"}, {"from", "/a/b"}, {"path", "/e"}}})["e"], (Json{1, 2, 3}));
    EXPECT_EQ(patched(live, {{{"op", "test"}, {"path", "/a/b/0"}, {"value", 1}}, {{"op", "add"}, {"path", ""}, {"value", 7}}}), 7);
    EXPECT_EQ(patched(live, {{{"op", "add"}, {"path", "/a/n"}, {"value", nullptr}}})["a"]["n"], nullptr);
    for (const auto& [patch, why] : std::vector<std::pair<Json, const char*>>{
             {{{{"op", "test"}, {"path", "/a/b/0"}, {"value", 2}}}, "operation 0: the value is another one"},
             {{{{"op", "add"}, {"path", "/x/y"}, {"value", 2}}}, "operation 0: path: there is nothing to put it into"},
             {{{{"op", "remove"}, {"path", "/x"}}}, "operation 0: path: there is no such value"},
             {{{{"op", "add"}, {"path", "/a/b/4"}, {"value", 2}}}, "operation 0: path: \"4\" is no index of a list of 3 items"},
             {{{{"op", "add"}, {"path", "/a/b/01"}, {"value", 2}}}, "operation 0: path: \"01\" is no index of a list of 3 items"},
             {{{{"op", "add"}, {"path", "a"}, {"value", 2}}}, "operation 0: path: a: a JSON pointer begins with /"},
             {{{{"op", "add"}, {"path", "/~2"}, {"value", 2}}}, "operation 0: path: /~2: ~ is followed by 0 or 1"},
             {{{{"op", "add"}, {"path", "/a"}}}, "operation 0: value: Required value"},
             {{{{"op", "move"}, {"from", "/a"}, {"path", "/a/b"}}}, "operation 0: path: a value cannot be moved into itself"},
             {{{{"op", "explode"}, {"path", "/a"}}}, "operation 0: op: \"explode\": supported are \"add\", \"copy\", \"move\", \"remove\", \"replace\", \"test\""},
             {{1}, "operation 0: an object is needed"},
             {Json::object(), "a JSON patch is an array of at most 10000 operations"}})
        EXPECT_EQ(patched(live, patch), why);
}

TEST(JsonPatch, copies_of_copies_and_insertions_into_long_lists_are_bounded) {
    Json target = {{"data", {{"a", std::string(1000, 'x')}}}}, patch = Json::array();
    for (int i = 0; i < 60; ++i) patch.push_back({{"op", "copy"}, {"from", "/data"}, {"path", "/data/c" + std::to_string(i)}});
    const auto doubled = json_patch(target, patch);
    ASSERT_FALSE(doubled);
    EXPECT_NE(doubled.error().message.find("copies, compares or moves more than one request may"), std::string::npos) << doubled.error().message;

    target = Json::object({{"a", Json::object()}});
    patch = Json::array();
    std::string path = "/a";
    for (int i = 0; i < 120; ++i) patch.push_back({{"op", "add"}, {"path", path += "/a"}, {"value", Json::object()}});
    const auto deep = json_patch(target, patch);
    ASSERT_FALSE(deep);
    EXPECT_NE(deep.error().message.find("deeper than 100 levels"), std::string::npos) << deep.error().message;

    Json list = Json::array();
    for (int i = 0; i < 200'000; ++i) list.push_back(1);
    target = {{"l", list}};
    patch = Json::array();
    for (int i = 0; i < 9000; ++i) patch.push_back({{"op", "add"}, {"path", "/l/0"}, {"value", 1}});
    EXPECT_FALSE(json_patch(target, patch));
    patch = Json::array();
    for (int i = 0; i < 8; ++i) patch.push_back({{"op", "test"}, {"path", "/l"}, {"value", list}});
    target = {{"l", list}};
    EXPECT_FALSE(json_patch(target, patch));
}

TEST(Bounds, long_lists_are_merged_without_comparing_each_with_each) {
    // Twice 50,000 items: comparing each with each would take minutes, and the API with it.
    Json ports = Json::array(), finalizers = Json::array(), reversed = Json::array();
    for (int i = 0; i < 50'000; ++i) {
        ports.push_back({{"port", i}, {"protocol", "TCP"}});
        finalizers.push_back("f/" + std::to_string(i));
        reversed.push_back("f/" + std::to_string(50'000 - 1 - i));
    }
    const auto& kind = *find_kind("v1", "Service");
    const Json live = {{"metadata", {{"finalizers", finalizers}}}, {"spec", {{"ports", ports}}}};
    const Json patch = {{"metadata", {{"finalizers", reversed}, {"$deleteFromPrimitiveList/finalizers", finalizers}}}, {"spec", {{"ports", ports}}}};
    EXPECT_EQ(merge_applied(live, {{"metadata", {{"finalizers", reversed}}}, {"spec", {{"ports", ports}}}}, kind.schema), live);
    EXPECT_TRUE(FieldSet::changed({{"metadata", {{"finalizers", reversed}}}}, {{"metadata", {{"finalizers", finalizers}}}}, kind.schema).empty());
    auto merged = live;
    ASSERT_TRUE(strategic_patch(merged, patch, kind.schema));
    EXPECT_EQ(merged["spec"]["ports"].size(), 50'000u);
    Json deletes = Json::array();
    for (int i = 0; i < 50'000; ++i) deletes.push_back({{"port", i}, {"$patch", "delete"}});
    ASSERT_TRUE(strategic_patch(merged, {{"spec", {{"ports", deletes}}}}, kind.schema));
    EXPECT_TRUE(merged["spec"]["ports"].empty());
    auto rest = live;
    remove_fields(rest, FieldSet::of({{"spec", {{"ports", ports}}}}, kind.schema), kind.schema);
    EXPECT_FALSE(rest.contains("spec"));
}

TEST(Bounds, an_object_as_deep_as_is_taken_is_read_again_after_a_restart) {
    const auto file = testing::TempDir() + "/penstock-depth.sqlite";
    for (const char* suffix : {"", "-wal", "-shm", ".mark"}) std::remove((file + suffix).c_str());
    const Json definition = {{"metadata", {{"name", "things.a.b"}}}, {"spec", {{"group", "a.b"}, {"scope", "Namespaced"}, {"names", {{"plural", "things"}, {"kind", "Thing"}}},
        {"versions", {{{"name", "v1"}, {"served", true}, {"storage", true}, {"schema", {{"openAPIV3Schema", {{"type", "object"}, {"x-kubernetes-preserve-unknown-fields", true}}}}}}}}}}};
    std::size_t deepest = 0;
    {
        auto registry = registry::Registry::open(file).value();
        ASSERT_TRUE(registry->create(*find_kind("apiextensions.k8s.io/v1", "CustomResourceDefinition"), "", definition));
        const auto* kind = registry->find_kind("a.b/v1", "Thing");
        ASSERT_NE(kind, nullptr);
        for (std::size_t levels = 80; levels < 100; ++levels) {
            const auto made = registry->create(*kind, "default", {{"metadata", {{"name", "t" + std::to_string(levels)}}}, {"x", nested(levels, true)}});
            if (made) deepest = levels;
            else EXPECT_NE(made.error().message.find("nested deeper than 90 levels"), std::string::npos) << made.error().message;
        }
        EXPECT_EQ(deepest, object_depth_max - 1);
    }
    auto registry = registry::Registry::open(file).value();
    const auto* kind = registry->find_kind("a.b/v1", "Thing");
    ASSERT_NE(kind, nullptr);
    EXPECT_TRUE(registry->get(*kind, "default", "t" + std::to_string(deepest))) << "lost at the restart";
    for (const char* suffix : {"", "-wal", "-shm", ".mark"}) std::remove((file + suffix).c_str());
}

TEST(Bounds, certificates_and_lists_that_are_encrypted_many_or_broken_are_refused_at_once) {
    const std::string encrypted = "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END CERTIFICATE-----\n";
    EXPECT_FALSE(crypto::read_certificates(encrypted)) << "no pass phrase is asked for";
    auto list = encrypted;
    for (auto at = list.find("CERTIFICATE"); at != std::string::npos; at = list.find("CERTIFICATE", at)) list.replace(at, 11, "X509 CRL");
    EXPECT_FALSE(crypto::read_revocation_lists(list));
    std::string blocks;
    for (int i = 0; i < 20'000; ++i) blocks += "-----BEGIN X-----\n-----END X-----\n";
    EXPECT_TRUE(crypto::read_certificates(blocks)->empty()) << "blocks of other kinds";
    std::string titles;
    for (int i = 0; i < 20'000; ++i) titles += fmt::format("-----BEGIN {}-----\n", i);
    EXPECT_FALSE(crypto::read_certificates(titles));
    EXPECT_FALSE(crypto::read_certificates("-----BEGIN CERTIFICATE-----\n" + std::string(500'000, 'M') + "\n-----END CERTIFICATE-----\n"));
    EXPECT_FALSE(crypto::read_certificates(std::string("\x30") + std::string(100'000, '\x80')));
}

// Frames of at most 16 MiB, header blocks of at most 64 KiB when they are decompressed, 32 MiB of answers that nobody reads.
TEST(Bounds, frames_of_a_port_forward) {
    const std::string large("\x00\x00\x00\x01\x00\xff\xff\xff", 8), control("\x80\x03\x00\x01\x00\xff\xff\xff", 8), ping("\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01", 12);
    api::Spdy half;
    EXPECT_TRUE(half.feed(large).has_value()) << "what is not there yet is waited for, up to the largest frame";
    // Every kind of control frame, with bodies of every length that are no such frame.
    for (int type = 0; type < 12; ++type)
        for (std::size_t size = 0; size < 40; ++size)
            for (const char fill : {'\0', '\x7f', '\xff'}) {
                api::Spdy spdy;
                const std::string frame = std::string("\x80\x03\x00", 3) + static_cast<char>(type) + std::string("\x00\x00\x00", 3) + static_cast<char>(size) + std::string(size, fill);
                ASSERT_NO_THROW({ [[maybe_unused]] const auto done = spdy.feed(frame); }) << type << " " << size;
            }
    api::Spdy pinged;
    std::string many;
    for (int i = 0; i < 10'000; ++i) many += ping;
    std::string fault;
    for (int i = 0; i < 400 && fault.empty(); ++i)
        if (const auto done = pinged.feed(many); !done) fault = done.error().message;
    EXPECT_EQ(fault, "the peer does not read what is answered");
    EXPECT_LT(pinged.pending(), 34u << 20);
    api::Spdy other;
    const auto version = other.feed(std::string("\x80\x02\x00\x06\x00\x00\x00\x00", 8));
    ASSERT_FALSE(version);
    EXPECT_EQ(version.error().message, "SPDY version 2 is not spoken here");
}

// Certificates, lists and answers in DER: lengths that lie, nesting without end, and each byte of a good one changed.
TEST(Bounds, what_is_written_in_asn_1) {
    const auto now = wall_ms();
    const auto key = crypto::make_key("Ec256").value();
    const auto pem = crypto::issue_certificate(key, nullptr, {.subject = {{"CN", "CA"}}, .is_ca = true, .not_before_ms = now - 1000, .not_after_ms = now + 86'400'000}).value();
    const auto ca = crypto::read_certificates(pem).value().front();
    std::string nested;
    for (int i = 0; i < 20'000; ++i) nested += "\x30\x80";
    const std::string lies[] = {nested, std::string("\x30\x84\x7f\xff\xff\xff", 6), std::string("\x30\x88") + std::string(8, '\xff'), std::string("\x30\x82\xff\xff") + std::string(100, '\x30'), std::string(1 << 20, '\x30'), std::string("\x30\x03\x0a\x01\x00", 5), ""};
    for (const auto& der : lies) {
        EXPECT_FALSE(crypto::ocsp_status(der, ca, ca, now)) << "an answer";
        for (const char* title : {"CERTIFICATE", "X509 CRL", "PKCS7"}) {
            const auto text = fmt::format("-----BEGIN {}-----\n{}\n-----END {}-----\n", title, base64_encode(der), title);
            ASSERT_NO_THROW({
                const auto certificates = crypto::read_certificates(text);
                EXPECT_TRUE(!certificates || certificates->empty()) << title;
                const auto lists = crypto::read_revocation_lists(text);
                EXPECT_TRUE(!lists || lists->empty()) << title;
            });
        }
    }
    const auto body = pem.substr(pem.find('\n') + 1, pem.find("-----END") - pem.find('\n') - 1);
    std::string packed;
    for (const char c : body)
        if (c != '\n') packed += c;
    const auto der = base64_decode(packed).value();
    for (std::size_t at = 0; at < der.size(); ++at) {
        auto changed = der;
        changed[at] = static_cast<char>(changed[at] ^ 0x80);
        ASSERT_NO_THROW({
            const auto read = crypto::read_certificates("-----BEGIN CERTIFICATE-----\n" + base64_encode(changed) + "\n-----END CERTIFICATE-----\n");
            if (read)
                for (const auto& one : *read) {
                    [[maybe_unused]] const auto words = one.subject() + one.issuer() + one.common_name() + one.key_text() + one.fingerprint();
                    [[maybe_unused]] const auto names = one.dns_names().size() + one.addresses().size();
                    [[maybe_unused]] const auto times = one.not_after_ms() - one.not_before_ms();
                    [[maybe_unused]] const bool signs = one.is_signed_by(ca);
                }
            [[maybe_unused]] const auto status = crypto::ocsp_status(changed, ca, ca, now);
        }) << at;
    }
}

TEST(Bounds, selectors_and_table_columns_of_users_words) {
    const auto& kind = *find_kind("v1", "ConfigMap");
    for (const auto& text : {std::string(60'000, '('), std::string(60'000, ')'), std::string(60'000, ','), std::string(60'000, '='), std::string(60'000, '!'), "a in (" + std::string(60'000, ',') + ")", std::string("=("), std::string("()"), std::string("!")}) {
        ASSERT_NO_THROW({ [[maybe_unused]] const auto one = api::Selector::parse(kind, text, ""); });
        ASSERT_NO_THROW({ [[maybe_unused]] const auto one = api::Selector::parse(kind, "", text); });
    }
    for (const auto& path : std::vector<std::string>{".", ".a[", std::string(".a[']"), std::string(".a['"), std::string(".a[?(@.)]"), ".a[?(@.b==)]", "." + std::string(60'000, '['), "." + std::string(60'000, '.'), ".a[?(@.b==\"]"}) {
        Kind thing{.version = "v1", .kind = "Thing", .columns = {{.name = "X", .path = path}}};
        const auto object = std::make_shared<const Json>(Json{{"metadata", {{"name", "x"}}}, {"a", {{{"b", "c"}}}}});
        ASSERT_NO_THROW({ [[maybe_unused]] const auto table = api::make_table(thing, {object}, "1", "None", true); }) << path.substr(0, 40);
    }
}

}  // namespace
}  // namespace penstock
