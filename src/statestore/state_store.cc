#include "statestore/state_store.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::statestore {

namespace {

// SDKs compare these byte by byte (fact sheet 10.7).
constexpr const char* future_request = "the request timestamp is too far in the future; ensure that the client and broker system clocks are synchronized";
constexpr const char* fence_missing = "a fencing token is required for this request";
constexpr const char* future_fence = "the request fencing token timestamp is too far in the future; ensure that the client and broker system clocks are synchronized";
constexpr const char* fence_lower = "the request fencing token is a lower version than the fencing token protecting the resource";
constexpr const char* quota = "the quota has been exceeded";
constexpr const char* syntax = "syntax error";
constexpr const char* not_authorized = "not authorized";
constexpr const char* unknown = "unknown command";
constexpr const char* arguments = "wrong number of arguments";
constexpr const char* no_timestamp = "missing timestamp";
constexpr const char* bad_timestamp = "malformed timestamp";
constexpr const char* empty_key = "the key length is zero";
constexpr const char* long_key = "the key is too long for the topic of its notifications";

constexpr std::size_t words_max = 8, page_keys = 100, page_bytes = 64 * 1024;

Answer error(const char* text) { return {.payload = fmt::format("-ERR {}\r\n", text), .version = {}}; }
std::string bulk(std::string_view bytes) { return fmt::format("${}\r\n", bytes.size()).append(bytes).append("\r\n"); }

/// `*2\r\n$3\r\nGET\r\n$1\r\na\r\n` into words. False: it is none.
bool split_words(std::string_view payload, std::vector<std::string_view>& out) {
    auto number = [&](char mark, std::size_t& value) {
        if (payload.empty() || payload[0] != mark) return false;
        const auto end = payload.find("\r\n");
        if (end == std::string_view::npos) return false;
        const auto parsed = parse_number<std::uint32_t>(payload.substr(1, end - 1));
        if (!parsed) return false;
        value = *parsed;
        payload.remove_prefix(end + 2);
        return true;
    };
    std::size_t count = 0;
    if (!number('*', count) || count == 0 || count > words_max) return false;
    for (std::size_t i = 0; i < count; ++i) {
        std::size_t size = 0;
        if (!number('$', size) || payload.size() < size + 2 || payload.substr(size, 2) != "\r\n") return false;
        out.push_back(payload.substr(0, size));
        payload.remove_prefix(size + 2);
    }
    return payload.empty();
}

/// `*`, `?` and `[a-z]`; `\` takes the next letter as it is.
bool glob(std::string_view pattern, std::string_view text) {
    std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
    auto one = [&](std::size_t at, std::size_t& next) {
        const char c = pattern[at];
        next = at + 1;
        if (c == '?') return true;
        if (c == '\\' && at + 1 < pattern.size()) return next = at + 2, pattern[at + 1] == text[t];
        if (c != '[') return c == text[t];
        const auto close = pattern.find(']', at + 2);
        if (close == std::string_view::npos) return c == text[t];
        next = close + 1;
        bool found = false;
        const bool negated = pattern[at + 1] == '^' || pattern[at + 1] == '!';
        for (auto i = at + 1 + (negated ? 1 : 0); i < close; ++i) {
            const auto low = static_cast<unsigned char>(pattern[i]);
            const bool range = i + 2 < close && pattern[i + 1] == '-';
            const auto high = range ? static_cast<unsigned char>(pattern[i + 2]) : low;
            found |= low <= static_cast<unsigned char>(text[t]) && static_cast<unsigned char>(text[t]) <= high;
            if (range) i += 2;
        }
        return found != negated;
    };
    while (t < text.size()) {
        std::size_t next = 0;
        if (p < pattern.size() && pattern[p] == '*') star = ++p, resume = t;
        else if (p < pattern.size() && one(p, next)) p = next, ++t;
        else if (star != std::string_view::npos) p = star, t = ++resume;
        else return false;
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

}  // namespace

Command parse_command(std::string_view payload) {
    Command out;
    std::vector<std::string_view> words;
    if (!split_words(payload, words)) {
        out.fault = syntax;
        return out;
    }
    const auto verb = words[0];
    out.verb = verb == "SET" ? Verb::set : verb == "GET" ? Verb::get : verb == "DEL" ? Verb::del : verb == "VDEL" ? Verb::vdel : verb == "KEYNOTIFY" ? Verb::keynotify : verb == "SCAN" ? Verb::scan : Verb::none;
    if (out.verb == Verb::none) {
        out.fault = unknown;
        return out;
    }
    const std::size_t least = out.verb == Verb::set || out.verb == Verb::vdel ? 3 : 2;
    const std::size_t most = out.verb == Verb::set ? 6 : out.verb == Verb::vdel || out.verb == Verb::keynotify || out.verb == Verb::scan ? 3 : 2;
    if (words.size() < least || words.size() > most) {
        out.fault = arguments;
        return out;
    }
    out.key = words[1];
    if (out.key.empty()) {
        out.fault = empty_key;
        return out;
    }
    if (out.verb == Verb::vdel || out.verb == Verb::set || (out.verb == Verb::scan && words.size() == 3)) out.value = words[2];
    if (out.verb == Verb::keynotify && words.size() == 3) {
        if (words[2] == "STOP") out.stop = true;
        else out.fault = syntax;
    }
    if (out.verb != Verb::set) return out;
    for (std::size_t i = 3; i < words.size(); ++i) {
        if (words[i] == "NX" && !out.only_new && !out.only_new_or_same) {
            out.only_new = true;
        } else if (words[i] == "NEX" && !out.only_new && !out.only_new_or_same) {
            out.only_new_or_same = true;
        } else if (words[i] == "PX" && out.lives_ms == 0 && i + 1 < words.size()) {
            const auto ms = parse_number<std::int64_t>(words[++i]);
            // About three hundred years are as good as for ever, and cannot overflow.
            if (!ms || *ms <= 0 || *ms > 10'000'000'000'000) out.fault = syntax;
            else out.lives_ms = *ms;
        } else {
            out.fault = syntax;
        }
    }
    return out;
}

std::string hex_upper(std::string_view bytes) {
    std::string out;
    out.reserve(bytes.size() * 2);
    for (const char c : bytes) out += fmt::format("{:02X}", static_cast<unsigned char>(c));
    return out;
}

std::string notify_topic(std::string_view client_id, std::string_view key) { return fmt::format("{}/{}/command/notify/{}", notify_prefix, hex_upper(client_id), hex_upper(key)); }

std::optional<std::string> notified_key(std::string_view topic, std::string_view client_id) {
    const auto prefix = notify_topic(client_id, "");
    if (!topic.starts_with(prefix)) return std::nullopt;
    topic.remove_prefix(prefix.size());
    std::string key;
    for (; topic.size() >= 2; topic.remove_prefix(2)) {
        unsigned byte = 0;
        const auto read = std::from_chars(topic.data(), topic.data() + 2, byte, 16);
        if (read.ec != std::errc() || read.ptr != topic.data() + 2) return std::nullopt;
        key += static_cast<char>(byte);
    }
    return topic.empty() ? std::optional(std::move(key)) : std::nullopt;
}

Answer StateStore::handle(const Request& request, std::int64_t now_ms, std::vector<Notification>& notifications) {
    const auto command = parse_command(request.payload);
    if (command.fault != nullptr) return error(command.fault);
    if (!request.is_allowed) return error(not_authorized);
    std::optional<Timestamp> sent;
    if (!request.timestamp.empty()) {
        sent = Timestamp::parse(request.timestamp);
        if (!sent) return error(bad_timestamp);
        if (sent->time > now_ms + Clock::ahead_max_ms) return error(future_request);
    } else if (command.verb == Verb::set) {
        return error(no_timestamp);
    }
    expire(request.monotonic_ms, now_ms, notifications);
    // What makes room is always done.
    if (request.is_full && command.verb != Verb::del && command.verb != Verb::vdel && !command.stop) return error(quota);
    switch (command.verb) {
        case Verb::set: return set(command, request, now_ms, notifications);
        case Verb::get: {
            ++counts_.retrievals;
            const auto found = entries_.find(command.key);
            if (found == entries_.end()) return {.payload = "$-1\r\n", .version = {}};
            return {.payload = bulk(found->second.value), .version = found->second.version};
        }
        case Verb::del:
        case Verb::vdel: return remove(command, request, now_ms, notifications);
        case Verb::keynotify: {
            ++counts_.keynotify_requests;
            const std::string key(command.key), client(request.client_id);
            if (!command.stop) {
                if (notify_topic(client, key).size() > topic_max) return error(long_key);
                if (watchers_[key].insert(client).second) counted_.add(watch_bytes(client, key));
                by_client_[client].insert(key);
                return {.payload = "+OK\r\n", .version = {}};
            }
            if (!unwatch(client, key)) return {.payload = ":0\r\n", .version = {}};
            if (auto& keys = by_client_[client]; keys.erase(key) > 0 && keys.empty()) by_client_.erase(client);
            return {.payload = "+OK\r\n", .version = {}};
        }
        case Verb::scan: return scan(command);
        case Verb::none: break;
    }
    return error(unknown);
}

const char* StateStore::check_fence(const Entry& entry, const Request& request, std::int64_t now_ms, std::optional<Timestamp>& token) const {
    if (!request.fence.empty()) {
        token = Timestamp::parse(request.fence);
        if (!token) return bad_timestamp;
        if (token->time > now_ms + Clock::ahead_max_ms) return future_fence;
    }
    if (!entry.fence) return nullptr;
    if (!token) return fence_missing;
    return *token < *entry.fence ? fence_lower : nullptr;
}

Answer StateStore::set(const Command& command, const Request& request, std::int64_t now_ms, std::vector<Notification>& notifications) {
    const auto found = entries_.find(command.key);
    static const Entry none;
    const auto& before = found == entries_.end() ? none : found->second;
    std::optional<Timestamp> token;
    if (const char* fault = check_fence(before, request, now_ms, token); fault != nullptr) return error(fault);
    const bool exists = found != entries_.end();
    if (exists && (command.only_new || (command.only_new_or_same && before.value != command.value))) return {.payload = ":-1\r\n", .version = before.version};
    if (!exists && entries_.size() >= keys_max_) return error(quota);
    ++(exists ? counts_.modifications : counts_.insertions);
    const auto sent = Timestamp::parse(request.timestamp);
    Entry entry{.value = std::string(command.value), .version = clock_.next(now_ms, &*sent), .fence = token ? token : before.fence, .expires_at = command.lives_ms != 0 ? request.monotonic_ms + command.lives_ms : 0, .is_kept = request.keep || before.is_kept};
    std::string key(command.key);
    if (before.expires_at != 0) expiries_.erase({before.expires_at, key});
    if (entry.expires_at != 0) expiries_.emplace(entry.expires_at, key);
    if (entry.is_kept) write_(key, &entry);
    const auto version = entry.version;
    notify(key, fmt::format("*4\r\n$6\r\nNOTIFY\r\n$3\r\nSET\r\n$5\r\nVALUE\r\n") + bulk(entry.value), version, notifications);
    counted_.set(counted_.bytes() - (exists ? bytes_of(key, before) : 0) + bytes_of(key, entry));
    entries_[std::move(key)] = std::move(entry);
    return {.payload = "+OK\r\n", .version = version};
}

void StateStore::erase(std::map<std::string, Entry, std::less<>>::iterator at) {
    if (at->second.expires_at != 0) expiries_.erase({at->second.expires_at, at->first});
    if (at->second.is_kept) write_(at->first, nullptr);
    ++counts_.deletions;
    counted_.take(bytes_of(at->first, at->second));
    entries_.erase(at);
}

Answer StateStore::remove(const Command& command, const Request& request, std::int64_t now_ms, std::vector<Notification>& notifications) {
    const auto found = entries_.find(command.key);
    if (found == entries_.end()) return {.payload = ":0\r\n", .version = {}};
    std::optional<Timestamp> token;
    if (const char* fault = check_fence(found->second, request, now_ms, token); fault != nullptr) return error(fault);
    if (command.verb == Verb::vdel && found->second.value != command.value) return {.payload = ":-1\r\n", .version = found->second.version};
    const auto version = found->second.version;
    const auto removed = clock_.next(now_ms);
    notify(found->first, "*2\r\n$6\r\nNOTIFY\r\n$6\r\nDELETE\r\n", removed, notifications);
    erase(found);
    return {.payload = ":1\r\n", .version = version};
}

/// Pages in the order of keys; the token is the last key of the page before.
Answer StateStore::scan(const Command& command) const {
    std::string keys;
    std::size_t count = 0;
    auto at = command.value.empty() ? entries_.begin() : entries_.upper_bound(command.value);
    std::string last;
    bool more = false;
    std::size_t looked = 0;
    for (; at != entries_.end(); ++at) {
        // A page is bounded by what it says and by what it cost to find.
        if (count >= page_keys || keys.size() >= page_bytes || looked >= 10'000) {
            more = true;
            break;
        }
        ++looked;
        last = at->first;
        if (!glob(command.key, at->first)) continue;
        keys += bulk(at->first);
        ++count;
    }
    return {.payload = fmt::format("*{}\r\n*{}\r\n", more ? 2 : 1, count) + keys + (more ? bulk(last) : ""), .version = {}};
}

void StateStore::expire(std::int64_t monotonic_ms, std::int64_t now_ms, std::vector<Notification>& notifications) {
    while (!expiries_.empty() && expiries_.begin()->first <= monotonic_ms) {
        const auto found = entries_.find(expiries_.begin()->second);
        notify(found->first, "*2\r\n$6\r\nNOTIFY\r\n$6\r\nDELETE\r\n", clock_.next(now_ms), notifications);
        erase(found);
    }
}

void StateStore::notify(const std::string& key, const std::string& payload, const Timestamp& version, std::vector<Notification>& out) {
    const auto found = watchers_.find(key);
    if (found == watchers_.end()) return;
    counts_.notifications += found->second.size();
    const auto shared = std::make_shared<const std::string>(payload);
    for (const auto& client : found->second) out.push_back({.client_id = client, .key = key, .payload = shared, .version = version});
}

void StateStore::keep(const std::function<bool(const std::string& key)>& wanted) {
    for (auto& [key, entry] : entries_) {
        if (entry.is_kept || !wanted(key)) continue;
        entry.is_kept = true;
        write_(key, &entry);
    }
}

bool StateStore::unwatch(const std::string& client_id, const std::string& key) {
    const auto found = watchers_.find(key);
    if (found == watchers_.end() || found->second.erase(client_id) == 0) return false;
    if (found->second.empty()) watchers_.erase(found);
    counted_.take(watch_bytes(client_id, key));
    return true;
}

std::size_t StateStore::bytes_of(const std::string& key, const Entry& entry) noexcept {
    constexpr std::size_t node = 64;
    return sizeof(Entry) + node + entry.value.size() + key.size() + (entry.expires_at != 0 ? node + key.size() : 0);
}

std::size_t StateStore::watch_bytes(const std::string& client_id, const std::string& key) noexcept {
    constexpr std::size_t nodes = 256;   // at the worst each of both has a table entry of its own
    return nodes + 2 * (client_id.size() + key.size());
}

void StateStore::forget_client(const std::string& client_id) {
    const auto found = by_client_.find(client_id);
    if (found == by_client_.end()) return;
    for (const auto& key : found->second) unwatch(client_id, key);
    by_client_.erase(found);
}

void StateStore::restore(std::string key, Entry entry) {
    clock_.see(entry.version);
    if (entry.expires_at != 0) expiries_.emplace(entry.expires_at, key);
    if (const auto known = entries_.find(key); known != entries_.end()) counted_.take(bytes_of(known->first, known->second));
    counted_.add(bytes_of(key, entry));
    entries_[std::move(key)] = std::move(entry);
}

}  // namespace penstock::statestore
