// Core's part in a change of the number of workers: everything finds another home while nobody runs.
#include <algorithm>
#include <utility>

#include "broker/core.h"
#include "topics/topic.h"

namespace penstock::broker {

using session::Session;

namespace {
constexpr std::size_t decisions_max = 500;
}

bool Core::is_quiet() const noexcept {
    return waiting_.empty() && received_.empty() && state_out_.empty() && leaving_.empty() && handing_on_.empty() && engine_->durable() >= engine_->next_ticket() - (durable_ ? 1 : 0);
}

void Core::hand_over(const std::vector<Core*>& heirs, std::int64_t now) {
    const auto count = static_cast<std::uint32_t>(heirs.size());
    for (auto* heir : heirs) {
        heir->now_ = now;
        heir->next_session_ = std::max(heir->next_session_, next_session_);   // ids stay unique
        heir->failures_.add(failures_);
        heir->known_.add(known_);
        // As after a start: who had a message is remembered with the division of workers it had it in.
        if (id_ == 0) heir->had_ = had_;
        for (const auto& mark : seen_) heir->had_.add(mark.key()).first->value.push_back({.worker = id_, .workers = count_});
        // Workers have the same retained messages: each goes on with those of one before it.
        if (id_ != 0 || heir->id_ < count_) continue;
        retained_->for_each([&](Retained& value) { (*heir->retained_)[value.message->view().topic] = value; });
        heir->retained_count_ = retained_count_, heir->retained_bytes_ = retained_bytes_, heir->retained_may_expire_ = retained_may_expire_;
    }
    if (id_ < count) {
        heirs[id_]->retained_ = std::exchange(retained_, std::make_unique<topics::RetainedIndex<Retained>>());
        heirs[id_]->retained_count_ = retained_count_, heirs[id_]->retained_bytes_ = retained_bytes_, heirs[id_]->retained_may_expire_ = retained_may_expire_;
    }
    auto& first = *heirs.front();
    if (state_ != nullptr) {
        first.state_ = std::move(state_);
        first.state_->set_write(first.state_writer());
    }
    for (auto& span : spans_.take()) first.spans_.add(std::move(span));
    std::ranges::move(decisions_, std::back_inserter(first.decisions_));
    std::ranges::stable_sort(first.decisions_, {}, &Decision::wall_ms);
    while (first.decisions_.size() > decisions_max) first.decisions_.pop_front();
    for (auto& [port, names] : uncovered_) first.uncovered_[port].merge(names);
    for (auto& [key, session] : sessions_) {
        auto owned = std::move(session);
        auto& heir = *heirs[home_of(owned->client_id(), count)];
        heir.inherit(std::move(owned), *this);
    }
    sessions_.clear();
    by_id_.clear();
    timers_.clear();
}

void Core::inherit(std::unique_ptr<Session> owned, Core& from) {
    auto& session = *owned;
    sessions_.emplace(session.client_id(), std::move(owned));
    session.move_to(*engine_);
    session.timer_at = 0;
    for (const auto& subscription : session.subscriptions) {
        const auto shared = topics::split_shared(subscription.text);
        index_subscription(session, shared, subscription.options, shared.is_shared ? from.share_of(session, shared) : 0);
    }
    if (session.link() == nullptr) {
        if (session.ends_at != 0) start_timer(session, session.ends_at);
        if (session.will != nullptr && session.will->publish_at != 0) start_timer(session, session.will->publish_at);
    }
    if (const auto found = from.away_.find(session.id()); found != from.away_.end()) {
        by_id_[session.id()] = &session;
        away_.insert(from.away_.extract(found));
    }
    session.looked_at = 0;
    watch_queue(session);
}

void Core::inherit(Connection& connection, Core& from) {
    if (connection.state == ConnectionState::closing) return;
    ++figures_.connections;
    const auto at = connection.wheel_at;
    from.wheel_remove(connection);
    if (at != 0) wheel_insert(connection, at);
    if (auto* security = connection.security.get(); security != nullptr && security->has_expiry) {
        const auto when = security->expiry->first;
        from.expiries_.erase(security->expiry);
        security->expiry = expiries_.emplace(when, &connection);
    }
    connection.category = categories_.take(from.categories_[connection.category].name, second_);
    if (const auto found = from.retrievals_.find(&connection); found != from.retrievals_.end()) retrievals_.insert(from.retrievals_.extract(found));
}

void Core::inherit_counters(const CoreFigures& from, std::int64_t now) {
    add_counters(figures_, from);
    inherit_categories(from, now);
}

void add_counters(CoreFigures& into, const CoreFigures& from) {
    // Categories go to a worker that runs: their number has a bound.
    for (std::size_t i = 0; i < from.disconnects.size(); ++i) into.disconnects[i] += from.disconnects[i];
    for (std::size_t i = 0; i < from.refusals.size(); ++i) into.refusals[i] += from.refusals[i];
    for (std::size_t i = 0; i < from.dynamic_requests.size(); ++i) into.dynamic_requests[i] += from.dynamic_requests[i];
    // Not what is counted anew: connections, sessions and what they have; the state store brings its own counts along.
    for (const auto field : {&CoreFigures::tls_handshakes, &CoreFigures::tls_resumed, &CoreFigures::tls_failures, &CoreFigures::throttled, &CoreFigures::credentials_expired, &CoreFigures::rights_revoked, &CoreFigures::withdrawn_messages,
                             &CoreFigures::connections_total, &CoreFigures::packets_received, &CoreFigures::bytes_received, &CoreFigures::bytes_sent, &CoreFigures::rejected_memory, &CoreFigures::rejected_disk,
                             &CoreFigures::expired_messages, &CoreFigures::mailbox_full, &CoreFigures::spans_dropped, &CoreFigures::state_requests, &CoreFigures::subscribes})
        into.*field += from.*field;
}

}  // namespace penstock::broker
