// What TLS peers make of certificates and keys of every kind, told before anybody meets them.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <fmt/format.h>

#include "base/given_clock.h"
#include "base/text.h"
#include "control/security.h"
#include "crypto/examination.h"
#include "crypto/trust.h"
#include "harness/x509_maker.h"
#include "tls/rehearsal.h"

namespace penstock {
namespace {

using crypto::Purpose;
using crypto::Weight;
using harness::CertificateOptions;
using harness::Signer;
using resources::Json;

constexpr const char* space = "azure-iot-operations";

const Signer& root() {
    static const Signer out = harness::make_authority("root");
    return out;
}

CertificateOptions server_options(const Signer* issuer = &root()) {
    return {.subject = {{"CN", "broker"}}, .issuer = issuer, .basic = "critical,CA:FALSE", .key_usage = "critical,digitalSignature", .extended_usage = "serverAuth", .alternative_names = "DNS:localhost"};
}

crypto::IdentityJudgement judge(const crypto::Certificate& leaf, const harness::SharedKey& key, const std::string& behind = {}) {
    return crypto::judge_identity(leaf.pem() + behind, harness::key_pem(key.get()), Purpose::server, wall_ms());
}

Weight weight_of(const crypto::IdentityJudgement& judgement) { return judgement.findings.empty() ? Weight::note : judgement.findings.front().weight; }

// RFC 8446, 4.2.3 and 4.2.7: a key that TLS has no curve or signature for is no use to anybody.
TEST(Identity, each_kind_of_key_is_judged_and_a_real_handshake_agrees) {
    struct Case {
        const char* key;
        Weight weight;
        const char* word;
    };
    for (const auto& [kind, weight, word] : {
             Case{"P-256", Weight::note, ""}, {"P-384", Weight::note, ""}, {"P-521", Weight::note, "P-521"}, {"RSA 2048", Weight::note, ""}, {"RSA 3072", Weight::note, ""}, {"ED25519", Weight::note, "Ed25519"},
             {"ED448", Weight::some_refuse, "Ed448"}, {"RSA-PSS 2048", Weight::some_refuse, "RSA-PSS"},
             {"secp256k1", Weight::unusable, "curve secp256k1"}, {"P-224", Weight::unusable, "curve secp224r1"}, {"P-192", Weight::unusable, "curve prime192v1"},
             {"brainpoolP256r1", Weight::unusable, "curve brainpoolP256r1"}, {"brainpoolP384r1", Weight::unusable, "curve brainpoolP384r1"}, {"sect283r1", Weight::unusable, "curve sect283r1"},
             {"RSA 512", Weight::unusable, "weak key (RSA 512)"}, {"RSA 1024", Weight::unusable, "weak key (RSA 1024)"}, {"DSA", Weight::unusable, "type DSA"}, {"X25519", Weight::unusable, "type X25519"}}) {
        const auto key = harness::make_key(kind);
        ASSERT_NE(key, nullptr) << kind;
        const auto leaf = harness::make_certificate(key, server_options());
        const auto judgement = judge(leaf, key);
        EXPECT_EQ(weight_of(judgement), weight) << kind << ": " << judgement.because_of(weight_of(judgement));
        EXPECT_NE(judgement.because_of(weight).find(word), std::string::npos) << kind << ": " << judgement.because_of(weight);
        const auto context = tls::Context::server({.certificate_chain = leaf.pem(), .key = harness::key_pem(key.get()), .protocols = {"mqtt"}});
        const bool works = context && tls::rehearse(*context).empty();
        EXPECT_EQ(works, weight != Weight::unusable) << kind << ": " << (context ? tls::rehearse(*context) : context.error().message);
    }
}

// What AIO lets people choose works with both versions of TLS, for a client that has OpenSSL's defaults.
TEST(Identity, each_key_algorithm_of_the_resource_serves_usual_clients_in_both_versions) {
    const auto handshake = [](const std::shared_ptr<const tls::Context>& server, int version) {
        const std::unique_ptr<SSL_CTX, crypto::Freer<SSL_CTX_free>> usual(SSL_CTX_new(TLS_client_method()));
        SSL_CTX_set_min_proto_version(usual.get(), version);
        SSL_CTX_set_max_proto_version(usual.get(), version);
        const std::unique_ptr<SSL, crypto::Freer<SSL_free>> client(SSL_new(usual.get())), peer(SSL_new(server->native()));
        BIO *a = nullptr, *b = nullptr;
        BIO_new_bio_pair(&a, 1 << 16, &b, 1 << 16);
        SSL_set_bio(client.get(), a, a);
        SSL_set_bio(peer.get(), b, b);
        SSL_set_connect_state(client.get());
        SSL_set_accept_state(peer.get());
        for (int turn = 0; turn < 8; ++turn) {
            SSL_do_handshake(client.get());
            SSL_do_handshake(peer.get());
        }
        ERR_clear_error();
        return SSL_is_init_finished(client.get()) == 1 && SSL_is_init_finished(peer.get()) == 1;
    };
    for (const auto* algorithm : {"Ec256", "Ec384", "Ec521", "Ed25519", "Rsa2048", "Rsa4096"}) {
        const auto key = crypto::make_key(algorithm).value();
        const auto leaf = crypto::issue_certificate(key, nullptr, {.subject = {{"CN", "b"}}, .dns_names = {"localhost"}, .usages = {"digital signature", "server auth"}, .not_before_ms = wall_ms() - 1000, .not_after_ms = wall_ms() + 86'400'000}).value();
        const auto context = tls::Context::server({.certificate_chain = leaf, .key = key});
        ASSERT_TRUE(context) << context.error().message;
        EXPECT_TRUE(handshake(*context, TLS1_3_VERSION)) << algorithm;
        EXPECT_TRUE(handshake(*context, TLS1_2_VERSION)) << algorithm;
    }
}

TEST(Identity, extensions_and_signatures_that_peers_refuse) {
    const auto key = harness::make_key("P-256"), rsa = harness::make_key("RSA 2048");
    auto weight = [&](const CertificateOptions& options, const char* word, const harness::SharedKey& with) {
        const auto judgement = judge(harness::make_certificate(with, options), with);
        const auto out = weight_of(judgement);
        EXPECT_NE(judgement.because_of(out).find(word), std::string::npos) << word << ": " << judgement.because_of(out);
        return out;
    };
    auto with = [](auto change) {
        auto out = server_options();
        change(out);
        return out;
    };
    EXPECT_EQ(weight(with([](auto& o) { o.key_usage = ""; }), "", key), Weight::note) << "no key usage, no bounds";
    EXPECT_EQ(weight(with([](auto& o) { o.key_usage = "critical,keyAgreement"; }), "lacks digitalSignature", key), Weight::all_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.key_usage = "critical,keyEncipherment"; }), "lacks digitalSignature", rsa), Weight::all_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.extended_usage = "clientAuth"; }), "not made for servers", key), Weight::all_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.extended_usage = "codeSigning"; }), "not made for servers", key), Weight::all_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.extended_usage = "1.2.3.4"; }), "not made for servers", key), Weight::all_refuse) << "a purpose OpenSSL has no name for";
    EXPECT_EQ(weight(with([](auto& o) { o.extended_usage = "anyExtendedKeyUsage"; }), "clients with OpenSSL refuse", key), Weight::some_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.extended_usage = ""; }), "", key), Weight::note);
    EXPECT_EQ(weight(with([](auto& o) { o.alternative_names = ""; }), "no subjectAltName", key), Weight::some_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.digest = "SHA1"; }), "sign with SHA-256", key), Weight::unusable);
    EXPECT_EQ(weight(with([](auto& o) { o.from_s = -1000, o.to_s = -10; }), "has expired", key), Weight::all_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.from_s = 1000; }), "not valid before", key), Weight::all_refuse);
    EXPECT_EQ(weight(with([](auto& o) { o.more = {{NID_policy_constraints, "critical,requireExplicitPolicy:0"}}; }), "", key), Weight::note);
    EXPECT_EQ(weight(with([](auto& o) { o.more = {{NID_netscape_comment, "critical,x"}}; }), "", key), Weight::all_refuse) << "a critical extension that nobody understands";
}

