#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "control/listener_service.h"
#include "control/status_writer.h"

namespace penstock::control {

/// The Services of the listeners: claims them, writes them, and says where it may not. Owns what is wrong
/// with each. Core: control; the engine's thread alone.
class ListenerServices {
  public:
    ListenerServices(Objects& objects, StatusWriter& writer, Clock clock)
        : objects_(objects), writer_(writer), clock_(std::move(clock)) {}
    /// The resources are a cluster's: it gives Services their addresses.
    void serve_cluster() noexcept { in_cluster_ = true; }
    /// Looks whether each listener may write its Service, and warns on its first port in `plan` where not.
    /// Forgets listeners that are not there.
    void claim(const std::vector<resources::Json>& listeners, Plan& plan);
    /// Writes the Service of a listener. `states` go with `plan`.
    void put(const resources::Json& listener, const Plan& plan,
             const std::vector<broker::ListenerState>& states);
    /// Nothing has to be tried again.
    [[nodiscard]] bool is_complete() const;

  private:
    struct Fault {
        std::string why;   ///< empty: all is well
        bool is_refused = false;   ///< the Service is somebody else's
    };
    void claim_one(const resources::Json& listener, Plan& plan);
    /// On one machine its address is the Service's; a cluster's own controllers say where a Service is.
    void put_address(const std::string& name_space, const std::string& service, bool is_balanced);
    /// A listener that was renamed to another Service leaves the old one behind; it goes.
    void remove_others(const resources::Json& listener, const std::string& service);

    Objects& objects_;
    StatusWriter& writer_;
    const Clock clock_;
    bool in_cluster_ = false;
    std::map<std::string, Fault> faults_;   ///< by listener
};

}  // namespace penstock::control
