#include "api/peer.h"

#include <algorithm>

#include "crypto/subject.h"

namespace penstock::api {
namespace {

/// A refusal is looked at again after a second: a certificate may become valid.
constexpr std::int64_t refusal_kept_ms = 1000;

}  // namespace

const Peer::Identity& Peer::identity(const std::shared_ptr<const crypto::TrustStore>& trust,
                                     std::int64_t now_ms) {
    if (chain_.empty() || (trust == judged_by_ && now_ms >= judged_at_ && now_ms < good_until_))
        return identity_;
    judged_by_ = trust;
    judged_at_ = now_ms;
    good_until_ = now_ms + refusal_kept_ms;
    identity_ = {};
    const auto outcome = trust->verify(chain_, crypto::Purpose::client, now_ms);
    const auto names = crypto::subject_values(chain_.front(), "CN");
    if (!outcome.ok()) identity_.fault = outcome.fault;
    else if (names.empty())
        identity_.fault = "the client certificate has no common name (CN), which is the user's name";
    if (!identity_.fault.empty()) return identity_;
    identity_.user.name = names.back();
    identity_.user.groups = crypto::subject_values(chain_.front(), "O");
    identity_.user.groups.insert(identity_.user.groups.begin(), "system:authenticated");
    for (std::size_t i = 0; i < outcome.path.size(); ++i) {
        const auto end = outcome.path[i].not_after_ms();
        good_until_ = i == 0 ? end : std::min(good_until_, end);
    }
    return identity_;
}

}  // namespace penstock::api
