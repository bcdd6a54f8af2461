#include "tls/verification.h"

#include <openssl/ssl.h>

#include <utility>
#include <vector>

#include "base/clock.h"
#include "crypto/native.h"

namespace penstock::tls {
namespace {

struct Rule {
    std::shared_ptr<const crypto::TrustStore> trust;
    crypto::Purpose purpose;
};

void free_rule(void*, void* rule, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<Rule*>(rule); }

struct Stack {
    STACK_OF(X509)* native = sk_X509_new_null();
    Stack() = default;
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    ~Stack() { sk_X509_free(native); }
    void push(const crypto::Certificate& certificate) { sk_X509_push(native, certificate.native()); }
};

int verify_along_a_good_path(X509_STORE_CTX* store, void* argument) {
    const auto& rule = *static_cast<const Rule*>(argument);
    auto* leaf = X509_STORE_CTX_get0_cert(store);
    auto* sent = X509_STORE_CTX_get0_untrusted(store);
    if (leaf == nullptr) return X509_verify_cert(store);
    std::vector<crypto::Certificate> chain{crypto::Certificate::share(leaf)};
    for (int i = 0; i < sk_X509_num(sent); ++i) chain.push_back(crypto::Certificate::share(sk_X509_value(sent, i)));
    const auto outcome = rule.trust->verify(chain, rule.purpose, wall_ms());
    if (!outcome.ok()) return X509_verify_cert(store);
    Stack between, anchors;
    for (std::size_t i = 1; i + 1 < outcome.path.size(); ++i) between.push(outcome.path[i]);
    anchors.push(outcome.path.back());
    X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(store), X509_V_FLAG_PARTIAL_CHAIN);
    X509_STORE_CTX_set0_untrusted(store, between.native);
    X509_STORE_CTX_set0_trusted_stack(store, anchors.native);
    const int good = X509_verify_cert(store);
    X509_STORE_CTX_set0_untrusted(store, sent);
    return good;
}

}  // namespace

void verify_by(ssl_ctx_st* context, std::shared_ptr<const crypto::TrustStore> trust, crypto::Purpose purpose) {
    static const int index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, nullptr, nullptr, nullptr, free_rule);
    auto rule = std::make_unique<Rule>(Rule{std::move(trust), purpose});
    delete static_cast<Rule*>(SSL_CTX_get_ex_data(context, index));
    SSL_CTX_set_cert_verify_callback(context, verify_along_a_good_path, rule.get());
    SSL_CTX_set_ex_data(context, index, rule.release());
}

}  // namespace penstock::tls
