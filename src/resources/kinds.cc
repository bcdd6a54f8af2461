// Every kind is declared here, once.
#include <algorithm>

#include "resources/declare.h"

namespace penstock::resources {
namespace {

using declare::choice, declare::filled, declare::list, declare::modes, declare::number, declare::object, declare::open,
    declare::required, declare::required_text, declare::text, declare::text_map, declare::texts, declare::with_note;

const std::vector<std::string> key_algorithms{"Ec256", "Ec384", "Ec521", "Ed25519", "Rsa2048", "Rsa4096", "Rsa8192"};
const std::vector<std::string> rotation_policies{"Always", "Never"};
constexpr std::int64_t u32_max = 4'294'967'295;

constexpr const char* one_process = "there is one process and no traffic between broker pods";

Field private_key() {
    return object("privateKey",
                  {choice("algorithm", key_algorithms, nullptr, "Algorithm and size of the key."),
                   choice("rotationPolicy", rotation_policies, nullptr, "Whether renewal makes a new key.")},
                  "Private key of the certificate.");
}

Kind broker() {
    auto backend = required(object("backendChain",
        {required(number("partitions", 1, 16, nullptr, "Shards. On one machine it multiplies the message pool of the memory profile.")),
         required(number("redundancyFactor", 1, 5, nullptr, "Replicas of a shard. One machine keeps one copy; a value above 1 is reported in the status.")),
         number("workers", 1, 16, 1, "Backend workers per pod. On one machine it multiplies the message pool of the memory profile.")},
        "The stateful part."));
    auto frontend = required(object("frontend",
        {required(number("replicas", 1, 16, nullptr, "Frontend pods. On one machine replicas × workers is the number of worker threads, at most one per core.")),
         number("workers", 1, 16, 2, "Worker threads per pod.")},
        "The part that terminates client connections."));
    auto clients = object("clients",
        {number("maxSessionExpirySeconds", 1, u32_max, 86'400, "Upper bound of the Session Expiry Interval; exactly this for 3.1.1 sessions with clean session 0."),
         number("maxMessageExpirySeconds", 1, u32_max, nullptr, "Upper bound of the Message Expiry Interval of every PUBLISH, retained ones included."),
         number("maxPacketSizeBytes", 1, 268'435'456, nullptr, "Largest packet taken; the smaller of this and the memory profile's bound is advertised."),
         object("subscriberQueueLimit",
                {number("length", 1, INT64_MAX, nullptr, "QoS 1 and 2 messages queued or in flight per subscriber."),
                 choice("strategy", {"None", "DropOldest"}, "None", "What happens at the limit: grow until the session expires, or discard the oldest.")},
                "Bound of each subscriber's queue. Annotation `penstock.io/subscriber-queue-bytes: 64Mi` bounds its bytes too, by the same strategy."),
         number("maxReceiveMaximum", 1, 65'535, 65'535, "Caps the Receive Maximum a client asks for."),
         number("maxKeepAliveSeconds", 0, 65'535, nullptr, "Longest keep alive; told to version 5 clients as Server Keep Alive. 0: no bound.")},
        "Bounds for MQTT clients.");
    auto internal = object("internalCerts",
        {required(declare::lifetime("")), required(declare::renewal("")), required(private_key())},
        "Certificates between broker pods.");
    auto logs = filled(object("logs",
        {{.name = "level", .type = Type::string, .doc = "trace, debug, info, warn or error; or a list such as `info,broker=debug`. Changes act at once.", .default_value = "info", .length_max = 1024},
         with_note(open("opentelemetryExportConfig", "OTLP export of logs."), "logs go to standard error and to the resource API"),
         with_note(open("openTelemetryExportConfig", "Older spelling."), "logs go to standard error and to the resource API"),
         with_note(open("exportIntervalSeconds", "Older field."), "it belonged to a removed exporter"),
         with_note(open("exportLevel", "Older field."), "it belonged to a removed exporter")},
        "Log output."));
    auto metrics = filled(object("metrics",
        {number("prometheusPort", 0, 65'535, 9600, "Port of the Prometheus endpoint `/metrics` (and `/healthz`, `/readyz`); 0 switches it off."),
         with_note(open("mode", "Older field."), "metrics are always counted; prometheusPort 0 closes the endpoint"),
         with_note(open("exportIntervalSeconds", "Older field."), "Prometheus decides when it reads"),
         with_note(open("opentelemetryExportConfig", "OTLP export of metrics."), "metrics are served to Prometheus only")},
        "Metrics."));
    auto self_check = filled(object("selfCheck",
        {choice("mode", modes, "Enabled", "Whether the probe runs."),
         number("intervalSeconds", 30, 300, 30, "Seconds between two probes."),
         number("timeoutSeconds", 5, 120, 15, "Seconds after which a step counts as failed.")},
        "The self-test probe: a client of its own that connects, subscribes, publishes and receives on every listener."));
    auto traces = filled(object("traces",
        {choice("mode", modes, "Enabled", "Whether packets are traced."), number("cacheSizeMegabytes", 1, 128, 16, "Memory for traces; the oldest go first."),
         filled(object("selfTracing", {choice("mode", modes, "Enabled", "Whether the probe's steps are traced."), number("intervalSeconds", 1, 300, 30, "Seconds between two traced probes; more often than selfCheck.intervalSeconds is possible.")}, "Tracing of the probe.")),
         number("spanChannelCapacity", 1000, 100'000, 1000, "Spans of a worker that wait to be kept, a second's at most; what is more is counted and dropped.")},
        "OpenTelemetry traces: of the self-test probe, and of CONNECT, PUBLISH, SUBSCRIBE and UNSUBSCRIBE of version 5 clients whose user property `traceparent` (W3C Trace Context) is there and sampled. Kept in memory and shown by `penstock traces`, in OTLP's JSON too."));
    auto disk = object("diskBackedMessageBuffer",
        {required(declare::size("maxSize", "Bytes on disk, of all queues together, such as `10G`; at least 1M.")),
         with_note(open("ephemeralVolumeClaimSpec", "Volume claim."), "the buffer is the folder `buffer` of the data folder of this machine"),
         with_note(open("persistentVolumeClaimSpec", "Volume claim."), "the buffer is the folder `buffer` of the data folder of this machine")},
        "Overflow of queues: from half of the profile's message memory on, messages of QoS 1 and 2 that wait for a client go to the disk, sealed with a key that ends with the process, and come back in order. "
        "Not durability: that is `persistence`. When it is full, or less than 64 MiB are free on the disk, memory fills up, and at 75 % PUBLISH is refused with 0x97. Annotation `penstock.io/message-buffer-age: 24h` bounds how long a message may wait there.");
    auto kept = [&](const char* name, const char* doc, Field settings) {
        return object(name, {required(choice("mode", {"All", "None", "Custom"}, nullptr, "What is kept across a restart.")), std::move(settings)}, doc);
    };
    auto dynamic = object("dynamic", {choice("mode", modes, "Enabled", "Whether clients may ask for it by user property `aio-persistence` = `true`.")}, "Requests of clients.");
    auto persistence = object("persistence",
        {required(declare::size("maxSize", "Bytes on disk from which on QoS 1 and 2 messages are refused (0x97), such as `1G`; at least 100M.")),
         with_note(open("persistentVolumeClaimSpec", "Volume claim."), "state is kept in the data folder of this machine"),
         filled(object("encryption", {choice("mode", modes, "Enabled", "AES-256-GCM for what is written to the disk. Switched while it runs; what is there is rewritten in the background. Annotation `penstock.io/persistence-key: NAME` makes a new key whenever NAME changes.")}, "Encryption at rest.")),
         kept("retain", "Retained messages. Absent: None, so none is kept.", object("retainSettings", {texts("topics", "Topic filters, with Custom."), dynamic}, "With Custom.")),
         kept("stateStore", "State store keys. Absent: None, so none is kept.", object("stateStoreSettings", {list("stateStoreResources", {choice("keyType", {"Pattern", "String", "Binary"}, "Pattern", "How keys are written."), required(texts("keys", "Keys."))}, "Keys, with Custom."), dynamic}, "With Custom.")),
         kept("subscriberQueue", "Queues of sessions whose expiry is above 0. Absent: None, so no message that waits is kept.", object("subscriberQueueSettings", {texts("subscriberClientIds", "Client ids with `*`, with Custom."), dynamic}, "With Custom."))},
        "Durable sessions, subscriptions, retained messages and queues, in the folder `broker` of the data folder. Sessions with an expiry above 0 and their subscriptions are always kept; retained messages, queues and state store keys are kept as `retain`, `subscriberQueue` and `stateStore` say, and each of them that is absent is None: give each `mode: All` to keep everything. "
        "Adding the field writes what is in memory and keeps it from then on; its policies act at once; removing it acts at the next start. An acknowledgement leaves after what it promises is on disk; annotation `penstock.io/persistence-sync: 200ms` (at most 10s) "
        "syncs at that interval instead, and a power cut may then lose what was acknowledged within it.");
    return {
        .group = "mqttbroker.iotoperations.azure.com", .version = "v1", .kind = "Broker", .plural = "brokers", .singular = "broker",
        .doc = "An MQTT broker: its size, its limits for clients and its diagnostics; one in a namespace. All fields may be changed while it runs; another number of workers "
               "takes clients, sessions and queues along, while the broker stands still for some milliseconds.\n\n"
               "Annotations switch what AIO's resource has no field for: `penstock.io/compatibility: AIO` answers CONNACK and QoS 2 exactly as AIO does; "
               "`penstock.io/sys-topics: Disabled` silences `$SYS`; `penstock.io/hide-selftest: Enabled` hides the probe's topics from wildcards; "
               "`penstock.io/debug-clients: id,id` logs every packet of these clients.",
        .fields = {required(object("spec",
            {choice("memoryProfile", {"Tiny", "Low", "Medium", "High"}, "Medium", "Bounds of packet size and message memory: Tiny 4 MB and 16 MiB, Low 16 MB and 64 MiB, Medium 64 MB and 576 MiB, High 256 MB and 2 GiB. Above 75 % of the memory PUBLISH is refused with 0x97."),
             object("cardinality", {backend, frontend}, "Number of workers; one per core when absent."),
             with_note(object("generateResourceLimits", {choice("cpu", modes, nullptr, "CPU requests and limits on pods.")}, "Resource limits."), "there are no pods whose CPU could be limited"),
             object("advanced",
                    {clients, with_note(choice("encryptInternalTraffic", modes, nullptr, "TLS between broker pods."), one_process),
                     with_note(internal, one_process)},
                    "Advanced settings."),
             filled(object("diagnostics", {logs, metrics, self_check, traces}, "Logs, metrics and self-test.")),
             disk, persistence,
             choice("highPriorityMessagesBackpressureHandling", {"Accept", "Reject"}, "Accept", "Whether messages with the user property `$high_priority` are taken while others are refused for memory.")},
            "Desired state."))},
        .columns = {{"Profile", "spec.memoryProfile"}, {"Status", "status.runtimeStatus.status"}, {"Health", "status.healthState.status"},
                    {"Message", "status.runtimeStatus.description", "string", 1}}};
}

Kind broker_listener() {
    auto spec_issuer = object("issuerRef",
        {required_text("name", "Name of the issuer."), required(choice("kind", {"Issuer", "ClusterIssuer"}, nullptr, "Kind of the issuer.")),
         {.name = "group", .type = Type::string, .doc = "API group of the issuer.", .default_value = "cert-manager.io"}},
        "Who issues.");
    auto automatic = object("certManagerCertificateSpec",
        {required(spec_issuer), declare::lifetime("; 2160h when absent"), declare::renewal("; a third of the lifetime when absent"), private_key(),
         object("san", {texts("dns", "Names."), texts("ip", "Addresses.")}, "Names and addresses beyond the Service's own."),
         text("secretName", "Secret to keep the certificate in; generated when absent.")},
        "A certificate issued and renewed automatically.");
    auto tls = object("tls",
        {required(choice("mode", {"Automatic", "Manual"}, nullptr, "Which of the two sub-objects is there.")), automatic,
         object("manual", {required_text("secretRef", "Secret of type kubernetes.io/tls.")}, "A certificate brought along.")},
        "TLS of the port, by exactly one of `certManagerCertificateSpec` and `manual`; absent: plaintext.");
    auto ports = required(list("ports",
        {required(number("port", 0, 65'535, nullptr, "Port number; unique across all listeners of the broker. 0 picks a free one, shown in the status.")),
         number("nodePort", 0, 65'535, nullptr, "Port on all interfaces, 30000 to 32767; with serviceType NodePort alone. "
                "Absent or 0: `port` itself if it is in that range, else 30000 + `port` mod 2768."),
         choice("protocol", {"Mqtt", "WebSockets"}, "Mqtt", "Transport."),
         text("authenticationRef", "Name of a BrokerAuthentication; absent: anybody may connect."),
         text("authorizationRef", "Name of a BrokerAuthorization; absent: everything is allowed. It acts only "
                                  "together with authenticationRef: without that it has no effect, which the status says."), tls},
        "Ports of the listener."));
    ports.items_min = 1;
    ports.items_max = 100;
    ports.list_key = "port";
    return {
        .group = "mqttbroker.iotoperations.azure.com", .version = "v1", .kind = "BrokerListener", .plural = "brokerlisteners", .singular = "brokerlistener",
        .doc = "Where clients reach a broker. On one machine `ClusterIp` binds the loopback interfaces at `port`, `NodePort` all interfaces at `nodePort`, "
               "`LoadBalancer` all interfaces at `port`. Changes act at once; only connections of ports that go away end, with reason 0x98.\n\n"
               "A port whose certificate, authentication or authorization is not there (yet) does not open; `status.portStatus` says what is missing. Certificates, trust and rules "
               "that change act at once on new and connected clients; only those whose right is gone are ended, with a reason. A port without `authenticationRef` is open to anybody, and its status says so.\n\n"
               "Annotation `penstock.io/websocket-origins: https://portal.plant.example, http://localhost:*` names the pages whose scripts may connect over WebSocket; absent: all. Programs that are no browser send no origin and are not affected.",
        .fields = {required(object("spec",
            {text("brokerRef", "Name of the Broker; or an owner reference of kind Broker."),
             choice("serviceType", {"ClusterIp", "LoadBalancer", "NodePort"}, "ClusterIp", "Which interfaces are bound. One listener per type, unless the Broker has annotation `penstock.io/listeners-per-service-type: Any`."),
             text("serviceName", "Name of the Service; the listener's own name when absent. A Service that was there first is taken over when its type, ports and selector are the listener's; else it is left as it is, and the status says so."), ports},
            "Desired state."))},
        .columns = {{"Type", "spec.serviceType"}, {"Ports", "status.ports"}, {"Status", "status.runtimeStatus.status"}, {"Health", "status.healthState.status"},
                    {"TLS", "#port-tls", "string", 1, "TLS of each port: Automatic, Manual or none."}, {"Authentication", "#port-authentication", "string", 1, "BrokerAuthentication of each port, or none."},
                    {"Message", "status.runtimeStatus.description", "string", 1}}};
}

Kind broker_authentication() {
    auto methods = required(list("authenticationMethods",
        {required(choice("method", {"ServiceAccountToken", "X509", "Custom", "Password"}, nullptr, "Kind of credential. Password is Penstock's own addition.")),
         object("serviceAccountTokenSettings", {required(texts("audiences", "Audiences, any of which a token must have."))}, "Settings of ServiceAccountToken; needed with that method, and with it alone."),
         object("x509Settings", {text("trustedClientCaCert", "ConfigMap with the CA certificates, in PEM under any key; `client-ca` when absent. Revocation lists (X509 CRL) beside them count."),
                                 {.name = "authorizationAttributes", .type = Type::map, .doc = "Attributes by certificate subject; the keys are only labels.",
                                  .items = {object("", {required_text("subject", "Subject as openssl writes it, such as `CN = fan-01, O = Fabrikam`. From the leaf up, the first certificate whose subject is listed counts."),
                                                        text_map("attributes", "Attributes for authorization rules.")}, "")}},
                                 choice("additionalValidation", {"None", "AzureDeviceRegistry"}, nullptr, "Further check of the leaf's name; only None: there is no device registry here.")}, "Settings of X509; with that method alone."),
         object("customSettings", {{.name = "endpoint", .type = Type::string, .doc = "HTTPS address of the server.", .required = true, .pattern = "https://.*", .pattern_hint = "an https:// address", .length_max = 4096},
                                   text("caCertConfigMap", "ConfigMap with the server's CA."),
                                   object("auth", {object("x509", {required_text("secretRef", "Secret with the client certificate.")}, "Client certificate.")}, "What is shown to the server."),
                                   text_map("headers", "Further request headers.")}, "Settings of Custom; needed with that method, and with it alone."),
         object("passwordSettings", {required_text("secretRef", "Secret whose keys are user names and whose values are hashes, as `penstock passwd` makes them (`$scrypt$`). "
                                                "`$pbkdf2-sha256$` and `$pbkdf2-sha512$` in PHC form are taken too, and the `$7$` of "
                                                "mosquitto_passwd 2.0; its older `$6$` and crypt's are not: such a user cannot log in."),
                                     {.name = "authorizationAttributes", .type = Type::map, .doc = "Attributes by user name.", .items = {text_map("", "")}}},
                "Settings of Password; needed with that method, and with it alone.")},
        "Methods, tried in order."));
    methods.items_min = 1;
    methods.items_max = 100;
    return {.group = "mqttbroker.iotoperations.azure.com", .version = "v1", .kind = "BrokerAuthentication", .plural = "brokerauthentications", .singular = "brokerauthentication",
            .doc = "How clients of a port prove who they are. For each CONNECT the methods are walked in order; the first to which the credentials belong decides: ServiceAccountToken "
                   "takes MQTT 5 enhanced authentication `K8S-SAT`, X509 a certificate shown in the TLS handshake, Password a user name, Custom everything unless its server cannot be reached.\n\n"
                   "Annotations: `penstock.io/ocsp: SoftFail|HardFail` asks the OCSP responders that a client certificate and those above it name, and again while the client is connected (Off when absent; SoftFail lets in who cannot be asked about); "
                   "`penstock.io/custom-unreachable: Refuse` refuses while the custom server is unreachable (FallThrough when absent: the next method decides).",
            .fields = {required(object("spec", {text("brokerRef", "Name of the Broker."), methods}, "Desired state."))},
            .columns = {{"Health", "status.healthState.status"}, {"Message", "status.runtimeStatus.description", "string", 1}}};
}

Kind broker_authorization() {
    auto rules = list("rules",
        {required(object("principals", {texts("clientIds", "Client ids, exact."), texts("usernames", "User names, exact."),
                                        {.name = "attributes", .type = Type::array, .doc = "Attribute sets; one must match as a whole.", .items = {text_map("", "")}}}, "Whom the rule is about, by at least one part; any suffices.")),
         required(list("brokerResources", {required(choice("method", {"Connect", "Publish", "Subscribe"}, nullptr, "What is allowed.")), texts("clientIds", "Client id patterns; with Connect alone."), texts("topics", "Topic filters; needed with Publish and Subscribe, `#` for all, and with these alone.")}, "What is allowed.")),
         list("stateStoreResources", {required(choice("method", {"Read", "Write", "ReadWrite"}, nullptr, "What is allowed.")), choice("keyType", {"Pattern", "String", "Binary"}, "Pattern", "How keys are written."), required(texts("keys", "Keys."))}, "State store keys.")},
        "Allow rules.");
    return {.group = "mqttbroker.iotoperations.azure.com", .version = "v1", .kind = "BrokerAuthorization", .plural = "brokerauthorizations", .singular = "brokerauthorization",
            .doc = "What clients of a port may do: allow rules only, whatever no rule allows is refused. Tokens `{principal.clientId}`, `{principal.username}` and `{principal.attributes.NAME}` stand for "
                   "the client's own values; in topics they are whole levels. A change acts at once on connected clients; only rights that are gone end.",
            .fields = {required(object("spec", {text("brokerRef", "Name of the Broker."),
                                                required(object("authorizationPolicies", {choice("cache", modes, "Enabled", "Whether decisions are kept."), rules}, "The policy."))}, "Desired state."))},
            .columns = {{"Health", "status.healthState.status"}, {"Message", "status.runtimeStatus.description", "string", 1}}};
}

std::vector<Kind> make_kinds() {
    std::vector<Kind> out;
    add_core_kinds(out);
    add_certificate_kinds(out);
    for (auto make : {broker, broker_listener, broker_authentication, broker_authorization}) out.push_back(make());
    for (auto& kind : out) kind.schema = schema_from_fields(kind);
    return out;
}

}  // namespace

const std::vector<Kind>& all_kinds() {
    static const std::vector<Kind> kinds = make_kinds();
    return kinds;
}

}  // namespace penstock::resources
