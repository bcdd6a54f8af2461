// Who a client is and what it may do: policies, tokens, passwords, and what the core makes of the answers.
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <future>
#include <latch>
#include <mutex>
#include <random>
#include <thread>

#include "auth/methods.h"
#include "auth/policy.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "control/custom_server.h"
#include "crypto/certificate.h"
#include "crypto/password.h"
#include "crypto/signature.h"
#include "harness/memory_net.h"
#include "mqtt/packets.h"
#include "topics/topic.h"

namespace penstock {
namespace {

using auth::Action;
using auth::Attributes;
using auth::Principal;
using Json = nlohmann::json;
using test::MemoryNet;

std::shared_ptr<const Attributes> with(Attributes attributes) { return std::make_shared<const Attributes>(std::move(attributes)); }
std::shared_ptr<const auth::Policy> policy(std::vector<auth::Rule> rules) { return std::make_shared<const auth::Policy>(std::move(rules)); }

// --- policy ---

TEST(Policy, worked_example_of_the_tutorial) {
    const auto p = policy({{.user_names = {"heater"},
                            .attributes = {{{"group", "thermostat_group"}}, {{"group", "hygrometer_group"}}, {{"manufacturer", "fabrikam"}}},
                            .resources = {{Action::connect, {}}, {Action::publish, {"telemetry/{principal.username}/#"}}, {Action::subscribe, {"cmd/#"}}}}});
    auto grant = [&](const std::string& user, Attributes attributes) { return p->resolve({.user_name = user, .attributes = with(std::move(attributes))}, user); };
    for (const auto& g : {grant("thermostat", {{"group", "thermostat_group"}}), grant("x", {{"group", "hygrometer_group"}, {"more", "1"}}), grant("y", {{"manufacturer", "fabrikam"}}), grant("heater", {})}) EXPECT_TRUE(g->may_connect());
    EXPECT_FALSE(grant("stranger", {})->may_connect());
    EXPECT_FALSE(grant("stranger", {{"group", "other"}})->may_connect());
    const auto heater = grant("heater", {});
    EXPECT_TRUE(heater->may_publish("telemetry/heater/t"));
    EXPECT_TRUE(heater->may_publish("telemetry/heater"));
    EXPECT_FALSE(heater->may_publish("telemetry/other/t"));
    EXPECT_TRUE(heater->may_subscribe("cmd/+/x"));
    EXPECT_FALSE(heater->may_subscribe("#"));
    EXPECT_FALSE(heater->may_subscribe("telemetry/heater/#"));
}

TEST(Policy, nothing_is_allowed_without_a_rule_and_all_pairs_of_a_set_must_match) {
    EXPECT_FALSE(policy({})->resolve({.user_name = "u"}, "c")->may_connect());
    const auto p = policy({{.attributes = {{{"site", "oslo"}, {"role", "actuator"}}, {{"site", "bergen"}}}, .resources = {{Action::connect, {"{principal.attributes.site}-*", "line-gateway"}}}},
                           {.client_ids = {"line-gateway"}, .resources = {{Action::publish, {"a"}}}}});
    auto may = [&](Attributes attributes, const std::string& id) { return p->resolve({.attributes = with(std::move(attributes))}, id)->may_connect(); };
    EXPECT_TRUE(may({{"site", "oslo"}, {"role", "actuator"}}, "oslo-1"));
    EXPECT_FALSE(may({{"site", "oslo"}}, "oslo-1"));
    EXPECT_FALSE(may({{"site", "oslo"}, {"role", "sensor"}}, "oslo-1"));
    EXPECT_TRUE(may({{"site", "bergen"}}, "bergen-x"));
    EXPECT_FALSE(may({{"site", "bergen"}}, "oslo-1"));
    // Connect and the operation must both be allowed.
    const auto gateway = p->resolve({}, "line-gateway");
    EXPECT_TRUE(gateway->may_publish("a"));
    EXPECT_FALSE(gateway->may_connect());
}

TEST(Policy, values_never_widen_what_a_token_stands_for) {
    const auto p = policy({{.attributes = {{{"site", "*"}}}, .resources = {{Action::connect, {"{principal.attributes.site}-x"}}, {Action::publish, {"plant/{principal.clientId}/#", "{principal.username}/t"}}, {Action::subscribe, {"plant/{principal.clientId}/+"}}},
                            .keys = {{.read = true, .write = true, .keys = {"{principal.clientId}-*"}}}}});
    auto grant = [&](const std::string& id, const std::string& user = "u") { return p->resolve({.user_name = user, .attributes = with({{"site", "*"}})}, id); };
    for (const auto* id : {"+", "#", "a/b", "+/x"}) {
        EXPECT_FALSE(grant(id)->may_publish("plant/other/x")) << id;
        EXPECT_FALSE(grant(id)->may_publish(fmt::format("plant/{}/x", id))) << id;
        EXPECT_FALSE(grant(id)->may_subscribe(fmt::format("plant/{}/+", id))) << id;
    }
    EXPECT_FALSE(grant("other-x")->may_connect()) << "a `*` in a value is a letter";
    EXPECT_TRUE(grant("*-x")->may_connect());
    for (const auto* id : {"*", "?", "[a-z]", "\\"}) {
        EXPECT_FALSE(grant(id)->may_use_key(Action::read_key, "victim-1")) << id;
        EXPECT_TRUE(grant(id)->may_use_key(Action::read_key, std::string(id) + "-1")) << id;
    }
    EXPECT_FALSE(grant("c", "$SYS")->may_publish("$SYS/t"));
    EXPECT_FALSE(grant("c", "")->may_publish("/t"));
}

TEST(Policy, tokens_are_whole_levels_in_topics) {
    EXPECT_EQ(auth::token_fault("clients/{principal.clientId}/#", true), "");
    EXPECT_NE(auth::token_fault("client-{principal.clientId}/#", true), "");
    EXPECT_NE(auth::token_fault("{principal.clientId}x", true), "");
    EXPECT_EQ(auth::token_fault("client-{principal.clientId}", false), "");
    EXPECT_NE(auth::token_fault("{principal.role}", false), "");
    EXPECT_NE(auth::token_fault("a/{x}/b", true), "");
    EXPECT_NE(auth::token_fault("{principal.attributes.}", false), "");
}

TEST(Policy, keys_by_pattern_text_and_bytes) {
    const auto p = policy({{.client_ids = {"c"},
                            .keys = {{.read = true, .keys = {"line[0-9]-?", "a*z"}}, {.write = true, .type = auth::Rule::KeyType::text, .keys = {"a*z"}}, {.read = true, .write = true, .type = auth::Rule::KeyType::binary, .keys = {std::string("\x00\x01", 2)}}}}});
    const auto g = p->resolve({}, "c");
    EXPECT_TRUE(g->may_use_key(Action::read_key, "line7-x"));
    EXPECT_FALSE(g->may_use_key(Action::read_key, "linex-x"));
    EXPECT_FALSE(g->may_use_key(Action::write_key, "line7-x"));
    EXPECT_TRUE(g->may_use_key(Action::read_key, "a--z"));
    EXPECT_TRUE(g->may_use_key(Action::write_key, "a*z"));
    EXPECT_FALSE(g->may_use_key(Action::write_key, "a--z"));
    EXPECT_TRUE(g->may_use_key(Action::write_key, std::string("\x00\x01", 2)));
    // A pattern that would take a careless matcher for ever.
    const auto evil = policy({{.client_ids = {"c"}, .keys = {{.read = true, .keys = {"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"}}}}});
    EXPECT_FALSE(evil->resolve({}, "c")->may_use_key(Action::read_key, std::string(5000, 'a')));
}

/// A filter covers another exactly when no topic tells them apart; tried on all topics of a small world.
TEST(Policy, covering_agrees_with_matching) {
    const std::vector<std::string> words{"a", "b", "+", "#", ""};
    std::vector<std::string> filters, topics_of_world;
    for (const auto& x : words)
        for (const auto& y : words)
            for (const auto& z : words)
                for (const auto& text : {x, x + "/" + y, x + "/" + y + "/" + z})
                    if (topics::is_valid_filter(text) && std::ranges::find(filters, text) == filters.end()) filters.push_back(text);
    for (const auto* x : {"a", "b", "c", "", "$s"})
        for (const auto* y : {"a", "b", "c", ""})
            for (const auto* z : {"a", "b", "c", ""})
                for (const auto& text : {std::string(x), fmt::format("{}/{}", x, y), fmt::format("{}/{}/{}", x, y, z), fmt::format("{}/{}/{}/q", x, y, z)})
                    if (!text.empty()) topics_of_world.push_back(text);
    for (const auto& allowed : filters)
        for (const auto& wanted : filters) {
            const bool subset = std::ranges::all_of(topics_of_world, [&](const auto& t) { return !topics::matches(wanted, t) || topics::matches(allowed, t); });
            const bool covers = topics::covers(allowed, wanted);
            EXPECT_TRUE(!covers || subset) << allowed << " " << wanted;
            // `+/#` and `#` match the same topics but are not compared as such; refusing is the safe side.
            EXPECT_TRUE(covers || !subset || wanted.find('#') != std::string::npos) << allowed << " should cover " << wanted;
        }
}

// --- tokens ---

struct Issuer {
    std::string key = crypto::make_signing_key().value();
    std::string kid = crypto::public_point(key)->id;
    std::shared_ptr<auth::TokenFacts> facts = std::make_shared<auth::TokenFacts>();
    std::int64_t now = wall_ms();

