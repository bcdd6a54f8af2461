#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "auth/methods.h"
#include "base/text.h"
#include "crypto/signature.h"

namespace penstock::auth {

using Json = nlohmann::json;

namespace {

constexpr std::size_t token_bytes_max = 16 * 1024;
constexpr std::int64_t skew_s = 10;

const Json& member(const Json& object, const char* name) {
    static const Json none;
    if (!object.is_object()) return none;
    const auto found = object.find(name);
    return found == object.end() ? none : *found;
}
std::string text(const Json& object, const char* name) {
    const auto& value = member(object, name);
    return value.is_string() ? value.get<std::string>() : std::string();
}

/// A time claim in whole seconds: nothing when absent, and `bad` when it is no plausible number.
std::optional<std::int64_t> time_claim(const Json& claims, const char* name, bool& bad) {
    const auto& value = member(claims, name);
    if (value.is_null()) return std::nullopt;
    if (!value.is_number()) return bad = true, std::nullopt;
    const auto seconds = value.get<double>();
    if (!(seconds >= 0 && seconds < 1e11)) return bad = true, std::nullopt;
    return static_cast<std::int64_t>(seconds);
}

}  // namespace

Result<Principal> TokenMethod::verify(std::string_view token, std::int64_t now_ms) const {
    const auto parts = split(token, '.');
    if (token.size() > token_bytes_max || parts.size() != 3) return fail("the authentication data is no token (three parts, dots between)");
    const auto header_text = crypto::base64url_decode(parts[0]), claims_text = crypto::base64url_decode(parts[1]), signature = crypto::base64url_decode(parts[2]);
    if (!header_text || !claims_text || !signature) return fail("the token is not in base64url");
    const auto header = Json::parse(*header_text, nullptr, false);
    if (!header.is_object()) return fail("the token's header is no JSON object");
    const auto key = facts_->keys.find(text(header, "kid"));
    if (key == facts_->keys.end()) return fail("the token is signed with a key that its issuer does not publish");
    if (text(header, "alg") != key->second.algorithm()) return fail(fmt::format("the token's algorithm is not that of its key ({})", key->second.algorithm()));
    if (header.contains("crit")) return fail("the token has critical headers that are not understood");
    if (!key->second.verify(token.substr(0, parts[0].size() + 1 + parts[1].size()), *signature)) return fail("the token's signature is wrong");
    const auto claims = Json::parse(*claims_text, nullptr, false);   // not before: nothing of a stranger's is read
    if (!claims.is_object()) return fail("the token's claims are no JSON object");
    if (std::ranges::find(facts_->issuers, text(claims, "iss")) == facts_->issuers.end()) return fail("the token is from another issuer");
    bool bad = false;
    const auto now = now_ms / 1000;
    const auto end = time_claim(claims, "exp", bad), begin = time_claim(claims, "nbf", bad), made = time_claim(claims, "iat", bad);
    if (bad) return fail("a time of the token is no number");
    if (end && now >= *end) return fail(fmt::format("the service account token has expired {} s ago", now - *end));
    if (begin && *begin > now + skew_s) return fail("the token is not valid yet; compare the clocks");
    if (made && *made > now + skew_s) return fail("the token is from the future; compare the clocks");
    const auto& audience = member(claims, "aud");
    const bool heard = std::ranges::any_of(audiences_, [&](const auto& ours) { return !ours.empty() && (audience == Json(ours) || (audience.is_array() && std::ranges::find(audience, Json(ours)) != audience.end())); });
    if (!heard) return fail(fmt::format("the token is for another audience; this port takes {}", fmt::join(audiences_, ", ")));
    const auto& kubernetes = member(claims, "kubernetes.io");
    const auto space = text(kubernetes, "namespace"), name = text(member(kubernetes, "serviceaccount"), "name"), uid = text(member(kubernetes, "serviceaccount"), "uid");
    const auto account = facts_->accounts.find(space + "/" + name);
    if (uid.empty() || account == facts_->accounts.end() || account->second.uid != uid) return fail(fmt::format("the service account {}/{} is gone", space, name));
    std::string evidence = uid;
    for (const char* word : {"secret", "pod", "node"}) {
        const auto& bound = member(kubernetes, word);
        if (bound.is_null()) continue;
        const auto bound_uid = text(bound, "uid");
        // A kubelet may leave a node's uid out.
        if (bound_uid.empty() && std::string_view(word) == "node") continue;
        if (bound_uid.empty() || !facts_->bound_uids.contains(bound_uid)) return fail(fmt::format("the {} the token is bound to is gone", word));
        evidence += " " + bound_uid;
    }
    Principal out{.method = this->name(), .user_name = fmt::format("system:serviceaccount:{}:{}", space, name), .attributes = account->second.attributes, .expires_at = end ? *end * 1000 : 0, .evidence = std::move(evidence)};
    out.id = "sat/" + out.user_name;
    return out;
}

Step TokenMethod::check(const Credentials& credentials, const std::function<Resume()>&) {
    if (!credentials.method || !credentials.method->starts_with(wire_name)) return {};
    if (!facts_->is_known) {
        auto verdict = Verdict::refused(mqtt::ReasonCode::server_unavailable, "the keys of the token issuer are not known yet; retry");
        verdict.is_fault = true;
        return Step::of(std::move(verdict));
    }
    auto principal = verify(credentials.data, credentials.now_ms);
    if (!principal) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, principal.error().message));
    return Step::of(Verdict::accepted(std::move(*principal)));
}

std::string TokenMethod::review(Principal& principal, const std::vector<crypto::Certificate>&, std::int64_t) {
    if (!facts_->is_known) return {};
    // `system:serviceaccount:SPACE:NAME`
    const auto parts = split(principal.user_name, ':');
    if (parts.size() != 4) return "the account is not known";
    const auto account = facts_->accounts.find(fmt::format("{}/{}", parts[2], parts[3]));
    const auto uids = split(principal.evidence, ' ');
    if (account == facts_->accounts.end() || account->second.uid != uids.front()) return fmt::format("the service account {}/{} is gone", parts[2], parts[3]);
    for (std::size_t i = 1; i < uids.size(); ++i)
        if (!facts_->bound_uids.contains(std::string(uids[i]))) return "what the token is bound to is gone";
    principal.attributes = account->second.attributes;
    return {};
}

}  // namespace penstock::auth
