#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace penstock::broker {

/// How many wrong credentials in a row are looked at, and how many more each second.
struct Patience {
    double burst, per_second;
};

/// Wrong credentials, by who showed them (an address, a device): each counts until the patience of it has grown back. Bounded: who
/// is forgotten first is who would be soonest anyway, so that showing many names lifts nobody's waiting. Core: home.
class Failures {
  public:
    explicit Failures(std::size_t most) : max_(most) {}

    /// One more of `who`, at `now` in milliseconds.
    void count(const std::string& who, const Patience& patience, std::int64_t now) {
        auto found = entries_.find(who);
        if (found == entries_.end()) {
            if (entries_.size() >= max_) forget(entries_.find(by_end_.begin()->second));
            found = entries_.emplace(who, Entry{.tokens = 0, .at = now}).first;
        } else {
            by_end_.erase({found->second.ends_at, found->first});
        }
        auto& entry = found->second;
        entry.tokens = left(entry, patience, now) + 1;
        entry.at = now;
        entry.ends_at = now + static_cast<std::int64_t>(entry.tokens / patience.per_second * 1000);
        by_end_.emplace(entry.ends_at, found->first);
    }
    /// They are more than are looked at.
    [[nodiscard]] bool is_over(const std::string& who, const Patience& patience, std::int64_t now) const {
        const auto found = entries_.find(who);
        return found != entries_.end() && left(found->second, patience, now) >= patience.burst;
    }
    /// Of those whose patience has grown back nothing is kept.
    void forget_ended(std::int64_t now) {
        while (!by_end_.empty() && by_end_.begin()->first <= now) forget(entries_.find(by_end_.begin()->second));
    }
    /// Takes over what another one counted.
    void add(const Failures& other) {
        for (const auto& [who, entry] : other.entries_) {
            if (entries_.size() >= max_ || entries_.contains(who)) continue;
            by_end_.emplace(entry.ends_at, entries_.emplace(who, entry).first->first);
        }
    }
    [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

  private:
    struct Entry {
        double tokens = 0;
        std::int64_t at = 0;
        std::int64_t ends_at = 0;
    };
    /// Ordered: who is refused chooses the names, and a table that hashes them would be searched.
    using Entries = std::map<std::string, Entry, std::less<>>;

    static double left(const Entry& entry, const Patience& patience, std::int64_t now) {
        return std::max(0.0, entry.tokens - static_cast<double>(now - entry.at) / 1000 * patience.per_second);
    }
    void forget(Entries::iterator entry) {
        by_end_.erase({entry->second.ends_at, entry->first});
        entries_.erase(entry);
    }

    std::size_t max_;
    Entries entries_;
    std::set<std::pair<std::int64_t, std::string_view>> by_end_;   ///< names of entries_
};

/// Devices that were let in lately, by the account (address and user name) that they used. Bounded: the account that has most loses
/// the one that came longest ago, so that one with many client identifiers puts out its own alone. Core: home.
class KnownDevices {
  public:
    explicit KnownDevices(std::size_t most) : max_(most) {}

    void note(const std::string& account, const std::string& device) {
        if (const auto found = places_.find(device); found != places_.end()) {
            auto& devices = found->second.account->second;
            devices.splice(devices.end(), devices, found->second.device);
            return;
        }
        if (places_.size() >= max_) drop_one();
        const auto at = accounts_.try_emplace(account).first;
        auto& devices = at->second;
        by_size_.erase({devices.size(), at->first});
        const auto place = places_.try_emplace(device).first;
        place->second = {.account = at, .device = devices.insert(devices.end(), place->first)};
        by_size_.emplace(devices.size(), at->first);
    }
    [[nodiscard]] bool contains(const std::string& device) const { return places_.contains(device); }
    [[nodiscard]] std::size_t size() const noexcept { return places_.size(); }
    /// Takes over what another one knows.
    void add(const KnownDevices& other) {
        for (const auto& [account, devices] : other.accounts_)
            for (const auto device : devices)
                if (places_.size() < max_) note(account, std::string(device));
    }

  private:
    using Devices = std::list<std::string_view>;                   ///< oldest first; names of places_
    using Accounts = std::map<std::string, Devices, std::less<>>;
    struct Place {
        Accounts::iterator account;
        Devices::iterator device;
    };
    void drop_one() {
        const auto most = accounts_.find(std::prev(by_size_.end())->second);
        auto& devices = most->second;
        by_size_.erase({devices.size(), most->first});
        const auto oldest = places_.find(devices.front());
        devices.pop_front();
        places_.erase(oldest);
        if (devices.empty()) accounts_.erase(most);
        else by_size_.emplace(devices.size(), most->first);
    }

    std::size_t max_;
    Accounts accounts_;
    std::map<std::string, Place, std::less<>> places_;             ///< by device
    std::set<std::pair<std::size_t, std::string_view>> by_size_;   ///< accounts
};

}  // namespace penstock::broker
