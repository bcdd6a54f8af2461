#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "crypto/x509.h"

struct ssl_ctx_st;

namespace penstock::tls {

struct ServerOptions {
    std::string certificate_chain;       ///< PEM, leaf first
    std::string key;                     ///< PEM
    /// The handshake asks for a client certificate and takes whichever comes; `auth` judges it after CONNECT, where MQTT 5
    /// can say why. Without this flag none is asked for.
    bool ask_client_certificate = false;
    std::vector<crypto::Certificate> client_authorities;   ///< whose names the client is told
    std::vector<std::string> protocols;  ///< ALPN (RFC 7301), in order of preference; a client without ALPN is taken too
};

struct ClientOptions {
    std::string ca;                      ///< PEM bundle of trusted certificates; empty: the system's
    std::string certificate_chain, key;  ///< PEM; empty: none is shown
    bool verify_server = true;
    bool verify_name = true;
    std::vector<std::string> protocols;  ///< ALPN
    std::string version;                 ///< `tlsv1.2` or `tlsv1.3` alone; empty: both
};

/// What many channels share: certificate, key, rules, ticket keys. Immutable; a certificate that changes is a new Context.
/// Core: any.
class Context {
  public:
    /// TLS 1.2 (ECDHE with AEAD only) and 1.3; X25519, P-256, P-384, P-521; no renegotiation, no compression, no early data; stateless
    /// tickets, which carry the client's intermediates, so that a resumed session can be judged anew. The error names the
    /// certificate or key and what is wrong, never the key itself.
    static Result<std::shared_ptr<const Context>> server(const ServerOptions& options);
    static Result<std::shared_ptr<const Context>> client(const ClientOptions& options);
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    [[nodiscard]] ssl_ctx_st* native() const noexcept { return native_; }
    [[nodiscard]] const std::vector<crypto::Certificate>& chain() const noexcept { return chain_; }
    [[nodiscard]] bool verifies_name() const noexcept { return verify_name_; }

  private:
    Context() = default;
    ssl_ctx_st* native_ = nullptr;
    std::vector<crypto::Certificate> chain_;
    std::string protocols_;              ///< ALPN wire form
    bool verify_name_ = false;
};

}  // namespace penstock::tls
