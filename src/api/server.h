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
    std::string client_ca;               ///< PEM; client certificates of it are who they say
};

/// HTTPS front of the resource API: HTTP/1.1 with keep-alive, limits on header, body and time, streamed watches.
/// Runs on a thread of its own. Core: control.
class Server {
  public:
    Server(Handler& handler, ServerOptions options);
    ~Server();
    Result<std::uint16_t> start();
    void stop();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Plain HTTP on the loopback interface for Prometheus and health checks: GET only, one page a path.
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
