// Core's view of who is connected and what it may do: late verdicts, expiry, changed rules, the audit of refusals.
#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "broker/core.h"
#include "crypto/hash.h"
#include "topics/topic.h"

namespace penstock::broker {

using mqtt::ReasonCode;
using mqtt::Refusal;
using session::Session;

namespace {

constexpr std::size_t decisions_max = 500, noted_bytes_max = 256, noted_why_max = 1024;
constexpr std::ptrdiff_t alike_among = 32;   // of the last refusals: one that comes again is looked for there

/// `127.0.0.1` of `127.0.0.1:1234`: a device has a new port with every connection.
std::string_view host_of(std::string_view peer) { return peer.substr(0, peer.rfind(':')); }

}  // namespace

auth::Later Core::later(Connection& connection) {
    return [this, &connection] {
        const auto ticket = next_ticket_++;
        connection.waiting->ticket = ticket;
        waiting_[ticket] = &connection;
        return driver_.completion(ticket);
    };
}

void Core::on_verdict(std::uint64_t ticket, auth::Verdict verdict, std::int64_t now) {
    now_ = now;
    const auto found = waiting_.find(ticket);
    if (found == waiting_.end()) return;   // the client did not wait
    auto& connection = *found->second;
    waiting_.erase(found);
    const auto waiting = std::move(connection.waiting);
    forget_waiting(ticket);
    recheck(connection, *waiting, verdict);
    Next next = Next::gone;
    if (connection.state == ConnectionState::wait_verdict) {
        auto connect = mqtt::decode_connect(waiting->connect_body);
        connecting_ = asked_for(*waiting);
        trace_connect(connection, *connect, waiting->assigned_id.empty() ? connect->client_id : waiting->assigned_id, waiting->began_ns);
        next = apply_verdict(connection, *connect, waiting->assigned_id, waiting->guesser, std::move(verdict));
    } else {
        watch_keep_alive(connection);
        next = end_reauthentication(connection, std::move(verdict));
    }
    if (next != Next::gone) driver_.release(connection);
}

void Core::wait_for_verdict(Connection& connection) {
    wheel_remove(connection);
    wheel_insert(connection, second_ + config_.verdict_timeout + 1);
    driver_.hold(connection);
}

void Core::watch_keep_alive(Connection& connection) {
    wheel_remove(connection);
    if (connection.keep_alive == 0) return;
    connection.last_received = second_;   // nothing was read while its verdict was open
    wheel_insert(connection, second_ + (connection.keep_alive * 3u + 1) / 2 + 1);
}

void Core::refuse_expired(auth::Verdict& verdict) {
    const auto ends = verdict.principal.expires_at;
    if (verdict.kind != auth::Verdict::Kind::accept || ends == 0 || ends > wall_ms()) return;
    verdict = auth::Verdict::refused(ReasonCode::not_authorized, "the credential has expired");
}

void Core::recheck(const Connection& connection, const Connection::Waiting& waiting, auth::Verdict& verdict) const {
    const auto& now_asked = connection.listener->authenticator;
    if (verdict.kind != auth::Verdict::Kind::accept || now_asked == waiting.by || now_asked == nullptr) return;
    const auto chain = connection.tls != nullptr && connection.tls->channel.has_peer_certificate() ? connection.tls->channel.peer_chain() : std::vector<crypto::Certificate>();
    if (auto why = now_asked->review(verdict.principal, chain, wall_ms()); !why.empty()) verdict = auth::Verdict::refused(ReasonCode::not_authorized, std::move(why));
}

void Core::secure(Connection& connection, const std::string& client_id, auth::Principal principal) {
    connection.security = std::make_unique<Security>();
    auto& security = *connection.security;
    security.principal = std::move(principal);
    // The self-test is ours; it must tell whether clients could work, not whether a policy knows it.
    if (connection.listener->policy != nullptr && security.principal.id != "probe") security.grant = connection.listener->policy->resolve(security.principal, client_id);
}

namespace {
bool is_review_next(const auth::Principal& principal) { return principal.review_at != 0 && (principal.expires_at == 0 || principal.review_at < principal.expires_at); }
}  // namespace

void Core::watch_expiry(Connection& connection) {
    auto& security = *connection.security;
    if (std::exchange(security.has_expiry, false)) expiries_.erase(security.expiry);
    const auto& principal = security.principal;
    const bool is_review = is_review_next(principal);
    const auto at = is_review ? principal.review_at : principal.expires_at;
    if (at == 0) return;
    security.expiry = expiries_.emplace(now_ + std::max<std::int64_t>(is_review ? 1000 : 0, at - wall_ms()), &connection);
    security.has_expiry = true;
}

void Core::end_credential(Connection& connection, std::int64_t now) {
    auto& security = *connection.security;
    std::string why = "the credential has expired", told = why + "; authenticate anew";
    if (is_review_next(security.principal)) {
        security.principal.review_at = 0;
        why = told = review(connection);
        if (why.empty()) return watch_expiry(connection);
        ++figures_.rights_revoked;
    } else {
        ++figures_.credentials_expired;
    }
    note(connection, connection.session->client_id(), "Authenticate", security.principal.method, ReasonCode::not_authorized, why);
    const Ending ending(Refusal::credential_is_over, told);
    if (!config_.aio_compatible) return disconnect(connection, ending, now);
    log_ended(connection.session->client_id(), driver_.peer(connection), connection.listener->resource,
              connection.version, ending, now);
    end_connection(connection, true);   // AIO closes without a word to the client (fact sheet 4.4)
    driver_.close(connection);
}

std::string Core::review(Connection& connection) const {
    const auto chain = connection.tls != nullptr && connection.tls->channel.has_peer_certificate() ? connection.tls->channel.peer_chain() : std::vector<crypto::Certificate>();
    return connection.listener->authenticator->review(connection.security->principal, chain, wall_ms());
}

std::string Core::connect_fault(const Connection& connection, const mqtt::ConnectView& connect, std::string_view client_id) const {
    const auto* security = connection.security.get();
    if (const auto found = sessions_.find(client_id); found != sessions_.end() && found->second->owner != nullptr &&
                                                      (security == nullptr || security->principal.id != *found->second->owner))
        return "this client id has a session of another identity; use another client id, or wait until that session expires";
    if (security == nullptr || security->grant == nullptr) return {};
    if (!security->grant->may_connect()) return security->grant->rules().empty() ? "no authorization rule is about this client" : "no authorization rule lets this client connect with this client id";
    // Without its will a bridge does its work all the same: see open_session().
    if (connect.will && !is_bridge_state(connect.will->topic) && !security->grant->may_publish(connect.will->topic)) return "no authorization rule allows publishing to the will topic";
    return {};
}

namespace {

/// What a grant lets its client read. Queues have many messages of few topics, so that the last answer often is the next.
std::shared_ptr<const store::Readable> readable_by(const std::shared_ptr<const auth::Grant>& grant, const std::string& client_id) {
    if (grant == nullptr) return nullptr;
    struct Last {
        std::string topic;
        bool is_readable = false;
    };
    return std::make_shared<const store::Readable>([grant, client_id, last = std::make_shared<Last>()](std::string_view topic) {
        if (topic == last->topic) return last->is_readable;
        // What the state store tells about a key comes without a subscription; the right to the key is what counts.
        const auto key = topic.starts_with(statestore::notify_prefix) ? statestore::notified_key(topic, client_id) : std::nullopt;
        last->topic = topic;
        return last->is_readable = key ? grant->may_use_key(auth::Action::read_key, *key) : grant->may_subscribe(topic);
    });
}

}  // namespace

void Core::enforce(Session& session, const std::shared_ptr<const auth::Grant>& grant, const Connection* connection, bool resumes) {
    std::vector<store::Share> shares;
    if (grant != nullptr) {
        session.subscriptions.erase_if([&](const session::Subscription& subscription) {
            const auto shared = topics::split_shared(subscription.text);
            const auto filter = shared.filter;
            if (grant->may_subscribe(filter)) return false;
            ++figures_.rights_revoked;
            if (connection != nullptr) note(*connection, session.client_id(), "Subscribe", filter, ReasonCode::not_authorized, "the rules changed: no rule covers this filter any more, the subscription ended");
            log::info("broker", "subscription ended client=\"{}\" filter=\"{}\" why=\"no authorization rule covers it any more\"", for_log(session.client_id()), for_log(filter));
            if (const auto number = shared.is_shared ? share_of(session, shared) : 0; number != 0) shares.push_back({.number = number, .filter = std::string(filter), .group = std::string(shared.group)});
            remove_subscription(session, subscription);
            if (session.is_kept) engine_->erase_subscription(session.client_id(), subscription.text);
            return true;
        });
        drop_forbidden_will(session, *grant);
    }
    // What waits by a shared subscription is for others who may have it.
    if (!shares.empty()) hand_on(session, std::move(shares), resumes);
    const auto dropped = session.set_readable(readable_by(grant, session.client_id()), resumes);
    if (dropped == 0) return;
    figures_.withdrawn_messages += dropped;
    if (connection != nullptr) note(*connection, session.client_id(), "Subscribe", {}, ReasonCode::not_authorized, fmt::format("{} messages that waited were dropped: no rule lets the client read their topics any more", dropped));
    log::info("broker", "waiting messages dropped client=\"{}\" count={} why=\"no authorization rule lets the client read their topics any more\"", for_log(session.client_id()), dropped);
}

void Core::drop_forbidden_will(Session& session, const auth::Grant& grant) {
    if (session.will == nullptr || grant.may_publish(session.will->message->view().topic)) return;
    ++figures_.rights_revoked;
    log::info("broker", "will dropped client=\"{}\" topic=\"{}\" why=\"no authorization rule allows it any more\"", for_log(session.client_id()), for_log(session.will->message->view().topic));
    session.will.reset();
    if (session.is_kept) keep(session);
}

void Core::remember_away(Session& session, const Connection& connection) {
    // Of a client that nobody asked who it is, what it may do counts for its will alone.
    if (connection.security == nullptr ? session.will == nullptr || session.will->delay_interval == 0 : connection.security->principal.id == "probe") return;
    by_id_[session.id()] = &session;
    away_[session.id()] = {connection.listener, connection.security != nullptr ? connection.security->principal : auth::Principal{}};
}

void Core::enforce_away(std::uint64_t id, const Away& away) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end() || found->second->link() != nullptr) return;
    auto& session = *found->second;
    const auto& rules = *away.listener;
    enforce(session, rules.authenticator != nullptr && rules.policy != nullptr ? rules.policy->resolve(away.principal, session.client_id()) : nullptr, nullptr, true);
}

