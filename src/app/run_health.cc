#include "app/run_health.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "app/version.h"
#include "base/clock.h"
#include "base/own_command.h"
#include "base/shell.h"
#include "io/socket.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::app {

using control::Severity;
using resources::text_at;

namespace {
constexpr int look_ms = 100;
constexpr std::int64_t announce_ms = 5000;

std::string object_name(const client::FollowedObject& object) {
    return fmt::format("{} {}{}{}", object.kind, object.name_space, object.name_space.empty() ? "" : "/", object.name);
}
}  // namespace

std::map<std::string, std::size_t> RunHealth::objects_by_source() const {
    std::map<std::string, std::size_t> out;
    std::set<std::string> seen;
    for (const auto* kind : registry_.kinds()) {
        if (!kind->stored || !seen.insert(kind->qualified_plural()).second) continue;
        for (const auto& object : registry_.list(*kind, "").items) {
            const auto& marks = resources::at_path(*object, "metadata.annotations");
            if (!marks.is_object()) continue;
            const auto mark = marks.find(client::FileFollower::source_annotation);
            if (mark != marks.end() && mark->is_string()) ++out[mark->get<std::string>()];
        }
    }
    return out;
}

bool RunHealth::holds_objects_of(const std::string& source) const {
    return objects_by_source().contains(source);
}

std::string RunHealth::left_by_former_files(const std::set<std::string>& followed) const {
    auto left = objects_by_source();
    std::erase_if(left, [&](const auto& one) { return followed.contains(one.first); });
    if (left.empty()) return {};
    std::size_t count = 0;
    for (const auto& [source, objects] : left) count += objects;
    const auto& first = left.begin()->first;
    const auto more = left.size() > 1 ? fmt::format(" and {} more", left.size() - 1) : std::string();
    const bool one = count == 1;
    const auto file = first == "-" ? "standard input" : shell_quoted(resources::shortened(first));
    return fmt::format("{} object{} of files that an earlier run followed ({}{}) stay{} in force: {} shows {}, "
                       "{} deletes what is in FILE",
                       count, one ? "" : "s", file, more, one ? "s" : "",
                       own_command("get broker,brokerlistener -A"), one ? "it" : "them",
                       own_command("delete -f FILE"));
}

void RunHealth::manifests(const std::string& source, const client::FollowState& state) {
    const bool in_force = state.phase == client::FollowState::Phase::applied;
    const bool waits = state.phase == client::FollowState::Phase::waiting;
    std::vector<control::Finding> findings;
    const bool held = !in_force && (state.was_applied || holds_objects_of(source));
    {
        const std::lock_guard lock(guard_);
        if (in_force) in_force_.insert(source);
        followed_[source] = in_force || state.phase == client::FollowState::Phase::refused ? state.objects : nullptr;
        looked_at_ = 0;
        const bool nothing = !in_force && !held && !in_force_.contains(source);
        if (nothing) waiting_[source] = state.why;
        else waiting_.erase(source);
        if (!in_force)
            findings.push_back({.severity = nothing ? Severity::unavailable : Severity::degraded, .subject = "manifests",
                                .reason = nothing ? control::Reason("ManifestNotInForce") : waits ? control::Reason("ManifestWaits") : control::Reason("ManifestRefused"),
                                .what = fmt::format("{}: {}", nothing ? "nothing of the manifests is in force" : "the manifests are not in force as they stand; what was applied before stays", state.why),
                                .cure = state.cure});
    }
    board_.put("manifests " + source, std::move(findings), monotonic_ms(), wall_ms());
}

