#pragma once
#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "broker/core.h"

namespace penstock::test {

/// A broker of N cores in one thread, with a clock that the test turns: the same Core as in production, without sockets.
class MemoryNet {
  public:
    /// One client's end of a connection.
    struct End {
        broker::Connection* connection = nullptr;
        std::uint32_t core = 0;
        std::string network = "memory";  ///< where it comes from, as guesses are counted
        std::string received;            ///< bytes from the broker not yet looked at
        bool is_closed = false;
        bool reads = true;               ///< false: a reader that stopped; the broker's buffer stays full
    };

    explicit MemoryNet(std::uint32_t cores, const broker::BrokerConfig& config = {}, std::shared_ptr<auth::Authenticator> authenticator = nullptr,
                       std::shared_ptr<const auth::Policy> policy = nullptr, const std::function<std::unique_ptr<store::Engine>(std::uint32_t)>& engine = [](std::uint32_t) { return store::make_memory_engine(); }, std::int64_t now = 1'000'000,
                       const std::function<store::OverflowLane*(std::uint32_t)>& overflow = [](std::uint32_t) { return nullptr; }) : now_(now), next_tick_(now + 1000) {
        auto listener = std::make_shared<broker::ListenerConfig>();
        listener->resource = "test/memory";
        listener->authenticator = std::move(authenticator);
        listener->policy = std::move(policy);
        listener_ = listener;
        for (std::uint32_t i = 0; i <= cores; ++i) shared_.pools.push_back(std::make_unique<mqtt::MessageBytes>());
        mqtt::MessageBytes::use(*shared_.pools[0]);
        for (std::uint32_t i = 0; i < cores; ++i) {
            drivers_.push_back(std::make_unique<Driver>(*this));
            cores_.push_back(std::make_unique<broker::Core>(i, cores, *drivers_.back(), shared_, engine(i), overflow(i)));
            cores_.back()->configure(config);
            cores_.back()->recover(now_);
        }
        for (auto& core : cores_) core->all_recovered();
    }
    ~MemoryNet() {
        for (auto& [connection, end] : owned_) {
            delete connection->out;
            delete connection;
        }
        cores_.clear();
        // Messages of this net are gone; whatever the thread makes next is counted elsewhere.
        static mqtt::MessageBytes after;
        mqtt::MessageBytes::use(after);
    }

    End* open(std::uint32_t core = 0) {
        auto end = std::make_unique<End>();
        auto* connection = new broker::Connection;
        connection->listener = listener_;
        end->connection = connection;
        end->core = core % static_cast<std::uint32_t>(cores_.size());
        owned_[connection] = end.get();
        cores_[end->core]->on_accepted(*connection, now_);
        ends_.push_back(std::move(end));
        return ends_.back().get();
    }

