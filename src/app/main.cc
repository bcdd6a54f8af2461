#include <CLI/CLI.hpp>

#include <iostream>
#include <map>

#include <fmt/format.h>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/terminal.h"
#include "app/terminal_guard.h"
#include "base/text.h"
#include "io/process.h"
#include "tools/load.h"
#include "tools/mqtt_cli.h"
#include "tools/state_cli.h"

namespace {

using namespace penstock;

/// mosquitto's -D takes three words, or four for a user property; CLI11 has no such option, so they are taken out first.
std::vector<std::string> take_properties(std::vector<std::string>& words, std::string& fault) {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < words.size();) {
        if (words[i] != "-D" && words[i] != "--property") {
            ++i;
            continue;
        }
        const std::size_t count = i + 2 < words.size() && words[i + 2] == "user-property" ? 4 : 3;
        if (i + count >= words.size()) {
            fault = "-D needs PACKET NAME VALUE (two values for user-property)";
            return out;
        }
        std::string joined = words[i + 1];
        for (std::size_t k = 2; k <= count; ++k) joined += '\x1f' + words[i + k];
        out.push_back(std::move(joined));
        words.erase(words.begin() + static_cast<std::ptrdiff_t>(i), words.begin() + static_cast<std::ptrdiff_t>(i + count + 1));
    }
    return out;
}

struct MqttWords {
    std::string version = "5";
    bool persistent = false;
    std::string user, password, will_topic, will_payload;
    int will_qos = 0;
    bool will_retain = false;
    int keep_alive = 60;
    int port = 1883;
    std::uint32_t session_expiry = 0;
};

void add_tls(CLI::App& app, tools::TlsFiles& tls) {
    app.add_option("--cafile", tls.ca_file, "TLS: trusted certificates, PEM");
    app.add_option("--cert", tls.certificate_file, "TLS: client certificate with its intermediates, PEM");
    app.add_option("--key", tls.key_file, "TLS: its private key, PEM");
    app.add_flag("--tls", tls.wanted, "TLS with the system's trusted certificates");
    app.add_option("--tls-version", tls.version, "TLS: tlsv1.2 or tlsv1.3; both when absent");
    app.add_option("--servername", tls.server_name, "TLS: name the broker's certificate must have; the host when absent");
    app.add_flag("--insecure", tls.insecure, "TLS: do not compare the name with the certificate");
}

