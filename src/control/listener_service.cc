#include "control/listener_service.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::control {

using resources::at_path;
using resources::flag_of;
using resources::integer_of;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* product_label = "microsoft-iotoperations-mqttbroker";

/// `1883/TCP`: what makes a port of a Service itself.
std::string ports_text(const Json& service) {
    std::set<std::string> texts;
    if (const auto& ports = at_path(service, "spec.ports"); ports.is_array())
        for (const auto& port : ports)
            texts.insert(fmt::format("{}/{}", integer_of(port, "port"), text_at(port, "protocol", "TCP")));
    return fmt::format("{}", fmt::join(texts, ","));
}

/// True when Pods with the wanted labels are among those that the selector chooses.
bool selects(const Json& selector, const Json& wanted) {
    if (!selector.is_object()) return true;
    return std::ranges::all_of(selector.items(), [&](const auto& item) {
        return wanted.contains(item.key()) && wanted[item.key()] == item.value();
    });
}

}  // namespace

bool is_owned_by(const Json& object, const Json& listener) {
    const auto& owners = at_path(object, "metadata.ownerReferences");
    return owners.is_array() && std::ranges::any_of(owners, [&](const Json& owner) {
        return text_at(owner, "uid") == text_at(listener, "metadata.uid");
    });
}

Json service_of(const Json& listener, const Plan& plan, const std::vector<broker::ListenerState>& states,
                bool in_cluster, const Json* current) {
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    Json ports = Json::array();
    std::string type = "ClusterIP";
    for (std::size_t i = 0; i < plan.ports.size(); ++i) {
        const auto& port = plan.ports[i];
        if (port.listener != name || port.name_space != space) continue;
        type = port.service_type == "ClusterIp" ? "ClusterIP" : port.service_type;
        const bool is_open = i < states.size() && states[i].is_open;
        const int bound = is_open ? states[i].bound_port : port.config.port;
        const int number = port.port != 0 ? port.port : bound;
        Json entry = {{"name", fmt::format("mqtt-{}", number)}, {"port", number},
                      {"targetPort", bound != 0 ? bound : number}, {"protocol", "TCP"}};
        if (type == "NodePort") entry["nodePort"] = port.config.port;
        ports.push_back(std::move(entry));
    }
    const Json owner = {{"apiVersion", text_at(listener, "apiVersion")}, {"kind", "BrokerListener"},
                        {"name", name}, {"uid", text_at(listener, "metadata.uid")}, {"controller", true}};
    Json out = {{"apiVersion", "v1"}, {"kind", "Service"},
                {"metadata", {{"name", text_at(listener, "spec.serviceName", name)}, {"namespace", space},
                              {"labels", {{"app.kubernetes.io/name", product_label}}},
                              {"ownerReferences", Json::array({owner})}}},
                {"spec", {{"type", type}, {"ports", ports},
                          {"selector", {{"app.kubernetes.io/name", product_label}, {"tier", "frontend"}}}}}};
    if (in_cluster) return out;
    const auto address = current != nullptr ? text_at(*current, "spec.clusterIP") : std::string();
    out["spec"]["clusterIP"] = address.empty() ? "127.0.0.1" : address;
    // Clients reach a LoadBalancer's port itself; there is no second port behind it.
    if (type == "LoadBalancer") out["spec"]["allocateLoadBalancerNodePorts"] = false;
    return out;
}

std::string service_refusal(const Json& current, const Json& listener, const Json& wanted) {
    if (is_owned_by(current, listener)) return {};
    const auto name = text_at(listener, "metadata.name");
    const auto place = text_at(current, "metadata.namespace") + "/" + text_at(current, "metadata.name");
    constexpr const char* cure = "name another Service in spec.serviceName, or delete this one";
    if (const auto& owners = at_path(current, "metadata.ownerReferences"); owners.is_array())
        for (const auto& owner : owners) {
            // An earlier listener of this name: its Service is this one's.
            if (text_at(owner, "kind") == "BrokerListener" && text_at(owner, "name") == name) return {};
            if (flag_of(owner, "controller"))
                return fmt::format("Service {} is {} {}'s and is left as it is; {}", place,
                                   text_at(owner, "kind"), text_at(owner, "name"), cure);
        }
    std::vector<std::string> differences;
    auto differs = [&](const char* field, const std::string& is, const std::string& ought) {
        if (is == ought) return;
        differences.push_back(fmt::format("{} is {}, the listener's is {}", field, is, ought));
    };
    differs("spec.type", text_at(current, "spec.type", "ClusterIP"), text_at(wanted, "spec.type"));
    differs("spec.ports", ports_text(current), ports_text(wanted));
    if (!selects(at_path(current, "spec.selector"), at_path(wanted, "spec.selector")))
        differences.emplace_back("spec.selector chooses Pods that are not the broker's");
    if (differences.empty()) return {};
    return fmt::format("Service {} was there first, says something else and is left as it is ({}); {}", place,
                       fmt::join(differences, "; "), cure);
}

}  // namespace penstock::control
