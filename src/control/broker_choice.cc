#include "control/broker_choice.h"

#include <algorithm>

#include <fmt/format.h>

#include "control/status_writer.h"
#include "registry/admission.h"

namespace penstock::control {

using resources::Json;
using resources::text_at;

namespace {

constexpr const char* default_namespace = "azure-iot-operations";

/// Whether `one` runs where the choice is between the two.
bool goes_before(const Json& one, const Json& other) {
    if (text_at(one, "metadata.namespace") == default_namespace) return true;
    return text_at(other, "metadata.namespace") != default_namespace &&
           text_at(one, "metadata.creationTimestamp") < text_at(other, "metadata.creationTimestamp");
}

}  // namespace

BrokerChoice choose_broker(const std::vector<ObjectRef>& brokers, const std::vector<ObjectRef>& listeners) {
    BrokerChoice out{
        .brokers = brokers, .chosen = {}, .others = {}, .why_not = {}, .listeners = {}, .orphans = {}};
    for (const auto& candidate : brokers)
        if (out.chosen == nullptr || goes_before(*candidate, *out.chosen)) out.chosen = candidate;
    for (const auto& other : brokers)
        if (other != out.chosen) out.others.push_back(other);
    if (out.chosen != nullptr)
        out.why_not = fmt::format("one Broker runs on a machine, and {} does", qualified_name(*out.chosen));
    for (const auto& listener : listeners) {
        const bool ours =
            out.chosen != nullptr &&
            text_at(*listener, "metadata.namespace") == text_at(*out.chosen, "metadata.namespace") &&
            registry::broker_of(*listener) == text_at(*out.chosen, "metadata.name");
        if (ours) out.listeners.push_back(*listener);
        else out.orphans.push_back(listener);
    }
    return out;
}

OrphanFacts orphan_facts_of(const Objects& objects, const Json& listener, const BrokerChoice& choice) {
    OrphanFacts out;
    out.listener = qualified_name(listener);
    out.broker = registry::broker_of(listener);
    for (const auto& broker : choice.brokers)
        if (text_at(*broker, "metadata.namespace") == text_at(listener, "metadata.namespace"))
            out.there.push_back(text_at(*broker, "metadata.name"));
    if (choice.chosen != nullptr) out.running = qualified_name(*choice.chosen);
    const auto home = belongs_to(out);
    auto moved = listener;
    moved["metadata"]["namespace"] = home.substr(0, home.find('/'));
    moved["spec"]["brokerRef"] = home.substr(home.find('/') + 1);
    const auto& kind = broker_kind("BrokerListener");
    out.name_is_taken =
        out.listener != qualified_name(moved) &&
        objects.get(kind, text_at(moved, "metadata.namespace"), text_at(moved, "metadata.name")) != nullptr;
    const auto uid = text_at(listener, "metadata.uid");
    const registry::Peers peers{.list = [&](const char* api_version, const char* name) {
        auto others = objects.list(*resources::find_kind(api_version, name), "");
        std::erase_if(others, [&](const auto& other) { return text_at(*other, "metadata.uid") == uid; });
        return others;
    }};
    registry::admit(kind, moved, &listener, peers, out.refusals);
    // Another name brings another name of its Service.
    if (out.name_is_taken)
        std::erase_if(out.refusals, [](const auto& fault) { return fault.path == "spec.serviceName"; });
    return out;
}

}  // namespace penstock::control
