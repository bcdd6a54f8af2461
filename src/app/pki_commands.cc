// pki: certificates made, looked at, checked, counted.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/identity.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/text.h"
#include "client/names.h"
#include "control/certificates.h"
#include "control/security.h"
#include "crypto/examination.h"
#include "crypto/trust.h"
#include "crypto/x509.h"
#include "mqttc/client.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using crypto::Certificate;
using resources::at_path;
using resources::Json;
using resources::text_at;

struct PkiOptions {
    std::string name;                    ///< common name, or what to look at
    std::string ca, ca_key, out, key_algorithm = "Ec256", purpose, host;
    std::vector<std::string> hosts, subject;
    std::string duration;
    int path_length = -1;
    bool force = false;
};

constexpr std::int64_t day_ms = 86'400'000;
constexpr int renew_tries = 20;

/// Words of a text in lines of at most 80 columns, indented.
void print_wrapped(const std::string& text) {
    constexpr std::size_t columns = 80;
    std::string line = " ";
    for (const auto word : split(text, ' ')) {
        if (line.size() + word.size() > columns && line.size() > 3) {
            std::cout << line.substr(0, line.size() - 1)
                      << "\n";   // without the blank that follows each word
            line = "   ";
        }
        line += std::string(word) + " ";
    }
    std::cout << line.substr(0, line.size() - 1) << "\n";
}

std::string left_text(std::int64_t until_ms) {
    const auto left = until_ms - wall_ms();
    if (left <= 0) return fmt::format("expired {} days ago", -left / day_ms);
    return left < 2 * day_ms ? fmt::format("{} hours left", left / 3'600'000) : fmt::format("{} days left", left / day_ms);
}

