#include "control/state_keys.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "store/sealed_files.h"

namespace penstock::control {

namespace {

/// Of the keys in use one is not in the ring, or is another one there.
bool lacks(const store::KeyRing& ring, const store::KeyRing& in_use) {
    return std::ranges::any_of(in_use.keys, [&](const auto& key) {
        const auto* found = ring.find(key.id);
        return found == nullptr || found->bytes != key.bytes;
    });
}

}  // namespace

Result<store::KeyRing> state_keys(const StatePlace& place, bool seal, const std::string& rotation, const store::KeyRing& in_use) {
    if (place.data && !place.keys_are_given)
        if (auto there = place.data->ready(); !there) return std::unexpected(there.error());
    auto ring = store::KeyRing::read(place.key_file);
    // What is on the disk under these keys could not be read without them, and a new one would take the number of an old one.
    if (!place.keys_are_given && (!ring || lacks(*ring, in_use)) && !in_use.keys.empty()) {
        if (auto written = in_use.write(place.key_file); !written) return std::unexpected(written.error());
        log::error("control", "the file of the keys of the broker's state was deleted or changed; it is written anew with the keys in use file={} why=\"{}\"", place.key_file, ring ? "a key is missing" : ring.error().message);
        ring = in_use;
    }
    if (!ring || !seal) return ring;
    if (place.keys_are_given) {
        if (ring->keys.empty()) return fail(fmt::format("{}: has no key; a line is NUMBER KEY LABEL, where the key is 32 bytes in base64 (openssl rand -base64 32)", place.key_file));
        return ring;
    }
    if (!ring->keys.empty() && (rotation.empty() || ring->keys.back().label == rotation)) return ring;
    // A key is lost, or its file damaged, where something is sealed that the ring does not open: no new one may take its place.
    const auto files = store::SealedFiles::make(nullptr);
    files->set(*ring, seal);
    if (const auto opens = files->census(place.folder); !opens) return fail(fmt::format("{} ({})", opens.error().message, place.key_file));
    ring->add(rotation);
    if (auto written = ring->write(place.key_file); !written) return std::unexpected(written.error());
    log::info("control", "the broker's state has a new key number={} label=\"{}\" file={}", ring->keys.back().id, rotation, place.key_file);
    return ring;
}

Result<std::size_t> drop_state_keys(const StatePlace& place, store::KeyRing& ring, const store::Durable::Figures& figures, bool seal) {
    if (!seal || place.keys_are_given || ring.keys.size() < 2 || figures.files == 0 || figures.files_to_rewrite > 0 || !figures.rewriting_fault.empty()) return 0;
    if (place.data)
        if (auto there = place.data->ready(); !there) return std::unexpected(there.error());
    const auto gone = ring.keys.size() - 1;
    ring.keys.erase(ring.keys.begin(), ring.keys.end() - 1);
    if (auto written = ring.write(place.key_file); !written) return std::unexpected(written.error());
    log::info("control", "all of the broker's state has the new key, the old one is gone number={}", ring.keys.back().id);
    return gone;
}

}  // namespace penstock::control