    Issuer() {
        const auto point = crypto::public_point(key).value();
        facts->issuers = {"https://issuer"};
        facts->keys.emplace(kid, crypto::JwsKey::elliptic("P-256", crypto::base64url_decode(point.x).value(), crypto::base64url_decode(point.y).value()).value());
        facts->accounts["plant/app"] = {.uid = "u-1", .attributes = with({{"line", "7"}})};
        facts->is_known = true;
    }
    Json claims() const {
        return {{"iss", "https://issuer"}, {"aud", {"aio-internal"}}, {"exp", now / 1000 + 600}, {"nbf", now / 1000}, {"iat", now / 1000}, {"sub", "system:serviceaccount:plant:app"},
                {"kubernetes.io", {{"namespace", "plant"}, {"serviceaccount", {{"name", "app"}, {"uid", "u-1"}}}}}};
    }
    std::string sign(const Json& c, Json header = Json::object()) const {
        if (header.empty()) header = {{"alg", "ES256"}, {"kid", kid}};
        const auto text = crypto::base64url_encode(header.dump()) + "." + crypto::base64url_encode(c.dump());
        return text + "." + crypto::base64url_encode(crypto::sign_es256(key, text).value());
    }
};

TEST(Token, who_it_is_and_every_reason_why_not) {
    const Issuer issuer;
    const auth::TokenMethod method({"aio-internal", "plant-apps"}, issuer.facts);
    auto fault = [&](const std::string& token) { return method.verify(token, issuer.now).has_value() ? std::string() : method.verify(token, issuer.now).error().message; };
    auto changed = [&](auto&& change) {
        auto c = issuer.claims();
        change(c);
        return issuer.sign(c);
    };
    const auto good = method.verify(issuer.sign(issuer.claims()), issuer.now);
    ASSERT_TRUE(good);
    EXPECT_EQ(good->user_name, "system:serviceaccount:plant:app");
    EXPECT_EQ(*good->attribute("line"), "7");
    EXPECT_EQ(good->expires_at, (issuer.now / 1000 + 600) * 1000);

    const auto now = issuer.now / 1000;
    EXPECT_NE(fault(changed([&](Json& c) { c["exp"] = now - 1; })).find("has expired"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["nbf"] = now + 60; })).find("not valid yet"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["iat"] = now + 60; })).find("from the future"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["aud"] = "other"; })).find("another audience"), std::string::npos);
    EXPECT_EQ(fault(changed([&](Json& c) { c["aud"] = "plant-apps"; })), "");
    EXPECT_NE(fault(changed([&](Json& c) { c.erase("aud"); })), "");
    EXPECT_NE(fault(changed([&](Json& c) { c["iss"] = "https://elsewhere"; })).find("another issuer"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["exp"] = "never"; })).find("no number"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["exp"] = -1e300; })).find("no number"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["kubernetes.io"]["serviceaccount"]["uid"] = "u-0"; })).find("is gone"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["kubernetes.io"]["pod"] = {{"name", "p"}, {"uid", "p-1"}}; })).find("pod the token is bound to is gone"), std::string::npos);
    EXPECT_NE(fault(changed([&](Json& c) { c["kubernetes.io"] = 7; })), "");
    issuer.facts->bound_uids.insert("p-1");
    EXPECT_EQ(fault(changed([&](Json& c) { c["kubernetes.io"]["pod"] = {{"name", "p"}, {"uid", "p-1"}}; })), "");

    // Tricks with the header.
    EXPECT_NE(fault(issuer.sign(issuer.claims(), {{"alg", "none"}, {"kid", issuer.kid}})), "");
    EXPECT_NE(fault(issuer.sign(issuer.claims(), {{"alg", "HS256"}, {"kid", issuer.kid}})), "");
    EXPECT_NE(fault(issuer.sign(issuer.claims(), {{"alg", "ES384"}, {"kid", issuer.kid}})), "");
    EXPECT_NE(fault(issuer.sign(issuer.claims(), {{"alg", "ES256"}, {"kid", "other"}})), "");
    EXPECT_NE(fault(issuer.sign(issuer.claims(), {{"alg", "ES256"}})), "");
    EXPECT_NE(fault(issuer.sign(issuer.claims(), {{"alg", "ES256"}, {"kid", issuer.kid}, {"crit", {"exp"}}})), "");
    auto token = issuer.sign(issuer.claims());
    EXPECT_NE(fault(token.substr(0, token.rfind('.') + 1)), "");
    const Issuer stranger;
    auto forged = stranger.sign(issuer.claims(), {{"alg", "ES256"}, {"kid", issuer.kid}});
    EXPECT_NE(fault(forged).find("signature is wrong"), std::string::npos);
    for (const auto& text : {std::string(), std::string("."), std::string(".."), std::string("a.b.c"), std::string(20'000, 'a'), token + ".x"}) EXPECT_NE(fault(text), "");
    // Every letter counts; no message quotes the token.
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
        auto damaged = token;
        const auto at = random() % damaged.size();
        damaged[at] = damaged[at] == 'A' ? 'B' : 'A';
        const auto why = fault(damaged);
        // The last letter of a part may carry bits that mean nothing.
        const bool counts = at + 1 < damaged.size() && damaged[at + 1] != '.';
        EXPECT_TRUE(!counts || !why.empty()) << at;
        EXPECT_EQ(why.find(damaged.substr(0, 20)), std::string::npos);
    }
}

// --- passwords ---

TEST(Password, kinds_of_hashes) {
    const auto hash = crypto::hash_password("secret");
    EXPECT_TRUE(hash.starts_with("$scrypt$ln=15,r=8,p=1$"));
    EXPECT_TRUE(crypto::verify_password(hash, "secret"));
    EXPECT_FALSE(crypto::verify_password(hash, "Secret"));
    EXPECT_NE(hash, crypto::hash_password("secret")) << "a salt of its own";
    // As mosquitto_passwd of Debian 12 writes it (password `geheim`, 101 rounds).
    const std::string mosquitto = crypto::hash_like("$7$101$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", "geheim");
    EXPECT_TRUE(mosquitto.starts_with("$7$101$")) << mosquitto;
    EXPECT_TRUE(crypto::verify_password(mosquitto, "geheim"));
    EXPECT_FALSE(crypto::verify_password(mosquitto, ""));
    for (const auto* bad : {"", "plain", "$1$abc$def$x", "$scrypt$ln=40,r=8,p=1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$scrypt$ln=20,r=32,p=1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$7$99999999999$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$7$-1$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$7$1$!!$??"}) {
        EXPECT_NE(crypto::password_hash_fault(bad), "") << bad;
        EXPECT_FALSE(crypto::verify_password(bad, ""));
    }
    // Files that another program wrote are named by what they hold, in whatever form it follows.
    for (const auto* old : {"$6$pLqsQ3vL2rZkJw==$"
                            "kqm3tS0yCq8Rk0bqzk8W1A==",
                            "$6$101$AAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$6$rounds=5000$salt$x"})
        EXPECT_NE(crypto::password_hash_fault(old).find("mosquitto_passwd before 2.0"), std::string::npos)
            << old;
    EXPECT_NE(crypto::password_hash_fault("$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA")
                  .find("its kind \"argon2id\" is not known"),
              std::string::npos);
}

// --- custom ---

TEST(Custom, answers_are_read_strictly) {
    using Kind = auth::CustomMethod::Answer::Kind;
    auto read = [](int status, const std::string& body) {
        return control::custom_answer(status, body, wall_ms());
    };
    EXPECT_EQ(read(200, "{}").kind, Kind::accept);
    EXPECT_EQ(read(200, R"({"attributes":{"a":"b"}})").attributes.at("a"), "b");
    EXPECT_EQ(read(200, R"({"expiry":"2999-01-01T00:00:00Z"})").expires_at, parse_rfc3339("2999-01-01T00:00:00Z"));
    for (const auto* bad : {"", "[]", "null", "{", R"({"expiry":7})", R"({"expiry":"soon"})", R"({"expiry":"2001-01-01T00:00:00Z"})", R"({"attributes":[1]})", R"({"attributes":{"a":1}})"}) EXPECT_EQ(read(200, bad).kind, Kind::refuse) << bad;
    EXPECT_EQ(read(403, R"({"reason":135,"message":"no"})").reason, 135);
    EXPECT_EQ(read(403, R"({"reason":4000})").reason, 0x87);
    EXPECT_EQ(read(403, "garbage").kind, Kind::refuse);
    EXPECT_EQ(read(404, "x").kind, Kind::refuse);
    EXPECT_EQ(read(302, "x").kind, Kind::refuse);
    EXPECT_EQ(read(500, "x").kind, Kind::unreachable);
}

// --- certificates ---

/// A responder's words, as the test has them.
struct Words final : auth::X509Method::Revocation {
    std::optional<Known> known;
    std::vector<std::size_t> asked;      ///< the paths' lengths
    std::vector<Done> waiting;
    std::optional<Known> look(const std::vector<crypto::Certificate>& path, const std::function<Done()>& later) override {
        asked.push_back(path.size());
        if (!known) waiting.push_back(later());
        return known;
    }
};

TEST(X509, who_is_connected_is_asked_about_again_and_stays_while_nobody_can_be_asked) {
    const auto ca = crypto::make_ca("ca", 10).value();
    const auto leaf = crypto::make_leaf(ca, {.common_name = "pump"}).value();
    const auto words = std::make_shared<Words>();
    const auto method = std::make_shared<auth::X509Method>(std::make_shared<const crypto::TrustStore>(crypto::read_certificates(ca.certificate).value(), std::vector<crypto::RevocationList>{}), std::vector<auth::X509Method::Entry>{}, "here", words);
    const auto now = wall_ms();
    const auth::Credentials credentials{.client_id = "c", .chain = crypto::read_certificates(leaf.certificate).value(), .now_ms = now};
    auth::Step answer;
    auto later = [&]() -> auth::Resume { return [&](auth::Step step) { answer = std::move(step); }; };
    EXPECT_EQ(method->check(credentials, later).kind, auth::Step::Kind::wait);
    EXPECT_EQ(words->asked, std::vector<std::size_t>{2});
    constexpr std::int64_t hour = 3'600'000;
    words->waiting.front()({.fault = {}, .until_ms = now + hour});
    ASSERT_EQ(answer.verdict.kind, auth::Verdict::Kind::accept);
    auto principal = answer.verdict.principal;
    EXPECT_GE(principal.review_at, now + hour - 1000);
    EXPECT_LE(principal.review_at, now + hour + hour / 8 + 1000);
    // It lapsed: the responder is asked, and the answer is looked at a little later.
    EXPECT_EQ(method->review(principal, credentials.chain, now), "");
    EXPECT_EQ(words->waiting.size(), 2u);
    EXPECT_EQ(principal.review_at, now + 10'000);
    words->known = {.fault = "nobody knows, and the policy is HardFail", .until_ms = now + 60'000};
    EXPECT_EQ(method->review(principal, credentials.chain, now), "") << "an outage of the responder ends nobody's connection";
    EXPECT_GE(principal.review_at, now + 600'000);
    EXPECT_EQ(method->check(credentials, later).verdict.kind, auth::Verdict::Kind::refuse) << "newcomers are for the policy";
    words->known = {.fault = "revoked", .is_revoked = true, .until_ms = now + hour};
    EXPECT_EQ(method->review(principal, credentials.chain, now), "revoked");
    // Certificates that name no responder are not looked at again.
    words->known = auth::X509Method::Revocation::Known{};
    EXPECT_EQ(method->review(principal, credentials.chain, now), "");
    EXPECT_EQ(principal.review_at, 0);
    EXPECT_EQ(method->check(credentials, later).verdict.principal.review_at, 0);
    words->waiting.clear();   // they hold the method, which holds this
}

// --- the core ---

/// Lets everybody in as who they say they are (user name; password `late` is answered when the test says so).
class Says final : public auth::Authenticator {
  public:
    auth::Verdict begin(const auth::Credentials& c, std::unique_ptr<auth::Exchange>&, const auth::Later& later) override {
        if (!c.user_name && !c.is_again) return auth::Verdict::refused(mqtt::ReasonCode::not_authorized, "say who you are");
        const std::string name(c.user_name.value_or("ann"));
        if (name == "bad") return auth::Verdict::refused(mqtt::ReasonCode::bad_user_name_or_password, "no");
        auto verdict = auth::Verdict::accepted({.method = "Says", .user_name = name, .id = "says/" + name, .attributes = with({{"of", "all"}}), .expires_at = expires_at, .review_at = review_after == 0 ? 0 : wall_ms() + review_after});
        if (c.password == "late" || (c.is_again && answers_again_late)) {
            waiting.push_back({later(), verdict});
            verdict = {};
            verdict.kind = auth::Verdict::Kind::wait;
        }
        return verdict;
    }
    std::string review(Principal& principal, const std::vector<crypto::Certificate>&, std::int64_t now_ms) override {
        ++reviews;
        principal.review_at = review_after == 0 ? 0 : now_ms + review_after;
        return principal.user_name == gone ? "the user is gone" : "";
    }
    std::int64_t expires_at = 0, review_after = 0;
    bool answers_again_late = false;
    int reviews = 0;
    std::string gone;
    std::vector<std::pair<auth::Done, auth::Verdict>> waiting;
};

std::string connect_bytes(const std::string& id, const std::string& user, const std::string& password = "", mqtt::Version version = mqtt::Version::v5, std::uint32_t expiry = 0, const std::string& will = {}) {
    mqtt::ConnectOptions options{.version = version, .client_id = id, .clean_start = expiry == 0, .keep_alive = 0};
    if (!user.empty()) options.user_name = user;
    if (!password.empty()) options.password = password;
    if (expiry != 0 && version == mqtt::Version::v5) options.properties.push_back({.id = mqtt::PropertyId::session_expiry_interval, .number = expiry});
    if (!will.empty()) options.has_will = true, options.will_topic = will, options.will_payload = "w";
    std::string out;
    mqtt::encode_connect(out, options);
    return out;
}
std::string publish_bytes(const std::string& topic, int qos, std::uint16_t id, mqtt::Version version = mqtt::Version::v5) {
    std::string out;
    mqtt::encode_publish(out, version, topic, "x", static_cast<mqtt::Qos>(qos), false, false, id, {});
    return out;
}
std::string subscribe_bytes(const std::string& filter, mqtt::Version version = mqtt::Version::v5) {
    std::string out;
    mqtt::encode_subscribe(out, version, 1, {{.filter = filter, .qos = mqtt::Qos::at_least_once}});
    return out;
}
/// Packets received so far, as `type:reason` of the interesting ones; taken.
std::vector<std::pair<mqtt::PacketType, std::string>> take(MemoryNet::End& end) {
    std::vector<std::pair<mqtt::PacketType, std::string>> out;
    std::string_view rest = end.received;
    mqtt::Frame frame;
    while (mqtt::cut_frame(rest, 1u << 28, frame) == mqtt::FrameState::complete) {
        out.emplace_back(frame.type, std::string(frame.body));
        rest.remove_prefix(frame.size);
    }
    end.received.clear();
    return out;
}
unsigned code_of(const std::vector<std::pair<mqtt::PacketType, std::string>>& packets, mqtt::PacketType type, std::size_t at) {
    for (const auto& [t, body] : packets)
        if (t == type) return at < body.size() ? static_cast<unsigned char>(body[at]) : 0;
    return 0xFFFF;
}

auto own_topics() {
    return policy({{.attributes = {{{"of", "all"}}}, .resources = {{Action::connect, {}}, {Action::publish, {"own/{principal.username}/#"}}, {Action::subscribe, {"own/{principal.username}/#", "all/#"}}}}});
}

TEST(Secured, denied_operations_answer_as_their_version_can) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        MemoryNet net(cores, {}, std::make_shared<Says>(), own_topics());
        auto* five = net.open();
        net.send(*five, connect_bytes("five", "ann"));
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::connack, 1), 0u);
        net.send(*five, publish_bytes("own/bob/t", 1, 7));
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::puback, 2), 0x87u);
        net.send(*five, publish_bytes("own/bob/t", 2, 8));
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::pubrec, 2), 0x87u);
        net.send(*five, publish_bytes("own/ann/t", 1, 9));
        EXPECT_NE(code_of(take(*five), mqtt::PacketType::puback, 2), 0x87u);
        net.send(*five, subscribe_bytes("own/+/t"));
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::suback, 3), 0x87u);
        net.send(*five, subscribe_bytes("$share/g/own/bob/#"));
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::suback, 3), 0x87u);
        net.send(*five, subscribe_bytes("own/ann/+"));
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::suback, 3), 1u);
        // A topic alias is the topic it stands for.
        std::string properties, aliased;
        mqtt::write_property(properties, mqtt::PropertyId::topic_alias, 1u);
        mqtt::encode_publish(aliased, mqtt::Version::v5, "own/bob/t", "x", mqtt::Qos::at_least_once, false, false, 10, properties);
        net.send(*five, aliased);
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::puback, 2), 0x87u);
        aliased.clear();
        mqtt::encode_publish(aliased, mqtt::Version::v5, "", "x", mqtt::Qos::at_least_once, false, false, 11, properties);
        net.send(*five, aliased);
        EXPECT_EQ(code_of(take(*five), mqtt::PacketType::puback, 2), 0x87u);
        EXPECT_FALSE(five->is_closed);

        auto* three = net.open(1);
        net.send(*three, connect_bytes("three", "bob", "", mqtt::Version::v311));
        take(*three);
        net.send(*three, publish_bytes("own/ann/t", 1, 7, mqtt::Version::v311));
        EXPECT_NE(code_of(take(*three), mqtt::PacketType::puback, 0), 0xFFFFu) << "acknowledged";
        EXPECT_TRUE(take(*five).empty()) << "and went nowhere";
        net.send(*three, subscribe_bytes("#", mqtt::Version::v311));
        EXPECT_EQ(code_of(take(*three), mqtt::PacketType::suback, 2), 0x80u);
        auto* nobody = net.open();
        net.send(*nobody, connect_bytes("nobody", "", "", mqtt::Version::v311));
        EXPECT_EQ(code_of(take(*nobody), mqtt::PacketType::connack, 1), 5u);
        EXPECT_TRUE(nobody->is_closed);
        auto* will = net.open();
        net.send(*will, connect_bytes("will", "ann", "", mqtt::Version::v5, 0, "own/bob/will"));
        EXPECT_EQ(code_of(take(*will), mqtt::PacketType::connack, 1), 0x87u) << "a will one may not publish";
        std::size_t told = 0;
        for (std::size_t i = 0; i < net.cores(); ++i) told += net.core(i).decisions().size();
        EXPECT_GE(told, 6u);
    }
}

