#include "app/identity_keeper.h"

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::app {

Result<void> IdentityKeeper::open(std::int64_t now_ms) {
    std::vector<std::string> done;
    auto identity = open_identity(folder_, now_ms, nullptr, &done);
    if (!identity) return fail(named(identity.error().message));
    auto keys = open_token_keys(folder_, now_ms);
    if (!keys) return fail(named(keys.error().message));
    for (const auto& one : done) log::info("app", "the resource API's {}", named(one));
    const std::lock_guard lock(guard_);
    identity_ = std::move(*identity);
    token_keys_ = std::move(*keys);
    return {};
}

void IdentityKeeper::look(std::int64_t now_ms) {
    if (data_)
        if (auto there = data_->ready(); !there) {
            {
                const std::lock_guard lock(guard_);
                fault_ = there.error().message;
            }
            return say(said_, there.error().message, "the resource API's certificates cannot be kept current");
        }
    auto lost = lost_files(folder_, token_keys_);
    is_lost_settled_ = lost.empty() || lost == lost_;
    lost_ = std::move(lost);
    if (!is_lost_settled_) return;
    look_at_certificates(now_ms);
    look_at_token_keys(now_ms);
    if (!lost_.empty()) lost_ = lost_files(folder_, token_keys_);
}

bool IdentityKeeper::has_lost_files() const {
    if (data_ && !data_->is_there()) return false;
    const auto lost = lost_files(folder_, token_keys_);
    return !lost.empty() && !(is_lost_settled_ && lost == lost_);
}

void IdentityKeeper::say(std::string& last, std::string now, const char* what) const {
    if (!now.empty() && now != last) log::warn("app", "{}; what is in force stays why=\"{}\"", what, now);
    if (now.empty() && !last.empty()) log::info("app", "{}: not any more", what);
    last = std::move(now);
}

void IdentityKeeper::look_at_certificates(std::int64_t now_ms) {
    std::vector<std::string> done;
    auto next = open_identity(folder_, now_ms, &identity_, &done);
    std::string fault = next ? std::string() : named(next.error().message);
    if (next && *next != identity_) {
        is_told_ = false;
        for (const auto& one : done) log::info("app", "the resource API's {}", named(one));
        const std::lock_guard lock(guard_);
        identity_ = std::move(*next);
    } else if (next) {
        // What was put back is done with; what could not be written stays a fault.
        std::erase_if(done, [&](const auto& one) {
            const bool is_done = one.ends_with("written back");
            if (is_done) log::error("app", "the resource API's {} folder={}", one, named(folder_.string()));
            return is_done;
        });
        if (!done.empty()) fault = named(fmt::format("{}", fmt::join(done, "; ")));
    }
    if (!is_told_ && users_.identity) {
        const auto told = users_.identity(identity_);
        is_told_ = told.has_value();
        if (!told) fault += (fault.empty() ? "" : "; ") + told.error().message;
    }
    {
        const std::lock_guard lock(guard_);
        fault_ = fault;
    }
    say(said_, std::move(fault), "the resource API's certificates cannot be kept current");
}

void IdentityKeeper::look_at_token_keys(std::int64_t now_ms) {
    std::vector<std::string> done;
    auto keys = open_token_keys(folder_, now_ms, &token_keys_, &done);
    for (const auto& one : done) log::error("app", "{} folder={}", one, named(folder_.string()));
    auto fault = named(keys ? keys->fault : keys.error().message);
    if (keys) {
        const bool is_other = keys->keys != token_keys_.keys;
        keys->fault = fault;
        {
            const std::lock_guard lock(guard_);
            token_keys_ = std::move(*keys);
        }
        if (is_other && users_.token_keys) users_.token_keys(token_keys_.keys);
    } else {
        const std::lock_guard lock(guard_);
        token_keys_.fault = fault;
    }
    say(said_of_keys_, std::move(fault), "the keys of service-account tokens cannot be kept current");
}

std::vector<api::OwnCertificate> IdentityKeeper::facts(std::int64_t now_ms) const {
    const std::lock_guard lock(guard_);
    auto out = api::describe(identity_, now_ms);
    if (!fault_.empty())
        for (auto& one : out)
            if (one.name == "ca" && one.fault.empty())
                one.fault = "what is in the folder is not in force: " + fault_;
    out.push_back({.name = "service-account-key",
                   .where = token_keys_.signing_file,
                   .subject = {},
                   .not_after_ms = 0,
                   .renewal_ms = token_keys_.renewal_ms,
                   .fault = token_keys_.fault,
                   .used_by = "service account tokens",
                   .when_it_ends = "nothing: tokens of former keys go on counting"});
    return out;
}

}  // namespace penstock::app
