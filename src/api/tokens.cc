#include "api/tokens.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "resources/text_rules.h"
#include "crypto/hash.h"
#include "crypto/signature.h"

namespace penstock::api {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {
constexpr std::int64_t skew_s = 10;
constexpr std::size_t verified_max = 10'000, verified_bytes_max = 2 << 20;   // tokens whose signature is known to be right, and bytes of them
constexpr std::size_t token_bytes_max = 16 * 1024;
}  // namespace

Tokens::Tokens(registry::Registry& registry, std::string issuer, std::vector<std::string> keys) : registry_(registry), issuer_(std::move(issuer)) { set_keys(std::move(keys)); }

void Tokens::set_keys(std::vector<std::string> keys) {
    auto fresh = std::make_shared<std::vector<Key>>();
    for (auto& pem : keys) {
        const auto point = crypto::public_point(pem);
        if (!point) log::error("api", "a service-account key cannot be used and is left out: {}", point.error().message);
        else fresh->push_back({.pem = std::move(pem), .id = point->id, .x = point->x, .y = point->y});
    }
    const std::lock_guard lock(guard_);
    keys_ = std::move(fresh);
}

Result<Tokens::Issued> Tokens::issue(const Json& account, std::vector<std::string> audiences, std::int64_t seconds, const Json& bound) const {
    const auto signing_keys = keys();
    if (signing_keys->empty()) return fail("there is no key to sign tokens with");
    const auto space = text_at(account, "metadata.namespace"), name = text_at(account, "metadata.name");
    const auto now = wall_ms() / 1000;
    if (audiences.empty()) audiences = own_audiences();
    Json kubernetes = {{"namespace", space}, {"serviceaccount", {{"name", name}, {"uid", text_at(account, "metadata.uid")}}}};
    if (const auto kind = to_lower(text_at(bound, "kind")); !kind.empty()) kubernetes[kind] = {{"name", text_at(bound, "name")}, {"uid", text_at(bound, "uid")}};
    Json claims = {{"iss", issuer_}, {"sub", fmt::format("system:serviceaccount:{}:{}", space, name)}, {"aud", audiences}, {"iat", now}, {"nbf", now}, {"jti", random_uuid()}, {"kubernetes.io", kubernetes}};
    Issued out;
    if (seconds > 0) {
        claims["exp"] = now + seconds;
        out.expires_ms = (now + seconds) * 1000;
    }
    const Json header = {{"alg", "ES256"}, {"typ", "JWT"}, {"kid", signing_keys->front().id}};
    const auto signing = crypto::base64url_encode(header.dump()) + "." + crypto::base64url_encode(claims.dump());
    const auto signature = crypto::sign_es256(signing_keys->front().pem, signing);
    if (!signature) return std::unexpected(signature.error());
    out.token = signing + "." + crypto::base64url_encode(*signature);
    return out;
}

Result<Json> Tokens::claims_of(const std::string& token) const {
    const auto parts = split(token, '.');
    if (token.size() > token_bytes_max || parts.size() != 3) return fail("not a token of this server");
    const auto header_text = crypto::base64url_decode(parts[0]), claims_text = crypto::base64url_decode(parts[1]), signature = crypto::base64url_decode(parts[2]);
    if (!header_text || !claims_text || !signature) return fail("not a token of this server");
    const auto header = resources::parse_json(*header_text), claims = resources::parse_json(*claims_text);
    if (!header || !claims || !claims->is_object()) return fail("not a token of this server");
    const auto known = keys();
    const auto key = std::ranges::find(*known, text_at(*header, "kid"), &Key::id);
    if (text_at(*header, "alg") != "ES256" || key == known->end()) return fail("signed with a key this server does not have");
    if (!crypto::verify_es256(key->pem, std::string_view(token).substr(0, parts[0].size() + 1 + parts[1].size()), *signature)) return fail("the signature is wrong");
    if (text_at(*claims, "iss") != issuer_) return fail("issued by somebody else");
    return *claims;
}

Result<Tokens::Checked> Tokens::check(const std::string& token, const std::vector<std::string>& wanted) const {
    // Checking a signature costs more than the rest of a request; the rest of a token is looked at each time.
    // A key that is withdrawn takes what it signed along.
    if (auto now_known = keys(); now_known != verified_by_) {
        verified_.clear();
        verified_bytes_ = 0;
        verified_by_ = std::move(now_known);
    }
    const auto hash = crypto::sha256(token);
    auto known = verified_.find(hash);
    if (known == verified_.end()) {
        auto verified = claims_of(token);
        if (!verified) return std::unexpected(verified.error());
        if (verified_.size() >= verified_max || verified_bytes_ > verified_bytes_max) verified_.clear(), verified_bytes_ = 0;
        verified_bytes_ += token.size();
        known = verified_.emplace(hash, std::move(*verified)).first;
    }
    const auto* claims = &known->second;
    const auto now = wall_ms() / 1000;
    auto time = [&](const char* claim) { return claims->contains(claim) && (*claims)[claim].is_number() ? (*claims)[claim].get<std::int64_t>() : std::int64_t{0}; };
    if (const auto end = time("exp"); end != 0 && now > end + skew_s) return fail("the token has expired");
    if (const auto begin = time("nbf"); begin > now + skew_s) return fail("the token is not valid yet");
    Checked out;
    const auto& audiences = at_path(*claims, "aud");
    for (const auto& audience : wanted)
        if ((audiences.is_array() && std::ranges::find(audiences, Json(audience)) != audiences.end()) || audiences == Json(audience)) out.audiences.push_back(audience);
    if (out.audiences.empty()) return fail(fmt::format("token audiences {} are invalid for the target audiences {}", resources::brief(audiences), resources::brief(Json(wanted))));

    // The claim's name has a dot; at_path cannot walk it.
    const auto found = claims->find("kubernetes.io");
    const auto& kubernetes = found == claims->end() ? Json() : *found;
    const auto space = text_at(kubernetes, "namespace"), name = text_at(kubernetes, "serviceaccount.name"), uid = text_at(kubernetes, "serviceaccount.uid");
    const auto account = registry_.get(*resources::find_kind("v1", "ServiceAccount"), space, name);
    if (!account || text_at(**account, "metadata.uid") != uid) return fail(fmt::format("the service account {}/{} is gone", space, name));
    for (const auto& [kind, word] : {std::pair{"Secret", "secret"}, std::pair{"Pod", "pod"}, std::pair{"Node", "node"}}) {
        if (!kubernetes.contains(word)) continue;
        const auto object = registry_.get(*resources::find_kind("v1", kind), std::string_view(kind) == "Node" ? "" : space, text_at(kubernetes[word], "name"));
        const auto bound_uid = text_at(kubernetes[word], "uid");
        if (!object || (!bound_uid.empty() && text_at(**object, "metadata.uid") != bound_uid)) return fail(fmt::format("the {} the token is bound to is gone", word));
    }
    out.user = {.name = fmt::format("system:serviceaccount:{}:{}", space, name), .uid = uid, .groups = {"system:serviceaccounts", "system:serviceaccounts:" + space, "system:authenticated"},
                .extra = {{"authentication.kubernetes.io/credential-id", {"JTI=" + text_at(*claims, "jti")}}}};
    return out;
}

std::vector<std::string> Tokens::own_audiences() const { return {issuer_, "https://kubernetes.default.svc", "k3s"}; }

Json Tokens::discovery() const {
    return {{"issuer", issuer_}, {"jwks_uri", issuer_ + "/openid/v1/jwks"}, {"response_types_supported", {"id_token"}}, {"subject_types_supported", {"public"}}, {"id_token_signing_alg_values_supported", {"ES256"}}};
}

Json Tokens::key_set() const {
    Json list = Json::array();
    for (const auto& key : *keys()) list.push_back({{"use", "sig"}, {"kty", "EC"}, {"kid", key.id}, {"alg", "ES256"}, {"crv", "P-256"}, {"x", key.x}, {"y", key.y}});
    return {{"keys", list}};
}

}  // namespace penstock::api
