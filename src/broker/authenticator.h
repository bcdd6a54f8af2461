#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mqtt/types.h"

namespace penstock::broker {

/// What a client showed in CONNECT.
struct Credentials {
    std::string_view client_id;
    std::optional<std::string_view> user_name;
    std::optional<std::string_view> password;
    std::optional<std::string_view> method;       ///< enhanced authentication, MQTT 5.0 §4.12
    std::string_view data;
};

/// The answer of one step of authentication.
struct Verdict {
    enum class Kind : std::uint8_t { accept, go_on, refuse };
    Kind kind = Kind::refuse;
    mqtt::ReasonCode reason = mqtt::ReasonCode::not_authorized;
    std::string data;                             ///< authentication data for the client (accept and go_on)
    std::string reason_string;
};

/// One exchange with one client; dropped when it ends.
class Exchange {
  public:
    virtual ~Exchange() = default;
    /// The client's next AUTH.
    virtual Verdict proceed(std::string_view data) = 0;
};

/// Decides credentials for one listener port. Core: any (immutable after construction); must not block.
class Authenticator {
  public:
    virtual ~Authenticator() = default;
    /// First step. `exchange` is set when the verdict is go_on, and may be set on accept for later re-authentication.
    virtual Verdict begin(const Credentials& credentials, std::unique_ptr<Exchange>& exchange) = 0;
};

}  // namespace penstock::broker
