#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace penstock::client {

/// Where requests go and how we show ourselves there.
struct HttpSiteOptions {
    std::string url;                     ///< `https://host[:port][/path]`, or `http://...` where `plain` is allowed
    bool plain_allowed = false;
    std::string ca;                      ///< PEM; empty: the system's
    std::string certificate, key;        ///< PEM; empty: none
    int timeout_ms = 5000;               ///< of one request, connecting included
    std::size_t body_max = 64 * 1024;    ///< of an answer
    std::size_t under_way_max = 32;      ///< requests at a time
    std::size_t waiting_max = 1000;      ///< beyond, the newest of who has most waiting fail at once
    std::size_t waiting_bytes_max = 8u << 20;   ///< of their bodies; the same holds
};

struct HttpAnswer {
    int status = 0;                      ///< 0: none came
    std::string body;
    std::string error;                   ///< why none came
    bool is_unsent = false;              ///< it was not even asked: no room for it, or nobody waits any more
};

/// A server and the connections to it that are kept open.
class HttpSite {
  public:
    virtual ~HttpSite() = default;
    /// Never blocks; `done` is called once, on the pool's thread. `target` is put behind the URL's path. A request on a kept
    /// connection that turns out dead is sent once more on a fresh one. One whose turn comes when `wanted` is false is not sent (null: always wanted).
    /// `from`: on whose behalf; those with different ones take turns, oldest first within one.
    virtual void send(std::string method, std::string target, std::vector<std::pair<std::string, std::string>> headers, std::string body, std::function<void(HttpAnswer)> done, std::function<bool()> wanted = {},
                      std::string from = {}) = 0;
};

/// Asynchronous HTTP/1.1 over TLS with one thread, for questions the broker asks others. Core: any.
class HttpPool {
  public:
    HttpPool();
    ~HttpPool();
    HttpPool(const HttpPool&) = delete;
    HttpPool& operator=(const HttpPool&) = delete;
    /// The error names what is wrong with the URL, the certificates or the key.
    Result<std::shared_ptr<HttpSite>> site(HttpSiteOptions options);
    /// Ends the thread; requests under way are dropped without an answer, and what is asked from here on has none either.
    void stop();

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace penstock::client
