#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "auth/held.h"
#include "base/given_clock.h"
#include "client/http_pool.h"
#include "control/running_broker.h"
#include "control/security.h"

namespace penstock::control {

/// `namespace/name:port` of a planned port.
std::string place_of(const PlannedPort& port);

/// Authentication, authorization and certificate of the ports that ask for them, and what is to be said of
/// these. Owns what makes them, the threads and connections that check clients, and the rules that hold on
/// where rules were deleted. Core: control; the engine's thread alone.
class PortSecurity {
  public:
    struct Options {
        Clock clock;
        std::function<TokenKeys()> token_keys;                 ///< see SecurityBuilder::Options
        std::shared_ptr<const std::string> probe_secret;
        bool in_cluster = false;                               ///< ports lead into this pod
    };
    PortSecurity(Objects& objects, Options options);

    void serve_cluster() noexcept { options_.in_cluster = true; }
    /// A look at the ports begins. `uncovered`: names that clients asked for, as Server::uncovered() says.
    void begin(std::map<std::string, std::set<std::string>> uncovered) { uncovered_ = std::move(uncovered); }
    /// Fills in what the port needs to be bound, or why it must not be. `last`: of the look before; a port
    /// that was open and names what is not there holds who is connected.
    void secure(PlannedPort& port, const resources::Json& listener, const BrokerLook& last);
    /// Forgets what no port asked for in this look.
    void end() { builder_.sweep(); }
    /// Answers that are still on their way must not meet workers that are gone. Any thread.
    void stop();

  private:
    struct Held {
        std::shared_ptr<auth::Authenticator> last;
        std::string why;
        std::shared_ptr<auth::Authenticator> holder;
    };
    struct Near {
        std::int64_t read_ms = 0;   ///< monotonic
        std::vector<crypto::Certificate> authorities;
    };
    PreparedAuthenticator authenticate(PlannedPort& port);
    /// What was deleted of the rules; empty: nothing.
    std::string authorize(PlannedPort& port);
    void tell_if_open_to_all(PlannedPort& port) const;
    /// Rules that were deleted: who is connected stays, newcomers wait. Empty: there are none.
    void hold_deleted(PlannedPort& port, const std::string& deleted);
    void secure_without_tls(PlannedPort& port, const PreparedAuthenticator& who) const;
    void secure_with_tls(PlannedPort& port, const resources::Json& listener,
                         const PreparedAuthenticator& who);
    void warn_of_certificate(PlannedPort& port, const PreparedTls& prepared) const;
    /// What will be wrong with a port's certificate, and what is wrong with it by now.
    void look_ahead(PlannedPort& port, const PreparedTls& prepared);
    const std::vector<crypto::Certificate>& authorities_near(const std::string& name_space);
    /// `told`: to newcomers; `why`: for log and audit.
    std::shared_ptr<auth::Authenticator> hold(const PlannedPort& port, const char* told,
                                              const std::string& why);
    /// A port that is open and names what is not there holds who is connected, in the same way.
    void stay_open(PlannedPort& port, const BrokerLook& last);

    Objects& objects_;
    Options options_;
    std::shared_ptr<auth::Crew> crew_;
    std::shared_ptr<client::HttpPool> http_;
    SecurityBuilder builder_;
    std::map<std::string, std::set<std::string>> uncovered_;   ///< by place
    std::map<std::string, Held> held_;   ///< by place
    std::map<std::string, Near> near_;   ///< by namespace
};

}  // namespace penstock::control
