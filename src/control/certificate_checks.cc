#include "control/certificate_checks.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/text.h"
#include "control/certificates.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;
using resources::texts_of;

namespace {

constexpr std::int64_t hour_ms = 3'600'000;
constexpr std::int64_t renewal_least_ms = 300'000;

/// When the certificate is renewed, before its end; the error names the field.
Result<std::int64_t> renew_before_of(const Json& spec, std::int64_t duration_ms,
                                     const std::string& duration) {
    if (const auto before = text_at(spec, "renewBefore"); !before.empty()) {
        const auto number = parse_duration_ms(before);
        if (!number || *number < renewal_least_ms || *number >= duration_ms)
            return fail(
                fmt::format("spec.renewBefore: \"{}\" must be at least 5m and below the duration ({})",
                            before, duration));
        return *number;
    }
    if (const auto& percent = at_path(spec, "renewBeforePercentage"); percent.is_number_integer())
        // One that a version before let in stays, and leaves the time that every renewal needs.
        return std::max(renewal_least_ms, duration_ms / 100 * percent.get<int>());
    return duration_ms / 3;
}

/// As crypto::make_key() takes it.
std::string key_algorithm_of(const Json& spec) {
    const auto algorithm = text_at(spec, "privateKey.algorithm", "RSA");
    if (equal_no_case(algorithm, "Ed25519")) return "Ed25519";
    const bool is_rsa = equal_no_case(algorithm, "RSA");
    const auto& size = at_path(spec, "privateKey.size");
    const bool is_given = size.is_number_integer() && size.get<int>() != 0;
    return fmt::format("{}{}", is_rsa ? "Rsa" : "Ec", is_given ? size.get<int>() : is_rsa ? 2048 : 256);
}

std::vector<std::pair<std::string, std::string>> subject_of_spec(const Json& spec) {
    constexpr std::array parts{std::pair{"countries", "C"},
                               std::pair{"provinces", "ST"},
                               std::pair{"localities", "L"},
                               std::pair{"streetAddresses", "street"},
                               std::pair{"postalCodes", "postalCode"},
                               std::pair{"organizations", "O"},
                               std::pair{"organizationalUnits", "OU"}};
    std::vector<std::pair<std::string, std::string>> out;
    for (const auto& [field, name] : parts)
        for (auto& value : texts_of(at_path(spec, std::string("subject.") + field)))
            out.emplace_back(name, std::move(value));
    if (const auto name = text_at(spec, "commonName"); !name.empty()) out.emplace_back("CN", name);
    if (const auto serial = text_at(spec, "subject.serialNumber"); !serial.empty())
        out.emplace_back("serialNumber", serial);
    return out;
}

}  // namespace

Result<WantedCertificate> wanted_of(const Json& certificate) {
    WantedCertificate out;
    const auto& spec = at_path(certificate, "spec");
    const auto duration = text_at(spec, "duration", "2160h");
    const auto parsed = parse_duration_ms(duration);
    if (!parsed || *parsed < hour_ms)
        return fail(fmt::format("spec.duration: \"{}\" is no duration of at least 1h", duration));
    out.duration_ms = *parsed;
    const auto before = renew_before_of(spec, out.duration_ms, duration);
    if (!before) return std::unexpected(before.error());
    out.renew_before_ms = *before;
    out.key_algorithm = key_algorithm_of(spec);
    out.rotate_key = !equal_no_case(text_at(spec, "privateKey.rotationPolicy"), "Never");
    auto& options = out.options;
    options.subject = subject_of_spec(spec);
    options.dns_names = texts_of(at_path(spec, "dnsNames"));
    options.addresses = texts_of(at_path(spec, "ipAddresses"));
    options.uris = texts_of(at_path(spec, "uris"));
    options.emails = texts_of(at_path(spec, "emailAddresses"));
    options.is_ca = at_path(spec, "isCA") == Json(true);
    options.usages = texts_of(at_path(spec, "usages"));
    if (options.subject.empty() && options.dns_names.empty() && options.addresses.empty() &&
        options.uris.empty() && options.emails.empty())
        return fail(
            "at least one of spec.commonName, dnsNames, ipAddresses, uris and emailAddresses must be given");
    return out;
}

