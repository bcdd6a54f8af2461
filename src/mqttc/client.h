#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "mqtt/packets.h"
#include "tls/channel.h"

/// A small MQTT client for the command line and the self-test probe: one connection, blocking with time limits.
namespace penstock::mqttc {

struct Target {
    std::string host = "127.0.0.1";
    std::uint16_t port = 1883;
    bool websocket = false;
    int timeout_ms = 10'000;
    std::shared_ptr<const tls::Context> tls;      ///< null: plaintext
    std::string server_name;                      ///< that the certificate must have; the host when empty
};

/// One received packet; the bytes live until the next call of next().
struct Packet {
    mqtt::PacketType type{};
    std::uint8_t flags = 0;
    std::string_view body;
};

/// How far connect() came: to nobody, to a port that is open, behind TLS, behind the upgrade to WebSocket, or
/// to an answer to CONNECT.
enum class Reached : std::uint8_t { nobody, port, tls, websocket, broker };

class Client {
  public:
    Client() = default;
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    /// Opens the transport, sends CONNECT and waits for CONNACK. A refusal is an error that names its reason.
    Result<void> connect(const Target& target, const mqtt::ConnectOptions& options);
    /// The transport alone, for callers that speak for themselves.
    Result<void> open(const Target& target);
    /// Of the last connect() or open(), also when it failed.
    [[nodiscard]] Reached reached() const noexcept { return reached_; }
    /// The first bytes that came on it, before TLS is undone: they tell what the port speaks.
    [[nodiscard]] std::string_view first_bytes() const noexcept { return first_bytes_; }
    [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
    [[nodiscard]] int descriptor() const noexcept { return fd_; }
    /// Null: plaintext.
    [[nodiscard]] const tls::Channel* channel() const noexcept { return tls_.get(); }
    [[nodiscard]] mqtt::Version version() const noexcept { return version_; }
    /// Views into the CONNACK are valid until the next packet is read.
    [[nodiscard]] const mqtt::ConnackView& connack() const noexcept { return connack_; }
    [[nodiscard]] std::uint16_t next_packet_id() noexcept;

    /// Sends all bytes or fails.
    Result<void> send(std::string_view bytes);
    /// The next packet, or nothing when `timeout_ms` passed. An error means that the connection is gone.
    Result<std::optional<Packet>> next(int timeout_ms);
    /// Waits for a packet of `type`; others are dropped.
    Result<Packet> expect(mqtt::PacketType type, int timeout_ms);
    void disconnect(mqtt::ReasonCode reason = mqtt::ReasonCode::success);
    void close();

  private:
    Result<void> upgrade(const Target& target);
    Result<void> shake_hands(const Target& target);
    Result<void> send_raw(std::string_view bytes);
    Result<bool> fill(int timeout_ms);
    void unwrap();
    /// What was read of the socket, before anything is made of it.
    void note_first(std::string_view bytes);

    int fd_ = -1;
    Reached reached_ = Reached::nobody;
    std::string first_bytes_;
    std::unique_ptr<tls::Channel> tls_;
    bool websocket_ = false;
    mqtt::Version version_ = mqtt::Version::v5;
    mqtt::ConnackView connack_;
    std::string connack_bytes_;
    std::string raw_;                    ///< WebSocket bytes not yet unwrapped
    std::string in_;
    std::size_t consumed_ = 0;           ///< of in_, by the packet handed out last
    std::uint16_t last_id_ = 0;
};

/// `connection refused: not-authorized (0x87)`, with the broker's reason string when it sent one.
std::string describe_refusal(const mqtt::ConnackView& connack, mqtt::Version version);

}  // namespace penstock::mqttc
