#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/authorizer.h"
#include "base/result.h"
#include "registry/registry.h"

namespace penstock::api {

/// Issues and checks service-account tokens: JWTs (RFC 7519) signed with ES256, with the claims kube-apiserver writes.
/// Core: issue() from any control thread; check() from the API's thread alone; it remembers whose signatures were right.
class Tokens {
  public:
    /// `keys`: private keys, PEM; the first one signs, all verify, so that tokens of an older key live on.
    Tokens(registry::Registry& registry, std::string issuer, std::vector<std::string> keys);
    /// Keys that were rotated. Any thread.
    void set_keys(std::vector<std::string> keys);

    struct Issued {
        std::string token;
        std::int64_t expires_ms = 0;     ///< 0: never
    };
    /// `bound`: {kind, name, uid} the token lives with, or null. `seconds` 0: without end.
    Result<Issued> issue(const resources::Json& account, std::vector<std::string> audiences, std::int64_t seconds, const resources::Json& bound) const;

    struct Checked {
        User user;
        std::vector<std::string> audiences;   ///< those of `wanted` that the token has
    };
    /// The account whose token it is: signature, times, audience (any of `wanted`), the account and what it is bound to.
    /// Errors never quote the token.
    Result<Checked> check(const std::string& token, const std::vector<std::string>& wanted) const;

    /// Audiences that mean this API.
    [[nodiscard]] std::vector<std::string> own_audiences() const;
    /// `/.well-known/openid-configuration` and `/openid/v1/jwks` (OpenID Connect Discovery 1.0, RFC 7517).
    [[nodiscard]] resources::Json discovery() const;
    [[nodiscard]] resources::Json key_set() const;

  private:
    struct Key {
        std::string pem, id, x, y;
    };
    /// The claims of a token whose signature and issuer are right.
    Result<resources::Json> claims_of(const std::string& token) const;

    registry::Registry& registry_;
    std::string issuer_;
    mutable std::size_t verified_bytes_ = 0;
    mutable std::map<std::string, resources::Json> verified_;   ///< claims by the token's hash: the token itself is not kept
    mutable std::shared_ptr<const std::vector<Key>> verified_by_;   ///< the keys that `verified_` was checked with
    [[nodiscard]] std::shared_ptr<const std::vector<Key>> keys() const {
        const std::lock_guard lock(guard_);
        return keys_;
    }
    mutable std::mutex guard_;           ///< keys_
    std::shared_ptr<const std::vector<Key>> keys_;
};

}  // namespace penstock::api
