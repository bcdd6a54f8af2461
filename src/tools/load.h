#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tls/context.h"

/// `penstock bench`: a load generator for any MQTT broker.
namespace penstock::tools {

struct LoadOptions {
    std::string scenario = "p2p";                 ///< see load_scenarios()
    std::string host = "127.0.0.1";
    std::uint16_t port = 1883;
    int version = 5;                              ///< 4 or 5
    int pairs = 10;                               ///< p2p: publisher/subscriber pairs
    int publishers = 200;                         ///< fan-in, shared
    int subscribers = 500;                        ///< fan-out, shared (members), wildcard
    int connections = 5000;                       ///< idle, connect
    int topics = 2000;                            ///< wildcard, retained
    int window = 32;                              ///< messages a publisher has under way
    int qos = 0;
    int payload = 16;                             ///< bytes; at least 12
    double seconds = 5;                           ///< length of the measured part
    double warm_up = 1;
    int rate = 2000;                              ///< latency: messages per second
    int messages = 100'000;                       ///< offline, retained: how many
    std::shared_ptr<const tls::Context> tls;      ///< null: plaintext
    std::string user_name, password;
    int broker_pid = 0;                           ///< 0: unknown; else its CPU and memory are reported
    bool json = false;
    bool progress = true;
    bool persistent = false;                      ///< sessions that outlive their connections
    bool subscribe_idle = false;                  ///< idle: each connection has one subscription
};

struct LoadReport {
    std::string scenario;
    std::uint64_t sent = 0;
    std::uint64_t delivered = 0;
    double seconds = 0;
    double broker_cpu_us_per_message = -1;        ///< -1: no pid given
    double own_cpu_us_per_message = 0;
    double broker_bytes_per_connection = -1;
    std::vector<std::pair<std::string, double>> figures;   ///< scenario's own, with their unit in the name
    std::string error;
};

std::vector<std::pair<std::string, std::string>> load_scenarios();
LoadReport run_load(const LoadOptions& options);
/// Prints the report as a table or as one JSON object; the exit status.
int print_report(const LoadOptions& options, const LoadReport& report);

}  // namespace penstock::tools
