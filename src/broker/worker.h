#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <mutex>
#include <numeric>
#include <string>
#include <unordered_map>
#include <vector>

#include "broker/core.h"
#include "io/poller.h"
#include "io/ring.h"
#include "io/socket.h"
#include "store/durable.h"

namespace penstock::broker {

/// An open port; shared by all workers, which accept from it in turn.
struct ListenerSocket {
    std::vector<int> fds;
    std::shared_ptr<const ListenerConfig> config;          ///< the control thread's; workers have their own copy
    std::uint16_t bound_port = 0;
    ~ListenerSocket();
};

/// One thread, one reactor, one Core: reads all that is ready, handles it, writes once per connection, sleeps.
/// Core: home; post_task(), wake() and mailbox pushes by other workers are the only entries from outside.
class Worker final : public Driver {
  public:
    Worker(std::uint32_t id, std::uint32_t count, Shared& shared, store::Durable* durable, store::OverflowLane* overflow);
    ~Worker() override;

    /// Before run(): the peers' inboxes.
    void connect_to(const std::vector<Worker*>& peers) { peers_ = peers; }
    /// Before each run().
    void make_ready() noexcept { stopping_.store(false, std::memory_order_relaxed); }
    /// The thread's body; returns after stop().
    void run();
    /// A turn without sockets, by whoever stands in for the thread while it does not run.
    void quiet_turn();
    /// Nothing is on its way to or from the others, or waits for the disk.
    [[nodiscard]] bool is_quiet() const noexcept;
    /// Reads nothing more of clients that are not connected yet, until said otherwise.
    void hold_newcomers(bool held) noexcept { holds_newcomers_ = held; }
    /// While nobody runs: everything goes to those who take over, by the client's new home. See Core::hand_over().
    void hand_over(const std::vector<std::unique_ptr<Worker>>& heirs);
    void stop() noexcept;
    /// Keeps its state in `durable` from now on. On its thread.
    void begin_persistence(store::Durable& durable);
    /// Something for settle() is there. Core: any.
    void wake() noexcept { poller_.wake(); }
    /// Runs on the worker's thread, in order. Core: any. The control plane's only way in; not on the data path.
    void post_task(std::function<void(Worker&)> task);

    /// How long the present turn has lasted at `now_ms` (monotonic); 0: it sleeps. Core: any.
    [[nodiscard]] std::int64_t turn_ms(std::int64_t now_ms) const noexcept {
        const auto began = busy_since_.load(std::memory_order_relaxed);
        return began == 0 ? 0 : now_ms - began;
    }

    Core& core() noexcept { return core_; }
    [[nodiscard]] std::int64_t now() const noexcept { return now_; }
    /// Mail to and from the others since the start.
    [[nodiscard]] std::uint64_t mail_sent() const noexcept { return std::accumulate(sent_.begin(), sent_.end(), std::uint64_t{0}); }
    [[nodiscard]] std::uint64_t mail_processed() const noexcept { return std::accumulate(processed_.begin(), processed_.end(), std::uint64_t{0}); }
    /// Ends every connection with reason 0x8B and stops accepting. After it, run() returns only when the peers have what was sent to
    /// them, or after a second.
    void shut_down();
    void add_listener(const std::shared_ptr<ListenerSocket>& listener);
    /// New rules for a port: certificate, authentication, authorization. Connections stay, unless they lose their right.
    void update_listener(const ListenerSocket& listener, const std::shared_ptr<const ListenerConfig>& config);
    /// Stops accepting; connections of the listener end with `reason` unless `keep_connections`.
    void remove_listener(const std::shared_ptr<ListenerSocket>& listener, bool keep_connections);

    // Driver
    void make_dirty(Connection& connection) override;
    void close(Connection& connection) override;
    std::unique_ptr<Connection> detach(Connection& connection) override;
    void post(std::uint32_t worker, Mail mail) override;
    void pause(Connection& connection) override;
    std::string peer(const Connection& connection) override;
    std::string network(const Connection& connection) override;
    void hold(Connection& connection) override;
    void release(Connection& connection) override;
    auth::Done completion(std::uint64_t ticket) override;

  private:
    /// This worker's view of a port.
    struct Port {
        std::shared_ptr<ListenerSocket> socket;
        std::shared_ptr<const ListenerConfig> config;
    };
    static constexpr std::size_t mailbox_size = 4096;
    static constexpr std::size_t scratch_size = 256 * 1024;
    static constexpr std::size_t large_min = 16 * 1024;    ///< missing bytes of a packet that are read in place
    static constexpr std::size_t large_step = 1u << 20;    ///< and how many of them at once
    static constexpr std::int64_t strangers_min = 2 << 20; ///< bytes of incomplete CONNECTs that are held at least; more with a larger pool
    static constexpr std::size_t outbox_max = 100'000;     ///< mails of QoS 0 waiting for a full mailbox; then dropped
    using Mailbox = io::Ring<Mail, mailbox_size>;

    static constexpr std::size_t handshakes_max = 1000;    ///< under way; beyond, the oldest makes room
    static constexpr std::size_t cipher_max = 1u << 20;    ///< unsent ciphertext beyond which a peer is given up: it asks for answers and reads none
    static constexpr std::int64_t handshake_ns_max = 2'000'000;    ///< of one turn, for handshakes; the others wait for the next

