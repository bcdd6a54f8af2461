#pragma once
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/given_clock.h"
#include "control/engine.h"

namespace penstock::control {

/// A part of this process that is shown as a Pod.
struct Role {
    std::string pod;
    std::string container;
    std::string component;               ///< label `app.kubernetes.io/component`
    std::vector<std::string> log_modules;
    std::vector<std::pair<std::string, int>> ports;
    bool ready = true;
    std::string why_not;                 ///< when not ready
};

/// The role of the resource API itself.
Role api_role();

struct HousekeeperOptions {
    Clock clock;
    std::string api_ca;   ///< PEM, one or several; for ConfigMap kube-root-ca.crt and token Secrets
    /// Token of a service account bound to its Secret, without end; empty when it cannot be made.
    std::function<std::string(const resources::Json& account, const resources::Json& secret)> make_token;
    std::string version;
    std::string name_space = "azure-iot-operations";
    std::function<std::vector<Role>()> roles;
    /// Why the manifests that are followed are not in force as they stand; empty when they are. Shown by the Node's condition
    /// ManifestsApplied.
    std::function<std::string()> manifests;
    std::string data_folder = "/";       ///< whose disk is the Node's ephemeral-storage
    bool broker_elsewhere = false;       ///< the broker is another process, which may be gone while its statuses stand
};

/// The controllers a Kubernetes API needs to be one: namespaces, token Secrets, garbage collection, expiry of Events; and
/// the Node and Pods that show what runs here.
class Housekeeper {
  public:
    Housekeeper(registry::Registry& registry, HousekeeperOptions options);
    void start() { engine_.start(); }
    void stop() { engine_.stop(); }
    /// The API has other CAs: every namespace and token Secret gets them. Any thread.
    void set_api_ca(std::string pem);
    [[nodiscard]] const Engine& engine() const { return engine_; }

  private:
    [[nodiscard]] std::string api_ca() const;

    HousekeeperOptions options_;         ///< api_ca: guarded by guard_
    mutable std::mutex guard_;
    LocalObjects objects_;
    Engine engine_;
};

}  // namespace penstock::control
