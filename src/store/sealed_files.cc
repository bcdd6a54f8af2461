#include "store/sealed_files.h"

#include <fcntl.h>
#include <rocksdb/file_system.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "base/random.h"
#include "base/text.h"
#include "crypto/hash.h"
#include "crypto/seal.h"

namespace penstock::store {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr std::string_view magic = "PNSTKSF1";
constexpr std::size_t head_size = 64, salt_size = 32, check_size = 16, length_size = 4;
constexpr std::size_t piece_max = 16 << 10;
constexpr std::size_t overhead = length_size + crypto::Sealer::tag_size;

/// Names hold no data of clients in these: marks, options, the log of RocksDB itself.
bool is_sealable(const std::string& path) {
    const auto name = std::filesystem::path(path).filename().string();
    return name.ends_with(".log") || name.ends_with(".sst") || name.starts_with("MANIFEST-");
}

std::uint32_t read_u32(const char* at) {
    std::uint32_t out = 0;
    for (int i = 0; i < 4; ++i) out = out << 8 | static_cast<unsigned char>(at[i]);
    return out;
}
void write_u32(char* at, std::uint32_t number) {
    for (int i = 0; i < 4; ++i) at[i] = static_cast<char>(number >> (24 - 8 * i));
}
std::string check_of(std::string_view key, std::string_view salt) { return crypto::hmac_sha256(key, "penstock sealed file: check" + std::string(salt)).substr(0, check_size); }
std::string file_key(std::string_view key, std::string_view salt) { return crypto::hmac_sha256(key, "penstock sealed file: key" + std::string(salt)); }

/// Threads of RocksDB's own come here too, and never end.
struct Visit {
    Visit() = default;
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit() { crypto::leave_thread(); }
};

IOStatus damaged(const std::string& path, std::uint64_t at) { return IOStatus::Corruption(fmt::format("{}: what stands at {} is not what was sealed", path, at)); }

/// Where the pieces of a file stand. What a crash tore off at its end is not there.
struct Layout {
    struct Piece {
        std::uint64_t logical = 0, physical = 0;
        std::uint32_t size = 0;
    };
    std::vector<Piece> pieces;
    std::uint64_t size = 0;              ///< of the plain bytes
};

/// The sealed side of one file that is read.
struct Sealed {
    std::string path, key;
    std::shared_ptr<rocksdb::FSRandomAccessFile> file;
    std::uint64_t physical_size = 0;
};

IOStatus open_piece(const Sealed& sealed, crypto::Sealer& sealer, std::uint64_t number, std::uint64_t at, std::string_view whole, char* out) {
    return sealer.open(number, whole.substr(0, length_size), whole.substr(length_size), out) ? IOStatus::OK() : damaged(sealed.path, at);
}

/// Goes through a file from front to back: pieces are small, reads are not.
class Window {
  public:
    /// The piece that begins there, with its length and tag; empty: nothing whole stands there.
    std::string_view piece_at(const Sealed& sealed, std::uint64_t at, IOStatus& status) {
        const auto length = bytes(sealed, at, length_size, status);
        if (length.size() < length_size) return {};
        const auto size = read_u32(length.data());
        if (size == 0 || size > piece_max) return {};
        const auto whole = bytes(sealed, at, size + overhead, status);
        return whole.size() == size + overhead ? whole : std::string_view();
    }

  private:
    std::string_view bytes(const Sealed& sealed, std::uint64_t at, std::size_t n, IOStatus& status) {
        if (at < from_ || at + n > from_ + held_.size()) {
            if (at + n > sealed.physical_size) return {};
            const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(window_size, sealed.physical_size - at));
            Slice got;
            held_.resize(wanted);
            status = sealed.file->Read(at, wanted, {}, &got, held_.data(), nullptr);
            if (got.data() != held_.data()) std::memmove(held_.data(), got.data(), got.size());
            held_.resize(status.ok() ? got.size() : 0);
            from_ = at;
            if (held_.size() < n) return {};
        }
        return std::string_view(held_).substr(static_cast<std::size_t>(at - from_), n);
    }
    static constexpr std::size_t window_size = 128 << 10;
    std::string held_;
    std::uint64_t from_ = 0;
};

