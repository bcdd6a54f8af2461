#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "crypto/x509.h"

namespace penstock::crypto {

/// How much a finding about a certificate chain matters to those who present it.
enum class Weight : std::uint8_t {
    note,            ///< worth knowing
    some_refuse,     ///< widespread peers refuse it, others take it
    all_refuse,      ///< each peer that verifies as RFC 5280 says refuses it
    unusable,        ///< no TLS 1.2 or 1.3 handshake can be completed with it, verified or not
};

/// Something a person should know of a certificate or chain, with the cure.
struct Finding {
    Weight weight = Weight::all_refuse;
    std::string message;
    [[nodiscard]] bool is_fault() const noexcept { return weight != Weight::note; }
};
/// Looks at a chain (leaf first) as a server or client would present it: times, names, keys, signatures, order, basic
/// constraints, key usages, and at last what OpenSSL's own validation finds between the leaf and the chain's end. Trust is not
/// judged: the chain's end counts as trusted. `now_ms`: Unix time. Pure; any thread.
std::vector<Finding> examine_chain(const std::vector<Certificate>& chain, Purpose purpose, std::int64_t now_ms);

/// The judgement about a certificate chain with its private key, made before it is served or shown to anybody.
struct IdentityJudgement {
    std::vector<Certificate> chain;      ///< as far as it could be read
    std::vector<Finding> findings;       ///< the heaviest first
    bool is_key_of_another = false;      ///< the key can be read, and is not that of the first certificate
    /// The messages of one weight, joined by "; "; empty when there is none.
    [[nodiscard]] std::string because_of(Weight weight) const;
    /// False: whoever presents this completes no handshake.
    [[nodiscard]] bool is_usable() const { return because_of(Weight::unusable).empty(); }
    /// False: a handshake may be completed, but each peer that verifies breaks it off.
    [[nodiscard]] bool is_acceptable() const { return is_usable() && because_of(Weight::all_refuse).empty(); }
    /// Unix time at which the first certificate of the chain ends; 0 when there is none.
    [[nodiscard]] std::int64_t ends_at_ms() const;
};
/// One place that says whether a certificate, its chain and its key can do their work in TLS. `chain_pem` and `key_pem` as in a
/// Secret of type kubernetes.io/tls. Unreadable texts and a key of another certificate are findings too. The key is never
/// quoted. Any thread.
IdentityJudgement judge_identity(const std::string& chain_pem, const std::string& key_pem, Purpose purpose, std::int64_t now_ms);

/// Why all clients refuse what a CA signs, whenever that is: keys, curves, usages and signatures of its chain (the CA first); times are
/// not looked at. Empty: nothing is wrong. The cure is in it. Pure; any thread.
std::string issuing_fault(const std::vector<Certificate>& chain);

/// What is wrong with a certificate that is to vouch for the certificates of clients or servers: empty when nothing is. Such a
/// certificate lets nobody in (weak key, ended, made for another purpose), or only itself (no CA).
std::vector<Finding> examine_authority(const Certificate& authority, Purpose purpose, std::int64_t now_ms);

}  // namespace penstock::crypto
