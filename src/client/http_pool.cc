#include "client/http_pool.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "base/text.h"
#include "base/turns.h"
#include "tls/verification.h"

namespace penstock::client {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t idle_max = 8, request_bytes = 64;

struct Connection {
    std::unique_ptr<beast::tcp_stream> plain;
    std::unique_ptr<beast::ssl_stream<beast::tcp_stream>> secure;
    beast::flat_buffer buffer;
    beast::tcp_stream& lowest() { return secure ? beast::get_lowest_layer(*secure) : *plain; }
};

struct Question {
    http::request<http::string_body> request;
    std::function<void(HttpAnswer)> done;
    std::function<bool()> wanted;
};

}  // namespace

namespace {

class Site final : public HttpSite, public std::enable_shared_from_this<Site> {
  public:
    Site(asio::io_context& context, HttpSiteOptions options) : context_(context), options_(std::move(options)) {}

    Result<void> prepare() {
        std::string_view url = options_.url;
        if (url.starts_with("https://")) {
            secure_ = true;
            url.remove_prefix(8);
        } else if (options_.plain_allowed && url.starts_with("http://")) {
            url.remove_prefix(7);
        } else {
            return fail(fmt::format("\"{}\" is no https:// address", options_.url));
        }
        const auto slash = url.find('/');
        path_ = slash == std::string_view::npos ? "" : url.substr(slash);
        while (path_.ends_with('/')) path_.pop_back();
        auto authority = url.substr(0, slash);
        const auto colon = authority.rfind(':');
        const bool has_port = colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos;
        port_ = has_port ? std::string(authority.substr(colon + 1)) : secure_ ? "443" : "80";
        host_ = authority.substr(0, has_port ? colon : std::string_view::npos);
        if (host_.starts_with('[') && host_.ends_with(']')) host_ = host_.substr(1, host_.size() - 2);
        if (host_.empty() || !parse_number<std::uint16_t>(port_)) return fail(fmt::format("\"{}\" names no host, or no port from 1 to 65535", options_.url));
        if (!secure_) return {};
        error_code error;
        tls_.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
        tls_.set_verify_mode(asio::ssl::verify_peer, error);
        if (options_.ca.empty()) tls_.set_default_verify_paths(error);
        else tls_.add_certificate_authority(asio::buffer(options_.ca), error);
        if (error) return fail(fmt::format("the CA certificates cannot be used: {}", error.message()));
        if (!options_.ca.empty()) {
            auto trusted = crypto::read_certificates(options_.ca);
            if (!trusted) return fail(fmt::format("the CA certificates cannot be used: {}", trusted.error().message));
            tls::verify_by(tls_.native_handle(), std::make_shared<const crypto::TrustStore>(std::move(*trusted), std::vector<crypto::RevocationList>()), crypto::Purpose::server);
        }
        if (!options_.certificate.empty()) {
            tls_.set_password_callback([](std::size_t, asio::ssl::context::password_purpose) { return std::string(); }, error);   // never asked on the terminal
            tls_.use_certificate_chain(asio::buffer(options_.certificate), error);
            if (!error) tls_.use_private_key(asio::buffer(options_.key), asio::ssl::context::pem, error);
            if (error) return fail(fmt::format("the client certificate or its key cannot be used: {}", error.message()));
        }
        return {};
    }

    void send(std::string method, std::string target, std::vector<std::pair<std::string, std::string>> headers, std::string body, std::function<void(HttpAnswer)> done, std::function<bool()> wanted, std::string from) override {
        Question question;
        // The root has a name too (RFC 9112, 3.2.1).
        question.request = {http::string_to_verb(method), path_.empty() && !target.starts_with('/') ? "/" + target : path_ + target, 11};
        question.request.set(http::field::host, port_ == (secure_ ? "443" : "80") ? host_ : host_ + ":" + port_);
        question.request.set(http::field::user_agent, "penstock");
        for (const auto& [name, value] : headers) question.request.set(name, value);
        question.request.keep_alive(true);
        question.request.body() = std::move(body);
        question.request.prepare_payload();
        question.done = std::move(done);
        question.wanted = std::move(wanted);
        const std::lock_guard lock(guard_);
        if (is_stopped_) return;
        asio::post(context_, [self = shared_from_this(), q = std::make_shared<Question>(std::move(question)), from = std::move(from)]() mutable { self->enqueue(std::move(q), from); });
    }

