#include "store/durable_engine.h"

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "base/log.h"
#include "store/memory_session.h"

namespace penstock::store {
namespace {

constexpr std::size_t shared_body_min = 512;             // bytes from which on a message is kept once for all its receivers

/// A session's queue that is written as it changes: `q` records are messages, `f` records deliveries that went on.
class DurableSession final : public MemorySessionStore {
  public:
    DurableSession(DurableEngine& engine, std::string_view client_id, OverflowLane* overflow) : MemorySessionStore(client_id, overflow), engine_(&engine) {}
    ~DurableSession() override = default;

    void enqueue(Queued item, bool may_overflow, std::int64_t now) override {
        if (item.qos != mqtt::Qos::at_most_once) write(item, 0);
        MemorySessionStore::enqueue(std::move(item), may_overflow, now);
    }
    InFlight& start_next(std::uint16_t packet_id) override {
        auto& entry = MemorySessionStore::start_next(packet_id);
        const auto key = entry.item.key;
        if (key == 0) {   // queued before the session was kept, and on the overflow's disk when it became so
            write(entry.item, packet_id);
            entry.key = entry.item.key;
            return entry;
        }
        entry.key = key | tracked;
        engine_->put(key_of('f', key), encode_delivery(packet_id, entry.step));
        return entry;
    }
    InFlight& start(Queued item, std::uint16_t packet_id) override {
        write(item, packet_id);
        const auto key = item.key;
        auto& entry = MemorySessionStore::start(std::move(item), packet_id);
        entry.key = key;
        return entry;
    }
    void advance(InFlight& entry) override {
        release(entry.key, entry.item.body);
        engine_->put(key_of('f', entry.key), encode_delivery(entry.packet_id, Step::wait_pubcomp));
        entry.key |= tracked;
        MemorySessionStore::advance(entry);
    }
    void finish(std::uint16_t packet_id) override {
        if (auto* entry = find(packet_id); entry != nullptr) {
            if (entry->item.message) release(entry->key, entry->item.body);
            if ((entry->key & tracked) != 0) engine_->erase(key_of('f', entry->key));
        }
        MemorySessionStore::finish(packet_id);
    }
    void discard(bool each) override {
        for_each_item([&](const Queued& item, const InFlight*) {
            if (each && item.key != 0) engine_->erase(key_of('q', item.key));
            engine_->drop_body(item.body);
        });
    }
    void move_to(DurableEngine& engine, OverflowLane* lane) {
        engine_ = &engine;
        use(lane);
        for_each_item([&](Queued& item, const InFlight* delivery) {
            if (item.body == 0) return;
            const auto before = std::exchange(item.body, engine.take_body(item.body, item.message));
            if (item.body == before) return;
            const bool has_record = delivery != nullptr && (delivery->key & tracked) != 0;   // which has the identifier
            engine.put(key_of('q', item.key), encode_queued(item, delivery != nullptr && !has_record ? delivery->packet_id : std::uint16_t{0}, item.body, engine.offset()));
        });
    }
    void restore_queued(Queued item, std::int64_t now) {
        const bool overflows = overflow() != nullptr && overflow()->is_wanted();
        if (overflows && !overflow()->has_room()) overflow()->wait_for_disk();
        MemorySessionStore::enqueue(std::move(item), overflows, now);
    }
    void restore_in_flight(InFlight entry) { restore(std::move(entry)); }

  protected:
    void on_gone(const Queued& item) override {
        if (item.key != 0) release(item.key, item.body);
    }
    void on_not_acknowledged(InFlight& entry) override {
        entry.item.key = entry.key & ~tracked;
        engine_->put(key_of('q', entry.item.key), encode_queued(entry.item, 0, entry.item.body, engine_->offset()));
        if ((entry.key & tracked) != 0) engine_->erase(key_of('f', entry.key));
    }
    void on_taken(Queued& item) override { write(item, 0); }
    void on_taken(InFlight& entry) override {
        if (entry.item.message) {
            write(entry.item, entry.packet_id);
            entry.key = entry.item.key;
        } else {
            entry.key = engine_->next_key() | tracked;
            engine_->put(key_of('f', entry.key), encode_delivery(entry.packet_id, entry.step));
        }
    }

