#include "control/security.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/own_command.h"
#include "base/text.h"
#include "control/certificate_outlook.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "crypto/hash.h"
#include "crypto/password.h"
#include "crypto/signature.h"
#include "io/wait.h"
#include "tls/rehearsal.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;
using resources::texts_of;

namespace {

constexpr const char* manager = "penstock-broker";
constexpr std::size_t trusted_max = 2000;   // certificates of one method
constexpr std::size_t told_max = 10;        // certificates whose faults are told one by one
constexpr std::string_view attribute_annotation = "aio-broker-auth/";

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& broker_kind(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }
const resources::Kind& certificate_kind() { return *resources::find_kind("cert-manager.io/v1", "Certificate"); }

/// What an object's meaning depends on, short: its identity and version.
std::string version_of(const registry::ObjectRef& object) {
    return object == nullptr ? std::string("-") : text_at(*object, "metadata.uid") + "@" + text_at(*object, "metadata.resourceVersion");
}

std::shared_ptr<const auth::Attributes> attributes_of(const Json& map) {
    auto out = std::make_shared<auth::Attributes>();
    if (map.is_object())
        for (const auto& [key, value] : map.items())
            if (value.is_string()) out->emplace(key, value.get<std::string>());
    return out;
}

bool is_address(const std::string& host) { return host.find(':') != std::string::npos || std::ranges::all_of(host, [](char c) { return c == '.' || (c >= '0' && c <= '9'); }); }

/// cert-manager's spelling of AIO's key algorithms.
Json private_key_of(const Json& key) {
    const auto word = resources::canonical({"Ec256", "Ec384", "Ec521", "Ed25519", "Rsa2048", "Rsa4096", "Rsa8192"}, text_at(key, "algorithm", "Ec256"));
    Json out = {{"rotationPolicy", resources::canonical({"Always", "Never"}, text_at(key, "rotationPolicy", "Always"))}};
    if (word == "Ed25519") {
        out["algorithm"] = "Ed25519";
        return out;
    }
    out["algorithm"] = word.starts_with("Ec") ? "ECDSA" : "RSA";
    out["size"] = parse_number<int>(std::string_view(word).substr(word.starts_with("Ec") ? 2 : 3)).value_or(256);
    return out;
}

}  // namespace

std::string certificate_name(const Json& listener, const Json& port) {
    const auto given = text_at(port, "tls.certManagerCertificateSpec.secretName");
    return given.empty() ? fmt::format("{}-{}-tls", text_at(listener, "metadata.name"), resources::integer_of(port, "port")) : given;
}