TEST(Identity, chains_in_every_state) {
    const auto key = harness::make_key("P-256");
    const auto middle = harness::make_authority("middle", &root());
    const auto leaf = harness::make_certificate(key, server_options(&middle));
    auto told = [&](const crypto::Certificate& of, const std::string& behind, Weight weight, const char* word) {
        const auto judgement = judge(of, key, behind);
        EXPECT_EQ(weight_of(judgement), weight) << word << ": " << judgement.because_of(weight_of(judgement));
        EXPECT_NE(judgement.because_of(weight).find(word), std::string::npos) << judgement.because_of(weight_of(judgement));
    };
    const auto root_pem = root().certificate.pem(), middle_pem = middle.certificate.pem();
    told(leaf, middle_pem, Weight::note, "");
    told(leaf, middle_pem + root_pem, Weight::note, "is a root");
    told(leaf, root_pem + middle_pem, Weight::some_refuse, "the order is leaf first");
    told(leaf, middle_pem + harness::make_authority("stranger").certificate.pem(), Weight::some_refuse, "it does not belong there");
    told(leaf, harness::make_authority("stranger").certificate.pem(), Weight::all_refuse, "is the issuer of \"CN = broker\" (\"CN = middle\")");
    auto below = [&](CertificateOptions options, const harness::SharedKey& middle_key = harness::make_key("P-256")) {
        const auto odd = harness::make_authority("odd", &root(), middle_key, std::move(options));
        return std::pair{harness::make_certificate(key, server_options(&odd)), odd.certificate.pem()};
    };
    const auto [a, no_ca] = below({.basic = "critical,CA:FALSE"});
    told(a, no_ca, Weight::all_refuse, "is no CA");
    const auto [b, no_sign] = below({.key_usage = "critical,digitalSignature"});
    told(b, no_sign, Weight::all_refuse, "keyCertSign");
    const auto [c, ended] = below({.from_s = -1000, .to_s = -10});
    told(c, ended, Weight::all_refuse, "certificate 2 (\"CN = odd\") has expired");
    const auto [d, weak] = below({}, harness::make_key("RSA 1024"));
    told(d, weak, Weight::all_refuse, "weak key (RSA 1024)");
    // Keys that OpenSSL itself would verify with, and hardly any client does.
    for (const auto& [kind, word] : {std::pair{"secp256k1", "curve secp256k1"}, std::pair{"brainpoolP256r1", "curve brainpoolP256r1"}, std::pair{"sect283r1", "curve sect283r1"}}) {
        const auto [odd, odd_pem] = below({}, harness::make_key(kind));
        told(odd, odd_pem, Weight::all_refuse, word);
        EXPECT_FALSE(judge(odd, key, odd_pem).is_acceptable()) << kind;
    }
    const auto [r, pss] = below({}, harness::make_key("RSA-PSS 2048"));
    told(r, pss, Weight::some_refuse, "written in Go refuse");
    const auto [q, p521] = below({}, harness::make_key("P-521"));
    told(q, p521, Weight::note, "");
    const auto [e, sha1] = below({.digest = "SHA1"});
    told(e, sha1, Weight::all_refuse, "sign with SHA-256");
    const auto [f, narrow] = below({.more = {{NID_name_constraints, "critical,permitted;DNS:elsewhere.example"}}});
    told(f, narrow, Weight::all_refuse, "permitted subtree");
    const auto [g, for_clients] = below({.extended_usage = "clientAuth"});
    told(g, for_clients, Weight::all_refuse, "not made for this purpose");
    const auto short_root = harness::make_authority("short", nullptr, harness::make_key("P-256"), {.basic = "critical,CA:TRUE,pathlen:0"});
    const auto too_deep = harness::make_authority("deep", &short_root);
    told(harness::make_certificate(key, server_options(&too_deep)), too_deep.certificate.pem() + short_root.certificate.pem(), Weight::all_refuse, "path length");
    std::string many = middle_pem;
    for (int i = 0; i < 30; ++i) many += root_pem;
    told(leaf, many, Weight::some_refuse, "there are 32 certificates in the chain");
    EXPECT_EQ(judge(leaf, key, middle_pem).ends_at_ms(), std::min(leaf.not_after_ms(), middle.certificate.not_after_ms()));
}

