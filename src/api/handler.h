#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "registry/registry.h"

namespace penstock::api {

/// Who asks: from the client certificate (CN and O).
struct User {
    std::string name = "system:anonymous";
    std::vector<std::string> groups{"system:unauthenticated"};
    [[nodiscard]] bool is_master() const;
};

struct Request {
    std::string method;                  ///< upper case
    std::string path;                    ///< decoded, without the query
    std::map<std::string, std::string> query;
    std::string accept;
    std::string content_type;
    std::string authorization;
    std::string body;
    User user;
};

/// What a watch asks for; the server streams it.
struct Watch {
    const resources::Kind* kind = nullptr;
    std::string name_space;
    std::string name;                    ///< from fieldSelector metadata.name; empty: all
    std::string label_selector;
    std::uint64_t from = 0;
    bool initial_state = false;          ///< begin with the present objects as ADDED
    bool as_table = false;
    bool bookmarks = false;
    bool mark_initial_end = false;       ///< sendInitialEvents
    int timeout_s = 0;                   ///< 0: the server's choice
};

struct Reply {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
    std::optional<Watch> watch;
};

/// The resource API without the network: requests in, replies out. Paths, verbs, media types and errors as the
/// Kubernetes API has them. Any control thread.
class Handler {
  public:
    Handler(registry::Registry& registry, std::string version) : registry_(registry), version_(std::move(version)) {}

    Reply handle(const Request& request);
    /// `/readyz`: empty text is ready.
    void set_ready_check(std::function<std::string()> check) { ready_check_ = std::move(check); }

    /// One line of a watch stream, with its newline; empty when the event does not concern the watch.
    std::string watch_line(const Watch& watch, const registry::Event& event, bool first) const;
    std::string bookmark_line(const Watch& watch, std::uint64_t version, bool initial_end) const;
    static std::string expired_line(std::uint64_t asked, std::uint64_t oldest);
    [[nodiscard]] registry::Registry& registry() noexcept { return registry_; }

  private:
    struct Route;
    Reply discovery(const Request& request) const;
    Reply openapi(const Request& request) const;
    Reply resource(const Request& request, const Route& route);
    Reply read(const Request& request, const Route& route) const;
    Reply write(const Request& request, const Route& route);

    registry::Registry& registry_;
    std::string version_;
    std::function<std::string()> ready_check_;
};

/// `k=v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`, joined by commas. The error names the faulty part.
Result<bool> matches_labels(const std::string& selector, const resources::Json& object);
/// The Table form of objects: one row each, cells as text, ages computed now.
resources::Json make_table(const resources::Kind& kind, const std::vector<registry::ObjectRef>& items, std::uint64_t version, bool whole_objects, bool with_columns);
/// `5s`, `3m12s`, `2d4h`: as kubectl shows ages.
std::string age_text(std::int64_t seconds);

}  // namespace penstock::api
