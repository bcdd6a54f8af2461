#pragma once
// The process of `penstock run` and `penstock api`: what stands before its parts, and the parts.
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "api/handler.h"
#include "api/server.h"
#include "app/followed_files.h"
#include "app/identity_keeper.h"
#include "app/kubeconfig_file.h"
#include "app/metrics_pages.h"
#include "app/parts.h"
#include "app/run_health.h"
#include "app/start_watch.h"
#include "base/given_clock.h"
#include "base/held_folder.h"
#include "base/run_files.h"
#include "control/broker_controller.h"
#include "control/certificates.h"
#include "control/housekeeper.h"
#include "control/watchdog.h"
#include "registry/registry.h"

namespace penstock::app {

struct RunOptions {
    std::string data_folder;
    std::vector<std::string> files;      ///< manifests to apply and follow
    std::string api_address = "127.0.0.1";
    int api_port = 6443;                 ///< 0 picks one
    std::string log_level = "info";
    bool with_broker = true;             ///< false: the API and its controllers alone
};

/// What stands before the first part starts, and after the last has stopped.
struct Ground {
    std::shared_ptr<HeldFolder> data;    ///< the data folder, held against other processes
    std::size_t descriptors = 0;         ///< how many this process may have open
    std::unique_ptr<IdentityKeeper> keeper;          ///< the API's certificates and keys
    std::unique_ptr<registry::Registry> registry;    ///< the resources
    std::int64_t latest_wall_ms = 0; ///< the latest time that the run before left behind, Unix ms; 0: none
};
/// Opens it, step by step; `start` says which step it waits for. `run_files` is made on the way, and has to
/// go after all that logs. The error is one line for a person.
Result<Ground> open_ground(const RunOptions& options, StartWatch& start,
                           std::unique_ptr<log::RunFiles>& run_files);

/// All that is made on that ground, and how it starts and stops. Core: the main thread, but for read_again().
class Platform {
  public:
    Platform(const RunOptions& options, Ground ground, log::RunFiles& run_files, StartWatch& watch);
    /// The error is one line for a person; nothing runs then.
    Result<void> start() { return parts_.start(); }
    void stop() { parts_.stop(); }
    /// Files, certificates and keys are read again.
    void read_again();
    /// After stop(): a thread reads a file that does not answer, and uses all of this.
    [[nodiscard]] bool is_held_up() const { return is_held_up_; }
    /// Not empty: files were named at the start and nothing of them is in force, or ever was; why.
    [[nodiscard]] std::string never_in_force() const { return health_.never_in_force(); }

  private:
    std::vector<Part> parts();
    [[nodiscard]] control::HousekeeperOptions housekeeping();
    [[nodiscard]] control::Watchdog::Options watching();
    [[nodiscard]] FollowedFiles::Options following();
    [[nodiscard]] std::function<std::string()> metrics();
    void give_views();
    Result<std::string> copy_registry();

    Result<void> start_api();
    void begin_files();
    void become_run();
    void say_started();
    void announce();
    void look_again();
    void keep_identity();
    void tell_to_stop();
    void pause(int milliseconds) { registry_.wait_stop(milliseconds); }

    const RunOptions& options_;
    const Ground ground_;
    log::RunFiles& run_files_;
    StartWatch& watch_;
    registry::Registry& registry_;
    IdentityKeeper& keeper_;
    const std::string reread_, manifests_;           ///< the command that has files read again; their folder
    std::atomic<bool> has_started_{false}, stopping_{false}, read_again_{false}, is_held_up_{false};

    const Clock clock_ = machine_clock();            ///< of all controllers
    api::Tokens tokens_;
    control::LocalObjects objects_;
    RunHealth health_;
    FollowBoard follow_board_;
    control::BrokerController controller_;
    control::CertificateControllers certificates_;
    control::Housekeeper housekeeper_;
    api::Handler handler_;
    control::AskedAside figures_;
    api::Server server_;
    int port_ = 0;                       ///< of the API, once it answers
    KubeconfigFile kubeconfig_;
    FollowedFiles files_;
    api::PageServer pages_;
    control::Watchdog watchdog_;
    std::thread announcing_, looking_, keeping_;
    Parts parts_;                        ///< last: it uses the others
};

}  // namespace penstock::app
