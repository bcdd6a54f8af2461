#include "control/projection.h"

#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "io/address.h"
#include "io/wait.h"

namespace penstock::control {

using registry::Registry;
using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::int64_t look_again_ms = 2000, heartbeat_ms = 300'000;
constexpr std::size_t slices_max = 100;   // of one Endpoints
constexpr const char* manager = "penstock-projection";
constexpr const char* product_label = "microsoft-iotoperations-mqttbroker";
constexpr std::string_view own_conditions[] = {"Ready", "ManifestsApplied", "PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"};

std::string os_name() {
    std::ifstream in("/etc/os-release");
    std::string line;
    while (std::getline(in, line))
        if (line.starts_with("PRETTY_NAME=")) {
            auto value = line.substr(12);
            std::erase(value, '"');
            return value;
        }
    return "Linux";
}

std::string first_line(const char* path) {
    std::ifstream in(path);
    std::string line;
    std::getline(in, line);
    return line;
}

/// A name that may be an object's: lower case, no other characters.
std::string object_name(std::string_view text) {
    auto out = to_lower(text);
    for (auto& c : out)
        if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '.') c = '-';
    while (!out.empty() && (out.front() == '-' || out.front() == '.')) out.erase(0, 1);
    while (!out.empty() && (out.back() == '-' || out.back() == '.')) out.pop_back();
    return out.empty() ? "localhost" : out;
}

/// A condition, and since when it stands: `now` (RFC 3339) when `before` did not have it with this status.
Json condition(const Json& before, const std::string& now, const char* type, bool good,
               const std::string& reason, const std::string& message) {
    const char* status = good ? "True" : "False";
    auto since = now;
    if (const auto& list = at_path(before, "status.conditions"); list.is_array())
        for (const auto& c : list)
            if (text_at(c, "type") == type && text_at(c, "status") == status) since = text_at(c, "lastTransitionTime", since);
    Json out = {{"type", type}, {"status", status}, {"lastTransitionTime", since}};
    if (!reason.empty()) out["reason"] = reason;
    if (!message.empty()) out["message"] = message;
    return out;
}

class Projection : public Reconciler {
  public:
    Projection(Registry& registry, const HousekeeperOptions& options)
        : registry_(registry), options_(options), node_name_(object_name(io::machine_name())),
          started_(time_now()) {}
    const char* name() const override { return "projection"; }
    std::vector<Key> all() override { return {{"machine", "", node_name_}}; }
    std::vector<Key> concerned(const registry::Event& event) override {
        // The broker's own news change what its Pods show; others are looked at in their turn.
        if (event.kind->kind == "Service" || event.kind->kind == "Broker" || event.kind->kind == "BrokerListener" || event.kind->kind == "Namespace") return all();
        return {};
    }
    Outcome reconcile(const Key&) override {
        const auto addresses = io::machine_addresses();
        const auto address = addresses.empty() ? std::string("127.0.0.1") : addresses.front();
        put(node_kind(), "", node_name_, [&](const Json& before) { return node(address, before); });
        const auto roles = options_.roles();
        for (const auto& role : roles) put(pod_kind(), options_.name_space, role.pod, [&](const Json& before) { return pod(role, address, before); });
        const auto diagnostics = std::ranges::find(roles, "diagnostics-service", &Role::component);
        put_diagnostics_service(diagnostics != roles.end() ? &*diagnostics : nullptr);
        const auto services = registry_.list(service_kind(), "").items;
        std::set<Place> served;
        for (const auto& service : services) put_endpoints(*service), served.insert(place_of(*service));
        std::erase_if(applied_, [&](const auto& one) { return !served.contains(one.first); });
        put_slices();
        for (const auto& pod : registry_.list(pod_kind(), "").items) {
            const auto name = text_at(*pod, "metadata.name");
            if (std::ranges::find(roles, name, &Role::pod) == roles.end())
                [[maybe_unused]] const auto gone = registry_.remove(pod_kind(), text_at(*pod, "metadata.namespace"), name);
        }
        return Outcome::after(look_again_ms);
    }

