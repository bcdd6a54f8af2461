// Controllers against an API that misbehaves: reflectors, writes, leadership, and the broker's controller over them.
#include <gtest/gtest.h>

#include <algorithm>

#include "api/handler.h"
#include "base/given_clock.h"
#include "base/log.h"
#include "client/lease.h"
#include "control/broker_controller.h"
#include "control/listener_service.h"
#include "control/objects.h"
#include "control/write_troubles.h"
#include "harness/api_transport.h"

namespace penstock {
namespace {

using resources::Json;
using resources::at_path;
using resources::text_at;
using test::ApiTransport;
using test::ApiWorld;

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& broker_kind(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }
constexpr const char* space = "azure-iot-operations";

bool wait(const control::Objects& objects, std::int64_t ms, const std::function<bool()>& done) {
    for (const auto end = monotonic_ms() + ms; monotonic_ms() < end;) {
        if (done()) return true;
        objects.pause(20);
    }
    return done();
}

Json named(const std::string& name, Json rest = Json::object()) {
    rest["metadata"]["name"] = name;
    return rest;
}

control::RemoteObjects::MakeTransport over(ApiWorld& world) {
    return [&world] { return std::make_unique<ApiTransport>(world); };
}

TEST(Reflector, ends_up_with_the_truth_whatever_happens_on_the_way) {
    ApiWorld world;
    for (int i = 0; i < 1200; ++i) world.registry->create(core("ConfigMap"), space, named("m" + std::to_string(i))).value();   // three pages
    world.faults.set_all(0.15);
    control::RemoteObjects objects(over(world), {&core("ConfigMap")}, "", machine_clock());
    objects.start();
    std::mt19937 random(3);
    for (int i = 0; i < 400; ++i) {
        const auto name = "m" + std::to_string(random() % 1300);
        if (random() % 3 == 0) [[maybe_unused]] const auto gone = world.registry->remove(core("ConfigMap"), space, name);
        else if (!world.registry->get(core("ConfigMap"), space, name)) world.registry->create(core("ConfigMap"), space, named(name)).value();
        else world.registry->patch(core("ConfigMap"), space, name, registry::PatchType::merge, {{"data", {{"i", std::to_string(i)}}}}, false).value();
        if (i % 40 == 0) objects.pause(20);
    }
    world.faults.set_all(0);
    auto same = [&] {
        const auto truth = world.registry->list(core("ConfigMap"), "").items;
        const auto seen = objects.list(core("ConfigMap"), "");
        if (!objects.synced() || truth.size() != seen.size()) return false;
        for (std::size_t i = 0; i < truth.size(); ++i)
            if (text_at(*truth[i], "metadata.resourceVersion") != text_at(*seen[i], "metadata.resourceVersion")) return false;
        return true;
    };
    EXPECT_TRUE(wait(objects, 45'000, same));
    objects.stop();
}

TEST(Reflector, forgotten_history_is_listed_again_and_tells_what_went) {
    ApiWorld world;
    world.registry->create(core("ConfigMap"), space, named("stays")).value();
    world.registry->create(core("ConfigMap"), space, named("goes")).value();
    ApiTransport transport(world);
    std::vector<std::string> told;
    std::atomic<int> lists{0};
    client::Reflector reflector(transport, core("ConfigMap"), "", {.on_change = [&](const client::Reflector::Change& change) { told.push_back(std::string(change.type == client::Reflector::Change::Type::deleted ? "-" : "+") + text_at(*change.object, "metadata.name")); },
                                                                   .on_synced = [&] {
                                                                       if (++lists == 2) return reflector.stop();
                                                                       world.registry->remove(core("ConfigMap"), space, "goes").value();
                                                                       for (int i = 0; i < 10'010; ++i) world.registry->patch(core("ConfigMap"), space, "stays", registry::PatchType::merge, {{"data", {{"i", std::to_string(i)}}}}, false).value();
                                                                   },
                                                                   .pause = [](std::int64_t) { return true; },
                                                                   .random = [] { return 0.5; },
                                                                   .now_ms = monotonic_ms});
    // The second list ends it: the watch in between was told 410.
    auto run = std::jthread([&] { reflector.run(); });
    for (const auto end = monotonic_ms() + 20'000; lists < 2 && monotonic_ms() < end;) world.registry->wait_change(0, 20);
    transport.interrupt();
    run.join();
    EXPECT_EQ(lists, 2);
    EXPECT_NE(std::ranges::find(told, "-goes"), told.end());
    EXPECT_EQ(reflector.objects().size(), 1u);
}

/// Answers that no server should give.
class OddTransport : public client::Transport {
  public:
    int lists = 0, watches = 0;
    Result<client::Response> request(const std::string&, const std::string&, const std::string&, const std::string&, const std::string&) override {
        if (++lists == 1) return client::Response{.status = 200, .body = {{"metadata", {{"resourceVersion", "1"}}}, {"items", Json::array()}}, .text = {}, .warnings = {}};
        return client::Response{.status = 410, .body = {}, .text = {}, .warnings = {}};
    }
    Result<int> watch(const std::string&, const std::string&, const std::function<bool(const Json&)>& on_line) override {
        const Json lines[] = {{{"type", "ERROR"}}, {{"type", "ERROR"}, {"object", nullptr}}, {{"type", "ERROR"}, {"object", {{"code", "x"}, {"details", {{"retryAfterSeconds", "y"}}}}}}, {{"type", "ADDED"}}};
        on_line(lines[watches++ % 4]);
        return 200;
    }
    void interrupt() override {}
};

TEST(Reflector, answers_no_server_should_give_end_nothing_and_are_not_hammered) {
    OddTransport transport;
    int pauses = 0;
    client::Reflector reflector(transport, core("ConfigMap"), "", {.on_change = [](const client::Reflector::Change&) {}, .on_synced = {}, .pause = [&](std::int64_t) { return ++pauses < 10; }, .random = [] { return 0.5; }, .now_ms = monotonic_ms});
    reflector.run();
    EXPECT_EQ(pauses, 10);
    EXPECT_EQ(transport.watches, 4);
    EXPECT_LE(transport.lists, 12) << "a list that is always too old is asked for with pauses";
}

/// Watches that end in good order and at once, as behind a proxy that cuts streams.
class HastyTransport : public client::Transport {
  public:
    explicit HastyTransport(bool loses_history) : loses_history_(loses_history) {}
    int lists = 0, watches = 0;
    Result<client::Response> request(const std::string&, const std::string&, const std::string&,
                                     const std::string&, const std::string&) override {
        ++lists;
        return client::Response{.status = 200,
                                .body = {{"metadata", {{"resourceVersion", "1"}}}, {"items", Json::array()}},
                                .text = {},
                                .warnings = {}};
    }
    Result<int> watch(const std::string&, const std::string&,
                      const std::function<bool(const Json&)>& on_line) override {
        ++watches;
        if (loses_history_) on_line({{"type", "ERROR"}, {"object", {{"code", 410}, {"message", "too old"}}}});
        return 200;
    }
    void interrupt() override {}

  private:
    bool loses_history_;
};

TEST(Reflector, watches_that_end_at_once_are_asked_for_with_growing_pauses) {
    for (const bool loses_history : {false, true}) {
        HastyTransport transport(loses_history);
        std::vector<std::int64_t> pauses;
        client::Reflector reflector(
            transport, core("ConfigMap"), "",
            {.on_change = [](const client::Reflector::Change&) {},
             .on_synced = {},
             .pause = [&](std::int64_t ms) { return pauses.push_back(ms), pauses.size() < 8; },
             .random = [] { return 0.5; },
             .now_ms = [] { return std::int64_t{5}; }});
        reflector.run();
        EXPECT_EQ(pauses.size(), 8u);
        EXPECT_EQ(pauses.back(), 30'000);
        EXPECT_LE(transport.watches, loses_history ? 9 : 8);
        EXPECT_LE(transport.lists, loses_history ? 9 : 1) << "lost history is listed anew at once, once";
    }
}

/// A resource API that takes its time; the clock goes on meanwhile.
class SlowTransport : public client::Transport {
  public:
    SlowTransport(ApiWorld& world, std::int64_t& now) : transport_(world), now_(now) {}
    std::int64_t takes_ms = 0;
    std::function<void()> before_answer = [] {};
    bool fails = false;
    Result<client::Response> request(const std::string& method, const std::string& target,
                                     const std::string& body, const std::string& content_type,
                                     const std::string& accept) override {
        now_ += takes_ms;
        before_answer();
        if (fails) return fail("no answer in time");
        return transport_.request(method, target, body, content_type, accept);
    }
    Result<int> watch(const std::string&, const std::string&,
                      const std::function<bool(const Json&)>&) override {
        return fail("none");
    }
    void interrupt() override {}

  private:
    ApiTransport transport_;
    std::int64_t& now_;
};

TEST(LeaderElection, a_renewal_that_hangs_is_no_renewal) {
    ApiWorld world;
    std::int64_t now = 1000;
    SlowTransport transport(world, now);
    client::LeaderElection election(transport, space, "l", "a");
    auto clock = [&] { return now; };
    ASSERT_TRUE(election.tick(clock, 0));
    transport.takes_ms = 60'000;
    transport.fails = true;
    EXPECT_FALSE(election.tick(clock, 0))
        << "a minute went by in the request: somebody else leads since long";
}

TEST(LeaderElection, a_slow_look_at_a_lease_does_not_make_it_old) {
    ApiWorld world;
    std::int64_t now = 1000;
    SlowTransport holders(world, now), slow(world, now);
    auto clock = [&] { return now; };
    client::LeaderElection holder(holders, space, "l", "holder"), other(slow, space, "l", "other");
    ASSERT_TRUE(holder.tick(clock, 0));
    // The request hangs for 14 s; just before it is answered the holder renews.
    slow.takes_ms = 14'000;
    slow.before_answer = [&] { EXPECT_TRUE(holder.tick(clock, 0)); };
    EXPECT_FALSE(other.tick(clock, 0));
    slow.takes_ms = 0;
    slow.before_answer = [] {};
    now += 1500;
    EXPECT_FALSE(other.tick(clock, 0)) << "renewed one and a half seconds ago";
    now += client::LeaderElection::duration_ms;
    EXPECT_TRUE(other.tick(clock, 0)) << "and now it stood still for its whole duration";
}

/// A cluster without the kind; later somebody installs it.
class LateTransport : public client::Transport {
  public:
    int lists = 0;
    Result<client::Response> request(const std::string&, const std::string&, const std::string&, const std::string&, const std::string&) override {
        if (++lists <= 3) return client::Response{.status = 404, .body = {}, .text = "404 page not found\n", .warnings = {}};
        return client::Response{.status = 200, .body = {{"metadata", {{"resourceVersion", "1"}}}, {"items", Json::array({{{"metadata", {{"name", "late"}, {"namespace", "x"}, {"uid", "u"}, {"resourceVersion", "1"}}}}})}}, .text = {}, .warnings = {}};
    }
    Result<int> watch(const std::string&, const std::string&, const std::function<bool(const Json&)>&) override { return fail("over"); }
    void interrupt() override {}
};

// A kind that nobody serves holds nobody up: it has no objects until it is there.
TEST(Reflector, a_kind_that_is_not_served_has_no_objects) {
    LateTransport transport;
    int pauses = 0, synced_at = 0;
    std::vector<std::string> seen;
    client::Reflector reflector(transport, *resources::find_kind("cert-manager.io/v1", "Certificate"), "", {
        .on_change = [&](const client::Reflector::Change& change) { seen.push_back(resources::text_at(*change.object, "metadata.name")); },
        .on_synced = [&] { if (synced_at == 0) synced_at = transport.lists; }, .pause = [&](std::int64_t) { return ++pauses < 5; }, .random = [] { return 0.5; }, .now_ms = monotonic_ms});
    reflector.run();
    EXPECT_EQ(synced_at, 1) << "known after the first answer";
    EXPECT_EQ(seen, std::vector<std::string>{"late"});
}

TEST(Engine, the_broker_follows_a_faulty_api) {
    ApiWorld world;
    const auto listener = [](int number) {
        return named("listener-" + std::to_string(number), {{"spec", {{"brokerRef", "default"}, {"serviceType", "ClusterIp"}, {"ports", Json::array({{{"port", 0}, {"protocol", number % 2 == 0 ? "Mqtt" : "WebSockets"}}})}}}});
    };
    world.registry->create(broker_kind("Broker"), space, named("default", {{"metadata", {{"annotations", {{"penstock.io/listeners-per-service-type", "Any"}}}}}, {"spec", {{"diagnostics", {{"selfCheck", {{"mode", "Disabled"}}}, {"metrics", {{"prometheusPort", 0}}}}}}}})).value();
    world.faults.set_all(0.25);
    control::RemoteObjects objects(over(world),
                                   {&broker_kind("Broker"), &broker_kind("BrokerListener"), &core("Service")},
                                   "", machine_clock());
    objects.start();
    control::BrokerController controller(objects, "test", machine_clock());
    controller.start();
    for (int i = 0; i < 4; ++i) {
        world.registry->create(broker_kind("BrokerListener"), space, listener(i)).value();
        objects.pause(300);
    }
    world.registry->remove(broker_kind("BrokerListener"), space, "listener-0").value();
    objects.pause(500);
    world.faults.set_all(0);
    const auto before = world.requests.load();
    const auto stopped_at = monotonic_ms();
    auto right = [&] {
        for (int i = 1; i < 4; ++i) {
            const auto found = world.registry->get(broker_kind("BrokerListener"), space, "listener-" + std::to_string(i));
            if (!found || text_at(**found, "status.runtimeStatus.status") != "Running") return false;
            if (!world.registry->get(core("Service"), space, "listener-" + std::to_string(i))) return false;
        }
        const auto broker = world.registry->get(broker_kind("Broker"), space, "default");
        return broker && text_at(**broker, "status.runtimeStatus.status") == "Running" &&
               controller.view().not_ready().empty();
    };
    EXPECT_TRUE(wait(objects, 30'000, right)) << "right within 30 s after the faults stop";
    const auto seconds = static_cast<double>(monotonic_ms() - stopped_at) / 1000 + 1;
    EXPECT_LT(static_cast<double>(world.requests - before) / seconds, 200) << "the request rate is bounded";
    objects.pause(3000);
    const auto settled = world.requests.load();
    objects.pause(2000);
    EXPECT_LE(world.requests - settled, 6u) << "what is as it should be is left alone";
    const auto counts = controller.engine_counts().at("broker");
    EXPECT_GT(counts.at("after"), 0u);
    controller.stop();
    objects.stop();
}

Json listener_of(const char* type, Json ports) {
    return {{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"kind", "BrokerListener"}, {"metadata", {{"name", "lan"}, {"namespace", space}, {"uid", "u"}}},
            {"spec", {{"brokerRef", "default"}, {"serviceType", type}, {"serviceName", "lan"}, {"ports", std::move(ports)}}}};
}

TEST(ListenerService, names_the_port_that_is_bound) {
    auto service = [](const char* type, Json port, int bound) {
        const auto listener = listener_of(type, Json::array({std::move(port)}));
        const auto plan = control::plan_broker(Json::object(), {listener}, 1);
        std::vector<broker::ListenerState> states;
        if (bound != 0) states.push_back({.config = plan.ports[0].config, .is_open = true, .bound_port = static_cast<std::uint16_t>(bound), .error = {}});
        return control::service_of(listener, plan, states, false, nullptr)["spec"]["ports"][0];
    };
    EXPECT_EQ(service("NodePort", {{"port", 1884}, {"nodePort", 31884}}, 31884)["targetPort"], 31884) << "what is bound on this machine";
    EXPECT_EQ(service("NodePort", {{"port", 1884}, {"nodePort", 31884}}, 0)["targetPort"], 31884) << "and what will be";
    EXPECT_EQ(service("NodePort", {{"port", 1884}}, 0)["targetPort"], 31884) << "derived: 30000 + 1884 mod 2768";
    EXPECT_EQ(service("NodePort", {{"port", 1884}, {"nodePort", 31884}}, 31884)["port"], 1884);
    EXPECT_EQ(service("ClusterIp", {{"port", 0}}, 40123)["targetPort"], 40123);
    EXPECT_EQ(service("ClusterIp", {{"port", 0}}, 40123)["port"], 40123);
    EXPECT_EQ(service("LoadBalancer", {{"port", 8883}}, 8883)["targetPort"], 8883);
}

TEST(ListenerService, one_that_was_there_first_is_taken_over_or_left_alone) {
    const auto listener = listener_of("LoadBalancer", Json::array({{{"port", 8883}}}));
    const auto wanted = control::service_of(listener, control::plan_broker(Json::object(), {listener}, 1), {}, false, nullptr);
    Json there = {{"metadata", {{"name", "lan"}, {"namespace", space}}}, {"spec", {{"type", "LoadBalancer"}, {"clusterIP", "10.43.0.11"}, {"ports", Json::array({{{"port", 8883}, {"targetPort", 8883}, {"protocol", "TCP"}}})}}}};
    EXPECT_EQ(control::service_refusal(there, listener, wanted), "");
    EXPECT_EQ(control::service_of(listener, control::plan_broker(Json::object(), {listener}, 1), {}, false, &there)["spec"]["clusterIP"], "10.43.0.11") << "an address may not change once set";
    auto refusal = [&](const char* pointer, Json value) {
        auto other = there;
        other[Json::json_pointer(pointer)] = std::move(value);
        return control::service_refusal(other, listener, wanted);
    };
    EXPECT_NE(refusal("/spec/type", "ClusterIP").find("left as it is (spec.type is ClusterIP, the listener's is LoadBalancer); name another Service in spec.serviceName"), std::string::npos);
    EXPECT_NE(refusal("/spec/ports/0/port", 80).find("spec.ports is 80/TCP, the listener's is 8883/TCP"), std::string::npos);
    EXPECT_NE(refusal("/spec/ports/1", {{"port", 80}}).find("spec.ports is 80/TCP,8883/TCP"), std::string::npos);
    EXPECT_NE(refusal("/spec/selector", {{"app", "nginx"}}).find("spec.selector"), std::string::npos);
    EXPECT_EQ(refusal("/spec/selector", {{"tier", "frontend"}}), "");
    auto owner = [](const char* kind, const char* name) { return Json::array({{{"kind", kind}, {"name", name}, {"uid", "x"}, {"controller", true}}}); };
    EXPECT_NE(refusal("/metadata/ownerReferences", owner("Portal", "p")).find("is Portal p's"), std::string::npos);
    EXPECT_NE(refusal("/metadata/ownerReferences", owner("BrokerListener", "other")).find("is BrokerListener other's"), std::string::npos);
    EXPECT_EQ(refusal("/metadata/ownerReferences", owner("BrokerListener", "lan")), "") << "of an earlier listener of the name";
}

TEST(ListenerService, is_not_fought_over) {
    ApiWorld world;
    control::LocalObjects objects(*world.registry);
    world.registry->create(broker_kind("Broker"), space, named("default", {{"spec", {{"diagnostics", {{"selfCheck", {{"mode", "Disabled"}}}, {"metrics", {{"prometheusPort", 0}}}}}}}})).value();
    const auto first = world.registry->create(core("Service"), space, named("lan", {{"spec", {{"ports", Json::array({{{"port", 80}}})}, {"selector", {{"app", "nginx"}}}}}})).value();
    world.registry->create(broker_kind("BrokerListener"), space, named("lan", {{"spec", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 0}}})}}}})).value();
    control::BrokerController controller(objects, "test", machine_clock());
    controller.start();
    auto told = [&] {
        const auto listener = world.registry->get(broker_kind("BrokerListener"), space, "lan").value();
        return text_at(*listener, "status.runtimeStatus.description");
    };
    EXPECT_TRUE(wait(objects, 20'000, [&] { return told().find("was there first, says something else and is left as it is") != std::string::npos; })) << told();
    EXPECT_EQ(*world.registry->get(core("Service"), space, "lan").value(), *first) << "not a byte of it is written";
    std::string pods;
    for (const auto& role : controller.view().roles()) pods += role.pod + " ";
    for (const char* part : {"aio-broker-frontend-0", "aio-broker-backend-1-0", "aio-broker-authentication-0", "aio-broker-health-manager-0", "aio-broker-operator-0"})
        EXPECT_NE(pods.find(part), std::string::npos) << "AIO's pages look for it: " << pods;
    // The person does what the message says: the listener gets its own, and says nothing any more.
    world.registry->remove(core("Service"), space, "lan").value();
    EXPECT_TRUE(wait(objects, 20'000, [&] {
        const auto service = world.registry->get(core("Service"), space, "lan");
        return service && at_path(**service, "metadata.ownerReferences").is_array() && told().find("was there first") == std::string::npos;
    })) << told();
    controller.stop();
}

TEST(BrokerMessage, says_what_runs_with_less_than_asked_for) {
    for (const bool is_capped : {true, false}) {
        ApiWorld world;
        control::LocalObjects objects(*world.registry);
        const Json cardinality = {{"backendChain", {{"partitions", 1}, {"redundancyFactor", is_capped ? 2 : 1}}}, {"frontend", {{"replicas", is_capped ? 16 : 1}, {"workers", is_capped ? 16 : 1}}}};
        const Json spec = {{"cardinality", cardinality}, {"diagnostics", {{"selfCheck", {{"mode", "Disabled"}}}, {"metrics", {{"prometheusPort", 0}}}}}};
        world.registry->create(broker_kind("Broker"), space, named("default", {{"spec", spec}})).value();
        world.registry->create(broker_kind("BrokerListener"), space, named("lan", {{"spec", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 0}}})}}}})).value();
        control::BrokerController controller(objects, "test", machine_clock());
        controller.start();
        auto told = [&] { return text_at(*world.registry->get(broker_kind("Broker"), space, "default").value(), "status.runtimeStatus.description"); };
        EXPECT_TRUE(wait(objects, 20'000, [&] { return !told().empty() && told().find("not open") == std::string::npos; })) << told();
        if (is_capped) {
            EXPECT_TRUE(told().starts_with("Running, with less than asked for: spec.cardinality.backendChain.redundancyFactor: 2 is capped to 1: one machine keeps one copy of the state; "
                                           "spec.cardinality.frontend: replicas x workers is 256 and capped to ")) << told();
            EXPECT_EQ(told().find("All replicas are running"), std::string::npos) << told();
        } else {
            EXPECT_TRUE(told().starts_with("All replicas are running")) << told();
        }
        // The column MESSAGE of `get broker -o wide` is that text.
        const auto table = api::make_table(broker_kind("Broker"), {world.registry->get(broker_kind("Broker"), space, "default").value()}, "1", "None", true);
        const auto& columns = table["columnDefinitions"];
        const auto message = std::ranges::find(columns, Json("Message"), [](const Json& column) { return column["name"]; });
        ASSERT_NE(message, columns.end());
        EXPECT_EQ(table["rows"][0]["cells"][static_cast<std::size_t>(message - columns.begin())], told());
        controller.stop();
    }
}

