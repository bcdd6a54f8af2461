#pragma once
#include <string>
#include <vector>

#include "base/result.h"

namespace CLI {
class App;
}

namespace penstock::app {

/// The words of a command line (without the program's name) as CLI11 has to get them, so that they mean what
/// they mean to kubectl:
/// - `-n=x` is `-n x`, for each short option that has a value; `-A=false` is `--all-namespaces=false`. Not
///   within the value of another option, and not behind `--`.
/// - `--namespace`, `-n` and `--kubeconfig` may stand before the command (`penstock -n x get pods`): they are
///   put behind it; the same behind the command wins.
/// The error is one line for a person: an option that has `=` and nothing behind it, for which CLI11 would
/// take the next word (with an empty variable in a script, `--namespace= --dry-run=client` would write), or
/// one of those before the command without a value.
Result<std::vector<std::string>> words_for_cli11(const CLI::App& root,
                                                 const std::vector<std::string>& words);

}  // namespace penstock::app