TEST(Identity, texts_that_are_no_certificate_or_no_key_of_it) {
    const auto key = harness::make_key("P-256"), other = harness::make_key("P-256");
    const auto leaf = harness::make_certificate(key, server_options());
    auto why = [](const std::string& chain, const std::string& pem) { return crypto::judge_identity(chain, pem, Purpose::server, wall_ms()).because_of(Weight::unusable); };
    EXPECT_NE(why("", "").find("there is no certificate in it"), std::string::npos);
    EXPECT_NE(why("junk", harness::key_pem(key.get())).find("there is no certificate in it"), std::string::npos);
    EXPECT_NE(why(leaf.pem().substr(0, 300), harness::key_pem(key.get())).find("END line is missing"), std::string::npos);
    EXPECT_NE(why(leaf.pem(), "").find("private key cannot be read"), std::string::npos);
    EXPECT_NE(why(leaf.pem(), harness::key_pem(other.get())).find("not that of the first certificate"), std::string::npos);
    EXPECT_NE(why(root().certificate.pem() + leaf.pem(), harness::key_pem(key.get())).find("the private key is that of certificate 2 (\"CN = broker\")"), std::string::npos);
}

TEST(Identity, authorities_that_let_nobody_in) {
    auto told = [](const std::string& key, const CertificateOptions& options, Weight weight, const char* word) {
        const auto findings = crypto::examine_authority(harness::make_authority("CA", nullptr, harness::make_key(key), options).certificate, Purpose::client, wall_ms());
        if (*word == '\0') {
            EXPECT_TRUE(findings.empty()) << findings.front().message;
            return;
        }
        ASSERT_FALSE(findings.empty()) << word;
        EXPECT_EQ(findings.front().weight, weight) << findings.front().message;
        EXPECT_NE(findings.front().message.find(word), std::string::npos) << findings.front().message;
    };
    told("P-256", {}, Weight::note, "");
    told("RSA 2048", {}, Weight::note, "");
    told("P-256", {.extended_usage = "clientAuth,serverAuth"}, Weight::note, "");
    told("RSA 1024", {}, Weight::all_refuse, "weak key (RSA 1024");
    told("P-192", {}, Weight::all_refuse, "weak key");
    told("P-256", {.from_s = -1000, .to_s = -10}, Weight::all_refuse, "has expired");
    told("P-256", {.from_s = 1000}, Weight::all_refuse, "not valid before");
    told("P-256", {.basic = "critical,CA:FALSE"}, Weight::some_refuse, "is no CA");
    told("P-256", {.key_usage = "critical,cRLSign"}, Weight::all_refuse, "lacks keyCertSign");
    told("P-256", {.extended_usage = "serverAuth"}, Weight::all_refuse, "not made for clients");
}

