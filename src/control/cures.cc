#include "control/cures.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/own_command.h"
#include "base/shell.h"
#include "base/text.h"
#include "control/certificates.h"
#include "control/object_names.h"
#include "resources/text_rules.h"
#include "resources/yaml_words.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* broker_api = "mqttbroker.iotoperations.azure.com/v1";
constexpr const char* issuer_api = "cert-manager.io/v1";
constexpr std::size_t listed_max = 10;

/// YAML on one line, without quotes where it can be: kubectl puts backslashes before those of a text that it shows.
std::string flow_of(const Json& value) {
    if (value.is_string()) return yaml_word(value.get<std::string>());
    if (!value.is_structured() || value.empty()) return value.dump();
    std::string out;
    for (const auto& [key, item] : value.items())
        out += fmt::format("{}{}{}", out.empty() ? "" : ", ", value.is_object() ? key + ": " : "", flow_of(item));
    return value.is_object() ? "{" + out + "}" : "[" + out + "]";
}

std::vector<std::string> names_of(const Objects& objects, const char* api, const std::string& kind, const std::string& space) {
    std::vector<std::string> out;
    for (const auto& object : objects.list(*resources::find_kind(api, kind), space)) out.push_back(text_at(*object, "metadata.name"));
    std::ranges::sort(out);
    return out;
}

Json object_of(const char* api, const std::string& kind, const std::string& space, const std::string& name, Json spec) {
    Json out = {{"apiVersion", api}, {"kind", kind}, {"metadata", {{"name", name}}}, {"spec", std::move(spec)}};
    if (!space.empty()) out["metadata"]["namespace"] = space;
    return out;
}

const resources::Kind& issuer_kind(const std::string& name) { return *resources::find_kind(issuer_api, name); }

/// One as the default listener has it: tokens of service accounts.
std::string make_authentication(const std::string& space, const std::string& name) {
    const Json method = {{"method", "ServiceAccountToken"}, {"serviceAccountTokenSettings", {{"audiences", Json::array({"aio-internal"})}}}};
    return make_command(object_of(broker_api, "BrokerAuthentication", space, name, {{"authenticationMethods", Json::array({method})}}));
}

std::string make_authorization(const std::string& space, const std::string& name) {
    const Json may = Json::array({{{"method", "Connect"}}, {{"method", "Publish"}, {"topics", Json::array({"TOPIC"})}}, {{"method", "Subscribe"}, {"topics", Json::array({"TOPIC"})}}});
    const Json rule = {{"principals", {{"usernames", Json::array({"USER"})}}}, {"brokerResources", may}};
    return make_command(object_of(broker_api, "BrokerAuthorization", space, name, {{"authorizationPolicies", {{"rules", Json::array({rule})}}}}));
}

std::string make_issuer(const std::string& kind, const std::string& space, const std::string& name) {
    return make_command(object_of(issuer_api, kind, kind == "ClusterIssuer" ? "" : space, name, {{"selfSigned", Json::object()}}));
}

/// `with: COMMAND`, and of a name that is not the one that was asked for where it is to be written.
std::string made_with(const std::string& command, const std::string& wanted, const std::string& made,
                      const char* field) {
    if (made == wanted) return "with: " + command;
    return fmt::format("with: {}; then write {}: {}", command, field, yaml_word(made));
}

struct Issuer {
    std::string kind, name;
};
std::vector<Issuer> issuers_for(const Objects& objects, const std::string& space) {
    std::vector<Issuer> out;
    for (const char* kind : {"Issuer", "ClusterIssuer"})
        for (auto& name : names_of(objects, issuer_api, kind, std::string_view(kind) == "Issuer" ? space : "")) out.push_back({kind, std::move(name)});
    return out;
}

std::string listed(const std::vector<Issuer>& issuers) {
    std::vector<std::string> words;
    for (const auto& one : issuers) words.push_back(fmt::format("{} {}", one.kind, one.name));
    return control::listed(words);
}

}  // namespace

Warning warning_of(std::string what, const std::string& cure) {
    const bool tells = what.find(" with: ") != std::string::npos;
    return {.what = std::move(what), .cure = tells ? "" : cure};
}

std::string as_words(std::string_view qualified_name) {
    const auto slash = qualified_name.find('/');
    return slash == std::string_view::npos ? std::string(qualified_name) : fmt::format("{} -n {}", qualified_name.substr(slash + 1), qualified_name.substr(0, slash));
}

std::string make_command(const Json& object) {
    std::string lines;
    for (const auto& [key, value] : object.items())
        lines += fmt::format("{}echo {}", lines.empty() ? "" : "; ", shell_quoted(fmt::format("{}: {}", key, flow_of(value))));
    return fmt::format("({}) | kubectl apply -f -", lines);
}

