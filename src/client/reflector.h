#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "client/transport.h"

namespace penstock::client {

using ObjectRef = std::shared_ptr<const resources::Json>;

/// Keeps a local copy of all objects of a kind: lists, then watches, and starts over when history is lost.
/// The procedure is that of the Kubernetes API conventions ("Efficient detection of changes").
/// Core: one thread of its own, which calls run(); `on_change` is called on it.
class Reflector {
  public:
    struct Change {
        enum class Type : std::uint8_t { added, modified, deleted } type{};
        ObjectRef object, previous;
    };
    struct Options {
        std::function<void(const Change&)> on_change;
        /// After the first complete list, and after each later one.
        std::function<void()> on_synced;
        /// Blocks for so long, or until the reflector is to stop; returns false then.
        std::function<bool(std::int64_t ms)> pause;
        std::function<double()> random;          ///< 0 to 1, for jitter
        std::function<std::int64_t()> now_ms;    ///< monotonic
    };
    static constexpr std::int64_t first_pause_ms = 800, longest_pause_ms = 30'000, healthy_ms = 120'000;
    /// A watch that ends sooner without having said anything is asked for again with growing pauses, as one
    /// that failed.
    static constexpr std::int64_t short_watch_ms = 1000;
    /// A missing right is told when the refusals have stayed for so long.
    static constexpr std::int64_t refusal_patience_ms = 10'000;

    Reflector(Transport& transport, const resources::Kind& kind, std::string name_space, Options options);
    /// Until `pause` returns false or stop().
    void run();
    /// Any thread.
    void stop() { stopping_ = true; }
    /// What went wrong last; empty while all is well.
    [[nodiscard]] const std::string& fault() const { return fault_; }
    [[nodiscard]] const std::map<std::pair<std::string, std::string>, ObjectRef>& objects() const { return objects_; }

  private:
    enum class Step : std::uint8_t { go_on, back_off, list_again };
    Step list();
    Step watch();
    bool event(const resources::Json& event, Step& next);
    void put(ObjectRef object);
    void drop(const std::pair<std::string, std::string>& key, ObjectRef last);
    bool wait(int retry_after_s);

    Transport& transport_;
    const resources::Kind& kind_;
    std::string name_space_;
    Options options_;
    std::map<std::pair<std::string, std::string>, ObjectRef> objects_;
    std::string position_;               ///< resourceVersion up to which everything is known; empty: a list is needed
    bool exact_ = false;                 ///< the next list must not come from a cache
    std::int64_t pause_ms_ = first_pause_ms;
    std::int64_t failed_at_ = 0;
    int retry_after_s_ = 0;
    int lists_in_vain_ = 0;              ///< lists whose watch was told at once that history is lost
    std::string fault_, told_;           ///< `told_`: of the last list that failed, in the log
    std::int64_t refused_at_ = -1;       ///< since when lists are refused for want of a right; negative: they are not
    std::atomic<bool> stopping_{false};
};

}  // namespace penstock::client
