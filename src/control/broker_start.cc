#include "control/broker_start.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "base/log.h"
#include "io/poller.h"

namespace penstock::control {

using resources::Json;

namespace {

constexpr int recovery_report_ms = 1000;

void log_start(const Json& broker, const broker::Server& server, const char* persistence) {
    log::info("control", "the broker has started broker={} workers={} persistence={}", qualified_name(broker),
              server.workers(), persistence);
}

/// No port is open yet: what is there was read back. Of retained messages each worker has them all.
void log_recovery(broker::Server& server, const std::string& folder) {
    broker::CoreFigures all;
    for (const auto& core : server.collect()) {
        all.sessions += core.sessions;
        all.subscriptions += core.subscriptions;
        all.shared_subscriptions += core.shared_subscriptions;
        all.retained_messages = std::max(all.retained_messages, core.retained_messages);
        all.queued += core.queued;
        all.in_flight += core.in_flight;
        all.wills += core.wills;
        all.state_keys += core.state_keys;
    }
    // Of the module whose lines the Pods of both front and back end have.
    log::info("store",
              "the state was read back: recovered sessions={} subscriptions={} shared_subscriptions={} "
              "retained_messages={} queued_messages={} in_flight={} wills={} state_keys={} folder={} "
              "seconds={:.2f}",
              all.sessions, all.subscriptions, all.shared_subscriptions, all.retained_messages, all.queued,
              all.in_flight, all.wills, all.state_keys, folder, server.durable()->figures().recovery_seconds);
}

std::string how_far(const store::RecoveryProgress& progress) {
    const auto expected = progress.expected.load(), records = progress.records.load();
    if (expected == 0) return "reading the log";
    return fmt::format("{} of about {} records, {} %", records, expected,
                       std::min<std::uint64_t>(99, records * 100 / expected));
}

}  // namespace

std::unique_ptr<broker::Server> BrokerStart::start(const Plan& plan, const Json& broker,
                                                   const std::vector<Json>& listeners) {
    if (!plan.is_persistent) {
        auto out = std::make_unique<broker::Server>(plan.workers, nullptr, state_.place().buffer_folder,
                                                    plan.config);
        log_start(broker, *out, "off");
        return out;
    }
    auto out = start_with_state(plan, broker);
    if (out == nullptr) tell_fault(fault_, broker, listeners);
    return out;
}

std::unique_ptr<broker::Server> BrokerStart::start_with_state(const Plan& plan, const Json& broker) {
    const auto progress = std::make_shared<store::RecoveryProgress>();
    std::atomic<bool> ready{false};
    // The start itself has this thread.
    io::Poller clock;
    std::thread reporter([&] {
        while (true) {
            clock.wait(recovery_report_ms);
            if (ready) return;
            tell_progress(broker, *progress);
        }
    });
    auto opened = state_.open(plan, qualified_name(broker), plan.workers, progress);
    auto out = opened ? std::make_unique<broker::Server>(plan.workers, std::move(*opened),
                                                         state_.place().buffer_folder, plan.config)
                      : nullptr;
    ready = true;
    clock.wake();
    reporter.join();
    if (out == nullptr) {
        if (fault_ != opened.error().message)
            log::error("control", "the broker's state cannot be opened why=\"{}\"", opened.error().message);
        fault_ = opened.error().message;
        return out;
    }
    fault_.clear();
    log_recovery(*out, state_.place().folder);
    log_start(broker, *out, "on");
    return out;
}

void BrokerStart::tell_progress(const Json& broker, const store::RecoveryProgress& progress) {
    const auto far = how_far(progress);
    reporter_.tell({.name = qualified_name(broker),
                    .not_started = "the broker's state is being read: " + far,
                    .is_starting = true});
    log::info("control", "the broker's state is being read folder={} progress=\"{}\"", state_.place().folder,
              far);
    writer_.write_basic(broker_kind("Broker"), broker,
                        {"Recovering",
                         "reading the state back: " + far,
                         {.status = "Unavailable",
                          .reason = "Recovering",
                          .message = "the state is being read back: " + far}});
}

void BrokerStart::tell_fault(const std::string& why, const Json& broker, const std::vector<Json>& listeners) {
    const HealthState health{.status = "Unavailable", .reason = "StateNotOpen", .message = why};
    writer_.write_basic(broker_kind("Broker"), broker, {"Failed", why, health});
    for (const auto& listener : listeners)
        writer_.write_basic(broker_kind("BrokerListener"), listener,
                            {"Waiting", "the Broker's state cannot be opened", health});
}

}  // namespace penstock::control
