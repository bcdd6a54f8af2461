// Core's retained messages: what a topic has, and what a new subscription gets of it.
#include "broker/core.h"

namespace penstock::broker {

using mqtt::Qos;
using session::Session;

namespace {

constexpr std::int64_t cleared_kept_ms = 60'000;
constexpr std::size_t retrieval_queue_max = 1000;   // messages queued for one client, beyond which the next filter's wait

}  // namespace

void Core::store_retained(const mqtt::MessageRef& message, std::uint64_t sequence) {
    const auto topic = message->view().topic;
    if (const auto found = cleared_at_.find(std::string(topic)); found != cleared_at_.end() && found->second > sequence) return;
    auto& slot = (*retained_)[topic];
    if (slot.sequence > sequence) return;
    // One worker writes a topic, so that the newest is the one that stays.
    if (durable_ && home_of(topic, count_) == id_) {
        if (keeps_retained(message->view())) engine_->put_retained(message, sequence);
        else engine_->erase_retained(topic);
    }
    if (slot) retained_bytes_ -= slot.message->payload_size();
    else ++retained_count_;
    retained_bytes_ += message->payload_size();
    retained_may_expire_ |= message->expires_at() != 0;
    slot = {.message = message, .sequence = sequence};
}

void Core::clear_retained(std::string_view topic, std::uint64_t sequence) {
    if (count_ > 1) {
        auto& at = cleared_at_[std::string(topic)];
        at = std::max(at, sequence);
        cleared_.push_back({.topic = std::string(topic), .sequence = sequence, .forget_at = now_ + cleared_kept_ms});
    }
    auto* slot = retained_->find(topic);
    if (slot == nullptr || slot->sequence > sequence) return;
    if (durable_ && home_of(topic, count_) == id_) engine_->erase_retained(topic);
    --retained_count_;
    retained_bytes_ -= slot->message->payload_size();
    *slot = {};
    retained_->erase(topic);
}

void Core::set_retained(mqtt::Outgoing& message, std::uint64_t sequence) {
    if (message.view().payload.empty()) {
        // [MQTT-3.3.1-6]
        Mail mail{.kind = Mail::Kind::retained_cleared, .from = id_, .number = sequence};
        mail.body = std::make_unique<Mail::Body>();
        mail.body->filter = message.view().topic;
        broadcast(mail);
        clear_retained(mail.body->filter, sequence);
        return;
    }
    const auto& shared = message.share();
    store_retained(shared, sequence);
    broadcast(Mail{.kind = Mail::Kind::retained, .from = id_, .number = sequence, .message = shared});
}

bool Core::takes_retained(const Connection& connection) noexcept { return !is_stuffed(connection) && connection.session->queued() <= retrieval_queue_max; }

void Core::send_retained(Session& session, std::string_view filter, const topics::Options& options) {
    auto limits = queue_limits();
    limits.qos0_length = limits.qos0_bytes = static_cast<std::size_t>(-1);   // a subscriber asked for these; they wait for its socket instead
    auto* connection = static_cast<Connection*>(session.link());
    auto& counts = figures_.categories[connection->category].delivery;
    output(*connection);
    if (session.keeps_queue) gate(*connection);
    retained_->match(filter, {}, [&](Retained& value) {
        if (const auto at = value.message->expires_at(); at != 0 && at <= now_) return;
        mqtt::Outgoing message(value.message);
        const auto qos = std::min(static_cast<Qos>(options.qos), message.view().qos);
        session.deliver(message, qos, true, &options.id, options.id != 0 ? 1 : 0, *engine_, limits, now_, counts);
    });
    watch_queue(session);
}

}  // namespace penstock::broker