void Core::on_port_rules(const std::shared_ptr<const ListenerConfig>& before, const std::shared_ptr<const ListenerConfig>& after, std::int64_t now) {
    now_ = now;
    if (before->tls != after->tls)
        uncovered_.erase(fmt::format("{}:{}", after->resource, after->port));
    for (auto& [id, away] : away_) {
        if (away.listener != before) continue;
        away.listener = after;
        if (before->policy != after->policy || before->authenticator != after->authenticator) enforce_away(id, away);
    }
}

void Core::on_port_added(const std::shared_ptr<const ListenerConfig>& port, std::int64_t now) {
    if (away_.empty()) return;
    now_ = now;
    for (auto& [id, away] : away_) {
        const auto& known = *away.listener;
        if (away.listener == port || known.resource != port->resource || (known.port != 0 && known.port != port->port)) continue;
        away.listener = port;
        enforce_away(id, away);
    }
}

void Core::on_port_removed(const std::shared_ptr<const ListenerConfig>& port) {
    std::shared_ptr<ListenerConfig> closed;
    for (auto& [id, away] : away_) {
        if (away.listener != port) continue;
        if (closed == nullptr) {
            closed = std::make_shared<ListenerConfig>();
            closed->resource = port->resource;
        }
        away.listener = closed;
    }
}

