#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/text.h"
#include "base/turns.h"
#include "broker/categories.h"
#include "broker/cleared_topics.h"
#include "broker/config.h"
#include "broker/connection.h"
#include "broker/guessing.h"
#include "broker/handing_on.h"
#include "broker/mail.h"
#include "broker/marks.h"
#include "broker/trace.h"
#include "session/session.h"
#include "statestore/state_store.h"
#include "store/engine.h"
#include "store/overflow.h"
#include "topics/retained_index.h"
#include "topics/subscription_index.h"

namespace penstock::broker {

/// What a core needs from the thread that drives it. Implemented by Worker over epoll and by the tests in memory.
class Driver {
  public:
    virtual ~Driver() = default;
    /// Gives `connection` an out buffer and remembers to flush it at the end of the turn.
    virtual void make_dirty(Connection& connection) = 0;
    /// Sends what is pending, as far as the peer takes it, and ends the connection. The core forgets it at once.
    virtual void close(Connection& connection) = 0;
    /// Takes the connection out of this thread so that it can travel.
    virtual std::unique_ptr<Connection> detach(Connection& connection) = 0;
    virtual void post(std::uint32_t worker, Mail mail) = 0;
    /// Stops reading from a client until the pool has room again.
    virtual void pause(Connection& connection) = 0;
    virtual std::string peer(const Connection& connection) = 0;
    /// The network a peer counts as when it guesses: its IPv4 address, or the /64 of its IPv6 address.
    virtual std::string network(const Connection& connection) = 0;
    /// Stops reading until release().
    virtual void hold(Connection& connection) = 0;
    /// Goes on with what came meanwhile.
    virtual void release(Connection& connection) = 0;
    /// What takes a late verdict, on any thread, to Core::on_verdict of this thread.
    virtual auth::Done completion(std::uint64_t ticket) = 0;
};

/// A refusal, kept for people who ask why.
struct Decision {
    std::int64_t wall_ms = 0;                              ///< of the last time
    std::string client_id, user_name, peer, listener;
    std::string method;                                    ///< of authentication
    std::string action;                                    ///< Authenticate, Connect, Publish, Subscribe, TLS, Protocol
    std::string target;                                    ///< topic or filter
    std::uint8_t reason = 0;
    std::string why;
    std::uint64_t count = 1;                               ///< in a row
};

/// Why a connection ends or is not made: a row of the table of refusals, and what only the case knows.
struct Ending {
    mqtt::Refusal refusal{};
    std::string_view text;              ///< the row's, or one that says more; outlives the call, no more
    mqtt::ReasonCode reason{};          ///< the row's, or that of a verdict

