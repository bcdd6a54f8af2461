#include "control/certificates.h"

#include <algorithm>
#include <expected>
#include <iterator>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "control/certificate_outlook.h"
#include "control/cures.h"
#include "crypto/examination.h"
#include "crypto/x509.h"
#include "resources/text_rules.h"

namespace penstock::control {

using registry::ObjectRef;
using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* manager = "penstock-certificates";
constexpr const char* system_namespace = "azure-iot-operations";
constexpr std::int64_t hour_ms = 3'600'000;
constexpr std::int64_t look_again_ms = hour_ms;          // clocks jump: nothing sleeps until its date in one go
constexpr std::int64_t skew_ms = 300'000, renewal_least_ms = 300'000;
constexpr std::size_t bundle_max = 10, crosses_max = 3;
constexpr int chain_max = 10;            // issuers one above the other

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& certificate_kind() { return *resources::find_kind("cert-manager.io/v1", "Certificate"); }
const resources::Kind& issuer_kind(bool cluster) { return *resources::find_kind("cert-manager.io/v1", cluster ? "ClusterIssuer" : "Issuer"); }

Key key_of(const resources::Kind& kind, const Json& object) { return {kind.qualified_plural(), text_at(object, "metadata.namespace"), text_at(object, "metadata.name")}; }

/// A condition to be set.
struct Condition {
    const char* type;
    bool is_good;
    const char* reason;
    std::string message;
};

/// The conditions with one of them set; its transition time moves when its status does. `now_ms`: Unix time.
Json with_condition(const Json& object, const Condition& condition, std::int64_t now_ms) {
    const auto now = rfc3339(now_ms);
    Json out = Json::array();
    Json fresh = {
        {"type", condition.type},     {"status", condition.is_good ? "True" : "False"},
        {"reason", condition.reason}, {"message", condition.message},
        {"lastTransitionTime", now},  {"observedGeneration", at_path(object, "metadata.generation")}};
    if (fresh["observedGeneration"].is_null()) fresh.erase("observedGeneration");
    if (const auto& old = at_path(object, "status.conditions"); old.is_array())
        for (const auto& before : old) {
            if (text_at(before, "type") != condition.type) out.push_back(before);
            else if (text_at(before, "status") == text_at(fresh, "status"))
                fresh["lastTransitionTime"] = before.value("lastTransitionTime", now);
        }
    out.insert(out.begin(), std::move(fresh));
    return out;
}

/// The condition of a type; null when there is none.
const Json& condition_of(const Json& object, const char* type) {
    static const Json none;
    const auto& conditions = at_path(object, "status.conditions");
    if (!conditions.is_array()) return none;
    const auto found = std::ranges::find_if(conditions, [&](const auto& c) { return text_at(c, "type") == type; });
    return found == conditions.end() ? none : *found;
}

bool has_condition(const Json& object, const char* type, const char* status) { return text_at(condition_of(object, type), "status") == status; }

Json status_of(const Json& object) { return at_path(object, "status").is_object() ? at_path(object, "status") : Json::object(); }

/// The object as it is now, for a status about what was looked at: that is the generation which it has observed. Null: it is another
/// object of the same name.
Json as_looked_at(const Json& now, const Json& looked_at) {
    if (text_at(now, "metadata.uid") != text_at(looked_at, "metadata.uid")) return nullptr;
    auto out = now;
    if (const auto& generation = at_path(looked_at, "metadata.generation"); !generation.is_null()) out["metadata"]["generation"] = generation;
    return out;
}

struct Signer {
    bool self = false;                   ///< each certificate signs itself
    crypto::KeyPair pair;
    std::vector<crypto::Certificate> chain;

