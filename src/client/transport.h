#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "resources/schema.h"

namespace penstock::client {

struct Response {
    int status = 0;
    resources::Json body;
    std::string text;
    std::vector<std::string> warnings;
    int retry_after_s = 0;               ///< of `Retry-After`; 0: none

    [[nodiscard]] bool ok() const noexcept { return status >= 200 && status < 300; }
    /// The Status object's message, or the text.
    [[nodiscard]] std::string message() const;
};

/// Requests to a resource API, ours or a kube-apiserver's. Implemented by Client; tests put faults in between.
class Transport {
  public:
    virtual ~Transport() = default;
    /// An error means that there is no answer: whether the request was carried out is not known.
    virtual Result<Response> request(const std::string& method, const std::string& target, const std::string& body = {},
                                     const std::string& content_type = "application/json", const std::string& accept = "application/json") = 0;
    /// Streams a watch; `on_line` gets each event and returns false to end. Returns the HTTP status when the server ends the
    /// stream (200) or refuses it.
    virtual Result<int> watch(const std::string& target, const std::string& accept, const std::function<bool(const resources::Json&)>& on_line) = 0;
    /// Ends a watch that another thread waits in. Any thread.
    virtual void interrupt() = 0;
};

/// Escaped for a value in a query, or a part of a path.
std::string query_escaped(std::string_view text);
/// `/apis/G/V/namespaces/NS/PLURAL[/NAME]`, escaped. Without a name it leads to all objects: who deletes looks that
/// there is one.
std::string path_of(const resources::Kind& kind, const std::string& name_space, const std::string& name = {});

}  // namespace penstock::client
