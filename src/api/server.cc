#include "api/server.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "api/gzip.h"
#include "api/peer.h"
#include "api/request_target.h"
#include "api/spdy.h"
#include "api/watch_clock.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "io/socket.h"
#include "tls/context.h"
#include "tls/peer_chain.h"

namespace penstock::api {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using Stream = beast::ssl_stream<beast::tcp_stream>;

constexpr std::size_t body_max = 3 * 1024 * 1024;
constexpr std::uint32_t header_max = 64 * 1024;
constexpr std::size_t buffer_max = 2 * header_max;   // read and not parsed yet: a header, or one line and its trailer of a chunked body
constexpr std::size_t page_body_max = 1024;
constexpr std::size_t connections_max = 10'000, silent_max = 5'000, shaking_max = 500;   // all; without a byte; without a finished handshake
constexpr std::size_t strangers_max = 500;           // with neither a certificate nor a token that was good; one costs about 100 KiB
constexpr std::size_t bodies_max = 48 * 1024 * 1024;   // bytes of requests that are being read, of strangers, and as many of the others
constexpr std::size_t replies_max = 256 * 1024 * 1024; // bytes of answers that wait for their readers
constexpr std::size_t pages_max = 100;               // connections of the metrics port
constexpr auto handshake_time = std::chrono::seconds(10);
constexpr auto idle_time = std::chrono::minutes(5);
constexpr auto request_time = std::chrono::seconds(30);
constexpr auto drain_time = std::chrono::seconds(5);
constexpr std::size_t drain_max = 16 * 1024 * 1024;
constexpr std::size_t forwarded_max = 256;           // TCP connections of one port-forward
constexpr std::size_t forward_waiting_max = 8 * 1024 * 1024, forwards_waiting_max = 64 * 1024 * 1024;   // bytes for one of them, and for all of all port-forwards
constexpr auto accept_pause = std::chrono::milliseconds(100);   // after an accept that failed
constexpr auto log_poll = std::chrono::milliseconds(200);

Request request_of(const http::request<http::string_body>& message, const Peer::Identity& identity) {
    Request out;
    // HEAD is GET whose body stays here.
    out.method = message.method() == http::verb::head ? "GET" : std::string(message.method_string());
    const auto target = std::string_view(message.target().data(), message.target().size());
    const auto question = target.find('?');
    out.path = decoded_path(target.substr(0, question));
    if (question != std::string_view::npos) out.query = decoded_query(target.substr(question + 1));
    out.accept = std::string(message[http::field::accept]);
    out.content_type = std::string(message[http::field::content_type]);
    out.authorization = std::string(message[http::field::authorization]);
    out.user_agent = std::string(message[http::field::user_agent]);
    out.if_none_match = std::string(message[http::field::if_none_match]);
    out.upgrade = std::string(message[http::field::upgrade]);
    for (const auto& field : message) {
        const auto name = to_lower(std::string_view(field.name_string().data(), field.name_string().size()));
        if (name.starts_with("impersonate-")) out.impersonation.emplace_back(name, std::string(field.value()));
    }
    out.body = message.body();
    out.user = identity.user;
    out.certificate_fault = identity.fault;
    return out;
}

/// How an answer goes over the wire.
struct Wire {
    unsigned version = 11;
    bool keep_alive = false;
    bool is_head = false;   ///< the header alone, as it would be before the body (RFC 9110 section 9.3.2)
    bool takes_gzip = false;
};

template <class Message>
Wire wire_of(const Message& message) {
    return {.version = message.version(),
            .keep_alive = message.keep_alive(),
            .is_head = message.method() == http::verb::head,
            .takes_gzip = accepts_gzip(std::string_view(message[http::field::accept_encoding]))};
}

http::response<http::string_body> response_of(const Reply& reply, const Wire& wire) {
    const auto version = wire.version;
    http::response<http::string_body> out{static_cast<http::status>(reply.status), version};
    out.set(http::field::content_type, reply.content_type);
    out.set(http::field::cache_control, "no-cache, private");
    for (const auto& [name, value] : reply.headers) out.insert(name, value);
    out.keep_alive(wire.keep_alive);
    out.body() = reply.body;
    if (reply.body.size() >= gzip_from_bytes) {
        out.set(http::field::vary, "Accept-Encoding");
        if (auto packed = wire.takes_gzip ? gzip(reply.body) : std::string(); !packed.empty()) {
            out.set(http::field::content_encoding, "gzip");
            out.body() = std::move(packed);
        }
    }
    out.prepare_payload();
    if (wire.is_head) out.body().clear();   // the length stays
    return out;
}

/// A part of what all connections together may hold; given back when it goes.
class Share {
  public:
    Share() = default;
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    ~Share() { give_back(); }
    /// False: there is no room. A single one that is larger than all of it has its way when it is alone.
    bool take(std::size_t& total, std::size_t bytes, std::size_t most) {
        give_back();
        if (total > 0 && total + bytes > most) return false;
        total_ = &total;
        total += bytes_ = bytes;
        return true;
    }