    /// A CA's key signed by the CA before it: not self-signed, though subject and issuer are the same name.
    static bool is_cross(const crypto::Certificate& one) {
        return one.subject() == one.issuer() && !one.is_self_signed();
    }
    /// What is shown behind a leaf: all but the root.
    [[nodiscard]] std::vector<crypto::Certificate> above_leaf() const {
        std::vector<crypto::Certificate> out;
        std::ranges::copy_if(chain, std::back_inserter(out),
                             [](const auto& link) { return !link.is_self_signed(); });
        return out;
    }
    /// The root, or what comes nearest to it.
    [[nodiscard]] const crypto::Certificate& root() const {
        const auto found =
            std::ranges::find_if(chain, [](const auto& link) { return link.is_self_signed(); });
        if (found != chain.end()) return *found;
        return *std::find_if(chain.rbegin(), chain.rend(),
                             [&](const auto& link) { return !is_cross(link) || &link == &chain.front(); });
    }
};

/// The CA in an issuer's Secret; the error is what its condition says.
Result<Signer> signer_of(const Objects& objects, const Json& issuer, std::int64_t now_ms) {
    const bool cluster = text_at(issuer, "kind") == "ClusterIssuer" || text_at(issuer, "metadata.namespace").empty();
    if (at_path(issuer, "spec.selfSigned").is_object()) return Signer{.self = true};
    const auto name = text_at(issuer, "spec.ca.secretName");
    if (name.empty()) return fail("only the issuer types ca and selfSigned are there without cert-manager");
    const auto space = cluster ? std::string(ca_namespace) : text_at(issuer, "metadata.namespace");
    const auto secret = objects.get(core("Secret"), space, name);
    const auto own_name = text_at(issuer, "metadata.name");
    const char* own_kind = cluster ? "ClusterIssuer" : "Issuer";
    const auto maker = maker_of(objects, space, name);
    // One that this issuer would have to issue is never made.
    const bool is_made = maker != nullptr && (text_at(*maker, "spec.issuerRef.name") != own_name ||
                                              text_at(*maker, "spec.issuerRef.kind", "Issuer") != own_kind);
    if (secret == nullptr) {
        auto why = is_made ? awaited_object(objects, core("Secret"), space, name) : std::string();
        if (why.empty())
            why = absent_object(core("Secret"), space, name, "spec.ca.secretName",
                                edit_command(own_kind, (cluster ? "" : space + "/") + own_name),
                                "kubectl create secret tls {} -n {} --cert=CHAIN.crt --key=KEY.key");
        if (cluster && own_name == default_issuer && name == ca_secret && maker == nullptr)
            why += fmt::format(", or have the installation's own CA made anew with: "
                               "kubectl delete clusterissuer {}",
                               default_issuer);
        return fail(fmt::format("Error getting keypair for CA issuer: secret \"{}\" not found in namespace "
                                "{}: {}",
                                resources::shortened(name), space, why));
    }
    // What is spoilt in a Secret of a Certificate is issued again, and over what a person puts there.
    const auto maker_name = maker != nullptr ? text_at(*maker, "metadata.name") : std::string();
    const bool is_made_ca = is_made && at_path(*maker, "spec.isCA") == Json(true);
    const auto put_by_hand = "put a CA that can sign there, with: " + put_command(objects, space, name);
    const auto put =
        is_made_ca ? fmt::format("Certificate {}/{} issues it again", space, maker_name) : put_by_hand;
    Signer out;
    out.pair = {.certificate = secret_text(*secret, "tls.crt").value_or(""), .key = secret_text(*secret, "tls.key").value_or("")};
    if (out.pair.certificate.empty() || out.pair.key.empty()) return fail(fmt::format("Secret {}/{} needs tls.crt and tls.key; {}", space, name, put));
    auto chain = crypto::read_certificates(out.pair.certificate);
    if (!chain || chain->empty()) return fail(fmt::format("Secret {}/{}: tls.crt: {}; {}", space, name, chain ? "no certificate in it" : chain.error().message, put));
    if (!chain->front().is_ca()) {
        const auto edit = edit_command("certificate", space + "/" + maker_name);
        return fail(fmt::format(
            "Secret {}/{}: signing certificate \"{}\" is not a CA (basicConstraints CA:TRUE is missing); {}",
            space, name, chain->front().subject(),
            is_made && !is_made_ca ? "write isCA: true into the spec of its Certificate, with: " + edit : put));
    }
    if (!chain->front().matches_key(out.pair.key))
        return fail(fmt::format(
            "Secret {}/{}: tls.key is not the key of the first certificate; {}", space, name,
            is_made_ca ? put
                       : fmt::format("{}; put a pair that fits there, with: {}", compare_pair(space, name),
                                     put_command(objects, space, name))));
    if (const auto why = crypto::issuing_fault(*chain); !why.empty())
        return fail(fmt::format("Secret {}/{}: {}; {}", space, name, why,
                                is_made_ca ? "have it issued anew with: " + issue_command(objects, space, name)
                                           : put_by_hand));
    if (chain->front().not_after_ms() <= now_ms)
        return fail(fmt::format("Secret {}/{}: the CA \"{}\" has expired at {}; {}", space, name,
                                chain->front().subject(), rfc3339(chain->front().not_after_ms()), put));
    // A way to a former CA that has ended leads nowhere.
    std::erase_if(*chain,
                  [&](const auto& link) { return Signer::is_cross(link) && link.not_after_ms() <= now_ms; });
    out.chain = std::move(*chain);
    return out;
}

class IssuerReconciler : public Reconciler {
  public:
    IssuerReconciler(Objects& objects, bool cluster, Clock clock)
        : objects_(objects), cluster_(cluster), clock_(std::move(clock)) {}
    const char* name() const override { return cluster_ ? "cluster-issuer" : "issuer"; }
    std::vector<Key> all() override {
        std::vector<Key> out;
        for (const auto& item : objects_.list(issuer_kind(cluster_), "")) out.push_back(key_of(issuer_kind(cluster_), *item));
        return out;
    }
    std::vector<Key> concerned(const registry::Event& event) override {
        if (event.kind == &issuer_kind(cluster_)) return {key_of(*event.kind, *event.object)};
        // The Secret, and the Certificate that makes it.
        if (event.kind != &core("Secret") && event.kind != &certificate_kind()) return {};
        const auto secret =
            text_at(*event.object, event.kind == &core("Secret") ? "metadata.name" : "spec.secretName");
        std::vector<Key> out;
        for (const auto& item : objects_.list(issuer_kind(cluster_), cluster_ ? "" : event.name_space))
            if (text_at(*item, "spec.ca.secretName") == secret && (!cluster_ || event.name_space == ca_namespace))
                out.push_back(key_of(issuer_kind(cluster_), *item));
        return out;
    }
    Outcome reconcile(const Key& key) override {
        const auto issuer = objects_.get(issuer_kind(cluster_), key.name_space, key.name);
        if (issuer == nullptr) return Outcome::settled();
        const auto signer = signer_of(objects_, *issuer, clock_.wall_ms());
        const auto done = objects_.put_status(issuer_kind(cluster_), key.name_space, key.name, [&](const Json& now) -> std::optional<Json> {
            const auto current = as_looked_at(now, *issuer);
            if (current.is_null()) return std::nullopt;
            auto status = status_of(current);
            if (!signer)
                status["conditions"] =
                    ready_condition(current, false, "ErrGetKeyPair", signer.error().message);
            else if (signer->self)
                status["conditions"] =
                    ready_condition(current, true, "IsReady", "Each certificate signs itself");
            else
                status["conditions"] =
                    ready_condition(current, true, "KeyPairVerified", verified_text(signer->chain.front()));
            return status;
        }, manager);
        if (!done) return Outcome::retry(done.error().message);
        return Outcome::after(look_again_ms);
    }