// What is said of a trusted CA's key is what clients of it meet here: with their chains OpenSSL is asked, and TLS for one that is trusted itself.
TEST(Identity, authorities_with_keys_that_few_can_use) {
    for (const auto* kind : {"P-256", "P-384", "P-521", "RSA 2048", "RSA-PSS 2048", "ED25519", "ED448", "secp256k1", "P-224", "brainpoolP256r1", "brainpoolP384r1", "sect283r1", "RSA 1024", "DSA"}) {
        const auto authority = harness::make_authority("CA", nullptr, harness::make_key(kind));
        const auto client = harness::make_certificate(harness::make_key("P-256"), {.subject = {{"CN", "fan"}}, .issuer = &authority, .basic = "critical,CA:FALSE", .key_usage = "critical,digitalSignature", .extended_usage = "clientAuth"});
        const auto fault = crypto::TrustStore({authority.certificate}, {}).verify({client}, Purpose::client, wall_ms()).fault;
        const auto findings = crypto::examine_authority(authority.certificate, Purpose::client, wall_ms());
        EXPECT_EQ(!findings.empty() && findings.front().weight == Weight::all_refuse, !fault.empty()) << kind << ": " << fault << " / " << (findings.empty() ? "" : findings.front().message);
        // As judge_identity() says of the same certificate in a chain.
        const auto chain = crypto::examine_chain({client, authority.certificate}, Purpose::client, wall_ms());
        const bool is_odd = std::ranges::any_of(chain, [&](const auto& f) { return f.weight >= Weight::some_refuse && f.message.find("key") != std::string::npos; });
        EXPECT_EQ(!findings.empty(), is_odd) << kind << ": " << (chain.empty() ? "" : chain.front().message);
        // A certificate that is trusted itself has to be shown in a handshake.
        const auto key = harness::make_key(kind);
        const auto pinned = harness::make_certificate(key, {.subject = {{"CN", "fan"}}, .basic = "critical,CA:FALSE", .key_usage = "critical,digitalSignature", .extended_usage = "clientAuth"});
        const auto told = crypto::examine_authority(pinned, Purpose::client, wall_ms());
        EXPECT_EQ(!told.empty() && told.front().weight == Weight::all_refuse, !crypto::judge_identity(pinned.pem(), harness::key_pem(key.get()), Purpose::client, wall_ms()).is_usable()) << kind;
    }
}

