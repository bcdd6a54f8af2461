// Words that people bring from kubectl and that are no commands here: what they get instead of "unknown command".
#include <algorithm>

#include <fmt/format.h>

#include "app/kubectl_words.h"
#include "resources/versions.h"

namespace penstock::app {
namespace {

constexpr std::string_view for_workloads[] = {"scale", "rollout", "autoscale", "set", "expose"};
constexpr std::string_view for_containers[] = {"exec", "attach", "cp", "debug"};

std::string not_here(std::string_view what) {
    return fmt::format("no {} here: {}", what, resources::workload_refusal);
}

std::string why_not_created(std::string_view word) {
    if (const auto* brought = resources::find_kind_by_word(word, resources::workload_kinds()))
        return not_here(brought->kind);
    const auto* kind = resources::find_kind_by_word(word);
    if (kind == nullptr || !kind->stored) return {};
    if (kind->kind == "Pod") return not_here(kind->kind);
    if (kind->read_only) return fmt::format("{} is written by Penstock alone", kind->kind);
    return fmt::format("{} is made from a manifest: penstock apply -f FILE (penstock explain {} shows its fields)",
                       kind->kind, kind->singular);
}

}  // namespace

std::string why_no_command(std::string_view group, std::string_view word) {
    if (group == "penstock create") return why_not_created(word);
    if (group == "penstock create secret" && word == "docker-registry")
        return "penstock create secret generic NAME --type=kubernetes.io/dockerconfigjson "
               "--from-file=.dockerconfigjson=FILE makes it, of the config.json that `docker login` writes";
    if (group == "penstock run") return not_here("Pod");
    if (group != "penstock") return {};
    if (std::ranges::find(for_workloads, word) != std::end(for_workloads)) return not_here(word);
    if (std::ranges::find(for_containers, word) != std::end(for_containers))
        return fmt::format("no {} here: the Pods are roles of the penstock process on this machine and no containers; "
                           "`penstock logs POD` shows what they do, a shell on the machine reaches the rest",
                           word);
    return {};
}

}  // namespace penstock::app
