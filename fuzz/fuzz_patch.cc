// Patches and ownership against their definitions: a live object and a configuration from the input, merged strategically
// and by server-side apply; and the protobuf decoder.
#include <cstdint>

#include "registry/ownership.h"
#include "resources/merge.h"
#include "resources/protobuf.h"
#include "resources/text_rules.h"

using namespace penstock;
using resources::Json;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(static_cast<const char*>(static_cast<const void*>(data)), size);
    bool unknown = false;
    if (const auto decoded = resources::decode_protobuf(text, unknown); decoded)
        if (const auto again = resources::encode_protobuf(*decoded); again && !resources::decode_protobuf(*again, unknown)) __builtin_trap();
    const auto cut = text.find('\n');
    if (cut == std::string_view::npos) return 0;
    const auto live = resources::parse_json(text.substr(0, cut)), wanted = resources::parse_json(text.substr(cut + 1));
    if (live && wanted && wanted->is_array()) {
        auto patched = *live;
        if (resources::json_patch(patched, *wanted) && resources::depth_of(patched, 1000) > static_cast<std::size_t>(resources::sent_depth_max)) __builtin_trap();
    }
    if (!live || !wanted || !live->is_object() || !wanted->is_object()) return 0;
    for (const char* name : {"Service", "Pod"}) {
        const auto& kind = *resources::find_kind("v1", name);
        auto merged = *live;
        [[maybe_unused]] const auto strategic = resources::strategic_patch(merged, *wanted, kind.schema);
        auto managed = *live;
        if (!managed["metadata"].is_object()) managed["metadata"] = Json::object();
        const registry::Writer one{.manager = "one", .subresource = {}, .force = true};
        const auto first = registry::apply_configuration(kind, "x", managed, *wanted, one);
        if (!first) continue;
        // Applying the same again changes nothing.
        const auto second = registry::apply_configuration(kind, "x", *first, *wanted, one);
        if (!second || *second != *first) __builtin_trap();
        // The fields written are owned.
        const auto managers = registry::read_managers(*first);
        if (!managers) __builtin_trap();
        const auto json = resources::FieldSet::of(*wanted, kind.schema).to_json();
        const auto set = resources::FieldSet::from_json(json);
        if (!set || set->to_json() != json) __builtin_trap();
    }
    return 0;
}
