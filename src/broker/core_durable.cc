// Core's durable side: what is written of sessions and retained messages, and what comes back after a start.
#include <algorithm>
#include <map>
#include <optional>

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
    if (is_own(view.topic)) return false;
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

void Core::put_origin(Mail& mail) {
    if (origin_ == nullptr) return;
    origin_->went_elsewhere = true;
    if (mail.body == nullptr) mail.body = std::make_unique<Mail::Body>();
    mail.body->publisher = origin_->publisher;
    mail.body->packet_id = origin_->packet_id;
    mail.flag = origin_->dup;
}

const CountedVector<store::Portion>* Core::had_before(std::string_view publisher, std::uint16_t packet_id, std::string_view whom) const {
    const auto* mark = had_.find(Had::key(publisher, packet_id, whom));
    return mark != nullptr ? &mark->value : nullptr;
}

void Core::mark_seen(std::string_view publisher, std::uint16_t packet_id, std::string_view whom) {
    if (!seen_.add(Seen::key(publisher, packet_id, whom)).second) return;
    engine_->put_seen(std::string(publisher).append(whom), packet_id, {.worker = id_, .workers = count_});
}

bool Core::deliver_once(const Origin& origin, mqtt::Outgoing& message, const topics::Match& match) {
    mark_seen(origin.publisher, origin.packet_id);
    spared_ = origin.dup && !had_.empty() ? had_before(origin.publisher, origin.packet_id) : nullptr;
    const bool any = deliver_local(message, match);
    spared_ = nullptr;
    return any;
}

