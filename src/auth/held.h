#pragma once
#include <memory>
#include <string>

#include "auth/authenticator.h"

namespace penstock::auth {

/// A port whose rules were deleted, or cannot be used any more, while it was open: who is connected stays, judged by the last rules there were, and may renew
/// his credentials by them; newcomers are refused with 0x88 (Server unavailable, MQTT 5.0 §3.2.2.2) until there are rules again.
/// So a deletion gives nobody a right, and the first half of a replacement ends nobody's connection.
/// Core: any; immutable.
class HeldAuthenticator final : public Authenticator {
  public:
    /// `last`: the last rules; null: the port asked for no authentication. `told`: what newcomers are told, which names no resource.
    /// `why`: for log and audit. `probe_secret`: lets the self-test in, as MethodChain has it.
    HeldAuthenticator(std::shared_ptr<Authenticator> last, std::string told, std::string why, std::shared_ptr<const std::string> probe_secret);
    Verdict begin(const Credentials& credentials, std::unique_ptr<Exchange>& exchange, const Later& later) override;
    std::string review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) override;

  private:
    std::shared_ptr<Authenticator> last_, probe_;
    std::string told_, why_;
};

}  // namespace penstock::auth
