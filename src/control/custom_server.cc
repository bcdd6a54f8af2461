#include "control/custom_server.h"

#include <algorithm>
#include <mutex>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/ocsp.h"

namespace penstock::control {

using auth::CustomMethod;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* newest_version = "0.5.0";
constexpr std::size_t fleet_max = 20'000;         // questions that wait, when all clients return at once
constexpr std::size_t attributes_max = 100, attribute_bytes_max = 1024;
constexpr std::int64_t ocsp_failure_kept_ms = 60'000, ocsp_answer_kept_ms = 3'600'000;
constexpr std::size_t ocsp_kept_max = 10'000;

Json question_body(const CustomMethod::Question& question) {
    Json out = {{"type", question.is_auth ? "auth" : "connect"}};
    if (question.method) out["enhancedAuthentication"] = {{"method", *question.method}, {"data", base64_encode(question.data)}};
    if (question.is_auth) return out;
    if (question.user_name) out["username"] = *question.user_name;
    if (question.password) out["password"] = base64_encode(*question.password);
    if (!question.certificates.empty()) out["certs"] = question.certificates;
    return out;
}

class HttpServer final : public CustomMethod::Server, public std::enable_shared_from_this<HttpServer> {
  public:
    using Headers = std::vector<std::pair<std::string, std::string>>;
    HttpServer(std::shared_ptr<client::HttpSite> site, Headers headers, std::string fault, std::string url,
               Clock clock)
        : clock_(std::move(clock)), site_(std::move(site)), headers_(std::move(headers)),
          fault_(std::move(fault)), url_(std::move(url)) {
        headers_.emplace_back("Content-Type", "application/json");
    }
    void ask(CustomMethod::Question question, std::function<void(CustomMethod::Answer)> done) override {
        if (site_ == nullptr) return done({.message = fault_});
        auto body = question_body(question).dump(-1, ' ', false, Json::error_handler_t::replace);
        send({std::move(body), question.network, [asker = question.asker] { return !asker || !asker->expired(); }}, newest_version, 0, std::move(done));
    }
    std::string fault() const override {
        const std::lock_guard lock(guard_);
        return site_ == nullptr ? fault_ : silence_;
    }
    void look() override {
        if (site_ == nullptr) return;
        {
            const std::lock_guard lock(guard_);
            const auto now = clock_.monotonic_ms();
            if (now - heard_ms_ < (silence_.empty() ? sign_of_life_ms : retry_ms)) return;
            heard_ms_ = now;             // one question at a time
        }
        // Any answer is one: the contract has no question for this, so a server may well refuse the method.
        site_->send("GET", "/", {}, "", [self = shared_from_this()](const client::HttpAnswer& answer) {
            const bool is_proxy = answer.status >= 502 && answer.status <= 504;   // somebody in front of it answers
            self->heard(answer.status == 0 ? answer.error : is_proxy ? fmt::format("GET / was answered {}", answer.status) : std::string());
        });
    }

