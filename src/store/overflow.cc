#include "store/overflow.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <limits>
#include <mutex>
#include <thread>
#include <unordered_map>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/held_folder.h"
#include "base/log.h"
#include "base/random.h"
#include "crypto/seal.h"
#include "io/poller.h"
#include "store/record.h"

namespace penstock::store {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t block_min = 256 << 10;              // bytes that are written at once
constexpr std::int64_t file_min = 1 << 20, file_max = 64 << 20;
constexpr std::int64_t unwritten_max = 32 << 20;          // bytes waiting for the disk, of one worker
constexpr std::int64_t look_ms = 1000;                    // between two looks at the free space
constexpr std::int64_t pause_ms = 5000;                   // after a failed write, until the next is tried
constexpr const char* extension = ".buffer";

/// One file of one worker: written from front to back, deleted when nobody needs anything in it.
struct File {
    std::uint32_t number = 0;
    std::string path, key;
    int fd = -1;                         ///< of the disk's thread
    std::unique_ptr<crypto::Sealer> opener;   ///< of the disk's thread
    // the worker's
    std::unique_ptr<crypto::Sealer> sealer;
    std::uint64_t size = 0;
    std::uint32_t needed = 0;            ///< messages that somebody waits for
    struct Block {
        std::uint64_t offset = 0;
        std::shared_ptr<const std::string> bytes;
    };
    std::deque<Block> unwritten;         ///< on their way to the disk, or refused by it
};

struct Job {
    enum class Kind : std::uint8_t { write, read, remove } kind{};
    std::shared_ptr<File> file;
    std::uint32_t worker = 0;
    // write
    std::uint64_t offset = 0;
    std::shared_ptr<const std::string> bytes;
    bool good = false;
    // read
    struct Wanted {
        std::shared_ptr<File> file;      ///< null: the message is here
        Place place;
        mqtt::MessageRef message;
    };
    std::vector<Wanted> wanted;
    std::weak_ptr<void> alive;
    std::function<void(std::vector<mqtt::MessageRef>)> done;
    Job* next = nullptr;
};

/// A list that any thread adds to and one takes whole, oldest first.
class Jobs {
  public:
    ~Jobs() {
        for (auto* job : take()) delete job;
    }
    /// True: it was empty, and whoever takes may be asleep.
    bool add(Job* job) {
        auto* head = first_.load(std::memory_order_relaxed);
        do job->next = head;
        while (!first_.compare_exchange_weak(head, job, std::memory_order_release, std::memory_order_relaxed));
        return head == nullptr;
    }
    std::vector<Job*> take() {
        std::vector<Job*> out;
        for (auto* job = first_.exchange(nullptr, std::memory_order_acquire); job != nullptr; job = job->next) out.push_back(job);
        std::ranges::reverse(out);
        return out;
    }
    [[nodiscard]] bool looks_empty() const noexcept { return first_.load(std::memory_order_relaxed) == nullptr; }

  private:
    std::atomic<Job*> first_{nullptr};
};

mqtt::MessageRef open_message(crypto::Sealer& opener, std::uint64_t offset, std::string_view sealed) {
    if (sealed.size() <= crypto::Sealer::tag_size) return {};
    std::string plain(sealed.size() - crypto::Sealer::tag_size, '\0');
    return opener.open(offset, {}, sealed, plain.data()) ? decode_message(plain, 0) : mqtt::MessageRef();
}

class Disk;

class Lane final : public OverflowLane {
  public:
    Lane(Disk& disk, std::uint32_t worker) : disk_(disk), worker_(worker) {}
    bool has_room() const noexcept override;
    bool is_full() const noexcept override;
    bool is_wanted() const override;
    Place put(const mqtt::MessageRef& message) override;
    void drop(Place place) noexcept override;
    std::int64_t latest_end(std::int64_t now) const noexcept override;
    void read(const std::vector<Place>& places, std::weak_ptr<void> alive, std::function<void(std::vector<mqtt::MessageRef>)> done) override;
    void settle() override;
    void wait_for_disk() override;

