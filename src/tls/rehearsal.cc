#include "tls/rehearsal.h"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "tls/channel.h"

namespace penstock::tls {
namespace {

constexpr int flights_max = 8;           // TLS 1.2 with a client certificate has five

/// Empty, or why the handshake ended.
std::string handshake_fault(const std::shared_ptr<const Context>& server_context, const std::string& version) {
    // A client that wants no protocol by ALPN is taken by every port.
    const auto client_context = Context::client({.verify_server = false, .verify_name = false, .version = version});
    if (!client_context) return client_context.error().message;
    Channel server(server_context, true), client(*client_context, false);
    std::array<char, 4096> plain{};
    client.advance();
    for (int flight = 0; flight < flights_max && !(server.is_open() && client.is_open()); ++flight)
        for (auto* from : {&client, &server}) {
            auto& to = from == &client ? server : client;
            const auto bytes = std::exchange(from->output(), {});
            to.set_input(bytes);
            if (to.read(plain.data(), plain.size()) < 0) return !server.fault().empty() ? server.fault() : client.fault();
        }
    return server.is_open() && client.is_open() ? std::string() : "the handshake came to no end";
}

}  // namespace

std::string rehearse(const std::shared_ptr<const Context>& server) {
    std::string all;
    for (const char* version : {"tlsv1.3", "tlsv1.2"}) {
        const auto fault = handshake_fault(server, version);
        if (fault.empty()) return {};
        all += fmt::format("{}{}: {}", all.empty() ? "" : ", ", version, fault);
    }
    return fmt::format("no TLS client can complete a handshake with this certificate ({}, {}; {}); issue it with a key on P-256 or RSA 2048",
                       server->chain().front().key_text(), server->chain().front().signature_algorithm(), all);
}

}  // namespace penstock::tls
