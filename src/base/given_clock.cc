#include "base/given_clock.h"

#include "base/clock.h"

namespace penstock {

Clock machine_clock() { return {penstock::wall_ms, penstock::monotonic_ns}; }

}  // namespace penstock