    Ending(mqtt::Refusal row) : Ending(row, mqtt::rule_of(row).text) {}
    Ending(mqtt::Refusal row, std::string_view more) : Ending(row, more, mqtt::rule_of(row).reason) {}
    Ending(mqtt::Refusal row, std::string_view more, mqtt::ReasonCode why)
        : refusal(row), text(more), reason(why) {}
};

/// What a connected client is and does, for the trial of another policy.
struct ClientView {
    std::string client_id, listener, peer, version;
    auth::Principal principal;
    std::vector<std::string> subscriptions;
    std::vector<std::string> topics;                       ///< lately published to
    bool restricted = false;                               ///< a policy is in force
};

/// What all cores of a broker share. Written with relaxed atomics only; nobody waits.
struct Shared {
    static constexpr std::size_t control_pool = 0, overflow_pool = 1, durable_pool = 2, first_worker_pool = 3;
    std::atomic<std::uint64_t> sequence{1};                ///< orders retained messages across workers
    std::vector<std::unique_ptr<mqtt::MessageBytes>> pools;///< of the control thread, of those of overflow and disk, and of as many workers as there may be
    std::atomic<std::size_t> pools_used{static_cast<std::size_t>(-1)};     ///< only these count
    CategoryClaims categories;
    [[nodiscard]] std::int64_t pool_used() const noexcept {
        std::int64_t sum = 0;
        const auto count = std::min(pools.size(), pools_used.load(std::memory_order_relaxed));
        for (std::size_t i = 0; i < count; ++i) sum += pools[i]->value();
        return sum;
    }
};

/// A copy of a core's figures.
struct CoreFigures {
    std::vector<CategoryCounters> categories;
    CategoryCounters aged_categories;                      ///< what categories that are gone had counted; without a name
    std::array<std::uint64_t, 256> disconnects{};          ///< by reason, sent or implied by the server
    std::array<std::uint64_t, 256> refusals{};             ///< CONNACK by reason
    std::uint64_t tls_handshakes = 0;
    std::uint64_t tls_resumed = 0;
    std::uint64_t tls_failures = 0;
    std::uint64_t throttled = 0;                           ///< CONNECTs refused for too many failures of their address
    std::uint64_t credentials_expired = 0;
    std::uint64_t rights_revoked = 0;                      ///< connections and subscriptions ended by changed rules
    std::uint64_t withdrawn_messages = 0;                  ///< that waited for who may not read their topics any more
    std::uint64_t connections_total = 0;
    std::uint64_t packets_received = 0;
    std::uint64_t bytes_received = 0;
    std::uint64_t bytes_sent = 0;
    std::uint64_t rejected_memory = 0;
    std::uint64_t rejected_disk = 0;
    std::uint64_t expired_messages = 0;
    std::uint64_t mailbox_full = 0;
    std::uint64_t spans_dropped = 0;
    std::uint64_t state_requests = 0;
    std::uint64_t state_keys = 0;
    statestore::StateStore::Counts state;
    std::array<std::uint64_t, 2> dynamic_requests{};       ///< of persistence by clients: not allowed, allowed
    std::uint64_t subscribes = 0;
    std::uint64_t connections = 0;
    std::uint64_t sessions = 0;
    std::uint64_t connected_sessions = 0;
    std::uint64_t persistent_sessions = 0;
    std::uint64_t connected_persistent_sessions = 0;
    std::uint64_t subscriptions = 0;
    std::uint64_t shared_subscriptions = 0;
    std::uint64_t retained_messages = 0;
    std::uint64_t retained_bytes = 0;
    std::uint64_t wills = 0;
    std::uint64_t will_bytes = 0;
    std::uint64_t queued = 0;
    std::uint64_t in_flight = 0;
};

/// What only grows, not what is there at the moment.
void add_counters(CoreFigures& into, const CoreFigures& from);

/// The broker's logic on one worker: sessions whose client ids hash to it, a copy of the subscription and retained
/// indexes, and the handling of every packet. Sans-I/O: bytes, mails and ticks in; packets and mails out.
///
/// Core: home. A client's session never leaves its worker: a connection that arrives elsewhere is handed over once, right
/// after its CONNECT, so that taking over a session is a local affair and no message can meet a session in transit.
class Core {
  public:
    Core(std::uint32_t id, std::uint32_t count, Driver& driver, Shared& shared, std::unique_ptr<store::Engine> engine, store::OverflowLane* overflow = nullptr);
    ~Core();

    void configure(const BrokerConfig& config);
    [[nodiscard]] const BrokerConfig& config() const noexcept { return config_; }
    /// The worker on which a client id lives: stable_share() of its bytes, which records on the disk rest on.
    static std::uint32_t home_of(std::string_view client_id, std::uint32_t count) noexcept;

    /// Returned by on_data when the connection left this worker or was ended: it must not be touched again.
    static constexpr std::size_t gone = static_cast<std::size_t>(-1);
    /// Bytes of output beyond which a client's packets wait until it has read.
    static constexpr std::size_t unread_max = 1u << 20;
    /// And while the pool is full.
    static constexpr std::size_t unread_max_when_full = 4096;
    /// Bytes of one packet that this connection may send now.
    [[nodiscard]] std::uint32_t packet_max(const Connection& connection) const noexcept;

