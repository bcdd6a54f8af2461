// BrokerController's view of its ports: which open, which do not, and what is told of that.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/broker_controller.h"

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

bool BrokerController::is_awaited(const PlannedPort& port, const broker::ListenerState& state,
                                  std::int64_t now, std::map<std::string, Awaited>& awaited) {
    const auto place = fmt::format("{}:{}", port.config.resource, port.port);
    const auto before = awaited_.find(place);
    const bool is_new = before == awaited_.end();
    auto& wait = awaited[place] = is_new ? Awaited{.since_ms = now, .told = {}} : before->second;
    const auto left = wait.since_ms + issue_ms - now;
    if (left <= 0) return std::exchange(wait.told, state.error) == state.error;
    next_awaited_ = next_awaited_ == 0 ? now + left : std::min(next_awaited_, now + left);
    if (is_new)
        log::info("control", "listener waits for its certificate listener={} port={} why=\"{}\"",
                  state.config.resource, state.config.port, state.error);
    return true;
}

std::vector<BrokerController::News> BrokerController::look_at_ports(const Plan& plan, const States& states) {
    std::vector<News> news;
    std::map<std::string, Awaited> awaited;
    const auto now = clock_.monotonic_ms();
    for (std::size_t i = 0; i < states.size(); ++i) {
        const auto& state = states[i];
        const auto& port = plan.ports[i];
        auto any = [&](auto&& is_it) {
            return std::ranges::any_of(states_, [&](const auto& former) {
                return former.config.port == state.config.port && is_it(former);
            });
        };
        const bool was_open = any([](const auto& former) { return former.is_open; });
        if (state.is_open && !was_open) {
            const auto words = port_words(port.port != 0 ? port.port : state.bound_port, port.node_port());
            news.push_back({state.config.resource, "Normal", "PortOpen", words + " accepts connections"});
            log_open(state, port);
        }
        if (state.is_open) continue;
        // An issuer takes a moment: that is no fault before it has had its time.
        if (port.is_being_issued ? is_awaited(port, state, now, awaited)
                                 : any([&](const auto& former) { return former.error == state.error; }))
            continue;
        const auto* const reason = port.blocked.empty() ? "PortNotOpen" : "PortRefused";
        news.push_back({state.config.resource, "Warning", reason,
                        about_port(port.port, port.node_port(), state.error)});
        log::warn("control", "listener not open listener={} port={} why=\"{}\"", state.config.resource,
                  state.config.port, state.error);
    }
    awaited_ = std::move(awaited);
    return news;
}

}  // namespace penstock::control
