#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "auth/methods.h"
#include "crypto/x509.h"

namespace penstock::control {

/// One method of a BrokerAuthentication, as far as it can stop letting anybody in without a change of any resource.
struct WayIn {
    std::string method;                  ///< `X509`, `Password`, ...
    std::string field;                   ///< of its resource: `BrokerAuthentication ns/name: spec.authenticationMethods[0]`
    std::string source;                  ///< `ConfigMap ns/name`, `Secret ns/name`, the address of a server
    std::vector<crypto::Certificate> trusted;                ///< X509
    std::vector<std::string> put;                            ///< of each: the command that puts others into its entry; Password: the one that adds a user
    std::size_t users = 0;                                   ///< Password: who can log in
    bool keys_are_known = true;                              ///< ServiceAccountToken
    std::shared_ptr<auth::CustomMethod::Server> server;      ///< Custom
    bool is_closed = false;                                  ///< Custom: an unreachable server refuses
};

/// How the ways into a port stand now.
struct WaysIn {
    std::string nobody;                  ///< not empty: no client can prove who it is; why, and what to do
    std::vector<std::string> warnings;   ///< ways that are shut while another is open, or that shut soon
};
/// `now_ms`: Unix time. Asks custom servers for a sign of life where nobody asked them lately.
WaysIn look_at(const std::vector<WayIn>& ways, std::int64_t now_ms);

}  // namespace penstock::control
