#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "broker/trace.h"

namespace penstock::control {

/// The steps of the probe, in order, with the names of AIO's metrics (fact sheet 9.7).
inline constexpr std::array selftest_steps{"connect", "ping", "subscribe", "publish", "message_delivery_check", "unsubscribe"};

struct SelftestTarget {
    std::string listener;                ///< `namespace/name`
    std::uint16_t port = 0;              ///< bound
    bool websocket = false;
    bool tls = false;
    std::shared_ptr<const std::string> secret;   ///< lets the probe in where clients must authenticate; null: not needed
};

struct StepResult {
    bool done = false;
    double milliseconds = 0;
};

struct SelftestResult {
    SelftestTarget target;
    std::array<StepResult, selftest_steps.size()> steps;
    std::string fault;                   ///< of the first step that failed; empty when all went well
    std::vector<broker::Span> spans;     ///< a trace for each step, where they are wanted

    [[nodiscard]] bool ok() const noexcept { return fault.empty(); }
};

/// One round trip through a listener with a client of its own, category `broker_selftest`: CONNECT, PING,
/// SUBSCRIBE and PUBLISH below `azedge/dmqtt/selftest/`, the delivery, UNSUBSCRIBE. Blocks up to
/// `timeout_ms`. `traced`: each step is a trace of its own, which the broker continues. By `clock` it is
/// measured.
SelftestResult run_selftest(const SelftestTarget& target, int timeout_ms, bool traced, const Clock& clock);

}  // namespace penstock::control
