#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "mqtt/message.h"

namespace penstock::session {

/// A connection's unsent bytes: small packets copied one after the other, large parts of messages kept by reference in between.
/// What it holds beyond the first 4 KiB counts in the message pool: how much waits is the reader's choice.
/// Core: home. Taken from the worker's pool when a connection has something to send, given back when all is sent.
class OutBuffer {
  public:
    /// Payloads, properties and topics of at least this size are not copied: one message may go to as many clients as there are.
    static constexpr std::size_t by_reference_min = 8192;

    OutBuffer() = default;
    ~OutBuffer() {
        count(0);
        std::free(data_);
    }
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
    /// `part` is of the message, and stays where it is while the message does.
    void append_reference(const mqtt::MessageRef& message, std::string_view part) {
        references_.push_back({.at = size_, .part = part, .message = message});
        referenced_ += part.size();
    }
    [[nodiscard]] std::size_t pending() const noexcept { return size_ - sent_ + referenced_; }
    [[nodiscard]] bool empty() const noexcept { return pending() == 0; }
    /// Bytes it holds, used or not.
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_ + references_.capacity() * sizeof(Reference); }

    /// Calls `add(bytes)` for each piece in order until it returns false.
    template <class Add>
    void pieces(Add&& add) const {
        auto at = sent_;
        auto skip = reference_sent_;
        for (auto i = reference_head_; i < references_.size(); ++i) {
            const auto& r = references_[i];
            if (r.at > at && !add(std::string_view(data_ + at, r.at - at))) return;
            at = r.at;
            if (!add(r.part.substr(skip))) return;
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
            const auto left = r.part.size() - reference_sent_;
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
        else compact();
    }
    void clear() noexcept {
        size_ = sent_ = referenced_ = reference_head_ = reference_sent_ = 0;
        references_.clear();
    }

  private:
    static constexpr std::size_t capacity_min = 4096;
    struct Reference {
        std::size_t at = 0;              ///< the part stands before the byte at this offset
        std::string_view part;
        mqtt::MessageRef message;
    };
    void reserve(std::size_t wanted) {
        auto capacity = capacity_ == 0 ? capacity_min : capacity_ * 2;
        while (capacity < wanted) capacity *= 2;
        void* bigger = std::realloc(data_, capacity);
        if (bigger == nullptr) throw std::bad_alloc();
        data_ = static_cast<char*>(bigger);
        count(capacity);
    }
    /// What was sent makes room: a reader that is always a little behind would have it grow for ever.
    void compact() noexcept {
        constexpr std::size_t bytes_min = 65'536, references_min = 256;
        const bool has_sent_bytes = sent_ > bytes_min && sent_ * 2 > size_, has_sent_references = reference_head_ > references_min && reference_head_ * 2 > references_.size();
        if (!has_sent_bytes && !has_sent_references) return;
        references_.erase(references_.begin(), references_.begin() + static_cast<std::ptrdiff_t>(reference_head_));
        reference_head_ = 0;
        if (!has_sent_bytes) return;
        for (auto& r : references_) r.at -= sent_;
        std::memmove(data_, data_ + sent_, size_ - sent_);
        size_ -= sent_;
        sent_ = 0;
    }
    void count(std::size_t capacity) noexcept {
        const auto counted = [](std::size_t bytes) { return static_cast<std::int64_t>(bytes > capacity_min ? bytes - capacity_min : 0); };
        mqtt::MessageBytes::mine().add(counted(capacity) - counted(capacity_));
        capacity_ = capacity;
    }

    char* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    std::size_t sent_ = 0;
    CountedVector<Reference> references_;
    std::size_t referenced_ = 0;         ///< bytes of parts not yet sent
    std::size_t reference_head_ = 0;
    std::size_t reference_sent_ = 0;
};

}  // namespace penstock::session
