#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "crypto/certificate.h"

struct x509_st;

namespace penstock::crypto {

/// One X.509 certificate (RFC 5280); shared and immutable. Core: any.
class Certificate {
  public:
    Certificate() = default;
    /// Takes the reference over.
    explicit Certificate(x509_st* owned);
    /// Takes a reference of its own.
    static Certificate share(x509_st* borrowed);
    static Result<Certificate> from_der(std::string_view der);

    explicit operator bool() const noexcept { return native_ != nullptr; }
    [[nodiscard]] x509_st* native() const noexcept { return native_.get(); }

    /// As `openssl x509 -subject` of OpenSSL 1.1 and 3.0 writes it: `CN = fan-01, O = Fabrikam`, in the certificate's order.
    [[nodiscard]] std::string subject() const;
    [[nodiscard]] std::string issuer() const;
    /// The last CN of the subject; empty when there is none or it has a NUL inside.
    [[nodiscard]] std::string common_name() const;
    [[nodiscard]] std::int64_t not_before_ms() const;
    [[nodiscard]] std::int64_t not_after_ms() const;
    /// Upper-case hexadecimal.
    [[nodiscard]] std::string serial() const;
    /// SHA-256 of the DER, lower-case hexadecimal.
    [[nodiscard]] std::string fingerprint() const;
    [[nodiscard]] std::string pem() const;
    [[nodiscard]] std::string der() const;
    [[nodiscard]] bool is_ca() const;
    /// Subject and issuer are the same and the signature is its own.
    [[nodiscard]] bool is_self_signed() const;
    /// `RSA 2048`, `EC P-256`, `Ed25519`.
    [[nodiscard]] std::string key_text() const;
    [[nodiscard]] int security_bits() const;
    /// True when checking a signature of this key takes far longer than making one: RSA beyond 8,192 bits or with an exponent beyond
    /// 64. Whoever meets a stranger's certificate does not begin.
    [[nodiscard]] bool has_costly_key() const;
    [[nodiscard]] std::string signature_algorithm() const;
    [[nodiscard]] std::vector<std::string> dns_names() const;
    [[nodiscard]] std::vector<std::string> addresses() const;
    [[nodiscard]] std::vector<std::string> other_names() const;      ///< `URI:...`, `email:...`
    /// `digital signature`, `cert sign`, `server auth`, ... as cert-manager calls them.
    [[nodiscard]] std::vector<std::string> usages() const;
    [[nodiscard]] std::vector<std::string> ocsp_urls() const;
    [[nodiscard]] std::vector<std::string> crl_urls() const;
    /// A name (wildcards as RFC 6125 has them) or an address, without recourse to the CN.
    [[nodiscard]] bool covers(const std::string& host) const;
    /// True when `issuer`'s key made the signature.
    [[nodiscard]] bool is_signed_by(const Certificate& issuer) const;
    /// True when `key_pem` is this certificate's private key.
    [[nodiscard]] bool matches_key(const std::string& key_pem) const;

  private:
    std::shared_ptr<x509_st> native_;
};

/// Every certificate of a text in PEM, in order (a file in DER is one certificate). The error counts from 1 and says what is
/// wrong. Other PEM blocks are left out. At most 1,000 certificates are taken.
Result<std::vector<Certificate>> read_certificates(const std::string& text);
/// Whom a chain must be good for.
enum class Purpose : std::uint8_t { client, server, any };

/// `Ec256`, `Ec384`, `Ec521`, `Ed25519`, `Rsa2048`, `Rsa3072`, `Rsa4096`, `Rsa8192`: the names of AIO's resource.
Result<std::string> make_key(const std::string& algorithm);
/// True when `key_pem` is a private key of this algorithm.
bool is_key_of(const std::string& key_pem, const std::string& algorithm);

struct IssueOptions {
    /// Short names and values in order, such as {"CN", "fan-01"}.
    std::vector<std::pair<std::string, std::string>> subject;
    std::vector<std::string> dns_names, addresses, uris, emails;
    bool is_ca = false;
    int path_length = -1;                ///< CAs below it; -1: no bound
    /// As cert-manager calls them; digital signature (and cert sign, crl sign for a CA) when empty.
    std::vector<std::string> usages;
    std::int64_t not_before_ms = 0, not_after_ms = 0;
    std::vector<std::string> crl_urls, ocsp_urls, issuing_urls;
};
/// A certificate for the public half of `key_pem`, signed by `issuer` (null: by the key itself). PEM of the one certificate.
/// It never outlives its issuer. Unknown usages and names are errors that name them.
Result<std::string> issue_certificate(const std::string& key_pem, const KeyPair* issuer, const IssueOptions& options);

/// Distinguished names as text, compared part by part: spaces around `=` and after `,` do not matter, nothing else is
/// forgiven. `pattern` is as a person wrote it; an empty one is nobody's.
bool same_subject(const std::string& pattern, const Certificate& certificate);

}  // namespace penstock::crypto
