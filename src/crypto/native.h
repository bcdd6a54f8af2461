#pragma once
// Owning pointers and small helpers around OpenSSL's C interface; for crypto/ and tls/ only.
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock::crypto {

template <auto Free>
struct Freer {
    template <class T>
    void operator()(T* p) const noexcept { Free(p); }
};
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using X509Pointer = std::unique_ptr<X509, Freer<X509_free>>;
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;

/// The oldest error of OpenSSL's queue as an Error, and the queue emptied.
std::unexpected<Error> openssl_failure(const char* doing);
/// Reads `text` where it stands: it must outlive the answer.
Bio memory_of(const std::string& text);
Bio memory_of(std::string&&) = delete;
std::string text_of(BIO* bio);
std::string text_of_string(const ASN1_STRING* text);
/// Unix time; 0 when there is none or it cannot be read.
std::int64_t unix_ms_of(const ASN1_TIME* time);
/// As Certificate::subject writes names.
std::string distinguished_name(const X509_NAME* name);
inline const unsigned char* bytes_of(std::string_view text) { return static_cast<const unsigned char*>(static_cast<const void*>(text.data())); }
/// For OpenSSL's readers of PEM: no pass phrase is ever asked for on the terminal; what is encrypted (a block of any type may be) is
/// refused. Without it a Secret or ConfigMap could stop its reader until somebody types.
inline int no_pass_phrase(char*, int, int, void*) { return -1; }
/// Null when the PEM is no private key, or an encrypted one.
Key read_private_key(const std::string& pem);
/// PKCS #8.
Result<std::string> private_pem(EVP_PKEY* key);
bool add_extension(X509* certificate, X509* issuer, int id, const std::string& value);

}  // namespace penstock::crypto