    Jobs done;                           ///< by the disk's thread

  private:
    void begin_file();
    void hand_over();
    void remove(const std::shared_ptr<File>& file);
    void finish(Job& job);
    Disk& disk_;
    std::uint32_t worker_;
    std::unordered_map<std::uint32_t, std::shared_ptr<File>> files_;
    std::shared_ptr<File> current_;
    std::string buffer_;                 ///< of current_, not handed over yet
    std::int64_t unwritten_ = 0;         ///< bytes handed over and not on the disk
    mqtt::MessageRef last_;              ///< put() of this turn, to share its bytes
    Place last_place_;
};

class Disk final : public Overflow {
  public:
    Disk(std::string folder, std::uint32_t workers, std::function<bool()> memory_is_short, std::function<void(std::uint32_t)> wake, mqtt::MessageBytes& cell)
        : folder_(std::move(folder)), memory_is_short_(std::move(memory_is_short)), wake_(std::move(wake)), cell_(cell) {
        if (auto parent = HeldFolder::open(fs::absolute(folder_).parent_path().string())) parent_ = std::move(*parent);
        std::error_code error;
        for (const auto& entry : fs::directory_iterator(folder_, error))
            if (entry.path().extension() == extension) fs::remove(entry.path(), error);   // of a process that is gone, with its keys
        for (std::uint32_t i = 0; i < workers; ++i) lanes_.push_back(std::make_unique<Lane>(*this, i));
        thread_ = std::thread([this] { run(); });
    }
    ~Disk() override {
        stop();
        lanes_.clear();
        std::error_code error;
        for (const auto& entry : fs::directory_iterator(folder_, error))
            if (entry.path().extension() == extension) fs::remove(entry.path(), error);
    }
    OverflowLane& lane(std::uint32_t worker) override { return *lanes_[worker]; }
    bool is_idle() const noexcept override { return used_.load() == 0 && reading_.load() == 0; }
    void stop() override {
        if (stopping_.exchange(true)) return;
        poller_.wake();
        if (thread_.joinable()) thread_.join();
    }
    void set_limits(const Limits& limits) override {
        size_max_ = limits.size_max;
        age_max_ms_ = limits.age_max_ms;
        free_min_ = limits.free_min;
        if (limits.size_max > 0) poller_.wake();
    }
    Figures figures() const override {
        Figures out{.disk_bytes = used_.load(), .written = written_.load(), .read = read_.load(), .failed = failed_.load(), .fault = {}};
        if (size_max_.load() <= 0) return out;
        const std::lock_guard lock(guard_);
        if (!fault_.empty()) out.fault = fault_;
        else if (is_full()) out.fault = "diskBackedMessageBuffer.maxSize is used up";
        return out;
    }
    [[nodiscard]] bool is_full() const noexcept { return used_.load(std::memory_order_relaxed) >= size_max_.load(std::memory_order_relaxed) || blocked_.load(std::memory_order_relaxed); }
    void add(Job* job) {
        if (jobs_.add(job)) poller_.wake();
    }

    const std::string folder_;
    std::shared_ptr<HeldFolder> parent_;   ///< null: it is not there yet
    const std::function<bool()> memory_is_short_;
    std::atomic<std::int64_t> size_max_{0}, age_max_ms_{0}, free_min_{64 << 20};
    std::atomic<std::int64_t> used_{0};
    std::atomic<std::int64_t> reading_{0};   ///< reads whose messages have not been handed out
    std::atomic<std::uint32_t> next_file_{1};