TEST(Lease, one_leads_and_the_other_takes_over_by_its_own_clock) {
    ApiWorld world;
    ApiTransport ta(world), tb(world);
    client::LeaderElection a(ta, space, "l", "a"), b(tb, space, "l", "b");
    std::int64_t now = 1000;
    EXPECT_TRUE(a.tick(now, 1'800'000'000'000 + now));
    EXPECT_FALSE(b.tick(now, 1'800'000'000'000 + now));
    for (int i = 0; i < 20; ++i) {
        now += 2000;
        EXPECT_TRUE(a.tick(now, 1'800'000'000'000 + now));
        EXPECT_FALSE(b.tick(now, 1'800'000'000'000 + now)) << "a renewed lease is not taken, however long";
    }
    // a cannot reach the API any more: it gives up before b takes over.
    now += 9000;
    EXPECT_FALSE(b.tick(now, 1'800'000'000'000 + now));
    world.faults.no_answer = 1;
    EXPECT_TRUE(a.tick(now, 1'800'000'000'000 + now));
    now += 2000;
    EXPECT_FALSE(a.tick(now, 1'800'000'000'000 + now)) << "not renewed for ten seconds";
    world.faults.no_answer = 0;
    now += 5000;
    EXPECT_TRUE(b.tick(now, 1'800'000'000'000 + now));
    EXPECT_FALSE(a.tick(now, 1'800'000'000'000 + now));
    EXPECT_EQ(a.holder(), "b");
    b.release(wall_ms());
    EXPECT_TRUE(a.tick(now, 1'800'000'000'000 + now)) << "a released lease is free at once";
    const auto lease = **world.registry->get(*resources::find_kind("coordination.k8s.io/v1", "Lease"), space, "l");
    EXPECT_EQ(lease["spec"]["leaseTransitions"], 2);
}