TEST(Secured, packets_behind_a_late_verdict_wait_for_it) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        auto says = std::make_shared<Says>();
        MemoryNet net(cores, {.verdict_timeout = 60}, says);
        auto* listener = net.open();
        net.send(*listener, connect_bytes("l", "x") + subscribe_bytes("t"));
        take(*listener);
        auto* late = net.open(1);
        net.send(*late, connect_bytes("late", "ann", "late") + publish_bytes("t", 1, 5));
        EXPECT_TRUE(late->received.empty());
        EXPECT_TRUE(take(*listener).empty()) << "nothing before the verdict";
        net.send(*late, publish_bytes("t", 1, 6));
        ASSERT_EQ(says->waiting.size(), 1u);
        says->waiting[0].first(says->waiting[0].second);
        net.settle();
        const auto got = take(*late);
        ASSERT_EQ(got.size(), 3u);
        EXPECT_EQ(got[0].first, mqtt::PacketType::connack);
        EXPECT_EQ(got[1].first, mqtt::PacketType::puback);
        EXPECT_EQ(take(*listener).size(), 2u);
        // Who does not wait is forgotten; who waits too long is told so.
        auto* gone = net.open();
        net.send(*gone, connect_bytes("gone", "ann", "late"));
        net.drop(*gone);
        ASSERT_EQ(says->waiting.size(), 2u);
        says->waiting[1].first(says->waiting[1].second);
        net.settle();
        auto* slow = net.open();
        net.send(*slow, connect_bytes("slow", "ann", "late"));
        auto* old = net.open(1);
        net.send(*old, connect_bytes("old", "ann", "late", mqtt::Version::v311));
        net.advance(50'000);
        EXPECT_FALSE(slow->is_closed) << "a fleet of password users needs its time";
        net.advance(15'000);
        EXPECT_TRUE(slow->is_closed && old->is_closed);
        const auto told = take(*slow);
        EXPECT_EQ(code_of(told, mqtt::PacketType::connack, 1), 0x88u);
        EXPECT_NE(told.at(0).second.find("authentication took longer than 60 seconds"), std::string::npos);
        EXPECT_EQ(code_of(take(*old), mqtt::PacketType::connack, 1), 3u);
        says->waiting[2].first(says->waiting[2].second);
        net.settle();
    }
}