  private:
    [[nodiscard]] Json ready_condition(const Json& issuer, bool is_good, const char* reason,
                                       std::string message) const {
        return with_condition(issuer, {"Ready", is_good, reason, std::move(message)}, clock_.wall_ms());
    }
    /// A CA in its last tenth is named: nothing that it signs lasts longer than it does.
    [[nodiscard]] std::string verified_text(const crypto::Certificate& ca) const {
        const auto left = ca.not_after_ms() - clock_.wall_ms();
        if (left > (ca.not_after_ms() - ca.not_before_ms()) / 10) return "Signing CA verified";
        return fmt::format(
            "Signing CA verified; it ends at {}, and what it signs ends with it: renew or replace it",
            rfc3339(ca.not_after_ms()));
    }
    Objects& objects_;
    bool cluster_;
    Clock clock_;
};

// --- certificates ---

struct Wanted {
    crypto::IssueOptions options;
    std::string key_algorithm;
    bool rotate_key = true;
    std::int64_t duration_ms = 0, renew_before_ms = 0;
};

std::vector<std::string> texts_at(const Json& object, std::string_view path) {
    std::vector<std::string> out;
    if (const auto& list = at_path(object, path); list.is_array())
        for (const auto& item : list)
            if (item.is_string()) out.push_back(item.get<std::string>());
    return out;
}

Result<Wanted> wanted_of(const Json& certificate) {
    Wanted out;
    const auto& spec = at_path(certificate, "spec");
    const auto duration = text_at(spec, "duration", "2160h");
    const auto parsed = parse_duration_ms(duration);
    if (!parsed || *parsed < hour_ms) return fail(fmt::format("spec.duration: \"{}\" is no duration of at least 1h", duration));
    out.duration_ms = *parsed;
    out.renew_before_ms = out.duration_ms / 3;
    if (const auto before = text_at(spec, "renewBefore"); !before.empty()) {
        const auto number = parse_duration_ms(before);
        if (!number || *number < renewal_least_ms || *number >= out.duration_ms) return fail(fmt::format("spec.renewBefore: \"{}\" must be at least 5m and below the duration ({})", before, duration));
        out.renew_before_ms = *number;
    } else if (const auto& percent = at_path(spec, "renewBeforePercentage"); percent.is_number_integer()) {
        // One that a version before let in stays, and leaves the time that every renewal needs.
        out.renew_before_ms = std::max(renewal_least_ms, out.duration_ms / 100 * percent.get<int>());
    }
    const auto algorithm = text_at(spec, "privateKey.algorithm", "RSA");
    const auto& size = at_path(spec, "privateKey.size");
    const int bits = size.is_number_integer() && size.get<int>() != 0 ? size.get<int>() : equal_no_case(algorithm, "RSA") ? 2048 : 256;
    out.key_algorithm = equal_no_case(algorithm, "Ed25519") ? "Ed25519" : fmt::format("{}{}", equal_no_case(algorithm, "RSA") ? "Rsa" : "Ec", bits);
    out.rotate_key = !equal_no_case(text_at(spec, "privateKey.rotationPolicy"), "Never");
    auto& options = out.options;
    for (const auto& [field, name] : {std::pair{"countries", "C"}, std::pair{"provinces", "ST"}, std::pair{"localities", "L"}, std::pair{"streetAddresses", "street"}, std::pair{"postalCodes", "postalCode"},
                                      std::pair{"organizations", "O"}, std::pair{"organizationalUnits", "OU"}})
        for (auto& value : texts_at(spec, std::string("subject.") + field)) options.subject.emplace_back(name, std::move(value));
    if (const auto name = text_at(spec, "commonName"); !name.empty()) options.subject.emplace_back("CN", name);
    if (const auto serial = text_at(spec, "subject.serialNumber"); !serial.empty()) options.subject.emplace_back("serialNumber", serial);
    options.dns_names = texts_at(spec, "dnsNames");
    options.addresses = texts_at(spec, "ipAddresses");
    options.uris = texts_at(spec, "uris");
    options.emails = texts_at(spec, "emailAddresses");
    options.is_ca = at_path(spec, "isCA") == Json(true);
    options.usages = texts_at(spec, "usages");
    if (options.subject.empty() && options.dns_names.empty() && options.addresses.empty() && options.uris.empty() && options.emails.empty())
        return fail("at least one of spec.commonName, dnsNames, ipAddresses, uris and emailAddresses must be given");
    return out;
}

/// What the Secret holds is what is wanted: names, key, CA or not. Dates are looked at elsewhere.
std::string mismatch_of(const crypto::Certificate& have, const Wanted& wanted, const std::string& key_pem) {
    if (!have.matches_key(key_pem)) return "the Secret's key is not that of its certificate";
    if (!crypto::is_key_of(key_pem, wanted.key_algorithm)) return fmt::format("the key is to be {}", wanted.key_algorithm);
    auto sorted = [](std::vector<std::string> list) {
        std::ranges::sort(list);
        return list;
    };
    if (sorted(have.dns_names()) != sorted(wanted.options.dns_names)) return "the DNS names changed";
    // Spellings of one address differ; each wanted one must be there, and no more than these.
    const auto addresses = have.addresses();
    if (addresses.size() != wanted.options.addresses.size() || !std::ranges::all_of(wanted.options.addresses, [&](const auto& ip) { return have.covers(ip); })) return "the addresses changed";
    if (have.is_ca() != wanted.options.is_ca) return "it is to be a CA, or no longer";
    std::string name;
    for (const auto& [field, value] : wanted.options.subject)
        if (field == "CN") name = value;
    if (have.common_name() != name) return "the common name changed";
    return {};
}

/// What a Certificate's Secret holds.
struct Held {
    std::vector<crypto::Certificate> chain;   ///< empty: nothing that can be read
    std::string key_pem;
    /// The pair as a CA that can still vouch for its successor.
    [[nodiscard]] std::optional<crypto::KeyPair> as_ca(std::int64_t now_ms) const {
        if (chain.empty() || !chain.front().is_ca() || !chain.front().matches_key(key_pem) ||
            chain.front().not_after_ms() <= now_ms)
            return std::nullopt;
        return crypto::KeyPair{.certificate = chain.front().pem(), .key = key_pem};
    }
};

/// Why a certificate has to follow its CA; empty: it need not.
std::string left_behind(const Held& held, const Signer& signer) {
    const auto& leaf = held.chain.front();
    if (signer.self)
        return leaf.is_self_signed() ? "" : "the issuer signs nothing any more, each certificate is its own";
    const auto& ca = signer.chain.front();
    if (leaf.issuer() != ca.subject() || !leaf.is_signed_by(ca)) return "its CA was renewed or replaced";
    std::vector<std::string> have, want;
    for (std::size_t i = 1; i < held.chain.size(); ++i)
        if (!held.chain[i].is_self_signed()) have.push_back(held.chain[i].fingerprint());
    for (const auto& link : signer.above_leaf()) want.push_back(link.fingerprint());
    return have == want ? "" : "the chain of its CA changed";
}

/// When a certificate is renewed. A shorter life than asked for (the issuer ends first) is renewed at two
/// thirds of what it got.
std::int64_t renewal_of(const crypto::Certificate& have, const Wanted& wanted) {
    const auto life = have.not_after_ms() - have.not_before_ms();
    return have.not_after_ms() -
           (wanted.renew_before_ms < life - skew_ms ? wanted.renew_before_ms : life / 3 + skew_ms);
}

/// Why a certificate is due by its dates at `now_ms`; empty: it is not. One that would end no later for being
/// issued again, because its CA ends, is not: it would be issued again and again. `signer`: null when there
/// is none now.
std::string due_by_time(const crypto::Certificate& have, const Wanted& wanted, const Signer* signer,
                        std::int64_t now_ms) {
    if (have.not_before_ms() > now_ms + skew_ms) return "the certificate is from the future";
    if (now_ms >= have.not_after_ms()) return "the certificate has expired";
    if (now_ms < renewal_of(have, wanted)) return {};
    const auto could_end = signer == nullptr || signer->self
                               ? now_ms + wanted.duration_ms
                               : std::min(now_ms + wanted.duration_ms, signer->chain.front().not_after_ms());
    return could_end > have.not_after_ms() ? "it is time to renew" : "";
}

class CertificateReconciler : public Reconciler {
  public:
    CertificateReconciler(Objects& objects, Recorder& recorder, Clock clock)
        : objects_(objects), recorder_(recorder), clock_(std::move(clock)) {}
    const char* name() const override { return "certificate"; }
    std::vector<Key> all() override {
        std::vector<Key> out;
        for (const auto& item : objects_.list(certificate_kind(), "")) out.push_back(key_of(certificate_kind(), *item));
        return out;
    }
    std::vector<Key> concerned(const registry::Event& event) override {
        if (event.kind == &certificate_kind()) return {key_of(*event.kind, *event.object)};
        const bool issuer = event.kind == &issuer_kind(true) || event.kind == &issuer_kind(false), secret = event.kind == &core("Secret");
        if (!issuer && !secret) return {};
        std::vector<Key> out;
        const auto name = text_at(*event.object, "metadata.name");
        for (const auto& item : objects_.list(certificate_kind(), event.kind == &issuer_kind(true) ? "" : event.name_space))
            if (text_at(*item, issuer ? "spec.issuerRef.name" : "spec.secretName") == name) out.push_back(key_of(certificate_kind(), *item));
        // A CA that changed takes its leaves along: by way of the issuers that sign with this Secret.
        for (const bool cluster : {true, false}) {
            if (!secret || (cluster && event.name_space != ca_namespace)) continue;
            for (const auto& other : objects_.list(issuer_kind(cluster), cluster ? "" : event.name_space))
                if (text_at(*other, "spec.ca.secretName") == name)
                    for (const auto& item :
                         objects_.list(certificate_kind(), cluster ? "" : event.name_space))
                        if (text_at(*item, "spec.issuerRef.name") == text_at(*other, "metadata.name") &&
                            (text_at(*item, "spec.issuerRef.kind", "Issuer") == "ClusterIssuer") == cluster)
                            out.push_back(key_of(certificate_kind(), *item));
        }
        return out;
    }

