#include "control/objects.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

namespace penstock::control {

using registry::Answer;
using registry::Failure;
using resources::at_path;
using resources::Json;
using resources::Kind;
using resources::text_at;

namespace {

constexpr std::size_t history_max = 10'000, history_bytes_max = 8 << 20, names_max = 4096;   // events, and the texts in them
constexpr int status_tries = 20;           // writers that come in between, one after the other

/// A unit fraction for jitter.
double chance() { return static_cast<double>(random_u64() >> 11) / static_cast<double>(1ULL << 53); }

const char* media_of(registry::PatchType type) {
    switch (type) {
        case registry::PatchType::merge: return "application/merge-patch+json";
        case registry::PatchType::json: return "application/json-patch+json";
        case registry::PatchType::strategic: return "application/strategic-merge-patch+json";
        case registry::PatchType::apply: return "application/apply-patch+yaml";
    }
    return "";
}

}  // namespace

// --- in this process ---

std::vector<ObjectRef> LocalObjects::list(const Kind& kind, const std::string& name_space) const { return registry_.list(kind, name_space).items; }
ObjectRef LocalObjects::get(const Kind& kind, const std::string& name_space, const std::string& name) const { return registry_.get(kind, name_space, name).value_or(nullptr); }
Answer<ObjectRef> LocalObjects::create(const Kind& kind, const std::string& name_space, Json object, const std::string& manager) { return registry_.create(kind, name_space, std::move(object), {.manager = manager}); }
Answer<ObjectRef> LocalObjects::patch(const Kind& kind, const std::string& name_space, const std::string& name, registry::PatchType type, const Json& patch, const std::string& manager) {
    return registry_.patch(kind, name_space, name, type, patch, false, {.manager = manager, .force = true});
}
Answer<void> LocalObjects::put_status(const Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make, const std::string& manager) {
    return registry_.put_status(kind, name_space, name, [&](const Json& current) {
        auto made = make(current);
        if (made) *made = resources::printable_texts(*made);
        return made;
    }, manager);
}
Answer<void> LocalObjects::remove(const Kind& kind, const std::string& name_space, const std::string& name) {
    const auto removed = registry_.remove(kind, name_space, name);
    if (!removed) return std::unexpected(removed.error());
    return {};
}
bool LocalObjects::changes(std::uint64_t& position, std::vector<registry::Event>& out) const {
    const auto version = registry_.version();
    if (position == 0 || !registry_.events_since(position, nullptr, "", out)) {
        out.clear();
        position = version;
        return false;
    }
    for (const auto& event : out) position = std::max(position, event.version);
    return true;
}

// --- elsewhere ---

RemoteObjects::RemoteObjects(MakeTransport make, std::vector<const Kind*> kinds, std::string name_space,
                             Clock clock)
    : make_(std::move(make)), name_space_(std::move(name_space)), clock_(std::move(clock)) {
    for (const auto* kind : kinds) {
        auto feed = std::make_unique<Feed>();
        feed->kind = kind;
        feeds_.push_back(std::move(feed));
    }
    writer_ = make_();
}

RemoteObjects::~RemoteObjects() { stop(); }

void RemoteObjects::start() {
    for (auto& feed : feeds_) {
        auto* f = feed.get();
        f->transport = make_();
        f->reflector = std::make_unique<client::Reflector>(
            *f->transport, *f->kind, name_space_,
            client::Reflector::Options{
                .on_change = [this, f](const client::Reflector::Change& change) { take(*f->kind, change); },
                .on_synced =
                    [this, first = true]() mutable {
                        if (!std::exchange(first, false)) return;
                        const std::lock_guard lock(guard_);
                        ++synced_;
                        ++position_;
                        changed_.notify_all();
                    },
                .pause =
                    [this](std::int64_t ms) {
                        pause(static_cast<int>(ms));
                        const std::lock_guard lock(guard_);
                        return !stopping_;
                    },
                .random = chance,
                .now_ms = [this] { return clock_.monotonic_ms(); }});
        f->thread = std::thread([f] { f->reflector->run(); });
    }
}

void RemoteObjects::stop() {
    {
        const std::lock_guard lock(guard_);
        if (std::exchange(stopping_, true)) return;
        changed_.notify_all();
    }
    for (auto& feed : feeds_) {
        if (!feed->thread.joinable()) continue;
        feed->reflector->stop();
        feed->transport->interrupt();
        feed->thread.join();
    }
}

void RemoteObjects::reconnect() {
    for (auto& feed : feeds_)
        if (feed->transport != nullptr) feed->transport->interrupt();
    const std::lock_guard lock(writing_);
    writer_ = make_();
}

bool RemoteObjects::synced() const {
    const std::lock_guard lock(guard_);
    return synced_ == feeds_.size();
}

void RemoteObjects::take(const Kind& kind, const client::Reflector::Change& change) {
    const std::lock_guard lock(guard_);
    using Type = client::Reflector::Change::Type;
    const std::pair key{text_at(*change.object, "metadata.namespace"), text_at(*change.object, "metadata.name")};
    auto& table = tables_[kind.qualified_plural()];
    if (change.type == Type::deleted) table.erase(key);
    else table[key] = change.object;
    history_.push_back({.type = change.type == Type::added ? registry::Event::Type::added : change.type == Type::modified ? registry::Event::Type::modified : registry::Event::Type::deleted,
                        .kind = &kind, .name_space = key.first, .version = ++position_, .object = change.object, .previous = change.previous,
                        .bytes = change.object->dump(-1, ' ', false, Json::error_handler_t::replace).size()});
    history_bytes_ += history_.back().bytes;
    while (history_.size() > history_max || (history_bytes_ > history_bytes_max && history_.size() > 1)) {
        oldest_ = history_.front().version;
        history_bytes_ -= history_.front().bytes;
        history_.pop_front();
    }
    changed_.notify_all();
}

std::vector<ObjectRef> RemoteObjects::list(const Kind& kind, const std::string& name_space) const {
    const std::lock_guard lock(guard_);
    std::vector<ObjectRef> out;
    const auto table = tables_.find(kind.qualified_plural());
    if (table == tables_.end()) return out;
    for (const auto& [key, object] : table->second)
        if (name_space.empty() || key.first == name_space) out.push_back(object);
    return out;
}

ObjectRef RemoteObjects::get(const Kind& kind, const std::string& name_space, const std::string& name) const {
    const std::lock_guard lock(guard_);
    const auto table = tables_.find(kind.qualified_plural());
    if (table == tables_.end()) return nullptr;
    const auto found = table->second.find({name_space, name});
    return found == table->second.end() ? nullptr : found->second;
}

Answer<ObjectRef> RemoteObjects::send(const std::string& method, const std::string& target, const Json& body, const std::string& media) {
    const std::lock_guard lock(writing_);
    const auto answer = writer_->request(method, target, body.is_null() ? "" : body.dump(-1, ' ', false, Json::error_handler_t::replace), media);
    if (!answer) return std::unexpected(Failure{.code = 503, .reason = "ServiceUnavailable", .message = answer.error().message});
    if (!answer->ok()) return std::unexpected(Failure{.code = answer->status, .reason = text_at(answer->body, "reason"), .message = answer->message(), .details = at_path(answer->body, "details")});
    return std::make_shared<const Json>(answer->body);
}

Answer<ObjectRef> RemoteObjects::create(const Kind& kind, const std::string& name_space, Json object, const std::string& manager) {
    object["apiVersion"] = kind.api_version();
    object["kind"] = kind.kind;
    return send("POST", client::path_of(kind, name_space) + "?fieldManager=" + manager, object, "application/json");
}
Answer<ObjectRef> RemoteObjects::patch(const Kind& kind, const std::string& name_space, const std::string& name, registry::PatchType type, const Json& patch, const std::string& manager) {
    auto body = patch;
    if (type == registry::PatchType::apply) body["apiVersion"] = kind.api_version(), body["kind"] = kind.kind;
    return send("PATCH", client::path_of(kind, name_space, name) + "?fieldManager=" + manager + (type == registry::PatchType::apply ? "&force=true" : ""), body, media_of(type));
}
Answer<void> RemoteObjects::put_status(const Kind& kind, const std::string& name_space, const std::string& name, const MakeStatus& make, const std::string& manager) {
    const auto path = client::path_of(kind, name_space, name);
    auto current = get(kind, name_space, name);
    for (int tries = 1; current != nullptr; ++tries) {
        const auto made = make(*current);
        if (!made) return {};
        const auto status = resources::printable_texts(*made);
        if (at_path(*current, "status") == status) return {};
        // Only on what it was made from; what the new status no longer has is taken away by name.
        Json patch = {{"metadata", {{"resourceVersion", text_at(*current, "metadata.resourceVersion")}}}, {"status", status}};
        if (const auto& before = at_path(*current, "status"); before.is_object())
            for (const auto& [key, value] : before.items())
                if (!status.contains(key)) patch["status"][key] = nullptr;
        const auto done = send("PATCH", path + "/status?fieldManager=" + manager, patch, "application/merge-patch+json");
        if (done || done.error().code == 404) return {};
        if (done.error().code != 409 || tries == status_tries) return std::unexpected(done.error());
        // The reflector's copy comes later than the refusal.
        const auto fresh = send("GET", path, {}, "application/json");
        if (!fresh && fresh.error().code == 404) return {};
        if (!fresh) return std::unexpected(fresh.error());
        current = *fresh;
    }
    return {};
}
Answer<void> RemoteObjects::remove(const Kind& kind, const std::string& name_space, const std::string& name) {
    const auto done = send("DELETE", client::path_of(kind, name_space, name), {}, "application/json");
    if (!done && done.error().code != 404) return std::unexpected(done.error());
    return {};
}

bool RemoteObjects::changes(std::uint64_t& position, std::vector<registry::Event>& out) const {
    const std::lock_guard lock(guard_);
    if (synced_ < feeds_.size()) return true;      // half a picture is none: nothing is told before all is known
    const auto from = position;
    position = std::max<std::uint64_t>(position_, 1);
    if (from == 0 || from < oldest_) return false;
    for (auto at = std::ranges::upper_bound(history_, from, {}, &registry::Event::version); at != history_.end(); ++at) out.push_back(*at);
    return true;
}

void RemoteObjects::wait(std::uint64_t position, int timeout_ms) const {
    std::unique_lock lock(guard_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return stopping_ || (synced_ == feeds_.size() && position_ != position); });
}

