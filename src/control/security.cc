#include "control/security.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "control/auth_methods.h"
#include "control/certificate_outlook.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "control/object_names.h"
#include "crypto/hash.h"
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
constexpr std::string_view attribute_annotation = "aio-broker-auth/";

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& certificate_kind() { return *resources::find_kind("cert-manager.io/v1", "Certificate"); }

/// What an object's meaning depends on, short: its identity and version.
std::string version_of(const registry::ObjectRef& object) {
    return object == nullptr ? std::string("-") : text_at(*object, "metadata.uid") + "@" + text_at(*object, "metadata.resourceVersion");
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

namespace {

/// The Certificate that an Automatic port asks for, owned by its listener.
Json certificate_of(const Json& listener, const Json& port, const std::vector<std::string>& expected) {
    const auto name = text_at(listener, "metadata.name");
    const auto& spec = at_path(port, "tls.certManagerCertificateSpec");
    std::vector<std::string> dns = texts_of(at_path(spec, "san.dns")),
                             ips = texts_of(at_path(spec, "san.ip"));
    for (const auto& host : expected) {
        auto& list = is_address(host) ? ips : dns;
        if (std::ranges::find(list, host) == list.end()) list.push_back(host);
    }
    const auto& issuer = at_path(spec, "issuerRef");
    const auto secret = certificate_name(listener, port);
    const std::string common_name(clipped(text_at(listener, "spec.serviceName", name), 64));
    Json wanted = {{"secretName", secret},
                   {"commonName", common_name},
                   {"dnsNames", dns},
                   {"ipAddresses", ips},
                   {"usages", {"digital signature", "key encipherment", "server auth"}},
                   {"issuerRef",
                    {{"group", text_at(issuer, "group", "cert-manager.io")},
                     {"kind", resources::canonical({"Issuer", "ClusterIssuer"}, text_at(issuer, "kind"))},
                     {"name", text_at(issuer, "name")}}},
                   {"privateKey", private_key_of(at_path(spec, "privateKey"))}};
    for (const char* field : {"duration", "renewBefore"})
        if (const auto value = text_at(spec, field); !value.empty()) wanted[field] = value;
    const Json owner = {{"apiVersion", text_at(listener, "apiVersion")},
                        {"kind", "BrokerListener"},
                        {"name", name},
                        {"uid", text_at(listener, "metadata.uid")},
                        {"controller", true}};
    return {{"apiVersion", "cert-manager.io/v1"},
            {"kind", "Certificate"},
            {"metadata",
             {{"name", secret},
              {"namespace", text_at(listener, "metadata.namespace")},
              {"ownerReferences", Json::array({owner})}}},
            {"spec", wanted}};
}

/// The Certificate that is there says all that the wanted one says, and no more names.
bool is_as_wanted(const Json& current, const Json& wanted) {
    return resources::merge_applied(current, wanted, certificate_kind().schema) == current &&
           at_path(current, "spec.dnsNames") == wanted["spec"]["dnsNames"] &&
           at_path(current, "spec.ipAddresses") == wanted["spec"]["ipAddresses"];
}

}  // namespace

std::string SecurityBuilder::ask_for_certificate(const registry::ObjectRef& current, const Json& wanted) {
    if (current != nullptr && is_as_wanted(*current, wanted)) return {};
    const auto name = text_at(wanted, "metadata.name");
    const auto done = objects_.patch(certificate_kind(), text_at(wanted, "metadata.namespace"), name,
                                     registry::PatchType::apply, wanted, manager);
    if (done) return {};
    if (done.error().code == 404)
        return fmt::format(
            "tls: Certificate {} cannot be written, for this cluster has no cert-manager; install it, or "
            "use tls.mode Manual",
            name);
    return fmt::format("tls: Certificate {} cannot be written: {}", name, done.error().message);
}

void SecurityBuilder::load(PreparedTls& out, const Json& secret, const TlsUse& use) const {
    const auto& space = use.name_space;
    const auto anew = "have it issued anew with: " + issue_command(objects_, space, out.secret);
    const auto chain = secret_text(secret, "tls.crt"), key = secret_text(secret, "tls.key");
    if (!chain || !key) {
        out.fault = fmt::format(
            "Secret {}/{} needs the entries tls.crt and tls.key (type kubernetes.io/tls); {}", space,
            out.secret,
            use.is_automatic ? anew : "put them in with: " + put_command(objects_, space, out.secret));
        return;
    }
    tls::ServerOptions options{.certificate_chain = *chain,
                               .key = *key,
                               .ask_client_certificate = use.asks_certificate,
                               .client_authorities = use.authorities};
    options.protocols =
        use.is_websocket ? std::vector<std::string>{"http/1.1", "mqtt"} : std::vector<std::string>{"mqtt"};
    out.judgement = crypto::judge_identity(*chain, *key, crypto::Purpose::server, options_.clock.wall_ms());
    auto context = out.judgement.is_usable() ? tls::Context::server(options)
                                             : fail(out.judgement.because_of(crypto::Weight::unusable));
    if (auto why = context ? tls::rehearse(*context) : std::string(); !why.empty())
        context = fail(std::move(why));
    if (context) {
        out.context = std::move(*context);
        return;
    }
    // Of a chain that OpenSSL does not take, the judgement says what to do about it.
    const auto judged = out.judgement.because_of(crypto::Weight::all_refuse);
    out.fault = fmt::format("Secret {}/{}: {}", space, out.secret,
                            out.judgement.is_usable() && !judged.empty() ? judged : context.error().message);
    if (out.judgement.is_key_of_another) out.fault += "; " + compare_pair(space, out.secret);
    out.fault += "; " + (use.is_automatic ? anew
                                          : "put a pair that can be used there, with: " +
                                                put_command(objects_, space, out.secret));
}

PreparedTls SecurityBuilder::tls(const Json& listener, const Json& port,
                                 const std::vector<std::string>& expected, bool ask_certificate,
                                 const std::vector<crypto::Certificate>& authorities, bool websocket) {
    const auto space = text_at(listener, "metadata.namespace"), name = text_at(listener, "metadata.name");
    const bool automatic = at_path(port, "tls.certManagerCertificateSpec").is_object();
    PreparedTls out;
    out.secret = out.wanted =
        automatic ? certificate_name(listener, port) : text_at(port, "tls.manual.secretRef");
    auto& kept = tls_[fmt::format("{}/{}:{}", space, name, port.value("port", 0))];
    kept.used = true;
    auto or_before = [&] { return or_last_good(kept, std::move(out), space + "/" + name); };
    std::string not_there;
    if (automatic) {
        const auto current = objects_.get(certificate_kind(), space, out.secret);
        out.fault = ask_for_certificate(current, certificate_of(listener, port, expected));
        if (!out.fault.empty()) return or_before();
        not_there = why_not_issued(current.get(), out.secret);
    } else {
        not_there = absent_pair(objects_, space, out.secret, "tls.manual.secretRef",
                                edit_command("brokerlistener", space + "/" + name));
    }
    const auto secret = objects_.get(core("Secret"), space, out.secret);
    if (secret == nullptr) {
        out.fault = not_there;
        out.is_being_issued = automatic;
        return or_before();
    }
    auto made_from =
        fmt::format("{} {} {} {}", version_of(secret), ask_certificate, websocket, fmt::join(expected, ","));
    for (const auto& authority : authorities) made_from += authority.fingerprint();
    if (kept.made_from == made_from) {
        // Certificates end while nothing is written.
        if (options_.clock.wall_ms() >= kept.judged_until_ms)
            kept.judged_until_ms = judge(kept.value, {listener, automatic, expected});
        return kept.value;
    }
    load(out, *secret, {space, automatic, ask_certificate, authorities, websocket});
    if (out.context == nullptr) return or_before();   // a renewal that went wrong must not take the port away
    kept.judged_until_ms = judge(out, {listener, automatic, expected});
    if (!std::exchange(kept.told, {}).empty())
        log::info("control", "the certificate of a listener is there again listener={}/{} secret={}", space,
                  name, out.secret);
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

MethodEntry SecurityBuilder::entry_of(const Json& authentication, std::size_t index, std::string& made_from) {
    const auto& settings = at_path(authentication, "spec.authenticationMethods")[index];
    MethodEntry out{.objects = objects_,
                    .options = options_,
                    .authentication = authentication,
                    .settings = settings,
                    .name_space = text_at(authentication, "metadata.namespace"),
                    .name = text_at(authentication, "metadata.name"),
                    .index = index,
                    .inputs = {},
                    .facts = {}};
    const auto& kind = method_kind_of(settings);
    for (const auto& input : kind.inputs(settings)) {
        out.inputs.push_back(input.name.empty() ? nullptr
                                                : objects_.get(core(input.kind), out.name_space, input.name));
        made_from += fmt::format("|{}:{}", input.name, version_of(out.inputs.back()));
    }
    if (kind.wants_tokens) {
        out.facts = token_facts();
        made_from += "|" + base64_encode(facts_of_);
    }
    return out;
}

PreparedAuthenticator SecurityBuilder::assemble(const std::vector<MethodEntry>& entries) const {
    constexpr std::size_t faults_told = 10;
    PreparedAuthenticator out;
    std::vector<std::shared_ptr<auth::Method>> made;
    std::size_t faults = 0;
    for (const auto& entry : entries) {
        const auto& kind = method_kind_of(entry.settings);
        auto one = kind.make(entry);
        out.wants_certificate |= kind.wants_certificate;
        // All that is wrong is told at once, of all methods the first few.
        for (const auto& fault : one.faults) {
            if (++faults <= faults_told)
                out.fault += fmt::format("{}{}.{}", out.fault.empty() ? "" : "; ", entry.path(), fault.text);
            out.lacks_source |= fault.is_lack;
            out.only_lacks &= fault.is_lack;
        }
        std::ranges::move(one.warnings, std::back_inserter(out.warnings));
        std::ranges::move(one.authorities, std::back_inserter(out.authorities));
        out.ways.push_back(std::move(one.way));
        if (one.method == nullptr) continue;
        out.methods += (out.methods.empty() ? "" : ", ") + out.ways.back().method;
        made.push_back(std::move(one.method));
    }
    if (faults > faults_told) out.fault += fmt::format("; and {} more", faults - faults_told);
    if (out.fault.empty())
        out.authenticator = std::make_shared<auth::MethodChain>(std::move(made), options_.probe_secret);
    return out;
}

PreparedAuthenticator SecurityBuilder::last_of_deleted(Kept<PreparedAuthenticator>& kept,
                                                       const std::string& space,
                                                       const std::string& name) const {
    kept.made_from.clear();
    if (kept.value.authenticator == nullptr) {
        PreparedAuthenticator out;
        out.fault = "authenticationRef: " + absent_rules(objects_, "BrokerAuthentication", space, name);
        return out;
    }
    auto last = kept.value;
    last.deleted = fmt::format("BrokerAuthentication {}/{} was deleted; apply it again", space, name);
    if (std::exchange(kept.told, last.deleted) != last.deleted)
        log::warn("control", "rules were deleted: who is connected stays, newcomers are refused why=\"{}\"",
                  last.deleted);
    return last;
}

PreparedAuthenticator SecurityBuilder::last_of_faulty(Kept<PreparedAuthenticator>& kept,
                                                      const PreparedAuthenticator& faulty) {
    auto last = kept.value;
    if (faulty.lacks_source) last.deleted = faulty.fault;
    else last.warnings.push_back(faulty.fault + "; the rules before go on");
    if (std::exchange(kept.told, faulty.fault) != faulty.fault)
        log::warn("control", "rules cannot be used, those before go on{} why=\"{}\"",
                  faulty.lacks_source ? " for those who are connected, and newcomers are refused" : "",
                  faulty.fault);
    return last;
}

PreparedAuthenticator SecurityBuilder::authenticator(const std::string& space, const std::string& name) {
    auto& kept = authenticators_[space + "/" + name];
    kept.used = true;
    const auto object = objects_.get(broker_kind("BrokerAuthentication"), space, name);
    if (object == nullptr) return last_of_deleted(kept, space, name);
    auto made_from = fmt::format("{}@{}{}", text_at(*object, "metadata.uid"),
                                 at_path(*object, "metadata.generation").dump(),
                                 at_path(*object, "metadata.annotations").dump());
    std::vector<MethodEntry> entries;
    for (std::size_t i = 0; i < at_path(*object, "spec.authenticationMethods").size(); ++i)
        entries.push_back(entry_of(*object, i, made_from));
    if (!kept.made_from.empty() && kept.made_from == made_from) return kept.value;
    auto out = assemble(entries);
    // Rules that cannot be used any more (a damaged bundle) do not open the port to anybody, and do not throw
    // out those who are in: the rules before go on for a port that has them.
    if (!out.fault.empty() && kept.value.authenticator != nullptr) return last_of_faulty(kept, out);
    if (out.fault.empty() && !std::exchange(kept.told, {}).empty())
        log::info("control", "rules are there again authentication={}/{}", space, name);
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
