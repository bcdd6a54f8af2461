#include "control/port_security.h"

#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "control/certificate_outlook.h"
#include "control/cures.h"
#include "control/custom_server.h"
#include "control/status_writer.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::int64_t known_for_ms = 60'000;      // CAs that stand near are read so seldom

/// `is_being_issued`: a certificate is, and that is why.
void block(PlannedPort& port, const std::string& why, bool is_being_issued = false) {
    port.is_being_issued = is_being_issued && port.blocked.empty();
    port.blocked += (port.blocked.empty() ? "" : "; ") + why;
}

void warn(PlannedPort& port, std::string what, std::string cure) {
    port.warnings.push_back({.what = std::move(what), .cure = std::move(cure)});
}

void warn_all(PlannedPort& port, const std::vector<std::string>& texts, const std::string& cure) {
    for (const auto& text : texts) port.warnings.push_back(warning_of(text, cure));
}

bool is_manual(const PlannedPort& port) { return at_path(port.spec, "tls.manual").is_object(); }

std::string edit_listener(const PlannedPort& port) {
    return "with: kubectl edit brokerlistener " + as_words(port.config.resource);
}

std::string joined(const std::string& one, const std::string& other) {
    return one + (one.empty() || other.empty() ? "" : "; ") + other;
}

std::string who_stays(const std::string& why) {
    return fmt::format(
        "newcomers are refused (0x88) and those who are connected stay under the last rules, until "
        "penstock restarts: {}",
        why);
}

}  // namespace

std::string place_of(const PlannedPort& port) {
    return fmt::format("{}:{}", port.config.resource, port.port);
}

PortSecurity::PortSecurity(Objects& objects, Options options)
    : objects_(objects), options_(std::move(options)),
      crew_(std::make_shared<auth::Crew>(auth::Crew::threads_here())),
      http_(std::make_shared<client::HttpPool>()),
      builder_(
          objects,
          {.clock = options_.clock,
           .token_keys = options_.token_keys,
           .probe_secret = options_.probe_secret,
           .crew = crew_,
           .custom_server = [http = http_, time = options_.clock](
                                const Json& settings) { return make_custom_server(http, settings, time); },
           .revocation = [http = http_, time = options_.clock](
                             const std::string& mode) { return make_revocation_check(http, mode, time); }}) {}

void PortSecurity::stop() {
    crew_->stop();
    http_->stop();
}

void PortSecurity::secure(PlannedPort& port, const Json& listener, const BrokerLook& last) {
    const auto who = authenticate(port);
    const auto policy_deleted = authorize(port);
    tell_if_open_to_all(port);
    hold_deleted(port, joined(who.deleted, policy_deleted));
    if (at_path(port.spec, "tls").is_object()) secure_with_tls(port, listener, who);
    else secure_without_tls(port, who);
    if (!port.blocked.empty()) stay_open(port, last);
}

PreparedAuthenticator PortSecurity::authenticate(PlannedPort& port) {
    const auto name = text_at(port.spec, "authenticationRef");
    port.security["authentication"] = name.empty() ? "none" : name;
    if (name.empty()) return {};
    auto who = builder_.authenticator(port.name_space, name);
    if (!who.fault.empty()) block(port, who.fault);
    port.config.authenticator = who.authenticator;
    const auto correct =
        "correct it with: " + edit_command("brokerauthentication", port.name_space + "/" + name);
    warn_all(port, who.warnings, correct);
    const auto ways = look_at(who.ways, options_.clock.wall_ms());
    port.nobody = ways.nobody;
    warn_all(port, ways.warnings, correct);
    // The BrokerAuthentication is no better than what it is made of. One that is not there is told of by the
    // listener that names it.
    if (objects_.get(broker_kind("BrokerAuthentication"), port.name_space, name) != nullptr)
        port.rules_fault = !who.fault.empty() ? who.fault : !who.deleted.empty() ? who.deleted : ways.nobody;
    port.rules_warnings = port.warnings;
    if (!who.methods.empty()) port.security["methods"] = who.methods;
    return who;
}

