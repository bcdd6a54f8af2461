#include "control/ways_in.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/own_command.h"
#include "base/shell.h"

namespace penstock::control {

namespace {

constexpr std::int64_t day_ms = 86'400'000;
constexpr int soon_days = 30;

/// `kind ns/name` as commands take it: `-n ns name`.
std::string in_commands(const std::string& source) {
    const auto space = source.find(' '), slash = source.find('/', space == std::string::npos ? 0 : space);
    if (space == std::string::npos || slash == std::string::npos) return source;
    return fmt::format("-n {} {}", source.substr(space + 1, slash - space - 1), source.substr(slash + 1));
}

/// Why nobody gets in this way; empty: somebody may.
std::string shut(const WayIn& way, std::int64_t now_ms) {
    // What it is made of is not there, which is told by itself.
    if (way.source.empty()) return {};
    if (way.method == "X509") {
        if (way.trusted.empty() || !std::ranges::all_of(way.trusted, [&](const auto& certificate) { return certificate.not_after_ms() <= now_ms; })) return {};
        const auto& last = *std::ranges::max_element(way.trusted, {}, [](const auto& certificate) { return certificate.not_after_ms(); });
        return fmt::format("each trusted certificate of {} has expired (the last, \"{}\", at {}); put the CA that signs clients now into it, with: {}", way.source, last.subject(), rfc3339(last.not_after_ms()), way.put.at(static_cast<std::size_t>(&last - way.trusted.data())));
    }
    if (way.method == "Password" && way.users == 0) {
        return fmt::format("{} has no user who can log in; add one, here USER, with: {}", way.source,
                           way.put.empty() ? own_command(fmt::format("passwd {} USER", in_commands(way.source))) : way.put.front());
    }
    if (way.method == "ServiceAccountToken" && !way.keys_are_known)
        return fmt::format("the keys that sign service-account tokens are not known: they could not be read from {}; see what it answers with: kubectl get --raw /openid/v1/jwks", way.source);
    if (way.method == "Custom" && way.server != nullptr) {
        way.server->look();
        if (const auto why = way.server->fault(); !why.empty())
            return fmt::format("the authentication server {} does not answer: {}; {}; start it (try: curl -v {}), or name another in {}.customSettings.endpoint", way.source, why,
                               way.is_closed ? "clients are refused with 0x88 until it does" : "the next method, if there is one, decides until it does", shell_quoted(way.source), way.field);
    }
    return {};
}

/// Certificates that end soon, as long as not all of them have.
void add_ends(const WayIn& way, std::int64_t now_ms, std::vector<std::string>& warnings) {
    for (std::size_t i = 0; i < way.trusted.size(); ++i) {
        const auto& certificate = way.trusted[i];
        const auto left = certificate.not_after_ms() - now_ms;
        if (left <= 0) warnings.push_back(fmt::format("the trusted certificate \"{}\" of {} has expired at {}; clients whose chain ends there are refused; put its successor in its place, with: {}", certificate.subject(), way.source, rfc3339(certificate.not_after_ms()), way.put.at(i)));
        else if (left < soon_days * day_ms) warnings.push_back(fmt::format("the trusted certificate \"{}\" of {} ends in {} days ({}); put its successor beside it, with: {}", certificate.subject(), way.source, left / day_ms, rfc3339(certificate.not_after_ms()), way.put.at(i)));
    }
}

}  // namespace

WaysIn look_at(const std::vector<WayIn>& ways, std::int64_t now_ms) {
    WaysIn out;
    std::vector<std::string> closed;
    bool is_final = false;               // a server that refuses while it is away leaves nobody to the methods behind it
    for (const auto& way : ways) {
        const auto why = shut(way, now_ms);
        if (why.empty()) {
            add_ends(way, now_ms, out.warnings);
            continue;
        }
        closed.push_back(fmt::format("{}: {}", way.method, why));
        is_final |= way.method == "Custom" && way.is_closed;
    }
    if (closed.empty()) return out;
    if (closed.size() == ways.size() || (is_final && ways.front().method == "Custom")) out.nobody = fmt::format("no client can prove who it is: {}", fmt::join(closed, "; "));
    else out.warnings.insert(out.warnings.end(), closed.begin(), closed.end());
    return out;
}

}  // namespace penstock::control
