#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/heap.h"
#include "broker/server.h"
#include "control/health.h"
#include "control/housekeeper.h"
#include "control/metrics.h"
#include "control/plan.h"
#include "control/security.h"
#include "control/state_keys.h"
#include "control/sys_topics.h"
#include "control/traces.h"
#include "control/write_troubles.h"
#include "client/http_pool.h"

namespace penstock::control {

/// The counts of engines in Prometheus' text form.
std::string reconcile_metrics(const std::map<std::string, std::map<std::string, std::uint64_t>>& counts, bool with_head);

/// Makes the broker what the Broker and BrokerListener resources say, and writes into them what happened.
///
/// Core: control. It reconciles on its engine's thread (read, decide, act, report); a second thread runs the self-test.
class BrokerController {
  public:
    /// `token_keys`: of the issuer of service-account tokens, as far as it is known.
    /// `place`: where a Broker with persistence keeps its state; without a folder such a Broker says so.
    BrokerController(Objects& objects, std::string version, Clock clock,
                     std::function<TokenKeys()> token_keys = {}, StatePlace place = {});
    ~BrokerController();

    /// The resources are a cluster's: it gives Services their addresses and ports lead into this pod, so they open on all interfaces.
    /// Before start().
    void serve_cluster() noexcept { in_cluster_ = true; }
    void start();
    /// What the engine counted, by reconciler and outcome. Any thread.
    [[nodiscard]] auto engine_counts() const { return engine_.counts(); }
    /// Ends client connections with reason 0x8B, then returns.
    void stop();
    /// For the Prometheus endpoint. Any thread.
    std::string metrics_page();
    /// Where it tells what is wrong; its own when none is given. Before start().
    void use(HealthBoard& board);
    /// What brings resources back that somebody deleted, empty: nothing does; told where there is no Broker or
    /// listener. Before start(); asked on the engine's thread.
    void say_again(std::function<std::string()> text) { again_ = std::move(text); }
    /// What keeps this process from being ready, a line each; empty: nothing. Never waits for a worker or the disk. Any thread.
    std::string not_ready();
    /// How long the workers' turns last, and how full the message memory is. Never waits. Any thread.
    void add_to(ProcessFacts& facts) const;
    /// Writes into the Broker's status what the board says now. False: not possible at the moment. Any thread.
    bool show_health();
    /// The parts of this process that are shown as Pods. Any thread.
    std::vector<Role> roles();
    /// Opens the Prometheus endpoint at a port (0: closes it) and returns why it could not, or nothing. Set before start();
    /// called on the controller's thread.
    void on_metrics_port(std::function<std::string(int)> open) { open_metrics_port_ = std::move(open); }
    /// What was refused lately, and who is connected to ports with authentication. Any thread.
    std::vector<broker::Decision> decisions();
    std::vector<broker::ClientView> clients();
    /// Traces of the last while. `what`: `traces` for a list, `traces/otlp` for all in OTLP's JSON, or with `/TRACE` for one. Any thread.
    resources::Json traces(const std::string& what);
    /// A consistent copy of the broker's state into a folder that does not exist yet. Any thread.
    /// False: this Broker keeps no state.
    Result<bool> copy_state(const std::string& folder);
    /// Puts the keys of encryption at rest back that are in use when their file is missing or empty. Cheap, but for that. Any thread.
    void keep_keys();
    /// Runs the probe at once (tests).
    void probe_now();

  private:
    class Work;
    bool in_cluster_ = false;
    /// Certificate, authentication and authorization of a port that asks for them.
    void secure(PlannedPort& port, const resources::Json& listener);
    /// Opens what the Broker kept and starts it with that; says meanwhile how far it is. Null: it cannot, and its status says why.
    std::unique_ptr<broker::Server> start_server(const Plan& plan, const resources::Json& broker, const std::vector<resources::Json>& listeners);
    Result<std::unique_ptr<store::Durable>> open_state(const Plan& plan, const resources::Json& broker, std::uint32_t workers, std::shared_ptr<store::RecoveryProgress> progress);
    /// A port whose certificate is being issued.
    struct Awaited {
        std::int64_t since_ms = 0;
        std::string told;                          ///< it has lasted, and this was said of it
    };
    /// An Event to be written about a listener.
    struct News {
        std::string listener;
        const char* type;
        const char* reason;
        std::string message;
    };
    using States = std::vector<broker::ListenerState>;
    /// Logs which ports have opened and which do not since the last look, and says what is to be told of
    /// them. guard_ is held.
    std::vector<News> look_at_ports(const Plan& plan, const States& states);
    /// Of a port whose certificate is being issued: nothing is to be told now. `awaited` gets its place.
    bool is_awaited(const PlannedPort& port, const broker::ListenerState& state, std::int64_t now,
                    std::map<std::string, Awaited>& awaited);
    /// The Broker got persistence while it runs.
    void begin_persistence(const Plan& plan, const resources::Json& broker);
    /// Takes over the keys that state is sealed with.
    void update_keys(const Plan& plan);
    void run_probe();
    void take_spans();
    /// Rules of the port that were deleted: who is connected stays, newcomers wait.
    /// `told`: to newcomers; `why`: for log and audit.
    std::shared_ptr<auth::Authenticator> hold(const PlannedPort& port, const char* told, const std::string& why);
    /// A port that is open and names what is not there (another authentication, say) holds who is connected, in the same way.
    void stay_open(PlannedPort& port);
    /// What will be wrong with a port's certificate, and what is wrong with it by now.
    void look_ahead(PlannedPort& port, const PreparedTls& prepared);
    /// Ports of listeners that were deleted a moment ago stay: a replacement deletes first (`kubectl replace --force`).
    void keep_leaving(Plan& plan, const std::vector<resources::Json>& listeners, bool has_broker);
    /// The server, for those who must not hold the guard while workers answer. Null: none yet.
    [[nodiscard]] broker::Server* running() const;
    /// Of the last look at the resources, and what the self-test met since. Any thread.
    BrokerFacts facts_of();
    [[nodiscard]] std::vector<NamedFacts> named_facts(const Plan& plan) const;
    void tell(BrokerFacts facts);
    /// What keeps a listener without a Broker from naming the one it belongs to.
    void look_home(OrphanFacts& orphan, const resources::Json& listener) const;
    /// True when everything wanted is there.
    bool reconcile();
    Outcome turn();
    void report(const Plan& plan, const std::vector<broker::ListenerState>& states);
    /// Statuses of the BrokerAuthentications and BrokerAuthorizations.
    void report_rules(const Plan& plan, const std::vector<broker::ListenerState>& states);
    /// What the self-test met on ports that are not open any more is no news. With guard_.
    void forget_closed_routes();
    resources::Json broker_status(const resources::Json& broker, const Plan& plan, const std::vector<broker::ListenerState>& states) const;
    /// Looks whether the listener may write its Service, and warns where not.
    void claim_service(const resources::Json& listener, Plan& plan);
    void put_service(const resources::Json& listener, const Plan& plan, const std::vector<broker::ListenerState>& states);
    void adopt(const resources::Json& listener, const resources::Json& broker);
    /// Writes what `make` makes of the object as it is then; the generation that it has observed is that of `looked_at`. Any thread.
    void write_status(const resources::Kind& kind, const resources::Json& looked_at, const Objects::MakeStatus& make);
    /// A status with health and times, for what `looked_at` is.
    void write_basic(const resources::Kind& kind, const resources::Json& looked_at, const char* runtime, const std::string& description, const HealthState& health);
    void publish_sys(std::int64_t now);

