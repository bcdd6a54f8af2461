#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "client/apply.h"
#include "client/kinds.h"

namespace penstock::app {

/// Applies manifests and keeps following them, by server-side apply as a manager of their own: a change is applied, a document
/// that goes away is deleted, and a field that somebody else changed is not fought over: the conflict is told.
/// Core: one thread.
class FileFollower {
  public:
    /// `may_be_empty`: a folder without manifests is no fault.
    FileFollower(client::Access access, std::vector<std::string> files, bool may_be_empty);
    /// False: something was refused; what is not refused is applied.
    bool sync();
    /// Looks for changes twice a second until `stop`; `pause` blocks for so many milliseconds.
    void follow(const std::atomic<bool>& stop, const std::function<void(int)>& pause);
    /// Told of a document whose fields others own.
    void on_conflict(std::function<void(const resources::Json& object, const std::string& why)> told) { on_conflict_ = std::move(told); }

  private:
    [[nodiscard]] std::string key_of(const resources::Json& object) const;
    void prune(const std::vector<std::string>& present);
    [[nodiscard]] std::string fingerprint() const;

    client::Client client_;
    client::Kinds kinds_;
    std::vector<std::string> files_;
    bool may_be_empty_;
    std::function<void(const resources::Json&, const std::string&)> on_conflict_;
};

}  // namespace penstock::app
