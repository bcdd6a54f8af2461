#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "crypto/revocation.h"
#include "crypto/x509.h"

namespace penstock::crypto {

/// Certificates that are trusted, roots or intermediates, with their revocation lists. Immutable. Core: any; takes no lock.
///
/// Where several paths lead from a certificate to a trusted one (cross-signed CAs, two certificates of one CA, an intermediate
/// that was renewed, extra certificates, any order), each is tried until one is good; certificates that do not belong to the path
/// do no harm. The search is bounded (64 signatures, 16 whole paths, 10 certificates a path), as peers choose what they send.
///
/// Revocation: RevocationLists::fault_of, for each certificate of the path.
class TrustStore {
  public:
    TrustStore(std::vector<Certificate> trusted, std::vector<RevocationList> lists);
    struct Outcome {
        std::string fault;               ///< empty: good
        std::vector<Certificate> path;   ///< leaf to anchor, as far as it was found
        [[nodiscard]] bool ok() const noexcept { return fault.empty(); }
    };
    /// RFC 5280 section 6 from `chain[0]` (the rest helps) to a trusted certificate. Keys and signatures below 112 bits are
    /// refused. `at_ms`: Unix time. The fault names the certificate.
    [[nodiscard]] Outcome verify(const std::vector<Certificate>& chain, Purpose purpose, std::int64_t at_ms) const { return verify(chain, purpose, at_ms, {}); }
    /// `objection` is asked about each path that is good otherwise (what is known from elsewhere, such as OCSP); the search goes on
    /// when it answers why that one is not to be taken.
    using Objection = std::function<std::string(const std::vector<Certificate>& path)>;
    [[nodiscard]] Outcome verify(const std::vector<Certificate>& chain, Purpose purpose, std::int64_t at_ms, const Objection& objection) const;
    /// The path, and behind a trusted intermediate at its end the one of the trusted certificates that issued it: who can be asked
    /// about it, or nothing more where none did. Of several whose key signed it (a CA that was renewed with its key) one that is in
    /// force at `at_ms` (Unix time) and may sign certificates goes first, then the one that ends last: what a responder answers is
    /// verified with it.
    [[nodiscard]] std::vector<Certificate> with_issuer_of_anchor(std::vector<Certificate> path, std::int64_t at_ms) const;
    [[nodiscard]] const std::vector<Certificate>& trusted() const noexcept { return trusted_; }
    [[nodiscard]] const RevocationLists& lists() const noexcept { return lists_; }

  private:
    struct Native;
    struct Attempt;
    [[nodiscard]] Attempt attempt(const Certificate& leaf, const std::vector<Certificate>& between, const Certificate* anchor, Purpose purpose, std::int64_t at_ms) const;
    [[nodiscard]] std::string revocation_fault(const std::vector<Certificate>& path) const;
    [[nodiscard]] std::string fault_of(const std::vector<Certificate>& path, const Objection& objection) const;

    std::vector<Certificate> trusted_;
    RevocationLists lists_;
    std::shared_ptr<const Native> native_;
};

}  // namespace penstock::crypto