// Re-authentication that nobody answers leaves the client as it is, and its keep alive waits with it.
TEST(Secured, a_client_whose_re_authentication_waits_is_not_silent) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {.verdict_timeout = 60}, says);
    auto* ann = net.open();
    mqtt::ConnectOptions options{.version = mqtt::Version::v5, .client_id = "ann", .clean_start = true, .keep_alive = 4};
    options.user_name = "ann";
    options.properties.push_back({.id = mqtt::PropertyId::authentication_method, .text = "any"});
    std::string bytes, properties, again;
    mqtt::encode_connect(bytes, options);
    net.send(*ann, bytes);
    EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::connack, 1), 0u);
    mqtt::write_property(properties, mqtt::PropertyId::authentication_method, "any");
    mqtt::encode_auth(again, mqtt::ReasonCode::reauthenticate, properties);
    says->answers_again_late = true;
    net.send(*ann, again);
    net.advance(30'000);
    EXPECT_FALSE(ann->is_closed);
    net.advance(32'000);
    EXPECT_FALSE(ann->is_closed);
    EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::auth, 0), 0x18u) << "another try";
    net.advance(4000);
    EXPECT_FALSE(ann->is_closed) << "its keep alive begins anew";
    net.advance(5000);
    EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::disconnect, 0), 0x8Du);
}

