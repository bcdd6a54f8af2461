// TLS channels against each other in memory, and certificates that are not as they should be.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <functional>

#include "base/clock.h"
#include "crypto/examination.h"
#include "crypto/native.h"
#include "crypto/trust.h"
#include "crypto/x509.h"
#include "tls/channel.h"
#include "tls/failure.h"

namespace penstock {
namespace {

constexpr std::int64_t day_ms = 86'400'000;

struct Authority {
    crypto::KeyPair pair;
    crypto::Certificate certificate;
};

Authority authority(const std::string& name, const Authority* by = nullptr, bool is_ca = true, const std::string& algorithm = "Ec256") {
    Authority out;
    out.pair.key = crypto::make_key(algorithm).value();
    out.pair.certificate = crypto::issue_certificate(out.pair.key, by != nullptr ? &by->pair : nullptr, {.subject = {{"CN", name}}, .is_ca = is_ca, .not_before_ms = wall_ms() - day_ms, .not_after_ms = wall_ms() + 100 * day_ms}).value();
    out.certificate = crypto::read_certificates(out.pair.certificate)->front();
    return out;
}

crypto::KeyPair leaf(const Authority& ca, const std::string& name, bool server, std::int64_t from = -day_ms, std::int64_t to = 50 * day_ms) {
    crypto::KeyPair out{.key = crypto::make_key("Ec256").value()};
    crypto::IssueOptions options{.subject = {{"CN", name}}, .usages = {"digital signature", server ? "server auth" : "client auth"}, .not_before_ms = wall_ms() + from, .not_after_ms = wall_ms() + to};
    if (server) options.dns_names = {"localhost"};
    out.certificate = crypto::issue_certificate(out.key, &ca.pair, options).value();
    return out;
}

/// Moves bytes between two channels until neither has anything more to say; `step` bytes at a time.
struct Pair {
    tls::Channel server, client;
    std::string server_got, client_got;
    bool server_alive = true, client_alive = true;

    Pair(const std::shared_ptr<const tls::Context>& s, const std::shared_ptr<const tls::Context>& c, const std::string& name = "localhost") : server(s, true), client(c, false, name) {}

