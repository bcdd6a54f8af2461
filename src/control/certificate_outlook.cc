#include "control/certificate_outlook.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/shell.h"
#include "base/text.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "control/object_names.h"
#include "resources/text_rules.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* system_namespace = "azure-iot-operations";
constexpr std::int64_t day_ms = 86'400'000;
constexpr std::size_t text_max = 256 * 1024, known_max = 500;
constexpr std::size_t chain_max = 16;    // of a chain that is served so many are looked at
const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& certificate_kind() {
    return *resources::find_kind("cert-manager.io/v1", "Certificate");
}

/// Nobody renews a certificate that was brought along: the last week is told of each, the last month of those that live long.
std::string end_of(const crypto::Certificate& certificate, const ServedCertificate& served, std::int64_t now_ms) {
    const auto left = certificate.not_after_ms() - now_ms, life = certificate.not_after_ms() - certificate.not_before_ms();
    if (left <= 0 || left >= 30 * day_ms || (left >= 7 * day_ms && life <= 45 * day_ms)) return {};
    return fmt::format("certificate \"{}\" ends in {} days ({}), and nobody renews it (tls.mode Manual): put its successor into Secret {}/{} before, with: {}",
                       certificate.subject(), left / day_ms, rfc3339(certificate.not_after_ms()), served.name_space, served.secret, served.put);
}

/// Where the leaf leads to within what is sent: to a root, if any way does (two certificates of one intermediate go to different ones),
/// else to the last certificate of the first way.
const crypto::Certificate& top_of(const std::vector<crypto::Certificate>& chain) {
    const auto size = std::min(chain.size(), chain_max);
    std::vector<bool> is_reached(size);
    std::vector<std::size_t> reached{0}, ends;
    is_reached[0] = true;
    for (std::size_t next = 0; next < reached.size(); ++next) {
        const auto& at = chain[reached[next]];
        if (at.is_self_signed()) return at;
        bool has_issuer = false;
        for (std::size_t i = 0; i < size; ++i) {
            if (i == reached[next] || at.issuer() != chain[i].subject() || !at.is_signed_by(chain[i])) continue;
            has_issuer = true;
            if (!is_reached[i]) reached.push_back(i);
            is_reached[i] = true;
        }
        if (!has_issuer) ends.push_back(reached[next]);
    }
    return chain[ends.empty() ? reached.back() : ends.front()];
}

std::string gap_in(const ServedCertificate& served, const std::vector<crypto::Certificate>& known) {
    const auto& top = top_of(served.chain);
    if (top.is_self_signed()) return {};
    const crypto::Certificate* intermediate = nullptr;
    for (const auto& other : known) {
        if (other.subject() != top.issuer() || !top.is_signed_by(other)) continue;
        if (other.is_self_signed()) return {};   // its root: clients have it or they trust nothing of this
        intermediate = &other;
    }
    if (intermediate != nullptr)
        return fmt::format("the chain lacks its intermediate \"{}\": clients that know only the root refuse it; put that certificate behind the others (cat LEAF.crt INTERMEDIATE.crt > CHAIN.crt) and the whole into Secret {}/{}, with: {}",
                           intermediate->subject(), served.name_space, served.secret, served.put);
    // Who put certificates behind the leaf went up to the root, which is left out as it should be; it cannot be told from a second gap.
    if (&top != &served.chain.front()) return {};
    return fmt::format("the chain ends with \"{}\", whose issuer \"{}\" is not in it: if that is an intermediate, clients that know only the root refuse; put the certificates up to the root behind it "
                       "(cat LEAF.crt INTERMEDIATE.crt > CHAIN.crt); if it is the root, say so with: {}",
                       top.subject(), top.issuer(), served.say_root);
}

bool is_not_ready(const Json& object) {
    const auto& conditions = at_path(object, "status.conditions");
    return conditions.is_array() && std::ranges::any_of(conditions, [](const auto& one) {
        return text_at(one, "type") == "Ready" && text_at(one, "status") == "False";
    });
}