Layout layout_of(const Sealed& sealed, IOStatus& status) {
    Layout out;
    Window window;
    for (std::uint64_t at = head_size;;) {
        const auto whole = window.piece_at(sealed, at, status);
        if (whole.empty()) return out;
        const auto size = static_cast<std::uint32_t>(whole.size() - overhead);
        out.pieces.push_back({out.size, at, size});
        out.size += size;
        at += whole.size();
    }
}

/// Length of the whole piece that begins there, with its length and tag; 0: none can.
std::size_t piece_size(std::string_view raw, std::size_t at) {
    if (at + length_size > raw.size()) return 0;
    const auto size = read_u32(raw.data() + at);
    return size == 0 || size > piece_max || at + size + overhead > raw.size() ? 0 : size + overhead;
}

/// Everything that opens, in texts without a hole. Behind a piece that does not, the next one is looked for at each byte, with each
/// number that it can have; lengths are 16384 at most, so that few places come into question.
std::vector<std::string> runs_of(std::string_view raw, std::string_view key) {
    constexpr std::size_t attempts_max = 200'000;
    std::vector<std::string> out(1);
    crypto::Sealer sealer(key);
    std::array<char, piece_max> plain;
    std::uint64_t number = 0;
    std::size_t at = head_size, attempts = 0;
    const auto take = [&](std::size_t from, std::uint64_t as) {
        const auto size = piece_size(raw, from);
        if (size == 0 || !sealer.open(as, raw.substr(from, length_size), raw.substr(from + length_size, size - length_size), plain.data())) return false;
        out.back().append(plain.data(), size - overhead);
        at = from + size;
        number = as + 1;
        return true;
    };
    while (at < raw.size()) {
        if (take(at, number)) continue;
        const auto hole = at;
        const auto missing = number;
        out.emplace_back();
        for (auto from = hole + 1; at == hole && from < raw.size() && attempts < attempts_max; ++from) {
            if (piece_size(raw, from) == 0) continue;
            for (auto as = missing + 1; at == hole && as <= missing + 1 + (from - hole) / (overhead + 1) && attempts < attempts_max; ++as, ++attempts)
                if (take(from, as)) break;
        }
        if (at == hole) break;
    }
    if (out.size() > 1 && out.back().empty()) out.pop_back();
    return out;
}

class SequentialReader final : public rocksdb::FSSequentialFile {
  public:
    explicit SequentialReader(Sealed sealed) : sealed_(std::move(sealed)), sealer_(sealed_.key) {}
    IOStatus Read(std::size_t n, const IOOptions&, Slice* result, char* scratch, IODebugContext*) override {
        std::size_t done = 0;
        while (done < n) {
            if (at_ == size_) {
                bool ended = false;
                if (auto status = next(ended); !status.ok()) {
                    // RocksDB drops the whole block of 32 KiB that cannot be read. In a log what stands before the piece may have
                    // been acknowledged: the bytes end there, as at the end of a file. Whether what follows was promised is judged
                    // before RocksDB reads the log (durable_damage.cc). A list of files that ends early is another list; so it fails.
                    if (done > 0 && sealed_.path.ends_with(".log")) break;
                    return status;
                }
                if (ended) break;
            }
            const auto part = std::min<std::size_t>(n - done, size_ - at_);
            std::memcpy(scratch + done, plain_.data() + at_, part);
            at_ += static_cast<std::uint32_t>(part);
            done += part;
        }
        *result = Slice(scratch, done);
        return IOStatus::OK();
    }
    IOStatus Skip(std::uint64_t n) override {
        while (n > 0) {
            if (at_ == size_) {
                bool ended = false;
                if (auto status = next(ended); !status.ok()) return status;
                if (ended) break;
            }
            const auto part = std::min<std::uint64_t>(n, size_ - at_);
            at_ += static_cast<std::uint32_t>(part);
            n -= part;
        }
        return IOStatus::OK();
    }
    IOStatus InvalidateCache(std::size_t, std::size_t) override { return IOStatus::OK(); }

