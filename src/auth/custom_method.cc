#include <fmt/format.h>

#include "auth/methods.h"

namespace penstock::auth {

namespace {

/// Codes a CONNACK may carry as a refusal, MQTT 5.0 Table 3-1; the rest becomes 0x87.
mqtt::ReasonCode refusal_code(int reason) {
    using enum mqtt::ReasonCode;
    // Servers written for version 3 answer its return codes.
    switch (reason) {
        case 1: return unsupported_protocol_version;
        case 2: return client_identifier_not_valid;
        case 3: return server_unavailable;
        case 4: return bad_user_name_or_password;
        default: break;
    }
    for (const auto code : {unspecified_error, malformed_packet, protocol_error, implementation_specific_error, unsupported_protocol_version, client_identifier_not_valid, bad_user_name_or_password,
                            not_authorized, server_unavailable, server_busy, banned, bad_authentication_method, topic_name_invalid, packet_too_large, quota_exceeded, payload_format_invalid,
                            retain_not_supported, qos_not_supported, use_another_server, server_moved, connection_rate_exceeded})
        if (reason == static_cast<int>(code)) return code;
    return not_authorized;
}

}  // namespace

Step CustomMethod::check(const Credentials& credentials, const std::function<Resume()>& later) {
    Question question{.is_auth = credentials.is_again, .asker = credentials.asker};
    auto copy = [](const std::optional<std::string_view>& from) { return from ? std::optional<std::string>(*from) : std::nullopt; };
    question.user_name = copy(credentials.user_name);
    question.password = copy(credentials.password);
    question.method = copy(credentials.method);
    question.data = credentials.data;
    question.network = credentials.network;
    for (const auto& certificate : credentials.chain) question.certificates += certificate.pem();
    Principal principal{.method = name(), .user_name = question.user_name.value_or("")};
    // Without a user name the certificate's name is what the server could have looked at.
    if (!question.user_name && !credentials.chain.empty()) principal.user_name = credentials.chain.front().common_name();
    principal.id = principal.user_name.empty() ? "" : "custom/" + principal.user_name;
    server_->ask(std::move(question), [resume = later(), principal, closed = closed_, again = credentials.is_again](Answer answer) mutable {
        switch (answer.kind) {
            case Answer::Kind::accept:
                principal.expires_at = answer.expires_at;
                principal.attributes = std::make_shared<const Attributes>(std::move(answer.attributes));
                return resume(Step::of(Verdict::accepted(std::move(principal))));
            case Answer::Kind::refuse: {
                auto verdict = Verdict::refused(refusal_code(answer.reason), "the authentication server refused");
                verdict.detail = fmt::format("code {} {}", answer.reason, answer.message);
                return resume(Step::of(std::move(verdict)));
            }
            case Answer::Kind::unreachable: break;
        }
        if (!closed && !again) return resume({});
        auto verdict = Verdict::refused(mqtt::ReasonCode::server_unavailable, "the authentication server does not answer; retry later");
        verdict.is_fault = true;
        verdict.detail = answer.message;
        resume(Step::of(std::move(verdict)));
    });
    return {.kind = Step::Kind::wait, .verdict = {}};
}

}  // namespace penstock::auth
