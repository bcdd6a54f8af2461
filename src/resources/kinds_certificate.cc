// cert-manager.io/v1, field names as cert-manager has them.
#include "resources/declare.h"

namespace penstock::resources {
namespace {

using declare::choice, declare::flag, declare::integer, declare::keyed, declare::list, declare::number, declare::object, declare::open, declare::required,
    declare::required_text, declare::text, declare::text_map, declare::texts;

Field conditions() {
    return keyed(list("conditions", {required_text("type", "What is said."), required_text("status", "True, False or Unknown."), text("reason", "One word."), text("message", "For people."),
                                     text("lastTransitionTime", "When the status changed."), integer("observedGeneration", "Generation it speaks of.")}, "Conditions by type."), "type");
}

Kind certificate() {
    auto issuer = required(object("issuerRef", {required_text("name", "Name of the issuer."), {.name = "kind", .type = Type::string, .doc = "Issuer or ClusterIssuer.", .default_value = "Issuer"},
                                                {.name = "group", .type = Type::string, .doc = "API group of the issuer.", .default_value = "cert-manager.io"}}, "Who issues."));
    auto key = object("privateKey", {choice("rotationPolicy", {"Never", "Always"}, nullptr, "Whether renewal makes a new key."), choice("encoding", {"PKCS1", "PKCS8"}, nullptr, "Form of the key."),
                                     choice("algorithm", {"RSA", "ECDSA", "Ed25519"}, nullptr, "Algorithm."), number("size", 0, 8192, nullptr, "Bits: RSA 2048 to 8192, ECDSA 256, 384, 521.")}, "The private key.");
    auto subject = object("subject", {texts("organizations", "O."), texts("countries", "C."), texts("organizationalUnits", "OU."), texts("localities", "L."), texts("provinces", "ST."), texts("streetAddresses", "STREET."), texts("postalCodes", "Codes."), text("serialNumber", "Serial number.")}, "Further parts of the subject.");
    return {.group = "cert-manager.io", .version = "v1", .kind = "Certificate", .plural = "certificates", .singular = "certificate", .short_names = {"cert", "certs"}, .categories = {"cert-manager"},
            .doc = "A certificate that is wanted. Penstock's own issuer issues, renews and rotates it (issuers of type ca and selfSigned); condition Ready says how it stands.",
            .fields = {required(object("spec",
                {required_text("secretName", "Secret in which certificate and key are kept."), issuer, text("commonName", "CN, at most 64 characters."), texts("dnsNames", "Names."), texts("ipAddresses", "Addresses."), texts("uris", "URIs."), texts("emailAddresses", "Mail addresses."),
                 declare::lifetime("; 2160h when absent"), declare::renewal("; a third of the lifetime when absent"), number("renewBeforePercentage", 1, 99, nullptr, "The same in percent of `duration`, of which it is at least 5m; not beside `renewBefore`."),
                 key, subject, texts("usages", "Such as server auth."), flag("isCA", "Whether it may issue."), flag("encodeUsagesInRequest", "Usages in the request."), text("literalSubject", "Subject in LDAP form."),
                 object("secretTemplate", {text_map("annotations", "Annotations."), text_map("labels", "Labels.")}, "Marks of the Secret."), open("keystores", "PKCS12 and JKS files."), list("additionalOutputFormats", {required_text("type", "DER or CombinedPEM.")}, "Further forms."),
                 integer("revisionHistoryLimit", "Requests kept."), open("nameConstraints", "Limits of a CA."), open("otherNames", "Other names.")},
                "Desired state.")),
                object("status", {conditions(), text("notBefore", "Begin."), text("notAfter", "End."), text("renewalTime", "When it is renewed."), integer("revision", "Count of issues."), text("nextPrivateKeySecretName", "Key in the making."),
                                  text("lastFailureTime", "Last failure."), integer("failedIssuanceAttempts", "Failures in a row.")}, "What is.")},
            .columns = {{"Ready", "#ready"}, {"Secret", "spec.secretName"}, {"Issuer", "spec.issuerRef.name", "string", 1}, {"Status", "#ready-message", "string", 1}}};
}

Kind issuer(const char* kind, const char* plural, bool namespaced) {
    Kind out{.group = "cert-manager.io", .version = "v1", .kind = kind, .plural = plural, .categories = {"cert-manager"}, .namespaced = namespaced,
             .doc = "Who issues certificates: a CA kept in a Secret (a ClusterIssuer's is in namespace cert-manager), or each certificate itself. Other types need cert-manager; their condition Ready says so.",
             .fields = {required(object("spec",
                 {object("ca", {required_text("secretName", "Secret with the CA's certificate and key."), texts("crlDistributionPoints", "Where revocations are."), texts("ocspServers", "Who answers for revocations."), texts("issuingCertificateURLs", "Where the issuer's certificate is.")}, "A CA kept here."),
                  object("selfSigned", {texts("crlDistributionPoints", "Where revocations are.")}, "Each certificate signs itself."), open("acme", "ACME."), open("vault", "Vault."), open("venafi", "Venafi.")},
                 "Desired state.")),
                 object("status", {conditions(), open("acme", "State of an ACME account.")}, "What is.")},
             .columns = {{"Ready", "#ready"}, {"Status", "#ready-message", "string", 1}}};
    out.singular = namespaced ? "issuer" : "clusterissuer";
    return out;
}

}  // namespace

void add_certificate_kinds(std::vector<Kind>& out) {
    out.push_back(certificate());
    out.push_back(issuer("Issuer", "issuers", true));
    out.push_back(issuer("ClusterIssuer", "clusterissuers", false));
}

}  // namespace penstock::resources
