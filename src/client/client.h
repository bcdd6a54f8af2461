#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "client/transport.h"
#include "resources/schema.h"

namespace penstock::client {

/// Where the API is and who we are; from a kubeconfig.
struct Access {
    std::string host;
    std::string port;
    std::string ca;                      ///< PEM
    std::string certificate;             ///< PEM
    std::string key;                     ///< PEM
    std::string token;                   ///< bearer token
    std::string token_file;              ///< read again every minute and after a 401: such tokens are renewed in place
    std::string server_name;             ///< name the certificate must have, when it is not the host
    bool insecure = false;               ///< the server's certificate is not checked
    std::string name_space = "azure-iot-operations";
    std::string source;                  ///< the kubeconfig, or the folder of a pod's account; named by errors
    /// Reads it all again from where it came: certificates and addresses are renewed in place. Empty: it
    /// stays as it is.
    std::function<Result<Access>()> again;
};

/// Reads a kubeconfig: its current context, or the one named; certificates inline or by path. The error names
/// the file and what is missing. Read again it is the same context, whichever is the current one then.
Result<Access> read_kubeconfig(const std::string& path, const std::string& context = {});
/// The same from text; `path` is what relative file names are looked up beside, what errors name, and what is read again.
Result<Access> parse_kubeconfig(const std::string& text, const std::string& path, const std::string& context = {});
/// Access from within a cluster: the service account mounted into the pod. `host` and `port` are KUBERNETES_SERVICE_HOST and
/// KUBERNETES_SERVICE_PORT, `folder` is /var/run/secrets/kubernetes.io/serviceaccount.
Result<Access> in_cluster(const std::string& host, const std::string& port, const std::string& folder);

/// The access as it stands now where it came from, looked at as a whole: a CA that is none, a key of another certificate,
/// a token's file that is empty. The error names the file and what is wrong with it; what was known stays good then.
/// Access that came from nowhere is returned as it is.
Result<Access> read_again(const Access& access);

/// One HTTPS connection to a resource API, ours or a kube-apiserver's. Blocking; not for two threads at a
/// time.
///
/// Each new connection reads the access again, and so does a request that was answered with 401: a kubeconfig
/// that was rewritten is followed, connections that are open stay. One that cannot be read, or is half
/// written or faulty (read_again), leaves what was known in force.
class Client : public Transport {
  public:
    explicit Client(Access access);
    ~Client() override;
    Client(Client&&) noexcept;

    Result<Response> request(const std::string& method, const std::string& target, const std::string& body = {},
                             const std::string& content_type = "application/json", const std::string& accept = "application/json") override;
    Result<int> watch(const std::string& target, const std::string& accept, const std::function<bool(const resources::Json&)>& on_line) override;
    /// Streams an answer as it comes: its status, then pieces of text; `on_text` returns false to end.
    Result<int> stream(const std::string& target, const std::string& accept, const std::function<bool(int status, std::string_view text)>& on_text);
    /// How long a request() may take, connecting included; 60 s unless set.
    void set_answer_time(std::int64_t ms);
    /// The next request has a new connection, and reads the access again for it. The thread that makes requests.
    void reopen();
    /// Ends a request or watch that another thread waits in; the next one begins anew. Any thread.
    void interrupt() override;
    [[nodiscard]] const Access& access() const noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// The kinds a server has, from its discovery documents.
Result<std::vector<resources::Kind>> discover(Transport& client);

}  // namespace penstock::client
