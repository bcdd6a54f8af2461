#include "resources/versions.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

constexpr const char* broker_group = "mqttbroker.iotoperations.azure.com";

/// Moves fields of old to their place of today.
class Conversion {
  public:
    /// `old_counts`: where a field is there under both names, that of old is what was just written.
    Conversion(std::vector<std::string>& warnings, bool old_counts) : warnings_(warnings), old_counts_(old_counts) {}

    /// The value of `from` goes to `to` in the same object. Where both are there the one of today counts, but for what a patch has just written.
    void rename(Json& parent, const std::string& path, const char* from, const char* to) {
        if (!parent.is_object() || !parent.contains(from)) return;
        auto value = std::move(parent[from]);
        parent.erase(from);
        if (old_counts_ || !parent.contains(to)) parent[to] = std::move(value);
        warnings_.push_back(fmt::format("{}.{}: deprecated; use {}.{}", path, from, path, to));
    }
    void drop(Json& parent, const std::string& path, const char* name, const char* why) {
        if (!parent.is_object() || parent.erase(name) == 0) return;
        warnings_.push_back(fmt::format("{}.{}: deprecated, has no effect: {}", path, name, why));
    }
    [[nodiscard]] bool old_counts() const noexcept { return old_counts_; }
    void tell(std::string text) { warnings_.push_back(std::move(text)); }

    /// true and false of old are the words of today.
    static void to_mode(Json& parent, const char* name) {
        if (parent.is_object() && parent.contains(name) && parent[name].is_boolean())
            parent[name] = parent[name].get<bool>() ? "Enabled" : "Disabled";
    }

  private:
    std::vector<std::string>& warnings_;
    bool old_counts_;
};

constexpr const char* own_namespace = "it is in the namespace of the object";
constexpr const char* no_listeners = "a port of a BrokerListener names what it uses";

void convert_tls(Json& tls, const std::string& at, Conversion& c) {
    if (!tls.is_object()) return;
    c.rename(tls, at, "automatic", "certManagerCertificateSpec");
    if (tls.contains("certManagerCertificateSpec")) {
        auto& spec = tls["certManagerCertificateSpec"];
        const auto inside = at + ".certManagerCertificateSpec";
        c.drop(spec, inside, "secretNamespace", own_namespace);
        if (spec.is_object() && spec.contains("issuerRef"))
            c.rename(spec["issuerRef"], inside + ".issuerRef", "apiGroup", "group");
    }
    if (tls.contains("manual")) {
        c.rename(tls["manual"], at + ".manual", "secretName", "secretRef");
        c.drop(tls["manual"], at + ".manual", "secretNamespace", own_namespace);
    }
    if (tls.contains("mode")) return;
    auto has = [&](const char* name) { return tls.contains(name) && tls[name].is_object(); };
    const bool automatic = has("certManagerCertificateSpec");
    if (automatic || has("manual")) tls["mode"] = automatic ? "Automatic" : "Manual";
}

/// One port per listener, with its settings beside it.
Result<void> convert_single_port(Json& spec, Conversion& c) {
    for (const char* name : {"authenticationEnabled", "authorizationEnabled"}) {
        if (!spec.contains(name)) continue;
        // Left out it would open the port to anybody.
        if (flag_of(spec, name))
            return fail(fmt::format("spec.{}: cannot be carried over: name the BrokerAuthentication or "
                                    "BrokerAuthorization in spec.ports[].{}",
                                    name,
                                    std::string_view(name) == "authenticationEnabled" ? "authenticationRef"
                                                                                      : "authorizationRef"));
        c.drop(spec, "spec", name, no_listeners);
    }
    if (!spec.contains("port") || spec.contains("ports")) return {};
    Json port = {{"port", spec["port"]}};
    for (const char* name : {"nodePort", "protocol", "tls", "authenticationRef", "authorizationRef"})
        if (spec.contains(name)) {
            port[name] = spec[name];
            spec.erase(name);
        }
    spec.erase("port");
    spec["ports"] = Json::array({std::move(port)});
    c.tell("spec.port: deprecated; use spec.ports[0].port");
    return {};
}

Result<void> convert_listener(Json& spec, Conversion& c) {
    if (auto done = convert_single_port(spec, c); !done) return done;
    if (!spec.contains("ports") || !spec["ports"].is_array()) return {};
    for (std::size_t i = 0; i < spec["ports"].size(); ++i)
        if (auto& port = spec["ports"][i]; port.is_object() && port.contains("tls"))
            convert_tls(port["tls"], fmt::format("spec.ports[{}].tls", i), c);
    return {};
}

