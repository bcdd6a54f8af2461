#include "app/kubeconfig_file.h"

#include <filesystem>

#include "app/identity.h"

namespace penstock::app {

Result<void> KubeconfigFile::set(std::string text) {
    {
        const std::lock_guard lock(state_->guard);
        state_->text = std::move(text);
        state_->is_written = false;
    }
    return write();
}

Result<void> KubeconfigFile::write() {
    if (auto there = state_->data->ready(); !there) return there;
    const auto path = state_->data->at(name);
    std::string text;
    {
        const std::lock_guard lock(state_->guard);
        std::error_code error;
        const auto size = std::filesystem::file_size(path, error);
        if (state_->text.empty() || (state_->is_written && !error && size > 0)) return {};
        text = state_->text;
    }
    auto written = write_private(path, text);
    if (!written) written = std::unexpected(state_->data->named(written.error()));
    const std::lock_guard lock(state_->guard);
    state_->is_written = written.has_value();
    return written;
}

Result<client::Access> KubeconfigFile::access_by(const std::shared_ptr<State>& state) {
    std::string text;
    {
        const std::lock_guard lock(state->guard);
        text = state->text;
    }
    auto out = client::parse_kubeconfig(text, state->path);
    if (out) out->again = [state] { return access_by(state); };
    return out;
}

}  // namespace penstock::app