HeldIdentity HeldIdentity::in(const Json* secret) {
    HeldIdentity out;
    if (secret == nullptr) return out;
    out.key_pem = secret_text(*secret, "tls.key").value_or("");
    if (auto chain = crypto::read_certificates(secret_text(*secret, "tls.crt").value_or(""));
        chain && !out.key_pem.empty())
        out.chain = std::move(*chain);
    return out;
}

std::optional<crypto::KeyPair> HeldIdentity::as_ca(std::int64_t now_ms) const {
    if (chain.empty() || !chain.front().is_ca() || !chain.front().matches_key(key_pem) ||
        chain.front().not_after_ms() <= now_ms)
        return std::nullopt;
    return crypto::KeyPair{.certificate = chain.front().pem(), .key = key_pem};
}

const Json& condition_of(const Json& object, const char* type) {
    static const Json none;
    const auto& conditions = at_path(object, "status.conditions");
    if (!conditions.is_array()) return none;
    const auto found =
        std::ranges::find_if(conditions, [&](const auto& c) { return text_at(c, "type") == type; });
    return found == conditions.end() ? none : *found;
}

std::int64_t renewal_of(const crypto::Certificate& have, const WantedCertificate& wanted) {
    const auto life = have.not_after_ms() - have.not_before_ms();
    return have.not_after_ms() - (wanted.renew_before_ms < life - clock_skew_ms ? wanted.renew_before_ms
                                                                                : life / 3 + clock_skew_ms);
}

// --- the checks ---