  private:
    [[nodiscard]] std::string time_now() const { return rfc3339(options_.clock.wall_ms()); }
    using Place = std::pair<std::string, std::string>;   ///< namespace and name
    static Place place_of(const Json& object) {
        return {text_at(object, "metadata.namespace"), text_at(object, "metadata.name")};
    }
    static std::string version_of(const Json& object) { return text_at(object, "metadata.resourceVersion"); }

    static const resources::Kind& node_kind() { return *resources::find_kind("v1", "Node"); }
    static const resources::Kind& pod_kind() { return *resources::find_kind("v1", "Pod"); }
    static const resources::Kind& service_kind() { return *resources::find_kind("v1", "Service"); }
    static const resources::Kind& endpoints_kind() { return *resources::find_kind("v1", "Endpoints"); }
    static const resources::Kind& slice_kind() { return *resources::find_kind("discovery.k8s.io/v1", "EndpointSlice"); }

    /// The Service under which AIO's tools look for the metrics. One that somebody else made under this name is left alone.
    void put_diagnostics_service(const Role* role) {
        constexpr const char* name = "aio-broker-diagnostics-service";
        const auto current = registry_.get(service_kind(), options_.name_space, name);
        if (current && !is_ours(**current)) return;
        if (role == nullptr) {
            if (current) [[maybe_unused]] const auto gone = registry_.remove(service_kind(), options_.name_space, name);
            return;
        }
        Json ports = Json::array();
        for (const auto& [word, port] : role->ports) ports.push_back({{"name", word}, {"port", port}, {"protocol", "TCP"}});
        const Json object = {{"apiVersion", "v1"}, {"kind", "Service"}, {"metadata", {{"name", name}, {"labels", {{"app.kubernetes.io/name", product_label}}}}},
                             {"spec", {{"type", "ClusterIP"}, {"selector", {{"app.kubernetes.io/component", role->component}}}, {"ports", ports}}}};
        [[maybe_unused]] const auto done = registry_.patch(service_kind(), options_.name_space, name, registry::PatchType::apply, object, false, {.manager = manager, .force = true});
    }

    static bool is_ours(const Json& object) {
        const auto& managers = at_path(object, "metadata.managedFields");
        return managers.is_array() && std::ranges::any_of(managers, [](const Json& entry) { return text_at(entry, "manager") == manager && text_at(entry, "subresource").empty(); });
    }

    /// The number behind a port of a Service: of the Pod's port that has the name, where it is a name. 0: the Pod has none.
    static int target_of(const Json& port, const Json& pod) {
        if (!port.contains("targetPort")) return resources::integer_of(port, "port");
        if (port["targetPort"].is_number_integer()) return resources::integer_of(port, "targetPort");
        for (const auto& container : at_path(pod, "spec.containers"))
            for (const auto& there : at_path(container, "ports"))
                if (text_at(there, "name") == text_at(port, "targetPort")) return resources::integer_of(there, "containerPort");
        return 0;
    }
    static bool has_port(const Json& pod, int number) {
        for (const auto& container : at_path(pod, "spec.containers"))
            for (const auto& there : at_path(container, "ports"))
                if (resources::integer_of(there, "containerPort") == number) return true;
        return false;
    }