    void on_accepted(Connection& connection, std::int64_t now);
    /// Handles whole packets; returns how many bytes were used, or `gone`.
    std::size_t on_data(Connection& connection, std::string_view bytes, std::int64_t now);
    /// The peer closed or the network failed.
    void on_lost(Connection& connection, std::int64_t now);
    /// The out buffer has room again.
    void on_room(Connection& connection, std::int64_t now);
    /// A mail that is not Kind::connection.
    void on_mail(Mail& mail, std::int64_t now);
    /// When the next thing is due that is not left to the tick, monotonic ms; 0: nothing. Wills, sessions, credentials and state store
    /// keys end in their millisecond, before any packet that comes later is looked at.
    [[nodiscard]] std::int64_t next_deadline() const;
    /// Does what is due. At the begin of a turn, before mails and packets.
    void run_due(std::int64_t now);
    /// About once a second: keep alive, queued messages that expired.
    void on_tick(std::int64_t now);
    /// Publishes a message of the server's own.
    void publish(const mqtt::MessageView& view, std::int64_t now);
    /// The answer to a question that begin() left open.
    void on_verdict(std::uint64_t ticket, auth::Verdict verdict, std::int64_t now);
    /// The rules of a connection's port changed: it takes them over, and what is not allowed any more ends.
    void on_rules(Connection& connection, const std::shared_ptr<const ListenerConfig>& listener, std::int64_t now);
    /// The same for sessions whose clients are away: what they may not have any more does not wait for them.
    void on_port_rules(const std::shared_ptr<const ListenerConfig>& before, const std::shared_ptr<const ListenerConfig>& after, std::int64_t now);
    /// A port of a listener opened: its rules are in force for those who were last connected by that listener, before the process began or
    /// the listener's port changed.
    void on_port_added(const std::shared_ptr<const ListenerConfig>& port, std::int64_t now);
    void on_port_removed(const std::shared_ptr<const ListenerConfig>& port);
    /// A client asked for a name that the port's certificate does not cover.
    void note_uncovered(const Connection& connection, const std::string& name);
    /// By `namespace/name:port` of the listener; a few names each, since its certificate was put in force.
    [[nodiscard]] const std::map<std::string, std::set<std::string>>& uncovered() const noexcept { return uncovered_; }
    /// Something on a connection was refused before MQTT began.
    void note_refusal(const Connection& connection, const char* action, std::string why);
    [[nodiscard]] const std::deque<Decision>& decisions() const noexcept { return decisions_; }
    /// Of packets whose senders asked for it, since the last time.
    std::vector<Span> take_spans() { return spans_.take(); }
    /// Connected clients of ports with authentication.
    [[nodiscard]] std::vector<ClientView> clients();
    /// Ends one connection; the text becomes the reason string.
    void disconnect(Connection& connection, const Ending& ending, std::int64_t now);
    /// See store::Engine.
    std::uint64_t commit(const store::MailCounts& mails) { return engine_->commit(mails); }
    [[nodiscard]] std::uint64_t durable() const noexcept { return engine_->durable(); }
    [[nodiscard]] bool is_durable() const noexcept { return durable_; }
    /// The disk takes nothing: version 3 clients wait.
    [[nodiscard]] bool is_failing() const noexcept { return durable_ && engine_->fault() != nullptr; }
    /// Takes over what the engine kept. Before any port is open. Nothing ends and no will is sent until all_recovered().
    void recover(std::int64_t now);
    /// The other workers have recovered too, and what they told of their subscriptions is known here.
    void all_recovered() noexcept { is_recovering_ = false; }
    /// Keeps from now on what it had in memory alone: all that the policies name is written into the new engine.
    void begin_persistence(std::unique_ptr<store::Engine> engine, std::int64_t now);
    /// Goes on with what waited for a commit. Once a turn, before anything else.
    void settle(std::int64_t now);
    /// Queued messages that were read from the disk go out.
    void settle_overflow(std::int64_t now);
    /// It has more unread output than it may have while it goes on asking.
    [[nodiscard]] bool is_stuffed(const Connection& connection) const noexcept {
        const auto pending = connection.out != nullptr ? connection.out->pending() : 0;
        return pending > unread_max_when_full && (pending > unread_max || is_full());
    }
    /// Retained messages it asked for are still to be sent.
    [[nodiscard]] bool has_retrievals(const Connection& connection) const { return !retrievals_.empty() && retrievals_.contains(&connection); }
    [[nodiscard]] bool under_pressure() const noexcept { return shared_.pool_used() * 4 > config_.pool_bytes * 3; }
    /// Beyond what messages may take, and almost all of it: nothing is begun that needs more.
    [[nodiscard]] bool is_full() const noexcept { return shared_.pool_used() * 100 > config_.pool_bytes * 97; }

    [[nodiscard]] CoreFigures figures() const;
    CoreFigures& counters() noexcept { return figures_; }
    [[nodiscard]] session::Session* find_session(std::string_view client_id) noexcept;
    /// Nothing waits for a verdict, for the disk or for another worker.
    [[nodiscard]] bool is_quiet() const noexcept;
    /// Somebody else is asked who a client is.
    [[nodiscard]] bool has_open_questions() const noexcept { return !waiting_.empty(); }
    /// The number of workers changes and this one does not run any more: gives each session, with what else is known of it, to the one
    /// of `heirs` that is its home now, and what all workers know to all. Cores are quiet, come in order, and none of either side runs.
    void hand_over(const std::vector<Core*>& heirs, std::int64_t now);
    /// Goes on counting from there.
    void inherit_counters(const CoreFigures& from, std::int64_t now);
    /// The same for its clients' categories alone.
    void inherit_categories(const CoreFigures& from, std::int64_t now) { categories_.inherit(from.categories, from.aged_categories, static_cast<std::uint32_t>(now / 1000)); }
    /// Takes a connection whose session, if it has one, is here already.
    void inherit(Connection& connection, Core& from);