void Core::note_uncovered(const Connection& connection, const std::string& name) {
    constexpr std::size_t names_max = 8, ports_max = 100;
    const auto key = fmt::format("{}:{}", connection.listener->resource, connection.listener->port);
    if (name.size() > 253 || (!uncovered_.contains(key) && uncovered_.size() >= ports_max)) return;
    if (auto& names = uncovered_[key]; names.size() < names_max) names.insert(printable(name));   // SNI is whatever bytes a stranger sends
}

void Core::on_rules(Connection& connection, const std::shared_ptr<const ListenerConfig>& listener, std::int64_t now) {
    now_ = now;
    const auto before = std::exchange(connection.listener, listener);
    const bool same_authentication = before->authenticator == listener->authenticator, same_policy = before->policy == listener->policy;
    if (connection.state != ConnectionState::connected || (same_authentication && same_policy)) return;
    auto end = [&](const std::string& why) {
        ++figures_.rights_revoked;
        note(connection, connection.session->client_id(), "Connect", {}, ReasonCode::not_authorized, "the rules changed: " + why);
        // The end of the connection is no way to publish what the client may not publish.
        if (listener->policy != nullptr) drop_forbidden_will(*connection.session, *listener->policy->resolve(connection.security != nullptr ? connection.security->principal : auth::Principal{}, connection.session->client_id()));
        const auto id = connection.session->id();
        disconnect(connection, {Refusal::rules_changed, "the rules changed: " + why}, now);
        if (const auto away = away_.find(id); away != away_.end()) enforce_away(id, away->second);
    };
    if (listener->authenticator == nullptr) {
        connection.session->set_readable(nullptr, false);
        // Everybody may connect now; nobody is anybody.
        if (connection.security != nullptr && std::exchange(connection.security->has_expiry, false)) expiries_.erase(connection.security->expiry);
        connection.security.reset();
        return;
    }
    if (connection.security == nullptr) return end("this port asks who its clients are now");
    auto& security = *connection.security;
    if (!same_authentication) {
        if (const auto why = review(connection); !why.empty()) return end(why);
        watch_expiry(connection);
    }
    if (security.principal.id == "probe") return;
    auto& session = *connection.session;
    security.grant = listener->policy != nullptr ? listener->policy->resolve(security.principal, session.client_id()) : nullptr;
    security.last_topic.clear();
    for (auto& [topic, allowed] : security.topics) allowed = security.grant == nullptr || security.grant->may_publish(topic);
    if (security.grant != nullptr && !security.grant->may_connect()) return end("no authorization rule lets this client connect");
    enforce(session, security.grant, &connection, false);
}

