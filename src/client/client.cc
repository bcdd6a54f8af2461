#include "client/client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <tuple>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "tls/verification.h"

namespace penstock::client {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr auto silence_time = std::chrono::seconds(660);
constexpr std::int64_t answer_ms = 60'000;
constexpr std::int64_t connect_ms = 10'000;   // each: the name, the connection, the handshake
constexpr std::size_t line_bytes_max = std::size_t{64} << 20;   // of a watch: an object has 3 MiB at most
constexpr std::int64_t token_reread_ms = 60'000;
using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

Result<std::string> read_file(const std::string& path) { return read_whole_file(path); }

/// `NAME-data` in base64, or the file that `NAME` points to.
Result<std::string> inline_or_file(const Json& object, const std::string& name, const std::string& config) {
    if (const auto data = text_at(object, name + "-data"); !data.empty()) {
        auto decoded = base64_decode(data);
        if (!decoded) return fail(fmt::format("{}: {}-data is not base64", config, name));
        return *decoded;
    }
    // Relative to the kubeconfig, as kubectl takes it.
    if (const auto path = text_at(object, name); !path.empty()) return read_file(std::filesystem::path(config).parent_path() / path);
    return std::string();
}

const Json* by_name(const Json& list, const std::string& name) {
    if (list.is_array())
        for (const auto& entry : list)
            if (text_at(entry, "name") == name) return &entry;
    return nullptr;
}

}  // namespace

Result<Access> read_kubeconfig(const std::string& path, const std::string& wanted_context) {
    const auto text = read_file(path);
    if (!text) return fail(text.error().message + "; is penstock running? (set --kubeconfig or KUBECONFIG)");
    return parse_kubeconfig(*text, path, wanted_context);
}

Result<Access> parse_kubeconfig(const std::string& text, const std::string& path, const std::string& wanted_context) {
    const auto documents = resources::parse_documents(text, path);
    if (!documents) return std::unexpected(documents.error());
    if (documents->empty()) return fail(fmt::format("{}: empty", path));
    const auto& config = documents->front().object;
    const auto context_name = wanted_context.empty() ? text_at(config, "current-context") : wanted_context;
    const auto* context = by_name(at_path(config, "contexts"), context_name);
    if (context == nullptr) return fail(fmt::format("{}: no context \"{}\"", path, context_name));
    const auto* cluster = by_name(at_path(config, "clusters"), text_at(*context, "context.cluster"));
    const auto* user = by_name(at_path(config, "users"), text_at(*context, "context.user"));
    if (cluster == nullptr || user == nullptr) return fail(fmt::format("{}: the context's cluster or user is missing", path));
    Access out;
    const auto server = text_at(*cluster, "cluster.server");
    if (!server.starts_with("https://")) return fail(fmt::format("{}: server \"{}\" is not an https:// address", path, server));
    auto address = server.substr(8);
    address = address.substr(0, address.find('/'));
    if (address.starts_with('[')) {
        const auto end = address.find(']');
        out.host = address.substr(1, end - 1);
        out.port = end != std::string::npos && end + 2 < address.size() ? address.substr(end + 2) : "443";
    } else {
        const auto colon = address.rfind(':');
        out.host = address.substr(0, colon);
        out.port = colon == std::string::npos ? "443" : address.substr(colon + 1);
    }
    auto take = [&](const Json& from, const char* name, std::string& into) -> Result<void> {
        auto value = inline_or_file(from, name, path);
        if (!value) return std::unexpected(value.error());
        into = *value;
        return {};
    };
    if (auto r = take(at_path(*cluster, "cluster"), "certificate-authority", out.ca); !r) return std::unexpected(r.error());
    if (auto r = take(at_path(*user, "user"), "client-certificate", out.certificate); !r) return std::unexpected(r.error());
    if (auto r = take(at_path(*user, "user"), "client-key", out.key); !r) return std::unexpected(r.error());
    const auto& user_entry = at_path(*user, "user");
    out.token = text_at(user_entry, "token");
    out.token_file = text_at(user_entry, "tokenFile");
    if (user_entry.is_object() && (user_entry.contains("exec") || user_entry.contains("auth-provider")))
        return fail(fmt::format("{}: user \"{}\" uses a credential plugin, which is not run here; use a token or a client certificate", path, text_at(*user, "name")));
    out.server_name = text_at(*cluster, "cluster.tls-server-name");
    if (const auto& skip = at_path(*cluster, "cluster.insecure-skip-tls-verify"); skip.is_boolean()) out.insecure = skip.get<bool>();
    out.name_space = text_at(*context, "context.namespace", out.name_space);
    out.source = path;
    out.again = [path, context_name] { return read_kubeconfig(path, context_name); };
    return out;
}