// As the API has it for the kinds that are named here.
std::string qualified_name(const Json& object) {
    return text_at(object, "metadata.namespace") + "/" + text_at(object, "metadata.name");
}

const resources::Kind& broker_kind(const char* name) { return *resources::find_kind(broker_api, name); }

bool can_be_name(const resources::Kind& kind, const std::string& name) {
    if (kind.group != "mqttbroker.iotoperations.azure.com") return resources::is_dns_subdomain(name);
    return name.size() >= 3 && resources::is_dns_label(name);
}

std::string name_rule(const resources::Kind& kind) {
    return kind.group == "mqttbroker.iotoperations.azure.com"
               ? "3 to 63 of a-z, 0-9 and '-', a letter or digit at each end"
               : "at most 253 of a-z, 0-9, '-' and '.', a letter or digit at each end";
}

std::string free_name(const std::string& name, const std::vector<std::string>& there) {
    auto out = name;
    for (int number = 2; std::ranges::find(there, out) != there.end(); ++number)
        out = fmt::format("{}-{}", name, number);
    return out;
}

std::string makeable_name(const resources::Kind& kind, const std::string& name, const std::string& otherwise,
                          const std::vector<std::string>& there) {
    return can_be_name(kind, name) ? name : free_name(otherwise, there);
}

std::string absent_object(const resources::Kind& kind, const std::string& name_space, const std::string& name,
                          const char* field, const std::string& edit, const char* make) {
    const auto head = fmt::format("{} {}/{} does not exist", kind.kind, name_space, resources::shortened(name));
    if (!can_be_name(kind, name))
        return fmt::format("{}, and no object can have that name ({}): name another one in {}, with: {}", head,
                           name_rule(kind), field, edit);
    return fmt::format("{}; make it with: {}", head, fmt::format(fmt::runtime(make), name, name_space));
}

std::string edit_command(std::string_view kind, std::string_view qualified_name) {
    return fmt::format("kubectl edit {} {}", to_lower(kind), as_words(qualified_name));
}

std::string yaml_word(const std::string& name) {
    return resources::word_of(name).type == resources::WordType::text ? name : Json(name).dump();
}

std::string change_command(const Objects& objects, const resources::Kind& kind, const std::string& name_space,
                           const std::string& name, const std::string& command) {
    const auto there = objects.get(kind, name_space, name);
    if (there == nullptr || !resources::flag_of(*there, "immutable")) return command;
    const auto what = fmt::format("{} {} -n {}", to_lower(kind.kind), name, name_space);
    // kubectl has read the whole before it deletes anything.
    return fmt::format("kubectl get {0} -o yaml | kubectl patch --local -f - --type merge "
                       "-p 'immutable: false' -o yaml | kubectl replace --force -f - && {1} && "
                       "kubectl patch {0} --type merge -p 'immutable: true'",
                       what, command);
}

std::string passwd_command(const Objects& objects, const std::string& name_space, const std::string& secret,
                           const std::string& user) {
    // A user of an existing Secret may begin as an option does; behind `--` nothing is one.
    const auto words = fmt::format("{} {}", secret, user);
    return change_command(objects, *resources::find_kind("v1", "Secret"), name_space, secret,
                          user.starts_with('-')
                              ? fmt::format("{} -- {}", own_command("passwd -n " + name_space), words)
                              : own_command(fmt::format("passwd -n {} {}", name_space, words)));
}

std::string put_entry_command(const Objects& objects, const std::string& name_space, const std::string& name,
                              const std::string& entry, const std::string& file) {
    const auto there = objects.get(*resources::find_kind("v1", "ConfigMap"), name_space, name);
    const auto make =
        fmt::format("kubectl create configmap {} -n {} --from-file={}={}", name, name_space, entry, file);
    if (there == nullptr) return make;
    auto patch = make + " --dry-run=client -o yaml";
    // An entry stands in data or in binaryData; `&&`: of a file that is not there only an empty patch is
    // left, which kubectl refuses.
    if (const auto& binary = at_path(*there, "binaryData"); binary.is_object() && binary.contains(entry))
        patch = fmt::format("({} && echo 'binaryData: {{{}: null}}')", patch, yaml_word(entry));
    // Not applied: kubectl would take away what it applied before and is not in this one, another CA or a revocation
    // list.
    return change_command(objects, *resources::find_kind("v1", "ConfigMap"), name_space, name,
                          fmt::format("{} | kubectl patch configmap {} -n {} --type merge "
                                      "--patch-file /dev/stdin",
                                      patch, name, name_space));
}

std::string did_you_mean(std::string_view wanted, const std::vector<std::string>& there) {
    const auto near = nearest(wanted, there);
    return near.empty() ? std::string() : fmt::format(" (did you mean \"{}\"?)", near);
}