    void turn(std::span<const io::Ready> ready);
    void inherit(Connection& connection, Worker& from);
    void accept_from(const Port& port);
    /// Takes a connection into this worker. False: its port is gone, and so is it.
    bool adopt(std::unique_ptr<Connection> connection);
    void read_from(Connection& connection);
    void read_tls(Connection& connection);
    /// Hands received bytes, with what was kept of before in front, to the core; false when the connection is gone.
    bool take_bytes(Connection& connection, std::string_view bytes);
    bool write_tls(Connection& connection);
    bool write_plain(Connection& connection);
    /// Moves what may leave into WebSocket frames.
    void frame_output(Connection& connection);
    void end_handshake(Connection& connection);
    /// Continues a large packet in its own buffer; false when there is none under way.
    bool read_large(Connection& connection);
    bool feed(Connection& connection, std::string_view bytes);
    /// Hands bytes to the core; false when the connection is gone.
    bool feed_mqtt(Connection& connection, std::string_view bytes);
    /// Counts an incomplete packet against the message pool; ends the connection when the pool is full. False: it is gone.
    bool count_incomplete(Connection& connection);
    void uncount(Connection& connection);
    void on_writable(Connection& connection);
    /// Writes what is pending, as far as it may leave. False: the connection failed. blocked_ tells whether the socket was full.
    bool write_out(Connection& connection);
    /// How many bytes of the out buffer may leave now.
    std::size_t sendable(Connection& connection);
    /// Bytes of the out buffer that left.
    static void note_sent(Connection& connection, std::size_t count) {
        if (connection.gates != nullptr) connection.gates->consumed += count;
    }
    void end_turn();
    void flush(Connection& connection);
    void flush_dirty();
    void release_buffer(Connection& connection);
    void lose(Connection& connection);
    void reap();
    /// Reads what a peer still sends on a connection that ended here.
    void drain(Connection& connection);
    /// Keeps a connection that ended here, with output left or a peer that has not ended, for a bounded time.
    void linger(Connection& connection);
    /// Lets go all that a connection has but its socket.
    void strip(Connection& connection);
    /// After shut_down(): some peer may not have all that was sent to it, and there is time left.
    bool lets_out();
    bool drain_mailboxes();
    bool push_outboxes();
    void run_tasks();
    void resume_paused();
    /// Who waits for a verdict and has gone is let go at once: nobody waits behind him.
    void look_for_end(Connection& connection);
    void update_interest(Connection& connection);

    std::uint32_t id_;
    Shared& shared_;
    io::Poller poller_;
    store::OverflowLane* overflow_;
    Core core_;
    std::vector<Worker*> peers_;
    std::vector<std::unique_ptr<Mailbox>> inboxes_;        ///< by sending worker
    std::vector<CountedVector<Mail>> outboxes_;            ///< by receiving worker: this turn's, and what did not fit before
    std::vector<std::uint64_t> sent_, processed_;          ///< mail, by the other worker
    bool any_sent_ = false, any_processed_ = false;        ///< since the last commit
    std::deque<std::pair<std::uint64_t, Connection*>, CountedAllocator<std::pair<std::uint64_t, Connection*>>> gated_;   ///< ticket → who waits for it
    bool blocked_ = false;
    std::atomic<bool> sleeping_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<std::int64_t> busy_since_{0};              ///< monotonic ms at which this turn began; 0: none is under way
    /// Where late verdicts find the worker, or that it is gone.
    struct Address {
        std::mutex guard;
        Worker* worker = nullptr;
    };
    const std::shared_ptr<Address> address_ = std::make_shared<Address>();
    std::mutex tasks_guard_;
    std::vector<std::function<void(Worker&)>> tasks_;
    std::atomic<bool> has_tasks_{false};
    bool holds_newcomers_ = false;
    bool has_held_newcomers_ = false;                      ///< some of paused_ are newcomers
    bool pumps_ = true;                                    ///< sends from queues what there is room for

    std::int64_t now_ = 0;
    std::int64_t next_tick_ = 0;
    std::vector<Connection*> connections_;                 ///< owned; by slot
    std::vector<Connection*> dirty_;
    std::vector<Connection*> flushing_;
    std::vector<Connection*> closing_;                     ///< to be reaped at the end of the turn
    /// Closing, with output left or a peer that still sends: a socket that is closed with input unread takes back from its peer what
    /// that has not read yet (TCP reset; RFC 1122 4.2.2.13), the last answers and the reason of the end among it.
    struct Lingering {
        Connection* connection;
        std::int64_t deadline;
        std::size_t unread_left;                           ///< of what its peer may still send
    };
    std::list<Lingering> lingering_;                       ///< by deadline
    std::unordered_map<const Connection*, std::list<Lingering>::iterator> lingers_;
    static constexpr std::int64_t shut_ms = 1000;
    std::int64_t shut_until_ = 0;                          ///< after shut_down(): when its end is waited for no longer
    std::vector<Connection*> paused_;
    std::int64_t next_paused_look_ = 0;                    ///< while the pool is full
    std::vector<std::unique_ptr<session::OutBuffer>> buffers_;     ///< spare ones
    std::size_t spare_bytes_ = 0;                          ///< that they hold
    std::vector<Port> ports_;
    std::unique_ptr<char[]> scratch_;
    std::unique_ptr<char[]> plain_;                        ///< decrypted bytes; twice scratch_: what is kept, and one reading
    std::string cipher_spare_;                             ///< memory for ciphertext, lent to the channel that is written
    std::map<std::uint64_t, Connection*> handshakes_;        ///< by number: oldest first
    std::set<std::pair<std::uint32_t, Connection*>> strangers_;     ///< by what is held of their CONNECT
    std::size_t strangers_bytes_ = 0;
    std::uint64_t next_handshake_ = 1;
    std::int64_t handshake_ns_ = 0;                        ///< spent in this turn
    int spare_fd_ = -1;                                    ///< given up to refuse a connection when descriptors run out
};

}  // namespace penstock::broker
