// WebSocket upgrade and frames, in pieces of every size.
#include <algorithm>
#include <cstdint>

#include "broker/websocket.h"

using namespace penstock::broker;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::size_t step = 1 + data[0] % 64u;
    WebSocketState state;
    state.is_open = (data[1] & 1) != 0;
    std::string_view rest(static_cast<const char*>(static_cast<const void*>(data + 2)), size - 2);
    std::string payload;
    const std::vector<std::string> none, origins{"https://*.plant.example", "http://localhost:*"};
    while (!rest.empty()) {
        const auto piece = rest.substr(0, std::min(step, rest.size()));
        rest.remove_prefix(piece.size());
        if (!websocket_receive(state, piece, 65'536, (data[1] & 2) != 0 ? origins : none, payload)) break;
    }
    if (payload.size() > size) __builtin_trap();
    return 0;
}