    /// The addresses behind a Service with a selector: the Pods that match it, and are ready. Of the Service of a listener each port
    /// counts for itself: one that waits for its certificate does not take the open ones along.
    void put_endpoints(const Json& service) {
        const auto& selector = at_path(service, "spec.selector");
        if (!selector.is_object() || selector.empty()) return;
        const auto space = text_at(service, "metadata.namespace"), name = text_at(service, "metadata.name");
        const auto& owners = at_path(service, "metadata.ownerReferences");
        const bool is_listener = owners.is_array() && std::ranges::any_of(owners, [](const Json& owner) { return text_at(owner, "kind") == "BrokerListener"; });
        // Ports that lead to the same addresses are one subset.
        std::map<std::pair<Json, Json>, Json> subsets;
        const auto pods = registry_.list(pod_kind(), space).items;
        for (const auto& port : at_path(service, "spec.ports")) {
            std::map<int, std::pair<Json, Json>> by_target;   // ready, and not
            for (const auto& pod : pods) {
                const auto& labels = at_path(*pod, "metadata.labels");
                bool matches = labels.is_object();
                for (const auto& [key, value] : selector.items()) matches = matches && labels.contains(key) && labels[key] == value;
                const auto target = matches ? target_of(port, *pod) : 0;
                if (target == 0) continue;
                bool is_ready = false;
                for (const auto& c : at_path(*pod, "status.conditions")) is_ready |= text_at(c, "type") == "Ready" && text_at(c, "status") == "True";
                if (is_listener) is_ready = has_port(*pod, target);
                auto& [ready, waiting] = by_target[target];
                (is_ready ? ready : waiting).push_back({{"ip", text_at(*pod, "status.podIP")}, {"nodeName", node_name_}, {"targetRef", {{"kind", "Pod"}, {"namespace", space}, {"name", text_at(*pod, "metadata.name")}, {"uid", text_at(*pod, "metadata.uid")}}}});
            }
            for (auto& [target, addresses] : by_target) {
                Json entry = {{"port", target}, {"protocol", text_at(port, "protocol", "TCP")}};
                for (const char* field : {"name", "appProtocol"})
                    if (const auto word = text_at(port, field); !word.empty()) entry[field] = word;
                subsets[std::move(addresses)].push_back(std::move(entry));
            }
        }
        Json list = Json::array();
        for (const auto& [addresses, ports] : subsets) {
            Json subset = {{"ports", ports}};
            if (!addresses.first.empty()) subset["addresses"] = addresses.first;
            if (!addresses.second.empty()) subset["notReadyAddresses"] = addresses.second;
            list.push_back(std::move(subset));
        }
        const Json object = {{"apiVersion", "v1"}, {"kind", "Endpoints"},
                             {"metadata", {{"name", name}, {"ownerReferences", Json::array({{{"apiVersion", "v1"}, {"kind", "Service"}, {"name", name}, {"uid", text_at(service, "metadata.uid")}}})}}},
                             {"subsets", list}};
        auto& [applied, version] = applied_[{space, name}];
        const auto there = registry_.get(endpoints_kind(), space, name);
        if (there && version == version_of(**there) && applied == object) return;
        const registry::WriteOptions options{.manager = manager, .force = true};
        const auto done =
            registry_.patch(endpoints_kind(), space, name, registry::PatchType::apply, object, false, options);
        applied = object;
        version = done ? version_of(**done) : std::string();
    }

    /// The same as EndpointSlices, which newer clients read (kubectl describe service), also of Endpoints that
    /// others wrote. What has not changed on either side is not made again.
    void put_slices() {
        std::map<Place, std::string> there;   // versions
        for (const auto& one : registry_.list(slice_kind(), "").items) there[place_of(*one)] = version_of(*one);
        std::map<Place, Sliced> sliced;
        std::set<Place> wanted;
        for (const auto& endpoints : registry_.list(endpoints_kind(), "").items) {
            auto& now = sliced[place_of(*endpoints)];
            const auto before = sliced_.find(place_of(*endpoints));
            auto stands = [&](const auto& one) {
                const auto found = there.find(one.first);
                return one.second == (found == there.end() ? std::string() : found->second);
            };
            const bool is_same = before != sliced_.end() && before->second.of == version_of(*endpoints) &&
                                 std::ranges::all_of(before->second.slices, stands);
            now = is_same ? before->second : slice(*endpoints);
            for (const auto& [place, version] : now.slices)
                if (!version.empty()) wanted.insert(place);
        }
        sliced_ = std::move(sliced);
        for (const auto& [place, version] : there)
            if (!wanted.contains(place))
                [[maybe_unused]] const auto gone = registry_.remove(slice_kind(), place.first, place.second);
    }