  private:
    enum class Next : std::uint8_t {
        go_on,
        stop,                            ///< this packet is looked at again later
        hold,                            ///< this packet is done, the next one waits
        gone,
    };
    struct Retained {
        mqtt::MessageRef message;
        std::uint64_t sequence = 0;
        explicit operator bool() const noexcept { return static_cast<bool>(message); }
    };

    // packets
    Next on_frame(Connection& connection, const mqtt::Frame& frame, std::string_view rest);
    /// What comes before CONNECT has been there.
    Next on_first(Connection& connection, const mqtt::Frame& frame, std::string_view rest);
    Next on_connect(Connection& connection, const mqtt::Frame& frame, std::string_view rest);
    Next on_publish(Connection& connection, const mqtt::Frame& frame);
    Next on_subscribe(Connection& connection, const mqtt::Frame& frame);
    Next on_unsubscribe(Connection& connection, const mqtt::Frame& frame);
    Next on_ack(Connection& connection, const mqtt::Frame& frame);
    Next on_disconnect(Connection& connection, const mqtt::Frame& frame);
    Next on_auth(Connection& connection, const mqtt::Frame& frame);

    /// Nothing when nothing is traced, or the sender did not ask.
    std::optional<TraceParent> traced(std::string_view trace_parent) const noexcept { return spans_.is_on() && !trace_parent.empty() ? parse_traceparent(trace_parent) : std::nullopt; }
    /// `began_ns` 0: now.
    void trace_connect(const Connection& connection, const mqtt::ConnectView& connect, std::string_view client_id, std::int64_t began_ns);

    // connect
    /// Ends a connection whose CONNECT is not accepted. `is_noted`: the audit of refusals has it already;
    /// else it gets what is about who the client is and what it may do.
    Next refuse(Connection& connection, const Ending& ending, bool is_noted = false);
    /// The client id of a CONNECT that waits: its own, or the one that was chosen for it.
    static std::string asked_for(const Connection::Waiting& waiting);
    /// CONNACK with a reason, in the client's form and within its Maximum Packet Size: without the text if it must be, and not at all
    /// where that version has no code for it or nothing fits (false).
    bool write_refusal(Connection& connection, mqtt::ReasonCode reason, std::string_view text);
    /// It is not larger than the client takes [MQTT-3.1.2-24].
    static bool fits(const Connection& connection, std::size_t size) noexcept { return connection.packet_size_max == 0 || size <= connection.packet_size_max; }
    Next open_session(Connection& connection, const mqtt::ConnectView& connect, std::string_view assigned_id, const auth::Verdict& verdict);
    Next apply_verdict(Connection& connection, const mqtt::ConnectView& connect, std::string_view assigned_id, const Connection::Guesser& guesser, auth::Verdict verdict);
    Next end_reauthentication(Connection& connection, auth::Verdict verdict);
    std::string connack_properties(Connection& connection, const mqtt::ConnectView& connect, std::string_view assigned_id,
                                   const auth::Verdict& verdict, std::uint32_t granted_expiry, bool essential_only);
    /// What the will, if there is one, makes of the CONNECT; nothing: it is taken.
    [[nodiscard]] std::optional<mqtt::Refusal> will_fault(const mqtt::ConnectView& connect) const;

