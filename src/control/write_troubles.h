#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "registry/status.h"

namespace penstock::control {

/// Writes to the resource API that failed, until they succeed: whether there are any (then everything is looked at again soon), and
/// which are to be told. Each reason is told once. A refusal for want of a right is told when it has stayed for ten seconds: an API
/// server that comes back refuses everything until it has read its roles again.
/// Core: any thread.
class WriteTroubles {
  public:
    static constexpr std::int64_t patience_ms = 10'000;

    /// A look at all objects begins, and ends: what did not fail in it is forgotten then, as objects that are gone are.
    void begin();
    void end();
    /// `what`: kind, namespace and name. True: it is to be told now. `now_ms`: monotonic.
    bool failed(const std::string& what, const registry::Failure& failure, std::int64_t now_ms);
    void succeeded(const std::string& what);
    [[nodiscard]] bool any() const;

  private:
    struct Trouble {
        std::int64_t since_ms = 0;
        std::uint64_t round = 0;
        std::string told;
    };
    mutable std::mutex guard_;
    std::map<std::string, Trouble> troubles_;
    std::uint64_t round_ = 0;
};

}  // namespace penstock::control
