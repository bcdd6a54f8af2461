#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "resources/schema.h"

namespace penstock::client {

/// Where the API is and who we are; from a kubeconfig.
struct Access {
    std::string host;
    std::string port;
    std::string ca;                      ///< PEM
    std::string certificate;             ///< PEM
    std::string key;                     ///< PEM
    std::string name_space = "azure-iot-operations";
};

/// Reads a kubeconfig: its current context, certificates inline or by path. The error names the file and what is missing.
Result<Access> read_kubeconfig(const std::string& path);

struct Response {
    int status = 0;
    resources::Json body;
    std::string text;
    std::vector<std::string> warnings;

    [[nodiscard]] bool ok() const noexcept { return status >= 200 && status < 300; }
    /// The Status object's message, or the text.
    [[nodiscard]] std::string message() const;
};

/// One HTTPS connection to a resource API, ours or a kube-apiserver's. Blocking; not for two threads at a time.
class Client {
  public:
    explicit Client(Access access);
    ~Client();
    Client(Client&&) noexcept;

    Result<Response> request(const std::string& method, const std::string& target, const std::string& body = {},
                             const std::string& content_type = "application/json", const std::string& accept = "application/json");
    /// Streams a watch; `on_line` gets each event and returns false to end. Returns when the server ends the stream.
    Result<void> watch(const std::string& target, const std::string& accept, const std::function<bool(const resources::Json&)>& on_line);
    [[nodiscard]] const Access& access() const noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// `/apis/G/V/namespaces/NS/PLURAL[/NAME]`.
std::string path_of(const resources::Kind& kind, const std::string& name_space, const std::string& name = {});

}  // namespace penstock::client
