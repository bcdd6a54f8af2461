#include "control/selftest.h"

#include <algorithm>

#include <fmt/format.h>

#include "auth/methods.h"
#include "base/random.h"
#include "mqttc/client.h"

namespace penstock::control {

namespace {

using mqtt::PacketType;

/// One round trip through a listener: its steps in the order of `selftest_steps`, each timed, and each a
/// trace of its own where that is wanted. Each method that is a step is called once; false: it failed, and
/// the round is over.
class Round {
  public:
    Round(SelftestResult& out, int timeout_ms, bool traced, const Clock& clock)
        : out_(out), clock_(clock), timeout_ms_(timeout_ms), traced_(traced),
          deadline_(clock.monotonic_ms() + timeout_ms), began_(clock.monotonic_ns()) {}

    bool connect();
    bool ping();
    bool subscribe();
    /// The steps `publish` and `message_delivery_check`.
    bool publish();
    void unsubscribe();

  private:
    [[nodiscard]] int left() const {
        return static_cast<int>(std::max<std::int64_t>(0, deadline_ - clock_.monotonic_ms()));
    }
    void begin_trace(std::string* properties);
    void add_span(const char* name, broker::SpanId id, broker::SpanId above, std::int64_t begin,
                  const std::string& fault);
    bool finish(const Result<void>& result);
    Result<void> answered(PacketType type);
    /// Sends `packet_`, and waits for the answer of this type.
    Result<void> exchange(PacketType answer);
    /// Takes what comes until the publication is acknowledged and delivered.
    struct Delivery {
        bool is_acknowledged = false, is_delivered = false;
        Result<void> sent, failed;       ///< why nothing more came
    };
    Delivery await_delivery();
    /// The delivered message is ours, and is acknowledged.
    void take(const mqttc::Packet& packet, Delivery& delivery);