    // security
    /// Reads nothing more of the client until its verdict is there, or has taken too long.
    void wait_for_verdict(Connection& connection);
    /// Its keep alive begins now.
    void watch_keep_alive(Connection& connection);
    /// A credential that ended while it was looked at lets nobody in.
    static void refuse_expired(auth::Verdict& verdict);
    auth::Later later(Connection& connection);
    /// A verdict by rules that are not the port's any more is looked at with those that are.
    void recheck(const Connection& connection, const Connection::Waiting& waiting, auth::Verdict& verdict) const;
    void secure(Connection& connection, const std::string& client_id, auth::Principal principal);
    void watch_expiry(Connection& connection);
    /// A credential's time is over, or it is to be looked at again.
    void end_credential(Connection& connection, std::int64_t now);
    /// Whether the port's rules, as they are now, would let the client in; empty: they would.
    std::string review(Connection& connection) const;
    /// Why the principal may not open this session, or nothing.
    std::string connect_fault(const Connection& connection, const mqtt::ConnectView& connect, std::string_view client_id) const;
    /// Ends what the grant (null: everything is allowed) does not allow: subscriptions, the will, messages that wait. `resumes`: also
    /// deliveries under way, which would be sent again when the client returns.
    void enforce(session::Session& session, const std::shared_ptr<const auth::Grant>& grant, const Connection* connection, bool resumes);
    void drop_forbidden_will(session::Session& session, const auth::Grant& grant);
    struct Away {
        std::shared_ptr<const ListenerConfig> listener;            ///< by which the client was last connected; port 0: it has no such port now
        auth::Principal principal;
    };
    void remember_away(session::Session& session, const Connection& connection);
    void enforce_away(std::uint64_t id, const Away& away);
    [[nodiscard]] bool may_publish(Connection& connection, std::string_view topic);
    /// `claimed_user`: of a CONNECT that was refused before anybody knew who it is.
    void note(const Connection& connection, std::string_view client_id, const char* action,
              std::string_view target, mqtt::ReasonCode reason, std::string why,
              std::string_view claimed_user = {});
    /// Who pays for a wrong credential: the address, but for those who were let in from it lately each for himself, so that one device
    /// with a wrong password does not lock out the others behind the same address. One who repeats himself is stopped before he
    /// spends the patience with all others.
    [[nodiscard]] static Connection::Guesser guesser_of(std::string network, std::string_view client_id, std::string_view user_name);
    /// Too many failures: refuse without looking.
    bool is_throttled(const Connection::Guesser& guesser);
    static constexpr Patience of_network{.burst = 20, .per_second = 1}, of_device{.burst = 5, .per_second = 0.1};   ///< on one worker
    void count_failure(const Connection::Guesser& guesser);
    /// Ends the CONNECTs that wait for a verdict though they would be refused now: one would look at them for nothing, and others wait.
    void end_throttled(const Connection::Guesser& guesser);
    /// Refuses a CONNECT that waits.
    void refuse_waiting(Connection& connection, const Ending& ending);
    /// Who gives way to a CONNECT that waits now; itself, when nobody does.
    [[nodiscard]] std::vector<std::uint64_t> make_room_to_wait(const Connection::Waiting& waiting);

    // deadlines
    /// A connection's place in the wheel has come: its keep alive, or what it waits for, may be over.
    void check_silence(Connection& connection);
    /// Nobody said in time whether the client may come in.
    void give_up_verdict(Connection& connection);
    /// Publishes the will and ends the session if their time has come. False: the session is gone.
    bool finish_due(session::Session& session);
    void end_due_sessions();
    void drop_expired_queued(std::uint32_t second);
    void drop_expired_retained();
    /// A message whose expiry passed on its way here.
    bool is_late(const mqtt::MessageRef& message);

    // sessions
    void end_connection(Connection& connection, bool keep_will);
    void erase_session(session::Session& session);
    /// What is kept of a session on the disk. `spare_queue`: others get it first.
    void erase_record(const session::Session& session, bool spare_queue);
    void publish_will(session::Session& session);
    /// Sends it once it is known on disk that it is on its way.
    void leave(store::LeavingRecord record);
    /// Brings what is on its way a step further.
    void settle_leaving();
    void set_members_connected(session::Session& session, bool connected);
    void start_timer(session::Session& session, std::int64_t at);
    /// Counts what is not counted elsewhere of a session in the message pool: itself, where it outlives its connection, and names of a
    /// length that its client chose.
    void count_session(session::Session& session, const auth::Principal* principal);
    void index_subscription(session::Session& session, const topics::SharedFilter& shared, const topics::Options& options, std::uint32_t share);
    void add_subscription(session::Session& session, std::string_view filter, const topics::Options& options, std::uint32_t share);
    void remove_subscription(session::Session& session, const session::Subscription& subscription);

