#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/counted.h"
#include "base/keyed_hash.h"
#include "topics/subscription_index.h"

namespace penstock::session {

struct Subscription {
    std::string text;                             ///< as the client sent it, `$share/...` included
    topics::Options options;
};

/// What one session is subscribed to, each text once, in no order. Most sessions have a few and shall cost no more than these; a
/// session with many finds each at once. They count in the message pool. Core: home. Pointers are good until the next change.
class Subscriptions {
  public:
    [[nodiscard]] Subscription* find(std::string_view text) {
        if (places_ != nullptr) {
            const auto found = places_->find(std::string(text));
            return found == places_->end() ? nullptr : &all_[found->second];
        }
        for (auto& one : all_)
            if (one.text == text) return &one;
        return nullptr;
    }
    /// It must not be there yet.
    void add(Subscription one) {
        if (all_.empty()) all_.reserve(1);
        bytes_ += one.text.size();
        all_.push_back(std::move(one));
        if (places_ != nullptr) places_->emplace(all_.back().text, all_.size() - 1);
        else if (all_.size() > few) index();
        count();
    }
    void erase(Subscription* one) {
        bytes_ -= one->text.size();
        if (places_ != nullptr) places_->erase(one->text);
        if (one != &all_.back()) {
            *one = std::move(all_.back());
            if (places_ != nullptr) (*places_)[one->text] = static_cast<std::size_t>(one - all_.data());
        }
        all_.pop_back();
        count();
    }
    /// `predicate` may use what it is shown, and is asked once about each.
    template <class Predicate>
    void erase_if(Predicate&& predicate) {
        const auto before = all_.size();
        std::erase_if(all_, predicate);
        if (all_.size() == before) return;
        bytes_ = 0;
        for (const auto& one : all_) bytes_ += one.text.size();
        if (std::exchange(places_, nullptr) != nullptr && all_.size() > few) index();
        count();
    }
    [[nodiscard]] bool empty() const noexcept { return all_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return all_.size(); }
    /// Of their texts.
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] auto begin() const noexcept { return all_.begin(); }
    [[nodiscard]] auto end() const noexcept { return all_.end(); }

  private:
    static constexpr std::size_t few = 32;
    static constexpr std::size_t place_bytes = 96;   ///< of a node in places_, with its bucket
    void count() noexcept { counted_.set(bytes_ * (places_ != nullptr ? 2 : 1) + all_.capacity() * sizeof(Subscription) + (places_ != nullptr ? places_->size() * place_bytes : 0)); }
    void index() {
        places_ = std::make_unique<std::unordered_map<std::string, std::size_t, TextHash>>();
        for (std::size_t i = 0; i < all_.size(); ++i) places_->emplace(all_[i].text, i);
    }
    std::vector<Subscription> all_;
    std::size_t bytes_ = 0;
    Counted counted_;
    std::unique_ptr<std::unordered_map<std::string, std::size_t, TextHash>> places_;   ///< text → place, when there are many
};

}  // namespace penstock::session
