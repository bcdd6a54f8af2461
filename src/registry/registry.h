#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "registry/admission.h"
#include "registry/database.h"
#include "registry/ownership.h"
#include "registry/status.h"
#include "resources/schema.h"

namespace penstock::registry {

struct Event {
    enum class Type : std::uint8_t { added, modified, deleted };
    Type type{};
    const resources::Kind* kind = nullptr;
    std::string name_space;
    std::uint64_t version = 0;
    ObjectRef object;
    ObjectRef previous;                  ///< before a modification
    std::size_t bytes = 0;               ///< of the object's text
};

struct Listing {
    std::vector<ObjectRef> items;        ///< ordered by namespace and name
    std::uint64_t version = 0;
    std::string next;                    ///< `continue` of the next page; empty at the end
    std::size_t remaining = 0;
};

/// What `fieldValidation` asks for.
enum class FieldValidation : std::uint8_t { ignore, warn, strict };

struct WriteOptions {
    bool dry_run = false;
    FieldValidation validation = FieldValidation::warn;
    std::vector<std::string>* warnings = nullptr;    ///< unknown fields that were dropped
    std::string manager = "penstock";                ///< who owns what is written
    bool force = false;                              ///< server-side apply: take conflicting fields over
};

enum class PatchType : std::uint8_t { merge, json, strategic, apply };

enum class Propagation : std::uint8_t { background, foreground, orphan };

struct RemoveOptions {
    resources::Json preconditions;                   ///< `uid`, `resourceVersion`
    bool dry_run = false;
    Propagation propagation = Propagation::background;
};

/// The store of all resources: objects with versions, checked and defaulted on every write, kept in one SQLite file.
///
/// Core: any control thread; one lock inside. Objects and kinds handed out are immutable and live as long as the registry.
/// Every committed write has a version of its own, in one sequence for the whole store that is never reused.
class Registry {
  public:
    /// Opens or creates the file; `:memory:` for tests. The error names the file and the cure.
    static Result<std::unique_ptr<Registry>> open(const std::string& path);
    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;

    /// All kinds served now: the declared ones and those of CustomResourceDefinitions.
    std::vector<const resources::Kind*> kinds() const;
    const resources::Kind* find_kind(const std::string& api_version, const std::string& kind) const;
    const resources::Kind* find_plural(const std::string& api_version, const std::string& plural) const;
    /// Changes whenever the kinds do.
    [[nodiscard]] std::uint64_t kinds_version() const;

    Answer<ObjectRef> get(const resources::Kind& kind, const std::string& name_space, const std::string& name) const;
    /// `name_space` empty: all of them.
    Listing list(const resources::Kind& kind, const std::string& name_space) const;
    /// A page of at most `limit` objects; `token` is the `next` of the page before. All pages are of one version; 410 when
    /// the history that would be needed for that is gone.
    Answer<Listing> list_page(const resources::Kind& kind, const std::string& name_space, std::size_t limit, const std::string& token) const;
    Answer<ObjectRef> create(const resources::Kind& kind, const std::string& name_space, resources::Json object, const WriteOptions& options = {});
    /// `status`: only the status is taken from `object`; otherwise everything but the status.
    Answer<ObjectRef> update(const resources::Kind& kind, const std::string& name_space, const std::string& name, resources::Json object,
                             bool status, const WriteOptions& options = {});
    /// With PatchType::apply the object is created when absent; `created` tells.
    Answer<ObjectRef> patch(const resources::Kind& kind, const std::string& name_space, const std::string& name, PatchType type,
                            const resources::Json& patch, bool status, const WriteOptions& options = {}, bool* created = nullptr);
    /// Makes an embedded default that is not there; one that is belongs to whoever made or changed it. It yields: to the first manifest
    /// that is applied to it, and, untouched, to an object of another name that could not stand beside it.
    Answer<void> seed(const resources::Kind& kind, const std::string& name_space, resources::Json object);
    /// The object as it was; with finalizers it lingers and is returned with its deletionTimestamp.
    struct Removed {
        ObjectRef object;
        bool is_gone = true;
    };
    Answer<Removed> remove(const resources::Kind& kind, const std::string& name_space, const std::string& name, const RemoveOptions& options = {});
    /// Ends a namespace whose content is gone (the `kubernetes` finalizer of its spec).
    void finalize_namespace(const std::string& name);