    // routing
    /// True when somebody, here or on another worker, has a matching subscription.
    bool route(mqtt::Outgoing& message);
    bool deliver_local(mqtt::Outgoing& message, const topics::Match& match);
    void deliver_shared(mqtt::Outgoing& message, topics::Group& group, std::string_view filter);
    void deliver_to_member(mqtt::Outgoing& message, const topics::Member& member);
    void on_shared_publish(Mail& mail);
    void deliver_to(session::Session& session, mqtt::Outgoing& message, std::uint8_t qos, bool retain, const std::uint32_t* ids, std::size_t id_count, std::uint32_t share = 0);
    /// The number of the session's shared subscription (Queued::share), 0: it has no such.
    std::uint32_t share_of(const session::Session& session, const topics::SharedFilter& shared);
    /// All of its shared subscriptions by which something may wait.
    std::vector<store::Share> shares_of(const session::Session& session);
    /// Gives what waits by these shared subscriptions, of which the session is no member any more, to other members. `ended`: deliveries
    /// of QoS 1 that were not acknowledged too.
    void hand_on(session::Session& session, std::vector<store::Share> shares, bool ended);
    using HandedOn = std::map<std::string, HandingOn, std::less<>>;
    void continue_handing_on();
    void step_handing_on(const std::string& client_id, HandingOn& job);
    /// Forgets it when nothing is left; the next one.
    HandedOn::iterator end_handing_on(HandedOn::iterator at);
    void set_retained(mqtt::Outgoing& message) { set_retained(message, next_sequence()); }
    void set_retained(mqtt::Outgoing& message, std::uint64_t sequence);
    std::uint64_t next_sequence() noexcept { return shared_.sequence.fetch_add(1, std::memory_order_relaxed); }
    void store_retained(const mqtt::MessageRef& message, std::uint64_t sequence);
    void clear_retained(std::string_view topic, std::uint64_t sequence);
    /// What it asked for before has left to where the next retained messages have room.
    [[nodiscard]] bool takes_retained(const Connection& connection) const noexcept;
    /// Those that waited for room.
    void resume_retrievals();
    /// Tells the others that nothing older comes from here, where something was cleared.
    void send_sequence_mark();
    void send_retained(session::Session& session, std::string_view filter, const topics::Options& options);
    void broadcast(const Mail& prototype);
    [[nodiscard]] bool is_hidden(std::string_view topic) const noexcept;
    /// `$SYS` and what is below: clients read it, the server alone writes it.
    static bool is_of_the_server(std::string_view topic) noexcept { return topic.starts_with("$SYS") && (topic.size() == 4 || topic[4] == '/'); }
    /// What the server tells of itself: each run publishes it anew, so that nothing of it is kept.
    static bool is_own(std::string_view topic) noexcept {
        return is_of_the_server(topic) && !is_bridge_state(topic);
    }
    /// Where Mosquitto's bridges say whether they are connected: `$SYS/broker/connection/NAME/state`, which is theirs to write.
    static bool is_bridge_state(std::string_view topic) noexcept;
    [[nodiscard]] session::QueueLimits queue_limits() const noexcept;
    /// With the pool under pressure less is copied for readers that are behind. For the deliveries that follow.
    void look_at_pressure() noexcept { high_water_ = under_pressure() ? high_water_under_pressure : session::QueueLimits{}.out_high_water; }
    static constexpr std::size_t high_water_under_pressure = 16 * 1024;
    /// Sees to it that messages of the session's queue go when they expire.
    void watch_queue(session::Session& session);

    // output
    session::OutBuffer& output(Connection& connection) {
        if (!connection.is_dirty) driver_.make_dirty(connection);
        return *connection.out;
    }
    void send_ack(Connection& connection, mqtt::PacketType type, std::uint16_t packet_id, mqtt::ReasonCode reason, std::string_view text = {});

