#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/leaving_ports.h"
#include "control/listener_services.h"
#include "control/port_news.h"
#include "control/port_security.h"

namespace penstock::control {

/// The way of the ports from plan to server: what secures them, the Services of their listeners, those that
/// are leaving, and what is told of them. Owns these four and the probe's secret. Core: control; the engine's
/// thread alone.
class BrokerPorts {
  public:
    BrokerPorts(Objects& objects, StatusWriter& writer, const Clock& clock,
                std::function<TokenKeys()> token_keys);
    /// The resources are a cluster's: ports lead into this pod, so they open on all interfaces. Before the
    /// first look.
    void serve_cluster() noexcept;
    /// What lets the probe in where clients must authenticate. Any thread.
    [[nodiscard]] const std::shared_ptr<const std::string>& probe_secret() const noexcept {
        return probe_secret_;
    }

    /// Fills in what the ports of `plan` need to be bound, or why they must not be, and adds those that are
    /// leaving. `last`: the look before. `has_broker`: without one, nothing stays.
    void prepare(Plan& plan, const std::vector<resources::Json>& listeners, const BrokerLook& last,
                 bool has_broker, broker::Server& server);
    /// Binds what is not blocked. The states go with plan.ports.
    static std::vector<broker::ListenerState> open(const Plan& plan, broker::Server& server);
    /// What is to be told of them, see PortNews.
    std::vector<PortEvent> news(const BrokerLook& look, const BrokerLook& last) {
        return news_.look(look.plan, look.states, last.states);
    }
    /// Writes the Services, once it is known which ports are open.
    void write_services(const std::vector<resources::Json>& listeners, const BrokerLook& look);
    /// Nothing has to be tried again.
    [[nodiscard]] bool is_complete(const BrokerLook& look) const;
    /// When they are to be looked at again at the latest, monotonic ms.
    [[nodiscard]] std::optional<std::int64_t> next_ms() const;
    /// See PortSecurity::stop(). Any thread.
    void stop() { security_.stop(); }

  private:
    std::shared_ptr<const std::string> probe_secret_;
    PortSecurity security_;
    ListenerServices services_;
    LeavingPorts leaving_;
    PortNews news_;
    bool in_cluster_ = false;
};

}  // namespace penstock::control
