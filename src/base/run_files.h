#pragma once
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/held_folder.h"
#include "base/log.h"
#include "base/log_output.h"

namespace penstock::log {

/// The last lines of this run, in files of the data folder, and those of the run before: what a run said at its end is read after it
/// was killed or crashed, too. While one lives, log::write goes into `log/run.log`, by a thread of its own (Output): whoever logs waits
/// for no disk, and what a full one does not take is counted and told in its place. At half of `bytes_max` that file becomes
/// `log/run.older.log` in the place of the one before; both together have no more than that.
///
/// Nothing is synced: a loss of power may take the last seconds. One in a process and in a data folder. Any thread.
class RunFiles {
  public:
    static constexpr std::size_t bytes_max = 256 << 10;   ///< of a run

    /// The files of the run before become `log/previous.log` and `log/previous.older.log`. Where that cannot be done it is tried again
    /// each second, and nothing of this run is kept meanwhile.
    explicit RunFiles(std::shared_ptr<HeldFolder> data);
    /// Waits up to two seconds for what is not written yet.
    ~RunFiles();
    RunFiles(const RunFiles&) = delete;
    RunFiles& operator=(const RunFiles&) = delete;

    /// The lines of the run before, oldest first; nothing: there was none. The error names the file that cannot be read.
    [[nodiscard]] Result<std::optional<std::vector<Line>>> before() const;

  private:
    struct Files;
    std::shared_ptr<Files> files_;       ///< the thread's too, which may outlive this
};

}  // namespace penstock::log
