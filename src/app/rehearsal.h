#pragma once
#include <string>
#include <vector>

#include "resources/json.h"

namespace penstock::app {

/// What came of a rehearsal; each line begins with the document's place (`file: document 2 (line 14): ...`).
struct Rehearsal {
    /// What `penstock run` refuses, or what it takes and can never use: a port that does not open, a certificate that
    /// cannot be issued. The path of the field and what would be right.
    std::vector<std::string> faults;
    /// What is taken and may not be what was meant, and what must come from elsewhere.
    std::vector<std::string> notes;
};

/// Carries documents out as `penstock run -f` does, by the same code, on a resource API in memory that is gone afterwards:
/// its handler, registry and rules, then what the controllers make of Secrets, ConfigMaps and resources that name them.
/// Nothing is opened, no disk and no network is touched. Blocks.
Rehearsal rehearse(const std::vector<resources::Document>& documents);

}   // namespace penstock::app