    Outcome reconcile(const Key& key) override {
        const auto certificate = objects_.get(certificate_kind(), key.name_space, key.name);
        if (certificate == nullptr || at_path(*certificate, "metadata.deletionTimestamp").is_string()) return Outcome::settled();
        const auto group = text_at(*certificate, "spec.issuerRef.group", "cert-manager.io");
        if (group != "cert-manager.io") return Outcome::settled();   // somebody else's
        const auto wanted = wanted_of(*certificate);
        if (!wanted) return not_ready(*certificate, "InvalidSpec", wanted.error().message), Outcome::stop(wanted.error().message);

        const auto now = clock_.wall_ms();
        const auto secret_name = text_at(*certificate, "spec.secretName");
        const auto secret = objects_.get(core("Secret"), key.name_space, secret_name);
        // Two Certificates that write one Secret would issue for ever.
        for (const auto& other : objects_.list(certificate_kind(), key.name_space))
            if (text_at(*other, "spec.secretName") == secret_name && text_at(*other, "metadata.name") != key.name &&
                std::pair(text_at(*other, "metadata.creationTimestamp"), text_at(*other, "metadata.name")) < std::pair(text_at(*certificate, "metadata.creationTimestamp"), key.name))
                return not_ready(*certificate, "IncorrectCertificate", fmt::format("Secret {} belongs to Certificate {}", secret_name, text_at(*other, "metadata.name"))), Outcome::settled();

        const auto held = held_in(secret);
        const auto signer = signer_for(*certificate, now);
        const auto why = why_due(*certificate, *wanted, secret, held, signer ? &*signer : nullptr, now);
        if (why.empty()) return ready(*certificate, held.chain.front(), *wanted, false, signer ? "" : cannot_issue(*certificate, signer.error()));
        if (!signer)
            return not_ready(*certificate, signer.error().reason,
                             fmt::format("{}; {}", why, signer.error().message)),
                   Outcome::settled();
        return issue(*certificate, *wanted, *signer, held, why);
    }

