#pragma once
// What `pub`, `sub`, `state` and `bench` share: how mosquitto's clients are told whom to connect to, and as
// whom.
#include <cstdint>
#include <string>
#include <vector>

#include "app/commands.h"
#include "base/result.h"
#include "tools/mqtt_cli.h"

namespace penstock::app {

/// Words of a command line that are no fields of tools::CommonOptions yet.
struct MqttWords {
    std::string version = "5";
    bool persistent = false;
    std::string user, password, will_topic, will_payload;
    int will_qos = 0;
    bool will_retain = false;
    int keep_alive = 60;
    int port = 1883;
    std::uint32_t session_expiry = 0;
    std::vector<std::string> properties;      ///< of -D
    std::string fault;                        ///< of -D; empty: none
};

void add_tls_options(Command& command, tools::TlsFiles& tls);
/// All of them but -D.
void add_mqtt_options(Command& command, tools::CommonOptions& options, MqttWords& words);
/// -D, which the parser has no option for: it is taken out of the line first; of a group, for all commands
/// below.
void take_properties(Command& command, MqttWords& words);
/// Puts the words into the options. The error is one line for a person.
Result<void> finish(tools::CommonOptions& options, const MqttWords& words);
/// `Error: TEXT` on standard error, as mosquitto's clients begin theirs; 1.
int mqtt_problem(const std::string& text);

}  // namespace penstock::app
