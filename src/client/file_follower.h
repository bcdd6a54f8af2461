#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/apply.h"
#include "client/kinds.h"
#include "client/manifest_files.h"

namespace penstock::client {

/// An object that a document of the files made, or found as it is to be.
struct FollowedObject {
    std::string api_version, kind, name_space, name, file;
    bool operator==(const FollowedObject&) const = default;
};

/// How the files and what is in force stand to each other.
struct FollowState {
    enum class Phase : std::uint8_t {
        applied,                         ///< what the files say is in force
        waiting,                         ///< the files are not taken yet, or not there; what was in force stays
        faulty,                          ///< a document has a fault; what was in force stays
        refused,                         ///< a document was refused or others own its fields; the rest is in force; it is tried again
    };
    Phase phase = Phase::waiting;
    std::string why = "not looked at yet";   ///< for a person; empty when applied
    std::vector<std::string> faults;     ///< `file: document 2 (line 14): path: why`, with Phase::faulty and Phase::refused
    std::string cure;                    ///< what a person does about `why`: a command; empty: nothing has to be done
    bool was_applied = false;            ///< something was applied since this start
    /// What the files have in the API since it was applied last; null: nothing yet. Never changes: what is applied next is another one.
    std::shared_ptr<const std::vector<FollowedObject>> objects = {};
    bool operator==(const FollowState&) const = default;
};

/// Applies manifests and keeps following them, by server-side apply as a manager of their own: a change is applied, a document
/// that goes away is deleted, and a field that somebody else changed is not fought over: the conflict is told.
///
/// A file takes effect when it is whole, as far as that can be known: nobody has it open for writing, it has not changed for
/// `settle_ms`, and while it was read nothing changed. What takes something away (a document, a field, an item of a list) takes effect
/// only after `removal_ms` without a change, since a file that is written in pieces looks the same; where nothing at all would be left,
/// after `empty_ms`. A file or folder that is not there or cannot be read takes nothing away, however long.
///
/// Sans-I/O but for the transport: time and files are given. Core: one thread.
class FileFollower {
  public:
    static constexpr std::int64_t settle_ms = 1000, cut_ms = 3000, removal_ms = 10'000, empty_ms = 30'000, writer_ms = 60'000;
    static constexpr std::int64_t first_retry_ms = 5000, longest_retry_ms = 60'000;
    /// Marks objects of files: annotation, with Options::source as its value.
    static constexpr const char* source_annotation = "penstock.io/applied-from";
    /// Who owns the fields that files set (server-side apply).
    static constexpr const char* manager = "penstock-files";
    struct Options {
        std::string source;              ///< what the objects are marked with, so that they are found again
        std::string name_space;          ///< for documents that name none
        bool may_be_empty = false;       ///< a folder without manifests is no fault
        std::string reread = {};         ///< the command that has the files read again, for a person
        std::function<std::int64_t()> now_ms;    ///< monotonic
        std::function<std::int64_t()> wall_ms;   ///< since the Unix epoch; for the age of files at the start
    };
    FileFollower(Transport& transport, std::unique_ptr<ManifestFiles> files, Options options);

    /// Looks once, and acts where it is time.
    const FollowState& step();
    /// Steps until something is settled, for `patience_ms` at most: what a start waits for.
    void begin(std::int64_t patience_ms, const std::function<void(int)>& pause);
    /// At the next step the files are read and applied as at a start, whether or not they changed. Any thread.
    void read_again() noexcept { is_to_read_again_ = true; }
    /// Steps twice a second until `stop`; `pause` blocks for so many milliseconds.
    void follow(const std::atomic<bool>& stop, const std::function<void(int)>& pause);
    /// Told of a document whose fields others own.
    void on_conflict(std::function<void(const resources::Json& object, const std::string& why)> told) { on_conflict_ = std::move(told); }
    /// Told whenever the state is another one, on the thread that steps.
    void on_state(std::function<void(const FollowState&)> told) { on_state_ = std::move(told); }
    [[nodiscard]] const FollowState& state() const noexcept { return state_; }

  private:
    struct Owned {
        std::string target;              ///< path of the object in the API
        std::string label;
    };
    using Documents = std::vector<resources::Document>;

    FollowState decide(std::int64_t now);
    void notice(Look look, std::int64_t now);
    FollowState waiting(std::string why, std::string cure = {});
    std::optional<FollowState> not_whole(std::int64_t now, std::int64_t& needed_ms);
    std::optional<FollowState> read(std::int64_t now);
    Result<void> find_losses();
    Result<std::map<std::string, Owned>> owned();
    FollowState apply(std::int64_t now);
    /// `cure` gets what is to be done about the first refusal.
    void apply_one(const resources::Document& document, std::vector<std::string>& refusals, std::string& cure, std::vector<FollowedObject>& held);
    [[nodiscard]] std::string key_of(const resources::Json& object) const;
    void tell(const FollowState& state);

    Transport& transport_;
    Kinds kinds_;
    std::unique_ptr<ManifestFiles> files_;
    Options options_;
    std::atomic<bool> is_to_read_again_{false};
    std::optional<Look> seen_, applied_;
    std::int64_t changed_at_ms_ = 0;             ///< when the files were first seen as they are
    std::optional<std::size_t> content_;         ///< a hash of what was read last
    std::int64_t content_since_ms_ = 0;          ///< since when the files say what they say
    std::optional<Documents> documents_;         ///< of `seen_`
    bool ends_early_ = false;                    ///< a file of `seen_` does not end with a line's end
    std::optional<std::string> lost_;            ///< what `documents_` would take away; empty: nothing
    std::int64_t lost_needs_ms_ = 0;             ///< how long the files must stay so for that
    std::vector<std::string> faults_;            ///< of `documents_`
    std::string faulty_file_;                    ///< of the first of them
    std::map<std::string, resources::Json> in_force_;    ///< documents as they were applied last, since this start
    std::int64_t retry_at_ms_ = 0, retry_ms_ = 0;        ///< after a refusal; 0: none
    FollowState outcome_;                        ///< of the last `apply`
    FollowState state_;
    std::map<std::string, std::vector<std::string>> warned_;     ///< what was logged, by document in force
    std::string told_;                           ///< what was logged last
    std::function<void(const resources::Json&, const std::string&)> on_conflict_;
    std::function<void(const FollowState&)> on_state_;
};

}  // namespace penstock::client
