#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/counted.h"
#include "base/keyed_hash.h"
#include "statestore/clock.h"

namespace penstock::statestore {

inline constexpr std::string_view request_topic = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke";
inline constexpr std::string_view notify_prefix = "clients/statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8";

enum class Verb : std::uint8_t { none, set, get, del, vdel, keynotify, scan };

/// A request as RESP says it (fact sheet 10.2), or what is wrong with it.
struct Command {
    Verb verb = Verb::none;
    std::string_view key;                ///< of SCAN: the pattern
    std::string_view value;              ///< of SCAN: the token
    bool only_new = false;               ///< NX
    bool only_new_or_same = false;       ///< NEX
    std::int64_t lives_ms = 0;           ///< PX; 0: for ever
    bool stop = false;                   ///< KEYNOTIFY ... STOP
    const char* fault = nullptr;         ///< text of the error, when there is one
};
/// Views into `payload`.
Command parse_command(std::string_view payload);

/// What a key holds.
struct Entry {
    std::string value;
    Timestamp version;
    std::optional<Timestamp> fence;
    std::int64_t expires_at = 0;         ///< monotonic ms; 0: never
    bool is_kept = false;                ///< on disk
};

struct Answer {
    std::string payload;
    std::optional<Timestamp> version;    ///< for `__ts`
};
struct Notification {
    std::string client_id, key;
    std::shared_ptr<const std::string> payload;   ///< one and the same for all watchers
    Timestamp version;
};

/// All keys. Every command is atomic; expiry is as exact as the calls of expire(). Keys, values and registrations count in the message
/// pool. Core: home (one worker owns it).
class StateStore {
  public:
    /// What is to be written, with the key; a null entry is a deletion.
    using Write = std::function<void(const std::string& key, const Entry* entry)>;
    StateStore(Write write, std::size_t keys_max) : write_(std::move(write)), keys_max_(keys_max) {}
    /// Another one writes from now on.
    void set_write(Write write) { write_ = std::move(write); }
    void set_keys_max(std::size_t count) noexcept { keys_max_ = count; }

    struct Request {
        std::string_view client_id;
        std::string_view payload;
        std::string_view timestamp;      ///< `__ts`; empty: none
        std::string_view fence;          ///< `__ft`
        bool keep = false;               ///< keys set by it go to disk
        bool is_allowed = true;          ///< by authorization
        bool is_full = false;            ///< the message pool has no room: what needs memory is refused with the quota error
        std::int64_t monotonic_ms = 0;   ///< lives of keys are counted by this clock, which nobody sets
    };
    /// Fact sheet 10.2 to 10.7. `notifications` gets what watchers of the key must be told.
    Answer handle(const Request& request, std::int64_t now_ms, std::vector<Notification>& notifications);
    /// Removes what has expired.
    void expire(std::int64_t monotonic_ms, std::int64_t now_ms, std::vector<Notification>& notifications);
    /// When the next key expires, monotonic ms; 0: none does.
    [[nodiscard]] std::int64_t next_expiry() const { return expiries_.empty() ? 0 : expiries_.begin()->first; }
    /// The client disconnected: its registrations end.
    void forget_client(const std::string& client_id);
    /// Keys are kept from now on: those that `wanted` names are written.
    void keep(const std::function<bool(const std::string& key)>& wanted);
    /// A key from before a restart.
    void restore(std::string key, Entry entry);

    /// Since the start (fact sheet 9.4).
    struct Counts {
        std::uint64_t insertions = 0, modifications = 0, deletions = 0, retrievals = 0, keynotify_requests = 0, notifications = 0;
    };
    [[nodiscard]] const Counts& counts() const noexcept { return counts_; }
    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
    [[nodiscard]] std::size_t watchers() const noexcept { return by_client_.size(); }

  private:
    Answer set(const Command& command, const Request& request, std::int64_t now_ms, std::vector<Notification>& notifications);
    Answer remove(const Command& command, const Request& request, std::int64_t now_ms, std::vector<Notification>& notifications);
    Answer scan(const Command& command) const;
    /// Null: the fencing token allows it; else the error.
    const char* check_fence(const Entry& entry, const Request& request, std::int64_t now_ms, std::optional<Timestamp>& token) const;
    void notify(const std::string& key, const std::string& payload, const Timestamp& version, std::vector<Notification>& out);
    void erase(std::map<std::string, Entry, std::less<>>::iterator at);
    bool unwatch(const std::string& client_id, const std::string& key);
    [[nodiscard]] static std::size_t bytes_of(const std::string& key, const Entry& entry) noexcept;
    [[nodiscard]] static std::size_t watch_bytes(const std::string& client_id, const std::string& key) noexcept;

    Write write_;
    Counts counts_;
    std::size_t keys_max_;
    Clock clock_;
    Counted counted_;
    std::map<std::string, Entry, std::less<>> entries_;
    std::set<std::pair<std::int64_t, std::string>> expiries_;
    std::unordered_map<std::string, std::set<std::string>, TextHash> watchers_;   ///< key → clients
    std::unordered_map<std::string, std::set<std::string>, TextHash> by_client_;  ///< client → keys
};

/// A topic has at most so many bytes, and notifications have a topic of the client's and the key's name.
inline constexpr std::size_t topic_max = 65'535;
/// Upper-case hexadecimal.
std::string hex_upper(std::string_view bytes);
std::string notify_topic(std::string_view client_id, std::string_view key);
/// The key that this client is told about on `topic`; nothing: it is no such topic.
std::optional<std::string> notified_key(std::string_view topic, std::string_view client_id);

}  // namespace penstock::statestore
