// Core's connections: CONNECT, authentication, takeover, DISCONNECT, keep alive, wills and the end of sessions.
#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "broker/core.h"
#include "tls/failure.h"
#include "topics/topic.h"

namespace penstock::broker {

using mqtt::PropertyId;
using mqtt::ReasonCode;
using mqtt::Refusal;
using mqtt::Version;
using session::Session;

namespace {

constexpr std::uint32_t never = 0xFFFF'FFFF;
// Of those who wait for a verdict, of one worker: a whole fleet that returns after a restart, but not all memory.
constexpr std::size_t waiting_max = 20'000, waiting_small = 16 * 1024;
constexpr std::int64_t waiting_bytes_min = 8 << 20;
constexpr std::string_view small_for_auth = "the client's maximum packet size is below that of AUTH";

/// What a CONNECT that a verdict refuses is refused by.
Refusal refusal_of(const Connection& connection, const auth::Verdict& verdict) {
    if (connection.auth == nullptr) return Refusal::connect_fails_checks;
    return verdict.reason == ReasonCode::bad_authentication_method ? Refusal::method_is_not_supported
                                                                   : Refusal::enhanced_authentication_fails;
}

std::vector<crypto::Certificate> chain_of(const Connection& connection) {
    return connection.tls != nullptr && connection.tls->channel.has_peer_certificate() ? connection.tls->channel.peer_chain() : std::vector<crypto::Certificate>();
}

auth::Credentials credentials_of(const Connection& connection, const mqtt::ConnectView& connect, std::string_view client_id) {
    return {.client_id = client_id,
            .user_name = connect.user_name,
            .password = connect.password,
            .method = connect.authentication_method,
            .data = connect.authentication_data,
            .chain = chain_of(connection),
            .now_ms = wall_ms(),
            .network = connection.waiting != nullptr ? std::string_view(connection.waiting->guesser.network) : std::string_view(),
            .asker = connection.waiting != nullptr ? std::optional<std::weak_ptr<const void>>(connection.waiting->asks) : std::nullopt};
}

}  // namespace

void Core::trace_connect(const Connection& connection, const mqtt::ConnectView& connect, std::string_view client_id, std::int64_t began_ns) {
    connect_trace_.reset();
    const auto parent = traced(connect.trace_parent);
    if (!parent) return;
    connect_trace_.emplace(spans_, *parent, "Connect", began_ns != 0 ? began_ns : monotonic_ns());
    connect_trace_->note("messaging.client.id", client_id);
    connect_trace_->note("penstock.listener", connection.listener->resource);
    connect_trace_->note("network.peer.address", driver_.peer(connection));
}

bool Core::write_refusal(Connection& connection, ReasonCode reason, std::string_view text) {
    const auto told = mqtt::as_reason_of(mqtt::PacketType::connack, reason);
    // Without a code that fits, version 3 is closed without a word [MQTT311-3.2.2-6].
    if (connection.version != Version::v5 && !mqtt::connack_code_v3(told)) return false;
    std::string properties;
    if (connection.version == Version::v5 && !text.empty()) mqtt::write_reason_string(properties, text);
    for (const auto& block : {properties, std::string()}) {
        scratch_.clear();
        mqtt::encode_connack(scratch_, connection.version, false, told, block);   // session present 0 with an error [MQTT-3.2.2-6]
        if (!fits(connection, scratch_.size())) continue;   // the reason string does not make it too large [MQTT-3.2.2-19]
        ++figures_.refusals[static_cast<std::uint8_t>(told)];
        output(connection).append(scratch_);
        return true;
    }
    return false;
}

Core::Next Core::refuse(Connection& connection, const Ending& ending, bool is_noted) {
    const bool is_authentication = connection.state == ConnectionState::wait_auth;
    if (!is_noted && (is_authentication || is_about_rights(ending.reason)))
        note(connection, connecting_, is_authentication ? "Authenticate" : "Connect", {}, ending.reason,
             std::string(ending.text));
    if (connect_trace_) connect_trace_->fail(ending.text);
    connect_trace_.reset();
    log_ended(connecting_, driver_.peer(connection), connection.listener->resource, connection.version,
              ending, now_);
    if (!write_refusal(connection, ending.reason, ending.text))
        ++figures_.disconnects[static_cast<std::uint8_t>(ending.reason)];
    end_connection(connection, false);
    driver_.close(connection);
    return Next::gone;
}

std::string Core::asked_for(const Connection::Waiting& waiting) {
    if (!waiting.assigned_id.empty()) return waiting.assigned_id;
    return std::string(mqtt::decode_connect(waiting.connect_body)->client_id);
}

std::optional<Refusal> Core::will_fault(const mqtt::ConnectView& connect) const {
    if (!connect.will) return std::nullopt;
    const auto topic = connect.will->topic;
    if (topic.empty()) return Refusal::will_topic_is_empty;
    if (topics::has_wildcard(topic)) return Refusal::will_topic_has_wildcard;
    if (!topics::is_valid_name(topic)) return Refusal::will_topic_is_too_deep;
    if (is_of_the_server(topic) && !is_bridge_state(topic)) return Refusal::will_topic_is_the_servers;
    // The server sends it as a PUBLISH later, with these properties.
    mqtt::PropertyReader properties(connect.will->properties, mqtt::place(mqtt::PacketType::publish));
    for (mqtt::Property p; properties.next(p);)
        if (p.id == mqtt::PropertyId::response_topic && topics::has_wildcard(p.text))
            return Refusal::will_response_topic_has_wildcard;
    if (config_.aio_compatible && connect.will->qos == mqtt::Qos::exactly_once)
        return Refusal::will_qos_is_not_supported;
    return std::nullopt;
}

namespace {

/// What the first bytes are when they are no MQTT that could be read; null: nothing that is known.
const char* other_protocol(const Connection& connection, std::string_view came) {
    if (connection.websocket != nullptr) return nullptr;
    switch (tls::opening_of(came)) {
        case tls::Opening::tls:
            if (connection.tls != nullptr)
                return "the client spoke TLS within TLS; switch one of the two off in the client";
            return "the client spoke TLS on a port without TLS (a ClientHello came); switch TLS off in the "
                   "client, or give the port tls in its BrokerListener";
        case tls::Opening::http:
            return "the client spoke HTTP on a port that speaks MQTT; for MQTT over WebSocket have it use a "
                   "port with protocol: WebSockets";
        case tls::Opening::mqtt:
        case tls::Opening::unknown: break;
    }
    return nullptr;
}

}  // namespace

Core::Next Core::on_first(Connection& connection, const mqtt::Frame& frame, std::string_view rest) {
    const auto* const other = other_protocol(connection, rest);
    if (other == nullptr && frame.type == mqtt::PacketType::connect)
        return on_connect(connection, frame, rest);
    if (other != nullptr) note_refusal(connection, "Protocol", other);
    const Ending usual(Refusal::first_is_not_connect);
    disconnect(connection, other != nullptr ? Ending(Refusal::first_is_not_connect, other) : usual, now_);
    return Next::gone;
}

Core::Next Core::on_connect(Connection& connection, const mqtt::Frame& frame, std::string_view rest) {
    connecting_.clear();
    connect_trace_.reset();
    const auto form = mqtt::refusal_form(frame.body);
    if (!form) {
        // It ends before the version, or has another name.
        disconnect(connection, mqtt::decode_connect(frame.body).error(), now_);
        return Next::gone;
    }
    // From here on a refusal knows how it is read, and how large it may be.
    connection.version = form->version;
    connection.packet_size_max = form->maximum_packet_size;
    auto decoded = mqtt::decode_connect(frame.body);
    // MQTT 3.1 does not use the flags of CONNECT.
    if (decoded && frame.flags != 0 && decoded->version != Version::v31)
        decoded = std::unexpected(Refusal::flags_are_reserved);
    if (decoded && frame.is_padded && decoded->version == Version::v5)
        decoded = std::unexpected(Refusal::length_is_padded);
    if (!decoded) return refuse(connection, decoded.error());
    auto& connect = *decoded;
    connecting_ = connect.client_id;
    connection.is_bridge = connect.is_bridge;
    connection.problem_information = connect.request_problem_information;

    std::string assigned;
    if (connect.client_id.empty()) {
        if (connect.version == Version::v31 || (connect.version == Version::v311 && !connect.clean_start))
            return refuse(connection, Refusal::client_id_is_empty);
        // Chosen so that the session lives on this worker.
        do assigned = "auto-" + random_uuid();
        while (home_of(assigned, count_) != id_);
    }
    const std::string_view client_id = assigned.empty() ? connect.client_id : assigned;
    connecting_ = client_id;
    if (const auto home = home_of(client_id, count_); home != id_) {
        wheel_remove(connection);
        --figures_.connections;
        auto body = std::make_unique<Mail::Body>();
        connection.in = std::make_unique<std::string>(rest);
        body->connection = driver_.detach(connection);
        Mail mail{.kind = Mail::Kind::connection, .from = id_};
        mail.body = std::move(body);
        driver_.post(home, std::move(mail));
        return Next::gone;
    }

    trace_connect(connection, connect, client_id, 0);
    // Who has a session takes nothing more, and may be who makes room.
    if (is_full() && find_session(client_id) == nullptr) return refuse(connection, Refusal::pool_is_full);
    if (const auto fault = will_fault(connect)) return refuse(connection, *fault);

    auto verdict = auth::Verdict::accepted({});
    std::unique_ptr<auth::Exchange> exchange;
    Connection::Guesser guesser;
    if (connection.listener->authenticator != nullptr) {
        guesser = guesser_of(driver_.network(connection), client_id, connect.user_name.value_or(""));
        // Nothing is looked at for an address that failed too often: guessing costs the guesser.
        if (is_throttled(guesser)) {
            ++figures_.throttled;
            const Ending ending = Refusal::too_many_failures;
            note(connection, client_id, "Authenticate", {}, ending.reason, std::string(ending.text),
                 connect.user_name.value_or(""));
            return refuse(connection, ending, true);
        }
        connection.waiting = std::make_unique<Connection::Waiting>();
        connection.waiting->assigned_id = assigned;
        connection.waiting->guesser = guesser;
        if (connect_trace_) connection.waiting->began_ns = monotonic_ns();
        connection.waiting->by = connection.listener->authenticator;
        verdict = connection.listener->authenticator->begin(credentials_of(connection, connect, client_id), exchange, later(connection));
    } else if (connect.authentication_method) {
        return refuse(connection, Refusal::method_is_not_supported);
    }
    if (connect.authentication_method) {
        connection.auth = std::make_unique<Connection::Auth>();
        connection.auth->method = *connect.authentication_method;
        connection.auth->exchange = std::move(exchange);
    }
    if (verdict.kind == auth::Verdict::Kind::go_on || verdict.kind == auth::Verdict::Kind::wait) connection.waiting->connect_body = frame.body;
    else connection.waiting.reset();
    std::vector<std::uint64_t> yielding;
    if (verdict.kind == auth::Verdict::Kind::wait) yielding = make_room_to_wait(*connection.waiting);
    const bool is_refused = verdict.kind == auth::Verdict::Kind::wait && std::erase(yielding, connection.waiting->ticket) > 0;
    if (is_refused) {
        waiting_.erase(connection.waiting->ticket);
        connection.waiting.reset();
    }
    const auto next = is_refused ? refuse(connection, Refusal::too_many_wait)
                                 : apply_verdict(connection, connect, assigned, guesser, std::move(verdict));
    for (const auto ticket : yielding)
        if (const auto found = waiting_.find(ticket); found != waiting_.end())
            refuse_waiting(*found->second, Refusal::too_many_wait);
    return next;
}

std::vector<std::uint64_t> Core::make_room_to_wait(const Connection::Waiting& waiting) {
    // Those who wait for a verdict hold their CONNECT in memory; strangers get a bounded part of it, and none of them keeps others out.
    const auto bytes = waiting.connect_body.size();
    const auto bytes_max = static_cast<std::size_t>(std::max<std::int64_t>(waiting_bytes_min, config_.pool_bytes / 32));
    // Large ones have half of it, and make room within that among themselves alone: it is not theirs what small ones hold.
    const bool is_large = bytes > waiting_small;
    const Turns::Room room{.count = waiting_max, .bytes = bytes_max}, large_room{.count = waiting_max, .bytes = bytes_max / 2};
    const auto& network = waiting.guesser.network;
    if (!waiting_connects_.takes(network, bytes, room) || (is_large && !large_connects_.takes(network, bytes, large_room))) return {waiting.ticket};
    std::vector<std::uint64_t> yielding;
    if (is_large) {
        yielding = large_connects_.add(network, waiting.ticket, bytes, large_room);
        for (const auto ticket : yielding) waiting_connects_.remove(ticket);
    }
    for (const auto ticket : waiting_connects_.add(network, waiting.ticket, bytes, room)) {
        large_connects_.remove(ticket);
        yielding.push_back(ticket);
    }
    return yielding;
}

void Core::forget_waiting(std::uint64_t ticket) {
    waiting_connects_.remove(ticket);
    large_connects_.remove(ticket);
}

Core::Next Core::apply_verdict(Connection& connection, const mqtt::ConnectView& connect, std::string_view assigned_id, const Connection::Guesser& guesser, auth::Verdict verdict) {
    using Kind = auth::Verdict::Kind;
    refuse_expired(verdict);
    const std::string client_id(assigned_id.empty() ? connect.client_id : assigned_id);
    switch (verdict.kind) {
        case Kind::accept: {
            const bool secured = connection.listener->authenticator != nullptr;
            if (secured) {
                known_.note(guesser.account, guesser.device);
                secure(connection, client_id, verdict.principal);
            }
            // A session or a will whose time has come is not met any more.
            if (auto* session = find_session(client_id); session != nullptr) finish_due(*session);
            auto fault = connect_fault(connection, connect, client_id);
            // Only who is let in makes categories.
            if (fault.empty()) connection.category = categories_.take(connect.metric_category, second_);
            auto& category = categories_[connection.category];
            if (secured) ++category.authentication_successes;
            if (fault.empty()) {
                if (secured) ++category.authorization_allow;
                connection.told_aio = config_.aio_compatible;
                return open_session(connection, connect, assigned_id, verdict);
            }
            ++category.authorization_deny;
            note(connection, client_id, "Connect", client_id, ReasonCode::not_authorized, fault, connect.user_name.value_or(""));
            return refuse(connection, {Refusal::connect_fails_checks, fault}, true);
        }
        case Kind::refuse:
            ++(verdict.is_fault ? categories_[0].authentication_failures : categories_[0].authentication_deny);
            note(connection, client_id, "Authenticate", verdict.method, verdict.reason,
                 verdict.detail.empty() ? verdict.reason_string : fmt::format("{} ({})", verdict.reason_string, verdict.detail),
                 connect.user_name.value_or(""));
            refuse(connection, {refusal_of(connection, verdict), verdict.reason_string, verdict.reason},
                   true);
            if (!verdict.is_fault) {
                count_failure(guesser);
                end_throttled(guesser);
            }
            return Next::gone;
        case Kind::wait:
            if (connect_trace_) connect_trace_->drop();
            connect_trace_.reset();
            connection.state = ConnectionState::wait_verdict;
            wait_for_verdict(connection);
            return Next::hold;
        case Kind::go_on: break;
    }
    if (connect_trace_) connect_trace_->drop();
    connect_trace_.reset();
    connection.state = ConnectionState::wait_auth;
    std::string properties;
    mqtt::write_property(properties, PropertyId::authentication_method, connection.auth->method);
    if (!verdict.data.empty()) mqtt::write_property(properties, PropertyId::authentication_data, verdict.data);
    scratch_.clear();
    mqtt::encode_auth(scratch_, ReasonCode::continue_authentication, properties);
    if (!fits(connection, scratch_.size()))
        return refuse(connection, {Refusal::answer_is_too_large, small_for_auth});
    output(connection).append(scratch_);
    return Next::go_on;
}

Core::Next Core::on_auth(Connection& connection, const mqtt::Frame& frame) {
    const auto decoded = mqtt::decode_auth(frame.flags, frame.body);
    // Others may have sent a CONNECT since this one's.
    if (connection.state == ConnectionState::wait_auth) connecting_ = asked_for(*connection.waiting);
    auto fault = [&](const Ending& ending) {
        if (connection.state == ConnectionState::wait_auth) return refuse(connection, ending);
        if (is_about_rights(ending.reason))
            note(connection, connection.session->client_id(), "Authenticate", {}, ending.reason,
                 std::string(ending.text));
        disconnect(connection, ending, now_);
        return Next::gone;
    };
    if (!decoded) return fault(decoded.error());
    auto* auth = connection.auth.get();
    if (auth == nullptr) return fault(Refusal::auth_without_method);
    const bool starting = connection.state == ConnectionState::wait_auth;
    if (!decoded->method || *decoded->method != auth->method)
        return fault(starting ? Refusal::auth_method_differs : Refusal::reauthentication_method_differs);
    if (starting || auth->reauthenticating) {
        if (decoded->reason != ReasonCode::continue_authentication)
            return fault(Refusal::auth_must_continue);
    } else if (decoded->reason != ReasonCode::reauthenticate) {
        return fault(Refusal::reauthentication_must_begin);
    }

    auth::Verdict verdict;
    if (decoded->reason == ReasonCode::reauthenticate) {
        // Re-authentication is CONNECT's authentication once more. The port may have lost its rules since.
        if (connection.listener->authenticator == nullptr)
            return fault({Refusal::reauthentication_fails,
                          "this listener has no enhanced authentication any more",
                          ReasonCode::bad_authentication_method});
        auto waiting = std::make_unique<Connection::Waiting>();
        waiting->guesser.network = driver_.network(connection);
        const auth::Credentials again{.client_id = connection.session->client_id(), .user_name = {}, .password = {}, .method = decoded->method, .data = decoded->data,
                                      .chain = chain_of(connection), .now_ms = wall_ms(), .is_again = true, .network = waiting->guesser.network, .asker = waiting->asks};
        connection.waiting = std::move(waiting);
        connection.waiting->by = connection.listener->authenticator;
        verdict = connection.listener->authenticator->begin(again, auth->exchange, later(connection));
        if (verdict.kind == auth::Verdict::Kind::wait) {
            wait_for_verdict(connection);
            return Next::hold;
        }
        connection.waiting.reset();
    } else if (auth->exchange != nullptr) {
        verdict = auth->exchange->proceed(decoded->data);
    }
    if (!starting) return end_reauthentication(connection, std::move(verdict));
    auto waiting = std::move(connection.waiting);
    recheck(connection, *waiting, verdict);
    auto connect = mqtt::decode_connect(waiting->connect_body);
    trace_connect(connection, *connect, waiting->assigned_id.empty() ? connect->client_id : waiting->assigned_id, waiting->began_ns);
    const bool goes_on = verdict.kind == auth::Verdict::Kind::go_on;
    const auto next = apply_verdict(connection, *connect, waiting->assigned_id, waiting->guesser, std::move(verdict));
    if (goes_on) connection.waiting = std::move(waiting);
    return next;
}

Core::Next Core::end_reauthentication(Connection& connection, auth::Verdict verdict) {
    auto* auth = connection.auth.get();
    const auto& client_id = connection.session->client_id();
    auto& category = categories_[connection.category];
    refuse_expired(verdict);
    if (verdict.kind == auth::Verdict::Kind::accept && connection.security != nullptr && verdict.principal.id != connection.security->principal.id)
        verdict = auth::Verdict::refused(ReasonCode::not_authorized, "re-authentication must be by the same identity");
    if (verdict.kind == auth::Verdict::Kind::refuse && !verdict.is_fault) {
        ++category.authentication_deny;
        const auto guesser = guesser_of(driver_.network(connection), client_id, "");
        count_failure(guesser);
        note(connection, client_id, "Authenticate", verdict.method, verdict.reason, verdict.reason_string);
        const auto why = "re-authentication failed: " + verdict.reason_string;
        disconnect(connection, {Refusal::reauthentication_fails, why, verdict.reason}, now_);
        end_throttled(guesser);
        return Next::gone;
    }
    // What could not be decided leaves the client as it is: 0x18 asks for another try (fact sheet 4.4).
    const bool again = verdict.kind == auth::Verdict::Kind::go_on || verdict.is_fault;
    if (verdict.kind == auth::Verdict::Kind::accept) {
        ++category.authentication_successes;
        if (connection.security != nullptr) {
            auto* security = connection.security.get();
            security->principal = std::move(verdict.principal);
            security->topics.clear();
            security->topic_bytes = 0;
            security->last_topic.clear();
            watch_expiry(connection);
            if (connection.listener->policy != nullptr && security->principal.id != "probe") {
                // A new credential may carry other attributes: what they do not allow any more ends, as when the rules change.
                security->grant = connection.listener->policy->resolve(security->principal, client_id);
                if (!security->grant->may_connect()) {
                    ++figures_.rights_revoked;
                    note(connection, client_id, "Connect", {}, ReasonCode::not_authorized, "after re-authentication no authorization rule lets this client connect");
                    disconnect(connection,
                               {Refusal::reauthentication_fails,
                                "no authorization rule lets this client connect with its new credential"},
                               now_);
                    return Next::gone;
                }
                enforce(*connection.session, security->grant, &connection, false);
            }
        }
    } else if (verdict.is_fault) {
        ++category.authentication_failures;
    }
    auth->reauthenticating = verdict.kind == auth::Verdict::Kind::go_on;
    std::string properties;
    mqtt::write_property(properties, PropertyId::authentication_method, auth->method);
    if (!verdict.data.empty()) mqtt::write_property(properties, PropertyId::authentication_data, verdict.data);
    scratch_.clear();
    mqtt::encode_auth(scratch_, again ? ReasonCode::continue_authentication : ReasonCode::success, properties);
    if (!fits(connection, scratch_.size())) {
        disconnect(connection, {Refusal::answer_is_too_large, small_for_auth}, now_);
        return Next::gone;
    }
    output(connection).append(scratch_);
    return Next::go_on;
}

std::string Core::connack_properties(Connection& connection, const mqtt::ConnectView& connect, std::string_view assigned_id,
                                     const auth::Verdict& verdict, std::uint32_t granted_expiry, bool essential_only) {
    std::string out;
    if (granted_expiry != connect.session_expiry_interval) mqtt::write_property(out, PropertyId::session_expiry_interval, granted_expiry);
    if (!assigned_id.empty()) mqtt::write_property(out, PropertyId::assigned_client_identifier, assigned_id);
    if (connection.keep_alive != connect.keep_alive) mqtt::write_property(out, PropertyId::server_keep_alive, connection.keep_alive);
    if (connection.auth != nullptr) {
        mqtt::write_property(out, PropertyId::authentication_method, connection.auth->method);
        if (!verdict.data.empty()) mqtt::write_property(out, PropertyId::authentication_data, verdict.data);
    }
    if (!config_.aio_compatible && connect.request_response_information && !essential_only) {
        // An offer (§3.1.2.11.6), where the client identifier makes it the begin of a topic name.
        const auto id = assigned_id.empty() ? connect.client_id : assigned_id;
        const auto information = fmt::format("response/{}/", id);
        if (topics::is_valid_name(information))
            mqtt::write_property(out, PropertyId::response_information, information);
    }
    mqtt::write_property(out, PropertyId::receive_maximum, config_.aio_compatible ? 100u : config_.receive_maximum);
    if (config_.aio_compatible) {
        mqtt::write_property(out, PropertyId::maximum_qos, 1u);
    } else if (!essential_only) {
        mqtt::write_property(out, PropertyId::topic_alias_maximum, config_.topic_alias_maximum);
    }
    if (!essential_only) mqtt::write_property(out, PropertyId::maximum_packet_size, config_.packet_size_max);
    if (config_.aio_compatible) mqtt::write_property(out, PropertyId::subscription_identifier_available, 0u);
    // What this says is in force as long as the connection, whatever becomes of the configuration.
    const bool has_aliases = !config_.aio_compatible && !essential_only;
    connection.told_alias_maximum = has_aliases ? config_.topic_alias_maximum : std::uint16_t{0};
    connection.told_packet_size = essential_only ? 0 : config_.packet_size_max;
    return out;
}

Core::Next Core::open_session(Connection& connection, const mqtt::ConnectView& connect, std::string_view assigned_id, const auth::Verdict& verdict) {
    const std::string_view client_id = assigned_id.empty() ? connect.client_id : assigned_id;
    const bool v5 = connect.version == Version::v5;
    const auto bound = config_.session_expiry_max == 0 ? never : config_.session_expiry_max;
    const auto granted = v5 ? std::min(connect.session_expiry_interval, bound) : connect.clean_start ? 0 : bound;
    connection.receive_maximum = v5 ? std::min(connect.receive_maximum, config_.client_receive_maximum) : config_.client_receive_maximum;
    connection.packet_size_max = config_.aio_compatible ? 0 : connect.maximum_packet_size;
    connection.alias_maximum = config_.aio_compatible ? std::uint16_t{0} : connect.topic_alias_maximum;
    connection.keep_alive = connect.keep_alive;
    // A version 3 client cannot be told another interval; its own stays in force.
    if (v5 && config_.keep_alive_max != 0 && (connect.keep_alive == 0 || connect.keep_alive > config_.keep_alive_max))
        connection.keep_alive = config_.keep_alive_max;
    std::string properties;
    // A small client gets what it must know; what is left out is an offer or checked by the server anyway.
    for (const bool essential_only : {false, true}) {
        if (v5) properties = connack_properties(connection, connect, assigned_id, verdict, granted, essential_only);
        scratch_.clear();
        mqtt::encode_connack(scratch_, connect.version, false, ReasonCode::success, properties);
        if (fits(connection, scratch_.size())) break;
        // Before anything of the session is touched.
        if (essential_only)
            return refuse(connection, {Refusal::answer_is_too_large,
                                       "the client's maximum packet size is below that of CONNACK"});
    }

    auto* session = find_session(client_id);
    if (session != nullptr && session->link() != nullptr) {
        // Takeover: [MQTT-3.1.4-3]. The old will is due when it has no delay, or when the session ends here.
        auto& old = *static_cast<Connection*>(session->link());
        const bool session_ends = connect.clean_start || session->expiry_interval == 0;
        if (session->will != nullptr && !session_ends && session->will->delay_interval != 0) session->will.reset();
        disconnect(old, Refusal::session_is_taken_over, now_);
        session = find_session(client_id);
    }
    if (session != nullptr && connect.clean_start) {
        if (session->will != nullptr) publish_will(*session);   // the session ends now [MQTT-3.1.2-4]
        erase_session(*session);
        session = nullptr;
    }
    const bool session_present = session != nullptr;
    if (session == nullptr) {
        auto fresh = std::make_unique<Session>(std::string(client_id), std::uint64_t{id_} << 48 | next_session_++);
        session = fresh.get();
        sessions_.emplace(session->client_id(), std::move(fresh));
    }
    session->will.reset();   // a will that waited for its delay is not sent [MQTT-3.1.3-9]
    if (connection.security != nullptr && !connection.security->principal.id.empty()) session->owner = std::make_unique<const std::string>(connection.security->principal.id);

    session->expiry_interval = granted;
    const bool was_kept = session->is_kept;
    count_session(*session, connection.security != nullptr ? &connection.security->principal : nullptr);
    if (connection.auth != nullptr) session->counted.add(connection.auth->method.size());   // the client's own words, kept for re-authentication
    if (const auto former = handing_on_.find(client_id); former != handing_on_.end()) session->next_share = std::max(session->next_share, former->second.last_share());
    session->is_kept = durable_ && granted > 0;
    session->asks_queue = connect.persistence_requested;
    if (session->is_kept && !session->keeps_queue && keeps_queue(*session)) session->keep_queue(*engine_);
    const auto* grant = connection.security != nullptr ? connection.security->grant.get() : nullptr;
    if (connect.will && grant != nullptr && !grant->may_publish(connect.will->topic)) {
        // A bridge has it whether it was asked for or not; nothing is lost without it.
        note(connection, client_id, "Publish", connect.will->topic, ReasonCode::not_authorized, "no rule allows it: the bridge is connected without this will");
    } else if (connect.will) {
        auto will = std::make_unique<session::Will>();
        will->message = mqtt::MessageRef(mqtt::Message::make({.topic = connect.will->topic,
                                                              .payload = connect.will->payload,
                                                              .properties = connect.will->properties,
                                                              .partition = {},
                                                              .has_partition = false,
                                                              .retain = connect.will->retain,
                                                              .qos = connect.will->qos,
                                                              .expires_at = 0,
                                                              .publisher = session->publisher()}));
        will->delay_interval = connect.will->delay_interval;
        will->has_expiry = connect.will->message_expiry.has_value();
        will->message_expiry = connect.will->message_expiry.value_or(0);
        session->will = std::move(will);
    }

    connection.session = session;
    connection.state = ConnectionState::connected;
    connection.was_accepted = true;
    if (connection.security != nullptr) watch_expiry(connection);
    connection.is_debug = log::is_debug_client(client_id);
    watch_keep_alive(connection);
    ++figures_.connections_total;

    scratch_.clear();
    // MQTT 3.1 has no session present flag; its byte is reserved.
    mqtt::encode_connack(scratch_, connect.version, session_present && connect.version != Version::v31, ReasonCode::success, properties);
    output(connection).append(scratch_);
    log::debug("broker", "client connected client=\"{}\" peer={} listener={} version={} bridge={} session_present={}", for_log(client_id),
               driver_.peer(connection), connection.listener->resource, static_cast<unsigned>(connect.version), connect.is_bridge, session_present);
    if (session->is_kept) {
        gate(connection);
        keep(*session);
    } else if (was_kept) {
        gate(connection);
        const bool spare = handing_on_.contains(session->client_id());
        session->discard(spare);
        erase_record(*session, spare);
        session->leave_queue(*engine_);
    } else if (const auto ended = ended_.find(client_id); ended != ended_.end()) {
        // That the session before is gone must be so after a crash, too: this turn's commit comes behind that of its end.
        gate(connection);
        erase_record(*session, handing_on_.contains(client_id));
    }   // Who keeps nothing on the disk does not wait for it.
    // What is not allowed any more ends before anything is sent.
    away_.erase(session->id());
    if (session_present) enforce(*session, connection.security != nullptr ? connection.security->grant : nullptr, &connection, true);
    session->attach(connection, queue_limits(), now_, categories_[connection.category].delivery);
    if (session_present) set_members_connected(*session, true);
    connect_trace_.reset();
    return Next::go_on;
}

Core::Next Core::on_disconnect(Connection& connection, const mqtt::Frame& frame) {
    const auto decoded = mqtt::decode_disconnect(frame.flags, frame.body, connection.version);
    if (!decoded) {
        disconnect(connection, decoded.error(), now_);
        return Next::gone;
    }
    if (connection.version == Version::v5 && !mqtt::is_reason_of(mqtt::PacketType::disconnect, decoded->reason, false)) {
        disconnect(connection, Refusal::disconnect_reason_is_unknown, now_);
        return Next::gone;
    }
    if (auto* session = connection.session; session != nullptr && decoded->session_expiry_interval) {
        if (session->expiry_interval == 0 && *decoded->session_expiry_interval != 0) {
            disconnect(connection, Refusal::disconnect_raises_session_expiry, now_);
            return Next::gone;
        }
        session->expiry_interval = std::min(*decoded->session_expiry_interval, config_.session_expiry_max == 0 ? never : config_.session_expiry_max);
    }
    end_connection(connection, decoded->reason != ReasonCode::success);   // [MQTT-3.14.4-3]
    driver_.close(connection);
    return Next::gone;
}

void Core::disconnect(Connection& connection, const Ending& ending, std::int64_t now) {
    now_ = now;
    ++figures_.disconnects[static_cast<std::uint8_t>(ending.reason)];
    // Which version it speaks nobody knows before its CONNECT.
    const auto version = connection.state == ConnectionState::wait_connect ? Version::v5 : connection.version;
    const auto* const waiting = connection.waiting.get();
    const auto asked = waiting != nullptr && !waiting->connect_body.empty() ? asked_for(*waiting) : std::string();
    const bool is_faulty = mqtt::rule_of(ending.refusal).kind != mqtt::FaultKind::other;
    if (connection.state == ConnectionState::wait_auth && (is_faulty || is_about_rights(ending.reason)))
        note(connection, asked, "Authenticate", {}, ending.reason, std::string(ending.text));
    log_ended(connection.session != nullptr ? connection.session->client_id() : asked, driver_.peer(connection),
              connection.listener ? connection.listener->resource : "", version, ending, now);
    // Before CONNACK a server must not send DISCONNECT [MQTT-3.14.0-1]; version 3 has no DISCONNECT from the server.
    if (connection.state == ConnectionState::wait_verdict || connection.state == ConnectionState::wait_auth)
        write_refusal(connection, ending.reason, ending.text);
    if (connection.state == ConnectionState::connected && connection.version == Version::v5) {
        // No Session Expiry Interval: it is the client's alone to change [MQTT-3.14.2-2].
        std::string properties;
        mqtt::write_reason_string(properties, ending.text);
        for (const auto& block : {properties, std::string()}) {
            scratch_.clear();
            const auto told = mqtt::as_reason_of(mqtt::PacketType::disconnect, ending.reason);
            mqtt::encode_disconnect(scratch_, connection.version, told, block);
            if (!fits(connection, scratch_.size())) continue;   // [MQTT-3.14.2-3]
            output(connection).append(scratch_);
            break;
        }
    }
    end_connection(connection, true);
    driver_.close(connection);
}

void Core::on_lost(Connection& connection, std::int64_t now) {
    now_ = now;
    end_connection(connection, true);
}

void Core::end_connection(Connection& connection, bool keep_will) {
    wheel_remove(connection);
    --figures_.connections;
    if (!retrievals_.empty()) retrievals_.erase(&connection);
    connection.state = ConnectionState::closing;
    if (connection.waiting != nullptr && connection.waiting->ticket != 0) {
        waiting_.erase(connection.waiting->ticket);
        forget_waiting(connection.waiting->ticket);
    }
    if (connection.security != nullptr && std::exchange(connection.security->has_expiry, false)) expiries_.erase(connection.security->expiry);
    categories_.drop(std::exchange(connection.category, std::uint16_t{0}), second_);
    auto* session = std::exchange(connection.session, nullptr);
    if (session == nullptr) return;
    session->detach();
    if (std::exchange(session->watches_keys, false)) {
        Mail mail{.kind = Mail::Kind::state_gone, .from = id_};
        mail.body = std::make_unique<Mail::Body>();
        mail.body->publisher = session->client_id();
        if (id_ == 0) state_->forget_client(session->client_id());
        else driver_.post(0, std::move(mail));
    }
    if (!keep_will) session->will.reset();
    if (session->expiry_interval == 0) {
        if (session->will != nullptr) publish_will(*session);
        erase_session(*session);
        return;
    }
    set_members_connected(*session, false);
    remember_away(*session, connection);
    session->ends_at = session->expiry_interval == never ? 0 : now_ + static_cast<std::int64_t>(session->expiry_interval) * 1000;
    if (session->ends_at != 0) start_timer(*session, session->ends_at);
    if (session->will != nullptr) {
        if (session->will->delay_interval == 0) {
            publish_will(*session);
        } else {
            session->will->publish_at = now_ + static_cast<std::int64_t>(session->will->delay_interval) * 1000;
            start_timer(*session, session->will->publish_at);
        }
    }
    if (session->is_kept) keep(*session);
}

void Core::publish_will(Session& session) {
    const auto will = std::move(session.will);
    auto view = will->message->view();
    view.publisher = session.publisher();   // also of a will that was kept on the disk
    auto seconds = will->has_expiry ? will->message_expiry : config_.message_expiry_max;
    if (config_.message_expiry_max != 0) seconds = std::min(seconds, config_.message_expiry_max);
    if (will->has_expiry || seconds != 0) view.expires_at = now_ + static_cast<std::int64_t>(seconds) * 1000;
    mqtt::Outgoing message(view);
    if (session.is_kept && count_ > 1) {
        // Its receivers' batches are others than this one.
        leave({.client_id = session.client_id(), .sequence = view.retain ? next_sequence() : 0, .message = message.share()});
        return;
    }
    if (view.retain) set_retained(message);
    route(message);
}

void Core::erase_record(const Session& session, bool spare_queue) {
    engine_->erase_session(session.client_id(), spare_queue);
    ended_.insert_or_assign(std::string(session.client_id()), engine_->next_ticket());
    ended_until_ = engine_->next_ticket();
}

void Core::erase_session(Session& session) {
    auto shares = shares_of(session);
    for (const auto& subscription : session.subscriptions) remove_subscription(session, subscription);
    if (!shares.empty()) hand_on(session, std::move(shares), true);
    const bool spare = handing_on_.contains(session.client_id());
    session.discard(spare);
    if (session.is_kept) {
        release_all(session.client_id());
        erase_record(session, spare);
    }
    away_.erase(session.id());
    by_id_.erase(session.id());
    if (session.timer_at != 0) timers_.erase({session.timer_at, session.id()});
    sessions_.erase(sessions_.find(session.client_id()));
}

void Core::set_members_connected(Session& session, bool connected) {
    for (const auto& subscription : session.subscriptions) {
        const auto shared = topics::split_shared(subscription.text);
        if (!shared.is_shared) continue;
        index_.set_member_connected(shared.filter, shared.group, session.id(), connected);
        Mail mail{.kind = Mail::Kind::member_connected, .flag = connected, .from = id_, .number = session.id()};
        mail.body = std::make_unique<Mail::Body>();
        mail.body->filter = shared.filter;
        mail.body->group = shared.group;
        broadcast(mail);
    }
}

void Core::count_session(Session& session, const auth::Principal* principal) {
    // The client identifier stands in the session and in its queue; who the client is, in the session and in what its rights are kept for.
    constexpr std::size_t small_names = 512, entries = 320;
    std::size_t names = session.client_id().size() * 2 + (session.owner != nullptr ? session.owner->size() * 4 : 0);
    if (principal != nullptr && principal->method == "Custom" && principal->attributes != nullptr)
        for (const auto& [name, value] : *principal->attributes) names += name.size() + value.size() + 96;
    session.counted.set((session.expiry_interval > 0 ? sizeof(Session) + entries : 0) + (names > small_names ? names : 0));
}

}  // namespace penstock::broker
