#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace penstock::auth {

/// A few threads for work that would hold a worker up (password hashes), below the priority of all others. First come, first served.
/// Core: any.
class Crew {
  public:
    /// Threads for this machine: as many as it has cores, at most four, since each hash may take much memory.
    static unsigned threads_here();
    /// `bytes_max`: of what waits, as add() is told.
    explicit Crew(unsigned threads, std::size_t waiting_max = 20'000, std::size_t bytes_max = 32u << 20);
    ~Crew() { stop(); }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    /// Does `work` after what was added before. False: too much waits already; the work is not taken.
    bool add(std::function<void()> work, std::size_t bytes);
    /// Drops what waits and ends the threads.
    void stop();

  private:
    void run();
    struct Work {
        std::function<void()> run;
        std::size_t bytes = 0;
    };
    std::size_t waiting_max_, bytes_max_;
    std::mutex guard_;                   ///< work_, bytes_, stopping_
    std::condition_variable changed_;
    std::deque<Work> work_;
    std::size_t bytes_ = 0;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace penstock::auth
