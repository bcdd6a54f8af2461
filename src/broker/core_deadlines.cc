// Core's deadlines. What is due in its millisecond is done at the begin of a turn (run_due): sessions, wills, credentials, keys of the state
// store. What may be some time late without anybody meeting it is done by the tick: keep alive, memory of what expired.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "broker/core.h"

namespace penstock::broker {

using mqtt::ReasonCode;
using mqtt::Refusal;
using session::Session;

namespace {


/// Seconds of silence after which a client has failed its keep alive [MQTT-3.1.2-22].
std::uint32_t silence_max(const Connection& connection) { return (connection.keep_alive * 3u + 1) / 2; }

}  // namespace

std::int64_t Core::next_deadline() const {
    if (is_recovering_) return 0;
    std::int64_t out = hands_on_at_once_ ? now_ : 0;
    const auto consider = [&](std::int64_t at) { out = out == 0 || at < out ? at : out; };
    if (state_ != nullptr && state_->next_expiry() != 0) consider(state_->next_expiry());
    if (!timers_.empty()) consider(timers_.begin()->first);
    if (!expiries_.empty()) consider(expiries_.begin()->first);
    return out;
}

void Core::run_due(std::int64_t now) {
    const auto due = next_deadline();
    if (due == 0 || due > now) return;
    now_ = now;
    if (state_ != nullptr && state_->next_expiry() != 0 && state_->next_expiry() <= now) {
        state_wrote_ = false;
        std::vector<statestore::Notification> notifications;
        state_->expire(now, wall_ms(), notifications);
        state_notifications(notifications);
    }
    while (!expiries_.empty() && expiries_.begin()->first <= now) end_credential(*expiries_.begin()->second, now);
    end_due_sessions();
    if (hands_on_at_once_) continue_handing_on();
}

void Core::start_timer(Session& session, std::int64_t at) {
    by_id_[session.id()] = &session;
    // One timer a session, for what is due first: a client that comes and goes would leave one behind each time.
    if (session.timer_at != 0 && session.timer_at <= at) return;
    if (session.timer_at != 0) timers_.erase({session.timer_at, session.id()});
    session.timer_at = at;
    timers_.emplace(at, session.id());
}

void Core::end_due_sessions() {
    while (!timers_.empty() && timers_.begin()->first <= now_) {
        const auto id = timers_.begin()->second;
        timers_.erase(timers_.begin());
        const auto found = by_id_.find(id);
        if (found == by_id_.end()) continue;
        auto& session = *found->second;
        session.timer_at = 0;
        if (!finish_due(session) || session.link() != nullptr) continue;   // one with a link gets its timer when the connection ends
        if (session.will != nullptr && session.will->publish_at != 0) start_timer(session, session.will->publish_at);
        if (session.ends_at != 0) start_timer(session, session.ends_at);
    }
}

bool Core::finish_due(Session& session) {
    if (session.link() != nullptr) return true;
    if (session.will != nullptr && session.will->publish_at != 0 && session.will->publish_at <= now_) {
        publish_will(session);
        if (session.is_kept) keep(session);
    }
    if (session.ends_at == 0 || session.ends_at > now_) return true;
    if (session.will != nullptr) publish_will(session);
    erase_session(session);
    return false;
}

void Core::on_tick(std::int64_t now) {
    now_ = now;
    const auto second = static_cast<std::uint32_t>(now / 1000);
    // Every second since the last tick is looked at, one slot each; after a long pause one round covers all slots.
    const auto first = second - ticked_ > wheel_.size() ? second - static_cast<std::uint32_t>(wheel_.size()) + 1 : ticked_;
    second_ = ticked_ = second;
    for (auto s = first; s <= second; ++s) {
        auto* connection = wheel_[s % wheel_.size()];
        while (connection != nullptr) {
            auto* next = connection->wheel_next;
            if (connection->wheel_at <= second) check_silence(*connection);
            connection = next;
        }
    }
    run_due(now);
    if (second % 60 == 0) failures_.forget_ended(now);
    send_sequence_mark();
    resume_retrievals();
    if (second % 10 == 0) categories_.age(second);
    drop_expired_queued(second);
    if (second % 10 == 0) drop_expired_retained();
}

void Core::check_silence(Connection& connection) {
    wheel_remove(connection);
    const auto idle = second_ - connection.last_received;
    // Nothing is read of a client while its verdict is open, so that its silence is not its own.
    const bool waits = connection.is_held && connection.waiting != nullptr && connection.waiting->ticket != 0;
    const auto limit = waits ? config_.verdict_timeout : connection.state == ConnectionState::connected ? silence_max(connection) : config_.connect_timeout;
    if (!waits && ((connection.is_paused && !connection.is_stuffed) || (connection.state == ConnectionState::connected && idle <= limit)))
        return wheel_insert(connection, std::max(second_ + 1, connection.last_received + limit + 1));
    if (waits && idle <= limit) return wheel_insert(connection, connection.last_received + limit + 1);
    if (waits) return give_up_verdict(connection);
    if (connection.state == ConnectionState::connected)
        return disconnect(connection, Refusal::keep_alive_is_over, now_);
    if (connection.state == ConnectionState::wait_auth)
        return disconnect(connection, Refusal::enhanced_authentication_is_late, now_);
    disconnect(connection, Refusal::connect_is_late, now_);
}

void Core::give_up_verdict(Connection& connection) {
    auto verdict = auth::Verdict::refused(ReasonCode::server_unavailable, fmt::format("authentication took longer than {} seconds; retry later", config_.verdict_timeout));
    verdict.is_fault = true;
    on_verdict(connection.waiting->ticket, std::move(verdict), now_);
}

void Core::drop_expired_queued(std::uint32_t second) {
    // What expired in queues, wherever it stands there. After a long pause one round covers all slots.
    const auto from = second - expired_ > expiring_.size() ? second - static_cast<std::uint32_t>(expiring_.size()) + 1 : expired_ + 1;
    expired_ = second;
    for (auto s = from; s <= second; ++s) {
        auto due = std::exchange(expiring_[s % expiring_.size()], {});
        std::ranges::sort(due);
        due.erase(std::ranges::unique(due).begin(), due.end());
        for (const auto id : due) {
            const auto found = by_id_.find(id);
            if (found == by_id_.end() || found->second->looked_at == 0 || found->second->looked_at % expiring_.size() != s % expiring_.size()) continue;
            auto& session = *found->second;
            if (session.looked_at > second) {
                expiring_[s % expiring_.size()].push_back(id);   // of a later round
                continue;
            }
            session.looked_at = 0;
            figures_.expired_messages += session.drop_expired(now_);
            watch_queue(session);
        }
    }
}

void Core::drop_expired_retained() {
    std::vector<std::string> expired;
    if (std::exchange(retained_may_expire_, false))
        retained_->for_each([&](Retained& value) {
            const auto at = value.message->expires_at();
            if (at != 0 && at <= now_) expired.emplace_back(value.message->view().topic);
            else retained_may_expire_ |= at != 0;
        });
    for (const auto& topic : expired) {
        auto* slot = retained_->find(topic);
        --retained_count_;
        retained_bytes_ -= slot->message->payload_size();
        *slot = {};
        retained_->erase(topic);
        if (durable_ && home_of(topic, count_) == id_) engine_->erase_retained(topic);
        ++figures_.expired_messages;
    }
}

void Core::wheel_insert(Connection& connection, std::uint32_t at) {
    connection.wheel_at = at;
    auto*& head = wheel_[at % wheel_.size()];
    connection.wheel_previous = nullptr;
    connection.wheel_next = head;
    if (head != nullptr) head->wheel_previous = &connection;
    head = &connection;
}

void Core::wheel_remove(Connection& connection) noexcept {
    if (connection.wheel_at == 0) return;
    auto*& head = wheel_[connection.wheel_at % wheel_.size()];
    if (connection.wheel_previous != nullptr) connection.wheel_previous->wheel_next = connection.wheel_next;
    else head = connection.wheel_next;
    if (connection.wheel_next != nullptr) connection.wheel_next->wheel_previous = connection.wheel_previous;
    connection.wheel_next = connection.wheel_previous = nullptr;
    connection.wheel_at = 0;
}

}  // namespace penstock::broker
