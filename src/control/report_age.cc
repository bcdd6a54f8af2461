#include "control/report_age.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "control/health.h"
#include "control/object_names.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::int64_t look_ms = 5000, patience_ms = 15'000, report_max_ms = 900'000;
constexpr const char* lease_name = "penstock-broker";


class ReportAge : public Reconciler {
  public:
    ReportAge(Objects& objects, Clock clock) : objects_(objects), clock_(std::move(clock)) {}
    const char* name() const override { return "report-age"; }
    std::vector<Key> all() override { return {{"reports", "", ""}}; }
    std::vector<Key> concerned(const registry::Event&) override { return {}; }
    Outcome reconcile(const Key&) override {
        const auto now = clock_.wall_ms();
        for (const char* word : {"Broker", "BrokerListener", "BrokerAuthentication", "BrokerAuthorization"})
            for (const auto& object : objects_.list(broker_kind(word), "")) {
                // Judged on what is written over: a broker that reports in this very moment is not silent. Not written: it is tried
                // again at the next look.
                [[maybe_unused]] const auto done = objects_.put_status(broker_kind(word), text_at(*object, "metadata.namespace"), text_at(*object, "metadata.name"),
                                                                       [&](const Json& current) { return unknown(current, now); }, "penstock-report-age");
            }
        return Outcome::after(look_ms);
    }

  private:
    /// The status of an object whose broker is silent; nothing: it is not, or that is said already.
    std::optional<Json> unknown(const Json& object, std::int64_t now) const {
        const auto& health = at_path(object, "status.healthState");
        if (!health.is_object() || text_at(health, "status") == "Unknown") return std::nullopt;
        const auto lease = objects_.get(*resources::find_kind("coordination.k8s.io/v1", "Lease"), text_at(object, "metadata.namespace"), lease_name);
        auto why = silence_of(lease.get(), now);
        if (why.empty() && now - parse_rfc3339(text_at(health, "lastUpdateTime")) > report_max_ms) why = fmt::format("the broker has not reported since {}", text_at(health, "lastUpdateTime"));
        if (why.empty()) return std::nullopt;
        why += "; start one with: penstock broker --kubeconfig FILE, or see its log";
        return basic_status(object, "Unknown", why, with_times(object, {.status = "Unknown", .reason = "NoReport", .message = why}, now));
    }

    Objects& objects_;
    Clock clock_;
};

}  // namespace

std::string silence_of(const Json* lease, std::int64_t wall) {
    if (lease == nullptr) return "no broker has taken the Lease penstock-broker of this namespace";
    const auto holder = text_at(*lease, "spec.holderIdentity");
    if (holder.empty()) return "no broker holds the Lease penstock-broker of this namespace: the last one was stopped";
    const auto& seconds = at_path(*lease, "spec.leaseDurationSeconds");
    const auto renewed = parse_rfc3339(text_at(*lease, "spec.renewTime"));
    // Clocks of two machines differ; a holder that lives renews every few seconds.
    if (renewed >= 0 && wall - renewed > (seconds.is_number_integer() ? seconds.get<std::int64_t>() : 15) * 1000 + patience_ms)
        return fmt::format("broker {} has not renewed its Lease penstock-broker since {}", holder, rfc3339(renewed));
    return {};
}

std::unique_ptr<Reconciler> make_report_age(Objects& objects, Clock clock) {
    return std::make_unique<ReportAge>(objects, std::move(clock));
}

}  // namespace penstock::control
