#include "client/reflector.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/log.h"

namespace penstock::client {

using resources::Json;
using resources::text_at;

Reflector::Reflector(Transport& transport, const resources::Kind& kind, std::string name_space, Options options)
    : transport_(transport), kind_(kind), name_space_(std::move(name_space)), options_(std::move(options)) {}

void Reflector::run() {
    while (!stopping_) {
        const auto begun = options_.now_ms();
        const auto before = position_;
        auto step = position_.empty() ? list() : watch();
        const bool said_nothing = !before.empty() && position_ == before;
        if (step == Step::list_again) {
            position_.clear();
            exact_ = true;
            // Lost history is listed anew at once; when what was just listed is lost again at once, with
            // pauses.
            if (said_nothing && ++lists_in_vain_ > 1) step = Step::back_off;
        } else if (step == Step::go_on && said_nothing && options_.now_ms() - begun < short_watch_ms) {
            fault_ = fmt::format("the watch of {} ended at once without an event", kind_.plural);
            step = Step::back_off;
        }
        if (!said_nothing && !before.empty()) lists_in_vain_ = 0;
        if (step == Step::go_on) {
            // Health for a while forgets the failures before.
            if (failed_at_ != 0 && begun - failed_at_ > healthy_ms) pause_ms_ = first_pause_ms, failed_at_ = 0;
            if (!position_.empty()) continue;
        }
        if (step == Step::back_off) {
            failed_at_ = options_.now_ms();
            if (!wait(std::exchange(retry_after_s_, 0))) return;
        }
    }
}

bool Reflector::wait(int retry_after_s) {
    const auto pause = std::max<std::int64_t>(static_cast<std::int64_t>(static_cast<double>(pause_ms_) * (0.5 + options_.random())), retry_after_s * 1000LL);
    pause_ms_ = std::min(longest_pause_ms, pause_ms_ * 2);
    return options_.pause(pause);
}

Reflector::Step Reflector::list() {
    std::map<std::pair<std::string, std::string>, ObjectRef> fresh;
    std::string token, version;
    do {
        auto target = path_of(kind_, name_space_) + "?limit=500";
        if (!token.empty()) target += "&continue=" + query_escaped(token);
        else if (!exact_) target += "&resourceVersion=0";   // a cache's answer will do the first time
        const auto answer = transport_.request("GET", target);
        if (!answer) {
            fault_ = answer.error().message;
            return Step::back_off;
        }
        if (answer->status == 410 && !exact_) return Step::list_again;   // said of a list from nowhere, it is a fault like others
        if (!answer->ok()) {
            const auto why = answer->status == 403 ? "not allowed to list" : answer->status == 404 ? "the kind is not served" : "listing failed";
            const auto cure = answer->status != 404 ? "" : kind_.group == "mqttbroker.iotoperations.azure.com" ? " (penstock crds | kubectl apply --server-side -f -)" : " (it goes on without)";
            // An API server that comes back refuses everything until it has read its roles again: told when it stays.
            if (answer->status != 403) refused_at_ = -1;
            else if (refused_at_ < 0) refused_at_ = options_.now_ms();
            if (told_ != answer->message() && (answer->status != 403 || options_.now_ms() - refused_at_ >= refusal_patience_ms)) {
                told_ = answer->message();
                log::warn("client", "{}{} kind={} status={} why=\"{}\"; it is tried again", why, cure, kind_.qualified_plural(), answer->status, answer->message());
            }
            fault_ = answer->message();
            retry_after_s_ = answer->retry_after_s;
            if (answer->status == 404) {
                // What is not served has no objects: a cluster without cert-manager is no reason to wait for it.
                const auto gone = objects_;
                for (const auto& [key, old] : gone) drop(key, old);
                if (options_.on_synced) options_.on_synced();
            }
            return Step::back_off;
        }
        const auto& items = resources::at_path(answer->body, "items");
        if (!items.is_array() || text_at(answer->body, "metadata.resourceVersion").empty()) {
            fault_ = "the list has no items or no version";
            return Step::back_off;
        }
        for (const auto& item : items) {
            auto object = item;
            object["apiVersion"] = kind_.api_version();
            object["kind"] = kind_.kind;
            std::pair key{text_at(item, "metadata.namespace"), text_at(item, "metadata.name")};
            fresh[std::move(key)] = std::make_shared<const Json>(std::move(object));
        }
        version = text_at(answer->body, "metadata.resourceVersion");
        token = text_at(answer->body, "metadata.continue");
    } while (!token.empty());
    // Compared with what is there: by key and uid, so that an object made anew is not taken for a change of the old one.
    const auto before = objects_;
    for (const auto& [key, old] : before) {
        const auto found = fresh.find(key);
        if (found == fresh.end() || text_at(*found->second, "metadata.uid") != text_at(*old, "metadata.uid")) drop(key, old);
    }
    for (auto& [key, object] : fresh) put(object);
    position_ = version;
    exact_ = false;
    fault_.clear();
    told_.clear();
    refused_at_ = -1;
    if (options_.on_synced) options_.on_synced();
    return Step::go_on;
}

void Reflector::put(ObjectRef object) {
    auto& slot = objects_[{text_at(*object, "metadata.namespace"), text_at(*object, "metadata.name")}];
    if (slot != nullptr && text_at(*slot, "metadata.resourceVersion") == text_at(*object, "metadata.resourceVersion")) return;
    Change change{.type = slot == nullptr ? Change::Type::added : Change::Type::modified, .object = object, .previous = slot};
    slot = std::move(object);
    options_.on_change(change);
}

void Reflector::drop(const std::pair<std::string, std::string>& key, ObjectRef last) {
    const auto found = objects_.find(key);
    if (found == objects_.end()) return;
    Change change{.type = Change::Type::deleted, .object = std::move(last), .previous = found->second};
    objects_.erase(found);
    options_.on_change(change);
}

bool Reflector::event(const Json& line, Step& next) {
    const auto type = text_at(line, "type");
    const auto& object = resources::at_path(line, "object");
    if (type == "ERROR") {
        const auto& seconds = resources::at_path(object, "details.retryAfterSeconds");
        fault_ = text_at(object, "message", "the watch ended with an error that says nothing");
        retry_after_s_ = seconds.is_number_integer() ? seconds.get<int>() : 0;
        next = resources::at_path(object, "code") == 410 ? Step::list_again : Step::back_off;
        return false;
    }
    const auto version = text_at(object, "metadata.resourceVersion");
    if (version.empty()) {
        fault_ = "an event has no version";
        next = Step::list_again;
        return false;
    }
    if (type == "ADDED" || type == "MODIFIED") {
        auto known = object;
        known["apiVersion"] = kind_.api_version();
        known["kind"] = kind_.kind;
        put(std::make_shared<const Json>(std::move(known)));
    } else if (type == "DELETED") {
        drop({text_at(object, "metadata.namespace"), text_at(object, "metadata.name")}, std::make_shared<const Json>(object));
    }
    position_ = version;
    fault_.clear();
    return !stopping_;
}

Reflector::Step Reflector::watch() {
    Step next = Step::go_on;
    const auto seconds = 300 + static_cast<int>(options_.random() * 300);
    const auto target = fmt::format("{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}", path_of(kind_, name_space_), seconds, position_);
    const auto ended = transport_.watch(target, "application/json", [&](const Json& line) { return event(line, next); });
    if (next != Step::go_on) return next;
    if (!ended) {
        fault_ = ended.error().message;
        return Step::back_off;
    }
    if (*ended == 410) return Step::list_again;
    if (*ended != 200) {
        fault_ = fmt::format("watching {} was refused with status {}", kind_.plural, *ended);
        return Step::back_off;
    }
    return Step::go_on;
}

}  // namespace penstock::client
