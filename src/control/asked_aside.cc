#include "control/asked_aside.h"

#include <chrono>
#include <utility>

namespace penstock::control {

AskedAside::AskedAside(std::function<std::string()> make, std::string otherwise, int patience_ms)
    : make_(std::move(make)), otherwise_(std::move(otherwise)), patience_ms_(patience_ms), thread_([this] { run(); }) {}

AskedAside::~AskedAside() {
    {
        const std::lock_guard lock(guard_);
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

std::string AskedAside::text() {
    std::unique_lock lock(guard_);
    if (is_late_) return otherwise_;
    const auto wanted = ++asked_;
    changed_.notify_all();
    if (changed_.wait_for(lock, std::chrono::milliseconds(patience_ms_), [&] { return answered_ >= wanted; })) return text_;
    is_late_ = true;
    return otherwise_;
}

void AskedAside::run() {
    std::unique_lock lock(guard_);
    while (true) {
        changed_.wait(lock, [&] { return stopping_ || asked_ != answered_; });
        if (stopping_) return;
        const auto wanted = asked_;
        lock.unlock();
        auto text = make_();
        lock.lock();
        text_ = std::move(text);
        answered_ = wanted;
        is_late_ = false;
        changed_.notify_all();
    }
}

}  // namespace penstock::control