  private:
    struct NoSigner {
        const char* reason;
        std::string message;
    };
    /// Why the certificate could not be issued anew now, for people.
    static std::string cannot_issue(const Json& certificate, const NoSigner& why) {
        const auto kind = text_at(certificate, "spec.issuerRef.kind", "Issuer"), name = text_at(certificate, "spec.issuerRef.name");
        if (std::string_view(why.reason) == "IssuerNotFound")
            return fmt::format("the {} \"{}\" does not exist any more; make it again, or name another in issuerRef; those that are there are shown with: kubectl get issuer,clusterissuer -A", kind, resources::shortened(name));
        return fmt::format("the {} \"{}\" cannot issue: {}", kind, name, why.message);
    }
    std::expected<Signer, NoSigner> signer_for(const Json& certificate, std::int64_t now) const {
        const bool cluster = text_at(certificate, "spec.issuerRef.kind", "Issuer") == "ClusterIssuer";
        const auto name = text_at(certificate, "spec.issuerRef.name");
        const auto issuer = objects_.get(issuer_kind(cluster),
                                         cluster ? "" : text_at(certificate, "metadata.namespace"), name);
        if (issuer == nullptr)
            return std::unexpected(NoSigner{
                "IssuerNotFound",
                absent_issuer(objects_, cluster ? "ClusterIssuer" : "Issuer", text_at(certificate, "metadata.namespace"), name)});
        auto signer = signer_of(objects_, *issuer, now);
        if (!signer) return std::unexpected(NoSigner{"IssuerNotReady", signer.error().message});
        return std::move(*signer);
    }
    static Held held_in(const ObjectRef& secret) {
        Held out;
        if (secret == nullptr) return out;
        out.key_pem = secret_text(*secret, "tls.key").value_or("");
        if (auto chain = crypto::read_certificates(secret_text(*secret, "tls.crt").value_or(""));
            chain && !out.key_pem.empty())
            out.chain = std::move(*chain);
        return out;
    }
    /// True when the CA that signs this certificate hangs on the certificate itself, by way of any number of
    /// issuers: following such a CA would never end.
    bool is_in_a_circle(const Json& certificate) const {
        const auto own =
            std::pair(text_at(certificate, "metadata.namespace"), text_at(certificate, "spec.secretName"));
        Json current = certificate;
        for (int depth = 0; depth < chain_max; ++depth) {
            const bool cluster = text_at(current, "spec.issuerRef.kind", "Issuer") == "ClusterIssuer";
            const auto space = text_at(current, "metadata.namespace");
            const auto issuer = objects_.get(issuer_kind(cluster), cluster ? "" : space,
                                             text_at(current, "spec.issuerRef.name"));
            const auto name = issuer != nullptr ? text_at(*issuer, "spec.ca.secretName") : std::string();
            if (name.empty()) return false;
            const auto at = std::pair(cluster ? std::string(ca_namespace) : space, name);
            if (at == own) return true;
            const auto all = objects_.list(certificate_kind(), at.first);
            const auto writer = std::ranges::find_if(
                all, [&](const auto& item) { return text_at(*item, "spec.secretName") == name; });
            if (writer == all.end()) return false;
            current = **writer;
        }
        return true;
    }
    /// The first reason to issue, in the order in which a person would want to hear them; empty: all is as
    /// wanted.
    std::string why_due(const Json& certificate, const Wanted& wanted, const ObjectRef& secret,
                        const Held& held, const Signer* signer, std::int64_t now) const {
        if (secret == nullptr) return "Secret does not exist";
        if (held.chain.empty()) return "the Secret has no readable tls.crt and tls.key";
        if (auto why = mismatch_of(held.chain.front(), wanted, held.key_pem); !why.empty()) return why;
        const auto& marks = at_path(*secret, "metadata.annotations");
        const auto& ref = at_path(certificate, "spec.issuerRef");
        if (marks.is_object() &&
            (marks.value("cert-manager.io/issuer-name", text_at(ref, "name")) != text_at(ref, "name") ||
             marks.value("cert-manager.io/issuer-kind", text_at(ref, "kind", "Issuer")) !=
                 text_at(ref, "kind", "Issuer")))
            return "the issuer changed";
        if (signer != nullptr)
            if (auto why = left_behind(held, *signer); !why.empty() && !is_in_a_circle(certificate))
                return why;
        if (auto why = due_by_time(held.chain.front(), wanted, signer, now); !why.empty()) return why;
        return has_condition(certificate, "Issuing", "True") ? "renewal was asked for" : "";
    }

