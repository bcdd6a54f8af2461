#include "control/health.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/own_command.h"
#include "base/shell.h"
#include "base/text.h"
#include "control/object_names.h"
#include "control/objects.h"
#include "resources/text_rules.h"

namespace penstock::control {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::int64_t health_report_ms = 60'000, minute_ms = 60'000, day_ms = 86'400'000;
constexpr std::size_t told_max = 3, listed_max = 50;
constexpr int certificate_days = 30;

const char* word_of(Severity severity) {
    switch (severity) {
        case Severity::note: return "note";
        case Severity::degraded: return "degraded";
        case Severity::unavailable: return "unavailable";
    }
    return "";
}

HealthState state_of(Severity worst, const std::vector<const Finding*>& about) {
    HealthState out;
    if (worst == Severity::note) return out;
    out.status = worst == Severity::unavailable ? "Unavailable" : "Degraded";
    std::size_t told = 0, count = 0;
    for (const auto* finding : about) {
        if (finding->severity == Severity::note) continue;
        ++count;
        if (out.reason.empty()) out.reason = finding->reason.word();
        if (told == told_max) continue;
        ++told;
        out.message += (out.message.empty() ? "" : "; ") + finding->text();
    }
    if (count > told) out.message += fmt::format("; and {} more (status.findings)", count - told);
    return out;
}

bool is_about_part(const Finding& finding) { return finding.subject.starts_with("BrokerListener ") || finding.subject.starts_with("BrokerAuthentication ") || finding.subject.starts_with("BrokerAuthorization "); }

/// A listener for this machine alone, without TLS. Those that name another Broker keep their names.
Json listener_of(std::string_view broker, const std::vector<OrphanFacts>& others) {
    const auto slash = broker.find('/');
    std::vector<std::string> there;
    for (const auto& other : others)
        if (const auto end = other.listener.find('/'); other.listener.substr(0, end) == broker.substr(0, slash))
            there.push_back(other.listener.substr(end + 1));
    return {{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"kind", "BrokerListener"}, {"metadata", {{"name", free_name("local", there)}, {"namespace", broker.substr(0, slash)}}},
            {"spec", {{"brokerRef", broker.substr(slash == std::string_view::npos ? 0 : slash + 1)}, {"serviceType", "ClusterIp"}, {"ports", Json::array({{{"port", 1883}}})}}}};
}

std::string makeable_broker(const std::string& asked) {
    return makeable_name(*resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker"), asked, "default");
}

std::string make_broker(const std::string& space, const std::string& asked) {
    return make_command({{"apiVersion", "mqttbroker.iotoperations.azure.com/v1"}, {"kind", "Broker"}, {"metadata", {{"name", makeable_broker(asked)}, {"namespace", space}}}, {"spec", Json::object()}});
}

/// Of the API's refusal of a listener which other one has it already, without the value, which the person knows, and the advice.
std::string who_has_it(const std::string& refusal) {
    const auto from = refusal.find("listener ");
    if (from == std::string::npos) return refusal;
    return refusal.substr(from, refusal.find(';', from) - from);
}

std::string with_again(std::string cure, const BrokerFacts& facts) { return facts.again.empty() ? cure : cure + "; " + facts.again; }

/// What gives a disk that takes no writes its room back.
std::string disk_cure(const BrokerFacts& facts) {
    const auto room = facts.disk_fault.find("maxSize") != std::string::npos
                          ? fmt::format("raise spec.persistence.maxSize (kubectl edit broker {})", as_words(facts.name))
                          : fmt::format("see how much there is with: df -h {}", typed_path(facts.folder.empty() ? "." : facts.folder));
    return "QoS 1 and 2 messages are refused until it takes writes again: " + room;
}

/// Warnings that one and the same ends are told as one.
std::vector<std::pair<std::string, std::string>> by_cure(const std::vector<Warning>& warnings) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const auto& [what, cure] : warnings) {
        const auto found = std::ranges::find(out, cure, &std::pair<std::string, std::string>::first);
        if (found == out.end()) out.emplace_back(cure, what);
        else found->second += "; " + what;
    }
    return out;
}