Result<Access> in_cluster(const std::string& host, const std::string& port, const std::string& folder) {
    if (host.empty()) return fail("KUBERNETES_SERVICE_HOST is not set: this is no pod of a cluster");
    Access out{.host = host, .port = port.empty() ? "443" : port};
    const auto ca = read_file(folder + "/ca.crt");
    if (!ca) return std::unexpected(ca.error());
    out.ca = *ca;
    out.token_file = folder + "/token";
    if (const auto space = read_file(folder + "/namespace")) out.name_space = std::string(trim(*space));
    out.source = folder;
    out.again = [host, port, folder] { return in_cluster(host, port, folder); };
    return out;
}

Result<Access> read_again(const Access& access) {
    if (!access.again) return access;
    auto out = access.again();
    if (!out) return out;
    auto faulty = [&](const char* what, const std::string& why) {
        return fail(fmt::format("{}: {}: {}", out->source, what, why));
    };
    if (!out->ca.empty()) {
        const auto trusted = crypto::read_certificates(out->ca);
        if (!trusted) return faulty("the CA of the resource API", trusted.error().message);
        if (trusted->empty()) return faulty("the CA of the resource API", "no certificate in PEM");
    }
    if (!out->certificate.empty()) {
        const auto chain = crypto::read_certificates(out->certificate);
        if (!chain) return faulty("the client certificate", chain.error().message);
        if (chain->empty()) return faulty("the client certificate", "no certificate in PEM");
        if (!chain->front().matches_key(out->key)) return faulty("the client key", "it is not that of the client certificate");
    }
    if (!out->token_file.empty()) {
        const auto token = read_file(out->token_file);
        if (!token) return std::unexpected(token.error());
        if (trim(*token).empty()) return fail(fmt::format("{}: no token in the file", out->token_file));
    }
    return out;
}

std::string Response::message() const {
    auto out = text_at(body, "message");
    return out.empty() ? text : out;
}

struct Client::Impl {
    Access access;
    asio::io_context context;
    std::unique_ptr<asio::ssl::context> tls;
    std::unique_ptr<beast::ssl_stream<beast::tcp_stream>> stream;
    beast::flat_buffer buffer;
    std::int64_t token_read_at = 0;
    std::int64_t patience_ms = answer_ms,
                 deadline_ms = 0;   ///< of a request; when the one under way must have its answer

    /// What is left for a step, until the request's own end.
    [[nodiscard]] std::chrono::milliseconds left(std::int64_t at_most_ms) const {
        return std::chrono::milliseconds(
            std::max<std::int64_t>(1, std::min(at_most_ms, deadline_ms - monotonic_ms())));
    }

    void prepare_tls() {
        error_code ignored;   // a faulty certificate shows itself in the handshake, with OpenSSL's own words
        tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
        if (access.ca.empty()) tls->set_default_verify_paths(ignored);
        else tls->add_certificate_authority(asio::buffer(access.ca), ignored);
        if (auto trusted = crypto::read_certificates(access.ca); trusted && !trusted->empty())
            tls::verify_by(tls->native_handle(), std::make_shared<const crypto::TrustStore>(std::move(*trusted), std::vector<crypto::RevocationList>()),
                           crypto::Purpose::server);
        if (access.certificate.empty()) return;
        tls->set_password_callback([](std::size_t, asio::ssl::context::password_purpose) { return std::string(); }, ignored);   // never asked on the terminal
        tls->use_certificate_chain(asio::buffer(access.certificate), ignored);
        tls->use_private_key(asio::buffer(access.key), asio::ssl::context::pem, ignored);
    }
    /// Takes over what the kubeconfig says now. True: something else than before.
    bool read_access() {
        if (!access.again) return false;
        const auto now = read_again(access);
        if (!now) {
            log::debug("client",
                       "the access to the resource API cannot be read again and stays as it was: {}",
                       now.error().message);
            return false;
        }
        auto facts = [](const Access& a) {
            return std::tie(a.host, a.port, a.ca, a.certificate, a.key, a.server_name, a.insecure,
                            a.token_file);
        };
        const bool other_token = access.token_file.empty() && now->token != access.token;
        if (facts(*now) == facts(access) && !other_token) return false;
        log::debug("client", "the access to the resource API changed and is followed api=https://{}:{}",
                   now->host, now->port);
        auto kept = access;
        access = *now;
        access.name_space = std::move(kept.name_space);
        if (!access.token_file.empty())
            access.token = access.token_file == kept.token_file ? std::move(kept.token) : std::string();
        prepare_tls();
        return true;
    }
    /// The token to show: from the file it is read anew every minute, and at once when it was refused.
    std::string token(bool again) {
        if (access.token_file.empty()) return access.token;
        if (again || access.token.empty() || monotonic_ms() - token_read_at > token_reread_ms) {
            // A file that is being written is empty for a moment.
            if (const auto text = read_file(access.token_file); text && !trim(*text).empty())
                access.token = std::string(trim(*text));
            token_read_at = monotonic_ms();
        }
        return access.token;
    }
    /// Waits for what was begun; a read that never ends is ended by its deadline.
    error_code finish(std::optional<error_code>& done) {
        context.restart();
        while (!done && context.run_one() > 0) {}
        return done.value_or(asio::error::operation_aborted);
    }

