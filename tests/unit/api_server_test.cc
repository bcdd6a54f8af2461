// The resource API over its socket: ends of watches, resumed TLS sessions, certificates that change while it
 // runs, and its client.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>
#include <tuple>

#include <fmt/format.h>

#include "api/own_pki.h"
#include "api/server.h"
#include "app/identity.h"
#include "base/clock.h"
#include "client/client.h"

namespace penstock {
namespace {

using api::OwnPki;
using resources::Json;
using resources::text_at;

const api::ServerNames names{.dns_names = {"localhost"}, .addresses = {"127.0.0.1", "::1"}};

OwnPki fresh_pki(const OwnPki& have = {}) { return api::renew(have, names, wall_ms()).value().pki; }

struct ApiServer {
    OwnPki pki = fresh_pki();
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    api::Tokens tokens{*registry, "https://issuer", {}};
    api::Handler handler{*registry, tokens, "test"};
    api::Server server{
        handler, {.address = "127.0.0.1", .port = 0, .certificate = pki.server, .client_ca = pki.trusted}};
    int port = server.start().value();
    ApiServer() { api::Authorizer::bootstrap(*registry); }

    [[nodiscard]] client::Access access(const OwnPki& by) const {
        return {.host = "127.0.0.1",
                .port = std::to_string(port),
                .ca = by.trusted,
                .certificate = by.admin.certificate,
                .key = by.admin.key};
    }
    [[nodiscard]] client::Client client() const { return client::Client(access(pki)); }
    std::string version() const { return std::to_string(registry->version()); }
    void put(const std::string& name) {
        registry
            ->create(*resources::find_kind("v1", "ConfigMap"), "default", {{"metadata", {{"name", name}}}})
            .value();
    }
};

constexpr const char* maps = "/api/v1/namespaces/default/configmaps";

// --- watches ---

TEST(ApiServer, a_watch_with_bookmarks_ends_at_its_time_out) {
    ApiServer api;
    std::vector<std::string> lines;
    auto client = api.client();
    const auto ended = client.watch(
        std::string(maps) +
            "?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion=" + api.version(),
        "application/json", [&](const Json& line) {
            lines.push_back(text_at(line, "type"));
            return lines.size() < 100;
        });
    EXPECT_EQ(ended.value(), 200);
    EXPECT_EQ(lines, std::vector<std::string>{"BOOKMARK"}) << "one, from which the client goes on";
}

TEST(ApiServer, a_watch_that_is_busy_ends_too) {
    ApiServer api;
    std::atomic<bool> over{false};
    std::jthread writer([&] {
        for (int i = 0; !over && i < 20'000; ++i) api.put("busy" + std::to_string(i));
    });
    auto client = api.client();
    std::size_t lines = 0;
    const auto ended =
        client.watch(std::string(maps) + "?watch=1&timeoutSeconds=1&resourceVersion=" + api.version(),
                     "application/json", [&](const Json&) { return ++lines < 1'000'000; });
    EXPECT_EQ(ended.value(), 200);
    EXPECT_GT(lines, 0u);
    over = true;
}

TEST(ApiServer, a_watch_from_the_future_is_told_so) {
    ApiServer api;
    std::vector<Json> lines;
    auto client = api.client();
    const auto ended =
        client.watch(std::string(maps) + "?watch=1&timeoutSeconds=20&resourceVersion=999999",
                     "application/json", [&](const Json& line) { return lines.push_back(line), true; });
    EXPECT_EQ(ended.value(), 200);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_EQ(lines[0]["object"]["code"], 410);
    EXPECT_NE(text_at(lines[0], "object.message").find("too large resource version: 999999"),
              std::string::npos);
    EXPECT_NE(client.request("GET", std::string(maps) + "?watch=1&timeoutSeconds=soon")
                  ->message()
                  .find("timeoutSeconds: Invalid value: \"soon\""),
              std::string::npos);
}

// --- resumption ---

struct Free {
    void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
    void operator()(SSL* p) const { SSL_free(p); }
    void operator()(SSL_SESSION* p) const { SSL_SESSION_free(p); }
};

/// A TLS client that keeps its session, as browsers and Node do.
class Resuming {
  public:
    Resuming(int port, int version, const crypto::KeyPair* identity)
        : port_(port), context_(SSL_CTX_new(TLS_client_method())) {
        SSL_CTX_set_min_proto_version(context_.get(), version);
        SSL_CTX_set_max_proto_version(context_.get(), version);
        SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
        if (identity == nullptr) return;
        const auto certificate = crypto::read_certificates(identity->certificate).value().front();
        const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
            BIO_new_mem_buf(identity->key.data(), static_cast<int>(identity->key.size())), &BIO_free);
        const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
            PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
        SSL_CTX_use_certificate(context_.get(), certificate.native());
        SSL_CTX_use_PrivateKey(context_.get(), key.get());
    }
    struct Answer {
        bool resumed = false;
        std::string text;                ///< `HTTP/1.1 200 OK...`, or OpenSSL's words
    };
    /// One connection, one request; the session it leaves is tried next time.
    Answer get(const std::string& path) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in to{.sin_family = AF_INET,
                       .sin_port = htons(static_cast<std::uint16_t>(port_)),
                       .sin_addr = {htonl(INADDR_LOOPBACK)},
                       .sin_zero = {}};
        timeval patience{.tv_sec = 10, .tv_usec = 0};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        connect(fd, static_cast<sockaddr*>(static_cast<void*>(&to)), sizeof to);
        const std::unique_ptr<SSL, Free> ssl(SSL_new(context_.get()));
        SSL_set_fd(ssl.get(), fd);
        if (session_) SSL_set_session(ssl.get(), session_.get());
        Answer out;
        ERR_clear_error();
        if (SSL_connect(ssl.get()) == 1) {
            out.resumed = SSL_session_reused(ssl.get()) == 1;
            const auto request = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            SSL_write(ssl.get(), request.data(), static_cast<int>(request.size()));
            char piece[4096];
            for (int size = 0; (size = SSL_read(ssl.get(), piece, sizeof piece)) > 0;)
                out.text.append(piece, static_cast<std::size_t>(size));
            session_.reset(SSL_get1_session(ssl.get()));
            SSL_shutdown(ssl.get());
        }
        if (out.text.empty()) out.text = ERR_error_string(ERR_peek_error(), nullptr);
        close(fd);
        return out;
    }

