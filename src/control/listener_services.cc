#include "control/listener_services.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "control/cures.h"
#include "io/wait.h"
#include "resources/field_set.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

const resources::Kind& service_kind() { return *resources::find_kind("v1", "Service"); }

std::string service_name_of(const Json& listener) {
    return text_at(listener, "spec.serviceName", text_at(listener, "metadata.name"));
}

}  // namespace

void ListenerServices::claim(const std::vector<Json>& listeners, Plan& plan) {
    std::erase_if(faults_, [&](const auto& entry) {
        return std::ranges::none_of(listeners,
                                    [&](const Json& one) { return qualified_name(one) == entry.first; });
    });
    for (const auto& listener : listeners) claim_one(listener, plan);
}

void ListenerServices::claim_one(const Json& listener, Plan& plan) {
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const auto current = objects_.get(service_kind(), space, service_name_of(listener));
    auto& fault = faults_[qualified_name(listener)];
    std::string refusal;
    if (current != nullptr)
        refusal =
            service_refusal(*current, listener, service_of(listener, plan, {}, in_cluster_, current.get()));
    if (!refusal.empty() && refusal != fault.why)
        log::warn("control", "{} listener={}/{}", refusal, space, name);
    if (!refusal.empty() || fault.is_refused) fault = {.why = refusal, .is_refused = !refusal.empty()};
    if (fault.why.empty()) return;
    const auto port = std::ranges::find_if(plan.ports, [&](const PlannedPort& p) {
        return !p.is_leaving && p.name_space == space && p.listener == name;
    });
    if (port == plan.ports.end()) return;
    const auto another = "name another Service in spec.serviceName, with: kubectl edit brokerlistener " +
                         as_words(qualified_name(listener));
    port->warnings.push_back(
        warning_of(fault.why, fault.is_refused ? another : "it is tried again by itself"));
}

void ListenerServices::put(const Json& listener, const Plan& plan,
                           const std::vector<broker::ListenerState>& states) {
    auto& fault = faults_[qualified_name(listener)];
    if (fault.is_refused) return;
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const auto service = service_name_of(listener);
    const auto current = objects_.get(service_kind(), space, service);
    const auto object = service_of(listener, plan, states, in_cluster_, current.get());
    const bool is_balanced = text_at(object, "spec.type") == "LoadBalancer";
    // Owned by right and applied as a whole: what others added to the Service stays theirs. Nothing is sent
    // when it is so already.
    const bool as_wanted = current != nullptr &&
                           resources::merge_applied(*current, object, service_kind().schema) == *current &&
                           at_path(*current, "spec.ports").size() == object["spec"]["ports"].size();
    if (as_wanted) {
        fault = {};
        return put_address(space, service, is_balanced);
    }
    const auto trouble = fmt::format("Service of {}/{}", space, name);
    const auto applied =
        objects_.patch(service_kind(), space, service, registry::PatchType::apply, object, broker_manager);
    if (!applied) {
        if (!writer_.troubles().failed(trouble, applied.error(), clock_.monotonic_ms())) return;
        fault.why = fmt::format("Service {}/{} was not written: {}", space, service, applied.error().message);
        log::warn("control", "{}; it is tried again listener={}/{}{}", fault.why, space, name,
                  applied.error().code == 403 ? rights_cure : "");
        return;
    }
    writer_.troubles().succeeded(trouble);
    fault = {};
    put_address(space, service, is_balanced);
    remove_others(listener, service);
}

void ListenerServices::put_address(const std::string& name_space, const std::string& service,
                                   bool is_balanced) {
    if (in_cluster_) return;
    const auto addresses = io::machine_addresses();
    const auto host = addresses.empty() ? std::string("127.0.0.1") : addresses.front();
    const Json balanced = is_balanced ? Json{{"ingress", Json::array({{{"ip", host}}})}} : Json::object();
    const auto object = objects_.get(service_kind(), name_space, service);
    if (object == nullptr) return;
    writer_.write(service_kind(), *object, [&](const Json& now) {
        auto out = at_path(now, "status").is_object() ? at_path(now, "status") : Json::object();
        out["loadBalancer"] = balanced;
        return out;
    });
}

void ListenerServices::remove_others(const Json& listener, const std::string& service) {
    const auto space = text_at(listener, "metadata.namespace");
    for (const auto& other : objects_.list(service_kind(), space))
        if (is_owned_by(*other, listener) && text_at(*other, "metadata.name") != service) {
            [[maybe_unused]] const auto removed =
                objects_.remove(service_kind(), space, text_at(*other, "metadata.name"));
        }
}

bool ListenerServices::is_complete() const {
    return std::ranges::all_of(
        faults_, [](const auto& entry) { return entry.second.why.empty() || entry.second.is_refused; });
}

}  // namespace penstock::control
