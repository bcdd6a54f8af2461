#pragma once
#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock::crypto {

/// A fresh EC P-256 private key, PEM (PKCS #8).
Result<std::string> make_signing_key();
/// ECDSA with SHA-256 in the form of JOSE's ES256 (RFC 7518, 3.4): r and s, 32 bytes each.
Result<std::string> sign_es256(const std::string& private_key_pem, std::string_view bytes);
/// True when the signature is one of the key (private or public PEM).
bool verify_es256(const std::string& key_pem, std::string_view bytes, std::string_view signature);

/// The public half as JOSE writes it (RFC 7517), base64url without padding.
struct PublicPoint {
    std::string x, y;
    std::string id;                      ///< SHA-256 of the public key's DER: its `kid`
};
Result<PublicPoint> public_point(const std::string& key_pem);

/// Base64 with the URL alphabet and no padding (RFC 4648, 5).
std::string base64url_encode(std::string_view bytes);
Result<std::string> base64url_decode(std::string_view text);
/// True when both are equal; the time does not depend on where they differ.
bool equal_constant_time(std::string_view a, std::string_view b);

}  // namespace penstock::crypto
