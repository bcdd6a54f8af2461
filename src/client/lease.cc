#include "client/lease.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"

namespace penstock::client {

using resources::Json;
using resources::text_at;

namespace {

const resources::Kind& kind() { return *resources::find_kind("coordination.k8s.io/v1", "Lease"); }

std::string micro_time(std::int64_t wall_ms) {
    auto text = rfc3339_ms(wall_ms);
    return text.insert(text.size() - 1, "000");
}

}  // namespace

bool LeaderElection::lost(std::int64_t now_ms) {
    if (leads_ && now_ms - renewed_at_ >= renew_deadline_ms) {
        log::warn("client", "leadership given up lease={}/{} it could not be renewed for {} ms", name_space_, name_, now_ms - renewed_at_);
        leads_ = false;
    }
    return leads_;
}

bool LeaderElection::tick(const std::function<std::int64_t()>& now_ms, std::int64_t wall_ms) {
    const auto target = path_of(kind(), name_space_, name_);
    const auto asked_at = now_ms();
    auto answer = transport_.request("GET", target);
    if (!answer || (!answer->ok() && answer->status != 404)) return lost(now_ms());
    Json lease;
    std::string method = "PUT", path = target;
    if (answer->status == 404) {
        lease = {{"apiVersion", "coordination.k8s.io/v1"}, {"kind", "Lease"}, {"metadata", {{"name", name_}, {"namespace", name_space_}}}, {"spec", {{"leaseTransitions", 0}}}};
        method = "POST";
        path = path_of(kind(), name_space_);
    } else {
        lease = answer->body;
        if (const auto version = text_at(lease, "metadata.resourceVersion"); version != seen_version_) {
            seen_version_ = version;
            seen_at_ = now_ms();
        }
        if (const auto now = text_at(lease, "spec.holderIdentity"); now != holder_) {
            holder_ = now;
            if (!now.empty() && now != identity_) log::info("client", "waiting for a lease that another holds lease={}/{} holder={}", name_space_, name_, now);
        }
        if (!holder_.empty() && holder_ != identity_) {
            leads_ = false;
            const auto seconds = lease["spec"].value("leaseDurationSeconds", static_cast<int>(duration_ms / 1000));
            // Up to when it was asked: what came late is not older for that.
            if (asked_at - seen_at_ < seconds * 1000LL) return false;
        }
    }
    auto& spec = lease["spec"];
    if (!leads_) {
        spec["acquireTime"] = micro_time(wall_ms);
        if (method == "PUT" && holder_ != identity_) spec["leaseTransitions"] = spec.value("leaseTransitions", 0) + 1;
    }
    spec["holderIdentity"] = identity_;
    spec["leaseDurationSeconds"] = duration_ms / 1000;
    spec["renewTime"] = micro_time(wall_ms);
    // The version in the body makes it a comparison: two that try at once cannot both succeed.
    const auto written_at = now_ms();
    answer = transport_.request(method, path + "?fieldManager=penstock-leader", lease.dump());
    if (!answer || !answer->ok()) return lost(now_ms());
    if (!leads_) log::info("client", "leadership taken lease={}/{} identity={}", name_space_, name_, identity_);
    seen_version_ = text_at(answer->body, "metadata.resourceVersion");
    seen_at_ = renewed_at_ = written_at;   // others count from when they see it, which is later
    holder_ = identity_;
    leads_ = true;
    return true;
}

void LeaderElection::release(std::int64_t wall_ms) {
    if (!leads_) return;
    leads_ = false;
    const auto target = path_of(kind(), name_space_, name_);
    const auto answer = transport_.request("GET", target);
    if (!answer || !answer->ok() || text_at(answer->body, "spec.holderIdentity") != identity_) return;
    auto lease = answer->body;
    lease["spec"]["holderIdentity"] = "";
    lease["spec"]["renewTime"] = micro_time(wall_ms);
    // When this is lost the others wait for the duration.
    [[maybe_unused]] const auto done = transport_.request("PUT", target, lease.dump());
}

}  // namespace penstock::client
