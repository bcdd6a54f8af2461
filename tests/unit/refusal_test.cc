// Whoever is refused or closed is told of in the log with the statement that is enforced, of the version that
// its client speaks; the table says which, and with which reason code.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "harness/script.h"
#include "mqtt/refusal.h"
#include "statestore/state_store.h"

namespace penstock::test {
namespace {

using mqtt::PropertyId;
using mqtt::ReasonCode;
using mqtt::Refusal;
using mqtt::Version;

// --- the table against the specifications' lists ---

std::set<std::string> first_column(const std::string& file) {
    std::ifstream in(std::string(PENSTOCK_SOURCE_DIR "/docs/spec/") + file);
    std::set<std::string> out;
    for (std::string line; std::getline(in, line);) out.insert(line.substr(0, line.find(',')));
    EXPECT_FALSE(out.empty()) << file;
    return out;
}

TEST(Refusals, each_row_cites_its_own_version_and_what_is_there) {
    auto known = first_column("mqtt5.csv");
    known.merge(first_column("mqtt311.csv"));
    known.merge(first_column("sections.csv"));
    for (std::size_t i = 0; i < mqtt::refusal_count; ++i) {
        const auto& rule = mqtt::rule_of(static_cast<Refusal>(i));
        const std::map<std::string, std::string_view> columns{
            {"MQTT-", rule.v5}, {"MQTT311-", rule.v311}, {"MQTT31-", rule.v31}};
        for (const auto& [prefix, citation] : columns) {
            if (citation.empty()) continue;
            EXPECT_TRUE(citation.starts_with(prefix)) << citation << ": " << rule.text;
            EXPECT_TRUE(known.contains(std::string(citation))) << citation << ": " << rule.text;
        }
        EXPECT_EQ(mqtt::statement_of(rule.refusal, Version::v5), rule.v5);
        EXPECT_EQ(mqtt::statement_of(rule.refusal, Version::v311), rule.v311);
        EXPECT_EQ(mqtt::statement_of(rule.refusal, Version::v31), rule.v31);
        EXPECT_TRUE(rule.v31.empty() || !rule.v311.empty()) << "3.1.1 says it, too: " << rule.text;
    }
}

// A code that neither table has would be told as something else [MQTT-3.2.2-8], [MQTT-3.14.2-1].
TEST(Refusals, each_reason_is_one_that_a_server_may_send) {
    for (std::size_t i = 0; i < mqtt::refusal_count; ++i) {
        const auto& rule = mqtt::rule_of(static_cast<Refusal>(i));
        if (rule.v5.empty()) continue;
        EXPECT_TRUE(mqtt::is_error(rule.reason)) << rule.text;
        EXPECT_TRUE(mqtt::is_reason_of(mqtt::PacketType::connack, rule.reason, true) ||
                    mqtt::is_reason_of(mqtt::PacketType::disconnect, rule.reason, true))
            << rule.text;
    }
}

// --- what can be provoked from outside ---

/// A challenge: `two` is right. Without a method nobody is let in but `guest`, whose credential ends soon.
class Challenge final : public auth::Authenticator {
    struct Second final : auth::Exchange {
        auth::Verdict proceed(std::string_view data) override {
            if (data == "two") return auth::Verdict::accepted({});
            return auth::Verdict::refused(ReasonCode::not_authorized, "wrong answer");
        }
    };
    auth::Verdict begin(const auth::Credentials& credentials, std::unique_ptr<auth::Exchange>& exchange,
                        const auth::Later& later) override {
        using auth::Verdict;
        if (credentials.user_name == "slow") {
            waits_.push_back(later());
            return {.kind = Verdict::Kind::wait};
        }
        if (credentials.user_name == "guest")
            return Verdict::accepted({.id = "guest", .expires_at = wall_ms() + 5000});
        if (!credentials.method) return Verdict::refused(ReasonCode::bad_user_name_or_password, "who?");
        if (*credentials.method != "steps")
            return Verdict::refused(ReasonCode::bad_authentication_method, "steps is the method");
        exchange = std::make_unique<Second>();
        return {.kind = auth::Verdict::Kind::go_on, .reason = ReasonCode::success, .data = "one?"};
    }
    std::vector<auth::Done> waits_;
};

enum class Speaks : std::uint8_t { v31 = 3, v311 = 4, v5 = 5, nothing_yet };

/// A broker, and the client that is about to be refused.
struct World {
    MemoryNet& net;
    MemoryNet::End& end;
    Version version;