TEST(Secured, who_waits_for_a_verdict_is_told_when_the_server_ends_or_the_client_errs) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    auto *five = net.open(), *three = net.open();
    net.send(*five, connect_bytes("five", "ann", "late"));
    net.send(*three, connect_bytes("three", "ann", "late", mqtt::Version::v311));
    for (auto* end : {five, three}) net.core(0).disconnect(*end->connection, mqtt::Refusal::server_shuts_down, net.now());
    net.settle();
    EXPECT_EQ(code_of(take(*five), mqtt::PacketType::connack, 1), 0x88u);
    EXPECT_EQ(code_of(take(*three), mqtt::PacketType::connack, 1), 3u);
}

TEST(Secured, a_credential_that_ended_meanwhile_lets_nobody_in) {
    auto says = std::make_shared<Says>();
    says->expires_at = wall_ms() - 1;
    MemoryNet net(1, {}, says);
    auto* ann = net.open();
    net.send(*ann, connect_bytes("c", "ann"));
    const auto got = take(*ann);
    EXPECT_EQ(code_of(got, mqtt::PacketType::connack, 1), 0x87u);
    EXPECT_NE(got.at(0).second.find("the credential has expired"), std::string::npos);
}

// A session that expired a moment ago is not met by another identity.
TEST(Secured, a_session_is_nobodys_once_it_expired) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    net.advance(400);
    auto* ann = net.open();
    net.send(*ann, connect_bytes("shared", "ann", "", mqtt::Version::v5, 2));
    net.drop(*ann);
    net.advance(2300);
    auto* bob = net.open();
    net.send(*bob, connect_bytes("shared", "bob", "", mqtt::Version::v5, 2));
    EXPECT_EQ(code_of(take(*bob), mqtt::PacketType::connack, 1), 0u);
}

/// Crew of one thread that is held until the test lets it go; what it does is written down.
struct HeldCrew {
    auth::Crew crew;
    std::mutex guard;
    std::vector<std::string> done;       ///< name, or `!name` when there was no room
    std::promise<void> go;

    explicit HeldCrew(std::size_t waiting_max, std::size_t bytes_max = 1000) : crew(1, waiting_max, bytes_max) {
        std::promise<void> begun;
        crew.add("", [&](bool) { begun.set_value(), go.get_future().wait(); }, 0);
        begun.get_future().wait();
    }
    void add(const std::string& from, const std::string& name, std::size_t bytes = 1) {
        crew.add(from, [this, name](bool has_room) { const std::lock_guard lock(guard); done.push_back(has_room ? name : "!" + name); }, bytes);
    }
    std::vector<std::string> finish(std::size_t count) {
        go.set_value();
        for (const auto end = monotonic_ms() + 20'000; monotonic_ms() < end;) {
            const std::lock_guard lock(guard);
            if (done.size() >= count) break;
        }
        crew.stop();
        return done;
    }
};

TEST(Crew, oldest_first_bounded_and_each_is_told) {
    HeldCrew held(5);
    for (const auto* name : {"1", "2", "3", "4", "5"}) held.add("plant", name);
    held.add("plant", "6");
    EXPECT_EQ(held.finish(6), (std::vector<std::string>{"!6", "1", "2", "3", "4", "5"})) << "five wait";
    HeldCrew small(5);
    small.add("plant", "large", 1001);
    EXPECT_EQ(small.finish(1), std::vector<std::string>{"!large"}) << "too many bytes";
    EXPECT_GE(auth::Crew::threads_here(), 1u);
    EXPECT_LE(auth::Crew::threads_here(), std::max(1u, std::thread::hardware_concurrency()));
}

TEST(Crew, addresses_take_turns_and_who_has_most_waiting_gives_way) {
    HeldCrew held(6);
    for (const auto* name : {"s1", "s2", "s3", "s4", "s5"}) held.add("stranger", name);
    for (const auto* name : {"p1", "p2", "p3"}) held.add("plant", name);
    EXPECT_EQ(held.finish(8), (std::vector<std::string>{"!s5", "!s4", "s1", "p1", "s2", "p2", "s3", "p3"}));
}

TEST(Crew, two_hash_at_a_time) {
    auth::Crew crew(2, 10, 1000);
    std::latch both(2);
    std::promise<void> met;
    for (int i = 0; i < 2; ++i)
        crew.add("", [&, i](bool) {
            both.arrive_and_wait();
            if (i == 0) met.set_value();
        }, 1);
    EXPECT_EQ(met.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    crew.stop();
}

// A stranger's wrong passwords wait in a long row. Once his address failed too often the rest of the row is not looked at, as
// newcomers from there are not.
TEST(Secured, who_waits_behind_too_many_failures_of_his_address_is_ended_at_once) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    std::vector<MemoryNet::End*> row;
    for (int i = 0; i < 60; ++i) {
        row.push_back(net.open());
        row.back()->network = "203.0.113.9";
        net.send(*row.back(), connect_bytes(fmt::format("s{}", i), "ann", "late", i % 2 == 0 ? mqtt::Version::v5 : mqtt::Version::v311));
    }
    auto* plant = net.open();
    plant->network = "10.0.0.7";
    net.send(*plant, connect_bytes("plant", "ann", "late"));
    const auto no = auth::Verdict::refused(mqtt::ReasonCode::bad_user_name_or_password, "no");
    for (int i = 0; i < 20; ++i) {
        EXPECT_FALSE(row[59]->is_closed) << i;
        says->waiting[static_cast<std::size_t>(i)].first(no);
        net.settle();
    }
    std::size_t limited = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
        EXPECT_TRUE(row[i]->is_closed) << i;
        const auto code = code_of(take(*row[i]), mqtt::PacketType::connack, 1);
        if (i >= 20) limited += code == (i % 2 == 0 ? 0x9Fu : 3u) ? 1 : 0;
    }
    EXPECT_EQ(limited, 40u);
    EXPECT_FALSE(plant->is_closed);
    says->waiting[60].first(says->waiting[60].second);
    net.settle();
    EXPECT_EQ(code_of(take(*plant), mqtt::PacketType::connack, 1), 0u);
    // An answer that comes after all is nobody's.
    says->waiting[40].first(says->waiting[40].second);
    net.settle();
    EXPECT_EQ(net.core(0).figures().connections, 1u);
}

