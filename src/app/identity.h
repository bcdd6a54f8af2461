#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "crypto/certificate.h"

namespace penstock::app {

Result<std::string> read_file(const std::filesystem::path& path);
/// Written beside, synced and renamed, mode 0600: keys are never readable by others, not even for a moment. A file that has this
/// content is left as it is. What is there stays there when it fails.
Result<void> write_private(const std::filesystem::path& path, const std::string& content);

/// The API's own CA and certificates: made at the first start, leaves made anew when they near their end or when the
/// machine got other addresses.
struct Identity {
    crypto::KeyPair ca, server, admin;
};
Result<Identity> open_identity(const std::filesystem::path& folder);
/// Keys that sign service-account tokens, newest first. The first start makes one; a call more than 90 days later another one,
/// which signs from then on while the older ones go on verifying.
Result<std::vector<std::string>> open_token_keys(const std::filesystem::path& folder);
/// In K3s' form, for the administrator's certificate.
std::string kubeconfig_text(const Identity& identity, const std::string& address, int port);

}  // namespace penstock::app
