#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "broker/worker.h"

namespace penstock::broker {

/// What became of one wanted port.
struct ListenerState {
    ListenerConfig config;
    bool is_open = false;
    std::uint16_t bound_port = 0;
    std::string error;
};

/// The whole broker: its workers and ports. Core: control; every method is called from control threads, one at a time.
class Server {
  public:
    /// `durable`: where state is kept; null: in memory alone. What it holds is there when this returns.
    /// `overflow_folder`: for queues that have no place in memory; empty: there is none. `config`: what is in force while that comes back.
    explicit Server(std::uint32_t workers, std::unique_ptr<store::Durable> durable = nullptr, const std::string& overflow_folder = {}, const BrokerConfig& config = {});
    ~Server();

    [[nodiscard]] std::uint32_t workers() const noexcept { return static_cast<std::uint32_t>(workers_.size()); }
    /// Makes `config` and exactly these ports be in force. Ports that stay keep their connections; a port that cannot be
    /// opened is reported and may be tried again by calling once more.
    std::vector<ListenerState> apply(const BrokerConfig& config, const std::vector<ListenerConfig>& listeners);
    /// Goes on with another number of workers (1 to workers_max): connections, sessions and what is queued move, nobody is disconnected and
    /// nothing is lost. While it lasts nobody is served, some milliseconds and about five seconds per million of sessions or
    /// subscriptions. An error says what it has to wait for; all is as before then.
    Result<void> set_workers(std::uint32_t count);
    static constexpr std::uint32_t workers_max = 64;           ///< workers with subscribers are bits of a word
    /// Figures of all workers, gathered on their own threads; behind them the counters of those there were before.
    std::vector<CoreFigures> collect();
    /// Spans of packets whose senders asked for it, since the last time.
    std::vector<Span> take_spans();
    /// What was refused lately, oldest first.
    std::vector<Decision> decisions();
    /// Connected clients of ports with authentication, by client id.
    std::vector<ClientView> clients();
    /// Names that clients asked for and certificates do not cover, by `namespace/name:port`.
    std::map<std::string, std::set<std::string>> uncovered();
    /// Publishes a message of the server's own, on worker 0.
    void publish(std::string topic, std::string payload, bool retain);
    /// By worker: how long its present turn has lasted; 0: it sleeps. Never waits for a worker. Any thread.
    std::vector<std::int64_t> turns_ms(std::int64_t now_ms);
    [[nodiscard]] std::int64_t pool_used() const noexcept { return shared_.pool_used(); }
    /// Keeps from now on what was in memory alone. `durable` is empty and made for workers() workers. Not while anybody uses durable().
    void begin_persistence(std::unique_ptr<store::Durable> durable);
    /// Null: in memory alone.
    [[nodiscard]] store::Durable* durable() const noexcept { return durable_.get(); }
    /// Null: none.
    [[nodiscard]] const store::Overflow* overflow() const noexcept { return overflow_.get(); }
    /// DISCONNECT 0x8B to all, then stops the threads.
    void stop();

  private:
    void set_overflow(const BrokerConfig& config);
    void make_workers(std::uint32_t count);
    void start_threads();
    void stop_threads();
    /// On this thread, while no worker runs. False: it took too long.
    bool settle_down();
    void on_all(const std::function<void(Worker&)>& task);
    /// Runs on each worker's thread, with its number; returns when all are done.
    void gather(const std::function<void(Worker&, std::size_t)>& task);
    /// What each worker has of something, one after the other; nothing when the server has stopped.
    template <class T>
    std::vector<T> of_all(const std::function<std::vector<T>(Worker&)>& read);

    std::mutex guard_;
    Shared shared_;
    std::unique_ptr<store::Durable> durable_;
    std::atomic<std::int64_t> pool_bytes_{0};
    std::unique_ptr<store::Overflow> overflow_;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::vector<std::thread> threads_;
    std::map<std::size_t, CoreFigures> former_;                ///< counters of workers that are gone, by number
    std::mutex wakes_guard_;
    std::vector<Worker*> wakes_;                               ///< for the overflow's thread and turns_ms(); guarded by wakes_guard_
    std::map<std::string, std::shared_ptr<ListenerSocket>> open_;     ///< by port; those that pick one: by resource and place
    bool stopped_ = false;
};

}  // namespace penstock::broker