TEST(Lease, two_that_try_at_once_cannot_both_win) {
    for (int round = 0; round < 50; ++round) {
        ApiWorld world;
        ApiTransport ta(world), tb(world);
        client::LeaderElection a(ta, space, "l", "a"), b(tb, space, "l", "b");
        bool first = false, second = false;
        {
            std::jthread one([&] { first = a.tick(1, wall_ms()); });
            std::jthread two([&] { second = b.tick(1, wall_ms()); });
        }
        EXPECT_TRUE(first != second);
    }
}

TEST(Statuses, what_another_writer_put_between_reading_and_writing_stays) {
    ApiWorld world;
    const auto& kind = *resources::find_kind("cert-manager.io/v1", "Certificate");
    world.registry->create(kind, space, named("c", {{"spec", {{"secretName", "c"}, {"commonName", "c"}, {"issuerRef", {{"name", "i"}}}}}})).value();
    control::RemoteObjects remote(over(world), {&kind}, "", machine_clock());
    remote.start();
    ASSERT_TRUE(wait(remote, 20'000, [&] { return remote.get(kind, space, "c") != nullptr; }));
    control::LocalObjects local(*world.registry);
    for (control::Objects* objects : {static_cast<control::Objects*>(&local), static_cast<control::Objects*>(&remote)}) {
        int made = 0;
        const auto done = objects->put_status(kind, space, "c", [&](const Json& current) {
            auto status = current.value("status", Json::object());
            status["revision"] = status.value("revision", 0) + 1;
            // Somebody else, three times: the fourth is written.
            if (made++ < 3) world.registry->patch(kind, space, "c", registry::PatchType::merge, {{"status", {{"revision", 10 * made}, {"notBefore", std::to_string(made)}}}}, true).value();
            return std::optional<Json>(std::move(status));
        }, "test");
        ASSERT_TRUE(done) << done.error().message;
        EXPECT_EQ(made, 4);
        const auto now = world.registry->get(kind, space, "c").value();
        EXPECT_EQ(resources::at_path(*now, "status.revision"), Json(31)) << "made anew from what the other one wrote";
        EXPECT_EQ(text_at(*now, "status.notBefore"), "3");
        // One who is always faster ends it, with a word. What is read first may be a copy from before the last write.
        const auto refused = objects->put_status(kind, space, "c", [&](const Json& current) {
            world.registry->patch(kind, space, "c", registry::PatchType::merge, {{"status", {{"revision", resources::integer_of(current.value("status", Json::object()), "revision") + 1}}}}, true).value();
            return std::optional<Json>(Json{{"revision", -1}});
        }, "test");
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, 409);
        // What went meanwhile is no error, and nothing is written where nothing is to be said.
        EXPECT_TRUE(objects->put_status(kind, space, "gone", [](const Json&) { return std::optional<Json>(Json::object()); }, "test"));
        const auto version = world.registry->version();
        EXPECT_TRUE(objects->put_status(kind, space, "c", [](const Json&) { return std::optional<Json>(); }, "test"));
        EXPECT_EQ(world.registry->version(), version);
    }
    EXPECT_TRUE(remote.put_status(kind, space, "c", [&](const Json& current) {
        [[maybe_unused]] const auto gone = world.registry->remove(kind, space, "c");
        return std::optional<Json>(current.value("status", Json::object()).empty() ? Json::object() : Json{{"revision", 7}});
    }, "test")) << "deleted between reading and writing";
    remote.stop();
}

TEST(WriteTroubles, a_missing_right_is_told_when_it_stays_and_everything_else_at_once) {
    control::WriteTroubles troubles;
    const registry::Failure forbidden{.code = 403, .reason = "Forbidden", .message = "may not"}, away{.code = 503, .reason = "", .message = "away"};
    troubles.begin();
    EXPECT_FALSE(troubles.failed("a", forbidden, 1000)) << "an API server that just came back knows no roles yet";
    EXPECT_TRUE(troubles.any()) << "it is tried again all the same";
    EXPECT_TRUE(troubles.failed("b", away, 1000));
    EXPECT_FALSE(troubles.failed("b", away, 3000)) << "once";
    EXPECT_FALSE(troubles.failed("a", forbidden, 10'999));
    EXPECT_TRUE(troubles.failed("a", forbidden, 11'000));
    EXPECT_FALSE(troubles.failed("a", forbidden, 60'000));
    troubles.end();
    EXPECT_TRUE(troubles.any());
    troubles.succeeded("a");
    EXPECT_TRUE(troubles.any());
    // Objects that are gone are not written any more, and are no trouble.
    troubles.begin();
    troubles.end();
    EXPECT_FALSE(troubles.any());
    EXPECT_FALSE(troubles.failed("a", forbidden, 70'000)) << "each refusal has its own patience";
}

TEST(Reflector, a_refused_list_is_told_when_the_refusal_stays) {
    struct Refusing : client::Transport {
        Result<client::Response> request(const std::string&, const std::string&, const std::string&, const std::string&, const std::string&) override {
            return client::Response{.status = 403, .body = {{"message", "a right that is missing"}}, .text = {}, .warnings = {}};
        }
        Result<int> watch(const std::string&, const std::string&, const std::function<bool(const Json&)>&) override { return 403; }
        void interrupt() override {}
    } transport;
    std::int64_t now = 1000;
    std::vector<std::int64_t> told;
    log::set_sink([&](std::string_view line) {
        if (line.find("a right that is missing") != std::string_view::npos) told.push_back(now);
    });
    client::Reflector reflector(transport, core("ConfigMap"), "", {.on_change = [](const client::Reflector::Change&) {}, .on_synced = {}, .pause = [&](std::int64_t ms) { return (now += ms) < 120'000; }, .random = [] { return 0.5; }, .now_ms = [&] { return now; }});
    reflector.run();
    log::set_sink({});
    ASSERT_EQ(told.size(), 1u) << "once";
    EXPECT_GE(told[0], 11'000) << "an API server that just came back knows no roles yet";
}

TEST(Recorder, repetitions_are_counted_and_floods_cut_short) {
    ApiWorld world;
    control::LocalObjects objects(*world.registry);
    control::Recorder recorder(objects, "test", machine_clock());
    const auto about = **world.registry->create(core("ConfigMap"), space, named("m"));
    for (int i = 0; i < 10; ++i) recorder.record(about, "Warning", "Again", "the same");
    auto events = world.registry->list(core("Event"), space).items;
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ((*events[0])["count"], 10);
    EXPECT_EQ(text_at(*events[0], "involvedObject.name"), "m");
    for (int i = 0; i < 100; ++i) recorder.record(about, "Warning", "Flood", "line " + std::to_string(i));
    EXPECT_LE(world.registry->list(core("Event"), space).items.size(), 26u);
}

}  // namespace
}  // namespace penstock
