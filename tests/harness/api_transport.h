#pragma once
// A resource API in memory as a client sees it, with faults to order.
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>

#include "api/handler.h"
#include "base/clock.h"
#include "client/transport.h"

namespace penstock::test {

/// What goes wrong, each as a chance from 0 to 1. Any thread may set it.
struct Faults {
    std::atomic<double> conflict{0}, forbidden{0}, too_many{0}, server_error{0}, no_answer{0}, lost_answer{0}, cut_watch{0}, expired{0}, unauthorized{0};
    void set_all(double chance) {
        for (auto* fault : {&conflict, &forbidden, &too_many, &server_error, &no_answer, &lost_answer, &cut_watch, &expired}) fault->store(chance);
    }
};

/// The API's side: one handler, used by one thread at a time as in the server.
struct ApiWorld {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    std::unique_ptr<api::Tokens> tokens = std::make_unique<api::Tokens>(*registry, "https://issuer", std::vector<std::string>{});
    std::unique_ptr<api::Handler> handler = std::make_unique<api::Handler>(*registry, *tokens, "test");
    std::mutex guard;
    Faults faults;
    std::atomic<std::uint64_t> requests{0};
    std::mt19937 random{7};

    bool chance(double probability) {
        const std::lock_guard lock(guard);
        return std::uniform_real_distribution<>(0, 1)(random) < probability;
    }
    api::Reply ask(const std::string& method, const std::string& target, const std::string& body, const std::string& content_type, const std::string& accept) {
        api::Request request{.method = method, .path = target.substr(0, target.find('?')), .query = {}, .accept = accept, .content_type = content_type, .authorization = {}, .user_agent = "test", .if_none_match = {},
                             .impersonation = {}, .upgrade = {}, .body = body, .user = {.name = "admin", .uid = {}, .groups = {"system:masters"}, .extra = {}}};
        if (const auto question = target.find('?'); question != std::string::npos) {
            std::string rest = target.substr(question + 1);
            for (std::size_t at = 0; at < rest.size();) {
                const auto end = std::min(rest.find('&', at), rest.size());
                const auto pair = rest.substr(at, end - at);
                const auto equal = pair.find('=');
                auto value = equal == std::string::npos ? std::string() : pair.substr(equal + 1);
                for (auto percent = value.find('%'); percent != std::string::npos; percent = value.find('%', percent + 1))
                    value.replace(percent, 3, 1, static_cast<char>(std::stoi(value.substr(percent + 1, 2), nullptr, 16)));
                request.query[pair.substr(0, equal)] = value;
                at = end + 1;
            }
        }
        const std::lock_guard lock(guard);
        return handler->handle(request);
    }
};

class ApiTransport : public client::Transport {
  public:
    explicit ApiTransport(ApiWorld& world) : world_(world) {}

    Result<client::Response> request(const std::string& method, const std::string& target, const std::string& body = {}, const std::string& content_type = "application/json",
                                     const std::string& accept = "application/json") override {
        ++world_.requests;
        const bool writes = method != "GET";
        auto status = [](int code, const char* reason, int retry_after = 0) {
            return client::Response{.status = code, .body = {{"kind", "Status"}, {"code", code}, {"reason", reason}, {"message", reason}}, .text = {}, .warnings = {}, .retry_after_s = retry_after};
        };
        if (world_.chance(world_.faults.no_answer)) return fail("connection refused");
        if (world_.chance(world_.faults.too_many)) return status(429, "TooManyRequests", 1);
        if (world_.chance(world_.faults.server_error)) return status(500, "InternalError");
        if (world_.chance(world_.faults.forbidden)) return status(403, "Forbidden");
        if (writes && world_.chance(world_.faults.conflict)) return status(409, "Conflict");
        if (!writes && world_.chance(world_.faults.expired)) return status(410, "Expired");
        const auto reply = world_.ask(method, target, body, content_type, accept);
        if (writes && world_.chance(world_.faults.lost_answer)) return fail("connection reset");
        client::Response out{.status = reply.status, .body = {}, .text = reply.body, .warnings = {}};
        if (auto parsed = resources::parse_json(out.text)) out.body = std::move(*parsed);
        return out;
    }

    Result<int> watch(const std::string& target, const std::string& accept, const std::function<bool(const resources::Json&)>& on_line) override {
        ++world_.requests;
        interrupted_ = false;
        if (world_.chance(world_.faults.no_answer)) return fail("connection refused");
        if (world_.chance(world_.faults.too_many)) return 429;
        if (world_.chance(world_.faults.expired)) return 410;
        const auto reply = world_.ask("GET", target, {}, {}, accept);
        if (!reply.watch) return reply.status;
        auto version = reply.watch->from;
        auto send = [&](const std::string& line) { return line.empty() || on_line(resources::parse_json(line).value()); };
        while (!interrupted_) {
            std::vector<registry::Event> events;
            if (!world_.registry->events_since(version, nullptr, "", events)) {
                send(api::Handler::expired_line(version, world_.registry->oldest_version()));
                return 200;
            }
            for (const auto& event : events) {
                if (world_.chance(world_.faults.cut_watch)) return fail("the stream was cut");
                std::string line;
                {
                    const std::lock_guard lock(world_.guard);
                    line = world_.handler->watch_line(*reply.watch, event, false);
                }
                if (!send(line)) return 200;
                version = event.version;
            }
            if (world_.chance(world_.faults.cut_watch / 4)) return 200;   // ended in good order
            world_.registry->wait_change(version, 20);
        }
        return 200;
    }
    void interrupt() override { interrupted_ = true; }

  private:
    ApiWorld& world_;
    std::atomic<bool> interrupted_{false};
};

}  // namespace penstock::test
