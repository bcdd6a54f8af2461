#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/turns.h"

namespace penstock::auth {

/// A few threads for work that would hold a worker up (password hashes), below the priority of all others. Addresses take turns,
/// oldest first within one, so that who asks often makes nobody but himself wait. Core: any.
class Crew {
  public:
    /// Threads for this machine: as many as it has cores, at most four, since each hash may take much memory.
    static unsigned threads_here();
    using Work = std::function<void(bool has_room)>;
    /// `waiting_max`, `bytes_max`: of all that waits, as add() is told; when it is full, the newest of the address that has most
    /// waiting gives way.
    explicit Crew(unsigned threads, std::size_t waiting_max = 20'000, std::size_t bytes_max = 32u << 20);
    ~Crew() { stop(); }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    /// Calls `work(true)` on a thread of its own when its turn has come, or `work(false)` when there is no room for it, or not any
    /// more: then on the thread of who adds, perhaps before this returns. `from`: the network of who asks; empty is one too.
    void add(std::string_view from, Work work, std::size_t bytes);
    /// Drops what waits and ends the threads.
    void stop();

  private:
    void run();
    const Turns::Room room_;
    std::mutex guard_;                   ///< turns_, work_, next_, stopping_
    std::condition_variable changed_;
    Turns turns_;
    std::unordered_map<std::uint64_t, Work> work_;
    std::uint64_t next_ = 1;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace penstock::auth