/// Of a port that cannot be bound. Its error names the program that holds it, or the right that is missing.
std::string cure_of_closed(const PortFacts& port) {
    const auto edit = edit_command("brokerlistener", port.listener);
    auto says = [&](const char* words) { return port.error.find(words) != std::string::npos; };
    if (says("CAP_NET_BIND_SERVICE"))
        return fmt::format("restart penstock when it has the capability, or choose a port from 1024 on, with: {}",
                           edit);
    if (says("already in use") && !says(" holds it; end that") && !says("this Penstock itself has it"))
        return fmt::format("see who holds it with: ss -ltnp 'sport = :{}'; it is tried again every 2 s",
                           port.node_port != 0 ? port.node_port : port.port);
    return fmt::format("it is tried again every 2 s; another port is chosen with: {}", edit);
}

/// What is wrong with the ports of one listener.
void port_findings(const PortFacts& port, std::vector<Finding>& out) {
    const auto subject = subject_of("BrokerListener", port.listener);
    auto add = [&](Severity severity, Reason reason, const std::string& what, std::string cure) {
        out.push_back({.severity = severity, .subject = subject, .reason = reason, .what = about_port(port.port, port.node_port, what), .cure = std::move(cure)});
    };
    if (!port.is_open) {
        if (port.is_blocked) add(Severity::unavailable, "SecurityIncomplete", port.error, fmt::format("the port opens by itself once that is there; what it asks for is changed with: kubectl edit brokerlistener {}", as_words(port.listener)));
        else add(Severity::unavailable, "PortNotOpen", port.error, cure_of_closed(port));
        return;
    }
    if (!port.refused.empty()) add(Severity::unavailable, "CertificateRefused", port.refused, "see each certificate and who uses it with: " + own_command("pki list -n " + port.listener.substr(0, port.listener.find('/'))));
    if (!port.nobody.empty()) add(Severity::unavailable, "NobodyCanConnect", port.nobody, fmt::format("see who was refused with: {}; what the port asks for is changed with: {}", own_command("auth explain -n " + port.listener.substr(0, port.listener.find('/'))), edit_command("brokerlistener", port.listener)));
    if (!port.probe_fault.empty()) add(Severity::unavailable, "BrokerProbeFailed", "the self-test failed: " + port.probe_fault, "see them with: " + own_command("traces --failed -n " + port.listener.substr(0, port.listener.find('/'))));
    // Its owner asked for it, and it works: it is told, and nothing is degraded by it.
    if (!port.everybody.what.empty()) add(Severity::note, "OpenToEverybody", port.everybody.what, port.everybody.cure);
    std::vector<Warning> more;
    for (const auto& warning : port.warnings)
        if (port.refused.find(warning.what) == std::string::npos) more.push_back(warning);   // the refusal has told it
    for (const auto& [cure, what] : by_cure(more)) add(Severity::degraded, "Warnings", what, cure);
}

}  // namespace

