#include "registry/registry.h"

#include <sqlite3.h>

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "registry/admission.h"

namespace penstock::registry {

using resources::Fault;
using resources::Json;
using resources::Kind;

namespace {

constexpr int format_version = 1;             // of the file; frozen with the tables below, see docs/internals/formats.md
constexpr std::size_t history_max = 10'000;
constexpr std::size_t object_bytes_max = 1536 * 1024;

Failure internal(std::string message) { return {.code = 500, .reason = "InternalError", .message = "Internal error occurred: " + std::move(message)}; }

std::string version_of(const Json& object) { return resources::text_at(object, "metadata.resourceVersion"); }

/// A prepared statement that ends with its scope.
class Statement {
  public:
    Statement(sqlite3* db, const char* text) { sqlite3_prepare_v2(db, text, -1, &statement_, nullptr); }
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    Statement& bind(int at, const std::string& text) {
        sqlite3_bind_text(statement_, at, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
        return *this;
    }
    Statement& bind(int at, std::uint64_t number) {
        sqlite3_bind_int64(statement_, at, static_cast<sqlite3_int64>(number));
        return *this;
    }
    int step() { return statement_ == nullptr ? SQLITE_ERROR : sqlite3_step(statement_); }
    [[nodiscard]] std::string text(int column) const {
        const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
        return bytes == nullptr ? std::string() : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
    }
    [[nodiscard]] std::uint64_t number(int column) const { return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column)); }

  private:
    sqlite3_stmt* statement_ = nullptr;
};

void merge_patch(Json& target, const Json& patch) {
    if (!patch.is_object()) {
        target = patch;
        return;
    }
    if (!target.is_object()) target = Json::object();
    for (const auto& [key, value] : patch.items()) {
        if (value.is_null()) target.erase(key);
        else merge_patch(target[key], value);
    }
}

/// Strategic merge of the built-in kinds served here: none of their lists is merged by key except Service ports, so that
/// a merge patch without the directives is the same. False: the patch needs more than that.
bool strip_directives(Json& patch) {
    if (!patch.is_object()) return true;
    if (patch.contains("$patch") || patch.contains("$retainKeys")) return false;
    for (auto at = patch.begin(); at != patch.end();) {
        if (at.key().starts_with("$deleteFromPrimitiveList/")) return false;
        if (at.key().starts_with("$setElementOrder/")) {
            at = patch.erase(at);
            continue;
        }
        if (!strip_directives(*at)) return false;
        ++at;
    }
    return true;
}

}  // namespace

Result<std::unique_ptr<Registry>> Registry::open(const std::string& path) {
    std::unique_ptr<Registry> out(new Registry);
    if (auto loaded = out->load(path); !loaded) return std::unexpected(loaded.error());
    return out;
}

Registry::~Registry() { sqlite3_close(db_); }

