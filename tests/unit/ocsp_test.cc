// What a responder (OCSP, RFC 6960) has said is remembered as it was said: by whom it can be verified, and as long as nobody takes it back.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ocsp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <mutex>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "base/given_clock.h"
#include "control/custom_server.h"
#include "crypto/ocsp.h"
#include "harness/x509_maker.h"

namespace penstock {
namespace {

using crypto::Certificate;
using harness::Signer;

/// An answer about `leaf`, in DER. `next_s`: seconds from now to its next update.
std::string answer_about(const Certificate& leaf, const Signer& issuer, int status, long next_s) {
    const std::unique_ptr<OCSP_BASICRESP, crypto::Freer<OCSP_BASICRESP_free>> basic(OCSP_BASICRESP_new());
    const std::unique_ptr<OCSP_CERTID, crypto::Freer<OCSP_CERTID_free>> id(OCSP_cert_to_id(EVP_sha1(), leaf.native(), issuer.certificate.native()));
    const std::unique_ptr<ASN1_TIME, crypto::Freer<ASN1_TIME_free>> since(X509_gmtime_adj(nullptr, -600)), next(X509_gmtime_adj(nullptr, next_s));
    OCSP_basic_add1_status(basic.get(), id.get(), status, OCSP_REVOKED_STATUS_KEYCOMPROMISE, status == V_OCSP_CERTSTATUS_REVOKED ? since.get() : nullptr, since.get(), next.get());
    OCSP_basic_sign(basic.get(), issuer.certificate.native(), issuer.key.get(), EVP_sha256(), nullptr, 0);
    const std::unique_ptr<OCSP_RESPONSE, crypto::Freer<OCSP_RESPONSE_free>> whole(OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic.get()));
    unsigned char* bytes = nullptr;
    const int size = i2d_OCSP_RESPONSE(whole.get(), &bytes);
    std::string out(bytes, bytes + size);
    OPENSSL_free(bytes);
    return out;
}

/// A responder on loopback that answers each question with what the test gives it; nothing: 503.
class Responder {
  public:
    Responder() {
        sockaddr_in here{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
        socklen_t size = sizeof here;
        listening_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT_EQ(bind(listening_, reinterpret_cast<sockaddr*>(&here), size), 0);
        EXPECT_EQ(listen(listening_, 16), 0);
        EXPECT_EQ(getsockname(listening_, reinterpret_cast<sockaddr*>(&here), &size), 0);
        port_ = ntohs(here.sin_port);
        thread_ = std::thread([this] { serve(); });
    }
    Responder(const Responder&) = delete;
    Responder& operator=(const Responder&) = delete;
    ~Responder() {
        shutdown(listening_, SHUT_RDWR);
        thread_.join();
        close(listening_);
    }
    [[nodiscard]] std::string access() const { return fmt::format("OCSP;URI:http://127.0.0.1:{}", port_); }
    void say(std::string answer) {
        const std::lock_guard lock(guard_);
        answer_ = std::move(answer);
    }
    [[nodiscard]] int asked() const {
        const std::lock_guard lock(guard_);
        return asked_;
    }

  private:
    void serve() {
        for (int peer = 0; (peer = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0; close(peer)) {
            std::string request(65'536, '\0');
            std::size_t size = 0;
            // To the end of a body of the length that the header names.
            for (ssize_t n = 0; !is_whole({request.data(), size}) && (n = recv(peer, request.data() + size, request.size() - size, 0)) > 0;) size += static_cast<std::size_t>(n);
            if (size == 0) continue;
            std::string answer;
            {
                const std::lock_guard lock(guard_);
                ++asked_;
                answer = answer_;
            }
            const auto reply = fmt::format("HTTP/1.1 {}\r\nContent-Type: application/ocsp-response\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}", answer.empty() ? "503 Busy" : "200 OK", answer.size(), answer);
            EXPECT_EQ(send(peer, reply.data(), reply.size(), MSG_NOSIGNAL), static_cast<ssize_t>(reply.size()));
        }
    }
    static bool is_whole(std::string_view request) {
        const auto end = request.find("\r\n\r\n"), length = request.find("Content-Length: ");
        return end != std::string_view::npos && length != std::string_view::npos && request.size() >= end + 4 + std::stoul(std::string(request.substr(length + 16, 12)));
    }
    int listening_ = -1;
    std::uint16_t port_ = 0;
    std::thread thread_;
    mutable std::mutex guard_;           ///< what follows
    std::string answer_;
    int asked_ = 0;
};

using Known = auth::X509Method::Revocation::Known;

/// What is known of a path, asked about where that has to be.
Known look(auth::X509Method::Revocation& check, const std::vector<Certificate>& path) {
    auto later = std::make_shared<std::promise<Known>>();
    if (auto known = check.look(path, [&] { return [later](const Known& now) { later->set_value(now); }; })) return *known;
    return later->get_future().get();
}

Certificate leaf_of(const Signer& issuer, const Responder& responder) {
    return harness::make_certificate(harness::make_key("P-256"), {.subject = {{"CN", "fan"}}, .issuer = &issuer, .basic = "critical,CA:FALSE", .extended_usage = "clientAuth", .more = {{NID_info_access, responder.access()}}});
}

// RFC 6960, 2.2: revoked is the responder's word, and only the responder takes it back.
TEST(Ocsp, who_is_revoked_stays_so_while_the_responder_is_silent) {
    for (const auto* mode : {"SoftFail", "HardFail"}) {
        const auto ca = harness::make_authority("CA"), stranger = harness::make_authority("CA");
        Responder responder;
        const auto leaf = leaf_of(ca, responder);
        const auto pool = std::make_shared<control::HttpPool>();
        const auto check = control::make_revocation_check(pool, mode, machine_clock());
        const std::vector<Certificate> path{leaf, ca.certificate};
        // Its next update is over already (clocks may differ by five minutes): nothing is answered from what is kept.
        responder.say(answer_about(leaf, ca, V_OCSP_CERTSTATUS_REVOKED, -100));
        EXPECT_TRUE(look(*check, path).is_revoked) << mode;
        EXPECT_EQ(responder.asked(), 1);
        responder.say("");
        const auto silent = look(*check, path);
        EXPECT_EQ(responder.asked(), 2) << "it was asked again";
        EXPECT_TRUE(silent.is_revoked) << mode << ": " << silent.fault;
        EXPECT_NE(silent.fault.find("is revoked (OCSP"), std::string::npos) << silent.fault;
        pool->stop();
    }
}

TEST(Ocsp, nobody_but_the_responder_takes_a_revocation_back) {
    const auto ca = harness::make_authority("CA"), stranger = harness::make_authority("CA");
    Responder responder;
    const auto leaf = leaf_of(ca, responder), other = leaf_of(ca, responder);
    const auto pool = std::make_shared<control::HttpPool>();
    const std::vector<Certificate> path{leaf, ca.certificate};
    struct Case {
        const char* what;
        std::string answer;
        bool is_revoked;
    };
    for (const auto& [what, answer, is_revoked] : {Case{"another's key", answer_about(leaf, stranger, V_OCSP_CERTSTATUS_GOOD, 3600), true}, {"about another certificate", answer_about(other, ca, V_OCSP_CERTSTATUS_GOOD, 3600), true},
                                                   {"unknown", answer_about(leaf, ca, V_OCSP_CERTSTATUS_UNKNOWN, 3600), true}, {"no answer at all", "nonsense", true},
                                                   {"good", answer_about(leaf, ca, V_OCSP_CERTSTATUS_GOOD, 3600), false}}) {
        const auto check = control::make_revocation_check(pool, "SoftFail", machine_clock());
        responder.say(answer_about(leaf, ca, V_OCSP_CERTSTATUS_REVOKED, -100));
        ASSERT_TRUE(look(*check, path).is_revoked) << what;
        responder.say(answer);
        EXPECT_EQ(look(*check, path).is_revoked, is_revoked) << what;
    }
    pool->stop();
}

// An answer is verified with the issuer's key: what is known by way of one issuer says nothing of a path by another one.
TEST(Ocsp, answers_are_kept_by_certificate_and_issuer) {
    const auto ca = harness::make_authority("CA"), stranger = harness::make_authority("CA");
    Responder responder;
    const auto leaf = leaf_of(ca, responder);
    const auto pool = std::make_shared<control::HttpPool>();
    const auto check = control::make_revocation_check(pool, "HardFail", machine_clock());
    responder.say(answer_about(leaf, ca, V_OCSP_CERTSTATUS_GOOD, 3600));
    EXPECT_NE(look(*check, {leaf, stranger.certificate}).fault, "") << "it cannot be verified with that key";
    EXPECT_EQ(look(*check, {leaf, ca.certificate}).fault, "") << "the path that can be verified is not held against it";
    EXPECT_EQ(responder.asked(), 2);
    EXPECT_EQ(look(*check, {leaf, ca.certificate}).fault, "");
    EXPECT_NE(look(*check, {leaf, stranger.certificate}).fault, "");
    EXPECT_EQ(responder.asked(), 2) << "both are kept";
    pool->stop();
}

}  // namespace
}  // namespace penstock
