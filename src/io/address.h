#pragma once
#include <string>

namespace penstock::io {

/// Whether a text is an IPv4 or IPv6 address as inet_pton(3) reads it: no name, no zone, no port. Any thread.
bool is_ip_address(const std::string& text);

}  // namespace penstock::io