Result<void> Registry::load(const std::string& path) {
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) return fail(fmt::format("{}: cannot be opened: {}", path, sqlite3_errmsg(db_)));
    sqlite3_busy_timeout(db_, 2000);
    auto run = [&](const char* text) { return sqlite3_exec(db_, text, nullptr, nullptr, nullptr) == SQLITE_OK; };
    if (!run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE;"
             "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL);"
             "CREATE TABLE IF NOT EXISTS objects(kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,"
             " body BLOB NOT NULL, PRIMARY KEY(kind, namespace, name)) WITHOUT ROWID;"))
        return fail(fmt::format("{}: {}; is another penstock running on this data directory, or is it not writable?", path, sqlite3_errmsg(db_)));
    {
        Statement format(db_, "SELECT value FROM meta WHERE key='format'");
        if (format.step() == SQLITE_ROW) {
            if (format.number(0) > format_version)
                return fail(fmt::format("{}: written by a newer penstock (format {}, this one reads up to {}); use that version", path, format.number(0), format_version));
        } else if (!run(fmt::format("INSERT INTO meta VALUES('format', {}),('version', 1)", format_version).c_str())) {
            return fail(fmt::format("{}: {}", path, sqlite3_errmsg(db_)));
        }
    }
    Statement last(db_, "SELECT value FROM meta WHERE key='version'");
    if (last.step() == SQLITE_ROW) version_ = last.number(0);
    Statement all(db_, "SELECT kind, namespace, name, body FROM objects");
    int code = 0;
    while ((code = all.step()) == SQLITE_ROW) {
        const auto* kind = resources::find_kind_by_word(all.text(0));
        auto object = resources::parse_json(all.text(3));
        if (kind == nullptr || !object) continue;   // a kind this build does not serve stays in the file, untouched
        tables_[kind][{all.text(1), all.text(2)}] = std::make_shared<const Json>(std::move(*object));
    }
    if (code != SQLITE_DONE) return fail(fmt::format("{}: cannot be read: {}", path, sqlite3_errmsg(db_)));
    oldest_ = version_;
    const auto& namespaces = *resources::find_kind("v1", "Namespace");
    for (const char* name : {"default", "kube-system", "kube-public", "azure-iot-operations"}) {
        if (find(namespaces, "", name) != nullptr) continue;
        if (auto made = create(namespaces, "", {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", name}}}}); !made)
            return fail(fmt::format("{}: {}", path, made.error().message));
    }
    return {};
}

ObjectRef Registry::find(const Kind& kind, const std::string& name_space, const std::string& name) const {
    const auto table = tables_.find(&kind);
    if (table == tables_.end()) return nullptr;
    const auto at = table->second.find({name_space, name});
    return at == table->second.end() ? nullptr : at->second;
}

Answer<ObjectRef> Registry::get(const Kind& kind, const std::string& name_space, const std::string& name) const {
    const std::lock_guard lock(guard_);
    auto found = find(kind, name_space, name);
    if (found == nullptr) return std::unexpected(not_found(kind, name));
    return found;
}

Listing Registry::list(const Kind& kind, const std::string& name_space) const {
    const std::lock_guard lock(guard_);
    Listing out{.items = {}, .version = version_};
    const auto table = tables_.find(&kind);
    if (table == tables_.end()) return out;
    for (const auto& [key, object] : table->second)
        if (name_space.empty() || key.first == name_space) out.items.push_back(object);
    return out;
}

std::vector<Fault> Registry::check(const Kind& kind, const std::string& name_space, Json& object, const WriteOptions& options) {
    std::vector<Fault> unknown = resources::unknown_fields(kind, object);
    resources::apply_defaults(kind, object);
    admit_defaults(kind, object);
    auto faults = resources::validate(kind, object);
    std::vector<ObjectRef> peers;
    if (const auto table = tables_.find(&kind); table != tables_.end())
        for (const auto& [key, peer] : table->second)
            if (key.first == name_space && key.second != resources::text_at(object, "metadata.name")) peers.push_back(peer);
    std::vector<ObjectRef> brokers;
    for (const auto& [other, table] : tables_)
        if (other->kind == "Broker")
            for (const auto& [key, broker] : table)
                if (key.first == name_space) brokers.push_back(broker);
    if (faults.empty()) admit(kind, object, peers, brokers, faults);
    for (const auto& fault : unknown) {
        if (options.validation == FieldValidation::strict) faults.push_back(fault);
        else if (options.validation == FieldValidation::warn && options.warnings != nullptr) options.warnings->push_back(fault.message);
    }
    if (object.dump().size() > object_bytes_max)
        faults.push_back({"", "FieldValueTooLong", fmt::format("Too long: may not be more than {} bytes", object_bytes_max)});
    return faults;
}

Answer<ObjectRef> Registry::create(const Kind& kind, const std::string& name_space, Json object, const WriteOptions& options) {
    std::unique_lock lock(guard_);
    if (!object.is_object()) return std::unexpected(bad_request("the body is not a JSON object"));
    auto& metadata = object["metadata"];
    if (!metadata.is_object()) metadata = Json::object();
    if (kind.namespaced) {
        const auto given = resources::text_at(metadata, "namespace", name_space);
        if (given != name_space) return std::unexpected(bad_request("the namespace of the provided object does not match the namespace sent on the request"));
        if (find(*resources::find_kind("v1", "Namespace"), "", name_space) == nullptr)
            return std::unexpected(not_found(*resources::find_kind("v1", "Namespace"), name_space));
        metadata["namespace"] = name_space;
    } else {
        metadata.erase("namespace");
    }
    if (!version_of(object).empty()) return std::unexpected(bad_request("resourceVersion should not be set on objects to be created"));
    if (resources::text_at(metadata, "name").empty() && !resources::text_at(metadata, "generateName").empty())
        metadata["name"] = resources::text_at(metadata, "generateName") + random_text(5, "bcdfghjklmnpqrstvwxz2456789");
    const auto name = resources::text_at(metadata, "name");
    if (find(kind, name_space, name) != nullptr) return std::unexpected(already_exists(kind, name));
    for (const char* owned : {"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion"}) metadata.erase(owned);
    metadata["uid"] = random_uuid();
    metadata["creationTimestamp"] = rfc3339(wall_ms());
    if (kind.has_status && !kind.is_open) {
        metadata["generation"] = 1;
        object.erase("status");
    }
    if (kind.kind == "Namespace") {
        object["spec"] = {{"finalizers", {"kubernetes"}}};
        object["status"] = {{"phase", "Active"}};
        metadata["labels"]["kubernetes.io/metadata.name"] = name;
    }
    object["apiVersion"] = kind.api_version();
    object["kind"] = kind.kind;
    return write(kind, name_space, name, std::move(object), nullptr, false, options);
}

Answer<ObjectRef> Registry::write(const Kind& kind, const std::string& name_space, const std::string& name, Json object,
                                  const ObjectRef& previous, bool status, const WriteOptions& options) {
    if (!status) {
        const auto faults = check(kind, name_space, object, options);
        if (!faults.empty()) {
            // Unknown fields under strict validation are a 400 of their own in Kubernetes.
            const bool only_unknown = std::ranges::all_of(faults, [](const Fault& f) { return f.message.starts_with("unknown field"); });
            if (!only_unknown) return std::unexpected(invalid(kind, name, faults));
            std::string text;
            for (const auto& f : faults) text += (text.empty() ? "" : ", ") + f.message;
            return std::unexpected(bad_request(fmt::format("{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}", kind.kind, kind.version, kind.kind, text)));
        }
    }
    if (previous != nullptr) {
        auto before = *previous, after = object;
        before["metadata"].erase("resourceVersion");
        after["metadata"].erase("resourceVersion");
        if (before == after) return previous;   // nothing changed: no version, no event
    }
    if (options.dry_run) {
        object["metadata"].erase("resourceVersion");
        return std::make_shared<const Json>(std::move(object));
    }
    const auto version = version_ + 1;
    object["metadata"]["resourceVersion"] = std::to_string(version);
    Event event{.type = previous != nullptr ? Event::Type::modified : Event::Type::added, .kind = &kind, .name_space = name_space, .version = version,
                .object = std::make_shared<const Json>(std::move(object)), .previous = previous};
    auto stored = event.object;
    if (auto done = commit(std::move(event), name); !done) return std::unexpected(done.error());
    return stored;
}

Answer<void> Registry::store(const Kind& kind, const std::string& name_space, const std::string& name, const Json* object, std::uint64_t version) {
    auto run = [&](const char* text) { return sqlite3_exec(db_, text, nullptr, nullptr, nullptr) == SQLITE_OK; };
    auto failed = [&] {
        auto why = internal(fmt::format("the registry file cannot be written: {}", sqlite3_errmsg(db_)));
        run("ROLLBACK");
        return std::unexpected(why);
    };
    if (!run("BEGIN")) return failed();
    const auto kind_key = kind.qualified_plural();
    if (object != nullptr) {
        const auto body = object->dump(-1, ' ', false, Json::error_handler_t::replace);
        Statement put(db_, "INSERT INTO objects VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET version=excluded.version, body=excluded.body");
        if (put.bind(1, kind_key).bind(2, name_space).bind(3, name).bind(4, version).bind(5, body).step() != SQLITE_DONE) return failed();
    } else {
        Statement erase(db_, "DELETE FROM objects WHERE kind=? AND namespace=? AND name=?");
        if (erase.bind(1, kind_key).bind(2, name_space).bind(3, name).step() != SQLITE_DONE) return failed();
    }
    Statement count(db_, "UPDATE meta SET value=? WHERE key='version'");
    if (count.bind(1, version).step() != SQLITE_DONE || !run("COMMIT")) return failed();
    return {};
}

Answer<void> Registry::commit(Event event, const std::string& name) {
    const bool gone = event.type == Event::Type::deleted;
    if (auto stored = store(*event.kind, event.name_space, name, gone ? nullptr : event.object.get(), event.version); !stored) return stored;
    version_ = event.version;
    if (gone) tables_[event.kind].erase({event.name_space, name});
    else tables_[event.kind][{event.name_space, name}] = event.object;
    history_.push_back(std::move(event));
    if (history_.size() > history_max) {
        oldest_ = history_.front().version;
        history_.pop_front();
    }
    changed_.notify_all();
    if (notify_) notify_();
    return {};
}

Answer<ObjectRef> Registry::update_locked(const Kind& kind, const std::string& name_space, const std::string& name, Json object, bool status,
                                          const WriteOptions& options) {
    const auto current = find(kind, name_space, name);
    if (!object.is_object() || !object["metadata"].is_object()) return std::unexpected(bad_request("the body has no metadata"));
    const auto given = resources::text_at(object, "metadata.name");
    if (given != name) return std::unexpected(bad_request(fmt::format("the name of the object ({}) does not match the name on the URL ({})", given, name)));
    if (current == nullptr) return std::unexpected(not_found(kind, name));
    const auto expected = version_of(object);
    if (!expected.empty() && expected != version_of(*current))
        return std::unexpected(conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again"));
    if (expected.empty() && !kind.is_open && !status)
        return std::unexpected(invalid(kind, name, {{"metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"}}));
    Json next;
    if (status) {
        next = *current;
        if (object.contains("status")) next["status"] = object["status"];
        else next.erase("status");
    } else {
        next = std::move(object);
        next["apiVersion"] = kind.api_version();
        next["kind"] = kind.kind;
        for (const char* owned : {"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "namespace", "resourceVersion"}) {
            if (const auto& kept = (*current)["metadata"]; kept.contains(owned)) next["metadata"][owned] = kept[owned];
            else next["metadata"].erase(owned);
        }
        next["metadata"].erase("selfLink");
        if (kind.has_status) {
            if (current->contains("status")) next["status"] = (*current)["status"];
            else next.erase("status");
        }
        if (kind.has_status && !kind.is_open) {
            resources::apply_defaults(kind, next);
            admit_defaults(kind, next);
            auto before = *current, after = next;
            for (auto* side : {&before, &after}) side->erase("metadata"), side->erase("status");
            if (before != after) next["metadata"]["generation"] = (*current)["metadata"].value("generation", 1) + 1;
        }
    }
    const auto& finalizers = resources::at_path(next, "metadata.finalizers");
    if (next["metadata"].contains("deletionTimestamp") && (!finalizers.is_array() || finalizers.empty())) {
        auto last = std::make_shared<const Json>(std::move(next));
        if (!options.dry_run)
            if (auto done = drop(kind, {name_space, name}); !done) return std::unexpected(done.error());
        return last;
    }
    return write(kind, name_space, name, std::move(next), current, status, options);
}

Answer<ObjectRef> Registry::update(const Kind& kind, const std::string& name_space, const std::string& name, Json object, bool status,
                                   const WriteOptions& options) {
    const std::lock_guard lock(guard_);
    return update_locked(kind, name_space, name, std::move(object), status, options);
}

Answer<ObjectRef> Registry::patch(const Kind& kind, const std::string& name_space, const std::string& name, PatchType type, const Json& patch,
                                  bool status, const WriteOptions& options) {
    const std::lock_guard lock(guard_);
    const auto current = find(kind, name_space, name);
    if (current == nullptr) return std::unexpected(not_found(kind, name));
    Json next = *current;
    if (type == PatchType::json) {
        if (!patch.is_array() || patch.size() > 10'000) return std::unexpected(bad_request("a JSON patch is an array of at most 10000 operations"));
        try {
            next = next.patch(patch);
        } catch (const Json::exception& error) {
            return std::unexpected(Failure{.code = 422, .reason = "Invalid", .message = fmt::format("the server rejected our request due to an error in our request: {}", error.what())});
        }
    } else {
        if (!patch.is_object()) return std::unexpected(bad_request("a merge patch is a JSON object"));
        auto plain = patch;
        if (type == PatchType::strategic && !strip_directives(plain))
            return std::unexpected(bad_request("this strategic merge patch uses $patch, $retainKeys or $deleteFromPrimitiveList, which this server does not take; send a merge patch"));
        merge_patch(next, plain);
        // A patch is conditional only when it names a version itself.
        if (version_of(plain).empty()) next["metadata"]["resourceVersion"] = version_of(*current);
    }
    return update_locked(kind, name_space, name, std::move(next), status, options);
}

Answer<Registry::Removed> Registry::remove(const Kind& kind, const std::string& name_space, const std::string& name, const Json& preconditions, bool dry_run) {
    const std::lock_guard lock(guard_);
    const auto current = find(kind, name_space, name);
    if (current == nullptr) return std::unexpected(not_found(kind, name));
    if (const auto uid = resources::text_at(preconditions, "uid"); !uid.empty() && uid != resources::text_at(*current, "metadata.uid"))
        return std::unexpected(conflict(kind, name, fmt::format("the UID in the precondition ({}) does not match the UID in record ({})", uid, resources::text_at(*current, "metadata.uid"))));
    if (const auto version = resources::text_at(preconditions, "resourceVersion"); !version.empty() && version != version_of(*current))
        return std::unexpected(conflict(kind, name, fmt::format("the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({})", version, version_of(*current))));
    if (kind.kind == "Namespace" && (name == "default" || name == "kube-system" || name == "kube-public"))
        return std::unexpected(forbidden(kind, name, "this namespace may not be deleted"));
    const auto& finalizers = resources::at_path(*current, "metadata.finalizers");
    if (finalizers.is_array() && !finalizers.empty()) {
        if ((*current)["metadata"].contains("deletionTimestamp") || dry_run) return Removed{.object = current, .is_gone = false};
        auto next = *current;
        next["metadata"]["deletionTimestamp"] = rfc3339(wall_ms());
        next["metadata"]["deletionGracePeriodSeconds"] = 0;
        if (next["metadata"].contains("generation")) next["metadata"]["generation"] = next["metadata"]["generation"].get<int>() + 1;
        auto lingering = write(kind, name_space, name, std::move(next), current, true, {});
        if (!lingering) return std::unexpected(lingering.error());
        return Removed{.object = *lingering, .is_gone = false};
    }
    if (!dry_run)
        if (auto done = drop(kind, {name_space, name}); !done) return std::unexpected(done.error());
    return Removed{.object = current, .is_gone = true};
}

Answer<void> Registry::drop(const Kind& kind, const Key& key) {
    const auto current = find(kind, key.first, key.second);
    if (current == nullptr) return {};
    std::vector<std::pair<const Kind*, Key>> dependents;
    collect_dependents(resources::text_at(*current, "metadata.uid"), dependents);
    if (kind.kind == "Namespace")
        for (const auto& [other, table] : tables_)
            for (const auto& [other_key, object] : table)
                if (other->namespaced && other_key.first == key.second) dependents.emplace_back(other, other_key);
    const auto version = version_ + 1;
    auto last = *current;
    last["metadata"]["resourceVersion"] = std::to_string(version);
    if (auto done = commit({.type = Event::Type::deleted, .kind = &kind, .name_space = key.first, .version = version,
                            .object = std::make_shared<const Json>(std::move(last)), .previous = current},
                           key.second);
        !done)
        return done;
    for (const auto& [other, other_key] : dependents)
        if (auto done = drop(*other, other_key); !done) return done;
    return {};
}

void Registry::collect_dependents(const std::string& uid, std::vector<std::pair<const Kind*, Key>>& out) const {
    for (const auto& [kind, table] : tables_) {
        for (const auto& [key, object] : table) {
            const auto& owners = resources::at_path(*object, "metadata.ownerReferences");
            if (!owners.is_array() || owners.empty()) continue;
            // Only what this owner alone keeps alive, and only children that Penstock made: a listener outlives its broker.
            if (kind->kind == "Service" && owners.size() == 1 && resources::text_at(owners[0], "uid") == uid) out.emplace_back(kind, key);
        }
    }
}

void Registry::put_status(const Kind& kind, const std::string& name_space, const std::string& name, const Json& status) {
    const std::lock_guard lock(guard_);
    const auto current = find(kind, name_space, name);
    if (current == nullptr) return;
    auto next = *current;
    next["status"] = status;
    // The object may have been removed or the disk may be full: a status is derived and is written again later.
    [[maybe_unused]] const auto written = write(kind, name_space, name, std::move(next), current, true, {});
}

std::uint64_t Registry::version() const {
    const std::lock_guard lock(guard_);
    return version_;
}

std::uint64_t Registry::oldest_version() const {
    const std::lock_guard lock(guard_);
    return oldest_;
}

bool Registry::events_since(std::uint64_t version, const Kind* kind, const std::string& name_space, std::vector<Event>& out) const {
    const std::lock_guard lock(guard_);
    if (version < oldest_) return false;
    const auto first = std::ranges::upper_bound(history_, version, {}, &Event::version);
    for (auto at = first; at != history_.end(); ++at)
        if ((kind == nullptr || at->kind == kind) && (name_space.empty() || at->name_space == name_space)) out.push_back(*at);
    return true;
}

void Registry::wait_change(std::uint64_t version, int timeout_ms) const {
    std::unique_lock lock(guard_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return stopping_ || version_ != version; });
}

void Registry::wait_stop(int timeout_ms) const {
    std::unique_lock lock(guard_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return stopping_; });
}

void Registry::stop() {
    const std::lock_guard lock(guard_);
    stopping_ = true;
    changed_.notify_all();
}

}  // namespace penstock::registry
