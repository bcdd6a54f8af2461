#include "auth/crew.h"

namespace penstock::auth {

Crew::Crew(unsigned threads, std::size_t waiting_max) : waiting_max_(waiting_max) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

bool Crew::add(std::function<void()> work) {
    {
        const std::lock_guard lock(guard_);
        if (stopping_ || work_.size() >= waiting_max_) return false;
        work_.push_back(std::move(work));
    }
    changed_.notify_one();
    return true;
}

void Crew::stop() {
    {
        const std::lock_guard lock(guard_);
        stopping_ = true;
        work_.clear();
    }
    changed_.notify_all();
    for (auto& thread : threads_)
        if (thread.joinable()) thread.join();
}

void Crew::run() {
    while (true) {
        std::function<void()> work;
        {
            std::unique_lock lock(guard_);
            changed_.wait(lock, [this] { return stopping_ || !work_.empty(); });
            if (stopping_) return;
            work = std::move(work_.front());
            work_.pop_front();
        }
        work();
    }
}

}  // namespace penstock::auth
