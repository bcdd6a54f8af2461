#pragma once
#include <string>
#include <string_view>

namespace penstock::api {

/// Bodies below this many bytes are not worth the work.
inline constexpr std::size_t gzip_from_bytes = 1024;
/// Whether an `Accept-Encoding` header takes gzip (RFC 9110 section 12.5.3): by name or by `*`, not with `q=0`.
bool accepts_gzip(std::string_view accept_encoding);
/// The bytes in gzip's form (RFC 1952), fast rather than small; empty when there is no memory for it.
std::string gzip(std::string_view bytes);

}   // namespace penstock::api