std::string PortSecurity::authorize(PlannedPort& port) {
    const auto name = text_at(port.spec, "authorizationRef");
    if (name.empty()) return {};
    const auto what = builder_.policy(port.name_space, name);
    if (!what.fault.empty()) block(port, what.fault);
    port.config.policy = what.policy;
    port.security["authorization"] = name;
    const auto correct =
        fmt::format("write what is to be allowed there, with: kubectl edit brokerauthorization {} -n {}",
                    name, port.name_space);
    warn_all(port, what.warnings, correct);
    if (what.fault.empty() && what.rules == 0)
        warn(port,
             fmt::format("BrokerAuthorization {} has no rules in spec.authorizationPolicies.rules: it denies "
                         "everything",
                         name),
             correct);
    if (text_at(port.spec, "authenticationRef").empty()) {
        port.authorization_waits = "without authenticationRef it has no effect";
        warn(
            port,
            fmt::format("{}.authorizationRef: BrokerAuthorization {} has no effect without authenticationRef",
                        port.path, name),
            authentication_cure(objects_, port.config.resource, port.path));
    }
    return what.deleted;
}

void PortSecurity::tell_if_open_to_all(PlannedPort& port) const {
    if (!text_at(port.spec, "authenticationRef").empty() || port.config.loopback_only) return;
    port.everybody = {
        .what = "no authentication: anybody who reaches it from another machine may connect, read and write",
        .cure = authentication_cure(objects_, port.config.resource, port.path) +
                (options_.in_cluster ? "" : "; or keep it to this machine: serviceType: ClusterIp")};
}

void PortSecurity::hold_deleted(PlannedPort& port, const std::string& deleted) {
    if (!deleted.empty() && port.config.authenticator == nullptr) {
        warn(port, deleted, authentication_cure(objects_, port.config.resource, port.path));
    } else if (!deleted.empty() && port.blocked.empty()) {
        port.nobody = who_stays(deleted);
        port.config.authenticator = hold(
            port, "the rules of this port were deleted; no new client is let in until there are rules again",
            deleted);
    } else if (port.blocked.empty()) {
        held_.erase(place_of(port));
    }
}

void PortSecurity::secure_without_tls(PlannedPort& port, const PreparedAuthenticator& who) const {
    const auto authentication = text_at(port.spec, "authenticationRef");
    port.security["tls"] = "none";
    if (!authentication.empty() && !port.config.loopback_only)
        warn(port,
             fmt::format("{} has no tls: passwords and tokens cross the network in clear text", port.path),
             tls_cure(objects_, port.config.resource, port.path));
    if (who.wants_certificate)
        warn(port,
             fmt::format("method X509 of BrokerAuthentication {} needs tls: without it no client can show a "
                         "certificate",
                         authentication),
             tls_cure(objects_, port.config.resource, port.path));
}

void PortSecurity::secure_with_tls(PlannedPort& port, const Json& listener,
                                   const PreparedAuthenticator& who) {
    const auto prepared = builder_.tls(listener, port.spec, expected_hosts(listener), who.wants_certificate,
                                       who.authorities, port.config.protocol == broker::Protocol::websockets);
    port.config.tls = prepared.context;
    port.security["tls"] = is_manual(port) ? "Manual" : "Automatic";
    port.security["secret"] = prepared.secret;
    if (prepared.context != nullptr) {
        const auto& leaf = prepared.context->chain().front();
        port.security["certificate"] = {{"subject", leaf.subject()},
                                        {"issuer", leaf.issuer()},
                                        {"notAfter", rfc3339(leaf.not_after_ms())},
                                        {"dnsNames", leaf.dns_names()},
                                        {"ipAddresses", leaf.addresses()}};
    }
    warn_of_certificate(port, prepared);
    if (prepared.context != nullptr) {
        port.refused = prepared.judgement.because_of(crypto::Weight::all_refuse);
        if (!port.refused.empty())
            port.refused += is_manual(port)
                                ? fmt::format("; put a good one in its place, with: {}",
                                              put_command(objects_, port.name_space, prepared.wanted))
                                : "; correct what is wrong with its issuer, then have it issued anew with: " +
                                      issue_command(objects_, port.name_space, prepared.wanted);
        look_ahead(port, prepared);
    }
    if (!prepared.fault.empty()) block(port, prepared.fault, prepared.is_being_issued);
}

