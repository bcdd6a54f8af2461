#include "control/probe.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::control {

namespace {
constexpr int look_ms = 200;
constexpr std::int64_t first_ms = 2000;            // the listeners open first
constexpr std::int64_t take_ms = 1000;
constexpr std::size_t publish_step = 3, delivery_step = 4;   // of selftest_steps
}  // namespace

Probe::Probe(Objects& objects, RunningBroker& running, Clock clock, std::shared_ptr<const std::string> secret,
             std::function<void()> told)
    : objects_(objects), running_(running), clock_(std::move(clock)), secret_(std::move(secret)),
      told_(std::move(told)), traces_(clock_) {}

void Probe::start() {
    thread_ = std::thread([this] { run(); });
}

void Probe::stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
}

Probe::Errand Probe::errand() {
    return running_.with([&](const BrokerLook& look, const broker::Server* server) {
        const bool runs = server != nullptr && !look.broker.empty();
        Errand out{.checks = look.plan.self_check && runs,
                   .interval_s = look.plan.self_check_interval,
                   .timeout_s = look.plan.self_check_timeout,
                   .tracing_s = runs ? look.plan.self_tracing_interval : 0,
                   .targets = {}};
        for (const auto& state : look.states)
            if (state.is_open)
                out.targets.push_back({.listener = state.config.resource,
                                       .port = state.bound_port,
                                       .websocket = state.config.protocol == broker::Protocol::websockets,
                                       .tls = state.config.tls != nullptr,
                                       .secret = state.config.authenticator != nullptr ? secret_ : nullptr});
        return out;
    });
}

void Probe::run() {
    auto next = clock_.monotonic_ms() + first_ms, next_trace = next, next_take = next;
    while (!stopping_) {
        objects_.pause(look_ms);
        const auto todo = errand();
        const auto now = clock_.monotonic_ms();
        if (now >= next_take) {
            next_take = now + take_ms;
            take_spans();
        }
        const bool checks = todo.checks && (now >= next || is_asked_);
        const bool traces = todo.tracing_s > 0 && now >= next_trace;
        if (stopping_ || todo.targets.empty() || !(checks || traces)) continue;
        is_asked_ = false;
        if (traces) next_trace = now + todo.tracing_s * 1000;
        if (todo.checks) next = now + todo.interval_s * 1000;
        go_round(todo, traces, todo.checks);
    }
}

void Probe::go_round(const Errand& errand, bool traced, bool counts) {
    std::vector<SelftestResult> results;
    for (const auto& target : errand.targets)
        results.push_back(run_selftest(target, errand.timeout_s * 1000, traced, clock_));
    for (auto& result : results) traces_.add(std::exchange(result.spans, {}));
    if (traced) take_spans();
    if (!counts) return;
    count(results);
    told_();
}

void Probe::count(const std::vector<SelftestResult>& results) {
    const auto now = clock_.monotonic_ms();
    // Under both guards: ports may have closed meanwhile, and what was met on them is not to come back.
    running_.with([&](const BrokerLook& look, const broker::Server*) {
        {
            const std::lock_guard lock(guard_);
            for (const auto& result : results) {
                const auto key = fmt::format("{}:{}", result.target.listener, result.target.port);
                for (std::size_t i = 0; i < selftest_steps.size(); ++i)
                    if (result.steps[i].done) figures_.steps[i].add(now, result.steps[i].milliseconds);
                const bool is_sent = result.steps[publish_step].done,
                           is_back = result.steps[delivery_step].done;
                if (is_sent) ++figures_.sent[key];
                figures_.received[key] += is_back ? 1 : 0;
                figures_.timeouts[key] += is_sent && !is_back ? 1 : 0;
                if (!result.ok())
                    log::warn("control", "self-test failed listener={} port={} why=\"{}\"",
                              result.target.listener, result.target.port, result.fault);
            }
            figures_.latest = results;
        }
        forget_closed(look.states);
    });
}

void Probe::forget_closed(const std::vector<broker::ListenerState>& states) {
    const std::lock_guard lock(guard_);
    std::erase_if(figures_.latest, [&](const SelftestResult& result) {
        return std::ranges::none_of(states, [&](const auto& state) {
            return state.is_open && state.config.resource == result.target.listener &&
                   state.bound_port == result.target.port;
        });
    });
}

std::vector<SelftestResult> Probe::latest() const {
    return with_figures([](const SelftestFigures& figures) { return figures.latest; });
}

void Probe::take_spans() {
    auto* server = running_.server();
    if (server == nullptr ||
        running_.with([](const BrokerLook& look, auto*) { return look.plan.trace_bytes == 0; }))
        return;
    traces_.add(server->take_spans());
}

resources::Json Probe::traces(const std::string& what) {
    take_spans();
    constexpr std::string_view otlp = "traces/otlp";
    if (!what.starts_with(otlp)) return traces_.list();
    return traces_.otlp(what.size() > otlp.size() ? what.substr(otlp.size() + 1) : "",
                        "aio-broker-frontend-0");
}

}  // namespace penstock::control
