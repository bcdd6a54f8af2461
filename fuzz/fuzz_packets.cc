// Every packet decoder, both versions; what decodes must encode again.
#include <cstdint>
#include <string_view>

#include "mqtt/packets.h"

using namespace penstock::mqtt;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view rest(static_cast<const char*>(static_cast<const void*>(data)), size);
    Frame frame;
    while (cut_frame(rest, 0xFFFF'FFFF, frame) == FrameState::complete) {
        for (const auto version : {Version::v311, Version::v5}) {
            switch (frame.type) {
                case PacketType::connect: static_cast<void>(decode_connect(frame.body)); break;
                case PacketType::connack: static_cast<void>(decode_connack(frame.body, version)); break;
                case PacketType::publish:
                    for (const bool from_client : {true, false})
                        if (const auto p = decode_publish(frame.flags, frame.body, version, from_client)) {
                            std::string forwarded, again;
                            copy_forwarded_properties(p->properties, forwarded);
                            encode_publish(again, version, p->topic, p->payload, p->qos, p->retain, p->dup, p->packet_id, forwarded);
                            Frame once_more;
                            if (cut_frame(again, 0xFFFF'FFFF, once_more) != FrameState::complete) __builtin_trap();
                            const auto q = decode_publish(once_more.flags, once_more.body, version, from_client);
                            if (!q || q->topic != p->topic || q->payload != p->payload) __builtin_trap();
                        }
                    break;
                case PacketType::puback:
                case PacketType::pubrec:
                case PacketType::pubrel:
                case PacketType::pubcomp: static_cast<void>(decode_ack(frame.type, frame.flags, frame.body, version)); break;
                case PacketType::subscribe: static_cast<void>(decode_subscribe(frame.flags, frame.body, version)); break;
                case PacketType::unsubscribe: static_cast<void>(decode_unsubscribe(frame.flags, frame.body, version)); break;
                case PacketType::suback: static_cast<void>(decode_suback(frame.body, version, false)); break;
                case PacketType::unsuback: static_cast<void>(decode_suback(frame.body, version, true)); break;
                case PacketType::disconnect: static_cast<void>(decode_disconnect(frame.flags, frame.body, version)); break;
                case PacketType::auth: static_cast<void>(decode_auth(frame.flags, frame.body)); break;
                default: break;
            }
        }
        rest.remove_prefix(frame.size);
    }
    return 0;
}
