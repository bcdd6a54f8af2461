// The resource API's handler: method, path, query, media type and body from the input, one request per line group.
#include <cstdint>
#include <memory>

#include "api/handler.h"
#include "base/text.h"

using namespace penstock;

namespace {

struct World {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    api::Tokens tokens{*registry, "https://issuer", {}};
    api::Handler handler{*registry, tokens, "fuzz"};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // Objects that requests make stay for later requests to meet, but not for ever.
    static std::unique_ptr<World> world;
    static int uses = 0;
    if (uses++ % 500 == 0) world = std::make_unique<World>();
    const std::string text(static_cast<const char*>(static_cast<const void*>(data)), size);
    const auto parts = split(text, '\x01');
    if (parts.size() < 4) return 0;
    constexpr const char* methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    constexpr const char* media[] = {"application/json", "application/merge-patch+json", "application/json-patch+json", "application/yaml", "application/strategic-merge-patch+json",
                                     "application/apply-patch+yaml", "application/vnd.kubernetes.protobuf"};
    api::Request request{.method = methods[static_cast<unsigned char>(text[0]) % 5u], .path = "/" + std::string(parts[1]), .accept = "application/json",
                         .content_type = media[(static_cast<unsigned char>(text[0]) / 5u) % 7u], .user_agent = "fuzz/1", .body = std::string(parts[3]),
                         .user = {.name = "system:admin", .groups = {"system:masters"}}};
    for (const auto pair : split(parts[2], '&')) {
        const auto equal = pair.find('=');
        request.query[std::string(pair.substr(0, equal))] = equal == std::string_view::npos ? "" : std::string(pair.substr(equal + 1));
    }
    const auto reply = world->handler.handle(request);
    if (reply.status >= 500 && reply.status != 504 && request.path != "/readyz") __builtin_trap();
    return 0;
}