std::string listed(const std::vector<std::string>& names) {
    const auto shown = std::min(names.size(), listed_max);
    auto out = fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
    if (names.size() > shown) out += fmt::format(" and {} more", names.size() - shown);
    return out;
}

std::string absent_rules(const Objects& objects, const char* kind, const std::string& space, const std::string& name) {
    const auto there = names_of(objects, broker_api, kind, space);
    const auto near = did_you_mean(name, there);
    const bool authenticates = std::string_view(kind) == "BrokerAuthentication";
    const auto made = makeable_name(broker_kind(kind), name, authenticates ? "clients" : "rules", there);
    const auto head = fmt::format("{} {}/{} does not exist{}", kind, space, resources::shortened(name), made == name ? near : fmt::format("{}, and no object can have that name ({})", near, name_rule(broker_kind(kind))));
    const auto make = fmt::format("make {}, here for {}, {}", made == name ? "it" : "one that can be", authenticates ? "tokens of service accounts" : "USER and TOPIC",
                                  made_with(authenticates ? make_authentication(space, made) : make_authorization(space, made), name, made, authenticates ? "authenticationRef" : "authorizationRef"));
    if (there.empty()) return fmt::format("{}, and no other is in namespace {}: {}", head, space, make);
    return fmt::format("{}: name one that is there ({}){}", head, control::listed(there), near.empty() ? ", or " + make : "");
}

std::string absent_issuer(const Objects& objects, const std::string& kind, const std::string& space, const std::string& name) {
    const auto there = issuers_for(objects, space);
    std::vector<std::string> same, other;
    for (const auto& one : there) (one.kind == kind ? same : other).push_back(one.name);
    auto near = did_you_mean(name, same);
    // The right name under the other kind is nearer than another name.
    if (const auto found = std::ranges::find(other, name); found != other.end()) near = fmt::format(" (did you mean the {} of that name?)", kind == "Issuer" ? "ClusterIssuer" : "Issuer");
    same.insert(same.end(), other.begin(), other.end());
    const auto made = makeable_name(issuer_kind(kind), name, "plant", same);
    const auto head = fmt::format("the {} \"{}\" does not exist{}", kind, resources::shortened(name), made == name ? near : fmt::format("{}, and no object can have that name ({})", near, name_rule(issuer_kind(kind))));
    const auto make = fmt::format("make {}, here so that each certificate signs itself, {}", made == name ? "it" : "one that can be", made_with(make_issuer(kind, space, made), name, made, "issuerRef.name"));
    if (there.empty()) return fmt::format("{}, and no other issuer is there: {}", head, make);
    return fmt::format("{}: name one that is there in issuerRef ({}){}", head, listed(there), near.empty() ? ", or " + make : "");
}

std::string authentication_cure(const Objects& objects, const std::string& listener, const std::string& path) {
    const auto space = listener.substr(0, listener.find('/'));
    const auto there = names_of(objects, broker_api, "BrokerAuthentication", space);
    const auto edit = "with: " + edit_command("brokerlistener", listener);
    // The one of the platform's own listener, where it is there: another one may be for a few clients alone.
    const auto usual = std::ranges::find(there, "default");
    if (!there.empty()) return fmt::format("write authenticationRef: {} into {} (there {}: {}), {}", yaml_word(usual != there.end() ? *usual : there.front()), path, there.size() == 1 ? "is" : "are", control::listed(there), edit);
    return fmt::format("no BrokerAuthentication is in namespace {}: make one, here for tokens of service accounts, with: {}; then write authenticationRef: clients into {}, {}", space, make_authentication(space, "clients"), path, edit);
}

std::string tls_cure(const Objects& objects, const std::string& listener, const std::string& path) {
    const auto space = listener.substr(0, listener.find('/'));
    const auto there = issuers_for(objects, space);
    auto write = [&](const Issuer& by) {
        return fmt::format("write tls: {{mode: Automatic, certManagerCertificateSpec: {{issuerRef: {{kind: {}, name: {}}}}}}} into {}{}, with: kubectl edit brokerlistener {}", by.kind, yaml_word(by.name), path,
                           there.empty() ? "" : fmt::format(" (issuers that are there: {})", listed(there)), as_words(listener));
    };
    const auto usual = std::ranges::find_if(there, [](const auto& one) {
        return one.kind == "ClusterIssuer" && one.name == default_issuer;
    });
    if (!there.empty()) return write(usual != there.end() ? *usual : there.front());
    // The issuers of a cluster are not followed: they may be there all the same.
    return fmt::format("{}; an issuer is made, here one whose certificates sign themselves, with: {}", write({"Issuer", "plant"}), make_issuer("Issuer", space, "plant"));
}

}  // namespace penstock::control