    SelftestResult& out_;
    const Clock& clock_;
    const int timeout_ms_;
    const bool traced_;
    const std::int64_t deadline_;        ///< monotonic ms, of the whole round
    mqttc::Client client_;
    std::size_t step_ = 0;
    std::int64_t began_;                 ///< monotonic ns, of the step under way
    std::int64_t published_ = 0;         ///< monotonic ns
    broker::TraceParent parent_;         ///< of the step under way
    const std::string suffix_ = random_text(12), topic_ = "azedge/dmqtt/selftest/" + suffix_;
    std::string packet_, properties_;    ///< of the step under way
};

void Round::begin_trace(std::string* properties) {
    if (!traced_) return;
    parent_ = {.trace = broker::new_trace_id(), .span = broker::new_span_id()};
    if (properties != nullptr)
        mqtt::write_user_property(*properties, "traceparent", broker::write_traceparent(parent_));
}

void Round::add_span(const char* name, broker::SpanId id, broker::SpanId above, std::int64_t begin,
                     const std::string& fault) {
    const auto& target = out_.target;
    const auto transport =
        fmt::format("{}{}", target.websocket ? "WebSockets" : "Mqtt", target.tls ? " TLS" : "");
    out_.spans.push_back({.trace = parent_.trace,
                          .id = id,
                          .parent = above,
                          .name = name,
                          .kind = broker::Span::Kind::client,
                          .begin_ns = begin,
                          .end_ns = clock_.monotonic_ns(),
                          .attributes = {{"penstock.listener", target.listener},
                                         {"server.port", std::to_string(target.port)},
                                         {"penstock.transport", transport}},
                          .fault = fault});
}

bool Round::finish(const Result<void>& result) {
    const auto* const name = selftest_steps[step_];
    if (traced_) {
        const auto fault = result ? "" : result.error().message;
        if (std::string_view(name) == "message_delivery_check")   // of the publication's trace
            add_span("receive publish", broker::new_span_id(), parent_.span, published_, fault);
        else add_span(name, parent_.span, {}, began_, fault);
    }
    out_.steps[step_] = {.done = result.has_value(),
                         .milliseconds = static_cast<double>(clock_.monotonic_ns() - began_) / 1e6};
    if (!result) out_.fault = fmt::format("{}: {}", name, result.error().message);
    ++step_;
    began_ = clock_.monotonic_ns();
    packet_.clear();
    properties_.clear();
    return result.has_value();
}

Result<void> Round::answered(PacketType type) {
    auto packet = client_.expect(type, left());
    if (!packet) return std::unexpected(packet.error());
    return {};
}

Result<void> Round::exchange(PacketType answer) {
    auto sent = client_.send(packet_);
    return sent ? answered(answer) : sent;
}

bool Round::connect() {
    const auto& target = out_.target;
    mqtt::ConnectOptions options{.version = mqtt::Version::v5,
                                 .client_id = "selftest-" + suffix_,
                                 .clean_start = true,
                                 .keep_alive = 30};
    auto& properties = options.properties;
    properties.push_back(
        {.id = mqtt::PropertyId::user_property, .text = "metriccategory", .value = "broker_selftest"});
    begin_trace(nullptr);
    if (traced_)
        properties.push_back({.id = mqtt::PropertyId::user_property,
                              .text = "traceparent",
                              .value = broker::write_traceparent(parent_)});
    if (target.secret != nullptr) {
        properties.push_back({.id = mqtt::PropertyId::authentication_method,
                              .text = std::string(auth::MethodChain::probe_method)});
        properties.push_back({.id = mqtt::PropertyId::authentication_data, .text = *target.secret});
    }
    mqttc::Target broker{
        .host = "127.0.0.1", .port = target.port, .websocket = target.websocket, .timeout_ms = timeout_ms_};
    // Our own port on this machine: whether its certificate suits clients is looked at elsewhere.
    static const auto any_server = tls::Context::client({.verify_server = false, .verify_name = false});
    if (target.tls) broker.tls = any_server.value_or(nullptr);
    return finish(client_.connect(broker, options));
}

bool Round::ping() {
    begin_trace(nullptr);
    mqtt::encode_ping(packet_, PacketType::pingreq);
    return finish(exchange(PacketType::pingresp));
}

bool Round::subscribe() {
    begin_trace(&properties_);
    mqtt::encode_subscribe(packet_, mqtt::Version::v5, client_.next_packet_id(),
                           {{.filter = topic_, .qos = mqtt::Qos::at_least_once}}, properties_);
    return finish(exchange(PacketType::suback));
}

void Round::take(const mqttc::Packet& packet, Delivery& delivery) {
    const auto message = mqtt::decode_publish(packet.flags, packet.body, mqtt::Version::v5, false);
    delivery.is_delivered = message && message->payload == suffix_;
    if (!message) return;
    packet_.clear();
    mqtt::encode_ack(packet_, PacketType::puback, mqtt::Version::v5, message->packet_id,
                     mqtt::ReasonCode::success);
    delivery.sent = client_.send(packet_);
}

Round::Delivery Round::await_delivery() {
    Delivery out;
    out.sent = client_.send(packet_);
    while (out.sent && out.failed && !(out.is_acknowledged && out.is_delivered)) {
        auto next = client_.next(left());
        if (!next) out.failed = std::unexpected(next.error());
        else if (!*next)
            out.failed =
                fail(out.is_acknowledged ? "the message did not come back in time" : "no PUBACK in time");
        else if ((*next)->type == PacketType::puback) out.is_acknowledged = true;
        else if ((*next)->type == PacketType::publish) take(**next, out);
    }
    return out;
}

bool Round::publish() {
    begin_trace(&properties_);
    published_ = clock_.monotonic_ns();
    mqtt::encode_publish(packet_, mqtt::Version::v5, topic_, suffix_, mqtt::Qos::at_least_once, false, false,
                         client_.next_packet_id(), properties_);
    const auto delivery = await_delivery();
    if (!finish(!delivery.sent ? delivery.sent : delivery.is_acknowledged ? Result<void>{} : delivery.failed))
        return false;
    return finish(delivery.is_delivered ? Result<void>{} : delivery.failed);
}

void Round::unsubscribe() {
    begin_trace(&properties_);
    mqtt::encode_unsubscribe(packet_, mqtt::Version::v5, client_.next_packet_id(), {topic_}, properties_);
    finish(exchange(PacketType::unsuback));
    client_.disconnect();
}

}  // namespace

SelftestResult run_selftest(const SelftestTarget& target, int timeout_ms, bool traced, const Clock& clock) {
    SelftestResult out{.target = target};
    Round round(out, timeout_ms, traced, clock);
    if (round.connect() && round.ping() && round.subscribe() && round.publish()) round.unsubscribe();
    return out;
}

}  // namespace penstock::control
