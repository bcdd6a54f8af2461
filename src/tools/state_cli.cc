#include "tools/state_cli.h"

#include <charconv>
#include <functional>
#include <iostream>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/text.h"
#include "mqtt/wire.h"
#include "resources/json.h"
#include "statestore/state_store.h"

namespace penstock::tools {
namespace {

int problem(const std::string& text) {
    std::cerr << "Error: " << printable(text) << "\n";
    return 1;
}

std::string resp(const std::vector<std::string>& words) {
    auto out = fmt::format("*{}\r\n", words.size());
    for (const auto& word : words) out += fmt::format("${}\r\n", word.size()) + word + "\r\n";
    return out;
}

struct Received {
    std::string topic, payload, version;
    bool is_answer = false;
};

class Session {
  public:
    Result<void> open(StateOptions& o) {
        if (o.connect.client_id.empty()) o.connect.client_id = "penstock-state-" + random_text(10);
        o.connect.version = mqtt::Version::v5;
        client_id_ = o.connect.client_id;
        answers_ = fmt::format("clients/{}/services/statestore/_any_/command/invoke/response", client_id_);
        if (auto taken = take_connect_properties(o); !taken) return taken;
        auto tls = make_tls(o.tls, o.target.websocket);
        if (!tls) return std::unexpected(tls.error());
        o.target.tls = *tls;
        o.target.server_name = o.tls.server_name;
        if (auto done = connect_to_broker(client_, o); !done) return done;
        std::string packet;
        mqtt::encode_subscribe(packet, mqtt::Version::v5, client_.next_packet_id(), {{.filter = answers_, .qos = mqtt::Qos::at_least_once}});
        if (auto sent = client_.send(packet); !sent) return sent;
        const auto answer = client_.expect(mqtt::PacketType::suback, 10'000);
        if (!answer) return std::unexpected(answer.error());
        if (static_cast<unsigned char>(answer->body.back()) >= 0x80) return fail(fmt::format("subscribing to {} is not allowed", answers_));
        return {};
    }
    Result<Received> ask(const std::vector<std::string>& words, const std::string& fence) {
        std::string properties, packet, correlation(16, '\0');
        random_bytes(correlation.data(), correlation.size());
        mqtt::write_property(properties, mqtt::PropertyId::response_topic, answers_);
        mqtt::write_property(properties, mqtt::PropertyId::correlation_data, correlation);
        mqtt::write_user_property(properties, "__ts", statestore::Timestamp{.time = wall_ms(), .counter = 0, .node = client_id_}.text());
        if (!fence.empty()) mqtt::write_user_property(properties, "__ft", fence);
        mqtt::encode_publish(packet, mqtt::Version::v5, statestore::request_topic, resp(words), mqtt::Qos::at_least_once, false, false, client_.next_packet_id(), properties);
        if (auto sent = client_.send(packet); !sent) return std::unexpected(sent.error());
        while (true) {
            auto next = receive(10'000);
            if (!next) return std::unexpected(next.error());
            if (!*next) return fail("the state store does not answer");
            if ((*next)->is_answer) return **next;
        }
    }
    /// Nothing when the time is over.
    Result<std::optional<Received>> receive(int timeout_ms) {
        const auto deadline = monotonic_ms() + timeout_ms;
        while (true) {
            auto packet = client_.next(static_cast<int>(std::max<std::int64_t>(0, deadline - monotonic_ms())));
            if (!packet) return std::unexpected(packet.error());
            if (!*packet) return std::nullopt;
            if ((*packet)->type == mqtt::PacketType::puback) {
                const auto ack = mqtt::decode_ack((*packet)->type, (*packet)->flags, (*packet)->body, mqtt::Version::v5);
                if (ack && mqtt::is_error(ack->reason)) return fail(fmt::format("refused: {} (0x{:02X}){}{}", mqtt::reason_name(ack->reason), static_cast<unsigned>(ack->reason), ack->reason_string.empty() ? "" : ": ", ack->reason_string));
            }
            if ((*packet)->type != mqtt::PacketType::publish) continue;
            const auto message = mqtt::decode_publish((*packet)->flags, (*packet)->body, mqtt::Version::v5, false);
            if (!message) return fail("the broker sent a malformed message");
            Received out{.topic = std::string(message->topic), .payload = std::string(message->payload), .version = {}, .is_answer = message->topic == answers_};
            mqtt::PropertyReader reader(message->properties, mqtt::place(mqtt::PacketType::publish));
            for (mqtt::Property p; reader.next(p);)
                if (p.id == mqtt::PropertyId::user_property && p.text == "__ts") out.version = p.value;
            std::string ack;
            mqtt::encode_ack(ack, mqtt::PacketType::puback, mqtt::Version::v5, message->packet_id, mqtt::ReasonCode::success);
            if (auto sent = client_.send(ack); !sent) return std::unexpected(sent.error());
            return out;
        }
    }
    void close() { client_.disconnect(); }

  private:
    mqttc::Client client_;
    std::string client_id_, answers_;
};

/// The bulk string that begins at `at`, which moves behind it.
std::string take_bulk(const std::string& text, std::size_t& at) {
    const auto end = text.find("\r\n", at);
    if (end == std::string::npos || at >= text.size() || text[at] != '$') return {};
    const auto size = parse_number<std::size_t>(std::string_view(text).substr(at + 1, end - at - 1)).value_or(0);
    at = end + 2 + size + 2;
    return text.substr(end + 2, size);
}

/// Keys that match, page by page; calls `each` until it answers other than 0.
int scan(Session& session, const StateOptions& o, const std::function<int(const std::string& key)>& each) {
    for (std::vector<std::string> words{"SCAN", o.key};;) {
        const auto answer = session.ask(words, o.fence);
        if (!answer) return problem(answer.error().message);
        const auto& text = answer->payload;
        if (text.starts_with("-ERR ")) return problem(std::string(trim(text.substr(5))));
        auto at = text.find("\r\n*");
        if (at == std::string::npos) return problem("the answer is not understood");
        auto count = parse_number<std::size_t>(std::string_view(text).substr(at + 3, text.find("\r\n", at + 3) - at - 3)).value_or(0);
        at = text.find("\r\n", at + 3) + 2;
        for (; count > 0; --count)
            if (const int status = each(take_bulk(text, at)); status != 0) return status;
        if (!text.starts_with("*2")) return 0;
        words = {"SCAN", o.key, take_bulk(text, at)};
    }
}

/// A line of JSON for a key: text as it is, other bytes as base64 under another name.
int export_key(Session& session, const StateOptions& o, const std::string& key) {
    const auto answer = session.ask({"GET", key}, o.fence);
    if (!answer) return problem(answer.error().message);
    if (answer->payload.starts_with("-ERR ")) return problem(fmt::format("{}: {}", key, trim(answer->payload.substr(5))));
    if (answer->payload == "$-1\r\n") return 0;   // it ended meanwhile
    std::size_t at = 0;
    resources::Json line;
    const auto put = [&](const std::string& name, const std::string& bytes) {
        if (mqtt::is_valid_utf8(bytes)) line[name] = bytes;
        else line[name + "Base64"] = base64_encode(bytes);
    };
    put("key", key);
    put("value", take_bulk(answer->payload, at));
    if (!answer->version.empty()) line["version"] = answer->version;
    std::cout << line.dump() << "\n";
    return 0;
}

}  // namespace

int run_state(StateOptions o) {
    Session session;
    if (auto opened = session.open(o); !opened) return problem(opened.error().message);
    if (o.verb == "scan" || o.verb == "export") {
        const int status = scan(session, o, [&](const std::string& key) {
            if (o.verb == "export") return export_key(session, o, key);
            std::cout << key << "\n";
            return 0;
        });
        session.close();
        return status;
    }
    std::vector<std::string> words;
    if (o.verb == "get") words = {"GET", o.key};
    if (o.verb == "del") words = o.has_if_value ? std::vector<std::string>{"VDEL", o.key, o.if_value} : std::vector<std::string>{"DEL", o.key};
    if (o.verb == "watch") words = {"KEYNOTIFY", o.key};
    if (o.verb == "set") {
        words = {"SET", o.key, o.value};
        if (o.only == "new") words.emplace_back("NX");
        if (o.only == "new-or-same") words.emplace_back("NEX");
        if (o.lives_ms > 0) words.insert(words.end(), {"PX", std::to_string(o.lives_ms)});
    }
    int status = 0;
    const auto answer = session.ask(words, o.fence);
    if (!answer) return problem(answer.error().message);
    const auto& text = answer->payload;
    if (text.starts_with("-ERR ")) return problem(std::string(trim(text.substr(5))));
    if (o.show_version && !answer->version.empty()) std::cerr << "version " << answer->version << "\n";
    if (o.verb == "get") {
        std::size_t at = 0;
        if (text == "$-1\r\n") status = 1, std::cerr << "absent\n";
        else std::cout << take_bulk(text, at) << "\n";
    } else if (o.verb == "set") {
        if (text != "+OK\r\n") status = 1, std::cerr << "the key is there already\n";
    } else if (o.verb == "del") {
        if (text != ":1\r\n") status = 1, std::cerr << (text == ":0\r\n" ? "absent\n" : "the value is another one\n");
    }
    while (o.verb == "watch") {
        const auto next = session.receive(3'600'000);
        if (!next) return problem(next.error().message);
        if (!*next || (*next)->is_answer) continue;
        const auto value = (*next)->payload.find("\r\nVALUE\r\n");
        std::size_t at = value == std::string::npos ? 0 : value + 9;
        std::cout << (value == std::string::npos ? "deleted" : "set " + take_bulk((*next)->payload, at)) << "  " << (*next)->version << std::endl;
    }
    session.close();
    return status;
}

}  // namespace penstock::tools