Finding finding_of(const OrphanFacts& orphan) {
    const auto space = orphan.listener.substr(0, orphan.listener.find('/'));
    const auto named = std::string(resources::shortened(orphan.broker));
    const auto slash = orphan.running.find('/');
    const auto running_in = orphan.running.substr(0, slash), running = slash == std::string::npos ? std::string() : orphan.running.substr(slash + 1);
    Finding out{.severity = Severity::unavailable, .subject = subject_of("BrokerListener", orphan.listener), .reason = "BrokerMissing", .what = {}, .cure = {}};
    const bool is_there = std::ranges::find(orphan.there, orphan.broker) != orphan.there.end();
    if (is_there) out.what = fmt::format("Broker {}/{} does not run: one Broker runs on a machine, and that is {}", space, named, orphan.running);
    else if (orphan.there.empty()) out.what = fmt::format("there is no Broker \"{}\" in namespace {}, nor any other", named, space);
    else out.what = fmt::format("there is no Broker \"{}\" in namespace {}{}", named, space, did_you_mean(orphan.broker, orphan.there));
    const auto home = belongs_to(orphan);
    const auto home_space = home.substr(0, home.find('/')), broker = home.substr(home.find('/') + 1);
    const auto edit = edit_command("brokerlistener", orphan.listener);
    const auto take_away = fmt::format("take this one away with: kubectl delete brokerlistener {}", as_words(orphan.listener));
    // What the API would refuse: one reason a person can allow, what is taken besides has to be another's.
    std::string allow;
    std::vector<std::string> taken;
    for (const auto& fault : orphan.refusals) {
        if (fault.path == "spec.serviceType")
            allow = fmt::format("let Broker {} have several listeners of one service type ({}), with: kubectl patch broker {} "
                                "--type merge -p 'metadata: {{annotations: {{penstock.io/listeners-per-service-type: Any}}}}'; ",
                                broker, who_has_it(fault.message), as_words(home));
        else taken.push_back(fmt::format("{}: {}", fault.path, who_has_it(fault.message)));
    }
    if (orphan.name_is_taken)
        taken.push_back(fmt::format("metadata.name: a listener {} is there",
                                    home_space + orphan.listener.substr(orphan.listener.find('/'))));
    const auto other = taken.empty() ? std::string()
                                     : fmt::format(", and another value where it is taken ({})",
                                                   fmt::join(taken, ", "));
    const auto name_it =
        taken.empty() ? fmt::format("name {}, with: kubectl patch brokerlistener {} --type merge -p 'spec: {{brokerRef: {}}}'",
                                    running.empty() ? "it" : "the one that runs", as_words(orphan.listener), yaml_word(broker))
                      : fmt::format("write spec.brokerRef: {}{}, with: {}, or {}", yaml_word(broker), other, edit, take_away);
    if (!running.empty() && running_in == space) {
        out.cure = allow + name_it;
    } else if (!running.empty()) {
        if (!is_there) out.what += fmt::format("; the one that runs on this machine is {}", orphan.running);
        out.cure = fmt::format("{}a listener belongs into the namespace of its Broker: write metadata.namespace: {} and "
                               "spec.brokerRef: {}{} into its file, here FILE, and apply that with: kubectl apply -f FILE; then {}",
                               allow, yaml_word(running_in), yaml_word(running), other, take_away);
    } else {
        out.cure = fmt::format("make it with: {}", make_broker(space, broker));
        if (broker != orphan.broker) out.cure += fmt::format("; {}then {}", allow, name_it);
    }
    return out;
}

std::string belongs_to(const OrphanFacts& orphan) {
    if (!orphan.running.empty()) return orphan.running;
    return orphan.listener.substr(0, orphan.listener.find('/') + 1) + makeable_broker(orphan.broker);
}

std::string port_words(int port, int node_port) {
    return node_port == 0 ? fmt::format("port {}", port) : fmt::format("node port {} (port {})", node_port, port);
}

std::string about_port(int port, int node_port, const std::string& what) {
    const auto bound = fmt::format("port {} ", node_port != 0 ? node_port : port);
    if (what.starts_with(bound)) return port_words(port, node_port) + what.substr(bound.size() - 1);
    return fmt::format("{}: {}", port_words(port, node_port), what);
}

std::string subject_of(const char* kind, std::string_view qualified_name) { return fmt::format("{} {}", kind, qualified_name); }

