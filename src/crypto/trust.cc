#include "crypto/trust.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "crypto/native.h"

namespace penstock::crypto {
namespace {

constexpr int verify_level = 2;          // 112 bits: RSA 2048, SHA-224
constexpr std::size_t path_max = 10, sent_max = 64;
// What one search may cost: a peer chooses the certificates it sends.
constexpr int signatures_max = 64, paths_max = 16, steps_max = 1000;

std::string name_of_error(int code, const Certificate& at, std::int64_t now_ms) {
    const auto who = at ? fmt::format("certificate \"{}\"", at.subject()) : std::string("the certificate");
    switch (code) {
        case X509_V_ERR_CERT_HAS_EXPIRED: return fmt::format("{} has expired at {}", who, rfc3339(at.not_after_ms()));
        case X509_V_ERR_CERT_NOT_YET_VALID: return fmt::format("{} is not valid before {} (it is {} here)", who, rfc3339(at.not_before_ms()), rfc3339(now_ms));
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
            return fmt::format("{} is issued by \"{}\", which is neither trusted here nor among the certificates sent", who, at.issuer());
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return fmt::format("{} is self-signed and not among the trusted ones", who);
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: return fmt::format("the chain ends in \"{}\", which is not trusted here", at.subject());
        case X509_V_ERR_CERT_REVOKED: return fmt::format("{} is revoked (serial {})", who, at.serial());
        case X509_V_ERR_INVALID_CA:
        case X509_V_ERR_INVALID_NON_CA: return fmt::format("{} signs others without being a CA (basicConstraints CA:TRUE is missing)", who);
        case X509_V_ERR_KEYUSAGE_NO_CERTSIGN: return fmt::format("{} signs others without the key usage keyCertSign", who);
        case X509_V_ERR_INVALID_PURPOSE: return fmt::format("{} is not made for this purpose (extended key usage)", who);
        case X509_V_ERR_EE_KEY_TOO_SMALL:
        case X509_V_ERR_CA_KEY_TOO_SMALL: return fmt::format("{} has a weak key ({}; 112 bits of security are the least)", who, at ? at.key_text() : "");
        case X509_V_ERR_CA_MD_TOO_WEAK: return fmt::format("{} has a weak signature ({})", who, at ? at.signature_algorithm() : "");
        case X509_V_ERR_CERT_SIGNATURE_FAILURE: return fmt::format("{} has a wrong signature", who);
        case X509_V_ERR_PATH_LENGTH_EXCEEDED: return fmt::format("{}: more CAs below it than its path length allows", who);
        default: return fmt::format("{}: {}", who, X509_verify_cert_error_string(code));
    }
}


bool have_one_name_and_key(const Certificate& a, const Certificate& b) {
    auto *one = X509_get0_pubkey(a.native()), *two = X509_get0_pubkey(b.native());
    return X509_NAME_cmp(X509_get_subject_name(a.native()), X509_get_subject_name(b.native())) == 0 && one != nullptr && two != nullptr && EVP_PKEY_eq(one, two) == 1;
}

bool is_same(const Certificate& a, const Certificate& b) { return X509_cmp(a.native(), b.native()) == 0; }

bool is_own_issuer(const Certificate& c) { return X509_self_signed(c.native(), 0) == 1; }

/// True when names and key identifiers fit; whether the key does is for the signature to say. A certificate that may not sign
/// others is a candidate too: that is then what is wrong with the path.
bool may_have_issued(const Certificate& issuer, const Certificate& certificate) {
    const int why = X509_check_issued(issuer.native(), certificate.native());
    return why == X509_V_OK || why == X509_V_ERR_KEYUSAGE_NO_CERTSIGN;
}

/// Each certificate once, without those whose key costs a peer nothing and a signature check much.
std::vector<Certificate> worth_looking_at(const std::vector<Certificate>& chain) {
    std::vector<Certificate> out;
    for (std::size_t i = 1; i < chain.size() && out.size() < sent_max; ++i) {
        const auto& one = chain[i];
        if (!one.has_costly_key() && !is_same(one, chain.front()) && std::ranges::none_of(out, [&](const auto& other) { return is_same(one, other); })) out.push_back(one);
    }
    return out;
}

/// Walks all paths from a certificate up to a trusted one, depth first, those with certificates in force first.
class PathSearch {
  public:
    using Visit = std::function<bool(const std::vector<Certificate>& path)>;
    PathSearch(const std::vector<Certificate>& trusted, const std::vector<Certificate>& sent, std::int64_t at_ms) : trusted_(trusted), sent_(sent), at_ms_(at_ms) {}
    /// Calls `visit` with each path until it answers true.
    void run(const Certificate& leaf, const Visit& visit) {
        std::vector<Certificate> path{leaf};
        walk(path, visit);
    }
    /// There was more than may be looked at.
    [[nodiscard]] bool is_cut() const noexcept { return is_cut_; }