void convert_broker(Json& spec, Conversion& c) {
    c.rename(spec, "spec", "diskBackedMessageBufferSettings", "diskBackedMessageBuffer");
    c.drop(spec, "spec", "mode", "spec.cardinality says how many there are");
    if (spec.contains("encryptInternalTraffic")) {
        if (!spec.contains("advanced") || spec["advanced"].is_object()) {
            auto value = spec["encryptInternalTraffic"];
            auto& advanced = spec["advanced"];
            if (c.old_counts() || !advanced.contains("encryptInternalTraffic"))
                advanced["encryptInternalTraffic"] = std::move(value);
        }
        spec.erase("encryptInternalTraffic");
        c.tell("spec.encryptInternalTraffic: deprecated; use spec.advanced.encryptInternalTraffic");
    }
    if (spec.contains("advanced")) Conversion::to_mode(spec["advanced"], "encryptInternalTraffic");
    if (!spec.contains("diagnostics") || !spec["diagnostics"].is_object()) return;
    if (auto& diagnostics = spec["diagnostics"]; diagnostics.contains("traces"))
        c.drop(diagnostics["traces"], "spec.diagnostics.traces", "opentelemetryExportConfig",
               "traces are kept here and shown by `penstock traces`");
}

Result<void> convert_authentication(Json& spec, Conversion& c) {
    c.drop(spec, "spec", "listenerRef", no_listeners);
    if (!spec.contains("authenticationMethods") || !spec["authenticationMethods"].is_array()) return {};
    auto& methods = spec["authenticationMethods"];
    for (std::size_t i = 0; i < methods.size(); ++i) {
        auto& method = methods[i];
        const auto at = fmt::format("spec.authenticationMethods[{}]", i);
        if (equal_no_case(text_at(method, "method"), "x509Credentials")) {
            method["method"] = "X509";
            c.tell(at + ".method: x509Credentials is deprecated; use X509");
        }
        c.rename(method, at, "serviceAccountToken", "serviceAccountTokenSettings");
        c.rename(method, at, "x509Credentials", "x509Settings");
        c.rename(method, at, "x509", "x509Settings");
        c.rename(method, at, "custom", "customSettings");
        // Attributes of old stood in a Secret, as TOML. Left out, rules that ask for them would let nobody in, or the wrong ones.
        if (method.is_object() && method.contains("x509Settings"))
            if (auto& settings = method["x509Settings"]; settings.is_object() && settings.contains("attributes")) {
                if (!text_at(settings, "attributes.secretName").empty())
                    return fail(fmt::format("{0}.x509Settings.attributes.secretName: cannot be carried over: write what Secret \"{1}\" has (kubectl get secret {1} -n NAMESPACE -o yaml) into {0}.x509Settings.authorizationAttributes",
                                            at, shortened(text_at(settings, "attributes.secretName"))));
                c.drop(settings, at + ".x509Settings", "attributes", "it names no Secret");
            }
        const auto pointer = Json::json_pointer("/customSettings/auth/x509");
        if (!method.is_object() || !method.contains(pointer)) continue;
        auto& x509 = method[pointer];
        c.rename(x509, at + ".customSettings.auth.x509", "secretName", "secretRef");
        for (const char* name : {"namespace", "secretNamespace"})
            c.drop(x509, at + ".customSettings.auth.x509", name, own_namespace);
    }
    return {};
}

void convert_authorization(Json& spec, Conversion& c) {
    c.drop(spec, "spec", "listenerRef", no_listeners);
    if (!spec.contains("authorizationPolicies")) return;
    auto& policies = spec["authorizationPolicies"];
    c.rename(policies, "spec.authorizationPolicies", "enableCache", "cache");
    Conversion::to_mode(policies, "cache");
}

Kind workload(const char* group, const char* kind, const char* plural, std::vector<std::string> short_names,
              bool namespaced = true, const char* version = "v1") {
    Kind out{.group = group,
             .version = version,
             .kind = kind,
             .plural = plural,
             .singular = to_lower(kind),
             .short_names = std::move(short_names),
             .namespaced = namespaced,
             .has_status = false,
             .built_in = true,
             .refusal = workload_refusal};
    out.doc = out.refusal;
    const Json marks = {{"group", group}, {"version", version}, {"kind", kind}};
    out.schema = {{"type", "object"},
                  {"description", out.refusal},
                  {"x-kubernetes-preserve-unknown-fields", true},
                  {"x-kubernetes-group-version-kind", Json::array({marks})}};
    return out;
}

Kind webhook(const char* kind, const char* plural, const char* version = "v1") {
    return workload("admissionregistration.k8s.io", kind, plural, {}, false, version);
}

}  // namespace

const std::vector<Kind>& earlier_versions() {
    static const std::vector<Kind> kinds = [] {
        std::vector<Kind> out;
        for (const char* version : {"v1beta2", "v1beta1"})
            for (const auto& kind : all_kinds()) {
                if (kind.group != broker_group) continue;
                auto old = kind;
                old.version = version;
                old.kept_version = kind.version;
                if (old.version == "v1beta1")
                    old.deprecation = fmt::format("{} {} is deprecated; use {} {}", old.api_version(),
                                                  kind.kind, kind.api_version(), kind.kind);
                old.schema = schema_from_fields(old);
                // The spellings of old are not listed; what is not known is told when the object is written.
                old.schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = true;
                out.push_back(std::move(old));
            }
        return out;
    }();
    return kinds;
}