// All devices of a plant return behind one gateway after a restart, when nobody is known yet; one of them has a wrong password.
TEST(Secured, a_fleet_behind_one_address_gets_in_whole_though_one_of_it_is_wrong) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    const auto no = auth::Verdict::refused(mqtt::ReasonCode::bad_user_name_or_password, "no");
    std::vector<MemoryNet::End*> fleet;
    for (int i = 0; i < 400; ++i) {
        fleet.push_back(net.open());
        net.send(*fleet.back(), connect_bytes(fmt::format("d{}", i), fmt::format("user{}", i), "late"));
    }
    std::size_t answered = 0;
    unsigned last = 0;
    for (std::size_t i = 0; i < fleet.size(); ++i) {
        // The wrong one tries again with each of the others.
        auto* wrong = net.open();
        net.send(*wrong, connect_bytes("wrong", "meter", "late"));
        if (wrong->is_closed) last = code_of(take(*wrong), mqtt::PacketType::connack, 1);
        else says->waiting.back().first(no);
        while (answered < says->waiting.size() && says->waiting[answered].second.principal.user_name != fmt::format("user{}", i)) ++answered;
        ASSERT_LT(answered, says->waiting.size());
        says->waiting[answered].first(says->waiting[answered].second);
        net.settle();
        EXPECT_EQ(code_of(take(*fleet[i]), mqtt::PacketType::connack, 1), 0u) << i;
    }
    EXPECT_EQ(last, 0x9Fu) << "who repeats himself is stopped by himself";
}

// Who fills the row of those who wait keeps nobody else out of it.
TEST(Secured, whose_connects_fill_the_row_gives_way) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {.pool_bytes = 256 << 20}, says);
    // Each of them 15,000 bytes: 8 MiB are held.
    std::vector<MemoryNet::End*> row;
    for (int i = 0; i < 700; ++i) {
        row.push_back(net.open());
        row.back()->network = "203.0.113.9";
        net.send(*row.back(), connect_bytes(fmt::format("s{}", i), std::string(15'000, 'u'), "late"));
    }
    EXPECT_EQ(code_of(take(*row.back()), mqtt::PacketType::connack, 1), 0x89u) << "full";
    auto waits = [&] { return std::ranges::count_if(row, [](const auto* end) { return !end->is_closed; }); };
    const auto before = waits();
    EXPECT_GT(before, 400);
    auto* plant = net.open();
    net.send(*plant, connect_bytes("plant", std::string(15'000, 'p'), "late"));
    EXPECT_FALSE(plant->is_closed);
    EXPECT_EQ(waits(), before - 1);
    EXPECT_FALSE(row.front()->is_closed) << "the newest gives way";
    says->waiting.back().first(says->waiting.back().second);
    net.settle();
    EXPECT_EQ(code_of(take(*plant), mqtt::PacketType::connack, 1), 0u);
}

TEST(Secured, a_credential_that_ends_takes_the_connection_with_it) {
    auto says = std::make_shared<Says>();
    says->expires_at = wall_ms() + 5000;
    MemoryNet net(1, {}, says);
    auto* client = net.open();
    net.send(*client, connect_bytes("c", "ann"));
    take(*client);
    net.advance(3000);
    EXPECT_FALSE(client->is_closed);
    net.advance(4000);
    EXPECT_TRUE(client->is_closed);
    EXPECT_EQ(code_of(take(*client), mqtt::PacketType::disconnect, 0), 0x87u);
}

TEST(Secured, who_is_connected_is_looked_at_again_when_the_method_wants_it) {
    auto says = std::make_shared<Says>();
    says->review_after = 3000;
    says->expires_at = wall_ms() + 60'000;
    MemoryNet net(1, {}, says);
    auto* ann = net.open();
    auto* bob = net.open();
    net.send(*ann, connect_bytes("a", "ann"));
    net.send(*bob, connect_bytes("b", "bob"));
    take(*ann);
    take(*bob);
    for (int i = 0; i < 10; ++i) net.advance(1000);
    EXPECT_GE(says->reviews, 4);
    says->gone = "ann";
    for (int i = 0; i < 5; ++i) net.advance(1000);
    EXPECT_TRUE(ann->is_closed);
    const auto got = take(*ann);
    EXPECT_EQ(code_of(got, mqtt::PacketType::disconnect, 0), 0x87u);
    ASSERT_FALSE(got.empty());
    EXPECT_NE(got.back().second.find("the user is gone"), std::string::npos);
    EXPECT_FALSE(bob->is_closed);
    // A method that wants no further look gets none, and the credential's end stays where it is.
    says->review_after = 0;
    for (int i = 0; i < 5; ++i) net.advance(1000);
    const int reviews = says->reviews;
    for (int i = 0; i < 30; ++i) net.advance(1000);
    EXPECT_EQ(says->reviews, reviews);
    EXPECT_FALSE(bob->is_closed);
    for (int i = 0; i < 40; ++i) net.advance(1000);   // the end is by the wall clock, which stands still here: a minute from the last look
    ASSERT_TRUE(bob->is_closed);
    EXPECT_NE(take(*bob).back().second.find("the credential has expired"), std::string::npos);
}

TEST(Secured, changed_rules_end_only_what_is_gone) {
    for (std::uint32_t cores = 1; cores <= 2; ++cores) {
        auto says = std::make_shared<Says>();
        MemoryNet net(cores, {}, says, own_topics());
        auto* ann = net.open();
        auto* bob = net.open(1);
        net.send(*ann, connect_bytes("ann", "ann", "", mqtt::Version::v5, 100, "own/ann/will") + subscribe_bytes("own/ann/#") + subscribe_bytes("all/x"));
        net.send(*bob, connect_bytes("bob", "bob") + subscribe_bytes("all/x"));
        take(*ann);
        take(*bob);
        // Ann loses her own topics, Bob nothing.
        const auto narrower = policy({{.attributes = {{{"of", "all"}}}, .resources = {{Action::connect, {}}, {Action::publish, {"own/bob/#", "all/#"}}, {Action::subscribe, {"all/#"}}}}});
        net.change_rules(says, narrower);
        EXPECT_FALSE(ann->is_closed);
        EXPECT_TRUE(take(*bob).empty());
        net.send(*bob, publish_bytes("all/x", 1, 3));
        EXPECT_EQ(take(*ann).size(), 1u) << "the subscription that stays delivers";
        take(*bob);
        net.send(*ann, publish_bytes("own/ann/t", 1, 4));
        EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::puback, 2), 0x87u);
        ASSERT_EQ(net.core(broker::Core::home_of("ann", cores)).find_session("ann")->subscriptions.size(), 1u);
        EXPECT_EQ(net.core(broker::Core::home_of("ann", cores)).find_session("ann")->will, nullptr) << "and the will went";
        // The same rules again are nothing.
        net.change_rules(says, narrower);
        EXPECT_TRUE(take(*ann).empty());
        // Only Bob may connect: Ann is told why.
        net.change_rules(says, policy({{.user_names = {"bob"}, .resources = {{Action::connect, {}}, {Action::subscribe, {"all/#"}}}}}));
        EXPECT_TRUE(ann->is_closed);
        EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::disconnect, 0), 0x87u);
        EXPECT_FALSE(bob->is_closed);
        // Other authentication, to which Bob is nobody.
        auto other = std::make_shared<Says>();
        other->gone = "bob";
        net.change_rules(other, nullptr);
        EXPECT_TRUE(bob->is_closed);
    }
}

TEST(Secured, a_session_kept_while_rights_went_comes_back_without_them) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says, own_topics());
    auto* ann = net.open();
    net.send(*ann, connect_bytes("ann", "ann", "", mqtt::Version::v5, 100) + subscribe_bytes("own/ann/#"));
    net.drop(*ann);
    net.change_rules(says, policy({{.attributes = {{{"of", "all"}}}, .resources = {{Action::connect, {}}, {Action::subscribe, {"all/#"}}}}}));
    // Nothing waits for her that came after she lost the right.
    auto* bob = net.open();
    net.change_rules(says, policy({{.user_names = {"bob"}, .resources = {{Action::connect, {}}, {Action::publish, {"#"}}}}, {.user_names = {"ann"}, .resources = {{Action::connect, {}}, {Action::subscribe, {"all/#"}}}}}));
    net.send(*bob, connect_bytes("bob", "bob") + publish_bytes("own/ann/secret", 1, 1));
    auto* again = net.open();
    net.send(*again, connect_bytes("ann", "ann", "", mqtt::Version::v5, 100));
    const auto got = take(*again);
    EXPECT_EQ(code_of(got, mqtt::PacketType::connack, 0), 1u);
    EXPECT_EQ(got.size(), 1u);
    EXPECT_TRUE(net.core(0).find_session("ann")->subscriptions.empty());
}

