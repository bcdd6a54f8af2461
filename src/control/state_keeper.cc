#include "control/state_keeper.h"

#include <filesystem>

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::control {

namespace {
constexpr std::int64_t begin_retry_ms = 30'000;
}  // namespace

Result<std::unique_ptr<store::Durable>> StateKeeper::open(const Plan& plan, const std::string& owner,
                                                          std::uint32_t workers,
                                                          std::shared_ptr<store::RecoveryProgress> progress) {
    if (place_.folder.empty()) return fail("this role has no data folder to keep state in (--data-dir)");
    Result<store::KeyRing> keys;
    {
        const std::lock_guard writing(key_file_guard_);
        keys = state_keys(place_, plan.seals, plan.key_rotation);
        if (!keys) return std::unexpected(keys.error());
        const std::lock_guard lock(guard_);
        keys_ = *keys;
    }
    return store::Durable::open({.folder = place_.folder,
                                 .mark_file = place_.mark_file,
                                 .owner = owner,
                                 .workers = workers,
                                 .sync_interval_ms = plan.sync_interval_ms,
                                 .size_max = plan.persistence_bytes,
                                 .keys = std::move(*keys),
                                 .seal = plan.seals,
                                 .progress = std::move(progress),
                                 .file_system = {}});
}

void StateKeeper::begin(const Plan& plan, const std::string& owner) {
    if (clock_.monotonic_ms() < next_begin_ms_) return;
    auto opened = open(plan, owner, running_.server()->workers(), nullptr);
    std::string why;
    if (!opened) why = opened.error().message;
    else if (!(*opened)->is_empty())
        why =
            fmt::format("{} holds what was kept before; both come together at the next start", place_.folder);
    running_.with([&](const BrokerLook&, broker::Server* server) {
        {
            const std::lock_guard lock(guard_);
            if (!why.empty() && why != waits_)
                log::warn("control", "persistence does not begin now why=\"{}\"", why);
            waits_ = why;
        }
        if (!why.empty()) {
            next_begin_ms_ = clock_.monotonic_ms() + begin_retry_ms;
            return;
        }
        server->begin_persistence(std::move(*opened));
        log::info("control", "the broker's state is kept from now on folder={}", place_.folder);
    });
}

void StateKeeper::follow(const Plan& plan) {
    auto& durable = *running_.server()->durable();
    durable.set_limits(plan.sync_interval_ms, plan.persistence_bytes);
    follow_keys(durable, plan);
}

store::KeyRing StateKeeper::keys_in_force() const {
    const std::lock_guard lock(guard_);
    return keys_;
}

void StateKeeper::follow_keys(store::Durable& durable, const Plan& plan) {
    const std::lock_guard writing(key_file_guard_);
    auto wanted = state_keys(place_, plan.seals, plan.key_rotation, keys_in_force());
    std::string why;   // what was in force stays in force then
    if (wanted) {
        durable.set_keys(*wanted, plan.seals);
        const auto gone = drop_state_keys(place_, *wanted, durable.figures(), plan.seals);
        if (!gone) why = gone.error().message;
        else if (*gone > 0) durable.set_keys(*wanted, plan.seals);
    } else {
        why = wanted.error().message;
    }
    const std::lock_guard lock(guard_);
    if (wanted) keys_ = std::move(*wanted);
    if (!why.empty() && why != keys_fault_)
        log::error("control", "the keys of the broker's state are not taken over why=\"{}\"", why);
    keys_fault_ = why;
}

void StateKeeper::keep_keys() {
    if (place_.folder.empty() || place_.keys_are_given) return;
    const std::lock_guard writing(key_file_guard_);
    const auto in_use = keys_in_force();
    std::error_code error;
    const auto size = std::filesystem::file_size(place_.key_file, error);
    if (in_use.keys.empty() || (!error && size > 0)) return;
    // What cannot be written is told by follow_keys().
    [[maybe_unused]] const auto put = state_keys(place_, false, {}, in_use);
}

Result<bool> StateKeeper::copy_to(const std::string& folder) {
    return running_.with([&](const BrokerLook&, broker::Server* server) -> Result<bool> {
        if (server == nullptr || server->durable() == nullptr) return false;
        if (auto done = server->durable()->copy_to(folder); !done) return std::unexpected(done.error());
        // Read after the copy was made, so that no key of it is missing. Keys that somebody else keeps are
        // not ours to copy.
        if (place_.keys_are_given) return true;
        const auto ring = store::KeyRing::read(place_.key_file);
        if (!ring) return std::unexpected(ring.error());
        if (ring->keys.empty()) return true;
        if (auto written = ring->write(folder + "/" + state_keys_name); !written)
            return std::unexpected(written.error());
        return true;
    });
}

StateFacts StateKeeper::facts() const {
    const std::lock_guard lock(guard_);
    return {.key = keys_.keys.empty() ? 0 : keys_.keys.back().id, .keys_fault = keys_fault_, .waits = waits_};
}

}  // namespace penstock::control