// --- what listeners make of it ---

struct World {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    control::SecurityBuilder builder{objects,
                                     {.clock = machine_clock(),
                                      .probe_secret = std::make_shared<const std::string>("s"),
                                      .crew = std::make_shared<auth::Crew>(1, 4)}};
    Json listener{{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"metadata", {{"name", "l"}, {"namespace", space}, {"uid", "u"}}}, {"spec", {{"serviceName", "svc"}}}};

    control::PreparedTls port() { return builder.tls(listener, {{"port", 8883}, {"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", "mine"}}}}}}, {"localhost"}, false, {}, false); }
    void put(const std::string& chain, const harness::SharedKey& key) {
        const auto& kind = *resources::find_kind("v1", "Secret");
        const Json data = {{"data", {{"tls.crt", base64_encode(chain)}, {"tls.key", base64_encode(harness::key_pem(key.get()))}}}};
        auto object = data;
        object["metadata"] = {{"name", "mine"}};
        object["type"] = "kubernetes.io/tls";
        if (registry->get(kind, space, "mine")) registry->patch(kind, space, "mine", registry::PatchType::merge, data, false).value();
        else registry->create(kind, space, object).value();
    }
};

TEST(ListenerSecurity, a_key_no_client_can_use_is_not_served) {
    World world;
    const auto odd = harness::make_key("secp256k1"), good = harness::make_key("P-256");
    world.put(harness::make_certificate(odd, server_options()).pem(), odd);
    const auto refused = world.port();
    EXPECT_EQ(refused.context, nullptr) << "the port must not open";
    EXPECT_NE(refused.fault.find("Secret azure-iot-operations/mine: certificate 1 (\"CN = broker\") has a key on the curve secp256k1"), std::string::npos) << refused.fault;
    world.put(harness::make_certificate(good, server_options()).pem(), good);
    const auto served = world.port();
    ASSERT_NE(served.context, nullptr) << served.fault;
    EXPECT_TRUE(served.judgement.is_acceptable());
    // A renewal on such a curve leaves the good one in place.
    world.put(harness::make_certificate(odd, server_options()).pem(), odd);
    const auto kept = world.port();
    EXPECT_EQ(kept.context, served.context);
    EXPECT_NE(kept.warnings.at(0).find("secp256k1"), std::string::npos);
}

TEST(ListenerSecurity, a_certificate_that_all_clients_refuse_is_no_running_port) {
    World world;
    const auto key = harness::make_key("P-256");
    auto options = server_options();
    options.key_usage = "critical,keyAgreement";
    world.put(harness::make_certificate(key, options).pem(), key);
    const auto port = world.port();
    ASSERT_NE(port.context, nullptr) << "clients that do not verify go on";
    EXPECT_FALSE(port.judgement.is_acceptable());
    EXPECT_NE(port.judgement.because_of(Weight::all_refuse).find("digitalSignature"), std::string::npos);
}

