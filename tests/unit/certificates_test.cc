// The embedded issuer over a registry in memory, and what listeners make of it.
#include <gtest/gtest.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>

#include <set>

#include "base/clock.h"
#include "base/given_clock.h"
#include "base/text.h"
#include "control/certificates.h"
#include "control/security.h"
#include "crypto/ocsp.h"
#include "crypto/password.h"
#include "harness/x509_maker.h"
#include "crypto/trust.h"
#include "crypto/x509.h"

namespace penstock {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

constexpr const char* space = "azure-iot-operations";
constexpr std::int64_t hour = 3'600'000, day = 24 * hour;
const resources::Kind& core(const char* name) { return *resources::find_kind("v1", name); }
const resources::Kind& manager(const char* name) { return *resources::find_kind("cert-manager.io/v1", name); }
const resources::Kind& broker_kind(const char* name) { return *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", name); }

/// What somebody else does in a moment of a controller's work: `status`: a status is made and not written yet; `written`: an object
/// was just created or patched.
using Meanwhile = std::function<void(registry::Registry& registry, std::string_view moment, const resources::Kind& kind, const std::string& name)>;

class Interleaved : public control::LocalObjects {
  public:
    Interleaved(registry::Registry& registry, Meanwhile meanwhile) : LocalObjects(registry), registry_(registry), meanwhile_(std::move(meanwhile)) {}
    registry::Answer<control::ObjectRef> create(const resources::Kind& kind, const std::string& in, Json object, const std::string& by) override {
        const auto name = text_at(object, "metadata.name");
        auto done = LocalObjects::create(kind, in, std::move(object), by);
        if (meanwhile_) meanwhile_(registry_, "written", kind, name);
        return done;
    }
    registry::Answer<void> put_status(const resources::Kind& kind, const std::string& in, const std::string& name, const MakeStatus& make, const std::string& by) override {
        return LocalObjects::put_status(kind, in, name, [&](const Json& current) {
            auto out = make(current);
            if (meanwhile_) meanwhile_(registry_, "status", kind, name);
            return out;
        }, by);
    }

  private:
    registry::Registry& registry_;
    Meanwhile meanwhile_;
};

struct World {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    Interleaved objects;
    std::atomic<std::int64_t> ahead{0};      ///< of the real clock
    control::CertificateControllers controllers{
        objects, Clock([this] { return now(); }, [this] { return monotonic_ns() + ahead * 1'000'000; })};
    explicit World(Meanwhile meanwhile = {}) : objects(*registry, std::move(meanwhile)) { controllers.start(); }
    [[nodiscard]] std::int64_t now() const { return wall_ms() + ahead; }
    /// The clocks go on without anybody waiting.
    void pass(std::int64_t ms) {
        ahead += ms;
        controllers.look_again();
    }
    ~World() { controllers.stop(); }

    bool wait(const std::function<bool()>& done, std::int64_t ms = 15'000) {
        for (const auto end = monotonic_ms() + ms; monotonic_ms() < end;) {
            if (done()) return true;
            objects.pause(10);
        }
        return done();
    }
    crypto::Certificate issued(const std::string& secret, const std::string& in = space) {
        const auto object = objects.get(core("Secret"), in, secret);
        if (object == nullptr) return {};
        const auto chain = crypto::read_certificates(control::secret_text(*object, "tls.crt").value_or(""));
        return chain && !chain->empty() ? chain->front() : crypto::Certificate();
    }
    std::vector<crypto::Certificate> chain(const std::string& secret) {
        return crypto::read_certificates(
                   control::secret_text(*objects.get(core("Secret"), space, secret), "tls.crt").value())
            .value();
    }
    std::string message(const std::string& certificate) {
        const auto object = objects.get(manager("Certificate"), space, certificate);
        const auto& conditions = at_path(*object, "status.conditions");
        return conditions.is_array() && !conditions.empty() ? text_at(conditions[0], "message")
                                                            : std::string();
    }
    std::string ready(const std::string& certificate) {
        const auto object = objects.get(manager("Certificate"), space, certificate);
        if (object == nullptr || !at_path(*object, "status.conditions").is_array()) return {};
        for (const auto& c : at_path(*object, "status.conditions"))
            if (text_at(c, "type") == "Ready") return text_at(c, "status") + " " + text_at(c, "reason");
        return {};
    }
    std::string bundle() {
        const auto object = objects.get(core("ConfigMap"), space, control::trust_bundle);
        return object != nullptr ? at_path(*object, "data")["ca.crt"].get<std::string>() : std::string();
    }
};

Json certificate(const std::string& name, Json spec) {
    spec["secretName"] = spec.value("secretName", name);
    if (!spec.contains("issuerRef")) spec["issuerRef"] = {{"kind", "ClusterIssuer"}, {"name", control::default_issuer}};
    return {{"metadata", {{"name", name}}}, {"spec", spec}};
}

TEST(Certificates, the_installation_has_its_ca_issuer_and_bundle) {
    World world;
    ASSERT_TRUE(world.wait([&] { return !world.bundle().empty(); }));
    const auto ca = world.issued(control::ca_secret, control::ca_namespace);
    EXPECT_TRUE(ca.is_ca());
    EXPECT_EQ(world.bundle(), ca.pem());
    ASSERT_TRUE(world.wait([&] { return world.objects.get(core("Secret"), space, control::internal_ca) != nullptr; }));
    EXPECT_FALSE(control::secret_text(*world.objects.get(core("Secret"), space, control::internal_ca), "tls.key")) << "the CA's key stays where it is";
    ASSERT_TRUE(world.wait([&] {
        const auto now = world.objects.get(manager("ClusterIssuer"), "", control::default_issuer);
        return at_path(*now, "status.conditions").is_array() && text_at(at_path(*now, "status.conditions")[0], "reason") == "KeyPairVerified";
    }));
}

TEST(Certificates, issues_what_is_wanted_and_again_when_that_changes) {
    World world;
    for (const auto& [name, algorithm, size, text] : {std::tuple{"ec", "ECDSA", 384, "EC P-384"}, std::tuple{"rsa", "RSA", 2048, "RSA 2048"}, std::tuple{"ed", "Ed25519", 0, "Ed25519"}}) {
        world.registry->create(manager("Certificate"), space, certificate(name, {{"commonName", name}, {"dnsNames", {"a.example", "*.b.example"}}, {"ipAddresses", {"10.0.0.1", "fd00:0::7"}}, {"privateKey", {{"algorithm", algorithm}, {"size", size}}}})).value();
        ASSERT_TRUE(world.wait([&, n = name] { return world.ready(n) == "True Ready"; })) << world.ready(name);
        const auto c = world.issued(name);
        EXPECT_EQ(c.key_text(), text);
        EXPECT_TRUE(c.covers("10.0.0.1") && c.covers("fd00::7") && c.covers("x.b.example") && !c.covers("c.example"));
    }
    const auto before = world.issued("ec");
    const auto issued_key = control::secret_text(*world.objects.get(core("Secret"), space, "ec"), "tls.key");
    world.registry->patch(manager("Certificate"), space, "ec", registry::PatchType::merge, {{"spec", {{"dnsNames", {"c.example"}}, {"privateKey", {{"rotationPolicy", "Never"}}}}}}, false).value();
    ASSERT_TRUE(world.wait([&] { return world.issued("ec").fingerprint() != before.fingerprint() && world.ready("ec") == "True Ready"; }));
    EXPECT_TRUE(world.issued("ec").covers("c.example"));
    EXPECT_EQ(control::secret_text(*world.objects.get(core("Secret"), space, "ec"), "tls.key"), issued_key) << "Never keeps the key";
    // A Secret that was deleted or spoilt is made anew.
    world.registry->remove(core("Secret"), space, "ec").value();
    ASSERT_TRUE(world.wait([&] { return static_cast<bool>(world.issued("ec")); }));
    world.registry->patch(core("Secret"), space, "ec", registry::PatchType::merge, {{"data", {{"tls.crt", base64_encode("nonsense")}}}}, false).value();
    ASSERT_TRUE(world.wait([&] { return static_cast<bool>(world.issued("ec")); }));
}

TEST(Certificates, renews_by_itself_and_when_asked) {
    World world;
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("short", {{"commonName", "short"},
                                       {"duration", "24h"},
                                       {"privateKey", {{"algorithm", "ECDSA"}}}}))
        .value();
    ASSERT_TRUE(world.wait([&] { return world.ready("short") == "True Ready"; }));
    const auto first = world.issued("short");
    world.pass(17 * hour);
    ASSERT_TRUE(world.wait([&] { return world.issued("short").fingerprint() != first.fingerprint(); }))
        << "after two thirds of its life";
    world.registry->create(manager("Certificate"), space, certificate("long", {{"commonName", "long"}, {"privateKey", {{"algorithm", "ECDSA"}}}})).value();
    ASSERT_TRUE(world.wait([&] { return world.ready("long") == "True Ready"; }));
    const auto long_first = world.issued("long");
    auto conditions = at_path(*world.objects.get(manager("Certificate"), space, "long"), "status.conditions");
    conditions.push_back({{"type", "Issuing"}, {"status", "True"}, {"reason", "ManuallyTriggered"}, {"message", ""}});
    world.registry->patch(manager("Certificate"), space, "long", registry::PatchType::merge, {{"status", {{"conditions", conditions}}}}, true).value();
    ASSERT_TRUE(world.wait([&] { return world.issued("long").fingerprint() != long_first.fingerprint(); }));
    ASSERT_TRUE(world.wait([&] { return at_path(*world.objects.get(manager("Certificate"), space, "long"), "status.revision") == Json(2); }));
}

TEST(Certificates, what_others_write_in_the_moment_of_a_status_write_stays) {
    // A renewal is asked for once: when the Secret was just made, and when the status was made and is not written yet.
    for (const auto* moment : {"written", "status"}) {
        std::atomic<bool> asked{false};
        World world([&](registry::Registry& registry, std::string_view now, const resources::Kind& kind, const std::string& name) {
            if (now != moment || name != "c" || kind.kind == "Event" || !registry.get(core("Secret"), space, name) || asked.exchange(true)) return;
            const Json conditions = Json::array({{{"type", "Issuing"}, {"status", "True"}, {"reason", "ManuallyTriggered"}}, {{"type", "Other"}, {"status", "True"}}});
            registry.patch(manager("Certificate"), space, name, registry::PatchType::merge, {{"status", {{"conditions", conditions}}}}, true).value();
        });
        world.registry->create(manager("Certificate"), space, certificate("c", {{"commonName", "c"}, {"privateKey", {{"algorithm", "ECDSA"}}}})).value();
        ASSERT_TRUE(world.wait([&] { return at_path(*world.objects.get(manager("Certificate"), space, "c"), "status.revision") == Json(2); })) << moment;
        const auto now = world.objects.get(manager("Certificate"), space, "c");
        std::set<std::string> types;
        for (const auto& condition : at_path(*now, "status.conditions")) types.insert(text_at(condition, "type"));
        EXPECT_EQ(types, (std::set<std::string>{"Ready", "Other"})) << moment << ": the request is met, and what was not ours is there";
    }
    // An issuer's status beside somebody else's condition.
    std::atomic<bool> wrote{false};
    World world([&](registry::Registry& registry, std::string_view now, const resources::Kind& kind, const std::string& name) {
        if (now != "status" || kind.kind != "ClusterIssuer" || name != control::default_issuer || wrote.exchange(true)) return;
        registry.patch(kind, "", name, registry::PatchType::merge, {{"status", {{"conditions", Json::array({{{"type", "Other"}, {"status", "True"}}})}}}}, true).value();
    });
    ASSERT_TRUE(world.wait([&] {
        const auto issuer = world.objects.get(manager("ClusterIssuer"), "", control::default_issuer);
        return wrote && issuer != nullptr && at_path(*issuer, "status.conditions").size() == 2;
    }));
}

TEST(Certificates, an_old_and_a_new_ca_stand_side_by_side) {
    World world;
    world.registry->create(manager("Certificate"), space, certificate("leaf", {{"commonName", "leaf"}, {"privateKey", {{"algorithm", "ECDSA"}}}})).value();
    ASSERT_TRUE(world.wait([&] { return world.ready("leaf") == "True Ready" && !world.bundle().empty(); }));
    const auto old_ca = world.issued(control::ca_secret, control::ca_namespace);
    const auto leaf = world.issued("leaf");
    // As cmctl renew does it.
    world.registry->patch(manager("Certificate"), control::ca_namespace, control::ca_secret, registry::PatchType::merge, {{"status", {{"conditions", Json::array({{{"type", "Issuing"}, {"status", "True"}}})}}}}, true).value();
    ASSERT_TRUE(world.wait([&] { return world.issued(control::ca_secret, control::ca_namespace).fingerprint() != old_ca.fingerprint(); }));
    const auto new_ca = world.issued(control::ca_secret, control::ca_namespace);
    ASSERT_TRUE(world.wait([&] { return world.bundle() == new_ca.pem() + old_ca.pem(); })) << world.bundle();
    ASSERT_TRUE(world.wait([&] { return world.issued("leaf").is_signed_by(new_ca); }))
        << "what the old CA signed goes along";
    const crypto::TrustStore trust(crypto::read_certificates(world.bundle()).value(), {});
    EXPECT_EQ(trust.verify({leaf}, crypto::Purpose::any, wall_ms()).fault, "")
        << "and counts on where somebody still shows it";
    // Neither who has read the bundle nor who has not refuses what is shown now.
    for (const auto& one : {old_ca, new_ca})
        EXPECT_EQ(
            crypto::TrustStore({one}, {}).verify(world.chain("leaf"), crypto::Purpose::any, wall_ms()).fault,
            "");
    // What is issued from now on is the new CA's, and good for who has the bundle.
    world.registry->create(manager("Certificate"), space, certificate("next", {{"commonName", "next"}, {"privateKey", {{"algorithm", "ECDSA"}}}})).value();
    ASSERT_TRUE(world.wait([&] { return world.ready("next") == "True Ready"; }));
    EXPECT_TRUE(world.issued("next").is_signed_by(new_ca));
    EXPECT_EQ(trust.verify({world.issued("next")}, crypto::Purpose::any, wall_ms()).fault, "");
}

// Four years on the installation's CA has its successor, and everything goes along; after the fifth the old
// one is gone.
TEST(Certificates, a_ca_that_nears_its_end_takes_its_leaves_along) {
    World world;
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("leaf", {{"commonName", "leaf"}, {"privateKey", {{"algorithm", "ECDSA"}}}}))
        .value();
    ASSERT_TRUE(world.wait([&] { return world.ready("leaf") == "True Ready" && !world.bundle().empty(); }));
    const auto old_ca = world.issued(control::ca_secret, control::ca_namespace);
    world.pass(4 * 365 * day + 60 * day);
    ASSERT_TRUE(world.wait([&] {
        return world.issued(control::ca_secret, control::ca_namespace).fingerprint() != old_ca.fingerprint();
    }));
    const auto new_ca = world.issued(control::ca_secret, control::ca_namespace);
    ASSERT_TRUE(world.wait([&] {
        return world.issued("leaf").is_signed_by(new_ca) && world.bundle() == new_ca.pem() + old_ca.pem();
    }));
    for (const auto& one : {old_ca, new_ca})
        EXPECT_EQ(crypto::TrustStore({one}, {})
                      .verify(world.chain("leaf"), crypto::Purpose::any, world.now())
                      .fault,
                  "");
    EXPECT_NE(control::certificate_metrics(world.objects)
                  .find("penstock_issuer_ca_not_after_timestamp_seconds{kind=\"ClusterIssuer\",namespace=\"\",name=\"azure-iot-"
                        "operations-aio-certificate-issuer\"} " +
                        std::to_string(new_ca.not_after_ms() / 1000)),
              std::string::npos);
    world.pass(365 * day);
    ASSERT_TRUE(world.wait([&] { return world.bundle() == new_ca.pem(); }))
        << "what has ended leaves the bundle";
}

