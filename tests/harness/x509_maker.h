#pragma once
// Certificates and revocation lists as others make them: any key, any extension, any time, right or wrong.
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "crypto/native.h"
#include "crypto/x509.h"

namespace penstock::harness {

using SharedKey = std::shared_ptr<EVP_PKEY>;

inline SharedKey shared(EVP_PKEY* key) { return {key, [](EVP_PKEY* k) { EVP_PKEY_free(k); }}; }

/// `P-256`, `secp256k1`, `brainpoolP256r1`, ... are curves; `RSA 1024`, `RSA-PSS 2048` have bits; `DSA`, `ED25519`, `ED448`, `X25519`.
inline SharedKey make_key(const std::string& kind) {
    const auto space = kind.find(' ');
    if (space != std::string::npos) {
        const std::unique_ptr<EVP_PKEY_CTX, crypto::Freer<EVP_PKEY_CTX_free>> maker(EVP_PKEY_CTX_new_from_name(nullptr, kind.substr(0, space).c_str(), nullptr));
        EVP_PKEY* key = nullptr;
        EVP_PKEY_keygen_init(maker.get());
        EVP_PKEY_CTX_set_rsa_keygen_bits(maker.get(), std::atoi(kind.c_str() + space + 1));
        EVP_PKEY_generate(maker.get(), &key);
        return shared(key);
    }
    if (kind == "DSA") {
        EVP_PKEY *parameters = nullptr, *key = nullptr;
        const std::unique_ptr<EVP_PKEY_CTX, crypto::Freer<EVP_PKEY_CTX_free>> first(EVP_PKEY_CTX_new_from_name(nullptr, "DSA", nullptr));
        EVP_PKEY_paramgen_init(first.get());
        EVP_PKEY_CTX_set_dsa_paramgen_bits(first.get(), 1024);
        EVP_PKEY_generate(first.get(), &parameters);
        const auto kept = shared(parameters);
        const std::unique_ptr<EVP_PKEY_CTX, crypto::Freer<EVP_PKEY_CTX_free>> second(EVP_PKEY_CTX_new_from_pkey(nullptr, parameters, nullptr));
        EVP_PKEY_keygen_init(second.get());
        EVP_PKEY_generate(second.get(), &key);
        return shared(key);
    }
    if (kind.starts_with("ED") || kind.starts_with("X")) return shared(EVP_PKEY_Q_keygen(nullptr, nullptr, kind.c_str()));
    return shared(EVP_EC_gen(kind.c_str()));
}

inline std::string key_pem(EVP_PKEY* key) { return crypto::private_pem(key).value(); }

/// Somebody who can sign: a certificate and its key.
struct Signer {
    crypto::Certificate certificate;
    SharedKey key;
};

struct CertificateOptions {
    std::vector<std::pair<std::string, std::string>> subject;
    const Signer* issuer = nullptr;      ///< nullptr: by itself
    std::string digest = "SHA256";       ///< not asked for with Ed25519 and Ed448
    std::string basic;                   ///< `critical,CA:TRUE`; empty: none
    std::string key_usage, extended_usage, alternative_names, policies;
    bool subject_key_id = true, authority_key_id = true;
    long from_s = -86'400, to_s = 50 * 86'400;
    long serial = 0;                     ///< 0: a new one
    std::vector<std::pair<int, std::string>> more;   ///< further extensions, as OpenSSL's configuration writes them
};

inline void set_name(X509_NAME* name, const std::vector<std::pair<std::string, std::string>>& parts) {
    for (const auto& [field, value] : parts)
        X509_NAME_add_entry_by_txt(name, field.c_str(), MBSTRING_UTF8, crypto::bytes_of(value), static_cast<int>(value.size()), -1, 0);
}

inline const EVP_MD* digest_for(EVP_PKEY* key, const std::string& digest) {
    return EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "ED448") == 1 ? nullptr : EVP_get_digestbyname(digest.c_str());
}

inline crypto::Certificate make_certificate(const SharedKey& key, const CertificateOptions& o) {
    static long next_serial = 1000;
    auto* out = X509_new();
    X509_set_version(out, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(out), o.serial != 0 ? o.serial : ++next_serial);
    X509_gmtime_adj(X509_getm_notBefore(out), o.from_s);
    X509_gmtime_adj(X509_getm_notAfter(out), o.to_s);
    X509_set_pubkey(out, key.get());
    set_name(X509_get_subject_name(out), o.subject);
    X509_set_issuer_name(out, o.issuer != nullptr ? X509_get_subject_name(o.issuer->certificate.native()) : X509_get_subject_name(out));
    auto* by = o.issuer != nullptr ? o.issuer->certificate.native() : out;
    auto add = [&](int id, const std::string& value) {
        if (!value.empty()) crypto::add_extension(out, by, id, value);
    };
    add(NID_basic_constraints, o.basic);
    add(NID_key_usage, o.key_usage);
    add(NID_ext_key_usage, o.extended_usage);
    if (o.subject_key_id) add(NID_subject_key_identifier, "hash");
    if (o.authority_key_id && o.issuer != nullptr) add(NID_authority_key_identifier, "keyid");
    add(NID_subject_alt_name, o.alternative_names);
    for (const auto& [id, value] : o.more) add(id, value);
    auto* signer = o.issuer != nullptr ? o.issuer->key.get() : key.get();
    X509_sign(out, signer, digest_for(signer, o.digest));
    ERR_clear_error();
    return crypto::Certificate(out);
}

