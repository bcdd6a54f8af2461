#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/counted.h"

namespace penstock::session {

/// A set of packet identifiers (1 to 65,535; MQTT 5.0 §2.2.1). Most sessions have a few at a time, in a small list; where there
/// are more, a bit for each in pages that come and go, so that none is searched for: a message that comes is looked up by its
/// identifier, whatever else is under way. Counts in the message pool, at most 10 KiB. Core: home.
class PacketIds {
  public:
    /// False: it is there already.
    bool add(std::uint16_t id) {
        if (has(id)) return false;
        if (pages_ == nullptr && few_.size() < few) {
            few_.push_back(id);
            ++size_;
            return true;
        }
        if (pages_ == nullptr) {
            pages_ = std::make_unique<Pages>();
            for (const auto one : few_) set(one);
            few_ = {};
        }
        set(id);
        ++size_;
        count();
        return true;
    }
    /// False: it is not there.
    bool erase(std::uint16_t id) {
        if (!has(id)) return false;
        --size_;
        if (pages_ == nullptr) {
            *std::ranges::find(few_, id) = few_.back();
            few_.pop_back();
            return true;
        }
        auto& page = (*pages_)[id / page_ids];
        page->bits[id % page_ids / 64] &= ~bit(id);
        if (--page->count == 0) page.reset(), --used_;
        if (size_ == 0) pages_.reset();
        count();
        return true;
    }
    [[nodiscard]] bool has(std::uint16_t id) const noexcept {
        if (pages_ == nullptr) return std::ranges::find(few_, id) != few_.end();
        const auto& page = (*pages_)[id / page_ids];
        return page != nullptr && (page->bits[id % page_ids / 64] & bit(id)) != 0;
    }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// All of them, in no order.
    [[nodiscard]] std::vector<std::uint16_t> list() const {
        std::vector<std::uint16_t> out(few_.begin(), few_.end());
        if (pages_ == nullptr) return out;
        out.reserve(size_);
        for (std::uint32_t id = 0; id < page_ids * pages; ++id)
            if (has(static_cast<std::uint16_t>(id))) out.push_back(static_cast<std::uint16_t>(id));
        return out;
    }

  private:
    static constexpr std::size_t few = 16, page_ids = 1024, pages = 64;
    struct Page {
        std::array<std::uint64_t, page_ids / 64> bits{};
        std::uint32_t count = 0;
    };
    using Pages = std::array<std::unique_ptr<Page>, pages>;

    static std::uint64_t bit(std::uint16_t id) noexcept { return std::uint64_t{1} << id % 64; }
    void set(std::uint16_t id) {
        auto& page = (*pages_)[id / page_ids];
        if (page == nullptr) page = std::make_unique<Page>(), ++used_;
        page->bits[id % page_ids / 64] |= bit(id);
        ++page->count;
    }
    void count() noexcept {
        constexpr auto block = CountedAllocator<char>::block_bytes;
        counted_.set(pages_ != nullptr ? sizeof(Pages) + block + used_ * (sizeof(Page) + block) : 0);
    }

    CountedVector<std::uint16_t> few_;
    std::unique_ptr<Pages> pages_;
    std::size_t size_ = 0;
    std::size_t used_ = 0;                        ///< pages that are there
    Counted counted_;
};

}  // namespace penstock::session