// --- audit ---

void Core::note(const Connection& connection, std::string_view client_id, const char* action,
                std::string_view target, ReasonCode reason, std::string why, std::string_view claimed_user) {
    const auto peer = driver_.peer(connection);
    const auto wall = wall_ms();
    client_id = clipped(client_id, noted_bytes_max);
    target = clipped(target, noted_bytes_max);
    why.resize(clipped(why, noted_why_max).size());
    const auto* security = connection.security.get();
    const auto known =
        security != nullptr ? std::string_view(security->principal.user_name) : std::string_view();
    const auto user = clipped(known.empty() ? claimed_user : known, noted_bytes_max);
    // A client that repeats itself is one entry with a count; without a name it is known by its address, and
    // two devices with one name are two.
    const auto end = decisions_.rbegin() + std::min(std::ssize(decisions_), alike_among);
    const auto last = std::find_if(decisions_.rbegin(), end, [&](const Decision& d) {
        return d.client_id == client_id && d.user_name == user && d.action == action && d.target == target &&
               d.why == why && host_of(d.peer) == host_of(peer) &&
               d.listener == connection.listener->resource;
    });
    if (last != end) {
        last->wall_ms = wall;
        last->peer = peer;
        ++last->count;
        return;
    }
    if (decisions_.size() >= decisions_max) decisions_.pop_front();
    decisions_.push_back({.wall_ms = wall,
                          .client_id = std::string(client_id),
                          .user_name = std::string(user),
                          .peer = peer,
                          .listener = connection.listener->resource,
                          .method = security != nullptr ? security->principal.method : "",
                          .action = action,
                          .target = std::string(target),
                          .reason = static_cast<std::uint8_t>(reason),
                          .why = std::move(why)});
}

