#include "io/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

namespace penstock::io {

bool is_ip_address(const std::string& text) {
    if (text.find('\0') != std::string::npos) return false;   // it would be read up to there
    in6_addr address{};
    for (const int family : {AF_INET, AF_INET6})
        if (inet_pton(family, text.c_str(), &address) == 1) return true;
    return false;
}

}  // namespace penstock::io