struct OwnCa {
    std::string key = crypto::make_key("Ec256").value();
    std::string pem;
    OwnCa(std::int64_t now, std::int64_t life)
        : pem(crypto::issue_certificate(key, nullptr,
                                        {.subject = {{"CN", "Plant CA"}},
                                         .is_ca = true,
                                         .not_before_ms = now - hour,
                                         .not_after_ms = now + life})
                  .value()) {}
    [[nodiscard]] Json secret() const {
        return {{"metadata", {{"name", "mine"}}},
                {"type", "kubernetes.io/tls"},
                {"data", {{"tls.crt", base64_encode(pem)}, {"tls.key", base64_encode(key)}}}};
    }
};

TEST(Certificates, a_ca_that_was_replaced_by_hand_takes_its_leaves_along) {
    World world;
    const OwnCa one(world.now(), 1000 * day), two(world.now(), 1000 * day);
    world.registry->create(core("Secret"), space, one.secret()).value();
    world.registry
        ->create(manager("Issuer"), space,
                 {{"metadata", {{"name", "mine"}}}, {"spec", {{"ca", {{"secretName", "mine"}}}}}})
        .value();
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("leaf", {{"commonName", "leaf"},
                                      {"privateKey", {{"algorithm", "ECDSA"}}},
                                      {"issuerRef", {{"kind", "Issuer"}, {"name", "mine"}}}}))
        .value();
    // An intermediate of that CA, and what it signs, go along too.
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("middle", {{"commonName", "middle"},
                                        {"isCA", true},
                                        {"privateKey", {{"algorithm", "ECDSA"}}},
                                        {"issuerRef", {{"kind", "Issuer"}, {"name", "mine"}}}}))
        .value();
    world.registry
        ->create(manager("Issuer"), space,
                 {{"metadata", {{"name", "middle"}}}, {"spec", {{"ca", {{"secretName", "middle"}}}}}})
        .value();
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("below", {{"commonName", "below"},
                                       {"privateKey", {{"algorithm", "ECDSA"}}},
                                       {"issuerRef", {{"kind", "Issuer"}, {"name", "middle"}}}}))
        .value();
    auto good = [&](const std::string& root) {
        const crypto::TrustStore trust(crypto::read_certificates(root).value(), {});
        for (const char* name : {"leaf", "below"})
            if (world.ready(name) != "True Ready" ||
                !trust.verify(world.chain(name), crypto::Purpose::any, world.now()).ok())
                return false;
        return true;
    };
    ASSERT_TRUE(world.wait([&] { return good(one.pem); }));
    world.registry
        ->patch(core("Secret"), space, "mine", registry::PatchType::merge, {{"data", two.secret()["data"]}},
                false)
        .value();
    ASSERT_TRUE(world.wait([&] { return good(two.pem); })) << world.message("leaf") << world.message("below");
}

