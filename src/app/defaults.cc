#include "app/defaults.h"

#include "base/log.h"
#include "control/certificates.h"

namespace penstock::app {

using resources::Json;
using resources::text_at;

void create_defaults(registry::Registry& registry, bool with_listener) {
    const auto& broker = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker");
    const auto& listener = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener");
    const auto& authentication =
        *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerAuthentication");
    const std::string space = "azure-iot-operations";
    auto seed = [&](const resources::Kind& kind, Json spec) {
        if (const auto made =
                registry.seed(kind, space, {{"metadata", {{"name", "default"}}}, {"spec", std::move(spec)}});
            !made)
            log::error("app", "the default {} could not be made: {}", kind.kind, made.error().message);
    };
    const auto brokers = registry.list(broker, "").items;
    if (brokers.empty())
        seed(broker,
             {{"memoryProfile", "Medium"}});   // the default; an object of nothing would belong to nobody
    const auto name = brokers.empty() ? std::string("default") : text_at(*brokers.front(), "metadata.name");
    const Json token_method = {{"method", "ServiceAccountToken"},
                               {"serviceAccountTokenSettings", {{"audiences", {"aio-internal"}}}}};
    seed(authentication, {{"brokerRef", name}, {"authenticationMethods", Json::array({token_method})}});
    if (!with_listener || !registry.list(listener, "").items.empty()) return;
    const Json issuer = {
        {"group", "cert-manager.io"}, {"kind", "ClusterIssuer"}, {"name", control::default_issuer}};
    const Json certificate = {{"issuerRef", issuer},
                              {"privateKey", {{"algorithm", "Ec256"}, {"rotationPolicy", "Always"}}}};
    const Json port = {{"port", 18883},
                       {"authenticationRef", "default"},
                       {"tls", {{"mode", "Automatic"}, {"certManagerCertificateSpec", certificate}}}};
    seed(listener, {{"brokerRef", name},
                    {"serviceType", "ClusterIp"},
                    {"serviceName", "aio-broker"},
                    {"ports", Json::array({port})}});
}

}   // namespace penstock::app
