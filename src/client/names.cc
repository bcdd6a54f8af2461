#include "client/names.h"

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"

namespace penstock::client {

using resources::at_path;
using resources::Json;

namespace {

constexpr std::size_t name_max = 253;   // no object has a longer one, and in a path it would be quoted whole

Result<void> check_field(const char* field, const std::string& text) {
    if (text.size() > name_max)
        return fail(fmt::format("{}: Invalid value: \"{}\": at most {} bytes", field,
                                resources::shortened(text), name_max));
    const auto good = check_name(text);
    return good ? good : fail(fmt::format("{}: Invalid value: {}", field, good.error().message));
}

}  // namespace

Result<void> check_name(const std::string& name) {
    if (name.empty()) return fail("a name is empty: write one behind the kind");
    if (name == "." || name == ".." || name.find_first_of("/%") != std::string::npos)
        return fail(fmt::format("\"{}\" is no name of an object: it may not be '.' or '..' "
                                "and may not contain '/' or '%'",
                                printable(clipped(name, 100))));
    return {};
}

std::string namespace_of(const Json& object, const std::string& fallback) {
    auto out = resources::text_at(object, "metadata.namespace");
    return out.empty() ? fallback : out;
}

Result<void> check_names(const Json& object, bool namespaced, const std::string& fallback) {
    const auto& name = at_path(object, "metadata.name");
    auto no_text = [](const char* field, const Json& value) {
        return fail(fmt::format("{}: Invalid value: {}: must be of type string", field,
                                resources::brief(value)));
    };
    if (name.is_null() || name == "") return fail("metadata.name: Required value: the name of the object");
    if (!name.is_string()) return no_text("metadata.name", name);
    if (auto good = check_field("metadata.name", name.get<std::string>()); !good || !namespaced) return good;
    const auto& space = at_path(object, "metadata.namespace");
    if (!space.is_null() && !space.is_string()) return no_text("metadata.namespace", space);
    const auto text = namespace_of(object, fallback);
    return text.empty() ? Result<void>() : check_field("metadata.namespace", text);
}

}  // namespace penstock::client
