// Names that are never answered: who waits for one gives up, and nobody else waits at all.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "client/http_pool.h"

namespace {

std::mutex guard;
std::condition_variable changed;
bool is_stuck = false, is_let_go = false;

}  // namespace

/// In place of the library's: the name hangs.test is answered when the test says so.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** out) {
    if (node != nullptr && std::string_view(node) == "hangs.test") {
        std::unique_lock lock(guard);
        is_stuck = true;
        changed.notify_all();
        changed.wait(lock, [] { return is_let_go; });
        return EAI_AGAIN;
    }
    static void* const real = dlsym(RTLD_NEXT, "getaddrinfo");
    return reinterpret_cast<int (*)(const char*, const char*, const addrinfo*, addrinfo**)>(real)(node, service, hints, out);
}

namespace penstock::client {
namespace {

TEST(HttpPool, a_name_that_is_never_answered_holds_nobody_else_up) {
    HttpPool pool;
    {
        const std::lock_guard lock(guard);
        is_stuck = is_let_go = false;
    }
    auto ask = [&](const std::string& url) {
        auto site = pool.site({.url = url, .timeout_ms = 300}).value();
        auto answer = std::make_shared<std::promise<HttpAnswer>>();
        site->send("GET", "/", {}, "", [answer](HttpAnswer got) { answer->set_value(std::move(got)); });
        return answer->get_future();
    };
    auto hanging = ask("https://hangs.test");
    {
        std::unique_lock lock(guard);
        changed.wait(lock, [] { return is_stuck; });
    }
    EXPECT_NE(ask("https://127.0.0.1:1").get().error.find("127.0.0.1:1: "), std::string::npos) << "an address needs no name server";
    EXPECT_EQ(hanging.get().error, "hangs.test cannot be resolved: no answer within 300 ms");
    {
        const std::lock_guard lock(guard);
        is_let_go = true;
    }
    changed.notify_all();
    EXPECT_FALSE(ask("https://localhost:1").get().error.empty()) << "names are answered again";
}

/// An HTTP server of the test on loopback: says what it was asked, and answers when the test says so.
class SlowServer {
  public:
    SlowServer() {
        sockaddr_in here{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
        socklen_t size = sizeof here;
        listening_ = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(bind(listening_, reinterpret_cast<sockaddr*>(&here), size), 0);
        EXPECT_EQ(listen(listening_, 16), 0);
        EXPECT_EQ(getsockname(listening_, reinterpret_cast<sockaddr*>(&here), &size), 0);
        port_ = ntohs(here.sin_port);
    }
    ~SlowServer() {
        close(peer_);
        close(listening_);
    }
    std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
    /// The body of the next request.
    std::string next() {
        if (peer_ < 0) peer_ = accept(listening_, nullptr, nullptr);
        std::string got;
        for (char c = 0; got.find("\r\n\r\n") == std::string::npos && recv(peer_, &c, 1, 0) == 1;) got += c;
        auto field = got.find("Content-Length: ");
        std::string body(field == std::string::npos ? 0 : std::stoul(got.substr(field + 16)), '\0');
        EXPECT_EQ(recv(peer_, body.data(), body.size(), MSG_WAITALL), static_cast<ssize_t>(body.size()));
        return body;
    }
    void answer() {
        constexpr std::string_view text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        EXPECT_EQ(send(peer_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    }

  private:
    int listening_ = -1, peer_ = -1, port_ = 0;
};

TEST(HttpPool, what_is_under_way_when_it_ends_goes_with_it) {
    SlowServer server;
    auto held = std::make_shared<int>();
    const std::weak_ptr<int> still = held;
    std::shared_ptr<HttpSite> site;
    {
        HttpPool pool;
        site = pool.site({.url = server.url(), .plain_allowed = true, .timeout_ms = 60'000, .under_way_max = 1}).value();
        for (const auto* body : {"under way", "waits"}) site->send("POST", "/", {}, body, [held](const HttpAnswer&) { ADD_FAILURE() << "dropped without an answer"; });
        EXPECT_EQ(server.next(), "under way");
        held.reset();
    }
    EXPECT_TRUE(still.expired());
    site->send("POST", "/", {}, "late", [](const HttpAnswer&) { ADD_FAILURE() << "nobody asks for it any more"; });
}

TEST(HttpPool, those_it_asks_for_take_turns_and_who_has_most_waiting_gives_way) {
    SlowServer server;
    HttpPool pool;
    auto site = pool.site({.url = server.url(), .plain_allowed = true, .timeout_ms = 60'000, .under_way_max = 1, .waiting_max = 6}).value();
    std::mutex answers_guard;
    std::vector<std::string> unsent;
    auto ask = [&](const std::string& from, const std::string& body) {
        site->send("POST", "/", {}, body, [&, body](const HttpAnswer& answer) {
            const std::lock_guard lock(answers_guard);
            if (answer.is_unsent) unsent.push_back(body + ": " + answer.error);
        }, {}, from);
    };
    ask("stranger", "s0");
    EXPECT_EQ(server.next(), "s0");
    for (const auto* body : {"s1", "s2", "s3", "s4", "s5"}) ask("stranger", body);
    for (const auto* body : {"p1", "p2", "p3"}) ask("plant", body);
    // What was handed in has arrived once a question of another site was answered, for both are on the pool's thread.
    std::promise<void> arrived;
    pool.site({.url = "http://127.0.0.1:1", .plain_allowed = true}).value()->send("GET", "/", {}, "", [&](const HttpAnswer&) { arrived.set_value(); });
    arrived.get_future().wait();
    std::vector<std::string> order;
    for (int i = 0; i < 6; ++i) {
        server.answer();
        order.push_back(server.next());
    }
    server.answer();
    EXPECT_EQ(order, (std::vector<std::string>{"s1", "p1", "s2", "p2", "s3", "p3"}));
    pool.stop();   // its thread may be answering still, which takes the guard
    EXPECT_EQ(unsent, (std::vector<std::string>{"s5: too many requests wait for it", "s4: too many requests wait for it"}));
}

}  // namespace
}  // namespace penstock::client
