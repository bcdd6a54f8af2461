#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/mark.h"
#include "base/result.h"
#include "store/engine.h"
#include "store/key_ring.h"

namespace rocksdb {
class FileSystem;
}

namespace penstock::store {

/// How far a start has come. Written by those who work on it, read by any thread.
struct RecoveryProgress {
    std::atomic<std::uint64_t> records{0};   ///< looked at
    std::atomic<std::uint64_t> expected{0};  ///< about so many; 0: not known yet, the log is being read
};

struct DurableOptions {
    std::string folder;
    /// Beside the folder: what was on the disk for sure, by which damage is told from a crash; empty: none is kept.
    std::string mark_file;
    std::string boot = boot_id();        ///< of this start of the machine
    std::string owner;                   ///< `namespace/name` of the Broker; a folder of another one is refused
    std::uint32_t workers = 1;
    /// Milliseconds between two syncs; 0: before every acknowledgement (what is acknowledged survives a power cut).
    int sync_interval_ms = 0;
    std::int64_t size_max = 0;           ///< bytes on disk, from which on nothing new is taken; 0: no bound
    std::int64_t free_min = 64 << 20;    ///< bytes that must stay free on the disk
    int retry_ms = 1000;                 ///< from a write that failed to the next attempt
    KeyRing keys;                        ///< that open what is sealed; the last one seals, when `seal` says so
    bool seal = false;                   ///< AES-256-GCM for what is written from now on
    std::function<std::int64_t()> wall = wall_ms;      ///< the wall clock, Unix ms
    std::shared_ptr<RecoveryProgress> progress;   ///< null: nobody looks
    /// What the files are written through; null: the machine's own. Tests put one with faults here.
    std::shared_ptr<rocksdb::FileSystem> file_system;
};

/// The broker's state on disk (RocksDB): one store for all workers, one thread that writes and syncs what they hand in. A group
/// of batches shares one sync. Core: control, but for the engines, each of which belongs to its worker.
///
/// A batch is durable for its worker once it is on disk and, for the mail it caused, the batches of the workers that got that
/// mail are too: an acknowledgement covers every queue the message went into.
class Durable {
  public:
    /// Opens or makes the folder (mode 0700). Errors name the folder, what is wrong and the cure; nothing is ever begun anew in
    /// silence. A damaged file is set aside and told in notice().
    static Result<std::unique_ptr<Durable>> open(DurableOptions options);
    virtual ~Durable() = default;
    /// The engine of one worker. `wake` is called from the writer's thread when durable() moved on.
    /// `overflow`: for what has no place in memory; null: none.
    virtual std::unique_ptr<Engine> engine(std::uint32_t worker, std::function<void()> wake, OverflowLane* overflow = nullptr) = 0;
    /// Batches are counted as they are made, and in this cell as they are written. Before start().
    virtual void count_in(mqtt::MessageBytes& cell) = 0;
    /// Nothing was kept here yet.
    [[nodiscard]] virtual bool is_empty() const = 0;
    /// From now on for so many workers. All engines have nothing that is not durable, and their workers do not run; they are made anew.
    virtual void resize(std::uint32_t workers) = 0;
    /// Sessions have changed workers, and each engine has committed what that took.
    virtual void end_resize() = 0;
    /// After all engines are made and recovered.
    virtual void start() = 0;
    /// Writes what was handed in, then ends the thread.
    virtual void stop() = 0;

    struct Figures {
        std::uint64_t syncs = 0, batches = 0, bytes_written = 0, writes_failed = 0;
        std::int64_t disk_bytes = 0;
        DurationHistogram sync_durations;                  ///< of those that went well
        double recovery_seconds = 0;     ///< from open() to start(): reading the log, sweeping, handing out
        std::string fault, notice;
        std::size_t files = 0;           ///< sealable ones
        std::size_t files_to_rewrite = 0;///< sealed with an older key, or in the clear and should not be, or the other way round
        std::string rewriting_fault;     ///< why that does not go on
    };
    [[nodiscard]] virtual Figures figures() const = 0;
    virtual void set_limits(int sync_interval_ms, std::int64_t size_max) = 0;
    /// Another key, or none: what is written from now on has it, and what is there is rewritten in the background. The keys that
    /// figures().files_to_rewrite still needs must stay in the ring.
    virtual void set_keys(KeyRing keys, bool seal) = 0;
    /// A consistent copy into a folder that does not exist yet, while running.
    virtual Result<void> copy_to(const std::string& folder) = 0;
};

}  // namespace penstock::store