    // durability
    class Recovery;
    void inherit(std::unique_ptr<session::Session> owned, Core& from);
    statestore::StateStore::Write state_writer();
    /// What is written to this connection in this turn waits for the turn's commit.
    void gate(Connection& connection) const noexcept { connection.is_gated |= durable_; }
    /// Sessions that the policy covers now, and did not when they began, are kept from now on.
    void keep_more_queues();
    /// Writes the session's own record.
    void keep(const session::Session& session);
    std::optional<store::HolderRecord> holder_of(const session::Session& session) const;
    /// A QoS 2 message of a kept publisher while it is routed: what identifies it when it is sent again after a crash.
    struct Origin {
        std::string_view publisher;
        std::uint16_t packet_id = 0;
        bool dup = false;
        bool went_elsewhere = false;              ///< to other workers
    };
    using Seen = Marks<NoValue>;
    using Had = Marks<CountedVector<store::Portion>>;
    /// Adds the origin to mail of a message that is being routed.
    void put_origin(Mail& mail);
    /// Notes that this worker's sessions have it, or those of a group (Marks::group()).
    void mark_seen(std::string_view publisher, std::uint16_t packet_id, std::string_view whom = {});
    /// Notes it, and hands out to those sessions here that do not have it from before a crash.
    bool deliver_once(const Origin& origin, mqtt::Outgoing& message, const topics::Match& match);
    /// Who had it before a crash, or null.
    const CountedVector<store::Portion>* had_before(std::string_view publisher, std::uint16_t packet_id, std::string_view whom = {}) const;
    /// The publisher is done with it: what was noted goes, here and on the other workers.
    /// `everywhere`: also when nothing is noted here. A crash may have come between this worker's forgetting and another's; a mark left
    /// behind would swallow the next message with that identifier that is sent again.
    void release(std::string_view publisher, std::uint16_t packet_id, bool everywhere);
    /// The publisher's session is gone.
    void release_all(std::string_view publisher);
    /// No identifier: all of the publisher's.
    bool forget_seen(std::string_view publisher, std::optional<std::uint16_t> packet_id = std::nullopt);
    [[nodiscard]] bool keeps_retained(const mqtt::MessageView& view);
    [[nodiscard]] bool keeps_queue(const session::Session& session);

    // state store
    struct StateOut {
        std::uint64_t ticket = 0;                 ///< of what must be durable before it leaves
        std::string client_id;                    ///< a notification for this client; empty: an answer for its topic
        mqtt::MessageRef message;
        Counted counted{};                        ///< the rest of it
    };
    Next on_state_request(Connection& connection, const mqtt::PublishView& publish);
    void handle_state(const mqtt::MessageView& view, const std::string& client_id, bool allowed);
    void state_notifications(const std::vector<statestore::Notification>& list);
    void state_out(std::string client_id, const mqtt::MessageView& view);
    void send_state(StateOut& out);
    void deliver_direct(const std::string& client_id, const mqtt::MessageRef& message);
    [[nodiscard]] bool keeps_state(std::string_view key, bool requested);

    // keep alive
    void wheel_insert(Connection& connection, std::uint32_t at);
    void wheel_remove(Connection& connection) noexcept;

    std::uint32_t id_;
    std::uint32_t count_;
    Driver& driver_;
    Shared& shared_;
    std::unique_ptr<store::Engine> engine_;
    bool durable_;
    BrokerConfig config_;
    std::int64_t now_ = 0;                        ///< monotonic ms of the event being handled
    std::uint32_t second_ = 0;
    std::uint32_t ticked_ = 0;                    ///< the wheel has been turned up to this second