  private:
    std::string key_of(char kind, std::uint64_t key) const {
        auto out = client_key(kind, client_id());
        append_u64(out, key & ~tracked);
        return out;
    }
    void write(Queued& item, std::uint16_t packet_id) {
        item.key = engine_->next_key();
        item.body = engine_->hold_body(item.message);
        engine_->put(key_of('q', item.key), encode_queued(item, packet_id, item.body, engine_->offset()));
    }
    void release(std::uint64_t key, std::uint64_t body) {
        engine_->erase(key_of('q', key));
        engine_->drop_body(body);
    }
    DurableEngine* engine_;
};

struct HandedOn {
    std::vector<Share> shares;
    std::unique_ptr<DurableSession> store;
};

}  // namespace

std::int64_t DurableEngine::offset() const noexcept { return store_.shift(); }
DurableEngine::~DurableEngine() { store_.forget(*this); }
const char* DurableEngine::fault() const noexcept { return store_.fault(); }
std::uint64_t DurableEngine::next_key() noexcept { return store_.next_key(); }

std::unique_ptr<SessionStore> DurableEngine::open_session(std::string_view client_id, bool kept) {
    if (!kept) return std::make_unique<MemorySessionStore>(client_id, overflow_);
    return std::make_unique<DurableSession>(*this, client_id, overflow_);
}

std::uint64_t DurableEngine::hold_body(const mqtt::MessageRef& message) {
    const auto view = message->view();
    if (view.topic.size() + view.properties.size() + view.payload.size() < shared_body_min) return 0;
    if (!last_ || &*last_ != &*message) {
        last_ = message;
        last_body_ = next_key();
        put(number_key('m', last_body_), encode_message(view, offset()));
    }
    ++bodies_[last_body_];
    return last_body_;
}

void DurableEngine::drop_body(std::uint64_t number) {
    if (number == 0) return;
    const auto found = bodies_.find(number);
    if (found == bodies_.end() || --found->second > 0) return;
    erase(number_key('m', number));
    bodies_.erase(found);
    if (number == last_body_) last_ = {};   // its bytes are gone; the next receiver needs them anew
}

std::uint64_t DurableEngine::take_body(std::uint64_t number, const mqtt::MessageRef& message) {
    if (store_.owner_of(number, worker_) == worker_) {
        ++bodies_[number];
        return number;
    }
    auto& ours = taken_[number];
    if (ours == 0 || !bodies_.contains(ours)) last_ = {}, ours = hold_body(message);
    else ++bodies_[ours];
    return ours;
}

void DurableEngine::take_session(SessionStore& store) {
    if (auto* durable = dynamic_cast<DurableSession*>(&store); durable != nullptr) durable->move_to(*this, overflow_);
    else static_cast<MemorySessionStore&>(store).use(overflow_);
}

std::uint64_t DurableEngine::commit(const MailCounts& mails) {
    last_ = {};
    if (!taken_.empty()) taken_.clear();
    if (!dirty_ && !mails.any_sent && !mails.any_processed) return 0;
    auto* submission = new Submission;
    submission->worker = worker_;
    submission->processed = mails.processed;
    if (dirty_ || mails.any_sent) {
        submission->ticket = ++ticket_;
        submission->sent = mails.sent;
    }
    submission->counted.set(sizeof(Submission) + batch_.GetDataSize());
    submission->batch = std::move(batch_);
    batch_.Clear();
    dirty_ = false;
    const auto ticket = submission->ticket;
    store_.submit(submission);
    return ticket;
}

void DurableEngine::recover(const std::function<bool(std::string_view)>& mine, Recovered& into) {
    auto& db = store_.db();
    const auto shift = offset();
    const auto now = monotonic_ms();
    rocksdb::ReadOptions reading;
    reading.verify_checksums = true;
    reading.fill_cache = false;
    Clients known;
    auto each = [&](char kind, auto&& visit) {
        const std::unique_ptr<rocksdb::Iterator> at(db.NewIterator(reading));
        const std::string begin(1, kind);
        known.rewind();
        std::uint64_t bad = 0;
        for (at->Seek(begin); at->Valid() && at->key().starts_with(begin); at->Next(), store_.looked_at())
            if (!visit(view_of(at->key()), view_of(at->value()))) ++bad;
        if (!at->status().ok()) log::error("store", "reading ended early kind={} why=\"{}\"", kind, at->status().ToString());
        if (bad > 0) log::error("store", "{} records of kind {} cannot be read and are left out", bad, kind);
    };
    each('S', [&](std::string_view key, std::string_view value) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        if (!mine(client)) return true;
        auto record = decode_session(value, shift);
        if (!record) return false;
        record->client_id = client;
        known.add(key);
        into.session(std::move(*record));
        return true;
    });
    each('s', [&](std::string_view key, std::string_view value) {
        std::string_view filter;
        const auto client = client_of(key, filter);
        if (!known.has(key)) return true;
        std::uint32_t share = 0;
        const auto options = decode_options(value, share);
        if (options) into.subscription(client, filter, *options, share);
        return options.has_value();
    });
    std::map<std::string, HandedOn, std::less<>> handed_on;
    each('o', [&](std::string_view key, std::string_view value) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        if (!mine(client)) return true;
        auto shares = decode_shares(value);
        if (!shares || !rest.empty()) return false;
        std::ranges::sort(*shares, {}, &Share::number);
        handed_on[std::string(client)] = {.shares = std::move(*shares), .store = std::make_unique<DurableSession>(*this, client, overflow_)};
        return true;
    });
    each('i', [&](std::string_view key, std::string_view) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        if (known.has(key) && rest.size() == 2) into.incoming(client, static_cast<std::uint16_t>(static_cast<unsigned char>(rest[0]) << 8 | static_cast<unsigned char>(rest[1])));
        return rest.size() == 2;
    });
    each('d', [&](std::string_view key, std::string_view) {
        std::string_view rest;
        const auto client = name_of(key, rest);
        if (client.size() < 3) return false;
        const Portion portion{.worker = static_cast<unsigned char>(client[0]), .workers = static_cast<unsigned char>(client[1])};
        if (portion.worker >= portion.workers) return false;
        into.seen(client.substr(2), static_cast<std::uint16_t>(static_cast<unsigned char>(rest[0]) << 8 | static_cast<unsigned char>(rest[1])), portion);
        return true;
    });
    each('w', [&](std::string_view key, std::string_view value) {
        auto record = decode_leaving(value, shift);
        if (!record || key.size() != 9) return false;
        if (mine(record->client_id)) into.leaving(read_u64(key.substr(1)), std::move(*record));
        return true;
    });
    struct Delivery {
        std::uint16_t packet_id = 0;
        Step step{};
    };
    std::map<std::string, Delivery> deliveries;   // by key without its letter: in the order of the messages below
    each('f', [&](std::string_view key, std::string_view value) {
        if (!known.has(key)) return true;
        Delivery d;
        if (!decode_delivery(value, d.packet_id, d.step)) return false;
        deliveries.emplace(std::string(key.substr(1)), d);
        return true;
    });
    std::unordered_map<std::uint64_t, mqtt::MessageRef> shared;   // bodies read so far
    auto body_of = [&](std::uint64_t number) -> mqtt::MessageRef {
        if (const auto found = shared.find(number); found != shared.end()) return found->second;
        std::string value;
        if (!db.Get(reading, number_key('m', number), &value).ok()) return {};
        auto message = decode_message(value, shift);
        if (overflow_ != nullptr && overflow_->is_wanted()) shared.clear();   // memory goes before sharing
        if (message) shared.emplace(number, message);
        return message;
    };
    std::unordered_map<std::uint64_t, std::uint64_t> renumbered;
    std::string current;
    std::unique_ptr<DurableSession> queue;
    std::uint16_t last_packet_id = 0;
    auto add = [&](std::string_view client, InFlight entry) {
        if (client != current || queue == nullptr) {
            if (queue != nullptr) into.queue(current, std::move(queue), last_packet_id);
            current = client;
            queue = std::make_unique<DurableSession>(*this, client, overflow_);
            last_packet_id = 0;
        }
        if (entry.packet_id != 0) {
            last_packet_id = entry.packet_id;
            queue->restore_in_flight(std::move(entry));
        } else {
            queue->restore_queued(std::move(entry.item), now);
        }
    };
    // What the session does not have any more, though it stands in the queue's records.
    auto goes_on = [](const HandedOn& leftover, const Queued& item) { return item.share != 0 && std::ranges::binary_search(leftover.shares, item.share, {}, &Share::number); };
    // Deliveries whose message is gone already (PUBREC came) stand between those that still have it; both are in order of key.
    auto next_delivery = deliveries.begin();
    auto pass_deliveries = [&](const std::string_view* until) {
        for (; next_delivery != deliveries.end() && (until == nullptr || next_delivery->first < *until); ++next_delivery) {
            if (next_delivery->second.step != Step::wait_pubcomp) continue;
            std::string_view rest;
            const auto whole = "f" + next_delivery->first;
            const auto client = client_of(whole, rest);
            add(client, {.item = {}, .packet_id = next_delivery->second.packet_id, .step = Step::wait_pubcomp, .key = read_u64(rest) | tracked});
        }
    };
    each('q', [&](std::string_view key, std::string_view value) {
        std::string_view rest;
        const auto client = client_of(key, rest);
        const auto number = read_u64(rest);
        const bool has_session = known.has(key);
        const auto leftover = handed_on.empty() ? handed_on.end() : handed_on.find(client);
        if (!has_session && leftover == handed_on.end()) return true;
        Queued item;
        std::uint16_t packet_id = 0;
        std::uint64_t body = 0;
        if (!decode_queued(value, item, packet_id, body, shift)) return false;
        if (body != 0) item.message = body_of(body);
        if (!item.message) return false;
        item.key = number;
        const auto at = key.substr(1);
        pass_deliveries(&at);
        auto step = item.qos == mqtt::Qos::exactly_once ? Step::wait_pubrec : Step::wait_puback;
        std::uint64_t mark = 0;
        if (next_delivery != deliveries.end() && next_delivery->first == at) {
            packet_id = next_delivery->second.packet_id;
            step = next_delivery->second.step;
            mark = tracked;
            ++next_delivery;
        }
        if (packet_id == 0 && item.message->expires_at() != 0 && item.message->expires_at() <= now) {
            erase(std::string(key));   // it expired while nobody ran
            return true;
        }
        if (body != 0 && store_.workers_changed()) {
            // Receivers of one body may live on several workers now; each worker counts bodies of its own.
            auto& mine_now = renumbered[body];
            if (mine_now == 0 || !bodies_.contains(mine_now)) last_ = {}, mine_now = hold_body(item.message);
            else ++bodies_[mine_now];
            item.body = mine_now;
            put(std::string(key), encode_queued(item, mark == 0 ? packet_id : std::uint16_t{0}, item.body, shift));
        } else if (body != 0) {
            item.body = body;
            ++bodies_[body];
        }
        const auto item_key = item.key;
        if (leftover != handed_on.end() && packet_id == 0 && goes_on(leftover->second, item)) leftover->second.store->restore_queued(std::move(item), now);
        else if (has_session) add(client, {.item = std::move(item), .packet_id = packet_id, .step = step, .key = item_key | mark});
        return true;
    });
    pass_deliveries(nullptr);
    if (queue != nullptr) into.queue(current, std::move(queue), last_packet_id);
    for (auto& [client, leftover] : handed_on) into.handed_on(client, std::move(leftover.shares), std::move(leftover.store));
    if (worker_ == 0)
        each('k', [&](std::string_view key, std::string_view value) {
            auto entry = decode_state(value, shift);
            if (entry) into.state(std::string(key.substr(1)), std::move(*entry));
            return entry.has_value();
        });
    // Read once for all workers: they share the messages.
    for (const auto& [message, sequence] : store_.retained([&] {
             std::vector<std::pair<mqtt::MessageRef, std::uint64_t>> all;
             each('r', [&](std::string_view, std::string_view value) {
                 if (value.size() < 8) return false;
                 auto message = decode_message(value.substr(8), shift);
                 if (!message) return false;
                 if (message->expires_at() == 0 || message->expires_at() > now) all.emplace_back(message, read_u64(value));
                 else erase_retained(message->view().topic);
                 return true;
             });
             return all;
         }))
        into.retained(message, sequence);
}

}  // namespace penstock::store
