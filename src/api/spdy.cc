#include "api/spdy.h"

#include <zlib.h>

#include <utility>

#include <fmt/format.h>

#include "api/spdy_dictionary.h"

namespace penstock::api {
namespace {

constexpr std::size_t frame_max = 16 * 1024 * 1024, headers_max = 64 * 1024;
constexpr std::size_t unread_max = 32 * 1024 * 1024;     // answers that a peer may leave unread; what is forwarded stops earlier by itself
constexpr std::uint16_t syn_stream = 1, syn_reply = 2, rst_stream = 3, settings = 4, ping = 6, goaway = 7, headers_frame = 8, window_update = 9;

std::uint32_t number_at(std::string_view bytes, std::size_t at, std::size_t size) {
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < size; ++i) out = out << 8 | static_cast<unsigned char>(bytes[at + i]);
    return out;
}
void put(std::string& out, std::uint32_t value, int size) {
    for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}
Bytef* bytes_of(char* text) { return static_cast<Bytef*>(static_cast<void*>(text)); }
const Bytef* bytes_of(const char* text) { return static_cast<const Bytef*>(static_cast<const void*>(text)); }

void control_frame(std::string& out, std::uint16_t type, std::uint8_t flags, std::string_view body) {
    put(out, 0x8003, 2);
    put(out, type, 2);
    put(out, static_cast<std::uint32_t>(flags) << 24 | static_cast<std::uint32_t>(body.size()), 4);
    out += body;
}

}  // namespace

struct Spdy::Zlib {
    z_stream in{}, out{};
    Zlib() {
        inflateInit(&in);
        deflateInit(&out, Z_DEFAULT_COMPRESSION);
        deflateSetDictionary(&out, bytes_of(spdy_dictionary().data()), static_cast<uInt>(spdy_dictionary().size()));
    }
    ~Zlib() {
        inflateEnd(&in);
        deflateEnd(&out);
    }
};

Spdy::Spdy() : zlib_(std::make_unique<Zlib>()) {}
Spdy::~Spdy() = default;

Result<std::string> Spdy::inflate(std::string_view bytes) {
    auto& z = zlib_->in;
    std::string input(bytes), out;
    z.next_in = bytes_of(input.data());
    z.avail_in = static_cast<uInt>(input.size());
    while (true) {
        std::string chunk(4096, '\0');
        z.next_out = bytes_of(chunk.data());
        z.avail_out = static_cast<uInt>(chunk.size());
        auto code = ::inflate(&z, Z_SYNC_FLUSH);
        if (code == Z_NEED_DICT) {
            if (inflateSetDictionary(&z, bytes_of(spdy_dictionary().data()), static_cast<uInt>(spdy_dictionary().size())) != Z_OK) return fail("the header block uses another dictionary");
            code = ::inflate(&z, Z_SYNC_FLUSH);
        }
        if (code != Z_OK && code != Z_BUF_ERROR) return fail("a header block cannot be decompressed");
        out.append(chunk, 0, chunk.size() - z.avail_out);
        if (out.size() > headers_max) return fail("a header block is too large");
        if (z.avail_out != 0) break;
    }
    return out;
}

std::string Spdy::deflate(std::string_view bytes) {
    auto& z = zlib_->out;
    std::string input(bytes), out(deflateBound(&z, input.size()) + 64, '\0');
    z.next_in = bytes_of(input.data());
    z.avail_in = static_cast<uInt>(input.size());
    z.next_out = bytes_of(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    ::deflate(&z, Z_SYNC_FLUSH);
    out.resize(out.size() - z.avail_out);
    return out;
}

Result<std::vector<Spdy::Event>> Spdy::feed(std::string_view bytes) {
    in_ += bytes;
    std::vector<Event> out;
    while (in_.size() >= 8) {
        if (out_.size() > unread_max) return fail("the peer does not read what is answered");
        const auto size = number_at(in_, 5, 3);
        if (size > frame_max) return fail("a frame is too large");
        if (in_.size() < 8 + size) break;
        const bool is_control = (static_cast<unsigned char>(in_[0]) & 0x80) != 0;
        const auto flags = static_cast<std::uint8_t>(in_[4]);
        const std::string body = in_.substr(8, size);
        if (is_control) {
            const auto version = number_at(in_, 0, 2) & 0x7FFF;
            const auto type = static_cast<std::uint16_t>(number_at(in_, 2, 2));
            if (version != 3) return fail(fmt::format("SPDY version {} is not spoken here", version));
            if (auto done = control(type, flags, body, out); !done) return std::unexpected(done.error());
        } else {
            out.push_back({.type = Event::Type::data, .stream = number_at(in_, 0, 4) & 0x7FFFFFFF, .bytes = body, .is_last = (flags & 1) != 0});
        }
        in_.erase(0, 8 + size);
    }
    return out;
}

Result<void> Spdy::control(std::uint16_t type, std::uint8_t flags, std::string_view body, std::vector<Event>& out) {
    if (type == syn_stream) {
        if (body.size() < 10) return fail("SYN_STREAM is too short");
        const auto block = inflate(body.substr(10));
        if (!block) return std::unexpected(block.error());
        Event event{.type = Event::Type::opened, .stream = number_at(body, 0, 4) & 0x7FFFFFFF, .is_last = (flags & 1) != 0};
        if (block->size() < 4) return fail("a header block is too short");
        const auto count = number_at(*block, 0, 4);
        std::size_t at = 4;
        auto text = [&]() -> Result<std::string> {
            if (at + 4 > block->size()) return fail("a header block ends early");
            const auto size = number_at(*block, at, 4);
            at += 4;
            if (size > block->size() - at) return fail("a header block ends early");
            auto word = block->substr(at, size);
            at += size;
            return word;
        };
        for (std::uint32_t i = 0; i < count; ++i) {
            auto name = text();
            if (!name) return std::unexpected(name.error());
            auto value = text();
            if (!value) return std::unexpected(value.error());
            event.headers[*name] = *value;
        }
        std::string reply, none;
        put(reply, event.stream, 4);
        put(none, 0, 4);
        reply += deflate(none);
        control_frame(out_, syn_reply, 0, reply);
        out.push_back(std::move(event));
    } else if (type == ping) {
        control_frame(out_, ping, 0, body);
    } else if (type == rst_stream) {
        if (body.size() < 8) return fail("RST_STREAM is too short");
        out.push_back({.type = Event::Type::reset, .stream = number_at(body, 0, 4) & 0x7FFFFFFF});
    } else if (type == goaway) {
        out.push_back({.type = Event::Type::goaway});
    } else if (type != settings && type != window_update && type != syn_reply && type != headers_frame) {
        return fail(fmt::format("control frame {} is not known", type));
    }
    return {};
}

void Spdy::send(std::uint32_t stream, std::string_view bytes, bool last) {
    put(out_, stream & 0x7FFFFFFF, 4);
    put(out_, (last ? 1U << 24 : 0U) | static_cast<std::uint32_t>(bytes.size()), 4);
    out_ += bytes;
}

void Spdy::reset(std::uint32_t stream) {
    std::string body;
    put(body, stream, 4);
    put(body, 5, 4);   // CANCEL
    control_frame(out_, rst_stream, 0, body);
}

std::string Spdy::take_output() { return std::exchange(out_, {}); }

}  // namespace penstock::api
