#include "auth/crew.h"

#include <algorithm>

#include "io/process.h"

namespace penstock::auth {

unsigned Crew::threads_here() { return std::clamp(std::thread::hardware_concurrency(), 1u, 4u); }

Crew::Crew(unsigned threads, std::size_t waiting_max, std::size_t bytes_max) : room_{.count = waiting_max, .bytes = bytes_max} {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

void Crew::add(std::string_view from, Work work, std::size_t bytes) {
    std::vector<Work> without_room;
    {
        const std::lock_guard lock(guard_);
        const auto number = next_++;
        work_.emplace(number, std::move(work));
        for (const auto gone : stopping_ ? std::vector{number} : turns_.add(from, number, bytes, room_)) {
            const auto found = work_.find(gone);
            without_room.push_back(std::move(found->second));
            work_.erase(found);
        }
    }
    changed_.notify_one();
    for (const auto& one : without_room) one(false);
}

void Crew::stop() {
    {
        const std::lock_guard lock(guard_);
        stopping_ = true;
        turns_.clear();
        work_.clear();
    }
    changed_.notify_all();
    for (auto& thread : threads_)
        if (thread.joinable()) thread.join();
}

void Crew::run() {
    io::lower_thread_priority();
    while (true) {
        Work work;
        {
            std::unique_lock lock(guard_);
            changed_.wait(lock, [this] { return stopping_ || turns_.size() != 0; });
            if (stopping_) return;
            const auto found = work_.find(*turns_.next());
            work = std::move(found->second);
            work_.erase(found);
        }
        work(true);
    }
}

}  // namespace penstock::auth
