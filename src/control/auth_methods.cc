#include "control/auth_methods.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "base/own_command.h"
#include "base/text.h"
#include "control/certificate_outlook.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "crypto/password.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;
using resources::texts_of;

namespace {

constexpr std::size_t trusted_max = 2000;   // certificates of one method
constexpr std::size_t told_max = 10;        // certificates whose faults are told one by one
constexpr const char* trust_field = "x509Settings.trustedClientCaCert";

const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }

std::shared_ptr<const auth::Attributes> attributes_of(const Json& map) {
    auto out = std::make_shared<auth::Attributes>();
    if (map.is_object())
        for (const auto& [key, value] : map.items())
            if (value.is_string()) out->emplace(key, value.get<std::string>());
    return out;
}

std::string mark_of(const Json& object, const char* name, const char* otherwise) {
    const auto& marks = at_path(object, "metadata.annotations");
    return marks.is_object() ? marks.value(name, otherwise) : std::string(otherwise);
}

/// The method that is made of one entry, and what is wrong with it: where functions below leave what they
/// find.
class Maker {
  public:
    explicit Maker(const MethodEntry& entry) {
        out_.way.method = text_at(entry.settings, "method");
        out_.way.field = fmt::format("BrokerAuthentication {}/{}: spec.authenticationMethods[{}]",
                                     entry.name_space, entry.name, entry.index);
    }
    void fault(std::string why) { out_.faults.push_back({.text = std::move(why), .is_lack = false}); }
    /// An object that `field` names is not there, and what is said of that.
    void lacks(const char* field, const std::string& what) {
        out_.faults.push_back({.text = fmt::format("{}: {}", field, what), .is_lack = true});
    }
    void warn(std::string text) { out_.warnings.push_back(std::move(text)); }
    [[nodiscard]] bool has_faults() const noexcept { return !out_.faults.empty(); }
    [[nodiscard]] WayIn& way() noexcept { return out_.way; }
    [[nodiscard]] MadeMethod& made() noexcept { return out_; }
    MadeMethod finish(std::shared_ptr<auth::Method> method) {
        out_.way.method = method->name();
        out_.method = std::move(method);
        return std::move(out_);
    }
    MadeMethod give_up() { return std::move(out_); }

  private:
    MadeMethod out_;
};

// --- ServiceAccountToken ---

std::vector<MethodInput> token_inputs(const Json&) { return {}; }

MadeMethod make_token_method(const MethodEntry& entry) {
    Maker maker(entry);
    maker.way().source = "the resource API (/openid/v1/jwks)";
    maker.way().keys_are_known = entry.facts != nullptr && entry.facts->is_known;
    return maker.finish(std::make_shared<auth::TokenMethod>(
        texts_of(at_path(entry.settings, "serviceAccountTokenSettings.audiences")), entry.facts));
}

// --- X509 ---

std::string trust_name_of(const Json& settings) { return text_at(settings, trust_field, "client-ca"); }

std::vector<MethodInput> x509_inputs(const Json& settings) {
    return {{"ConfigMap", trust_name_of(settings)}};
}

/// What a ConfigMap of trusted CAs has.
struct Trusted {
    std::vector<crypto::Certificate> certificates;
    std::vector<std::string> put;   ///< of each: the command that puts others into its entry
    std::vector<crypto::RevocationList> lists;
    std::string list_entries;   ///< names of the entries with lists, for people
};

void read_entry(Maker& maker, Trusted& out, const MethodEntry& entry, const std::string& key,
                const std::string& text) {
    const auto name = trust_name_of(entry.settings);
    const auto& space = entry.name_space;
    auto certificates = crypto::read_certificates(text);
    auto revoked = crypto::read_revocation_lists(text);
    if (!certificates || !revoked)
        return maker.fault(fmt::format("{}: ConfigMap {} entry {}: {}; put it right with: {}", trust_field,
                                       name, key,
                                       !certificates ? certificates.error().message : revoked.error().message,
                                       change_command(entry.objects, core("ConfigMap"), space, name,
                                                      edit_command("configmap", space + "/" + name))));
    if (!revoked->empty()) out.list_entries += (out.list_entries.empty() ? "" : ", ") + key;
    if (!certificates->empty())
        out.put.insert(out.put.end(), certificates->size(),
                       put_entry_command(entry.objects, space, name, key, "ALL-CAS.crt"));
    out.certificates.insert(out.certificates.end(), certificates->begin(), certificates->end());
    out.lists.insert(out.lists.end(), revoked->begin(), revoked->end());
}

