#include "broker/core.h"

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/stable_hash.h"
#include "topics/topic.h"

namespace penstock::broker {

using mqtt::PacketType;
using mqtt::Qos;
using mqtt::ReasonCode;
using mqtt::Refusal;
using mqtt::Version;
using session::Session;

namespace {
constexpr std::uint32_t connect_packet_max = 512 * 1024;   // a CONNECT has at most five fields of 64 KiB and its properties
constexpr std::size_t recent_topics_max = 64, remembered_topic_max = 512, recent_topic_bytes_max = 8192;   // of one client
constexpr std::size_t subscriptions_max = 100'000;         // of one client
constexpr std::uint32_t shares_max = 0xFFFF'FFFF;          // shared subscriptions of one session in all its life; a number is given once
constexpr std::uint32_t control_packet_max = 1u << 20;     // bytes of a packet that is no PUBLISH
constexpr std::size_t subscription_bytes_max = 8u << 20;   // of their filters
constexpr std::int64_t match_cache_min = 1 << 20, match_cache_max = 16 << 20;   // bytes of a worker, by the size of the pool
constexpr std::size_t pressure_look = 256;                 // deliveries of one message between two looks at the pool
constexpr std::string_view selftest_prefix = "azedge/dmqtt/selftest/";

/// Why version 3 is closed for a filter: it has no other answer; version 5 refuses each filter for itself.
std::optional<Refusal> filter_fault(std::string_view filter) {
    if (topics::is_well_formed_filter(filter)) return std::nullopt;
    if (filter.empty()) return Refusal::filter_is_empty;
    // Without its + a filter that is still faulty has its fault in a #.
    std::string rest(filter);
    std::ranges::replace(rest, '+', 'x');
    const bool was_plus = topics::is_well_formed_filter(rest);
    return was_plus ? Refusal::filter_has_plus_within : Refusal::filter_has_hash_within;
}

}  // namespace

void log_ended(std::string_view client, std::string_view peer, std::string_view listener,
               Version version, const Ending& ending, std::int64_t now) {
    static log::RateLimit limit(10);
    std::uint64_t suppressed = 0;
    const char* module = is_about_rights(ending.reason) ? "auth" : "broker";
    if (!log::enabled(module, log::Level::info) || !limit.allow(now, suppressed)) return;
    const auto statement = mqtt::statement_of(ending.refusal, version);
    log::info(module,
              "connection ended client=\"{}\" peer={} listener={} reason={} (0x{:02X}){}{} why=\"{}\"{}",
              for_log(client), peer, listener, mqtt::reason_name(ending.reason),
              static_cast<unsigned>(ending.reason), statement.empty() ? "" : " statement=", statement,
              clipped(ending.text, logged_why_max),
              suppressed > 0 ? fmt::format(" suppressed={}", suppressed) : "");
}

Core::Core(std::uint32_t id, std::uint32_t count, Driver& driver, Shared& shared, std::unique_ptr<store::Engine> engine, store::OverflowLane* overflow)
    : id_(id), count_(count), driver_(driver), shared_(shared), engine_(std::move(engine)), durable_(engine_->is_durable()), cleared_(id, count), overflow_(overflow), categories_(shared.categories) {
    if (overflow_ != nullptr)
        overflow_->on_ready = [this](const std::string& client_id) {
            // Not here: it may end the queue that calls.
            hands_on_at_once_ |= handing_on_.contains(client_id);
            auto* session = find_session(client_id);
            if (session == nullptr) return;
            watch_queue(*session);
            if (auto* link = static_cast<Connection*>(session->link()); link != nullptr) on_room(*link, now_);
        };
    if (id_ != 0) return;
    state_ = std::make_unique<statestore::StateStore>(state_writer(), config_.state_keys_max);
}

void Core::configure(const BrokerConfig& config) {
    const bool policy_changed = durable_ && config_.persistence != config.persistence;
    config_ = config;
    if (policy_changed) keep_more_queues();
    if (state_ != nullptr) state_->set_keys_max(config.state_keys_max);
    spans_.set_capacity(config.span_capacity);
    index_.set_cache_max(static_cast<std::size_t>(std::clamp(config.pool_bytes / 16, match_cache_min, match_cache_max)));
}

Core::~Core() = default;

std::uint32_t Core::home_of(std::string_view client_id, std::uint32_t count) noexcept { return stable_share(client_id, count); }

Session* Core::find_session(std::string_view client_id) noexcept {
    const auto found = sessions_.find(client_id);
    return found == sessions_.end() ? nullptr : found->second.get();
}

session::QueueLimits Core::queue_limits() const noexcept {
    return {.length = config_.queue_length_max, .bytes = config_.queue_bytes_max, .drop_oldest = config_.queue_drop_oldest,
            .qos0_bytes = static_cast<std::size_t>(std::max<std::int64_t>(1 << 20, config_.pool_bytes / 16)),
            .overflows = config_.overflow_bytes > 0 && shared_.pool_used() * 2 > config_.pool_bytes,
            .out_high_water = high_water_};
}

void Core::watch_queue(Session& session) {
    const auto next = session.next_end();
    if (next == 0) return;
    const auto second = std::max(static_cast<std::uint32_t>((next + 999) / 1000), expired_ + 1);
    if (session.looked_at != 0 && session.looked_at <= second) return;
    session.looked_at = second;
    by_id_[session.id()] = &session;
    auto& slot = expiring_[second % expiring_.size()];
    slot.push_back(session.id());
    // Messages that come with ever shorter lives put their session here each time.
    if (slot.size() == slot.capacity() && slot.size() >= 1024) {
        std::ranges::sort(slot);
        slot.erase(std::ranges::unique(slot).begin(), slot.end());
    }
}

void Core::settle_overflow(std::int64_t now) {
    if (overflow_ == nullptr) return;
    now_ = now;
    overflow_->settle();
}

// --- data in ---

void Core::on_accepted(Connection& connection, std::int64_t now) {
    now_ = now;
    second_ = static_cast<std::uint32_t>(now / 1000);
    ++figures_.connections;
    connection.last_received = second_;
    wheel_insert(connection, second_ + config_.connect_timeout);
}

std::uint32_t Core::packet_max(const Connection& connection) const noexcept {
    if (connection.state != ConnectionState::connected)
        return std::min(config_.packet_size_max, connect_packet_max);
    return std::max(config_.packet_size_max, connection.told_packet_size);
}

std::size_t Core::on_data(Connection& connection, std::string_view bytes, std::int64_t now) {
    now_ = now;
    second_ = static_cast<std::uint32_t>(now / 1000);
    connection.last_received = second_;
    look_at_pressure();
    std::size_t at = 0;
    while (at < bytes.size()) {
        mqtt::Frame frame;
        const bool is_publish = (static_cast<unsigned char>(bytes[at]) >> 4) == static_cast<unsigned>(PacketType::publish);
        const auto state = mqtt::cut_frame(bytes.substr(at), is_publish ? packet_max(connection) : std::min(packet_max(connection), control_packet_max), frame);
        if (state == mqtt::FrameState::need_more) break;
        if (state == mqtt::FrameState::malformed) {
            disconnect(connection, Refusal::length_is_long, now);
            return gone;
        }
        if (state == mqtt::FrameState::too_large) {
            const bool was_told =
                connection.told_packet_size != 0 && frame.size > connection.told_packet_size;
            disconnect(connection,
                       was_told ? Refusal::packet_is_too_large : Refusal::packet_is_over_a_limit, now);
            return gone;
        }
        ++figures_.packets_received;
        const auto next = on_frame(connection, frame, bytes.substr(at));
        if (next == Next::gone) return gone;
        if (next == Next::stop) break;
        at += frame.size;
        if (next == Next::hold) break;
        // These are answers themselves, nothing is sent for them, and they make room.
        if (frame.type == PacketType::puback || frame.type == PacketType::pubcomp) continue;
        if (is_stuffed(connection)) {
            // Who asks without reading is not listened to: TCP holds it back, and memory stays bounded.
            connection.is_stuffed = true;
            driver_.pause(connection);
            break;
        }
    }
    figures_.bytes_received += at;
    return at;
}

Core::Next Core::on_frame(Connection& connection, const mqtt::Frame& frame, std::string_view rest) {
    if (connection.is_debug)
        log::write("broker", log::Level::debug,
                   log::line("packet received client=\"{}\" type={} bytes={}", connection.session ? for_log(connection.session->client_id()) : "",
                               static_cast<unsigned>(frame.type), frame.size));
    if (frame.is_padded && connection.version == Version::v5 && connection.state != ConnectionState::wait_connect) {
        disconnect(connection, Refusal::length_is_padded, now_);
        return Next::gone;
    }
    if (connection.state == ConnectionState::wait_connect) return on_first(connection, frame, rest);
    if (connection.state == ConnectionState::wait_auth && frame.type != PacketType::auth && frame.type != PacketType::disconnect) {
        disconnect(connection, Refusal::only_auth_may_follow, now_);
        return Next::gone;
    }
    switch (frame.type) {
        case PacketType::publish: return on_publish(connection, frame);
        case PacketType::puback:
        case PacketType::pubrec:
        case PacketType::pubrel:
        case PacketType::pubcomp: return on_ack(connection, frame);
        case PacketType::subscribe: return on_subscribe(connection, frame);
        case PacketType::unsubscribe: return on_unsubscribe(connection, frame);
        case PacketType::pingreq:
            if (frame.flags != 0 && connection.version != Version::v31) {
                disconnect(connection, Refusal::flags_are_reserved, now_);
                return Next::gone;
            }
            if (!frame.body.empty()) {
                disconnect(connection, Refusal::bytes_are_left, now_);
                return Next::gone;
            }
            output(connection).append(std::string_view("\xD0\x00", 2));
            return Next::go_on;
        case PacketType::disconnect: return on_disconnect(connection, frame);
        case PacketType::auth:
            if (connection.version == Version::v5) return on_auth(connection, frame);
            break;
        case PacketType::connect:
            disconnect(connection, Refusal::second_connect, now_);
            return Next::gone;
        case PacketType::reserved:
            disconnect(connection, Refusal::packet_type_is_reserved, now_);
            return Next::gone;
        default: break;
    }
    disconnect(connection, Refusal::packet_is_not_for_servers, now_);
    return Next::gone;
}

void Core::send_ack(Connection& connection, PacketType type, std::uint16_t packet_id, ReasonCode reason, std::string_view text) {
    // A refusal promises nothing, nor does the end of what is kept nowhere: while the disk takes no writes, they must not wait for what
    // this turn gave it to do.
    if (type == PacketType::pubcomp ? connection.session->is_kept : static_cast<std::uint8_t>(reason) < 0x80) gate(connection);
    auto& out = output(connection);
    if (connection.version != Version::v5 || reason == ReasonCode::success) {
        char* at = out.grow(4);
        at[0] = static_cast<char>(static_cast<unsigned>(type) << 4 | (type == PacketType::pubrel ? 2u : 0u));
        at[1] = 2;
        at[2] = static_cast<char>(packet_id >> 8);
        at[3] = static_cast<char>(packet_id);
        return;
    }
    scratch_.clear();
    std::string properties;
    if (!text.empty() && connection.problem_information) mqtt::write_reason_string(properties, text);
    mqtt::encode_ack(scratch_, type, connection.version, packet_id, reason, properties);
    if (!fits(connection, scratch_.size())) {
        scratch_.clear();   // the reason string must not make the packet too large [MQTT-3.4.2-2]
        mqtt::encode_ack(scratch_, type, connection.version, packet_id, reason);
    }
    out.append(scratch_);
}

Core::Next Core::on_publish(Connection& connection, const mqtt::Frame& frame) {
    auto decoded = mqtt::decode_publish(frame.flags, frame.body, connection.version, true);
    std::optional<PacketTrace> trace;
    auto fault = [&](Refusal refusal) {
        if (trace) trace->fail(mqtt::rule_of(refusal).text);
        disconnect(connection, refusal, now_);
        return Next::gone;
    };
    if (!decoded) return fault(decoded.error());
    auto& publish = *decoded;
    if (!publish.trace_parent.empty())
        if (const auto parent = traced(publish.trace_parent)) {
            trace.emplace(spans_, *parent, "Publish", monotonic_ns());
            trace->note("messaging.client.id", connection.session->client_id());
            trace->note("mqtt.qos", std::to_string(static_cast<int>(publish.qos)));
            trace->note("messaging.message.body.size", std::to_string(publish.payload.size()));
        }
    auto& session = *connection.session;
    auto& category = categories_[connection.category];

    if (publish.topic_alias != 0) {
        const auto maximum = connection.told_alias_maximum;
        if (publish.topic_alias > maximum)
            return fault(maximum == 0 ? Refusal::topic_alias_is_not_taken
                                      : Refusal::topic_alias_is_over_maximum);
        if (connection.aliases == nullptr) connection.aliases = std::make_unique<session::Link::Aliases>();
        auto& known = connection.aliases->incoming;
        if (known.size() < publish.topic_alias) known.resize(publish.topic_alias);
        auto& name = known[publish.topic_alias - 1u];
        if (publish.topic.empty()) {
            if (name.empty()) return fault(Refusal::topic_alias_is_not_set);
            publish.topic = name;
        } else if (name != publish.topic) {
            const bool grows = publish.topic.size() > name.size();
            auto& counted = connection.aliases->incoming_bytes;
            counted.set(counted.bytes() - name.size() + publish.topic.size());
            name = publish.topic;
            if (grows && shared_.pool_used() > config_.pool_bytes) return fault(Refusal::pool_is_full);
        }
    } else if (publish.topic.empty()) {
        return fault(Refusal::topic_is_empty);
    }
    if (trace) trace->note("messaging.destination.name", publish.topic);
    if (!topics::is_valid_name(publish.topic))
        return fault(topics::has_wildcard(publish.topic) ? Refusal::topic_has_wildcard
                                                         : Refusal::topic_is_too_deep);
    if (!publish.response_topic.empty() && topics::has_wildcard(publish.response_topic))
        return fault(Refusal::response_topic_has_wildcard);
    if (connection.told_aio && publish.qos == Qos::exactly_once)
        return fault(Refusal::qos_is_not_supported);

    const bool repeated = publish.qos == Qos::exactly_once && session.has_incoming(publish.packet_id);
    const auto open_max =
        connection.version == Version::v5 ? config_.receive_maximum : config_.open_identifiers_max_v3;
    // Version 3 is not told. Its PUBREL would come behind this very packet, so that waiting for it with the
    // packet unread would never end; with what it resumes it may go on.
    if (publish.qos == Qos::exactly_once && !repeated && session.incoming_count() >= open_max)
        return fault(Refusal::too_many_open_qos_2);

    const auto ack_type = publish.qos == Qos::exactly_once ? PacketType::pubrec : PacketType::puback;
    auto answer = [&](ReasonCode reason, std::string_view text = {}) {
        if (trace && static_cast<std::uint8_t>(reason) >= 0x80) trace->fail(text);
        if (trace) trace->step("respond_and_ack");
        if (publish.qos != Qos::at_most_once) send_ack(connection, ack_type, publish.packet_id, reason, text);
        return Next::go_on;
    };
    if (repeated) return answer(ReasonCode::success);

    ++category.publishes_received;
    category.payload_bytes_received += publish.payload.size();

    if (trace) {
        trace->step("check_backpressure");
        trace->note_step("current_read_buffer_pool_usage", std::to_string(shared_.pool_used()));
    }
    // Memory: above three quarters of the pool nothing new is taken, unless it is urgent and that is allowed; and that only until it is full.
    if (publish.high_priority && config_.high_priority_passes ? is_full() : under_pressure()) {
        const bool disk_full = overflow_ != nullptr && overflow_->is_full();
        ++(disk_full ? figures_.rejected_disk : figures_.rejected_memory);
        if (publish.qos == Qos::at_most_once) {
            ++category.qos0_dropped_incoming;
            return Next::go_on;
        }
        if (connection.version == Version::v5) return answer(ReasonCode::quota_exceeded, disk_full ? "memory and the disk buffer are full; retry later" : "the message pool is above 75 %; retry later");
        // Version 3 has no way to say no: the client waits, TCP holds it back, nothing is lost.
        driver_.pause(connection);
        --category.publishes_received;
        category.payload_bytes_received -= publish.payload.size();
        return Next::stop;
    }
    if (trace) trace->step("get_pub_authz_context");
    if (is_own(publish.topic)) {
        ++category.authorization_deny;
        if (publish.qos == Qos::exactly_once && connection.version != Version::v5) session.begin_incoming(publish.packet_id);
        return answer(connection.version == Version::v5 ? ReasonCode::not_authorized : ReasonCode::success, "$SYS belongs to the server");
    }
    if (connection.security != nullptr && !may_publish(connection, publish.topic)) {
        ++category.authorization_deny;
        note(connection, session.client_id(), "Publish", publish.topic, ReasonCode::not_authorized, "no rule allows it");
        // Version 3 has no way to say it: the message is acknowledged and goes nowhere.
        if (publish.qos == Qos::exactly_once && connection.version != Version::v5) session.begin_incoming(publish.packet_id);
        return answer(connection.version == Version::v5 ? ReasonCode::not_authorized : ReasonCode::success, "no rule allows publishing to this topic");
    }
    if (connection.security != nullptr) ++category.authorization_allow;
    if (publish.payload_is_utf8 && !mqtt::is_well_formed_utf8(publish.payload)) {
        if (publish.qos == Qos::at_most_once) return fault(Refusal::payload_is_not_as_indicated);
        const auto& rule = mqtt::rule_of(Refusal::payload_is_not_as_indicated);
        return answer(rule.reason, rule.text);
    }

    // What cannot be kept is not taken; QoS 0 promises nothing.
    if (durable_ && publish.qos != Qos::at_most_once && engine_->fault() != nullptr) {
        ++figures_.rejected_disk;
        if (connection.version == Version::v5) return answer(ReasonCode::quota_exceeded, engine_->fault());
        driver_.pause(connection);
        --category.publishes_received;
        category.payload_bytes_received -= publish.payload.size();
        return Next::stop;
    }
    if (publish.topic.size() == statestore::request_topic.size() && publish.topic == statestore::request_topic) return on_state_request(connection, publish);
    if (trace) trace->step("dispatch_publishes");
    mqtt::MessageView view{.topic = publish.topic,
                           .payload = publish.payload,
                           .properties = publish.properties,
                           .partition = publish.partition,
                           .has_partition = publish.has_partition,
                           .retain = publish.retain,
                           .qos = publish.qos,
                           .expires_at = 0,
                           .publisher = session.publisher()};
    std::string forwarded;
    if (publish.has_volatile_properties) {
        mqtt::copy_forwarded_properties(publish.properties, forwarded);
        view.properties = forwarded;
    }
    if (publish.has_expiry || config_.message_expiry_max != 0) {
        auto seconds = publish.has_expiry ? publish.message_expiry : config_.message_expiry_max;
        if (config_.message_expiry_max != 0) seconds = std::min(seconds, config_.message_expiry_max);
        view.expires_at = now_ + static_cast<std::int64_t>(seconds) * 1000;
    }
    mqtt::Outgoing message(view);
    const bool exactly_once = publish.qos == Qos::exactly_once && durable_ && session.is_kept;
    Origin origin{.publisher = session.client_id(), .packet_id = publish.packet_id, .dup = publish.dup};
    // Without DUP it is another message with an identifier that became free.
    if (exactly_once && !publish.dup && !had_.empty()) release(session.client_id(), publish.packet_id, false);
    if (publish.qos == Qos::exactly_once) session.begin_incoming(publish.packet_id);
    if (exactly_once) origin_ = &origin;
    if (publish.retain) set_retained(message);
    const bool matched = route(message);
    origin_ = nullptr;
    if (exactly_once) {
        if (!origin.went_elsewhere) {
            engine_->put_incoming(session.client_id(), publish.packet_id);
        } else {
            // Here and elsewhere are different batches. That it was received is written once it is on disk everywhere; a crash in
            // between lets the client send it again, and who has it already does not take it twice.
            by_id_[session.id()] = &session;
            received_.push_back({.ticket = engine_->next_ticket(), .session = session.id(), .packet_id = publish.packet_id, .reason = matched ? ReasonCode::success : ReasonCode::no_matching_subscribers});
            return Next::go_on;
        }
    }
    if (publish.qos == Qos::at_most_once) return Next::go_on;
    return answer(matched ? ReasonCode::success : ReasonCode::no_matching_subscribers);
}

Core::Next Core::on_ack(Connection& connection, const mqtt::Frame& frame) {
    const auto decoded = mqtt::decode_ack(frame.type, frame.flags, frame.body, connection.version);
    if (!decoded) {
        disconnect(connection, decoded.error(), now_);
        return Next::gone;
    }
    auto& session = *connection.session;
    auto& counts = categories_[connection.category].delivery;
    output(connection);
    if (session.is_kept) gate(connection);
    bool in_order = true;
    switch (frame.type) {
        case PacketType::puback: in_order = session.on_puback(decoded->packet_id); break;
        case PacketType::pubrec: in_order = session.on_pubrec(decoded->packet_id, decoded->reason); break;
        case PacketType::pubcomp: in_order = session.on_pubcomp(decoded->packet_id); break;
        default:
            // PUBREL: an unknown identifier is answered too, so that a client that lost our PUBCOMP can go on.
            const bool known = session.end_incoming(decoded->packet_id);
            if (known && session.is_kept) engine_->erase_incoming(session.client_id(), decoded->packet_id);
            if (session.is_kept) release(session.client_id(), decoded->packet_id, !known);
            send_ack(connection, PacketType::pubcomp, decoded->packet_id, known ? ReasonCode::success : ReasonCode::packet_identifier_not_found);
            return Next::go_on;
    }
    if (!in_order) {
        disconnect(connection, Refusal::acknowledgement_is_out_of_order, now_);
        return Next::gone;
    }
    session.pump(queue_limits(), now_, counts);
    return Next::go_on;
}

Core::Next Core::on_subscribe(Connection& connection, const mqtt::Frame& frame) {
    const auto decoded = mqtt::decode_subscribe(frame.flags, frame.body, connection.version);
    auto fault = [&](const Ending& ending) {
        disconnect(connection, ending, now_);
        return Next::gone;
    };
    if (!decoded) return fault(decoded.error());
    const auto& subscribe = *decoded;
    if (connection.told_aio && subscribe.subscription_id != 0)
        return fault(Refusal::subscription_ids_are_not_supported);
    for (const auto& entry : subscribe.entries) {
        const auto shared = topics::split_shared(entry.filter);
        if (entry.no_local && shared.is_shared) return fault(Refusal::no_local_is_shared);
        if (connection.version == Version::v5) continue;
        if (const auto refusal = filter_fault(entry.filter)) return fault(*refusal);
    }
    if (!fits(connection, mqtt::suback_size(PacketType::suback, connection.version, subscribe.entries.size())))
        return fault({Refusal::answer_is_too_large,
                      "SUBACK for so many filters is larger than the client's maximum packet size"});

    auto& session = *connection.session;
    std::optional<PacketTrace> trace;
    if (const auto parent = traced(subscribe.trace_parent)) {
        trace.emplace(spans_, *parent, "Subscribe", monotonic_ns());
        trace->note("messaging.client.id", session.client_id());
        trace->note("messaging.destination.name", subscribe.entries.front().filter);
    }
    ++figures_.subscribes;
    std::vector<ReasonCode> reasons;
    struct Retrieve {
        std::string_view filter;
        topics::Options options;
    };
    std::vector<Retrieve> retrieve;
    for (const auto& entry : subscribe.entries) {
        const auto shared = topics::split_shared(entry.filter);
        if (!shared.is_valid || !topics::is_valid_filter(shared.filter)) {
            reasons.push_back(ReasonCode::topic_filter_invalid);
            continue;
        }
        if (connection.security != nullptr && connection.security->grant != nullptr) {
            auto& category = categories_[connection.category];
            if (!connection.security->grant->may_subscribe(shared.filter)) {
                ++category.authorization_deny;
                note(connection, session.client_id(), "Subscribe", shared.filter, ReasonCode::not_authorized, "no rule covers this filter");
                reasons.push_back(ReasonCode::not_authorized);
                continue;
            }
            ++category.authorization_allow;
        }
        const auto qos = config_.aio_compatible ? std::min<std::uint8_t>(1, static_cast<std::uint8_t>(entry.qos)) : static_cast<std::uint8_t>(entry.qos);
        // What version 5 says in the options, a bridge of version 3 says of all its subscriptions.
        const bool is_bridge = connection.is_bridge && connection.version != Version::v5;
        const topics::Options options{.qos = qos,
                                      .no_local = is_bridge ? !shared.is_shared : entry.no_local,
                                      .retain_as_published = is_bridge || entry.retain_as_published,
                                      .id = subscribe.subscription_id};
        reasons.push_back(static_cast<ReasonCode>(qos));
        auto* known = session.subscriptions.find(entry.filter);
        const bool is_new = known == nullptr;
        if (is_new && (session.subscriptions.size() >= subscriptions_max || session.subscriptions.bytes() + entry.filter.size() > subscription_bytes_max || is_full())) {
            reasons.back() = ReasonCode::quota_exceeded;
            continue;
        }
        if (is_new && shared.is_shared && session.next_share == shares_max) {
            reasons.back() = ReasonCode::quota_exceeded;
            continue;
        }
        // A subscription that is there as it is asked for costs nothing: the matches that are known stay good.
        if (is_new || known->options != options) {
            const auto share = !shared.is_shared ? 0 : is_new ? ++session.next_share : share_of(session, shared);
            if (is_new) session.subscriptions.add({.text = std::string(entry.filter), .options = options});
            else known->options = options;
            if (session.is_kept) engine_->put_subscription(session.client_id(), entry.filter, options, share);
            index_subscription(session, shared, options, share);
        }
        if (shared.is_shared) continue;   // no retained messages for shared subscriptions, §4.8.2
        if (entry.retain_handling == 0 || (entry.retain_handling == 1 && is_new)) retrieve.push_back({shared.filter, options});
    }
    if (trace)
        if (const auto bad = std::ranges::find_if(reasons, [](ReasonCode reason) { return static_cast<std::uint8_t>(reason) >= 0x80; }); bad != reasons.end()) trace->fail(mqtt::reason_name(*bad));
    // MQTT 3.1 has no code for a refusal: "it must therefore make a positive acknowledgement".
    if (connection.version == Version::v31)
        for (std::size_t i = 0; i < reasons.size(); ++i)
            if (mqtt::is_error(reasons[i])) reasons[i] = static_cast<ReasonCode>(subscribe.entries[i].qos);
    scratch_.clear();
    mqtt::encode_suback(scratch_, PacketType::suback, connection.version, subscribe.packet_id, reasons);
    if (session.is_kept) gate(connection);
    output(connection).append(scratch_);
    for (const auto& r : retrieve) {
        // One packet can ask for all there is many times over: the next one's turn comes when this one's are read.
        if (!has_retrievals(connection) && takes_retained(connection)) send_retained(session, r.filter, r.options);
        else retrievals_[&connection].add(r.filter, r.options);
    }
    if (has_retrievals(connection) && retrievals_[&connection].is_over())
        return fault(Refusal::too_many_retained_are_asked_for);
    return Next::go_on;
}

void Core::index_subscription(Session& session, const topics::SharedFilter& shared, const topics::Options& options, std::uint32_t share) {
    if (shared.is_shared) {
        topics::Member member{.session = session.id(), .worker = id_, .share = share, .local = &session, .options = options, .is_connected = session.link() != nullptr};
        index_.add_member(shared.filter, shared.group, member);
        by_id_[session.id()] = &session;
        member.local = nullptr;
        Mail mail{.kind = Mail::Kind::member_added, .from = id_};
        mail.body = std::make_unique<Mail::Body>(std::string(shared.filter), std::string(shared.group), member, nullptr);
        broadcast(mail);
        return;
    }
    if (!index_.add(shared.filter, &session, options).first) return;
    Mail mail{.kind = Mail::Kind::filter_added, .from = id_};
    mail.body = std::make_unique<Mail::Body>();
    mail.body->filter = shared.filter;
    broadcast(mail);
}

void Core::add_subscription(Session& session, std::string_view filter, const topics::Options& options, std::uint32_t share) {
    session.subscriptions.add({.text = std::string(filter), .options = options});
    index_subscription(session, topics::split_shared(filter), options, share);
}

void Core::remove_subscription(Session& session, const session::Subscription& subscription) {
    const auto shared = topics::split_shared(subscription.text);
    Mail mail{.kind = Mail::Kind::none, .from = id_};
    if (shared.is_shared) {
        index_.remove_member(shared.filter, shared.group, session.id());
        mail.kind = Mail::Kind::member_removed;
        mail.number = session.id();
    } else if (index_.remove(shared.filter, &session).last) {
        mail.kind = Mail::Kind::filter_removed;
    } else {
        return;
    }
    mail.body = std::make_unique<Mail::Body>();
    mail.body->filter = shared.filter;
    mail.body->group = shared.group;
    broadcast(mail);
}

Core::Next Core::on_unsubscribe(Connection& connection, const mqtt::Frame& frame) {
    const auto decoded = mqtt::decode_unsubscribe(frame.flags, frame.body, connection.version);
    if (!decoded) {
        disconnect(connection, decoded.error(), now_);
        return Next::gone;
    }
    for (const auto filter : decoded->filters) {
        if (connection.version == Version::v5) break;
        if (const auto refusal = filter_fault(filter)) {
            disconnect(connection, *refusal, now_);
            return Next::gone;
        }
    }
    if (!fits(connection, mqtt::suback_size(PacketType::unsuback, connection.version, decoded->filters.size()))) {
        disconnect(connection,
                   {Refusal::answer_is_too_large,
                    "UNSUBACK for so many filters is larger than the client's maximum packet size"},
                   now_);
        return Next::gone;
    }
    auto& session = *connection.session;
    std::optional<PacketTrace> trace;
    if (const auto parent = traced(decoded->trace_parent)) {
        trace.emplace(spans_, *parent, "Unsubscribe", monotonic_ns());
        trace->note("messaging.client.id", session.client_id());
        trace->note("messaging.destination.name", decoded->filters.front());
    }
    std::vector<ReasonCode> reasons;
    std::vector<store::Share> shares;
    for (const auto filter : decoded->filters) {
        auto* at = session.subscriptions.find(filter);
        if (at == nullptr) {
            const auto shared = topics::split_shared(filter);
            reasons.push_back(shared.is_valid && topics::is_valid_filter(shared.filter) ? ReasonCode::no_subscription_existed
                                                                                       : ReasonCode::topic_filter_invalid);
            continue;
        }
        const auto shared = topics::split_shared(filter);
        const auto share = shared.is_shared ? share_of(session, shared) : 0;
        remove_subscription(session, *at);
        if (session.is_kept) engine_->erase_subscription(session.client_id(), filter);
        session.subscriptions.erase(at);
        if (share != 0) shares.push_back({.number = share, .filter = std::string(shared.filter), .group = std::string(shared.group)});
        reasons.push_back(ReasonCode::success);
    }
    // What the client has been sent it may still acknowledge [MQTT-3.10.4-3]; what waits is for the others of the groups. In one go: each
    // walks the queue.
    if (!shares.empty()) hand_on(session, std::move(shares), false);
    scratch_.clear();
    mqtt::encode_suback(scratch_, PacketType::unsuback, connection.version, decoded->packet_id, reasons);
    if (session.is_kept) gate(connection);
    output(connection).append(scratch_);
    return Next::go_on;
}

bool Core::may_publish(Connection& connection, std::string_view topic) {
    auto& security = *connection.security;
    // Topics of such length are rare; remembering them would let a client choose how much memory it holds.
    if (topic.size() > remembered_topic_max) return security.grant == nullptr || security.grant->may_publish(topic);
    if (security.last_topic == topic) return security.last_allowed;
    const auto known = security.topics.find(std::string(topic));
    if (known != security.topics.end()) {
        security.last_topic = topic;
        return security.last_allowed = known->second;
    }
    const bool allowed = security.grant == nullptr || security.grant->may_publish(topic);
    // Bounded by forgetting all of it: a client that changes its topics all the time gains nothing from a cache.
    if (security.topics.size() >= recent_topics_max || security.topic_bytes + topic.size() > recent_topic_bytes_max) security.topics.clear(), security.topic_bytes = 0;
    security.topics.emplace(topic, allowed);
    security.topic_bytes += topic.size();
    security.last_topic = topic;
    return security.last_allowed = allowed;
}

// --- routing ---

bool Core::is_bridge_state(std::string_view topic) noexcept {
    constexpr std::string_view before = "$SYS/broker/connection/", after = "/state";
    if (!topic.starts_with(before) || !topic.ends_with(after) || topic.size() <= before.size() + after.size()) return false;
    return !topic.substr(before.size(), topic.size() - before.size() - after.size()).contains('/');
}

bool Core::is_hidden(std::string_view topic) const noexcept { return config_.hide_selftest && topic.starts_with(selftest_prefix); }

bool Core::is_late(const mqtt::MessageRef& message) {
    // As a receiver on the publisher's own worker: what arrives in the moment of its end is delivered.
    if (message->expires_at() == 0 || message->expires_at() >= now_) return false;
    ++figures_.expired_messages;
    return true;
}

void Core::deliver_to(Session& session, mqtt::Outgoing& message, std::uint8_t qos, bool retain, const std::uint32_t* ids, std::size_t id_count, std::uint32_t share) {
    auto* link = static_cast<Connection*>(session.link());
    if (link != nullptr && !link->is_dirty) driver_.make_dirty(*link);
    auto& counts = categories_[link != nullptr ? link->category : 0].delivery;
    const auto effective = std::min(static_cast<Qos>(qos), message.view().qos);
    // A delivery of a kept session leaves once it is known on disk: after a crash it must be the same one, not another.
    if (link != nullptr && session.keeps_queue && effective != Qos::at_most_once) gate(*link);
    session.deliver(message, effective, retain, ids, id_count, *engine_, queue_limits(), now_, counts, share);
    if (session.next_end() != 0) watch_queue(session);
}

bool Core::deliver_local(mqtt::Outgoing& message, const topics::Match& match) {
    bool any = false;
    const auto publisher = message.view().publisher;
    const bool retain = message.view().retain;
    for (std::size_t i = 0; i < match.targets.size(); ++i) {
        const auto& target = match.targets[i];
        auto& session = *static_cast<Session*>(target.subscriber);
        if (i % pressure_look == pressure_look - 1) look_at_pressure();
        if (target.no_local && session.publisher() == publisher) continue;   // [MQTT-3.8.3-3]
        any = true;
        if (spared_ != nullptr && std::ranges::any_of(*spared_, [&](const store::Portion& portion) { return home_of(session.client_id(), portion.workers) == portion.worker; })) continue;
        deliver_to(session, message, target.qos, retain && target.retain_as_published, match.ids.data() + target.ids_begin, target.ids_count);
    }
    return any;
}

bool Core::route(mqtt::Outgoing& message) {
    const auto& match = index_.match(message.view().topic, is_hidden(message.view().topic));
    bool any = !match.targets.empty();
    if (origin_ != nullptr && (match.remote_workers != 0 || !match.groups.empty() || origin_->dup)) any |= deliver_once(*origin_, message, match);
    else any |= deliver_local(message, match);
    for (auto* group : match.groups) {
        any = true;
        deliver_shared(message, *group, group->filter);
    }
    for (auto remote = match.remote_workers; remote != 0; remote &= remote - 1) {
        any = true;
        Mail mail{.kind = Mail::Kind::publish, .from = id_, .message = message.share()};
        put_origin(mail);
        driver_.post(static_cast<std::uint32_t>(std::countr_zero(remote)), std::move(mail));
    }
    return any;
}

void Core::publish(const mqtt::MessageView& view, std::int64_t now) {
    now_ = now;
    mqtt::Outgoing message(view);
    if (view.retain) set_retained(message);
    route(message);
}

void Core::broadcast(const Mail& prototype) {
    for (std::uint32_t worker = 0; worker < count_; ++worker) {
        if (worker == id_) continue;
        Mail copy{.kind = prototype.kind, .flag = prototype.flag, .from = id_, .number = prototype.number, .message = prototype.message};
        if (prototype.body != nullptr)
            copy.body = std::make_unique<Mail::Body>(prototype.body->filter, prototype.body->group, prototype.body->member, nullptr, prototype.body->publisher, prototype.body->packet_id);
        driver_.post(worker, std::move(copy));
    }
}

// --- mails ---

void Core::on_mail(Mail& mail, std::int64_t now) {
    now_ = now;
    look_at_pressure();
    switch (mail.kind) {
        case Mail::Kind::publish: {
            if (is_late(mail.message)) break;
            mqtt::Outgoing message(std::move(mail.message));
            const auto& match = index_.match(message.view().topic, is_hidden(message.view().topic));
            if (mail.body != nullptr) deliver_once({.publisher = mail.body->publisher, .packet_id = mail.body->packet_id, .dup = mail.flag}, message, match);
            else deliver_local(message, match);
            break;
        }
        case Mail::Kind::state_request: handle_state(mail.message->view(), mail.body->publisher, mail.flag); break;
        case Mail::Kind::state_gone:
            if (state_ != nullptr) state_->forget_client(mail.body->publisher);
            break;
        case Mail::Kind::direct: deliver_direct(mail.body->publisher, mail.message); break;
        case Mail::Kind::released:
            if (mail.flag) forget_seen(mail.body->publisher);
            else forget_seen(mail.body->publisher, mail.body->packet_id);
            break;
        case Mail::Kind::shared_publish:
            if (!is_late(mail.message)) on_shared_publish(mail);
            break;
        case Mail::Kind::filter_added: index_.set_remote(mail.body->filter, mail.from, true); break;
        case Mail::Kind::filter_removed: index_.set_remote(mail.body->filter, mail.from, false); break;
        case Mail::Kind::member_added: index_.add_member(mail.body->filter, mail.body->group, mail.body->member); break;
        case Mail::Kind::member_removed: index_.remove_member(mail.body->filter, mail.body->group, mail.number); break;
        case Mail::Kind::member_connected:
            index_.set_member_connected(mail.body->filter, mail.body->group, mail.number, mail.flag);
            break;
        case Mail::Kind::retained: store_retained(mail.message, mail.number); break;
        case Mail::Kind::retained_cleared: clear_retained(mail.message->view().topic, mail.number); break;
        case Mail::Kind::sequence_mark: cleared_.mark(mail.from, mail.number); break;
        case Mail::Kind::connection:
        case Mail::Kind::none: break;
    }
}

void Core::on_room(Connection& connection, std::int64_t now) {
    if (connection.session != nullptr && connection.session->keeps_queue) gate(connection);
    now_ = now;
    look_at_pressure();
    if (connection.session == nullptr || connection.state != ConnectionState::connected) return;
    while (has_retrievals(connection) && takes_retained(connection)) {
        auto& waiting = retrievals_[&connection];
        const auto next = waiting.take();
        if (waiting.filters.empty()) retrievals_.erase(&connection);
        // It may have ended meanwhile, by the client or by new rules.
        if (connection.session->subscriptions.find(next.first) != nullptr) send_retained(*connection.session, next.first, next.second);
    }
    if (!connection.session->has_waiting()) return;
    output(connection);
    connection.session->pump(queue_limits(), now, categories_[connection.category].delivery);
}

CoreFigures Core::figures() const {
    auto out = figures_;
    out.categories = categories_.list();
    out.aged_categories = categories_.aged();
    out.spans_dropped += spans_.dropped();
    out.sessions = sessions_.size();
    out.subscriptions = index_.plain_count();
    out.retained_messages = retained_count_;
    out.retained_bytes = retained_bytes_;
    for (const auto& [id, session] : sessions_) {
        if (session->link() != nullptr) ++out.connected_sessions;
        if (session->expiry_interval > 0) {
            ++out.persistent_sessions;
            if (session->link() != nullptr) ++out.connected_persistent_sessions;
        }
        for (const auto& s : session->subscriptions)
            if (s.text.starts_with("$share/")) ++out.shared_subscriptions;
        if (session->will != nullptr) {
            ++out.wills;
            out.will_bytes += session->will->message->payload_size();
        }
        out.queued += session->queued();
        out.in_flight += session->in_flight();
    }
    if (state_ != nullptr) out.state_keys = state_->size(), out.state = state_->counts();
    return out;
}

}  // namespace penstock::broker
