#include "control/leaving_ports.h"

#include <algorithm>
#include <set>

#include "auth/held.h"
#include "base/log.h"
#include "control/status_writer.h"

namespace penstock::control {

namespace {

constexpr std::int64_t leaving_ms = 3000;   // from the deletion of a listener to the end of its connections

/// Somebody wants one of these ports now.
bool is_taken(const std::vector<PlannedPort>& leaving, const std::vector<PlannedPort>& wanted) {
    return std::ranges::any_of(wanted, [&](const auto& port) {
        return port.config.port != 0 && std::ranges::any_of(leaving, [&](const auto& other) {
                   return other.config.port == port.config.port;
               });
    });
}

}  // namespace

void LeavingPorts::take(PlannedPort port) {
    auto& leaving = leaving_[port.config.resource];
    if (leaving.ports.empty()) {
        leaving.until_ms = clock_.monotonic_ms() + leaving_ms;
        log::info("control",
                  "a listener was deleted; its connections end in {} ms unless it comes back listener={}",
                  leaving_ms, port.config.resource);
    }
    port.is_leaving = true;
    // Who is connected without having said who he is would have to go, if the port began to ask.
    if (port.config.authenticator != nullptr)
        port.config.authenticator = std::make_shared<auth::HeldAuthenticator>(
            port.config.authenticator, "the listener of this port was deleted; no new client is let in",
            "the listener was deleted", probe_secret_);
    leaving.ports.push_back(std::move(port));
}

void LeavingPorts::keep(Plan& plan, const std::vector<resources::Json>& listeners, const BrokerLook& last) {
    std::set<std::string> present;
    for (const auto& listener : listeners) present.insert(qualified_name(listener));
    for (std::size_t i = 0; i < last.plan.ports.size() && i < last.states.size(); ++i)
        if (const auto& port = last.plan.ports[i];
            !port.is_leaving && last.states[i].is_open && !present.contains(port.config.resource))
            take(port);
    // What is wanted now comes first, and what comes back is what it was.
    const auto now = clock_.monotonic_ms();
    std::erase_if(leaving_, [&](const auto& entry) {
        const auto& [name, leaving] = entry;
        return now >= leaving.until_ms || present.contains(name) || is_taken(leaving.ports, plan.ports);
    });
    for (const auto& [name, leaving] : leaving_)
        plan.ports.insert(plan.ports.end(), leaving.ports.begin(), leaving.ports.end());
}

std::optional<std::int64_t> LeavingPorts::next_ms() const {
    std::optional<std::int64_t> out;
    for (const auto& [name, leaving] : leaving_)
        out = std::min(out.value_or(leaving.until_ms), leaving.until_ms);
    return out;
}

}  // namespace penstock::control