  private:
    void give_back() {
        if (total_ != nullptr) *total_ -= bytes_;
        total_ = nullptr;
    }
    std::size_t* total_ = nullptr;
    std::size_t bytes_ = 0;
};

Reply get_only() { return {.status = 405, .content_type = "text/plain", .body = "GET and HEAD only\n"}; }

Reply too_busy() {
    auto reply = failure_reply(429, "TooManyRequests", "too many large requests or answers are under way; retry in a second");
    reply.headers.emplace_back("Retry-After", "1");
    return reply;
}

using Parser = http::request_parser<http::string_body>;

/// The answer to a request that could not be read; nothing: the connection is gone, or its client has ended it.
std::optional<Reply> unreadable(error_code error, std::size_t body_limit) {
    if (error == http::error::body_limit) return failure_reply(413, "RequestEntityTooLarge", fmt::format("Request entity too large: limit is {}", body_limit));
    if (error == http::error::header_limit) return failure_reply(431, "RequestHeaderFieldsTooLarge", fmt::format("Request header too large: limit is {}", header_max));
    if (error == http::error::buffer_overflow) return failure_reply(431, "RequestHeaderFieldsTooLarge", fmt::format("a line of the chunked body is too long: limit is {} with what follows it", buffer_max));
    if (error.category() != http::make_error_code(http::error::bad_target).category() || error == http::error::end_of_stream || error == http::error::partial_message) return std::nullopt;
    return failure_reply(400, "BadRequest", fmt::format("the request is not HTTP/1.1 (RFC 9112): {}", error.message()));
}

/// What a client that waits before it sends its body is told (RFC 9110 section 10.1.1).
enum class Expectation : std::uint8_t { none, wants_continue, unknown };
Expectation expectation_of(const Parser& parser) {
    const auto& message = parser.get();
    const auto value = message[http::field::expect];
    if (message.version() < 11 || value.empty()) return Expectation::none;
    if (!equal_no_case(trim(std::string_view(value.data(), value.size())), "100-continue")) return Expectation::unknown;
    return parser.is_done() ? Expectation::none : Expectation::wants_continue;
}

Reply expectation_failed() { return failure_reply(417, "ExpectationFailed", "Expect: the one expectation that can be met is 100-continue"); }

template <class AnyStream>
asio::awaitable<void> write_continue(AnyStream& stream, error_code& error) {
    static constexpr std::string_view text = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(stream, asio::buffer(text), asio::redirect_error(asio::use_awaitable, error));
}

/// The last answer of a connection. A client that is still sending would not read it if the connection were closed under it.
template <class AnyStream>
asio::awaitable<void> write_last(AnyStream& stream, Reply reply) {
    error_code error;
    auto response = response_of(reply, {});
    co_await http::async_write(stream, response, asio::redirect_error(asio::use_awaitable, error));
    beast::get_lowest_layer(stream).expires_after(drain_time);
    std::vector<char> scratch(64 * 1024);
    for (std::size_t drained = 0; !error && drained < drain_max;) drained += co_await stream.async_read_some(asio::buffer(scratch), asio::redirect_error(asio::use_awaitable, error));
}

/// What new connections are met with. Never changes: other certificates are another one.
struct Credentials {
    explicit Credentials(std::shared_ptr<const tls::Context> c)
        : rules(std::move(c)), context((SSL_CTX_up_ref(rules->native()), rules->native())) {}
    std::shared_ptr<const tls::Context> rules;
    asio::ssl::context context;          ///< the same, as Asio wants it; holds a reference of its own
    std::shared_ptr<const crypto::TrustStore> trust;
};

Result<std::shared_ptr<Credentials>> make_credentials(const crypto::KeyPair& certificate,
                                                      const std::string& client_ca) {
    auto trusted = crypto::read_certificates(client_ca);
    if (!trusted) return fail("the CAs of client certificates: " + trusted.error().message);
    auto rules = tls::Context::server({.certificate_chain = certificate.certificate,
                                       .key = certificate.key,
                                       .ask_client_certificate = true,
                                       .client_authorities = *trusted,
                                       .protocols = {}});
    if (!rules) return fail("the resource API's certificate: " + rules.error().message);
    auto out = std::make_shared<Credentials>(std::move(*rules));
    out->trust = std::make_shared<const crypto::TrustStore>(std::move(*trusted),
                                                            std::vector<crypto::RevocationList>{});
    return out;
}

}  // namespace

