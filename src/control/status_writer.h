#pragma once
#include <string>

#include "base/given_clock.h"
#include "control/health.h"
#include "control/object_names.h"
#include "control/objects.h"
#include "control/write_troubles.h"

namespace penstock::control {

/// The name under which the broker's controller writes.
inline constexpr const char* broker_manager = "penstock-broker";
/// What a refusal for want of a right is cured with.
inline constexpr const char* rights_cure = "; its role needs the rights of examples/cluster-rbac.yaml";

/// What a status says without the parts that only one kind has.
struct StatusText {
    const char* runtime;                 ///< runtimeStatus.status
    std::string description;
    HealthState health;
};

/// Writes statuses of the broker's kinds, and remembers which writes to the API failed. Owns the troubles.
/// Any thread.
class StatusWriter {
  public:
    StatusWriter(Objects& objects, Clock clock) : objects_(objects), clock_(std::move(clock)) {}
    /// Writes what `make` makes of the object as it is then; the generation that it has observed is that of
    /// `looked_at`.
    void write(const resources::Kind& kind, const resources::Json& looked_at,
               const Objects::MakeStatus& make);
    /// A status with health and times, for what `looked_at` is.
    void write_basic(const resources::Kind& kind, const resources::Json& looked_at, const StatusText& text);
    /// Of all that the broker's controller writes, not of statuses alone.
    [[nodiscard]] WriteTroubles& troubles() noexcept { return troubles_; }

  private:
    Objects& objects_;
    const Clock clock_;
    WriteTroubles troubles_;
};

}  // namespace penstock::control
