#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct evp_pkey_st;

namespace penstock::crypto {

/// A public key that checks signatures of JOSE (RFC 7515, 7518). The key decides the algorithm. Core: any.
class JwsKey {
  public:
    /// `EC` with curve P-256, P-384 or P-521: `x` and `y` are big-endian bytes.
    static Result<JwsKey> elliptic(const std::string& curve, const std::string& x, const std::string& y);
    /// `RSA`, from 2048 bits on; `algorithm` RS256, RS384, RS512 (RS256 when empty).
    static Result<JwsKey> rsa(const std::string& modulus, const std::string& exponent, const std::string& algorithm);
    /// `ES256`, `RS256`, ...
    [[nodiscard]] const std::string& algorithm() const noexcept { return algorithm_; }
    [[nodiscard]] bool verify(std::string_view bytes, std::string_view signature) const;

  private:
    std::shared_ptr<evp_pkey_st> key_;
    std::string algorithm_;
};

}  // namespace penstock::crypto
