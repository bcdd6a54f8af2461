#include "app/followed_files.h"

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "app/start_watch.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/own_command.h"
#include "client/names.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::Json;
using resources::text_at;

/// Without an answer for so long a file is given up for the time being.
constexpr std::int64_t mute_files_ms = 8000;
/// An end does not wait longer for somebody who reads such a file.
constexpr std::int64_t held_up_ms = 8000;
/// A start goes on without files that are not whole by then.
constexpr std::int64_t first_files_patience_ms = 2000;

/// What is being read, for those who look on from other threads.
class Reading {
  public:
    /// Until the end of what is done with that file or folder.
    class Call {
      public:
        Call(Reading& of, const std::string& path) : of_(of) { of_.set(path); }
        ~Call() { of_.set({}); }
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;

      private:
        Reading& of_;
    };
    /// What has been read for longer than that; empty: nothing.
    std::string mute(std::int64_t milliseconds) const {
        const std::lock_guard lock(guard_);
        return !path_.empty() && monotonic_ms() - since_ms_ >= milliseconds ? path_ : std::string();
    }

  private:
    void set(const std::string& path) {
        const std::lock_guard lock(guard_);
        path_ = path;
        since_ms_ = monotonic_ms();
    }
    mutable std::mutex guard_;           ///< what follows
    std::string path_;
    std::int64_t since_ms_ = 0;          ///< monotonic
};

/// Files of which is told what is being read.
class ToldFiles final : public client::ManifestFiles {
  public:
    ToldFiles(std::vector<std::string> sources, Reading& reading)
        : name_(sources.front()), reading_(reading) {
        const Reading::Call call(reading_, name_);
        files_ = std::make_unique<client::DiskFiles>(std::move(sources));
    }
    client::Look look() override {
        const Reading::Call call(reading_, name_);
        return files_->look();
    }
    client::Writer writer_of(const std::string& path) override {
        const Reading::Call call(reading_, path);
        return files_->writer_of(path);
    }
    Result<std::string> read(const std::string& path) override {
        const Reading::Call call(reading_, path);
        return files_->read(path);
    }

  private:
    std::string name_;
    Reading& reading_;
    std::unique_ptr<client::DiskFiles> files_;
};

}  // namespace

std::string source_of(const std::vector<std::string>& files) {
    return files.front() == "-" ? files.front() : fs::absolute(files.front()).string();
}

void FollowBoard::put(const std::string& source, client::FollowState state) {
    const std::lock_guard lock(guard_);
    states_[source] = std::move(state);
}

std::map<std::string, client::FollowState> FollowBoard::states() const {
    const std::lock_guard lock(guard_);
    return states_;
}

std::string FollowBoard::why_not() const {
    std::string out;
    for (const auto& [source, state] : states())
        if (state.phase != client::FollowState::Phase::applied)
            out += fmt::format("{}{}", out.empty() ? "" : "; ", state.why);
    return out;
}

std::string FollowBoard::say_again(const std::string& reread) const {
    constexpr std::size_t told_max = 3;
    std::string sources;
    std::size_t count = 0;
    for (const auto& [source, state] : states()) {
        // Standard input is read once.
        if (source == "-" || state.objects == nullptr || state.objects->empty()) continue;
        if (count++ < told_max) sources += (sources.empty() ? "" : ", ") + typed_path(source);
    }
    if (count == 0) return {};
    return fmt::format("what the followed files ({}{}) have comes back with: {}", sources,
                       count > told_max ? ", ..." : "", reread);
}

/// One source of manifests and the thread that follows it, with all that it does there.
class FollowedFiles::Source {
  public:
    using Make = std::function<std::unique_ptr<client::FileFollower>(client::Client&, Reading&)>;
    Source(std::string name, client::Access access, Make make, const Options& options)
        : name_(std::move(name)), connection_(std::move(access)),
          thread_([this, make = std::move(make), &options] { follow(make, options); }) {}
    ~Source() { thread_.join(); }
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// Until what stands there at the start is in force, or is not whole yet; until something does not answer
    /// for so long; or until an order to stop has come.
    void wait_begun(std::int64_t mute_ms) {
        std::unique_lock lock(guard_);
        while (!has_begun_ && !is_told_to_stop() && reading_.mute(mute_ms).empty())
            changed_.wait_for(lock, std::chrono::milliseconds(100));
    }
    /// The file or folder that does not answer, at most once for each time; empty: none.
    std::string mute(std::int64_t milliseconds) {
        auto path = reading_.mute(milliseconds);
        const std::lock_guard lock(guard_);
        if (path == told_) return {};
        return told_ = std::move(path);
    }
    void go_on() {
        set([&] { is_to_go_on_ = true; });
    }
    void read_again() {
        set([&] { if (follower_ != nullptr) follower_->read_again(); });
    }
    /// `stopping` is set. False: the thread is held up.
    bool wait_ended(std::int64_t milliseconds) {
        std::unique_lock lock(guard_);
        return changed_.wait_for(lock, std::chrono::milliseconds(milliseconds),
                                 [this] { return has_ended_; });
    }

