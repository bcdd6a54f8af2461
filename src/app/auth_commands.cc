// auth can-i, who-can, explain, clients, dry-run; passwd.
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/identity.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/text.h"
#include "client/apply.h"
#include "client/names.h"
#include "control/access_view.h"
#include "control/security.h"
#include "crypto/password.h"
#include "topics/topic.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

struct AccessOptions {
    std::string action, target;          ///< connect, publish, subscribe; topic or filter
    std::string client, user, policy, listener;
    std::vector<std::string> attributes; ///< NAME=VALUE
    std::string since;
    bool json = false;
};

struct PasswordOptions {
    std::string secret, user, file;
    std::string import_file;             ///< of Mosquitto: all its users
    bool remove = false, print = false;
};

const resources::Kind& broker_kind(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }

Result<auth::Action> action_of(const std::string& word) {
    const auto lower = to_lower(word);
    if (lower == "connect") return auth::Action::connect;
    if (lower == "publish" || lower == "pub") return auth::Action::publish;
    if (lower == "subscribe" || lower == "sub") return auth::Action::subscribe;
    if (lower == "read") return auth::Action::read_key;
    if (lower == "write") return auth::Action::write_key;
    return fail(fmt::format("\"{}\" is no action; connect, publish, subscribe, read and write are", word));
}

/// The policies a question is about: the named one, that of a listener's ports, or all of the namespace.
Result<std::vector<Json>> policies_of(client::Client& api, const AccessOptions& access) {
    const auto space = api.access().name_space;
    std::vector<Json> out;
    if (!access.policy.empty()) {
        auto one = fetch(api, client::path_of(broker_kind("BrokerAuthorization"), space, access.policy));
        if (!one) return std::unexpected(one.error());
        out.push_back(std::move(*one));
        return out;
    }
    auto all = fetch(api, client::path_of(broker_kind("BrokerAuthorization"), space));
    if (!all) return std::unexpected(all.error());
    if (access.listener.empty()) {
        for (auto& item : (*all)["items"]) out.push_back(item);
        return out;
    }
    const auto listener = fetch(api, client::path_of(broker_kind("BrokerListener"), space, access.listener));
    if (!listener) return std::unexpected(listener.error());
    for (const auto& port : at_path(*listener, "spec.ports"))
        for (auto& item : (*all)["items"])
            if (text_at(item, "metadata.name") == text_at(port, "authorizationRef") && std::ranges::find(out, item) == out.end()) out.push_back(item);
    return out;
}

/// Ports that ask no policy, of all listeners or of the named one: `port 1884 of listener lab`.
Result<std::vector<std::string>> open_ports_of(client::Client& api, const AccessOptions& access) {
    std::vector<std::string> out;
    if (!access.policy.empty()) return out;    // the question is about a policy alone
    const auto all = fetch(api, client::path_of(broker_kind("BrokerListener"), api.access().name_space));
    if (!all) return std::unexpected(all.error());
    for (const auto& listener : at_path(*all, "items")) {
        const auto name = text_at(listener, "metadata.name");
        if (!access.listener.empty() && name != access.listener) continue;
        for (const auto& port : at_path(listener, "spec.ports"))
            if (text_at(port, "authorizationRef").empty())
                out.push_back(fmt::format("port {} of listener {}", port.value("port", 0), name));
    }
    return out;
}

/// `rule 0`, `rules 0, 2`: as `who-can` counts them.
std::string rules_text(const std::vector<std::size_t>& rules) {
    return fmt::format("rule{} {}", rules.size() == 1 ? "" : "s", fmt::join(rules, ", "));
}

std::string attributes_text(const Json& map) {
    std::string out;
    if (map.is_object())
        for (const auto& [name, value] : map.items()) out += fmt::format("{}{}={}", out.empty() ? "" : ",", name, value.is_string() ? value.get<std::string>() : "");
    return out.empty() ? "-" : out;
}