std::vector<Finding> findings_of(const BrokerFacts& facts) {
    std::vector<Finding> out;
    const auto subject = facts.name.empty() ? std::string("Broker") : subject_of("Broker", facts.name);
    auto add = [&](Severity severity, Reason reason, std::string what, std::string cure) {
        out.push_back({.severity = severity, .subject = subject, .reason = reason, .what = std::move(what), .cure = std::move(cure)});
    };
    for (const auto& orphan : facts.orphans) out.push_back(finding_of(orphan));
    if (facts.name.empty()) {
        // The one that listeners wait for, if any do.
        const auto& wanted = facts.orphans;
        const auto space = wanted.empty() ? "azure-iot-operations" : wanted.front().listener.substr(0, wanted.front().listener.find('/'));
        add(Severity::unavailable, "NoBroker", "there is no Broker resource: no port is open", with_again("make one with: " + make_broker(space, wanted.empty() ? "default" : wanted.front().broker), facts));
        return out;
    }
    if (!facts.not_started.empty()) {
        if (facts.is_starting) add(Severity::unavailable, "Starting", facts.not_started, "");
        else
            add(Severity::unavailable, "StateNotOpen", facts.not_started,
                fmt::format("look whether its disk is full or the folder another's with: df -h {0}; ls -la {0}; it is tried again by itself; once Penstock is stopped, a backup, here FOLDER, is put in place with: {1}", typed_path(facts.folder.empty() ? "." : facts.folder), restore_command(facts.folder)));
        return out;
    }
    if (!facts.disk_fault.empty()) add(Severity::degraded, "DiskNotWritable", facts.disk_fault, disk_cure(facts));
    // A probe that fails on each route is the broker's own matter; on some, that of their listeners.
    const auto usable = std::ranges::count_if(facts.ports, [](const auto& port) { return port.is_open && port.refused.empty() && port.nobody.empty() && port.probe_fault.empty(); });
    const auto failed = std::ranges::count_if(facts.ports, [](const auto& port) { return !port.probe_fault.empty(); });
    if (failed > 0) {
        const auto& first = *std::ranges::find_if(facts.ports, [](const auto& port) { return !port.probe_fault.empty(); });
        const auto open = std::ranges::count_if(facts.ports, &PortFacts::is_open);
        add(failed == open ? Severity::unavailable : Severity::degraded, "BrokerProbeFailed", fmt::format("the self-test failed on {}/{} listeners; {}: {}", failed, open, first.listener, first.probe_fault), "see them with: " + own_command("traces --failed -n " + facts.name.substr(0, facts.name.find('/'))));
    }
    if (facts.ports.empty())
        add(Severity::unavailable, "NoListener", fmt::format("no BrokerListener names Broker \"{}\": no port is open", facts.name), with_again("make one with: " + make_command(listener_of(facts.name, facts.orphans)), facts));
    else if (usable == 0 && failed == 0)
        add(Severity::unavailable, "NoListenerWorks", fmt::format("none of {} port{} can be used", facts.ports.size(), facts.ports.size() == 1 ? "" : "s"), "see: kubectl get brokerlistener -A -o wide");
    for (const auto& port : facts.ports) port_findings(port, out);
    for (const auto& one : facts.named) {
        const auto about = subject_of(one.kind.c_str(), one.name);
        const auto edit_it = fmt::format("correct it with: kubectl edit {} {}", to_lower(one.kind), as_words(one.name));
        for (const auto& fault : one.faults) {
            auto told = warning_of(fault, edit_it);
            out.push_back({.severity = Severity::unavailable, .subject = about, .reason = "NobodyCanConnect", .what = std::move(told.what), .cure = std::move(told.cure)});
        }
        for (const auto& [cure, what] : by_cure(one.warnings)) out.push_back({.severity = Severity::degraded, .subject = about, .reason = "Warnings", .what = what, .cure = cure});
    }
    if (!facts.metrics_fault.empty()) add(Severity::degraded, "MetricsPortNotOpen", facts.metrics_fault, fmt::format("the port is spec.diagnostics.metrics.prometheusPort of: kubectl edit broker {}; it is tried again every 2 s", as_words(facts.name)));
    if (!facts.persistence_waits.empty()) add(Severity::degraded, "PersistenceNotBegun", "persistence does not begin now: " + facts.persistence_waits, fmt::format("nothing is kept until that is corrected, or spec.persistence is taken out with: kubectl edit broker {}", as_words(facts.name)));
    if (!facts.keys_fault.empty()) add(Severity::degraded, "KeysNotInForce", facts.keys_fault, fmt::format("the keys before stay in force; put the file of keys back as it was, and see what stands in it with: ls -la {}", typed_path(facts.key_file.empty() ? "." : facts.key_file)));
    if (!facts.disk_notice.empty()) add(Severity::degraded, "StateWasDamaged", facts.disk_notice, facts.folder.empty() ? "see: kubectl get broker -A -o yaml" : fmt::format("look at what was set aside (ls -la {0}), then have this told no more with: mv -T --backup=numbered {0} {1}", typed_path(facts.folder + "/lost"), typed_path(facts.folder + "-lost")));
    if (!facts.buffer_fault.empty()) add(Severity::degraded, "MessageBufferFull", facts.buffer_fault, fmt::format("queues grow in memory, and at 75 % of it PUBLISH is refused: give it more room in spec.diskBackedMessageBuffer.maxSize, with: kubectl edit broker {}", as_words(facts.name)));
    if (!facts.not_kept.empty())
        add(Severity::note, "PersistenceKeepsLittle", facts.not_kept,
            fmt::format("have it kept with: kubectl patch broker {} --type merge -p {}", as_words(facts.name),
                        shell_quoted(facts.keep_it)));
    if (!facts.persistence_ends.empty()) add(Severity::note, "PersistenceGoesOn", facts.persistence_ends, "");
    if (!facts.workers_wait.empty()) add(Severity::note, "WorkersWait", facts.workers_wait, "");
    return out;
}

