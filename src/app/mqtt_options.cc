#include "app/mqtt_options.h"

#include <iostream>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::app {
namespace {

/// mosquitto's -D takes three words, or four for a user property; CLI11 has no such option, so they are taken
/// out first.
void take_out(std::vector<std::string>& words, MqttWords& into) {
    for (std::size_t i = 0; i < words.size();) {
        if (words[i] != "-D" && words[i] != "--property") {
            ++i;
            continue;
        }
        const std::size_t count = i + 2 < words.size() && words[i + 2] == "user-property" ? 4 : 3;
        if (i + count >= words.size()) {
            into.fault = "-D needs PACKET NAME VALUE (two values for user-property)";
            return;
        }
        std::string joined = words[i + 1];
        for (std::size_t k = 2; k <= count; ++k) joined += '\x1f' + words[i + k];
        into.properties.push_back(std::move(joined));
        words.erase(words.begin() + static_cast<std::ptrdiff_t>(i),
                    words.begin() + static_cast<std::ptrdiff_t>(i + count + 1));
    }
}

}  // namespace

void add_tls_options(Command& command, tools::TlsFiles& tls) {
    command.option("--cafile", tls.ca_file, "TLS: trusted certificates, PEM");
    command.option("--cert", tls.certificate_file, "TLS: client certificate with its intermediates, PEM");
    command.option("--key", tls.key_file, "TLS: its private key, PEM");
    command.flag("--tls", tls.wanted, "TLS with the system's trusted certificates");
    command.option("--tls-version", tls.version, "TLS: tlsv1.2 or tlsv1.3; both when absent");
    command.option("--servername", tls.server_name,
                   "TLS: name the broker's certificate must have; the host when absent");
    command.flag("--insecure", tls.insecure, "TLS: do not compare the name with the certificate");
}

void add_mqtt_options(Command& command, tools::CommonOptions& o, MqttWords& w) {
    command.frees_short_help();
    command.option("-h,--host", o.target.host, "Broker host").shows_default();
    command.option("-p,--port", w.port, "Broker port").shows_default().between(1, 65'535);
    command.flag("--ws", o.target.websocket, "MQTT over WebSocket");
    command.option("-i,--id", o.connect.client_id, "Client id; chosen when absent");
    command.option("-u,--username", w.user, "User name");
    command.option("-P,--pw", w.password, "Password");
    command.option("-V,--protocol-version", w.version, "mqttv5 (5), mqttv311 (311) or mqttv31 (31)")
        .shows_default();
    add_tls_options(command, o.tls);
    command.option("-k,--keepalive", w.keep_alive, "Keep alive in seconds")
        .shows_default()
        .between(0, 65'535);
    command.flag("-c,--disable-clean-session", w.persistent, "Keep the session (needs -i)");
    command.option("-x,--session-expiry-interval", w.session_expiry, "Session expiry in seconds (version 5)");
    command.option("--will-topic", w.will_topic, "Will topic");
    command.option("--will-payload", w.will_payload, "Will payload");
    command.option("--will-qos", w.will_qos, "Will QoS").between(0, 2);
    command.flag("--will-retain", w.will_retain, "Retain the will");
    command.flag("-d,--debug", o.debug, "Show packets");
    command.flag("--quiet", o.quiet, "No error messages");
    command.footer(
        "MQTT 5 properties, as often as needed: -D PACKET NAME VALUE, e.g. -D publish content-type "
        "text/plain, -D connect user-property NAME VALUE");
}

void take_properties(Command& command, MqttWords& words) {
    command.takes_out([&words](std::vector<std::string>& line) { take_out(line, words); });
}

Result<void> finish(tools::CommonOptions& o, const MqttWords& w) {
    if (!w.fault.empty()) return fail(w.fault);
    o.properties = w.properties;
    o.target.port = static_cast<std::uint16_t>(w.port);
    o.connect.keep_alive = static_cast<std::uint16_t>(w.keep_alive);
    const auto v = to_lower(w.version);
    if (v == "5" || v == "mqttv5") o.connect.version = mqtt::Version::v5;
    else if (v == "311" || v == "mqttv311") o.connect.version = mqtt::Version::v311;
    else if (v == "31" || v == "mqttv31") o.connect.version = mqtt::Version::v31;
    else return fail(fmt::format("-V: \"{}\" is none of mqttv5, mqttv311, mqttv31", w.version));
    if (w.persistent && o.connect.client_id.empty()) return fail("-c needs a client id (-i)");
    o.connect.clean_start = !w.persistent;
    auto expiry = w.session_expiry;
    if (w.persistent && expiry == 0) expiry = 0xFFFF'FFFF;
    if (o.connect.version == mqtt::Version::v5 && expiry > 0)
        o.connect.properties.push_back(
            {.id = mqtt::PropertyId::session_expiry_interval, .number = expiry});
    if (!w.user.empty()) o.connect.user_name = w.user;
    if (!w.password.empty()) o.connect.password = w.password;
    if (!w.will_topic.empty()) {
        o.connect.has_will = true;
        o.connect.will_topic = w.will_topic;
        o.connect.will_payload = w.will_payload;
        o.connect.will_qos = static_cast<mqtt::Qos>(w.will_qos);
        o.connect.will_retain = w.will_retain;
    } else if (!w.will_payload.empty()) {
        return fail("--will-payload needs --will-topic");
    }
    return {};
}

int mqtt_problem(const std::string& text) {
    std::cerr << "Error: " << text << "\n";
    return 1;
}

}  // namespace penstock::app
