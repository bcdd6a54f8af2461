// What comes from outside (clients, certificates, servers, files) is escaped where it is written: audit, traces, metrics, statuses,
// Events, tables, reason strings. A JSON text that is no UTF-8 would not be written at all.
#include <gtest/gtest.h>

#include <set>

#include <fmt/format.h>

#include "api/handler.h"
#include "base/clock.h"
#include "base/given_clock.h"
#include "base/text.h"
#include "base/utf8.h"
#include "control/access_view.h"
#include "control/custom_server.h"
#include "control/metrics.h"
#include "control/objects.h"
#include "control/traces.h"
#include "harness/memory_net.h"
#include "harness/packets.h"
#include "harness/x509_maker.h"

namespace penstock::test {
namespace {

using mqtt::Version;
using resources::Json;
using resources::text_at;

const std::string evil = "a\n<3>b\r\t\x1b[2J\x7f\u0085\u202e\u2028\u200b\"\\ \xff\xc3";

/// Nothing in it ends a line, steers a terminal or is no text.
void expect_tame(const std::string& text, const std::string& where) {
    EXPECT_EQ(utf8_fault(text), std::string_view::npos) << where;
    EXPECT_EQ(printable(text), text) << where;
}

std::size_t count_of(const std::string& text, const std::string& part) {
    std::size_t out = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++out;
    return out;
}

/// Refuses with whatever words it was given.
struct Refusing final : auth::Authenticator {
    std::string words;
    auth::Verdict begin(const auth::Credentials&, std::unique_ptr<auth::Exchange>&, const auth::Later&) override { return auth::Verdict::refused(mqtt::ReasonCode::not_authorized, words); }
};

// A server's Reason String is a UTF-8 string [MQTT-1.5.4-1] without control characters [MQTT-1.5.4-2], whoever made up the words.
TEST(Escape, reason_strings_are_text_for_any_words) {
    const auto refusing = std::make_shared<Refusing>();
    MemoryNet net(1, {}, refusing);
    for (const auto& words : {evil, std::string(70'000, 'x'), std::string(1023, 'x') + "é", std::string(800, '\x01'), std::string("\0", 1)}) {
        refusing->words = words;
        auto* end = net.open();
        net.send(*end, connect_packet("c"));
        std::string_view rest = end->received;
        mqtt::Frame frame;
        ASSERT_EQ(mqtt::cut_frame(rest, 1u << 20, frame), mqtt::FrameState::complete);
        const auto connack = mqtt::decode_connack(frame.body, Version::v5);
        ASSERT_TRUE(connack);
        EXPECT_FALSE(connack->reason_string.empty());
        EXPECT_LE(connack->reason_string.size(), 1024u);
        expect_tame(std::string(connack->reason_string), "CONNACK");
    }
}

// The audit keeps 256 bytes of a target; the 256th may be the first half of a letter.
TEST(Escape, the_audit_is_json_whatever_was_refused) {
    for (std::size_t before = 250; before < 256; ++before) {
        MemoryNet net(1, {}, nullptr);
        net.change_rules(std::make_shared<Refusing>(), nullptr);
        auto* end = net.open();
        net.send(*end, connect_packet(std::string(before, 'c') + "éééé"));
        ASSERT_FALSE(net.core(0).decisions().empty());
        const auto view = control::decisions_json({net.core(0).decisions().begin(), net.core(0).decisions().end()});
        EXPECT_NO_THROW(static_cast<void>(view.dump())) << before;
        EXPECT_LE(text_at(view["items"][0], "client").size(), 256u);
    }
    const broker::Decision odd{.why = evil};
    EXPECT_NO_THROW(expect_tame(text_at(control::decisions_json({odd})["items"][0], "why"), "why"));
}

// SNI is whatever bytes a stranger sends in the first packet; it becomes a warning in the listener's status.
TEST(Escape, a_name_in_sni_is_no_status_of_its_own) {
    MemoryNet net(1);
    auto* end = net.open();
    net.core(0).note_uncovered(*end->connection, evil);
    ASSERT_EQ(net.core(0).uncovered().size(), 1u);
    for (const auto& name : net.core(0).uncovered().begin()->second) expect_tame(name, "SNI");
}

TEST(Escape, traces_are_json_whatever_was_traced) {
    broker::SpanLog log;
    log.set_capacity(10);
    {
        broker::PacketTrace trace(log, {.trace = broker::new_trace_id(), .span = broker::new_span_id()}, "Publish", 1);
        for (std::size_t before = 120; before < 270; ++before) trace.note("messaging.destination.name", std::string(before, 't') + "éé");
        trace.note("odd", evil);
        trace.fail(evil);
    }
    control::TraceStore store{machine_clock()};
    store.set_limit(1u << 20);
    store.add(log.take());
    EXPECT_NO_THROW(static_cast<void>(store.list().dump()));
    EXPECT_NO_THROW(static_cast<void>(store.otlp("", "penstock").dump()));
    const auto span = store.otlp("", "penstock")["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    expect_tame(text_at(span, "status.message"), "fault");
    for (const auto& one : span["attributes"]) expect_tame(text_at(one, "value.stringValue"), "attribute");
}

// https://prometheus.io/docs/instrumenting/exposition_formats: a page with a broken line, or with a series twice, is refused whole.
TEST(Escape, metric_labels_stay_on_their_line_and_apart) {
    broker::CoreFigures core;
    core.categories.push_back({.name = evil, .publishes_received = 1});
    core.categories.push_back({.name = "a\nb", .publishes_received = 2});
    core.categories.push_back({.name = "a\\x0ab", .publishes_received = 4});
    core.categories.push_back({.name = "plain", .publishes_received = 8});
    const auto page = control::prometheus_page({core}, {}, {}, 0, evil, evil, "1");
    EXPECT_EQ(utf8_fault(page), std::string_view::npos);
    EXPECT_EQ(page.find('\r'), std::string::npos);
    EXPECT_EQ(page.find('\x1b'), std::string::npos);
    std::set<std::string> series;
    for (const auto line : split(page, '\n')) {
        if (line.empty() || line.starts_with('#')) continue;
        ASSERT_EQ(line.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), line.find_first_of("{ ")) << line;
        const auto end = line.rfind(' ');
        EXPECT_TRUE(series.insert(std::string(line.substr(0, end))).second) << "twice: " << line;
    }
    EXPECT_NE(page.find("category=\"a\\\\x0ab\"} 6"), std::string::npos) << "what looks the same is counted together";
}

TEST(Escape, words_of_custom_servers) {
    for (std::size_t before = 494; before < 502; ++before) {
        const auto answer = control::custom_answer(
            403, Json{{"reason", 135}, {"message", std::string(before, 'x') + "ééé\n"}}.dump(), wall_ms());
        expect_tame(answer.message, "message");
        expect_tame(
            control::custom_answer(404, std::string(before - 300, 'x') + "é\x1b[2J", wall_ms()).message,
            "body");
        expect_tame(control::custom_answer(500, evil, wall_ms()).message, "status");
        expect_tame(control::custom_answer(
                        200, Json{{"attributes", {{std::string(before - 450, 'x') + "é\u202e", 7}}}}.dump(),
                        wall_ms())
                        .message,
                    "attribute");
    }
}

// --- statuses, Events, tables ---

const resources::Kind& kind(const char* version, const char* name) { return *resources::find_kind(version, name); }

TEST(Escape, statuses_events_and_cells_are_tame) {
    auto registry = registry::Registry::open(":memory:").value();
    control::LocalObjects objects{*registry};
    const auto& map = kind("v1", "ConfigMap");
    const auto about = *registry->create(map, "azure-iot-operations", {{"metadata", {{"name", "m"}}}, {"data", {{"k", "v"}}}}).value();
    control::Recorder recorder(objects, "test", machine_clock());
    recorder.record(about, "Warning", "Odd", evil);
    const auto events = registry->list(kind("v1", "Event"), "azure-iot-operations").items;
    ASSERT_EQ(events.size(), 1u);
    expect_tame(text_at(*events[0], "message"), "Event");

    const auto& listener = kind("mqttbroker.iotoperations.azure.com/v1", "BrokerListener");
    registry->create(listener, "azure-iot-operations", {{"metadata", {{"name", "lan"}}}, {"spec", {{"brokerRef", "default"}, {"ports", Json::array({{{"port", 1883}}})}}}}).value();
    const Json told = {{"runtimeStatus", {{"status", "Running"}, {"description", evil}}}, {"portStatus", Json::array({{{"port", 1}, {"warnings", {evil}}}})}};
    ASSERT_TRUE(objects.put_status(listener, "azure-iot-operations", "lan", [&](const Json&) { return told; }, "test"));
    const auto shown = *registry->get(listener, "azure-iot-operations", "lan").value();
    EXPECT_NO_THROW(static_cast<void>(shown.dump()));
    expect_tame(text_at(shown, "status.runtimeStatus.description"), "description");
    expect_tame(shown["status"]["portStatus"][0]["warnings"][0], "warning");

    // What others wrote, with kubectl, into what is shown in a cell.
    const auto other = std::make_shared<const Json>(Json{{"metadata", {{"name", "e"}, {"namespace", "n"}}}, {"message", "x\x1b[2J\ny\u202e"}, {"reason", "\x1b]0;title\x07"}, {"type", "Normal"}, {"involvedObject", {{"kind", "Pod\n"}, {"name", "p"}}}});
    const auto table = api::make_table(kind("v1", "Event"), {other}, "1", "None", true);
    for (const auto& cell : table["rows"][0]["cells"])
        if (cell.is_string()) expect_tame(cell, "cell");
    EXPECT_EQ(count_of(table.dump(), "title"), 1u);
}

// --- certificates ---

/// A certificate whose subject has these bytes as a UTF8String, and this name in its subjectAltName; neither is looked at by OpenSSL.
crypto::Certificate odd_certificate(const std::string& common_name, const std::string& dns) {
    const auto root = harness::make_authority("root");
    const auto key = harness::make_key("P-256");
    auto* out = X509_new();
    X509_set_version(out, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(out), 5);
    X509_gmtime_adj(X509_getm_notBefore(out), -60);
    X509_gmtime_adj(X509_getm_notAfter(out), 3600);
    X509_set_pubkey(out, key.get());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(out), "O", MBSTRING_UTF8, crypto::bytes_of("Fabrikam"), -1, -1, 0);
    X509_NAME_add_entry_by_NID(X509_get_subject_name(out), NID_commonName, V_ASN1_UTF8STRING, crypto::bytes_of(common_name), static_cast<int>(common_name.size()), -1, 0);
    X509_set_issuer_name(out, X509_get_subject_name(root.certificate.native()));
    const std::unique_ptr<GENERAL_NAMES, crypto::Freer<GENERAL_NAMES_free>> names(sk_GENERAL_NAME_new_null());
    for (const int type : {GEN_DNS, GEN_URI, GEN_EMAIL}) {
        auto* name = GENERAL_NAME_new();
        auto* text = ASN1_IA5STRING_new();
        ASN1_STRING_set(text, dns.data(), static_cast<int>(dns.size()));
        GENERAL_NAME_set0_value(name, type, text);
        sk_GENERAL_NAME_push(names.get(), name);
    }
    X509_add1_ext_i2d(out, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT);
    X509_sign(out, root.key.get(), EVP_sha256());
    return crypto::Certificate(out);
}

TEST(Escape, names_of_certificates) {
    for (const auto& name : {std::string("fan\n<3>forged"), std::string("\x1b[2J"), std::string("a\u202eb"), std::string("\xff\xfe"), std::string("\xc3"), std::string("x\0y", 3), std::string("CN = y, O = z\"\\")}) {
        const auto certificate = odd_certificate(name, name);
        EXPECT_EQ(utf8_fault(certificate.subject()), std::string_view::npos) << printable(name);
        EXPECT_EQ(certificate.subject().find('\n'), std::string::npos);
        EXPECT_EQ(certificate.subject().find('\x1b'), std::string::npos);
        EXPECT_EQ(utf8_fault(certificate.common_name()), std::string_view::npos);
        for (const auto& list : {certificate.dns_names(), certificate.other_names()})
            for (const auto& one : list) expect_tame(one, "subjectAltName");
        EXPECT_FALSE(crypto::same_subject("O = Fabrikam", certificate)) << "half a name is not a name: " << certificate.subject();
        EXPECT_FALSE(crypto::same_subject("O = Fabrikam, CN =", certificate)) << certificate.subject();
        EXPECT_TRUE(crypto::same_subject(certificate.subject(), certificate));
        EXPECT_NO_THROW(static_cast<void>(Json(certificate.subject()).dump()));
    }
}

}  // namespace
}  // namespace penstock::test
