// What strangers send before they are anybody: certificates, tokens, TLS records, answers of authentication and OCSP servers;
// and the patterns of policies, where covering must agree with matching.
#include <cstdint>
#include <string>
#include <string_view>

#include "auth/methods.h"
#include "auth/policy.h"
#include "base/clock.h"
#include "control/custom_server.h"
#include "crypto/certificate.h"
#include "crypto/examination.h"
#include "crypto/ocsp.h"
#include "crypto/password.h"
#include "crypto/signature.h"
#include "store/record.h"
#include "tls/channel.h"
#include "topics/topic.h"

using namespace penstock;

namespace {

struct World {
    crypto::KeyPair ca = crypto::make_ca("fuzz", 30).value();
    crypto::KeyPair leaf = crypto::make_leaf(ca, {.common_name = "fuzz", .dns_names = {"localhost"}, .server = true, .days = 30}).value();
    crypto::Certificate authority = crypto::read_certificates(ca.certificate)->front();
    crypto::Certificate certificate = crypto::read_certificates(leaf.certificate)->front();
    crypto::TrustStore trust{{authority}, {}};
    std::shared_ptr<const tls::Context> context = tls::Context::server({.certificate_chain = leaf.certificate, .key = leaf.key, .ask_client_certificate = true, .protocols = {"mqtt"}}).value();
    std::shared_ptr<auth::TokenFacts> facts = std::make_shared<auth::TokenFacts>();
    World() {
        const auto point = crypto::public_point(crypto::make_signing_key().value()).value();
        facts->issuers = {"i"};
        facts->keys.emplace("k", crypto::JwsKey::elliptic("P-256", crypto::base64url_decode(point.x).value(), crypto::base64url_decode(point.y).value()).value());
        facts->is_known = true;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const World world;
    if (size < 2) return 0;
    const std::string text(static_cast<const char*>(static_cast<const void*>(data + 1)), size - 1);
    switch (data[0] % 9) {
        case 0:
            if (const auto chain = crypto::read_certificates(text); chain && !chain->empty()) {
                static_cast<void>(world.trust.verify(*chain, crypto::Purpose::client, wall_ms()));
                static_cast<void>(crypto::examine_chain(*chain, crypto::Purpose::server, wall_ms()));
                for (const auto& c : *chain) {
                    if (!crypto::same_subject(c.subject(), c)) __builtin_trap();
                    static_cast<void>(c.common_name());
                    static_cast<void>(c.dns_names().size() + c.addresses().size() + c.other_names().size() + c.usages().size() + c.ocsp_urls().size() + c.crl_urls().size());
                }
            }
            static_cast<void>(crypto::read_revocation_lists(text));
            break;
        case 1: {
            const auth::TokenMethod method({"a"}, world.facts);
            if (method.verify(text, wall_ms())) __builtin_trap();
            // The parts behind the encoding, reached with a header that names the key.
            const auto dot = text.find('.');
            if (method.verify(crypto::base64url_encode(text.substr(0, dot)) + "." + crypto::base64url_encode(dot == std::string::npos ? "" : text.substr(dot + 1)) + ".AAAA", wall_ms())) __builtin_trap();
            break;
        }
        case 2: static_cast<void>(control::custom_answer(200, text, 0)), static_cast<void>(control::custom_answer(403, text, 0)); break;
        case 3:
            if (crypto::ocsp_status(text, world.certificate, world.authority, wall_ms())) __builtin_trap();
            break;
        case 4: static_cast<void>(crypto::password_hash_fault(text)); break;
        case 5: {
            tls::Channel channel(world.context, true);
            char plain[4096];
            for (std::size_t at = 0; at < text.size(); at += 1000) {
                channel.set_input(std::string_view(text).substr(at, 1000));
                long got = 0;
                while ((got = channel.read(plain, sizeof plain)) > 0) {}
                if (got < 0) break;
            }
            break;
        }
        case 6: {   // records on disk
            store::Queued item;
            std::uint16_t id = 0;
            std::uint64_t body = 0;
            store::Step step{};
            std::uint32_t share = 0;
            if (const auto message = store::decode_message(text, 5)) {
                if (store::encode_message(message->view(), 5) != text) static_cast<void>(store::decode_message(store::encode_message(message->view(), 5), 5)->view());
            }
            if (store::decode_queued(text, item, id, body, 5) && body == 0 && !item.message) __builtin_trap();
            static_cast<void>(store::decode_session(text, 5)), static_cast<void>(store::decode_options(text, share)), static_cast<void>(store::decode_delivery(text, id, step));
            if (const auto shares = store::decode_shares(text); shares && !store::decode_shares(store::encode_shares(*shares))) __builtin_trap();
            if (const auto leaving = store::decode_leaving(text, 5); leaving && !store::decode_leaving(store::encode_leaving(*leaving, 5), 5)) __builtin_trap();
            if (const auto entry = store::decode_state(text, 0); entry && !store::decode_state(store::encode_state(*entry, 0), 0)) __builtin_trap();
            break;
        }
        case 7: {   // state store requests, several in a row
            statestore::StateStore keys([](const std::string&, const statestore::Entry*) {}, 50);
            std::vector<statestore::Notification> told;
            for (std::size_t at = 0; at < text.size();) {
                const auto end = std::min(text.find('\x01', at), text.size());
                const auto answer = keys.handle({.client_id = "c", .payload = std::string_view(text).substr(at, end - at), .timestamp = "1:0:x"}, 1'000'000, told);
                if (!answer.payload.ends_with("\r\n") || keys.size() > 50) __builtin_trap();
                at = end + 1;
            }
            break;
        }
        default: {
            const auto first = text.find('\n');
            if (first == std::string::npos) break;
            const auto second = text.find('\n', first + 1);
            const auto allowed = text.substr(0, first), wanted = text.substr(first + 1, second == std::string::npos ? std::string::npos : second - first - 1), third = second == std::string::npos ? std::string() : text.substr(second + 1);
            static_cast<void>(auth::token_fault(allowed, true));
            const auth::Principal principal{.user_name = wanted};
            if (const auto filled = auth::fill_topic(allowed, principal, third); filled && allowed.find("{principal.") != std::string::npos && topics::is_valid_filter(allowed) && !topics::is_valid_filter(*filled)) __builtin_trap();
            static_cast<void>(auth::glob_with_tokens(allowed, true, principal, third, wanted));
            if (topics::is_valid_filter(allowed) && topics::is_valid_filter(wanted) && topics::is_valid_name(third) && topics::covers(allowed, wanted) && topics::matches(wanted, third) && !topics::matches(allowed, third)) __builtin_trap();
            break;
        }
    }
    return 0;
}
