#include "crypto/cross_certificate.h"

#include <openssl/bn.h>

#include <algorithm>

#include <fmt/format.h>

#include "crypto/native.h"

namespace penstock::crypto {

namespace {

constexpr std::int64_t skew_ms = 300'000;

bool set_times(X509* out, std::int64_t from_ms, std::int64_t to_ms) {
    return ASN1_TIME_set(X509_getm_notBefore(out), static_cast<time_t>(from_ms / 1000)) != nullptr &&
           ASN1_TIME_set(X509_getm_notAfter(out), static_cast<time_t>(to_ms / 1000)) != nullptr;
}

/// The key identifier of the CA as it stands there; of one that has none, what the key says.
bool set_key_identifier(X509* out, X509* ca) {
    const int at = X509_get_ext_by_NID(ca, NID_subject_key_identifier, -1);
    if (at < 0) return add_extension(out, out, NID_subject_key_identifier, "hash");
    return X509_add_ext(out, X509_get_ext(ca, at), -1) == 1;
}

}  // namespace

Result<std::string> cross_certify(const Certificate& ca, const KeyPair& issuer, std::int64_t now_ms) {
    const auto chain = read_certificates(issuer.certificate);
    if (!chain || chain->empty()) return fail("the issuer's certificate cannot be read");
    const auto& by = chain->front();
    const auto key = read_private_key(issuer.key);
    if (!key || !by.matches_key(issuer.key)) return fail("the issuer's key is not that of its certificate");
    if (!by.is_ca() || !ca.is_ca()) return fail("a cross certificate is one CA's word for another");
    const auto end = std::min(by.not_after_ms(), ca.not_after_ms());
    if (end <= now_ms) return fail("one of the two CAs has ended");
    const X509Pointer certificate(X509_new());
    auto* out = certificate.get();
    const std::unique_ptr<BIGNUM, Freer<BN_free>> serial(BN_new());
    const bool made = X509_set_version(out, 2) == 1 &&
                      BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
                      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(out)) != nullptr &&
                      set_times(out, now_ms - skew_ms, end) &&
                      X509_set_pubkey(out, X509_get0_pubkey(ca.native())) == 1 &&
                      X509_set_subject_name(out, X509_get_subject_name(ca.native())) == 1 &&
                      X509_set_issuer_name(out, X509_get_subject_name(by.native())) == 1 &&
                      add_extension(out, by.native(), NID_basic_constraints, "critical,CA:TRUE") &&
                      add_extension(out, by.native(), NID_key_usage, "critical,keyCertSign,cRLSign") &&
                      set_key_identifier(out, ca.native()) &&
                      add_extension(out, by.native(), NID_authority_key_identifier, "keyid");
    // The Edwards curves hash by themselves.
    const bool hashes = EVP_PKEY_is_a(key.get(), "ED25519") == 1 || EVP_PKEY_is_a(key.get(), "ED448") == 1;
    if (!made || X509_sign(out, key.get(), hashes ? nullptr : EVP_sha256()) == 0)
        return openssl_failure("making a cross certificate");
    return Certificate::share(out).pem();
}

}  // namespace penstock::crypto
