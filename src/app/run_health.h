#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "api/own_pki.h"
#include "client/file_follower.h"
#include "control/health.h"
#include "control/watchdog.h"
#include "registry/registry.h"

namespace penstock::app {

/// What `penstock run` knows of its own health beyond the broker: its manifests, its registry, its certificates and keys.
/// Core: any thread.
class RunHealth {
  public:
    /// `reread`: the command that has followed files applied again, for a person.
    RunHealth(registry::Registry& registry, std::string reread) : registry_(registry), reread_(std::move(reread)) {}
    [[nodiscard]] control::HealthBoard& board() noexcept { return board_; }
    /// How the files of a follower stand; `source`: client::FileFollower::Options::source.
    void manifests(const std::string& source, const client::FollowState& state);
    /// Not empty: files were named at the start and nothing of them is in force, or ever was; why.
    [[nodiscard]] std::string never_in_force() const;
    /// The API's own certificates as they are now (IdentityKeeper::facts).
    void certificates(const std::vector<api::OwnCertificate>& facts);
    /// The keys of service-account tokens; `fault` empty: they could be read.
    void token_keys(const std::string& fault);
    /// Looks whether what files made is still there: somebody may have deleted it, and nothing in the files changes then.
    void look_for_deleted();
    /// Objects that files brought which nobody follows any more, for a person: how many, of which file, and
    /// the commands that show and delete them; empty: none. `followed`: the sources of this run.
    [[nodiscard]] std::string left_by_former_files(const std::set<std::string>& followed) const;
    /// Facts of the process but for its workers.
    control::ProcessFacts facts() const;

  private:
    bool holds_objects_of(const std::string& source) const;
    /// How many objects of the registry are of each source.
    [[nodiscard]] std::map<std::string, std::size_t> objects_by_source() const;

    registry::Registry& registry_;
    const std::string reread_;
    control::HealthBoard board_;
    mutable std::mutex guard_;           ///< all below
    std::set<std::string> in_force_;     ///< followers (by their source) whose files were applied as a whole by this process
    std::map<std::string, std::string> waiting_;   ///< by follower: why nothing of its files is in force
    std::map<std::string, std::shared_ptr<const std::vector<client::FollowedObject>>> followed_;   ///< by follower
    std::uint64_t looked_at_ = 0;        ///< the registry's version at the last look for what was deleted
    std::string token_keys_fault_;
};

/// What a person is told once it is known: that Penstock runs, or that it has started and what is missing. Waits up to five seconds for
/// the first, by `pause`. `note`: one line more, or empty.
std::string announcement(const control::HealthBoard& board, const std::string& note,
                         const std::string& kubeconfig, const std::string& usual_kubeconfig,
                         const std::function<void(int ms)>& pause, const std::atomic<bool>& stopping);

}  // namespace penstock::app
