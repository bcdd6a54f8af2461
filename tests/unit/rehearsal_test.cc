// `penstock validate` and `penstock run -f` say the same of the same files.
#include <gtest/gtest.h>

#include "app/rehearsal.h"
#include "client/apply.h"
#include "client/file_follower.h"
#include "harness/api_transport.h"

namespace penstock {
namespace {

using resources::Json;
using resources::text_at;

/// One file that does not change.
struct OneFile final : client::ManifestFiles {
    explicit OneFile(std::string content) : text(std::move(content)) {}
    std::string text;
    client::Look look() override {
        return {{.path = "m.json", .files = {{.path = "m.json", .size = text.size(), .modified_ns = 1}}}};
    }
    client::Writer writer_of(const std::string&) override { return client::Writer::none; }
    Result<std::string> read(const std::string&) override { return text; }
};

/// What the follower of files says, which is what `run -f` does with a file. Empty: it took it.
std::string run_says(const std::string& text) {
    test::ApiWorld world;
    test::ApiTransport transport(world);
    client::FileFollower follower(transport, std::make_unique<OneFile>(text),
                                  {.source = "m.json",
                                   .name_space = "azure-iot-operations",
                                   .now_ms = [] { return 1'000'000; },
                                   .wall_ms = [] { return 1'000'000; }});
    const auto state = follower.step();
    return state.phase == client::FollowState::Phase::applied ? std::string() : state.why;
}

std::vector<std::string> validate_says(const std::string& text) {
    const auto documents = resources::parse_documents(text, "m.json");
    if (!documents) return {documents.error().message};
    return app::rehearse(*documents).faults;
}

Json broker(Json spec = Json::object(), Json annotations = Json::object()) {
    return {{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"},
            {"kind", "Broker"},
            {"metadata", {{"name", "default"}, {"annotations", annotations}}},
            {"spec", std::move(spec)}};
}
Json of(const char* kind, const char* name, Json spec, Json annotations = Json::object()) {
    return {{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"},
            {"kind", kind},
            {"metadata", {{"name", name}, {"annotations", annotations}}},
            {"spec", std::move(spec)}};
}
Json core(const char* kind, const char* name, Json rest) {
    rest["apiVersion"] = "v1";
    rest["kind"] = kind;
    rest["metadata"]["name"] = name;
    return rest;
}
Json listener(Json ports, Json more = Json::object(), Json annotations = Json::object()) {
    more["brokerRef"] = "default";
    more["ports"] = std::move(ports);
    return of("BrokerListener", "plant", std::move(more), std::move(annotations));
}

/// One good object of each kind that files may bring; mutants are made from them.
std::vector<Json> good_objects() {
    const Json rule = {
        {"principals", {{"clientIds", {"a"}}, {"attributes", Json::array({{{"site", "north"}}})}}},
        {"brokerResources",
         Json::array({{{"method", "Connect"}, {"clientIds", {"*"}}},
                      {{"method", "Publish"}, {"topics", {"plant/{principal.clientId}/#"}}}})},
        {"stateStoreResources",
         Json::array({{{"method", "Read"}, {"keyType", "Pattern"}, {"keys", {"a*"}}}})}};
    const Json methods = Json::array(
        {{{"method", "ServiceAccountToken"},
          {"serviceAccountTokenSettings", {{"audiences", {"aio-internal"}}}}},
         {{"method", "X509"},
          {"x509Settings",
           {{"trustedClientCaCert", "ca"},
            {"authorizationAttributes",
             {{"one", {{"subject", "CN = a"}, {"attributes", {{"site", "n"}}}}}}}}}},
         {{"method", "Password"}, {"passwordSettings", {{"secretRef", "users"}}}},
         {{"method", "Custom"},
          {"customSettings", {{"endpoint", "https://auth.example:8443/x"}, {"headers", {{"a", "b"}}}}}}});
    const Json tls = {
        {"mode", "Automatic"},
        {"certManagerCertificateSpec",
         {{"issuerRef", {{"kind", "ClusterIssuer"}, {"name", "azure-iot-operations-aio-certificate-issuer"}}},
          {"duration", "24h"},
          {"renewBefore", "8h"},
          {"privateKey", {{"algorithm", "Ec256"}, {"rotationPolicy", "Always"}}},
          {"san", {{"dns", {"gw.example"}}, {"ip", {"10.0.0.1"}}}}}}};
    return {
        broker({{"memoryProfile", "Low"},
                {"cardinality",
                 {{"frontend", {{"replicas", 1}, {"workers", 1}}},
                  {"backendChain", {{"partitions", 1}, {"redundancyFactor", 1}, {"workers", 1}}}}},
                {"advanced",
                 {{"clients",
                   {{"maxSessionExpirySeconds", 60},
                    {"subscriberQueueLimit", {{"length", 10}, {"strategy", "DropOldest"}}},
                    {"maxReceiveMaximum", 10},
                    {"maxKeepAliveSeconds", 10},
                    {"maxPacketSizeBytes", 1000},
                    {"maxMessageExpirySeconds", 10}}}}},
                {"diagnostics",
                 {{"logs", {{"level", "info,broker=debug"}}},
                  {"metrics", {{"prometheusPort", 0}}},
                  {"selfCheck", {{"mode", "Disabled"}, {"intervalSeconds", 30}, {"timeoutSeconds", 15}}},
                  {"traces",
                   {{"mode", "Disabled"}, {"cacheSizeMegabytes", 16}, {"spanChannelCapacity", 1000}}}}},
                {"diskBackedMessageBuffer", {{"maxSize", "10M"}}},
                {"persistence",
                 {{"maxSize", "1G"},
                  {"encryption", {{"mode", "Enabled"}}},
                  {"retain", {{"mode", "Custom"}, {"retainSettings", {{"topics", {"a/#"}}}}}},
                  {"stateStore", {{"mode", "All"}}},
                  {"subscriberQueue", {{"mode", "None"}}}}}},
               {{"penstock.io/compatibility", "AIO"},
                {"penstock.io/sys-topics", "Disabled"},
                {"penstock.io/hide-selftest", "Enabled"},
                {"penstock.io/listeners-per-service-type", "Any"},
                {"penstock.io/persistence-sync", "200ms"},
                {"penstock.io/message-buffer-age", "24h"},
                {"penstock.io/subscriber-queue-bytes", "64Mi"}}),
        listener(Json::array({{{"port", 1883},
                               {"protocol", "Mqtt"},
                               {"authenticationRef", "people"},
                               {"authorizationRef", "rules"},
                               {"tls", tls}}}),
                 {{"serviceType", "LoadBalancer"}, {"serviceName", "gateway"}},
                 {{"penstock.io/websocket-origins", "https://portal.example, http://localhost:*"}}),
        of("BrokerAuthentication", "people", {{"brokerRef", "default"}, {"authenticationMethods", methods}},
           {{"penstock.io/ocsp", "SoftFail"}, {"penstock.io/custom-unreachable", "Refuse"}}),
        of("BrokerAuthorization", "rules",
           {{"brokerRef", "default"},
            {"authorizationPolicies", {{"cache", "Enabled"}, {"rules", Json::array({rule})}}}}),
        core("Secret", "users", {{"type", "Opaque"}, {"data", {{"ann", "eA=="}}}}),
        core("ConfigMap", "words", {{"data", {{"a", "b"}}}, {"binaryData", {{"c", "eA=="}}}}),
        core("Service", "gate",
             {{"spec",
               {{"type", "NodePort"},
                {"ports", Json::array({{{"name", "a"}, {"port", 80}, {"nodePort", 30080}}})}}}}),
        core("ServiceAccount", "worker", Json::object()),
        {{"apiVersion", "cert-manager.io/v1"},
         {"kind", "Certificate"},
         {"metadata", {{"name", "leaf"}}},
         {"spec",
          {{"secretName", "leaf"},
           {"issuerRef", {{"name", "i"}}},
           {"dnsNames", {"a.example"}},
           {"ipAddresses", {"10.0.0.1"}},
           {"duration", "48h"},
           {"renewBefore", "8h"},
           {"privateKey", {{"algorithm", "ECDSA"}, {"size", 256}}},
           {"usages", {"server auth"}}}}},
        {{"apiVersion", "rbac.authorization.k8s.io/v1"},
         {"kind", "Role"},
         {"metadata", {{"name", "reader"}}},
         {"rules", Json::array({{{"apiGroups", {""}}, {"resources", {"pods"}}, {"verbs", {"get"}}}})}},
        {{"apiVersion", "apiextensions.k8s.io/v1"},
         {"kind", "CustomResourceDefinition"},
         {"metadata", {{"name", "pumps.plant.example"}}},
         {"spec",
          {{"group", "plant.example"},
           {"scope", "Namespaced"},
           {"names", {{"kind", "Pump"}, {"plural", "pumps"}}},
           {"versions",
            Json::array(
                {{{"name", "v1"},
                  {"served", true},
                  {"storage", true},
                  {"schema",
                   {{"openAPIV3Schema",
                     {{"type", "object"},
                      {"properties",
                       {{"spec",
                         {{"type", "object"},
                          {"properties", {{"rpm", {{"type", "integer"}, {"maximum", 9}}}}}}}}}}}}}}})}}}},
    };
}

/// All that differs from `object` by one value, anywhere in it.
void mutate(const Json& object, const std::function<void(Json)>& each) {
    const std::vector<Json> values{nullptr,
                                   "",
                                   "a b#",
                                   "1x",
                                   -1,
                                   99'999'999,
                                   true,
                                   Json::array({Json::object()}),
                                   Json::array({"", "#/a", "{principal.x}"}),
                                   std::string(300, 'n')};
    const auto flat = object.flatten();
    for (const auto& [pointer, value] : flat.items()) {
        const Json::json_pointer at(pointer);
        for (const auto& other : values) {
            if (other == value) continue;
            auto copy = object;
            copy[at] = other;
            each(std::move(copy));
        }
        // Gone, with all that stands with it; and a stranger beside it.
        for (auto up = at; !up.empty(); up.pop_back()) {
            const auto parent = up.parent_pointer();
            auto copy = object;
            if (copy[parent].is_object())
                copy[parent].erase(up.back());
            else
                copy[parent].erase(std::stoul(up.back()));
            each(std::move(copy));
            if (object[parent].is_object()) {
                copy = object;
                copy[parent]["stranger"] = 1;
                each(std::move(copy));
            }
        }
    }
}

TEST(Rehearsal, refuses_whatever_run_refuses_for_every_value_of_every_kind) {
    std::size_t tried = 0, refused = 0;
    std::set<std::string> seen;
    for (const auto& good : good_objects()) {
        EXPECT_EQ(run_says(good.dump() + "\n"), "") << good.dump();
        EXPECT_TRUE(validate_says(good.dump() + "\n").empty()) << good.dump();
        mutate(good, [&](const Json& mutant) {
            const auto text = mutant.dump() + "\n";
            if (!seen.insert(text).second) return;
            ++tried;
            const auto why = run_says(text);
            if (why.empty()) return;
            ++refused;
            EXPECT_FALSE(validate_says(text).empty()) << "run refuses " << text << "because " << why;
        });
    }
    EXPECT_GT(tried, 1200u);
    EXPECT_GT(refused, 700u);
}

TEST(Rehearsal, finds_what_stands_in_the_rules_between_objects) {
    const auto plain = [](int port) { return Json::array({{{"port", port}}}); };
    auto second = listener(plain(1884), {{"serviceType", "LoadBalancer"}});
    second["metadata"]["name"] = "other";
    auto same_service = listener(plain(1885), {{"serviceType", "NodePort"}, {"serviceName", "plant"}});
    same_service["metadata"]["name"] = "other";
    auto elsewhere = listener(plain(1883));
    elsewhere["metadata"]["namespace"] = "nowhere";
    auto node_port = core(
        "Service", "one",
        {{"spec", {{"type", "NodePort"}, {"ports", Json::array({{{"port", 80}, {"nodePort", 30080}}})}}}});
    auto taken = node_port;
    taken["metadata"]["name"] = "two";
    auto two = broker();
    two["metadata"]["name"] = "second";
    const std::vector<std::pair<Json, const char*>> bad{
        {Json::array({listener(plain(1883), {{"serviceType", "LoadBalancer"}}), second}), "spec.serviceType"},
        {Json::array({listener(plain(1883)), same_service}), "spec.serviceName"},
        {Json::array({listener(Json::array({{{"port", 1883}}, {{"port", 1883}}}))}), "spec.ports[1].port"},
        {Json::array(
             {listener(plain(1883), Json::object(), {{"penstock.io/websocket-origins", "example.org"}})}),
         "penstock.io/websocket-origins"},
        {Json::array({listener(Json::array({{{"port", 1883}, {"nodePort", 31000}}}))}), "nodePort"},
        {Json::array({broker(), two}), "one per namespace"},
        {Json::array({elsewhere}), "namespaces \"nowhere\" not found"},
        {Json::array({node_port, taken}), "already allocated"},
        {Json::array({{{"apiVersion", "plant.example/v1"}, {"kind", "Pump"}, {"metadata", {{"name", "p"}}}}}),
         "is not served"},
    };
    for (const auto& [objects, where] : bad) {
        const auto text = Json{{"apiVersion", "v1"}, {"kind", "List"}, {"items", objects}}.dump() + "\n";
        EXPECT_NE(run_says(text), "") << text;
        const auto faults = validate_says(text);
        ASSERT_FALSE(faults.empty()) << text;
        EXPECT_NE(faults.front().find(where), std::string::npos) << faults.front();
        EXPECT_EQ(faults.front().find("m.json: document "), 0u) << faults.front();
    }
    // A kind that the files bring themselves is known, and its schema counts.
    const auto crd = good_objects().back();
    auto pump = [&](int rpm) {
        return Json{{"apiVersion", "v1"},
                    {"kind", "List"},
                    {"items",
                     {{{"apiVersion", "plant.example/v1"},
                       {"kind", "Pump"},
                       {"metadata", {{"name", "p"}}},
                       {"spec", {{"rpm", rpm}}}},
                      crd}}}
                   .dump() +
               "\n";
    };
    EXPECT_TRUE(validate_says(pump(3)).empty());
    EXPECT_FALSE(validate_says(pump(30)).empty());
}

/// What the API takes and the controllers can never use.
TEST(Rehearsal, finds_what_keeps_a_port_closed_for_good) {
    auto of_port = [](const Json& tls) { return listener(Json::array({{{"port", 8883}, {"tls", tls}}})); };
    auto automatic = [&](Json spec) {
        spec["issuerRef"] = {{"kind", "ClusterIssuer"}, {"name", "i"}};
        return of_port({{"mode", "Automatic"}, {"certManagerCertificateSpec", std::move(spec)}});
    };
    auto certificate = [](Json spec) {
        spec["secretName"] = "c";
        spec["issuerRef"] = {{"name", "i"}};
        if (!spec.contains("dnsNames")) spec["dnsNames"] = {"a.example"};
        return Json{{"apiVersion", "cert-manager.io/v1"},
                    {"kind", "Certificate"},
                    {"metadata", {{"name", "c"}}},
                    {"spec", std::move(spec)}};
    };
    auto method = [](const char* name, const char* settings, Json value) {
        return of(
            "BrokerAuthentication", "people",
            {{"authenticationMethods", Json::array({{{"method", name}, {settings, std::move(value)}}})}});
    };
    const std::vector<std::pair<Json, const char*>> bad{
        {Json::array({of_port({{"mode", "Manual"}, {"manual", {{"secretRef", "s"}}}}),
                      core("Secret", "s", {{"stringData", {{"tls.crt", "x"}, {"tls.key", "y"}}}})}),
         "spec.ports[0].tls.manual.secretRef: Secret"},
        {Json::array({of_port({{"mode", "Manual"}, {"manual", {{"secretRef", "s"}}}}),
                      core("Secret", "s", {{"stringData", {{"cert", "x"}}}})}),
         "needs the entries tls.crt and tls.key"},
        {Json::array({automatic({{"duration", "48h"}, {"renewBefore", "72h"}})}), "renewBefore"},
        {Json::array({automatic({{"san", {{"ip", {"300.1.1.1"}}}}})}), "\"300.1.1.1\" is no IP address"},
        {Json::array({automatic({{"san", {{"dns", {"a b"}}}}})}), "\"a b\" is no DNS name"},
        {Json::array({automatic({{"secretName", "No_Name"}})}), "No_Name"},
        {Json::array({certificate({{"duration", "10m"}})}), "spec.duration"},
        {Json::array({certificate({{"dnsNames", {"a b"}}})}), "is no DNS name"},
        {Json::array({certificate({{"usages", {"to fly"}}})}), "is no usage"},
        {Json::array({certificate({{"privateKey", {{"algorithm", "ECDSA"}, {"size", 300}}}})}),
         "spec.privateKey.size"},
        {Json::array({{{"apiVersion", "cert-manager.io/v1"},
                       {"kind", "Issuer"},
                       {"metadata", {{"name", "i"}}},
                       {"spec", {{"acme", Json::object()}}}}}),
         "only the issuer types"},
        {Json::array({method("X509", "x509Settings", {{"trustedClientCaCert", "ca"}}),
                      core("ConfigMap", "ca", {{"data", {{"a", "no certificate"}}}})}),
         "ConfigMap ca"},
        {Json::array({method("Custom", "customSettings", {{"endpoint", "https://:1/"}})}), "customSettings"},
        {Json::array({listener(Json::array({{{"port", 1883}}}), {{"serviceName", "My.Gate"}})}),
         "spec.serviceName"},
    };
    for (const auto& [objects, where] : bad) {
        const auto text = Json{{"apiVersion", "v1"}, {"kind", "List"}, {"items", objects}}.dump() + "\n";
        const auto faults = validate_says(text);
        ASSERT_FALSE(faults.empty()) << text;
        EXPECT_NE(faults.front().find(where), std::string::npos) << faults.front();
    }
}

TEST(Rehearsal, what_may_come_from_elsewhere_is_no_fault_and_is_told) {
    const auto text =
        Json{
            {"apiVersion", "v1"},
            {"kind", "List"},
            {"items",
             {listener(Json::array({{{"port", 8883},
                                     {"authorizationRef", "rules"},
                                     {"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "s"}}}}}}})),
              of("BrokerAuthentication", "people",
                 {{"authenticationMethods",
                   Json::array({{{"method", "Password"}, {"passwordSettings", {{"secretRef", "users"}}}}})}}),
              core("Secret", "users", {{"stringData", {{"ann", "$6$c2FsdHNhbHRzYWx0$aGFzaA=="}}}})}}}
            .dump();
    const auto found = app::rehearse(resources::parse_documents(text, "m.json").value());
    EXPECT_TRUE(found.faults.empty()) << found.faults.front();
    auto told = [&](const std::string& part) {
        return std::ranges::any_of(found.notes,
                                   [&](const auto& note) { return note.find(part) != std::string::npos; });
    };
    EXPECT_TRUE(told("Secret azure-iot-operations/s is not in these files"));
    EXPECT_TRUE(told("BrokerAuthorization azure-iot-operations/rules is not in these files"));
    EXPECT_TRUE(told("spec.ports[0].authorizationRef: has no effect without authenticationRef"));
    EXPECT_TRUE(told("user \"ann\" of Secret users cannot log in")) << "and why: its hash";
}

/// What is told of these objects, in one text.
std::string notes_of(Json objects) {
    const Json list{{"apiVersion", "v1"}, {"kind", "List"}, {"items", std::move(objects)}};
    const auto found = app::rehearse(resources::parse_documents(list.dump(), "m.json").value());
    EXPECT_TRUE(found.faults.empty()) << found.faults.front();
    std::string out;
    for (const auto& note : found.notes) out += note + "\n";
    return out;
}

// A name that is misspelled acts nowhere: each place where one object names another.
TEST(Rehearsal, a_name_that_is_misspelled_is_told_with_what_is_near_and_what_there_is) {
    const Json by_token = Json::array({{{"method", "ServiceAccountToken"},
                                        {"serviceAccountTokenSettings", {{"audiences", {"aio-internal"}}}}}});
    const Json rule = {{"principals", {{"clientIds", {"a"}}}},
                       {"brokerResources", Json::array({{{"method", "Connect"}}})}};
    auto plant = broker();
    plant["metadata"]["name"] = "plant-floor";
    auto asks = [&](Json port, const char* named = "plant-floor") {
        port["port"] = 1883;
        auto out = listener(Json::array({std::move(port)}));
        out["spec"]["brokerRef"] = named;
        return out;
    };
    auto people = [&](const char* named) {
        return of("BrokerAuthentication", "people",
                  {{"brokerRef", named}, {"authenticationMethods", by_token}});
    };
    auto rules = [&](const char* named) {
        return of("BrokerAuthorization", "rules",
                  {{"brokerRef", named}, {"authorizationPolicies", {{"rules", Json::array({rule})}}}});
    };
    auto owned = asks(Json::object());
    owned["spec"].erase("brokerRef");
    owned["metadata"]["ownerReferences"] =
        Json::array({{{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"},
                      {"kind", "Broker"},
                      {"name", "plant-flor"},
                      {"uid", "00000000-0000-0000-0000-000000000001"}}});
    const Json manual = {{"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "gate-tsl"}}}}}};
    const auto gate = core("Secret", "gate-tls", {{"stringData", {{"a", "b"}}}});
    const std::string broker_note = "Broker azure-iot-operations/plant-flor is not in these files (did you mean "
                                    "\"plant-floor\"?), there is: plant-floor";
    const std::vector<std::tuple<Json, std::string, std::string>> cases{
        {Json::array({plant, asks(Json::object(), "plant-flor")}), "spec.brokerRef", broker_note},
        {Json::array({plant, people("plant-flor")}), "spec.brokerRef", broker_note},
        {Json::array({plant, rules("plant-flor")}), "spec.brokerRef", broker_note},
        {Json::array({plant, owned}), "metadata.ownerReferences", broker_note},
        {Json::array({plant, asks(Json::object(), "default")}), "spec.brokerRef",
         "Broker azure-iot-operations/default is not in these files, there is: plant-floor"},
        {Json::array({asks(Json::object(), "defalt")}), "spec.brokerRef", "(did you mean \"default\"?)"},
        {Json::array({plant, people("plant-floor"), asks({{"authenticationRef", "peeple"}})}),
         "spec.ports[0].authenticationRef", "(did you mean \"people\"?), there are: default, people"},
        {Json::array({plant, people("plant-floor"), rules("plant-floor"),
                      asks({{"authenticationRef", "people"}, {"authorizationRef", "rule"}})}),
         "spec.ports[0].authorizationRef", "(did you mean \"rules\"?), there is: rules"},
        {Json::array({plant, gate, asks(manual)}), "spec.ports[0].tls.manual.secretRef",
         "(did you mean \"gate-tls\"?)"},
    };
    for (const auto& [objects, field, says] : cases) {
        const auto told = notes_of(objects);
        EXPECT_NE(told.find(": " + field + ": "), std::string::npos) << field << " in: " << told;
        EXPECT_NE(told.find(says), std::string::npos) << says << "\nin: " << told;
    }
    // What is right is not told, and the Broker that is made when no file has one is there.
    EXPECT_EQ(notes_of(Json::array({plant, people("plant-floor"), rules("plant-floor"),
                                    asks({{"authenticationRef", "people"}, {"authorizationRef", "rules"}})}))
                  .find("is not in these files"),
              std::string::npos);
    EXPECT_EQ(notes_of(Json::array({asks(Json::object(), "default")})).find("is not in these files"),
              std::string::npos);
    // Without a bound and as it stands no name is told.
    const auto long_name = std::string(400, 'n');
    EXPECT_EQ(notes_of(Json::array({plant, people(std::string(253, 'n').c_str())})).find(long_name),
              std::string::npos);
}

// The same as a Warning of the API: both come of one list.
TEST(Rehearsal, a_module_and_an_annotation_that_nobody_knows_are_told_as_the_api_does) {
    const auto object = broker({{"diagnostics", {{"logs", {{"level", "info,brokr=debug"}}}}}},
                               {{"penstock.io/sys-topic", "Disabled"}});
    const auto told = notes_of(Json::array({object}));
    test::ApiWorld world;
    const auto reply = world.ask("POST",
                                 "/apis/mqttbroker.iotoperations.azure.com/v1/namespaces/"
                                 "azure-iot-operations/brokers",
                                 object.dump(), "application/json", "application/json");
    ASSERT_EQ(reply.status, 201) << reply.body;
    std::string warned;
    for (const auto& [name, value] : reply.headers)
        if (name == "Warning") warned += client::warning_text(value) + "\n";
    for (const char* part : {"spec.diagnostics.logs.level: \"brokr\"", "(did you mean \"broker\"?)",
                             "metadata.annotations[penstock.io/sys-topic]: has no effect: ",
                             "(did you mean \"penstock.io/sys-topics\"?)"}) {
        EXPECT_NE(told.find(part), std::string::npos) << part << "\nin: " << told;
        EXPECT_NE(warned.find(part), std::string::npos) << part << "\nin: " << warned;
    }
}

}   // namespace
}   // namespace penstock
