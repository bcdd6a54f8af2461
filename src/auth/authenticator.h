#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "auth/principal.h"
#include "crypto/x509.h"
#include "mqtt/types.h"

namespace penstock::auth {

/// What a client showed in its TLS handshake and in CONNECT.
struct Credentials {
    std::string_view client_id;
    std::optional<std::string_view> user_name;
    std::optional<std::string_view> password;
    std::optional<std::string_view> method;       ///< enhanced authentication, MQTT 5.0 §4.12
    std::string_view data;
    std::vector<crypto::Certificate> chain;       ///< leaf first; empty: none shown
    std::int64_t now_ms = 0;                      ///< Unix time
    bool is_again = false;                        ///< re-authentication of a connected client (AUTH 0x19)
    std::string_view network{};                   ///< who asks counts as one with those of the same (see broker::Driver::network)
    std::optional<std::weak_ptr<const void>> asker{};      ///< expires when nobody waits for the verdict any more; none: not known
};

/// The answer of one step of authentication.
struct Verdict {
    enum class Kind : std::uint8_t {
        accept,
        go_on,                           ///< another AUTH is wanted from the client
        refuse,
        wait,                            ///< the answer comes later
    };
    Kind kind = Kind::refuse;
    mqtt::ReasonCode reason = mqtt::ReasonCode::not_authorized;
    std::string data;                             ///< authentication data for the client (accept and go_on)
    std::string reason_string;                    ///< for the client
    Principal principal;                          ///< with accept
    std::string method;                           ///< who decided, for the audit
    std::string detail;                           ///< for log and audit alone
    bool is_fault = false;                        ///< could not be decided (a server is down); no wrong credential

    static Verdict refused(mqtt::ReasonCode reason, std::string why) {
        Verdict out;
        out.reason = reason;
        out.reason_string = std::move(why);
        return out;
    }
    static Verdict accepted(Principal principal) {
        Verdict out;
        out.kind = Kind::accept;
        out.reason = mqtt::ReasonCode::success;
        out.principal = std::move(principal);
        return out;
    }
};

/// One exchange with one client; dropped when it ends.
class Exchange {
  public:
    virtual ~Exchange() = default;
    /// The client's next AUTH.
    virtual Verdict proceed(std::string_view data) = 0;
};

/// Takes the answer that was not there at once; any thread, once.
using Done = std::function<void(Verdict)>;
/// Makes a Done; called at most once, and only by who answers `wait`.
using Later = std::function<Done()>;

/// Decides credentials for one listener port. Core: any (immutable after construction); must not block.
class Authenticator {
  public:
    virtual ~Authenticator() = default;
    /// First step. `exchange` is set when the verdict is go_on, and may be set on accept for later re-authentication.
    virtual Verdict begin(const Credentials& credentials, std::unique_ptr<Exchange>& exchange, const Later& later) = 0;
    /// Whether a client that this port's former rules let in would be let in now; the principal may get other attributes,
    /// and another time to ask again. Returns why not, or nothing. Called when the rules change, and at the principal's review_at.
    virtual std::string review(Principal&, const std::vector<crypto::Certificate>&, std::int64_t) { return {}; }
};

}  // namespace penstock::auth