    Outcome issue(const Json& certificate, const Wanted& wanted, const Signer& signer, const Held& held,
                  const std::string& why) {
        const auto space = text_at(certificate, "metadata.namespace"), name = text_at(certificate, "metadata.name"), secret_name = text_at(certificate, "spec.secretName");
        recorder_.record(certificate, "Normal", "Issuing", "Issuing certificate: " + why);
        auto failed = [&](const std::string& text) {
            [[maybe_unused]] const auto done = objects_.put_status(certificate_kind(), space, name, [&](const Json& now) -> std::optional<Json> {
                const auto current = as_looked_at(now, certificate);
                if (current.is_null()) return std::nullopt;
                auto status = status_of(current);
                status["conditions"] =
                    with_condition(current, {"Ready", false, "IssuingFailed", text}, clock_.wall_ms());
                status["lastFailureTime"] = rfc3339(clock_.wall_ms());
                status["failedIssuanceAttempts"] = status.value("failedIssuanceAttempts", 0) + 1;
                return status;
            }, manager);
            recorder_.record(certificate, "Warning", "IssuingFailed", text);
            return Outcome::retry(text);
        };
        auto key_pem = held.key_pem;
        if (key_pem.empty() || wanted.rotate_key || !crypto::is_key_of(key_pem, wanted.key_algorithm)) {
            auto fresh = crypto::make_key(wanted.key_algorithm);
            if (!fresh) return failed(fresh.error().message);
            key_pem = std::move(*fresh);
        }
        auto options = wanted.options;
        const auto now = clock_.wall_ms();
        options.not_before_ms = now - skew_ms;
        options.not_after_ms = now + wanted.duration_ms;
        const auto made = crypto::issue_certificate(key_pem, signer.self ? nullptr : &signer.pair, options);
        if (!made) return failed(made.error().message);
        // The chain without its root, and the root (or what comes nearest to it) beside.
        std::string chain = *made, ca = *made;
        if (!signer.self) {
            for (const auto& link : signer.above_leaf()) chain += link.pem();
            ca = signer.root().pem();
        } else if (options.is_ca) {
            chain += crosses(held, key_pem, options, now);
        }
        const auto issued = crypto::read_certificates(*made)->front();
        auto joined = [](const std::vector<std::string>& list) { return fmt::format("{}", fmt::join(list, ",")); };
        Json marks = {{"cert-manager.io/certificate-name", name}, {"cert-manager.io/common-name", issued.common_name()}, {"cert-manager.io/alt-names", joined(options.dns_names)}, {"cert-manager.io/ip-sans", joined(options.addresses)},
                      {"cert-manager.io/uri-sans", joined(options.uris)}, {"cert-manager.io/issuer-name", text_at(certificate, "spec.issuerRef.name")}, {"cert-manager.io/issuer-kind", text_at(certificate, "spec.issuerRef.kind", "Issuer")},
                      {"cert-manager.io/issuer-group", text_at(certificate, "spec.issuerRef.group", "cert-manager.io")}};
        Json labels = {{"controller.cert-manager.io/fao", "true"}};
        if (const auto& more = at_path(certificate, "spec.secretTemplate.annotations"); more.is_object()) marks.update(more);
        if (const auto& more = at_path(certificate, "spec.secretTemplate.labels"); more.is_object()) labels.update(more);
        const Json object = {{"apiVersion", "v1"}, {"kind", "Secret"}, {"metadata", {{"name", secret_name}, {"namespace", space}, {"annotations", marks}, {"labels", labels}}},
                             {"data", {{"tls.crt", base64_encode(chain)}, {"tls.key", base64_encode(key_pem)}, {"ca.crt", base64_encode(ca)}}}};
        if (objects_.get(core("Secret"), space, secret_name) == nullptr) {
            auto fresh = object;
            fresh["type"] = "kubernetes.io/tls";
            if (auto done = objects_.create(core("Secret"), space, fresh, manager); !done) return failed(done.error().message);
        } else if (auto done = objects_.patch(core("Secret"), space, secret_name, registry::PatchType::merge, object, manager); !done) {
            return failed(done.error().message);
        }
        log::info("control", "certificate issued certificate={}/{} subject=\"{}\" until={} why=\"{}\"", space, name, issued.subject(), rfc3339(issued.not_after_ms()), why);
        recorder_.record(certificate, "Normal", "Issued", "The certificate has been successfully issued");
        return ready(certificate, issued, wanted, true, {});
    }

    /// A root CA's new key signed by the one before, and what that one had of those before it: whoever trusts
    /// a former root alone finds the way to what the new one signs. Nothing where the key stays: it is the
    /// same CA then.
    static std::string crosses(const Held& held, const std::string& key_pem, crypto::IssueOptions options,
                               std::int64_t now) {
        const auto former = held.as_ca(now);
        if (!former || held.key_pem == key_pem) return {};
        const auto cross = crypto::issue_certificate(key_pem, &*former, options);
        if (!cross) return {};
        auto out = *cross;
        for (std::size_t i = 1; i < std::min(held.chain.size(), crosses_max); ++i)
            if (Signer::is_cross(held.chain[i]) && held.chain[i].not_after_ms() > now)
                out += held.chain[i].pem();
        return out;
    }

