#include <algorithm>

#include <fmt/format.h>

#include "auth/methods.h"
#include "base/clock.h"
#include "base/random.h"

namespace penstock::auth {

Principal X509Method::Rules::principal_of(const std::vector<crypto::Certificate>& path) const {
    Principal out{.method = method_name, .user_name = path.front().common_name(), .id = "x509/" + path.front().subject(), .expires_at = path.front().not_after_ms(), .evidence = path.front().fingerprint()};
    // From the leaf up, the first subject that is listed counts; levels are not merged.
    for (const auto& certificate : path)
        for (const auto& entry : entries)
            if (crypto::same_subject(entry.subject, certificate)) {
                out.attributes = entry.attributes;
                return out;
            }
    return out;
}

namespace {

constexpr std::int64_t review_min_ms = 600'000, answer_comes_ms = 10'000;

/// When a client that is connected is looked at again. Not all at once, as they may have come all at once.
std::int64_t next_review(std::int64_t until_ms, std::int64_t now_ms) {
    if (until_ms == 0) return 0;
    const auto wait = std::max(until_ms - now_ms, review_min_ms);
    return now_ms + wait + static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(wait / 8));
}

}  // namespace

/// The way to a path that nobody objects to: those that somebody did object to are known, and each question leads on from there.
struct X509Method::Search {
    std::shared_ptr<const Rules> rules;
    std::vector<crypto::Certificate> chain;
    std::int64_t now_ms = 0;
    std::vector<std::pair<std::vector<std::string>, std::string>> refused;   ///< fingerprints of a path, and why
    Resume resume{};                     ///< once a question was asked

    static std::vector<std::string> prints_of(const std::vector<crypto::Certificate>& path) {
        std::vector<std::string> out;
        for (const auto& one : path) out.push_back(one.fingerprint());
        return out;
    }
};

/// Nothing: a responder was asked, and its answer goes on.
std::optional<Verdict> X509Method::go_on(const std::shared_ptr<Search>& search, const std::function<Resume()>& later) {
    const auto& rules = *search->rules;
    while (true) {
        const auto outcome = rules.trust->verify(search->chain, crypto::Purpose::client, search->now_ms, [&](const auto& path) {
            const auto known = std::ranges::find(search->refused, Search::prints_of(path), &decltype(search->refused)::value_type::first);
            return known == search->refused.end() ? std::string() : known->second;
        });
        if (!outcome.ok()) return Verdict::refused(mqtt::ReasonCode::not_authorized, fmt::format("{} (trusted: {})", outcome.fault, rules.trust_name));
        if (rules.revocation == nullptr) return Verdict::accepted(rules.principal_of(outcome.path));
        const auto judge = [search, path = outcome.path](const Revocation::Known& known) -> std::optional<Verdict> {
            if (!known.fault.empty()) {
                search->refused.emplace_back(Search::prints_of(path), known.fault);
                return std::nullopt;
            }
            auto principal = search->rules->principal_of(path);
            principal.review_at = next_review(known.until_ms, wall_ms());
            return Verdict::accepted(std::move(principal));
        };
        const auto known = rules.revocation->look(rules.trust->with_issuer_of_anchor(outcome.path, search->now_ms), [&]() -> Revocation::Done {
            if (!search->resume) search->resume = later();
            return [search, judge](const Revocation::Known& now) {
                auto verdict = judge(now);
                if (!verdict) verdict = go_on(search, {});
                if (verdict) search->resume(Step::of(std::move(*verdict)));
            };
        });
        if (!known) return std::nullopt;
        if (auto verdict = judge(*known)) return verdict;
    }
}

Step X509Method::check(const Credentials& credentials, const std::function<Resume()>& later) {
    if (credentials.chain.empty()) return {};
    if (credentials.is_again) return Step::of(Verdict::refused(mqtt::ReasonCode::not_authorized, "a certificate cannot be renewed within a connection; connect anew"));
    auto verdict = go_on(std::make_shared<Search>(Search{.rules = rules_, .chain = credentials.chain, .now_ms = credentials.now_ms, .refused = {}}), later);
    return verdict ? Step::of(std::move(*verdict)) : Step{.kind = Step::Kind::wait, .verdict = {}};
}

std::string X509Method::review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) {
    std::optional<Revocation::Known> known;
    const auto outcome = rules_->trust->verify(chain, crypto::Purpose::client, now_ms, [&](const auto& path) -> std::string {
        if (rules_->revocation == nullptr) return {};
        known = rules_->revocation->look(rules_->trust->with_issuer_of_anchor(path, now_ms), [] { return [](const Revocation::Known&) {}; });
        // Who is connected stays while nobody can be asked, whatever the policy for newcomers is.
        return known && known->is_revoked ? known->fault : std::string();
    });
    if (!outcome.ok()) return outcome.fault;
    principal.attributes = rules_->principal_of(outcome.path).attributes;
    principal.review_at = 0;
    if (rules_->revocation == nullptr) return {};
    if (known) principal.review_at = next_review(known->until_ms, now_ms);
    else principal.review_at = now_ms + answer_comes_ms;
    return {};
}

}  // namespace penstock::auth