  private:
    bool walk(std::vector<Certificate>& path, const Visit& visit) {
        const auto last = path.back();
        if (std::ranges::any_of(trusted_, [&](const auto& one) { return is_same(one, last); }) && visit(path)) return true;
        if (is_own_issuer(last)) return false;
        if (path.size() > path_max) {
            is_cut_ = true;
            return false;
        }
        for (const auto* issuer : issuers_of(last, path)) {
            if (++steps_ > steps_max) is_cut_ = true;
            if (is_cut_) return false;
            if (!is_signed(last, *issuer)) continue;
            path.push_back(*issuer);
            const bool done = walk(path, visit);
            path.pop_back();
            if (done) return true;
        }
        return false;
    }
    std::vector<const Certificate*> issuers_of(const Certificate& certificate, const std::vector<Certificate>& path) const {
        std::vector<const Certificate*> out;
        for (const auto* pool : {&trusted_, &sent_})
            for (const auto& one : *pool) {
                // The same name with the same key twice in a path is a loop (RFC 4158, 5.2).
                const bool is_loop = std::ranges::any_of(path, [&](const auto& below) { return have_one_name_and_key(below, one); });
                const bool is_known = std::ranges::any_of(out, [&](const auto* other) { return is_same(*other, one); });
                if (may_have_issued(one, certificate) && !is_loop && !is_known) out.push_back(&one);
            }
        std::ranges::stable_partition(out, [&](const auto* one) { return one->not_before_ms() <= at_ms_ && at_ms_ < one->not_after_ms(); });
        return out;
    }
    bool is_signed(const Certificate& certificate, const Certificate& issuer) {
        const auto [known, is_new] = checked_.try_emplace({certificate.native(), issuer.native()}, false);
        if (!is_new) return known->second;
        if (++signatures_ > signatures_max) {
            is_cut_ = true;
            return false;
        }
        auto* key = X509_get0_pubkey(issuer.native());
        known->second = key != nullptr && X509_verify(certificate.native(), key) == 1;
        return known->second;
    }

    const std::vector<Certificate>& trusted_;
    const std::vector<Certificate>& sent_;
    std::int64_t at_ms_;
    std::map<std::pair<x509_st*, x509_st*>, bool> checked_;
    int signatures_ = 0, steps_ = 0;
    bool is_cut_ = false;
};

}  // namespace

struct TrustStore::Native {
    STACK_OF(X509)* trusted = sk_X509_new_null();
    X509_STORE* store = X509_STORE_new();
    Native() = default;
    Native(const Native&) = delete;
    Native& operator=(const Native&) = delete;
    ~Native() {
        sk_X509_free(trusted);           // the certificates belong to the vector beside
        X509_STORE_free(store);
    }
};

/// One validation by OpenSSL, with what it says.
struct TrustStore::Attempt {
    Outcome outcome;
    bool is_leaf_alone = false;          ///< the leaf itself is the fault: no other path can be better
    bool is_whole = false;               ///< the path reached a trusted certificate
};

TrustStore::TrustStore(std::vector<Certificate> trusted, std::vector<RevocationList> lists) : trusted_(std::move(trusted)), lists_(std::move(lists), trusted_) {
    auto native = std::make_shared<Native>();
    for (const auto& certificate : trusted_) sk_X509_push(native->trusted, certificate.native());
    native_ = std::move(native);
}

TrustStore::Attempt TrustStore::attempt(const Certificate& leaf, const std::vector<Certificate>& between, const Certificate* anchor, Purpose purpose, std::int64_t at_ms) const {
    struct Stack {
        STACK_OF(X509)* native = sk_X509_new_null();
        Stack() = default;
        Stack(const Stack&) = delete;
        Stack& operator=(const Stack&) = delete;
        ~Stack() { sk_X509_free(native); }
    } helping, trusted;
    for (const auto& one : between) sk_X509_push(helping.native, one.native());
    if (anchor != nullptr) sk_X509_push(trusted.native, anchor->native());
    const std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
    X509_STORE_CTX_init(context.get(), native_->store, leaf.native(), helping.native);
    X509_STORE_CTX_set0_trusted_stack(context.get(), anchor != nullptr ? trusted.native : native_->trusted);
    auto* rules = X509_STORE_CTX_get0_param(context.get());
    X509_VERIFY_PARAM_set_time(rules, static_cast<time_t>(at_ms / 1000));
    X509_VERIFY_PARAM_set_auth_level(rules, verify_level);
    X509_VERIFY_PARAM_set_depth(rules, path_max);
    if (purpose != Purpose::any) X509_VERIFY_PARAM_set_purpose(rules, purpose == Purpose::client ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER);
    X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_USE_CHECK_TIME | X509_V_FLAG_TRUSTED_FIRST);
    Attempt out;
    const int good = X509_verify_cert(context.get());
    const auto* path = X509_STORE_CTX_get0_chain(context.get());
    for (int i = 0; path != nullptr && i < sk_X509_num(path); ++i) out.outcome.path.push_back(Certificate::share(sk_X509_value(path, i)));
    const int code = X509_STORE_CTX_get_error(context.get());
    if (good != 1) {
        auto* current = X509_STORE_CTX_get_current_cert(context.get());
        out.outcome.fault = name_of_error(code, current != nullptr ? Certificate::share(current) : leaf, at_ms);
        switch (code) {
            case X509_V_ERR_CERT_HAS_EXPIRED:
            case X509_V_ERR_CERT_NOT_YET_VALID:
            case X509_V_ERR_INVALID_PURPOSE:
            case X509_V_ERR_EE_KEY_TOO_SMALL:
            case X509_V_ERR_CA_MD_TOO_WEAK:
            case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION: out.is_leaf_alone = X509_STORE_CTX_get_error_depth(context.get()) == 0; break;
            default: break;
        }
    }
    // A signature of another key makes no path; names alone led there.
    out.is_whole = code != X509_V_ERR_CERT_SIGNATURE_FAILURE && !out.outcome.path.empty() && std::ranges::any_of(trusted_, [&](const auto& one) { return is_same(one, out.outcome.path.back()); });
    ERR_clear_error();
    return out;
}