void PortSecurity::warn_of_certificate(PlannedPort& port, const PreparedTls& prepared) const {
    const auto put = put_command(objects_, port.name_space, prepared.wanted);
    const auto anew = is_manual(port) ? fmt::format("put a better one in its place, with: {}", put)
                                      : "have it issued anew with: " +
                                            issue_command(objects_, port.name_space, prepared.wanted);
    const auto names = is_manual(port)
                           ? fmt::format("put one that has it in subjectAltName in its place, with: {}", put)
                           : fmt::format("add it to {}.tls.certManagerCertificateSpec.san (dns or ip), {}",
                                         port.path, edit_listener(port));
    for (const auto& text : prepared.warnings)
        port.warnings.push_back(
            warning_of(text, text.find(" does not cover ") != std::string::npos ? names : anew));
    const auto asked = uncovered_.find(fmt::format("{}:{}", port.config.resource, port.config.port));
    if (asked != uncovered_.end())
        warn(port,
             fmt::format("clients asked for {}, which the certificate does not cover",
                         fmt::join(asked->second, ", ")),
             names);
}

const std::vector<crypto::Certificate>& PortSecurity::authorities_near(const std::string& name_space) {
    auto& near = near_[name_space];
    const auto now = options_.clock.monotonic_ms();
    if (near.read_ms == 0 || now - near.read_ms > known_for_ms)
        near = {.read_ms = now, .authorities = authorities_in(objects_, name_space)};
    return near.authorities;
}

void PortSecurity::look_ahead(PlannedPort& port, const PreparedTls& prepared) {
    const auto now = options_.clock.wall_ms();
    const auto& wanted = prepared.wanted;
    auto warn_of = [&](std::string text) {
        port.warnings.push_back(warning_of(
            std::move(text), "an issuer is named in " + port.path +
                                 ".tls.certManagerCertificateSpec.issuerRef, " + edit_listener(port)));
    };
    // Who issued it sends its chain along where it is ours, or cert-manager's.
    if (!is_manual(port)) {
        if (auto why = not_renewable(objects_, port.name_space, wanted); !why.empty())
            warn_of(std::move(why));
    } else {
        const ServedCertificate served{.chain = prepared.context->chain(),
                                       .name_space = port.name_space,
                                       .secret = wanted,
                                       .is_manual = true,
                                       .put = put_command(objects_, port.name_space, wanted),
                                       .say_root = say_root_command(objects_, port.name_space)};
        for (auto& text : outlook(served, authorities_near(port.name_space), now)) warn_of(std::move(text));
    }
    if (!port.refused.empty()) return;
    for (const auto& certificate : prepared.context->chain())
        if (certificate.not_after_ms() <= now)
            port.refused = fmt::format(
                "certificate \"{}\" has expired at {}: clients that check it refuse; {}",
                certificate.subject(), rfc3339(certificate.not_after_ms()),
                is_manual(port)
                    ? fmt::format("put a valid one into Secret {}/{}, with: {}", port.name_space, wanted,
                                  put_command(objects_, port.name_space, wanted))
                    : "have it issued anew with: " + issue_command(objects_, port.name_space, wanted));
}

std::shared_ptr<auth::Authenticator> PortSecurity::hold(const PlannedPort& port, const char* told,
                                                        const std::string& why) {
    // The same object as long as nothing changes: a new one would have everybody who is connected judged
    // anew.
    auto& held = held_[place_of(port)];
    const auto& now = port.config.authenticator;
    if (held.holder != nullptr && held.holder == now) return held.holder;
    if (held.holder == nullptr || held.last != now || held.why != why)
        held = {.last = now,
                .why = why,
                .holder = std::make_shared<auth::HeldAuthenticator>(now, told, why, options_.probe_secret)};
    return held.holder;
}

void PortSecurity::stay_open(PlannedPort& port, const BrokerLook& last) {
    for (std::size_t i = 0; i < last.plan.ports.size() && i < last.states.size(); ++i) {
        const auto& before = last.plan.ports[i];
        if (!last.states[i].is_open || before.is_leaving || before.config.resource != port.config.resource ||
            before.port != port.port)
            continue;
        auto config = port.config;
        config.tls = before.config.tls;
        if (!config.binds_like(before.config) ||
            (config.tls == nullptr) != at_path(port.spec, "tls").is_null())
            return;
        port.nobody = who_stays(port.blocked);
        port.config = std::move(config);
        port.config.policy = before.config.policy;
        port.config.authenticator = before.config.authenticator;
        port.authentication_waits = port.authorization_waits = "the rules before go on";
        port.config.authenticator =
            hold(port, "the rules of this port cannot be used; no new client is let in until that is mended",
                 std::exchange(port.blocked, {}));
        return;
    }
}

}  // namespace penstock::control