  private:
    IOStatus next(bool& ended) {
        IOStatus status;
        const auto whole = window_.piece_at(sealed_, physical_, status);
        ended = whole.empty();
        if (ended) return status;
        const auto size = whole.size();
        if (status = open_piece(sealed_, sealer_, number_, physical_, whole, plain_.data()); !status.ok()) {
            // The last piece of a file is what a crash may have torn.
            IOStatus reading;
            ended = window_.piece_at(sealed_, physical_ + size, reading).empty() && reading.ok();
            return ended ? IOStatus::OK() : status;
        }
        ++number_;
        physical_ += size;
        at_ = 0;
        size_ = static_cast<std::uint32_t>(size - overhead);
        return IOStatus::OK();
    }
    Sealed sealed_;
    crypto::Sealer sealer_;
    Window window_;
    std::array<char, piece_max> plain_{};
    std::uint32_t at_ = 0, size_ = 0;
    std::uint64_t physical_ = head_size, number_ = 0;
};

class RandomReader final : public rocksdb::FSRandomAccessFile {
  public:
    RandomReader(Sealed sealed, Layout layout) : sealed_(std::move(sealed)), layout_(std::move(layout)) {}
    IOStatus Read(std::uint64_t offset, std::size_t n, const IOOptions&, Slice* result, char* scratch, IODebugContext*) const override {
        *result = Slice(scratch, 0);
        if (offset >= layout_.size) return IOStatus::OK();
        n = static_cast<std::size_t>(std::min<std::uint64_t>(n, layout_.size - offset));
        auto at = static_cast<std::size_t>(std::ranges::upper_bound(layout_.pieces, offset, {}, &Layout::Piece::logical) - layout_.pieces.begin()) - 1;
        crypto::Sealer sealer(sealed_.key);   // readers are many threads
        std::array<char, piece_max> plain;
        std::array<char, piece_max + overhead> bytes;
        for (std::size_t done = 0; done < n; ++at) {
            const auto& piece = layout_.pieces[at];
            Slice got;
            if (auto status = sealed_.file->Read(piece.physical, piece.size + overhead, {}, &got, bytes.data(), nullptr); !status.ok()) return status;
            if (got.size() != piece.size + overhead) return damaged(sealed_.path, piece.physical);
            // The bytes end before a piece that is damaged. RocksDB refuses a block that is not whole, while what it reads on speculation
            // around a table's end must not cost the whole table.
            if (!open_piece(sealed_, sealer, at, piece.physical, {got.data(), got.size()}, plain.data()).ok()) {
                *result = Slice(scratch, done);
                return IOStatus::OK();
            }
            const auto from = static_cast<std::size_t>(offset + done - piece.logical);
            const auto part = std::min(n - done, piece.size - from);
            std::memcpy(scratch + done, plain.data() + from, part);
            done += part;
        }
        *result = Slice(scratch, n);
        return IOStatus::OK();
    }
    std::size_t GetUniqueId(char* id, std::size_t max_size) const override { return sealed_.file->GetUniqueId(id, max_size); }
    IOStatus InvalidateCache(std::size_t, std::size_t) override { return IOStatus::OK(); }

  private:
    Sealed sealed_;
    Layout layout_;
};

