#include "control/broker_ports.h"

#include <algorithm>

#include "base/random.h"

namespace penstock::control {

using resources::Json;
using resources::text_at;

namespace {
constexpr std::size_t secret_size = 64;
}  // namespace

BrokerPorts::BrokerPorts(Objects& objects, StatusWriter& writer, const Clock& clock,
                         std::function<TokenKeys()> token_keys)
    : probe_secret_(std::make_shared<const std::string>(random_text(secret_size))),
      security_(objects,
                {.clock = clock, .token_keys = std::move(token_keys), .probe_secret = probe_secret_}),
      services_(objects, writer, clock), leaving_(clock, probe_secret_), news_(clock) {}

void BrokerPorts::serve_cluster() noexcept {
    in_cluster_ = true;
    security_.serve_cluster();
    services_.serve_cluster();
}

void BrokerPorts::prepare(Plan& plan, const std::vector<Json>& listeners, const BrokerLook& last,
                          bool has_broker, broker::Server& server) {
    if (in_cluster_)
        for (auto& port : plan.ports) port.config.loopback_only = false;
    security_.begin(server.uncovered());
    for (auto& port : plan.ports)
        for (const auto& listener : listeners)
            if (text_at(listener, "metadata.namespace") == port.name_space &&
                text_at(listener, "metadata.name") == port.listener)
                security_.secure(port, listener, last);
    services_.claim(listeners, plan);
    security_.end();
    if (has_broker) leaving_.keep(plan, listeners, last);
    else leaving_.clear();
}

std::vector<broker::ListenerState> BrokerPorts::open(const Plan& plan, broker::Server& server) {
    std::vector<broker::ListenerConfig> wanted;
    for (const auto& port : plan.ports)
        if (port.blocked.empty()) wanted.push_back(port.config);
    const auto opened = server.apply(plan.config, wanted);
    std::vector<broker::ListenerState> out;
    std::size_t next = 0;
    for (const auto& port : plan.ports)
        out.push_back(port.blocked.empty() && next < opened.size()
                          ? opened[next++]
                          : broker::ListenerState{.config = port.config, .error = port.blocked});
    return out;
}

void BrokerPorts::write_services(const std::vector<Json>& listeners, const BrokerLook& look) {
    for (const auto& listener : listeners) services_.put(listener, look.plan, look.states);
}

bool BrokerPorts::is_complete(const BrokerLook& look) const {
    for (std::size_t i = 0; i < look.states.size(); ++i)
        if (!look.states[i].is_open && look.plan.ports[i].blocked.empty()) return false;
    return services_.is_complete();
}

std::optional<std::int64_t> BrokerPorts::next_ms() const {
    const auto leaves = leaving_.next_ms(), told = news_.next_ms();
    if (!leaves || !told) return leaves ? leaves : told;
    return std::min(*leaves, *told);
}

}  // namespace penstock::control
