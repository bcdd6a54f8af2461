// The resource API's own certificates and keys over the years: times are given, nothing waits.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "api/own_pki.h"
#include "api/peer.h"
#include "app/identity.h"
#include "app/identity_keeper.h"
#include "base/clock.h"
#include "crypto/subject.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using api::OwnPki;
using crypto::Certificate;

constexpr std::int64_t day = 86'400'000;
constexpr std::int64_t start = 1'800'000'000'000;      // 2027
const api::ServerNames names{.dns_names = {"localhost"}, .addresses = {"127.0.0.1"}};

std::vector<Certificate> chain_of(const std::string& pem) { return crypto::read_certificates(pem).value(); }
OwnPki after(const OwnPki& have, std::int64_t now) { return api::renew(have, names, now).value().pki; }
/// What is wrong with a chain for somebody who trusts these.
std::string fault(const std::string& chain, const std::string& trusted, crypto::Purpose purpose,
                  std::int64_t now) {
    return crypto::TrustStore(chain_of(trusted), {}).verify(chain_of(chain), purpose, now).fault;
}
const Certificate& first(const std::vector<Certificate>& chain) { return chain.front(); }
std::string first_pem(const std::string& pem) { return chain_of(pem).front().pem(); }

TEST(OwnPki, is_made_once_and_goes_on_as_it_is) {
    const auto made = api::renew({}, names, start).value();
    EXPECT_EQ(made.done.size(), 3u);
    const auto next = api::renew(made.pki, names, start + day).value();
    EXPECT_TRUE(next.done.empty()) << next.done.front();
    EXPECT_EQ(next.pki, made.pki);
    EXPECT_EQ(fault(made.pki.server.certificate, made.pki.trusted, crypto::Purpose::server, start), "");
    EXPECT_EQ(fault(made.pki.admin.certificate, made.pki.trusted, crypto::Purpose::client, start), "");
}

TEST(OwnPki, when_a_leaf_is_made_anew) {
    const auto pki = after({}, start);
    const auto ca = first(chain_of(pki.ca.certificate));
    const auto other = after({}, start);
    struct Case {
        const char* what;
        crypto::KeyPair leaf;
        std::int64_t now;
        const char* why;
    };
    const api::ServerNames more{.dns_names = {"localhost"}, .addresses = {"127.0.0.1", "10.9.8.7"}};
    for (const auto& [what, leaf, now, why] :
         {Case{"fresh", pki.server, start, ""},
          Case{"a day before its time", pki.server, start + 274 * day, ""},
          Case{"its time", pki.server, start + 275 * day, "it ends at"},
          Case{"ended", pki.server, start + 366 * day, "it ended at"},
          Case{"another CA's", other.server, start, "the CA is another one"},
          Case{
              "another's key", {pki.server.certificate, other.server.key}, start, "its key is another one's"},
          Case{"nothing", {}, start, "there is none"},
          Case{"rubbish", {"-----BEGIN CERTIFICATE-----\nx", pki.server.key}, start, "there is none"},
          Case{"a clock that was ahead", pki.server, start - 2 * day, "clock was wrong"},
          Case{"a clock a little behind", pki.server, start - day / 2, ""}}) {
        const auto got = api::leaf_due(leaf, ca, &names, now);
        EXPECT_TRUE(*why == 0 ? got.empty() : got.find(why) != std::string::npos) << what << ": " << got;
    }
    EXPECT_EQ(api::leaf_due(pki.server, ca, &more, start), "it does not cover 10.9.8.7");
    EXPECT_EQ(api::leaf_due(pki.server, ca, nullptr, start), "");
}