class Writer final : public rocksdb::FSWritableFileOwnerWrapper {
  public:
    Writer(std::unique_ptr<rocksdb::FSWritableFile>&& file, const std::string& key) : FSWritableFileOwnerWrapper(std::move(file)), sealer_(key) {}
    IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* dbg) override {
        const std::string_view all(data.data(), data.size());
        bool good = true;
        buffer_.resize_and_overwrite(all.size() + (all.size() / piece_max + 1) * overhead, [&](char* out, std::size_t) {
            std::size_t used = 0;
            for (std::size_t at = 0; at < all.size() && good; at += piece_max) {
                const auto piece = all.substr(at, piece_max);
                write_u32(out + used, static_cast<std::uint32_t>(piece.size()));
                good = sealer_.seal(number_++, {out + used, length_size}, piece, out + used + length_size);
                used += piece.size() + overhead;
            }
            return used;
        });
        if (!good) return IOStatus::IOError("OpenSSL does not seal");
        // After an append that failed RocksDB gives the file up; a piece cut short is the last one for who reads it.
        if (auto status = FSWritableFileOwnerWrapper::Append(buffer_, options, dbg); !status.ok()) return status;
        size_ += all.size();
        if (buffer_.capacity() > (std::size_t{1} << 20)) buffer_ = {};
        return IOStatus::OK();
    }
    IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&, IODebugContext* dbg) override { return Append(data, options, dbg); }
    IOStatus PositionedAppend(const Slice&, std::uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::NotSupported("sealed files are written from front to back"); }
    IOStatus PositionedAppend(const Slice&, std::uint64_t, const IOOptions&, const rocksdb::DataVerificationInfo&, IODebugContext*) override { return IOStatus::NotSupported("sealed files are written from front to back"); }
    IOStatus Truncate(std::uint64_t size, const IOOptions&, IODebugContext*) override { return size == size_ ? IOStatus::OK() : IOStatus::NotSupported("sealed files are not cut"); }
    std::uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return size_; }
    // These are advice about places in the file, which are others here.
    IOStatus RangeSync(std::uint64_t, std::uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
    IOStatus InvalidateCache(std::size_t, std::size_t) override { return IOStatus::OK(); }
    void PrepareWrite(std::size_t, std::size_t, const IOOptions&, IODebugContext*) override {}
    IOStatus Allocate(std::uint64_t, std::uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

  private:
    crypto::Sealer sealer_;
    std::uint64_t number_ = 0, size_ = 0;
    std::string buffer_;
};

/// What the files of the watched folder have come to.
struct Watch {
    std::string folder;
    std::function<void(std::uint64_t, std::uint64_t)> listed;
    std::atomic<std::uint64_t> last_log{0};
    std::mutex guard;                    ///< what follows
    std::uint64_t list = 0, list_bytes = 0;      ///< the one that was synced last
    std::uint64_t in_force = 0;

    /// The number in `PREFIX NUMBER SUFFIX`, of a file in that folder; 0: it is another one.
    [[nodiscard]] std::uint64_t number_of(const std::string& path, std::string_view prefix, std::string_view suffix) const {
        const std::filesystem::path file(path);
        const auto name = file.filename().string();
        if (folder.empty() || file.parent_path() != folder || !name.starts_with(prefix) || !name.ends_with(suffix) || name.size() < prefix.size() + suffix.size()) return 0;
        return parse_number<std::uint64_t>(std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - suffix.size())).value_or(0);
    }
    void synced(std::uint64_t number, std::uint64_t bytes) {
        const std::lock_guard lock(guard);
        list = number;
        list_bytes = bytes;
        if (list == in_force && listed) listed(list, list_bytes);
    }
    void took_effect() {
        const std::lock_guard lock(guard);
        in_force = list;
        if (in_force != 0 && listed) listed(list, list_bytes);
    }
};

/// Tells what becomes of a log or a list of files.
class Watched final : public rocksdb::FSWritableFileOwnerWrapper {
  public:
    Watched(std::unique_ptr<rocksdb::FSWritableFile>&& file, std::shared_ptr<Watch> watch, std::uint64_t log, std::uint64_t list)
        : FSWritableFileOwnerWrapper(std::move(file)), watch_(std::move(watch)), log_(log), list_(list) {}
    IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* dbg) override {
        if (log_ != 0) watch_->last_log.store(log_, std::memory_order_relaxed);
        size_ += data.size();
        return FSWritableFileOwnerWrapper::Append(data, options, dbg);
    }
    IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo& info, IODebugContext* dbg) override {
        if (log_ != 0) watch_->last_log.store(log_, std::memory_order_relaxed);
        size_ += data.size();
        return FSWritableFileOwnerWrapper::Append(data, options, info, dbg);
    }
    IOStatus Sync(const IOOptions& options, IODebugContext* dbg) override { return told(FSWritableFileOwnerWrapper::Sync(options, dbg)); }
    IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override { return told(FSWritableFileOwnerWrapper::Fsync(options, dbg)); }

  private:
    IOStatus told(IOStatus status) {
        if (status.ok() && list_ != 0) watch_->synced(list_, size_);
        return status;
    }
    std::shared_ptr<Watch> watch_;
    std::uint64_t log_, list_, size_ = 0;
};

