#include "harness/script.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"
#include "broker/server.h"
#include "harness/memory_net.h"
#include "mqttc/client.h"

namespace penstock::test {
namespace {

std::string hex_of(std::string_view bytes) {
    std::string out;
    for (std::size_t i = 0; i < bytes.size() && i < 200; ++i) out += fmt::format("{:02x}", static_cast<unsigned char>(bytes[i]));
    return out;
}

void put_varint(std::string& out, std::size_t value) {
    do {
        auto byte = static_cast<unsigned>(value & 0x7F);
        value >>= 7;
        out += static_cast<char>(value > 0 ? byte | 0x80 : byte);
    } while (value > 0);
}

/// `12ab` hex, `'text'` bytes, `"text"` with its two-byte length, `{ ... }` with a varint length, `x*N` N bytes of x.
std::string content_bytes(const std::string& text, std::size_t& at, bool& open_end) {
    std::string out;
    while (at < text.size() && text[at] != '}') {
        const char c = text[at];
        if (c == ' ') {
            ++at;
        } else if (c == '{') {
            ++at;
            const auto inner = content_bytes(text, at, open_end);
            ++at;
            put_varint(out, inner.size());
            out += inner;
        } else if (c == '\'' || c == '"') {
            const auto end = text.find(c, at + 1);
            auto inner = text.substr(at + 1, end - at - 1);
            at = end + 1;
            if (at < text.size() && text[at] == '*') {
                std::size_t digits = at + 1;
                while (digits < text.size() && std::isdigit(static_cast<unsigned char>(text[digits]))) ++digits;
                const auto count = parse_number<std::size_t>(std::string_view(text).substr(at + 1, digits - at - 1)).value_or(1);
                std::string repeated;
                for (std::size_t i = 0; i < count; ++i) repeated += inner;
                inner = repeated;
                at = digits;
            }
            if (c == '"') {
                out += static_cast<char>(inner.size() >> 8);
                out += static_cast<char>(inner.size());
            }
            out += inner;
        } else if (c == '*') {
            open_end = true;
            ++at;
        } else {
            unsigned value = 0;
            std::from_chars(text.data() + at, text.data() + at + 2, value, 16);
            out += static_cast<char>(value);
            at += 2;
        }
    }
    return out;
}

}  // namespace

std::string packet_bytes(const std::string& text, bool& open_end) {
    open_end = false;
    const auto colon = text.find(':');
    std::size_t at = 0;
    // `raw ...` is taken as it stands; else `FIRST: content` gets its remaining length.
    if (text.starts_with("raw ")) {
        at = 4;
        return content_bytes(text, at, open_end);
    }
    std::string head = text.substr(0, colon);
    std::size_t head_at = 0;
    bool ignored = false;
    std::string out = content_bytes(head, head_at, ignored);
    at = colon + 1;
    const auto content = content_bytes(text, at, open_end);
    if (!open_end) put_varint(out, content.size());
    return out + content;
}

namespace {

/// `KEY=VALUE` from the second word on; the first key that is unknown, or empty.
std::string set_config(broker::BrokerConfig& config, const std::vector<std::string_view>& words) {
    for (std::size_t i = 1; i < words.size(); ++i) {
        const auto equal = words[i].find('=');
        const auto key = words[i].substr(0, equal);
        const auto value = parse_number<std::int64_t>(words[i].substr(equal + 1)).value_or(0);
        if (key == "aio") config.aio_compatible = value != 0;
        else if (key == "hide_selftest") config.hide_selftest = value != 0;
        else if (key == "queue") config.queue_length_max = static_cast<std::uint64_t>(value), config.queue_drop_oldest = true;
        else if (key == "receive_maximum") config.receive_maximum = static_cast<std::uint16_t>(value);
        else if (key == "open_identifiers_max_v3") config.open_identifiers_max_v3 = static_cast<std::uint16_t>(value);
        else if (key == "client_receive_maximum") config.client_receive_maximum = static_cast<std::uint16_t>(value);
        else if (key == "packet") config.packet_size_max = static_cast<std::uint32_t>(value);
        else if (key == "pool") config.pool_bytes = value;
        else if (key == "session_expiry") config.session_expiry_max = static_cast<std::uint32_t>(value);
        else if (key == "message_expiry") config.message_expiry_max = static_cast<std::uint32_t>(value);
        else if (key == "keep_alive") config.keep_alive_max = static_cast<std::uint16_t>(value);
        else if (key == "high_priority") config.high_priority_passes = value != 0;
        else return std::string(key);
    }
    return {};
}

}  // namespace

std::vector<Case> read_cases(const std::string& folder) {
    std::vector<Case> out;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".wire") files.push_back(entry.path());
    std::ranges::sort(files);
    for (const auto& file : files) {
        std::ifstream in(file);
        std::string text;
        for (int number = 1; std::getline(in, text); ++number) {
            const auto line = trim(text);
            if (line.empty() || line.starts_with('#')) continue;
            const auto words = split(line, ' ');
            if (words[0] == "case") {
                Case fresh{.file = file.filename().string(), .name = std::string(words[1]), .line = number};
                for (std::size_t i = 2; i < words.size(); ++i)
                    if (!words[i].empty()) fresh.statements.emplace_back(words[i]);
                out.push_back(std::move(fresh));
            } else if (words[0] == "config") {
                if (const auto wrong = set_config(out.back().config, words); !wrong.empty())
                    throw std::runtime_error(fmt::format("{}:{}: unknown config {}", file.string(), number, wrong));
            } else {
                if (words[0] == "wait" || words[0] == "reconfigure") out.back().memory_only = true;
                out.back().lines.emplace_back(number, std::string(line));
            }
        }
    }
    return out;
}