/// `penstock auth can-i`: 0 yes, 1 no.
int auth_can_i(const ResourceOptions& options, const AccessOptions& access) {
    const auto action = action_of(access.action);
    if (!action) return problem(action.error().message);
    if (access.client.empty()) return problem("--client names the client id the question is about");
    auto target = access.target;
    if (*action == auth::Action::connect) target = access.client;
    else if (target.empty()) return problem("the topic, filter or key is missing: penstock auth can-i publish plant/temperature --client fan-01");
    if (*action == auth::Action::publish && !topics::is_valid_name(target)) return problem(fmt::format("\"{}\" is no topic name: it has a wildcard or is empty", target));
    if (*action == auth::Action::subscribe) target = topics::split_shared(target).filter;
    auto api = connect(options);
    if (!api) return problem(api.error().message);

    // A connected client is who it is; otherwise it is who the options say.
    Json who = {{"user", access.user}, {"attributes", Json::object()}};
    for (const auto& pair : access.attributes) {
        const auto equal = pair.find('=');
        if (equal == std::string::npos) return problem(fmt::format("--attribute: \"{}\" is not NAME=VALUE", pair));
        who["attributes"][pair.substr(0, equal)] = pair.substr(equal + 1);
    }
    std::string from = "as the options say";
    if (access.user.empty() && access.attributes.empty())
        if (const auto connected = broker_view(*api, "clients"); connected)
            for (const auto& client : (*connected)["items"])
                if (text_at(client, "client") == access.client) who = client, from = fmt::format("connected now, by {}", text_at(client, "method"));
    const auto policies = policies_of(*api, access);
    if (!policies) return problem(policies.error().message);
    const auto open_ports = open_ports_of(*api, access);
    if (!open_ports) return problem(open_ports.error().message);
    if (policies->empty() && !access.listener.empty() && open_ports->empty())
        return problem(fmt::format("each port of listener {} names a BrokerAuthorization that does not exist",
                                   access.listener));
    if (policies->empty()) {
        std::cout << (access.listener.empty() ? "yes: there is no BrokerAuthorization in this namespace, so nothing is restricted\n" : "yes: no port of this listener has an authorizationRef, so nothing is restricted\n");
        return 0;
    }
    std::cout << printable(fmt::format("client \"{}\" user \"{}\" attributes {} ({})", access.client, text_at(who, "user"), attributes_text(who["attributes"]), from)) << "\n";
    int status = 1;
    for (const auto& item : *policies) {
        const auto policy = std::make_shared<const auth::Policy>(control::rules_of(item));
        const auto grant = policy->resolve(control::principal_of(who), access.client);
        const auto name = text_at(item, "metadata.name");
        const auto rule = grant->rule_for(*action, target);
        if (rule && grant->may_connect()) {
            std::cout << fmt::format("yes: by rule {} of BrokerAuthorization {}\n", *rule, name);
            status = 0;
        } else if (grant->rules().empty()) {
            std::cout << fmt::format("no: no rule of BrokerAuthorization {} is about this client\n", name);
        } else if (!grant->may_connect()) {
            std::cout << fmt::format("no: the rules of BrokerAuthorization {} about this client ({}) do not let it connect\n", name, rules_text(grant->rules()));
        } else {
            std::cout << fmt::format("no: the rules of BrokerAuthorization {} about this client ({}) do not allow {} \"{}\"\n", name, rules_text(grant->rules()), auth::action_name(*action), target);
        }
    }
    // The status is what the policies say.
    for (const auto& port : *open_ports)
        std::cout << printable(fmt::format(
                         "yes at {}: it has no authorizationRef, so nothing is restricted", port))
                  << "\n";
    return status;
}

/// `penstock auth who-can`: the rules that allow it.
int auth_who_can(const ResourceOptions& options, const AccessOptions& access) {
    const auto action = action_of(access.action);
    if (!action) return problem(action.error().message);
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    const auto policies = policies_of(*api, access);
    if (!policies) return problem(policies.error().message);
    std::vector<std::vector<std::string>> rows;
    for (const auto& item : *policies) {
        const auto rules = control::rules_of(item);
        for (std::size_t i = 0; i < rules.size(); ++i)
            for (const auto& resource : rules[i].resources) {
                if (resource.action != *action) continue;
                // Tokens stand for one level of anybody's: shown as what they are.
                const bool hit = *action == auth::Action::connect || std::ranges::any_of(resource.patterns, [&](std::string pattern) {
                    for (auto at = pattern.find("{principal."); at != std::string::npos; at = pattern.find("{principal.")) pattern.replace(at, pattern.find('}', at) - at + 1, "+");
                    return *action == auth::Action::publish ? topics::matches(pattern, access.target) : topics::covers(pattern, access.target);
                });
                if (!hit) continue;
                std::string who = fmt::format("{}", fmt::join(rules[i].client_ids, ","));
                std::string attributes;
                for (const auto& set : rules[i].attributes) {
                    std::string one;
                    for (const auto& [name, value] : set) one += fmt::format("{}{}={}", one.empty() ? "" : "&", name, value);
                    attributes += (attributes.empty() ? "" : " or ") + one;
                }
                auto shown = [](std::string text) { return text.empty() ? "-" : text; };
                rows.push_back({text_at(item, "metadata.name"), std::to_string(i), shown(who), shown(fmt::format("{}", fmt::join(rules[i].user_names, ","))), shown(attributes), fmt::format("{}", fmt::join(resource.patterns, " "))});
                break;
            }
    }
    const auto open_ports = open_ports_of(*api, access);
    if (!open_ports) return problem(open_ports.error().message);
    if (rows.empty() && open_ports->empty()) {
        std::cout << "nobody: no rule allows it\n";
        return 1;
    }
    if (!rows.empty())
        print_rows({"POLICY", "RULE", "CLIENT IDS", "USERS", "ATTRIBUTES", "ALLOWS"}, rows);
    for (const auto& port : *open_ports)
        std::cout << printable(fmt::format("everybody at {}: it has no authorizationRef", port)) << "\n";
    return 0;
}