  private:
    struct Call {
        std::string body, network;
        std::function<bool()> wanted;
    };
    void send(Call call, const std::string& version, int attempt, std::function<void(CustomMethod::Answer)> done) {
        auto body = call.body;
        auto wanted = call.wanted;
        auto network = call.network;
        site_->send("POST", "/?api-version=" + version, headers_, std::move(body), [self = shared_from_this(), call = std::move(call), attempt, done = std::move(done)](client::HttpAnswer answer) mutable {
            if (answer.status == 422 && attempt == 0) {
                // The server names what it speaks; ours is one version, which later ones must still understand.
                const auto parsed = resources::parse_json(answer.body);
                if (parsed && parsed->is_object())
                    if (const auto& versions = resources::at_path(*parsed, "supportedVersions"); versions.is_array())
                        for (const auto& candidate : versions)
                            if (candidate.is_string() && candidate.get<std::string>().starts_with("0.") && candidate.get<std::string>().find_first_not_of("0123456789.") == std::string::npos)
                                return self->send(std::move(call), candidate.get<std::string>(), attempt + 1, std::move(done));
            }
            auto out = answer.status == 0 ? CustomMethod::Answer{.message = answer.error}
                                          : custom_answer(answer.status, answer.body, self->clock_.wall_ms());
            const bool is_silent = out.kind == CustomMethod::Answer::Kind::unreachable;
            if (!answer.is_unsent) self->heard(is_silent ? out.message : std::string());   // a question that was not asked tells nothing of the server
            if (is_silent && call.wanted()) {
                static log::RateLimit limit(1);
                std::uint64_t suppressed = 0;
                if (limit.allow(self->clock_.monotonic_ms(), suppressed))
                    log::warn("control",
                              "a custom authentication server does not answer why=\"{}\" suppressed={}",
                              out.message, suppressed);
            }
            done(std::move(out));
        }, std::move(wanted), std::move(network));
    }
    void heard(const std::string& why_not) {
        const std::lock_guard lock(guard_);
        heard_ms_ = clock_.monotonic_ms();
        if (silence_.empty() != why_not.empty()) {
            if (why_not.empty()) log::info("control", "a custom authentication server answers again url={}", url_);
            else log::warn("control", "a custom authentication server does not answer url={} why=\"{}\"", url_, why_not);
        }
        silence_ = why_not;
    }
    static constexpr std::int64_t sign_of_life_ms = 30'000, retry_ms = 5000;

    const Clock clock_;
    std::shared_ptr<client::HttpSite> site_;
    std::vector<std::pair<std::string, std::string>> headers_;
    std::string fault_, url_;
    mutable std::mutex guard_;           ///< silence_, heard_ms_
    std::string silence_;                ///< why the last question had no answer
    std::int64_t heard_ms_ = -sign_of_life_ms;               ///< monotonic time of the last answer or question
};

}  // namespace

CustomMethod::Answer custom_answer(int status, const std::string& body, std::int64_t now_ms) {
    using Kind = CustomMethod::Answer::Kind;
    auto broken = [](std::string why) { return CustomMethod::Answer{.kind = Kind::refuse, .reason = 0x87, .message = std::move(why)}; };
    if (status >= 500) return {.kind = Kind::unreachable, .message = fmt::format("the server answered {}", status)};
    if (status != 200 && status != 403) return broken(fmt::format("the server answered {} {}", status, printable(clipped(body, 200))));
    const auto parsed = resources::parse_json(body);
    if (!parsed || !parsed->is_object()) return broken(fmt::format("the server answered {} without a JSON object", status));
    if (status == 403) {
        const auto& reason = resources::at_path(*parsed, "reason");
        const bool plausible = reason.is_number_integer() && reason >= 0 && reason <= 255;
        return {.kind = Kind::refuse, .reason = plausible ? reason.get<int>() : 0x87, .message = printable(clipped(text_at(*parsed, "message"), 500))};
    }
    CustomMethod::Answer out{.kind = Kind::accept, .reason = 0, .message = {}};
    if (const auto& expiry = resources::at_path(*parsed, "expiry"); !expiry.is_null()) {
        out.expires_at = expiry.is_string() ? parse_rfc3339(expiry.get<std::string>()) : -1;
        if (out.expires_at < 0) return broken("expiry is no time in RFC 3339");
        if (out.expires_at <= now_ms) return broken("expiry is in the past");
    }
    if (const auto& attributes = resources::at_path(*parsed, "attributes"); !attributes.is_null()) {
        if (!attributes.is_object() || attributes.size() > attributes_max) return broken(fmt::format("attributes is no object of at most {} texts", attributes_max));
        for (const auto& [name, value] : attributes.items()) {
            if (!value.is_string() || name.size() + value.get_ref<const std::string&>().size() > attribute_bytes_max) return broken(fmt::format("attribute {} is no text, or longer than {} bytes", printable(clipped(name, 50)), attribute_bytes_max));
            out.attributes.emplace(name, value.get<std::string>());
        }
    }
    return out;
}