void Core::note_refusal(const Connection& connection, const char* action, std::string why) { note(connection, "", action, {}, ReasonCode::not_authorized, std::move(why)); }

std::vector<ClientView> Core::clients() {
    std::vector<ClientView> out;
    for (const auto& [id, session] : sessions_) {
        const auto* connection = static_cast<const Connection*>(session->link());
        if (connection == nullptr || connection->security == nullptr) continue;
        const auto& security = *connection->security;
        if (security.principal.id == "probe") continue;
        ClientView view{.client_id = std::string(id), .listener = connection->listener->resource, .peer = driver_.peer(*connection), .version = connection->version == mqtt::Version::v5 ? "5.0" : connection->version == mqtt::Version::v311 ? "3.1.1" : "3.1",
                        .principal = security.principal, .restricted = security.grant != nullptr};
        for (const auto& subscription : session->subscriptions) view.subscriptions.emplace_back(topics::split_shared(subscription.text).filter);
        for (const auto& [topic, allowed] : security.topics)
            if (allowed) view.topics.push_back(topic);
        out.push_back(std::move(view));
    }
    return out;
}

// --- guessing ---

Connection::Guesser Core::guesser_of(std::string network, std::string_view client_id, std::string_view user_name) {
    auto device = crypto::sha256(fmt::format("{}:{}{}:{}{}", network.size(), network, client_id.size(), client_id, user_name));
    auto account = crypto::sha256(fmt::format("{}:{}{}", network.size(), network, user_name));
    return {.network = std::move(network), .account = std::move(account), .device = std::move(device)};
}

bool Core::is_throttled(const Connection::Guesser& guesser) {
    if (failures_.empty()) return false;
    if (known_.contains(guesser.device)) return failures_.is_over(guesser.device, of_network, now_);
    return failures_.is_over(guesser.device, of_device, now_) || failures_.is_over(guesser.network, of_network, now_);
}

void Core::count_failure(const Connection::Guesser& guesser) {
    if (known_.contains(guesser.device)) {
        failures_.count(guesser.device, of_network, now_);
        return;
    }
    failures_.count(guesser.device, of_device, now_);
    failures_.count(guesser.network, of_network, now_);
}

void Core::end_throttled(const Connection::Guesser& guesser) {
    if (!is_throttled(guesser)) return;
    for (const auto ticket : waiting_connects_.of(guesser.network)) {
        const auto found = waiting_.find(ticket);
        if (found == waiting_.end() || !is_throttled(found->second->waiting->guesser)) continue;
        ++figures_.throttled;
        refuse_waiting(*found->second, Refusal::too_many_failures);
    }
}

void Core::refuse_waiting(Connection& connection, const Ending& ending) {
    // Who looks at it sees that nobody waits any more.
    const auto waiting = std::move(connection.waiting);
    waiting_.erase(waiting->ticket);
    forget_waiting(waiting->ticket);
    const auto connect = mqtt::decode_connect(waiting->connect_body);
    connecting_ = asked_for(*waiting);
    note(connection, connecting_, "Authenticate", {}, ending.reason, std::string(ending.text),
         connect->user_name.value_or(""));
    refuse(connection, ending, true);
}

}  // namespace penstock::broker
