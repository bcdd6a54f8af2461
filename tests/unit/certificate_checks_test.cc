// What decides whether a Certificate is issued: a row for each check of the list, over facts of one moment.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/text.h"
#include "control/certificate_checks.h"

namespace penstock {
namespace {

using control::CertificateFacts;
using control::HeldIdentity;
using control::Signer;
using control::WantedCertificate;
using resources::Json;

constexpr std::int64_t hour = 3'600'000, day = 24 * hour;
constexpr std::int64_t start = 1'800'000'000'000;   // when everything was issued, Unix time

/// A pair that `issuer` (null: itself) signed at `start`.
crypto::KeyPair made(crypto::IssueOptions options, std::int64_t life, const crypto::KeyPair* issuer,
                     const std::string& key = crypto::make_key("Ec256").value()) {
    options.not_before_ms = start;
    options.not_after_ms = start + life;
    return {.certificate = crypto::issue_certificate(key, issuer, options).value(), .key = key};
}

crypto::KeyPair made_ca(const char* name, std::int64_t life = 1000 * day) {
    return made({.subject = {{"CN", name}}, .is_ca = true}, life, nullptr);
}

Signer signer_with(const crypto::KeyPair& ca) {
    return {.self = false, .pair = ca, .chain = crypto::read_certificates(ca.certificate).value()};
}

Json secret_with(const crypto::KeyPair& pair) {
    return {{"data", {{"tls.crt", base64_encode(pair.certificate)}, {"tls.key", base64_encode(pair.key)}}},
            {"metadata",
             {{"annotations",
               {{"cert-manager.io/issuer-name", "own"}, {"cert-manager.io/issuer-kind", "Issuer"}}}}}};
}

/// A Certificate of 90 days whose Secret is all that it asks for, a day after it was issued. A row changes
/// one thing of it.
struct Moment {
    Json certificate = {{"spec",
                         {{"commonName", "pump"},
                          {"dnsNames", {"pump.example", "b.example"}},
                          {"ipAddresses", {"10.0.0.1", "fd00::7"}},
                          {"duration", "2160h"},
                          {"secretName", "pump"},
                          {"issuerRef", {{"name", "own"}}},
                          {"privateKey", {{"algorithm", "ECDSA"}}}}}};
    crypto::KeyPair ca = made_ca("CA");
    crypto::KeyPair pair = issued_by(ca);
    std::optional<Signer> signer = signer_with(ca);
    std::optional<Json> secret = secret_with(pair);
    bool is_in_a_circle = false;
    std::int64_t now = start + day;

    static crypto::KeyPair issued_by(const crypto::KeyPair& by) {
        return made({.subject = {{"CN", "pump"}},
                     .dns_names = {"b.example", "pump.example"},
                     .addresses = {"fd00:0::7", "10.0.0.1"}},
                    90 * day, &by);
    }
    void put(const crypto::KeyPair& other) { secret = secret_with(other); }
    void spec(const char* field, Json value) { certificate["spec"][field] = std::move(value); }

