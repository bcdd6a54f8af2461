// Paths to a trusted certificate where there are several, and revocation lists where several are about one name.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "auth/methods.h"
#include "base/given_clock.h"
#include "base/text.h"
#include "control/security.h"
#include "crypto/trust.h"
#include "harness/x509_maker.h"
#include "tls/channel.h"

namespace penstock {
namespace {

using crypto::Certificate;
using crypto::Purpose;
using crypto::TrustStore;
using harness::CertificateOptions;
using harness::make_authority;
using harness::make_key;
using harness::make_list;
using harness::Signer;
using resources::Json;

constexpr const char* space = "azure-iot-operations";

Certificate client_of(const Signer& issuer, const std::string& name = "fan", CertificateOptions o = {}) {
    o.subject = {{"CN", name}};
    o.issuer = &issuer;
    o.basic = "critical,CA:FALSE";
    o.key_usage = "critical,digitalSignature";
    o.extended_usage = "clientAuth";
    return harness::make_certificate(make_key("P-256"), o);
}

std::string fault(const TrustStore& trust, const std::vector<Certificate>& chain) { return trust.verify(chain, Purpose::client, wall_ms()).fault; }

/// Whether a chain is good must not depend on the order in which a client sends what helps.
void expect_good_in_any_order(const TrustStore& trust, const Certificate& leaf, std::vector<Certificate> helping, const char* what) {
    std::ranges::sort(helping, {}, &Certificate::fingerprint);
    do {
        std::vector<Certificate> chain{leaf};
        chain.insert(chain.end(), helping.begin(), helping.end());
        ASSERT_EQ(fault(trust, chain), "") << what;
    } while (std::ranges::next_permutation(helping, {}, &Certificate::fingerprint).found);
}

// --- paths (RFC 4158) ---

TEST(Path, an_expired_intermediate_beside_its_renewal) {
    const auto root = make_authority("root");
    const auto old = make_authority("middle", &root, make_key("P-256"), {.from_s = -2000, .to_s = -10});
    const auto renewed = make_authority("middle", &root, old.key);
    const TrustStore trust({root.certificate}, {});
    expect_good_in_any_order(trust, client_of(old), {old.certificate, renewed.certificate}, "the same key");
    expect_good_in_any_order(trust, client_of(old), {old.certificate, renewed.certificate, root.certificate}, "with the root");
    EXPECT_NE(fault(trust, {client_of(old), old.certificate}).find("\"CN = middle\" has expired"), std::string::npos);
    // The expired one is trusted itself, the renewed one comes along.
    const TrustStore both({old.certificate, root.certificate}, {});
    expect_good_in_any_order(both, client_of(old), {renewed.certificate}, "trusted, but expired");
}

TEST(Path, one_name_with_two_keys_and_no_key_identifiers) {
    const auto root = make_authority("root");
    CertificateOptions bare{.subject_key_id = false, .authority_key_id = false};
    const auto one = make_authority("middle", &root, make_key("P-256"), bare), two = make_authority("middle", &root, make_key("P-256"), bare);
    const TrustStore trust({root.certificate}, {});
    for (const auto* by : {&one, &two}) expect_good_in_any_order(trust, client_of(*by, "fan", bare), {one.certificate, two.certificate}, "two keys");
    // Nine others of that name stand before the right one, and all of them are trusted.
    std::vector<Certificate> trusted;
    for (int i = 0; i < 9; ++i) trusted.push_back(make_authority("CA", nullptr, make_key("P-256"), bare).certificate);
    const auto right = make_authority("CA", nullptr, make_key("P-256"), bare);
    trusted.push_back(right.certificate);
    EXPECT_EQ(fault(TrustStore(trusted, {}), {client_of(right, "fan", bare)}), "");
    EXPECT_NE(fault(TrustStore({trusted.begin(), trusted.end() - 1}, {}), {client_of(right, "fan", bare)}), "");
}

TEST(Path, cross_signed_authorities_lead_to_whichever_root_is_trusted) {
    const auto old_root = make_authority("old root"), new_root = make_authority("new root");
    const auto middle_key = make_key("P-256");
    const auto by_old = make_authority("middle", &old_root, middle_key), by_new = make_authority("middle", &new_root, middle_key);
    // The new root, signed by the old one.
    const auto bridge = make_authority("new root", &old_root, new_root.key);
    const auto leaf = client_of(by_old);
    for (const auto* anchor : {&old_root, &new_root}) {
        const TrustStore trust({anchor->certificate}, {});
        expect_good_in_any_order(trust, leaf, {by_old.certificate, by_new.certificate}, "two certificates of one intermediate");
        expect_good_in_any_order(trust, leaf, {by_new.certificate, bridge.certificate}, "over the bridge");
        expect_good_in_any_order(trust, leaf, {by_old.certificate, by_new.certificate, bridge.certificate, old_root.certificate, new_root.certificate}, "everything");
    }
    // One of the paths is bad: an expired bridge, a root that has expired, a path that is too long.
    const auto ended = make_authority("new root", &old_root, new_root.key, {.from_s = -2000, .to_s = -10});
    expect_good_in_any_order(TrustStore({old_root.certificate}, {}), leaf, {by_new.certificate, ended.certificate, by_old.certificate}, "an expired bridge");
    const auto gone = make_authority("new root", nullptr, new_root.key, {.from_s = -2000, .to_s = -10});
    expect_good_in_any_order(TrustStore({gone.certificate, old_root.certificate}, {}), leaf, {by_new.certificate, by_old.certificate}, "an expired root beside a good one");
    const auto narrow = make_authority("narrow", nullptr, make_key("P-256"), {.basic = "critical,CA:TRUE,pathlen:0"});
    const auto upper_key = make_key("P-256");
    const auto too_long = make_authority("upper", &narrow, upper_key), fits = make_authority("upper", &old_root, upper_key);
    const auto below = make_authority("below", &fits);
    expect_good_in_any_order(TrustStore({narrow.certificate, old_root.certificate}, {}), client_of(below), {below.certificate, too_long.certificate, fits.certificate}, "a path length on one side");
    const auto for_servers = make_authority("middle", &old_root, middle_key, {.extended_usage = "serverAuth"});
    expect_good_in_any_order(TrustStore({old_root.certificate}, {}), leaf, {for_servers.certificate, by_old.certificate}, "another purpose on one side");
}

TEST(Path, a_weak_certificate_of_an_authority_beside_a_good_one) {
    const auto root = make_authority("root");
    const auto key = make_key("P-256");
    const auto sha1 = make_authority("middle", &root, key, {.digest = "SHA1"}), good = make_authority("middle", &root, key);
    expect_good_in_any_order(TrustStore({root.certificate}, {}), client_of(good), {sha1.certificate, good.certificate}, "SHA-1 on one side");
    const auto no_ca = make_authority("middle", &root, key, {.basic = "critical,CA:FALSE"});
    expect_good_in_any_order(TrustStore({root.certificate}, {}), client_of(good), {no_ca.certificate, good.certificate}, "no CA on one side");
}

TEST(Path, what_does_not_belong_there_does_no_harm) {
    const auto root = make_authority("root"), stranger = make_authority("stranger");
    const auto middle = make_authority("middle", &root), other = make_authority("other", &stranger);
    const TrustStore trust({root.certificate}, {});
    expect_good_in_any_order(trust, client_of(middle), {other.certificate, stranger.certificate, middle.certificate, root.certificate}, "strangers");
    const auto leaf = client_of(middle);
    EXPECT_EQ(fault(trust, {leaf, leaf, middle.certificate, middle.certificate, leaf}), "") << "twice the same";
}

TEST(Path, a_revoked_certificate_on_one_path_leaves_the_other) {
    const auto old_root = make_authority("old root"), new_root = make_authority("new root");
    const auto key = make_key("P-256");
    const auto by_old = make_authority("middle", &old_root, key), by_new = make_authority("middle", &new_root, key);
    const auto leaf = client_of(by_old);
    const TrustStore trust({old_root.certificate, new_root.certificate}, {make_list(old_root, {.revoked = {by_old.certificate}})});
    expect_good_in_any_order(trust, leaf, {by_old.certificate, by_new.certificate}, "revoked by the old root alone");
    EXPECT_NE(fault(trust, {leaf, by_old.certificate}).find("\"CN = middle\" is revoked"), std::string::npos);
    const TrustStore neither({old_root.certificate, new_root.certificate}, {make_list(old_root, {.revoked = {by_old.certificate}}), make_list(new_root, {.revoked = {by_new.certificate}})});
    EXPECT_NE(fault(neither, {leaf, by_old.certificate, by_new.certificate}).find("is revoked"), std::string::npos);
    EXPECT_NE(fault(neither, {leaf, by_old.certificate, by_new.certificate}).find("none of the 2 paths"), std::string::npos) << fault(neither, {leaf, by_old.certificate, by_new.certificate});
}

// --- paths, and what responders say (OCSP, RFC 6960) ---

/// A responder that has a word on single certificates; of paths that nobody has asked about it answers when the test lets it.
struct Responder final : auth::X509Method::Revocation {
    std::map<std::string, Known> words;  ///< by fingerprint
    bool is_late = false;
    std::vector<std::pair<std::vector<Certificate>, Done>> asked;
    std::vector<std::size_t> lengths;

