#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::api {

/// The part of SPDY/3.1 that Kubernetes' port-forward speaks: streams with headers, data, end. Sans-I/O: bytes in, events and
/// bytes out. Core: whoever owns the connection.
class Spdy {
  public:
    struct Event {
        enum class Type : std::uint8_t { opened, data, reset, goaway } type{};
        std::uint32_t stream = 0;
        std::map<std::string, std::string> headers;   ///< of an opened stream, names in lower case
        std::string bytes;
        bool is_last = false;                         ///< the peer sends nothing more on the stream
    };

    Spdy();
    ~Spdy();
    Spdy(const Spdy&) = delete;
    Spdy& operator=(const Spdy&) = delete;

    /// Takes bytes of the peer. The error means the connection cannot go on. Answers (replies, pings) are put into output().
    Result<std::vector<Event>> feed(std::string_view bytes);
    /// Data on a stream; `last` ends our side of it.
    void send(std::uint32_t stream, std::string_view bytes, bool last);
    void reset(std::uint32_t stream);
    /// What is to be written to the peer, and is then taken.
    std::string take_output();
    /// Bytes waiting there.
    [[nodiscard]] std::size_t pending() const { return out_.size(); }

  private:
    struct Zlib;
    Result<void> control(std::uint16_t type, std::uint8_t flags, std::string_view body, std::vector<Event>& out);
    Result<std::string> inflate(std::string_view bytes);
    std::string deflate(std::string_view bytes);

    std::string in_, out_;
    std::unique_ptr<Zlib> zlib_;
};

}  // namespace penstock::api