    static bool give(tls::Channel& from, tls::Channel& to, std::string& got, bool& alive, std::size_t step) {
        const auto bytes = std::exchange(from.output(), {});
        for (std::size_t at = 0; at < bytes.size() && alive; at += step) {
            to.set_input(std::string_view(bytes).substr(at, step));
            char plain[8192];
            long size = 0;
            while ((size = to.read(plain, sizeof plain)) > 0) got.append(plain, static_cast<std::size_t>(size));
            alive = size == 0;
        }
        return !bytes.empty();
    }
    void run(std::size_t step = 100'000) {
        client_alive = client.advance();
        pump(step);
    }
    void pump(std::size_t step = 100'000) {
        for (bool moved = true; moved;) {
            moved = give(client, server, server_got, server_alive, step);
            moved |= give(server, client, client_got, client_alive, step);
        }
    }
};

std::shared_ptr<const tls::Context> server_context(const crypto::KeyPair& pair, bool ask = false, std::vector<std::string> protocols = {"mqtt"}) {
    return tls::Context::server({.certificate_chain = pair.certificate, .key = pair.key, .ask_client_certificate = ask, .protocols = std::move(protocols)}).value();
}

TEST(Tls, talks_whatever_the_pieces_are) {
    const auto root = authority("root");
    const auto pair = leaf(root, "broker", true);
    for (const std::size_t step : {1u, 7u, 1000u, 100'000u}) {
        for (const char* version : {"tlsv1.2", "tlsv1.3"}) {
            Pair two(server_context(pair), tls::Context::client({.ca = root.pair.certificate, .protocols = {"mqtt"}, .version = version}).value());
            two.run(step);
            ASSERT_TRUE(two.server.is_open() && two.client.is_open()) << step << two.client.fault() << two.server.fault();
            std::string big(300'000, 'x');
            for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 31 >> 3);
            ASSERT_TRUE(two.client.write(big));
            ASSERT_TRUE(two.server.write("to the client"));
            two.pump(step);
            EXPECT_EQ(two.server_got, big);
            EXPECT_EQ(two.client_got, "to the client");
            two.client.close();
            two.pump(step);
            EXPECT_FALSE(two.server_alive);
            EXPECT_EQ(two.server.fault(), "") << "a close is no fault";
        }
    }
}

TEST(Tls, a_resumed_session_still_shows_the_whole_chain) {
    const auto root = authority("root");
    const auto middle = authority("middle", &root);
    auto client = leaf(middle, "fan-01", false);
    client.certificate += middle.pair.certificate;
    const auto context = server_context(leaf(root, "broker", true), true);
    const auto client_context = tls::Context::client({.ca = root.pair.certificate, .certificate_chain = client.certificate, .key = client.key}).value();
    Pair first(context, client_context);
    first.run();
    ASSERT_TRUE(first.server.is_open());
    ASSERT_EQ(first.server.peer_chain().size(), 2u);
    const crypto::TrustStore trust({root.certificate}, {});
    EXPECT_EQ(trust.verify(first.server.peer_chain(), crypto::Purpose::client, wall_ms()).fault, "");
    // The ticket came with the last flight; a client that keeps it resumes.
    auto* session = SSL_get1_session(first.client.native());
    Pair second(context, client_context);
    SSL_set_session(second.client.native(), session);
    second.run();
    SSL_SESSION_free(session);
    ASSERT_TRUE(second.server.is_open());
    EXPECT_TRUE(second.server.is_resumed());
    ASSERT_EQ(second.server.peer_chain().size(), 2u) << "without the intermediate the client could not be judged again";
    EXPECT_EQ(second.server.peer_chain()[0].subject(), "CN = fan-01");
    EXPECT_EQ(trust.verify(second.server.peer_chain(), crypto::Purpose::client, wall_ms()).fault, "");
}

TEST(Tls, refuses_what_is_no_tls_and_other_protocols) {
    const auto root = authority("root");
    const auto context = server_context(leaf(root, "broker", true));
    for (const std::string& bytes : {std::string("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", 14), std::string("GET / HTTP/1.1\r\n\r\n"), std::string(5000, '\0'), std::string("\x16\x03\x01\x40\x00", 5) + std::string(17'000, 'z')}) {
        tls::Channel channel(context, true);
        channel.set_input(bytes);
        char plain[100];
        long got = 0;
        while ((got = channel.read(plain, sizeof plain)) > 0) {}
        EXPECT_EQ(got, -1);
        EXPECT_NE(channel.fault(), "");
        EXPECT_LT(channel.output().size(), 100u) << "an alert at most";
    }
    Pair wrong(context, tls::Context::client({.ca = root.pair.certificate, .protocols = {"h2"}}).value());
    wrong.run();
    EXPECT_FALSE(wrong.server_alive);
    Pair old(context, tls::Context::client({.ca = root.pair.certificate}).value(), "elsewhere.example");
    old.run();
    EXPECT_FALSE(old.client_alive);
    EXPECT_NE(old.client.fault().find("ostname mismatch"), std::string::npos) << old.client.fault();
}

// A row for each thing that a client does wrong: what is said of it, with OpenSSL's words behind.
TEST(Tls, failures_are_told_with_what_to_do) {
    const auto root = authority("root"), stranger = authority("stranger");
    const auto context = server_context(leaf(root, "broker", true));
    auto told = [&](const std::shared_ptr<const tls::Context>& client, const char* name = "localhost",
                    const std::function<void(SSL*)>& change = {}) {
        Pair two(context, client, name);
        if (change) change(two.client.native());
        two.run();
        EXPECT_NE(two.server.fault(), "");
        const auto out = tls::explained(two.server.fault(), "\x16\x03\x01");
        EXPECT_TRUE(out.ends_with(" (" + two.server.fault() + ")")) << out;
        return out;
    };
    auto client = [&](const Authority& trusted) {
        return tls::Context::client({.ca = trusted.pair.certificate}).value();
    };
    EXPECT_TRUE(told(client(stranger)).contains("does not trust the CA of this port's certificate; give it that CA"));
    EXPECT_TRUE(told(client(root), "elsewhere.example").contains("name or address that it dials is not in it"));
    EXPECT_TRUE(told(client(root), "localhost", [](SSL* ssl) {
                    SSL_set_cipher_list(ssl, "AES128-SHA:@SECLEVEL=0");
                    SSL_ctrl(ssl, SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_2_VERSION, nullptr);
                }).contains("no cipher, curve or kind of key in common"));
    EXPECT_TRUE(told(client(root), "localhost", [](SSL* ssl) {
                    SSL_set_cipher_list(ssl, "ALL:@SECLEVEL=0");
                    SSL_ctrl(ssl, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_VERSION, nullptr);
                    SSL_ctrl(ssl, SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_1_VERSION, nullptr);
                }).contains("no version of TLS in common"));
    EXPECT_TRUE(told(tls::Context::client({.ca = root.pair.certificate, .protocols = {"h2"}}).value())
                    .contains("have it ask for mqtt or for none"));
    struct Plain {
        std::string bytes;
        const char* says;
    };
    for (const auto& [bytes, says] :
         {Plain{std::string("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", 14), "on a TLS port, what came looks like MQTT; "},
          Plain{"GET / HTTP/1.1\r\n\r\n", "on a TLS port, what came looks like HTTP; "},
          Plain{"EHLO mail.example\r\n", "on a TLS port; switch TLS on in the client"}}) {
        tls::Channel channel(context, true);
        channel.set_input(bytes);
        char plain[100];
        EXPECT_EQ(channel.read(plain, sizeof plain), -1);
        const auto out = tls::explained(channel.fault(), bytes);
        EXPECT_TRUE(out.contains(says)) << out;
        EXPECT_TRUE(out.ends_with(" (" + channel.fault() + ")")) << out;
    }
    EXPECT_EQ(tls::explained("something new", ""), "something new");
    EXPECT_EQ(tls::explained("", ""), "");
}

TEST(Tls, a_context_says_what_is_wrong_with_its_certificate) {
    const auto root = authority("root");
    const auto pair = leaf(root, "broker", true), other = leaf(root, "other", true);
    auto why = [](const std::string& chain, const std::string& key) { return tls::Context::server({.certificate_chain = chain, .key = key}).error().message; };
    EXPECT_NE(why(pair.certificate, other.key).find("is not that of the first certificate (\"CN = broker\")"), std::string::npos);
    EXPECT_NE(why("", pair.key).find("no certificate"), std::string::npos);
    EXPECT_NE(why(pair.certificate.substr(0, 200), pair.key).find("END line is missing"), std::string::npos);
    EXPECT_NE(why(pair.certificate, "nonsense").find("private key cannot be read"), std::string::npos);
    auto damaged = pair.certificate;
    damaged[100] = damaged[100] == 'A' ? 'B' : 'A';
    damaged.replace(200, 4, "!!!!");
    EXPECT_NE(why(damaged, pair.key).find("certificate 1 cannot be read"), std::string::npos);
    for (const auto& message : {why(pair.certificate, other.key), why("", pair.key)}) EXPECT_EQ(message.find("PRIVATE"), std::string::npos);
}

TEST(Tls, a_client_cannot_send_certificates_without_end) {
    const auto root = authority("root");
    auto client = leaf(root, "fan-01", false);
    for (int i = 0; i < 100; ++i) client.certificate += root.pair.certificate;
    Pair two(server_context(leaf(root, "broker", true), true), tls::Context::client({.ca = root.pair.certificate, .certificate_chain = client.certificate, .key = client.key}).value());
    two.run();
    EXPECT_FALSE(two.server_alive);
    EXPECT_NE(two.server.fault().find("excessive message size"), std::string::npos) << two.server.fault();
}

// The client's key decides how long the worker computes; OpenSSL itself takes 16,384 bits.
TEST(Tls, a_client_key_of_unusual_size_is_not_looked_at) {
    const auto root = authority("root");
    // Five primes are found sooner than two large ones.
    const std::unique_ptr<EVP_PKEY_CTX, crypto::Freer<EVP_PKEY_CTX_free>> maker(EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr));
    EVP_PKEY* made = nullptr;
    ASSERT_EQ(EVP_PKEY_keygen_init(maker.get()), 1);
    ASSERT_EQ(EVP_PKEY_CTX_set_rsa_keygen_bits(maker.get(), 8200), 1);
    ASSERT_EQ(EVP_PKEY_CTX_set_rsa_keygen_primes(maker.get(), 5), 1);
    ASSERT_EQ(EVP_PKEY_generate(maker.get(), &made), 1);
    const std::unique_ptr<EVP_PKEY, crypto::Freer<EVP_PKEY_free>> key(made);
    const std::unique_ptr<BIO, crypto::Freer<BIO_free_all>> text(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey(text.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    char* at = nullptr;
    const auto size = BIO_get_mem_data(text.get(), &at);
    crypto::KeyPair client{.key = std::string(at, static_cast<std::size_t>(size))};
    client.certificate = crypto::issue_certificate(client.key, &root.pair, {.subject = {{"CN", "slow"}}, .usages = {"digital signature", "client auth"}, .not_before_ms = wall_ms() - day_ms, .not_after_ms = wall_ms() + day_ms}).value();
    Pair two(server_context(leaf(root, "broker", true), true), tls::Context::client({.ca = root.pair.certificate, .certificate_chain = client.certificate, .key = client.key}).value());
    two.run();
    EXPECT_FALSE(two.server_alive);
    EXPECT_NE(two.server.fault().find("certificate"), std::string::npos) << two.server.fault();
}

// --- chains ---

TEST(Chain, every_kind_of_bad_certificate_has_its_own_words) {
    const auto root = authority("root"), stranger = authority("stranger");
    const auto middle = authority("middle", &root), no_ca = authority("no CA", &root, false);
    const crypto::TrustStore trust({root.certificate}, {});
    auto certificates = [](const std::string& text) { return crypto::read_certificates(text).value(); };
    auto fault = [&](const std::string& text, crypto::Purpose purpose = crypto::Purpose::client) { return trust.verify(certificates(text), purpose, wall_ms()).fault; };
    EXPECT_EQ(fault(leaf(root, "fan", false).certificate), "");
    EXPECT_EQ(fault(leaf(middle, "fan", false).certificate + middle.pair.certificate), "");
    EXPECT_NE(fault(leaf(middle, "fan", false).certificate).find("issued by \"CN = middle\", which is neither trusted here nor among the certificates sent"), std::string::npos);
    EXPECT_NE(fault(leaf(root, "fan", false, -10 * day_ms, -day_ms).certificate).find("\"CN = fan\" has expired"), std::string::npos);
    EXPECT_NE(fault(leaf(root, "fan", false, day_ms, 2 * day_ms).certificate).find("is not valid before"), std::string::npos);
    EXPECT_NE(fault(leaf(root, "fan", true).certificate).find("not made for this purpose"), std::string::npos);
    EXPECT_NE(fault(leaf(stranger, "fan", false).certificate + stranger.pair.certificate).find("is not trusted here"), std::string::npos);
    EXPECT_NE(fault(stranger.pair.certificate).find("self-signed"), std::string::npos);
    // An intermediate without CA:TRUE, as the appendix' commands make it. issue_certificate refuses to; so by hand.
    {
        const auto key = crypto::read_private_key(crypto::make_key("Ec256").value());
        const auto signer = crypto::read_private_key(no_ca.pair.key);
        const crypto::X509Pointer bad(X509_new());
        X509_set_version(bad.get(), 2);
        ASN1_INTEGER_set(X509_get_serialNumber(bad.get()), 7);
        X509_gmtime_adj(X509_getm_notBefore(bad.get()), -60);
        X509_gmtime_adj(X509_getm_notAfter(bad.get()), 3600);
        X509_set_issuer_name(bad.get(), X509_get_subject_name(no_ca.certificate.native()));
        X509_set_pubkey(bad.get(), key.get());
        X509_sign(bad.get(), signer.get(), EVP_sha256());
        const auto text = fault(crypto::Certificate::share(bad.get()).pem() + no_ca.pair.certificate);
        EXPECT_NE(text.find("\"CN = no CA\" signs others without being a CA"), std::string::npos) << text;
        const auto findings = crypto::examine_chain(certificates(crypto::Certificate::share(bad.get()).pem() + no_ca.pair.certificate), crypto::Purpose::server, wall_ms());
        EXPECT_TRUE(std::ranges::any_of(findings, [](const auto& f) { return f.is_fault() && f.message.find("basicConstraints=critical,CA:TRUE") != std::string::npos; }));
        EXPECT_TRUE(std::ranges::any_of(findings, [](const auto& f) { return f.is_fault() && f.message.find("no subjectAltName") != std::string::npos; }));
    }
    EXPECT_FALSE(crypto::issue_certificate(crypto::make_key("Ec256").value(), &no_ca.pair, {.subject = {{"CN", "x"}}, .not_before_ms = wall_ms(), .not_after_ms = wall_ms() + day_ms}));
    // A weak key: 1024 bits.
    {
        const crypto::Key weak(EVP_RSA_gen(1024));
        const auto signer = crypto::read_private_key(root.pair.key);
        const crypto::X509Pointer bad(X509_new());
        X509_set_version(bad.get(), 2);
        X509_gmtime_adj(X509_getm_notBefore(bad.get()), -60);
        X509_gmtime_adj(X509_getm_notAfter(bad.get()), 3600);
        X509_set_issuer_name(bad.get(), X509_get_subject_name(root.certificate.native()));
        X509_set_pubkey(bad.get(), weak.get());
        X509_sign(bad.get(), signer.get(), EVP_sha256());
        EXPECT_NE(fault(crypto::Certificate::share(bad.get()).pem()).find("weak key (RSA 1024"), std::string::npos) << fault(crypto::Certificate::share(bad.get()).pem());
    }
    // A chain that is long and leads nowhere is only looked at so far.
    std::string endless = leaf(middle, "fan", false).certificate;
    for (int i = 0; i < 200; ++i) endless += stranger.pair.certificate;
    EXPECT_NE(fault(endless), "");
}

TEST(Chain, revocation_lists_count_and_old_ones_still_name) {
    const auto root = authority("root");
    const auto good = leaf(root, "good", false), bad = leaf(root, "bad", false);
    const auto bad_certificate = crypto::read_certificates(bad.certificate)->front();
    auto list = [&](long next_update_s) {
        auto* crl = X509_CRL_new();
        X509_CRL_set_version(crl, 1);
        X509_CRL_set_issuer_name(crl, X509_get_subject_name(root.certificate.native()));
        auto* time = ASN1_TIME_new();
        X509_gmtime_adj(time, -7200);
        X509_CRL_set1_lastUpdate(crl, time);
        X509_gmtime_adj(time, next_update_s);
        X509_CRL_set1_nextUpdate(crl, time);
        auto* revoked = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(revoked, X509_get_serialNumber(bad_certificate.native()));
        X509_gmtime_adj(time, -3600);
        X509_REVOKED_set_revocationDate(revoked, time);
        X509_CRL_add0_revoked(crl, revoked);
        const auto key = crypto::read_private_key(root.pair.key);
        X509_CRL_sign(crl, key.get(), EVP_sha256());
        ASN1_TIME_free(time);
        return crypto::RevocationList(crl);
    };
    for (const long next : {3600L, -60L}) {
        const crypto::TrustStore trust({root.certificate}, {list(next)});
        EXPECT_EQ(trust.verify(crypto::read_certificates(good.certificate).value(), crypto::Purpose::client, wall_ms()).fault, "");
        EXPECT_NE(trust.verify({bad_certificate}, crypto::Purpose::client, wall_ms()).fault.find("\"CN = bad\" is revoked"), std::string::npos);
    }
    // As a ConfigMap holds them: in PEM, among certificates, several.
    auto pem = [](const crypto::RevocationList& one) {
        const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
        PEM_write_bio_X509_CRL(bio.get(), one.native());
        char* data = nullptr;
        const auto size = BIO_ctrl(bio.get(), BIO_CTRL_INFO, 0, static_cast<void*>(&data));
        return std::string(data, static_cast<std::size_t>(size));
    };
    const auto text = root.pair.certificate + pem(list(3600)) + good.certificate + pem(list(7200));
    const auto read = crypto::read_revocation_lists(text);
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(read->size(), 2u);
    EXPECT_GT(read->at(1).next_update_ms(), read->at(0).next_update_ms());
    EXPECT_EQ(crypto::read_revocation_lists(text.substr(0, text.size() - 60)).error().message, "revocation list 2 cannot be read");
}

TEST(Names, subjects_compare_part_by_part) {
    const auto root = authority("root");
    const auto key = crypto::make_key("Ec256").value();
    auto named = [&](std::vector<std::pair<std::string, std::string>> subject) {
        return crypto::read_certificates(crypto::issue_certificate(key, &root.pair, {.subject = std::move(subject), .not_before_ms = wall_ms(), .not_after_ms = wall_ms() + day_ms}).value())->front();
    };
    const auto line = named({{"CN", "Line 7 Issuing CA"}, {"O", "Fabrikam, Inc."}});
    EXPECT_EQ(line.subject(), "CN = Line 7 Issuing CA, O = \"Fabrikam, Inc.\"");
    EXPECT_TRUE(crypto::same_subject("CN = Line 7 Issuing CA, O = \"Fabrikam, Inc.\"", line));
    EXPECT_TRUE(crypto::same_subject("CN=Line 7 Issuing CA,O=\"Fabrikam, Inc.\"", line));
    EXPECT_FALSE(crypto::same_subject("O = \"Fabrikam, Inc.\", CN = Line 7 Issuing CA", line)) << "order counts";
    EXPECT_FALSE(crypto::same_subject("CN = Line 7 Issuing CA", line));
    EXPECT_FALSE(crypto::same_subject("CN = line 7 issuing ca, O = \"Fabrikam, Inc.\"", line));
    EXPECT_FALSE(crypto::same_subject("CN = Line  7 Issuing CA, O = \"Fabrikam, Inc.\"", line));
    // A value cannot pretend to be two parts.
    const auto sly = named({{"CN", "fan, O = Fabrikam"}});
    EXPECT_FALSE(crypto::same_subject("CN = fan, O = Fabrikam", sly)) << sly.subject();
    const auto sly2 = named({{"CN", "fan\", O = \"Fabrikam"}});
    EXPECT_FALSE(crypto::same_subject("CN = \"fan\", O = \"Fabrikam\"", sly2)) << sly2.subject();
    const auto umlaut = named({{"CN", "Pumpe Süd"}});
    EXPECT_TRUE(crypto::same_subject("CN = Pumpe Süd", umlaut));
    EXPECT_TRUE(crypto::same_subject("CN = Pumpe S\\C3\\BCd", umlaut)) << "as openssl prints it";
}

}  // namespace
}  // namespace penstock