    void send(const std::string& packet) {
        bool open_end = false;
        net.send(end, packet_bytes(packet, open_end));
    }
    /// Another client, which sends these.
    MemoryNet::End& other(const std::vector<std::string>& packets) {
        auto& out = *net.open();
        for (const auto& packet : packets) {
            bool open_end = false;
            net.send(out, packet_bytes(packet, open_end));
        }
        return out;
    }
};
using Then = std::function<void(World&)>;

struct Provoked {
    Refusal row;
    Speaks speaks;                           ///< the client's version; nothing_yet: it is not connected
    std::string statement;
    ReasonCode reason;
    std::vector<std::string> packets;        ///< as in the .wire files
    broker::BrokerConfig config = {};
    bool is_secured = false;
    Then then = {};                          ///< beside packets
    mqtt::PropertyList properties = {};      ///< of the CONNECT that was accepted
};

broker::BrokerConfig with(const std::function<void(broker::BrokerConfig&)>& change) {
    broker::BrokerConfig out;
    change(out);
    return out;
}
const auto aio = with([](auto& c) { c.aio_compatible = true; });
const auto small_packets = with([](auto& c) { c.packet_size_max = 100; });
const auto few_identifiers = with([](auto& c) { c.receive_maximum = c.open_identifiers_max_v3 = 1; });
const auto small_pool = with([](auto& c) { c.pool_bytes = 30'000; });
const auto medium_pool = with([](auto& c) { c.pool_bytes = 64 << 20; });

Then after(std::int64_t milliseconds) {
    return [=](World& w) { w.net.advance(milliseconds); };
}
Then ends_with(Refusal refusal) {
    return [=](World& w) {
        w.net.core(0).disconnect(*w.end.connection, refusal, w.net.now());
        w.net.settle();
    };
}
/// The client's session is another one's, from now on.
void take_over(World& w) { w.other({R"(10: "MQTT" 05 02 003c {} "a")"}); }
void change_rules(World& w) { w.net.change_rules(std::make_shared<Challenge>(), nullptr); }
/// What a reader that went away had asked for fills the pool.
Then with_a_full_pool(const std::string& connect) {
    return [=](World& w) {
        auto& reader =
            w.other({R"(10: "MQTT" 05 02 003c {11 00000064} "reader")", R"(82: 0001 {} "t" 01)"});
        w.net.drop(reader);
        w.other({R"(10: "MQTT" 05 02 003c {} "writer")", R"(32: "t" 0001 {} 'x'*31000)"});
        w.send(connect);
    };
}
Then after_five_failures(const std::string& connect) {
    return [=](World& w) {
        for (int i = 0; i < 5; ++i) w.other({connect});
        w.send(connect);
    };
}
/// Such CONNECTs wait for a verdict, as many as are held.
Then after_many_that_wait(const std::string& connect) {
    return [=](World& w) {
        for (int i = 0; i < 70; ++i) w.other({connect});
        w.send(connect);
    };
}
void ask_for_too_much(World& w) {
    w.other({R"(10: "MQTT" 04 02 003c "writer")", R"(31: "big" 'x'*1100000)"});
    w.end.reads = false;
    std::vector<std::string> filters{"big"};
    for (int i = 0; i < 10'010; ++i) filters.push_back(fmt::format("f/{}", i));
    std::vector<mqtt::SubscriptionView> entries;
    for (const auto& filter : filters) entries.push_back({.filter = filter});
    std::string packet;
    mqtt::encode_subscribe(packet, w.version, 1, entries);
    w.net.send(w.end, packet);
    w.end.reads = true;
    w.net.settle();
}
void publish_to_state_store(World& w) {
    std::string properties, packet;
    mqtt::write_property(properties, PropertyId::response_topic, "$SYS/answers");
    mqtt::write_property(properties, PropertyId::correlation_data, "1");
    mqtt::encode_publish(packet, Version::v5, statestore::request_topic, "x", mqtt::Qos::at_least_once, false,
                         false, 1, properties);
    w.net.send(w.end, packet);
}

using enum Speaks;
using enum ReasonCode;
const std::vector<Provoked>& all_provoked() {
    static const std::vector<Provoked> out{
        // any packet
        {Refusal::packet_is_short, v5, "MQTT-4.13.1-1", malformed_packet, {"30: 0005 'abc'"}},
        {Refusal::packet_is_short, v311, "MQTT311-4.8.0-1", malformed_packet, {"30: 0005 'abc'"}},
        {Refusal::packet_is_short, v31, "MQTT31-section-2.1", malformed_packet, {"30: 0005 'abc'"}},
        {Refusal::packet_is_short, v311, "MQTT311-4.8.0-1", malformed_packet, {R"(82: 0001 "t")"}},
        {Refusal::bytes_are_left, v5, "MQTT-4.13.1-1", malformed_packet, {"c0: 00"}},
        {Refusal::bytes_are_left, v311, "MQTT311-4.8.0-1", malformed_packet, {"62: 0001 00"}},
        {Refusal::bytes_are_left, v31, "MQTT31-section-2.1", malformed_packet, {"e0: 00"}},
        {Refusal::length_is_padded, v5, "MQTT-1.5.5-1", malformed_packet, {"raw c0 8000"}},
        {Refusal::length_is_padded, nothing_yet, "MQTT-1.5.5-1", malformed_packet,
         {"raw 10 8e00 0004 'MQTT' 05 02 003c 00 0001 'b'"}},
        {Refusal::length_is_long, v5, "MQTT-4.13.1-1", malformed_packet, {"raw c0 ffffffff7f"}},
        {Refusal::length_is_long, v311, "MQTT311-4.8.0-1", malformed_packet, {"raw c0 ffffffff7f"}},
        {Refusal::length_is_long, v31, "MQTT31-section-2.1", malformed_packet, {"raw c0 ffffffff7f"}},
        {Refusal::length_is_long, nothing_yet, "MQTT-4.13.1-1", malformed_packet, {"raw 10 ffffffff7f"}},
        {Refusal::varint_is_padded, v5, "MQTT-1.5.5-1", malformed_packet, {R"(30: "t" 8000 'x')"}},
        {Refusal::varint_is_long, v5, "MQTT-4.13.1-1", malformed_packet, {R"(30: "t" ffffffff7f 'x')"}},
        {Refusal::text_is_not_utf8, v5, "MQTT-1.5.4-1", malformed_packet, {"30: 0002 c328 {} 'x'"}},
        {Refusal::text_is_not_utf8, v311, "MQTT311-1.5.3-1", malformed_packet, {"82: 0001 0003 eda080 00"}},
        {Refusal::text_is_not_utf8, v31, "MQTT31-section-2.5", malformed_packet, {"30: 0002 c328 'x'"}},
        {Refusal::text_is_not_utf8, nothing_yet, "MQTT311-1.5.3-1", malformed_packet,
         {R"(10: "MQTT" 04 02 003c 0002 c328)"}},
        {Refusal::text_has_nul, v5, "MQTT-1.5.4-2", malformed_packet, {"30: 0003 610062 {} 'x'"}},
        {Refusal::text_has_nul, v311, "MQTT311-1.5.3-2", malformed_packet, {"30: 0003 610062 'x'"}},
        {Refusal::text_has_nul, v31, "MQTT31-section-2.5", malformed_packet, {"30: 0003 610062 'x'"}},
        {Refusal::flags_are_reserved, v5, "MQTT-2.1.3-1", malformed_packet, {"c1:"}},
        {Refusal::flags_are_reserved, v311, "MQTT311-2.2.2-2", malformed_packet, {"c1:"}},
        {Refusal::flags_are_reserved, v311, "MQTT311-2.2.2-2", malformed_packet, {"41: 0001"}},
        {Refusal::flags_are_reserved, nothing_yet, "MQTT311-2.2.2-2", malformed_packet,
         {R"(1f: "MQTT" 04 02 003c "b")"}},
        {Refusal::packet_type_is_reserved, v5, "MQTT-4.13.1-1", malformed_packet, {"00:"}},
        {Refusal::packet_type_is_reserved, v311, "MQTT311-4.8.0-1", malformed_packet, {"00:"}},
        {Refusal::packet_type_is_reserved, v31, "MQTT31-section-2.1", malformed_packet, {"00:"}},
        {Refusal::packet_is_not_for_servers, v5, "MQTT-4.13.1-1", protocol_error, {"d0:"}},
        {Refusal::packet_is_not_for_servers, v311, "MQTT311-4.8.0-1", protocol_error, {"f0:"}},
        {Refusal::packet_is_not_for_servers, v31, "MQTT31-section-2.1", protocol_error, {"20: 0000"}},
        {Refusal::packet_id_is_zero, v5, "MQTT-2.2.1-3", protocol_error, {R"(32: "t" 0000 {} 'x')"}},
        {Refusal::packet_id_is_zero, v311, "MQTT311-2.3.1-1", protocol_error, {R"(82: 0000 "t" 00)"}},
        {Refusal::packet_id_is_zero, v31, "MQTT31-section-2.4", protocol_error, {R"(a2: 0000 "t")"}},
        {Refusal::packet_is_too_large, v5, "MQTT-3.2.2-15", packet_too_large, {R"(30: "t" {} 'x'*200)"},
         small_packets},
        {Refusal::packet_is_over_a_limit, v311, "MQTT311-4.8.0-2", packet_too_large, {R"(30: "t" 'x'*200)"},
         small_packets},
        {Refusal::packet_is_over_a_limit, v31, "", packet_too_large, {R"(30: "t" 'x'*200)"}, small_packets},
        {Refusal::packet_is_over_a_limit, v5, "MQTT-section-4.13.2", packet_too_large, {"raw 82 80808001"}},
        {Refusal::packet_is_over_a_limit, v311, "MQTT311-4.8.0-2", packet_too_large, {"raw 82 80808001"}},
        {Refusal::packet_is_over_a_limit, v31, "", packet_too_large, {"raw 82 80808001"}},
        {Refusal::packet_is_over_a_limit, nothing_yet, "MQTT-section-4.13.2", packet_too_large,
         {"raw 10 80808001"}},
        // properties
        {Refusal::property_is_unknown, v5, "MQTT-4.13.1-1", malformed_packet, {R"(30: "t" {7f00} 'x')"}},
        {Refusal::property_is_misplaced, v5, "MQTT-4.13.1-1", malformed_packet,
         {R"(30: "t" {1100000001} 'x')"}},
        {Refusal::property_is_repeated, v5, "MQTT-4.13.1-1", protocol_error,
         {R"(30: "t" {03 "a" 03 "b"} 'x')"}},
        {Refusal::property_is_out_of_range, v5, "MQTT-4.13.1-1", protocol_error, {R"(30: "t" {0102} 'x')"}},
        {Refusal::property_is_out_of_range, nothing_yet, "MQTT-4.13.1-1", protocol_error,
         {R"(10: "MQTT" 05 02 003c {210000} "a")"}},
        // CONNECT
        {Refusal::first_is_not_connect, nothing_yet, "MQTT-3.1.0-1", protocol_error, {"c0:"}},
        {Refusal::second_connect, v5, "MQTT-3.1.0-2", protocol_error, {R"(10: "MQTT" 05 02 003c {} "a")"}},
        {Refusal::second_connect, v311, "MQTT311-3.1.0-2", protocol_error, {R"(10: "MQTT" 04 02 003c "a")"}},
        {Refusal::second_connect, v31, "MQTT31-section-3.1", protocol_error,
         {R"(10: "MQIsdp" 03 02 003c "a")"}},
        {Refusal::protocol_name_is_not_mqtt, nothing_yet, "MQTT-3.1.2-1", unsupported_protocol_version,
         {R"(10: "MQTX" 05 02 003c {} "a")"}},
        {Refusal::protocol_version_is_unknown, nothing_yet, "MQTT-3.1.2-2", unsupported_protocol_version,
         {R"(10: "MQTT" 06 02 003c {} "a")"}},
        {Refusal::protocol_version_is_unknown, nothing_yet, "MQTT311-3.1.2-2", unsupported_protocol_version,
         {R"(10: "MQTT" 02 02 003c "a")"}},
        {Refusal::protocol_version_is_unknown, nothing_yet, "MQTT31-section-3.2",
         unsupported_protocol_version, {R"(10: "MQIsdp" 05 02 003c "a")"}},
        {Refusal::connect_is_short, nothing_yet, "MQTT-3.1.4-1", malformed_packet,
         {R"(10: "MQTT" 05 82 003c {} "a")"}},
        {Refusal::connect_is_short, nothing_yet, "MQTT311-3.1.4-1", malformed_packet,
         {R"(10: "MQTT" 04 06 003c "a" "will")"}},
        {Refusal::connect_is_short, nothing_yet, "MQTT31-section-3.1", malformed_packet,
         {R"(10: "MQIsdp" 03 06 003c "a" "will")"}},
        {Refusal::connect_is_short, nothing_yet, "MQTT-3.1.4-1", malformed_packet, {R"(10: "MQTT")"}},
        {Refusal::connect_has_bytes_left, nothing_yet, "MQTT-3.1.4-1", malformed_packet,
         {R"(10: "MQTT" 05 02 003c {} "a" 00)"}},
        {Refusal::connect_has_bytes_left, nothing_yet, "MQTT311-3.1.4-1", malformed_packet,
         {R"(10: "MQTT" 04 02 003c "a" "user")"}},
        {Refusal::connect_has_bytes_left, nothing_yet, "MQTT31-section-3.1", malformed_packet,
         {R"(10: "MQIsdp" 03 02 003c "a" 00)"}},
        {Refusal::connect_flag_is_reserved, nothing_yet, "MQTT-3.1.2-3", malformed_packet,
         {R"(10: "MQTT" 05 03 003c {} "a")"}},
        {Refusal::connect_flag_is_reserved, nothing_yet, "MQTT311-3.1.2-3", malformed_packet,
         {R"(10: "MQTT" 04 03 003c "a")"}},
        {Refusal::will_qos_without_will, nothing_yet, "MQTT-3.1.2-11", malformed_packet,
         {R"(10: "MQTT" 05 0a 003c {} "a")"}},
        {Refusal::will_qos_without_will, nothing_yet, "MQTT311-3.1.2-13", malformed_packet,
         {R"(10: "MQTT" 04 12 003c "a")"}},
        {Refusal::will_retain_without_will, nothing_yet, "MQTT-3.1.2-13", malformed_packet,
         {R"(10: "MQTT" 05 22 003c {} "a")"}},
        {Refusal::will_retain_without_will, nothing_yet, "MQTT311-3.1.2-15", malformed_packet,
         {R"(10: "MQTT" 04 22 003c "a")"}},
        {Refusal::will_qos_is_3, nothing_yet, "MQTT-3.1.2-12", malformed_packet,
         {R"(10: "MQTT" 05 1e 003c {} "a" {} "w" "x")"}},
        {Refusal::will_qos_is_3, nothing_yet, "MQTT311-3.1.2-14", malformed_packet,
         {R"(10: "MQTT" 04 1e 003c "a" "w" "x")"}},
        {Refusal::will_qos_is_3, nothing_yet, "MQTT31-section-3.1", malformed_packet,
         {R"(10: "MQIsdp" 03 1e 003c "a" "w" "x")"}},
        {Refusal::password_without_user_name, nothing_yet, "MQTT311-3.1.2-22", malformed_packet,
         {R"(10: "MQTT" 04 42 003c "a" "p")"}},
        {Refusal::password_without_user_name, nothing_yet, "MQTT31-section-3.1", malformed_packet,
         {R"(10: "MQIsdp" 03 42 003c "a" "p")"}},
        {Refusal::authentication_data_without_method, nothing_yet, "MQTT-4.13.1-1", protocol_error,
         {R"(10: "MQTT" 05 02 003c {16 "x"} "a")"}},
        {Refusal::client_id_is_empty, nothing_yet, "MQTT311-3.1.3-8", client_identifier_not_valid,
         {R"(10: "MQTT" 04 00 003c "")"}},
        {Refusal::client_id_is_empty, nothing_yet, "MQTT31-section-3.1", client_identifier_not_valid,
         {R"(10: "MQIsdp" 03 02 003c "")"}},
        {Refusal::will_topic_is_empty, nothing_yet, "MQTT-4.7.3-1", malformed_packet,
         {R"(10: "MQTT" 05 06 003c {} "a" {} "" "x")"}},
        {Refusal::will_topic_is_empty, nothing_yet, "MQTT311-4.7.3-1", malformed_packet,
         {R"(10: "MQTT" 04 06 003c "a" "" "x")"}},
        {Refusal::will_topic_is_empty, nothing_yet, "MQTT31-section-3.1", malformed_packet,
         {R"(10: "MQIsdp" 03 06 003c "a" "" "x")"}},
        {Refusal::will_topic_has_wildcard, nothing_yet, "MQTT-4.7.0-1", malformed_packet,
         {R"(10: "MQTT" 05 06 003c {} "a" {} "w/#" "x")"}},
        {Refusal::will_topic_has_wildcard, nothing_yet, "MQTT311-4.7.1-1", malformed_packet,
         {R"(10: "MQTT" 04 06 003c "a" "#" "x")"}},
        {Refusal::will_topic_has_wildcard, nothing_yet, "MQTT31-appendix-A", malformed_packet,
         {R"(10: "MQIsdp" 03 06 003c "a" "+" "x")"}},
        {Refusal::will_topic_is_too_deep, nothing_yet, "MQTT-3.1.4-2", topic_name_invalid,
         {R"(10: "MQTT" 05 06 003c {} "a" {} "/"*300 "x")"}},
        {Refusal::will_topic_is_too_deep, nothing_yet, "MQTT311-3.2.2-6", topic_name_invalid,
         {R"(10: "MQTT" 04 06 003c "a" "/"*300 "x")"}},
        {Refusal::will_topic_is_too_deep, nothing_yet, "MQTT31-section-3.2", topic_name_invalid,
         {R"(10: "MQIsdp" 03 06 003c "a" "/"*300 "x")"}},
        {Refusal::will_topic_is_the_servers, nothing_yet, "MQTT-3.1.4-2", not_authorized,
         {R"(10: "MQTT" 05 06 003c {} "a" {} "$SYS/a" "x")"}},
        {Refusal::will_topic_is_the_servers, nothing_yet, "MQTT311-section-3.1.4", not_authorized,
         {R"(10: "MQTT" 04 06 003c "a" "$SYS/a" "x")"}},
        {Refusal::will_topic_is_the_servers, nothing_yet, "MQTT31-section-3.2", not_authorized,
         {R"(10: "MQIsdp" 03 06 003c "a" "$SYS/a" "x")"}},
        {Refusal::will_response_topic_has_wildcard, nothing_yet, "MQTT-3.3.2-14", protocol_error,
         {R"(10: "MQTT" 05 06 003c {} "a" {08 "r/#"} "w" "x")"}},
        {Refusal::will_qos_is_not_supported, nothing_yet, "MQTT-3.2.2-12", qos_not_supported,
         {R"(10: "MQTT" 05 16 003c {} "a" {} "w" "x")"}, aio},
        {Refusal::will_qos_is_not_supported, nothing_yet, "MQTT311-3.2.2-6", qos_not_supported,
         {R"(10: "MQTT" 04 16 003c "a" "w" "x")"}, aio},
        {Refusal::will_qos_is_not_supported, nothing_yet, "MQTT31-section-3.2", qos_not_supported,
         {R"(10: "MQIsdp" 03 16 003c "a" "w" "x")"}, aio},
        {Refusal::connect_fails_checks, nothing_yet, "MQTT-3.1.4-2", bad_user_name_or_password,
         {R"(10: "MQTT" 05 82 003c {} "a" "u")"}, {}, true},
        {Refusal::connect_fails_checks, nothing_yet, "MQTT311-section-3.1.4", bad_user_name_or_password,
         {R"(10: "MQTT" 04 82 003c "a" "u")"}, {}, true},
        {Refusal::connect_fails_checks, nothing_yet, "MQTT31-section-3.2", bad_user_name_or_password,
         {R"(10: "MQIsdp" 03 82 003c "a" "u")"}, {}, true},
        {Refusal::too_many_failures, nothing_yet, "MQTT-3.1.4-2", connection_rate_exceeded, {}, {}, true,
         after_five_failures(R"(10: "MQTT" 05 82 003c {} "a" "u")")},
        {Refusal::too_many_failures, nothing_yet, "MQTT311-section-3.1.4", connection_rate_exceeded, {}, {},
         true, after_five_failures(R"(10: "MQTT" 04 82 003c "a" "u")")},
        {Refusal::too_many_failures, nothing_yet, "MQTT31-section-3.2", connection_rate_exceeded, {}, {},
         true, after_five_failures(R"(10: "MQIsdp" 03 82 003c "a" "u")")},
        {Refusal::too_many_wait, nothing_yet, "MQTT-section-4.13.2", server_busy, {}, medium_pool, true,
         after_many_that_wait(R"(10: "MQTT" 05 c2 003c {} "a" "slow" fde8 'x'*65000)")},
        {Refusal::too_many_wait, nothing_yet, "MQTT311-4.8.0-2", server_busy, {}, medium_pool, true,
         after_many_that_wait(R"(10: "MQTT" 04 c2 003c "a" "slow" fde8 'x'*65000)")},
        {Refusal::too_many_wait, nothing_yet, "MQTT31-section-3.2", server_busy, {}, medium_pool, true,
         after_many_that_wait(R"(10: "MQIsdp" 03 c2 003c "a" "slow" fde8 'x'*65000)")},
        {Refusal::method_is_not_supported, nothing_yet, "MQTT-4.12.0-1", bad_authentication_method,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")"}},
        {Refusal::method_is_not_supported, nothing_yet, "MQTT-4.12.0-1", bad_authentication_method,
         {R"(10: "MQTT" 05 02 003c {15 "others"} "a")"}, {}, true},
        {Refusal::enhanced_authentication_fails, nothing_yet, "MQTT-4.12.0-4", not_authorized,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", R"(f0: 18 {15 "steps" 16 "three"})"}, {}, true},
        {Refusal::enhanced_authentication_is_late, nothing_yet, "MQTT-4.12.0-4", not_authorized,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")"}, {}, true, after(12'000)},
        {Refusal::connect_is_late, nothing_yet, "MQTT-section-3.1.4", maximum_connect_time, {}, {}, false,
         after(12'000)},
        {Refusal::session_is_taken_over, v5, "MQTT-3.1.4-3", session_taken_over, {}, {}, false, take_over},
        {Refusal::session_is_taken_over, v311, "MQTT311-3.1.4-2", session_taken_over, {}, {}, false,
         take_over},
        {Refusal::session_is_taken_over, v31, "MQTT31-section-3.1", session_taken_over, {}, {}, false,
         take_over},
        {Refusal::keep_alive_is_over, v5, "MQTT-3.1.2-22", keep_alive_timeout, {}, {}, false, after(20'000)},
        {Refusal::keep_alive_is_over, v311, "MQTT311-3.1.2-24", keep_alive_timeout, {}, {}, false,
         after(20'000)},
        {Refusal::keep_alive_is_over, v31, "MQTT31-section-3.1", keep_alive_timeout, {}, {}, false,
         after(20'000)},
        {Refusal::answer_is_too_large, nothing_yet, "MQTT-3.1.2-24", packet_too_large,
         {R"(10: "MQTT" 05 02 003c {27 00000007} "a")"}},
        {Refusal::answer_is_too_large, v5, "MQTT-3.1.2-24", packet_too_large,
         {R"(82: 0001 {} "a" 00 "b" 00 "c" 00 "d" 00 "e" 00 "f" 00 "g" 00 "h" 00 "i" 00 "j" 00 "k" 00)"}, {},
         false, {}, {{.id = PropertyId::maximum_packet_size, .number = 14}}},
        {Refusal::answer_is_too_large, v5, "MQTT-3.1.2-24", packet_too_large,
         {R"(a2: 0001 {} "a" "b" "c" "d" "e" "f" "g" "h" "i" "j" "k")"}, {}, false, {},
         {{.id = PropertyId::maximum_packet_size, .number = 14}}},
        // AUTH
        {Refusal::auth_flags_are_reserved, v5, "MQTT-3.15.1-1", malformed_packet, {"f1:"}},
        {Refusal::auth_reason_is_unknown, v5, "MQTT-3.15.2-1", protocol_error, {"f0: 55 {}"}},
        {Refusal::only_auth_may_follow, nothing_yet, "MQTT-3.1.2-30", protocol_error,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", "c0:"}, {}, true},
        {Refusal::auth_without_method, v5, "MQTT-4.12.0-7", protocol_error, {R"(f0: 18 {15 "steps"})"}},
        {Refusal::auth_method_differs, nothing_yet, "MQTT-4.12.0-5", protocol_error,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", R"(f0: 18 {15 "others"})"}, {}, true},
        {Refusal::auth_must_continue, nothing_yet, "MQTT-4.12.0-3", protocol_error,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", R"(f0: 19 {15 "steps"})"}, {}, true},
        {Refusal::reauthentication_method_differs, nothing_yet, "MQTT-4.12.1-1", protocol_error,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", R"(f0: 18 {15 "steps" 16 "two"})",
         R"(f0: 19 {15 "others"})"}, {}, true},
        {Refusal::reauthentication_must_begin, nothing_yet, "MQTT-4.13.1-1", protocol_error,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", R"(f0: 18 {15 "steps" 16 "two"})",
         R"(f0: 18 {15 "steps"})"}, {}, true},
        {Refusal::reauthentication_fails, nothing_yet, "MQTT-4.12.1-2", not_authorized,
         {R"(10: "MQTT" 05 02 003c {15 "steps"} "a")", R"(f0: 18 {15 "steps" 16 "two"})",
         R"(f0: 19 {15 "steps"})", R"(f0: 18 {15 "steps" 16 "three"})"}, {}, true},
        // PUBLISH
        {Refusal::qos_is_3, v5, "MQTT-3.3.1-4", malformed_packet, {R"(36: "t" 0001 {} 'x')"}},
        {Refusal::qos_is_3, v311, "MQTT311-3.3.1-4", malformed_packet, {R"(36: "t" 0001 'x')"}},
        {Refusal::qos_is_3, v31, "MQTT31-section-2.1", malformed_packet, {R"(36: "t" 0001 'x')"}},
        {Refusal::dup_with_qos_0, v5, "MQTT-3.3.1-2", malformed_packet, {R"(38: "t" {} 'x')"}},
        {Refusal::dup_with_qos_0, v311, "MQTT311-3.3.1-2", malformed_packet, {R"(38: "t" 'x')"}},
        {Refusal::subscription_id_from_client, v5, "MQTT-3.3.4-6", protocol_error,
         {R"(30: "t" {0b 01} 'x')"}},
        {Refusal::topic_alias_is_zero, v5, "MQTT-3.3.2-8", topic_alias_invalid, {R"(30: "t" {23 0000} 'x')"}},
        {Refusal::topic_alias_is_over_maximum, v5, "MQTT-3.3.2-9", topic_alias_invalid,
         {R"(30: "t" {23 0021} 'x')"}},
        {Refusal::topic_alias_is_not_taken, v5, "MQTT-3.2.2-18", topic_alias_invalid,
         {R"(30: "t" {23 0001} 'x')"}, aio},
        {Refusal::topic_alias_is_not_set, v5, "MQTT-4.13.1-1", protocol_error, {R"(30: "" {23 0001} 'x')"}},
        {Refusal::topic_is_empty, v5, "MQTT-4.7.3-1", protocol_error, {R"(30: "" {} 'x')"}},
        {Refusal::topic_is_empty, v311, "MQTT311-4.7.3-1", protocol_error, {R"(30: "" 'x')"}},
        {Refusal::topic_is_empty, v31, "MQTT31-section-3.3", protocol_error, {R"(30: "" 'x')"}},
        {Refusal::topic_has_wildcard, v5, "MQTT-3.3.2-2", malformed_packet, {R"(30: "t/+" {} 'x')"}},
        {Refusal::topic_has_wildcard, v311, "MQTT311-3.3.2-2", malformed_packet, {R"(30: "t/#" 'x')"}},
        {Refusal::topic_has_wildcard, v31, "MQTT31-section-3.3", malformed_packet, {R"(30: "t/#" 'x')"}},
        {Refusal::topic_is_too_deep, v5, "MQTT-section-3.14.2.1", topic_name_invalid,
         {R"(30: "/"*300 {} 'x')"}},
        {Refusal::topic_is_too_deep, v311, "MQTT311-3.3.5-2", topic_name_invalid, {R"(30: "/"*300 'x')"}},
        {Refusal::topic_is_too_deep, v31, "MQTT31-section-3.3", topic_name_invalid, {R"(30: "/"*300 'x')"}},
        {Refusal::response_topic_has_wildcard, v5, "MQTT-3.3.2-14", protocol_error,
         {R"(30: "t" {08 "r/#"} 'x')"}},
        {Refusal::response_topic_is_not_answered, v5, "MQTT-section-3.14.2.1", implementation_specific_error,
         {}, {}, false, publish_to_state_store},
        {Refusal::qos_is_not_supported, v5, "MQTT-3.2.2-11", qos_not_supported, {R"(34: "t" 0001 {} 'x')"},
         aio},
        {Refusal::qos_is_not_supported, v311, "MQTT311-3.3.5-2", qos_not_supported, {R"(34: "t" 0001 'x')"},
         aio},
        {Refusal::qos_is_not_supported, v31, "MQTT31-section-3.3", qos_not_supported, {R"(34: "t" 0001 'x')"},
         aio},
        {Refusal::too_many_open_qos_2, v5, "MQTT-3.3.4-7", receive_maximum_exceeded,
         {R"(34: "t" 0001 {} 'x')", R"(34: "t" 0002 {} 'x')"}, few_identifiers},
        {Refusal::too_many_open_qos_2, v311, "MQTT311-4.8.0-2", receive_maximum_exceeded,
         {R"(34: "t" 0001 'x')", R"(34: "t" 0002 'x')"}, few_identifiers},
        {Refusal::too_many_open_qos_2, v31, "", receive_maximum_exceeded, {R"(34: "t" 0001 'x')",
         R"(34: "t" 0002 'x')"}, few_identifiers},
        {Refusal::payload_is_not_as_indicated, v5, "MQTT-section-3.3.2.3.2", payload_format_invalid,
         {R"(30: "t" {0101} c328)"}},
        // acknowledgements
        {Refusal::pubrel_flags_are_reserved, v5, "MQTT-3.6.1-1", malformed_packet, {"60: 0001"}},
        {Refusal::pubrel_flags_are_reserved, v311, "MQTT311-3.6.1-1", malformed_packet, {"60: 0001"}},
        {Refusal::pubrel_flags_are_reserved, v31, "MQTT31-section-3.6", malformed_packet, {"60: 0001"}},
        {Refusal::acknowledged_id_is_zero, v5, "MQTT-2.2.1-5", protocol_error, {"40: 0000"}},
        {Refusal::acknowledged_id_is_zero, v311, "MQTT311-2.3.1-6", protocol_error, {"62: 0000"}},
        {Refusal::acknowledged_id_is_zero, v31, "MQTT31-section-2.4", protocol_error, {"70: 0000"}},
        {Refusal::puback_reason_is_unknown, v5, "MQTT-3.4.2-1", protocol_error, {"40: 0001 55"}},
        {Refusal::pubrec_reason_is_unknown, v5, "MQTT-3.5.2-1", protocol_error, {"50: 0001 92"}},
        {Refusal::pubrel_reason_is_unknown, v5, "MQTT-3.6.2-1", protocol_error, {"62: 0001 80"}},
        {Refusal::pubcomp_reason_is_unknown, v5, "MQTT-3.7.2-1", protocol_error, {"70: 0001 80"}},
        {Refusal::acknowledgement_is_out_of_order, v5, "MQTT-4.13.1-1", protocol_error,
         {R"(82: 0001 {} "t" 02)", R"(34: "t" 0002 {} 'x')", "40: 0001"}},
        {Refusal::acknowledgement_is_out_of_order, v311, "MQTT311-4.8.0-1", protocol_error,
         {R"(82: 0001 "t" 02)", R"(34: "t" 0002 'x')", "40: 0001"}},
        {Refusal::acknowledgement_is_out_of_order, v31, "MQTT31-section-4.1", protocol_error,
         {R"(82: 0001 "t" 02)", R"(34: "t" 0002 'x')", "40: 0001"}},
        // SUBSCRIBE, UNSUBSCRIBE
        {Refusal::subscribe_flags_are_reserved, v5, "MQTT-3.8.1-1", malformed_packet,
         {R"(80: 0001 {} "t" 00)"}},
        {Refusal::subscribe_flags_are_reserved, v311, "MQTT311-3.8.1-1", malformed_packet,
         {R"(80: 0001 "t" 00)"}},
        {Refusal::subscribe_flags_are_reserved, v31, "MQTT31-section-3.8", malformed_packet,
         {R"(80: 0001 "t" 00)"}},
        {Refusal::unsubscribe_flags_are_reserved, v5, "MQTT-3.10.1-1", malformed_packet,
         {R"(a0: 0001 {} "t")"}},
        {Refusal::unsubscribe_flags_are_reserved, v311, "MQTT311-3.10.1-1", malformed_packet,
         {R"(a0: 0001 "t")"}},
        {Refusal::unsubscribe_flags_are_reserved, v31, "MQTT31-section-3.10", malformed_packet,
         {R"(a0: 0001 "t")"}},
        {Refusal::subscription_options_are_reserved, v5, "MQTT-3.8.3-5", malformed_packet,
         {R"(82: 0001 {} "t" 40)"}},
        {Refusal::requested_qos_is_unknown, v311, "MQTT311-3.8.3-4", malformed_packet,
         {R"(82: 0001 "t" 80)"}},
        {Refusal::requested_qos_is_unknown, v311, "MQTT311-3.8.3-4", malformed_packet,
         {R"(82: 0001 "t" 03)"}},
        {Refusal::requested_qos_is_unknown, v31, "MQTT31-section-3.8", malformed_packet,
         {R"(82: 0001 "t" 03)"}},
        {Refusal::subscription_qos_is_3, v5, "MQTT-4.13.1-1", protocol_error, {R"(82: 0001 {} "t" 03)"}},
        {Refusal::retain_handling_is_3, v5, "MQTT-4.13.1-1", protocol_error, {R"(82: 0001 {} "t" 30)"}},
        {Refusal::no_local_is_shared, v5, "MQTT-3.8.3-4", protocol_error, {R"(82: 0001 {} "$share/g/t" 04)"}},
        {Refusal::subscribe_is_empty, v5, "MQTT-3.8.3-2", protocol_error, {"82: 0001 {}"}},
        {Refusal::subscribe_is_empty, v311, "MQTT311-3.8.3-3", protocol_error, {"82: 0001"}},
        {Refusal::subscribe_is_empty, v31, "MQTT31-section-3.8", protocol_error, {"82: 0001"}},
        {Refusal::unsubscribe_is_empty, v5, "MQTT-3.10.3-2", protocol_error, {"a2: 0001 {}"}},
        {Refusal::unsubscribe_is_empty, v311, "MQTT311-3.10.3-2", protocol_error, {"a2: 0001"}},
        {Refusal::unsubscribe_is_empty, v31, "MQTT31-section-3.10", protocol_error, {"a2: 0001"}},
        {Refusal::filter_is_empty, v311, "MQTT311-4.7.3-1", malformed_packet,
         {R"(82: 0001 "good" 00 "" 00)"}},
        {Refusal::filter_is_empty, v31, "MQTT31-appendix-A", malformed_packet, {R"(a2: 0001 "")"}},
        {Refusal::filter_has_hash_within, v311, "MQTT311-4.7.1-2", malformed_packet,
         {R"(82: 0001 "+/#/b" 00)"}},
        {Refusal::filter_has_hash_within, v311, "MQTT311-4.7.1-2", malformed_packet, {R"(a2: 0001 "bad#")"}},
        {Refusal::filter_has_hash_within, v31, "MQTT31-appendix-A", malformed_packet,
         {R"(82: 0001 "bad#" 00)"}},
        {Refusal::filter_has_plus_within, v311, "MQTT311-4.7.1-3", malformed_packet,
         {R"(82: 0001 "a/b+/#" 00)"}},
        {Refusal::filter_has_plus_within, v31, "MQTT31-appendix-A", malformed_packet,
         {R"(82: 0001 "+b" 00)"}},
        {Refusal::subscription_ids_are_not_supported, v5, "MQTT-4.13.1-1",
         subscription_identifiers_not_supported, {R"(82: 0001 {0b 01} "t" 00)"}, aio},
        {Refusal::too_many_retained_are_asked_for, v5, "MQTT-section-4.13.2", quota_exceeded, {}, {}, false,
         ask_for_too_much},
        {Refusal::too_many_retained_are_asked_for, v311, "MQTT311-4.8.0-2", quota_exceeded, {}, {}, false,
         ask_for_too_much},
        {Refusal::too_many_retained_are_asked_for, v31, "", quota_exceeded, {}, {}, false, ask_for_too_much},
        // DISCONNECT
        {Refusal::disconnect_flags_are_reserved, v5, "MQTT-3.14.1-1", malformed_packet, {"e1:"}},
        {Refusal::disconnect_flags_are_reserved, v311, "MQTT311-3.14.1-1", malformed_packet, {"e2:"}},
        {Refusal::disconnect_reason_is_unknown, v5, "MQTT-3.14.2-1", protocol_error, {"e0: 55"}},
        {Refusal::disconnect_reason_is_unknown, v5, "MQTT-3.14.2-1", protocol_error, {"e0: 8b"}},
        {Refusal::disconnect_raises_session_expiry, v5, "MQTT-4.13.1-1", protocol_error,
         {"e0: 00 {11 0000000a}"}},
        // the server's own
        {Refusal::pool_is_full, nothing_yet, "MQTT-section-4.13.2", quota_exceeded, {}, small_pool, false,
         with_a_full_pool(R"(10: "MQTT" 05 02 003c {} "a")")},
        {Refusal::pool_is_full, nothing_yet, "MQTT311-4.8.0-2", quota_exceeded, {}, small_pool, false,
         with_a_full_pool(R"(10: "MQTT" 04 02 003c "a")")},
        {Refusal::pool_is_full, nothing_yet, "", quota_exceeded, {}, small_pool, false,
         with_a_full_pool(R"(10: "MQIsdp" 03 02 003c "a")")},
        {Refusal::too_much_is_under_way, nothing_yet, "MQTT-section-4.13.2", quota_exceeded, {}, {}, false,
         ends_with(Refusal::too_much_is_under_way)},
        {Refusal::rules_changed, v5, "MQTT-section-5.4.8", not_authorized, {}, {}, false, change_rules},
        {Refusal::rules_changed, v311, "MQTT311-section-5.4.8", not_authorized, {}, {}, false, change_rules},
        {Refusal::rules_changed, v31, "", not_authorized, {}, {}, false, change_rules},
        {Refusal::credential_is_over, nothing_yet, "MQTT-section-5.4.10", not_authorized,
         {R"(10: "MQTT" 05 82 003c {} "a" "guest")"}, {}, true, after(6000)},
        {Refusal::credential_is_over, nothing_yet, "MQTT311-section-5.4.9", not_authorized,
         {R"(10: "MQTT" 04 82 003c "a" "guest")"}, {}, true, after(6000)},
        {Refusal::credential_is_over, nothing_yet, "", not_authorized,
         {R"(10: "MQIsdp" 03 82 003c "a" "guest")"}, {}, true, after(6000)},
        {Refusal::credential_is_over, nothing_yet, "MQTT-section-5.4.10", not_authorized,
         {R"(10: "MQTT" 05 82 003c {} "a" "guest")"}, aio, true, after(6000)},
        {Refusal::listener_is_removed, v5, "MQTT-section-3.14.2.1", administrative_action, {}, {}, false,
         ends_with(Refusal::listener_is_removed)},
        {Refusal::listener_is_removed, v311, "", administrative_action, {}, {}, false,
         ends_with(Refusal::listener_is_removed)},
        {Refusal::server_shuts_down, v5, "MQTT-section-3.14.2.1", server_shutting_down, {}, {}, false,
         ends_with(Refusal::server_shuts_down)},
        {Refusal::server_shuts_down, v31, "", server_shutting_down, {}, {}, false,
         ends_with(Refusal::server_shuts_down)},
    };
    return out;
}

/// The reason code of the last packet that tells one; nothing: none did.
std::optional<unsigned> told(std::string_view received) {
    std::optional<unsigned> out;
    mqtt::Frame frame;
    while (mqtt::cut_frame(received, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete) {
        received.remove_prefix(frame.size);
        const auto at = frame.type == mqtt::PacketType::disconnect ? 0u : 1u;
        if (frame.type != mqtt::PacketType::disconnect && frame.type != mqtt::PacketType::connack) continue;
        out = frame.body.size() > at ? static_cast<unsigned char>(frame.body[at]) : 0u;
    }
    return out;
}

/// The value behind `name=` in a line, or nothing.
std::string field(std::string_view line, const std::string& name) {
    const auto at = line.find(" " + name + "=");
    if (at == std::string_view::npos) return {};
    const auto value = line.substr(at + name.size() + 2);
    return std::string(value.substr(0, value.find(' ')));
}

/// The case at hand says more than the row.
bool has_text_of_its_own(Refusal row) {
    constexpr std::array rows{Refusal::connect_fails_checks, Refusal::method_is_not_supported,
                              Refusal::enhanced_authentication_fails, Refusal::answer_is_too_large,
                              Refusal::reauthentication_fails, Refusal::rules_changed};
    return std::ranges::find(rows, row) != rows.end();
}

class Provoke : public ::testing::TestWithParam<std::size_t> {};

TEST_P(Provoke, the_log_names_the_statement_of_the_clients_version) {
    const auto& c = all_provoked()[GetParam()];
    // Each in a second of its own, in which no other test logs: the log's budget is one of seconds.
    const auto now = 1'000'000'000 + static_cast<std::int64_t>(GetParam()) * 100'000;
    MemoryNet net(1, c.config, c.is_secured ? std::make_shared<Challenge>() : nullptr, nullptr,
                  [](std::uint32_t) { return store::make_memory_engine(); }, now);
    std::vector<std::string> lines;
    const auto version = c.speaks == Speaks::nothing_yet ? Version::v5 : static_cast<Version>(c.speaks);
    World world{net, *net.open(), version};
    if (c.speaks != Speaks::nothing_yet) {
        mqtt::ConnectOptions options{.version = version, .client_id = "a", .keep_alive = 10};
        options.properties = c.properties;
        std::string packet;
        mqtt::encode_connect(packet, options);
        net.send(world.end, packet);
        ASSERT_FALSE(world.end.is_closed);
    }
    log::set_sink([&](std::string_view line) {
        if (line.contains("connection ended")) lines.emplace_back(line);
    });
    for (const auto& packet : c.packets) world.send(packet);
    if (c.then) c.then(world);
    log::set_sink([](std::string_view) {});

    EXPECT_TRUE(world.end.is_closed);
    ASSERT_FALSE(lines.empty()) << "nothing was logged";
    const auto& line = lines.back();
    EXPECT_EQ(field(line, "statement"), c.statement) << line;
    const auto code = static_cast<unsigned>(c.reason);
    const auto reason = fmt::format(" reason={} (0x{:02X})", mqtt::reason_name(c.reason), code);
    EXPECT_TRUE(line.contains(reason)) << line;
    // The same row that the case means.
    const auto& rule = mqtt::rule_of(c.row);
    EXPECT_TRUE(c.statement == rule.v5 || c.statement == rule.v311 || c.statement == rule.v31) << rule.text;
    const auto why = fmt::format(" why=\"{}\"", rule.text);
    EXPECT_TRUE(line.contains(why) || has_text_of_its_own(c.row)) << line;
    if (c.speaks != Speaks::nothing_yet) {
        EXPECT_EQ(c.statement, mqtt::statement_of(c.row, world.version));
    }
    // What version 5 is told is what the log says.
    if (c.speaks == Speaks::v5) {
        const auto wanted = mqtt::as_reason_of(mqtt::PacketType::disconnect, c.reason);
        EXPECT_EQ(told(world.end.received), static_cast<unsigned>(wanted));
    }
}

const auto every_case = ::testing::Range<std::size_t>(0, all_provoked().size());
INSTANTIATE_TEST_SUITE_P(All, Provoke, every_case, [](const auto& p) {
    const auto& c = all_provoked()[p.param];
    std::string name = fmt::format("{}_{}", p.param, c.statement);
    for (char& letter : name)
        if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
    return name;
});

// What is added to the table is added to the cases above, for each version that it cites.
TEST(Refusals, each_row_is_provoked_in_each_version) {
    std::set<std::pair<Refusal, std::string>> seen;
    for (const auto& c : all_provoked()) seen.emplace(c.row, c.statement);
    for (std::size_t i = 0; i < mqtt::refusal_count; ++i) {
        const auto& rule = mqtt::rule_of(static_cast<Refusal>(i));
        // CONNACK goes the other way. Before its CONNECT nobody knows which version a client speaks.
        if (rule.refusal == Refusal::connack_flags_are_reserved) continue;
        constexpr std::array before_connect{Refusal::first_is_not_connect, Refusal::protocol_name_is_not_mqtt,
                                            Refusal::connect_is_late, Refusal::too_much_is_under_way};
        const bool is_before_connect =
            std::ranges::find(before_connect, rule.refusal) != before_connect.end();
        for (const auto statement : {rule.v5, rule.v311, rule.v31}) {
            if (statement.empty() || (is_before_connect && statement != rule.v5)) continue;
            const bool was_seen = seen.contains({rule.refusal, std::string(statement)});
            EXPECT_TRUE(was_seen) << statement << ": " << rule.text;
        }
    }
}

// The other end reads with the same decoders.
TEST(Refusals, a_client_refuses_reserved_bits_of_connack) {
    const auto decoded = mqtt::decode_connack(std::string_view("\x02\x00\x00", 3), Version::v5);
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error(), Refusal::connack_flags_are_reserved);
}

}  // namespace
}  // namespace penstock::test
