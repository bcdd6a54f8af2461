#include "control/certificates.h"

#include <algorithm>
#include <expected>
#include <iterator>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "control/certificate_checks.h"
#include "control/certificate_outlook.h"
#include "control/certificate_signer.h"
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

Json status_of(const Json& object) { return at_path(object, "status").is_object() ? at_path(object, "status") : Json::object(); }

/// The object as it is now, for a status about what was looked at: that is the generation which it has observed. Null: it is another
/// object of the same name.
Json as_looked_at(const Json& now, const Json& looked_at) {
    if (text_at(now, "metadata.uid") != text_at(looked_at, "metadata.uid")) return nullptr;
    auto out = now;
    if (const auto& generation = at_path(looked_at, "metadata.generation"); !generation.is_null()) out["metadata"]["generation"] = generation;
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

        const auto held = HeldIdentity::in(secret.get());
        const auto signer = signer_for(*certificate, now);
        const auto due = why_due({.certificate = *certificate,
                                  .wanted = *wanted,
                                  .secret = secret.get(),
                                  .held = held,
                                  .signer = signer ? &*signer : nullptr,
                                  .is_in_a_circle = is_in_a_circle(*certificate),
                                  .now_ms = now});
        if (!due)
            return ready(*certificate, held.chain.front(), *wanted, false,
                         signer ? "" : cannot_issue(*certificate, signer.error()));
        log::debug("control", "a certificate is due certificate={}/{} check=\"{}\" reason={} why=\"{}\"",
                   key.name_space, key.name, due->check->name, due->check->reason, due->why);
        if (!signer) {
            not_ready(*certificate, signer.error().reason,
                      fmt::format("{}; {}", due->why, signer.error().message));
            return Outcome::settled();
        }
        return issue(*certificate, *wanted, *signer, held, due->why);
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
    Outcome issue(const Json& certificate, const WantedCertificate& wanted, const Signer& signer,
                  const HeldIdentity& held, const std::string& why) {
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
        options.not_before_ms = now - clock_skew_ms;
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
    static std::string crosses(const HeldIdentity& held, const std::string& key_pem,
                               crypto::IssueOptions options, std::int64_t now) {
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
    Outcome ready(const Json& looked_at, const crypto::Certificate& have, const WantedCertificate& wanted,
                  bool fresh, const std::string& cannot_renew) {
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