    /// Once the pool's thread has ended, and before its context goes: nothing of the context's is used from here on.
    void stop() {
        {
            const std::lock_guard lock(guard_);
            is_stopped_ = true;
        }
        idle_.clear();
        waiting_.clear();
    }

  private:
    void enqueue(std::shared_ptr<Question> question, const std::string& from) {
        const auto number = next_++;
        // The rest of a request has a bound of its own; it counts so that many empty ones are more than few.
        const auto size = request_bytes + question->request.body().size();
        waiting_.emplace(number, std::move(question));
        for (const auto gone : turns_.add(from, number, size, {.count = options_.waiting_max, .bytes = options_.waiting_bytes_max})) {
            const auto found = waiting_.find(gone);
            found->second->done({.error = "too many requests wait for it", .is_unsent = true});
            waiting_.erase(gone);
        }
        start();
    }

    void start() {
        while (under_way_ < options_.under_way_max) {
            const auto number = turns_.next();
            if (!number) return;
            const auto found = waiting_.find(*number);
            auto question = std::move(found->second);
            waiting_.erase(found);
            if (question->wanted && !question->wanted()) {
                question->done({.error = "nobody waits for the answer any more", .is_unsent = true});
                continue;
            }
            ++under_way_;
            asio::co_spawn(context_, work(shared_from_this(), std::move(question)), asio::detached);
        }
    }

    static asio::awaitable<void> work(std::shared_ptr<Site> self, std::shared_ptr<Question> question) {
        HttpAnswer answer;
        for (int attempt = 0; attempt < 2; ++attempt) {
            bool fresh = true;
            answer = co_await self->ask(*question, attempt == 0, fresh);
            // A kept connection may have been closed by the server meanwhile; that says nothing about the server.
            if (answer.status != 0 || fresh) break;
        }
        --self->under_way_;
        question->done(std::move(answer));
        self->start();
    }

    asio::awaitable<HttpAnswer> ask(Question& question, bool may_reuse, bool& fresh) {
        HttpAnswer out;
        std::unique_ptr<Connection> connection;
        error_code error;
        if (may_reuse && !idle_.empty()) {
            connection = std::move(idle_.back());
            idle_.pop_back();
            fresh = false;
            connection->lowest().expires_after(std::chrono::milliseconds(options_.timeout_ms));
        } else {
            connection = std::make_unique<Connection>();
            const auto found = co_await resolve(error);
            if (error) {
                out.error = fmt::format("{} cannot be resolved: {}", host_, error == asio::error::timed_out ? fmt::format("no answer within {} ms", options_.timeout_ms) : error.message());
                co_return out;
            }
            if (secure_) connection->secure = std::make_unique<beast::ssl_stream<beast::tcp_stream>>(beast::tcp_stream(context_), tls_);
            else connection->plain = std::make_unique<beast::tcp_stream>(context_);
            connection->lowest().expires_after(std::chrono::milliseconds(options_.timeout_ms));
            co_await connection->lowest().async_connect(found, asio::redirect_error(asio::use_awaitable, error));
            if (error) {
                out.error = fmt::format("{}:{}: {}", host_, port_, error.message());
                co_return out;
            }
            if (secure_) {
                connection->secure->set_verify_callback(asio::ssl::host_name_verification(host_));
                set_server_name(*connection->secure);
                co_await connection->secure->async_handshake(asio::ssl::stream_base::client, asio::redirect_error(asio::use_awaitable, error));
                if (error) {
                    out.error = fmt::format("{}:{}: TLS: {}", host_, port_, error.message());
                    co_return out;
                }
            }
        }
        if (connection->secure) co_await http::async_write(*connection->secure, question.request, asio::redirect_error(asio::use_awaitable, error));
        else co_await http::async_write(*connection->plain, question.request, asio::redirect_error(asio::use_awaitable, error));
        http::response_parser<http::string_body> parser;
        parser.body_limit(options_.body_max);
        parser.header_limit(16 * 1024);
        if (!error) {
            if (connection->secure) co_await http::async_read(*connection->secure, connection->buffer, parser, asio::redirect_error(asio::use_awaitable, error));
            else co_await http::async_read(*connection->plain, connection->buffer, parser, asio::redirect_error(asio::use_awaitable, error));
        }
        if (error) {
            // Late is late, on a kept connection too.
            if (error == beast::error::timeout) fresh = true;
            out.error = fmt::format("{}:{}: {}", host_, port_, error == beast::error::timeout ? fmt::format("no answer within {} ms", options_.timeout_ms) : error.message());
            co_return out;
        }
        auto response = parser.release();
        out.status = static_cast<int>(response.result_int());
        out.body = std::move(response.body());
        if (response.keep_alive() && idle_.size() < idle_max) {
            connection->lowest().expires_never();
            idle_.push_back(std::move(connection));
        }
        co_return out;
    }