    [[nodiscard]] Known of(const std::vector<Certificate>& path) const {
        for (std::size_t i = 0; i + 1 < path.size(); ++i)
            if (const auto found = words.find(path[i].fingerprint()); found != words.end() && !found->second.fault.empty()) return found->second;
        return {.fault = {}, .until_ms = wall_ms() + 3'600'000};
    }
    std::optional<Known> look(const std::vector<Certificate>& path, const std::function<Done()>& later) override {
        lengths.push_back(path.size());
        if (!is_late) return of(path);
        asked.emplace_back(path, later());
        return std::nullopt;
    }
    void refuse(const Certificate& one, bool is_revoked = true) { words[one.fingerprint()] = {.fault = "no to " + one.fingerprint(), .is_revoked = is_revoked, .until_ms = wall_ms() + 3'600'000}; }
};

/// An intermediate with a certificate of each of two roots, and a client of it.
struct TwoPaths {
    Signer old_root = make_authority("old root"), new_root = make_authority("new root");
    harness::SharedKey key = make_key("P-256");
    Signer by_old = make_authority("middle", &old_root, key), by_new = make_authority("middle", &new_root, key);
    Certificate leaf = client_of(by_old);
    std::shared_ptr<Responder> responder = std::make_shared<Responder>();
    int answers = 0;
    auth::Step answer;

