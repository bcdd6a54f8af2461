#include "control/state_keys.h"

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::control {

Result<store::KeyRing> state_keys(const StatePlace& place, bool seal, const std::string& rotation) {
    auto ring = store::KeyRing::read(place.key_file);
    if (!ring || !seal) return ring;
    if (place.keys_are_given) {
        if (ring->keys.empty()) return fail(fmt::format("{}: has no key; a line is NUMBER KEY LABEL, where the key is 32 bytes in base64 (openssl rand -base64 32)", place.key_file));
        return ring;
    }
    if (!ring->keys.empty() && (rotation.empty() || ring->keys.back().label == rotation)) return ring;
    ring->add(rotation);
    if (auto written = ring->write(place.key_file); !written) return std::unexpected(written.error());
    log::info("control", "the broker's state has a new key number={} label=\"{}\" file={}", ring->keys.back().id, rotation, place.key_file);
    return ring;
}

Result<std::size_t> drop_state_keys(const StatePlace& place, store::KeyRing& ring, const store::Durable::Figures& figures, bool seal) {
    if (!seal || place.keys_are_given || ring.keys.size() < 2 || figures.files == 0 || figures.files_to_rewrite > 0 || !figures.rewriting_fault.empty()) return 0;
    const auto gone = ring.keys.size() - 1;
    ring.keys.erase(ring.keys.begin(), ring.keys.end() - 1);
    if (auto written = ring.write(place.key_file); !written) return std::unexpected(written.error());
    log::info("control", "all of the broker's state has the new key, the old one is gone number={}", ring.keys.back().id);
    return gone;
}

}  // namespace penstock::control
