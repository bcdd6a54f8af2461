// Names that are never answered: who waits for one gives up, and nobody else waits at all.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <string_view>

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

}  // namespace
}  // namespace penstock::client
