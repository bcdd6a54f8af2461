#include "crypto/x509.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <map>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"
#include "crypto/native.h"

namespace penstock::crypto {

namespace {

constexpr std::size_t certificates_max = 1000;

std::string hex(const std::string& bytes) {
    std::string out;
    for (const auto c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return out;
}

std::string name_text(const X509_NAME* name, unsigned long flags) {
    const Bio out(BIO_new(BIO_s_mem()));
    // OpenSSL stops where a part cannot be converted (bytes that are no UTF-8 in a UTF8String). Half a name would be another's.
    if (X509_NAME_print_ex(out.get(), name, 0, flags) >= 0) return printable(text_of(out.get()));
    ERR_clear_error();
    unsigned char* der = nullptr;
    const int size = i2d_X509_NAME(name, &der);
    const auto all = size > 0 ? hex({der, der + size}) : std::string();
    OPENSSL_free(der);
    return "#" + all;
}

struct UsageWord {
    const char* word;
    int bit;                             ///< of keyUsage; 0: extended
    const char* openssl;
};
constexpr std::array usage_words{
    UsageWord{"signing", KU_DIGITAL_SIGNATURE, "digitalSignature"}, UsageWord{"digital signature", KU_DIGITAL_SIGNATURE, "digitalSignature"},
    UsageWord{"content commitment", KU_NON_REPUDIATION, "nonRepudiation"}, UsageWord{"key encipherment", KU_KEY_ENCIPHERMENT, "keyEncipherment"},
    UsageWord{"key agreement", KU_KEY_AGREEMENT, "keyAgreement"}, UsageWord{"data encipherment", KU_DATA_ENCIPHERMENT, "dataEncipherment"},
    UsageWord{"cert sign", KU_KEY_CERT_SIGN, "keyCertSign"}, UsageWord{"crl sign", KU_CRL_SIGN, "cRLSign"},
    UsageWord{"encipher only", KU_ENCIPHER_ONLY, "encipherOnly"}, UsageWord{"decipher only", KU_DECIPHER_ONLY, "decipherOnly"},
    UsageWord{"any", 0, "anyExtendedKeyUsage"}, UsageWord{"server auth", 0, "serverAuth"}, UsageWord{"client auth", 0, "clientAuth"},
    UsageWord{"code signing", 0, "codeSigning"}, UsageWord{"email protection", 0, "emailProtection"}, UsageWord{"s/mime", 0, "emailProtection"},
    UsageWord{"timestamping", 0, "timeStamping"}, UsageWord{"ocsp signing", 0, "OCSPSigning"}, UsageWord{"ipsec end system", 0, "ipsecEndSystem"},
    UsageWord{"ipsec tunnel", 0, "ipsecTunnel"}, UsageWord{"ipsec user", 0, "ipsecUser"}};

/// The distribution points of one extension, or the access descriptions of one method, as URLs.
std::vector<std::string> access_urls(const X509* certificate, int method) {
    std::vector<std::string> out;
    auto* access = static_cast<AUTHORITY_INFO_ACCESS*>(X509_get_ext_d2i(certificate, NID_info_access, nullptr, nullptr));
    for (int i = 0; access != nullptr && i < sk_ACCESS_DESCRIPTION_num(access); ++i) {
        const auto* entry = sk_ACCESS_DESCRIPTION_value(access, i);
        if (OBJ_obj2nid(entry->method) != method || entry->location->type != GEN_URI) continue;
        out.push_back(printable(text_of_string(entry->location->d.uniformResourceIdentifier)));
    }
    AUTHORITY_INFO_ACCESS_free(access);
    return out;
}

}  // namespace

std::int64_t unix_ms_of(const ASN1_TIME* time) {
    std::tm parts{};
    if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return 0;
    return static_cast<std::int64_t>(timegm(&parts)) * 1000;
}

std::string distinguished_name(const X509_NAME* name) { return name_text(name, XN_FLAG_ONELINE & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB)); }

// --- Certificate ---

Certificate::Certificate(x509_st* owned) : native_(owned, [](x509_st* p) { X509_free(p); }) {}

Certificate Certificate::share(x509_st* borrowed) {
    X509_up_ref(borrowed);
    return Certificate(borrowed);
}

Result<Certificate> Certificate::from_der(std::string_view der) {
    const auto* at = bytes_of(der);
    const auto* end = at + der.size();
    auto* certificate = d2i_X509(nullptr, &at, static_cast<long>(der.size()));
    if (certificate == nullptr) return openssl_failure("reading a certificate");
    Certificate out(certificate);
    if (at != end) return fail("bytes follow the certificate");
    return out;
}

std::string Certificate::subject() const { return native_ ? distinguished_name(X509_get_subject_name(native())) : ""; }
std::string Certificate::issuer() const { return native_ ? distinguished_name(X509_get_issuer_name(native())) : ""; }

std::string Certificate::common_name() const {
    const auto* name = X509_get_subject_name(native());
    int at = -1, last = -1;
    while ((at = X509_NAME_get_index_by_NID(name, NID_commonName, at)) >= 0) last = at;
    if (last < 0) return {};
    unsigned char* utf8 = nullptr;
    const int size = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, last)));
    if (size < 0) return {};
    std::string out(utf8, utf8 + size);
    OPENSSL_free(utf8);
    return out.find('\0') == std::string::npos ? out : std::string();
}