/// What is in a Secret that its issuer would not make again. `maker`: its Certificate, or null.
bool has_more_than_a_pair(const Json& secret, const Json* maker) {
    using IsKnown = bool (*)(const std::string& key);
    auto has_more = [&](const char* path, IsKnown is_known, const char* of_template) {
        const auto& all = at_path(secret, path);
        if (!all.is_object()) return false;
        const auto templated = maker != nullptr ? at_path(*maker, of_template) : Json();
        return std::ranges::any_of(all.items(), [&](const auto& item) {
            return !is_known(item.key()) && !(templated.is_object() && templated.contains(item.key()));
        });
    };
    const IsKnown is_entry = [](const auto& key) {
        return key == "tls.crt" || key == "tls.key" || key == "ca.crt";
    };
    const IsKnown is_label = [](const auto& key) { return key == "controller.cert-manager.io/fao"; };
    const IsKnown is_mark = [](const auto& key) { return key.starts_with("cert-manager.io/"); };
    return has_more("data", is_entry, "") ||
           has_more("metadata.labels", is_label, "spec.secretTemplate.labels") ||
           has_more("metadata.annotations", is_mark, "spec.secretTemplate.annotations");
}

void read_into(std::vector<crypto::Certificate>& out, const std::string& text) {
    if (text.size() > text_max || text.find("BEGIN ") == std::string::npos) return;
    const auto read = crypto::read_certificates(text);
    if (!read) return;                   // not for this to tell
    for (const auto& certificate : *read)
        if (out.size() < known_max && certificate.is_ca()) out.push_back(certificate);
}

}  // namespace

std::vector<std::string> outlook(const ServedCertificate& served, const std::vector<crypto::Certificate>& known, std::int64_t now_ms) {
    std::vector<std::string> out;
    if (served.chain.empty()) return out;
    if (served.is_manual)
        for (const auto& certificate : served.chain)
            if (auto text = end_of(certificate, served, now_ms); !text.empty()) out.push_back(std::move(text));
    if (auto text = gap_in(served, known); !text.empty()) out.push_back(std::move(text));
    return out;
}

std::string put_command(const Objects& objects, const std::string& name_space, const std::string& secret) {
    const auto there = objects.get(core("Secret"), name_space, secret);
    const auto type = there == nullptr ? "kubernetes.io/tls" : text_at(*there, "type", "Opaque");
    const auto make =
        fmt::format("kubectl create secret tls {} -n {} --cert=CHAIN.crt --key=KEY.key", secret, name_space);
    if (there == nullptr) return make;
    // Patched, so that its other entries and its labels stay, and with its own type, which nothing may change.
    const auto pair =
        type == "kubernetes.io/tls"
            ? make
            : fmt::format("kubectl create secret generic {} -n {}{} --from-file=tls.crt=CHAIN.crt "
                          "--from-file=tls.key=KEY.key",
                          secret, name_space, type == "Opaque" ? "" : " --type=" + shell_quoted(type));
    return change_command(objects, core("Secret"), name_space, secret,
                          fmt::format("{} --dry-run=client -o yaml | kubectl patch secret {} -n {} --type merge "
                                      "--patch-file /dev/stdin",
                                      pair, secret, name_space));
}

std::string say_root_command(const Objects& objects, const std::string& name_space) {
    std::vector<std::string> there;
    for (const auto& map : objects.list(core("ConfigMap"), name_space))
        there.push_back(text_at(*map, "metadata.name"));
    return fmt::format("kubectl create configmap {} -n {} --from-file=ca.crt=ROOT.crt", free_name("server-ca", there),
                       name_space);
}

std::string issue_command(const Objects& objects, const std::string& name_space, const std::string& secret) {
    const auto there = objects.get(core("Secret"), name_space, secret);
    // One that is immutable can only be made anew: neither a person nor the issuer writes into it.
    if (there == nullptr || resources::flag_of(*there, "immutable") ||
        !has_more_than_a_pair(*there, maker_of(objects, name_space, secret).get()))
        return fmt::format("kubectl delete secret {} -n {}", secret, name_space);
    // Spoilt, not removed: the type kubernetes.io/tls has to have both. Words, for kubectl puts backslashes before
    // the quotes of a text that it shows.
    return fmt::format("kubectl patch secret {} -n {} --type merge "
                       "-p 'stringData: {{tls.crt: none, tls.key: none}}'",
                       secret, name_space);
}