std::vector<Finding> findings_of(const ProcessFacts& facts) {
    std::vector<Finding> out;
    auto add = [&](Severity severity, const char* subject, Reason reason, std::string what, std::string cure) {
        out.push_back({.severity = severity, .subject = subject, .reason = reason, .what = std::move(what), .cure = std::move(cure)});
    };
    for (std::size_t i = 0; i < facts.turns_ms.size(); ++i)
        if (facts.turns_ms[i] > stuck_turn_ms)
            add(Severity::unavailable, "process", "WorkerStuck", fmt::format("worker {} has not come to the end of its turn for {} s: its clients are not served, and no change of a resource acts", i + 1, facts.turns_ms[i] / 1000),
                fmt::format("restart penstock (with persistence nothing acknowledged is lost); before that, kill -ABRT {} leaves a core file that shows where it hangs", facts.pid != 0 ? std::to_string(facts.pid) : "$(pidof -s penstock)"));
    if (facts.descriptors_max > 0 && facts.descriptors * 10 >= facts.descriptors_max * 9)
        add(facts.descriptors + 16 >= facts.descriptors_max ? Severity::unavailable : Severity::degraded, "process", "FileDescriptorsShort",
            fmt::format("{} of {} file descriptors are in use; at the limit new connections are closed at once", facts.descriptors, facts.descriptors_max), "raise LimitNOFILE= in the unit, or ulimit -n, and restart penstock");
    if (facts.pool_max > 0 && facts.pool_used * 4 >= facts.pool_max * 3) {
        const bool full = facts.pool_used * 100 >= facts.pool_max * 97;
        add(full ? Severity::unavailable : Severity::degraded, "process", "MessageMemoryShort",
            fmt::format("messages take {} of {} bytes of memory ({} %): PUBLISH is refused{}", facts.pool_used, facts.pool_max, facts.pool_used * 100 / facts.pool_max, full ? ", and so is CONNECT" : ""),
            "let subscribers catch up, bound queues (spec.advanced.clients.subscriberQueueLimit), give them the disk (spec.diskBackedMessageBuffer), or a larger spec.memoryProfile");
    }
    if (facts.clock_back_ms >= minute_ms)
        add(Severity::degraded, "process", "ClockWentBack", fmt::format("the clock of this machine stands {} s behind a time it has shown before: certificates, tokens and renewals are judged by a wrong time", facts.clock_back_ms / 1000),
            "set the clock, by a time service (timedatectl set-ntp true)");
    if (!facts.registry_fault.empty())
        add(Severity::degraded, "registry", "RegistryNotWritable", facts.registry_fault + ": no resource can be changed, and statuses are shown from memory", "make room on the disk of the data folder (df -h); it is tried again with each write");
    if (!facts.api_fault.empty()) add(Severity::degraded, "resource API", "ApiNotReached", facts.api_fault, "the broker goes on with what it knows, and changes wait until the API is back; see what it answers with: kubectl get --raw /readyz");
    if (!facts.token_keys_fault.empty()) add(Severity::degraded, "resource API", "TokenKeysNotRead", facts.token_keys_fault, "see what the API answers with: kubectl get --raw /openid/v1/jwks");
    if (!facts.run_log_fault.empty())
        add(Severity::degraded, "process", "RunLogNotKept",
            "what this run says is not kept for kubectl logs --previous: " + facts.run_log_fault,
            "see what stands there with: ls -la " + typed_path(facts.run_log_folder) +
                ", and whether there is room with: df -h; it is tried again each second");
    return out;
}

