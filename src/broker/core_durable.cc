// Core's durable side: what is written of sessions and retained messages, and what comes back after a start.
#include <algorithm>

#include "base/log.h"
#include "base/text.h"
#include "broker/core.h"
#include "topics/topic.h"

namespace penstock::broker {

using session::Session;

namespace {

constexpr std::string_view dynamic_key = "aio-persistence", dynamic_value = "true";
constexpr std::uint32_t never = 0xFFFF'FFFF;

/// The client asks for persistence of this message by a user property.
bool asks(std::string_view properties) {
    mqtt::PropertyReader reader(properties, mqtt::place(mqtt::PacketType::publish));
    for (mqtt::Property property; reader.next(property);)
        if (property.id == mqtt::PropertyId::user_property && property.text == dynamic_key) return property.value == dynamic_value;
    return false;
}

}  // namespace

bool Core::keeps_retained(const mqtt::MessageView& view) {
    const auto& rules = config_.persistence;
    if (rules.retain != Persistence::Mode::custom) return rules.retain == Persistence::Mode::all;
    const bool asked = asks(view.properties);
    if (asked) ++figures_.dynamic_requests[rules.retain_dynamic];
    return std::ranges::any_of(rules.retain_topics, [&](const auto& filter) { return topics::matches(filter, view.topic); }) || (rules.retain_dynamic && asked);
}

bool Core::keeps_queue(const Session& session) {
    const auto& rules = config_.persistence;
    if (rules.queues != Persistence::Mode::custom) return rules.queues == Persistence::Mode::all;
    if (session.asks_queue) ++figures_.dynamic_requests[rules.queue_dynamic];
    return std::ranges::any_of(rules.queue_clients, [&](const auto& pattern) { return glob_match(pattern, session.client_id()); }) || (rules.queue_dynamic && session.asks_queue);
}

void Core::keep_more_queues() {
    for (const auto& [id, session] : sessions_) {
        if (!session->is_kept || session->keeps_queue || !keeps_queue(*session)) continue;
        session->keep_queue(*engine_);
        keep(*session);
    }
}

// --- exactly once across workers ---

std::string Core::origin_key(std::string_view publisher, std::uint16_t packet_id) {
    std::string out(publisher);
    out += static_cast<char>(packet_id >> 8);
    out += static_cast<char>(packet_id);
    return out;
}

void Core::put_origin(Mail& mail) {
    if (origin_ == nullptr) return;
    origin_->went_elsewhere = true;
    if (mail.body == nullptr) mail.body = std::make_unique<Mail::Body>();
    mail.body->publisher = origin_->publisher;
    mail.body->packet_id = origin_->packet_id;
    mail.flag = origin_->dup;
}

bool Core::seen_before(std::string_view publisher, std::uint16_t packet_id, bool dup) {
    auto key = origin_key(publisher, packet_id);
    // Without DUP it is another message with an identifier that became free.
    if (dup && seen_.contains(key)) return true;
    seen_.insert(std::move(key));
    engine_->put_seen(publisher, packet_id);
    return false;
}

bool Core::forget_seen(std::string_view publisher, std::uint16_t packet_id) {
    bool any = seen_.erase(origin_key(publisher, packet_id)) > 0;
    if (any) engine_->erase_seen(publisher, packet_id);
    // Marks of shared groups: publisher, NUL, filter, NUL, group.
    const auto prefix = std::string(publisher) + '\0';
    const auto suffix = origin_key("", packet_id);
    for (auto at = seen_.lower_bound(prefix); at != seen_.end() && at->starts_with(prefix);) {
        if (!at->ends_with(suffix)) {
            ++at;
            continue;
        }
        engine_->erase_seen(std::string_view(*at).substr(0, at->size() - 2), packet_id);
        at = seen_.erase(at);
        any = true;
    }
    return any;
}

bool Core::forget_seen(std::string_view publisher) {
    bool any = false;
    for (auto at = seen_.lower_bound(publisher); at != seen_.end() && at->starts_with(publisher);) {
        // Its own marks, and those of shared groups; not those of a publisher whose name only begins like it.
        const auto rest = std::string_view(*at).substr(publisher.size());
        if (rest.size() != 2 && rest[0] != '\0') {
            ++at;
            continue;
        }
        const auto packet_id = static_cast<std::uint16_t>(static_cast<unsigned char>(at->end()[-2]) << 8 | static_cast<unsigned char>(at->end()[-1]));
        engine_->erase_seen(std::string_view(*at).substr(0, at->size() - 2), packet_id);
        at = seen_.erase(at);
        any = true;
    }
    return any;
}

void Core::release(std::string_view publisher, std::uint16_t packet_id, bool everywhere) {
    if (!forget_seen(publisher, packet_id) && !everywhere) return;
    Mail mail{.kind = Mail::Kind::released, .from = id_};
    mail.body = std::make_unique<Mail::Body>();
    mail.body->publisher = publisher;
    mail.body->packet_id = packet_id;
    broadcast(mail);
}

void Core::release_all(std::string_view publisher) {
    forget_seen(publisher);
    Mail mail{.kind = Mail::Kind::released, .flag = true, .from = id_};
    mail.body = std::make_unique<Mail::Body>();
    mail.body->publisher = publisher;
    broadcast(mail);
}

void Core::settle(std::int64_t now) {
    if (received_.empty() && state_out_.empty()) return;
    now_ = now;
    for (const auto durable = engine_->durable(); !state_out_.empty() && state_out_.front().ticket <= durable; state_out_.pop_front()) send_state(state_out_.front());
    for (const auto durable = engine_->durable(); !received_.empty() && received_.front().ticket <= durable; received_.pop_front()) {
        const auto& r = received_.front();
        const auto found = by_id_.find(r.session);
        if (found == by_id_.end() || !found->second->has_incoming(r.packet_id)) continue;
        auto& session = *found->second;
        engine_->put_incoming(session.client_id(), r.packet_id);
        if (auto* connection = static_cast<Connection*>(session.link()); connection != nullptr) send_ack(*connection, mqtt::PacketType::pubrec, r.packet_id, connection->version == mqtt::Version::v5 ? r.reason : mqtt::ReasonCode::success);
    }
}

void Core::keep(const Session& session) {
    store::SessionRecord record{.client_id = session.client_id(), .owner = session.owner != nullptr ? *session.owner : "", .expiry_interval = session.expiry_interval, .ends_at = session.ends_at, .keeps_queue = session.keeps_queue, .will = {}};
    if (session.will != nullptr) {
        const auto view = session.will->message->view();
        record.will = store::WillRecord{.topic = std::string(view.topic), .payload = std::string(view.payload), .properties = std::string(view.properties), .qos = view.qos, .retain = view.retain,
                                        .delay_interval = session.will->delay_interval, .has_expiry = session.will->has_expiry, .message_expiry = session.will->message_expiry, .publish_at = session.will->publish_at};
    }
    engine_->put_session(record);
}

/// Puts what the engine kept into the core's own maps and indexes.
class Core::Recovery final : public store::Recovered {
  public:
    explicit Recovery(Core& core) : core_(core) {}
    void session(store::SessionRecord record) override {
        auto fresh = std::make_unique<Session>(record.client_id, std::uint64_t{core_.id_} << 48 | core_.next_session_++);
        auto& session = *fresh;
        core_.sessions_.emplace(session.client_id(), std::move(fresh));
        session.is_kept = true;
        session.keeps_queue = record.keeps_queue;
        session.expiry_interval = record.expiry_interval;
        if (!record.owner.empty()) session.owner = std::make_unique<const std::string>(record.owner);
        // Whose connection was open when the process ended: it ended then, as far as anybody knows now.
        session.ends_at = record.expiry_interval == never ? 0 : record.ends_at != 0 ? record.ends_at : core_.now_ + static_cast<std::int64_t>(record.expiry_interval) * 1000;
        if (session.ends_at != 0) core_.start_timer(session, std::max(session.ends_at, core_.now_ + 1));
        if (record.will) {
            const auto& kept = *record.will;
            auto will = std::make_unique<session::Will>();
            will->message = mqtt::MessageRef(mqtt::Message::make({.topic = kept.topic, .payload = kept.payload, .properties = kept.properties, .partition = {}, .has_partition = false, .retain = kept.retain, .qos = kept.qos,
                                                                  .expires_at = 0, .publisher = session.id()}));
            will->delay_interval = kept.delay_interval;
            will->has_expiry = kept.has_expiry;
            will->message_expiry = kept.message_expiry;
            // A second at least, so that all workers know all subscriptions by then.
            will->publish_at = std::max(core_.now_ + 1000, kept.publish_at != 0 ? kept.publish_at : core_.now_ + static_cast<std::int64_t>(kept.delay_interval) * 1000);
            session.will = std::move(will);
            core_.start_timer(session, session.will->publish_at);
        }
    }
    void subscription(std::string_view client_id, std::string_view filter, const topics::Options& options) override {
        if (auto* session = core_.find_session(client_id); session != nullptr) core_.add_subscription(*session, filter, options);
    }
    void incoming(std::string_view client_id, std::uint16_t packet_id) override {
        if (auto* session = core_.find_session(client_id); session != nullptr) session->restore_incoming(packet_id);
    }
    void seen(std::string_view publisher, std::uint16_t packet_id) override { core_.seen_.insert(origin_key(publisher, packet_id)); }
    void queue(std::string_view client_id, std::unique_ptr<store::SessionStore> store, std::uint16_t last_packet_id) override {
        if (auto* session = core_.find_session(client_id); session != nullptr) {
            session->restore(std::move(store), last_packet_id);
            core_.watch_queue(*session);
        }
    }
    void state(std::string key, statestore::Entry entry) override {
        if (core_.state_ != nullptr) core_.state_->restore(std::move(key), std::move(entry));
    }
    void retained(const mqtt::MessageRef& message, std::uint64_t sequence) override {
        auto& slot = core_.retained_[message->view().topic];
        if (slot) return;
        ++core_.retained_count_;
        core_.retained_bytes_ += message->payload_size();
        core_.retained_may_expire_ |= message->expires_at() != 0;
        slot = {.message = message, .sequence = sequence};
        for (auto seen = core_.shared_.sequence.load(); seen <= sequence && !core_.shared_.sequence.compare_exchange_weak(seen, sequence + 1);) {}
    }

  private:
    Core& core_;
};

void Core::recover(std::int64_t now) {
    now_ = now;
    Recovery recovery(*this);
    engine_->recover([this](std::string_view client_id) { return home_of(client_id, count_) == id_; }, recovery);
}

void Core::begin_persistence(std::unique_ptr<store::Engine> engine, std::int64_t now) {
    now_ = now;
    engine_ = std::move(engine);
    durable_ = true;
    for (const auto& [id, session] : sessions_) {
        session->is_kept = session->expiry_interval > 0;
        if (!session->is_kept) continue;
        if (keeps_queue(*session)) session->keep_queue(*engine_);
        keep(*session);
        for (const auto& subscription : session->subscriptions) engine_->put_subscription(id, subscription.text, subscription.options);
        for (const auto packet_id : session->incoming()) engine_->put_incoming(id, packet_id);
    }
    retained_.for_each([&](Retained& value) {
        const auto view = value.message->view();
        if (home_of(view.topic, count_) == id_ && keeps_retained(view)) engine_->put_retained(value.message, value.sequence);
    });
    if (state_ != nullptr) state_->keep([this](const std::string& key) { return keeps_state(key, false); });
}

}  // namespace penstock::broker
