#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/certificate_signer.h"
#include "crypto/x509.h"
#include "resources/json.h"

namespace penstock::control {

/// What a Certificate resource asks for, by its spec.
struct WantedCertificate {
    crypto::IssueOptions options;        ///< without its dates, which depend on when it is issued
    std::string key_algorithm;           ///< as crypto::make_key() takes it
    bool rotate_key = true;
    std::int64_t duration_ms = 0, renew_before_ms = 0;
};
/// Pure. The error names the field of the spec that cannot be carried out.
Result<WantedCertificate> wanted_of(const resources::Json& certificate);

/// What a Certificate's Secret holds.
struct HeldIdentity {
    std::vector<crypto::Certificate> chain;   ///< leaf first; empty: nothing that can be read
    std::string key_pem;

    /// `secret`: null when there is none. Pure.
    static HeldIdentity in(const resources::Json* secret);
    /// The pair as a CA that can still vouch for its successor at `now_ms`, Unix time.
    [[nodiscard]] std::optional<crypto::KeyPair> as_ca(std::int64_t now_ms) const;
};

/// All that decides whether a Certificate is issued, as it was at one moment. Borrows what it names.
struct CertificateFacts {
    const resources::Json& certificate;
    const WantedCertificate& wanted;
    const resources::Json* secret = nullptr;   ///< that spec.secretName names; null: there is none
    const HeldIdentity& held;                  ///< what is in it
    const Signer* signer = nullptr;            ///< of the issuer; null: it signs nothing now
    bool is_in_a_circle = false;               ///< the CA that signs it hangs on the certificate itself
    std::int64_t now_ms = 0;                   ///< Unix time
};

/// One reason for which a Certificate is issued (anew).
struct CertificateCheck {
    const char* name;                          ///< what must be so
    const char* reason;                        ///< cert-manager's word for its being otherwise
    /// Why it is not so, for people; empty: it is. Pure. Relies on the checks before it having passed.
    std::string (*why_not)(const CertificateFacts& facts);
};

/// In the order in which a person would want to hear them: what is there, what was asked for, who signed it,
/// its dates, and last that somebody asked for a renewal.
std::span<const CertificateCheck> certificate_checks();

/// The first check that a certificate does not pass.
struct CertificateDue {
    const CertificateCheck* check = nullptr;
    std::string why;                           ///< for people
};
/// Nothing: all is as wanted, and nothing is issued. Pure.
std::optional<CertificateDue> why_due(const CertificateFacts& facts);

/// When a certificate is renewed, Unix time in ms. A shorter life than asked for (the issuer ends first) is
/// renewed at two thirds of what it got. Pure.
std::int64_t renewal_of(const crypto::Certificate& have, const WantedCertificate& wanted);

/// Clocks of two machines differ by so much: a certificate begins so long before it is issued.
inline constexpr std::int64_t clock_skew_ms = 300'000;

/// The condition of a type in an object's status; null when there is none. Lives as long as the object.
const resources::Json& condition_of(const resources::Json& object, const char* type);

}  // namespace penstock::control
