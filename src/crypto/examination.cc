#include "crypto/examination.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"
#include "crypto/native.h"
#include "crypto/trust.h"

namespace penstock::crypto {
namespace {

constexpr std::int64_t day_ms = 86'400'000;
constexpr int security_bits_min = 112;           // NIST SP 800-57: RSA 2048, P-224
constexpr int rsa_bits_usual_max = 8192;         // Go and others refuse longer ones
constexpr std::ptrdiff_t chain_max = 16;
constexpr int rsa_bits_max = 16'384;             // OpenSSL refuses longer ones

class Findings {
  public:
    void add(Weight weight, std::string message) { list_.push_back({weight, std::move(message)}); }
    [[nodiscard]] bool has(Weight least) const { return std::ranges::any_of(list_, [least](const auto& f) { return f.weight >= least; }); }
    std::vector<Finding> take() {
        std::ranges::stable_sort(list_, [](const auto& a, const auto& b) { return a.weight > b.weight; });
        return std::move(list_);
    }

  private:
    std::vector<Finding> list_;
};

std::string text_parameter(EVP_PKEY* key, const char* name) {
    std::array<char, 80> text{};
    std::size_t size = 0;
    if (EVP_PKEY_get_utf8_string_param(key, name, text.data(), text.size(), &size) != 1) ERR_clear_error();
    return {text.data(), size};
}

bool is_weak_digest(const Certificate& certificate) {
    int bits = -1;
    // The digest's strength as OpenSSL counts it: SHA-1 and MD5 fall below what RSA 2048 has.
    if (X509_get_signature_info(certificate.native(), nullptr, nullptr, &bits, nullptr) != 1) ERR_clear_error();
    return bits >= 0 && bits < security_bits_min;
}

bool is_curve_of_tls(std::string_view curve) {
    constexpr std::array<std::string_view, 6> names{"prime256v1", "P-256", "secp384r1", "P-384", "secp521r1", "P-521"};
    return std::ranges::find(names, curve) != names.end();
}

/// RFC 8446, 4.2.3 and 4.2.7: the curves and signature schemes TLS has; others cannot be offered.
void examine_curve(const std::string& who, EVP_PKEY* key, Findings& out) {
    const auto curve = text_parameter(key, OSSL_PKEY_PARAM_GROUP_NAME);
    if (curve == "secp521r1" || curve == "P-521") out.add(Weight::note, fmt::format("{} has a key on P-521: some browsers and devices do not take it; P-256 is understood by all", who));
    else if (!is_curve_of_tls(curve))
        out.add(Weight::unusable, fmt::format("{} has a key on the curve {}, which TLS clients do not offer: no handshake can be completed; issue it with a key on P-256 or P-384, or RSA 2048", who, curve.empty() ? "of its own parameters" : curve));
    if (text_parameter(key, OSSL_PKEY_PARAM_EC_ENCODING) == "explicit")
        out.add(Weight::all_refuse, fmt::format("{} spells its curve's parameters out (RFC 5480, 2.1.1 demands the curve's name): peers refuse it; make the key with -pkeyopt ec_param_enc:named_curve", who));
}

/// The key with which the owner of `leaf` signs in the handshake.
void examine_leaf_key(const std::string& who, const Certificate& leaf, Findings& out) {
    auto* key = X509_get0_pubkey(leaf.native());
    if (key == nullptr) {
        ERR_clear_error();
        out.add(Weight::unusable, fmt::format("{} has a public key that cannot be read; issue it with a key on P-256 or RSA 2048", who));
        return;
    }
    if (EVP_PKEY_is_a(key, "EC")) {
        examine_curve(who, key, out);
    } else if (EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS")) {
        const int bits = EVP_PKEY_get_bits(key);
        if (bits > rsa_bits_max) out.add(Weight::unusable, fmt::format("{} has an RSA key of {} bits: OpenSSL takes {} at most; use RSA 2048 to 4096 or EC P-256", who, bits, rsa_bits_max));
        else if (bits > rsa_bits_usual_max) out.add(Weight::some_refuse, fmt::format("{} has an RSA key of {} bits: clients written in Go refuse more than {}, and each handshake costs much time; use RSA 2048 to 4096 or EC P-256", who, bits, rsa_bits_usual_max));
        if (EVP_PKEY_is_a(key, "RSA-PSS")) out.add(Weight::some_refuse, fmt::format("{} has a key that is for RSA-PSS alone (id-RSASSA-PSS): Go, Windows and many devices refuse it; make a plain RSA key", who));
    } else if (EVP_PKEY_is_a(key, "ED25519")) {
        out.add(Weight::note, fmt::format("{} has an Ed25519 key: browsers and Windows refuse it; P-256 is understood by all", who));
    } else if (EVP_PKEY_is_a(key, "ED448")) {
        out.add(Weight::some_refuse, fmt::format("{} has an Ed448 key: hardly any client takes it; use EC P-256", who));
    } else {
        out.add(Weight::unusable, fmt::format("{} has a key of type {}, which TLS has no signature for: no handshake can be completed; issue it with a key on P-256 or RSA 2048", who, leaf.key_text()));
    }
    if (leaf.security_bits() < security_bits_min && !out.has(Weight::unusable))
        out.add(Weight::unusable, fmt::format("{} has a weak key ({}): less than {} bits of security are refused on both sides; use EC P-256 or RSA 2048 at least", who, leaf.key_text(), security_bits_min));
    const bool signs = (X509_get_key_usage(leaf.native()) & KU_DIGITAL_SIGNATURE) != 0;   // all bits when there is no key usage
    // RFC 8446, 4.4.2.2, and RFC 8422, 2: ECDHE and TLS 1.3 have the owner of the certificate sign.
    if (!signs) out.add(Weight::all_refuse, fmt::format("{} lacks digitalSignature in its key usage, without which it cannot be used in TLS 1.3 or with ECDHE; issue it with keyUsage=critical,digitalSignature", who));
}

void examine_times(const std::string& who, const Certificate& c, std::int64_t now_ms, Findings& out) {
    if (c.not_after_ms() <= now_ms) out.add(Weight::all_refuse, fmt::format("{} has expired at {}; issue it anew", who, rfc3339(c.not_after_ms())));
    else if (c.not_after_ms() - now_ms < 30 * day_ms && c.not_after_ms() - c.not_before_ms() > 45 * day_ms) out.add(Weight::note, fmt::format("{} ends in {} days", who, (c.not_after_ms() - now_ms) / day_ms));
    if (c.not_before_ms() > now_ms) out.add(Weight::all_refuse, fmt::format("{} is not valid before {}; check the clocks of this machine and of the issuer", who, rfc3339(c.not_before_ms())));
}

bool is_marked_ca(const Certificate& c) { return (X509_get_extension_flags(c.native()) & EXFLAG_CA) != 0; }
bool may_sign_certificates(const Certificate& c) { return (X509_get_key_usage(c.native()) & KU_KEY_CERT_SIGN) != 0; }   // all bits when there is no key usage

/// The key of who signs others: signatures of other kinds are verified by hardly any client, whatever OpenSSL itself takes.
void examine_signing_key(const std::string& who, const Certificate& c, Findings& out) {
    auto* key = X509_get0_pubkey(c.native());
    const char* cure = "make a CA with a key on P-256 or P-384, or RSA 2048 to 4096, and issue anew what it signed";
    if (key == nullptr) {
        ERR_clear_error();
        return out.add(Weight::all_refuse, fmt::format("{} has a public key that cannot be read; {}", who, cure));
    }
    if (c.security_bits() < security_bits_min) return out.add(Weight::all_refuse, fmt::format("{} has a weak key ({}), so clients refuse the chain; {}", who, c.key_text(), cure));
    if (EVP_PKEY_is_a(key, "EC")) {
        const auto curve = text_parameter(key, OSSL_PKEY_PARAM_GROUP_NAME);
        if (!is_curve_of_tls(curve)) out.add(Weight::all_refuse, fmt::format("{} has a key on the curve {}, whose signatures TLS clients do not take; {}", who, curve.empty() ? "of its own parameters" : curve, cure));
        if (text_parameter(key, OSSL_PKEY_PARAM_EC_ENCODING) == "explicit") out.add(Weight::all_refuse, fmt::format("{} spells its curve's parameters out (RFC 5480, 2.1.1 demands the curve's name): peers refuse it; make the key with -pkeyopt ec_param_enc:named_curve", who));
    } else if (EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS")) {
        const int bits = EVP_PKEY_get_bits(key);
        if (bits > rsa_bits_max) out.add(Weight::all_refuse, fmt::format("{} has an RSA key of {} bits: OpenSSL takes {} at most; {}", who, bits, rsa_bits_max, cure));
        else if (bits > rsa_bits_usual_max || EVP_PKEY_is_a(key, "RSA-PSS")) out.add(Weight::some_refuse, fmt::format("{} has the key {}, which clients written in Go refuse; {}", who, c.key_text(), cure));
    } else if (EVP_PKEY_is_a(key, "ED448")) {
        out.add(Weight::some_refuse, fmt::format("{} has an Ed448 key: hardly any client takes it; {}", who, cure));
    } else if (!EVP_PKEY_is_a(key, "ED25519")) {
        out.add(Weight::all_refuse, fmt::format("{} has a key of type {}, which TLS has no signature for; {}", who, c.key_text(), cure));
    }
}

/// Whose CA, or whose own certificate, is trusted here: what OpenSSL takes gets in, and what TLS has no scheme for is not shown by
/// hardly any peer.
void examine_authority_key(const std::string& who, const Certificate& c, Findings& out) {
    auto* key = X509_get0_pubkey(c.native());
    const char* cure = "make a CA with a key on P-256 or P-384, or RSA 2048 to 4096, and issue anew what it signed";
    if (key == nullptr) {
        ERR_clear_error();
        return out.add(Weight::all_refuse, fmt::format("{} has a public key that cannot be read: nobody with a certificate of it gets in; {}", who, cure));
    }
    if (c.security_bits() < security_bits_min) return out.add(Weight::all_refuse, fmt::format("{} has a weak key ({}; {} bits of security are the least): nobody with a certificate of it gets in; {}", who, c.key_text(), security_bits_min, cure));
    if (!is_marked_ca(c)) {
        // Its owner alone is trusted, who has to sign with this key in the handshake.
        Findings own;
        examine_leaf_key(who, c, own);
        for (auto& finding : own.take())
            if (finding.weight == Weight::unusable) out.add(Weight::all_refuse, std::move(finding.message));
        return;
    }
    Findings signing;
    examine_signing_key(who, c, signing);
    for (auto& finding : signing.take()) {
        const bool is_explicit = EVP_PKEY_is_a(key, "EC") && text_parameter(key, OSSL_PKEY_PARAM_EC_ENCODING) == "explicit";
        out.add(is_explicit ? Weight::all_refuse : Weight::some_refuse, std::move(finding.message));
    }
}

/// One certificate that vouches for those below it.
void examine_signer(const std::string& who, const Certificate& c, Findings& out) {
    examine_signing_key(who, c, out);
    if (is_marked_ca(c) && !may_sign_certificates(c)) out.add(Weight::all_refuse, fmt::format("{} signs others without keyCertSign in its key usage, so clients refuse the chain; issue it with keyUsage=critical,keyCertSign,cRLSign", who));
    if (!is_marked_ca(c))
        out.add(Weight::all_refuse, fmt::format("{} signs others but is no CA: basicConstraints CA:TRUE is missing, so clients refuse the chain; issue it with an extension file that has basicConstraints=critical,CA:TRUE and keyUsage=critical,keyCertSign,cRLSign", who));
}

bool has_extended_usage(const Certificate& c) { return (X509_get_extension_flags(c.native()) & EXFLAG_XKUSAGE) != 0; }

void examine_leaf_purpose(const Certificate& leaf, Purpose purpose, Findings& out) {
    const auto usages = leaf.usages();
    auto has = [&](const char* word) { return std::ranges::find(usages, word) != usages.end() || std::ranges::find(usages, "any") != usages.end(); };
    if (purpose == Purpose::server) {
        if (leaf.dns_names().empty() && leaf.addresses().empty())
            out.add(Weight::some_refuse, fmt::format("\"{}\" has no subjectAltName: clients compare names with it alone (RFC 6125) and refuse; issue it with subjectAltName=DNS:...,IP:...", leaf.subject()));
        if (has_extended_usage(leaf) && has("server auth") && std::ranges::find(usages, "server auth") == usages.end())
            out.add(Weight::some_refuse, fmt::format("\"{}\" is made for any purpose, and not for servers by name (extended key usage: {}): clients with OpenSSL refuse it; issue it with extendedKeyUsage=serverAuth", leaf.subject(), fmt::join(usages, ", ")));
        if (has_extended_usage(leaf) && !has("server auth")) out.add(Weight::all_refuse, fmt::format("\"{}\" is not made for servers (extended key usage: {}); issue it with extendedKeyUsage=serverAuth", leaf.subject(), fmt::join(usages, ", ")));
        if (leaf.not_after_ms() - leaf.not_before_ms() > 825 * day_ms) out.add(Weight::note, fmt::format("\"{}\" lives {} days; Apple's clients refuse server certificates of more than 825", leaf.subject(), (leaf.not_after_ms() - leaf.not_before_ms()) / day_ms));
    }
    if (purpose == Purpose::client) {
        if (has_extended_usage(leaf) && !has("client auth")) out.add(Weight::all_refuse, fmt::format("\"{}\" is not made for clients (extended key usage: {}); issue it with extendedKeyUsage=clientAuth", leaf.subject(), fmt::join(usages, ", ")));
        if (leaf.common_name().empty()) out.add(Weight::note, fmt::format("\"{}\" has no CN, which the broker takes as the user name", leaf.subject()));
    }
    if (leaf.is_ca() && purpose != Purpose::any) out.add(Weight::note, fmt::format("\"{}\" is a CA; a CA's key should not be used by a server or client", leaf.subject()));
}

std::string name_of(const std::vector<Certificate>& chain, std::size_t at) { return fmt::format("certificate {} (\"{}\")", at + 1, chain[at].subject()); }

void examine_order(const std::vector<Certificate>& chain, Findings& out) {
    for (std::size_t i = 1; i < chain.size(); ++i) {
        if (chain[i].is_self_signed()) out.add(Weight::note, fmt::format("{} is a root; a peer must have it already, so it need not be sent", name_of(chain, i)));
        if (chain[i - 1].is_signed_by(chain[i])) continue;
        const bool helps = std::ranges::any_of(chain, [&](const auto& other) { return &other != &chain[i] && other.is_signed_by(chain[i]); });
        out.add(Weight::some_refuse, helps ? fmt::format("certificate {} is not signed by {}; the order is leaf first, then its issuer, and so on", i, name_of(chain, i))
                                           : fmt::format("certificate {} is not signed by {}, nor is another one of the chain: it does not belong there", i, name_of(chain, i)));
    }
}

/// What the rules above do not know (path lengths, name constraints, critical extensions nobody understands): OpenSSL's own word,
/// with the chain's upper end taken as trusted.
void examine_by_validation(const std::vector<Certificate>& chain, Purpose purpose, std::int64_t now_ms, Findings& out) {
    const auto& leaf = chain.front();
    std::vector<Certificate> tops;
    bool has_issuer = chain.size() == 1;
    for (std::size_t i = 1; i < chain.size(); ++i) {
        has_issuer |= leaf.is_signed_by(chain[i]);
        if (std::ranges::none_of(chain, [&](const auto& other) { return &other != &chain[i] && chain[i].is_signed_by(other); })) tops.push_back(chain[i]);
    }
    if (!has_issuer && !leaf.is_self_signed())
        return out.add(Weight::all_refuse, fmt::format("no certificate behind it is the issuer of \"{}\" (\"{}\"); put its issuer's certificate second", leaf.subject(), leaf.issuer()));
    const auto usages = leaf.usages();
    // OpenSSL does not take anyExtendedKeyUsage for the one it asks for; others do.
    const bool is_for_any = std::ranges::find(usages, "any") != usages.end();
    const auto outcome = TrustStore(tops.empty() || leaf.is_self_signed() ? chain : tops, {}).verify(chain, is_for_any ? Purpose::any : purpose, now_ms);
    if (!outcome.ok()) out.add(Weight::all_refuse, outcome.fault);
}

}  // namespace

std::vector<Finding> examine_chain(const std::vector<Certificate>& chain, Purpose purpose, std::int64_t now_ms) {
    Findings out;
    if (chain.empty()) {
        out.add(Weight::unusable, "there is no certificate");
        return out.take();
    }
    if (std::ssize(chain) > chain_max) {
        out.add(Weight::some_refuse, fmt::format("there are {} certificates in the chain; peers take 10 at most, and the first {} are looked at", chain.size(), chain_max));
        auto rest = examine_chain({chain.begin(), chain.begin() + chain_max}, purpose, now_ms);
        for (auto& finding : rest) out.add(finding.weight, std::move(finding.message));
        return out.take();
    }
    for (std::size_t i = 0; i < chain.size(); ++i) {
        const auto who = name_of(chain, i);
        examine_times(who, chain[i], now_ms, out);
        if (i == 0 && !(chain[i].is_ca() && purpose == Purpose::any)) examine_leaf_key(who, chain[i], out);
        else examine_signer(who, chain[i], out);
        // OpenSSL does not let a leaf with such a signature be served; its own signature does not count for a self-signed one.
        if (is_weak_digest(chain[i]) && !chain[i].is_self_signed()) out.add(i == 0 ? Weight::unusable : Weight::all_refuse, fmt::format("{} is signed with {}; sign with SHA-256", who, chain[i].signature_algorithm()));
    }
    examine_order(chain, out);
    examine_leaf_purpose(chain.front(), purpose, out);
    if (!out.has(Weight::all_refuse)) examine_by_validation(chain, purpose, now_ms, out);
    ERR_clear_error();
    return out.take();
}

std::string IdentityJudgement::because_of(Weight weight) const {
    std::string out;
    for (const auto& finding : findings)
        if (finding.weight == weight) out += (out.empty() ? "" : "; ") + finding.message;
    return out;
}

std::int64_t IdentityJudgement::ends_at_ms() const {
    std::int64_t out = 0;
    for (const auto& certificate : chain) out = out == 0 ? certificate.not_after_ms() : std::min(out, certificate.not_after_ms());
    return out;
}

IdentityJudgement judge_identity(const std::string& chain_pem, const std::string& key_pem, Purpose purpose, std::int64_t now_ms) {
    IdentityJudgement out;
    auto unusable = [&](std::string why) {
        out.findings.insert(out.findings.begin(), {Weight::unusable, std::move(why)});
        return out;
    };
    auto chain = read_certificates(chain_pem);
    if (!chain) return unusable(chain.error().message);
    if (chain->empty()) return unusable("there is no certificate in it");
    out.chain = std::move(*chain);
    out.findings = examine_chain(out.chain, purpose, now_ms);
    if (!read_private_key(key_pem)) return unusable("the private key cannot be read (is it encrypted, or not a key in PEM?)");
    if (out.chain.front().matches_key(key_pem)) return out;
    out.is_key_of_another = true;
    for (std::size_t i = 1; i < out.chain.size(); ++i)
        if (out.chain[i].matches_key(key_pem))
            return unusable(fmt::format("the private key is that of {}, not that of the first certificate (\"{}\"); the leaf comes first", name_of(out.chain, i), out.chain.front().subject()));
    return unusable(fmt::format("the private key is not that of the first certificate (\"{}\"); the leaf comes first", out.chain.front().subject()));
}

std::string issuing_fault(const std::vector<Certificate>& chain) {
    Findings out;
    for (std::size_t i = 0; i < chain.size(); ++i) {
        const auto who = name_of(chain, i);
        examine_signer(who, chain[i], out);
        if (is_weak_digest(chain[i]) && !chain[i].is_self_signed()) out.add(Weight::all_refuse, fmt::format("{} is signed with {}; have it signed with SHA-256", who, chain[i].signature_algorithm()));
    }
    ERR_clear_error();
    const auto found = out.take();
    return !found.empty() && found.front().weight >= Weight::all_refuse ? found.front().message : std::string();
}

std::vector<Finding> examine_authority(const Certificate& authority, Purpose purpose, std::int64_t now_ms) {
    Findings out;
    const auto who = fmt::format("\"{}\"", authority.subject());
    if (authority.not_after_ms() <= now_ms) out.add(Weight::all_refuse, fmt::format("{} has expired at {}: nobody with a certificate of it gets in", who, rfc3339(authority.not_after_ms())));
    if (authority.not_before_ms() > now_ms) out.add(Weight::all_refuse, fmt::format("{} is not valid before {}: nobody with a certificate of it gets in until then", who, rfc3339(authority.not_before_ms())));
    examine_authority_key(who, authority, out);
    if (!is_marked_ca(authority)) {
        out.add(Weight::some_refuse, fmt::format("{} is no CA (basicConstraints CA:TRUE is missing): only a peer with exactly this certificate is accepted", who));
    } else {
        if (!may_sign_certificates(authority)) out.add(Weight::all_refuse, fmt::format("{} lacks keyCertSign in its key usage: certificates of it are refused", who));
        // Extended key usage of a CA bounds what it may vouch for, with all peers that are usual.
        const int id = purpose == Purpose::client ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER;
        if (purpose != Purpose::any && has_extended_usage(authority) && X509_check_purpose(authority.native(), id, 1) <= 0)
            out.add(Weight::all_refuse, fmt::format("{} is not made for {} (extended key usage: {})", who, purpose == Purpose::client ? "clients" : "servers", fmt::join(authority.usages(), ", ")));
    }
    ERR_clear_error();
    return out.take();
}

}  // namespace penstock::crypto
