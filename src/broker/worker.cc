#include "broker/worker.h"

#include <algorithm>
#include <cassert>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "io/socket.h"
#include "tls/failure.h"

namespace penstock::broker {
namespace {

constexpr std::int64_t paused_look_ms = 20, shut_look_ms = 5;
constexpr std::uint64_t listener_bit = 1;                  // pointers are aligned; the lowest bit tells listeners apart

std::uint64_t tag_of(const Connection& connection) noexcept { return std::bit_cast<std::uint64_t>(&connection); }
/// One that ended is read whatever it waited for, so that its peer, which may be writing, comes to read the end.
bool is_read(const Connection& connection) noexcept {
    return connection.state == ConnectionState::closing ? !connection.is_ended : !connection.is_paused && !connection.is_held;
}
std::uint64_t tag_of(const ListenerSocket& listener) noexcept { return std::bit_cast<std::uint64_t>(&listener) | listener_bit; }

}  // namespace

ListenerSocket::~ListenerSocket() {
    for (const int fd : fds) io::close_now(fd);
}

Worker::Worker(std::uint32_t id, std::uint32_t count, Shared& shared, store::Durable* durable, store::OverflowLane* overflow)
    : id_(id), shared_(shared), overflow_(overflow), core_(id, count, *this, shared, durable != nullptr ? durable->engine(id, [this] { poller_.wake(); }, overflow) : store::make_memory_engine(overflow), overflow), outboxes_(count), sent_(count), processed_(count),
      scratch_(std::make_unique<char[]>(scratch_size)), plain_(std::make_unique_for_overwrite<char[]>(2 * scratch_size)), spare_fd_(io::open_spare()) {
    for (std::uint32_t i = 0; i < count; ++i) inboxes_.push_back(std::make_unique<Mailbox>());
    address_->worker = this;
}

Worker::~Worker() {
    {
        const std::lock_guard lock(address_->guard);
        address_->worker = nullptr;
    }
    for (auto* connection : connections_) {
        io::close_now(connection->fd);
        delete connection->out;
        delete connection;
    }
    io::close_now(spare_fd_);
}

void Worker::run() {
    log::set_thread_number(static_cast<int>(id_) + 1);
    mqtt::MessageBytes::use(*shared_.pools[Shared::first_worker_pool + id_]);
    now_ = monotonic_ms();
    next_tick_ = now_ + 1000;
    // Of connections that came from another worker: what was about to be sent from their queues.
    for (auto* connection : connections_)
        if (connection->session != nullptr && !connection->is_dirty && !connection->wants_write && (connection->session->has_waiting() || core_.has_retrievals(*connection))) make_dirty(*connection);
    while (!stopping_.load(std::memory_order_relaxed) || lets_out()) {
        // Announce sleep, then look once more: a producer that pushed before it saw the flag is seen here, one that
        // pushes later sees the flag and wakes.
        sleeping_.store(true, std::memory_order_seq_cst);
        bool work = has_tasks_.load(std::memory_order_seq_cst) || !dirty_.empty();
        for (const auto& inbox : inboxes_) work |= !inbox->looks_empty();
        for (const auto& outbox : outboxes_) work |= !outbox.empty();
        const auto deadline = core_.next_deadline();
        const auto due = deadline != 0 ? std::min(next_tick_, deadline) : next_tick_;
        const auto most = shut_until_ != 0 ? shut_look_ms : paused_.empty() ? 1000 : paused_look_ms;
        const auto timeout = work ? 0 : static_cast<int>(std::clamp<std::int64_t>(due - now_, 0, most));
        const auto ready = poller_.wait(timeout);
        sleeping_.store(false, std::memory_order_relaxed);
        turn(ready);
    }
    if (shut_until_ == 0) return;
    // Who has not ended by now is not waited for.
    for (auto* connection : connections_) lose(*connection);
    reap();
}

void Worker::turn(std::span<const io::Ready> ready) {
    now_ = monotonic_ms();
    busy_since_.store(now_, std::memory_order_relaxed);
    handshake_ns_ = 0;
    core_.settle(now_);
    core_.settle_overflow(now_);
    if (pumps_) core_.run_due(now_);
    // Mails first: what another worker did before it answered its client must be visible to that client's next
    // packet, wherever it arrives.
    drain_mailboxes();
    if (has_tasks_.load(std::memory_order_acquire)) run_tasks();
    for (const auto& r : ready) {
        if ((r.tag & listener_bit) != 0) {
            // Looked up, because a task of this very turn may have removed it.
            const auto at = std::ranges::find(ports_, std::bit_cast<ListenerSocket*>(r.tag & ~listener_bit), [](const Port& port) { return port.socket.get(); });
            if (at != ports_.end()) accept_from(*at);
            continue;
        }
        auto& connection = *std::bit_cast<Connection*>(r.tag);
        if (r.writable && connection.wants_write) on_writable(connection);
        if (!r.readable) continue;
        if (connection.state == ConnectionState::closing) drain(connection);
        else if (connection.is_held) look_for_end(connection);
        else read_from(connection);
    }
    if (pumps_ && now_ >= next_tick_) {
        next_tick_ = now_ + 1000;
        core_.on_tick(now_);
    }
    if (pumps_ && !paused_.empty()) resume_paused();
    // Mails leave before answers do: a client that was told SUBACK or PUBACK may speak to another worker at once.
    push_outboxes();
    end_turn();
    push_outboxes();   // a connection that failed while it was flushed may have published its will
    reap();
    busy_since_.store(0, std::memory_order_relaxed);
}

// --- another number of workers ---

void Worker::quiet_turn() {
    pumps_ = false;
    turn({});
    pumps_ = true;
}

bool Worker::is_quiet() const noexcept {
    return core_.is_quiet() && gated_.empty() && !has_tasks_.load() && std::ranges::all_of(outboxes_, [](const auto& outbox) { return outbox.empty(); }) &&
           std::ranges::all_of(inboxes_, [](const auto& inbox) { return inbox->looks_empty(); });
}

void Worker::hand_over(const std::vector<std::unique_ptr<Worker>>& heirs) {
    std::vector<Core*> cores;
    for (const auto& heir : heirs) cores.push_back(&heir->core_);
    core_.hand_over(cores, now_);
    const auto count = static_cast<std::uint32_t>(heirs.size());
    for (auto* connection : connections_) {
        poller_.remove(connection->fd);
        const auto home = connection->session != nullptr ? Core::home_of(connection->session->client_id(), count) : connection->slot % count;
        heirs[home]->inherit(*connection, *this);
    }
    connections_.clear();
    dirty_.clear();
    paused_.clear();
    lingering_.clear();
    lingers_.clear();
    closing_.clear();
    for (const auto& port : ports_)
        for (const int fd : port.socket->fds) poller_.remove(fd);
    ports_.clear();
}

void Worker::inherit(Connection& connection, Worker& from) {
    now_ = from.now_;
    from.uncount(connection);
    if (connection.tls != nullptr && connection.tls->handshake != 0) {
        from.end_handshake(connection);
        connection.tls->handshake = next_handshake_++;
        handshakes_.emplace(connection.tls->handshake, &connection);
    }
    connection.slot = static_cast<std::uint32_t>(connections_.size());
    connections_.push_back(&connection);
    core_.inherit(connection, from.core_);
    // All is on the disk that any of its output promises.
    connection.gates.reset();
    connection.is_gated = connection.is_dirty = false;
    if (connection.is_paused) {
        paused_.push_back(&connection);
        has_held_newcomers_ |= connection.state != ConnectionState::connected;
    }
    if (const auto lingers = from.lingers_.find(&connection); lingers != from.lingers_.end()) {
        const auto& entry = *lingers->second;
        lingers_[&connection] = lingering_.insert(std::ranges::upper_bound(lingering_, entry.deadline, {}, &Lingering::deadline), entry);
    }
    poller_.add(connection.fd, tag_of(connection), is_read(connection), connection.wants_write);
    if (connection.has_pending() && !connection.wants_write) make_dirty(connection);
    if (connection.state != ConnectionState::closing) count_incomplete(connection);
}

void Worker::begin_persistence(store::Durable& durable) {
    core_.begin_persistence(durable.engine(id_, [this] { poller_.wake(); }, overflow_), now_);
    any_sent_ = any_processed_ = true;   // the first commit tells what went between the workers before
}

void Worker::stop() noexcept {
    stopping_.store(true, std::memory_order_relaxed);
    poller_.wake();
}

void Worker::post_task(std::function<void(Worker&)> task) {
    {
        const std::lock_guard lock(tasks_guard_);
        tasks_.push_back(std::move(task));
    }
    has_tasks_.store(true, std::memory_order_seq_cst);
    poller_.wake();
}

void Worker::run_tasks() {
    std::vector<std::function<void(Worker&)>> tasks;
    {
        const std::lock_guard lock(tasks_guard_);
        tasks.swap(tasks_);
        has_tasks_.store(false, std::memory_order_relaxed);
    }
    for (auto& task : tasks) task(*this);
}

// --- listeners and connections ---

void Worker::add_listener(const std::shared_ptr<ListenerSocket>& listener) {
    ports_.push_back({listener, listener->config});
    core_.on_port_added(listener->config, now_);
    for (const int fd : listener->fds) poller_.add(fd, tag_of(*listener), true, false, true);
}

void Worker::update_listener(const ListenerSocket& listener, const std::shared_ptr<const ListenerConfig>& config) {
    const auto port = std::ranges::find(ports_, &listener, [](const Port& p) { return p.socket.get(); });
    if (port == ports_.end()) return;
    const auto before = std::exchange(port->config, config);
    const auto affected = connections_;
    for (auto* connection : affected)
        if (connection->listener == before && connection->state != ConnectionState::closing) core_.on_rules(*connection, config, now_);
    core_.on_port_rules(before, config, now_);
}

void Worker::remove_listener(const std::shared_ptr<ListenerSocket>& listener, bool keep_connections) {
    for (const int fd : listener->fds) poller_.remove(fd);
    const auto port = std::ranges::find(ports_, listener, &Port::socket);
    if (port == ports_.end()) return;
    const auto config = port->config;
    ports_.erase(port);
    if (keep_connections) return;
    auto affected = connections_;
    for (auto* connection : affected)
        if (connection->listener == config && connection->state != ConnectionState::closing)
            core_.disconnect(*connection, mqtt::Refusal::listener_is_removed, now_);
    core_.on_port_removed(config);
}

void Worker::shut_down() {
    for (const auto& port : ports_)
        for (const int fd : port.socket->fds) poller_.remove(fd);
    ports_.clear();
    auto all = connections_;
    for (auto* connection : all)
        if (connection->state != ConnectionState::closing)
            core_.disconnect(*connection, mqtt::Refusal::server_shuts_down, now_);
    shut_until_ = now_ + shut_ms;
    // The end of this turn flushes and frees them; events of this turn may still point to them.
}

void Worker::accept_from(const Port& port) {
    const auto config = port.config;
    const auto socket = port.socket;
    for (const int listening : socket->fds) {
        for (int i = 0; i < 64; ++i) {
            int fd = -1;
            io::PeerAddress from;
            const auto result = io::accept_tcp(listening, fd, &from);
            if (result == io::Accepted::none) break;
            if (result == io::Accepted::no_descriptors) {
                static log::RateLimit limit(1);
                std::uint64_t suppressed = 0;
                if (limit.allow(now_, suppressed))
                    log::warn("broker", "no file descriptors left, connections are refused listener={} open={}", config->resource, connections_.size());
                if (!lingering_.empty()) lose(*lingering_.front().connection);
                // Give up the spare one, take the caller off the queue with it and hang up; otherwise it would wait for ever.
                io::close_now(spare_fd_);
                if (io::accept_tcp(listening, fd) == io::Accepted::ok) io::close_now(fd);
                spare_fd_ = io::open_spare();
                break;
            }
            auto connection = std::make_unique<Connection>();
            connection->fd = fd;
            connection->peer = from;
            connection->listener = config;
            if (config->protocol == Protocol::websockets) connection->websocket = std::make_unique<WebSocketState>();
            if (config->tls != nullptr) {
                connection->tls = std::make_unique<TlsState>(config->tls, next_handshake_++);
                handshakes_.emplace(connection->tls->handshake, connection.get());
            }
            adopt(std::move(connection));
            // Who holds a place without shaking hands gives it to those who do.
            if (handshakes_.size() > handshakes_max) {
                auto& oldest = *handshakes_.begin()->second;
                end_handshake(oldest);
                ++core_.counters().tls_failures;
                lose(oldest);
            }
        }
    }
}

bool Worker::adopt(std::unique_ptr<Connection> owned) {
    // It may have travelled while its port got new rules, or went.
    const auto port = std::ranges::find_if(ports_, [&](const Port& p) { return p.config == owned->listener; });
    if (port == ports_.end()) {
        const auto same = std::ranges::find_if(ports_, [&](const Port& p) { return p.config->binds_like(*owned->listener) && p.config->resource == owned->listener->resource; });
        if (same == ports_.end()) {
            io::close_now(owned->fd);
            return false;
        }
        owned->listener = same->config;
    }
    auto& connection = *owned.release();
    connection.slot = static_cast<std::uint32_t>(connections_.size());
    connections_.push_back(&connection);
    poller_.add(connection.fd, tag_of(connection), true, false);
    core_.on_accepted(connection, now_);
    if (connection.has_pending()) make_dirty(connection);
    if (connection.in != nullptr) {
        const auto bytes = std::move(connection.in);
        feed_mqtt(connection, *bytes);
    }
    return true;
}

std::unique_ptr<Connection> Worker::detach(Connection& connection) {
    poller_.remove(connection.fd);
    connections_[connection.slot] = connections_.back();
    connections_[connection.slot]->slot = connection.slot;
    connections_.pop_back();
    if (connection.is_dirty) std::erase(dirty_, &connection);
    uncount(connection);
    connection.is_dirty = connection.wants_write = false;
    end_handshake(connection);
    if (connection.websocket == nullptr || connection.websocket->out.empty()) release_buffer(connection);
    return std::unique_ptr<Connection>(&connection);
}

std::string Worker::peer(const Connection& connection) { return io::peer_name(connection.peer); }

std::string Worker::network(const Connection& connection) { return io::peer_network(connection.peer); }

void Worker::hold(Connection& connection) {
    connection.is_held = true;
    connection.is_watched = true;
    update_interest(connection);
}

void Worker::look_for_end(Connection& connection) {
    const auto unread = io::peek(connection.fd, scratch_.get(), 64);
    if (unread == -1) return;
    // A farewell of TLS says what the end of TCP says: an alert (RFC 8446 6.1), which looks like two bytes of data in version 1.3.
    const bool is_farewell = connection.tls != nullptr && unread >= 5 && static_cast<std::size_t>(unread) == 5u + static_cast<unsigned char>(scratch_[4]) &&
                             scratch_[3] == 0 && (scratch_[0] == 21 || (scratch_[0] == 23 && scratch_[4] == 19));
    if (unread == -2 || (connection.in == nullptr && (unread == 0 || is_farewell))) return lose(connection);
    // Its last packets came before the end: they have their turn after the verdict, and its end behind them.
    connection.is_watched = false;
    update_interest(connection);
}

void Worker::release(Connection& connection) {
    if (!std::exchange(connection.is_held, false) || connection.state == ConnectionState::closing) return;
    update_interest(connection);
    if (connection.in != nullptr) {
        const auto bytes = std::move(connection.in);
        feed_mqtt(connection, *bytes);
    }
}

auth::Done Worker::completion(std::uint64_t ticket) {
    return [address = address_, ticket](auth::Verdict verdict) {
        const std::lock_guard lock(address->guard);
        if (address->worker == nullptr) return;   // its client did not wait either
        address->worker->post_task([ticket, verdict = std::move(verdict)](Worker& worker) { worker.core_.on_verdict(ticket, verdict, worker.now_); });
    };
}

void Worker::pause(Connection& connection) {
    if (connection.is_paused) return;
    connection.is_paused = true;
    paused_.push_back(&connection);
    update_interest(connection);
}

void Worker::resume_paused() {
    const bool full = core_.under_pressure() || core_.is_failing();
    // Who has read what was there for him goes on; among them may be who makes room.
    if (full && !has_held_newcomers_ && now_ < next_paused_look_) return;
    next_paused_look_ = now_ + paused_look_ms;
    auto paused = std::move(paused_);
    paused_.clear();
    has_held_newcomers_ = false;
    for (auto* connection : paused) {
        const bool closing = connection->state == ConnectionState::closing;
        // Newcomers do not wait for memory: among them may be who makes room.
        const bool is_newcomer = !closing && connection->state != ConnectionState::connected;
        const bool waits = is_newcomer ? holds_newcomers_ : !closing && (connection->is_stuffed ? core_.is_stuffed(*connection) : full);
        if (waits) {
            has_held_newcomers_ |= is_newcomer;
            paused_.push_back(connection);
            continue;
        }
        connection->is_paused = connection->is_stuffed = false;
        if (closing || connection->is_held) continue;
        update_interest(*connection);
        if (connection->in != nullptr) {
            const auto bytes = std::move(connection->in);
            feed_mqtt(*connection, *bytes);
        }
    }
}

void Worker::update_interest(Connection& connection) {
    const bool is_watched = connection.is_held && connection.is_watched && connection.state != ConnectionState::closing;
    poller_.change(connection.fd, tag_of(connection), is_read(connection), connection.wants_write, is_watched);
}

// --- reading ---

bool Worker::read_large(Connection& connection) {
    if (connection.in == nullptr || connection.websocket != nullptr || connection.tls != nullptr) return false;
    auto& in = *connection.in;
    mqtt::Frame frame;
    if (mqtt::cut_frame(in, core_.packet_max(connection), frame) != mqtt::FrameState::need_more || frame.size < in.size() + large_min) return false;
    // A peer gets memory for what it sends, not for what it announces: at most one step ahead.
    const auto old = in.size(), missing = frame.size - old, wanted = std::min(missing, large_step);
    in.resize_and_overwrite(old + wanted, [](char*, std::size_t size) { return size; });
    const auto got = io::read_two(connection.fd, in.data() + old, wanted, scratch_.get(), wanted == missing ? scratch_size : 0);
    in.resize(old + std::min(wanted, static_cast<std::size_t>(std::max(got, 0L))));
    if (got < 0) return lose(connection), true;
    // The core sees the packet when it is whole; its client is not silent until then.
    if (got > 0) connection.last_received = static_cast<std::uint32_t>(now_ / 1000);
    if (in.size() < frame.size) return count_incomplete(connection), true;
    const auto whole = std::move(connection.in);
    const auto behind = static_cast<std::size_t>(got) - missing;
    const auto used = core_.on_data(connection, *whole, now_);
    if (used == Core::gone) return true;
    if (used < whole->size()) {
        // Paused: the packet waits as a whole, with what came behind it.
        connection.in = std::make_unique<std::string>(whole->substr(used) + std::string(scratch_.get(), behind));
        return count_incomplete(connection), true;
    }
    feed_mqtt(connection, {scratch_.get(), behind});
    return true;
}

void Worker::read_from(Connection& connection) {
    if (holds_newcomers_ && connection.state != ConnectionState::connected) {
        has_held_newcomers_ = true;
        return pause(connection);
    }
    if (connection.tls != nullptr) return read_tls(connection);
    if (read_large(connection)) return;
    // What is left of an incomplete packet goes in front, so that the core sees one piece.
    std::size_t kept = 0;
    if (connection.websocket == nullptr && connection.in != nullptr && connection.in->size() < scratch_size / 2) {
        kept = connection.in->size();
        std::memcpy(scratch_.get(), connection.in->data(), kept);
        connection.in.reset();
    }
    const auto got = io::read_some(connection.fd, scratch_.get() + kept, scratch_size - kept);
    if (got < 0) return lose(connection);
    if (got == 0 && kept == 0) return;
    take_bytes(connection, {scratch_.get(), kept + static_cast<std::size_t>(got)});
}

bool Worker::take_bytes(Connection& connection, std::string_view bytes) {
    if (connection.websocket != nullptr) return feed(connection, bytes);
    if (connection.in == nullptr) return feed_mqtt(connection, bytes);
    connection.in->append(bytes);
    const auto whole = std::move(connection.in);
    const auto used = core_.on_data(connection, *whole, now_);
    if (used == Core::gone) return false;
    if (used < whole->size()) {
        whole->erase(0, used);
        connection.in = std::make_unique<std::string>(std::move(*whole));
    }
    return count_incomplete(connection);
}

void Worker::read_tls(Connection& connection) {
    auto& channel = connection.tls->channel;
    const bool shaking = !channel.is_open();
    // Public-key work is rationed: connected clients have their turn whatever the number of those who knock. The socket stays
    // readable, so the next turn comes back to it.
    if (shaking && handshake_ns_ > handshake_ns_max) return;
    const auto got = io::read_some(connection.fd, scratch_.get(), scratch_size);
    if (got < 0) {
        if (shaking) ++core_.counters().tls_failures;
        return lose(connection);
    }
    if (got == 0) return;
    // Nor is one silent whose record is on its way.
    if (!shaking && connection.websocket == nullptr)
        connection.last_received = static_cast<std::uint32_t>(now_ / 1000);
    std::size_t size = 0;
    if (connection.websocket == nullptr && connection.in != nullptr && connection.in->size() < scratch_size / 2) {
        size = connection.in->size();
        std::memcpy(plain_.get(), connection.in->data(), size);
        connection.in.reset();
    }
    const auto kept = size;
    const auto began = shaking ? monotonic_ns() : 0;
    channel.set_input({scratch_.get(), static_cast<std::size_t>(got)});
    long step = 0;
    while ((step = channel.read(plain_.get() + size, 2 * scratch_size - size)) > 0) size += static_cast<std::size_t>(step);
    if (shaking) {
        handshake_ns_ += monotonic_ns() - began;
        if (channel.is_open()) {
            end_handshake(connection);
            ++core_.counters().tls_handshakes;
            if (channel.is_resumed()) ++core_.counters().tls_resumed;
            if (const auto name = channel.server_name(); !name.empty() && !channel.context().chain().front().covers(name)) core_.note_uncovered(connection, name);
            log::debug("tls", "handshake done peer={} listener={} version={} cipher={} resumed={} name=\"{}\"", peer(connection), connection.listener->resource, channel.version(), channel.cipher(), channel.is_resumed(), channel.server_name());
        }
    }
    if (channel.output().size() > cipher_max) {
        core_.note_refusal(connection, "TLS", "it asks for answers without reading them");
        return lose(connection);
    }
    if (!channel.output().empty() && !connection.is_dirty) make_dirty(connection);
    if (size > kept || kept > 0) {
        if (!take_bytes(connection, {plain_.get(), size})) return;
    }
    if (step == 0 || connection.state == ConnectionState::closing) return;
    if (!channel.fault().empty()) {
        ++core_.counters().tls_failures;
        static log::RateLimit limit(5);
        std::uint64_t suppressed = 0;
        auto why = tls::explained(channel.fault(), {scratch_.get(), static_cast<std::size_t>(got)});
        if (limit.allow(now_, suppressed))
            log::info("tls", "TLS failed peer={} listener={} why=\"{}\"{}", peer(connection),
                      connection.listener->resource, why,
                      suppressed > 0 ? fmt::format(" suppressed={}", suppressed) : "");
        core_.note_refusal(connection, "TLS", std::move(why));
    }
    // An alert may have to leave first.
    core_.on_lost(connection, now_);
    if (connection.out != nullptr) connection.out->clear();
    close(connection);
}

void Worker::end_handshake(Connection& connection) {
    if (connection.tls == nullptr || connection.tls->handshake == 0) return;
    handshakes_.erase(std::exchange(connection.tls->handshake, 0));
}

bool Worker::feed_mqtt(Connection& connection, std::string_view bytes) {
    const auto used = core_.on_data(connection, bytes, now_);
    if (used == Core::gone) return false;
    if (used < bytes.size()) connection.in = std::make_unique<std::string>(bytes.substr(used));
    return count_incomplete(connection);
}

void Worker::uncount(Connection& connection) {
    const auto size = std::exchange(connection.in_counted, 0u);
    if (size == 0) return;
    if (!connection.is_stranger) return mqtt::MessageBytes::mine().add(-static_cast<std::int64_t>(size));
    strangers_bytes_ -= size;
    strangers_.erase({size, &connection});
}

bool Worker::count_incomplete(Connection& connection) {
    // Small remainders are not worth the arithmetic; they are bounded by the number of connections.
    constexpr std::size_t counted_min = 4096;
    const auto held = (connection.in != nullptr ? connection.in->capacity() : 0) + (connection.websocket != nullptr ? connection.websocket->raw.capacity() : 0);
    const auto size = held >= counted_min ? static_cast<std::uint32_t>(held) : 0u;
    const bool is_stranger = connection.state != ConnectionState::connected;
    if (size == connection.in_counted && (size == 0 || is_stranger == connection.is_stranger)) return true;
    const bool grew = size > connection.in_counted;
    uncount(connection);
    connection.in_counted = size;
    connection.is_stranger = is_stranger;
    if (is_stranger) {
        // Strangers have a part of their own, so that they cannot fill the pool; the one that holds most makes room.
        strangers_bytes_ += size;
        if (size > 0) strangers_.emplace(size, &connection);
        while (strangers_bytes_ > static_cast<std::size_t>(std::max<std::int64_t>(strangers_min, core_.config().pool_bytes / 32))) {
            auto& most = *strangers_.rbegin()->second;
            uncount(most);
            core_.disconnect(most, mqtt::Refusal::too_much_is_under_way, now_);
            if (&most == &connection) return false;
        }
        return true;
    }
    mqtt::MessageBytes::mine().add(static_cast<std::int64_t>(size));
    if (!grew || connection.is_paused || shared_.pool_used() <= core_.config().pool_bytes) return true;
    core_.disconnect(connection, mqtt::Refusal::pool_is_full, now_);
    return false;
}

bool Worker::feed(Connection& connection, std::string_view bytes) {
    auto& ws = *connection.websocket;
    std::string payload;
    if (connection.in != nullptr) payload = std::move(*connection.in), connection.in.reset();
    // One frame may carry several packets; a packet over the bound is then refused as MQTT wants it.
    const bool open = websocket_receive(ws, bytes, std::size_t{core_.packet_max(connection)} + 65'536, connection.listener->origins, payload);
    if (!ws.out.empty() && !connection.is_dirty) make_dirty(connection);
    // Nor is one silent whose frame is on its way; one of control (RFC 6455 §5.5) is no MQTT.
    constexpr unsigned control = 8;
    if (ws.is_open && !ws.raw.empty() && (static_cast<unsigned char>(ws.raw[0]) & control) == 0)
        connection.last_received = static_cast<std::uint32_t>(now_ / 1000);
    if (!payload.empty()) {
        const auto used = core_.on_data(connection, payload, now_);
        if (used == Core::gone) return false;
        if (used < payload.size()) connection.in = std::make_unique<std::string>(used == 0 ? std::move(payload) : payload.substr(used));
    }
    if (!count_incomplete(connection)) return false;
    if (open) return true;
    if (!ws.fault.empty()) {
        static log::RateLimit limit(1);
        std::uint64_t suppressed = 0;
        if (limit.allow(now_, suppressed))
            log::info("broker", "WebSocket ended peer={} listener={} why=\"{}\"{}", peer(connection), connection.listener->resource, ws.fault, suppressed > 0 ? fmt::format(" suppressed={}", suppressed) : "");
        core_.note_refusal(connection, "WebSocket", ws.fault);
    }
    core_.on_lost(connection, now_);
    close(connection);
    return false;
}

void Worker::lose(Connection& connection) {
    if (connection.state != ConnectionState::closing) core_.on_lost(connection, now_);
    if (connection.out != nullptr) connection.out->clear();
    if (connection.websocket != nullptr) {
        connection.websocket->out.clear();
        connection.websocket->wants_pong = false;
    }
    if (connection.tls != nullptr) connection.tls->channel.output().clear();
    connection.is_ended = true;
    assert(!connection.has_pending());   // a kind of output that is not thrown away here would keep the connection for ever
    if (std::ranges::find(closing_, &connection) == closing_.end()) closing_.push_back(&connection);
}

// --- mail ---

void Worker::post(std::uint32_t worker, Mail mail) {
    auto& outbox = outboxes_[worker];
    if (outbox.size() >= outbox_max && mail.kind == Mail::Kind::publish && mail.message->view().qos == mqtt::Qos::at_most_once) {
        ++core_.counters().mailbox_full;   // the other worker is far behind; QoS 0 is what may be lost
        return;
    }
    if (mail.body != nullptr) mail.body->count();
    ++sent_[worker];
    any_sent_ = true;
    outbox.push_back(std::move(mail));
}

bool Worker::push_outboxes() {
    bool all = true;
    for (std::size_t to = 0; to < outboxes_.size(); ++to) {
        auto& outbox = outboxes_[to];
        if (outbox.empty()) continue;
        auto& ring = *peers_[to]->inboxes_[id_];
        std::size_t done = 0;
        while (done < outbox.size() && ring.try_push(outbox[done])) ++done;
        outbox.erase(outbox.begin(), outbox.begin() + static_cast<std::ptrdiff_t>(done));
        if (outbox.empty() && outbox.capacity() > mailbox_size) CountedVector<Mail>().swap(outbox);
        all &= outbox.empty();
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (done > 0 && peers_[to]->sleeping_.load(std::memory_order_seq_cst)) peers_[to]->poller_.wake();
    }
    return all;
}

bool Worker::drain_mailboxes() {
    bool any = false;
    Mail mail;
    for (std::size_t from = 0; from < inboxes_.size(); ++from) {
        auto& inbox = inboxes_[from];
        for (std::size_t i = 0; i < mailbox_size && inbox->try_pop(mail); ++i) {
            any = any_processed_ = true;
            ++processed_[from];
            if (mail.kind == Mail::Kind::connection) adopt(std::move(mail.body->connection));
            else core_.on_mail(mail, now_);
            mail.body.reset();
            mail.message = {};
        }
    }
    return any;
}

}  // namespace penstock::broker