    void send(End& end, std::string_view bytes) {
        if (end.is_closed || is_dead_) return;
        auto& connection = *end.connection;
        std::string all = connection.in ? std::move(*connection.in) : std::string();
        connection.in.reset();
        all += bytes;
        feed(end, all);
        settle();
    }
    /// The network fails without a word.
    void drop(End& end) {
        if (end.is_closed || is_dead_) return;
        cores_[end.core]->on_lost(*end.connection, now_);
        forget(*end.connection);
        settle();
    }
    /// Ends of connections that are closed, which a test of many would collect.
    void forget_closed() { std::erase_if(ends_, [](const auto& end) { return end->is_closed; }); }
    void advance(std::int64_t milliseconds) {
        // As a worker's turns: the tick each second, and what is due in its millisecond.
        const auto until = now_ + milliseconds;
        while (now_ < until && !is_dead_) {
            auto next = std::min(until, next_tick_);
            for (const auto& core : cores_)
                if (const auto due = core->next_deadline(); due != 0) next = std::min(next, std::max(due, now_));
            now_ = next;
            for (auto& core : cores_) core->run_due(now_);
            if (now_ >= next_tick_) {
                next_tick_ = now_ + 1000;
                for (auto& core : cores_) core->on_tick(now_);
            }
            settle();
        }
    }
    /// Another configuration, as a changed Broker would bring.
    void configure(const broker::BrokerConfig& config) {
        for (auto& core : cores_) core->configure(config);
    }
    /// As a worker does when the port opens, after recovery.
    void open_port() {
        for (auto& core : cores_) core->on_port_added(listener_, now_);
    }
    /// New rules for the port, as a changed resource would bring.
    void change_rules(std::shared_ptr<auth::Authenticator> authenticator, std::shared_ptr<const auth::Policy> policy) {
        const auto before = listener_;
        auto listener = std::make_shared<broker::ListenerConfig>(*listener_);
        listener->authenticator = std::move(authenticator);
        listener->policy = std::move(policy);
        listener_ = listener;
        for (auto& end : ends_)
            if (!end->is_closed) cores_[end->core]->on_rules(*end->connection, listener_, now_);
        for (auto& core : cores_) core->on_port_rules(before, listener_, now_);
        settle();
    }
    void settle() {
        for (bool work = true; work;) {
            work = false;
            for (auto& core : cores_) {
                core->settle(now_);
                core->settle_overflow(now_);
                if (const auto due = core->next_deadline(); due != 0 && due <= now_) core->run_due(now_), work = true;
            }
            while (!verdicts_.empty()) {
                work = true;
                auto [core, ticket, verdict] = std::move(verdicts_.front());
                verdicts_.pop_front();
                cores_[core]->on_verdict(ticket, std::move(verdict), now_);
            }
            while (!mails_.empty()) {
                work = true;
                if (turn_end && !turn_end(mails_.front().first)) is_dead_ = true;
                if (is_dead_) return;
                if (mails_.empty()) break;   // the test did something there that settled it
                auto [to, mail] = std::move(mails_.front());
                mails_.pop_front();
                if (turn_end && mail.kind != broker::Mail::Kind::connection) ++mails_processed_[to][mail.from];
                if (mail.kind == broker::Mail::Kind::connection) adopt(to, std::move(mail.body->connection));
                else cores_[to]->on_mail(mail, now_);
            }
            for (auto& end : ends_) {
                if (end->is_closed) continue;
                auto* c = end->connection;
                if (c->out != nullptr && end->reads && !c->out->empty()) {
                    work = true;
                    take(*end);
                    if (c->state == broker::ConnectionState::connected) cores_[end->core]->on_room(*c, now_);
                }
                if (c->is_paused && !(c->is_stuffed ? cores_[end->core]->is_stuffed(*c) : cores_[end->core]->under_pressure())) {
                    c->is_paused = c->is_stuffed = false;
                    work = true;
                    if (c->in) {
                        auto bytes = std::move(*c->in);
                        c->in.reset();
                        feed(*end, bytes);
                        continue;
                    }
                }
                if (c->state == broker::ConnectionState::closing) forget(*c), work = true;
            }
            if (work || !turn_end) continue;
            if (!turn_end(static_cast<std::uint32_t>(cores_.size()))) is_dead_ = true;
            if (is_dead_) return;
            // What became durable meanwhile lets others go on.
            for (auto& core : cores_) core->settle(now_);
            work = !mails_.empty() || std::ranges::any_of(ends_, [](const auto& end) { return !end->is_closed && end->reads && end->connection->out != nullptr && !end->connection->out->empty(); });
        }
    }

    /// Asked before each mail, with the worker it is for, and when nothing is left to do (`count` cores then); false: the process
    /// dies here. For a durable engine: the turns of cores end where it calls commit().
    std::function<bool(std::uint32_t core)> turn_end;
    std::uint64_t commit(std::uint32_t core) {
        mails_sent_.resize(cores_.size(), std::vector<std::uint64_t>(cores_.size()));
        mails_processed_.resize(cores_.size(), std::vector<std::uint64_t>(cores_.size()));
        // As a worker does: a turn in which nothing happened makes no ticket.
        const auto before = std::exchange(committed_.try_emplace(core).first->second, std::pair(mails_sent_[core], mails_processed_[core]));
        return cores_[core]->commit({.sent = mails_sent_[core], .processed = mails_processed_[core], .any_sent = before.first != mails_sent_[core], .any_processed = before.second != mails_processed_[core]});
    }
    [[nodiscard]] bool is_dead() const noexcept { return is_dead_; }

    [[nodiscard]] std::int64_t now() const noexcept { return now_; }
    broker::Core& core(std::size_t i) { return *cores_[i]; }
    [[nodiscard]] std::size_t cores() const noexcept { return cores_.size(); }
    broker::Shared& shared() noexcept { return shared_; }

