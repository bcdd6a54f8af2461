#include "registry/registry.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/own_command.h"
#include "base/random.h"
#include "base/text.h"
#include "resources/definition.h"
#include "resources/merge.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::registry {

using resources::at_path;
using resources::Fault;
using resources::Json;
using resources::Kind;
using resources::text_at;

namespace {

constexpr std::size_t history_max = 10'000;
constexpr std::int64_t storage_retry_ms = 2000;
constexpr std::size_t object_bytes_max = 3 * 1024 * 1024;
constexpr std::size_t made_kinds_max = 10'000;
constexpr std::size_t generated_prefix_max = 58;   // a generated name is a DNS label with its five characters at the end
constexpr int status_tries = 100;          // writers that come in between, one after the other
/// Written into an object that the rules of this version refuse, when it is read from the file; gone with the next write.
constexpr const char* refused_annotation = "penstock.io/refused-by-validation";

Failure internal(std::string message) { return {.code = 500, .reason = "InternalError", .message = "Internal error occurred: " + std::move(message)}; }

std::string version_of(const Json& object) { return text_at(object, "metadata.resourceVersion"); }

bool has_generation(const Kind& kind) { return !kind.built_in || kind.kind == "CustomResourceDefinition"; }

bool is_protected_namespace(const std::string& name) { return name == "default" || name == "kube-system" || name == "kube-public" || name == "kube-node-lease"; }

std::string text_of(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// Desired state alone: what counts for the generation.
Json desired(Json object) {
    object.erase("metadata");
    object.erase("status");
    return object;
}

bool owns_anything(const Json& object, std::string_view manager) {
    const auto managers = read_managers(object);
    return managers && std::ranges::any_of(*managers, [&](const Manager& m) { return m.name == manager && m.subresource.empty(); });
}

/// Fields whose value is of another type than theirs; null is as good as absent.
std::vector<Fault> wrong_types(const Kind& kind, const Json& object) {
    auto out = resources::validate(kind, object);
    std::erase_if(out, [](const Fault& fault) { return fault.reason != "FieldValueTypeInvalid" || fault.message.ends_with(", not null"); });
    return out;
}

/// What is of a wrong type in the metadata that the server gives, fills in or replaces: it must not be lost without a word.
std::vector<Fault> wrong_metadata(const Json& object) {
    std::vector<Fault> out;
    const auto& metadata = at_path(object, "metadata");
    auto look = [&](const char* field, const char* type, bool (*fits)(const Json&)) {
        const auto& value = at_path(metadata, field);
        if (!value.is_null() && !fits(value))
            out.push_back({fmt::format("metadata.{}", field), "FieldValueTypeInvalid", fmt::format("Invalid value: {}: must be of type {}, not {}", resources::brief(value), type, value.type_name())});
    };
    if (!metadata.is_null() && !metadata.is_object())
        out.push_back({"metadata", "FieldValueTypeInvalid", fmt::format("Invalid value: {}: must be of type object, not {}", resources::brief(metadata), metadata.type_name())});
    for (const char* field : {"name", "generateName", "namespace", "uid", "resourceVersion", "selfLink", "creationTimestamp", "deletionTimestamp"})
        look(field, "string", [](const Json& value) { return value.is_string(); });
    for (const char* field : {"generation", "deletionGracePeriodSeconds"}) look(field, "integer", [](const Json& value) { return value.is_number_integer(); });
    return out;
}

/// A manifest that could be an object by itself.
bool is_whole(const Kind& kind, Json object) {
    return resources::apply_defaults(kind, object) && resources::validate(kind, object).empty();
}

/// Objects that Penstock makes at a start where they are missing, by name: those that versions before `defaults_manager` made.
bool is_seed(const Kind& kind, const Json& object) {
    const auto name = text_at(object, "metadata.name");
    const auto& labels = at_path(object, "metadata.labels");
    if (kind.group == "mqttbroker.iotoperations.azure.com") return name == "default" && kind.kind != "BrokerAuthorization";
    if (kind.group == "rbac.authorization.k8s.io") return labels.is_object() && labels.contains("kubernetes.io/bootstrapping");
    return kind.group == "cert-manager.io" || (kind.built_in && kind.kind == "Namespace");
}

/// Two listeners of one Broker that the rules (`admit`) do not let stand side by side. `any_type`: several of one service type may.
bool excludes(const Json& one, const Json& other, bool any_type) {
    if (broker_of(one) != broker_of(other)) return false;
    if (!any_type && equal_no_case(text_at(one, "spec.serviceType", "ClusterIp"), text_at(other, "spec.serviceType", "ClusterIp"))) return true;
    if (text_at(one, "spec.serviceName") == text_at(other, "spec.serviceName")) return true;
    for (const auto& port : at_path(one, "spec.ports"))
        for (const auto& there : at_path(other, "spec.ports"))
            if (resources::integer_of(port, "port") != 0 && resources::integer_of(port, "port") == resources::integer_of(there, "port")) return true;
    return false;
}

bool has_finalizers(const Json& object) {
    const auto& finalizers = at_path(object, "metadata.finalizers");
    return finalizers.is_array() && !finalizers.empty();
}

}  // namespace

Result<std::unique_ptr<Registry>> Registry::open(const std::string& path) {
    std::unique_ptr<Registry> out(new Registry);
    if (auto loaded = out->load(path); !loaded) return std::unexpected(loaded.error());
    return out;
}

Result<void> Registry::load(const std::string& path) {
    if (auto opened = database_.open(path); !opened) return opened;
    auto last = database_.last_version();
    if (!last) return std::unexpected(last.error());
    version_ = *last;
    // The version that is kept comes first: discovery prefers it, and objects are told of under it.
    for (const auto* kinds : {&resources::all_kinds(), &resources::earlier_versions(), &resources::workload_kinds()})
        for (const auto& kind : *kinds) kinds_.push_back(&kind);

    struct Row {
        std::string kind;
        Key key;
        Json object;
    };
    std::vector<Row> rows;
    std::string unreadable;
    auto read = database_.each([&](const std::string& kind, const std::string& space, const std::string& name, const std::string& body) {
        auto object = resources::parse_json(body, resources::written_depth_max);
        if (object) rows.push_back({kind, {space, name}, std::move(*object)});
        else unreadable += fmt::format("{}{} {}/{} is no JSON ({})", unreadable.empty() ? "" : ", ", kind, space, name, object.error().message);
    });
    if (!read) return read;
    // Without it others would be taken for faulty or superfluous.
    if (!unreadable.empty()) return fail(fmt::format("{}: is damaged: {}; restore a backup ({})", path, unreadable, restore_command(path)));
    // Definitions first: they say how the objects of their kinds are read.
    std::ranges::sort(rows, {}, [](const Row& row) { return row.kind != "customresourcedefinitions.apiextensions.k8s.io"; });
    for (auto& row : rows) {
        if (row.kind == "customresourcedefinitions.apiextensions.k8s.io") serve_definition(nullptr, &row.object);
        const auto* kind = kind_by_id(row.kind);
        if (kind == nullptr) continue;   // a kind this build does not serve stays in the file, untouched
        if (const auto faults = resources::validate(*kind, row.object); !faults.empty()) {
            std::string text;
            for (const auto& f : faults) text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", f.path, f.message);
            row.object["metadata"]["annotations"][refused_annotation] = text;
            log::warn("registry", "a stored object does not satisfy this version's rules kind={} namespace={} name={} why=\"{}\"", kind->kind, row.key.first, row.key.second, text);
        }
        if (is_seed(*kind, row.object)) adopt_as_default(row.object, kind->group == "cert-manager.io" ? "penstock-certificates" : "penstock");
        bytes_ += text_of(row.object).size();
        tables_[row.kind][row.key] = std::make_shared<const Json>(std::move(row.object));
    }
    oldest_ = version_;
    const auto& namespaces = *resources::find_kind("v1", "Namespace");
    for (const char* name : {"default", "kube-system", "kube-public", "kube-node-lease", "azure-iot-operations"}) {
        if (find(namespaces, "", name) != nullptr) continue;
        if (auto made = seed(namespaces, "", {{"metadata", {{"name", name}}}}); !made)
            return fail(fmt::format("{}: {}", path, made.error().message));
    }
    return {};
}

// --- kinds ---

std::vector<const Kind*> Registry::kinds() const {
    const std::lock_guard lock(guard_);
    return kinds_;
}

const Kind* Registry::find_kind(const std::string& api_version, const std::string& name) const {
    const std::lock_guard lock(guard_);
    for (const auto* kind : kinds_)
        if (kind->kind == name && kind->api_version() == api_version) return kind;
    return nullptr;
}

const Kind* Registry::find_plural(const std::string& api_version, const std::string& plural) const {
    const std::lock_guard lock(guard_);
    for (const auto* kind : kinds_)
        if (kind->plural == plural && kind->api_version() == api_version) return kind;
    return nullptr;
}

std::uint64_t Registry::kinds_version() const {
    const std::lock_guard lock(guard_);
    return kinds_version_;
}

const Kind* Registry::kind_by_id(const std::string& id) const {
    for (const auto* kind : kinds_)
        if (kind->qualified_plural() == id) return kind;
    return nullptr;
}

void Registry::serve_definition(const Json* before, const Json* definition) {
    if (before != nullptr && definition != nullptr && at_path(*before, "spec") == at_path(*definition, "spec")) return;
    ++kinds_version_;
    const auto& any = definition != nullptr ? *definition : *before;
    const auto id = text_at(any, "spec.names.plural") + "." + text_at(any, "spec.group");
    std::erase_if(kinds_, [&](const Kind* kind) { return kind->dynamic && kind->qualified_plural() == id; });
    if (definition == nullptr) return;
    for (auto& kind : resources::kinds_of_definition(*definition)) {
        made_kinds_.push_back(std::make_unique<const Kind>(std::move(kind)));
        kinds_.push_back(made_kinds_.back().get());
    }
}

// --- reading ---

ObjectRef Registry::find(const Kind& kind, const std::string& name_space, const std::string& name) const {
    const auto table = tables_.find(kind.qualified_plural());
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

Listing Registry::list(const Kind& kind, const std::string& name_space) const { return *list_page(kind, name_space, 0, ""); }

Registry::Table Registry::snapshot(const Kind& kind, std::uint64_t version) const {
    const auto id = kind.qualified_plural();
    const auto table = tables_.find(id);
    Table out = table == tables_.end() ? Table() : table->second;
    for (auto at = history_.rbegin(); at != history_.rend() && at->version > version; ++at) {
        if (at->kind->qualified_plural() != id) continue;
        const Key key{at->name_space, text_at(*at->object, "metadata.name")};
        if (at->type == Event::Type::added) out.erase(key);
        else out[key] = at->previous;
    }
    return out;
}

Answer<Listing> Registry::list_page(const Kind& kind, const std::string& name_space, std::size_t limit, const std::string& token) const {
    const std::lock_guard lock(guard_);
    Listing out{.items = {}, .version = version_};
    Key after;
    bool resumes = false;
    Table old;
    const auto found = tables_.find(kind.qualified_plural());
    const Table* table = found == tables_.end() ? &old : &found->second;
    if (!token.empty()) {
        const auto text = base64_decode(token);
        const auto parsed = text ? resources::parse_json(*text) : Result<Json>(fail(""));
        if (!parsed || !parsed->is_object() || !parsed->contains("v") || !(*parsed)["v"].is_number_unsigned())
            return std::unexpected(bad_request("continue: the token is not one of this server"));
        out.version = (*parsed)["v"].get<std::uint64_t>();
        after = {text_at(*parsed, "s"), text_at(*parsed, "n")};
        resumes = true;
        if (out.version < oldest_ || out.version > version_)
            return std::unexpected(Failure{.code = 410, .reason = "Expired", .message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."});
        if (out.version != version_) {
            old = snapshot(kind, out.version);
            table = &old;
        }
    }
    for (auto at = resumes ? table->upper_bound(after) : table->begin(); at != table->end(); ++at) {
        if (!name_space.empty() && at->first.first != name_space) continue;
        if (limit != 0 && out.items.size() == limit) {
            if (out.next.empty()) {
                const auto& last = *out.items.back();
                out.next = base64_encode(Json{{"v", out.version}, {"s", text_at(last, "metadata.namespace")}, {"n", text_at(last, "metadata.name")}}.dump());
            }
            ++out.remaining;
            continue;
        }
        out.items.push_back(at->second);
    }
    return out;
}

// --- writing ---

Peers Registry::peers_of(const Kind& kind, const Key& key, bool with_defaults) const {
    return {.list = [this, &kind, key, with_defaults](const char* api_version, const char* name) {
        std::vector<ObjectRef> out;
        const auto* wanted = resources::find_kind(api_version, name);
        const auto table = wanted == nullptr ? tables_.end() : tables_.find(wanted->qualified_plural());
        if (table == tables_.end()) return out;
        auto yields = [&](const Json& other) {
            return wanted->qualified_plural() == kind.qualified_plural() && is_untouched_default(other) && (kind.kind != "Broker" || !is_used(key.first, text_at(other, "metadata.name")));
        };
        for (const auto& [at, object] : table->second)
            if ((wanted->qualified_plural() != kind.qualified_plural() || at != key) && (with_defaults || !yields(*object))) out.push_back(object);
        return out;
    }};
}

Answer<Json> Registry::prepared(const Kind& kind, const std::string& name, Json object, const ObjectRef& previous, const WriteOptions& options) {
    if (auto annotations = at_path(object, "metadata.annotations"); annotations.is_object() && annotations.contains(refused_annotation)) {
        object["metadata"]["annotations"].erase(refused_annotation);
        if (object["metadata"]["annotations"].empty()) object["metadata"].erase("annotations");
    }
    const auto unknown = resources::prune_unknown(kind, object);
    // An embedded default does not stand in the way of what a person or a file brings; it goes when that is stored (`make_way`).
    const bool is_broker_kind = kind.group == "mqttbroker.iotoperations.azure.com";
    const auto peers = peers_of(kind, {text_at(object, "metadata.namespace"), name}, !is_broker_kind || options.manager == defaults_manager);
    keep_empty_lists(kind, object);
    if (!resources::apply_defaults(kind, object)) return std::unexpected(invalid(kind, name, {{"", "FieldValueTooLong", fmt::format("Too long: with its defaults it would take more than {} bytes", resources::defaults_bytes_max)}}));
    // What is of a wrong type is a fault, also where a default would take its place.
    auto wrong = kind.built_in || kind.kind == "BrokerListener" ? wrong_types(kind, object) : std::vector<Fault>();
    if (auto good = admit_defaults(kind, object, previous.get(), peers); !good) return std::unexpected(good.error());
    auto faults = resources::validate(kind, object);
    for (auto& fault : wrong)
        if (std::ranges::find(faults, fault.path, &Fault::path) == faults.end()) faults.push_back(std::move(fault));
    admit(kind, object, previous.get(), peers, faults);
    if (auto managers = read_managers(object); !managers) faults.push_back({"metadata.managedFields", "FieldValueInvalid", "Invalid value: " + managers.error().message});
    if (previous != nullptr && at_path(*previous, "metadata.deletionTimestamp").is_string()) {
        const auto& before = at_path(*previous, "metadata.finalizers");
        if (const auto& now = at_path(object, "metadata.finalizers"); now.is_array())
            for (const auto& finalizer : now)
                if (!before.is_array() || std::ranges::find(before, finalizer) == before.end())
                    faults.push_back({"metadata.finalizers", "FieldValueForbidden", fmt::format("Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers [{}]", text_of(finalizer))});
    }
    if (text_of(object).size() > object_bytes_max) faults.push_back({"", "FieldValueTooLong", fmt::format("Too long: may not be more than {} bytes", object_bytes_max)});
    if (!unknown.empty() && options.validation == FieldValidation::strict) {
        // With other faults beside them, all are told at once.
        if (!faults.empty()) {
            faults.insert(faults.begin(), unknown.begin(), unknown.end());
            return std::unexpected(invalid(kind, name, faults));
        }
        std::string text;
        for (const auto& f : unknown) text += (text.empty() ? "" : ", ") + f.message;
        return std::unexpected(bad_request(fmt::format("{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}", kind.kind, kind.version, kind.kind, text)));
    }
    if (options.validation == FieldValidation::warn && options.warnings != nullptr)
        for (const auto& f : unknown) options.warnings->push_back(f.message);
    if (!faults.empty()) return std::unexpected(invalid(kind, name, faults));
    return object;
}

Answer<ObjectRef> Registry::create(const Kind& kind, const std::string& name_space, Json object, const WriteOptions& options) {
    const std::lock_guard lock(guard_);
    return create_locked(kind, name_space, std::move(object), options, false);
}

Answer<ObjectRef> Registry::create_locked(const Kind& kind, const std::string& name_space, Json object, const WriteOptions& options, bool applied) {
    if (!object.is_object()) return std::unexpected(bad_request("the body is not a JSON object"));
    if (const auto wrong = wrong_metadata(object); !wrong.empty()) return std::unexpected(invalid(kind, text_at(object, "metadata.name"), wrong));
    auto& metadata = object["metadata"];
    if (!metadata.is_object()) metadata = Json::object();
    if (!version_of(object).empty()) return std::unexpected(bad_request("resourceVersion should not be set on objects to be created"));
    if (text_at(metadata, "name").empty() && !text_at(metadata, "generateName").empty()) {
        for (int tries = 0; tries < 10; ++tries) {
            metadata["name"] = text_at(metadata, "generateName").substr(0, generated_prefix_max) + random_text(5, "bcdfghjklmnpqrstvwxz2456789");
            if (find(kind, name_space, text_at(metadata, "name")) == nullptr) break;
        }
    }
    const auto name = text_at(metadata, "name");
    if (kind.namespaced) {
        const auto given = text_at(metadata, "namespace");
        if (!given.empty() && given != name_space) return std::unexpected(bad_request("the namespace of the provided object does not match the namespace sent on the request"));
        const auto& namespaces = *resources::find_kind("v1", "Namespace");
        const auto space = find(namespaces, "", name_space);
        if (space == nullptr) return std::unexpected(not_found(namespaces, name_space));
        if (text_at(*space, "status.phase") == "Terminating") {
            auto failure = forbidden(kind, name, fmt::format("unable to create new content in namespace {} because it is being terminated", resources::shortened(name_space)));
            failure.details["causes"] = Json::array({{{"reason", "NamespaceTerminating"}, {"message", fmt::format("namespace {} is being terminated", name_space)}, {"field", "metadata.namespace"}}});
            return std::unexpected(failure);
        }
        metadata["namespace"] = name_space;
    } else {
        metadata.erase("namespace");
    }
    if (const auto there = find(kind, name_space, name); there != nullptr) {
        auto failure = already_exists(kind, name);
        if (at_path(*there, "metadata.deletionTimestamp").is_string()) failure.message = "object is being deleted: " + failure.message;
        return std::unexpected(failure);
    }
    for (const char* owned : {"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion"}) metadata.erase(owned);
    metadata["uid"] = random_uuid();
    metadata["creationTimestamp"] = rfc3339(wall_ms());
    if (has_generation(kind)) metadata["generation"] = 1;
    if (kind.has_status && !(kind.kind == "CustomResourceDefinition" && kind.built_in)) object.erase("status");
    object["apiVersion"] = kind.api_version();
    object["kind"] = kind.kind;
    auto ready = prepared(kind, name, std::move(object), nullptr, options);
    if (!ready) return std::unexpected(ready.error());
    if (!applied) {
        (*ready)["metadata"].erase("managedFields");
        track_update(kind, Json::object(), *ready, {.manager = options.manager});
    }
    return commit_object(kind, {name_space, name}, std::move(*ready), nullptr, options.dry_run);
}

Answer<ObjectRef> Registry::commit_object(const Kind& kind, const Key& key, Json object, const ObjectRef& previous, bool dry_run) {
    if (previous != nullptr) {
        auto before = *previous, after = object;
        before["metadata"].erase("resourceVersion");
        after["metadata"].erase("resourceVersion");
        if (before == after) return previous;   // nothing changed: no version, no event
    }
    if (dry_run) {
        if (previous == nullptr) object["metadata"].erase("resourceVersion");
        return std::make_shared<const Json>(std::move(object));
    }
    if (kind.group == "mqttbroker.iotoperations.azure.com" && !is_untouched_default(object)) make_way(kind, key, object);
    const auto version = version_ + 1;
    object["metadata"]["resourceVersion"] = std::to_string(version);
    Event event{.type = previous != nullptr ? Event::Type::modified : Event::Type::added, .kind = &kind, .name_space = key.first, .version = version,
                .object = std::make_shared<const Json>(std::move(object)), .previous = previous};
    auto stored = event.object;
    if (auto done = commit(std::move(event), key.second); !done) return std::unexpected(done.error());
    return stored;
}

/// Something that is no embedded default refers to the Broker.
bool Registry::is_used(const std::string& name_space, const std::string& broker) const {
    for (const char* name : {"BrokerListener", "BrokerAuthentication", "BrokerAuthorization"}) {
        const auto table = tables_.find(resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name)->qualified_plural());
        if (table == tables_.end()) continue;
        for (const auto& [at, object] : table->second)
            if (at.first == name_space && broker_of(*object) == broker && !is_untouched_default(*object)) return true;
    }
    return false;
}

void Registry::make_way(const Kind& kind, const Key& key, const Json& object) {
    const auto api_version = kind.api_version();
    auto drop_where = [&](const char* name, const std::function<bool(const Json&)>& in_the_way) {
        const auto* of = resources::find_kind(api_version, name);
        const auto table = tables_.find(of->qualified_plural());
        if (table == tables_.end()) return;
        const auto copy = table->second;
        for (const auto& [at, other] : copy) {
            if (at.first != key.first || (of == &kind && at == key) || !is_untouched_default(*other) || !in_the_way(*other)) continue;
            if (auto done = drop(*of, at, other); !done) log::warn("registry", "the embedded default {} {} could not make way for {}: {}", name, at.second, key.second, done.error().message);
            else log::info("registry", "the embedded default {} {} made way for {} {}", name, at.second, kind.kind, key.second);
        }
    };
    if (kind.kind == "Broker")
        for (const char* name : {"Broker", "BrokerListener", "BrokerAuthentication"}) drop_where(name, [&](const Json& other) { return std::string_view(name) == "Broker" || broker_of(other) != key.second; });
    if (kind.kind != "BrokerListener") return;
    const auto broker = find(*resources::find_kind(api_version, "Broker"), key.first, broker_of(object));
    const auto& marks = broker != nullptr ? at_path(*broker, "metadata.annotations") : Json();
    const bool any_type = marks.is_object() && equal_no_case(marks.value("penstock.io/listeners-per-service-type", ""), "Any");
    drop_where("BrokerListener", [&](const Json& other) { return excludes(object, other, any_type); });
}

Answer<void> Registry::seed(const Kind& kind, const std::string& name_space, Json object) {
    const std::lock_guard lock(guard_);
    const auto name = text_at(object, "metadata.name");
    if (find(kind, kind.namespaced ? name_space : "", name) != nullptr) return {};
    object["apiVersion"] = kind.api_version();
    object["kind"] = kind.kind;
    const auto made = apply_locked(kind, kind.namespaced ? name_space : "", name, std::move(object), false, {.manager = defaults_manager}, nullptr);
    if (!made) return std::unexpected(made.error());
    return {};
}

Answer<void> Registry::commit(Event event, const std::string& name) {
    const bool gone = event.type == Event::Type::deleted;
    const auto id = event.kind->qualified_plural();
    const auto body = text_of(*event.object);
    const auto held = tables_[id].find({event.name_space, name});
    const auto before = held != tables_[id].end() ? text_of(*held->second).size() : 0;   // a status from memory counts too
    if (!gone && body.size() > before && bytes_ - before + body.size() > limits_.store_bytes)
        return std::unexpected(Failure{.code = 507, .reason = "InsufficientStorage", .message = fmt::format("the registry is full: all objects together may have {} bytes; delete what is not needed any more", limits_.store_bytes)});
    if (auto stored = database_.write(id, event.name_space, name, gone ? nullptr : &body, event.version); !stored) return std::unexpected(storage_failed(stored.error().message));
    storage_works();
    unsaved_.erase({id, {event.name_space, name}});
    version_ = event.version;
    if (gone) tables_[id].erase({event.name_space, name});
    else tables_[id][{event.name_space, name}] = event.object;
    if (event.kind->built_in && event.kind->kind == "CustomResourceDefinition") serve_definition(event.previous.get(), gone ? nullptr : event.object.get());
    bytes_ = bytes_ - std::min(bytes_, before) + (gone ? 0 : body.size());
    event.bytes = body.size();
    history_bytes_ += event.bytes;
    history_.push_back(std::move(event));
    trim_history();
    changed_.notify_all();
    if (notify_) notify_();
    return {};
}

void Registry::trim_history() {
    while (history_.size() > history_max || (history_bytes_ > limits_.history_bytes && history_.size() > 1)) {
        oldest_ = history_.front().version;
        history_bytes_ -= history_.front().bytes;
        history_.pop_front();
    }
}

Answer<ObjectRef> Registry::update_locked(const Kind& kind, const std::string& name_space, const std::string& name, Json object, Part part,
                                          const WriteOptions& options, bool applied) {
    const auto current = find(kind, name_space, name);
    if (!object.is_object() || !object["metadata"].is_object()) return std::unexpected(bad_request("the body has no metadata"));
    if (const auto wrong = wrong_metadata(object); !wrong.empty()) return std::unexpected(invalid(kind, name, wrong));
    const auto given = text_at(object, "metadata.name");
    if (given != name) return std::unexpected(bad_request(fmt::format("the name of the object ({}) does not match the name on the URL ({})", resources::shortened(given), resources::shortened(name))));
    if (auto in = text_at(object, "metadata.namespace"); !in.empty() && in != name_space && kind.namespaced)
        return std::unexpected(bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    if (current == nullptr) return std::unexpected(not_found(kind, name));
    const auto expected = version_of(object);
    if (!expected.empty() && expected != version_of(*current))
        return std::unexpected(conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again"));
    if (const auto uid = text_at(object, "metadata.uid"); !uid.empty() && uid != text_at(*current, "metadata.uid"))
        return std::unexpected(conflict(kind, name, fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}", resources::shortened(uid), text_at(*current, "metadata.uid"))));
    if (expected.empty() && !kind.built_in && part == Part::main)
        return std::unexpected(invalid(kind, name, {{"metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"}}));
    // What the server gave stays; left out it is as it was (ValidateObjectMetaUpdate). A manifest that is applied may have been read
    // from here once, and is about other fields.
    if (part == Part::main && !applied) {
        std::vector<Fault> faults;
        for (const char* field : {"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"}) {
            const auto path = std::string("metadata.") + field;
            if (const auto& sent = at_path(object, path); !sent.is_null() && sent != at_path(*current, path))
                faults.push_back({path, "FieldValueInvalid", fmt::format("Invalid value: {}: field is immutable", resources::brief(sent))});
        }
        if (!faults.empty()) return std::unexpected(invalid(kind, name, faults));
    }
    if (kind.dynamic && made_kinds_.size() > made_kinds_max) return std::unexpected(internal("too many versions of definitions since the start; restart penstock"));

    Json next;
    const auto& sent_managers = at_path(object, "metadata.managedFields");
    const bool keeps_managers = sent_managers.is_null();
    if (part == Part::status) {
        next = *current;
        if (object.contains("status") && !object["status"].is_null()) next["status"] = object["status"];
        else next.erase("status");
        if (!keeps_managers) next["metadata"]["managedFields"] = sent_managers;
    } else {
        next = std::move(object);
        next["apiVersion"] = kind.api_version();
        next["kind"] = kind.kind;
        auto& metadata = next["metadata"];
        for (const char* owned : {"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "namespace", "resourceVersion"}) {
            if (const auto& kept = (*current)["metadata"]; kept.contains(owned)) metadata[owned] = kept[owned];
            else metadata.erase(owned);
        }
        metadata.erase("selfLink");
        if (keeps_managers && (*current)["metadata"].contains("managedFields")) metadata["managedFields"] = (*current)["metadata"]["managedFields"];
        if (kind.has_status) {
            if (current->contains("status")) next["status"] = (*current)["status"];
            else next.erase("status");
        }
        if (kind.built_in && kind.kind == "Namespace") {
            if (current->contains("spec")) next["spec"] = (*current)["spec"];
        }
    }
    auto ready = prepared(kind, name, std::move(next), current, options);
    if (!ready) return std::unexpected(ready.error());
    if (has_generation(kind) && part != Part::status && desired(*current) != desired(*ready)) (*ready)["metadata"]["generation"] = (*current)["metadata"].value("generation", 1) + 1;
    if (!applied) track_update(kind, *current, *ready, {.manager = options.manager, .subresource = part == Part::status ? "status" : ""});
    if ((*ready)["metadata"].contains("deletionTimestamp") && !has_finalizers(*ready) && at_path(*ready, "spec.finalizers").is_null()) {
        auto last = std::make_shared<const Json>(std::move(*ready));
        if (!options.dry_run)
            if (auto done = drop(kind, {name_space, name}, last); !done) return std::unexpected(done.error());
        return last;
    }
    return commit_object(kind, {name_space, name}, std::move(*ready), current, options.dry_run);
}

Answer<ObjectRef> Registry::update(const Kind& kind, const std::string& name_space, const std::string& name, Json object, bool status, const WriteOptions& options) {
    const std::lock_guard lock(guard_);
    return update_locked(kind, name_space, name, std::move(object), status ? Part::status : Part::main, options, false);
}

Answer<ObjectRef> Registry::apply_locked(const Kind& kind, const std::string& name_space, const std::string& name, Json applied, bool status, const WriteOptions& options, bool* created) {
    if (options.manager.empty()) return std::unexpected(Failure{.code = 422, .reason = "Invalid", .message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"});
    if (!applied.is_object() || text_at(applied, "apiVersion").empty() || text_at(applied, "kind").empty())
        return std::unexpected(bad_request(fmt::format("the applied configuration must carry apiVersion {} and kind {}", kind.api_version(), kind.kind)));
    if (text_at(applied, "apiVersion") != kind.api_version() || text_at(applied, "kind") != kind.kind)
        return std::unexpected(bad_request(fmt::format("the applied configuration is a {} of {}; the path is of {} of {}", resources::shortened(text_at(applied, "kind")), resources::shortened(text_at(applied, "apiVersion")), kind.kind, kind.api_version())));
    if (const auto& managers = at_path(applied, "metadata.managedFields"); managers.is_array() && !managers.empty()) return std::unexpected(bad_request("metadata.managedFields must be nil"));
    if (const auto wrong = wrong_metadata(applied); !wrong.empty()) return std::unexpected(invalid(kind, name, wrong));
    if (!applied["metadata"].is_object()) applied["metadata"] = Json::object();
    auto& metadata = applied["metadata"];
    if (text_at(metadata, "name", name) != name) return std::unexpected(bad_request(fmt::format("the name of the object ({}) does not match the name on the URL ({})", resources::shortened(text_at(metadata, "name")), resources::shortened(name))));
    metadata["name"] = name;
    metadata.erase("managedFields");
    const auto current = find(kind, name_space, name);
    const auto expected = version_of(applied);
    if (!expected.empty() && (current == nullptr || expected != version_of(*current)))
        return std::unexpected(conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again"));
    metadata.erase("resourceVersion");
    // Unknown fields are nobody's: told, then left out.
    auto unknown = resources::prune_unknown(kind, applied);
    keep_empty_lists(kind, applied);
    if (!unknown.empty() && options.validation == FieldValidation::strict) {
        std::string text;
        for (const auto& f : unknown) text += (text.empty() ? "" : ", ") + f.message;
        return std::unexpected(bad_request(fmt::format("failed to create typed patch object ({}/{}; {}, Kind={}): {}", resources::shortened(name_space), resources::shortened(name), kind.api_version(), kind.kind, text)));
    }
    if (options.warnings != nullptr && options.validation == FieldValidation::warn)
        for (const auto& f : unknown) options.warnings->push_back(f.message);
    // The values are compared as they are stored: texts of a Secret as bytes.
    if (kind.built_in && kind.kind == "Secret") fold_texts(applied);
    if (current == nullptr && status) return std::unexpected(not_found(kind, name));
    // A whole manifest replaces the embedded default, so that the same files give the same whether or not they were there at the first
    // start; a part of one is laid over it.
    const bool replaces = current != nullptr && !kind.built_in && !status && options.manager != defaults_manager && owns_anything(*current, defaults_manager) && is_whole(kind, applied);
    const Writer writer{.manager = options.manager, .subresource = status ? "status" : "", .force = options.force, .replaces_defaults = replaces};
    const Json base = current != nullptr ? *current : Json{{"apiVersion", kind.api_version()}, {"kind", kind.kind}, {"metadata", {{"name", name}}}};
    auto merged = apply_configuration(kind, name, base, applied, writer);
    if (!merged) return std::unexpected(merged.error());
    if (created != nullptr) *created = current == nullptr;
    if (current == nullptr) return create_locked(kind, name_space, std::move(*merged), options, true);
    return update_locked(kind, name_space, name, std::move(*merged), status ? Part::status : Part::main, options, true);
}

Answer<ObjectRef> Registry::patch(const Kind& kind, const std::string& name_space, const std::string& name, PatchType type, const Json& patch,
                                  bool status, const WriteOptions& options, bool* created) {
    const std::lock_guard lock(guard_);
    if (type == PatchType::apply) return apply_locked(kind, name_space, name, patch, status, options, created);
    const auto current = find(kind, name_space, name);
    if (current == nullptr) return std::unexpected(not_found(kind, name));
    Json next = *current;
    if (type == PatchType::json) {
        if (!patch.is_array()) return std::unexpected(bad_request("a JSON patch is an array of operations"));
        if (auto done = resources::json_patch(next, patch); !done)
            return std::unexpected(Failure{.code = 422, .reason = "Invalid", .message = fmt::format("the server rejected our request due to an error in our request: {}", done.error().message)});
    } else {
        if (!patch.is_object()) return std::unexpected(bad_request("a merge patch is a JSON object"));
        if (type == PatchType::strategic) {
            if (auto done = resources::strategic_patch(next, patch, kind.schema); !done) return std::unexpected(bad_request(fmt::format("the strategic merge patch cannot be carried out: {}", done.error().message)));
        } else {
            resources::merge_patch(next, patch);
        }
        // A patch is conditional only when it names a version itself.
        if (version_of(patch).empty() && next.is_object() && next["metadata"].is_object()) next["metadata"]["resourceVersion"] = version_of(*current);
    }
    return update_locked(kind, name_space, name, std::move(next), status ? Part::status : Part::main, options, false);
}

Answer<Registry::Removed> Registry::remove(const Kind& kind, const std::string& name_space, const std::string& name, const RemoveOptions& options) {
    const std::lock_guard lock(guard_);
    const auto current = find(kind, name_space, name);
    if (current == nullptr) return std::unexpected(not_found(kind, name));
    if (const auto uid = text_at(options.preconditions, "uid"); !uid.empty() && uid != text_at(*current, "metadata.uid"))
        return std::unexpected(conflict(kind, name, fmt::format("the UID in the precondition ({}) does not match the UID in record ({}). The object might have been deleted and then recreated", resources::shortened(uid), text_at(*current, "metadata.uid"))));
    if (const auto version = text_at(options.preconditions, "resourceVersion"); !version.empty() && version != version_of(*current))
        return std::unexpected(conflict(kind, name, fmt::format("the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({}). The object might have been modified", resources::shortened(version), version_of(*current))));
    const bool is_namespace = kind.built_in && kind.kind == "Namespace";
    if (is_namespace && is_protected_namespace(name)) return std::unexpected(forbidden(kind, name, "this namespace may not be deleted"));
    auto next = *current;
    const bool deleting = next["metadata"].contains("deletionTimestamp");
    if (!deleting && options.propagation != Propagation::background) {
        // The collector carries these out and takes its finalizer away.
        auto& finalizers = next["metadata"]["finalizers"];
        if (!finalizers.is_array()) finalizers = Json::array();
        const char* word = options.propagation == Propagation::orphan ? "orphan" : "foregroundDeletion";
        if (std::ranges::find(finalizers, Json(word)) == finalizers.end()) finalizers.push_back(word);
    }
    if (is_namespace || has_finalizers(next)) {
        if (deleting || options.dry_run) return Removed{.object = current, .is_gone = false};
        next["metadata"]["deletionTimestamp"] = rfc3339(wall_ms());
        if (!is_namespace) next["metadata"]["deletionGracePeriodSeconds"] = 0;
        else next["status"]["phase"] = "Terminating";
        if (next["metadata"].contains("generation")) next["metadata"]["generation"] = next["metadata"]["generation"].get<int>() + 1;
        auto lingering = commit_object(kind, {name_space, name}, std::move(next), current, false);
        if (!lingering) return std::unexpected(lingering.error());
        return Removed{.object = *lingering, .is_gone = false};
    }
    if (!options.dry_run)
        if (auto done = drop(kind, {name_space, name}, current); !done) return std::unexpected(done.error());
    return Removed{.object = current, .is_gone = true};
}

Answer<void> Registry::drop(const Kind& kind, const Key& key, const ObjectRef& current) {
    // The objects of a definition go with it.
    if (kind.built_in && kind.kind == "CustomResourceDefinition") {
        const auto id = text_at(*current, "metadata.name");
        if (const auto* made = kind_by_id(id); made != nullptr && made->dynamic) {
            const auto copy = tables_[id];
            for (const auto& [at, object] : copy)
                if (auto done = drop(*made, at, object); !done) return done;
        }
    }
    const auto version = version_ + 1;
    auto last = *current;
    last["metadata"]["resourceVersion"] = std::to_string(version);
    return commit({.type = Event::Type::deleted, .kind = &kind, .name_space = key.first, .version = version, .object = std::make_shared<const Json>(std::move(last)), .previous = find(kind, key.first, key.second)},
                  key.second);
}

void Registry::finalize_namespace(const std::string& name) {
    const std::lock_guard lock(guard_);
    const auto& kind = *resources::find_kind("v1", "Namespace");
    const auto current = find(kind, "", name);
    if (current == nullptr || text_at(*current, "status.phase") != "Terminating" || has_finalizers(*current)) return;
    if (auto done = drop(kind, {"", name}, current); !done) log::error("registry", "namespace {} could not be ended: {}", name, done.error().message);
}

Answer<void> Registry::put_status(const Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make, const std::string& manager) {
    for (int tries = 0; tries < status_tries; ++tries) {
        ObjectRef seen;
        {
            const std::lock_guard lock(guard_);
            seen = find(kind, name_space, name);
        }
        if (seen == nullptr) return {};
        auto status = make(*seen);
        if (!status) return {};
        const std::lock_guard lock(guard_);
        // The very object, and not its version alone: a status in memory has none of its own.
        if (find(kind, name_space, name) != seen) continue;
        put_status_locked(kind, {name_space, name}, seen, std::move(*status), manager);
        return {};
    }
    return std::unexpected(conflict(kind, name, "the object was modified each time before its status could be written; please try again"));
}

void Registry::put_status_locked(const Kind& kind, const Key& key, const ObjectRef& current, Json status, const std::string& manager) {
    const std::pair<std::string, Key> place{kind.qualified_plural(), key};
    const bool is_unsaved = unsaved_.contains(place);
    if (at_path(*current, "status") == status && !is_unsaved) return;
    auto next = *current;
    next["status"] = std::move(status);
    track_update(kind, *current, next, {.manager = manager, .subresource = "status"});
    // An object that is the same as in memory is written all the same when the disk does not have it.
    const auto shown = std::make_shared<const Json>(next);
    auto before = current;
    if (is_unsaved) {
        auto former = *current;
        former.erase("status");
        before = std::make_shared<const Json>(std::move(former));
    }
    if (commit_object(kind, place.second, std::move(next), before, false)) return;
    // The disk is full or gone: a status is derived, and a person who looks now is to see how things stand.
    bytes_ += text_of(*shown).size() - text_of(*current).size();
    tables_[place.first][place.second] = shown;
    unsaved_.insert(place);
}

Failure Registry::storage_failed(const std::string& why) {
    if (storage_fault_.empty()) log::error("registry", "resources cannot be changed; what is there is served, the broker goes on, and it is tried again why=\"{}\"", why);
    storage_fault_ = why;
    storage_tried_ = monotonic_ms();
    return {.code = database_.disk_is_full() ? 507 : 500, .reason = database_.disk_is_full() ? "InsufficientStorage" : "InternalError", .message = fmt::format("the registry's disk does not take the change: {}{}", why, database_.disk_is_full() ? "; make room on its disk" : "")};
}

void Registry::storage_works() {
    if (storage_fault_.empty()) return;
    storage_fault_.clear();
    log::info("registry", "resources can be changed again");
}

std::string Registry::storage_fault() {
    const std::lock_guard lock(guard_);
    // A file that was deleted is written anew before somebody needs it.
    if (storage_fault_.empty() && database_.is_there()) return {};
    if (!storage_fault_.empty() && monotonic_ms() - storage_tried_ < storage_retry_ms) return storage_fault_;
    if (auto done = database_.probe(); done) storage_works();
    else storage_failed(done.error().message);
    return storage_fault_;
}

std::string Registry::fault() const {
    const std::lock_guard lock(guard_);
    return storage_fault_;
}

// --- news ---

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
        if ((kind == nullptr || at->kind->qualified_plural() == kind->qualified_plural()) && (name_space.empty() || at->name_space == name_space)) out.push_back(*at);
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

Result<void> Registry::copy_to(const std::string& path) {
    const std::lock_guard lock(guard_);
    return database_.copy_to(path);
}

}  // namespace penstock::registry