/// The files of one folder that an open store needs.
class Held {
  public:
    Held() = default;
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { clear(); }

    void look_in(const std::filesystem::path& folder) {
        const std::lock_guard lock(guard_);
        clear();
        folder_ = folder;
        std::error_code error;
        for (const auto& entry : std::filesystem::directory_iterator(folder, error)) add_file(entry.path());
    }
    void let_go() {
        const std::lock_guard lock(guard_);
        clear();
    }
    /// The store has just made it, or given it this name.
    void add(const std::string& path) {
        const std::lock_guard lock(guard_);
        if (is_ours(path)) add_file(path);
    }
    /// The store deletes it; that it is gone then is no loss.
    IOStatus remove(const std::string& path, const std::function<IOStatus()>& removing) {
        const std::lock_guard lock(guard_);
        if (is_ours(path)) drop(std::filesystem::path(path).filename().string());
        return removing();
    }
    void forget(const std::string& path) {
        const std::lock_guard lock(guard_);
        if (is_ours(path)) drop(std::filesystem::path(path).filename().string());
    }
    SealedFiles::Stand stand(bool tables) {
        const std::lock_guard lock(guard_);
        for (const auto& [name, file] : files_) {
            if (!tables && name.ends_with(".sst")) continue;
            if (const auto state = state_of(folder_ / name, file); state != SealedFiles::Stand::State::there) return {.state = state, .name = name};
        }
        return {};
    }
    /// The path under which it can be read: another one where it does not stand under its name any more.
    std::string readable(const std::string& path) {
        const std::lock_guard lock(guard_);
        if (!is_ours(path)) return path;
        const auto found = files_.find(std::filesystem::path(path).filename().string());
        if (found == files_.end() || found->second.open < 0 || state_of(path, found->second) == SealedFiles::Stand::State::there) return path;
        return fmt::format("/proc/self/fd/{}", found->second.open);
    }

  private:
    struct File {
        int open = -1;                   ///< keeps the bytes, and the number from being given to another file
        dev_t device = 0;
        ino_t inode = 0;
    };
    [[nodiscard]] bool is_ours(const std::string& path) const { return !folder_.empty() && std::filesystem::path(path).parent_path() == folder_; }
    static bool is_needed(const std::string& name) { return name == "CURRENT" || is_sealable(name); }
    static SealedFiles::Stand::State state_of(const std::filesystem::path& path, const File& file) {
        struct stat now {};
        if (::stat(path.c_str(), &now) != 0) return SealedFiles::Stand::State::gone;
        return now.st_dev == file.device && now.st_ino == file.inode ? SealedFiles::Stand::State::there : SealedFiles::Stand::State::replaced;
    }
    void add_file(const std::filesystem::path& path) {
        const auto name = path.filename().string();
        if (!is_needed(name)) return;
        drop(name);
        File file{.open = ::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
        struct stat made {};
        if ((file.open >= 0 ? ::fstat(file.open, &made) : ::stat(path.c_str(), &made)) != 0) return;   // not a file of this machine's
        file.device = made.st_dev;
        file.inode = made.st_ino;
        files_[name] = file;
    }
    void drop(const std::string& name) {
        const auto found = files_.find(name);
        if (found == files_.end()) return;
        if (found->second.open >= 0) ::close(found->second.open);
        files_.erase(found);
    }
    void clear() {
        for (const auto& [name, file] : files_)
            if (file.open >= 0) ::close(file.open);
        files_.clear();
    }
    std::mutex guard_;
    std::filesystem::path folder_;       ///< empty: nothing is held yet
    std::map<std::string, File> files_;
};

class Wrapper final : public rocksdb::FileSystemWrapper {
  public:
    explicit Wrapper(const std::shared_ptr<rocksdb::FileSystem>& below) : FileSystemWrapper(below) {}
    static const char* kClassName() { return "PenstockSealedFiles"; }
    const char* Name() const override { return kClassName(); }

    void set(KeyRing ring, bool seal) {
        const std::lock_guard lock(guard_);
        ring_ = std::move(ring);
        seals_ = seal && !ring_.keys.empty();
    }

