#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/cures.h"
#include "resources/json.h"
#include "resources/schema.h"

namespace penstock::control {

/// How much a finding takes away, in the order of AIO's health states (Available, Degraded, Unavailable).
enum class Severity : std::uint8_t {
    note,                                ///< worth knowing; the health stays Available
    degraded,                            ///< part of the work is not done, or will not be done soon
    unavailable,                         ///< the subject does not do its work
};

/// Every reason that a finding may have: `reasonCode` of a health state, one word. A finding with another one does not compile, and
/// the test of cures has a row for each.
inline constexpr std::string_view finding_reasons[] = {
    "ApiNotReached", "BrokerMissing", "BrokerProbeFailed", "CertificateEndsSoon", "CertificateExpired", "CertificateFault",
    "CertificateRefused", "ClockWentBack", "DiskNotWritable", "FileDescriptorsShort", "KeysNotInForce", "ManifestNotInForce",
    "ManifestObjectsDeleted", "ManifestRefused", "ManifestWaits", "MessageBufferFull", "MessageMemoryShort",
    "MetricsPortNotOpen", "NoBroker", "NoListener", "NoListenerWorks", "NoReport", "NobodyCanConnect", "OpenToEverybody", "PersistenceGoesOn",
    "PersistenceKeepsLittle", "PersistenceNotBegun", "PortNotOpen", "RegistryNotWritable", "RunLogNotKept",
    "SecurityIncomplete", "Starting",
    "StateNotOpen", "StateWasDamaged", "TokenKeysNotRead", "Warnings", "WorkerStuck", "WorkersWait"};

/// One of `finding_reasons`.
class Reason {
  public:
    constexpr Reason() = default;
    // NOLINTNEXTLINE(google-explicit-constructor): a word in the source is meant to become one
    consteval Reason(const char* word) : word_(word) {
        bool is_known = false;
        for (const auto one : finding_reasons) is_known |= one == word_;
        if (!is_known) throw "not one of finding_reasons";
    }
    [[nodiscard]] constexpr std::string_view word() const noexcept { return word_; }
    auto operator<=>(const Reason&) const = default;

  private:
    std::string_view word_;
};

/// Something that is not as it should be, and what a person can do about it.
struct Finding {
    Severity severity = Severity::degraded;
    std::string subject;                 ///< `Broker ns/name`, `BrokerListener ns/name`, `BrokerAuthentication ns/name`, `registry`, `manifests`, `process`, ...
    Reason reason;
    std::string what;                    ///< names the port, file, object or number
    std::string cure;                    ///< a command or setting as it is to be typed; empty: it stands in `what`, ends by itself, or is a note
    std::int64_t since_ms = 0;           ///< Unix time from which on it has been so without a break

