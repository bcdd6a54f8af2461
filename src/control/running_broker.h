#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "broker/server.h"
#include "control/health.h"
#include "control/plan.h"

namespace penstock::control {

/// What the last look at the resources came to. A value.
struct BrokerLook {
    std::string name_space = "azure-iot-operations";   ///< of the Broker, or of the last one there was
    std::string broker;                  ///< its name; empty: there is none
    Plan plan;
    std::vector<broker::ListenerState> states;   ///< go with plan.ports
    std::vector<OrphanFacts> orphans;    ///< listeners of Brokers that do not run
    std::string workers_wait;            ///< why their number is not the wanted one yet
    std::string metrics_fault;           ///< why the metrics port is not open

    /// `namespace/name`; empty: there is no Broker.
    [[nodiscard]] std::string name() const { return broker.empty() ? "" : name_space + "/" + broker; }
};

/// The server that runs, and the last look at the resources. Owns both. Written by the engine's thread of the
/// controller alone; read by any.
class RunningBroker {
  public:
    /// Null: none yet. Once it is there it stays until this is destroyed, so whoever has it may ask its
    /// workers without holding the guard: one that is stuck must not take everybody else along. Any thread.
    [[nodiscard]] broker::Server* server() const noexcept { return seen_.load(std::memory_order_acquire); }
    /// Bytes of messages that are allowed; 0: there is no server yet. Any thread, never waits.
    [[nodiscard]] std::int64_t pool_max() const noexcept { return pool_max_; }
    void set_pool_max(std::int64_t bytes) noexcept { pool_max_ = bytes; }
    /// The last look, for the engine's thread alone, which alone writes it.
    [[nodiscard]] const BrokerLook& last() const noexcept { return look_; }
    /// There is a server from now on. Once, on the engine's thread.
    void begin(std::unique_ptr<broker::Server> server) {
        const std::lock_guard lock(guard_);
        server_ = std::move(server);
        seen_.store(server_.get(), std::memory_order_release);
    }
    /// `use(look, server)` under the guard; the server may be null. Within it nobody begins persistence, so
    /// durable() stays as it is. No worker is asked in it. Any thread.
    template <class Use>
    auto with(Use&& use) {
        const std::lock_guard lock(guard_);
        return std::forward<Use>(use)(look_, server_.get());
    }
    /// The same, if nobody has the guard now. False: somebody has.
    template <class Use>
    bool try_with(Use&& use) {
        const std::unique_lock lock(guard_, std::try_to_lock);
        if (lock.owns_lock()) std::forward<Use>(use)(look_, server_.get());
        return lock.owns_lock();
    }

  private:
    std::mutex guard_;   ///< look_, server_
    BrokerLook look_;
    std::unique_ptr<broker::Server> server_;
    std::atomic<broker::Server*> seen_{nullptr};   ///< server_, once it is there
    std::atomic<std::int64_t> pool_max_{0};
};

}  // namespace penstock::control