const std::vector<Kind>& workload_kinds() {
    static const std::vector<Kind> kinds{
        // Of each group the version that is used today comes first: discovery prefers it. Versions before it are those of
        // Kubernetes 1.20, whose kubectl asks for them (`apply --prune`, `create poddisruptionbudget`), as older charts do.
        workload("", "PersistentVolumeClaim", "persistentvolumeclaims", {"pvc"}),
        workload("", "PersistentVolume", "persistentvolumes", {"pv"}, false),
        workload("", "ReplicationController", "replicationcontrollers", {"rc"}),
        workload("", "PodTemplate", "podtemplates", {}),
        workload("", "ResourceQuota", "resourcequotas", {"quota"}),
        workload("", "LimitRange", "limitranges", {"limits"}),
        workload("apps", "Deployment", "deployments", {"deploy"}),
        workload("apps", "StatefulSet", "statefulsets", {"sts"}),
        workload("apps", "DaemonSet", "daemonsets", {"ds"}),
        workload("apps", "ReplicaSet", "replicasets", {"rs"}),
        workload("batch", "Job", "jobs", {}),
        workload("batch", "CronJob", "cronjobs", {"cj"}),
        workload("batch", "CronJob", "cronjobs", {"cj"}, true, "v1beta1"),
        workload("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", {"hpa"}, true, "v2"),
        workload("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", {"hpa"}),
        workload("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", {"hpa"}, true, "v2beta2"),
        workload("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", {"hpa"}, true, "v2beta1"),
        workload("networking.k8s.io", "Ingress", "ingresses", {"ing"}),
        workload("networking.k8s.io", "IngressClass", "ingressclasses", {}, false),
        workload("networking.k8s.io", "NetworkPolicy", "networkpolicies", {"netpol"}),
        workload("networking.k8s.io", "Ingress", "ingresses", {"ing"}, true, "v1beta1"),
        workload("networking.k8s.io", "IngressClass", "ingressclasses", {}, false, "v1beta1"),
        workload("extensions", "Ingress", "ingresses", {"ing"}, true, "v1beta1"),
        workload("policy", "PodDisruptionBudget", "poddisruptionbudgets", {"pdb"}),
        workload("policy", "PodDisruptionBudget", "poddisruptionbudgets", {"pdb"}, true, "v1beta1"),
        workload("policy", "PodSecurityPolicy", "podsecuritypolicies", {"psp"}, false, "v1beta1"),
        workload("scheduling.k8s.io", "PriorityClass", "priorityclasses", {"pc"}, false),
        workload("scheduling.k8s.io", "PriorityClass", "priorityclasses", {"pc"}, false, "v1beta1"),
        workload("storage.k8s.io", "StorageClass", "storageclasses", {"sc"}, false),
        workload("storage.k8s.io", "CSIDriver", "csidrivers", {}, false),
        workload("storage.k8s.io", "StorageClass", "storageclasses", {"sc"}, false, "v1beta1"),
        workload("storage.k8s.io", "CSIDriver", "csidrivers", {}, false, "v1beta1"),
        workload("node.k8s.io", "RuntimeClass", "runtimeclasses", {}, false),
        workload("node.k8s.io", "RuntimeClass", "runtimeclasses", {}, false, "v1beta1"),
        webhook("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        webhook("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        webhook("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        webhook("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        webhook("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "v1beta1"),
        webhook("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "v1beta1"),
        workload("apiregistration.k8s.io", "APIService", "apiservices", {}, false),
        workload("apiregistration.k8s.io", "APIService", "apiservices", {}, false, "v1beta1")};
    return kinds;
}

const Kind* workload_kind(std::string_view api_version, std::string_view kind) {
    for (const auto& known : workload_kinds())
        if (known.kind == kind && known.api_version() == api_version) return &known;
    return nullptr;
}

const Kind& kept_kind(const Kind& kind) {
    if (kind.kept_version.empty()) return kind;
    return *find_kind(kind.group + "/" + kind.kept_version, kind.kind);
}

Result<void> convert(const Kind& from, Json& object, std::vector<std::string>& warnings, bool old_counts) {
    if (from.kept_version.empty() || !object.is_object()) return {};
    if (object.contains("apiVersion")) object["apiVersion"] = kept_kind(from).api_version();
    if (!object.contains("spec") || !object["spec"].is_object()) return {};
    auto& spec = object["spec"];
    Conversion conversion(warnings, old_counts);
    if (from.kind == "Broker") convert_broker(spec, conversion);
    if (from.kind == "BrokerListener") return convert_listener(spec, conversion);
    if (from.kind == "BrokerAuthentication") return convert_authentication(spec, conversion);
    if (from.kind == "BrokerAuthorization") convert_authorization(spec, conversion);
    return {};
}

}  // namespace penstock::resources
