#include "crypto/seal.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "crypto/native.h"

namespace penstock::crypto {
namespace {
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, Freer<EVP_CIPHER_CTX_free>>;
unsigned char* bytes_at(char* at) { return static_cast<unsigned char*>(static_cast<void*>(at)); }
struct Nonce {
    explicit Nonce(std::uint64_t number) {
        for (int i = 0; i < 8; ++i) bytes[4 + i] = static_cast<unsigned char>(number >> (56 - 8 * i));
    }
    unsigned char bytes[12] = {};
};
}  // namespace

/// The key schedule is made once in each direction; each piece only sets its nonce.
struct Sealer::Context {
    Cipher sealing{EVP_CIPHER_CTX_new()}, opening{EVP_CIPHER_CTX_new()};
};

Sealer::Sealer(std::string_view key) : context_(std::make_unique<Context>()) {
    if (key.size() != key_size) return;   // every use then fails
    EVP_EncryptInit_ex(context_->sealing.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key), nullptr);
    EVP_DecryptInit_ex(context_->opening.get(), EVP_aes_256_gcm(), nullptr, bytes_of(key), nullptr);
}
Sealer::~Sealer() = default;

bool Sealer::seal(std::uint64_t number, std::string_view bound, std::string_view plain, char* out) {
    auto* c = context_->sealing.get();
    const Nonce nonce(number);
    int size = 0, rest = 0;
    return EVP_EncryptInit_ex(c, nullptr, nullptr, nullptr, nonce.bytes) == 1 && EVP_EncryptUpdate(c, nullptr, &size, bytes_of(bound), static_cast<int>(bound.size())) == 1 &&
           EVP_EncryptUpdate(c, bytes_at(out), &size, bytes_of(plain), static_cast<int>(plain.size())) == 1 && EVP_EncryptFinal_ex(c, bytes_at(out) + size, &rest) == 1 &&
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, tag_size, out + plain.size()) == 1;
}

bool Sealer::open(std::uint64_t number, std::string_view bound, std::string_view sealed, char* out) {
    if (sealed.size() < tag_size) return false;
    auto* c = context_->opening.get();
    const Nonce nonce(number);
    std::string tag(sealed.substr(sealed.size() - tag_size));
    sealed.remove_suffix(tag_size);
    int size = 0, rest = 0;
    return EVP_DecryptInit_ex(c, nullptr, nullptr, nullptr, nonce.bytes) == 1 && EVP_DecryptUpdate(c, nullptr, &size, bytes_of(bound), static_cast<int>(bound.size())) == 1 &&
           EVP_DecryptUpdate(c, bytes_at(out), &size, bytes_of(sealed), static_cast<int>(sealed.size())) == 1 && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, tag_size, tag.data()) == 1 &&
           EVP_DecryptFinal_ex(c, bytes_at(out) + size, &rest) == 1;
}

void leave_thread() noexcept { OPENSSL_thread_stop(); }

}  // namespace penstock::crypto