struct Server::Impl {
    Impl(Handler& h, ServerOptions o) : handler(h), options(std::move(o)), acceptor(context) {}

    /// Connections in the order in which they came to a stage; each entry closes one.
    using Stage = std::list<std::function<void()>>;

    Handler& handler;
    ServerOptions options;
    // Before the context: requests that end with it give back what they took.
    Stage strangers;
    std::size_t stranger_bodies = 0, bodies = 0, replies = 0, forwards_waiting = 0;   ///< bytes
    asio::io_context context{1};
    std::shared_ptr<Credentials> credentials;    ///< the API's thread alone, once started
    tcp::acceptor acceptor;
    std::thread thread;
    std::size_t connections = 0;
    std::set<asio::steady_timer*> watchers;      ///< cancelled when something was written

    asio::awaitable<void> accept_all() {
        while (acceptor.is_open()) {
            error_code error;
            auto socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
            if (error == asio::error::operation_aborted) co_return;
            if (error) {
                // Out of descriptors: wait a little instead of spinning.
                asio::steady_timer pause(context, accept_pause);
                co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
                continue;
            }
            // Whoever has not shown that they speak TLS makes room for newcomers, the oldest first.
            if (silent.size() >= silent_max) close_first(silent);
            if (connections >= connections_max) continue;
            socket.set_option(asio::socket_base::keep_alive(true),
                              error);   // a stream whose client vanished without a word ends
            asio::co_spawn(context, serve(std::make_shared<tcp::socket>(std::move(socket))), asio::detached);
        }
    }

    static void close_first(Stage& stage) {
        if (!stage.empty()) stage.front()();
    }
    Stage silent, shaking;