TEST(Secured, re_authentication_after_the_rules_are_gone) {
    MemoryNet net(1, {}, std::make_shared<Says>());
    auto* ann = net.open();
    mqtt::ConnectOptions options{.version = mqtt::Version::v5, .client_id = "ann", .clean_start = true, .keep_alive = 0};
    options.user_name = "ann";
    options.properties.push_back({.id = mqtt::PropertyId::authentication_method, .text = "any"});
    std::string bytes, properties;
    mqtt::encode_connect(bytes, options);
    net.send(*ann, bytes);
    EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::connack, 1), 0u);
    net.change_rules(nullptr, nullptr);
    EXPECT_FALSE(ann->is_closed);
    bytes.clear();
    mqtt::write_property(properties, mqtt::PropertyId::authentication_method, "any");
    mqtt::encode_auth(bytes, mqtt::ReasonCode::reauthenticate, properties);
    net.send(*ann, bytes);
    EXPECT_TRUE(ann->is_closed);
    EXPECT_EQ(code_of(take(*ann), mqtt::PacketType::disconnect, 0), 0x87u) << "0x8C is none of DISCONNECT's codes (3.14.2.1)";
}

TEST(Secured, a_session_is_nobody_elses) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    auto* ann = net.open();
    net.send(*ann, connect_bytes("shared", "ann", "", mqtt::Version::v5, 100) + subscribe_bytes("secret"));
    take(*ann);
    auto* bob = net.open();
    net.send(*bob, connect_bytes("shared", "bob", "", mqtt::Version::v5, 100));
    EXPECT_EQ(code_of(take(*bob), mqtt::PacketType::connack, 1), 0x87u);
    EXPECT_FALSE(ann->is_closed) << "and cannot be thrown out by another identity";
    auto* ann2 = net.open();
    net.send(*ann2, connect_bytes("shared", "ann", "", mqtt::Version::v5, 100));
    EXPECT_EQ(code_of(take(*ann2), mqtt::PacketType::connack, 1), 0u);
}

TEST(Secured, guessing_costs_the_guesser) {
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    unsigned last = 0;
    int tries = 0;
    while (tries < 100 && last != 0x9F) {
        auto* end = net.open();
        net.send(*end, connect_bytes(fmt::format("g{}", tries++), "bad"));
        last = code_of(take(*end), mqtt::PacketType::connack, 1);
        EXPECT_TRUE(end->is_closed);
    }
    EXPECT_GT(tries, 10);
    EXPECT_LT(tries, 40);
    net.advance(5000);
    auto* end = net.open();
    net.send(*end, connect_bytes("good", "ann"));
    EXPECT_EQ(code_of(take(*end), mqtt::PacketType::connack, 1), 0u) << "after a pause it is looked at again";
}

/// Nobody is let in.
struct Closed final : auth::Authenticator {
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&,
                        const auth::Later&) override {
        return auth::Verdict::refused(mqtt::ReasonCode::bad_user_name_or_password,
                                      "the user name or the password is wrong");
    }
    std::string review(Principal&, const std::vector<crypto::Certificate>&, std::int64_t) override {
        return {};
    }
};

TEST(Secured, a_refused_client_is_told_of_with_the_user_name_it_claimed) {
    MemoryNet net(1, {}, std::make_shared<Closed>());
    for (const auto* user : {"ann", "ann", "bob"}) {
        auto* end = net.open();
        net.send(*end, connect_bytes("pump", user, "guessed"));
    }
    const auto& told = net.core(0).decisions();
    ASSERT_EQ(told.size(), 2u) << "two names that were tried are two entries";
    EXPECT_EQ(told[0].user_name, "ann");
    EXPECT_EQ(told[0].count, 2u);
    EXPECT_EQ(told[1].user_name, "bob");
    auto* end = net.open();
    net.send(*end, connect_bytes("long", std::string(1000, 'u'), "x"));
    EXPECT_EQ(net.core(0).decisions().back().user_name.size(), 256u);
}

