#pragma once
#include <memory>
#include <string>

#include "tls/context.h"

namespace penstock::tls {

/// Plays a handshake of TLS 1.3 and one of TLS 1.2 against the context, in memory, as a client that verifies nothing. Empty when
/// one of them is completed; else why none is: whoever served this context would serve nobody. Costs two signatures; not for
/// workers.
std::string rehearse(const std::shared_ptr<const Context>& server);

}  // namespace penstock::tls
