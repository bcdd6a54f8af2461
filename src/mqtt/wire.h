#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mqtt/refusal.h"

namespace penstock::mqtt {

/// True when `text` is well-formed UTF-8 without U+0000 and without surrogates.
/// Spec: [MQTT-1.5.4-1], [MQTT-1.5.4-2].
bool is_valid_utf8(std::string_view text) noexcept;

/// The same of a payload that says it is UTF-8: U+0000 is a character of it as others are (§3.3.2.3.2).
bool is_well_formed_utf8(std::string_view payload) noexcept;

/// Reads wire types of MQTT 5.0 §1.5 from a frame. Failure is sticky: read straight down, ask once at the end.
class WireReader {
  public:
    explicit WireReader(std::string_view bytes) noexcept : rest_(bytes) {}

    std::uint8_t u8() noexcept;
    std::uint16_t u16() noexcept;
    std::uint32_t u32() noexcept;
    /// Variable byte integer, §1.5.5; longer than needed is refused [MQTT-1.5.5-1].
    std::uint32_t varint() noexcept;
    /// Two-byte length and validated text, §1.5.4.
    std::string_view utf8() noexcept;
    /// Two-byte length and bytes, §1.5.6.
    std::string_view binary() noexcept;
    std::string_view bytes(std::size_t size) noexcept;
    std::string_view rest() noexcept;

    [[nodiscard]] std::size_t left() const noexcept { return rest_.size(); }
    [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }
    [[nodiscard]] const std::optional<Refusal>& failure() const noexcept { return failure_; }
    void fail(Refusal refusal) noexcept {
        if (!failure_) failure_ = refusal;
        rest_ = {};
    }

  private:
    std::string_view rest_;
    std::optional<Refusal> failure_;
};

/// Bytes of a text or of binary data, §1.5.4 and §1.5.6.
inline constexpr std::size_t text_max = 65'535;

/// Appends wire types to a string.
class WireWriter {
  public:
    explicit WireWriter(std::string& out) noexcept : out_(out) {}
    void u8(std::uint8_t value) { out_.push_back(static_cast<char>(value)); }
    void u16(std::uint16_t value) {
        u8(static_cast<std::uint8_t>(value >> 8));
        u8(static_cast<std::uint8_t>(value));
    }
    void u32(std::uint32_t value) {
        u16(static_cast<std::uint16_t>(value >> 16));
        u16(static_cast<std::uint16_t>(value));
    }
    void varint(std::uint32_t value);
    /// What the length cannot say is cut off: a faulty text spoils itself, not the packets behind it.
    void text(std::string_view text) {
        text = text.substr(0, text_max);
        u16(static_cast<std::uint16_t>(text.size()));
        out_.append(text);
    }
    void bytes(std::string_view raw) { out_.append(raw); }

  private:
    std::string& out_;
};

constexpr std::size_t varint_size(std::uint32_t value) noexcept {
    return value < 128 ? 1 : value < 16'384 ? 2 : value < 2'097'152 ? 3 : 4;
}

/// One control packet cut out of a byte stream.
struct Frame {
    PacketType type = PacketType::reserved;
    std::uint8_t flags = 0;      ///< low nibble of the first byte
    std::string_view body;       ///< variable header and payload; points into the caller's bytes
    std::size_t size = 0;        ///< whole packet, fixed header included
    bool is_padded = false;      ///< its length has more bytes than it needs, which version 5 forbids [MQTT-1.5.5-1]
};

enum class FrameState : std::uint8_t { complete, need_more, malformed, too_large };

/// Cuts the first packet off `bytes`. `size_max` is the whole packet's bound (Maximum Packet Size counts all bytes).
FrameState cut_frame(std::string_view bytes, std::uint32_t size_max, Frame& out) noexcept;

}  // namespace penstock::mqtt
