// bench: a load generator for any MQTT broker.
#include <fmt/format.h>

#include "app/command_list.h"
#include "app/mqtt_options.h"
#include "tools/load.h"

namespace penstock::app {
namespace {

/// What is no field of tools::LoadOptions yet.
struct BenchWords {
    int port = 1883;
    tools::TlsFiles tls;
    bool no_progress = false;
};

int bench(tools::LoadOptions& load, const BenchWords& words) {
    load.port = static_cast<std::uint16_t>(words.port);
    auto tls = tools::make_tls(words.tls, false);
    if (!tls) return mqtt_problem(tls.error().message);
    load.tls = *tls;
    load.progress = !words.no_progress && !load.json;
    return tools::print_report(load, tools::run_load(load));
}

}  // namespace

void add_bench(Commands& commands) {
    auto& load = commands.keep<tools::LoadOptions>();
    auto& words = commands.keep<BenchWords>();
    auto command = commands.add("bench", "Load generator for any MQTT broker");
    command.frees_short_help();
    std::string scenarios = "\nScenarios:\n";
    for (const auto& [name, text] : tools::load_scenarios())
        scenarios += fmt::format("  {:<10}{}\n", name, text);
    command.footer(scenarios);
    command.option("scenario", load.scenario, "What to do, see below").required();
    command.option("-h,--host", load.host, "Broker host").shows_default();
    command.option("-p,--port", words.port, "Broker port").shows_default().between(1, 65'535);
    command.option("-V", load.version, "Protocol: 5 or 4 (3.1.1)")
        .shows_default()
        .one_of(std::vector<int>{4, 5});
    command.option("--pairs", load.pairs, "p2p, latency: pairs").shows_default();
    command.option("--publishers", load.publishers, "fan-in, shared: publishers").shows_default();
    command.option("--subscribers", load.subscribers, "fan-out, shared, wildcard: subscribers")
        .shows_default();
    command.option("--connections", load.connections, "idle, connect: connections").shows_default();
    command.option("--topics", load.topics, "wildcard, retained: topics").shows_default();
    command.option("--messages", load.messages, "offline: messages").shows_default();
    command.option("--window", load.window, "Messages under way per publisher").shows_default();
    command.option("-q,--qos", load.qos, "QoS").between(0, 2);
    command.option("--payload", load.payload, "Payload bytes (at least 12)").shows_default();
    command.option("--seconds", load.seconds, "Measured time").shows_default();
    command.option("--warm-up", load.warm_up, "Time before").shows_default();
    command.option("--rate", load.rate, "latency: messages per second").shows_default();
    add_tls_options(command, words.tls);
    command.option("-u,--username", load.user_name, "User name");
    command.option("-P,--pw", load.password, "Password");
    command.option("--pid", load.broker_pid, "Broker's process: its CPU and memory are reported");
    command.flag("--persistent", load.persistent, "Sessions that outlive their connections (expiry 1 h)");
    command.flag("--subscribe", load.subscribe_idle, "idle: one subscription each");
    command.flag("--json", load.json, "Report as JSON");
    command.flag("--no-progress", words.no_progress, "No progress on standard error");
    command.runs([&load, &words] { return bench(load, words); });
}

}  // namespace penstock::app
