#include "client/file_follower.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/own_command.h"
#include "base/text.h"
#include "client/names.h"

namespace penstock::client {

using resources::at_path;
using resources::Json;
using resources::text_at;

namespace {

constexpr std::int64_t step_ms = 500, begin_step_ms = 50;

/// Of a document that its own kind refuses, without a server.
std::string cure_of_fault(const std::string& file, const std::string& reread) {
    if (file == "-") return "correct what is piped in (penstock validate -f - says what is wrong): standard input is read once, so it is piped in anew at the next start";
    return fmt::format("correct it ({} says what is wrong); it is read again when it changes{}", "penstock validate -f " + typed_path(file), reread.empty() ? "" : ", or with: " + reread);
}

/// True when `after` lacks a member or an item that `before` has: what a file looks like of which only the beginning is written.
bool lacks_something(const Json& before, const Json& after) {
    if (before.is_object()) {
        if (!after.is_object()) return !before.empty();
        for (const auto& [key, value] : before.items())
            if (const auto found = after.find(key); found == after.end() || lacks_something(value, *found)) return true;
        return false;
    }
    if (before.is_array()) {
        if (!after.is_array() || after.size() < before.size()) return !before.empty();
        for (std::size_t i = 0; i < before.size(); ++i)
            if (lacks_something(before[i], after[i])) return true;
    }
    return false;
}

/// The youngest file's last change, in ms since the Unix epoch; 0 when there is none.
std::int64_t youngest_ms(const Look& look) {
    std::int64_t out = 0;
    for (const auto& source : look)
        for (const auto& file : source.files) out = std::max({out, file.modified_ns / 1'000'000, file.changed_ns / 1'000'000});
    return out;
}

bool had(const std::optional<Look>& look, const FileMark& file) {
    return look && std::ranges::any_of(*look, [&](const SourceMark& source) { return std::ranges::find(source.files, file) != source.files.end(); });
}

}  // namespace

FileFollower::FileFollower(Transport& transport, std::unique_ptr<ManifestFiles> files, Options options)
    : transport_(transport), kinds_(transport), files_(std::move(files)), options_(std::move(options)) {}

const FollowState& FileFollower::step() {
    auto next = decide(options_.now_ms());
    next.was_applied |= state_.was_applied;
    if (next.objects == nullptr) next.objects = state_.objects;
    if (next != state_) {
        state_ = std::move(next);
        tell(state_);
        if (on_state_) on_state_(state_);
    }
    return state_;
}

void FileFollower::begin(std::int64_t patience_ms, const std::function<void(int)>& pause) {
    const auto end = options_.now_ms() + patience_ms;
    while (step().phase == FollowState::Phase::waiting && options_.now_ms() < end) pause(static_cast<int>(begin_step_ms));
}

void FileFollower::follow(const std::atomic<bool>& stop, const std::function<void(int)>& pause) {
    while (!stop) {
        pause(static_cast<int>(step_ms));
        if (!stop) step();
    }
}

/// Each cause is logged once, not at every look.
void FileFollower::tell(const FollowState& state) {
    if (state.why == told_) return;
    told_ = state.why;
    if (state.phase == FollowState::Phase::waiting && !state.why.empty()) log::info("app", "manifests are not taken yet, what was in force stays: {}", state.why);
    if (state.phase == FollowState::Phase::faulty) {
        for (const auto& fault : state.faults) log::error("app", "manifest fault: {}", fault);
        log::error("app", "{} fault{} in the manifests; the running configuration stays as it was", state.faults.size(), state.faults.size() == 1 ? "" : "s");
    }
    if (state.phase == FollowState::Phase::refused)
        for (const auto& fault : state.faults) log::error("app", "manifest refused: {}{}", fault, &fault == state.faults.data() && !state.cure.empty() ? "; " + state.cure : "");
}

FollowState FileFollower::waiting(std::string why, std::string cure) { return {.phase = FollowState::Phase::waiting, .why = std::move(why), .cure = std::move(cure)}; }

void FileFollower::notice(Look look, std::int64_t now) {
    if (seen_ && *seen_ == look) return;
    // At the start files count as unchanged for as long as they say; a clock that was set back says nothing.
    const auto age = seen_ ? 0 : std::max<std::int64_t>(0, options_.wall_ms() - youngest_ms(look));
    const bool has_files = youngest_ms(look) != 0;
    changed_at_ms_ = now - (has_files ? std::min(age, removal_ms) : 0);
    seen_ = std::move(look);
    documents_.reset();
    lost_.reset();
    retry_at_ms_ = retry_ms_ = 0;
}

FollowState FileFollower::decide(std::int64_t now) {
    if (is_to_read_again_.exchange(false)) seen_.reset(), applied_.reset();
    notice(files_->look(), now);
    if (applied_ == seen_ && (outcome_.phase != FollowState::Phase::refused || now < retry_at_ms_)) return outcome_;   // also when they were away meanwhile
    std::int64_t needed_ms = settle_ms;
    if (auto state = not_whole(now, needed_ms)) return *state;
    if (now - changed_at_ms_ < needed_ms) return waiting("they changed a moment ago");
    if (!documents_)
        if (auto state = read(now)) return *state;
    constexpr const char* cut = "a file does not end with a line's end and may be half written";
    if (ends_early_) needed_ms = std::max(needed_ms, cut_ms);
    if (now - changed_at_ms_ < needed_ms) return waiting(cut);
    if (!faults_.empty()) return {.phase = FollowState::Phase::faulty, .why = faults_.front(), .faults = faults_, .cure = cure_of_fault(faulty_file_, options_.reread)};
    if (!lost_)
        if (auto found = find_losses(); !found) return waiting(found.error().message);
    if (now - content_since_ms_ < lost_needs_ms_) return waiting(fmt::format("{}; that takes effect when the files stay so for {} s", *lost_, lost_needs_ms_ / 1000));
    outcome_ = apply(now);
    return outcome_;
}

/// Why the files cannot be taken for whole, if so; else how long they must have been unchanged.
std::optional<FollowState> FileFollower::not_whole(std::int64_t now, std::int64_t& needed_ms) {
    for (const auto& source : *seen_)
        if (!source.fault.empty()) return waiting(fmt::format("{}; nothing that came from the files is deleted until it is back", source.fault), fmt::format("see what is there with: ls -ld {}; it is looked at again by itself", typed_path(source.path)));
    for (const auto& source : *seen_)
        if (source.is_folder && source.files.empty() && !options_.may_be_empty) return waiting(fmt::format("{}: no .yaml, .yml or .json file in it; nothing that came from it is deleted", source.path), fmt::format("put a manifest into the folder; see what is in it with: ls -la {}", typed_path(source.path)));
    bool is_known_whole = true;
    for (const auto& source : *seen_)
        for (const auto& file : source.files) {
            if (had(applied_, file)) continue;
            const auto writer = files_->writer_of(file.path);
            is_known_whole &= writer == Writer::none;
            if (writer == Writer::unknown) needed_ms = std::max(needed_ms, cut_ms);
            if (writer != Writer::some || now - changed_at_ms_ >= writer_ms) continue;
            return waiting(fmt::format("{}: a program has it open for writing; it is taken when that program closes it, or after {} s without a change", file.path, writer_ms / 1000));
        }
    if (!applied_ && is_known_whole) needed_ms = 0;   // a start does not wait where nobody writes
    return std::nullopt;
}

/// Reads and checks what `seen_` shows; nothing when that was done.
std::optional<FollowState> FileFollower::read(std::int64_t now) {
    Documents documents;
    bool ends_early = false;
    std::size_t bytes = 0, content = 0;
    faults_.clear();
    for (const auto& source : *seen_)
        for (const auto& file : source.files) {
            const auto text = files_->read(file.path);
            if (!text) return waiting(fmt::format("{}; nothing that came from the files is deleted until it can be read", text.error().message), fmt::format("see who may read it with: ls -l {}", typed_path(file.path)));
            bytes += text->size();
            content = content * 31 + std::hash<std::string>{}(file.path) * 7 + std::hash<std::string>{}(*text);
            if (bytes > manifests_bytes_max)
                return FollowState{
                    .phase = FollowState::Phase::faulty,
                    .why = fmt::format("the files are larger than {} bytes together", manifests_bytes_max),
                    .faults = {fmt::format("{}: the files are larger than {} bytes together", file.path,
                                           manifests_bytes_max)},
                    .cure = "move what is not needed out of them; see how large they are with: du -ch " + typed_path(source.path)};
            ends_early |= !text->empty() && text->back() != '\n' && !had(applied_, file);
            auto some = resources::parse_documents(*text, file.path);
            if (some) std::ranges::move(*some, std::back_inserter(documents));
            else {
                if (faults_.empty()) faulty_file_ = file.path;
                faults_.push_back(some.error().message);
            }
        }
    // Files that changed while they were read may be of two states that never were together.
    if (auto again = files_->look(); again != *seen_) {
        notice(std::move(again), now);
        return waiting("they changed while they were read");
    }
    if (faults_.empty()) {
        faults_ = validate_documents(documents, true);
        const auto first = std::ranges::find_if(documents, [&](const auto& document) { return !faults_.empty() && faults_.front().starts_with(place_of(document)); });
        if (first != documents.end()) faulty_file_ = first->file;
    }
    if (faults_.size() > resources::faults_max) {
        const auto more = faults_.size() - resources::faults_max;
        faults_.resize(resources::faults_max);
        faults_.push_back(fmt::format("and {} more", more));
    }
    std::ranges::stable_sort(documents, {}, rank_of);
    documents_ = std::move(documents);
    ends_early_ = ends_early;
    // A file that is written again and again with the same text does not begin to wait again each time.
    if (content_ != content) content_ = content, content_since_ms_ = changed_at_ms_;
    return std::nullopt;
}

/// Fills `lost_`, for a person, and how long the files must stay so for it.
Result<void> FileFollower::find_losses() {
    std::map<std::string, const Json*> wanted;
    for (const auto& document : *documents_) wanted[key_of(document.object)] = &document.object;
    const auto present = owned();
    if (!present) return std::unexpected(present.error());
    std::size_t gone = 0;
    std::string first;
    for (const auto& [key, object] : *present)
        if (!wanted.contains(key) && gone++ == 0) first = object.label;
    lost_ = std::string();
    lost_needs_ms_ = 0;
    if (gone > 0) {
        lost_needs_ms_ = wanted.empty() ? empty_ms : removal_ms;
        const auto more = gone > 1 ? fmt::format(" and {} more", gone - 1) : std::string();
        lost_ = wanted.empty() ? fmt::format("there is no document left in them; {}{} would be deleted", first, more) : fmt::format("{}{} left them and would be deleted", first, more);
        return {};
    }
    for (const auto& [key, object] : in_force_) {
        const auto found = wanted.find(key);
        if (found == wanted.end() || !lacks_something(object, *found->second)) continue;
        lost_needs_ms_ = removal_ms;
        lost_ = fmt::format("{} lost a field or an item", key);
        return {};
    }
    return {};
}

FollowState FileFollower::apply(std::int64_t now) {
    std::vector<std::string> refusals;
    std::string cure;
    auto held = std::make_shared<std::vector<FollowedObject>>();
    std::map<std::string, Json> taken;
    for (const auto& document : *documents_) taken[key_of(document.object)] = document.object;
    // What left the files goes first: a port or service type may have moved to another listener.
    if (const auto present = owned()) {
        for (const auto& [key, object] : *present) {
            if (taken.contains(key)) continue;
            const auto removed = transport_.request("DELETE", object.target);
            if (removed && (removed->ok() || removed->status == 404)) log::info("app", "{} deleted, it left the manifests", object.label);
            else {
                refusals.push_back(fmt::format("{} left the manifests and cannot be deleted: {}", object.label, removed ? removed->message() : removed.error().message));
                // Deleting needs no room of its own, and nothing in the files is to be corrected.
                if (cure.empty()) cure = cure_of(removed && refusal_of(*removed) == Refusal::no_space ? Refusal::no_space : Refusal::busy, "", "", manager, options_.reread);
            }
        }
    } else {
        refusals.push_back(fmt::format("what left the manifests is not deleted yet: {}", present.error().message));
        cure = cure_of(Refusal::busy, "", "", manager, options_.reread);
    }
    bool any_taken = documents_->empty();
    for (const auto& document : *documents_) {
        const auto before = refusals.size();
        apply_one(document, refusals, cure, *held);
        any_taken |= refusals.size() == before;
    }
    applied_ = seen_;
    in_force_ = std::move(taken);
    std::erase_if(warned_, [&](const auto& one) { return !in_force_.contains(one.first); });
    if (refusals.empty()) {
        retry_at_ms_ = retry_ms_ = 0;
        return {.phase = FollowState::Phase::applied, .why = {}, .faults = {}, .cure = {}, .was_applied = true, .objects = std::move(held)};
    }
    // What stood in the way may go: a namespace may come, a disk get room, an owner give a field back.
    retry_ms_ = retry_ms_ == 0 ? first_retry_ms : std::min(2 * retry_ms_, longest_retry_ms);
    retry_at_ms_ = now + retry_ms_;
    auto why = refusals.front();
    return {.phase = FollowState::Phase::refused, .why = std::move(why), .faults = std::move(refusals), .cure = std::move(cure), .was_applied = any_taken, .objects = std::move(held)};
}

void FileFollower::apply_one(const resources::Document& document, std::vector<std::string>& refusals, std::string& cure, std::vector<FollowedObject>& held) {
    const auto space = namespace_of(document.object, options_.name_space);
    auto marked = document;
    if (!marked.object["metadata"].is_object()) return refusals.push_back(fmt::format("{}: document {} (line {}): metadata: an object is needed", document.file, document.index, document.line));
    auto& annotations = marked.object["metadata"]["annotations"];
    if (annotations.is_null()) annotations = Json::object();
    if (!annotations.is_object()) return refusals.push_back(fmt::format("{}: document {} (line {}): metadata.annotations: an object is needed", document.file, document.index, document.line));
    annotations[FileFollower::source_annotation] = options_.source;
    // What `get -o yaml` printed is a file too: version and uid are those of the object it was printed of.
    marked.object["metadata"].erase("resourceVersion");
    marked.object["metadata"].erase("uid");
    const auto result =
        apply_document(transport_, kinds_, marked,
                       {.name_space = options_.name_space, .server_side = true, .manager = manager});
    const auto done = cure_of(result.refusal, document.file, space, manager, options_.reread);
    if (!result.error.empty() && cure.empty()) cure = done;
    if (result.error.empty()) {
        const auto* kind = resources::find_kind(text_at(document.object, "apiVersion"), text_at(document.object, "kind"));
        const auto in = kind != nullptr && !kind->namespaced ? std::string() : space;
        held.push_back({.api_version = text_at(document.object, "apiVersion"), .kind = text_at(document.object, "kind"), .name_space = in, .name = text_at(document.object, "metadata.name"), .file = document.file});
    }
    if (result.refusal == Refusal::owned) {
        refusals.push_back(fmt::format("others own fields of it: {}", result.error));
        if (on_conflict_ && std::ranges::find(state_.faults, refusals.back()) == state_.faults.end()) on_conflict_(document.object, result.error);
    } else if (!result.error.empty()) {
        const auto place = place_of(document);
        refusals.push_back(result.error.starts_with(place) ? result.error : fmt::format("{}: {}", place, result.error));
    } else if (result.outcome != "unchanged") {
        log::info("app", "{} {}", result.what, result.outcome);
    }
    if (!result.error.empty()) return;
    // Once, however often the files are looked at again.
    auto& warned = warned_[key_of(document.object)];
    if (std::exchange(warned, result.warnings) == result.warnings) return;
    for (const auto& warning : result.warnings)
        log::warn("app", "{}: {}: {}", place_of(document), result.what, printable(warning));
}

std::string FileFollower::key_of(const Json& object) const {
    const auto api_version = text_at(object, "apiVersion");
    const auto slash = api_version.find('/');
    return fmt::format("{}{}{}/{}/{}", text_at(object, "kind"), slash == std::string::npos ? "" : ".", slash == std::string::npos ? "" : api_version.substr(0, slash),
                       namespace_of(object, options_.name_space), text_at(object, "metadata.name"));
}

/// The objects that came from these files, by key. An error where one kind cannot be listed: half a list would be taken for absence.
Result<std::map<std::string, FileFollower::Owned>> FileFollower::owned() {
    std::map<std::string, Owned> out;
    const auto served = discover(transport_);   // anew each time: definitions come and go
    if (!served) return fail(fmt::format("the kinds cannot be asked for: {}", served.error().message));
    for (const auto& kind : *served) {
        if (!kind.stored || kind.read_only) continue;
        const auto list = transport_.request("GET", path_of(kind, ""));
        if (!list || (!list->ok() && list->status != 404)) return fail(fmt::format("{} cannot be listed: {}", kind.plural, list ? list->message() : list.error().message));
        if (!list->ok()) continue;
        for (const auto& item : at_path(list->body, "items")) {
            const auto& annotations = at_path(item, "metadata.annotations");
            if (!annotations.is_object() || !annotations.contains(FileFollower::source_annotation) || annotations[FileFollower::source_annotation] != options_.source) continue;
            auto object = item;
            object["apiVersion"] = kind.api_version();
            object["kind"] = kind.kind;
            const auto space = text_at(item, "metadata.namespace"), name = text_at(item, "metadata.name");
            out[key_of(object)] = {.target = path_of(kind, space, name), .label = fmt::format("{}/{}", kind.singular, name)};
        }
    }
    return out;
}

}  // namespace penstock::client
