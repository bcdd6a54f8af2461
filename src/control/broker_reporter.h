#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "control/broker_status.h"
#include "control/status_writer.h"

namespace penstock::control {

/// Tells what became of the broker: findings on the board, statuses of the Broker, its listeners and their
/// rules. Owns nothing that it tells of but whether it has said that there is no Broker. Core: control; any
/// thread, but for what says otherwise.
class BrokerReporter {
  public:
    BrokerReporter(Objects& objects, StatusWriter& writer, StatePlace place, Clock clock)
        : objects_(objects), writer_(writer), place_(std::move(place)), clock_(std::move(clock)),
          board_(&own_board_) {}

    /// Where it tells what is wrong; its own when none is given. Before anything is told.
    void use(HealthBoard& board) noexcept { board_ = &board; }
    /// What brings resources back that somebody deleted; see BrokerFacts::again. Before anything is told.
    void say_again(std::function<std::string()> text) { again_ = std::move(text); }

    /// Puts it on the board, with where the state stands.
    void tell(BrokerFacts facts);
    /// All that is known to be wrong now.
    [[nodiscard]] std::vector<Finding> all() const { return board_->all(clock_.monotonic_ms()); }
    /// Writes the status of the Broker as the snapshot says. `broker`: as it was looked at.
    void write_broker(const resources::Json& broker, const BrokerSnapshot& snapshot);
    /// Writes the statuses of listeners and of rules. On the engine's thread.
    void write_listeners(const BrokerLook& look);
    void write_rules(const BrokerLook& look);

  private:
    Objects& objects_;
    StatusWriter& writer_;
    const StatePlace place_;
    const Clock clock_;
    HealthBoard own_board_;
    HealthBoard* board_;
    std::function<std::string()> again_;
    std::atomic<bool> lacks_broker_{false};   ///< and that was logged
};

}  // namespace penstock::control
