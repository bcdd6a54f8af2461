#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "api/authorizer.h"
#include "api/selector.h"
#include "api/tokens.h"
#include "base/log.h"
#include "registry/registry.h"

namespace penstock::api {

struct Request {
    std::string method;                  ///< upper case
    std::string path;                    ///< without the query, decoded as decoded_path() does
    std::map<std::string, std::string> query;
    std::string accept;
    std::string content_type;
    std::string authorization;
    std::string user_agent;
    std::string if_none_match;
    /// `Impersonate-*` headers, names in lower case; several values of one name in order.
    std::vector<std::pair<std::string, std::string>> impersonation;
    std::string upgrade;                 ///< the protocol of an `Upgrade`
    std::string body;
    User user;                           ///< by the client certificate
    std::string certificate_fault;   ///< why the certificate shown does not count: without a token such a
                                     ///< request is refused
};

/// What a watch asks for; the server streams it.
struct Watch {
    const resources::Kind* kind = nullptr;
    std::string name_space;
    Selector selector;
    std::uint64_t from = 0;
    bool initial_state = false;          ///< begin with the present objects as ADDED
    enum class Form : std::uint8_t { plain, table, metadata } form = Form::plain;
    bool bookmarks = false;
    bool mark_initial_end = false;       ///< sendInitialEvents
    std::int64_t timeout_s = 0;          ///< 0: the server's choice
};

/// A Pod's log; the server streams it when it is followed.
struct LogRequest {
    std::vector<std::string> modules;    ///< whose lines the container's log is
    std::uint64_t after = 0;             ///< number of the last line already sent
    bool timestamps = false;
    std::size_t bytes_left = SIZE_MAX;
};

/// Ports of a Pod that may be reached through an upgraded connection.
struct PortForward {
    std::string host;
    std::vector<int> ports;
};

struct Reply {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
    std::optional<Watch> watch;
    std::optional<LogRequest> follow;
    std::optional<PortForward> forward;
};

/// The resource API without the network: requests in, replies out. Paths, verbs, media types and errors as the
/// Kubernetes API has them. Core: the API's thread.
class Handler {
  public:
    /// `ca`: the API's CA, PEM, for those who ask where it is kept.
    Handler(registry::Registry& registry, const Tokens& tokens, std::string version)
        : registry_(registry), tokens_(tokens), authorizer_(registry), version_(std::move(version)) {}

    Reply handle(const Request& request);
    /// The answer to a request whose header alone says that nobody we know sends it (401), before its body is there; nothing: it is
    /// to be read.
    [[nodiscard]] std::optional<Reply> unauthorized(const Request& request) const;
    /// `/readyz`: whether, and what the body says; `verbose`: each thing that was looked at.
    struct Readiness {
        bool is_ready = true;
        std::string text;
    };
    void set_ready_check(std::function<Readiness(bool verbose)> check) { ready_check_ = std::move(check); }

    /// `brokers/NAME/decisions` (what was refused lately) and `brokers/NAME/clients` (who is connected where clients are asked
    /// who they are) and `brokers/NAME/traces` (`traces`, or `traces/otlp/` and a trace or nothing), as JSON objects.
    void set_broker_view(std::function<resources::Json(const std::string& what)> view) { broker_view_ = std::move(view); }

    /// `POST /penstock/broker-copy?folder=...`: the broker writes a consistent copy of its state; false: it keeps none.
    void set_broker_copy(std::function<Result<bool>(const std::string& folder)> copy) { copy_broker_ = std::move(copy); }

    /// `/penstock/certificates`: the API's own certificates and keys, as JSON (own_pki.h).
    void set_certificates(std::function<resources::Json()> certificates) {
        certificates_ = std::move(certificates);
    }
    /// `/version`: commit, date, compiler and platform of what runs (`version.Info` of Kubernetes); the version of the
    /// API itself stays what it is.
    void set_build_info(resources::Json info) { build_info_ = std::move(info); }
    /// `/metrics`: in Prometheus' text form.
    void set_metrics(std::function<std::string()> metrics) { metrics_ = std::move(metrics); }

    /// `/penstock/registry`: a consistent copy of the registry's file.
    void set_registry_copy(std::function<Result<std::string>()> copy) { copy_registry_ = std::move(copy); }