std::int64_t Certificate::not_before_ms() const { return unix_ms_of(X509_get0_notBefore(native())); }
std::int64_t Certificate::not_after_ms() const { return unix_ms_of(X509_get0_notAfter(native())); }

std::string Certificate::serial() const {
    const std::unique_ptr<BIGNUM, Freer<BN_free>> number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(native()), nullptr));
    char* text = number ? BN_bn2hex(number.get()) : nullptr;
    std::string out = text != nullptr ? text : "";
    OPENSSL_free(text);
    return out;
}

std::string Certificate::fingerprint() const {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    X509_digest(native(), EVP_sha256(), digest.data(), &size);
    return hex({digest.begin(), digest.begin() + size});
}

std::string Certificate::pem() const {
    const Bio out(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(out.get(), native());
    return text_of(out.get());
}

std::string Certificate::der() const {
    unsigned char* bytes = nullptr;
    const int size = i2d_X509(native(), &bytes);
    std::string out = size > 0 ? std::string(bytes, bytes + size) : std::string();
    OPENSSL_free(bytes);
    return out;
}

namespace {

/// `P-256` for the curves of NIST, else OpenSSL's name for it.
std::string curve_name(EVP_PKEY* key) {
    std::array<char, 80> text{};
    std::size_t size = 0;
    if (EVP_PKEY_get_group_name(key, text.data(), text.size(), &size) != 1) {
        ERR_clear_error();
        return "of its own parameters";
    }
    const std::string name(text.data(), size);
    const int id = OBJ_txt2nid(name.c_str());
    const char* nist = id != NID_undef ? EC_curve_nid2nist(id) : nullptr;
    return nist != nullptr ? nist : name;
}

}  // namespace

bool Certificate::is_ca() const { return X509_check_ca(native()) == 1; }
bool Certificate::is_self_signed() const { return X509_self_signed(native(), 1) == 1; }

std::string Certificate::key_text() const {
    auto* key = X509_get0_pubkey(native());
    if (key == nullptr) return "unknown";
    const int bits = EVP_PKEY_get_bits(key);
    if (EVP_PKEY_is_a(key, "RSA")) return fmt::format("RSA {}", bits);
    if (EVP_PKEY_is_a(key, "EC")) return "EC " + curve_name(key);
    if (EVP_PKEY_is_a(key, "ED25519")) return "Ed25519";
    const char* name = EVP_PKEY_get0_type_name(key);
    return name != nullptr ? name : "unknown";
}

int Certificate::security_bits() const {
    auto* key = X509_get0_pubkey(native());
    return key != nullptr ? EVP_PKEY_get_security_bits(key) : 0;
}

bool Certificate::has_costly_key() const {
    constexpr int bits_max = 8192, exponent_bits_max = 64;
    auto* key = X509_get0_pubkey(native());
    if (key == nullptr) return false;
    if (EVP_PKEY_get_bits(key) > bits_max) return true;
    if (EVP_PKEY_is_a(key, "RSA") == 0 && EVP_PKEY_is_a(key, "RSA-PSS") == 0) return false;
    BIGNUM* exponent = nullptr;
    if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1) return true;
    const bool out = BN_num_bits(exponent) > exponent_bits_max;
    BN_free(exponent);
    return out;
}

