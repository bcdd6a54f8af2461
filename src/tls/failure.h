#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::tls {

/// What a stream begins with, as far as a few bytes tell.
enum class Opening : std::uint8_t { unknown, tls, mqtt, http };
/// Of the first bytes that came on a connection; 5 of a TLS record and 12 of an MQTT CONNECT are enough.
Opening opening_of(std::string_view came) noexcept;

/// Why the TLS of a client of ours failed, for whoever runs the broker: what happened and what to do
/// about it, with OpenSSL's own words in parentheses. `fault`: Channel::fault() of the server's side;
/// words that are not in the table come back as they are. `came`: what the failing step was given.
std::string explained(std::string_view fault, std::string_view came);

}  // namespace penstock::tls
