#pragma once
#include <string>
#include <string_view>

namespace penstock::crypto {

/// Raw digest bytes (20). Only for protocols that prescribe it (RFC 6455).
std::string sha1(std::string_view bytes);
/// Raw digest bytes (32).
std::string sha256(std::string_view bytes);
/// RFC 2104 over SHA-256; raw bytes (32).
std::string hmac_sha256(std::string_view key, std::string_view bytes);

}  // namespace penstock::crypto
