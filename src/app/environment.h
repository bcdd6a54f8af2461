#pragma once
// What the environment says, and where things are when nobody says otherwise. Any thread.
#include <string>

namespace penstock::app {

/// A variable of the environment; empty when it is not set.
std::string environment(const char* name);
/// `/var/lib/penstock` for root, else below the user's home, whatever the environment says of Penstock.
std::string built_in_data_folder();
/// built_in_data_folder(), but `PENSTOCK_DATA` wins.
std::string default_data_folder();
/// `KUBECONFIG`, else the one that `penstock run` wrote.
std::string default_kubeconfig();

}  // namespace penstock::app