std::string Certificate::signature_algorithm() const {
    const int nid = X509_get_signature_nid(native());
    const char* name = OBJ_nid2ln(nid);
    return name != nullptr ? name : "unknown";
}

namespace {

template <class Visit>
void each_name(X509* certificate, Visit&& visit) {
    auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
    for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) visit(*sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
}

std::string address_text(std::string_view raw) {
    if (raw.size() == 4) return fmt::format("{}.{}.{}.{}", static_cast<unsigned char>(raw[0]), static_cast<unsigned char>(raw[1]), static_cast<unsigned char>(raw[2]), static_cast<unsigned char>(raw[3]));
    if (raw.size() != 16) return {};
    // RFC 5952: the longest run of zero groups is `::`.
    std::array<unsigned, 8> groups{};
    for (std::size_t i = 0; i < 8; ++i) groups[i] = static_cast<unsigned>(static_cast<unsigned char>(raw[2 * i])) << 8 | static_cast<unsigned char>(raw[2 * i + 1]);
    std::size_t best = 8, best_length = 1;
    for (std::size_t i = 0; i < 8;) {
        std::size_t length = 0;
        while (i + length < 8 && groups[i + length] == 0) ++length;
        if (length > best_length) best = i, best_length = length;
        i += std::max<std::size_t>(length, 1);
    }
    std::string out;
    for (std::size_t i = 0; i < 8; ++i) {
        if (i == best) {
            out += "::";
            i += best_length - 1;
            continue;
        }
        if (!out.empty() && !out.ends_with(':')) out += ':';
        out += fmt::format("{:x}", groups[i]);
    }
    return out;
}

}  // namespace

std::vector<std::string> Certificate::dns_names() const {
    std::vector<std::string> out;
    each_name(native(), [&](const GENERAL_NAME& name) {
        if (name.type == GEN_DNS) out.push_back(printable(text_of_string(name.d.dNSName)));
    });
    return out;
}

std::vector<std::string> Certificate::addresses() const {
    std::vector<std::string> out;
    each_name(native(), [&](const GENERAL_NAME& name) {
        if (name.type == GEN_IPADD) out.push_back(address_text(text_of_string(name.d.iPAddress)));
    });
    return out;
}

std::vector<std::string> Certificate::other_names() const {
    std::vector<std::string> out;
    each_name(native(), [&](const GENERAL_NAME& name) {
        if (name.type == GEN_URI) out.push_back("URI:" + printable(text_of_string(name.d.uniformResourceIdentifier)));
        if (name.type == GEN_EMAIL) out.push_back("email:" + printable(text_of_string(name.d.rfc822Name)));
    });
    return out;
}

std::vector<std::string> Certificate::usages() const {
    std::vector<std::string> out;
    const auto flags = X509_get_extension_flags(native());
    if ((flags & EXFLAG_KUSAGE) != 0) {
        const auto bits = X509_get_key_usage(native());
        for (const auto& usage : usage_words)
            if (usage.bit != 0 && (bits & static_cast<std::uint32_t>(usage.bit)) != 0 && std::string_view(usage.word) != "signing") out.emplace_back(usage.word);
    }
    auto* extended = static_cast<EXTENDED_KEY_USAGE*>(X509_get_ext_d2i(native(), NID_ext_key_usage, nullptr, nullptr));
    for (int i = 0; extended != nullptr && i < sk_ASN1_OBJECT_num(extended); ++i) {
        const std::string name = OBJ_nid2sn(OBJ_obj2nid(sk_ASN1_OBJECT_value(extended, i)));
        const auto* known = std::ranges::find_if(usage_words, [&](const auto& usage) { return usage.bit == 0 && name == usage.openssl; });
        out.push_back(known != usage_words.end() ? known->word : name);
    }
    EXTENDED_KEY_USAGE_free(extended);
    return out;
}