std::shared_ptr<CustomMethod::Server> make_custom_server(const std::shared_ptr<HttpPool>& pool,
                                                         const Json& settings, const Clock& clock) {
    auto site = pool->site({.url = text_at(settings, "endpoint"), .ca = text_at(settings, "ca"), .certificate = text_at(settings, "certificate"), .key = text_at(settings, "key"), .waiting_max = fleet_max});
    std::vector<std::pair<std::string, std::string>> headers;
    for (const auto& [name, value] : settings["headers"].items())
        if (value.is_string()) headers.emplace_back(name, value.get<std::string>());
    const auto url = text_at(settings, "endpoint");
    if (!site)
        return std::make_shared<HttpServer>(nullptr, std::move(headers), site.error().message, url, clock);
    return std::make_shared<HttpServer>(std::move(*site), std::move(headers), std::string(), url, clock);
}

// --- OCSP ---

namespace {

class OcspCheck final : public auth::X509Method::Revocation, public std::enable_shared_from_this<OcspCheck> {
  public:
    OcspCheck(std::shared_ptr<HttpPool> pool, bool hard, Clock clock)
        : clock_(std::move(clock)), pool_(std::move(pool)), hard_(hard) {}

    std::optional<Known> look(const std::vector<crypto::Certificate>& path, const std::function<Done()>& later) override {
        Known known;
        const auto question = next_question(path, 0, known);
        if (!question) return known;
        ask(*question, std::make_shared<const std::vector<crypto::Certificate>>(path), std::move(known), later());
        return std::nullopt;
    }