/// All entries of the ConfigMap; faults where that is none to be used.
Trusted read_trusted(Maker& maker, const MethodEntry& entry) {
    Trusted out;
    for (const char* part : {"data", "binaryData"}) {
        const auto& data = at_path(*entry.inputs[0], part);
        if (!data.is_object()) continue;
        for (const auto& [key, value] : data.items())
            if (value.is_string()) {
                const auto text = value.get<std::string>();
                const bool is_text = std::string_view(part) == "data";
                read_entry(maker, out, entry, key, is_text ? text : base64_decode(text).value_or(""));
            }
    }
    const auto name = trust_name_of(entry.settings);
    if (!maker.has_faults() && out.certificates.empty())
        maker.fault(fmt::format(
            "{}: ConfigMap {} has no certificate in PEM; put the CA into it with: {}", trust_field, name,
            put_entry_command(entry.objects, entry.name_space, name, "client_ca.pem", "CA.crt")));
    if (maker.has_faults()) return out;
    if (out.certificates.size() > trusted_max)
        maker.fault(fmt::format(
            "{}: ConfigMap {} has {} certificates, of which {} at most are taken: put in those of "
            "CAs, not of clients",
            trust_field, name, out.certificates.size(), trusted_max));
    const auto signatures = crypto::RevocationLists::signatures_of(out.lists, out.certificates);
    if (signatures > crypto::RevocationLists::signatures_max)
        maker.fault(fmt::format(
            "{}: ConfigMap {}: {} revocation lists with all certificates of their issuers' names are "
            "{} signatures to check, of which {} at most are taken: take out lists and certificates "
            "that a later one replaces",
            trust_field, name, out.lists.size(), signatures, crypto::RevocationLists::signatures_max));
    return out;
}

void warn_of_trusted(Maker& maker, const MethodEntry& entry, const Trusted& trusted) {
    const auto name = trust_name_of(entry.settings);
    const auto now = entry.options.clock.wall_ms();
    std::size_t faulty = 0;
    for (std::size_t k = 0; k < trusted.certificates.size(); ++k) {
        const auto findings =
            crypto::examine_authority(trusted.certificates[k], crypto::Purpose::client, now);
        if (findings.empty() || ++faulty > told_max) continue;
        for (const auto& finding : findings)
            maker.warn(fmt::format(
                "a trusted certificate of ConfigMap {}: {}; put those that clients have now into it, "
                "with: {}",
                name, finding.message, trusted.put[k]));
    }
    if (faulty > told_max)
        maker.warn(fmt::format(
            "of {} more trusted certificates of ConfigMap {} something is wrong too; see each of them "
            "with: kubectl get configmap {} -n {} -o yaml",
            faulty - told_max, name, name, entry.name_space));
}

std::vector<auth::X509Method::Entry> certificate_attributes(const Json& settings) {
    std::vector<auth::X509Method::Entry> out;
    if (const auto& map = at_path(settings, "x509Settings.authorizationAttributes"); map.is_object())
        for (const auto& [label, value] : map.items())
            out.push_back({.label = label,
                           .subject = text_at(value, "subject"),
                           .attributes = attributes_of(at_path(value, "attributes"))});
    return out;
}

MadeMethod make_x509_method(const MethodEntry& entry) {
    Maker maker(entry);
    const auto name = trust_name_of(entry.settings);
    const auto& space = entry.name_space;
    if (entry.inputs[0] == nullptr) {
        maker.lacks(trust_field,
                    absent_bundle(entry.objects, space, name, trust_field, entry.edit(), "client_ca.pem"));
        return maker.give_up();
    }
    auto trusted = read_trusted(maker, entry);
    if (maker.has_faults()) return maker.give_up();
    warn_of_trusted(maker, entry, trusted);
    maker.made().authorities = trusted.certificates;
    maker.way().source = fmt::format("ConfigMap {}/{}", space, name);
    maker.way().trusted = trusted.certificates;
    maker.way().put = std::move(trusted.put);
    const auto store =
        std::make_shared<const crypto::TrustStore>(std::move(trusted.certificates), std::move(trusted.lists));
    for (auto& warning : store->lists().warnings())
        maker.warn(fmt::format("ConfigMap {}: {}; its lists stand in entry {}, which is changed with: {}",
                               name, warning, trusted.list_entries,
                               change_command(entry.objects, core("ConfigMap"), space, name,
                                              edit_command("configmap", space + "/" + name))));
    const auto ocsp = mark_of(entry.authentication, "penstock.io/ocsp", "Off");
    std::shared_ptr<auth::X509Method::Revocation> revocation;
    if (entry.options.revocation && !equal_no_case(ocsp, "Off")) revocation = entry.options.revocation(ocsp);
    return maker.finish(std::make_shared<auth::X509Method>(store, certificate_attributes(entry.settings),
                                                           "ConfigMap " + name, std::move(revocation)));
}

