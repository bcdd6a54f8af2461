#pragma once
#include "resources/json.h"

namespace penstock::app {

/// What was built, in the form of Kubernetes' version.Info: `gitVersion` (`v` and the version), `gitCommit`, `gitTreeState`
/// (`clean`, `dirty`, `archive` without git), `buildDate` (of the commit, so that two builds of one tree are the
/// same; RFC 3339), `compiler`, `platform` (`linux/amd64`).
resources::Json build_info();

}   // namespace penstock::app
