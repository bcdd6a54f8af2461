#include "api/own_pki.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "crypto/cross_certificate.h"

namespace penstock::api {

using crypto::Certificate;
using crypto::KeyPair;
using resources::Json;

namespace {

constexpr std::int64_t day_ms = 86'400'000, skew_ms = 300'000;
/// A certificate from further in the future than this was made while the clock was wrong.
constexpr std::int64_t future_ms = day_ms;
/// A new leaf must last this much longer than the old one to be worth making.
constexpr std::int64_t gain_ms = 3'600'000;

std::vector<Certificate> certificates_of(const std::string& pem) {
    auto out = crypto::read_certificates(pem);
    return out ? std::move(*out) : std::vector<Certificate>();
}

std::string name_of_ca(const Certificate& former, std::int64_t now_ms) {
    return former ? fmt::format("{}@{}", PkiRules::ca_name, now_ms / 1000) : std::string(PkiRules::ca_name);
}

bool is_own(const Certificate& ca) {
    return ca.is_self_signed() && ca.common_name().starts_with(PkiRules::ca_name);
}

/// What a server shows behind its own certificate: the way to whoever stands above the CA, cross certificates
/// included.
std::string way_up(const KeyPair& ca, std::int64_t now_ms) {
    std::string out;
    std::size_t count = 0;
    for (const auto& one : certificates_of(ca.certificate))
        if (!one.is_self_signed() && one.not_after_ms() > now_ms && count++ < PkiRules::above_max)
            out += one.pem();
    return out;
}

/// A new CA, and behind it its key signed by the one before, if that one can still vouch for it.
Result<KeyPair> successor(const KeyPair& former, const Certificate& former_ca, std::int64_t now_ms) {
    auto key = crypto::make_key("Ec256");
    if (!key) return std::unexpected(key.error());
    const crypto::IssueOptions options{.subject = {{"CN", name_of_ca(former_ca, now_ms)}},
                                       .is_ca = true,
                                       .not_before_ms = now_ms - skew_ms,
                                       .not_after_ms = now_ms + PkiRules::ca_days * day_ms};
    auto certificate = crypto::issue_certificate(*key, nullptr, options);
    if (!certificate) return std::unexpected(certificate.error());
    if (former_ca && former_ca.not_after_ms() > now_ms && former_ca.not_before_ms() <= now_ms)
        if (const auto cross = crypto::issue_certificate(*key, &former, options))
            *certificate += *cross + way_up(former, now_ms);
    return KeyPair{.certificate = std::move(*certificate), .key = std::move(*key)};
}

Result<KeyPair> make_leaf(const KeyPair& ca, crypto::IssueOptions options, std::int64_t now_ms) {
    auto key = crypto::make_key("Ec256");
    if (!key) return std::unexpected(key.error());
    options.not_before_ms = now_ms - skew_ms;
    options.not_after_ms = now_ms + PkiRules::leaf_days * day_ms;
    auto certificate = crypto::issue_certificate(*key, &ca, options);
    if (!certificate) return std::unexpected(certificate.error());
    return KeyPair{.certificate = std::move(*certificate), .key = std::move(*key)};
}

/// The CA as it is; nothing when there is none yet. The error: what is there cannot be used.
Result<Certificate> present_ca(const KeyPair& ca) {
    if (ca.certificate.empty() && ca.key.empty()) return Certificate();
    constexpr const char* cure =
        "put a CA's certificate and its key there, or remove both files for a new CA";
    if (ca.certificate.empty() || ca.key.empty())
        return fail(fmt::format("{} is missing or empty beside {}; {}",
                                ca.key.empty() ? "api-ca.key" : "api-ca.crt",
                                ca.key.empty() ? "api-ca.crt" : "api-ca.key", cure));
    const auto chain = crypto::read_certificates(ca.certificate);
    if (!chain || chain->empty())
        return fail(fmt::format("api-ca.crt: {}; {}",
                                chain ? "there is no certificate in it" : chain.error().message, cure));
    if (!chain->front().is_ca())
        return fail(fmt::format("api-ca.crt: \"{}\" is no CA (basicConstraints CA:TRUE is missing); {}",
                                chain->front().subject(), cure));
    if (!chain->front().matches_key(ca.key))
        return fail(fmt::format("api-ca.key is not the key of \"{}\" in api-ca.crt; {}",
                                chain->front().subject(), cure));
    return chain->front();
}

/// The present CA first, then what stands above it, then those before it; each once.
std::string trusted_with(const KeyPair& ca, const std::string& before) {
    std::vector<Certificate> all;
    auto take = [&](const Certificate& one) {
        if (all.size() < PkiRules::trusted_max && std::ranges::none_of(all, [&](const auto& known) {
                return known.fingerprint() == one.fingerprint();
            }))
            all.push_back(one);
    };
    // A cross certificate is a way to a former CA and nobody's anchor.
    for (const auto& one : certificates_of(ca.certificate))
        if (all.empty() || !one.matches_key(ca.key)) take(one);
    for (const auto& one : certificates_of(before)) take(one);
    std::string out;
    for (const auto& one : all) out += one.pem();
    return out;
}

}  // namespace

bool OwnPki::operator==(const OwnPki& other) const {
    auto same = [](const KeyPair& a, const KeyPair& b) {
        return a.certificate == b.certificate && a.key == b.key;
    };
    return same(ca, other.ca) && same(server, other.server) && same(admin, other.admin) &&
           trusted == other.trusted;
}

KeyPair vouched_for(KeyPair ca, const KeyPair& former, std::int64_t now_ms) {
    const auto chain = certificates_of(ca.certificate);
    if (chain.empty() || !chain.front().matches_key(ca.key) || chain.front().matches_key(former.key))
        return ca;
    auto cross = crypto::cross_certify(chain.front(), former, now_ms);
    if (!cross) return ca;
    if (!ca.certificate.ends_with('\n')) ca.certificate += '\n';
    ca.certificate += *cross + way_up(former, now_ms);
    return ca;
}

std::int64_t renewal_ms(const Certificate& certificate, int days) {
    const auto life = certificate.not_after_ms() - certificate.not_before_ms();
    return certificate.not_after_ms() - std::min(days * day_ms, life / 3);
}

std::string ca_due(const Certificate& ca, std::int64_t now_ms) {
    if (now_ms >= ca.not_after_ms()) return fmt::format("it ended at {}", rfc3339(ca.not_after_ms()));
    if (!is_own(ca)) return {};
    if (ca.not_before_ms() > now_ms + future_ms)
        return fmt::format("it is not valid before {}: it was made while the clock was wrong",
                           rfc3339(ca.not_before_ms()));
    if (now_ms >= renewal_ms(ca, PkiRules::ca_renew_days))
        return fmt::format("it ends at {}", rfc3339(ca.not_after_ms()));
    return {};
}

std::string leaf_due(const KeyPair& leaf, const Certificate& ca, const ServerNames* names,
                     std::int64_t now_ms) {
    const auto chain = certificates_of(leaf.certificate);
    if (chain.empty() || leaf.key.empty()) return "there is none that can be read";
    const auto& own = chain.front();
    if (!own.matches_key(leaf.key)) return "its key is another one's";
    if (own.issuer() != ca.subject() || !own.is_signed_by(ca)) return "the CA is another one";
    if (now_ms >= own.not_after_ms()) return fmt::format("it ended at {}", rfc3339(own.not_after_ms()));
    if (own.not_before_ms() > now_ms + future_ms)
        return fmt::format("it is not valid before {}: it was made while the clock was wrong",
                           rfc3339(own.not_before_ms()));
    if (names != nullptr)
        for (const auto* list : {&names->dns_names, &names->addresses})
            for (const auto& name : *list)
                if (!own.covers(name)) return fmt::format("it does not cover {}", name);
    const auto could_end = std::min(now_ms + PkiRules::leaf_days * day_ms, ca.not_after_ms());
    if (now_ms >= renewal_ms(own, PkiRules::leaf_renew_days) && could_end >= own.not_after_ms() + gain_ms)
        return fmt::format("it ends at {}", rfc3339(own.not_after_ms()));
    return {};
}

Result<PkiRenewal> renew(const OwnPki& have, const ServerNames& names, std::int64_t now_ms, bool new_ca) {
    PkiRenewal out{.pki = have, .done = {}};
    auto& pki = out.pki;
    auto ca = present_ca(have.ca);
    if (!ca) return std::unexpected(ca.error());
    if (const auto before = crypto::read_certificates(have.trusted); !before)
        return fail(fmt::format(
            "api-ca-trusted.crt: {}; correct it, or remove it: then the present CA alone is trusted",
            before.error().message));
    if (const auto why = !*ca     ? std::string("there is none yet")
                         : new_ca ? std::string("it was taken away")
                                  : ca_due(*ca, now_ms);
        !why.empty()) {
        auto next = successor(have.ca, *ca, now_ms);
        if (!next) return std::unexpected(next.error());
        if (*ca) pki.trusted = trusted_with(pki.ca, pki.trusted);   // the former one goes on being trusted
        pki.ca = std::move(*next);
        ca = certificates_of(pki.ca.certificate).front();
        out.done.push_back("CA: " + why);
    }
    pki.trusted = trusted_with(pki.ca, pki.trusted);
    struct Leaf {
        const char* what;
        KeyPair* pair;
        const ServerNames* names;
        crypto::IssueOptions options;
    };
    const Leaf leaves[] = {{"server certificate",
                            &pki.server,
                            &names,
                            {.subject = {{"CN", "penstock-api"}},
                             .dns_names = names.dns_names,
                             .addresses = names.addresses,
                             .usages = {"digital signature", "server auth"}}},
                           {"administrator's certificate",
                            &pki.admin,
                            nullptr,
                            {.subject = {{"O", "system:masters"}, {"CN", "system:admin"}},
                             .usages = {"digital signature", "client auth"}}}};
    for (const auto& leaf : leaves) {
        const auto why = leaf_due(*leaf.pair, *ca, leaf.names, now_ms);
        if (why.empty()) continue;
        auto made = make_leaf(pki.ca, leaf.options, now_ms);
        if (!made) return fail(fmt::format("the {} cannot be made: {}", leaf.what, made.error().message));
        *leaf.pair = std::move(*made);
        out.done.push_back(fmt::format("{}: {}", leaf.what, why));
    }
    // The server shows the way from the former CA for as long as there is one.
    pki.server.certificate = certificates_of(pki.server.certificate).front().pem() + way_up(pki.ca, now_ms);
    return out;
}

std::vector<OwnCertificate> describe(const OwnPki& pki, std::int64_t now_ms) {
    std::vector<OwnCertificate> out;
    auto add = [&](const char* name, const char* where, const Certificate& c, std::int64_t renewal,
                   const char* used_by, const char* breaks) {
        OwnCertificate one{.name = name,
                           .where = where,
                           .subject = c.subject(),
                           .not_after_ms = c.not_after_ms(),
                           .renewal_ms = renewal,
                           .fault = {},
                           .used_by = used_by,
                           .when_it_ends = breaks};
        if (now_ms >= one.not_after_ms) one.fault = fmt::format("it ended at {}", rfc3339(one.not_after_ms));
        out.push_back(std::move(one));
    };
    const auto server = certificates_of(pki.server.certificate),
               admin = certificates_of(pki.admin.certificate), ca = certificates_of(pki.ca.certificate),
               trusted = certificates_of(pki.trusted);
    if (!server.empty())
        add("server", "api-server.crt", server.front(), renewal_ms(server.front(), PkiRules::leaf_renew_days),
            "resource API", "kubectl and penstock refuse the resource API");
    if (!admin.empty())
        add("admin", "admin.crt", admin.front(), renewal_ms(admin.front(), PkiRules::leaf_renew_days),
            "kubeconfig.yaml", "copies of the kubeconfig are refused");
    for (std::size_t i = 0; i < ca.size(); ++i) {
        if (i > 0 && !ca[i].matches_key(pki.ca.key))
            add("ca-chain", "api-ca.crt", ca[i], 0, "resource API",
                "nobody trusts the resource API, client certificates are refused");
        else if (i > 0)
            add("cross-ca", "api-ca.crt", ca[i], 0, "resource API",
                "clients that trust the former CA alone refuse the resource API");
        else
            add("ca", "api-ca.crt", ca[i], is_own(ca[i]) ? renewal_ms(ca[i], PkiRules::ca_renew_days) : 0,
                "resource API", "nobody trusts the resource API, client certificates are refused");
        if (i == 0 && !is_own(ca[i]) && out.back().fault.empty() &&
            now_ms >= renewal_ms(ca[i], PkiRules::leaf_renew_days))
            out.back().fault = fmt::format(
                "it ends at {} and is renewed by hand: put its successor into pki/api-ca.crt and "
                "pki/api-ca.key",
                rfc3339(ca[i].not_after_ms()));
    }
    for (const auto& one : trusted)
        if (std::ranges::none_of(ca, [&](const auto& c) { return c.fingerprint() == one.fingerprint(); })) {
            add("former-ca", "api-ca-trusted.crt", one, 0, "resource API",
                "client certificates of this CA are refused");
            out.back().fault.clear();   // it may end: that is why it has a successor
        }
    return out;
}

Json certificates_json(const std::vector<OwnCertificate>& certificates) {
    Json out = Json::array();
    for (const auto& one : certificates) {
        Json item = {{"name", one.name},
                     {"where", one.where},
                     {"subject", one.subject},
                     {"usedBy", one.used_by},
                     {"whenItEnds", one.when_it_ends}};
        if (one.not_after_ms != 0) item["notAfter"] = rfc3339(one.not_after_ms);
        if (one.renewal_ms != 0) item["renewal"] = rfc3339(one.renewal_ms);
        if (!one.fault.empty()) item["fault"] = one.fault;
        out.push_back(std::move(item));
    }
    return {{"certificates", std::move(out)}};
}

std::string certificates_metrics(const std::vector<OwnCertificate>& certificates) {
    std::string out;
    auto family = [&](const char* name, const char* help, auto&& value) {
        out += fmt::format("# HELP {} {}\n# TYPE {} gauge\n", name, help, name);
        // Several of a name (former CAs) have numbers; a subject is a user's text and is no label.
        std::vector<std::string> seen;
        for (const auto& one : certificates) {
            const auto number = std::ranges::count(seen, one.name);
            seen.push_back(one.name);
            if (const std::int64_t v = value(one); v >= 0)
                out += fmt::format("{}{{certificate=\"{}\",number=\"{}\"}} {}\n", name, one.name, number, v);
        }
    };
    family(
        "penstock_api_certificate_not_after_timestamp_seconds", "Unix time at which a certificate of the resource API ends.",
        [](const auto& one) { return one.not_after_ms == 0 ? std::int64_t{-1} : one.not_after_ms / 1000; });
    family("penstock_api_certificate_renewal_timestamp_seconds",
           "Unix time from which on a certificate or key of the resource API gets its successor.",
           [](const auto& one) { return one.renewal_ms == 0 ? std::int64_t{-1} : one.renewal_ms / 1000; });
    family("penstock_api_certificate_fault",
           "1 while something is wrong with a certificate or key of the resource API (penstock pki list says "
           "what), else 0.",
           [](const auto& one) { return std::int64_t{one.fault.empty() ? 0 : 1}; });
    return out;
}

std::string certificates_not_ready(const std::vector<OwnCertificate>& certificates, std::int64_t now_ms) {
    std::string out;
    for (const auto& one : certificates)
        if (one.not_after_ms != 0 && now_ms >= one.not_after_ms &&
            (one.name == "server" || one.name == "admin" || one.name == "ca"))
            out +=
                fmt::format("certificate {} of the resource API (pki/{}) ended at {}{}{}\n", one.name,
                            one.where, rfc3339(one.not_after_ms), one.fault.empty() ? "" : ": ", one.fault);
    return out;
}

}  // namespace penstock::api