    asio::awaitable<void> serve(std::shared_ptr<tcp::socket> socket) {
        ++connections;
        try {
            error_code error;
            // The first byte is waited for without a TLS engine: one costs 70 KiB, a socket next to nothing.
            asio::steady_timer timer(context, handshake_time);
            timer.async_wait([socket](error_code e) {
                error_code ignored;
                if (!e) socket->close(ignored);
            });
            auto place = silent.insert(silent.end(), [socket] {
                error_code ignored;
                socket->close(ignored);
            });
            co_await socket->async_wait(tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
            silent.erase(place);
            timer.cancel();
            if (!error && socket->is_open()) {
                if (shaking.size() >= shaking_max) close_first(shaking);
                const auto held =
                    credentials;   // for as long as the connection lasts, whatever new ones are met with
                auto stream = std::make_shared<Stream>(std::move(*socket), held->context);
                beast::get_lowest_layer(*stream).expires_after(handshake_time);
                place = shaking.insert(shaking.end(), [stream] { beast::get_lowest_layer(*stream).close(); });
                co_await stream->async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
                shaking.erase(place);
                if (!error) {
                    const auto peer = std::make_shared<Peer>(tls::peer_chain(stream->native_handle()));
                    std::optional<Stage::iterator> unknown;
                    if (!identity_of(*peer).user.is_in("system:authenticated")) {
                        if (strangers.size() >= strangers_max) close_first(strangers);
                        unknown = strangers.insert(strangers.end(), [stream] { beast::get_lowest_layer(*stream).close(); });
                    }
                    const std::shared_ptr<void> leaves(nullptr, [&](void*) {
                        if (unknown) strangers.erase(*unknown);
                    });
                    co_await requests(stream, peer, unknown);
                }
            }
        } catch (const std::exception& failure) {
            log::debug("api", "connection ended: {}", failure.what());
        }
        --connections;
    }

    const Peer::Identity& identity_of(Peer& peer) { return peer.identity(credentials->trust, wall_ms()); }

    /// `unknown`: its place among strangers, until it has shown who it is.
    asio::awaitable<void> requests(std::shared_ptr<Stream> stream, std::shared_ptr<Peer> peer, std::optional<Stage::iterator>& unknown) {
        beast::flat_buffer buffer(buffer_max);
        while (true) {
            error_code error;
            Parser parser;
            parser.header_limit(header_max);
            parser.body_limit(body_max);
            beast::get_lowest_layer(*stream).expires_after(idle_time);
            co_await http::async_read_header(*stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
            Share body_share, reply_share;
            if (!error) {
                beast::get_lowest_layer(*stream).expires_after(request_time);
                const auto expectation = expectation_of(parser);
                auto refused = expectation == Expectation::unknown ? std::optional(expectation_failed()) : std::nullopt;
                // Who waits with his body is told at once when it would be for nothing.
                if (expectation == Expectation::wants_continue) refused = handler.unauthorized(request_of(parser.get(), identity_of(*peer)));
                if (!refused && !body_share.take(unknown ? stranger_bodies : bodies, body_bytes(parser), bodies_max)) refused = too_busy();
                if (refused) {
                    co_await write_last(*stream, std::move(*refused));
                    break;
                }
                if (expectation == Expectation::wants_continue && buffer.size() == 0) co_await write_continue(*stream, error);
            }
            if (!error) co_await http::async_read(*stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
            if (error) {
                beast::get_lowest_layer(*stream).expires_after(request_time);
                if (auto refused = unreadable(error, body_max)) co_await write_last(*stream, std::move(*refused));
                break;
            }
            const auto message = parser.release();
            const auto request = request_of(message, identity_of(*peer));
            const auto wire = wire_of(message);
            auto reply = answer(request);
            if (wire.is_head) reply.watch.reset(), reply.follow.reset();   // there is no end to wait for
            if (unknown && !request.authorization.empty() && reply.status != 401) {
                strangers.erase(*unknown);
                unknown.reset();
            }
            if (!reply_share.take(replies, reply.body.size(), replies_max)) reply = too_busy();
            log::debug("api", "request user=\"{}\" method={} path=\"{}\" status={}", request.user.name, request.method,
                       request.path, reply.status);
            beast::get_lowest_layer(*stream).expires_after(request_time);
            // A stream that a token opened does not depend on the certificate.
            const auto shown = request.authorization.empty() && peer->has_certificate() ? peer : nullptr;
            if (reply.watch) {
                co_await stream_watch(stream, shown, *reply.watch);
                break;
            }
            if (reply.follow) {
                co_await stream_log(stream, shown, *reply.follow);
                break;
            }
            if (reply.forward) {
                co_await forward_ports(stream, shown, *reply.forward);
                break;
            }
            auto response = response_of(reply, wire);
            co_await http::async_write(*stream, response, asio::redirect_error(asio::use_awaitable, error));
            if (error || !message.keep_alive()) break;
        }
        error_code error;
        beast::get_lowest_layer(*stream).expires_after(std::chrono::seconds(5));
        co_await stream->async_shutdown(asio::redirect_error(asio::use_awaitable, error));
    }

    /// What a request's body will take, as far as its header tells.
    static std::size_t body_bytes(const Parser& parser) {
        const auto length = parser.content_length();
        return parser.chunked() ? body_max : length ? static_cast<std::size_t>(std::min<std::uint64_t>(*length, body_max)) : 0;
    }

    /// No request may end the server: what is thrown while one is answered becomes its answer.
    Reply answer(const Request& request) {
        try {
            return handler.handle(request);
        } catch (const std::exception& failure) {
            log::error("api", "request failed method={} path=\"{}\" why=\"{}\"", request.method, request.path, failure.what());
            return failure_reply(500, "InternalError", fmt::format("Internal error occurred: {}", failure.what()));
        }
    }

    /// True when the client of a stream that only we write to has closed it, or says something, which then is its farewell.
    static bool is_gone(Stream& stream) {
        std::array<char, 1> peek{};
        error_code error;
        auto& socket = beast::get_lowest_layer(stream).socket();
        socket.non_blocking(true, error);
        socket.receive(asio::buffer(peek), asio::socket_base::message_peek, error);
        return error != asio::error::would_block;
    }

    /// True when the certificate that opened a stream does not count any more.
    bool is_distrusted(const std::shared_ptr<Peer>& shown) {
        return shown != nullptr && !identity_of(*shown).fault.empty();
    }

    asio::awaitable<void> stream_log(std::shared_ptr<Stream> stream, std::shared_ptr<Peer> shown,
                                     LogRequest wanted) {
        error_code error;
        http::response<http::empty_body> head{http::status::ok, 11};
        head.set(http::field::content_type, "text/plain");
        head.chunked(true);
        http::response_serializer<http::empty_body> serializer{head};
        co_await http::async_write_header(*stream, serializer, asio::redirect_error(asio::use_awaitable, error));
        asio::steady_timer pause(context);
        while (!error && wanted.bytes_left > 0) {
            const auto lines = Handler::log_lines(wanted);
            if (!lines.empty()) {
                beast::get_lowest_layer(*stream).expires_after(request_time);
                co_await asio::async_write(*stream, http::make_chunk(asio::buffer(lines)), asio::redirect_error(asio::use_awaitable, error));
                continue;
            }
            beast::get_lowest_layer(*stream).expires_never();
            pause.expires_after(log_poll);
            error_code waited;
            co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, waited));
            if (is_gone(*stream) || is_distrusted(shown)) break;   // noticed here, not at the next line
        }
        beast::get_lowest_layer(*stream).expires_after(request_time);
        if (!error) co_await asio::async_write(*stream, http::make_chunk_last(), asio::redirect_error(asio::use_awaitable, error));
    }

    /// One forwarded TCP connection: bytes of the local port go to the data stream.
    struct Forwarded {
        Forwarded(asio::io_context& c, std::size_t& t) : socket(c), total(t) {}
        Forwarded(const Forwarded&) = delete;
        Forwarded& operator=(const Forwarded&) = delete;
        ~Forwarded() { total -= waiting.size(); }
        tcp::socket socket;
        std::size_t& total;                      ///< that waits for all ports
        std::uint32_t data = 0, error = 0;
        std::string waiting;                     ///< for the port, while a write is going on
        bool writing = false, peer_ended = false;
    };
    struct Forwarding {
        Forwarding(std::shared_ptr<Stream> s, std::shared_ptr<Peer> p, asio::io_context& c)
            : stream(std::move(s)),
              shown(std::move(p)),
              wake(c),
              room(c, asio::steady_timer::time_point::max()),
              written(c, asio::steady_timer::time_point::max()) {}
        std::shared_ptr<Stream> stream;
        std::shared_ptr<Peer> shown;             ///< whose certificate opened it, or nobody's
        Spdy spdy;
        asio::steady_timer wake;                 ///< output is waiting, or the connection is over
        asio::steady_timer room;                 ///< cancelled when output was taken; its time never comes
        asio::steady_timer written;              ///< cancelled when the last write ended; its time never comes
        std::map<std::uint32_t, std::shared_ptr<Forwarded>> by_stream;
        std::map<std::string, std::uint32_t> error_streams;      ///< by request id, until its data stream comes
        bool over = false, is_written = false;
    };

    asio::awaitable<void> write_forwarded(std::shared_ptr<Forwarding> all) {
        error_code error;
        while (!error) {
            auto bytes = all->spdy.take_output();
            if (bytes.empty()) {
                if (all->over) break;
                all->wake.expires_at(asio::steady_timer::time_point::max());
                error_code waited;
                co_await all->wake.async_wait(asio::redirect_error(asio::use_awaitable, waited));
                continue;
            }
            all->room.cancel();
            beast::get_lowest_layer(*all->stream)
                .expires_after(request_time);   // a client that never reads is dropped
            co_await asio::async_write(*all->stream, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, error));
        }
        all->over = true;
        all->room.cancel();
        for (auto& [id, one] : all->by_stream) one->socket.close(error);
        beast::get_lowest_layer(*all->stream).close();
        all->is_written = true;
        all->written.cancel();
    }

