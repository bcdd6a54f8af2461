#pragma once
#include "registry/registry.h"

namespace penstock::app {

/// The embedded defaults where they are missing: a Broker, the authentication of its default listener, and
/// `with_listener` that listener (fact sheet 3.7). They yield to files and people (`Registry::seed`).
void create_defaults(registry::Registry& registry, bool with_listener);

}   // namespace penstock::app