// An issuer whose CA is what it signs: following such a CA would never end.
TEST(Certificates, a_ca_that_signs_itself_in_a_circle_is_not_followed_for_ever) {
    World world;
    const OwnCa ca(world.now(), 1000 * day);
    world.registry->create(core("Secret"), space, ca.secret()).value();
    world.registry
        ->create(manager("Issuer"), space,
                 {{"metadata", {{"name", "mine"}}}, {"spec", {{"ca", {{"secretName", "mine"}}}}}})
        .value();
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("mine", {{"commonName", "Circle"},
                                      {"isCA", true},
                                      {"privateKey", {{"algorithm", "ECDSA"}}},
                                      {"issuerRef", {{"kind", "Issuer"}, {"name", "mine"}}}}))
        .value();
    ASSERT_TRUE(world.wait([&] {
        return world.issued("mine").common_name() == "Circle" && world.ready("mine") == "True Ready";
    }));
    const auto first = world.issued("mine");
    for (int i = 0; i < 3; ++i) {
        const auto before = world.controllers.engine().counts().at("certificate").at("after");
        world.pass(1000);
        ASSERT_TRUE(world.wait([&] {
            return world.controllers.engine().counts().at("certificate").at("after") > before + 1;
        })) << "it was looked at";
    }
    EXPECT_EQ(world.issued("mine").fingerprint(), first.fingerprint());
}

