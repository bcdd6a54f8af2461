#include "registry/admission.h"

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"

namespace penstock::registry {

using resources::Fault;
using resources::Json;
using resources::text_at;

std::string broker_of(const Json& object) {
    const auto& owners = resources::at_path(object, "metadata.ownerReferences");
    if (owners.is_array())
        for (const auto& owner : owners)
            if (equal_no_case(text_at(owner, "kind"), "Broker")) return text_at(owner, "name");
    return text_at(object, "spec.brokerRef");
}

Answer<void> admit_defaults(const resources::Kind& kind, Json& object, const Json* previous, const Peers& peers) {
    if (kind.built_in) return admit_core_defaults(kind, object, previous, peers);
    if (kind.kind == "BrokerListener" && object.contains("spec") && object["spec"].is_object() && text_at(object, "spec.serviceName").empty())
        object["spec"]["serviceName"] = text_at(object, "metadata.name");
    return {};
}

namespace {

void admit_listener(const Json& object, const std::vector<ObjectRef>& peers, const std::vector<ObjectRef>& brokers, std::vector<Fault>& faults) {
    const auto broker = broker_of(object);
    if (broker.empty()) faults.push_back({"spec.brokerRef", "FieldValueRequired", "Required value: the name of the Broker, here or as an owner reference of kind Broker"});
    bool any_type = false;
    for (const auto& candidate : brokers)
        if (text_at(*candidate, "metadata.name") == broker)
            if (const auto& annotations = resources::at_path(*candidate, "metadata.annotations"); annotations.is_object())
                any_type = equal_no_case(annotations.value("penstock.io/listeners-per-service-type", ""), "Any");
    const auto type = text_at(object, "spec.serviceType", "ClusterIp");
    const auto& ports = object["spec"]["ports"];
    for (std::size_t i = 0; i < ports.size(); ++i) {
        const auto& port = ports[i];
        const auto path = fmt::format("spec.ports[{}]", i);
        if (port.contains("nodePort") && port["nodePort"] != 0 && !equal_no_case(type, "NodePort"))
            faults.push_back({path + ".nodePort", "FieldValueForbidden", fmt::format("Forbidden: only with serviceType NodePort, not {}", type)});
        if (const auto node_port = port.value("nodePort", 0); node_port != 0 && (node_port < 30'000 || node_port > 32'767))
            faults.push_back({path + ".nodePort", "FieldValueInvalid", fmt::format("Invalid value: {}: provided port is not in the valid range. The range of valid ports is 30000-32767", node_port)});
        if (const auto& tls = resources::at_path(port, "tls"); tls.is_object()) {
            const bool automatic = tls.contains("certManagerCertificateSpec"), manual = tls.contains("manual");
            if (automatic == manual)
                faults.push_back({path + ".tls", "FieldValueInvalid", "Invalid value: exactly one of certManagerCertificateSpec and manual must be given"});
            else if (equal_no_case(text_at(tls, "mode"), "Automatic") != automatic)
                faults.push_back({path + ".tls.mode", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": the other mode's sub-object is given", text_at(tls, "mode"))});
        }
    }
    for (const auto& peer : peers) {
        if (broker_of(*peer) != broker) continue;
        const auto peer_name = text_at(*peer, "metadata.name");
        if (!any_type && equal_no_case(text_at(*peer, "spec.serviceType", "ClusterIp"), type))
            faults.push_back({"spec.serviceType", "FieldValueInvalid",
                              fmt::format("Invalid value: \"{}\": listener {} has this type already; a broker takes one listener per service type (annotate the Broker with penstock.io/listeners-per-service-type: Any to allow more)", type, peer_name)});
        if (text_at(*peer, "spec.serviceName") == text_at(object, "spec.serviceName"))
            faults.push_back({"spec.serviceName", "FieldValueDuplicate", fmt::format("Duplicate value: \"{}\": listener {} has it", text_at(object, "spec.serviceName"), peer_name)});
        for (std::size_t i = 0; i < ports.size(); ++i)
            for (const auto& other : (*peer)["spec"]["ports"])
                if (ports[i]["port"] == other["port"] && ports[i]["port"] != 0)
                    faults.push_back({fmt::format("spec.ports[{}].port", i), "FieldValueDuplicate", fmt::format("Duplicate value: {}: listener {} has this port", ports[i]["port"].get<int>(), peer_name)});
    }
}

void admit_broker(const Json& object, const std::vector<ObjectRef>& peers, std::vector<Fault>& faults) {
    if (!peers.empty())
        faults.push_back({"metadata.name", "FieldValueForbidden", fmt::format("Forbidden: Broker {} exists; one per namespace is allowed", text_at(*peers[0], "metadata.name"))});
    if (const auto level = text_at(object, "spec.diagnostics.logs.level"); !level.empty())
        if (const auto why = log::check_levels(level); !why.empty()) faults.push_back({"spec.diagnostics.logs.level", "FieldValueInvalid", "Invalid value: " + why});
    const auto& annotations = resources::at_path(object, "metadata.annotations");
    auto check = [&](const char* key, std::initializer_list<const char*> allowed) {
        if (!annotations.is_object() || !annotations.contains(key) || !annotations[key].is_string()) return;
        const auto value = annotations[key].get<std::string>();
        std::string list;
        for (const char* candidate : allowed) {
            if (equal_no_case(candidate, value)) return;
            list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", candidate);
        }
        faults.push_back({fmt::format("metadata.annotations[{}]", key), "FieldValueNotSupported", fmt::format("Unsupported value: \"{}\": supported values: {}", value, list)});
    };
    check("penstock.io/compatibility", {"AIO", "MQTT"});
    check("penstock.io/sys-topics", {"Enabled", "Disabled"});
    check("penstock.io/hide-selftest", {"Enabled", "Disabled"});
    check("penstock.io/listeners-per-service-type", {"One", "Any"});
}

}  // namespace

void admit(const resources::Kind& kind, const Json& object, const Json* previous, const Peers& peers, std::vector<Fault>& faults) {
    if (kind.built_in) return admit_core(kind, object, previous, peers, faults);
    if (kind.group != "mqttbroker.iotoperations.azure.com" || !faults.empty()) return;
    const auto space = text_at(object, "metadata.namespace");
    auto nearby = [&](const char* name) {
        auto out = peers.list("mqttbroker.iotoperations.azure.com/v1", name);
        std::erase_if(out, [&](const auto& peer) { return text_at(*peer, "metadata.namespace") != space; });
        return out;
    };
    if (kind.kind == "BrokerListener") admit_listener(object, nearby("BrokerListener"), nearby("Broker"), faults);
    if (kind.kind == "Broker") admit_broker(object, nearby("Broker"), faults);
}

}  // namespace penstock::registry