  private:
    struct Question {
        std::size_t at = 0;              ///< the certificate's place in its path
        std::shared_ptr<client::HttpSite> site;
        std::string request;
    };
    /// What is known of a path is what is wrong with one of it, and holds until that of any of it ends.
    static void add(Known& all, const Known& one) {
        all.fault = one.fault;
        all.is_revoked = one.is_revoked;
        all.until_ms = all.until_ms == 0 ? one.until_ms : std::min(all.until_ms, one.until_ms);
    }
    /// Who from `at` on has to be asked about. Nothing: all are known, or one of them is bad.
    std::optional<Question> next_question(const std::vector<crypto::Certificate>& path, std::size_t at, Known& known) {
        for (; at + 1 < path.size() && known.fault.empty(); ++at) {
            const auto urls = path[at].ocsp_urls();
            if (urls.empty()) continue;
            {
                const std::lock_guard lock(guard_);
                const auto revoked = revoked_.find(path[at].fingerprint());
                const auto found = known_.find(key_of(path[at], path[at + 1]));
                const auto* told = revoked != revoked_.end() ? &revoked->second : found != known_.end() ? &found->second : nullptr;
                if (told != nullptr && told->until_ms > clock_.wall_ms()) {
                    add(known, *told);
                    continue;
                }
            }
            auto request = crypto::ocsp_request(path[at], path[at + 1]);
            auto site = pool_->site({.url = urls.front(), .plain_allowed = true, .timeout_ms = 3000});   // OCSP answers are signed themselves
            if (request && site) return Question{.at = at, .site = std::move(*site), .request = std::move(*request)};
            add(known, unasked(path[at], path[at + 1], !site ? site.error().message : request.error().message));
        }
        return std::nullopt;
    }
    void ask(const Question& question, const std::shared_ptr<const std::vector<crypto::Certificate>>& path, Known known, const Done& done) {
        question.site->send("POST", "", {{"Content-Type", "application/ocsp-request"}, {"Accept", "application/ocsp-response"}}, question.request,
                            [self = shared_from_this(), path, known = std::move(known), at = question.at, done](const client::HttpAnswer& answer) mutable {
                                add(known, self->read(answer, (*path)[at], (*path)[at + 1]));
                                if (const auto next = self->next_question(*path, at + 1, known)) self->ask(*next, path, std::move(known), done);
                                else done(known);
                            });
    }
    Known read(const client::HttpAnswer& answer, const crypto::Certificate& one, const crypto::Certificate& issuer) {
        if (answer.status != 200) return unasked(one, issuer, answer.status == 0 ? answer.error : fmt::format("the responder answered {}", answer.status));
        const auto status = crypto::ocsp_status(answer.body, one, issuer, clock_.wall_ms());
        if (!status) return unasked(one, issuer, status.error().message);
        if (status->kind == crypto::OcspStatus::Kind::unknown) return unasked(one, issuer, "the responder does not know the certificate");
        const auto now = clock_.wall_ms();
        Known out{.fault = {},
                  .is_revoked = status->kind == crypto::OcspStatus::Kind::revoked,
                  .until_ms = status->good_until_ms != 0
                                  ? std::min(status->good_until_ms, now + ocsp_answer_kept_ms)
                                  : now + ocsp_failure_kept_ms};
        if (out.is_revoked) out.fault = fmt::format("certificate \"{}\" is revoked (OCSP, serial {})", one.subject(), one.serial());
        return remember(one, issuer, std::move(out), true);
    }
    Known unasked(const crypto::Certificate& one, const crypto::Certificate& issuer, const std::string& why) {
        static log::RateLimit limit(1);
        std::uint64_t suppressed = 0;
        if (limit.allow(clock_.monotonic_ms(), suppressed))
            log::warn("control",
                      "a certificate's status cannot be learned subject=\"{}\" why=\"{}\" policy={} "
                      "suppressed={}",
                      one.subject(), why, hard_ ? "HardFail" : "SoftFail", suppressed);
        Known known{.fault = {}, .until_ms = clock_.wall_ms() + ocsp_failure_kept_ms};
        if (hard_)
            known.fault = fmt::format("whether certificate \"{}\" is revoked cannot be learned ({}), and the "
                                      "policy is HardFail",
                                      one.subject(), why);
        return remember(one, issuer, std::move(known), false);
    }
    /// An answer is verified with the issuer's key: what one issuer's path could not verify says nothing of another's.
    static std::string key_of(const crypto::Certificate& one, const crypto::Certificate& issuer) {
        return one.fingerprint() + issuer.fingerprint();
    }
    /// `answered`: the responder said it. A certificate that is revoked stays so whatever its path, until a responder says otherwise:
    /// one that is silent, or an answer that cannot be verified, takes nothing back.
    Known remember(const crypto::Certificate& one, const crypto::Certificate& issuer, Known known, bool answered) {
        const std::lock_guard lock(guard_);
        const auto revoked = revoked_.find(one.fingerprint());
        if (revoked != revoked_.end() && !answered) {
            revoked->second.until_ms = std::max(revoked->second.until_ms, known.until_ms);
            return revoked->second;
        }
        if (revoked != revoked_.end()) revoked_.erase(revoked);
        if (known.is_revoked) {
            if (revoked_.size() >= ocsp_kept_max) revoked_.erase(revoked_.begin());
            return revoked_[one.fingerprint()] = std::move(known);
        }
        if (known_.size() >= ocsp_kept_max) known_.clear();
        return known_[key_of(one, issuer)] = std::move(known);
    }
    const Clock clock_;
    std::shared_ptr<HttpPool> pool_;
    bool hard_;
    std::mutex guard_;                   ///< what follows
    std::map<std::string, Known> known_;     ///< not revoked, by the certificate and its issuer
    std::map<std::string, Known> revoked_;   ///< by the certificate
};

}  // namespace

std::shared_ptr<auth::X509Method::Revocation> make_revocation_check(const std::shared_ptr<HttpPool>& pool,
                                                                    const std::string& mode,
                                                                    const Clock& clock) {
    return std::make_shared<OcspCheck>(pool, equal_no_case(mode, "HardFail"), clock);
}

}  // namespace penstock::control
