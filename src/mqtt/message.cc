#include "mqtt/message.h"

#include <cstdlib>
#include <new>

namespace penstock::mqtt {

Message* Message::make(const MessageView& view) {
    const auto size = sizeof(Message) + view.topic.size() + view.properties.size() + view.payload.size();
    void* memory = std::malloc(size);
    if (memory == nullptr) throw std::bad_alloc();
    auto* out = new (memory) Message;
    out->topic_size_ = static_cast<std::uint16_t>(view.topic.size());
    out->properties_size_ = static_cast<std::uint32_t>(view.properties.size());
    out->payload_size_ = static_cast<std::uint32_t>(view.payload.size());
    out->qos_ = view.qos;
    out->retain_ = view.retain;
    out->expires_at_ = view.expires_at;
    out->publisher_ = view.publisher;
    auto* at = static_cast<char*>(static_cast<void*>(out + 1));
    auto put = [&at](std::string_view bytes) {
        if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
        at += bytes.size();
    };
    put(view.topic);
    put(view.properties);
    put(view.payload);
    if (view.has_partition) {
        out->has_partition_ = true;
        // The partition is part of the properties; found again there, since the caller's view may be of another copy.
        const auto offset = view.properties.find(view.partition);
        if (offset != std::string_view::npos) {
            out->partition_at_ = static_cast<std::uint32_t>(offset);
            out->partition_size_ = static_cast<std::uint16_t>(view.partition.size());
        }
    }
    MessageBytes::mine().add(static_cast<std::int64_t>(size));
    return out;
}

void Message::destroy() noexcept {
    MessageBytes::mine().add(-static_cast<std::int64_t>(memory()));
    this->~Message();
    std::free(this);
}

}  // namespace penstock::mqtt
