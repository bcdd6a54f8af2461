#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "control/housekeeper.h"

namespace penstock::app {

/// A part of a process. It is made before the first part starts, and goes after the last has stopped.
struct Part {
    std::string name;                    ///< for the log and for `needs`: "resource API"
    std::string log_module;              ///< under which it writes most (base/log_modules.h)
    std::vector<std::string> needs = {};             ///< names of parts that start before it; checked
    bool is_wanted = true;               ///< false: this process does without it, and nobody may need it
    /// Empty: it works from its making on. The error ends the start.
    std::function<Result<void>()> start = {};
    /// Empty: nothing of it has to be stopped. It comes after the order to stop, and only if it started; it
    /// returns when the part uses nothing any more that started before it.
    std::function<void()> stop = {};
    /// The Pods under which it is shown. Empty: under none. Any thread.
    std::function<std::vector<control::Role>()> pods = {};
};

/// The start of a part that cannot fail.
inline std::function<Result<void>()> unfailing(std::function<void()> what) {
    return [what = std::move(what)] {
        what();
        return Result<void>();
    };
}

/// The parts of a process: started in the order of the list, stopped in the opposite one. Core: one thread,
/// but for pods().
class Parts {
  public:
    /// `tell_to_stop`: the order to stop, for all who wait for something; given once, before the first part
    /// is stopped.
    Parts(std::vector<Part> list, std::function<void()> tell_to_stop);
    /// The error is of the part that could not start; what had started has stopped again.
    Result<void> start();
    void stop();
    /// Of all parts that are wanted. Any thread, also before the start.
    [[nodiscard]] std::vector<control::Role> pods() const;

  private:
    [[nodiscard]] Result<void> check(const Part& part) const;
    std::vector<Part> list_;
    std::function<void()> tell_to_stop_;
    std::size_t started_ = 0;            ///< so many of the list, from its beginning
};

}  // namespace penstock::app
