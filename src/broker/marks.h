#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/counted.h"

namespace penstock::broker {

/// What a mark says beside its name where there is nothing to say.
struct NoValue {};

/// Marks of messages that must not come twice (QoS 2, MQTT 5.0 §4.3.3, and messages between workers), by name: the
/// publisher, the packet identifier, and for whom the mark stands: empty for a worker's ordinary subscribers, `group()` for
/// a shared group.
///
/// A publisher has as many marks as it has messages under way, times groups; a PUBREL ends those of one message. The
/// identifier stands right behind the publisher, so that these are neighbours and nothing else is looked at.
/// Names count in the message pool. Core: home.
template <class Value>
class Marks {
  public:
    class Mark {
      public:
        explicit Mark(CountedString key) : key_(std::move(key)) {}
        /// Belongs to the mark; it is no part of its name.
        [[no_unique_address]] mutable Value value{};
        [[nodiscard]] const CountedString& key() const noexcept { return key_; }

      private:
        CountedString key_;
    };

    /// `publisher` has no NUL in it, as a client identifier [MQTT-1.5.4-2], or is a store::leaving_name(): these begin with
    /// NUL and have all the same size. So no publisher's name with a NUL behind it is the begin of another's.
    static CountedString key(std::string_view publisher, std::uint16_t packet_id, std::string_view whom) {
        CountedString out;
        out.reserve(publisher.size() + sizeof(char) + sizeof(packet_id) + whom.size());
        out += publisher;
        out += '\0';
        out += static_cast<char>(packet_id >> 8);
        out += static_cast<char>(packet_id);
        out += whom;
        return out;
    }
    /// For whom a mark of a shared group stands.
    static std::string group(std::string_view filter, std::string_view name) {
        std::string out(1, '\0');
        out += filter;
        out += '\0';
        return out += name;
    }

    /// The mark, and whether it is new.
    std::pair<const Mark*, bool> add(CountedString key) {
        const auto [at, is_new] = marks_.emplace(std::move(key));
        return {&*at, is_new};
    }
    [[nodiscard]] const Mark* find(std::string_view key) const {
        const auto found = marks_.find(key);
        return found != marks_.end() ? &*found : nullptr;
    }
    /// Ends those of one message; no identifier: all of the publisher's. Calls `ended(packet identifier, whom, value)` for
    /// each before it goes. False: there was none.
    template <class Ended>
    bool forget(std::string_view publisher, std::optional<std::uint16_t> packet_id, Ended&& ended) {
        auto prefix = key(publisher, packet_id.value_or(0), {});
        if (!packet_id) prefix.resize(publisher.size() + 1);
        bool any = false;
        for (auto at = marks_.lower_bound(prefix); at != marks_.end(); at = marks_.erase(at)) {
            ++looked_at_;
            const std::string_view name = at->key();
            if (!name.starts_with(prefix)) break;
            const auto rest = name.substr(publisher.size() + 1);
            const unsigned high = static_cast<unsigned char>(rest[0]), low = static_cast<unsigned char>(rest[1]);
            ended(static_cast<std::uint16_t>(high << 8 | low), rest.substr(2), at->value);
            any = true;
        }
        return any;
    }
    [[nodiscard]] bool empty() const noexcept { return marks_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return marks_.size(); }
    [[nodiscard]] auto begin() const noexcept { return marks_.begin(); }
    [[nodiscard]] auto end() const noexcept { return marks_.end(); }
    /// Marks that forget() has looked at since the start: as many as it ended, and one more each time at most.
    [[nodiscard]] std::uint64_t looked_at() const noexcept { return looked_at_; }

  private:
    struct ByKey {
        using is_transparent = void;
        bool operator()(const Mark& a, const Mark& b) const noexcept { return a.key() < b.key(); }
        bool operator()(const Mark& a, std::string_view b) const noexcept { return std::string_view(a.key()) < b; }
        bool operator()(std::string_view a, const Mark& b) const noexcept { return a < std::string_view(b.key()); }
    };
    std::set<Mark, ByKey, CountedAllocator<Mark>> marks_;
    std::uint64_t looked_at_ = 0;
};

}  // namespace penstock::broker