ObjectRef maker_of(const Objects& objects, const std::string& name_space, const std::string& secret) {
    for (const auto& item : objects.list(certificate_kind(), name_space))
        if (text_at(*item, "spec.secretName") == secret &&
            !at_path(*item, "metadata.deletionTimestamp").is_string())
            return item;
    return nullptr;
}

std::string awaited_object(const Objects& objects, const resources::Kind& kind, const std::string& name_space,
                           const std::string& name) {
    const auto head =
        fmt::format("{} {}/{} does not exist; ", kind.kind, name_space, resources::shortened(name));
    const bool is_secret = kind.kind == "Secret";
    if (const auto maker = is_secret ? maker_of(objects, name_space, name) : nullptr; maker != nullptr) {
        const auto by = text_at(*maker, "metadata.name");
        if (!is_not_ready(*maker))
            return head + fmt::format("Certificate {}/{} makes it, and has not yet", name_space, by);
        return head + fmt::format("Certificate {0}/{1} is to make it, and cannot yet; see why with: "
                                  "kubectl describe certificate {1} -n {0}",
                                  name_space, by);
    }
    if (name_space != system_namespace || name != (is_secret ? internal_ca : trust_bundle)) return {};
    const auto& issuers = *resources::find_kind("cert-manager.io/v1", "ClusterIssuer");
    const auto issuer = objects.get(issuers, "", default_issuer);
    if (issuer == nullptr) return {};
    auto out = head + fmt::format("it is made as soon as ClusterIssuer {} has its CA", default_issuer);
    if (is_not_ready(*issuer))
        out += fmt::format("; see why it has none with: kubectl describe clusterissuer {}", default_issuer);
    return out;
}

std::string absent_pair(const Objects& objects, const std::string& space, const std::string& name,
                        const char* field, const std::string& edit) {
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

std::string compare_pair(const std::string& name_space, const std::string& secret) {
    // Without quotes and backslashes, which kubectl would escape where it shows this.
    auto entry = [&](const char* key) { return fmt::format("kubectl get secret {} -n {} -o go-template='{{{{index .data `{}` | base64decode}}}}'", secret, name_space, key); };
    return fmt::format("the public keys of the two, which must be one, are shown with: {} | openssl x509 -noout -pubkey; {} | openssl pkey -pubout", entry("tls.crt"), entry("tls.key"));
}

std::vector<crypto::Certificate> authorities_in(const Objects& objects, const std::string& name_space) {
    std::vector<crypto::Certificate> out;
    for (const auto& map : objects.list(core("ConfigMap"), name_space))
        if (const auto& data = at_path(*map, "data"); data.is_object())
            for (const auto& [entry, value] : data.items())
                if (value.is_string()) read_into(out, value.get_ref<const std::string&>());
    for (const auto& secret : objects.list(core("Secret"), name_space))
        for (const char* entry : {"ca.crt", "tls.crt"})
            if (const auto& data = at_path(*secret, "data"); data.is_object() && data.contains(entry) && data[entry].is_string())
                if (const auto text = base64_decode(data[entry].get_ref<const std::string&>())) read_into(out, *text);
    return out;
}

std::string not_renewable(const Objects& objects, const std::string& name_space, const std::string& certificate) {
    const auto object = objects.get(certificate_kind(), name_space, certificate);
    if (object == nullptr) return {};
    // Not Ready: what is served is not what is wanted any more (another issuer, other names), and the wanted one is not made.
    if (const auto& conditions = at_path(*object, "status.conditions"); conditions.is_array())
        for (const char* type : {"Ready", renewable_condition})
            for (const auto& condition : conditions)
                if (text_at(condition, "type") == type && text_at(condition, "status") == "False") return fmt::format("Certificate {}: {}", certificate, text_at(condition, "message"));
    return {};
}

}  // namespace penstock::control
