#include "tls/peer_chain.h"

#include <openssl/ssl.h>

#include <string_view>

namespace penstock::tls {

std::vector<crypto::Certificate> peer_chain(ssl_st* connection) {
    std::vector<crypto::Certificate> out;
    auto* leaf = SSL_get0_peer_certificate(connection);
    if (leaf == nullptr) return out;
    out.push_back(crypto::Certificate::share(leaf));
    const auto* sent = SSL_get_peer_cert_chain(connection);
    for (int i = 0; sent != nullptr && i < sk_X509_num(sent); ++i)
        if (X509_cmp(sk_X509_value(sent, i), leaf) != 0)
            out.push_back(crypto::Certificate::share(sk_X509_value(sent, i)));
    if (out.size() > 1 || SSL_session_reused(connection) != 1) return out;
    void* data = nullptr;
    std::size_t size = 0;
    SSL_SESSION_get0_ticket_appdata(SSL_get_session(connection), &data, &size);
    std::string_view kept(static_cast<const char*>(data), data != nullptr ? size : 0);
    while (kept.size() > 2) {
        const auto length = static_cast<std::size_t>(static_cast<unsigned char>(kept[0])) << 8 |
                            static_cast<unsigned char>(kept[1]);
        if (length + 2 > kept.size()) break;
        if (auto one = crypto::Certificate::from_der(kept.substr(2, length));
            one && X509_cmp(one->native(), leaf) != 0)
            out.push_back(*one);
        kept.remove_prefix(length + 2);
    }
    return out;
}

}  // namespace penstock::tls
