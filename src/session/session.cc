#include "session/session.h"

#include <algorithm>

namespace penstock::session {

using mqtt::Qos;

namespace {
constexpr std::size_t overflow_min = 64;   // messages that wait for a connected client in memory
}

namespace {
std::uint16_t id_after(std::uint16_t packet_id) noexcept {
    return packet_id == 65'535 ? std::uint16_t{1} : static_cast<std::uint16_t>(packet_id + 1);
}
}  // namespace

bool Session::window_open() const noexcept {
    return unacked_ < link_->receive_maximum && store_->span() < 65'535;
}

std::uint16_t Session::take_packet_id() noexcept { return last_packet_id_ = id_after(last_packet_id_); }

void Session::write(store::InFlight& entry, bool dup, std::int64_t now, DeliveryCounts& counts) {
    mqtt::Outgoing message(entry.item.message);
    const auto& ids = entry.item.subscription_ids;
    const auto sent = write_publish(*link_, message, entry.item.qos, entry.item.retain, dup, entry.packet_id, ids.data(), ids.size(), now);
    if (sent == Sent::too_large) {
        // "act as if it had completed sending that Application Message" [MQTT-3.1.2-25].
        ++counts.dropped_too_large;
        store_->finish(entry.packet_id);
        return;
    }
    entry.is_unacked = true;
    ++unacked_;
    ++counts.sent;
    counts.sent_bytes += message.view().payload.size();
}

void Session::finish(store::InFlight& entry) {
    if (entry.is_unacked) --unacked_;
    store_->finish(entry.packet_id);
}

void Session::attach(Link& link, const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts) {
    link_ = &link;
    ends_at = 0;
    // Neither is part of the session's state: "re-initialized with each new Network Connection" (§4.9).
    again_ = unacked_ = 0;
    if (store_ == nullptr) return;   // nothing waits
    store_->for_each_in_flight([&](store::InFlight& entry) {
        entry.is_unacked = false;
        if (entry.step == store::Step::wait_pubcomp) {
            std::string packet;
            mqtt::encode_ack(packet, mqtt::PacketType::pubrel, link.version, entry.packet_id,
                             mqtt::ReasonCode::success);
            link.out->append(packet);
        } else if (again_ == 0) {
            again_ = entry.packet_id;
        }
    });
    pump(limits, now, counts);
    if (store_->queued() == 0 && store_->span() == 0) store_.reset();
}

bool Session::resend(const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts) {
    // Nothing new begins meanwhile, so that the last identifier stays the end of it.
    while (again_ != 0) {
        auto* entry = store_->find(again_);
        if (entry != nullptr && entry->step != store::Step::wait_pubcomp) {
            if (link_->out->pending() >= limits.out_high_water) return false;
            // Version 3 has no Receive Maximum: what was in flight was taken once.
            if (link_->version == mqtt::Version::v5 && unacked_ >= link_->receive_maximum) return false;
            write(*entry, true, now, counts);
        }
        again_ = again_ == last_packet_id_ || store_->span() == 0 ? std::uint16_t{0} : id_after(again_);
    }
    return true;
}

void Session::detach() noexcept {
    link_ = nullptr;
    again_ = unacked_ = 0;
    if (store_) store_->drop_qos0();
}

void Session::deliver(mqtt::Outgoing& message, Qos qos, bool retain, const std::uint32_t* ids, std::size_t id_count,
                      store::Engine& engine, const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts, std::uint32_t share) {
    const bool room = link_ != nullptr && !has_waiting() && link_->out->pending() < limits.out_high_water;
    if (qos == Qos::at_most_once) {
        if (room) {
            if (write_publish(*link_, message, qos, retain, false, 0, ids, id_count, now) == Sent::too_large) {
                ++counts.dropped_too_large;
                return;
            }
            ++counts.sent;
            counts.sent_bytes += message.view().payload.size();
            return;
        }
        // A session without a connection keeps no QoS 0 messages; a slow reader keeps a bounded number.
        if (link_ == nullptr || (store_ && (store_->queued_qos0() >= limits.qos0_length || store_->queued_qos0_bytes() >= limits.qos0_bytes))) {
            ++counts.dropped_qos0;
            return;
        }
    }
    if (store_ == nullptr) store_ = engine.open_session(client_id_, keeps_queue);
    store::Queued item{.message = message.share(), .qos = qos, .retain = retain, .share = share, .subscription_ids = {}};
    if (id_count > 0) item.subscription_ids.assign(ids, ids + id_count);
    if (room && window_open()) {
        write(store_->start(std::move(item), take_packet_id()), false, now, counts);
        return;
    }
    if (qos != Qos::at_most_once && limits.drop_oldest) {
        const auto size = item.message->memory();
        // What has expired takes no place, though the sweep has not come yet.
        if (const auto end = store_->next_end(); end != 0 && end <= now && is_full(limits, size)) counts.expired += store_->drop_expired(now);
        while (is_full(limits, size)) {
            ++counts.dropped_queue_full;
            // Messages in flight cannot be taken back; when they alone fill the limit, the new one has no place.
            if (store_->queued() == 0) return;
            store_->drop_next();
        }
    }
    // Who keeps up does without the disk.
    store_->enqueue(std::move(item), limits.overflows && (link_ == nullptr || store_->queued() >= overflow_min), now);
    ++counts.queued;
}

bool Session::is_full(const QueueLimits& limits, std::size_t size) const {
    if (limits.length != 0 && store_->queued() - store_->queued_qos0() + store_->in_flight() >= limits.length) return true;
    return limits.bytes != 0 && store_->bytes() + size > limits.bytes && store_->bytes() > 0;
}

void Session::pump(const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts) {
    if (link_ == nullptr || store_ == nullptr || !resend(limits, now, counts)) return;
    while (auto* next = store_->next()) {
        if (link_->out->pending() >= limits.out_high_water) return;
        if (next->expires_at != 0 && next->expires_at <= now) {
            store_->drop_next();
            ++counts.expired;
            continue;
        }
        if (next->qos == Qos::at_most_once) {
            mqtt::Outgoing message(next->message);
            const auto sent = write_publish(*link_, message, next->qos, next->retain, false, 0, next->subscription_ids.data(),
                                            next->subscription_ids.size(), now);
            if (sent == Sent::too_large) ++counts.dropped_too_large;
            else ++counts.sent, counts.sent_bytes += message.view().payload.size();
            store_->drop_next();
            continue;
        }
        if (!window_open()) return;
        write(store_->start_next(take_packet_id()), false, now, counts);
    }
}

bool Session::on_puback(std::uint16_t packet_id) {
    auto* entry = store_ ? store_->find(packet_id) : nullptr;
    if (entry == nullptr) return true;
    if (entry->step != store::Step::wait_puback) return false;
    finish(*entry);
    return true;
}

bool Session::on_pubrec(std::uint16_t packet_id, mqtt::ReasonCode reason) {
    auto* entry = store_ ? store_->find(packet_id) : nullptr;
    std::string packet;
    if (entry == nullptr) {
        mqtt::encode_ack(packet, mqtt::PacketType::pubrel, link_->version, packet_id, mqtt::ReasonCode::packet_identifier_not_found);
    } else if (entry->step == store::Step::wait_puback) {
        return false;
    } else if (mqtt::is_error(reason)) {
        finish(*entry);
        return true;
    } else {
        store_->advance(*entry);
        mqtt::encode_ack(packet, mqtt::PacketType::pubrel, link_->version, packet_id, mqtt::ReasonCode::success);
    }
    link_->out->append(packet);
    return true;
}

bool Session::on_pubcomp(std::uint16_t packet_id) {
    auto* entry = store_ ? store_->find(packet_id) : nullptr;
    if (entry == nullptr) return true;
    if (entry->step != store::Step::wait_pubcomp) return false;
    finish(*entry);
    return true;
}

bool Session::begin_incoming(std::uint16_t packet_id) {
    if (incoming_ == nullptr) incoming_ = std::make_unique<PacketIds>();
    return incoming_->add(packet_id);
}

bool Session::end_incoming(std::uint16_t packet_id) { return incoming_ && incoming_->erase(packet_id); }

}  // namespace penstock::session
