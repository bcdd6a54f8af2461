#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace penstock::app {

/// Says what a start waits for when that takes long (a file on a mount that does not answer holds up whoever reads it, without an
/// error), and has SIGTERM and SIGINT end the process meanwhile, which nobody takes before the start is over. They are blocked in all
/// threads when one is made. Any thread.
class StartWatch {
  public:
    /// Told after so long, once for each step.
    static constexpr std::int64_t told_ms = 8000;
    /// A step that takes longer does not see to it itself that an order to stop is followed.
    static constexpr std::int64_t stuck_ms = 2000;

    StartWatch();
    ~StartWatch();
    StartWatch(const StartWatch&) = delete;
    StartWatch& operator=(const StartWatch&) = delete;
    /// What is done from now on, for a person: `the data folder /x`. Empty: the start is over, or goes on by itself.
    void step(std::string what);

  private:
    void watch();
    std::mutex guard_;                   ///< what follows
    std::condition_variable changed_;
    std::string what_;
    std::int64_t since_ms_ = 0;          ///< monotonic
    bool is_told_ = false, is_over_ = false;
    std::thread thread_;
};

/// SIGTERM or SIGINT has come and nobody has taken it yet.
bool is_told_to_stop();

}  // namespace penstock::app