  private:
    void follow(const Make& make, const Options& options) {
        const auto follower = make(connection_, reading_);
        set([&] { follower_ = follower.get(); });
        follower->begin(first_files_patience_ms, options.pause);
        {
            std::unique_lock lock(guard_);
            has_begun_ = true;
            changed_.notify_all();
            changed_.wait(lock, [this] { return is_to_go_on_; });
        }
        follower->follow(options.stopping, options.pause);
        set([&] { follower_ = nullptr, has_ended_ = true; });
    }
    void set(const std::function<void()>& change) {
        const std::lock_guard lock(guard_);
        change();
        changed_.notify_all();
    }
    const std::string name_;
    client::Client connection_;          ///< the thread's
    Reading reading_;
    std::mutex guard_;                   ///< what follows
    std::string told_;                   ///< what mute() answered last
    std::condition_variable changed_;
    client::FileFollower* follower_ = nullptr;
    bool has_begun_ = false, is_to_go_on_ = false, has_ended_ = false;
    std::thread thread_;                 ///< last: it uses the others
};

FollowedFiles::FollowedFiles(Options options)
    : options_(std::move(options)), recorder_(options_.objects, client::FileFollower::manager, options_.clock) {}

FollowedFiles::~FollowedFiles() = default;

void FollowedFiles::begin(client::Access access, const std::vector<std::string>& files, bool may_be_empty) {
    const auto source = source_of(files);
    auto make = [this, files, source, may_be_empty, space = access.name_space](client::Client& connection,
                                                                               Reading& reading) {
        auto follower = std::make_unique<client::FileFollower>(
            connection, std::make_unique<ToldFiles>(files, reading),
            client::FileFollower::Options{.source = source,
                                          .name_space = space,
                                          .may_be_empty = may_be_empty,
                                          .reread = options_.reread,
                                          .now_ms = monotonic_ms,
                                          .wall_ms = wall_ms});
        follower->on_state(
            [this, source](const client::FollowState& state) { options_.on_state(source, state); });
        follower->on_conflict([this, space](const Json& object, const std::string& why) {
            const auto* kind = resources::find_kind(text_at(object, "apiVersion"), text_at(object, "kind"));
            if (kind == nullptr) return;
            const auto live =
                options_.objects.get(*kind, kind->namespaced ? client::namespace_of(object, space) : "",
                                     text_at(object, "metadata.name"));
            if (live) recorder_.record(*live, "Warning", "FileConflict", why);
        });
        return follower;
    };
    sources_.push_back(std::make_unique<Source>(source, std::move(access), std::move(make), options_));
    sources_.back()->wait_begun(mute_files_ms);
    tell_if_mute(*sources_.back());
}

void FollowedFiles::go_on() {
    for (const auto& source : sources_) source->go_on();
}

void FollowedFiles::read_again() {
    for (const auto& source : sources_) source->read_again();
}

void FollowedFiles::tell_if_mute(Source& source) {
    const auto path = source.mute(mute_files_ms);
    if (path.empty()) return;
    const auto why = fmt::format(
        "{}: reading it does not come to an end; is it on a mount or disk that does not "
        "answer? What was in force stays, and it is taken when it answers",
        path);
    log::warn("app", "manifests cannot be read, and nothing waits for them why=\"{}\"", why);
    options_.on_state(source.name(), {.phase = client::FollowState::Phase::waiting,
                                      .why = why,
                                      .faults = {},
                                      .cure = "see whether it answers with: ls -l " + typed_path(path)});
}

void FollowedFiles::look_for_mute() {
    for (const auto& source : sources_) tell_if_mute(*source);
}

bool FollowedFiles::wait_ended() {
    return std::ranges::all_of(sources_, [](const auto& source) { return source->wait_ended(held_up_ms); });
}

}  // namespace penstock::app
