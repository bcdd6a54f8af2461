#include "auth/held.h"

#include "auth/methods.h"

namespace penstock::auth {

HeldAuthenticator::HeldAuthenticator(std::shared_ptr<Authenticator> last, std::string told, std::string why,
                                     std::shared_ptr<const std::string> probe_secret)
    : last_(std::move(last)), probe_(std::make_shared<MethodChain>(std::vector<std::shared_ptr<Method>>{}, std::move(probe_secret))),
      told_(std::move(told)), why_(std::move(why)) {}

Verdict HeldAuthenticator::begin(const Credentials& credentials, std::unique_ptr<Exchange>& exchange, const Later& later) {
    // The self-test goes on telling whether the port works.
    if (credentials.method && *credentials.method == MethodChain::probe_method) return probe_->begin(credentials, exchange, later);
    if (last_ != nullptr && credentials.is_again) return last_->begin(credentials, exchange, later);
    exchange.reset();
    auto verdict = Verdict::refused(mqtt::ReasonCode::server_unavailable, told_);
    verdict.is_fault = true;
    verdict.detail = why_;
    return verdict;
}

std::string HeldAuthenticator::review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) {
    if (principal.method == MethodChain::probe_name) return {};
    return last_ != nullptr ? last_->review(principal, chain, now_ms) : std::string();
}

}  // namespace penstock::auth
