#include "broker/server.h"

#include <algorithm>
#include <iterator>
#include <latch>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "io/poller.h"
#include "io/socket.h"

namespace penstock::broker {

namespace {
constexpr std::int64_t questions_ms = 2000, quiet_ms = 2000;   // how long a change of the number of workers waits for answers, and stands still

/// Counts messages made and freed by this thread among the broker's.
class CountedHere {
  public:
    explicit CountedHere(mqtt::MessageBytes& cell) : before_(mqtt::MessageBytes::mine()) { mqtt::MessageBytes::use(cell); }
    CountedHere(const CountedHere&) = delete;
    CountedHere& operator=(const CountedHere&) = delete;
    ~CountedHere() { mqtt::MessageBytes::use(before_); }

  private:
    mqtt::MessageBytes& before_;
};
}  // namespace

Server::Server(std::uint32_t workers, std::unique_ptr<store::Durable> durable, const std::string& overflow_folder, const BrokerConfig& config) : durable_(std::move(durable)) {
    for (std::size_t i = 0; i < Shared::first_worker_pool + workers_max; ++i) shared_.pools.push_back(std::make_unique<mqtt::MessageBytes>());
    if (durable_ != nullptr) durable_->count_in(*shared_.pools[Shared::durable_pool]);
    if (!overflow_folder.empty()) {
        overflow_ = store::Overflow::make(overflow_folder, workers_max, [this] { return shared_.pool_used() * 2 > pool_bytes_.load(std::memory_order_relaxed); },
                                          [this](std::uint32_t worker) {
                                              const std::lock_guard lock(wakes_guard_);
                                              if (worker < wakes_.size()) wakes_[worker]->wake();
                                          },
                                          *shared_.pools[Shared::overflow_pool]);
        set_overflow(config);
    }
    make_workers(workers);
    start_threads();
    if (durable_ == nullptr) return;
    on_all([&](Worker& worker) {
        worker.core().configure(config);
        worker.core().recover(worker.now());
    });
    // What the workers tell each other of their subscriptions must have arrived before the first client does.
    for (std::uint64_t sent = 1, processed = 0; sent != processed;) {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> counts(workers_.size());
        gather([&](Worker& worker, std::size_t i) { counts[i] = {worker.mail_sent(), worker.mail_processed()}; });
        sent = processed = 0;
        for (const auto& [s, p] : counts) sent += s, processed += p;
    }
    on_all([](Worker& worker) { worker.core().all_recovered(); });
    durable_->start();
}

Server::~Server() { stop(); }

void Server::make_workers(std::uint32_t count) {
    std::vector<Worker*> peers;
    for (std::uint32_t i = 0; i < count; ++i) {
        workers_.push_back(std::make_unique<Worker>(i, count, shared_, durable_.get(), overflow_ ? &overflow_->lane(i) : nullptr));
        peers.push_back(workers_.back().get());
    }
    for (auto& worker : workers_) worker->connect_to(peers);
    {
        const std::lock_guard lock(wakes_guard_);
        wakes_ = peers;
    }
    shared_.pools_used = Shared::first_worker_pool + count;
}

void Server::start_threads() {
    for (auto& worker : workers_) {
        worker->make_ready();
        threads_.emplace_back([w = worker.get()] { w->run(); });
    }
}

void Server::stop_threads() {
    for (auto& worker : workers_) worker->stop();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
}

bool Server::settle_down() {
    io::Poller clock;
    for (const auto end = monotonic_ms() + quiet_ms; monotonic_ms() < end; clock.wait(1)) {
        // Several rounds at once: what one says to another takes a turn of each.
        for (int round = 0; round < 4; ++round)
            for (auto& worker : workers_) worker->quiet_turn();
        if (std::ranges::all_of(workers_, [](const auto& worker) { return worker->is_quiet(); })) return true;
    }
    return false;
}

Result<void> Server::set_workers(std::uint32_t count) {
    const std::lock_guard lock(guard_);
    if (stopped_ || count == workers_.size()) return {};
    if (count == 0 || count > workers_max) return fail(fmt::format("the number of workers is from 1 to {}", workers_max));
    if (durable_ != nullptr && durable_->figures().fault != "") return fail("the disk does not take writes");
    if (overflow_ != nullptr && !overflow_->is_idle()) return fail("messages wait in the disk buffer; it must be empty");
    // Who is asked about is answered first, with newcomers waiting a moment and everybody else served.
    on_all([](Worker& worker) { worker.hold_newcomers(true); });
    auto let_go = [&](std::string why) {
        on_all([](Worker& worker) { worker.hold_newcomers(false); });
        return fail(std::move(why));
    };
    io::Poller clock;
    for (const auto end = monotonic_ms() + questions_ms;;) {
        std::vector<char> open(workers_.size());
        gather([&](Worker& worker, std::size_t i) { open[i] = worker.core().has_open_questions(); });
        if (std::ranges::count(open, 1) == 0) break;
        if (monotonic_ms() > end) return let_go("clients wait to be authenticated by a server that does not answer");
        clock.wait(5);
    }
    const auto began = monotonic_ms();
    stop_threads();
    const CountedHere counted(*shared_.pools[Shared::control_pool]);
    if (!settle_down() || (overflow_ != nullptr && !overflow_->is_idle())) {
        start_threads();
        return let_go("the workers have messages or the disk to wait for");
    }
    auto before = std::exchange(workers_, {});
    const auto config = before.front()->core().config();
    if (durable_ != nullptr) durable_->resize(count);
    make_workers(count);
    for (auto& worker : workers_) {
        worker->core().configure(config);
        for (const auto& [key, socket] : open_) worker->add_listener(socket);
    }
    // Each goes on counting for the one before it, so that no counter falls or jumps; those of workers that are gone stand still.
    const auto now = before.front()->now();
    for (std::size_t i = 0; i < before.size(); ++i) {
        const auto counters = before[i]->core().figures();
        if (i < count) {
            workers_[i]->core().inherit_counters(counters, now);
        } else {
            add_counters(former_[i] = {}, counters);
            workers_[i % count]->core().inherit_categories(counters, now);
        }
    }
    for (auto i = before.size(); i < count; ++i)
        if (auto found = former_.extract(i)) workers_[i]->core().inherit_counters(found.mapped(), now);
    for (auto& worker : before) worker->hand_over(workers_);
    for (std::size_t i = count; i < before.size(); ++i) {
        auto& gone = *shared_.pools[Shared::first_worker_pool + i];
        shared_.pools[Shared::control_pool]->add(gone.value());
        gone.add(-gone.value());
    }
    // What they tell each other of subscriptions arrives before the next packet is read, and what moved on the disk is handed in.
    settle_down();
    if (durable_ != nullptr) durable_->end_resize();
    start_threads();
    log::info("broker", "the number of workers changed from {} to {} milliseconds={}", before.size(), count, monotonic_ms() - began);
    return {};
}

void Server::set_overflow(const BrokerConfig& config) {
    pool_bytes_ = config.pool_bytes;
    overflow_->set_limits({.size_max = config.overflow_bytes, .age_max_ms = config.overflow_age_ms});
}

void Server::on_all(const std::function<void(Worker&)>& task) {
    gather([&](Worker& worker, std::size_t) { task(worker); });
}

std::vector<ListenerState> Server::apply(const BrokerConfig& config, const std::vector<ListenerConfig>& listeners) {
    const std::lock_guard lock(guard_);
    std::vector<ListenerState> out;
    if (stopped_) return out;
    if (overflow_ != nullptr) set_overflow(config);
    std::vector<std::shared_ptr<ListenerSocket>> added, removed, changed;
    auto previous = std::move(open_);
    open_.clear();
    std::vector<std::string> keys;
    std::map<std::string, int> picked;
    for (const auto& wanted : listeners)
        keys.push_back(wanted.port != 0 ? std::to_string(wanted.port) : fmt::format("{}#{}", wanted.resource, picked[wanted.resource]++));
    // Ports that go away or change are closed first, so that a swap of two listeners can succeed in one step.
    for (std::size_t i = 0; i < listeners.size(); ++i) {
        const auto found = previous.find(keys[i]);
        if (found == previous.end() || !found->second->config->binds_like(listeners[i])) continue;
        open_.insert(*found);
        previous.erase(found);
    }
    for (auto& [key, socket] : previous) removed.push_back(socket);
    on_all([&](Worker& worker) {
        worker.core().configure(config);
        for (const auto& socket : removed) worker.remove_listener(socket, false);
    });
    removed.clear();
    previous.clear();
    for (std::size_t i = 0; i < listeners.size(); ++i) {
        const auto& wanted = listeners[i];
        ListenerState state{.config = wanted, .is_open = false, .bound_port = wanted.port, .error = {}};
        if (const auto kept = open_.find(keys[i]); kept != open_.end()) {
            if (!kept->second->config->acts_like(wanted)) {
                kept->second->config = std::make_shared<const ListenerConfig>(wanted);
                changed.push_back(kept->second);
            }
            state.is_open = true;
            state.bound_port = kept->second->bound_port;
            out.push_back(std::move(state));
            continue;
        }
        auto fds = io::listen_tcp(wanted.loopback_only, wanted.port, state.bound_port);
        if (!fds) {
            state.error = fds.error().message;
            out.push_back(std::move(state));
            continue;
        }
        auto socket = std::make_shared<ListenerSocket>();
        socket->fds = std::move(*fds);
        socket->config = std::make_shared<const ListenerConfig>(wanted);
        socket->bound_port = state.bound_port;
        open_.emplace(keys[i], socket);
        added.push_back(socket);
        state.is_open = true;
        out.push_back(std::move(state));
    }
    if (!added.empty() || !changed.empty()) {
        on_all([&](Worker& worker) {
            for (const auto& socket : added) worker.add_listener(socket);
            for (const auto& socket : changed) worker.update_listener(*socket, socket->config);
        });
    }
    return out;
}

void Server::begin_persistence(std::unique_ptr<store::Durable> durable) {
    const std::lock_guard lock(guard_);
    if (stopped_) return;
    durable_ = std::move(durable);
    durable_->count_in(*shared_.pools[Shared::durable_pool]);
    on_all([&](Worker& worker) { worker.begin_persistence(*durable_); });
    durable_->start();
}

void Server::gather(const std::function<void(Worker&, std::size_t)>& task) {
    std::latch done(static_cast<std::ptrdiff_t>(workers_.size()));
    for (std::size_t i = 0; i < workers_.size(); ++i) {
        workers_[i]->post_task([&, i](Worker& w) {
            task(w, i);
            done.count_down();
        });
    }
    done.wait();
}

std::vector<CoreFigures> Server::collect() {
    const std::lock_guard lock(guard_);
    std::vector<CoreFigures> out(workers_.size());
    if (stopped_) return out;
    gather([&](Worker& worker, std::size_t i) { out[i] = worker.core().figures(); });
    for (const auto& [i, counters] : former_) out.push_back(counters);
    return out;
}

template <class T>
std::vector<T> Server::of_all(const std::function<std::vector<T>(Worker&)>& read) {
    const std::lock_guard lock(guard_);
    std::vector<std::vector<T>> parts(workers_.size());
    if (stopped_) return {};
    gather([&](Worker& worker, std::size_t i) { parts[i] = read(worker); });
    std::vector<T> out;
    for (auto& part : parts) std::ranges::move(part, std::back_inserter(out));
    return out;
}

std::vector<Span> Server::take_spans() {
    return of_all<Span>([](Worker& worker) { return worker.core().take_spans(); });
}

std::vector<Decision> Server::decisions() {
    auto out = of_all<Decision>([](Worker& worker) { return std::vector<Decision>(worker.core().decisions().begin(), worker.core().decisions().end()); });
    std::ranges::stable_sort(out, {}, &Decision::wall_ms);
    return out;
}

std::vector<ClientView> Server::clients() {
    auto out = of_all<ClientView>([](Worker& worker) { return worker.core().clients(); });
    std::ranges::sort(out, {}, &ClientView::client_id);
    return out;
}

std::map<std::string, std::set<std::string>> Server::uncovered() {
    const std::lock_guard lock(guard_);
    std::vector<std::map<std::string, std::set<std::string>>> parts(workers_.size());
    if (stopped_) return {};
    gather([&](Worker& worker, std::size_t i) { parts[i] = worker.core().uncovered(); });
    std::map<std::string, std::set<std::string>> out;
    for (auto& part : parts)
        for (auto& [port, names] : part) out[port].merge(names);
    return out;
}

std::vector<std::int64_t> Server::turns_ms(std::int64_t now_ms) {
    // Not guard_: who has it may wait for a worker that is stuck.
    const std::lock_guard lock(wakes_guard_);
    std::vector<std::int64_t> out;
    for (const auto* worker : wakes_) out.push_back(worker->turn_ms(now_ms));
    return out;
}

void Server::publish(std::string topic, std::string payload, bool retain) {
    const std::lock_guard lock(guard_);
    if (stopped_) return;
    workers_[0]->post_task([topic = std::move(topic), payload = std::move(payload), retain](Worker& w) {
        w.core().publish({.topic = topic, .payload = payload, .properties = {}, .partition = {}, .has_partition = false, .retain = retain,
                          .qos = mqtt::Qos::at_most_once, .expires_at = 0, .publisher = 0},
                         w.now());
    });
}

void Server::stop() {
    {
        const std::lock_guard lock(guard_);
        if (stopped_) return;
        stopped_ = true;
        on_all([](Worker& worker) { worker.shut_down(); });
    }
    stop_threads();
    if (durable_ != nullptr) durable_->stop();
    if (overflow_ != nullptr) overflow_->stop();
    open_.clear();
}

}  // namespace penstock::broker