// --- Password ---

std::vector<MethodInput> password_inputs(const Json& settings) {
    return {{"Secret", text_at(settings, "passwordSettings.secretRef")}};
}

using Users = std::map<std::string, auth::PasswordMethod::User, std::less<>>;

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
    const auto take_over = fmt::format(
        "kubectl get secret {} -n {} "
        "-o go-template='{{{{index .data `{}` | base64decode}}}}' | {}",
        secret, space, entry, own_command(fmt::format("passwd -n {} {} --import /dev/stdin", space, secret)));
    return fmt::format("{}; make it so with: {}", head,
                       change(stays ? take_over : take_over + " && " + take_out));
}

/// The users of a Secret who can log in; of the others `warnings` gets what is said. `attributes`: of each by
/// name.
Users users_of(const Objects& objects, const Json& secret, const Json& attributes,
               std::vector<std::string>& warnings) {
    const auto space = text_at(secret, "metadata.namespace"), name = text_at(secret, "metadata.name");
    Users out;
    const auto& data = at_path(secret, "data");
    if (!data.is_object()) return out;
    for (const auto& [user, value] : data.items()) {
        auto hash = secret_text(secret, user).value_or("");
        while (hash.ends_with('\n') || hash.ends_with('\r')) hash.pop_back();
        const auto own = attributes.is_object() ? attributes.value(user, Json()) : Json();
        const auto why = crypto::password_hash_fault(hash);
        auto file = why.empty() ? "" : password_file_in(objects, space, name, user, hash);
        if (why.empty())
            out.emplace(
                user, auth::PasswordMethod::User{.hash = std::move(hash), .attributes = attributes_of(own)});
        else if (!file.empty()) warnings.push_back(std::move(file));
        else
            warnings.push_back(
                fmt::format("user \"{}\" of Secret {} cannot log in: {}; set the password anew with: {}",
                            user, name, why, passwd_command(objects, space, name, user)));
    }
    return out;
}

MadeMethod make_password_method(const MethodEntry& entry) {
    Maker maker(entry);
    const auto secret = text_at(entry.settings, "passwordSettings.secretRef");
    if (entry.inputs[0] == nullptr) {
        constexpr const char* field = "passwordSettings.secretRef";
        maker.lacks(field, absent_object(core("Secret"), entry.name_space, secret, field, entry.edit(),
                                         own_command("passwd -n {1} {0} USER").c_str()));
        return maker.give_up();
    }
    const auto& attributes = at_path(entry.settings, "passwordSettings.authorizationAttributes");
    auto users = users_of(entry.objects, *entry.inputs[0], attributes, maker.made().warnings);
    maker.way().source = fmt::format("Secret {}/{}", entry.name_space, secret);
    maker.way().users = users.size();
    maker.way().put = {passwd_command(entry.objects, entry.name_space, secret, "USER")};
    return maker.finish(std::make_shared<auth::PasswordMethod>(std::move(users), entry.options.crew));
}

// --- Custom ---

constexpr const char* ca_field = "customSettings.caCertConfigMap";
constexpr const char* client_field = "customSettings.auth.x509.secretRef";

std::vector<MethodInput> custom_inputs(const Json& settings) {
    return {{"ConfigMap", text_at(settings, ca_field)}, {"Secret", text_at(settings, client_field)}};
}

