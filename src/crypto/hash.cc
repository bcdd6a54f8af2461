#include "crypto/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "crypto/native.h"

namespace penstock::crypto {
namespace {
std::string digest(std::string_view bytes, const EVP_MD* kind) {
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_Digest(bytes.data(), bytes.size(), out, &size, kind, nullptr);
    return {out, out + size};
}
}  // namespace

std::string sha1(std::string_view bytes) { return digest(bytes, EVP_sha1()); }
std::string sha256(std::string_view bytes) { return digest(bytes, EVP_sha256()); }
std::string hmac_sha256(std::string_view key, std::string_view bytes) {
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes_of(bytes), bytes.size(), out, &size);
    return {out, out + size};
}

}  // namespace penstock::crypto
