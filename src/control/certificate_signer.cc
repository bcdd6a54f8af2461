#include "control/certificate_signer.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "base/clock.h"
#include "control/certificate_outlook.h"
#include "control/certificates.h"
#include "control/cures.h"
#include "crypto/examination.h"
#include "resources/text_rules.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {
const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }

/// Where an issuer's CA stands, who makes it, and what puts it right.
struct CaSecret {
    std::string name_space, name;
    ObjectRef maker;                     ///< the Certificate that writes it; null: none that is known
    bool is_made = false;                ///< by a Certificate that this issuer need not issue itself
    bool is_made_ca = false;             ///< ... as a CA
    std::string put_by_hand, put;        ///< cures: by a person; whichever it is

    [[nodiscard]] std::string where() const { return fmt::format("Secret {}/{}", name_space, name); }
};

CaSecret ca_secret_of(const Objects& objects, const Json& issuer, bool cluster) {
    CaSecret out{.name_space = cluster ? std::string(ca_namespace) : text_at(issuer, "metadata.namespace"),
                 .name = text_at(issuer, "spec.ca.secretName"),
                 .maker = {},
                 .put_by_hand = {},
                 .put = {}};
    out.maker = maker_of(objects, out.name_space, out.name);
    // One that this issuer would have to issue is never made.
    out.is_made =
        out.maker != nullptr &&
        (text_at(*out.maker, "spec.issuerRef.name") != text_at(issuer, "metadata.name") ||
         text_at(*out.maker, "spec.issuerRef.kind", "Issuer") != (cluster ? "ClusterIssuer" : "Issuer"));
    out.is_made_ca = out.is_made && at_path(*out.maker, "spec.isCA") == Json(true);
    out.put_by_hand = "put a CA that can sign there, with: " + put_command(objects, out.name_space, out.name);
    // What is spoilt in a Secret of a Certificate is issued again, and over what a person puts there.
    out.put = out.is_made_ca ? fmt::format("Certificate {}/{} issues it again", out.name_space,
                                           text_at(*out.maker, "metadata.name"))
                             : out.put_by_hand;
    return out;
}

/// Why there is no Secret, for people.
std::string why_absent(const Objects& objects, const CaSecret& at, const Json& issuer, bool cluster) {
    const auto own_name = text_at(issuer, "metadata.name");
    const auto qualified = (cluster ? "" : at.name_space + "/") + own_name;
    auto why = at.is_made ? awaited_object(objects, core("Secret"), at.name_space, at.name) : std::string();
    if (why.empty())
        why = absent_object(core("Secret"), at.name_space, at.name, "spec.ca.secretName",
                            edit_command(cluster ? "ClusterIssuer" : "Issuer", qualified),
                            "kubectl create secret tls {} -n {} --cert=CHAIN.crt --key=KEY.key");
    if (cluster && own_name == default_issuer && at.name == ca_secret && at.maker == nullptr)
        why +=
            fmt::format(", or have the installation's own CA made anew with: kubectl delete clusterissuer {}",
                        default_issuer);
    return fmt::format("Error getting keypair for CA issuer: secret \"{}\" not found in namespace {}: {}",
                       resources::shortened(at.name), at.name_space, why);
}

/// The chain in the Secret, the CA first, or why it cannot sign with the Secret's key.
Result<std::vector<crypto::Certificate>> signing_chain(const Objects& objects, const CaSecret& at,
                                                       const crypto::KeyPair& pair) {
    if (pair.certificate.empty() || pair.key.empty())
        return fail(fmt::format("{} needs tls.crt and tls.key; {}", at.where(), at.put));
    auto chain = crypto::read_certificates(pair.certificate);
    if (!chain || chain->empty())
        return fail(fmt::format("{}: tls.crt: {}; {}", at.where(),
                                chain ? "no certificate in it" : chain.error().message, at.put));
    const auto& ca = chain->front();
    if (!ca.is_ca()) {
        const auto maker = at.maker != nullptr ? text_at(*at.maker, "metadata.name") : std::string();
        const auto edit = edit_command("certificate", at.name_space + "/" + maker);
        return fail(fmt::format(
            "{}: signing certificate \"{}\" is not a CA (basicConstraints CA:TRUE is missing); {}",
            at.where(), ca.subject(),
            at.is_made && !at.is_made_ca ? "write isCA: true into the spec of its Certificate, with: " + edit
                                         : at.put));
    }
    if (!ca.matches_key(pair.key))
        return fail(fmt::format("{}: tls.key is not the key of the first certificate; {}", at.where(),
                                at.is_made_ca ? at.put
                                              : fmt::format("{}; put a pair that fits there, with: {}",
                                                            compare_pair(at.name_space, at.name),
                                                            put_command(objects, at.name_space, at.name))));
    if (const auto why = crypto::issuing_fault(*chain); !why.empty())
        return fail(fmt::format("{}: {}; {}", at.where(), why,
                                at.is_made_ca ? "have it issued anew with: " +
                                                    issue_command(objects, at.name_space, at.name)
                                              : at.put_by_hand));
    return std::move(*chain);
}

}  // namespace

bool Signer::is_cross(const crypto::Certificate& one) {
    return one.subject() == one.issuer() && !one.is_self_signed();
}

std::vector<crypto::Certificate> Signer::above_leaf() const {
    std::vector<crypto::Certificate> out;
    std::ranges::copy_if(chain, std::back_inserter(out),
                         [](const auto& link) { return !link.is_self_signed(); });
    return out;
}

const crypto::Certificate& Signer::root() const {
    const auto found = std::ranges::find_if(chain, [](const auto& link) { return link.is_self_signed(); });
    if (found != chain.end()) return *found;
    return *std::find_if(chain.rbegin(), chain.rend(),
                         [&](const auto& link) { return !is_cross(link) || &link == &chain.front(); });
}

Result<Signer> signer_of(const Objects& objects, const Json& issuer, std::int64_t now_ms) {
    const bool cluster =
        text_at(issuer, "kind") == "ClusterIssuer" || text_at(issuer, "metadata.namespace").empty();
    if (at_path(issuer, "spec.selfSigned").is_object()) return Signer{.self = true};
    if (text_at(issuer, "spec.ca.secretName").empty())
        return fail("only the issuer types ca and selfSigned are there without cert-manager");
    const auto at = ca_secret_of(objects, issuer, cluster);
    const auto secret = objects.get(core("Secret"), at.name_space, at.name);
    if (secret == nullptr) return fail(why_absent(objects, at, issuer, cluster));
    Signer out;
    out.pair = {.certificate = secret_text(*secret, "tls.crt").value_or(""),
                .key = secret_text(*secret, "tls.key").value_or("")};
    auto chain = signing_chain(objects, at, out.pair);
    if (!chain) return std::unexpected(chain.error());
    const auto& ca = chain->front();
    if (ca.not_after_ms() <= now_ms)
        return fail(fmt::format("{}: the CA \"{}\" has expired at {}; {}", at.where(), ca.subject(),
                                rfc3339(ca.not_after_ms()), at.put));
    // A way to a former CA that has ended leads nowhere.
    std::erase_if(*chain,
                  [&](const auto& link) { return Signer::is_cross(link) && link.not_after_ms() <= now_ms; });
    out.chain = std::move(*chain);
    return out;
}

}  // namespace penstock::control
