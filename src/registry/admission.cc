#include "registry/admission.h"

#include <fmt/format.h>

#include "auth/policy.h"
#include "base/log.h"
#include "base/shell.h"
#include "base/text.h"
#include "resources/text_rules.h"
#include "topics/topic.h"

namespace penstock::registry {

using resources::Fault;
using resources::integer_of;
using resources::Json;
using resources::text_at;

std::string broker_of(const Json& object) {
    const auto& owners = resources::at_path(object, "metadata.ownerReferences");
    if (owners.is_array())
        for (const auto& owner : owners)
            if (equal_no_case(text_at(owner, "kind"), "Broker")) return text_at(owner, "name");
    return text_at(object, "spec.brokerRef");
}

void keep_empty_lists(const resources::Kind& kind, Json& object) {
    if (kind.group != "mqttbroker.iotoperations.azure.com" || kind.kind != "BrokerAuthorization") return;
    const Json::json_pointer rules("/spec/authorizationPolicies/rules"), field("/brokerResources");
    if (!object.contains(rules) || !object[rules].is_array()) return;
    for (auto& rule : object[rules]) {
        if (!rule.is_object() || !rule.contains(field) || !rule[field].is_array()) continue;
        for (auto& resource : rule[field])
            if (resource.is_object() && resource.contains("clientIds") && resource["clientIds"].is_null()) resource["clientIds"] = Json::array();
    }
}

Answer<void> admit_defaults(const resources::Kind& kind, Json& object, const Json* previous, const Peers& peers) {
    if (kind.built_in) return admit_core_defaults(kind, object, previous, peers);
    if (kind.kind == "BrokerListener" && object.contains("spec") && object["spec"].is_object())
        if (const auto& asked = resources::at_path(object, "spec.serviceName"); asked.is_null() || asked == "") object["spec"]["serviceName"] = text_at(object, "metadata.name");
    return {};
}

namespace {

void check_annotation(const Json& object, const char* key, std::initializer_list<const char*> allowed, std::vector<Fault>& faults) {
    const auto& annotations = resources::at_path(object, "metadata.annotations");
    if (!annotations.is_object() || !annotations.contains(key) || !annotations[key].is_string()) return;
    const auto value = annotations[key].get<std::string>();
    std::string list;
    for (const char* candidate : allowed) {
        if (equal_no_case(candidate, value)) return;
        list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", candidate);
    }
    faults.push_back({fmt::format("metadata.annotations[{}]", key), "FieldValueNotSupported", fmt::format("Unsupported value: \"{}\": supported values: {}", value, list)});
}

constexpr std::int64_t soonest_ms = 300'000;   // ahead of the end, as for cert-manager

/// Of a percentage counts what is left at renewal, as for cert-manager (since its pull request 9129).
void check_percentage(const Json& spec, std::int64_t lives_ms, const std::string& duration,
                      std::vector<Fault>& faults) {
    const auto& percent = resources::at_path(spec, "renewBeforePercentage");
    if (!percent.is_number_integer()) return;
    auto fault = [&](const std::string& why) {
        faults.push_back({"spec.renewBeforePercentage", "FieldValueInvalid",
                          fmt::format("Invalid value: {}: {}", percent.dump(), why)});
    };
    if (!text_at(spec, "renewBefore").empty())
        return fault("stands beside renewBefore, and only one of them can");
    const auto least = (soonest_ms * 100 + lives_ms - 1) / lives_ms;
    if (percent.get<std::int64_t>() < least)
        fault(fmt::format("of the duration ({}) must be at least 5m, so at least {}", duration, least));
}

/// What the issuer would refuse later: `spec` has duration and renewBefore, `wants` says how long a certificate lives otherwise.
void check_renewal(const Json& spec, const std::string& path, const char* wants, std::vector<Fault>& faults) {
    constexpr std::int64_t shortest_ms = 3'600'000;
    const auto duration = text_at(spec, "duration", wants), before = text_at(spec, "renewBefore");
    const auto lives = parse_duration_ms(duration);
    if (!lives) return;   // told by the field itself
    if (*lives < shortest_ms) faults.push_back({path + ".duration", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": must be at least 1h", duration)});
    if (before.empty()) return;
    const auto ahead = parse_duration_ms(before);
    if (!ahead || *ahead < soonest_ms || *ahead >= *lives)
        faults.push_back({path + ".renewBefore", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": must be at least 5m and below the duration ({})", before, duration)});
}

/// What a Certificate's time of renewal is made of.
bool has_same_times(const Json& one, const Json& other) {
    return std::ranges::all_of(
        std::array{"spec.duration", "spec.renewBefore", "spec.renewBeforePercentage"},
        [&](const char* field) { return resources::at_path(one, field) == resources::at_path(other, field); });
}