namespace {

/// Cuts the first whole packet off `bytes`.
std::string cut_packet(std::string& bytes) {
    mqtt::Frame frame;
    if (mqtt::cut_frame(bytes, 0xFFFF'FFFF, frame) != mqtt::FrameState::complete) return {};
    auto out = bytes.substr(0, frame.size);
    bytes.erase(0, frame.size);
    return out;
}

class MemoryTransport final : public Transport {
  public:
    MemoryTransport(int cores, const broker::BrokerConfig& config, bool slowly) : net_(static_cast<std::uint32_t>(cores), config), slowly_(slowly) {}
    void open(char client) override { ends_[client] = net_.open(next_core_++); }
    void send(char client, const std::string& bytes) override {
        if (!slowly_) return net_.send(*ends_[client], bytes);
        for (const char c : bytes) net_.send(*ends_[client], std::string_view(&c, 1));
    }
    std::string receive(char client, bool& closed) override {
        auto out = cut_packet(ends_[client]->received);
        closed = out.empty() && ends_[client]->is_closed;
        return out;
    }
    void drop(char client) override { net_.drop(*ends_[client]); }
    void wait(int milliseconds) override { net_.advance(milliseconds); }
    void configure(const broker::BrokerConfig& config) override { net_.configure(config); }

  private:
    MemoryNet net_;
    bool slowly_;
    std::map<char, MemoryNet::End*> ends_;
    std::uint32_t next_core_ = 0;
};

class NetworkTransport final : public Transport {
  public:
    NetworkTransport(int workers, const broker::BrokerConfig& config, bool websocket, bool tls, const std::string& folder)
        : server_(static_cast<std::uint32_t>(workers), folder.empty() ? nullptr : store::Durable::open({.folder = folder, .owner = "test/wire", .workers = static_cast<std::uint32_t>(workers)}).value()), websocket_(websocket) {
        broker::ListenerConfig listener{.resource = "test/network", .protocol = websocket ? broker::Protocol::websockets : broker::Protocol::mqtt, .port = 0};
        if (tls) {
            static const auto ca = crypto::make_ca("wire", 30).value();
            static const auto leaf = crypto::make_leaf(ca, {.common_name = "wire", .dns_names = {"localhost"}, .addresses = {"127.0.0.1"}, .server = true, .days = 30}).value();
            listener.tls = tls::Context::server({.certificate_chain = leaf.certificate, .key = leaf.key}).value();
            client_tls_ = tls::Context::client({.ca = ca.certificate}).value();
        }
        const auto states = server_.apply(config, {listener});
        port_ = states.at(0).bound_port;
    }
    void open(char client) override {
        clients_[client] = std::make_unique<mqttc::Client>();
        if (auto r = clients_[client]->open({.port = port_, .websocket = websocket_, .tls = client_tls_}); !r) throw std::runtime_error(r.error().message);
    }
    void send(char client, const std::string& bytes) override {
        // A broker that has hung up already is what some cases want to see; receive() tells.
        [[maybe_unused]] const auto sent = clients_[client]->send(bytes);
    }
    std::string receive(char client, bool& closed) override {
        auto got = clients_[client]->next(3000);
        closed = !got;
        if (!got || !*got) return {};
        const auto& p = **got;
        std::string out(1, static_cast<char>(static_cast<unsigned>(p.type) << 4 | p.flags));
        put_varint(out, p.body.size());
        return out + std::string(p.body);
    }
    void drop(char client) override { clients_[client]->close(); }
    void wait(int) override {}
    void configure(const broker::BrokerConfig&) override {}

  private:
    broker::Server server_;
    std::uint16_t port_ = 0;
    bool websocket_;
    std::shared_ptr<const tls::Context> client_tls_;
    std::map<char, std::unique_ptr<mqttc::Client>> clients_;
};

}  // namespace

std::unique_ptr<Transport> make_memory_transport(int cores, const broker::BrokerConfig& config, bool slowly) {
    return std::make_unique<MemoryTransport>(cores, config, slowly);
}
std::unique_ptr<Transport> make_network_transport(int workers, const broker::BrokerConfig& config, bool websocket, bool tls, const std::string& folder) {
    return std::make_unique<NetworkTransport>(workers, config, websocket, tls, folder);
}

std::string run_case(const Case& c, Transport& transport) {
    std::map<char, bool> opened;
    auto config = c.config;
    for (const auto& [number, text] : c.lines) {
        auto fault = [&, n = number](const std::string& why) { return fmt::format("{}:{}: {}", c.file, n, why); };
        const auto words = split(text, ' ');
        if (words[0] == "wait") {
            transport.wait(static_cast<int>(parse_number<int>(words[1]).value_or(0)));
            continue;
        }
        if (words[0] == "reconfigure") {
            if (const auto wrong = set_config(config, words); !wrong.empty()) return fault("unknown config " + wrong);
            transport.configure(config);
            continue;
        }
        if (words[0] == "connect") {
            const char client = words[1][0];
            mqtt::ConnectOptions options{.version = words[2] == "v5" ? mqtt::Version::v5 : words[2] == "v31" ? mqtt::Version::v31 : mqtt::Version::v311,
                                         .client_id = std::string(1, client), .clean_start = true, .keep_alive = 0};
            int present = 0;
            for (std::size_t i = 3; i < words.size(); ++i) {
                const auto equal = words[i].find('=');
                const auto key = words[i].substr(0, equal), value = words[i].substr(equal + 1);
                const auto count = parse_number<std::uint32_t>(value).value_or(0);
                if (key == "clean") options.clean_start = count != 0;
                else if (key == "id") options.client_id = value;
                else if (key == "keep_alive") options.keep_alive = static_cast<std::uint16_t>(count);
                else if (key == "present") present = static_cast<int>(count);
                else if (key == "expiry") options.properties.push_back({.id = mqtt::PropertyId::session_expiry_interval, .number = count});
                else if (key == "rm") options.properties.push_back({.id = mqtt::PropertyId::receive_maximum, .number = count});
                else if (key == "alias") options.properties.push_back({.id = mqtt::PropertyId::topic_alias_maximum, .number = count});
                else if (key == "max") options.properties.push_back({.id = mqtt::PropertyId::maximum_packet_size, .number = count});
                else if (key == "will") options.has_will = true, options.will_topic = value, options.will_payload = "gone";
                else if (key == "will_delay") options.will_properties.push_back({.id = mqtt::PropertyId::will_delay_interval, .number = count});
                else return fault(fmt::format("unknown word {}", key));
            }
            std::string packet;
            mqtt::encode_connect(packet, options);
            transport.open(client);
            opened[client] = true;
            transport.send(client, packet);
            bool closed = false;
            const auto answer = transport.receive(client, closed);
            if (answer.size() < 4 || answer[0] != 0x20) return fault(fmt::format("no CONNACK but {}", closed ? "a closed connection" : hex_of(answer)));
            const auto body = answer.substr(answer.size() - 2 > 2 ? 2 : 2);
            if (body[1] != 0) return fault(fmt::format("refused: {}", hex_of(answer)));
            if ((body[0] & 1) != present) return fault(fmt::format("session present is {}", body[0] & 1));
            continue;
        }
        if (words[0] == "drop") {
            transport.drop(words[1][0]);
            opened[words[1][0]] = false;
            continue;
        }
        const char client = text[0];
        const auto verb = text[1] == ' ' ? text[2] : text[1];
        if (!opened[client]) {
            transport.open(client);
            opened[client] = true;
        }
        bool open_end = false, closed = false;
        if (verb == '>') {
            transport.send(client, packet_bytes(std::string(trim(std::string_view(text).substr(2))), open_end));
        } else if (verb == '<') {
            const auto wanted = packet_bytes(std::string(trim(std::string_view(text).substr(2))), open_end);
            auto got = transport.receive(client, closed);
            if (got.empty()) return fault(closed ? "the connection was closed" : fmt::format("nothing arrived, wanted {}", hex_of(wanted)));
            if (open_end) {
                // Without the remaining length, which the unknown rest decides.
                std::size_t head = 1;
                while (head < got.size() && (static_cast<unsigned char>(got[head]) & 0x80) != 0) ++head;
                const auto bare = got.substr(0, 1) + got.substr(head + 1);
                if (!bare.starts_with(wanted)) return fault(fmt::format("got {}, wanted {}*", hex_of(bare), hex_of(wanted)));
            } else if (got != wanted) {
                return fault(fmt::format("got {}, wanted {}", hex_of(got), hex_of(wanted)));
            }
        } else if (verb == 'x') {
            const auto got = transport.receive(client, closed);
            if (!closed) return fault(got.empty() ? "the connection is still open" : fmt::format("got {} instead of a close", hex_of(got)));
            opened[client] = false;
        } else if (verb == 'q') {
            // Quiet: the answer to a ping is the next thing that comes.
            transport.send(client, std::string("\xC0\x00", 2));
            const auto got = transport.receive(client, closed);
            if (got != std::string("\xD0\x00", 2)) return fault(fmt::format("not quiet: {}", closed ? "closed" : hex_of(got)));
        } else {
            return fault("unknown line");
        }
    }
    return {};
}

}  // namespace penstock::test
