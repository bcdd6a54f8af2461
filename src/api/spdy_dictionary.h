#pragma once
#include <string>

namespace penstock::api {

/// The preset zlib dictionary of SPDY/3 (draft-mbelshe-httpbis-spdy-00, 2.6.10.1): frequent words with their lengths, then
/// frequent text. 1423 bytes, Adler-32 e3c6a7c2.
const std::string& spdy_dictionary();

}  // namespace penstock::api
