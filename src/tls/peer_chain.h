#pragma once
#include <vector>

#include "crypto/x509.h"

struct ssl_st;

namespace penstock::tls {

/// The client's certificates, leaf first, as the handshake brought them or as the resumed session kept them
/// (a server Context puts the intermediates into its tickets). Empty when it showed none.
std::vector<crypto::Certificate> peer_chain(ssl_st* connection);

}  // namespace penstock::tls