    /// The addresses of the host. The library cannot break a look-up off: whoever waits for a name gives up
    /// by himself.
    std::vector<asio::ip::tcp::endpoint> resolve(error_code& error) {
        if (const auto address = asio::ip::make_address(access.host, error); !error)
            return {{address, parse_number<std::uint16_t>(access.port).value_or(443)}};
        struct Search {
            asio::ip::tcp::resolver resolver;
            asio::steady_timer over;
            std::optional<error_code> done;
            std::vector<asio::ip::tcp::endpoint> found;
            Search(asio::io_context& c, std::chrono::milliseconds at_most) : resolver(c), over(c, at_most) {}
        };
        const auto search = std::make_shared<Search>(context, left(connect_ms));
        search->over.async_wait([search](error_code) {
            if (!search->done) search->done = asio::error::timed_out;
        });
        search->resolver.async_resolve(
            access.host, access.port,
            [search](error_code failed, const asio::ip::tcp::resolver::results_type& results) {
                if (search->done) return;
                search->done = failed;
                for (const auto& entry : results) search->found.push_back(entry.endpoint());
                search->over.cancel();
            });
        error = finish(search->done);
        return search->found;
    }

    /// A name goes into the first message of the handshake, so that a server with several certificates shows
    /// the right one (RFC 6066, 3).
    void name_server() {
        const auto& name = access.server_name.empty() ? access.host : access.server_name;
        error_code no_address;
        asio::ip::make_address(name, no_address);
        auto text = name;   // OpenSSL takes what it does not change as if it did
        if (no_address)
            SSL_ctrl(stream->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                     text.data());
        stream->set_verify_mode(access.insecure ? asio::ssl::verify_none : asio::ssl::verify_peer);
        if (!access.insecure) stream->set_verify_callback(asio::ssl::host_name_verification(name));
    }

    Result<void> open() {
        if (stream) return {};
        read_access();
        error_code error;
        const auto found = resolve(error);
        std::optional<error_code> done;
        if (!error) {
            stream = std::make_unique<beast::ssl_stream<beast::tcp_stream>>(context, *tls);
            name_server();
            auto& lowest = beast::get_lowest_layer(*stream);
            lowest.expires_after(left(connect_ms));
            lowest.async_connect(found, [&](error_code e, const auto&) { done = e; });
            error = finish(done);
        }
        if (!error) {
            // A server that takes the connection and says nothing is no server.
            beast::get_lowest_layer(*stream).expires_after(left(connect_ms));
            done.reset();
            stream->async_handshake(asio::ssl::stream_base::client, [&](error_code e) { done = e; });
            error = finish(done);
        }
        buffer.clear();
        if (!error) return {};
        stream.reset();
        const auto why = error == beast::error::timeout || error == asio::error::timed_out
                             ? std::string("no answer in time")
                             : error.message();
        return fail(
            fmt::format("the resource API at https://{}:{} cannot be reached: {}; is penstock running?",
                        access.host, access.port, why));
    }
    http::request<http::string_body> make(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type, const std::string& accept) {
        http::request<http::string_body> out{http::string_to_verb(method), target, 11};
        out.set(http::field::host, fmt::format("{}:{}", access.host, access.port));
        out.set(http::field::user_agent, "penstock");
        out.set(http::field::accept, accept);
        if (!body.empty()) out.set(http::field::content_type, content_type);
        if (const auto bearer = token(false); !bearer.empty()) out.set(http::field::authorization, "Bearer " + bearer);
        out.body() = body;
        out.prepare_payload();
        return out;
    }
};

