#include <algorithm>
#include <ranges>

#include <fmt/format.h>

#include "auth/methods.h"
#include "crypto/signature.h"

namespace penstock::auth {

/// Credentials whose views outlive the packet they came in, for answers that come later.
struct MethodChain::Kept {
    std::string client_id, user_name, password, method, data, network;
    Credentials credentials;

    explicit Kept(const Credentials& from)
        : client_id(from.client_id), user_name(from.user_name.value_or("")), password(from.password.value_or("")), method(from.method.value_or("")), data(from.data), network(from.network), credentials(from) {
        credentials.client_id = client_id;
        if (from.user_name) credentials.user_name = user_name;
        if (from.password) credentials.password = password;
        if (from.method) credentials.method = method;
        credentials.data = data;
        credentials.network = network;
    }
};

namespace {

/// How a client shows what a method looks at.
const char* way_of(std::string_view method) {
    if (method == "ServiceAccountToken")
        return " (MQTT 5 enhanced authentication: authentication-method K8S-SAT, authentication-data the "
               "token)";
    if (method == "X509") return " (a client certificate, shown in the TLS handshake)";
    if (method == "Password") return " (user name and password of CONNECT)";
    if (method == "Custom")
        return " (what its server asks for: user name and password, an authentication-method with its data, "
               "or a client certificate)";
    return "";
}

}  // namespace

Verdict MethodChain::begin(const Credentials& credentials, std::unique_ptr<Exchange>& exchange, const Later& later) {
    exchange.reset();
    if (credentials.method && *credentials.method == probe_method) {
        if (probe_secret_ == nullptr || probe_secret_->empty() || !crypto::equal_constant_time(*probe_secret_, credentials.data))
            return Verdict::refused(mqtt::ReasonCode::bad_authentication_method, "this authentication method is not known here");
        return Verdict::accepted({.method = probe_name, .user_name = "penstock-probe", .id = "probe"});
    }
    return walk(0, credentials, later, nullptr);
}

Verdict MethodChain::walk(std::size_t from, const Credentials& credentials, const Later& later, const std::shared_ptr<Kept>& kept) {
    for (auto i = from; i < methods_.size(); ++i) {
        auto& method = *methods_[i];
        auto step = method.check(credentials, [&, i]() -> Resume {
            auto done = later();
            auto owned = kept != nullptr ? kept : std::make_shared<Kept>(credentials);
            return [self = shared_from_this(), i, done = std::move(done), owned = std::move(owned)](Step answer) {
                Verdict verdict;
                if (answer.kind == Step::Kind::verdict) {
                    verdict = std::move(answer.verdict);
                    verdict.method = self->methods_[i]->name();
                } else {
                    verdict = self->walk(i + 1, owned->credentials, [&] { return done; }, owned);
                    if (verdict.kind == Verdict::Kind::wait) return;
                }
                done(std::move(verdict));
            };
        });
        if (step.kind == Step::Kind::not_mine) continue;
        if (step.kind == Step::Kind::wait) step.verdict.kind = Verdict::Kind::wait;
        step.verdict.method = method.name();
        return std::move(step.verdict);
    }
    std::string wanted;
    for (std::size_t i = 0; i < methods_.size(); ++i) {
        const std::string_view name = methods_[i]->name();
        // Two of one kind are shown the same.
        const auto is_same = [&](const auto& one) { return one->name() == name; };
        if (std::ranges::any_of(methods_ | std::views::take(i), is_same)) continue;
        wanted += fmt::format("{}{}{}", wanted.empty() ? "" : ", ", name, way_of(name));
    }
    if (credentials.method) return Verdict::refused(mqtt::ReasonCode::bad_authentication_method, fmt::format("no authentication method here takes it; there are: {}", wanted));
    return Verdict::refused(mqtt::ReasonCode::not_authorized, fmt::format("no credentials were shown that a method here takes; there are: {}", wanted));
}

std::string MethodChain::review(Principal& principal, const std::vector<crypto::Certificate>& chain, std::int64_t now_ms) {
    if (principal.method == probe_name) return {};
    std::string why = fmt::format("authentication by {} is not offered any more", principal.method.empty() ? "nothing" : principal.method);
    for (const auto& method : methods_) {
        if (principal.method != method->name()) continue;
        why = method->review(principal, chain, now_ms);
        if (why.empty()) break;
    }
    return why;
}

}  // namespace penstock::auth