/// `penstock auth explain`: what was refused lately, and why.
int auth_explain(const ResourceOptions& options, const AccessOptions& access) {
    std::int64_t since = 0;
    if (!access.since.empty()) {
        const auto duration = parse_duration(access.since);
        if (!duration) return problem("--since: " + duration.error().message);
        since = wall_ms() - *duration;
    }
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    const auto decisions = broker_view(*api, "decisions");
    if (!decisions) return problem(decisions.error().message);
    Json wanted = Json::array();
    for (const auto& item : (*decisions)["items"]) {
        const auto peer = text_at(item, "peer");
        const bool hit = access.client.empty() || text_at(item, "client") == access.client ||
                         text_at(item, "user") == access.client || peer.starts_with(access.client + ":") ||
                         peer.starts_with("[" + access.client + "]:");
        if (hit && parse_rfc3339(text_at(item, "time")) + 999 >= since) wanted.push_back(item);
    }
    if (access.json) {
        std::cout << wanted.dump(2) << "\n";
        return 0;
    }
    if (wanted.empty()) {
        std::cout << (access.client.empty() ? "Nothing was refused lately.\n" : fmt::format("Nothing of client \"{}\" was refused lately.\n", access.client));
        return 0;
    }
    std::vector<std::vector<std::string>> rows;
    auto shown = [](std::string text) { return text.empty() ? "-" : text; };
    for (const auto& item : wanted)
        rows.push_back({text_at(item, "time"), shown(text_at(item, "client")), shown(text_at(item, "user")), text_at(item, "peer"), text_at(item, "listener"), text_at(item, "action"), shown(text_at(item, "target")),
                        fmt::format("0x{:02X}", item.value("code", 0)), fmt::format("{}{}", text_at(item, "why"), item.value("count", 1) > 1 ? fmt::format(" ({} times)", item.value("count", 1)) : "")});
    print_rows({"TIME", "CLIENT", "USER", "PEER", "LISTENER", "ACTION", "TARGET", "CODE", "WHY"}, rows);
    return 0;
}

/// `penstock auth clients`: who is connected.
int auth_clients(const ResourceOptions& options, const AccessOptions& access) {
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    const auto clients = broker_view(*api, "clients");
    if (!clients) return problem(clients.error().message);
    if (access.json) {
        std::cout << (*clients)["items"].dump(2) << "\n";
        return 0;
    }
    std::vector<std::vector<std::string>> rows;
    for (const auto& item : (*clients)["items"])
        rows.push_back({text_at(item, "client"), text_at(item, "user", "-"), text_at(item, "method"), attributes_text(item["attributes"]), text_at(item, "listener"), text_at(item, "peer"), text_at(item, "expires", "never")});
    print_rows({"CLIENT", "USER", "METHOD", "ATTRIBUTES", "LISTENER", "PEER", "EXPIRES"}, rows);
    return 0;
}

