#pragma once
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/given_clock.h"
#include "client/client.h"
#include "client/reflector.h"
#include "registry/registry.h"

namespace penstock::control {

using registry::ObjectRef;

/// What controllers see of the resources, wherever they are kept: in this process, or behind a kube-apiserver. Reading is from
/// memory; writing goes to the store.
/// Core: any control thread.
class Objects {
  public:
    virtual ~Objects() = default;
    virtual std::vector<ObjectRef> list(const resources::Kind& kind, const std::string& name_space) const = 0;
    /// Null when absent.
    virtual ObjectRef get(const resources::Kind& kind, const std::string& name_space, const std::string& name) const = 0;
    virtual registry::Answer<ObjectRef> create(const resources::Kind& kind, const std::string& name_space, resources::Json object, const std::string& manager) = 0;
    virtual registry::Answer<ObjectRef> patch(const resources::Kind& kind, const std::string& name_space, const std::string& name, registry::PatchType type, const resources::Json& patch,
                                              const std::string& manager) = 0;
    using MakeStatus = registry::Registry::MakeStatus;
    /// Writes the status that `make` makes of the object, where it differs; what another writer put there meanwhile is never written
    /// over unseen: `make` is called again with the object as it is then. 409 when others are always faster; an object that is not
    /// there is no error.
    virtual registry::Answer<void> put_status(const resources::Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make, const std::string& manager) = 0;
    virtual registry::Answer<void> remove(const resources::Kind& kind, const std::string& name_space, const std::string& name) = 0;

    /// Changes after `position`, which moves on. False: not all are known any more, everything must be looked at.
    virtual bool changes(std::uint64_t& position, std::vector<registry::Event>& out) const = 0;
    /// Blocks until something changed after `position`, the time is over, or stop().
    virtual void wait(std::uint64_t position, int timeout_ms) const = 0;
    /// Blocks for the time, or until stop().
    virtual void pause(int timeout_ms) const = 0;
    virtual void stop() = 0;
};

/// The registry of this process.
class LocalObjects : public Objects {
  public:
    explicit LocalObjects(registry::Registry& registry) : registry_(registry) {}
    std::vector<ObjectRef> list(const resources::Kind& kind, const std::string& name_space) const override;
    ObjectRef get(const resources::Kind& kind, const std::string& name_space, const std::string& name) const override;
    registry::Answer<ObjectRef> create(const resources::Kind& kind, const std::string& name_space, resources::Json object, const std::string& manager) override;
    registry::Answer<ObjectRef> patch(const resources::Kind& kind, const std::string& name_space, const std::string& name, registry::PatchType type, const resources::Json& patch, const std::string& manager) override;
    registry::Answer<void> put_status(const resources::Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make, const std::string& manager) override;
    registry::Answer<void> remove(const resources::Kind& kind, const std::string& name_space, const std::string& name) override;
    bool changes(std::uint64_t& position, std::vector<registry::Event>& out) const override;
    void wait(std::uint64_t position, int timeout_ms) const override { registry_.wait_change(position, timeout_ms); }
    void pause(int timeout_ms) const override { registry_.wait_stop(timeout_ms); }
    void stop() override { registry_.stop(); }

  private:
    registry::Registry& registry_;
};

/// A resource API elsewhere: one reflector and connection for each kind, one connection for writing.
class RemoteObjects : public Objects {
  public:
    using MakeTransport = std::function<std::unique_ptr<client::Transport>()>;
    /// `name_space` empty: all. Nothing is read before start().
    RemoteObjects(MakeTransport make, std::vector<const resources::Kind*> kinds, std::string name_space,
                  Clock clock);
    ~RemoteObjects() override;
    void start();
    /// True when every kind was listed once.
    [[nodiscard]] bool synced() const;

    std::vector<ObjectRef> list(const resources::Kind& kind, const std::string& name_space) const override;
    ObjectRef get(const resources::Kind& kind, const std::string& name_space, const std::string& name) const override;
    registry::Answer<ObjectRef> create(const resources::Kind& kind, const std::string& name_space, resources::Json object, const std::string& manager) override;
    registry::Answer<ObjectRef> patch(const resources::Kind& kind, const std::string& name_space, const std::string& name, registry::PatchType type, const resources::Json& patch, const std::string& manager) override;
    registry::Answer<void> put_status(const resources::Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make, const std::string& manager) override;
    registry::Answer<void> remove(const resources::Kind& kind, const std::string& name_space, const std::string& name) override;
    bool changes(std::uint64_t& position, std::vector<registry::Event>& out) const override;
    void wait(std::uint64_t position, int timeout_ms) const override;
    void pause(int timeout_ms) const override;
    void stop() override;
    /// Everything is asked for over new connections from now on, which read the access to the API again. Any thread.
    void reconnect();

  private:
    using Table = std::map<std::pair<std::string, std::string>, ObjectRef>;
    struct Feed {
        const resources::Kind* kind = nullptr;
        std::unique_ptr<client::Transport> transport;
        std::unique_ptr<client::Reflector> reflector;
        std::thread thread;
    };
    void take(const resources::Kind& kind, const client::Reflector::Change& change);
    registry::Answer<ObjectRef> send(const std::string& method, const std::string& target, const resources::Json& body, const std::string& media);

    MakeTransport make_;
    std::string name_space_;
    Clock clock_;
    std::vector<std::unique_ptr<Feed>> feeds_;
    mutable std::mutex guard_;                     ///< tables_, history_, position_, synced_
    mutable std::condition_variable changed_;
    std::map<std::string, Table> tables_;
    std::deque<registry::Event> history_;
    std::size_t history_bytes_ = 0;
    std::uint64_t position_ = 0, oldest_ = 0;
    std::size_t synced_ = 0;
    bool stopping_ = false;
    std::mutex writing_;                           ///< writer_
    std::unique_ptr<client::Transport> writer_;
};

/// Tells what happened as Events (core/v1): repetitions are counted in one Event, and an object that has much to say is cut
/// short (25 at once, then one in five minutes).
class Recorder {
  public:
    Recorder(Objects& objects, std::string component, Clock clock)
        : objects_(objects), component_(std::move(component)), clock_(std::move(clock)) {}
    void record(const resources::Json& about, const char* type, const std::string& reason, const std::string& message);
    /// Writes what was refused for now (a right that is not there yet, an API that is busy or away): each at most every
    /// `retry_ms`, for `kept_ms`. Called by whoever has a turn now and then; record() calls it too. `now_ms`: monotonic. Any thread.
    void retry(std::int64_t now_ms);
    static constexpr std::int64_t retry_ms = 5000, kept_ms = 600'000;
    static constexpr std::size_t waiting_max = 64;   ///< more are dropped, the oldest first

  private:
    /// An Event that is to be written yet.
    struct Waiting {
        resources::Json event;
        std::string space, what;
        std::int64_t next_ms = 0, until_ms = 0;
    };
    /// Under the guard. False: it is to be tried again.
    bool write(const resources::Json& event, const std::string& space, const std::string& what);
    struct Budget {
        double tokens = 25;
        std::int64_t at_ms = 0;
    };
    Objects& objects_;
    std::string component_;
    Clock clock_;
    std::mutex guard_;
    std::map<std::string, std::pair<std::string, int>> names_;   ///< what is told → Event and count
    std::map<std::string, Budget> budgets_;                      ///< by object
    std::deque<Waiting> waiting_;
};

}  // namespace penstock::control
