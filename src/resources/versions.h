#pragma once
// Versions of kinds beside the one that is kept, and kinds that are known and never kept.
#include <string>
#include <string_view>
#include <vector>

#include "resources/schema.h"

namespace penstock::resources {

/// Earlier versions of the broker's kinds, as the samples of AIO's previews write them: v1beta1 and v1beta2. Their objects are kept
/// as v1; `Kind::kept_version` says so.
const std::vector<Kind>& earlier_versions();

/// Workloads that installers bring (Deployment, Job, PersistentVolumeClaim, ...), and what is made for them
/// (HorizontalPodAutoscaler, PriorityClass, webhooks, ...). They are discovered, so that tools ask for them and read an answer;
/// there are none, and none can be made: `Kind::refusal` says why.
const std::vector<Kind>& workload_kinds();
inline constexpr const char* workload_refusal =
    "Penstock runs its own roles on this machine and no containers, so this API takes no workloads and nothing made for them; "
    "a Kubernetes such as K3s does, and Penstock runs there too, on its API (penstock crds, penstock broker --kubeconfig FILE)";
/// One of them; null: it is none.
const Kind* workload_kind(std::string_view api_version, std::string_view kind);

/// The kind as which objects of an earlier version are kept; any other kind itself.
const Kind& kept_kind(const Kind& kind);

/// Rewrites an object, or a merge patch, of an earlier version to the version that is kept. Each spelling of old that is taken is
/// told in `warnings`, in Kubernetes' words. The error names the field of something that cannot be carried over. Pure.
/// Where a field is there under its name of old and under that of today, that of today counts; with `old_counts` that of old, which a
/// patch has just put beside what was kept.
Result<void> convert(const Kind& from, Json& object, std::vector<std::string>& warnings, bool old_counts = false);

}  // namespace penstock::resources
