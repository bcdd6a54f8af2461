#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/given_clock.h"
#include "control/work_queue.h"
#include "control/objects.h"

namespace penstock::control {

/// One kind of work on objects: looks at a key, compares what is with what should be, acts, reports.
/// Reconciling is idempotent and consults the state, never the event that woke it.
class Reconciler {
  public:
    virtual ~Reconciler() = default;
    /// For logs and metrics.
    [[nodiscard]] virtual const char* name() const = 0;
    /// All keys there are: at the start, and when history was lost.
    virtual std::vector<Key> all() = 0;
    /// The keys an event concerns.
    virtual std::vector<Key> concerned(const registry::Event& event) = 0;
    virtual Outcome reconcile(const Key& key) = 0;
};

/// Runs reconcilers over the objects: keys without repetition, one at a time, back-off with jitter.
/// Core: control, with one thread of its own.
class Engine {
  public:
    Engine(Objects& objects, Clock clock) : objects_(objects), clock_(std::move(clock)) {}
    ~Engine() { stop(); }
    /// Before start().
    void add(std::unique_ptr<Reconciler> reconciler);
    void start();
    void stop();
    /// Everything is to be looked at: what no event tells of has changed. Any thread.
    void look_again() { again_ = true; }
    /// Counts by reconciler and outcome (`settled`, `after`, `retry`, `stop`), all present from the start. Any thread.
    std::map<std::string, std::map<std::string, std::uint64_t>> counts() const;

  private:
    struct Entry {
        std::unique_ptr<Reconciler> reconciler;
        WorkQueue queue;
        std::map<std::string, std::uint64_t> counts;
    };
    void run();
    void work(Entry& entry);

    Objects& objects_;
    Clock clock_;
    std::vector<std::unique_ptr<Entry>> entries_;
    mutable std::mutex guard_;           ///< counts
    std::atomic<bool> stopping_{false}, again_{false};
    std::thread thread_;
};

}  // namespace penstock::control
