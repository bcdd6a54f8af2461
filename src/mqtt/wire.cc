#include "mqtt/wire.h"

#include "base/utf8.h"

namespace penstock::mqtt {

bool is_valid_utf8(std::string_view text) noexcept { return utf8_fault(text) == std::string_view::npos; }

bool is_well_formed_utf8(std::string_view payload) noexcept {
    for (auto at = utf8_fault(payload); at != std::string_view::npos; at = utf8_fault(payload)) {
        if (payload[at] != '\0') return false;
        payload.remove_prefix(at + 1);
    }
    return true;
}

std::uint8_t WireReader::u8() noexcept {
    if (rest_.empty()) {
        fail(Refusal::packet_is_short);
        return 0;
    }
    const auto value = static_cast<std::uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return value;
}

std::uint16_t WireReader::u16() noexcept {
    const auto high = u8();
    return static_cast<std::uint16_t>(high << 8 | u8());
}

std::uint32_t WireReader::u32() noexcept {
    const std::uint32_t high = u16();
    return high << 16 | u16();
}

std::uint32_t WireReader::varint() noexcept {
    std::uint32_t value = 0;
    for (unsigned shift = 0; shift <= 21; shift += 7) {
        const auto byte = u8();
        value |= static_cast<std::uint32_t>(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            if (shift > 0 && byte == 0) fail(Refusal::varint_is_padded);
            return value;
        }
    }
    fail(Refusal::varint_is_long);
    return 0;
}

std::string_view WireReader::bytes(std::size_t size) noexcept {
    if (size > rest_.size()) {
        fail(Refusal::packet_is_short);
        return {};
    }
    const auto out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
}

std::string_view WireReader::binary() noexcept { return bytes(u16()); }

std::string_view WireReader::utf8() noexcept {
    const auto out = binary();
    if (const auto at = utf8_fault(out); at != std::string_view::npos) {
        fail(out[at] == '\0' ? Refusal::text_has_nul : Refusal::text_is_not_utf8);
        return {};
    }
    return out;
}

std::string_view WireReader::rest() noexcept {
    const auto out = rest_;
    rest_ = {};
    return out;
}

void WireWriter::varint(std::uint32_t value) {
    do {
        auto byte = static_cast<std::uint8_t>(value & 0x7F);
        value >>= 7;
        if (value > 0) byte |= 0x80;
        u8(byte);
    } while (value > 0);
}

FrameState cut_frame(std::string_view bytes, std::uint32_t size_max, Frame& out) noexcept {
    if (bytes.size() < 2) return FrameState::need_more;
    std::uint32_t length = 0;
    std::size_t at = 1;
    for (unsigned shift = 0;; shift += 7) {
        if (at >= bytes.size()) return FrameState::need_more;
        const auto byte = static_cast<std::uint8_t>(bytes[at++]);
        length |= static_cast<std::uint32_t>(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            out.is_padded = byte == 0 && shift > 0;
            break;
        }
        if (shift == 21) return FrameState::malformed;
    }
    const auto first = static_cast<std::uint8_t>(bytes[0]);
    out.type = static_cast<PacketType>(first >> 4);
    out.flags = first & 0x0F;
    out.size = at + length;
    if (out.size > size_max) return FrameState::too_large;
    if (out.size > bytes.size()) return FrameState::need_more;
    out.body = bytes.substr(at, length);
    return FrameState::complete;
}

}  // namespace penstock::mqtt