    TwoPaths() = default;
    TwoPaths(const TwoPaths&) = delete;
    TwoPaths& operator=(const TwoPaths&) = delete;
    ~TwoPaths() { responder->asked.clear(); }   // what it was asked holds the rules, which hold the responder

    auth::X509Method method(std::vector<crypto::RevocationList> lists = {}) const {
        return {std::make_shared<const TrustStore>(std::vector{old_root.certificate, new_root.certificate}, std::move(lists)), {}, "here", responder};
    }
    auth::Step check(auth::X509Method& method, bool is_turned = false) {
        std::vector<Certificate> chain{leaf, by_old.certificate, by_new.certificate};
        if (is_turned) std::swap(chain[1], chain[2]);
        return method.check({.client_id = "c", .chain = chain, .now_ms = wall_ms()}, [this]() -> auth::Resume { return [this](auth::Step step) { ++answers, answer = std::move(step); }; });
    }
};

TEST(Path, an_intermediate_that_a_responder_calls_revoked_leaves_the_other_path) {
    for (const bool is_revoked : {true, false})
        for (const bool is_turned : {true, false})
            for (const bool is_old : {true, false}) {
                TwoPaths world;
                auto method = world.method();
                world.responder->refuse((is_old ? world.by_old : world.by_new).certificate, is_revoked);
                const auto step = world.check(method, is_turned);
                EXPECT_EQ(step.verdict.kind, auth::Verdict::Kind::accept) << (is_revoked ? "revoked" : "HardFail, and nobody knows") << step.verdict.reason_string;
                world.responder->refuse((is_old ? world.by_new : world.by_old).certificate, is_revoked);
                const auto neither = world.check(method, is_turned);
                EXPECT_EQ(neither.verdict.kind, auth::Verdict::Kind::refuse);
                EXPECT_NE(neither.verdict.reason_string.find("none of the 2 paths"), std::string::npos) << neither.verdict.reason_string;
            }
}

TEST(Path, a_list_on_one_path_and_a_responder_on_the_other_leave_none) {
    TwoPaths world;
    auto method = world.method({make_list(world.old_root, {.revoked = {world.by_old.certificate}})});
    EXPECT_EQ(world.check(method).verdict.kind, auth::Verdict::Kind::accept);
    world.responder->refuse(world.by_new.certificate);
    EXPECT_EQ(world.check(method).verdict.kind, auth::Verdict::Kind::refuse);
    world.responder->words.clear();
    world.responder->refuse(world.leaf);
    EXPECT_EQ(world.check(method).verdict.kind, auth::Verdict::Kind::refuse) << "the client's own certificate is on each path";
}

TEST(Path, answers_that_come_later_lead_on_to_the_other_path) {
    for (const bool is_other_good : {true, false}) {
        TwoPaths world;
        world.responder->is_late = true;
        auto method = world.method();
        EXPECT_EQ(world.check(method).kind, auth::Step::Kind::wait);
        ASSERT_EQ(world.responder->asked.size(), 1u);
        const auto first = world.responder->asked[0];
        world.responder->refuse(first.first.at(1));
        first.second(world.responder->of(first.first));
        ASSERT_EQ(world.responder->asked.size(), 2u) << "another path is asked about";
        EXPECT_EQ(world.answers, 0);
        const auto second = world.responder->asked[1];
        EXPECT_NE(second.first.at(1).fingerprint(), first.first.at(1).fingerprint());
        if (!is_other_good) world.responder->refuse(second.first.at(1));
        second.second(world.responder->of(second.first));
        EXPECT_EQ(world.answers, 1);
        EXPECT_EQ(world.answer.verdict.kind, is_other_good ? auth::Verdict::Kind::accept : auth::Verdict::Kind::refuse);
    }
}

TEST(Path, who_is_connected_stays_as_long_as_one_path_is_good) {
    TwoPaths world;
    auto method = world.method();
    const std::vector<Certificate> chain{world.leaf, world.by_old.certificate, world.by_new.certificate};
    auto principal = world.check(method).verdict.principal;
    world.responder->refuse(world.by_old.certificate);
    EXPECT_EQ(method.review(principal, chain, wall_ms()), "");
    EXPECT_GT(principal.review_at, wall_ms());
    world.responder->refuse(world.by_new.certificate);
    EXPECT_NE(method.review(principal, chain, wall_ms()), "");
}

// As a list does: a trusted intermediate may be revoked by its own issuer, where that is trusted too.
TEST(Path, a_trusted_intermediate_is_asked_about_where_its_issuer_is_known) {
    const auto root = make_authority("root");
    const auto middle = make_authority("middle", &root);
    const auto responder = std::make_shared<Responder>();
    auth::X509Method both(std::make_shared<const TrustStore>(std::vector{middle.certificate, root.certificate}, std::vector<crypto::RevocationList>{}), {}, "here", responder);
    auth::X509Method pinned(std::make_shared<const TrustStore>(std::vector{middle.certificate}, std::vector<crypto::RevocationList>{}), {}, "here", responder);
    const auth::Credentials credentials{.client_id = "c", .chain = {client_of(middle)}, .now_ms = wall_ms()};
    const auto nobody = []() -> auth::Resume { return {}; };
    EXPECT_EQ(both.check(credentials, nobody).verdict.kind, auth::Verdict::Kind::accept);
    EXPECT_EQ(responder->lengths.back(), 3u);
    responder->refuse(middle.certificate);
    EXPECT_EQ(both.check(credentials, nobody).verdict.kind, auth::Verdict::Kind::refuse);
    EXPECT_EQ(pinned.check(credentials, nobody).verdict.kind, auth::Verdict::Kind::accept) << "nobody can be asked";
}

// A CA that was renewed with its key: of its certificates the one that is in force vouches for what a responder answers, wherever it stands.
TEST(Path, of_several_issuers_of_the_anchor_the_one_in_force_is_asked) {
    const auto high = make_authority("high");
    const auto key = make_key("P-256");
    const auto expired = make_authority("root", &high, key, {.from_s = -2000, .to_s = -10}), early = make_authority("root", &high, key, {.from_s = 1000}),
               mute = make_authority("root", &high, key, {.key_usage = "critical,cRLSign"}), good = make_authority("root", nullptr, key), stranger = make_authority("root");
    const auto middle = make_authority("middle", &good);
    std::vector<Certificate> trusted{expired.certificate, early.certificate, mute.certificate, stranger.certificate, good.certificate, middle.certificate};
    std::ranges::sort(trusted, {}, &Certificate::fingerprint);
    do {
        const TrustStore trust(trusted, {});
        const auto path = trust.with_issuer_of_anchor({client_of(middle), middle.certificate}, wall_ms());
        ASSERT_EQ(path.size(), 3u);
        ASSERT_EQ(path.back().fingerprint(), good.certificate.fingerprint());
    } while (std::ranges::next_permutation(trusted, {}, &Certificate::fingerprint).found);
    // Where none is in force one that was is better than nobody: the responder's own signature says what is so.
    EXPECT_EQ(TrustStore({expired.certificate, stranger.certificate}, {}).with_issuer_of_anchor({middle.certificate}, wall_ms()).size(), 2u);
    EXPECT_EQ(TrustStore({stranger.certificate}, {}).with_issuer_of_anchor({middle.certificate}, wall_ms()).size(), 1u);
}

// A peer chooses what it sends: what cannot lead anywhere must end, and a bad path never becomes a good one.
TEST(Path, the_search_is_bounded) {
    const auto root = make_authority("root");
    // Each signs each other: a mesh without end.
    std::vector<Signer> mesh;
    for (int i = 0; i < 7; ++i) mesh.push_back({.certificate = {}, .key = make_key("P-256")});
    for (int i = 0; i < 7; ++i) mesh[static_cast<std::size_t>(i)] = make_authority("m" + std::to_string(i), nullptr, mesh[static_cast<std::size_t>(i)].key);
    std::vector<Certificate> chain{client_of(mesh[0])};
    for (std::size_t i = 0; i < 7; ++i)
        for (std::size_t k = 0; k < 7; ++k)
            if (i != k) chain.push_back(make_authority("m" + std::to_string(i), &mesh[k], mesh[i].key).certificate);
    EXPECT_NE(fault(TrustStore({root.certificate}, {}), chain), "");
    std::vector<Certificate> same{client_of(mesh[0], "fan", {.authority_key_id = false})};
    for (int i = 0; i < 200; ++i) same.push_back(make_authority("m0", &root, make_key("P-256"), {.subject_key_id = false}).certificate);
    EXPECT_NE(fault(TrustStore({root.certificate}, {}), same), "");
    EXPECT_NE(fault(TrustStore({}, {}), {client_of(root)}), "") << "nothing is trusted";
}

/// Whether a client with this trust completes a handshake with a server that sends this chain.
bool is_taken(const std::vector<Certificate>& chain, const harness::SharedKey& key, const std::vector<Certificate>& trusted, const std::string& name = "localhost") {
    std::string sent, ca;
    for (const auto& one : chain) sent += one.pem();
    for (const auto& one : trusted) ca += one.pem();
    const auto server_context = tls::Context::server({.certificate_chain = sent, .key = harness::key_pem(key.get())});
    const auto client_context = tls::Context::client({.ca = ca});
    EXPECT_TRUE(server_context && client_context);
    tls::Channel server(*server_context, true), client(*client_context, false, name);
    client.advance();
    char plain[4096];
    for (int flight = 0; flight < 8; ++flight)
        for (auto* from : {&client, &server}) {
            auto& to = from == &client ? server : client;
            const auto bytes = std::exchange(from->output(), {});
            to.set_input(bytes);
            if (to.read(plain, sizeof plain) < 0) return false;
        }
    return server.is_open() && client.is_open();
}

// What is true of clients' certificates is true of servers': of brokers, custom servers, responders and the API.
TEST(Path, clients_of_tls_find_the_good_path_too) {
    const auto root = make_authority("root");
    const CertificateOptions bare{.subject_key_id = false, .authority_key_id = false};
    const auto wrong = make_authority("middle", &root, make_key("P-256"), bare), right = make_authority("middle", &root, make_key("P-256"), bare);
    const auto key = make_key("P-256");
    auto options = bare;
    options.subject = {{"CN", "broker"}};
    options.issuer = &right;
    options.key_usage = "critical,digitalSignature";
    options.extended_usage = "serverAuth";
    options.alternative_names = "DNS:localhost";
    const auto leaf = harness::make_certificate(key, options);
    EXPECT_TRUE(is_taken({leaf, right.certificate}, key, {root.certificate}));
    EXPECT_TRUE(is_taken({leaf, wrong.certificate, right.certificate}, key, {root.certificate}));
    EXPECT_TRUE(is_taken({leaf, right.certificate, wrong.certificate}, key, {root.certificate}));
    EXPECT_TRUE(is_taken({leaf, wrong.certificate}, key, {right.certificate}));
    // The name, the trust and the purpose go on being checked.
    EXPECT_FALSE(is_taken({leaf, wrong.certificate, right.certificate}, key, {root.certificate}, "elsewhere.example"));
    EXPECT_FALSE(is_taken({leaf, wrong.certificate, right.certificate}, key, {make_authority("root").certificate}));
    EXPECT_FALSE(is_taken({leaf, wrong.certificate}, key, {root.certificate}));
    options.extended_usage = "clientAuth";
    EXPECT_FALSE(is_taken({harness::make_certificate(key, options), wrong.certificate, right.certificate}, key, {root.certificate}));
}

// --- revocation lists (RFC 5280, 5 and 6.3) ---

/// A CA that was renewed with a new key: one name, two keys, both trusted.
struct Renewed {
    bool has_key_ids;
    Signer old = make_authority("plant CA", nullptr, make_key("P-256"), {.subject_key_id = has_key_ids});
    Signer renewed = make_authority("plant CA", nullptr, make_key("P-256"), {.subject_key_id = has_key_ids});
    CertificateOptions options{.authority_key_id = has_key_ids};
    // Serial numbers are each key's own: those of the two meet.
    Certificate of_old = numbered(old, 7), old_revoked = numbered(old, 8), of_new = numbered(renewed, 8), new_revoked = numbered(renewed, 7);
    Certificate numbered(const Signer& by, long serial) const {
        auto o = options;
        o.serial = serial;
        return client_of(by, "fan", o);
    }
};

TEST(Revocation, a_list_speaks_for_the_key_that_signed_it) {
    for (const bool has_key_ids : {true, false})
        for (const bool lists_have : {true, false}) {
            const Renewed ca{has_key_ids};
            const auto of_old = make_list(ca.old, {.revoked = {ca.old_revoked}, .authority_key_id = lists_have}), of_new = make_list(ca.renewed, {.revoked = {ca.new_revoked}, .authority_key_id = lists_have});
            const auto what = fmt::format("key identifiers: certificates {}, lists {}", has_key_ids, lists_have);
            auto expect = [&](const std::vector<crypto::RevocationList>& lists, bool old_revoked, bool new_revoked) {
                for (const auto& trusted : {std::vector{ca.old.certificate, ca.renewed.certificate}, std::vector{ca.renewed.certificate, ca.old.certificate}}) {
                    const TrustStore trust(trusted, lists);
                    EXPECT_EQ(fault(trust, {ca.of_old}), "") << what;
                    EXPECT_EQ(fault(trust, {ca.of_new}), "") << what;
                    EXPECT_EQ(fault(trust, {ca.old_revoked}).find("is revoked") != std::string::npos, old_revoked) << what << ": " << fault(trust, {ca.old_revoked});
                    EXPECT_EQ(fault(trust, {ca.new_revoked}).find("is revoked") != std::string::npos, new_revoked) << what << ": " << fault(trust, {ca.new_revoked});
                    EXPECT_TRUE(trust.lists().warnings().empty()) << trust.lists().warnings().front();
                }
            };
            expect({of_old}, true, false);
            expect({of_new}, false, true);
            // Both of the same second.
            expect({of_old, of_new}, true, true);
            expect({of_new, of_old}, true, true);
            expect({of_old, of_old, of_new, of_new}, true, true);
        }
}

TEST(Revocation, of_several_lists_of_one_key_the_newest_counts) {
    const auto ca = make_authority("CA");
    const auto one = client_of(ca, "one"), two = client_of(ca, "two");
    auto revoked = [&](std::vector<crypto::RevocationList> lists, const Certificate& who) {
        std::ranges::sort(lists, {}, [](const auto& list) { return list.native(); });
        bool first = true, answer = false;
        do {
            const auto now = fault(TrustStore({ca.certificate}, lists), {who}).find("is revoked") != std::string::npos;
            EXPECT_TRUE(first || now == answer) << "the order of the lists counts";
            first = false;
            answer = now;
        } while (std::ranges::next_permutation(lists, {}, [](const auto& list) { return list.native(); }).found);
        return answer;
    };
    const auto older = make_list(ca, {.revoked = {one}, .from_s = -5000}), newer = make_list(ca, {.revoked = {two}, .from_s = -100});
    EXPECT_FALSE(revoked({older, newer}, one)) << "released since";
    EXPECT_TRUE(revoked({older, newer}, two));
    // In the same second without numbers nobody knows which is newer: whom either names is refused.
    const auto same = make_list(ca, {.revoked = {two}, .from_s = -5000});
    EXPECT_TRUE(revoked({older, same}, one));
    EXPECT_TRUE(revoked({older, same}, two));
    // The number says which is newer, before the time does (RFC 5280, 5.2.3).
    const auto first = make_list(ca, {.revoked = {one}, .from_s = -100, .number = 255}), second = make_list(ca, {.revoked = {two}, .from_s = -100, .number = 256});
    EXPECT_FALSE(revoked({first, second}, one));
    EXPECT_TRUE(revoked({first, second}, two));
    // An expired list that is the newest still names whom it names, and nobody else.
    const auto ended = make_list(ca, {.revoked = {two}, .from_s = -90, .to_s = -10});
    EXPECT_FALSE(revoked({older, ended}, one));
    EXPECT_TRUE(revoked({older, ended}, two));
    // Parts (by distribution point, by kind of certificate) stand beside each other.
    const auto part = make_list(ca, {.revoked = {one}, .from_s = -5000, .point = "critical,onlyuser:TRUE"}), other_part = make_list(ca, {.revoked = {two}, .from_s = -50, .point = "critical,onlyCA:TRUE"});
    EXPECT_TRUE(revoked({part, other_part, newer}, one));
    EXPECT_TRUE(revoked({make_list(ca, {.revoked = {one}, .has_next_update = false})}, one));
}

TEST(Revocation, deltas_add_to_the_complete_list_and_take_from_it) {
    const auto ca = make_authority("CA");
    const auto one = client_of(ca, "one"), two = client_of(ca, "two");
    auto revoked = [&](const std::vector<crypto::RevocationList>& lists, const Certificate& who) { return fault(TrustStore({ca.certificate}, lists), {who}).find("is revoked") != std::string::npos; };
    const auto complete = make_list(ca, {.revoked = {one}, .from_s = -5000, .number = 10});
    const auto delta = make_list(ca, {.revoked = {two}, .removed = {one}, .from_s = -1000, .number = 12, .delta_base = 10});
    for (const auto& lists : {std::vector{complete, delta}, std::vector{delta, complete}}) {
        EXPECT_FALSE(revoked(lists, one)) << "a hold that was taken back";
        EXPECT_TRUE(revoked(lists, two));
        EXPECT_TRUE(TrustStore({ca.certificate}, lists).lists().warnings().empty());
    }
    // A newer complete list has the last word.
    EXPECT_FALSE(revoked({complete, delta, make_list(ca, {.from_s = -10, .number = 13})}, two));
    // A delta to a base that is not there: what it names is refused, what it takes back is not believed, and it is said.
    const auto later = make_list(ca, {.revoked = {two}, .removed = {one}, .from_s = -1000, .number = 22, .delta_base = 20});
    EXPECT_TRUE(revoked({complete, later}, one));
    EXPECT_TRUE(revoked({complete, later}, two));
    const auto told = TrustStore({ca.certificate}, {complete, later}).lists().warnings();
    ASSERT_EQ(told.size(), 1u);
    EXPECT_NE(told[0].find("stands without the complete list it continues"), std::string::npos) << told[0];
    EXPECT_TRUE(revoked({delta}, two));
}

TEST(Revocation, lists_that_cannot_be_relied_on_are_named) {
    const auto ca = make_authority("CA"), stranger = make_authority("CA", nullptr, make_key("P-256"), {.subject_key_id = false});
    const auto good = client_of(ca, "good");
    // Signed by nobody who is known: spoilt, for all that is known. Who has no other list is not let in.
    const auto spoilt = make_list(stranger, {.authority_key_id = false});
    const TrustStore trust({ca.certificate}, {spoilt});
    EXPECT_NE(fault(trust, {good}).find("is not signed by this CA's key"), std::string::npos) << fault(trust, {good});
    EXPECT_NE(trust.lists().warnings().at(0).find("signed by none of the trusted certificates"), std::string::npos);
    EXPECT_EQ(fault(TrustStore({ca.certificate}, {spoilt, make_list(ca, {})}), {good}), "");
    // Of another key by its own words: the next generation's, whose certificate is not there yet.
    const auto next = make_authority("CA");
    const TrustStore early({ca.certificate}, {make_list(next, {})});
    EXPECT_EQ(fault(early, {good}), "");
    EXPECT_NE(early.lists().warnings().at(0).find("is of another key"), std::string::npos);
    // A CA that may not sign lists.
    const auto mute = make_authority("mute", nullptr, make_key("P-256"), {.key_usage = "critical,keyCertSign"});
    const TrustStore muted({mute.certificate}, {make_list(mute, {})});
    EXPECT_NE(fault(muted, {client_of(mute)}).find("lacks cRLSign"), std::string::npos);
    EXPECT_NE(muted.lists().warnings().at(0).find("cRLSign"), std::string::npos);
    // Lists of CAs that are not trusted are nobody's business until a client sends such a CA.
    const auto middle = make_authority("middle", &ca);
    const auto below = client_of(middle, "below");
    const TrustStore upper({ca.certificate}, {make_list(middle, {.revoked = {below}})});
    EXPECT_NE(fault(upper, {below, middle.certificate}).find("\"CN = below\" is revoked"), std::string::npos);
    EXPECT_EQ(fault(upper, {client_of(middle), middle.certificate}), "");
    EXPECT_TRUE(upper.lists().warnings().empty());
    // A trusted intermediate that its own root revoked.
    const TrustStore both({middle.certificate, ca.certificate}, {make_list(ca, {.revoked = {middle.certificate}})});
    EXPECT_NE(fault(both, {below}).find("\"CN = middle\" is revoked"), std::string::npos) << fault(both, {below});
}

TEST(Revocation, kinds_of_lists_that_are_not_taken_say_why) {
    const auto ca = make_authority("CA");
    auto why = [&](const harness::ListOptions& options) {
        const auto read = crypto::read_revocation_lists(harness::pem_of(make_list(ca, {})) + harness::pem_of(make_list(ca, options)));
        return read ? std::string() : read.error().message;
    };
    EXPECT_EQ(why({.point = "critical,onlyuser:TRUE"}), "");
    EXPECT_EQ(why({.number = 5, .delta_base = 4}), "");
    EXPECT_NE(why({.point = "critical,indirectCRL:TRUE"}).find("revocation list 2 (of \"CN = CA\") cannot be used: it is an indirect list"), std::string::npos) << why({.point = "critical,indirectCRL:TRUE"});
    EXPECT_NE(why({.point = "critical,onlyAA:TRUE"}).find("attribute certificates"), std::string::npos) << why({.point = "critical,onlyAA:TRUE"});
    EXPECT_NE(why({.unknown_critical = "1.2.3.4.5"}).find("critical extension 1.2.3.4.5"), std::string::npos) << why({.unknown_critical = "1.2.3.4.5"});
}

// --- what a BrokerAuthentication makes of it ---

TEST(ListenerSecurity, a_bundle_with_odd_authorities_and_lists_says_so) {
    const std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    control::SecurityBuilder builder{objects,
                                     {.clock = machine_clock(),
                                      .probe_secret = std::make_shared<const std::string>("s"),
                                      .crew = std::make_shared<auth::Crew>(1, 4)}};
    registry->create(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "BrokerAuthentication"), space, {{"metadata", {{"name", "authn"}}}, {"spec", {{"authenticationMethods", Json::array({{{"method", "X509"}, {"x509Settings", {{"trustedClientCaCert", "ca"}}}}})}}}}).value();
    const auto ca = make_authority("CA"), weak = make_authority("weak", nullptr, make_key("RSA 1024"));
    auto put = [&](const std::string& text) {
        const auto& kind = *resources::find_kind("v1", "ConfigMap");
        if (registry->get(kind, space, "ca")) registry->patch(kind, space, "ca", registry::PatchType::merge, {{"data", {{"any.pem", text}}}}, false).value();
        else registry->create(kind, space, {{"metadata", {{"name", "ca"}}}, {"data", {{"any.pem", text}}}}).value();
        return builder.authenticator(space, "authn");
    };
    const auto first = put(ca.certificate.pem() + weak.certificate.pem() + harness::pem_of(make_list(ca, {.from_s = -100, .to_s = -10})));
    EXPECT_EQ(first.fault, "");
    ASSERT_EQ(first.warnings.size(), 2u);
    EXPECT_NE(first.warnings[0].find("ConfigMap ca: \"CN = weak\" has a weak key (RSA 1024"), std::string::npos) << first.warnings[0];
    EXPECT_NE(first.warnings[1].find("ConfigMap ca: the revocation list of \"CN = CA\" is past its next update"), std::string::npos) << first.warnings[1];
    // What to do about it, with the entry that has the list.
    EXPECT_NE(first.warnings[1].find("put the list that the CA issues now in its place"), std::string::npos) << first.warnings[1];
    EXPECT_NE(first.warnings[1].find("entry any.pem, which is changed with: kubectl edit configmap ca -n " + std::string(space)), std::string::npos) << first.warnings[1];
    EXPECT_NE(first.warnings[0].find("kubectl create configmap ca -n"), std::string::npos) << first.warnings[0];
    const auto indirect = put(ca.certificate.pem() + harness::pem_of(make_list(ca, {.point = "critical,indirectCRL:TRUE"})));
    ASSERT_FALSE(indirect.warnings.empty());
    EXPECT_NE(indirect.warnings.back().find("entry any.pem: revocation list 1 (of \"CN = CA\") cannot be used: it is an indirect list"), std::string::npos) << indirect.warnings.back();
    EXPECT_NE(indirect.warnings.back().find("the rules before go on"), std::string::npos);
}

}  // namespace
}  // namespace penstock