    asio::awaitable<void> read_port(std::shared_ptr<Forwarding> all, std::shared_ptr<Forwarded> one) {
        std::array<char, 16 * 1024> buffer{};
        error_code error;
        while (!all->over) {
            // A client that does not take its bytes is waited for, not collected for.
            if (all->spdy.pending() > forward_waiting_max) {
                error_code waited;
                co_await all->room.async_wait(asio::redirect_error(asio::use_awaitable, waited));
                continue;
            }
            const auto size = co_await one->socket.async_read_some(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
            if (error) break;
            all->spdy.send(one->data, {buffer.data(), size}, false);
            all->wake.cancel();
        }
        all->spdy.send(one->data, {}, true);
        all->spdy.send(one->error, {}, true);
        all->by_stream.erase(one->data);
        all->wake.cancel();
    }

    asio::awaitable<void> write_port(std::shared_ptr<Forwarding> all, std::shared_ptr<Forwarded> one) {
        error_code error;
        one->writing = true;
        while (!one->waiting.empty() && !error) {
            const auto bytes = std::exchange(one->waiting, {});
            co_await asio::async_write(one->socket, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, error));
            one->total -= bytes.size();
        }
        one->writing = false;
        if (one->peer_ended) one->socket.shutdown(tcp::socket::shutdown_send, error);
        if (error) all->wake.cancel();
    }

    asio::awaitable<void> connect_port(std::shared_ptr<Forwarding> all, std::shared_ptr<Forwarded> one, std::string host, int port) {
        error_code error;
        co_await one->socket.async_connect({asio::ip::make_address(host), static_cast<std::uint16_t>(port)}, asio::redirect_error(asio::use_awaitable, error));
        if (error) {
            all->spdy.send(one->error, fmt::format("port {}: {}", port, error.message()), true);
            all->spdy.send(one->data, {}, true);
            all->by_stream.erase(one->data);
            all->wake.cancel();
            co_return;
        }
        asio::co_spawn(context, read_port(all, one), asio::detached);
        if (!one->waiting.empty() || one->peer_ended) asio::co_spawn(context, write_port(all, one), asio::detached);
    }

