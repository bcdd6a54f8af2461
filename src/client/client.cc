#include "client/client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::client {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

Result<std::string> read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return fail(fmt::format("{}: cannot be read", path));
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

/// `NAME-data` in base64, or the file that `NAME` points to.
Result<std::string> inline_or_file(const Json& object, const std::string& name, const std::string& config) {
    if (const auto data = text_at(object, name + "-data"); !data.empty()) {
        auto decoded = base64_decode(data);
        if (!decoded) return fail(fmt::format("{}: {}-data is not base64", config, name));
        return *decoded;
    }
    if (const auto path = text_at(object, name); !path.empty()) return read_file(path);
    return std::string();
}

const Json* by_name(const Json& list, const std::string& name) {
    if (list.is_array())
        for (const auto& entry : list)
            if (text_at(entry, "name") == name) return &entry;
    return nullptr;
}

}  // namespace

Result<Access> read_kubeconfig(const std::string& path) {
    const auto text = read_file(path);
    if (!text) return fail(text.error().message + "; is penstock running? (set --kubeconfig or KUBECONFIG)");
    const auto documents = resources::parse_documents(*text, path);
    if (!documents) return std::unexpected(documents.error());
    if (documents->empty()) return fail(fmt::format("{}: empty", path));
    const auto& config = documents->front().object;
    const auto* context = by_name(at_path(config, "contexts"), text_at(config, "current-context"));
    if (context == nullptr) return fail(fmt::format("{}: no context \"{}\"", path, text_at(config, "current-context")));
    const auto* cluster = by_name(at_path(config, "clusters"), text_at(*context, "context.cluster"));
    const auto* user = by_name(at_path(config, "users"), text_at(*context, "context.user"));
    if (cluster == nullptr || user == nullptr) return fail(fmt::format("{}: the context's cluster or user is missing", path));
    Access out;
    const auto server = text_at(*cluster, "cluster.server");
    if (!server.starts_with("https://")) return fail(fmt::format("{}: server \"{}\" is not an https:// address", path, server));
    auto address = server.substr(8);
    address = address.substr(0, address.find('/'));
    const auto colon = address.rfind(':');
    out.host = address.substr(0, colon);
    out.port = colon == std::string::npos ? "443" : address.substr(colon + 1);
    auto take = [&](const Json& from, const char* name, std::string& into) -> Result<void> {
        auto value = inline_or_file(from, name, path);
        if (!value) return std::unexpected(value.error());
        into = *value;
        return {};
    };
    if (auto r = take(at_path(*cluster, "cluster"), "certificate-authority", out.ca); !r) return std::unexpected(r.error());
    if (auto r = take(at_path(*user, "user"), "client-certificate", out.certificate); !r) return std::unexpected(r.error());
    if (auto r = take(at_path(*user, "user"), "client-key", out.key); !r) return std::unexpected(r.error());
    out.name_space = text_at(*context, "context.namespace", out.name_space);
    return out;
}

std::string Response::message() const {
    auto out = text_at(body, "message");
    return out.empty() ? text : out;
}

struct Client::Impl {
    Access access;
    asio::io_context context;
    asio::ssl::context tls{asio::ssl::context::tls_client};
    std::unique_ptr<beast::ssl_stream<beast::tcp_stream>> stream;
    beast::flat_buffer buffer;

    Result<void> open() {
        if (stream) return {};
        try {
            asio::ip::tcp::resolver resolver(context);
            auto fresh = std::make_unique<beast::ssl_stream<beast::tcp_stream>>(context, tls);
            beast::get_lowest_layer(*fresh).connect(resolver.resolve(access.host, access.port));
            fresh->set_verify_mode(asio::ssl::verify_peer);
            fresh->set_verify_callback(asio::ssl::host_name_verification(access.host));
            fresh->handshake(asio::ssl::stream_base::client);
            stream = std::move(fresh);
            buffer.clear();
            return {};
        } catch (const boost::system::system_error& error) {
            return fail(fmt::format("the resource API at https://{}:{} cannot be reached: {}; is penstock running?", access.host, access.port, error.code().message()));
        }
    }
    http::request<http::string_body> make(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type, const std::string& accept) {
        http::request<http::string_body> out{http::string_to_verb(method), target, 11};
        out.set(http::field::host, fmt::format("{}:{}", access.host, access.port));
        out.set(http::field::user_agent, "penstock");
        out.set(http::field::accept, accept);
        if (!body.empty()) out.set(http::field::content_type, content_type);
        out.body() = body;
        out.prepare_payload();
        return out;
    }
};

