#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "resources/json.h"

namespace penstock::resources {

// What an unquoted word of YAML means. The one place that knows: files are read by it, and what is written is
// quoted by it.

enum class WordType : std::uint8_t { text, nothing, boolean, integer, real, timestamp, merge };
struct Word {
    WordType type = WordType::text;
    Json value;                          ///< of nothing, boolean, integer and real (which may be infinite or no number)
};

/// YAML 1.1 as kubectl's parser takes it: `yes`, `on`, `0o17`, `017`, `0x1f`, `0b11`, `1_000`, `1e3`, `.inf`,
/// `~`, `<<`. Times stay texts, and so do numbers of base 60 and numbers beyond a double's range.
Word word_of(std::string_view text);
/// A time in one of the forms that kubectl's parser knows.
bool is_yaml_time(std::string_view text);
/// Whether some reader of YAML 1.1 or 1.2 takes the unquoted word for anything but a text.
bool may_be_typed(std::string_view text);
/// What kubectl makes of a real number that is a key: `1.5`, `1e+06`.
std::string real_key(double value);

}  // namespace penstock::resources
