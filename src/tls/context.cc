#include "tls/context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>

#include <fmt/format.h>

#include "crypto/native.h"
#include "tls/verification.h"

namespace penstock::tls {
namespace {

using crypto::bytes_of;

constexpr const char* tls12_ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                      "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
// P-521 at the end: in TLS 1.2 a server's own certificate must be on one of its groups (RFC 8422, 5.3).
constexpr const char* groups = "X25519:P-256:P-384:P-521";
constexpr long peer_certificates_bytes_max = 32 * 1024;
constexpr long ticket_seconds = 3600;

std::string alpn_wire(const std::vector<std::string>& protocols) {
    std::string out;
    for (const auto& protocol : protocols) {
        out += static_cast<char>(protocol.size());
        out += protocol;
    }
    return out;
}

/// A client chooses the key by which the worker checks its signature: what takes long is not begun.
int has_usual_key(X509_STORE_CTX* store, void*) {
    auto* leaf = X509_STORE_CTX_get0_cert(store);
    if (leaf != nullptr && X509_get0_pubkey(leaf) != nullptr && !crypto::Certificate::share(leaf).has_costly_key()) return 1;
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
}

/// The intermediates a client sent go into its ticket: OpenSSL itself keeps the leaf alone.
int make_ticket(SSL* ssl, void*) {
    const auto* chain = SSL_get_peer_cert_chain(ssl);
    std::string all;
    for (int i = 0; chain != nullptr && i < sk_X509_num(chain); ++i) {
        const auto der = crypto::Certificate::share(sk_X509_value(chain, i)).der();
        all += static_cast<char>(der.size() >> 8);
        all += static_cast<char>(der.size());
        all += der;
    }
    if (!all.empty()) SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), all.data(), all.size());
    return 1;
}

SSL_TICKET_RETURN take_ticket(SSL*, SSL_SESSION*, const unsigned char*, size_t, SSL_TICKET_STATUS status, void*) {
    switch (status) {
        case SSL_TICKET_SUCCESS: return SSL_TICKET_RETURN_USE;
        case SSL_TICKET_SUCCESS_RENEW: return SSL_TICKET_RETURN_USE_RENEW;
        case SSL_TICKET_EMPTY:
        case SSL_TICKET_NO_DECRYPT: return SSL_TICKET_RETURN_IGNORE_RENEW;
        default: return SSL_TICKET_RETURN_IGNORE;
    }
}

int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered, unsigned offered_size, void* wanted) {
    const auto& ours = *static_cast<const std::string*>(wanted);
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, out_size, bytes_of(ours), static_cast<unsigned>(ours.size()), offered, offered_size) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;   // RFC 7301, 3.2: no_application_protocol
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

Result<void> use_identity(SSL_CTX* context, const std::vector<crypto::Certificate>& chain, const std::string& key_pem) {
    const auto key = crypto::read_private_key(key_pem);
    if (!key) return fail("the private key cannot be read (is it encrypted, or not a key in PEM?)");
    if (!chain.front().matches_key(key_pem)) return fail(fmt::format("the private key is not that of the first certificate (\"{}\"); the leaf comes first", chain.front().subject()));
    if (SSL_CTX_use_certificate(context, chain.front().native()) != 1) {
        const auto why = crypto::openssl_failure("the certificate is not usable");
        return fail(fmt::format("{} (\"{}\", {}, {})", why.error().message, chain.front().subject(), chain.front().key_text(), chain.front().signature_algorithm()));
    }
    if (SSL_CTX_use_PrivateKey(context, key.get()) != 1) return crypto::openssl_failure("the private key is not usable");
    for (std::size_t i = 1; i < chain.size(); ++i)
        if (SSL_CTX_add1_chain_cert(context, chain[i].native()) != 1) {
            const auto why = crypto::openssl_failure("not usable");
            return fail(fmt::format("certificate {} of the chain (\"{}\") is {}", i + 1, chain[i].subject(), why.error().message));
        }
    return {};
}

void common_rules(SSL_CTX* context) {
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(context, tls12_ciphers);
    SSL_CTX_set1_groups_list(context, groups);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
}

}  // namespace

Context::~Context() { SSL_CTX_free(native_); }

Result<std::shared_ptr<const Context>> Context::server(const ServerOptions& options) {
    auto chain = crypto::read_certificates(options.certificate_chain);
    if (!chain) return std::unexpected(chain.error());
    if (chain->empty()) return fail("there is no certificate in it");
    const std::shared_ptr<Context> out(new Context);
    out->native_ = SSL_CTX_new(TLS_server_method());
    if (out->native_ == nullptr) return crypto::openssl_failure("preparing TLS");
    out->chain_ = std::move(*chain);
    auto* context = out->native_;
    common_rules(context);
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    if (auto done = use_identity(context, out->chain_, options.key); !done) return std::unexpected(done.error());
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(context, ticket_seconds);
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_max_early_data(context, 0);
    constexpr unsigned char id[] = "penstock";
    SSL_CTX_set_session_id_context(context, id, sizeof id - 1);
    SSL_CTX_set_max_cert_list(context, peer_certificates_bytes_max);
    if (options.ask_client_certificate) {
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
        // Whether the chain is good is decided after CONNECT, against the trust of that moment.
        SSL_CTX_set_cert_verify_callback(context, has_usual_key, nullptr);
        for (const auto& authority : options.client_authorities) SSL_CTX_add_client_CA(context, authority.native());
        SSL_CTX_set_session_ticket_cb(context, make_ticket, take_ticket, nullptr);
    }
    out->protocols_ = alpn_wire(options.protocols);
    if (!out->protocols_.empty()) SSL_CTX_set_alpn_select_cb(context, choose_protocol, &out->protocols_);
    return out;
}

Result<std::shared_ptr<const Context>> Context::client(const ClientOptions& options) {
    const std::shared_ptr<Context> out(new Context);
    out->native_ = SSL_CTX_new(TLS_client_method());
    if (out->native_ == nullptr) return crypto::openssl_failure("preparing TLS");
    auto* context = out->native_;
    common_rules(context);
    if (options.version == "tlsv1.2") SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    else if (options.version == "tlsv1.3") SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    else if (!options.version.empty()) return fail(fmt::format("\"{}\" is no TLS version; tlsv1.2 and tlsv1.3 are", options.version));
    if (!options.certificate_chain.empty()) {
        auto chain = crypto::read_certificates(options.certificate_chain);
        if (!chain) return std::unexpected(chain.error());
        if (chain->empty()) return fail("there is no client certificate in the file");
        if (auto done = use_identity(context, *chain, options.key); !done) return std::unexpected(done.error());
    }
    if (options.verify_server) {
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
        if (options.ca.empty()) {
            SSL_CTX_set_default_verify_paths(context);
        } else {
            const auto trusted = crypto::read_certificates(options.ca);
            if (!trusted) return std::unexpected(trusted.error());
            if (trusted->empty()) return fail("there is no certificate among the trusted ones");
            auto* store = SSL_CTX_get_cert_store(context);
            for (const auto& certificate : *trusted) X509_STORE_add_cert(store, certificate.native());
            X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
            verify_by(context, std::make_shared<const crypto::TrustStore>(*trusted, std::vector<crypto::RevocationList>()), crypto::Purpose::server);
        }
    }
    out->verify_name_ = options.verify_server && options.verify_name;
    out->protocols_ = alpn_wire(options.protocols);
    if (!out->protocols_.empty()) SSL_CTX_set_alpn_protos(context, bytes_of(out->protocols_), static_cast<unsigned>(out->protocols_.size()));
    return out;
}

}  // namespace penstock::tls
