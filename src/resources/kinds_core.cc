// The kinds of Kubernetes itself that Penstock serves: core, RBAC, leases, reviews, definitions.
#include <algorithm>

#include "resources/declare.h"

namespace penstock::resources {
namespace {

using declare::choice, declare::filled, declare::flag, declare::integer, declare::keyed, declare::list, declare::object, declare::open, declare::required,
    declare::required_text, declare::set_of_texts, declare::text, declare::text_map, declare::texts;

Kind built_in(std::string group, std::string version, std::string kind, std::string plural, std::vector<std::string> short_names, bool namespaced, std::string doc,
              std::vector<Field> fields, std::vector<Column> columns) {
    Kind out{.group = std::move(group), .version = std::move(version), .kind = std::move(kind), .plural = std::move(plural), .short_names = std::move(short_names),
             .namespaced = namespaced, .has_status = false, .built_in = true, .doc = std::move(doc), .fields = std::move(fields), .columns = std::move(columns)};
    out.singular = out.kind;
    std::ranges::transform(out.singular, out.singular.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

constexpr std::size_t data_text_max = 1024 * 1024, data_base64_max = 1'400'000;   // 1 MiB of bytes, in base64 with line ends
Field data_map(std::string name, std::size_t longest, std::string doc) { return declare::bounded(declare::text_map(std::move(name), std::move(doc)), longest); }

Field map_of(std::string name, std::string doc) { return declare::text_map(std::move(name), std::move(doc)); }

std::vector<Field> reference_fields() {
    return {text("kind", "Kind of the object."), text("namespace", "Its namespace."), text("name", "Its name."), text("uid", "Its uid."), text("apiVersion", "Its API version."),
            text("resourceVersion", "Its version."), text("fieldPath", "The part of it.")};
}
Field selector(std::string name, std::string doc) {
    return object(std::move(name), {map_of("matchLabels", "Labels and their values."),
                                    list("matchExpressions", {text("key", "Label."), text("operator", "In, NotIn, Exists or DoesNotExist."), texts("values", "Values.")}, "Further conditions.")},
                  std::move(doc));
}
Field conditions() {
    return keyed(list("conditions", {required_text("type", "What is said."), required_text("status", "True, False or Unknown."), text("reason", "One word."), text("message", "For people."),
                                     text("lastTransitionTime", "When the status changed."), text("lastHeartbeatTime", "When it was seen last."), text("lastProbeTime", "When it was probed last."),
                                     integer("observedGeneration", "Generation it speaks of.")},
                      "Conditions by type."),
                 "type");
}

Kind service() {
    auto port = Field{.name = "port", .type = Type::integer, .doc = "Port of the service.", .required = true, .minimum = 1, .maximum = 65'535};
    Field target{.name = "targetPort", .type = Type::int_or_string, .doc = "Port of the pods, number or name."};
    Field node{.name = "nodePort", .type = Type::integer, .doc = "Port on all interfaces, with NodePort and LoadBalancer.", .minimum = 0, .maximum = 65'535};
    auto ports = keyed(list("ports", {text("name", "Name; needed when there are several."), choice("protocol", {"TCP", "UDP", "SCTP"}, "TCP", "Transport."), text("appProtocol", "Application protocol."), port, target, node}, "Ports."),
                       "port", {"port", "protocol"});
    auto out = built_in("", "v1", "Service", "services", {"svc"}, true, "How something is reached. For each BrokerListener there is one, written by Penstock, with the addresses clients can use.",
        {object("spec",
                {ports, map_of("selector", "Labels of the pods behind it."), text("clusterIP", "Address inside."), set_of_texts("clusterIPs", "Addresses inside."),
                 choice("type", {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}, "ClusterIP", "How far it reaches."), texts("externalIPs", "Further addresses."),
                 choice("sessionAffinity", {"None", "ClientIP"}, "None", "Whether a client stays with a pod."), text("loadBalancerIP", "Wanted address."), texts("loadBalancerSourceRanges", "Who may come."),
                 text("externalName", "Name pointed to."), text("externalTrafficPolicy", "Cluster or Local."), integer("healthCheckNodePort", "Port of the health check."),
                 flag("publishNotReadyAddresses", "Also pods that are not ready."), open("sessionAffinityConfig", "Time of stickiness."), texts("ipFamilies", "IPv4, IPv6."), text("ipFamilyPolicy", "SingleStack or dual."),
                 flag("allocateLoadBalancerNodePorts", "Whether node ports are made."), text("loadBalancerClass", "Implementation."), text("internalTrafficPolicy", "Cluster or Local."), text("trafficDistribution", "Preference.")},
                "Desired state."),
         object("status", {object("loadBalancer", {list("ingress", {text("ip", "Address."), text("hostname", "Name."), text("ipMode", "VIP or Proxy."), open("ports", "Ports.")}, "Where clients connect.")}, "Where clients connect."), conditions()}, "What is.")},
        {{"Type", "spec.type"}, {"Cluster-IP", "spec.clusterIP"}, {"External-IP", "#external-ip"}, {"Port(s)", "#ports"}, {"Selector", "#selector", "string", 1}});
    out.has_status = true;
    out.categories = {"all"};
    out.selectable = {"spec.clusterIP", "spec.type"};
    return out;
}

Kind pod() {
    auto container = list("containers",
        {required_text("name", "Name."), text("image", "Image."), texts("command", "Command."), texts("args", "Arguments."), text("workingDir", "Folder."), text("imagePullPolicy", "When it is fetched."),
         keyed(list("ports", {text("name", "Name."), integer("containerPort", "Port."), integer("hostPort", "Port of the host."), choice("protocol", {"TCP", "UDP", "SCTP"}, "TCP", "Transport."), text("hostIP", "Address.")}, "Ports."), "containerPort", {"containerPort", "protocol"}),
         keyed(list("env", {required_text("name", "Name."), text("value", "Value."), open("valueFrom", "Source.")}, "Environment."), "name"),
         keyed(list("volumeMounts", {text("name", "Volume."), text("mountPath", "Where."), flag("readOnly", "Only read."), text("subPath", "Part.")}, "Mounts."), "mountPath"),
         open("resources", "Requests and limits."), open("livenessProbe", "Probe."), open("readinessProbe", "Probe."), open("securityContext", "Rights.")},
        "Containers.");
    container.list_key = "name";
    auto out = built_in("", "v1", "Pod", "pods", {"po"}, true, "A role of Penstock that runs on this machine; read-only.",
        {object("spec", {container, text("nodeName", "Machine."), text("serviceAccountName", "Account."), text("restartPolicy", "What happens at its end."), flag("hostNetwork", "Uses the machine's addresses."),
                         open("volumes", "Volumes."), integer("terminationGracePeriodSeconds", "Time to end.")}, "What runs."),
         object("status", {text("phase", "Running, ..."), conditions(), text("podIP", "Address."), open("podIPs", "Addresses."), text("hostIP", "Address of the machine."), open("hostIPs", "Addresses."), text("startTime", "When it began."),
                           open("containerStatuses", "State of each container."), text("qosClass", "Class."), text("message", "For people."), text("reason", "One word.")}, "What is.")},
        {{"Ready", "#pod-ready"}, {"Status", "status.phase"}, {"Restarts", "#pod-restarts", "integer"}, {"IP", "status.podIP", "string", 1}, {"Node", "spec.nodeName", "string", 1},
         {"Nominated Node", "#none", "string", 1}, {"Readiness Gates", "#none", "string", 1}});
    out.has_status = true;
    out.categories = {"all"};
    out.read_only = true;
    out.selectable = {"status.phase", "spec.nodeName", "spec.serviceAccountName", "status.podIP"};
    return out;
}

Kind node() {
    auto out = built_in("", "v1", "Node", "nodes", {"no"}, false, "This machine; read-only.",
        {object("spec", {text("podCIDR", "Addresses of pods."), text("providerID", "Identity."), flag("unschedulable", "Takes nothing new."), open("taints", "Restrictions.")}, "Desired state."),
         object("status", {conditions(), open("addresses", "Addresses."), open("capacity", "What there is."), open("allocatable", "What may be used."),
                           open("nodeInfo", "Kernel, system, versions."), open("daemonEndpoints", "Ports.")}, "What is.")},
        {{"Status", "#node-status"}, {"Roles", "#node-roles"}, {"Version", "status.nodeInfo.kubeletVersion"}, {"Internal-IP", "#node-internal-ip", "string", 1}, {"External-IP", "#none", "string", 1},
         {"OS-Image", "status.nodeInfo.osImage", "string", 1}, {"Kernel-Version", "status.nodeInfo.kernelVersion", "string", 1}, {"Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "string", 1}});
    out.has_status = true;
    out.read_only = true;
    out.selectable = {"spec.unschedulable"};
    return out;
}

Kind endpoints() {
    auto addresses = [](const char* name, const char* doc) {
        return list(name,
                    {required_text("ip", "IPv4 or IPv6."), text("hostname", "Name of the host, a DNS label."),
                     text("nodeName", "Machine."), object("targetRef", reference_fields(), "The Pod.")},
                    doc);
    };
    auto number = required(declare::number("port", 1, 65'535, nullptr, "Number."));
    auto ports = list("ports",
                      {text("name", "Name of the port of the Service."), number,
                       choice("protocol", {"TCP", "UDP", "SCTP"}, "TCP", "Transport."),
                       text("appProtocol", "Application protocol.")},
                      "Ports of each address.");
    return built_in("", "v1", "Endpoints", "endpoints", {"ep"}, true,
                    "The addresses behind a Service. EndpointSlices say the same: at most 100 for one, of 1,000 "
                    "addresses each.",
                    {list("subsets",
                          {addresses("addresses", "Addresses that are ready."),
                           addresses("notReadyAddresses", "Addresses that are not ready."), std::move(ports)},
                          "Groups of addresses with the same ports.")},
                    {{"Endpoints", "#endpoints"}});
}

Kind endpoint_slice() {
    auto out = built_in("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", {}, true, "The addresses behind a Service, of one family; read-only: it follows Endpoints.",
        {choice("addressType", {"IPv4", "IPv6", "FQDN"}, nullptr, "What the addresses are."),
         list("endpoints", {texts("addresses", "One address."), object("conditions", {flag("ready", "It serves."), flag("serving", "As ready."), flag("terminating", "It ends.")}, "Its state."),
                            text("hostname", "Name of the host."), object("targetRef", reference_fields(), "The Pod."), text("nodeName", "Machine.")}, "The addresses."),
         list("ports", {text("name", "Name of the port of the Service."), choice("protocol", {"TCP", "UDP", "SCTP"}, nullptr, "Transport."), integer("port", "Number."), text("appProtocol", "Application protocol.")}, "Ports of each address.")},
        {{"AddressType", "addressType"}, {"Ports", "#slice-ports"}, {"Endpoints", "#slice-endpoints"}});
    out.read_only = true;
    return out;
}

Kind event() {
    auto out = built_in("", "v1", "Event", "events", {"ev"}, true, "Something that happened to an object; kept for an hour.",
        {object("involvedObject", reference_fields(), "The object."), text("reason", "One word."), text("message", "For people."), object("source", {text("component", "Who tells."), text("host", "Where.")}, "Who tells."),
         text("firstTimestamp", "First time."), text("lastTimestamp", "Last time."), integer("count", "How often."), text("type", "Normal or Warning."), text("eventTime", "Time."),
         object("series", {integer("count", "How often."), text("lastObservedTime", "Last time.")}, "Repetition."), text("action", "What was done."), object("related", reference_fields(), "A second object."),
         text("reportingComponent", "Who tells."), text("reportingInstance", "Which of them.")},
        {{"Last Seen", "#event-last"}, {"Type", "type"}, {"Reason", "reason"}, {"Object", "#event-object"}, {"Subobject", "involvedObject.fieldPath", "string", 1}, {"Source", "#event-source", "string", 1},
         {"Message", "message"}, {"First Seen", "#event-first", "string", 1}, {"Count", "count", "integer", 1}, {"Name", "metadata.name", "string", 1}});
    out.selectable = {"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
                      "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"};
    return out;
}

void add_rbac(std::vector<Kind>& out) {
    const std::string group = "rbac.authorization.k8s.io";
    auto rules = [] {
        return list("rules", {required(texts("verbs", "get, list, watch, create, update, patch, delete, deletecollection or *.")), texts("apiGroups", "Groups; empty text is the core group."),
                              texts("resources", "Plurals, with /subresource."), texts("resourceNames", "Only these objects."), texts("nonResourceURLs", "Paths, with ClusterRole.")},
                    "What is allowed.");
    };
    auto subjects = [] {
        return list("subjects", {required(choice("kind", {"User", "Group", "ServiceAccount"}, nullptr, "Kind of subject.")), text("apiGroup", "Group of the kind."), required_text("name", "Name."), text("namespace", "Of a ServiceAccount.")},
                    "Who gets it.");
    };
    auto role_ref = [](bool cluster) {
        auto field = required(object("roleRef", {{.name = "apiGroup", .type = Type::string, .doc = "rbac.authorization.k8s.io.", .default_value = "rbac.authorization.k8s.io"},
                                                 required(choice("kind", cluster ? std::vector<std::string>{"ClusterRole"} : std::vector<std::string>{"Role", "ClusterRole"}, nullptr, "Role or ClusterRole.")), required_text("name", "Name.")},
                                     "The role; cannot be changed."));
        field.is_atomic = true;
        return field;
    };
    const std::vector<Column> created{{"Created At", "metadata.creationTimestamp", "date"}};
    const std::vector<Column> bound{{"Role", "#role-ref"}, {"Users", "#subjects-User", "string", 1}, {"Groups", "#subjects-Group", "string", 1}, {"ServiceAccounts", "#subjects-ServiceAccount", "string", 1}};
    out.push_back(built_in(group, "v1", "Role", "roles", {}, true, "Rights within a namespace.", {rules()}, created));
    out.push_back(built_in(group, "v1", "ClusterRole", "clusterroles", {}, false, "Rights everywhere, or to be bound in a namespace.",
                           {rules(), object("aggregationRule", {{.name = "clusterRoleSelectors", .type = Type::array, .doc = "Roles whose rules are taken over.", .items = {selector("", "")}}}, "Rules of other roles.")}, created));
    out.push_back(built_in(group, "v1", "RoleBinding", "rolebindings", {}, true, "Gives a role to subjects within a namespace.", {subjects(), role_ref(false)}, bound));
    out.push_back(built_in(group, "v1", "ClusterRoleBinding", "clusterrolebindings", {}, false, "Gives a role to subjects everywhere.", {subjects(), role_ref(true)}, bound));
}

void add_reviews(std::vector<Kind>& out) {
    auto review = [&](const char* group, const char* kind, const char* plural, bool namespaced, const char* doc, std::vector<Field> spec) {
        auto k = built_in(group, "v1", kind, plural, {}, namespaced, doc, {}, {});
        if (!spec.empty()) k.fields.push_back(object("spec", std::move(spec), "The question."));
        k.fields.push_back(open("status", "The answer."));
        k.stored = false;
        out.push_back(std::move(k));
    };
    auto resource = [] {
        return object("resourceAttributes", {text("namespace", "Namespace; empty: all."), text("verb", "Verb."), text("group", "API group."), text("version", "Version."), text("resource", "Plural."), text("subresource", "Subresource."),
                                             text("name", "Name; empty: all."), open("fieldSelector", "Fields."), open("labelSelector", "Labels.")}, "A resource request.");
    };
    auto path = [] { return object("nonResourceAttributes", {text("path", "Path."), text("verb", "Verb.")}, "Another request."); };
    auto who = [&](std::vector<Field> fields) {
        for (auto& f : {text("user", "User."), texts("groups", "Groups."), text("uid", "Uid."), open("extra", "Further attributes.")}) fields.push_back(f);
        return fields;
    };
    review("authentication.k8s.io", "TokenReview", "tokenreviews", false, "Asks whose token this is.", {text("token", "The token."), texts("audiences", "Audiences, one of which must fit.")});
    review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", false, "Asks who is asking.", {});
    review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false, "Asks whether the caller may.", {resource(), path()});
    review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", false, "Asks whether somebody may.", who({resource(), path()}));
    review("authorization.k8s.io", "LocalSubjectAccessReview", "localsubjectaccessreviews", true, "Asks whether somebody may, in a namespace.", who({resource(), path()}));
    review("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews", false, "Asks for all rights of the caller in a namespace.", {text("namespace", "Namespace.")});
}

Kind definition() {
    auto names = required(object("names", {required_text("plural", "Plural, lower case."), text("singular", "Singular; the kind in lower case when absent."), required_text("kind", "Kind."), text("listKind", "Kind of lists."),
                                           texts("shortNames", "Short names."), texts("categories", "Categories, such as all.")}, "Names."));
    auto versions = required(list("versions", {required_text("name", "Such as v1."), required(flag("served", "Whether the API has it.")), required(flag("storage", "Whether it is the stored one.")), flag("deprecated", "Whether it is going away."),
                                               text("deprecationWarning", "What users are told."), object("schema", {open("openAPIV3Schema", "Structural schema.")}, "Schema."),
                                               object("subresources", {open("status", "Status apart."), open("scale", "Scale.")}, "Subresources."),
                                               list("additionalPrinterColumns", {required_text("name", "Heading."), required_text("type", "Type."), required_text("jsonPath", "Where."), text("format", "Format."), text("description", "Meaning."), integer("priority", "Above 0: only wide.")}, "Columns of get."),
                                               open("selectableFields", "Fields for selectors.")}, "Versions."));
    versions.items_min = 1;
    auto out = built_in("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", {"crd", "crds"}, false, "Adds a kind to the API.",
        {required(object("spec", {required_text("group", "API group."), names, required(choice("scope", {"Namespaced", "Cluster"}, nullptr, "Scope.")), versions, open("conversion", "Conversion between versions; only None."), flag("preserveUnknownFields", "Must be false.")}, "Desired state.")),
         object("status", {conditions(), open("acceptedNames", "Names in use."), texts("storedVersions", "Versions objects may be stored in.")}, "What is.")},
        {{"Created At", "metadata.creationTimestamp", "date"}});
    out.has_status = true;
    return out;
}

}  // namespace

void add_core_kinds(std::vector<Kind>& out) {
    out.push_back(built_in("", "v1", "Namespace", "namespaces", {"ns"}, false, "A scope for names.",
                           {object("spec", {texts("finalizers", "Who must finish before it goes.")}, "Desired state."), object("status", {text("phase", "Active or Terminating."), conditions()}, "What is.")}, {{"Status", "status.phase"}}));
    out.back().has_status = true;
    out.back().selectable = {"status.phase"};
    out.push_back(built_in("", "v1", "ConfigMap", "configmaps", {"cm"}, true, "Configuration as plain data.",
                           {data_map("data", data_text_max, "Texts; 1 MiB in all."), data_map("binaryData", data_base64_max, "Bytes in base64; 1 MiB in all."), flag("immutable", "Cannot be changed any more.")}, {{"Data", "#data", "integer"}}));
    out.push_back(built_in("", "v1", "Secret", "secrets", {}, true, "Data that is not for everybody.",
                           {data_map("data", data_base64_max, "Bytes in base64; 1 MiB in all."), data_map("stringData", data_text_max, "Texts, written into data."), {.name = "type", .type = Type::string, .doc = "What it is for.", .default_value = "Opaque"}, flag("immutable", "Cannot be changed any more.")},
                           {{"Type", "type"}, {"Data", "#data", "integer"}}));
    out.back().selectable = {"type"};
    out.push_back(service());
    out.push_back(built_in("", "v1", "ServiceAccount", "serviceaccounts", {"sa"}, true, "An identity for programs.",
                           {keyed(list("secrets", reference_fields(), "Secrets of the account."), "name"), keyed(list("imagePullSecrets", {text("name", "Name.")}, "For images."), "name"), flag("automountServiceAccountToken", "Whether pods get the token.")},
                           {{"Secrets", "#secrets", "integer"}}));
    out.push_back(event());
    out.push_back(node());
    out.push_back(pod());
    out.push_back(endpoints());
    out.push_back(endpoint_slice());
    add_rbac(out);
    out.push_back(built_in("coordination.k8s.io", "v1", "Lease", "leases", {}, true, "Who leads.",
                           {object("spec", {text("holderIdentity", "Holder."), integer("leaseDurationSeconds", "Time after which it may be taken over."), text("acquireTime", "Since when."), text("renewTime", "Last renewal."),
                                            integer("leaseTransitions", "Changes of holder."), text("strategy", "Strategy."), text("preferredHolder", "Who should take over.")}, "Desired state.")},
                           {{"Holder", "spec.holderIdentity"}}));
    add_reviews(out);
    out.push_back(definition());
}

}  // namespace penstock::resources
