#include "control/broker_reporter.h"

#include "base/log.h"

namespace penstock::control {

using resources::Json;
using resources::text_at;

namespace {
constexpr std::int64_t report_valid_ms = 150'000;   // a look at the resources comes each minute at least
}  // namespace

void BrokerReporter::tell(BrokerFacts facts) {
    if (again_) facts.again = again_();
    facts.folder = place_.folder;
    facts.key_file = place_.key_file;
    auto findings = findings_of(facts);
    if (const bool lacks = facts.name.empty(); lacks != lacks_broker_.exchange(lacks) && lacks)
        for (const auto& finding : findings)
            if (finding.reason.word() == "NoBroker") log::warn("control", "{}", finding.text());
    board_->put("Broker", std::move(findings), clock_.monotonic_ms(), clock_.wall_ms(), report_valid_ms);
}

void BrokerReporter::write_broker(const Json& broker, const BrokerSnapshot& snapshot) {
    writer_.write(broker_kind("Broker"), broker, [&](const Json& current) {
        return broker_status(current, snapshot, all(), clock_.wall_ms());
    });
}

void BrokerReporter::write_listeners(const BrokerLook& look) {
    const auto& kind = broker_kind("BrokerListener");
    for (const auto& report : listener_reports(look, all()))
        if (const auto current = objects_.get(kind, report.name_space, report.name))
            writer_.write(kind, *current,
                          [&](const Json& now) { return listener_status(now, report, clock_.wall_ms()); });
}

void BrokerReporter::write_rules(const BrokerLook& look) {
    const auto findings = all();
    for (const char* word : {"BrokerAuthentication", "BrokerAuthorization"})
        for (const auto& object : objects_.list(broker_kind(word), "")) {
            const auto health = health_of(findings, subject_of(word, qualified_name(*object)));
            const RulesName rules{word, text_at(*object, "metadata.namespace"),
                                  text_at(*object, "metadata.name")};
            const auto description = rules_description(look, rules, health);
            writer_.write_basic(broker_kind(word), *object, {"Running", description, health});
        }
}

}  // namespace penstock::control
