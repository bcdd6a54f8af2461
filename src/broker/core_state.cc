// Core's side of the state store: requests that arrive as PUBLISH, answers and notifications that leave as such.
#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "broker/core.h"
#include "topics/topic.h"

namespace penstock::broker {

using mqtt::PropertyId;
using mqtt::Qos;
using mqtt::ReasonCode;

namespace {

constexpr std::uint32_t owner = 0;       // the worker that has the keys

struct RequestProperties {
    std::string_view response_topic, correlation, timestamp, fence;
    bool has_correlation = false, keep = false, urgent = false;
};

RequestProperties read_properties(std::string_view block) {
    RequestProperties out;
    mqtt::PropertyReader reader(block, mqtt::place(mqtt::PacketType::publish));
    for (mqtt::Property p; reader.next(p);) {
        if (p.id == PropertyId::response_topic) out.response_topic = p.text;
        else if (p.id == PropertyId::correlation_data) out.correlation = p.text, out.has_correlation = true;
        else if (p.id != PropertyId::user_property) continue;
        else if (p.text == "__ts") out.timestamp = p.value;
        else if (p.text == "__ft") out.fence = p.value;
        else if (p.text == "aio-persistence") out.keep = p.value == "true";
        else if (p.text == "$high_priority") out.urgent = true;
    }
    return out;
}

}  // namespace

statestore::StateStore::Write Core::state_writer() {
    return [this](const std::string& key, const statestore::Entry* entry) {
        if (!durable_) return;
        state_wrote_ = true;
        if (entry != nullptr) engine_->put_state(key, *entry);
        else engine_->erase_state(key);
    };
}

Core::Next Core::on_state_request(Connection& connection, const mqtt::PublishView& publish) {
    auto& session = *connection.session;
    ++figures_.state_requests;
    auto answer = [&](ReasonCode reason, std::string_view text = {}) {
        if (publish.qos != Qos::at_most_once) send_ack(connection, publish.qos == Qos::exactly_once ? mqtt::PacketType::pubrec : mqtt::PacketType::puback, publish.packet_id, reason, text);
        return Next::go_on;
    };
    const auto properties = read_properties(publish.properties);
    // Fact sheet 10.1: no answer is possible to a request without these.
    if (connection.version != mqtt::Version::v5 || publish.qos != Qos::at_least_once || properties.response_topic.empty() || !properties.has_correlation)
        return answer(connection.version == mqtt::Version::v5 ? ReasonCode::implementation_specific_error : ReasonCode::success, "a state store request is MQTT 5, QoS 1, with response topic and correlation data");
    if (properties.response_topic == statestore::request_topic || properties.response_topic.starts_with(statestore::notify_prefix) || is_of_the_server(properties.response_topic) || !topics::is_valid_name(properties.response_topic)) {
        disconnect(connection, mqtt::Refusal::response_topic_is_not_answered, now_);
        return Next::gone;
    }
    if (connection.security != nullptr && connection.security->grant != nullptr) {
        // The answer is the broker's publication: it must not reach a topic to which the client could not send it, or from which it
        // could not fetch it. Below `clients/` answers are at home, and reading there is enough.
        const auto& grant = *connection.security->grant;
        const auto topic = properties.response_topic;
        if (!grant.may_subscribe(topic) || (!topic.starts_with("clients/") && !grant.may_publish(topic))) {
            ++categories_[connection.category].authorization_deny;
            note(connection, session.client_id(), "Subscribe", topic, ReasonCode::not_authorized, "the state store does not answer to a response topic that the client may not use");
            return answer(ReasonCode::not_authorized, "no rule lets the client have answers on this response topic");
        }
    }
    const auto command = statestore::parse_command(publish.payload);
    bool allowed = true;
    if (connection.security != nullptr && connection.security->grant != nullptr && command.fault == nullptr) {
        const bool writes = command.verb == statestore::Verb::set || command.verb == statestore::Verb::del || command.verb == statestore::Verb::vdel;
        allowed = connection.security->grant->may_use_key(writes ? auth::Action::write_key : auth::Action::read_key, command.key);
        if (!allowed) note(connection, session.client_id(), writes ? "Write" : "Read", command.key, ReasonCode::not_authorized, "no rule allows this key");
    }
    if (command.verb == statestore::Verb::keynotify && !command.stop && allowed) session.watches_keys = true;
    std::string forwarded;
    mqtt::copy_forwarded_properties(publish.properties, forwarded);
    mqtt::MessageView view{.topic = publish.topic, .payload = publish.payload, .properties = forwarded, .partition = {}, .has_partition = false, .retain = false, .qos = publish.qos, .expires_at = 0, .publisher = session.id()};
    if (publish.has_expiry) view.expires_at = now_ + static_cast<std::int64_t>(publish.message_expiry) * 1000;
    if (id_ == owner) {
        handle_state(view, session.client_id(), allowed);
    } else {
        Mail mail{.kind = Mail::Kind::state_request, .flag = allowed, .from = id_, .message = mqtt::MessageRef(mqtt::Message::make(view))};
        mail.body = std::make_unique<Mail::Body>();
        mail.body->publisher = session.client_id();
        driver_.post(owner, std::move(mail));
    }
    return answer(ReasonCode::success);
}

bool Core::keeps_state(std::string_view key, bool requested) {
    const auto& rules = config_.persistence;
    if (!durable_ || rules.state != Persistence::Mode::custom) return durable_ && rules.state == Persistence::Mode::all;
    if (requested) ++figures_.dynamic_requests[rules.state_dynamic];
    for (const auto& entry : rules.state_keys)
        for (const auto& pattern : entry.keys)
            if (entry.type == auth::Rule::KeyType::pattern ? auth::glob_with_tokens(pattern, true, {}, {}, key) : pattern == key) return true;
    return rules.state_dynamic && requested;
}

void Core::handle_state(const mqtt::MessageView& view, const std::string& client_id, bool allowed) {
    if (view.expires_at != 0 && view.expires_at <= now_) return;   // nobody waits for it any more
    const auto request = read_properties(view.properties);
    state_wrote_ = false;
    std::vector<statestore::Notification> notifications;
    const auto command = statestore::parse_command(view.payload);
    const auto answer = state_->handle({.client_id = client_id, .payload = view.payload, .timestamp = request.timestamp, .fence = request.fence, .keep = command.verb == statestore::Verb::set && keeps_state(command.key, request.keep), .is_allowed = allowed, .is_full = is_full(), .monotonic_ms = now_},
                                       wall_ms(), notifications);
    std::string properties;
    mqtt::write_property(properties, PropertyId::correlation_data, request.correlation);
    mqtt::write_user_property(properties, "__stat", "200");
    if (answer.version) mqtt::write_user_property(properties, "__ts", answer.version->text());
    mqtt::write_user_property(properties, "__protVer", "1.0");
    if (request.urgent) mqtt::write_user_property(properties, "$high_priority", "");
    state_out({}, {.topic = request.response_topic, .payload = answer.payload, .properties = properties, .partition = {}, .has_partition = false, .retain = false, .qos = Qos::at_least_once, .expires_at = 0, .publisher = 0});
    state_notifications(notifications);
}

void Core::state_notifications(const std::vector<statestore::Notification>& list) {
    for (const auto& n : list) {
        // Each watcher gets a message of its own: as many bytes as there are watchers of the key.
        if (is_full()) {
            ++figures_.rejected_memory;
            static log::RateLimit limit(1);
            std::uint64_t suppressed = 0;
            if (limit.allow(now_, suppressed)) log::warn("broker", "a state store notification is dropped: the message pool is full client=\"{}\" suppressed={}", for_log(n.client_id), suppressed);
            continue;
        }
        std::string properties;
        mqtt::write_user_property(properties, "__ts", n.version.text());
        mqtt::write_user_property(properties, "__protVer", "1.0");
        const auto topic = statestore::notify_topic(n.client_id, n.key);
        state_out(n.client_id, {.topic = topic, .payload = *n.payload, .properties = properties, .partition = {}, .has_partition = false, .retain = false, .qos = Qos::at_least_once, .expires_at = 0, .publisher = 0});
    }
}

void Core::state_out(std::string client_id, const mqtt::MessageView& view) {
    StateOut out{.ticket = 0, .client_id = std::move(client_id), .message = mqtt::MessageRef(mqtt::Message::make(view))};
    // What was written must be on disk first; what was only read waits for what was written before it.
    if (state_wrote_) out.ticket = engine_->next_ticket();
    else if (!state_out_.empty()) out.ticket = state_out_.back().ticket;
    if (out.ticket == 0) return send_state(out);
    out.counted.set(sizeof(StateOut) + out.client_id.size());
    state_out_.push_back(std::move(out));
}

void Core::send_state(StateOut& out) {
    if (!out.client_id.empty()) return deliver_direct(out.client_id, out.message);
    mqtt::Outgoing message(out.message);
    route(message);
}

void Core::deliver_direct(const std::string& client_id, const mqtt::MessageRef& message) {
    if (const auto home = home_of(client_id, count_); home != id_) {
        Mail mail{.kind = Mail::Kind::direct, .from = id_, .message = message};
        mail.body = std::make_unique<Mail::Body>();
        mail.body->publisher = client_id;
        driver_.post(home, std::move(mail));
        return;
    }
    // Whether it subscribed does not matter; whether it is there does (fact sheet 10.8).
    auto* session = find_session(client_id);
    if (session == nullptr || session->link() == nullptr) return;
    // The right to the key may have gone since the client asked to be told.
    const auto* security = static_cast<const Connection*>(session->link())->security.get();
    if (security != nullptr && security->grant != nullptr)
        if (const auto key = statestore::notified_key(message->view().topic, client_id); key && !security->grant->may_use_key(auth::Action::read_key, *key)) return;
    mqtt::Outgoing outgoing(message);
    deliver_to(*session, outgoing, 1, false, nullptr, 0);
}

}  // namespace penstock::broker
