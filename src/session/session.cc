#include "session/session.h"

#include <algorithm>

namespace penstock::session {

using mqtt::Qos;

namespace {
constexpr std::size_t overflow_min = 64;   // messages that wait for a connected client in memory
}

bool Session::window_open() const noexcept {
    return store_->in_flight() < link_->receive_maximum && store_->span() < 65'535;
}

std::uint16_t Session::take_packet_id() noexcept {
    last_packet_id_ = last_packet_id_ == 65'535 ? std::uint16_t{1} : static_cast<std::uint16_t>(last_packet_id_ + 1);
    return last_packet_id_;
}

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
    ++counts.sent;
    counts.sent_bytes += message.view().payload.size();
}

void Session::attach(Link& link, const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts) {
    link_ = &link;
    ends_at = 0;
    if (store_ == nullptr) return;   // nothing waits
    std::vector<std::uint16_t> again;
    store_->for_each_in_flight([&](store::InFlight& entry) { again.push_back(entry.packet_id); });
    for (const auto packet_id : again) {
        auto* entry = store_->find(packet_id);
        if (entry->step == store::Step::wait_pubcomp) {
            std::string packet;
            mqtt::encode_ack(packet, mqtt::PacketType::pubrel, link.version, packet_id, mqtt::ReasonCode::success);
            link.out->append(packet);
        } else {
            write(*entry, true, now, counts);
        }
    }
    pump(limits, now, counts);
    if (store_->queued() == 0 && store_->span() == 0) store_.reset();
}

void Session::detach() noexcept {
    link_ = nullptr;
    if (store_) store_->drop_qos0();
}

void Session::deliver(mqtt::Outgoing& message, Qos qos, bool retain, const std::uint32_t* ids, std::size_t id_count,
                      store::Engine& engine, const QueueLimits& limits, std::int64_t now, DeliveryCounts& counts, std::uint32_t share) {
    const bool backlog = store_ && store_->queued() > 0;
    const bool room = link_ != nullptr && !backlog && link_->out->pending() < limits.out_high_water;
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
    if (link_ == nullptr || store_ == nullptr) return;
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
    store_->finish(packet_id);
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
        store_->finish(packet_id);
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
    store_->finish(packet_id);
    return true;
}

bool Session::begin_incoming(std::uint16_t packet_id) {
    if (incoming_ == nullptr) incoming_ = std::make_unique<PacketIds>();
    return incoming_->add(packet_id);
}

bool Session::end_incoming(std::uint16_t packet_id) { return incoming_ && incoming_->erase(packet_id); }

}  // namespace penstock::session
