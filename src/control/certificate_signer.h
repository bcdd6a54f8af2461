#pragma once
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "control/objects.h"
#include "crypto/x509.h"

namespace penstock::control {

/// Who signs for an Issuer or ClusterIssuer. A value.
struct Signer {
    bool self = false;                   ///< each certificate signs itself; then nothing else is set
    crypto::KeyPair pair;                ///< the CA's certificate and key, PEM
    std::vector<crypto::Certificate> chain;   ///< the CA first, then those above it

    /// A CA's key signed by the CA before it: not self-signed, though subject and issuer are the same name.
    static bool is_cross(const crypto::Certificate& one);
    /// What is shown behind a leaf: all but the root.
    [[nodiscard]] std::vector<crypto::Certificate> above_leaf() const;
    /// The root, or what comes nearest to it.
    [[nodiscard]] const crypto::Certificate& root() const;
};

/// The CA in an issuer's Secret, as of `now_ms` (Unix time); the error is what the issuer's condition says.
Result<Signer> signer_of(const Objects& objects, const resources::Json& issuer, std::int64_t now_ms);

}  // namespace penstock::control