inline Signer make_authority(const std::string& name, const Signer* by = nullptr, const SharedKey& key = make_key("P-256"), CertificateOptions o = {}) {
    if (o.subject.empty()) o.subject = {{"CN", name}};
    o.issuer = by;
    if (o.basic.empty()) o.basic = "critical,CA:TRUE";
    if (o.key_usage.empty()) o.key_usage = "critical,keyCertSign,cRLSign";
    return {make_certificate(key, o), key};
}

/// A list of `issuer`'s name, signed by `signer` (usually the same), that names `serials`.
struct ListOptions {
    std::vector<crypto::Certificate> revoked, removed;      ///< removed: with reason removeFromCRL, for deltas
    long from_s = -3600, to_s = 3600;
    bool has_next_update = true;
    bool authority_key_id = true;
    std::string point;                   ///< issuingDistributionPoint, as OpenSSL's configuration writes it
    long number = 0, delta_base = 0;     ///< cRLNumber and deltaCRLIndicator; 0: none
    const char* unknown_critical = nullptr;   ///< an object identifier
    const X509_NAME* name = nullptr;     ///< another name than the signer's
};

inline crypto::RevocationList make_list(const Signer& signer, const ListOptions& o) {
    auto* crl = X509_CRL_new();
    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, o.name != nullptr ? o.name : X509_get_subject_name(signer.certificate.native()));
    // Lists with the same `from_s` are of the same second.
    static std::time_t began = static_cast<std::time_t>(wall_ms() / 1000);
    const std::unique_ptr<ASN1_TIME, crypto::Freer<ASN1_TIME_free>> time(ASN1_TIME_new());
    X509_time_adj(time.get(), o.from_s, &began);
    X509_CRL_set1_lastUpdate(crl, time.get());
    X509_time_adj(time.get(), o.to_s, &began);
    if (o.has_next_update) X509_CRL_set1_nextUpdate(crl, time.get());
    auto put = [&](const crypto::Certificate& certificate, int reason) {
        auto* entry = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate.native()));
        X509_gmtime_adj(time.get(), -7200);
        X509_REVOKED_set_revocationDate(entry, time.get());
        if (reason >= 0) {
            const std::unique_ptr<ASN1_ENUMERATED, crypto::Freer<ASN1_ENUMERATED_free>> value(ASN1_ENUMERATED_new());
            ASN1_ENUMERATED_set(value.get(), reason);
            X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, value.get(), 0, 0);
        }
        X509_CRL_add0_revoked(crl, entry);
    };
    for (const auto& one : o.revoked) put(one, -1);
    for (const auto& one : o.removed) put(one, CRL_REASON_REMOVE_FROM_CRL);
    auto add = [&](int id, const std::string& value) {
        X509V3_CTX context;
        X509V3_set_ctx(&context, signer.certificate.native(), nullptr, nullptr, crl, 0);
        const std::unique_ptr<X509_EXTENSION, crypto::Freer<X509_EXTENSION_free>> extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
        if (extension) X509_CRL_add_ext(crl, extension.get(), -1);
    };
    auto add_number = [&](int id, long value, int critical) {
        const std::unique_ptr<ASN1_INTEGER, crypto::Freer<ASN1_INTEGER_free>> number(ASN1_INTEGER_new());
        ASN1_INTEGER_set(number.get(), value);
        X509_CRL_add1_ext_i2d(crl, id, number.get(), critical, 0);
    };
    if (o.authority_key_id) add(NID_authority_key_identifier, "keyid");
    if (!o.point.empty()) add(NID_issuing_distribution_point, o.point);
    if (o.number != 0) add_number(NID_crl_number, o.number, 0);
    if (o.delta_base != 0) add_number(NID_delta_crl, o.delta_base, 1);
    if (o.unknown_critical != nullptr) {
        const std::unique_ptr<ASN1_OBJECT, crypto::Freer<ASN1_OBJECT_free>> object(OBJ_txt2obj(o.unknown_critical, 1));
        const std::unique_ptr<ASN1_OCTET_STRING, crypto::Freer<ASN1_OCTET_STRING_free>> value(ASN1_OCTET_STRING_new());
        ASN1_OCTET_STRING_set(value.get(), crypto::bytes_of("\x05\x00"), 2);
        const std::unique_ptr<X509_EXTENSION, crypto::Freer<X509_EXTENSION_free>> extension(X509_EXTENSION_create_by_OBJ(nullptr, object.get(), 1, value.get()));
        X509_CRL_add_ext(crl, extension.get(), -1);
    }
    X509_CRL_sign(crl, signer.key.get(), digest_for(signer.key.get(), "SHA256"));
    // Read as any other: OpenSSL looks at the extensions then.
    unsigned char* der = nullptr;
    const int size = i2d_X509_CRL(crl, &der);
    const unsigned char* at = der;
    auto* read = d2i_X509_CRL(nullptr, &at, size);
    OPENSSL_free(der);
    X509_CRL_free(crl);
    ERR_clear_error();
    return crypto::RevocationList(read);
}

inline std::string pem_of(const crypto::RevocationList& list) {
    const crypto::Bio out(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509_CRL(out.get(), list.native());
    return crypto::text_of(out.get());
}

}  // namespace penstock::harness
