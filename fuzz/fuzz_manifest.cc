// Manifests: YAML and JSON in, validated, defaulted, written again and read as the same.
#include <cstdint>

#include "resources/schema.h"
#include "resources/text_rules.h"

using namespace penstock::resources;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(static_cast<const char*>(static_cast<const void*>(data)), size);
    const auto documents = parse_documents(text, "fuzz");
    if (!documents) return 0;
    for (const auto& document : *documents) {
        for (const auto& kind : all_kinds()) {
            auto object = document.object;
            [[maybe_unused]] const auto unknown = prune_unknown(kind, object);
            apply_defaults(kind, object);
            [[maybe_unused]] const auto faults = validate(kind, object);
            [[maybe_unused]] const auto no_effect = notes(kind, object, 2);
        }
        if (brief(document.object).size() > 300) __builtin_trap();
        const auto yaml = to_yaml(document.object);
        if (yaml.size() > manifest_bytes_max) continue;   // aliases, each written out
        const auto again = parse_documents(yaml, "fuzz");
        if (!again || again->size() != 1 || again->front().object != document.object) __builtin_trap();
    }
    return 0;
}
