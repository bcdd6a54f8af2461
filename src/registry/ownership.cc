#include "registry/ownership.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"

namespace penstock::registry {

using resources::at_path;
using resources::FieldSet;
using resources::Json;
using resources::Kind;
using resources::text_at;

namespace {

constexpr std::size_t update_managers_max = 10;          // older ones are put together, as Kubernetes does
constexpr const char* last_applied_key = "kubectl.kubernetes.io/last-applied-configuration";

Manager& manager_of(std::vector<Manager>& managers, const Kind& kind, const Writer& writer, bool applies) {
    for (auto& m : managers)
        if (m.name == writer.manager && m.applies == applies && m.api_version == kind.api_version() && m.subresource == writer.subresource) return m;
    managers.push_back({.name = writer.manager, .applies = applies, .api_version = kind.api_version(), .time = rfc3339(wall_ms()), .subresource = writer.subresource});
    return managers.back();
}

void tidy(std::vector<Manager>& managers) {
    std::erase_if(managers, [](const Manager& m) { return m.fields.empty(); });
    auto updates = std::ranges::count_if(managers, [](const Manager& m) { return !m.applies && m.subresource.empty(); });
    while (updates > static_cast<std::ptrdiff_t>(update_managers_max)) {
        // The two oldest become one.
        std::vector<std::size_t> oldest;
        for (std::size_t i = 0; i < managers.size(); ++i)
            if (!managers[i].applies && managers[i].subresource.empty()) oldest.push_back(i);
        std::ranges::sort(oldest, {}, [&](std::size_t i) { return managers[i].time; });
        managers[oldest[1]].fields.add(managers[oldest[0]].fields);
        managers[oldest[1]].name = "ancient-changes";
        managers.erase(managers.begin() + static_cast<std::ptrdiff_t>(oldest[0]));
        --updates;
    }
}

/// Takes out of `gone` the nodes under which somebody else still owns something: an item goes only when all of it does.
void shield(FieldSet& gone, const FieldSet& kept) {
    if (!kept.empty()) gone.member = false;
    for (auto& [step, child] : gone.children)
        if (const auto found = kept.children.find(step); found != kept.children.end()) shield(child, found->second);
}

/// Where all that anybody owned of an object is gone, what is left are defaults that were filled in for it: they go too. Left
/// alone they would be half an object, which nobody asked for and validation may refuse.
void drop_orphaned_defaults(Json& object, const FieldSet& gone, const FieldSet& kept) {
    for (const auto& [step, child] : gone.children) {
        if (!step.starts_with("f:") || child.children.empty()) continue;
        const auto name = step.substr(2);
        if (!object.is_object() || !object.contains(name) || !object[name].is_object()) continue;
        const auto found = kept.children.find(step);
        if (found == kept.children.end() || found->second.empty()) object.erase(name);
        else drop_orphaned_defaults(object[name], child, found->second);
    }
}

/// True when every path is one that client-side apply wrote and nobody has changed since.
bool was_applied_by_kubectl(const Json& live, const FieldSet& conflicts, const Json& schema) {
    const auto& annotations = at_path(live, "metadata.annotations");
    if (!annotations.is_object() || !annotations.contains(last_applied_key) || !annotations[last_applied_key].is_string()) return false;
    const auto last = resources::parse_json(annotations[last_applied_key].get<std::string>());
    if (!last || !last->is_object()) return false;
    auto left = conflicts;
    // kubectl's own record is written by kubectl.
    FieldSet record;
    record.children["f:metadata"].children["f:annotations"].children[std::string("f:") + last_applied_key].member = true;
    left.remove(record);
    auto unchanged = FieldSet::of(*last, schema);
    unchanged.remove(FieldSet::changed(live, resources::merge_applied(live, *last, schema), schema));
    left.remove(unchanged);
    return left.empty();
}

/// `live` without the fields that the defaults' manager alone owns, and the manager's entry taken off the list.
Json without_defaults(const Kind& kind, const Json& live, std::vector<Manager>& managers) {
    FieldSet gone, others;
    for (const auto& m : managers) (m.name == defaults_manager && m.subresource.empty() ? gone : others).add(m.fields);
    std::erase_if(managers, [](const Manager& m) { return m.name == defaults_manager && m.subresource.empty(); });
    const auto owned = gone;
    gone.remove(others);
    shield(gone, others);
    Json out = live;
    resources::remove_fields(out, gone, kind.schema);
    if (const auto spec = owned.children.find("f:spec"); spec != owned.children.end() && out.contains("spec")) drop_orphaned_defaults(out["spec"], spec->second, others.children["f:spec"]);
    return out;
}

Failure conflict_of(const Kind& kind, const std::vector<std::pair<const Manager*, FieldSet>>& conflicts) {
    Json causes = Json::array();
    std::size_t count = 0;
    std::string text, single;
    for (const auto& [manager, fields] : conflicts) {
        const auto who = fmt::format("\"{}\"{} using {}", manager->name, manager->subresource.empty() ? "" : fmt::format(" with subresource \"{}\"", manager->subresource), manager->api_version);
        // In one line: whoever shows or logs it escapes what ends a line.
        text += fmt::format("{}conflicts with {}", text.empty() ? "" : "; ", who);
        const char* before = ": ";
        for (const auto& path : fields.paths()) {
            ++count;
            causes.push_back({{"reason", "FieldManagerConflict"}, {"message", "conflict with " + who}, {"field", path}});
            text += std::exchange(before, "; ") + path;
            single = fmt::format("conflict with {}: {}", who, path);
        }
    }
    return {.code = 409, .reason = "Conflict", .message = count == 1 ? fmt::format("Apply failed with 1 conflict: {}", single) : fmt::format("Apply failed with {} conflicts: {}", count, text),
            .details = {{"kind", kind.plural}, {"group", kind.group}, {"causes", causes}}};
}

}  // namespace

Result<std::vector<Manager>> read_managers(const Json& object) {
    std::vector<Manager> out;
    const auto& list = at_path(object, "metadata.managedFields");
    if (list.is_null()) return out;
    if (!list.is_array()) return fail("metadata.managedFields: must be a list");
    for (std::size_t i = 0; i < list.size(); ++i) {
        const auto& entry = list[i];
        if (entry.is_object() && entry.empty()) continue;
        const auto operation = text_at(entry, "operation");
        if (operation != "Apply" && operation != "Update") return fail(fmt::format("metadata.managedFields[{}].operation: must be `Apply` or `Update`", i));
        if (text_at(entry, "fieldsType", "FieldsV1") != "FieldsV1") return fail(fmt::format("metadata.managedFields[{}].fieldsType: must be `FieldsV1`", i));
        const auto& fields = at_path(entry, "fieldsV1");
        auto set = fields.is_null() ? Result<FieldSet>(FieldSet()) : FieldSet::from_json(fields);
        if (!set) return fail(fmt::format("metadata.managedFields[{}].{}", i, set.error().message));
        out.push_back({.name = text_at(entry, "manager"), .applies = operation == "Apply", .api_version = text_at(entry, "apiVersion"), .time = text_at(entry, "time"),
                       .subresource = text_at(entry, "subresource"), .fields = std::move(*set)});
    }
    return out;
}

void write_managers(Json& object, const std::vector<Manager>& managers) {
    if (managers.empty()) {
        object["metadata"].erase("managedFields");
        return;
    }
    Json list = Json::array();
    for (const auto& m : managers) {
        Json entry = {{"manager", m.name}, {"operation", m.applies ? "Apply" : "Update"}, {"apiVersion", m.api_version}, {"time", m.time}, {"fieldsType", "FieldsV1"}, {"fieldsV1", m.fields.to_json()}};
        if (!m.subresource.empty()) entry["subresource"] = m.subresource;
        list.push_back(std::move(entry));
    }
    object["metadata"]["managedFields"] = std::move(list);
}

namespace {

constexpr std::string_view controllers_manager = "penstock-broker";

bool owns_owners_alone(const resources::FieldSet& fields) {
    const auto json = fields.to_json();
    const auto metadata = json.find("f:metadata");
    if (json.size() != 1 || metadata == json.end()) return false;
    for (const auto& [name, below] : metadata->items())
        if (name != "f:ownerReferences" && name != ".") return false;
    return true;
}

}  // namespace

bool is_untouched_default(const Json& object) {
    const auto managers = read_managers(object);
    if (!managers) return false;
    bool found = false;
    for (const auto& m : *managers) {
        if (!m.subresource.empty()) continue;
        if (m.name == controllers_manager && owns_owners_alone(m.fields)) continue;   // a listener is marked as its Broker's at once
        if (m.name != defaults_manager) return false;
        found = true;
    }
    return found;
}

void adopt_as_default(Json& object, std::string_view from) {
    auto managers = read_managers(object);
    if (!managers) return;
    Manager* own = nullptr;
    for (auto& m : *managers) {
        if (!m.subresource.empty()) continue;
        if (m.name != from || m.applies) return;
        own = &m;
    }
    if (own == nullptr) return;
    own->name = defaults_manager;
    own->applies = true;
    write_managers(object, *managers);
}

void track_update(const Kind& kind, const Json& before, Json& after, const Writer& writer) {
    const auto changed = FieldSet::changed(before, after, kind.schema);
    const auto live = FieldSet::of(after, kind.schema);
    auto managers = read_managers(after).value_or(std::vector<Manager>());
    const auto was = managers.size();
    bool dirty = false;
    if (!changed.empty()) {
        auto& own = manager_of(managers, kind, writer, false);
        auto grown = own.fields;
        grown.add(changed);
        if (grown != own.fields) {
            own.fields = std::move(grown);
            own.time = rfc3339(wall_ms());
            dirty = true;
        }
    }
    for (auto& m : managers) {
        auto kept = m.fields;
        const bool is_own = m.name == writer.manager && !m.applies && m.api_version == kind.api_version() && m.subresource == writer.subresource;
        if (!is_own) kept.remove(changed);
        kept = kept.common_with(live);
        if (kept != m.fields) {
            m.fields = std::move(kept);
            dirty = true;
        }
    }
    tidy(managers);
    if (dirty || managers.size() != was || managers.empty()) write_managers(after, managers);
}

namespace {

/// See apply_configuration(); words of enumerations that differ in case are different ones here.
Answer<Json> apply_as_written(const Kind& kind, const std::string& name, const Json& live,
                              const Json& applied, const Writer& writer) {
    const auto& schema = kind.schema;
    if (auto good = resources::check_applied(applied, schema); !good) return std::unexpected(invalid(kind, name, {{"", "FieldValueInvalid", good.error().message}}));
    auto wanted = FieldSet::of(applied, schema);
    if (kind.has_status) wanted = wanted.status_part(writer.subresource == "status");
    auto read = read_managers(live);
    if (!read) return std::unexpected(bad_request(read.error().message));
    auto& managers = *read;
    const Json base = writer.replaces_defaults ? without_defaults(kind, live, managers) : live;
    manager_of(managers, kind, writer, true);
    auto merged = resources::merge_applied(base, applied, schema);
    const auto changed = FieldSet::changed(base, merged, schema);

    std::vector<std::pair<const Manager*, FieldSet>> conflicts;
    FieldSet all_conflicts, yielded, others;
    for (const auto& m : managers) {
        if (m.name == writer.manager && m.applies && m.subresource == writer.subresource) continue;
        others.add(m.fields);
        auto disputed = m.fields.common_with(wanted).common_with(changed);
        if (disputed.empty()) continue;
        if (m.name == defaults_manager) {
            yielded.add(disputed);
            continue;
        }
        all_conflicts.add(disputed);
        conflicts.emplace_back(&m, std::move(disputed));
    }
    const bool forgiven = writer.force || (!conflicts.empty() && writer.manager == "kubectl" && was_applied_by_kubectl(live, all_conflicts, schema));
    if (!conflicts.empty() && !forgiven) return std::unexpected(conflict_of(kind, conflicts));

    auto& own = manager_of(managers, kind, writer, true);
    auto gone = own.fields;
    gone.remove(wanted);
    gone.remove(others);
    shield(gone, others);
    shield(gone, wanted);
    resources::remove_fields(merged, gone, schema);
    if (const auto spec = gone.children.find("f:spec"); !kind.built_in && spec != gone.children.end() && merged.contains("spec")) {
        auto kept = others;
        kept.add(wanted);
        drop_orphaned_defaults(merged["spec"], spec->second, kept.children["f:spec"]);
    }
    const bool same = own.fields == wanted;
    own.fields = wanted;
    if (!same || merged != live) own.time = rfc3339(wall_ms());
    const auto left = FieldSet::of(merged, schema);
    for (auto& m : managers) {
        if (&m == &own) continue;
        m.fields.remove(all_conflicts);
        m.fields.remove(yielded);
        m.fields = m.fields.common_with(left);
    }
    tidy(managers);
    write_managers(merged, managers);
    return merged;
}

}  // namespace

Answer<Json> apply_configuration(const Kind& kind, const std::string& name, const Json& live,
                                 const Json& applied, const Writer& writer) {
    auto merged = apply_as_written(kind, name, live, applied, writer);
    if (merged || merged.error().code != 409) return merged;
    // A word of an enumeration in another case says the same as what is there: nothing to quarrel about.
    auto same = applied;
    if (!resources::adopt_spelling(kind, live, same)) return merged;
    return apply_as_written(kind, name, live, same, writer);
}

}  // namespace penstock::registry
