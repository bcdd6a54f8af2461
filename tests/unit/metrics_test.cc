#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "api/own_pki.h"
#include "base/text.h"
#include "control/asked_aside.h"
#include "control/broker_controller.h"
#include "control/certificates.h"
#include "control/health.h"
#include "control/metrics.h"
#include "control/objects.h"
#include "registry/registry.h"

namespace penstock {
namespace {

using resources::Json;

/// What AIO names, with its types (AIO's metrics reference): these stay letter by letter, whatever
/// Prometheus' rules for names say.
const std::map<std::string, std::string>& names_of_aio() {
    static const auto names = [] {
        std::map<std::string, std::string> out;
        auto put = [&](const char* type, std::initializer_list<const char*> list) {
            for (const auto* name : list) out[std::string("aio_broker_") + name] = type;
        };
        put("counter", {"publishes_received", "publishes_sent", "payload_bytes_received", "payload_bytes_sent", "authentication_successes", "authentication_failures",
                        "authentication_deny", "authorization_allow", "authorization_deny", "authorization_failures", "qos0_messages_dropped",
                        "store_expired_messages", "backpressure_packets_rejected_memory", "backpressure_packets_rejected_disk", "version",
                        "state_store_insertions", "state_store_modifications", "state_store_deletions", "state_store_retrievals",
                        "state_store_keynotify_requests", "state_store_notifications_sent", "disk_transfers_completed", "disk_transfers_failed",
                        "persistence_dynamic_requests", "message_delivery_check_total_messages_sent", "message_delivery_check_total_messages_received"});
        put("gauge", {"store_retained_messages", "store_retained_bytes", "store_will_messages", "store_will_bytes", "buffer_pool_used_percent",
                      "backend_replicas", "backend_partitions", "backend_workers", "frontend_replicas", "frontend_workers", "store_total_sessions",
                      "store_connected_sessions", "store_subscriptions", "store_shared_subscriptions", "total_disk_backed_message_buffer_usage",
                      "persistence_disk_usage", "persistence_disk_percent_available", "persistence_last_recovery_time",
                      "connect_route_replication_correctness", "publish_route_replication_correctness", "subscribe_route_replication_correctness",
                      "unsubscribe_route_replication_correctness", "connect_latency_route_ms", "publish_latency_route_ms", "subscribe_latency_route_ms",
                      "unsubscribe_latency_route_ms", "ping_correctness", "ping_latency_route_ms", "message_delivery_check_total_timeouts",
                      "message_delivery_check_latency_route_ms"});
        for (const char* step : {"connect", "publish", "subscribe", "unsubscribe", "ping", "message_delivery_check"})
            for (const char* suffix : {"last_value", "mu", "sigma"}) out[fmt::format("aio_broker_{}_latency_{}_ms", step, suffix)] = "gauge";
        return out;
    }();
    return names;
}

struct Sample {
    std::string name;
    std::map<std::string, std::string> labels;
    double value = 0;
};

struct Family {
    std::string type, help;
    std::vector<Sample> samples;
};

bool is_name(std::string_view text, bool may_have_colon) {
    if (text.empty() || (text[0] >= '0' && text[0] <= '9')) return false;
    return std::ranges::all_of(text, [&](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (may_have_colon && c == ':'); });
}

/// A sample's line in the exposition format 0.0.4
/// (https://prometheus.io/docs/instrumenting/exposition_formats).
std::optional<Sample> sample_of(std::string_view line) {
    Sample out;
    const auto end = line.find_first_of("{ ");
    if (end == std::string_view::npos) return std::nullopt;
    out.name = line.substr(0, end);
    if (!is_name(out.name, true)) return std::nullopt;
    line.remove_prefix(end);
    if (line.starts_with('{')) {
        line.remove_prefix(1);
        while (!line.starts_with('}')) {
            const auto equals = line.find("=\"");
            if (equals == std::string_view::npos || !is_name(line.substr(0, equals), false)) return std::nullopt;
            const auto label = std::string(line.substr(0, equals));
            line.remove_prefix(equals + 2);
            std::string value;
            while (!line.starts_with('"')) {
                if (line.empty()) return std::nullopt;
                if (line[0] == '\\' && (line.size() < 2 || std::string_view("\\\"n").find(line[1]) == std::string_view::npos)) return std::nullopt;
                const std::size_t taken = line[0] == '\\' ? 2 : 1;
                value += line.substr(0, taken);
                line.remove_prefix(taken);
            }
            line.remove_prefix(1);
            if (!out.labels.emplace(label, value).second) return std::nullopt;
            if (line.starts_with(',')) line.remove_prefix(1);
            else if (!line.starts_with('}')) return std::nullopt;
        }
        line.remove_prefix(1);
    }
    if (!line.starts_with(' ')) return std::nullopt;
    const std::string number(line.substr(1));
    char* rest = nullptr;
    out.value = std::strtod(number.c_str(), &rest);
    if (number.empty() || *rest != 0) return std::nullopt;
    return out;
}

/// Everything that is wrong with a page: by the exposition format, by Prometheus' rules for names
/// (https://prometheus.io/docs/practices/naming,
/// as `promtool check metrics` has them) and by what a person needs to know of a family.
std::vector<std::string> faults_of_page(const std::string& page, std::map<std::string, Family>* read = nullptr) {
    std::vector<std::string> out;
    std::map<std::string, Family> families;
    std::string current;
    std::set<std::string> series, helps;
    auto fault = [&](std::string_view where, const char* what) { out.push_back(fmt::format("{}: {}", where, what)); };
    if (!page.empty() && !page.ends_with('\n')) fault("end of the page", "the last line ends without a line feed");
    for (const auto line : split(page, '\n')) {
        if (line.empty()) continue;
        if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) {
            const auto rest = line.substr(7);
            const auto space = rest.find(' ');
            const std::string name(rest.substr(0, space));
            if (space == std::string_view::npos || !is_name(name, true)) {
                fault(line, "no name");
                continue;
            }
            if (line.starts_with("# HELP ")) {
                if (!families.emplace(name, Family{.type = {}, .help = std::string(rest.substr(space + 1)), .samples = {}}).second) fault(name, "told twice, or in pieces");
                current = name;
            } else if (name != current || !families[name].type.empty()) fault(name, "TYPE stands apart from HELP");
            else families[name].type = rest.substr(space + 1);
            continue;
        }
        if (line.starts_with('#')) continue;
        const auto sample = sample_of(line);
        if (!sample) {
            fault(line, "is no sample");
            continue;
        }
        if (!series.insert(std::string(line.substr(0, line.rfind(' ')))).second) fault(line, "a series twice");
        const auto& type = families[current].type;
        const bool is_part = type == "histogram" && (sample->name == current + "_bucket" || sample->name == current + "_sum" || sample->name == current + "_count");
        if (type == "histogram" ? !is_part : sample->name != current) fault(line, "stands below another family's name");
        families[current].samples.push_back(*sample);
    }
    for (const auto& [name, family] : families) {
        if (family.type != "counter" && family.type != "gauge" && family.type != "histogram") fault(name, "has no type");
        if (family.help.size() < 12 || !family.help.ends_with('.') || std::ranges::count(family.help, ' ') < 2) fault(name, "HELP does not say what is counted");
        if (!helps.insert(family.help).second) fault(name, "HELP is another family's");
        if (name.starts_with("aio_broker_")) {
            const auto known = names_of_aio().find(name);
            if (known == names_of_aio().end()) fault(name, "is no name of AIO's");
            else if (known->second != family.type) fault(name, "has another type with AIO");
            continue;
        }
        if (!name.starts_with("penstock_")) fault(name, "is neither AIO's nor Penstock's");
        if (std::ranges::any_of(name, [](char c) { return c >= 'A' && c <= 'Z'; })) fault(name, "is not in small letters");
        if ((family.type == "counter") != name.ends_with("_total")) fault(name, "_total is for counters, and each has it");
        for (const char* suffix : {"_bucket", "_sum", "_count"})
            if (name.ends_with(suffix)) fault(name, "ends as parts of histograms do");
        const auto words = split(name, '_');
        for (const auto word : words) {
            for (const char* unit : {"ms", "us", "ns", "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "kilobytes", "megabytes", "kb", "mb", "bits", "percent", "gauge", "counter", "histogram"})
                if (word == unit) fault(name, "has a unit that is no base unit, or its type, in its name");
        }
        const auto last = words[words.size() - (family.type == "counter" ? 2 : 1)];
        auto says = [&](const char* text) { return to_lower(family.help).find(text) != std::string::npos; };
        for (const char* unit : {"seconds", "bytes"})
            if (std::ranges::find(words, unit) != words.end() && last != unit) fault(name, "has its unit in the middle");
        if ((says("unix time") || says("seconds")) && last != "seconds") fault(name, "is a time without _seconds");
        if (says("bytes") && last != "bytes") fault(name, "counts bytes without _bytes");
        if (family.type != "histogram") continue;
        std::map<std::string, std::vector<const Sample*>> rows;
        std::map<std::string, double> counts;
        std::set<std::string> sums;
        for (const auto& sample : family.samples) {
            std::string key;
            for (const auto& [label, value] : sample.labels)
                if (label != "le") key += label + "=" + value + ",";
            if (sample.name.ends_with("_bucket")) rows[key].push_back(&sample);
            else if (sample.name.ends_with("_count")) counts[key] = sample.value;
            else sums.insert(key);
        }
        for (const auto& [key, row] : rows) {
            double bound = -std::numeric_limits<double>::infinity(), before = 0;
            for (const auto* sample : row) {
                const auto le = sample->labels.find("le");
                if (le == sample->labels.end()) {
                    fault(name, "a bucket without le");
                    continue;
                }
                const double next = le->second == "+Inf" ? std::numeric_limits<double>::infinity() : std::strtod(le->second.c_str(), nullptr);
                if (next <= bound || sample->value < before) fault(name, "buckets do not grow");
                bound = next, before = sample->value;
            }
            if (!std::isinf(bound)) fault(name, "has no bucket +Inf");
            if (!counts.contains(key) || counts[key] != before) fault(name, "_count is not the bucket +Inf");
            if (!sums.contains(key)) fault(name, "has no _sum");
        }
        if (rows.size() != counts.size() || rows.size() != sums.size()) fault(name, "parts of a histogram are missing");
    }
    if (read != nullptr) *read = std::move(families);
    return out;
}

/// The whole page, with something in each family.
std::string whole_page() {
    broker::CoreFigures core;
    core.categories.push_back({.name = "uncategorized", .publishes_received = 1});
    core.disconnects[0x8D] = 2;
    core.refusals[0x87] = 3;
    control::Plan plan;
    plan.ports.push_back({.listener = "ns/a", .port = 8883, .security = {{"certificate", {{"notAfter", "2030-01-01T00:00:00Z"}}}}});
    control::SelftestFigures selftest;
    control::SelftestResult result;
    result.target.listener = "ns/a";
    selftest.latest = {result};
    selftest.sent["ns/a:8883"] = selftest.received["ns/a:8883"] = 7;
    selftest.timeouts["ns/a:8883"] = 1;
    const control::DiskFigures disk{.kept = store::Durable::Figures{}, .buffer = store::Overflow::Figures{}};
    auto page = control::prometheus_page({core, core}, plan, selftest, 5, "azure-iot-operations", "edge", "1.0", disk);
    page += control::health_metrics({{.subject = "process", .reason = "WorkerStuck", .what = "w", .cure = {}}});
    page += control::reconcile_metrics({{"broker", {{"ok", 3}}}}, true) + control::reconcile_metrics({{"certificate", {{"ok", 1}}}}, false);
    page += api::certificates_metrics({{.name = "server", .not_after_ms = 2'000'000'000'000, .renewal_ms = 1'900'000'000'000}});
    const auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    page += control::certificate_metrics(objects);
    page += control::log_metrics();
    return page;
}

// What the tests below say of the page, they would say of one that is wrong.
TEST(Metrics, the_rules_find_what_breaks_them) {
    auto only = [](const std::string& page) {
        const auto found = faults_of_page(page);
        return found.empty() ? std::string() : found.front();
    };
    const std::string head = "# HELP penstock_a_total Things that were counted.\n# TYPE penstock_a_total counter\n";
    EXPECT_EQ(only(head + "penstock_a_total 1\n"), "");
    EXPECT_EQ(only(head + "penstock_a_total{b=\"c\\\"\\\\\\n\"} 1e3\n"), "");
    for (const auto& bad : {head + "penstock_a_total 1", head + "penstock_a_total one\n", head + "penstock_a_total{b=\"c\\d\"} 1\n", head + "penstock_a_total{b=c} 1\n",
                            head + "penstock_b_total 1\n", head + "penstock_a_total 1\npenstock_a_total 2\n", head + "penstock_a_total 1\n" + head,
                            std::string("# HELP penstock_a Things that were counted.\n# TYPE penstock_a counter\npenstock_a 1\n"),
                            std::string("# HELP penstock_a_total Things that were there.\n# TYPE penstock_a_total gauge\n"),
                            std::string("# HELP penstock_a_ms Things that were there.\n# TYPE penstock_a_ms gauge\n"),
                            std::string("# HELP penstock_a Unix time of an end.\n# TYPE penstock_a gauge\n"),
                            std::string("# HELP penstock_bytes_sent_total Bytes that were sent.\n# TYPE penstock_bytes_sent_total counter\n"),
                            std::string("# HELP penstock_a_total Things.\n# TYPE penstock_a_total counter\n"),
                            std::string("# HELP aio_broker_nothing Things that were there.\n# TYPE aio_broker_nothing gauge\n"),
                            std::string("# HELP penstock_a_seconds How long it took.\n# TYPE penstock_a_seconds histogram\npenstock_a_seconds_bucket{le=\"1\"} 2\n"
                                        "penstock_a_seconds_sum 1\npenstock_a_seconds_count 2\n")})
        EXPECT_NE(only(bad), "") << bad;
}

// https://prometheus.io/docs/practices/naming
TEST(Metrics, the_whole_page_keeps_the_rules) {
    const auto page = whole_page();
    for (const auto& fault : faults_of_page(page)) ADD_FAILURE() << fault;
}

// AIO's dashboard adds `aio_broker_store_subscriptions` and `aio_broker_store_shared_subscriptions`.
TEST(Metrics, shared_subscriptions_are_counted_once) {
    broker::CoreFigures core;
    core.subscriptions = 7;
    core.shared_subscriptions = 2;
    std::map<std::string, Family> families;
    faults_of_page(control::prometheus_page({core}, {}, {}, 0, "ns", "edge", "1"), &families);
    EXPECT_EQ(families["aio_broker_store_subscriptions"].samples.at(0).value, 7);
    EXPECT_EQ(families["aio_broker_store_shared_subscriptions"].samples.at(0).value, 2);
}

// AIO's dimension `is_persistent`: a session that is kept is told as one, connected or not.
TEST(Metrics, connected_sessions_say_whether_they_are_kept) {
    broker::CoreFigures core;
    core.sessions = 9;
    core.persistent_sessions = 5;
    core.connected_sessions = 6;
    core.connected_persistent_sessions = 2;
    std::map<std::string, Family> families;
    faults_of_page(control::prometheus_page({core}, {}, {}, 0, "ns", "edge", "1"), &families);
    std::map<std::string, double> connected, all;
    for (const auto& sample : families["aio_broker_store_connected_sessions"].samples)
        connected[sample.labels.at("is_persistent")] = sample.value;
    for (const auto& sample : families["aio_broker_store_total_sessions"].samples)
        all[sample.labels.at("is_persistent")] = sample.value;
    EXPECT_EQ(connected, (std::map<std::string, double>{{"true", 2}, {"false", 4}}));
    EXPECT_EQ(all, (std::map<std::string, double>{{"true", 5}, {"false", 4}}));
}

// After a month of one millisecond, ten minutes of a hundred are seen.
TEST(Metrics, means_are_those_of_the_last_ten_minutes) {
    control::StepStatistics step;
    EXPECT_EQ(step.over(0).mean, 0);
    std::int64_t now = 0;
    for (int i = 0; i < 86'400; ++i) step.add(now += 30'000, 1);
    EXPECT_EQ(step.over(now).mean, 1);
    EXPECT_EQ(step.over(now).deviation, 0);
    for (int i = 0; i < 10; ++i) step.add(now += 30'000, 100), step.add(now, 104);
    EXPECT_EQ(step.over(now).last, 104);
    EXPECT_GT(step.over(now).mean, 50);
    for (int i = 0; i < 10; ++i) step.add(now += 30'000, 100), step.add(now, 104);
    EXPECT_DOUBLE_EQ(step.over(now).mean, 102);
    EXPECT_DOUBLE_EQ(step.over(now).deviation, std::sqrt(160.0 / 39));   // twenty of each
    // The window goes on while nothing comes, and never is of nothing at all.
    EXPECT_DOUBLE_EQ(step.over(now + control::StepStatistics::window_ms - 1).mean, 102);
    EXPECT_DOUBLE_EQ(step.over(now + control::StepStatistics::window_ms).mean, 104);
    EXPECT_DOUBLE_EQ(step.over(now + 100 * control::StepStatistics::window_ms).mean, 104);
}

TEST(Metrics, means_of_many_listeners_take_a_bounded_room) {
    control::StepStatistics step;
    for (std::size_t i = 0; i < control::StepStatistics::samples_max; ++i) step.add(1, 1);
    for (std::size_t i = 0; i < control::StepStatistics::samples_max; ++i) step.add(2, 3);
    EXPECT_DOUBLE_EQ(step.over(3).mean, 3);
}

TEST(Metrics, histograms_tell_where_durations_fell) {
    control::SelftestFigures selftest;
    for (const double milliseconds : {0.05, 0.1, 3.0, 20'000.0}) selftest.steps[0].add(1, milliseconds);
    store::Durable::Figures kept;
    kept.sync_durations.add(0.004);
    std::map<std::string, Family> families;
    faults_of_page(control::prometheus_page({}, {}, selftest, 0, "ns", "edge", "1", {.kept = kept, .buffer = {}}, 2), &families);
    std::map<std::string, double> buckets, synced;
    double sum = 0, count = 0;
    for (const auto& sample : families["penstock_selftest_step_duration_seconds"].samples) {
        if (sample.labels.at("step") != "connect") continue;
        if (sample.labels.contains("le")) buckets[sample.labels.at("le")] = sample.value;
        else (sample.name.ends_with("_sum") ? sum : count) = sample.value;
    }
    for (const auto& sample : families["penstock_persistence_sync_duration_seconds"].samples)
        if (sample.labels.contains("le")) synced[sample.labels.at("le")] = sample.value;
    EXPECT_EQ(buckets["0.0001"], 2);
    EXPECT_EQ(buckets["0.0025"], 2);
    EXPECT_EQ(buckets["0.005"], 3);
    EXPECT_EQ(buckets["10"], 3);
    EXPECT_EQ(buckets["+Inf"], 4);
    EXPECT_EQ(count, 4);
    EXPECT_DOUBLE_EQ(sum, 20.00315);
    EXPECT_EQ(synced["0.0025"], 0);
    EXPECT_EQ(synced["0.005"], 1);
}

// A worker that is stuck held up the page, and with it /readyz and the whole API, each of which has one thread.
TEST(Metrics, what_does_not_answer_holds_up_nobody) {
    std::mutex guard;
    std::condition_variable changed;
    bool is_stuck = true;
    int calls = 0;
    control::AskedAside aside(
        [&] {
            std::unique_lock lock(guard);
            ++calls;
            changed.wait(lock, [&] { return !is_stuck; });
            return std::to_string(calls);
        },
        "otherwise", 10);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(aside.text(), "otherwise");
    {
        const std::lock_guard lock(guard);
        EXPECT_LE(calls, 1) << "nobody asks behind somebody who is not answered";
        is_stuck = false;
    }
    changed.notify_all();
    std::string text;
    while ((text = aside.text()) == "otherwise") std::this_thread::yield();
    EXPECT_GE(parse_number<int>(text).value_or(0), 2) << "what was made before is not told to who asks later";
}

// The port of its own and the API ask at the same time.
TEST(Metrics, each_who_asks_gets_what_was_made_since) {
    std::atomic<int> made = 0;
    control::AskedAside aside([&] { return std::to_string(++made); }, "otherwise", 60'000);
    std::vector<std::thread> asking;
    std::atomic<int> stale = 0;
    for (int i = 0; i < 4; ++i)
        asking.emplace_back([&] {
            for (int n = 0; n < 200; ++n) {
                const int before = made;
                const auto text = aside.text();
                if (text == "otherwise" || parse_number<int>(text).value_or(0) <= before) ++stale;
            }
        });
    for (auto& thread : asking) thread.join();
    EXPECT_EQ(stale, 0);
}

}  // namespace
}  // namespace penstock
