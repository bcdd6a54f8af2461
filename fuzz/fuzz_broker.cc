// The whole broker of two cores: the input says which of four clients sends which bytes, drops, or lets time pass.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/log.h"
#include "harness/memory_net.h"

using namespace penstock;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    log::set_levels("off");
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    test::MemoryNet net(2, {.packet_size_max = 100'000, .pool_bytes = 50'000, .receive_maximum = 5});
    std::array<test::MemoryNet::End*, 4> ends{};
    std::string_view rest(static_cast<const char*>(static_cast<const void*>(data)), size);
    auto connect = [](std::size_t who, unsigned kind) {
        mqtt::ConnectOptions options{.version = (kind & 1) != 0 ? mqtt::Version::v311 : mqtt::Version::v5, .client_id = std::string(1, static_cast<char>('a' + who)), .clean_start = (kind & 2) != 0, .keep_alive = 10};
        if (options.version == mqtt::Version::v5) options.properties = {{.id = mqtt::PropertyId::session_expiry_interval, .number = 30}, {.id = mqtt::PropertyId::receive_maximum, .number = 3}, {.id = mqtt::PropertyId::topic_alias_maximum, .number = 2}};
        std::string out;
        mqtt::encode_connect(out, options);
        return out;
    };
    while (rest.size() >= 2) {
        const unsigned op = static_cast<unsigned char>(rest[0]);
        const std::size_t length = static_cast<unsigned char>(rest[1]);
        rest.remove_prefix(2);
        const std::size_t who = op & 3;
        auto*& end = ends[who];
        if (end == nullptr || end->is_closed) {
            end = net.open(static_cast<std::uint32_t>(op >> 2));
            if ((op & 0x80) == 0) net.send(*end, connect(who, op >> 4));
        }
        switch (op >> 2 & 3) {
            case 0: net.drop(*end); break;
            case 1: net.advance(static_cast<std::int64_t>(length) * 100); break;
            default: {
                const auto bytes = rest.substr(0, std::min(length, rest.size()));
                if ((op & 0x40) != 0) end->reads = !end->reads;
                net.send(*end, bytes);
                rest.remove_prefix(bytes.size());
            }
        }
        if (end->received.size() > 1'000'000) end->received.clear();
    }
    for (auto* end : ends)
        if (end != nullptr) net.drop(*end);
    return 0;
}
