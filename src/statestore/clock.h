#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::statestore {

/// A hybrid logical clock reading: `001754041200123:00000:StateStore`.
struct Timestamp {
    std::int64_t time = 0;               ///< ms since the epoch
    std::uint32_t counter = 0;
    std::string node;

    [[nodiscard]] std::string text() const;
    /// Numbers may lack their padding. Nothing when it is no timestamp.
    static std::optional<Timestamp> parse(std::string_view text);
    /// Time, counter, node: in this order.
    auto operator<=>(const Timestamp&) const = default;
};

/// The store's own clock: each reading is later than all before it and than all it was told of.
class Clock {
  public:
    static constexpr const char* node = "StateStore";
    static constexpr std::int64_t ahead_max_ms = 60'000;
    /// A new reading at wall time `now_ms`, later than `remote` too.
    Timestamp next(std::int64_t now_ms, const Timestamp* remote = nullptr);
    /// A reading from before a restart.
    void see(const Timestamp& earlier);

  private:
    std::int64_t time_ = 0;
    std::uint32_t counter_ = 0;
};

}  // namespace penstock::statestore
