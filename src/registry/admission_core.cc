// Defaults and rules of the kinds of Kubernetes itself.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"
#include "io/address.h"
#include "registry/admission.h"
#include "resources/definition.h"
#include "resources/text_rules.h"

namespace penstock::registry {

using resources::at_path;
using resources::Fault;
using resources::flag_of;
using resources::integer_of;
using resources::Json;
using resources::Kind;
using resources::text_at;

namespace {

constexpr std::size_t data_bytes_max = 1024 * 1024;
constexpr int node_port_min = 30'000, node_port_max = 32'767;

std::string json_text(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// The first byte at which base64 goes wrong, as Kubernetes tells it.
std::size_t base64_fault(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i)
        if (std::isalnum(static_cast<unsigned char>(text[i])) == 0 && text[i] != '+' && text[i] != '/' && text[i] != '=') return i;
    return text.size() - text.size() % 4;
}

Answer<void> check_base64(const Kind& kind, const Json& object, const char* field) {
    const auto& data = at_path(object, field);
    if (!data.is_object()) return {};
    for (const auto& [key, value] : data.items())
        if (value.is_string() && !base64_decode(value.get_ref<const std::string&>()))
            return std::unexpected(bad_request(fmt::format("{} in version \"{}\" cannot be handled as a {}: illegal base64 data at input byte {} ({}[{}])", kind.kind, kind.version, kind.kind,
                                                           base64_fault(value.get_ref<const std::string&>()), field, key)));
    return {};
}

Answer<void> default_secret(const Kind& kind, Json& object) {
    auto& data = object["data"];
    if (data.is_null()) object.erase("data");
    // A null value in data is an empty one.
    if (object.contains("data") && object["data"].is_object())
        for (auto& [key, value] : object["data"].items())
            if (value.is_null()) value = "";
    if (auto good = check_base64(kind, object, "data"); !good) return good;
    fold_texts(object);
    return {};
}

void default_service(Json& object, const Json* previous, const Peers& peers) {
    auto& spec = object["spec"];
    if (!spec.is_object()) return;
    auto choose = [](Json& parent, const char* key, const Json& value) {
        if (!parent.contains(key) || parent[key].is_null() || (parent[key].is_string() && parent[key].get_ref<const std::string&>().empty())) parent[key] = value;
    };
    choose(spec, "type", "ClusterIP");
    choose(spec, "sessionAffinity", "None");
    const auto type = text_at(spec, "type");
    const auto services = peers.list("v1", "Service");
    const auto& old = previous != nullptr ? at_path(*previous, "spec") : Json();
    if (spec.contains("ports") && spec["ports"].is_array()) {
        std::set<int> used;
        for (const auto& service : services)
            if (const auto& ports = at_path(*service, "spec.ports"); ports.is_array())
                for (const auto& port : ports) used.insert(integer_of(port, "nodePort"));
        for (const auto& port : spec["ports"]) used.insert(integer_of(port, "nodePort"));
        for (auto& port : spec["ports"]) {
            if (!port.is_object()) continue;
            choose(port, "protocol", "TCP");
            if (port.contains("port") && (!port.contains("targetPort") || port["targetPort"] == 0 || port["targetPort"] == "")) port["targetPort"] = port["port"];
            // None was asked for; anything else that is no port stays, for the schema to refuse.
            if (const auto& asked = at_path(port, "nodePort"); asked.is_null() || (asked.is_number_integer() && asked == 0)) port.erase("nodePort");
            // A type without node ports gives up those the former type had been given.
            if (type == "ClusterIP" && port.contains("nodePort"))
                if (const auto& before = at_path(old, "ports"); before.is_array() && text_at(old, "type") != "ClusterIP" && std::ranges::any_of(before, [&](const Json& was) { return integer_of(was, "nodePort") == port["nodePort"]; }))
                    port.erase("nodePort");
            const bool wants_node_port = type == "NodePort" || (type == "LoadBalancer" && flag_of(spec, "allocateLoadBalancerNodePorts", true));
            if (!wants_node_port || port.contains("nodePort")) continue;
            // The one it had stays; a new one is the next free.
            if (const auto& before = at_path(old, "ports"); before.is_array())
                for (const auto& was : before)
                    if (integer_of(was, "port") == integer_of(port, "port") && text_at(was, "protocol", "TCP") == text_at(port, "protocol") && integer_of(was, "nodePort") != 0) port["nodePort"] = was["nodePort"];
            for (int candidate = node_port_min; !port.contains("nodePort") && candidate <= node_port_max; ++candidate)
                if (used.insert(candidate).second) port["nodePort"] = candidate;
        }
    }
    if (type == "ExternalName") {
        spec.erase("clusterIP");
        spec.erase("clusterIPs");
        return;
    }
    if (text_at(spec, "clusterIP").empty() && !text_at(old, "clusterIP").empty()) spec["clusterIP"] = old["clusterIP"];
    if (text_at(spec, "clusterIP").empty()) {
        std::set<std::string> used;
        for (const auto& service : services) used.insert(text_at(*service, "spec.clusterIP"));
        for (int host = 10; host < 65'000; ++host) {
            const auto address = fmt::format("10.43.{}.{}", host / 256, host % 256);
            if (used.contains(address)) continue;
            spec["clusterIP"] = address;
            break;
        }
    }
    spec["clusterIPs"] = Json::array({spec["clusterIP"]});
    choose(spec, "ipFamilies", Json::array({"IPv4"}));
    choose(spec, "ipFamilyPolicy", "SingleStack");
    choose(spec, "internalTrafficPolicy", "Cluster");
    if (type != "ClusterIP") choose(spec, "externalTrafficPolicy", "Cluster");
    else spec.erase("externalTrafficPolicy");
    if (type == "LoadBalancer") choose(spec, "allocateLoadBalancerNodePorts", true);
    else spec.erase("allocateLoadBalancerNodePorts");
    if (!object.contains("status") || !object["status"].is_object()) object["status"] = {{"loadBalancer", Json::object()}};
}

void default_rbac(Json& object) {
    if (auto subjects = object.find("subjects"); subjects != object.end() && subjects->is_array())
        for (auto& subject : *subjects)
            if (subject.is_object() && text_at(subject, "apiGroup").empty() && text_at(subject, "kind") != "ServiceAccount") subject["apiGroup"] = "rbac.authorization.k8s.io";
}

const Json& first_of(const Json& list) {
    static const Json none;
    return list.is_array() && !list.empty() ? list[0] : none;
}

void default_definition(Json& object, const Json* previous) {
    auto& spec = object["spec"];
    if (!spec.is_object() || !spec["names"].is_object()) return;
    auto& names = spec["names"];
    if (text_at(names, "singular").empty()) names["singular"] = to_lower(text_at(names, "kind"));
    if (text_at(names, "listKind").empty()) names["listKind"] = text_at(names, "kind") + "List";
    if (!spec.contains("conversion")) spec["conversion"] = {{"strategy", "None"}};
    const auto now = rfc3339(wall_ms());
    const auto since = previous != nullptr ? text_at(first_of(at_path(*previous, "status.conditions")), "lastTransitionTime", now) : now;
    auto condition = [&](const char* type, const char* reason, const char* message) {
        return Json{{"type", type}, {"status", "True"}, {"lastTransitionTime", since}, {"reason", reason}, {"message", message}};
    };
    std::set<std::string> stored;
    if (previous != nullptr)
        if (const auto& before = at_path(*previous, "status.storedVersions"); before.is_array())
            for (const auto& v : resources::texts_of(before)) stored.insert(v);
    if (spec.contains("versions") && spec["versions"].is_array())
        for (const auto& version : spec["versions"])
            if (flag_of(version, "storage")) stored.insert(text_at(version, "name"));
    object["status"] = {{"conditions", Json::array({condition("NamesAccepted", "NoConflicts", "no conflicts found"), condition("Established", "InitialNamesAccepted", "the initial names have been accepted")})},
                        {"acceptedNames", names}, {"storedVersions", stored}};
}

/// Keys and sizes of ConfigMaps and Secrets.
void check_data(const Json& object, std::initializer_list<const char*> fields, const char* size_field, std::vector<Fault>& faults) {
    std::size_t total = 0;
    std::set<std::string> seen;
    for (const char* field : fields) {
        const auto& data = at_path(object, field);
        if (!data.is_object()) continue;
        for (const auto& [key, value] : data.items()) {
            const bool good = !key.empty() && key.size() <= 253 && key != "." && key != ".." && std::ranges::all_of(key, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'; });
            if (!good) faults.push_back({fmt::format("{}[{}]", field, key), "FieldValueInvalid", fmt::format("Invalid value: {}: a valid config key must consist of alphanumeric characters, '-', '_' or '.'", json_text(key))});
            if (!seen.insert(key).second) faults.push_back({fmt::format("{}[{}]", field, key), "FieldValueInvalid", fmt::format("Invalid value: {}: duplicate of key present in data", json_text(key))});
            if (value.is_string()) total += std::string_view(field) == "data" && std::string_view(size_field) == "" ? value.get_ref<const std::string&>().size() / 4 * 3 : value.get_ref<const std::string&>().size();
        }
    }
    if (total > data_bytes_max) faults.push_back({size_field, "FieldValueTooLong", fmt::format("Too long: may not be more than {} bytes", data_bytes_max)});
}

void check_immutable(const Json& object, const Json* previous, std::initializer_list<const char*> fields, std::vector<Fault>& faults) {
    if (previous == nullptr || !flag_of(*previous, "immutable")) return;
    if (!flag_of(object, "immutable")) faults.push_back({"immutable", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set"});
    for (const char* field : fields)
        if (at_path(object, field) != at_path(*previous, field)) faults.push_back({field, "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set"});
}

void admit_secret(const Json& object, const Json* previous, std::vector<Fault>& faults) {
    check_data(object, {"data"}, "data", faults);
    check_immutable(object, previous, {"data"}, faults);
    const auto type = text_at(object, "type", "Opaque");
    if (previous != nullptr && text_at(*previous, "type", "Opaque") != type)
        faults.push_back({"type", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": field is immutable", type)});
    const auto& data = at_path(object, "data");
    auto has = [&](const char* key) { return data.is_object() && data.contains(key); };
    auto need = [&](const char* key) {
        if (!has(key)) faults.push_back({fmt::format("data[{}]", key), "FieldValueRequired", "Required value"});
    };
    if (type == "kubernetes.io/tls") need("tls.crt"), need("tls.key");
    if (type == "kubernetes.io/basic-auth" && !has("username") && !has("password")) need("username"), need("password");
    if (type == "kubernetes.io/ssh-auth") need("ssh-privatekey");
    if (type == "kubernetes.io/dockerconfigjson") {
        need(".dockerconfigjson");
        if (has(".dockerconfigjson") && data[".dockerconfigjson"].is_string())
            if (const auto parsed = resources::parse_json(base64_decode(data[".dockerconfigjson"].get<std::string>()).value_or("")); !parsed)
                faults.push_back({"data[.dockerconfigjson]", "FieldValueInvalid", fmt::format("Invalid value: \"<secret contents redacted>\": {}", parsed.error().message)});
    }
    if (type == "kubernetes.io/service-account-token") {
        const auto& annotations = at_path(object, "metadata.annotations");
        if (!annotations.is_object() || annotations.value("kubernetes.io/service-account.name", "").empty())
            faults.push_back({"metadata.annotations[kubernetes.io/service-account.name]", "FieldValueRequired", "Required value"});
    }
}

void admit_service(const Json& object, const Json* previous, const Peers& peers, std::vector<Fault>& faults) {
    const auto& spec = at_path(object, "spec");
    const auto type = text_at(spec, "type", "ClusterIP");
    const auto& ports = at_path(spec, "ports");
    if (!spec.is_object()) return faults.push_back({"spec", "FieldValueRequired", "Required value"});
    if (type != "ExternalName" && text_at(spec, "clusterIP") != "None" && (!ports.is_array() || ports.empty())) faults.push_back({"spec.ports", "FieldValueRequired", "Required value"});
    if (previous != nullptr && type != "ExternalName" && text_at(*previous, "spec.type") != "ExternalName")
        if (const auto before = text_at(*previous, "spec.clusterIP"); !before.empty() && before != text_at(spec, "clusterIP"))
            faults.push_back({"spec.clusterIPs[0]", "FieldValueInvalid", fmt::format("Invalid value: [\"{}\"]: may not change once set", text_at(spec, "clusterIP"))});
    if (!ports.is_array()) return;
    std::set<std::string> seen, names;
    std::set<int> taken;
    for (const auto& service : peers.list("v1", "Service"))
        if (const auto& others = at_path(*service, "spec.ports"); others.is_array())
            for (const auto& other : others) taken.insert(integer_of(other, "nodePort"));
    for (std::size_t i = 0; i < ports.size(); ++i) {
        const auto at = fmt::format("spec.ports[{}]", i);
        const auto& port = ports[i];
        if (!port.is_object()) continue;
        const auto name = text_at(port, "name");
        if (ports.size() > 1 && name.empty()) faults.push_back({at + ".name", "FieldValueRequired", "Required value"});
        if (!name.empty() && !names.insert(name).second) faults.push_back({at + ".name", "FieldValueDuplicate", fmt::format("Duplicate value: \"{}\"", name)});
        if (!seen.insert(fmt::format("{}/{}", integer_of(port, "port"), text_at(port, "protocol"))).second)
            faults.push_back({at, "FieldValueDuplicate", fmt::format("Duplicate value: {}", json_text({{"port", integer_of(port, "port")}, {"protocol", text_at(port, "protocol")}}))});
        const int node_port = integer_of(port, "nodePort");
        if (node_port == 0) continue;
        if (type == "ClusterIP") faults.push_back({at + ".nodePort", "FieldValueForbidden", "Forbidden: may not be used when `type` is 'ClusterIP'"});
        // A listener's port is bound on the machine itself, and any free one will do there.
        else if (const auto& owners = at_path(object, "metadata.ownerReferences"); owners.is_array() && !owners.empty() && text_at(owners[0], "kind") == "BrokerListener") continue;
        else if (node_port < node_port_min || node_port > node_port_max)
            faults.push_back({at + ".nodePort", "FieldValueInvalid", fmt::format("Invalid value: {}: provided port is not in the valid range. The range of valid ports is {}-{}", node_port, node_port_min, node_port_max)});
        else if (taken.contains(node_port)) faults.push_back({at + ".nodePort", "FieldValueInvalid", fmt::format("Invalid value: {}: provided port is already allocated", node_port)});
    }
}

void admit_rbac(const Kind& kind, const Json& object, const Json* previous, std::vector<Fault>& faults) {
    if (kind.kind.ends_with("Binding")) {
        if (previous != nullptr && at_path(*previous, "roleRef") != at_path(object, "roleRef"))
            faults.push_back({"roleRef", "FieldValueInvalid", fmt::format("Invalid value: {}: cannot change roleRef", json_text(at_path(object, "roleRef")))});
        const auto& subjects = at_path(object, "subjects");
        for (std::size_t i = 0; subjects.is_array() && i < subjects.size(); ++i)
            if (text_at(subjects[i], "kind") == "ServiceAccount" && text_at(subjects[i], "namespace").empty() && kind.kind == "ClusterRoleBinding")
                faults.push_back({fmt::format("subjects[{}].namespace", i), "FieldValueRequired", "Required value"});
        return;
    }
    const auto& rules = at_path(object, "rules");
    for (std::size_t i = 0; rules.is_array() && i < rules.size(); ++i) {
        const auto at = fmt::format("rules[{}]", i);
        const auto count = [&](const char* field) { return at_path(rules[i], field).is_array() ? at_path(rules[i], field).size() : 0; };
        if (count("verbs") == 0) faults.push_back({at + ".verbs", "FieldValueRequired", "Required value: verbs must contain at least one value"});
        if (count("nonResourceURLs") > 0) {
            if (kind.kind == "Role") faults.push_back({at + ".nonResourceURLs", "FieldValueInvalid", "Invalid value: namespaced rules cannot apply to non-resource URLs"});
            if (count("resources") > 0) faults.push_back({at + ".nonResourceURLs", "FieldValueInvalid", "Invalid value: rules cannot apply to both regular resources and non-resource URLs"});
            continue;
        }
        if (count("apiGroups") == 0) faults.push_back({at + ".apiGroups", "FieldValueRequired", "Required value: resource rules must supply at least one api group"});
        if (count("resources") == 0) faults.push_back({at + ".resources", "FieldValueRequired", "Required value: resource rules must supply at least one resource"});
    }
}

}  // namespace

void fold_texts(Json& object) {
    const auto found = object.find("stringData");
    if (found == object.end()) return;
    const Json texts = *found;   // `data` may be put in beside it, and then `found` is no place any more
    auto fits = [](const Json& value) { return value.is_null() || value.is_string(); };
    if (!texts.is_null() && (!texts.is_object() || !std::ranges::all_of(texts, fits))) return;
    if (const auto& data = at_path(object, "data"); !data.is_null() && !data.is_object()) return;
    if (texts.is_object())
        for (const auto& [key, value] : texts.items()) object["data"][key] = value.is_string() ? base64_encode(value.get_ref<const std::string&>()) : "";
    object.erase("stringData");
}

Answer<void> admit_core_defaults(const Kind& kind, Json& object, const Json* previous, const Peers& peers) {
    if (kind.kind == "Secret") return default_secret(kind, object);
    if (kind.kind == "ConfigMap") return check_base64(kind, object, "binaryData");
    if (kind.kind == "Service") default_service(object, previous, peers);
    if (kind.kind.ends_with("RoleBinding")) default_rbac(object);
    if (kind.kind == "CustomResourceDefinition") default_definition(object, previous);
    if (kind.kind == "Namespace" && previous == nullptr) {
        object["spec"] = {{"finalizers", {"kubernetes"}}};
        object["status"] = {{"phase", "Active"}};
    }
    if (const auto& labels = at_path(object, "metadata.labels"); kind.kind == "Namespace" && (labels.is_null() || labels.is_object()))
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = text_at(object, "metadata.name");
    return {};
}

/// What the slices that follow Endpoints, and whoever connects to them, rely on.
void admit_endpoints(const Json& object, std::vector<Fault>& faults) {
    const auto& subsets = at_path(object, "subsets");
    for (std::size_t i = 0; i < subsets.size(); ++i)
        for (const char* field : {"addresses", "notReadyAddresses"}) {
            const auto& addresses = at_path(subsets[i], field);
            for (std::size_t k = 0; k < addresses.size(); ++k) {
                auto wrong = [&](const char* name, const std::string& text, const char* why) {
                    const auto shown = json_text(resources::shortened(text));
                    faults.push_back({fmt::format("subsets[{}].{}[{}].{}", i, field, k, name),
                                      "FieldValueInvalid", fmt::format("Invalid value: {}: {}", shown, why)});
                };
                const auto ip = text_at(addresses[k], "ip"), host = text_at(addresses[k], "hostname");
                const auto node = text_at(addresses[k], "nodeName");
                if (!io::is_ip_address(ip)) wrong("ip", ip, "must be an address, as 10.9.8.7 or 2001:db8::1");
                else if (ip == "0.0.0.0" || ip == "::") wrong("ip", ip, "may not be unspecified");
                if (!host.empty() && !resources::is_dns_label(host))
                    wrong("hostname", host,
                          "must be at most 63 of a-z, 0-9 and '-', with a letter or digit at each end");
                if (!node.empty() && !resources::is_dns_subdomain(node))
                    wrong("nodeName", node, "must be the name of a Node");
            }
        }
}

void admit_core(const Kind& kind, const Json& object, const Json* previous, const Peers& peers, std::vector<Fault>& faults) {
    if (!faults.empty()) return;   // the rules below rely on types
    if (kind.kind == "Secret") admit_secret(object, previous, faults);
    if (kind.kind == "ConfigMap") check_data(object, {"data", "binaryData"}, "", faults), check_immutable(object, previous, {"data", "binaryData"}, faults);
    if (kind.kind == "Service") admit_service(object, previous, peers, faults);
    if (kind.kind == "Endpoints") admit_endpoints(object, faults);
    if (kind.group == "rbac.authorization.k8s.io") admit_rbac(kind, object, previous, faults);
    if (kind.kind == "CustomResourceDefinition") std::ranges::move(resources::check_definition(object), std::back_inserter(faults));
}

}  // namespace penstock::registry
