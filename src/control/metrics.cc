#include "control/metrics.h"

#include <cmath>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log_output.h"
#include "base/text.h"
#include "mqtt/types.h"

namespace penstock::control {

void StepStatistics::add(std::int64_t now_ms, double milliseconds) {
    while (!samples_.empty() && (samples_.size() >= samples_max || samples_.front().at_ms <= now_ms - window_ms))
        samples_.pop_front();
    samples_.push_back({.at_ms = now_ms, .milliseconds = milliseconds});
    durations_.add(milliseconds / 1000);
}

StepStatistics::Figures StepStatistics::over(std::int64_t now_ms) const noexcept {
    if (samples_.empty()) return {};
    Figures out{.last = samples_.back().milliseconds};
    double square_sum = 0;
    std::size_t count = 0;
    for (auto at = samples_.rbegin(); at != samples_.rend(); ++at) {
        if (count > 0 && at->at_ms <= now_ms - window_ms) break;
        ++count;
        const auto delta = at->milliseconds - out.mean;
        out.mean += delta / static_cast<double>(count);
        square_sum += delta * (at->milliseconds - out.mean);
    }
    if (count > 1) out.deviation = std::sqrt(square_sum / static_cast<double>(count - 1));
    return out;
}

namespace {

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : printable(text)) {
        if (c == '\\' || c == '"') out += '\\';
        if (c == '\n') out += "\\n";
        else out += c;
    }
    return out;
}

class Page {
  public:
    void family(const char* name, const char* type, const char* help) {
        out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
        name_ = name;
    }
    template <class Number>
    void value(const std::string& labels, Number number) {
        out += fmt::format("{}{{{}}} {}\n", name_, labels, number);
    }
    /// `labels` may be empty.
    void histogram(const std::string& labels, const DurationHistogram& durations) {
        const auto* comma = labels.empty() ? "" : ",";
        std::uint64_t below = 0;
        for (std::size_t i = 0; i < durations.counts().size(); ++i) {
            below += durations.counts()[i];
            const auto bound = i < DurationHistogram::bounds.size() ? fmt::format("{}", DurationHistogram::bounds[i])
                                                                    : std::string("+Inf");
            out += fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name_, labels, comma, bound, below);
        }
        out += fmt::format("{0}_sum{{{1}}} {2}\n{0}_count{{{1}}} {3}\n", name_, labels, durations.sum(), below);
    }
    std::string out;

  private:
    std::string name_;
};

}  // namespace