  private:
    int port_;
    std::unique_ptr<SSL_CTX, Free> context_;
    std::unique_ptr<SSL_SESSION, Free> session_;
};

/// A connection on which a test says what it likes, byte by byte. `identity` null: without TLS.
class Wire {
  public:
    Wire(int port, const crypto::KeyPair* identity) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in to{.sin_family = AF_INET,
                       .sin_port = htons(static_cast<std::uint16_t>(port)),
                       .sin_addr = {htonl(INADDR_LOOPBACK)},
                       .sin_zero = {}};
        timeval patience{.tv_sec = 20, .tv_usec = 0};
        setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        connect(fd_, static_cast<sockaddr*>(static_cast<void*>(&to)), sizeof to);
        if (identity == nullptr) return;
        context_.reset(SSL_CTX_new(TLS_client_method()));
        SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
        const auto certificate = crypto::read_certificates(identity->certificate).value().front();
        const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
            BIO_new_mem_buf(identity->key.data(), static_cast<int>(identity->key.size())), &BIO_free);
        const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
            PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
        SSL_CTX_use_certificate(context_.get(), certificate.native());
        SSL_CTX_use_PrivateKey(context_.get(), key.get());
        ssl_.reset(SSL_new(context_.get()));
        SSL_set_fd(ssl_.get(), fd_);
        SSL_connect(ssl_.get());
    }
    ~Wire() { close(fd_); }
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;
    /// As much as the other side takes.
    Wire& say(std::string_view bytes) {
        while (!bytes.empty()) {
            const auto piece = bytes.substr(0, 16'384);
            const auto sent = ssl_ ? SSL_write(ssl_.get(), piece.data(), static_cast<int>(piece.size()))
                                   : static_cast<int>(send(fd_, piece.data(), piece.size(), MSG_NOSIGNAL));
            if (sent <= 0) break;
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
        return *this;
    }
    /// The next head of an answer, with what came along behind it; empty: the connection ended without one.
    std::string hear() {
        std::string out;
        char piece[4096];
        while (out.find("\r\n\r\n") == std::string::npos) {
            const auto size = ssl_ ? SSL_read(ssl_.get(), piece, sizeof piece) : static_cast<int>(recv(fd_, piece, sizeof piece, 0));
            if (size <= 0) return {};
            out.append(piece, static_cast<std::size_t>(size));
        }
        return out;
    }

  private:
    int fd_;
    std::unique_ptr<SSL_CTX, Free> context_;
    std::unique_ptr<SSL, Free> ssl_;
};

bool is_ok(const Resuming::Answer& answer) { return answer.text.starts_with("HTTP/1.1 200"); }

std::string post(const std::string& more, std::size_t length) {
    return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n", maps, length, more);
}
constexpr const char* waits = "Expect: 100-continue\r\n";

// RFC 9110 section 10.1.1: who waits is told to go on, or the final answer at once where the header alone tells it.
TEST(ApiServer, who_waits_with_a_body_is_told_to_go_on_or_why_not) {
    ApiServer api;
    const auto* admin = &api.pki.admin;
    const std::string body = R"({"metadata":{"name":"waited"},"data":{"x":")" + std::string(1 << 20, 'x') + R"("}})";
    Wire good(api.port, admin);
    EXPECT_EQ(good.say(post(waits, body.size())).hear(), "HTTP/1.1 100 Continue\r\n\r\n");
    const auto made = good.say(body).hear();
    EXPECT_TRUE(made.starts_with("HTTP/1.1 201")) << made.substr(0, 300);
    const auto unknown = Wire(api.port, admin).say(post("Authorization: Bearer nonsense\r\n" + std::string(waits), body.size())).hear();
    EXPECT_TRUE(unknown.starts_with("HTTP/1.1 401")) << unknown;
    const auto large = Wire(api.port, admin).say(post(waits, 4 << 20)).hear();
    EXPECT_TRUE(large.starts_with("HTTP/1.1 413")) << large;
    const auto other = Wire(api.port, admin).say(post("Expect: 200-ok\r\n", body.size())).hear();
    EXPECT_TRUE(other.starts_with("HTTP/1.1 417")) << other;
    // No 100 for who does not wait, nor for a version that knows none.
    const std::string small = R"({"metadata":{"name":"small"}})";
    const auto eager = Wire(api.port, admin).say(post(waits, small.size()) + small).hear();
    EXPECT_TRUE(eager.starts_with("HTTP/1.1 201")) << eager;
    auto old = post(waits, small.size());
    old.replace(old.find("HTTP/1.1"), 8, "HTTP/1.0");
    const auto answered = Wire(api.port, admin).say(old).say(small).hear();
    EXPECT_EQ(answered.find("100 Continue"), std::string::npos) << answered;
}

// Sizes of what HTTP itself is made of: a header of 64 KiB, a line and trailer of a chunked body of 128 KiB, a body of 3 MiB.
TEST(ApiServer, requests_of_any_size_and_shape_get_an_answer) {
    ApiServer api;
    const auto head = std::string("POST ") + maps + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    const auto chunked = head + "Transfer-Encoding: chunked\r\n\r\n";
    std::string many;
    for (int i = 0; i < 10'000; ++i) many += fmt::format("X-{}: {}\r\n", i, i);
    const std::string a_lot(300'000, 'a');
    std::string parameters;
    for (int i = 0; i < 5000; ++i) parameters += fmt::format("&p{}=v", i);
    for (const auto& [what, request, code] : std::vector<std::tuple<const char*, std::string, const char*>>{
             {"a header line that is too long", head + "X: " + a_lot + "\r\n\r\n", "431"},
             {"a header line without end", head + "X: " + a_lot, "431"},
             {"too many header lines", head + many + "\r\n", "431"},
             {"a request line without end", "GET /" + a_lot, "431"},
             {"a query that is too long", std::string("GET ") + maps + "?x=" + a_lot + " HTTP/1.1\r\nHost: x\r\n\r\n", "431"},
             {"a query of many parameters", std::string("GET ") + maps + "?" + parameters + " HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
             {"an extension of a chunk that is too long", chunked + "2;" + a_lot + "\r\n{}\r\n0\r\n\r\n", "431"},
             {"an extension without end", chunked + "2;" + a_lot, "431"},
             {"a trailer that is too long", chunked + "2\r\n{}\r\n0\r\nX: " + a_lot + "\r\n\r\n", "431"},
             {"a trailer without end", chunked + "2\r\n{}\r\n0\r\nX: " + a_lot, "431"},
             {"too many lines of a trailer", chunked + "2\r\n{}\r\n0\r\n" + many + "\r\n", "431"},
             {"a size that is none", chunked + "zz\r\n{}\r\n0\r\n\r\n", "400"},
             {"a size beyond all numbers", chunked + "fffffffffffffffffffff\r\n", "400"},
             {"a chunk that is too large", chunked + "400000\r\n", "413"},
             {"a request that is none", "what is this\r\n\r\n", "400"},
             {"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "400"},
             {"chunks with extensions and a trailer", chunked + "a;x=y\r\n{\"metadata\r\n14;z\r\n\":{\"name\":\"pieces\"}}\r\n0\r\nX: y\r\n\r\n", "201"}}) {
        const auto answer = Wire(api.port, &api.pki.admin).say(request).hear();
        EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + code)) << what << ": " << answer.substr(0, 400);
    }
}

// kubectl 1.31 and later ask for a WebSocket first, and take SPDY where the upgrade is refused (client-go, FallbackDialer). What they,
// or somebody hostile, send as frames behind that is no request, whatever its form (RFC 6455 section 5).
TEST(ApiServer, frames_of_a_websocket_port_forward_are_refused_and_hold_nothing_up) {
    ApiServer api;
    api.registry->create(*resources::find_kind("v1", "Pod"), "default", {{"metadata", {{"name", "p"}}}, {"spec", {{"containers", Json::array({{{"name", "c"}}})}}}}).value();
    const std::string upgrade = "GET /api/v1/namespaces/default/pods/p/portforward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                "Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\r\n";
    auto frame = [](int first, std::uint64_t length, bool masked, const std::string& content) {
        std::string out(1, static_cast<char>(first));
        const auto mask = masked ? 0x80 : 0;
        out += static_cast<char>(mask | (length < 126 ? static_cast<int>(length) : length < 65'536 ? 126 : 127));
        if (length >= 126)
            for (int at = length < 65'536 ? 8 : 56; at >= 0; at -= 8) out += static_cast<char>(length >> at);
        return out + (masked ? "abcd" : "") + content;
    };
    const std::pair<const char*, std::string> cases[] = {
        {"nothing", ""},
        {"a frame that is not masked", frame(0x82, 5, false, "hello")},
        {"an opcode that is reserved", frame(0x8f, 5, true, "hello")},
        {"reserved bits", frame(0xf2, 5, true, "hello")},
        {"a length beyond all numbers", frame(0x82, UINT64_MAX, true, std::string(1000, 'x'))},
        {"the longest frame that is begun", frame(0x82, INT64_MAX, true, std::string(200'000, '\xff'))},
        {"a fragment without a beginning", frame(0x00, 5, true, "hello")},
        {"fragments without end", [&] { std::string out; for (int i = 0; i < 20'000; ++i) out += frame(i == 0 ? 0x02 : 0x00, 1, true, "x"); return out; }()},
        {"a ping that is too long", frame(0x89, 126, true, std::string(126, 'x'))},
        {"a close without a code", frame(0x88, 1, true, "x")},
        {"a close with a code that may not be sent", frame(0x88, 2, true, "\x03\xed")},
        {"a close with a reason that is no text", frame(0x88, 4, true, "\x03\xe8\xff\xff")},
    };
    for (const auto& [what, frames] : cases) {
        SCOPED_TRACE(what);
        const auto answer = Wire(api.port, &api.pki.admin).say(upgrade + frames).hear();
        EXPECT_TRUE(answer.starts_with("HTTP/1.1 400")) << answer.substr(0, 300);
        EXPECT_NE(answer.find("SPDY/3.1"), std::string::npos) << answer.substr(0, 600);
        EXPECT_EQ(answer.find(" 101 "), std::string::npos);
        EXPECT_LT(answer.size(), 4096u);
    }
    EXPECT_TRUE(Wire(api.port, &api.pki.admin).say("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").hear().starts_with("HTTP/1.1 200")) << "it serves on";
}

TEST(PageServer, requests_of_any_size_and_shape_get_an_answer) {
    api::PageServer pages([](const std::string&) { return api::Reply{.content_type = "text/plain", .body = "page"}; });
    int port = 0;
    for (port = 20'000; port < 60'000 && !pages.listen(static_cast<std::uint16_t>(port)); ++port) {}
    ASSERT_LT(port, 60'000);
    for (const auto& [request, code] : std::vector<std::pair<std::string, const char*>>{
             {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
             {"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + std::string(300'000, 'a'), "431"},
             {"GET /metrics HTTP/1.1\r\nContent-Length: 2000\r\n\r\n", "413"},
             {"GET /metrics HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", "100"},
             {"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", "405"},
             {"GET /metrics HTTP/1.1\r\nExpect: something\r\n\r\n", "417"},
             {"nonsense\r\n\r\n", "400"}}) {
        const auto answer = Wire(port, nullptr).say(request).hear();
        EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + code)) << request.substr(0, 60) << ": " << answer;
    }
}

TEST(ApiServer, a_tls_session_is_resumed_and_keeps_its_identity) {
    ApiServer api;
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
        Resuming nobody(api.port, version, nullptr), admin(api.port, version, &api.pki.admin);
        for (int i = 0; i < 3; ++i) {
            const auto answer = nobody.get("/version");
            EXPECT_TRUE(is_ok(answer)) << i << " " << answer.text;
            EXPECT_EQ(answer.resumed, i > 0);
            const auto known = admin.get(maps);
            EXPECT_TRUE(is_ok(known)) << i << " " << known.text;
            EXPECT_EQ(known.resumed, i > 0);
        }
        EXPECT_TRUE(nobody.get(maps).text.starts_with("HTTP/1.1 403")) << "a resumed stranger is a stranger";
    }
}

TEST(ApiServer, a_session_does_not_keep_what_is_no_longer_trusted) {
    ApiServer api;
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
        Resuming admin(api.port, version, &api.pki.admin);
        ASSERT_TRUE(is_ok(admin.get(maps)));
        ASSERT_TRUE(admin.get(maps).resumed);
        const auto other = fresh_pki();
        ASSERT_TRUE(api.server.use(other.server, other.trusted));
        const auto answer = admin.get(maps);
        EXPECT_FALSE(answer.resumed) << "sessions of before are over";
        EXPECT_TRUE(answer.text.starts_with("HTTP/1.1 401")) << answer.text;
        EXPECT_NE(answer.text.find("Unauthorized: "), std::string::npos) << answer.text;
        ASSERT_TRUE(api.server.use(api.pki.server, api.pki.trusted));
        EXPECT_TRUE(is_ok(admin.get(maps)));
    }
}

// --- other certificates while it runs ---

TEST(ApiServer, open_connections_stay_when_its_certificates_change) {
    ApiServer api;
    auto kept = api.client();
    ASSERT_TRUE(kept.request("GET", maps)->ok());
    auto watching = api.client();
    std::vector<std::string> seen;
    const auto from = api.version();
    std::jthread watch([&] {
        [[maybe_unused]] const auto ended =
            watching.watch(std::string(maps) + "?watch=1&resourceVersion=" + from, "application/json",
                           [&](const Json& line) {
                               seen.push_back(text_at(line, "object.metadata.name"));
                               if (seen.size() > 1) return false;
                               // Its successor signs from now on, and the old one is trusted beside it.
                               auto next = api.pki;
                               next.ca = {};
                               next = fresh_pki(next);
                               EXPECT_TRUE(api.server.use(next.server, next.trusted));
                               EXPECT_TRUE(kept.request("GET", maps)->ok()) << "on the connection of before";
                               client::Client newcomer(api.access(next));
                               EXPECT_TRUE(newcomer.request("GET", maps)->ok());
                               auto old_client = api.access(api.pki);
                               old_client.ca = next.trusted;
                               EXPECT_TRUE(client::Client(old_client).request("GET", maps)->ok())
                                   << "a client certificate of the old CA";
                               api.put("two");
                               return true;
                           });
    });
    api.put("one");
    watch.join();
    EXPECT_EQ(seen, (std::vector<std::string>{"one", "two"}));
    EXPECT_FALSE(api.server.use({.certificate = "nothing", .key = "nothing"}, api.pki.trusted))
        << "what cannot be used changes nothing";
    EXPECT_TRUE(kept.request("GET", maps)->ok());
}

TEST(ApiServer, what_a_ca_opened_ends_when_it_is_no_longer_trusted) {
    ApiServer api;
    auto kept = api.client();
    ASSERT_TRUE(kept.request("GET", maps)->ok());
    auto watching = api.client();
    api.put("one");
    const auto other = fresh_pki();
    const auto ended = watching.watch(std::string(maps) + "?watch=1", "application/json", [&](const Json&) {
        return api.server.use(other.server, other.trusted).has_value();
    });
    EXPECT_EQ(ended.value(), 200) << "the watch ends by itself";
    const auto refused = kept.request("GET", maps);
    EXPECT_EQ(refused->status, 401);
    EXPECT_TRUE(refused->message().starts_with("Unauthorized: ")) << refused->message();
}

// --- the client ---

struct KubeconfigFile {
    std::filesystem::path path = std::filesystem::temp_directory_path() /
                                 ("penstock-kubeconfig-" + std::to_string(getpid()) + "-" +
                                  ::testing::UnitTest::GetInstance()->current_test_info()->name());
    ~KubeconfigFile() { std::filesystem::remove(path); }
    void write(const OwnPki& pki, int port) const {
        ASSERT_TRUE(app::write_private(path, app::kubeconfig_text(pki, "127.0.0.1", port)));
    }
};

TEST(ApiClient, follows_a_kubeconfig_that_was_rewritten) {
    ApiServer api;
    KubeconfigFile file;
    file.write(api.pki, api.port);
    client::Client client(client::read_kubeconfig(file.path).value());
    ASSERT_TRUE(client.request("GET", maps)->ok());
    // Another CA, and nothing of the old one is trusted: the open connection is refused, the kubeconfig says
    // how to go on.
    const auto other = fresh_pki();
    file.write(other, api.port);
    ASSERT_TRUE(api.server.use(other.server, other.trusted));
    const auto answer = client.request("GET", maps);
    EXPECT_TRUE(answer && answer->ok()) << (answer ? answer->message() : answer.error().message);
    // Another server altogether, for the next connection.
    ApiServer second;
    file.write(second.pki, second.port);
    second.put("here");
    std::string seen;
    ASSERT_TRUE(client.watch(std::string(maps) + "?watch=1", "application/json", [&](const Json& line) {
        return seen = text_at(line, "object.metadata.name"), false;
    }));
    EXPECT_EQ(seen, "here");
    // Half a file leaves what was known in force.
    std::ofstream(file.path) << "apiVersion: v1\nkind: Con";
    EXPECT_TRUE(client.request("GET", maps)->ok());
}

TEST(ApiClient, a_kubeconfig_is_followed_in_its_own_context) {
    ApiServer api;
    KubeconfigFile file;
    file.write(api.pki, api.port);
    client::Client client(client::read_kubeconfig(file.path).value());
    auto text = app::read_file(file.path).value();
    text.replace(text.find("current-context: default"), 24, "current-context: other  ");
    std::ofstream(file.path) << text;
    EXPECT_TRUE(client.request("GET", maps)->ok())
        << "somebody who looks at another cluster does not move a broker there";
}

// A server that takes connections and says nothing held its clients for ever.
TEST(ApiClient, a_server_that_says_nothing_is_waited_for_so_long_and_no_longer) {
    const int listening = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in here{
        .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    ASSERT_EQ(bind(listening, static_cast<sockaddr*>(static_cast<void*>(&here)), sizeof here), 0);
    ASSERT_EQ(listen(listening, 8), 0);
    socklen_t size = sizeof here;
    getsockname(listening, static_cast<sockaddr*>(static_cast<void*>(&here)), &size);
    client::Client client(
        {.host = "127.0.0.1", .port = std::to_string(ntohs(here.sin_port)), .insecure = true});
    client.set_answer_time(100);
    const auto answer = client.request("GET", "/version");
    ASSERT_FALSE(answer);
    EXPECT_NE(answer.error().message.find("no answer in time"), std::string::npos) << answer.error().message;
    close(listening);
}

// A path is cut where its '/' are, before it is decoded: what is encoded belongs to a name, and no name has one.
TEST(ApiServer, an_encoded_slash_leads_to_nothing_else) {
    ApiServer api;
    auto client = api.client();
    api.put("keep");
    const std::string spaces = "/api/v1/namespaces/", keep = std::string(maps) + "/keep";
    for (const auto& path : {spaces + "default%2Fconfigmaps", spaces + "default%2Fconfigmaps%2Fkeep", spaces + "default/configmaps%2Fkeep", keep + "%2f", std::string(maps) + "%2F",
                             spaces + "default%2Fconfigmaps/keep", spaces + "%2e%2e%2Fconfigmaps"})
        for (const char* method : {"DELETE", "GET"}) {
            const auto answer = client.request(method, path).value();
            EXPECT_EQ(answer.status, 404) << method << " " << path << ": " << answer.text;
        }
    const auto patched = client.request("PATCH", keep + "%2F?fieldManager=m", R"({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"keep"}})", "application/apply-patch+yaml").value();
    EXPECT_EQ(patched.status, 404) << patched.text;
    EXPECT_EQ(client.request("GET", keep)->status, 200);
    EXPECT_EQ(client.request("GET", spaces + "default/configmaps/%6beep")->status, 200) << "what needs no encoding may have it";
}

// Of a parameter that is given twice the first counts, as in Kubernetes (apimachinery, Convert_Slice_string_To_string).
TEST(ApiServer, the_first_of_two_parameters_counts) {
    ApiServer api;
    auto client = api.client();
    api.put("keep");
    EXPECT_EQ(client.request("DELETE", std::string(maps) + "?labelSelector=none=such&labelSelector=")->status, 200);
    EXPECT_EQ(client.request("DELETE", std::string(maps) + "/keep?dryRun=All&dryRun=None")->status, 200);
    EXPECT_EQ(client.request("GET", std::string(maps) + "/keep")->status, 200);
}

// RFC 9110 section 10.1.1, RFC 9112 section 9.5: a server may answer before the body is there; the answer is read all the same.
TEST(ApiClient, what_is_too_large_is_told_so) {
    ApiServer api;
    auto client = api.client();
    ASSERT_TRUE(client.request("GET", maps)->ok());
    const std::string body = R"({"metadata":{"name":"big"},"data":{"x":")" + std::string(24u << 20, 'x') + R"("}})";
    for (int i = 0; i < 3; ++i) {
        const auto answer = client.request("POST", maps, body);
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(answer->status, 413) << answer->text;
        EXPECT_TRUE(client.request("GET", maps)->ok());
    }
}

}  // namespace
}  // namespace penstock