Client::Client(Access access) : impl_(std::make_unique<Impl>()) {
    impl_->access = std::move(access);
    impl_->prepare_tls();
}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;

const Access& Client::access() const noexcept { return impl_->access; }
void Client::set_answer_time(std::int64_t ms) { impl_->patience_ms = ms; }

Result<Response> Client::request(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type,
                                 const std::string& accept) {
    auto& s = *impl_;
    s.deadline_ms = monotonic_ms() + s.patience_ms;
    // A connection that the server closed meanwhile is opened once more; only what was never answered is sent again.
    for (int attempt = 0;; ++attempt) {
        const bool reused = s.stream != nullptr;
        if (auto opened = s.open(); !opened) return std::unexpected(opened.error());
        error_code error;
        const auto message = s.make(method, target, body, content_type, accept);
        // The deadlines of Beast's streams hold for asynchronous operations only.
        beast::get_lowest_layer(*s.stream).expires_after(s.left(s.patience_ms));
        std::optional<error_code> done;
        http::async_write(*s.stream, message, [&](error_code e, std::size_t) { done = e; });
        error = s.finish(done);
        http::response_parser<http::string_body> parser;
        parser.body_limit(256u << 20);
        const bool was_cut =
            error && error != beast::error::timeout && error != asio::error::operation_aborted;
        // A server that refuses a body may close while it is being sent: its answer lies there, and says why.
        // On a connection that was idle it may be a farewell that belongs to no request: that one is opened
        // once more.
        if (!error || (was_cut && !(reused && attempt == 0))) {
            error_code unread;
            done.reset();
            http::async_read(*s.stream, s.buffer, parser, [&](error_code e, std::size_t) { done = e; });
            unread = s.finish(done);
            if (!was_cut || !unread) error = unread;
        }
        if (error) {
            s.stream.reset();
            // One that was waited for in vain is not asked a second time, and an order to stop is one.
            if (reused && attempt == 0 && error != beast::error::timeout &&
                error != asio::error::operation_aborted)
                continue;
            return fail(fmt::format("{} {}: {}", method, target,
                                    error == beast::error::timeout ? "no answer in time" : error.message()));
        }
        const auto& answer = parser.get();
        Response out{.status = static_cast<int>(answer.result_int()), .text = answer.body()};
        for (const auto& field : answer)
            if (field.name_string() == "Warning") out.warnings.emplace_back(field.value());
        if (auto parsed = resources::parse_json(out.text, resources::written_depth_max)) out.body = std::move(*parsed);
        if (const auto after = answer.find(http::field::retry_after); after != answer.end()) out.retry_after_s = parse_number<int>(std::string_view(after->value().data(), after->value().size())).value_or(1);
        if (was_cut || !answer.keep_alive()) s.stream.reset();
        if (out.status == 401 && attempt == 0) {
            // Who we are may have been renewed since the connection was opened.
            const auto before = s.access.token;
            const bool other_access = s.read_access();
            if (other_access) s.stream.reset();
            if (other_access || (!s.access.token_file.empty() && s.token(true) != before)) continue;
        }
        return out;
    }
}

