#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "control/running_broker.h"

namespace penstock::control {

/// An Event to be written about a listener.
struct PortEvent {
    std::string listener;                ///< `namespace/name`
    const char* type;
    const char* reason;
    std::string message;
};

/// Notices which ports have opened and which do not since the last look, and says it in the log. Owns since
/// when ports wait for a certificate that is being issued. Core: control; the engine's thread alone.
class PortNews {
  public:
    explicit PortNews(Clock clock) : clock_(std::move(clock)) {}
    /// What is to be told. `plan` and `states` go together; `former`: states of the look before.
    std::vector<PortEvent> look(const Plan& plan, const std::vector<broker::ListenerState>& states,
                                const std::vector<broker::ListenerState>& former);
    /// When a certificate that is waited for has had its time, monotonic ms.
    [[nodiscard]] std::optional<std::int64_t> next_ms() const noexcept { return next_ms_; }

  private:
    static constexpr std::int64_t issue_ms = 10'000;   ///< longer than an issuer of this machine takes
    /// A port whose certificate is being issued.
    struct Awaited {
        std::int64_t since_ms = 0;                     ///< monotonic
        std::string told;                              ///< it has lasted, and this was said of it
    };
    using AwaitedPorts = std::map<std::string, Awaited>;   ///< by place
    /// Of a port whose certificate is being issued: nothing is to be told now. `awaited` gets its place.
    bool is_awaited(const PlannedPort& port, const broker::ListenerState& state, AwaitedPorts& awaited);

    const Clock clock_;
    AwaitedPorts awaited_;
    std::optional<std::int64_t> next_ms_;
};

}  // namespace penstock::control