  private:
    void run() {
        mqtt::MessageBytes::use(cell_);
        while (true) {
            const auto list = jobs_.take();
            if (list.empty()) {
                if (stopping_) return;
                poller_.wait(size_max_.load() > 0 ? static_cast<int>(look_ms) : -1);
                look();
                continue;
            }
            for (auto* job : list) {
                if (stopping_) {
                    delete job;
                    continue;
                }
                switch (job->kind) {
                    case Job::Kind::write: write(*job); break;
                    case Job::Kind::read: read(*job); break;
                    case Job::Kind::remove:
                        if (job->file->fd >= 0) ::close(std::exchange(job->file->fd, -1));
                        ::unlink(job->file->path.c_str());
                        break;
                }
                const auto worker = job->worker;
                if (lanes_[worker]->done.add(job)) wake_(worker);
            }
            look();
        }
    }
    void write(Job& job) {
        auto& file = *job.file;
        if (file.fd < 0) {
            if (parent_ && !parent_->ready()) return refuse(file, job, ENOENT);
            std::error_code error;
            if (fs::create_directories(folder_, error)) fs::permissions(folder_, fs::perms::owner_all, error);
            file.fd = ::open(file.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        }
        std::size_t at = 0;
        while (file.fd >= 0 && at < job.bytes->size()) {
            const auto n = ::pwrite(file.fd, job.bytes->data() + at, job.bytes->size() - at, static_cast<off_t>(job.offset + at));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) break;
            at += static_cast<std::size_t>(n);
        }
        job.good = file.fd >= 0 && at == job.bytes->size();
        if (job.good) {
            ++written_;
            const std::lock_guard lock(guard_);
            if (std::exchange(refused_, false)) log::info("store", "the message buffer's disk takes writes again folder={}", folder_);
            return;
        }
        refuse(file, job, errno);
    }
    void refuse(const File& file, Job& job, int reason) {
        job.good = false;
        ++failed_;
        const auto why = fmt::format("{}: {}", file.path, std::strerror(reason));
        const std::lock_guard lock(guard_);
        if (!std::exchange(refused_, true)) log::error("store", "the message buffer's disk does not take writes; messages stay in memory, and it is tried again in a while why=\"{}\"", why);
        fault_ = why;
        retry_at_ = monotonic_ms() + pause_ms;
        blocked_ = true;
    }
    void read(Job& job) {
        for (auto& wanted : job.wanted) {
            if (wanted.file == nullptr || job.alive.expired()) continue;
            auto& file = *wanted.file;
            if (file.opener == nullptr) file.opener = std::make_unique<crypto::Sealer>(file.key);
            std::string sealed(wanted.place.size, '\0');
            std::size_t at = 0;
            while (file.fd >= 0 && at < sealed.size()) {
                const auto n = ::pread(file.fd, sealed.data() + at, sealed.size() - at, static_cast<off_t>(wanted.place.offset + at));
                if (n < 0 && errno == EINTR) continue;
                if (n <= 0) break;
                at += static_cast<std::size_t>(n);
            }
            const bool whole = at == sealed.size();
            if (whole) wanted.message = open_message(*file.opener, wanted.place.offset, sealed);
            if (wanted.message) {
                ++read_;
                continue;
            }
            ++failed_;
            log::error("store", "a message that waited on the disk cannot be read and is lost file={} offset={} why=\"{}\"", file.path, wanted.place.offset, whole ? "it is not what was written" : std::strerror(errno));
        }
    }
    void look() {
        const auto now = monotonic_ms();
        if (now < next_look_ || size_max_.load() <= 0) return;
        next_look_ = now + look_ms;
        std::error_code error;
        auto at = fs::path(folder_);
        while (!fs::exists(at, error) && at.has_parent_path() && at != at.parent_path()) at = at.parent_path();
        const auto space = fs::space(at, error);
        const std::lock_guard lock(guard_);
        if (retry_at_ > now) return;
        const bool no_space = !error && static_cast<std::int64_t>(space.available) < free_min_.load();
        const bool was = blocked_.exchange(no_space);
        fault_ = no_space ? fmt::format("{}: less than {} bytes are free on the disk", folder_, free_min_.load()) : "";
        if (no_space && !was) log::error("store", "the message buffer takes nothing more why=\"{}\"", fault_);
        if (!no_space && was && !refused_) log::info("store", "the message buffer takes messages again folder={}", folder_);
    }
    const std::function<void(std::uint32_t)> wake_;
    mqtt::MessageBytes& cell_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    Jobs jobs_;
    io::Poller poller_;
    std::atomic<bool> stopping_{false}, blocked_{false};
    std::atomic<std::uint64_t> written_{0}, read_{0}, failed_{0};
    std::int64_t next_look_ = 0;         // the thread's own
    std::int64_t retry_at_ = 0;          // the thread's own
    bool refused_ = false;               // the thread's own: the last write failed
    mutable std::mutex guard_;           ///< fault_
    std::string fault_;
    std::thread thread_;
};

bool Lane::has_room() const noexcept { return disk_.size_max_.load(std::memory_order_relaxed) > 0 && !disk_.is_full() && unwritten_ + static_cast<std::int64_t>(buffer_.size()) < unwritten_max; }
bool Lane::is_full() const noexcept { return disk_.size_max_.load(std::memory_order_relaxed) > 0 && disk_.is_full(); }
bool Lane::is_wanted() const { return disk_.size_max_.load(std::memory_order_relaxed) > 0 && disk_.memory_is_short_(); }
std::int64_t Lane::latest_end(std::int64_t now) const noexcept {
    const auto age = disk_.age_max_ms_.load(std::memory_order_relaxed);
    return age > 0 ? now + age : 0;
}

void Lane::begin_file() {
    if (current_ != nullptr) {
        hand_over();
        const auto old = std::exchange(current_, nullptr);
        if (old->needed == 0) remove(old);
    }
    auto file = std::make_shared<File>();
    file->number = disk_.next_file_.fetch_add(1);
    file->path = fmt::format("{}/{:08}{}", disk_.folder_, file->number, extension);
    file->key.resize(crypto::Sealer::key_size);
    random_bytes(file->key.data(), file->key.size());
    file->sealer = std::make_unique<crypto::Sealer>(file->key);
    files_.emplace(file->number, file);
    current_ = std::move(file);
}

Place Lane::put(const mqtt::MessageRef& message) {
    if (last_ && &*last_ == &*message && last_place_) {
        if (const auto found = files_.find(last_place_.file); found != files_.end()) {
            ++found->second->needed;
            return last_place_;
        }
    }
    const auto wanted = std::clamp(disk_.size_max_.load() / 64, file_min, file_max);
    if (current_ == nullptr || static_cast<std::int64_t>(current_->size) >= wanted) begin_file();
    auto& file = *current_;
    const auto plain = encode_message(message->view(), 0);
    const Place place{.file = file.number, .offset = static_cast<std::uint32_t>(file.size), .size = static_cast<std::uint32_t>(plain.size() + crypto::Sealer::tag_size)};
    const auto old = buffer_.size();
    buffer_.resize(old + place.size);
    // The offset is the nonce: no two messages of a file have the same.
    if (!file.sealer->seal(place.offset, {}, plain, buffer_.data() + old)) log::error("store", "OpenSSL does not seal; the message cannot be read back file={}", file.path);
    file.size += place.size;
    ++file.needed;
    disk_.used_ += place.size;
    mqtt::MessageBytes::mine().add(place.size);   // it is in memory until it is on the disk
    last_ = message;
    last_place_ = place;
    if (buffer_.size() >= block_min) hand_over();
    return place;
}

void Lane::hand_over() {
    if (buffer_.empty()) return;
    auto bytes = std::make_shared<const std::string>(std::move(buffer_));
    buffer_ = {};
    const auto offset = current_->size - bytes->size();
    current_->unwritten.push_back({offset, bytes});
    unwritten_ += static_cast<std::int64_t>(bytes->size());
    auto* job = new Job;
    job->kind = Job::Kind::write;
    job->file = current_;
    job->worker = worker_;
    job->offset = offset;
    job->bytes = std::move(bytes);
    disk_.add(job);
}

void Lane::drop(Place place) noexcept {
    const auto found = files_.find(place.file);
    if (found == files_.end()) return;
    const auto file = found->second;
    if (--file->needed > 0) return;
    if (file == current_) {
        // Also while it is written to: its bytes would count for ever where there is no room for more.
        mqtt::MessageBytes::mine().add(-static_cast<std::int64_t>(buffer_.size()));
        buffer_ = {};
        current_ = nullptr;
    }
    remove(file);
}

void Lane::remove(const std::shared_ptr<File>& file) {
    files_.erase(file->number);
    if (last_place_.file == file->number) last_ = {}, last_place_ = {};
    disk_.used_ -= static_cast<std::int64_t>(file->size);
    auto* job = new Job;
    job->kind = Job::Kind::remove;
    job->file = file;
    job->worker = worker_;
    disk_.add(job);
}

void Lane::read(const std::vector<Place>& places, std::weak_ptr<void> alive, std::function<void(std::vector<mqtt::MessageRef>)> done_call) {
    auto* job = new Job;
    job->kind = Job::Kind::read;
    job->worker = worker_;
    ++disk_.reading_;
    job->alive = std::move(alive);
    job->done = std::move(done_call);
    for (const auto& place : places) {
        auto& wanted = job->wanted.emplace_back();
        wanted.place = place;
        const auto found = files_.find(place.file);
        if (found == files_.end()) continue;
        wanted.file = found->second;
        auto& file = *wanted.file;
        // What the disk does not have yet is taken from memory.
        auto from = [&](std::uint64_t offset, std::string_view bytes) {
            if (place.offset < offset || place.offset + std::uint64_t{place.size} > offset + bytes.size()) return;
            crypto::Sealer opener(file.key);
            wanted.message = open_message(opener, place.offset, bytes.substr(place.offset - offset, place.size));
            wanted.file = nullptr;
        };
        for (const auto& block : file.unwritten) from(block.offset, *block.bytes);
        if (wanted.file != nullptr && current_ == wanted.file && !buffer_.empty()) from(file.size - buffer_.size(), buffer_);
    }
    disk_.add(job);
}

void Lane::settle() {
    last_ = {};
    if (done.looks_empty()) return;
    for (auto* job : done.take()) {
        const std::unique_ptr<Job> owned(job);
        finish(*job);
    }
}

void Lane::finish(Job& job) {
    auto forget = [&](const File::Block& block) {
        unwritten_ -= static_cast<std::int64_t>(block.bytes->size());
        mqtt::MessageBytes::mine().add(-static_cast<std::int64_t>(block.bytes->size()));
    };
    switch (job.kind) {
        case Job::Kind::write:
            // A block that the disk refused stays where it is: it is read from there.
            if (job.good) std::erase_if(job.file->unwritten, [&](const File::Block& block) {
                if (block.bytes != job.bytes) return false;
                forget(block);
                return true;
            });
            break;
        case Job::Kind::remove:
            for (const auto& block : job.file->unwritten) forget(block);
            job.file->unwritten.clear();
            break;
        case Job::Kind::read: {
            --disk_.reading_;
            const auto alive = job.alive.lock();
            if (alive == nullptr) break;
            std::vector<mqtt::MessageRef> messages;
            messages.reserve(job.wanted.size());
            for (auto& wanted : job.wanted) messages.push_back(std::move(wanted.message));
            job.done(std::move(messages));
        }
    }
}

void Lane::wait_for_disk() {
    for (const auto end = monotonic_ms() + 10'000; unwritten_ >= unwritten_max / 2 && !disk_.is_full() && monotonic_ms() < end;) {
        settle();
        std::this_thread::yield();
    }
}

}  // namespace

std::unique_ptr<Overflow> Overflow::make(std::string folder, std::uint32_t workers, std::function<bool()> memory_is_short, std::function<void(std::uint32_t)> wake, mqtt::MessageBytes& cell) {
    return std::make_unique<Disk>(std::move(folder), workers, std::move(memory_is_short), std::move(wake), cell);
}

}  // namespace penstock::store