std::vector<std::string> Certificate::ocsp_urls() const { return access_urls(native(), NID_ad_OCSP); }

std::vector<std::string> Certificate::crl_urls() const {
    std::vector<std::string> out;
    auto* points = static_cast<CRL_DIST_POINTS*>(X509_get_ext_d2i(native(), NID_crl_distribution_points, nullptr, nullptr));
    for (int i = 0; points != nullptr && i < sk_DIST_POINT_num(points); ++i) {
        const auto* point = sk_DIST_POINT_value(points, i);
        if (point->distpoint == nullptr || point->distpoint->type != 0) continue;
        for (int k = 0; k < sk_GENERAL_NAME_num(point->distpoint->name.fullname); ++k) {
            const auto* name = sk_GENERAL_NAME_value(point->distpoint->name.fullname, k);
            if (name->type == GEN_URI) out.push_back(printable(text_of_string(name->d.uniformResourceIdentifier)));
        }
    }
    CRL_DIST_POINTS_free(points);
    return out;
}

bool Certificate::covers(const std::string& host) const {
    return X509_check_ip_asc(native(), host.c_str(), 0) == 1 || X509_check_host(native(), host.data(), host.size(), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1;
}

bool Certificate::is_signed_by(const Certificate& by) const {
    auto* key = X509_get0_pubkey(by.native());
    return key != nullptr && X509_NAME_cmp(X509_get_issuer_name(native()), X509_get_subject_name(by.native())) == 0 && X509_verify(native(), key) == 1;
}

namespace {

/// The private half belongs to the public one that stands beside it: a file with a changed byte is read all the same.
bool signs_and_verifies(EVP_PKEY* key) {
    using Digest = std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>>;
    const std::string_view text = "penstock";
    const Digest signing(EVP_MD_CTX_new()), verifying(EVP_MD_CTX_new());
    if (EVP_DigestSignInit(signing.get(), nullptr, nullptr, nullptr, key) != 1) {
        ERR_clear_error();
        return true;   // a key of a kind that does not sign
    }
    std::size_t size = 0;
    bool good = EVP_DigestSign(signing.get(), nullptr, &size, bytes_of(text), text.size()) == 1;
    std::vector<unsigned char> signature(size);
    good = good && EVP_DigestSign(signing.get(), signature.data(), &size, bytes_of(text), text.size()) == 1;
    good = good && EVP_DigestVerifyInit(verifying.get(), nullptr, nullptr, nullptr, key) == 1;
    good = good && EVP_DigestVerify(verifying.get(), signature.data(), size, bytes_of(text), text.size()) == 1;
    ERR_clear_error();
    return good;
}

}  // namespace

bool Certificate::matches_key(const std::string& key_pem) const {
    const auto key = read_private_key(key_pem);
    return key != nullptr && X509_check_private_key(native(), key.get()) == 1 && signs_and_verifies(key.get());
}

// --- bundles ---

Result<std::vector<Certificate>> read_certificates(const std::string& text) {
    std::vector<Certificate> out;
    // A DER file begins with a SEQUENCE; PEM never does.
    if (!text.empty() && text[0] == '\x30') {
        auto one = Certificate::from_der(text);
        if (!one) return fail("neither PEM nor one certificate in DER");
        out.push_back(*one);
        return out;
    }
    for (std::size_t at = 0, number = 1;; ++number) {
        const auto begin = text.find("-----BEGIN ", at);
        if (begin == std::string::npos) break;
        const auto title_end = text.find("-----", begin + 11);
        if (title_end == std::string::npos) return fail(fmt::format("block {}: its first line is incomplete", number));
        const auto title = text.substr(begin + 11, title_end - begin - 11);
        const auto last = text.find("-----END " + title + "-----", title_end);
        if (last == std::string::npos) return fail(fmt::format("block {} ({}): its END line is missing; is the file cut off?", number, title));
        at = last + 9;
        if (title != "CERTIFICATE" && title != "X509 CERTIFICATE" && title != "TRUSTED CERTIFICATE") continue;
        const auto block = text.substr(begin, last - begin + title.size() + 14);
        const auto bio = memory_of(block);
        auto* certificate = PEM_read_bio_X509(bio.get(), nullptr, no_pass_phrase, nullptr);
        if (certificate == nullptr) {
            ERR_clear_error();
            return fail(fmt::format("certificate {} cannot be read: the text between BEGIN and END is damaged", out.size() + 1));
        }
        out.emplace_back(certificate);
        if (out.size() > certificates_max) return fail(fmt::format("more than {} certificates", certificates_max));
    }
    return out;
}

// --- keys and issuing ---

Result<std::string> make_key(const std::string& algorithm) {
    Key key;
    if (algorithm == "Ec256") key.reset(EVP_EC_gen("P-256"));
    else if (algorithm == "Ec384") key.reset(EVP_EC_gen("P-384"));
    else if (algorithm == "Ec521") key.reset(EVP_EC_gen("P-521"));
    else if (algorithm == "Ed25519") key.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    else if (algorithm.starts_with("Rsa")) {
        const auto bits = parse_number<unsigned>(std::string_view(algorithm).substr(3));
        if (bits && *bits >= 2048 && *bits <= 8192) key.reset(EVP_RSA_gen(*bits));
    }
    if (!key) return fail(fmt::format("\"{}\" is no key algorithm; Ec256, Ec384, Ec521, Ed25519, Rsa2048, Rsa4096 and Rsa8192 are", algorithm));
    return private_pem(key.get());
}

bool is_key_of(const std::string& key_pem, const std::string& algorithm) {
    const auto key = read_private_key(key_pem);
    if (!key) return false;
    const int bits = EVP_PKEY_get_bits(key.get());
    if (algorithm.starts_with("Ec")) return EVP_PKEY_is_a(key.get(), "EC") && algorithm == fmt::format("Ec{}", bits);
    if (algorithm.starts_with("Rsa")) return EVP_PKEY_is_a(key.get(), "RSA") && algorithm == fmt::format("Rsa{}", bits);
    return EVP_PKEY_is_a(key.get(), "ED25519") && algorithm == "Ed25519";
}

namespace {

Result<void> add_alternative_names(X509* certificate, const IssueOptions& options) {
    const std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES_free>> names(sk_GENERAL_NAME_new_null());
    auto add = [&](int type, const std::string& value) {
        auto* name = GENERAL_NAME_new();
        auto* text = ASN1_IA5STRING_new();
        ASN1_STRING_set(text, value.data(), static_cast<int>(value.size()));
        GENERAL_NAME_set0_value(name, type, text);
        sk_GENERAL_NAME_push(names.get(), name);
    };
    for (const auto& dns : options.dns_names) {
        const bool good = !dns.empty() && dns.size() <= 253 && std::ranges::all_of(dns, [](char c) { return c > ' ' && c < 127 && c != ','; });
        if (!good) return fail(fmt::format("\"{}\" is no DNS name", dns));
        add(GEN_DNS, dns);
    }
    for (const auto& uri : options.uris) add(GEN_URI, uri);
    for (const auto& mail : options.emails) add(GEN_EMAIL, mail);
    for (const auto& address : options.addresses) {
        auto* bytes = a2i_IPADDRESS(address.c_str());
        if (bytes == nullptr) return fail(fmt::format("\"{}\" is no IP address", address));
        auto* name = GENERAL_NAME_new();
        GENERAL_NAME_set0_value(name, GEN_IPADD, bytes);
        sk_GENERAL_NAME_push(names.get(), name);
    }
    if (sk_GENERAL_NAME_num(names.get()) == 0) return {};
    // Without a subject the names are all there is, so they must be understood (RFC 5280, 4.2.1.6).
    if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), options.subject.empty() ? 1 : 0, X509V3_ADD_DEFAULT) != 1) return openssl_failure("adding names");
    return {};
}