std::string prometheus_page(const std::vector<broker::CoreFigures>& cores, const Plan& plan, const SelftestFigures& selftest,
                            std::int64_t pool_used, const std::string& name_space, const std::string& hostname, const std::string& version, const DiskFigures& disk, std::int64_t now_ms) {
    Page page;
    const auto base = fmt::format("namespace=\"{}\",hostname=\"{}\"", escaped(name_space), escaped(hostname));
    const auto chain = fmt::format("namespace=\"{}\"", escaped(name_space));

    std::map<std::string, broker::CategoryCounters> categories;
    broker::CoreFigures sum;
    std::array<std::uint64_t, 2> dynamic{};
    for (const auto& core : cores) {
        for (const auto& c : core.categories) {
            // Two names that look the same are one series: a page with a series twice is refused as a whole.
            categories[printable(c.name)].add(c);
        }
        for (std::size_t i = 0; i < 256; ++i) {
            sum.disconnects[i] += core.disconnects[i];
            sum.refusals[i] += core.refusals[i];
        }
        for (const std::size_t i : {0u, 1u}) dynamic[i] += core.dynamic_requests[i];
        sum.rejected_memory += core.rejected_memory;
        sum.rejected_disk += core.rejected_disk;
        sum.expired_messages += core.expired_messages;
        sum.mailbox_full += core.mailbox_full;
        sum.connections_total += core.connections_total;
    }
    auto by_category = [&](const char* name, const char* help, auto&& pick) {
        page.family(name, "counter", help);
        for (const auto& [category, counters] : categories) page.value(fmt::format("{},category=\"{}\"", base, escaped(category)), pick(counters));
    };
    using C = const broker::CategoryCounters&;
    by_category("aio_broker_publishes_received", "PUBLISH packets received from clients, by category.", [](C c) { return c.publishes_received; });
    by_category("aio_broker_publishes_sent", "PUBLISH packets sent to clients, by category.", [](C c) { return c.delivery.sent; });
    by_category("aio_broker_payload_bytes_received", "Bytes of payload in PUBLISH packets received from clients, by category.", [](C c) { return c.payload_bytes_received; });
    by_category("aio_broker_payload_bytes_sent", "Bytes of payload in PUBLISH packets sent to clients, by category.", [](C c) { return c.delivery.sent_bytes; });
    by_category("aio_broker_authentication_successes", "CONNECT packets whose client was let in, by category.", [](C c) { return c.authentication_successes; });
    by_category("aio_broker_authentication_failures", "CONNECT packets refused because the check of their credentials could not be done, by category.", [](C c) { return c.authentication_failures; });
    by_category("aio_broker_authentication_deny", "CONNECT packets refused after their credentials were checked, by category.", [](C c) { return c.authentication_deny; });
    by_category("aio_broker_authorization_allow", "CONNECT, PUBLISH and SUBSCRIBE operations that a policy allowed, by category.", [](C c) { return c.authorization_allow; });
    by_category("aio_broker_authorization_deny", "CONNECT, PUBLISH and SUBSCRIBE operations that no policy allowed, by category.", [](C c) { return c.authorization_deny; });
    by_category("aio_broker_authorization_failures", "Operations refused because the check of their rights could not be done, by category.", [](C) { return 0; });
    page.family("aio_broker_qos0_messages_dropped", "counter", "QoS 0 messages dropped, by category and direction.");
    for (const auto& [category, c] : categories) {
        page.value(fmt::format("{},category=\"{}\",direction=\"incoming\"", base, escaped(category)), c.qos0_dropped_incoming);
        page.value(fmt::format("{},category=\"{}\",direction=\"outgoing\"", base, escaped(category)), c.delivery.dropped_qos0);
    }
    by_category("penstock_queue_full_dropped_total", "Messages dropped because a subscriber's queue was full (subscriberQueueLimit), by category.", [](C c) { return c.delivery.dropped_queue_full; });
    by_category("penstock_packet_too_large_dropped_total", "Messages not sent because they exceed their receiver's Maximum Packet Size, by category.", [](C c) { return c.delivery.dropped_too_large; });

    auto by_core = [&](const char* name, const char* type, const char* help, auto&& pick) {
        page.family(name, type, help);
        for (std::size_t i = 0; i < cores.size(); ++i) page.value(fmt::format("{},backend_chain=\"{}\"", chain, i), pick(cores[i]));
    };
    using F = const broker::CoreFigures&;
    // Every worker holds a copy of the retained index; the first one's is reported.
    auto first_only = [&](const char* name, const char* help, std::uint64_t value) {
        page.family(name, "gauge", help);
        page.value(chain + ",backend_chain=\"0\"", value);
    };
    first_only("aio_broker_store_retained_messages", "Retained messages that are kept now.", cores.empty() ? 0 : cores[0].retained_messages);
    first_only("aio_broker_store_retained_bytes", "Bytes of payload of the retained messages.", cores.empty() ? 0 : cores[0].retained_bytes);
    by_core("aio_broker_store_will_messages", "gauge", "Will messages of sessions that are kept now.", [](F f) { return f.wills; });
    by_core("aio_broker_store_will_bytes", "gauge", "Bytes of payload of the will messages.", [](F f) { return f.will_bytes; });
    by_core("aio_broker_store_expired_messages", "counter", "Messages whose Message Expiry Interval ended before they were sent.", [](F f) { return f.expired_messages; });
    by_core("aio_broker_store_subscriptions", "gauge", "Subscriptions of all sessions, without the shared ones.", [](F f) { return f.subscriptions; });
    by_core("aio_broker_store_shared_subscriptions", "gauge", "Shared subscriptions of all sessions ($share), a group's members one by one.", [](F f) { return f.shared_subscriptions; });
    page.family("aio_broker_store_total_sessions", "gauge", "Sessions that are kept now, connected or not.");
    for (std::size_t i = 0; i < cores.size(); ++i) {
        page.value(fmt::format("{},backend_chain=\"{}\",is_persistent=\"true\"", chain, i), cores[i].persistent_sessions);
        page.value(fmt::format("{},backend_chain=\"{}\",is_persistent=\"false\"", chain, i), cores[i].sessions - cores[i].persistent_sessions);
    }
    page.family("aio_broker_store_connected_sessions", "gauge", "Sessions that have a connection now.");
    for (std::size_t i = 0; i < cores.size(); ++i)
        for (const bool persistent : {true, false}) {
            const auto& core = cores[i];
            page.value(fmt::format("{},backend_chain=\"{}\",is_persistent=\"{}\"", chain, i, persistent),
                       persistent ? core.connected_persistent_sessions
                                  : core.connected_sessions - core.connected_persistent_sessions);
        }
    page.family("aio_broker_buffer_pool_used_percent", "gauge", "Percent of the memory profile's pool for messages that is in use.");
    page.value(base + ",name=\"messages\"", plan.config.pool_bytes > 0 ? 100.0 * static_cast<double>(pool_used) / static_cast<double>(plan.config.pool_bytes) : 0.0);
    page.family("aio_broker_backpressure_packets_rejected_memory", "counter", "PUBLISH packets refused because the pool for messages was full.");
    page.value(base, sum.rejected_memory);
    page.family("aio_broker_backpressure_packets_rejected_disk", "counter", "PUBLISH packets refused because the disk takes no more.");
    page.value(chain + ",backend_chain=\"0\"", sum.rejected_disk);
    auto gauge = [&](const char* name, const char* help, std::int64_t value) {
        page.family(name, "gauge", help);
        page.value(base, value);
    };
    gauge("aio_broker_backend_partitions", "What the Broker wants in spec.cardinality.backendChain.partitions.", plan.backend_partitions);
    gauge("aio_broker_backend_replicas", "What the Broker wants in spec.cardinality.backendChain.redundancyFactor.", plan.redundancy_factor);
    gauge("aio_broker_backend_workers", "What the Broker wants in spec.cardinality.backendChain.workers.", plan.backend_workers);
    gauge("aio_broker_frontend_replicas", "What the Broker wants in spec.cardinality.frontend.replicas.", plan.frontend_replicas);
    gauge("aio_broker_frontend_workers", "What the Broker wants in spec.cardinality.frontend.workers.", plan.frontend_workers);
    gauge("penstock_workers", "Worker threads of the broker that run now.", static_cast<std::int64_t>(cores.size()));
    page.family("aio_broker_version", "counter", "Always 1; the label has the broker's version.");
    page.value(fmt::format("version=\"{}\"", escaped(version)), 1);
    by_core("penstock_connections", "gauge", "Connections of clients that are open now.", [](F f) { return f.connections; });
    by_core("penstock_queued_messages", "gauge", "Messages that wait in queues of subscribers now.", [](F f) { return f.queued; });
    by_core("penstock_in_flight_messages", "gauge", "Deliveries with QoS 1 and 2 that are not acknowledged yet.", [](F f) { return f.in_flight; });
    by_core("penstock_packets_received_total", "counter", "MQTT packets received from clients.", [](F f) { return f.packets_received; });
    by_core("penstock_received_bytes_total", "counter", "Bytes of MQTT packets received from clients.", [](F f) { return f.bytes_received; });
    by_core("penstock_sent_bytes_total", "counter", "Bytes of MQTT packets sent to clients.", [](F f) { return f.bytes_sent; });
    by_core("penstock_state_store_requests_total", "counter", "Requests to the state store, of whatever kind.", [](F f) { return f.state_requests; });
    by_core("penstock_state_store_keys", "gauge", "Keys in the state store now.", [](F f) { return f.state_keys; });
    by_core("penstock_tls_handshakes_total", "counter", "TLS handshakes that were completed.", [](F f) { return f.tls_handshakes; });
    by_core("penstock_tls_resumed_total", "counter", "TLS handshakes that resumed a session.", [](F f) { return f.tls_resumed; });
    by_core("penstock_tls_failures_total", "counter", "TLS handshakes and connections that failed.", [](F f) { return f.tls_failures; });
    by_core("penstock_connects_throttled_total", "counter", "CONNECTs refused unseen because their address failed too often.", [](F f) { return f.throttled; });
    by_core("penstock_credentials_expired_total", "counter", "Connections ended because a certificate or token ended.", [](F f) { return f.credentials_expired; });
    by_core("penstock_messages_withdrawn_total", "counter", "Messages that waited and were dropped because their receiver may not read their topics any more.", [](F f) { return f.withdrawn_messages; });
    by_core("penstock_rights_revoked_total", "counter", "Connections, subscriptions and wills ended by changed rules.", [](F f) { return f.rights_revoked; });
    auto state = [&](const char* name, const char* help, std::uint64_t value) {
        page.family(name, "counter", help);
        page.value(chain + ",backend_chain=\"0\"", value);
    };
    const auto& states = cores.empty() ? statestore::StateStore::Counts{} : cores[0].state;   // worker 0 has the store
    state("aio_broker_state_store_insertions", "Keys of the state store that a SET made.", states.insertions);
    state("aio_broker_state_store_modifications", "Keys of the state store that a SET changed.", states.modifications);
    state("aio_broker_state_store_deletions", "Keys of the state store that a DEL, a VDEL or their expiry removed.", states.deletions);
    state("aio_broker_state_store_retrievals", "GET requests to the state store.", states.retrievals);
    state("aio_broker_state_store_keynotify_requests", "KEYNOTIFY requests to the state store.", states.keynotify_requests);
    state("aio_broker_state_store_notifications_sent", "Notifications sent to watchers of keys of the state store.", states.notifications);
    if (disk.buffer) {
        gauge("aio_broker_total_disk_backed_message_buffer_usage", "Bytes of queues on disk.", disk.buffer->disk_bytes);
        page.family("aio_broker_disk_transfers_completed", "counter", "Reads and writes of the message buffer's disk.");
        page.value(base, disk.buffer->written + disk.buffer->read);
        page.family("aio_broker_disk_transfers_failed", "counter", "Reads and writes that the message buffer's disk refused.");
        page.value(base, disk.buffer->failed);
    }
    if (const auto& kept = disk.kept; kept) {
        const auto limit = plan.persistence_bytes;
        gauge("aio_broker_persistence_disk_percent_available", "What is left of persistence.maxSize, in percent.", limit <= 0 ? 100 : std::clamp<std::int64_t>(100 - static_cast<std::int64_t>(100.0 * static_cast<double>(kept->disk_bytes) / static_cast<double>(limit)), 0, 100));
        page.family("aio_broker_persistence_dynamic_requests", "counter", "Clients that asked for persistence by user property.");
        for (const std::size_t allowed : {0u, 1u}) page.value(fmt::format("{},allowed=\"{}\"", base, allowed == 1), dynamic[allowed]);
        gauge("aio_broker_persistence_last_recovery_time", "Seconds it took to read the state at the start.", static_cast<std::int64_t>(std::ceil(kept->recovery_seconds)));
        gauge("aio_broker_persistence_disk_usage", "Bytes of the broker's state on disk.", kept->disk_bytes);
        gauge("penstock_persistence_failing", "1 while the disk of the broker's state takes no writes, else 0.", kept->fault.empty() ? 0 : 1);
        page.family("penstock_persistence_syncs_total", "counter", "Times the disk was asked to keep what was written for persistence (fsync).");
        page.value(base, kept->syncs);
        page.family("penstock_persistence_sync_duration_seconds", "histogram",
                    "Seconds that the disk took to keep what was written for persistence (fsync).");
        page.histogram(base, kept->sync_durations);
        page.family("penstock_persistence_batches_total", "counter", "Batches written for persistence; many share one sync.");
        page.value(base, kept->batches);
        page.family("penstock_persistence_written_bytes_total", "counter", "Bytes of the batches written for persistence.");
        page.value(base, kept->bytes_written);
        page.family("penstock_persistence_writes_failed_total", "counter", "Writes that the disk refused; they are tried again.");
        page.value(base, kept->writes_failed);
    }
    page.family("penstock_listener_certificate_not_after_timestamp_seconds", "gauge", "Unix time at which the certificate of a port ends.");
    for (const auto& port : plan.ports)
        if (const auto end = parse_rfc3339(resources::text_at(port.security, "certificate.notAfter")); end > 0)
            page.value(fmt::format("{},listener=\"{}\",port=\"{}\"", chain, escaped(port.listener), port.port), end / 1000);
    by_core("penstock_spans_dropped_total", "counter", "Spans of traced packets for which there was no room (spec.diagnostics.traces.spanChannelCapacity).", [](F f) { return f.spans_dropped; });
    by_core("penstock_mailbox_full_dropped_total", "counter", "QoS 0 messages dropped because another worker was far behind.", [](F f) { return f.mailbox_full; });
    page.family("penstock_disconnects_total", "counter", "Connections the server ended, by reason.");
    for (std::size_t i = 0; i < 256; ++i)
        if (sum.disconnects[i] > 0) page.value(fmt::format("{},reason=\"{}\"", base, mqtt::reason_name(static_cast<mqtt::ReasonCode>(i))), sum.disconnects[i]);
    page.family("penstock_connects_refused_total", "counter", "CONNECT packets that were refused, by reason.");
    for (std::size_t i = 0; i < 256; ++i)
        if (sum.refusals[i] > 0) page.value(fmt::format("{},reason=\"{}\"", base, mqtt::reason_name(static_cast<mqtt::ReasonCode>(i))), sum.refusals[i]);
    page.family("penstock_connects_total", "counter", "CONNECT packets that were accepted.");
    page.value(base, sum.connections_total);

    // Self-test: one route per listener.
    auto by_route = [&](const std::string& name, const char* help, auto&& pick) {
        page.family(name.c_str(), "gauge", help);
        for (std::size_t i = 0; i < selftest.latest.size(); ++i)
            page.value(fmt::format("frontend=\"{}\",backend_chain=\"0\",listener=\"{}\"", i, escaped(selftest.latest[i].target.listener)), pick(selftest.latest[i]));
    };
    auto correct = [](std::size_t step) { return [step](const SelftestResult& r) { return r.steps[step].done ? 1 : 0; }; };
    auto latency = [](std::size_t step) { return [step](const SelftestResult& r) { return r.steps[step].milliseconds; }; };
    by_route("aio_broker_connect_route_replication_correctness", "1 when CONNECT worked in the latest self-test of a listener, else 0.", correct(0));
    by_route("aio_broker_ping_correctness", "1 when PING worked in the latest self-test of a listener, else 0.", correct(1));
    by_route("aio_broker_subscribe_route_replication_correctness", "1 when SUBSCRIBE worked in the latest self-test of a listener, else 0.", correct(2));
    by_route("aio_broker_publish_route_replication_correctness", "1 when PUBLISH worked in the latest self-test of a listener, else 0.", correct(3));
    by_route("aio_broker_unsubscribe_route_replication_correctness", "1 when UNSUBSCRIBE worked in the latest self-test of a listener, else 0.", correct(5));
    by_route("aio_broker_connect_latency_route_ms", "Milliseconds that CONNECT took in the latest self-test of a listener.", latency(0));
    by_route("aio_broker_ping_latency_route_ms", "Milliseconds that PING took in the latest self-test of a listener.", latency(1));
    by_route("aio_broker_subscribe_latency_route_ms", "Milliseconds that SUBSCRIBE took in the latest self-test of a listener.", latency(2));
    by_route("aio_broker_publish_latency_route_ms", "Milliseconds that PUBLISH took in the latest self-test of a listener.", latency(3));
    by_route("aio_broker_message_delivery_check_latency_route_ms", "Milliseconds that the delivery of its message took in the latest self-test of a listener.", latency(4));
    by_route("aio_broker_unsubscribe_latency_route_ms", "Milliseconds that UNSUBSCRIBE took in the latest self-test of a listener.", latency(5));
    auto checks = [&](const char* name, const char* type, const char* help, const std::map<std::string, std::uint64_t>& values) {
        page.family(name, type, help);
        std::size_t i = 0;
        for (const auto& [listener, count] : values) page.value(fmt::format("frontend=\"{}\",backend_chain=\"0\",listener=\"{}\"", i++, escaped(listener)), count);
    };
    checks("aio_broker_message_delivery_check_total_messages_sent", "counter", "Delivery checks of the self-test that were begun, by listener.", selftest.sent);
    checks("aio_broker_message_delivery_check_total_messages_received", "counter", "Delivery checks of the self-test whose message came back, by listener.", selftest.received);
    checks("aio_broker_message_delivery_check_total_timeouts", "gauge", "Delivery checks of the self-test whose message did not come back, by listener.", selftest.timeouts);
    for (std::size_t i = 0; i < selftest_steps.size(); ++i) {
        const auto figures = selftest.steps[i].over(now_ms);
        auto step = [&](const char* suffix, const char* what, double number) {
            const auto name = fmt::format("aio_broker_{}_latency_{}_ms", selftest_steps[i], suffix);
            const auto help = fmt::format("Milliseconds that the self-test's step {} took on all listeners: {}.",
                                          selftest_steps[i], what);
            page.family(name.c_str(), "gauge", help.c_str());
            page.out += fmt::format("{} {}\n", name, number);
        };
        step("last_value", "the latest", figures.last);
        step("mu", "mean of the last ten minutes", figures.mean);
        step("sigma", "standard deviation in the last ten minutes", figures.deviation);
    }
    page.family("penstock_selftest_step_duration_seconds", "histogram",
                "Seconds that the steps of the self-test took on all listeners, by step.");
    for (std::size_t i = 0; i < selftest_steps.size(); ++i)
        page.histogram(fmt::format("step=\"{}\"", selftest_steps[i]), selftest.steps[i].durations());
    return std::move(page.out);
}

std::string log_metrics() {
    const auto figures = log::output_figures();
    Page page;
    page.family("penstock_log_lines_dropped_total", "counter", "Lines of the log lost because standard error did not take them.");
    page.out += fmt::format("penstock_log_lines_dropped_total {}\n", figures.lost);
    page.family("penstock_log_output_failing", "gauge", "1 while standard error refuses lines of the log, else 0.");
    page.out += fmt::format("penstock_log_output_failing {}\n", figures.fault.empty() ? 0 : 1);
    return std::move(page.out);
}

}  // namespace penstock::control