// A process that looks once in five days for twelve years: nothing ever comes close to its end, and nobody
// who trusted the CA of the day before is cut off on the next.
TEST(OwnPki, twelve_years_without_a_day_on_which_somebody_is_locked_out) {
    auto pki = after({}, start);
    int changes = 0, cas = 0;
    for (std::int64_t now = start; now < start + 12 * 365 * day; now += 5 * day) {
        const auto before = pki;
        pki = after(pki, now);
        if (pki == before) continue;
        ++changes;
        cas += pki.ca.key != before.ca.key ? 1 : 0;
        EXPECT_EQ(fault(pki.server.certificate, pki.trusted, crypto::Purpose::server, now), "")
            << rfc3339(now);
        EXPECT_EQ(fault(pki.server.certificate, first_pem(before.trusted), crypto::Purpose::server, now), "")
            << "a kubeconfig of yesterday, " << rfc3339(now);
        EXPECT_EQ(fault(before.admin.certificate, pki.trusted, crypto::Purpose::client, now), "")
            << "an administrator of yesterday, " << rfc3339(now);
        EXPECT_GE(first(chain_of(pki.server.certificate)).not_after_ms(), now + 89 * day);
    }
    EXPECT_EQ(cas, 1);
    EXPECT_LE(changes, 40) << "renewed when due, not each day";
}

TEST(OwnPki, old_and_new_ca_stand_side_by_side_until_the_old_one_ends) {
    const auto old = after({}, start);
    const auto now = start + (3650 - 730) * day;
    auto fresh = after(old, now);
    ASSERT_NE(fresh.ca.key, old.ca.key);
    EXPECT_NE(first(chain_of(fresh.ca.certificate)).subject(), first(chain_of(old.ca.certificate)).subject())
        << "two CAs, two names";
    EXPECT_EQ(chain_of(fresh.trusted).size(), 2u);
    const auto only_new = first_pem(fresh.trusted), only_old = first_pem(old.trusted);
    for (const auto& trusted : {only_new, only_old, fresh.trusted})
        EXPECT_EQ(fault(fresh.server.certificate, trusted, crypto::Purpose::server, now), "");
    // At the old one's end the way from it goes out of the chain, and all is as after a first start.
    const auto late = start + 3651 * day;
    for (auto at = now; at < late; at += 100 * day) fresh = after(fresh, at);
    fresh = after(fresh, late);
    EXPECT_EQ(chain_of(fresh.server.certificate).size(), 1u);
    EXPECT_EQ(fault(fresh.server.certificate, only_new, crypto::Purpose::server, late), "");
}