std::vector<Finding> findings_of_certificate(const std::string& what, std::int64_t not_after_ms, std::int64_t now_ms, const std::string& cure) {
    const auto left = not_after_ms - now_ms;
    if (left > certificate_days * day_ms) return {};
    const auto when = left <= 0 ? fmt::format("{} has expired at {}", what, rfc3339(not_after_ms)) : fmt::format("{} ends at {}, in {} days", what, rfc3339(not_after_ms), left / day_ms);
    return {{.severity = left <= 0 ? Severity::unavailable : Severity::degraded, .subject = "resource API", .reason = left <= 0 ? Reason("CertificateExpired") : Reason("CertificateEndsSoon"), .what = when, .cure = cure}};
}

// --- the board ---

namespace {

/// Findings are the same though their numbers differ.
const Finding* same_in(const std::vector<Finding>& list, const Finding& finding) {
    const auto found = std::ranges::find_if(list, [&](const auto& other) { return other.subject == finding.subject && other.reason == finding.reason && other.what == finding.what; });
    if (found != list.end()) return &*found;
    const auto like = std::ranges::find_if(list, [&](const auto& other) { return other.subject == finding.subject && other.reason == finding.reason; });
    return like != list.end() ? &*like : nullptr;
}

auto key_of(const Finding& finding) { return std::tie(finding.severity, finding.subject, finding.reason); }

}  // namespace

void HealthBoard::put(const std::string& source, std::vector<Finding> findings, std::int64_t now_ms, std::int64_t wall_ms, std::int64_t valid_ms) {
    const std::lock_guard lock(guard_);
    auto& said = said_[source];
    for (auto& finding : findings) {
        const auto* before = same_in(said.findings, finding);
        finding.since_ms = before != nullptr ? before->since_ms : wall_ms;
    }
    // Numbers in a text move all the time; what is told of them at once is only that they matter.
    if (said.at_wall_ms == 0 || !std::ranges::equal(said.findings, findings, {}, key_of, key_of)) ++version_;
    said = {.findings = std::move(findings), .until_ms = valid_ms == 0 ? 0 : now_ms + valid_ms, .at_wall_ms = wall_ms};
}

std::vector<Finding> HealthBoard::all(std::int64_t now_ms) const {
    const std::lock_guard lock(guard_);
    std::vector<Finding> out;
    for (const auto& [source, said] : said_) {
        out.insert(out.end(), said.findings.begin(), said.findings.end());
        if (said.until_ms != 0 && now_ms > said.until_ms)
            out.push_back({.severity = Severity::degraded, .subject = source, .reason = "NoReport", .what = fmt::format("nobody has looked at this since {}", rfc3339(said.at_wall_ms)), .cure = "if this stays, see what runs with: kubectl get pods -A; then restart penstock", .since_ms = said.at_wall_ms});
    }
    std::ranges::stable_sort(out, std::greater{}, &Finding::severity);
    return out;
}

