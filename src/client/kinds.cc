#include "client/kinds.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::client {

using resources::Kind;
using resources::text_at;

Result<const std::vector<Kind>*> Kinds::ask() {
    auto found = discover(client_);
    if (!found) return std::unexpected(found.error());
    answers_.push_back(std::make_unique<const std::vector<Kind>>(std::move(*found)));
    return answers_.back().get();
}

Result<const std::vector<Kind>*> Kinds::all() { return answers_.empty() ? ask() : answers_.back().get(); }

Result<const Kind*> Kinds::by_word(std::string_view word) {
    if (const auto* kind = resources::find_kind_by_word(word)) return kind;
    if (!answers_.empty())
        if (const auto* kind = resources::find_kind_by_word(word, *answers_.back())) return kind;
    // Definitions come and go: asked anew for what is not known.
    const auto served = ask();
    if (!served) return std::unexpected(served.error());
    if (const auto* kind = resources::find_kind_by_word(word, **served)) return kind;
    std::vector<std::string> names;
    for (const auto& k : **served) names.push_back(k.plural);
    const auto near = nearest(word, names);
    return fail(fmt::format("the server doesn't have a resource type \"{}\"{}", resources::shortened(word), near.empty() ? "" : fmt::format("; did you mean {}?", near)));
}

Result<const Kind*> Kinds::of_object(const resources::Json& object) {
    const auto api_version = text_at(object, "apiVersion"), name = text_at(object, "kind");
    if (api_version.empty()) return fail("apiVersion: Required value: for example mqttbroker.iotoperations.azure.com/v1");
    if (name.empty()) return fail("kind: Required value: for example BrokerListener");
    if (const auto* kind = resources::find_kind(api_version, name)) return kind;
    if (!answers_.empty())
        for (const auto& k : *answers_.back())
            if (k.kind == name && k.api_version() == api_version) return &k;
    const auto served = ask();
    if (!served) return std::unexpected(served.error());
    std::string known;
    std::vector<std::string> names;
    for (const auto& k : **served) {
        if (k.kind == name && k.api_version() == api_version) return &k;
        names.push_back(k.kind);
        // Those that are known and never taken are no help.
        if (resources::workload_kind(k.api_version(), k.kind) != nullptr) continue;
        known += fmt::format("{}{} {}", known.empty() ? "" : ", ", k.api_version(), k.kind);
    }
    for (const auto& k : **served)
        if (k.kind == name) return fail(fmt::format("apiVersion: \"{}\" does not have kind {}; it is served as {}", resources::shortened(api_version), name, k.api_version()));
    const auto near = nearest(name, names);
    return fail(fmt::format("kind: \"{}\" of {} is not served{}; served are: {}", resources::shortened(name), resources::shortened(api_version), near.empty() ? "" : fmt::format(" (did you mean {}?)", near), known));
}

}  // namespace penstock::client
