#include "control/sys_topics.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace penstock::control {

std::vector<std::pair<std::string, std::string>> SysTopics::update(const std::vector<broker::CoreFigures>& cores, std::int64_t pool_used,
                                                                   std::int64_t now, const std::string& version) {
    if (started_ == 0) started_ = last_ = now;
    const auto seconds = static_cast<double>(now - last_) / 1000;
    std::uint64_t connected = 0, sessions = 0, publish_in = 0, publish_out = 0, bytes_in = 0, bytes_out = 0, dropped = 0, subscriptions = 0,
                  shared = 0, packets = 0, payload_in = 0, payload_out = 0, queued = 0, connects = 0, expired = 0;
    for (const auto& core : cores) {
        connected += core.connected_sessions;
        sessions += core.sessions;
        bytes_in += core.bytes_received;
        bytes_out += core.bytes_sent;
        subscriptions += core.subscriptions;
        shared += core.shared_subscriptions;
        packets += core.packets_received;
        queued += core.queued;
        connects += core.connections_total;
        expired += core.expired_messages;
        auto add = [&](const broker::CategoryCounters& c) {
            publish_in += c.publishes_received;
            publish_out += c.delivery.sent;
            payload_in += c.payload_bytes_received;
            payload_out += c.delivery.sent_bytes;
            dropped += c.delivery.dropped_qos0 + c.delivery.dropped_queue_full + c.qos0_dropped_incoming;
        };
        std::ranges::for_each(core.categories, add);
        add(core.aged_categories);
    }
    maximum_ = std::max(maximum_, connected);
    std::vector<std::pair<std::string, std::string>> all;
    auto put = [&](const char* name, auto value) { all.emplace_back(fmt::format("$SYS/broker/{}", name), fmt::format("{}", value)); };
    put("version", fmt::format("penstock version {}", version));
    put("uptime", fmt::format("{} seconds", (now - started_) / 1000));
    put("clients/total", sessions);
    put("clients/connected", connected);
    put("clients/active", connected);
    put("clients/disconnected", sessions - connected);
    put("clients/inactive", sessions - connected);
    put("clients/maximum", maximum_);
    put("messages/received", packets);
    put("messages/sent", publish_out);
    put("messages/stored", queued + (cores.empty() ? 0 : cores[0].retained_messages));
    put("store/messages/count", queued + (cores.empty() ? 0 : cores[0].retained_messages));
    put("store/messages/bytes", std::max<std::int64_t>(0, pool_used));
    put("retained messages/count", cores.empty() ? 0 : cores[0].retained_messages);
    put("subscriptions/count", subscriptions + shared);
    put("shared_subscriptions/count", shared);
    put("publish/messages/received", publish_in);
    put("publish/messages/sent", publish_out);
    put("publish/messages/dropped", dropped);
    put("publish/messages/expired", expired);
    put("publish/bytes/received", payload_in);
    put("publish/bytes/sent", payload_out);
    put("bytes/received", bytes_in);
    put("bytes/sent", bytes_out);

    auto load = [&](const char* name, std::uint64_t total) {
        auto at = std::ranges::find(loads_, name, &std::pair<std::string, Load>::first);
        if (at == loads_.end()) at = loads_.insert(loads_.end(), {name, {.last = total}});
        auto& l = at->second;
        if (seconds > 0) {
            const auto per_minute = static_cast<double>(total - l.last) * 60 / seconds;
            constexpr std::array minutes{1.0, 5.0, 15.0};
            for (std::size_t i = 0; i < 3; ++i) l.average[i] += (1 - std::exp(-seconds / (minutes[i] * 60))) * (per_minute - l.average[i]);
            l.last = total;
        }
        for (std::size_t i = 0; i < 3; ++i)
            all.emplace_back(fmt::format("$SYS/broker/load/{}/{}", name, std::array{"1min", "5min", "15min"}[i]), fmt::format("{:.2f}", l.average[i]));
    };
    load("messages/received", packets);
    load("messages/sent", publish_out);
    load("publish/received", publish_in);
    load("publish/sent", publish_out);
    load("publish/dropped", dropped);
    load("bytes/received", bytes_in);
    load("bytes/sent", bytes_out);
    load("connections", connects);
    last_ = now;

    std::vector<std::pair<std::string, std::string>> changed;
    for (std::size_t i = 0; i < all.size(); ++i)
        if (i >= previous_.size() || previous_[i] != all[i]) changed.push_back(all[i]);
    previous_ = std::move(all);
    return changed;
}

std::vector<std::pair<std::string, std::string>> SysTopics::withdraw() {
    auto values = std::exchange(previous_, {});
    for (auto& [topic, value] : values) value.clear();
    return values;
}

}  // namespace penstock::control