Result<void> add_urls(X509* certificate, const IssueOptions& options) {
    auto uri = [](const std::string& value) {
        auto* name = GENERAL_NAME_new();
        auto* text = ASN1_IA5STRING_new();
        ASN1_STRING_set(text, value.data(), static_cast<int>(value.size()));
        GENERAL_NAME_set0_value(name, GEN_URI, text);
        return name;
    };
    if (!options.ocsp_urls.empty() || !options.issuing_urls.empty()) {
        const std::unique_ptr<AUTHORITY_INFO_ACCESS, Freer<AUTHORITY_INFO_ACCESS_free>> access(AUTHORITY_INFO_ACCESS_new());
        auto add = [&](int method, const std::string& value) {
            auto* entry = ACCESS_DESCRIPTION_new();
            ASN1_OBJECT_free(entry->method);
            entry->method = OBJ_nid2obj(method);
            GENERAL_NAME_free(entry->location);
            entry->location = uri(value);
            sk_ACCESS_DESCRIPTION_push(access.get(), entry);
        };
        for (const auto& url : options.ocsp_urls) add(NID_ad_OCSP, url);
        for (const auto& url : options.issuing_urls) add(NID_ad_ca_issuers, url);
        if (X509_add1_ext_i2d(certificate, NID_info_access, access.get(), 0, X509V3_ADD_DEFAULT) != 1) return openssl_failure("adding access URLs");
    }
    if (!options.crl_urls.empty()) {
        const std::unique_ptr<CRL_DIST_POINTS, Freer<CRL_DIST_POINTS_free>> points(CRL_DIST_POINTS_new());
        for (const auto& url : options.crl_urls) {
            auto* point = DIST_POINT_new();
            point->distpoint = DIST_POINT_NAME_new();
            point->distpoint->type = 0;
            point->distpoint->name.fullname = sk_GENERAL_NAME_new_null();
            sk_GENERAL_NAME_push(point->distpoint->name.fullname, uri(url));
            sk_DIST_POINT_push(points.get(), point);
        }
        if (X509_add1_ext_i2d(certificate, NID_crl_distribution_points, points.get(), 0, X509V3_ADD_DEFAULT) != 1) return openssl_failure("adding revocation URLs");
    }
    return {};
}