  private:
    class Driver final : public broker::Driver {
      public:
        explicit Driver(MemoryNet& net) : net_(net) {}
        void make_dirty(broker::Connection& c) override {
            // Stays "dirty" for ever: the net looks at every buffer anyway.
            c.is_dirty = true;
            if (c.out == nullptr) c.out = new session::OutBuffer;
        }
        void close(broker::Connection& c) override { c.state = broker::ConnectionState::closing; }
        std::unique_ptr<broker::Connection> detach(broker::Connection& c) override { return std::unique_ptr<broker::Connection>(&c); }
        void post(std::uint32_t worker, broker::Mail mail) override {
            if (net_.turn_end && mail.kind != broker::Mail::Kind::connection) net_.count(mail.from, worker);
            net_.mails_.emplace_back(worker, std::move(mail));
        }
        void pause(broker::Connection& c) override { c.is_paused = true; }
        std::string peer(const broker::Connection&) override { return "memory"; }
        std::string network(const broker::Connection& c) override { return net_.owned_.at(const_cast<broker::Connection*>(&c))->network; }
        void hold(broker::Connection& c) override { c.is_held = true; }
        void release(broker::Connection& c) override {
            c.is_held = false;
            if (!c.in) return;
            const auto bytes = std::move(*c.in);
            c.in.reset();
            net_.feed(*net_.owned_.at(&c), bytes);
        }
        auth::Done completion(std::uint64_t ticket) override {
            const auto& drivers = net_.drivers_;
            const auto core = static_cast<std::size_t>(std::ranges::find(drivers, this, &std::unique_ptr<Driver>::get) - drivers.begin());
            return [this, core, ticket](auth::Verdict verdict) { net_.verdicts_.emplace_back(core, ticket, std::move(verdict)); };
        }

      private:
        MemoryNet& net_;
    };

    void count(std::uint32_t from, std::uint32_t to) {
        mails_sent_.resize(cores_.size(), std::vector<std::uint64_t>(cores_.size()));
        mails_processed_.resize(cores_.size(), std::vector<std::uint64_t>(cores_.size()));
        ++mails_sent_[from][to];
    }
    void feed(End& end, const std::string& bytes) {
        auto* connection = end.connection;
        if (connection->is_held || connection->is_paused) {
            connection->in = std::make_unique<std::string>(bytes);
            return;
        }
        const auto used = cores_[end.core]->on_data(*connection, bytes, now_);
        if (used == broker::Core::gone) return;
        if (used < bytes.size()) connection->in = std::make_unique<std::string>(bytes.substr(used));
    }
    void adopt(std::uint32_t core, std::unique_ptr<broker::Connection> owned) {
        auto* connection = owned.release();
        auto& end = *owned_[connection];
        end.core = core;
        cores_[core]->on_accepted(*connection, now_);
        if (connection->in) {
            const auto bytes = std::move(*connection->in);
            connection->in.reset();
            feed(end, bytes);
        }
    }
    static void take(End& end) {
        std::size_t size = 0;
        end.connection->out->pieces([&](std::string_view piece) {
            end.received += piece;
            size += piece.size();
            return true;
        });
        end.connection->out->consume(size);
    }
    void forget(broker::Connection& connection) {
        auto& end = *owned_[&connection];
        if (connection.out != nullptr) take(end);
        end.is_closed = true;
        owned_.erase(&connection);
        delete connection.out;
        delete &connection;
        end.connection = nullptr;
    }

    broker::Shared shared_;
    std::shared_ptr<const broker::ListenerConfig> listener_;
    std::vector<std::unique_ptr<Driver>> drivers_;
    std::vector<std::unique_ptr<broker::Core>> cores_;
    std::deque<std::pair<std::uint32_t, broker::Mail>> mails_;
    std::deque<std::tuple<std::size_t, std::uint64_t, auth::Verdict>> verdicts_;
    std::map<broker::Connection*, End*> owned_;
    std::vector<std::unique_ptr<End>> ends_;
    std::vector<std::vector<std::uint64_t>> mails_sent_, mails_processed_;   ///< [from][to], [by][from]
    std::map<std::uint32_t, std::pair<std::vector<std::uint64_t>, std::vector<std::uint64_t>>> committed_;
    bool is_dead_ = false;
    std::int64_t now_, next_tick_;
};

}  // namespace penstock::test