    void forwarded_event(const std::shared_ptr<Forwarding>& all, const PortForward& allowed, const Spdy::Event& event) {
        if (event.type == Spdy::Event::Type::opened) {
            auto header = [&](const char* name) {
                const auto at = event.headers.find(name);
                return at == event.headers.end() ? std::string() : at->second;
            };
            const auto request = header("requestid");
            if (header("streamtype") == "error") {
                // A pair of streams per connection: more without their data streams are nothing a client needs.
                if (all->error_streams.size() < forwarded_max) all->error_streams[request] = event.stream;
                return;
            }
            const auto port = parse_number<int>(header("port")).value_or(0);
            auto one = std::make_shared<Forwarded>(context, forwards_waiting);
            one->data = event.stream;
            one->error = all->error_streams[request];
            all->error_streams.erase(request);
            if (std::ranges::find(allowed.ports, port) == allowed.ports.end() || all->by_stream.size() >= forwarded_max) {
                all->spdy.send(one->error, all->by_stream.size() >= forwarded_max ? "too many connections at a time" : fmt::format("port {} is no port of this pod", port), true);
                all->spdy.send(one->data, {}, true);
                return;
            }
            all->by_stream[event.stream] = one;
            asio::co_spawn(context, connect_port(all, one, allowed.host, port), asio::detached);
            return;
        }
        const auto found = all->by_stream.find(event.stream);
        if (found == all->by_stream.end()) return;
        const auto one = found->second;
        if (event.type == Spdy::Event::Type::reset) {
            error_code ignored;
            one->socket.close(ignored);
            all->by_stream.erase(found);
            return;
        }
        one->waiting += event.bytes;
        forwards_waiting += event.bytes.size();
        one->peer_ended |= event.is_last;
        if (one->waiting.size() > forward_waiting_max || forwards_waiting > forwards_waiting_max) {
            // The port does not take what it is sent; holding more would be without bound.
            error_code ignored;
            one->socket.close(ignored);
            all->spdy.reset(event.stream);
        } else if (!one->writing && one->socket.is_open()) {
            asio::co_spawn(context, write_port(all, one), asio::detached);
        }
    }