const EVP_MD* digest_for(EVP_PKEY* key) {
    if (EVP_PKEY_is_a(key, "ED25519")) return nullptr;
    if (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) > 384) return EVP_sha512();
    if (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) > 256) return EVP_sha384();
    return EVP_sha256();
}

}  // namespace

Result<std::string> issue_certificate(const std::string& key_pem, const KeyPair* issuer, const IssueOptions& options) {
    const auto key = read_private_key(key_pem);
    if (!key) return fail("the certificate's private key cannot be read");
    Key issuer_key;
    Certificate issuer_certificate;
    if (issuer != nullptr) {
        auto chain = read_certificates(issuer->certificate);
        if (!chain || chain->empty()) return fail("the issuer's certificate cannot be read");
        issuer_certificate = chain->front();
        issuer_key = read_private_key(issuer->key);
        if (!issuer_key) return fail("the issuer's private key cannot be read");
        if (!issuer_certificate.matches_key(issuer->key)) return fail("the issuer's key is not that of its certificate");
        if (!issuer_certificate.is_ca()) return fail(fmt::format("\"{}\" is no CA: its certificate lacks basicConstraints CA:TRUE", issuer_certificate.subject()));
    }
    const X509Pointer certificate(X509_new());
    auto* out = certificate.get();
    X509_set_version(out, 2);
    const std::unique_ptr<BIGNUM, Freer<BN_free>> serial(BN_new());
    BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY);
    BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(out));
    auto end = options.not_after_ms;
    if (issuer_certificate) end = std::min(end, issuer_certificate.not_after_ms());
    if (end <= options.not_before_ms) return fail("the issuer's certificate ends before this one would begin");
    ASN1_TIME_set(X509_getm_notBefore(out), static_cast<time_t>(options.not_before_ms / 1000));
    ASN1_TIME_set(X509_getm_notAfter(out), static_cast<time_t>(end / 1000));
    X509_set_pubkey(out, key.get());
    auto* name = X509_get_subject_name(out);
    for (const auto& [field, value] : options.subject)
        if (X509_NAME_add_entry_by_txt(name, field.c_str(), MBSTRING_UTF8, bytes_of(value), static_cast<int>(value.size()), -1, 0) != 1) {
            ERR_clear_error();
            return fail(fmt::format("the subject's {} \"{}\" is not possible (a CN has at most 64 characters, a C exactly two)", field, value));
        }
    X509_set_issuer_name(out, issuer_certificate ? X509_get_subject_name(issuer_certificate.native()) : name);

    std::string bits, extended;
    auto usages = options.usages;
    if (usages.empty()) usages = {"digital signature"};
    if (EVP_PKEY_is_a(key.get(), "RSA") && options.usages.empty()) usages.emplace_back("key encipherment");
    if (options.is_ca) usages.insert(usages.end(), {"cert sign", "crl sign"});
    for (const auto& usage : usages) {
        const auto* known = std::ranges::find_if(usage_words, [&](const auto& candidate) { return usage == candidate.word; });
        if (known == usage_words.end()) return fail(fmt::format("\"{}\" is no usage", usage));
        auto& list = known->bit != 0 ? bits : extended;
        if (list.find(known->openssl) == std::string::npos) list += (list.empty() ? "" : ",") + std::string(known->openssl);
    }
    auto* by = issuer_certificate ? issuer_certificate.native() : out;
    const auto constraints = !options.is_ca ? std::string("critical,CA:FALSE") : options.path_length < 0 ? "critical,CA:TRUE" : fmt::format("critical,CA:TRUE,pathlen:{}", options.path_length);
    if (!add_extension(out, by, NID_basic_constraints, constraints) || (!bits.empty() && !add_extension(out, by, NID_key_usage, "critical," + bits)) ||
        (!extended.empty() && !add_extension(out, by, NID_ext_key_usage, extended)) || !add_extension(out, out, NID_subject_key_identifier, "hash") ||
        (issuer_certificate && !add_extension(out, by, NID_authority_key_identifier, "keyid")))
        return openssl_failure("making a certificate");
    if (auto done = add_alternative_names(out, options); !done) return std::unexpected(done.error());
    if (auto done = add_urls(out, options); !done) return std::unexpected(done.error());
    auto* signer = issuer_key ? issuer_key.get() : key.get();
    if (X509_sign(out, signer, digest_for(signer)) == 0) return openssl_failure("signing a certificate");
    return Certificate::share(out).pem();
}

