// Worker's output: what each connection has goes out, over TLS and WebSocket, and closed connections go.
#include <algorithm>
#include <array>
#include <utility>

#include "broker/worker.h"
#include "io/socket.h"

namespace penstock::broker {
namespace {

constexpr std::int64_t linger_ms = 5000;
constexpr std::int64_t peers_end_ms = 200;                 // of shut_ms, whatever they are doing
constexpr std::size_t lingering_max = 1000;
constexpr std::size_t unread_max = 16u << 20;              // of a client: what the kernels of both sides hold for it
constexpr std::size_t unread_max_of_strangers = 8u << 20;  // of one that was never accepted: what a kernel receives unasked (tcp(7): tcp_rmem, 6 MiB)
constexpr std::size_t buffers_kept = 256;
constexpr std::int64_t spare_bytes_min = 256 << 10, spare_bytes_max = 4 << 20;   // of the buffers kept, by the size of the pool
constexpr int pump_rounds = 16;

}  // namespace

void Worker::make_dirty(Connection& connection) {
    connection.is_dirty = true;
    if (connection.out == nullptr) {
        if (buffers_.empty()) {
            connection.out = new session::OutBuffer;
        } else {
            connection.out = buffers_.back().release();
            buffers_.pop_back();
            spare_bytes_ -= connection.out->capacity();
        }
    }
    dirty_.push_back(&connection);
}

void Worker::release_buffer(Connection& connection) {
    std::unique_ptr<session::OutBuffer> buffer(std::exchange(connection.out, nullptr));
    if (buffer == nullptr) return;
    buffer->clear();
    // What it waited for may be durable before the worker has taken it off its list.
    if (connection.gates != nullptr && connection.gates->marks.empty() && connection.gates->listed == 0) connection.gates.reset();
    // What an overload took is given back; what is in use all the time goes round.
    const auto kept = static_cast<std::size_t>(std::clamp(core_.config().pool_bytes / 64, spare_bytes_min, spare_bytes_max));
    if (buffers_.size() >= buffers_kept || spare_bytes_ + buffer->capacity() > kept) return;
    spare_bytes_ += buffer->capacity();
    buffers_.push_back(std::move(buffer));
}

bool Worker::write_tls(Connection& connection) {
    constexpr std::size_t step_max = 64 * 1024;
    auto& channel = connection.tls->channel;
    auto& cipher = channel.output();
    auto& out = *connection.out;
    blocked_ = false;
    if (cipher.empty() && cipher.capacity() < cipher_spare_.capacity()) cipher.swap(cipher_spare_);
    while (true) {
        while (!cipher.empty()) {
            const std::string_view piece(cipher);
            const auto sent = io::write_some(connection.fd, &piece, 1);
            if (sent < 0) return false;
            core_.counters().bytes_sent += static_cast<std::uint64_t>(sent);
            if (static_cast<std::size_t>(sent) < cipher.size()) {
                cipher.erase(0, static_cast<std::size_t>(sent));
                blocked_ = true;
                return true;
            }
            cipher.clear();
        }
        // Plaintext becomes ciphertext only when all before it has left: what waits stays in the bounded buffers.
        if (!channel.is_open()) {
            out.clear();
            break;
        }
        bool good = true;
        std::size_t taken = 0;
        if (auto* ws = connection.websocket.get()) {
            frame_output(connection);
            const auto piece = std::string_view(ws->out).substr(ws->out_sent, step_max);
            good = channel.write(piece);
            ws->out_sent += piece.size();
            taken = piece.size();
            if (ws->out_sent == ws->out.size()) {
                ws->out.clear();
                if (ws->out.capacity() > 4096) ws->out.shrink_to_fit();
                ws->out_sent = 0;
            }
        } else {
            const auto limit = std::min(step_max, sendable(connection));
            out.pieces([&](std::string_view piece) {
                piece = piece.substr(0, limit - taken);
                good = piece.empty() || channel.write(piece);
                taken += piece.size();
                return good && taken < limit;
            });
            out.consume(taken);
            note_sent(connection, taken);
        }
        if (!good) return false;
        if (taken > 0) continue;
        if (connection.state == ConnectionState::closing && out.empty()) channel.close();
        if (cipher.empty()) break;
    }
    if (cipher.capacity() > cipher_spare_.capacity()) cipher.swap(cipher_spare_);
    if (cipher.capacity() > 64) std::string().swap(cipher);
    return true;
}

bool Worker::write_out(Connection& connection) {
    const bool good = connection.tls != nullptr ? write_tls(connection) : write_plain(connection);
    // What left the out buffer and waits for the socket in another form counts as well.
    if (connection.tls != nullptr) connection.tls->out_counted.set(connection.tls->channel.output().capacity());
    if (connection.websocket != nullptr) connection.websocket->out_counted.set(connection.websocket->out.capacity());
    return good;
}

bool Worker::write_plain(Connection& connection) {
    auto& out = *connection.out;
    blocked_ = false;
    if (auto* ws = connection.websocket.get()) {
        for (frame_output(connection); !ws->out.empty(); frame_output(connection)) {
            while (ws->out_sent < ws->out.size()) {
                const std::string_view piece = std::string_view(ws->out).substr(ws->out_sent);
                const auto sent = io::write_some(connection.fd, &piece, 1);
                if (sent < 0) return false;
                if (sent == 0) return blocked_ = true;
                core_.counters().bytes_sent += static_cast<std::uint64_t>(sent);
                ws->out_sent += static_cast<std::size_t>(sent);
            }
            ws->out.clear();
            if (ws->out.capacity() > 4096) ws->out.shrink_to_fit();
            ws->out_sent = 0;
        }
        return true;
    }
    while (const auto limit = sendable(connection)) {
        std::array<std::string_view, 64> pieces;
        std::size_t count = 0, wanted = 0;
        out.pieces([&](std::string_view piece) {
            piece = piece.substr(0, limit - wanted);
            pieces[count++] = piece;
            wanted += piece.size();
            return count < pieces.size() && wanted < limit;
        });
        const auto sent = io::write_some(connection.fd, pieces.data(), count);
        if (sent < 0) return false;
        core_.counters().bytes_sent += static_cast<std::uint64_t>(sent);
        out.consume(static_cast<std::size_t>(sent));
        note_sent(connection, static_cast<std::size_t>(sent));
        if (static_cast<std::size_t>(sent) < wanted) return blocked_ = true;
    }
    return true;
}

void Worker::frame_output(Connection& connection) {
    auto& out = *connection.out;
    auto& ws = *connection.websocket;
    // Framed is only what can leave now: what waits for a slow reader stays in the bounded buffer.
    constexpr std::size_t frame_max = 64 * 1024;
    if (!ws.is_open || !ws.out.empty()) return;
    if (ws.is_closing) return out.clear();   // nothing follows the close frame (RFC 6455 §5.5.1)
    websocket_pong(ws);
    // A frame may end within a packet; the peer reads a stream (MQTT 5.0 §6).
    const auto size = std::min(sendable(connection), frame_max);
    if (size == 0) return;
    websocket_frame_header(ws.out, size);
    std::size_t taken = 0;
    out.pieces([&](std::string_view piece) {
        piece = piece.substr(0, size - taken);
        ws.out += piece;
        taken += piece.size();
        return taken < size;
    });
    out.consume(size);
    note_sent(connection, size);
}

void Worker::flush(Connection& connection) {
    for (int round = 0;; ++round) {
        if (!write_out(connection)) return lose(connection);
        if (connection.has_pending()) {
            // What only waits for a commit is looked at again when that is done.
            if (blocked_ && !connection.wants_write) {
                connection.wants_write = true;
                update_interest(connection);
            }
            if (blocked_) return;
            break;
        }
        // The buffer is empty: fill it from the session's queue, a bounded number of times, so that one fast reader with
        // a long queue does not hold up the others.
        if (!pumps_ || connection.session == nullptr || (!connection.session->has_waiting() && !core_.has_retrievals(connection))) break;
        if (round == pump_rounds) {
            make_dirty(connection);
            break;
        }
        const bool was_dirty = connection.is_dirty;
        connection.is_dirty = true;
        core_.on_room(connection, now_);
        connection.is_dirty = was_dirty;
        if (connection.out->empty()) break;
        if (connection.is_gated) {
            // Deliveries that began just now leave after the commit of the turn that begins now.
            if (!connection.is_dirty) make_dirty(connection);
            break;
        }
    }
    if (connection.wants_write) {
        connection.wants_write = false;
        update_interest(connection);
    }
    if (connection.state == ConnectionState::closing && !connection.has_pending()) closing_.push_back(&connection);
    if (!connection.is_dirty && connection.out != nullptr && connection.out->empty()) release_buffer(connection);
}

void Worker::end_turn() {
    if (!core_.is_durable()) return flush_dirty();
    const auto ticket = core_.commit({.sent = sent_, .processed = processed_, .any_sent = any_sent_, .any_processed = any_processed_});
    any_sent_ = any_processed_ = false;
    for (auto* connection : dirty_) {
        const bool gated = std::exchange(connection->is_gated, false) && ticket != 0;
        if (connection->gates == nullptr) {
            if (!gated) continue;
            connection->gates = std::make_unique<Gates>();
        }
        auto& gates = *connection->gates;
        if (gated) {
            gates.marks.emplace_back(ticket, gates.turn_end);
            gated_.emplace_back(ticket, connection);
            ++gates.listed;
        }
        gates.turn_end = gates.consumed + connection->out->pending();
    }
    // Those whose tickets are durable now are looked at with the others.
    for (const auto durable = core_.durable(); !gated_.empty() && gated_.front().first <= durable; gated_.pop_front()) {
        auto* connection = gated_.front().second;
        --connection->gates->listed;
        if (!connection->is_dirty) make_dirty(*connection);
    }
    flush_dirty();
}

std::size_t Worker::sendable(Connection& connection) {
    const auto pending = connection.out->pending();
    return connection.gates == nullptr ? pending : std::min(pending, connection.gates->allowed(core_.durable()));
}

void Worker::flush_dirty() {
    flushing_.swap(dirty_);
    for (auto* connection : flushing_) connection->is_dirty = false;
    for (auto* connection : flushing_)
        if (!connection->wants_write) flush(*connection);
    flushing_.clear();
}

void Worker::on_writable(Connection& connection) {
    connection.wants_write = false;
    if (connection.out == nullptr) make_dirty(connection);
    connection.wants_write = true;
    if (!write_out(connection)) return lose(connection);
    if (connection.is_stuffed) connection.last_received = static_cast<std::uint32_t>(now_ / 1000);   // it reads: it is there
    if (blocked_) return;
    connection.wants_write = false;
    update_interest(connection);
    if (connection.has_pending()) return;
    if (connection.state == ConnectionState::closing) {
        closing_.push_back(&connection);
        return;
    }
    if (!connection.is_dirty) make_dirty(connection);
    core_.on_room(connection, now_);
}

void Worker::close(Connection& connection) {
    connection.state = ConnectionState::closing;
    // close_notify leaves with the flush at the end of the turn.
    if (connection.tls != nullptr && connection.tls->channel.is_open() && !connection.is_dirty) make_dirty(connection);
    if (connection.is_paused || connection.is_held) update_interest(connection);
    closing_.push_back(&connection);
}

void Worker::drain(Connection& connection) {
    const auto got = io::read_some(connection.fd, scratch_.get(), scratch_size);
    if (got == 0) return;
    if (got > 0) {
        const auto found = lingers_.find(&connection);
        if (found == lingers_.end()) return;
        auto& left = found->second->unread_left;
        left -= std::min(left, static_cast<std::size_t>(got));
        if (left == 0) lose(connection);
        return;
    }
    // A peer that has nothing more to say may still read.
    if (connection.is_shut || connection.is_ended || connection.wants_write) return lose(connection);
    connection.is_ended = true;
    update_interest(connection);
}

void Worker::linger(Connection& connection) {
    if (lingers_.contains(&connection)) return;
    lingers_[&connection] = lingering_.insert(lingering_.end(), {.connection = &connection, .deadline = now_ + linger_ms, .unread_left = connection.was_accepted ? unread_max : unread_max_of_strangers});
    if (lingering_.size() > lingering_max) lose(*lingering_.front().connection);
}

void Worker::strip(Connection& connection) {
    if (connection.is_dirty) std::erase(dirty_, &connection);
    if (connection.gates != nullptr && connection.gates->listed != 0) std::erase_if(gated_, [&](const auto& entry) { return entry.second == &connection; });
    if (connection.is_paused) std::erase(paused_, &connection);
    end_handshake(connection);
    uncount(connection);
    connection.is_dirty = connection.is_paused = connection.is_held = false;
    release_buffer(connection);
    connection.gates.reset();
    connection.in.reset();
    connection.websocket.reset();
    connection.tls.reset();
    connection.auth.reset();
    connection.waiting.reset();
    connection.security.reset();
}

void Worker::reap() {
    // Those that asked for one more flush this turn (a long queue) are flushed in the next one; wake at once for them.
    if (closing_.empty() && lingering_.empty()) return;
    std::ranges::sort(closing_);
    const auto twice = std::ranges::unique(closing_);
    closing_.erase(twice.begin(), twice.end());
    const auto ending = std::exchange(closing_, {});
    for (auto* connection : ending) {
        if (connection->has_pending()) {
            linger(*connection);
            continue;
        }
        if (!connection->is_shut) {
            strip(*connection);
            connection->is_shut = true;
            io::end_output(connection->fd);
        }
        // Most have ended by now. Of the others one with nothing unread could go at once, would it not send what it is writing.
        long got = 0;
        for (int i = 0; !connection->is_ended && i < 4 && (got = io::read_some(connection->fd, scratch_.get(), scratch_size)) > 0; ++i) {
        }
        if (!connection->is_ended && got >= 0) {
            linger(*connection);
            update_interest(*connection);
            continue;
        }
        if (const auto found = lingers_.find(connection); found != lingers_.end()) {
            lingering_.erase(found->second);
            lingers_.erase(found);
        }
        std::erase(closing_, connection);
        const int fd = connection->fd;
        poller_.remove(fd);
        connections_[connection->slot] = connections_.back();
        connections_[connection->slot]->slot = connection->slot;
        connections_.pop_back();
        delete connection;
        io::close_gracefully(fd);
    }
    for (const auto& one : lingering_) {
        if (one.deadline > now_) break;
        lose(*one.connection);
    }
}

bool Worker::lets_out() {
    if (shut_until_ == 0 || now_ >= shut_until_) return false;
    // One that is writing finds the end when it reads next; a reset would come before that.
    if (shut_until_ - now_ > shut_ms - peers_end_ms) return !connections_.empty();
    // Who has all that was sent to it, and says nothing more, keeps it when the socket goes.
    return std::ranges::any_of(connections_, [](const auto* connection) { return !connection->is_shut || io::has_unread(connection->fd); });
}

}  // namespace penstock::broker
