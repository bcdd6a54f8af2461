#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::log {

struct Line;

/// Writes lines to descriptors on a thread of its own: whoever logs never waits for a terminal, pipe, socket or disk that takes
/// nothing, takes it slowly, or is closed. At most 5,000 lines and 4 MiB wait; beyond, the oldest are lost. What was lost is counted
/// and told in a line of its own in the place of the lost ones, as soon as a line can be written again.
/// Any thread.
class Output {
  public:
    struct Options {
        int descriptor = 2;              ///< for lines and for what is told about lost ones; not owned
        std::size_t lines_max = 5000, bytes_max = 4 << 20;
        /// The line that tells of lost ones, with its newline.
        std::function<std::string(std::uint64_t lost, const std::string& why)> tell_lost;
        /// Takes a line in the place of the descriptor, on the thread, as a whole or not at all; false: `why` it did not.
        std::function<bool(std::string_view line, std::string& why)> take = {};
        /// Called about once a second on the thread while no line comes; false: `why` the next one will not be taken.
        /// When it will be, what was lost is told without waiting for that one.
        std::function<bool(std::string& why)> look = {};
    };
    struct Figures {
        std::uint64_t lost = 0;          ///< lines, since the start
        std::string fault;               ///< why the last line was not written, or the next one will not be; empty: it was
        std::int64_t busy_ms = 0;        ///< how long the thread has been at one line or look; 0: it waits for a line
    };

    explicit Output(Options options);
    /// Does not wait: the thread ends by itself when it has written what is there (flush() waits for that).
    ~Output();
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

    /// Takes a line with its newline. Never waits for a descriptor.
    void add(std::string line);
    /// The same for another descriptor than that of the options.
    void add(int descriptor, std::string text);
    /// Waits until all that was added is written, at most so long. False: it is not.
    bool flush(int milliseconds);
    /// The same from a signal handler of a process that is about to die: no lock, no memory.
    void flush_in_crash(int milliseconds) const noexcept;
    [[nodiscard]] Figures figures() const;

  private:
    struct State;
    std::shared_ptr<State> state_;       ///< the thread's too, which may outlive this
};

/// While one lives, log::write and print go through an Output for standard error, and a crash (SIGABRT, SIGSEGV, SIGBUS, SIGFPE,
/// SIGILL) waits up to half a second for what was logged before it. Made before the first thread that logs, one in a process. Its
/// end waits up to two seconds for what is not written yet.
class BackgroundOutput {
  public:
    BackgroundOutput();
    ~BackgroundOutput();
    BackgroundOutput(const BackgroundOutput&) = delete;
    BackgroundOutput& operator=(const BackgroundOutput&) = delete;
};

/// Whether lines on standard error begin with their priority (`<6>`), which the journal takes and no person reads
/// (sd-daemon(3)); off at first. Kept lines have it always, as AIO's have. Any thread.
void show_priority(bool on) noexcept;
/// Text for people on standard output (1) or standard error (2), as it is, in order with the lines of the log.
void print(int descriptor, std::string text);
/// What log::write writes goes there, too, beginning with the lines that are kept. Null ends that. Answers what there was before.
std::unique_ptr<Output> write_also(std::unique_ptr<Output> other);
/// Of what write_also was given; zeros without one. Any thread, never waits for a descriptor.
Output::Figures also_figures();
/// A line that log::write made, as it is kept; nothing: it is none. Its number is 0.
std::optional<Line> read_line(std::string_view text);
/// The line that tells of lost ones. `where`: who did not take them.
std::string lost_line(std::uint64_t lost, std::string_view where, std::string_view why);
/// Of the BackgroundOutput; zeros without one.
Output::Figures output_figures();

}  // namespace penstock::log