TEST(OwnPki, a_ca_that_was_replaced_takes_its_leaves_along) {
    const auto old = after({}, start);
    const auto mine = crypto::make_key("Ec256").value();
    const auto mine_pem = crypto::issue_certificate(mine, nullptr,
                                                    {.subject = {{"CN", "Plant CA"}},
                                                     .is_ca = true,
                                                     .not_before_ms = start,
                                                     .not_after_ms = start + 200 * day})
                              .value();
    auto replaced = old;
    replaced.ca = {.certificate = mine_pem, .key = mine};
    auto now = after(replaced, start + day);
    EXPECT_TRUE(first(chain_of(now.server.certificate)).is_signed_by(first(chain_of(mine_pem))));
    EXPECT_TRUE(first(chain_of(now.admin.certificate)).is_signed_by(first(chain_of(mine_pem))));
    EXPECT_EQ(fault(old.admin.certificate, now.trusted, crypto::Purpose::client, start + day), "")
        << "who has an old kubeconfig goes on";
    // Its leaves end with it. They are not made anew each time somebody looks, and somebody else's CA is not
    // replaced while it lasts.
    const auto later = after(now, start + 190 * day);
    EXPECT_EQ(later.ca.key, mine);
    EXPECT_EQ(later, after(later, start + 190 * day + 10'000));
    const auto facts = api::describe(later, start + 190 * day);
    const auto ca = std::ranges::find(facts, "ca", &api::OwnCertificate::name);
    EXPECT_NE(ca->fault.find("renewed by hand"), std::string::npos) << ca->fault;
    // When it has ended nobody could get in: then there is a new one.
    const auto ended = after(later, start + 201 * day);
    EXPECT_NE(ended.ca.key, mine);
    EXPECT_EQ(fault(ended.server.certificate, ended.trusted, crypto::Purpose::server, start + 201 * day), "");
}

TEST(OwnPki, an_intermediate_of_the_plant_shows_the_way_to_its_root) {
    const auto root_key = crypto::make_key("Ec256").value(), key = crypto::make_key("Ec256").value();
    const crypto::KeyPair root{.certificate = crypto::issue_certificate(root_key, nullptr,
                                                                        {.subject = {{"CN", "Root"}},
                                                                         .is_ca = true,
                                                                         .not_before_ms = start,
                                                                         .not_after_ms = start + 4000 * day})
                                                  .value(),
                               .key = root_key};
    const auto middle = crypto::issue_certificate(key, &root,
                                                  {.subject = {{"CN", "Middle"}},
                                                   .is_ca = true,
                                                   .not_before_ms = start,
                                                   .not_after_ms = start + 2000 * day})
                            .value();
    OwnPki have;
    have.ca = {.certificate = middle + root.certificate, .key = key};
    const auto pki = after(have, start + day);
    EXPECT_EQ(fault(pki.server.certificate, root.certificate, crypto::Purpose::server, start + day), "")
        << "for who trusts the root alone";
    EXPECT_EQ(chain_of(pki.trusted).size(), 2u);
    EXPECT_EQ(pki, after(pki, start + 2 * day));
}

TEST(OwnPki, a_ca_that_cannot_be_used_is_never_made_anew) {
    const auto pki = after({}, start), other = after({}, start);
    auto said = [&](crypto::KeyPair ca, std::string trusted = {}) {
        auto have = pki;
        have.ca = std::move(ca);
        if (!trusted.empty()) have.trusted = std::move(trusted);
        const auto next = api::renew(have, names, start);
        return next ? std::string("made anew") : next.error().message;
    };
    EXPECT_NE(said({.certificate = pki.ca.certificate, .key = ""})
                  .find("api-ca.key is missing or empty beside api-ca.crt"),
              std::string::npos);
    EXPECT_NE(
        said({.certificate = "", .key = pki.ca.key}).find("api-ca.crt is missing or empty beside api-ca.key"),
        std::string::npos);
    EXPECT_NE(
        said({.certificate = pki.ca.certificate, .key = other.ca.key}).find("api-ca.key is not the key of"),
        std::string::npos);
    EXPECT_NE(said({.certificate = std::string(2000, '\0'), .key = pki.ca.key}).find("api-ca.crt:"),
              std::string::npos);
    EXPECT_NE(said({.certificate = pki.server.certificate, .key = pki.server.key}).find("is no CA"),
              std::string::npos);
    EXPECT_NE(said(pki.ca, "-----BEGIN CERTIFICATE-----\nbroken").find("api-ca-trusted.crt:"),
              std::string::npos);
}

// --- who a client certificate is ---

TEST(Peer, is_judged_at_each_request_and_not_once_for_all) {
    const auto old = after({}, start), other = after({}, start);
    const auto trust = [](const std::string& pem) {
        return std::make_shared<const crypto::TrustStore>(chain_of(pem),
                                                          std::vector<crypto::RevocationList>{});
    };
    api::Peer peer(chain_of(old.admin.certificate));
    const auto both = trust(old.trusted + other.trusted), only_other = trust(other.trusted);
    EXPECT_EQ(peer.identity(both, start).user.name, "system:admin");
    EXPECT_TRUE(peer.identity(both, start).user.is_master());
    EXPECT_FALSE(peer.identity(only_other, start).user.is_master()) << "the CA is no longer trusted";
    EXPECT_NE(peer.identity(only_other, start).fault, "");
    EXPECT_EQ(peer.identity(both, start + day).fault, "") << "and is again";
    EXPECT_NE(peer.identity(both, start + 366 * day).fault.find("expired"), std::string::npos)
        << peer.identity(both, start + 366 * day).fault;
    EXPECT_EQ(peer.identity(both, start + 366 * day).user.name, "system:anonymous");
    EXPECT_EQ(peer.identity(both, start + day).fault, "") << "a clock that was set back";
    api::Peer nobody({});
    EXPECT_EQ(nobody.identity(both, start).fault, "");
    EXPECT_EQ(nobody.identity(both, start).user.name, "system:anonymous");
}

TEST(Peer, a_certificate_must_name_a_user_and_be_a_clients) {
    const auto pki = after({}, start);
    const auto trust = std::make_shared<const crypto::TrustStore>(chain_of(pki.trusted),
                                                                  std::vector<crypto::RevocationList>{});
    auto identity = [&](crypto::IssueOptions options) {
        options.not_before_ms = start - day;
        options.not_after_ms = start + day;
        api::Peer peer(
            chain_of(crypto::issue_certificate(crypto::make_key("Ec256").value(), &pki.ca, options).value()));
        return peer.identity(trust, start);
    };
    const auto ann = identity({.subject = {{"O", "plant"}, {"CN", "ann"}, {"O", "line1"}},
                               .usages = {"digital signature", "client auth"}});
    EXPECT_EQ(ann.user.name, "ann");
    EXPECT_EQ(ann.user.groups, (std::vector<std::string>{"system:authenticated", "plant", "line1"}));
    EXPECT_NE(identity({.subject = {{"O", "system:masters"}}, .usages = {"digital signature", "client auth"}})
                  .fault.find("has no common name"),
              std::string::npos);
    EXPECT_FALSE(
        identity({.subject = {{"O", "system:masters"}}, .usages = {"digital signature", "client auth"}})
            .user.is_master());
    EXPECT_NE(identity({.subject = {{"CN", "server"}}, .usages = {"digital signature", "server auth"}}).fault,
              "");
}

// --- the folder ---

struct Folder {
    fs::path path =
        fs::temp_directory_path() / ("penstock-pki-" + std::to_string(getpid()) + "-" +
                                     ::testing::UnitTest::GetInstance()->current_test_info()->name());
    Folder() { fs::remove_all(path); }
    ~Folder() { fs::remove_all(path); }
    std::string read(const std::string& name) const { return app::read_file(path / name).value_or(""); }
    void write(const std::string& name, const std::string& text) const {
        std::ofstream(path / name, std::ios::binary) << text;
    }
};

TEST(IdentityKeeper, renews_while_it_runs_and_tells_its_users) {
    Folder folder;
    app::IdentityKeeper keeper(folder.path);
    const auto now = wall_ms();
    ASSERT_TRUE(keeper.open(now));
    int told = 0;
    OwnPki last;
    bool refuses = true;
    keeper.set_users({.identity = [&](const app::Identity& fresh) -> Result<void> {
                          ++told;
                          if (refuses) return fail("not now");
                          last = fresh;
                          return {};
                      },
                      .token_keys = {}});
    keeper.look(now + day);
    EXPECT_EQ(told, 0) << "nothing is due";
    const auto before = keeper.identity();
    keeper.look(now + 300 * day);
    EXPECT_EQ(told, 1);
    EXPECT_NE(keeper.identity().server.certificate, before.server.certificate);
    EXPECT_NE(keeper.identity().admin.key, before.admin.key);
    EXPECT_EQ(keeper.identity().ca.key, before.ca.key);
    EXPECT_EQ(folder.read("api-server.crt"), keeper.identity().server.certificate);
    EXPECT_EQ(folder.read("admin.key"), keeper.identity().admin.key);
    refuses = false;
    keeper.look(now + 300 * day + 1);
    EXPECT_EQ(told, 2) << "whoever could not take it over is asked again";
    EXPECT_EQ(last, keeper.identity());
    keeper.look(now + 300 * day + 2);
    EXPECT_EQ(told, 2);
    // A process that starts then finds the same.
    EXPECT_EQ(app::open_identity(folder.path, now + 300 * day).value(), keeper.identity());
}

TEST(IdentityKeeper, takes_over_a_ca_that_is_put_there_and_never_half_of_it) {
    Folder folder;
    app::IdentityKeeper keeper(folder.path);
    const auto now = wall_ms();
    ASSERT_TRUE(keeper.open(now));
    const auto before = keeper.identity();
    const auto key = crypto::make_key("Ec256").value();
    const auto ca = crypto::issue_certificate(key, nullptr,
                                              {.subject = {{"CN", "Plant CA"}},
                                               .is_ca = true,
                                               .not_before_ms = now - 1000,
                                               .not_after_ms = now + 1000 * day})
                        .value();
    folder.write("api-ca.crt", ca);
    keeper.look(now);
    EXPECT_EQ(keeper.identity(), before) << "the key is still the old one's";
    const auto facts = keeper.facts(now);
    EXPECT_NE(std::ranges::find(facts, "ca", &api::OwnCertificate::name)
                  ->fault.find("api-ca.key is not the key of"),
              std::string::npos);
    EXPECT_EQ(folder.read("api-ca.crt"), ca) << "what somebody put there is not written over";
    folder.write("api-ca.key", key);
    keeper.look(now);
    EXPECT_TRUE(first(chain_of(keeper.identity().server.certificate)).is_signed_by(first(chain_of(ca))));
    EXPECT_EQ(fault(before.admin.certificate, keeper.identity().trusted, crypto::Purpose::client, now), "");
    EXPECT_EQ(fault(keeper.identity().server.certificate, before.trusted, crypto::Purpose::server, now), "")
        << "who trusts the old CA alone finds the way";
    EXPECT_EQ(fault(keeper.identity().server.certificate, ca, crypto::Purpose::server, now), "");
    const auto taken = keeper.identity();
    keeper.look(now + 1000);
    EXPECT_EQ(keeper.identity(), taken) << "once, and not at each look";
    // Whom the file of trusted CAs no longer names is not trusted any more.
    folder.write("api-ca-trusted.crt", ca);
    keeper.look(now);
    EXPECT_NE(fault(before.admin.certificate, keeper.identity().trusted, crypto::Purpose::client, now), "");
}

TEST(IdentityKeeper, what_goes_away_while_it_runs_comes_back_and_cuts_nobody_off) {
    Folder folder;
    app::IdentityKeeper keeper(folder.path);
    const auto now = wall_ms();
    ASSERT_TRUE(keeper.open(now));
    const auto before = keeper.identity();
    fs::remove(folder.path / "api-server.crt");
    fs::remove(folder.path / "admin.key");
    fs::remove(folder.path / "api-ca-trusted.crt");
    keeper.look(now);
    EXPECT_TRUE(keeper.has_lost_files()) << "somebody may be at work in the folder";
    keeper.look(now);
    EXPECT_FALSE(keeper.has_lost_files());
    EXPECT_EQ(keeper.identity(), before);
    EXPECT_EQ(folder.read("api-server.crt"), before.server.certificate);
    EXPECT_EQ(folder.read("admin.key"), before.admin.key);
    // The CA's two files alone: it was taken away on purpose, and gets a successor that the old one vouches for.
    fs::remove(folder.path / "api-ca.crt");
    fs::remove(folder.path / "api-ca.key");
    keeper.look(now);
    keeper.look(now);
    EXPECT_NE(keeper.identity().ca.key, before.ca.key);
    EXPECT_EQ(fault(keeper.identity().server.certificate, before.trusted, crypto::Purpose::server, now), "");
    EXPECT_EQ(fault(before.admin.certificate, keeper.identity().trusted, crypto::Purpose::client, now), "");
}

std::map<std::string, std::string> all_of(const fs::path& folder) {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::directory_iterator(folder)) out[entry.path().filename().string()] = app::read_file(entry.path()).value_or("");
    return out;
}

// What is in force is in memory: a folder that is deleted, or a file of it that is emptied or damaged, is as it was before
// a crash makes a loss of it.
TEST(IdentityKeeper, what_is_in_force_and_was_lost_is_written_back) {
    Folder folder;
    app::IdentityKeeper keeper(folder.path);
    const auto now = wall_ms();
    ASSERT_TRUE(keeper.open(now));
    const auto before = keeper.identity();
    const auto keys = keeper.token_keys().keys;
    const auto files = all_of(folder.path);
    const auto look_twice = [&] { keeper.look(now), keeper.look(now); };
    const auto expect_as_before = [&](const std::string& what) {
        look_twice();
        EXPECT_EQ(all_of(folder.path), files) << what;
        EXPECT_EQ(keeper.identity(), before) << what;
        EXPECT_EQ(keeper.token_keys().keys, keys) << what;
        app::IdentityKeeper next(folder.path);
        ASSERT_TRUE(next.open(now)) << what;
        EXPECT_EQ(next.identity(), before) << what;
        EXPECT_EQ(next.token_keys().keys, keys) << what;
    };
    fs::remove_all(folder.path);
    expect_as_before("the whole folder");
    for (const auto& [name, text] : files) {
        fs::remove(folder.path / name);
        expect_as_before(name + " missing");
        folder.write(name, "");
        expect_as_before(name + " empty");
        folder.write(name, std::string(text.size(), '\0'));
        expect_as_before(name + " NUL");
        folder.write(name, text.substr(0, text.size() / 2));
        expect_as_before(name + " cut");
        // In the middle of the base64: a key whose halves do not belong together, a certificate with a wrong signature.
        auto changed = text;
        auto& letter = changed[text.rfind("-----END") - 12];
        letter = letter == 'A' ? 'B' : 'A';
        folder.write(name, changed);
        if (name != "api-ca-trusted.crt") expect_as_before(name + " changed");
        folder.write(name, text);
    }
    // What another one put there is not ours to write over.
    const auto key = crypto::make_key("Ec256").value();
    folder.write("api-ca.key", key);
    look_twice();
    EXPECT_EQ(folder.read("api-ca.key"), key);
    EXPECT_EQ(keeper.identity(), before);
}

TEST(IdentityKeeper, token_keys_that_are_lost_come_back_with_their_age) {
    Folder folder;
    app::IdentityKeeper keeper(folder.path);
    const auto now = wall_ms(), due = now + 91 * day;
    ASSERT_TRUE(keeper.open(now));
    keeper.look(due);
    ASSERT_EQ(keeper.token_keys().keys.size(), 2u);
    const auto before = keeper.token_keys();
    fs::remove_all(folder.path);
    keeper.look(due), keeper.look(due);
    EXPECT_EQ(keeper.token_keys().keys, before.keys) << "the same one signs";
    EXPECT_EQ(keeper.token_keys().renewal_ms, before.renewal_ms);
    // One that is removed beside others ends.
    fs::remove(folder.path / before.files.back().name);
    keeper.look(due), keeper.look(due);
    ASSERT_EQ(keeper.token_keys().keys.size(), 2u) << "its successor was due, and is another one";
    EXPECT_EQ(keeper.token_keys().keys.front(), before.keys.front());
    EXPECT_NE(keeper.token_keys().keys.back(), before.keys.back());
}

// A crash between the two files of a new CA: at the next start there is the whole new one.
TEST(IdentityKeeper, a_new_ca_is_there_whole_or_not_at_all) {
    Folder folder;
    const auto now = wall_ms();
    const auto old = app::open_identity(folder.path, now).value();
    const auto later = now + (3650 - 700) * day;
    const auto next = app::open_identity(folder.path, later).value();
    ASSERT_NE(next.ca.key, old.ca.key);
    folder.write("api-ca-next.pem", next.ca.key + next.ca.certificate);
    folder.write("api-ca.crt", old.ca.certificate);   // the key was written, the certificate not yet
    EXPECT_EQ(app::open_identity(folder.path, later).value(), next);
    EXPECT_FALSE(fs::exists(folder.path / "api-ca-next.pem"));
    folder.write("api-ca-next.pem", next.ca.key.substr(0, 40));   // torn: it was never begun to be taken over
    EXPECT_EQ(app::open_identity(folder.path, later).value(), next);
}

TEST(TokenKeys, a_successor_verifies_before_it_signs) {
    Folder folder;
    fs::create_directories(folder.path);
    const auto now = wall_ms();
    const auto one = app::open_token_keys(folder.path, now).value();
    ASSERT_EQ(one.keys.size(), 1u);
    EXPECT_EQ(app::open_token_keys(folder.path, now + 89 * day).value().keys, one.keys);
    const auto due = now + 91 * day;
    const auto two = app::open_token_keys(folder.path, due).value();
    ASSERT_EQ(two.keys.size(), 2u);
    EXPECT_EQ(two.keys.front(), one.keys.front())
        << "whoever reads the keys every five minutes does not know the new one yet";
    const auto known = app::open_token_keys(folder.path, due + 16 * 60'000).value();
    ASSERT_EQ(known.keys.size(), 2u);
    EXPECT_EQ(known.keys.front(), two.keys.back());
    EXPECT_EQ(known.keys.back(), one.keys.front()) << "and the old one goes on verifying";
    EXPECT_EQ(app::open_token_keys(folder.path, due + 80 * day).value().keys.size(), 2u);
    EXPECT_EQ(known.renewal_ms, due + 90 * day);
}

}  // namespace
}  // namespace penstock