// An intermediate is judged as the leaf is: whether OpenSSL takes it or not, the port does not claim to run, and says what to do.
TEST(ListenerSecurity, an_intermediate_with_a_useless_key_is_no_running_port) {
    for (const auto* kind : {"RSA 1024", "secp256k1", "P-192"}) {
        World world;
        const auto key = harness::make_key("P-256");
        const auto middle = harness::make_authority("middle", &root(), harness::make_key(kind));
        world.put(harness::make_certificate(key, server_options(&middle)).pem() + middle.certificate.pem(), key);
        const auto port = world.port();
        const auto said = port.context == nullptr ? port.fault : port.judgement.because_of(Weight::all_refuse);
        EXPECT_NE(said.find("certificate 2 (\"CN = middle\") has a "), std::string::npos) << kind << ": " << said;
        EXPECT_NE(said.find("make a CA with a key on P-256"), std::string::npos) << kind << ": " << said;
        EXPECT_FALSE(port.judgement.is_acceptable()) << kind;
    }
}

// Time alone changes what is true of a certificate.
TEST(ListenerSecurity, a_certificate_that_ends_while_it_is_served_is_judged_anew) {
    World world;
    const auto key = harness::make_key("P-256");
    auto options = server_options();
    options.to_s = 2;
    world.put(harness::make_certificate(key, options).pem(), key);
    const auto first = world.port();
    ASSERT_NE(first.context, nullptr) << first.fault;
    EXPECT_TRUE(first.judgement.is_acceptable()) << first.judgement.because_of(Weight::all_refuse);
    while (wall_ms() < first.judgement.ends_at_ms()) world.objects.pause(20);
    const auto second = world.port();
    EXPECT_EQ(second.context, first.context) << "nobody who is connected is disturbed";
    EXPECT_NE(second.judgement.because_of(Weight::all_refuse).find("has expired"), std::string::npos);
}

// --- what comes in by the API (Secrets, ConfigMaps), whoever made it ---