    Objects& objects_;
    Clock clock_;
    Recorder recorder_;
    WriteTroubles troubles_;
    Engine engine_;
    std::string version_;
    StatePlace place_;
    std::mutex key_file_guard_;                    ///< of the file of keys; before guard_
    store::KeyRing keys_;                          ///< in force; guarded by guard_
    std::function<std::string()> again_;           ///< see say_again()
    std::atomic<bool> lacks_broker_{false};        ///< and that was logged
    std::string keys_fault_;                       ///< why the wanted keys are not in force; guarded by guard_
    std::string store_fault_;                      ///< why the state could not be opened; the engine's thread alone
    TraceStore traces_;
    std::string workers_wait_;                     ///< why their number is not the wanted one yet; guarded by guard_
    std::vector<OrphanFacts> orphans_;             ///< listeners of Brokers that do not run; guarded by guard_
    std::string persistence_waits_;                ///< why persistence did not begin when the Broker got it; guarded by guard_
    std::string not_started_;                      ///< why there is no server yet though there is a Broker; guarded by guard_
    std::shared_ptr<const std::string> probe_secret_;
    std::shared_ptr<auth::Crew> crew_;
    std::shared_ptr<client::HttpPool> http_;
    SecurityBuilder security_;
    std::map<std::string, std::set<std::string>> uncovered_;   ///< the engine's thread alone
    struct Held {
        std::shared_ptr<auth::Authenticator> last;
        std::string why;
        std::shared_ptr<auth::Authenticator> holder;
    };
    struct ServiceFault {
        std::string why;                           ///< empty: all is well
        bool is_refused = false;                   ///< the Service is somebody else's
    };
    std::map<std::string, ServiceFault> service_faults_;   ///< by listener; the engine's thread alone
    bool has_looked_ = false;                      ///< the engine's thread alone
    std::map<std::string, Held> held_;             ///< by port; the engine's thread alone, as the next two
    struct Leaving {
        std::vector<PlannedPort> ports;
        std::int64_t until_ms = 0;                 ///< monotonic
    };
    std::map<std::string, Leaving> leaving_;       ///< by listener
    std::map<std::string, std::pair<std::int64_t, std::vector<crypto::Certificate>>> known_authorities_;   ///< by namespace, with when they were read
    HealthBoard own_board_;
    HealthBoard* board_ = nullptr;
    std::unique_ptr<broker::Server> server_;
    std::atomic<broker::Server*> running_{nullptr};          ///< server_, once it is there
    std::atomic<std::int64_t> pool_max_{0};
    std::mutex guard_;                             ///< plan_, states_, selftest_, server_'s pointer
    Plan plan_;
    std::vector<broker::ListenerState> states_;
    SelftestFigures selftest_;
    std::string name_space_ = "azure-iot-operations";
    std::string broker_name_;
    SysTopics sys_;
    HeapKeeper heap_;
    std::int64_t next_sys_ = 0, next_report_ = 0;
    static constexpr std::int64_t issue_ms = 10'000;   ///< longer than an issuer of this machine takes
    std::map<std::string, Awaited> awaited_;       ///< by place; the engine's thread alone
    std::int64_t next_awaited_ = 0;                ///< when one of them has had its time; 0: none
    std::int64_t next_begin_ = 0;                  ///< when persistence is tried again; the engine's thread alone
    std::uint64_t probes_ = 0;
    std::function<std::string(int)> open_metrics_port_;
    std::string metrics_fault_;                    ///< guarded by guard_
    std::atomic<bool> stopping_{false};
    std::atomic<bool> probe_now_{false};
    std::thread probe_;
};

}  // namespace penstock::control
