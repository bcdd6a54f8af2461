// What is told of the health: a table of facts and what each of them must say, and the objects that gather them.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <latch>
#include <regex>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "app/run_health.h"
#include "auth/held.h"
#include "base/given_clock.h"
#include "base/own_command.h"
#include "base/shell.h"
#include "base/text.h"
#include "broker/server.h"
#include "control/broker_controller.h"
#include "control/certificate_outlook.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "control/object_names.h"
#include "control/report_age.h"
#include "control/security.h"
#include "control/watchdog.h"
#include "control/ways_in.h"
#include "harness/api_transport.h"
#include "io/socket.h"
#include "mqttc/client.h"

namespace penstock {
namespace {

using control::BrokerFacts;
using control::Finding;
using control::PortFacts;
using control::ProcessFacts;
using control::Severity;
using resources::at_path;
using resources::Json;
using resources::text_at;

constexpr const char* space = "azure-iot-operations";
constexpr std::int64_t day_ms = 86'400'000;
const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& broker_kind(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }

PortFacts good_port() { return {.listener = "s/l", .port = 1883, .is_open = true, .is_blocked = false, .error = {}, .refused = {}, .nobody = {}, .everybody = {}, .warnings = {}, .probe_fault = {}}; }

BrokerFacts good_broker() {
    BrokerFacts out;
    out.name = "s/default";
    out.ports = {good_port()};
    return out;
}

struct BrokerCase {
    const char* what;
    std::function<void(BrokerFacts&)> spoil;
    const char *broker, *reason, *listener, *says, *cure;
    bool is_ready;
};

TEST(Health, each_fact_of_the_broker_is_told_with_its_cure) {
    const BrokerCase cases[] = {
        {"all is well", [](auto&) {}, "Available", "", "Available", "", "", true},
        {"no listener at all", [](auto& f) { f.ports.clear(); }, "Unavailable", "NoListener", "Available", "no port is open", "kubectl apply -f", false},
        {"the Broker was deleted", [](auto& f) { f.name.clear(); f.ports.clear(); }, "Unavailable", "NoBroker", "Available", "there is no Broker resource", "kubectl apply -f", false},
        {"a listener of no Broker", [](auto& f) { f.orphans = {control::OrphanFacts{.listener = "s/l", .broker = "x", .there = {"default"}, .running = "s/default"}}; }, "Degraded", "BrokerMissing", "Unavailable", "no Broker \"x\"", "spec: {brokerRef: default}", false},
        {"the state is read back", [](auto& f) { f.not_started = "reading 3 of 9"; f.is_starting = true; }, "Unavailable", "Starting", "Available", "reading 3 of 9", "", false},
        {"the state cannot be opened", [](auto& f) { f.not_started = "broker: permission denied"; }, "Unavailable", "StateNotOpen", "Available", "permission denied", "", false},
        {"a port is taken", [](auto& f) { f.ports.push_back(good_port()); f.ports[0].is_open = false; f.ports[0].error = "Address already in use"; }, "Degraded", "PortNotOpen", "Unavailable", "port 1883: Address already in use", "ss -ltnp", false},
        {"a port is taken by one that is named", [](auto& f) { f.ports.push_back(good_port()); f.ports[0].is_open = false; f.ports[0].error = "Address already in use: nc (process 7) holds it; end that program (kill 7) or choose another port"; }, "Degraded", "PortNotOpen", "Unavailable", "nc (process 7) holds it", "another port is chosen with: kubectl edit brokerlistener", false},
        {"a port needs a right", [](auto& f) { f.ports.push_back(good_port()); f.ports[0].is_open = false; f.ports[0].error = io::why_not_bound(EACCES, 883); }, "Degraded", "PortNotOpen", "Unavailable", "CAP_NET_BIND_SERVICE", "restart penstock when it has the capability, or choose a port from 1024 on, with: kubectl edit brokerlistener", false},
        {"a node port is taken", [](auto& f) { f.ports.push_back(good_port()); f.ports[0].is_open = false; f.ports[0].port = 1884; f.ports[0].node_port = 31884; f.ports[0].error = "port 31884 cannot be opened: Address already in use"; }, "Degraded", "PortNotOpen", "Unavailable", "node port 31884 (port 1884) cannot be opened: Address already in use", "sport = :31884'", false},
        {"the only port is taken", [](auto& f) { f.ports[0].is_open = false; f.ports[0].error = "in use"; }, "Unavailable", "NoListenerWorks", "Unavailable", "none of 1 port", "kubectl get brokerlistener", false},
        {"authentication is absent", [](auto& f) { f.ports[0].is_open = false; f.ports[0].is_blocked = true; f.ports[0].error = "BrokerAuthentication s/x does not exist"; }, "Unavailable", "NoListenerWorks", "Unavailable", "BrokerAuthentication s/x does not exist", "opens by itself", false},
        {"the certificate has expired", [](auto& f) { f.ports[0].refused = "has expired"; }, "Unavailable", "NoListenerWorks", "Unavailable", "port 1883: has expired", "", false},
        {"nobody can log in", [](auto& f) { f.ports[0].nobody = "Secret s/u has no user"; }, "Unavailable", "NoListenerWorks", "Unavailable", "has no user", "", false},
        {"the certificate ends soon", [](auto& f) { f.ports[0].warnings = {control::Warning{.what = "ends in 3 days", .cure = {}}}; }, "Degraded", "Warnings", "Degraded", "ends in 3 days", "", true},
        {"anybody may connect", [](auto& f) { f.ports[0].everybody = {.what = "port 1883: no authentication", .cure = "write authenticationRef"}; }, "Available", "", "Available", "", "", true},
        {"a port without TLS", [](auto& f) { f.ports[0].warnings = {control::Warning{.what = "no tls", .cure = "write tls"}}; }, "Degraded", "Warnings", "Degraded", "no tls; write tls", "write tls", true},
        {"the self-test fails", [](auto& f) { f.ports[0].probe_fault = "no CONNACK"; }, "Unavailable", "BrokerProbeFailed", "Unavailable", "no CONNACK", "penstock traces", false},
        {"the self-test fails on one of two", [](auto& f) { f.ports.push_back(good_port()); f.ports[1].listener = "s/m"; f.ports[0].probe_fault = "no CONNACK"; }, "Degraded", "BrokerProbeFailed", "Unavailable", "1/2 listeners", "penstock traces", false},
        {"rules let nobody in", [](auto& f) { f.named = {{"BrokerAuthentication", "s/a", {"all CAs have expired"}, {}}}; }, "Degraded", "NobodyCanConnect", "Available", "all CAs have expired", "", false},
        {"the metrics port is taken", [](auto& f) { f.metrics_fault = "metrics port 9600 cannot be opened"; }, "Degraded", "MetricsPortNotOpen", "Available", "metrics port 9600", "prometheusPort", true},
        {"the disk takes no writes", [](auto& f) { f.disk_fault = "No space left on device"; }, "Degraded", "DiskNotWritable", "Available", "No space left", "until it takes writes again", true},
        {"state was damaged", [](auto& f) { f.disk_notice = "set aside"; }, "Degraded", "StateWasDamaged", "Available", "set aside", "", true},
        {"keys are not in force", [](auto& f) { f.keys_fault = "key 3 is missing"; }, "Degraded", "KeysNotInForce", "Available", "key 3", "", true},
        {"persistence does not begin", [](auto& f) { f.persistence_waits = "broker/ cannot be read"; }, "Degraded", "PersistenceNotBegun", "Available", "cannot be read", "nothing is kept", true},
        {"the message buffer is full", [](auto& f) { f.buffer_fault = "64 MiB left"; }, "Degraded", "MessageBufferFull", "Available", "64 MiB left", "75 %", true},
        {"state is kept until the next start", [](auto& f) { f.persistence_ends = "goes on"; }, "Available", "", "Available", "", "", true},
    };
    for (const auto& one : cases) {
        SCOPED_TRACE(one.what);
        auto facts = good_broker();
        one.spoil(facts);
        control::HealthBoard board;
        board.put("Broker", control::findings_of(facts), 0, 0);
        const auto all = board.all(0);
        EXPECT_EQ(control::broker_health(all).status, one.broker);
        EXPECT_EQ(control::broker_health(all).reason, one.reason);
        EXPECT_EQ(control::health_of(all, "BrokerListener s/l").status, one.listener);
        const auto ready = control::readiness(all, false);
        EXPECT_EQ(ready.is_ready, one.is_ready);
        EXPECT_NE(ready.text.find(one.says), std::string::npos) << ready.text;
        EXPECT_NE(ready.text.find(one.cure), std::string::npos) << ready.text;
        EXPECT_NE(control::readiness(all, true).text.find(one.is_ready ? "readyz check passed" : "readyz check failed"), std::string::npos);
        EXPECT_EQ(control::not_ready_text(all).empty(), one.is_ready);
    }
    control::HealthBoard board;
    board.put("Broker", control::findings_of(good_broker()), 0, 0);
    EXPECT_EQ(control::readiness(board.all(0), false).text, "ok");
}

TEST(Health, each_fact_of_the_process_is_told_with_its_cure) {
    struct Case {
        const char* what;
        std::function<void(ProcessFacts&)> spoil;
        const char *broker, *reason, *says, *cure;
        bool is_ready;
    };
    const Case cases[] = {
        {"all is well", [](auto&) {}, "Available", "", "", "", true},
        {"a worker is stuck", [](auto& f) { f.turns_ms = {0, 12'000}; }, "Unavailable", "WorkerStuck", "worker 2 has not come to the end of its turn for 12 s", "restart penstock", false},
        {"descriptors near the limit", [](auto& f) { f.descriptors = 950, f.descriptors_max = 1024; }, "Degraded", "FileDescriptorsShort", "950 of 1024", "LimitNOFILE=", true},
        {"descriptors at the limit", [](auto& f) { f.descriptors = 1024, f.descriptors_max = 1024; }, "Unavailable", "FileDescriptorsShort", "1024 of 1024", "LimitNOFILE=", false},
        {"memory at 80 %", [](auto& f) { f.pool_used = 80, f.pool_max = 100; }, "Degraded", "MessageMemoryShort", "80 %", "subscriberQueueLimit", true},
        {"memory at 97 %", [](auto& f) { f.pool_used = 97, f.pool_max = 100; }, "Unavailable", "MessageMemoryShort", "so is CONNECT", "subscriberQueueLimit", false},
        {"the clock went back", [](auto& f) { f.clock_back_ms = 600'000; }, "Degraded", "ClockWentBack", "600 s behind", "timedatectl", true},
        {"the registry's disk is full", [](auto& f) { f.registry_fault = "database or disk is full"; }, "Degraded", "RegistryNotWritable", "database or disk is full", "make room", true},
        {"the log's place is taken", [](auto& f) { f.run_log_fault = "/d/log: a pipe stands there", f.run_log_folder = "/d/log"; }, "Degraded", "RunLogNotKept", "/d/log: a pipe stands there", "ls -la /d/log", true},
        {"the API is away", [](auto& f) { f.api_fault = "connection refused"; }, "Degraded", "ApiNotReached", "connection refused", "goes on with what it knows", true},
        {"token keys are gone", [](auto& f) { f.token_keys_fault = "cannot be read"; }, "Degraded", "TokenKeysNotRead", "cannot be read", "", true},
    };
    for (const auto& one : cases) {
        SCOPED_TRACE(one.what);
        ProcessFacts facts{.turns_ms = {0, 3}, .descriptors = 20, .descriptors_max = 1024, .pool_used = 10, .pool_max = 100, .clock_back_ms = 0, .registry_fault = {}, .api_fault = {}, .token_keys_fault = {}, .run_log_fault = {}, .run_log_folder = {}};
        one.spoil(facts);
        control::HealthBoard board;
        board.put("process", control::findings_of(facts), 0, 0);
        const auto all = board.all(0);
        EXPECT_EQ(control::broker_health(all).status, one.broker);
        EXPECT_EQ(control::broker_health(all).reason, one.reason);
        const auto ready = control::readiness(all, false);
        EXPECT_EQ(ready.is_ready, one.is_ready);
        EXPECT_NE(ready.text.find(one.says), std::string::npos) << ready.text;
        EXPECT_NE(ready.text.find(one.cure), std::string::npos) << ready.text;
        EXPECT_EQ(control::health_metrics(all).find("reason=") == std::string::npos, all.empty());
    }
}

TEST(Health, a_certificate_of_the_api_is_told_of_before_and_after_its_end) {
    EXPECT_TRUE(control::findings_of_certificate("it", 31 * day_ms, 0, "x").empty());
    EXPECT_EQ(control::findings_of_certificate("it", 3 * day_ms, 0, "x").at(0).severity, Severity::degraded);
    const auto ended = control::findings_of_certificate("it", 0, 1, "renew it").at(0);
    EXPECT_EQ(ended.severity, Severity::unavailable);
    EXPECT_EQ(ended.cure, "renew it");
}

TEST(Health, the_board_keeps_since_when_and_tells_of_who_says_nothing_any_more) {
    control::HealthBoard board;
    const Finding finding{.severity = Severity::degraded, .subject = "x", .reason = "Warnings", .what = "1 of 9", .cure = {}, .since_ms = 0};
    board.put("x", {finding}, 0, 1000, 500);
    const auto version = board.version();
    auto later = finding;
    later.what = "2 of 9";
    board.put("x", {later}, 100, 2000, 500);
    EXPECT_EQ(board.all(100).at(0).since_ms, 1000);
    EXPECT_EQ(board.all(100).at(0).what, "2 of 9");
    EXPECT_EQ(board.version(), version) << "a number that moves is no news";
    EXPECT_EQ(board.all(700).size(), 2u);
    EXPECT_EQ(board.all(700).at(1).reason.word(), "NoReport");
    board.put("x", {}, 800, 3000);
    EXPECT_TRUE(board.all(1'000'000).empty());
    EXPECT_NE(board.version(), version);
    board.put("x", {finding}, 900, 4000);
    EXPECT_EQ(board.all(900).at(0).since_ms, 4000) << "it began anew";
}

TEST(Health, times_move_with_the_state_and_a_time_ahead_of_the_clock_does_not_stand) {
    const std::int64_t now = 1'800'000'000'000;
    auto state = control::with_times(Json::object(), {}, now);
    EXPECT_EQ(text_at(state, "lastTransitionTime"), rfc3339(now));
    const auto same = control::with_times({{"status", {{"healthState", state}}}}, {}, now + 10'000);
    EXPECT_EQ(same, state) << "not written each time";
    EXPECT_EQ(text_at(control::with_times({{"status", {{"healthState", state}}}}, {}, now + 61'000), "lastUpdateTime"), rfc3339(now + 61'000));
    // The clock was a year ahead when that was written.
    EXPECT_EQ(text_at(control::with_times({{"status", {{"healthState", state}}}}, {}, now - 365 * day_ms), "lastUpdateTime"), rfc3339(now - 365 * day_ms));
    const auto worse = control::with_times({{"status", {{"healthState", state}}}}, {.status = "Degraded", .reason = "R", .message = "m"}, now + 5000);
    EXPECT_EQ(text_at(worse, "lastTransitionTime"), rfc3339(now + 5000));
}

TEST(Health, the_clock_that_goes_back_is_noticed_and_forgiven) {
    control::ClockWatch watch(0);
    EXPECT_EQ(watch.back_ms(1000, 1'000'000'000), 0);
    EXPECT_EQ(watch.back_ms(2000, 1'000'001'000), 0);
    EXPECT_GT(watch.back_ms(3000, 1'000'001'000 - 600'000), 590'000);
    EXPECT_GT(watch.back_ms(4000, 1'000'002'000 - 600'000), 590'000) << "it stays told";
    EXPECT_EQ(watch.back_ms(5000, 1'000'004'000), 0) << "set right again";
    EXPECT_GT(watch.back_ms(6000, 1'000'005'000 - 600'000), 590'000);
    EXPECT_EQ(watch.back_ms(6000 + 3'600'000, 1'000'005'000 - 600'000 + 3'600'000), 0) << "after an hour it is the time";
    // Across a start: an earlier run wrote a later time.
    control::ClockWatch restarted(1'000'000'000);
    EXPECT_GT(restarted.back_ms(1, 1'000'000'000 - 7'200'000), 7'000'000);
    control::ClockWatch sound(1'000'000'000);
    EXPECT_EQ(sound.back_ms(1, 1'000'000'500), 0);
}

/// Holds its worker up.
struct Hanging : auth::Authenticator {
    std::latch entered{1}, held{1};
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
        entered.count_down();
        held.wait();
        return auth::Verdict::accepted({});
    }
};

TEST(Health, a_worker_that_is_stuck_is_seen_without_waiting_for_it) {
    const auto hanging = std::make_shared<Hanging>();
    broker::Server server(2);
    broker::ListenerConfig config{.resource = "a", .port = 0};
    config.authenticator = hanging;
    const auto states = server.apply({}, {config});
    ASSERT_TRUE(states[0].is_open);
    std::jthread client([port = states[0].bound_port] {
        mqttc::Client one;
        [[maybe_unused]] const auto done = one.connect({.port = port}, {.version = mqtt::Version::v5, .client_id = "c", .keep_alive = 0});
    });
    hanging->entered.wait();
    // Somebody who asks all workers waits, and has the server's lock; the watchdog must not.
    std::jthread asks([&] { [[maybe_unused]] const auto figures = server.collect(); });
    const auto turns = server.turns_ms(monotonic_ms() + 60'000);
    hanging->held.count_down();
    ASSERT_EQ(turns.size(), 2u);
    EXPECT_GE(*std::ranges::max_element(turns), 60'000);
    EXPECT_LT(*std::ranges::min_element(turns), 60'000 + 5000);
    control::ProcessFacts facts;
    facts.turns_ms = turns;
    EXPECT_EQ(control::findings_of(facts).at(0).reason.word(), "WorkerStuck");
}

TEST(Health, what_an_earlier_run_wrote_is_taken_back) {
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects(*registry);
    registry->create(broker_kind("Broker"), space, {{"metadata", {{"name", "default"}}}, {"spec", Json::object()}}).value();
    registry->create(broker_kind("BrokerListener"), space, {{"metadata", {{"name", "new"}}}, {"spec", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 1883}}})}}}}).value();
    const Json state = control::with_times(Json::object(), {}, wall_ms());
    ASSERT_TRUE(registry->put_status(broker_kind("Broker"), space, "default", [&](const Json&) { return control::basic_status(Json::object(), "Running", "All replicas are running.", state); }));
    EXPECT_GT(control::latest_report_ms(objects), wall_ms() - 10'000);
    registry->create(core("Pod"), space, {{"metadata", {{"name", "p"}}}, {"spec", {{"containers", Json::array({{{"name", "c"}, {"image", "i"}}})}}}}).value();
    const Json shown = {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}})}, {"containerStatuses", Json::array({{{"name", "c"}, {"ready", true}, {"restartCount", 4}}})}};
    ASSERT_TRUE(registry->put_status(core("Pod"), space, "p", [&](const Json&) { return shown; }));
    control::forget_former_run(objects, "it has just started", true, wall_ms());
    const auto broker = registry->get(broker_kind("Broker"), space, "default").value();
    EXPECT_EQ(text_at(*broker, "status.healthState.status"), "Unknown");
    EXPECT_EQ(text_at(*broker, "status.runtimeStatus.status"), "Starting");
    EXPECT_EQ(text_at(*broker, "status.runtimeStatus.description"), "it has just started");
    const auto pod = registry->get(core("Pod"), space, "p").value();
    EXPECT_EQ(text_at(at_path(*pod, "status.conditions")[0], "status"), "False");
    EXPECT_EQ(at_path(*pod, "status.containerStatuses")[0]["restartCount"], 4);
    EXPECT_TRUE(at_path(*registry->get(broker_kind("BrokerListener"), space, "new").value(), "status").is_null()) << "nobody said anything of it";
}

TEST(Health, a_broker_elsewhere_that_is_gone_leaves_unknown) {
    const std::int64_t now = 1'800'000'000'000;
    auto lease = [&](const std::string& holder, std::int64_t renewed) { return Json{{"spec", {{"holderIdentity", holder}, {"leaseDurationSeconds", 15}, {"renewTime", rfc3339_ms(renewed)}}}}; };
    EXPECT_NE(control::silence_of(nullptr, now), "");
    const auto fresh = lease("b", now - 3000), stale = lease("b", now - 60'000), released = lease("", now - 1000);
    EXPECT_EQ(control::silence_of(&fresh, now), "");
    EXPECT_NE(control::silence_of(&stale, now).find("broker b has not renewed"), std::string::npos);
    EXPECT_NE(control::silence_of(&released, now).find("was stopped"), std::string::npos);
}

// --- ways in ---

crypto::Certificate certificate(const std::string& name, std::int64_t from, std::int64_t until, bool is_ca = true) {
    const auto key = crypto::make_key("Ec256").value();
    return crypto::read_certificates(crypto::issue_certificate(key, nullptr, {.subject = {{"CN", name}}, .is_ca = is_ca, .not_before_ms = from, .not_after_ms = until}).value()).value().front();
}

struct SilentServer : auth::CustomMethod::Server {
    int looks = 0;
    std::string why;
    void ask(auth::CustomMethod::Question, std::function<void(auth::CustomMethod::Answer)> done) override { done({}); }
    std::string fault() const override { return why; }
    void look() override { ++looks; }
};

TEST(WaysIn, what_shuts_with_time_alone_is_told) {
    const auto now = wall_ms();
    auto way = [](const char* method) {
        control::WayIn out;
        out.method = method;
        out.source = "here";
        return out;
    };
    auto x509 = way("X509"), users = way("Password"), tokens = way("ServiceAccountToken"), custom = way("Custom");
    x509.trusted = {certificate("old", now - 20 * day_ms, now - day_ms)};
    x509.put = {"put it", "put it"};
    EXPECT_NE(control::look_at({x509}, now).nobody.find("has expired"), std::string::npos);
    users.users = 1;
    auto both = control::look_at({x509, users}, now);
    EXPECT_EQ(both.nobody, "");
    EXPECT_EQ(both.warnings.size(), 1u) << "the other way is open";
    x509.trusted.push_back(certificate("soon", now - 20 * day_ms, now + 5 * day_ms));
    both = control::look_at({x509}, now);
    EXPECT_EQ(both.nobody, "");
    ASSERT_EQ(both.warnings.size(), 2u);
    EXPECT_NE(both.warnings[1].find("ends in 4 days"), std::string::npos) << both.warnings[1];
    users.users = 0;
    EXPECT_NE(control::look_at({users}, now).nobody.find("penstock passwd"), std::string::npos);
    tokens.keys_are_known = false;
    EXPECT_NE(control::look_at({tokens}, now).nobody, "");
    const auto server = std::make_shared<SilentServer>();
    custom.server = server;
    EXPECT_EQ(control::look_at({custom}, now).nobody, "");
    server->why = "connection refused";
    EXPECT_NE(control::look_at({custom}, now).nobody.find("connection refused"), std::string::npos);
    EXPECT_EQ(server->looks, 2);
    users.users = 1;
    EXPECT_EQ(control::look_at({custom, users}, now).nobody, "");
    custom.is_closed = true;
    EXPECT_NE(control::look_at({custom, users}, now).nobody, "") << "it refuses before the other is asked";
}

// What is told can be done as it stands: a command with the names of this installation, or a field.
TEST(WaysIn, each_cure_can_be_followed_as_it_stands) {
    const auto now = wall_ms();
    control::WayIn x509{.method = "X509", .source = "ConfigMap plant/client-ca", .trusted = {certificate("old", now - 20 * day_ms, now - day_ms)}}, users{.method = "Password", .source = "Secret plant/people"},
        tokens{.method = "ServiceAccountToken", .source = "the API", .keys_are_known = false}, custom{.method = "Custom", .field = "BrokerAuthentication plant/a: spec.authenticationMethods[1]", .source = "https://auth.example:9443"};
    const auto server = std::make_shared<SilentServer>();
    server->why = "connection refused";
    custom.server = server;
    const std::string bundle = "put ALL-CAS.crt";
    x509.put = {bundle};
    for (const auto& [way, cure] : {std::pair{x509, bundle}, std::pair{users, std::string("penstock passwd -n plant people USER")}, std::pair{tokens, std::string("kubectl get --raw /openid/v1/jwks")},
                                    std::pair{custom, std::string("curl -v https://auth.example:9443), or name another in BrokerAuthentication plant/a: spec.authenticationMethods[1].customSettings.endpoint")}}) {
        const auto said = control::look_at({way}, now).nobody;
        EXPECT_NE(said.find(cure), std::string::npos) << said;
    }
    auto soon = x509;
    soon.trusted.push_back(certificate("soon", now - 20 * day_ms, now + 5 * day_ms));
    soon.put.push_back(bundle);
    const auto warnings = control::look_at({soon}, now).warnings;
    ASSERT_EQ(warnings.size(), 2u);
    for (const auto& warning : warnings) EXPECT_NE(warning.find(bundle), std::string::npos) << warning;
}

/// A right, or an API, that comes later.
struct LateObjects final : control::LocalObjects {
    using LocalObjects::LocalObjects;
    int code = 403, asked = 0;
    registry::Answer<control::ObjectRef> create(const resources::Kind& kind, const std::string& name_space, Json object, const std::string& manager) override {
        ++asked;
        if (code != 0) return std::unexpected(registry::Failure{.code = code, .reason = "Forbidden", .message = "may not"});
        return LocalObjects::create(kind, name_space, std::move(object), manager);
    }
};

TEST(Events, that_are_refused_for_now_are_written_when_they_may_be) {
    const auto registry = registry::Registry::open(":memory:").value();
    auto events = [&] { return registry->list(core("Event"), "").items; };
    const Json about = {{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "m"}, {"namespace", space}, {"uid", "u"}}}};
    for (const int code : {403, 401, 429, 503}) {
        LateObjects objects(*registry);
        objects.code = code;
        control::Recorder recorder(objects, "test", machine_clock());
        const auto before = events().size();
        recorder.record(about, "Warning", "Late", "it is late " + std::to_string(code));
        recorder.record(about, "Warning", "Late", "it is late " + std::to_string(code));
        EXPECT_EQ(objects.asked, 1) << "the second is the first again";
        recorder.retry(monotonic_ms());
        EXPECT_EQ(objects.asked, 1) << "not at once";
        objects.code = 0;
        recorder.retry(monotonic_ms() + control::Recorder::retry_ms);
        ASSERT_EQ(events().size(), before + 1);
        EXPECT_TRUE(std::ranges::any_of(events(), [&](const auto& event) { return text_at(*event, "message") == "it is late " + std::to_string(code) && (*event)["count"] == 2; }));
        recorder.retry(monotonic_ms() + 2 * control::Recorder::retry_ms);
        EXPECT_EQ(objects.asked, 2) << "once";
    }
    LateObjects objects(*registry);
    control::Recorder recorder(objects, "test", machine_clock());
    const auto count = events().size();
    // A refusal that does not end by itself is none to try again; and what waits is bounded in number and time.
    objects.code = 422;
    recorder.record(about, "Warning", "Wrong", "it is wrong");
    recorder.retry(monotonic_ms() + control::Recorder::retry_ms);
    EXPECT_EQ(objects.asked, 1);
    objects.code = 403;
    for (std::size_t i = 0; i < 3 * control::Recorder::waiting_max; ++i) {
        auto other = about;
        other["metadata"]["uid"] = std::to_string(i);
        recorder.record(other, "Warning", "Many", "one of many " + std::to_string(i));
    }
    const auto asked = objects.asked;
    recorder.retry(monotonic_ms() + control::Recorder::retry_ms);
    EXPECT_EQ(objects.asked - asked, static_cast<int>(control::Recorder::waiting_max));
    recorder.retry(monotonic_ms() + control::Recorder::kept_ms + control::Recorder::retry_ms);
    objects.code = 0;
    recorder.retry(monotonic_ms() + 2 * control::Recorder::kept_ms);
    EXPECT_EQ(events().size(), count) << "they were given up";
}

// --- cures ---

/// A folder that goes at the end.
struct Folder {
    std::filesystem::path path;
    Folder() {
        std::string name = testing::TempDir() + "/penstock-cures-XXXXXX";
        path = mkdtemp(name.data());
    }
    ~Folder() { std::filesystem::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
};

std::string source_text(const char* file) {
    std::ifstream in(std::filesystem::path(PENSTOCK_SOURCE_DIR) / file);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// The commands below `penstock`, as their sources add them.
std::set<std::string> command_names() {
    std::set<std::string> out;
    const std::regex added(R"re(commands\s*\.add\(\s*"([a-z-]+)")re");
    for (const auto& file :
         std::filesystem::directory_iterator(std::filesystem::path(PENSTOCK_SOURCE_DIR) / "src" / "app")) {
        const auto text = source_text(file.path().c_str());
        for (auto at = std::sregex_iterator(text.begin(), text.end(), added); at != std::sregex_iterator(); ++at)
            out.insert((*at)[1].str());
    }
    return out;
}

/// Every finding that there is, each with something of its own in it.
std::vector<Finding> every_finding(const std::filesystem::path& folder) {
    std::vector<Finding> out;
    auto add = [&](const std::vector<Finding>& some) { out.insert(out.end(), some.begin(), some.end()); };
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects(*registry);
    auto facts = good_broker();
    facts.folder = folder / "broker", facts.key_file = folder / "keys", facts.again = "what the followed files have comes back with: kill -HUP 77";
    for (const char* why : {"closed", "blocked", "blind", "refused", "nobody", "everybody", "warned"}) {
        auto port = good_port();
        const std::string_view word = why;
        port.listener = std::string("s/") + why;
        port.is_open = word != "closed" && word != "blocked";
        port.is_blocked = word == "blocked";
        port.error = "something";
        (word == "blind" ? port.probe_fault : word == "refused" ? port.refused : word == "nobody" ? port.nobody : word == "everybody" ? port.everybody.what : port.warnings.emplace_back().what) = word == "closed" || word == "blocked" ? "" : "something";
        if (word == "everybody") port.everybody.cure = control::authentication_cure(objects, port.listener, "spec.ports[0]");
        if (word == "warned") port.warnings.back().cure = control::tls_cure(objects, port.listener, "spec.ports[0]");
        else port.warnings.clear();
        facts.ports.push_back(std::move(port));
    }
    facts.named = {{"BrokerAuthentication", "s/a", {"all CAs have expired"}, {control::Warning{.what = "a list is old; put in another with: kubectl edit configmap ca -n s", .cure = {}}}}};
    for (const char* broker : {"defualt", "other", "default"})
        for (const char* running : {"s/default", "t/default", ""}) facts.orphans.push_back({.listener = "s/o", .broker = broker, .there = {"default"}, .running = running});
    facts.metrics_fault = facts.disk_fault = facts.persistence_waits = facts.buffer_fault = facts.keys_fault = facts.disk_notice = facts.persistence_ends = facts.workers_wait = facts.not_kept = "something";
    facts.keep_it = "spec: {persistence: {retain: {mode: All}}}";
    add(control::findings_of(facts));
    auto bare = facts;
    bare.ports.clear();
    bare.disk_fault = "persistence.maxSize is used up";
    add(control::findings_of(bare));
    auto shut = good_broker();
    shut.ports[0].is_open = false;
    add(control::findings_of(shut));
    auto none = facts, waiting = facts;
    none.name.clear();
    add(control::findings_of(none));
    for (const bool starts : {true, false}) {
        waiting.not_started = "something";
        waiting.is_starting = starts;
        add(control::findings_of(waiting));
    }
    ProcessFacts process;
    process.turns_ms = {20'000};
    process.descriptors = process.descriptors_max = 100;
    process.pool_used = process.pool_max = 100;
    process.clock_back_ms = 1'000'000;
    process.registry_fault = process.api_fault = process.token_keys_fault = process.run_log_fault = "something";
    process.run_log_folder = folder / "log";
    add(control::findings_of(process));
    control::HealthBoard silent;
    silent.put("process", {}, 0, 0, 1);
    add(silent.all(100));

    // What the process says of its own certificates and of files that it follows.
    app::RunHealth health(*registry, "kill -HUP 77");
    health.certificates({{.name = "ca", .where = "ca.crt", .not_after_ms = 1, .fault = "cannot be written"}, {.name = "server", .where = "server.crt", .not_after_ms = wall_ms() + day_ms, .fault = {}}});
    using Phase = client::FollowState::Phase;
    const auto file = (folder / "it is.yaml").string();
    std::ofstream(file) << "kind: Broker\n";
    std::vector<client::Refusal> refusals;
    for (int i = static_cast<int>(client::Refusal::faulty); i <= static_cast<int>(client::Refusal::busy); ++i) refusals.push_back(static_cast<client::Refusal>(i));
    for (const auto refusal : refusals)
        for (const bool was_applied : {true, false}) {
            health.manifests("source", {.phase = Phase::refused, .why = file + ": document 1 (line 1): something", .faults = {}, .cure = client::cure_of(refusal, file, "s", client::FileFollower::manager, "kill -HUP 77"), .was_applied = was_applied});
            add(health.board().all(0));
        }
    health.manifests("source", {.phase = Phase::waiting, .why = "they changed a moment ago", .faults = {}, .cure = {}, .was_applied = true});
    add(health.board().all(0));
    const client::FollowedObject gone{.api_version = "v1", .kind = "ConfigMap", .name_space = "s", .name = "m", .file = file};
    health.manifests("source", {.phase = Phase::applied, .why = {}, .faults = {}, .cure = {}, .was_applied = true, .objects = std::make_shared<const std::vector<client::FollowedObject>>(1, gone)});
    health.look_for_deleted();
    add(health.board().all(0));
    return out;
}

// What is told is done as it stands: it names an object, file or number, its commands exist, and so do the files in it.
TEST(Health, every_cure_can_be_followed_as_it_stands) {
    const Folder folder;
    const auto commands = command_names();
    ASSERT_TRUE(commands.contains("validate"));
    const std::set<std::string> kubectl{"apply", "create", "edit", "get", "delete", "patch"}, end_by_themselves{"Starting", "PersistenceGoesOn", "WorkersWait", "ManifestWaits"};
    const std::set<std::string, std::less<>> settings{"LimitNOFILE=", "spec."};
    const std::regex command(R"((?:^|[^\w/.-])(penstock|kubectl|df|ls|mv|ss|du|kill|timedatectl|echo)(?: ([a-z-]+))?)"), file_name(R"(([/\w.-]+\.(?:yaml|yml|json|crt|key|pem)))"), made(R"(\((echo .*)\) \| kubectl apply -f -)"), line(R"(echo '([^']+)')");
    std::set<std::string, std::less<>> met;
    for (const auto& finding : every_finding(folder.path)) {
        SCOPED_TRACE(std::string(finding.reason.word()) + ": " + finding.text());
        met.emplace(finding.reason.word());
        EXPECT_FALSE(finding.subject.empty());
        EXPECT_FALSE(finding.what.empty());
        if (finding.cure.empty()) {
            EXPECT_TRUE(finding.what.find(" with: ") != std::string::npos || end_by_themselves.contains(std::string(finding.reason.word())));
            continue;
        }
        EXPECT_EQ(finding.what.find(finding.cure), std::string::npos) << "it is said twice";
        std::size_t steps = 0;
        for (auto at = std::sregex_iterator(finding.cure.begin(), finding.cure.end(), command); at != std::sregex_iterator(); ++at) {
            const auto program = (*at)[1].str(), verb = (*at)[2].str();
            ++steps;
            EXPECT_TRUE(program != "kubectl" || kubectl.contains(verb)) << verb;
            EXPECT_TRUE(program != "penstock" || verb.empty() || commands.contains(verb)) << verb;
        }
        for (const auto& setting : settings) steps += finding.cure.find(setting) != std::string::npos ? 1 : 0;
        EXPECT_TRUE(steps > 0 || finding.cure.find("by itself") != std::string::npos || finding.cure.find("make it smaller") != std::string::npos) << "nothing to do in it";
        for (auto at = std::sregex_iterator(finding.cure.begin(), finding.cure.end(), file_name); at != std::sregex_iterator(); ++at) {
            const auto name = (*at)[1].str();
            EXPECT_TRUE(name == "is.yaml" || std::filesystem::exists(name)) << name;   // "it is.yaml" is quoted, and there
        }
        EXPECT_TRUE(finding.cure.find("it is.yaml") == std::string::npos || finding.cure.find("/it is.yaml'") != std::string::npos) << "a name with a space is one word";
        if (std::smatch found; std::regex_search(finding.cure, found, made)) {
            const auto lines = found[1].str();
            std::string text;
            for (auto at = std::sregex_iterator(lines.begin(), lines.end(), line); at != std::sregex_iterator(); ++at) text += (*at)[1].str() + "\n";
            const auto documents = resources::parse_documents(text, "cure");
            ASSERT_TRUE(documents.has_value());
            ASSERT_EQ(documents->size(), 1u);
            EXPECT_TRUE(client::validate_documents(*documents).empty());
            EXPECT_EQ(text.find('"'), std::string::npos) << "kubectl shows it with backslashes";
        }
    }
    for (const auto reason : control::finding_reasons) EXPECT_TRUE(met.contains(reason)) << "no row for " << reason;
}

// --- what the controller says of listeners, and what to write where ---

struct OrphanCase {
    control::OrphanFacts facts;
    std::vector<std::string> says, not_said;
};

// A listener whose Broker is misspelled, elsewhere, not the one that runs, or not there at all.
TEST(Cures, a_listener_without_its_broker_says_which_there_are_and_what_to_write) {
    const OrphanCase cases[] = {
        {{.listener = "plant/l", .broker = "defualt", .there = {"default"}, .running = "plant/default"},
         {"no Broker \"defualt\" in namespace plant (did you mean \"default\"?)", "kubectl patch brokerlistener l -n plant --type merge -p 'spec: {brokerRef: default}'"}, {"nor any other", "kubectl apply"}},
        {{.listener = "plant/l", .broker = "old", .there = {"default", "old"}, .running = "plant/default"},
         {"Broker plant/old does not run", "that is plant/default", "-p 'spec: {brokerRef: default}'"}, {"there is no Broker"}},
        {{.listener = "lab/l", .broker = "default", .there = {}, .running = "plant/main"},
         {"no Broker \"default\" in namespace lab, nor any other", "the one that runs on this machine is plant/main", "metadata.namespace: plant and spec.brokerRef: main", "kubectl delete brokerlistener l -n lab"}, {"did you mean"}},
        {{.listener = "lab/l", .broker = "main", .there = {}, .running = ""}, {"echo 'kind: Broker'", "metadata: {name: main, namespace: lab}"}, {"kubectl patch"}},
        {{.listener = "lab/l", .broker = "Ma in", .there = {}, .running = ""}, {"metadata: {name: default, namespace: lab}", "-p 'spec: {brokerRef: default}'"}, {"name: Ma in"}},
    };
    for (const auto& one : cases) {
        const auto told = control::finding_of(one.facts).text();
        for (const auto& part : one.says) EXPECT_NE(told.find(part), std::string::npos) << part << "\nin: " << told;
        for (const auto& part : one.not_said) EXPECT_EQ(told.find(part), std::string::npos) << part << "\nin: " << told;
    }
    // With no Broker at all the one that is made is the one that the listeners wait for.
    BrokerFacts facts;
    facts.orphans = {{.listener = "lab/l", .broker = "main", .there = {}, .running = ""}};
    for (const auto& finding : control::findings_of(facts)) EXPECT_NE(finding.cure.find("metadata: {name: main, namespace: lab}"), std::string::npos) << finding.text();
}

/// A broker over resources in memory, and what its statuses say.
struct Served {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    control::BrokerController controller{objects, "test", machine_clock()};
    explicit Served(const char* self_check = "Disabled") {
        put(broker_kind("Broker"), "default", {{"spec", {{"diagnostics", {{"selfCheck", {{"mode", self_check}}}, {"metrics", {{"prometheusPort", 0}}}}}}}});
        controller.start();
    }
    ~Served() { controller.stop(); }
    Served(const Served&) = delete;
    Served& operator=(const Served&) = delete;
    void put(const resources::Kind& kind, const std::string& name, Json content) {
        content["metadata"]["name"] = name;
        const auto made = registry->create(kind, space, std::move(content));
        ASSERT_TRUE(made.has_value()) << made.error().message;
    }
    void listener(const std::string& name, Json port, const char* type = "ClusterIp", const char* broker = "default") {
        port["port"] = 0;
        put(broker_kind("BrokerListener"), name, {{"spec", {{"brokerRef", broker}, {"serviceType", type}, {"ports", Json::array({std::move(port)})}}}});
    }
    [[nodiscard]] Json status(const char* kind, const std::string& name) const {
        const auto found = registry->get(broker_kind(kind), space, name);
        return found ? at_path(**found, "status") : Json();
    }
    [[nodiscard]] std::string told(const char* kind, const std::string& name) const { return text_at(status(kind, name), "runtimeStatus.description"); }
    /// Waits until the description has all parts, and answers it.
    std::string wait(const char* kind, const std::string& name, const std::vector<std::string>& parts) const {
        auto has_all = [&] {
            const auto said = told(kind, name);
            return std::ranges::all_of(parts, [&](const auto& part) { return said.find(part) != std::string::npos; });
        };
        EXPECT_TRUE(wait(has_all)) << told(kind, name);
        return told(kind, name);
    }
    bool wait(const std::function<bool()>& done) const {
        for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end && !done();) registry->wait_change(registry->version(), 50);
        return done();
    }
};

Json rules_for(const char* user) {
    return {{"spec", {{"authorizationPolicies", {{"rules", Json::array({{{"principals", {{"usernames", Json::array({user})}}}, {"brokerResources", Json::array({{{"method", "Connect"}}})}}})}}}}}};
}
const Json by_token = {{"spec", {{"authenticationMethods", Json::array({{{"method", "ServiceAccountToken"}, {"serviceAccountTokenSettings", {{"audiences", Json::array({"aio-internal"})}}}}})}}}};

TEST(Cures, a_listener_whose_broker_is_misspelled_says_so_in_its_status) {
    Served world;
    world.listener("one", Json::object(), "ClusterIp", "defalt");
    world.wait("BrokerListener", "one", {"(did you mean \"default\"?)", "kubectl patch brokerlistener one -n azure-iot-operations --type merge -p 'spec: {brokerRef: default}'"});
    EXPECT_NE(text_at(world.status("BrokerListener", "one"), "healthState.message").find("did you mean"), std::string::npos);
}

TEST(Cures, rules_that_are_not_there_are_told_with_those_that_are) {
    Served world;
    world.listener("one", {{"authenticationRef", "peeple"}, {"authorizationRef", "may"}});
    // None is there: how one is made, with the names that the listener waits for.
    world.wait("BrokerListener", "one", {"BrokerAuthentication azure-iot-operations/peeple does not exist, and no other is in namespace azure-iot-operations", "metadata: {name: peeple, namespace: azure-iot-operations}",
                                         "BrokerAuthorization azure-iot-operations/may does not exist", "metadata: {name: may, namespace: azure-iot-operations}", "kubectl edit brokerlistener one -n azure-iot-operations"});
    world.put(broker_kind("BrokerAuthentication"), "people", by_token);
    world.put(broker_kind("BrokerAuthorization"), "others", rules_for("ada"));
    const auto said = world.wait("BrokerListener", "one", {"does not exist (did you mean \"people\"?): name one that is there (people)", "BrokerAuthorization azure-iot-operations/may does not exist: name one that is there (others), or make it"});
    EXPECT_EQ(said.find("describe"), std::string::npos) << said;
}

// A name is one exactly where the API takes it.
TEST(Cures, know_which_names_an_object_can_have) {
    const auto registry = registry::Registry::open(":memory:").value();
    const std::pair<const resources::Kind*, Json> kinds[] = {{&broker_kind("Broker"), {{"spec", Json::object()}}}, {&broker_kind("BrokerAuthentication"), by_token}, {&broker_kind("BrokerAuthorization"), rules_for("ada")},
                                                             {&core("Secret"), Json::object()}, {&core("ConfigMap"), Json::object()},
                                                             {resources::find_kind("cert-manager.io/v1", "Issuer"), {{"spec", {{"selfSigned", Json::object()}}}}}, {resources::find_kind("cert-manager.io/v1", "ClusterIssuer"), {{"spec", {{"selfSigned", Json::object()}}}}}};
    for (const auto& [kind, content] : kinds)
        for (const auto& name : {std::string("a"), std::string("ab"), std::string("abc"), std::string("0-9"), std::string("-ab"), std::string("ab-"), std::string("a.b"), std::string("a..b"), std::string("Abc"), std::string("a b c"), std::string("a_b"),
                                 std::string("'; rm x"), std::string("\xC3\xA4"), std::string(63, 'a'), std::string(64, 'a'), std::string(253, 'a'), std::string(254, 'a')}) {
            auto object = content;
            object["metadata"]["name"] = name;
            const bool taken = registry->create(*kind, kind->namespaced ? space : "", object).has_value();
            EXPECT_EQ(control::can_be_name(*kind, name), taken) << kind->kind << " " << name;
            if (taken) { EXPECT_TRUE(registry->remove(*kind, kind->namespaced ? space : "", name)); }
        }
}

// What cannot be made is not said to be made, and what is made in its place takes nothing's name.
TEST(Cures, a_name_that_no_object_can_have_gets_another_one) {
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects(*registry);
    auto make = [&](const resources::Kind& kind, const char* name, Json content) {
        content["metadata"]["name"] = name;
        ASSERT_TRUE(registry->create(kind, kind.namespaced ? space : "", content).has_value());
    };
    make(broker_kind("BrokerAuthorization"), "rules", rules_for("ada"));
    make(*resources::find_kind("cert-manager.io/v1", "Issuer"), "plant", {{"spec", {{"selfSigned", Json::object()}}}});
    for (const auto& [told, name, field] : {std::tuple{control::absent_rules(objects, "BrokerAuthentication", space, "People"), "clients", "authenticationRef: clients"},
                                            std::tuple{control::absent_rules(objects, "BrokerAuthorization", space, std::string(64, 'a')), "rules-2", "authorizationRef: rules-2"},
                                            std::tuple{control::absent_issuer(objects, "Issuer", space, "my CA of the hall"), "plant-2", "issuerRef.name: plant-2"}}) {
        EXPECT_NE(told.find("no object can have that name ("), std::string::npos) << told;
        EXPECT_NE(told.find(fmt::format("name: {}", name)), std::string::npos) << told;
        EXPECT_NE(told.find(fmt::format("; then write {}", field)), std::string::npos) << told;
        EXPECT_EQ(told.find("make it"), std::string::npos) << told;
    }
    EXPECT_NE(control::absent_issuer(objects, "Issuer", space, "hall.two").find("or make it"), std::string::npos) << "an issuer may have a dot";
    const auto absent = [&](const std::string& name) { return control::absent_object(core("Secret"), "s", name, "secretRef", "kubectl edit broker b -n s", "make {} -n {}"); };
    EXPECT_EQ(absent("good.one"), "Secret s/good.one does not exist; make it with: make good.one -n s");
    EXPECT_NE(absent("x; rm -r /").find("no object can have that name (at most 253 of a-z, 0-9, '-' and '.', a letter or digit at each end): name another one in secretRef, with: kubectl edit broker b -n s"), std::string::npos);
    EXPECT_EQ(absent("x; rm -r /").find("make "), std::string::npos);
}

// What the platform's own listener has comes before what is first in the alphabet.
TEST(Cures, name_what_the_platform_has_itself_first) {
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects(*registry);
    for (const char* name : {"aaa", "default", "zzz"}) {
        auto object = by_token;
        object["metadata"]["name"] = name;
        ASSERT_TRUE(registry->create(broker_kind("BrokerAuthentication"), space, object).has_value());
    }
    const auto listener = std::string(space) + "/l";
    EXPECT_NE(control::authentication_cure(objects, listener, "spec.ports[0]").find("write authenticationRef: default into spec.ports[0] (there are: aaa, default, zzz)"), std::string::npos);
    for (const char* name : {"aaa", control::default_issuer})
        ASSERT_TRUE(registry->create(*resources::find_kind("cert-manager.io/v1", "ClusterIssuer"), "", {{"metadata", {{"name", name}}}, {"spec", {{"selfSigned", Json::object()}}}}).has_value());
    EXPECT_NE(control::tls_cure(objects, listener, "spec.ports[0]").find(fmt::format("issuerRef: {{kind: ClusterIssuer, name: {}}}", control::default_issuer)), std::string::npos);
    // A listener that waits for another Broker is not written over.
    BrokerFacts facts;
    facts.name = "s/default";
    facts.orphans = {{.listener = "s/local", .broker = "other"}, {.listener = "t/local-2", .broker = "other"}};
    const auto findings = control::findings_of(facts);
    EXPECT_TRUE(std::ranges::any_of(findings, [](const auto& one) { return one.reason.word() == "NoListener" && one.cure.find("name: local-2, namespace: s") != std::string::npos; }));
}

// A command is typed into a shell that knows nothing of --data-dir, nor of the folder that penstock was started in.
TEST(Cures, commands_of_ones_own_find_the_platform_from_anywhere) {
    EXPECT_EQ(own_command("pki list"), "penstock pki list");
    set_own_kubeconfig("/it is/kubeconfig.yaml");
    EXPECT_EQ(own_command("pki list"), "penstock pki list --kubeconfig '/it is/kubeconfig.yaml'");
    EXPECT_NE(client::cure_of(client::Refusal::faulty, "/m/a.yaml", "s", "m", "").find("penstock apply --server-side --dry-run -f /m/a.yaml --kubeconfig '/it is/kubeconfig.yaml'"), std::string::npos);
    set_own_kubeconfig({});
    const auto here = (std::filesystem::current_path() / "a.yaml").string();
    EXPECT_NE(client::cure_of(client::Refusal::faulty, "./b/../a.yaml", "s", "m", "").find("-f " + here), std::string::npos);
    EXPECT_EQ(typed_path("../" + std::filesystem::current_path().filename().string() + "/a b"), "'" + (std::filesystem::current_path() / "a b").string() + "'");
    EXPECT_EQ(restore_command(""), "penstock restore FOLDER");
    EXPECT_EQ(restore_command("/var/it is/registry.sqlite"), "penstock restore FOLDER --data-dir '/var/it is'");
    ProcessFacts process;
    process.turns_ms = {20'000};
    process.pid = 77;
    EXPECT_NE(control::findings_of(process).at(0).cure.find("kill -ABRT 77 "), std::string::npos);
}

/// Files that show what they are told to.
struct OddFiles final : client::ManifestFiles {
    OddFiles(client::SourceMark mark, Result<std::string> content) : source(std::move(mark)), text(std::move(content)) {}
    client::SourceMark source;
    Result<std::string> text;
    client::Look look() override { return {source}; }
    client::Writer writer_of(const std::string&) override { return client::Writer::none; }
    Result<std::string> read(const std::string&) override { return text; }
};

// Each place where a path stands in a command: absolute, and one word of a shell, whatever is in its name.
TEST(Cures, every_path_is_typed_absolute_and_as_one_word) {
    const auto registry = registry::Registry::open(":memory:").value();
    test::ApiWorld world;
    test::ApiTransport transport(world);
    for (const std::string name : {"plain", "it is", "O'Hara", "$HOME;a"}) {
        const auto relative = "./b/../" + name;
        auto word = [&](const std::string& end = {}) {
            return shell_quoted((std::filesystem::current_path() / (name + end)).string());
        };
        std::vector<std::pair<std::string, std::string>> cases;   // what is said, and what must stand in it
        auto cures = [](const auto& facts) {
            std::string out;
            for (const auto& finding : control::findings_of(facts)) out += finding.cure + "\n";
            return out;
        };
        auto broker = good_broker();
        broker.folder = relative, broker.key_file = relative + ".key";
        broker.disk_fault = broker.disk_notice = broker.keys_fault = "something";
        const auto told = cures(broker);
        cases.insert(cases.end(), {{told, "df -h " + word() + "\n"},
                                   {told, "(ls -la " + word("/lost") + ")"},
                                   {told, "mv -T --backup=numbered " + word("/lost") + " " + word("-lost") + "\n"},
                                   {told, "ls -la " + word(".key") + "\n"}});
        broker.not_started = "something", broker.folder = relative + "/broker";
        cases.emplace_back(cures(broker), "df -h " + word("/broker") + "; ls -la " + word("/broker") + ";");
        cases.emplace_back(cures(broker), "--data-dir " + word() + "\n");
        ProcessFacts process;
        process.run_log_fault = "something", process.run_log_folder = relative;
        cases.emplace_back(cures(process), "ls -la " + word() + ",");
        for (const auto refusal : {client::Refusal::faulty, client::Refusal::owned})
            cases.emplace_back(client::cure_of(refusal, relative, "s", "m", ""), "-f " + word());
        for (const auto refusal : {client::Refusal::unknown_kind, client::Refusal::too_large})
            if (const auto cure = client::cure_of(refusal, relative, "s", "m", ""); cure.find(" in /") != std::string::npos ||
                                                                                    cure.find(" in '") != std::string::npos)
                cases.emplace_back(cure, " in " + word());
        app::RunHealth health(*registry, "kill -HUP 77");
        const client::FollowedObject gone{.api_version = "v1", .kind = "ConfigMap", .name_space = "s", .name = "m", .file = relative};
        health.manifests(relative, {.phase = client::FollowState::Phase::applied, .why = {}, .faults = {}, .cure = {}, .was_applied = true,
                                    .objects = std::make_shared<const std::vector<client::FollowedObject>>(1, gone)});
        health.look_for_deleted();
        ASSERT_EQ(health.board().all(0).size(), 1u);
        cases.emplace_back(health.board().all(0).front().cure, "take it out of " + word());
        auto follow = [&](client::SourceMark source, Result<std::string> text) {
            source.path = relative;
            client::FileFollower follower(transport, std::make_unique<OddFiles>(std::move(source), std::move(text)),
                                          {.source = relative, .name_space = space, .now_ms = [] { return 1'000'000; }, .wall_ms = [] { return 1'000'000; }});
            return follower.step().cure;
        };
        const std::vector<client::FileMark> one{{.path = relative, .size = 1, .modified_ns = 1}};
        cases.insert(cases.end(), {{follow({.fault = "it is gone"}, std::string()), "ls -ld " + word() + ";"},
                                   {follow({.is_folder = true}, std::string()), "ls -la " + word()},
                                   {follow({.files = one}, fail("permission denied")), "ls -l " + word()},
                                   {follow({.files = one}, std::string(client::manifests_bytes_max + 1, '#')), "du -ch " + word()},
                                   {follow({.files = one}, std::string("a: [\n")), "penstock validate -f " + word() + " "}});
        for (const auto& [said, part] : cases) {
            EXPECT_NE(said.find(part), std::string::npos) << part << "\nin: " << said;
            EXPECT_EQ(said.find(relative), std::string::npos) << said;
        }
    }
}

/// What stands between two texts; the first of them must be there.
std::string between(const std::string& text, std::string_view from, std::string_view to) {
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from << " in: " << text;
    if (at == std::string::npos) return {};
    const auto begin = at + from.size();
    return text.substr(begin, text.find(to, begin) - begin);
}

/// What a person gets who writes this line into a manifest.
Json read_back(const std::string& line) {
    const auto documents = resources::parse_documents(line + "\n", "cure");
    EXPECT_TRUE(documents.has_value() && documents->size() == 1) << line;
    return documents && documents->size() == 1 ? documents->front().object : Json();
}

// Each place where a name is to be written into YAML: it is read back as that name, and not as a number or a truth value.
TEST(Cures, a_name_that_yaml_takes_for_something_else_is_read_back_as_a_name) {
    for (const std::string name : {"true", "null", "yes", "off", "123", "1e3", "0777", "0x1f", "2024-01-01", "plant-7"}) {
        SCOPED_TRACE(name);
        const auto registry = registry::Registry::open(":memory:").value();
        control::LocalObjects objects(*registry);
        registry->create(core("Namespace"), "", {{"metadata", {{"name", name}}}});
        const auto listener = name + "/gate";
        const auto make = [&](const char* api, const char* kind) {
            const auto& of = *resources::find_kind(api, kind);
            const Json token = by_token, issuer = {{"spec", {{"selfSigned", Json::object()}}}};
            auto object = of.group == "cert-manager.io" ? issuer : token;
            object["metadata"]["name"] = name;
            ASSERT_TRUE(registry->create(of, of.namespaced ? name : "", object).has_value()) << kind;
        };
        /// The object that a command of a cure makes.
        const auto made = [](const std::string& told) {
            const auto command = "; " + between(told, "(", ") | kubectl apply -f -");
            std::string text;
            for (auto at = command.find("; echo '"); at != std::string::npos; at = command.find("; echo '", at + 1))
                text += between(command.substr(at), "echo '", "'") + "\n";
            return read_back(text);
        };
        // Not there yet: what is made has that name, in that namespace.
        for (const auto& told : {control::absent_rules(objects, "BrokerAuthentication", name, name), control::absent_rules(objects, "BrokerAuthorization", name, name),
                                 control::absent_issuer(objects, "Issuer", name, name)}) {
            const auto object = made(told.substr(told.find("(echo")));
            EXPECT_EQ(at_path(object, "metadata.name"), Json(name)) << told;
            EXPECT_EQ(at_path(object, "metadata.namespace"), Json(name)) << told;
        }
        // There: it is named.
        make("mqttbroker.iotoperations.azure.com/v1", "BrokerAuthentication");
        const auto authentication = control::authentication_cure(objects, listener, "spec.ports[0]");
        EXPECT_EQ(at_path(read_back(between(authentication, "write ", " into ")), "authenticationRef"), Json(name)) << authentication;
        for (const char* kind : {"Issuer", "ClusterIssuer"}) {
            const auto with_issuers = registry::Registry::open(":memory:").value();
            control::LocalObjects there(*with_issuers);
            const auto& of = *resources::find_kind("cert-manager.io/v1", kind);
            with_issuers->create(core("Namespace"), "", {{"metadata", {{"name", name}}}});
            ASSERT_TRUE(with_issuers->create(of, of.namespaced ? name : "", {{"metadata", {{"name", name}}}, {"spec", {{"selfSigned", Json::object()}}}}).has_value());
            const auto tls = control::tls_cure(there, listener, "spec.ports[0]");
            const auto ref = at_path(read_back(between(tls, "write ", " into ")), "tls.certManagerCertificateSpec.issuerRef");
            EXPECT_EQ(ref, Json({{"kind", kind}, {"name", name}})) << tls;
        }
        // A listener of another Broker: the one that runs is named, by command, by hand, and with its namespace.
        control::OrphanFacts orphan{.listener = listener, .broker = "other", .there = {name}, .running = name + "/" + name};
        auto told = control::finding_of(orphan).cure;
        EXPECT_EQ(at_path(read_back(between(told, "-p '", "'")), "spec.brokerRef"), Json(name)) << told;
        orphan.name_is_taken = true;
        told = control::finding_of(orphan).cure;
        EXPECT_EQ(at_path(read_back(between(told, "write spec.", ", ")), "brokerRef"), Json(name)) << told;
        orphan = {.listener = "lab/gate", .broker = "other", .there = {}, .running = name + "/" + name};
        told = control::finding_of(orphan).cure;
        EXPECT_EQ(at_path(read_back(between(told, "write metadata.", " and ")), "namespace"), Json(name)) << told;
        EXPECT_EQ(at_path(read_back(between(told, "and spec.", " into ")), "brokerRef"), Json(name)) << told;
    }
}

// What is made by the commands can be made.
TEST(Cures, what_they_make_is_valid) {
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects(*registry);
    const std::regex made(R"(\(((?:echo '[^']*'(?:; )?)+)\) \| kubectl apply -f -)"), line(R"(echo '([^']+)')");
    for (const auto& told : {control::absent_rules(objects, "BrokerAuthentication", "s", "a"), control::absent_rules(objects, "BrokerAuthorization", "s", "Not A Name"), control::absent_issuer(objects, "Issuer", "s", "i"),
                             control::absent_issuer(objects, "ClusterIssuer", "s", "i"), control::authentication_cure(objects, "s/l", "spec.ports[0]"), control::tls_cure(objects, "s/l", "spec.ports[0]")}) {
        std::smatch found;
        ASSERT_TRUE(std::regex_search(told, found, made)) << told;
        const auto lines = found[1].str();
        std::string text;
        for (auto at = std::sregex_iterator(lines.begin(), lines.end(), line); at != std::sregex_iterator(); ++at) text += (*at)[1].str() + "\n";
        const auto documents = resources::parse_documents(text, "cure");
        ASSERT_TRUE(documents.has_value()) << text;
        ASSERT_EQ(documents->size(), 1u);
        const auto faults = client::validate_documents(*documents);
        EXPECT_TRUE(faults.empty()) << text << (faults.empty() ? "" : faults.front());
        EXPECT_EQ(told.find('\\'), std::string::npos) << "kubectl shows a backslash twice";
    }
}

TEST(Cures, an_issuer_that_is_not_there_is_told_with_those_that_are) {
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects(*registry);
    auto make = [&](const char* kind, const char* name) {
        const auto& one = *resources::find_kind("cert-manager.io/v1", kind);
        registry->create(one, one.kind == "Issuer" ? space : "", {{"metadata", {{"name", name}}}, {"spec", {{"selfSigned", Json::object()}}}}).value();
    };
    EXPECT_NE(control::absent_issuer(objects, "Issuer", space, "plant").find("no other issuer is there: make it"), std::string::npos);
    make("Issuer", "plant");
    make("ClusterIssuer", "all");
    const auto near = control::absent_issuer(objects, "Issuer", space, "plannt"), other_kind = control::absent_issuer(objects, "Issuer", space, "all"), far = control::absent_issuer(objects, "Issuer", space, "something");
    EXPECT_NE(near.find("the Issuer \"plannt\" does not exist (did you mean \"plant\"?): name one that is there in issuerRef (Issuer plant, ClusterIssuer all)"), std::string::npos) << near;
    EXPECT_NE(other_kind.find("did you mean the ClusterIssuer of that name?"), std::string::npos) << other_kind;
    EXPECT_NE(far.find(", or make it"), std::string::npos) << far;
    EXPECT_NE(control::tls_cure(objects, std::string(space) + "/l", "spec.ports[1]").find("write tls: {mode: Automatic, certManagerCertificateSpec: {issuerRef: {kind: Issuer, name: plant}}} into spec.ports[1]"), std::string::npos);
}

// A port without authentication does what its owner asked for; passwords that can be read on the way are what he did not.
TEST(Cures, a_port_that_is_open_to_the_network_says_so_and_one_with_readable_passwords_is_not_available) {
    Served world;
    world.put(broker_kind("BrokerAuthentication"), "people", by_token);
    world.listener("lan", Json::object(), "LoadBalancer");
    world.listener("here", Json::object());
    world.listener("clear", {{"authenticationRef", "people"}, {"nodePort", 0}}, "NodePort");
    world.wait("BrokerListener", "lan", {"no authentication: anybody who reaches it from another machine may connect, read and write", "write authenticationRef: people into spec.ports[0] (there is: people), with: kubectl edit brokerlistener lan", "serviceType: ClusterIp"});
    world.wait("BrokerListener", "here", {"no authentication: anybody on this machine may connect"});
    world.wait("BrokerListener", "clear", {"spec.ports[0] has no tls: passwords and tokens cross the network in clear text; write tls: {mode: Automatic", "kubectl edit brokerlistener clear"});
    auto health = [&](const char* name, const char* field) { return text_at(world.status("BrokerListener", name), std::string("healthState.") + field); };
    EXPECT_EQ(health("lan", "status"), "Available");
    EXPECT_NE(health("clear", "status"), "Available");
    EXPECT_EQ(health("here", "status"), "Available") << health("here", "message");
    EXPECT_EQ(world.told("BrokerListener", "lan").find("describe"), std::string::npos);
}

// What is to be done is about the Secret that the listener names, not about the one that goes on being served.
TEST(Cures, an_end_that_comes_is_about_the_secret_that_the_listener_names_now) {
    Served world;
    const auto ca = crypto::make_ca("ca", 10).value();
    const auto pair = crypto::make_leaf(ca, {.common_name = "broker", .organizations = {}, .dns_names = {"localhost"}, .addresses = {"127.0.0.1", "::1"}, .server = true, .days = 5}).value();
    world.put(core("Secret"), "first", {{"type", "kubernetes.io/tls"}, {"data", {{"tls.crt", base64_encode(pair.certificate)}, {"tls.key", base64_encode(pair.key)}}}});
    world.listener("one", {{"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "first"}}}}}});
    world.wait("BrokerListener", "one", {"put its successor into Secret azure-iot-operations/first"});
    const auto port = at_path(world.status("BrokerListener", "one"), "portStatus")[0]["boundPort"];
    EXPECT_GT(port, 0);
    const Json ports = Json::array({{{"port", 0}, {"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "second"}}}}}}});
    ASSERT_TRUE(world.registry->patch(broker_kind("BrokerListener"), space, "one", registry::PatchType::merge, {{"spec", {{"ports", ports}}}}, false).has_value());
    const auto said = world.wait("BrokerListener", "one", {"Secret azure-iot-operations/second does not exist", "goes on being served", "put its successor into Secret azure-iot-operations/second"});
    EXPECT_EQ(said.find("secret tls first"), std::string::npos) << said;
}

TEST(Cures, a_key_of_another_certificate_is_told_with_the_commands_that_show_it) {
    Served world;
    const auto ca = crypto::make_ca("ca", 10).value();
    auto pair = [&] { return crypto::make_leaf(ca, {.common_name = "broker", .organizations = {}, .dns_names = {"localhost"}, .addresses = {}, .server = true, .days = 90}).value(); };
    world.put(core("Secret"), "mine", {{"type", "kubernetes.io/tls"}, {"data", {{"tls.crt", base64_encode(pair().certificate)}, {"tls.key", base64_encode(pair().key)}}}});
    world.listener("one", {{"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "mine"}}}}}});
    const auto said = world.wait("BrokerListener", "one", {"the private key is not that of the first certificate", "kubectl get secret mine -n azure-iot-operations -o go-template='{{index .data `tls.crt` | base64decode}}' | openssl x509 -noout -pubkey",
                                                         "-o go-template='{{index .data `tls.key` | base64decode}}' | openssl pkey -pubout", "kubectl create secret tls mine -n azure-iot-operations"});
    EXPECT_EQ(said.find('\\'), std::string::npos) << said;
}

TEST(SelfCheck, says_that_there_is_nothing_to_check_when_the_last_listener_goes) {
    Served world("Enabled");
    auto check = [&] { return at_path(world.status("Broker", "default"), "selfCheck"); };
    EXPECT_TRUE(world.wait([&] { return text_at(check(), "status") == "NothingToCheck"; })) << check();
    world.listener("one", Json::object());
    EXPECT_TRUE(world.wait([&] {
        world.controller.probe_now();
        return text_at(check(), "status") == "Passed";
    })) << check();
    ASSERT_TRUE(world.registry->remove(broker_kind("BrokerListener"), space, "one"));
    EXPECT_TRUE(world.wait([&] { return text_at(check(), "status") == "NothingToCheck"; })) << check();
    EXPECT_NE(text_at(check(), "message"), "");
    EXPECT_TRUE(check()["routes"].empty()) << check();
    // Its connections may stay a moment; then the route has no figures any more.
    EXPECT_TRUE(world.wait([&] {
        return world.controller.view().metrics_page().find("aio_broker_ping_correctness{") ==
               std::string::npos;
    }));
}

// Rules are in force where they act, and nowhere else.
TEST(Cures, rules_are_said_to_be_in_force_only_where_they_act) {
    Served world;
    world.put(broker_kind("BrokerAuthentication"), "people", by_token);
    world.put(broker_kind("BrokerAuthorization"), "may", rules_for("ada"));
    world.put(broker_kind("BrokerAuthorization"), "idle", rules_for("ada"));
    world.listener("shut", {{"authenticationRef", "nobody"}, {"authorizationRef", "may"}});
    world.listener("open", {{"authorizationRef", "idle"}}, "LoadBalancer");
    EXPECT_EQ(world.wait("BrokerAuthorization", "may", {"Named by shut port 0 (which is not open)"}).find("n force"), std::string::npos);
    EXPECT_EQ(world.wait("BrokerAuthorization", "idle", {"Named by open port 0 (without authenticationRef it has no effect)"}).find("n force"), std::string::npos);
    auto change = [&](const char* authentication) {
        const Json ports = Json::array({{{"port", 0}, {"authenticationRef", authentication}, {"authorizationRef", "may"}}});
        ASSERT_TRUE(world.registry->patch(broker_kind("BrokerListener"), space, "shut", registry::PatchType::merge, {{"spec", {{"ports", ports}}}}, false).has_value());
    };
    change("people");
    world.wait("BrokerAuthorization", "may", {"In force on shut port 0"});
    // The port stays open under the rules before: it is not said that it does not open.
    change("peple");
    const auto said = world.wait("BrokerListener", "shut", {"newcomers are refused (0x88)", "(did you mean \"people\"?)"});
    EXPECT_EQ(said.find("does not open"), std::string::npos) << said;
    world.wait("BrokerAuthorization", "may", {"Named by shut port 0 (the rules before go on)"});
    world.wait("BrokerAuthentication", "people", {"No port names it."});
}

TEST(Projection, each_condition_of_the_node_has_a_heartbeat) {
    const auto registry = registry::Registry::open(":memory:").value();
    control::Housekeeper keeper{*registry,
                                {.clock = machine_clock(),
                                 .api_ca = "CA",
                                 .make_token = {},
                                 .version = "test",
                                 .roles = [] { return std::vector<control::Role>(); },
                                 .manifests = [] { return std::string(); }}};
    keeper.start();
    auto conditions = [&] {
        const auto nodes = registry->list(core("Node"), "").items;
        return nodes.empty() ? Json::array() : at_path(*nodes.front(), "status.conditions");
    };
    for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end && conditions().size() < 2;) registry->wait_change(registry->version(), 50);
    keeper.stop();
    ASSERT_EQ(conditions().size(), 2u);
    for (const auto& one : conditions()) EXPECT_GT(parse_rfc3339(text_at(one, "lastHeartbeatTime")), 0) << one;
}

// One class of refusal, one way out: a full disk is not mended by correcting a file.
TEST(Health, each_class_of_refusal_has_a_cure_of_its_own) {
    auto response = [](int status, const char* message, const char* details = "") {
        return client::Response{.status = status, .body = {{"message", message}, {"details", {{"kind", details}}}}, .text = {}, .warnings = {}};
    };
    struct Case {
        client::Response response;
        const char *does, *does_not;
    };
    const Case cases[] = {
        {response(422, "spec.ports[0].port: Invalid value"), "penstock apply --server-side --dry-run -f /m/a.yaml", "df -h"},
        {response(409, "Apply failed with 1 conflict: conflict with \"kubectl-edit\": .data.a"), "--force-conflicts --field-manager penstock-files -f /m/a.yaml", "correct it"},
        {response(409, "Operation cannot be fulfilled"), "tried again by itself", "force"},
        {response(404, "namespaces \"later\" not found", "namespaces"), "kubectl create namespace later", "correct it"},
        {response(403, "it is being terminated"), "kubectl get namespace later", "correct it"},
        {response(507, "the registry's disk does not take the change: full"), "df -h", "correct it"},
        {response(507, "the registry is full: all objects together may have 1 bytes"), "delete what is not needed", "df -h"},
        {response(413, "Request entity too large"), "make it smaller in /m/a.yaml", "validate"},
        {response(429, "too many"), "tried again by itself", "correct it"},
        {response(500, "database"), "tried again by itself", "correct it"},
    };
    for (const auto& one : cases) {
        const auto cure = client::cure_of(client::refusal_of(one.response), "/m/a.yaml", "later", "penstock-files", "kill -HUP 7");
        EXPECT_NE(cure.find(one.does), std::string::npos) << one.response.status << ": " << cure;
        EXPECT_EQ(cure.find(one.does_not), std::string::npos) << one.response.status << ": " << cure;
    }
    // What is refused is tried again, whether or not the file changes; what standard input had, too.
    for (const char* file : {"/m/a.yaml", "-"})
        for (const auto refusal : {client::Refusal::faulty, client::Refusal::unknown_kind, client::Refusal::too_large}) {
            const auto cure = client::cure_of(refusal, file, "s", "m", "kill -HUP 7");
            EXPECT_NE(cure.find("tried again by itself within a minute"), std::string::npos) << cure;
            EXPECT_EQ(cure.find("at once when the file changes or with: kill -HUP 7") != std::string::npos,
                      file != std::string("-")) << cure;
        }
    const auto unmakeable = client::cure_of(client::Refusal::no_namespace, "/m/a.yaml", "The Lab", "m", "");
    EXPECT_NE(unmakeable.find("correct metadata.namespace in /m/a.yaml"), std::string::npos) << unmakeable;
    EXPECT_EQ(unmakeable.find("kubectl create"), std::string::npos) << unmakeable;
    EXPECT_EQ(client::cure_of(client::Refusal::faulty, "-", "s", "m", "kill -HUP 7").find("kill -HUP"), std::string::npos) << "standard input is read once";
}

// A start tells of what it does not follow and finds all the same.
TEST(Health, what_files_of_an_earlier_run_left_is_told_with_the_way_to_delete_it) {
    const auto registry = registry::Registry::open(":memory:").value();
    const app::RunHealth health(*registry, "kill -HUP 7");
    auto make = [&](const char* name, const char* source) {
        Json object = {{"metadata", {{"name", name}}}};
        if (source != nullptr) object["metadata"]["annotations"] = {{client::FileFollower::source_annotation, source}};
        registry->create(core("ConfigMap"), space, object).value();
    };
    make("mine", nullptr);
    make("here", "/new.yaml");
    EXPECT_EQ(health.left_by_former_files({"/new.yaml"}), "");
    make("a", "/the tour.yaml");
    const auto one = health.left_by_former_files({"/new.yaml"});
    EXPECT_TRUE(one.starts_with("1 object of files that an earlier run followed ('/the tour.yaml') stays in force: "
                                "penstock get broker,brokerlistener -A shows it, penstock delete -f FILE")) << one;
    make("b", "/the tour.yaml");
    make("c", "/z\x1b[2J");
    const auto three = health.left_by_former_files({"/new.yaml"});
    EXPECT_TRUE(three.starts_with("3 objects of files that an earlier run followed ('/the tour.yaml' and 1 more) stay ")) << three;
    EXPECT_EQ(health.left_by_former_files({"/the tour.yaml", "/new.yaml"}).find('\x1b'), std::string::npos);
}

TEST(Health, what_somebody_deletes_of_a_followed_file_is_told_until_it_is_back) {
    const auto registry = registry::Registry::open(":memory:").value();
    app::RunHealth health(*registry, "kill -HUP 7");
    auto make = [&] { registry->create(core("ConfigMap"), space, {{"metadata", {{"name", "m"}}}}).value(); };
    make();
    const client::FollowedObject object{.api_version = "v1", .kind = "ConfigMap", .name_space = space, .name = "m", .file = "/f.yaml"};
    health.manifests("/f.yaml", {.phase = client::FollowState::Phase::applied, .why = {}, .faults = {}, .cure = {}, .was_applied = true, .objects = std::make_shared<const std::vector<client::FollowedObject>>(1, object)});
    health.look_for_deleted();
    EXPECT_TRUE(health.board().all(0).empty());
    ASSERT_TRUE(registry->remove(core("ConfigMap"), space, "m"));
    health.look_for_deleted();
    ASSERT_EQ(health.board().all(0).size(), 1u);
    EXPECT_EQ(health.board().all(0)[0].text(), "ConfigMap azure-iot-operations/m of /f.yaml was deleted by somebody, and the files still have it; have the files applied again with: kill -HUP 7; or take it out of /f.yaml");
    make();
    health.look_for_deleted();
    EXPECT_TRUE(health.board().all(0).empty());
}

// --- certificates that go wrong later ---

struct Chain {
    std::string root_key = crypto::make_key("Ec256").value(), key = crypto::make_key("Ec256").value();
    std::int64_t now = wall_ms();
    std::string root, intermediate, leaf;
    crypto::Certificate one(const std::string& pem) { return crypto::read_certificates(pem).value().front(); }
    explicit Chain(std::int64_t days) {
        root = crypto::issue_certificate(root_key, nullptr, {.subject = {{"CN", "root"}}, .is_ca = true, .not_before_ms = now - day_ms, .not_after_ms = now + 400 * day_ms}).value();
        const crypto::KeyPair by_root{.certificate = root, .key = root_key};
        intermediate = crypto::issue_certificate(key, &by_root, {.subject = {{"CN", "between"}}, .is_ca = true, .not_before_ms = now - day_ms, .not_after_ms = now + 300 * day_ms}).value();
        const crypto::KeyPair by_intermediate{.certificate = intermediate, .key = key};
        leaf = crypto::issue_certificate(crypto::make_key("Ec256").value(), &by_intermediate, {.subject = {{"CN", "leaf"}}, .dns_names = {"localhost"}, .not_before_ms = now - day_ms, .not_after_ms = now + days * day_ms}).value();
    }
    std::vector<std::string> told(const std::vector<std::string>& sent, const std::vector<std::string>& known, bool is_manual = true) {
        control::ServedCertificate served{.chain = {}, .name_space = space, .secret = "mine", .is_manual = is_manual, .put = "kubectl create secret tls mine", .say_root = "kubectl create configmap server-ca"};
        for (const auto& pem : sent) served.chain.push_back(one(pem));
        std::vector<crypto::Certificate> near;
        for (const auto& pem : known) near.push_back(one(pem));
        return control::outlook(served, near, now);
    }
};

TEST(CertificateOutlook, a_chain_without_its_intermediate_and_an_end_that_nobody_renews) {
    Chain chain(200);
    EXPECT_TRUE(chain.told({chain.leaf, chain.intermediate}, {chain.root}).empty());
    EXPECT_TRUE(chain.told({chain.leaf, chain.intermediate}, {}).empty()) << "the root is known to clients, not here";
    EXPECT_TRUE(chain.told({chain.leaf, chain.intermediate, chain.root}, {}).empty());
    auto lacking = chain.told({chain.leaf}, {chain.root, chain.intermediate});
    ASSERT_EQ(lacking.size(), 1u);
    EXPECT_NE(lacking[0].find("lacks its intermediate \"CN = between\""), std::string::npos) << lacking[0];
    EXPECT_NE(lacking[0].find("cat LEAF.crt INTERMEDIATE.crt"), std::string::npos);
    lacking = chain.told({chain.leaf}, {});
    ASSERT_EQ(lacking.size(), 1u);
    EXPECT_NE(lacking[0].find("whose issuer \"CN = between\" is not in it"), std::string::npos) << lacking[0];
    EXPECT_NE(chain.told({chain.leaf, chain.root}, {}).at(0).find("is not in it"), std::string::npos) << "a root that does not follow from the leaf fills no gap";
    // Two certificates of one intermediate: the first one leads to a CA that is not sent, the other one to the root.
    const auto high_key = crypto::make_key("Ec256").value();
    const auto high = crypto::issue_certificate(high_key, nullptr, {.subject = {{"CN", "high"}}, .is_ca = true, .not_before_ms = chain.now - day_ms, .not_after_ms = chain.now + 400 * day_ms}).value();
    const crypto::KeyPair by_high{.certificate = high, .key = high_key};
    const auto low_key = crypto::make_key("Ec256").value();
    const auto low = crypto::issue_certificate(low_key, &by_high, {.subject = {{"CN", "low"}}, .is_ca = true, .not_before_ms = chain.now - day_ms, .not_after_ms = chain.now + 400 * day_ms}).value();
    const crypto::KeyPair by_low{.certificate = low, .key = low_key};
    const auto twin = crypto::issue_certificate(chain.key, &by_low, {.subject = {{"CN", "between"}}, .is_ca = true, .not_before_ms = chain.now - day_ms, .not_after_ms = chain.now + 300 * day_ms}).value();
    EXPECT_TRUE(chain.told({chain.leaf, twin, chain.intermediate, chain.root}, {low}).empty());
    EXPECT_TRUE(chain.told({chain.leaf, chain.intermediate, chain.root, twin}, {low}).empty());
    EXPECT_FALSE(chain.told({chain.leaf, twin}, {low}).empty());
    Chain soon(3);
    const auto ends = soon.told({soon.leaf, soon.intermediate}, {soon.root});
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_NE(ends[0].find("ends in 2 days"), std::string::npos) << ends[0];
    EXPECT_NE(ends[0].find("kubectl create secret tls mine"), std::string::npos);
    EXPECT_TRUE(soon.told({soon.leaf, soon.intermediate}, {soon.root}, false).empty()) << "it is renewed";
}

// --- what was deleted ---

struct Security {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    control::SecurityBuilder builder{objects,
                                     {.clock = machine_clock(),
                                      .token_keys = {},
                                      .probe_secret = std::make_shared<const std::string>("s"),
                                      .crew = std::make_shared<auth::Crew>(1, 4),
                                      .custom_server = {},
                                      .revocation = {}}};
    Json listener{{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"metadata", {{"name", "l"}, {"namespace", space}, {"uid", "u"}}}, {"spec", {{"serviceName", "svc"}}}};
    control::PreparedTls manual() {
        auto out = builder.tls(listener, {{"port", 8883}, {"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "mine"}}}}}}, {"localhost"}, false, {}, false);
        builder.sweep();
        return out;
    }
    void put(const resources::Kind& kind, const std::string& name, Json content) {
        content["metadata"]["name"] = name;
        const auto made = registry->create(kind, space, content);
        ASSERT_TRUE(made.has_value()) << made.error().message;
    }
    void put_pair(const crypto::KeyPair& pair) { put(core("Secret"), "mine", {{"type", "kubernetes.io/tls"}, {"data", {{"tls.crt", base64_encode(pair.certificate)}, {"tls.key", base64_encode(pair.key)}}}}); }
};

// A document with several faults is corrected once.
TEST(Authentication, names_every_method_that_is_wrong_at_once) {
    Security security;
    security.put(core("ConfigMap"), "broken", {{"data", {{"ca.pem", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"}}}});
    auto methods = Json::array({{{"method", "X509"}, {"x509Settings", {{"trustedClientCaCert", "absent"}}}}, {{"method", "Password"}, {"passwordSettings", {{"secretRef", "nobody"}}}}});
    security.put(broker_kind("BrokerAuthentication"), "first", {{"spec", {{"authenticationMethods", methods}}}});
    auto made = security.builder.authenticator(space, "first");
    EXPECT_NE(made.fault.find("spec.authenticationMethods[0].x509Settings.trustedClientCaCert: ConfigMap azure-iot-operations/absent"), std::string::npos) << made.fault;
    EXPECT_NE(made.fault.find("; BrokerAuthentication first: spec.authenticationMethods[1].passwordSettings.secretRef: Secret azure-iot-operations/nobody"), std::string::npos) << made.fault;
    EXPECT_TRUE(made.lacks_source && made.only_lacks);
    EXPECT_EQ(made.authenticator, nullptr);
    methods.push_back({{"method", "X509"}, {"x509Settings", {{"trustedClientCaCert", "broken"}}}});
    for (int i = 0; i < 20; ++i) methods.push_back({{"method", "Password"}, {"passwordSettings", {{"secretRef", "n" + std::to_string(i)}}}});
    security.put(broker_kind("BrokerAuthentication"), "second", {{"spec", {{"authenticationMethods", methods}}}});
    made = security.builder.authenticator(space, "second");
    EXPECT_NE(made.fault.find("spec.authenticationMethods[2].x509Settings.trustedClientCaCert: ConfigMap broken entry ca.pem"), std::string::npos) << made.fault;
    EXPECT_NE(made.fault.find("; and 13 more"), std::string::npos) << made.fault;
    EXPECT_TRUE(made.lacks_source && !made.only_lacks) << "what is no absence is a fault of the files themselves";
}

TEST(Deleted, the_last_good_certificate_serves_until_another_comes) {
    Security world;
    const auto ca = crypto::make_ca("ca", 10).value();
    const auto pair = crypto::make_leaf(ca, {.common_name = "broker", .organizations = {}, .dns_names = {"localhost"}, .addresses = {}, .server = true, .days = 90}).value();
    EXPECT_NE(world.manual().fault.find("does not exist"), std::string::npos) << "without one before, the port waits";
    world.put_pair(pair);
    const auto first = world.manual();
    ASSERT_NE(first.context, nullptr) << first.fault;
    world.registry->remove(core("Secret"), space, "mine").value();
    for (int look = 0; look < 3; ++look) {
        const auto meanwhile = world.manual();
        EXPECT_EQ(meanwhile.context, first.context);
        EXPECT_EQ(meanwhile.fault, "");
        ASSERT_FALSE(meanwhile.warnings.empty());
        EXPECT_NE(meanwhile.warnings.front().find("kubectl create secret tls mine"), std::string::npos) << meanwhile.warnings.front();
        EXPECT_NE(meanwhile.warnings.front().find("goes on being served"), std::string::npos);
    }
    // Half a Secret is none either.
    world.put(core("Secret"), "mine", {{"type", "Opaque"}, {"data", {{"tls.crt", base64_encode(pair.certificate)}}}});
    EXPECT_EQ(world.manual().context, first.context);
    EXPECT_NE(world.manual().warnings.front().find("needs the entries tls.crt and tls.key"), std::string::npos);
    world.registry->remove(core("Secret"), space, "mine").value();
    world.put_pair(crypto::make_leaf(ca, {.common_name = "broker", .organizations = {}, .dns_names = {"localhost"}, .addresses = {}, .server = true, .days = 91}).value());
    const auto second = world.manual();
    EXPECT_NE(second.context, first.context);
    EXPECT_TRUE(second.warnings.empty());
    EXPECT_EQ(world.manual().context, second.context);
}

TEST(Deleted, rules_hold_for_those_who_are_in_and_not_for_newcomers) {
    Security world;
    const auto users = resources::parse_json(R"({"brokerRef": "default", "authenticationMethods": [{"method": "Password", "passwordSettings": {"secretRef": "users"}}]})").value();
    world.put(core("Secret"), "users", Json::object({{"data", Json::object({{"ada", base64_encode("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g")}})}}));
    EXPECT_NE(world.builder.authenticator(space, "way").fault, "");
    world.put(broker_kind("BrokerAuthentication"), "way", Json::object({{"spec", users}}));
    const auto first = world.builder.authenticator(space, "way");
    ASSERT_NE(first.authenticator, nullptr) << first.fault;
    EXPECT_EQ(first.deleted, "");
    world.registry->remove(core("Secret"), space, "users").value();
    auto meanwhile = world.builder.authenticator(space, "way");
    EXPECT_EQ(meanwhile.authenticator, first.authenticator);
    EXPECT_NE(meanwhile.deleted.find("penstock passwd"), std::string::npos) << meanwhile.deleted;
    world.registry->remove(broker_kind("BrokerAuthentication"), space, "way").value();
    meanwhile = world.builder.authenticator(space, "way");
    EXPECT_EQ(meanwhile.authenticator, first.authenticator);
    EXPECT_NE(meanwhile.deleted.find("BrokerAuthentication azure-iot-operations/way was deleted"), std::string::npos);
    // Rules of the same name that cannot be used yet are as good as none.
    world.put(broker_kind("BrokerAuthentication"), "way", Json::object({{"spec", users}}));
    EXPECT_NE(world.builder.authenticator(space, "way").deleted, "");

    const auto rules = resources::parse_json(R"({"brokerRef": "default", "authorizationPolicies": {"rules": [{"principals": {"usernames": ["ada"]}, "brokerResources": [{"method": "Connect"}]}]}})").value();
    EXPECT_NE(world.builder.policy(space, "may").fault, "");
    world.put(broker_kind("BrokerAuthorization"), "may", Json::object({{"spec", rules}}));
    const auto policy = world.builder.policy(space, "may");
    world.registry->remove(broker_kind("BrokerAuthorization"), space, "may").value();
    EXPECT_EQ(world.builder.policy(space, "may").policy, policy.policy);
    EXPECT_NE(world.builder.policy(space, "may").deleted, "");
}

struct Open : auth::Authenticator {
    int asked = 0;
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later&) override {
        ++asked;
        return auth::Verdict::accepted({});
    }
    std::string review(auth::Principal&, const std::vector<crypto::Certificate>&, std::int64_t) override { return "not any more"; }
};

TEST(Deleted, a_held_port_refuses_newcomers_with_0x88_and_lets_credentials_be_renewed) {
    const auto last = std::make_shared<Open>();
    auth::HeldAuthenticator held(last, "the rules are gone", "deleted", std::make_shared<const std::string>("s"));
    std::unique_ptr<auth::Exchange> exchange;
    auth::Credentials credentials;
    const auto refused = held.begin(credentials, exchange, {});
    EXPECT_EQ(refused.kind, auth::Verdict::Kind::refuse);
    EXPECT_EQ(refused.reason, mqtt::ReasonCode::server_unavailable);
    EXPECT_TRUE(refused.is_fault) << "no wrong credential";
    EXPECT_EQ(refused.detail, "deleted");
    EXPECT_EQ(refused.reason_string, "the rules are gone") << "and not that they are being replaced";
    EXPECT_EQ(last->asked, 0);
    credentials.is_again = true;
    EXPECT_EQ(held.begin(credentials, exchange, {}).kind, auth::Verdict::Kind::accept);
    auth::Principal principal;
    EXPECT_EQ(held.review(principal, {}, 0), "not any more");
    auth::HeldAuthenticator open(nullptr, "the rules are gone", "deleted", std::make_shared<const std::string>("s"));
    EXPECT_EQ(open.review(principal, {}, 0), "");
    EXPECT_EQ(open.begin(credentials, exchange, {}).kind, auth::Verdict::Kind::refuse);
    // The self-test goes on telling whether the port works; nobody else knows its secret.
    credentials.method = auth::MethodChain::probe_method;
    credentials.data = "s";
    EXPECT_EQ(open.begin(credentials, exchange, {}).kind, auth::Verdict::Kind::accept);
    credentials.data = "guess";
    EXPECT_EQ(open.begin(credentials, exchange, {}).kind, auth::Verdict::Kind::refuse);
}

}  // namespace
}  // namespace penstock