void RemoteObjects::pause(int timeout_ms) const {
    std::unique_lock lock(guard_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return stopping_; });
}

// --- events ---

void Recorder::record(const Json& about, const char* type, const std::string& reason, const std::string& told) {
    const auto message = printable(told);
    const auto& kind = *resources::find_kind("v1", "Event");
    const auto space = text_at(about, "metadata.namespace", "default"), name = text_at(about, "metadata.name"), uid = text_at(about, "metadata.uid");
    const auto now = rfc3339(clock_.wall_ms());
    const auto what = fmt::format("{}/{}/{}/{}", uid, type, reason, message);
    retry(clock_.monotonic_ms());
    const std::lock_guard lock(guard_);
    if (names_.size() > names_max) names_.clear();
    if (budgets_.size() > names_max) budgets_.clear();
    auto& budget = budgets_[uid];
    const auto at = clock_.monotonic_ms();
    budget.tokens = std::min(25.0, budget.tokens + static_cast<double>(at - budget.at_ms) / 300'000.0);
    budget.at_ms = at;
    if (budget.tokens < 1) return;
    budget.tokens -= 1;
    if (const auto known = names_.find(what); known != names_.end()) {
        const Json patch = {{"count", ++known->second.second}, {"lastTimestamp", now}};
        if (objects_.patch(kind, space, known->second.first, registry::PatchType::merge, patch, component_)) return;
        names_.erase(known);   // it expired: a new one
    }
    const auto event_name = fmt::format("{}.{:016x}", name, random_u64());
    const Json event = {{"metadata", {{"name", event_name}, {"namespace", space}}},
                        {"involvedObject", {{"apiVersion", text_at(about, "apiVersion")}, {"kind", text_at(about, "kind")}, {"namespace", space}, {"name", name}, {"uid", uid}, {"resourceVersion", text_at(about, "metadata.resourceVersion")}}},
                        {"reason", reason}, {"message", message}, {"type", type}, {"count", 1}, {"firstTimestamp", now}, {"lastTimestamp", now}, {"source", {{"component", component_}}}, {"reportingComponent", component_}, {"reportingInstance", ""}};
    // The same again while it waits is the same Event, counted.
    for (auto& waits : waiting_)
        if (waits.what == what) {
            waits.event["count"] = resources::integer_of(waits.event, "count", 1) + 1;
            waits.event["lastTimestamp"] = now;
            return;
        }
    if (write(event, space, what)) return;
    if (waiting_.size() == waiting_max) waiting_.pop_front();
    waiting_.push_back({.event = event, .space = space, .what = what, .next_ms = at + retry_ms, .until_ms = at + kept_ms});
}

bool Recorder::write(const Json& event, const std::string& space, const std::string& what) {
    const auto made = objects_.create(*resources::find_kind("v1", "Event"), space, event, component_);
    if (made) {
        names_[what] = {text_at(event, "metadata.name"), resources::integer_of(event, "count", 1)};
        return true;
    }
    log::debug("control", "an event was not written: {}", made.error().message);
    const auto code = made.error().code;
    return code != 401 && code != 403 && code != 429 && code < 500;
}

void Recorder::retry(std::int64_t now_ms) {
    const std::lock_guard lock(guard_);
    std::erase_if(waiting_, [&](auto& waits) {
        if (now_ms < waits.next_ms) return now_ms >= waits.until_ms;
        waits.next_ms = now_ms + retry_ms;
        return write(waits.event, waits.space, waits.what) || now_ms >= waits.until_ms;
    });
}

}  // namespace penstock::control
