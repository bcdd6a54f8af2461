#include "crypto/certificate.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <memory>

namespace penstock::crypto {
namespace {

template <auto Free>
struct Freer {
    template <class T>
    void operator()(T* p) const noexcept { Free(p); }
};
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using Extension = std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>>;

std::unexpected<Error> openssl_failure(const char* doing) {
    char text[256] = {};
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    return fail(std::string(doing) + ": " + text);
}

Bio memory_of(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }
std::string text_of(BIO* bio) {
    char* data = nullptr;
    const auto size = BIO_get_mem_data(bio, &data);
    return {data, static_cast<std::size_t>(size)};
}

bool add_extension(X509* certificate, X509* issuer, int id, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    Extension extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
    return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

void add_name(X509_NAME* name, const char* field, const std::string& value) {
    const auto* bytes = static_cast<const unsigned char*>(static_cast<const void*>(value.data()));
    X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, bytes, static_cast<int>(value.size()), -1, 0);
}

Certificate start(EVP_PKEY* key, int days) {
    Certificate out(X509_new());
    X509_set_version(out.get(), 2);
    std::unique_ptr<BIGNUM, Freer<BN_free>> serial(BN_new());
    BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY);
    BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(out.get()));
    // Five minutes back, for clocks that differ a little.
    X509_gmtime_adj(X509_getm_notBefore(out.get()), -300);
    X509_time_adj_ex(X509_getm_notAfter(out.get()), days, 0, nullptr);
    X509_set_pubkey(out.get(), key);
    return out;
}

Result<KeyPair> finish(X509* certificate, EVP_PKEY* key) {
    Bio certificate_out(BIO_new(BIO_s_mem())), key_out(BIO_new(BIO_s_mem()));
    if (PEM_write_bio_X509(certificate_out.get(), certificate) != 1 ||
        PEM_write_bio_PKCS8PrivateKey(key_out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
        return openssl_failure("writing a certificate");
    return KeyPair{.certificate = text_of(certificate_out.get()), .key = text_of(key_out.get())};
}

Certificate read_certificate(const std::string& pem) {
    return Certificate(PEM_read_bio_X509(memory_of(pem).get(), nullptr, nullptr, nullptr));
}

}  // namespace

Result<KeyPair> make_ca(const std::string& common_name, int days) {
    Key key(EVP_EC_gen("P-256"));
    if (!key) return openssl_failure("making a key");
    auto certificate = start(key.get(), days);
    auto* name = X509_get_subject_name(certificate.get());
    add_name(name, "CN", common_name);
    X509_set_issuer_name(certificate.get(), name);
    if (!add_extension(certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:TRUE") ||
        !add_extension(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign,digitalSignature") ||
        !add_extension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash") ||
        X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0)
        return openssl_failure("making a CA certificate");
    return finish(certificate.get(), key.get());
}

Result<KeyPair> make_leaf(const KeyPair& ca, const LeafOptions& options) {
    const auto issuer = read_certificate(ca.certificate);
    Key issuer_key(PEM_read_bio_PrivateKey(memory_of(ca.key).get(), nullptr, nullptr, nullptr));
    if (!issuer || !issuer_key) return openssl_failure("reading the CA");
    Key key(EVP_EC_gen("P-256"));
    if (!key) return openssl_failure("making a key");
    auto certificate = start(key.get(), options.days);
    auto* name = X509_get_subject_name(certificate.get());
    for (const auto& organization : options.organizations) add_name(name, "O", organization);
    add_name(name, "CN", options.common_name);
    X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer.get()));
    std::string san;
    for (const auto& dns : options.dns_names) san += (san.empty() ? "DNS:" : ",DNS:") + dns;
    for (const auto& ip : options.addresses) san += (san.empty() ? "IP:" : ",IP:") + ip;
    if (!add_extension(certificate.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(certificate.get(), issuer.get(), NID_key_usage, "critical,digitalSignature") ||
        !add_extension(certificate.get(), issuer.get(), NID_ext_key_usage, options.server ? "serverAuth" : "clientAuth") ||
        !add_extension(certificate.get(), issuer.get(), NID_authority_key_identifier, "keyid") ||
        (!san.empty() && !add_extension(certificate.get(), issuer.get(), NID_subject_alt_name, san)) ||
        X509_sign(certificate.get(), issuer_key.get(), EVP_sha256()) == 0)
        return openssl_failure("making a certificate");
    return finish(certificate.get(), key.get());
}

std::int64_t seconds_left(const std::string& pem) {
    const auto certificate = read_certificate(pem);
    if (!certificate) return -1;
    int days = 0, seconds = 0;
    if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate.get())) != 1) return -1;
    return static_cast<std::int64_t>(days) * 86'400 + seconds;
}

bool covers(const std::string& pem, const std::vector<std::string>& dns_names, const std::vector<std::string>& addresses) {
    const auto certificate = read_certificate(pem);
    if (!certificate) return false;
    for (const auto& dns : dns_names)
        if (X509_check_host(certificate.get(), dns.data(), dns.size(), 0, nullptr) != 1) return false;
    for (const auto& ip : addresses)
        if (X509_check_ip_asc(certificate.get(), ip.c_str(), 0) != 1) return false;
    return true;
}

}  // namespace penstock::crypto
