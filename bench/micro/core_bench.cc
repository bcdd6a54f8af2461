// The hot path without sockets: matching, and a PUBLISH from bytes to bytes.
#include <benchmark/benchmark.h>

#include "base/log.h"
#include "harness/memory_net.h"
#include "topics/subscription_index.h"

namespace {

using namespace penstock;

void match(benchmark::State& state) {
    topics::SubscriptionIndex index;
    std::vector<topics::Subscriber> subscribers(static_cast<std::size_t>(state.range(0)));
    for (std::size_t i = 0; i < subscribers.size(); ++i) index.add("plant/+/line" + std::to_string(i % 100) + "/#", &subscribers[i], {});
    std::vector<std::string> topics;
    for (int i = 0; i < 1000; ++i) topics.push_back("plant/p" + std::to_string(i % 10) + "/line" + std::to_string(i % 100) + "/value");
    std::size_t next = 0;
    const bool changing = state.range(1) != 0;
    for (auto _ : state) {
        if (changing) index.set_remote("other", 1, next % 2 == 0);   // every match walks the tree
        benchmark::DoNotOptimize(index.match(topics[next++ % topics.size()], false).targets.size());
    }
}
BENCHMARK(match)->ArgNames({"subscriptions", "changing"})->Args({1000, 0})->Args({1000, 1})->Args({100'000, 0});

void publish(benchmark::State& state) {
    log::set_levels("off");
    test::MemoryNet net(1);
    auto connect = [](const std::string& id) {
        std::string out;
        mqtt::encode_connect(out, {.client_id = id, .keep_alive = 0});
        return out;
    };
    for (int i = 0; i < state.range(0); ++i) {
        auto* end = net.open();
        std::string packet = connect("s" + std::to_string(i));
        mqtt::encode_subscribe(packet, mqtt::Version::v5, 1, {{.filter = "t"}});
        net.send(*end, packet);
    }
    auto* publisher = net.open();
    net.send(*publisher, connect("p"));
    std::string packet;
    mqtt::encode_publish(packet, mqtt::Version::v5, "t", "0123456789abcdef", mqtt::Qos::at_most_once, false, false, 0, {});
    for (auto _ : state) net.send(*publisher, packet);
    state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(publish)->ArgName("subscribers")->Arg(1)->Arg(100)->Iterations(20'000);

}  // namespace

BENCHMARK_MAIN();