    /// What was made of Endpoints: of which version, and the version of each slice; empty: it cannot be one.
    struct Sliced {
        std::string of;
        std::map<Place, std::string> slices;
    };
    Sliced slice(const Json& endpoints) {
        Sliced out{.of = version_of(endpoints), .slices = {}};
        std::map<Place, Json> wanted;
        if (!add_slices(endpoints, wanted))
            log::warn("control", "endpoints/{} has more than {} EndpointSlices; those beyond are not made",
                      text_at(endpoints, "metadata.name"), slices_max);
        for (const auto& [place, object] : wanted) {
            const auto done = registry_.patch(slice_kind(), place.first, place.second, registry::PatchType::apply,
                                              object, false, {.manager = manager, .force = true});
            // One that is refused must not stay as it was: what stands there is not so any more.
            out.slices[place] = done ? version_of(**done) : std::string();
            if (done) continue;
            const auto& failure = done.error();
            log::warn("control", "endpointslice/{} is not there: {}", place.second, failure.message);
            // The disk may get room: it is tried again.
            if (failure.code != 422 && failure.code != 400) out.of.clear();
        }
        return out;
    }

    /// An address of Endpoints as a slice has it; null: it is none. What was kept before it was checked may be
    /// anything.
    static Json endpoint_of(const Json& address, bool is_ready) {
        const auto ip = text_at(address, "ip");
        if (!io::is_ip_address(ip)) return {};
        Json out = {{"addresses", Json::array({ip})},
                    {"conditions", {{"ready", is_ready}, {"serving", is_ready}, {"terminating", false}}}};
        for (const char* word : {"hostname", "nodeName"})
            if (const auto text = text_at(address, word); !text.empty()) out[word] = text;
        const auto& pod = at_path(address, "targetRef");
        for (const char* word :
             {"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"})
            if (const auto text = text_at(pod, word); !text.empty()) out["targetRef"][word] = text;
        return out;
    }
    static Json slice_ports(const Json& subset) {
        Json out = Json::array();
        for (const auto& port : at_path(subset, "ports")) {
            Json entry = {{"name", text_at(port, "name")},
                          {"port", resources::integer_of(port, "port")},
                          {"protocol", text_at(port, "protocol", "TCP")}};
            if (const auto word = text_at(port, "appProtocol"); !word.empty()) entry["appProtocol"] = word;
            out.push_back(std::move(entry));
        }
        return out;
    }

    /// A slice has one family and one list of ports: of each subset of the Endpoints there is one per family,
    /// `NAME-ipv4`, `NAME-ipv4-1`, ... False: there would be more than `slices_max`.
    static bool add_slices(const Json& endpoints, std::map<Place, Json>& out) {
        constexpr std::size_t label_max = 63, endpoints_max = 1000;
        const auto [space, name] = place_of(endpoints);
        const auto& subsets = at_path(endpoints, "subsets");
        if (name.size() > label_max || !subsets.is_array()) return true;   // no Service has such a name
        const Json owner = {{"apiVersion", "v1"},
                            {"kind", "Endpoints"},
                            {"name", name},
                            {"uid", text_at(endpoints, "metadata.uid")}};
        std::map<std::string, int> counts;
        for (const auto& subset : subsets) {
            std::map<std::string, Json> by_family;
            for (const auto& [field, is_ready] : {std::pair{"addresses", true}, std::pair{"notReadyAddresses", false}})
                for (const auto& address : at_path(subset, field)) {
                    auto entry = endpoint_of(address, is_ready);
                    if (entry.is_null()) continue;
                    auto& list = by_family[text_at(address, "ip").contains(':') ? "IPv6" : "IPv4"];
                    if (list.size() < endpoints_max) list.push_back(std::move(entry));
                }
            for (auto& [family, list] : by_family) {
                if (out.size() >= slices_max) return false;
                const auto count = counts[family]++;
                const auto slice = fmt::format("{}-{}{}", name, to_lower(family), count == 0 ? "" : fmt::format("-{}", count));
                out[{space, slice}] = {{"apiVersion", "discovery.k8s.io/v1"},
                                       {"kind", "EndpointSlice"},
                                       {"metadata",
                                        {{"name", slice},
                                         {"labels",
                                          {{"kubernetes.io/service-name", name},
                                           {"endpointslice.kubernetes.io/managed-by", manager}}},
                                         {"ownerReferences", Json::array({owner})}}},
                                       {"addressType", family},
                                       {"endpoints", std::move(list)},
                                       {"ports", slice_ports(subset)}};
            }
        }
        return true;
    }