TEST(Secured, methods_in_order_and_the_probes_secret) {
    const Issuer issuer;
    auto crew = std::make_shared<auth::Crew>(1, 10);
    std::map<std::string, auth::PasswordMethod::User, std::less<>> users{{"ann", {.hash = crypto::hash_like("$7$5$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "pw")}}};
    auto chain = std::make_shared<auth::MethodChain>(std::vector<std::shared_ptr<auth::Method>>{std::make_shared<auth::TokenMethod>(std::vector<std::string>{"aio-internal"}, issuer.facts), std::make_shared<auth::PasswordMethod>(users, crew)},
                                                     std::make_shared<const std::string>("probe-secret"));
    std::promise<auth::Verdict> late;
    auto ask = [&](const auth::Credentials& c) {
        std::unique_ptr<auth::Exchange> exchange;
        late = {};
        auto verdict = chain->begin(c, exchange, [&] { return [&](auth::Verdict v) { late.set_value(std::move(v)); }; });
        return verdict.kind == auth::Verdict::Kind::wait ? late.get_future().get() : verdict;
    };
    const auto token = issuer.sign(issuer.claims());
    EXPECT_EQ(ask({.method = "K8S-SAT", .data = token, .now_ms = issuer.now}).kind, auth::Verdict::Kind::accept);
    EXPECT_EQ(ask({.user_name = "ann", .password = "pw", .method = "K8S-SAT", .data = "wrong", .now_ms = issuer.now}).kind, auth::Verdict::Kind::refuse) << "the first that is meant decides";
    EXPECT_EQ(ask({.user_name = "ann", .password = "pw"}).principal.user_name, "ann");
    EXPECT_EQ(ask({.user_name = "ann", .password = "pw"}).principal.user_name, "ann") << "remembered";
    for (const auto& [user, password] : {std::pair{"ann", "pW"}, std::pair{"bob", "pw"}, std::pair{"", ""}}) {
        const auto verdict = ask({.user_name = user, .password = password});
        EXPECT_EQ(verdict.kind, auth::Verdict::Kind::refuse);
        EXPECT_EQ(verdict.reason_string, "the user name or the password is wrong") << "the same words for both";
    }
    EXPECT_EQ(ask({.method = "SCRAM"}).reason, mqtt::ReasonCode::bad_authentication_method);
    EXPECT_EQ(ask({}).reason, mqtt::ReasonCode::not_authorized);
    EXPECT_EQ(ask({.method = auth::MethodChain::probe_method, .data = "probe-secret"}).principal.id, "probe");
    EXPECT_EQ(ask({.method = auth::MethodChain::probe_method, .data = ""}).kind, auth::Verdict::Kind::refuse);
    Principal ann{.method = "Password", .user_name = "ann"};
    EXPECT_NE(chain->review(ann, {}, 0), "") << "another hash than the one that let it in";
    crew->stop();
}

/// Wants an AUTH of everybody, and refuses it then.
class Asks final : public auth::Authenticator {
    struct Refusing final : auth::Exchange {
        auth::Verdict proceed(std::string_view) override { return auth::Verdict::refused(mqtt::ReasonCode::not_authorized, "no"); }
    };

  public:
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>& exchange, const auth::Later&) override {
        exchange = std::make_unique<Refusing>();
        return {.kind = auth::Verdict::Kind::go_on, .reason = mqtt::ReasonCode::success, .data = "?"};
    }
};

std::string auth_connect_bytes(const std::string& id) {
    mqtt::ConnectOptions options{.version = mqtt::Version::v5, .client_id = id, .clean_start = true, .keep_alive = 0};
    options.properties.push_back({.id = mqtt::PropertyId::authentication_method, .text = "any"});
    std::string out;
    mqtt::encode_connect(out, options);
    return out;
}

TEST(Log, who_was_refused_has_the_client_id_of_the_audit) {
    std::string line;
    log::set_sink([&](std::string_view text) { line = text; });
    auto says = std::make_shared<Says>();
    MemoryNet net(1, {}, says);
    net.advance(7'654'000);   // such lines are ten a second at most, those of other tests among them
    auto noted = [&] { return fmt::format("client=\"{}\"", net.core(0).decisions().back().client_id); };
    net.send(*net.open(), connect_bytes("", "bad"));
    EXPECT_TRUE(noted().starts_with("client=\"auto-")) << noted();
    EXPECT_NE(line.find(noted()), std::string::npos) << line;
    // Its answer comes late.
    net.send(*net.open(), connect_bytes("", "ann", "late"));
    says->waiting[0].first(auth::Verdict::refused(mqtt::ReasonCode::not_authorized, "no"));
    net.settle();
    EXPECT_NE(line.find(noted()), std::string::npos) << line;
    // It goes on waiting, and the server ends.
    auto* end = net.open();
    net.send(*end, connect_bytes("", "ann", "late"));
    net.core(0).disconnect(*end->connection, mqtt::Refusal::server_shuts_down, net.now());
    EXPECT_NE(line.find("client=\"auto-"), std::string::npos) << line;
    // Another client's CONNECT came between its own and its AUTH.
    MemoryNet asking(1, {}, std::make_shared<Asks>());
    asking.advance(8'765'000);
    auto* first = asking.open();
    asking.send(*first, auth_connect_bytes("first"));
    asking.send(*asking.open(), auth_connect_bytes("second"));
    std::string properties, again;
    mqtt::write_property(properties, mqtt::PropertyId::authentication_method, "any");
    mqtt::encode_auth(again, mqtt::ReasonCode::continue_authentication, properties);
    asking.send(*first, again);
    EXPECT_NE(line.find("client=\"first\""), std::string::npos) << line;
    auto* third = asking.open();
    asking.send(*third, auth_connect_bytes("third"));
    asking.send(*third, publish_bytes("t", 0, 0));
    EXPECT_NE(line.find("client=\"third\""), std::string::npos) << line;
    log::set_sink({});
}

TEST(Log, a_long_client_id_leaves_room_for_who_and_why) {
    std::string line;
    log::set_sink([&](std::string_view text) { line = text; });
    MemoryNet net(1);
    net.advance(9'876'000);   // such lines are ten a second at most, those of other tests among them
    std::string bytes;
    mqtt::encode_connect(bytes, {.version = mqtt::Version::v311, .client_id = std::string(60'000, 'c'), .clean_start = true, .keep_alive = 0});
    auto* end = net.open();
    net.send(*end, bytes + std::string("\0\0", 2));
    log::set_sink({});
    EXPECT_LT(line.size(), 1024u);
    EXPECT_NE(line.find("client=\"" + std::string(256, 'c') + "\" peer=memory listener=test/memory"), std::string::npos) << line;
    EXPECT_NE(line.find("reason=malformed-packet (0x81) statement=MQTT311-4.8.0-1 why=\""), std::string::npos) << line;
}

/// One client's end; what the audit says of it.
void expect_noted(MemoryNet& net, const std::string& bytes, const char* action, mqtt::ReasonCode reason, const char* why) {
    auto* end = net.open();
    net.send(*end, bytes);
    EXPECT_TRUE(end->is_closed);
    const auto& told = net.core(0).decisions();
    ASSERT_EQ(std::ranges::count(told, "ann", &broker::Decision::client_id), 1) << why;
    const auto one = std::ranges::find(told, "ann", &broker::Decision::client_id);
    EXPECT_EQ(one->action, action) << why;
    EXPECT_EQ(one->reason, static_cast<std::uint8_t>(reason)) << why;
    EXPECT_EQ(one->why, why);
    EXPECT_EQ(one->count, 1u) << why;
}

TEST(Secured, whatever_keeps_a_client_out_is_in_the_audit_once) {
    {
        MemoryNet net(1);
        expect_noted(net, auth_connect_bytes("ann"), "Connect", mqtt::ReasonCode::bad_authentication_method, "this listener has no enhanced authentication");
    }
    {
        MemoryNet net(1);
        mqtt::ConnectOptions options{.version = mqtt::Version::v5, .client_id = "ann", .clean_start = true, .keep_alive = 0};
        options.has_will = true;
        options.will_topic = "$SYS/broker/uptime";
        std::string bytes;
        mqtt::encode_connect(bytes, options);
        expect_noted(net, bytes, "Connect", mqtt::ReasonCode::not_authorized, "$SYS belongs to the server; the will topic is there");
    }
    for (const bool is_late : {false, true}) {
        MemoryNet net(1, {}, std::make_shared<Asks>());
        auto* end = net.open();
        net.send(*end, auth_connect_bytes("ann"));
        if (is_late) {
            net.advance(30'000);
        } else {
            std::string properties, other;
            mqtt::write_property(properties, mqtt::PropertyId::authentication_method, "other");
            mqtt::encode_auth(other, mqtt::ReasonCode::continue_authentication, properties);
            net.send(*end, other);
        }
        EXPECT_TRUE(end->is_closed);
        const auto& told = net.core(0).decisions();
        ASSERT_EQ(told.size(), 1u);
        EXPECT_EQ(told[0].client_id, "ann");
        EXPECT_EQ(told[0].action, "Authenticate");
        EXPECT_EQ(told[0].why, is_late ? "the client did not go on with its authentication in time" : "the authentication method is not that of CONNECT");
    }
    {
        MemoryNet net(1, {}, std::make_shared<Says>());
        expect_noted(net, connect_bytes("ann", "bad"), "Authenticate", mqtt::ReasonCode::bad_user_name_or_password, "no");
    }
}

TEST(Log, what_peers_chose_does_not_end_a_line) {
    std::string line;
    log::set_sink([&](std::string_view text) { line = text; });
    log::info("broker", "client=\"{}\"", "a\n<4>forged\x1b[2J");
    log::set_sink({});
    EXPECT_EQ(std::ranges::count(line, '\n'), 1);
    EXPECT_NE(line.find("client=\"a\\x0a<4>forged\\x1b[2J\""), std::string::npos) << line;
}

}  // namespace
}  // namespace penstock
