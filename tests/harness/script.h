#pragma once
#include <memory>
#include <string>
#include <vector>

#include "broker/config.h"

namespace penstock::test {

/// One case of a .wire file: lines for several clients, with the statements it checks. See tests/wire/README.md.
struct Case {
    std::string file, name;
    int line = 0;
    std::vector<std::string> statements;
    std::vector<std::pair<int, std::string>> lines;    ///< number and text
    bool memory_only = false;                          ///< turns the clock, or sets what only a test can set
    broker::BrokerConfig config;
};

std::vector<Case> read_cases(const std::string& folder);

/// Bytes of one packet in the notation of the .wire files. `open_end` is set when it ends with `*`.
std::string packet_bytes(const std::string& text, bool& open_end);

/// What carries the bytes: memory, TCP or WebSocket.
class Transport {
  public:
    virtual ~Transport() = default;
    virtual void open(char client) = 0;
    virtual void send(char client, const std::string& bytes) = 0;
    /// The next whole packet, or nothing when none comes; `closed` tells that the broker ended the connection.
    virtual std::string receive(char client, bool& closed) = 0;
    virtual void drop(char client) = 0;
    virtual void wait(int milliseconds) = 0;
    /// Changes the broker's configuration live.
    virtual void configure(const broker::BrokerConfig& config) = 0;
};

std::unique_ptr<Transport> make_memory_transport(int cores, const broker::BrokerConfig& config, bool byte_at_a_time);
std::unique_ptr<Transport> make_network_transport(int workers, const broker::BrokerConfig& config, bool websocket, bool tls = false,
                                                  const std::string& folder = {});

/// Runs a case; the first thing that differs, or empty.
std::string run_case(const Case& c, Transport& transport);

}  // namespace penstock::test