std::uint64_t HealthBoard::version() const {
    const std::lock_guard lock(guard_);
    return version_;
}

// --- what is made from it ---

HealthState broker_health(const std::vector<Finding>& all) {
    auto worst = Severity::note;
    // What is the Broker's own comes before what one of its parts has.
    std::vector<const Finding*> about;
    for (const bool parts : {false, true})
        for (const auto& finding : all) {
            if (is_about_part(finding) != parts) continue;
            worst = std::max(worst, parts ? std::min(finding.severity, Severity::degraded) : finding.severity);
            about.push_back(&finding);
        }
    return state_of(worst, about);
}

HealthState health_of(const std::vector<Finding>& all, const std::string& subject) {
    auto worst = Severity::note;
    std::vector<const Finding*> about;
    for (const auto& finding : all) {
        if (finding.subject != subject) continue;
        worst = std::max(worst, finding.severity);
        about.push_back(&finding);
    }
    return state_of(worst, about);
}

Json findings_json(const std::vector<Finding>& findings) {
    auto out = Json::array();
    for (const auto& finding : findings) {
        if (out.size() == listed_max) break;
        Json one = {{"severity", word_of(finding.severity)}, {"subject", finding.subject}, {"reason", finding.reason.word()}, {"message", finding.what}, {"since", rfc3339(finding.since_ms)}};
        if (!finding.cure.empty()) one["cure"] = finding.cure;
        out.push_back(std::move(one));
    }
    return out;
}

namespace {

constexpr const char* looked_at[] = {"Broker", "BrokerListener", "BrokerAuthentication", "manifests", "registry", "resource API", "process"};

/// Names of files are in it, which may have a line's end of their own.
std::string line_of(const Finding& finding) {
    return fmt::format("{} {}: {} (since {})\n", printable(finding.subject), word_of(finding.severity),
                       printable(finding.text()), rfc3339(finding.since_ms));
}

}  // namespace

Readiness readiness(const std::vector<Finding>& all, bool verbose) {
    Readiness out;
    out.is_ready = std::ranges::none_of(all, [](const auto& finding) { return finding.severity == Severity::unavailable; });
    if (!verbose) {
        for (const auto& finding : all)
            if (finding.severity != Severity::note) out.text += line_of(finding);
        out.text = out.text.empty() ? "ok" : (out.is_ready ? "ok, with faults\n" : "not ready\n") + out.text;
        return out;
    }
    for (const auto* area : looked_at) {
        const std::string_view word = area;
        auto is_here = [&](const Finding& finding) { return finding.subject.starts_with(word) && (finding.subject.size() == word.size() || finding.subject[word.size()] == ' '); };
        const bool good = std::ranges::none_of(all, [&](const auto& finding) { return is_here(finding) && finding.severity != Severity::note; });
        if (good) out.text += fmt::format("[+]{} ok\n", word);
        for (const auto& finding : all)
            if (is_here(finding)) out.text += (finding.severity == Severity::unavailable ? "[-]" : "[!]") + line_of(finding);
    }
    for (const auto& finding : all)
        if (std::ranges::none_of(looked_at, [&](std::string_view word) { return finding.subject.starts_with(word) && (finding.subject.size() == word.size() || finding.subject[word.size()] == ' '); }))
            out.text += (finding.severity == Severity::unavailable ? "[-]" : "[!]") + line_of(finding);
    out.text += out.is_ready ? "readyz check passed\n" : "readyz check failed\n";
    return out;
}

std::string not_ready_text(const std::vector<Finding>& all) {
    std::string out;
    for (const auto& finding : all)
        if (finding.severity == Severity::unavailable) out += line_of(finding);
    return out;
}