std::vector<std::string> expected_hosts(const Json& listener) {
    const auto service = text_at(listener, "spec.serviceName", text_at(listener, "metadata.name")), space = text_at(listener, "metadata.namespace");
    std::vector<std::string> out{service, fmt::format("{}.{}", service, space), fmt::format("{}.{}.svc", service, space), fmt::format("{}.{}.svc.cluster.local", service, space), "localhost"};
    // A machine's name that is no DNS name cannot be in a certificate, and nobody can dial it.
    const auto machine = to_lower(io::machine_name());
    if (!machine.empty() && machine.size() <= 253 && std::ranges::all_of(machine, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.'; })) out.push_back(machine);
    out.emplace_back("127.0.0.1");
    out.emplace_back("::1");
    if (!equal_no_case(text_at(listener, "spec.serviceType", "ClusterIp"), "ClusterIp"))
        for (auto& address : io::machine_addresses()) out.push_back(std::move(address));
    std::vector<std::string> unique;
    for (auto& host : out)
        if (std::ranges::find(unique, host) == unique.end()) unique.push_back(std::move(host));
    return unique;
}

// --- TLS ---

namespace {

/// A certificate that somebody made for a port that the network reaches: the names in it are those that he has clients use. It is
/// enough that one of them leads here; what lives in a DNS elsewhere is not known here and is taken to.
bool names_are_chosen(const crypto::Certificate& leaf, const SecurityBuilder::Dialled& dialled) {
    if (dialled.is_automatic || equal_no_case(text_at(dialled.listener, "spec.serviceType", "ClusterIp"), "ClusterIp")) return false;
    const auto service = text_at(dialled.listener, "spec.serviceName", text_at(dialled.listener, "metadata.name"));
    auto stays_here = [&](const std::string& name) { return name == "localhost" || name == "127.0.0.1" || name == "::1" || name == service || name.starts_with(service + "."); };
    if (std::ranges::any_of(leaf.dns_names(), [&](const auto& name) { return !stays_here(name); })) return true;
    return std::ranges::any_of(dialled.expected, [&](const auto& host) { return !stays_here(host) && leaf.covers(host); });
}

/// The names that `host` is missing from are told with what the certificate has instead.
std::string uncovered_warning(const crypto::Certificate& leaf, const SecurityBuilder::Dialled& dialled) {
    std::string missing;
    if (names_are_chosen(leaf, dialled)) return {};
    for (const auto& host : dialled.expected) {
        // The Service's names are for pods; on one machine they matter where the certificate is ours.
        const auto service = text_at(dialled.listener, "spec.serviceName", text_at(dialled.listener, "metadata.name"));
        if (!dialled.is_automatic && host.find(service) == 0 && host != "localhost") continue;
        if (!leaf.covers(host)) missing += (missing.empty() ? "" : ", ") + host;
    }
    if (missing.empty()) return {};
    auto all = leaf.dns_names();
    const auto ips = leaf.addresses();
    all.insert(all.end(), ips.begin(), ips.end());
    return fmt::format("the certificate does not cover {}: clients that use one of these as the host refuse it; it covers {}", missing, fmt::join(all, ", "));
}

}  // namespace

std::int64_t SecurityBuilder::judge(PreparedTls& prepared, const Dialled& dialled) const {
    constexpr std::int64_t hour_ms = 3'600'000;
    const auto now = options_.clock.wall_ms();
    const auto& chain = prepared.context->chain();
    prepared.judgement.chain = chain;
    prepared.judgement.findings = crypto::examine_chain(chain, crypto::Purpose::server, now);
    prepared.warnings.clear();
    for (const auto& finding : prepared.judgement.findings)
        if (finding.is_fault() || finding.message.find(" ends in ") != std::string::npos) prepared.warnings.push_back(finding.message);
    if (const auto& leaf = chain.front(); !leaf.dns_names().empty() || !leaf.addresses().empty())
        if (auto warning = uncovered_warning(leaf, dialled); !warning.empty()) prepared.warnings.push_back(std::move(warning));
    auto until = now + hour_ms;
    for (const auto& certificate : chain)
        for (const auto change : {certificate.not_before_ms(), certificate.not_after_ms()})
            if (change > now) until = std::min(until, change);
    return until;
}

PreparedTls SecurityBuilder::or_last_good(Kept<PreparedTls>& kept, PreparedTls wanted, const std::string& listener) {
    // What was served before stays comparable with nothing: the wanted one is looked at anew as soon as it is there.
    kept.made_from.clear();
    if (kept.value.context == nullptr) return wanted;
    if (std::exchange(kept.told, wanted.fault) != wanted.fault) log::warn("control", "the certificate of a listener is not there or cannot be used, the one before goes on listener={} why=\"{}\"", listener, wanted.fault);
    auto out = kept.value;
    // What it came from may not be what the listener names by now: a cure is about the latter.
    out.wanted = wanted.wanted;
    out.warnings.insert(out.warnings.begin(), fmt::format("{}; the certificate before (ends {}) goes on being served until then, and is gone when penstock restarts", wanted.fault, rfc3339(out.context->chain().front().not_after_ms())));
    return out;
}

namespace {

/// What is said of an entry that is a whole password file (`kubectl create secret generic people
/// --from-file=passwd`); empty: it is none.
std::string password_file_in(const Objects& objects, const std::string& space, const std::string& secret,
                             const std::string& entry, const std::string& text) {
    const auto users = crypto::read_password_file(text);
    if (!users || std::ranges::none_of(*users, [](const auto& one) { return one.hash.starts_with('$'); }))
        return {};
    const auto head = fmt::format("entry \"{}\" of Secret {} is a whole password file with {} user{}, of "
                                  "whom none can log in: here each user is an entry of its own",
                                  entry, secret, users->size(), users->size() == 1 ? "" : "s");
    const auto take_out = fmt::format("kubectl patch secret {} -n {} --type merge -p 'data: {{{}: null}}'",
                                      secret, space, yaml_word(entry));
    auto change = [&](const std::string& command) {
        return change_command(objects, core("Secret"), space, secret, command);
    };
    const auto bad = std::ranges::find_if(*users, [](const auto& one) { return !one.fault.empty(); });
    if (bad != users->end())
        return fmt::format("{}, and its line {} ({}) cannot become one; set each password anew with: {}; "
                           "take the file out with: {}",
                           head, bad->number, bad->fault, passwd_command(objects, space, secret, "USER"),
                           change(take_out));
    // A user with the file's name takes its place.
    const bool stays = std::ranges::any_of(*users, [&](const auto& one) { return one.user == entry; });
    // Without quotes and backslashes, as in compare_pair().
    const auto take_over =
        fmt::format("kubectl get secret {} -n {} "
                    "-o go-template='{{{{index .data `{}` | base64decode}}}}' | {}",
                    secret, space, entry,
                    own_command(fmt::format("passwd -n {} {} --import /dev/stdin", space, secret)));
    return fmt::format("{}; make it so with: {}", head,
                       change(stays ? take_over : take_over + " && " + take_out));
}

/// The users of a Secret who can log in; of the others `warnings` gets what is said. `attributes`: of each by
/// name.
std::map<std::string, auth::PasswordMethod::User, std::less<>> users_of(
    const Objects& objects, const Json& secret, const Json& attributes, std::vector<std::string>& warnings) {
    const auto space = text_at(secret, "metadata.namespace"), name = text_at(secret, "metadata.name");
    std::map<std::string, auth::PasswordMethod::User, std::less<>> out;
    const auto& data = at_path(secret, "data");
    if (!data.is_object()) return out;
    for (const auto& [user, value] : data.items()) {
        auto hash = secret_text(secret, user).value_or("");
        while (hash.ends_with('\n') || hash.ends_with('\r')) hash.pop_back();
        const auto own = attributes.is_object() ? attributes.value(user, Json()) : Json();
        const auto why = crypto::password_hash_fault(hash);
        auto file = why.empty() ? "" : password_file_in(objects, space, name, user, hash);
        if (why.empty())
            out.emplace(user, auth::PasswordMethod::User{.hash = std::move(hash), .attributes = attributes_of(own)});
        else if (!file.empty())
            warnings.push_back(std::move(file));
        else
            warnings.push_back(
                fmt::format("user \"{}\" of Secret {} cannot log in: {}; set the password anew with: {}", user,
                            name, why, passwd_command(objects, space, name, user)));
    }
    return out;
}

/// What is said of a Secret with a certificate, or a ConfigMap with CAs, that is not there; `field` and `edit` as for
/// absent_object().
std::string absent_pair(const Objects& objects, const std::string& space, const std::string& name, const char* field,
                        const std::string& edit) {
    auto why = awaited_object(objects, core("Secret"), space, name);
    if (!why.empty()) return why;
    return absent_object(core("Secret"), space, name, field, edit,
                         "kubectl create secret tls {} -n {} --cert=CHAIN.crt --key=KEY.key");
}
std::string absent_bundle(const Objects& objects, const std::string& space, const std::string& name,
                          const char* field, const std::string& edit, const char* entry) {
    auto why = awaited_object(objects, core("ConfigMap"), space, name);
    if (!why.empty()) return why;
    const auto make = fmt::format("kubectl create configmap {{}} -n {{}} --from-file={}=CA.crt", entry);
    return absent_object(core("ConfigMap"), space, name, field, edit, make.c_str());
}

/// Why the Secret of a Certificate is not there.
std::string why_not_issued(const Json* certificate, const std::string& name) {
    if (certificate != nullptr)
        if (const auto& conditions = at_path(*certificate, "status.conditions"); conditions.is_array())
            for (const auto& condition : conditions)
                if (text_at(condition, "type") == "Ready" && text_at(condition, "status") == "False")
                    return fmt::format("Certificate {}: {}", name, text_at(condition, "message"));
    return fmt::format("its certificate is not issued yet (Certificate {})", name);
}

}  // namespace

PreparedTls SecurityBuilder::tls(const Json& listener, const Json& port, const std::vector<std::string>& expected, bool ask_certificate, const std::vector<crypto::Certificate>& authorities, bool websocket) {
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const auto& settings = at_path(port, "tls");
    const bool automatic = at_path(settings, "certManagerCertificateSpec").is_object();
    PreparedTls out;
    auto& kept = tls_[fmt::format("{}/{}:{}", space, name, port.value("port", 0))];
    kept.used = true;
    auto or_before = [&] { return or_last_good(kept, std::move(out), space + "/" + name); };
    std::string not_issued;
    if (automatic) {
        const auto& spec = at_path(settings, "certManagerCertificateSpec");
        out.secret = out.wanted = certificate_name(listener, port);
        std::vector<std::string> dns = texts_of(at_path(spec, "san.dns")), ips = texts_of(at_path(spec, "san.ip"));
        for (const auto& host : expected) {
            auto& list = is_address(host) ? ips : dns;
            if (std::ranges::find(list, host) == list.end()) list.push_back(host);
        }
        const auto& issuer = at_path(spec, "issuerRef");
        Json wanted = {{"secretName", out.secret}, {"commonName", std::string(clipped(text_at(listener, "spec.serviceName", name), 64))}, {"dnsNames", dns}, {"ipAddresses", ips}, {"usages", {"digital signature", "key encipherment", "server auth"}},
                       {"issuerRef", {{"group", text_at(issuer, "group", "cert-manager.io")}, {"kind", resources::canonical({"Issuer", "ClusterIssuer"}, text_at(issuer, "kind"))}, {"name", text_at(issuer, "name")}}},
                       {"privateKey", private_key_of(at_path(spec, "privateKey"))}};
        for (const char* field : {"duration", "renewBefore"})
            if (const auto value = text_at(spec, field); !value.empty()) wanted[field] = value;
        const Json object = {{"apiVersion", "cert-manager.io/v1"}, {"kind", "Certificate"},
                             {"metadata", {{"name", out.secret}, {"namespace", space},
                                           {"ownerReferences", Json::array({{{"apiVersion", text_at(listener, "apiVersion")}, {"kind", "BrokerListener"}, {"name", name}, {"uid", text_at(listener, "metadata.uid")}, {"controller", true}}})}}},
                             {"spec", wanted}};
        const auto current = objects_.get(certificate_kind(), space, out.secret);
        if (current == nullptr || resources::merge_applied(*current, object, certificate_kind().schema) != *current || at_path(*current, "spec.dnsNames") != wanted["dnsNames"] || at_path(*current, "spec.ipAddresses") != wanted["ipAddresses"]) {
            if (auto done = objects_.patch(certificate_kind(), space, out.secret, registry::PatchType::apply, object, manager); !done) {
                out.fault = done.error().code == 404 ? fmt::format("tls: Certificate {} cannot be written, for this cluster has no cert-manager; install it, or use tls.mode Manual", out.secret)
                                                     : fmt::format("tls: Certificate {} cannot be written: {}", out.secret, done.error().message);
                return or_before();
            }
        }
        not_issued = why_not_issued(current.get(), out.secret);
    } else {
        out.secret = out.wanted = text_at(settings, "manual.secretRef");
        const auto edit = edit_command("brokerlistener", space + "/" + name);
        not_issued = absent_pair(objects_, space, out.secret, "tls.manual.secretRef", edit);
    }
    const auto secret = objects_.get(core("Secret"), space, out.secret);
    std::string made_from = fmt::format("{} {} {} {}", version_of(secret), ask_certificate, websocket, fmt::join(expected, ","));
    for (const auto& authority : authorities) made_from += authority.fingerprint();
    if (secret == nullptr) {
        out.fault = not_issued;
        out.is_being_issued = automatic;
        return or_before();
    }
    if (kept.made_from == made_from) {
        // Certificates end while nothing is written.
        if (options_.clock.wall_ms() >= kept.judged_until_ms)
            kept.judged_until_ms = judge(kept.value, {listener, automatic, expected});
        return kept.value;
    }

    auto chain_text = secret_text(*secret, "tls.crt"), key = secret_text(*secret, "tls.key");
    if (!chain_text || !key) {
        out.fault = fmt::format("Secret {}/{} needs the entries tls.crt and tls.key (type kubernetes.io/tls); {}", space, out.secret, automatic ? "have it issued anew with: " + issue_command(objects_, space, out.secret) : "put them in with: " + put_command(objects_, space, out.secret));
        return or_before();
    }
    tls::ServerOptions options{.certificate_chain = *chain_text, .key = *key, .ask_client_certificate = ask_certificate, .client_authorities = authorities};
    options.protocols = websocket ? std::vector<std::string>{"http/1.1", "mqtt"} : std::vector<std::string>{"mqtt"};
    out.judgement =
        crypto::judge_identity(*chain_text, *key, crypto::Purpose::server, options_.clock.wall_ms());
    auto context = out.judgement.is_usable() ? tls::Context::server(options) : fail(out.judgement.because_of(crypto::Weight::unusable));
    if (auto why = context ? tls::rehearse(*context) : std::string(); !why.empty()) context = fail(std::move(why));
    if (!context) {
        // Of a chain that OpenSSL does not take, the judgement says what to do about it.
        const auto judged = out.judgement.because_of(crypto::Weight::all_refuse);
        out.fault = fmt::format("Secret {}/{}: {}", space, out.secret, out.judgement.is_usable() && !judged.empty() ? judged : context.error().message);
        if (out.judgement.is_key_of_another) out.fault += "; " + compare_pair(space, out.secret);
        out.fault += automatic ? "; have it issued anew with: " + issue_command(objects_, space, out.secret) : "; put a pair that can be used there, with: " + put_command(objects_, space, out.secret);
        return or_before();   // a renewal that went wrong must not take the port away
    }
    out.context = std::move(*context);
    kept.judged_until_ms = judge(out, {listener, automatic, expected});
    if (!std::exchange(kept.told, {}).empty()) log::info("control", "the certificate of a listener is there again listener={}/{} secret={}", space, name, out.secret);
    kept.made_from = std::move(made_from);
    kept.value = out;
    return out;
}

// --- authentication ---

std::shared_ptr<const auth::TokenFacts> SecurityBuilder::token_facts() {
    const auto keys = options_.token_keys ? options_.token_keys() : TokenKeys{};
    std::string made_from = keys.key_set.dump();
    for (const auto& issuer : keys.issuers) made_from += issuer;
    const auto accounts = objects_.list(core("ServiceAccount"), "");
    std::vector<std::string> uids;
    for (const auto& secret : objects_.list(core("Secret"), ""))
        if (text_at(*secret, "type") == "kubernetes.io/service-account-token") uids.push_back(text_at(*secret, "metadata.uid"));
    for (const auto& pod : objects_.list(core("Pod"), "")) uids.push_back(text_at(*pod, "metadata.uid"));
    for (const auto& account : accounts) made_from += version_of(account);
    for (const auto& uid : uids) made_from += uid;
    made_from = crypto::sha256(made_from);
    if (facts_ != nullptr && made_from == facts_of_) return facts_;
    auto out = std::make_shared<auth::TokenFacts>();
    out->issuers = keys.issuers;
    out->is_known = !keys.issuers.empty();
    if (const auto& set = at_path(keys.key_set, "keys"); set.is_array())
        for (const auto& key : set) {
            auto bytes = [&](const char* field) { return crypto::base64url_decode(text_at(key, field)).value_or(""); };
            const auto made = text_at(key, "kty") == "RSA" ? crypto::JwsKey::rsa(bytes("n"), bytes("e"), text_at(key, "alg")) : crypto::JwsKey::elliptic(text_at(key, "crv"), bytes("x"), bytes("y"));
            if (made) out->keys.emplace(text_at(key, "kid"), *made);
            else log::warn("control", "a published token key is left out kid={} why=\"{}\"", text_at(key, "kid"), made.error().message);
        }
    for (const auto& account : accounts) {
        auth::Attributes attributes;
        if (const auto& marks = at_path(*account, "metadata.annotations"); marks.is_object())
            for (const auto& [name, value] : marks.items())
                if (name.starts_with(attribute_annotation) && value.is_string()) attributes.emplace(name.substr(attribute_annotation.size()), value.get<std::string>());
        out->accounts.emplace(text_at(*account, "metadata.namespace") + "/" + text_at(*account, "metadata.name"),
                              auth::TokenFacts::Account{.uid = text_at(*account, "metadata.uid"), .attributes = std::make_shared<const auth::Attributes>(std::move(attributes))});
    }
    out->bound_uids.insert(uids.begin(), uids.end());
    facts_of_ = std::move(made_from);
    return facts_ = std::move(out);
}

PreparedAuthenticator SecurityBuilder::authenticator(const std::string& space, const std::string& name) {
    PreparedAuthenticator out;
    auto& kept = authenticators_[space + "/" + name];
    kept.used = true;
    const auto object = objects_.get(broker_kind("BrokerAuthentication"), space, name);
    if (object == nullptr) {
        kept.made_from.clear();
        out.fault = "authenticationRef: " + absent_rules(objects_, "BrokerAuthentication", space, name);
        if (kept.value.authenticator == nullptr) return out;
        auto last = kept.value;
        last.deleted = fmt::format("BrokerAuthentication {}/{} was deleted; apply it again", space, name);
        if (std::exchange(kept.told, last.deleted) != last.deleted) log::warn("control", "rules were deleted: who is connected stays, newcomers are refused why=\"{}\"", last.deleted);
        return last;
    }
    const auto& methods = at_path(*object, "spec.authenticationMethods");
    std::string made_from = text_at(*object, "metadata.uid") + "@" + at_path(*object, "metadata.generation").dump() + at_path(*object, "metadata.annotations").dump();
    std::vector<registry::ObjectRef> inputs;
    auto input = [&](const char* kind, const std::string& at) {
        auto found = at.empty() ? nullptr : objects_.get(core(kind), space, at);
        made_from += fmt::format("|{}:{}", at, version_of(found));
        return found;
    };
    std::shared_ptr<const auth::TokenFacts> facts;
    for (const auto& method : methods) {
        inputs.push_back(nullptr);
        const auto kind = text_at(method, "method");
        if (equal_no_case(kind, "X509")) inputs.back() = input("ConfigMap", text_at(method, "x509Settings.trustedClientCaCert", "client-ca"));
        if (equal_no_case(kind, "Password")) inputs.back() = input("Secret", text_at(method, "passwordSettings.secretRef"));
        if (equal_no_case(kind, "Custom")) {
            inputs.back() = input("ConfigMap", text_at(method, "customSettings.caCertConfigMap"));
            input("Secret", text_at(method, "customSettings.auth.x509.secretRef"));
        }
        if (equal_no_case(kind, "ServiceAccountToken")) {
            facts = token_facts();
            made_from += "|" + base64_encode(facts_of_);
        }
    }
    if (!kept.made_from.empty() && kept.made_from == made_from) return kept.value;

    std::vector<std::shared_ptr<auth::Method>> made;
    constexpr std::size_t faults_told = 10;
    std::size_t faults = 0;
    for (std::size_t i = 0; i < methods.size(); ++i) {
        const auto& method = methods[i];
        const auto kind = text_at(method, "method");
        const auto path = fmt::format("BrokerAuthentication {}: spec.authenticationMethods[{}]", name, i);
        // All that is wrong is told at once, of each method the first few.
        const auto told_before = faults;
        auto tell = [&](const std::string& why, bool is_lack) {
            if (++faults <= faults_told) out.fault += fmt::format("{}{}.{}", out.fault.empty() ? "" : "; ", path, why);
            out.lacks_source |= is_lack;
            out.only_lacks &= is_lack;
        };
        auto fault = [&](const std::string& why) { tell(why, false); };
        auto lacks = [&](const std::string& why) { tell(why, true); };
        const auto edit = edit_command("brokerauthentication", space + "/" + name);
        auto& way = out.ways.emplace_back();
        way.method = kind;
        way.field = fmt::format("BrokerAuthentication {}/{}: spec.authenticationMethods[{}]", space, name, i);
        if (equal_no_case(kind, "ServiceAccountToken")) {
            made.push_back(std::make_shared<auth::TokenMethod>(texts_of(at_path(method, "serviceAccountTokenSettings.audiences")), facts));
            way.source = "the resource API (/openid/v1/jwks)";
            way.keys_are_known = facts != nullptr && facts->is_known;
        } else if (equal_no_case(kind, "X509")) {
            const auto trust_name = text_at(method, "x509Settings.trustedClientCaCert", "client-ca");
            out.wants_certificate = true;
            std::vector<crypto::Certificate> trusted;
            std::vector<crypto::RevocationList> lists;
            std::string list_entries;
            auto put_into = [&](const std::string& entry) { return put_entry_command(objects_, space, trust_name, entry, "ALL-CAS.crt"); };
            std::vector<std::string> put;   // as `trusted`
            if (inputs[i] == nullptr) {
                lacks("x509Settings.trustedClientCaCert: " +
                      absent_bundle(objects_, space, trust_name, "x509Settings.trustedClientCaCert", edit, "client_ca.pem"));
                continue;
            }
            for (const char* part : {"data", "binaryData"}) {
                const auto& data = at_path(*inputs[i], part);
                if (!data.is_object()) continue;
                for (const auto& [entry, value] : data.items()) {
                    if (!value.is_string()) continue;
                    const auto text = std::string_view(part) == "data" ? value.get<std::string>() : base64_decode(value.get<std::string>()).value_or("");
                    auto certificates = crypto::read_certificates(text);
                    auto revoked = crypto::read_revocation_lists(text);
                    if (!certificates || !revoked) {
                        fault(fmt::format("x509Settings.trustedClientCaCert: ConfigMap {} entry {}: {}; put it right with: {}", trust_name, entry, !certificates ? certificates.error().message : revoked.error().message, change_command(objects_, core("ConfigMap"), space, trust_name, edit_command("configmap", space + "/" + trust_name))));
                        continue;
                    }
                    if (!revoked->empty()) list_entries += (list_entries.empty() ? "" : ", ") + entry;
                    if (!certificates->empty()) put.insert(put.end(), certificates->size(), put_into(entry));
                    trusted.insert(trusted.end(), certificates->begin(), certificates->end());
                    lists.insert(lists.end(), revoked->begin(), revoked->end());
                }
            }
            if (faults == told_before && trusted.empty()) fault(fmt::format("x509Settings.trustedClientCaCert: ConfigMap {} has no certificate in PEM; put the CA into it with: {}", trust_name, put_entry_command(objects_, space, trust_name, "client_ca.pem", "CA.crt")));
            if (faults != told_before) continue;
            if (trusted.size() > trusted_max) fault(fmt::format("x509Settings.trustedClientCaCert: ConfigMap {} has {} certificates, of which {} at most are taken: put in those of CAs, not of clients", trust_name, trusted.size(), trusted_max));
            if (const auto signatures = crypto::RevocationLists::signatures_of(lists, trusted); signatures > crypto::RevocationLists::signatures_max)
                fault(fmt::format("x509Settings.trustedClientCaCert: ConfigMap {}: {} revocation lists with all certificates of their issuers' names are {} signatures to check, of which {} at most are taken: take out lists and certificates that a later one replaces", trust_name, lists.size(), signatures, crypto::RevocationLists::signatures_max));
            if (faults != told_before) continue;
            std::size_t faulty = 0;
            for (std::size_t k = 0; k < trusted.size(); ++k) {
                const auto findings =
                    crypto::examine_authority(trusted[k], crypto::Purpose::client, options_.clock.wall_ms());
                if (findings.empty() || ++faulty > told_max) continue;
                for (const auto& finding : findings) out.warnings.push_back(fmt::format("a trusted certificate of ConfigMap {}: {}; put those that clients have now into it, with: {}", trust_name, finding.message, put[k]));
            }
            if (faulty > told_max) out.warnings.push_back(fmt::format("of {} more trusted certificates of ConfigMap {} something is wrong too; see each of them with: kubectl get configmap {} -n {} -o yaml", faulty - told_max, trust_name, trust_name, space));
            std::vector<auth::X509Method::Entry> entries;
            if (const auto& map = at_path(method, "x509Settings.authorizationAttributes"); map.is_object())
                for (const auto& [label, entry] : map.items()) entries.push_back({.label = label, .subject = text_at(entry, "subject"), .attributes = attributes_of(at_path(entry, "attributes"))});
            out.authorities.insert(out.authorities.end(), trusted.begin(), trusted.end());
            way.source = fmt::format("ConfigMap {}/{}", space, trust_name);
            way.trusted = trusted;
            way.put = std::move(put);
            const auto store = std::make_shared<const crypto::TrustStore>(std::move(trusted), std::move(lists));
            for (auto& warning : store->lists().warnings()) out.warnings.push_back(fmt::format("ConfigMap {}: {}; its lists stand in entry {}, which is changed with: {}", trust_name, warning, list_entries, change_command(objects_, core("ConfigMap"), space, trust_name, edit_command("configmap", space + "/" + trust_name))));
            const auto& marks = at_path(*object, "metadata.annotations");
            const auto ocsp = marks.is_object() ? marks.value("penstock.io/ocsp", "Off") : std::string("Off");
            made.push_back(std::make_shared<auth::X509Method>(store, std::move(entries), "ConfigMap " + trust_name,
                                                              options_.revocation && !equal_no_case(ocsp, "Off") ? options_.revocation(ocsp) : nullptr));
        } else if (equal_no_case(kind, "Password")) {
            const auto secret_name = text_at(method, "passwordSettings.secretRef");
            if (inputs[i] == nullptr) {
                lacks("passwordSettings.secretRef: " + absent_object(core("Secret"), space, secret_name, "passwordSettings.secretRef", edit, own_command("passwd -n {1} {0} USER").c_str()));
                continue;
            }
            auto users = users_of(objects_, *inputs[i],
                                  at_path(method, "passwordSettings.authorizationAttributes"), out.warnings);
            way.source = fmt::format("Secret {}/{}", space, secret_name);
            way.users = users.size(), way.put = {passwd_command(objects_, space, secret_name, "USER")};
            made.push_back(std::make_shared<auth::PasswordMethod>(std::move(users), options_.crew));
        } else {
            const auto& settings = at_path(method, "customSettings");
            Json resolved = {{"endpoint", text_at(settings, "endpoint")}, {"headers", at_path(settings, "headers").is_object() ? at_path(settings, "headers") : Json::object()}, {"ca", ""}};
            if (const auto ca = text_at(settings, "caCertConfigMap"); !ca.empty()) {
                if (inputs[i] == nullptr) {
                    lacks("customSettings.caCertConfigMap: " +
                          absent_bundle(objects_, space, ca, "customSettings.caCertConfigMap", edit, "ca.crt"));
                    continue;
                }
                std::string bundle;
                std::size_t authorities = 0;
                auto tell_of_ca = [&](const std::string& entry, const std::string& what) {
                    out.warnings.push_back(fmt::format("{}.customSettings.caCertConfigMap: ConfigMap {}: {}, with: {}", path, ca, what, put_entry_command(objects_, space, ca, entry, "CA.crt")));
                };
                if (const auto& data = at_path(*inputs[i], "data"); data.is_object())
                    for (const auto& [entry, value] : data.items()) {
                        if (!value.is_string()) continue;
                        bundle += value.get<std::string>() + "\n";
                        const auto trusted = crypto::read_certificates(value.get<std::string>());
                        if (!trusted) tell_of_ca(entry, fmt::format("entry {}: {}: the custom server cannot be trusted; put its CA there", entry, trusted.error().message));
                        authorities += trusted ? trusted->size() : 1;
                        if (trusted)
                            for (const auto& certificate : *trusted)
                                for (const auto& finding : crypto::examine_authority(
                                         certificate, crypto::Purpose::server, options_.clock.wall_ms()))
                                    if (finding.weight >= crypto::Weight::all_refuse) tell_of_ca(entry, finding.message + "; put a better CA there");
                    }
                resolved["ca"] = bundle;
                if (authorities == 0) tell_of_ca("ca.crt", "there is no certificate in it: the custom server cannot be trusted; put its CA there");
            }
            if (const auto client = text_at(settings, "auth.x509.secretRef"); !client.empty()) {
                const auto secret = objects_.get(core("Secret"), space, client);
                if (secret == nullptr) {
                    lacks("customSettings.auth.x509.secretRef: " +
                          absent_pair(objects_, space, client, "customSettings.auth.x509.secretRef", edit));
                    continue;
                }
                resolved["certificate"] = secret_text(*secret, "tls.crt").value_or("");
                resolved["key"] = secret_text(*secret, "tls.key").value_or("");
                const auto judgement =
                    crypto::judge_identity(resolved["certificate"], resolved["key"], crypto::Purpose::client,
                                           options_.clock.wall_ms());
                for (const auto& finding : judgement.findings)
                    if (finding.is_fault())
                        out.warnings.push_back(fmt::format("{}.customSettings.auth.x509.secretRef: Secret {}: {}{}; put a pair that can be used there, with: {}", path, client, finding.message,
                                                           judgement.is_key_of_another && finding.weight == crypto::Weight::unusable ? "; " + compare_pair(space, client) : "", put_command(objects_, space, client)));
            }
            const auto& marks = at_path(*object, "metadata.annotations");
            const bool closed = marks.is_object() && equal_no_case(marks.value("penstock.io/custom-unreachable", "FallThrough"), "Refuse");
            if (!options_.custom_server) {
                fault("method: Custom is not possible here");
                continue;
            }
            way.source = text_at(settings, "endpoint");
            way.is_closed = closed;
            way.server = options_.custom_server(resolved);
            made.push_back(std::make_shared<auth::CustomMethod>(way.server, closed));
        }
        way.method = made.back()->name();
        out.methods += (out.methods.empty() ? "" : ", ") + way.method;
    }
    if (faults > faults_told) out.fault += fmt::format("; and {} more", faults - faults_told);
    if (out.fault.empty()) out.authenticator = std::make_shared<auth::MethodChain>(std::move(made), options_.probe_secret);
    // Rules that cannot be used any more (a damaged bundle) do not open the port to anybody, and do not throw out those who are
    // in: the rules before go on for a port that has them.
    else if (kept.value.authenticator != nullptr) {
        auto last = kept.value;
        if (out.lacks_source) last.deleted = out.fault;
        else last.warnings.push_back(out.fault + "; the rules before go on");
        if (std::exchange(kept.told, out.fault) != out.fault) log::warn("control", "rules cannot be used, those before go on{} why=\"{}\"", out.lacks_source ? " for those who are connected, and newcomers are refused" : "", out.fault);
        return last;
    }
    if (out.fault.empty() && !std::exchange(kept.told, {}).empty()) log::info("control", "rules are there again authentication={}/{}", space, name);
    kept.made_from = std::move(made_from);
    kept.value = out;
    return out;
}

// --- authorization ---

namespace {

/// The attributes of one set; an empty one, which is nobody's, when a value is no text: with the rest alone the set would be wider.
auth::Attributes attribute_set(const Json& set) {
    auth::Attributes out;
    if (!set.is_object() || std::ranges::any_of(set, [](const Json& value) { return !value.is_string(); })) return out;
    for (const auto& [name, value] : set.items()) out.emplace(name, value.get<std::string>());
    return out;
}

std::optional<auth::Action> action_of(const std::string& method) {
    if (equal_no_case(method, "Connect")) return auth::Action::connect;
    if (equal_no_case(method, "Publish")) return auth::Action::publish;
    if (equal_no_case(method, "Subscribe")) return auth::Action::subscribe;
    return std::nullopt;
}

}  // namespace

std::vector<auth::Rule::Key> keys_of(const Json& list) {
    std::vector<auth::Rule::Key> out;
    if (!list.is_array()) return out;
    for (const auto& resource : list) {
        const auto method = text_at(resource, "method", "ReadWrite"), type = text_at(resource, "keyType", "Pattern");
        const bool both = equal_no_case(method, "ReadWrite");
        auth::Rule::Key key{.read = both || equal_no_case(method, "Read"), .write = both || equal_no_case(method, "Write"),
                            .type = equal_no_case(type, "String") ? auth::Rule::KeyType::text : equal_no_case(type, "Binary") ? auth::Rule::KeyType::binary : auth::Rule::KeyType::pattern, .keys = texts_of(at_path(resource, "keys"))};
        if (key.type == auth::Rule::KeyType::pattern && !equal_no_case(type, "Pattern")) continue;
        if (key.type == auth::Rule::KeyType::binary)
            for (auto& text : key.keys) text = base64_decode(text).value_or("");
        out.push_back(std::move(key));
    }
    return out;
}

std::vector<auth::Rule> rules_of(const Json& authorization) {
    std::vector<auth::Rule> out;
    const auto& rules = at_path(authorization, "spec.authorizationPolicies.rules");
    if (!rules.is_array()) return out;
    for (const auto& rule : rules) {
        auth::Rule r{.client_ids = texts_of(at_path(rule, "principals.clientIds")), .user_names = texts_of(at_path(rule, "principals.usernames"))};
        if (const auto& sets = at_path(rule, "principals.attributes"); sets.is_array())
            for (const auto& set : sets) r.attributes.push_back(attribute_set(set));
        if (const auto& list = at_path(rule, "brokerResources"); list.is_array())
            for (const auto& resource : list) {
                const auto action = action_of(text_at(resource, "method"));
                if (!action) continue;   // a stored object of another version may have what this one does not know
                const char* field = *action == auth::Action::connect ? "clientIds" : "topics";
                r.resources.push_back({.action = *action, .patterns = texts_of(at_path(resource, field)), .is_any = !resource.contains(field)});
            }
        Json keyed = Json::array();
        if (const auto& list = at_path(rule, "stateStoreResources"); list.is_array())
            for (const auto& resource : list)
                if (!text_at(resource, "method").empty()) keyed.push_back(resource);
        r.keys = keys_of(keyed);
        out.push_back(std::move(r));
    }
    return out;
}

std::vector<std::string> empty_parts_of(const Json& authorization) {
    std::vector<std::string> out;
    auto tell = [&](const std::string& path, const char* what) { out.push_back(fmt::format("{} {}", path, what)); };
    auto look_at = [&](const Json& list, const std::string& path, const char* when_empty, const char* when_text_empty) {
        if (!list.is_array()) return;
        if (list.empty()) tell(path, when_empty);
        for (std::size_t i = 0; i < list.size(); ++i)
            if (list[i] == "") tell(fmt::format("{}[{}]", path, i), when_text_empty);
    };
    const auto& rules = at_path(authorization, "spec.authorizationPolicies.rules");
    for (std::size_t i = 0; rules.is_array() && i < rules.size(); ++i) {
        const auto at = fmt::format("spec.authorizationPolicies.rules[{}]", i);
        look_at(at_path(rules[i], "principals.clientIds"), at + ".principals.clientIds", "is empty and names nobody", "is empty and is nobody's client id");
        look_at(at_path(rules[i], "principals.usernames"), at + ".principals.usernames", "is empty and names nobody", "is empty and is nobody's user name");
        const auto& sets = at_path(rules[i], "principals.attributes");
        look_at(sets, at + ".principals.attributes", "is empty and names nobody", "is empty and names nobody");
        for (std::size_t k = 0; sets.is_array() && k < sets.size(); ++k) {
            const auto path = fmt::format("{}.principals.attributes[{}]", at, k);
            if (!sets[k].is_object() || sets[k].empty()) tell(path, "is empty and names nobody; a rule for all clients lists what they have in common");
            else
                for (const auto& [name, value] : sets[k].items())
                    if (name.empty() || value == "") tell(fmt::format("{}.{}", path, name), "is empty and matches nobody");
        }
        for (const auto& [field, parts] : {std::pair{"brokerResources", std::pair{"clientIds", "topics"}}, std::pair{"stateStoreResources", std::pair{"keys", "keys"}}}) {
            const auto& list = at_path(rules[i], field);
            if (list.is_array() && list.empty()) tell(fmt::format("{}.{}", at, field), "is empty and allows nothing");
            for (std::size_t k = 0; list.is_array() && k < list.size(); ++k)
                for (const char* part : {parts.first, parts.second})
                    if (list[k].is_object() && list[k].contains(part)) look_at(list[k][part], fmt::format("{}.{}[{}].{}", at, field, k, part), "is empty and allows nothing", "is empty and allows nothing");
        }
    }
    std::ranges::sort(out);
    out.erase(std::ranges::unique(out).begin(), out.end());
    return out;
}

PreparedPolicy SecurityBuilder::policy(const std::string& space, const std::string& name) {
    PreparedPolicy out;
    auto& kept = policies_[space + "/" + name];
    kept.used = true;
    const auto object = objects_.get(broker_kind("BrokerAuthorization"), space, name);
    if (object == nullptr) {
        kept.made_from.clear();
        out.fault = "authorizationRef: " + absent_rules(objects_, "BrokerAuthorization", space, name);
        if (kept.value.policy == nullptr) return out;
        auto last = kept.value;
        last.deleted = fmt::format("BrokerAuthorization {}/{} was deleted; apply it again", space, name);
        if (std::exchange(kept.told, last.deleted) != last.deleted) log::warn("control", "rules were deleted: who is connected stays, newcomers are refused why=\"{}\"", last.deleted);
        return last;
    }
    auto made_from = text_at(*object, "metadata.uid") + "@" + at_path(*object, "metadata.generation").dump();
    if (kept.made_from == made_from) return kept.value;
    auto rules = rules_of(*object);
    out.rules = rules.size();
    for (const auto& part : empty_parts_of(*object)) out.warnings.push_back(fmt::format("BrokerAuthorization {}: {}", name, part));
    out.policy = std::make_shared<const auth::Policy>(std::move(rules), space + "/" + name);
    if (!std::exchange(kept.told, {}).empty()) log::info("control", "rules are there again authorization={}/{}", space, name);
    kept.made_from = std::move(made_from);
    kept.value = out;
    return out;
}

void SecurityBuilder::sweep() {
    auto clean = [](auto& map) {
        std::erase_if(map, [](const auto& entry) { return !entry.second.used; });
        for (auto& [key, entry] : map) entry.used = false;
    };
    clean(tls_);
    clean(authenticators_);
    clean(policies_);
}

}  // namespace penstock::control
