#include "crypto/hash.h"

#include <openssl/evp.h>

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

}  // namespace penstock::crypto
