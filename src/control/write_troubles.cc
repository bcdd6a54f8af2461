#include "control/write_troubles.h"

namespace penstock::control {

void WriteTroubles::begin() {
    const std::lock_guard lock(guard_);
    ++round_;
}

void WriteTroubles::end() {
    const std::lock_guard lock(guard_);
    std::erase_if(troubles_, [&](const auto& entry) { return entry.second.round != round_; });
}

bool WriteTroubles::failed(const std::string& what, const registry::Failure& failure, std::int64_t now_ms) {
    const std::lock_guard lock(guard_);
    const auto [at, is_new] = troubles_.try_emplace(what, Trouble{.since_ms = now_ms, .round = round_, .told = {}});
    auto& trouble = at->second;
    trouble.round = round_;
    if (failure.code == 403 && now_ms - trouble.since_ms < patience_ms) return false;
    if (trouble.told == failure.message) return false;
    trouble.told = failure.message;
    return true;
}

void WriteTroubles::succeeded(const std::string& what) {
    const std::lock_guard lock(guard_);
    troubles_.erase(what);
}

bool WriteTroubles::any() const {
    const std::lock_guard lock(guard_);
    return !troubles_.empty();
}

}  // namespace penstock::control
