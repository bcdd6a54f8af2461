#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::store {

/// The keys that state on disk is sealed with. The last one seals what is written from now on; the older ones open what was
/// written before, until it has been rewritten.
struct KeyRing {
    struct Key {
        std::uint32_t id = 0;            ///< from 1; names the key in the head of each file
        std::string bytes;               ///< 32, secret
        std::string label;               ///< what it was made for: a rotation's name
    };
    std::vector<Key> keys;

    [[nodiscard]] const Key* find(std::uint32_t id) const noexcept;
    /// Adds a fresh key, which is the last one then.
    void add(std::string label);

    /// One line a key: number, base64, label; `#` begins a comment. Errors name the line and what is wrong with it.
    static Result<KeyRing> parse(std::string_view text, const std::string& name);
    /// A file that is not there is an empty ring.
    static Result<KeyRing> read(const std::string& path);
    /// Mode 0600, and on the disk when this returns: what is sealed with a key that is lost is lost.
    [[nodiscard]] Result<void> write(const std::string& path) const;
};

}  // namespace penstock::store
