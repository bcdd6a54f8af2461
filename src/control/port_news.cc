#include "control/port_news.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "control/port_security.h"

namespace penstock::control {

using resources::text_at;

namespace {

void log_open(const broker::ListenerState& state, const PlannedPort& port) {
    log::info("control",
              "listener open listener={} port={} interfaces={} protocol={} tls={} authentication={} "
              "authorization={}",
              state.config.resource, state.bound_port, state.config.loopback_only ? "loopback" : "all",
              state.config.protocol == broker::Protocol::websockets ? "WebSockets" : "Mqtt",
              text_at(port.security, "tls"), text_at(port.security, "authentication"),
              text_at(port.security, "authorization", "none"));
}

}  // namespace

bool PortNews::is_awaited(const PlannedPort& port, const broker::ListenerState& state,
                          AwaitedPorts& awaited) {
    const auto now = clock_.monotonic_ms();
    const auto place = place_of(port);
    const auto before = awaited_.find(place);
    const bool is_new = before == awaited_.end();
    auto& wait = awaited[place] = is_new ? Awaited{.since_ms = now, .told = {}} : before->second;
    const auto left = wait.since_ms + issue_ms - now;
    if (left <= 0) return std::exchange(wait.told, state.error) == state.error;
    next_ms_ = std::min(next_ms_.value_or(now + left), now + left);
    if (is_new)
        log::info("control", "listener waits for its certificate listener={} port={} why=\"{}\"",
                  state.config.resource, state.config.port, state.error);
    return true;
}

std::vector<PortEvent> PortNews::look(const Plan& plan, const std::vector<broker::ListenerState>& states,
                                      const std::vector<broker::ListenerState>& former) {
    std::vector<PortEvent> news;
    AwaitedPorts awaited;
    next_ms_.reset();
    for (std::size_t i = 0; i < states.size(); ++i) {
        const auto& state = states[i];
        const auto& port = plan.ports[i];
        auto any = [&](auto&& is_it) {
            return std::ranges::any_of(former, [&](const auto& before) {
                return before.config.port == state.config.port && is_it(before);
            });
        };
        const bool was_open = any([](const auto& before) { return before.is_open; });
        if (state.is_open && !was_open) {
            const auto words = port_words(port.port != 0 ? port.port : state.bound_port, port.node_port());
            news.push_back({state.config.resource, "Normal", "PortOpen", words + " accepts connections"});
            log_open(state, port);
        }
        if (state.is_open) continue;
        // An issuer takes a moment: that is no fault before it has had its time.
        if (port.is_being_issued ? is_awaited(port, state, awaited)
                                 : any([&](const auto& before) { return before.error == state.error; }))
            continue;
        const auto* const reason = port.blocked.empty() ? "PortNotOpen" : "PortRefused";
        news.push_back(
            {state.config.resource, "Warning", reason, about_port(port.port, port.node_port(), state.error)});
        log::warn("control", "listener not open listener={} port={} why=\"{}\"", state.config.resource,
                  state.config.port, state.error);
    }
    awaited_ = std::move(awaited);
    return news;
}

}  // namespace penstock::control