    /// Creates or brings up to date: metadata and spec by patch, then the status. `make`: the whole object, from what is there (null:
    /// nothing); conditions of other writers stay.
    void put(const resources::Kind& kind, const std::string& space, const std::string& name, const std::function<Json(const Json&)>& make) {
        const auto there = registry_.get(kind, space, name);
        auto object = make(there ? **there : Json());
        object.erase("status");
        const registry::WriteOptions options{.manager = manager};
        if (!there) {
            if (!registry_.create(kind, space, object, options)) return;   // the namespace is ending, or the disk is full: it is tried again
        } else {
            [[maybe_unused]] const auto done = registry_.patch(kind, space, name, registry::PatchType::merge, object, false, options);
        }
        // Not written: others were faster, and it is looked at again.
        [[maybe_unused]] const auto done = registry_.put_status(kind, space, name, [&](const Json& now) {
            auto status = make(now)["status"];
            if (const auto& all = at_path(now, "status.conditions"); all.is_array())
                for (const auto& one : all)
                    if (std::ranges::find(own_conditions, text_at(one, "type")) == std::end(own_conditions)) status["conditions"].push_back(one);
            return status;
        }, manager);
    }

    Json node(const std::string& address, const Json& before) {
        utsname system{};
        uname(&system);
        auto memory = first_line("/proc/meminfo");
        memory = fmt::format("{}Ki", trim(memory.substr(std::min(memory.size(), std::string_view("MemTotal:").size()), memory.rfind(' ') == std::string::npos ? 0 : memory.rfind(' ') - 9)));
        struct statvfs disk{};
        const auto bytes = statvfs(options_.data_folder.c_str(), &disk) == 0 ? disk.f_blocks * disk.f_frsize : 0;
        const Json resources = {{"ephemeral-storage", fmt::format("{}Ki", bytes / 1024)}, {"cpu", std::to_string(sysconf(_SC_NPROCESSORS_ONLN))}, {"memory", memory}, {"pods", "110"}};
        const auto now = options_.clock.wall_ms();
        const auto time = rfc3339(now);
        const auto ready = condition(before, time, "Ready", true, "PenstockReady", "penstock is running");
        // The heartbeat moves every five minutes: each step is a write.
        std::string beat;
        if (const auto& list = at_path(before, "status.conditions"); list.is_array() && !list.empty()) beat = text_at(list[0], "lastHeartbeatTime");
        if (parse_rfc3339(beat) < now - heartbeat_ms) beat = time;
        Json conditions = Json::array({ready});
        if (options_.manifests) {
            const auto why = printable(options_.manifests());
            const auto* const reason = why.empty() ? "InForce" : "NotInForce";
            conditions.push_back(condition(before, time, "ManifestsApplied", why.empty(), reason, why));
        }
        // As in Kubernetes each condition of a Node has one.
        for (auto& one : conditions) one["lastHeartbeatTime"] = beat;
        const std::string arch = std::string_view(system.machine) == "x86_64" ? "amd64" : std::string_view(system.machine) == "aarch64" ? "arm64" : system.machine;
        return {{"metadata", {{"name", node_name_}, {"labels", {{"kubernetes.io/hostname", node_name_}, {"kubernetes.io/os", "linux"}, {"kubernetes.io/arch", arch}, {"node-role.kubernetes.io/control-plane", "true"}, {"node-role.kubernetes.io/master", "true"}}}}},
                {"spec", Json::object()},
                {"status", {{"conditions", conditions}, {"addresses", Json::array({{{"type", "InternalIP"}, {"address", address}}, {{"type", "Hostname"}, {"address", node_name_}}})}, {"capacity", resources}, {"allocatable", resources},
                            {"nodeInfo", {{"machineID", first_line("/etc/machine-id")}, {"systemUUID", ""}, {"bootID", first_line("/proc/sys/kernel/random/boot_id")}, {"kernelVersion", system.release}, {"osImage", os_name()}, {"operatingSystem", "linux"},
                                          {"architecture", arch}, {"containerRuntimeVersion", "penstock://" + options_.version}, {"kubeletVersion", "v1.33.0+penstock"}, {"kubeProxyVersion", "v1.33.0+penstock"}}}}}};
    }