std::string TrustStore::revocation_fault(const std::vector<Certificate>& path) const {
    if (lists_.all().empty()) return {};
    for (std::size_t i = 0; i + 1 < path.size(); ++i)
        if (auto why = lists_.fault_of(path[i], path[i + 1]); !why.empty()) return why;
    // A trusted intermediate may be on its own issuer's list.
    const auto& anchor = path.back();
    if (is_own_issuer(anchor) || !lists_.has_list_about(anchor)) return {};
    int signatures = 0;
    for (const auto& one : trusted_)
        if (!is_same(one, anchor) && may_have_issued(one, anchor) && ++signatures <= signatures_max && anchor.is_signed_by(one))
            if (auto why = lists_.fault_of(anchor, one); !why.empty()) return why;
    return {};
}

std::string TrustStore::fault_of(const std::vector<Certificate>& path, const Objection& objection) const {
    auto why = revocation_fault(path);
    return why.empty() && objection ? objection(path) : why;
}

std::vector<Certificate> TrustStore::with_issuer_of_anchor(std::vector<Certificate> path, std::int64_t at_ms) const {
    if (path.empty() || is_own_issuer(path.back())) return path;
    const auto anchor = path.back();
    const auto rank = [at_ms](const Certificate& one) {
        const bool is_in_force = one.not_before_ms() <= at_ms && at_ms < one.not_after_ms();
        return std::tuple(is_in_force, one.is_ca() && (X509_get_key_usage(one.native()) & KU_KEY_CERT_SIGN) != 0, one.not_after_ms());
    };
    std::vector<const Certificate*> candidates;
    for (const auto& one : trusted_)
        if (!is_same(one, anchor) && may_have_issued(one, anchor)) candidates.push_back(&one);
    std::ranges::stable_sort(candidates, [&](const auto* a, const auto* b) { return rank(*a) > rank(*b); });
    if (candidates.size() > signatures_max) candidates.resize(signatures_max);
    const auto best = std::ranges::find_if(candidates, [&](const auto* one) { return anchor.is_signed_by(*one); });
    if (best != candidates.end()) path.push_back(**best);
    return path;
}

TrustStore::Outcome TrustStore::verify(const std::vector<Certificate>& chain, Purpose purpose, std::int64_t at_ms, const Objection& objection) const {
    if (chain.empty()) return {.fault = "there is no certificate", .path = {}};
    const auto& leaf = chain.front();
    const auto sent = worth_looking_at(chain);
    auto first = attempt(leaf, sent, nullptr, purpose, at_ms);
    if (first.outcome.ok()) first.outcome.fault = fault_of(first.outcome.path, objection);
    if (first.outcome.ok() || first.is_leaf_alone) return first.outcome;

    // OpenSSL follows one path alone, and does not turn back.
    std::optional<Outcome> good;
    int tried = first.is_whole ? 1 : 0;
    const int most = paths_max + tried;
    PathSearch search(trusted_, sent, at_ms);
    search.run(leaf, [&](const std::vector<Certificate>& path) {
        if (std::ranges::equal(path, first.outcome.path, is_same)) return false;
        if (tried == most) return true;
        ++tried;
        auto next = attempt(leaf, {path.begin() + 1, path.end() - (path.size() > 1 ? 1 : 0)}, &path.back(), purpose, at_ms);
        if (next.outcome.ok()) next.outcome.fault = fault_of(next.outcome.path, objection);
        if (next.outcome.ok()) good = next.outcome;
        else if (!first.is_whole && next.is_whole) first = std::move(next);   // says more than that the way ends
        return good.has_value();
    });
    if (good) return *good;
    if (search.is_cut() || tried == most) first.outcome.fault += "; there are more paths to a trusted certificate than are tried: send fewer certificates";
    else if (tried > 1) first.outcome.fault += fmt::format("; none of the {} paths to a trusted certificate is good", tried);
    return first.outcome;
}

}  // namespace penstock::crypto