std::string health_metrics(const std::vector<Finding>& all) {
    std::string out = "# HELP penstock_health Findings that keep a subject from Available: 1 when degraded by it, 2 when unavailable.\n# TYPE penstock_health gauge\n";
    std::map<std::pair<std::string, std::string_view>, Severity> worst;
    for (const auto& finding : all) {
        if (finding.severity == Severity::note) continue;
        auto& at = worst[{finding.subject, finding.reason.word()}];
        at = std::max(at, finding.severity);
        if (worst.size() == listed_max) break;
    }
    for (const auto& [key, severity] : worst) out += fmt::format("penstock_health{{subject=\"{}\",reason=\"{}\"}} {}\n", quotable(key.first), key.second, severity == Severity::unavailable ? 2 : 1);
    return out;
}

Json with_times(const Json& before, const HealthState& state, std::int64_t wall) {
    const auto now = rfc3339(wall);
    const auto& old = at_path(before, "status.healthState");
    const bool same = text_at(old, "status") == state.status && text_at(old, "reasonCode") == state.reason && text_at(old, "message") == state.message;
    const auto age = wall - parse_rfc3339(text_at(old, "lastUpdateTime"));
    // A time ahead of the clock was written before the clock went back: it would stand for as long as that.
    const bool recent = age >= 0 && age < health_report_ms;
    return {{"status", state.status}, {"reasonCode", state.reason}, {"message", state.message},
            {"lastTransitionTime", text_at(old, "status") == state.status ? text_at(old, "lastTransitionTime", now) : now},
            {"lastUpdateTime", same && recent ? text_at(old, "lastUpdateTime", now) : now}};
}

Json basic_status(const Json& object, const std::string& runtime, const std::string& description, Json health_state) {
    return {{"runtimeStatus", {{"status", runtime}, {"description", description}}},
            {"provisioningStatus", {{"status", runtime == "Failed" ? "Failed" : "Succeeded"}}},
            {"healthState", std::move(health_state)},
            {"observedGeneration", at_path(object, "metadata.generation")}};
}

void forget_former_run(Objects& objects, const std::string& why, bool with_pods, std::int64_t now) {
    for (const char* word : {"Broker", "BrokerListener", "BrokerAuthentication", "BrokerAuthorization"}) {
        const auto& kind = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", word);
        for (const auto& object : objects.list(kind, "")) {
            // Not written: the next look at the object says how it stands.
            [[maybe_unused]] const auto done = objects.put_status(kind, text_at(*object, "metadata.namespace"), text_at(*object, "metadata.name"), [&](const Json& current) -> std::optional<Json> {
                if (at_path(current, "status").is_null() || at_path(current, "status").empty()) return std::nullopt;
                return basic_status(current, "Starting", why, with_times(current, {.status = "Unknown", .reason = "Starting", .message = why}, now));
            }, "penstock-broker");
        }
    }
    if (!with_pods) return;
    const auto& kind = *resources::find_kind("v1", "Pod");
    for (const auto& pod : objects.list(kind, "")) {
        [[maybe_unused]] const auto done = objects.put_status(kind, text_at(*pod, "metadata.namespace"), text_at(*pod, "metadata.name"), [&](const Json& current) -> std::optional<Json> {
            auto status = at_path(current, "status");
            if (!status.is_object()) return std::nullopt;
            if (status["conditions"].is_array())
                for (auto& condition : status["conditions"])
                    if (const auto type = text_at(condition, "type"); (type == "Ready" || type == "ContainersReady") && text_at(condition, "status") == "True")
                        condition.update({{"status", "False"}, {"reason", "ContainersNotReady"}, {"message", why}, {"lastTransitionTime", rfc3339(now)}});
            if (status["containerStatuses"].is_array())
                for (auto& container : status["containerStatuses"])
                    if (container.is_object()) container["ready"] = false;
            return status;
        }, "penstock-projection");
    }
}

}  // namespace penstock::control