bool Core::forget_seen(std::string_view publisher, std::optional<std::uint16_t> packet_id) {
    const auto erase = [&](std::uint16_t id, std::string_view whom, store::Portion portion) { engine_->erase_seen(std::string(publisher).append(whom), id, portion); };
    bool any = !seen_.empty() && seen_.forget(publisher, packet_id, [&](std::uint16_t id, std::string_view whom, const NoValue&) { erase(id, whom, {.worker = id_, .workers = count_}); });
    // Those of the runs before are known to all workers. One removes each, and a portion of today's division none but its own worker, who
    // may have written it anew.
    any |= !had_.empty() && had_.forget(publisher, packet_id, [&](std::uint16_t id, std::string_view whom, const CountedVector<store::Portion>& portions) {
        for (const auto& portion : portions)
            if (portion.worker % count_ == id_) erase(id, whom, portion);
    });
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

void Core::leave(store::LeavingRecord record) {
    const auto number = engine_->next_number();
    engine_->put_leaving(number, record);
    leaving_.push_back({.step = Leaving::Step::written, .ticket = engine_->next_ticket(), .number = number, .record = std::move(record)});
    leaving_.back().count();
}

void Core::settle_leaving() {
    for (auto& leaving : leaving_) {
        const bool is_durable = leaving.ticket <= engine_->durable();
        const auto name = store::leaving_name(leaving.number);
        switch (leaving.step) {
            case Leaving::Step::written:
            case Leaving::Step::recovered: {
                // A disk that fails does not hold an alarm back: it is sent, and may come twice after a crash.
                if (leaving.not_before > now_ || (!is_durable && engine_->fault() == nullptr)) break;
                Origin origin{.publisher = name, .packet_id = 0, .dup = leaving.step == Leaving::Step::recovered};
                origin_ = &origin;
                const auto& record = leaving.record;
                mqtt::Outgoing message(record.message);
                const bool is_over = record.message->expires_at() != 0 && record.message->expires_at() <= now_;
                if (record.sequence != 0 && !is_over) set_retained(message, record.sequence);
                if (is_over) ++figures_.expired_messages;
                else if (record.group.empty()) route(message);
                else if (auto* group = index_.find_group(record.filter, record.group); group != nullptr) deliver_shared(message, *group, record.filter);
                origin_ = nullptr;
                leaving.step = Leaving::Step::sent;
                // What it caused here is in this very batch; a ticket for it comes only if there is something in it.
                if (!origin.went_elsewhere) engine_->erase_leaving(leaving.number), leaving.step = Leaving::Step::arrived;
                leaving.ticket = engine_->next_ticket();
                break;
            }
            case Leaving::Step::sent:
                if (!is_durable) break;
                engine_->erase_leaving(leaving.number);
                leaving.step = Leaving::Step::arrived;
                leaving.ticket = engine_->next_ticket();
                break;
            case Leaving::Step::arrived:
                if (!is_durable) break;
                release(name, 0, false);   // not before: while it is on its way for who reads the disk, its marks are needed
                leaving.step = Leaving::Step::done;
                break;
            case Leaving::Step::done: break;
        }
    }
    std::erase_if(leaving_, [](const Leaving& leaving) { return leaving.step == Leaving::Step::done; });
}

void Core::settle(std::int64_t now) {
    if (!ended_.empty() && engine_->durable() >= ended_until_) ended_.clear();
    if (is_recovering_ || (received_.empty() && state_out_.empty() && leaving_.empty() && handing_on_.empty())) return;
    now_ = now;
    settle_leaving();
    if (!handing_on_.empty()) continue_handing_on();
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
    record.holder = holder_of(session);
    engine_->put_session(record);
}

std::optional<store::HolderRecord> Core::holder_of(const Session& session) const {
    const auto* connection = static_cast<const Connection*>(session.link());
    const auto away = connection == nullptr ? away_.find(session.id()) : away_.end();
    if (connection == nullptr ? away == away_.end() : connection->security == nullptr || connection->security->principal.id == "probe") return std::nullopt;
    const auto& listener = connection != nullptr ? *connection->listener : *away->second.listener;
    const auto& principal = connection != nullptr ? connection->security->principal : away->second.principal;
    return store::HolderRecord{.listener = listener.resource, .port = listener.port, .method = principal.method, .user_name = principal.user_name, .evidence = principal.evidence,
                               .attributes = principal.attributes != nullptr ? *principal.attributes : auth::Attributes{}};
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
        core_.count_session(session, nullptr);
        // Whose connection was open when the process ended: it ended then, as far as anybody knows now.
        session.ends_at = record.expiry_interval == never ? 0 : record.ends_at != 0 ? record.ends_at : core_.now_ + static_cast<std::int64_t>(record.expiry_interval) * 1000;
        // A second at least, as for wills below: its messages may go on to members of groups on other workers.
        if (session.ends_at != 0) core_.start_timer(session, std::max(session.ends_at, core_.now_ + 1000));
        if (record.holder) {
            core_.by_id_[session.id()] = &session;
            auto& away = core_.away_[session.id()];
            auto& holder = *record.holder;
            auto& listener = listeners_[{holder.listener, holder.port}];
            if (listener == nullptr) {
                listener = std::make_shared<ListenerConfig>();
                listener->resource = holder.listener;
                listener->port = holder.port;
            }
            away.listener = listener;
            away.principal = {.method = std::move(holder.method), .user_name = std::move(holder.user_name), .id = record.owner, .evidence = std::move(holder.evidence)};
            if (!holder.attributes.empty()) away.principal.attributes = std::make_shared<const auth::Attributes>(std::move(holder.attributes));
        }
        if (record.will) {
            const auto& kept = *record.will;
            auto will = std::make_unique<session::Will>();
            will->message = mqtt::MessageRef(mqtt::Message::make({.topic = kept.topic, .payload = kept.payload, .properties = kept.properties, .partition = {}, .has_partition = false, .retain = kept.retain, .qos = kept.qos,
                                                                  .expires_at = 0, .publisher = session.id()}));
            will->delay_interval = kept.delay_interval;
            will->has_expiry = kept.has_expiry;
            will->message_expiry = kept.message_expiry;
            will->publish_at = kept.publish_at != 0 ? kept.publish_at : core_.now_ + static_cast<std::int64_t>(kept.delay_interval) * 1000;
            session.will = std::move(will);
            // A second at least, so that all workers know all subscriptions by then; a client that returns before finds it due.
            core_.start_timer(session, std::max(core_.now_ + 1000, session.will->publish_at));
        }
    }
    void subscription(std::string_view client_id, std::string_view filter, const topics::Options& options, std::uint32_t share) override {
        auto* session = core_.find_session(client_id);
        if (session == nullptr) return;
        // A version before this one gave no numbers.
        if (share == 0 && topics::split_shared(filter).is_shared) unnumbered_.emplace_back(client_id, filter, options);
        else core_.add_subscription(*session, filter, options, share);
        session->next_share = std::max(session->next_share, share);
    }
    void incoming(std::string_view client_id, std::uint16_t packet_id) override {
        if (auto* session = core_.find_session(client_id); session != nullptr) session->restore_incoming(packet_id);
    }
    void seen(std::string_view name, std::uint16_t packet_id, store::Portion portion) override {
        // The publisher, and behind it for whom the mark stands.
        const auto size = store::is_leaving_name(name) ? store::leaving_name(0).size() : std::min(name.find('\0'), name.size());
        core_.had_.add(Had::key(name.substr(0, size), packet_id, name.substr(size))).first->value.push_back(portion);
    }
    void leaving(std::uint64_t number, store::LeavingRecord record) override {
        skip_sequence(record.sequence);
        // A second at least, so that all workers know all subscriptions by then.
        core_.leaving_.push_back({.step = Leaving::Step::recovered, .not_before = core_.now_ + 1000, .number = number, .record = std::move(record)});
        core_.leaving_.back().count();
    }
    void queue(std::string_view client_id, std::unique_ptr<store::SessionStore> store, std::uint16_t last_packet_id) override {
        if (auto* session = core_.find_session(client_id); session != nullptr) {
            session->restore(std::move(store), last_packet_id);
            session->next_share = std::max(session->next_share, session->last_share());
            core_.watch_queue(*session);
        }
    }
    void handed_on(std::string_view client_id, std::vector<store::Share> shares, std::unique_ptr<store::SessionStore> store) override {
        auto& job = core_.handing_on_[std::string(client_id)];
        job.add(std::move(shares));
        job.store = std::move(store);
        job.not_before = core_.now_ + 1000;
        if (auto* session = core_.find_session(client_id); session != nullptr) session->next_share = std::max(session->next_share, job.last_share());
    }
    /// When all is told.
    void number_the_rest() {
        for (const auto& topic : stale_) core_.engine_->erase_retained(topic);
        for (const auto& [client_id, filter, options] : unnumbered_) {
            auto& session = *core_.find_session(client_id);
            const auto share = ++session.next_share;
            core_.add_subscription(session, filter, options, share);
            core_.engine_->put_subscription(client_id, filter, options, share);
        }
    }
    void state(std::string key, statestore::Entry entry) override {
        if (core_.state_ != nullptr) core_.state_->restore(std::move(key), std::move(entry));
    }
    void retained(const mqtt::MessageRef& message, std::uint64_t sequence) override {
        // Of a version that kept them.
        if (const auto topic = message->view().topic; is_own(topic)) {
            if (home_of(topic, core_.count_) == core_.id_) stale_.emplace_back(topic);
            return skip_sequence(sequence);
        }
        auto& slot = (*core_.retained_)[message->view().topic];
        if (slot) return;
        ++core_.retained_count_;
        core_.retained_bytes_ += message->payload_size();
        core_.retained_may_expire_ |= message->expires_at() != 0;
        slot = {.message = message, .sequence = sequence};
        skip_sequence(sequence);
    }

  private:
    void skip_sequence(std::uint64_t sequence) {
        for (auto seen = core_.shared_.sequence.load(); seen <= sequence && !core_.shared_.sequence.compare_exchange_weak(seen, sequence + 1);) {}
    }
    struct Unnumbered {
        std::string client_id, filter;
        topics::Options options;
        Unnumbered(std::string_view client, std::string_view text, const topics::Options& with) : client_id(client), filter(text), options(with) {}
    };
    std::vector<Unnumbered> unnumbered_;
    std::vector<std::string> stale_;              ///< topics whose retained messages are not kept any more
    std::map<std::pair<std::string, std::uint16_t>, std::shared_ptr<ListenerConfig>> listeners_;   ///< that sessions were opened by; their rules come when they open
    Core& core_;
};

void Core::recover(std::int64_t now) {
    now_ = now;
    Recovery recovery(*this);
    engine_->recover([this](std::string_view client_id) { return home_of(client_id, count_) == id_; }, recovery);
    recovery.number_the_rest();
    is_recovering_ = true;
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
        for (const auto& subscription : session->subscriptions) {
            const auto shared = topics::split_shared(subscription.text);
            engine_->put_subscription(id, subscription.text, subscription.options, shared.is_shared ? share_of(*session, shared) : 0);
        }
        for (const auto packet_id : session->incoming()) engine_->put_incoming(id, packet_id);
    }
    retained_->for_each([&](Retained& value) {
        const auto view = value.message->view();
        if (home_of(view.topic, count_) == id_ && keeps_retained(view)) engine_->put_retained(value.message, value.sequence);
    });
    if (state_ != nullptr) state_->keep([this](const std::string& key) { return keeps_state(key, false); });
}

}  // namespace penstock::broker
