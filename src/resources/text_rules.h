#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "resources/json.h"

namespace penstock::resources {

// Checks of texts that users write. Each takes time linear in the text and a bounded stack, whatever the text is; nothing here
// backtracks or calls itself once per character.

/// RFC 1123 label: a-z, 0-9 and `-`, begins and ends with a letter or digit, 1 to 63 characters.
bool is_dns_label(std::string_view text);
/// RFC 1123 subdomain: labels (of any length) with dots between them, at most 253 characters.
bool is_dns_subdomain(std::string_view text);
/// A label's value that is not empty: letters, digits, `-`, `_`, `.`; begins and ends with a letter or digit; at most 63.
bool is_label_word(std::string_view text);
/// A label's or annotation's key: a word with an optional DNS subdomain and `/` before it.
bool is_qualified_name(std::string_view text);
/// Characters of a text in UTF-8; what `maxLength` of a schema counts.
std::size_t code_points(std::string_view text);

enum class Match : std::uint8_t { yes, no, no_pattern };
/// Whether the whole text matches a pattern of RE2's syntax. A pattern longer than `pattern_bytes_max`, or one that would need more
/// than 1 MiB, is none. Compiled once per thread; the cache is bounded.
Match matches_whole(const std::string& pattern, std::string_view text);
/// Whether the pattern occurs in the text, as `pattern` of a JSON schema means it.
Match occurs(const std::string& pattern, std::string_view text);
bool is_pattern(const std::string& pattern);
inline constexpr std::size_t pattern_bytes_max = 1024;

/// A text for a message: the first 200 bytes, cut between characters, with the full size behind it when it was cut.
std::string shortened(std::string_view text);
/// A value for a message, as JSON of at most 200 bytes; takes time by what it shows, not by what the value holds.
std::string brief(const Json& value);
/// `PATH.KEY`, with the key shortened: paths stay short whatever keys a user chose.
std::string member_path(const std::string& path, std::string_view key);
/// `PATH[KEY]`, for a map's keys.
std::string entry_path(const std::string& path, std::string_view key);

/// Levels of arrays and objects; counting ends at `limit`. A text is 0, `[]` is 1.
std::size_t depth_of(const Json& value, std::size_t limit);
/// Values in a tree; counting ends above `limit`.
std::size_t values_of(const Json& value, std::size_t limit);

}  // namespace penstock::resources