/// Texts in the place of certificates, lists and keys, up to the largest that an object takes; each is wrong in a way of its own.
std::vector<std::pair<std::string, std::string>> hostile_texts(const std::string& good) {
    std::string nested, titles;
    for (int i = 0; i < 20'000; ++i) nested += "\x30\x80";
    for (int i = 0; i < 20'000; ++i) titles += "-----BEGIN CERTIFICATE-----\n";
    const auto block = [](const char* title, const std::string& der) { return fmt::format("-----BEGIN {0}-----\n{1}\n-----END {0}-----\n", title, base64_encode(der)); };
    std::vector<std::pair<std::string, std::string>> out{{"cut", good.substr(0, good.size() / 2)}, {"titles without an end", titles}, {"titles and one end", titles + "-----END CERTIFICATE-----\n"}, {"empty blocks", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"},
                                                         {"NUL", std::string(1000, '\0')}, {"nothing", " "}, {"an end alone", "-----END CERTIFICATE-----\n"}};
    for (const auto* title : {"CERTIFICATE", "X509 CRL", "PRIVATE KEY"})
        for (const auto& [what, der] : {std::pair{"deep", nested}, {"huge", std::string(500'000, '\x30')}, {"a length that lies", std::string("\x30\x84\x7f\xff\xff\xff", 6)}, {"zeros", std::string(500'000, '\0')}})
            out.emplace_back(fmt::format("{} {}", title, what), block(title, der));
    auto spoilt = good;
    spoilt[spoilt.size() / 2] = '*';
    out.emplace_back("no base64", spoilt);
    return out;
}

TEST(ListenerSecurity, certificates_and_keys_of_any_content_are_refused_by_name) {
    const auto key = harness::make_key("P-256");
    const auto good = harness::make_certificate(key, server_options()).pem(), key_text = harness::key_pem(key.get());
    const auto& kind = *resources::find_kind("v1", "Secret");
    // Of a port that has nothing yet: one that runs goes on with its last good pair.
    const auto fault_of = [&](const std::string& chain, const std::string& private_key) {
        World world;
        const Json object = {{"metadata", {{"name", "mine"}}}, {"type", "Opaque"}, {"data", {{"tls.crt", base64_encode(chain)}, {"tls.key", base64_encode(private_key)}}}};
        const auto made = world.registry->create(kind, space, object);
        EXPECT_TRUE(made) << made.error().message;
        return world.port().fault;
    };
    ASSERT_EQ(fault_of(good, key_text), "");
    for (const auto& [what, text] : hostile_texts(good))
        for (const bool is_key : {false, true}) {
            const auto said = fault_of(is_key ? good : text, is_key ? text : key_text);
            EXPECT_NE(said.find("Secret azure-iot-operations/mine"), std::string::npos) << what << ": " << said;
            EXPECT_LT(said.size(), 2000u) << what;
            if (!is_key) continue;
            EXPECT_NE(said.find("key"), std::string::npos) << what << ": " << said;
            EXPECT_EQ(said.find(key_text.substr(40, 40)), std::string::npos) << what;
        }
    // Text around a good pair does no harm.
    EXPECT_EQ(fault_of("# words\n" + good + std::string(200'000, 'x'), key_text), "");
    std::string many = good;
    for (int i = 0; many.size() < 700'000; ++i) many += good;
    const auto said = fault_of(many, key_text);
    EXPECT_NE(said.find("more than 1000 certificates"), std::string::npos) << said;
}

/// What a method says of a ConfigMap with these certificates and lists.
control::PreparedAuthenticator with_bundle(const Json& data) {
    World world;
    const auto made = world.registry->create(*resources::find_kind("v1", "ConfigMap"), space, {{"metadata", {{"name", "clients"}}}, {"data", data}});
    EXPECT_TRUE(made) << made.error().message;
    const auto rules = world.registry->create(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerAuthentication"), space,
                                              {{"metadata", {{"name", "x509"}}}, {"spec", {{"authenticationMethods", {{{"method", "X509"}, {"x509Settings", {{"trustedClientCaCert", "clients"}}}}}}}}});
    EXPECT_TRUE(rules) << rules.error().message;
    return world.builder.authenticator(space, "x509");
}

TEST(ListenerSecurity, bundles_of_any_content_are_refused_by_name_or_told_in_few_words) {
    const auto good = root().certificate.pem();
    for (const auto& [what, text] : hostile_texts(good)) {
        const auto made = with_bundle({{"bundle.pem", text}});
        if (what.starts_with("PRIVATE KEY") || what == "NUL" || what == "nothing" || what == "an end alone") EXPECT_NE(made.fault.find("ConfigMap clients has no certificate"), std::string::npos) << what << ": " << made.fault;
        else EXPECT_NE(made.fault.find("ConfigMap clients entry bundle.pem"), std::string::npos) << what << ": " << made.fault;
        EXPECT_LT(made.fault.size(), 2000u) << what;
    }
    EXPECT_EQ(with_bundle({{"bundle.pem", "# words\n" + good + std::string(200'000, 'x')}}).fault, "");
    // As many as an object holds, all of one name: with nothing wrong, with something wrong, and with lists that each might have signed.
    const auto key = harness::make_key("P-256");
    std::string some, expired, lists;
    for (int i = 0; i < 900; ++i) {
        some += harness::make_authority("one", nullptr, key).certificate.pem();
        expired += harness::make_authority("one", nullptr, key, {.from_s = -1000, .to_s = -10}).certificate.pem();
    }
    const auto fine = with_bundle({{"bundle.pem", some}});
    EXPECT_EQ(fine.fault, "");
    EXPECT_TRUE(fine.warnings.empty()) << fine.warnings.front();
    const auto ended = with_bundle({{"bundle.pem", expired}});
    EXPECT_EQ(ended.fault, "");
    EXPECT_LT(ended.warnings.size(), 20u);
    ASSERT_FALSE(ended.warnings.empty());
    EXPECT_NE(ended.warnings.back().find("of 890 more trusted certificates of ConfigMap clients"), std::string::npos) << ended.warnings.back();
    const Signer signer{.certificate = crypto::read_certificates(some).value().front(), .key = key};
    const auto list = harness::pem_of(harness::make_list(signer, {}));
    while (lists.size() + some.size() < 1'000'000 && lists.size() < 800 * list.size()) lists += list;
    EXPECT_NE(with_bundle({{"bundle.pem", some}, {"lists.pem", lists}}).fault.find("signatures to check"), std::string::npos);
}

}  // namespace
}  // namespace penstock
