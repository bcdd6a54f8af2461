#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "crypto/x509.h"
#include "resources/json.h"

namespace penstock::api {

/// The resource API's own certificates, PEM.
struct OwnPki {
    /// The CA. Behind its certificate stands the same key signed by the CA before it (a cross certificate),
    /// while that one lasts: who trusts the former CA alone finds the way to what the new one signs.
    crypto::KeyPair ca;
    /// All CAs that count, the present one first: what kubeconfigs and `kube-root-ca.crt` trust, and whose
    /// client certificates are believed.
    std::string trusted;
    crypto::KeyPair server, admin;

    bool operator==(const OwnPki& other) const;
};

/// What the server's certificate must be good for.
struct ServerNames {
    std::vector<std::string> dns_names, addresses;
};

struct PkiRules {
    static constexpr int ca_days = 3650, leaf_days = 365;
    /// A CA has its successor so long before its end that no leaf of it is ever cut short by it.
    static constexpr int ca_renew_days = 730, leaf_renew_days = 90;
    static constexpr std::size_t trusted_max = 10,
                                 above_max =
                                     4;   ///< CAs that are trusted; certificates shown behind the server's
    static constexpr const char* ca_name = "penstock-api-ca";
};

/// When a certificate is renewed: `days` before its end, or after two thirds of a short life. Unix time, ms.
std::int64_t renewal_ms(const crypto::Certificate& certificate, int days);

/// Why the CA needs a successor at `now_ms`; empty: it does not. A CA of somebody else's (not self-signed, or
/// of another name) is theirs to replace, until it has ended.
std::string ca_due(const crypto::Certificate& ca, std::int64_t now_ms);

/// Why a leaf has to be made anew at `now_ms`; empty: it goes on. `names`: what a server certificate must
/// cover, or null. A leaf that would end no later for being made anew, because its CA ends, goes on.
std::string leaf_due(const crypto::KeyPair& leaf, const crypto::Certificate& ca, const ServerNames* names,
                     std::int64_t now_ms);

/// `ca` with a cross certificate by `former` behind it, where the two are different keys and `former` can
/// still vouch: what somebody put in the place of a CA whose key is still known. Else `ca` as it is.
crypto::KeyPair vouched_for(crypto::KeyPair ca, const crypto::KeyPair& former, std::int64_t now_ms);

struct PkiRenewal {
    OwnPki pki;
    std::vector<std::string> done;   ///< what was made, and why; empty: all goes on as it is
};

/// What the API shows and trusts from `now_ms` on, given what there is: missing parts are made, what is due
/// gets its successor, a CA that was replaced takes its leaves along. Pure but for the keys it makes. The
/// error says which part cannot be used; a CA that cannot be read is never made anew, because everybody who
/// trusts it would be locked out. `new_ca`: the CA gets its successor now.
Result<PkiRenewal> renew(const OwnPki& have, const ServerNames& names, std::int64_t now_ms,
                         bool new_ca = false);

/// One certificate or key of the API, for `pki list`, metrics and health.
struct OwnCertificate {
    std::string
        name;   ///< `server`, `admin`, `ca`, `ca-chain`, `cross-ca`, `former-ca`, `service-account-key`
    std::string where;   ///< file, in the folder `pki`
    std::string subject;
    std::int64_t not_after_ms = 0;   ///< Unix time; 0: it has no end
    std::int64_t renewal_ms = 0;   ///< when it gets its successor; 0: it gets none
    std::string fault;   ///< what is wrong with it now, with the cure; empty: nothing
    std::string used_by, when_it_ends;
};
std::vector<OwnCertificate> describe(const OwnPki& pki, std::int64_t now_ms);
/// `[{name, where, subject, notAfter, renewal, fault, usedBy, whenItEnds}]`, times as RFC 3339 or absent.
resources::Json certificates_json(const std::vector<OwnCertificate>& certificates);
/// `penstock_api_certificate_not_after_timestamp_seconds`,
/// `penstock_api_certificate_renewal_timestamp_seconds` and
/// `penstock_api_certificate_fault` in Prometheus' text form.
std::string certificates_metrics(const std::vector<OwnCertificate>& certificates);
/// Lines for `/readyz`: what has ended. Empty: nothing has.
std::string certificates_not_ready(const std::vector<OwnCertificate>& certificates, std::int64_t now_ms);

}  // namespace penstock::api
