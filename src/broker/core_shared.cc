// Core's shared subscriptions: who of a group gets a message, and what becomes of the messages of a member that leaves.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "broker/core.h"
#include "topics/topic.h"

namespace penstock::broker {

using mqtt::Qos;
using session::Session;

namespace {

constexpr std::size_t step_messages = 256;                 // handed on in one turn
constexpr std::size_t on_their_way_max = 256;              // and written as on their way at a time, with a durable engine
constexpr std::size_t on_their_way_bytes = 1u << 20;       // of their filters and groups' names

}  // namespace

std::uint32_t Core::share_of(const Session& session, const topics::SharedFilter& shared) {
    auto* group = index_.find_group(shared.filter, shared.group);
    const auto* member = group != nullptr ? group->find(session.id()) : nullptr;
    return member != nullptr ? member->share : 0;
}

std::vector<store::Share> Core::shares_of(const Session& session) {
    std::vector<store::Share> out;
    if (!session.has_anything_to_send()) return out;
    for (const auto& subscription : session.subscriptions) {
        const auto shared = topics::split_shared(subscription.text);
        if (!shared.is_shared) continue;
        if (const auto number = share_of(session, shared); number != 0) out.push_back({.number = number, .filter = std::string(shared.filter), .group = std::string(shared.group)});
    }
    return out;
}

void Core::hand_on(Session& session, std::vector<store::Share> shares, bool ended) {
    // Where nobody is left in the group the messages stay with the session, and end with it.
    std::erase_if(shares, [&](const store::Share& share) { return index_.find_group(share.filter, share.group) == nullptr; });
    if (shares.empty() || !session.has_anything_to_send()) return;
    auto at = handing_on_.find(session.client_id());
    auto fresh = at == handing_on_.end() ? engine_->open_session(session.client_id(), durable_) : nullptr;
    auto& store = at == handing_on_.end() ? *fresh : *at->second.store;
    std::ranges::sort(shares, {}, &store::Share::number);
    const auto wanted = [&](std::uint32_t number) { return std::ranges::binary_search(shares, number, {}, &store::Share::number); };
    if (session.take_shared(wanted, ended, store) == 0) return;
    if (at == handing_on_.end()) at = handing_on_.emplace(session.client_id(), HandingOn{}).first;
    auto& job = at->second;
    if (fresh != nullptr) job.store = std::move(fresh);
    job.add(std::move(shares));
    if (durable_) engine_->put_shares(session.client_id(), job.shares);
    step_handing_on(session.client_id(), job);
    end_handing_on(at);
}

void Core::continue_handing_on() {
    hands_on_at_once_ = false;
    for (auto at = handing_on_.begin(); at != handing_on_.end() && !(durable_ && leaving_.size() >= on_their_way_max);) {
        if (at->second.not_before <= now_) step_handing_on(at->first, at->second);
        at = end_handing_on(at);
    }
}

Core::HandedOn::iterator Core::end_handing_on(HandedOn::iterator at) {
    const auto& [client_id, job] = *at;
    if (job.store->queued() > 0) return std::next(at);
    log::debug("broker", "messages of shared subscriptions went on client=\"{}\" to_others={} no_member_left={}", for_log(client_id), job.handed_on, job.dropped);
    if (durable_) engine_->erase_shares(client_id);
    return handing_on_.erase(at);
}

void Core::step_handing_on(const std::string& client_id, HandingOn& job) {
    std::size_t on_their_way = 0;
    for (const auto& leaving : leaving_) on_their_way += leaving.record.filter.size() + leaving.record.group.size();
    for (std::size_t done = 0;; ++done) {
        auto* next = job.store->next();
        if (next == nullptr) return;   // none is left, or it is read from the disk and on_ready goes on
        if (durable_ && (leaving_.size() >= on_their_way_max || on_their_way >= on_their_way_bytes)) return;   // settle() goes on
        if (done == step_messages) {
            hands_on_at_once_ = true;
            return;
        }
        const auto* share = job.find(next->share);
        auto* group = share != nullptr ? index_.find_group(share->filter, share->group) : nullptr;
        if (next->expires_at != 0 && next->expires_at <= now_) {
            ++figures_.expired_messages;
        } else if (group == nullptr) {
            ++job.dropped;
        } else {
            ++job.handed_on;
            mqtt::Outgoing message(next->message);
            if (durable_) {
                on_their_way += share->filter.size() + share->group.size();
                leave({.client_id = client_id, .filter = share->filter, .group = share->group, .message = next->message});
            } else {
                deliver_shared(message, *group, share->filter);
            }
        }
        job.store->drop_next();
    }
}

void Core::deliver_shared(mqtt::Outgoing& message, topics::Group& group, std::string_view filter) {
    if (origin_ != nullptr && origin_->dup && had_before(origin_->publisher, origin_->packet_id, Had::group(filter, group.name)) != nullptr) return;   // the group has it
    topics::Member* member = nullptr;
    const auto& view = message.view();
    if (view.has_partition) member = group.pick_by_hash(view.partition);
    else if (config_.aio_compatible && group.filter_has_wildcard) member = group.pick_by_hash(view.topic);
    else member = group.pick_round_robin();
    if (member == nullptr) return;
    if (member->local != nullptr) {
        if (origin_ != nullptr) mark_seen(origin_->publisher, origin_->packet_id, Seen::group(filter, group.name));
        return deliver_to_member(message, *member);
    }
    Mail mail{.kind = Mail::Kind::shared_publish, .from = id_, .number = member->session, .message = message.share()};
    mail.body = std::make_unique<Mail::Body>();
    mail.body->filter = filter;
    mail.body->group = group.name;
    put_origin(mail);
    driver_.post(member->worker, std::move(mail));
}

void Core::deliver_to_member(mqtt::Outgoing& message, const topics::Member& member) {
    const bool retain = message.view().retain && member.options.retain_as_published;
    deliver_to(*static_cast<Session*>(member.local), message, member.options.qos, retain, &member.options.id, member.options.id != 0 ? 1 : 0, member.share);
}

void Core::on_shared_publish(Mail& mail) {
    // A group has a mark of its own: the same message may come here for ordinary subscribers too.
    Origin origin{.publisher = mail.body->publisher, .packet_id = mail.body->packet_id, .dup = mail.flag};
    const bool exactly_once = !origin.publisher.empty();
    mqtt::Outgoing message(std::move(mail.message));
    auto* group = index_.find_group(mail.body->filter, mail.body->group);
    if (group == nullptr) return;
    const auto* picked = group->find(mail.number);
    if (picked != nullptr && picked->local != nullptr) {
        if (exactly_once) mark_seen(origin.publisher, origin.packet_id, Seen::group(mail.body->filter, mail.body->group));
        return deliver_to_member(message, *picked);
    }
    // The member left meanwhile; another one takes it. The publisher's acknowledgement waits for this worker's disk alone, so until it is
    // on the other's it stays on this one.
    if (exactly_once) mark_seen(origin.publisher, origin.packet_id, Seen::group(mail.body->filter, mail.body->group));
    if (durable_ && message.view().qos != Qos::at_most_once) leave({.client_id = {}, .filter = mail.body->filter, .group = mail.body->group, .message = message.share()});
    else deliver_shared(message, *group, mail.body->filter);
}

}  // namespace penstock::broker
