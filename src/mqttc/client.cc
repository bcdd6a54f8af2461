#include "mqttc/client.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/text.h"
#include "io/socket.h"
#include "io/wait.h"

namespace penstock::mqttc {

Client::~Client() { close(); }

void Client::close() {
    if (fd_ >= 0) io::close_now(fd_);
    fd_ = -1;
    tls_.reset();
    raw_.clear();
    in_.clear();
    consumed_ = 0;
}

std::uint16_t Client::next_packet_id() noexcept {
    last_id_ = last_id_ == 65'535 ? std::uint16_t{1} : static_cast<std::uint16_t>(last_id_ + 1);
    return last_id_;
}

std::string describe_refusal(const mqtt::ConnackView& connack, mqtt::Version version) {
    if (version != mqtt::Version::v5) {
        constexpr const char* words[] = {"accepted", "unacceptable protocol version", "identifier rejected", "server unavailable",
                                         "bad user name or password", "not authorized"};
        return fmt::format("connection refused: {} ({})", connack.code < 6 ? words[connack.code] : "unknown code", connack.code);
    }
    auto out = fmt::format("connection refused: {} (0x{:02X})", mqtt::reason_name(connack.reason), connack.code);
    if (!connack.reason_string.empty()) out += fmt::format(": {}", connack.reason_string);
    return out;
}

Result<void> Client::open(const Target& target) {
    close();
    reached_ = Reached::nobody;
    first_bytes_.clear();
    auto fd = io::connect_tcp(target.host, target.port, target.timeout_ms);
    if (!fd) return std::unexpected(fd.error());
    fd_ = *fd;
    reached_ = Reached::port;
    websocket_ = false;
    if (target.tls != nullptr) {
        if (auto done = shake_hands(target); !done) {
            close();
            return done;
        }
        reached_ = Reached::tls;
    }
    if (target.websocket) {
        if (auto done = upgrade(target); !done) {
            close();
            return done;
        }
        reached_ = Reached::websocket;
    }
    return {};
}

void Client::note_first(std::string_view bytes) {
    constexpr std::size_t enough = 16;
    if (first_bytes_.size() < enough) first_bytes_ += bytes.substr(0, enough - first_bytes_.size());
}

Result<void> Client::shake_hands(const Target& target) {
    tls_ = std::make_unique<tls::Channel>(target.tls, false, target.server_name.empty() ? target.host : target.server_name);
    const auto deadline = monotonic_ms() + target.timeout_ms;
    auto why = [&] { return fail(fmt::format("TLS: {}", tls_->fault().empty() ? "the broker closed the connection" : tls_->fault())); };
    bool alive = tls_->advance();
    while (true) {
        if (auto sent = send_raw(std::exchange(tls_->output(), {})); !sent) return sent;
        if (!alive) return why();
        if (tls_->is_open()) return {};
        if (!io::wait_for(fd_, io::Wait::readable, static_cast<int>(std::max<std::int64_t>(0, deadline - monotonic_ms())))) return fail("TLS: the handshake was not answered in time");
        char buffer[16'384];
        const auto got = io::read_some(fd_, buffer, sizeof buffer);
        if (got < 0) return fail("TLS: the broker closed the connection during the handshake");
        note_first({buffer, static_cast<std::size_t>(got)});
        tls_->set_input({buffer, static_cast<std::size_t>(got)});
        char plain[16'384];
        long size = 0;
        while ((size = tls_->read(plain, sizeof plain)) > 0) in_.append(plain, static_cast<std::size_t>(size));
        alive = size == 0;
    }
}

Result<void> Client::upgrade(const Target& target) {
    std::string nonce(16, '\0');
    random_bytes(nonce.data(), nonce.size());
    const auto request = fmt::format(
        "GET /mqtt HTTP/1.1\r\nHost: {}:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {}\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        target.host, target.port, base64_encode(nonce));
    if (auto sent = send(request); !sent) return sent;
    const auto deadline = monotonic_ms() + target.timeout_ms;
    while (true) {
        const auto end = in_.find("\r\n\r\n");
        if (end != std::string::npos) {
            if (!in_.starts_with("HTTP/1.1 101")) return fail(fmt::format("WebSocket upgrade refused: {}", in_.substr(0, in_.find('\r'))));
            raw_ = in_.substr(end + 4);
            in_.clear();
            websocket_ = true;
            unwrap();
            return {};
        }
        auto got = fill(static_cast<int>(deadline - monotonic_ms()));
        if (!got) return std::unexpected(got.error());
        if (!*got) return fail("no answer to the WebSocket upgrade");
    }
}

Result<void> Client::connect(const Target& target, const mqtt::ConnectOptions& options) {
    if (auto opened = open(target); !opened) return opened;
    version_ = options.version;
    std::string packet;
    mqtt::encode_connect(packet, options);
    if (auto sent = send(packet); !sent) return sent;
    auto answer = expect(mqtt::PacketType::connack, target.timeout_ms);
    if (!answer) return std::unexpected(answer.error());
    reached_ = Reached::broker;
    connack_bytes_ = answer->body;
    auto decoded = mqtt::decode_connack(connack_bytes_, version_);
    if (!decoded)
        return fail(fmt::format("the CONNACK is malformed: {}", mqtt::rule_of(decoded.error()).text));
    connack_ = *decoded;
    if (connack_.code != 0) {
        auto why = describe_refusal(connack_, version_);
        close();
        return fail(std::move(why));
    }
    return {};
}

Result<void> Client::send(std::string_view bytes) {
    std::string framed;
    if (websocket_) {
        // A client masks what it sends (RFC 6455 §5.3).
        framed += static_cast<char>(0x82);
        if (bytes.size() < 126) {
            framed += static_cast<char>(0x80u | bytes.size());
        } else if (bytes.size() < 65'536) {
            framed += static_cast<char>(0x80u | 126u);
            framed += static_cast<char>(bytes.size() >> 8);
            framed += static_cast<char>(bytes.size());
        } else {
            framed += static_cast<char>(0x80u | 127u);
            for (int shift = 56; shift >= 0; shift -= 8) framed += static_cast<char>(bytes.size() >> shift);
        }
        char mask[4];
        random_bytes(mask, sizeof mask);
        framed.append(mask, 4);
        for (std::size_t i = 0; i < bytes.size(); ++i) framed += static_cast<char>(bytes[i] ^ mask[i & 3]);
        bytes = framed;
    }
    if (tls_ == nullptr) return send_raw(bytes);
    if (!tls_->write(bytes)) {
        close();
        return fail("TLS: the connection broke");
    }
    return send_raw(std::exchange(tls_->output(), {}));
}

Result<void> Client::send_raw(std::string_view bytes) {
    while (!bytes.empty()) {
        if (fd_ < 0) return fail("not connected");
        const auto sent = io::write_some(fd_, &bytes, 1);
        if (sent < 0) {
            close();
            return fail("the connection was closed");
        }
        bytes.remove_prefix(static_cast<std::size_t>(sent));
        if (sent == 0 && !io::wait_for(fd_, io::Wait::writable, 30'000)) return fail("the broker does not read");
    }
    return {};
}

Result<bool> Client::fill(int timeout_ms) {
    if (fd_ < 0) return fail("not connected");
    if (!io::wait_for(fd_, io::Wait::readable, timeout_ms < 0 ? 0 : timeout_ms)) return false;
    char buffer[65'536];
    const auto got = io::read_some(fd_, buffer, sizeof buffer);
    if (got < 0) {
        close();
        return fail("the connection was closed by the broker");
    }
    note_first({buffer, static_cast<std::size_t>(got)});
    auto& into = websocket_ ? raw_ : in_;
    if (tls_ == nullptr) {
        into.append(buffer, static_cast<std::size_t>(got));
    } else {
        tls_->set_input({buffer, static_cast<std::size_t>(got)});
        char plain[65'536];
        long size = 0;
        while ((size = tls_->read(plain, sizeof plain)) > 0) into.append(plain, static_cast<std::size_t>(size));
        if (size < 0 && (into.empty() || consumed_ == into.size())) {
            const auto fault = tls_->fault();
            close();
            return fail(fault.empty() ? "the connection was closed by the broker" : "TLS: " + fault);
        }
        if (!tls_->output().empty())
            if (auto sent = send_raw(std::exchange(tls_->output(), {})); !sent) return std::unexpected(sent.error());
    }
    if (websocket_) unwrap();
    return true;
}

void Client::unwrap() {
    auto byte = [&](std::size_t i) { return static_cast<unsigned char>(raw_[i]); };
    while (raw_.size() >= 2) {
        std::uint64_t size = byte(1) & 0x7Fu;
        std::size_t header = 2;
        if (size >= 126) {
            const std::size_t extra = size == 126 ? 2 : 8;
            if (raw_.size() < 2 + extra) return;
            size = 0;
            for (std::size_t i = 0; i < extra; ++i) size = size << 8 | byte(2 + i);
            header += extra;
        }
        if (raw_.size() < header + size) return;
        const auto opcode = byte(0) & 0x0Fu;
        if (opcode == 2 || opcode == 0) in_.append(raw_, header, size);
        raw_.erase(0, header + size);
    }
}

Result<std::optional<Packet>> Client::next(int timeout_ms) {
    in_.erase(0, consumed_);
    consumed_ = 0;
    const auto deadline = monotonic_ms() + timeout_ms;
    while (true) {
        mqtt::Frame frame;
        const auto state = mqtt::cut_frame(in_, 0xFFFF'FFFF, frame);
        if (state == mqtt::FrameState::complete) {
            consumed_ = frame.size;
            return Packet{.type = frame.type, .flags = frame.flags, .body = frame.body};
        }
        if (state == mqtt::FrameState::malformed) return fail("the broker sent a malformed packet");
        auto got = fill(static_cast<int>(deadline - monotonic_ms()));
        if (!got) return std::unexpected(got.error());
        if (!*got) return std::nullopt;
    }
}

Result<Packet> Client::expect(mqtt::PacketType type, int timeout_ms) {
    const auto deadline = monotonic_ms() + timeout_ms;
    while (true) {
        auto packet = next(static_cast<int>(deadline - monotonic_ms()));
        if (!packet) return std::unexpected(packet.error());
        if (!*packet) return fail("no answer in time");
        if ((*packet)->type == type) return **packet;
        if ((*packet)->type == mqtt::PacketType::disconnect) {
            const auto why = mqtt::decode_disconnect((*packet)->flags, (*packet)->body, version_);
            if (!why) return fail("the broker disconnected");
            return fail(fmt::format("the broker disconnected: {} (0x{:02X}){}{}", mqtt::reason_name(why->reason), static_cast<unsigned>(why->reason),
                                    why->reason_string.empty() ? "" : ": ", why->reason_string));
        }
    }
}

void Client::disconnect(mqtt::ReasonCode reason) {
    if (fd_ < 0) return;
    std::string packet;
    mqtt::encode_disconnect(packet, version_, reason);
    // The broker may be gone already; then there is nobody to tell.
    [[maybe_unused]] auto sent = send(packet);
    if (fd_ >= 0 && tls_ != nullptr) {
        tls_->close();
        sent = send_raw(std::exchange(tls_->output(), {}));
    }
    if (fd_ >= 0) io::close_gracefully(fd_);
    fd_ = -1;
}

}  // namespace penstock::mqttc