// --- names ---

namespace {

/// `CN = a, O = b` and `CN=a,O=b` become the same text; quoted and escaped parts keep their spaces and commas.
std::string normalised_name(std::string_view text) {
    std::string out;
    bool quoted = false, escaped = false;
    auto drop_spaces = [&] { while (!out.empty() && out.back() == ' ') out.pop_back(); };
    bool leading = true;
    for (const char c : text) {
        if (escaped) {
            out += c;
            escaped = false;
            continue;
        }
        if (c == '\\') {
            escaped = true;
            leading = false;
            out += c;
            continue;
        }
        if (c == '"') quoted = !quoted;
        if (!quoted && (c == ',' || c == '=' || c == '+')) {
            drop_spaces();
            out += c;
            leading = true;
            continue;
        }
        if (leading && c == ' ') continue;
        leading = false;
        out += c;
    }
    drop_spaces();
    return out;
}

}  // namespace

bool same_subject(const std::string& pattern, const Certificate& certificate) {
    const auto wanted = normalised_name(pattern);
    if (wanted.empty()) return false;   // nobody's name, and not that of all certificates without a subject
    const auto* name = X509_get_subject_name(certificate.native());
    return wanted == normalised_name(certificate.subject()) || wanted == normalised_name(name_text(name, XN_FLAG_ONELINE));
}

}  // namespace penstock::crypto
