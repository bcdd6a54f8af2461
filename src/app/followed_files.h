#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/client.h"
#include "client/file_follower.h"
#include "control/objects.h"

namespace penstock::app {

/// What objects of these files are marked with (client::FileFollower::Options::source).
std::string source_of(const std::vector<std::string>& files);

/// How the followed files stand, for those who ask from other threads.
class FollowBoard {
  public:
    void put(const std::string& source, client::FollowState state);
    [[nodiscard]] std::map<std::string, client::FollowState> states() const;
    /// Why files are not in force as they stand; empty when all are.
    [[nodiscard]] std::string why_not() const;
    /// What brings back objects of followed files that somebody deleted, by the command `reread`; empty: no
    /// file has any.
    [[nodiscard]] std::string say_again(const std::string& reread) const;

  private:
    mutable std::mutex guard_;           ///< states_
    std::map<std::string, client::FollowState> states_;
};

/// The files and folders whose manifests `penstock run` applies and goes on following, each on a thread of
/// its own: a file on a mount that does not answer holds that thread up, and nobody else. Core: one thread,
/// but for read_again().
class FollowedFiles {
  public:
    struct Options {
        control::Objects& objects;       ///< where conflicts are told, as Events
        Clock clock;                     ///< of these
        std::string reread;              ///< the command that has files read again, for a person
        /// Told on the followers' threads, and by look_for_mute().
        std::function<void(const std::string& source, const client::FollowState& state)> on_state;
        std::function<void(int ms)> pause;           ///< returns early when the process ends
        const std::atomic<bool>& stopping;
    };
    explicit FollowedFiles(Options options);
    ~FollowedFiles();
    FollowedFiles(const FollowedFiles&) = delete;
    FollowedFiles& operator=(const FollowedFiles&) = delete;

    /// Returns when what stands there is in force, is not whole yet or does not answer, or when an order to
    /// stop has come. `access`: to the API through which it is applied. `files`: one source. `may_be_empty`:
    /// a folder without manifests is no fault.
    void begin(client::Access access, const std::vector<std::string>& files, bool may_be_empty);
    /// After all have begun: from now on changes are followed.
    void go_on();
    void read_again();
    /// Tells what has not answered for long, once each time. To be called every few seconds.
    void look_for_mute();
    /// After `stopping` was set. False: a file that does not answer holds a thread up, which can not be
    /// waited for.
    bool wait_ended();

  private:
    class Source;
    void tell_if_mute(Source& source);
    Options options_;
    control::Recorder recorder_;
    std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace penstock::app
