// Core's retained messages: what a topic has, and what a new subscription gets of it.
#include "broker/core.h"

namespace penstock::broker {

using mqtt::Qos;
using session::Session;

namespace {

constexpr std::size_t retrieval_queue_max = 1000;   // messages queued for one client, beyond which the next filter's wait

}  // namespace

void Core::store_retained(const mqtt::MessageRef& message, std::uint64_t sequence) {
    const auto topic = message->view().topic;
    if (cleared_.hides(topic, sequence)) return;
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
    auto* slot = retained_->find(topic);
    if (slot != nullptr && slot->sequence > sequence) return;
    // Also where nothing is retained: an older message may be on its way.
    if (count_ > 1) cleared_.add(topic, sequence);
    if (slot == nullptr) return;
    if (durable_ && home_of(topic, count_) == id_) engine_->erase_retained(topic);
    --retained_count_;
    retained_bytes_ -= slot->message->payload_size();
    *slot = {};
    retained_->erase(topic);
}

void Core::set_retained(mqtt::Outgoing& message, std::uint64_t sequence) {
    if (message.view().payload.empty()) {
        // [MQTT-3.3.1-6]
        if (count_ > 1) broadcast(Mail{.kind = Mail::Kind::retained_cleared, .from = id_, .number = sequence, .message = message.share()});
        clear_retained(message.view().topic, sequence);
        return;
    }
    const auto& shared = message.share();
    store_retained(shared, sequence);
    broadcast(Mail{.kind = Mail::Kind::retained, .from = id_, .number = sequence, .message = shared});
}

void Core::send_sequence_mark() {
    if (!cleared_.take_news()) return;
    auto mark = shared_.sequence.load(std::memory_order_relaxed);
    // A will that waits for the disk has its number already.
    for (const auto& leaving : leaving_)
        if (leaving.record.sequence != 0 && leaving.step < Leaving::Step::sent && leaving.record.sequence < mark) {
            mark = leaving.record.sequence;
            cleared_.put_news();
        }
    broadcast(Mail{.kind = Mail::Kind::sequence_mark, .from = id_, .number = mark});
}

bool Core::takes_retained(const Connection& connection) const noexcept { return !is_stuffed(connection) && connection.session->queued() <= retrieval_queue_max && !is_full(); }

void Core::resume_retrievals() {
    // Who waits for memory and not for his own socket is not written to, and nobody else looks at him.
    for (const auto& [connection, waiting] : retrievals_) {
        auto& one = *connection->session->link();
        if (takes_retained(*connection)) output(static_cast<Connection&>(one));
    }
}

void Core::send_retained(Session& session, std::string_view filter, const topics::Options& options) {
    auto limits = queue_limits();
    limits.qos0_length = limits.qos0_bytes = static_cast<std::size_t>(-1);   // a subscriber asked for these; they wait for its socket instead
    auto* connection = static_cast<Connection*>(session.link());
    auto& counts = categories_[connection->category].delivery;
    output(*connection);
    if (session.keeps_queue) gate(*connection);
    retained_->match(filter, {}, [&](Retained& value) {
        if (options.no_local && value.message->view().publisher == session.publisher()) return;   // [MQTT-3.8.3-3]
        if (const auto at = value.message->expires_at(); at != 0 && at <= now_) return;
        mqtt::Outgoing message(value.message);
        const auto qos = std::min(static_cast<Qos>(options.qos), message.view().qos);
        session.deliver(message, qos, true, &options.id, options.id != 0 ? 1 : 0, *engine_, limits, now_, counts);
    });
    watch_queue(session);
}

}  // namespace penstock::broker
