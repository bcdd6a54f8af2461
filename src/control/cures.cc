#include "control/cures.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/shell.h"
#include "base/text.h"
#include "control/object_names.h"
#include "resources/text_rules.h"
#include "resources/yaml_words.h"

namespace penstock::control {

using resources::Json;
using resources::text_at;

namespace {

constexpr const char* broker_api = "mqttbroker.iotoperations.azure.com/v1";
constexpr const char* issuer_api = "cert-manager.io/v1";
constexpr std::size_t listed_max = 10;

/// YAML on one line, without quotes where it can be: kubectl puts backslashes before those of a text that it shows.
std::string flow_of(const Json& value) {
    if (value.is_string() && resources::word_of(value.get<std::string>()).type == resources::WordType::text)
        return value.get<std::string>();
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

/// One as the default listener has it: tokens of service accounts.
std::string make_authentication(const std::string& space, const std::string& name) {
    const Json method = {{"method", "ServiceAccountToken"}, {"serviceAccountTokenSettings", {{"audiences", Json::array({"aio-internal"})}}}};
    return make_command(object_of(broker_api, "BrokerAuthentication", space, makeable_name(name, "clients"), {{"authenticationMethods", Json::array({method})}}));
}

std::string make_authorization(const std::string& space, const std::string& name) {
    const Json may = Json::array({{{"method", "Connect"}}, {{"method", "Publish"}, {"topics", Json::array({"TOPIC"})}}, {{"method", "Subscribe"}, {"topics", Json::array({"TOPIC"})}}});
    const Json rule = {{"principals", {{"usernames", Json::array({"USER"})}}}, {"brokerResources", may}};
    return make_command(object_of(broker_api, "BrokerAuthorization", space, makeable_name(name, "rules"), {{"authorizationPolicies", {{"rules", Json::array({rule})}}}}));
}

std::string make_issuer(const std::string& kind, const std::string& space, const std::string& name) {
    return make_command(object_of(issuer_api, kind, kind == "ClusterIssuer" ? "" : space, makeable_name(name, "plant"), {{"selfSigned", Json::object()}}));
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

std::string makeable_name(const std::string& name, const char* otherwise) {
    const bool is_good = name.size() >= 3 && name.size() <= 63 && name.front() != '-' && name.back() != '-' &&
                         std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
    return is_good ? name : otherwise;
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
    const auto head = fmt::format("{} {}/{} does not exist{}", kind, space, resources::shortened(name), near);
    const auto make = authenticates ? fmt::format("make it, here for tokens of service accounts, with: {}", make_authentication(space, name))
                                    : fmt::format("make it, here for USER and TOPIC, with: {}", make_authorization(space, name));
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
    const auto head = fmt::format("the {} \"{}\" does not exist{}", kind, resources::shortened(name), near);
    const auto make = fmt::format("make it, here so that each certificate signs itself, with: {}", make_issuer(kind, space, name));
    if (there.empty()) return fmt::format("{}, and no other issuer is there: {}", head, make);
    return fmt::format("{}: name one that is there in issuerRef ({}){}", head, listed(there), near.empty() ? ", or " + make : "");
}

std::string authentication_cure(const Objects& objects, const std::string& listener, const std::string& path) {
    const auto space = listener.substr(0, listener.find('/'));
    const auto there = names_of(objects, broker_api, "BrokerAuthentication", space);
    const auto edit = fmt::format("with: kubectl edit brokerlistener {}", as_words(listener));
    if (!there.empty()) return fmt::format("write authenticationRef: {} into {} (there {}: {}), {}", there.front(), path, there.size() == 1 ? "is" : "are", control::listed(there), edit);
    return fmt::format("no BrokerAuthentication is in namespace {}: make one, here for tokens of service accounts, with: {}; then write authenticationRef: clients into {}, {}", space, make_authentication(space, "clients"), path, edit);
}

std::string tls_cure(const Objects& objects, const std::string& listener, const std::string& path) {
    const auto space = listener.substr(0, listener.find('/'));
    const auto there = issuers_for(objects, space);
    auto write = [&](const Issuer& by) {
        return fmt::format("write tls: {{mode: Automatic, certManagerCertificateSpec: {{issuerRef: {{kind: {}, name: {}}}}}}} into {}{}, with: kubectl edit brokerlistener {}", by.kind, by.name, path,
                           there.empty() ? "" : fmt::format(" (issuers that are there: {})", listed(there)), as_words(listener));
    };
    if (!there.empty()) return write(there.front());
    // The issuers of a cluster are not followed: they may be there all the same.
    return fmt::format("{}; an issuer is made, here one whose certificates sign themselves, with: {}", write({"Issuer", "plant"}), make_issuer("Issuer", space, "plant"));
}

}  // namespace penstock::control
