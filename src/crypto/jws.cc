#include "crypto/jws.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>

#include "crypto/native.h"

namespace penstock::crypto {
namespace {

const EVP_MD* digest_of(const std::string& algorithm) {
    if (algorithm.ends_with("256")) return EVP_sha256();
    return algorithm.ends_with("384") ? EVP_sha384() : EVP_sha512();
}

Result<std::shared_ptr<EVP_PKEY>> key_from(const char* type, OSSL_PARAM_BLD* builder) {
    const std::unique_ptr<OSSL_PARAM, Freer<OSSL_PARAM_free>> parameters(OSSL_PARAM_BLD_to_param(builder));
    const std::unique_ptr<EVP_PKEY_CTX, Freer<EVP_PKEY_CTX_free>> context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
    EVP_PKEY* key = nullptr;
    if (!parameters || !context || EVP_PKEY_fromdata_init(context.get()) != 1 || EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, parameters.get()) != 1) return openssl_failure("a published key is not usable");
    return std::shared_ptr<EVP_PKEY>(key, [](EVP_PKEY* p) { EVP_PKEY_free(p); });
}

using Builder = std::unique_ptr<OSSL_PARAM_BLD, Freer<OSSL_PARAM_BLD_free>>;
using Number = std::unique_ptr<BIGNUM, Freer<BN_free>>;

}  // namespace

Result<JwsKey> JwsKey::elliptic(const std::string& curve, const std::string& x, const std::string& y) {
    const std::size_t half = curve == "P-256" ? 32 : curve == "P-384" ? 48 : curve == "P-521" ? 66 : 0;
    if (half == 0) return fail("the key's curve is none of P-256, P-384, P-521");
    if (x.size() != half || y.size() != half) return fail("the key's point has the wrong length");
    const Builder builder(OSSL_PARAM_BLD_new());
    const auto point = "\x04" + x + y;
    OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve.c_str(), 0);
    OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size());
    auto key = key_from("EC", builder.get());
    if (!key) return std::unexpected(key.error());
    JwsKey out;
    out.key_ = std::move(*key);
    out.algorithm_ = curve == "P-256" ? "ES256" : curve == "P-384" ? "ES384" : "ES512";
    return out;
}

Result<JwsKey> JwsKey::rsa(const std::string& modulus, const std::string& exponent, const std::string& algorithm) {
    JwsKey out;
    out.algorithm_ = algorithm.empty() ? "RS256" : algorithm;
    if (out.algorithm_ != "RS256" && out.algorithm_ != "RS384" && out.algorithm_ != "RS512") return fail("the key's algorithm is none of RS256, RS384, RS512");
    if (modulus.size() < 256 || modulus.size() > 1024 || exponent.empty() || exponent.size() > 8) return fail("the key's size is not from 2048 to 8192 bits");
    const Number n(BN_bin2bn(bytes_of(modulus), static_cast<int>(modulus.size()), nullptr)), e(BN_bin2bn(bytes_of(exponent), static_cast<int>(exponent.size()), nullptr));
    const Builder builder(OSSL_PARAM_BLD_new());
    OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get());
    OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get());
    auto key = key_from("RSA", builder.get());
    if (!key) return std::unexpected(key.error());
    out.key_ = std::move(*key);
    return out;
}

bool JwsKey::verify(std::string_view bytes, std::string_view signature) const {
    std::string der(signature);
    if (algorithm_.starts_with("ES")) {
        const std::size_t half = algorithm_ == "ES256" ? 32 : algorithm_ == "ES384" ? 48 : 66;
        if (signature.size() != 2 * half) return false;
        const std::unique_ptr<ECDSA_SIG, Freer<ECDSA_SIG_free>> parts(ECDSA_SIG_new());
        ECDSA_SIG_set0(parts.get(), BN_bin2bn(bytes_of(signature), static_cast<int>(half), nullptr), BN_bin2bn(bytes_of(signature.substr(half)), static_cast<int>(half), nullptr));
        unsigned char* encoded = nullptr;
        const int size = i2d_ECDSA_SIG(parts.get(), &encoded);
        if (size <= 0) return false;
        der.assign(encoded, encoded + size);
        OPENSSL_free(encoded);
    }
    const std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
    const bool good = EVP_DigestVerifyInit(context.get(), nullptr, digest_of(algorithm_), nullptr, key_.get()) == 1 &&
                      EVP_DigestVerify(context.get(), bytes_of(der), der.size(), bytes_of(bytes), bytes.size()) == 1;
    ERR_clear_error();
    return good;
}

}  // namespace penstock::crypto
