#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "mqtt/message.h"

namespace penstock::session {

/// A connection's unsent bytes: small packets copied one after the other, large payloads kept by reference in between.
/// Core: home. Taken from the worker's pool when a connection has something to send, given back when all is sent.
class OutBuffer {
  public:
    /// Payloads of at least this size are not copied.
    static constexpr std::size_t by_reference_min = 8192;

    OutBuffer() = default;
    ~OutBuffer() { std::free(data_); }
    OutBuffer(const OutBuffer&) = delete;
    OutBuffer& operator=(const OutBuffer&) = delete;

    /// Room for `size` bytes at the end; the caller writes all of them.
    char* grow(std::size_t size) {
        if (size_ + size > capacity_) reserve(size_ + size);
        auto* at = data_ + size_;
        size_ += size;
        return at;
    }
    void append(std::string_view bytes) {
        if (!bytes.empty()) std::memcpy(grow(bytes.size()), bytes.data(), bytes.size());
    }
    void append_payload(const mqtt::MessageRef& message) {
        references_.push_back({.at = size_, .message = message});
        referenced_ += message->payload_size();
    }
    [[nodiscard]] std::size_t pending() const noexcept { return size_ - sent_ + referenced_; }
    [[nodiscard]] bool empty() const noexcept { return pending() == 0; }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

    /// Calls `add(bytes)` for each piece in order until it returns false.
    template <class Add>
    void pieces(Add&& add) const {
        auto at = sent_;
        auto skip = reference_sent_;
        for (auto i = reference_head_; i < references_.size(); ++i) {
            const auto& r = references_[i];
            if (r.at > at && !add(std::string_view(data_ + at, r.at - at))) return;
            at = r.at;
            if (!add(r.message->view().payload.substr(skip))) return;
            skip = 0;
        }
        if (size_ > at) add(std::string_view(data_ + at, size_ - at));
    }
    /// The first `count` pending bytes are gone.
    void consume(std::size_t count) noexcept {
        while (count > 0) {
            const auto bytes_until = reference_head_ < references_.size() ? references_[reference_head_].at : size_;
            const auto step = std::min(count, bytes_until - sent_);
            sent_ += step;
            count -= step;
            if (count == 0) break;
            const auto& r = references_[reference_head_];
            const auto left = r.message->payload_size() - reference_sent_;
            const auto taken = std::min(count, left);
            reference_sent_ += taken;
            referenced_ -= taken;
            count -= taken;
            if (taken == left) {
                references_[reference_head_++].message = {};
                reference_sent_ = 0;
            }
        }
        if (pending() == 0) clear();
        else if (references_.empty() && sent_ > 65'536 && sent_ * 2 > size_) {
            std::memmove(data_, data_ + sent_, size_ - sent_);
            size_ -= sent_;
            sent_ = 0;
        }
    }
    void clear() noexcept {
        size_ = sent_ = referenced_ = reference_head_ = reference_sent_ = 0;
        references_.clear();
    }

  private:
    struct Reference {
        std::size_t at = 0;              ///< the payload stands before the byte at this offset
        mqtt::MessageRef message;
    };
    void reserve(std::size_t wanted) {
        auto capacity = capacity_ == 0 ? std::size_t{4096} : capacity_ * 2;
        while (capacity < wanted) capacity *= 2;
        void* bigger = std::realloc(data_, capacity);
        if (bigger == nullptr) throw std::bad_alloc();
        data_ = static_cast<char*>(bigger);
        capacity_ = capacity;
    }

    char* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    std::size_t sent_ = 0;
    std::vector<Reference> references_;
    std::size_t referenced_ = 0;         ///< payload bytes not yet sent
    std::size_t reference_head_ = 0;
    std::size_t reference_sent_ = 0;
};

}  // namespace penstock::session
