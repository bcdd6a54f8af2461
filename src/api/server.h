#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "api/handler.h"
#include "base/result.h"
#include "crypto/certificate.h"

namespace penstock::api {

struct ServerOptions {
    std::string address = "127.0.0.1";
    std::uint16_t port = 6443;           ///< 0 picks one
    crypto::KeyPair certificate;
    std::string client_ca;   ///< PEM, one or several; client certificates of them are who they say
};

/// HTTPS front of the resource API: HTTP/1.1 with keep-alive, limits on header, body and time, streamed watches.
/// Runs on a thread of its own. Core: control.
class Server {
  public:
    Server(Handler& handler, ServerOptions options);
    ~Server();
    Result<std::uint16_t> start();
    /// Other certificates while it runs: new handshakes are met with them, sessions that were begun before
    /// are not resumed, and open connections stay. A client certificate that the new CAs do not stand for is
    /// refused from the next request on, and its watches, logs and forwarded ports end. The error says what
    /// cannot be used; all stays as it was then. Any thread.
    Result<void> use(const crypto::KeyPair& certificate, const std::string& client_ca);
    void stop();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Plain HTTP on the loopback interface for Prometheus and health checks: GET and HEAD only, one page a path.
class PageServer {
  public:
    using Page = std::function<Reply(const std::string& path)>;
    explicit PageServer(Page page);
    ~PageServer();
    /// Moves to another port; 0 closes. The error says why the port is not there.
    Result<void> listen(std::uint16_t port);
    void stop();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::api
