#include <algorithm>

#include <fmt/format.h>

#include "auth/methods.h"
#include "base/clock.h"
#include "base/random.h"

namespace penstock::auth {

Principal X509Method::principal_of(const std::vector<crypto::Certificate>& path) const {
    Principal out{.method = name(), .user_name = path.front().common_name(), .id = "x509/" + path.front().subject(), .expires_at = path.front().not_after_ms(), .evidence = path.front().fingerprint()};
    // From the leaf up, the first subject that is listed counts; levels are not merged.
    for (const auto& certificate : path)
        for (const auto& entry : entries_)
            if (crypto::same_subject(entry.subject, certificate)) {
                out.attributes = entry.attributes;
                return out;
            }
    return out;
}

namespace {

constexpr std::int64_t review_min_ms = 600'000, answer_comes_ms = 10'000;

/// When a client that is connected is looked at again. Not all at once, as they may have come all at once.
std::int64_t next_review(std::int64_t until_ms, std::int64_t now_ms) {
    if (until_ms == 0) return 0;
    const auto wait = std::max(until_ms - now_ms, review_min_ms);
    return now_ms + wait + static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(wait / 8));
}

}  // namespace

Verdict X509Method::verdict(Principal principal, const Revocation::Known& known) {
    if (!known.fault.empty()) return Verdict::refused(mqtt::ReasonCode::not_authorized, known.fault);
    principal.review_at = next_review(known.until_ms, wall_ms());
    return Verdict::accepted(std::move(principal));
}

Step X509Method::check(const Credentials& credentials, const std::function<Resume()>& later) {
    if (credentials.chain.empty()) return {};
    if (credentials.is_again) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, "a certificate cannot be renewed within a connection; connect anew"));
    const auto outcome = trust_->verify(credentials.chain, crypto::Purpose::client, credentials.now_ms);
    if (!outcome.ok()) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, fmt::format("{} (trusted: {})", outcome.fault, trust_name_)));
    auto principal = principal_of(outcome.path);
    if (revocation_ != nullptr) {
        const auto known = revocation_->look(outcome.path, [&]() -> Revocation::Done { return [resume = later(), principal](const Revocation::Known& now) { resume(Step::of(verdict(principal, now))); }; });
        return known ? Step::of(verdict(std::move(principal), *known)) : Step{.kind = Step::Kind::wait, .verdict = {}};
    }
    return Step::of(Verdict::accepted(std::move(principal)));
}

std::string X509Method::review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) {
    const auto outcome = trust_->verify(chain, crypto::Purpose::client, now_ms);
    if (!outcome.ok()) return outcome.fault;
    principal.attributes = principal_of(outcome.path).attributes;
    principal.review_at = 0;
    if (revocation_ == nullptr) return {};
    const auto known = revocation_->look(outcome.path, [] { return [](const Revocation::Known&) {}; });
    if (known && known->is_revoked) return known->fault;
    // Who is connected stays while nobody can be asked, whatever the policy for newcomers is.
    if (known) principal.review_at = next_review(known->until_ms, now_ms);
    else principal.review_at = now_ms + answer_comes_ms;
    return {};
}

}  // namespace penstock::auth