/// `30d` beside Go's units.
Result<std::int64_t> life_of(const std::string& text, std::int64_t fallback) {
    if (text.empty()) return fallback;
    if (text.ends_with('d'))
        if (const auto days = parse_number<std::int64_t>(std::string_view(text).substr(0, text.size() - 1)); days && *days > 0) return *days * day_ms;
    const auto parsed = parse_duration(text);
    if (!parsed || *parsed < 60'000) return fail(fmt::format("--duration: \"{}\" is no duration of at least 1m; write 90d, 2160h or 30m", text));
    return *parsed;
}

bool is_address(const std::string& host) { return host.find(':') != std::string::npos || std::ranges::all_of(host, [](char c) { return c == '.' || (c >= '0' && c <= '9'); }); }

Result<std::vector<Certificate>> read_file_certificates(const std::string& path) {
    const auto text = read_file(path, Streams::taken);
    if (!text) return std::unexpected(text.error());
    auto out = crypto::read_certificates(*text);
    if (!out) return fail(fmt::format("{}: {}", path, out.error().message));
    if (out->empty()) return fail(fmt::format("{}: there is no certificate in it", path));
    return out;
}

void print_certificate(const Certificate& c, std::size_t number) {
    auto joined = [](std::vector<std::string> list) { return list.empty() ? std::string("-") : printable(fmt::format("{}", fmt::join(list, ", "))); };
    auto names = c.dns_names();
    for (const auto& more : {c.addresses(), c.other_names()}) names.insert(names.end(), more.begin(), more.end());
    std::cout << fmt::format("certificate {}\n  subject      {}\n  issuer       {}{}\n  valid        {} to {} ({})\n  key          {}\n  signature    {}\n  CA           {}\n  names        {}\n  usages       {}\n  serial       {}\n  SHA-256      {}\n", number,
                             c.subject().empty() ? "(empty)" : printable(c.subject()), printable(c.issuer()), c.is_self_signed() ? " (itself)" : "", rfc3339(c.not_before_ms()), rfc3339(c.not_after_ms()), left_text(c.not_after_ms()), c.key_text(), c.signature_algorithm(),
                             c.is_ca() ? "yes" : "no", joined(names), joined(c.usages()), c.serial(), c.fingerprint());
    for (const auto& url : c.ocsp_urls()) std::cout << "  OCSP         " << printable(url) << "\n";
    for (const auto& url : c.crl_urls()) std::cout << "  CRL          " << printable(url) << "\n";
}

int print_findings(const std::vector<crypto::Finding>& findings) {
    int faults = 0;
    for (const auto& finding : findings) {
        std::cout << (finding.is_fault() ? "fault: " : "note:  ") << printable(finding.message) << "\n";
        faults += finding.is_fault();
    }
    if (faults == 0) std::cout << "no faults\n";
    return faults > 0 ? 1 : 0;
}

Result<crypto::Purpose> purpose_of(const std::string& word, const Certificate& leaf) {
    if (word == "client") return crypto::Purpose::client;
    if (word == "server") return crypto::Purpose::server;
    if (word == "any") return crypto::Purpose::any;
    if (!word.empty()) return fail(fmt::format("--purpose: \"{}\" is none of client, server, any", word));
    if (leaf.is_ca()) return crypto::Purpose::any;
    const auto usages = leaf.usages();
    const bool server = std::ranges::find(usages, "server auth") != usages.end(), client = std::ranges::find(usages, "client auth") != usages.end();
    return client && !server ? crypto::Purpose::client : server && !client ? crypto::Purpose::server : leaf.dns_names().empty() && leaf.addresses().empty() ? crypto::Purpose::any : crypto::Purpose::server;
}

int pki_create(const std::string& what, const PkiOptions& o) {
    const bool is_ca = what == "root" || what == "intermediate";
    const auto life = life_of(o.duration, what == "root" ? 3650 * day_ms : what == "intermediate" ? 1825 * day_ms : 90 * day_ms);
    if (!life) return problem(life.error().message);
    if (what != "root" && (o.ca.empty() || o.ca_key.empty())) return problem("--ca and --ca-key name the CA that signs");
    crypto::IssueOptions issue{.is_ca = is_ca, .path_length = what == "intermediate" && o.path_length < 0 ? 0 : o.path_length, .not_before_ms = wall_ms() - 60'000, .not_after_ms = wall_ms() + *life};
    for (const auto& part : o.subject) {
        const auto equal = part.find('=');
        if (equal == std::string::npos) return problem(fmt::format("--subject: \"{}\" is not NAME=VALUE, such as O=Fabrikam", part));
        issue.subject.emplace_back(part.substr(0, equal), part.substr(equal + 1));
    }
    issue.subject.emplace_back("CN", o.name);
    if (what == "server") {
        issue.usages = {"digital signature", "key encipherment", "server auth"};
        if (o.hosts.empty()) return problem("--host names what clients dial (a name or an address); without one no client would accept the certificate");
    }
    if (what == "client") issue.usages = {"digital signature", "client auth"};
    if (o.key_algorithm == "Ed25519" || o.key_algorithm.starts_with("Ec"))
        std::erase(issue.usages, "key encipherment");
    for (const auto& host : o.hosts) (is_address(host) ? issue.addresses : issue.dns_names).push_back(host);

    const auto prefix = o.out.empty() ? o.name : o.out;
    const auto certificate_file = prefix + ".crt", key_file = prefix + ".key";
    if (!o.force)
        for (const auto& file : {certificate_file, key_file})
            if (fs::exists(file)) return problem(fmt::format("{}: exists already; --force replaces it", file));
    crypto::KeyPair ca;
    std::string chain;
    if (what != "root") {
        const auto authority = read_file_certificates(o.ca);
        if (!authority) return problem(authority.error().message);
        const auto key = read_file(o.ca_key, Streams::taken);
        if (!key) return problem(key.error().message);
        ca = {.certificate = authority->front().pem(), .key = *key};
        for (const auto& link : *authority)
            if (!link.is_self_signed()) chain += link.pem();
    }
    const auto key = crypto::make_key(resources::canonical({"Ec256", "Ec384", "Ec521", "Ed25519", "Rsa2048", "Rsa3072", "Rsa4096", "Rsa8192"}, o.key_algorithm));
    if (!key) return problem("--key-type: " + key.error().message);
    const auto certificate = crypto::issue_certificate(*key, what == "root" ? nullptr : &ca, issue);
    if (!certificate) return problem(certificate.error().message);
    if (auto r = write_private(key_file, *key); !r) return problem(r.error().message);
    if (auto r = write_private(certificate_file, *certificate + chain); !r) return problem(r.error().message);
    fs::permissions(certificate_file, fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read | fs::perms::others_read);
    std::cout << fmt::format("{}{}\n{}\n", certificate_file, chain.empty() ? "" : " (with the intermediates behind it)", key_file);
    return 0;
}

int pki_inspect(const PkiOptions& o) {
    std::vector<Certificate> chain;
    std::string where = o.name;
    bool endpoint = false;
    std::string host = o.host;
    if (!fs::exists(o.name) && o.name.find(':') != std::string::npos) {
        const auto colon = o.name.rfind(':');
        const auto port = parse_number<std::uint16_t>(std::string_view(o.name).substr(colon + 1));
        if (!port) return problem(fmt::format("\"{}\" is neither a file nor HOST:PORT", o.name));
        endpoint = true;
        auto name = o.name.substr(0, colon);
        if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
        if (host.empty()) host = name;
        const auto context = tls::Context::client({.verify_server = false, .verify_name = false});
        if (!context) return problem(context.error().message);
        mqttc::Client client;
        if (auto opened = client.open({.host = name, .port = *port, .timeout_ms = 5000, .tls = *context, .server_name = host}); !opened) return problem(fmt::format("{}: {}", o.name, opened.error().message));
        chain = client.channel()->peer_chain();
        std::cout << fmt::format("endpoint {}: {} {}\n", o.name, client.channel()->version(), client.channel()->cipher());
    } else {
        auto read = read_file_certificates(o.name);
        if (!read) return problem(read.error().message);
        chain = std::move(*read);
    }
    for (std::size_t i = 0; i < chain.size(); ++i) print_certificate(chain[i], i + 1);
    const auto purpose = endpoint ? Result<crypto::Purpose>(crypto::Purpose::server) : purpose_of(o.purpose, chain.front());
    if (!purpose) return problem(purpose.error().message);
    auto findings = crypto::examine_chain(chain, *purpose, wall_ms());
    if (!host.empty() && !chain.front().covers(host)) findings.push_back({crypto::Weight::all_refuse, fmt::format("the certificate does not cover \"{}\"; issue it with subjectAltName={}:{}", host, is_address(host) ? "IP" : "DNS", host)});
    // The CA given, or one that stands beside, tells whether a chain of certificates that sign is sound.
    if (!o.ca.empty()) {
        const auto trusted = read_file_certificates(o.ca);
        if (!trusted) return problem(trusted.error().message);
        const auto outcome = crypto::TrustStore(*trusted, {}).verify(chain, *purpose, wall_ms());
        if (!outcome.ok()) findings.push_back({crypto::Weight::all_refuse, outcome.fault});
    }
    if (chain.size() == 1 && !chain.front().is_ca() && !chain.front().is_self_signed() && to_lower(chain.front().subject()).find(" ca") != std::string::npos)
        findings.push_back({crypto::Weight::all_refuse, fmt::format("\"{}\" is named like a CA, but basicConstraints CA:TRUE is missing: whatever it signs is refused; issue it with an extension file that has basicConstraints=critical,CA:TRUE", chain.front().subject())});
    return print_findings(findings);
}

int pki_verify(const PkiOptions& o) {
    const auto chain = read_file_certificates(o.name);
    if (!chain) return problem(chain.error().message);
    if (o.ca.empty()) return problem("--ca names the trusted certificates");
    const auto text = read_file(o.ca);
    if (!text) return problem(text.error().message);
    const auto trusted = read_file_certificates(o.ca);
    if (!trusted) return problem(trusted.error().message);
    const auto lists = crypto::read_revocation_lists(*text);
    if (!lists) return problem(fmt::format("{}: {}", o.ca, lists.error().message));
    const auto purpose = purpose_of(o.purpose, chain->front());
    if (!purpose) return problem(purpose.error().message);
    const crypto::TrustStore trust(*trusted, *lists);
    const auto outcome = trust.verify(*chain, *purpose, wall_ms());
    for (const auto& warning : trust.lists().warnings()) std::cout << "note: " << printable(warning) << "\n";
    if (!outcome.ok()) {
        std::cout << "not good: " << printable(outcome.fault) << "\n";
        return 1;
    }
    if (!o.host.empty() && !chain->front().covers(o.host)) {
        std::cout << fmt::format("not good: the certificate does not cover \"{}\"\n", o.host);
        return 1;
    }
    std::cout << "good:";
    for (const auto& link : outcome.path) std::cout << fmt::format(" {}{}", &link == &outcome.path.front() ? "" : "<- ", printable(link.subject()));
    std::cout << "\n";
    return 0;
}

/// The certificates and keys of the resource API itself, where it is Penstock's and tells them.
Result<void> add_own(client::Client& api,
                     const std::function<void(std::int64_t ends, std::vector<std::string> cells)>& add) {
    const auto answer = api.request("GET", "/penstock/certificates");
    if (!answer) return std::unexpected(answer.error());
    if (answer->status == 404 || answer->status == 403)
        return {};   // a cluster's API, or somebody who may not see them
    if (!answer->ok()) return fail(answer->message());
    const auto& certificates = at_path(answer->body, "certificates");
    if (!certificates.is_array()) return {};
    for (const auto& one : certificates) {
        const auto ends = parse_rfc3339(text_at(one, "notAfter"));
        const auto breaks =
            text_at(one, "fault").empty() ? text_at(one, "whenItEnds") : "FAULT: " + text_at(one, "fault");
        add(ends < 0 ? INT64_MAX : ends,
            {fmt::format("API pki/{} ({})", text_at(one, "where"), text_at(one, "name")),
             text_at(one, "subject").empty() ? std::string("-") : text_at(one, "subject"),
             ends < 0 ? "-" : rfc3339(ends), ends < 0 ? "-" : left_text(ends),
             text_at(one, "renewal", text_at(one, "name") == "ca" ? "by hand" : "-"), text_at(one, "usedBy"),
             breaks});
    }
    return {};
}

/// What `pki list` is made of, of all namespaces.
struct PkiObjects {
    Json secrets, maps, certificates, listeners, policies, cluster_issuers, issuers;
};

Result<PkiObjects> read_pki_objects(client::Client& api) {
    PkiObjects out;
    const struct {
        Json& into;
        const char *api_version, *kind;
    } lists[] = {{out.secrets, "v1", "Secret"},
                 {out.maps, "v1", "ConfigMap"},
                 {out.certificates, "cert-manager.io/v1", "Certificate"},
                 {out.listeners, "mqttbroker.iotoperations.azure.com/v1", "BrokerListener"},
                 {out.policies, "mqttbroker.iotoperations.azure.com/v1", "BrokerAuthentication"},
                 {out.cluster_issuers, "cert-manager.io/v1", "ClusterIssuer"},
                 {out.issuers, "cert-manager.io/v1", "Issuer"}};
    for (const auto& list : lists) {
        auto answer = fetch(api, client::path_of(*resources::find_kind(list.api_version, list.kind), ""));
        if (!answer) return std::unexpected(answer.error());
        list.into = std::move((*answer)["items"]);
    }
    return out;
}

/// Who uses what: `Secret ns/name` and `ConfigMap ns/name` → by whom, and what happens when it ends.
class PkiUses {
  public:
    explicit PkiUses(const PkiObjects& objects) {
        for (const auto& item : objects.listeners)
            for (const auto& port : at_path(item, "spec.ports")) add_port(item, port);
        for (const auto& item : objects.policies)
            for (const auto& method : at_path(item, "spec.authenticationMethods")) add_method(item, method);
        for (const auto& item : objects.cluster_issuers)
            add_issuer(item, control::ca_namespace, "ClusterIssuer");
        for (const auto& item : objects.issuers)
            add_issuer(item, text_at(item, "metadata.namespace"), "Issuer");
    }
    struct Use {
        std::string by, breaks;
    };
    [[nodiscard]] Use of(const std::string& key) const {
        const auto found = uses_.find(key);
        return found == uses_.end() ? Use{"-", "-"} : found->second;
    }

  private:
    void add(const std::string& key, const std::string& by, const std::string& breaks) {
        auto& use = uses_[key];
        use.by += (use.by.empty() ? "" : ", ") + by;
        if (use.breaks.find(breaks) == std::string::npos)
            use.breaks += (use.breaks.empty() ? "" : "; ") + breaks;
    }
    void add_port(const Json& listener, const Json& port) {
        if (!at_path(port, "tls").is_object()) return;
        const auto manual = text_at(port, "tls.manual.secretRef");
        add(fmt::format("Secret {}/{}", text_at(listener, "metadata.namespace"),
                        manual.empty() ? control::certificate_name(listener, port) : manual),
            fmt::format("listener {}:{}", text_at(listener, "metadata.name"), port.value("port", 0)),
            "clients refuse the listener");
    }
    void add_method(const Json& policy, const Json& method) {
        const auto space = text_at(policy, "metadata.namespace");
        const auto by = "authentication " + text_at(policy, "metadata.name");
        if (equal_no_case(text_at(method, "method"), "X509"))
            add(fmt::format("ConfigMap {}/{}", space,
                            text_at(method, "x509Settings.trustedClientCaCert", "client-ca")),
                by, "clients with certificates of this CA are refused");
        if (const auto client = text_at(method, "customSettings.auth.x509.secretRef"); !client.empty())
            add(fmt::format("Secret {}/{}", space, client), by, "the custom server refuses the broker");
    }
    void add_issuer(const Json& issuer, const std::string& space, const char* usual_kind) {
        if (const auto name = text_at(issuer, "spec.ca.secretName"); !name.empty())
            add(fmt::format("Secret {}/{}", space, name),
                fmt::format("{} {}", text_at(issuer, "kind", usual_kind), text_at(issuer, "metadata.name")),
                "nothing is issued or renewed");
    }
    std::map<std::string, Use> uses_;
};

/// One certificate: its cells are where, subject, ends, left, renewal, used by, when it ends.
struct PkiRow {
    std::int64_t ends;
    std::vector<std::string> cells;
};

/// When it gets a successor, and by whom.
std::string renewal_of(const PkiObjects& objects, const char* kind, const Json& item) {
    const auto space = text_at(item, "metadata.namespace"), name = text_at(item, "metadata.name");
    if (name == control::trust_bundle || name == "kube-root-ca.crt") return "kept current";
    std::string out = "by hand";
    for (const auto& certificate : objects.certificates)
        if (std::string_view(kind) == "Secret" && text_at(certificate, "metadata.namespace") == space &&
            text_at(certificate, "spec.secretName") == name)
            out = text_at(certificate, "status.renewalTime", "pending");
    return out;
}

std::vector<PkiRow> rows_of(const PkiObjects& objects) {
    const PkiUses uses(objects);
    std::vector<PkiRow> rows;
    auto add = [&](const char* kind, const Json& item, const std::string& entry, const std::string& text) {
        const auto found = crypto::read_certificates(text);
        if (!found || found->empty()) return;
        const auto key = fmt::format("{} {}/{}", kind, text_at(item, "metadata.namespace"),
                                     text_at(item, "metadata.name"));
        const auto renewal = renewal_of(objects, kind, item);
        const auto use = uses.of(key);
        for (const auto& certificate : *found) {
            const auto ends = certificate.not_after_ms();
            rows.push_back({ends,
                            {fmt::format("{}[{}]", key, entry), certificate.subject(), rfc3339(ends),
                             left_text(ends), renewal, use.by, use.breaks}});
        }
    };
    for (const auto& item : objects.secrets)
        if (const auto text = control::secret_text(item, "tls.crt")) add("Secret", item, "tls.crt", *text);
    for (const auto& item : objects.maps)
        if (const auto& data = at_path(item, "data"); data.is_object())
            for (const auto& [entry, value] : data.items())
                if (value.is_string() &&
                    value.get_ref<const std::string&>().find("BEGIN CERTIFICATE") != std::string::npos)
                    add("ConfigMap", item, entry, value.get<std::string>());
    return rows;
}

/// What is asked first, in columns; what is long, below: it fits a terminal of 80 columns.
void print_narrow(const std::vector<PkiRow>& rows) {
    constexpr std::size_t subject_max = 38;
    std::cout << fmt::format("{:<12} {:<15} {:<12} {}\n", "ENDS", "LEFT", "RENEWAL", "SUBJECT");
    for (const auto& row : rows) {
        auto date = [](const std::string& text) {
            return text.size() == std::string_view("2026-01-01T00:00:00Z").size() && text.ends_with('Z')
                       ? text.substr(0, 10)
                       : text;
        };
        auto subject = printable(row.cells[1]);
        if (subject.size() > subject_max) subject = std::string(clipped(subject, subject_max - 3)) + "...";
        std::cout << fmt::format("{:<12} {:<15} {:<12} {}\n {}\n", date(row.cells[2]), row.cells[3],
                                 date(row.cells[4]), subject, printable(row.cells[0]));
        if (row.cells[5] != "-") print_wrapped("used by " + printable(row.cells[5]));
        if (row.cells[6] != "-") print_wrapped("when it ends: " + printable(row.cells[6]));
    }
}

int pki_list(const ResourceOptions& options) {
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    const auto objects = read_pki_objects(*api);
    if (!objects) return problem(objects.error().message);
    auto rows = rows_of(*objects);
    if (auto r =
            add_own(*api, [&](std::int64_t ends,
                              std::vector<std::string> cells) { rows.push_back({ends, std::move(cells)}); });
        !r)
        return problem(r.error().message);
    std::ranges::stable_sort(rows, {}, &PkiRow::ends);
    if (options.output != "wide") {
        print_narrow(rows);
        return 0;
    }
    std::vector<std::vector<std::string>> cells;
    for (auto& row : rows) cells.push_back(std::move(row.cells));
    print_rows({"WHERE", "SUBJECT", "ENDS", "LEFT", "RENEWAL", "USED BY", "WHEN IT ENDS"}, std::move(cells));
    return 0;
}

int pki_renew(const ResourceOptions& options, const PkiOptions& o) {
    if (auto good = client::check_name(o.name); !good) return problem(good.error().message);
    auto api = connect(options);
    if (!api) return problem(api.error().message);
    const auto path = client::path_of(*resources::find_kind("cert-manager.io/v1", "Certificate"), api->access().name_space, o.name);
    // On what was read alone: the controllers write conditions too, and theirs are not to be put back to what they were.
    for (int tries = 1;; ++tries) {
        const auto current = api->request("GET", path);
        if (!current || !current->ok()) return refused(current);
        Json conditions = at_path(current->body, "status.conditions").is_array() ? at_path(current->body, "status.conditions") : Json::array();
        std::erase_if(conditions.get_ref<Json::array_t&>(), [](const Json& c) { return text_at(c, "type") == "Issuing"; });
        conditions.push_back({{"type", "Issuing"}, {"status", "True"}, {"reason", "ManuallyTriggered"}, {"message", "Certificate re-issuance manually triggered"}, {"lastTransitionTime", rfc3339(wall_ms())}});
        const Json patch = {{"metadata", {{"resourceVersion", text_at(current->body, "metadata.resourceVersion")}}}, {"status", {{"conditions", conditions}}}};
        const auto answer = api->request("PATCH", path + "/status", patch.dump(), "application/merge-patch+json");
        if (answer && answer->status == 409 && tries < renew_tries) continue;
        if (!answer || !answer->ok()) return refused(answer);
        break;
    }
    std::cout << fmt::format("certificate {} is being renewed\n", o.name);
    return 0;
}

/// The command that makes certificates of a kind: root, intermediate, server or client.
void add_maker(Command& group, const std::string& what, const char* doc, PkiOptions& o) {
    auto command = group.add(what.c_str(), doc);
    command.option("name", o.name, "Common name (CN)").required();
    if (what != "root") {
        command.option("--ca", o.ca, "Certificate of the CA that signs, PEM").required();
        command.option("--ca-key", o.ca_key, "Its private key, PEM").required();
    }
    if (what == "server")
        command.option("--host", o.hosts, "Name or address that clients dial; may be repeated")
            .required()
            .takes_one();
    if (what == "intermediate") command.option("--path-length", o.path_length, "CAs below it (0)");
    command
        .option("--subject", o.subject, "Further parts of the subject before the CN, such as O=Fabrikam")
        .takes_one();
    command.option("--duration", o.duration, "Lifetime, such as 90d or 2160h");
    command
        .option("--key-type", o.key_algorithm, "Ec256, Ec384, Ec521, Ed25519, Rsa2048, Rsa4096 or Rsa8192")
        .shows_default();
    command.option("--out", o.out, "Files OUT.crt and OUT.key; the name when absent");
    command.flag("--force", o.force, "Replace files that exist");
    command.runs([what, &o] { return pki_create(what, o); });
}

}  // namespace

void add_pki(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& o = commands.keep<PkiOptions>();
    auto group = commands.add("pki", "Certificates: make, look at, check, count");
    add_maker(group, "root", "Make a root CA", o);
    add_maker(group, "intermediate", "Make an intermediate CA", o);
    add_maker(group, "server", "Make a server certificate", o);
    add_maker(group, "client", "Make a client certificate", o);
    auto inspect =
        group.add("inspect", "What a person needs to know of a certificate file or of HOST:PORT");
    inspect.option("what", o.name, "File in PEM or DER, or HOST:PORT").required();
    inspect.runs([&o] { return pki_inspect(o); });
    auto verify =
        group.add("verify", "Whether a chain is good: penstock pki verify client.crt --ca root.crt");
    verify.option("file", o.name, "Certificate with its intermediates, PEM").required();
    verify.runs([&o] { return pki_verify(o); });
    for (auto* command : {&inspect, &verify}) {
        command->option("--ca", o.ca, "Trusted certificates and revocation lists, PEM");
        command->option("--purpose", o.purpose,
                        "client, server or any; what the certificate itself says when absent");
        command->option("--host", o.host, "Name or address it must cover");
    }
    auto list =
        group.add("list", "Every certificate Penstock knows: who uses it, when it ends, what breaks then");
    add_api_options(list, resource);
    list.option("-o,--output", resource.output, "wide: one certificate a line, with all columns")
        .one_of(std::vector<std::string>{"wide"});
    list.runs([&resource] { return pki_list(resource); });
    auto renew = group.add("renew", "Issue a Certificate anew now");
    add_api_options(renew, resource);
    renew.option("name", o.name, "Certificate").required();
    renew.runs([&resource, &o] { return pki_renew(resource, o); });
}

}  // namespace penstock::app