/// The CAs that the server's certificate may lead to, in PEM.
std::string read_server_authorities(Maker& maker, const MethodEntry& entry) {
    const auto name = text_at(entry.settings, ca_field);
    auto tell = [&](const std::string& key, const std::string& what) {
        maker.warn(fmt::format("{}.{}: ConfigMap {}: {}, with: {}", entry.path(), ca_field, name, what,
                               put_entry_command(entry.objects, entry.name_space, name, key, "CA.crt")));
    };
    std::string bundle;
    std::size_t authorities = 0;
    auto read = [&](const std::string& key, const std::string& text) {
        bundle += text + "\n";
        const auto trusted = crypto::read_certificates(text);
        authorities += trusted ? trusted->size() : 1;
        if (!trusted)
            return tell(key,
                        fmt::format("entry {}: {}: the custom server cannot be trusted; put its CA there",
                                    key, trusted.error().message));
        for (const auto& certificate : *trusted)
            for (const auto& finding : crypto::examine_authority(certificate, crypto::Purpose::server,
                                                                 entry.options.clock.wall_ms()))
                if (finding.weight >= crypto::Weight::all_refuse)
                    tell(key, finding.message + "; put a better CA there");
    };
    if (const auto& data = at_path(*entry.inputs[0], "data"); data.is_object())
        for (const auto& [key, value] : data.items())
            if (value.is_string()) read(key, value.get<std::string>());
    if (authorities == 0)
        tell("ca.crt",
             "there is no certificate in it: the custom server cannot be trusted; put its CA there");
    return bundle;
}

/// The pair with which the server knows the broker, into `resolved`.
void read_client_pair(Maker& maker, const MethodEntry& entry, Json& resolved) {
    const auto name = text_at(entry.settings, client_field);
    const auto& space = entry.name_space;
    resolved["certificate"] = secret_text(*entry.inputs[1], "tls.crt").value_or("");
    resolved["key"] = secret_text(*entry.inputs[1], "tls.key").value_or("");
    const auto judgement = crypto::judge_identity(resolved["certificate"], resolved["key"],
                                                  crypto::Purpose::client, entry.options.clock.wall_ms());
    for (const auto& finding : judgement.findings) {
        if (!finding.is_fault()) continue;
        const bool is_of_another = judgement.is_key_of_another && finding.weight == crypto::Weight::unusable;
        maker.warn(fmt::format("{}.{}: Secret {}: {}{}; put a pair that can be used there, with: {}",
                               entry.path(), client_field, name, finding.message,
                               is_of_another ? "; " + compare_pair(space, name) : "",
                               put_command(entry.objects, space, name)));
    }
}

MadeMethod make_custom_method(const MethodEntry& entry) {
    Maker maker(entry);
    const auto& settings = at_path(entry.settings, "customSettings");
    const auto& headers = at_path(settings, "headers");
    Json resolved = {{"endpoint", text_at(settings, "endpoint")},
                     {"headers", headers.is_object() ? headers : Json::object()},
                     {"ca", ""}};
    const auto inputs = custom_inputs(entry.settings);
    if (const auto& ca = inputs[0].name; !ca.empty()) {
        if (entry.inputs[0] == nullptr) {
            maker.lacks(ca_field,
                        absent_bundle(entry.objects, entry.name_space, ca, ca_field, entry.edit(), "ca.crt"));
            return maker.give_up();
        }
        resolved["ca"] = read_server_authorities(maker, entry);
    }
    if (const auto& client = inputs[1].name; !client.empty()) {
        if (entry.inputs[1] == nullptr) {
            maker.lacks(client_field,
                        absent_pair(entry.objects, entry.name_space, client, client_field, entry.edit()));
            return maker.give_up();
        }
        read_client_pair(maker, entry, resolved);
    }
    if (!entry.options.custom_server) {
        maker.fault("method: Custom is not possible here");
        return maker.give_up();
    }
    auto& way = maker.way();
    way.source = text_at(settings, "endpoint");
    way.is_closed = equal_no_case(
        mark_of(entry.authentication, "penstock.io/custom-unreachable", "FallThrough"), "Refuse");
    way.server = entry.options.custom_server(resolved);
    auto method = std::make_shared<auth::CustomMethod>(way.server, way.is_closed);
    return maker.finish(std::move(method));
}

/// Custom is the last: see method_kind_of().
constexpr std::array kinds{
    MethodKind{"ServiceAccountToken", false, true, token_inputs, make_token_method},
    MethodKind{"X509", true, false, x509_inputs, make_x509_method},
    MethodKind{"Password", false, false, password_inputs, make_password_method},
    MethodKind{"Custom", false, false, custom_inputs, make_custom_method},
};

}  // namespace

std::string MethodEntry::path() const {
    return fmt::format("BrokerAuthentication {}: spec.authenticationMethods[{}]", name, index);
}

std::string MethodEntry::edit() const {
    return edit_command("brokerauthentication", name_space + "/" + name);
}

const MethodKind& method_kind_of(const Json& settings) {
    const auto word = text_at(settings, "method");
    for (const auto& kind : kinds)
        if (equal_no_case(word, kind.word)) return kind;
    return kinds.back();
}

}  // namespace penstock::control
