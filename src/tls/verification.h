#pragma once
#include <memory>

#include "crypto/trust.h"

struct ssl_ctx_st;

namespace penstock::tls {

/// Makes the handshakes of a context verify the peer's certificate along whichever path TrustStore::verify finds good, where
/// OpenSSL itself follows one path alone. What the context checks beside (names, verify callbacks) goes on being checked, on that
/// path; when no path is good, OpenSSL says why not. For contexts that demand or ask for a certificate; any thread.
void verify_by(ssl_ctx_st* context, std::shared_ptr<const crypto::TrustStore> trust, crypto::Purpose purpose);

}  // namespace penstock::tls
