#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace penstock::control {

/// A text that is made anew for whoever asks, by a thread of its own: what it is made from may not answer for long, and must
/// not hold up who asks and all that he has to do besides.
class AskedAside {
  public:
    /// `make` is called on the thread of this object, one call at a time. `otherwise` is told when it takes longer than
    /// `patience_ms`.
    AskedAside(std::function<std::string()> make, std::string otherwise, int patience_ms);
    /// Waits for a call of `make` that is under way.
    ~AskedAside();
    AskedAside(const AskedAside&) = delete;
    AskedAside& operator=(const AskedAside&) = delete;

    /// Made after this call began, or `otherwise`. While somebody's waiting was in vain and the answer is not there yet,
    /// nobody waits again. Any thread.
    std::string text();

  private:
    void run();

    const std::function<std::string()> make_;
    const std::string otherwise_;
    const int patience_ms_;
    std::mutex guard_;                   ///< all below but the thread
    std::condition_variable changed_;
    std::string text_;
    std::uint64_t asked_ = 0, answered_ = 0;
    bool is_late_ = false;               ///< somebody waited for what is under way in vain
    bool stopping_ = false;
    std::thread thread_;                 ///< last: it begins with all of the above there
};

}  // namespace penstock::control
