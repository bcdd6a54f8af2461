#pragma once
#include <cstdint>
#include <string_view>

namespace penstock::topics {

/// Levels of one topic name or filter. Bounds the depth of every tree walk.
inline constexpr std::size_t levels_max = 201;

/// Topic name of a PUBLISH: 1..65,535 bytes, no wildcard, at most levels_max levels. UTF-8 was checked by the decoder.
/// Spec: MQTT 5.0 §4.7.1, §4.7.3; [MQTT-3.3.2-2], [MQTT-4.7.3-1].
bool is_valid_name(std::string_view topic) noexcept;

/// A topic filter by the specification: at least one character, wildcards only as whole levels, `#` only last.
/// Spec: [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1].
bool is_well_formed_filter(std::string_view filter) noexcept;
/// A well-formed filter that this server takes: at most levels_max levels.
bool is_valid_filter(std::string_view filter) noexcept;

bool has_wildcard(std::string_view filter) noexcept;

/// `$share/<group>/<filter>` cut into its parts, §4.8.2.
struct SharedFilter {
    bool is_shared = false;
    bool is_valid = true;            ///< false: group empty or with a wildcard, or no filter [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    std::string_view group;
    std::string_view filter;         ///< what is matched; the whole text when not shared
};
SharedFilter split_shared(std::string_view text) noexcept;

/// One filter against one topic, without an index. Spec: §4.7; `$` topics are not matched by a leading wildcard [MQTT-4.7.2-1].
bool matches(std::string_view filter, std::string_view topic) noexcept;

/// Every topic that `filter` matches is matched by `allowed` too.
bool covers(std::string_view allowed, std::string_view filter) noexcept;

/// The next level of `rest`, which is shortened; `more` tells whether a separator followed.
std::string_view take_level(std::string_view& rest, bool& more) noexcept;

}  // namespace penstock::topics
