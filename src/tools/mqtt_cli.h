#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "mqtt/packets.h"
#include "mqttc/client.h"

/// `penstock pub` and `penstock sub`: mosquitto's users find their options again.
namespace penstock::tools {

/// TLS as mosquitto's clients are told about it: files, PEM.
struct TlsFiles {
    std::string ca_file, certificate_file, key_file, version, server_name;
    bool wanted = false;                          ///< TLS although no file is named: the system's CAs
    bool insecure = false;                        ///< the name is not compared (mosquitto's --insecure)
};
/// Nothing when no TLS is wanted; the error names the file.
Result<std::shared_ptr<const tls::Context>> make_tls(const TlsFiles& files, bool websocket);

struct CommonOptions {
    mqttc::Target target;
    mqtt::ConnectOptions connect;
    std::vector<std::string> properties;          ///< each: "PACKET NAME VALUE [VALUE2]", as mosquitto's -D
    bool debug = false;
    bool quiet = false;
    TlsFiles tls;
};

struct PubOptions : CommonOptions {
    std::string topic;
    std::optional<std::string> message;
    std::string file;
    bool lines = false;                           ///< one message per line of standard input
    bool whole_input = false;
    bool null_message = false;
    int qos = 0;
    bool retain = false;
    int repeat = 1;
    double repeat_delay = 0;                      ///< seconds
};

struct SubOptions : CommonOptions {
    std::vector<std::string> filters;
    std::vector<std::string> filter_out;
    std::vector<std::string> unsubscribe;
    int qos = 0;
    bool verbose = false;
    int count = 0;                                ///< 0: for ever
    int wait_s = 0;                               ///< 0: for ever
    bool no_newline = false;
    bool no_retained = false;
    bool retained_only = false;
    bool remove_retained = false;
    bool retain_as_published = false;
    bool exit_after_subscribe = false;
    std::string format;
};

/// Connects as Client::connect; an error also says what would be right, as far as that can be told: another
/// port, TLS or none, WebSocket or none.
Result<void> connect_to_broker(mqttc::Client& client, const CommonOptions& options);
/// Where the broker may be reached, for whoever found nobody: `why` is io::connect_tcp's error.
std::string nobody_there(const std::string& why);
/// `-D connect ...` and `-D will ...` into the CONNECT.
Result<void> take_connect_properties(CommonOptions& options);
/// Exit status as mosquitto_pub: 0, 1 on an error (told on standard error), 27 when sub's time is over without a message.
int run_pub(PubOptions options);
int run_sub(SubOptions options);
/// One line of `sub -F`.
std::string format_message(const std::string& format, const mqtt::PublishView& message);

}  // namespace penstock::tools
