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

/// The last lines of this run, in files of the data folder, and those of the run before: what a run said at its end
/// is read after it was killed or crashed, too. From begin_run() on log::write goes into `log/run.log`, by a thread of
/// its own (Output): whoever logs waits for no disk, and what a full one does not take is counted and told in its
/// place. At half of `bytes_max` that file becomes `log/run.older.log` in the place of the one before; both together
/// have no more than that.
///
/// What is no regular file in the place of one of them is never touched: nothing is kept until somebody has taken it
/// away, standard error says so once, and fault() says why for as long as it lasts. Files that are deleted or moved
/// away are noticed within about a second, also while nothing is logged, and begun anew. `log` itself may be a link
/// to a folder of the same user.
///
/// Nothing is synced: a loss of power may take the last seconds. One in a process and in a data folder. Any thread.
class RunFiles {
  public:
    static constexpr std::size_t bytes_max = 256 << 10;   ///< of a run

    /// Changes nothing in the folder.
    explicit RunFiles(std::shared_ptr<HeldFolder> data);
    /// Waits up to two seconds for what is not written yet.
    ~RunFiles();
    RunFiles(const RunFiles&) = delete;
    RunFiles& operator=(const RunFiles&) = delete;

    /// From now on this is a run, and no start that may still give up: all that was said since the start is kept, and
    /// the files of the run before become `log/previous.log` and `log/previous.older.log`. Where that cannot be done it
    /// is tried again each second, and nothing of this run is kept meanwhile. Does not wait for the disk; a second call
    /// has no effect.
    void begin_run();
    /// The lines of the run before, oldest first; nothing: there was none. The error names the file or folder that
    /// cannot be read or is none, and stands in the place of a run that was earlier. Waits for the disk.
    [[nodiscard]] Result<std::optional<std::vector<Line>>> before() const;
    /// Why what this run says is not kept now, for a person; empty: it is, or this is no run yet. Does not wait for the
    /// disk.
    [[nodiscard]] std::string fault() const;
    /// The same of a thread that stands like this; `folder`: where it writes. Pure.
    static std::string fault_of(const Output::Figures& figures, const std::string& folder);

  private:
    struct Files;
    std::shared_ptr<Files> files_;       ///< the thread's too, which may outlive this
};

}  // namespace penstock::log
