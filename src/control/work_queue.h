#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

namespace penstock::control {

/// An object to look at: the kind's qualified plural, namespace and name.
struct Key {
    std::string kind, name_space, name;
    auto operator<=>(const Key&) const = default;
};

/// What a reconciler says about when to look again.
struct Outcome {
    enum class Kind : std::uint8_t { settled, after, retry, stop } kind = Kind::settled;
    std::int64_t delay_ms = 0;
    std::string why;                     ///< of retry and stop

    static Outcome settled() { return {}; }
    /// Nothing is wrong, but time changes it.
    static Outcome after(std::int64_t ms) { return {.kind = Kind::after, .delay_ms = ms, .why = {}}; }
    /// It failed and may succeed later: again with growing pauses.
    static Outcome retry(std::string reason) { return {.kind = Kind::retry, .delay_ms = 0, .why = std::move(reason)}; }
    /// It cannot succeed with this input: not again until something changes.
    static Outcome stop(std::string reason) { return {.kind = Kind::stop, .delay_ms = 0, .why = std::move(reason)}; }
};

/// Which keys are due: each at most once, failures with back-off and jitter. Pure: the clock is given.
/// Core: one thread.
class WorkQueue {
  public:
    static constexpr std::int64_t first_pause_ms = 5, longest_pause_ms = 300'000;

    /// `random`: from 0 to 1, for the jitter.
    explicit WorkQueue(double (*random)()) : random_(random) {}

    /// The key is due at once, however long it had to wait.
    void add(const Key& key, std::int64_t now_ms);
    /// The next key that is due, and takes it out.
    std::optional<Key> take(std::int64_t now_ms);
    /// After a reconciliation: when the key is due again. A key that was added meanwhile stays due.
    void done(const Key& key, const Outcome& outcome, std::int64_t now_ms);
    /// When the next key is due; nothing when none waits.
    [[nodiscard]] std::optional<std::int64_t> next_due() const;
    [[nodiscard]] std::size_t size() const { return due_.size(); }
    [[nodiscard]] int failures(const Key& key) const;

  private:
    void schedule(const Key& key, std::int64_t at);

    double (*random_)();
    std::map<Key, std::int64_t> due_;
    std::set<std::pair<std::int64_t, Key>> by_time_;
    std::map<Key, int> failures_;
};

}  // namespace penstock::control
