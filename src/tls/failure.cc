#include "tls/failure.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>

namespace penstock::tls {
namespace {

constexpr const char* no_trust =
    "the client does not trust the CA of this port's certificate; give it that CA: for tls.mode "
    "Automatic entry ca.crt of ConfigMap azure-iot-operations-aio-ca-trust-bundle (or of the port's "
    "Secret), for Manual the CA that signed the chain in its Secret";
constexpr const char* not_accepted =
    "the client does not accept this port's certificate: most often the name or address that it dials "
    "is not in it (status of the listener says which are), or it does not know the CA; add the name to "
    "the certificate's subjectAltName (spec.ports[].tls.certManagerCertificateSpec.san), or have the "
    "client dial a name that is in it and trust its CA";
constexpr const char* not_in_time =
    "the client takes this port's certificate for expired; look at the client's clock, and at the "
    "certificate's end in the status of the listener";
constexpr const char* no_version =
    "the client and this port have no version of TLS in common; here are 1.2 and 1.3, so switch TLS 1.2"
    " or 1.3 on in the client";
constexpr const char* no_cipher =
    "the client and this port have no cipher, curve or kind of key in common; here are those of TLS "
    "1.3, and ECDHE with AES-GCM or ChaCha20 of 1.2: allow them in the client, or give the port a "
    "certificate with a key that the client knows (an older one may need RSA)";
constexpr const char* no_certificate =
    "the client showed no certificate and one is required; give it a certificate and its key";
constexpr const char* bad_client_key =
    "the client's certificate and key do not belong together, or its key cannot be used; give it a pair"
    " that fits";
constexpr const char* no_protocol =
    "the client asks for another protocol (ALPN) than mqtt; have it ask for mqtt or for none";
constexpr const char* gone = "the client closed the connection without ending TLS; its own log may say why";

struct Row {
    int reason;
    const char* sentence;
};
constexpr Row rows[] = {
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA, no_trust},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, not_accepted},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, not_accepted},
    {SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, not_accepted},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, not_accepted},
    {SSL_R_TLSV1_UNRECOGNIZED_NAME, not_accepted},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, not_in_time},
    {SSL_R_UNSUPPORTED_PROTOCOL, no_version},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, no_version},
    {SSL_R_VERSION_TOO_LOW, no_version},
    {SSL_R_NO_SHARED_CIPHER, no_cipher},
    {SSL_R_NO_SUITABLE_KEY_SHARE, no_cipher},
    {SSL_R_NO_SUITABLE_GROUPS, no_cipher},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, no_cipher},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, no_cipher},
    {SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, no_cipher},
    {SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY, no_cipher},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, no_certificate},
    {SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, no_certificate},
    {SSL_R_BAD_SIGNATURE, bad_client_key},
    {SSL_R_NO_APPLICATION_PROTOCOL, no_protocol},
    {SSL_R_UNEXPECTED_EOF_WHILE_READING, gone},
};

/// OpenSSL's words for a reason; they differ between its versions.
std::string_view words_of(int reason) {
    const char* text = ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, reason));
    return text != nullptr ? text : "";
}

}  // namespace

Opening opening_of(std::string_view came) noexcept {
    constexpr std::size_t connect_head = 12;
    if (came.size() >= 2 && came[0] == '\x16' && came[1] == '\x03') return Opening::tls;
    const auto head = came.substr(0, connect_head);
    if (came.starts_with('\x10') && (head.contains("MQTT") || head.contains("MQIsdp"))) return Opening::mqtt;
    for (const std::string_view method :
         {"GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "DELETE ", "CONNECT ", "PRI "})
        if (came.starts_with(method)) return Opening::http;
    return Opening::unknown;
}

std::string explained(std::string_view fault, std::string_view came) {
    for (const int reason : {SSL_R_WRONG_VERSION_NUMBER, SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST}) {
        if (fault != words_of(reason)) continue;
        const auto opening = opening_of(came);
        if (opening == Opening::tls) return fmt::format("{} ({})", no_version, fault);
        const bool is_http = opening == Opening::http || reason != SSL_R_WRONG_VERSION_NUMBER;
        return fmt::format(
            "the client spoke no TLS on a TLS port{}; switch TLS on in the client, or have it use a port "
            "without tls ({})",
            is_http                    ? ", what came looks like HTTP"
            : opening == Opening::mqtt ? ", what came looks like MQTT"
                                       : "",
            fault);
    }
    const auto is_it = [&](const Row& one) { return words_of(one.reason) == fault; };
    const auto* const row = std::ranges::find_if(rows, is_it);
    return row != std::end(rows) ? fmt::format("{} ({})", row->sentence, fault) : std::string(fault);
}

}  // namespace penstock::tls
