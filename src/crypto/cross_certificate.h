#pragma once
#include <cstdint>
#include <string>

#include "crypto/certificate.h"
#include "crypto/x509.h"

namespace penstock::crypto {

/// A certificate of `ca`'s name and key that `issuer` signs, PEM: whoever trusts the issuer alone finds the
/// way to what `ca` signs. Name and key identifier are taken over as they are, because what `ca` signed names
/// its issuer by them. It begins at `now_ms` (Unix time) and ends with whichever of the two ends first.
Result<std::string> cross_certify(const Certificate& ca, const KeyPair& issuer, std::int64_t now_ms);

}  // namespace penstock::crypto