void check_renewals(const resources::Kind& kind, const Json& object, const Json* previous,
                    std::vector<Fault>& faults) {
    const auto& spec = resources::at_path(object, "spec");
    if (kind.group == "cert-manager.io" && kind.kind == "Certificate") {
        check_renewal(spec, "spec", "2160h", faults);
        const auto duration = text_at(spec, "duration", "2160h");
        const auto lives = parse_duration_ms(duration);
        if (lives && *lives > 0 && (previous == nullptr || !has_same_times(*previous, object)))
            check_percentage(spec, *lives, duration, faults);
    }
    if (kind.group != "mqttbroker.iotoperations.azure.com") return;
    if (const auto& internal = resources::at_path(spec, "advanced.internalCerts"); internal.is_object()) check_renewal(internal, "spec.advanced.internalCerts", "", faults);
    if (const auto& ports = resources::at_path(spec, "ports"); ports.is_array())
        for (std::size_t i = 0; i < ports.size(); ++i)
            if (const auto& automatic = resources::at_path(ports[i], "tls.certManagerCertificateSpec"); automatic.is_object())
                check_renewal(automatic, fmt::format("spec.ports[{}].tls.certManagerCertificateSpec", i), "2160h", faults);
}

std::string type_is_taken(const std::string& type, const std::string& peer, const std::string& space,
                          const std::string& broker) {
    return fmt::format("Invalid value: \"{}\": listener {} has this type already; a broker takes one listener "
                       "per service type. Delete that one with: kubectl delete brokerlistener {} -n {}; or "
                       "allow more with: kubectl annotate broker {} -n {} "
                       "penstock.io/listeners-per-service-type=Any",
                       type, peer, peer, space, shell_quoted(resources::shortened(broker)), space);
}

void admit_listener(const Json& object, const std::vector<ObjectRef>& peers, const std::vector<ObjectRef>& brokers, std::vector<Fault>& faults) {
    const auto broker = broker_of(object);
    if (broker.empty()) faults.push_back({"spec.brokerRef", "FieldValueRequired", "Required value: the name of the Broker, here or as an owner reference of kind Broker"});
    const auto& annotations = resources::at_path(object, "metadata.annotations");
    if (constexpr const char* key = "penstock.io/websocket-origins"; annotations.is_object() && annotations.contains(key) && annotations[key].is_string()) {
        for (const auto part : split(annotations[key].get_ref<const std::string&>(), ',')) {
            const auto origin = trim(part);
            const auto scheme = origin.find("://");
            // An origin is a scheme, a host and perhaps a port (RFC 6454 section 6.2); one with a path would never match.
            if (origin == "null" || (scheme != 0 && scheme != std::string_view::npos && scheme + 3 < origin.size() && origin.find_first_of("/ ", scheme + 3) == std::string_view::npos)) continue;
            faults.push_back({fmt::format("metadata.annotations[{}]", key), "FieldValueInvalid", fmt::format("Invalid value: \"{}\": an origin such as https://portal.plant.example or http://localhost:*, several by comma", origin)});
        }
    }
    bool any_type = false;
    for (const auto& candidate : brokers)
        if (text_at(*candidate, "metadata.name") == broker)
            if (const auto& marks = resources::at_path(*candidate, "metadata.annotations"); marks.is_object())
                any_type = equal_no_case(marks.value("penstock.io/listeners-per-service-type", ""), "Any");
    const auto type = text_at(object, "spec.serviceType", "ClusterIp");
    const auto& ports = object["spec"]["ports"];
    for (std::size_t i = 0; i < ports.size(); ++i) {
        const auto& port = ports[i];
        const auto path = fmt::format("spec.ports[{}]", i);
        if (port.contains("nodePort") && port["nodePort"] != 0 && !equal_no_case(type, "NodePort"))
            faults.push_back({path + ".nodePort", "FieldValueForbidden", fmt::format("Forbidden: only with serviceType NodePort, not {}", type)});
        if (const auto node_port = integer_of(port, "nodePort"); node_port != 0 && (node_port < 30'000 || node_port > 32'767))
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
                              type_is_taken(type, peer_name, text_at(*peer, "metadata.namespace"), broker)});
        if (text_at(*peer, "spec.serviceName") == text_at(object, "spec.serviceName"))
            faults.push_back({"spec.serviceName", "FieldValueDuplicate", fmt::format("Duplicate value: \"{}\": listener {} has it", text_at(object, "spec.serviceName"), peer_name)});
        for (std::size_t i = 0; i < ports.size(); ++i)
            for (const auto& other : resources::at_path(*peer, "spec.ports"))   // of an object that an older version let in, perhaps
                if (integer_of(ports[i], "port") == integer_of(other, "port") && integer_of(ports[i], "port") != 0)
                    faults.push_back({fmt::format("spec.ports[{}].port", i), "FieldValueDuplicate", fmt::format("Duplicate value: {}: listener {} has this port", integer_of(ports[i], "port"), peer_name)});
    }
}

