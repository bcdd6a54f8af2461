#include "crypto/certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/clock.h"
#include "crypto/native.h"
#include "crypto/x509.h"

namespace penstock::crypto {

std::unexpected<Error> openssl_failure(const char* doing) {
    char text[256] = {};
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    ERR_clear_error();
    return fail(std::string(doing) + ": " + text);
}

Bio memory_of(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string text_of(BIO* bio) {
    char* data = nullptr;
    const auto size = BIO_get_mem_data(bio, &data);
    return {data, static_cast<std::size_t>(size)};
}

std::string text_of_string(const ASN1_STRING* text) {
    const auto* data = ASN1_STRING_get0_data(text);
    return {data, data + ASN1_STRING_length(text)};
}

Key read_private_key(const std::string& pem) {
    Key key(PEM_read_bio_PrivateKey(memory_of(pem).get(), nullptr, no_pass_phrase, nullptr));
    ERR_clear_error();
    return key;
}

Result<std::string> private_pem(EVP_PKEY* key) {
    const Bio out(BIO_new(BIO_s_mem()));
    if (PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) return openssl_failure("writing a key");
    return text_of(out.get());
}

bool add_extension(X509* certificate, X509* issuer, int id, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    const std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>> extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
    return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

namespace {

constexpr std::int64_t day_ms = 86'400'000;
constexpr std::int64_t skew_ms = 300'000;   // five minutes back, for clocks that differ a little

Result<KeyPair> issue_with_key(const KeyPair* issuer, const IssueOptions& options) {
    auto key = make_key("Ec256");
    if (!key) return std::unexpected(key.error());
    auto certificate = issue_certificate(*key, issuer, options);
    if (!certificate) return std::unexpected(certificate.error());
    return KeyPair{.certificate = std::move(*certificate), .key = std::move(*key)};
}

}  // namespace

Result<KeyPair> make_ca(const std::string& common_name, int days) {
    const auto now = wall_ms();
    return issue_with_key(nullptr, {.subject = {{"CN", common_name}}, .is_ca = true, .not_before_ms = now - skew_ms, .not_after_ms = now + days * day_ms});
}

Result<KeyPair> make_leaf(const KeyPair& ca, const LeafOptions& options) {
    const auto now = wall_ms();
    IssueOptions issue{.dns_names = options.dns_names, .addresses = options.addresses, .usages = {"digital signature", options.server ? "server auth" : "client auth"},
                       .not_before_ms = now - skew_ms, .not_after_ms = now + options.days * day_ms};
    for (const auto& organization : options.organizations) issue.subject.emplace_back("O", organization);
    issue.subject.emplace_back("CN", options.common_name);
    return issue_with_key(&ca, issue);
}

std::int64_t seconds_left(const std::string& pem) {
    const auto certificates = read_certificates(pem);
    if (!certificates || certificates->empty()) return -1;
    return (certificates->front().not_after_ms() - wall_ms()) / 1000;
}

bool covers(const std::string& pem, const std::vector<std::string>& dns_names, const std::vector<std::string>& addresses) {
    const auto certificates = read_certificates(pem);
    if (!certificates || certificates->empty()) return false;
    for (const auto* names : {&dns_names, &addresses})
        for (const auto& name : *names)
            if (!certificates->front().covers(name)) return false;
    return true;
}

}  // namespace penstock::crypto
