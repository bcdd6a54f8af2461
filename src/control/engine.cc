#include "control/engine.h"

#include <algorithm>

#include "base/log.h"
#include "base/random.h"

namespace penstock::control {
namespace {

double jitter() { return static_cast<double>(random_u64() >> 11) / static_cast<double>(1ULL << 53); }

constexpr int turn_max = 200;            // keys of one reconciler before the others have their turn
constexpr std::int64_t idle_ms = 500;

const char* word_of(Outcome::Kind kind) {
    switch (kind) {
        case Outcome::Kind::settled: return "settled";
        case Outcome::Kind::after: return "after";
        case Outcome::Kind::retry: return "retry";
        case Outcome::Kind::stop: return "stop";
    }
    return "";
}

}  // namespace

void Engine::add(std::unique_ptr<Reconciler> reconciler) {
    auto entry = std::make_unique<Entry>(Entry{.reconciler = std::move(reconciler), .queue = WorkQueue(jitter), .counts = {{"settled", 0}, {"after", 0}, {"retry", 0}, {"stop", 0}}});
    entries_.push_back(std::move(entry));
}

void Engine::start() {
    thread_ = std::thread([this] { run(); });
}

void Engine::stop() {
    stopping_ = true;
    objects_.stop();
    if (thread_.joinable()) thread_.join();
}

void Engine::work(Entry& entry) {
    for (int i = 0; i < turn_max && !stopping_; ++i) {
        const auto key = entry.queue.take(clock_.monotonic_ms());
        if (!key) return;
        const auto outcome = entry.reconciler->reconcile(*key);
        entry.queue.done(*key, outcome, clock_.monotonic_ms());
        if (outcome.kind == Outcome::Kind::retry && entry.queue.failures(*key) == 5)
            log::warn("control", "reconciling fails again and again controller={} object={}/{} why=\"{}\"", entry.reconciler->name(), key->name_space, key->name, outcome.why);
        if (outcome.kind == Outcome::Kind::stop) log::warn("control", "reconciling ended controller={} object={}/{} why=\"{}\"", entry.reconciler->name(), key->name_space, key->name, outcome.why);
        const std::lock_guard lock(guard_);
        ++entry.counts[word_of(outcome.kind)];
    }
}

void Engine::run() {
    std::uint64_t seen = 0;
    while (!stopping_) {
        std::vector<registry::Event> events;
        const bool all_known = objects_.changes(seen, events);
        if (again_.exchange(false) || !all_known)
            for (auto& entry : entries_)
                for (const auto& key : entry->reconciler->all()) entry->queue.add(key, clock_.monotonic_ms());
        for (const auto& event : events)
            for (auto& entry : entries_)
                for (const auto& key : entry->reconciler->concerned(event))
                    entry->queue.add(key, clock_.monotonic_ms());
        for (auto& entry : entries_) work(*entry);
        auto pause = idle_ms;
        for (const auto& entry : entries_)
            if (const auto due = entry->queue.next_due())
                pause = std::min(pause, std::max<std::int64_t>(0, *due - clock_.monotonic_ms()));
        if (pause > 0) objects_.wait(seen, static_cast<int>(pause));
    }
}

std::map<std::string, std::map<std::string, std::uint64_t>> Engine::counts() const {
    const std::lock_guard lock(guard_);
    std::map<std::string, std::map<std::string, std::uint64_t>> out;
    for (const auto& entry : entries_) out[entry->reconciler->name()] = entry->counts;
    return out;
}

}  // namespace penstock::control