void admit_broker(const Json& object, const std::vector<ObjectRef>& peers, std::vector<Fault>& faults) {
    if (!peers.empty())
        faults.push_back({"metadata.name", "FieldValueForbidden", fmt::format("Forbidden: Broker {} exists; one per namespace is allowed", text_at(*peers[0], "metadata.name"))});
    if (const auto level = text_at(object, "spec.diagnostics.logs.level"); !level.empty())
        if (const auto why = log::check_levels(level); !why.empty()) faults.push_back({"spec.diagnostics.logs.level", "FieldValueInvalid", "Invalid value: " + why});
    auto check = [&](const char* key, std::initializer_list<const char*> allowed) { check_annotation(object, key, allowed, faults); };
    check("penstock.io/compatibility", {"AIO", "MQTT"});
    check("penstock.io/sys-topics", {"Enabled", "Disabled"});
    check("penstock.io/hide-selftest", {"Enabled", "Disabled"});
    check("penstock.io/listeners-per-service-type", {"One", "Any"});
    const auto& annotations = resources::at_path(object, "metadata.annotations");
    auto wants = [&](const char* key, const char* what, auto&& good) {
        if (!annotations.is_object() || !annotations.contains(key) || !annotations[key].is_string()) return;
        const auto& value = annotations[key].get_ref<const std::string&>();
        if (!good(value)) faults.push_back({fmt::format("metadata.annotations[{}]", key), "FieldValueInvalid", fmt::format("Invalid value: \"{}\": {}", value, what)});
    };
    wants("penstock.io/persistence-sync", "a duration up to 10s, such as 200ms", [](const std::string& text) { return parse_duration_ms(text).value_or(-1) >= 0 && *parse_duration_ms(text) <= 10'000; });
    wants("penstock.io/message-buffer-age", "a duration such as 24h", [](const std::string& text) { return parse_duration_ms(text).value_or(0) > 0; });
    wants("penstock.io/subscriber-queue-bytes", "a size such as 64Mi", [](const std::string& text) { return parse_size(text).value_or(0) > 0; });
    if (const auto size = text_at(object, "spec.diskBackedMessageBuffer.maxSize"); !size.empty() && parse_size(size).value_or(0) < 1'000'000)
        faults.push_back({"spec.diskBackedMessageBuffer.maxSize", "FieldValueInvalid", fmt::format("Invalid value: \"{}\": at least 1M", size)});
}

/// What the schema cannot say about authentication methods.
void admit_authentication(const Json& object, std::vector<Fault>& faults) {
    const auto& methods = resources::at_path(object, "spec.authenticationMethods");
    struct Word {
        const char* method;
        const char* settings;
        bool needed;
    };
    constexpr Word words[] = {{"ServiceAccountToken", "serviceAccountTokenSettings", true}, {"X509", "x509Settings", false}, {"Custom", "customSettings", true}, {"Password", "passwordSettings", true}};
    for (std::size_t i = 0; i < methods.size(); ++i) {
        const auto path = fmt::format("spec.authenticationMethods[{}]", i);
        const auto method = text_at(methods[i], "method");
        for (const auto& word : words) {
            const bool mine = equal_no_case(method, word.method), there = methods[i].contains(word.settings);
            if (mine && word.needed && !there) faults.push_back({fmt::format("{}.{}", path, word.settings), "FieldValueRequired", fmt::format("Required value: method {} needs it", word.method)});
            if (!mine && there) faults.push_back({fmt::format("{}.{}", path, word.settings), "FieldValueForbidden", fmt::format("Forbidden: the method is {}", method)});
        }
        if (const auto& audiences = resources::at_path(methods[i], "serviceAccountTokenSettings.audiences"); audiences.is_array() && audiences.empty())
            faults.push_back({path + ".serviceAccountTokenSettings.audiences", "FieldValueRequired", "Required value: at least one audience, such as aio-internal"});
        if (equal_no_case(text_at(methods[i], "x509Settings.additionalValidation"), "AzureDeviceRegistry"))
            faults.push_back({path + ".x509Settings.additionalValidation", "FieldValueNotSupported", "Unsupported value: \"AzureDeviceRegistry\": there is no Azure device registry here; supported values: \"None\""});
    }
    auto check = [&](const char* key, std::initializer_list<const char*> allowed) { check_annotation(object, key, allowed, faults); };
    check("penstock.io/ocsp", {"Off", "SoftFail", "HardFail"});
    check("penstock.io/custom-unreachable", {"FallThrough", "Refuse"});
}

void admit_authorization(const Json& object, std::vector<Fault>& faults) {
    const auto& rules = resources::at_path(object, "spec.authorizationPolicies.rules");
    auto invalid = [&](const std::string& path, const std::string& why) { faults.push_back({path, "FieldValueInvalid", "Invalid value: " + why}); };
    for (std::size_t i = 0; i < rules.size(); ++i) {
        const auto rule_path = fmt::format("spec.authorizationPolicies.rules[{}]", i);
        const auto& principals = resources::at_path(rules[i], "principals");
        if (principals.is_object() && principals.empty()) faults.push_back({rule_path + ".principals", "FieldValueRequired", "Required value: clientIds, usernames or attributes; a rule without any is about nobody"});
        const auto& resources_of = resources::at_path(rules[i], "brokerResources");
        for (std::size_t k = 0; k < resources_of.size(); ++k) {
            const auto& resource = resources_of[k];
            const auto path = fmt::format("{}.brokerResources[{}]", rule_path, k);
            const bool connect = equal_no_case(text_at(resource, "method"), "Connect");
            const bool has_topics = resource.contains("topics") && !resource["topics"].empty(), has_ids = resource.contains("clientIds") && !resource["clientIds"].empty();
            if (connect && has_topics) faults.push_back({path + ".topics", "FieldValueForbidden", "Forbidden: only with Publish and Subscribe"});
            if (!connect && has_ids) faults.push_back({path + ".clientIds", "FieldValueForbidden", "Forbidden: only with Connect; to bind topics to a client use {principal.clientId} in them"});
            if (!connect && !has_topics) faults.push_back({path + ".topics", "FieldValueRequired", fmt::format("Required value: topics to {}; \"#\" for all", to_lower(text_at(resource, "method")))});
            for (const auto& [field, topics] : {std::pair{"topics", true}, std::pair{"clientIds", false}}) {
                if (!resource.contains(field) || !resource[field].is_array()) continue;
                for (std::size_t n = 0; n < resource[field].size(); ++n) {
                    const auto text = resource[field][n].get<std::string>();
                    const auto where = fmt::format("{}.{}[{}]", path, field, n);
                    if (const auto why = auth::token_fault(text, topics); !why.empty()) invalid(where, why);
                    else if (topics && !topics::is_valid_filter(text)) invalid(where, fmt::format("\"{}\": no topic filter: `+` and `#` are whole levels, `#` only at the end", text));
                    else if (topics && text.starts_with("$share/")) invalid(where, fmt::format("\"{}\": write the filter without $share/GROUP/; shared subscriptions are checked by their filter", text));
                }
            }
        }
        const auto& keys_of = resources::at_path(rules[i], "stateStoreResources");
        for (std::size_t k = 0; k < keys_of.size(); ++k) {
            const auto type = text_at(keys_of[k], "keyType", "Pattern");
            for (std::size_t n = 0; n < keys_of[k]["keys"].size(); ++n) {
                const auto text = keys_of[k]["keys"][n].get<std::string>();
                const auto where = fmt::format("{}.stateStoreResources[{}].keys[{}]", rule_path, k, n);
                if (equal_no_case(type, "Pattern"))
                    if (const auto why = auth::token_fault(text, false); !why.empty()) invalid(where, why);
                if (equal_no_case(type, "Binary") && !base64_decode(text)) invalid(where, "with keyType Binary the key is base64 of its bytes");
            }
        }
    }
}

}  // namespace

void admit(const resources::Kind& kind, const Json& object, const Json* previous, const Peers& peers, std::vector<Fault>& faults) {
    if (kind.built_in) return admit_core(kind, object, previous, peers, faults);
    const bool has_schema_faults = !faults.empty();   // the rules below rely on types
    // What an older version let in stays editable: only times that are new are looked at.
    const bool is_new_spec =
        previous == nullptr || resources::at_path(*previous, "spec") != resources::at_path(object, "spec");
    if (faults.empty() && is_new_spec) check_renewals(kind, object, previous, faults);
    if (kind.group != "mqttbroker.iotoperations.azure.com" || has_schema_faults) return;
    const auto space = text_at(object, "metadata.namespace");
    auto nearby = [&](const char* name) {
        auto out = peers.list("mqttbroker.iotoperations.azure.com/v1", name);
        std::erase_if(out, [&](const auto& peer) { return text_at(*peer, "metadata.namespace") != space; });
        return out;
    };
    if (kind.kind == "BrokerListener") admit_listener(object, nearby("BrokerListener"), nearby("Broker"), faults);
    if (kind.kind == "BrokerAuthentication") admit_authentication(object, faults);
    if (kind.kind == "BrokerAuthorization") admit_authorization(object, faults);
    if (kind.kind == "Broker") admit_broker(object, nearby("Broker"), faults);
}

}  // namespace penstock::registry
