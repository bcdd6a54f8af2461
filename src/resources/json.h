#pragma once
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::resources {

using Json = nlohmann::json;

/// One resource object found in a file.
struct Document {
    Json object;
    std::string file;
    int index = 0;                       ///< 1 for the first document of the file
    int line = 0;                        ///< where it begins
};

/// Parses any number of YAML (or JSON) documents; empty ones are skipped, `kind: List` is unfolded.
/// The error names file, line and column. Bounds of one text: 16 MiB, 10,000 documents, 500,000 values and 64 MiB of texts with
/// aliases counted each time they are used, 100 levels.
Result<std::vector<Document>> parse_documents(std::string_view text, const std::string& file);
inline constexpr std::size_t manifest_bytes_max = 16 * 1024 * 1024;
/// Levels of a JSON text that somebody sends, and of one that Penstock wrote itself: an object with its managedFields, in a list.
inline constexpr int sent_depth_max = 100, written_depth_max = 220;
Result<Json> parse_json(std::string_view text, int depth_max = sent_depth_max);
/// Paths of keys that occur twice in one object of a JSON text: `spec.ports[0].port`, 100 at most. Empty for a text that is no JSON.
std::vector<std::string> duplicate_fields(std::string_view json);
/// Block-style YAML, as kubectl prints it.
std::string to_yaml(const Json& value);
/// The value with each of its texts as penstock::printable writes them; keys stay.
Json printable_texts(Json value);
/// Value at a dotted path such as `spec.ports`, or null when absent.
const Json& at_path(const Json& object, std::string_view path);
/// The texts of a list; empty when it is none.
std::vector<std::string> texts_of(const Json& list);
/// Integer or flag of a member, whatever type the object and the member have: `fallback` when it is absent or none.
int integer_of(const Json& object, std::string_view key, int fallback = 0);
bool flag_of(const Json& object, std::string_view key, bool fallback = false);
/// Text at a path, or `fallback` when absent or no text.
std::string text_at(const Json& object, std::string_view path, std::string fallback = {});

}  // namespace penstock::resources
