#include "app/environment.h"

#include <unistd.h>

#include <cstdlib>

#include "base/text.h"

namespace penstock::app {

std::string environment(const char* name) {
    const char* set = std::getenv(name);
    return set != nullptr ? set : "";
}

std::string built_in_data_folder() {
    if (geteuid() == 0) return "/var/lib/penstock";
    const auto home = environment("HOME");
    return (home.empty() ? "." : home) + "/.local/share/penstock";
}

std::string default_data_folder() {
    const auto set = environment("PENSTOCK_DATA");
    return set.empty() ? built_in_data_folder() : set;
}

std::string default_kubeconfig() {
    const auto set = environment("KUBECONFIG");
    return set.empty() ? default_data_folder() + "/kubeconfig.yaml" : std::string(split(set, ':').front());
}

}  // namespace penstock::app
