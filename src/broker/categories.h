#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/keyed_hash.h"
#include "session/session.h"

namespace penstock::broker {

/// Counters of one metric category (user property `metriccategory` of CONNECT).
struct CategoryCounters {
    std::string name;
    std::uint64_t publishes_received = 0;
    std::uint64_t payload_bytes_received = 0;
    std::uint64_t authentication_successes = 0;
    std::uint64_t authentication_deny = 0;
    std::uint64_t authentication_failures = 0;
    std::uint64_t authorization_allow = 0;
    std::uint64_t authorization_deny = 0;
    std::uint64_t qos0_dropped_incoming = 0;
    session::DeliveryCounts delivery{};

    /// The name stays.
    void add(const CategoryCounters& other) noexcept;
};

/// How many categories there may be in the whole broker, and which workers have one. Any thread; nobody waits.
class CategoryClaims {
  public:
    /// Beside `uncategorized`.
    static constexpr std::size_t claims_max = 999;
    /// This worker has the category from now on. False: there are too many already.
    bool claim(std::string_view name) noexcept;
    void release(std::string_view name) noexcept;

  private:
    static std::uint64_t key_of(std::string_view name) noexcept;
    std::array<std::atomic<std::uint64_t>, claims_max> slots_{};   ///< upper 48 bits: hash of the name; lower 16: workers that have it
};

/// The metric categories of one worker's clients. A name is a series of the metrics page for as long as some client that was let in has
/// it, and ten minutes longer; then its counters go where only sums see them. Core: home.
class Categories {
  public:
    static constexpr const char* none = "uncategorized";           ///< index 0
    static constexpr std::size_t name_max = 128;                   ///< bytes; a longer one is no category
    static constexpr std::uint32_t idle_seconds = 600;

    explicit Categories(CategoryClaims& claims);
    Categories(const Categories&) = delete;
    Categories& operator=(const Categories&) = delete;
    ~Categories();

    CategoryCounters& operator[](std::uint16_t index) noexcept { return counters_[index]; }
    /// The category of one client more; 0 without a name, and when there are too many. `second`: the worker's clock.
    std::uint16_t take(std::string_view name, std::uint32_t second);
    /// A client of this category is gone.
    void drop(std::uint16_t index, std::uint32_t second) noexcept;
    /// Lets go those without clients for long. Every few seconds.
    void age(std::uint32_t second);
    /// Goes on counting where another one ended.
    void inherit(const std::vector<CategoryCounters>& list, const CategoryCounters& aged, std::uint32_t second);
    /// Those that have a name now.
    [[nodiscard]] std::vector<CategoryCounters> list() const;
    /// What those that are gone had counted, together.
    [[nodiscard]] const CategoryCounters& aged() const noexcept { return aged_; }

  private:
    struct Use {
        std::uint32_t clients = 0, idle_since = 0;
    };
    /// The index of a category that may be made, or 0.
    std::uint16_t find_or_make(std::string_view name, std::uint32_t second);
    void forget(std::uint16_t index);
    bool make_room();

    CategoryClaims& claims_;
    std::deque<CategoryCounters> counters_;                ///< without a name: free. They stay where they are
    std::vector<Use> uses_;                                ///< by the same index
    std::vector<std::uint16_t> free_;
    std::unordered_map<std::string, std::uint16_t, TextHash> index_;
    CategoryCounters aged_;
};

}  // namespace penstock::broker
