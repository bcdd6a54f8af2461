#pragma once
#include <string>
#include <string_view>

namespace penstock {

// Commands in texts for people, who type them into a shell that knows nothing of the running program: neither its
// flags nor the folder that it was started in.

/// `penstock WORDS`, with `--kubeconfig FILE` where it would not find the resource API otherwise. Any thread.
std::string own_command(std::string_view words);
/// Where the kubeconfig of this installation stands, absolute; empty: where everybody looks for it. Before other
/// threads run.
void set_own_kubeconfig(std::string file);
/// The command that puts a backup (FOLDER) in place, of the data folder that `part` stands in; of the usual one when
/// that is empty.
std::string restore_command(const std::string& part);
/// A path as it is typed: absolute, and one word of a shell.
std::string typed_path(const std::string& path);

}  // namespace penstock
