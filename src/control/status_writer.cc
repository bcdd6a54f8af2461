#include "control/status_writer.h"

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

void StatusWriter::write(const resources::Kind& kind, const Json& looked_at,
                         const Objects::MakeStatus& make) {
    const auto space = text_at(looked_at, "metadata.namespace"), name = text_at(looked_at, "metadata.name");
    const auto done = objects_.put_status(
        kind, space, name,
        [&](const Json& current) {
            auto status = make(current);
            if (status && status->contains("observedGeneration"))
                (*status)["observedGeneration"] = at_path(looked_at, "metadata.generation");
            return status;
        },
        broker_manager);
    const auto what = fmt::format("{} {}/{}", kind.kind, space, name);
    if (done) return troubles_.succeeded(what);
    if (troubles_.failed(what, done.error(), clock_.monotonic_ms()))
        log::warn("control", "a status is not written; it is tried again kind={} object={}/{} why=\"{}\"{}",
                  kind.kind, space, name, done.error().message, done.error().code == 403 ? rights_cure : "");
}

void StatusWriter::write_basic(const resources::Kind& kind, const Json& looked_at, const StatusText& text) {
    write(kind, looked_at, [&](const Json& current) {
        return basic_status(current, text.runtime, text.description,
                            with_times(current, text.health, clock_.wall_ms()));
    });
}

}  // namespace penstock::control