    /// The log of the run before, for `previous=true`; nothing: there was none. Without one there never is.
    using FormerLog = std::function<Result<std::optional<std::vector<log::Line>>>()>;
    void set_former_log(FormerLog former) { former_log_ = std::move(former); }

    /// One line of a watch stream, with its newline; empty when the event does not concern the watch.
    std::string watch_line(const Watch& watch, const registry::Event& event, bool first) const;
    std::string bookmark_line(const Watch& watch, std::uint64_t version, bool initial_end) const;
    /// The last line of a watch from a position whose history is not kept any more, or that is ahead of what
    /// is here (410 Gone: the client lists again).
    static std::string expired_line(std::uint64_t asked, std::uint64_t oldest);
    static std::string future_line(std::uint64_t asked, std::uint64_t current);
    /// The next lines of a log; `request.after` moves on.
    static std::string log_lines(LogRequest& request);
    [[nodiscard]] registry::Registry& registry() noexcept { return registry_; }

  private:
    struct Route {
        const resources::Kind* kind = nullptr;       ///< as which objects are kept
        const resources::Kind* shown = nullptr;      ///< the version that was asked for: `kind`, or an earlier one
        std::string name_space;
        std::string name;
        std::string subresource;
    };
    [[nodiscard]] resources::Json version_info() const;
    Reply dispatch(const Request& request, const User& user);
    Reply serve(const Request& request, const Route& route, const Access& access, const User& user);
    std::optional<Reply> authenticate(const Request& request, User& user) const;
    std::optional<Reply> impersonate(const Request& request, User& user) const;
    Reply refuse_anonymous(const User& user, const Access& access, const resources::Kind* kind) const;

    // discovery.cc
    Reply discovery(const Request& request, const std::vector<std::string>& parts) const;
    Reply openapi(const Request& request);

    // resource.cc
    Reply read(const Request& request, const Route& route) const;
    Reply write(const Request& request, const Route& route, const User& user);
    registry::Answer<registry::ObjectRef> patch_earlier(const Route& route, const resources::Json& patch, bool status, const registry::WriteOptions& options);
    Reply remove(const Request& request, const Route& route, const registry::WriteOptions& options);
    Result<resources::Json> body_of(const Request& request, int& status) const;
    std::optional<registry::Failure> escalation(const User& user, const resources::Kind& kind, const std::string& name_space, const resources::Json& object) const;

    // reviews.cc
    Reply review(const Request& request, const Route& route, const User& user);
    Reply issue_token(const Request& request, const Route& route);

    // pods.cc
    Reply pod_log(const Request& request, const Route& route) const;
    Reply port_forward(const Request& request, const Route& route) const;

    registry::Registry& registry_;
    const Tokens& tokens_;
    Authorizer authorizer_;
    std::string version_;
    resources::Json build_info_;
    std::function<Readiness(bool)> ready_check_;
    std::function<Result<std::string>()> copy_registry_;
    FormerLog former_log_;
    std::function<resources::Json()> certificates_;
    std::function<std::string()> metrics_;
    std::function<resources::Json(const std::string&)> broker_view_;
    std::function<Result<bool>(const std::string&)> copy_broker_;
    std::uint64_t openapi_of_ = 0;       ///< kinds_version() the texts below were made from
    std::map<std::string, std::string> openapi_texts_;
};

/// The Table form of objects: one row each, cells as text, ages computed now.
resources::Json make_table(const resources::Kind& kind, const std::vector<registry::ObjectRef>& items, const std::string& version, const std::string& include_object, bool with_columns);
/// `5s`, `3m12s`, `2d4h`: as kubectl shows ages.
std::string age_text(std::int64_t seconds);

// Shared by the parts of the handler.
Reply json_reply(int status, const resources::Json& body);
Reply failure_reply(const registry::Failure& failure);
Reply failure_reply(int code, std::string reason, std::string message);
/// The value of a `Warning` header (RFC 7234 section 5.5, code 299) as Kubernetes' clients read it.
std::string warning_header(const std::string& text);
std::string query_of(const Request& request, const char* key);
/// The form an Accept header asks for: the first clause that can be served.
enum class Form : std::uint8_t { plain, table, metadata, unacceptable };
Form form_of(const std::string& accept);

}  // namespace penstock::api
