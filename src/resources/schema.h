#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "resources/json.h"

namespace penstock::resources {

enum class Type : std::uint8_t { object, array, map, string, integer, number, boolean, int_or_string, any };

/// One field of a kind: the only place where its name, type, bounds, default and meaning are written down. Validation,
/// defaulting, OpenAPI and the reference page are made from it.
struct Field {
    std::string name;
    Type type = Type::object;
    std::string doc;
    bool required = false;
    std::optional<std::int64_t> minimum, maximum;
    std::vector<std::string> values;             ///< canonical enumeration values; matched without regard to case
    std::string pattern;                         ///< of RE2's syntax, for the whole text
    std::string pattern_hint;                    ///< what the pattern means, for the message
    Json default_value;                          ///< written back when the parent object exists; null: none
    std::vector<Field> fields;                   ///< of an object
    std::vector<Field> items;                    ///< one entry: the shape of an array's items or a map's values
    std::size_t items_min = 0;
    std::size_t items_max = 0;                   ///< of a list or map; 0: by what it holds, see `items_bound`
    std::size_t length_max = 0;                  ///< characters of a text; 0: `text_length_max`
    std::string list_key;                        ///< items are unique by this field; it is also their key in patches
    std::vector<std::string> map_keys;           ///< keys of an item for server-side apply, where there is more than one
    bool is_set = false;                         ///< a list of texts without order or repetition
    bool is_atomic = false;                      ///< owned and replaced as a whole
    std::string note;                            ///< not empty: the field is taken without effect on one machine; why
};

// What a value may hold where its field says nothing else: MQTT's own bound of a text, and no list that one body cannot carry.
inline constexpr std::size_t text_length_max = 65'535;
inline constexpr std::size_t texts_max = 100'000, objects_max = 10'000;
inline constexpr std::size_t map_key_length_max = 1024;
/// Levels of arrays and objects in an object that is stored, its managedFields (which mirror them) left out.
inline constexpr std::size_t object_depth_max = 90;
/// Faults that one check tells; those beyond are counted only.
inline constexpr std::size_t faults_max = 100;
/// Characters that a text of the field may have; 0 for a field that is no text.
std::size_t length_bound(const Field& field);
/// Items of a list or entries of a map; 0 for a field that is neither.
std::size_t items_bound(const Field& field);

struct Column {
    std::string name;
    std::string path;                            ///< dotted path into the object
    std::string type = "string";                 ///< `string`, `integer` or `date`
    int priority = 0;                            ///< above 0: only with -o wide
    std::string doc;
};

struct Kind {
    std::string group;                           ///< empty for the core group
    std::string version;
    std::string kind;
    std::string plural;
    std::string singular;
    std::vector<std::string> short_names;
    std::vector<std::string> categories;
    bool namespaced = true;
    bool has_status = true;                      ///< status is a subresource of its own
    bool built_in = false;                       ///< a kind of Kubernetes itself: strategic merge, unconditional update, no generation
    bool dynamic = false;                        ///< declared by a CustomResourceDefinition: `schema` counts, `fields` are empty
    bool read_only = false;                      ///< written by Penstock alone
    std::string kept_version;                    ///< not empty: an earlier version; objects are kept as this one (versions.h)
    std::string deprecation;                     ///< not empty: told to whoever uses this version
    std::string refusal;                         ///< not empty: known and never kept; why (versions.h)
    bool stored = true;                          ///< false: only asked (reviews), never kept
    std::string doc;
    std::vector<Field> fields;                   ///< top level, without apiVersion, kind, metadata, status
    std::vector<Column> columns;                 ///< between Name and Age
    std::vector<std::string> selectable;         ///< fields that a fieldSelector may name beyond metadata.name and metadata.namespace
    Json schema;                                 ///< OpenAPI v3, made from the fields (or taken from the definition), metadata included

    [[nodiscard]] std::string api_version() const { return group.empty() ? version : group + "/" + version; }
    /// `brokers.mqttbroker.iotoperations.azure.com`, as in error messages.
    [[nodiscard]] std::string qualified_plural() const { return group.empty() ? plural : plural + "." + group; }
    [[nodiscard]] std::string qualified_kind() const { return group.empty() ? kind : kind + "." + group; }
};

/// One fault of an object, with the reason word of the Kubernetes API.
struct Fault {
    std::string path;
    std::string reason;                          ///< FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, ...
    std::string message;
};

/// All kinds this build declares, each in the version that is kept; earlier versions are in versions.h, those of CustomResourceDefinitions are known to the registry.
const std::vector<Kind>& all_kinds();
/// The verbs discovery shows for the kind.
std::vector<std::string> verbs_of(const Kind& kind);
/// Of any version; null when unknown.
const Kind* find_kind(std::string_view api_version, std::string_view kind);
/// By plural, singular, short name or kind, with or without `.group`; any case.
const Kind* find_kind_by_word(std::string_view word);
const Kind* find_kind_by_word(std::string_view word, const std::vector<Kind>& among);

/// The faults of an object against its declaration, `faults_max` at most; names, types, bounds, enumerations, duplicate list keys.
/// Every text and list has a bound; see `length_bound` and `items_bound`.
std::vector<Fault> validate(const Kind& kind, const Json& object);
/// Removes the fields that the declaration does not know and names their paths, with the nearest known name in the message.
std::vector<Fault> prune_unknown(const Kind& kind, Json& object);
/// Writes defaults into the object where their parents exist. False: they would make more than `defaults_bytes_max` of it, and
/// the object is in no certain state.
bool apply_defaults(const Kind& kind, Json& object);
inline constexpr std::size_t defaults_bytes_max = 4 * 1024 * 1024;
/// Fields the object sets that act less than they say on a machine of so many cores, and why: `NoEffect`,
/// `Capped`, `NotKept`, or `UnknownName` (some of the names in it are nobody's).
std::vector<Fault> notes(const Kind& kind, const Json& object, unsigned cores);
/// The canonical spelling of an enumeration value; the text itself when it is none of them.
std::string canonical(const std::vector<std::string>& values, std::string_view text);
/// Gives words of enumerations in `object` the spelling that they have in `like`, an object of the same
/// kind, where they differ in case alone. True: something changed.
bool adopt_spelling(const Kind& kind, const Json& like, Json& object);
/// The canonical spelling of `text`, which stands at a dotted path of the kind's objects; the text itself
/// where that is no enumeration.
std::string canonical_at(const Kind& kind, std::string_view path, const std::string& text);
/// OpenAPI v3 schema of a kind that is declared by fields.
Json schema_from_fields(const Kind& kind);
/// The CustomResourceDefinition (apiextensions.k8s.io/v1) with which a cluster serves the kind.
Json definition_of(const Kind& kind);
/// The reference page in Markdown.
std::string reference_page(const Kind& kind);

}  // namespace penstock::resources
