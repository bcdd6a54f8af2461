#pragma once
#include <cstdint>
#include <string>

#include "base/result.h"
#include "crypto/x509.h"

namespace penstock::crypto {

/// A question about one certificate, DER, RFC 6960 section 4.1.
Result<std::string> ocsp_request(const Certificate& leaf, const Certificate& issuer);

struct OcspStatus {
    enum class Kind : std::uint8_t { good, revoked, unknown } kind = Kind::unknown;
    std::int64_t good_until_ms = 0;      ///< Unix time; 0: the answer does not say
};
/// Checks an answer (DER): signed by the issuer or by who the issuer delegated to, about this certificate, in force now.
Result<OcspStatus> ocsp_status(const std::string& answer, const Certificate& leaf, const Certificate& issuer, std::int64_t now_ms);

}  // namespace penstock::crypto
