#include "auth/crew.h"

#include <algorithm>

#include "io/process.h"

namespace penstock::auth {

unsigned Crew::threads_here() { return std::clamp(std::thread::hardware_concurrency(), 1u, 4u); }

Crew::Crew(unsigned threads, std::size_t waiting_max, std::size_t bytes_max) : waiting_max_(waiting_max), bytes_max_(bytes_max) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

bool Crew::add(std::function<void()> work, std::size_t bytes) {
    {
        const std::lock_guard lock(guard_);
        if (stopping_ || work_.size() >= waiting_max_ || bytes_ + bytes > bytes_max_) return false;
        work_.push_back({.run = std::move(work), .bytes = bytes});
        bytes_ += bytes;
    }
    changed_.notify_one();
    return true;
}

void Crew::stop() {
    {
        const std::lock_guard lock(guard_);
        stopping_ = true;
        work_.clear();
        bytes_ = 0;
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
            changed_.wait(lock, [this] { return stopping_ || !work_.empty(); });
            if (stopping_) return;
            work = std::move(work_.front());
            work_.pop_front();
            bytes_ -= work.bytes;
        }
        work.run();
    }
}

}  // namespace penstock::auth
