#include "crypto/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>

#include <ctime>

#include "crypto/native.h"

namespace penstock::crypto {

Result<std::string> ocsp_request(const Certificate& leaf, const Certificate& issuer) {
    const std::unique_ptr<OCSP_REQUEST, Freer<OCSP_REQUEST_free>> request(OCSP_REQUEST_new());
    // SHA-1 only names the certificate here; it is what every responder knows (RFC 5019, 2.1.1).
    auto* id = OCSP_cert_to_id(EVP_sha1(), leaf.native(), issuer.native());
    if (id == nullptr || OCSP_request_add0_id(request.get(), id) == nullptr) return openssl_failure("asking for a certificate's status");
    unsigned char* bytes = nullptr;
    const int size = i2d_OCSP_REQUEST(request.get(), &bytes);
    if (size <= 0) return openssl_failure("asking for a certificate's status");
    std::string out(bytes, bytes + size);
    OPENSSL_free(bytes);
    return out;
}

Result<OcspStatus> ocsp_status(const std::string& answer, const Certificate& leaf, const Certificate& issuer, std::int64_t now_ms) {
    const auto* at = bytes_of(answer);
    const std::unique_ptr<OCSP_RESPONSE, Freer<OCSP_RESPONSE_free>> response(d2i_OCSP_RESPONSE(nullptr, &at, static_cast<long>(answer.size())));
    ERR_clear_error();
    if (!response) return fail("the answer is no OCSP response");
    if (const int status = OCSP_response_status(response.get()); status != OCSP_RESPONSE_STATUS_SUCCESSFUL) return fail(std::string("the responder says ") + OCSP_response_status_str(status));
    const std::unique_ptr<OCSP_BASICRESP, Freer<OCSP_BASICRESP_free>> basic(OCSP_response_get1_basic(response.get()));
    if (!basic) return fail("the answer has no basic response");
    const std::unique_ptr<X509_STORE, Freer<X509_STORE_free>> store(X509_STORE_new());
    X509_STORE_add_cert(store.get(), issuer.native());
    X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN);
    auto* known = sk_X509_new_null();
    sk_X509_push(known, issuer.native());
    const int signed_well = OCSP_basic_verify(basic.get(), known, store.get(), 0);
    sk_X509_free(known);
    if (signed_well != 1) {
        ERR_clear_error();
        return fail("the answer is not signed by the certificate's issuer");
    }
    const std::unique_ptr<OCSP_CERTID, Freer<OCSP_CERTID_free>> id(OCSP_cert_to_id(EVP_sha1(), leaf.native(), issuer.native()));
    int status = 0, reason = 0;
    ASN1_GENERALIZEDTIME *revoked = nullptr, *since = nullptr, *until = nullptr;
    if (OCSP_resp_find_status(basic.get(), id.get(), &status, &reason, &revoked, &since, &until) != 1) return fail("the answer is about another certificate");
    auto unix_ms = [](const ASN1_GENERALIZEDTIME* time) {
        ::tm parts{};
        return time != nullptr && ASN1_TIME_to_tm(time, &parts) == 1 ? static_cast<std::int64_t>(timegm(&parts)) * 1000 : std::int64_t{0};
    };
    constexpr std::int64_t skew_ms = 300'000;
    if (unix_ms(since) > now_ms + skew_ms) return fail("the answer is from the future");
    if (until != nullptr && unix_ms(until) + skew_ms < now_ms) return fail("the answer is too old");
    // Without a next update there is always a newer answer (RFC 6960, 2.4): an old one is somebody's recording.
    constexpr std::int64_t fresh_ms = 86'400'000;
    if (until == nullptr && unix_ms(since) + fresh_ms < now_ms) return fail("the answer is too old: it names no next update and is more than a day old");
    OcspStatus out{.kind = status == V_OCSP_CERTSTATUS_GOOD ? OcspStatus::Kind::good : status == V_OCSP_CERTSTATUS_REVOKED ? OcspStatus::Kind::revoked : OcspStatus::Kind::unknown, .good_until_ms = unix_ms(until)};
    return out;
}

}  // namespace penstock::crypto
