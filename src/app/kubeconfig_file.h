#pragma once
#include <memory>
#include <mutex>
#include <string>

#include "base/held_folder.h"
#include "base/result.h"
#include "client/client.h"

namespace penstock::app {

/// The administrator's kubeconfig of a running API: what is in force, and the file that says so to kubectl and `penstock get`.
/// Penstock's own clients have it from here and not from the file: a disk that takes no writes leaves an old file behind, with the
/// port and the certificates of the run before. Any thread.
class KubeconfigFile {
  public:
    /// In that folder; it is not written while that is not there.
    explicit KubeconfigFile(std::shared_ptr<HeldFolder> data) : state_(std::make_shared<State>()) {
        state_->path = data->path() + "/" + name;
        state_->data = std::move(data);
    }
    [[nodiscard]] const std::string& path() const noexcept { return state_->path; }
    /// That text is in force now, and is written. The error: it is in force, but the file does not say so; write() tries again.
    Result<void> set(std::string text);
    /// Writes the file where it is not there or empty, or where what is in force could not be written. What a person adds to it stays.
    Result<void> write();
    /// Access by what is in force; read again (client::Access::again) it is what is in force then.
    [[nodiscard]] Result<client::Access> access() const { return access_by(state_); }

  private:
    static constexpr const char* name = "kubeconfig.yaml";
    struct State {
        std::string path;
        std::shared_ptr<HeldFolder> data;
        std::mutex guard;                ///< of what follows
        std::string text;
        bool is_written = false;
    };
    static Result<client::Access> access_by(const std::shared_ptr<State>& state);
    std::shared_ptr<State> state_;
};

}  // namespace penstock::app
