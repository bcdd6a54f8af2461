#include "crypto/signature.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <array>
#include <memory>
#include <vector>

#include "base/text.h"

namespace penstock::crypto {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Digest = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

/// No pass phrase is ever asked for on the terminal: what is encrypted is refused.
int no_pass_phrase(char*, int, int, void*) { return -1; }

Key key_of(const std::string& pem) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
    if (pem.find("PRIVATE KEY") != std::string::npos) return {PEM_read_bio_PrivateKey(bio.get(), nullptr, no_pass_phrase, nullptr), &EVP_PKEY_free};
    return {PEM_read_bio_PUBKEY(bio.get(), nullptr, no_pass_phrase, nullptr), &EVP_PKEY_free};
}

const unsigned char* bytes_of(std::string_view text) { return static_cast<const unsigned char*>(static_cast<const void*>(text.data())); }

constexpr int half = 32;

}  // namespace

Result<std::string> make_signing_key() {
    const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
    if (!key || PEM_write_bio_PKCS8PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1) return fail("a signing key could not be made");
    char* data = nullptr;
    const auto size = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<std::size_t>(size));
}

Result<std::string> sign_es256(const std::string& private_key_pem, std::string_view bytes) {
    const auto key = key_of(private_key_pem);
    const Digest digest(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    if (!key || EVP_DigestSignInit(digest.get(), nullptr, EVP_sha256(), nullptr, key.get()) != 1) return fail("the signing key cannot be used");
    std::size_t size = 0;
    if (EVP_DigestSign(digest.get(), nullptr, &size, bytes_of(bytes), bytes.size()) != 1) return fail("signing failed");
    std::vector<unsigned char> der(size);
    if (EVP_DigestSign(digest.get(), der.data(), &size, bytes_of(bytes), bytes.size()) != 1) return fail("signing failed");
    const auto* at = static_cast<const unsigned char*>(der.data());
    const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)), &ECDSA_SIG_free);
    if (!signature) return fail("signing failed");
    std::array<unsigned char, 2 * half> out{};
    if (BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), out.data(), half) != half || BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), out.data() + half, half) != half) return fail("signing failed");
    return std::string(out.begin(), out.end());
}

bool verify_es256(const std::string& key_pem, std::string_view bytes, std::string_view signature) {
    const auto key = key_of(key_pem);
    if (!key || signature.size() != 2 * half) return false;
    const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> parts(ECDSA_SIG_new(), &ECDSA_SIG_free);
    ECDSA_SIG_set0(parts.get(), BN_bin2bn(bytes_of(signature), half, nullptr), BN_bin2bn(bytes_of(signature.substr(half)), half, nullptr));
    unsigned char* der = nullptr;
    const int size = i2d_ECDSA_SIG(parts.get(), &der);
    if (size <= 0) return false;
    const Digest digest(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    const bool good = EVP_DigestVerifyInit(digest.get(), nullptr, EVP_sha256(), nullptr, key.get()) == 1 &&
                      EVP_DigestVerify(digest.get(), der, static_cast<std::size_t>(size), bytes_of(bytes), bytes.size()) == 1;
    OPENSSL_free(der);
    return good;
}

Result<PublicPoint> public_point(const std::string& key_pem) {
    const auto key = key_of(key_pem);
    BIGNUM *x = nullptr, *y = nullptr;
    if (!key || EVP_PKEY_get_bn_param(key.get(), OSSL_PKEY_PARAM_EC_PUB_X, &x) != 1 || EVP_PKEY_get_bn_param(key.get(), OSSL_PKEY_PARAM_EC_PUB_Y, &y) != 1) {
        BN_free(x);
        return fail("the key is no EC key");
    }
    auto text = [](BIGNUM* number) {
        std::array<unsigned char, half> out{};
        BN_bn2binpad(number, out.data(), half);
        BN_free(number);
        return base64url_encode(std::string(out.begin(), out.end()));
    };
    PublicPoint out{.x = text(x), .y = text(y)};
    unsigned char* der = nullptr;
    const int size = i2d_PUBKEY(key.get(), &der);
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    unsigned int hash_size = 0;
    EVP_Digest(der, static_cast<std::size_t>(size), hash.data(), &hash_size, EVP_sha256(), nullptr);
    OPENSSL_free(der);
    out.id = base64url_encode(std::string(hash.begin(), hash.begin() + hash_size));
    return out;
}

std::string base64url_encode(std::string_view bytes) {
    auto out = base64_encode(bytes);
    while (out.ends_with('=')) out.pop_back();
    for (auto& c : out) c = c == '+' ? '-' : c == '/' ? '_' : c;
    return out;
}

Result<std::string> base64url_decode(std::string_view text) {
    std::string plain(text);
    for (auto& c : plain) {
        if (c == '+' || c == '/' || c == '=') return fail("not base64url");
        c = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    while (plain.size() % 4 != 0) plain += '=';
    auto out = base64_decode(plain);
    if (!out) return fail("not base64url");
    return *out;
}

bool equal_constant_time(std::string_view a, std::string_view b) { return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

}  // namespace penstock::crypto