    /// `what; cure`.
    [[nodiscard]] std::string text() const { return cure.empty() ? what : what + "; " + cure; }
    bool operator==(const Finding&) const = default;
};

/// A port for a person: `port 1884`, and `node port 31883 (port 1884)` where the former is bound for the latter. `node_port`: 0 where none is.
std::string port_words(int port, int node_port);
/// What is to be said of a port, behind its words. An error of the socket begins with `port N` already, which is not said twice.
std::string about_port(int port, int node_port, const std::string& what);
/// Subjects of findings about resources.
std::string subject_of(const char* kind, std::string_view qualified_name);

/// One port of a listener, as far as health depends on it.
struct PortFacts {
    std::string listener;                ///< `namespace/name`
    int port = 0;
    int node_port = 0;                   ///< what is bound in its place; 0: `port` itself
    bool is_open = false;
    bool is_blocked = false;             ///< what it needs for its security is not there
    std::string error;                   ///< why it is not open
    std::string refused;                 ///< open, and each client that verifies its certificate refuses it: why
    std::string nobody;                  ///< open, and no client can prove who it is: why
    Warning everybody;                   ///< not empty: anybody on the network may connect, and do everything
    std::vector<Warning> warnings;
    std::string probe_fault;             ///< what the self-test met on it last; empty: nothing, or it was not there yet
};

/// A resource of the broker that another one names.
struct NamedFacts {
    std::string kind, name;              ///< `BrokerAuthentication`, `namespace/name`
    std::vector<std::string> faults;     ///< what keeps all clients out
    std::vector<Warning> warnings;
};

/// A listener that no running Broker takes.
struct OrphanFacts {
    std::string listener;                ///< `namespace/name`
    std::string broker;                  ///< as it names it
    std::vector<std::string> there;      ///< names of the Brokers of its namespace
    std::string running;                 ///< `namespace/name` of the Broker that runs; empty: none
    std::vector<resources::Fault> refusals;        ///< what the API would say if it named belongs_to()
    bool name_is_taken = false;          ///< a listener of its name is in the namespace of belongs_to() already
};
/// `namespace/name` of the Broker that it would have to name to work, be it there or to be made.
std::string belongs_to(const OrphanFacts& orphan);
/// Pure. What is wrong with it, and what to write where.
Finding finding_of(const OrphanFacts& orphan);

/// What the broker's controller knows after a look at the resources.
struct BrokerFacts {
    std::string name;                    ///< `namespace/name`; empty: there is no Broker resource
    std::string not_started;             ///< why nothing runs though there is a Broker
    bool is_starting = false;            ///< ... and that this will end by itself
    std::vector<PortFacts> ports;
    std::vector<NamedFacts> named;
    std::vector<OrphanFacts> orphans;
    std::string metrics_fault;           ///< why the metrics port is not open
    std::string folder, key_file;        ///< of the durable state and its keys; empty: there are none
    std::string again;                   ///< how resources that were deleted come back without being written anew; empty: not at all
    std::string disk_fault, disk_notice; ///< of the durable state
    std::string keys_fault;
    std::string persistence_waits;       ///< wanted, and not begun: why
    std::string persistence_ends;        ///< not wanted any more, and goes on until the next start
    std::string not_kept;                ///< what persistence does not keep because its field is absent
    std::string keep_it;                 ///< the value of spec that has it kept, as YAML in one line
    std::string buffer_fault;            ///< of the disk-backed message buffer
    std::string workers_wait;            ///< why their number is not the wanted one
};
/// Pure. Worst first within what it says of one subject.
std::vector<Finding> findings_of(const BrokerFacts& facts);

/// What the process knows of itself, whatever the resources say.
struct ProcessFacts {
    std::vector<std::int64_t> turns_ms;  ///< by worker: how long its present turn has lasted; 0: it sleeps
    std::int64_t descriptors = 0, descriptors_max = 0;       ///< open, and allowed; 0: not known
    std::int64_t pid = 0;                ///< 0: not known
    std::int64_t pool_used = 0, pool_max = 0;                ///< bytes of messages; max 0: no broker
    std::int64_t clock_back_ms = 0;      ///< how far the wall clock stands behind a time it showed before
    std::string registry_fault;          ///< why resources cannot be written
    std::string api_fault;               ///< why the resource API elsewhere is not reached
    std::string token_keys_fault;        ///< why the keys of service-account tokens are not known anew
    std::string run_log_fault;           ///< why the log of this run is not kept on the disk
    std::string run_log_folder;          ///< where it would be
};
std::vector<Finding> findings_of(const ProcessFacts& facts);
constexpr std::int64_t stuck_turn_ms = 10'000;     ///< a worker whose turn lasts longer is stuck

/// A certificate or key of Penstock's own. `renewed_days`: it is made anew so long before its end when all is well.
std::vector<Finding> findings_of_certificate(const std::string& what, std::int64_t not_after_ms, std::int64_t now_ms, const std::string& cure);

/// All that is known to be wrong now, by who looks. `/readyz`, statuses and metrics are made from it, and it does not wait for
/// anybody who looks: what nobody has looked at for long is told as that.
/// Core: any thread; one lock inside, which nobody holds while waiting.
class HealthBoard {
  public:
    /// Replaces what `source` said before. What goes on keeps its since_ms. `valid_ms`: how long it counts without another word
    /// of the source, monotonic; 0: until then. `now_ms` is monotonic, `wall_ms` Unix time.
    void put(const std::string& source, std::vector<Finding> findings, std::int64_t now_ms, std::int64_t wall_ms, std::int64_t valid_ms = 0);
    /// Worst first.
    [[nodiscard]] std::vector<Finding> all(std::int64_t now_ms) const;
    /// Changes with every put() that changed something but times.
    [[nodiscard]] std::uint64_t version() const;

  private:
    struct Said {
        std::vector<Finding> findings;
        std::int64_t until_ms = 0, at_wall_ms = 0;
    };
    mutable std::mutex guard_;           ///< all below
    std::map<std::string, Said> said_;
    std::uint64_t version_ = 0;
};

/// A resource's `healthState` without its times.
struct HealthState {
    std::string status = "Available", reason, message;
};
/// The Broker's: everything counts, but a listener that does not work leaves the Broker Degraded as long as another does.
HealthState broker_health(const std::vector<Finding>& all);
/// That of one subject.
HealthState health_of(const std::vector<Finding>& all, const std::string& subject);
/// `status.findings`: severity, subject, reason, message, cure, since.
resources::Json findings_json(const std::vector<Finding>& findings);

/// `/readyz`: 200 while nothing is unavailable. In the form of Kubernetes' own: `ok`, or a line for each finding; `?verbose` lists
/// what was looked at.
struct Readiness {
    bool is_ready = true;
    std::string text;
};
Readiness readiness(const std::vector<Finding>& all, bool verbose);
/// What keeps it from being ready, a line each; empty: nothing.
std::string not_ready_text(const std::vector<Finding>& all);
/// `penstock_health` by subject and reason.
std::string health_metrics(const std::vector<Finding>& all);

/// Writes health with its times: the transition time moves when the state changes, the update time at most once a minute.
/// `before`: the object as it is.
resources::Json with_times(const resources::Json& before, const HealthState& state, std::int64_t wall_ms);
/// The part of a status that all of the broker's kinds have.
resources::Json basic_status(const resources::Json& object, const std::string& runtime, const std::string& description, resources::Json health_state);

class Objects;
/// Takes back what statuses of an earlier run say of the broker's kinds, before anybody reads them: health
/// Unknown, and `why`. `with_pods`: Pods are this process's own, and say the same. Their counts of restarts
/// stay. `now_ms`: Unix time.
void forget_former_run(Objects& objects, const std::string& why, bool with_pods, std::int64_t now_ms);
inline constexpr const char* just_started = "penstock has just started and has not come to this yet";

}  // namespace penstock::control