    /// `cannot_renew`: why it will not be renewed when its time comes; empty: it will.
    Outcome ready(const Json& looked_at, const crypto::Certificate& have, const Wanted& wanted, bool fresh, const std::string& cannot_renew) {
        const auto now = clock_.wall_ms(), renewal = renewal_of(have, wanted);
        const bool ends_with_ca = renewal <= now;
        // As with cert-manager it is Ready as long as it is good; that it will not be renewed is a condition of its own.
        std::string message = "Certificate is up to date and has not expired";
        if (ends_with_ca)
            message = fmt::format("Certificate is up to date, but it ends with its CA at {}: renew or replace the CA of {} \"{}\"",
                                  rfc3339(have.not_after_ms()), text_at(looked_at, "spec.issuerRef.kind", "Issuer"),
                                  text_at(looked_at, "spec.issuerRef.name"));
        if (!cannot_renew.empty()) message += fmt::format("; it ends at {} and cannot be renewed: {}", rfc3339(have.not_after_ms()), cannot_renew);
        // Whoever had asked for a renewal (cmctl renew sets this condition) has got it. One who asks while it is issued, or anew, is
        // still to get his.
        const auto fulfilled = fresh ? condition_of(looked_at, "Issuing") : Json();
        const auto done = objects_.put_status(certificate_kind(), text_at(looked_at, "metadata.namespace"), text_at(looked_at, "metadata.name"), [&](const Json& as_it_is) -> std::optional<Json> {
            auto judged = as_looked_at(as_it_is, looked_at);
            if (judged.is_null()) return std::nullopt;
            auto status = status_of(judged);
            auto renewable =
                with_condition(judged, {renewable_condition, false, "IssuerNotReady", message}, now);
            if (cannot_renew.empty()) renewable.erase(renewable.begin());
            judged["status"]["conditions"] = std::move(renewable);
            status["conditions"] = with_condition(judged, {"Ready", true, "Ready", message}, now);
            std::erase_if(status["conditions"].get_ref<Json::array_t&>(), [&](const Json& c) { return !fulfilled.is_null() && c == fulfilled; });
            status["notBefore"] = rfc3339(have.not_before_ms());
            status["notAfter"] = rfc3339(have.not_after_ms());
            status["renewalTime"] = rfc3339(renewal);
            if (fresh) status["revision"] = status.value("revision", 0) + 1;
            status.erase("lastFailureTime");
            status.erase("failedIssuanceAttempts");
            return status;
        }, manager);
        if (!done) return Outcome::retry(done.error().message);
        return Outcome::after(std::clamp<std::int64_t>((ends_with_ca ? have.not_after_ms() : renewal) - now,
                                                       1000, look_again_ms));
    }

    void not_ready(const Json& certificate, const char* reason, const std::string& text) {
        [[maybe_unused]] const auto done = objects_.put_status(certificate_kind(), text_at(certificate, "metadata.namespace"), text_at(certificate, "metadata.name"), [&](const Json& now) -> std::optional<Json> {
            const auto current = as_looked_at(now, certificate);
            if (current.is_null()) return std::nullopt;
            auto status = status_of(current);
            status["conditions"] = with_condition(current, {"Ready", false, reason, text}, clock_.wall_ms());
            return status;
        }, manager);
    }

    Objects& objects_;
    Recorder& recorder_;
    Clock clock_;
};

/// The installation's own CA, its issuer, and the bundle of what clients should trust.
class TrustReconciler : public Reconciler {
  public:
    TrustReconciler(Objects& objects, Clock clock) : objects_(objects), clock_(std::move(clock)) {}
    const char* name() const override { return "trust-bundle"; }
    std::vector<Key> all() override { return {{"trust", "", ""}}; }
    std::vector<Key> concerned(const registry::Event& event) override {
        const auto name = text_at(*event.object, "metadata.name");
        if (event.kind == &core("Secret") && (event.name_space == ca_namespace || name == internal_ca)) return all();
        if (event.kind == &core("ConfigMap") && name == trust_bundle) return all();
        if (event.kind == &issuer_kind(true) && (name == default_issuer || name == root_issuer)) return all();
        if (event.kind == &certificate_kind() && name == ca_secret && event.type == registry::Event::Type::deleted) return all();
        return {};
    }
    Outcome reconcile(const Key&) override {
        if (const auto why = make_objects(); !why.empty()) return Outcome::retry(why);
        const auto issuer = objects_.get(issuer_kind(true), "", default_issuer);
        if (issuer == nullptr) return Outcome::settled();
        const auto now = clock_.wall_ms();
        const auto signer = signer_of(objects_, *issuer, now);
        if (!signer || signer->self) return Outcome::settled();   // the issuer's own condition says why
        // Newest first; older ones stay as long as they are valid, for certificates they signed and for peers that go on with them.
        std::vector<crypto::Certificate> bundle{signer->root()};
        const auto current = objects_.get(core("ConfigMap"), system_namespace, trust_bundle);
        if (current != nullptr)
            if (const auto& before = at_path(*current, "data"); before.is_object() && before.contains("ca.crt") && before["ca.crt"].is_string())
                if (const auto known = crypto::read_certificates(before["ca.crt"].get<std::string>()))
                    for (const auto& certificate : *known)
                        if (certificate.not_after_ms() > now && bundle.size() < bundle_max && std::ranges::none_of(bundle, [&](const auto& c) { return c.fingerprint() == certificate.fingerprint(); })) bundle.push_back(certificate);
        std::string text;
        for (const auto& certificate : bundle) text += certificate.pem();
        if (const auto why = put("ConfigMap", trust_bundle, {{"data", {{"ca.crt", text}}}}); !why.empty()) return Outcome::retry(why);
        if (const auto why = put("Secret", internal_ca, {{"data", {{"ca.crt", base64_encode(text)}}}}); !why.empty()) return Outcome::retry(why);
        return Outcome::after(look_again_ms);
    }

