#include <fmt/format.h>

#include "auth/methods.h"

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

Step X509Method::check(const Credentials& credentials, const std::function<Resume()>& later) {
    if (credentials.chain.empty()) return {};
    if (credentials.is_again) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, "a certificate cannot be renewed within a connection; connect anew"));
    const auto outcome = trust_->verify(credentials.chain, crypto::Purpose::client, credentials.now_ms);
    if (!outcome.ok()) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, fmt::format("{} (trusted: {})", outcome.fault, trust_name_)));
    auto principal = principal_of(outcome.path);
    if (revocation_ != nullptr && outcome.path.size() > 1) {
        const auto known = revocation_->look(outcome.path[0], outcome.path[1], [&]() -> std::function<void(std::string)> {
            return [resume = later(), principal](std::string fault) {
                resume(Step::of(fault.empty() ? Verdict::accepted(principal) : Verdict::refused(mqtt::ReasonCode::not_authorized, std::move(fault))));
            };
        });
        if (!known) return {.kind = Step::Kind::wait, .verdict = {}};
        if (!known->empty()) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, *known));
    }
    return Step::of(Verdict::accepted(std::move(principal)));
}

std::string X509Method::review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) {
    const auto outcome = trust_->verify(chain, crypto::Purpose::client, now_ms);
    if (!outcome.ok()) return outcome.fault;
    principal.attributes = principal_of(outcome.path).attributes;
    return {};
}

}  // namespace penstock::auth