/// `penstock auth dry-run`: who would lose what by another policy.
int auth_dry_run(const ResourceOptions& options, const AccessOptions& access) {
    const auto documents = client::read_manifests(options.files.empty() ? "-" : options.files.front());
    if (!documents) return problem(documents.error().message);
    const Json* policy = nullptr;
    for (const auto& document : *documents)
        if (text_at(document.object, "kind") == "BrokerAuthorization") policy = &document.object;
    if (policy == nullptr) return problem("there is no BrokerAuthorization in the file");
    const auto faults = resources::validate(broker_kind("BrokerAuthorization"), *policy);
    for (const auto& fault : faults) problem(fmt::format("{}: {}", fault.path, fault.message));
    if (!faults.empty()) return 1;
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    auto clients = broker_view(*api, "clients");
    if (!clients) return problem(clients.error().message);
    auto& items = (*clients)["items"];
    if (!access.listener.empty()) {
        Json kept = Json::array();
        for (const auto& item : items)
            if (text_at(item, "listener").ends_with("/" + access.listener)) kept.push_back(item);
        items = std::move(kept);
    }
    const auto losses = control::try_policy(*policy, *clients);
    if (losses.empty()) {
        std::cout << fmt::format("{} connected clients: none of them would lose anything they lately used.\n", items.size());
        return 0;
    }
    std::vector<std::vector<std::string>> rows;
    for (const auto& loss : losses) rows.push_back({loss.client_id, loss.user_name.empty() ? "-" : loss.user_name, loss.action, loss.target});
    print_rows({"CLIENT", "USER", "WOULD LOSE", "TARGET"}, rows);
    return 1;
}

// --- passwd ---

/// A password is binary data of MQTT, whose length has two bytes (MQTT 5.0 1.5.6).
constexpr std::size_t password_max = 65'535;
/// Of what it is read from: it may end in CR LF.
constexpr std::size_t password_file_max = password_max + 2;

Result<std::string> ask_password() {
    std::string first, second;
    if (isatty(STDIN_FILENO) == 0) {
        LineReader lines(STDIN_FILENO, "standard input", password_file_max);
        const auto read = lines.next(first);
        if (!read) return std::unexpected(read.error());
        return first;
    }
    termios before{};
    tcgetattr(STDIN_FILENO, &before);
    auto quiet = before;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    std::cerr << "Password: ";
    std::getline(std::cin, first);
    std::cerr << "\nAgain: ";
    std::getline(std::cin, second);
    std::cerr << "\n";
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    if (first != second) return fail("the two are not the same");
    return first;
}

/// Merges entries into a Secret, which is made where it is not there; `removes`: then it is not.
Result<std::string> put_entries(const ResourceOptions& options, const std::string& name, const Json& entries,
                                bool removes, int& code) {
    auto api = connect(options);
    if (!api) return fail(api.error().message);
    const auto& kind = *resources::find_kind("v1", "Secret");
    const auto& space = api->access().name_space;
    const Json data = {{"data", entries}};
    auto answer =
        api->request("PATCH", client::path_of(kind, space, name), data.dump(),
                     "application/merge-patch+json");
    if (answer && answer->status == 404 && !removes) {
        Json secret = data;
        secret["apiVersion"] = "v1";
        secret["kind"] = "Secret";
        secret["type"] = "Opaque";
        secret["metadata"] = {{"name", name}};
        answer = api->request("POST", client::path_of(kind, space), secret.dump());
    }
    if (!answer || !answer->ok()) code = refused(answer);
    return fmt::format("Secret {}/{}", space, name);
}

/// All users of a password file, or none where one of them could not log in.
int import_users(const ResourceOptions& options, const PasswordOptions& o) {
    const auto text = read_file(o.import_file, Streams::taken);
    if (!text) return problem("--import: " + text.error().message);
    const auto users = crypto::read_password_file(*text);
    const auto shown = printable(clipped(o.import_file, 100));
    if (!users) return problem(fmt::format("--import: {}: {}", shown, users.error().message));
    if (users->empty()) return problem(fmt::format("--import: {}: there is no user in it", shown));
    Json entries = Json::object();
    for (const auto& one : *users) {
        if (!one.fault.empty())
            return problem(
                fmt::format("--import: {}: line {}: {}; nothing was changed", shown, one.number, one.fault));
        entries[one.user] = base64_encode(one.hash);
    }
    int code = 0;
    const auto where = put_entries(options, o.secret, entries, false, code);
    if (!where) return problem(where.error().message);
    if (code == 0)
        std::cout << fmt::format("{} user{} set in {}\n", users->size(), users->size() == 1 ? "" : "s",
                                 *where);
    return code;
}

