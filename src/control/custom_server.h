#pragma once
#include <memory>
#include <string>

#include "base/given_clock.h"
#include "auth/methods.h"
#include "client/http_pool.h"
#include "resources/json.h"

namespace penstock::control {

using client::HttpPool;

/// AIO's HTTP contract for custom authentication, version 0.5.0 (fact sheet 4.6), over a pool of connections. `settings`:
/// `endpoint`, `ca`, `certificate`, `key`, `headers`. A server that cannot be prepared answers every question with why.
std::shared_ptr<auth::CustomMethod::Server> make_custom_server(const std::shared_ptr<HttpPool>& pool,
                                                               const resources::Json& settings,
                                                               const Clock& clock);

/// The answer of a custom authentication server, read strictly. `now_ms`: Unix time, after which an expiry
/// lies.
auth::CustomMethod::Answer custom_answer(int status, const std::string& body, std::int64_t now_ms);

/// OCSP (RFC 6960) for client certificates that name a responder. `mode` `SoftFail`: who cannot be asked about is let in;
/// `HardFail`: is not. Answers are kept until they end, failures to ask for a minute.
std::shared_ptr<auth::X509Method::Revocation> make_revocation_check(const std::shared_ptr<HttpPool>& pool,
                                                                    const std::string& mode,
                                                                    const Clock& clock);

}  // namespace penstock::control