    IOStatus NewSequentialFile(const std::string& path, const FileOptions& options, std::unique_ptr<rocksdb::FSSequentialFile>* out, IODebugContext* dbg) override {
        std::optional<Sealed> sealed;
        if (auto status = look(path, options, sealed, dbg); !status.ok()) return status;
        if (!sealed) return FileSystemWrapper::NewSequentialFile(path, options, out, dbg);
        *out = std::make_unique<SequentialReader>(std::move(*sealed));
        return IOStatus::OK();
    }
    IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options, std::unique_ptr<rocksdb::FSRandomAccessFile>* out, IODebugContext* dbg) override {
        std::optional<Sealed> sealed;
        const auto path = held_.readable(name);
        if (auto status = look(path, options, sealed, dbg, name); !status.ok()) return status;
        if (!sealed) return FileSystemWrapper::NewRandomAccessFile(path, options, out, dbg);
        IOStatus status;
        auto layout = layout_of(*sealed, status);
        if (status.ok()) *out = std::make_unique<RandomReader>(std::move(*sealed), std::move(layout));
        return status;
    }
    IOStatus NewWritableFile(const std::string& path, const FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        auto status = make_file(path, options, out, dbg);
        const auto log = watch_->number_of(path, "", ".log"), list = watch_->number_of(path, "MANIFEST-", "");
        if (status.ok() && (log != 0 || list != 0)) *out = std::make_unique<Watched>(std::move(*out), watch_, log, list);
        return status;
    }
    IOStatus DeleteFile(const std::string& path, const IOOptions& options, IODebugContext* dbg) override {
        return held_.remove(path, [&] { return FileSystemWrapper::DeleteFile(path, options, dbg); });
    }
    IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions& options, IODebugContext* dbg) override {
        auto status = FileSystemWrapper::LinkFile(from, to, options, dbg);
        if (status.ok()) held_.add(to);
        return status;
    }
    IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options, IODebugContext* dbg) override {
        auto status = FileSystemWrapper::RenameFile(from, to, options, dbg);
        if (status.ok()) held_.forget(from), held_.add(to);
        if (status.ok() && to == watch_->folder + "/CURRENT") watch_->took_effect();
        return status;
    }
    IOStatus make_file(const std::string& path, const FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) {
        KeyRing::Key key;
        if (is_sealable(path)) {
            const std::lock_guard lock(guard_);
            if (seals_) key = ring_.keys.back();
        }
        auto made = FileSystemWrapper::NewWritableFile(path, options, out, dbg);
        if (made.ok()) held_.add(path);
        if (!made.ok() || key.id == 0) return made;
        const Visit visit;
        std::string salt(salt_size, '\0');
        random_bytes(salt.data(), salt.size());
        std::string head(magic);
        head.resize(16);
        write_u32(head.data() + magic.size(), key.id);
        head += salt + check_of(key.bytes, salt);
        auto status = (*out)->Append(head, options.io_options, dbg);
        if (status.ok()) *out = std::make_unique<Writer>(std::move(*out), file_key(key.bytes, salt));
        return status;
    }
    IOStatus ReuseWritableFile(const std::string& path, const std::string& old, const FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (auto status = DeleteFile(old, options.io_options, dbg); !status.ok()) return status;
        return NewWritableFile(path, options, out, dbg);
    }
    IOStatus ReopenWritableFile(const std::string& path, const FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out, IODebugContext* dbg) override {
        if (is_sealable(path)) return IOStatus::NotSupported("sealed files are not written on");
        return FileSystemWrapper::ReopenWritableFile(path, options, out, dbg);
    }
    IOStatus NewRandomRWFile(const std::string& path, const FileOptions& options, std::unique_ptr<rocksdb::FSRandomRWFile>* out, IODebugContext* dbg) override {
        if (is_sealable(path)) return IOStatus::NotSupported("sealed files are written from front to back");
        return FileSystemWrapper::NewRandomRWFile(path, options, out, dbg);
    }
    IOStatus NewMemoryMappedFileBuffer(const std::string&, std::unique_ptr<rocksdb::MemoryMappedFileBuffer>*) override { return IOStatus::NotSupported("sealed files are not mapped"); }
    IOStatus GetFileSize(const std::string& path, const IOOptions& options, std::uint64_t* size, IODebugContext* dbg) override {
        std::optional<Sealed> sealed;
        if (is_sealable(path)) {
            FileOptions reading;
            reading.io_options = options;
            if (auto status = look(path, reading, sealed, dbg); !status.ok()) return status;
        }
        if (!sealed) return FileSystemWrapper::GetFileSize(path, options, size, dbg);
        IOStatus status;
        *size = layout_of(*sealed, status).size;
        return status;
    }
    IOStatus GetChildrenFileAttributes(const std::string& folder, const IOOptions& options, std::vector<rocksdb::FileAttributes>* out, IODebugContext* dbg) override {
        return FileSystem::GetChildrenFileAttributes(folder, options, out, dbg);   // by way of GetFileSize above
    }
    IOStatus Truncate(const std::string& path, std::size_t size, const IOOptions& options, IODebugContext* dbg) override {
        return is_sealable(path) ? IOStatus::NotSupported("sealed files are not cut") : FileSystemWrapper::Truncate(path, size, options, dbg);
    }

    void hold() { held_.look_in(watch_->folder); }
    void let_go() { held_.let_go(); }
    SealedFiles::Stand stand(bool tables) { return held_.stand(tables); }
    Result<std::map<std::uint32_t, std::size_t>> census(const std::string& folder) {
        std::map<std::uint32_t, std::size_t> out;
        std::vector<std::pair<std::string, std::string>> unknown;    // path, why
        std::vector<std::string> names;
        if (!target()->GetChildren(folder, {}, &names, nullptr).ok()) return out;   // not there yet
        for (const auto& name : names) {
            if (!is_sealable(name)) continue;
            const auto path = folder + "/" + name;
            std::string head;
            if (!read_head(path, {}, head, nullptr).ok() || head.empty()) continue;   // it went meanwhile, or RocksDB will say what is wrong with it
            if (!head.starts_with(magic) || head.size() < head_size) {
                ++out[0];
                continue;
            }
            std::string key;
            if (auto why = key_of(path, head, key); !why.empty()) unknown.emplace_back(path, std::move(why));
            else ++out[read_u32(head.data() + magic.size())];
        }
        // Where the key of that number opens another file, it is the head of this one that is damaged: it counts as empty from now on.
        for (auto& [path, why] : unknown) {
            std::string head;
            if (!read_head(path, {}, head, nullptr).ok() || !out.contains(read_u32(head.data() + magic.size()))) return fail(std::move(why));
            const std::lock_guard lock(guard_);
            headless_.insert(path);
        }
        return out;
    }
    Result<std::vector<std::string>> runs(const std::string& path) {
        std::optional<Sealed> sealed;
        std::uint64_t size = 0;
        std::unique_ptr<rocksdb::FSRandomAccessFile> file;
        std::string raw;
        Slice got;
        auto status = look(path, {}, sealed, nullptr);
        if (status.ok()) status = target()->GetFileSize(path, {}, &size, nullptr);
        if (status.ok()) status = target()->NewRandomAccessFile(path, {}, &file, nullptr);
        if (status.ok()) raw.resize(size);
        if (status.ok() && size > 0) status = file->Read(0, raw.size(), {}, &got, raw.data(), nullptr);
        if (!status.ok()) return fail(status.ToString());
        if (got.data() != raw.data()) raw.assign(got.data(), got.size());
        raw.resize(got.size());
        if (!sealed) return std::vector{std::move(raw)};
        if (sealed->key.empty()) return std::vector<std::string>(1);   // its head is torn
        const Visit visit;
        return runs_of(raw, sealed->key);
    }
    const std::shared_ptr<Watch>& watch() const noexcept { return watch_; }

  private:
    const std::shared_ptr<Watch> watch_ = std::make_shared<Watch>();
    IOStatus read_head(const std::string& path, const FileOptions& options, std::string& head, IODebugContext* dbg) {
        std::unique_ptr<rocksdb::FSRandomAccessFile> file;
        if (auto status = target()->NewRandomAccessFile(path, options, &file, dbg); !status.ok()) return status;
        char bytes[head_size];
        Slice got;
        auto status = file->Read(0, head_size, options.io_options, &got, bytes, dbg);
        if (status.ok()) head.assign(got.data(), got.size());
        return status;
    }
    /// Says why the file cannot be opened, or gives its key.
    std::string key_of(const std::string& path, const std::string& head, std::string& key) {
        const Visit visit;
        const auto id = read_u32(head.data() + magic.size());
        const auto salt = head.substr(16, salt_size);
        const std::lock_guard lock(guard_);
        const auto* found = ring_.find(id);
        if (found == nullptr)   // perhaps it is the number that is damaged
            for (const auto& other : ring_.keys)
                if (check_of(other.bytes, salt) == head.substr(16 + salt_size, check_size)) found = &other;
        if (found == nullptr) return fmt::format("{}: sealed with key {}, which is not among the keys at hand; put the key file back as it was", path, id);
        if (check_of(found->bytes, salt) != head.substr(16 + salt_size, check_size)) return fmt::format("{}: sealed with another key {} than the one at hand, or its head is damaged; put the key file back as it was", path, id);
        key = file_key(found->bytes, salt);
        return {};
    }
    /// Nothing: the file stands in the clear. `name`: the file's own, where `path` is another one.
    IOStatus look(const std::string& path, const FileOptions& options, std::optional<Sealed>& out, IODebugContext* dbg, const std::string& name = {}) {
        if (!is_sealable(name.empty() ? path : name)) return IOStatus::OK();
        std::string head;
        if (auto status = read_head(path, options, head, dbg); !status.ok()) return status;
        bool torn = !head.empty() && head.size() < head_size && magic.starts_with(std::string_view(head).substr(0, magic.size()));
        {
            const std::lock_guard lock(guard_);
            torn |= headless_.contains(path);
        }
        if (!torn && !head.starts_with(magic)) return IOStatus::OK();
        Sealed sealed{.path = path, .key = {}, .file = {}, .physical_size = 0};
        if (!torn) {
            if (auto why = key_of(path, head, sealed.key); !why.empty()) return IOStatus::InvalidArgument(why);
            if (auto status = target()->GetFileSize(path, options.io_options, &sealed.physical_size, dbg); !status.ok()) return status;
        }
        std::unique_ptr<rocksdb::FSRandomAccessFile> file;
        if (auto status = target()->NewRandomAccessFile(path, options, &file, dbg); !status.ok()) return status;
        sealed.file = std::move(file);
        out = std::move(sealed);
        return IOStatus::OK();
    }
    std::mutex guard_;
    KeyRing ring_;
    std::set<std::string> headless_;     ///< paths of sealed files whose head is damaged
    bool seals_ = false;
    Held held_;
};

