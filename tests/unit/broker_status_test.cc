// What statuses and health say of a snapshot, and which Broker runs: pure functions, without a server.
#include <gtest/gtest.h>

#include <functional>

#include "control/broker_choice.h"
#include "control/broker_status.h"

namespace penstock {
namespace {

using control::BrokerLook;
using control::BrokerSnapshot;
using control::Finding;
using control::PlannedPort;
using resources::at_path;
using resources::Json;
using resources::text_at;

constexpr std::int64_t now = 1'800'000'000'000;   // Unix time

/// A Broker with one listener, whose one port is open and was probed. A row changes one thing of it.
struct Moment {
    BrokerLook look;
    control::ServerFacts server{.workers = 2, .kept = {}, .buffer = {}};
    control::StateFacts state;
    std::vector<control::SelftestResult> probed;
    std::vector<Finding> findings;

    Moment() {
        look.broker = "default";
        look.plan.workers = 2;
        look.plan.config.overflow_bytes = 0;
        PlannedPort port;
        port.name_space = look.name_space;
        port.listener = "plain";
        port.port = 1883;
        port.config.resource = look.name_space + "/plain";
        port.config.port = 1883;
        port.config.loopback_only = true;
        port.spec = {{"port", 1883}, {"authenticationRef", "people"}};
        port.security = {{"authentication", "people"}};
        look.plan.ports = {port};
        look.states = {{.config = port.config, .is_open = true, .bound_port = 1883, .error = {}}};
        probed = {{.target = {.listener = port.config.resource, .port = 1883, .secret = {}},
                   .fault = {},
                   .spans = {}}};
    }
    PlannedPort& port() { return look.plan.ports[0]; }
    void close(const char* why) {
        look.states[0].is_open = false;
        look.states[0].error = why;
    }
    [[nodiscard]] BrokerSnapshot snapshot() const { return {look, server, state, probed}; }
    [[nodiscard]] Json broker() const {
        return control::broker_status({{"metadata", {{"generation", 3}}}}, snapshot(), findings, now);
    }
    [[nodiscard]] control::ListenerReport listener() const {
        return control::listener_reports(look, findings).at(0);
    }
};

TEST(BrokerStatus, says_what_the_snapshot_has) {
    struct Row {
        const char* path;
        Json want;
        std::function<void(Moment&)> change;
    };
    const std::vector<Row> rows{
        {"observedGeneration", 3, [](Moment&) {}},
        {"workers", 2, [](Moment&) {}},
        {"runtimeStatus.description", "All replicas are running.", [](Moment&) {}},
        {"runtimeStatus.description",
         "All replicas are running; listeners not open: azure-iot-operations/plain port 1883",
         [](Moment& m) { m.close("taken"); }},
        {"runtimeStatus.description", "Running, with less than asked for: spec.cardinality: 2 of 9",
         [](Moment& m) {
             m.look.plan.notes = {{.path = "spec.cardinality", .reason = "Capped", .message = "2 of 9"}};
         }},
        {"notes", Json::array({{{"field", "spec.x"}, {"reason", "NotHere"}, {"message", "no"}}}),
         [](Moment& m) { m.look.plan.notes = {{.path = "spec.x", .reason = "NotHere", .message = "no"}}; }},
        {"compatibility", "AIO", [](Moment& m) { m.look.plan.config.aio_compatible = true; }},
        {"persistence", nullptr, [](Moment&) {}},
        {"persistence.status", "Active", [](Moment& m) { m.server.kept.emplace(); }},
        {"persistence.sync", "EveryAcknowledgement", [](Moment& m) { m.server.kept.emplace(); }},
        {"persistence.sync", "Every500ms",
         [](Moment& m) {
             m.server.kept.emplace();
             m.look.plan.sync_interval_ms = 500;
         }},
        {"persistence.status", "Failing", [](Moment& m) { m.server.kept.emplace().fault = "disk full"; }},
        {"persistence.encryption.fault", "no key",
         [](Moment& m) {
             m.server.kept.emplace().rewriting_fault = "slow";
             m.state.keys_fault = "no key";
         }},
        {"persistence.encryption.key", 7,
         [](Moment& m) {
             m.server.kept.emplace();
             m.look.plan.seals = true;
             m.state.key = 7;
         }},
        {"diskBackedMessageBuffer.status", "Inactive",
         [](Moment& m) { m.look.plan.config.overflow_bytes = 1; }},
        {"diskBackedMessageBuffer.status", "Full",
         [](Moment& m) {
             m.look.plan.config.overflow_bytes = 1;
             m.server.buffer.emplace().fault = "no room";
         }},
        {"selfCheck.status", "Passed", [](Moment&) {}},
        {"selfCheck.status", "Failed", [](Moment& m) { m.probed[0].fault = "connect: refused"; }},
        {"selfCheck.status", "Waiting", [](Moment& m) { m.probed.clear(); }},
        {"selfCheck.status", "Disabled", [](Moment& m) { m.look.plan.self_check = false; }},
        {"selfCheck.status", "NothingToCheck", [](Moment& m) { m.close("taken"); }},
        {"selfCheck.status", "NothingToCheck", [](Moment& m) { m.port().is_leaving = true; }},
    };
    for (const auto& row : rows) {
        Moment moment;
        row.change(moment);
        EXPECT_EQ(at_path(moment.broker(), row.path), row.want) << row.path;
    }
}

TEST(BrokerStatus, of_a_listener) {
    struct Row {
        const char* runtime;
        const char* description;
        std::function<void(Moment&)> change;
    };
    const std::string subject = control::subject_of("BrokerListener", "azure-iot-operations/plain");
    auto find = [&](Moment& m, control::Severity severity) {
        m.findings = {{.severity = severity,
                       .subject = subject,
                       .reason = "PortNotOpen",
                       .what = "look here",
                       .cure = {}}};
    };
    const std::vector<Row> rows{
        {"Running", "Accepting connections; no authentication: anybody on this machine may connect.",
         [](Moment&) {}},
        {"Running", "Accepting connections.",
         [](Moment& m) { m.port().everybody = {.what = "no authentication", .cure = {}}; }},
        {"Running",
         "Accepting connections; no authentication: anybody on this machine may connect. warnings: look here",
         [&](Moment& m) { find(m, control::Severity::degraded); }},
        {"Recovering", "look here",
         [&](Moment& m) {
             m.close("taken");
             find(m, control::Severity::unavailable);
         }},
        {"Waiting", "",
         [](Moment& m) {
             m.close("no secret");
             m.port().blocked = "no secret";
         }},
        {"Failed", "The port is open, and clients that verify its certificate refuse it: ",
         [](Moment& m) { m.port().refused = "expired"; }},
    };
    for (const auto& row : rows) {
        Moment moment;
        row.change(moment);
        const auto report = moment.listener();
        EXPECT_STREQ(report.runtime, row.runtime) << row.description;
        EXPECT_EQ(report.description, row.description);
    }
    Moment moment;
    const auto status = control::listener_status(Json::object(), moment.listener(), now);
    EXPECT_EQ(text_at(status, "ports"), "1883/tcp");
    EXPECT_EQ(text_at(status["portStatus"][0], "authentication"), "people");
    moment.port().is_leaving = true;
    EXPECT_TRUE(control::listener_reports(moment.look, {}).empty())
        << "a listener that was deleted has no status";
}

TEST(BrokerStatus, of_rules) {
    struct Row {
        const char* want;
        std::function<void(Moment&)> change;
    };
    const std::vector<Row> rows{
        {"In force on plain port 1883", [](Moment&) {}},
        {"Named by plain port 1883 (which is not open)", [](Moment& m) { m.close("taken"); }},
        {"Named by plain port 1883 (the rules before go on)",
         [](Moment& m) { m.port().authentication_waits = "the rules before go on"; }},
        {"No port names it.", [](Moment& m) { m.port().spec = Json::object(); }},
        {"No port names it.", [](Moment& m) { m.port().is_leaving = true; }},
    };
    for (const auto& row : rows) {
        Moment moment;
        row.change(moment);
        const control::RulesName rules{"BrokerAuthentication", moment.look.name_space, "people"};
        EXPECT_EQ(control::rules_description(moment.look, rules, {}), row.want);
    }
    const Moment moment;
    EXPECT_EQ(control::rules_description(moment.look,
                                         {"BrokerAuthentication", moment.look.name_space, "people"},
                                         {.status = "Unavailable", .reason = "X", .message = "no CA"}),
              "Named by plain port 1883; no CA");
}

TEST(BrokerStatus, facts_for_health) {
    Moment moment;
    auto facts = control::facts_of(moment.snapshot());
    EXPECT_EQ(facts.name, "azure-iot-operations/default");
    ASSERT_EQ(facts.ports.size(), 1u);
    EXPECT_TRUE(facts.ports[0].is_open);
    ASSERT_EQ(facts.named.size(), 1u) << "rules that a port names";
    EXPECT_EQ(facts.workers_wait + facts.persistence_waits + facts.buffer_fault, "");
    moment.probed[0].fault = "ping: no answer";
    moment.look.workers_wait = "a worker is busy";
    moment.look.plan.is_persistent = true;
    moment.look.plan.config.overflow_bytes = 1;
    facts = control::facts_of(moment.snapshot());
    EXPECT_EQ(facts.ports[0].probe_fault, "ping: no answer");
    EXPECT_NE(facts.workers_wait.find("a worker is busy"), std::string::npos);
    EXPECT_EQ(facts.persistence_waits, "it has not been tried yet");
    EXPECT_NE(facts.buffer_fault, "");
    moment.look.plan.is_persistent = false;
    moment.server.kept.emplace().fault = "disk full";
    facts = control::facts_of(moment.snapshot());
    EXPECT_EQ(facts.disk_fault, "disk full");
    EXPECT_NE(facts.persistence_ends, "") << "it is kept until the next start";
    moment.look.broker.clear();
    EXPECT_TRUE(control::facts_of(moment.snapshot()).name.empty());
}

control::ObjectRef object(const char* name_space, const char* name, const char* created,
                          const char* broker = "") {
    return std::make_shared<const Json>(
        Json{{"metadata", {{"name", name}, {"namespace", name_space}, {"creationTimestamp", created}}},
             {"spec", {{"brokerRef", broker}}}});
}

TEST(BrokerChoice, one_broker_runs_and_listeners_are_its_own) {
    const auto first = object("a", "one", "2026-01-01T00:00:00Z"),
               second = object("b", "two", "2026-01-02T00:00:00Z");
    const auto at_home = object("azure-iot-operations", "three", "2026-01-03T00:00:00Z");
    EXPECT_EQ(control::choose_broker({}, {}).chosen, nullptr);
    EXPECT_EQ(control::choose_broker({second, first}, {}).chosen, first) << "the oldest";
    EXPECT_EQ(control::choose_broker({first, at_home, second}, {}).chosen, at_home)
        << "that of the default namespace";
    const auto ours = object("a", "x", "", "one"), of_another = object("a", "y", "", "other"),
               elsewhere = object("b", "z", "", "one");
    const auto choice = control::choose_broker({first, second}, {ours, of_another, elsewhere});
    ASSERT_EQ(choice.listeners.size(), 1u);
    EXPECT_EQ(text_at(choice.listeners[0], "metadata.name"), "x");
    EXPECT_EQ(choice.orphans, (std::vector<control::ObjectRef>{of_another, elsewhere}));
    EXPECT_EQ(choice.others, std::vector<control::ObjectRef>{second});
    EXPECT_EQ(choice.why_not, "one Broker runs on a machine, and a/one does");
    EXPECT_EQ(control::choose_broker({}, {ours}).orphans.size(), 1u);
}

}  // namespace
}  // namespace penstock