/// `penstock passwd`: sets a user's password in a Secret, or those of all users of a password file.
int passwd(const ResourceOptions& options, const PasswordOptions& o) {
    if (auto good = client::check_name(o.secret); !good) return problem(good.error().message);
    if (!o.import_file.empty()) return import_users(options, o);
    if (o.user.empty())
        return problem("user is required: penstock passwd SECRET USER, or all of a file with penstock passwd "
                       "SECRET --import FILE");
    const bool plausible = !o.user.empty() && o.user.size() <= 253 && std::ranges::all_of(o.user, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'; });
    if (!plausible) return problem(fmt::format("user \"{}\": letters, digits, '-', '_' and '.' make a user name (it is a Secret's key)", o.user));
    Json value;
    if (!o.remove) {
        Result<std::string> password;
        if (o.file.empty()) password = ask_password();
        else if (password = read_file(o.file, Streams::taken, password_file_max); password)
            while (password->ends_with('\n') || password->ends_with('\r')) password->pop_back();
        if (!password) return problem(password.error().message);
        if (password->empty()) return problem("the password is empty");
        if (password->size() > password_max)
            return problem(fmt::format("the password has {} bytes; at most {} fit in a CONNECT",
                                       password->size(), password_max));
        const auto hash = crypto::hash_password(*password);
        if (o.print) {
            std::cout << hash << "\n";
            return 0;
        }
        value = base64_encode(hash);
    }
    int code = 0;
    const auto where = put_entries(options, o.secret, {{o.user, value}}, o.remove, code);
    if (!where) return problem(where.error().message);
    if (code == 0)
        std::cout << fmt::format("user {} {} {}\n", o.user, o.remove ? "removed from" : "set in", *where);
    return code;
}

}  // namespace

void add_auth(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& access = commands.keep<AccessOptions>();
    auto auth =
        commands.add("auth", "Who may do what, who was refused and why, what a new policy would change");
    using Does = int (*)(const ResourceOptions&, const AccessOptions&);
    auto add = [&](const char* name, const char* doc, Does does) {
        auto command = auth.add(name, doc);
        add_api_options(command, resource);
        command.runs([does, &resource, &access] { return does(resource, access); });
        return command;
    };
    auto can_i =
        add("can-i", "May a client do this? penstock auth can-i publish plant/t --client fan-01", auth_can_i);
    auto who_can =
        add("who-can", "Which rules allow this? penstock auth who-can subscribe plant/#", auth_who_can);
    for (auto* command : {&can_i, &who_can}) {
        command->option("action", access.action, "connect, publish, subscribe, read or write").required();
        command->option("target", access.target, "Topic, filter or key");
        command->option("--policy", access.policy, "This BrokerAuthorization alone");
        command->option("--listener", access.listener, "Those of this listener's ports");
    }
    can_i.option("--client", access.client,
                 "Client id; when it is connected, its identity is taken from there");
    can_i.option("--user", access.user, "User name (a certificate's CN)");
    can_i.option("--attribute", access.attributes, "NAME=VALUE; may be repeated").takes_one();
    auto explain =
        add("explain", "What was refused lately, and why: penstock auth explain [CLIENT]", auth_explain);
    explain.option("client", access.client, "Client id, user name or address");
    explain.option("--since", access.since, "Only younger than this, for example 5m");
    explain.flag("--json", access.json, "As JSON");
    auto clients = add("clients", "Who is connected where clients are asked who they are", auth_clients);
    clients.flag("--json", access.json, "As JSON");
    auto dry_run =
        add("dry-run", "Who would lose what by another policy: penstock auth dry-run -f policy.yaml",
            auth_dry_run);
    dry_run.option("-f,--filename", resource.files, "File with the BrokerAuthorization, or -").required();
    dry_run.option("--listener", access.listener, "Clients of this listener alone");
}

void add_passwd(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& password = commands.keep<PasswordOptions>();
    auto command = commands.add("passwd", "Set a user's password in a Secret: penstock passwd SECRET USER");
    add_api_options(command, resource);
    command.option("secret", password.secret, "Secret; made when absent").required();
    const Option others[] = {
        command.option("user", password.user, "User name"),
        command.option("--password-file", password.file,
                       "Read the password from a file; else it is asked for, or the first line of standard "
                       "input"),
        command.flag("--delete", password.remove, "Remove the user"),
        command.flag("--print", password.print, "Print the hash and change nothing")};
    auto all = command.option("--import", password.import_file,
                              "All users of a password file of Mosquitto, with their passwords");
    for (const auto& other : others) all.excludes(other);
    command.runs([&] { return passwd(resource, password); });
}

}  // namespace penstock::app