    /// The library asks for names one by one and cannot break off: who waits for a name gives up by himself, and addresses do not wait.
    asio::awaitable<std::vector<tcp::endpoint>> resolve(error_code& error) {
        if (const auto address = asio::ip::make_address(host_, error); !error) co_return std::vector{tcp::endpoint(address, parse_number<std::uint16_t>(port_).value_or(0))};
        struct Search {
            tcp::resolver resolver;
            asio::steady_timer over;
            error_code error = asio::error::timed_out;
            std::vector<tcp::endpoint> found;
            explicit Search(asio::io_context& context) : resolver(context), over(context) {}
        };
        const auto search = std::make_shared<Search>(context_);
        search->over.expires_after(std::chrono::milliseconds(options_.timeout_ms));
        search->resolver.async_resolve(host_, port_, [search](error_code failed, const tcp::resolver::results_type& results) {
            search->error = failed;
            for (const auto& entry : results) search->found.push_back(entry.endpoint());
            search->over.cancel();
        });
        error_code ended;
        co_await search->over.async_wait(asio::redirect_error(asio::use_awaitable, ended));
        error = search->error;
        co_return search->found;
    }

    void set_server_name(beast::ssl_stream<beast::tcp_stream>& stream) {
        error_code not_an_address;
        asio::ip::make_address(host_, not_an_address);
        // SNI carries names only (RFC 6066, 3).
        if (not_an_address) SSL_ctrl(stream.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host_.data());
    }

    asio::io_context& context_;          ///< of the pool, until stop()
    std::mutex guard_;
    bool is_stopped_ = false;
    HttpSiteOptions options_;
    bool secure_ = false;
    std::string host_, port_, path_;
    asio::ssl::context tls_{asio::ssl::context::tls_client};
    // The pool's thread alone:
    Turns turns_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Question>> waiting_;
    std::uint64_t next_ = 1;
    std::size_t under_way_ = 0;
    std::vector<std::unique_ptr<Connection>> idle_;
};

}  // namespace

struct HttpPool::Impl {
    asio::io_context context{1};
    asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
    std::thread thread;
    std::mutex guard;
    std::vector<std::weak_ptr<Site>> sites;
};

HttpPool::HttpPool() : impl_(std::make_shared<Impl>()) {
    impl_->thread = std::thread([impl = impl_.get()] { impl->context.run(); });
}

HttpPool::~HttpPool() { stop(); }

Result<std::shared_ptr<HttpSite>> HttpPool::site(HttpSiteOptions options) {
    auto out = std::make_shared<Site>(impl_->context, std::move(options));
    if (auto good = out->prepare(); !good) return std::unexpected(good.error());
    const std::lock_guard lock(impl_->guard);
    std::erase_if(impl_->sites, [](const auto& site) { return site.expired(); });
    impl_->sites.push_back(out);
    return std::static_pointer_cast<HttpSite>(out);
}

void HttpPool::stop() {
    impl_->context.stop();
    if (impl_->thread.joinable()) impl_->thread.join();
    // What is under way goes with the context.
    const std::lock_guard lock(impl_->guard);
    for (const auto& one : impl_->sites)
        if (const auto site = one.lock()) site->stop();
}

}  // namespace penstock::client