    std::unordered_map<std::string_view, std::unique_ptr<session::Session>, TextHash> sessions_;   ///< keys are the sessions' own ids
    std::unordered_map<std::uint64_t, session::Session*> by_id_;   ///< those in timers or shared groups
    std::set<std::pair<std::int64_t, std::uint64_t>> timers_;      ///< deadline and session, one each: look at its will and its end
    std::uint64_t next_session_ = 1;
    topics::SubscriptionIndex index_;
    std::unique_ptr<topics::RetainedIndex<Retained>> retained_ = std::make_unique<topics::RetainedIndex<Retained>>();
    std::uint64_t retained_count_ = 0;
    std::uint64_t retained_bytes_ = 0;
    bool retained_may_expire_ = false;                             ///< some retained message has an expiry
    ClearedTopics cleared_;                                        ///< while there are other workers
    std::size_t high_water_ = session::QueueLimits{}.out_high_water;
    std::array<Connection*, 256> wheel_{};
    std::array<std::vector<std::uint64_t>, 256> expiring_;         ///< timer wheel by second: sessions in whose queue something expires
    std::uint32_t expired_ = 0;                                    ///< it has been turned up to this second
    store::OverflowLane* overflow_;                                ///< null: none
    std::unordered_map<std::uint64_t, Connection*> waiting_;       ///< ticket → who waits for a verdict
    Turns waiting_connects_;                                       ///< of these, those who are not connected yet, by network
    Turns large_connects_;                                         ///< of these, the large ones: together they have half the room
    void forget_waiting(std::uint64_t ticket);
    std::uint64_t next_ticket_ = 1;
    std::multimap<std::int64_t, Connection*> expiries_;            ///< monotonic ms at which a credential ends or is looked at again
    std::deque<Decision> decisions_;
    std::unordered_map<std::uint64_t, Away> away_;                 ///< sessions without a connection whose rights may change
    std::map<std::string, std::set<std::string>> uncovered_;
    /// Filters whose retained messages wait for room.
    struct Retrievals {
        std::deque<std::pair<std::string, topics::Options>> filters;
        std::size_t bytes = 0;
        Counted counted;
        void add(std::string_view filter, const topics::Options& options) {
            filters.emplace_back(filter, options);
            bytes += filter.size();
            counted.set(bytes + filters.size() * sizeof(filters.front()));
        }
        std::pair<std::string, topics::Options> take() {
            auto out = std::move(filters.front());
            filters.pop_front();
            bytes -= out.first.size();
            counted.set(bytes + filters.size() * sizeof(filters.front()));
            return out;
        }
        [[nodiscard]] bool is_over() const noexcept { return filters.size() > 10'000 || bytes > 4u << 20; }
    };
    std::unordered_map<const Connection*, Retrievals> retrievals_;
    static constexpr std::size_t guessers_max = 20'000;
    Failures failures_{guessers_max};                              ///< see guesser_of
    KnownDevices known_{guessers_max};
    Origin* origin_ = nullptr;                                     ///< while such a message is routed
    Seen seen_;                                                    ///< see store::Engine::put_seen; of this run, of this worker
    Had had_;                                                      ///< those of the runs before, of all workers
    const CountedVector<store::Portion>* spared_ = nullptr;            ///< while a message is handed out: whose sessions have it already
    /// See store::LeavingRecord: first that it is on its way, then the message, then that it arrived, then what kept it from coming twice.
    struct Leaving {
        enum class Step : std::uint8_t { recovered, written, sent, arrived, done };
        Step step{};
        std::uint64_t ticket = 0;                 ///< of what must be durable before the next step
        std::int64_t not_before = 0;              ///< monotonic ms
        std::uint64_t number = 0;
        store::LeavingRecord record{};
        Counted counted{};                        ///< names of the record

        void count() noexcept { counted.set(sizeof(Leaving) + record.client_id.size() + record.filter.size() + record.group.size()); }
    };
    std::deque<Leaving> leaving_;
    HandedOn handing_on_;                                          ///< by client id
    std::unordered_map<std::string, std::uint64_t, TextHash, std::equal_to<>> ended_;   ///< client ids of kept sessions that ended, and the ticket of that
    std::uint64_t ended_until_ = 0;                                ///< the last of these tickets: durable, all of `ended_` go
    bool is_recovering_ = false;                                   ///< receivers on other workers are not known yet
    bool hands_on_at_once_ = false;                                ///< some of it can go on in the next turn
    struct Received {
        std::uint64_t ticket = 0, session = 0;
        std::uint16_t packet_id = 0;
        mqtt::ReasonCode reason{};
    };
    std::deque<Received> received_;                                ///< QoS 2 messages whose PUBREC waits for other workers
    std::unique_ptr<statestore::StateStore> state_;                ///< on worker 0
    bool state_wrote_ = false;                                     ///< something of the command at hand goes to disk
    std::deque<StateOut> state_out_;
    CoreFigures figures_;
    SpanLog spans_;
    Categories categories_;
    std::string scratch_;
    std::string connecting_;                                       ///< client id of the CONNECT being answered, for its log line
    std::optional<PacketTrace> connect_trace_;                     ///< of it, where it is traced
};

/// Who is not let in, or not any more: people look for it in the log of the authentication and in the audit.
constexpr bool is_about_rights(mqtt::ReasonCode reason) noexcept {
    return reason == mqtt::ReasonCode::bad_user_name_or_password ||
           reason == mqtt::ReasonCode::not_authorized ||
           reason == mqtt::ReasonCode::bad_authentication_method;
}
/// A text that a peer chose, for a line of the log: so much of it that all else still has room there.
inline std::string_view for_log(std::string_view text) noexcept { return clipped(text, 256); }
inline constexpr std::size_t logged_why_max = 1024;

/// Within a rate, logs that a client was refused or ended. Names client, listener and the statement that is
/// enforced, of the version that the client speaks.
void log_ended(std::string_view client, std::string_view peer, std::string_view listener,
               mqtt::Version version, const Ending& ending, std::int64_t now);

}  // namespace penstock::broker