// What ends with its CA was issued again and again in the CA's last hours, as fast as the machine could.
TEST(Certificates, what_ends_with_its_ca_is_not_issued_again_and_again) {
    World world;
    const OwnCa ca(world.now(), 10 * 60'000);
    world.registry->create(core("Secret"), space, ca.secret()).value();
    world.registry
        ->create(manager("Issuer"), space,
                 {{"metadata", {{"name", "mine"}}}, {"spec", {{"ca", {{"secretName", "mine"}}}}}})
        .value();
    world.registry
        ->create(manager("Certificate"), space,
                 certificate("leaf", {{"commonName", "leaf"},
                                      {"privateKey", {{"algorithm", "ECDSA"}}},
                                      {"issuerRef", {{"kind", "Issuer"}, {"name", "mine"}}}}))
        .value();
    ASSERT_TRUE(world.wait([&] { return world.ready("leaf") == "True Ready"; }));
    const auto first = world.issued("leaf");
    for (const std::int64_t minutes : {1, 4, 4}) {
        world.pass(minutes * 60'000);
        const auto before = world.controllers.engine().counts().at("certificate").at("after");
        ASSERT_TRUE(world.wait([&] {
            return world.controllers.engine().counts().at("certificate").at("after") > before;
        })) << "it was looked at";
    }
    EXPECT_EQ(world.issued("leaf").fingerprint(), first.fingerprint());
    ASSERT_TRUE(world.wait([&] {
        return world.message("leaf").find("it ends with its CA at") != std::string::npos;
    })) << world.message("leaf");
    ASSERT_TRUE(world.wait([&] {
        return text_at(at_path(*world.objects.get(manager("Issuer"), space, "mine"), "status.conditions")[0],
                       "message")
                   .find("renew or replace it") != std::string::npos;
    }));
    // Its successor, of the same key or another, is followed at once.
    const OwnCa next(world.now(), 1000 * day);
    world.registry
        ->patch(core("Secret"), space, "mine", registry::PatchType::merge, {{"data", next.secret()["data"]}},
                false)
        .value();
    ASSERT_TRUE(world.wait([&] { return world.issued("leaf").not_after_ms() > world.now() + 80 * day; }));
}

TEST(Certificates, what_cannot_be_issued_says_why) {
    World world;
    auto message = [&](const std::string& name) {
        const auto object = world.objects.get(manager("Certificate"), space, name);
        const auto& conditions = at_path(*object, "status.conditions");
        return conditions.is_array() && !conditions.empty() ? text_at(conditions[0], "message") : std::string();
    };
    world.registry->create(manager("Certificate"), space, certificate("nobody", {{"commonName", "x"}, {"issuerRef", {{"kind", "Issuer"}, {"name", "none"}}}})).value();
    ASSERT_TRUE(world.wait([&] { return message("nobody").find("Issuer \"none\" does not exist") != std::string::npos; })) << message("nobody");
    world.registry->create(manager("Certificate"), space, certificate("empty", Json::object())).value();
    ASSERT_TRUE(world.wait([&] { return message("empty").find("at least one of spec.commonName") != std::string::npos; })) << message("empty");
    world.registry->create(manager("Certificate"), space, certificate("name", {{"dnsNames", {"a b"}}})).value();
    ASSERT_TRUE(world.wait([&] { return message("name").find("is no DNS name") != std::string::npos; })) << message("name");
    world.registry->create(manager("Issuer"), space, {{"metadata", {{"name", "mine"}}}, {"spec", {{"ca", {{"secretName", "mine"}}}}}}).value();
    world.registry->create(manager("Certificate"), space, certificate("waits", {{"commonName", "x"}, {"privateKey", {{"algorithm", "ECDSA"}}}, {"issuerRef", {{"kind", "Issuer"}, {"name", "mine"}}}})).value();
    ASSERT_TRUE(world.wait([&] { return message("waits").find("secret \"mine\" not found") != std::string::npos; })) << message("waits");
    // A key pair that is no CA, then one that is: whoever waited gets its certificate.
    const auto key = crypto::make_key("Ec256").value();
    auto pair = [&](bool is_ca) { return crypto::issue_certificate(key, nullptr, {.subject = {{"CN", "Mine"}}, .is_ca = is_ca, .not_before_ms = wall_ms(), .not_after_ms = wall_ms() + 86'400'000}).value(); };
    world.registry->create(core("Secret"), space, {{"metadata", {{"name", "mine"}}}, {"type", "kubernetes.io/tls"}, {"data", {{"tls.crt", base64_encode(pair(false))}, {"tls.key", base64_encode(key)}}}}).value();
    ASSERT_TRUE(world.wait([&] { return message("waits").find("is not a CA") != std::string::npos; })) << message("waits");
    world.registry->patch(core("Secret"), space, "mine", registry::PatchType::merge, {{"data", {{"tls.crt", base64_encode(pair(true))}}}}, false).value();
    ASSERT_TRUE(world.wait([&] { return world.ready("waits") == "True Ready"; })) << message("waits");
}

// What a CA signs with a key that no client takes is refused by all: its issuer is not ready, and signs nothing.
TEST(Certificates, a_ca_whose_signatures_nobody_takes_issues_nothing) {
    World world;
    auto condition = [&](const char* kind, const std::string& name) {
        const auto object = world.objects.get(manager(kind), space, name);
        const auto& conditions = object != nullptr ? at_path(*object, "status.conditions") : Json();
        return conditions.is_array() && !conditions.empty() ? text_at(conditions[0], "status") + " " + text_at(conditions[0], "message") : std::string();
    };
    const auto weak = harness::make_authority("weak", nullptr, harness::make_key("RSA 1024")), odd = harness::make_authority("odd", nullptr, harness::make_key("secp256k1"));
    const auto below = harness::make_authority("below", &weak);
    for (const auto& [name, pem, key, word] : {std::tuple{"weak", weak.certificate.pem(), weak.key, "weak key (RSA 1024)"}, std::tuple{"odd", odd.certificate.pem(), odd.key, "curve secp256k1"},
                                               std::tuple{"below", below.certificate.pem() + weak.certificate.pem(), below.key, "certificate 2 (\"CN = weak\") has a weak key"}}) {
        const std::string at = name;
        world.registry->create(core("Secret"), space, {{"metadata", {{"name", at}}}, {"type", "kubernetes.io/tls"}, {"data", {{"tls.crt", base64_encode(pem)}, {"tls.key", base64_encode(harness::key_pem(key.get()))}}}}).value();
        world.registry->create(manager("Issuer"), space, {{"metadata", {{"name", at}}}, {"spec", {{"ca", {{"secretName", at}}}}}}).value();
        world.registry->create(manager("Certificate"), space, certificate("of-" + at, {{"secretName", "of-" + at}, {"commonName", "x"}, {"privateKey", {{"algorithm", "ECDSA"}}}, {"issuerRef", {{"kind", "Issuer"}, {"name", at}}}})).value();
        for (const auto& [kind, object] : {std::pair{"Issuer", at}, std::pair{"Certificate", "of-" + at}}) {
            ASSERT_TRUE(world.wait([&] { return condition(kind, object).find(word) != std::string::npos; })) << kind << " " << object << ": " << condition(kind, object);
            EXPECT_TRUE(condition(kind, object).starts_with("False ")) << condition(kind, object);
        }
        EXPECT_EQ(world.objects.get(core("Secret"), space, "of-" + at), nullptr);
    }
}

// --- what a port gets ---

struct Security {
    std::unique_ptr<registry::Registry> registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    [[nodiscard]] static std::int64_t now() { return machine_clock().wall_ms(); }
    control::SecurityBuilder builder{objects,
                                     {.clock = machine_clock(),
                                      .probe_secret = std::make_shared<const std::string>("s"),
                                      .crew = std::make_shared<auth::Crew>(1, 4)}};
    Json listener{{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"metadata", {{"name", "l"}, {"namespace", space}, {"uid", "u"}}}, {"spec", {{"serviceName", "svc"}}}};
    control::PreparedTls manual(const std::string& secret) { return builder.tls(listener, {{"port", 8883}, {"tls", {{"mode", "Manual"}, {"manual", {{"secretRef", secret}}}}}}, {"localhost", "10.1.2.3"}, false, {}, false); }
};

void create_authentication(Security& world, const char* name, const Json& method) {
    world.registry->create(broker_kind("BrokerAuthentication"), space, {{"metadata", {{"name", name}}}, {"spec", {{"authenticationMethods", Json::array({method})}}}}).value();
}

TEST(ListenerSecurity, a_manual_certificate_is_named_with_its_faults_and_followed) {
    Security world;
    EXPECT_NE(world.manual("none").fault.find("Secret azure-iot-operations/none does not exist; make it with: kubectl create secret tls none"), std::string::npos);
    const auto ca = crypto::make_ca("ca", 10).value();
    auto make = [&](std::vector<std::string> names, std::vector<std::string> ips) { return crypto::make_leaf(ca, {.common_name = "broker", .dns_names = std::move(names), .addresses = std::move(ips), .server = true, .days = 90}).value(); };
    auto put = [&](const crypto::KeyPair& pair) {
        const Json data = {{"data", {{"tls.crt", base64_encode(pair.certificate)}, {"tls.key", base64_encode(pair.key)}}}};
        if (world.registry->get(core("Secret"), space, "mine")) {
            world.registry->patch(core("Secret"), space, "mine", registry::PatchType::merge, data, false).value();
        } else {
            auto object = data;
            object["metadata"] = {{"name", "mine"}};
            object["type"] = "kubernetes.io/tls";
            world.registry->create(core("Secret"), space, object).value();
        }
    };
    put(make({"localhost"}, {"10.1.2.3"}));
    const auto first = world.manual("mine");
    ASSERT_NE(first.context, nullptr) << first.fault;
    EXPECT_TRUE(first.warnings.empty()) << first.warnings.front();
    EXPECT_EQ(world.manual("mine").context, first.context) << "the same as long as nothing changes";
    put(make({"localhost"}, {}));
    const auto second = world.manual("mine");
    EXPECT_NE(second.context, first.context);
    ASSERT_EQ(second.warnings.size(), 1u);
    EXPECT_NE(second.warnings[0].find("does not cover 10.1.2.3"), std::string::npos);
    put(make({}, {}));
    EXPECT_NE(world.manual("mine").warnings.at(0).find("no subjectAltName"), std::string::npos);
    const auto third = world.manual("mine").context;
    // A replacement that cannot be used does not take the port away.
    put({.certificate = make({"a"}, {}).certificate, .key = make({"b"}, {}).key});
    const auto kept = world.manual("mine");
    EXPECT_EQ(kept.context, third);
    EXPECT_NE(kept.warnings.at(0).find("goes on being served"), std::string::npos);
}

TEST(ListenerSecurity, the_names_of_a_port_on_the_network_are_its_owners) {
    Security world;
    const auto ca = crypto::make_ca("ca", 10).value();
    auto warnings = [&](const char* type, const char* secret, std::vector<std::string> names, std::vector<std::string> ips) {
        const auto pair = crypto::make_leaf(ca, {.common_name = "broker", .dns_names = std::move(names), .addresses = std::move(ips), .server = true, .days = 90}).value();
        world.registry->create(core("Secret"), space, {{"metadata", {{"name", secret}}}, {"type", "kubernetes.io/tls"}, {"data", {{"tls.crt", base64_encode(pair.certificate)}, {"tls.key", base64_encode(pair.key)}}}}).value();
        world.listener["spec"]["serviceType"] = type;
        return world.manual(secret).warnings;
    };
    EXPECT_TRUE(warnings("LoadBalancer", "a", {"broker.plant.example"}, {}).empty()) << "loopback's names are no business of the network";
    EXPECT_TRUE(warnings("NodePort", "b", {}, {"10.1.2.3"}).empty());
    EXPECT_EQ(warnings("ClusterIp", "c", {"broker.plant.example"}, {"10.1.2.3"}).size(), 1u) << "here clients dial localhost";
    const auto shut = warnings("LoadBalancer", "d", {"localhost"}, {"127.0.0.1"});
    ASSERT_EQ(shut.size(), 1u) << "nothing in it leads here from outside";
    EXPECT_NE(shut[0].find("does not cover 10.1.2.3"), std::string::npos);
}

TEST(ListenerSecurity, authentication_says_what_is_missing) {
    Security world;
    EXPECT_NE(world.builder.authenticator(space, "authn").fault.find("does not exist"), std::string::npos);
    world.registry->create(broker_kind("BrokerAuthentication"), space, {{"metadata", {{"name", "authn"}}}, {"spec", {{"authenticationMethods", Json::array({{{"method", "x509"}, {"x509Settings", {{"trustedClientCaCert", "ca"}}}}})}}}}).value();
    EXPECT_NE(world.builder.authenticator(space, "authn").fault.find("kubectl create configmap ca"), std::string::npos);
    world.registry->create(core("ConfigMap"), space, {{"metadata", {{"name", "ca"}}}, {"data", {{"any.pem", "nothing"}}}}).value();
    EXPECT_NE(world.builder.authenticator(space, "authn").fault.find("has no certificate in PEM"), std::string::npos);
    auto put = [&](const std::string& text) { world.registry->patch(core("ConfigMap"), space, "ca", registry::PatchType::merge, {{"data", {{"any.pem", text}}}}, false).value(); };
    put(crypto::make_ca("ca", 10)->certificate.substr(0, 300));
    EXPECT_NE(world.builder.authenticator(space, "authn").fault.find("entry any.pem"), std::string::npos);
    put(crypto::make_ca("ca", 10)->certificate + crypto::make_ca("ca2", 10)->certificate);
    const auto good = world.builder.authenticator(space, "authn");
    ASSERT_NE(good.authenticator, nullptr) << good.fault;
    EXPECT_EQ(good.authorities.size(), 2u);
    EXPECT_EQ(world.builder.authenticator(space, "authn").authenticator, good.authenticator);
    put("-----BEGIN CERTIFICATE-----\nbroken");
    const auto kept = world.builder.authenticator(space, "authn");
    EXPECT_EQ(kept.authenticator, good.authenticator) << "a damaged bundle throws nobody out";
    EXPECT_FALSE(kept.warnings.empty());
}

// What Penstock makes by itself is not for its owner to make, also while it is on its way or was taken away.
TEST(ListenerSecurity, what_is_made_by_itself_is_nobodys_to_make) {
    Security world;
    world.registry->create(core("Namespace"), "", {{"metadata", {{"name", control::ca_namespace}}}}).value();
    auto create = [&](const char* kind, const char* in, Json object) { world.registry->create(manager(kind), in, std::move(object)).value(); };
    create("Certificate", control::ca_namespace, certificate(control::ca_secret, {{"isCA", true}, {"commonName", "ca"}, {"issuerRef", {{"kind", "ClusterIssuer"}, {"name", control::root_issuer}}}}));
    create("ClusterIssuer", "", {{"metadata", {{"name", control::default_issuer}}}, {"spec", {{"ca", {{"secretName", control::ca_secret}}}}}});
    auto issuer = [&] {
        return control::issuer_fault(
            world.objects, *world.objects.get(manager("ClusterIssuer"), "", control::default_issuer),
            world.now());
    };
    const auto to_come = "Certificate cert-manager/azure-iot-operations-aio-ca-certificate makes it, and has not yet";
    EXPECT_NE(issuer().find(to_come), std::string::npos) << issuer();
    EXPECT_EQ(issuer().find("kubectl create"), std::string::npos) << issuer();
    // A listener's own, by hand or not, and a custom server's.
    create("Certificate", space, certificate("broker", {{"commonName", "b"}, {"secretName", "pair"}}));
    const auto by_hand = world.manual("pair").fault;
    EXPECT_NE(by_hand.find("Certificate azure-iot-operations/broker makes it, and has not yet"), std::string::npos) << by_hand;
    EXPECT_EQ(by_hand.find("kubectl create"), std::string::npos) << by_hand;
    // One that cannot: where the reason stands.
    world.registry->put_status(manager("Certificate"), space, "broker", [](const Json&) -> std::optional<Json> { return Json{{"conditions", Json::array({{{"type", "Ready"}, {"status", "False"}, {"reason", "r"}, {"message", "m"}}})}}; }).value();
    EXPECT_NE(world.manual("pair").fault.find("Certificate azure-iot-operations/broker is to make it, and cannot yet; see why with: kubectl describe certificate broker -n azure-iot-operations"), std::string::npos) << world.manual("pair").fault;
    // The bundle of the installation's CA, as trust of clients.
    create_authentication(world, "bundled", {{"method", "X509"}, {"x509Settings", {{"trustedClientCaCert", control::trust_bundle}}}});
    const auto bundle = world.builder.authenticator(space, "bundled").fault;
    EXPECT_NE(bundle.find("it is made as soon as ClusterIssuer azure-iot-operations-aio-certificate-issuer has its CA"), std::string::npos) << bundle;
    EXPECT_EQ(bundle.find("kubectl create"), std::string::npos) << bundle;
    // Where nothing makes it (its Certificate was taken away), a person does, or takes the issuer away too.
    world.registry->remove(manager("Certificate"), control::ca_namespace, control::ca_secret).value();
    EXPECT_NE(issuer().find("make it with: kubectl create secret tls azure-iot-operations-aio-ca-certificate"), std::string::npos) << issuer();
    // A CA that is to make its own Secret never does.
    create("Certificate", space, certificate("own", {{"commonName", "o"}, {"isCA", true}, {"issuerRef", {{"kind", "Issuer"}, {"name", "own"}}}}));
    create("Issuer", space, {{"metadata", {{"name", "own"}}}, {"spec", {{"ca", {{"secretName", "own"}}}}}});
    const auto circle = control::issuer_fault(
        world.objects, *world.objects.get(manager("Issuer"), space, "own"), world.now());
    EXPECT_NE(circle.find("make it with: kubectl create secret tls own"), std::string::npos) << circle;
}

// A password file is many users, not one whose name is that of the file.
TEST(ListenerSecurity, a_password_file_in_one_entry_is_told_as_such) {
    Security world;
    create_authentication(world, "people", {{"method", "Password"}, {"passwordSettings", {{"secretRef", "people"}}}});
    auto warnings = [&](const std::string& entry, const std::string& text) {
        if (world.registry->get(core("Secret"), space, "people")) world.registry->remove(core("Secret"), space, "people").value();
        world.registry->create(core("Secret"), space, {{"metadata", {{"name", "people"}}}, {"data", {{entry, base64_encode(text)}}}}).value();
        std::string out;
        for (const auto& one : world.builder.authenticator(space, "people").warnings) out += one + "\n";
        return out;
    };
    const auto hash = crypto::hash_like("$7$101$" + std::string(16, 'A') + "$" + std::string(86, 'A') + "==", "geheim");
    ASSERT_EQ(crypto::password_hash_fault(hash), "");
    EXPECT_EQ(warnings("passwd", hash + "\n"), "") << "a user of that name";
    const auto file = warnings("passwd", "ann:" + hash + "\n# staff\n\nbob:" + hash + "\r\n");
    EXPECT_NE(file.find("entry \"passwd\" of Secret people is a whole password file with 2 users, of whom none can log in: here each user is an entry of its own"), std::string::npos) << file;
    EXPECT_NE(file.find("| penstock passwd -n azure-iot-operations people --import /dev/stdin"), std::string::npos) << file;
    EXPECT_NE(file.find("kubectl patch secret people -n azure-iot-operations --type merge -p 'data: {passwd: null}'"), std::string::npos) << file;
    EXPECT_EQ(file.find("user \"passwd\""), std::string::npos) << file;
    const auto own = warnings("ann", "ann:" + hash + "\n");
    EXPECT_EQ(own.find("null"), std::string::npos) << "the user takes the place of the file: " << own;
    const auto old = warnings("passwd", "ann:$6$c2FsdHNhbHQ=$aGFzaA==\nbob:" + hash + "\n");
    EXPECT_NE(old.find("line 1 (user \"ann\": "), std::string::npos) << old;
    EXPECT_NE(old.find("penstock passwd -n azure-iot-operations people USER"), std::string::npos) << old;
    EXPECT_NE(warnings("passwd", "a word").find("user \"passwd\" of Secret people cannot log in"), std::string::npos);
}

// What stands in a Secret beside a pair is not the issuer's to take away.
TEST(ListenerSecurity, a_pair_is_issued_anew_without_what_stands_beside) {
    Security world;
    auto fault = [&](Json metadata, Json data, const char* type = "kubernetes.io/tls", bool immutable = false) {
        metadata["name"] = "l-8883-tls";
        if (world.registry->get(core("Secret"), space, "l-8883-tls")) world.registry->remove(core("Secret"), space, "l-8883-tls").value();
        data["tls.crt"] = data["tls.key"] = base64_encode("x");
        world.registry->create(core("Secret"), space, {{"metadata", metadata}, {"type", type}, {"immutable", immutable}, {"data", data}}).value();
        const Json tls = {{"mode", "Automatic"}, {"certManagerCertificateSpec", {{"issuerRef", {{"kind", "ClusterIssuer"}, {"name", "i"}}}, {"secretName", "l-8883-tls"}}}};
        return world.builder.tls(world.listener, {{"port", 8883}, {"tls", tls}}, {"localhost"}, false, {}, false).fault;
    };
    const std::string whole = "have it issued anew with: kubectl delete secret l-8883-tls -n azure-iot-operations",
                      pair = "have it issued anew with: kubectl patch secret l-8883-tls -n azure-iot-operations --type merge -p 'stringData: {tls.crt: none, tls.key: none}'";
    const Json own = {{"annotations", {{"cert-manager.io/issuer-name", "i"}}}, {"labels", {{"controller.cert-manager.io/fao", "true"}}}};
    EXPECT_NE(fault(own, {{"ca.crt", ""}}).find(whole), std::string::npos) << fault(own, {{"ca.crt", ""}});
    EXPECT_NE(fault(own, {{"token", "eA=="}}).find(pair), std::string::npos) << fault(own, {{"token", "eA=="}});
    EXPECT_NE(fault({{"labels", {{"hall", "4"}}}}, Json::object()).find(pair), std::string::npos);
    EXPECT_NE(fault({{"annotations", {{"owner", "ann"}}}}, Json::object()).find(pair), std::string::npos);
    EXPECT_NE(fault(own, {{"token", "eA=="}}, "Opaque", true).find(whole), std::string::npos) << "nobody can write into it";
    EXPECT_NE(fault(own, {{"token", "eA=="}}, "Opaque").find(pair), std::string::npos);
}

TEST(ListenerSecurity, faulty_policies_are_refused_by_field) {
    Security world;
    auto faults = [&](Json spec) {
        const auto made = world.registry->create(broker_kind("BrokerAuthorization"), space, {{"metadata", {{"name", "policy"}}}, {"spec", {{"authorizationPolicies", {{"rules", Json::array({std::move(spec)})}}}}}}, {.dry_run = true});
        return made ? std::string() : made.error().message;
    };
    const Json someone = {{"usernames", {"u"}}};
    EXPECT_EQ(faults({{"principals", someone}, {"brokerResources", Json::array({{{"method", "connect"}}, {{"method", "Publish"}, {"topics", {"a/{principal.clientId}/#"}}}})}}), "");
    EXPECT_NE(faults({{"principals", someone}, {"brokerResources", Json::array({{{"method", "Publish"}}})}}).find("brokerResources[0].topics: Required value"), std::string::npos);
    EXPECT_NE(faults({{"principals", someone}, {"brokerResources", Json::array({{{"method", "Connect"}, {"topics", {"a"}}}})}}).find("brokerResources[0].topics: Forbidden"), std::string::npos);
    EXPECT_NE(faults({{"principals", someone}, {"brokerResources", Json::array({{{"method", "Subscribe"}, {"topics", {"a#"}}}})}}).find("no topic filter"), std::string::npos);
    EXPECT_NE(faults({{"principals", someone}, {"brokerResources", Json::array({{{"method", "Subscribe"}, {"topics", {"x-{principal.clientId}/#"}}}})}}).find("must be a whole level"), std::string::npos);
    EXPECT_NE(faults({{"principals", Json::object()}, {"brokerResources", Json::array({{{"method", "Connect"}}})}}).find("principals: Required value"), std::string::npos);
    EXPECT_NE(faults({{"principals", someone}, {"brokerResources", Json::array({{{"method", "Delete"}}})}}).find("brokerResources[0].method"), std::string::npos);
}

TEST(Durations, as_go_writes_them) {
    EXPECT_EQ(parse_duration_ms("2160h"), 2160LL * 3'600'000);
    EXPECT_EQ(parse_duration_ms("1h30m5s"), 5'405'000);
    EXPECT_EQ(parse_duration_ms("1.5h"), 5'400'000);
    for (const auto* bad : {"", "5", "h", "5x", "-1h", "1h-"}) EXPECT_FALSE(parse_duration_ms(bad)) << bad;
}

// RFC 6960, 2.4: an answer without a next update says that newer ones are there all the time. An old one would hide a revocation.
TEST(Ocsp, an_old_answer_is_nobodys_word) {
    const auto now = wall_ms();
    const crypto::IssueOptions ca_options{.subject = {{"CN", "CA"}}, .is_ca = true, .not_before_ms = now - 3'600'000, .not_after_ms = now + 86'400'000LL * 30};
    const auto ca_key = crypto::make_key("Ec256").value(), key = crypto::make_key("Ec256").value();
    const auto ca_pem = crypto::issue_certificate(ca_key, nullptr, ca_options).value();
    const crypto::KeyPair issuer{.certificate = ca_pem, .key = ca_key};
    const auto leaf_pem = crypto::issue_certificate(key, &issuer, {.subject = {{"CN", "leaf"}}, .not_before_ms = now - 3'600'000, .not_after_ms = now + 86'400'000LL * 20}).value();
    const auto ca = crypto::read_certificates(ca_pem).value().front(), leaf = crypto::read_certificates(leaf_pem).value().front();
    auto answer = [&](std::int64_t age_s, bool has_next) {
        const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(ca_key.data(), static_cast<int>(ca_key.size())), &BIO_free);
        const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> signer(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
        const std::unique_ptr<OCSP_BASICRESP, decltype(&OCSP_BASICRESP_free)> basic(OCSP_BASICRESP_new(), &OCSP_BASICRESP_free);
        const std::unique_ptr<OCSP_CERTID, decltype(&OCSP_CERTID_free)> id(OCSP_cert_to_id(EVP_sha1(), leaf.native(), ca.native()), &OCSP_CERTID_free);
        const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> since(X509_gmtime_adj(nullptr, -age_s), &ASN1_TIME_free), next(X509_gmtime_adj(nullptr, 3600), &ASN1_TIME_free);
        OCSP_basic_add1_status(basic.get(), id.get(), V_OCSP_CERTSTATUS_GOOD, 0, nullptr, since.get(), has_next ? next.get() : nullptr);
        OCSP_basic_sign(basic.get(), ca.native(), signer.get(), EVP_sha256(), nullptr, 0);
        const std::unique_ptr<OCSP_RESPONSE, decltype(&OCSP_RESPONSE_free)> whole(OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic.get()), &OCSP_RESPONSE_free);
        unsigned char* bytes = nullptr;
        const int size = i2d_OCSP_RESPONSE(whole.get(), &bytes);
        const std::string out(bytes, bytes + size);
        OPENSSL_free(bytes);
        const auto status = crypto::ocsp_status(out, leaf, ca, now);
        return status ? std::string("good") : status.error().message;
    };
    EXPECT_EQ(answer(60, false), "good");
    EXPECT_EQ(answer(200'000, true), "good");
    EXPECT_EQ(answer(200'000, false), "the answer is too old: it names no next update and is more than a day old");
}

}  // namespace
}  // namespace penstock