Result<int> Client::stream(const std::string& target, const std::string& accept, const std::function<bool(int status, std::string_view text)>& on_text) {
    auto& s = *impl_;
    s.stream.reset();
    s.deadline_ms = monotonic_ms() + answer_ms;
    if (auto opened = s.open(); !opened) return std::unexpected(opened.error());
    std::optional<error_code> done;
    beast::get_lowest_layer(*s.stream).expires_after(s.left(answer_ms));
    const auto message = s.make("GET", target, {}, {}, accept);
    http::async_write(*s.stream, message, [&](error_code e, std::size_t) { done = e; });
    auto error = s.finish(done);
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    if (!error) {
        done.reset();
        http::async_read_header(*s.stream, s.buffer, parser, [&](error_code e, std::size_t) { done = e; });
        error = s.finish(done);
    }
    if (error) {
        s.stream.reset();
        return fail(fmt::format("{}: {}", target, error.message()));
    }
    const int status = static_cast<int>(parser.get().result_int());
    std::vector<char> piece(16'384);
    bool wanted = true;
    while (wanted && !parser.is_done()) {
        parser.get().body().data = piece.data();
        parser.get().body().size = piece.size();
        // Longer than any watch is asked to last: a connection that died unnoticed ends here.
        beast::get_lowest_layer(*s.stream).expires_after(silence_time);
        done.reset();
        http::async_read_some(*s.stream, s.buffer, parser, [&](error_code e, std::size_t) { done = e; });
        error = s.finish(done);
        if (error == http::error::need_buffer) error = {};
        if (error) break;
        const std::string_view text(piece.data(), piece.size() - parser.get().body().size);
        if (!text.empty()) wanted = on_text(status, text);
    }
    s.stream.reset();
    if (error && error != http::error::end_of_stream && error != asio::ssl::error::stream_truncated && error != http::error::partial_message) return fail(fmt::format("{}: {}", target, error.message()));
    if (error == http::error::partial_message) return fail(fmt::format("{}: the stream was cut", target));
    return status;
}

Result<int> Client::watch(const std::string& target, const std::string& accept, const std::function<bool(const Json&)>& on_line) {
    std::string pending, fault;
    auto ended = stream(target, accept, [&](int status, std::string_view text) {
        if (status != 200) return false;
        auto from = pending.size();
        pending += text;
        std::size_t taken = 0;
        for (auto end = pending.find('\n', from); end != std::string::npos; end = pending.find('\n', from)) {
            const auto line = std::string_view(pending).substr(taken, end - taken);
            taken = from = end + 1;
            const auto event = resources::parse_json(line, resources::written_depth_max);
            // A line left out would be a change that nobody learns of: the watch ends, and begins again where
            // it stood.
            if (!event) fault = fmt::format("a line of the watch is no JSON: {}", event.error().message);
            if (!event || !on_line(*event)) return false;
        }
        pending.erase(0, taken);
        if (pending.size() > line_bytes_max)
            fault = fmt::format("a line of the watch is longer than {} bytes", line_bytes_max);
        return fault.empty();
    });
    if (!fault.empty()) return fail(fmt::format("{}: {}", target, fault));
    return ended;
}

void Client::reopen() { impl_->stream.reset(); }

void Client::interrupt() {
    asio::post(impl_->context, [s = impl_.get()] {
        if (s->stream) beast::get_lowest_layer(*s->stream).cancel();
    });
}

Result<std::vector<resources::Kind>> discover(Transport& client) {
    std::vector<resources::Kind> out;
    constexpr const char* accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for (const char* path : {"/api", "/apis"}) {
        const auto answer = client.request("GET", path, {}, {}, accept);
        if (!answer) return std::unexpected(answer.error());
        if (!answer->ok()) return fail(answer->message());
        const auto& items = at_path(answer->body, "items");
        if (!items.is_array()) return fail(fmt::format("{} has no aggregated discovery; a Kubernetes API from 1.26 on is needed", path));
        for (const auto& group : items)
            for (const auto& version : at_path(group, "versions"))
                for (const auto& r : at_path(version, "resources")) {
                    resources::Kind kind{.group = text_at(group, "metadata.name"), .version = text_at(version, "version"), .kind = text_at(r, "responseKind.kind"), .plural = text_at(r, "resource"),
                                         .singular = text_at(r, "singularResource"), .namespaced = text_at(r, "scope") == "Namespaced"};
                    for (const auto& name : at_path(r, "shortNames")) kind.short_names.push_back(name.get<std::string>());
                    for (const auto& name : at_path(r, "categories")) kind.categories.push_back(name.get<std::string>());
                    const auto& verbs = at_path(r, "verbs");
                    kind.stored = verbs.is_array() && std::ranges::find(verbs, Json("get")) != verbs.end();
                    kind.read_only = verbs.is_array() && std::ranges::find(verbs, Json("create")) == verbs.end();
                    out.push_back(std::move(kind));
                }
    }
    return out;
}

std::string query_escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || c == '~') out += c;
        else out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    return out;
}

std::string path_of(const resources::Kind& kind, const std::string& name_space, const std::string& name) {
    auto out = (kind.group.empty() ? "/api/" : "/apis/") + kind.api_version();
    if (kind.namespaced && !name_space.empty()) out += "/namespaces/" + query_escaped(name_space);
    out += "/" + kind.plural;
    if (!name.empty()) out += "/" + query_escaped(name);
    return out;
}

}  // namespace penstock::client
