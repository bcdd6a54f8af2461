#include "broker/server.h"

#include <algorithm>
#include <iterator>
#include <latch>

#include <fmt/format.h>

#include "base/log.h"
#include "io/socket.h"

namespace penstock::broker {

Server::Server(std::uint32_t workers, std::unique_ptr<store::Durable> durable, const std::string& overflow_folder, const BrokerConfig& config) : durable_(std::move(durable)) {
    for (std::uint32_t i = 0; i < workers + 2; ++i) shared_.pools.push_back(std::make_unique<mqtt::MessageBytes>());
    if (!overflow_folder.empty()) {
        overflow_ = store::Overflow::make(overflow_folder, workers, [this] { return shared_.pool_used() * 2 > pool_bytes_.load(std::memory_order_relaxed); }, [this](std::uint32_t worker) { workers_[worker]->wake(); }, *shared_.pools[workers + 1]);
        set_overflow(config);
    }
    std::vector<Worker*> peers;
    for (std::uint32_t i = 0; i < workers; ++i) {
        workers_.push_back(std::make_unique<Worker>(i, workers, shared_, durable_.get(), overflow_ ? &overflow_->lane(i) : nullptr));
        peers.push_back(workers_.back().get());
    }
    for (auto& worker : workers_) worker->connect_to(peers);
    for (auto& worker : workers_) threads_.emplace_back([w = worker.get()] { w->run(); });
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
    durable_->start();
}

Server::~Server() { stop(); }

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
    return out;
}

std::vector<Decision> Server::decisions() {
    const std::lock_guard lock(guard_);
    std::vector<std::vector<Decision>> parts(workers_.size());
    if (stopped_) return {};
    gather([&](Worker& worker, std::size_t i) { parts[i].assign(worker.core().decisions().begin(), worker.core().decisions().end()); });
    std::vector<Decision> out;
    for (auto& part : parts) std::ranges::move(part, std::back_inserter(out));
    std::ranges::stable_sort(out, {}, &Decision::wall_ms);
    return out;
}

std::vector<ClientView> Server::clients() {
    const std::lock_guard lock(guard_);
    std::vector<std::vector<ClientView>> parts(workers_.size());
    if (stopped_) return {};
    gather([&](Worker& worker, std::size_t i) { parts[i] = worker.core().clients(); });
    std::vector<ClientView> out;
    for (auto& part : parts) std::ranges::move(part, std::back_inserter(out));
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
    for (auto& worker : workers_) worker->stop();
    for (auto& thread : threads_) thread.join();
    if (durable_ != nullptr) durable_->stop();
    if (overflow_ != nullptr) overflow_->stop();
    open_.clear();
}

}  // namespace penstock::broker
