#include "tools/mqtt_cli.h"

#include <unistd.h>

#include <csignal>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <iostream>
#include <system_error>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "io/wait.h"
#include "topics/topic.h"

namespace penstock::tools {

using mqtt::PacketType;
using mqtt::PropertyId;
using mqtt::Qos;
using mqtt::Version;

namespace {

std::atomic<bool> interrupted{false};

/// What the Remaining Length of a packet can say at most (MQTT 5.0 2.1.4): no message is larger.
constexpr std::size_t remaining_length_max = 268'435'455;

void tell(const CommonOptions& options, const std::string& text) {
    if (!options.quiet) std::cerr << printable(text) << "\n";
}

int problem(const CommonOptions& options, const std::string& text) {
    if (!options.quiet) std::cerr << "Error: " << printable(text) << "\n";
    return 1;
}

/// Sorts mosquitto-style properties by packet; the error names the faulty one.
Result<void> take_properties(const CommonOptions& options, std::string_view packet, mqtt::PropertyList& out) {
    for (const auto& text : options.properties) {
        const auto words = split(text, '\x1f');
        if (words.size() < 3) return fail(fmt::format("-D needs PACKET NAME VALUE, not \"{}\"", text));
        if (!equal_no_case(words[0], packet)) continue;
        const auto* rule = mqtt::find_property_rule(words[1]);
        if (rule == nullptr) return fail(fmt::format("-D {}: unknown property \"{}\"", words[0], words[1]));
        mqtt::OwnedProperty property{.id = rule->id};
        if (rule->type == mqtt::WireType::text_pair) {
            if (words.size() != 4) return fail("-D user-property needs a name and a value");
            property.text = words[2];
            property.value = words[3];
        } else if (rule->type == mqtt::WireType::text || rule->type == mqtt::WireType::binary) {
            property.text = words[2];
        } else {
            const auto number = parse_number<std::uint32_t>(words[2]);
            if (!number) return fail(fmt::format("-D {} {}: \"{}\" is no number", words[0], words[1], words[2]));
            property.number = *number;
        }
        out.push_back(std::move(property));
    }
    return {};
}

}  // namespace

namespace {

constexpr const char* use_tls =
    "for TLS use --cafile FILE with the CA of its certificate (of tls.mode Automatic: ca.crt of ConfigMap "
    "azure-iot-operations-aio-ca-trust-bundle)";
constexpr const char* see_ports =
    "`penstock get brokerlisteners -o yaml` shows which of spec.ports have tls or protocol WebSockets";

/// What is most likely wrong with what was asked of an open port, and what would be right; empty: the error
/// says it.
std::string other_transport(const mqttc::Client& client, const mqttc::Target& target) {
    const auto came = client.first_bytes();
    // A record of TLS is of a handshake (22) or an alert (21), of a version 3.x (RFC 8446 5.1).
    const bool is_tls = came.size() >= 2 && (came[0] == 22 || came[0] == 21) && came[1] == 3;
    const bool is_http = came.starts_with("HTTP/");
    if (client.reached() == mqttc::Reached::websocket) return {};
    if (target.tls != nullptr && client.reached() == mqttc::Reached::port) {
        if (is_tls) return {};
        return fmt::format("{} the port speaks no TLS: leave --tls, --cafile, --cert and --key out; {}",
                           came.empty() ? "perhaps" : "as it seems,", see_ports);
    }
    if (target.tls == nullptr && is_tls) return fmt::format("the port speaks TLS: {}", use_tls);
    if (target.websocket) {
        constexpr const char* none = "perhaps the port is none for WebSocket: leave --ws out";
        // What does not answer HTTP may wait for TLS.
        if (target.tls != nullptr || is_http) return fmt::format("{}; {}", none, see_ports);
        return fmt::format("{}; or it speaks TLS: {}; {}", none, use_tls, see_ports);
    }
    if (is_http) return fmt::format("the port speaks HTTP: for MQTT over WebSocket use --ws; {}", see_ports);
    if (!came.empty() && target.tls == nullptr) return {};
    if (target.tls != nullptr)
        return fmt::format("perhaps the port is one for WebSocket: use --ws; {}", see_ports);
    return fmt::format("perhaps the port speaks TLS or WebSocket: {}, for WebSocket --ws; {}", use_tls,
                       see_ports);
}

}  // namespace

std::string nobody_there(const std::string& why) {
    if (!why.ends_with(std::generic_category().message(ECONNREFUSED)))
        return why + "; name the broker's machine with -h HOST and its port with -p PORT";
    return why + "; nothing listens there: `penstock get brokerlisteners` shows the ports (-p PORT), those "
                 "of type ClusterIp listen on 127.0.0.1 alone (-h HOST)";
}

Result<void> connect_to_broker(mqttc::Client& client, const CommonOptions& options) {
    auto done = client.connect(options.target, options.connect);
    if (done || client.reached() == mqttc::Reached::broker) return done;
    if (client.reached() == mqttc::Reached::nobody) return fail(nobody_there(done.error().message));
    const auto hint = other_transport(client, options.target);
    return hint.empty() ? done : fail(fmt::format("{}; {}", done.error().message, hint));
}

Result<void> take_connect_properties(CommonOptions& options) {
    if (auto r = take_properties(options, "connect", options.connect.properties); !r) return r;
    return take_properties(options, "will", options.connect.will_properties);
}

namespace {

Result<void> open(mqttc::Client& client, CommonOptions& options) {
    auto& connect = options.connect;
    if (connect.client_id.empty() && (connect.version != Version::v5 || !connect.clean_start)) connect.client_id = "penstock-" + random_text(10);
    if (auto r = take_connect_properties(options); !r) return r;
    auto tls = make_tls(options.tls, options.target.websocket);
    if (!tls) return std::unexpected(tls.error());
    options.target.tls = *tls;
    options.target.server_name = options.tls.server_name;
    if (options.debug) tell(options, fmt::format("Client {} sending CONNECT", connect.client_id.empty() ? "(assigned)" : connect.client_id));
    if (auto r = connect_to_broker(client, options); !r) return r;
    if (options.debug) tell(options, fmt::format("Received CONNACK ({}) session present {}", client.connack().code, client.connack().session_present));
    return {};
}

/// Waits until QoS 1 or 2 of one message is through.
Result<void> finish_publish(mqttc::Client& client, const CommonOptions& options, int qos, std::uint16_t packet_id) {
    if (qos == 0) return {};
    auto acknowledged = client.expect(qos == 1 ? PacketType::puback : PacketType::pubrec, 30'000);
    if (!acknowledged) return std::unexpected(acknowledged.error());
    const auto ack = mqtt::decode_ack(acknowledged->type, acknowledged->flags, acknowledged->body, client.version());
    if (!ack) return fail("the broker sent a malformed acknowledgement");
    if (mqtt::is_error(ack->reason))
        return fail(fmt::format("publish refused: {} (0x{:02X}){}{}", mqtt::reason_name(ack->reason), static_cast<unsigned>(ack->reason), ack->reason_string.empty() ? "" : ": ", ack->reason_string));
    if (options.debug) tell(options, fmt::format("Received {} (Mid: {}, RC:{})", qos == 1 ? "PUBACK" : "PUBREC", ack->packet_id, static_cast<unsigned>(ack->reason)));
    if (qos == 2) {
        std::string packet;
        mqtt::encode_ack(packet, PacketType::pubrel, client.version(), packet_id, mqtt::ReasonCode::success);
        if (auto r = client.send(packet); !r) return r;
        if (auto done = client.expect(PacketType::pubcomp, 30'000); !done) return std::unexpected(done.error());
    }
    return {};
}

}  // namespace

Result<std::shared_ptr<const tls::Context>> make_tls(const TlsFiles& files, bool websocket) {
    if (!files.wanted && files.ca_file.empty() && files.certificate_file.empty() && files.key_file.empty()) return nullptr;
    if (files.certificate_file.empty() != files.key_file.empty()) return fail("--cert and --key belong together");
    tls::ClientOptions options{.verify_name = !files.insecure, .protocols = {}, .version = files.version};
    if (!websocket) options.protocols = {"mqtt"};
    for (const auto& [path, into] : {std::pair{&files.ca_file, &options.ca}, std::pair{&files.certificate_file, &options.certificate_chain}, std::pair{&files.key_file, &options.key}}) {
        if (path->empty()) continue;
        auto text = read_whole_file(*path, Streams::taken);
        if (!text) return std::unexpected(text.error());
        *into = std::move(*text);
    }
    auto out = tls::Context::client(options);
    if (!out) return fail(fmt::format("{}: {}", files.certificate_file.empty() ? files.ca_file.empty() ? "TLS" : files.ca_file : files.certificate_file, out.error().message));
    return out;
}

int run_pub(PubOptions options) {
    if (!topics::is_valid_name(options.topic)) return problem(options, fmt::format("invalid publish topic \"{}\", does it contain '+' or '#'?", options.topic));
    const int sources = (options.message ? 1 : 0) + (options.file.empty() ? 0 : 1) + options.lines + options.whole_input + options.null_message;
    if (sources != 1) return problem(options, "exactly one of -m, -f, -l, -s and -n gives the message");
    mqtt::PropertyList list;
    if (auto r = take_properties(options, "publish", list); !r) return problem(options, r.error().message);
    std::string properties;
    mqtt::write_properties(properties, list);

    mqttc::Client client;
    if (auto r = open(client, options); !r) return problem(options, r.error().message);
    auto publish = [&](const std::string& payload) -> Result<void> {
        // Two bytes of the topic's length, two of a packet identifier, four of the properties' length.
        if (payload.size() + options.topic.size() + properties.size() + 8 > remaining_length_max)
            return fail(fmt::format("the message of {} bytes, with its topic and properties, makes a packet "
                                    "larger than MQTT has: {} bytes",
                                    payload.size(), remaining_length_max));
        std::string packet;
        const auto id = options.qos > 0 ? client.next_packet_id() : std::uint16_t{0};
        const auto size = mqtt::encode_publish(packet, options.connect.version, options.topic, payload, static_cast<Qos>(options.qos), options.retain, false, id, properties);
        if (client.connack().maximum_packet_size != 0 && size > client.connack().maximum_packet_size)
            return fail(fmt::format("the message makes a packet of {} bytes, the broker takes {}", size, client.connack().maximum_packet_size));
        if (options.qos > client.connack().maximum_qos) return fail(fmt::format("the broker takes at most QoS {}", client.connack().maximum_qos));
        if (auto r = client.send(packet); !r) return r;
        if (options.debug) tell(options, fmt::format("Client sending PUBLISH (q{}, r{}, m{}, '{}', {} bytes)", options.qos, options.retain ? 1 : 0, id, options.topic, payload.size()));
        return finish_publish(client, options, options.qos, id);
    };
    Result<void> result;
    if (options.lines) {
        LineReader lines(STDIN_FILENO, "standard input", remaining_length_max);
        std::string line;
        while (result) {
            const auto has_line = lines.next(line);
            if (!has_line) result = std::unexpected(has_line.error());
            else if (!*has_line) break;
            else result = publish(line);
        }
    } else {
        std::string payload = options.message.value_or("");
        if (!options.file.empty() || options.whole_input) {
            auto text = options.whole_input
                            ? read_to_end(STDIN_FILENO, "standard input", remaining_length_max)
                            : read_whole_file(options.file, Streams::taken, remaining_length_max);
            if (!text) return problem(options, text.error().message);
            payload = std::move(*text);
        }
        for (int i = 0; result && i < options.repeat; ++i) {
            // The pause also notices when the broker ends the connection meanwhile.
            if (i > 0 && options.repeat_delay > 0)
                if (auto early = client.next(static_cast<int>(options.repeat_delay * 1000)); !early) result = std::unexpected(early.error());
            if (result) result = publish(payload);
        }
    }
    if (!result) return problem(options, result.error().message);
    client.disconnect();
    return 0;
}

std::string format_message(const std::string& format, const mqtt::PublishView& message) {
    std::string out;
    auto hex = [&](const char* digits) {
        for (const char c : message.payload) {
            out += digits[static_cast<unsigned char>(c) >> 4];
            out += digits[static_cast<unsigned char>(c) & 15];
        }
    };
    auto property = [&](PropertyId id) {
        mqtt::PropertyReader reader(message.properties, mqtt::place(PacketType::publish));
        for (mqtt::Property p; reader.next(p);)
            if (p.id == id) out += p.text.data() != nullptr ? std::string(p.text) : std::to_string(p.number);
    };
    for (std::size_t i = 0; i < format.size(); ++i) {
        if (format[i] == '\\' && i + 1 < format.size()) {
            const char c = format[++i];
            out += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == '0' ? '\0' : c;
            continue;
        }
        if (format[i] != '%' || i + 1 >= format.size()) {
            out += format[i];
            continue;
        }
        switch (format[++i]) {
            case '%': out += '%'; break;
            case 't': out += message.topic; break;
            case 'p': out += message.payload; break;
            case 'x': hex("0123456789abcdef"); break;
            case 'X': hex("0123456789ABCDEF"); break;
            case 'l': out += std::to_string(message.payload.size()); break;
            case 'q': out += std::to_string(static_cast<int>(message.qos)); break;
            case 'r': out += message.retain ? '1' : '0'; break;
            case 'm': out += std::to_string(message.packet_id); break;
            case 'I': out += rfc3339(wall_ms()); break;
            case 'U': out += fmt::format("{}.{:03}", wall_ms() / 1000, wall_ms() % 1000); break;
            case 'A': property(PropertyId::topic_alias); break;
            case 'C': property(PropertyId::content_type); break;
            case 'D': property(PropertyId::correlation_data); break;
            case 'E': property(PropertyId::message_expiry_interval); break;
            case 'F': property(PropertyId::payload_format_indicator); break;
            case 'R': property(PropertyId::response_topic); break;
            case 'S': property(PropertyId::subscription_identifier); break;
            case 'P': {
                mqtt::PropertyReader reader(message.properties, mqtt::place(PacketType::publish));
                bool first = true;
                for (mqtt::Property p; reader.next(p);) {
                    if (p.id != PropertyId::user_property) continue;
                    out += fmt::format("{}{}:{}", first ? "" : " ", p.text, p.value);
                    first = false;
                }
                break;
            }
            default: out += format[i]; break;
        }
    }
    return out;
}

int run_sub(SubOptions options) {
    for (const auto& filter : options.filters) {
        const auto shared = topics::split_shared(filter);
        if (!shared.is_valid || !topics::is_valid_filter(shared.filter)) return problem(options, fmt::format("invalid topic filter \"{}\"; are all '+' and '#' wildcards whole levels?", filter));
    }
    if (options.filters.empty() && options.unsubscribe.empty()) return problem(options, "-t names at least one topic filter");
    mqtt::PropertyList list;
    if (auto r = take_properties(options, "subscribe", list); !r) return problem(options, r.error().message);
    std::string properties;
    mqtt::write_properties(properties, list);
    std::signal(SIGINT, [](int) { interrupted = true; });
    std::signal(SIGTERM, [](int) { interrupted = true; });

    mqttc::Client client;
    if (auto r = open(client, options); !r) return problem(options, r.error().message);
    const auto version = options.connect.version;
    std::string packet;
    if (!options.filters.empty()) {
        std::vector<mqtt::SubscriptionView> entries;
        for (const auto& filter : options.filters)
            entries.push_back({.filter = filter, .qos = static_cast<Qos>(options.qos), .retain_as_published = options.retain_as_published,
                               .retain_handling = static_cast<std::uint8_t>(options.no_retained ? 2 : 0)});
        mqtt::encode_subscribe(packet, version, client.next_packet_id(), entries, properties);
    }
    if (!options.unsubscribe.empty()) {
        std::vector<std::string_view> filters(options.unsubscribe.begin(), options.unsubscribe.end());
        mqtt::encode_unsubscribe(packet, version, client.next_packet_id(), filters);
    }
    if (auto r = client.send(packet); !r) return problem(options, r.error().message);

    const auto keep_alive_ms = client.connack().server_keep_alive.value_or(options.connect.keep_alive) * 1000LL;
    const auto deadline = options.wait_s > 0 ? monotonic_ms() + options.wait_s * 1000LL : INT64_MAX;
    auto next_ping = keep_alive_ms > 0 ? monotonic_ms() + keep_alive_ms / 2 : INT64_MAX;
    int received = 0;
    while (!interrupted) {
        const auto now = monotonic_ms();
        if (now >= deadline) {
            client.disconnect();
            return 27;
        }
        if (now >= next_ping) {
            packet.clear();
            mqtt::encode_ping(packet, PacketType::pingreq);
            if (auto r = client.send(packet); !r) return problem(options, r.error().message);
            next_ping = now + keep_alive_ms / 2;
        }
        auto got = client.next(static_cast<int>(std::min<std::int64_t>({deadline - now, next_ping - now, 250})));
        if (!got) return problem(options, got.error().message);
        if (!*got) continue;
        const auto& in = **got;
        packet.clear();
        if (in.type == PacketType::suback) {
            const auto suback = mqtt::decode_suback(in.body, version, false);
            for (std::size_t i = 0; suback && i < suback->reasons.size() && i < options.filters.size(); ++i)
                if (mqtt::is_error(suback->reasons[i]))
                    return problem(options, fmt::format("subscription to \"{}\" refused: {} (0x{:02X})", options.filters[i], mqtt::reason_name(suback->reasons[i]), static_cast<unsigned>(suback->reasons[i])));
            if (options.debug) tell(options, "Subscribed");
            if (options.exit_after_subscribe) break;
        } else if (in.type == PacketType::disconnect) {
            const auto why = mqtt::decode_disconnect(in.flags, in.body, version);
            return problem(options, why ? fmt::format("the broker disconnected: {} (0x{:02X}){}{}", mqtt::reason_name(why->reason), static_cast<unsigned>(why->reason),
                                                      why->reason_string.empty() ? "" : ": ", why->reason_string)
                                        : "the broker disconnected");
        } else if (in.type == PacketType::pubrel) {
            const auto ack = mqtt::decode_ack(in.type, in.flags, in.body, version);
            if (ack) mqtt::encode_ack(packet, PacketType::pubcomp, version, ack->packet_id, mqtt::ReasonCode::success);
        } else if (in.type == PacketType::publish) {
            const auto message = mqtt::decode_publish(in.flags, in.body, version, false);
            if (!message) {
                const auto why = mqtt::rule_of(message.error()).text;
                return problem(options, fmt::format("the broker sent a malformed message: {}", why));
            }
            if (message->qos == Qos::at_least_once) mqtt::encode_ack(packet, PacketType::puback, version, message->packet_id, mqtt::ReasonCode::success);
            if (message->qos == Qos::exactly_once) mqtt::encode_ack(packet, PacketType::pubrec, version, message->packet_id, mqtt::ReasonCode::success);
            if (!packet.empty())
                if (auto r = client.send(packet); !r) return problem(options, r.error().message);
            packet.clear();
            const bool left_out = std::ranges::any_of(options.filter_out, [&](const auto& f) { return topics::matches(f, message->topic); });
            if (left_out || (options.no_retained && message->retain)) continue;
            if (options.retained_only && !message->retain) break;
            std::string line;
            if (!options.format.empty()) line = format_message(options.format, *message) + "\n";
            else {
                if (options.verbose) line = std::string(message->topic) + (message->payload.empty() ? " (null)" : " ");
                line += message->payload;
                if (!options.no_newline) line += '\n';
            }
            std::cout << line << std::flush;
            if (options.remove_retained && message->retain) mqtt::encode_publish(packet, version, message->topic, {}, Qos::at_most_once, true, false, 0, {});
            ++received;
        }
        if (!packet.empty())
            if (auto r = client.send(packet); !r) return problem(options, r.error().message);
        if (options.count > 0 && received >= options.count) break;
    }
    client.disconnect();
    return 0;
}

}  // namespace penstock::tools
