#pragma once
#include <string>
#include <vector>

#include "crypto/x509.h"

namespace penstock::crypto {

/// The values of one attribute of the subject (`CN`, `O`), in the certificate's order, as UTF-8. A value with
/// a NUL inside, or one that is no text, is left out: it would read differently to whoever ends texts there.
std::vector<std::string> subject_values(const Certificate& certificate, const char* attribute);

}  // namespace penstock::crypto
