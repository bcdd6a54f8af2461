#pragma once
#include <optional>
#include <string>

#include "control/engine.h"

namespace penstock::control {

/// Names of what an installation has from the start (fact sheet 8.3 and platform sheet 12).
inline constexpr const char* ca_namespace = "cert-manager";                         ///< where ClusterIssuers find their Secrets
inline constexpr const char* ca_secret = "azure-iot-operations-aio-ca-certificate";
inline constexpr const char* root_issuer = "azure-iot-operations-aio-selfsigned-issuer";
inline constexpr const char* default_issuer = "azure-iot-operations-aio-certificate-issuer";
inline constexpr const char* trust_bundle = "azure-iot-operations-aio-ca-trust-bundle";
inline constexpr const char* internal_ca = "aio-broker-internal-ca";

/// The embedded issuer: reconciles Certificate, Issuer and ClusterIssuer (ca, selfSigned) as cert-manager does, and keeps the
/// installation's own CA and trust bundle.
///
/// A CA that is renewed signs what is issued from then on; certificates of the old one stay until their own renewal. The bundle
/// holds both as long as the old one is valid, so nobody who reads the bundle now and then is cut off.
/// Core: control, with a thread of its own: large keys take seconds.
class CertificateControllers {
  public:
    explicit CertificateControllers(Objects& objects);
    void start() { engine_.start(); }
    void stop() { engine_.stop(); }
    [[nodiscard]] const Engine& engine() const { return engine_; }

  private:
    Recorder recorder_;
    Engine engine_;
};

/// The text of a Secret's or ConfigMap's entry; nothing when absent or not base64.
std::optional<std::string> secret_text(const resources::Json& secret, const std::string& key);
/// A Go duration such as `2160h` or `15m30s` in milliseconds.

}  // namespace penstock::control