Client::Client(Access access) : impl_(std::make_unique<Impl>()) {
    impl_->access = std::move(access);
    error_code ignored;   // a faulty certificate shows itself in the handshake, with OpenSSL's own words
    auto& tls = impl_->tls;
    if (impl_->access.ca.empty()) tls.set_default_verify_paths(ignored);
    else tls.add_certificate_authority(asio::buffer(impl_->access.ca), ignored);
    if (!impl_->access.certificate.empty()) {
        tls.use_certificate_chain(asio::buffer(impl_->access.certificate), ignored);
        tls.use_private_key(asio::buffer(impl_->access.key), asio::ssl::context::pem, ignored);
    }
}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;

const Access& Client::access() const noexcept { return impl_->access; }

Result<Response> Client::request(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type,
                                 const std::string& accept) {
    auto& s = *impl_;
    // A connection that the server closed meanwhile is opened once more; only what was never answered is sent again.
    for (int attempt = 0;; ++attempt) {
        const bool reused = s.stream != nullptr;
        if (auto opened = s.open(); !opened) return std::unexpected(opened.error());
        error_code error;
        const auto message = s.make(method, target, body, content_type, accept);
        http::write(*s.stream, message, error);
        http::response_parser<http::string_body> parser;
        parser.body_limit(256u << 20);
        if (!error) http::read(*s.stream, s.buffer, parser, error);
        if (error) {
            s.stream.reset();
            if (reused && attempt == 0) continue;
            return fail(fmt::format("{} {}: {}", method, target, error.message()));
        }
        const auto& answer = parser.get();
        Response out{.status = static_cast<int>(answer.result_int()), .text = answer.body()};
        for (const auto& field : answer)
            if (field.name_string() == "Warning") out.warnings.emplace_back(field.value());
        if (auto parsed = resources::parse_json(out.text)) out.body = std::move(*parsed);
        if (!answer.keep_alive()) s.stream.reset();
        return out;
    }
}

Result<void> Client::watch(const std::string& target, const std::string& accept, const std::function<bool(const Json&)>& on_line) {
    auto& s = *impl_;
    s.stream.reset();
    if (auto opened = s.open(); !opened) return opened;
    error_code error;
    http::write(*s.stream, s.make("GET", target, {}, {}, accept), error);
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    if (!error) http::read_header(*s.stream, s.buffer, parser, error);
    if (error) return fail(fmt::format("watch {}: {}", target, error.message()));
    std::string pending;
    char piece[16'384];
    while (!parser.is_done()) {
        parser.get().body().data = piece;
        parser.get().body().size = sizeof piece;
        http::read_some(*s.stream, s.buffer, parser, error);
        if (error == http::error::need_buffer) error = {};
        if (error) break;
        pending.append(piece, sizeof piece - parser.get().body().size);
        for (auto end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
            const auto event = resources::parse_json(std::string_view(pending).substr(0, end));
            pending.erase(0, end + 1);
            if (event && !on_line(*event)) {
                s.stream.reset();
                return {};
            }
        }
    }
    s.stream.reset();
    if (error && error != http::error::end_of_stream && error != asio::ssl::error::stream_truncated) return fail(fmt::format("watch {}: {}", target, error.message()));
    return {};
}

std::string path_of(const resources::Kind& kind, const std::string& name_space, const std::string& name) {
    auto out = (kind.group.empty() ? "/api/" : "/apis/") + kind.api_version();
    if (kind.namespaced && !name_space.empty()) out += "/namespaces/" + name_space;
    out += "/" + kind.plural;
    if (!name.empty()) out += "/" + name;
    return out;
}

}  // namespace penstock::client
