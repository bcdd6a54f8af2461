#pragma once
#include <memory>
#include <mutex>
#include <string>

#include "base/given_clock.h"
#include "control/running_broker.h"
#include "control/state_keys.h"

namespace penstock::control {

/// What statuses and health tell of the keeper of the state.
struct StateFacts {
    std::uint32_t key = 0;               ///< number of the newest key in force; 0: none
    std::string keys_fault;              ///< why the wanted keys are not in force
    std::string waits;                   ///< why persistence did not begin when the Broker got it
};

/// The broker's state on the disk as the Broker wants it: opens it, lets it begin while the broker runs,
/// keeps its keys, copies it. Owns the keys that are in force. Core: control; a method that says nothing of
/// threads is for the engine's.
class StateKeeper {
  public:
    StateKeeper(RunningBroker& running, StatePlace place, Clock clock)
        : running_(running), place_(std::move(place)), clock_(std::move(clock)) {}
    [[nodiscard]] const StatePlace& place() const noexcept { return place_; }

    /// `owner`: the Broker, as `namespace/name`. `progress` may be null.
    Result<std::unique_ptr<store::Durable>> open(const Plan& plan, const std::string& owner,
                                                 std::uint32_t workers,
                                                 std::shared_ptr<store::RecoveryProgress> progress);
    /// The Broker got persistence while the server runs: it begins, now or when it is tried again.
    void begin(const Plan& plan, const std::string& owner);
    /// Takes over what is wanted of the state that is kept already: its bounds, and the keys that it is
    /// sealed with.
    void follow(const Plan& plan);
    /// Puts the keys that are in force back when their file is missing or empty. Cheap, but for that. Any
    /// thread.
    void keep_keys();
    /// A consistent copy of the state into a folder that does not exist yet. False: this Broker keeps no
    /// state. Any thread.
    Result<bool> copy_to(const std::string& folder);
    /// Any thread.
    [[nodiscard]] StateFacts facts() const;

  private:
    [[nodiscard]] store::KeyRing keys_in_force() const;
    /// Takes over the keys that state is sealed with.
    void follow_keys(store::Durable& durable, const Plan& plan);

    RunningBroker& running_;
    const StatePlace place_;
    const Clock clock_;
    std::mutex key_file_guard_;   ///< of the file of keys; taken before any other guard
    mutable std::mutex guard_;   ///< the next three; taken last
    store::KeyRing keys_;
    std::string keys_fault_, waits_;
    std::int64_t next_begin_ms_ = 0;   ///< monotonic; when beginning is tried again
};

}  // namespace penstock::control
