#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace penstock::auth {

/// A few threads for work that would hold a worker up (password hashes). Core: any.
class Crew {
  public:
    Crew(unsigned threads, std::size_t waiting_max);
    ~Crew() { stop(); }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    /// False: too much waits already; the work is not taken.
    bool add(std::function<void()> work);
    /// Drops what waits and ends the threads.
    void stop();

  private:
    void run();
    std::size_t waiting_max_;
    std::mutex guard_;                   ///< work_, stopping_
    std::condition_variable changed_;
    std::deque<std::function<void()>> work_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace penstock::auth
