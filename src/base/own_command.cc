#include "base/own_command.h"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/shell.h"

namespace penstock {

namespace {
std::string& kubeconfig() {
    static std::string file;
    return file;
}
}  // namespace

std::string own_command(std::string_view words) {
    auto out = "penstock " + std::string(words);
    if (!kubeconfig().empty()) out += " --kubeconfig " + shell_quoted(kubeconfig());
    return out;
}

void set_own_kubeconfig(std::string file) { kubeconfig() = std::move(file); }

std::string restore_command(const std::string& part) {
    constexpr const char* restore = "penstock restore FOLDER";
    if (part.empty()) return restore;
    std::error_code error;
    const auto whole = std::filesystem::absolute(part, error);
    return fmt::format("{} --data-dir {}", restore, typed_path((error ? std::filesystem::path(part) : whole).parent_path().string()));
}

std::string typed_path(const std::string& path) {
    std::error_code error;
    const auto whole = std::filesystem::absolute(path, error).lexically_normal().string();
    return shell_quoted(error ? path : whole);
}

}  // namespace penstock