    [[nodiscard]] Json pod_conditions(const Role& role, const Json& before) const {
        const auto now = time_now();
        const auto why = role.ready ? std::string() : "ContainersNotReady";
        return Json::array({condition(before, now, "PodReadyToStartContainers", true, "", ""),
                            condition(before, now, "Initialized", true, "", ""),
                            condition(before, now, "Ready", role.ready, why, role.why_not),
                            condition(before, now, "ContainersReady", role.ready, why, role.why_not),
                            condition(before, now, "PodScheduled", true, "", "")});
    }

    Json pod(const Role& role, const std::string& address, const Json& before) {
        // Each start of the process counts as one of the container.
        auto restarts = restarts_.find(role.pod);
        if (restarts == restarts_.end()) {
            int count = 0;
            if (const auto& states = at_path(before, "status.containerStatuses"); states.is_array() && !states.empty()) count = resources::integer_of(states[0], "restartCount") + 1;
            restarts = restarts_.emplace(role.pod, count).first;
        }
        Json ports = Json::array();
        for (const auto& [name, port] : role.ports) ports.push_back({{"name", name}, {"containerPort", port}, {"protocol", "TCP"}});
        std::string modules;
        for (const auto& module : role.log_modules) modules += (modules.empty() ? "" : ",") + module;
        const Json container = {{"name", role.container}, {"image", "penstock:" + options_.version}, {"imagePullPolicy", "Never"}, {"ports", ports}};
        return {{"metadata",
                 {{"name", role.pod},
                  {"namespace", options_.name_space},
                  {"labels",
                   {{"app", role.component},
                    {"app.kubernetes.io/name", product_label},
                    {"app.kubernetes.io/component", role.component},
                    {"app.kubernetes.io/instance", "default"},
                    {"tier", role.component}}},
                  {"annotations", {{"penstock.io/log-modules." + role.container, modules}}}}},
                {"spec",
                 {{"nodeName", node_name_},
                  {"containers", Json::array({container})},
                  {"restartPolicy", "Always"},
                  {"hostNetwork", true},
                  {"serviceAccountName", "default"},
                  {"terminationGracePeriodSeconds", 30}}},
                {"status",
                 {{"phase", "Running"},
                  {"podIP", address},
                  {"podIPs", Json::array({{{"ip", address}}})},
                  {"hostIP", address},
                  {"hostIPs", Json::array({{{"ip", address}}})},
                  {"startTime", started_},
                  {"qosClass", "BestEffort"},
                  {"conditions", pod_conditions(role, before)},
                  {"containerStatuses", Json::array({{{"name", role.container},
                                                      {"ready", role.ready},
                                                      {"started", true},
                                                      {"restartCount", restarts->second},
                                                      {"image", "penstock:" + options_.version},
                                                      {"imageID", ""},
                                                      {"containerID", ""},
                                                      {"state", {{"running", {{"startedAt", started_}}}}},
                                                      {"lastState", Json::object()}}})}}}};
    }

    Registry& registry_;
    const HousekeeperOptions& options_;
    std::string node_name_, started_;
    std::map<std::string, int> restarts_;
    std::map<Place, Sliced> sliced_;
    /// Endpoints of Services with a selector: what was applied, and the version that came of it.
    std::map<Place, std::pair<Json, std::string>> applied_;
};

}  // namespace

std::unique_ptr<Reconciler> make_projection(Registry& registry, const HousekeeperOptions& options) { return std::make_unique<Projection>(registry, options); }

}  // namespace penstock::control
