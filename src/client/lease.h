#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "client/transport.h"

namespace penstock::client {

/// Leader election by a Lease (coordination.k8s.io/v1): one holder at a time, taken over when its record has
/// not changed for the lease's duration as this process has seen it; clocks of machines are never compared.
/// Times are read around each request and not before all of them: a request that takes long counts for
/// neither side, so a lease is given up when its renewal took too long, and taken over only after its record
/// stood still for the whole duration. Core: one thread, which calls tick() every two seconds; a request of
/// `transport` must end within renew_deadline_ms.
class LeaderElection {
  public:
    static constexpr std::int64_t duration_ms = 15'000, renew_deadline_ms = 10'000, interval_ms = 2'000;

    LeaderElection(Transport& transport, std::string name_space, std::string name, std::string identity)
        : transport_(transport), name_space_(std::move(name_space)), name_(std::move(name)), identity_(std::move(identity)) {}
    /// Takes or renews; true while this process leads. Leadership is given up when it could not be renewed in time.
    /// `now_ms`: a monotonic clock; `wall_ms`: Unix time.
    bool tick(const std::function<std::int64_t()>& now_ms, std::int64_t wall_ms);
    /// The same at a time that stands still.
    bool tick(std::int64_t now_ms, std::int64_t wall_ms) {
        return tick([now_ms] { return now_ms; }, wall_ms);
    }
    /// Lets others take over at once.
    void release(std::int64_t wall_ms);
    [[nodiscard]] const std::string& holder() const { return holder_; }

  private:
    bool lost(std::int64_t now_ms);

    Transport& transport_;
    std::string name_space_, name_, identity_, holder_;
    std::string seen_version_;
    std::int64_t seen_at_ = 0;           ///< when the record was first seen as it is
    std::int64_t renewed_at_ = 0;
    bool leads_ = false;
};

}  // namespace penstock::client