void RunHealth::look_for_deleted() {
    std::map<std::string, std::shared_ptr<const std::vector<client::FollowedObject>>> followed;
    const auto now_at = registry_.version();
    {
        const std::lock_guard lock(guard_);
        if (looked_at_ == now_at) return;
        looked_at_ = now_at;
        followed = followed_;
    }
    std::map<std::pair<std::string, std::string>, const resources::Kind*> kinds;
    for (const auto* kind : registry_.kinds()) kinds[{kind->api_version(), kind->kind}] = kind;
    std::vector<control::Finding> findings;
    for (const auto& [source, objects] : followed) {
        if (objects == nullptr) continue;
        std::size_t gone = 0;
        const client::FollowedObject* first = nullptr;
        for (const auto& object : *objects) {
            const auto kind = kinds.find({object.api_version, object.kind});
            const auto* known = kind != kinds.end() ? kind->second : resources::find_kind(object.api_version, object.kind);
            if (known != nullptr && registry_.get(resources::kept_kind(*known), object.name_space, object.name)) continue;
            if (gone++ == 0) first = &object;
        }
        if (gone == 0) continue;
        const auto name = object_name(*first);
        findings.push_back({.severity = Severity::degraded, .subject = "manifests", .reason = "ManifestObjectsDeleted",
                            .what = fmt::format("{}{} of {} {} deleted by somebody, and the files still have {}", name, gone > 1 ? fmt::format(" and {} more", gone - 1) : "", first->file, gone > 1 ? "were" : "was", gone > 1 ? "them" : "it"),
                            .cure = fmt::format("have the files applied again with: {}; or take {} out of {}", reread_, gone > 1 ? "them" : "it", typed_path(first->file))});
    }
    board_.put("manifests that were applied", std::move(findings), monotonic_ms(), wall_ms());
}

std::string RunHealth::never_in_force() const {
    const std::lock_guard lock(guard_);
    return waiting_.empty() ? std::string() : waiting_.begin()->second;
}

void RunHealth::certificates(const std::vector<api::OwnCertificate>& facts) {
    std::vector<control::Finding> findings;
    for (const auto& one : facts) {
        if (one.name == "service-account-key") continue;   // see token_keys()
        const auto what = fmt::format("certificate {} of the resource API (pki/{})", one.name, one.where);
        if (one.name == "ca" || one.name == "server" || one.name == "admin")
            for (auto& finding : control::findings_of_certificate(what, one.not_after_ms, wall_ms(), "see what keeps it from being renewed with: " + own_command("pki list"))) findings.push_back(std::move(finding));
        if (!one.fault.empty())
            findings.push_back({.severity = Severity::degraded, .subject = "resource API", .reason = "CertificateFault", .what = fmt::format("{}: {}", what, one.fault), .cure = fmt::format("see each of them with: {}; they are looked at again with: {}", own_command("pki list"), reread_)});
    }
    board_.put("resource API", std::move(findings), monotonic_ms(), wall_ms());
}

void RunHealth::token_keys(const std::string& fault) {
    const std::lock_guard lock(guard_);
    token_keys_fault_ = fault.empty() ? "" : fmt::format("the keys of service-account tokens cannot be read: {}; those read before go on until the next start", fault);
}

control::ProcessFacts RunHealth::facts() const {
    control::ProcessFacts out;
    const auto descriptors = io::descriptors();
    out.pid = getpid();
    out.descriptors = descriptors.open;
    out.descriptors_max = descriptors.limit;
    out.registry_fault = registry_.fault();
    const std::lock_guard lock(guard_);
    out.token_keys_fault = token_keys_fault_;
    return out;
}

std::string announcement(const control::HealthBoard& board, const std::string& note,
                         const std::string& kubeconfig, const std::string& usual_kubeconfig,
                         const std::function<void(int ms)>& pause, const std::atomic<bool>& stopping) {
    std::string missing;
    for (const auto end = monotonic_ms() + announce_ms; !stopping; pause(look_ms)) {
        missing = control::not_ready_text(board.all(monotonic_ms()));
        if (missing.empty() || monotonic_ms() > end) break;
    }
    if (stopping) return {};
    std::string out = missing.empty() ? fmt::format("Penstock {} is running; Ctrl-C stops it.\n", version) : fmt::format("Penstock {} has started, and is not ready; Ctrl-C stops it.\n", version);
    for (std::size_t at = 0; at < missing.size();) {
        const auto end = std::min(missing.find('\n', at), missing.size());
        out += "  ! " + missing.substr(at, end - at) + "\n";
        at = end + 1;
    }
    if (!note.empty()) out += "  from before " + note + "\n";
    // What is printed is typed into another terminal, which knows nothing of this one's --data-dir.
    std::error_code error;
    const auto file = std::filesystem::absolute(kubeconfig, error).lexically_normal().string();
    const auto where = file == std::filesystem::absolute(usual_kubeconfig, error).lexically_normal()
                           ? std::string()
                           : " --kubeconfig " + shell_quoted(file);
    return out +
           fmt::format(
               "  resources   penstock get broker,brokerlistener -A{}\n  kubectl     export KUBECONFIG={}\n",
               where, shell_quoted(file));
}

}  // namespace penstock::app