  private:
    std::string put(const char* kind, const char* name, const Json& content) {
        const auto current = objects_.get(core(kind), system_namespace, name);
        if (current != nullptr && at_path(*current, "data") == content["data"]) return {};
        if (current == nullptr) {
            auto object = content;
            object["metadata"] = {{"name", name}, {"namespace", system_namespace}};
            if (auto done = objects_.create(core(kind), system_namespace, object, manager); !done) return done.error().message;
            return {};
        }
        if (auto done = objects_.patch(core(kind), system_namespace, name, registry::PatchType::merge, content, manager); !done) return done.error().message;
        return {};
    }
    /// Makes what is missing; what is there belongs to the user.
    std::string make_objects() {
        auto ensure = [&](const resources::Kind& kind, const std::string& space, const char* name, Json content) -> std::string {
            if (objects_.get(kind, space, name) != nullptr) return {};
            content["apiVersion"] = kind.api_version();
            content["kind"] = kind.kind;
            content["metadata"]["name"] = name;
            if (!space.empty()) content["metadata"]["namespace"] = space;
            // Applied as the defaults' manager: it yields to whoever wants it otherwise.
            if (auto done = objects_.patch(kind, space, name, registry::PatchType::apply, content, registry::defaults_manager); !done) return fmt::format("{} {}: {}", kind.kind, name, done.error().message);
            return {};
        };
        for (const char* space : {ca_namespace, system_namespace})
            if (auto why = ensure(core("Namespace"), "", space, Json::object()); !why.empty()) return why;
        const bool own_ca = objects_.get(issuer_kind(true), "", default_issuer) == nullptr;
        if (own_ca) {
            if (auto why = ensure(issuer_kind(true), "", root_issuer, {{"spec", {{"selfSigned", Json::object()}}}}); !why.empty()) return why;
            // Five years, renewed after four: for a year both CAs are in the bundle.
            if (auto why = ensure(certificate_kind(), ca_namespace, ca_secret,
                                  {{"spec", {{"secretName", ca_secret}, {"isCA", true}, {"commonName", "Penstock self-signed CA"}, {"duration", "43800h"}, {"renewBefore", "8760h"},
                                             {"privateKey", {{"algorithm", "ECDSA"}, {"size", 256}, {"rotationPolicy", "Always"}}}, {"issuerRef", {{"group", "cert-manager.io"}, {"kind", "ClusterIssuer"}, {"name", root_issuer}}}}}});
                !why.empty())
                return why;
        }
        return ensure(issuer_kind(true), "", default_issuer, {{"spec", {{"ca", {{"secretName", ca_secret}}}}}});
    }

    Objects& objects_;
    Clock clock_;
};

}  // namespace

std::optional<std::string> secret_text(const Json& secret, const std::string& key) {
    const auto& data = at_path(secret, "data");
    if (!data.is_object() || !data.contains(key) || !data[key].is_string()) return std::nullopt;
    return base64_decode(data[key].get_ref<const std::string&>());
}

CertificateControllers::CertificateControllers(Objects& objects, const Clock& clock)
    : recorder_(objects, "cert-manager-certificates", clock), engine_(objects, clock) {
    engine_.add(std::make_unique<TrustReconciler>(
        objects, clock));   // first: the bundle has a CA before anybody shows what it signed
    engine_.add(std::make_unique<IssuerReconciler>(objects, true, clock));
    engine_.add(std::make_unique<IssuerReconciler>(objects, false, clock));
    engine_.add(std::make_unique<CertificateReconciler>(objects, recorder_, clock));
}

std::string certificate_fault(const Json& certificate, std::int64_t now_ms) {
    auto wanted = wanted_of(certificate);
    if (!wanted) return wanted.error().message;
    // Issued once, by a key that costs nothing to make: names, usages and subject show their faults.
    const bool is_rsa = wanted->key_algorithm.starts_with("Rsa");
    const auto bits =
        is_rsa ? parse_number<int>(std::string_view(wanted->key_algorithm).substr(3)) : std::nullopt;
    const auto key = crypto::make_key(is_rsa ? "Ec256" : wanted->key_algorithm);
    if (!key || (is_rsa && (bits.value_or(0) < 2048 || *bits > 8192)))
        return "spec.privateKey.size: RSA keys have 2048 to 8192 bits, ECDSA keys 256, 384 or 521";
    wanted->options.not_before_ms = now_ms;
    wanted->options.not_after_ms = now_ms + wanted->duration_ms;
    const auto issued = crypto::issue_certificate(*key, nullptr, wanted->options);
    return issued ? std::string() : "spec: " + issued.error().message;
}

std::string issuer_fault(const Objects& objects, const Json& issuer, std::int64_t now_ms) {
    const auto signer = signer_of(objects, issuer, now_ms);
    return signer ? std::string() : signer.error().message;
}

std::string certificate_metrics(const Objects& objects) {
    std::string out =
        "# HELP penstock_certificate_not_after_timestamp_seconds Unix time at which the certificate of a Certificate resource "
        "ends.\n# TYPE penstock_certificate_not_after_timestamp_seconds gauge\n";
    for (const auto& item : objects.list(certificate_kind(), ""))
        if (const auto end = parse_rfc3339(text_at(*item, "status.notAfter")); end > 0)
            out += fmt::format("penstock_certificate_not_after_timestamp_seconds{{namespace=\"{}\",name=\"{}\"}} {}\n",
                               text_at(*item, "metadata.namespace"), text_at(*item, "metadata.name"),
                               end / 1000);
    out +=
        "# HELP penstock_issuer_ca_not_after_timestamp_seconds Unix time at which the CA of an Issuer or ClusterIssuer "
        "ends.\n# TYPE penstock_issuer_ca_not_after_timestamp_seconds gauge\n";
    for (const bool cluster : {true, false})
        for (const auto& item : objects.list(issuer_kind(cluster), ""))
            if (const auto signer = signer_of(objects, *item, 0); signer && !signer->self)
                out += fmt::format(
                    "penstock_issuer_ca_not_after_timestamp_seconds{{kind=\"{}\",namespace=\"{}\",name=\"{}\"}} {}\n",
                    cluster ? "ClusterIssuer" : "Issuer", text_at(*item, "metadata.namespace"),
                    text_at(*item, "metadata.name"), signer->chain.front().not_after_ms() / 1000);
    return out;
}

}  // namespace penstock::control
