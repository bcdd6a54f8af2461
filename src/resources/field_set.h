#pragma once
#include <map>
#include <string>
#include <vector>

#include "resources/json.h"

namespace penstock::resources {

/// A set of field paths, as `fieldsV1` of managedFields writes it: a tree whose steps are `f:NAME` (a field), `k:{...}` (an
/// item of a keyed list) and `v:VALUE` (an element of a set). A path is in the set when its node is a member.
/// Core: any thread; a value type.
class FieldSet {
  public:
    /// The paths that `object` gives values to, by the rules of the kind's schema: maps and keyed lists are walked, other
    /// lists and scalars are one path. What belongs to the server (apiVersion, kind, name, uid, ...) is left out.
    static FieldSet of(const Json& object, const Json& schema);
    /// Paths whose value differs between the two, or exists only in the second.
    static FieldSet changed(const Json& before, const Json& after, const Json& schema);
    static Result<FieldSet> from_json(const Json& fields_v1);
    [[nodiscard]] Json to_json() const;

    [[nodiscard]] bool empty() const;
    bool operator==(const FieldSet&) const = default;
    void add(const FieldSet& other);
    void remove(const FieldSet& other);
    [[nodiscard]] FieldSet common_with(const FieldSet& other) const;
    /// `.spec.ports[port=8883].protocol`, in order; the first 100, long keys and values shortened.
    [[nodiscard]] std::vector<std::string> paths() const;
    /// Keeps only paths under `f:status` (or only those outside it).
    [[nodiscard]] FieldSet status_part(bool inside) const;

    bool member = false;
    std::map<std::string, FieldSet> children;
};

/// Server-side apply, the values: `applied` laid over `live` (maps and keyed lists by their parts, sets united).
Json merge_applied(const Json& live, const Json& applied, const Json& schema);
/// Takes the paths of `gone` out of `object`; a keyed item as a whole when its own path is among them.
void remove_fields(Json& object, const FieldSet& gone, const Json& schema);
/// Faults of an applied configuration that make its paths ambiguous: keyed items without their key, or twice the same.
Result<void> check_applied(const Json& applied, const Json& schema);

}  // namespace penstock::resources