    /// Makes a status from an object as it is stored; nothing: it stays as it is. It may be called several times, without the lock.
    using MakeStatus = std::function<std::optional<resources::Json>(const resources::Json& current)>;
    /// Writes the status that `make` makes when it differs from what is stored; no event, no version when it is the same. When another
    /// writer was there between reading and writing, it is made anew from what is there then: nothing is written over unseen (409 when
    /// others are always faster). When the disk takes no writes the object has it all the same, in memory and under its old version:
    /// what is shown is how things stand. An object that is not there is no error.
    Answer<void> put_status(const resources::Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make,
                            const std::string& manager = "penstock");

    /// Why the last write did not come to the disk; empty: it did. Statuses written meanwhile are shown, and are written with the next
    /// one of their object that succeeds.
    [[nodiscard]] std::string fault() const;
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
    /// What is held in memory, in bytes of text: events for watches, and all objects together (507 beyond). Before it is used.
    struct Limits {
        std::size_t history_bytes = 16u << 20, store_bytes = 256u << 20;
    };
    void set_limits(const Limits& limits) { limits_ = limits; }
    /// Blocks for the time, or until stop().
    void wait_stop(int timeout_ms) const;
    void stop();
    /// Why the disk does not take writes (no room, read-only, gone); empty: it takes them. While it does not, this tries again, at
    /// most every two seconds. What is in memory is served meanwhile, each write answers 507 (no room) or 500.
    std::string storage_fault();
    /// A consistent copy of the file, while running.
    Result<void> copy_to(const std::string& path);

  private:
    using Key = std::pair<std::string, std::string>;          // namespace, name
    using Table = std::map<Key, ObjectRef>;
    enum class Part : std::uint8_t { main, status, both };

    Registry() = default;
    Result<void> load(const std::string& path);
    Answer<resources::Json> prepared(const resources::Kind& kind, const std::string& name, resources::Json object, const ObjectRef& previous, const WriteOptions& options);
    Answer<ObjectRef> create_locked(const resources::Kind& kind, const std::string& name_space, resources::Json object, const WriteOptions& options, bool applied);
    Answer<ObjectRef> update_locked(const resources::Kind& kind, const std::string& name_space, const std::string& name, resources::Json object,
                                    Part part, const WriteOptions& options, bool applied);
    Answer<ObjectRef> apply_locked(const resources::Kind& kind, const std::string& name_space, const std::string& name, resources::Json applied, bool status,
                                   const WriteOptions& options, bool* created);
    /// Stores what is ready; an object that equals `previous` is no write.
    Answer<ObjectRef> commit_object(const resources::Kind& kind, const Key& key, resources::Json object, const ObjectRef& previous, bool dry_run);
    Answer<void> commit(Event event, const std::string& name);
    Failure storage_failed(const std::string& why);
    void storage_works();
    void put_status_locked(const resources::Kind& kind, const Key& key, const ObjectRef& current, resources::Json status, const std::string& manager);
    Answer<void> drop(const resources::Kind& kind, const Key& key, const ObjectRef& current);
    Peers peers_of(const resources::Kind& kind, const Key& key, bool with_defaults) const;
    /// Drops the oldest events beyond what is kept, in number and in bytes.
    void trim_history();
    bool is_used(const std::string& name_space, const std::string& broker) const;
    void make_way(const resources::Kind& kind, const Key& key, const resources::Json& object);
    ObjectRef find(const resources::Kind& kind, const std::string& name_space, const std::string& name) const;
    void serve_definition(const resources::Json* before, const resources::Json* definition);
    const resources::Kind* kind_by_id(const std::string& id) const;
    Table snapshot(const resources::Kind& kind, std::uint64_t version) const;

    mutable std::mutex guard_;
    mutable std::condition_variable changed_;
    std::map<std::string, Table, std::less<>> tables_;         ///< by the kind's qualified plural: versions of a kind share one
    std::vector<const resources::Kind*> kinds_;
    std::vector<std::unique_ptr<const resources::Kind>> made_kinds_;   ///< of definitions, old ones too: events refer to them
    std::uint64_t kinds_version_ = 1;
    std::deque<Event> history_;
    std::size_t history_bytes_ = 0;                            ///< of the texts in it
    std::size_t bytes_ = 0;                                    ///< of the texts of all objects
    Limits limits_;
    std::uint64_t version_ = 0;
    std::uint64_t oldest_ = 0;                                 ///< versions up to here have no events any more
    std::function<void()> notify_;
    bool stopping_ = false;
    std::set<std::pair<std::string, Key>> unsaved_;            ///< objects whose status is not on the disk
    Database database_;
    std::string storage_fault_;
    std::int64_t storage_tried_ = 0;                           ///< monotonic ms
};

}  // namespace penstock::registry
