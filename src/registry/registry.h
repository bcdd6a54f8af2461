#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "registry/status.h"
#include "resources/schema.h"

struct sqlite3;
struct sqlite3_stmt;

namespace penstock::registry {

using ObjectRef = std::shared_ptr<const resources::Json>;

struct Event {
    enum class Type : std::uint8_t { added, modified, deleted };
    Type type{};
    const resources::Kind* kind = nullptr;
    std::string name_space;
    std::uint64_t version = 0;
    ObjectRef object;
    ObjectRef previous;                  ///< before a modification
};

struct Listing {
    std::vector<ObjectRef> items;        ///< ordered by namespace and name
    std::uint64_t version = 0;
};

/// What `fieldValidation` asks for.
enum class FieldValidation : std::uint8_t { ignore, warn, strict };

struct WriteOptions {
    bool dry_run = false;
    FieldValidation validation = FieldValidation::warn;
    std::vector<std::string>* warnings = nullptr;    ///< unknown fields that were dropped
};

enum class PatchType : std::uint8_t { merge, json, strategic };

/// The store of all resources: objects with versions, checked and defaulted on every write, kept in one SQLite file.
///
/// Core: any control thread; one lock inside. Objects handed out are immutable.
/// Every committed write has a version of its own, in one sequence for the whole store that is never reused.
class Registry {
  public:
    /// Opens or creates the file; `:memory:` for tests. The error names the file and the cure.
    static Result<std::unique_ptr<Registry>> open(const std::string& path);
    ~Registry();
    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;

    Answer<ObjectRef> get(const resources::Kind& kind, const std::string& name_space, const std::string& name) const;
    /// `name_space` empty: all of them.
    Listing list(const resources::Kind& kind, const std::string& name_space) const;
    Answer<ObjectRef> create(const resources::Kind& kind, const std::string& name_space, resources::Json object, const WriteOptions& options = {});
    /// `status`: only the status is taken from `object`; otherwise everything but the status.
    Answer<ObjectRef> update(const resources::Kind& kind, const std::string& name_space, const std::string& name, resources::Json object,
                             bool status, const WriteOptions& options = {});
    Answer<ObjectRef> patch(const resources::Kind& kind, const std::string& name_space, const std::string& name, PatchType type,
                            const resources::Json& patch, bool status, const WriteOptions& options = {});
    /// The object as it was; with finalizers it lingers and is returned with its deletionTimestamp.
    struct Removed {
        ObjectRef object;
        bool is_gone = true;
    };
    Answer<Removed> remove(const resources::Kind& kind, const std::string& name_space, const std::string& name,
                           const resources::Json& preconditions = {}, bool dry_run = false);

    /// Writes `status` when it differs from what is stored; no event, no version when it is the same.
    void put_status(const resources::Kind& kind, const std::string& name_space, const std::string& name, const resources::Json& status);

    [[nodiscard]] std::uint64_t version() const;
    /// Events after `version` for a kind (null: all) and namespace (empty: all). False: that history is gone (410).
    bool events_since(std::uint64_t version, const resources::Kind* kind, const std::string& name_space, std::vector<Event>& out) const;
    [[nodiscard]] std::uint64_t oldest_version() const;
    /// Blocks until something was written after `version`, or the time is over, or stop() was called.
    void wait_change(std::uint64_t version, int timeout_ms) const;
    /// Called after each commit, on the writing thread and under the lock: it must only pass the news on.
    void on_commit(std::function<void()> notify) {
        const std::lock_guard lock(guard_);
        notify_ = std::move(notify);
    }
    /// Blocks for the time, or until stop().
    void wait_stop(int timeout_ms) const;
    void stop();

  private:
    using Key = std::pair<std::string, std::string>;          // namespace, name
    using Table = std::map<Key, ObjectRef>;

    Registry() = default;
    Result<void> load(const std::string& path);
    std::vector<resources::Fault> check(const resources::Kind& kind, const std::string& name_space, resources::Json& object, const WriteOptions& options);
    Answer<ObjectRef> write(const resources::Kind& kind, const std::string& name_space, const std::string& name, resources::Json object,
                            const ObjectRef& previous, bool status, const WriteOptions& options);
    Answer<ObjectRef> update_locked(const resources::Kind& kind, const std::string& name_space, const std::string& name, resources::Json object,
                                    bool status, const WriteOptions& options);
    Answer<void> store(const resources::Kind& kind, const std::string& name_space, const std::string& name, const resources::Json* object, std::uint64_t version);
    Answer<void> commit(Event event, const std::string& name);
    Answer<void> drop(const resources::Kind& kind, const Key& key);
    void collect_dependents(const std::string& uid, std::vector<std::pair<const resources::Kind*, Key>>& out) const;
    ObjectRef find(const resources::Kind& kind, const std::string& name_space, const std::string& name) const;

    mutable std::mutex guard_;
    mutable std::condition_variable changed_;
    std::map<const resources::Kind*, Table> tables_;
    std::deque<Event> history_;
    std::uint64_t version_ = 0;
    std::uint64_t oldest_ = 0;                                 ///< versions up to here have no events any more
    std::function<void()> notify_;
    bool stopping_ = false;
    sqlite3* db_ = nullptr;
};

}  // namespace penstock::registry
