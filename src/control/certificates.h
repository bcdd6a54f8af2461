#pragma once
#include <functional>
#include <optional>
#include <string>

#include "base/given_clock.h"
#include "control/engine.h"

namespace penstock::control {

/// Names of what an installation has from the start (fact sheet 8.3 and platform sheet 12).
inline constexpr const char* ca_namespace = "cert-manager";                         ///< where ClusterIssuers find their Secrets
inline constexpr const char* ca_secret = "azure-iot-operations-aio-ca-certificate";
inline constexpr const char* root_issuer = "azure-iot-operations-aio-selfsigned-issuer";
inline constexpr const char* default_issuer = "azure-iot-operations-aio-certificate-issuer";
inline constexpr const char* trust_bundle = "azure-iot-operations-aio-ca-trust-bundle";
inline constexpr const char* internal_ca = "aio-broker-internal-ca";

/// The embedded issuer: reconciles Certificate, Issuer and ClusterIssuer (ca, selfSigned) as cert-manager
/// does, and keeps the installation's own CA and trust bundle.
///
/// A CA that was renewed or replaced takes along what the one before it signed: such certificates are issued
/// again at once. The bundle holds both as long as the old one is valid, and a CA that was renewed vouches
/// for its successor (a cross certificate, which certificates of the new one carry), so neither who has read
/// the bundle nor who has not is cut off. Core: control, with a thread of its own: large keys take seconds.
class CertificateControllers {
  public:
    /// By `clock` everything is issued and renewed.
    CertificateControllers(Objects& objects, const Clock& clock);
    void start() { engine_.start(); }
    void stop() { engine_.stop(); }
    /// The clock made a jump: everything is looked at. Any thread.
    void look_again() { engine_.look_again(); }
    [[nodiscard]] const Engine& engine() const { return engine_; }

  private:
    Recorder recorder_;
    Engine engine_;
};

/// Why the embedded issuer cannot carry out a Certificate, by its own text; empty: it can. `now_ms`: Unix
/// time.
std::string certificate_fault(const resources::Json& certificate, std::int64_t now_ms);
/// Why an Issuer or ClusterIssuer signs nothing at `now_ms` (Unix time), by its text and its Secret; empty:
/// it does.
std::string issuer_fault(const Objects& objects, const resources::Json& issuer, std::int64_t now_ms);

/// When certificates of Certificate resources and CAs of issuers end, in Prometheus' text form:
/// `penstock_certificate_not_after_timestamp_seconds`, `penstock_issuer_ca_not_after_timestamp_seconds`.
std::string certificate_metrics(const Objects& objects);

/// The text of a Secret's or ConfigMap's entry; nothing when absent or not base64.
std::optional<std::string> secret_text(const resources::Json& secret, const std::string& key);

}  // namespace penstock::control