void add_common(CLI::App& app, tools::CommonOptions& o, MqttWords& w) {
    app.set_help_flag("--help", "Print this help");
    app.add_option("-h,--host", o.target.host, "Broker host")->capture_default_str();
    app.add_option("-p,--port", w.port, "Broker port")->capture_default_str()->check(CLI::Range(1, 65'535));
    app.add_flag("--ws", o.target.websocket, "MQTT over WebSocket");
    app.add_option("-i,--id", o.connect.client_id, "Client id; chosen when absent");
    app.add_option("-u,--username", w.user, "User name");
    app.add_option("-P,--pw", w.password, "Password");
    app.add_option("-V,--protocol-version", w.version, "mqttv5 (5), mqttv311 (311) or mqttv31 (31)")->capture_default_str();
    add_tls(app, o.tls);
    app.add_option("-k,--keepalive", w.keep_alive, "Keep alive in seconds")->capture_default_str()->check(CLI::Range(0, 65'535));
    app.add_flag("-c,--disable-clean-session", w.persistent, "Keep the session (needs -i)");
    app.add_option("-x,--session-expiry-interval", w.session_expiry, "Session expiry in seconds (version 5)");
    app.add_option("--will-topic", w.will_topic, "Will topic");
    app.add_option("--will-payload", w.will_payload, "Will payload");
    app.add_option("--will-qos", w.will_qos, "Will QoS")->check(CLI::Range(0, 2));
    app.add_flag("--will-retain", w.will_retain, "Retain the will");
    app.add_flag("-d,--debug", o.debug, "Show packets");
    app.add_flag("--quiet", o.quiet, "No error messages");
    app.footer("MQTT 5 properties, as often as needed: -D PACKET NAME VALUE, e.g. -D publish content-type text/plain, -D connect user-property NAME VALUE");
}

std::string finish_common(tools::CommonOptions& o, const MqttWords& w) {
    o.target.port = static_cast<std::uint16_t>(w.port);
    o.connect.keep_alive = static_cast<std::uint16_t>(w.keep_alive);
    const auto v = to_lower(w.version);
    if (v == "5" || v == "mqttv5") o.connect.version = mqtt::Version::v5;
    else if (v == "311" || v == "mqttv311") o.connect.version = mqtt::Version::v311;
    else if (v == "31" || v == "mqttv31") o.connect.version = mqtt::Version::v31;
    else return fmt::format("-V: \"{}\" is none of mqttv5, mqttv311, mqttv31", w.version);
    if (w.persistent && o.connect.client_id.empty()) return "-c needs a client id (-i)";
    o.connect.clean_start = !w.persistent;
    auto expiry = w.session_expiry;
    if (w.persistent && expiry == 0) expiry = 0xFFFF'FFFF;
    if (o.connect.version == mqtt::Version::v5 && expiry > 0) o.connect.properties.push_back({.id = mqtt::PropertyId::session_expiry_interval, .number = expiry});
    if (!w.user.empty()) o.connect.user_name = w.user;
    if (!w.password.empty()) o.connect.password = w.password;
    if (!w.will_topic.empty()) {
        o.connect.has_will = true;
        o.connect.will_topic = w.will_topic;
        o.connect.will_payload = w.will_payload;
        o.connect.will_qos = static_cast<mqtt::Qos>(w.will_qos);
        o.connect.will_retain = w.will_retain;
    } else if (!w.will_payload.empty()) {
        return "--will-payload needs --will-topic";
    }
    return {};
}

void add_run(CLI::App& app, app::RunOptions& o) {
    app.add_option("-f,--filename", o.files, "Manifests to apply and follow: files or folders");
    app.add_option("--data-dir", o.data_folder, "Where state is kept")->capture_default_str();
    app.add_option("--api-address", o.api_address, "Address of the resource API")->capture_default_str();
    app.add_option("--api-port", o.api_port, "Port of the resource API; 0 picks one")->capture_default_str()->check(CLI::Range(0, 65'535));
    app.add_option("--log-level", o.log_level, "Log level until the Broker resource is read")->capture_default_str();
}

/// `penstock get` of a command below the root.
std::string path_of(const CLI::App& command) {
    const auto* above = command.get_parent();
    return above == nullptr ? command.get_name() : path_of(*above) + " " + command.get_name();
}

std::vector<std::string> names_of(const CLI::App& group) {
    std::vector<std::string> out;
    for (const auto* command : group.get_subcommands([](const CLI::App*) { return true; }))
        out.push_back(command->get_name());
    return out;
}

/// The command that words lead to, as far as they do; `at` is the first word that is none.
CLI::App* command_at(CLI::App& root, const std::vector<std::string>& words, std::size_t& at) {
    auto* here = &root;
    for (at = 0; at < words.size(); ++at) {
        const auto below =
            here->get_subcommands([&](const CLI::App* one) { return one->check_name(words[at]); });
        if (below.empty()) break;
        here = below.front();
    }
    return here;
}

int unknown_command(const CLI::App& group, const std::string& word) {
    const auto near = nearest(word, names_of(group));
    const bool is_slip = !near.empty() && to_lower(word).starts_with(near);   // `create configmaps`
    if (const auto why = is_slip ? "" : app::why_no_command(path_of(group), word); !why.empty()) {
        std::cerr << fmt::format("error: {}\n", why);
        return 1;
    }
    std::cerr << fmt::format("error: unknown command \"{}\" for \"{}\"\n", printable(clipped(word, 100)),
                             path_of(group));
    if (!near.empty())
        std::cerr << fmt::format("\nDid you mean this?\n\t{}\n", near);
    std::cerr << fmt::format("\nSee '{} --help' for usage.\n", path_of(group));
    return 1;
}

/// What is wrong with a command line, in kubectl's words: the nearest command or flag is named. 1.
int explain_words(CLI::App& root, const std::vector<std::string>& words, const CLI::ParseError& error) {
    std::size_t at = 0;
    const auto& command = *command_at(root, words, at);
    const bool is_group = !names_of(command).empty();
    std::string why = error.what();
    if (is_group && at < words.size() && !words[at].starts_with('-'))
        return unknown_command(command, words[at]);
    if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr)
        for (; at < words.size() && words[at] != "--"; ++at) {
            const auto& word = words[at];
            if (word.size() < 2 || word[0] != '-' || (word[1] >= '0' && word[1] <= '9')) continue;
            if (!word.starts_with("--")) {
                // Short flags may stand together (-Aw); the value of one may follow it at once.
                if (command.get_option_no_throw(word.substr(0, 2)) != nullptr) continue;
                why = fmt::format("unknown shorthand flag: '{}' in {}", printable(word.substr(1, 1)),
                                  printable(clipped(word, 100)));
                break;
            }
            const auto name = word.substr(0, word.find('='));
            if (const auto kubectls = name == "--image" ? app::why_no_command(path_of(command), "") : "";
                !kubectls.empty()) {
                std::cerr << fmt::format("error: {}\n", kubectls);
                return 1;
            }
            if (command.get_option_no_throw(name) != nullptr) continue;
            std::vector<std::string> known;
            for (const auto* option : command.get_options())
                for (const auto& long_name : option->get_lnames()) known.push_back("--" + long_name);
            const auto near = nearest(name, known);
            why = fmt::format("unknown flag: {}{}", printable(clipped(name, 100)),
                              near.empty() ? "" : fmt::format("\n\nDid you mean this?\n\t{}\n", near));
            break;
        }
    std::cerr << fmt::format("error: {}\nSee '{} --help' for usage.\n", why, path_of(command));
    return 1;
}

app::CommandWords words_of(const CLI::App& command) {
    app::CommandWords out{.name = command.get_name(), .doc = command.get_description()};
    for (const auto* option : command.get_options())
        for (const auto& name : option->get_lnames())
            out.flags.emplace_back("--" + name, option->get_description());
    for (const auto* option : command.get_options()) {
        if (option->get_items_expected_min() == 0) continue;
        for (const auto& name : option->get_lnames()) out.valued.push_back("--" + name);
        for (const auto& name : option->get_snames()) out.valued.push_back("-" + name);
    }
    for (const auto* inner : command.get_subcommands([](const CLI::App*) { return true; }))
        out.commands.push_back(words_of(*inner));
    return out;
}

/// What has one value and is given twice has the last one, as for kubectl, mosquitto_pub and units that systemd
/// puts together.
void let_the_last_win(CLI::App& command) {
    for (auto* option : command.get_options())
        if (!option->get_positional() && option->get_expected_max() == 1 &&
            option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw)
            option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    for (auto* inner : command.get_subcommands([](const CLI::App*) { return true; }))
        let_the_last_win(*inner);
}

void add_api(CLI::App& app, app::ResourceOptions& o) {
    app.add_option("--kubeconfig", o.kubeconfig, "Kubeconfig file; KUBECONFIG or the one that `penstock run` wrote when absent");
    app.add_option("-n,--namespace", o.name_space, "Namespace (azure-iot-operations)");
}

/// `annotate` and `label`.
CLI::App* add_mark(CLI::App& root, const char* name, const char* doc, app::ResourceOptions& o,
                   app::MarkOptions& how) {
    auto* command = root.add_subcommand(name, doc);
    add_api(*command, o);
    command->add_option("words", o.words, "KIND NAME... KEY=VALUE... KEY-...");
    command->add_option("-f,--filename", o.files, "Those of a file, folder or -")->allow_extra_args(false);
    command->add_option("-l,--selector", o.selector, "Those with these labels");
    command->add_flag("--all", o.all, "All of the kind in the namespace");
    command->add_flag("--overwrite", how.overwrite, "A key that has another value gets this one");
    command->add_option("-o,--output", o.output, "json, yaml or name")
        ->check(CLI::IsMember({"json", "yaml", "name"}));
    command->add_flag("--dry-run", o.dry_run, "Check only");
    return command;
}

void add_sources(CLI::App* command, app::CreateOptions& o) {
    command->add_option("--from-literal", o.literals, "KEY=VALUE; may be repeated")->allow_extra_args(false);
    command->add_option("--from-file", o.files, "FILE, KEY=FILE or FOLDER; may be repeated")->allow_extra_args(false);
    command->add_option("--from-env-file", o.env_files, "File of lines KEY=VALUE; may be repeated")
        ->allow_extra_args(false);
}

void add_password(CLI::App& command, app::PasswordOptions& o) {
    command.add_option("secret", o.secret, "Secret; made when absent")->required();
    command.add_option("user", o.user, "User name");
    command.add_option("--password-file", o.file,
                       "Read the password from a file; else it is asked for, or the first line of standard input");
    command.add_flag("--delete", o.remove, "Remove the user");
    command.add_flag("--print", o.print, "Print the hash and change nothing");
    auto* all = command.add_option("--import", o.import_file,
                                   "All users of a password file of Mosquitto, with their passwords");
    for (const auto* other : {"user", "--password-file", "--delete", "--print"})
        all->excludes(command.get_option(other));
}

}  // namespace

int main(int argc, char** argv) {
    penstock::io::hold_standard_descriptors();
    app::guard_terminals();
    std::vector<std::string> words(argv + 1, argv + argc);
    std::string fault;
    std::vector<std::string> properties;
    if (!words.empty() && (words[0] == "pub" || words[0] == "sub" || words[0] == "state")) properties = take_properties(words, fault);

    CLI::App root{"Penstock: an industrial MQTT broker configured by Kubernetes-style resources"};
    root.name("penstock");
    root.require_subcommand(1);
    root.footer("\nUse \"penstock help COMMAND\" for more information about a command.");
    root.set_version_flag("--version", app::version);

    app::RunOptions run_options;
    run_options.data_folder = app::default_data_folder();
    auto* run = root.add_subcommand("run", "Run broker, resource API and controllers in one process");
    add_run(*run, run_options);

    auto* api = root.add_subcommand("api", "Run the resource API and its controllers without a broker");
    add_run(*api, run_options);
    app::BrokerRoleOptions broker_options;
    auto* broker = root.add_subcommand("broker", "Run the broker over a resource API elsewhere (penstock api, or a cluster's)");
    broker->add_option("--kubeconfig", broker_options.kubeconfig, "Kubeconfig; in a pod the mounted account when absent");
    broker->add_option("-n,--namespace", broker_options.name_space, "Namespace of the resources")->capture_default_str();
    broker->add_option("--data-dir", broker_options.data_folder, "Where a Broker with persistence keeps its state");
    broker->add_option("--log-level", broker_options.log_level, "Log level until the Broker resource is read")->capture_default_str();

    app::ResourceOptions resource;
    auto* get = root.add_subcommand("get", "Show resources: penstock get KIND [NAME], KIND/NAME, KIND,KIND");
    add_api(*get, resource);
    get->add_option("words", resource.words, "KIND [NAME...]");
    get->add_option("-o,--output", resource.output,
                    "wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=NAME:.path,... or "
                    "custom-columns-file=FILE");
    get->add_option("-l,--selector", resource.selector, "Label selector");
    get->add_option("--field-selector", resource.field_selector, "Field selector, for example metadata.name=x");
    get->add_option("--sort-by", resource.sort_by, "Order by a JSONPath, for example .metadata.creationTimestamp");
    get->add_flag("--show-managed-fields", resource.show_managed_fields,
                  "Who owns which field, in JSON and YAML");
    get->add_flag("--show-labels", resource.show_labels, "Labels as the last column");
    get->add_flag("-A,--all-namespaces", resource.all_namespaces, "All namespaces");
    get->add_flag("-w,--watch", resource.watch, "Follow changes");
    get->add_flag("--no-headers", resource.no_headers, "No column headings");
    get->add_flag("--ignore-not-found", resource.ignore_not_found, "No error when absent");
    auto* apply = root.add_subcommand("apply", "Create or change resources from files");
    add_api(*apply, resource);
    apply->add_option("-f,--filename", resource.files, "File, folder or -")->required();
    apply->add_flag("--dry-run", resource.dry_run, "Check only");
    apply->add_flag("--server-side", resource.server_side, "Server-side apply: fields are owned, conflicts are told");
    apply->add_flag("--force-conflicts", resource.force_conflicts, "Server-side: take conflicting fields over");
    apply->add_option("--field-manager", resource.field_manager, "Name under which fields are owned");
    auto* remove = root.add_subcommand("delete", "Delete resources: by file, or KIND NAME");
    add_api(*remove, resource);
    remove->add_option("words", resource.words, "KIND NAME...");
    remove->add_option("-f,--filename", resource.files, "File, folder or -");
    remove->add_option("-l,--selector", resource.selector, "Those with these labels");
    remove->add_flag("--all", resource.all, "All of the kind in the namespace");
    remove->add_option("--cascade", resource.cascade, "background, foreground or orphan")->check(CLI::IsMember({"background", "foreground", "orphan"}))->capture_default_str();
    remove->add_flag("--no-wait", resource.no_wait, "Do not wait until finalizers are done");
    remove->add_flag("--ignore-not-found", resource.ignore_not_found, "No error when absent");
    app::PatchOptions patch_options;
    auto* patch =
        root.add_subcommand("patch", "Change fields of a resource: penstock patch KIND NAME -p PATCH");
    add_api(*patch, resource);
    patch->add_option("words", resource.words, "KIND NAME...");
    patch->add_option("-p,--patch", patch_options.patch, "The patch, JSON or YAML");
    patch->add_option("--patch-file", patch_options.file, "File with the patch, or -");
    patch
        ->add_option("--type", patch_options.type,
                     "json, merge or strategic; as the kind takes it when absent")
        ->check(CLI::IsMember({"json", "merge", "strategic"}));
    patch->add_option("--subresource", patch_options.subresource, "status")->check(CLI::IsMember({"status"}));
    patch->add_option("-o,--output", resource.output, "json, yaml or name")
        ->check(CLI::IsMember({"json", "yaml", "name"}));
    patch->add_flag("--dry-run", resource.dry_run, "Check only");
    app::MarkOptions mark;
    auto* annotate = add_mark(root, "annotate", "Set annotations: penstock annotate KIND NAME K=V K-", resource, mark);
    auto* label = add_mark(root, "label", "Set labels: penstock label KIND NAME K=V K-", resource, mark);
    auto* edit = root.add_subcommand(
        "edit", "Change a resource in an editor (KUBE_EDITOR, EDITOR, vi): penstock edit KIND NAME");
    add_api(*edit, resource);
    edit->add_option("words", resource.words, "KIND NAME...");
    auto* validate = root.add_subcommand("validate", "Check manifests without a running Penstock");
    validate->add_option("-f,--filename", resource.files, "File, folder or -")->required();
    app::VersionOptions version_options;
    auto* show_version = root.add_subcommand("version", "Versions of this program and of the server");
    add_api(*show_version, resource);
    show_version->add_flag("--client", version_options.client_only, "This program alone, no server is asked");
    show_version->add_option("-o,--output", version_options.output, "json or yaml");
    auto* kinds = root.add_subcommand("api-resources", "List the kinds");
    add_api(*kinds, resource);
    auto* describe = root.add_subcommand("describe", "Show resources at length, with their Events: penstock describe KIND [NAME]");
    add_api(*describe, resource);
    describe->add_option("words", resource.words, "KIND [NAME...]");
    describe->add_flag("-A,--all-namespaces", resource.all_namespaces, "All namespaces");
    auto* explain = root.add_subcommand("explain", "Show what a field means: penstock explain brokerlistener.spec.ports");
    add_api(*explain, resource);
    explain->add_option("words", resource.words, "KIND[.FIELD...]");
    app::WaitOptions wait_options;
    auto* wait = root.add_subcommand("wait", "Wait until a resource is as wanted: penstock wait KIND/NAME --for=...");
    add_api(*wait, resource);
    wait->add_option("words", resource.words, "KIND/NAME or KIND NAME...");
    wait->add_option("--for", wait_options.condition, "condition=NAME[=VALUE], jsonpath='{PATH}'=VALUE, delete or create")->required();
    wait->add_option("--timeout", wait_options.timeout, "How long, for example 30s")->capture_default_str();
    app::LogOptions log_options;
    auto* logs = root.add_subcommand("logs", "Show the log of a role: penstock logs aio-broker-frontend-0");
    add_api(*logs, resource);
    logs->add_option("words", resource.words, "POD");
    logs->add_option("-c,--container", log_options.container, "Container");
    logs->add_flag("-p,--previous", log_options.previous, "Those of the run before");
    logs->add_flag("-f,--follow", log_options.follow, "Go on with new lines");
    logs->add_option("--tail", log_options.tail, "Only the last lines")->check(CLI::NonNegativeNumber);
    logs->add_option("--since", log_options.since, "Only lines younger than this, for example 5m");
    logs->add_flag("--timestamps", log_options.timestamps, "Time before each line");
    app::TokenOptions token_options;
    auto* create = root.add_subcommand("create", "Create: penstock create secret tls NAME --cert=CHAIN.crt --key=KEY.key");
    create->require_subcommand(1);
    app::CreateOptions create_options;
    std::map<std::string, CLI::App*> creators;
    auto add_creator = [&](CLI::App& group, const std::string& what, const char* doc) {
        const auto name = what.substr(what.rfind(' ') + 1);
        auto* command = group.add_subcommand(name, doc);
        creators[what] = command;
        add_api(*command, resource);
        command->add_option("name", create_options.name, "Name")->required();
        // As for kubectl: `--dry-run` alone means the client's, and a value stands behind `=`.
        command->add_flag("--dry-run{client}", create_options.dry_run, "client: show what would be sent; server: have it checked; none")
            ->check(CLI::IsMember({"none", "client", "server"}));
        command->add_option("-o,--output", resource.output, "json, yaml or name")->check(CLI::IsMember({"json", "yaml", "name"}));
        return command;
    };
    auto* config_map = add_creator(*create, "configmap", "ConfigMap of literals and files");
    config_map->alias("cm");
    add_sources(config_map, create_options);
    add_creator(*create, "namespace", "Namespace")->alias("ns");
    auto* secret = create->add_subcommand("secret", "Secret: penstock create secret generic|tls NAME");
    secret->require_subcommand(1);
    auto* generic = add_creator(*secret, "secret generic", "Secret of literals and files");
    add_sources(generic, create_options);
    generic->add_option("--type", create_options.type, "Type of the Secret; Opaque when absent");
    auto* secret_tls = add_creator(*secret, "secret tls", "Secret of a certificate and its key");
    secret_tls->add_option("--cert", create_options.certificate, "Certificate with its intermediates, PEM")->required();
    secret_tls->add_option("--key", create_options.key, "Its private key, PEM")->required();
    add_creator(*create, "serviceaccount", "ServiceAccount")->alias("sa");
    auto* token = create->add_subcommand("token", "Token of a service account");
    add_api(*token, resource);
    token->add_option("name", token_options.name, "Service account")->required();
    token->add_option("--audience", token_options.audiences, "Who accepts it; may be repeated")->allow_extra_args(false);
    token->add_option("--duration", token_options.duration, "How long it lives, at least 10m");
    app::AccessOptions access;
    auto* auth = root.add_subcommand("auth", "Who may do what, who was refused and why, what a new policy would change");
    auth->require_subcommand(1);
    auto add_auth = [&](const char* name, const char* doc) {
        auto* command = auth->add_subcommand(name, doc);
        add_api(*command, resource);
        return command;
    };
    auto* can_i = add_auth("can-i", "May a client do this? penstock auth can-i publish plant/t --client fan-01");
    auto* who_can = add_auth("who-can", "Which rules allow this? penstock auth who-can subscribe plant/#");
    for (auto* command : {can_i, who_can}) {
        command->add_option("action", access.action, "connect, publish, subscribe, read or write")->required();
        command->add_option("target", access.target, "Topic, filter or key");
        command->add_option("--policy", access.policy, "This BrokerAuthorization alone");
        command->add_option("--listener", access.listener, "Those of this listener's ports");
    }
    can_i->add_option("--client", access.client, "Client id; when it is connected, its identity is taken from there");
    can_i->add_option("--user", access.user, "User name (a certificate's CN)");
    can_i->add_option("--attribute", access.attributes, "NAME=VALUE; may be repeated")->allow_extra_args(false);
    auto* auth_explain = add_auth("explain", "What was refused lately, and why: penstock auth explain [CLIENT]");
    auth_explain->add_option("client", access.client, "Client id, user name or address");
    auth_explain->add_option("--since", access.since, "Only younger than this, for example 5m");
    auth_explain->add_flag("--json", access.json, "As JSON");
    auto* auth_clients = add_auth("clients", "Who is connected where clients are asked who they are");
    auth_clients->add_flag("--json", access.json, "As JSON");
    auto* dry_run = add_auth("dry-run", "Who would lose what by another policy: penstock auth dry-run -f policy.yaml");
    dry_run->add_option("-f,--filename", resource.files, "File with the BrokerAuthorization, or -")->required();
    dry_run->add_option("--listener", access.listener, "Clients of this listener alone");

    app::TraceOptions trace_options;
    auto* traces = root.add_subcommand("traces", "What took how long: the self-test's steps, and packets of clients that send traceparent");
    add_api(*traces, resource);
    traces->add_option("trace", trace_options.trace, "One trace, with all its spans");
    traces->add_option("--limit", trace_options.limit, "So many, the newest")->check(CLI::PositiveNumber);
    traces->add_flag("--failed", trace_options.failed, "Only those with a fault");
    traces->add_flag("--otlp", trace_options.otlp, "As OpenTelemetry's TracesData in JSON");

    app::PasswordOptions password_options;
    auto* passwd = root.add_subcommand("passwd", "Set a user's password in a Secret: penstock passwd SECRET USER");
    add_api(*passwd, resource);
    add_password(*passwd, password_options);

    app::PkiOptions pki_options;
    auto* pki = root.add_subcommand("pki", "Certificates: make, look at, check, count");
    pki->require_subcommand(1);
    std::map<std::string, CLI::App*> makers;
    for (const auto& [word, doc] : {std::pair{"root", "Make a root CA"}, std::pair{"intermediate", "Make an intermediate CA"}, std::pair{"server", "Make a server certificate"}, std::pair{"client", "Make a client certificate"}}) {
        auto* command = pki->add_subcommand(word, doc);
        makers[word] = command;
        command->add_option("name", pki_options.name, "Common name (CN)")->required();
        if (std::string_view(word) != "root") {
            command->add_option("--ca", pki_options.ca, "Certificate of the CA that signs, PEM")->required();
            command->add_option("--ca-key", pki_options.ca_key, "Its private key, PEM")->required();
        }
        if (std::string_view(word) == "server") command->add_option("--host", pki_options.hosts, "Name or address that clients dial; may be repeated")->required()->allow_extra_args(false);
        if (std::string_view(word) == "intermediate") command->add_option("--path-length", pki_options.path_length, "CAs below it (0)");
        command->add_option("--subject", pki_options.subject, "Further parts of the subject before the CN, such as O=Fabrikam")->allow_extra_args(false);
        command->add_option("--duration", pki_options.duration, "Lifetime, such as 90d or 2160h");
        command->add_option("--key-type", pki_options.key_algorithm, "Ec256, Ec384, Ec521, Ed25519, Rsa2048, Rsa4096 or Rsa8192")->capture_default_str();
        command->add_option("--out", pki_options.out, "Files OUT.crt and OUT.key; the name when absent");
        command->add_flag("--force", pki_options.force, "Replace files that exist");
    }
    auto* inspect = pki->add_subcommand("inspect", "What a person needs to know of a certificate file or of HOST:PORT");
    inspect->add_option("what", pki_options.name, "File in PEM or DER, or HOST:PORT")->required();
    auto* verify = pki->add_subcommand("verify", "Whether a chain is good: penstock pki verify client.crt --ca root.crt");
    verify->add_option("file", pki_options.name, "Certificate with its intermediates, PEM")->required();
    for (auto* command : {inspect, verify}) {
        command->add_option("--ca", pki_options.ca, "Trusted certificates and revocation lists, PEM");
        command->add_option("--purpose", pki_options.purpose, "client, server or any; what the certificate itself says when absent");
        command->add_option("--host", pki_options.host, "Name or address it must cover");
    }
    auto* pki_list = pki->add_subcommand("list", "Every certificate Penstock knows: who uses it, when it ends, what breaks then");
    add_api(*pki_list, resource);
    pki_list->add_option("-o,--output", resource.output, "wide: one certificate a line, with all columns")
        ->check(CLI::IsMember({"wide"}));
    auto* renew = pki->add_subcommand("renew", "Issue a Certificate anew now");
    add_api(*renew, resource);
    renew->add_option("name", pki_options.name, "Certificate")->required();

    std::string copy_file, shell;
    auto* backup = root.add_subcommand("backup-registry", "Copy all resources into a file while Penstock runs");
    add_api(*backup, resource);
    backup->add_option("file", copy_file, "File to write")->required();
    tools::StateOptions state_options;
    MqttWords state_words;
    auto* state = root.add_subcommand("state", "The state store: penstock state get|set|del|watch|scan|export KEY");
    state->require_subcommand(1);
    std::map<std::string, CLI::App*> state_commands;
    for (const auto& [word, doc] : {std::pair{"get", "Print a key's value"}, std::pair{"set", "Set a key"}, std::pair{"del", "Delete a key"}, std::pair{"watch", "Print what happens to a key"}, std::pair{"scan", "List keys by pattern"}, std::pair{"export", "Print keys by pattern with their values, a line of JSON each"}}) {
        auto* command = state->add_subcommand(word, doc);
        state_commands[word] = command;
        add_common(*command, state_options, state_words);
        const bool by_pattern = std::string_view(word) == "scan" || std::string_view(word) == "export";
        command->add_option("key", state_options.key, by_pattern ? "Pattern with *, ? and [a-z]" : "Key")->required();
        if (std::string_view(word) == "set") {
            command->add_option("value", state_options.value, "Value")->required();
            command->add_option("--only", state_options.only, "new (only when absent) or new-or-same")->check(CLI::IsMember({"new", "new-or-same"}));
            command->add_option("--lives", state_options.lives_ms, "Milliseconds after which it expires");
        }
        if (std::string_view(word) == "del") command->add_option("--if-value", state_options.if_value, "Only when the value is this");
        command->add_option("--fence", state_options.fence, "Fencing token");
        command->add_flag("--show-version", state_options.show_version, "The key's version on standard error");
    }
    std::string copy_folder;
    auto* backup_state = root.add_subcommand("backup-broker", "Copy the broker's state (sessions, queues, retained messages) into a new folder while it runs");
    add_api(*backup_state, resource);
    backup_state->add_option("folder", copy_folder, "Folder to make, on the broker's machine")->required();
    app::RestoreOptions restore_options;
    restore_options.data_folder = app::default_data_folder();
    auto* backup_all = root.add_subcommand("backup", "Copy resources and the broker's state into a new folder while Penstock runs");
    add_api(*backup_all, resource);
    backup_all->add_option("folder", copy_folder, "Folder to make, on the broker's machine")->required();
    auto* restore = root.add_subcommand("restore", "Put a backup in place, while Penstock is stopped; what was there is set aside");
    restore->add_option("folder", restore_options.folder, "Folder that penstock backup made")->required();
    restore->add_option("--data-dir", restore_options.data_folder, "Where state is kept")->capture_default_str();
    auto* completion = root.add_subcommand("completion", "Completion for a shell: source <(penstock completion bash)");
    completion->add_option("shell", shell, "bash, zsh or fish")->required();
    auto* crds = root.add_subcommand("crds", "Print the definitions of the kinds for a cluster: penstock crds | kubectl apply --server-side -f -");
    std::string reference_folder;
    auto* reference = root.add_subcommand("write-reference", "Write the reference pages of all kinds");
    reference->add_option("folder", reference_folder, "Folder")->required();

    tools::PubOptions pub_options;
    MqttWords pub_words, sub_words;
    std::string message;
    auto* pub = root.add_subcommand("pub", "Publish messages; options as mosquitto_pub");
    add_common(*pub, pub_options, pub_words);
    pub->add_option("-t,--topic", pub_options.topic, "Topic")->required();
    auto* message_option = pub->add_option("-m,--message", message, "Payload");
    pub->add_option("-f,--file", pub_options.file, "Payload from a file");
    pub->add_flag("-l,--stdin-line", pub_options.lines, "One message per line of standard input");
    pub->add_flag("-s,--stdin-file", pub_options.whole_input, "Standard input as one message");
    pub->add_flag("-n,--null-message", pub_options.null_message, "Empty payload");
    pub->add_option("-q,--qos", pub_options.qos, "QoS")->check(CLI::Range(0, 2));
    pub->add_flag("-r,--retain", pub_options.retain, "Retain");
    pub->add_option("--repeat", pub_options.repeat, "How often")->check(CLI::Range(1, 1'000'000'000));
    pub->add_option("--repeat-delay", pub_options.repeat_delay, "Seconds in between");

    tools::SubOptions sub_options;
    auto* sub = root.add_subcommand("sub", "Subscribe and print messages; options as mosquitto_sub");
    add_common(*sub, sub_options, sub_words);
    sub->add_option("-t,--topic", sub_options.filters, "Topic filter; may be repeated")->allow_extra_args(false);
    sub->add_option("-T,--filter-out", sub_options.filter_out, "Topic filter not to print")->allow_extra_args(false);
    sub->add_option("-U,--unsubscribe", sub_options.unsubscribe, "Topic filter to unsubscribe")->allow_extra_args(false);
    sub->add_option("-q,--qos", sub_options.qos, "QoS")->check(CLI::Range(0, 2));
    sub->add_flag("-v,--verbose", sub_options.verbose, "Topic before the payload");
    sub->add_option("-C,--count", sub_options.count, "Exit after so many messages");
    sub->add_option("-W,--timeout", sub_options.wait_s, "Exit (27) after so many seconds");
    sub->add_option("-F,--format", sub_options.format, "Output format: %t topic, %p payload, %x hex, %l length, %q QoS, %r retain, %P user properties, ...");
    sub->add_flag("-N,--no-newline", sub_options.no_newline, "No end of line after the payload");
    sub->add_flag("-R,--no-retained", sub_options.no_retained, "No retained messages");
    sub->add_flag("--retained-only", sub_options.retained_only, "Exit at the first message that is not retained");
    sub->add_flag("--remove-retained", sub_options.remove_retained, "Clear retained messages that arrive");
    sub->add_flag("--retain-as-published", sub_options.retain_as_published, "Keep the retain flag of the publisher (version 5)");
    sub->add_flag("-E,--exit-after-subscribe", sub_options.exit_after_subscribe, "Exit once subscribed");

    tools::LoadOptions load;
    int load_port = 1883;
    auto* bench = root.add_subcommand("bench", "Load generator for any MQTT broker");
    bench->set_help_flag("--help", "Print this help");
    std::string scenarios = "\nScenarios:\n";
    for (const auto& [name, text] : tools::load_scenarios()) scenarios += fmt::format("  {:<10}{}\n", name, text);
    bench->footer(scenarios);
    bench->add_option("scenario", load.scenario, "What to do, see below")->required();
    bench->add_option("-h,--host", load.host, "Broker host")->capture_default_str();
    bench->add_option("-p,--port", load_port, "Broker port")->capture_default_str()->check(CLI::Range(1, 65'535));
    bench->add_option("-V", load.version, "Protocol: 5 or 4 (3.1.1)")->capture_default_str()->check(CLI::IsMember({4, 5}));
    bench->add_option("--pairs", load.pairs, "p2p, latency: pairs")->capture_default_str();
    bench->add_option("--publishers", load.publishers, "fan-in, shared: publishers")->capture_default_str();
    bench->add_option("--subscribers", load.subscribers, "fan-out, shared, wildcard: subscribers")->capture_default_str();
    bench->add_option("--connections", load.connections, "idle, connect: connections")->capture_default_str();
    bench->add_option("--topics", load.topics, "wildcard, retained: topics")->capture_default_str();
    bench->add_option("--messages", load.messages, "offline: messages")->capture_default_str();
    bench->add_option("--window", load.window, "Messages under way per publisher")->capture_default_str();
    bench->add_option("-q,--qos", load.qos, "QoS")->check(CLI::Range(0, 2));
    bench->add_option("--payload", load.payload, "Payload bytes (at least 12)")->capture_default_str();
    bench->add_option("--seconds", load.seconds, "Measured time")->capture_default_str();
    bench->add_option("--warm-up", load.warm_up, "Time before")->capture_default_str();
    bench->add_option("--rate", load.rate, "latency: messages per second")->capture_default_str();
    tools::TlsFiles load_tls;
    add_tls(*bench, load_tls);
    bench->add_option("-u,--username", load.user_name, "User name");
    bench->add_option("-P,--pw", load.password, "Password");
    bench->add_option("--pid", load.broker_pid, "Broker's process: its CPU and memory are reported");
    bench->add_flag("--persistent", load.persistent, "Sessions that outlive their connections (expiry 1 h)");
    bench->add_flag("--subscribe", load.subscribe_idle, "idle: one subscription each");
    bench->add_flag("--json", load.json, "Report as JSON");
    bool no_progress = false;
    bench->add_flag("--no-progress", no_progress, "No progress on standard error");

    std::vector<std::string> help_words;
    auto* help = root.add_subcommand("help", "Help about a command: penstock help auth can-i");
    help->add_option("command", help_words, "COMMAND...");

    let_the_last_win(root);
    if (auto read = app::words_for_cli11(root, words); read) words = std::move(*read);
    else return app::problem(read.error().message);
    // A group without a command of its own is a question.
    std::size_t known = 0;
    if (const auto* asked = command_at(root, words, known);
        known == words.size() && !names_of(*asked).empty()) {
        std::cout << asked->help(asked == &root ? "" : path_of(*asked->get_parent()));
        return 0;
    }
    const auto as_typed = words;
    try {
        std::ranges::reverse(words);
        root.parse(words);
    } catch (const CLI::ParseError& error) {
        return error.get_exit_code() == 0 ? root.exit(error) : explain_words(root, as_typed, error);
    }
    if (*help) {
        std::size_t at = 0;
        const auto* asked = command_at(root, help_words, at);
        if (at < help_words.size()) return unknown_command(*asked, help_words[at]);
        root.clear();   // its own help, not that of `help`
        std::cout << asked->help(asked == &root ? "" : path_of(*asked->get_parent()));
        return 0;
    }
    if (!fault.empty()) {
        std::cerr << "Error: " << fault << "\n";
        return 1;
    }
    if (*run) return app::run(run_options);
    if (*api) {
        run_options.with_broker = false;
        return app::run(run_options);
    }
    if (*broker) return app::run_broker(broker_options);
    if (*get) return app::get(resource);
    if (*apply) return app::apply(resource);
    if (*remove) return app::remove(resource);
    if (*validate) return app::validate(resource);
    if (*patch) return app::patch(resource, patch_options);
    if (*edit) return app::edit(resource);
    if (*annotate) return app::annotate(resource, mark);
    if (*label) return app::label(resource, mark);
    if (*show_version) return app::show_version(resource, version_options);
    if (*kinds) return app::api_resources(resource);
    if (*describe) return app::describe(resource);
    if (*explain) return app::explain(resource);
    if (*wait) return app::wait(resource, wait_options);
    if (*logs) return app::logs(resource, log_options);
    for (const auto& [what, command] : creators)
        if (*command) return app::create(what, resource, create_options);
    if (*token) return app::create_token(resource, token_options);
    if (*can_i) return app::auth_can_i(resource, access);
    if (*who_can) return app::auth_who_can(resource, access);
    if (*auth_explain) return app::auth_explain(resource, access);
    if (*auth_clients) return app::auth_clients(resource, access);
    if (*dry_run) return app::auth_dry_run(resource, access);
    if (*traces) return app::traces(resource, trace_options);
    if (*passwd) return app::passwd(resource, password_options);
    for (const auto& [word, command] : makers)
        if (*command) return app::pki_create(word, pki_options);
    if (*inspect) return app::pki_inspect(pki_options);
    if (*verify) return app::pki_verify(pki_options);
    if (*pki_list) return app::pki_list(resource);
    if (*renew) return app::pki_renew(resource, pki_options);
    if (*backup) return app::backup_registry(resource, copy_file);
    for (const auto& [word, command] : state_commands)
        if (*command) {
            state_options.verb = word;
            state_options.has_if_value = word == "del" && command->get_option("--if-value")->count() > 0;
            if (const auto why = finish_common(state_options, state_words); !why.empty()) {
                std::cerr << "Error: " << why << "\n";
                return 1;
            }
            state_options.properties = properties;
            return tools::run_state(state_options);
        }
    if (*backup_state) return app::backup_broker(resource, copy_folder);
    if (*backup_all) return app::backup(resource, copy_folder);
    if (*restore) return app::restore(restore_options);
    if (*completion) return app::completion(shell, words_of(root).commands);
    if (*crds) return app::crds();
    if (*reference) return app::write_reference(reference_folder);
    if (*bench) {
        load.port = static_cast<std::uint16_t>(load_port);
        auto tls = tools::make_tls(load_tls, false);
        if (!tls) {
            std::cerr << "Error: " << tls.error().message << "\n";
            return 1;
        }
        load.tls = *tls;
        load.progress = !no_progress && !load.json;
        return tools::print_report(load, tools::run_load(load));
    }
    auto& common = *pub ? static_cast<tools::CommonOptions&>(pub_options) : sub_options;
    common.properties = properties;
    if (const auto why = finish_common(common, *pub ? pub_words : sub_words); !why.empty()) {
        std::cerr << "Error: " << why << "\n";
        return 1;
    }
    if (message_option->count() > 0) pub_options.message = message;
    return *pub ? tools::run_pub(pub_options) : tools::run_sub(sub_options);
}