    asio::awaitable<void> forward_ports(std::shared_ptr<Stream> stream, std::shared_ptr<Peer> shown,
                                        PortForward allowed) {
        error_code error;
        const std::string head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n";
        co_await asio::async_write(*stream, asio::buffer(head), asio::redirect_error(asio::use_awaitable, error));
        const auto all = std::make_shared<Forwarding>(stream, std::move(shown), context);
        forwardings.insert(all);
        asio::co_spawn(context, write_forwarded(all), asio::detached);
        std::array<char, 16 * 1024> buffer{};
        while (!error && !all->over) {
            beast::get_lowest_layer(*stream)
                .expires_never();   // of this read: a write that is under way keeps its own time
            const auto size = co_await stream->async_read_some(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
            if (error) break;
            auto events = all->spdy.feed({buffer.data(), size});
            if (!events) {
                log::debug("api", "port-forward ended: {}", events.error().message);
                break;
            }
            for (const auto& event : *events) forwarded_event(all, allowed, event);
            all->wake.cancel();
        }
        all->over = true;
        error_code ignored;
        for (auto& [id, one] : all->by_stream) one->socket.close(ignored);
        all->wake.cancel();
        all->room.cancel();
        // Who does not send any more may still read; who is gone is written to no longer.
        if (error) beast::get_lowest_layer(*stream).close();
        // The stream must not be shut down beside a write: two writes at a time break a TLS stream (and end the process in
        // Beast's assertion).
        while (!all->is_written) {
            error_code waited;
            co_await all->written.async_wait(asio::redirect_error(asio::use_awaitable, waited));
        }
        forwardings.erase(all);
    }
    std::set<std::shared_ptr<Forwarding>> forwardings;

    /// New connections are met with these; open ones stay, unless the certificate that opened them does not
    /// count any more: requests, watches and logs see that by themselves.
    void take(std::shared_ptr<Credentials> fresh) {
        credentials = std::move(fresh);
        for (const auto& one : forwardings)
            if (is_distrusted(one->shown)) beast::get_lowest_layer(*one->stream).close();
        for (auto* timer : watchers) timer->cancel();
    }

    /// Puts what happened since `version` into `lines`. False: that history is not there, which is the last
    /// line.
    bool collect_lines(const Watch& watch, std::uint64_t& version, bool& first, std::string& lines) {
        std::vector<registry::Event> events;
        const auto now = handler.registry().version();
        // A position of the future is that of another registry (a backup was put back): silence would hide
        // what happens here.
        if (version > now ||
            !handler.registry().events_since(version, watch.kind, watch.name_space, events)) {
            lines += version > now ? Handler::future_line(version, now)
                                   : Handler::expired_line(version, handler.registry().oldest_version());
            return false;
        }
        version = std::max(version, now);
        for (const auto& event : events) {
            const auto line = handler.watch_line(watch, event, first);
            if (!line.empty()) first = false;
            lines += line;
            version = std::max(version, event.version);
        }
        return true;
    }

    /// The present objects as ADDED; returns the version they are of.
    std::uint64_t initial_lines(const Watch& watch, bool& first, std::string& lines) {
        const auto listing = handler.registry().list(*watch.kind, watch.name_space);
        for (const auto& item : listing.items) {
            const auto line =
                handler.watch_line(watch,
                                   {.type = registry::Event::Type::added,
                                    .kind = watch.kind,
                                    .name_space = resources::text_at(*item, "metadata.namespace"),
                                    .version = listing.version,
                                    .object = item,
                                    .previous = nullptr},
                                   first);
            if (!line.empty()) first = false;
            lines += line;
        }
        if (watch.mark_initial_end) lines += handler.bookmark_line(watch, listing.version, true);
        return listing.version;
    }

    asio::awaitable<void> stream_watch(std::shared_ptr<Stream> stream, std::shared_ptr<Peer> shown,
                                       Watch watch) {
        error_code error;
        http::response<http::empty_body> head{http::status::ok, 11};
        head.set(http::field::content_type, "application/json");
        head.set(http::field::cache_control, "no-cache, private");
        head.chunked(true);
        http::response_serializer<http::empty_body> serializer{head};
        co_await http::async_write_header(*stream, serializer, asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return;
        asio::steady_timer changed(context);
        watchers.insert(&changed);
        WatchClock clock(monotonic_ms(), watch.timeout_s, watch.bookmarks);
        auto version = watch.from;
        bool first = true;
        std::string lines;
        if (watch.initial_state) version = initial_lines(watch, first, lines);
        while (!error) {
            bool is_last = is_distrusted(shown) || !collect_lines(watch, version, first, lines);
            const auto turn = clock.turn(monotonic_ms());
            if (turn.bookmark && !is_last) lines += handler.bookmark_line(watch, version, false);
            is_last |= turn.is_over;
            if (!lines.empty()) {
                Share share;
                if (!share.take(replies, lines.size(), replies_max)) break;   // it comes again
                beast::get_lowest_layer(*stream).expires_after(request_time);   // a watcher that never reads is dropped
                co_await asio::async_write(*stream, http::make_chunk(asio::buffer(lines)), asio::redirect_error(asio::use_awaitable, error));
                lines.clear();
                if (!is_last) continue;   // something may have happened meanwhile
            }
            // A busy watch is looked at too: what keeps it busy may concern others.
            if (is_last || (turn.look && is_gone(*stream))) break;
            beast::get_lowest_layer(*stream).expires_never();
            changed.expires_after(std::chrono::milliseconds(clock.next_ms() - monotonic_ms()));
            error_code waited;
            co_await changed.async_wait(asio::redirect_error(asio::use_awaitable, waited));
        }
        watchers.erase(&changed);
        beast::get_lowest_layer(*stream).expires_after(request_time);
        if (!error) co_await asio::async_write(*stream, http::make_chunk_last(), asio::redirect_error(asio::use_awaitable, error));
    }
};

Server::Server(Handler& handler, ServerOptions options) : impl_(std::make_unique<Impl>(handler, std::move(options))) {}
Server::~Server() { stop(); }

Result<std::uint16_t> Server::start() {
    auto& s = *impl_;
    auto credentials = make_credentials(s.options.certificate, s.options.client_ca);
    if (!credentials) return std::unexpected(credentials.error());
    s.credentials = std::move(*credentials);
    try {
        const tcp::endpoint endpoint(asio::ip::make_address(s.options.address), s.options.port);
        s.acceptor.open(endpoint.protocol());
        s.acceptor.set_option(asio::socket_base::reuse_address(true));
        s.acceptor.bind(endpoint);
        s.acceptor.listen();
    } catch (const boost::system::system_error& error) {
        return fail(fmt::format("the resource API cannot listen on {}:{}: {}", s.options.address,
                                s.options.port, io::why_not_bound(error.code().value(), s.options.port)));
    }
    asio::co_spawn(s.context, s.accept_all(), asio::detached);
    s.handler.registry().on_commit([&s] {
        asio::post(s.context, [&s] {
            for (auto* timer : s.watchers) timer->cancel();
        });
    });
    s.thread = std::thread([&s] { s.context.run(); });
    return s.acceptor.local_endpoint().port();
}

Result<void> Server::use(const crypto::KeyPair& certificate, const std::string& client_ca) {
    auto credentials = make_credentials(certificate, client_ca);
    if (!credentials) return std::unexpected(credentials.error());
    asio::post(impl_->context,
               [&s = *impl_, fresh = std::move(*credentials)]() mutable { s.take(std::move(fresh)); });
    return {};
}

void Server::stop() {
    if (!impl_->thread.joinable()) return;
    impl_->handler.registry().on_commit(nullptr);
    impl_->context.stop();
    impl_->thread.join();
}

// --- pages ---

struct PageServer::Impl {
    Page page;
    const std::shared_ptr<int> connections = std::make_shared<int>();
    asio::io_context context{1};
    std::shared_ptr<tcp::acceptor> acceptor;
    asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
    std::uint16_t port = 0;
    std::thread thread;

    asio::awaitable<void> accept_all(std::shared_ptr<tcp::acceptor> from) {
        while (from->is_open()) {
            error_code error;
            auto socket = co_await from->async_accept(asio::redirect_error(asio::use_awaitable, error));
            if (error == asio::error::operation_aborted) co_return;
            if (error) {
                // Out of descriptors: the page is there again when there are some.
                asio::steady_timer pause(context, accept_pause);
                co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
                continue;
            }
            if (connections.use_count() > static_cast<long>(pages_max)) continue;
            auto stream = std::make_shared<beast::tcp_stream>(std::move(socket));
            asio::co_spawn(context, serve(stream, connections), asio::detached);
        }
    }
    /// `open` counts those that are served, by its references.
    asio::awaitable<void> serve(std::shared_ptr<beast::tcp_stream> stream, [[maybe_unused]] std::shared_ptr<int> open) {
        beast::flat_buffer buffer(buffer_max);
        while (true) {
            error_code error;
            Parser parser;
            parser.header_limit(header_max);
            parser.body_limit(page_body_max);
            stream->expires_after(request_time);
            co_await http::async_read_header(*stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
            if (!error) {
                const auto expectation = expectation_of(parser);
                if (expectation == Expectation::unknown) co_return co_await write_last(*stream, expectation_failed());
                if (expectation == Expectation::wants_continue && parser.get().method() != http::verb::get && parser.get().method() != http::verb::head)
                    co_return co_await write_last(*stream, get_only());
                if (expectation == Expectation::wants_continue && buffer.size() == 0) co_await write_continue(*stream, error);
            }
            if (!error) co_await http::async_read(*stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
            if (error) {
                stream->expires_after(request_time);
                if (auto refused = unreadable(error, page_body_max)) co_await write_last(*stream, std::move(*refused));
                co_return;
            }
            const auto message = parser.release();
            Reply reply = get_only();
            if (message.method() == http::verb::get || message.method() == http::verb::head)
                reply = page(std::string(message.target()));
            auto response = response_of(reply, wire_of(message));
            co_await http::async_write(*stream, response, asio::redirect_error(asio::use_awaitable, error));
            if (error || !message.keep_alive()) co_return;
        }
    }
};

PageServer::PageServer(Page page) : impl_(std::make_unique<Impl>()) {
    impl_->page = std::move(page);
    impl_->thread = std::thread([this] { impl_->context.run(); });
}
PageServer::~PageServer() { stop(); }

Result<void> PageServer::listen(std::uint16_t port) {
    auto& s = *impl_;
    if (port == s.port && (port == 0 || s.acceptor != nullptr)) return {};
    if (s.acceptor != nullptr) {
        asio::post(s.context, [old = s.acceptor] { old->close(); });
        s.acceptor.reset();
    }
    s.port = port;
    if (port == 0) return {};
    auto acceptor = std::make_shared<tcp::acceptor>(s.context);
    error_code error;
    const tcp::endpoint endpoint(asio::ip::address_v4::loopback(), port);
    acceptor->open(endpoint.protocol(), error);
    if (!error) acceptor->set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor->bind(endpoint, error);
    if (!error) acceptor->listen(asio::socket_base::max_listen_connections, error);
    if (error)
        return fail(fmt::format("metrics port {} cannot be opened: {}", port,
                                io::why_not_bound(error.value(), port)));
    s.acceptor = acceptor;
    asio::co_spawn(s.context, s.accept_all(acceptor), asio::detached);
    return {};
}

void PageServer::stop() {
    if (!impl_->thread.joinable()) return;
    impl_->context.stop();
    impl_->thread.join();
}

}  // namespace penstock::api
