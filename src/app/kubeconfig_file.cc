#include "app/kubeconfig_file.h"

#include "app/identity.h"

namespace penstock::app {

Result<void> KubeconfigFile::set(std::string text) {
    {
        const std::lock_guard lock(state_->guard);
        state_->text = std::move(text);
    }
    return write();
}

Result<void> KubeconfigFile::write() {
    std::string text;
    {
        const std::lock_guard lock(state_->guard);
        text = state_->text;
    }
    return text.empty() ? Result<void>() : write_private(state_->path, text);
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