    [[nodiscard]] std::optional<control::CertificateDue> due() const {
        const WantedCertificate wanted = control::wanted_of(certificate).value();
        const auto held = HeldIdentity::in(secret ? &*secret : nullptr);
        return control::why_due({.certificate = certificate,
                                 .wanted = wanted,
                                 .secret = secret ? &*secret : nullptr,
                                 .held = held,
                                 .signer = signer ? &*signer : nullptr,
                                 .is_in_a_circle = is_in_a_circle,
                                 .now_ms = now});
    }
};

struct Row {
    const char* check;                   ///< by which the certificate is due; null: it is not
    const char* why;
    std::function<void(Moment&)> change;
};

const std::vector<Row>& rows() {
    static const std::vector<Row> all{
        {nullptr, "as asked", [](Moment&) {}},
        {nullptr, "no signer, and nothing to sign", [](Moment& m) { m.signer.reset(); }},
        {"secret exists", "Secret does not exist", [](Moment& m) { m.secret.reset(); }},
        {"secret is readable", "the Secret has no readable tls.crt and tls.key",
         [](Moment& m) { (*m.secret)["data"]["tls.crt"] = base64_encode("nonsense"); }},
        {"secret is readable", "the Secret has no readable tls.crt and tls.key",
         [](Moment& m) { (*m.secret)["data"].erase("tls.key"); }},
        {"key is the certificate's", "the Secret's key is not that of its certificate",
         [](Moment& m) {
             (*m.secret)["data"]["tls.key"] = base64_encode(crypto::make_key("Ec256").value());
         }},
        {"key is as asked", "the key is to be Ec384",
         [](Moment& m) { m.spec("privateKey", {{"algorithm", "ECDSA"}, {"size", 384}}); }},
        {"DNS names are as asked", "the DNS names changed",
         [](Moment& m) { m.spec("dnsNames", {"b.example"}); }},
        {"addresses are as asked", "the addresses changed",
         [](Moment& m) { m.spec("ipAddresses", {"10.0.0.1"}); }},
        {"addresses are as asked", "the addresses changed",
         [](Moment& m) { m.spec("ipAddresses", {"10.0.0.1", "fd00::8"}); }},
        {nullptr, "another spelling of the same address",
         [](Moment& m) { m.spec("ipAddresses", {"FD00:0:0::7", "10.0.0.1"}); }},
        {"is a CA, or not, as asked", "it is to be a CA, or no longer",
         [](Moment& m) { m.spec("isCA", true); }},
        {"common name is as asked", "the common name changed",
         [](Moment& m) { m.spec("commonName", "fan"); }},
        {"issuer is as asked", "the issuer changed",
         [](Moment& m) { m.spec("issuerRef", {{"name", "other"}}); }},
        {"issuer is as asked", "the issuer changed",
         [](Moment& m) { m.spec("issuerRef", {{"name", "own"}, {"kind", "ClusterIssuer"}}); }},
        {nullptr, "a Secret without marks is nobody else's", [](Moment& m) { m.secret->erase("metadata"); }},
        {"follows its CA", "its CA was renewed or replaced",
         [](Moment& m) { m.signer = signer_with(made_ca("CA")); }},
        {"follows its CA", "the chain of its CA changed",
         [](Moment& m) {
             const auto root = made_ca("root");
             auto above = made({.subject = {{"CN", "CA"}}, .is_ca = true}, 1000 * day, &root, m.ca.key);
             m.signer = signer_with(above);
         }},
        {"follows its CA", "the issuer signs nothing any more, each certificate is its own",
         [](Moment& m) { m.signer = Signer{.self = true}; }},
        {nullptr, "its CA hangs on the certificate itself",
         [](Moment& m) {
             m.signer = signer_with(made_ca("CA"));
             m.is_in_a_circle = true;
         }},
        {"has begun", "the certificate is from the future", [](Moment& m) { m.now = start - hour; }},
        {nullptr, "clocks differ a little", [](Moment& m) { m.now = start - control::clock_skew_ms; }},
        {"has not expired", "the certificate has expired", [](Moment& m) { m.now = start + 90 * day; }},
        {"is not to be renewed yet", "it is time to renew", [](Moment& m) { m.now = start + 60 * day; }},
        {nullptr, "a moment before", [](Moment& m) { m.now = start + 60 * day - 1000; }},
        {"is not to be renewed yet", "it is time to renew",
         [](Moment& m) {
             m.spec("renewBefore", "1h");
             m.now = start + 90 * day - hour;
         }},
        {nullptr, "its CA ends with it, and nothing would be won",
         [](Moment& m) {
             m.ca = made_ca("CA", 90 * day);
             m.signer = signer_with(m.ca);
             m.put(Moment::issued_by(m.ca));
             m.now = start + 80 * day;
         }},
        {"nobody asked for a renewal", "renewal was asked for",
         [](Moment& m) {
             m.certificate["status"]["conditions"] = Json::array({{{"type", "Issuing"}, {"status", "True"}}});
         }},
        {nullptr, "a renewal that was asked for and is over",
         [](Moment& m) {
             m.certificate["status"]["conditions"] =
                 Json::array({{{"type", "Issuing"}, {"status", "False"}}});
         }},
    };
    return all;
}

TEST(CertificateChecks, each_names_what_is_not_as_asked) {
    const Moment unchanged;              // keys are made once
    for (const auto& row : rows()) {
        auto moment = unchanged;
        row.change(moment);
        const auto due = moment.due();
        EXPECT_EQ(due ? due->check->name : std::string("none"), row.check != nullptr ? row.check : "none")
            << row.why;
        if (due && row.check != nullptr) {
            EXPECT_EQ(due->why, row.why);
        }
    }
}

TEST(CertificateChecks, each_has_a_row_and_a_name_of_its_own) {
    std::set<std::string> named, tried;
    for (const auto& check : control::certificate_checks()) {
        EXPECT_TRUE(named.insert(check.name).second) << check.name;
        EXPECT_FALSE(std::string_view(check.reason).empty()) << check.name;
    }
    for (const auto& row : rows())
        if (row.check != nullptr) tried.insert(row.check);
    EXPECT_EQ(named, tried);
}

TEST(CertificateChecks, the_first_of_several_is_told) {
    Moment moment;
    moment.spec("dnsNames", {"b.example"});
    moment.now = start + 90 * day;
    ASSERT_TRUE(moment.due());
    EXPECT_STREQ(moment.due()->check->name, "DNS names are as asked")
        << "what was asked for comes before dates";
}

TEST(CertificateChecks, what_cannot_be_carried_out_names_its_field) {
    auto fault = [](Json spec) {
        const auto wanted = control::wanted_of({{"spec", std::move(spec)}});
        return wanted ? std::string() : wanted.error().message;
    };
    EXPECT_EQ(fault({{"commonName", "a"}}), "");
    EXPECT_NE(fault({{"commonName", "a"}, {"duration", "59m"}}).find("spec.duration"), std::string::npos);
    EXPECT_NE(fault({{"commonName", "a"}, {"renewBefore", "4m"}}).find("spec.renewBefore"),
              std::string::npos);
    EXPECT_NE(
        fault({{"commonName", "a"}, {"duration", "2h"}, {"renewBefore", "2h"}}).find("spec.renewBefore"),
        std::string::npos);
    EXPECT_NE(fault(Json::object()).find("spec.commonName"), std::string::npos);
}

TEST(CertificateChecks, a_life_that_was_cut_short_is_renewed_at_two_thirds) {
    const auto ca = made_ca("CA", 30 * day);
    const auto leaf = crypto::read_certificates(Moment::issued_by(ca).certificate).value().front();
    const WantedCertificate wanted{.duration_ms = 90 * day, .renew_before_ms = 30 * day};
    EXPECT_EQ(control::renewal_of(leaf, wanted), start + 20 * day - control::clock_skew_ms);
}

}  // namespace
}  // namespace penstock
