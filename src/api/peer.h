#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/authorizer.h"
#include "crypto/trust.h"
#include "crypto/x509.h"

namespace penstock::api {

/// Who is at the other end of a connection, by the certificate shown in its handshake or kept in the session
/// it resumed.
///
/// Neither the handshake nor a resumption is believed for good: the chain is judged at each request against
/// what is trusted then, as kube-apiserver does, so a CA that is no longer trusted and a certificate that has
/// ended count at once. Core: the API's thread.
class Peer {
  public:
    struct Identity {
        User user;   ///< anonymous where there is a fault
        std::string
            fault;   ///< why the certificate shown does not count; empty when it does, or none was shown
    };

    explicit Peer(std::vector<crypto::Certificate> chain) : chain_(std::move(chain)) {}
    [[nodiscard]] bool has_certificate() const noexcept { return !chain_.empty(); }
    /// `trust`: the CAs that count now. `now_ms`: Unix time. An answer is kept until it can change.
    const Identity& identity(const std::shared_ptr<const crypto::TrustStore>& trust, std::int64_t now_ms);

  private:
    std::vector<crypto::Certificate> chain_;
    Identity identity_;
    std::shared_ptr<const crypto::TrustStore> judged_by_;
    std::int64_t judged_at_ = 0, good_until_ = 0;
};

}  // namespace penstock::api
