#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::crypto {

/// A certificate and its private key, PEM. The key never goes into a log or an error.
struct KeyPair {
    std::string certificate;
    std::string key;
};

struct LeafOptions {
    std::string common_name;
    std::vector<std::string> organizations;
    std::vector<std::string> dns_names;
    std::vector<std::string> addresses;
    bool server = false;                          ///< extended key usage: server, else client authentication
    int days = 365;
};

/// A self-signed CA with an EC P-256 key. X.509 v3, RFC 5280: basicConstraints CA:TRUE, keyCertSign.
Result<KeyPair> make_ca(const std::string& common_name, int days);
Result<KeyPair> make_leaf(const KeyPair& ca, const LeafOptions& options);
/// Seconds until the certificate ends; negative when it has, or cannot be read.
std::int64_t seconds_left(const std::string& certificate_pem);
/// True when every name and address is among the certificate's subject alternative names.
bool covers(const std::string& certificate_pem, const std::vector<std::string>& dns_names, const std::vector<std::string>& addresses);

}  // namespace penstock::crypto