namespace {

const crypto::Certificate& leaf_of(const CertificateFacts& facts) { return facts.held.chain.front(); }

std::string secret_exists(const CertificateFacts& facts) {
    return facts.secret != nullptr ? "" : "Secret does not exist";
}

std::string secret_is_readable(const CertificateFacts& facts) {
    return !facts.held.chain.empty() ? "" : "the Secret has no readable tls.crt and tls.key";
}

std::string key_is_the_certificates(const CertificateFacts& facts) {
    return leaf_of(facts).matches_key(facts.held.key_pem) ? ""
                                                          : "the Secret's key is not that of its certificate";
}

std::string key_is_as_asked(const CertificateFacts& facts) {
    const auto& algorithm = facts.wanted.key_algorithm;
    return crypto::is_key_of(facts.held.key_pem, algorithm) ? ""
                                                            : fmt::format("the key is to be {}", algorithm);
}

std::string dns_names_are_as_asked(const CertificateFacts& facts) {
    auto sorted = [](std::vector<std::string> list) {
        std::ranges::sort(list);
        return list;
    };
    return sorted(leaf_of(facts).dns_names()) == sorted(facts.wanted.options.dns_names)
               ? ""
               : "the DNS names changed";
}

/// Spellings of one address differ; each wanted one must be there, and no more than these.
std::string addresses_are_as_asked(const CertificateFacts& facts) {
    const auto& wanted = facts.wanted.options.addresses;
    const auto& leaf = leaf_of(facts);
    const bool is_same = leaf.addresses().size() == wanted.size() &&
                         std::ranges::all_of(wanted, [&](const auto& ip) { return leaf.covers(ip); });
    return is_same ? "" : "the addresses changed";
}

std::string is_a_ca_or_not_as_asked(const CertificateFacts& facts) {
    return leaf_of(facts).is_ca() == facts.wanted.options.is_ca ? "" : "it is to be a CA, or no longer";
}

std::string common_name_is_as_asked(const CertificateFacts& facts) {
    std::string name;
    for (const auto& [field, value] : facts.wanted.options.subject)
        if (field == "CN") name = value;
    return leaf_of(facts).common_name() == name ? "" : "the common name changed";
}

/// By the marks that who issued it has put on the Secret; one without them is of nobody else.
std::string issuer_is_as_asked(const CertificateFacts& facts) {
    const auto& marks = at_path(*facts.secret, "metadata.annotations");
    if (!marks.is_object()) return {};
    const auto& ref = at_path(facts.certificate, "spec.issuerRef");
    const auto name = text_at(ref, "name"), kind = text_at(ref, "kind", "Issuer");
    const bool is_same = marks.value("cert-manager.io/issuer-name", name) == name &&
                         marks.value("cert-manager.io/issuer-kind", kind) == kind;
    return is_same ? "" : "the issuer changed";
}

/// A certificate follows its CA; but one that hangs on itself by way of its CA would follow for ever.
std::string follows_its_ca(const CertificateFacts& facts) {
    if (facts.signer == nullptr || facts.is_in_a_circle) return {};
    const auto& leaf = leaf_of(facts);
    if (facts.signer->self)
        return leaf.is_self_signed() ? "" : "the issuer signs nothing any more, each certificate is its own";
    const auto& ca = facts.signer->chain.front();
    if (leaf.issuer() != ca.subject() || !leaf.is_signed_by(ca)) return "its CA was renewed or replaced";
    std::vector<std::string> have, want;
    for (std::size_t i = 1; i < facts.held.chain.size(); ++i)
        if (!facts.held.chain[i].is_self_signed()) have.push_back(facts.held.chain[i].fingerprint());
    for (const auto& link : facts.signer->above_leaf()) want.push_back(link.fingerprint());
    return have == want ? "" : "the chain of its CA changed";
}

std::string has_begun(const CertificateFacts& facts) {
    return leaf_of(facts).not_before_ms() <= facts.now_ms + clock_skew_ms
               ? ""
               : "the certificate is from the future";
}

std::string has_not_expired(const CertificateFacts& facts) {
    return facts.now_ms < leaf_of(facts).not_after_ms() ? "" : "the certificate has expired";
}

/// One that would end no later for being issued again, because its CA ends, is not renewed: it would be
/// issued again and again.
std::string is_not_to_be_renewed_yet(const CertificateFacts& facts) {
    const auto& leaf = leaf_of(facts);
    if (facts.now_ms < renewal_of(leaf, facts.wanted)) return {};
    auto could_end = facts.now_ms + facts.wanted.duration_ms;
    if (facts.signer != nullptr && !facts.signer->self)
        could_end = std::min(could_end, facts.signer->chain.front().not_after_ms());
    return could_end > leaf.not_after_ms() ? "it is time to renew" : "";
}

/// As `cmctl renew` asks for it.
std::string nobody_asked_for_a_renewal(const CertificateFacts& facts) {
    const auto is_asked = text_at(condition_of(facts.certificate, "Issuing"), "status") == "True";
    return is_asked ? "renewal was asked for" : "";
}

constexpr std::array checks{
    CertificateCheck{"secret exists", "DoesNotExist", secret_exists},
    CertificateCheck{"secret is readable", "MissingData", secret_is_readable},
    CertificateCheck{"key is the certificate's", "InvalidKeyPair", key_is_the_certificates},
    CertificateCheck{"key is as asked", "SecretMismatch", key_is_as_asked},
    CertificateCheck{"DNS names are as asked", "SecretMismatch", dns_names_are_as_asked},
    CertificateCheck{"addresses are as asked", "SecretMismatch", addresses_are_as_asked},
    CertificateCheck{"is a CA, or not, as asked", "SecretMismatch", is_a_ca_or_not_as_asked},
    CertificateCheck{"common name is as asked", "SecretMismatch", common_name_is_as_asked},
    CertificateCheck{"issuer is as asked", "IncorrectIssuer", issuer_is_as_asked},
    CertificateCheck{"follows its CA", "IncorrectIssuer", follows_its_ca},
    CertificateCheck{"has begun", "Renewing", has_begun},
    CertificateCheck{"has not expired", "Expired", has_not_expired},
    CertificateCheck{"is not to be renewed yet", "Renewing", is_not_to_be_renewed_yet},
    CertificateCheck{"nobody asked for a renewal", "ManuallyTriggered", nobody_asked_for_a_renewal},
};

}  // namespace

std::span<const CertificateCheck> certificate_checks() { return checks; }

std::optional<CertificateDue> why_due(const CertificateFacts& facts) {
    for (const auto& check : checks)
        if (auto why = check.why_not(facts); !why.empty()) return CertificateDue{&check, std::move(why)};
    return std::nullopt;
}

}  // namespace penstock::control
