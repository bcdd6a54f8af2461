#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/counted.h"
#include "mqtt/types.h"

namespace penstock::mqtt {

using penstock::MessageBytes;

/// What a PUBLISH carries, as views. Either into a read buffer or into a Message.
struct MessageView {
    std::string_view topic;
    std::string_view payload;
    std::string_view properties;         ///< wire form, in order, without expiry, alias and subscription identifiers
    std::string_view partition;          ///< user property `$partition`
    bool has_partition = false;
    bool retain = false;
    Qos qos{};
    std::int64_t expires_at = 0;         ///< monotonic ms; 0: never
    std::uint64_t publisher = 0;         ///< the publishing client (session::Session::publisher), for No Local; 0: none
};

/// One application message: immutable, reference-counted, one allocation. Any core; never changes after make().
class Message {
  public:
    static Message* make(const MessageView& view);
    void retain_reference() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
    }
    [[nodiscard]] MessageView view() const noexcept {
        const auto* at = bytes();
        return {.topic = {at, topic_size_},
                .payload = {at + topic_size_ + properties_size_, payload_size_},
                .properties = {at + topic_size_, properties_size_},
                .partition = has_partition_ ? std::string_view{at + topic_size_ + partition_at_, partition_size_} : std::string_view{},
                .has_partition = has_partition_,
                .retain = retain_,
                .qos = qos_,
                .expires_at = expires_at_,
                .publisher = publisher_};
    }
    [[nodiscard]] std::size_t memory() const noexcept {
        return sizeof(Message) + topic_size_ + properties_size_ + payload_size_;
    }
    [[nodiscard]] std::int64_t expires_at() const noexcept { return expires_at_; }
    [[nodiscard]] std::size_t payload_size() const noexcept { return payload_size_; }

  private:
    Message() = default;
    void destroy() noexcept;
    [[nodiscard]] const char* bytes() const noexcept { return static_cast<const char*>(static_cast<const void*>(this + 1)); }

    std::atomic<std::uint32_t> references_{1};
    std::uint32_t payload_size_ = 0;
    std::uint32_t properties_size_ = 0;
    std::uint32_t partition_at_ = 0;     ///< into the properties
    std::uint16_t topic_size_ = 0;
    std::uint16_t partition_size_ = 0;
    Qos qos_{};
    bool retain_ = false;
    bool has_partition_ = false;
    std::int64_t expires_at_ = 0;
    std::uint64_t publisher_ = 0;
};

/// Owning pointer to a Message.
class MessageRef {
  public:
    MessageRef() = default;
    explicit MessageRef(Message* adopted) noexcept : message_(adopted) {}
    MessageRef(const MessageRef& other) noexcept : message_(other.message_) {
        if (message_ != nullptr) message_->retain_reference();
    }
    MessageRef(MessageRef&& other) noexcept : message_(std::exchange(other.message_, nullptr)) {}
    MessageRef& operator=(MessageRef other) noexcept {
        std::swap(message_, other.message_);
        return *this;
    }
    ~MessageRef() {
        if (message_ != nullptr) message_->release();
    }
    [[nodiscard]] const Message* operator->() const noexcept { return message_; }
    [[nodiscard]] const Message& operator*() const noexcept { return *message_; }
    explicit operator bool() const noexcept { return message_ != nullptr; }

  private:
    Message* message_ = nullptr;
};

/// A message on its way: views first, an allocation only when somebody has to keep it.
class Outgoing {
  public:
    explicit Outgoing(const MessageView& view) noexcept : view_(view) {}
    explicit Outgoing(MessageRef message) noexcept : view_(message->view()), shared_(std::move(message)) {}
    [[nodiscard]] const MessageView& view() const noexcept { return view_; }
    /// Makes the shared copy on first use; the views move to it.
    const MessageRef& share() {
        if (!shared_) {
            shared_ = MessageRef(Message::make(view_));
            view_ = shared_->view();
        }
        return shared_;
    }

  private:
    MessageView view_;
    MessageRef shared_;
};

}  // namespace penstock::mqtt