class Files final : public SealedFiles {
  public:
    explicit Files(std::shared_ptr<rocksdb::FileSystem> below) : wrapper_(std::make_shared<Wrapper>(below ? std::move(below) : rocksdb::FileSystem::Default())) {}
    std::shared_ptr<rocksdb::FileSystem> files() override { return wrapper_; }
    void set(KeyRing ring, bool seal) override { wrapper_->set(std::move(ring), seal); }
    void hold() override { wrapper_->hold(); }
    void let_go() override { wrapper_->let_go(); }
    Stand stand(bool tables) override { return wrapper_->stand(tables); }
    Result<std::map<std::uint32_t, std::size_t>> census(const std::string& folder) override { return wrapper_->census(folder); }
    Result<std::vector<std::string>> runs(const std::string& path) override { return wrapper_->runs(path); }
    void watch(const std::string& folder, std::function<void(std::uint64_t, std::uint64_t)> listed) override {
        const std::lock_guard lock(wrapper_->watch()->guard);
        wrapper_->watch()->folder = folder;
        wrapper_->watch()->listed = std::move(listed);
    }
    [[nodiscard]] std::uint64_t last_log() const noexcept override { return wrapper_->watch()->last_log; }

  private:
    std::shared_ptr<Wrapper> wrapper_;
};

}  // namespace

std::shared_ptr<SealedFiles> SealedFiles::make(std::shared_ptr<rocksdb::FileSystem> below) { return std::make_shared<Files>(std::move(below)); }

}  // namespace penstock::store
