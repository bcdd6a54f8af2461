#include "control/sys_topics.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace penstock::control {

namespace {

constexpr std::array load_minutes{1.0, 5.0, 15.0};
constexpr std::array load_names{"1min", "5min", "15min"};

/// What all workers counted, together.
struct Totals {
    std::uint64_t connected = 0, sessions = 0, connects = 0;
    std::uint64_t packets = 0, bytes_in = 0, bytes_out = 0;
    std::uint64_t publish_in = 0, publish_out = 0, payload_in = 0, payload_out = 0, dropped = 0, expired = 0;
    std::uint64_t subscriptions = 0, shared = 0, queued = 0;
    std::uint64_t retained = 0;          ///< each worker has them all
};

void add(Totals& out, const broker::CategoryCounters& category) {
    out.publish_in += category.publishes_received;
    out.publish_out += category.delivery.sent;
    out.payload_in += category.payload_bytes_received;
    out.payload_out += category.delivery.sent_bytes;
    out.dropped += category.delivery.dropped_qos0 + category.delivery.dropped_queue_full;
    out.dropped += category.qos0_dropped_incoming;
}

Totals total_of(const std::vector<broker::CoreFigures>& cores) {
    Totals out;
    for (const auto& core : cores) {
        out.connected += core.connected_sessions;
        out.sessions += core.sessions;
        out.bytes_in += core.bytes_received;
        out.bytes_out += core.bytes_sent;
        out.subscriptions += core.subscriptions;
        out.shared += core.shared_subscriptions;
        out.packets += core.packets_received;
        out.queued += core.queued;
        out.connects += core.connections_total;
        out.expired += core.expired_messages;
        for (const auto& category : core.categories) add(out, category);
        add(out, core.aged_categories);
    }
    if (!cores.empty()) out.retained = cores[0].retained_messages;
    return out;
}

}  // namespace

void SysTopics::add_load(Values& out, const char* name, std::uint64_t total, double seconds) {
    auto at = std::ranges::find(loads_, name, &std::pair<std::string, Load>::first);
    if (at == loads_.end()) at = loads_.insert(loads_.end(), {name, {.last = total}});
    auto& load = at->second;
    if (seconds > 0) {
        const auto per_minute = static_cast<double>(total - load.last) * 60 / seconds;
        for (std::size_t i = 0; i < load_minutes.size(); ++i)
            load.average[i] +=
                (1 - std::exp(-seconds / (load_minutes[i] * 60))) * (per_minute - load.average[i]);
        load.last = total;
    }
    for (std::size_t i = 0; i < load_names.size(); ++i)
        out.emplace_back(fmt::format("$SYS/broker/load/{}/{}", name, load_names[i]),
                         fmt::format("{:.2f}", load.average[i]));
}

SysTopics::Values SysTopics::update(const std::vector<broker::CoreFigures>& cores, std::int64_t pool_used,
                                    std::int64_t now, const std::string& version) {
    if (started_ == 0) started_ = last_ = now;
    const auto seconds = static_cast<double>(now - last_) / 1000;
    const auto all = total_of(cores);
    maximum_ = std::max(maximum_, all.connected);
    Values values;
    auto put = [&](const char* name, auto value) {
        values.emplace_back(fmt::format("$SYS/broker/{}", name), fmt::format("{}", value));
    };
    put("version", fmt::format("penstock version {}", version));
    put("uptime", fmt::format("{} seconds", (now - started_) / 1000));
    put("clients/total", all.sessions);
    put("clients/connected", all.connected);
    put("clients/active", all.connected);
    put("clients/disconnected", all.sessions - all.connected);
    put("clients/inactive", all.sessions - all.connected);
    put("clients/maximum", maximum_);
    put("messages/received", all.packets);
    put("messages/sent", all.publish_out);
    put("messages/stored", all.queued + all.retained);
    put("store/messages/count", all.queued + all.retained);
    put("store/messages/bytes", std::max<std::int64_t>(0, pool_used));
    put("retained messages/count", all.retained);
    put("subscriptions/count", all.subscriptions + all.shared);
    put("shared_subscriptions/count", all.shared);
    put("publish/messages/received", all.publish_in);
    put("publish/messages/sent", all.publish_out);
    put("publish/messages/dropped", all.dropped);
    put("publish/messages/expired", all.expired);
    put("publish/bytes/received", all.payload_in);
    put("publish/bytes/sent", all.payload_out);
    put("bytes/received", all.bytes_in);
    put("bytes/sent", all.bytes_out);
    for (const auto& [name, total] :
         {std::pair{"messages/received", all.packets}, std::pair{"messages/sent", all.publish_out},
          std::pair{"publish/received", all.publish_in}, std::pair{"publish/sent", all.publish_out},
          std::pair{"publish/dropped", all.dropped}, std::pair{"bytes/received", all.bytes_in},
          std::pair{"bytes/sent", all.bytes_out}, std::pair{"connections", all.connects}})
        add_load(values, name, total, seconds);
    last_ = now;
    return changed(std::move(values));
}

SysTopics::Values SysTopics::changed(Values values) {
    Values out;
    for (std::size_t i = 0; i < values.size(); ++i)
        if (i >= previous_.size() || previous_[i] != values[i]) out.push_back(values[i]);
    previous_ = std::move(values);
    return out;
}

SysTopics::Values SysTopics::withdraw() {
    auto values = std::exchange(previous_, {});
    for (auto& [topic, value] : values) value.clear();
    return values;
}

}  // namespace penstock::control
